//! Limits of keys and owners: both or none, reload, and when a retry passes.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::keys::{KeyRecord, sample};

/// A key of an owner on a plan, with limits of its own if any are given.
fn key(own: &[&str], plan: Option<&str>) -> Arc<KeyRecord> {
    let mut row = sample::pair("key_1", "ck_1", sample::fast("secret"));
    row.limits = (!own.is_empty()).then(|| quotas(own));
    let mut owner = sample::owner("owner");
    owner.plan = plan.map(Into::into);
    let store = crate::keys::KeyStore::default();
    store.apply(&sample::document([row], [owner]), &Default::default(), Default::default());
    let set = store.load();
    Arc::clone(set.as_ref().expect("a set").by_id("key_1").expect("a key"))
}

fn plan(per_key: &[&str], per_owner: &[&str]) -> Plan {
    Plan::new(&Settings {
        per_key: quotas(per_key),
        per_owner: quotas(per_owner),
        plans: [("free".to_owned(), quotas(&["1/1m"]))].into(),
        ..Settings::default()
    })
}

fn take(plan: &Plan, key: &KeyRecord, now: Mono) -> Result<(), Exceeded> {
    Limiter::new(1).take_key(plan, key, now, &mut Readings::default())
}

/// How many of 100 requests at once pass.
#[track_caller]
fn check_rules(own: &[&str], owner_plan: Option<&str>, per_key: &[&str], expected: usize) {
    let (key, plan) = (key(own, owner_plan), plan(per_key, &[]));
    let admitted = (0..100).filter(|_| take(&plan, &key, seconds(0)).is_ok()).count();
    assert_eq!(admitted, expected);
}

#[test]
fn a_keys_own_limits_go_before_its_owners_plan_and_that_before_all_keys() {
    check_rules(&["3/1m"], Some("free"), &["2/1m"], 3);
    check_rules(&[], Some("free"), &["2/1m"], 1);
    check_rules(&[], None, &["2/1m"], 2);
    check_rules(&[], Some("no such plan"), &["2/1m"], 2);
    check_rules(&[], None, &[], 100);
}

#[test]
fn key_and_owner_are_taken_together_or_not_at_all() {
    let (key, plan) = (key(&[], None), plan(&["5/1m"], &["2/5s"]));
    take(&plan, &key, seconds(0)).unwrap();
    take(&plan, &key, seconds(0)).unwrap();
    for _ in 0..50 {
        let exceeded = take(&plan, &key, seconds(1)).unwrap_err();
        let expected = Exceeded { subject: Subject::Owner, retry_after: 4, violated: vec!["owner-5s".into()] };
        assert_eq!(exceeded, expected);
    }
    // The owner's refusals took nothing from the key.
    for second in [5, 5, 10] {
        take(&plan, &key, seconds(second)).unwrap();
    }
    let exceeded = take(&plan, &key, seconds(11)).unwrap_err();
    assert_eq!((exceeded.subject, exceeded.retry_after), (Subject::Key, 49));
}

#[test]
fn both_are_named_and_the_key_gives_the_reason() {
    let (key, plan) = (key(&[], None), plan(&["1/1m"], &["1/1h"]));
    take(&plan, &key, seconds(0)).unwrap();
    let exceeded = take(&plan, &key, seconds(0)).unwrap_err();
    let violated = vec!["key-60s".into(), "owner-3600s".into()];
    assert_eq!(exceeded, Exceeded { subject: Subject::Key, retry_after: 3600, violated });
}

#[test]
fn a_changed_limit_holds_on_the_next_request_and_refills_nothing() {
    let key = key(&[], None);
    for _ in 0..5 {
        take(&plan(&["5/1m"], &[]), &key, seconds(0)).unwrap();
    }
    take(&plan(&["5/1m"], &[]), &key, seconds(1)).unwrap_err();
    // Raised: what was used stays used.
    take(&plan(&["6/1m"], &[]), &key, seconds(1)).unwrap();
    take(&plan(&["6/1m"], &[]), &key, seconds(1)).unwrap_err();
    // Another length, longer or shorter, begins with what is known.
    take(&plan(&["6/1h"], &[]), &key, seconds(2)).unwrap_err();
    take(&plan(&["6/10s"], &[]), &key, seconds(2)).unwrap_err();
    take(&plan(&["6/10s"], &[]), &key, seconds(11)).unwrap();
    // The length that was not asked for meanwhile has counted all the same.
    assert_eq!(take(&plan(&["7/1m"], &[]), &key, seconds(12)).unwrap_err().retry_after, 48);
}

#[test]
fn a_length_that_was_not_asked_for_counts_beyond_its_old_limit() {
    let key = key(&[], None);
    take(&plan(&["5/10s", "1/3s"], &[]), &key, seconds(0)).unwrap();
    take(&plan(&["5/10s"], &[]), &key, seconds(0)).unwrap();
    take(&plan(&["5/10s"], &[]), &key, seconds(0)).unwrap();
    // What is known of 2 s comes from the window of 3 s, which once had a limit of one.
    take(&plan(&["5/10s", "3/2s"], &[]), &key, seconds(0)).unwrap_err();
}

#[test]
fn a_meter_is_spent_when_nothing_counts() {
    let (key, plan) = (key(&[], None), plan(&["5/1m"], &[]));
    assert!(key.state.meter.is_spent(seconds(0)));
    take(&plan, &key, seconds(0)).unwrap();
    assert!(!key.state.meter.is_spent(at(60 * SECOND - 1)));
    assert!(key.state.meter.is_spent(seconds(60)));
}

#[test]
fn a_retry_is_put_off_until_the_address_has_room_too() {
    let (key, limiter) = (key(&[], None), Limiter::new(1));
    let plan = Plan::new(&Settings { per_ip: quotas(&["2/1m"]), per_key: quotas(&["1/5s"]), ..Settings::default() });
    let request = |second| {
        let mut readings = Readings::default();
        limiter.take_address(&plan, ip(1), seconds(second), &mut readings)?;
        limiter.take_key(&plan, &key, seconds(second), &mut readings)
    };
    request(0).unwrap();
    let exceeded = request(1).unwrap_err();
    assert_eq!((exceeded.subject, exceeded.retry_after), (Subject::Key, 59));
    request(60).unwrap();

    let mut readings = Readings::default();
    limiter.take_address(&plan, ip(2), seconds(0), &mut readings).unwrap();
    limiter.take_address(&plan, ip(2), seconds(0), &mut readings).unwrap();
    let mut exceeded = Exceeded { subject: Subject::Failure, retry_after: 1, violated: Vec::new() };
    exceeded.retry_after = readings.put_off(exceeded.retry_after, seconds(0));
    assert_eq!(exceeded.retry_after, 60);
}

#[test]
fn threads_share_key_and_owner() {
    let (key, plan, limiter) = (key(&[], None), plan(&["600/1m"], &["500/1m"]), Limiter::new(1));
    let admitted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (key, plan, limiter) = (&key, &plan, &limiter);
                // Each thread's clock reading is its own: some are late.
                scope.spawn(move || {
                    (0..400)
                        .filter(|step| {
                            let now = at(step * 1000 + thread * 777);
                            limiter.take_key(plan, key, now, &mut Readings::default()).is_ok()
                        })
                        .count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(admitted, 500);
}

/// A key and an owner, without all that else makes them.
struct Meters {
    limiter: Limiter,
    key: (Meter, Rules),
    owner: (Meter, Rules),
}

impl Meters {
    fn new(key: &[&str], owner: &[&str]) -> Self {
        Self {
            limiter: Limiter::new(1),
            key: (Meter::default(), Rules::new(Subject::Key, &quotas(key))),
            owner: (Meter::default(), Rules::new(Subject::Owner, &quotas(owner))),
        }
    }

    fn take(&self, now: Mono) -> Result<(), Exceeded> {
        let (key, owner) = ((&self.key.0, &self.key.1), (&self.owner.0, &self.owner.1));
        self.limiter.take_meters(key, owner, now, &mut Readings::default())
    }
}

proptest! {
    #[test]
    fn no_window_of_key_or_owner_is_exceeded_by_late_readings_of_the_clock(
        steps in prop::collection::vec((0..SECOND, 0..SECOND / 2), 1..200),
    ) {
        let meters = Meters::new(&["9/5s", "4/1s"], &["12/7s"]);
        let (mut log, mut clock) = (Vec::<u64>::new(), SECOND);
        for (gap, late) in steps {
            clock += gap;
            let now = clock - late;
            if meters.take(at(now)).is_ok() {
                let moment = now.max(log.last().copied().unwrap_or(0));
                assert_kept(&log, moment, &quotas(&["9/5s", "4/1s", "12/7s"]));
                log.push(moment);
            }
        }
    }

    #[test]
    fn a_retry_passes_when_it_is_said_to_and_not_a_second_earlier(
        gaps in prop::collection::vec(prop_oneof![Just(0), 0..SECOND, 0..4 * SECOND], 1..60),
        late in 0..2 * SECOND,
    ) {
        let mut moments = Vec::new();
        for gap in gaps {
            moments.push(moments.last().copied().unwrap_or(2 * SECOND) + gap);
        }
        let replayed = || {
            let meters = Meters::new(&["6/10s", "3/2s", "130/20s"], &["8/15s"]);
            for &moment in &moments {
                let _ = meters.take(at(moment));
            }
            meters
        };
        let now = moments.last().copied().unwrap_or(0) - late;
        if let Err(exceeded) = replayed().take(at(now)) {
            let after = exceeded.retry_after;
            prop_assert!(after >= 1);
            prop_assert!(replayed().take(at(now + after * SECOND)).is_ok());
            if after > 1 {
                prop_assert!(replayed().take(at(now + (after - 1) * SECOND)).is_err());
            }
        }
    }

    #[test]
    fn a_caller_paced_at_the_limit_is_never_refused(limit in 1_u32..=128, offset in 0..SECOND) {
        let minute = format!("{limit}/1m");
        let meters = Meters::new(&[&minute], &[&minute]);
        for step in 0..u64::from(limit) * 3 {
            let now = offset + step * 60 * SECOND / u64::from(limit);
            prop_assert!(meters.take(at(now)).is_ok());
        }
    }
}
