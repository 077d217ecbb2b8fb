//! Threads that verify right and wrong secrets while the keys are given other ones and revoked.

use super::*;
use crate::{clock, keys::document::KeyRow};

const KEYS: usize = 12;
const CHANGES: usize = 240;

/// The secret of the `number`th key after so many changes.
fn secret(number: usize, version: usize) -> String {
    format!("secret {number}.{version}")
}

/// As the pipeline does it: find, verify, and look again after the wait. With how often an address was charged for it.
async fn request(bench: &Bench, store: &KeyStore, name: &str, secret: &str) -> (Option<Verdict>, usize) {
    loop {
        let found = store.load().as_ref().and_then(|set| set.find_pair(name.as_bytes()).cloned());
        let Some(record) = found else { return (None, 0) };
        if record.standing(Wall::default()) != Standing::Active || record.is_dead() {
            return (None, 0);
        }
        let charge = bench.charge(HERE);
        let verdict = bench.verifier.verify(&record, &Secret::new(secret.as_bytes()), charge).await;
        if verdict == Verdict::Wrong {
            return (Some(verdict), 1);
        }
        assert_eq!(verdict, Verdict::Right);
        if store.is_current(&record) {
            return (Some(verdict), 0);
        }
    }
}

/// A secret that was replaced before the request began passes no more; the one in force passes as long as it is; each
/// failure is charged once; and at the end nothing waits and nothing is reserved.
#[test]
fn a_replaced_secret_is_dead_and_its_successor_is_not() {
    let names: Vec<_> = (0..KEYS).map(|number| format!("name-{number}")).collect();
    let hash = |number: usize, version: usize| sample::slow_salted(&secret(number, version), number * 1000 + version);
    let mut rows: Vec<KeyRow> =
        names.iter().enumerate().map(|(number, name)| pair(name, name, hash(number, 0))).collect();
    let store = sample::store(rows.clone());
    let mut bench = bench("1000000/1h");
    bench.verifier = Verifier::start(Settings { threads: 2, ..Settings::default() }).expect("threads");
    // Raised before a change begins and after it is in force: odd while it is neither the one nor the other.
    let versions: Vec<_> = names.iter().map(|_| AtomicUsize::new(0)).collect();
    let (done, passed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let caller = |offset: usize| {
        let runtime = within_runtime();
        let mut charged = 0;
        let mut turn = offset;
        while !done.load(Ordering::Acquire) {
            turn += 1;
            let number = turn % KEYS;
            let before = versions[number].load(Ordering::Acquire);
            let version = before / 2;
            // The one in force, the one before it, and one that never was any.
            let (text, was_replaced) = match turn % 3 {
                0 => (secret(number, version), false),
                1 if version > 0 => (secret(number, version - 1), true),
                _ => (format!("never {turn}"), true),
            };
            let (verdict, failures) = runtime.block_on(request(&bench, &store, &names[number], &text));
            charged += failures;
            let is_unchanged = before % 2 == 0 && versions[number].load(Ordering::Acquire) == before;
            match verdict {
                Some(Verdict::Right) => {
                    assert!(!was_replaced, "{text} passed after it was replaced");
                    passed.fetch_add(1, Ordering::Relaxed);
                }
                _ => assert!(was_replaced || !is_unchanged, "{text} was refused while it was in force"),
            }
        }
        charged
    };
    let charged: usize = std::thread::scope(|scope| {
        let caller = &caller;
        let callers: Vec<_> = (0..3).map(|offset| scope.spawn(move || caller(offset * 7))).collect();
        for change in 0..CHANGES {
            let before = passed.load(Ordering::Relaxed);
            while passed.load(Ordering::Relaxed) < before + 5 && !callers.iter().any(|caller| caller.is_finished()) {
                std::thread::yield_now();
            }
            let number = (change * 5) % KEYS;
            let version = versions[number].fetch_add(1, Ordering::AcqRel) / 2 + 1;
            rows[number].hash = hash(number, version);
            store.apply(&document(rows.clone(), []), &Terms::default(), Now::default());
            versions[number].fetch_add(1, Ordering::AcqRel);
        }
        done.store(true, Ordering::Release);
        callers.into_iter().map(|caller| caller.join().expect("no panic")).sum()
    });
    assert!(charged > 100 && passed.load(Ordering::Relaxed) > 100);
    // Exactly so many failures count, and no attempt is left in flight.
    let room = |limit: usize| {
        let failures_per_ip = vec![format!("{limit}/1h").parse().expect("a quota")];
        let plan = Arc::new(Plan::new(&limits::Settings { failures_per_ip, ..limits::Settings::default() }));
        Failures::new(Arc::clone(&bench.limiter), plan, HERE).begin(clock::mono()).is_ok()
    };
    assert!(!room(charged) && room(charged + 1), "{charged} were charged");
    assert_eq!(bench.queued(), 0);
    assert!(bench.pool().desk().jobs.is_empty());
}
