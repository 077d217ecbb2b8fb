//! Limits on connections and heads.

use super::{BOTH, in_front};
use crate::harness::{H1, Key, Wire, get, within};

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_counted() {
    let key = Key::pair("key");
    let (_upstream, sidecar) = in_front(&key, |sidecar| sidecar.config("[listen]\nmax_connections = 2")).await;
    let mut one = sidecar.connect(H1).await;
    let mut two = sidecar.connect(H1).await;
    for connection in [&mut one, &mut two] {
        assert_eq!(connection.send(&get("/").key(&key)).await.status, 200);
    }
    sidecar.counts("keyside_connections", &[], 2).await;
    let mut third = Wire::new(sidecar.tcp().await);
    assert_eq!(within("the third to be closed", third.rest()).await, b"");
    sidecar.counts("keyside_connections_refused_total", &[], 1).await;
    assert_eq!(one.send(&get("/").key(&key)).await.status, 200);
    // Room again, once one has gone.
    drop(two);
    sidecar.counts("keyside_connections", &[], 1).await;
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
}

#[tokio::test]
async fn an_address_has_so_many_connections() {
    let key = Key::pair("key");
    let (_upstream, sidecar) = in_front(&key, |sidecar| sidecar.config("[listen]\nmax_connections_per_ip = 1")).await;
    let mut mine = sidecar.connect(H1).await;
    assert_eq!(mine.send(&get("/").key(&key)).await.status, 200);
    let mut second = Wire::new(sidecar.tcp().await);
    assert_eq!(within("the second to be closed", second.rest()).await, b"");
    let mut neighbour = sidecar.connect_from("127.0.0.77".parse().unwrap(), H1).await;
    assert_eq!(neighbour.send(&get("/").key(&key)).await.status, 200);
    sidecar.counts("keyside_connections_refused_total", &[], 1).await;
}

#[tokio::test]
async fn a_head_has_so_many_fields_and_bytes() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config("[listen]\nmax_header_bytes = \"8KiB\"")).await;
    for version in BOTH {
        let with = |size: usize| get("/").key(&key).field("X-Long", "x".repeat(size));
        assert_eq!(sidecar.send(version, with(7 << 10)).await.status, 200, "{version:?}");
        for size in [9 << 10, 12 << 10] {
            let answer = sidecar.send(version, with(size)).await;
            assert_eq!(answer.brief(), "431 headers_too_large", "{size} over {version:?}");
        }
        let many = (0..150).fold(get("/").key(&key), |request, n| request.field(&format!("X-{n}"), "1"));
        let mut connection = sidecar.connect(version).await;
        if let Ok(answer) = connection.try_send(&many).await {
            assert_eq!(answer.status, 431, "150 fields over {version:?}");
        }
    }
    // Far beyond it, nobody reads to the end: an answer or a close, and never a request.
    for size in [100 << 10, 1 << 20] {
        let mut connection = sidecar.connect(H1).await;
        if let Ok(answer) = connection.try_send(&get("/").key(&key).field("X-Long", "x".repeat(size))).await {
            assert_eq!(answer.status, 431, "{size}");
        }
    }
    assert_eq!(upstream.count(), 2);
}
