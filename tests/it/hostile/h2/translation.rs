//! What HTTP/2 can say and HTTP/1.1 cannot: refused, or one clean message upstream.

use super::{
    Verdict::{Clean, Refused, Stream},
    frames::{Block, data, last_data},
    judge, posted, row, writer,
};

#[tokio::test]
async fn a_length_that_does_not_fit_is_no_message() {
    let key = writer();
    let post = |fields: &[(&str, &str)], body: &[u8]| posted(&key, fields, body);
    let four = last_data(1, b"four");
    let whole = |fields: &[(&str, &str)]| {
        fields
            .iter()
            .fold(Block::request("POST", "/").key(&key), |block, (name, value)| block.field(name, value))
            .whole(1)
    };
    let lengths = "RFC 9113 §8.1.1";
    judge(
        vec![
            row("a body shorter than its length", "CVE-2026-33555", post(&[("content-length", "10")], &four), Stream),
            row("a body longer than its length", lengths, post(&[("content-length", "3")], &four), Stream),
            row("a length of 0 before a body", "H2.CL", post(&[("content-length", "0")], &four), Stream),
            row("a length and no body at all", lengths, whole(&[("content-length", "4")]), Stream),
            row("a body that ends empty", lengths, post(&[("content-length", "4")], &last_data(1, b"")), Stream),
            row(
                "a body that trailers cut short",
                lengths,
                post(
                    &[("content-length", "10")],
                    &[data(1, b"four"), Block::default().field("x-sum", "1").whole(1)].concat(),
                ),
                Stream,
            ),
            row(
                "two lengths that differ",
                "RFC 9110 §8.6",
                post(&[("content-length", "4"), ("content-length", "5")], &four),
                Stream,
            ),
            row(
                "two lengths that differ, the other way",
                "RFC 9110 §8.6",
                post(&[("content-length", "5"), ("content-length", "4")], &four),
                Stream,
            ),
            row("a length with a sign", "RFC 9110 §8.6", post(&[("content-length", "+4")], &four), Stream),
            row("a negative length", "RFC 9110 §8.6", post(&[("content-length", "-4")], &four), Stream),
            row("a length in hex", "RFC 9110 §8.6", post(&[("content-length", "0x4")], &four), Stream),
            row("an empty length", "RFC 9110 §8.6", post(&[("content-length", "")], &four), Stream),
            row(
                "a length beyond numbers",
                "RFC 9110 §8.6",
                post(&[("content-length", "18446744073709551620")], &four),
                Stream,
            ),
            row("a length with a space", "RFC 9110 §8.6", post(&[("content-length", " 4")], &four), Stream),
            row("a list of lengths that differ", "RFC 9110 §8.6", post(&[("content-length", "4, 5")], &four), Stream),
            row(
                "the same length twice",
                "RFC 9110 §8.6",
                post(&[("content-length", "4"), ("content-length", "4")], &four),
                Clean(|seen| seen.field("content-length") == "4" && seen.body == b"four"),
            ),
        ],
        &key,
    )
    .await;
}

/// What belongs to one connection, and what no HTTP/1.1 message could carry (RFC 9113 §8.2).
#[tokio::test]
async fn fields_that_http1_could_not_carry_are_refused() {
    let key = writer();
    let with = |name: &[u8], value: &[u8]| Block::request("GET", "/").key(&key).field(name, value).whole(1);
    let hops = "RFC 9113 §8.2.2";
    let names = "RFC 9113 §8.2.1";
    judge(
        vec![
            row(
                "transfer-encoding: chunked",
                "H2.TE",
                posted(&key, &[("transfer-encoding", "chunked")], &last_data(1, b"0\r\n\r\n")),
                Stream,
            ),
            row("transfer-encoding: identity", "H2.TE", with(b"transfer-encoding", b"identity"), Stream),
            row("transfer-encoding, empty", "H2.TE", with(b"transfer-encoding", b""), Stream),
            row("connection: close", hops, with(b"connection", b"close"), Stream),
            row("connection: x-key-owner", hops, with(b"connection", b"x-key-owner"), Stream),
            row("connection in bytes beyond ASCII", "hyper#4019", with(b"connection", b"\xe9\xff"), Stream),
            row("keep-alive", hops, with(b"keep-alive", b"timeout=5"), Stream),
            row("proxy-connection", hops, with(b"proxy-connection", b"keep-alive"), Stream),
            row("upgrade: h2c", "h2csmuggler", with(b"upgrade", b"h2c"), Stream),
            row("upgrade: websocket", hops, with(b"upgrade", b"websocket"), Stream),
            row("te: gzip", hops, with(b"te", b"gzip"), Stream),
            row("te: trailers, gzip", hops, with(b"te", b"trailers, gzip"), Stream),
            row(
                "te: trailers",
                hops,
                with(b"te", b"trailers"),
                Clean(|seen| !seen.has("te") || seen.field("te") == "trailers"),
            ),
            row(
                "http2-settings",
                "RFC 9113 §3.1",
                with(b"http2-settings", b"AAMAAABkAAQAAP__"),
                Clean(|seen| !seen.has("http2-settings")),
            ),
            row("a line feed in a value", "RFC 9113 §8.2.1", with(b"x-a", b"b\nx-key-owner: boss"), Refused),
            row("a line's end in a value", names, with(b"x-a", b"b\r\n\r\nGET /hidden HTTP/1.1"), Refused),
            row("a carriage return in a value", names, with(b"x-a", b"b\rc"), Refused),
            row("a zero byte in a value", names, with(b"x-a", b"b\0c"), Refused),
            row("a control byte in a value", names, with(b"x-a", b"b\x1bc"), Refused),
            row("a deleted byte in a value", names, with(b"x-a", b"b\x7fc"), Refused),
            row("a space before a value", names, with(b"x-a", b" b"), Stream),
            row("a tab behind a value", names, with(b"x-a", b"b\t"), Stream),
            row(
                "a space before a credential",
                names,
                Block::request("GET", "/").field("authorization", format!(" {}", key.authorization())).whole(1),
                Stream,
            ),
            row("a line's end in a name", names, with(b"x-a: b\r\nx-key-owner", b"boss"), Refused),
            row("a colon in a name", names, with(b"x-key-owner:boss", b"b"), Refused),
            row("a space in a name", names, with(b"x a", b"b"), Refused),
            row("a space behind a name", names, with(b"content-length ", b"4"), Refused),
            row("a zero byte in a name", names, with(b"x-a\0", b"b"), Refused),
            row("bytes beyond ASCII in a name", names, with(b"x-\xc3\xa9", b"b"), Refused),
            row("a name in upper case", names, with(b"X-Key-Owner", b"boss"), Refused),
            row("one letter in upper case", names, with(b"content-Length", b"4"), Refused),
            row("an empty name", "CVE-2023-25725", with(b"", b"b"), Refused),
            row("an underscore in a name", "CVE-2025-64484", with(b"x_key_owner", b"boss"), Stream),
            row("a dot in a name", "CVE-2025-64484", with(b"x.key.owner", b"boss"), Stream),
            row("a brace in a name", names, with(b"x{a", b"b"), Refused),
            row(
                "our own name",
                "CVE-2026-33433",
                with(b"x-key-owner", b"boss"),
                Clean(|seen| seen.field("x-key-owner") == "acme"),
            ),
            row(
                "our own name in bytes beyond ASCII",
                "RFC 9110 §5.5",
                with(b"x-key-owner", b"\xff"),
                Clean(|seen| seen.field("x-key-owner") == "acme"),
            ),
            row(
                "crumbs of a cookie",
                "RFC 9113 §8.2.3",
                Block::request("GET", "/")
                    .key(&key)
                    .field("cookie", "a=1")
                    .field("x-a", "b")
                    .field("cookie", "b=2")
                    .whole(1),
                Clean(|seen| seen.head.all("cookie") == ["a=1; b=2"]),
            ),
            row(
                "crumbs that would end a line",
                "RFC 9113 §8.2.3",
                Block::request("GET", "/").key(&key).field("cookie", "a=1").field("cookie", "b\r\nx-a: b").whole(1),
                Refused,
            ),
            row("two credentials", "RFC 9110 §11.6.2", with(b"authorization", key.authorization().as_bytes()), Stream),
            row(
                "a credential between others' fields",
                "RFC 9110 §11.6.2",
                Block::request("GET", "/").field("authorization", "Bearer x").field("x-a", "b").key(&key).whole(1),
                Stream,
            ),
            row(
                "two hosts",
                "RFC 9110 §7.2",
                Block::request("GET", "/")
                    .key(&key)
                    .field("host", "api.example.com")
                    .field("host", "api.example.com")
                    .whole(1),
                Stream,
            ),
            row("a host that is not the authority", "RFC 9113 §8.3.1", with(b"host", b"evil.example"), Stream),
            row(
                "a host that is the authority",
                "RFC 9113 §8.3.1",
                with(b"host", b"API.example.com:443"),
                Clean(|seen| seen.head.all("host").len() == 1),
            ),
            row(
                "an expectation",
                "RFC 9110 §10.1.1",
                posted(&key, &[("expect", "100-continue")], &last_data(1, b"four")),
                Clean(|seen| seen.body == b"four" && !seen.has("expect")),
            ),
        ],
        &key,
    )
    .await;
}

/// The fields that stand in for a request line (RFC 9113 §8.3).
#[tokio::test]
async fn a_request_line_in_fields_is_whole_and_unambiguous() {
    let key = writer();
    let pseudo = "RFC 9113 §8.3";
    let line = "RFC 9113 §8.3.1";
    let block = |fields: &[(&str, &str)]| {
        fields.iter().fold(Block::default(), |block, (name, value)| block.field(name, value)).key(&key).whole(1)
    };
    let method = |method: &str| Block::request(method, "/").key(&key).whole(1);
    let path = |path: &str| Block::request("GET", path).key(&key).whole(1);
    let scheme = |scheme: &str| {
        block(&[(":method", "GET"), (":scheme", scheme), (":authority", "api.example.com"), (":path", "/")])
    };
    let authority =
        |authority: &str| block(&[(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", "/")]);
    let behind = |name: &str, value: &str| Block::request("GET", "/").key(&key).field(name, value).whole(1);
    let twice = |name: &str, value: &str| {
        Block::default().field(name, value).raw(&Block::request("GET", "/").0).key(&key).whole(1)
    };
    judge(
        vec![
            row("no method", line, block(&[(":scheme", "https"), (":authority", "a"), (":path", "/")]), Refused),
            row("no scheme", line, block(&[(":method", "GET"), (":authority", "a"), (":path", "/")]), Refused),
            row("no path", line, block(&[(":method", "GET"), (":scheme", "https"), (":authority", "a")]), Refused),
            row("no authority", line, block(&[(":method", "GET"), (":scheme", "https"), (":path", "/")]), Refused),
            row(
                "no authority but a host",
                line,
                block(&[(":method", "GET"), (":scheme", "https"), (":path", "/"), ("host", "api.example.com")]),
                Clean(|seen| seen.field("host") == "api.example.com"),
            ),
            row("nothing at all", pseudo, Block::default().whole(1), Refused),
            row("a credential alone", pseudo, block(&[]), Refused),
            row("the method twice", pseudo, twice(":method", "POST"), Refused),
            row("the same method twice", pseudo, twice(":method", "GET"), Refused),
            row("the path twice", pseudo, twice(":path", "/admin"), Refused),
            row("the authority twice", pseudo, twice(":authority", "evil.example"), Refused),
            row("the scheme twice", pseudo, twice(":scheme", "http"), Refused),
            row("a method behind the fields", pseudo, behind(":method", "DELETE"), Refused),
            row("a path behind the fields", pseudo, behind(":path", "/admin"), Refused),
            row("an authority behind the fields", pseudo, behind(":authority", "evil.example"), Refused),
            row("a status", pseudo, twice(":status", "200"), Refused),
            row("an unknown one", pseudo, twice(":x-key-owner", "boss"), Refused),
            row("one without a name", pseudo, twice(":", "b"), Refused),
            row("one in upper case", pseudo, twice(":Path", "/admin"), Refused),
            row("an empty method", line, method(""), Refused),
            row("a method with a space", "CVE-2021-33193", method("GET /admin HTTP/1.1\r\nx-a:"), Refused),
            row("a method in lower case", "RFC 9110 §9.1", method("get"), Stream),
            row("CONNECT with a path", "RFC 9113 §8.5", method("CONNECT"), Refused),
            row(
                "CONNECT",
                "RFC 9113 §8.5",
                block(&[(":method", "CONNECT"), (":authority", "api.example.com:443")]),
                Stream,
            ),
            row(
                "CONNECT with a body",
                "RFC 9113 §8.5",
                [
                    Block::default()
                        .field(":method", "CONNECT")
                        .field(":authority", "api.example.com:443")
                        .key(&key)
                        .open(1),
                    last_data(1, b"GET /hidden HTTP/1.1\r\n\r\n"),
                ]
                .concat(),
                Stream,
            ),
            row(
                "extended CONNECT",
                "RFC 8441 §3",
                block(&[
                    (":method", "CONNECT"),
                    (":protocol", "websocket"),
                    (":scheme", "https"),
                    (":authority", "api.example.com"),
                    (":path", "/"),
                ]),
                Refused,
            ),
            row("a protocol without CONNECT", "RFC 8441 §4", twice(":protocol", "websocket"), Refused),
            row("TRACE", "RFC 9110 §9.3.8", method("TRACE"), Stream),
            row("PRI", "RFC 9113 §11.6", method("PRI"), Stream),
            row("an empty path", line, path(""), Refused),
            row("a path without a slash", line, path("admin"), Refused),
            row("a path that is a URL", line, path("https://evil.example/admin"), Refused),
            row("a path that begins like an authority", line, path("//evil.example/admin"), Refused),
            row("an asterisk", line, path("*"), Refused),
            row("OPTIONS of an asterisk", line, Block::request("OPTIONS", "*").key(&key).whole(1), Refused),
            row(
                "a path with a fragment",
                "GHSA-fvhj-4qfh-q2hm",
                path("/a#/../admin"),
                Clean(|seen| seen.target() == "/a"),
            ),
            row("a path with a space", line, path("/ HTTP/1.1\r\nx-key-owner: boss"), Refused),
            row("a path with one space", line, path("/a b"), Refused),
            row("a path with a line feed", line, path("/\nx-a: b"), Refused),
            row("a path with a zero byte", line, path("/a\0b"), Refused),
            row("a path with a tab", line, path("/a\tb"), Refused),
            row("a path with bytes beyond ASCII", line, path("/\u{e9}"), Refused),
            row("a path with dot segments", "CVE-2019-9901", path("/a/../admin"), Refused),
            row("a path with an escaped slash", "CVE-2021-29492", path("/a%2f..%2fadmin"), Refused),
            row("a scheme of another protocol", line, scheme("ftp"), Refused),
            row("an empty scheme", line, scheme(""), Refused),
            row("a scheme with a path", "CVE-2021-39240", scheme("https://evil.example/admin?"), Refused),
            row("a scheme with a line's end", line, scheme("https\r\nx-a: b"), Refused),
            row("http over TLS", line, scheme("http"), Clean(|seen| seen.field("x-forwarded-proto") == "https")),
            row("an authority with a user", "RFC 9113 §8.3.1", authority("boss@api.example.com"), Refused),
            row("an authority with a path", line, authority("api.example.com/admin"), Refused),
            row("an authority with a space", line, authority("api.example.com x"), Refused),
            row("an authority with a line's end", line, authority("a\r\nx-key-owner: boss"), Refused),
            row("an empty authority", line, authority(""), Refused),
            row("an authority without a host", line, authority(":443"), Refused),
            row("a list of authorities", line, authority("api.example.com,evil.example"), Refused),
        ],
        &key,
    )
    .await;
}
