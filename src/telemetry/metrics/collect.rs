//! The collector: sums the cells, asks the feeds, and hands both to the `prometheus` crate.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use prometheus::{
    core::{Collector, Desc},
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

use super::{
    Family, KeyOutcome, Metrics, Outcome, Reloaded, Shared, TABLE,
    cell::{Histogram, HistogramSums, SUBJECTS},
    lock,
};
use crate::{facts::ClientIpSource, rejection};

/// The samples of one metric.
#[derive(Debug)]
pub struct Samples<'a> {
    family: Family,
    metrics: &'a mut Vec<Metric>,
}

impl Samples<'_> {
    /// A sample of a metric without labels.
    pub fn one(&mut self, value: f64) {
        self.labelled(&[], value);
    }

    /// A sample with these values of the metric's labels, in the order of the table.
    ///
    /// A wrong number of values is a mistake of the caller: the sample is left out.
    pub fn labelled(&mut self, values: &[&str], value: f64) {
        let row = self.family.row();
        debug_assert_eq!(values.len(), row.labels.len(), "{}: labels", row.name);
        if values.len() != row.labels.len() {
            return;
        }
        let mut metric = Metric::from_label(labels(row.labels, values));
        if row.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// The same, for a whole number.
    pub fn count(&mut self, values: &[&str], count: u64) {
        #[expect(clippy::cast_precision_loss, reason = "the text format has floating-point samples only")]
        self.labelled(values, count as f64);
    }

    fn histogram(&mut self, sums: &HistogramSums) {
        let mut metric = Metric::default();
        metric.set_histogram(sums.proto());
        self.metrics.push(metric);
    }
}

fn labels(names: &[&str], values: &[&str]) -> Vec<LabelPair> {
    let pairs = names.iter().zip(values).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    pairs.collect()
}

type Source = Box<dyn Fn(&mut Samples<'_>) + Send + Sync>;

/// Where other rooms' samples come from.
#[derive(Default)]
pub(super) struct Feeds(Mutex<BTreeMap<Family, Source>>);

impl Feeds {
    pub(super) fn set(&self, family: Family, source: Source) {
        lock(&self.0).insert(family, source);
    }

    fn ask(&self, samples: &mut Samples<'_>) {
        if let Some(source) = lock(&self.0).get(&samples.family) {
            source(samples);
        }
    }
}

/// The one collector of all Keyside's own metrics.
pub(super) struct Sum {
    shared: Arc<Shared>,
    descriptions: Vec<Desc>,
}

impl Sum {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let describe = |row: &super::Row| {
            let labels = row.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(row.name.to_owned(), row.help.to_owned(), labels, HashMap::new()).ok()
        };
        Self { shared, descriptions: TABLE.iter().filter_map(describe).collect() }
    }

    fn fill(&self, cells: &[Arc<Metrics>], samples: &mut Samples<'_>) {
        let sum =
            |pick: &dyn Fn(&Metrics) -> &AtomicU64| -> u64 { cells.iter().map(|cell| pick(cell).load(Relaxed)).sum() };
        let sums = |pick: &dyn Fn(&Metrics) -> &Histogram| {
            let mut sums = HistogramSums::default();
            cells.iter().for_each(|cell| pick(cell).add_to(&mut sums));
            sums
        };
        match samples.family {
            Family::Requests => {
                for outcome in Outcome::ALL {
                    samples.count(&[outcome.label()], sum(&|cell| &cell.requests[outcome as usize]));
                }
            }
            Family::Rejections => {
                let elsewhere = lock(&self.shared.other_rejections);
                for row in rejection::TABLE.iter().filter(|row| !row.reason.is_upstream()) {
                    let elsewhere = elsewhere.as_ref().map_or(0, |count| count(row.reason));
                    samples.count(&[row.label], elsewhere + sum(&|cell| &cell.rejections[row.reason as usize]));
                }
            }
            Family::ObservedRejections => {
                for row in rejection::TABLE.iter().filter(|row| !row.reason.is_upstream()) {
                    samples.count(&[row.label], sum(&|cell| &cell.observed[row.reason as usize]));
                }
            }
            Family::UpstreamFailures => {
                for row in rejection::TABLE.iter().filter(|row| row.reason.is_upstream()) {
                    samples.count(&[row.label], sum(&|cell| &cell.upstream_failures[row.reason as usize]));
                }
            }
            Family::RequestDuration => samples.histogram(&sums(&|cell| &cell.request_seconds)),
            Family::UpstreamDuration => samples.histogram(&sums(&|cell| &cell.upstream_seconds)),
            Family::LimitNear => {
                for (index, subject) in SUBJECTS.iter().enumerate() {
                    samples.count(&[subject], sum(&|cell| &cell.limit_near[index]));
                }
            }
            Family::ClientIpSource => {
                for source in ClientIpSource::ALL {
                    samples.count(&[source.label()], sum(&|cell| &cell.client_ip_sources[source as usize]));
                }
            }
            Family::UntrustedForwarded => samples.count(&[], sum(&|cell| &cell.untrusted_forwarded)),
            Family::KeyRequests => {
                let totals = KeyOutcome::ALL.map(|outcome| sum(&|cell| &cell.key_requests[outcome as usize]));
                lock(&self.shared.busiest).fill(totals, |key, outcome, count| {
                    samples.count(&[key, outcome.label()], count);
                });
            }
            Family::RevocationLatency => {
                let mut sums = HistogramSums::default();
                self.shared.revocation_latency.add_to(&mut sums);
                samples.histogram(&sums);
            }
            Family::Reloads => {
                for what in Reloaded::ALL {
                    for (result, count) in ["failed", "ok"].iter().zip(&self.shared.reloads[what as usize]) {
                        samples.count(&[what.label(), result], count.load(Relaxed));
                    }
                }
            }
            Family::BuildInfo => {
                samples.labelled(&[env!("CARGO_PKG_VERSION"), option_env!("KEYSIDE_REVISION").unwrap_or("")], 1.0);
            }
            Family::Connections
            | Family::ConnectionsRefused
            | Family::TlsHandshakes
            | Family::Verifications
            | Family::VerificationQueue
            | Family::Keys
            | Family::SyncLastSuccess
            | Family::SyncRevision
            | Family::QuarantinedEntries
            | Family::StateUsable
            | Family::LimiterEntries
            | Family::TlsCertificateExpiry
            | Family::LogLinesDropped => self.shared.feeds.ask(samples),
        }
    }
}

impl Collector for Sum {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let cells = lock(&self.shared.cells).clone();
        let families = TABLE.iter().map(|row| {
            let mut metrics = Vec::new();
            self.fill(&cells, &mut Samples { family: row.family, metrics: &mut metrics });
            let mut family = MetricFamily::default();
            family.set_name(row.name.to_owned());
            family.set_help(row.help.to_owned());
            family.set_field_type(row.kind);
            family.set_metric(metrics);
            family
        });
        families.collect()
    }
}
