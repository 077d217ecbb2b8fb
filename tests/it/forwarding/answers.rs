//! Answers on their way down: streamed, exact, and visibly cut when they were cut.

use std::time::Duration;

use super::{BOTH, in_front};
use crate::harness::{Answer, Connection, Gate, H1, H2, Key, Version, get, request};

#[tokio::test]
async fn an_answer_arrives_as_the_upstream_gave_it() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let fields = [
        ("Content-Type", "application/json"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("X-WP-Total", "120"),
        ("Link", "</p2>; rel=\"next\""),
        ("ETag", "\"x\""),
        ("Connection", "X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=60"),
        ("Proxy-Authenticate", "Basic"),
    ];
    for status in [200, 201, 301, 404, 418, 500, 503] {
        upstream.on("/", Answer::with(status, &fields, "{\"ok\":true}"));
        for version in BOTH {
            let answer = sidecar.send(version, get("/").key(&key)).await;
            assert_eq!((answer.status, answer.text().as_str()), (status, "{\"ok\":true}"), "{version:?}");
            assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"], "{version:?}");
            for (name, value) in [&fields[0..1], &fields[3..6]].concat() {
                assert_eq!(answer.field(name), value, "{version:?}");
            }
            for name in ["x-hop", "keep-alive", "proxy-authenticate"] {
                assert!(!answer.has(name), "{name}: {answer:?}");
            }
        }
    }
    for status in [204, 304] {
        upstream.on("/", Answer::with(status, &[("ETag", "\"x\"")], ""));
        for version in BOTH {
            let answer = sidecar.send(version, get("/").key(&key)).await;
            assert_eq!((answer.status, answer.field("etag"), answer.body.len()), (status, "\"x\"", 0), "{version:?}");
        }
    }
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    for version in BOTH {
        let answer = sidecar.send(version, request("HEAD", "/").key(&key)).await;
        assert_eq!((answer.status, answer.field("content-length"), answer.body.len()), (200, "3", 0), "{version:?}");
        assert_eq!(upstream.last().head.line(), "HEAD / HTTP/1.1");
    }
    let mut connection = sidecar.connect(H1).await;
    assert_eq!(connection.send(&request("HEAD", "/").key(&key)).await.status, 200);
    assert_eq!(connection.send(&get("/").key(&key)).await.text(), "ok\n");
}

/// The first part is there while the upstream still makes the second.
#[tokio::test]
async fn an_answer_streams() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let gate = Gate::new();
    let begun = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    upstream.on("/", Answer::raw(begun).then(&gate, "6\r\nsecond\r\n0\r\n\r\n"));
    let mut wire = sidecar.wire().await;
    wire.write(get("/").key(&key).head()).await.unwrap();
    let head = wire.answer_head("GET").await.unwrap();
    assert_eq!((head.status, head.field("transfer-encoding")), (200, "chunked"));
    assert_eq!(wire.exactly(10).await.unwrap(), b"5\r\nfirst\r\n");
    gate.open();
    assert_eq!(wire.exactly(16).await.unwrap(), b"6\r\nsecond\r\n0\r\n\r\n"[..16]);
}

/// A caller that does not read is not read for: the upstream is slowed to its pace.
#[tokio::test]
async fn an_answer_waits_for_the_caller() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let body = vec![b'x'; 48 << 20];
    let written = Gate::new();
    upstream.on("/", Answer::ok(&body).then(&written, ""));
    let mut wire = sidecar.wire().await;
    wire.write(get("/").key(&key).head()).await.unwrap();
    let head = wire.answer_head("GET").await.unwrap();
    assert_eq!(head.field("content-length"), body.len().to_string());
    // The sidecar's memory tells: it holds buffers, not the answer.
    let before = sidecar.resident_bytes();
    tokio::time::timeout(Duration::from_millis(500), std::future::pending::<()>()).await.unwrap_err();
    let after = sidecar.resident_bytes();
    assert!(after < before + (24 << 20), "from {before} to {after} bytes");
    assert_eq!(wire.exactly(body.len()).await.unwrap().len(), body.len());
    written.open();
}

/// An answer that broke off upstream is seen to be broken here.
#[tokio::test]
async fn a_cut_answer_never_looks_whole() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let rows = [
        ("/length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        ("/chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        ("/in-a-chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf"),
    ];
    for (path, bytes) in rows {
        upstream.on(path, Answer::raw(bytes).then_close());
        for version in BOTH {
            let mut connection = sidecar.connect(version).await;
            if let Ok(answer) = connection.try_send(&get(path).key(&key)).await {
                assert!(answer.broken.is_some(), "{path} over {version:?}: {answer:?}");
                assert_eq!(answer.text(), "half", "{path} over {version:?}");
            }
        }
    }
    sidecar.counts("keyside_requests_total", &[("outcome", "failed")], 6).await;
}

/// What is no answer, or two in one, becomes a 502 or one clean answer; the connection is not used again.
#[tokio::test]
async fn a_mangled_answer_is_a_502_or_clean() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let bad: [(&str, String); 7] = [
        ("/garbage", "no answer at all\r\n\r\n".into()),
        ("/two-lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok".into()),
        ("/odd-length", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok".into()),
        ("/odd-coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".into()),
        ("/bare-return", "HTTP/1.1 200 OK\r\nX-A: b\rc\r\nContent-Length: 2\r\n\r\nok".into()),
        ("/endless-head", format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "x".repeat(1 << 20))),
        ("/unasked-upgrade", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".into()),
    ];
    for (path, bytes) in &bad {
        upstream.on(path, Answer::raw(bytes).then_close());
        for version in BOTH {
            let answer = sidecar.send(version, get(path).key(&key)).await;
            assert_eq!(answer.brief(), "502 upstream_unreachable", "{path} over {version:?}");
            assert!(answer.field("proxy-status").contains("keyside"), "{path}: {answer:?}");
        }
    }
    // Length and chunked together: chunked counts, and only one is passed on.
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 400\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    upstream.on("/both", Answer::raw(both));
    for version in BOTH {
        let answer = sidecar.send(version, get("/both").key(&key)).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{version:?}: {answer:?}");
        assert!(!answer.has("content-length") || answer.field("content-length") == "2", "{answer:?}");
    }
    // More bytes than announced belong to nobody.
    upstream.on(
        "/more",
        Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"),
    );
    let mut connection = sidecar.connect(H1).await;
    for _ in 0..3 {
        assert_eq!(connection.send(&get("/more").key(&key)).await.text(), "ok");
        assert_eq!(connection.send(&get("/").key(&key)).await.text(), "ok\n");
    }
}

/// Trailers of answers go on to those who can take them.
#[tokio::test]
async fn trailers_of_answers_pass() {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let trailers = [("X-Sum", "42"), ("X-Key-Owner", "acme"), ("Set-Cookie", "a=1")];
    upstream.on("/", Answer::chunked(&[("Trailer", "X-Sum, X-Key-Owner")], &["a", "b"], &trailers));
    for version in BOTH {
        let answer = sidecar.send(version, get("/").key(&key).field("TE", "trailers")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ab"), "{version:?}");
        let trailers: Vec<(String, &str)> =
            answer.trailers.iter().map(|(name, value)| (name.to_lowercase(), value.as_str())).collect();
        assert_eq!(trailers, [("x-sum".into(), "42")], "{version:?}");
    }
}

/// When the caller goes away, so does the work upstream, and the request is counted all the same.
async fn leave(version: Version) {
    let key = Key::pair("key");
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun";
    upstream.on("/begun", Answer::raw(begun).then_silence());
    upstream.on("/silent", Answer::silence());
    for (number, path) in [(1, "/silent"), (2, "/begun")] {
        let mut connection = sidecar.connect(version).await;
        let asked = get(path).key(&key).field("X-Request-Id", path);
        tokio::select! {
            answer = connection.try_send(&asked) => panic!("{answer:?}"),
            _ = upstream.request(number) => {}
        }
        if let Connection::H2 { driving, .. } = &connection {
            driving.abort();
        }
        drop(connection);
        let line = sidecar.logged(path).await;
        assert_eq!(line["outcome"], "failed", "{line}");
        upstream.until_open(0).await;
    }
    sidecar.counts("keyside_requests_total", &[("outcome", "failed")], 2).await;
}

#[tokio::test]
async fn a_caller_that_left_is_not_worked_for() {
    leave(H1).await;
}

#[tokio::test]
async fn a_caller_that_left_over_http2_is_not_worked_for() {
    leave(H2).await;
}
