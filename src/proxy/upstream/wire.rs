//! A connection to the upstream: what was read ahead of need, and what is still to be written.

use std::{
    io,
    pin::pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;

use super::connect::UpstreamStream;
use crate::listener::{framing::Source, output::Output};

/// How much is read at once: at first, and at most, once an answer proves to be large.
const LEAST_READ: usize = 8 * 1024;
const MOST_READ: usize = 64 * 1024;

/// A connection to the upstream and its buffers.
#[derive(Debug)]
pub struct Wire {
    /// Gone once the connection was cut or has become a tunnel.
    stream: Option<UpstreamStream>,
    input: BytesMut,
    /// How much the next read makes room for.
    read_size: usize,
    output: Output,
    /// Who waits for input, where another task might cut the connection meanwhile.
    reader: Option<Waker>,
}

impl Wire {
    /// A connection on which nothing was said.
    pub fn new(stream: UpstreamStream) -> Self {
        Self {
            stream: Some(stream),
            input: BytesMut::new(),
            read_size: LEAST_READ,
            output: Output::default(),
            reader: None,
        }
    }

    /// Ends the connection at once, and lets whoever waits for it know.
    pub fn cut(&mut self) {
        self.stream = None;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// The stream itself, and what was read of it ahead of need: another protocol takes over.
    pub fn take_stream(&mut self) -> Option<(UpstreamStream, Bytes)> {
        Some((self.stream.take()?, self.input.split().freeze()))
    }

    /// Whether nothing is under way in either direction, so that a request may follow.
    pub fn is_quiet(&self) -> bool {
        self.stream.is_some() && self.input.is_empty() && self.output.is_quiet()
    }

    /// Whether the upstream has neither closed the connection nor spoken out of turn while it lay idle. Without news
    /// from the kernel this costs no system call.
    pub fn is_still_open(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let mut cx = Context::from_waker(Waker::noop());
        if stream.poll_read_ready(&mut cx).is_pending() {
            return true;
        }
        // There is news: TLS may only have sent a session ticket, which is nothing to us.
        pin!(stream.read_buf(&mut self.input)).poll(&mut cx).is_pending()
    }

    // Writing.

    /// Begins a request: nothing else is to be written.
    pub fn push_head(&mut self, head: Vec<u8>) {
        self.output = Output::new(head);
    }

    /// The head of a request again, of which nothing was written.
    pub fn take_unsent(&mut self) -> Option<Vec<u8>> {
        self.output.take_unsent()
    }

    /// Where lines are written; never while a large piece is pending.
    pub fn text(&mut self) -> &mut Vec<u8> {
        self.output.text()
    }

    /// Puts a piece of a body behind the text, and `tail` behind it.
    pub fn push_piece(&mut self, piece: Bytes, tail: &'static [u8]) {
        self.output.push_piece(piece, tail);
    }

    /// Writes all that was pushed. The flag of an error tells whether anything of the request had been written before.
    pub fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), (io::Error, bool)>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err((cut_short(), true))) };
        let written = ready!(self.output.poll_write(stream, cx));
        Poll::Ready(written.map_err(|error| (error, self.output.is_begun())))
    }

    /// The exchange is over: the next one begins small again.
    pub fn rest(&mut self) {
        if self.read_size > LEAST_READ {
            self.read_size = LEAST_READ;
            self.input = BytesMut::new();
        }
        self.reader = None;
    }
}

impl Source for Wire {
    /// What has been read and not been taken.
    fn input(&self) -> &[u8] {
        &self.input
    }

    /// Takes bytes from the front of what has been read.
    fn consume(&mut self, bytes: usize) {
        self.input.advance(bytes);
    }

    /// Takes up to `most` bytes of what has been read. Nothing is copied: when all that was taken of the buffer is
    /// gone, it is used again.
    fn take(&mut self, most: u64) -> Bytes {
        let bytes = usize::try_from(most).unwrap_or(usize::MAX).min(self.input.len());
        self.input.split_to(bytes).freeze()
    }

    /// Reads more. 0: the upstream has closed its side.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(cut_short())) };
        if self.input.capacity() - self.input.len() < self.read_size / 4 {
            self.input.reserve(self.read_size);
        }
        let room = self.input.capacity() - self.input.len();
        let Poll::Ready(read) = pin!(stream.read_buf(&mut self.input)).poll(cx) else {
            if !self.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
                self.reader = Some(cx.waker().clone());
            }
            return Poll::Pending;
        };
        let bytes = read?;
        if bytes == room {
            self.read_size = (self.read_size * 2).min(MOST_READ);
        }
        Poll::Ready(Ok(bytes))
    }
}

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was cut")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behind TLS, what was written may still lie there.
    #[test]
    fn what_is_not_flushed_is_not_over() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ours, _theirs) = tokio::net::UnixStream::pair().unwrap();
            let mut wire = Wire::new(UpstreamStream::Unix(ours));
            assert!(wire.is_quiet());
            wire.push_head(b"GET / HTTP/1.1\r\n\r\n".to_vec());
            assert!(!wire.is_quiet());
            std::future::poll_fn(|cx| wire.poll_write(cx)).await.unwrap();
            assert!(wire.is_quiet());
        });
    }
}
