//! TLS with upstreams: each route has its own trust where it says so, and what fails is in the operator's log.

use crate::harness::{Authority, Key, Sidecar, Upstream, get};

#[tokio::test]
async fn the_upstream_of_a_route_has_its_own_tls() {
    let key = Key::pair("key");
    let (ours, theirs) = (Authority::new(), Authority::new());
    let main = Upstream::over_tls(&ours).await;
    let other = Upstream::over_tls(&theirs).await;
    let config = format!(
        "[upstream.tls]\nca = \"ours.crt\"\n\
         [[route]]\npath = \"/own/**\"\nupstream = {url:?}\ntls = {{ ca = \"theirs.crt\" }}\n\
         [[route]]\npath = \"/named/**\"\nupstream = {url:?}\ntls = {{ ca = \"theirs.crt\", server_name = \"other.example\" }}\n\
         [[route]]\npath = \"/same/**\"\nupstream = {url:?}\n\
         [[route]]\npath = \"/**\"\n",
        url = other.url()
    );
    let sidecar = Sidecar::in_front_of(&main).config(&config).keys([&key]);
    let sidecar = sidecar.file("ours.crt", ours.pem()).file("theirs.crt", theirs.pem()).start().await;
    for _ in 0..3 {
        for (path, brief) in [
            ("/", "200"),
            ("/own/a", "200"),
            ("/named/a", "502 upstream_unreachable"),
            ("/same/a", "502 upstream_unreachable"),
        ] {
            let answer = sidecar.ask(get(path).key(&key)).await;
            assert!(answer.brief().starts_with(brief), "{path}: {}", answer.brief());
        }
    }
    assert_eq!((main.count(), other.count()), (3, 3));
    // Each once, although it was met three times.
    for trouble in ["unknown_authority", "other_name"] {
        let is_it = |line: &serde_json::Value| line["upstream.trouble"] == trouble;
        let line = sidecar.log.object(trouble, is_it).await;
        assert!(line["advice"].as_str().unwrap().contains("tls = {"), "{line}");
        let told = sidecar.log.all().iter().filter(|line| line.contains(trouble)).count();
        assert_eq!(told, 1, "{trouble}");
    }
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_told_of() {
    let key = Key::pair("key");
    let authority = Authority::new();
    let expired = Upstream::over_tls_with(&authority.issue_for(&["localhost"], 1975, 1976)).await;
    let tls = "[upstream.tls]\nca = \"upstream.crt\"";
    let sidecar = Sidecar::in_front_of(&expired).config(tls).file("upstream.crt", authority.pem()).keys([&key]);
    let sidecar = sidecar.start().await;
    assert_eq!(sidecar.ask(get("/").key(&key)).await.brief(), "502 upstream_unreachable");
    sidecar.log.object("why", |line| line["upstream.trouble"] == "not_valid_now").await;
}

/// With TLS 1.3 the refusal comes after the handshake.
#[tokio::test]
async fn an_upstream_that_wants_a_certificate_is_told_of() {
    let key = Key::pair("key");
    let callers = Authority::new();
    let upstream = Sidecar::in_front_of_url("http://127.0.0.1:1")
        .config("[listen.tls]\nclient_ca = \"tls/ca.crt\"")
        .file("tls/ca.crt", callers.pem());
    let upstream = upstream.keys([&key]).start().await;
    let at = format!("https://localhost:{}", upstream.address().port());
    let config = "[upstream.tls]\nca = \"upstream.crt\"";
    let sidecar =
        Sidecar::in_front_of_url(&at).config(config).file("upstream.crt", upstream.authority.pem()).keys([&key]);
    let sidecar = sidecar.start().await;
    assert_eq!(sidecar.ask(get("/").key(&key)).await.brief(), "502 upstream_unreachable");
    sidecar.log.object("wants_certificate", |line| line["upstream.trouble"] == "wants_certificate").await;
}
