//! A store that has lost what was written to it, as after a failover to a replica that lagged.

use std::time::Duration;

use super::*;
use crate::{
    clock,
    control::{
        fleet::{Asker, Fleet, Gap, NotRegistered},
        ledger::{Actor, Draft, Image, Ledger, WriteError},
    },
};

on_both! {
    what_was_lost_stops_everything_until_it_is_back
    a_new_history_goes_on_without_it_and_without_its_acknowledgements
    what_a_copy_does_not_know_may_be_serving
    what_others_wrote_in_its_place_is_not_taken_for_it
    what_is_acknowledged_of_what_was_lost_is_not_written
    the_store_of_another_installation_is_not_taken
}

/// As long as any sidecar serves without a word.
const STALE: Duration = Duration::from_secs(60);

const KEEP: &str = "CREATE TABLE lost_head AS SELECT * FROM head; \
                    CREATE TABLE lost_audit AS SELECT * FROM audit WHERE seq > 2; \
                    CREATE TABLE lost_changes AS SELECT * FROM changes WHERE revision > 2";
const LOSE: &str = "DELETE FROM audit WHERE seq > 2; DELETE FROM changes WHERE revision > 2; \
                    DELETE FROM keys WHERE id = 'key_3'; \
                    UPDATE head SET revision = 2, entries = 2, hash = (SELECT hash FROM audit WHERE seq = 2), \
                    digest = (SELECT digest FROM changes WHERE revision = 2)";
const BACK: &str = "DELETE FROM head; INSERT INTO head SELECT * FROM lost_head; \
                    INSERT INTO audit SELECT * FROM lost_audit; INSERT INTO changes SELECT * FROM lost_changes";

async fn write(ledger: &Arc<Ledger>, change: Change) -> Result<Head, StoreError> {
    let actor = Actor { name: "system".to_owned(), from: None };
    let written = ledger.write(actor, move |_, _| {
        let draft = Draft { action: "test", changes: vec![change.clone()], ..Draft::default() };
        Ok::<_, ()>((Some(draft), ()))
    });
    match written.await {
        Ok(written) => Ok(written.head),
        Err(WriteError::Store(error)) => Err(error),
        Err(WriteError::Refused(())) => unreachable!(),
    }
}

/// Who takes a set.
fn asker(instance: &str) -> Asker {
    Asker {
        claim: claim(instance),
        replaces: Vec::new(),
        address: [192, 0, 2, 1].into(),
        max_stale: 60,
        max_stale_write: 60,
    }
}

/// A ledger with three keys, its head, and a fleet of one sidecar that has them all.
async fn three(ground: &Ground) -> (Arc<dyn Store>, Arc<Ledger>, Head, Arc<Fleet>) {
    let store = ground.store().await;
    let ledger = Ledger::open(Arc::clone(&store)).await.unwrap();
    for number in 1..=3 {
        write(&ledger, key(&format!("key_{number}"))).await.unwrap();
    }
    let fleet = Fleet::new(Arc::clone(&ledger), STALE);
    fleet.register(&asker("a.1")).await.unwrap();
    let head = ledger.read(|image| image.head().clone());
    fleet.heard("a.1", Some((&head.epoch, 3)), true, false);
    fleet.save().await.unwrap();
    let receipt = fleet.receipt(&head, Duration::ZERO).await.unwrap();
    assert_eq!((receipt.acknowledged, receipt.gap), (vec!["a.1".to_owned()], None));
    (store, ledger, head, fleet)
}

async fn is_astray(ledger: &Arc<Ledger>) {
    let confirmed = ledger.confirmed();
    assert!(matches!(ledger.refresh().await, Err(StoreError::Astray(_))));
    assert!(matches!(ledger.usable(), Err(StoreError::Astray(why)) if why.contains("--restored")));
    assert!(matches!(write(ledger, key("key_4")).await, Err(StoreError::Astray(_))));
    assert_eq!(ledger.confirmed(), confirmed, "no sidecar is told that its keys are the newest");
    assert_eq!(ledger.read(|image| image.keys().len()), 3);
}

async fn what_was_lost_stops_everything_until_it_is_back(ground: Ground) {
    let (_store, ledger, head, fleet) = three(&ground).await;
    ground.run(KEEP).await;
    ground.run(LOSE).await;
    // Whoever writes is the first to see it.
    assert!(matches!(write(&ledger, key("key_4")).await, Err(StoreError::Astray(_))));
    is_astray(&ledger).await;
    assert!(matches!(fleet.receipt(&head, Duration::ZERO).await, Err(StoreError::Astray(_))));
    ground.run(BACK).await;
    ledger.refresh().await.unwrap();
    ledger.usable().unwrap();
    assert_eq!(fleet.receipt(&head, Duration::ZERO).await.unwrap().acknowledged, ["a.1"]);
    assert_eq!(write(&ledger, key("key_4")).await.unwrap().revision, 4);
}

async fn a_new_history_goes_on_without_it_and_without_its_acknowledgements(ground: Ground) {
    let (store, ledger, head, fleet) = three(&ground).await;
    ground.run(LOSE).await;
    is_astray(&ledger).await;
    let other = Ledger::open(ground.other(&store).await).await.unwrap();
    other.begin_anew().await.unwrap();
    ledger.refresh().await.unwrap();
    ledger.usable().unwrap();
    assert_eq!(ledger.read(|image| (image.keys().len(), image.head().revision)), (2, 2));
    let new = write(&ledger, key("key_4")).await.unwrap();
    assert_eq!((new.revision, new.epoch == head.epoch), (3, false), "a number that was used before");
    other.refresh().await.unwrap();
    let started = Fleet::new(Arc::clone(&other), STALE);
    started.load().await.unwrap();
    for fleet in [&fleet, &started] {
        let receipt = fleet.receipt(&new, Duration::ZERO).await.unwrap();
        assert_eq!((receipt.acknowledged.len(), receipt.pending.len()), (0, 1), "of the old history");
        assert!(matches!(fleet.receipt(&head, Duration::ZERO).await, Err(StoreError::Astray(_))));
        assert_eq!(fleet.sidecars()[0].lag, 3);
    }
    // What comes late of the old one takes nothing of the new one away.
    fleet.heard("a.1", Some((&new.epoch, 3)), false, false);
    fleet.save().await.unwrap();
    let late = Sidecar { epoch: head.epoch, revision: 9, durable: true, ..store.sidecars().await.unwrap().remove(0) };
    store.heard(&[late], &new).await.unwrap();
    let kept = store.sidecars().await.unwrap().remove(0);
    assert_eq!((kept.epoch, kept.revision, kept.durable), (new.epoch.clone(), 3, false));
    assert_eq!(started.receipt(&new, Duration::ZERO).await.unwrap().acknowledged, ["a.1"]);
}

async fn what_a_copy_does_not_know_may_be_serving(ground: Ground) {
    let (store, ledger, _, fleet) = three(&ground).await;
    let mut gone = Sidecar { goodbye: true, ..sidecar("b.1", 1, 3) };
    assert!(store.register(&gone, &ledger.read(|image| image.head().clone())).await.unwrap());
    // As a copy has it that is older than what any sidecar serves without a word.
    ground.run("UPDATE sidecars SET confirmed_at = 1000, last_seen = 1000").await;
    let began = clock::now().wall;
    ledger.begin_anew().await.unwrap();
    let other = Ledger::open(ground.other(&store).await).await.unwrap();
    let started = Fleet::new(Arc::clone(&other), STALE);
    started.load().await.unwrap();
    let head = ledger.read(|image| image.head().clone());
    for (ledger, fleet) in [(&ledger, &fleet), (&other, &started)] {
        let receipt = fleet.receipt(&head, Duration::ZERO).await.unwrap();
        let pending: Vec<_> = receipt.pending.iter().map(|pending| pending.instance.as_str()).collect();
        assert_eq!((pending, receipt.stopped), (vec!["a.1"], vec![]));
        let restored = ledger.read(Image::restored_at).unwrap();
        assert!(restored >= began && receipt.pending[0].may_serve_reads_until >= restored.plus(STALE));
        let until = restored.plus(STALE + TOLD);
        assert_eq!(receipt.gap, Some(Gap::Restored { at: restored, until }));
    }
    let rows = store.sidecars().await.unwrap();
    gone = rows.into_iter().find(|row| row.claim.instance == "b.1").unwrap();
    assert_eq!(gone.confirmed_at.unix_millis(), 1000, "it has ended");
    // Once that has run out, all who may be serving are known.
    ground.run("UPDATE audit SET at = at - 80000 WHERE action = 'store.restore'").await;
    let later = Ledger::open(ground.other(&store).await).await.unwrap();
    let later = Fleet::new(later, STALE);
    later.load().await.unwrap();
    assert_eq!(later.receipt(&head, Duration::ZERO).await.unwrap().gap, None);
}

async fn what_others_wrote_in_its_place_is_not_taken_for_it(ground: Ground) {
    let (store, ledger, _, _) = three(&ground).await;
    ground.run(LOSE).await;
    let other = Ledger::open(ground.other(&store).await).await.unwrap();
    for number in 5..8 {
        write(&other, key(&format!("key_{number}"))).await.unwrap();
    }
    is_astray(&ledger).await;
}

async fn what_is_acknowledged_of_what_was_lost_is_not_written(ground: Ground) {
    let (store, _ledger, head, fleet) = three(&ground).await;
    ground.run(LOSE).await;
    // As the database has it that fell back.
    ground.run("UPDATE sidecars SET revision = 2, durable = 0").await;
    fleet.heard("a.1", Some((&head.epoch, 3)), true, false);
    assert!(matches!(fleet.save().await, Err(StoreError::Astray(_))));
    assert!(fleet.register(&asker("b.1")).await.is_err(), "nor does anybody take a set of it");
    // A control plane that starts there knows of nothing that was lost. What it writes bears the same number.
    let other = Ledger::open(ground.other(&store).await).await.unwrap();
    let started = Fleet::new(Arc::clone(&other), STALE);
    started.load().await.unwrap();
    let new = write(&other, key("key_4")).await.unwrap();
    assert_eq!((new.revision, &new.epoch), (3, &head.epoch));
    let receipt = started.receipt(&new, Duration::ZERO).await.unwrap();
    assert_eq!((receipt.acknowledged.len(), receipt.pending.len()), (0, 1));
}

async fn the_store_of_another_installation_is_not_taken(ground: Ground) {
    let (store, ledger, head, fleet) = three(&ground).await;
    ground.run("CREATE TABLE lost_head AS SELECT * FROM head; UPDATE head SET epoch = 'another'").await;
    // Before anybody has looked.
    let before = store.sidecars().await.unwrap();
    fleet.heard("a.1", Some((&head.epoch, 3)), true, false);
    assert!(matches!(fleet.save().await, Err(StoreError::Another(_))));
    assert!(matches!(fleet.register(&asker("b.1")).await, Err(NotRegistered::Store(StoreError::Another(_)))));
    assert!(matches!(ledger.refresh().await, Err(StoreError::Another(why)) if why.contains("another history")));
    assert!(matches!(write(&ledger, key("key_4")).await, Err(StoreError::Another(_))));
    assert!(matches!(fleet.receipt(&head, Duration::ZERO).await, Err(StoreError::Another(_))));
    for instance in ["a.1", "b.1"] {
        let attached = fleet.attach(&asker(instance)).await;
        assert!(matches!(attached, Err(NotRegistered::Store(StoreError::Another(_)))), "{instance}");
    }
    assert_eq!(store.sidecars().await.unwrap(), before, "nothing is written into it");
    ground.run("DELETE FROM head; INSERT INTO head SELECT * FROM lost_head").await;
    ledger.refresh().await.unwrap();
    assert_eq!(write(&ledger, key("key_4")).await.unwrap().revision, 4);
}
