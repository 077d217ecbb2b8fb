//! Logs whose reader sleeps or is gone, or whose disk is full: no request waits, and what was lost is counted. For the
//! access log's pipe see `operation/logs.rs`.

use std::time::{Duration, Instant};

use super::shell;
use crate::harness::{H1, H2, Key, Sidecar, Upstream, get};

#[tokio::test]
async fn a_log_without_a_place_stalls_nobody() {
    let key = Key::pair("key");
    // What each reload tells of at length.
    let wrong = format!("limits = [\"{}\"]", "x".repeat(2000));
    let bad: Vec<Key> = (0..25).map(|number| Key::token(&format!("bad-{number}")).with(&wrong)).collect();
    let upstream = Upstream::start().await;
    // A reader that hears that it listens, and then is gone, or asleep for as long as it runs.
    let hears = r#"while IFS= read -r line; do echo "$line" >&2; case $line in *'"listening"'*) break;; esac; done"#;
    let sleeps = "while kill -0 $id 2> /dev/null; do sleep 0.1; done";
    let rows = [
        ("an access log on a full disk", shell("exec > /dev/full").to_vec()),
        ("a log whose reader is gone", bash(&format!("exec 2> >({hears})"))),
        ("a log whose reader sleeps", bash(&format!("id=$$\nexec 2> >({hears}; {sleeps})"))),
    ];
    for (what, words) in rows {
        let sidecar = Sidecar::in_front_of(&upstream).through(words).keys(bad.iter().chain([&key])).start().await;
        let dropped = async || sidecar.metrics().await.value("keyside_log_lines_dropped_total", &[]);
        let mut connections = [sidecar.connect(H1).await, sidecar.connect(H2).await];
        let mut slowest = Duration::ZERO;
        let mut count = 0;
        // As many as it takes to fill the pipe and the buffer before it, where somebody sleeps.
        while dropped().await < 10.0 {
            for connection in &mut connections {
                let began = Instant::now();
                assert_eq!(connection.send(&get("/").key(&key)).await.status, 200, "{what}");
                slowest = slowest.max(began.elapsed());
            }
            let began = Instant::now();
            assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 200, "{what}");
            slowest = slowest.max(began.elapsed());
            count += 1;
            assert!(count < 1000, "{what}: not one line was dropped");
        }
        assert!(slowest < Duration::from_secs(3), "{what}: {slowest:?}");
        assert_eq!(sidecar.admin("GET", "/livez").await.status, 200, "{what}");
        sidecar.signal(rustix::process::Signal::TERM);
        assert_eq!(sidecar.ended().await, 0, "{what}");
    }
}

/// As [`shell`], for what plain `sh` has no words for.
fn bash(line: &str) -> Vec<String> {
    let mut words = shell(line).to_vec();
    words[0] = "bash".into();
    words
}
