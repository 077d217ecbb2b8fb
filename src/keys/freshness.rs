//! Until when the keys in force may be served, if nobody confirms them again.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use crate::clock::{Mono, Now, Wall};

/// What a request would do with a key set that may be old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Only read.
    Read,
    /// Perhaps change something.
    Write,
}

/// Until when the keys in force may be served, by both clocks: whichever is over first ends it, so that no clock that is
/// set makes old keys young. For ever, until somebody says otherwise.
#[derive(Debug, Default)]
pub struct Freshness([Limit; 2]);

#[derive(Debug)]
struct Limit {
    mono: AtomicU64,
    wall: AtomicI64,
}

impl Default for Limit {
    fn default() -> Self {
        Self { mono: AtomicU64::new(u64::MAX), wall: AtomicI64::new(i64::MAX) }
    }
}

impl Freshness {
    /// Whether the keys are too old for this. Two loads.
    pub fn is_over(&self, purpose: Purpose, now: Now) -> bool {
        let limit = &self.0[purpose as usize];
        now.mono.as_nanos() >= limit.mono.load(Relaxed) || now.wall.unix_millis() >= limit.wall.load(Relaxed)
    }

    /// Says until when they may be served for this.
    pub fn set(&self, purpose: Purpose, mono: Mono, wall: Wall) {
        let limit = &self.0[purpose as usize];
        limit.mono.store(mono.as_nanos(), Relaxed);
        limit.wall.store(wall.unix_millis(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(freshness: &Freshness, mono: u64, wall: i64, expected: [bool; 2]) {
        let now = Now { mono: Mono::from_nanos(mono), wall: Wall::from_unix_millis(wall) };
        assert_eq!([Purpose::Read, Purpose::Write].map(|purpose| freshness.is_over(purpose, now)), expected);
    }

    #[test]
    fn each_clock_ends_it_and_each_purpose_has_its_own_end() {
        let freshness = Freshness::default();
        check(&freshness, u64::MAX - 1, i64::MAX - 1, [false, false]);
        freshness.set(Purpose::Write, Mono::from_nanos(10), Wall::from_unix_millis(1000));
        check(&freshness, 9, 999, [false, false]);
        check(&freshness, 10, 0, [false, true]);
        check(&freshness, 0, 1000, [false, true]);
        freshness.set(Purpose::Read, Mono::from_nanos(0), Wall::from_unix_millis(1000));
        check(&freshness, 0, 0, [true, false]);
    }
}
