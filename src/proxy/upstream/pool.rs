//! Kept connections to one upstream, of one serving thread: newest first, bounded, dropped before the upstream does.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use super::{
    connect::Destination,
    places::{Opened, Places, Turn, Waiter},
    share::{Caller, Held},
    wire::Wire,
};
use crate::clock::Mono;

/// The connections of this thread to one upstream.
#[derive(Debug)]
pub struct Pool {
    destination: Arc<Destination>,
    idle_timeout: Duration,
    /// What connections may be opened, and who waits for one; shared with the pool that a reload puts in this one's place.
    places: Rc<Places>,
    /// Whether a reload has put another pool in its place: then nothing is kept any more.
    closed: Cell<bool>,
    /// Time as of the last checkout or the last tick.
    now: Cell<Mono>,
    idle: RefCell<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    connection: PooledConnection,
    since: Mono,
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
    /// An empty pool of at most so many connections. What is in use of an older one to the same upstream counts.
    pub fn new(destination: Arc<Destination>, idle_timeout: Duration, most: usize, older: Option<&Self>) -> Rc<Self> {
        let places = older.map_or_else(Rc::default, |older| Rc::clone(&older.places));
        places.all.set(most.max(1));
        let pool = Rc::new(Self {
            destination,
            idle_timeout,
            places,
            closed: Cell::new(false),
            now: Cell::new(Mono::default()),
            idle: RefCell::default(),
        });
        pool.places.pool.replace(Rc::downgrade(&pool));
        // There may be more of them than before.
        pool.places.offer();
        pool
    }

    /// The upstream that the connections lead to.
    pub fn destination(&self) -> &Arc<Destination> {
        &self.destination
    }

    /// The newest kept connection, if there is a good one: the usual way, which waits for nothing.
    pub fn checkout_kept(&self, caller: Caller, now: Mono) -> Option<PooledConnection> {
        self.now.set(now);
        if !self.places.may_have(caller) {
            return None;
        }
        let kept = self.newest_idle(now)?.connection;
        Some(PooledConnection { held: Some(self.places.note(caller)), ..kept })
    }

    /// A new connection, or one that becomes free. The flag tells whether it was kept.
    ///
    /// # Errors
    ///
    /// See [`CheckoutError`].
    pub async fn checkout(self: &Rc<Self>, caller: Caller) -> Result<(PooledConnection, bool), CheckoutError> {
        match self.places.take(caller) {
            Some((held, opened)) => Ok((self.connect(opened, held).await?, false)),
            None => self.wait(caller).await,
        }
    }

    /// A new connection: for a request that a kept one handed back unsent, and for upgrades.
    ///
    /// # Errors
    ///
    /// See [`CheckoutError`].
    pub async fn checkout_fresh(self: &Rc<Self>, caller: Caller) -> Result<PooledConnection, CheckoutError> {
        if self.places.all_open() && self.places.may_have(caller) {
            // The oldest idle one makes room.
            let oldest = {
                let mut idle = self.idle.borrow_mut();
                (!idle.is_empty()).then(|| idle.remove(0))
            };
            // Dropped with no borrow held: it hands its place on.
            drop(oldest);
        }
        match self.places.take(caller) {
            Some((held, opened)) => self.connect(opened, held).await,
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
        self.idle.borrow_mut().push(Idle { connection, since: self.now.get() });
        if self.places.is_awaited() {
            self.hand_on();
        }
    }

    /// Another pool takes over: what lies idle is closed now, what is in use when its exchange ends.
    pub fn close(&self) {
        self.closed.set(true);
        let idle = self.idle.take();
        // Dropped with no borrow held: a dropped connection hands its place on.
        drop(idle);
    }

    /// Drops kept connections that are closed or have lain too long, and forgets those who gave up waiting. Called once
    /// a second.
    pub fn prune(&self, now: Mono) {
        self.now.set(now);
        self.places.prune();
        let gone: Vec<Idle> = {
            let mut idle = self.idle.borrow_mut();
            let (kept, gone) = std::mem::take(&mut *idle).into_iter().partition(|idle| idle.is_good(now));
            *idle = kept;
            gone
        };
        // Dropped with no borrow held: a dropped connection hands its place on.
        drop(gone);
    }

    fn newest_idle(&self, now: Mono) -> Option<Idle> {
        loop {
            let newest = self.idle.borrow_mut().pop()?;
            if newest.is_good(now) {
                return Some(newest);
            }
        }
    }

    /// Gives what is free to those who wait and may have it: what is kept first, then places for new connections. One
    /// connection that comes back may make room for two, since who gave it back has one less.
    pub(super) fn hand_on(&self) {
        while let Some(newest) = self.newest_idle(self.now.get()) {
            let Some(Waiter { caller, turn }) = self.places.next_waiter() else {
                // As old as it was: the upstream may close it when its time is over.
                return self.idle.borrow_mut().push(newest);
            };
            let held = Some(self.places.note(caller));
            // Nothing else runs on this thread meanwhile, so one who still waits takes what is sent.
            drop(turn.send(Turn::Reuse(PooledConnection { held, ..newest.connection })));
        }
        self.places.offer();
    }

    async fn wait(self: &Rc<Self>, caller: Caller) -> Result<(PooledConnection, bool), CheckoutError> {
        match tokio::time::timeout(self.destination.connect_timeout(), self.places.wait(caller)).await {
            Ok(Ok(Turn::Reuse(connection))) if connection.wire.borrow_mut().is_still_open() => Ok((connection, true)),
            Ok(Ok(Turn::Reuse(PooledConnection { held: Some(held), opened, .. }))) => {
                Ok((self.connect(opened, held).await?, false))
            }
            Ok(Ok(Turn::Open(held, opened))) => Ok((self.connect(opened, held).await?, false)),
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
