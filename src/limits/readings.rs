//! What remains, as one request found it.

use std::ops::Range;

use smallvec::SmallVec;

use super::{
    HeaderStyle, Subject, fields,
    take::{Part, seconds_until},
    window::{Tick, tick},
};
use crate::clock::Mono;

/// What remains, of all windows taken for this request, from one reading.
#[derive(Debug, Default)]
pub struct Readings {
    windows: SmallVec<[Reading; 4]>,
    /// When every window that this request has used up has room again.
    not_before: Tick,
}

/// What remains of one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) policy: Policy,
    pub(super) remaining: u32,
    /// In how many seconds more will be available.
    pub(super) more_in: u32,
}

/// What is said of a window in `RateLimit-Policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) subject: Subject,
    pub(super) limit: u32,
    pub(super) seconds: u32,
}

impl Readings {
    /// Whether nothing was taken from any window.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Whose limits are nearly used up: less than a tenth of some window remains. Each subject at most once.
    pub fn near(&self) -> impl Iterator<Item = Subject> + '_ {
        let is_near = |reading: &Reading| u64::from(reading.remaining) * 10 < u64::from(reading.policy.limit);
        Subject::ALL
            .into_iter()
            .filter(move |&subject| self.windows.iter().any(|r| r.policy.subject == subject && is_near(r)))
    }

    /// Puts `Retry-After` off until the windows that this request has used up have room again: a retry needs them,
    /// too. [`take_key`](super::Limiter::take_key) does so itself; a refusal of failures needs it.
    pub fn put_off(&self, retry_after: u64, now: Mono) -> u64 {
        retry_after.max(seconds_until(self.not_before, tick(now)))
    }

    /// Writes the rate-limit fields: the lines (name in lower case, colon, blank, value, line end), and in their order
    /// the places of their names in [`FIELD_NAMES`](super::FIELD_NAMES). The file `fields` says what stands in them:
    /// words of ours and numbers.
    pub fn write(&self, style: HeaderStyle, put: impl FnOnce(&[u8], Range<usize>)) {
        fields::write(&self.windows, style, put);
    }

    /// Whether an upstream's field of this name (lower case) gives way to one of those.
    pub fn replaces(&self, style: HeaderStyle, name: &[u8]) -> bool {
        !self.is_empty() && fields::replaces(style, name)
    }

    /// Adds what remains of a part's windows.
    pub(super) fn read(&mut self, part: &Part<'_>, now: Tick) {
        let subject = part.rules.subject();
        for (window, rule) in part.windows.by_rule(part.rules.rules()) {
            let used = u32::try_from(window.total()).unwrap_or(u32::MAX);
            let remaining = rule.limit.saturating_sub(used);
            let more_at = window.more_at(rule.limit);
            let more_in = match more_at {
                Tick::MAX => rule.seconds,
                _ => u32::try_from(seconds_until(more_at, now)).unwrap_or(u32::MAX),
            };
            if remaining == 0 && more_at != Tick::MAX {
                self.not_before = self.not_before.max(more_at);
            }
            let policy = Policy { subject, limit: rule.limit, seconds: rule.seconds };
            self.windows.push(Reading { policy, remaining, more_in });
        }
    }

    /// When every window that was taken from has room again.
    pub(super) fn not_before(&self) -> Tick {
        self.not_before
    }
}
