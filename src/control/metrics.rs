//! The metrics of the control plane. Each room registers its own when it is made.

use prometheus::core::Collector;

use crate::telemetry::admin::Render;

/// Where the metrics of the control plane meet.
#[derive(Clone, Debug)]
pub struct Metrics(prometheus::Registry);

impl Default for Metrics {
    fn default() -> Self {
        let registry = prometheus::Registry::new();
        #[cfg(target_os = "linux")]
        let _ = registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()));
        Self(registry)
    }
}

impl Metrics {
    /// Adds a metric, and gives it back. One of a name that is there already is counted and not shown.
    pub fn add<C: Collector + Clone + 'static>(&self, collector: Result<C, prometheus::Error>) -> C {
        let collector = collector.unwrap_or_else(|error| unreachable!("names and labels are our own: {error}"));
        let added = self.0.register(Box::new(collector.clone()));
        debug_assert!(added.is_ok(), "{added:?}");
        collector
    }
}

impl Render for Metrics {
    fn render(&self) -> String {
        let mut text = String::new();
        // Fails only for a family without samples, and those are left out.
        let _ = prometheus::TextEncoder::new().encode_utf8(&self.0.gather(), &mut text);
        text
    }
}
