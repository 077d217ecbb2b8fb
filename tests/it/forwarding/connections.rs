//! The ways to the upstream, and connections that are kept.

use std::time::{Duration, Instant};

use super::in_front;
use crate::harness::{Answer, Authority, H1, H2, Key, Sidecar, Upstream, get, post};

/// One serving thread may serve one client and another the next, so a client's own requests stay on one connection.
#[tokio::test]
async fn a_connection_is_kept_and_used_again() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    for version in [H1, H2] {
        let before = upstream.connections();
        let mut connection = sidecar.connect(version).await;
        for _ in 0..20 {
            assert_eq!(connection.send(&get("/").key(&key)).await.status, 200);
        }
        assert!(upstream.connections() <= before + 1, "{version:?}: {}", upstream.connections());
    }
}

#[tokio::test]
async fn a_connection_that_the_upstream_closes_is_not_used_again() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    upstream.on("/", Answer::with(200, &[("Connection", "close")], "ok").then_close());
    let mut connection = sidecar.connect(H1).await;
    for number in 1..=5 {
        assert_eq!(connection.send(&get("/").key(&key)).await.status, 200);
        assert_eq!(upstream.last().connection, number);
    }
}

/// A kept connection that died meanwhile costs nobody a request: what was not sent is sent again, once.
#[tokio::test]
async fn a_request_that_was_not_sent_is_sent_on_a_fresh_connection() {
    let key = Key::pair("key").scopes(["read_write"]);
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    // Says nothing of closing, and closes.
    upstream.on("/", Answer::ok("ok").then_close());
    let mut connection = sidecar.connect(H1).await;
    for number in 1..=30 {
        let answer = connection.send(&post("/", format!("order {number}")).key(&key)).await;
        assert!([200, 502].contains(&answer.status), "{answer:?}");
        upstream.until_open(0).await;
    }
    let mut orders: Vec<Vec<u8>> = upstream.seen().into_iter().map(|seen| seen.body).collect();
    let count = orders.len();
    orders.dedup();
    assert_eq!(orders.len(), count, "an order arrived twice");
    assert!(count >= 24, "{count} of 30 arrived");
}

/// What may have reached the upstream is never sent again.
#[tokio::test]
async fn a_request_that_was_sent_is_not_repeated() {
    let key = Key::pair("key").scopes(["read_write"]);
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    upstream.on("/dies", Answer::hang_up());
    for request in [post("/dies", "order").key(&key), get("/dies").key(&key)] {
        let mut connection = sidecar.connect(H1).await;
        // On a kept connection, where a careless proxy would try again.
        assert_eq!(connection.send(&get("/").key(&key)).await.status, 200);
        let before = upstream.count();
        assert_eq!(connection.send(&request).await.brief(), "502 upstream_unreachable");
        assert_eq!(upstream.count(), before + 1);
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_a_502_at_once() {
    let key = Key::pair("key");
    // Bound and dropped: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sidecar = Sidecar::in_front_of_url(&format!("http://{free}")).keys([&key]).start().await;
    for version in [H1, H2] {
        let answer = sidecar.send(version, get("/").key(&key)).await;
        assert_eq!(answer.brief(), "502 upstream_unreachable");
    }
    // Once it is there, all is well.
    let upstream = Upstream::start_at(free).await;
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    assert_eq!(upstream.count(), 1);
}

/// From the last byte of the request to the head of the answer; a route may have a time of its own.
#[tokio::test]
async fn an_upstream_that_is_silent_is_a_504_in_time() {
    let key = Key::pair("key").scopes(["read_write"]);
    let config = r#"
        [upstream]
        response_timeout = "1s"
        [[route]]
        path = "/patient"
        response_timeout = "20s"
        [[route]]
        path = "/**"
    "#;
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(config)).await;
    for path in ["/", "/patient"] {
        upstream.on(path, Answer::ok("late").after(Duration::from_millis(4500)));
    }
    let began = Instant::now();
    let (one, other, patient) = tokio::join!(
        sidecar.send(H1, post("/", "x").key(&key)),
        sidecar.send(H2, get("/").key(&key)),
        sidecar.send(H1, get("/patient").key(&key)),
    );
    assert_eq!((one.brief().as_str(), other.brief().as_str()), ("504 upstream_timeout", "504 upstream_timeout"));
    assert_eq!(patient.text(), "late");
    assert!(began.elapsed() >= Duration::from_millis(4500));
    assert_eq!(upstream.count(), 3);
}

/// The time that a slow hash takes is not the upstream's: its own begins when the request goes out.
#[tokio::test]
async fn a_slow_hash_takes_nothing_of_the_upstreams_time() {
    // Of this key's secret, at the ceilings of what a hash may ask for: some seconds.
    const SLOW: &str =
        "$argon2id$v=19$m=262144,t=16,p=1$c2FsdCBvZiBhIHRlc3QuLg$SozgwlfHKPCrjoFZ9s1kQmXYjs1ZMiEvuQBH4bHDXtI";
    let key = Key::pair("slow").hash(SLOW);
    let config = "[[route]]\npath = \"/**\"\nresponse_timeout = \"2s\"";
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(config)).await;
    upstream.on("/", Answer::ok("in time").after(Duration::from_millis(1200)));
    let answer = sidecar.send_again(H1, get("/").key(&key)).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "in time"), "{answer:?}");
}

#[tokio::test]
async fn an_upstream_over_tls_is_verified() {
    let key = Key::pair("key");
    let authority = Authority::new();
    let upstream = Upstream::over_tls(&authority).await;
    let tls = "[upstream.tls]\nca = \"upstream.crt\"";
    let sidecar = Sidecar::in_front_of(&upstream).config(tls).file("upstream.crt", authority.pem()).keys([&key]);
    let sidecar = sidecar.start().await;
    for version in [H1, H2] {
        assert_eq!(sidecar.send(version, get("/").key(&key)).await.status, 200);
    }
    assert_eq!(upstream.last().field("x-key-owner"), "acme");

    // Another authority, or another name than the certificate's, is nobody to talk to.
    let stranger = Authority::new();
    let other_name = "[upstream.tls]\nca = \"upstream.crt\"\nserver_name = \"other.example\"";
    for (config, ca) in [(tls, stranger.pem()), (other_name, authority.pem())] {
        let before = upstream.count();
        let sidecar =
            Sidecar::in_front_of(&upstream).config(config).file("upstream.crt", ca).keys([&key]).start().await;
        assert_eq!(sidecar.ask(get("/").key(&key)).await.brief(), "502 upstream_unreachable", "{config}");
        assert_eq!(upstream.count(), before);
    }
}

#[tokio::test]
async fn an_upstream_may_listen_on_a_unix_socket() {
    let key = Key::pair("key");
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::on_unix_socket(&folder.path().join("api.sock")).await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    for version in [H1, H2] {
        assert_eq!(sidecar.send(version, get("/x").key(&key)).await.status, 200);
        assert_eq!(upstream.last().field("host"), "api.example.com");
    }
}

/// The key's mode chooses the upstream; a route's own upstream comes before that.
#[tokio::test]
async fn each_mode_and_route_has_its_upstream() {
    let live = Key::token("live").with("mode = \"live\"");
    let test = Key::token("test").with("mode = \"test\"");
    let none = Key::token("none");
    let (main, sandbox, reports) = (Upstream::start().await, Upstream::start().await, Upstream::start().await);
    let config = format!(
        "[upstream.modes]\ntest = {:?}\n[[route]]\npath = \"/reports/**\"\nupstream = {:?}\n[[route]]\npath = \"/**\"\n",
        sandbox.url(),
        reports.url()
    );
    let sidecar = Sidecar::in_front_of(&main).config(&config).keys([&live, &test, &none]).start().await;
    let rows = [
        (&live, "/", [1, 0, 0]),
        (&none, "/", [2, 0, 0]),
        (&test, "/", [2, 1, 0]),
        (&live, "/reports/1", [2, 1, 1]),
        (&test, "/reports", [2, 1, 2]),
    ];
    for (key, path, counts) in rows {
        assert_eq!(sidecar.ask(get(path).key(key)).await.status, 200);
        assert_eq!([&main, &sandbox, &reports].map(Upstream::count), counts, "{} {path}", key.id);
    }
}

/// An upstream that is gone does not cost its callers their connections.
#[tokio::test]
async fn a_failure_upstream_leaves_the_callers_connection() {
    let key = Key::pair("key").scopes(["read_write"]);
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    upstream.on("/dies", Answer::hang_up());
    let mut connection = sidecar.connect(H1).await;
    for _ in 0..3 {
        let answer = connection.send(&get("/dies").key(&key)).await;
        assert_eq!((answer.status, answer.field("connection")), (502, ""));
        assert_eq!(connection.send(&get("/").key(&key)).await.status, 200);
    }
    // But where nobody knows how much of a body was read.
    let answer = connection.send(&post("/dies", "order").key(&key)).await;
    assert_eq!((answer.status, answer.field("connection")), (502, "close"));
}
