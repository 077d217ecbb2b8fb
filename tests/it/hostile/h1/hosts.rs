//! Exactly one host, in one spelling, in the field and in the target.

use super::{Clean, Row, Verdict, check, check_plain, key};

fn get(target: &str, hosts: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n{hosts}Authorization: {}\r\n\r\n", key("writer").authorization())
}

fn host(host: &str) -> Clean {
    Clean::new("GET", "/").host(host)
}

/// What a host is.
#[tokio::test]
async fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
    let mut rows = Vec::new();
    for value in [
        "a.example",
        "A.Example",
        "a.example:8443",
        "a.example:1",
        "a.example:65535",
        "a.example:00080",
        "localhost",
        "127.0.0.1",
        "127.0.0.1:80",
        "[::1]",
        "[::1]:80",
        "[2001:db8::1]:443",
        "[2001:DB8::1]",
        "my_service:80",
        "a.example.",
        "a.example.:80",
        "xn--caf-dma.example",
        "0",
        "1.2.3.4.5",
        "a--b",
        "-a",
    ] {
        rows.push(Row::clean(
            format!("a host: {value}"),
            "RFC 9110 §7.2",
            get("/", &format!("Host: {value}\r\n")),
            host(value),
        ));
    }
    rows.push(Row::clean(
        "white space around it",
        "RFC 9112 §5.1",
        get("/", "Host: \t a.example \t\r\n"),
        host("a.example"),
    ));
    rows.push(Row::clean(
        "its name in small letters",
        "RFC 9110 §5.1",
        get("/", "host:a.example\r\n"),
        host("a.example"),
    ));
    for value in [
        "",
        " ",
        ".",
        "..",
        "a..b",
        ".a",
        "a..",
        ":",
        ":80",
        "a.example:",
        "a.example:0",
        "a.example:65536",
        "a.example:99999",
        "a.example:+80",
        "a.example:-80",
        "a.example:80x",
        "a.example:0x50",
        "a.example:8080:80",
        "a.example: 80",
        "a.example :80",
        "a.example:80 ,b",
        "a b",
        "a.example b.example",
        "a.example,b.example",
        "a.example, a.example",
        "a.example;b",
        "a.example/b",
        "a.example/",
        "/a.example",
        "a.example?b",
        "a.example#b",
        "a.example\\b",
        "a.example%00",
        "a%2eexample",
        "a.example%0d%0a",
        "user@a.example",
        "user:pw@a.example",
        "@a.example",
        "a.example@",
        "a.example@b.example",
        "http://a.example",
        "//a.example",
        "[::1",
        "::1",
        "::1]",
        "[::1]x",
        "[::1]:",
        "[::1]:x",
        "[]",
        "[a.example]",
        "[127.0.0.1]",
        "[::1%eth0]",
        "[::1%25eth0]",
        "[v1.a]",
        "[::1].",
        "[::1]:80:80",
        "[[::1]]",
        "[::1][::2]",
        "[::ffff:1.2.3.256]",
        "a.example\tb",
        "a\u{e9}.example",
        "a\u{3002}example",
        "a\u{ad}b.example",
        "*.example",
        "*",
        "(a)",
        "a.example!",
        "a=b",
        "'a.example'",
        "\"a.example\"",
        "<a.example>",
        "{a}",
        "a^b",
        "a`b",
        "a|b",
        "a~b",
        "$a",
        "a.example&b",
        "a.example+b",
    ] {
        let source = "RFC 9110 §7.2, RFC 9112 §3.2, hyper#3777";
        rows.push(Row::refused(format!("no host: {value:?}"), source, get("/", &format!("Host: {value}\r\n"))));
    }
    let long = format!("Host: {}\r\n", "a".repeat(256));
    rows.push(Row::refused("a host of 256 letters", "RFC 1035 §2.3.4", get("/", &long)));
    check("", rows).await;
}

/// Exactly one.
#[tokio::test]
async fn there_is_one_host() {
    let source = "RFC 9112 §3.2, CVE-2026-35051";
    let mut rows = vec![
        Row::new("none", source, get("/", ""), Verdict::Refused(&[400])),
        Row::refused("none in HTTP/1.0", source, get("/", "").replace("HTTP/1.1", "HTTP/1.0")),
    ];
    for hosts in [
        "Host: a.example\r\nHost: a.example\r\n",
        "Host: a.example\r\nHost: b.example\r\n",
        "Host: a.example\r\nhost: b.example\r\n",
        "Host: a.example\r\nHOST: a.example\r\n",
        "Host: a.example\r\nHost:\r\n",
        "Host:\r\nHost: a.example\r\n",
        "Host: a.example\r\nX-A: b\r\nHost: b.example\r\n",
        "Host : a.example\r\n",
        "Host\t: a.example\r\n",
        " Host: a.example\r\n",
        "X-A: b\r\n Host: a.example\r\n",
        "Host: a.example\r\n Host: b.example\r\n",
        "Host: a.example\r\n b.example\r\n",
        "Host:\r\n a.example\r\n",
        "Host: a.example\rHost: b.example\r\n",
        "Host: a.example\0b.example\r\n",
        "H\u{f6}st: a.example\r\n",
        "Host: a.example\r\nHost : b.example\r\n",
        "X-A: b\rHost: a.example\r\n",
        "Host_: a.example\r\n",
        ":authority: a.example\r\n",
        "Host: a.example\r\n:authority: b.example\r\n",
        "Host: a.example\r\nHost_: b.example\r\n",
    ] {
        rows.push(Row::refused(format!("{hosts:?}"), source, get("/", hosts)));
    }
    // Other names for it are ignored, here and upstream.
    for name in ["X-Forwarded-Host", "X-Host", "X-Original-Host", "X-Forwarded-Server"] {
        let hosts = format!("{name}: b.example\r\nHost: a.example\r\n{name}: c.example\r\n");
        rows.push(Row::clean(format!("{name} beside it"), source, get("/", &hosts), host("a.example")));
    }
    check("", rows).await;
}

/// A target in absolute form names the same host, and no user.
#[tokio::test]
async fn an_absolute_target_names_the_same_host() {
    let source = "RFC 9112 §3.2.2";
    let mut rows = Vec::new();
    for (target, value, forwarded) in [
        ("http://a.example/", "a.example", "/"),
        ("https://a.example/", "a.example", "/"),
        ("HTTP://a.example/", "a.example", "/"),
        ("http://A.EXAMPLE/x?y=http://b.example/", "a.example", "/x?y=http://b.example/"),
        ("http://a.example:80/", "a.example", "/"),
        ("https://a.example:443/x", "a.example", "/x"),
        ("http://a.example:8080/", "a.example:8080", "/"),
        ("http://a.example", "a.example", "/"),
        ("http://[::1]:8080/x", "[::1]:8080", "/x"),
    ] {
        let clean = Clean::new("GET", forwarded).host(value);
        let rule = format!("{target} and {value}");
        rows.push(Row::clean(rule, source, get(target, &format!("Host: {value}\r\n")), clean));
    }
    for (target, value) in [
        ("http://b.example/", "a.example"),
        ("http://a.example/", "b.example"),
        ("http://a.example:81/", "a.example"),
        ("http://a.example/", "a.example:81"),
        ("https://a.example:80/", "a.example"),
        ("http://a.example:80/", "a.example:443"),
        ("http://user@a.example/", "a.example"),
        ("http://user:pw@a.example/", "a.example"),
        ("http://user@a.example/", "user@a.example"),
        ("http://a.example@b.example/", "a.example"),
        ("http://a.example@b.example/", "b.example"),
        ("http://b.example\\@a.example/", "a.example"),
        ("http://b.example#a.example/", "a.example"),
        ("http://a.example?@b.example/", "b.example"),
        ("http://a.example,b.example/", "a.example"),
        ("http://a.example:/", "a.example"),
        ("http://a.example:0/", "a.example"),
        ("http://a.example:80x/", "a.example"),
        ("http:///x", "a.example"),
        ("http://", "a.example"),
        ("http:/a.example/", "a.example"),
        ("http:a.example/", "a.example"),
        ("://a.example/", "a.example"),
        ("//a.example/", "a.example"),
        ("///a.example/", "a.example"),
        ("/\\a.example/", "a.example"),
        ("\\\\a.example/", "a.example"),
        ("ftp://a.example/", "a.example"),
        ("file:///etc/passwd", "a.example"),
        ("gopher://a.example/", "a.example"),
        ("javascript:alert(1)", "a.example"),
        ("unix:/run/admin.sock", "a.example"),
        ("ws://a.example/", "a.example"),
        ("http://a.example/../x", "a.example"),
        ("http://a.example//x", "a.example"),
        ("http://a.example/x#y", "b.example"),
        ("http://a.example%00.b.example/", "a.example"),
        ("http://a.example\0/", "a.example"),
        ("http://\u{e0}.example/", "a.example"),
        ("http://a.example http://b.example/", "a.example"),
        ("a.example:443", "a.example:443"),
        ("a.example", "a.example"),
        ("a.example/x", "a.example"),
        ("*", "a.example"),
        ("**", "a.example"),
        ("/*x HTTP/1.1\r\nX-A: /", "b c"),
        ("", "a.example"),
        ("?x", "a.example"),
        ("#x", "a.example"),
        (".", "a.example"),
        ("%2f", "a.example"),
        (";", "a.example"),
        ("@b.example/", "a.example"),
        ("/x@b.example:80/ /", "a.example"),
    ] {
        rows.push(Row::refused(format!("{target:?} and {value}"), source, get(target, &format!("Host: {value}\r\n"))));
        if value == "a.example" {
            rows.push(Row::refused(format!("{target:?} and no host"), source, get(target, "")));
        }
    }
    // A fragment is dropped before anything is judged, and goes nowhere.
    let fragment = get("http://a.example#@b.example/", "Host: a.example\r\n");
    rows.push(Row::safe("a host in a fragment", "GHSA-fvhj-4qfh-q2hm", fragment, Clean::new("GET", "/")));
    // The asterisk is for OPTIONS alone, and names no path that could be judged.
    let asterisk = get("*", "Host: a.example\r\n").replacen("GET", "OPTIONS", 1);
    rows.push(Row::refused("the asterisk of OPTIONS", "RFC 9112 §3.2.4", asterisk));
    for target in ["b.example:443", "b.example", "/", "http://b.example/", "127.0.0.1:9090", "[::1]:80"] {
        let tunnel = get(target, &format!("Host: {target}\r\n")).replacen("GET", "CONNECT", 1);
        rows.push(Row::refused(format!("a tunnel to {target}"), "RFC 9110 §9.3.6, Pingora 0.8", tunnel));
    }
    check("", rows).await;
}

/// Which mode of key a host takes is not to be chosen by another spelling of it.
#[tokio::test]
async fn no_spelling_of_a_host_is_another_host() {
    let config = "[[route]]\npath = \"/next\"\n[[route]]\npath = \"/**\"\nhosts = [\"admin.example\"]\ncapability = \"manage\"\n\
                  [[route]]\npath = \"/**\"\nhosts = [\"a.example\"]";
    let mut rows =
        vec![Row::clean("the one that may", "RFC 9110 §4.2.3", get("/", "Host: a.example\r\n"), host("a.example"))];
    for value in [
        "admin.example",
        "ADMIN.example",
        "admin.example.",
        "admin.example:80",
        "Admin.Example.:8443",
        "admin.example:0080",
    ] {
        rows.push(Row::new(
            format!("{value:?}"),
            "RFC 9110 §4.2.3",
            get("/", &format!("Host: {value}\r\n")),
            Verdict::Refused(&[403]),
        ));
        let both = get(&format!("http://{value}/"), &format!("Host: {value}\r\n"));
        rows.push(Row::refused(format!("{value:?} in absolute form"), "RFC 9112 §3.2.2", both));
        let crossed = get(&format!("http://{value}/"), "Host: a.example\r\n");
        rows.push(Row::refused(format!("{value:?} in absolute form beside another"), "RFC 9112 §3.2.2", crossed));
    }
    check(config, rows).await;
}

/// Every byte in a host.
#[tokio::test]
async fn no_odd_byte_is_in_a_host() {
    let mut rows = Vec::new();
    for byte in 0..=255u8 {
        let sent = get("/", "Host: a.exa@mple\r\n");
        let at = sent.find('@').unwrap();
        let sent = [&sent.as_bytes()[..at], &[byte], &sent.as_bytes()[at + 1..]].concat();
        let rule = format!("{} in a host", [byte].escape_ascii());
        rows.push(match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                Row::clean(rule, "RFC 9110 §7.2", sent, host(&format!("a.exa{}mple", char::from(byte))))
            }
            _ => Row::refused(rule, "RFC 9110 §7.2", sent),
        });
    }
    check_plain("", rows).await;
}
