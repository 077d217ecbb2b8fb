//! The drain: how the listener stops without losing what is running.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

/// What all threads of the listener are told. Only ever goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// Take connections, answer requests.
    Serve,
    /// Take no new connection; close each one as soon as nothing is open on it.
    Drain,
    /// Cut what is left.
    Cut,
}

/// Stops the listener. Clones are the same handle.
///
/// When the last one is dropped, the [`Listener`](super::Listener)'s own included, what is open is cut.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

struct Shared {
    order: watch::Sender<Order>,
    running: watch::Receiver<usize>,
    asked: Arc<AtomicBool>,
    cut: Arc<AtomicUsize>,
}

/// What a drain did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Exchanges that were open when the grace was over, and were cut.
    pub cut: usize,
}

/// How long threads may take to end after the cut; one that is stuck must not keep the process from exiting.
const LAST_WAIT: Duration = Duration::from_secs(2);

impl Handle {
    /// New work is still taken for `delay`; then no connection is accepted, idle ones are closed, answers say
    /// `Connection: close` (HTTP/2: GOAWAY), and what is running may finish within `grace`. The rest is cut.
    ///
    /// Called again, or after [`abort`](Self::abort), it cuts at once. Any tokio runtime with a timer will do.
    pub async fn drain(&self, delay: Duration, grace: Duration) -> Drained {
        if self.0.asked.swap(true, Ordering::Relaxed) {
            self.abort();
        }
        let mut order = self.0.order.subscribe();
        let mut running = self.0.running.clone();
        // Fails only when all senders are gone, which this handle keeps from happening.
        let _ = timeout(delay, order.wait_for(|order| *order == Order::Cut)).await;
        self.advance(Order::Drain);
        tokio::select! {
            _ = running.wait_for(|running| *running == 0) => {}
            _ = order.wait_for(|order| *order == Order::Cut) => {}
            () = tokio::time::sleep(grace) => {}
        }
        self.advance(Order::Cut);
        let _ = timeout(LAST_WAIT, running.wait_for(|running| *running == 0)).await;
        Drained { cut: self.0.cut.load(Ordering::Relaxed) }
    }

    /// Cuts everything at once; a [`drain`](Self::drain) that is waiting returns.
    pub fn abort(&self) {
        self.0.asked.store(true, Ordering::Relaxed);
        self.advance(Order::Cut);
    }

    fn advance(&self, next: Order) {
        self.0.order.send_if_modified(|order| {
            let later = next > *order;
            *order = (*order).max(next);
            later
        });
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("order", &*self.0.order.borrow()).finish_non_exhaustive()
    }
}

/// A thread's side of the drain.
pub(super) struct Member {
    pub(super) order: watch::Receiver<Order>,
    /// Whether the listener was asked to stop: true from the beginning of the delay, in which the order is still to serve.
    pub(super) asked: Arc<AtomicBool>,
    running: Arc<watch::Sender<usize>>,
    cut: Arc<AtomicUsize>,
}

impl Member {
    /// Exchanges were cut.
    pub(super) fn cut(&self, exchanges: usize) {
        self.cut.fetch_add(exchanges, Ordering::Relaxed);
    }

    /// Waits until what is to be done is not `known` any more.
    pub(super) async fn order_after(&mut self, known: Order) -> Order {
        match self.order.wait_for(|order| *order > known).await {
            Ok(order) => *order,
            // Nobody is left who could ever stop this thread.
            Err(_) => Order::Cut,
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.running.send_modify(|running| *running -= 1);
    }
}

/// A handle and its `threads` members.
pub(super) fn party(threads: usize) -> (Handle, impl Iterator<Item = Member>) {
    let (order, ordered) = watch::channel(Order::Serve);
    let (running, watched) = watch::channel(threads);
    let (running, cut) = (Arc::new(running), Arc::<AtomicUsize>::default());
    let asked = Arc::<AtomicBool>::default();
    let handle = Handle(Arc::new(Shared { order, running: watched, asked: Arc::clone(&asked), cut: Arc::clone(&cut) }));
    let member = move || Member {
        order: ordered.clone(),
        asked: Arc::clone(&asked),
        running: Arc::clone(&running),
        cut: Arc::clone(&cut),
    };
    (handle, std::iter::repeat_with(member).take(threads))
}
