//! Limits of addresses: strict under eviction, reload and threads; failures.

use std::{
    collections::HashMap,
    sync::{Arc, Barrier},
};

use proptest::prelude::*;

use super::*;
use crate::limits::entry::Address;

#[test]
fn an_address_gets_its_limit_and_then_has_to_wait() {
    let (limiter, plan) = (Limiter::new(10), per_ip(&["3/1m", "2/5s"]));
    let take = |second| take(&limiter, &plan, ip(1), seconds(second));
    take(0).unwrap();
    take(0).unwrap();
    let exceeded = take(1).unwrap_err();
    assert_eq!(exceeded, Exceeded { subject: Subject::Ip, retry_after: 4, violated: vec!["ip-5s".into()] });
    take(5).unwrap();
    // A refusal took nothing from either window.
    let exceeded = take(6).unwrap_err();
    assert_eq!(exceeded.violated, ["ip-60s".into()]);
    assert_eq!(exceeded.retry_after, 54);
    take(60).unwrap();
}

#[test]
fn nothing_is_kept_where_nothing_is_limited() {
    let (limiter, plan) = (Limiter::new(10), per_ip(&[]));
    for _ in 0..100 {
        take(&limiter, &plan, ip(1), seconds(0)).unwrap();
    }
    assert_eq!(limiter.entries(), 0);
}

#[test]
fn a_limit_of_zero_admits_nobody() {
    let (limiter, plan) = (Limiter::new(10), per_ip(&["0/1m"]));
    assert_eq!(take(&limiter, &plan, ip(1), seconds(0)).unwrap_err().retry_after, 60);
}

#[test]
fn an_ipv6_caller_is_its_prefix_and_a_mapped_address_is_ipv4() {
    let (limiter, plan) = (Limiter::new(10), per_ip(&["1/1m"]));
    let take = |client: &str| take(&limiter, &plan, client.parse().unwrap(), seconds(0)).is_ok();
    assert!(take("2001:db8::1"));
    assert!(!take("2001:db8::ffff:2"));
    assert!(take("2001:db8:0:1::1"));
    assert!(take("203.0.113.1"));
    assert!(!take("::ffff:203.0.113.1"));
}

#[test]
fn exempt_addresses_take_nothing_but_their_failures_count() {
    let settings = Settings {
        per_ip: quotas(&["1/1m"]),
        failures_per_ip: quotas(&["1/1m"]),
        exempt: Networks::parse(["10.0.0.0/24"]).unwrap(),
        ..Settings::default()
    };
    let (limiter, plan) = (Limiter::new(10), Plan::new(&settings));
    for _ in 0..3 {
        take(&limiter, &plan, ip(1), seconds(0)).unwrap();
    }
    assert_eq!(limiter.failures_exhausted(&plan, ip(1), seconds(0)), None);
    limiter.charge_failure(&plan, ip(1), seconds(0));
    assert_eq!(limiter.failures_exhausted(&plan, ip(1), seconds(0)).unwrap().retry_after, 60);
}

#[test]
fn an_evicted_address_gets_no_fresh_allowance() {
    let (limiter, plan) = (Limiter::new(1), per_ip(&["3/1m"]));
    for _ in 0..3 {
        take(&limiter, &plan, ip(1), seconds(0)).unwrap();
    }
    limiter.charge_failure(&plan, ip(1), seconds(0));
    for other in 2..50 {
        take(&limiter, &plan, ip(other), seconds(1)).unwrap();
    }
    assert_eq!(limiter.entries(), 1);
    assert_eq!(take(&limiter, &plan, ip(1), seconds(2)).unwrap_err().retry_after, 58);
    take(&limiter, &plan, ip(1), seconds(60)).unwrap();
}

#[test]
fn failures_survive_an_eviction() {
    let plan = Plan::new(&Settings { failures_per_ip: quotas(&["2/1m"]), ..Settings::default() });
    let limiter = Limiter::new(1);
    limiter.charge_failure(&plan, ip(1), seconds(0));
    limiter.charge_failure(&plan, ip(1), seconds(0));
    limiter.charge_failure(&plan, ip(2), seconds(0));
    assert!(limiter.failures_exhausted(&plan, ip(1), seconds(1)).is_some());
}

#[test]
fn many_callers_that_send_a_little_do_not_add_up_against_a_stranger() {
    let (limiter, plan) = (Limiter::new(64), per_ip(&["3/1m"]));
    for client in 0..20_000 {
        take(&limiter, &plan, ip(client), at(u64::from(client))).unwrap();
    }
    assert!(limiter.entries() <= 64);
}

#[test]
fn verified_callers_make_room_last_and_expired_entries_first() {
    let (limiter, plan) = (Limiter::new(16 * 4), per_ip(&["1000/1m"]));
    let caller = ip(1);
    let mut handle = AddressHandle::default();
    limiter.take_address_by(&mut handle, &plan, caller, seconds(0), &mut Readings::default()).unwrap();
    limiter.note_authenticated(&handle, &plan, caller);
    for stranger in 2..5000 {
        take(&limiter, &plan, ip(stranger), seconds(1)).unwrap();
    }
    let address = Address::new(caller, 64);
    assert!(limiter.entries_where(|entry| entry.address() == Some(address)).len() == 1);
    // A minute later even a verified caller's entry counts no more, and goes before that of an active stranger.
    for stranger in 5000..10_000 {
        take(&limiter, &plan, ip(stranger), seconds(60)).unwrap();
    }
    assert!(limiter.entries_where(|entry| entry.address() == Some(address)).is_empty());
}

#[test]
fn what_counts_no_more_is_swept() {
    let (limiter, plan) = (Limiter::new(1000), per_ip(&["5/5s"]));
    for client in 0..100 {
        take(&limiter, &plan, ip(client), seconds(0)).unwrap();
    }
    for _ in 0..100 {
        limiter.sweep(seconds(4));
    }
    assert_eq!(limiter.entries(), 100);
    for _ in 0..100 {
        limiter.sweep(seconds(5));
    }
    assert_eq!(limiter.entries(), 0);
}

#[test]
fn a_connections_handle_follows_address_and_eviction() {
    let (limiter, plan) = (Limiter::new(1), per_ip(&["2/1m"]));
    let mut handle = AddressHandle::default();
    let mut take = |client, second| {
        limiter.take_address_by(&mut handle, &plan, ip(client), seconds(second), &mut Readings::default()).is_ok()
    };
    assert!(take(1, 0));
    assert!(take(2, 0), "another address behind the same connection has its own allowance");
    assert!(take(1, 0));
    // The entry that the handle knows is evicted behind its back.
    super::take(&limiter, &plan, ip(3), seconds(0)).unwrap();
    assert!(!take(1, 1));
    assert!(take(1, 60));
}

fn failing(limit: &str) -> (Arc<Limiter>, Arc<Plan>, Failures) {
    let plan = Arc::new(Plan::new(&Settings { failures_per_ip: quotas(&[limit]), ..Settings::default() }));
    let limiter = Arc::new(Limiter::new(1));
    let failures = Failures::new(Arc::clone(&limiter), Arc::clone(&plan), ip(1));
    (limiter, plan, failures)
}

#[test]
fn failures_and_attempts_in_flight_never_exceed_the_limit_together() {
    let (limiter, plan, failures) = failing("3/1m");
    let first = failures.begin(seconds(0)).unwrap();
    let second = failures.begin(seconds(0)).unwrap();
    let third = failures.begin(seconds(0)).unwrap();
    let exceeded = failures.begin(seconds(0)).unwrap_err();
    assert_eq!((exceeded.subject, exceeded.retry_after), (Subject::Failure, 1));
    assert_eq!(exceeded.violated, ["failure-60s".into()]);
    assert_eq!(limiter.failures_exhausted(&plan, ip(1), seconds(0)), None, "none has failed yet");
    first.failed(seconds(1));
    second.passed();
    drop(third);
    let fourth = failures.begin(seconds(1)).unwrap();
    let fifth = failures.begin(seconds(1)).unwrap();
    failures.begin(seconds(1)).unwrap_err();
    fourth.failed(seconds(2));
    fifth.failed(seconds(3));
    assert_eq!(failures.begin(seconds(4)).unwrap_err().retry_after, 57);
    assert_eq!(limiter.failures_exhausted(&plan, ip(1), seconds(4)).unwrap().retry_after, 57);
    failures.begin(seconds(61)).unwrap();
}

#[test]
fn an_attempt_in_flight_keeps_its_entry_and_fails_where_its_address_is_judged() {
    let (limiter, plan, failures) = failing("1/1m");
    let attempt = failures.begin(seconds(0)).unwrap();
    // The only entry is in use: others are judged by their cells, and are charged there.
    let others = Failures::new(Arc::clone(&limiter), Arc::clone(&plan), ip(2));
    let other = others.begin(seconds(0)).unwrap();
    others.begin(seconds(0)).unwrap_err();
    attempt.failed(seconds(0));
    other.failed(seconds(0));
    limiter.charge_failure(&plan, ip(3), seconds(0));
    for client in 1..4 {
        assert!(limiter.failures_exhausted(&plan, ip(client), seconds(1)).is_some(), "client {client}");
    }
    assert!(limiter.failures_exhausted(&plan, ip(4), seconds(1)).is_none());
}

#[test]
fn failures_are_charged_without_bound_but_remembered_within_one() {
    let (limiter, plan, _) = failing("2/1m");
    for _ in 0..1000 {
        limiter.charge_failure(&plan, ip(1), seconds(0));
    }
    limiter.charge_failure(&plan, ip(1), seconds(30));
    assert_eq!(limiter.failures_exhausted(&plan, ip(1), seconds(30)).unwrap().retry_after, 30);
    assert!(limiter.failures_exhausted(&plan, ip(1), seconds(60)).is_none());
}

#[test]
fn without_a_limit_failures_are_not_kept() {
    let plan = Arc::new(Plan::new(&Settings { failures_per_ip: Vec::new(), ..Settings::default() }));
    let limiter = Arc::new(Limiter::new(1));
    let failures = Failures::new(Arc::clone(&limiter), Arc::clone(&plan), ip(1));
    for _ in 0..100 {
        failures.begin(seconds(0)).unwrap().failed(seconds(0));
    }
    assert_eq!(limiter.entries(), 0);
}

#[test]
fn threads_together_get_what_one_would_have_got() {
    const THREADS: usize = 4;
    let (limiter, plan) = (Limiter::new(3), per_ip(&["50/10s", "20/2s"]));
    let barrier = Barrier::new(THREADS);
    // The clock stands still within a step; other addresses press for room all the while.
    let admitted: Vec<Vec<usize>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (limiter, plan, barrier) = (&limiter, &plan, &barrier);
                scope.spawn(move || {
                    let mut handle = AddressHandle::default();
                    (0..25)
                        .map(|step| {
                            barrier.wait();
                            let mut admitted = 0;
                            for turn in 0..40 {
                                let mut readings = Readings::default();
                                let now = seconds(step);
                                let taken = limiter.take_address_by(&mut handle, plan, ip(0), now, &mut readings);
                                admitted += usize::from(taken.is_ok());
                                if turn % 8 == 0 {
                                    let other = ip(1 + u32::try_from(thread * 1000 + turn).unwrap());
                                    let _ = take(limiter, plan, other, now);
                                }
                            }
                            admitted
                        })
                        .collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let by_step: Vec<usize> = (0..25).map(|step| admitted.iter().map(|thread| thread[step]).sum()).collect();
    for (window, limit) in [(10, 50), (2, 20)] {
        for span in by_step.windows(window) {
            assert!(span.iter().sum::<usize>() <= limit, "{by_step:?}");
        }
    }
    // What an address behind the same cell used can only make a refusal early, and here none uses up anything.
    assert_eq!(by_step[..10].iter().sum::<usize>(), 50, "{by_step:?}");
}

/// Plans that share their longest window; only its limit differs.
fn plans() -> [Vec<Quota>; 4] {
    [
        quotas(&["5/10s", "3/2s"]),
        quotas(&["8/10s"]),
        quotas(&["4/10s", "3/1s", "2/3s"]),
        quotas(&["200/10s", "150/4s", "3/1s"]),
    ]
}

proptest! {
    #[test]
    fn no_eviction_and_no_reload_gives_a_fresh_allowance(
        capacity in 1_usize..6,
        steps in prop::collection::vec((0_u32..8, prop_oneof![Just(0), 0..SECOND / 4, 0..3 * SECOND], 0_usize..4, 0_u8..10), 1..300),
    ) {
        let limiter = Limiter::new(capacity);
        let quotas = plans();
        let plans = quotas.clone().map(|per_ip| Plan::new(&Settings { per_ip, ..Settings::default() }));
        let (mut logs, mut now, mut plan) = (HashMap::<u32, Vec<u64>>::new(), 0, 0);
        for (client, gap, next, dice) in steps {
            now += gap;
            if dice == 0 {
                plan = next;
            }
            if dice == 1 {
                limiter.sweep(at(now));
            }
            let log = logs.entry(client).or_default();
            if take(&limiter, &plans[plan], ip(client), at(now)).is_ok() {
                assert_kept(log, now, &quotas[plan]);
                log.push(now);
            }
        }
    }
}
