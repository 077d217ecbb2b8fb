//! The counters of one serving thread, and the histogram that they and the rare events share.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{KeyOutcome, Outcome};
use crate::{
    facts::ClientIpSource,
    keys::KeyState,
    limits::Subject,
    rejection::{Reason, TABLE},
};

/// The counters of one serving thread. Adding is one relaxed atomic on a cache line that no other thread writes.
///
/// Obtained from [`Registry::metrics`](super::Registry::metrics), which sums all of them when it is scraped.
#[derive(Debug, Default)]
// Two lines: the neighbour-line prefetcher of current x86 pulls pairs.
#[repr(align(128))]
pub struct Metrics {
    pub(super) requests: Row<{ Outcome::ALL.len() }>,
    pub(super) rejections: Row<{ TABLE.len() }>,
    pub(super) observed: Row<{ TABLE.len() }>,
    pub(super) upstream_failures: Row<{ TABLE.len() }>,
    pub(super) limit_near: Row<{ SUBJECTS.len() }>,
    pub(super) client_ip_sources: Row<{ ClientIpSource::ALL.len() }>,
    pub(super) untrusted_forwarded: AtomicU64,
    pub(super) key_requests: Row<{ KeyOutcome::ALL.len() }>,
    pub(super) request_seconds: Histogram,
    pub(super) upstream_seconds: Histogram,
}

/// A counter for each value of a closed list.
#[derive(Debug)]
pub(super) struct Row<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Row<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> std::ops::Index<usize> for Row<N> {
    type Output = AtomicU64;

    fn index(&self, index: usize) -> &AtomicU64 {
        &self.0[index]
    }
}

/// The values of the label `limit`, in the order of [`Subject`].
pub(super) const SUBJECTS: [&str; 4] = ["ip", "key", "owner", "failure"];

impl Metrics {
    /// Counts one finished request.
    pub fn request(&self, outcome: Outcome) {
        self.requests[outcome as usize].fetch_add(1, Relaxed);
    }

    /// Counts one refused request. A reason that is the upstream's goes where those are counted.
    pub fn rejected(&self, reason: Reason) {
        if reason.is_upstream() {
            self.upstream_failed(reason);
        } else {
            self.rejections[reason as usize].fetch_add(1, Relaxed);
        }
    }

    /// Counts one request that a route in observe mode let pass and that would have been refused.
    pub fn observed(&self, reason: Reason) {
        self.observed[reason as usize].fetch_add(1, Relaxed);
    }

    /// Counts one request that failed because of the upstream.
    pub fn upstream_failed(&self, reason: Reason) {
        self.upstream_failures[reason as usize].fetch_add(1, Relaxed);
    }

    /// Notes how long a whole request took.
    pub fn request_seconds(&self, duration: Duration) {
        self.request_seconds.observe(duration);
    }

    /// Notes how long of it was spent waiting for the upstream.
    pub fn upstream_seconds(&self, duration: Duration) {
        self.upstream_seconds.observe(duration);
    }

    /// Counts one request that passed with less than a tenth of a limit remaining.
    pub fn limit_near(&self, subject: Subject) {
        self.limit_near[subject as usize].fetch_add(1, Relaxed);
    }

    /// Counts where a client address was read from.
    pub fn client_ip_source(&self, source: ClientIpSource) {
        self.client_ip_sources[source as usize].fetch_add(1, Relaxed);
    }

    /// Counts one request with forwarding fields from a peer that is not trusted.
    pub fn untrusted_forwarded(&self) {
        self.untrusted_forwarded.fetch_add(1, Relaxed);
    }

    /// Counts one request of a key that was recognised, both in the key's own counters and in the total.
    ///
    /// Nothing else adds to [`KeyState::allowed`] and [`KeyState::refused`]: the metric's `other` is the total less
    /// the keys that have a series of their own.
    pub fn key_request(&self, key: &KeyState, outcome: KeyOutcome) {
        self.key_requests[outcome as usize].fetch_add(1, Relaxed);
        outcome.of(key).fetch_add(1, Relaxed);
    }
}

/// The upper bounds of the buckets, in nanoseconds: 100 µs to 60 s.
pub(super) const BOUNDS: [u64; 18] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// Counts of durations in fixed buckets.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// One per bound, and one for what is longer; not cumulative.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// Nanoseconds; enough for centuries.
    sum: AtomicU64,
}

impl Histogram {
    pub(super) fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // Most requests are fast: a scan from the low end ends after a few comparisons.
        let bucket = BOUNDS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(nanos, Relaxed);
    }

    /// Adds this histogram's counts to `sums`.
    pub(super) fn add_to(&self, sums: &mut HistogramSums) {
        for (bucket, sum) in self.buckets.iter().zip(&mut sums.buckets) {
            *sum += bucket.load(Relaxed);
        }
        sums.nanos += u128::from(self.sum.load(Relaxed));
    }
}

/// The sum of several histograms.
#[derive(Debug, Default)]
pub(super) struct HistogramSums {
    buckets: [u64; BOUNDS.len() + 1],
    nanos: u128,
}

impl HistogramSums {
    /// As the `prometheus` crate wants it: cumulative buckets, in seconds.
    pub(super) fn proto(&self) -> prometheus::proto::Histogram {
        let mut cumulative = 0;
        let buckets = BOUNDS.iter().zip(&self.buckets).map(|(bound, count)| {
            cumulative += count;
            let mut bucket = prometheus::proto::Bucket::default();
            #[expect(clippy::cast_precision_loss, reason = "the bounds are far below 2^53")]
            bucket.set_upper_bound(*bound as f64 / 1e9);
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let buckets = buckets.collect();
        let mut histogram = prometheus::proto::Histogram::default();
        histogram.set_bucket(buckets);
        // The count is that of the buckets read above, so that +Inf is never below the last bucket.
        histogram.set_sample_count(self.buckets.iter().sum());
        #[expect(clippy::cast_precision_loss, reason = "a sum of seconds is read as a rate")]
        histogram.set_sample_sum(self.nanos as f64 / 1e9);
        histogram
    }
}
