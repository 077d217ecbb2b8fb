//! Who may register, and who is taken for gone.

use super::*;
use crate::control::sample::{Bench, OPERATOR};

fn sidecar(number: usize, credential: &str, goodbye: bool) -> Sidecar {
    let now = clock::now().wall;
    let claim =
        Claim { instance: format!("{credential}.{number}"), bound: "b".to_owned(), credential: credential.to_owned() };
    Sidecar {
        claim,
        address: None,
        first_seen: now,
        last_seen: now,
        confirmed_at: now,
        max_stale: 60,
        max_stale_write: 60,
        epoch: String::new(),
        revision: 0,
        durable: false,
        seq: 0,
        goodbye,
    }
}

/// Whether one more of this credential may register, where there are so many serving and so many that have gone.
#[track_caller]
fn check(serving: usize, gone: usize, credential: &str, may: bool) {
    let mut state = State::default();
    for number in 0..serving + gone {
        let sidecar = sidecar(number, "one", number >= serving);
        state.members.insert(sidecar.claim.instance.clone(), Member::new(sidecar, clock::mono()));
    }
    let now = clock::now().wall;
    let new = sidecar(usize::MAX, credential, false).claim;
    assert_eq!(state.admit(&new, now).is_ok(), may, "{serving} {gone} {credential}");
    let known = sidecar(0, "one", false).claim;
    assert!(state.admit(&known, now).is_ok(), "who is known comes back");
    let stranger = Claim { bound: "c".to_owned(), ..known };
    assert!(matches!(state.admit(&stranger, now), Err(NotRegistered::NotTheirs)));
}

#[test]
fn a_fleet_of_thousands_may_register_and_no_flood() {
    check(9_999, 0, "one", true);
    check(10_000, 0, "one", false);
    check(10_000, 0, "other", true);
    check(1, 49_998, "one", true);
    check(1, 49_999, "one", false);
}

#[test]
fn a_revision_is_measured_once() {
    let mut state = State::default();
    let has_it = Sidecar { epoch: "e".to_owned(), revision: 3, ..sidecar(0, "one", false) };
    state.members.insert(has_it.claim.instance.clone(), Member::new(has_it, clock::mono()));
    let now = clock::mono();
    assert_eq!(state.watch("e", 3, now).len(), 1);
    assert_eq!(state.watch("e", 3, now), [], "whoever asks again learns nothing of how long it took");
}

/// A sidecar of this name, in the place of these.
fn asker(instance: &str, replaces: &[&str]) -> Asker {
    let bound = "b".to_owned();
    Asker {
        claim: Claim { instance: instance.to_owned(), bound: bound.clone(), credential: "one".to_owned() },
        replaces: replaces.iter().map(|name| ((*name).to_owned(), bound.clone())).collect(),
        address: [203, 0, 113, 7].into(),
        max_stale: 60,
        max_stale_write: 60,
    }
}

/// Whether this one is there, and whether it may be serving.
#[track_caller]
fn known(fleet: &Fleet, instance: &str) -> Option<bool> {
    fleet.sidecars().iter().find(|view| view.sidecar.claim.instance == instance).map(|view| view.known)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_replaced_and_speaks_has_not_gone() {
    let bench = Bench::new("[]").await;
    let fleet = &bench.desk.fleet;
    for (goodbye, expected) in [(false, Some(true)), (true, None)] {
        let old = fleet.register(&asker("a.1", &[])).await.unwrap();
        let new = fleet.register(&asker("a.2", &["a.1"])).await.unwrap();
        // Its stream is still open; what the store has is its end.
        fleet.save().await.unwrap();
        fleet.heard("a.1", None, false, goodbye);
        drop(old);
        fleet.forget_replaced().await;
        fleet.look().await.unwrap();
        assert_eq!(known(fleet, "a.1"), expected, "{goodbye}");
        fleet.save().await.unwrap();
        fleet.look().await.unwrap();
        assert_eq!((known(fleet, "a.1"), known(fleet, "a.2")), (expected, Some(true)), "{goodbye}");
        drop(new);
    }
}

/// Acknowledgements of what this control plane does not hold: another one was quicker, or that was lost.
#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_of_what_is_not_there_counts_once_it_is() {
    let bench = Bench::new("[]").await;
    let (fleet, ledger) = (&bench.desk.fleet, &bench.desk.ledger);
    let _attached = fleet.register(&asker("a.1", &[])).await.unwrap();
    let head = ledger.read(|image| image.head().clone());
    let row = ledger.store().sidecars().await.unwrap().remove(0);
    let ahead = Sidecar { epoch: head.epoch.clone(), revision: head.revision + 1, ..row };
    ledger.store().heard(&[ahead], &head).await.unwrap();
    for expected in [head.revision, head.revision + 1] {
        fleet.look().await.unwrap();
        assert_eq!(fleet.sidecars()[0].sidecar.revision, expected);
        bench.ask(OPERATOR, "POST", "/v1/owners", serde_json::json!({ "id": "acct" })).await;
    }
}
