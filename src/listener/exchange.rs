//! An exchange: one request and its answer, and whom it waits for.
//!
//! The pipeline says in one store per step whom an exchange waits for; the tick of the serving thread finds those that
//! wait too long. So a request costs no timer of its own.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::{Rc, Weak},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use smallvec::SmallVec;

use super::conn::Connection;
use crate::{clock::Mono, keys::record::KeyState};

/// Why an exchange was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The client sent nothing more of its body for too long.
    BodyTimeout,
    /// The client took nothing more of the answer for too long.
    WriteTimeout,
    /// The upstream did not answer in time.
    ResponseTimeout,
    /// The key was revoked, and what it has in flight is to be cut.
    Revoked,
    /// The time to finish before the shutdown is over.
    Drain,
}

/// Whom an exchange waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// For nobody, or for somebody who may take as long as they want.
    Nobody,
    /// For more of the request's body, since then.
    ClientBody(Mono),
    /// For the upstream, until then.
    Upstream(Mono),
    /// For the client to take what was written, since then.
    ClientRead(Mono),
}

/// One request and its answer on a connection; on HTTP/2 one stream.
///
/// Clones are the same exchange, so that a body and the future that made it can both hold it. It has finished when the
/// last clone is dropped: the response body must hold one until its end.
#[derive(Clone)]
pub struct Exchange(Rc<State>);

struct State {
    connection: Rc<Connection>,
    /// The place in the connection's list; moves when another one is taken out.
    index: Cell<usize>,
    wait: Cell<Wait>,
    cut: Cell<Option<Cut>>,
    /// How many ticks a cut has gone without anybody acting on it.
    ignored: Cell<u8>,
    /// The tasks that asked for the cut: the one of the pipeline, and the one that sends the body on.
    wakers: RefCell<SmallVec<[Waker; 2]>>,
    key: RefCell<Option<Arc<KeyState>>>,
    /// The task of the HTTP/2 stream; an HTTP/1 exchange runs in the connection's own.
    stream: Option<Rc<StreamTask>>,
}

/// The task in which hyper runs an HTTP/2 stream.
#[derive(Default)]
pub(super) struct StreamTask {
    waker: RefCell<Option<Waker>>,
    ended: Cell<bool>,
    /// Whether its exchange began, so that the connection need not be told again whose turn it is.
    pub(super) begun: Cell<bool>,
}

/// How many ticks the holder of an exchange has to act on a cut, before its stream or connection is ended.
const IGNORED_TICKS: u8 = 2;

impl Exchange {
    /// Begins an exchange; [`Connection::begin`] registers it.
    pub(super) fn new(connection: &Rc<Connection>, index: usize, stream: Option<Rc<StreamTask>>) -> Self {
        if let Some(stream) = &stream {
            stream.begun.set(true);
        }
        Self(Rc::new(State {
            connection: Rc::clone(connection),
            index: Cell::new(index),
            wait: Cell::new(Wait::Nobody),
            cut: Cell::new(None),
            ignored: Cell::new(0),
            wakers: RefCell::default(),
            key: RefCell::default(),
            stream,
        }))
    }

    /// The connection it came on.
    pub fn connection(&self) -> &Rc<Connection> {
        &self.0.connection
    }

    /// From `now` on more of the request's body is awaited; call again with every piece that arrives.
    ///
    /// A body without progress for the `body` timeout is cut: [`Cut::BodyTimeout`].
    pub fn await_client_body(&self, now: Mono) {
        self.await_for(Wait::ClientBody(now));
    }

    /// The upstream is awaited until `deadline`, then [`Cut::ResponseTimeout`]; the request was read to its end.
    pub fn await_upstream(&self, deadline: Mono) {
        self.0.connection.request_read();
        self.await_for(Wait::Upstream(deadline));
    }

    /// The upstream is awaited until `deadline` to take what the client sent; then [`Cut::ResponseTimeout`].
    pub fn await_upstream_progress(&self, deadline: Mono) {
        self.await_for(Wait::Upstream(deadline));
    }

    /// From `now` on the client is awaited to take what was written; call again with every piece it is given.
    ///
    /// On HTTP/1 any progress of the connection counts; on HTTP/2 only the next call does, so hand out pieces of at
    /// most 64 KiB: a stream that its client stalls must not live on its neighbours' progress.
    pub fn await_client_read(&self, now: Mono) {
        self.await_for(Wait::ClientRead(now));
    }

    /// Nobody is awaited, or somebody who may take any time: a streamed answer, an upgraded connection.
    pub fn idle(&self) {
        self.await_for(Wait::Nobody);
    }

    /// Whom it waits for changed, so a cut for waiting too long is moot; a dead key and the end of the drain are not.
    fn await_for(&self, wait: Wait) {
        self.0.wait.set(wait);
        if let Some(Cut::BodyTimeout | Cut::WriteTimeout | Cut::ResponseTimeout) = self.0.cut.get() {
            self.0.cut.set(None);
            self.0.ignored.set(0);
        }
    }

    /// The holder acts on the cut: it answers, and that answer is not to be cut for the same reason again.
    pub fn act_on_cut(&self) {
        self.idle();
        self.0.cut.set(None);
        self.0.ignored.set(0);
        self.0.key.take();
    }

    /// Ready once the exchange is to be cut: it waited too long, its key died, or the drain's grace is over.
    ///
    /// Whoever gets it answers (before the head of the answer; see [`act_on_cut`](Self::act_on_cut)), or ends the body
    /// with an error and lets go of the exchange. If after half a second nobody did either, the HTTP/2 stream is reset, or the HTTP/1 connection closed.
    pub fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<Cut> {
        if let Some(cut) = self.0.cut.get() {
            return Poll::Ready(cut);
        }
        let mut wakers = self.0.wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The cut, if there is one.
    pub fn cut(&self) -> Option<Cut> {
        self.0.cut.get()
    }

    /// With `cut`, the exchange is cut within a second of the key's death; without, the key is not watched.
    pub fn watch_key(&self, key: Arc<KeyState>, cut: bool) {
        *self.0.key.borrow_mut() = cut.then_some(key);
    }

    pub(super) fn downgrade(&self) -> Registered {
        Registered(Rc::downgrade(&self.0))
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("wait", &self.0.wait.get()).field("cut", &self.0.cut.get()).finish()
    }
}

/// The last clone is gone: the exchange has finished.
impl Drop for State {
    fn drop(&mut self) {
        self.connection.finish(self.index.get());
    }
}

/// An exchange in its connection's list.
pub(super) struct Registered(Weak<State>);

/// What the tick knows when it looks at an exchange.
pub(super) struct Tick {
    pub(super) now: Mono,
    /// What the timeouts are, each already with the tick's own length added, so that none fires early.
    pub(super) body: Duration,
    pub(super) write: Duration,
    /// The connection's last progress in writing, where that counts for the exchange.
    pub(super) written: Mono,
}

impl Registered {
    /// Its place in the list is another one now.
    pub(super) fn moved(&self, index: usize) {
        if let Some(state) = self.0.upgrade() {
            state.index.set(index);
        }
    }

    /// Looks whether the exchange is to be cut. True: it was cut two ticks ago, and nobody acted on it.
    pub(super) fn check(&self, tick: &Tick) -> bool {
        let Some(state) = self.0.upgrade() else { return false };
        if state.cut.get().is_some() {
            state.ignored.set(state.ignored.get().saturating_add(1));
            return state.ignored.get() >= IGNORED_TICKS;
        }
        if let Some(cut) = state.overdue(tick) {
            state.set_cut(cut);
        }
        false
    }

    /// Cuts it, whatever it waits for.
    pub(super) fn cut(&self, cut: Cut) {
        if let Some(state) = self.0.upgrade() {
            state.set_cut(cut);
        }
    }

    /// Ends the task of its HTTP/2 stream. False: it has none, and the connection must be ended.
    pub(super) fn end_stream(&self) -> bool {
        match self.0.upgrade() {
            Some(state) => state.stream.as_ref().is_some_and(|stream| {
                stream.end();
                true
            }),
            None => true,
        }
    }

    /// Whether the cut it was given says that its client takes nothing.
    pub(super) fn is_write_timeout(&self) -> bool {
        self.0.upgrade().is_some_and(|state| state.cut.get() == Some(Cut::WriteTimeout))
    }
}

impl State {
    fn overdue(&self, tick: &Tick) -> Option<Cut> {
        if let Some(key) = self.key.borrow().as_ref()
            && key.dead.load(Ordering::Relaxed)
        {
            return Some(Cut::Revoked);
        }
        match self.wait.get() {
            Wait::Nobody => None,
            Wait::ClientBody(since) => (tick.now.since(since) >= tick.body).then_some(Cut::BodyTimeout),
            Wait::Upstream(deadline) => (tick.now >= deadline).then_some(Cut::ResponseTimeout),
            Wait::ClientRead(since) => {
                let since = since.max(tick.written);
                (tick.now.since(since) >= tick.write).then_some(Cut::WriteTimeout)
            }
        }
    }

    fn set_cut(&self, cut: Cut) {
        self.cut.set(Some(cut));
        for waker in self.wakers.borrow_mut().drain(..) {
            waker.wake();
        }
    }
}

impl StreamTask {
    /// Remembers the task, which is the same at every poll. True: it is to end.
    pub(super) fn poll_ended(&self, cx: &mut Context<'_>) -> bool {
        if !self.ended.get() {
            let mut waker = self.waker.borrow_mut();
            if waker.is_none() {
                *waker = Some(cx.waker().clone());
            }
        }
        self.ended.get()
    }

    fn end(&self) {
        self.ended.set(true);
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}
