//! SIGTERM while much is under way (fault 25): what can finish within the grace does, to its last byte; the rest is cut,
//! counted, and never looks whole. How a drain goes step by step is in `operation::shutdown`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::task::JoinHandle;

use crate::harness::{
    Answer, Connection, Gate, H1, H2, Key, Received, Request, Sidecar, Upstream, Wire, eventually, get, others, post,
    within,
};

const EACH: usize = 10;
const GRACE: Duration = Duration::from_secs(6);

/// Waits until nobody is let in any more: from then on the drain has reached the connections.
async fn door_shut(sidecar: &Sidecar) {
    eventually("the door to be shut", async || match sidecar.tcp_or_error().await {
        Ok(_) => Err("open"),
        Err(_) => Ok(()),
    })
    .await;
}

/// Requests under way, by name.
#[derive(Default)]
struct Running(Vec<(String, JoinHandle<Result<Received, String>>)>);

impl Running {
    /// On a connection of its own each, or all on one.
    async fn ask(&mut self, sidecar: &Sidecar, what: &str, one: bool, request: Request) {
        let shared = if one { Some(sidecar.connect(H2).await) } else { None };
        for number in 0..EACH {
            let mut connection = match &shared {
                Some(Connection::H2 { client, .. }) => {
                    Connection::H2 { client: client.clone(), driving: tokio::spawn(async {}) }
                }
                _ => sidecar.connect(H1).await,
            };
            let request = request.clone().field("X-Request-Id", format!("{what}-{number}"));
            self.0.push((what.to_owned(), tokio::spawn(async move { connection.try_send(&request).await })));
        }
        // The driver of the shared connection goes on without it.
        drop(shared);
    }
}

/// An answer whose first part comes at once, and the rest when the gate has opened.
fn in_two_parts(gate: &Gate, chunked: bool) -> Answer {
    let (fields, first, rest) = if chunked {
        ("Transfer-Encoding: chunked", "5\r\nbegun\r\n", "7\r\n, ended\r\n0\r\n\r\n")
    } else {
        ("Content-Length: 12", "begun", ", ended")
    };
    Answer::raw(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{first}")).then(gate, rest)
}

#[tokio::test]
async fn all_kinds_of_work_are_finished_or_cut_and_counted() {
    let key = Key::pair("key").scopes(["read_write"]);
    let upstream = Upstream::start().await;
    let (finish, never) = (Gate::new(), Gate::new());
    for (path, gate) in [("finish", &finish), ("never", &never)] {
        upstream.on(&format!("/download/{path}"), in_two_parts(gate, false));
        upstream.on(&format!("/stream/{path}"), in_two_parts(gate, true));
        upstream.on(&format!("/wait/{path}"), Answer::ok("begun, ended").behind(gate));
    }
    upstream.on("/socket", Answer::switching("websocket"));
    upstream.on("/upload", Answer::ok("begun, ended"));
    let config = format!(
        "[shutdown]\ngrace = \"{}s\"\n[[route]]\npath = \"/socket\"\nupgrade = [\"websocket\"]\n[[route]]\npath = \"/**\"",
        GRACE.as_secs()
    );
    let sidecar = Sidecar::in_front_of(&upstream).config(&config).keys([&key]).start().await;

    let mut running = Running::default();
    for end in ["finish", "never"] {
        for kind in ["download", "stream", "wait"] {
            let request = get(&format!("/{kind}/{end}")).key(&key);
            running.ask(&sidecar, &format!("{kind}-{end}"), false, request.clone()).await;
            running.ask(&sidecar, &format!("h2-{kind}-{end}"), true, request).await;
        }
    }
    let mut uploads = Vec::new();
    for number in 0..2 * EACH {
        let mut wire = sidecar.wire().await;
        let request = post("/upload", "x".repeat(20)).key(&key).field("X-Request-Id", format!("upload-{number}"));
        wire.write([&request.head()[..], b"xxxxxxxxxx"].concat()).await.unwrap();
        uploads.push(wire);
    }
    let mut tunnels = Vec::new();
    for number in 0..EACH {
        let mut wire = sidecar.wire().await;
        let upgrade = get("/socket").key(&key).field("Connection", "Upgrade").field("Upgrade", "websocket");
        wire.write(upgrade.field("X-Request-Id", format!("tunnel-{number}")).head()).await.unwrap();
        assert_eq!(wire.answer("GET").await.unwrap().status, 101);
        tunnels.push(wire);
    }
    let all = running.0.len() + uploads.len() + tunnels.len();
    upstream.request(all).await;

    let began = Instant::now();
    sidecar.signal(Signal::TERM);
    door_shut(&sidecar).await;
    finish.open();
    // One half of the uploads goes on, the other half stands still.
    for (number, wire) in uploads.iter_mut().enumerate().filter(|(number, _)| number % 2 == 0) {
        wire.write("xxxxxxxxxx").await.unwrap();
        let answer = within("an answer to an upload", wire.answer("POST")).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "begun, ended"), "upload {number}");
    }
    for wire in &mut tunnels {
        wire.write("ping").await.unwrap();
        assert_eq!(wire.exactly(4).await.unwrap(), b"ping", "a tunnel lives as long as the grace");
    }
    assert!(began.elapsed() < GRACE, "the machine is too slow for this test: {:?}", began.elapsed());

    assert_eq!(sidecar.ended().await, 0);
    let took = began.elapsed();
    assert!((GRACE..GRACE + Duration::from_secs(10)).contains(&took), "{took:?}");
    for (what, answer) in running.0 {
        let answer = answer.await.unwrap();
        let whole = answer.as_ref().is_ok_and(|answer| answer.status == 200 && answer.broken.is_none());
        assert_eq!(whole, what.ends_with("finish"), "{what}: {answer:?}");
        assert!(!whole || answer.as_ref().unwrap().text() == "begun, ended", "{what}: {answer:?}");
    }
    for mut wire in uploads.into_iter().skip(1).step_by(2) {
        let answer = wire.answer("POST").await;
        assert!(!answer.as_ref().is_ok_and(|answer| answer.status == 200), "{answer:?}");
    }
    for mut wire in tunnels {
        assert_eq!(wire.rest().await, b"");
    }
    // Six kinds, one half of the uploads, all tunnels.
    let cut = 6 * EACH + EACH + EACH;
    let line = sidecar.log.object("the end", |line| line["message"] == "stopped").await;
    assert_eq!(line["requests.cut"], cut, "{line}");
    // Each request has its line, and one.
    let mut logged: Vec<String> = sidecar.access.all();
    logged.retain(|line| line.contains("\"request_id\""));
    assert_eq!(logged.len(), all, "{logged:#?}");
    // What was cut before its last byte never arrived as a whole.
    let seen = upstream.seen();
    let broken = seen.iter().filter(|seen| seen.target() == "/upload" && seen.body.len() < 20).count();
    assert_eq!(broken, EACH);
}

/// What was answered on the last moment counts after the restart.
#[tokio::test]
async fn what_was_answered_during_the_drain_is_remembered() {
    let key = Key::pair("key").with("limits = [\"30/10m\"]");
    let upstream = Upstream::start().await;
    let gate = Gate::new();
    upstream.on("/slow", Answer::ok("at last").behind(&gate));
    let sidecar = Sidecar::in_front_of(&upstream).config("[shutdown]\ngrace = \"30s\"").keys([&key]).start().await;
    let mut running = Vec::new();
    for number in 0..20 {
        let (mut connection, request) = (sidecar.connect([H1, H2][number % 2]).await, get("/slow").key(&key));
        running.push(tokio::spawn(async move { connection.try_send(&request).await }));
    }
    upstream.request(20).await;
    let log = sidecar.log.clone();
    let opening = async {
        log.object("the drain", |line| line["message"] == "draining").await;
        gate.open();
    };
    let (sidecar, ()) = tokio::join!(sidecar.restart(), opening);
    for answer in running {
        assert_eq!(answer.await.unwrap().unwrap().text(), "at last");
    }
    let used = std::fs::read_to_string(sidecar.path("state/last-used.ndjson")).unwrap();
    assert!(used.contains(&key.id), "{used}");
    let mut connection = sidecar.connect(H1).await;
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(connection.send(&get("/").key(&key)).await.status);
    }
    assert_eq!(statuses, [[200; 10].as_slice(), &[429; 2]].concat());
}

/// Those who ask for nothing hold nothing up.
#[tokio::test]
async fn idle_and_silent_connections_do_not_delay_the_end() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).config("[shutdown]\ngrace = \"60s\"").keys([&key]).start().await;
    let (mut idle, mut silent) = (Vec::new(), Vec::new());
    for number in 0..100 {
        let mut connection = sidecar.connect([H1, H2][number % 2]).await;
        assert_eq!(connection.send(&get("/").key(&key)).await.status, 200);
        idle.push(connection);
    }
    for _ in 0..50 {
        silent.push(Wire::new(sidecar.tcp().await));
        silent.push(sidecar.wire().await);
    }
    let mut halting = Wire::new(sidecar.tcp().await);
    halting.write([0x16, 0x03, 0x01, 0x02, 0x00]).await.unwrap();
    let began = Instant::now();
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.ended().await, 0);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    sidecar.log.object("the end", |line| line["requests.cut"] == 0).await;
    for mut connection in idle {
        connection.closed().await;
    }
    for mut wire in silent {
        assert_eq!(within("the end", wire.rest()).await, b"");
    }
}

/// A caller that asks again and again on its connection is told by an answer that it closes, and never finds it closed
/// upon a request: HTTP/1.1 has no other way to tell it (RFC 9112 §9.6), and what is lost may not be asked again.
#[tokio::test]
async fn busy_callers_lose_no_request() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).config("[shutdown]\ngrace = \"20s\"").keys([&key]).start().await;
    let mut callers = Vec::new();
    let answered = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    for number in 0..40_u64 {
        let (mut connection, request) = (sidecar.connect(H1).await, get("/").key(&key));
        let answered = Arc::clone(&answered);
        callers.push(tokio::spawn(async move {
            for count in 1.. {
                let answer = connection.try_send(&request).await.map_err(|why| (number, count, why))?;
                assert_eq!(answer.status, 200);
                answered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if answer.field("connection") == "close" {
                    break;
                }
                // Not a wait for something: the pace of a caller.
                tokio::time::sleep(Duration::from_millis(number * 5)).await;
            }
            Ok::<_, (u64, i32, String)>(())
        }));
    }
    eventually("all to be at it", async || {
        let count = answered.load(std::sync::atomic::Ordering::Relaxed);
        if count > 400 { Ok(()) } else { Err(count) }
    })
    .await;
    sidecar.signal(Signal::TERM);
    let mut lost = Vec::new();
    for caller in callers {
        lost.extend(within("a caller to be told", caller).await.unwrap().err());
    }
    assert!(lost.is_empty(), "{} of 40 callers lost a request: {lost:?}", lost.len());
    assert_eq!(sidecar.ended().await, 0);
    let answered = answered.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(upstream.count(), answered, "what the upstream answered has reached its caller");
}

/// An answer whose head left before the drain cannot say any more that its connection closes. So it does not close right
/// behind the body: who asks again loses nothing, and is told by the next answer.
#[tokio::test]
async fn an_answer_that_began_before_the_drain_is_not_closed_upon() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let gate = Gate::new();
    upstream.on("/two", in_two_parts(&gate, false));
    let sidecar = Sidecar::in_front_of(&upstream).config("[shutdown]\ngrace = \"20s\"").keys([&key]).start().await;
    let mut callers = Vec::new();
    for _ in 0..=EACH {
        let mut wire = sidecar.wire().await;
        wire.write(get("/two").key(&key).head()).await.unwrap();
        let head = wire.answer_head("GET").await.unwrap();
        assert_eq!((head.status, head.field("connection")), (200, ""));
        callers.push(wire);
    }
    sidecar.signal(Signal::TERM);
    door_shut(&sidecar).await;
    gate.open();
    // One of them is content, and does not hold up the end.
    let mut content = callers.pop().unwrap();
    let next = get("/next").key(&key);
    let asking = callers.into_iter().map(|mut wire| {
        let next = next.head();
        tokio::spawn(async move {
            wire.exactly(12).await.unwrap();
            wire.write(next).await.map_err(|error| error.to_string())?;
            let answer = wire.answer("GET").await.map_err(|error| format!("{error:?}"))?;
            Ok::<_, String>((answer.status, answer.field("connection").to_owned()))
        })
    });
    for asked in asking.collect::<Vec<_>>() {
        assert_eq!(asked.await.unwrap(), Ok((200, "close".to_owned())));
    }
    assert_eq!(within("the end", content.rest()).await, b"begun, ended");
    assert_eq!(sidecar.ended().await, 0);
    sidecar.log.object("the end", |line| line["message"] == "stopped" && line["requests.cut"] == 0).await;
}
