//! Slow clients, many of each kind at once (threats 81, 82, 83): each is ended in the time that is stated, a verified
//! caller is served meanwhile, and nothing of them stays. Each timeout alone, with a stopwatch: `listener::timeouts`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};

use super::{Bystander, PATIENT, with_many_descriptors};
use crate::harness::{Connection, H1, H2, Key, Sidecar, Tls, Upstream, Wire, eventually, get, post, within};

const SECOND: Duration = Duration::from_secs(1);
/// Stamps are up to a tick old, and ticks of a busy machine are late.
const EARLY: Duration = Duration::from_millis(500);
/// The listener keeps time to a second; the rest is for a busy machine with hundreds of clients on it.
const LATE: Duration = Duration::from_secs(10);

/// What each kind of client is given; longer than a machine that does ten other things takes for hundreds of handshakes.
const TIME: Duration = Duration::from_secs(5);

const CONFIG: &str = r#"
    [listen.timeouts]
    handshake = "5s"
    header = "5s"
    idle = "5s"
    body = "5s"
    write = "2s"
"#;

/// What a slow client sends, and how.
enum Slow {
    /// These bytes over TCP, then nothing.
    Tcp(Vec<u8>),
    /// These bytes over TCP, one every tenth of a second.
    TcpDripped(Vec<u8>),
    /// These bytes over TLS, then nothing.
    Tls(Vec<u8>),
    /// These bytes over TLS, in pieces, one every tenth of a second.
    TlsDripped(Vec<Vec<u8>>),
    /// Each of these over TLS, after the answer to the one before; then nothing.
    Kept(Vec<Vec<u8>>),
}

/// A kind of slow client.
struct Row {
    /// The rule.
    name: &'static str,
    source: &'static str,
    slow: Slow,
    count: usize,
    /// When it is ended; at once where there is nothing to wait for.
    after: Duration,
    /// What it may be told before: the beginning of that; empty for nothing.
    told: &'static str,
}

/// The bytes of a real ClientHello.
fn client_hello() -> Vec<u8> {
    let roots = rustls::RootCertStore::empty();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// A ClientHello that says of itself that it has so many bytes, in full records.
fn huge_hello(says: usize, sent: usize) -> Vec<u8> {
    let mut message = vec![1];
    message.extend(&(says as u32).to_be_bytes()[1..]);
    message.resize(sent, 0);
    let record = |piece: &[u8]| [&[0x16, 3, 1], &(piece.len() as u16).to_be_bytes()[..], piece].concat();
    message.chunks(16 * 1024).flat_map(record).collect()
}

fn pieces<P: AsRef<[u8]>>(all: impl IntoIterator<Item = P>) -> Vec<Vec<u8>> {
    all.into_iter().map(|piece| piece.as_ref().to_vec()).collect()
}

fn rows(key: &Key) -> Vec<Row> {
    let hello = client_hello();
    let asked = get("/").key(key).head();
    let upload = String::from_utf8(post("/", "x".repeat(100)).key(key).head()).unwrap();
    let chunked = upload.replace("Content-Length: 100", "Transfer-Encoding: chunked");
    let started = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
    let fields = (0..100).map(|number| format!("X-{number}: a\r\n").into_bytes());
    let row = |name, source, slow, count, after, told| Row { name, source, slow, count, after, told };
    let slowloris = "CVE-2007-6750";
    let body = "R.U.D.Y.; RFC 9110 §15.5.9";
    vec![
        row("silent TCP", slowloris, Slow::Tcp(vec![]), 100, TIME, ""),
        row("half a ClientHello", "tokio-rustls#4", Slow::Tcp(hello[..hello.len() / 2].to_vec()), 200, TIME, ""),
        row("a ClientHello byte by byte", "tokio-rustls#4", Slow::TcpDripped(hello), 50, TIME, ""),
        row("a huge ClientHello that stops", "RFC 8446 §4", Slow::Tcp(huge_hello(60_000, 40_000)), 50, TIME, ""),
        row(
            "a ClientHello of 16 MiB",
            "RFC 8446 §4",
            Slow::Tcp(huge_hello(0xff_ffff, 30_000)),
            50,
            Duration::ZERO,
            "*",
        ),
        row("silent TLS", slowloris, Slow::Tls(vec![]), 50, TIME, ""),
        row("half a head", slowloris, Slow::Tls(started.clone()), 50, TIME, "HTTP/1.1 408 "),
        row(
            "a head byte by byte",
            slowloris,
            Slow::TlsDripped(pieces(started.chunks(1).chain([b"X-Long: "[..].as_ref(); 10]))),
            50,
            TIME,
            "HTTP/1.1 408 ",
        ),
        row(
            "a head field by field",
            slowloris,
            Slow::TlsDripped(std::iter::once(started).chain(fields).collect()),
            50,
            TIME,
            "HTTP/1.1 408 ",
        ),
        row("idle after answers", "RFC 9112 §9.5", Slow::Kept(vec![asked.clone(); 2]), 50, TIME, ""),
        row(
            "half a second head",
            slowloris,
            Slow::Kept(vec![asked.clone(), asked[..asked.len() - 2].to_vec()]),
            50,
            TIME,
            "HTTP/1.1 408 ",
        ),
        row("a body that does not come", body, Slow::Tls(upload.clone().into()), 20, TIME, "HTTP/1.1 408 "),
        row("a body that stops", body, Slow::Tls(format!("{upload}xxx").into()), 20, TIME, "HTTP/1.1 408 "),
        row("a chunk size that stops", body, Slow::Tls(format!("{chunked}5").into()), 20, TIME, "HTTP/1.1 408 "),
        row("a chunk that stops", body, Slow::Tls(format!("{chunked}5\r\nxx").into()), 20, TIME, "HTTP/1.1 408 "),
    ]
}

/// Lives as such a client until it is ended. Gives when that was, counted from its last whole message, and what it was
/// told.
async fn live(sidecar: Arc<Sidecar>, slow: Arc<Row>) -> (Duration, String) {
    let mut began = Instant::now();
    // Not a wait for something: the pace of a slow client.
    let pace = || tokio::time::sleep(Duration::from_millis(100));
    let mut wire = match &slow.slow {
        Slow::Tcp(_) | Slow::TcpDripped(_) => Wire::new(sidecar.tcp().await),
        Slow::Tls(_) | Slow::TlsDripped(_) | Slow::Kept(_) => sidecar.wire().await,
    };
    if !matches!(slow.slow, Slow::Tcp(_) | Slow::TcpDripped(_)) {
        began = Instant::now();
    }
    match &slow.slow {
        Slow::Tcp(bytes) | Slow::Tls(bytes) => drop(wire.write(bytes).await),
        Slow::TcpDripped(bytes) => {
            for byte in bytes {
                if wire.write([*byte]).await.is_err() {
                    break;
                }
                pace().await;
            }
        }
        Slow::TlsDripped(pieces) => {
            for piece in pieces {
                if wire.write(piece).await.is_err() {
                    break;
                }
                pace().await;
            }
        }
        Slow::Kept(messages) => {
            for (number, message) in messages.iter().enumerate() {
                let before = began.elapsed();
                began = Instant::now();
                let sent = wire.write(message).await;
                assert!(sent.is_ok(), "{}, message {number}, {before:?} after the one before: {sent:?}", slow.name);
                if message.ends_with(b"\r\n\r\n") {
                    let answer = within("an answer", wire.answer("GET")).await;
                    let answered = answer.as_ref().is_ok_and(|answer| answer.status == 200);
                    assert!(answered, "{}, message {number}, {before:?} after the one before: {answer:?}", slow.name);
                }
            }
        }
    }
    let told = within("the end of a slow client", wire.rest()).await;
    (began.elapsed(), String::from_utf8_lossy(&told).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_ended_in_time_and_harm_nobody() {
    with_many_descriptors();
    let key = Key::pair("key").scopes(["read_write"]);
    let upstream = Upstream::start().await;
    let sidecar = Arc::new(Sidecar::in_front_of(&upstream).config(CONFIG).config(PATIENT).keys([&key]).start().await);
    let rows: Vec<Arc<Row>> = rows(&key).into_iter().map(Arc::new).collect();
    let descriptors = sidecar.open_descriptors();
    let mut memory = Vec::new();
    for round in 1..=2 {
        let bystander = Bystander::beside(&sidecar, &key, true).await;
        // All at once: hundreds of each kind beside hundreds of every other.
        let clients: Vec<(Arc<Row>, JoinHandle<_>)> = rows
            .iter()
            .flat_map(|row| std::iter::repeat_n(row, row.count))
            .map(|row| (Arc::clone(row), tokio::spawn(live(Arc::clone(&sidecar), Arc::clone(row)))))
            .collect();
        let mut faults = Vec::new();
        for (row, client) in clients {
            let (took, told) = client.await.unwrap();
            let in_time = took + EARLY > row.after && took < row.after + LATE;
            let expected = match row.told {
                "*" => true,
                "" => told.is_empty(),
                beginning => told.starts_with(beginning) || told.is_empty(),
            };
            if !in_time || !expected {
                faults.push(format!("{} ({}): {took:?} {told:?}", row.name, row.source));
            }
        }
        assert!(faults.is_empty(), "round {round}: {} of them: {faults:#?}", faults.len());
        bystander.was_served("beside slow clients").await;
        sidecar.counts("keyside_connections", &[], 0).await;
        eventually("the descriptors to be given back", async || {
            let open = sidecar.open_descriptors();
            if open <= descriptors + 8 { Ok(()) } else { Err(open) }
        })
        .await;
        memory.push(sidecar.resident_bytes());
    }
    // What the first round needed is kept for the next; that needs no more.
    assert!(memory[0] < 256 << 20, "{memory:?}");
    assert!(memory[1] < memory[0] + (16 << 20), "{memory:?}");
    assert!(upstream.seen().iter().all(|seen| seen.body.len() < 100), "nothing of a slow body looks whole");
}

/// An upstream whose answers are long, and which counts what of them was taken from it.
struct Long {
    url: String,
    sent: Arc<AtomicU64>,
    open: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Long {
    async fn start(length: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sent, open) = (Arc::<AtomicU64>::default(), Arc::<AtomicUsize>::default());
        let (counted, opened) = (Arc::clone(&sent), Arc::clone(&open));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (counted, opened) = (Arc::clone(&counted), Arc::clone(&opened));
                opened.fetch_add(1, Relaxed);
                tokio::spawn(async move {
                    let _ = answer(stream, length, &counted).await;
                    opened.fetch_sub(1, Relaxed);
                });
            }
        });
        Self { url, sent, open, accepting }
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Answers every request: with `ok` to a bystander, else at length.
async fn answer(mut stream: TcpStream, length: u64, sent: &AtomicU64) -> std::io::Result<()> {
    let piece = vec![b'x'; 64 << 10];
    let mut head = Vec::new();
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let long = !head.starts_with(b"GET /bystander ");
        let length = if long { length } else { 2 };
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes()).await?;
        let mut left = length;
        while left > 0 {
            let next = &piece[..usize::try_from(left).unwrap_or(usize::MAX).min(piece.len())];
            stream.write_all(next).await?;
            left -= next.len() as u64;
            if long {
                sent.fetch_add(next.len() as u64, Relaxed);
            }
        }
        head.clear();
    }
}

/// A connection whose system takes little ahead of its reader.
async fn with_small_buffer(sidecar: &Sidecar) -> Wire {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let stream = socket.connect(sidecar.address()).await.unwrap();
    Wire::new(sidecar.tls().connect(stream, &["http/1.1"]).await.unwrap())
}

const READERS: usize = 20;

/// Who reads nothing costs some buffers of the system and nothing of ours, and is cut; the upstream is not drained of
/// what nobody takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_reads_is_not_fetched() {
    const LENGTH: u64 = 200 << 20;
    let key = Key::pair("key");
    let upstream = Long::start(LENGTH).await;
    let sidecar = Sidecar::in_front_of_url(&upstream.url).config(CONFIG).config(PATIENT).keys([&key]).start().await;
    let bystander = Bystander::beside(&sidecar, &key, true).await;
    let memory = sidecar.resident_bytes();
    let mut readers = Vec::new();
    for number in 0..READERS {
        let mut wire = with_small_buffer(&sidecar).await;
        let request = get("/long").key(&key).field("X-Request-Id", format!("unread-{number}"));
        wire.write(request.head()).await.unwrap();
        readers.push(wire);
    }
    // Each is cut in its time, and its line says so.
    let began = Instant::now();
    for number in 0..READERS {
        let line = sidecar.logged(&format!("unread-{number}")).await;
        assert_eq!(line["outcome"], "failed", "{line}");
    }
    assert!(began.elapsed() < 2 * SECOND + LATE, "{:?}", began.elapsed());
    let grown = sidecar.resident_bytes().saturating_sub(memory);
    assert!(grown < 32 << 20, "{grown} bytes more for {READERS} readers");
    let sent = upstream.sent.load(Relaxed);
    assert!(sent < LENGTH * READERS as u64 / 4, "the upstream sent {sent} bytes that nobody read");
    for mut wire in readers {
        assert!(within("the end", wire.rest()).await.len() < LENGTH as usize, "a cut answer is not a whole one");
    }
    bystander.was_served("beside readers who do not read").await;
    // A cut answer takes its upstream connection with it.
    eventually("the upstream's connections", async || {
        let open = upstream.open.load(Relaxed);
        if open <= 4 { Ok(()) } else { Err(open) }
    })
    .await;
    sidecar.counts("keyside_connections", &[], 0).await;
}

/// Who reads slowly, but reads, is no attacker: what they take in the time for no progress is much less than the system
/// would keep for them, and is progress all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_slowly_is_not_cut() {
    const WRITE: Duration = Duration::from_secs(3);
    let key = Key::pair("key");
    let upstream = Long::start(200 << 20).await;
    let config = format!("[listen.timeouts]\nwrite = \"{}s\"", WRITE.as_secs());
    let sidecar =
        Arc::new(Sidecar::in_front_of_url(&upstream.url).config(&config).config(PATIENT).keys([&key]).start().await);
    let bystander = Bystander::beside(&sidecar, &key, true).await;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let (sidecar, head) = (Arc::clone(&sidecar), get("/long").key(&key).head());
        readers.push(tokio::spawn(async move {
            let mut wire = with_small_buffer(&sidecar).await;
            wire.write(head).await.unwrap();
            assert_eq!(wire.answer_head("GET").await.unwrap().status, 200);
            let began = Instant::now();
            while began.elapsed() < 3 * WRITE {
                wire.exactly(32 << 10).await.map_err(|error| (began.elapsed(), error))?;
                // Not a wait for something: the pace of a slow reader.
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
            Ok::<_, (Duration, std::io::Error)>(())
        }));
    }
    let mut cut = Vec::new();
    for reader in readers {
        cut.extend(reader.await.unwrap().err());
    }
    assert!(cut.is_empty(), "{} of {READERS} were cut: {cut:?}", cut.len());
    bystander.was_served("beside slow readers").await;
}
