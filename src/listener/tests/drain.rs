//! The drain: nothing that runs is lost within its grace, and nothing holds it longer.

use std::thread::{JoinHandle, sleep};

use super::{service::LARGE, *};
use crate::listener::Drained;

/// Drains on a thread of its own.
fn drain(server: &Server, delay: Duration, grace: Duration) -> JoinHandle<(Drained, Duration)> {
    let handle = server.listener.handle();
    std::thread::spawn(move || {
        let began = clock::mono();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let drained = runtime.block_on(handle.drain(delay, grace));
        (drained, clock::mono().since(began))
    })
}

#[test]
fn what_runs_may_finish_and_says_close() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    client.get("/wait");
    sleep(ms(100));
    let drained = drain(&server, ms(0), ms(20_000));
    let got = client.answer();
    assert!(got.contains("connection: close") && got.ends_with("waited"), "{got}");
    assert_eq!(client.rest(), "");
    let (drained, took) = drained.join().unwrap();
    assert_eq!(drained, Drained { cut: 0 });
    assert!(took < ms(300) + SLACK, "{took:?}");
}

#[test]
fn new_work_is_taken_during_the_delay() {
    let server = Server::start(|_| {});
    let drained = drain(&server, ms(600), ms(20_000));
    sleep(ms(200));
    let mut client = server.connect();
    client.get("/");
    let got = client.answer();
    assert!(got.ends_with("hello") && !got.contains("close"), "{got}");
    let (_, took) = drained.join().unwrap();
    assert!(took >= ms(600));
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn idle_connections_are_closed_at_once() {
    let server = Server::start(|_| {});
    let mut idle = server.connect();
    idle.get("/");
    idle.answer();
    let mut silent = server.connect();
    sleep(ms(50));
    let drained = drain(&server, ms(0), ms(20_000));
    assert_eq!(idle.rest(), "");
    // One that has just connected gets a moment to ask.
    assert_eq!(silent.rest(), "");
    let (drained, took) = drained.join().unwrap();
    assert_eq!(drained.cut, 0);
    assert!(took < SLACK, "{took:?}");
}

/// hyper's own graceful shutdown drops it (hyper#3792).
#[test]
fn a_request_that_is_just_arriving_is_answered() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    client.get("/");
    client.answer();
    client.send("GET /facts HTTP/1.1\r\n");
    sleep(ms(100));
    let drained = drain(&server, ms(0), ms(20_000));
    while TcpStream::connect(server.address).is_ok() {
        sleep(ms(5));
    }
    // Beyond the patience of the drain.
    sleep(ms(500));
    client.send("Host: a\r\n\r\n");
    let got = client.answer();
    assert!(got.contains("draining=true") && got.contains("connection: close"), "{got}");
    assert_eq!(drained.join().unwrap().0.cut, 0);
}

/// The last piece of an answer waits for its client behind the exchange, which is over. It is not lost all the same.
#[track_caller]
fn check_slow_reader(request: &str) {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    client.send(request);
    let mut begun = [0; 12];
    client.socket.read_exact(&mut begun).unwrap();
    // Beyond the patience of the drain, in which nothing goes out.
    sleep(ms(500));
    let drained = drain(&server, ms(0), ms(20_000));
    while TcpStream::connect(server.address).is_ok() {
        sleep(ms(5));
    }
    sleep(ms(500));
    let got = client.rest();
    let (_, body) = got.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.bytes().filter(|byte| *byte == b'x').count(), LARGE, "{request}");
    assert_eq!(drained.join().unwrap().0.cut, 0);
}

#[test]
fn an_answer_that_is_still_on_its_way_arrives() {
    check_slow_reader("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    check_slow_reader("GET /unsized HTTP/1.1\r\nHost: a\r\n\r\n");
    check_slow_reader("GET /unsized HTTP/1.0\r\nHost: a\r\n\r\n");
}

/// What ends with the connection must not look whole when it was cut, whether its exchange is over or goes on.
#[test]
fn an_answer_that_nobody_reads_is_cut_by_a_reset() {
    for path in ["/unsized", "/endless"] {
        let server = Server::start(|_| {});
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n"));
        let mut some = [0; 4096];
        client.socket.read_exact(&mut some).unwrap();
        sleep(ms(200));
        drain(&server, ms(0), ms(300)).join().unwrap();
        let end = std::iter::repeat_with(|| client.socket.read(&mut some)).find(|read| !matches!(read, Ok(1..)));
        assert!(matches!(&end, Some(Err(error)) if error.kind() == ErrorKind::ConnectionReset), "{path}: {end:?}");
    }
}

#[test]
fn what_connects_before_the_drain_is_served() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    let drained = drain(&server, ms(0), ms(20_000));
    client.get("/");
    assert!(client.answer().ends_with("hello"));
    drained.join().unwrap();
}

#[test]
fn what_does_not_finish_is_cut_and_counted() {
    let server = Server::start(|_| {});
    let mut clients: Vec<_> = ["/key", "/silent", "/deaf", "/endless"]
        .into_iter()
        .map(|path| {
            let mut client = server.connect();
            client.get(path);
            client
        })
        .collect();
    // "/deaf" is closed by its own cut before the grace is over.
    sleep(ms(300));
    let (drained, took) = drain(&server, ms(0), ms(500)).join().unwrap();
    assert_eq!(drained, Drained { cut: 3 });
    assert!(took >= ms(500) && took < ms(500) + SLACK, "{took:?}");
    assert_eq!(server.counters.exchanges_cut.get(), 3);
    server.wait_for("connections", |counters| counters.connections.get(), 0);
    // Its pipeline was told why, and could say so.
    assert!(clients[0].rest().ends_with("Drain"));
}

#[test]
fn a_second_call_ends_it_at_once() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    client.get("/key");
    sleep(ms(100));
    let first = drain(&server, ms(10_000), ms(20_000));
    sleep(ms(100));
    let (drained, took) = drain(&server, ms(10_000), ms(20_000)).join().unwrap();
    assert_eq!(drained.cut, 1);
    assert!(took < SLACK, "{took:?}");
    assert_eq!(first.join().unwrap().0.cut, 1);
}

#[test]
fn an_upgraded_connection_is_something_that_runs() {
    let server = Server::start(|_| {});
    let mut client = server.connect();
    client.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    client.answer();
    let drained = drain(&server, ms(0), ms(600));
    sleep(ms(300));
    client.send("echo");
    let mut got = [0; 4];
    client.socket.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"echo");
    assert_eq!(drained.join().unwrap().0.cut, 1);
    assert_eq!(client.rest(), "");
}

#[test]
fn a_handshake_that_stalls_does_not_hold_the_drain() {
    let certificates = Certificates::new();
    let server = Server::start(|settings| settings.tls = Some(certificates.settings()));
    let mut client = server.connect();
    client.send([0x16, 3, 1]);
    sleep(ms(100));
    let (drained, took) = drain(&server, ms(0), ms(20_000)).join().unwrap();
    assert_eq!(drained.cut, 0);
    assert!(took < SLACK, "{took:?}");
}
