//! The body of an answer, read as its head says that it is framed (RFC 9112 §§6.3, 7.1).

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};

use super::{answer::AnswerError, wire::Wire};

/// The longest line before a chunk, with its extensions.
const MAX_CHUNK_LINE: usize = 4 * 1024;
/// The largest trailer section, and how many fields it may have.
const MAX_TRAILER_BYTES: usize = 16 * 1024;
const MAX_TRAILERS: usize = 64;

/// The body of an answer while it is taken from its connection.
#[derive(Debug)]
pub struct Download {
    framing: Framing,
    kept: bool,
}

#[derive(Debug)]
enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    Chunked(Chunked),
    /// All until the upstream closes.
    UntilClose,
    Ended,
}

/// What is expected next of a chunked body.
#[derive(Clone, Copy, Debug)]
enum Chunked {
    /// The line with the size of the next chunk.
    Size,
    /// So many bytes of the chunk.
    Data(u64),
    /// The line end behind a chunk.
    DataEnd,
    /// The trailer section, which may be empty.
    Trailers,
}

/// One step of a chunked body that needs no reading.
enum Step {
    Next(Chunked),
    Trailers(HeaderMap),
    End,
    /// More has to be read first.
    Starved,
}

type Polled = Poll<Option<Result<Frame<Bytes>, AnswerError>>>;

impl Download {
    /// No body. With `kept`, the connection can be used again after this and any other framing that ends by itself.
    pub(super) fn empty(kept: bool) -> Self {
        Self { framing: Framing::Ended, kept }
    }

    pub(super) fn of_length(bytes: u64, kept: bool) -> Self {
        Self { framing: if bytes == 0 { Framing::Ended } else { Framing::Length(bytes) }, kept }
    }

    pub(super) fn chunked(kept: bool) -> Self {
        Self { framing: Framing::Chunked(Chunked::Size), kept }
    }

    pub(super) fn until_close() -> Self {
        Self { framing: Framing::UntilClose, kept: false }
    }

    /// Whether the last byte has been taken.
    pub fn is_end_stream(&self) -> bool {
        matches!(self.framing, Framing::Ended)
    }

    /// Whether it has ended, and another answer may follow on the connection.
    pub fn leaves_connection(&self) -> bool {
        self.kept && self.is_end_stream()
    }

    /// How much is still to come.
    pub fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length(bytes) => SizeHint::with_exact(bytes),
            Framing::Ended => SizeHint::with_exact(0),
            Framing::Chunked(_) | Framing::UntilClose => SizeHint::default(),
        }
    }

    /// The next piece.
    pub fn poll_frame(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Polled {
        let polled = match &mut self.framing {
            Framing::Ended => return Poll::Ready(None),
            Framing::Length(left) => {
                let left = *left;
                poll_piece(wire, left, cx).map_ok(|piece| {
                    let left = left - piece.len() as u64;
                    self.framing = if left == 0 { Framing::Ended } else { Framing::Length(left) };
                    Some(Frame::data(piece))
                })
            }
            Framing::UntilClose => poll_piece(wire, u64::MAX, cx).map(|piece| match piece {
                Ok(piece) => Ok(Some(Frame::data(piece))),
                Err(AnswerError::Ended) => {
                    self.framing = Framing::Ended;
                    Ok(None)
                }
                Err(error) => Err(error),
            }),
            Framing::Chunked(_) => self.poll_chunked(wire, cx),
        };
        polled.map(Result::transpose)
    }

    fn poll_chunked(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, AnswerError>> {
        loop {
            let Framing::Chunked(state) = self.framing else { return Poll::Ready(Ok(None)) };
            if let Chunked::Data(left) = state {
                let piece = ready!(poll_piece(wire, left, cx))?;
                let left = left - piece.len() as u64;
                self.framing = Framing::Chunked(if left == 0 { Chunked::DataEnd } else { Chunked::Data(left) });
                self.look_for_end(wire)?;
                return Poll::Ready(Ok(Some(Frame::data(piece))));
            }
            match step(state, wire)? {
                Step::Next(next) => self.framing = Framing::Chunked(next),
                Step::Trailers(trailers) => {
                    self.framing = Framing::Ended;
                    return Poll::Ready(Ok(Some(Frame::trailers(trailers))));
                }
                Step::End => self.framing = Framing::Ended,
                Step::Starved => {
                    if ready!(wire.poll_fill(cx))? == 0 {
                        return Poll::Ready(Err(AnswerError::Ended));
                    }
                }
            }
        }
    }

    /// Sees the end where it has been read already, so that the last piece is known to be the last.
    fn look_for_end(&mut self, wire: &mut Wire) -> Result<(), AnswerError> {
        while let Framing::Chunked(state) = self.framing
            && !matches!(state, Chunked::Data(_))
            // Trailers are a frame of their own.
            && (!matches!(state, Chunked::Trailers) || wire.input().starts_with(b"\r\n"))
        {
            match step(state, wire)? {
                Step::Next(next) => self.framing = Framing::Chunked(next),
                Step::End => self.framing = Framing::Ended,
                Step::Starved | Step::Trailers(_) => break,
            }
        }
        Ok(())
    }
}

/// At least one byte, and `most` at most.
fn poll_piece(wire: &mut Wire, most: u64, cx: &mut Context<'_>) -> Poll<Result<Bytes, AnswerError>> {
    if wire.input().is_empty() && ready!(wire.poll_fill(cx))? == 0 {
        return Poll::Ready(Err(AnswerError::Ended));
    }
    Poll::Ready(Ok(wire.take(most)))
}

fn step(state: Chunked, wire: &mut Wire) -> Result<Step, AnswerError> {
    match state {
        Chunked::Data(_) => Ok(Step::Next(state)),
        Chunked::Size => {
            let Some(line) = line(wire.input(), MAX_CHUNK_LINE)? else { return Ok(Step::Starved) };
            let size = chunk_size(line).ok_or(AnswerError::Malformed("the size of a chunk"))?;
            let bytes = line.len() + 2;
            wire.consume(bytes);
            Ok(Step::Next(if size == 0 { Chunked::Trailers } else { Chunked::Data(size) }))
        }
        Chunked::DataEnd => match wire.input() {
            [b'\r', b'\n', ..] => {
                wire.consume(2);
                Ok(Step::Next(Chunked::Size))
            }
            [] | [b'\r'] => Ok(Step::Starved),
            _ => Err(AnswerError::Malformed("a chunk is longer than its size")),
        },
        Chunked::Trailers => {
            if wire.input().starts_with(b"\r\n") {
                wire.consume(2);
                return Ok(Step::End);
            }
            let Some((trailers, bytes)) = trailers(wire.input())? else { return Ok(Step::Starved) };
            wire.consume(bytes);
            Ok(Step::Trailers(trailers))
        }
    }
}

/// The line at the front, without its end: CR LF and nothing less.
fn line(input: &[u8], most: usize) -> Result<Option<&[u8]>, AnswerError> {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) if end > 0 && input[end - 1] == b'\r' && end <= most => Ok(Some(&input[..end - 1])),
        Some(_) => Err(AnswerError::Malformed("a line end between chunks")),
        None if input.len() > most => Err(AnswerError::Malformed("a line between chunks is too long")),
        None => Ok(None),
    }
}

/// Hexadecimal digits, then nothing or extensions, which are passed over (RFC 9112 §7.1.1).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let rest = &rest[blanks..];
    if digits.is_empty() || digits.len() > 15 || !(rest.is_empty() || rest.starts_with(b";")) || rest.contains(&b'\r') {
        return None;
    }
    let hex = |digit: &u8| char::from(*digit).to_digit(16).map(u64::from);
    digits.iter().try_fold(0, |size, digit| Some(size << 4 | hex(digit)?))
}

fn trailers(input: &[u8]) -> Result<Option<(HeaderMap, usize)>, AnswerError> {
    let mut parsed = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    match httparse::parse_headers(input, &mut parsed) {
        // The parser takes a bare line feed for an end as well.
        Ok(httparse::Status::Complete((bytes, _))) if has_bare_line_feed(&input[..bytes]) => {
            Err(AnswerError::Malformed("a line end in the trailer section"))
        }
        Ok(httparse::Status::Complete((bytes, _))) if bytes > MAX_TRAILER_BYTES => {
            Err(AnswerError::Malformed("the trailer section is too large"))
        }
        Ok(httparse::Status::Complete((bytes, fields))) => {
            let mut trailers = HeaderMap::with_capacity(fields.len());
            for field in fields {
                let (Ok(name), Ok(value)) =
                    (HeaderName::from_bytes(field.name.as_bytes()), HeaderValue::from_bytes(field.value))
                else {
                    return Err(AnswerError::Malformed("a trailer field that is none"));
                };
                trailers.append(name, value);
            }
            Ok(Some((trailers, bytes)))
        }
        Ok(httparse::Status::Partial) if input.len() > MAX_TRAILER_BYTES => {
            Err(AnswerError::Malformed("the trailer section is too large"))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(AnswerError::Malformed("a trailer field")),
    }
}

fn has_bare_line_feed(text: &[u8]) -> bool {
    text.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || text[at - 1] != b'\r'))
}
