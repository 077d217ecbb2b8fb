//! Kept connections to the upstream at their limits: a cap of one per thread, reloads, upgrades and retries.

use std::time::{Duration, Instant};

use super::in_front;
use crate::harness::{Answer, H1, Key, Request, get, post};

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

/// A caller that leaves right after its upgrade request, with bytes behind it, leaves nothing behind.
#[tokio::test]
async fn an_upgrade_that_nobody_waits_for_is_ended() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(ONE_EACH)).await;
    let gate = crate::harness::Gate::new();
    upstream.on("/socket", Answer::switching("websocket").behind(&gate));
    let mut wire = sidecar.wire().await;
    wire.write([websocket(&key).head(), b"ahead".to_vec()].concat()).await.unwrap();
    upstream.request(1).await;
    drop(wire);
    gate.open();
    upstream.until_open(0).await;
}
