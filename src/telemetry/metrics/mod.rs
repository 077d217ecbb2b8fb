//! Metrics: counters per serving thread, summed when they are scraped.
//!
//! The `prometheus` crate is the registry and the text encoder; the counters that requests touch are our own.

mod busiest;
mod cell;
mod collect;
mod family;

pub use cell::Metrics;
pub use collect::Samples;
pub use family::{Family, Row, TABLE};

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::keys::{KeySet, KeyState};
use busiest::Busiest;
use cell::Histogram;
use collect::{Feeds, Sum};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// It was forwarded and answered.
    Allowed,
    /// It was refused.
    Refused,
    /// It was forwarded by a route in observe mode and would have been refused.
    Observed,
    /// It was permitted, and then the upstream or this proxy failed.
    Failed,
}

impl Outcome {
    /// All outcomes, in their order.
    pub const ALL: [Self; 4] = [Self::Allowed, Self::Refused, Self::Observed, Self::Failed];

    /// As metrics and logs show it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Observed => "observed",
            Self::Failed => "failed",
        }
    }
}

/// How a request of a recognised key ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum KeyOutcome {
    /// It was forwarded.
    Allowed,
    /// It was refused after the key was recognised.
    Refused,
}

impl KeyOutcome {
    /// Both outcomes, in their order.
    pub const ALL: [Self; 2] = [Self::Allowed, Self::Refused];

    /// As metrics show it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
        }
    }

    /// The key's own counter of this outcome.
    fn of(self, key: &KeyState) -> &AtomicU64 {
        match self {
            Self::Allowed => &key.allowed,
            Self::Refused => &key.refused,
        }
    }
}

/// What was reloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reloaded {
    /// The configuration.
    Config,
    /// The keys.
    Keys,
    /// The certificate of the listener.
    Certificate,
}

impl Reloaded {
    /// All, in their order.
    pub const ALL: [Self; 3] = [Self::Config, Self::Keys, Self::Certificate];

    /// As metrics and `/readyz?verbose` show it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Keys => "keys",
            Self::Certificate => "certificate",
        }
    }
}

/// Where all metrics meet: it hands out the counters of the serving threads, asks other rooms for theirs, and
/// renders everything for a scrape.
pub struct Registry {
    shared: Arc<Shared>,
    registry: prometheus::Registry,
}

/// What the collector reads.
#[derive(Default)]
struct Shared {
    cells: Mutex<Vec<Arc<Metrics>>>,
    feeds: Feeds,
    busiest: Mutex<Busiest>,
    /// `[what][succeeded]`.
    reloads: [[AtomicU64; 2]; Reloaded::ALL.len()],
    revocation_latency: Histogram,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// An empty registry, with the metrics of the process and of the build.
    pub fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let registry = prometheus::Registry::new();
        // Neither can fail: each name is registered once, and a test collects them all.
        let _ = registry.register(Box::new(Sum::new(Arc::clone(&shared))));
        #[cfg(target_os = "linux")]
        let _ = registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()));
        Self { shared, registry }
    }

    /// New counters for one serving thread. They count for as long as this registry lives.
    pub fn metrics(&self) -> Arc<Metrics> {
        let metrics = Arc::new(Metrics::default());
        lock(&self.shared.cells).push(Arc::clone(&metrics));
        metrics
    }

    /// Says where the samples of a metric come from that another room keeps. `source` is called at every scrape, on
    /// the thread that serves it; it replaces an earlier source of the same metric.
    ///
    /// ```
    /// # use keyside::telemetry::{Family, Registry};
    /// let registry = Registry::new();
    /// registry.feed(Family::TlsHandshakes, |samples| {
    ///     samples.labelled(&["ok"], 12.0);
    ///     samples.labelled(&["failed"], 0.0);
    /// });
    /// registry.feed(Family::Connections, |samples| samples.one(3.0));
    /// assert!(registry.render().contains("keyside_connections 3\n"));
    /// ```
    pub fn feed(&self, family: Family, source: impl Fn(&mut Samples<'_>) + Send + Sync + 'static) {
        self.shared.feeds.set(family, Box::new(source));
    }

    /// Says where the current keys come from, for the requests of the busiest ones.
    pub fn feed_keys(&self, current: impl Fn() -> Option<Arc<KeySet>> + Send + Sync + 'static) {
        lock(&self.shared.busiest).source(Box::new(current));
    }

    /// Counts a reload.
    pub fn reloaded(&self, what: Reloaded, succeeded: bool) {
        self.shared.reloads[what as usize][usize::from(succeeded)].fetch_add(1, Relaxed);
    }

    /// Notes how long a revocation took to take effect here.
    pub fn revocation_latency(&self, latency: Duration) {
        self.shared.revocation_latency.observe(latency);
    }

    /// Everything, in Prometheus's text format.
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(32 * 1024);
        // Fails only for a family without samples, and those are left out before.
        let _ = prometheus::TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text);
        text
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
    }
}

/// Locks, also after a panic of another holder: counters stay readable whatever happened.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
