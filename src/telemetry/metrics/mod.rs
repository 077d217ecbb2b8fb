//! Metrics: counters per serving thread, summed when they are scraped.
//!
//! The `prometheus` crate is the registry and the text encoder; the counters that requests touch are our own.

mod busiest;
mod cell;
mod collect;
mod family;
mod feeds;

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

use crate::{keys::KeyState, rejection::Reason};
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

/// How often requests were refused for a reason outside the serving code.
type OtherRejections = Box<dyn Fn(Reason) -> u64 + Send + Sync>;

/// What the collector reads.
#[derive(Default)]
struct Shared {
    cells: Mutex<Vec<Arc<Metrics>>>,
    feeds: Feeds,
    busiest: Mutex<Busiest>,
    /// `[what][succeeded]`.
    reloads: [[AtomicU64; 2]; Reloaded::ALL.len()],
    revocation_latency: Histogram,
    other_rejections: Mutex<Option<OtherRejections>>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{facts::ClientIpSource, limits::Subject};

    /// Every name of the manual.
    const NAMES: [&str; 26] = [
        "keyside_build_info",
        "keyside_client_ip_source_total",
        "keyside_connections",
        "keyside_connections_refused_total",
        "keyside_key_requests_total",
        "keyside_keys",
        "keyside_limit_near_total",
        "keyside_limiter_entries",
        "keyside_log_lines_dropped_total",
        "keyside_observed_rejections_total",
        "keyside_quarantined_entries",
        "keyside_rejections_total",
        "keyside_reloads_total",
        "keyside_request_duration_seconds",
        "keyside_requests_total",
        "keyside_revocation_latency_seconds",
        "keyside_state_usable",
        "keyside_sync_last_success_timestamp_seconds",
        "keyside_sync_revision",
        "keyside_tls_certificate_expiry_timestamp_seconds",
        "keyside_tls_handshakes_total",
        "keyside_untrusted_forwarded_total",
        "keyside_upstream_duration_seconds",
        "keyside_upstream_failures_total",
        "keyside_verification_queue",
        "keyside_verifications_total",
    ];

    /// A registry whose feeds all say something.
    fn fed() -> Registry {
        let registry = Registry::new();
        for row in TABLE {
            let values = vec!["x"; row.labels.len()];
            registry.feed(row.family, move |samples| samples.labelled(&values, 1.0));
        }
        registry
    }

    #[track_caller]
    fn check(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "no line {line:?} in:\n{text}");
    }

    #[test]
    fn every_metric_of_the_manual_is_exported_and_no_other() {
        let text = fed().render();
        let mut names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split(' ').next())
            .filter(|name| !name.starts_with("process_"))
            .collect();
        names.sort_unstable();
        assert_eq!(names, NAMES);
        assert!(text.contains("\nprocess_cpu_seconds_total "), "the process's own metrics are missing");
    }

    #[test]
    fn every_reason_is_exported_from_zero_in_its_own_family() {
        let registry = Registry::new();
        let _idle = registry.metrics();
        let text = registry.render();
        for row in crate::rejection::TABLE {
            let family =
                if row.reason.is_upstream() { "keyside_upstream_failures_total" } else { "keyside_rejections_total" };
            check(&text, &format!("{family}{{reason=\"{}\"}} 0", row.label));
        }
        for outcome in Outcome::ALL {
            check(&text, &format!("keyside_requests_total{{outcome=\"{}\"}} 0", outcome.label()));
        }
    }

    #[test]
    fn the_threads_are_summed() {
        let registry = Registry::new();
        let threads = [registry.metrics(), registry.metrics()];
        let key = KeyState::default();
        for metrics in &threads {
            metrics.request(Outcome::Refused);
            metrics.rejected(Reason::WrongSecret);
            metrics.rejected(Reason::UpstreamTimeout);
            metrics.observed(Reason::InsufficientScope);
            metrics.limit_near(Subject::Owner);
            metrics.client_ip_source(ClientIpSource::HeaderMalformed);
            metrics.untrusted_forwarded();
            metrics.key_request(&key, KeyOutcome::Refused);
        }
        registry.reloaded(Reloaded::Keys, true);
        registry.reloaded(Reloaded::Config, false);
        registry.feed_rejections(|reason| u64::from(reason == Reason::AmbiguousFraming));
        let text = registry.render();
        check(&text, "keyside_rejections_total{reason=\"ambiguous_framing\"} 1");
        check(&text, "keyside_requests_total{outcome=\"refused\"} 2");
        check(&text, "keyside_rejections_total{reason=\"wrong_secret\"} 2");
        check(&text, "keyside_upstream_failures_total{reason=\"upstream_timeout\"} 2");
        check(&text, "keyside_observed_rejections_total{reason=\"insufficient_scope\"} 2");
        check(&text, "keyside_limit_near_total{limit=\"owner\"} 2");
        check(&text, "keyside_client_ip_source_total{source=\"header_malformed\"} 2");
        check(&text, "keyside_untrusted_forwarded_total 2");
        check(&text, "keyside_key_requests_total{key=\"other\",outcome=\"refused\"} 2");
        check(&text, "keyside_reloads_total{what=\"keys\",result=\"ok\"} 1");
        check(&text, "keyside_reloads_total{what=\"config\",result=\"failed\"} 1");
        assert_eq!(key.refused.load(Relaxed), 2);
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_with_its_count() {
        let registry = Registry::new();
        let metrics = registry.metrics();
        for micros in [100, 101, 3_000, 61_000_000] {
            metrics.request_seconds(Duration::from_micros(micros));
        }
        let text = registry.render();
        let name = "keyside_request_duration_seconds";
        check(&text, &format!("{name}_bucket{{le=\"0.0001\"}} 1"));
        check(&text, &format!("{name}_bucket{{le=\"0.00025\"}} 2"));
        check(&text, &format!("{name}_bucket{{le=\"0.005\"}} 3"));
        check(&text, &format!("{name}_bucket{{le=\"60\"}} 3"));
        check(&text, &format!("{name}_bucket{{le=\"+Inf\"}} 4"));
        check(&text, &format!("{name}_count 4"));
        check(&text, &format!("{name}_sum 61.003201"));
    }

    #[test]
    fn a_later_feed_replaces_an_earlier_one() {
        let registry = Registry::new();
        registry.feed(Family::SyncRevision, |samples| samples.one(1.0));
        registry.feed(Family::SyncRevision, |samples| samples.one(2.0));
        let text = registry.render();
        check(&text, "keyside_sync_revision 2");
        assert!(!text.contains("keyside_sync_revision 1"));
    }
}
