//! How often requests with a key were refused, why, and the last of it. A key that was never refused has none of it.

use std::{
    net::IpAddr,
    sync::{
        OnceLock,
        atomic::{AtomicU8, AtomicU64, Ordering, fence},
    },
};

use super::last_use::{halves, joined};
use crate::clock::Wall;

/// How many reasons there may be: the room for a number of each.
pub const REASONS: usize = 48;

/// How often requests with a key were refused, by the number of the reason, and the last refusal. Atomics alone; the
/// first refusal of a key makes room for it.
#[derive(Debug, Default)]
pub struct Refusals(OnceLock<Box<Counted>>);

#[derive(Debug)]
struct Counted {
    counts: [AtomicU64; REASONS],
    /// As in [`LastUse`](super::LastUse): odd while a refusal is being noted.
    sequence: AtomicU64,
    at: AtomicU64,
    ip: [AtomicU64; 2],
    reason: AtomicU8,
}

/// One refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastRefused {
    /// The number of its reason.
    pub reason: u8,
    /// When.
    pub at: Wall,
    /// From which address.
    pub ip: IpAddr,
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; REASONS],
            sequence: AtomicU64::new(0),
            at: AtomicU64::new(0),
            ip: Default::default(),
            reason: AtomicU8::new(0),
        }
    }
}

impl Refusals {
    /// Notes a refusal. Two at once are both counted; either is the last.
    pub fn note(&self, reason: u8, at: Wall, ip: IpAddr) {
        let counted = self.0.get_or_init(Box::default);
        if let Some(count) = counted.counts.get(usize::from(reason)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let sequence = counted.sequence.load(Ordering::Acquire);
        let next = sequence + 1;
        if sequence % 2 == 1
            || counted.sequence.compare_exchange(sequence, next, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return;
        }
        fence(Ordering::Release);
        let [high, low] = halves(ip);
        counted.at.store(at.unix_millis().cast_unsigned(), Ordering::Relaxed);
        counted.ip[0].store(high, Ordering::Relaxed);
        counted.ip[1].store(low, Ordering::Relaxed);
        counted.reason.store(reason, Ordering::Relaxed);
        counted.sequence.store(sequence + 2, Ordering::Release);
    }

    /// How often, by the number of the reason; none where there was no refusal.
    pub fn counts(&self) -> Option<[u64; REASONS]> {
        self.0.get().map(|counted| std::array::from_fn(|reason| counted.counts[reason].load(Ordering::Relaxed)))
    }

    /// The last one; none if there was none.
    pub fn last(&self) -> Option<LastRefused> {
        let counted = self.0.get()?;
        loop {
            let sequence = counted.sequence.load(Ordering::Acquire);
            if sequence == 0 {
                return None;
            }
            let at = counted.at.load(Ordering::Relaxed).cast_signed();
            let ip = [counted.ip[0].load(Ordering::Relaxed), counted.ip[1].load(Ordering::Relaxed)];
            let reason = counted.reason.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if sequence.is_multiple_of(2) && counted.sequence.load(Ordering::Relaxed) == sequence {
                return Some(LastRefused { reason, at: Wall::from_unix_millis(at), ip: joined(ip) });
            }
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_reason_and_the_last_is_known() {
        let refusals = Refusals::default();
        assert!(refusals.counts().is_none() && refusals.last().is_none());
        let ip: IpAddr = "203.0.113.1".parse().unwrap();
        for reason in [3, 5, 3, 255] {
            refusals.note(reason, Wall::from_unix_millis(i64::from(reason)), ip);
        }
        let counts = refusals.counts().unwrap();
        assert_eq!((counts[3], counts[5], counts.iter().sum::<u64>()), (2, 1, 3));
        assert_eq!(refusals.last(), Some(LastRefused { reason: 255, at: Wall::from_unix_millis(255), ip }));
    }

    #[test]
    fn none_is_lost_between_threads() {
        let refusals = Refusals::default();
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let refusals = &refusals;
                scope.spawn(move || {
                    for step in 0..5000 {
                        // The moment tells which address and reason belong to it.
                        refusals.note(
                            thread,
                            Wall::from_unix_millis(step * 4 + i64::from(thread)),
                            joined([0, thread.into()]),
                        );
                        let last = refusals.last().unwrap();
                        assert_eq!(last.at.unix_millis() % 4, i64::from(last.reason));
                        assert_eq!(last.ip, joined([0, last.reason.into()]));
                    }
                });
            }
        });
        assert_eq!(refusals.counts().unwrap()[..5], [5000, 5000, 5000, 5000, 0]);
    }
}
