//! Kept connections to one upstream, of one serving thread: newest first, bounded, dropped before the upstream does.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    connect::Destination,
    share::{Caller, Held, Holders},
    wire::Wire,
};
use crate::clock::Mono;

/// The connections of this thread to one upstream.
#[derive(Debug)]
pub struct Pool {
    destination: Arc<Destination>,
    idle_timeout: Duration,
    /// How many connections this thread may have open: its share of `max_connections`.
    cap: usize,
    open: Cell<usize>,
    /// Whether a reload has put another pool in its place: then nothing is kept any more.
    closed: Cell<bool>,
    /// Time as of the last checkout or the last tick.
    now: Cell<Mono>,
    idle: RefCell<Vec<Idle>>,
    /// Whose exchanges are on the others.
    holders: Rc<Holders>,
    /// Those that wait for a connection, in order of arrival.
    waiting: RefCell<VecDeque<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    caller: Caller,
    turn: oneshot::Sender<Turn>,
}

#[derive(Debug)]
struct Idle {
    connection: PooledConnection,
    since: Mono,
}

/// What one who waited is given.
#[derive(Debug)]
enum Turn {
    Reuse(PooledConnection),
    Open(Opened, Held),
}

/// One of the connections that count against the cap, from before it is opened until it is gone.
#[derive(Debug)]
struct Opened(Rc<Pool>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.hand_on_place();
    }
}

/// A connection that is in nobody's use, or in that of one exchange.
#[derive(Debug)]
pub struct PooledConnection {
    /// Shared with the task that sends on a body whose answer has begun already.
    pub wire: Rc<RefCell<Wire>>,
    idle_timeout: Duration,
    /// Whose it is, unless it is nobody's. Dropped before the connection's place is handed on.
    held: Option<Held>,
    opened: Opened,
}

impl PooledConnection {
    /// Ends the connection at once, whatever is under way on it.
    pub fn cut(self) {
        self.wire.borrow_mut().cut();
    }

    /// Lowers how long it is kept idle to what the upstream's own `Keep-Alive: timeout=N` says, less a second for the
    /// way there.
    pub fn heed_keep_alive(&mut self, timeout: Duration) {
        self.idle_timeout = self.idle_timeout.min(timeout.saturating_sub(Duration::from_secs(1)));
    }
}

/// Why no connection could be had.
#[derive(Debug)]
pub enum CheckoutError {
    /// All are in use, or as many as this caller may have, and none became free within the connect timeout.
    AllInUse,
    /// The upstream cannot be reached.
    Connect(io::Error),
}

impl Pool {
    /// An empty pool.
    pub fn new(destination: Arc<Destination>, idle_timeout: Duration, cap: usize) -> Rc<Self> {
        Rc::new(Self {
            destination,
            idle_timeout,
            cap: cap.max(1),
            open: Cell::new(0),
            closed: Cell::new(false),
            now: Cell::new(Mono::default()),
            idle: RefCell::default(),
            holders: Rc::default(),
            waiting: RefCell::default(),
        })
    }

    /// The upstream that the connections lead to.
    pub fn destination(&self) -> &Arc<Destination> {
        &self.destination
    }

    /// The newest kept connection, if there is a good one: the usual way, which waits for nothing.
    pub fn checkout_kept(&self, caller: Caller, now: Mono) -> Option<PooledConnection> {
        self.now.set(now);
        if !self.may_have(caller) {
            return None;
        }
        loop {
            let newest = self.idle.borrow_mut().pop()?;
            if newest.is_good(now) {
                return Some(PooledConnection { held: Some(self.holders.note(caller)), ..newest.connection });
            }
        }
    }

    /// A new connection, or one that becomes free. The flag tells whether it was kept.
    ///
    /// # Errors
    ///
    /// See [`CheckoutError`].
    pub async fn checkout(self: &Rc<Self>, caller: Caller) -> Result<(PooledConnection, bool), CheckoutError> {
        match self.place(caller) {
            Some((place, held)) => Ok((self.connect(place, held).await?, false)),
            None => self.wait(caller).await,
        }
    }

    /// A new connection: for a request that a kept one handed back unsent, and for upgrades.
    ///
    /// # Errors
    ///
    /// See [`CheckoutError`].
    pub async fn checkout_fresh(self: &Rc<Self>, caller: Caller) -> Result<PooledConnection, CheckoutError> {
        if self.open.get() >= self.cap && self.may_have(caller) {
            // The oldest idle one makes room.
            let oldest = {
                let mut idle = self.idle.borrow_mut();
                (!idle.is_empty()).then(|| idle.remove(0))
            };
            // Dropped with no borrow held: it hands its place on.
            drop(oldest);
        }
        match self.place(caller) {
            Some((place, held)) => self.connect(place, held).await,
            None => match self.wait(caller).await? {
                (PooledConnection { wire, held: Some(held), opened, .. }, true) => {
                    wire.borrow_mut().cut();
                    self.connect(opened, held).await
                }
                (connection, _) => Ok(connection),
            },
        }
    }

    /// Takes back a connection whose exchange has ended, request body and answer.
    pub fn put_back(&self, mut connection: PooledConnection) {
        connection.held = None;
        {
            let mut wire = connection.wire.borrow_mut();
            if !wire.is_quiet() || connection.idle_timeout.is_zero() || self.closed.get() {
                wire.cut();
                return;
            }
            wire.rest();
        }
        match self.next_waiter() {
            Some(Waiter { caller, turn }) => {
                let held = Some(self.holders.note(caller));
                drop(turn.send(Turn::Reuse(PooledConnection { held, ..connection })));
            }
            None => self.idle.borrow_mut().push(Idle { connection, since: self.now.get() }),
        }
    }

    /// Another pool takes over: what lies idle is closed now, what is in use when its exchange ends.
    pub fn close(&self) {
        self.closed.set(true);
        let idle = self.idle.take();
        // Dropped with no borrow held: a dropped connection hands its place on.
        drop(idle);
    }

    /// Drops kept connections that are closed or have lain too long. Called once a second.
    pub fn prune(&self, now: Mono) {
        self.now.set(now);
        let gone: Vec<Idle> = {
            let mut idle = self.idle.borrow_mut();
            let (kept, gone) = std::mem::take(&mut *idle).into_iter().partition(|idle| idle.is_good(now));
            *idle = kept;
            gone
        };
        // Dropped with no borrow held: a dropped connection hands its place on.
        drop(gone);
    }

    /// Whether one caller may have one more connection.
    fn may_have(&self, caller: Caller) -> bool {
        self.holders.may_have(caller, self.holders.count(), self.cap)
    }

    fn place(self: &Rc<Self>, caller: Caller) -> Option<(Opened, Held)> {
        (self.open.get() < self.cap && self.may_have(caller)).then(|| {
            self.open.set(self.open.get() + 1);
            (Opened(Rc::clone(self)), self.holders.note(caller))
        })
    }

    /// The first who still waits and may have a connection.
    fn next_waiter(&self) -> Option<Waiter> {
        let mut waiting = self.waiting.borrow_mut();
        // One caller may have many that wait, and is asked after once.
        let mut refused = None;
        let mut at = 0;
        loop {
            let waiter = waiting.get(at)?;
            if waiter.turn.is_closed() {
                waiting.remove(at);
            } else if refused != Some(waiter.caller) && self.may_have(waiter.caller) {
                return waiting.remove(at);
            } else {
                refused = Some(waiter.caller);
                at += 1;
            }
        }
    }

    fn hand_on_place(self: &Rc<Self>) {
        // Nothing else runs on this thread meanwhile, so one who still waits takes what is sent.
        if let Some(Waiter { caller, turn }) = self.next_waiter()
            && let Some((place, held)) = self.place(caller)
        {
            drop(turn.send(Turn::Open(place, held)));
        }
    }

    async fn wait(self: &Rc<Self>, caller: Caller) -> Result<(PooledConnection, bool), CheckoutError> {
        let (sender, turn) = oneshot::channel();
        self.waiting.borrow_mut().push_back(Waiter { caller, turn: sender });
        match tokio::time::timeout(self.destination.connect_timeout(), turn).await {
            Ok(Ok(Turn::Reuse(connection))) if connection.wire.borrow_mut().is_still_open() => Ok((connection, true)),
            Ok(Ok(Turn::Reuse(PooledConnection { held: Some(held), opened, .. }))) => {
                Ok((self.connect(opened, held).await?, false))
            }
            Ok(Ok(Turn::Open(place, held))) => Ok((self.connect(place, held).await?, false)),
            Ok(Ok(Turn::Reuse(_)) | Err(_)) | Err(_) => Err(CheckoutError::AllInUse),
        }
    }

    async fn connect(self: &Rc<Self>, opened: Opened, held: Held) -> Result<PooledConnection, CheckoutError> {
        let stream = self.destination.connect().await.map_err(CheckoutError::Connect)?;
        let wire = Rc::new(RefCell::new(Wire::new(stream)));
        Ok(PooledConnection { wire, idle_timeout: self.idle_timeout, held: Some(held), opened })
    }
}

impl Idle {
    fn is_good(&self, now: Mono) -> bool {
        now.since(self.since) < self.connection.idle_timeout && self.connection.wire.borrow_mut().is_still_open()
    }
}
