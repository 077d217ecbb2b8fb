//! What is counted of the fleet.

use std::sync::{Arc, Weak};

use prometheus::{
    Gauge, Histogram, HistogramOpts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::Fleet;
use crate::control::metrics::Metrics;

/// From a millisecond to a minute.
const BUCKETS: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0];

/// Counts the fleet when it is asked.
#[derive(Clone)]
struct Gauges {
    fleet: Weak<Fleet>,
    known: Gauge,
    connected: Gauge,
    lag: Gauge,
}

impl Fleet {
    /// Exports how the fleet is, and how long revocations take.
    pub fn export(self: &Arc<Self>, metrics: &Metrics) {
        let latency = metrics.add(Histogram::with_opts(
            HistogramOpts::new(
                "keyside_revocation_latency_seconds",
                "Time from the commit of a revocation to the last acknowledgement of the sidecars that were waited for.",
            )
            .buckets(BUCKETS.to_vec()),
        ));
        self.observe_latency(move |took| latency.observe(took.as_secs_f64()));
        let gauge = |name: &str, help: &str| Gauge::new(name, help);
        metrics.add(Gauges::new(
            self,
            gauge("keyside_sidecars_known", "Sidecars that may be serving: each is waited for by a revoke, or named."),
            gauge("keyside_sidecars_connected", "Sidecars that follow changes now."),
            gauge(
                "keyside_sidecars_lag_revisions",
                "Revisions that the last of the connected sidecars has not acknowledged.",
            ),
        ));
    }
}

impl Gauges {
    fn new(
        fleet: &Arc<Fleet>,
        known: prometheus::Result<Gauge>,
        connected: prometheus::Result<Gauge>,
        lag: prometheus::Result<Gauge>,
    ) -> prometheus::Result<Self> {
        Ok(Self { fleet: Arc::downgrade(fleet), known: known?, connected: connected?, lag: lag? })
    }

    fn all(&self) -> [&Gauge; 3] {
        [&self.known, &self.connected, &self.lag]
    }
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "nobody has so many sidecars")]
    fn collect(&self) -> Vec<MetricFamily> {
        let Some(fleet) = self.fleet.upgrade() else { return Vec::new() };
        let counted = fleet.count();
        for (gauge, value) in self.all().into_iter().zip([counted.known, counted.connected, counted.lag]) {
            gauge.set(value as f64);
        }
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}
