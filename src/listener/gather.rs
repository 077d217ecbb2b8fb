//! Small writes gathered, so that what an HTTP/2 connection has to say in one turn leaves together.
//!
//! The HTTP/2 codec writes and flushes after every frame with more than 256 bytes. So sixteen answers that are ready at
//! the same time would be sixteen TLS records and sixteen system calls. Here a flush means nothing; the owner of the
//! connection sends what was gathered when the turn is over.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    iter,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is gathered at most: as much as one TLS record holds. What does not fit is written at once.
const GATHERED: usize = 16 * 1024;

/// A stream whose writes wait for [`poll_send`](Self::poll_send). Clones are the same stream.
pub(super) struct Gathered<T>(Rc<RefCell<Gathering<T>>>);

struct Gathering<T> {
    stream: T,
    /// There while something waits, so that idle connections cost no memory.
    waiting: Option<BytesMut>,
    /// The memory, while no connection of the thread uses it.
    spare: Rc<Cell<BytesMut>>,
}

impl<T: AsyncWrite + Unpin> Gathered<T> {
    pub(super) fn new(stream: T, spare: &Rc<Cell<BytesMut>>) -> Self {
        Self(Rc::new(RefCell::new(Gathering { stream, waiting: None, spare: Rc::clone(spare) })))
    }

    /// The stream itself, once nobody else holds it.
    pub(super) fn into_inner(self) -> Option<T> {
        Some(Rc::into_inner(self.0)?.into_inner().stream)
    }

    /// Sends what was gathered. Call it at the end of every turn, for nobody else does.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }
}

impl<T> Clone for Gathered<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T: AsyncWrite + Unpin> Gathering<T> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(waiting) = &mut self.waiting {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, waiting))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => waiting.advance(written),
            }
            self.give_back();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let len = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        while self.waiting.as_ref().map_or(0, BytesMut::len) + len > GATHERED {
            let Some(waiting) = &mut self.waiting else {
                return Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
            };
            // Not copied, but written behind what waits.
            let written = {
                let first = IoSlice::new(waiting);
                let all: SmallVec<[IoSlice<'_>; 8]> = iter::once(first).chain(bufs.iter().copied()).collect();
                ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &all))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_waiting = written.min(waiting.len());
            waiting.advance(of_waiting);
            self.give_back();
            if written > of_waiting {
                return Poll::Ready(Ok(written - of_waiting));
            }
        }
        let waiting = self.waiting.get_or_insert_with(|| {
            let mut memory = self.spare.take();
            memory.reserve(GATHERED);
            memory
        });
        for buf in bufs {
            waiting.extend_from_slice(buf);
        }
        Poll::Ready(Ok(len))
    }

    /// Leaves the memory to others, once nothing waits in it.
    fn give_back(&mut self) {
        if let Some(sent) = self.waiting.take_if(|waiting| waiting.is_empty()) {
            self.spare.set(sent);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gathered<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gathered<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.0.borrow_mut();
        ready!(gathering.poll_send(cx))?;
        Pin::new(&mut gathering.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `appetite` bytes at a time, and refuses every other time if it is `shy`.
    #[derive(Default)]
    struct Sink {
        taken: Vec<u8>,
        writes: usize,
        appetite: usize,
        shy: bool,
        refused: bool,
    }

    impl AsyncWrite for Sink {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.refused = self.shy && !self.refused;
            if self.refused {
                return Poll::Pending;
            }
            let all = bufs.iter().flat_map(|buf| buf.iter().copied()).take(self.appetite).collect::<Vec<_>>();
            self.writes += 1;
            self.taken.extend_from_slice(&all);
            Poll::Ready(Ok(all.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes pieces of these sizes as the codec does, each followed by a flush, and ends the turn.
    #[track_caller]
    fn check(sizes: &[usize], appetite: usize, shy: bool, writes: usize) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut gathered = Gathered::new(Sink { appetite, shy, ..Sink::default() }, &Rc::default());
        let text: Vec<u8> = (0..sizes.iter().sum()).map(|at: usize| (at % 251) as u8).collect();
        let mut rest = &text[..];
        for &size in sizes {
            let (mut piece, after) = rest.split_at(size);
            rest = after;
            while !piece.is_empty() {
                let (head, tail) = piece.split_at(piece.len().min(9));
                let bufs = [IoSlice::new(head), IoSlice::new(tail)];
                if let Poll::Ready(written) = Pin::new(&mut gathered).poll_write_vectored(&mut cx, &bufs) {
                    piece = &piece[written.unwrap()..];
                }
            }
            assert!(Pin::new(&mut gathered).poll_flush(&mut cx).is_ready());
        }
        while gathered.poll_send(&mut cx).map(Result::unwrap).is_pending() {}
        let gathering = gathered.0.borrow();
        assert!(gathering.stream.taken == text, "bytes were lost or changed places");
        assert_eq!((gathering.stream.writes, gathering.waiting.is_none()), (writes, true));
    }

    #[test]
    fn what_is_small_leaves_together_and_what_is_large_behind_it() {
        let all = usize::MAX;
        check(&[], all, false, 0);
        check(&[700; 16], all, false, 1);
        check(&[700; 32], all, false, 2);
        check(&[300, 16 * 1024 + 9, 16 * 1024 + 9, 300], all, false, 3);
        check(&[700; 16], 1000, true, 12);
        check(&[300, 40_000, 300], 1000, true, 41);
    }

    #[test]
    fn a_stream_that_takes_nothing_is_given_up() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut gathered = Gathered::new(Sink::default(), &Rc::default());
        assert!(matches!(Pin::new(&mut gathered).poll_write(&mut cx, b"text"), Poll::Ready(Ok(4))));
        assert!(
            matches!(gathered.poll_send(&mut cx), Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::WriteZero)
        );
    }
}
