//! When and from where a key was last used.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering, fence},
};

use crate::clock::Wall;

/// A use so soon after the last one, from the same address, is not noted: the time is good to a tenth of a second, and
/// a key that is used all the time costs its cores no common cache line.
const NOTED_EVERY_MS: u64 = 100;

/// A use that is at most this much older than the last one was overtaken on its way here. One that is older still means
/// that the wall clock was set back.
const OVERTAKEN_MS: i64 = 1000;

/// When and from where a key was last used with success. Updated by atomics alone.
///
/// A sequence lock without the lock: the number is odd while a use is being noted, and a reader that met one tries again.
/// A writer that meets another leaves it to that one; both uses are the last one.
#[derive(Debug, Default)]
pub struct LastUse {
    sequence: AtomicU64,
    at: AtomicI64,
    /// The address in its mapped form, in two halves.
    ip: [AtomicU64; 2],
    changed: AtomicBool,
}

/// One use of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastUsed {
    /// When.
    pub at: Wall,
    /// From which address.
    pub ip: IpAddr,
}

impl LastUse {
    /// Notes a use. Never waits.
    pub fn note(&self, at: Wall, ip: IpAddr) {
        let (millis, halves) = (at.unix_millis(), halves(ip));
        let sequence = self.sequence.load(Ordering::Acquire);
        if sequence > 0 {
            let last = self.at.load(Ordering::Relaxed);
            let same =
                self.ip[0].load(Ordering::Relaxed) == halves[0] && self.ip[1].load(Ordering::Relaxed) == halves[1];
            if same && millis.abs_diff(last) < NOTED_EVERY_MS {
                return;
            }
            if millis < last && last - millis <= OVERTAKEN_MS {
                return;
            }
        }
        if sequence % 2 == 1 {
            return;
        }
        let begun = self.sequence.compare_exchange(sequence, sequence + 1, Ordering::Acquire, Ordering::Relaxed);
        if begun.is_err() {
            return;
        }
        // A reader that sees one of these sees the odd number, too.
        fence(Ordering::Release);
        self.at.store(millis, Ordering::Relaxed);
        self.ip[0].store(halves[0], Ordering::Relaxed);
        self.ip[1].store(halves[1], Ordering::Relaxed);
        self.sequence.store(sequence + 2, Ordering::Release);
        if !self.changed.load(Ordering::Relaxed) {
            self.changed.store(true, Ordering::Release);
        }
    }

    /// The last use; none if there was none.
    pub fn get(&self) -> Option<LastUsed> {
        loop {
            let sequence = self.sequence.load(Ordering::Acquire);
            if sequence == 0 {
                return None;
            }
            let at = self.at.load(Ordering::Relaxed);
            let halves = [self.ip[0].load(Ordering::Relaxed), self.ip[1].load(Ordering::Relaxed)];
            fence(Ordering::Acquire);
            if sequence.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == sequence {
                return Some(LastUsed { at: Wall::from_unix_millis(at), ip: joined(halves) });
            }
            std::hint::spin_loop();
        }
    }

    /// The last use, if it is another one than when this was last asked.
    pub(crate) fn take_changed(&self) -> Option<LastUsed> {
        let changed = self.changed.load(Ordering::Relaxed) && self.changed.swap(false, Ordering::Acquire);
        if changed { self.get() } else { None }
    }

    /// Takes over what an earlier process noted, unless there is a later use already.
    pub(crate) fn restore(&self, last: LastUsed) {
        if self.get().is_none_or(|known| known.at < last.at) {
            self.note(last.at, last.ip);
        }
    }
}

pub(super) fn halves(ip: IpAddr) -> [u64; 2] {
    let bits = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    // Each half is cut to its 64 bits.
    [(bits >> 64) as u64, bits as u64]
}

pub(super) fn joined([high, low]: [u64; 2]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low))).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(millis: i64, ip: &str) -> LastUsed {
        LastUsed { at: Wall::from_unix_millis(millis), ip: ip.parse().unwrap() }
    }

    #[track_caller]
    fn check(uses: &[(i64, &str)], expected: Option<(i64, &str)>) {
        let last = LastUse::default();
        for &(millis, ip) in uses {
            last.note(Wall::from_unix_millis(millis), ip.parse().unwrap());
        }
        assert_eq!(last.get(), expected.map(|(millis, ip)| used(millis, ip)));
    }

    #[test]
    fn the_last_use_is_kept() {
        check(&[], None);
        check(&[(5, "203.0.113.1")], Some((5, "203.0.113.1")));
        check(&[(5, "203.0.113.1"), (5000, "2001:db8::1")], Some((5000, "2001:db8::1")));
        check(&[(5000, "203.0.113.1"), (5001, "203.0.113.2")], Some((5001, "203.0.113.2")));
        check(&[(5000, "::ffff:203.0.113.1")], Some((5000, "203.0.113.1")));
    }

    #[test]
    fn an_overtaken_use_changes_nothing_but_a_clock_set_back_does() {
        check(&[(5000, "203.0.113.1"), (4500, "203.0.113.2")], Some((5000, "203.0.113.1")));
        check(&[(50_000, "203.0.113.1"), (4000, "203.0.113.2")], Some((4000, "203.0.113.2")));
    }

    #[test]
    fn changes_are_told_once() {
        let last = LastUse::default();
        assert_eq!(last.take_changed(), None);
        last.note(Wall::from_unix_millis(7), "203.0.113.1".parse().unwrap());
        assert_eq!(last.take_changed(), Some(used(7, "203.0.113.1")));
        assert_eq!(last.take_changed(), None);
    }

    #[test]
    fn an_older_use_is_not_restored_over_a_later_one() {
        let last = LastUse::default();
        last.note(Wall::from_unix_millis(7000), "203.0.113.1".parse().unwrap());
        last.restore(used(2000, "203.0.113.2"));
        assert_eq!(last.get(), Some(used(7000, "203.0.113.1")));
    }

    #[test]
    fn no_reader_sees_half_a_use() {
        let last = LastUse::default();
        // The time tells which address belongs to it.
        let ip = |millis: i64| joined([u64::try_from(millis).unwrap(), u64::try_from(millis).unwrap()]);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let last = &last;
                scope.spawn(move || {
                    for step in 1..20_000 {
                        let millis = step * 200 + thread;
                        last.note(Wall::from_unix_millis(millis), ip(millis));
                    }
                });
            }
            for _ in 0..20_000 {
                if let Some(used) = last.get() {
                    assert_eq!(used.ip, ip(used.at.unix_millis()));
                }
            }
        });
    }
}
