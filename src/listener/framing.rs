//! How the body of an HTTP/1.1 message is framed, and how it is read (RFC 9112 §§6.3, 7.1): a request's as an answer's.
//!
//! Stricter than it need be: a line ends in CR LF and nothing less, a size is digits, and what two readers could take
//! for different bodies is taken for none.

use std::{
    fmt, io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};

/// The longest line before a chunk, with its extensions.
const MAX_CHUNK_LINE: usize = 4 * 1024;
/// How much of all those lines may be extensions, so that a body is not made of them.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// The largest trailer section, and how many fields it may have.
const MAX_TRAILER_BYTES: usize = 16 * 1024;
const MAX_TRAILERS: usize = 64;

/// Why a message cannot be read to its end.
#[derive(Debug)]
pub enum FramingError {
    /// The connection broke.
    Io(io::Error),
    /// It ended before the message did.
    Ended,
    /// What came cannot be read, or could be read in two ways.
    Malformed(&'static str),
}

impl From<io::Error> for FramingError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Ended => f.write_str("the connection was closed before the message was complete"),
            Self::Malformed(why) => write!(f, "the message is malformed: {why}"),
        }
    }
}

impl std::error::Error for FramingError {}

/// Where a message is read from: what has come, and more of it.
pub trait Source {
    /// What has been read and not been taken.
    fn input(&self) -> &[u8];
    /// Takes bytes from the front of what has been read.
    fn consume(&mut self, bytes: usize);
    /// Takes up to `most` bytes of what has been read, without copying them.
    fn take(&mut self, most: u64) -> Bytes;
    /// Reads more. 0: the other end has closed its side.
    ///
    /// # Errors
    ///
    /// When the connection has broken.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>>;
}

/// What is still to come of a body.
#[derive(Debug, Default)]
pub enum Framing {
    /// It cannot be read to its end; nor can anything behind it.
    #[default]
    Broken,
    /// Nothing.
    Ended,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// All until the other end closes; answers alone (RFC 9112 §6.3, item 8).
    UntilClose,
}

/// Where in a chunked body its reader is.
#[derive(Debug)]
pub struct Chunks {
    next: Expected,
    /// Bytes of extensions so far.
    extensions: usize,
    /// How much of the input was looked at and is no whole line, or no whole trailer section.
    looked_at: usize,
}

/// What is expected next of a chunked body.
#[derive(Clone, Copy, Debug)]
enum Expected {
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
    Next,
    Trailers(HeaderMap),
    End,
    /// More has to be read first.
    Starved,
}

impl Framing {
    /// A body of so many bytes.
    pub fn of_length(bytes: u64) -> Self {
        if bytes == 0 { Self::Ended } else { Self::Length(bytes) }
    }

    /// A body in chunks.
    pub fn chunked() -> Self {
        Self::Chunked(Chunks { next: Expected::Size, extensions: 0, looked_at: 0 })
    }

    /// Whether the last byte has been taken.
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// How much is still to come.
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Length(bytes) => SizeHint::with_exact(*bytes),
            Self::Ended => SizeHint::with_exact(0),
            Self::Chunked(_) | Self::UntilClose | Self::Broken => SizeHint::default(),
        }
    }

    /// The next piece.
    ///
    /// # Errors
    ///
    /// See [`FramingError`]. After one, there is nothing but errors.
    pub fn poll_frame(
        &mut self,
        source: &mut impl Source,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, FramingError>>> {
        let polled = match self {
            Self::Broken => Poll::Ready(Err(FramingError::Ended)),
            Self::Ended => return Poll::Ready(None),
            Self::Length(left) => {
                let left = *left;
                poll_piece(source, left, cx).map_ok(|piece| {
                    *self = Self::of_length(left - piece.len() as u64);
                    Some(Frame::data(piece))
                })
            }
            Self::UntilClose => poll_piece(source, u64::MAX, cx).map(|piece| match piece {
                Ok(piece) => Ok(Some(Frame::data(piece))),
                Err(FramingError::Ended) => {
                    *self = Self::Ended;
                    Ok(None)
                }
                Err(error) => Err(error),
            }),
            Self::Chunked(_) => self.poll_chunked(source, cx),
        };
        if let Poll::Ready(Err(_)) = polled {
            *self = Self::Broken;
        }
        polled.map(Result::transpose)
    }

    fn poll_chunked(
        &mut self,
        source: &mut impl Source,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, FramingError>> {
        loop {
            let Self::Chunked(chunks) = self else { return Poll::Ready(Ok(None)) };
            if let Expected::Data(left) = chunks.next {
                let piece = ready!(poll_piece(source, left, cx))?;
                let left = left - piece.len() as u64;
                chunks.next = if left == 0 { Expected::DataEnd } else { Expected::Data(left) };
                self.look_for_end(source);
                return Poll::Ready(Ok(Some(Frame::data(piece))));
            }
            match chunks.step(source)? {
                Step::Next => {}
                Step::Trailers(trailers) => {
                    *self = Self::Ended;
                    return Poll::Ready(Ok(Some(Frame::trailers(trailers))));
                }
                Step::End => *self = Self::Ended,
                Step::Starved => {
                    if ready!(source.poll_fill(cx))? == 0 {
                        return Poll::Ready(Err(FramingError::Ended));
                    }
                }
            }
        }
    }

    /// Sees the end where it has been read already, so that the last piece is known to be the last. What is wrong there
    /// is met again by who asks for the next piece.
    fn look_for_end(&mut self, source: &mut impl Source) {
        while let Self::Chunked(chunks) = self
            && !matches!(chunks.next, Expected::Data(_))
            // Trailers are a frame of their own.
            && (!matches!(chunks.next, Expected::Trailers) || source.input().starts_with(b"\r\n"))
        {
            match chunks.step(source) {
                Ok(Step::Next) => {}
                Ok(Step::End) => *self = Self::Ended,
                Ok(Step::Starved | Step::Trailers(_)) | Err(_) => break,
            }
        }
    }
}

/// At least one byte, and `most` at most.
fn poll_piece(source: &mut impl Source, most: u64, cx: &mut Context<'_>) -> Poll<Result<Bytes, FramingError>> {
    if source.input().is_empty() && ready!(source.poll_fill(cx))? == 0 {
        return Poll::Ready(Err(FramingError::Ended));
    }
    Poll::Ready(Ok(source.take(most)))
}

impl Chunks {
    fn step(&mut self, source: &mut impl Source) -> Result<Step, FramingError> {
        match self.next {
            Expected::Data(_) => {}
            Expected::Size => {
                let Some(line) = line(source.input(), MAX_CHUNK_LINE, &mut self.looked_at)? else {
                    return Ok(Step::Starved);
                };
                let (size, extension) = chunk_size(line).ok_or(FramingError::Malformed("the size of a chunk"))?;
                self.extensions += extension;
                if self.extensions > MAX_EXTENSIONS {
                    return Err(FramingError::Malformed("too many extensions of chunks"));
                }
                let bytes = line.len() + 2;
                source.consume(bytes);
                self.next = if size == 0 { Expected::Trailers } else { Expected::Data(size) };
            }
            Expected::DataEnd => match source.input() {
                [b'\r', b'\n', ..] => {
                    source.consume(2);
                    self.next = Expected::Size;
                }
                [] | [b'\r'] => return Ok(Step::Starved),
                _ => return Err(FramingError::Malformed("a chunk is longer than its size")),
            },
            Expected::Trailers => {
                if source.input().starts_with(b"\r\n") {
                    source.consume(2);
                    return Ok(Step::End);
                }
                let Some((trailers, bytes)) = trailers(source.input(), &mut self.looked_at)? else {
                    return Ok(Step::Starved);
                };
                source.consume(bytes);
                return Ok(Step::Trailers(trailers));
            }
        }
        Ok(Step::Next)
    }
}

/// The line at the front, without its end: CR LF and nothing less.
fn line<'i>(input: &'i [u8], most: usize, looked_at: &mut usize) -> Result<Option<&'i [u8]>, FramingError> {
    let new = input.get(*looked_at..).unwrap_or_default();
    let end = memchr::memchr(b'\n', new).map(|end| *looked_at + end);
    *looked_at = if end.is_some() { 0 } else { input.len() };
    match end {
        Some(end) if end > 0 && input[end - 1] == b'\r' && end <= most => Ok(Some(&input[..end - 1])),
        Some(_) => Err(FramingError::Malformed("a line end between chunks")),
        None if input.len() > most => Err(FramingError::Malformed("a line between chunks is too long")),
        None => Ok(None),
    }
}

/// Hexadecimal digits, then nothing or extensions, which are passed over (RFC 9112 §7.1.1): their length comes second.
fn chunk_size(line: &[u8]) -> Option<(u64, usize)> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, extension) = line.split_at(digits);
    let blanks = extension.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let rest = &extension[blanks..];
    if digits.is_empty() || digits.len() > 15 || !(rest.is_empty() || rest.starts_with(b";")) || rest.contains(&b'\r') {
        return None;
    }
    let hex = |digit: &u8| char::from(*digit).to_digit(16).map(u64::from);
    let size = digits.iter().try_fold(0, |size, digit| Some(size << 4 | hex(digit)?))?;
    Some((size, extension.len()))
}

fn trailers(input: &[u8], looked_at: &mut usize) -> Result<Option<(HeaderMap, usize)>, FramingError> {
    if *looked_at > 0 && !may_end(input, *looked_at) && input.len() <= MAX_TRAILER_BYTES {
        *looked_at = input.len();
        return Ok(None);
    }
    *looked_at = input.len();
    let mut parsed = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    match httparse::parse_headers(input, &mut parsed) {
        // The parser takes a bare line feed for an end as well.
        Ok(httparse::Status::Complete((bytes, _))) if has_bare_line_feed(&input[..bytes]) => {
            Err(FramingError::Malformed("a line end in the trailer section"))
        }
        Ok(httparse::Status::Complete((bytes, _))) if bytes > MAX_TRAILER_BYTES => {
            Err(FramingError::Malformed("the trailer section is too large"))
        }
        Ok(httparse::Status::Complete((bytes, fields))) => {
            let mut trailers = HeaderMap::with_capacity(fields.len());
            for field in fields {
                let (Ok(name), Ok(value)) =
                    (HeaderName::from_bytes(field.name.as_bytes()), HeaderValue::from_bytes(field.value))
                else {
                    return Err(FramingError::Malformed("a trailer field that is none"));
                };
                trailers.append(name, value);
            }
            Ok(Some((trailers, bytes)))
        }
        Ok(httparse::Status::Partial) if input.len() > MAX_TRAILER_BYTES => {
            Err(FramingError::Malformed("the trailer section is too large"))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(FramingError::Malformed("a trailer field")),
    }
}

/// Whether a head or a trailer section may have come to its end with what is behind `looked_at`: an empty line. So one
/// that comes byte by byte is not read anew with each of them.
pub(super) fn may_end(input: &[u8], looked_at: usize) -> bool {
    let new = input.get(looked_at.saturating_sub(3)..).unwrap_or_default();
    new.windows(3).any(|end| matches!(end, [b'\n', b'\r', b'\n'] | [_, b'\n', b'\n']))
}

/// Digits and nothing else.
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The members of a list, without the blanks around them (RFC 9110 §5.6.1).
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

fn has_bare_line_feed(text: &[u8]) -> bool {
    text.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || text[at - 1] != b'\r'))
}
