//! Chunks: read in one way, and written anew.

use super::{Clean, Row, check, check_plain, head, hidden};

fn chunked(chunks: &str) -> String {
    format!("{}{chunks}", head("POST /", "Transfer-Encoding: chunked"))
}

fn body(text: &str) -> Clean {
    Clean::new("POST", "/").body(text)
}

const SOURCE: &str = "RFC 9112 §7.1, http-garden, Http11Probe";

/// A size is hexadecimal digits.
#[tokio::test]
async fn a_chunk_size_is_hexadecimal_digits() {
    let mut rows = vec![
        Row::clean("one chunk", SOURCE, chunked("4\r\nbody\r\n0\r\n\r\n"), body("body")),
        Row::clean("two chunks", SOURCE, chunked("2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n"), body("body")),
        Row::clean("no chunk", SOURCE, chunked("0\r\n\r\n"), body("")),
        Row::clean("capital letters", SOURCE, chunked("A\r\n0123456789\r\n0\r\n\r\n"), body("0123456789")),
        Row::clean("small letters", SOURCE, chunked("a\r\n0123456789\r\n0\r\n\r\n"), body("0123456789")),
        Row::safe("leading zeros", SOURCE, chunked("0004\r\nbody\r\n000\r\n\r\n"), body("body")),
        Row::safe("a space behind it", SOURCE, chunked("4 \r\nbody\r\n0\r\n\r\n"), body("body")),
        Row::safe("a tab behind it", SOURCE, chunked("4\t\r\nbody\r\n0\t\r\n\r\n"), body("body")),
    ];
    let hidden = hidden();
    // A lax reader that takes the beginning of a size, or its end, or wraps it, sees the end of the body elsewhere.
    for size in [
        "0x4",
        "0X4",
        "x4",
        "4h",
        "+4",
        "-4",
        "-0",
        "4_",
        "_4",
        "0_4",
        "4 4",
        "4,4",
        "4.0",
        "4e",
        "4g",
        "g4",
        "\"4\"",
        "'4'",
        "",
        " ",
        "\t",
        " 4",
        "\t4",
        "\u{b}4",
        "4\u{b}",
        "\u{c}4",
        "4\u{c}",
        "4\0",
        "\u{0}4",
        "4\u{a0}",
        "\u{ff14}",
        "\u{661}",
        "4\r",
        "\r4",
        "4\n",
        "\n4",
        "4:a",
        "4=a",
        "#4",
        "%34",
        "0x",
        "0x0",
        "-1",
        "ffffffffffffffff",
        "10000000000000004",
        "100000000000000004",
        "8000000000000004",
        "fffffffffffffffc",
        "00000000000000000000000000000000000000004 x",
        "100000004 ",
        "ffffffff00000004",
    ] {
        let more = format!("body\r\n0\r\n\r\n{hidden}");
        let rule = format!("no size: {size:?}");
        rows.push(Row::refused(rule, "RFC 9112 §7.1, CVE-2023-38697", chunked(&format!("{size}\r\n{more}"))));
    }
    check("", rows).await;
}

/// Lines end with CR LF, data ends where its size says, and the end of a body is a line of its own.
#[tokio::test]
async fn chunks_end_where_they_say() {
    let hidden = hidden();
    let mut rows = Vec::new();
    for (rule, chunks) in [
        ("a size ended by a line feed", "4\nbody\r\n0\r\n\r\n"),
        ("a size ended by a carriage return", "4\rbody\r\n0\r\n\r\n"),
        ("a size ended by two of them", "4\r\r\nbody\r\n0\r\n\r\n"),
        ("a size ended the wrong way round", "4\n\rbody\r\n0\r\n\r\n"),
        ("data ended by a line feed", "4\r\nbody\n0\r\n\r\n"),
        ("data ended by a carriage return", "4\r\nbody\r0\r\n\r\n"),
        ("data ended by nothing", "4\r\nbody0\r\n\r\n"),
        ("data ended by other bytes", "4\r\nbodyxx0\r\n\r\n"),
        ("data ended by spaces", "4\r\nbody  0\r\n\r\n"),
        ("data ended by a space and an end", "4\r\nbody \r\n0\r\n\r\n"),
        ("data ended twice", "4\r\nbody\r\n\r\n0\r\n\r\n"),
        ("data longer than its size", "3\r\nbody\r\n0\r\n\r\n"),
        ("data shorter than its size", "5\r\nbody\r\n0\r\n\r\n"),
        ("the last size ended by a line feed", "4\r\nbody\r\n0\n\r\n"),
        ("the last size ended by a carriage return", "4\r\nbody\r\n0\r\r\n"),
        ("all lines ended by line feeds", "4\nbody\n0\n\n"),
        ("the last line a carriage return and others", "4\r\nbody\r\n0\r\n\rX\r\n"),
        ("no last line", "4\r\nbody\r\n0\r\n"),
        ("no last chunk", "4\r\nbody\r\n"),
        ("an empty line before the size", "\r\n4\r\nbody\r\n0\r\n\r\n"),
        ("a last size that is none", "4\r\nbody\r\n0x\r\n\r\n"),
        ("a last size with a sign", "4\r\nbody\r\n-0\r\n\r\n"),
    ] {
        rows.push(Row::refused(rule, "RFC 9112 §7.1, §2.2", chunked(&format!("{chunks}{hidden}"))));
    }
    // Here a line feed alone begins the trailers, in which what follows is lost.
    let bytes = chunked(&format!("4\r\nbody\r\n0\r\n\n{hidden}"));
    rows.push(Row::safe("the last line ended by a line feed", "RFC 9112 §7.1.2", bytes, body("body").closes()));
    check("", rows).await;
}

/// Extensions are read past to the end of their line, and are bounded.
#[tokio::test]
async fn extensions_hide_nothing() {
    let hidden = hidden();
    let mut rows = Vec::new();
    for extension in [
        ";",
        ";a",
        ";a=b",
        ";a=\"b\"",
        ";a=\"b;c\"",
        ";a=\"\\\"\"",
        "; a = b",
        " ;a",
        "\t;a",
        ";;;;",
        ";a=",
        ";=b",
        ";\"",
        ";a=\"b",
        ";0",
        ";4",
        ";a\tb",
        ";\u{e9}",
        ";a\0",
    ] {
        for (place, chunks) in [
            ("first", format!("4{extension}\r\nbody\r\n0\r\n\r\n")),
            ("last", format!("4\r\nbody\r\n0{extension}\r\n\r\n")),
        ] {
            let rule = format!("the extension {extension:?} of the {place} chunk");
            rows.push(Row::safe(rule, "RFC 9112 §7.1.1", chunked(&chunks), body("body")));
        }
    }
    // To a reader that ends the line at the bare byte, another chunk begins there (TERM.EXT, EXT.TERM).
    for extension in
        [";\n", ";a\n", ";a\nb", ";a\rb", ";\r", ";a\r", ";a\r\r", ";\n\n", ";a=\"\n\"", ";\u{b}\n", "\n;a"]
    {
        for (place, chunks) in [
            ("first", format!("4{extension}\r\nbody\r\n0\r\n\r\n")),
            ("last", format!("4\r\nbody\r\n0{extension}\r\n\r\n")),
        ] {
            let rule = format!("a line in the extension {extension:?} of the {place} chunk");
            rows.push(Row::new(
                rule,
                "RFC 9112 §7.1.1, Http11Probe",
                chunked(&format!("{chunks}{hidden}")),
                super::Verdict::Sound(Box::new(|message| {
                    // What hides behind it is a request of its own to all, or nothing.
                    Err(format!("it arrived: {message:?}"))
                })),
            ));
        }
    }
    let quoted = format!("4;a=\"\r\nbody\r\n0\r\n\r\n\"{hidden}");
    let alone = |message: &super::strict::Message| match &message.body[..] {
        b"body" if message.line == "POST / HTTP/1.1" => Ok(()),
        _ => Err(format!("it arrived: {message:?}")),
    };
    let verdict = super::Verdict::Sound(Box::new(alone));
    rows.push(Row::new("a quoted end of line", "RFC 9112 §7.1.1", chunked(&quoted), verdict));
    let long = format!("4;{}\r\nbody\r\n0\r\n\r\n", "a".repeat(40 << 10));
    rows.push(Row::refused("an extension of 40 KiB", "CVE-2023-39326", chunked(&long)));
    let many = format!("1;{}\r\nx\r\n", "a".repeat(100)).repeat(500);
    rows.push(Row::refused(
        "a hundred bytes of extension for each byte",
        "CVE-2023-39326",
        chunked(&format!("{many}0\r\n\r\n")),
    ));
    let spaces = format!("4{}\r\nbody\r\n0\r\n\r\n", " ".repeat(40 << 10));
    rows.push(Row::safe("white space of 40 KiB", "CVE-2023-39326", chunked(&spaces), body("body")));
    let zeros = format!("{}4\r\nbody\r\n0\r\n\r\n", "0".repeat(40 << 10));
    rows.push(Row::safe("zeros of 40 KiB", "CVE-2023-39326", chunked(&zeros), body("body")));
    check("", rows).await;
}

/// Trailers are fields: what cannot be one ends the request, what may not be one is dropped, and what is left goes on.
#[tokio::test]
async fn trailers_are_fields_that_may_come_last() {
    let hidden = hidden();
    // Behind trailers nothing is believed (RFC 9112 §2.2).
    let trailed_body = || body("body").closes();
    let trailed = |trailers: &str| chunked(&format!("4\r\nbody\r\n0\r\n{trailers}\r\n"));
    let announced = |names: &str, trailers: &str| {
        let head = head("POST /", &format!("Transfer-Encoding: chunked\r\nTrailer: {names}"));
        format!("{head}4\r\nbody\r\n0\r\n{trailers}\r\n")
    };
    let mut rows = vec![Row::clean(
        "an announced one goes on",
        "RFC 9110 §6.6.2",
        announced("X-Sum", "X-Sum: 1\r\n"),
        trailed_body().field("trailer", "X-Sum").trailer("x-sum", "1"),
    )];
    // Of each, nothing arrives: neither in the head nor behind the body.
    for name in [
        "X-Key-Owner",
        "x-key-owner",
        "X-KEY-ID",
        "X-Key-Scopes",
        "X-Key-Mode",
        "X-Key-Admin",
        "X-Key-",
        "X_Key_Owner",
        "X.Key.Owner",
        "X-Key_Owner",
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "Set-Cookie",
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "TE",
        "Upgrade",
        "Keep-Alive",
        "Trailer",
        "Expect",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "Forwarded",
        "Via",
        "X-Request-Id",
        "X-Real-IP",
        "True-Client-IP",
        "X-Original-URL",
        "X-Rewrite-URL",
        "WWW-Authenticate",
        "Content_Length",
        "X~A",
    ] {
        let trailer = format!("{name}: boss\r\n");
        let source = "RFC 9110 §6.5.1";
        rows.push(Row::safe(format!("{name}, announced"), source, announced(name, &trailer), trailed_body()));
        rows.push(Row::safe(format!("{name}, unannounced"), source, trailed(&trailer), trailed_body()));
        let behind = format!("X-Sum: 1\r\n{trailer}");
        let clean = trailed_body().field("trailer", "X-Sum").trailer("x-sum", "1");
        let both = announced(&format!("X-Sum, {name}"), &behind);
        rows.push(Row::safe(format!("{name} behind another one"), source, both, clean));
    }
    for (rule, trailers) in [
        ("no colon", "X-Sum\r\n"),
        ("an empty name", ": 1\r\n"),
        ("a space before the colon", "X-Sum : 1\r\n"),
        ("a folded line", "X-Sum: 1\r\n more\r\n"),
        ("a line that begins with a space", " X-Sum: 1\r\n"),
        ("a NUL", "X-Sum: a\0b\r\n"),
        ("a bare carriage return", "X-Sum: a\rb\r\n"),
        ("a bare carriage return at the end", "X-Sum: a\r\r\n"),
        ("a control character in a name", "X\u{1}Sum: a\r\n"),
        ("letters beyond ASCII in a name", "X-S\u{fc}m: a\r\n"),
        ("a request line", "GET /hidden HTTP/1.1\r\n"),
    ] {
        rows.push(Row::refused(rule, "RFC 9112 §7.1.2", format!("{}{hidden}", trailed(trailers))));
    }
    let sum = || trailed_body().trailer("x-sum", "1");
    for (line, clean) in [
        // The next request is lost with the connection; it is never read as part of this one.
        ("X-Sum: 1\n", sum()),
        ("X-Sum: 1\r\nX-More: 1\n", sum().trailer("x-more", "1")),
        ("X-Sum: 1\nX-More: 1\r\n", sum().trailer("x-more", "1")),
    ] {
        let rule = format!("a line ended by a line feed: {line:?}");
        rows.push(Row::safe(rule, "RFC 9112 §2.2 (TRAILER.TERM)", trailed(line), clean));
    }
    let long = format!("X-Sum: {}\r\n", "x".repeat(40 << 10));
    rows.push(Row::refused("one of 40 KiB", "RFC 9110 §5.4", trailed(&long)));
    let many: String = (0..2000).map(|number| format!("X-{number}: 1\r\n")).collect();
    rows.push(Row::refused("two thousand", "RFC 9110 §5.4", trailed(&many)));
    check("", rows).await;
}

/// Every byte before and behind a size, and as the end of its line.
#[tokio::test]
async fn no_byte_hides_in_a_chunk_line() {
    let hidden = hidden();
    let mut rows = Vec::new();
    for byte in 0..=255u8 {
        let shown = [byte].escape_ascii().to_string();
        let around = |begin: &str, end: &str| {
            [head("POST /", "Transfer-Encoding: chunked").as_bytes(), begin.as_bytes(), &[byte], end.as_bytes()]
                .concat()
        };
        let rest = format!("\r\nbody\r\n0\r\n\r\n{hidden}");
        let plain = "\r\nbody\r\n0\r\n\r\n";
        let source = "RFC 9112 §7.1";
        // Digits make another size.
        if !byte.is_ascii_hexdigit() {
            rows.push(Row::refused(format!("{shown} before the size"), source, around("", &format!("4{rest}"))));
            let behind = format!("{shown} behind the size");
            rows.push(match byte {
                b' ' | b'\t' | b';' => Row::safe(behind, source, around("4", plain), body("body")),
                _ => Row::refused(behind, source, around("4", &rest)),
            });
        }
        // In place of each half of a line's end.
        if byte != b'\r' {
            let rule = format!("{shown} and a line feed end the size");
            if !byte.is_ascii_hexdigit() {
                rows.push(Row::refused(rule, source, around("4", &rest[1..])));
            }
            rows.push(Row::refused(
                format!("{shown} and a line feed end the data"),
                source,
                around("4\r\nbody", &format!("\n0\r\n\r\n{hidden}")),
            ));
        }
        if byte != b'\n' {
            let rule = format!("a carriage return and {shown} end the size");
            rows.push(Row::refused(rule, source, around("4\r", &rest[2..])));
            rows.push(Row::refused(
                format!("a carriage return and {shown} end the data"),
                source,
                around("4\r\nbody\r", &format!("0\r\n\r\n{hidden}")),
            ));
        }
    }
    check_plain("", rows).await;
}
