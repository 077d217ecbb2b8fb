//! A crowd of callers who are known beside a crowd who are not.

use super::{Bystander, PATIENT, with_many_descriptors};
use crate::harness::{Connection, H1, H2, Key, Sidecar, Upstream, Wire, get};

const CALLERS: usize = 500;

/// 500 kept connections of verified callers, and room for 20 more: 500 strangers come and say nothing. Nobody who is
/// known loses a connection to make room for one who is not.
#[tokio::test]
async fn no_verified_caller_makes_room_for_a_stranger() {
    with_many_descriptors();
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let config = format!("[listen]\nmax_connections = {}", CALLERS + 20);
    let sidecar = Sidecar::in_front_of(&upstream).config(&config).config(PATIENT).keys([&key]).start().await;
    let request = get("/").key(&key);
    let mut callers: Vec<Connection> = Vec::new();
    for number in 0..CALLERS {
        let mut connection = sidecar.connect([H1, H2][number % 2]).await;
        assert_eq!(connection.send(&request).await.status, 200);
        callers.push(connection);
    }
    let mut strangers = Vec::new();
    for _ in 0..CALLERS {
        strangers.push(Wire::new(sidecar.tcp().await));
    }
    sidecar.measures("keyside_connections_refused_total", &[], |refused| refused >= 480.0).await;
    for connection in &mut callers {
        assert_eq!(connection.send(&request).await.status, 200);
    }
    let metrics = sidecar.metrics().await;
    assert_eq!(metrics.value("keyside_connections", &[]), (CALLERS + 20) as f64);
    // Who has come too much is told by the close.
    let mut refused = 0;
    for stranger in &mut strangers {
        let closed = tokio::time::timeout(std::time::Duration::ZERO, stranger.rest()).await.is_ok();
        refused += usize::from(closed);
    }
    assert_eq!(refused, CALLERS - 20);
    drop(strangers);
    sidecar.counts("keyside_connections", &[], CALLERS as u64).await;
    Bystander::beside(&sidecar, &key, true).await.was_served("once the strangers are gone").await;
}
