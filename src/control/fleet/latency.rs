//! How long a revocation takes until all who are waited for have it in force.

use std::{collections::HashSet, time::Duration};

use super::{Fleet, State};
use crate::clock::{self, Mono};

/// A revocation is watched no longer than this: whoever has not acknowledged it until then is away.
const WATCHED_FOR: Duration = Duration::from_secs(60);

/// A revocation that not all who are waited for have acknowledged.
#[derive(Debug)]
pub(super) struct Watched {
    epoch: String,
    revision: u64,
    written: Mono,
    awaited: HashSet<String>,
    /// The last acknowledgement so far.
    last: Mono,
}

impl Fleet {
    /// Has every revocation's latency told to this: from its commit to the last acknowledgement of those that were waited
    /// for, also when that comes after the answer.
    pub fn observe_latency(&self, observer: impl Fn(Duration) + Send + Sync + 'static) {
        // Set once, when the control plane is composed.
        drop(self.observer.set(Box::new(observer)));
    }

    pub(super) fn observe(&self, done: &[(u64, Duration)]) {
        for (revision, latency) in done {
            tracing::info!(
                revision,
                latency_ms = latency.as_secs_f64() * 1000.0,
                "every sidecar that is waited for has a revocation in force"
            );
            if let Some(observer) = self.observer.get() {
                observer(*latency);
            }
        }
    }
}

impl State {
    /// Watches a revocation. Gives it, with its latency, if all have acknowledged it already.
    pub(super) fn watch(&mut self, epoch: &str, revision: u64, now: Mono) -> Vec<(u64, Duration)> {
        self.watched.retain(|watched| now.since(watched.written) < WATCHED_FOR);
        // Also whoever revokes what is revoked gets a receipt, and that was measured.
        if self.measured.contains(&revision) {
            return Vec::new();
        }
        self.measured.push_back(revision);
        if self.measured.len() > super::REMEMBERED {
            self.measured.pop_front();
        }
        let written = self.written.iter().find(|(number, _)| *number == revision);
        let written = written.map_or(now, |(_, at)| (*at).min(now));
        let awaited: HashSet<_> =
            self.awaited(epoch, revision, clock::now()).map(|member| member.sidecar.claim.instance.clone()).collect();
        let acknowledged = self.members.values().filter(|member| member.revision(epoch) >= revision);
        let last = acknowledged.map(|member| member.moved).max();
        if awaited.is_empty() {
            // Where nobody has to be waited for there is nothing to measure.
            return last.map(|last| (revision, last.since(written))).into_iter().collect();
        }
        let epoch = epoch.to_owned();
        self.watched.push(Watched { epoch, revision, written, awaited, last: last.unwrap_or(written) });
        Vec::new()
    }

    /// A sidecar has acknowledged this revision, or is gone. Gives the revocations that are in force everywhere by it.
    pub(super) fn acknowledged(
        &mut self,
        instance: &str,
        (epoch, revision): (&str, u64),
        gone: bool,
        now: Mono,
    ) -> Vec<(u64, Duration)> {
        let mut done = Vec::new();
        self.watched.retain_mut(|watched| {
            let has = epoch == watched.epoch && revision >= watched.revision;
            let ended = (has || gone) && watched.awaited.remove(instance);
            if ended && has {
                watched.last = watched.last.max(now);
            }
            if watched.awaited.is_empty() {
                done.push((watched.revision, watched.last.since(watched.written)));
            }
            !watched.awaited.is_empty() && now.since(watched.written) < WATCHED_FOR
        });
        done
    }
}
