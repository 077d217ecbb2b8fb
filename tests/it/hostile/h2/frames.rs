//! Frames, written and read by hand (RFC 9113 §4, §6; RFC 7541 §6): a library would refuse to send most of what is
//! tried here.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::harness::{Key, Sidecar, within};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const WITH_PRIORITY: u8 = 32;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame, whatever it says.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(super) fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let pairs: Vec<u8> =
        pairs.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &pairs)
}

pub(super) fn window_update(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

pub(super) fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

pub(super) fn data(stream: u32, text: &[u8]) -> Vec<u8> {
    frame(DATA, 0, stream, text)
}

pub(super) fn last_data(stream: u32, text: &[u8]) -> Vec<u8> {
    frame(DATA, END_STREAM, stream, text)
}

/// A block of fields: literals that are not to be kept, without Huffman (RFC 7541 §6.2.2), or any bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Block(pub(super) Vec<u8>);

impl Block {
    /// The four fields that every request has (RFC 9113 §8.3.1).
    pub(super) fn request(method: &str, path: &str) -> Self {
        Self::default()
            .field(":method", method)
            .field(":scheme", "https")
            .field(":authority", "api.example.com")
            .field(":path", path)
    }

    pub(super) fn field(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.0.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            self.0.extend(integer(7, 0, text.len()));
            self.0.extend(text);
        }
        self
    }

    pub(super) fn key(self, key: &Key) -> Self {
        self.field("authorization", key.authorization())
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// As the whole of a request.
    pub(super) fn whole(&self, stream: u32) -> Vec<u8> {
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &self.0)
    }

    /// As the head of a request, or of trailers, that has a body behind it.
    pub(super) fn open(&self, stream: u32) -> Vec<u8> {
        frame(HEADERS, END_HEADERS, stream, &self.0)
    }
}

/// An integer behind a prefix of so many bits (RFC 7541 §5.1).
pub(super) fn integer(bits: u32, pattern: u8, value: usize) -> Vec<u8> {
    let most = (1_usize << bits) - 1;
    if value < most {
        return vec![pattern | u8::try_from(value).unwrap()];
    }
    let mut bytes = vec![pattern | u8::try_from(most).unwrap()];
    let mut rest = value - most;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// A frame that the sidecar sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A whole answer with this status.
    Answer(u16),
    /// An answer that was begun, and reset.
    Broken(u16),
    /// The stream was reset with this error.
    Reset(u32),
    /// The connection was ended with this error.
    GoneAway(u32),
    /// The connection was ended without a word.
    Closed,
}

/// A client that sends frames as it likes.
pub(super) struct Peer {
    pub(super) reading: Reading,
    pub(super) writing: WriteHalf<TlsStream<TcpStream>>,
}

/// The half that reads.
pub(super) struct Reading {
    stream: ReadHalf<TlsStream<TcpStream>>,
    buffer: Vec<u8>,
}

impl Peer {
    /// A connection on which nothing was said yet but that HTTP/2 will be spoken.
    pub(super) async fn silent(sidecar: &Sidecar) -> Self {
        let tls = within("a handshake", sidecar.tls().connect(sidecar.tcp().await, &["h2"])).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (reading, writing) = tokio::io::split(tls);
        Self { reading: Reading { stream: reading, buffer: Vec::new() }, writing }
    }

    /// A connection that has begun as it should, with these settings. The sidecar is told to keep no fields, so that
    /// each answer can be read without those before it.
    pub(super) async fn with(sidecar: &Sidecar, pairs: &[(u16, u32)]) -> Self {
        let mut peer = Self::silent(sidecar).await;
        let pairs = [&[(1, 0)], pairs].concat();
        peer.write([PREFACE, &settings(&pairs)].concat()).await;
        peer
    }

    pub(super) async fn new(sidecar: &Sidecar) -> Self {
        Self::with(sidecar, &[]).await
    }

    /// Writes what is taken: a connection that the sidecar has ended takes nothing.
    pub(super) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.try_write(bytes).await;
    }

    pub(super) async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.writing.write_all(bytes.as_ref()).await?;
        self.writing.flush().await
    }

    /// Sends these frames and waits for what becomes of the stream.
    pub(super) async fn ask(&mut self, stream: u32, frames: impl AsRef<[u8]>) -> Outcome {
        self.write(frames).await;
        self.outcome(stream).await
    }

    pub(super) async fn outcome(&mut self, stream: u32) -> Outcome {
        within("the end of a stream", self.reading.outcome(stream)).await
    }
}

impl Reading {
    /// The next frame; none at the end.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.parse() {
                return Some(frame);
            }
            if !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..)) {
                return None;
            }
        }
    }

    fn parse(&mut self) -> Option<Frame> {
        let &[a, b, c, kind, flags, d, e, f, g, ..] = &self.buffer[..] else { return None };
        let end = 9 + u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = self.buffer.get(9..end)?.to_vec();
        self.buffer.drain(..end);
        Some(Frame { kind, flags, stream: u32::from_be_bytes([d & 127, e, f, g]), payload })
    }

    pub(super) async fn outcome(&mut self, stream: u32) -> Outcome {
        let mut status = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY && frame.error(4) != 0 {
                return Outcome::GoneAway(frame.error(4));
            }
            if frame.stream != stream {
                continue;
            }
            match frame.kind {
                HEADERS if status.is_none() => status = Some(frame.status()).filter(|status| *status >= 200),
                RST_STREAM => return status.map_or(Outcome::Reset(frame.error(0)), Outcome::Broken),
                _ => {}
            }
            if let Some(status) = status
                && matches!(frame.kind, HEADERS | DATA)
                && frame.flags & END_STREAM != 0
            {
                return Outcome::Answer(status);
            }
        }
        Outcome::Closed
    }
}

impl Frame {
    /// The error code that stands at this place.
    pub(super) fn error(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The status of an answer, its first field: one of seven by number (RFC 7541, Appendix A), or in digits, which
    /// have five bits or six (Appendix B).
    pub(super) fn status(&self) -> u16 {
        let mut block = &self.payload[..];
        // It says first how much it keeps, as it was told (RFC 7541 §6.3).
        while let [size @ 0b0010_0000..=0b0011_1111, rest @ ..] = block {
            let more = if *size == 0b0011_1111 { rest.iter().take_while(|byte| **byte > 127).count() + 1 } else { 0 };
            block = &rest[more..];
        }
        match block {
            [index @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
            [0x08 | 0x18 | 0x48, length, text @ ..] if length & 128 == 0 => {
                std::str::from_utf8(&text[..usize::from(*length)]).unwrap().parse().unwrap()
            }
            [0x08 | 0x18 | 0x48, length, text @ ..] => digits(&text[..usize::from(length & 127)]),
            _ => panic!("no status in {:02x?}", self.payload),
        }
    }
}

/// Three digits in the code of Huffman.
fn digits(text: &[u8]) -> u16 {
    let mut bits = text.iter().flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let five = bits.by_ref().take(5).fold(0, |all, bit| all << 1 | bit);
        number = number * 10
            + match five {
                0..=2 => five,
                // 011001 is 3, and so on.
                _ => (five << 1 | bits.next().unwrap()) - 0b01_1001 + 3,
            };
    }
    number
}
