//! HTTP/1.1 by hand: the tests must see and send exactly what stands on the wire, which no library shows.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection, byte by byte.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

/// The head of a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    /// Every byte up to the empty line, and that.
    pub(crate) raw: Vec<u8>,
}

/// How the body after a head ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

/// A part of a body: what it says, and what stood on the wire for it.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) content: Vec<u8>,
    pub(crate) raw: Vec<u8>,
    /// Set with the last part of a complete body.
    pub(crate) last: bool,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Head {
    /// The first line.
    pub(crate) fn line(&self) -> String {
        self.text().lines().next().unwrap_or_default().to_owned()
    }

    /// All fields, names as sent.
    pub(crate) fn fields(&self) -> Vec<(String, String)> {
        fields(&self.text())
    }

    /// All values of a field, in any case of its name.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.fields().into_iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    pub(crate) fn request_framing(&self) -> Framing {
        self.framing().unwrap_or(Framing::None)
    }

    pub(crate) fn answer_framing(&self, method: &str, status: u16) -> Framing {
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Framing::None;
        }
        self.framing().unwrap_or(Framing::UntilClose)
    }

    fn framing(&self) -> Option<Framing> {
        if self.all("transfer-encoding").iter().any(|value| value.trim().eq_ignore_ascii_case("chunked")) {
            return Some(Framing::Chunked);
        }
        self.all("content-length").first().map(|length| Framing::Length(length.trim().parse().unwrap()))
    }
}

fn fields(text: &str) -> Vec<(String, String)> {
    let lines = text.split("\r\n").skip(1).filter(|line| !line.is_empty());
    lines.map(|line| line.split_once(':').unwrap_or((line, ""))).map(|(n, v)| (n.into(), v.trim().into())).collect()
}

impl Wire {
    pub(crate) fn new(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), buffer: Vec::new() }
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    /// Ends the sending half.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Reads some more bytes; 0 is the end.
    async fn fill(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.buffer).await
    }

    /// Whatever comes next, up to `most` bytes; empty at the end.
    pub(crate) async fn some(&mut self, most: usize) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        Ok(self.buffer.drain(..most.min(self.buffer.len())).collect())
    }

    /// Exactly so many bytes.
    pub(crate) async fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// Everything up to the end; an end by reset is an end.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while matches!(self.fill().await, Ok(1..)) {}
        std::mem::take(&mut self.buffer)
    }

    /// What was read and belongs to nothing yet.
    pub(crate) fn left(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Bytes up to and with the mark; `None` at an end before its first byte.
    async fn until(&mut self, mark: &[u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|window| window == mark) {
                return Ok(Some(self.buffer.drain(..at + mark.len()).collect()));
            }
            if self.fill().await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// The next head; `None` when the connection ends before it.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        Ok(self.until(b"\r\n\r\n").await?.map(|raw| Head { raw }))
    }

    /// The next part of a body of which `got` bytes were read before; a chunk is a part.
    pub(crate) async fn part(&mut self, framing: Framing, got: usize) -> io::Result<Part> {
        match framing {
            Framing::None => Ok(Part { last: true, ..Part::default() }),
            Framing::Length(length) if got >= length => Ok(Part { last: true, ..Part::default() }),
            Framing::Length(length) => {
                let content = self.some(length - got).await?;
                if content.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let last = got + content.len() == length;
                Ok(Part { raw: content.clone(), content, last, trailers: Vec::new() })
            }
            Framing::UntilClose => {
                let content = self.some(usize::MAX).await?;
                Ok(Part { raw: content.clone(), last: content.is_empty(), content, trailers: Vec::new() })
            }
            Framing::Chunked => self.chunk().await,
        }
    }

    async fn chunk(&mut self) -> io::Result<Part> {
        let eof = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let mut raw = self.until(b"\r\n").await?.ok_or_else(eof)?;
        let line = String::from_utf8_lossy(&raw).into_owned();
        let digits = line.trim_end().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(digits, 16).map_err(|_| io::Error::other(format!("chunk size {line:?}")))?;
        if size > 0 {
            let content = self.exactly(size).await?;
            raw.extend(&content);
            raw.extend(self.exactly(2).await?);
            return Ok(Part { content, raw, ..Part::default() });
        }
        let mut trailers = String::from("\r\n");
        loop {
            let line = self.until(b"\r\n").await?.ok_or_else(eof)?;
            raw.extend(&line);
            if line == b"\r\n" {
                return Ok(Part { raw, last: true, trailers: fields(&trailers), ..Part::default() });
            }
            trailers.push_str(&String::from_utf8_lossy(&line));
        }
    }
}
