//! What has happened to keys since it was last told.

use std::{
    collections::HashMap,
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
};

use foldhash::fast::RandomState;
use serde_json::{Map, Value, json};

use crate::{
    keys::{KeyId, KeySet, KeyState, LastUsed, refusals::REASONS},
    rejection,
};

/// How many keys one report is about.
const MOST: usize = 5000;

/// What was told of each key that was ever used here, and what is being told.
#[derive(Debug, Default)]
pub(super) struct Tally {
    told: HashMap<KeyId, Told, RandomState>,
    telling: Vec<(KeyId, Told)>,
    seq: u64,
    more: bool,
}

/// The counts of one key.
#[derive(Clone, Debug)]
struct Told {
    /// A key that was gone and came back may count anew. What was told of it does not keep it.
    state: Weak<KeyState>,
    allowed: u64,
    refused: u64,
    refusals: Option<Box<[u64; REASONS]>>,
    last: Option<LastUsed>,
}

impl Told {
    fn now(state: &Arc<KeyState>) -> Self {
        Self {
            allowed: state.allowed.load(Relaxed),
            refused: state.refused.load(Relaxed),
            refusals: state.refusals.counts().map(Box::new),
            last: state.last_use.get(),
            state: Arc::downgrade(state),
        }
    }

    fn nothing(state: &Arc<KeyState>) -> Self {
        Self { state: Arc::downgrade(state), allowed: 0, refused: 0, refusals: None, last: None }
    }
}

impl Tally {
    /// What has happened since the last time, and the number of this report; none where nothing has.
    pub(super) fn gather(&mut self, set: &KeySet) -> Option<(u64, Vec<Value>)> {
        self.telling.clear();
        self.more = false;
        if self.told.len() > set.len() {
            self.told.retain(|id, _| set.by_id(id.as_str()).is_some());
        }
        let mut usage = Vec::new();
        for record in set.keys() {
            let state = &record.state;
            let (allowed, refused) = (state.allowed.load(Relaxed), state.refused.load(Relaxed));
            if allowed == 0 && refused == 0 {
                continue;
            }
            let known = self.told.get(&record.id).filter(|told| told.state.as_ptr() == Arc::as_ptr(state));
            if known.is_some_and(|told| (told.allowed, told.refused) == (allowed, refused)) {
                continue;
            }
            if usage.len() == MOST {
                self.more = true;
                break;
            }
            let before = known.cloned().unwrap_or_else(|| Told::nothing(state));
            let now = Told::now(state);
            usage.push(entry(&record.id, state, &before, &now));
            self.telling.push((record.id.clone(), now));
        }
        if usage.is_empty() {
            return None;
        }
        self.seq += 1;
        Some((self.seq, usage))
    }

    /// What was gathered last was taken.
    pub(super) fn settle(&mut self) {
        self.told.extend(self.telling.drain(..));
    }

    /// Whether one report was not enough.
    pub(super) fn has_more(&self) -> bool {
        self.more
    }
}

fn entry(id: &KeyId, state: &KeyState, before: &Told, now: &Told) -> Value {
    let mut entry = json!({
        "key": id.as_str(),
        "allowed": now.allowed.saturating_sub(before.allowed),
        "refused": now.refused.saturating_sub(before.refused),
    });
    if let Some(last) = now.last.filter(|last| before.last != Some(*last)) {
        entry["last_used_at"] = last.at.to_string().into();
        entry["last_ip"] = last.ip.to_string().into();
    }
    if let Some(counts) = &now.refusals {
        let earlier = |reason: usize| before.refusals.as_ref().map_or(0, |counts| counts[reason]);
        let new = |reason: usize| counts[reason].saturating_sub(earlier(reason));
        let by_reason: Map<String, Value> = (0..REASONS)
            .filter(|reason| new(*reason) > 0)
            .filter_map(|reason| Some((label(reason)?.to_owned(), new(reason).into())))
            .collect();
        if !by_reason.is_empty() {
            entry["refusals"] = by_reason.into();
            if let Some(last) = state.refusals.last()
                && let Some(reason) = label(usize::from(last.reason))
            {
                entry["last_refusal"] = json!({"reason": reason, "at": last.at.to_string(), "ip": last.ip.to_string()});
            }
        }
    }
    entry
}

fn label(reason: usize) -> Option<&'static str> {
    rejection::TABLE.get(reason).map(|row| row.label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Wall,
        keys::sample::{self, fast, pair, record},
        rejection::Reason,
    };

    #[test]
    fn what_was_told_is_told_once() {
        let store = sample::store([pair("a", "alice", fast("s")), pair("b", "bob", fast("s"))]);
        let set = store.load().as_ref().map(Arc::clone).unwrap();
        let mut tally = Tally::default();
        assert!(tally.gather(&set).is_none(), "nothing has happened");
        let state = Arc::clone(&record(&store, "a").state);
        let ip = "203.0.113.1".parse().unwrap();
        state.allowed.fetch_add(3, Relaxed);
        state.last_use.note(Wall::from_unix_millis(1000), ip);
        let first = tally.gather(&set).unwrap();
        let expected = json!([{
            "key": "a", "allowed": 3, "refused": 0, "last_used_at": "1970-01-01T00:00:01Z", "last_ip": "203.0.113.1",
        }]);
        assert_eq!(first, (1, expected.as_array().unwrap().clone()));
        tally.settle();
        assert!(tally.gather(&set).is_none(), "it was told");
        for _ in 0..2 {
            state.refused.fetch_add(1, Relaxed);
            state.refusals.note(Reason::WrongSecret as u8, Wall::from_unix_millis(2000), ip);
        }
        let expected = json!([{
            "key": "a", "allowed": 0, "refused": 2, "refusals": {"wrong_secret": 2},
            "last_refusal": {"reason": "wrong_secret", "at": "1970-01-01T00:00:02Z", "ip": "203.0.113.1"},
        }]);
        assert_eq!(tally.gather(&set).unwrap(), (2, expected.as_array().unwrap().clone()));
    }

    #[test]
    fn every_reason_has_a_number_that_is_counted() {
        assert!(rejection::TABLE.len() <= REASONS);
    }
}
