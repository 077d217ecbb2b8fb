//! How long keys are served that nobody confirms: reads and writes apart, whatever clocks and stops do.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{answers, check, readyz_says, sidecar};
use crate::harness::{Control, H1, Key, Upstream, eventually, get, post};

#[tokio::test]
async fn reads_and_writes_end_each_in_its_time() {
    let key = Key::pair("one").scopes(["read_write"]);
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    control.put(&key);
    let sidecar = sidecar(&upstream, &control)
        .config("[keys]\nmax_stale = \"5s\"\nmax_stale_write = \"2s\"")
        .config("[[route]]\npath = \"/open\"\npublic = true\n[[route]]\npath = \"/**\"")
        .start()
        .await;
    assert_eq!(sidecar.ask(post("/", "x").key(&key)).await.status, 200);
    control.stop().await;
    let gone = Instant::now();
    eventually("writes to end", async || {
        let status = sidecar.ask(post("/", "x").key(&key)).await.status;
        if status == 503 { Ok(()) } else { Err(status) }
    })
    .await;
    let writes = gone.elapsed();
    check(&sidecar, &key, 200).await;
    // What only looks like a read is none.
    assert_eq!(sidecar.ask(get("/").key(&key).field("X-HTTP-Method-Override", "POST")).await.status, 503);
    readyz_says(&sidecar, 200, "keys.max_stale_write").await;
    readyz_says(&sidecar, 200, "control endpoint").await;
    answers(&sidecar, &key, 503).await;
    let reads = gone.elapsed();
    assert!(
        writes < Duration::from_secs(3) && (Duration::from_secs(4)..Duration::from_secs(7)).contains(&reads),
        "{writes:?} {reads:?}"
    );
    readyz_says(&sidecar, 503, "keys.max_stale").await;
    assert_eq!(sidecar.ask(get("/open")).await.status, 200);
    let answer = sidecar.ask(get("/").key(&key)).await;
    assert_eq!(answer.field("retry-after"), "5");
    control.restart().await;
    answers(&sidecar, &key, 200).await;
    sidecar.ready().await;
    assert_eq!(sidecar.ask(post("/", "x").key(&key)).await.status, 200);
}

/// Heartbeats that waited while the process was stopped are old news.
#[tokio::test]
async fn a_stopped_process_does_not_take_old_news_for_new() {
    let (key, gone) = (Key::pair("one"), Key::pair("gone"));
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    control.put_all([&key, &gone]);
    let sidecar =
        sidecar(&upstream, &control).config("[keys]\nmax_stale = \"3s\"\nmax_stale_write = \"3s\"").start().await;
    check(&sidecar, &key, 200).await;
    sidecar.signal(Signal::STOP);
    // It goes on talking to nobody, and then falls silent.
    tokio::time::sleep(Duration::from_secs(4)).await;
    control.heartbeats(None);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let dialer = sidecar.dialer();
    let asked = tokio::spawn(async move {
        let mut connection = dialer.connect(H1).await.unwrap();
        connection.try_send(&get("/").key(&gone)).await.map(|answer| answer.status)
    });
    sidecar.signal(Signal::CONT);
    assert_eq!(asked.await.unwrap(), Ok(503));
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        check(&sidecar, &key, 503).await;
    }
    control.heartbeats(Some(Duration::from_millis(100)));
    answers(&sidecar, &key, 200).await;
}
