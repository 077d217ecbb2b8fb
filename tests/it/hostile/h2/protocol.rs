//! Frames and field blocks that break the protocol: an error of the stream or of the connection, and nothing more.

use super::{
    Verdict::{Clean, Connection, Refused, Stream},
    frames::{
        ACK, Block, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, PUSH_PROMISE,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, data, frame, integer, reset, settings, window_update,
    },
    judge, row,
};
use crate::harness::Key;

fn reader() -> Key {
    Key::pair("reader")
}

/// Where frames may not stand.
#[tokio::test]
async fn frames_stand_where_they_belong() {
    let key = reader();
    let head = Block::request("GET", "/").key(&key);
    let good = head.whole(1);
    let then_good = |frames: Vec<u8>| [frames, good.clone()].concat();
    let open = |frames: Vec<u8>| [head.open(1), frames].concat();
    let closed = |frames: Vec<u8>| [head.open(1), reset(1), frames].concat();
    judge(
        vec![
            row("DATA on no stream", "RFC 9113 §6.1", then_good(data(0, b"x")), Connection),
            row("HEADERS on no stream", "RFC 9113 §6.2", then_good(head.whole(0)), Connection),
            row(
                "PRIORITY on no stream",
                "RFC 9113 §6.3",
                then_good(frame(PRIORITY, 0, 0, &[0, 0, 0, 3, 1])),
                Connection,
            ),
            row("RST_STREAM on no stream", "RFC 9113 §6.4", then_good(reset(0)), Connection),
            row("SETTINGS on a stream", "RFC 9113 §6.5", frame(SETTINGS, 0, 1, &[]), Connection),
            row("PING on a stream", "RFC 9113 §6.7", frame(PING, 0, 1, &[0; 8]), Connection),
            row("GOAWAY on a stream", "RFC 9113 §6.8", frame(GOAWAY, 0, 1, &[0; 8]), Connection),
            row(
                "CONTINUATION on no stream",
                "RFC 9113 §6.10",
                frame(CONTINUATION, END_HEADERS, 0, &head.0),
                Connection,
            ),
            row("DATA on an idle stream", "RFC 9113 §5.1", data(1, b"x"), Connection),
            row("RST_STREAM on an idle stream", "RFC 9113 §5.1", reset(1), Connection),
            row("WINDOW_UPDATE on an idle stream", "RFC 9113 §5.1", window_update(1, 1), Connection),
            row("a stream of the other side", "RFC 9113 §5.1.1", head.whole(2), Connection),
            row(
                "a push of the client",
                "RFC 9113 §8.4",
                open(frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], &head.0[..]].concat())),
                Connection,
            ),
            row(
                "a stream below the last",
                "RFC 9113 §5.1.1",
                [Block::request("GET", "/good").key(&key).whole(3), good.clone()].concat(),
                Refused,
            ),
            row("HEADERS behind a reset", "RFC 9113 §5.1", closed(head.whole(1)), Refused),
            row(
                "PRIORITY on an idle stream",
                "RFC 9113 §6.3",
                then_good(frame(PRIORITY, 0, 9, &[0, 0, 0, 3, 1])),
                Clean(|_| true),
            ),
            row(
                "a stream that depends on itself",
                "RFC 9113 §5.3.1",
                open(frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 1])),
                Refused,
            ),
            row(
                "DATA behind a reset",
                "RFC 9113 §5.1",
                [closed(data(1, b"x")), Block::request("GET", "/good").key(&key).whole(3)].concat(),
                Refused,
            ),
            row("a frame of no known kind", "RFC 9113 §4.1", then_good(frame(0xfa, 0xff, 0, b"x")), Clean(|_| true)),
            row(
                "a reserved bit",
                "RFC 9113 §4.1",
                frame(HEADERS, END_HEADERS | END_STREAM, 1 | 1 << 31, &head.0),
                Clean(|_| true),
            ),
            row(
                "flags of no known meaning",
                "RFC 9113 §4.1",
                frame(HEADERS, END_HEADERS | END_STREAM | 0xd2 & !0x28, 1, &head.0),
                Clean(|_| true),
            ),
            row("an answer to no PING", "RFC 9113 §6.7", then_good(frame(PING, ACK, 0, &[7; 8])), Clean(|_| true)),
        ],
        &key,
    )
    .await;
}

/// Lengths and values that frames may not have.
#[tokio::test]
async fn frames_have_the_size_and_the_values_that_they_may() {
    let key = reader();
    let head = Block::request("POST", "/").key(&key.clone().scopes(["read_write"]));
    let good = Block::request("GET", "/").key(&key).whole(1);
    let then_good = |frames: Vec<u8>| [frames, good.clone()].concat();
    let open = |frames: Vec<u8>| [Block::request("GET", "/").key(&key).open(1), frames].concat();
    judge(
        vec![
            row("DATA beyond the largest frame", "RFC 9113 §4.2", open(data(1, &[b'x'; 16_385])), Connection),
            row(
                "HEADERS beyond the largest frame",
                "RFC 9113 §4.2",
                frame(HEADERS, END_HEADERS, 1, &head.clone().field("x-a", vec![b'x'; 16_384]).0),
                Connection,
            ),
            row(
                "a frame of 16 MiB that does not come",
                "RFC 9113 §4.2",
                [0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1].to_vec(),
                Connection,
            ),
            row("a PING of 7 bytes", "RFC 9113 §6.7", frame(PING, 0, 0, &[0; 7]), Connection),
            row("a PING of 9 bytes", "RFC 9113 §6.7", frame(PING, 0, 0, &[0; 9]), Connection),
            row("SETTINGS cut short", "RFC 9113 §6.5", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0]), Connection),
            row(
                "an acknowledgement that says more",
                "RFC 9113 §6.5",
                frame(SETTINGS, ACK, 0, &[0, 3, 0, 0, 0, 1]),
                Connection,
            ),
            row("RST_STREAM of 3 bytes", "RFC 9113 §6.4", open(frame(RST_STREAM, 0, 1, &[0; 3])), Connection),
            row("WINDOW_UPDATE of 3 bytes", "RFC 9113 §6.9", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), Connection),
            row("PRIORITY of 4 bytes", "RFC 9113 §6.3", open(frame(PRIORITY, 0, 1, &[0; 4])), Refused),
            row("GOAWAY of 7 bytes", "RFC 9113 §6.8", frame(GOAWAY, 0, 0, &[0; 7]), Connection),
            row("push switched on and on", "RFC 9113 §6.5.2", settings(&[(2, 2)]), Connection),
            row("a window beyond 2^31", "RFC 9113 §6.5.2", settings(&[(4, 1 << 31)]), Connection),
            row("frames smaller than the smallest", "RFC 9113 §6.5.2", settings(&[(5, 16_383)]), Connection),
            row("frames larger than the largest", "RFC 9113 §6.5.2", settings(&[(5, 1 << 24)]), Connection),
            row(
                "a setting of no known meaning",
                "RFC 9113 §6.5.2",
                then_good(settings(&[(0xfafa, u32::MAX)])),
                Clean(|_| true),
            ),
            row("a table of 4 GiB", "RFC 7541 §4.2", then_good(settings(&[(1, u32::MAX)])), Clean(|_| true)),
            row(
                "a table that comes and goes",
                "CVE-2025-8671",
                then_good(
                    (0..200)
                        .flat_map(|at| settings(&[(1, at % 2 * u32::MAX)]))
                        .collect::<Vec<u8>>()
                        .into_iter()
                        .chain(settings(&[(1, 0)]))
                        .collect(),
                ),
                Clean(|_| true),
            ),
            row("a list of fields of no size", "RFC 9113 §6.5.2", then_good(settings(&[(6, 0)])), Clean(|_| true)),
            row(
                "a window of the connection beyond 2^31",
                "RFC 9113 §6.9.1",
                then_good(window_update(0, 0x7fff_ffff)),
                Connection,
            ),
            row("a window of a stream beyond 2^31", "RFC 9113 §6.9.1", open(window_update(1, 0x7fff_ffff)), Stream),
            row(
                "a window that SETTINGS push beyond 2^31",
                "RFC 9113 §6.9.2",
                open([window_update(1, 0x7fff_0000), settings(&[(4, 0x7fff_ffff)])].concat()),
                Connection,
            ),
            row("a window of the connection wider by 0", "RFC 9113 §6.9", window_update(0, 0), Connection),
            row("a window of a stream wider by 0", "RFC 9113 §6.9", open(window_update(1, 0)), Refused),
        ],
        &key,
    )
    .await;
}

/// Field blocks that cannot be decoded: since both sides keep a table, the connection cannot go on (RFC 9113 §4.3).
#[tokio::test]
async fn field_blocks_that_cannot_be_read_end_the_connection() {
    let key = reader();
    let head = Block::request("GET", "/").key(&key);
    let with = |bytes: &[u8]| head.clone().raw(bytes).whole(1);
    let before = |bytes: &[u8]| Block::default().raw(bytes).raw(&head.0).whole(1);
    // A literal by the name x-a, whose value is these bytes of Huffman's code.
    let huffman =
        |bytes: &[u8]| with(&[&[0, 3], &b"x-a"[..], &[128 | u8::try_from(bytes.len()).unwrap()], bytes].concat());
    judge(
        vec![
            row("the index 0", "RFC 7541 §6.1", with(&[0x80]), Connection),
            row("an index of the empty table", "RFC 7541 §2.3.3", with(&[0x80 | 62]), Connection),
            row(
                "a name by an index of the empty table",
                "RFC 7541 §2.3.3",
                with(&[0x0f, 62 - 15, 1, b'b']),
                Connection,
            ),
            row("an index beyond numbers", "RFC 7541 §5.1", with(&[0xff; 12]), Connection),
            row(
                "an index of endless zeros",
                "RFC 7541 §5.1",
                with(&[&[0xff][..], &[0x80; 64], &[0]].concat()),
                Connection,
            ),
            row(
                "a length beyond numbers",
                "RFC 7541 §5.2",
                with(&[0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
                Connection,
            ),
            row(
                "a string of 4 GiB",
                "RFC 7541 §5.2",
                with(&[&[0][..], &integer(7, 0, u32::MAX as usize), b"x"].concat()),
                Connection,
            ),
            row("a string that does not end", "RFC 7541 §5.2", with(&[0, 10, b'x']), Connection),
            row("a name without a value", "RFC 7541 §6.2", with(&[0, 3, b'x', b'-', b'a']), Connection),
            row("a length that does not end", "RFC 7541 §5.1", with(&[0, 0x7f, 0x80]), Connection),
            row("a table larger than was offered", "RFC 7541 §6.3", before(&integer(5, 0x20, 4097)), Connection),
            row("a table of 4 GiB", "RFC 7541 §6.3", before(&integer(5, 0x20, u32::MAX as usize)), Connection),
            row("a table resized behind a field", "RFC 7541 §4.2", with(&integer(5, 0x20, 0)), Connection),
            row("a table resized twice", "RFC 7541 §4.2", before(&[0x20, 0x3f, 0xe1, 0x1f]), Clean(|_| true)),
            row("Huffman: the mark of the end", "RFC 7541 §5.2", huffman(&[0xff, 0xff, 0xff, 0xff]), Connection),
            row("Huffman: padding of a byte", "RFC 7541 §5.2", huffman(&[0b0001_1111, 0xff]), Connection),
            row("Huffman: padding of zeros", "RFC 7541 §5.2", huffman(&[0b0001_1000]), Connection),
            row("Huffman: nothing but padding", "RFC 7541 §5.2", huffman(&[0xff]), Connection),
            row(
                "Huffman: a line's end",
                "RFC 9113 §8.2.1",
                huffman(&[0xff, 0xff, 0xff, 0xf7, 0xff, 0xff, 0xff, 0xcf]),
                Connection,
            ),
            row(
                "Huffman as it should be",
                "RFC 7541 §5.2",
                huffman(&[0b0001_1111]),
                Clean(|seen| seen.field("x-a") == "a"),
            ),
            row(
                "a literal that is kept",
                "RFC 7541 §6.2.1",
                with(b"\x40\x03x-a\x01b\xbe"),
                Clean(|seen| seen.head.all("x-a") == ["b", "b"]),
            ),
            row(
                "an entry larger than the table",
                "RFC 7541 §4.4",
                with(&[&[0x40, 3], &b"x-a"[..], &integer(7, 0, 5000), &[b'b'; 5000], &[0xbe]].concat()),
                Connection,
            ),
        ],
        &key,
    )
    .await;
}
