//! Upgraded connections: only where a route allows them, only after the upstream's 101.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;

use super::in_front;
use crate::harness::{Answer, Gate, Key, Request, eventually, get};

const CONFIG: &str = r#"
    [[route]]
    path = "/socket"
    upgrade = ["websocket"]
    [[route]]
    path = "/**"
"#;

fn websocket(path: &str, key: &Key) -> Request {
    get(path)
        .key(key)
        .field("Connection", "keep-alive, Upgrade")
        .field("Upgrade", "websocket")
        .field("Sec-WebSocket-Version", "13")
        .field("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

#[tokio::test]
async fn a_websocket_is_joined_where_the_route_allows_it() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(CONFIG)).await;
    upstream.on("/socket", Answer::switching("websocket"));
    let mut wire = sidecar.wire().await;
    wire.write(websocket("/socket", &key).head()).await.unwrap();
    let answer = wire.answer("GET").await.unwrap();
    assert_eq!((answer.status, answer.field("upgrade")), (101, "websocket"), "{answer:?}");
    assert!(answer.field("connection").eq_ignore_ascii_case("upgrade"), "{answer:?}");
    assert!(!answer.field("x-request-id").is_empty(), "{answer:?}");
    for message in ["one", "two", "three"] {
        wire.write(message).await.unwrap();
        assert_eq!(wire.exactly(message.len()).await.unwrap(), message.as_bytes());
    }
    let large = vec![7; 1 << 20];
    let (sent, echoed) = {
        let (mut one, large) = (wire, large.clone());
        one.write(&large[..64 << 10]).await.unwrap();
        let echoed = one.exactly(64 << 10).await.unwrap();
        (large[..64 << 10].to_vec(), echoed)
    };
    assert_eq!(sent, echoed);
    let seen = upstream.only();
    assert_eq!((seen.field("upgrade"), seen.field("x-key-owner")), ("websocket".into(), "acme".into()));
    assert!(seen.has("sec-websocket-key"));
    // The caller has gone: so does the connection to the upstream, and the line is written.
    upstream.until_open(0).await;
    let line = sidecar.logged(answer.field("x-request-id")).await;
    assert_eq!((line["status"].as_u64(), line["outcome"].as_str()), (Some(101), Some("allowed")), "{line}");
}

/// The line of a tunnel is written at its end, and tells what went through it.
#[tokio::test]
async fn the_line_of_a_tunnel_tells_what_went_through() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(CONFIG)).await;
    let switching = "HTTP/1.1 101 Because\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nwelcome";
    let gate = Gate::new();
    upstream.on("/socket", Answer::raw(switching).then(&gate, ", and goodbye").then_silence());
    let mut wire = sidecar.wire().await;
    let request = websocket("/socket", &key).field("X-Request-Id", "tunnel");
    wire.write([&request.head()[..], b"ahead"].concat()).await.unwrap();
    assert_eq!(wire.answer("GET").await.unwrap().status, 101);
    let open = Instant::now();
    wire.write(", and behind").await.unwrap();
    assert_eq!(wire.exactly(7).await.unwrap(), b"welcome");
    // Not a wait for something: the tunnel is open for so long.
    tokio::time::sleep(Duration::from_millis(300)).await;
    gate.open();
    assert_eq!(wire.exactly(13).await.unwrap(), b", and goodbye");
    let open = open.elapsed();
    wire.shutdown().await.unwrap();
    assert_eq!(wire.rest().await, b"");
    let line = sidecar.logged("tunnel").await;
    let expected = serde_json::json!({
        "status": 101, "outcome": "allowed", "key_id": "key_key", "bytes_in": 17, "bytes_out": 20,
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&line[field], value, "{field}: {line}");
    }
    let millis = |field: &str| line[field].as_f64().unwrap();
    assert!(millis("duration_ms") >= millis("upstream_duration_ms") + 1000.0 * open.as_secs_f64(), "{open:?}: {line}");
}

/// Elsewhere, and for other protocols, the wish is not passed on.
#[tokio::test]
async fn an_upgrade_that_no_route_allows_is_a_plain_request() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(CONFIG)).await;
    let h2c = get("/socket").key(&key).field("Connection", "Upgrade, HTTP2-Settings").field("Upgrade", "h2c");
    let listed = get("/socket").key(&key).field("Connection", "Upgrade").field("Upgrade", "h2c, websocket");
    let not_nominated = get("/socket").key(&key).field("Upgrade", "websocket");
    for request in [websocket("/", &key), h2c, listed, not_nominated] {
        let answer = sidecar.ask(request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let seen = upstream.last();
        assert!(!seen.has("upgrade") && !seen.field("connection").contains("pgrade"), "{seen:?}");
    }
}

/// Nothing is tunnelled before the upstream's word, and nothing but what was asked for.
#[tokio::test]
async fn only_the_upstreams_101_opens_a_tunnel() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(CONFIG)).await;
    // Refused by the upstream: what the client sent after its head is its next request, and judged.
    upstream.on("/socket", Answer::with(403, &[], "no"));
    let mut wire = sidecar.wire().await;
    let eager = [websocket("/socket", &key).head(), b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()].concat();
    wire.write(eager).await.unwrap();
    assert_eq!(wire.answer("GET").await.unwrap().status, 403);
    assert_eq!(wire.answer("GET").await.map(|answer| answer.status).unwrap_or(401), 401);
    assert_eq!(upstream.count(), 1);

    upstream.on("/socket", Answer::switching("h2c"));
    let answer = sidecar.ask(websocket("/socket", &key)).await;
    assert_eq!(answer.brief(), "502 upstream_unreachable");
}

/// A caller that is gone by the time of the 101 leaves nothing behind: neither the upstream's connection nor its place.
#[tokio::test]
async fn a_tunnel_ends_whose_caller_is_gone_before_the_101() {
    let key = Key::pair("key");
    let config = format!("[upstream]\nmax_in_flight = 1\n{CONFIG}");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(&config).plaintext()).await;
    let gate = Gate::new();
    upstream.on("/socket", Answer::switching("websocket").behind(&gate));
    let mut client = sidecar.tcp().await;
    // With a byte ahead, for which the end of the connection is not seen before the answer is to be written.
    client.write_all(&[&websocket("/socket", &key).head()[..], b"x"].concat()).await.unwrap();
    upstream.request(1).await;
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    gate.open();
    upstream.until_open(0).await;
    eventually("a free place", async || {
        let answer = sidecar.ask(get("/").key(&key)).await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
}

/// A tunnel does not outlive its key by more than a second or so.
#[tokio::test]
async fn a_tunnel_ends_with_its_key() {
    let (key, other) = (Key::pair("key"), Key::pair("other"));
    let upstream = crate::harness::Upstream::start().await;
    upstream.on("/socket", Answer::switching("websocket"));
    let sidecar = crate::harness::Sidecar::in_front_of(&upstream).config(CONFIG).keys([&key, &other]).start().await;
    let mut wires = Vec::new();
    for key in [&key, &other] {
        let mut wire = sidecar.wire().await;
        wire.write(websocket("/socket", key).head()).await.unwrap();
        assert_eq!(wire.answer("GET").await.unwrap().status, 101);
        wires.push(wire);
    }
    sidecar.replace_keys([&key.clone().with("revoked_at = 2026-01-02T00:00:00Z"), &other]);
    let cut = tokio::time::timeout(Duration::from_secs(10), wires[0].rest()).await;
    assert_eq!(cut.unwrap(), b"");
    wires[1].write("still here").await.unwrap();
    assert_eq!(wires[1].exactly(10).await.unwrap(), b"still here");
}
