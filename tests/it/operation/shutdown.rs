//! How it goes away: not ready at once, new work for a while, then what runs may finish; a second signal ends it.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Answer, Connection, Gate, H1, H2, Key, Sidecar, Upstream, eventually, get};

#[tokio::test]
async fn a_drain_finishes_what_runs() {
    for signal in [Signal::TERM, Signal::INT] {
        let key = Key::pair("key");
        let upstream = Upstream::start().await;
        let gate = Gate::new();
        upstream.on("/slow", Answer::ok("at last").behind(&gate));
        let config = "[shutdown]\ndelay = \"1s\"\ngrace = \"20s\"";
        let sidecar = Sidecar::in_front_of(&upstream).config(config).keys([&key]).start().await;
        let mut running = Vec::new();
        for version in [H1, H2] {
            let (mut connection, request) = (sidecar.connect(version).await, get("/slow").key(&key));
            running.push(tokio::spawn(async move { connection.send(&request).await }));
        }
        upstream.request(2).await;
        let mut idle = sidecar.connect(H1).await;
        let mut idle_http2 = sidecar.connect(H2).await;
        for connection in [&mut idle, &mut idle_http2] {
            assert_eq!(connection.send(&get("/").key(&key)).await.status, 200);
        }

        let began = Instant::now();
        sidecar.signal(signal);
        eventually("not to be ready", async || {
            let status = sidecar.admin("GET", "/readyz").await.status;
            if status == 503 { Ok(()) } else { Err(status) }
        })
        .await;
        // Endpoints lag behind: new work is still taken, also on new connections.
        if began.elapsed() < Duration::from_millis(700) {
            assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
            assert_eq!(idle.send(&get("/").key(&key)).await.status, 200);
        }
        // Then the idle ones go, and nobody else comes in.
        idle.closed().await;
        idle_http2.closed().await;
        assert!(began.elapsed() >= Duration::from_secs(1));
        eventually("the door to be shut", async || match sidecar.dialer().connect(H1).await {
            Ok(_) => Err("open"),
            Err(_) => Ok(()),
        })
        .await;
        gate.open();
        for answer in running {
            assert_eq!(answer.await.unwrap().text(), "at last", "{signal:?}");
        }
        assert_eq!(sidecar.ended().await, 0);
        sidecar.log.find("nothing cut", |line| line.contains("\"requests.cut\":0").then_some(())).await;
    }
}

/// Balancers that look at the port itself are told during the delay, while it is still open and serves.
#[tokio::test]
async fn the_health_path_is_not_well_from_the_first_moment() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let config = "[shutdown]\ndelay = \"60s\"\n[listen]\nhealth_path = \"/healthz\"";
    let sidecar = Sidecar::in_front_of(&upstream).config(config).keys([&key]).start().await;
    let mut connections = [sidecar.connect(H1).await, sidecar.connect(H2).await];
    for connection in &mut connections {
        assert_eq!(connection.send(&get("/healthz")).await.status, 200);
    }
    sidecar.signal(Signal::TERM);
    eventually("the health path to say so", async || {
        let status = sidecar.ask(get("/healthz")).await.status;
        if status == 503 { Ok(()) } else { Err(status) }
    })
    .await;
    for connection in &mut connections {
        assert_eq!(connection.send(&get("/healthz")).await.status, 503);
        let answer = connection.send(&get("/").key(&key)).await;
        assert_eq!((answer.status, answer.field("connection")), (200, ""), "{answer:?}");
    }
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    sidecar.signal(Signal::TERM);
    sidecar.ended().await;
}

/// Whoever still asks on a kept connection is told that it closes.
#[tokio::test]
async fn a_connection_that_is_used_during_the_drain_says_that_it_closes() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let gate = Gate::new();
    upstream.on("/slow", Answer::ok("at last").behind(&gate));
    let sidecar = Sidecar::in_front_of(&upstream).config("[shutdown]\ngrace = \"20s\"").keys([&key]).start().await;
    let mut connection = sidecar.connect(H1).await;
    let request = get("/slow").key(&key);
    let (answer, ()) = tokio::join!(connection.send(&request), async {
        upstream.request(1).await;
        sidecar.signal(Signal::TERM);
        sidecar.log.find("the drain", |line| line.contains("draining").then_some(())).await;
        // Once the door is shut, the drain has reached the connections.
        eventually("the door to be shut", async || match sidecar.dialer().connect(H1).await {
            Ok(_) => Err("open"),
            Err(_) => Ok(()),
        })
        .await;
        gate.open();
    });
    assert_eq!((answer.text().as_str(), answer.field("connection")), ("at last", "close"));
    connection.closed().await;
    assert_eq!(sidecar.ended().await, 0);
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut_and_counted() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    upstream.on("/never", Answer::silence());
    let sidecar = Sidecar::in_front_of(&upstream).config("[shutdown]\ngrace = \"1s\"").keys([&key]).start().await;
    let mut running = Vec::new();
    for version in [H1, H2] {
        let (mut connection, request) = (sidecar.connect(version).await, get("/never").key(&key));
        running.push(tokio::spawn(async move { connection.try_send(&request).await }));
    }
    upstream.request(2).await;
    let began = Instant::now();
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.ended().await, 0);
    let took = began.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(12)).contains(&took), "{took:?}");
    sidecar.log.find("two cut", |line| line.contains("\"requests.cut\":2").then_some(())).await;
    for answer in running {
        // An answer that says so, or none.
        assert!(answer.await.unwrap().is_ok_and(|answer| answer.status == 503) || took > Duration::ZERO);
    }
    // Each has its line.
    assert_eq!(sidecar.access.all().len(), 2, "{:?}", sidecar.access.all());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    upstream.on("/never", Answer::silence());
    let config = "[shutdown]\ndelay = \"60s\"\ngrace = \"60s\"";
    let sidecar = Sidecar::in_front_of(&upstream).config(config).keys([&key]).start().await;
    let (mut connection, request) = (sidecar.connect(H1).await, get("/never").key(&key));
    let running = tokio::spawn(async move { connection.try_send(&request).await.map(|answer| answer.status) });
    upstream.request(1).await;
    let began = Instant::now();
    sidecar.signal(Signal::TERM);
    sidecar.log.find("the drain", |line| line.contains("draining").then_some(())).await;
    sidecar.signal(Signal::TERM);
    sidecar.ended().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_ne!(running.await.unwrap(), Ok(200));
}

/// A tunnel has no end of its own; it goes with the grace.
#[tokio::test]
async fn a_tunnel_does_not_hold_up_the_end() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    upstream.on("/socket", Answer::switching("websocket"));
    let config = "[shutdown]\ngrace = \"1s\"\n[[route]]\npath = \"/socket\"\nupgrade = [\"websocket\"]";
    let sidecar = Sidecar::in_front_of(&upstream).config(config).keys([&key]).start().await;
    let mut wire = sidecar.wire().await;
    let upgrade = get("/socket").key(&key).field("Connection", "Upgrade").field("Upgrade", "websocket");
    wire.write(upgrade.head()).await.unwrap();
    assert_eq!(wire.answer("GET").await.unwrap().status, 101);
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.ended().await, 0);
    assert_eq!(wire.rest().await, b"");
}

/// Closing a connection of HTTP/2 is announced (GOAWAY), so that no request is lost on the way.
#[tokio::test]
async fn http2_is_told_to_go_away() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).config("[shutdown]\ngrace = \"10s\"").keys([&key]).start().await;
    let Connection::H2 { client, driving } = sidecar.connect(H2).await else { unreachable!() };
    let mut connection = Connection::H2 { client: client.clone(), driving };
    assert_eq!(connection.send(&get("/").key(&key)).await.status, 200);
    sidecar.signal(Signal::TERM);
    connection.closed().await;
    // The library knows that the other side said goodbye, not that the line went dead.
    let refused = client.ready().await.err().unwrap();
    assert!(refused.is_go_away() || !refused.is_io(), "{refused:?}");
    assert_eq!(sidecar.ended().await, 0);
}
