//! Readers of the set while it is swapped.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const KEYS: usize = 40;
const SWAPS: usize = 400;

/// What a reader holds is one version of all keys; a later look never finds an older one; a revoked key is dead in every
/// version, from the moment that the swap has returned.
#[test]
fn readers_see_whole_versions_in_order() {
    let names: Vec<_> = (0..KEYS).map(|number| format!("key-{number}")).collect();
    let version_of = |version: usize, revoked: usize| {
        let rows = names.iter().enumerate().map(|(number, name)| {
            let mut row = pair(name, name, fast("s"));
            row.name = version.to_string().into();
            row.revoked_at = (number < revoked).then(Wall::default);
            row
        });
        document(rows.collect::<Vec<_>>(), [])
    };
    let store = KeyStore::default();
    apply(&store, &version_of(0, 0));
    let (applied, revoked) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let (mut last, mut looks) = (0, 0);
                while !done.load(Ordering::Acquire) || looks == 0 {
                    let (least, dead) = (applied.load(Ordering::Acquire), revoked.load(Ordering::Acquire));
                    let set = store.load();
                    let set = set.as_ref().expect("a set");
                    let version: usize = set.by_id("key-0").expect("the key").name.parse().expect("a version");
                    assert!(version >= last.max(least), "version {version} after {last}, with {least} in force");
                    (last, looks) = (version, looks + 1);
                    let mut count = 0;
                    for record in set.keys() {
                        assert_eq!(record.name.parse(), Ok(version), "{} is of another version", record.id);
                        let number: usize = record.id.as_str()[4..].parse().expect("a number");
                        assert!(number >= dead || record.is_dead(), "{} lives on", record.id);
                        count += 1;
                    }
                    assert_eq!(count, KEYS);
                    for (number, name) in names.iter().enumerate() {
                        let found = set.find_pair(name.as_bytes()).expect("the key");
                        assert!(number >= dead || !store.is_current(found));
                    }
                }
            });
        }
        for version in 1..=SWAPS {
            // The rows of a later version do not say any more what an earlier one revoked.
            let dead = version * KEYS / SWAPS / 2;
            apply(&store, &version_of(version, if version % 3 == 0 { 0 } else { dead }));
            applied.store(version, Ordering::Release);
            if version % 3 != 0 {
                revoked.store(dead, Ordering::Release);
            }
        }
        done.store(true, Ordering::Release);
    });
}
