//! Clients that take nothing, or next to nothing, on many streams at once: each is given up in time, holds a bounded
//! amount of memory meanwhile, and blocks nobody.

use std::time::{Duration, Instant};

use super::{
    frames::{
        Block, CONTINUATION, DATA, END_STREAM, HEADERS, Outcome, PING, Peer, RST_STREAM, data, frame, last_data,
        window_update,
    },
    in_front, writer,
};
use crate::harness::{Answer, End, Gate, H1, H2, Load, Sidecar, Upstream, get, others, post, within};

const CONFIG: &str = r#"
    [upstream]
    max_connections = 1000
    [listen.timeouts]
    body = "2s"
    write = "2s"
    idle = "3s"
    header = "2s"
"#;
/// What a client is given, and that twice over on a busy machine.
const GIVEN: Duration = Duration::from_secs(2);
const SLACK: Duration = Duration::from_secs(10);
/// As in the offer of the listener.
const STREAMS: u32 = 100;
/// How much memory the streams of one connection may hold: for each, 64 KiB in hyper, as much from the upstream, and as
/// much on the way between them.
const MEMORY: usize = STREAMS as usize * 3 * (64 << 10);

/// Opens this window so wide, asks for a large answer on every stream, and waits until all were given up.
async fn never_taken(rule: &str, window: u32, drip: bool) {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(CONFIG)).await;
    upstream.on("/large", Answer::ok(vec![b'x'; 512 << 10]));
    for version in [H1, H2] {
        assert_eq!(sidecar.send(version, get("/").key(&key)).await.status, 200);
    }
    let before = sidecar.resident_bytes();
    let callers = Load::on(&sidecar, &[H1, H2], &get("/known").key(&key));
    let mut peer = Peer::with(&sidecar, &[(4, window)]).await;
    let began = Instant::now();
    let asked: Vec<u8> =
        (0..STREAMS).flat_map(|at| Block::request("GET", "/large").key(&key).whole(2 * at + 1)).collect();
    peer.write(asked).await;
    upstream.until("the requests", |seen| seen.iter().filter(|seen| seen.target() == "/large").count() == 100).await;

    let (mut reset, mut taken, mut most) = (0, 0, 0);
    while reset < STREAMS {
        most = most.max(sidecar.resident_bytes());
        // Not a wait for something: the pace of a client that takes a byte now and then.
        let frame = match tokio::time::timeout(Duration::from_millis(200), peer.reading.next()).await {
            Ok(frame) => frame.unwrap_or_else(|| panic!("{rule}: the connection ended after {reset} streams")),
            Err(_) => {
                assert!(
                    began.elapsed() < GIVEN + SLACK,
                    "{rule}: {reset} streams given up after {:?}",
                    began.elapsed()
                );
                if drip {
                    let more: Vec<u8> = (0..STREAMS).flat_map(|at| window_update(2 * at + 1, 1)).collect();
                    peer.write(more).await;
                }
                continue;
            }
        };
        match frame.kind {
            DATA => taken += frame.payload.len(),
            RST_STREAM => reset += 1,
            _ => {}
        }
    }
    let took = began.elapsed();
    let sent = callers.stop().await;
    let worst = sent.iter().map(|sent| sent.ended - sent.began).max().unwrap();
    let grown = most.saturating_sub(before);
    println!(
        "{rule}: given up after {took:?}, {taken} bytes taken, {} KiB more, worst of {} calls {worst:?}",
        grown >> 10,
        sent.len()
    );
    assert!(took >= GIVEN && took < GIVEN + SLACK, "{rule}: {took:?}");
    assert!(grown < MEMORY, "{rule}: {grown} bytes more");
    assert!(others(&sent, 200).is_empty(), "{rule}: {:?}", others(&sent, 200));
    assert!(worst < Duration::from_secs(5), "{rule}: a caller waited {worst:?}");
    // The connection may be used again, and the upstream was let go of.
    let next = 2 * STREAMS + 1;
    peer.write(
        [window_update(0, 1 << 20), Block::request("GET", "/").key(&key).open(next), last_data(next, b"")].concat(),
    )
    .await;
    peer.write(window_update(next, 1 << 10)).await;
    assert_eq!(peer.outcome(next).await, Outcome::Answer(200), "{rule}");
    sidecar.counts("keyside_requests_total", &[("outcome", "failed")], u64::from(STREAMS)).await;
}

/// CVE-2019-9517, and the slow read of slowhttptest.
#[tokio::test]
async fn answers_that_are_never_taken_are_given_up() {
    never_taken("a window of 0", 0, false).await;
    never_taken("a window of 1", 1, false).await;
    never_taken("a window that is never widened", 65_535, false).await;
    never_taken("a window wider by 1 now and then", 0, true).await;
}

/// Nothing is read at all, not even the frames: the socket fills, and the connection is given up (CVE-2019-9512).
#[tokio::test]
async fn a_client_that_reads_nothing_is_given_up() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(CONFIG)).await;
    upstream.on("/large", Answer::ok(vec![b'x'; 1 << 20]));
    assert_eq!(sidecar.send(H2, get("/").key(&key)).await.status, 200);
    let before = sidecar.resident_bytes();
    let requests: Vec<u8> =
        (0..STREAMS).flat_map(|at| Block::request("GET", "/large").key(&key).whole(2 * at + 1)).collect();
    let opened = [window_update(0, 1 << 30), requests].concat();
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(1000);
    for (rule, first, turn) in [("pings", Vec::new(), &pings[..]), ("answers", opened, &pings)] {
        let mut peer = Peer::with(&sidecar, &[(4, 1 << 30)]).await;
        peer.write(first).await;
        let mut most = 0;
        // Until the sidecar reads no more of it, which it does not since its own words are not read; then until it ends.
        within("the end of the connection", async {
            while peer.try_write(turn).await.is_ok() {
                most = most.max(sidecar.resident_bytes());
            }
        })
        .await;
        let grown = most.saturating_sub(before);
        println!("{rule}: {} KiB more", grown >> 10);
        assert!(grown < MEMORY, "{rule}: {grown} bytes more");
        sidecar.counts("keyside_connections", &[], 0).await;
    }
    assert_eq!(sidecar.send(H2, get("/").key(&key)).await.status, 200);
}

/// An upload that stands still holds up no other, is refused in time, and never arrives whole.
#[tokio::test]
async fn uploads_that_stand_still_hold_up_nobody() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(CONFIG)).await;
    let mut peer = Peer::new(&sidecar).await;
    let began = Instant::now();
    let head = Block::request("POST", "/still").key(&key).field("content-length", "100");
    let still: Vec<u8> = (0..50).flat_map(|at| [head.open(2 * at + 1), data(2 * at + 1, b"begun")].concat()).collect();
    peer.write(still).await;
    upstream.until("what was begun", |seen| seen.iter().filter(|seen| seen.body == b"begun").count() == 50).await;
    let mut answered = 0;
    // Others on the same connection come and go meanwhile.
    for at in 50..150 {
        let id = 2 * at + 1;
        let whole =
            [Block::request("POST", "/moves").key(&key).open(id), data(id, &[b'x'; 10_000]), last_data(id, b"")];
        if began.elapsed() < GIVEN / 2 {
            assert_eq!(peer.ask(id, whole.concat()).await, Outcome::Answer(200), "stream {id}");
            answered += 1;
        }
    }
    assert!(answered > 0, "no time for any other");
    let mut refused = 0;
    while refused < 50 {
        let frame = within("the refusals", peer.reading.next()).await.expect("an open connection");
        if frame.kind == HEADERS && frame.stream < 100 {
            assert_eq!(frame.status(), 408, "stream {}", frame.stream);
            refused += 1;
        }
    }
    assert!(began.elapsed() >= GIVEN && began.elapsed() < GIVEN + SLACK, "{:?}", began.elapsed());
    let seen = upstream.until("the cuts", |seen| seen.iter().all(|seen| seen.end != End::Arriving)).await;
    assert!(seen.iter().all(|seen| (seen.end == End::Complete) == (seen.target() == "/moves")));
}

/// A client that sends beyond its window is ended: its window is what bounds the memory that it may fill
/// (RFC 9113 §5.2, §6.9.1).
#[tokio::test]
async fn a_client_that_ignores_its_window_is_ended() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(CONFIG)).await;
    let gate = Gate::new();
    upstream.on("/stuck", Answer::ok("at last").behind(&gate).early());
    assert_eq!(sidecar.send(H2, get("/").key(&key)).await.status, 200);
    let before = sidecar.resident_bytes();
    let mut peer = Peer::new(&sidecar).await;
    peer.write(Block::request("POST", "/stuck").key(&key).open(1)).await;
    upstream.request(2).await;
    let mut most = 0;
    let piece = data(1, &[b'x'; 16_384]);
    let outcome = {
        let Peer { reading, writing } = &mut peer;
        let filling = async {
            use tokio::io::AsyncWriteExt as _;
            while writing.write_all(&piece).await.is_ok() {
                most = most.max(sidecar.resident_bytes());
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            outcome = within("an end", reading.outcome(1)) => outcome,
            () = filling => unreachable!("never ends"),
        }
    };
    // FLOW_CONTROL_ERROR, of the stream or the connection.
    assert!(matches!(outcome, Outcome::Reset(3) | Outcome::GoneAway(3) | Outcome::Closed), "{outcome:?}");
    let grown = most.saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
    gate.open();
    drop(peer);
    let seen = upstream.until("the end", |seen| seen[1].end != End::Arriving).await;
    assert_eq!(seen[1].end, End::Broken);
    assert_eq!(sidecar.send(H2, post("/", "body").key(&key)).await.status, 200);
}

/// A head that does not end has no more time than any other, whether it stands still or drips in, and pings do not
/// lengthen it: nothing was asked for yet.
#[tokio::test]
async fn a_head_that_does_not_end_is_given_up() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(CONFIG)).await;
    let head = Block::request("GET", "/").key(&key).0;
    for (rule, dripped) in
        [("stands still", &b""[..]), ("drips in, in frames", &head[1..5]), ("pings meanwhile", b"ping")]
    {
        let began = Instant::now();
        let mut peer = Peer::new(&sidecar).await;
        if rule != "pings meanwhile" {
            peer.write(frame(HEADERS, END_STREAM, 1, &head[..1])).await;
        }
        for byte in dripped {
            // Not a wait for something: the pace of a slow client.
            tokio::time::sleep(Duration::from_millis(400)).await;
            let ping = frame(PING, 0, 0, &[*byte; 8]);
            peer.write(if rule == "pings meanwhile" { ping } else { frame(CONTINUATION, 0, 1, &[*byte]) }).await;
        }
        let outcome = peer.outcome(1).await;
        assert_eq!(outcome, Outcome::Closed, "{rule}");
        let took = began.elapsed();
        assert!(took + Duration::from_millis(500) > GIVEN && took < GIVEN + SLACK, "{rule}: {took:?}");
    }
    assert_eq!(upstream.count(), 0);
}
