//! The head of an answer, and the framing of its body (RFC 9112 §§4–7).

use ::http::{HeaderMap, HeaderName, Method, StatusCode, Version};
use bytes::Bytes;
use hyper::ext::ReasonPhrase;

use super::super::{
    answer::{AnswerHead, Fields, write_line},
    output::Output,
};

/// Room for the status, the framing, the date and what is said of the connection.
const FRAMING_ROOM: usize = 256;

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
pub(super) enum Framing {
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
    pub(super) framing: Framing,
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

/// Writes the head of an answer. Its framing is ours to say, whatever its fields speak of.
pub(super) fn write_head(out: &mut Vec<u8>, head: &AnswerHead, size: Size, asked: &Asked, date: &[u8]) -> Said {
    let AnswerHead { status, reason, fields } = head;
    // Interim answers are not the service's to give.
    let switches = *status == StatusCode::SWITCHING_PROTOCOLS;
    let status = if status.is_informational() && !switches { StatusCode::INTERNAL_SERVER_ERROR } else { *status };
    let framing = framing(status, size, fields, asked);
    let keep_alive = asked.keep_alive && !fields.closes && framing != Framing::UntilClose && !switches;
    out.reserve(fields.text.len() + FRAMING_ROOM);
    write_status(out, status, reason.as_ref(), asked.version);
    out.extend_from_slice(&fields.text);
    match &framing {
        Framing::Length(bytes) => write_length(out, *bytes),
        Framing::Chunked(trailers) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            for name in trailers.iter().chain(fields.trailers.iter().filter(|_| trailers.is_empty())) {
                write_line(out, "trailer", name.as_str().as_bytes());
            }
        }
        // What a GET would be told (RFC 9110 §9.3.2).
        Framing::Bodiless if asked.method == Method::HEAD && status != StatusCode::NO_CONTENT => {
            match (fields.length, size) {
                (Some(bytes), _) | (None, Size::Exactly(bytes @ 1..)) => write_length(out, bytes),
                (None, _) => {}
            }
        }
        Framing::Bodiless | Framing::UntilClose => {}
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
    Said { framing, keep_alive, switches }
}

fn write_status(out: &mut Vec<u8>, status: StatusCode, reason: Option<&ReasonPhrase>, version: Version) {
    out.extend_from_slice(if version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    let reason = reason.map(ReasonPhrase::as_bytes);
    out.extend_from_slice(reason.unwrap_or_else(|| status.canonical_reason().unwrap_or_default().as_bytes()));
    out.extend_from_slice(b"\r\n");
}

/// Whether there is a body at all behind an answer with this status (RFC 9110 §6.4.1).
fn has_body(status: StatusCode, asked: &Asked) -> bool {
    asked.method != Method::HEAD
        && !matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn framing(status: StatusCode, size: Size, fields: &Fields, asked: &Asked) -> Framing {
    if !has_body(status, asked) {
        return Framing::Bodiless;
    }
    match (size, fields.length) {
        (Size::Exactly(bytes), _) | (Size::Unknown, Some(bytes)) => Framing::Length(bytes),
        (Size::Unknown, None) if asked.version == Version::HTTP_10 => Framing::UntilClose,
        (Size::Unknown, None) if asked.takes_trailers => Framing::Chunked(fields.trailers.clone()),
        (Size::Unknown, None) => Framing::Chunked(Vec::new()),
    }
}

fn write_length(out: &mut Vec<u8>, bytes: u64) {
    write_line(out, "content-length", itoa::Buffer::new().format(bytes).as_bytes());
}

/// A body that is not what its head says.
#[derive(Debug)]
pub(super) struct TooShort;

impl Framing {
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
