//! Which room's counters are behind which metric. One function per room, called once when the data plane is composed.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{Family, Registry, lock};
use crate::{
    clock,
    keys::{KeyStore, set::KeySet, verify::Verifier},
    limits::Limiter,
    listener::{Counters, tls::Reloader},
    rejection::Reason,
    telemetry::Output,
};

impl Registry {
    /// The keys: how many in which standing, the revision of their set, and the requests of the busiest ones.
    pub fn feed_keys(&self, store: &Arc<KeyStore>) {
        let current = {
            let store = Arc::clone(store);
            move || -> Option<Arc<KeySet>> { store.load().as_ref().map(Arc::clone) }
        };
        let keys = current.clone();
        self.feed(Family::Keys, move |samples| {
            // Before the first set there are no keys to count, and "none" would be an alarm of another kind.
            for (standing, count) in keys().into_iter().flat_map(|keys| keys.count(clock::now().wall)) {
                samples.count(&[standing.as_str()], count as u64);
            }
        });
        let keys = current.clone();
        self.feed(Family::SyncRevision, move |samples| {
            if let Some(keys) = keys() {
                samples.count(&[], keys.revision());
            }
        });
        lock(&self.shared.busiest).source(Box::new(current));
    }

    /// Verifications by path, and the queue of slow ones.
    pub fn feed_verifier(&self, verifier: &Arc<Verifier>) {
        let of = Arc::clone(verifier);
        self.feed(Family::Verifications, move |samples| {
            let counters = of.counters();
            samples.count(&["cached"], of.cached());
            samples.count(&["argon2id"], counters.argon2id.load(Relaxed));
            samples.count(&["hmac"], counters.hmac.load(Relaxed));
            samples.count(&["bcrypt"], counters.bcrypt.load(Relaxed));
            samples.count(&["decoy"], counters.decoy.load(Relaxed));
        });
        let of = Arc::clone(verifier);
        self.feed(Family::VerificationQueue, move |samples| samples.count(&[], of.counters().queue.load(Relaxed)));
    }

    /// Addresses in the table of limits.
    pub fn feed_limiter(&self, limiter: &Arc<Limiter>) {
        let limiter = Arc::clone(limiter);
        self.feed(Family::LimiterEntries, move |samples| samples.count(&[], limiter.entries() as u64));
    }

    /// Lines that the logs dropped.
    pub fn feed_outputs(&self, outputs: &[Output]) {
        let outputs = outputs.to_vec();
        self.feed(Family::LogLinesDropped, move |samples| {
            samples.count(&[], outputs.iter().map(Output::dropped).sum());
        });
    }

    /// Connections, handshakes, and refusals of what never became a request: those are added to the refusals of the
    /// serving threads.
    pub fn feed_listener(&self, counters: &Arc<Counters>) {
        let of = Arc::clone(counters);
        self.feed(Family::Connections, move |samples| samples.count(&[], of.connections.get()));
        let of = Arc::clone(counters);
        self.feed(Family::ConnectionsRefused, move |samples| samples.count(&[], of.refused.get()));
        let of = Arc::clone(counters);
        self.feed(Family::TlsHandshakes, move |samples| {
            samples.count(&["ok"], of.handshakes_ok.get());
            samples.count(&["failed"], of.handshakes_failed.get());
            samples.count(&["timeout"], of.handshakes_timeout.get());
        });
        let of = Arc::clone(counters);
        self.feed_rejections(move |reason| match reason {
            Reason::AmbiguousFraming => of.ambiguous_framing.get() + of.proxy_header_refused.get(),
            Reason::HeadersTooLarge => of.headers_too_large.get(),
            Reason::UriTooLong => of.uri_too_long.get(),
            Reason::RequestTimeout => of.request_timeouts.get(),
            _ => 0,
        });
    }

    /// When the served certificate expires.
    pub fn feed_certificate(&self, reloader: &Arc<Reloader>) {
        let reloader = Arc::clone(reloader);
        self.feed(Family::TlsCertificateExpiry, move |samples| {
            #[expect(clippy::cast_precision_loss, reason = "a date is far below 2^53 seconds")]
            samples.one(reloader.not_after().unix_seconds() as f64);
        });
    }

    /// Refusals that were counted elsewhere, because no serving code ever saw a request: added to those of the
    /// serving threads.
    pub fn feed_rejections(&self, count: impl Fn(Reason) -> u64 + Send + Sync + 'static) {
        *lock(&self.shared.other_rejections) = Some(Box::new(count));
    }
}
