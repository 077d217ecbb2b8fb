//! Small writes gathered, so that what the connections of a thread have to say in one turn leaves together.
//!
//! A turn is what a serving thread does between two looks at its sockets. Written at once, every answer would wake its
//! client, which on most turns costs more than the writing; at the end of the turn they leave back to back, by code that
//! is warm. The HTTP/2 codec, besides, writes and flushes after every frame with more than 256 bytes: sixteen answers
//! that are ready at the same time would be sixteen TLS records and sixteen system calls. So here a flush means nothing.
//! The [`Outbox`] sends, or, sooner, the owner of the connection when it has nothing to add.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::poll_fn,
    io::{self, IoSlice},
    iter, mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf as _, BytesMut};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is gathered for one connection at most: as much as one TLS record holds. What does not fit is written at once.
const GATHERED: usize = 16 * 1024;
/// How much memory is asked for at first.
const FIRST: usize = 2 * 1024;
/// How many pieces of memory a thread keeps while nothing waits in them.
const SPARES: usize = 64;

/// What the connections of one thread have to say in this turn.
pub(super) struct Outbox<T> {
    unsent: RefCell<Vec<Gathered<T>>>,
    /// The task that sends.
    task: RefCell<Option<Waker>>,
    spares: RefCell<Vec<BytesMut>>,
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self { unsent: RefCell::default(), task: RefCell::default(), spares: RefCell::default() }
    }
}

impl<T: AsyncWrite + Unpin> Outbox<T> {
    /// Sends at the end of every turn. Never ends; it is a task beside those of the connections, woken by the first
    /// that has something to say, so that its turn comes after theirs.
    pub(super) async fn send(self: Rc<Self>) -> Infallible {
        let mut unsent = Vec::new();
        poll_fn(|cx| {
            self.task.borrow_mut().get_or_insert_with(|| cx.waker().clone());
            self.send_now(&mut unsent);
            Poll::Pending
        })
        .await
    }

    /// The end of the last turn: what there is leaves now or never.
    pub(super) fn close(&self) {
        self.send_now(&mut Vec::new());
    }

    fn send_now(&self, memory: &mut Vec<Gathered<T>>) {
        mem::swap(memory, &mut self.unsent.borrow_mut());
        for gathered in memory.drain(..) {
            gathered.send();
        }
    }

    fn put(&self, gathered: Gathered<T>) {
        let mut unsent = self.unsent.borrow_mut();
        unsent.push(gathered);
        if unsent.len() == 1
            && let Some(task) = &*self.task.borrow()
        {
            task.wake_by_ref();
        }
    }

    fn memory(&self, len: usize) -> BytesMut {
        let mut memory = self.spares.borrow_mut().pop().unwrap_or_default();
        memory.reserve(len.max(FIRST));
        memory
    }

    fn give_back(&self, memory: BytesMut) {
        let mut spares = self.spares.borrow_mut();
        if spares.len() < SPARES {
            spares.push(memory);
        }
    }
}

/// A stream whose writes wait for the end of the turn. Clones are the same stream.
pub(super) struct Gathered<T>(Rc<RefCell<Gathering<T>>>);

struct Gathering<T> {
    stream: T,
    outbox: Rc<Outbox<T>>,
    /// There while something waits, so that idle connections cost no memory.
    waiting: Option<BytesMut>,
    /// Whether not all that was written has left.
    unsent: bool,
    /// Whether the writer still has what the stream did not take.
    refused: bool,
    /// Whether the outbox knows.
    queued: bool,
    /// The task of the connection: woken when a stream that was full takes something again, or has broken.
    task: Option<Waker>,
}

impl<T: AsyncWrite + Unpin> Gathered<T> {
    pub(super) fn new(stream: T, outbox: &Rc<Outbox<T>>) -> Self {
        let outbox = Rc::clone(outbox);
        Self(Rc::new(RefCell::new(Gathering {
            stream,
            outbox,
            waiting: None,
            unsent: false,
            refused: false,
            queued: false,
            task: None,
        })))
    }

    /// What the stream says of itself.
    pub(super) fn ask<R>(&self, question: impl FnOnce(&T) -> R) -> R {
        question(&self.0.borrow().stream)
    }

    /// The stream itself, once nobody else holds it. What is unsent is lost.
    pub(super) fn into_inner(self) -> Option<T> {
        let outbox = Rc::clone(&self.0.borrow().outbox);
        outbox.unsent.borrow_mut().retain(|other| !Rc::ptr_eq(&other.0, &self.0));
        Some(Rc::into_inner(self.0)?.into_inner().stream)
    }

    /// Whether not all that was written, or was to be written, has left.
    pub(super) fn is_unsent(&self) -> bool {
        let gathering = self.0.borrow();
        gathering.unsent || gathering.refused
    }

    /// Sends what was gathered, and does not wait for the end of the turn.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(cx)
    }

    /// Sends what could not be sent at the end of an earlier turn. The task of the connection calls it whenever it is
    /// polled, for nobody else learns that the stream takes something again.
    pub(super) fn poll_rest(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.0.borrow_mut();
        if gathering.queued || !gathering.unsent { Poll::Ready(Ok(())) } else { gathering.poll_send(cx) }
    }

    /// The end of the turn.
    fn send(&self) {
        let mut gathering = self.0.borrow_mut();
        gathering.queued = false;
        let Some(task) = gathering.task.take() else { return };
        let sent = gathering.poll_send(&mut Context::from_waker(&task));
        if matches!(sent, Poll::Ready(Err(_))) {
            // The next attempt fails, too, where there is somebody to take the error.
            task.wake_by_ref();
        }
        gathering.task = Some(task);
    }

    fn gather(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut gathering = self.0.borrow_mut();
        let written = gathering.poll_write(cx, bufs);
        gathering.refused = written.is_pending();
        let written = ready!(written)?;
        gathering.unsent = true;
        if !gathering.queued {
            gathering.queued = true;
            if !gathering.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                gathering.task = Some(cx.waker().clone());
            }
            gathering.outbox.put(self.clone());
        }
        Poll::Ready(Ok(written))
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
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.unsent = false;
        Poll::Ready(Ok(()))
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
        let waiting = self.waiting.get_or_insert_with(|| self.outbox.memory(len));
        for buf in bufs {
            waiting.extend_from_slice(buf);
        }
        Poll::Ready(Ok(len))
    }

    /// Leaves the memory to others, once nothing waits in it.
    fn give_back(&mut self) {
        if let Some(sent) = self.waiting.take_if(|waiting| waiting.is_empty()) {
            self.outbox.give_back(sent);
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
        self.gather(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.gather(cx, bufs)
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

    /// An outbox whose task has been polled for the first time, as at the start of a thread.
    fn outbox() -> (Rc<Outbox<Sink>>, Pin<Box<impl Future<Output = Infallible>>>) {
        let outbox = Rc::<Outbox<Sink>>::default();
        let mut task = Box::pin(Rc::clone(&outbox).send());
        assert!(task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        (outbox, task)
    }

    /// Writes pieces of these sizes as the codec does, each followed by a flush, and ends the turn.
    #[track_caller]
    fn check(sizes: &[usize], appetite: usize, shy: bool, writes: usize) {
        let mut cx = Context::from_waker(Waker::noop());
        let (outbox, mut task) = outbox();
        let mut gathered = Gathered::new(Sink { appetite, shy, ..Sink::default() }, &outbox);
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
        assert_eq!(gathered.is_unsent(), !sizes.is_empty());
        assert!(task.as_mut().poll(&mut cx).is_pending());
        while gathered.poll_rest(&mut cx).map(Result::unwrap).is_pending() {}
        let gathering = gathered.0.borrow();
        assert!(gathering.stream.taken == text, "bytes were lost or changed places");
        assert_eq!((gathering.stream.writes, gathering.waiting.is_none(), gathering.unsent), (writes, true, false));
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
        let mut cx = Context::from_waker(Waker::noop());
        let (outbox, mut task) = outbox();
        let mut gathered = Gathered::new(Sink::default(), &outbox);
        assert!(matches!(Pin::new(&mut gathered).poll_write(&mut cx, b"text"), Poll::Ready(Ok(4))));
        assert!(task.as_mut().poll(&mut cx).is_pending());
        assert!(
            matches!(gathered.poll_rest(&mut cx), Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::WriteZero)
        );
    }

    #[test]
    fn what_the_stream_refused_is_unsent() {
        let mut cx = Context::from_waker(Waker::noop());
        let (outbox, mut task) = outbox();
        let sink = Sink { appetite: usize::MAX, shy: true, ..Sink::default() };
        let mut gathered = Gathered::new(sink, &outbox);
        let large = vec![b'x'; GATHERED + 1];
        assert!(Pin::new(&mut gathered).poll_write(&mut cx, &large).is_pending());
        assert!(task.as_mut().poll(&mut cx).is_pending());
        assert!(matches!(gathered.poll_rest(&mut cx), Poll::Ready(Ok(()))));
        assert!(gathered.is_unsent());
        assert!(Pin::new(&mut gathered).poll_write(&mut cx, &large).is_ready());
        outbox.close();
        assert!(!gathered.is_unsent());
    }

    #[test]
    fn nothing_leaves_before_the_end_of_the_turn() {
        let mut cx = Context::from_waker(Waker::noop());
        let (outbox, mut task) = outbox();
        let mut all = [(); 3].map(|()| Gathered::new(Sink { appetite: 9, ..Sink::default() }, &outbox));
        let written = |all: &[Gathered<Sink>; 3]| all.each_ref().map(|one| one.0.borrow().stream.taken.len());
        for one in &mut all {
            assert!(Pin::new(&mut *one).poll_write(&mut cx, b"text").is_ready());
            // The task of its connection is polled again, in the same turn.
            assert!(matches!(one.poll_rest(&mut cx), Poll::Ready(Ok(()))));
        }
        assert_eq!(written(&all), [0; 3]);
        assert!(task.as_mut().poll(&mut cx).is_pending());
        assert_eq!(written(&all), [4; 3]);
    }

    #[test]
    fn a_stream_can_be_had_back_in_the_middle_of_a_turn() {
        let mut cx = Context::from_waker(Waker::noop());
        let (outbox, mut task) = outbox();
        let mut gathered = Gathered::new(Sink { appetite: 9, ..Sink::default() }, &outbox);
        assert!(Pin::new(&mut gathered).poll_write(&mut cx, b"text").is_ready());
        assert!(gathered.clone().into_inner().is_none(), "somebody else holds it");
        assert!(gathered.into_inner().is_some_and(|stream| stream.taken.is_empty()));
        assert!(task.as_mut().poll(&mut cx).is_pending());
    }
}
