//! Taking from several windows: all or none.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use super::{
    Exceeded, Limiter, Plan, Readings, Rules, Save,
    saved::{SavedWindow, history_of, long_windows},
    window::{Tick, tick},
    windows::Windows,
};
use crate::{
    clock::{Mono, Now},
    keys::KeyRecord,
};

/// The windows of one key or owner: a lock around a few deques of marks. A refill is not possible: the rules are handed
/// in with every take, and what they change is seeded from what was used.
#[derive(Debug, Default)]
pub struct Meter {
    windows: Mutex<Windows>,
    /// Whether a window that is saved has changed since it was.
    changed: AtomicBool,
}

impl Limiter {
    /// Takes one from every window of key and owner together, or from none. Which rules a key has: its own, else its
    /// owner's plan, else `per_key`. Costs at most two uncontended locks; nothing where nothing is limited.
    pub fn take_key(&self, plan: &Plan, key: &KeyRecord, now: Mono, readings: &mut Readings) -> Result<(), Exceeded> {
        let owner = (&key.owner.state.meter, &plan.per_owner);
        self.take_meters((&key.state.meter, plan.key_rules(key)), owner, now, readings)
    }

    /// As [`take_key`](Self::take_key), by the meters and rules themselves.
    ///
    /// Locks the key's meter before the owner's, always in this order, so that two requests cannot wait for each other.
    pub fn take_meters(
        &self,
        (key, key_rules): (&Meter, &Rules),
        (owner, owner_rules): (&Meter, &Rules),
        now: Mono,
        readings: &mut Readings,
    ) -> Result<(), Exceeded> {
        match (key_rules.is_empty(), owner_rules.is_empty()) {
            (true, true) => return Ok(()),
            (false, true) => take(&mut [Part { windows: &mut key.lock(), rules: key_rules }], now, readings)?,
            (true, false) => take(&mut [Part { windows: &mut owner.lock(), rules: owner_rules }], now, readings)?,
            (false, false) => {
                let (mut key, mut owner) = (key.lock(), owner.lock());
                let key = Part { windows: &mut key, rules: key_rules };
                let owner = Part { windows: &mut owner, rules: owner_rules };
                take(&mut [key, owner], now, readings)?;
            }
        }
        key.note_change(key_rules);
        owner.note_change(owner_rules);
        Ok(())
    }
}

impl Meter {
    /// Whether nothing that was taken counts any more, so that a new meter would admit no more than this one.
    pub fn is_spent(&self, now: Mono) -> bool {
        let mut windows = self.lock();
        windows.expire(tick(now));
        windows.are_empty()
    }

    /// The windows to be saved: none if nothing has changed since they last were, unless all are asked for.
    pub(crate) fn long_windows(&self, which: Save, now: Now) -> Option<Vec<SavedWindow>> {
        // The flag is taken down before the lock is taken: a take in between raises it again.
        let changed = self.changed.load(Ordering::Relaxed) && self.changed.swap(false, Ordering::Relaxed);
        let wanted = changed || which == Save::All;
        wanted.then(|| long_windows(&self.lock(), now)).filter(|windows| !windows.is_empty())
    }

    /// Adds what an earlier process has counted.
    pub(crate) fn restore(&self, saved: &[SavedWindow], now: Now) {
        let mut windows = self.lock();
        for window in saved {
            windows.add(window.length(), &history_of(window, now), tick(now.mono));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Windows> {
        // A panic between two windows could at worst leave one admission uncounted in one of them.
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_change(&self, rules: &Rules) {
        // Read first: a line that is only read stays in the caches of all cores.
        if rules.are_saved() && !self.changed.load(Ordering::Relaxed) {
            self.changed.store(true, Ordering::Relaxed);
        }
    }
}

/// The windows of one subject, locked, beside its rules.
pub(super) struct Part<'a> {
    pub(super) windows: &'a mut Windows,
    pub(super) rules: &'a Rules,
}

/// Takes one from every window of every part, or from none, and reads what remains.
pub(super) fn take(parts: &mut [Part<'_>], now: Mono, readings: &mut Readings) -> Result<(), Exceeded> {
    let moment = prepare(parts, now);
    let room = parts.iter().all(|part| part.windows.have_room(part.rules.rules(), 0));
    let verdict = if room {
        for part in &mut *parts {
            part.windows.record(part.rules.rules(), moment);
        }
        Ok(())
    } else {
        Err(exceeded(parts, 0, readings.not_before(), now))
    };
    for part in &*parts {
        readings.read(part, tick(now));
    }
    verdict
}

/// Makes the windows fit, and gives the moment of the take: now, but never earlier than what another thread, whose
/// reading of the clock was later, has already recorded.
pub(super) fn prepare(parts: &mut [Part<'_>], now: Mono) -> Tick {
    let newest = parts.iter().map(|part| part.windows.newest()).max().unwrap_or(0);
    let moment = tick(now).max(newest);
    for part in parts {
        part.windows.prepare(part.rules.rules(), moment);
    }
    moment
}

/// Why there is no room. `not_before` is when windows that were taken earlier in the request have room again.
pub(super) fn exceeded(parts: &[Part<'_>], reserved: u32, not_before: Tick, now: Mono) -> Exceeded {
    let mut exceeded = None;
    let mut retry_after = seconds_until(not_before, tick(now)).max(1);
    for part in parts {
        let rules = part.rules;
        for (window, rule) in part.windows.by_rule(rules.rules()) {
            if window.total() + u64::from(reserved) < u64::from(rule.limit) {
                continue;
            }
            // What is reserved is settled any moment; what is taken returns when its time has come.
            let ready = if rule.limit == 0 {
                u64::from(rule.seconds)
            } else {
                seconds_until(window.ready_at(rule.limit), tick(now))
            };
            retry_after = retry_after.max(ready);
            let (_, violated) = exceeded.get_or_insert_with(|| (rules.subject(), Vec::new()));
            violated.push(super::fields::policy_name(rules.subject(), rule.seconds));
        }
    }
    let (subject, violated) = exceeded.unwrap_or((super::Subject::Key, Vec::new()));
    Exceeded { subject, retry_after, violated }
}

/// Whole seconds, rounded up.
pub(super) fn seconds_until(moment: Tick, now: Tick) -> u64 {
    moment.saturating_sub(now).div_ceil(1_000_000_000)
}
