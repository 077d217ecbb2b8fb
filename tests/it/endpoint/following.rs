//! The set and its changes take effect; a revocation at once.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{answers, check, readyz_says, sidecar};
use crate::harness::{Control, H1, H2, Key, Load, Upstream, eventually, get, post};

#[tokio::test]
async fn the_set_and_its_changes_take_effect() {
    let (one, two, three) = (Key::pair("one"), Key::token("two"), Key::pair("three"));
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    control.put_all([&one, &two]);
    let sidecar = sidecar(&upstream, &control).start().await;
    check(&sidecar, &one, 200).await;
    check(&sidecar, &two, 200).await;
    check(&sidecar, &three, 401).await;

    let revision = control.put(&three);
    control.acknowledged(revision).await;
    check(&sidecar, &three, 200).await;

    let revision = control.commit([json!({"deleted_key": two.id})]);
    control.acknowledged(revision).await;
    check(&sidecar, &two, 401).await;

    // Suspended, with all keys; and let in again.
    let revision = control.commit([json!({"owner": {"id": "acme", "suspended_at": "2026-01-01T00:00:00Z"}})]);
    control.acknowledged(revision).await;
    check(&sidecar, &one, 401).await;
    let revision = control.commit([json!({"owner": {"id": "acme"}})]);
    control.acknowledged(revision).await;
    answers(&sidecar, &one, 200).await;
    let revision = control.commit([json!({"deleted_owner": "acme"})]);
    control.acknowledged(revision).await;
    check(&sidecar, &one, 200).await;

    // Of one transaction all counts at once.
    let revision = control.commit([
        json!({"owner": {"id": "acme", "kyc": "approved"}}),
        json!({"key": one.clone().with("revoked_at = 2026-11-01T00:00:00Z").json()}),
        json!({"key": two.json()}),
    ]);
    control.acknowledged(revision).await;
    check(&sidecar, &one, 401).await;
    check(&sidecar, &two, 200).await;
    sidecar.counts("keyside_sync_revision", &[], revision).await;
    sidecar.measures("keyside_sync_last_success_timestamp_seconds", &[], |at| at > 1.7e9).await;
    let asked = control.asked();
    assert_eq!(asked.iter().filter(|(_, target)| target.starts_with("/sync/v1/keys?")).count(), 1, "{asked:?}");
    let (_, target) = &asked[0];
    for words in ["instance=api%2E", "max_stale=86400", "max_stale_write=86400"] {
        assert!(target.contains(words), "{target}");
    }
}

/// An endpoint that does not say that more lines of a transaction follow is understood as well, also after a restart.
#[tokio::test]
async fn lines_of_one_revision_are_one_transaction() {
    let (one, two) = (Key::pair("one"), Key::token("two"));
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    control.put_all([&one]);
    let sidecar = sidecar(&upstream, &control).start().await;
    let revision = control.commit([
        json!({"owner": {"id": "acme", "kyc": "approved"}, "more": false}),
        json!({"key": two.json(), "more": false}),
        json!({"key": one.clone().with("revoked_at = 2026-11-01T00:00:00Z").json(), "more": false}),
    ]);
    control.acknowledged(revision).await;
    answers(&sidecar, &two, 200).await;
    answers(&sidecar, &one, 401).await;
    let revision = control.put(&Key::token("three"));
    let wanted = format!("durable at {revision}");
    eventually(&wanted, async || {
        let durable = |report: &serde_json::Value| report["revision"] == revision && report["durable"] == true;
        control.reports().iter().any(durable).then_some(()).ok_or("not yet")
    })
    .await;
    control.stop().await;
    let sidecar = sidecar.crash_and_restart().await;
    answers(&sidecar, &two, 200).await;
    answers(&sidecar, &one, 401).await;
}

/// Not one request that begins after the acknowledgement came is let through, whatever is going on.
#[tokio::test]
async fn no_request_passes_after_the_acknowledgement() {
    let keys: Vec<Key> = (0..8).map(|number| Key::pair(&format!("round{number}"))).collect();
    let other = Key::pair("other");
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    control.put_all(keys.iter().chain([&other]));
    let sidecar = sidecar(&upstream, &control).start().await;
    let mut slowest = Duration::ZERO;
    for key in &keys {
        check(&sidecar, key, 200).await;
        let load = Load::on(&sidecar, &[H1, H1, H1], &get("/").key(key));
        let calm = Load::on(&sidecar, &[H1], &get("/").key(&other));
        tokio::time::sleep(super::SOON).await;
        let began = Instant::now();
        let revision = control.revoke(key);
        control.acknowledged(revision).await;
        let acknowledged = Instant::now();
        slowest = slowest.max(acknowledged - began);
        tokio::time::sleep(super::SOON).await;
        let sent = load.stop().await;
        let late: Vec<_> = sent.iter().filter(|sent| sent.began > acknowledged).collect();
        assert!(!late.is_empty() && sent.iter().any(|sent| sent.result == Ok(200)), "no load");
        assert!(late.iter().all(|sent| sent.result == Ok(401)), "{late:?}");
        assert!(calm.stop().await.iter().all(|sent| sent.result == Ok(200)));
    }
    println!("slowest acknowledgement of {} revocations: {slowest:?}", keys.len());
}

#[tokio::test]
async fn a_start_with_nothing_opens_nothing() {
    let key = Key::pair("one");
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    control.stop().await;
    let sidecar = sidecar(&upstream, &control)
        .config("[[route]]\npath = \"/open\"\npublic = true\n[[route]]\npath = \"/**\"\nscope = \"read\"")
        .ready_or_not()
        .start()
        .await;
    let answer = sidecar.ask(get("/").key(&key)).await;
    assert_eq!((answer.status, answer.field("retry-after")), (503, "5"), "{}", answer.text());
    check(&sidecar, &key, 503).await;
    assert_eq!(sidecar.ask(get("/")).await.status, 503, "nobody is told to come with a key");
    assert_eq!(sidecar.ask(get("/open")).await.status, 200);
    readyz_says(&sidecar, 503, "no key set").await;
    readyz_says(&sidecar, 503, "control endpoint").await;
    control.put(&key);
    control.restart().await;
    sidecar.ready().await;
    check(&sidecar, &key, 200).await;
}

/// A history that the endpoint cannot continue is taken as a whole; a new one, too.
#[tokio::test]
async fn what_cannot_be_continued_is_taken_as_a_whole() {
    let (one, two, gone) = (Key::pair("one"), Key::pair("two"), Key::pair("gone"));
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    control.put_all([&one, &gone]);
    let sidecar = sidecar(&upstream, &control).start().await;
    let revision = control.revoke(&gone);
    control.acknowledged(revision).await;
    // Changes that were dropped from the log before the sidecar could follow them.
    control.stop().await;
    control.put(&two);
    let revision = control.revision() + 5;
    control.set_history("first", revision, "");
    control.restart().await;
    control.acknowledged(revision).await;
    check(&sidecar, &two, 200).await;

    // Heartbeats of something that was never told.
    let asked = || control.asked().iter().filter(|(_, target)| target.starts_with("/sync/v1/keys?")).count();
    let before = asked();
    control.run_ahead(3);
    eventually("the whole set again", async || if asked() > before { Ok(()) } else { Err(()) }).await;
    control.run_ahead(0);

    // Another history begins, at a lower revision: taken, but nobody revoked comes back.
    control.stop().await;
    control.rewrite(|keys| {
        keys.remove(&one.id);
        keys.insert(gone.id.clone(), gone.json());
    });
    control.set_history("second", 2, "");
    control.restart().await;
    answers(&sidecar, &one, 401).await;
    check(&sidecar, &two, 200).await;
    check(&sidecar, &gone, 401).await;
    let revision = control.put(&one);
    eventually("the new history to be followed", async || {
        let reports = control.reports();
        let found = reports.iter().any(|report| report["epoch"] == "second" && report["revision"] == revision);
        if found { Ok(()) } else { Err(()) }
    })
    .await;
    check(&sidecar, &one, 200).await;
}

/// One bad entry stops its own key or owner, and no more.
#[tokio::test]
async fn a_bad_entry_stops_its_key_alone() {
    let (good, bad, of_bad) = (Key::pair("good"), Key::pair("bad"), Key::pair("of_bad").owner("evil"));
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    let mut row = bad.json();
    row["allow_ips"] = json!(["nowhere"]);
    control.put_all([&good, &bad, &of_bad]);
    control.rewrite(|keys| {
        keys.insert(bad.id.clone(), row.clone());
    });
    let sidecar = sidecar(&upstream, &control).start().await;
    check(&sidecar, &good, 200).await;
    check(&sidecar, &bad, 401).await;
    check(&sidecar, &of_bad, 200).await;
    let revision = control.put(&bad);
    control.acknowledged(revision).await;
    check(&sidecar, &bad, 200).await;
    // Good before, and bad now: not accepted any more.
    control.commit([json!({"key": row})]);
    let revision = control.commit([json!({"owner": {"id": "evil", "kyc": "perhaps"}})]);
    control.acknowledged(revision).await;
    answers(&sidecar, &bad, 401).await;
    check(&sidecar, &of_bad, 401).await;
    check(&sidecar, &good, 200).await;
    sidecar.counts("keyside_quarantined_entries", &[], 2).await;
}
