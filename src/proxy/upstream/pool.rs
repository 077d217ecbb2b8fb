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

use super::{connect::Destination, wire::Wire};
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
    /// Those that wait for a connection, in order of arrival.
    waiting: RefCell<VecDeque<oneshot::Sender<Turn>>>,
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
    Open(Opened),
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
    /// All are in use, and none became free within the connect timeout.
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
            waiting: RefCell::default(),
        })
    }

    /// The upstream that the connections lead to.
    pub fn destination(&self) -> &Arc<Destination> {
        &self.destination
    }

    /// The newest kept connection, if there is a good one: the usual way, which waits for nothing.
    pub fn checkout_kept(&self, now: Mono) -> Option<PooledConnection> {
        self.now.set(now);
        loop {
            let newest = self.idle.borrow_mut().pop()?;
            if newest.is_good(now) {
                return Some(newest.connection);
            }
        }
    }

    /// A new connection, or one that becomes free. The flag tells whether it was kept.
    ///
    /// # Errors
    ///
    /// See [`CheckoutError`].
    pub async fn checkout(self: &Rc<Self>) -> Result<(PooledConnection, bool), CheckoutError> {
        match self.place() {
            Some(place) => Ok((self.connect(place).await?, false)),
            None => self.wait().await,
        }
    }

    /// A new connection: for a request that a kept one handed back unsent, and for upgrades.
    ///
    /// # Errors
    ///
    /// See [`CheckoutError`].
    pub async fn checkout_fresh(self: &Rc<Self>) -> Result<PooledConnection, CheckoutError> {
        if self.open.get() >= self.cap {
            // The oldest idle one makes room.
            let oldest = {
                let mut idle = self.idle.borrow_mut();
                (!idle.is_empty()).then(|| idle.remove(0))
            };
            // Dropped with no borrow held: it hands its place on.
            drop(oldest);
        }
        match self.place() {
            Some(place) => self.connect(place).await,
            None => match self.wait().await? {
                (connection, false) => Ok(connection),
                (kept, true) => {
                    kept.cut();
                    match self.place() {
                        Some(place) => self.connect(place).await,
                        None => Err(CheckoutError::AllInUse),
                    }
                }
            },
        }
    }

    /// Takes back a connection whose exchange has ended, request body and answer.
    pub fn put_back(&self, connection: PooledConnection) {
        {
            let mut wire = connection.wire.borrow_mut();
            if !wire.is_quiet() || connection.idle_timeout.is_zero() || self.closed.get() {
                wire.cut();
                return;
            }
            wire.rest();
        }
        match self.next_waiter() {
            Some(waiter) => drop(waiter.send(Turn::Reuse(connection))),
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

    fn place(self: &Rc<Self>) -> Option<Opened> {
        (self.open.get() < self.cap).then(|| {
            self.open.set(self.open.get() + 1);
            Opened(Rc::clone(self))
        })
    }

    /// The first who still waits.
    fn next_waiter(&self) -> Option<oneshot::Sender<Turn>> {
        let mut waiting = self.waiting.borrow_mut();
        std::iter::from_fn(|| waiting.pop_front()).find(|waiter| !waiter.is_closed())
    }

    fn hand_on_place(self: &Rc<Self>) {
        // Nothing else runs on this thread meanwhile, so one who still waits takes what is sent.
        if let Some(waiter) = self.next_waiter()
            && let Some(place) = self.place()
        {
            drop(waiter.send(Turn::Open(place)));
        }
    }

    async fn wait(self: &Rc<Self>) -> Result<(PooledConnection, bool), CheckoutError> {
        let (sender, turn) = oneshot::channel();
        self.waiting.borrow_mut().push_back(sender);
        match tokio::time::timeout(self.destination.connect_timeout(), turn).await {
            Ok(Ok(Turn::Reuse(connection))) if connection.wire.borrow_mut().is_still_open() => Ok((connection, true)),
            Ok(Ok(Turn::Reuse(closed))) => Ok((self.connect(closed.opened).await?, false)),
            Ok(Ok(Turn::Open(place))) => Ok((self.connect(place).await?, false)),
            Ok(Err(_)) | Err(_) => Err(CheckoutError::AllInUse),
        }
    }

    async fn connect(self: &Rc<Self>, opened: Opened) -> Result<PooledConnection, CheckoutError> {
        let stream = self.destination.connect().await.map_err(CheckoutError::Connect)?;
        let wire = Rc::new(RefCell::new(Wire::new(stream)));
        Ok(PooledConnection { wire, idle_timeout: self.idle_timeout, opened })
    }
}

impl Idle {
    fn is_good(&self, now: Mono) -> bool {
        now.since(self.since) < self.connection.idle_timeout && self.connection.wire.borrow_mut().is_still_open()
    }
}
