//! The fields that are ours: written last and exact, whatever the client sent.

use super::{BOTH, in_front};
use crate::harness::{Answer, H1, H2, Key, Request, Seen, Sidecar, Upstream, get, key_file_of, post};

fn writer() -> Key {
    Key::pair("writer").owner("acme").scopes(["read_write", "orders:read"]).with("mode = \"live\"")
}

/// The upstream is told whose request it is: once, and truly.
#[track_caller]
fn owned(seen: &Seen, context: &str) {
    let names: Vec<String> = seen.head.fields().into_iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    let ours: Vec<&String> = names.iter().filter(|name| name.replace(['_', '.'], "-").starts_with("x-key-")).collect();
    assert_eq!(ours, ["x-key-id", "x-key-owner", "x-key-scopes", "x-key-mode"], "{context}");
    assert_eq!(seen.field("x-key-id"), "key_writer", "{context}");
    assert_eq!(seen.field("x-key-owner"), "acme", "{context}");
    assert_eq!(seen.field("x-key-scopes"), "read_write orders:read", "{context}");
    assert_eq!(seen.field("x-key-mode"), "live", "{context}");
}

#[tokio::test]
async fn the_upstream_gets_the_request_and_whose_it_is() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    for version in BOTH {
        let request = post("/v1/orders?page=2", "{\"n\":1}").key(&key).field("X-Own", "kept").field("Accept", "*/*");
        let answer = sidecar.send(version, request).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"), "{version:?}");

        let seen = upstream.last();
        let context = format!("{version:?}: {}", String::from_utf8_lossy(&seen.head.raw));
        assert_eq!(seen.head.line(), "POST /v1/orders?page=2 HTTP/1.1", "{context}");
        assert_eq!(seen.body, b"{\"n\":1}", "{context}");
        assert_eq!(seen.field("content-length"), "7", "{context}");
        assert_eq!(seen.field("host"), "api.example.com", "{context}");
        assert_eq!((seen.field("x-own"), seen.field("accept")), ("kept".into(), "*/*".into()), "{context}");
        assert!(!seen.has("authorization"), "{context}");
        owned(&seen, &context);
        assert_eq!(seen.field("x-request-id"), answer.field("x-request-id"), "{context}");
        assert_eq!(seen.field("x-forwarded-for"), "127.0.0.1", "{context}");
        assert_eq!(seen.field("x-forwarded-proto"), "https", "{context}");
        assert_eq!(seen.field("x-forwarded-host"), "api.example.com", "{context}");
        assert_eq!(seen.field("forwarded"), "for=127.0.0.1;host=\"api.example.com\";proto=https", "{context}");
        let via = if version == H1 { "1.1 keyside" } else { "2 keyside" };
        assert_eq!(seen.field("via"), via, "{context}");
        let trace = seen.field("traceparent");
        let parts: Vec<usize> = trace.split('-').map(str::len).collect();
        assert_eq!(parts, [2, 32, 16, 2], "{context}");
    }
}

#[tokio::test]
async fn no_spelling_of_an_owner_header_arrives() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config("[policy]\nodd_field_names = \"drop\"")).await;
    type Spoof = fn(Request) -> Request;
    let rows: [(&str, Spoof); 14] = [
        ("the name itself", |request| request.field("X-Key-Owner", "boss")),
        ("another case", |request| request.field("x-KEY-oWNER", "boss")),
        ("twice", |request| request.field("X-Key-Owner", "boss").field("x-key-owner", "chief")),
        ("an underscore", |request| request.field("X_Key_Owner", "boss")),
        ("mixed underscores", |request| request.field("X-Key_Owner", "boss")),
        ("a dot", |request| request.field("X.Key.Owner", "boss")),
        ("another odd byte", |request| request.field("X~Key!Owner", "boss")),
        ("under the prefix, never ours", |request| request.field("X-Key-Admin", "true")),
        ("the prefix with an underscore", |request| request.field("X_Key-Admin", "true")),
        ("empty", |request| request.field("X-Key-Owner", "")),
        ("an empty mode", |request| request.field("X-Key-Mode", "")),
        ("the id of another key", |request| request.field("X-Key-Id", "key_other")),
        ("more scopes", |request| request.field("X-Key-Scopes", "admin")),
        ("all of them", |request| {
            ["id", "owner", "scopes", "mode"].iter().fold(request, |all, name| all.field(&format!("X-Key-{name}"), "x"))
        }),
    ];
    for (rule, spoof) in rows {
        for version in BOTH {
            let answer = sidecar.send(version, spoof(get("/").key(&key))).await;
            assert_eq!(answer.status, 200, "{rule} over {version:?}: {answer:?}");
            let seen = upstream.last();
            owned(&seen, &format!("{rule} over {version:?}: {}", String::from_utf8_lossy(&seen.head.raw)));
        }
    }
}

/// `Connection` nominates fields of the client for removal; it never reaches ours.
#[tokio::test]
async fn no_nomination_takes_our_fields_away() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let rows = [
        "X-Key-Owner",
        "x-key-owner, X-KEY-ID",
        "keep-alive,,x-key-mode ,x-key-scopes",
        "close, x-key-owner",
        "X-Request-Id, X-Forwarded-For, X-Forwarded-Proto, Forwarded, Via, traceparent",
        "Host, Content-Length, Transfer-Encoding",
        "x-key-owner\u{e9}, x-key-owner",
    ];
    for nominated in rows {
        let request = post("/", "body").key(&key).field("Connection", nominated).field("connection", "X-Key-Owner");
        let answer = sidecar.ask(request).await;
        assert_eq!(answer.status, 200, "{nominated}: {answer:?}");
        let seen = upstream.last();
        let context = format!("{nominated}: {}", String::from_utf8_lossy(&seen.head.raw));
        owned(&seen, &context);
        assert_eq!((seen.field("host").as_str(), &*seen.body), ("api.example.com", &b"body"[..]), "{context}");
        for name in ["x-request-id", "x-forwarded-for", "x-forwarded-proto", "forwarded", "via", "traceparent"] {
            assert!(seen.has(name), "{name}: {context}");
        }
    }
}

/// Trailers are fields, too: none of them becomes an owner header, announced or not.
#[tokio::test]
async fn no_trailer_is_an_owner_header() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    for version in BOTH {
        for announced in ["X-Key-Owner, X-Sum", "x-key-owner", ""] {
            let mut request = post("/", "").key(&key).chunks(["one", "two"]);
            if !announced.is_empty() {
                request = request.field("Trailer", announced);
            }
            let request = request.trailer("X-Key-Owner", "boss").trailer("X-Sum", "1").trailer("Authorization", "x");
            let answer = sidecar.send(version, request).await;
            assert_eq!(answer.status, 200, "{version:?}: {answer:?}");
            let seen = upstream.last();
            let context = format!("{version:?}, announced {announced:?}: {seen:?}");
            owned(&seen, &context);
            assert_eq!(seen.body, b"onetwo", "{context}");
            let ours = |(name, _): &(String, String)| !name.eq_ignore_ascii_case("x-sum");
            assert!(!seen.trailers.iter().any(ours), "{context}");
            assert!(!seen.field("trailer").to_ascii_lowercase().contains("x-key"), "{context}");
        }
    }
}

/// Every way to present a credential ends here; so does an `Authorization` that was none.
#[tokio::test]
async fn the_credential_does_not_reach_the_upstream() {
    let (pair, token) = (Key::pair("pair"), Key::token("token"));
    let upstream = Upstream::start().await;
    let config = r#"
        [credentials]
        header = "X-API-Key"
        query = { key = "consumer_key", secret = "consumer_secret" }
    "#;
    let sidecar = Sidecar::in_front_of(&upstream).config(config).keys([&pair, &token]).start().await;
    let query = format!("/?a=1&consumer_key={}&consumer_secret={}&b=2", pair.public, pair.secret);
    let rows = [
        ("Basic", get("/").key(&pair)),
        ("Bearer", get("/").key(&token)),
        ("the header", get("/").field("X-API-Key", &token.secret)),
        ("a token as Basic user", get("/").basic(&token.secret, "")),
        ("the query", get(&query)),
        (
            "the header beside another Authorization",
            get("/").field("X-API-Key", &token.secret).field("Authorization", "Digest a"),
        ),
    ];
    for (way, request) in rows {
        for version in BOTH {
            let answer = sidecar.send(version, request.clone()).await;
            assert_eq!(answer.status, 200, "{way}: {answer:?}");
            let seen = upstream.last();
            let head = String::from_utf8_lossy(&seen.head.raw).into_owned();
            for secret in [&pair.secret, &pair.public, &token.secret] {
                assert!(!head.contains(secret.as_str()), "{way}: {head}");
            }
            for name in ["authorization", "x-api-key", "proxy-authorization"] {
                assert!(!seen.has(name), "{way}: {head}");
            }
            if way == "the query" {
                assert_eq!(seen.target(), "/?a=1&b=2");
            }
        }
    }
}

/// What one upstream is sent as Authorization, another one never sees; a route's own gets the route's.
#[tokio::test]
async fn each_upstream_gets_its_own_authorization() {
    let key = Key::token("t");
    let [main, own, bare] = [Upstream::start().await, Upstream::start().await, Upstream::start().await];
    let config = format!(
        "[upstream]\nauthorization = {{ file = \"main-authorization\" }}\n\
         [[route]]\npath = \"/own/**\"\nupstream = {:?}\nauthorization = {{ file = \"own-authorization\" }}\n\
         [[route]]\npath = \"/bare/**\"\nupstream = {:?}\n[[route]]\npath = \"/**\"\n",
        own.url(),
        bare.url()
    );
    let sidecar = Sidecar::in_front_of(&main)
        .file("main-authorization", "Bearer of-the-first\n")
        .file("own-authorization", "Bearer of-the-route\n")
        .config(&config)
        .keys([&key])
        .start()
        .await;
    for version in BOTH {
        for path in ["/", "/own/a", "/bare/a"] {
            assert_eq!(sidecar.send(version, get(path).key(&key)).await.status, 200);
        }
        assert_eq!(main.last().field("authorization"), "Bearer of-the-first");
        assert_eq!(own.last().field("authorization"), "Bearer of-the-route");
        assert!(!bare.last().has("authorization"));
    }
}

/// What else is done with an `Authorization` that is not the credential is a setting.
#[tokio::test]
async fn another_authorization_passes_or_is_refused_when_asked_for() {
    let token = Key::token("token");
    let request = || get("/").field("X-API-Key", &token.secret).field("Authorization", "Digest user=\"a\"");
    for (setting, status, forwarded) in [("strip", 200, ""), ("pass", 200, "Digest user=\"a\""), ("refuse", 400, "")] {
        let config = format!("[credentials]\nheader = \"X-API-Key\"\nother_authorization = {setting:?}");
        let (upstream, sidecar) = in_front(&token, |sidecar| sidecar.config(&config)).await;
        assert_eq!(sidecar.ask(request()).await.status, status, "{setting}");
        let seen = upstream.seen();
        assert_eq!(seen.first().map(|seen| seen.field("authorization")).unwrap_or_default(), forwarded, "{setting}");
    }
}

/// The upstream's own credential, where it has one, takes the place of the caller's.
#[tokio::test]
async fn the_upstream_gets_a_credential_of_its_own() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| {
        sidecar
            .config("[upstream]\nauthorization = { file = \"upstream-secret\" }")
            .file("upstream-secret", "Bearer of-the-sidecar\n")
    })
    .await;
    for version in [H1, H2] {
        assert_eq!(sidecar.send(version, get("/").key(&key)).await.status, 200);
        assert_eq!(upstream.last().field("authorization"), "Bearer of-the-sidecar");
    }
    assert!(!sidecar.printed().contains("of-the-sidecar"));
}

/// The names are the user's to choose, and what they chose is what is reserved.
#[tokio::test]
async fn owner_headers_go_by_the_configured_names() {
    let key = Key::pair("key").owner("acme");
    let config = r#"
        [owner_headers]
        reserved_prefix = "X-Caller-"
        key_id = "X-Caller-Key"
        owner = "X-Remote-User"
        scopes = "X-Caller-Scopes"
        mode = "X-Caller-Mode"
    "#;
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(config)).await;
    let spoofed = ["X-Remote-User", "X-Caller-Key", "X-Caller-Mode", "X-Caller-Admin"];
    let request = spoofed.iter().fold(get("/").key(&key), |request, name| request.field(name, "boss"));
    assert_eq!(sidecar.ask(request.field("X-Key-Owner", "passes")).await.status, 200);
    let seen = upstream.only();
    assert_eq!((seen.field("x-remote-user"), seen.field("x-caller-key")), ("acme".into(), "key_key".into()));
    assert_eq!(seen.field("x-caller-scopes"), "read");
    assert!(!seen.has("x-caller-mode") && !seen.has("x-caller-admin"), "{seen:?}");
    assert_eq!(seen.field("x-key-owner"), "passes");
}

/// Neither does an upstream's answer speak under our names.
#[tokio::test]
async fn an_answer_carries_no_owner_header() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let fields = [("X-Key-Owner", "acme"), ("x-key-secret", "1"), ("X-Request-Id", "theirs"), ("X-Own", "kept")];
    upstream.on("/", Answer::with(200, &fields, "ok"));
    upstream.on("/chunked", Answer::chunked(&[("Trailer", "X-Key-Owner")], &["ok"], &[("X-Key-Owner", "acme")]));
    for version in BOTH {
        let answer = sidecar.send(version, get("/").key(&key)).await;
        assert!(!answer.has("x-key-owner") && !answer.has("x-key-secret"), "{answer:?}");
        assert_eq!(answer.field("x-own"), "kept");
        assert_eq!(answer.field("x-request-id"), upstream.last().field("x-request-id"));
        let answer = sidecar.send(version, get("/chunked").key(&key).field("TE", "trailers")).await;
        assert_eq!((answer.text().as_str(), answer.trailers.len()), ("ok", 0), "{answer:?}");
    }
}

/// Where no key was asked for, there is nobody to name.
#[tokio::test]
async fn an_open_route_has_no_owner_and_no_credential() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let config = r#"
        [credentials]
        header = "X-API-Key"
        [[route]]
        path = "/open/**"
        public = true
        [[route]]
        path = "/watched"
        scope = "write"
        mode = "observe"
    "#;
    let sidecar = Sidecar::in_front_of(&upstream).config(config).key_file(key_file_of("", [&key])).start().await;
    let spoof = |request: Request| request.field("X-Key-Owner", "boss");
    let rows = [
        ("public without a credential", get("/open/door")),
        ("public with one", get("/open/door").key(&key)),
        ("public with a wrong one", get("/open/door").basic("ck_x", "cs_wrong")),
        ("public with a header", get("/open/door").field("X-API-Key", "whatever")),
        ("observed, without a credential", get("/watched")),
        ("observed, with too narrow a scope", get("/watched").key(&key)),
    ];
    for (rule, request) in rows {
        for version in BOTH {
            let answer = sidecar.send(version, spoof(request.clone())).await;
            assert_eq!(answer.status, 200, "{rule}: {answer:?}");
            let seen = upstream.last();
            let head = String::from_utf8_lossy(&seen.head.raw).to_ascii_lowercase();
            assert!(!head.contains("x-key-"), "{rule}: {head}");
            assert!(!head.contains("authorization:") && !head.contains("x-api-key:"), "{rule}: {head}");
        }
    }
    sidecar.counts("keyside_observed_rejections_total", &[("reason", "missing_credentials")], 2).await;
    sidecar.counts("keyside_observed_rejections_total", &[("reason", "insufficient_scope")], 2).await;
    sidecar.counts("keyside_requests_total", &[("outcome", "observed")], 4).await;
}
