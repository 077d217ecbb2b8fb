//! Which keys have a series of their own: the busiest ones, so that 100,000 keys do not make 200,000 series.
//!
//! A key keeps its slot. Its series begins at zero when the slot is given to it; what came before stays in `other`,
//! so that no series ever falls. When all slots are taken, a much busier key may take the slot of the quietest one;
//! then the old series ends, and what it counted is not added to `other` again.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::KeyOutcome;
use crate::keys::{KeyId, KeySet, KeyState};

/// How many keys have a series of their own.
const SLOTS: usize = 100;
/// How many slots may change hands at one scrape, which bounds how fast series can come and go.
const SWAPS: usize = 2;
/// The label of all other keys. A key of this very name never gets a slot: two series with one name would spoil the
/// whole scrape.
const OTHER: &str = "other";

type Counts = [u64; KeyOutcome::ALL.len()];
type CurrentKeys = Box<dyn Fn() -> Option<Arc<KeySet>> + Send + Sync>;

/// The slots, and who has them.
#[derive(Default)]
pub(super) struct Busiest {
    current: Option<CurrentKeys>,
    slots: HashMap<KeyId, Slot>,
    /// What ended series had counted.
    retired: Counts,
    /// What `other` was last: a request that is counted just now must not make it fall.
    other: Counts,
}

struct Slot {
    state: Arc<KeyState>,
    /// The key's counters when it got the slot.
    base: Counts,
    /// Whether the key is in the current set.
    present: bool,
}

impl Slot {
    fn new(state: &Arc<KeyState>) -> Self {
        Self { state: Arc::clone(state), base: counts(state), present: true }
    }

    fn counts(&self) -> Counts {
        let now = counts(&self.state);
        std::array::from_fn(|index| now[index].saturating_sub(self.base[index]))
    }
}

fn counts(state: &KeyState) -> Counts {
    KeyOutcome::ALL.map(|outcome| outcome.of(state).load(Relaxed))
}

/// How busy a key is: its requests since the start, so that no rate has to be kept for keys without a slot.
fn busy(state: &KeyState) -> u64 {
    counts(state).iter().sum()
}

impl Busiest {
    pub(super) fn source(&mut self, current: CurrentKeys) {
        self.current = Some(current);
    }

    /// Reports one sample per slot and outcome, and `other`. `totals` are the requests of all keys.
    pub(super) fn fill(&mut self, totals: Counts, sample: impl FnMut(&str, KeyOutcome, u64)) {
        if let Some(keys) = self.current.as_ref().and_then(|current| current()) {
            self.assign(keys.keys().map(|key| (&key.id, &key.state)));
        }
        self.report(totals, sample);
    }

    fn report(&mut self, totals: Counts, mut sample: impl FnMut(&str, KeyOutcome, u64)) {
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
            sample(OTHER, outcome, self.other[index]);
        }
    }

    /// Ends the series of keys that are gone, and gives slots to the busiest keys that have none. One pass over the
    /// keys, on the thread that serves the scrape.
    fn assign<'k>(&mut self, keys: impl Iterator<Item = (&'k KeyId, &'k Arc<KeyState>)>) {
        self.slots.values_mut().for_each(|slot| slot.present = false);
        // The busiest keys without a slot, the least busy of them on top.
        let mut waiting = BinaryHeap::with_capacity(SLOTS + 1);
        for (id, state) in keys {
            if let Some(slot) = self.slots.get_mut(id) {
                // The same name with another state is another key: it starts anew at the next scrape.
                slot.present = Arc::ptr_eq(&slot.state, state);
                continue;
            }
            let requests = busy(state);
            if requests > 0 && id.as_str() != OTHER {
                waiting.push(Reverse(Waiting { requests, id, state }));
                if waiting.len() > SLOTS {
                    waiting.pop();
                }
            }
        }
        let gone: Vec<KeyId> = self.slots.iter().filter(|(_, slot)| !slot.present).map(|(id, _)| id.clone()).collect();
        gone.iter().for_each(|id| self.end(id));
        let mut swaps = SWAPS;
        // The busiest first: ascending by `Reverse` is descending by requests.
        for Reverse(Waiting { requests, id, state }) in waiting.into_sorted_vec() {
            if self.slots.len() == SLOTS {
                let quietest = self.slots.iter().map(|(id, slot)| (busy(&slot.state), id)).min();
                let Some((least, quietest)) = quietest.map(|(least, id)| (least, id.clone())) else { return };
                // Twice as busy, so that two keys of a kind do not take turns.
                if swaps == 0 || requests / 2 <= least {
                    return;
                }
                swaps -= 1;
                self.end(&quietest);
            }
            self.slots.insert(id.clone(), Slot::new(state));
        }
    }

    fn end(&mut self, id: &KeyId) {
        if let Some(slot) = self.slots.remove(id) {
            for (retired, count) in self.retired.iter_mut().zip(slot.counts()) {
                *retired += count;
            }
        }
    }
}

/// A key without a slot. Ordered by how busy it is.
struct Waiting<'k> {
    requests: u64,
    id: &'k KeyId,
    state: &'k Arc<KeyState>,
}

impl Waiting<'_> {
    fn rank(&self) -> (u64, &KeyId) {
        (self.requests, self.id)
    }
}

impl PartialEq for Waiting<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Waiting<'_> {}

impl PartialOrd for Waiting<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Keys and the total of their requests, as the serving threads keep it.
    #[derive(Default)]
    struct Keys {
        states: BTreeMap<KeyId, Arc<KeyState>>,
        totals: Counts,
        busiest: Busiest,
    }

    impl Keys {
        fn request(&mut self, id: &str, count: u64) {
            let state = self.states.entry(id.parse().unwrap()).or_default();
            state.allowed.fetch_add(count, Relaxed);
            self.totals[KeyOutcome::Allowed as usize] += count;
        }

        fn scrape(&mut self) -> BTreeMap<String, u64> {
            self.busiest.assign(self.states.iter());
            let mut samples = BTreeMap::new();
            self.busiest.report(self.totals, |key, outcome, count| {
                if outcome == KeyOutcome::Allowed {
                    assert_eq!(samples.insert(key.to_owned(), count), None, "{key} twice");
                }
            });
            samples
        }
    }

    #[track_caller]
    fn check(samples: &BTreeMap<String, u64>, key: &str, expected: Option<u64>) {
        assert_eq!(samples.get(key).copied(), expected, "{key} in {samples:?}");
    }

    #[test]
    fn a_series_begins_at_zero_and_other_keeps_what_came_before() {
        let mut keys = Keys::default();
        keys.request("key_a", 7);
        let samples = keys.scrape();
        check(&samples, "key_a", Some(0));
        check(&samples, "other", Some(7));
        keys.request("key_a", 3);
        let samples = keys.scrape();
        check(&samples, "key_a", Some(3));
        check(&samples, "other", Some(7));
    }

    #[test]
    fn many_keys_make_few_series_and_the_sum_is_the_total() {
        let mut keys = Keys::default();
        for number in 0..1000 {
            keys.request(&format!("key_{number}"), number + 1);
        }
        keys.scrape();
        for number in 0..1000 {
            keys.request(&format!("key_{number}"), number + 1);
        }
        let samples = keys.scrape();
        assert_eq!(samples.len(), SLOTS + 1);
        assert_eq!(samples.values().sum::<u64>(), 2 * 1000 * 1001 / 2);
        check(&samples, "key_999", Some(1000));
        check(&samples, "key_0", None);
    }

    #[test]
    fn a_much_busier_key_takes_the_slot_of_the_quietest_and_no_series_falls() {
        let mut keys = Keys::default();
        for number in 0..SLOTS {
            keys.request(&format!("key_{number:03}"), 10);
        }
        keys.scrape();
        keys.request("key_000", 1);
        keys.request("newcomer", 19);
        let before = keys.scrape();
        check(&before, "newcomer", None);
        keys.request("newcomer", 100);
        let after = keys.scrape();
        check(&after, "newcomer", Some(0));
        check(&after, "key_001", None);
        check(&after, "key_000", Some(1));
        // The requests before the slot was given stay in `other`.
        check(&after, "other", Some(before["other"] + 100));
    }

    #[test]
    fn the_series_of_a_deleted_key_ends_and_is_not_added_to_other() {
        let mut keys = Keys::default();
        keys.request("key_a", 1);
        keys.scrape();
        keys.request("key_a", 5);
        keys.states.clear();
        let samples = keys.scrape();
        check(&samples, "key_a", None);
        check(&samples, "other", Some(1));
        // A new key of the same name starts anew.
        keys.request("key_a", 2);
        keys.scrape();
        keys.request("key_a", 4);
        check(&keys.scrape(), "key_a", Some(4));
    }

    #[test]
    fn a_key_named_other_has_no_series_of_its_own() {
        let mut keys = Keys::default();
        keys.request("other", 3);
        assert_eq!(keys.scrape(), BTreeMap::from([("other".to_owned(), 3)]));
    }
}
