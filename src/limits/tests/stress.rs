//! Threads on real time: an exact log of what was admitted, and a judge that knows nothing of windows.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::clock;

/// A window that is never used up: it counts.
const COUNTER: &str = "1000000/1h";
const RUN: Duration = Duration::from_millis(2600);

/// When the call began and ended that admitted one.
type Admitted = (Mono, Mono);

/// What a thread was admitted, as long as `go` holds.
fn log(go: &AtomicBool, mut take: impl FnMut(Mono) -> bool) -> Vec<Admitted> {
    let mut log = Vec::new();
    while go.load(Ordering::Relaxed) {
        let began = clock::mono();
        if take(began) {
            log.push((began, clock::mono()));
        }
    }
    log
}

/// However the admissions lie within their calls, none of these quotas was exceeded by them.
#[track_caller]
fn judge(what: &str, mut log: Vec<Admitted>, texts: &[&str]) -> usize {
    log.sort_by_key(|(began, _)| *began);
    for quota in quotas(texts) {
        for some in log.windows(quota.limit as usize + 1) {
            let last = some.iter().map(|(_, ended)| *ended).max().expect("some");
            let within = last.since(some[0].0);
            assert!(within >= quota.window, "{what}: {} within {within:?}, which exceeds {quota}", some.len());
        }
    }
    log.len()
}

/// How much is left of the counting window.
fn left(readings: &Readings) -> usize {
    let mut text = String::new();
    readings.write(HeaderStyle::Draft, |lines, _| text = String::from_utf8(lines.to_vec()).expect("text"));
    let list = text.lines().next().expect("a list");
    let member = list.split(", ").find(|member| member.contains("-3600s")).expect("the counting window");
    member.split("r=").nth(1).and_then(|rest| rest.split(';').next()?.parse().ok()).expect("a number")
}

/// Two keys of one owner, one address in a table with room and one in a table without: threads take from all of them
/// while others press for room and sweep. No span exceeds a limit, and each admission counts once.
#[test]
fn under_real_time_no_window_is_exceeded_and_nothing_is_lost() {
    let per_ip = ["120/1s", "200/2s", COUNTER];
    let (key_quotas, owner_quotas) = (["90/1s", COUNTER], ["130/1s", COUNTER]);
    let plan = super::per_ip(&per_ip);
    let (roomy, narrow) = (Limiter::new(1000), Limiter::new(32));
    let keys: [Meter; 2] = Default::default();
    let owner = Meter::default();
    let key_rules = Rules::new(Subject::Key, &quotas(&key_quotas));
    let owner_rules = Rules::new(Subject::Owner, &quotas(&owner_quotas));
    let go = AtomicBool::new(true);
    let by_address = |limiter: &Limiter| {
        let mut handle = AddressHandle::default();
        log(&go, |now| {
            let taken = limiter.take_address_by(&mut handle, &plan, ip(0), now, &mut Readings::default());
            limiter.note_authenticated(&handle, &plan, ip(0));
            taken.is_ok()
        })
    };
    let by_key = |key: &Meter| {
        log(&go, |now| {
            let readings = &mut Readings::default();
            roomy.take_meters((key, &key_rules), (&owner, &owner_rules), now, readings).is_ok()
        })
    };
    let (addresses, keyed) = std::thread::scope(|scope| {
        let (by_address, by_key) = (&by_address, &by_key);
        let addresses: Vec<_> =
            [&roomy, &roomy, &narrow, &narrow].map(|limiter| scope.spawn(move || by_address(limiter))).into();
        let keyed: Vec<_> = [&keys[0], &keys[0], &keys[1], &keys[1]].map(|key| scope.spawn(move || by_key(key))).into();
        scope.spawn(|| {
            let mut number = 1;
            while go.load(Ordering::Relaxed) {
                let _ = take(&narrow, &plan, ip(number), clock::mono());
                if number % 64 == 0 {
                    narrow.sweep(clock::mono());
                    std::thread::yield_now();
                }
                number += 1;
            }
        });
        std::thread::sleep(RUN);
        go.store(false, Ordering::Relaxed);
        let join = |threads: Vec<std::thread::ScopedJoinHandle<'_, Vec<Admitted>>>| -> Vec<Vec<Admitted>> {
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        };
        (join(addresses), join(keyed))
    });
    let in_roomy = judge("the address with room", addresses[..2].concat(), &per_ip[..2]);
    let in_narrow = judge("the address without", addresses[2..].concat(), &per_ip[..2]);
    let by_key = [0, 2].map(|at| judge("the key", keyed[at..at + 2].concat(), &key_quotas[..1]));
    let by_owner = judge("the owner", keyed.concat(), &owner_quotas[..1]);
    // Who asks without pause gets what there is: in this time two windows passed for certain.
    assert!(in_roomy >= 240 && by_owner >= 260, "{in_roomy} and {by_owner}");
    assert_eq!(by_key[0] + by_key[1], by_owner);

    // One more of each, when there is room again, tells how many were counted.
    let after = |nanos: u64| clock::mono().plus(Duration::from_nanos(nanos));
    let later = after(3 * SECOND);
    let mut readings = Readings::default();
    roomy.take_address(&plan, ip(0), later, &mut readings).expect("room");
    assert_eq!(left(&readings), 1_000_000 - in_roomy - 1);
    let mut readings = Readings::default();
    narrow.take_address(&plan, ip(0), later, &mut readings).expect("room");
    // Others may be behind the same cell, and nothing is ever forgotten.
    assert!(left(&readings) < 1_000_000 - in_narrow, "{} of {in_narrow} left", left(&readings));
    for (key, counted) in keys.iter().zip(by_key) {
        let mut readings = Readings::default();
        let spare = (&Meter::default(), &owner_rules);
        roomy.take_meters((key, &key_rules), spare, later, &mut readings).expect("room");
        assert_eq!(left(&readings), 1_000_000 - counted - 1);
    }
}

/// Failures under real time: attempts begin and end on many threads, and fail or pass. What failed is what counts, and
/// failures and attempts in flight never exceed the limit together.
#[test]
fn attempts_of_many_threads_are_settled_to_the_last_one() {
    const LIMIT: usize = 5000;
    let settings = Settings { failures_per_ip: quotas(&["5000/1h"]), ..Settings::default() };
    let (limiter, plan) = (std::sync::Arc::new(Limiter::new(8)), std::sync::Arc::new(Plan::new(&settings)));
    let failures = |number: u32| Failures::new(limiter.clone(), plan.clone(), ip(number));
    let failed: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread: u32| {
                let failures = &failures;
                scope.spawn(move || {
                    let mut failed = 0;
                    for number in 0..1500_u32 {
                        let attempt = failures(0).begin(clock::mono()).expect("there is room for all of these");
                        // Another address presses for room while this one is in flight.
                        let other = failures(1 + thread * 10_000 + number).begin(clock::mono());
                        match (number + thread) % 3 {
                            0 => attempt.passed(),
                            1 => {
                                attempt.failed(clock::mono());
                                failed += 1;
                            }
                            _ => drop(attempt),
                        }
                        drop(other);
                    }
                    failed
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert_eq!(failed, 2000);
    // As many as are left, and not one more: nothing stays reserved, nothing was charged twice.
    let now = clock::mono();
    let attempts: Vec<_> = std::iter::from_fn(|| failures(0).begin(now).ok()).collect();
    assert_eq!(attempts.len(), LIMIT - failed);
}
