//! Targets: the path that was judged is the path that the upstream acts on, in the worst reading of it.

use super::{Clean, Row, Verdict, check, check_plain, head, strict::Message};

fn get(target: &str) -> String {
    head(&format!("GET {target}"), "")
}

/// Bytes around one byte, as a target.
fn around(begin: &str, byte: u8, end: &str) -> Vec<u8> {
    let sent = get("@@");
    let (before, after) = sent.split_once("@@").unwrap();
    [before.as_bytes(), begin.as_bytes(), &[byte], end.as_bytes(), after.as_bytes()].concat()
}

/// Every byte in a path and in a query, as it is and escaped.
#[tokio::test]
async fn a_target_is_canonical_or_refused() {
    let mut rows = Vec::new();
    let source = "RFC 3986 §§3.3, 6.2.2, RFC 9112 §3";
    for byte in 0..=255u8 {
        let shown = [byte].escape_ascii().to_string();
        let text = char::from(byte);
        let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let reserved = b"!$&'()*+,=:@".contains(&byte);
        let rule = format!("{shown} in a path");
        rows.push(match byte {
            b'/' => Row::clean(rule, source, around("/a", byte, "c"), Clean::new("GET", "/a/c")),
            b'?' => Row::clean(rule, source, around("/a", byte, "c"), Clean::new("GET", "/a?c")),
            b'#' => Row::safe(
                rule,
                "RFC 9110 §4.2.5, GHSA-fvhj-4qfh-q2hm",
                around("/a", byte, "c"),
                Clean::new("GET", "/a"),
            ),
            _ if unreserved || reserved => {
                Row::clean(rule, source, around("/a", byte, "c"), Clean::new("GET", &format!("/a{text}c")))
            }
            _ => Row::refused(rule, source, around("/a", byte, "c")),
        });
        for (case, escape) in [("capitals", format!("%{byte:02X}")), ("small letters", format!("%{byte:02x}"))] {
            let rule = format!("{shown} escaped in {case} in a path");
            let sent = get(&format!("/a{escape}c"));
            rows.push(match byte {
                _ if unreserved => Row::clean(rule, source, sent, Clean::new("GET", &format!("/a{text}c"))),
                b'/' | b'\\' | b';' | 0..0x20 | 0x7f.. => Row::refused(rule, source, sent),
                _ => Row::clean(rule, source, sent, Clean::new("GET", &format!("/a{}c", escape.to_uppercase()))),
            });
            let rule = format!("{shown} escaped in {case} in a query");
            let target = format!("/?a{escape}c");
            rows.push(Row::safe(rule, source, get(&target), Clean::new("GET", &target)));
        }
        let rule = format!("{shown} in a query");
        let sent = around("/?a", byte, "c");
        rows.push(match byte {
            b'#' => Row::safe(rule, "RFC 9110 §4.2.5", sent, Clean::new("GET", "/?a")),
            b'!'..=b'~' => Row::safe(rule, source, sent, Clean::new("GET", &format!("/?a{text}c"))),
            _ => Row::refused(rule, source, sent),
        });
        // In the rest of the line: the method, and what stands between it, the target and the version.
        let line = |method: &[u8], rest: &[u8]| {
            [method, rest, get("/").strip_prefix("GET / HTTP/1.1").unwrap().as_bytes()].concat()
        };
        rows.push(Row::refused(
            format!("{shown} in a method"),
            "RFC 9110 §9.1",
            line(&[b'G', b'E', byte, b'T'], b" / HTTP/1.1"),
        ));
        rows.push(Row::refused(format!("{shown} before a method"), "RFC 9112 §3", {
            let sent = line(&[byte, b'G', b'E', b'T'], b" / HTTP/1.1");
            if matches!(byte, b'\n' | b'\r') { [b"X", &sent[..]].concat() } else { sent }
        }));
        if byte != b' ' {
            rows.push(Row::refused(
                format!("{shown} behind a method"),
                "RFC 9112 §3",
                line(&[b'G', b'E', b'T', byte], b"/ HTTP/1.1"),
            ));
            let version = [b" /".as_slice(), &[byte], b"HTTP/1.1"].concat();
            rows.push(Row::refused(format!("{shown} before the version"), "RFC 9112 §3", line(b"GET", &version)));
        }
        if !matches!(byte, b'0' | b'1') {
            let version = [b" / HTTP/1.".as_slice(), &[byte]].concat();
            rows.push(Row::refused(format!("{shown} as minor version"), "RFC 9112 §2.3", line(b"GET", &version)));
        }
        if byte != b'1' {
            let version = [b" / HTTP/".as_slice(), &[byte], b".1"].concat();
            rows.push(Row::refused(format!("{shown} as major version"), "RFC 9112 §2.3", line(b"GET", &version)));
        }
        if !matches!(byte, b'\n') {
            let version = [b" / HTTP/1.1".as_slice(), &[byte]].concat();
            rows.push(Row::refused(format!("{shown} behind the version"), "RFC 9112 §3", line(b"GET", &version)));
        }
    }
    check_plain("", rows).await;
}

/// The path that the most careless upstream would act on: decoded again and again, parameters cut off, every kind of
/// slash a slash, empty and dot segments resolved.
///
/// Not read so: escaped characters that are no ASCII and look like a dot or a slash, and escaped spaces. Both pass, as
/// the text of names does.
fn worst(target: &str) -> String {
    let mut path = target.split(['?', '#']).next().unwrap_or_default().to_lowercase();
    for _ in 0..4 {
        for (lax, meant) in [
            ("%c0%ae", "."),
            ("%c0%2e", "."),
            ("%e0%80%ae", "."),
            ("%uff0e", "."),
            ("%u002e", "."),
            ("%c0%af", "/"),
            ("%e0%80%af", "/"),
            ("%c1%9c", "/"),
            ("%u2215", "/"),
            ("%u2216", "/"),
            ("%00", ""),
            ("%09", ""),
            ("\\", "/"),
        ] {
            path = path.replace(lax, meant);
        }
        let mut decoded = Vec::new();
        let mut rest = path.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
            match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| first == b'%') {
                Some(byte) => {
                    decoded.push(byte);
                    rest = &after[2..];
                }
                None => {
                    decoded.push(first);
                    rest = after;
                }
            }
        }
        path = String::from_utf8_lossy(&decoded).to_lowercase();
    }
    let mut resolved: Vec<&str> = Vec::new();
    for segment in path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()) {
        match segment {
            "" | "." => {}
            ".." => drop(resolved.pop()),
            other => resolved.push(other),
        }
    }
    format!("/{}", resolved.join("/"))
}

#[test]
fn the_worst_reading_is_bad_enough() {
    for target in [
        "/admin",
        "/ADMIN/x",
        "/open/../admin",
        "/open/%2e%2e/admin",
        "/open/%252e%252e%252fadmin",
        "/open/..;x/admin",
        "//admin",
        "/open/..\\admin",
        "/open/%c0%ae%c0%ae/admin",
        "/open%5c..%5cadmin",
        "/%61dmin",
        "/open/.%00./admin",
        "/./admin",
    ] {
        assert!(worst(target).starts_with("/admin"), "{target} is read as {}", worst(target));
    }
    assert_eq!(worst("/open/admin"), "/open/admin");
}

/// From under a path that is allowed to one that is not: whatever arrives is not there, however it is read.
#[tokio::test]
async fn no_spelling_leads_to_another_path() {
    let config = r#"
        [[route]]
        path = "/admin/**"
        capability = "manage"
        [[route]]
        path = "/open/**"
        [[route]]
        path = "/next"
    "#;
    let dots = [
        ".",
        "%2e",
        "%2E",
        "%252e",
        "%25252e",
        "%c0%ae",
        "%C0%AE",
        "%e0%80%ae",
        "%u002e",
        "\u{ff0e}",
        "%ef%bc%8e",
        "%00.",
        ".%00",
        ".;x",
        ".%3b",
        ".%20",
        ".%09",
        "%c0%2e",
    ];
    let slashes = [
        "/",
        "%2f",
        "%2F",
        "%5c",
        "%5C",
        "\\",
        "%252f",
        "%255c",
        "%c0%af",
        "%e0%80%af",
        "%c1%9c",
        "//",
        "/./",
        "/;/",
        "/%2e/",
        "\u{ff0f}",
        "%ef%bc%8f",
        "%u2215",
        "/%00/",
    ];
    let not_there = || {
        Verdict::Sound(Box::new(|message: &Message| {
            let target = message.line.split(' ').nth(1).unwrap_or_default();
            let read = worst(target);
            if read.starts_with("/admin") { Err(format!("{target} may be read as {read}")) } else { Ok(()) }
        }))
    };
    let source = "CVE-2021-29492, CVE-2025-47952, CVE-2026-73551, CVE-2026-48020, GHSA-3q34-rx83-r6mq";
    let mut targets = Vec::new();
    for slash in slashes {
        for dot in dots {
            for other in [dot, "."] {
                targets.push(format!("/open/{dot}{other}{slash}admin/x"));
                targets.push(format!("/open{slash}{dot}{other}/admin/x"));
            }
            targets.push(format!("/open/a{slash}b/{dot}{dot}{slash}{dot}{dot}/../admin/x"));
            targets.push(format!("/{dot}{slash}admin/x"));
        }
        for target in [
            format!("{slash}admin/x"),
            format!("/{slash}admin/x"),
            format!("/admin{slash}x"),
            format!("/open{slash}..{slash}admin{slash}x"),
            format!("/open/x{slash}..{slash}..{slash}admin"),
            format!("/;x{slash}admin"),
            format!("/open;{slash}../admin/x"),
        ] {
            targets.push(target);
        }
    }
    for target in [
        "/ADMIN/x",
        "/Admin",
        "/admin",
        "/admin/",
        "/%61dmin/x",
        "/%2561dmin/x",
        "/%41DMIN/x",
        "/a%64min",
        "/admin;x",
        "/admin;/x",
        "/admin%3bx/y",
        "/admin%20",
        "/admin%00",
        "/admin%09/x",
        "/admin.",
        "/admin?x",
        "/admin%3fx",
        "/admin%23x",
        "/admin#x",
        "/open#/../admin",
        "/open/x?/../../admin",
        "/open/?/admin",
        "/\u{131}admin",
        "/adm\u{131}n/x",
        "/adm%c4%b1n/x",
        "/%u0061dmin",
        "/open/..%",
        "/open/%",
        "/open/%2",
        "/open/%zz",
        "/open/%2e%",
        "/open/..",
        "/open/.",
        "/open/..?x",
        "/open/..#x",
        "/..",
        "/.",
        "/../admin",
        "/open/....//admin",
        "/open/.../admin",
        "/open/..../admin",
        "/open/..admin",
        "/open/%2e%2e%2e/admin",
        "/open/..%0d%0aadmin",
        "/open/ /admin",
        "/open/%0a/../admin",
        "/open/|../admin",
        "/open/{..}/admin",
        "/open/~/../admin",
    ] {
        targets.push(target.into());
    }
    targets.sort();
    targets.dedup();
    let rows = targets.iter().map(|target| Row::new(target.clone(), source, get(target), not_there())).collect();
    check_plain(config, rows).await;
}

/// Forms of a target that are none here, and lengths that are too much.
#[tokio::test]
async fn a_target_is_in_origin_form_and_not_endless() {
    let mut rows = Vec::new();
    for (rule, line) in [
        ("no target", "GET HTTP/1.1"),
        ("no target, two spaces", "GET  HTTP/1.1"),
        ("two spaces before it", "GET  / HTTP/1.1"),
        ("two spaces behind it", "GET /  HTTP/1.1"),
        ("a space in it", "GET /a b HTTP/1.1"),
        ("a space at the end", "GET / HTTP/1.1 "),
        ("another version at the end", "GET / HTTP/1.1 HTTP/1.0"),
        ("two targets", "GET / /b HTTP/1.1"),
        ("a tab", "GET\t/ HTTP/1.1"),
        ("no version", "GET /"),
        ("an empty version", "GET / "),
        ("HTTP/0.9", "GET / HTTP/0.9"),
        ("HTTP/1.2", "GET / HTTP/1.2"),
        ("HTTP/1.01", "GET / HTTP/1.01"),
        ("HTTP/01.1", "GET / HTTP/01.1"),
        ("HTTP/1.1x", "GET / HTTP/1.1x"),
        ("HTTP/1,1", "GET / HTTP/1,1"),
        ("HTTP/1", "GET / HTTP/1"),
        ("HTTP/2", "GET / HTTP/2"),
        ("HTTP/2.0", "GET / HTTP/2.0"),
        ("HTTP/3.0", "GET / HTTP/3.0"),
        ("http/1.1", "GET / http/1.1"),
        ("HTTPS/1.1", "GET / HTTPS/1.1"),
        ("no slash before the version", "GET / HTTP1.1"),
        ("ICY", "GET / ICY/1.0"),
        ("RTSP", "GET / RTSP/1.0"),
        ("a carriage return in it", "GET /\r HTTP/1.1"),
        ("a carriage return before the version", "GET / \rHTTP/1.1"),
        ("a line feed in it", "GET /\n HTTP/1.1"),
        ("an empty method", " / HTTP/1.1"),
        ("a quoted method", "\"GET\" / HTTP/1.1"),
        ("TRACE", "TRACE / HTTP/1.1"),
        ("TRACK", "TRACK / HTTP/1.1"),
        ("DEBUG", "DEBUG / HTTP/1.1"),
        ("PRI", "PRI * HTTP/1.1"),
        ("PRI with a path", "PRI / HTTP/1.1"),
        ("PURGE", "PURGE / HTTP/1.1"),
        ("PROPFIND", "PROPFIND / HTTP/1.1"),
        ("LINK", "LINK / HTTP/1.1"),
        ("a method in small letters", "get / HTTP/1.1"),
        ("another one in small letters", "post / HTTP/1.1"),
        ("one in both", "Get / HTTP/1.1"),
        ("a method with an end", "GETX / HTTP/1.1"),
        ("a method with a beginning", "XGET / HTTP/1.1"),
        ("a method of two words", "GET,POST / HTTP/1.1"),
        ("a response", "HTTP/1.1 200 OK"),
    ] {
        let rest = get("/").strip_prefix("GET / HTTP/1.1").unwrap().to_owned();
        rows.push(Row::refused(rule, "RFC 9112 §3, RFC 9110 §9.1", format!("{line}{rest}")));
    }
    let long_method = "G".repeat(9000);
    rows.push(Row::refused("a method of 9,000 letters", "RFC 9110 §9.1", get("/").replacen("GET", &long_method, 1)));
    for size in [9_000, 20_000, 70_000, 200_000] {
        for (rule, target) in [
            ("a path", format!("/{}", "a".repeat(size))),
            ("segments", "/a".repeat(size / 2)),
            ("escapes", format!("/{}", "%41".repeat(size / 3))),
            ("a query", format!("/?{}", "a".repeat(size))),
            ("parameters", format!("/?{}", "a=b&".repeat(size / 4))),
            ("an absolute target", format!("http://a.example/{}", "a".repeat(size))),
            ("a fragment", format!("/#{}", "a".repeat(size))),
        ] {
            let rule = format!("{rule} of {size} bytes");
            let statuses: &'static [u16] = &[400, 414, 431];
            rows.push(if rule.starts_with("a fragment") {
                Row::safe(rule, "RFC 9110 §4.1", get(&target), Clean::new("GET", "/"))
            } else {
                Row::new(rule, "RFC 9110 §15.5.15", get(&target), Verdict::Refused(statuses))
            });
        }
    }
    check("", rows).await;
}

/// The admin port's paths mean nothing here, and its word is not to be had through here.
#[tokio::test]
async fn the_admin_port_is_not_behind_this_one() {
    let mut rows = Vec::new();
    for target in
        ["/metrics", "/livez", "/readyz", "/healthz", "/version", "/-/reload", "/.well-known/jwks.json", "/debug/pprof"]
    {
        for method in ["GET", "POST", "HEAD"] {
            let bare = format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:9090\r\n\r\n");
            let source = "CVE-2020-11710";
            rows.push(Row::new(format!("{method} {target} without a key"), source, bare, Verdict::Refused(&[401])));
            let with = head(&format!("{method} {target}"), "");
            // With a key it is the upstream's path like any other.
            rows.push(Row::clean(format!("{method} {target} with a key"), source, with, Clean::new(method, target)));
        }
    }
    check("", rows).await;
}
