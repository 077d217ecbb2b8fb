//! Upstreams that fail: they swallow, reset, half-close, cut, close when they like, and take their time.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{Numbers, UNLIMITED};
use crate::harness::{Answer, Gate, H1, H2, Key, Sidecar, Upstream, Wire, eventually, get, post, within};

fn writer() -> Key {
    Key::pair("key").scopes(["read_write"])
}

/// A listener that takes no more connections: the network swallows what is sent there.
struct BlackHole {
    listener: Socket,
    _waiting: Vec<Socket>,
}

impl BlackHole {
    fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        // As many as fit into its queue, and some that do not.
        let waiting = (0..8).map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address);
            socket
        });
        Self { _waiting: waiting.collect(), listener }
    }

    fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap().as_socket().unwrap())
    }
}

#[tokio::test]
async fn an_upstream_that_swallows_packets_is_given_up_in_time() {
    let key = writer();
    let hole = BlackHole::new();
    let config = format!("{UNLIMITED}\n[upstream]\nconnect_timeout = \"1s\"");
    let sidecar = Sidecar::in_front_of_url(&hole.url()).config(&config).keys([&key]).start().await;
    let began = Instant::now();
    let requests = [(H1, get("/")), (H2, get("/")), (H1, post("/", "order")), (H2, post("/", "order"))];
    let mut waiting = Vec::new();
    for (version, request) in requests {
        let (mut connection, request) = (sidecar.connect(version).await, request.key(&key));
        waiting.push(tokio::spawn(async move { connection.send(&request).await }));
    }
    // Others do not wait for them.
    assert_eq!(sidecar.ask(get("/")).await.status, 401);
    for answer in waiting {
        assert_eq!(answer.await.unwrap().brief(), "504 upstream_timeout");
    }
    let took = began.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(8)).contains(&took), "{took:?}");
    // Now it is gone for good, and that is known at once.
    drop(hole);
    assert_eq!(sidecar.ask(get("/").key(&key)).await.brief(), "502 upstream_unreachable");
}

/// What an upstream does to a connection once a request has come.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Resets at once, before it has read anything.
    ResetUnread,
    /// Resets after these bytes.
    Reset(&'static str),
    /// Ends its sending half after these bytes, and goes on listening.
    HalfClose(&'static str),
}

/// An upstream that does the same to every request. How many heads it has read.
async fn upstream_that(deed: Deed) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, deed, Arc::clone(&counted)));
        }
    });
    (url, heads)
}

async fn serve(mut stream: TcpStream, deed: Deed, heads: Arc<AtomicUsize>) {
    if matches!(deed, Deed::ResetUnread) {
        let _ = stream.readable().await;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        heads.fetch_add(1, Relaxed);
        return;
    }
    let mut read = Vec::new();
    while !read.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
            return;
        }
    }
    heads.fetch_add(1, Relaxed);
    match deed {
        Deed::Reset(bytes) => {
            let _ = stream.write_all(bytes.as_bytes()).await;
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        Deed::HalfClose(bytes) => {
            let _ = stream.write_all(bytes.as_bytes()).await;
            let _ = stream.shutdown().await;
            // Until the other side has gone, too.
            let _ = stream.read_to_end(&mut read).await;
        }
        Deed::ResetUnread => {}
    }
}

/// A cut answer is seen as cut, no answer is a 502, and nothing is sent twice.
#[tokio::test]
async fn an_upstream_that_breaks_off_is_seen_to() {
    const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    const CHUNK: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    const UNTIL_CLOSE: &str = "HTTP/1.1 200 OK\r\n\r\nwhole";
    let key = writer();
    // What the caller is told: none means an answer that is cut.
    let rows: [(&str, Deed, Option<&str>); 11] = [
        ("a reset before all", Deed::ResetUnread, Some("502 upstream_unreachable")),
        ("a reset in place of an answer", Deed::Reset(""), Some("502 upstream_unreachable")),
        ("a reset in the status line", Deed::Reset("HTTP/1.1 20"), Some("502 upstream_unreachable")),
        ("a reset in the head", Deed::Reset("HTTP/1.1 200 OK\r\nContent-Le"), Some("502 upstream_unreachable")),
        ("a reset in the body", Deed::Reset(HALF), None),
        ("a reset between chunks", Deed::Reset(CHUNK), None),
        ("a half-close in place of an answer", Deed::HalfClose(""), Some("502 upstream_unreachable")),
        ("a half-close in the head", Deed::HalfClose("HTTP/1.1 200 OK\r\nX"), Some("502 upstream_unreachable")),
        ("a half-close in the body", Deed::HalfClose(HALF), None),
        ("a half-close between chunks", Deed::HalfClose(CHUNK), None),
        ("a half-close at the end", Deed::HalfClose(UNTIL_CLOSE), Some("200")),
    ];
    for (what, deed, told) in rows {
        let (url, heads) = upstream_that(deed).await;
        let sidecar = Sidecar::in_front_of_url(&url).config(UNLIMITED).keys([&key]).start().await;
        let mut sent = 0;
        for version in [H1, H2] {
            for request in [get("/"), post("/", "order"), post("/", "").chunks(["or", "der"])] {
                sent += 1;
                let row = format!("{what}, over {version:?}, {}", request.method);
                let mut connection = sidecar.connect(version).await;
                let answer = within(&row, connection.try_send(&request.key(&key))).await;
                match (told, answer) {
                    (Some(told), Ok(answer)) => assert_eq!(answer.brief(), told, "{row}: {answer:?}"),
                    (Some(_), Err(why)) => panic!("{row}: no answer: {why}"),
                    // A reset may overtake what was sent before it; then there was no answer at all.
                    (None, Ok(answer)) if answer.brief() == "502 upstream_unreachable" => {
                        assert!(matches!(deed, Deed::Reset(_)), "{row}: {answer:?}");
                    }
                    (None, Ok(answer)) => assert!(answer.broken.is_some(), "{row}: {answer:?}"),
                    (None, Err(_)) => {}
                }
                assert_eq!(heads.load(Relaxed), sent, "{row}: it was sent again, or never");
            }
        }
    }
}

/// Callers that order again and again, and an upstream that closes kept connections whenever it likes: after an answer
/// without a word, in place of one, in the middle of one, before it has read all. No order ever arrives twice.
#[tokio::test]
async fn no_order_arrives_twice() {
    const CALLERS: u64 = 6;
    let key = writer();
    let upstream = Upstream::start().await;
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    upstream.on("/closes", Answer::ok("ok").then_close());
    upstream.on("/hangs-up", Answer::hang_up());
    upstream.on("/hangs-up-early", Answer::hang_up().early());
    upstream.on("/cuts", Answer::raw(half).then_close());
    upstream.on("/early", Answer::ok("ok").early().then_close());
    let sidecar = Sidecar::in_front_of(&upstream).config(UNLIMITED).keys([&key]).start().await;
    let mut callers = Vec::new();
    for caller in 0..CALLERS {
        let (dialer, key) = (sidecar.dialer(), key.clone());
        callers.push(tokio::spawn(async move {
            let mut random = Numbers(caller);
            let version = if caller % 2 == 0 { H1 } else { H2 };
            let mut connection = None;
            let mut told = Vec::new();
            for number in 0..30 {
                // Half of them to where all is well, so that there are connections to keep.
                let paths =
                    ["/", "/closes", "/", "/hangs-up", "/", "/cuts", "/", "/early", "/closes", "/hangs-up-early"];
                let path = paths[random.below(paths.len() as u64) as usize];
                let order = format!("order {caller} {number}");
                let request = post(path, &order).key(&key);
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => dialer.connect(version).await.unwrap(),
                };
                let answer = within("an answer", open.try_send(&request)).await;
                let whole = answer.as_ref().is_ok_and(|answer| answer.status == 200 && answer.broken.is_none());
                if answer.is_ok_and(|answer| answer.broken.is_none() && answer.field("connection") != "close") {
                    connection = Some(open);
                }
                told.push((order, path, whole));
            }
            told
        }));
    }
    let mut told = Vec::new();
    for caller in callers {
        told.extend(caller.await.unwrap());
    }
    let mut arrived: Vec<Vec<u8>> = upstream.seen().into_iter().map(|seen| seen.body).collect();
    arrived.retain(|body| !body.is_empty());
    arrived.sort();
    let count = arrived.len();
    arrived.dedup();
    assert_eq!(arrived.len(), count, "an order arrived twice");
    // Those were many, and whoever was told that it is done was told the truth.
    assert!(count >= 100, "{count}");
    let mut well = 0;
    for (order, path, whole) in &told {
        let there = arrived.binary_search(&order.clone().into_bytes()).is_ok();
        assert!(there || !whole || *path == "/early", "{order} to {path}: acknowledged and lost");
        well += usize::from(*path == "/" && *whole);
    }
    let asked = told.iter().filter(|(_, path, _)| *path == "/").count();
    assert!(well * 10 >= asked * 8, "{well} of {asked} good ones were answered");
}

/// A thousand callers and an upstream that takes its time: so many are let through as it may have, and the others are
/// told at once when to come again.
#[tokio::test]
async fn a_slow_upstream_has_no_queue_without_end() {
    const CALLERS: usize = 1000;
    const AT_ONCE: usize = 40;
    // The callers' ends are ours: two of them for each, with the upstream's.
    keyside::listener::raise_descriptor_limit();
    let key = writer();
    let gate = Gate::new();
    let upstream = Upstream::start().await;
    upstream.on("/slow", Answer::ok("at last").behind(&gate));
    let config = format!("{UNLIMITED}\n[upstream]\nmax_in_flight = {AT_ONCE}");
    let sidecar = Sidecar::in_front_of(&upstream).plaintext().config(&config).keys([&key]).start().await;
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    let before = sidecar.resident_bytes();
    let head = get("/slow").key(&key).head();
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        let mut wire = Wire::new(sidecar.tcp().await);
        wire.write(&head).await.unwrap();
        callers.push(tokio::spawn(async move { wire.answer("GET").await.expect("an answer") }));
    }
    upstream.until("all that may be under way", |seen| seen.len() > AT_ONCE).await;
    // They are refused while those wait.
    let overloaded = [("reason", "overloaded")];
    sidecar.counts("keyside_rejections_total", &overloaded, (CALLERS - AT_ONCE) as u64).await;
    assert_eq!(sidecar.admin("GET", "/livez").await.status, 200);
    assert_eq!(sidecar.admin("GET", "/readyz").await.status, 200);
    assert_eq!(sidecar.ask(get("/slow")).await.status, 401);
    let grown = sidecar.resident_bytes().saturating_sub(before);
    assert!(grown < 100 << 20, "{grown} bytes for {CALLERS} callers");
    gate.open();
    let mut served = 0;
    for caller in callers {
        let answer = within("an answer", caller).await.unwrap();
        match answer.brief().as_str() {
            "200" => served += 1,
            "503 overloaded" => assert!(answer.field("retry-after").parse::<u64>().is_ok_and(|after| after > 0)),
            other => panic!("{other}: {answer:?}"),
        }
    }
    assert_eq!((served, upstream.count()), (AT_ONCE, AT_ONCE + 1));
    // And then all is as before.
    eventually("room", async || {
        let answer = sidecar.ask(get("/slow").key(&key)).await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
}
