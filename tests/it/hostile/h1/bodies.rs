//! Bodies where none is usual, behind refusals, and behind `Expect`: never read as the next request.

use super::{Clean, Row, Verdict, check, head, hidden, key};

/// A request with a body, in each framing, as (what, bytes).
fn framed(head: &str, body: &str) -> [(&'static str, String); 3] {
    let with = |fields: &str, body: String| format!("{}{fields}\r\n\r\n{body}", head.strip_suffix("\r\n").unwrap());
    [
        ("with a length", with(&format!("Content-Length: {}", body.len()), body.into())),
        ("in a chunk", with("Transfer-Encoding: chunked", format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()))),
        (
            "in chunks of a byte",
            with(
                "Transfer-Encoding: chunked",
                body.bytes().map(|byte| format!("1\r\n{}\r\n", char::from(byte))).collect::<String>() + "0\r\n\r\n",
            ),
        ),
    ]
}

/// A method does not say whether there is a body; its framing does.
#[tokio::test]
async fn a_body_belongs_to_its_request_whatever_the_method() {
    let hidden = hidden();
    let mut rows = Vec::new();
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "POST", "PUT", "PATCH"] {
        for (how, bytes) in framed(&head(&format!("{method} /"), ""), &hidden) {
            let source = "RFC 9110 §9.3.1, CVE-2025-4366 (CL.0, TE.0)";
            rows.push(Row::clean(
                format!("a body {how} of {method}"),
                source,
                bytes,
                Clean::new(method, "/").body(&hidden),
            ));
        }
        let none = format!("{}{hidden}", head(&format!("{method} /"), "Content-Length: 0"));
        rows.push(Row::new(
            format!("a request behind an empty body of {method}"),
            "RFC 9112 §9.3.2",
            none,
            // Two requests, both with a key: the second one is not hidden from anybody.
            Verdict::Two(Clean::new(method, "/"), Clean::new("GET", "/hidden")),
        ));
    }
    check("", rows).await;
}

/// Whatever a request is refused for, its body is read past or the connection ends.
#[tokio::test]
async fn a_refused_body_is_never_a_request() {
    let config = r#"
        [[route]]
        path = "/small"
        max_body = "100B"
        [[route]]
        path = "/managed/**"
        capability = "manage"
        [[route]]
        path = "/next"
        [[route]]
        path = "/"
    "#;
    let hidden = hidden();
    let by = |line: &str, authorization: String| {
        let fields =
            if authorization.is_empty() { authorization } else { format!("Authorization: {authorization}\r\n") };
        format!("{line} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
    };
    let wrong = key("writer").secret("cs_wrong").authorization();
    let writer = key("writer").authorization();
    let reader = key("reader").authorization();
    let cases: [(&str, String, &'static [u16]); 13] = [
        ("without a key", by("POST /", String::new()), &[401]),
        ("without a key, of GET", by("GET /", String::new()), &[401]),
        ("without a key, of HEAD", by("HEAD /", String::new()), &[401]),
        ("without a key, of OPTIONS", by("OPTIONS /", String::new()), &[401]),
        ("without a key, of DELETE", by("DELETE /", String::new()), &[401]),
        ("with a wrong secret", by("POST /", wrong), &[401]),
        ("that is no credential", by("POST /", "Basic ?".into()), &[401]),
        ("beyond the scope", by("POST /", reader), &[403]),
        ("without the capability", by("POST /managed/x", writer.clone()), &[403]),
        ("that matches no route", by("POST /elsewhere", writer.clone()), &[403]),
        ("of an unknown method", by("PURGE /", writer.clone()), &[405]),
        ("too large", by("POST /small", writer.clone()), &[413]),
        ("with an unclear path", by("POST /a/../b", writer), &[400]),
    ];
    let mut rows = Vec::new();
    for (rule, head, statuses) in cases {
        for expect in ["", "Expect: 100-continue\r\n"] {
            let head = head.replacen("\r\n\r\n", &format!("\r\n{expect}\r\n"), 1);
            for (how, bytes) in framed(&head, &hidden) {
                let rule = format!("a body {how}, {rule}, {expect:?}");
                rows.push(Row::new(rule, "RFC 9112 §9.3, CVE-2025-4366", bytes, Verdict::Refused(statuses)));
            }
        }
    }
    check(config, rows).await;
}

/// A key that has used up its allowance: 429, and the same.
#[tokio::test]
async fn a_body_beyond_the_limit_is_never_a_request() {
    let hidden = hidden();
    let head =
        format!("POST / HTTP/1.1\r\nHost: a.example\r\nAuthorization: {}\r\n\r\n", key("limited").authorization());
    let mut rows = vec![Row::clean(
        "the one that is allowed",
        "RFC 6585 §4",
        head.clone(),
        Clean::new("POST", "/").key("limited"),
    )];
    for (how, bytes) in framed(&head, &hidden) {
        rows.push(Row::new(format!("a body {how}"), "RFC 6585 §4, RFC 9112 §9.3", bytes, Verdict::Refused(&[429])));
    }
    check("", rows).await;
}

/// `Expect` is answered by us or not at all, and goes no further.
#[tokio::test]
async fn expectations_end_here() {
    let hidden = hidden();
    let source = "RFC 9110 §10.1.1, Expect desync (2025)";
    let mut rows = Vec::new();
    for expectation in [
        "100-continue",
        "100-Continue",
        "100-CONTINUE",
        "100-continue, 100-continue",
        "100-continue,x",
        "x, 100-continue",
        "100-continue;a=b",
        "y 100-continue",
        "100-continue y",
        "\"100-continue\"",
        "100 continue",
        "100",
        "101-continue",
        "200-ok",
        "",
        "x",
        "100-continue\t",
        "\u{e9}",
        "100-continue\r\nExpect: 100-continue",
        "100-continue\r\nExpect: x",
        "x\r\nExpect: 100-continue",
    ] {
        for (name, place) in [("Expect", "first"), ("eXPECT", "last")] {
            for (how, bytes) in framed(&head("POST /", "X-A: b"), &hidden) {
                let at = if place == "first" { "Host: a.example\r\n" } else { "X-A: b\r\n" };
                let bytes = bytes.replacen(at, &format!("{at}{name}: {expectation}\r\n"), 1);
                let clean = Clean::new("POST", "/").field("x-a", "b").body(&hidden);
                rows.push(Row::new(
                    format!("{name}: {expectation:?}, a body {how}"),
                    source,
                    bytes,
                    Verdict::Unexpected(clean),
                ));
            }
        }
        for method in ["GET", "HEAD", "OPTIONS"] {
            let bytes = head(&format!("{method} /"), &format!("Expect: {expectation}"));
            let rule = format!("{expectation:?} without a body, {method}");
            rows.push(Row::new(rule, source, bytes, Verdict::Unexpected(Clean::new(method, "/"))));
        }
        let old =
            head("POST /", &format!("Expect: {expectation}\r\nContent-Length: 4")).replace("HTTP/1.1", "HTTP/1.0");
        let rule = format!("{expectation:?} in HTTP/1.0");
        rows.push(Row::new(
            rule,
            "RFC 9110 §10.1.1",
            format!("{old}body"),
            Verdict::Unexpected(Clean::new("POST", "/").body("body").closes()),
        ));
    }
    for (rule, fields) in [
        ("a name with a space", "Expect : 100-continue"),
        ("a folded value", "Expect:\r\n 100-continue"),
        ("a name behind a space", "X-A: b\r\n Expect: 100-continue"),
        ("a bare carriage return", "Expect: 100-continue\r"),
        ("a NUL", "Expect: 100-continue\0"),
        ("a vertical tab", "Expect: \u{b}100-continue"),
    ] {
        for (how, bytes) in framed(&head("POST /", fields), &hidden) {
            rows.push(Row::refused(format!("{rule}, a body {how}"), source, bytes));
        }
    }
    check("", rows).await;
}
