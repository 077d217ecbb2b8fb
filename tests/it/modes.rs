//! Which key mode a host accepts. The record's mode decides, not what the key looks like.

use crate::harness::{H1, H2, Key, Sidecar, Upstream, get};

#[tokio::test]
async fn a_host_accepts_the_keys_of_its_mode() {
    let live = Key::token("live").with("mode = \"live\"");
    // It begins with ck_live_, and is a test key all the same.
    let test = Key::token("test").with("mode = \"test\"");
    let none = Key::token("none");
    let upstream = Upstream::start().await;
    let config = "[hosts]\n\"API.example.com\" = \"live\"\n\"sandbox.example.com\" = \"test\"";
    let sidecar = Sidecar::in_front_of(&upstream).config(config).keys([&live, &test, &none]).start().await;
    let rows = [
        ("api.example.com", [200, 403, 200]),
        ("api.example.com:8443", [200, 403, 200]),
        ("API.EXAMPLE.com", [200, 403, 200]),
        ("sandbox.example.com", [403, 200, 200]),
        ("other.example.com", [403, 403, 200]),
        ("example.com", [403, 403, 200]),
        ("127.0.0.1:8443", [403, 403, 200]),
    ];
    for (host, statuses) in rows {
        for (key, status) in [&live, &test, &none].into_iter().zip(statuses) {
            for version in [H1, H2] {
                let answer = sidecar.send(version, get("/").host(host).key(key)).await;
                let expected = if status == 200 { "200" } else { "403 mode_mismatch" };
                assert_eq!(answer.brief(), expected, "{} at {host} over {version:?}", key.id);
            }
        }
    }
}

/// Without `[hosts]`, modes are only told to the upstream.
#[tokio::test]
async fn without_hosts_every_mode_passes() {
    let test = Key::token("test").with("mode = \"test\"");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&test]).start().await;
    assert_eq!(sidecar.ask(get("/").key(&test)).await.status, 200);
    assert_eq!(upstream.only().field("x-key-mode"), "test");
}

/// A route may be for some hosts alone.
#[tokio::test]
async fn a_route_may_be_for_some_hosts_alone() {
    let key = Key::token("key");
    let upstream = Upstream::start().await;
    let config = r#"
        [[route]]
        path = "/**"
        hosts = ["api.example.com"]
    "#;
    let sidecar = Sidecar::in_front_of(&upstream).config(config).keys([&key]).start().await;
    for (host, expected) in
        [("api.example.com", "200"), ("Api.Example.Com:443", "200"), ("other.example.com", "403 route_not_allowed")]
    {
        assert_eq!(sidecar.ask(get("/").host(host).key(&key)).await.brief(), expected, "{host}");
    }
}

/// What is only observed goes where its key's mode says, too.
#[tokio::test]
async fn an_observed_request_goes_to_the_upstream_of_its_mode() {
    let live = Key::token("live").with("mode = \"live\"");
    let test = Key::token("test").with("mode = \"test\"");
    let (main, sandbox) = (Upstream::start().await, Upstream::start().await);
    let config = format!(
        "[upstream.modes]\ntest = {:?}\n[[route]]\npath = \"/**\"\nscope = \"write\"\nmode = \"observe\"\n",
        sandbox.url()
    );
    let sidecar = Sidecar::in_front_of(&main).config(&config).keys([&live, &test]).start().await;
    let rows = [(get("/").key(&test), [0, 1]), (get("/").key(&live), [1, 1]), (get("/"), [2, 1])];
    for (request, counts) in rows {
        assert_eq!(sidecar.ask(request.clone()).await.status, 200);
        assert_eq!([&main, &sandbox].map(Upstream::count), counts, "{request:?}");
    }
    assert!(!sandbox.only().has("x-key-mode"));
    sidecar.counts("keyside_observed_rejections_total", &[("reason", "insufficient_scope")], 2).await;
}
