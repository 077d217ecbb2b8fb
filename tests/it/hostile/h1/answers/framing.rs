//! Where an answer ends, and that one which was cut does not seem to.

use super::{
    Verdict::{Bad, BadOrClean, Cut},
    check, clean, ok, row,
};

/// Where an answer ends.
#[tokio::test]
async fn an_answer_is_framed_in_one_way() {
    let chunks = "2\r\nok\r\n0\r\n\r\n";
    let mut rows = Vec::new();
    for fields in [
        "Content-Length: 400\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 400",
        "Transfer-Encoding: chunked\r\nContent-Length: 2",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Content-Length: 2\r\nTransfer-Encoding: Chunked",
        "Content-Length: 12\r\nX-A: b\r\nTransfer-Encoding: chunked",
    ] {
        rows.push(
            row(format!("{fields:?}"), ok(fields, chunks), BadOrClean(200, "ok")).from("RFC 9112 §6.3, hyper#4181"),
        );
        let poison = format!("{chunks}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
        rows.push(
            row(format!("{fields:?} and more"), ok(fields, &poison), BadOrClean(200, "ok"))
                .from("RFC 9112 §6.3, hyper#4181"),
        );
    }
    for length in ["2, 2", "2\r\nContent-Length: 2", "02", " 2 ", "2\t"] {
        let fields = format!("Content-Length: {length}");
        rows.push(row(format!("the length {length:?}"), ok(&fields, "ok"), BadOrClean(200, "ok")));
    }
    for length in [
        "",
        " ",
        "+2",
        "-2",
        "-1",
        "0x2",
        "2 2",
        "2;",
        "2.0",
        "2x",
        "x",
        "2,3",
        "2, ",
        ",2",
        "2\r\nContent-Length: 3",
        "3\r\nContent-Length: 2",
        "2\r\nContent-Length:",
        "2\r\nContent-Length: x",
        "18446744073709551616",
        "18446744073709551618",
        "99999999999999999999999",
        "2\u{b}",
        "\u{ff12}",
        "2\r\n 2",
        "2\0",
    ] {
        let fields = format!("Content-Length: {length}");
        rows.push(row(format!("no length: {length:?}"), ok(&fields, "ok"), Bad).from("RFC 9110 §8.6"));
    }
    for coding in [
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "identity",
        "identity, chunked",
        "chunked, identity",
        "xchunked",
        "chunkedx",
        "\"chunked\"",
        "chunked;a=b",
        "chunked,",
        ",chunked",
        "chunked, chunked",
        "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: identity",
        "identity\r\nTransfer-Encoding: chunked",
        "",
        "\u{b}chunked",
        "chunked\u{b}",
        "chun\tked",
        "chunked\r\n ",
        "x\r\n chunked",
        "chunked\0",
    ] {
        for (beside, more) in [("alone", ""), ("before a length", "\r\nContent-Length: 2")] {
            let fields = format!("Transfer-Encoding: {coding}{more}");
            rows.push(
                row(format!("the coding {coding:?} {beside}"), ok(&fields, chunks), Bad)
                    .from("RFC 9112 §6.1")
                    .closing(),
            );
        }
    }
    for name in [
        "Transfer-Encoding ",
        "Transfer-Encoding\t",
        " Transfer-Encoding",
        "Transfer Encoding",
        "Transfer-Encoding\0",
        "Content-Length ",
        "\u{b}Content-Length",
    ] {
        let fields = format!("X-A: b\r\n{name}: chunked\r\nContent-Length: 2");
        rows.push(row(format!("the name {name:?}"), ok(&fields, "ok"), Bad).from("RFC 9112 §5.1"));
    }
    let old = |fields: &str, body: &str| ok(fields, body).replacen("1.1", "1.0", 1);
    rows.push(
        row("chunks in HTTP/1.0", old("Transfer-Encoding: chunked", chunks), Bad).from("RFC 9112 §6.1").closing(),
    );
    rows.push(row("HTTP/1.0", old("Content-Length: 2", "ok"), clean(200, "ok")).closing());
    rows.push(row("HTTP/1.0, kept", old("Content-Length: 2\r\nConnection: keep-alive", "ok"), clean(200, "ok")));
    rows.push(row("HTTP/1.0, up to its end", old("X-A: b", "ok"), clean(200, "ok")).closing());
    rows.push(row("up to its end", ok("X-A: b", "ok"), clean(200, "ok")).closing());
    check(rows).await;
}

/// Chunks of an answer.
#[tokio::test]
async fn chunks_of_an_answer_are_read_in_one_way() {
    let chunked = |chunks: &str| ok("Transfer-Encoding: chunked", chunks);
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let mut rows = vec![
        row("plain", chunked("2\r\nok\r\n0\r\n\r\n"), clean(200, "ok")),
        row("an extension", chunked("2;a=b\r\nok\r\n0;c\r\n\r\n"), clean(200, "ok")),
        row("leading zeros", chunked("00002\r\nok\r\n00\r\n\r\n"), clean(200, "ok")),
        row("a trailer", chunked("2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"), clean(200, "ok")),
    ];
    for size in [
        "0x2",
        "+2",
        "-2",
        "2_",
        "_2",
        "2 2",
        "",
        " 2",
        "g",
        "2g",
        "2,",
        "\u{ff12}",
        "2\0",
        "ffffffffffffffff",
        "10000000000000002",
        "1000000000000000000002",
        "2\r",
        "\r2",
        "2\n",
        "2\u{b}",
        "-1",
        "2.",
    ] {
        let bytes = chunked(&format!("{size}\r\nok\r\n0\r\n\r\n{poison}"));
        rows.push(row(format!("no size: {size:?}"), bytes, Cut).closing());
    }
    for (rule, chunks) in [
        ("a size ended by a line feed", "2\nok\r\n0\r\n\r\n"),
        ("a size ended by a carriage return", "2\rok\r\n0\r\n\r\n"),
        ("data ended by a line feed", "2\r\nok\n0\r\n\r\n"),
        ("data ended by nothing", "2\r\nok0\r\n\r\n"),
        ("data longer than its size", "1\r\nok\r\n0\r\n\r\n"),
        ("data shorter than its size", "3\r\nok\r\n0\r\n\r\n"),
        ("no last chunk", "2\r\nok\r\n"),
        ("no last line", "2\r\nok\r\n0\r\n"),
        ("the last line ended by a line feed", "2\r\nok\r\n0\r\n\n"),
        ("a bare line feed in an extension", "2;a\nb\r\nok\r\n0\r\n\r\n"),
        ("a bare carriage return in an extension", "2;a\rb\r\nok\r\n0\r\n\r\n"),
        ("a trailer without a colon", "2\r\nok\r\n0\r\nX-Sum\r\n\r\n"),
        ("a trailer with a NUL", "2\r\nok\r\n0\r\nX-Sum: a\0b\r\n\r\n"),
        ("a trailer with a bare carriage return", "2\r\nok\r\n0\r\nX-Sum: a\rb\r\n\r\n"),
        ("a trailer that is a status line", "2\r\nok\r\n0\r\nHTTP/1.1 200 OK\r\n\r\n"),
        ("nothing", ""),
    ] {
        rows.push(row(rule, chunked(chunks), Cut).closing());
    }
    rows.push(
        row("an extension of 40 KiB", chunked(&format!("2;{}\r\nok\r\n0\r\n\r\n", "a".repeat(40 << 10))), Cut)
            .closing(),
    );
    rows.push(
        row("trailers of 100 KiB", chunked(&format!("2\r\nok\r\n0\r\nX-Sum: {}\r\n\r\n", "a".repeat(100 << 10))), Cut)
            .closing(),
    );
    let many: String = (0..1000).map(|number| format!("X-{number}: 1\r\n")).collect();
    rows.push(row("a thousand trailers", chunked(&format!("2\r\nok\r\n0\r\n{many}\r\n")), Cut).closing());
    for name in [
        "X-Key-Owner",
        "x-key-id",
        "X-KEY-ADMIN",
        "Set-Cookie",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "X-Request-Id",
    ] {
        let head = format!("Transfer-Encoding: chunked\r\nTrailer: {name}, X-Sum");
        let bytes = ok(&head, &format!("2\r\nok\r\n0\r\n{name}: boss\r\nX-Sum: 1\r\n\r\n"));
        rows.push(row(format!("the trailer {name}"), bytes, clean(200, "ok")).from("RFC 9110 §6.5.1"));
    }
    check(rows).await;
}

/// An answer that ends after any of its bytes but the last is never taken for whole.
#[tokio::test]
async fn an_answer_cut_anywhere_is_not_whole() {
    let mut rows = Vec::new();
    for (what, whole) in [
        ("a length", ok("Content-Length: 12\r\nX-A: b", "twelve bytes")),
        ("chunks", ok("Transfer-Encoding: chunked", "6\r\ntwelve\r\n6\r\n bytes\r\n0\r\n\r\n")),
        (
            "chunks and a trailer",
            ok("Transfer-Encoding: chunked\r\nTrailer: X-Sum", "C\r\ntwelve bytes\r\n0\r\nX-Sum: 1\r\n\r\n"),
        ),
        ("an interim answer", format!("HTTP/1.1 100 Continue\r\n\r\n{}", ok("Content-Length: 12", "twelve bytes"))),
    ] {
        for end in 0..whole.len() {
            rows.push(
                row(format!("{what}, cut at {end}"), &whole.as_bytes()[..end], Cut).from("RFC 9112 §8").closing(),
            );
        }
        rows.push(row(format!("{what}, whole"), whole, clean(200, "twelve bytes")));
    }
    check(rows).await;
}
