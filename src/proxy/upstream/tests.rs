//! Answers as bytes, over a real socket: however they are cut into pieces, they are read in one way or not at all.

use std::{cell::RefCell, future::poll_fn, rc::Rc};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use super::{
    answer::{AnswerError, Asked, HeadReader},
    connect::UpstreamStream,
    outflow::{Outflow, OutflowError, RequestFraming},
    wire::Wire,
};
use crate::proxy::body::RequestBody;

const GET: Asked = Asked { head: false };
const HEAD: Asked = Asked { head: true };

/// An answer, read to its end.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    status: StatusCode,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// Whether another request may follow.
    kept: bool,
}

fn pair() -> (Wire, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Wire::new(UpstreamStream::Unix(ours)), theirs)
}

async fn read(wire: &mut Wire, asked: Asked) -> Result<Read, AnswerError> {
    let mut reader = HeadReader::default();
    let answer = poll_fn(|cx| reader.poll(wire, asked, cx)).await?;
    let (status, mut download) = (answer.status, answer.body);
    let (mut body, mut trailers) = (Vec::new(), None);
    while !download.is_end_stream() {
        let Some(frame) = poll_fn(|cx| download.poll_frame(wire, cx)).await else { break };
        match frame?.into_data() {
            Ok(piece) => {
                assert!(!piece.is_empty(), "an empty piece");
                body.extend_from_slice(&piece);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let kept = download.leaves_connection() && wire.is_quiet();
    Ok(Read { status, body, trailers, kept })
}

/// Reads the bytes as they come in two pieces, after which the upstream closes.
async fn read_cut(bytes: &[u8], at: usize, asked: Asked) -> Result<Read, AnswerError> {
    let (mut wire, mut upstream) = pair();
    let (first, second) = bytes.split_at(at);
    upstream.write_all(first).await.unwrap();
    let write = async {
        // The first piece has been read before the second one is written.
        tokio::task::yield_now().await;
        upstream.write_all(second).await.unwrap();
        drop(upstream);
    };
    tokio::join!(read(&mut wire, asked), write).0
}

#[track_caller]
fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn check(bytes: &str, asked: Asked, body: &str, kept: bool) {
    for at in 0..=bytes.len() {
        let read = run(read_cut(bytes.as_bytes(), at, asked)).unwrap_or_else(|error| panic!("{bytes:?} {at}: {error}"));
        assert_eq!(String::from_utf8_lossy(&read.body), body, "{bytes:?} cut at {at}");
        assert_eq!(read.kept, kept, "{bytes:?} cut at {at}");
    }
}

#[test]
fn each_framing_is_read_to_its_end() {
    check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", GET, "hello", true);
    check("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", GET, "", true);
    check("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nok", GET, "ok", true);
    check("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", GET, "ok", true);
    check("HTTP/1.1 200 OK\r\n\r\nall of it", GET, "all of it", false);
    check("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", GET, "ok", false);
    check("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", GET, "ok", true);
    check("HTTP/1.1 200 OK\r\nConnection: x, close\r\nContent-Length: 2\r\n\r\nok", GET, "ok", false);
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", GET, "ok", true);
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n00A \t;x\r\n, world 12\r\n0;z\r\n\r\n";
    check(chunks, GET, "hello, world 12", true);
}

/// Also where it comes all at once.
#[test]
fn a_trailer_section_has_a_bound() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    for (length, fits) in [(16 << 10, false), ((16 << 10) - 100, true)] {
        let bytes = format!("{head}X-A: {}\r\n\r\n", "x".repeat(length));
        for at in [0, head.len(), bytes.len() / 2, bytes.len()] {
            let read = run(read_cut(bytes.as_bytes(), at, GET));
            assert_eq!(read.is_ok(), fits, "{length} cut at {at}: {:?}", read.err());
        }
    }
}

#[test]
fn answers_without_a_body_have_none() {
    for status in ["204 No Content", "304 Not Modified"] {
        check(&format!("HTTP/1.1 {status}\r\n\r\n"), GET, "", true);
        check(&format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"), GET, "", true);
        // The body that is spoken of may come all the same.
        check(&format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n"), GET, "", false);
        check(&format!("HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n"), GET, "", false);
    }
    check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", HEAD, "", false);
    check("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", HEAD, "", false);
    check("HTTP/1.1 200 OK\r\n\r\n", HEAD, "", false);
}

#[test]
fn interim_answers_are_passed_over() {
    check(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        GET,
        "ok",
        true,
    );
    let endless = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
    assert!(matches!(run(read_cut(endless.as_bytes(), 0, GET)), Err(AnswerError::Malformed(_))));
}

/// What comes behind an answer was not asked for: the connection is not used again.
#[test]
fn nothing_may_follow_an_answer() {
    let more = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n";
    assert!(!run(read_cut(more.as_bytes(), more.len(), GET)).unwrap().kept);
    let no_content = "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok";
    assert!(!run(read_cut(no_content.as_bytes(), no_content.len(), GET)).unwrap().kept);
    // A length beside a coding is believed of nobody (RFC 9112 §6.3).
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let read = run(read_cut(both.as_bytes(), both.len(), GET)).unwrap();
    assert_eq!((read.body.as_slice(), read.kept), (b"ok".as_slice(), false));
}

#[test]
fn trailers_are_read() {
    let bytes = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n";
    for at in 0..=bytes.len() {
        let read = run(read_cut(bytes.as_bytes(), at, GET)).unwrap();
        let trailers = read.trailers.unwrap();
        assert_eq!(
            (&trailers["x-a"], &trailers["x-b"], read.kept),
            (&"1".parse().unwrap(), &"2".parse().unwrap(), true)
        );
    }
}

/// Cut anywhere, no answer that says where it ends looks whole.
#[test]
fn half_an_answer_is_never_whole() {
    for bytes in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-A: 1\r\n\r\n",
    ] {
        for end in 0..bytes.len() {
            let read = run(read_cut(&bytes.as_bytes()[..end], end, GET));
            assert!(matches!(read, Err(AnswerError::Ended)), "{end}: {read:?}");
        }
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_no_answer() {
    let long_line =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;{}\r\nok\r\n0\r\n\r\n", "x".repeat(9000));
    let chunked = |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let lengthy = |length: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nok");
    let mut bad = vec![
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok".to_owned(),
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "HTTP/2.0 200 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 20 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX : 1\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX: 1\r\n folded\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX: \0\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: 1\r\n".repeat(101)),
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "1".repeat(1 << 17)),
        long_line,
    ];
    bad.extend(["+2", "-2", "2 2", "0x2", "", "2,", "2, 3", "99999999999999999999", "２"].map(lengthy));
    let sizes = [
        "g\r\n",
        "+2\r\nok\r\n",
        "0x2\r\nok\r\n",
        " 2\r\nok\r\n",
        "2 2\r\nok\r\n",
        "\r\n",
        ";a\r\n",
        "2\nok\n",
        "2\r\nokk\r\n",
        "2\r\nok0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "2;a\rb\r\nok\r\n",
    ];
    bad.extend(sizes.map(|body| chunked(&format!("{body}0\r\n\r\n"))));
    bad.extend(["0\r\nX : 1\r\n\r\n", "0\r\nno field\r\n\r\n"].map(chunked));
    for bytes in bad {
        let read = run(read_cut(bytes.as_bytes(), 0, GET));
        assert!(matches!(read, Err(AnswerError::Malformed(_))), "{bytes:.200?}: {read:?}");
    }
}

/// A large answer comes in large pieces that are not copied, and the buffer is small again afterwards.
#[test]
fn large_answers_are_read_in_large_pieces() {
    run(async {
        const BYTES: usize = 4 << 20;
        let (mut wire, mut upstream) = pair();
        let write = async {
            upstream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n").as_bytes()).await.unwrap();
            upstream.write_all(&vec![b'x'; BYTES]).await.unwrap();
        };
        let (read, ()) = tokio::join!(read(&mut wire, GET), write);
        assert_eq!((read.unwrap().body.len(), wire.is_quiet()), (BYTES, true));
    });
}

#[test]
fn a_closed_connection_is_seen_before_it_is_used() {
    run(async {
        let (mut wire, upstream) = pair();
        assert!(wire.is_still_open());
        drop(upstream);
        // The reactor has to have looked.
        while wire.is_still_open() {
            tokio::task::yield_now().await;
        }
        let (mut wire, mut upstream) = pair();
        upstream.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        while wire.is_still_open() {
            tokio::task::yield_now().await;
        }
    });
}

/// A request that a closed connection took nothing of is whole afterwards.
#[test]
fn an_unsent_head_can_be_had_back() {
    run(async {
        let (mut wire, upstream) = pair();
        drop(upstream);
        wire.push_head(b"GET / HTTP/1.1\r\n\r\n".to_vec());
        let mut outflow = Outflow::new(RequestBody::Empty, RequestFraming::None);
        let sent = poll_fn(|cx| outflow.poll(&mut wire, cx)).await;
        assert!(matches!(sent, Err(OutflowError::Unsent(_))), "{sent:?}");
        assert_eq!(wire.take_unsent().as_deref(), Some(b"GET / HTTP/1.1\r\n\r\n".as_slice()));
    });
}

/// Once its head has left, nothing of a request is offered to another connection: a body would be a request there.
#[test]
fn nothing_behind_a_head_can_be_had_back() {
    for (framing, body) in [
        (RequestFraming::Length(7), vec![b'x'; 7]),
        (RequestFraming::Length(70_000), vec![b'x'; 70_000]),
        (RequestFraming::Chunked, vec![b'x'; 7]),
        (RequestFraming::Chunked, vec![b'x'; 70_000]),
    ] {
        run(async {
            let (mut wire, upstream) = pair();
            wire.push_head(b"POST / HTTP/1.1\r\n\r\n".to_vec());
            poll_fn(|cx| wire.poll_write(cx)).await.unwrap();
            drop(upstream);
            let mut outflow = Outflow::new(RequestBody::Judged(Some(body.into())), framing);
            let sent = poll_fn(|cx| outflow.poll(&mut wire, cx)).await;
            assert!(matches!(sent, Err(OutflowError::Broken(_))), "{framing:?}: {sent:?}");
            assert_eq!(wire.take_unsent(), None, "{framing:?}");
        });
    }
}

/// A body is written as its head says, and one that is shorter is never made to look whole.
#[test]
fn a_body_is_framed_as_was_said() {
    let sent = |framing, body: &'static [u8]| {
        run(async {
            let (mut wire, mut upstream) = pair();
            wire.push_head(b"HEAD|".to_vec());
            let mut outflow = Outflow::new(RequestBody::Judged(Some(Bytes::from_static(body))), framing);
            let sent = poll_fn(|cx| outflow.poll(&mut wire, cx)).await.is_ok();
            wire.cut();
            let mut bytes = String::new();
            upstream.read_to_string(&mut bytes).await.unwrap();
            sent.then_some(bytes)
        })
    };
    assert_eq!(sent(RequestFraming::Length(5), b"hello").as_deref(), Some("HEAD|hello"));
    assert_eq!(sent(RequestFraming::Chunked, b"hello").as_deref(), Some("HEAD|5\r\nhello\r\n0\r\n\r\n"));
    assert_eq!(sent(RequestFraming::Chunked, b"").as_deref(), Some("HEAD|0\r\n\r\n"));
    assert_eq!(sent(RequestFraming::None, b"").as_deref(), Some("HEAD|"));
    assert_eq!(sent(RequestFraming::Length(6), b"hello"), None);
    assert_eq!(sent(RequestFraming::Length(4), b"hello"), None);
}

/// Who waits for an answer learns that the connection was cut by somebody else.
#[test]
fn a_cut_is_felt_by_the_reader() {
    run(async {
        let (wire, _upstream) = pair();
        let wire = Rc::new(RefCell::new(wire));
        let mut reader = HeadReader::default();
        let waiting = poll_fn(|cx| reader.poll(&mut wire.borrow_mut(), GET, cx));
        let cut = async {
            tokio::task::yield_now().await;
            wire.borrow_mut().cut();
        };
        let (read, ()) = tokio::join!(waiting, cut);
        assert!(matches!(read, Err(AnswerError::Io(_))), "{read:?}");
    });
}
