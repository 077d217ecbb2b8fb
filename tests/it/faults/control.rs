//! The control plane, killed and without a disk.

use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::Numbers;
use crate::{
    control::{all_keys, audit_log},
    harness::{H1, Minted, Plane, Postgres, Upstream, api, eventually, minting},
};

/// What was answered before the end.
#[derive(Default)]
struct Answered {
    minted: Vec<Minted>,
    revoked: BTreeSet<String>,
}

/// Mints, and revokes every other key, until nobody answers.
async fn mutate(plane: &Plane, name: String, count: Arc<AtomicUsize>) -> impl Future<Output = Answered> + use<> {
    let mut connection = plane.dialer().connect(H1).await.unwrap();
    async move {
        let mut answered = Answered::default();
        loop {
            let number = answered.minted.len();
            let asked = connection.try_send(&api("POST", "/v1/keys", &minting(&format!("{name} {number}")))).await;
            let Ok(answer) = asked else { return answered };
            assert_eq!(answer.status, 201, "{}", answer.text());
            let key = Minted::of(&answer.json()["data"]);
            answered.minted.push(key.clone());
            count.fetch_add(1, Ordering::Relaxed);
            if number % 2 == 0 {
                let revoke = api("DELETE", &format!("/v1/keys/{}?wait=0", key.id), &Value::Null);
                let Ok(answer) = connection.try_send(&revoke).await else { return answered };
                assert_eq!(answer.status, 200, "{}", answer.text());
                answered.revoked.insert(key.id);
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Killed in the middle of mints and revokes, again and again: what was answered is there, nothing is there by half, and a
/// sidecar that was there all the while has what is there.
async fn killed_again_and_again(mut plane: Plane, rounds: usize) {
    let upstream = Upstream::start().await;
    let sidecar = plane.sidecar(&upstream).start().await;
    let mut numbers = Numbers(7);
    let (mut minted, mut revoked) = (Vec::new(), BTreeSet::new());
    for round in 0..rounds {
        let count = Arc::new(AtomicUsize::new(0));
        let mut mutating = Vec::new();
        for caller in 0..3 {
            let caller = mutate(&plane, format!("{round} {caller}"), Arc::clone(&count)).await;
            mutating.push(tokio::spawn(caller));
        }
        let enough = 2 + usize::try_from(numbers.below(20)).unwrap();
        eventually("changes", async || if count.load(Ordering::Relaxed) >= enough { Ok(()) } else { Err(()) }).await;
        plane = plane.crash_and_restart().await;
        for caller in mutating {
            let answered = caller.await.unwrap();
            for key in &answered.minted {
                let shown = plane.api("GET", &format!("/v1/keys/{}", key.id), &Value::Null).await;
                let expected = if answered.revoked.contains(&key.id) { "revoked" } else { "active" };
                // A revoke that was not answered may have been done.
                let done = shown["status"] == expected || shown["status"] == "revoked";
                assert!(done, "{round}: {expected} {shown}");
            }
            minted.extend(answered.minted);
            revoked.extend(answered.revoked);
        }
    }
    let (log, keys) = (audit_log(&plane).await, all_keys(&plane).await);
    let subjects = |action: &str| -> BTreeSet<&str> {
        let of = log.iter().filter(|entry| entry["action"] == action);
        of.map(|entry| entry["subject"].as_str().unwrap().trim_start_matches("key:")).collect()
    };
    assert_eq!(subjects("key.create"), keys.keys().map(String::as_str).collect());
    let dead = keys.iter().filter(|(_, key)| key["status"] == "revoked").map(|(id, _)| id.as_str());
    assert_eq!(subjects("key.revoke"), dead.collect());
    assert!(revoked.iter().all(|id| keys[id]["status"] == "revoked"));
    let revisions: Vec<u64> = log.iter().filter_map(|entry| entry["revision"].as_u64()).collect();
    assert_eq!(revisions, (1..=revisions.len() as u64).collect::<Vec<_>>());
    // Not more than one for each caller and round was done and never answered.
    assert!(keys.len() >= minted.len() && keys.len() <= minted.len() + 3 * rounds, "{} {}", keys.len(), minted.len());

    plane.followed_by(1).await;
    for key in minted.iter().rev().take(20) {
        let expected = if keys[&key.id]["status"] == "revoked" { 401 } else { 200 };
        assert_eq!(sidecar.ask(key.get("/")).await.status, expected, "{}", key.id);
    }
    let active = keys.values().filter(|key| key["status"] == "active").count();
    sidecar.counts("keyside_keys", &[("status", "active")], active as u64).await;
}

/// More rounds than in the suite, by hand.
fn rounds(of_the_suite: usize) -> usize {
    std::env::var("KEYSIDE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(of_the_suite)
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_with_sqlite() {
    killed_again_and_again(Plane::start().await, rounds(20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_with_postgres() {
    let server = Postgres::shared();
    let store = format!("[store]\nurl = {:?}", server.url(&server.database()));
    killed_again_and_again(Plane::prepare().config(&store).start().await, rounds(5)).await;
}

fn mount(arguments: &[&str], path: &Path) -> bool {
    Command::new("mount").args(arguments).arg(path).output().is_ok_and(|done| done.status.success())
}

/// Unmounts it, in whatever way the test ended.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--quiet", "--lazy"]).arg(&self.0).output();
    }
}

/// A disk that is full changes nothing, and says so; with room again all goes on.
#[tokio::test]
async fn a_full_disk_changes_nothing_and_it_goes_on_with_room() {
    let builder = Plane::prepare().config("[store]\nurl = \"sqlite:disk/control.db\"");
    let disk = builder.folder().join("disk");
    std::fs::create_dir(&disk).unwrap();
    if !mount(&["-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs"], &disk) {
        // Only root may; the store's own tests make do with a limit on the size of files.
        return;
    }
    let _mounted = Mounted(disk.clone());
    let plane = builder.start().await;
    let upstream = Upstream::start().await;
    let sidecar = plane.sidecar(&upstream).start().await;
    let key = plane.mint("before").await;
    eventually("the key", async || {
        let status = sidecar.ask(key.get("/")).await.status;
        if status == 200 { Ok(()) } else { Err(status) }
    })
    .await;
    let mut filler = std::fs::File::create(disk.join("filler")).unwrap();
    let mut room = vec![0; 1 << 20];
    while !room.is_empty() {
        if std::io::Write::write_all(&mut filler, &room).is_err() {
            room.truncate(room.len() / 2);
        }
    }
    // The log that SQLite writes ahead has room of its own for a while.
    let mut done = BTreeSet::from([key.id.clone()]);
    let refused = loop {
        let answer = plane.ask(api("POST", "/v1/keys", &minting("full"))).await;
        if answer.status != 201 {
            break answer;
        }
        done.insert(Minted::of(&answer.json()["data"]).id);
        assert!(done.len() < 5000, "the disk is never full");
    };
    assert!(matches!(refused.status, 503 | 507), "{} {}", refused.status, refused.text());
    let refused = plane.ask(api("DELETE", &format!("/v1/keys/{}?wait=0", key.id), &Value::Null)).await;
    assert!(matches!(refused.status, 503 | 507), "{} {}", refused.status, refused.text());
    assert_eq!(all_keys(&plane).await.into_keys().collect::<BTreeSet<_>>(), done);
    assert_eq!(sidecar.ask(key.get("/")).await.status, 200, "it was not revoked");

    std::fs::remove_file(disk.join("filler")).unwrap();
    drop(filler);
    eventually("room", async || {
        let answer = plane.ask(api("DELETE", &format!("/v1/keys/{}", key.id), &Value::Null)).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    assert_eq!(sidecar.ask(key.get("/")).await.status, 401);
    let plane = plane.crash_and_restart().await;
    let keys = all_keys(&plane).await;
    assert_eq!((keys.len(), &keys[&key.id]["status"]), (done.len(), &json!("revoked")));
    audit_log(&plane).await;
    plane.stop(Signal::TERM).await;
}
