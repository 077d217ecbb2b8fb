//! Answers in every framing and pace, read by our own reader, and requests in ours, seen from both ends.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{BOTH, in_front};
use crate::harness::{Answer, Builder, Gate, H1, Key, get, post, request};

fn writer() -> Key {
    Key::pair("writer").scopes(["read_write"])
}

/// However slowly an answer comes, the caller gets the same.
#[tokio::test]
async fn an_answer_may_come_byte_by_byte() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let chunked = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n\
                   3;ext=\"1\"\r\nabc\r\n0A\r\n, slowly, \r\n1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n";
    let lengthy = "HTTP/1.1 200 OK\r\nContent-Length: 14\r\nX-A: 1\r\n\r\nabc, slowly, !";
    for (path, bytes) in [("/chunked", chunked), ("/lengthy", lengthy)] {
        let gate = Gate::new();
        gate.open();
        let first = Answer::raw(&bytes[..1]);
        upstream.on(path, bytes.as_bytes()[1..].chunks(1).fold(first, |answer, byte| answer.then(&gate, byte)));
        for version in BOTH {
            let answer = sidecar.send(version, get(path).key(&key)).await;
            assert_eq!((answer.status, answer.field("x-a")), (200, "1"), "{path} {version:?}");
            assert_eq!(answer.text(), "abc, slowly, !", "{path} {version:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_may_end_with_its_connection() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    upstream.on("/", Answer::raw("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it").then_close());
    for version in BOTH {
        let answer = sidecar.send(version, get("/").key(&key)).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "all of it"), "{version:?}");
    }
    // The version is that of the connection to the caller (RFC 9110 §2.5), so the end is said and not only seen.
    let mut wire = sidecar.wire().await;
    wire.write(get("/").key(&key).head()).await.unwrap();
    let head = wire.head().await.unwrap().unwrap();
    assert_eq!((head.line().as_str(), head.all("transfer-encoding")), ("HTTP/1.1 200 OK", vec!["chunked".to_owned()]));
}

/// A caller of HTTP/1.0 knows the end of an answer from that of the connection: a broken one ends otherwise.
#[tokio::test]
async fn an_old_caller_sees_that_an_answer_broke_off() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, Builder::plaintext).await;
    let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    upstream.on("/whole", Answer::raw(format!("{chunk}0\r\n\r\n")));
    upstream.on("/broken", Answer::raw(chunk).then_close());
    for (path, whole) in [("/whole", true), ("/broken", false)] {
        let mut stream = sidecar.tcp().await;
        let head = String::from_utf8(get(path).key(&key).head()).unwrap().replace("HTTP/1.1", "HTTP/1.0");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let end = stream.read_to_end(&mut bytes).await.map_err(|error| error.kind());
        assert_eq!(end.is_ok(), whole, "{path}: {end:?} after {:?}", String::from_utf8_lossy(&bytes));
    }
}

/// What has no body has none, and the connection goes on.
#[tokio::test]
async fn answers_without_a_body_leave_the_connection_in_step() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    upstream.on("/not-modified", Answer::raw("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"));
    upstream.on("/no-content", Answer::raw("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"));
    let mut connection = sidecar.connect(H1).await;
    for _ in 0..5 {
        assert_eq!(connection.send(&get("/not-modified").key(&key)).await.status, 304);
        let no_content = connection.send(&get("/no-content").key(&key)).await;
        assert_eq!((no_content.status, no_content.has("content-length")), (204, false));
        assert_eq!(connection.send(&get("/").key(&key)).await.text(), "ok\n");
    }
    assert_eq!(upstream.connections(), 1);
}

/// A body that follows where there is none is nobody's answer.
#[tokio::test]
async fn a_stray_body_is_no_answer() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let gate = Gate::new();
    gate.open();
    let stray = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";
    let rows = [
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 43\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ];
    let mut connection = sidecar.connect(H1).await;
    for (method, bytes) in rows {
        // Two pieces: the second one comes behind the answer.
        upstream.on("/strange", Answer::raw(bytes).then(&gate, stray));
        for _ in 0..30 {
            connection.send(&request(method, "/strange").key(&key)).await;
            assert_eq!(connection.send(&get("/").key(&key)).await.text(), "ok\n", "{bytes}");
        }
    }
}

/// A length that is said twice is passed on once.
#[tokio::test]
async fn a_length_is_passed_on_once() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    for lengths in ["Content-Length: 2, 2", "Content-Length: 2\r\nContent-Length: 2"] {
        upstream.on("/", Answer::raw(format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nok")));
        for version in BOTH {
            let answer = sidecar.send(version, get("/").key(&key)).await;
            assert_eq!((answer.all("content-length"), answer.text()), (vec!["2"], "ok".into()), "{version:?}");
        }
    }
}

/// Trailers end a message, in both directions: it counts as whole, and the upstream's connection is kept. That of a
/// caller over HTTP/1.1 is closed behind them.
#[tokio::test]
async fn trailers_end_a_message() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, Builder::on_one_core).await;
    upstream.on("/down", Answer::chunked(&[("Trailer", "X-Sum")], &["a", "b"], &[("X-Sum", "42")]));
    for version in BOTH {
        let before = upstream.connections();
        let mut connection = sidecar.connect(version).await;
        for round in 0..5 {
            let down = connection.send(&get("/down").key(&key).field("TE", "trailers")).await;
            assert_eq!((down.status, down.text().as_str()), (200, "ab"), "{version:?}");
            let line = sidecar.logged(down.field("x-request-id")).await;
            assert_eq!((line["outcome"].as_str(), line["note"].as_str()), (Some("allowed"), None), "{line}");
            let upload = request("POST", "/up").key(&key).chunks(["a", "b"]).field("Trailer", "X-Sum");
            let up = connection.send(&upload.trailer("X-Sum", "42")).await;
            assert_eq!(up.status, 200, "{version:?} {round}");
            if version == H1 {
                assert_eq!(up.field("connection"), "close");
                connection.closed().await;
                connection = sidecar.connect(version).await;
            }
        }
        assert!(upstream.connections() <= before + 1, "{version:?}: {} connections", upstream.connections() - before);
    }
}

/// The upstream is told that an empty body is empty, where one is usual (RFC 9110 §8.6).
#[tokio::test]
async fn an_empty_body_has_a_length() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    for version in BOTH {
        assert_eq!(sidecar.send(version, request("POST", "/").key(&key)).await.status, 200);
        assert_eq!(upstream.last().field("content-length"), "0", "{version:?}");
        assert_eq!(sidecar.send(version, get("/").key(&key)).await.status, 200);
        assert!(!upstream.last().has("content-length"), "{version:?}");
    }
}

#[tokio::test]
async fn many_bodies_follow_each_other_on_one_connection() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let mut connection = sidecar.connect(H1).await;
    for size in (0..50).map(|round| round * round * 100) {
        let body: Vec<u8> = (0..size).map(|byte| u8::try_from(byte % 251).unwrap()).collect();
        let sent = if size % 200 == 0 {
            post("/", &body).key(&key)
        } else {
            request("POST", "/").key(&key).chunks(body.chunks(3000))
        };
        assert_eq!(connection.send(&sent).await.status, 200);
        assert_eq!(upstream.last().body, body, "{size}");
    }
    assert_eq!(upstream.connections(), 1);
}

/// An answer that begins before the request has ended, to a caller that reads it afterwards: the upload goes on behind
/// it, and both end well.
#[tokio::test]
async fn an_upload_goes_on_behind_its_answer() {
    const HALF: usize = 1 << 20;
    let key = writer();
    let config = "[listen]\nmax_body = \"64MiB\"";
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(config)).await;
    let gate = Gate::new();
    gate.open();
    let half = "x".repeat(HALF);
    let begun = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{half}", 2 * HALF);
    upstream.on("/", Answer::raw(begun).early().then_read().then(&gate, &half));
    let mut wire = sidecar.wire().await;
    let head = String::from_utf8(request("POST", "/").key(&key).head()).unwrap();
    for round in 1..=3 {
        wire.write(head.replacen("\r\n\r\n", &format!("\r\nContent-Length: {HALF}\r\n\r\n"), 1)).await.unwrap();
        upstream.request(round).await;
        wire.write(vec![7; HALF]).await.unwrap();
        let answer = wire.answer("POST").await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 2 * HALF));
        assert_eq!(upstream.last().body.len(), HALF);
    }
    assert_eq!(upstream.connections(), 1, "whole exchanges leave the connection");
}

/// An upstream that has said no and ceased to read: the caller gets its no, however much is still to be sent.
#[tokio::test]
async fn a_refusal_by_the_upstream_arrives_before_the_upload_ends() {
    let key = writer();
    let config = "[listen]\nmax_body = \"64MiB\"";
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(config)).await;
    upstream.on("/", Answer::with(413, &[("Connection", "close")], "too large").early().then_close());
    for version in BOTH {
        let answer = sidecar.send(version, post("/", vec![7; 10 << 20]).key(&key)).await;
        // The upstream's reset may overtake its answer; then the caller is told that.
        assert!([413, 502].contains(&answer.status), "{version:?}: {answer:?}");
    }
}
