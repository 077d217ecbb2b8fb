//! The first line and the fields of an answer, and what stands before and behind it.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{
    super::{head, keys},
    Verdict::{self, Bad, BadOrClean, Cut},
    check, clean, ok, row,
};
use crate::harness::{Sidecar, Wire, within};

/// The first line and the fields of an answer.
#[tokio::test]
async fn the_head_of_an_answer_is_one() {
    let mut rows = Vec::new();
    for line in [
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 abc OK",
        "HTTP/1.1 -20 OK",
        "HTTP/1.1 +200 OK",
        "HTTP/1.1 2x0 OK",
        "HTTP/1.1 0200 OK",
        "HTTP/1.1 000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 200\tOK",
        "HTTP/2.0 200 OK",
        "HTTP/2 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP/1.11 200 OK",
        "HTTP/11 200 OK",
        "http/1.1 200 OK",
        "ICY 200 OK",
        "RTSP/1.0 200 OK",
        " HTTP/1.1 200 OK",
        "xHTTP/1.1 200 OK",
        "HTTP /1.1 200 OK",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 O\rK",
        "HTTP/1.1 200 OK\r",
        "\u{feff}HTTP/1.1 200 OK",
        "200 OK",
        "OK",
        "<html><body>no headers at all</body></html>",
        "{\"error\":true}",
        "GET / HTTP/1.1",
        "SSH-2.0-OpenSSH_9.2",
        "220 mail.example ESMTP",
        "\u{15}\u{3}\u{1}\0\u{2}\u{2}F",
        "PRI * HTTP/2.0",
        "\0\0\u{12}\u{4}\0\0\0\0\0",
        "* OK IMAP4",
        "-ERR unknown command",
        "",
    ] {
        let bytes = format!("{line}\r\nContent-Length: 2\r\n\r\nok");
        let verdict = match line {
            // No reason, and one that is odd: both can be read.
            "HTTP/1.1 200\tOK" | "HTTP/1.1 000 OK" | "HTTP/1.1 099 OK" => BadOrClean(200, "ok"),
            "" => BadOrClean(200, "ok"),
            _ => Bad,
        };
        rows.push(row(format!("the line {line:?}"), bytes, verdict).from("RFC 9112 §4, HTTP/0.9"));
    }
    for line in ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 200 OK OK OK", "HTTP/1.1 200 \u{e9}"] {
        rows.push(row(
            format!("the line {line:?}"),
            format!("{line}\r\nContent-Length: 2\r\n\r\nok"),
            BadOrClean(200, "ok"),
        ));
    }
    for (rule, field) in [
        ("no colon", "X-A"),
        ("an empty name", ": b"),
        ("a space before the colon", "X-A : b"),
        ("a name of two words", "X A: b"),
        ("a NUL in a value", "X-A: b\0c"),
        ("a NUL in a name", "X\0A: b"),
        ("a carriage return in a value", "X-A: b\rc"),
        ("a carriage return before a field", "X-A: b\rSet-Cookie: a=b"),
        ("a carriage return at the end", "X-A: b\r"),
        ("a bell in a value", "X-A: b\u{7}c"),
        ("an escape in a value", "X-A: \u{1b}[2J"),
        ("a DEL in a value", "X-A: b\u{7f}"),
        ("letters beyond ASCII in a name", "X-\u{e9}: b"),
        ("a folded field", "X-A: b\r\n c"),
        ("a fold of a tab", "X-A: b\r\n\tc"),
    ] {
        rows.push(
            row(rule, ok(&format!("{field}\r\nContent-Length: 2"), "ok"), Bad)
                .from("RFC 9110 §5.5, response splitting"),
        );
        rows.push(
            row(format!("{rule}, last"), ok(&format!("Content-Length: 2\r\n{field}"), "ok"), Bad)
                .from("RFC 9110 §5.5, response splitting"),
        );
    }
    let injected = ok("X-A: b\r\nSet-Cookie: injected=1\r\nContent-Length: 2", "ok");
    let passes = Verdict::Clean(200, "ok", vec![("set-cookie", "injected=1")]);
    rows.push(row("a whole line too many is a field like others", injected, passes));
    let fed = ok("Content-Length: 2", "ok").replace("\r\n", "\n");
    rows.push(row("lines that end with a line feed", fed, BadOrClean(200, "ok")));
    rows.push(
        row("a head of 2 MB", ok(&format!("X-A: {}\r\nContent-Length: 2", "x".repeat(2 << 20)), "ok"), Bad).closing(),
    );
    let fields = (0..30_000).map(|number| format!("X-{number}: 1\r\n")).collect::<String>();
    rows.push(row("thirty thousand fields", ok(&format!("{fields}Content-Length: 2"), "ok"), Bad).closing());
    let fields = (0..101).map(|number| format!("X-{number}: 1\r\n")).collect::<String>();
    rows.push(row("a hundred and two fields", ok(&format!("{fields}Content-Length: 2"), "ok"), Bad).closing());
    rows.push(row("a status line of 100 KB", format!("HTTP/1.1 200 {}\r\n\r\n", "O".repeat(100_000)), Bad).closing());
    rows.push(row("no end of the head", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", Bad).closing());
    rows.push(row("nothing", "", Bad).closing());
    check(rows).await;
}

/// Interim answers, unasked changes of the protocol, and bodies where there are none.
#[tokio::test]
async fn an_answer_is_one_and_has_no_more_than_it_says() {
    let good = ok("Content-Length: 2", "ok");
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let interim = |count: usize| format!("{}{good}", "HTTP/1.1 100 Continue\r\n\r\n".repeat(count));
    let switching = |fields: &str| format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n");
    let mut rows = vec![
        row("an interim answer", interim(1), clean(200, "ok")),
        row("ten interim answers", interim(10), clean(200, "ok")),
        row("ten thousand interim answers", interim(10_000), Bad).from("RFC 9110 §15.2").closing(),
        row(
            "hints",
            format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-Key-Owner: boss\r\n\r\n{good}"),
            clean(200, "ok"),
        ),
        row("an unknown interim answer", format!("HTTP/1.1 199 What\r\n\r\n{good}"), BadOrClean(200, "ok")),
        row(
            "an interim answer with a length",
            format!("HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n{good}"),
            BadOrClean(200, "ok"),
        ),
        row(
            "an interim answer with chunks",
            format!("HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n{good}"),
            BadOrClean(200, "ok"),
        ),
        row("an interim answer and nothing", "HTTP/1.1 100 Continue\r\n\r\n", Bad).closing(),
        row("an unasked 101", switching("Connection: upgrade\r\nUpgrade: websocket\r\n"), Bad).from("threat 31"),
        row("an unasked 101 to h2c", switching("Connection: upgrade\r\nUpgrade: h2c\r\n"), Bad).from("threat 31"),
        row("a 101 without a word", switching(""), Bad).from("threat 31"),
        row("a 101 and an answer", format!("{}{good}", switching("Upgrade: x\r\n")), Bad).from("threat 31"),
        row("an interim answer and a 101", format!("HTTP/1.1 100 Continue\r\n\r\n{}", switching("")), Bad)
            .from("threat 31"),
    ];
    for (how, more) in [
        ("an answer", poison),
        ("half an answer", "HTTP/1.1 200 OK\r\nContent-"),
        ("garbage", "garbage\r\n\r\n"),
        ("one byte", "x"),
        ("a line end", "\r\n"),
        ("an interim answer", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("a NUL", "\0"),
    ] {
        let more_of = |bytes: &str| format!("{bytes}{more}");
        for (what, bytes, verdict) in [
            ("a length", good.clone(), clean(200, "ok")),
            ("chunks", ok("Transfer-Encoding: chunked", "2\r\nok\r\n0\r\n\r\n"), clean(200, "ok")),
            ("no length", ok("Content-Length: 0", ""), clean(200, "")),
            ("204", "HTTP/1.1 204 No Content\r\n\r\n".into(), clean(204, "")),
            ("204 with a length", "HTTP/1.1 204 No Content\r\nContent-Length: 43\r\n\r\n".into(), BadOrClean(204, "")),
            (
                "204 with chunks",
                "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
                BadOrClean(204, ""),
            ),
            ("304", "HTTP/1.1 304 Not Modified\r\n\r\n".into(), clean(304, "")),
            (
                "304 with a length",
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 43\r\n\r\n".into(),
                BadOrClean(304, ""),
            ),
            (
                "304 with chunks",
                "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
                BadOrClean(304, ""),
            ),
        ] {
            let source = "RFC 9112 §6.3, response queue poisoning";
            // Where the fields speak of a body that cannot be there, it may come a moment later.
            if let BadOrClean(status, body) = verdict {
                let rule = format!("{how} a moment behind {what}");
                rows.push(row(rule, &*bytes, BadOrClean(status, body)).later(more).from(source));
            }
            rows.push(row(format!("{how} behind {what}"), more_of(&bytes), verdict).from(source));
        }
        for (what, bytes) in [
            ("no length", "HTTP/1.1 200 OK\r\n\r\n"),
            ("a length", "HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\n"),
            ("chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            ("204", "HTTP/1.1 204 No Content\r\n\r\n"),
        ] {
            let status = if what == "204" { 204 } else { 200 };
            let rule = format!("{how} behind an answer to HEAD with {what}");
            rows.push(row(&*rule, more_of(bytes), BadOrClean(status, "")).of("HEAD").from("RFC 9110 §9.3.2"));
            rows.push(
                row(format!("{rule}, a moment later"), bytes, BadOrClean(status, ""))
                    .later(more)
                    .of("HEAD")
                    .from("RFC 9110 §9.3.2"),
            );
        }
    }
    check(rows).await;
}

/// What an upstream says on a kept connection before it is asked is nobody's answer.
#[tokio::test]
async fn what_comes_between_requests_is_nobodys_answer() {
    for (answer, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok"),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
    ] {
        for stray in
            ["HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", "HTTP/1.1 100 Continue\r\n\r\n", "x", "\r\n", ""]
        {
            let place = format!("{stray:?} behind {answer:?}");
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let sidecar = Sidecar::in_front_of_url(&url).plaintext().keys(&keys()).start().await;
            let mut wire = sidecar.wire().await;
            let mut upstream = asked(&listener, &mut wire, &place).await;
            upstream.write_all(answer.as_bytes()).await.unwrap();
            assert_eq!(wire.answer("GET").await.unwrap().text(), body, "{place}");
            upstream.write_all(stray.as_bytes()).await.unwrap();
            if stray.is_empty() {
                upstream.shutdown().await.unwrap();
            }
            // A connection of its own, and its own answer.
            let mut fresh = asked(&listener, &mut wire, &place).await;
            fresh.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine").await.unwrap();
            assert_eq!(wire.answer("GET").await.unwrap().text(), "mine", "{place}");
        }
    }
}

/// Asks, and takes the connection on which the upstream is asked.
async fn asked(listener: &TcpListener, wire: &mut Wire, place: &str) -> TcpStream {
    wire.write(head("GET /x", "")).await.unwrap();
    let (mut upstream, _) = within(place, listener.accept()).await.unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\n") {
        assert_ne!(within(place, upstream.read_buf(&mut got)).await.unwrap(), 0, "{place}");
    }
    upstream
}

/// What is for one hop, and what is under our names, goes no further; the rest does.
#[tokio::test]
async fn the_fields_of_an_answer_are_for_the_caller() {
    let mut rows = Vec::new();
    for name in ["X-Key-Owner", "x-key-id", "X-KEY-SCOPES", "X-Key-Mode", "X-Key-Admin", "X-Key-"] {
        let low: &'static str = name.to_lowercase().leak();
        for (how, fields) in [
            ("once", format!("{name}: boss")),
            ("twice", format!("{name}: boss\r\n{low}: chief")),
            ("empty", format!("{name}:")),
            ("nominated", format!("Connection: {name}\r\n{name}: boss")),
        ] {
            let bytes = ok(&format!("{fields}\r\nX-Own: kept\r\nContent-Length: 2"), "ok");
            let verdict = Verdict::Clean(200, "ok", vec![(low, ""), ("x-own", "kept")]);
            rows.push(row(format!("{name} {how}"), bytes, verdict).from("threat 86"));
        }
    }
    for (fields, expected) in [
        ("Connection: X-Hop\r\nX-Hop: 1\r\nX-Own: kept", vec![("x-hop", ""), ("x-own", "kept")]),
        ("Connection: x-hOP, close\r\nX-Hop: 1\r\nX-Own: kept", vec![("x-hop", ""), ("x-own", "kept")]),
        ("Connection: \u{e9}, X-Hop\r\nX-Hop: 1", vec![("x-hop", "")]),
        ("Connection: Content-Length\r\nX-Own: kept", vec![("content-length", "2"), ("x-own", "kept")]),
        ("Keep-Alive: timeout=1000000000000000000000", vec![("keep-alive", "")]),
        ("Keep-Alive: timeout=0", vec![("keep-alive", "")]),
        ("Proxy-Connection: keep-alive", vec![("proxy-connection", "")]),
        ("Proxy-Authenticate: Basic", vec![("proxy-authenticate", "")]),
        ("Upgrade: h2c", vec![("upgrade", "")]),
        ("HTTP2-Settings: AAMAAABkAAQAAP__", vec![("http2-settings", "")]),
        ("TE: trailers", vec![("te", "")]),
        ("Set-Cookie: a=1; Domain=example", vec![("set-cookie", "a=1; Domain=example")]),
        ("X-A: \u{e9}", vec![("x-a", "\u{e9}")]),
    ] {
        let bytes = ok(&format!("{fields}\r\nContent-Length: 2"), "ok");
        rows.push(row(format!("{fields:?}"), bytes, Verdict::Clean(200, "ok", expected)).from("RFC 9110 §7.6.1"));
    }
    check(rows).await;
}
