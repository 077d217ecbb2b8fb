//! What is done with what the endpoint says: judged, put into force, kept. Nothing here waits.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    Event, Limits,
    journal::Confirmed,
    keeper::Keeper,
    protocol::{Change, Position},
    rows::{Rows, Whole},
};
use crate::{
    clock::{Moment, Mono, Wall},
    keys::{
        KeyStore, Purpose, Revocations,
        store::{Applied, Changes, Terms},
    },
    sync::file::{Prepare, Status},
};

/// What is told of every [`Event`].
pub type Report = Box<dyn FnMut(&Event<'_>) + Send>;

/// Faults of entries that are logged one by one.
const LOGGED: usize = 20;

/// Why what the endpoint said was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The set has to be taken as a whole again.
    Again(String),
    /// It goes back to what it said before, or contradicts it. It is never believed.
    Contradiction(String),
    /// It is none of the protocol.
    Nonsense(String),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Again(why) | Self::Contradiction(why) | Self::Nonsense(why)) = self;
        f.write_str(why)
    }
}

/// The set in force and what is still to become part of it.
pub(super) struct Engine {
    store: Arc<KeyStore>,
    terms: Terms,
    limits: Limits,
    /// What was asked for: the endpoint is told of it, and from its next word on it holds. A longer limit that the endpoint
    /// has not heard of must not hold: it tells others until when we may serve.
    wanted: Limits,
    rows: Rows,
    position: Option<Position>,
    /// Changes whose transaction is not here to its end, and their lines.
    open: Vec<(Change, Bytes)>,
    /// The revision of the last change of this connection. Another line of it goes on with its transaction: not every
    /// endpoint says that there is more to come.
    streamed: Option<u64>,
    /// Whole transactions that are not in force yet.
    ready: Vec<(Change, Bytes)>,
    keeper: Keeper,
    applied: watch::Sender<Option<Position>>,
    confirmed: Option<Moment>,
    /// Whether the keys were said to be too old; none where that has to be said anew.
    stale: Option<[bool; 2]>,
    report: Report,
    prepare: Prepare,
    status: Arc<Mutex<Status>>,
}

/// What an engine is made of.
pub(super) struct Parts {
    pub(super) store: Arc<KeyStore>,
    pub(super) terms: Terms,
    pub(super) limits: Limits,
    pub(super) keeper: Keeper,
    pub(super) applied: watch::Sender<Option<Position>>,
    pub(super) report: Report,
    pub(super) prepare: Prepare,
    pub(super) status: Arc<Mutex<Status>>,
}

impl Engine {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { store, terms, limits, keeper, applied, report, prepare, status } = parts;
        let engine = Self {
            store,
            terms,
            limits,
            wanted: limits,
            rows: Rows::default(),
            position: None,
            open: Vec::new(),
            streamed: None,
            ready: Vec::new(),
            keeper,
            applied,
            confirmed: None,
            stale: None,
            report,
            prepare,
            status,
        };
        engine.limit();
        engine
    }

    /// Which part of the endpoint's history is in force.
    pub(super) fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// The limits that the endpoint is told.
    pub(super) fn wanted(&self) -> Limits {
        self.wanted
    }

    /// Puts what was kept on the disk into force. `confirmed`: since when it is as old as it is, if that is known.
    pub(super) fn restore(&mut self, whole: Whole, confirmed: Option<Confirmed>, now: Moment) {
        // A longer limit than the endpoint knew of then holds once it has heard of it.
        self.limits = confirmed.as_ref().map_or(self.limits, |kept| self.limits.shorter(kept.limits(self.limits)));
        let confirmed = confirmed.and_then(|kept| kept.moment(now));
        let position = whole.position.clone();
        self.rows = whole.rows;
        self.confirmed = confirmed;
        self.limit();
        let applied = self.apply_all(&whole.revoked, &whole.faults, now);
        let age = confirmed.map_or(0, |moment| now.boot.since(moment.boot).as_secs());
        tracing::info!(
            revision = position.revision,
            keys = applied.keys,
            confirmed.age_seconds = age,
            "serving the key set that was kept on the disk, until the control endpoint answers"
        );
        self.keeper.whole(position.clone(), self.rows.clone());
        self.position = Some(position.clone());
        self.in_force(&applied, false, now);
        self.applied.send_replace(Some(position));
        self.tick(now);
    }

    /// Puts a whole set into force. `asked`: it is no older than this.
    pub(super) fn whole(&mut self, whole: Whole, asked: Moment, now: Moment) -> Result<(), Refused> {
        let Whole { position, rows, revoked, faults } = whole;
        if let Some(held) = self.position.as_ref().filter(|held| held.epoch == position.epoch) {
            let (older, newer) = (position.revision, held.revision);
            if older < newer {
                let why = format!("its set has revision {older}, and {newer} is in force");
                return Err(Refused::Contradiction(why));
            }
            if older == newer && held.digest != position.digest {
                let why = format!("its set of revision {older} has another history than the one in force");
                return Err(Refused::Contradiction(why));
            }
            if older == newer {
                self.forget_unfinished();
                self.confirm(asked);
                self.succeeded();
                return Ok(());
            }
        }
        if let Some(held) = self.position.as_ref().filter(|held| held.epoch != position.epoch) {
            tracing::warn!(
                epoch.old = %held.epoch, epoch.new = %position.epoch, revision.old = held.revision,
                revision.new = position.revision,
                "the control endpoint has begun a new history; its set is taken, and what was revoked stays so"
            );
        }
        self.forget_unfinished();
        self.rows = rows;
        let applied = self.apply_all(&revoked, &faults, now);
        self.position = Some(position.clone());
        // What is in force comes first, what is on the disk later: nothing waits for that.
        self.applied.send_replace(Some(position.clone()));
        self.confirm(asked);
        self.keeper.whole(position, self.rows.clone());
        self.in_force(&applied, true, now);
        tracing::info!(
            revision = self.position.as_ref().map_or(0, |position| position.revision),
            keys = applied.keys,
            owners = applied.owners,
            changed = applied.changed,
            removed = applied.removed,
            set_aside = self.quarantined(&applied),
            "keys are in force"
        );
        Ok(())
    }

    /// Takes a change: whom it cuts off is cut off when this returns; the rest waits for [`settle`](Self::settle).
    pub(super) fn change(&mut self, change: Change, line: Bytes) -> Result<(), Refused> {
        let Some(held) = &self.position else { return Err(Refused::Again("a change before the first set".to_owned())) };
        let newest = self.ready.last().map_or(held.revision, |(last, _)| last.revision);
        let revision = change.revision;
        match self.open.first() {
            Some((first, _)) if first.revision != revision => {
                return Err(Refused::Again(format!("revision {} has no end", first.revision)));
            }
            Some(_) => {}
            None if self.streamed == Some(revision) => {}
            None if revision <= newest => {
                return Err(Refused::Contradiction(format!("revision {revision} again, after {newest}")));
            }
            None if revision != newest + 1 => {
                return Err(Refused::Again(format!("revision {revision} comes after {newest}: something is missing")));
            }
            None => {}
        }
        if let Some(cut) = self.rows.cut_off(&change) {
            self.keeper.revoked(self.store.cut_off(&cut));
        }
        let last = !change.more;
        self.streamed = Some(revision);
        self.open.push((change, line));
        if last {
            self.ready.append(&mut self.open);
        }
        Ok(())
    }

    /// Takes a heartbeat: nothing was newer than this at `fresh`. True: what waits has to be settled, then it holds.
    pub(super) fn heartbeat(&mut self, revision: u64) -> Result<(), Refused> {
        let Some(held) = &self.position else {
            return Err(Refused::Again("a heartbeat before the first set".to_owned()));
        };
        let newest = self.ready.last().map_or(held.revision, |(last, _)| last.revision);
        match revision {
            _ if revision > newest => {
                Err(Refused::Again(format!("its newest revision is {revision}, and {newest} was the last to come")))
            }
            _ if revision < newest => {
                Err(Refused::Contradiction(format!("its newest revision is {revision}, and {newest} is in force")))
            }
            _ => Ok(()),
        }
    }

    /// Whether all that waits only cuts off: then it is in force as far as anybody can tell, before a set is built.
    pub(super) fn acknowledge_cuts(&mut self) {
        let Some((last, _)) = self.ready.last() else { return };
        let (revision, digest) = (last.revision, last.digest.clone());
        if self.ready.iter().all(|(change, _)| self.rows.cut_off(change).is_some())
            && let Some(held) = &self.position
        {
            self.applied.send_replace(Some(Position { epoch: held.epoch.clone(), revision, digest }));
        }
    }

    /// Puts what has come into force.
    pub(super) fn settle(&mut self, now: Moment) -> Result<(), Refused> {
        let ready = std::mem::take(&mut self.ready);
        let (Some((last, _)), Some(held)) = (ready.last(), &self.position) else { return Ok(()) };
        let position = Position { epoch: held.epoch.clone(), revision: last.revision, digest: last.digest.clone() };
        let mut changes = Changes::default();
        let mut faults = Vec::new();
        let mut lines = Vec::with_capacity(ready.len());
        for (change, line) in ready {
            // Nothing of what follows holds without it.
            let found = self.rows.change(change, &mut changes).map_err(Refused::Again)?;
            faults.extend(found);
            lines.push(line);
        }
        let applied = match self.store.apply_changes(&changes, &self.terms, now.now, |set| (self.prepare)(set)) {
            Some(applied) => applied,
            None => self.apply_all(&changes.revoked, &faults, now),
        };
        self.position = Some(position.clone());
        self.applied.send_replace(Some(position.clone()));
        self.keeper.revoked(applied.newly_revoked.clone());
        self.keeper.lines(position.clone(), lines.iter().map(|line| &**line));
        for fault in faults.iter().take(LOGGED) {
            tracing::warn!("an entry of the control endpoint is wrong: {fault}");
        }
        self.in_force(&applied, true, now);
        tracing::debug!(revision = position.revision, changed = applied.changed, "changes are in force");
        Ok(())
    }

    /// A connection has ended: what it began and did not finish begins anew.
    pub(super) fn forget_unfinished(&mut self) {
        self.streamed = None;
        self.open.clear();
        self.ready.clear();
    }

    /// The endpoint said at this moment that nothing is newer than what is in force.
    pub(super) fn confirm(&mut self, at: Moment) {
        if self.confirmed.is_some_and(|held| held.boot >= at.boot) {
            return;
        }
        self.confirmed = Some(at);
        self.limits = self.wanted;
        self.limit();
        self.with_status(|status| status.last_success = Some(at.now.wall));
        if let Some(position) = &self.position {
            self.keeper.confirmed(position.clone(), at, self.limits);
        }
        if self.stale.is_some_and(|stale| stale.contains(&true)) {
            self.tick(crate::clock::moment());
        }
    }

    /// New terms and limits, from now on.
    pub(super) fn reload(&mut self, terms: Terms, limits: Limits, now: Moment) {
        (self.terms, self.wanted) = (terms, limits);
        self.limits = self.limits.shorter(limits);
        self.limit();
        if self.position.is_some() {
            let applied = self.apply_all(&Revocations::new(), &[], now);
            self.in_force(&applied, true, now);
        }
        self.tick(now);
    }

    /// What is due now and then: who is told that the keys are too old, what the disk still lacks.
    pub(super) fn tick(&mut self, now: Moment) {
        // A machine that slept has not counted on the clock that requests look at.
        self.limit_by_boot(now);
        let stale = [Purpose::Read, Purpose::Write]
            .map(|purpose| self.position.is_some() && self.store.freshness().is_over(purpose, now.now));
        if self.position.is_some() && self.stale != Some(stale) {
            let before = self.stale.replace(stale);
            if stale.contains(&true) {
                tracing::error!(
                    reads.refused = stale[0],
                    writes.refused = stale[1],
                    "the control endpoint has not confirmed the keys for too long"
                );
            } else if before.is_some_and(|before| before.contains(&true)) {
                tracing::info!("the keys are confirmed again");
            }
            (self.report)(&Event::Stale { reads: stale[0], writes: stale[1] });
        }
        if let Some(position) = &self.position
            && self.keeper.wants_whole(now.now.mono)
        {
            self.keeper.whole(position.clone(), self.rows.clone());
        }
        self.store.sweep(now.now);
    }

    /// Says that something of the endpoint was not taken; the set in force stays.
    pub(super) fn refused(&mut self, why: &str) {
        self.with_status(|status| {
            status.failed += 1;
            status.fault = Some(why.to_owned());
        });
        (self.report)(&Event::Refused(why));
    }

    pub(super) fn reachable(&mut self, trouble: Option<&str>) {
        (self.report)(&Event::Reachable(trouble));
    }

    fn apply_all(&mut self, revoked: &Revocations, faults: &[String], now: Moment) -> Applied {
        let document = self.rows.document(revoked, faults);
        let applied = self.store.apply_after(&document, &self.terms, now.now, |set| (self.prepare)(set));
        self.keeper.revoked(applied.newly_revoked.clone());
        for fault in faults.iter().take(LOGGED) {
            tracing::warn!("an entry of the control endpoint is wrong: {fault}");
        }
        for fault in applied.faults.iter().take(LOGGED) {
            tracing::warn!("an entry of the control endpoint is wrong: {}", fault.message);
        }
        if !applied.revived.is_empty() {
            tracing::warn!(
                count = applied.revived.len(),
                "keys were revoked and stay so, although the control endpoint does not say it any more"
            );
        }
        applied
    }

    fn quarantined(&self, applied: &Applied) -> usize {
        self.rows.quarantined() + applied.set_aside.len()
    }

    fn in_force(&mut self, applied: &Applied, from_endpoint: bool, now: Moment) {
        let quarantined = self.quarantined(applied);
        let revision = self.position.as_ref().map_or(0, |position| position.revision);
        self.with_status(|status| {
            status.revision = revision;
            status.quarantined = quarantined;
            status.applied += u64::from(from_endpoint);
        });
        (self.report)(&Event::Applied { applied, from_endpoint });
        if from_endpoint {
            self.succeeded();
        }
        // Also where nothing has changed in that: it may have been said that there are no keys at all.
        self.stale = None;
        self.tick(now);
    }

    /// What the endpoint said last was good.
    fn succeeded(&mut self) {
        if self.with_status(|status| status.fault.take().is_some()) {
            (self.report)(&Event::Recovered);
        }
    }

    fn with_status<T>(&self, with: impl FnOnce(&mut Status) -> T) -> T {
        with(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says until when the keys may be served; before the first confirmation, not at all.
    fn limit(&self) {
        for (purpose, most) in self.limits.each() {
            let (mono, wall) = match &self.confirmed {
                Some(at) => (at.now.mono.plus(most), at.now.wall.plus(most)),
                None => (Mono::from_nanos(0), Wall::from_unix_millis(i64::MIN)),
            };
            self.store.freshness().set(purpose, mono, wall);
        }
    }

    fn limit_by_boot(&self, now: Moment) {
        let Some(at) = &self.confirmed else { return };
        for (purpose, most) in self.limits.each() {
            let left = most.saturating_sub(now.boot.since(at.boot));
            let by_boot = now.now.mono.plus(left);
            // A moment of difference between two readings is no sleep.
            if by_boot.plus(std::time::Duration::from_millis(100)) < at.now.mono.plus(most) {
                self.store.freshness().set(purpose, by_boot, at.now.wall.plus(most));
            }
        }
    }
}
