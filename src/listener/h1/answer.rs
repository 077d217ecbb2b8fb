//! The head of an answer, and the framing of its body (RFC 9112 §§4–7).

use ::http::{HeaderMap, HeaderName, Method, StatusCode, Version};
use bytes::Bytes;
use hyper::ext::ReasonPhrase;

use super::super::{
    answer::{AnswerHead, Fields, write_line},
    output::Output,
};

/// Room for the framing, the date and what is said of the connection.
const FRAMING_ROOM: usize = 192;

/// What of the request decides how it is answered.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) takes_trailers: bool,
    /// Whether the connection may be used again.
    pub(super) keep_alive: bool,
}

/// How the body of an answer is framed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// There is none.
    Bodiless,
    /// So many bytes are still to be sent.
    Length(u64),
    /// In chunks; behind them these fields, where the client takes them.
    Chunked(Vec<HeaderName>),
    /// By the end of the connection.
    UntilClose,
}

/// What the head says.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) framing: Encoding,
    /// Whether the connection is used again.
    pub(super) keep_alive: bool,
    /// Whether another protocol follows.
    pub(super) switches: bool,
}

/// How long the body is, as far as the body itself knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Exactly(u64),
    Unknown,
}

/// The head of an answer: its lines, where in their memory they begin, and what they say. Its framing is ours to say,
/// whatever its fields speak of.
pub(super) fn write_head(head: AnswerHead, size: Size, asked: &Asked, date: &[u8]) -> (Vec<u8>, usize, Said) {
    let AnswerHead { status, reason, mut fields } = head;
    // Interim answers are not the service's to give.
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    let status = if status.is_informational() && !switches { StatusCode::INTERNAL_SERVER_ERROR } else { status };
    let framing = encoding(status, size, &fields, asked);
    let keep_alive = asked.keep_alive && !fields.closes && framing != Encoding::UntilClose && !switches;
    let reason = reason.as_ref().map(ReasonPhrase::as_bytes);
    let (mut lines, start) = fields.take_lines(&[
        if asked.version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " },
        status.as_str().as_bytes(),
        b" ",
        reason.unwrap_or_else(|| status.canonical_reason().unwrap_or_default().as_bytes()),
        b"\r\n",
    ]);
    let out = &mut lines;
    out.reserve(FRAMING_ROOM);
    match &framing {
        Encoding::Length(bytes) => write_length(out, *bytes),
        Encoding::Chunked(trailers) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            for name in trailers {
                write_line(out, "trailer", name.as_str().as_bytes());
            }
        }
        // What a GET would be told (RFC 9110 §9.3.2).
        Encoding::Bodiless if asked.method == Method::HEAD && status != StatusCode::NO_CONTENT => {
            match (fields.length, size) {
                (Some(bytes), _) | (None, Size::Exactly(bytes @ 1..)) => write_length(out, bytes),
                (None, _) => {}
            }
        }
        Encoding::Bodiless | Encoding::UntilClose => {}
    }
    match &fields.switches_to {
        Some(protocol) if switches => {
            out.extend_from_slice(b"connection: upgrade\r\n");
            write_line(out, "upgrade", protocol.as_bytes());
        }
        _ if switches => {}
        _ if !keep_alive => out.extend_from_slice(b"connection: close\r\n"),
        _ if asked.version == Version::HTTP_10 => out.extend_from_slice(b"connection: keep-alive\r\n"),
        _ => {}
    }
    if !fields.dated {
        write_line(out, "date", date);
    }
    out.extend_from_slice(b"\r\n");
    (lines, start, Said { framing, keep_alive, switches })
}

/// Whether there is a body at all behind an answer with this status (RFC 9110 §6.4.1).
fn has_body(status: StatusCode, asked: &Asked) -> bool {
    asked.method != Method::HEAD
        && !matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn encoding(status: StatusCode, size: Size, fields: &Fields, asked: &Asked) -> Encoding {
    if !has_body(status, asked) {
        return Encoding::Bodiless;
    }
    match (size, fields.length) {
        (Size::Exactly(bytes), _) | (Size::Unknown, Some(bytes)) => Encoding::Length(bytes),
        (Size::Unknown, None) if asked.version == Version::HTTP_10 => Encoding::UntilClose,
        (Size::Unknown, None) if asked.takes_trailers => Encoding::Chunked(fields.trailers.clone()),
        (Size::Unknown, None) => Encoding::Chunked(Vec::new()),
    }
}

fn write_length(out: &mut Vec<u8>, bytes: u64) {
    write_line(out, "content-length", itoa::Buffer::new().format(bytes).as_bytes());
}

/// A body that is not what its head says.
#[derive(Debug)]
pub(super) struct TooShort;

impl Encoding {
    /// Puts a piece of the body into the output; the last one with its end. True: the body has ended with it.
    pub(super) fn push(&mut self, mut piece: Bytes, is_last: bool, output: &mut Output) -> Result<bool, TooShort> {
        match self {
            Self::Bodiless => return Ok(true),
            Self::Length(left) => {
                // More than was said would be the beginning of the next answer.
                piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= piece.len() as u64;
                let left = *left;
                output.push_piece(piece, b"");
                if left > 0 && is_last {
                    return Err(TooShort);
                }
                return Ok(left == 0);
            }
            Self::Chunked(_) => {
                if !piece.is_empty() {
                    write_size(output.text(), piece.len());
                    output.push_piece(piece, if is_last { b"\r\n0\r\n\r\n" } else { b"\r\n" });
                } else if is_last {
                    output.text().extend_from_slice(b"0\r\n\r\n");
                }
            }
            Self::UntilClose => output.push_piece(piece, b""),
        }
        Ok(is_last)
    }

    /// Puts the end of the body into the output, with the trailers that were announced. It has ended then.
    pub(super) fn end(&mut self, trailers: Option<HeaderMap>, output: &mut Output) -> Result<bool, TooShort> {
        let Self::Chunked(announced) = self else { return self.push(Bytes::new(), true, output) };
        let out = output.text();
        out.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.iter().flatten() {
            if announced.contains(name) {
                write_line(out, name.as_str(), value.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
        Ok(true)
    }
}

/// The size of a chunk, in hexadecimal digits.
fn write_size(out: &mut Vec<u8>, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[size >> (4 * digit) & 0xf]);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use ::http::Response;

    use super::{super::super::answer::Answer, *};

    const DATE: &[u8] = b"today";

    fn asked(method: Method, version: Version) -> Asked {
        Asked { method, version, takes_trailers: false, keep_alive: true }
    }

    /// An answer with these fields, as it is written: without its status line and its date.
    #[track_caller]
    fn check(status: u16, fields: &[(&str, &str)], size: Size, asked: &Asked, expected: &str) -> Said {
        let mut response = Response::builder().status(status);
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let head = Answer::from(response.body(()).unwrap()).head;
        let (lines, start, said) = write_head(head, size, asked, DATE);
        let text = std::str::from_utf8(&lines[start..]).unwrap();
        let (line, rest) = text.split_once("\r\n").unwrap();
        assert!(line.starts_with(if asked.version == Version::HTTP_10 { "HTTP/1.0 " } else { "HTTP/1.1 " }), "{line}");
        assert_eq!(rest.replace("date: today\r\n", "").strip_suffix("\r\n").unwrap().replace("\r\n", "|"), expected);
        said
    }

    #[test]
    fn a_body_is_framed_by_what_is_known_of_it() {
        let (get, old) = (asked(Method::GET, Version::HTTP_11), asked(Method::GET, Version::HTTP_10));
        let said = check(200, &[], Size::Exactly(5), &get, "content-length: 5|");
        assert_eq!((said.framing, said.keep_alive), (Encoding::Length(5), true));
        check(200, &[("content-length", "7")], Size::Exactly(5), &get, "content-length: 5|");
        check(200, &[], Size::Exactly(0), &get, "content-length: 0|");
        let said = check(200, &[("content-length", "7")], Size::Unknown, &get, "content-length: 7|");
        assert_eq!(said.framing, Encoding::Length(7));
        let said = check(200, &[("transfer-encoding", "gzip")], Size::Unknown, &get, "transfer-encoding: chunked|");
        assert_eq!(said.framing, Encoding::Chunked(Vec::new()));
        // Behind a body that only the end of the connection ends, nothing follows.
        let said = check(200, &[], Size::Unknown, &old, "connection: close|");
        assert_eq!((said.framing, said.keep_alive), (Encoding::UntilClose, false));
        let said = check(200, &[], Size::Exactly(5), &old, "content-length: 5|connection: keep-alive|");
        assert!(said.keep_alive);
    }

    #[test]
    fn where_there_is_no_body_none_is_announced() {
        let (get, head) = (asked(Method::GET, Version::HTTP_11), asked(Method::HEAD, Version::HTTP_11));
        for status in [204, 304] {
            let said = check(status, &[("content-length", "7")], Size::Unknown, &get, "");
            assert_eq!(said.framing, Encoding::Bodiless);
        }
        let said = check(200, &[("content-length", "7")], Size::Exactly(0), &head, "content-length: 7|");
        assert_eq!((said.framing, said.keep_alive), (Encoding::Bodiless, true));
        check(200, &[], Size::Exactly(5), &head, "content-length: 5|");
        check(200, &[], Size::Unknown, &head, "");
        check(204, &[("content-length", "7")], Size::Exactly(0), &head, "");
    }

    #[test]
    fn the_end_of_the_connection_is_announced() {
        let get = asked(Method::GET, Version::HTTP_11);
        let said =
            check(200, &[("connection", "Close")], Size::Exactly(0), &get, "content-length: 0|connection: close|");
        assert!(!said.keep_alive);
        let last = Asked { keep_alive: false, ..asked(Method::GET, Version::HTTP_11) };
        check(200, &[("connection", "keep-alive")], Size::Exactly(0), &last, "content-length: 0|connection: close|");
        let fields = [("connection", "upgrade"), ("upgrade", "echo")];
        let said = check(101, &fields, Size::Exactly(0), &get, "connection: upgrade|upgrade: echo|");
        assert!(said.switches && said.framing == Encoding::Bodiless);
        // An interim answer is no answer.
        check(100, &[], Size::Exactly(0), &get, "content-length: 0|");
    }

    #[test]
    fn trailers_are_announced_where_there_can_be_some() {
        let fields = [("trailer", "x-a, x-b")];
        let takes = Asked { takes_trailers: true, ..asked(Method::GET, Version::HTTP_11) };
        let announced = "transfer-encoding: chunked|trailer: x-a|trailer: x-b|";
        let mut said = check(200, &fields, Size::Unknown, &takes, announced);
        let trailers =
            [("x-a", "1"), ("x-c", "3")].map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let mut output = Output::default();
        assert!(said.framing.end(Some(trailers.into_iter().collect()), &mut output).unwrap());
        assert_eq!(output.text(), b"0\r\nx-a: 1\r\n\r\n");
        check(200, &fields, Size::Exactly(2), &takes, "content-length: 2|");
        let get = asked(Method::GET, Version::HTTP_11);
        let said = check(200, &fields, Size::Unknown, &get, "transfer-encoding: chunked|");
        assert_eq!(said.framing, Encoding::Chunked(Vec::new()));
    }

    /// Pieces as they are sent, or nothing where they are not what was said.
    #[track_caller]
    fn check_body(mut framing: Encoding, pieces: &[&'static str], expected: Option<&str>) {
        let mut output = Output::default();
        let mut ended = false;
        for (at, piece) in pieces.iter().enumerate() {
            let is_last = at + 1 == pieces.len();
            match framing.push(Bytes::from_static(piece.as_bytes()), is_last, &mut output) {
                Ok(end) => ended = end,
                Err(TooShort) => return assert_eq!(expected, None),
            }
            if ended {
                break;
            }
        }
        assert!(ended);
        assert_eq!(Some(std::str::from_utf8(output.text()).unwrap()), expected);
    }

    #[test]
    fn a_body_is_what_its_head_says() {
        check_body(Encoding::Length(5), &["hel", "lo"], Some("hello"));
        check_body(Encoding::Length(5), &["hello, world"], Some("hello"));
        check_body(Encoding::Length(6), &["hel", "lo"], None);
        check_body(Encoding::Length(1), &[""], None);
        check_body(Encoding::UntilClose, &["hel", "lo"], Some("hello"));
        check_body(Encoding::Bodiless, &["hello"], Some(""));
        let chunked = || Encoding::Chunked(Vec::new());
        check_body(
            chunked(),
            &["hello", "0123456789abcdef0"],
            Some("5\r\nhello\r\n11\r\n0123456789abcdef0\r\n0\r\n\r\n"),
        );
        check_body(chunked(), &["hello", ""], Some("5\r\nhello\r\n0\r\n\r\n"));
        check_body(chunked(), &[""], Some("0\r\n\r\n"));
    }

    #[test]
    fn a_size_has_no_zeros_before_it() {
        for size in [1, 9, 15, 16, 255, 256, 4095, 4096, 65_535, 65_536, usize::MAX] {
            let mut out = Vec::new();
            write_size(&mut out, size);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{size:x}\r\n"));
        }
    }
}
