//! Messages that two parsers could read differently: refused, or one clean message upstream.

use super::in_front;
use crate::harness::{Answer, End, Key, Sidecar, within};

/// What is left of these bytes: the statuses of all answers to them.
async fn answers(sidecar: &Sidecar, bytes: &[u8]) -> Vec<u16> {
    let mut wire = sidecar.wire().await;
    let _ = wire.write(bytes).await;
    let _ = wire.shutdown().await;
    let said = String::from_utf8_lossy(&within("the end", wire.rest()).await).into_owned();
    let lines = said.lines().filter(|line| line.starts_with("HTTP/1."));
    lines.filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect()
}

#[tokio::test]
async fn what_is_no_clear_message_never_reaches_the_upstream() {
    let key = Key::pair("key").scopes(["read_write"]);
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let authorization = key.authorization();
    let post = |fields: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: a.example\r\nAuthorization: {authorization}\r\n{fields}\r\n\r\n{body}")
    };
    let get = |line: &str, fields: &str| format!("{line}\r\nAuthorization: {authorization}\r\n{fields}\r\n\r\n");
    let chunked = |chunks: &str| post("Transfer-Encoding: chunked", chunks);
    let rows = [
        ("a length with a sign", post("Content-Length: +4", "body")),
        ("a negative length", post("Content-Length: -4", "body")),
        ("a length in hex", post("Content-Length: 0x4", "body")),
        ("an empty length", post("Content-Length:", "body")),
        ("two lengths", post("Content-Length: 4\r\nContent-Length: 5", "body")),
        ("a list of lengths", post("Content-Length: 4, 5", "body")),
        ("a length beyond numbers", post("Content-Length: 18446744073709551620", "body")),
        ("another coding", post("Transfer-Encoding: gzip", "4\r\nbody\r\n0\r\n\r\n")),
        ("chunked not last", post("Transfer-Encoding: chunked, gzip", "4\r\nbody\r\n0\r\n\r\n")),
        ("a coding before chunked", post("Transfer-Encoding: gzip, chunked", "4\r\nbody\r\n0\r\n\r\n")),
        ("chunked, misspelt", post("Transfer-Encoding: xchunked", "4\r\nbody\r\n0\r\n\r\n")),
        ("chunked in HTTP/1.0", chunked("4\r\nbody\r\n0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0")),
        ("a chunk size with a prefix", chunked("0x4\r\nbody\r\n0\r\n\r\n")),
        ("a chunk size with a sign", chunked("+4\r\nbody\r\n0\r\n\r\n")),
        ("a chunk size beyond numbers", chunked("fffffffffffffffff\r\nbody\r\n0\r\n\r\n")),
        ("a chunk size ended by a newline", chunked("4\nbody\r\n0\r\n\r\n")),
        ("a chunk longer than it says", chunked("3\r\nbody\r\n0\r\n\r\n")),
        ("a space before the colon", post("X-A : b\r\nContent-Length: 4", "body")),
        ("a folded field", post("X-A: b\r\n folded\r\nContent-Length: 4", "body")),
        ("a carriage return in a value", post("X-A: b\rc\r\nContent-Length: 4", "body")),
        ("a zero byte in a value", post("X-A: b\0c\r\nContent-Length: 4", "body")),
        ("an empty name", post(": b\r\nContent-Length: 4", "body")),
        ("a name with an underscore", post("Content_Length: 4\r\nContent-Length: 4", "body")),
        ("no host", get("GET / HTTP/1.1", "X-A: b")),
        ("two hosts", get("GET / HTTP/1.1", "Host: a.example\r\nHost: b.example")),
        ("the same host twice", get("GET / HTTP/1.1", "Host: a.example\r\nHost: a.example")),
        ("two words as host", get("GET / HTTP/1.1", "Host: a b")),
        ("an unknown version", get("GET / HTTP/1.2", "Host: a.example")),
        ("HTTP/2 by its first line", get("GET / HTTP/2.0", "Host: a.example")),
        ("no version", get("GET /", "Host: a.example")),
        ("two spaces", get("GET  / HTTP/1.1", "Host: a.example")),
        ("an asterisk", get("GET * HTTP/1.1", "Host: a.example")),
        ("no slash", get("GET x HTTP/1.1", "Host: a.example")),
        ("a tunnel", get("CONNECT a.example:443 HTTP/1.1", "Host: a.example:443")),
    ];
    for (rule, bytes) in &rows {
        let statuses = answers(&sidecar, bytes.as_bytes()).await;
        assert!(statuses.iter().all(|status| (400..500).contains(status) || *status == 501), "{rule}: {statuses:?}");
        assert!(statuses.len() <= 1, "{rule}: {statuses:?}");
    }
    // Some begin well; none arrives whole.
    let seen = upstream.until("their ends", |seen| seen.iter().all(|seen| seen.end != End::Arriving)).await;
    let whole: Vec<String> =
        seen.iter().filter(|seen| seen.end == End::Complete).map(|seen| seen.head.line()).collect();
    assert!(whole.is_empty(), "{whole:?}");
    sidecar.measures("keyside_rejections_total", &[("reason", "ambiguous_framing")], |count| count >= 10.0).await;
}

/// A chunk that cannot be read is told as such, and not as a body that came too late (RFC 9112 §7.1).
#[tokio::test]
async fn a_chunk_that_cannot_be_read_is_the_callers_fault() {
    let key = Key::pair("key").scopes(["read_write"]);
    // Also where a form is read to be judged.
    let (upstream, sidecar) =
        in_front(&key, |sidecar| sidecar.config("[policy]\neffective_path_parameter = \"rest_route\"")).await;
    for chunks in ["zz\r\n\r\n", "4\r\nbody\r\n+1\r\nx\r\n", "4\r\nbodyxx", "fffffffffffffffff\r\n"] {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nTransfer-Encoding: chunked",
            key.authorization()
        );
        for kind in ["text/plain", "application/x-www-form-urlencoded"] {
            let answer = sidecar.bytes(format!("{head}\r\nContent-Type: {kind}\r\n\r\n{chunks}")).await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{kind}: {chunks:?}");
        }
    }
    assert!(upstream.seen().iter().all(|seen| seen.end != End::Complete));
    sidecar.counts("keyside_rejections_total", &[("reason", "ambiguous_framing")], 8).await;
}

/// A length beside chunked: one clean message, and the connection ends, so that nothing hides behind it.
#[tokio::test]
async fn of_two_framings_one_clean_message_is_made() {
    let key = Key::pair("key").scopes(["read_write"]);
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let hidden = format!("GET /hidden HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n", key.authorization());
    let both = [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked", 5 + hidden.len()),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {}", 5 + hidden.len()),
    ];
    for fields in both {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n{fields}\r\n\r\n", key.authorization());
        let statuses = answers(&sidecar, format!("{head}0\r\n\r\n{hidden}").as_bytes()).await;
        assert_eq!(statuses.len(), 1, "{fields}: {statuses:?}");
    }
    for seen in upstream.seen() {
        assert_eq!((seen.target().as_str(), seen.body.len()), ("/", 0), "{seen:?}");
        assert!(seen.has("content-length") ^ seen.has("transfer-encoding") || seen.body.is_empty(), "{seen:?}");
    }
}

/// Requests one behind the other: each is judged, in step.
#[tokio::test]
async fn pipelined_requests_are_answered_in_step() {
    let key = Key::pair("key").scopes(["read_write"]);
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let good = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Length: 4\r\n\r\nbody",
        key.authorization()
    );
    let bad = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut wire = sidecar.wire().await;
    wire.write([&good, bad, &good, bad].concat()).await.unwrap();
    for status in [200, 401, 200, 401] {
        assert_eq!(wire.answer("POST").await.unwrap().status, status);
    }
    assert_eq!(upstream.count(), 2);
}

/// Who takes two line feeds for the end of trailers sees the next request where we still read trailers: nothing behind
/// them is answered, and the connection ends, so that nobody gets an answer that was another one's (RFC 9112 §2.2). Be
/// it an answer that waits for them, one that does not, or our own.
#[tokio::test]
async fn nothing_is_believed_behind_trailers() {
    const FORM: &str = "application/x-www-form-urlencoded";
    let key = Key::pair("key").scopes(["read_write"]);
    let settings = "[policy]\neffective_path_parameter = \"rest_route\"\n[listen]\nhealth_path = \"/healthz\"";
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar.config(settings)).await;
    upstream.on("/early", Answer::ok("early").early());
    let authorization = format!("\r\nAuthorization: {}", key.authorization());
    let next = format!("GET /next HTTP/1.1\r\nHost: a{authorization}\r\n\r\n");
    let body = "4\r\na=bc\r\n";
    // The upstream's answer to `/early` comes before the trailers do.
    // The status where the body ends clearly, and where a line of its end ends in a line feed alone: that is no end, to
    // whoever reads so far before there is an answer.
    let rows = [
        ("a body", "POST /", "text/plain", authorization.as_str(), body, (200, 400)),
        ("an empty body", "POST /", "text/plain", &authorization, "", (200, 400)),
        ("a judged form", "POST /", FORM, &authorization, body, (200, 400)),
        ("a judged form, refused", "POST /", FORM, "", body, (401, 400)),
        ("a body, refused", "POST /", "text/plain", "", body, (401, 401)),
        ("an early answer", "POST /early", "text/plain", &authorization, body, (200, 200)),
        ("the health path", "GET /healthz", "text/plain", "", body, (200, 200)),
        ("the health path, an empty body", "GET /healthz", "text/plain", "", "", (200, 200)),
    ];
    for (rule, request, kind, authorization, body, (clear, unclear)) in rows {
        for (end, status) in [
            ("0\r\nX-Sum: 1\r\n\r\n", clear),
            ("0\r\nX-Sum: 1\n\r\n", unclear),
            ("0\r\nX-Sum: 1\n\n", unclear),
            ("0\r\n\n", unclear),
        ] {
            let fields = format!("Host: a\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked{authorization}");
            let begun = format!("{request} HTTP/1.1\r\n{fields}\r\n\r\n{body}");
            let rest = format!("{end}{next}{next}");
            let mut wire = sidecar.wire().await;
            let early = request.ends_with("/early");
            let (first, second) = if early { (begun, rest) } else { (begun + &rest, String::new()) };
            wire.write(first).await.unwrap();
            let answer = within("an answer", wire.answer("POST")).await.unwrap();
            assert_eq!((answer.status, answer.field("connection")), (status, "close"), "{rule}: {end:?}");
            // It may have ended before.
            let _ = wire.write(second).await;
            assert_eq!(within("the end", wire.rest()).await, b"", "{rule}: {end:?}");
        }
    }
    assert!(upstream.seen().iter().all(|seen| seen.target() != "/next"), "{:?}", upstream.seen());
}

/// Chunks that end without trailers are followed by the next request, as long as they were read to their end.
#[tokio::test]
async fn behind_chunks_without_trailers_the_next_request_is_read() {
    let key = Key::pair("key").scopes(["read_write"]);
    let (upstream, sidecar) =
        in_front(&key, |sidecar| sidecar.config("[policy]\neffective_path_parameter = \"rest_route\"")).await;
    let mut wire = sidecar.wire().await;
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        let fields = format!("Host: a\r\nAuthorization: {}\r\nContent-Type: {kind}", key.authorization());
        for body in ["4\r\na=bc\r\n", ""] {
            wire.write(format!("POST / HTTP/1.1\r\n{fields}\r\nTransfer-Encoding: chunked\r\n\r\n{body}0\r\n\r\n"))
                .await
                .unwrap();
            let answer = within("an answer", wire.answer("POST")).await.unwrap();
            assert_eq!((answer.status, answer.field("connection")), (200, ""), "{kind}: {body:?}");
        }
    }
    assert_eq!(upstream.count(), 4);
}
