//! Names and values of fields, and the fields that are ours.

use super::{Clean, Row, check, check_plain, head};

fn get(fields: &str) -> String {
    head("GET /", fields)
}

fn none() -> Clean {
    Clean::new("GET", "/")
}

/// A head for bytes that are no text.
fn bytes(begin: &str, byte: u8, end: &str) -> Vec<u8> {
    let head = get("");
    let head = head.strip_suffix("\r\n").unwrap();
    [head.as_bytes(), begin.as_bytes(), &[byte], end.as_bytes(), b"\r\nX-End: 1\r\n\r\n"].concat()
}

fn ended() -> Clean {
    none().field("x-end", "1")
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// Every byte in a name, before it and behind it; and in a value.
#[tokio::test]
async fn a_name_has_letters_and_a_value_no_controls() {
    let mut rows = Vec::new();
    for byte in 0..=255u8 {
        let shown = [byte].escape_ascii().to_string();
        let low = char::from(byte.to_ascii_lowercase());
        for (place, begin, end) in [("in", "X", "A: b"), ("before", "", "XA: b"), ("behind", "XA", ": b")] {
            let name = format!("{begin}{low}{}", end.split(':').next().unwrap()).to_ascii_lowercase();
            let rule = format!("{shown} {place} a name");
            let sent = bytes(begin, byte, end);
            let source = "RFC 9110 §5.1, CVE-2015-0219";
            rows.push(match byte {
                _ if is_letter(byte) => Row::clean(rule, source, sent, ended().field(&name, "b")),
                b':' if place == "in" => Row::clean(rule, source, sent, ended().field("x", "A: b")),
                b':' if place == "behind" => Row::clean(rule, source, sent, ended().field("xa", ": b")),
                // Alone, it ends the line before, and so the head: what follows is no request.
                b'\n' if place == "before" => continue,
                _ => Row::refused(rule, source, sent),
            });
        }
        for (place, begin, end) in [("in", "X-A: b", "c"), ("before", "X-A:", "bc"), ("behind", "X-A: bc", "")] {
            let rule = format!("{shown} {place} a value");
            let sent = bytes(begin, byte, end);
            let source = "RFC 9110 §5.5";
            let value = [begin.trim_start_matches("X-A:").trim_start().as_bytes(), &[byte], end.as_bytes()].concat();
            rows.push(match byte {
                b' ' | b'\t' if place != "in" => Row::clean(rule, source, sent, ended().field("x-a", "bc")),
                b'\t' | b' '..=b'~' | 0x80.. => Row::clean(rule, source, sent, ended().field("x-a", value)),
                // Alone, it ends the head.
                b'\n' if place == "behind" => continue,
                _ => Row::refused(rule, source, sent),
            });
        }
    }
    check_plain("", rows).await;
}

/// Lines that are none.
#[tokio::test]
async fn a_head_is_lines_of_name_and_value() {
    let hidden = super::hidden();
    let mut rows = Vec::new();
    for (rule, fields) in [
        ("an empty name", ": b"),
        ("an empty name and value", ":"),
        ("a line without a colon", "X-A"),
        ("a space before the colon", "X-A : b"),
        ("a tab before the colon", "X-A\t: b"),
        ("a line folded by a space", "X-A: b\r\n c"),
        ("a line folded by a tab", "X-A: b\r\n\tc"),
        ("a line that is nothing but a space", "X-A: b\r\n "),
        ("a carriage return and no line feed", "X-A: b\rX-B: c"),
        ("a carriage return at the end", "X-A: b\r"),
        ("a carriage return before a line", "\rX-A: b"),
        ("a request line", "GET /hidden HTTP/1.1"),
        ("a quoted name", "\"X-A\": b"),
        ("a name in brackets", "[X-A]: b"),
        ("two words as name", "X A: b"),
        ("a name of another script", "X-\u{410}: b"),
    ] {
        let source = "RFC 9112 §5, §5.2, CVE-2023-25725";
        rows.push(Row::refused(rule, source, get(fields)));
        rows.push(Row::refused(
            format!("{rule}, first"),
            source,
            get("").replacen("Host", &format!("{fields}\r\nHost"), 1),
        ));
    }
    // Leading white space in the first line of a head.
    for line in [" X-A: b", "\tX-A: b", " Host: b.example"] {
        let bytes = get("").replacen("HTTP/1.1\r\n", &format!("HTTP/1.1\r\n{line}\r\n"), 1);
        rows.push(Row::refused(format!("white space behind the request line: {line:?}"), "RFC 9112 §2.2", bytes));
    }
    let clean = none().field("x-a", "b");
    for (rule, bytes) in [
        ("lines that end with a line feed", get("X-A: b").replace("\r\n", "\n")),
        ("one line that ends with a line feed", get("X-A: b").replacen("\r\nX-A", "\nX-A", 1)),
        ("a head that ends with a line feed", format!("{}\n", get("X-A: b").strip_suffix("\r\n").unwrap())),
        ("an empty line before the request", format!("\r\n{}", get("X-A: b"))),
        ("two empty lines before the request", format!("\r\n\r\n{}", get("X-A: b"))),
        ("a line feed before the request", format!("\n{}", get("X-A: b"))),
    ] {
        rows.push(Row::safe(rule, "RFC 9112 §2.2", bytes, clean.clone()));
    }
    for (rule, bytes) in [
        ("nothing but a value behind NUL", get(&format!("X-A: b\0\r\n\r\n{hidden}"))),
        ("a NUL before the request", format!("\0{}", get(""))),
        ("a space before the request", format!(" {}", get(""))),
        ("bytes of TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}".into()),
        ("HTTP/2 by its preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0".into()),
    ] {
        rows.push(Row::refused(rule, "RFC 9112 §2.2, RFC 9113 §3.4", bytes));
    }
    let many: String = (0..99).map(|number| format!("X-{number}: 1\r\n")).collect();
    rows.push(Row::refused("a hundred and two fields", "RFC 9110 §5.4", get(&format!("{many}X-Last: 1"))));
    let same = "X-A: b\r\n".repeat(200);
    rows.push(Row::refused("one field two hundred times", "RFC 9110 §5.4", get(&format!("{same}X-Last: 1"))));
    for size in [30 << 10, 60 << 10, 200 << 10] {
        rows.push(Row::refused(
            format!("a value of {size} bytes"),
            "RFC 9110 §5.4",
            get(&format!("X-A: {}", "b".repeat(size))),
        ));
        rows.push(Row::refused(
            format!("a name of {size} bytes"),
            "RFC 9110 §5.4",
            get(&format!("{}: b", "x".repeat(size))),
        ));
    }
    check("", rows).await;
}

const OURS: [&str; 7] =
    ["X-Key-Id", "X-Key-Owner", "X-Key-Scopes", "X-Key-Mode", "X-Key-Admin", "X-Key-", "X-Key-Assertion"];

/// The spellings of a name that some upstream takes for the same.
fn spellings(name: &str) -> Vec<String> {
    let mut all = vec![name.to_owned(), name.to_lowercase(), name.to_uppercase()];
    let swapped = name
        .bytes()
        .enumerate()
        .map(|(at, b)| if at % 2 == 0 { b.to_ascii_lowercase() } else { b.to_ascii_uppercase() });
    all.push(swapped.map(char::from).collect());
    for mark in ["_", ".", "~", "!", "#", "$", "%", "&", "'", "*", "+", "^", "`", "|"] {
        all.push(name.replace('-', mark));
        all.push(name.replacen('-', mark, 1));
        all.push(name.to_lowercase().replace('-', mark));
    }
    for odd in [
        format!("{name}_"),
        format!("_{name}"),
        format!("{name}."),
        format!("HTTP_{}", name.replace('-', "_")),
        name.replace('-', "__"),
        name.replace('-', "-_"),
        name.replace('K', "\u{212a}"),
        name.replace('-', "\u{2010}"),
        name.replace('-', "\u{ad}-"),
        name.replace('-', ""),
        name.replace('-', " "),
        name.replace('-', "\0"),
        format!("{name} "),
        format!("{name}\t"),
        format!("{name}\0"),
        format!(" {name}"),
        format!("\u{b}{name}"),
    ] {
        all.push(odd);
    }
    all.sort();
    all.dedup();
    all
}

/// A name that is letters, digits and hyphens and does not begin as ours do passes; nothing else does.
fn passes(name: &str) -> bool {
    name.bytes().all(is_letter) && !name.to_ascii_lowercase().starts_with("x-key-")
}

fn spoofs(drops: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for name in OURS {
        for spelling in spellings(name) {
            for (how, fields) in [
                ("once", format!("{spelling}: boss")),
                ("twice", format!("{spelling}: boss\r\n{spelling}: chief")),
                ("empty", format!("{spelling}:")),
                ("nominated too", format!("Connection: {spelling}\r\n{spelling}: boss")),
            ] {
                let rule = format!("{spelling:?} {how}");
                let source = "CVE-2025-64484, CVE-2026-33433, GHSA-x677-9fxg-v5c5";
                let is_token = spelling.bytes().all(|byte| is_letter(byte) || b"_.~!#$%&'*+^`|".contains(&byte));
                let clean = match how {
                    _ if !passes(&spelling) || how == "nominated too" => none(),
                    "once" => none().field(&spelling.to_lowercase(), "boss"),
                    "twice" => none().field(&spelling.to_lowercase(), "boss").field(&spelling.to_lowercase(), "chief"),
                    _ => none().field(&spelling.to_lowercase(), ""),
                };
                let sent = get(&fields);
                // What is no name at all in HTTP is refused in any case, what is an odd one where it is not dropped.
                rows.push(match (spelling.bytes().all(is_letter), is_token && drops) {
                    (true, _) | (_, true) => Row::clean(rule, source, sent, clean),
                    _ => Row::refused(rule, source, sent),
                });
            }
        }
    }
    rows
}

/// Whatever a client calls it, the upstream finds our field once, and what we wrote in it.
#[tokio::test]
async fn no_spelling_of_an_identity_arrives() {
    check("", spoofs(false)).await;
}

/// The same where odd names are dropped in place of refused.
#[tokio::test]
async fn no_spelling_of_an_identity_arrives_where_odd_names_are_dropped() {
    check("[policy]\nodd_field_names = \"drop\"", spoofs(true)).await;
}

/// Every byte in place of the hyphens of our names.
#[tokio::test]
async fn no_byte_makes_a_twin_of_an_identity() {
    for (config, drops) in [("", false), ("[policy]\nodd_field_names = \"drop\"", true)] {
        let mut rows = Vec::new();
        for byte in 0..=255u8 {
            let shown = [byte].escape_ascii().to_string();
            let low = char::from(byte.to_ascii_lowercase());
            for (begin, end) in [("X", "Key-Owner: boss"), ("X-Key", "Owner: boss"), ("X-Key", "Id: boss")] {
                let rule = format!("{shown} behind {begin}, {end}");
                let source = "CVE-2025-64484, GHSA-x677-9fxg-v5c5";
                let sent = bytes(begin, byte, end);
                let name = format!("{begin}{low}{}", end.split(':').next().unwrap()).to_lowercase();
                rows.push(match byte {
                    b'-' => Row::clean(rule, source, sent, ended()),
                    _ if is_letter(byte) => Row::clean(rule, source, sent, ended().field(&name, "boss")),
                    b':' => {
                        let (name, value) = (begin.to_lowercase(), end);
                        Row::clean(rule, source, sent, ended().field(&name, value))
                    }
                    _ if drops && byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte) => {
                        Row::clean(rule, source, sent, ended())
                    }
                    _ => Row::refused(rule, source, sent),
                });
            }
        }
        check_plain(config, rows).await;
    }
}

/// A nomination takes the client's own fields away, and nothing else.
#[tokio::test]
async fn a_nomination_takes_nothing_but_the_clients_own() {
    let mut rows = Vec::new();
    let source = "RFC 9110 §7.6.1, CVE-2021-32813, CVE-2025-48865, CVE-2026-105299, hyper#4019";
    for name in [
        "X-Key-Id",
        "X-Key-Owner",
        "X-Key-Scopes",
        "X-Key-Mode",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "Forwarded",
        "Via",
        "X-Request-Id",
        "traceparent",
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Authorization",
        "Connection",
        "Cookie",
        "Date",
    ] {
        let low = name.to_lowercase();
        for (how, connection) in [
            ("as it is", format!("Connection: {name}")),
            ("in small letters", format!("Connection: {low}")),
            ("in capital letters", format!("connection: {}", name.to_uppercase())),
            ("behind another", format!("Connection: keep-alive, {name}")),
            ("before another", format!("Connection: {name},keep-alive")),
            ("among empty ones", format!("Connection: ,, {low} ,,")),
            ("with white space", format!("Connection: \t{name}\t ,")),
            ("on a second line", format!("Connection: keep-alive\r\nConnection: {name}")),
            ("on a second line in another case", format!("Connection: keep-alive\r\ncONNECTION: {low}")),
            ("on two lines", format!("Connection: {name}\r\nConnection: {low}")),
            ("behind bytes beyond ASCII", format!("Connection: \u{e9}, {name}")),
            ("before bytes beyond ASCII", format!("Connection: {name}, \u{e9}")),
            ("within quotes", format!("Connection: \"{name}\"")),
            ("with a parameter", format!("Connection: {name};q=1")),
            ("by a proxy's own field", format!("Proxy-Connection: {name}")),
            ("five hundred times", format!("Connection: {}", format!("{low},").repeat(500))),
        ] {
            rows.push(Row::clean(format!("{name} {how}"), source, get(&connection), none()));
        }
    }
    for (rule, fields, clean) in [
        ("a field of the client's", "Connection: X-Own\r\nX-Own: 1\r\nX-Other: 2", none().field("x-other", "2")),
        ("in another case", "Connection: x-oWN\r\nX-Own: 1", none()),
        ("more than once", "X-Own: 1\r\nConnection: X-Own\r\nX-Own: 2", none()),
        ("of a line of its own", "X-Own: 1\r\nConnection: a\r\nConnection: b, x-own", none()),
        ("the cookie stays", "Connection: Cookie\r\nCookie: a=1", none().field("cookie", "a=1")),
        ("what is no name", "Connection: X Own, @, X-Own@\r\nX-Own: 1", none().field("x-own", "1")),
    ] {
        rows.push(Row::clean(rule, source, get(fields), clean));
    }
    let close = |connection: &str| get(connection);
    for connection in
        ["Connection: close", "Connection: X-Key-Owner, close", "Connection: close\r\nConnection: X-Key-Id"]
    {
        rows.push(Row::clean(format!("{connection:?}"), source, close(connection), none().closes()));
    }
    check("", rows).await;
}

/// What belongs to one hop, and what others believe of a way or a path, goes no further.
#[tokio::test]
async fn what_is_for_one_hop_or_believed_by_others_ends_here() {
    let mut rows = Vec::new();
    for (name, value) in [
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic eDp5"),
        ("Proxy-Authenticate", "Basic"),
        ("TE", "trailers"),
        ("TE", "gzip"),
        ("Upgrade", "websocket"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
        ("Expect", "100-continue"),
        ("Connection", "keep-alive"),
    ] {
        for (how, spelt) in [("", name.to_owned()), ("small ", name.to_lowercase()), ("capital ", name.to_uppercase())]
        {
            let rule = format!("{how}{name}: {value}");
            rows.push(Row::clean(rule, "RFC 9110 §7.6.1", get(&format!("{spelt}: {value}")), none()));
        }
    }
    for name in [
        "X-Original-URL",
        "X-Original-URI",
        "X-Original-Host",
        "X-Rewrite-URL",
        "X-Forwarded-Uri",
        "X-Forwarded-Prefix",
        "X-Forwarded-Path",
        "X-Forwarded-Port",
        "X-Forwarded-Server",
        "X-Forwarded-Scheme",
        "X-Forwarded-Method",
        "X-Forwarded-User",
        "X-Forwarded-Anything",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "Forwarded",
        "X-Real-IP",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "Fastly-Client-IP",
        "X-Originating-IP",
        "X-Remote-IP",
        "X-Remote-Addr",
        "X-Host",
        "X-Original-Forwarded-For",
    ] {
        for value in ["/admin", "203.0.113.9", "evil.example", ""] {
            let rule = format!("{name}: {value:?}");
            let sent = get(&format!("{name}: {value}\r\n{}: {value}", name.to_lowercase()));
            rows.push(Row::clean(rule, "CVE-2026-40575, CVE-2026-35051", sent, none()));
        }
    }
    for name in [
        "Content_Length",
        "Transfer_Encoding",
        "X_Forwarded_For",
        "X_Original_URL",
        "X_HTTP_Method_Override",
        "X_Real_IP",
        "Content.Length",
        "Transfer~Encoding",
        "Con_nection",
    ] {
        rows.push(Row::refused(
            format!("{name}, which folds"),
            "Http11Probe, nginx underscores_in_headers",
            get(&format!("{name}: 4")),
        ));
    }
    check("", rows).await;
}
