//! Every timeout, with a stopwatch: never early, and not much late.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::in_front;
use crate::harness::{Answer, Connection, Gate, H1, H2, Key, Sidecar, Wire, get, post, within};

const SECOND: Duration = Duration::from_secs(1);
/// Stamps are up to a tick old, and ticks of a busy machine are late.
const EARLY: Duration = Duration::from_millis(500);
/// The listener keeps time to a second; the rest is for a busy machine.
const SLACK: Duration = Duration::from_secs(6);

const CONFIG: &str = r#"
    [listen.timeouts]
    handshake = "1s"
    header = "2s"
    idle = "3s"
    body = "2s"
    write = "2s"
"#;

/// How long it takes the other side to end it.
async fn ends(wire: &mut Wire, began: Instant) -> (Duration, String) {
    let said = within("the connection to end", wire.rest()).await;
    (began.elapsed(), String::from_utf8_lossy(&said).into_owned())
}

#[track_caller]
fn check(what: &str, took: Duration, expected: Duration) {
    assert!(took + EARLY > expected && took < expected + SLACK, "{what} took {took:?} instead of {expected:?}");
}

/// Sends a byte every fifth of a second until that fails.
async fn drip(wire: &mut Wire, bytes: &[u8]) {
    for byte in bytes {
        if wire.write([*byte]).await.is_err() {
            return;
        }
        // Not a wait for something: the pace of a slow client.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn each_timeout_strikes_when_it_should() {
    let key = Key::pair("key").scopes(["read_write"]);
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(CONFIG)).await;
    let large = vec![b'x'; 32 << 20];
    upstream.on("/large", Answer::ok(&large));
    tokio::join!(
        handshake(&sidecar),
        header(&sidecar),
        dripped_header(&sidecar),
        idle(&sidecar, &key),
        idle_http2(&sidecar, &key),
        body(&sidecar, &key),
        slow_but_steady_body(&sidecar, &key),
        write(&sidecar, &key),
        write_http2(&sidecar, &key),
        write_without_window(&sidecar, &key),
    );
    // None of it was anybody else's harm.
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
}

async fn handshake(sidecar: &Sidecar) {
    let began = Instant::now();
    let mut silent = Wire::new(sidecar.tcp().await);
    let (took, said) = ends(&mut silent, began).await;
    check("a handshake that did not begin", took, SECOND);
    assert_eq!(said, "");

    let began = Instant::now();
    let mut halting = Wire::new(sidecar.tcp().await);
    // The beginning of a record that promises more.
    halting.write([0x16, 0x03, 0x01, 0x02, 0x00]).await.unwrap();
    let (took, _) = ends(&mut halting, began).await;
    check("a handshake that did not end", took, SECOND);
}

async fn header(sidecar: &Sidecar) {
    let mut wire = sidecar.wire().await;
    let began = Instant::now();
    wire.write("GET / HTTP/1.1\r\nHost: a").await.unwrap();
    let (took, said) = ends(&mut wire, began).await;
    check("half a head", took, 2 * SECOND);
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
}

/// It is the whole head that has the time, not each byte of it.
async fn dripped_header(sidecar: &Sidecar) {
    let mut wire = sidecar.wire().await;
    let began = Instant::now();
    drip(&mut wire, &[b'x'; 30]).await;
    let (took, said) = ends(&mut wire, began).await;
    check("a dripped head", took, 2 * SECOND);
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
}

async fn idle(sidecar: &Sidecar, key: &Key) {
    let mut wire = sidecar.wire().await;
    // Before the request: on a busy machine, the answer is read long after it was written.
    let began = Instant::now();
    wire.write(get("/").key(key).head()).await.unwrap();
    assert_eq!(wire.answer("GET").await.unwrap().status, 200);
    let (took, said) = ends(&mut wire, began).await;
    check("an idle connection", took, 3 * SECOND);
    assert_eq!(said, "");
}

async fn idle_http2(sidecar: &Sidecar, key: &Key) {
    let mut connection = sidecar.connect(H2).await;
    let began = Instant::now();
    assert_eq!(connection.send(&get("/").key(key)).await.status, 200);
    connection.closed().await;
    check("an idle HTTP/2 connection", began.elapsed(), 3 * SECOND);
}

async fn body(sidecar: &Sidecar, key: &Key) {
    for version in [H1, H2] {
        let mut connection = sidecar.connect(version).await;
        let began = Instant::now();
        let answer = connection.send(&post("/", "begun").key(key).stalled()).await;
        check("a body that stands still", began.elapsed(), 2 * SECOND);
        assert_eq!(answer.brief(), "408 request_timeout", "{version:?}");
    }
}

/// It is progress that is asked for, not an end.
async fn slow_but_steady_body(sidecar: &Sidecar, key: &Key) {
    let mut wire = sidecar.wire().await;
    let head = String::from_utf8(post("/", "x".repeat(20)).key(key).head()).unwrap();
    wire.write(head).await.unwrap();
    let began = Instant::now();
    drip(&mut wire, &[b'x'; 20]).await;
    assert!(began.elapsed() > 3 * SECOND);
    assert_eq!(wire.answer("POST").await.unwrap().status, 200);
}

async fn write(sidecar: &Sidecar, key: &Key) {
    let mut wire = sidecar.wire().await;
    let began = Instant::now();
    wire.write(get("/large").key(key).field("X-Request-Id", "unread-1").head()).await.unwrap();
    // Nothing is read, and the line of the request is written when it is cut.
    let line = sidecar.logged("unread-1").await;
    check("an answer that is not taken", began.elapsed(), 2 * SECOND);
    assert_eq!(line["outcome"], "failed", "{line}");
    assert!(wire.rest().await.len() < 32 << 20);
}

async fn write_http2(sidecar: &Sidecar, key: &Key) {
    let Connection::H2 { client, driving } = sidecar.connect(H2).await else { unreachable!() };
    let mut client = client.ready().await.unwrap();
    let request = http::Request::get("https://api.example.com/large")
        .header("authorization", key.authorization())
        .header("x-request-id", "unread-2")
        .body(())
        .unwrap();
    let began = Instant::now();
    let (answer, _) = client.send_request(request, true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    // Its window is never given back.
    let line = sidecar.logged("unread-2").await;
    check("a stream that is not taken", began.elapsed(), 2 * SECOND);
    assert_eq!(line["outcome"], "failed", "{line}");
    while let Some(Ok(_)) = body.data().await {}
    driving.abort();
}

/// An HTTP/2 connection whose client takes no byte of any answer's body, for now.
async fn without_window(
    sidecar: &Sidecar,
) -> (h2::client::SendRequest<Bytes>, h2::client::Connection<impl AsyncRead + AsyncWrite + use<>, Bytes>) {
    let stream = sidecar.tls().connect(sidecar.tcp().await, &["h2"]).await.unwrap();
    h2::client::Builder::new().initial_window_size(0).handshake(stream).await.unwrap()
}

/// Not even the first byte is taken, of the upstream's answer or of one of our own.
async fn write_without_window(sidecar: &Sidecar, key: &Key) {
    for (id, authorization, status, outcome) in
        [("unread-3", String::new(), 401, "refused"), ("unread-4", key.authorization(), 200, "failed")]
    {
        let (mut client, connection) = without_window(sidecar).await;
        let driving = tokio::spawn(connection);
        let request = http::Request::get("https://api.example.com/")
            .header("authorization", authorization)
            .header("x-request-id", id)
            .body(())
            .unwrap();
        let began = Instant::now();
        let (answer, _) = client.send_request(request, true).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), status);
        // The stream is gone, and the connection can be idle.
        let cut = within("the stream to be reset", answer.into_body().data()).await;
        check("a stream without a window", began.elapsed(), 2 * SECOND);
        assert!(cut.unwrap().unwrap_err().is_reset());
        let line = sidecar.logged(id).await;
        assert_eq!((&line["status"], &line["outcome"]), (&status.into(), &outcome.into()), "{line}");
        within("the connection to be closed", driving).await.unwrap().unwrap();
    }
}

/// What tells of a timeout is not cut by it: its caller may take it late.
#[tokio::test]
async fn a_slow_caller_gets_the_whole_of_a_504() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config("[upstream]\nresponse_timeout = \"1s\"")).await;
    upstream.on("/", Answer::silence());
    let (mut client, mut connection) = without_window(&sidecar).await;
    let request = http::Request::get("https://api.example.com/").header("authorization", key.authorization());
    let (answer, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
    let caller = async {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 504);
        // Not a wait for something: the pace of a slow caller.
        tokio::time::sleep(2 * SECOND).await;
        answer.into_body()
    };
    let mut body = tokio::select! {
        ended = &mut connection => panic!("{ended:?}"),
        body = within("the answer", caller) => body,
    };
    connection.set_initial_window_size(1 << 16).unwrap();
    let driving = tokio::spawn(connection);
    let mut text = Vec::new();
    while let Some(piece) = within("the answer's body", body.data()).await {
        text.extend(piece.unwrap());
    }
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&text).unwrap()["code"], "upstream_timeout");
    driving.abort();
}

/// Many who say nothing cost the others nothing.
#[tokio::test]
async fn silent_connections_are_nobody_elses_harm() {
    let key = Key::pair("key");
    let (_upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(CONFIG)).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(sidecar.tcp().await);
    }
    let mut known = sidecar.connect(H1).await;
    for _ in 0..50 {
        let began = Instant::now();
        assert_eq!(known.send(&get("/").key(&key)).await.status, 200);
        assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
        assert!(began.elapsed() < 5 * SECOND);
    }
    sidecar.measures("keyside_connections", &[], |count| count <= 2.0).await;
}

/// While the upstream makes its answer, nobody is timed but the upstream.
#[tokio::test]
async fn a_caller_that_waits_is_not_idle() {
    let key = Key::pair("key");
    let (upstream, sidecar) =
        in_front(&key, |sidecar| sidecar.config("[listen.timeouts]\nidle = \"1s\"\nheader = \"1s\"")).await;
    let gate = Gate::new();
    upstream.on("/", Answer::ok("at last").behind(&gate));
    let request = get("/").key(&key);
    let (mut one, mut two) = (sidecar.connect(H1).await, sidecar.connect(H2).await);
    let (one, two, ()) = tokio::join!(one.send(&request), two.send(&request), async {
        upstream.request(2).await;
        tokio::time::sleep(Duration::from_millis(3500)).await;
        gate.open();
    });
    assert_eq!((one.text().as_str(), two.text().as_str()), ("at last", "at last"));
}
