//! Changes that are applied by themselves come to the same as the whole document.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{clock::Wall, keys::document::OwnerRow};

/// A world of few keys and owners, so that changes meet.
#[derive(Clone, Debug)]
enum Step {
    Key { number: usize, public: usize, owner: usize, token: bool, revoked: bool },
    NoKey(usize),
    Owner { number: usize, suspended: bool },
    NoOwner(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..5_usize, 0..6_usize, 0..3_usize, any::<bool>(), prop::bool::weighted(0.15)).prop_map(
            |(number, public, owner, token, revoked)| Step::Key { number, public, owner, token, revoked }
        ),
        2 => (0..5_usize).prop_map(Step::NoKey),
        3 => (0..3_usize, prop::bool::weighted(0.3)).prop_map(|(number, suspended)| Step::Owner { number, suspended }),
        1 => (0..3_usize).prop_map(Step::NoOwner),
    ]
}

fn consumer_key(number: usize) -> String {
    format!("ck_{number:08x}c1d37be6580f1c2b3a495867d0e1f2a3")
}

fn owner_id(number: usize) -> OwnerId {
    format!("owner{number}").parse().unwrap()
}

/// The rows as they are, and what a step changes in them.
#[derive(Default)]
struct World {
    keys: BTreeMap<KeyId, Arc<KeyRow>>,
    owners: BTreeMap<OwnerId, Arc<OwnerRow>>,
}

impl World {
    fn follow(&mut self, steps: &[Step]) -> Changes {
        let mut changes = Changes::default();
        for step in steps {
            match step {
                Step::Key { number, public, owner, token: is_token, revoked } => {
                    let name = format!("key{number}");
                    let row = match is_token {
                        true => token(&name, &format!("ck_live_{public:06}"), fast("s")),
                        false => pair(&name, &consumer_key(*public), fast("s")),
                    };
                    let revoked_at = revoked.then(|| Wall::from_unix_millis(5));
                    let row = Arc::new(KeyRow { owner: owner_id(*owner), revoked_at, ..row });
                    if *revoked {
                        changes.revoked.insert(row.id.clone(), revoked_at);
                    }
                    self.keys.insert(row.id.clone(), Arc::clone(&row));
                    changes.keys.push((row.id.clone(), Some(row)));
                }
                Step::NoKey(number) => {
                    let id = id(&format!("key{number}"));
                    self.keys.remove(&id);
                    changes.keys.push((id, None));
                }
                Step::Owner { number, suspended } => {
                    let suspended_at = suspended.then(|| Wall::from_unix_millis(7));
                    let row = Arc::new(OwnerRow { suspended_at, ..owner(owner_id(*number).as_str()) });
                    self.owners.insert(row.id.clone(), Arc::clone(&row));
                    changes.owners.push((row.id.clone(), Some(row)));
                }
                Step::NoOwner(number) => {
                    self.owners.remove(&owner_id(*number));
                    changes.owners.push((owner_id(*number), None));
                }
            }
        }
        changes
    }

    fn document(&self, changes: &Changes) -> Document {
        Document {
            keys: self.keys.values().cloned().collect(),
            owners: self.owners.values().cloned().collect(),
            revoked: changes.revoked.clone(),
            ..Document::default()
        }
    }
}

/// All that can be told of a store from outside.
fn seen(store: &KeyStore) -> Vec<String> {
    let held = store.load();
    let set = held.as_ref().unwrap();
    let mut seen = Vec::new();
    let mut records: Vec<_> = set.keys().collect();
    records.sort_by_key(|record| record.id.clone());
    for record in records {
        let standing = record.standing(Wall::default());
        let (owner, dead) = (&record.owner, record.is_dead());
        let passes = standing == Standing::Active && !dead;
        seen.push(format!("{} {:?} {standing:?} {passes} {} {}", record.id, record.public, owner.id, owner.listed));
        assert_eq!(set.owner(owner.id.as_str()).map(Arc::as_ptr), Some(Arc::as_ptr(owner)), "one record an owner");
    }
    for number in 0..6 {
        let pair = set.find_pair(consumer_key(number).as_bytes()).map(|record| record.id.to_string());
        let token = format!("ck_live_{number:06}rest");
        let tokens: Vec<_> = set.find_token(token.as_bytes()).map(|record| record.id.to_string()).collect();
        seen.push(format!("{number} {pair:?} {tokens:?}"));
    }
    let mut owners: Vec<_> = set.owners().map(|owner| format!("{} {:?}", owner.id, owner.suspended_at)).collect();
    owners.sort();
    seen.extend(owners.into_iter().filter(|owner| set.keys().any(|key| owner.starts_with(key.owner.id.as_str()))));
    seen.push(format!("{} {}", set.len(), set.is_empty()));
    seen
}

proptest! {
    #[test]
    fn changes_come_to_the_same_as_the_whole(batches in prop::collection::vec(prop::collection::vec(step(), 1..4), 1..12)) {
        let (by_changes, by_all) = (KeyStore::default(), KeyStore::default());
        let mut world = World::default();
        for store in [&by_changes, &by_all] {
            apply(store, &Document::default());
        }
        for batch in &batches {
            let changes = world.follow(batch);
            let document = world.document(&changes);
            let held = by_changes.load().as_ref().map(Arc::clone).unwrap();
            let before: Vec<Arc<KeyRecord>> = held.keys().cloned().collect();
            if by_changes.apply_changes(&changes, &Terms::default(), Now::default(), |_| {}).is_none() {
                apply(&by_changes, &document);
            }
            apply(&by_all, &document);
            prop_assert_eq!(seen(&by_changes), seen(&by_all));
            prop_assert_eq!(by_changes.revoked(), by_all.revoked());
            // Who is out is dead, also for whoever holds an older version.
            let held = by_changes.load();
            let set = held.as_ref().unwrap();
            for older in before {
                let passes = set.by_id(older.id.as_str()).is_some_and(|new| new.standing(Wall::default()) == Standing::Active);
                prop_assert!(passes || older.is_dead() || older.standing(Wall::default()) != Standing::Active, "{}", older.id);
            }
        }
    }
}

#[test]
fn who_is_cut_off_is_dead_before_any_set_is_built() {
    let store = sample::store([pair("a", HEX, fast("s")), pair("b", "bob", fast("s")), pair("c", "carol", fast("s"))]);
    let [a, b, c] = ["a", "b", "c"].map(|id| record(&store, id));
    let revoked: Revocations = [(id("a"), Some(Wall::from_unix_millis(5)))].into();
    let cut = CutOff { revoked: revoked.clone(), keys: vec![id("b"), id("nobody")], owners: Vec::new() };
    assert_eq!(store.cut_off(&cut), revoked);
    assert!(store.cut_off(&cut).is_empty(), "known by now");
    assert_eq!([&a, &b, &c].map(|record| record.is_dead()), [true, true, false]);
    assert_eq!(store.revoked(), [id("a")]);
    store.cut_off(&CutOff { owners: vec!["owner".parse().unwrap()], ..CutOff::default() });
    assert!(c.is_dead());
    // What was only said too early is taken back by the set that follows; a revocation is not.
    apply(&store, &document([pair("a", HEX, fast("s")), pair("b", "bob", fast("s"))], []));
    assert_eq!([&a, &b].map(|record| record.is_dead()), [true, false]);
}
