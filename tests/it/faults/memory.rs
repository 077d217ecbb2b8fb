//! Memory that ends: under a flood that wants more than there is, callers are served or refused, and nobody is answered
//! wrongly.

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::UNLIMITED;
use crate::harness::{Answer, Connection, H1, H2, Key, Sidecar, Upstream, Wire, get, request, within};

/// How much more of it than at rest there is.
const ROOM: u64 = 96 << 20;

#[tokio::test]
async fn a_flood_does_not_reach_the_end_of_memory() {
    let key = Key::pair("key").scopes(["read_write"]);
    let upstream = Upstream::start().await;
    upstream.on("/never", Answer::silence());
    upstream.on("/unread", Answer::silence().early());
    let config = format!("{UNLIMITED}\n[listen]\nmax_body = \"64MiB\"");
    let sidecar = Sidecar::in_front_of(&upstream).plaintext().config(&config).keys([&key]).start().await;
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.id())).unwrap();
    let data = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    let data = data.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
    let id = Pid::from_raw(i32::try_from(sidecar.id()).unwrap());
    let cap = Rlimit { current: Some(data + ROOM), maximum: Some(data + ROOM) };
    prlimit(id, Resource::Data, cap).unwrap();

    // Heads that are as large as they may be and never end.
    let mut wires = Vec::new();
    for _ in 0..300 {
        let mut wire = Wire::new(sidecar.tcp().await);
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}", "x".repeat(15 << 10));
        within("a head", wire.write(head)).await.unwrap();
        wires.push(wire);
    }
    // Bodies that nobody upstream reads: megabytes each, if they were taken.
    let piece = vec![b'x'; 4 << 20];
    let mut uploads = Vec::new();
    for _ in 0..100 {
        let mut wire = Wire::new(sidecar.tcp().await);
        let head = request("POST", "/unread").key(&key).field("Content-Length", (piece.len() * 8).to_string()).head();
        wire.write(head).await.unwrap();
        let piece = piece.clone();
        uploads.push(tokio::spawn(async move {
            // It stops where nobody takes more.
            let _ = tokio::time::timeout(Duration::from_secs(4), wire.write(piece)).await;
            wire
        }));
    }
    // Names that nobody has, each another.
    let mut connection = sidecar.connect(H1).await;
    for number in 0..2000 {
        let stranger = get("/").basic(&format!("ck_{number:040}"), "cs_wrong");
        assert_eq!(connection.send(&stranger).await.status, 401, "stranger {number}");
    }
    // A verified caller all the while.
    for number in 0..200 {
        assert_eq!(connection.send(&get("/").key(&key)).await.status, 200, "request {number}");
    }
    for upload in uploads {
        wires.push(within("an upload", upload).await.unwrap());
    }
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    assert_eq!(sidecar.admin("GET", "/livez").await.status, 200);
    drop(wires);
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
}
