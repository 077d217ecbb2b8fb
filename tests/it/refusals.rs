//! Every row of the table of refusals, reached through the real binary, over HTTP/1.1 and HTTP/2 where both can; and
//! what every refusal carries. The order of refusals is in `order`, their limits in `limits`.

use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use futures_util::FutureExt as _;
use keyside::rejection::{Reason, TABLE};

use crate::harness::{
    Answer, Gate, H1, H2, Key, Received, Request, Sidecar, Upstream, Version, get, key_file_of, post, request,
};

/// Both versions of HTTP.
const BOTH: [Version; 2] = [H1, H2];

/// A sidecar, the upstream behind it, and which rows of the table were reached through them.
struct Bench {
    sidecar: Sidecar,
    upstream: Upstream,
    reached: Reached,
}

/// All rows are tried, also after one that failed: what failed is told at the end.
async fn tried(reached: &Reached, row: impl Future<Output = ()>) {
    if AssertUnwindSafe(row).catch_unwind().await.is_err() {
        reached.failed.fetch_add(1, Relaxed);
    }
}

/// Which rows were reached, and how many tries failed.
#[derive(Clone, Default)]
struct Reached {
    rows: Arc<Mutex<BTreeSet<Reason>>>,
    failed: Arc<AtomicUsize>,
}

const ALL_CREDENTIALS: &str = "[credentials]\nheader = \"X-API-Key\"";

impl Bench {
    async fn new(reached: &Reached, config: &str, owners: &str, keys: &[&Key]) -> Self {
        let upstream = Upstream::start().await;
        let sidecar = Sidecar::in_front_of(&upstream)
            .config(ALL_CREDENTIALS)
            .config(config)
            .key_file(key_file_of(owners, keys.iter().copied()))
            .start()
            .await;
        Self { sidecar, upstream, reached: reached.clone() }
    }

    /// The request is refused for this reason, over each version, with all that such a refusal carries.
    async fn refuses(&self, rule: &str, reason: Reason, versions: &[Version], request: Request) {
        for &version in versions {
            tried(&self.reached, self.refuses_once(rule, reason, version, &request)).await;
        }
        // To HEAD goes the same head without a body.
        if request.method == "GET" && versions.contains(&H1) {
            for &version in versions {
                tried(&self.reached, async {
                    let answer = self.sidecar.send(version, request.clone().method("HEAD")).await;
                    let expected = (reason.row().status, 0);
                    assert_eq!((answer.status, answer.body.len()), expected, "HEAD: {rule}: {answer:?}");
                })
                .await;
            }
        }
    }

    async fn refuses_once(&self, rule: &str, reason: Reason, version: Version, request: &Request) {
        let metric = if reason.is_upstream() { "keyside_upstream_failures_total" } else { "keyside_rejections_total" };
        let labels = [("reason", reason.label())];
        let before = self.sidecar.metrics().await.value(metric, &labels);
        let seen = self.upstream.count();

        let answer = self.sidecar.send(version, request.clone()).await;

        let context = format!("{rule} over {version:?}: {request:?}\n{answer:?}");
        let row = reason.row();
        assert_eq!((answer.status, &*answer.code()), (row.status, row.code), "{context}");
        complete(reason, &answer, &context);
        self.sidecar.counts(metric, &labels, before as u64 + 1).await;
        let line = self.sidecar.logged(answer.field("x-request-id")).await;
        assert_eq!(line["reason"], row.label, "{context}\n{line}");
        assert_eq!(line["status"], row.status, "{context}\n{line}");
        // Of a body that stood still, the upstream saw the beginning.
        if !reason.is_upstream() && reason != Reason::RequestTimeout {
            assert_eq!(self.upstream.count(), seen, "the upstream saw something of {context}");
        }
        self.reached.rows.lock().unwrap().insert(reason);
    }
}

/// What every refusal of this kind carries, in the problem format (RFC 9457).
#[track_caller]
fn complete(reason: Reason, answer: &Received, context: &str) {
    let request_id = answer.field("x-request-id");
    assert!(!request_id.is_empty(), "no request id: {context}");
    assert_eq!(answer.field("content-type"), "application/problem+json", "{context}");
    let body = answer.json();
    assert_eq!(body["status"], answer.status, "{context}");
    assert_eq!(body["request_id"], request_id, "{context}");
    assert!(body["title"].is_string(), "{context}");

    let challenges = answer.all("www-authenticate");
    match reason {
        Reason::InsufficientScope => {
            let scope = |challenge: &&str| {
                challenge.starts_with("Bearer") && challenge.contains("error=\"insufficient_scope\"")
            };
            assert!(challenges.iter().any(scope), "{context}");
        }
        _ if answer.status == 401 => {
            for scheme in ["Basic ", "Bearer ", "ApiKey "] {
                let count = challenges.iter().filter(|challenge| challenge.starts_with(scheme)).count();
                assert_eq!(count, 1, "{scheme}: {context}");
            }
            // RFC 6750 §3.1: a caller without a token is told of no error.
            let bearer = challenges.iter().find(|challenge| challenge.starts_with("Bearer "));
            let error = bearer.is_some_and(|challenge| challenge.ends_with("error=\"invalid_token\""));
            assert_eq!(error, reason.is_failed_authentication(), "{context}");
            let named = challenges.iter().any(|challenge| challenge.contains("header=\"X-API-Key\""));
            assert!(named, "{context}");
        }
        _ => assert!(challenges.is_empty(), "{context}"),
    }
    let retry_after: Option<u64> = answer.field("retry-after").parse().ok();
    match answer.status {
        429 | 503 => assert!(retry_after.is_some_and(|seconds| seconds >= 1), "{context}"),
        _ => assert_eq!(answer.field("retry-after"), "", "{context}"),
    }
    assert_eq!(answer.status == 405, answer.has("allow"), "{context}");
}

#[tokio::test]
async fn every_row_of_the_table_is_reached() {
    let reached = Reached::default();
    tokio::join!(
        messages(&reached),
        overridden_methods(&reached),
        credentials(&reached),
        rights(&reached),
        limits(&reached),
        failures(&reached),
        no_keys(&reached),
        overload(&reached),
        no_upstream(&reached),
    );
    let missing: Vec<&str> = TABLE
        .iter()
        // A fault of our own; whoever finds a way to it has found a bug.
        .filter(|row| row.reason != Reason::Internal)
        .filter(|row| !reached.rows.lock().unwrap().contains(&row.reason))
        .map(|row| row.label)
        .collect();
    let failed = reached.failed.load(Relaxed);
    assert!(missing.is_empty() && failed == 0, "{failed} failed, as said above; not reached: {missing:?}");
}

/// What is not a clear request.
async fn messages(reached: &Reached) {
    let key = Key::pair("key").scopes(["read_write"]);
    let config = r#"
        [listen]
        max_body = "1KiB"
        max_header_bytes = "16KiB"
        [listen.timeouts]
        body = "1s"
    "#;
    let bench = Bench::new(reached, config, "", &[&key]).await;
    let clear = |request: Request| request.key(&key);

    let odd_coding = clear(get("/")).field("Transfer-Encoding", "gzip, chunked");
    bench.refuses("only chunked frames a body", Reason::AmbiguousFraming, &[H1], odd_coding).await;
    let two_hosts = clear(get("/")).field("Host", "other.example.com");
    bench.refuses("one host is named", Reason::AmbiguousHost, &BOTH, two_hosts).await;
    bench.refuses("a host is named", Reason::AmbiguousHost, &[H1], clear(get("/")).host("")).await;
    let odd_name = clear(get("/")).field("X_Key_Owner", "boss");
    bench.refuses("no name folds onto another", Reason::AmbiguousFieldName, &BOTH, odd_name).await;
    for path in ["/a/../b", "/a/%2e%2e/b", "/a//b", "/a%2Fb", "/a%5Cb", "/a;b", "/a%00", "/%252e", "/%zz", "/a\\b"] {
        bench.refuses(path, Reason::AmbiguousPath, &[H1], clear(get(path))).await;
    }
    for path in ["/a/../b", "/a/%2e%2e/b", "/a//b", "/a%2Fb", "/a%5Cb", "/a;b", "/a%00", "/%252e", "/%zz"] {
        bench.refuses(path, Reason::AmbiguousPath, &[H2], clear(get(path))).await;
    }
    for method in ["TRACE", "PURGE", "post"] {
        bench.refuses(method, Reason::MethodNotAllowed, &BOTH, clear(request(method, "/"))).await;
    }
    let too_slow = clear(post("/", "begun")).stalled();
    bench.refuses("a body arrives", Reason::RequestTimeout, &BOTH, too_slow).await;
    let too_large = clear(post("/", "x".repeat(1025)));
    bench.refuses("a declared length is within max_body", Reason::BodyTooLarge, &BOTH, too_large).await;
    let too_long = clear(get(&format!("/{}", "x".repeat(12 * 1024))));
    bench.refuses("a target has some kilobytes at most", Reason::UriTooLong, &BOTH, too_long).await;
    let too_many = clear(get("/")).field("X-Long", "x".repeat(17 * 1024));
    bench.refuses("a head is within max_header_bytes", Reason::HeadersTooLarge, &BOTH, too_many).await;
}

async fn overridden_methods(reached: &Reached) {
    let writer = Key::pair("writer").scopes(["read_write"]);
    let bench = Bench::new(reached, "[policy]\nmethod_override = \"refuse\"", "", &[&writer]).await;
    for target in ["/?_method=DELETE", "/?.method=DELETE", "/?%20_method%00=DELETE"] {
        bench.refuses(target, Reason::AmbiguousMethod, &BOTH, get(target).key(&writer)).await;
    }
    let by_field = get("/").key(&writer).field("X-HTTP-Method-Override", "DELETE");
    bench.refuses("a field overrides nothing", Reason::AmbiguousMethod, &BOTH, by_field).await;
}

/// Who is not known here.
async fn credentials(reached: &Reached) {
    let owners = "[[owner]]\nid = \"gone\"\nsuspended_at = 2026-01-02T00:00:00Z\n";
    let pair = Key::pair("pair");
    let token = Key::token("token");
    let revoked = Key::pair("revoked").with("revoked_at = 2026-01-02T00:00:00Z");
    let expired = Key::pair("expired").with("expires_at = 2026-01-02T00:00:00Z");
    let suspended = Key::pair("suspended").owner("gone");
    let keys = [&pair, &token, &revoked, &expired, &suspended];
    let bench = Bench::new(reached, "[limits]\nfailures_per_ip = [\"10000/1m\"]", owners, &keys).await;

    let two = get("/").key(&pair).field("X-API-Key", &token.secret);
    bench.refuses("one credential is presented", Reason::AmbiguousCredentials, &BOTH, two).await;
    let repeated = get("/").key(&pair).key(&token);
    bench.refuses("Authorization stands once", Reason::AmbiguousCredentials, &BOTH, repeated).await;
    bench.refuses("a credential is presented", Reason::MissingCredentials, &BOTH, get("/")).await;
    for broken in ["Basic !!!", "Basic", "Basic bm8tY29sb24=", "Bearer", "Bearer two words"] {
        let broken = get("/").field("Authorization", broken);
        bench.refuses("a credential can be read", Reason::Malformed, &BOTH, broken).await;
    }
    let nobody = Key::pair("nobody");
    bench.refuses("a key is in the set", Reason::UnknownKey, &BOTH, get("/").key(&nobody)).await;
    let stranger = get("/").bearer("ck_live_000000000000000000000000");
    bench.refuses("a token is in the set", Reason::UnknownKey, &BOTH, stranger).await;
    let mistaken = get("/").basic(&pair.public, "cs_0000000000000000000000000000000000000000");
    bench.refuses("a secret is the key's", Reason::WrongSecret, &BOTH, mistaken).await;
    bench.refuses("a revoked key is dead", Reason::Revoked, &BOTH, get("/").key(&revoked)).await;
    bench.refuses("an expired key is dead", Reason::Expired, &BOTH, get("/").key(&expired)).await;
    bench.refuses("a suspended owner's key is dead", Reason::OwnerSuspended, &BOTH, get("/").key(&suspended)).await;
}

/// Who is known, and may not.
async fn rights(reached: &Reached) {
    let owners = "[[owner]]\nid = \"plain\"\nkyc = \"pending\"\n";
    let reader = Key::pair("reader").owner("plain");
    let elsewhere = Key::pair("elsewhere").with("allow_ips = [\"203.0.113.42\"]");
    let test = Key::token("test").with("mode = \"test\"");
    let config = r#"
        [hosts]
        "live.example.com" = "live"
        [[route]]
        path = "/things/**"
        methods = ["GET"]
        scope = "read"
        [[route]]
        path = "/things/**"
        methods = ["POST"]
        scope = "write"
        [[route]]
        path = "/admin"
        capability = "manage"
        [[route]]
        path = "/money"
        kyc = true
    "#;
    let bench = Bench::new(reached, config, owners, &[&reader, &elsewhere, &test]).await;
    let away = get("/things").key(&elsewhere);
    bench.refuses("a key is used from its addresses", Reason::ForbiddenCallerIp, &BOTH, away).await;
    for host in ["live.example.com", "LIVE.example.com:443", "unlisted.example.com"] {
        let mixed = get("/things").host(host).key(&test);
        bench.refuses("a mode stays on its hosts", Reason::ModeMismatch, &BOTH, mixed).await;
    }
    for path in ["/", "/thing", "/thingsandmore", "/admin/below"] {
        bench.refuses(path, Reason::RouteNotAllowed, &BOTH, get(path).key(&reader)).await;
    }
    let unlisted = request("DELETE", "/things/1").key(&reader);
    bench.refuses("a known path with another method", Reason::RouteNotAllowed, &BOTH, unlisted).await;
    let write = post("/things", "{}").key(&reader);
    bench.refuses("read does not write", Reason::InsufficientScope, &BOTH, write).await;
    let admin = get("/admin").key(&reader);
    bench.refuses("an owner has the capability", Reason::PermissionDenied, &BOTH, admin).await;
    let money = get("/money").key(&reader);
    bench.refuses("an owner's KYC is approved", Reason::KycRequired, &BOTH, money).await;
}

/// Who asked too often.
async fn limits(reached: &Reached) {
    let key = Key::pair("key").with("limits = [\"1/1m\"]");
    let bench = Bench::new(reached, "[limits]\nper_ip = []", "", &[&key]).await;
    assert_eq!(bench.sidecar.ask(get("/").key(&key)).await.status, 200);
    bench.refuses("a key has its allowance", Reason::KeyLimit, &BOTH, get("/").key(&key)).await;

    let (one, other) = (Key::pair("one"), Key::pair("other"));
    let bench = Bench::new(reached, "[limits]\nper_ip = []\nper_owner = [\"1/1m\"]", "", &[&one, &other]).await;
    assert_eq!(bench.sidecar.ask(get("/").key(&one)).await.status, 200);
    bench.refuses("an owner's keys share", Reason::OwnerLimit, &BOTH, get("/").key(&other)).await;

    let bench = Bench::new(reached, "[limits]\nper_ip = [\"1/1m\"]", "", &[&one]).await;
    assert_eq!(bench.sidecar.ask(get("/").key(&one)).await.status, 200);
    bench.refuses("an address has its allowance", Reason::IpLimit, &BOTH, get("/").key(&one)).await;
}

async fn failures(reached: &Reached) {
    let key = Key::pair("key");
    let bench = Bench::new(reached, "[limits]\nfailures_per_ip = [\"1/1m\"]", "", &[&key]).await;
    let wrong = get("/").basic(&key.public, "cs_wrong");
    assert_eq!(bench.sidecar.ask(wrong.clone()).await.status, 401);
    bench.refuses("an address fails so often", Reason::FailureLimit, &BOTH, wrong).await;
    let unseen = get("/").key(&key);
    bench.refuses("who was never verified here waits too", Reason::FailureLimit, &BOTH, unseen).await;
}

/// Without a key set, nobody is let in, and nobody is told that a key would help.
async fn no_keys(reached: &Reached) {
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).config(ALL_CREDENTIALS).ready_or_not().start().await;
    assert_eq!(sidecar.admin("GET", "/readyz").await.status, 503);
    let bench = Bench { sidecar, upstream, reached: reached.clone() };
    bench.refuses("there are keys", Reason::KeysUnavailable, &BOTH, get("/").key(&Key::pair("any"))).await;
    bench.refuses("there are keys", Reason::KeysUnavailable, &BOTH, get("/")).await;
}

async fn overload(reached: &Reached) {
    let key = Key::pair("key");
    let bench = Bench::new(reached, "[upstream]\nmax_in_flight = 1", "", &[&key]).await;
    let gate = Gate::new();
    bench.upstream.on("/held", Answer::ok("held").behind(&gate));
    let mut held = bench.sidecar.connect(H1).await;
    let asked = get("/held").key(&key);
    tokio::join!(async { assert_eq!(held.send(&asked).await.status, 200) }, async {
        bench.upstream.request(1).await;
        bench.refuses("so many are in flight", Reason::Overloaded, &BOTH, get("/").key(&key)).await;
        gate.open();
    });
}

async fn no_upstream(reached: &Reached) {
    let key = Key::pair("key");
    let bench = Bench::new(reached, "[upstream]\nresponse_timeout = \"1s\"", "", &[&key]).await;
    bench.upstream.on("/silent", Answer::silence());
    let silent = get("/silent").key(&key);
    bench.refuses("the upstream answers in time", Reason::UpstreamTimeout, &BOTH, silent).await;
    bench.upstream.on("/hangs-up", Answer::hang_up());
    let hangs_up = get("/hangs-up").key(&key);
    bench.refuses("the upstream answers", Reason::UpstreamUnreachable, &BOTH, hangs_up).await;
}

#[track_caller]
fn check(answer: &Received, status: u16, content_type: &str, body: serde_json::Value) {
    assert_eq!(
        (answer.status, answer.field("content-type"), answer.json()),
        (status, content_type, body),
        "{answer:?}"
    );
}

/// Each format has a shape; which one is a setting.
#[tokio::test]
async fn a_refusal_speaks_the_configured_dialect() {
    let reader = Key::pair("reader");
    let denied = || post("/things", "{}").key(&reader);
    let ask = async |format: &str, request: Request| {
        let upstream = Upstream::start().await;
        let config = format!("[errors]\nformat = {format:?}");
        Sidecar::in_front_of(&upstream).config(&config).keys([&reader]).start().await.ask(request).await
    };
    let message = |answer: &Received, pointer: &str| answer.json().pointer(pointer).cloned().unwrap();

    let answer = ask("wordpress", denied()).await;
    let text = message(&answer, "/message");
    let body = serde_json::json!({"code": "insufficient_scope", "message": text, "data": {"status": 403}});
    check(&answer, 403, "application/json", body);

    let answer = ask("envelope", denied()).await;
    let text = message(&answer, "/error/message");
    let body = serde_json::json!({"success": false, "error": {"code": "insufficient_scope", "message": text}});
    check(&answer, 403, "application/json", body);

    // WooCommerce's own words and status; its credential failures are one.
    let answer = ask("woocommerce", denied()).await;
    let text = message(&answer, "/message");
    assert!(text.as_str().unwrap().starts_with("The API key provided does not have write permissions."), "{text}");
    let code = "woocommerce_rest_authentication_error";
    let body = serde_json::json!({"code": code, "message": text, "data": {"status": 401}});
    check(&answer, 401, "application/json", body);
    for request in [get("/").basic(&reader.public, "cs_wrong"), get("/").basic("ck_nobody", "cs_wrong")] {
        let answer = ask("woocommerce", request).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (401, Some("woocommerce_rest_authentication_error"))
        );
    }
}

/// The caller's id is kept where it is sane, so that both sides' logs meet; else a new one is made.
#[tokio::test]
async fn an_answer_names_the_request() {
    let reader = Key::pair("reader");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&reader]).start().await;
    for version in BOTH {
        for request in [get("/"), get("/").key(&reader)] {
            let named = sidecar.send(version, request.clone().field("X-Request-Id", "order-42/7.a")).await;
            assert_eq!(named.field("x-request-id"), "order-42/7.a", "{version:?}");
            for odd in ["with space", "", "<script>", &"x".repeat(129)] {
                let answer = sidecar.send(version, request.clone().field("X-Request-Id", odd)).await;
                let made = answer.field("x-request-id");
                assert!(made != odd && !made.is_empty(), "{version:?}: {odd:?} became {made:?}");
            }
            let twice = request.field("X-Request-Id", "a").field("X-Request-Id", "b");
            let answer = sidecar.send(version, twice).await;
            assert!(!answer.field("x-request-id").is_empty());
        }
    }
    let ids: BTreeSet<String> = upstream.seen().iter().map(|seen| seen.field("x-request-id")).collect();
    assert_eq!(
        ids.len(),
        upstream.count() - 1,
        "each request has an id of its own, but for the one sent twice: {ids:?}"
    );
}
