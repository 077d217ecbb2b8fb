//! Floods of frames: whoever is verified is served meanwhile, memory stays bounded, and so does the upstream's work.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::{io::AsyncWriteExt as _, sync::watch};

use super::{
    frames::{
        Block, CONTINUATION, DATA, GOAWAY, HEADERS, PADDED, PING, PRIORITY, Peer, data, frame, reset, settings,
        window_update,
    },
    in_front, writer,
};
use crate::harness::{H1, H2, Key, Sidecar, Version, get, within};

/// How long a verified caller may wait for an answer while a flood runs. A machine that does nothing else needs less
/// than a tenth of it.
const WAIT: Duration = Duration::from_secs(10);
/// How many answers each verified caller gets while a flood runs, at the least.
const CALLS: usize = 10;
/// How much more memory a flood may take, over all of its connections.
const MEMORY: usize = 32 << 20;
/// How long a flood goes on at the least, where nobody ends it.
const WHILE: Duration = Duration::from_secs(1);
/// From how many connections it comes: more than there are serving threads on a small machine.
const CONNECTIONS: usize = 4;
/// How many requests of streams that are reset may have begun upstream: a connection has 1024 such streams, and no more
/// than 100 of them at a time.
const MADE: usize = CONNECTIONS * 1024;

/// What a flood sends again and again.
type Turn = Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>;

/// Frames without end.
struct Flood {
    rule: &'static str,
    source: &'static str,
    /// What comes first, once a connection.
    first: Vec<u8>,
    turn: Turn,
    reads: bool,
    verdict: Verdict,
    /// How many requests may arrive at the upstream.
    requests: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Each connection is ended in the middle of it.
    Ended,
    /// It is borne: nobody is the worse for it.
    Borne,
}

impl Flood {
    async fn run(self) {
        let name = format!("{} ({})", self.rule, self.source);
        let (verdict, requests) = (self.verdict, self.requests);
        let key = writer();
        // Connections that ask for nothing are not ended as idle, however long this takes.
        let config = "[listen.timeouts]\nheader = \"10m\"\nidle = \"10m\"";
        let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(config)).await;
        for version in [H1, H2] {
            assert_eq!(sidecar.send(version, get("/known").key(&key)).await.status, 200);
        }
        let before = sidecar.resident_bytes();
        let mut peers = Vec::new();
        for _ in 0..CONNECTIONS {
            peers.push(Peer::new(&sidecar).await);
        }
        let over = watch::Sender::new(false);
        let flood = self.send(peers, &over);
        let callers = async {
            let callers = [H1, H1, H2, H2].map(|version| call(&sidecar, version, &key, verdict, &over));
            let waits = join_all(callers).await.concat();
            over.send_replace(true);
            waits
        };
        let mut most = 0;
        let (ended, waits) = tokio::select! {
            both = async { tokio::join!(flood, callers) } => both,
            never = async {
                loop {
                    most = most.max(sidecar.resident_bytes());
                    // Not a wait for something: how often it is looked.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            } => never,
        };
        let worst = waits.iter().max().unwrap();
        let grown = most.saturating_sub(before);
        let arrived = upstream.seen().iter().filter(|seen| seen.target() != "/known").count();
        println!(
            "{name}: {ended} ended, worst of {} calls {worst:?}, {} KiB, {arrived} requests",
            waits.len(),
            grown >> 10
        );
        assert!(*worst < WAIT, "{name}: a caller waited {worst:?}");
        assert!(grown < MEMORY, "{name}: {grown} bytes more");
        assert!(arrived <= requests, "{name}: {arrived} requests arrived");
        assert_eq!(ended, if verdict == Verdict::Ended { CONNECTIONS } else { 0 }, "{name}");
        // The sidecar is rid of them, and as it was before.
        sidecar.counts("keyside_connections", &[], 0).await;
        assert_eq!(sidecar.send(H2, get("/known").key(&key)).await.status, 200);
    }

    /// Floods on a thread of its own, so that the verified callers are not slow because their own thread is. Gives how
    /// many connections were ended.
    async fn send(self, peers: Vec<Peer>, over: &watch::Sender<bool>) -> usize {
        let (sender, ended) = tokio::sync::oneshot::channel();
        let (runtime, told) = (tokio::runtime::Handle::current(), over.clone());
        std::thread::spawn(move || {
            let ended = runtime.block_on(join_all(peers.into_iter().map(|peer| self.send_on(peer, &told))));
            // Fails when the test has failed meanwhile.
            let _ = sender.send(ended.into_iter().filter(|ended| *ended).count());
        });
        let ended = within("the end of the flood", ended).await.unwrap();
        over.send_replace(true);
        ended
    }

    /// Sends until it is ended, or the flood is over. True: it was ended.
    async fn send_on(&self, mut peer: Peer, over: &watch::Sender<bool>) -> bool {
        let Peer { reading, writing } = &mut peer;
        let writing = async {
            let mut piece = self.first.clone();
            for number in 0.. {
                piece.extend((self.turn)(number));
                if piece.len() >= 16 << 10 {
                    if writing.write_all(&piece).await.is_err() {
                        break;
                    }
                    piece.clear();
                }
            }
        };
        let reading = async {
            if !self.reads {
                std::future::pending::<()>().await;
            }
            while let Some(frame) = reading.next().await {
                if frame.kind == GOAWAY && frame.error(4) != 0 {
                    break;
                }
            }
        };
        let mut over = over.subscribe();
        tokio::select! {
            () = writing => true,
            () = reading => true,
            _ = over.wait_for(|over| *over) => false,
        }
    }
}

/// A verified caller, who asks until the flood was ended or has gone on for long enough. Gives how long each of the
/// answers took.
async fn call(
    sidecar: &Sidecar,
    version: Version,
    key: &Key,
    verdict: Verdict,
    over: &watch::Sender<bool>,
) -> Vec<Duration> {
    let mut connection = sidecar.connect(version).await;
    let request = get("/known").key(key);
    let began = Instant::now();
    let mut waits = Vec::new();
    loop {
        let asked = Instant::now();
        assert_eq!(connection.send(&request).await.status, 200);
        waits.push(asked.elapsed());
        let enough = match verdict {
            Verdict::Ended => *over.borrow(),
            Verdict::Borne => began.elapsed() > WHILE,
        };
        if enough && waits.len() >= CALLS {
            return waits;
        }
    }
}

fn head(key: &Key) -> Block {
    Block::request("GET", "/flood").key(key)
}

/// The number of the stream of a turn.
fn stream(turn: u32) -> u32 {
    2 * turn + 1
}

fn of(
    rule: &'static str,
    source: &'static str,
    verdict: Verdict,
    turn: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
) -> Flood {
    Flood { rule, source, first: Vec::new(), turn: Box::new(turn), reads: true, verdict, requests: 0 }
}

impl Flood {
    fn behind(mut self, first: Vec<u8>) -> Self {
        self.first = first;
        self
    }

    fn unread(mut self) -> Self {
        self.reads = false;
        self
    }

    fn upstream(mut self, requests: usize) -> Self {
        self.requests = requests;
        self
    }
}

#[tokio::test]
async fn streams_that_are_reset() {
    let key = writer();
    let request = head(&key);
    let stranger = Block::request("GET", "/flood");
    let with = |block: &Block, frames: fn(u32) -> Vec<u8>, open: bool| {
        let block = block.clone();
        move |turn: u32| {
            let id = stream(turn);
            [if open { block.open(id) } else { block.whole(id) }, frames(id)].concat()
        }
    };
    of("reset at once", "CVE-2023-44487", Verdict::Ended, with(&request, reset, false)).upstream(MADE).run().await;
    of("reset at once, by a stranger", "CVE-2023-44487", Verdict::Ended, with(&stranger, reset, false)).run().await;
    of(
        "made to reset: a window wider by 0",
        "CVE-2025-8671",
        Verdict::Ended,
        with(&request, |id| window_update(id, 0), true),
    )
    .upstream(MADE)
    .run()
    .await;
    of(
        "made to reset: a window too wide",
        "CVE-2025-8671",
        Verdict::Ended,
        with(&request, |id| window_update(id, 0x7fff_ffff), true),
    )
    .upstream(MADE)
    .run()
    .await;
    of(
        "made to reset: DATA behind the end",
        "CVE-2025-8671",
        Verdict::Ended,
        with(&request, |id| data(id, b"x"), false),
    )
    .upstream(MADE)
    .run()
    .await;
    of(
        "made to reset: a head behind the end",
        "CVE-2025-8671",
        Verdict::Ended,
        with(&request, |id| Block::request("GET", "/").whole(id), false),
    )
    .upstream(MADE)
    .run()
    .await;
    of(
        "made to reset: a stream that depends on itself",
        "CVE-2025-8671",
        Verdict::Ended,
        with(&request, |id| frame(PRIORITY, 0, id, &[&id.to_be_bytes()[..], &[1]].concat()), true),
    )
    .upstream(MADE)
    .run()
    .await;
    of(
        "made to reset: a body over its length",
        "CVE-2025-8671",
        Verdict::Ended,
        with(&request.clone().field("content-length", "1"), |id| data(id, b"four"), true),
    )
    .upstream(MADE)
    .run()
    .await;
    of(
        "made to reset: streams beyond the offer",
        "CVE-2025-8671",
        Verdict::Ended,
        with(&request, |_| Vec::new(), true),
    )
    .upstream(MADE)
    .run()
    .await;
    of(
        "made to reset: a malformed head",
        "CVE-2025-8671",
        Verdict::Ended,
        with(&request.clone().field("te", "gzip"), |_| Vec::new(), false),
    )
    .run()
    .await;
}

#[tokio::test]
async fn field_blocks() {
    let key = writer();
    let request = head(&key);
    let piece = Block::default().field("x-a", [b'b'; 1000]);
    let continued = frame(CONTINUATION, 0, 1, &piece.0);
    of("a head that does not end", "RUSTSEC-2024-0332", Verdict::Ended, move |_| continued.clone())
        .behind(frame(HEADERS, 0, 1, &request.0))
        .run()
        .await;
    of("a head that goes on in nothing", "CVE-2019-9518", Verdict::Ended, |_| frame(CONTINUATION, 0, 1, b""))
        .behind(frame(HEADERS, 0, 1, &request.0))
        .run()
        .await;
    let entry = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'b'; 4000]].concat();
    let bomb = Block::request("GET", "/flood").raw(&[0x80 | 62; 16_000]);
    of("an entry of the table, 16 000 times", "CVE-2016-6581", Verdict::Ended, move |turn| {
        bomb.whole(stream(turn + 1))
    })
    .behind(Block::request("GET", "/flood").raw(&entry).whole(1))
    .run()
    .await;
    let crumbs = Block::request("GET", "/flood").raw(b"\x40\x06cookie\x01c").raw(&[0x80 | 62; 5000]);
    of("a cookie in 5000 crumbs", "RFC 9113 §10.5.1", Verdict::Ended, move |turn| crumbs.whole(stream(turn)))
        .run()
        .await;
    let sizes = Block::default().raw(&[0x20, 0x3f, 0xe1, 0x1f].repeat(1000)).raw(&request.0);
    of("a table that comes and goes", "RFC 7541 §4.2", Verdict::Borne, move |turn| sizes.whole(stream(turn)))
        .upstream(usize::MAX)
        .run()
        .await;
}

#[tokio::test]
async fn frames_that_ask_for_nothing() {
    let ping = || of("PING", "CVE-2019-9512", Verdict::Borne, |_| frame(PING, 0, 0, &[7; 8]));
    let setting = || of("SETTINGS", "CVE-2019-9515", Verdict::Borne, |_| settings(&[(4, 65_535)]));
    ping().run().await;
    ping().unread().run().await;
    setting().run().await;
    setting().unread().run().await;
    of("SETTINGS that say nothing", "CVE-2019-9515", Verdict::Borne, |_| settings(&[])).run().await;
    of("PRIORITY", "CVE-2019-9513", Verdict::Borne, |turn| {
        frame(PRIORITY, 0, stream(turn % 1000), &[0x80, 0, 0, 0, 1])
    })
    .run()
    .await;
    of("frames of no known kind", "RFC 9113 §4.1", Verdict::Borne, |_| frame(0xfa, 0, 0, b"")).run().await;
    of("windows wider by 1", "RFC 9113 §6.9", Verdict::Borne, |_| window_update(0, 1)).run().await;
    let key = writer();
    let open = Block::request("POST", "/flood").key(&key).open(1);
    of("DATA that says nothing", "CVE-2019-9518", Verdict::Ended, |_| data(1, b""))
        .behind(open.clone())
        .upstream(CONNECTIONS)
        .run()
        .await;
    of("DATA of padding alone", "CVE-2019-9518", Verdict::Ended, |_| frame(DATA, PADDED, 1, b"\0"))
        .behind(open.clone())
        .upstream(CONNECTIONS)
        .run()
        .await;
    of("windows of a stream wider by 1", "RFC 9113 §6.9", Verdict::Borne, |_| window_update(1, 1))
        .behind(open)
        .upstream(CONNECTIONS)
        .run()
        .await;
    of("streams that never end", "RFC 9113 §5.1.2", Verdict::Ended, |turn| {
        Block::request("POST", "/flood").open(stream(turn))
    })
    .run()
    .await;
    of("refusals that nobody reads", "RFC 9113 §10.5", Verdict::Ended, |turn| {
        Block::request("GET", "/flood").whole(stream(turn))
    })
    .unread()
    .run()
    .await;
}
