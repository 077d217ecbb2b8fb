//! Kept connections to the upstream at their limits: a cap of one per thread, reloads, upgrades and retries.

use std::time::{Duration, Instant};

use super::in_front;
use crate::harness::{Answer, Gate, H1, Key, Request, get, post, request};

/// One connection to the upstream for each serving thread, which is kept for long.
const ONE_EACH: &str = r#"
    [upstream]
    max_connections = 1
    idle_timeout = "60s"
    connect_timeout = "5s"
    [[route]]
    path = "/socket"
    upgrade = ["websocket"]
    [[route]]
    path = "/**"
"#;

fn websocket(key: &Key) -> Request {
    get("/socket").key(key).field("Connection", "Upgrade").field("Upgrade", "websocket")
}

/// What a reload replaces does not keep its connections for ever.
#[tokio::test]
async fn a_reload_closes_idle_connections() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(ONE_EACH)).await;
    for round in 0..20 {
        for _ in 0..4 {
            assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
        }
        sidecar.reconfigure(&format!("[upstream]\nmax_in_flight = {}", 1000 + round));
        assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 200);
        // Each thread lets go of the old ones when it looks next, at the latest after a second.
        upstream.until_open(0).await;
    }
}

/// An upgrade needs a connection of its own: an idle one makes room.
#[tokio::test]
async fn an_idle_connection_makes_room_for_an_upgrade() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(ONE_EACH)).await;
    upstream.on("/socket", Answer::switching("websocket"));
    for _ in 0..4 {
        let mut wire = sidecar.wire().await;
        wire.write(get("/").key(&key).head()).await.unwrap();
        assert_eq!(wire.answer("GET").await.unwrap().status, 200);
        wire.write(websocket(&key).head()).await.unwrap();
        assert_eq!(wire.answer("GET").await.unwrap().status, 101);
    }
}

/// A retry gives the place of its dead connection back before it asks for another one.
#[tokio::test]
async fn a_retry_does_not_wait_for_itself() {
    let key = Key::pair("key").scopes(["read_write"]);
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(ONE_EACH)).await;
    upstream.on("/", Answer::ok("ok").then_close());
    let mut connection = sidecar.connect(H1).await;
    for _ in 0..30 {
        let began = Instant::now();
        let answer = connection.send(&post("/", "order").key(&key)).await;
        assert!([200, 502].contains(&answer.status), "{answer:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "it waited for a place");
        upstream.until_open(0).await;
    }
}

/// The upstream closes a kept connection while a body is being sent: what is left of it never comes first on another
/// connection, where it would be a request.
#[tokio::test]
async fn a_body_is_never_taken_for_a_request() {
    let key = Key::pair("key").scopes(["read_write"]);
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(ONE_EACH)).await;
    upstream.on("/order", Answer::hang_up().early());
    let hidden = "DELETE /hidden HTTP/1.1\r\nHost: a\r\nX-Key-Owner: somebody-else\r\n\r\n";
    let head = String::from_utf8(request("POST", "/order").key(&key).head()).unwrap();
    let chunks = format!("{:x}\r\n{hidden}\r\n", hidden.len()).repeat(1000);
    let message = format!("\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
    for _ in 0..20 {
        let mut wire = sidecar.wire().await;
        wire.write(get("/").key(&key).head()).await.unwrap();
        assert_eq!(wire.answer("GET").await.unwrap().status, 200);
        // The answer may come before all is written.
        let _ = wire.write(head.replacen("\r\n\r\n", &message, 1)).await;
        assert_eq!(wire.answer("POST").await.unwrap().status, 502);
    }
    let lines: Vec<String> = upstream.seen().iter().map(|seen| seen.head.line()).collect();
    assert!(lines.iter().all(|line| line == "GET / HTTP/1.1" || line == "POST /order HTTP/1.1"), "{lines:?}");
}

/// A caller that leaves right after its upgrade request, with bytes behind it, leaves nothing behind.
#[tokio::test]
async fn an_upgrade_that_nobody_waits_for_is_ended() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(ONE_EACH)).await;
    let gate = Gate::new();
    upstream.on("/socket", Answer::switching("websocket").behind(&gate));
    let mut wire = sidecar.wire().await;
    wire.write([websocket(&key).head(), b"ahead".to_vec()].concat()).await.unwrap();
    upstream.request(1).await;
    drop(wire);
    gate.open();
    upstream.until_open(0).await;
}

/// Connections that are in use count across reloads: there are never more than there may be.
#[tokio::test]
async fn reloads_add_no_connections() {
    let key = Key::pair("key");
    let config = "[upstream]\nmax_connections = 6\nconnect_timeout = \"200ms\"";
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.on_one_core().config(config)).await;
    let gate = Gate::new();
    upstream.on("/slow", Answer::ok("at last").behind(&gate));
    let mut held = Vec::new();
    for round in 0..5 {
        for _ in 0..2 {
            let mut wire = sidecar.wire().await;
            wire.write(get("/slow").key(&key).head()).await.unwrap();
            held.push(wire);
        }
        if round < 2 {
            upstream.request(2 * round + 2).await;
        }
        sidecar.reconfigure(&format!("[upstream]\nmax_in_flight = {}", 1000 + round));
        assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 200);
    }
    // Two thirds for one key, as without a reload.
    sidecar.counts("keyside_rejections_total", &[("reason", "overloaded")], 6).await;
    assert_eq!((upstream.count(), upstream.connections()), (4, 4));
    gate.open();
    let mut statuses = Vec::new();
    for mut wire in held {
        statuses.push(wire.answer("GET").await.unwrap().status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 503, 503, 503, 503, 503, 503]);
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
}
