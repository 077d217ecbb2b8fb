//! How far the wall clock here is from that of the database.
//!
//! Several control planes write down when sidecars were last confirmed, and judge by it until when they may serve. A clock
//! that is ahead would say too early that it is over. So what is kept of sidecars is in the time of the database.

use std::sync::atomic::{AtomicI64, Ordering};

use super::{super::engine::Tx, Sidecar, StoreError, Wall};
use crate::clock;

/// Clocks that differ by no more than this count as one, in milliseconds. A question that took longer says nothing.
const SAME: i64 = 250;

/// By how much the clock of the database is ahead of ours, in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Skew(AtomicI64);

impl Skew {
    /// Asks the database. A file has no clock of its own.
    pub(super) async fn measure(&self, tx: &mut Tx) -> Result<(), StoreError> {
        if tx.is_sqlite() {
            return Ok(());
        }
        let asked = clock::now().wall.unix_millis();
        let now = tx.fetch_one("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)", vec![]).await?;
        let answered = clock::now().wall.unix_millis();
        if let Some(now) = now {
            self.take(asked, now.int(0)?, answered);
        }
        Ok(())
    }

    fn take(&self, asked: i64, there: i64, answered: i64) {
        if !(0..=SAME).contains(&(answered - asked)) {
            return;
        }
        let ahead = there - asked.midpoint(answered);
        let ahead = if ahead.abs() <= SAME { 0 } else { ahead };
        let before = self.0.swap(ahead, Ordering::Relaxed);
        if (ahead - before).abs() > 2 * SAME {
            tracing::warn!(
                ahead_ms = -ahead,
                "the clock here is not that of the database; what is kept of sidecars is judged by the latter"
            );
        }
    }

    /// As it is kept.
    pub(super) fn kept(&self, sidecar: Sidecar) -> Sidecar {
        moved(sidecar, self.0.load(Ordering::Relaxed))
    }

    /// A moment, as it is kept.
    pub(super) fn kept_at(&self, at: Wall) -> Wall {
        Wall::from_unix_millis(at.unix_millis().saturating_add(self.0.load(Ordering::Relaxed)))
    }

    /// As it is judged here.
    pub(super) fn judged(&self, sidecar: Sidecar) -> Sidecar {
        moved(sidecar, -self.0.load(Ordering::Relaxed))
    }
}

fn moved(sidecar: Sidecar, by: i64) -> Sidecar {
    let moved = |at: Wall| Wall::from_unix_millis(at.unix_millis().saturating_add(by));
    Sidecar {
        first_seen: moved(sidecar.first_seen),
        last_seen: moved(sidecar.last_seen),
        confirmed_at: moved(sidecar.confirmed_at),
        ..sidecar
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::store::Claim;

    fn sidecar(at: i64) -> Sidecar {
        let at = Wall::from_unix_millis(at);
        Sidecar {
            claim: Claim::default(),
            address: None,
            first_seen: at,
            last_seen: at,
            confirmed_at: at,
            max_stale: 60,
            max_stale_write: 60,
            epoch: String::new(),
            revision: 1,
            durable: false,
            seq: 0,
            goodbye: false,
        }
    }

    /// Two control planes an hour apart agree on when a sidecar was confirmed.
    #[test]
    fn what_one_writes_another_reads_in_its_own_time() {
        const HOUR: i64 = 3_600_000;
        let (ahead, right) = (Skew::default(), Skew::default());
        ahead.take(HOUR, 60, HOUR + 100);
        right.take(0, 60, 100);
        let kept = ahead.kept(sidecar(HOUR + 1_000));
        assert_eq!(right.judged(kept.clone()), sidecar(1_010), "to a moment");
        assert_eq!(ahead.judged(kept), sidecar(HOUR + 1_000));
        // What nobody can say is not believed: the last good answer stays.
        ahead.take(HOUR, 60, HOUR + 251);
        ahead.take(HOUR, 60, HOUR - 1);
        assert_eq!(ahead.kept(sidecar(HOUR)), sidecar(10));
        ahead.take(0, 200, 100);
        assert_eq!(ahead.kept(sidecar(7)), sidecar(7), "somebody set the clock");
    }
}
