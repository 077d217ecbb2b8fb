//! The tick: four times a second each serving thread looks at its connections, and ends what waited too long.
//!
//! Stamps are taken from the last tick, so that reading and writing cost no clock; hence every timeout has one tick
//! added, fires never early, and at most two ticks late.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{
    Timeouts,
    conn::{Connection, Ending, Stage},
    counters::Counters,
    exchange::{Cut, Tick},
};
use crate::clock::{self, Mono};

/// What a serving thread has open, for the accept thread to see who has the least.
#[derive(Debug, Default)]
pub(super) struct Load {
    connections: AtomicUsize,
    exchanges: AtomicUsize,
}

impl Load {
    /// An exchange weighs as much as four idle connections.
    pub(super) fn weight(&self) -> usize {
        self.connections.load(Ordering::Relaxed) + 4 * self.exchanges.load(Ordering::Relaxed)
    }

    /// The accept thread hands a connection over: counted at once, so that a burst is spread.
    pub(super) fn connection_handed_over(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Only the serving thread writes this one, so that a plain store is enough.
    pub(super) fn exchange_began(&self) {
        self.exchanges.store(self.exchanges.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(super) fn exchange_finished(&self) {
        self.exchanges.store(self.exchanges.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }
}

/// How finely time is kept. The defaults are right; tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// How often connections are looked at.
    pub tick: Duration,
    /// How long a client may go on sending after its answer, so that closing does not tear the answer from its hands.
    pub linger: Duration,
    /// While draining, how long a connection that was just accepted may take to send its first byte, and an HTTP/2
    /// connection without streams to go.
    pub drain_patience: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(250),
            linger: Duration::from_secs(2),
            drain_patience: Duration::from_secs(1),
        }
    }
}

/// What the connections of one serving thread share.
pub(super) struct Thread {
    now: Cell<Mono>,
    timeouts: Timeouts,
    tuning: Tuning,
    /// When the drain began.
    draining: Cell<Option<Mono>>,
    pub(super) counters: Arc<Counters>,
    pub(super) load: Arc<Load>,
    connections: RefCell<Vec<Rc<Connection>>>,
    last_tick: Cell<Mono>,
    handshakes: Cell<usize>,
}

/// TLS handshakes at a time on one thread. Each costs memory for as long as its client likes, up to the timeout.
const HANDSHAKES: usize = 512;

/// A place among the handshakes, given back when dropped.
pub(super) struct HandshakePlace(Rc<Thread>);

impl Drop for HandshakePlace {
    fn drop(&mut self) {
        self.0.handshakes.set(self.0.handshakes.get() - 1);
    }
}

impl Thread {
    pub(super) fn new(timeouts: Timeouts, tuning: Tuning, counters: Arc<Counters>, load: Arc<Load>) -> Self {
        Self {
            now: Cell::new(clock::mono()),
            timeouts,
            tuning,
            draining: Cell::new(None),
            counters,
            load,
            connections: RefCell::default(),
            last_tick: Cell::default(),
            handshakes: Cell::new(0),
        }
    }

    /// Time as of the last tick.
    pub(super) fn now(&self) -> Mono {
        self.now.get()
    }

    pub(super) fn set_now(&self, now: Mono) {
        self.now.set(now.max(self.now.get()));
    }

    pub(super) fn draining(&self) -> bool {
        self.draining.get().is_some()
    }

    pub(super) fn register(&self, connection: &Rc<Connection>) {
        let mut connections = self.connections.borrow_mut();
        connection.index.set(connections.len());
        connections.push(Rc::clone(connection));
    }

    pub(super) fn unregister(&self, connection: &Connection) {
        let mut connections = self.connections.borrow_mut();
        let index = connection.index.get();
        let gone = connections.swap_remove(index);
        if let Some(moved) = connections.get(index) {
            moved.index.set(index);
        }
        drop(connections);
        drop(gone);
    }

    /// A handshake begins. If there are too many, the oldest is ended: a flood of clients that begin and never finish
    /// loses its own, while one that goes on is done in a few round trips.
    pub(super) fn handshake(self: &Rc<Self>) -> HandshakePlace {
        self.handshakes.set(self.handshakes.get() + 1);
        if self.handshakes.get() > HANDSHAKES {
            let connections = self.connections.borrow();
            let waiting = connections
                .iter()
                .filter(|connection| connection.stage.get() == Stage::Handshake && connection.ending.get().is_none());
            if let Some(oldest) = waiting.min_by_key(|connection| connection.since.get()) {
                oldest.end(Ending::Handshake);
            }
        }
        HandshakePlace(Rc::clone(self))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }

    /// Looks at every connection, as of `now`.
    pub(super) fn tick(&self, now: Mono) {
        let pause = now.since(self.last_tick.replace(now));
        self.set_now(now);
        // The thread was not run for a while (a starved or suspended machine): what the clients sent meanwhile waits
        // in their sockets. They are looked at by the next tick, after it was read.
        if pause > 2 * self.tuning.tick + Duration::from_secs(1) {
            return;
        }
        for connection in self.connections.borrow().iter() {
            self.look_at(connection, now);
        }
    }

    fn look_at(&self, connection: &Connection, now: Mono) {
        let exchanges = connection.exchanges.borrow();
        if let Some(ending) = self.overdue(connection, exchanges.is_empty(), now) {
            if ending == Ending::Write {
                exchanges.iter().for_each(|exchange| exchange.cut(Cut::WriteTimeout));
            }
            connection.end(ending);
            return;
        }
        let tick = Tick {
            now,
            body: self.timeouts.body + self.tuning.tick,
            write: self.timeouts.write + self.tuning.tick,
            // On HTTP/2 the progress of one stream says nothing of another.
            written: if connection.http2() { Mono::default() } else { connection.written.get() },
        };
        for exchange in exchanges.iter() {
            if exchange.check(&tick) {
                if exchange.is_write_timeout() {
                    self.counters.write_timeouts.add();
                }
                if !exchange.end_stream() {
                    connection.end(Ending::Cut);
                }
            }
        }
    }

    /// Whether the connection itself has waited too long for something.
    fn overdue(&self, connection: &Connection, no_exchange: bool, now: Mono) -> Option<Ending> {
        let Self { timeouts, tuning, .. } = self;
        let over = |since: Mono, limit: Duration| now.since(since) >= limit.saturating_add(tuning.tick);
        let since = connection.since.get();
        if connection.write_stalled.get().is_some_and(|since| over(since, timeouts.write)) {
            return Some(Ending::Write);
        }
        match connection.stage.get() {
            Stage::ProxyHeader => over(since, timeouts.header).then_some(Ending::Handshake),
            Stage::Handshake => over(since, timeouts.handshake).then_some(Ending::Handshake),
            Stage::Upgraded => None,
            Stage::Lingering => over(since, tuning.linger).then_some(Ending::Idle),
            Stage::Http if !no_exchange => None,
            Stage::Http => {
                let quiet = since.max(connection.written.get());
                if let Some(began) = self.draining.get()
                    && over(began, tuning.drain_patience)
                    && over(quiet, tuning.drain_patience)
                    && (connection.http2() || connection.head_since.get().is_none())
                {
                    return Some(Ending::Drain);
                }
                // An HTTP/2 client may send what it likes (pings) without asking for anything: only requests count.
                if connection.http2() {
                    let limit = if connection.begun.get() == 0 { timeouts.header } else { timeouts.idle };
                    return over(since, limit).then_some(Ending::Idle);
                }
                match connection.head_since.get() {
                    Some(head) => over(head.max(since), timeouts.header).then_some(Ending::Head),
                    None if connection.begun.get() == 0 => over(since, timeouts.header).then_some(Ending::Idle),
                    // The rest of the last answer may still be on its way out.
                    None => over(quiet, timeouts.idle).then_some(Ending::Idle),
                }
            }
        }
    }

    /// The drain begins: every connection's task is told.
    pub(super) fn drain(&self) {
        if self.draining.get().is_none() {
            self.draining.set(Some(self.now.get()));
        }
        for connection in self.connections.borrow().iter() {
            connection.wake();
        }
    }

    /// The drain's grace is over: whoever holds an exchange is told. Gives how many there are.
    pub(super) fn cut_all(&self) -> usize {
        let mut cut = 0;
        for connection in self.connections.borrow().iter() {
            let exchanges = connection.exchanges.borrow();
            exchanges.iter().for_each(|exchange| exchange.cut(Cut::Drain));
            cut += exchanges.len();
        }
        cut
    }
}

#[cfg(test)]
impl Thread {
    pub(super) fn fake() -> Self {
        Self::new(Timeouts::default(), Tuning::default(), Arc::default(), Arc::default())
    }
}
