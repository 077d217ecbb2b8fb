mod changes;
mod stress;

use std::sync::atomic::AtomicBool;

use super::*;
use crate::keys::{
    Since, Standing,
    record::PublicPart,
    sample::{self, document, fast, id, owner, pair, record, slow, token},
    secret::{Algorithm, SecretHash},
    verify::digest,
};

const HEX: &str = "ck_4f2a90c1d37be6580f1c2b3a495867d0e1f2a3b4";

fn apply(store: &KeyStore, document: &Document) -> Applied {
    store.apply(document, &Terms::default(), Now::default())
}

/// The ids that a lookup of this token finds, in order.
#[track_caller]
fn check_token(store: &KeyStore, token: &str, expected: &[&str]) {
    let set = store.load();
    let found: Vec<_> = set.as_ref().unwrap().find_token(token.as_bytes()).map(|record| record.id.as_str()).collect();
    assert_eq!(found, expected, "{token}");
}

#[track_caller]
fn check_pair(store: &KeyStore, consumer_key: &str, expected: Option<&str>) {
    let set = store.load();
    let found = set.as_ref().unwrap().find_pair(consumer_key.as_bytes()).map(|record| record.id.as_str());
    assert_eq!(found, expected, "{consumer_key}");
}

fn by_digest(kind: Kind, id: &str, public: &str) -> KeyRow {
    let digest = set::mac("wc-api").chain_update(public.as_bytes()).finalize().into_bytes().into();
    KeyRow { kind, public: PublicPart::Digest { key: "wc-api".into(), digest }, ..pair(id, "-", fast("s")) }
}

#[test]
fn nothing_is_there_before_the_first_set() {
    let store = KeyStore::default();
    assert!(store.load().is_none());
    assert!(store.revoked().is_empty());
}

#[test]
fn pairs_are_found_by_their_whole_consumer_key() {
    let store = sample::store([
        pair("a", HEX, fast("s")),
        by_digest(Kind::Pair, "woo", "ck_of_the_shop"),
        token("t", "ck_live_abc123", fast("s")),
    ]);
    check_pair(&store, HEX, Some("a"));
    check_pair(&store, "ck_of_the_shop", Some("woo"));
    for stranger in ["", "ck_", &HEX[..42], "ck_live_abc123", "-", "a"] {
        check_pair(&store, stranger, None);
    }
}

#[test]
fn the_lookup_digest_is_that_of_the_shop_system() {
    // What WooCommerce stores for this consumer key: hash_hmac('sha256', 'ck_test', 'wc-api').
    let digest: [u8; 32] = set::mac("wc-api").chain_update(b"ck_test").finalize().into_bytes().into();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "c84d2755258acc4448a88c9c78ff71533c13fb2e23886445743b0c75f08bf2d1");
}

#[test]
fn tokens_are_found_by_each_prefix_length_in_use() {
    let store = sample::store([
        token("a", "ck_live_abc123", fast("s")),
        token("b", "ck_live_abc123", fast("s")),
        token("short", "ck_live_", fast("s")),
        token("other", "sk_live_x", fast("s")),
        by_digest(Kind::Token, "digested", "sk_live_xyz"),
        pair("p", "ck_live_abc", fast("s")),
    ]);
    check_token(&store, "ck_live_abc123XYZ", &["a", "b", "short"]);
    check_token(&store, "ck_live_abc124XYZ", &["short"]);
    check_token(&store, "sk_live_xyz", &["other", "digested"]);
    check_token(&store, "sk_live_xy", &["other"]);
    for stranger in ["", "c", "ck_live", "sk_live_abc123"] {
        check_token(&store, stranger, &[]);
    }
}

#[test]
fn rows_that_did_not_change_keep_their_records() {
    let store = KeyStore::default();
    let first = document([pair("a", "alice", fast("s")), pair("b", "bob", fast("s"))], [owner("owner")]);
    assert_eq!(apply(&store, &first).changed, 2);
    let (a, b) = (record(&store, "a"), record(&store, "b"));

    // Other allocations, the same content.
    let mut second = document(first.keys.iter().map(|row| (**row).clone()), [owner("owner")]);
    Arc::make_mut(&mut second.keys[1]).name = "another".into();
    let applied = apply(&store, &second);
    assert_eq!((applied.revision, applied.keys, applied.changed), (2, 2, 1));
    assert!(Arc::ptr_eq(&a, &record(&store, "a")));
    assert!(store.is_current(&a) && !store.is_current(&b));
    assert!(Arc::ptr_eq(&b.state, &record(&store, "b").state), "what was used up stays with the id");

    // An owner that changed makes new records of its keys, and stays the same by its state.
    second.owners = vec![Arc::new(OwnerRow { plan: Some("pro".into()), ..owner("owner") })];
    assert_eq!(apply(&store, &second).changed, 2);
    let newer = record(&store, "a");
    assert_eq!(newer.owner.plan.as_deref(), Some("pro"));
    assert!(Arc::ptr_eq(&a.owner.state, &newer.owner.state));
    assert!(Arc::ptr_eq(&a.state, &newer.state));

    // Without its row: no capabilities, KYC none; the key still works.
    second.owners.clear();
    apply(&store, &second);
    let newer = record(&store, "a");
    assert!(!newer.owner.listed && Arc::ptr_eq(&a.owner.state, &newer.owner.state));
    assert_eq!(newer.standing(Wall::default()), Standing::Active);
}

#[test]
fn a_verified_secret_goes_along_exactly_while_the_hash_stays() {
    let store = sample::store([pair("a", "alice", slow("s"))]);
    let digest = digest::of(&Secret::new(b"s"));
    record(&store, "a").set_verified(digest);
    apply(&store, &document([KeyRow { scopes: Default::default(), ..pair("a", "alice", slow("s")) }], []));
    assert!(record(&store, "a").is_verified(&digest));
    apply(&store, &document([pair("a", "alice", slow("other"))], []));
    assert!(!record(&store, "a").has_verified());
}

#[test]
fn what_was_seen_revoked_stays_revoked() {
    let store = KeyStore::new([(id("old"), None)]);
    let living = document(["a", "b", "old"].map(|id| pair(id, id, fast("s"))), []);
    let applied = apply(&store, &living);
    assert!(applied.newly_revoked.is_empty());
    assert_eq!(record(&store, "old").standing(Wall::default()), Standing::Revoked);

    let mut revoking = living.clone();
    // A moment ahead of our clock: whoever wrote it has another one, and the revoke was said to be in force.
    Arc::make_mut(&mut revoking.keys[0]).revoked_at = Some(Wall::from_unix_millis(i64::MAX));
    // The entry of b cannot be read but for its revocation.
    revoking.keys.remove(1);
    revoking.revoked = [(id("a"), Some(Wall::from_unix_millis(i64::MAX))), (id("b"), Some(Wall::default()))].into();
    let applied = apply(&store, &revoking);
    assert_eq!(applied.newly_revoked, revoking.revoked);
    assert_eq!(applied.revived, [id("old")]);
    assert_eq!(record(&store, "a").standing(Wall::default()), Standing::Revoked);

    let applied = apply(&store, &living);
    assert!(applied.newly_revoked.is_empty());
    for id in ["a", "b", "old"] {
        let record = record(&store, id);
        assert_eq!(record.standing(Wall::default()), Standing::Revoked, "{id}");
        assert!(record.is_dead() && !store.is_current(&record), "{id}");
    }
    assert_eq!(applied.revived, [id("a"), id("b"), id("old")]);
    // What an older build remembered has no moment; no other one is made up for it.
    assert_eq!(record(&store, "old").revoked_at, Some(Since::Earlier));
    assert_eq!(record(&store, "b").revoked_at, Some(Since::At(Wall::default())));
    assert_eq!(store.revoked(), [id("a"), id("b"), id("old")]);
    assert_eq!(store.load().as_ref().unwrap().count(Wall::default())[1], (Standing::Revoked, 3));
}

#[test]
fn who_is_cut_off_is_dead_before_the_new_set_is_seen() {
    let store = KeyStore::default();
    let row = |id, owner: &str| KeyRow { owner: owner.parse().unwrap(), ..pair(id, id, fast("s")) };
    let rows = || [row("revoked", "o"), row("removed", "o"), row("suspended", "s"), row("stays", "o")];
    apply(&store, &document(rows(), [owner("s")]));
    let before: Vec<_> = ["revoked", "removed", "suspended", "stays"].map(|id| record(&store, id)).into();
    assert!(before.iter().all(|record| store.is_current(record)));

    let mut next = document(rows(), [OwnerRow { suspended_at: Some(Wall::default()), ..owner("s") }]);
    Arc::make_mut(&mut next.keys[0]).revoked_at = Some(Wall::default());
    next.keys.remove(1);
    let applied = store.apply_after(&next, &Terms::default(), Now::default(), |set| {
        assert_eq!(set.len(), 3);
        assert_eq!(store.load().as_ref().unwrap().revision(), 1, "the old set is still the one that requests see");
        let dead: Vec<_> = before.iter().map(|record| record.is_dead()).collect();
        assert_eq!(dead, [true, true, true, false]);
    });
    assert_eq!((applied.revision, applied.removed), (2, 1));
    assert_eq!(record(&store, "suspended").standing(Wall::default()), Standing::Suspended);

    // All of it taken back: the removed and the suspended live again, the revoked does not.
    apply(&store, &document(rows(), [owner("s")]));
    for (older, alive) in before.iter().zip([false, true, true, true]) {
        let record = record(&store, older.id.as_str());
        assert_eq!(store.is_current(&record), alive, "{}", record.id);
        assert!(Arc::ptr_eq(&record.state, &older.state), "{}: removing it gave no fresh allowance", record.id);
    }
}

#[test]
fn an_entry_set_aside_is_not_accepted_though_an_older_version_was_good() {
    let store = sample::store([pair("a", "alice", fast("s"))]);
    let old = record(&store, "a");
    let mut next = document([pair("a", "alice", fast("s"))], []);
    next.set_aside = vec![id("a")];
    apply(&store, &next);
    assert!(old.is_dead());
    check_pair(&store, "alice", None);
}

/// Applies, and compares what was set aside and how many sentences say why.
#[track_caller]
fn check_aside(rows: impl IntoIterator<Item = KeyRow>, aside: &[&str], sentences: &[&str]) {
    let store = KeyStore::default();
    let applied = apply(&store, &document(rows, []));
    assert_eq!(applied.set_aside.iter().map(KeyId::as_str).collect::<Vec<_>>(), aside);
    assert_eq!(applied.faults.iter().map(|fault| fault.message.as_str()).collect::<Vec<_>>(), sentences);
    for id in aside {
        assert!(store.load().as_ref().unwrap().by_id(id).is_none(), "{id}");
    }
}

#[test]
fn what_is_ambiguous_is_set_aside_on_both_sides() {
    let row = |id, key| pair(id, key, fast("s"));
    check_aside(
        [row("a", "x"), row("b", "y"), row("a", "z")],
        &["a"],
        &["two keys have the id a: neither is accepted"],
    );
    check_aside(
        [row("a", "x"), row("b", "x"), row("c", "y")],
        &["a", "b"],
        &["the keys a and b have the same public part: neither is accepted"],
    );
    check_aside(
        [row("a", "ck_shop"), by_digest(Kind::Pair, "b", "ck_shop")],
        &["a", "b"],
        &["the keys b and a have the same public part: neither is accepted"],
    );
    check_aside([row("a", "")], &["a"], &["the key a has an empty public part: it is not accepted"]);
    // Tokens are told apart by their secrets, and a pair is no token.
    check_aside([token("a", "x", fast("s")), token("b", "x", fast("t")), row("c", "x")], &[], &[]);
}

#[test]
fn a_revoked_pair_gives_way_to_a_new_one_of_its_name() {
    let revoked = KeyRow { revoked_at: Some(Wall::default()), ..pair("a", "alice", fast("s")) };
    let store = sample::store([revoked, pair("b", "alice", fast("t"))]);
    check_pair(&store, "alice", Some("b"));
    assert_eq!(store.load().as_ref().unwrap().len(), 2);
}

#[test]
fn a_hash_that_the_pepper_does_not_fit_is_set_aside() {
    let (pepper, other) = (Secret::new(b"one pepper"), Secret::new(b"another"));
    let hash = SecretHash::make(Algorithm::HmacSha256, &Secret::new(b"s"), Some(&pepper)).unwrap();
    let document = document([pair("a", "alice", hash)], []);
    for (pepper, accepted) in [(None, 0), (Some(other), 0), (Some(pepper), 1)] {
        let terms = Terms { pepper, ..Terms::default() };
        let applied = KeyStore::default().apply(&document, &terms, Now::default());
        assert_eq!((applied.keys, applied.faults.len()), (accepted, 1 - accepted));
    }
}

#[test]
fn the_keys_of_an_owner_with_two_rows_wait() {
    let store = KeyStore::default();
    let applied = apply(&store, &document([pair("a", "alice", fast("s"))], [owner("owner"), owner("owner")]));
    assert_eq!(applied.faults[0].message, "two owners have the id owner: its keys are not accepted");
    let record = record(&store, "a");
    assert_eq!(record.standing(Wall::default()), Standing::Suspended);
    apply(&store, &document([pair("a", "alice", fast("s"))], [owner("owner")]));
    assert!(!record.is_dead());
}

#[test]
fn a_key_expires_at_its_moment() {
    let expires_at = Some(Wall::from_unix_millis(1000));
    let store = sample::store([KeyRow { expires_at, ..pair("a", "alice", fast("s")) }, pair("b", "bob", fast("s"))]);
    let set = store.load();
    let set = set.as_ref().unwrap();
    let count = |now| set.count(Wall::from_unix_millis(now)).map(|(_, count)| count);
    assert_eq!(count(999), [2, 0, 0, 0]);
    assert_eq!(count(1000), [1, 0, 1, 0]);
}

#[test]
fn a_replaced_set_is_dropped_by_the_one_who_applies() {
    let store = sample::store([pair("a", "alice", fast("s"))]);
    let reading = store.load();
    let old = Arc::downgrade(reading.as_ref().unwrap());
    apply(&store, &document([], []));
    assert_eq!(old.strong_count(), 2, "kept for the reader, and by the store so that the reader does not drop it");
    drop(reading);
    store.sweep(Now::default());
    assert_eq!(old.strong_count(), 0);
}

#[test]
fn only_human_chosen_names_have_decoys() {
    let machines = sample::store([pair("a", HEX, slow("s")), token("t", "ck_live_abc123", slow("s"))]);
    let set = machines.load();
    let set = set.as_ref().unwrap();
    assert!(set.decoy(Kind::Pair, b"alice").is_none() && set.decoy(Kind::Token, b"anything").is_none());
    assert!(set.keys().all(|record| record.machine_made));

    let humans = sample::store([pair("a", HEX, slow("s")), pair("h", "alice", slow("s")), pair("f", "bob", fast("s"))]);
    let set = humans.load();
    let set = set.as_ref().unwrap();
    let costs = |name: &str| set.decoy(Kind::Pair, name.as_bytes()).is_some();
    let names: Vec<_> = (0..64).map(|number| format!("name-{number}")).collect();
    let costly: Vec<_> = names.iter().map(|name| costs(name)).collect();
    // As of the keys themselves, one in two costs a slow hash, and the same name always does.
    assert!((12..=52).contains(&costly.iter().filter(|costs| **costs).count()));
    assert_eq!(costly, names.iter().map(|name| costs(name)).collect::<Vec<_>>());
    assert!(!costs("ck_00112233445566778899aabbccddeeff00112233"), "machine-made: guessing one is hopeless");
    assert!(set.decoy(Kind::Token, b"alice").is_none());
    assert!(!record(&humans, "h").machine_made);
    assert!(record(&humans, "f").machine_made, "a fast hash is for machine-made secrets");
}

#[test]
fn other_shapes_judge_the_same_rows_anew() {
    let store = sample::store([token("t", "sk_live_abc123", slow("s"))]);
    assert!(!record(&store, "t").machine_made);
    let mut terms = Terms::default();
    terms.mint.token.live = "sk_live_".into();
    let applied = store.apply(&document([token("t", "sk_live_abc123", slow("s"))], []), &terms, Now::default());
    assert_eq!(applied.changed, 1);
    assert!(record(&store, "t").machine_made);
}

/// No request that starts after the revoke returned passes, whoever reads meanwhile.
#[test]
fn no_reader_passes_after_the_revoke_returned() {
    const KEYS: usize = 40;
    let names: Vec<_> = (0..KEYS).map(|number| format!("key-{number}")).collect();
    let store = sample::store(names.iter().map(|name| pair(name, name, fast("s"))));
    let returned: Vec<_> = names.iter().map(|_| AtomicBool::new(false)).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    for (name, returned) in names.iter().zip(&returned) {
                        let was_revoked = returned.load(Ordering::Acquire);
                        let set = store.load();
                        let record = set.as_ref().unwrap().find_pair(name.as_bytes()).unwrap();
                        let passes = record.standing(Wall::default()) == Standing::Active && !record.is_dead();
                        assert!(!(was_revoked && passes), "{name}");
                    }
                    std::thread::yield_now();
                }
            });
        }
        let mut rows: Vec<_> = names.iter().map(|name| pair(name, name, fast("s"))).collect();
        for (number, returned) in returned.iter().enumerate() {
            rows[number].revoked_at = Some(Wall::default());
            apply(&store, &document(rows.clone(), []));
            returned.store(true, Ordering::Release);
            // The next document does not say so any more.
            rows[number].revoked_at = None;
        }
        done.store(true, Ordering::Release);
    });
}

#[test]
fn the_state_of_a_removed_key_goes_when_its_windows_have_run_out() {
    use crate::{
        clock::Mono,
        limits::{self, Limiter, Plan, Readings},
    };
    let at = |seconds: u64| Now { mono: Mono::from_nanos(seconds * 1_000_000_000), ..Now::default() };
    let per_key = vec!["2/1m".parse().unwrap()];
    let plan = Plan::new(&limits::Settings { per_key, ..limits::Settings::default() });
    let limiter = Limiter::new(10);
    let take = |store: &KeyStore, now: Now| {
        limiter.take_key(&plan, &record(store, "a"), now.mono, &mut Readings::default()).is_ok()
    };
    let (with, without) = (document([pair("a", "alice", fast("s"))], []), document([], []));
    let apply = |store: &KeyStore, document: &Document, now| store.apply(document, &Terms::default(), now);

    let store = KeyStore::default();
    apply(&store, &with, at(0));
    assert!(take(&store, at(1)) && take(&store, at(1)) && !take(&store, at(2)));
    apply(&store, &without, at(2));
    store.sweep(at(3));
    assert_eq!(store.books().departed_keys.0.len(), 1);
    apply(&store, &with, at(30));
    assert!(!take(&store, at(31)), "removing and adding it again gives no fresh allowance");

    apply(&store, &without, at(40));
    store.sweep(at(62));
    assert_eq!(store.books().departed_keys.0.len(), 0);
}

/// A hash that does not name its pepper fits any: what was verified under the one before says nothing of the next.
#[test]
fn a_key_is_a_new_version_under_another_pepper() {
    let [one, two] = [b"one", b"two"].map(|pepper| Secret::new(pepper));
    let hash = SecretHash::make(Algorithm::HmacSha256, &Secret::new(b"s"), Some(&one)).unwrap();
    let (_, unnamed) = hash.as_phc()["$hmac-sha256$".len()..].split_once('$').unwrap();
    let hash = SecretHash::parse(&format!("$hmac-sha256${unnamed}")).unwrap();
    let store = KeyStore::default();
    let document = document([pair("h", HEX, hash), pair("f", "bob", fast("s"))], []);
    let under = |pepper: &Secret| {
        let terms = Terms { pepper: Some(pepper.clone()), ..Terms::default() };
        let changed = store.apply(&document, &terms, Now::default()).changed;
        (changed, record(&store, "h"))
    };
    let (_, first) = under(&one);
    first.set_verified(digest::of(&Secret::new(b"s")));
    let (changed, same) = under(&one);
    assert_eq!((changed, Arc::ptr_eq(&first, &same)), (0, true));
    let (changed, second) = under(&two);
    assert_eq!((changed, second.has_verified()), (1, false));
    let passes = |record: &KeyRecord| record.hash.check_fast(&Secret::new(b"s"), record.pepper.as_deref());
    // The version that a request still holds is judged as before.
    assert_eq!((passes(&first), passes(&second)), (Some(true), Some(false)));
    assert!(!store.is_current(&first));
}
