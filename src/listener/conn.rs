//! A connection as its serving thread knows it: cells that the wire and the exchanges write, and the tick reads.

use std::{
    any::Any,
    cell::{Cell, OnceCell, RefCell},
    fmt,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    task::{Context, Waker},
};

use ::http::HeaderMap;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::{
    answer::Fields,
    exchange::{Exchange, Registered, StreamTask},
    io::Upgraded,
    timers::Thread,
};
use crate::clock::Mono;

/// A connection of a client. Lives on one serving thread.
pub struct Connection {
    pub(super) thread: Rc<Thread>,
    /// The other end of the socket: the client, or a proxy before it.
    socket_peer: IpAddr,
    local: SocketAddr,
    peer: Cell<IpAddr>,
    proxied: Cell<bool>,
    secure: Cell<bool>,
    certified: Cell<bool>,
    http2: Cell<bool>,
    /// Whether the service knows that somebody it lets in is at the other end.
    vouched_for: Cell<bool>,
    /// When it was taken.
    accepted: Mono,
    pub(super) stage: Cell<Stage>,
    /// When the stage began, or the last exchange finished.
    pub(super) since: Cell<Mono>,
    /// When the first byte of the next head arrived.
    pub(super) head_since: Cell<Option<Mono>>,
    /// Whether bytes that arrive now belong to the next head.
    between: Cell<bool>,
    /// Exchanges begun since the connection was made.
    pub(super) begun: Cell<u64>,
    pub(super) exchanges: RefCell<SmallVec<[Registered; 1]>>,
    pub(super) bytes_read: Cell<u64>,
    /// How much more of an HTTP/2 connection is read before it is the others' turn.
    allowance: Cell<usize>,
    pub(super) bytes_written: Cell<u64>,
    /// When bytes last went out.
    pub(super) written: Cell<Mono>,
    /// Since when the socket takes nothing, while we have something for it.
    pub(super) write_stalled: Cell<Option<Mono>>,
    /// Whether the client has closed its side.
    ended: Cell<bool>,
    /// Whether the last request had a body.
    pub(super) has_body: Cell<bool>,
    /// Whether its answer may end with the connection alone: the client speaks HTTP/1.0.
    pub(super) ends_by_close: Cell<bool>,
    /// What the tick decided; the connection's task acts on it.
    pub(super) ending: Cell<Option<Ending>>,
    waker: RefCell<Option<Waker>>,
    /// The HTTP/2 stream whose task is being polled for the first time.
    stream: RefCell<Option<Rc<StreamTask>>>,
    upgrade: RefCell<Option<oneshot::Sender<Upgraded>>>,
    kept: OnceCell<Rc<dyn Any>>,
    /// The place in the thread's list.
    pub(super) index: Cell<usize>,
}

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The PROXY header is awaited.
    ProxyHeader,
    /// The TLS handshake is going on.
    Handshake,
    /// HTTP is spoken.
    Http,
    /// Another protocol has taken over.
    Upgraded,
    /// The answer is out; what the client still sends is read and thrown away for a moment.
    Lingering,
}

/// Why a connection is ended by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The PROXY header or the TLS handshake took too long, or too many are at it.
    Handshake,
    /// A head was begun and not finished in time.
    Head,
    /// Nothing was asked for too long.
    Idle,
    /// The client does not take its answer.
    Write,
    /// An exchange was cut and its holder did not act on it.
    Cut,
    /// The shutdown does not wait for it.
    Drain,
    /// Others came, and nobody had vouched for it.
    Crowded,
}

impl Connection {
    pub(super) fn new(thread: &Rc<Thread>, socket_peer: IpAddr, local: SocketAddr, stage: Stage) -> Rc<Self> {
        let now = thread.now();
        let connection = Rc::new(Self {
            thread: Rc::clone(thread),
            socket_peer,
            local,
            peer: Cell::new(socket_peer),
            proxied: Cell::new(false),
            secure: Cell::new(false),
            certified: Cell::new(false),
            http2: Cell::new(false),
            vouched_for: Cell::new(false),
            accepted: now,
            stage: Cell::new(stage),
            since: Cell::new(now),
            head_since: Cell::new(None),
            between: Cell::new(true),
            begun: Cell::new(0),
            exchanges: RefCell::default(),
            bytes_read: Cell::new(0),
            allowance: Cell::new(0),
            bytes_written: Cell::new(0),
            written: Cell::new(now),
            write_stalled: Cell::new(None),
            ended: Cell::new(false),
            has_body: Cell::new(false),
            ends_by_close: Cell::new(false),
            ending: Cell::new(None),
            waker: RefCell::default(),
            stream: RefCell::default(),
            upgrade: RefCell::default(),
            kept: OnceCell::new(),
            index: Cell::new(0),
        });
        thread.register(&connection);
        connection
    }

    /// Whose request it is before any header is looked at: the other end of the socket, or whom the PROXY header
    /// names. A mapped IPv4 address is the IPv4 address.
    pub fn peer(&self) -> IpAddr {
        self.peer.get()
    }

    /// The other end of the socket, whatever a PROXY header said.
    pub fn socket_peer(&self) -> IpAddr {
        self.socket_peer
    }

    /// Whether [`peer`](Self::peer) comes from a PROXY header.
    pub fn proxied(&self) -> bool {
        self.proxied.get()
    }

    /// The address it arrived at.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether the client speaks TLS, with us or with the proxy that says so in its PROXY header.
    pub fn secure(&self) -> bool {
        self.secure.get()
    }

    /// Whether the client has shown a certificate that the client CA has issued. Nobody else can have one: a handshake
    /// with another certificate fails.
    pub fn certified(&self) -> bool {
        self.certified.get()
    }

    /// Whether HTTP/2 is spoken.
    pub fn http2(&self) -> bool {
        self.http2.get()
    }

    /// Says that somebody who is let in is at the other end: this connection makes no room for others
    /// ([`max_strangers`](super::Settings::max_strangers)).
    pub fn vouch(&self) {
        self.vouched_for.set(true);
    }

    /// Whether somebody was let in on this connection.
    pub fn is_vouched_for(&self) -> bool {
        self.vouched_for.get()
    }

    /// When it was taken.
    pub(super) fn accepted(&self) -> Mono {
        self.accepted
    }

    /// Whether the listener is to stop. True from the moment it was asked to, also while it still takes new work: that
    /// is when balancers are to look elsewhere.
    pub fn draining(&self) -> bool {
        self.thread.asked_to_stop()
    }

    /// Time as of the last tick, for what needs no more accuracy: costs no reading of the clock.
    pub fn coarse_now(&self) -> Mono {
        self.thread.now()
    }

    /// Bytes that came in and went out on the wire, TLS and all.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_read.get(), self.bytes_written.get())
    }

    /// Begins an exchange. Call it first thing in [`Service::serve`](super::Service::serve), before any await: on
    /// HTTP/2 that is how the exchange comes to know its stream.
    pub fn begin(self: &Rc<Self>, _now: Mono) -> Exchange {
        self.head_since.set(None);
        self.between.set(false);
        self.begun.set(self.begun.get() + 1);
        self.thread.load.exchange_began();
        let mut exchanges = self.exchanges.borrow_mut();
        let exchange = Exchange::new(self, exchanges.len(), self.stream.take());
        exchanges.push(exchange.downgrade());
        exchange
    }

    /// What the service keeps with the connection, made when it is first asked for. One type for all services of a
    /// process: another one finds nothing.
    pub fn kept<T: Default + 'static>(&self) -> Option<Rc<T>> {
        let kept = self.kept.get_or_init(|| Rc::new(T::default()) as Rc<dyn Any>);
        Rc::clone(kept).downcast().ok()
    }

    /// No fields, for an answer on this connection.
    pub fn fields(&self) -> Fields {
        if self.http2() { Fields::as_map() } else { Fields::with_memory(self.thread.spares.text()) }
    }

    /// Takes back the fields of a request that is done with, so that the next one has room for its own.
    pub fn take_back(&self, fields: HeaderMap) {
        self.thread.spares.give_list(fields);
    }

    /// Asks for the connection itself, once an answer with 101 has been sent on it (HTTP/1.1 only).
    ///
    /// Call it before the answer is returned. The receiver errs when the client went away before. Keep the exchange
    /// for as long as the upgraded connection is used, and await its cut.
    pub fn upgrade(&self) -> oneshot::Receiver<Upgraded> {
        let (sender, receiver) = oneshot::channel();
        *self.upgrade.borrow_mut() = Some(sender);
        receiver
    }

    pub(super) fn take_upgrade(&self) -> Option<oneshot::Sender<Upgraded>> {
        self.upgrade.take()
    }

    /// The PROXY header was read.
    pub(super) fn set_proxied(&self, client: Option<IpAddr>, secure: bool) {
        if let Some(client) = client {
            self.peer.set(client);
            self.proxied.set(true);
        }
        self.secure.set(secure);
    }

    /// TLS is spoken, with a certificate of the client's or without.
    pub(super) fn set_secure(&self, certified: bool) {
        self.secure.set(true);
        self.certified.set(certified);
    }

    /// A stage begins, and its time with it.
    pub(super) fn enter(&self, stage: Stage) {
        self.stage.set(stage);
        self.since.set(self.thread.now());
    }

    /// HTTP begins; a head is awaited from now on.
    pub(super) fn enter_http(&self, http2: bool) {
        self.http2.set(http2);
        self.head_since.set(None);
        self.enter(Stage::Http);
    }

    /// The request in hand was read to its end: what comes now is the next head, if one is sent ahead.
    pub(super) fn request_read(&self) {
        self.between.set(true);
    }

    /// It is this connection's turn; so much of it is read until the next one.
    pub(super) fn begin_turn(&self, bytes: usize) {
        self.allowance.set(bytes);
    }

    /// Whether enough was read in this turn. HTTP/1 needs no bound, since a turn there is a few messages at most.
    pub(super) fn turn_is_over(&self) -> bool {
        self.allowance.get() == 0 && self.http2.get() && self.stage.get() == Stage::Http
    }

    /// The next head is awaited, or has begun with what was read before. What came meanwhile was the rest of a body.
    pub(super) fn await_head(&self, has_begun: bool) {
        self.head_since.set(has_begun.then(|| self.thread.now()));
    }

    /// Bytes came in.
    pub(super) fn on_read(&self, bytes: usize) {
        self.bytes_read.set(self.bytes_read.get() + bytes as u64);
        self.allowance.set(self.allowance.get().saturating_sub(bytes));
        if self.between.get() && self.head_since.get().is_none() {
            self.head_since.set(Some(self.thread.now()));
        }
    }

    /// The client closed its side.
    pub(super) fn on_end(&self) {
        self.ended.set(true);
    }

    pub(super) fn ended_by_client(&self) -> bool {
        self.ended.get()
    }

    /// Whether the drain may close an HTTP/1 connection at once.
    ///
    /// Not while a head is coming in; nor before the first one, nor during an answer or just after
    /// it: who asks again and again is told by the next answer, for a close would cross the next request, and that would
    /// be lost. An answer whose head leaves during the drain says by itself that it closes; one whose head left before
    /// can no longer say so. The tick gives them a moment.
    pub(super) fn may_close_now(&self) -> bool {
        self.thread.draining()
            && self.exchanges.borrow().is_empty()
            && self.begun.get() > 0
            && self.head_since.get().is_none()
            && self.thread.was_quiet(self)
    }

    /// Takes back an ending that was for want of a request: what has arrived meanwhile may be one. False: it was for
    /// another reason, and stays.
    pub(super) fn take_back_ending(&self, ending: Ending) -> bool {
        let taken = matches!(ending, Ending::Idle | Ending::Drain);
        if taken {
            self.ending.set(None);
        }
        taken
    }

    /// Bytes went out.
    pub(super) fn on_written(&self, bytes: usize) {
        self.bytes_written.set(self.bytes_written.get() + bytes as u64);
        self.written.set(self.thread.now());
        self.write_stalled.set(None);
    }

    /// The socket takes nothing more.
    pub(super) fn on_write_blocked(&self) {
        if self.write_stalled.get().is_none() {
            self.write_stalled.set(Some(self.thread.now()));
        }
    }

    /// An exchange's last handle was dropped.
    pub(super) fn finish(&self, index: usize) {
        let mut exchanges = self.exchanges.borrow_mut();
        exchanges.swap_remove(index);
        if let Some(moved) = exchanges.get(index) {
            moved.moved(index);
        }
        if exchanges.is_empty() {
            self.since.set(self.thread.now());
            self.between.set(true);
        }
        self.thread.load.exchange_finished();
    }

    /// Remembers the connection's task; it is the same at every poll.
    pub(super) fn set_task(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if waker.is_none() {
            *waker = Some(cx.waker().clone());
        }
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Ends the connection; the first reason stays.
    pub(super) fn end(&self, ending: Ending) {
        if self.ending.get().is_none() {
            self.ending.set(Some(ending));
        }
        self.wake();
    }

    /// Which stream's task is polled, so that the exchange that begins in it can be told.
    pub(super) fn set_stream(&self, stream: Option<Rc<StreamTask>>) {
        *self.stream.borrow_mut() = stream;
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer.get())
            .field("stage", &self.stage.get())
            .field("begun", &self.begun.get())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Connection {
    /// A connection without a socket, for tests of what is told about one.
    pub(crate) fn fake(peer: IpAddr, secure: bool, http2: bool) -> Rc<Self> {
        let thread = Rc::new(Thread::fake());
        let connection = Self::new(&thread, peer, SocketAddr::from(([127, 0, 0, 1], 8443)), Stage::Http);
        connection.secure.set(secure);
        connection.http2.set(http2);
        connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(client: Option<&str>, secure: bool, expected: (&str, bool, bool)) {
        let connection = Connection::fake("10.0.0.1".parse().unwrap(), false, false);
        connection.set_proxied(client.map(|client| client.parse().unwrap()), secure);
        assert_eq!(connection.socket_peer().to_string(), "10.0.0.1");
        assert_eq!((connection.peer().to_string().as_str(), connection.proxied(), connection.secure()), expected);
    }

    #[test]
    fn a_proxy_header_names_the_peer_or_leaves_it() {
        check(Some("203.0.113.7"), true, ("203.0.113.7", true, true));
        check(None, false, ("10.0.0.1", false, false));
    }
}
