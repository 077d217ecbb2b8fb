//! What the listener counts. Telemetry reads it; nothing here is touched more than a few times per connection.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number that only goes up, or a gauge that goes both ways.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_many(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn sub(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The listener's numbers, shared by the accept thread and all serving threads.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections open now (a gauge).
    pub connections: Count,
    /// Connections accepted since the start.
    pub accepted: Count,
    /// Connections closed at accept because there were too many in all, or from one address; and those that made room.
    pub refused: Count,
    /// Failures of accept itself, such as having run out of descriptors.
    pub accept_errors: Count,
    /// TLS handshakes that succeeded.
    pub handshakes_ok: Count,
    /// TLS handshakes that failed.
    pub handshakes_failed: Count,
    /// TLS handshakes cut because they took too long, or were the oldest of too many.
    pub handshakes_timeout: Count,
    /// Connections closed for a missing, malformed or unwelcome PROXY header.
    pub proxy_header_refused: Count,
    /// Messages that never became a request because their framing was unclear (answered bare, or reset).
    pub ambiguous_framing: Count,
    /// Heads larger than the parser takes (answered with a bare 431).
    pub headers_too_large: Count,
    /// Request targets longer than the parser takes (answered with a bare 414).
    pub uri_too_long: Count,
    /// Heads that were begun and not finished in time (answered with a bare 408).
    pub request_timeouts: Count,
    /// Connections closed because nothing was asked on them for too long.
    pub idle_timeouts: Count,
    /// Connections and streams closed because the client did not take its answer.
    pub write_timeouts: Count,
    /// Connection tasks that ended in a panic.
    pub panics: Count,
    /// Exchanges that were cut because the time to finish before the shutdown was over.
    pub exchanges_cut: Count,
}
