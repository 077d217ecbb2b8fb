//! Answers in every framing and pace, read by our own reader, and requests in ours, seen from both ends.

use super::{BOTH, in_front};
use crate::harness::{Answer, Gate, H1, Key, get, post, request};

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
}

/// What has no body has none, and the connection goes on.
#[tokio::test]
async fn answers_without_a_body_leave_the_connection_in_step() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    upstream.on("/head", Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"));
    upstream.on("/not-modified", Answer::raw("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"));
    upstream.on("/no-content", Answer::raw("HTTP/1.1 204 No Content\r\n\r\n"));
    let mut connection = sidecar.connect(H1).await;
    for _ in 0..5 {
        assert_eq!(connection.send(&request("HEAD", "/head").key(&key)).await.status, 200);
        assert_eq!(connection.send(&get("/not-modified").key(&key)).await.status, 304);
        assert_eq!(connection.send(&get("/no-content").key(&key)).await.status, 204);
        assert_eq!(connection.send(&get("/").key(&key)).await.text(), "ok\n");
    }
    assert_eq!(upstream.connections(), 1);
}

/// Trailers end a message, in both directions: it counts as whole, and its connection is kept.
#[tokio::test]
async fn trailers_end_a_message() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
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
