//! Frames of bodies and trailers: in whatever order they come, they are one message or none.

use super::{
    Verdict::{Clean, Connection, Refused, Stream},
    frames::{
        Block, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Outcome, PADDED, PING, Peer, RST_STREAM,
        WITH_PRIORITY, data, frame, last_data,
    },
    in_front, judge, posted, row, writer,
};
use crate::harness::{End, get};

/// Bodies and trailers in every order of frames.
#[tokio::test]
async fn frames_of_a_body_make_one_message_or_none() {
    let key = writer();
    let post = |body: &[Vec<u8>]| posted(&key, &[], &body.concat());
    let get = |flags: u8, block: &Block| frame(HEADERS, flags | END_HEADERS, 1, &block.0);
    let head = Block::request("GET", "/").key(&key);
    let trailers = |block: Block| post(&[data(1, b"four"), block.whole(1)]);
    let padded =
        |kind: u8, flags: u8, pad: u8, payload: &[u8]| frame(kind, flags | PADDED, 1, &[&[pad], payload].concat());
    let split = |at: usize| {
        [frame(HEADERS, END_STREAM, 1, &head.0[..at]), frame(CONTINUATION, END_HEADERS, 1, &head.0[at..])].concat()
    };
    let many: Vec<u8> = head
        .0
        .iter()
        .enumerate()
        .flat_map(|(at, byte)| match at {
            0 => frame(HEADERS, END_STREAM, 1, &[*byte]),
            _ => frame(CONTINUATION, if at + 1 == head.0.len() { END_HEADERS } else { 0 }, 1, &[*byte]),
        })
        .collect();
    judge(
        vec![
            row(
                "a body in pieces",
                "RFC 9113 §6.1",
                post(&[data(1, b"fo"), data(1, b""), data(1, b"ur"), last_data(1, b"")]),
                Clean(|seen| seen.body == b"four"),
            ),
            row(
                "a body on a GET",
                "RFC 9110 §9.3.1",
                [head.open(1), last_data(1, b"GET /hidden HTTP/1.1\r\n\r\n")].concat(),
                Clean(|seen| {
                    seen.body.starts_with(b"GET /hidden")
                        && (seen.has("transfer-encoding") ^ seen.has("content-length"))
                }),
            ),
            row(
                "a GET that ends by an empty frame",
                "RFC 9113 §8.1",
                [head.open(1), last_data(1, b"")].concat(),
                Clean(|seen| seen.body.is_empty()),
            ),
            row(
                "a body that looks like chunks",
                "H2.TE",
                post(&[last_data(1, b"0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n")]),
                Clean(|seen| seen.body.ends_with(b"Host: a\r\n\r\n")),
            ),
            row(
                "a length and a body in pieces",
                "RFC 9113 §8.1.1",
                posted(&key, &[("content-length", "4")], &[data(1, b"fo"), last_data(1, b"ur")].concat()),
                Clean(|seen| {
                    seen.body == b"four" && seen.field("content-length") == "4" && !seen.has("transfer-encoding")
                }),
            ),
            row(
                "padding",
                "RFC 9113 §6.1",
                post(&[padded(DATA, END_STREAM, 3, b"four\0\0\0")]),
                Clean(|seen| seen.body == b"four"),
            ),
            row(
                "padding of the whole frame",
                "RFC 9113 §6.1",
                post(&[padded(DATA, END_STREAM, 5, b"four")]),
                Connection,
            ),
            row(
                "padding and nothing else",
                "RFC 9113 §6.1",
                post(&[padded(DATA, 0, 4, b"\0\0\0\0"), last_data(1, b"four")]),
                Clean(|seen| seen.body == b"four"),
            ),
            row(
                "padding without its length",
                "RFC 9113 §6.1",
                post(&[frame(DATA, PADDED | END_STREAM, 1, b"")]),
                Connection,
            ),
            row(
                "padding does not count as body",
                "RFC 9113 §8.1.1",
                posted(&key, &[("content-length", "7")], &padded(DATA, END_STREAM, 3, b"four\0\0\0")),
                Stream,
            ),
            row(
                "a padded head",
                "RFC 9113 §6.2",
                padded(HEADERS, END_HEADERS | END_STREAM, 2, &[&head.0[..], b"\0\0"].concat()),
                Clean(|_| true),
            ),
            row(
                "a head padded beyond its end",
                "RFC 9113 §6.2",
                padded(HEADERS, END_HEADERS | END_STREAM, 255, &head.0[..20]),
                Connection,
            ),
            row(
                "a head with a priority",
                "RFC 9113 §6.2",
                get(END_STREAM | WITH_PRIORITY, &Block(vec![0, 0, 0, 0, 16]).raw(&head.0)),
                Clean(|_| true),
            ),
            row(
                "a head that depends on itself",
                "RFC 9113 §5.3.1",
                get(END_STREAM | WITH_PRIORITY, &Block(vec![0, 0, 0, 1, 16]).raw(&head.0)),
                Refused,
            ),
            row(
                "a head cut before its priority",
                "RFC 9113 §6.2",
                get(END_STREAM | WITH_PRIORITY, &Block(vec![0, 0])),
                Connection,
            ),
            row("a head in two frames", "RFC 9113 §6.10", split(40), Clean(|_| true)),
            row("a head of which the first frame is empty", "RFC 9113 §6.10", split(0), Clean(|_| true)),
            row("a head in a frame per byte", "CVE-2024-27316", many, Connection),
            row(
                "a frame between head and continuation",
                "RFC 9113 §6.10",
                [
                    frame(HEADERS, END_STREAM, 1, &head.0[..40]),
                    frame(PING, 0, 0, &[0; 8]),
                    frame(CONTINUATION, END_HEADERS, 1, &head.0[40..]),
                ]
                .concat(),
                Connection,
            ),
            row(
                "a continuation of another stream",
                "RFC 9113 §6.10",
                [frame(HEADERS, END_STREAM, 1, &head.0[..40]), frame(CONTINUATION, END_HEADERS, 3, &head.0[40..])]
                    .concat(),
                Connection,
            ),
            row(
                "a continuation of nothing",
                "RFC 9113 §6.10",
                frame(CONTINUATION, END_HEADERS, 1, &head.0),
                Connection,
            ),
            row(
                "a continuation behind a whole head",
                "RFC 9113 §6.10",
                [head.open(1), frame(CONTINUATION, END_HEADERS, 1, &Block::default().field("x-key-owner", "boss").0)]
                    .concat(),
                Connection,
            ),
            row(
                "trailers",
                "RFC 9110 §6.5.1",
                trailers(Block::default().field("x-sum", "1")),
                Clean(|seen| seen.body == b"four" && !seen.trailers.iter().any(|(name, _)| name != "x-sum")),
            ),
            row(
                "trailers with our names",
                "RFC 9110 §6.5.1",
                trailers(
                    Block::default()
                        .field("x-key-owner", "boss")
                        .field("x-sum", "1")
                        .field("authorization", "x")
                        .field("content-length", "9")
                        .field("host", "evil.example"),
                ),
                Clean(|seen| {
                    seen.field("x-key-owner") == "acme" && !seen.trailers.iter().any(|(name, _)| name != "x-sum")
                }),
            ),
            row(
                "trailers with a method",
                "RFC 9113 §8.1",
                trailers(Block::default().field(":method", "DELETE").field("x-sum", "1")),
                // The library drops them without a word; what arrives is the first head's.
                Clean(|seen| seen.head.line() == "POST / HTTP/1.1" && seen.body == b"four"),
            ),
            row(
                "trailers with a path behind a field",
                "RFC 9113 §8.1",
                trailers(Block::default().field("x-sum", "1").field(":path", "/admin")),
                Refused,
            ),
            row(
                "trailers with a hop's field",
                "RFC 9113 §8.2.2",
                trailers(Block::default().field("transfer-encoding", "chunked")),
                Refused,
            ),
            row(
                "trailers that do not end the stream",
                "RFC 9113 §8.1",
                post(&[data(1, b"four"), Block::default().field("x-sum", "1").open(1), last_data(1, b"more")]),
                Refused,
            ),
            row(
                "trailers in upper case",
                "RFC 9113 §8.2.1",
                trailers(Block::default().field("X-Key-Owner", "boss")),
                Refused,
            ),
            row(
                "a second head",
                "RFC 9113 §8.1",
                [head.open(1), Block::request("DELETE", "/hidden").key(&key).whole(1)].concat(),
                Clean(|seen| seen.head.line() == "GET / HTTP/1.1" && seen.trailers.is_empty()),
            ),
            row(
                "DATA behind the end",
                "RFC 9113 §5.1",
                [Block::request("POST", "/").key(&key).open(1), last_data(1, b"four"), data(1, b"more")].concat(),
                Refused,
            ),
        ],
        &key,
    )
    .await;
}

/// However an upload is cut, the upstream never has a whole one (RFC 9113 §8.1.1).
#[tokio::test]
async fn an_upload_that_is_cut_is_never_whole() {
    let key = writer();
    let (upstream, sidecar) = in_front(&key, |sidecar| sidecar).await;
    let code = |code: u32| frame(RST_STREAM, 0, 1, &code.to_be_bytes());
    let goodbye = frame(GOAWAY, 0, 0, &[0; 8]);
    let cuts = [
        ("reset: CANCEL", code(8)),
        ("reset: NO_ERROR", code(0)),
        ("reset: PROTOCOL_ERROR", code(1)),
        ("an end of the connection", Vec::new()),
        ("a goodbye and an end", goodbye),
        ("a broken frame", frame(PING, 0, 0, b"x")),
        ("a frame that does not end", vec![0, 0, 9, DATA, END_STREAM, 0, 0, 0, 1, b'x']),
        ("a body over its length", last_data(1, b"and more than was said")),
        ("trailers before its end", Block::default().field("x-sum", "1").whole(1)),
    ];
    for (cut, bytes) in &cuts {
        for fields in [&[][..], &[("content-length", "20")]] {
            // Without a length, trailers end a body as they should, and so does a last frame.
            if fields.is_empty() && matches!(*cut, "a body over its length" | "trailers before its end") {
                continue;
            }
            let number = upstream.count() + 1;
            let mut peer = Peer::new(&sidecar).await;
            peer.write(posted(&key, fields, &data(1, b"begun"))).await;
            upstream.until("what was begun", |seen| seen.len() == number && seen[number - 1].body == b"begun").await;
            peer.write(bytes).await;
            if cut.contains("end") {
                drop(peer);
            }
            let seen = upstream.until("the cut", |seen| seen[number - 1].end != End::Arriving).await;
            let seen = &seen[number - 1];
            assert_eq!(seen.end, End::Broken, "{cut} {fields:?}");
            assert!(!seen.raw_body.ends_with(b"0\r\n\r\n"), "{cut} {fields:?}");
        }
    }
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    // No answer of a cut exchange is given to anybody else.
    assert_eq!(
        Peer::new(&sidecar).await.ask(1, Block::request("GET", "/").key(&key).whole(1)).await,
        Outcome::Answer(200)
    );
}
