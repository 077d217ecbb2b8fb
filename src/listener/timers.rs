//! The tick: four times a second each serving thread looks at its connections, and ends what waited too long.
//!
//! Stamps are taken from the last tick, so that reading and writing cost no clock; hence every timeout has one tick
//! added, fires never early, and at most two ticks late.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::{
    Timeouts,
    conn::{Connection, Ending, Stage},
    counters::Counters,
    crowd::Caps,
    exchange::{Cut, Tick},
    gather::Outbox,
    h1::Spares,
    io::Stream,
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
    /// While draining, how long a connection that was just accepted may take to send its first byte, one on which an
    /// answer has just left to send its next, and an HTTP/2 connection without streams to go.
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
    pub(super) tuning: Tuning,
    /// Whether the listener was asked to stop.
    asked: Arc<AtomicBool>,
    /// When the drain reached the connections, which is after its delay.
    draining: Cell<Option<Mono>>,
    pub(super) counters: Arc<Counters>,
    pub(super) load: Arc<Load>,
    pub(super) connections: RefCell<Vec<Rc<Connection>>>,
    last_tick: Cell<Mono>,
    pub(super) handshakes: Cell<usize>,
    pub(super) caps: Caps,
    /// What the connections have to say in this turn.
    pub(super) outbox: Rc<Outbox<Stream>>,
    /// Memory that they use in turn.
    pub(super) spares: Rc<Spares>,
    date: RefCell<Date>,
}

/// The value of `Date`, and as of which tick it is right.
#[derive(Debug, Default)]
struct Date {
    as_of: Mono,
    text: Bytes,
}

impl Thread {
    pub(super) fn new(
        timeouts: Timeouts,
        tuning: Tuning,
        counters: Arc<Counters>,
        load: Arc<Load>,
        asked: Arc<AtomicBool>,
        caps: Caps,
    ) -> Self {
        Self {
            now: Cell::new(clock::mono()),
            timeouts,
            tuning,
            asked,
            draining: Cell::new(None),
            counters,
            load,
            connections: RefCell::default(),
            last_tick: Cell::default(),
            handshakes: Cell::new(0),
            caps,
            outbox: Rc::default(),
            spares: Rc::default(),
            date: RefCell::default(),
        }
    }

    /// The value of `Date` (RFC 9110 §6.6.1), as of the last tick.
    pub(super) fn date(&self) -> Bytes {
        let mut date = self.date.borrow_mut();
        if date.text.is_empty() || date.as_of != self.now() {
            let wall = Duration::from_secs(clock::now().wall.unix_seconds().unsigned_abs());
            *date = Date { as_of: self.now(), text: httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + wall).into() };
        }
        date.text.clone()
    }

    /// Time as of the last tick.
    pub(super) fn now(&self) -> Mono {
        self.now.get()
    }

    pub(super) fn set_now(&self, now: Mono) {
        self.now.set(now.max(self.now.get()));
    }

    /// Whether the listener was asked to stop, though connections may not be closed yet.
    pub(super) fn asked_to_stop(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether connections are to be closed once nothing is open on them.
    pub(super) fn draining(&self) -> bool {
        self.draining.get().is_some()
    }

    /// Whether nothing was asked or answered on a connection for longer than clients wait that ask again and again.
    pub(super) fn was_quiet(&self, connection: &Connection) -> bool {
        let quiet = connection.since.get().max(connection.written.get());
        self.now().since(quiet) >= self.tuning.drain_patience.saturating_add(self.tuning.tick)
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
        let draining = self.draining.get().is_some_and(|began| over(began, tuning.drain_patience));
        match connection.stage.get() {
            // A client that has not even got to asking does not hold a shutdown.
            Stage::ProxyHeader | Stage::Handshake if draining => Some(Ending::Drain),
            Stage::ProxyHeader => over(since, timeouts.header).then_some(Ending::Handshake),
            Stage::Handshake => over(since, timeouts.handshake).then_some(Ending::Handshake),
            Stage::Upgraded => None,
            // A request may have crossed the notice that its idle HTTP/2 connection is to be closed.
            Stage::Lingering if connection.http2() && !no_exchange => None,
            Stage::Lingering => over(since, tuning.linger).then_some(Ending::Idle),
            Stage::Http if !no_exchange => None,
            // The end of an answer is still on its way to a client that reads slowly: that has its own time.
            Stage::Http if connection.write_stalled.get().is_some() => None,
            Stage::Http => {
                let quiet = since.max(connection.written.get());
                // Only one that was just accepted, or speaks HTTP/2, has the whole of the patience from the beginning.
                let told = draining || self.draining() && !connection.http2() && connection.begun.get() > 0;
                if told && self.was_quiet(connection) && (connection.http2() || connection.head_since.get().is_none()) {
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

    /// The last moment: connections that are still there are to end, those with an exchange or something unsent by a
    /// reset.
    pub(super) fn end_all(&self) {
        for connection in self.connections.borrow().iter() {
            let is_idle = connection.exchanges.borrow().is_empty();
            connection.end(if is_idle { Ending::Drain } else { Ending::Cut });
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
        let (timeouts, tuning) = (Timeouts::default(), Tuning::default());
        Self::new(timeouts, tuning, Arc::default(), Arc::default(), Arc::default(), Caps::MANY)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use super::*;

    const HEADER: Duration = Duration::from_secs(15);
    const IDLE: Duration = Duration::from_secs(60);
    const TICK: Duration = Duration::from_millis(250);

    fn connection(thread: &Rc<Thread>, stage: Stage) -> Rc<Connection> {
        Connection::new(thread, IpAddr::V4(Ipv4Addr::LOCALHOST), SocketAddr::from(([127, 0, 0, 1], 443)), stage)
    }

    /// Ticks on and on, and tells when the connection was ended, counted from the first tick.
    #[track_caller]
    fn check(what: impl Fn(&Rc<Connection>), stage: Stage, expected: Option<(Ending, Duration)>) {
        let thread = Rc::new(Thread::fake());
        let start = thread.now();
        let connection = connection(&thread, stage);
        thread.tick(start);
        what(&connection);
        let mut passed = Duration::ZERO;
        while connection.ending.get().is_none() && passed < Duration::from_secs(300) {
            passed += TICK;
            thread.tick(start.plus(passed));
        }
        assert_eq!(connection.ending.get().map(|ending| (ending, passed)), expected);
        thread.unregister(&connection);
    }

    #[test]
    fn what_a_connection_may_take() {
        let handshake = Duration::from_secs(10);
        check(|_| {}, Stage::Handshake, Some((Ending::Handshake, handshake + TICK)));
        check(|_| {}, Stage::ProxyHeader, Some((Ending::Handshake, HEADER + TICK)));
        check(|_| {}, Stage::Http, Some((Ending::Idle, HEADER + TICK)));
        check(|connection| connection.on_read(1), Stage::Http, Some((Ending::Head, HEADER + TICK)));
        check(|connection| drop(connection.begin(Mono::default())), Stage::Http, Some((Ending::Idle, IDLE + TICK)));
        check(|_| {}, Stage::Upgraded, None);
        check(|_| {}, Stage::Lingering, Some((Ending::Idle, Duration::from_secs(2) + TICK)));
        let write = Duration::from_secs(30);
        check(|connection| connection.on_write_blocked(), Stage::Upgraded, Some((Ending::Write, write + TICK)));
    }

    /// The end of an answer that its client reads slowly has the time of writing, whatever else goes on.
    #[test]
    fn an_answer_may_leave_slowly_behind_its_exchange() {
        let answered = |connection: &Rc<Connection>| {
            drop(connection.begin(Mono::default()));
            connection.on_write_blocked();
        };
        let expected = Some((Ending::Write, Duration::from_secs(30) + TICK));
        let asked_again = |connection: &Rc<Connection>| {
            answered(connection);
            connection.on_read(1);
        };
        check(asked_again, Stage::Http, expected);
        let draining = |connection: &Rc<Connection>| {
            answered(connection);
            connection.thread.drain();
        };
        check(draining, Stage::Http, expected);
    }

    #[test]
    fn bytes_of_the_body_do_not_begin_a_head_but_those_after_it_do() {
        let ahead = |connection: &Rc<Connection>, read_to_its_end: bool| {
            let exchange = connection.begin(Mono::default());
            if read_to_its_end {
                exchange.await_upstream(Mono::from_nanos(u64::MAX));
            }
            connection.on_read(10);
            drop(exchange);
        };
        check(|connection| ahead(connection, false), Stage::Http, Some((Ending::Idle, IDLE + TICK)));
        check(|connection| ahead(connection, true), Stage::Http, Some((Ending::Head, HEADER + TICK)));
    }

    #[test]
    fn an_open_exchange_is_no_idleness() {
        let thread = Rc::new(Thread::fake());
        let connection = connection(&thread, Stage::Http);
        let exchange = connection.begin(Mono::default());
        let start = thread.now();
        for second in 0..600 {
            thread.tick(start.plus(Duration::from_secs(second)));
        }
        assert_eq!((connection.ending.get(), exchange.cut()), (None, None));
        drop(exchange);
        thread.unregister(&connection);
    }

    /// A machine that was suspended, or a thread that was starved: what the clients sent meanwhile is still to be read.
    #[test]
    fn a_pause_of_the_thread_is_not_held_against_its_clients() {
        let thread = Rc::new(Thread::fake());
        let connection = connection(&thread, Stage::Http);
        let start = thread.now();
        thread.tick(start);
        let later = start.plus(Duration::from_secs(3600));
        thread.set_now(later);
        thread.tick(later);
        assert_eq!(connection.ending.get(), None);
        drop(connection.begin(later));
        thread.tick(later.plus(TICK));
        assert_eq!(connection.ending.get(), None);
        thread.unregister(&connection);
    }

    #[test]
    fn exchanges_leave_in_any_order() {
        let thread = Rc::new(Thread::fake());
        let connection = connection(&thread, Stage::Http);
        let mut exchanges: Vec<_> = (0..5).map(|_| connection.begin(Mono::default())).collect();
        let twin = exchanges[1].clone();
        drop(exchanges.remove(1));
        drop(exchanges.remove(3));
        drop(exchanges.remove(0));
        assert_eq!(connection.exchanges.borrow().len(), 3);
        assert_eq!(thread.load.weight(), 4 * 3);
        thread.cut_all();
        assert!(exchanges.iter().chain([&twin]).all(|exchange| exchange.cut() == Some(Cut::Drain)));
        drop((exchanges, twin));
        assert!(connection.exchanges.borrow().is_empty());
        assert_eq!(thread.load.weight(), 0);
        thread.unregister(&connection);
    }

    /// Who sends the body on must not wipe out, by its next step, what the pipeline is to be told.
    #[test]
    fn progress_undoes_a_timeout_but_not_a_dead_key() {
        let thread = Rc::new(Thread::fake());
        let connection = connection(&thread, Stage::Http);
        let exchange = connection.begin(Mono::default());
        let key = Arc::<crate::keys::record::KeyState>::default();
        let start = thread.now();
        thread.tick(start);
        exchange.await_upstream(start);
        thread.tick(start.plus(TICK));
        assert_eq!(exchange.cut(), Some(Cut::ResponseTimeout));
        exchange.await_client_body(start);
        assert_eq!(exchange.cut(), None);
        exchange.watch_key(Arc::clone(&key), true);
        key.dead.store(true, Ordering::Relaxed);
        thread.tick(start.plus(2 * TICK));
        exchange.await_client_body(start);
        assert_eq!(exchange.cut(), Some(Cut::Revoked));
        exchange.act_on_cut();
        thread.tick(start.plus(3 * TICK));
        assert_eq!(exchange.cut(), None);
        drop(exchange);
        thread.unregister(&connection);
    }
}
