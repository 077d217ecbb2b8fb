//! One core, shared with processes that never rest: slow, and right.

use std::process::{Child, Command, Stdio};

use super::UNLIMITED;
use crate::harness::{H1, H2, Key, Sidecar, Upstream, get};

/// A process that uses all it can get of a core, until it is dropped.
struct Busy(Child);

impl Busy {
    fn on(core: &str) -> Self {
        let words = ["-c", core, "sh", "-c", "while :; do :; done"];
        Self(Command::new("taskset").args(words).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn on_a_starved_core_timeouts_keep_their_meaning() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let core: String = allowed.trim().chars().take_while(char::is_ascii_digit).collect();
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let words = ["taskset", "-c", &core];
    let sidecar = Sidecar::in_front_of(&upstream).config(UNLIMITED).through(words).keys([&key]).start().await;
    let _busy = [Busy::on(&core), Busy::on(&core), Busy::on(&core)];
    let mut connections = [sidecar.connect(H1).await, sidecar.connect(H2).await];
    for number in 0..150 {
        for connection in &mut connections {
            assert_eq!(connection.send(&get("/").key(&key)).await.status, 200, "request {number}");
        }
    }
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    assert_eq!(sidecar.admin("GET", "/livez").await.status, 200);
    let metrics = sidecar.metrics().await;
    for outcome in ["refused", "failed"] {
        assert_eq!(metrics.value("keyside_requests_total", &[("outcome", outcome)]), 0.0, "{outcome}");
    }
}
