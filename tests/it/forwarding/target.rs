//! One target: what the policy judged is what the upstream sees.

use super::{BOTH, in_front};
use crate::harness::{H2, Key, get, post, request};

/// Rows of (sent, forwarded).
#[tokio::test]
async fn a_clear_target_arrives_in_one_spelling() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let rows = [
        ("/", "/"),
        ("/things/", "/things/"),
        ("/%74hings/%7Euser", "/things/~user"),
        ("/caf%c3%a9/a%20b", "/caf%C3%A9/a%20b"),
        ("/a+b@c:d,e'f(g)h!i*j=k&l$m", "/a+b@c:d,e'f(g)h!i*j=k&l$m"),
        ("/-._~", "/-._~"),
        ("/...", "/..."),
        ("/a.b/.well-known/x", "/a.b/.well-known/x"),
        ("/x?", "/x?"),
        ("/x?a=1&a=2&b", "/x?a=1&a=2&b"),
        ("/x?q=%2F..%2f;%zz//../", "/x?q=%2F..%2f;%zz//../"),
        ("/x?redirect=https://a/?b=c", "/x?redirect=https://a/?b=c"),
    ];
    for (sent, forwarded) in rows {
        for version in BOTH {
            let answer = sidecar.send(version, get(sent).key(&key)).await;
            assert_eq!(answer.status, 200, "{sent}: {answer:?}");
            assert_eq!(upstream.last().target(), forwarded, "{sent} over {version:?}");
        }
    }
}

/// A client that takes us for a forward proxy names the host twice; both must be one.
#[tokio::test]
async fn an_absolute_target_names_the_host_it_is_sent_to() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let sent = |target: &str, host: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {}\r\n\r\n", key.authorization())
    };
    let answer = sidecar.bytes(sent("https://api.example.com/things?x=1", "api.example.com")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(upstream.only().head.line(), "GET /things?x=1 HTTP/1.1");
    for (target, host) in [
        ("https://evil.example/things", "api.example.com"),
        ("https://user@api.example.com/things", "api.example.com"),
        ("things", "api.example.com"),
        ("/th\u{ef}ngs", "api.example.com"),
        ("/things\"", "api.example.com"),
        ("/things", "api.example.com, evil.example"),
        ("/things", "user@api.example.com"),
        ("/things", ""),
    ] {
        let answer = sidecar.bytes(sent(target, host)).await;
        assert_eq!(answer.status, 400, "{target} {host}: {answer:?}");
    }
    assert_eq!(upstream.count(), 1);
    // A fragment is never sent by a client that knows better; it is judged by nobody and goes nowhere.
    let answer = sidecar.bytes(sent("/things#fragment", "api.example.com")).await;
    assert!(answer.status == 400 || upstream.last().target() == "/things", "{answer:?}");
}

#[tokio::test]
async fn a_route_may_let_odd_characters_pass() {
    let key = Key::pair("key");
    let config = r#"
        [[route]]
        path = "/files/**"
        allow = ["%2F", ";"]
        [[route]]
        path = "/**"
    "#;
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(config)).await;
    for (sent, status) in
        [("/files/a%2Fb;v=1", 200), ("/files/a%2fb", 200), ("/a%2Fb", 400), ("/a;b", 400), ("/files/a%5Cb", 400)]
    {
        for version in BOTH {
            assert_eq!(sidecar.send(version, get(sent).key(&key)).await.status, status, "{sent} over {version:?}");
        }
    }
    assert_eq!(upstream.seen()[0].target(), "/files/a%2Fb;v=1");
}

/// The base of the upstream's url stands before every path.
#[tokio::test]
async fn an_upstream_has_a_base() {
    let key = Key::pair("key");
    let upstream = crate::harness::Upstream::start().await;
    let url = format!("{}/base/", upstream.url());
    let sidecar = crate::harness::Sidecar::in_front_of_url(&url).keys([&key]).start().await;
    assert_eq!(sidecar.ask(get("/v1?x=1").key(&key)).await.status, 200);
    assert_eq!(upstream.only().target(), "/base/v1?x=1");
}

/// The sent and the effective method must both be allowed; the request goes on unchanged.
#[tokio::test]
async fn an_overridden_method_needs_both_rights() {
    let key = Key::pair("reader");
    let writer = Key::pair("writer").scopes(["write"]);
    let both = Key::pair("both").scopes(["read_write"]);
    let upstream = crate::harness::Upstream::start().await;
    let sidecar = crate::harness::Sidecar::in_front_of(&upstream).keys([&key, &writer, &both]).start().await;
    let spellings =
        ["/?_method=DELETE", "/?%5Fmethod=DELETE", "/?.method=DELETE", "/?+_method=delete", "/?_method%00x=DELETE"];
    for target in spellings {
        for version in BOTH {
            assert_eq!(
                sidecar.send(version, get(target).key(&key)).await.brief(),
                "403 insufficient_scope",
                "{target}"
            );
            assert_eq!(
                sidecar.send(version, get(target).key(&writer)).await.brief(),
                "403 insufficient_scope",
                "{target}"
            );
            assert_eq!(sidecar.send(version, get(target).key(&both)).await.status, 200, "{target}");
            assert_eq!(upstream.last().head.line(), format!("GET {target} HTTP/1.1"));
        }
    }
    for name in ["X-HTTP-Method-Override", "x-http-method-override"] {
        let by_field = |key: &Key| post("/", "{}").key(key).field(name, "GET");
        assert_eq!(sidecar.ask(by_field(&writer)).await.brief(), "403 insufficient_scope");
        assert_eq!(sidecar.ask(by_field(&both)).await.status, 200);
        assert_eq!(upstream.last().field("x-http-method-override"), "GET");
    }
    for unknown in ["PURGE", "CONNECT"] {
        let answer = sidecar.ask(get(&format!("/?_method={unknown}")).key(&both)).await;
        assert!((400..=405).contains(&answer.status), "{unknown}: {answer:?}");
    }
}

/// A parameter that names the path to act on is judged as the path.
#[tokio::test]
async fn an_effective_path_is_judged_in_query_and_form() {
    let key = Key::pair("key").scopes(["read_write"]);
    let config = r#"
        [policy]
        effective_path_parameter = "rest_route"
        [[route]]
        path = "/"
        [[route]]
        path = "/index.php"
        [[route]]
        path = "/open/**"
        [[route]]
        path = "/secret/**"
        capability = "manage"
    "#;
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(config)).await;
    let form =
        |body: &str| post("/index.php", body).key(&key).field("Content-Type", "application/x-www-form-urlencoded");
    let rows = [
        (get("/?rest_route=/open/a").key(&key), "200"),
        (get("/?rest_route=/secret/a").key(&key), "403 permission_denied"),
        (get("/index.php?rest.route=%2Fsecret%2Fa").key(&key), "403 permission_denied"),
        (get("/?rest[route=/secret/a").key(&key), "403 permission_denied"),
        (get("/?rest_route=/open/../secret/a").key(&key), "400 bad_request"),
        (get("/?rest_route=/nowhere").key(&key), "403 route_not_allowed"),
        (form("a=1&rest_route=/open/a"), "200"),
        (form("a=1&rest_route=/secret/a"), "403 permission_denied"),
        (form("_method=DELETE&rest%5Froute=/secret/a"), "403 permission_denied"),
        (form(&format!("a={}", "x".repeat(70_000))), "413 body_too_large"),
    ];
    for (request, expected) in rows {
        for version in BOTH {
            assert_eq!(sidecar.send(version, request.clone()).await.brief(), expected, "{request:?} over {version:?}");
        }
    }
    // A form that was read to be judged arrives whole.
    assert_eq!(upstream.last().body, b"a=1&rest_route=/open/a");
    // HTTP/2 carries white space around a value; an upstream does not see it.
    let count = upstream.count();
    for kind in [" application/x-www-form-urlencoded", "\tmultipart/form-data; boundary=a", "text/plain "] {
        let padded = post("/index.php", "rest_route=/secret/a").key(&key).field("Content-Type", kind);
        assert_eq!(sidecar.send(H2, padded).await.brief(), "400 bad_request", "{kind:?}");
    }
    assert_eq!(upstream.count(), count);
}

/// A front controller acts on the path that is named, or that follows it; the request goes on as it was sent.
#[tokio::test]
async fn a_front_controller_is_judged_by_what_it_acts_on() {
    let key = Key::pair("key");
    let config = r#"
        [policy]
        effective_path_parameter = "rest_route"
        effective_path_prefix = "/wp-json"
        front_controllers = ["/", "/index.php"]
        [[route]]
        path = "/wp-json/open/**"
        [[route]]
        path = "/wp-json/secret/**"
        capability = "manage"
    "#;
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(config)).await;
    let rows = [
        ("/?rest_route=/open/a", "200"),
        ("/index.php?rest.route=%2Fopen%2Fa", "200"),
        ("/index.php/wp-json/open/a", "200"),
        ("/wp-json/open/a?rest_route=/open/b", "200"),
        ("/?rest_route=/secret/a", "403 permission_denied"),
        ("/index.php/wp-json/secret/a", "403 permission_denied"),
        ("/wp-json/open/a?rest_route=/secret/a", "403 permission_denied"),
        ("/index.php/wp-json/open/a?rest_route=/secret/a", "403 permission_denied"),
        ("/?rest_route=/wp-json/open/a", "403 route_not_allowed"),
        ("/", "403 route_not_allowed"),
        ("/index.php", "403 route_not_allowed"),
        ("/index.php/open/a", "403 route_not_allowed"),
        ("/open/a?rest_route=/open/a", "403 route_not_allowed"),
        ("/?rest_route=", "400 bad_request"),
        ("/?rest_route=open/a", "400 bad_request"),
        ("//wp-json/open/a", "400 bad_request"),
        ("/index.php//wp-json/open/a", "400 bad_request"),
    ];
    for (target, expected) in rows {
        for version in BOTH {
            let answer = sidecar.send(version, get(target).key(&key)).await;
            assert_eq!(answer.brief(), expected, "{target} over {version:?}");
            if expected == "200" {
                assert_eq!(upstream.last().target(), target, "over {version:?}");
            }
        }
    }
}

/// A form that was read to be judged is a body like any other: its route says how large it may be, also where the form
/// itself names the route.
#[tokio::test]
async fn a_judged_form_has_the_limit_of_its_route() {
    let key = Key::pair("key").scopes(["read_write"]);
    let config = r#"
        [policy]
        effective_path_parameter = "rest_route"
        [[route]]
        path = "/small"
        max_body = "1KiB"
        [[route]]
        path = "/**"
    "#;
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(config)).await;
    let rows = [
        ("/small", "a=", 1024, "200"),
        ("/small", "a=", 1025, "413 body_too_large"),
        ("/", "rest_route=/small&a=", 1024, "200"),
        ("/", "rest_route=/small&a=", 1025, "413 body_too_large"),
        ("/", "a=", 1025, "200"),
    ];
    for (path, begun, size, expected) in rows {
        let form = format!("{begun:x<size$}");
        for request in [post(path, &form), post(path, "").chunks([&form])] {
            let request = request.key(&key).field("Content-Type", "application/x-www-form-urlencoded");
            for version in BOTH {
                let answer = sidecar.send(version, request.clone()).await;
                assert_eq!(answer.brief(), expected, "{size} to {path} over {version:?}");
            }
        }
    }
    assert_eq!(upstream.count(), 3 * 4);
}

/// Upstreams that fold case or the final slash: both readings must be allowed.
#[tokio::test]
async fn a_folded_path_is_judged_too() {
    let key = Key::pair("key");
    let config = r#"
        [[route]]
        path = "/admin"
        capability = "manage"
        [[route]]
        path = "/**"
    "#;
    let (_upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(config)).await;
    for path in ["/admin", "/ADMIN", "/Admin", "/admin/", "/aDMIN/"] {
        for version in BOTH {
            let answer = sidecar.send(version, get(path).key(&key)).await;
            assert_eq!(answer.brief(), "403 permission_denied", "{path} over {version:?}");
        }
    }
    assert_eq!(sidecar.ask(get("/administer").key(&key)).await.status, 200);
}

/// A preflight carries no credential; where asked for, it goes on as nobody's.
#[tokio::test]
async fn a_preflight_is_refused_or_forwarded() {
    let key = Key::pair("key");
    let preflight = || {
        request("OPTIONS", "/things")
            .field("Origin", "https://shop.example")
            .field("Access-Control-Request-Method", "POST")
    };
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    assert_eq!(sidecar.ask(preflight()).await.brief(), "401 missing_credentials");
    assert_eq!(upstream.count(), 0);

    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config("[policy]\npreflight = \"forward\"")).await;
    for version in BOTH {
        assert_eq!(sidecar.send(version, preflight()).await.status, 200);
        assert!(!upstream.last().has("x-key-owner"));
    }
    assert_eq!(sidecar.ask(request("OPTIONS", "/things")).await.brief(), "401 missing_credentials");
    assert_eq!(sidecar.ask(preflight().basic("ck_x", "cs_y")).await.brief(), "401 invalid_credentials");
}
