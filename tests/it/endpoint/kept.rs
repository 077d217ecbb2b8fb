//! What is on the disk: enough for a start without the endpoint, and no more believed than it can be.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use super::{answers, check, readyz_says, sidecar};
use crate::harness::{Control, Key, Sidecar, Upstream, eventually};

/// Waits until the disk has what this revision said.
async fn durable(control: &Control, revision: u64) {
    eventually("it to be on the disk", async || {
        let reports = control.reports();
        let found = reports.iter().any(|report| report["revision"] == revision && report["durable"] == true);
        if found { Ok(()) } else { Err(reports) }
    })
    .await;
}

#[tokio::test]
async fn a_restart_without_the_endpoint_serves_what_was_kept() {
    let (one, gone, late) = (Key::pair("one"), Key::pair("gone"), Key::token("late"));
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    control.put_all([&one, &gone]);
    let sidecar = sidecar(&upstream, &control).start().await;
    let revision = control.revoke(&gone);
    let last = control.commit([json!({"key": late.json()}), json!({"owner": {"id": "acme", "kyc": "approved"}})]);
    durable(&control, last).await;
    control.acknowledged(revision).await;
    control.stop().await;
    let journal = sidecar.path("state/keys.journal");
    assert_eq!(fs::metadata(&journal).unwrap().permissions().mode() & 0o777, 0o600);

    let sidecar = sidecar.crash_and_restart().await;
    sidecar.ready().await;
    let matches = async |sidecar: &Sidecar| {
        check(sidecar, &one, 200).await;
        check(sidecar, &late, 200).await;
        check(sidecar, &gone, 401).await;
    };
    matches(&sidecar).await;
    readyz_says(&sidecar, 200, "control endpoint").await;

    // What a crash left half written is as if it had not been.
    let whole = fs::read(&journal).unwrap();
    fs::write(&journal, [&whole[..], b"0badc0de {\"revision\":99,\"digest\":\"\",\"deleted_key\":"].concat()).unwrap();
    let sidecar = sidecar.crash_and_restart().await;
    sidecar.ready().await;
    matches(&sidecar).await;

    // What is damaged is not believed at all.
    let mut damaged = fs::read(&journal).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&journal, damaged).unwrap();
    let sidecar = sidecar.crash_and_start().await;
    check(&sidecar, &one, 503).await;
    assert!(sidecar.path("state/keys.journal.corrupt").exists());
    readyz_says(&sidecar, 503, "keys").await;
    control.restart().await;
    sidecar.ready().await;
    matches(&sidecar).await;
    let revision = control.put(&Key::pair("more"));
    control.acknowledged(revision).await;
}

/// A restart does not make old keys young.
#[tokio::test]
async fn the_age_of_what_was_kept_counts() {
    let key = Key::pair("one");
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    control.put(&key);
    let sidecar =
        sidecar(&upstream, &control).config("[keys]\nmax_stale = \"4s\"\nmax_stale_write = \"4s\"").start().await;
    durable(&control, control.revision()).await;
    eventually(
        "the confirmation to be kept",
        async || {
            if sidecar.path("state/confirmed").exists() { Ok(()) } else { Err(()) }
        },
    )
    .await;
    control.stop().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let sidecar = sidecar.crash_and_start().await;
    check(&sidecar, &key, 503).await;
    readyz_says(&sidecar, 503, "keys.max_stale").await;
    control.restart().await;
    answers(&sidecar, &key, 200).await;
}

/// The keys of one endpoint say nothing of another's.
#[tokio::test]
async fn what_was_kept_is_of_one_endpoint() {
    let key = Key::pair("one");
    let upstream = Upstream::start().await;
    let (one, other) = (Control::start().await, Control::start().await);
    one.put(&key);
    other.stop().await;
    let sidecar = sidecar(&upstream, &one).start().await;
    durable(&one, one.revision()).await;
    sidecar.reconfigure(&format!("[keys.control]\nurl = {:?}", other.url()));
    let sidecar = sidecar.crash_and_start().await;
    check(&sidecar, &key, 503).await;
}

#[tokio::test]
async fn a_full_disk_costs_one_alarm_and_no_revocation() {
    let (one, gone, late) = (Key::pair("one"), Key::pair("gone"), Key::pair("late"));
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    control.put_all([&one, &gone]);
    let sidecar = sidecar(&upstream, &control).start().await;
    durable(&control, control.revision()).await;
    let id = Pid::from_raw(sidecar.id().try_into().unwrap());
    let limit = |current| prlimit(id, Resource::Fsize, Rlimit { current, maximum: None }).map(drop).unwrap();
    limit(Some(0));
    let revision = control.revoke(&gone);
    let report = control.acknowledged(revision).await;
    assert_eq!(report["durable"], false, "{report}");
    check(&sidecar, &gone, 401).await;
    sidecar.counts("keyside_state_usable", &[], 0).await;
    for number in 0..3 {
        let revision = control.put(&Key::pair(&format!("more{number}")));
        control.acknowledged(revision).await;
    }
    let alarms = || sidecar.log.all().iter().filter(|line| line.contains("the key set cannot be kept")).count();
    assert_eq!(alarms(), 1);
    limit(None);
    let revision = control.put(&late);
    durable(&control, revision).await;
    sidecar.counts("keyside_state_usable", &[], 1).await;
    control.stop().await;
    let sidecar = sidecar.crash_and_restart().await;
    sidecar.ready().await;
    check(&sidecar, &late, 200).await;
    check(&sidecar, &gone, 401).await;
}

/// What goes into a folder that was removed is gone, and so is what was in it.
#[tokio::test]
async fn nothing_is_durable_in_a_folder_that_was_removed() {
    let (one, gone) = (Key::pair("one"), Key::pair("gone"));
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    control.put_all([&one, &gone]);
    let sidecar = sidecar(&upstream, &control).start().await;
    durable(&control, control.revision()).await;
    fs::remove_dir_all(sidecar.path("state")).unwrap();
    let revision = control.revoke(&gone);
    control.acknowledged(revision).await;
    sidecar.counts("keyside_state_usable", &[], 0).await;
    readyz_says(&sidecar, 200, "[!]state folder cannot be written").await;
    for number in 0..3 {
        let revision = control.put(&Key::pair(&format!("more{number}")));
        control.acknowledged(revision).await;
    }
    let lies = || {
        control
            .reports()
            .into_iter()
            .find(|report| report["revision"].as_u64() >= Some(revision) && report["durable"] == true)
    };
    assert_eq!(lies(), None);
    let alarms = || sidecar.log.all().iter().filter(|line| line.contains("the key set cannot be kept")).count();
    assert_eq!(alarms(), 1);
    assert!(!sidecar.path("state").exists(), "it is not made anew: nobody would know whose it is");
    let sidecar = sidecar.crash_and_restart().await;
    durable(&control, control.revision()).await;
    check(&sidecar, &one, 200).await;
    check(&sidecar, &gone, 401).await;
}

/// Two on one folder would rename their files over each other's: what the first one has acknowledged would be gone.
#[tokio::test]
async fn nobody_starts_in_the_folder_of_one_that_runs() {
    let (one, gone) = (Key::pair("one"), Key::pair("gone"));
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    control.put_all([&one, &gone]);
    let first = sidecar(&upstream, &control).start().await;
    answers(&first, &gone, 200).await;
    let state = first.path("state");
    let before = fs::metadata(state.join("keys.journal")).unwrap().ino();
    let second = || sidecar(&upstream, &control).config(&format!("[keys]\nstate = {state:?}"));
    let ended = second().try_start().await.err().expect("it has no folder");
    let why = format!("{} belongs to a running sidecar, process {};", state.display(), first.id());
    assert_eq!(ended.status, 78, "{}", ended.stderr);
    assert!(ended.stderr.contains(&why) && ended.stderr.contains("KEYSIDE_KEYS__STATE"), "{}", ended.stderr);
    assert_eq!(fs::metadata(state.join("keys.journal")).unwrap().ino(), before);

    // Nor does one that follows a key file: it would put its last uses and windows in place of those.
    let by_file =
        Sidecar::in_front_of(&upstream).plaintext().keys([&one]).config(&format!("[keys]\nstate = {state:?}"));
    let ended = by_file.try_start().await.err().expect("it has no folder");
    assert!(ended.status == 78 && ended.stderr.contains(&why), "{}: {}", ended.status, ended.stderr);

    // Nor does a reload take it: that is for a restart, which is judged as any start is.
    let other = sidecar(&upstream, &control).start().await;
    other.reconfigure(&format!("[keys]\nstate = {state:?}"));
    let reloaded = other.admin("POST", "/-/reload").await;
    assert!(reloaded.status == 200 && reloaded.text().contains("after a restart: [keys]"), "{}", reloaded.text());

    let revision = control.revoke(&gone);
    durable(&control, revision).await;
    control.stop().await;
    let first = first.crash_and_restart().await;
    check(&first, &one, 200).await;
    check(&first, &gone, 401).await;
}
