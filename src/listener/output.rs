//! What is still to be written on a connection: lines, small pieces among them, and one large piece behind, uncopied.

use std::{
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

/// Pieces up to this size are copied behind the line before them, so that both leave in one piece of memory.
const SMALL_PIECE: usize = 4 * 1024;

/// How much text there is at most before it is handed on.
const FULL: usize = 16 * 1024;

/// What is still to be written.
#[derive(Debug, Default)]
pub struct Output {
    /// Heads and the lines between chunks, with small pieces among them.
    text: Vec<u8>,
    text_sent: usize,
    /// A piece too large to be copied; behind the text.
    piece: Bytes,
    /// What ends the piece.
    tail: &'static [u8],
    /// Whether anything of the message was taken by the connection.
    begun: bool,
    /// Whether something was handed on that may lie in a buffer there.
    unflushed: bool,
}

impl Output {
    /// A message that begins with this head.
    pub fn new(head: Vec<u8>) -> Self {
        Self { text: head, ..Self::default() }
    }

    /// Whether all was handed on.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.piece.is_empty() && self.tail.is_empty()
    }

    /// Whether it has to be handed on before more is put behind it.
    pub fn is_full(&self) -> bool {
        !self.piece.is_empty() || !self.tail.is_empty() || self.text.len() >= FULL
    }

    /// Whether all has left.
    pub fn is_quiet(&self) -> bool {
        self.is_empty() && !self.unflushed
    }

    /// The head, where nothing of the message was taken.
    pub fn take_unsent(&mut self) -> Option<Vec<u8>> {
        (!self.begun).then(|| mem::take(&mut self.text).split_off(mem::take(&mut self.text_sent)))
    }

    /// Where lines are written.
    pub fn text(&mut self) -> &mut Vec<u8> {
        self.settle();
        &mut self.text
    }

    /// Puts a piece of a body behind the text, and `tail` behind it.
    pub fn push_piece(&mut self, piece: Bytes, tail: &'static [u8]) {
        self.settle();
        if piece.len() <= SMALL_PIECE {
            self.text.extend_from_slice(&piece);
            self.text.extend_from_slice(tail);
        } else {
            self.piece = piece;
            self.tail = tail;
        }
    }

    /// Whatever is pushed comes behind what was pushed before; seldom, since a large piece is mostly handed on first.
    fn settle(&mut self) {
        if !self.piece.is_empty() || !self.tail.is_empty() {
            self.text.extend_from_slice(&mem::take(&mut self.piece));
            self.text.extend_from_slice(mem::take(&mut self.tail));
        }
    }

    /// Puts lines behind what there is: those of this text that begin at `start`. Gives memory back that it has no use
    /// for; where nothing waits, that is what it had before, and nothing is copied.
    #[must_use]
    pub fn push_lines(&mut self, mut lines: Vec<u8>, start: usize) -> Vec<u8> {
        if self.is_empty() {
            mem::swap(&mut self.text, &mut lines);
            self.text_sent = start;
        } else {
            self.text().extend_from_slice(&lines[start..]);
        }
        lines
    }

    /// Gives all memory back, where nothing waits in it.
    pub fn take_memory(&mut self) -> Option<Vec<u8>> {
        self.is_empty().then(|| mem::take(&mut self.text))
    }

    /// Hands all on that was pushed, and flushes.
    ///
    /// # Errors
    ///
    /// When the connection takes nothing more.
    pub fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), io::Error>> {
        while !self.is_empty() {
            let text = &self.text[self.text_sent..];
            let written = if self.piece.is_empty() && self.tail.is_empty() {
                ready!(Pin::new(&mut *stream).poll_write(cx, text))
            } else {
                let slices = [IoSlice::new(text), IoSlice::new(&self.piece), IoSlice::new(self.tail)];
                ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices))
            };
            match written {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(bytes) => self.written(bytes),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether anything of the message was taken by the connection: then it is sent nowhere else.
    pub fn is_begun(&self) -> bool {
        self.begun
    }

    fn written(&mut self, bytes: usize) {
        self.begun = true;
        self.unflushed = true;
        let text = bytes.min(self.text.len() - self.text_sent);
        self.text_sent += text;
        if self.text_sent == self.text.len() {
            self.text.clear();
            self.text_sent = 0;
        }
        let piece = (bytes - text).min(self.piece.len());
        self.piece.advance(piece);
        self.tail = &self.tail[bytes - text - piece..];
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes `appetite` bytes at a time, and keeps them for itself until it is flushed for the second time.
    struct Buffered {
        taken: Vec<u8>,
        appetite: usize,
        flushes: usize,
    }

    impl AsyncWrite for Buffered {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let bytes = buf.len().min(self.appetite);
            self.taken.extend_from_slice(&buf[..bytes]);
            Poll::Ready(Ok(bytes))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            if self.flushes == 1 { Poll::Pending } else { Poll::Ready(Ok(())) }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// What is pushed leaves in its order, in whatever pieces it is taken.
    #[track_caller]
    fn check(piece: usize, appetite: usize) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut stream = Buffered { taken: Vec::new(), appetite, flushes: 1 };
        let mut output = Output::new(b"HEAD|".to_vec());
        output.push_piece(vec![b'x'; piece].into(), b"|TAIL");
        assert_eq!(output.is_full(), piece > SMALL_PIECE);
        assert!(matches!(output.poll_write(&mut stream, &mut cx), Poll::Ready(Ok(()))));
        assert_eq!(stream.taken, [b"HEAD|".to_vec(), vec![b'x'; piece], b"|TAIL".to_vec()].concat());
        assert!(output.is_quiet() && output.is_begun() && output.take_unsent().is_none());
    }

    #[test]
    fn what_is_pushed_without_being_handed_on_keeps_its_order() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut stream = Buffered { taken: Vec::new(), appetite: usize::MAX, flushes: 1 };
        let mut output = Output::default();
        let large = |byte| Bytes::from(vec![byte; SMALL_PIECE + 1]);
        output.push_piece(large(b'a'), b"|");
        output.push_piece(large(b'b'), b"|");
        output.text().extend_from_slice(b"c");
        assert!(output.poll_write(&mut stream, &mut cx).is_ready());
        assert_eq!(stream.taken, [&large(b'a')[..], b"|", &large(b'b'), b"|c"].concat());
    }

    #[test]
    fn lines_are_taken_over_or_put_behind() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut stream = Buffered { taken: Vec::new(), appetite: 3, flushes: 1 };
        let mut output = Output::default();
        assert_eq!(output.push_lines(b"....first|".to_vec(), 4).capacity(), 0);
        assert!(output.take_memory().is_none());
        assert_eq!(output.push_lines(b"..second|".to_vec(), 2), b"..second|");
        output.push_piece(Bytes::from(vec![b'x'; SMALL_PIECE + 1]), b"|");
        assert_eq!(output.push_lines(b".third".to_vec(), 1), b".third");
        assert!(output.poll_write(&mut stream, &mut cx).is_ready());
        let large = vec![b'x'; SMALL_PIECE + 1];
        assert_eq!(stream.taken, [b"first|second|".as_slice(), &large, b"|third"].concat());
        assert!(output.take_memory().is_some_and(|memory| memory.is_empty() && memory.capacity() > 0));
        assert_eq!(output.push_lines(b"..again".to_vec(), 2).capacity(), 0);
        assert!(output.poll_write(&mut stream, &mut cx).is_ready());
        assert!(stream.taken.ends_with(b"|thirdagain"));
        let mut unsent = Output::default();
        assert_eq!(unsent.push_lines(b"..unsent".to_vec(), 2).capacity(), 0);
        assert_eq!(unsent.take_unsent().as_deref(), Some(&b"unsent"[..]));
    }

    #[test]
    fn all_leaves_in_its_order() {
        for appetite in [1, 7, 4096, usize::MAX] {
            [0, 1, SMALL_PIECE, SMALL_PIECE + 1, 70_000].into_iter().for_each(|piece| check(piece, appetite));
        }
    }

    /// Behind TLS, what was written may still lie there.
    #[test]
    fn what_is_not_flushed_is_not_over() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut stream = Buffered { taken: Vec::new(), appetite: usize::MAX, flushes: 0 };
        let mut output = Output::new(b"HEAD".to_vec());
        assert!(!output.is_quiet() && !output.is_begun());
        assert!(output.poll_write(&mut stream, &mut cx).is_pending());
        assert!(output.is_empty() && output.is_begun() && !output.is_quiet());
        assert!(output.poll_write(&mut stream, &mut cx).is_ready());
        assert!(output.is_quiet());
    }
}
