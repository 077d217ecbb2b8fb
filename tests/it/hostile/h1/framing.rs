//! Where a body ends: one answer to that, or none.

use super::{Clean, Row, check, check_plain, head, hidden};

const CHUNKED: &str = "4\r\nbody\r\n0\r\n\r\n";

fn post(fields: &str, body: &str) -> String {
    format!("{}{body}", head("POST /", fields))
}

fn body(text: &str) -> Clean {
    Clean::new("POST", "/").body(text)
}

/// Spellings of a length: digits, and nothing else.
#[tokio::test]
async fn a_length_is_digits() {
    let mut rows = vec![
        Row::clean("a length", "RFC 9110 §8.6", post("Content-Length: 4", "body"), body("body")),
        Row::clean("a name in small letters", "RFC 9110 §5.1", post("content-length: 4", "body"), body("body")),
        Row::clean("white space around it", "RFC 9112 §5.1", post("Content-Length: \t 4 \t", "body"), body("body")),
        Row::clean("no white space", "RFC 9112 §5.1", post("Content-Length:4", "body"), body("body")),
        Row::clean("nothing", "RFC 9110 §8.6", post("Content-Length: 0", ""), body("")),
        Row::safe("leading zeros", "RFC 9110 §8.6", post("Content-Length: 0004", "body"), body("body")),
        Row::safe(
            "many leading zeros",
            "RFC 9110 §8.6",
            post(&format!("Content-Length: {:0>40}", 4), "body"),
            body("body"),
        ),
        Row::safe(
            "the same length twice",
            "RFC 9112 §6.3",
            post("Content-Length: 4\r\nContent-Length: 4", "body"),
            body("body"),
        ),
        Row::safe("the same length in a list", "RFC 9110 §8.6", post("Content-Length: 4, 4", "body"), body("body")),
    ];
    let bad = [
        "+4", "-4", "-0", "+0", "0x4", "4h", "4 4", "4;4", "4.0", "4e0", "4_", "_4", "\"4\"", "'4'", "(4)", "four",
        "4,", ",4", "4,5", "5,4", "4, 4, 5", "4\t4", "\u{b}4", "4\u{b}", "\u{c}4", "4\u{c}", "4\0", "\u{0}4",
        "\u{ff14}", "\u{661}", "4\u{a0}", "%34", "NaN", "-1", "4\r", "4-", "4+0", "1e1", "0b100", "4L", "",
    ];
    for value in bad {
        let rule = format!("no length: {value:?}");
        rows.push(Row::refused(
            rule,
            "RFC 9110 §8.6, CVE-2023-40225",
            post(&format!("Content-Length: {value}"), "body"),
        ));
    }
    for number in [
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551620",
        "9223372036854775807",
        "9223372036854775812",
        "99999999999999999999999999999999",
        "4294967300",
        "-9223372036854775804",
    ] {
        let rule = format!("a length that wraps: {number}");
        rows.push(Row::refused(
            rule,
            "RFC 9110 §8.6, CVE-2021-40346",
            post(&format!("Content-Length: {number}"), "body"),
        ));
    }
    let hidden = hidden();
    for (first, second) in
        [("0", "N"), ("N", "0"), ("4", "N"), ("N", "4"), ("", "N"), ("N", ""), ("0", "+N"), ("N", "0x0")]
    {
        let fields =
            format!("Content-Length: {first}\r\nContent-Length: {second}").replace('N', &hidden.len().to_string());
        rows.push(Row::refused(format!("two lengths: {fields:?}"), "RFC 9112 §6.3", post(&fields, &hidden)));
    }
    for name in [
        "Content-Length ",
        "Content-Length\t",
        "Content-Length\0",
        "Content-Length\u{b}",
        " Content-Length",
        "\tContent-Length",
        "Content Length",
        "Content_Length",
        "CONTENT_LENGTH",
        "Content.Length",
        "\0Content-Length",
        "Content-Length:",
        "Content-Leng\u{74b}h",
        "\u{feff}Content-Length",
        "Content-Length\r",
    ] {
        let fields = format!("X-A: b\r\n{name}: {}", hidden.len());
        let rule = format!("no name of a length: {name:?}");
        rows.push(Row::refused(rule, "RFC 9112 §5.1, CVE-2019-16276", post(&fields, &hidden)));
    }
    check("", rows).await;
}

/// The spellings by which one reader sees chunks and another none.
const OBFUSCATED: &[&str] = &[
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunkedx",
    "Transfer-Encoding: chunk",
    "Transfer-Encoding: chunked-false",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: cow",
    "Transfer-Encoding: gzip",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: , chunked ,",
    "Transfer-Encoding: chunked;",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: chunked; a=b",
    "Transfer-Encoding: chunked a",
    "Transfer-Encoding: a chunked",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: 'chunked'",
    "Transfer-Encoding: (chunked)",
    "Transfer-Encoding: `chunked`",
    "Transfer-Encoding: chun\tked",
    "Transfer-Encoding: chun\r\n ked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding:\r\n\tchunked",
    "Transfer-Encoding: x\r\n chunked",
    "Transfer-Encoding\r\n : chunked",
    "Transfer-Encoding: \u{b}chunked",
    "Transfer-Encoding: chunked\u{b}",
    "Transfer-Encoding: \u{c}chunked",
    "Transfer-Encoding: chunked\u{c}",
    "Transfer-Encoding: \0chunked",
    "Transfer-Encoding: chunked\0",
    "Transfer-Encoding: \u{7f}chunked",
    "Transfer-Encoding: \u{a0}chunked",
    "Transfer-Encoding: chunked\u{a0}",
    "Transfer-Encoding: \u{212a}chunked",
    "Transfer-Encoding: chun\u{212a}ed",
    "Transfer-Encoding: \u{feff}chunked",
    "Transfer-Encoding: =?iso-8859-1?B?Y2h1bmtlZA==?=",
    "Transfer-Encoding: chunked\r",
    "Transfer-Encoding: \rchunked",
    "Transfer-Encoding:",
    "Transfer-Encoding: ",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    "Transfer-Encoding\u{b}: chunked",
    "Transfer-Encoding\0: chunked",
    "Transfer-Encoding\r: chunked",
    "Transfer Encoding: chunked",
    "Transfer_Encoding: chunked",
    "TRANSFER_ENCODING: chunked",
    "Transfer.Encoding: chunked",
    "Transfer-\u{404}ncoding: chunked",
    " Transfer-Encoding: chunked",
    "\tTransfer-Encoding: chunked",
    "\0Transfer-Encoding: chunked",
    "\rTransfer-Encoding: chunked",
    "X-A: b\rTransfer-Encoding: chunked",
    "X-A: b\r\n\rTransfer-Encoding: chunked",
    "X-A: b\r\n Transfer-Encoding: chunked",
    "X-A: b\0Transfer-Encoding: chunked",
    "\u{feff}Transfer-Encoding: chunked",
    "\"Transfer-Encoding\": chunked",
    "Transfer-Encoding:: chunked",
    ": Transfer-Encoding: chunked",
    "Transfer-Encoding chunked",
    "Transfer-Encoding=chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\ntransfer-encoding: cow",
    "Transfer-Encoding:\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding:",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding : identity",
    "Transfer-Encoding: chunked\r\nTransfer_Encoding: identity",
];

/// Nothing but `chunked` says that there are chunks, alone or beside a length before or behind it.
#[tokio::test]
async fn chunked_is_one_word() {
    let source = "RFC 9112 §6.1, PortSwigger's and defparam's lists";
    let mut rows = Vec::new();
    for coding in ["chunked", "Chunked", "CHUNKED", "cHuNkEd", "\tchunked", "chunked \t", "   chunked"] {
        let fields = format!("Transfer-Encoding: {coding}");
        rows.push(Row::clean(format!("the word {coding:?}"), "RFC 9112 §7", post(&fields, CHUNKED), body("body")));
    }
    let names = ["transfer-encoding", "TRANSFER-ENCODING", "tRANSFER-eNCODING"];
    for name in names {
        let fields = format!("{name}: chunked");
        rows.push(Row::clean(format!("the name {name:?}"), "RFC 9110 §5.1", post(&fields, CHUNKED), body("body")));
    }
    let hidden = hidden();
    let shown = format!("{CHUNKED}{hidden}");
    let length = CHUNKED.len();
    for coding in OBFUSCATED {
        for (beside, fields, body) in [
            ("alone", (*coding).to_owned(), CHUNKED),
            ("behind a length", format!("Content-Length: {length}\r\n{coding}"), CHUNKED),
            ("before a length", format!("{coding}\r\nContent-Length: {length}"), CHUNKED),
            ("behind a short length", format!("Content-Length: 4\r\n{coding}"), CHUNKED),
            ("before a long length", format!("{coding}\r\nContent-Length: {}", shown.len()), &shown),
        ] {
            rows.push(Row::refused(format!("{coding:?} {beside}"), source, post(&fields, body)));
        }
    }
    for coding in ["chunked", "gzip, chunked", "identity", "x"] {
        let bytes = post(&format!("Transfer-Encoding: {coding}"), CHUNKED).replace("HTTP/1.1", "HTTP/1.0");
        rows.push(Row::refused(format!("{coding:?} in HTTP/1.0"), "RFC 9112 §6.1, CVE-2026-2835", bytes));
        let kept =
            post(&format!("Connection: keep-alive\r\nTransfer-Encoding: {coding}\r\nContent-Length: 4"), CHUNKED);
        let rule = format!("{coding:?} and a length in HTTP/1.0, kept alive");
        rows.push(Row::refused(rule, "RFC 9112 §6.1, CVE-2026-2835", kept.replace("HTTP/1.1", "HTTP/1.0")));
    }
    check("", rows).await;
}

/// A length beside chunks, in every order: the chunks count, and the connection ends behind them.
#[tokio::test]
async fn of_length_and_chunks_the_chunks_count() {
    let hidden = hidden();
    let (coding, end) = ("Transfer-Encoding: chunked", "0\r\n\r\n");
    let mut rows = Vec::new();
    for (chunks, made) in [("", ""), ("4\r\nbody\r\n", "body")] {
        let bytes = format!("{chunks}{end}{hidden}");
        for length in [0, 3, chunks.len() + end.len(), bytes.len(), bytes.len() + 1000] {
            let length = format!("Content-Length: {length}");
            for fields in [
                format!("{length}\r\n{coding}"),
                format!("{coding}\r\n{length}"),
                format!("{length}\r\nX-A: b\r\n{coding}"),
                format!("{coding}\r\nX-A: b\r\n{length}"),
                format!("{length}\r\n{coding}\r\n{length}"),
                format!("content-length:{}\r\nTRANSFER-ENCODING:chunked", &length[15..]),
            ] {
                let mut clean = body(made).closes();
                if fields.contains("X-A") {
                    clean = clean.field("x-a", "b");
                }
                let rule = format!("{fields:?} before {chunks:?}");
                rows.push(Row::safe(rule, "RFC 9112 §6.3, CVE-2026-2835, hyper#4123", post(&fields, &bytes), clean));
            }
        }
        for fields in
            ["Content-Length: x\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: -1"]
        {
            let rule = format!("no length beside chunks: {fields:?} before {chunks:?}");
            rows.push(Row::safe(rule, "RFC 9112 §6.3", post(fields, &bytes), body(made).closes()));
        }
    }
    // Requests without a body, and with one that is said to be none.
    for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
        let bytes = format!(
            "{}0\r\n\r\n{hidden}",
            head(&format!("{method} /"), "Content-Length: 5\r\nTransfer-Encoding: chunked")
        );
        let rule = format!("both framings on {method}");
        rows.push(Row::safe(rule, "RFC 9112 §6.3", bytes, Clean::new(method, "/").closes()));
    }
    check("", rows).await;
}

/// Every byte before and behind the name and the value of the two fields that frame.
#[tokio::test]
async fn no_byte_hides_a_framing_field() {
    let source = "RFC 9112 §5, defparam's exhaustive list";
    let mut rows = Vec::new();
    for byte in 0..=255u8 {
        let shown = [byte].escape_ascii().to_string();
        // The length covers what stands in chunks, so that both readings end at the same place.
        let framed = |before: &[u8], name: &str, between: &[u8], value: &str, behind: &[u8], rest: &str, body: &str| {
            let begin = head("POST /", "").trim_end().to_owned();
            let field = [before, name.as_bytes(), b":", between, value.as_bytes(), behind].concat();
            [begin.as_bytes(), b"\r\n", rest.as_bytes(), b"\r\n", &field, b"\r\nX-End: 1\r\n\r\n", body.as_bytes()]
                .concat()
        };
        let is_letter = byte.is_ascii_alphanumeric() || byte == b'-';
        let other = |name: String, value: &str, text: &str| {
            body(text).field(&name.to_ascii_lowercase(), value).field("x-end", "1")
        };
        let letter = char::from(byte);
        let mut add = |place: &str, bytes: Vec<u8>, clean: Option<Clean>| {
            let rule = format!("{shown} {place}");
            rows.push(match clean {
                Some(clean) => Row::safe(rule, source, bytes, clean),
                None => Row::refused(rule, source, bytes),
            });
        };
        let length = format!("Content-Length: {}", CHUNKED.len());
        let coding = "Transfer-Encoding";
        let both = || body("body").field("x-end", "1").closes();
        let is_space = matches!(byte, b' ' | b'\t');
        if byte != b'\n' {
            let bytes = framed(&[byte], coding, b" ", "chunked", b"", &length, CHUNKED);
            add(
                "before the name of the coding",
                bytes,
                is_letter.then(|| other(format!("{letter}{coding}"), "chunked", CHUNKED)),
            );
        }
        let bytes = framed(b"", &format!("{coding}{letter}"), b" ", "chunked", b"", &length, CHUNKED);
        if byte.is_ascii() {
            add(
                "behind the name of the coding",
                bytes,
                is_letter.then(|| other(format!("{coding}{letter}"), "chunked", CHUNKED)),
            );
        }
        let bytes = framed(b"", coding, &[byte], "chunked", b"", &length, CHUNKED);
        add("before the coding", bytes, is_space.then(both));
        // A bare line feed ends a line for some: then it is the word itself.
        let bytes = framed(b"", coding, b" ", "chunked", &[byte], &length, CHUNKED);
        add("behind the coding", bytes, (is_space || byte == b'\n').then(both));
        if byte.is_ascii_digit() {
            continue;
        }
        let four = || body("body").field("x-end", "1");
        let bytes = framed(b"", "Content-Length", &[byte], "4", b"", "X-Begin: 1", "body");
        let begun =
            || Clean { fields: [&[("x-begin".to_owned(), b"1".to_vec())], &four().fields[..]].concat(), ..four() };
        add("before the length", bytes, is_space.then(begun));
        let bytes = framed(b"", "Content-Length", b" ", "4", &[byte], "X-Begin: 1", "body");
        // A bare line feed ends the line, so that the next one ends the head and the body is cut out of the rest.
        if byte != b'\n' {
            add("behind the length", bytes, is_space.then(begun));
        }
    }
    check_plain("", rows).await;
}
