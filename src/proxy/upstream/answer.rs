//! What comes back: the head of an answer, and how its body is framed (RFC 9112 §§4–7).
//!
//! Anything that another reader could frame in another way is an error; the caller then gets a 502, and the connection
//! is not used again.

use std::{
    mem::MaybeUninit,
    ops::Range,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{StatusCode, Version};
use hyper::ext::ReasonPhrase;
use smallvec::SmallVec;

use super::{body::Download, wire::Wire};
use crate::listener::framing::{Framing, Source as _, decimal, members};

/// Why what came is no answer.
pub use crate::listener::framing::FramingError as AnswerError;

/// The largest head that an upstream may answer with, and how many fields it may have.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_FIELDS: usize = 100;
/// How many interim answers (RFC 9110 §15.2) are passed over before the final one.
const MAX_INTERIM: usize = 32;

/// What of a request decides how its answer is read.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The answer has no body, whatever its fields say (RFC 9110 §9.3.2).
    pub head: bool,
}

/// An answer: its head, and its body, which is still to come.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its reason phrase, if that is not the usual one.
    pub reason: Option<ReasonPhrase>,
    /// Its fields.
    pub fields: Received,
    /// Its length, if it says one and has no other framing.
    pub length: Option<u64>,
    /// Its body.
    pub body: Download,
    /// How long the upstream keeps the connection, if it says so.
    pub keep_alive: Option<Duration>,
}

/// The fields of an answer as they came: parts of its text. The parser has seen that names are tokens, and that values
/// hold no control character (RFC 9110 §§5.1, 5.5).
#[derive(Debug)]
pub struct Received {
    text: Bytes,
    fields: SmallVec<[Field; 16]>,
}

impl Received {
    /// The fields of a head that has come to its end.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn of(head: Bytes) -> Result<Self, AnswerError> {
        let fields = Lines::find(&head)?.ok_or(AnswerError::Ended)?.fields;
        Ok(Self { text: head, fields })
    }

    /// The text that names and values are parts of.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Where in the text the name and the value of each field stand.
    pub fn places(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        self.fields.iter().map(|field| (field.name(), field.value()))
    }

    /// Name and value of each field, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (&self.text[field.name()], &self.text[field.value()]))
    }

    /// The first value under this name, which is in lower case.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }
}

/// Reads the head of the final answer.
#[derive(Debug, Default)]
pub struct HeadReader {
    interim: usize,
}

impl HeadReader {
    /// Ready once the head of the final answer is there.
    pub fn poll(
        &mut self,
        wire: &mut Wire,
        asked: Asked,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Box<Answer>, AnswerError>> {
        loop {
            if let Some(lines) = Lines::find(wire.input())? {
                let text = wire.take(lines.bytes as u64);
                let answer = lines.read(text, asked)?;
                let status = answer.status;
                if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(Ok(answer));
                }
                self.interim += 1;
                if self.interim > MAX_INTERIM {
                    return Poll::Ready(Err(AnswerError::Malformed("too many interim answers")));
                }
                continue;
            }
            if wire.input().len() >= MAX_HEAD_BYTES {
                return Poll::Ready(Err(AnswerError::Malformed("the head is too large")));
            }
            if ready!(wire.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(AnswerError::Ended));
            }
        }
    }
}

/// Where the parts of a head stand.
struct Lines {
    status: StatusCode,
    version: Version,
    reason: Range<usize>,
    fields: SmallVec<[Field; 16]>,
    /// The length of all of it.
    bytes: usize,
}

/// Where a field stands, in bytes from the front of the head, which is no longer than [`MAX_HEAD_BYTES`].
#[derive(Clone, Copy, Debug)]
struct Field {
    name: (u32, u32),
    value: (u32, u32),
}

impl Field {
    fn new(name: Range<usize>, value: Range<usize>) -> Self {
        let short = |range: Range<usize>| (range.start as u32, range.end as u32);
        Self { name: short(name), value: short(value) }
    }

    fn name(&self) -> Range<usize> {
        self.name.0 as usize..self.name.1 as usize
    }

    fn value(&self) -> Range<usize> {
        self.value.0 as usize..self.value.1 as usize
    }
}

impl Lines {
    /// Finds the head at the front of the input; nothing while it is incomplete.
    fn find(input: &[u8]) -> Result<Option<Self>, AnswerError> {
        if input.is_empty() {
            return Ok(None);
        }
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut head = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut head, input, &mut fields)
            .map_err(|error| AnswerError::Malformed(describe(error)))?;
        let httparse::Status::Complete(bytes) = parsed else { return Ok(None) };
        if bytes > MAX_HEAD_BYTES {
            return Err(AnswerError::Malformed("the head is too large"));
        }
        let (Some(code), Some(version)) = (head.code, head.version) else { return Ok(None) };
        let status = StatusCode::from_u16(code).map_err(|_| AnswerError::Malformed("a status that is none"))?;
        let place = |part: &[u8]| {
            let start = part.as_ptr().addr().saturating_sub(input.as_ptr().addr());
            start..start + part.len()
        };
        let reason = head.reason.filter(|reason| status.canonical_reason() != Some(*reason)).unwrap_or_default();
        Ok(Some(Self {
            status,
            version: if version == 1 { Version::HTTP_11 } else { Version::HTTP_10 },
            reason: if reason.is_empty() { 0..0 } else { place(reason.as_bytes()) },
            fields: head
                .headers
                .iter()
                .map(|field| Field::new(place(field.name.as_bytes()), place(field.value)))
                .collect(),
            bytes,
        }))
    }

    /// The answer whose head the text is.
    fn read(self, text: Bytes, asked: Asked) -> Result<Box<Answer>, AnswerError> {
        let mut says = Says::default();
        for field in &self.fields {
            says.heed(&text[field.name()], &text[field.value()])?;
        }
        let reason = (!self.reason.is_empty()).then(|| ReasonPhrase::try_from(&text[self.reason]).ok()).flatten();
        Ok(Box::new(Answer {
            status: self.status,
            reason,
            length: says.length.filter(|_| !says.chunked && self.status != StatusCode::NO_CONTENT),
            body: says.framing(asked, self.status, self.version)?,
            keep_alive: says.keep_alive,
            fields: Received { text, fields: self.fields },
        }))
    }
}

fn describe(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a field name",
        httparse::Error::HeaderValue => "a field value",
        httparse::Error::NewLine => "a line end",
        httparse::Error::Status => "the status",
        httparse::Error::Token => "a token",
        httparse::Error::TooManyHeaders => "too many fields",
        httparse::Error::Version => "the version",
    }
}

/// What the fields of an answer say of its framing and its connection.
#[derive(Debug, Default)]
struct Says {
    length: Option<u64>,
    coding: bool,
    chunked: bool,
    close: bool,
    keep: bool,
    keep_alive: Option<Duration>,
}

impl Says {
    fn heed(&mut self, name: &[u8], value: &[u8]) -> Result<(), AnswerError> {
        // Of all names there are, those that matter here have one of these lengths.
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                for member in members(value) {
                    let length = decimal(member).ok_or(AnswerError::Malformed("the length"))?;
                    if self.length.replace(length).is_some_and(|earlier| earlier != length) {
                        return Err(AnswerError::Malformed("two lengths"));
                    }
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let chunked = value.trim_ascii().eq_ignore_ascii_case(b"chunked");
                if self.coding || !chunked {
                    return Err(AnswerError::Malformed("framed by a coding other than chunked"));
                }
                (self.coding, self.chunked) = (true, true);
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in members(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            10 if name.eq_ignore_ascii_case(b"keep-alive") => {
                self.keep_alive = timeout(value).map(Duration::from_secs);
            }
            _ => {}
        }
        Ok(())
    }

    /// How the body is framed (RFC 9112 §6.3), and whether another answer may follow on the connection.
    ///
    /// Not behind an answer without a body whose fields speak of one, and not behind any to HEAD: a body that comes
    /// all the same, a moment later, would be the next caller's answer.
    fn framing(&self, asked: Asked, status: StatusCode, version: Version) -> Result<Download, AnswerError> {
        let old = version == Version::HTTP_10;
        if self.chunked && old {
            return Err(AnswerError::Malformed("a coding in an answer of HTTP/1.0"));
        }
        let kept = !self.close && (!old || self.keep);
        let bodiless = asked.head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Ok(match self.length {
            length if bodiless => {
                let kept = kept && !asked.head && !self.chunked && length.is_none_or(|length| length == 0);
                Download::new(Framing::Ended, kept)
            }
            // A length beside a coding is the sign of a smuggler or a fool: what follows on the connection is not believed.
            length if self.chunked => Download::new(Framing::chunked(), kept && length.is_none()),
            Some(length) => Download::new(Framing::of_length(length), kept),
            None => Download::new(Framing::UntilClose, false),
        })
    }
}

/// The seconds of `Keep-Alive: timeout=N`.
fn timeout(field: &[u8]) -> Option<u64> {
    field.split(|byte| *byte == b',').find_map(|part| {
        let at = part.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (part[..at].trim_ascii(), part[at + 1..].trim_ascii());
        name.eq_ignore_ascii_case(b"timeout").then(|| decimal(value))?
    })
}
