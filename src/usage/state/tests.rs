use std::{fs, net::IpAddr};

use super::*;
use crate::{
    keys::{KeyStore, sample},
    limits::{Exceeded, Quota, Readings, Settings},
};

const SECOND: u64 = 1_000_000_000;

/// A sidecar as far as usage is concerned, over a folder that outlives it.
struct Process {
    state: State,
    limiter: Limiter,
    plan: Plan,
    keys: KeyStore,
    /// Wall time, in seconds, when monotonic time was 0.
    began: i64,
}

fn now(began: i64, second: u64) -> Now {
    let wall = (1_700_000_000 + began) * 1000 + i64::try_from(second).unwrap() * 1000;
    Now { mono: Mono::from_nanos(second * SECOND), wall: Wall::from_unix_millis(wall) }
}

fn ip() -> IpAddr {
    "203.0.113.42".parse().unwrap()
}

fn key_store(ids: &[&str]) -> KeyStore {
    sample::store(ids.iter().map(|id| sample::pair(id, &format!("ck_{id}"), sample::fast("secret"))))
}

impl Process {
    fn start(folder: &Path, began: i64, ids: &[&str]) -> Self {
        let quotas = |texts: &[&str]| texts.iter().map(|text| text.parse::<Quota>().unwrap()).collect();
        let plan = Plan::new(&Settings {
            per_ip: quotas(&["4/1h"]),
            per_key: quotas(&["3/1h", "2/1m"]),
            per_owner: quotas(&["5/1d"]),
            failures_per_ip: quotas(&["2/10m"]),
            ..Settings::default()
        });
        let limiter = Limiter::new(10);
        let state = State::open(&Folder::new(folder), &limiter, &plan, now(began, 0));
        let mut process = Self { state, limiter, plan, keys: KeyStore::default(), began };
        process.load(ids);
        process
    }

    /// As when a version of the key file has come.
    fn load(&mut self, ids: &[&str]) {
        self.keys = key_store(ids);
        let set = self.keys.load().clone().unwrap();
        self.state.restorer().restore(&set, now(self.began, 0));
    }

    fn take(&self, id: &str, second: u64) -> Result<(), Exceeded> {
        let set = self.keys.load();
        let key = set.as_ref().unwrap().by_id(id).unwrap();
        let now = now(self.began, second);
        self.limiter.take_key(&self.plan, key, now.mono, &mut Readings::default())?;
        key.state.last_use.note(now.wall, ip());
        Ok(())
    }

    fn take_address(&self, second: u64) -> Result<(), Exceeded> {
        self.limiter.take_address(&self.plan, ip(), now(self.began, second).mono, &mut Readings::default())
    }

    fn save(&mut self, second: u64) {
        let set = self.keys.load().clone().unwrap();
        self.state.save(&set, &self.limiter, &self.plan, now(self.began, second));
    }

    fn is_healthy(&self) -> bool {
        self.state.healthy().load(Ordering::Relaxed)
    }
}

fn last_used(folder: &Path) -> Vec<(String, i64)> {
    let uses = read_last_used(folder).unwrap().expect("a file");
    uses.into_iter().map(|(id, last)| (id.to_string(), last.at.unix_seconds() - 1_700_000_000)).collect()
}

#[test]
fn last_use_and_long_windows_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), 0, &["a", "b"]);
    process.take("a", 1).unwrap();
    process.take_address(1).unwrap();
    process.save(1);
    // This and what follows is appended.
    process.take("a", 2).unwrap();
    process.limiter.charge_failure(&process.plan, ip(), now(0, 2).mono);
    process.limiter.charge_failure(&process.plan, ip(), now(0, 2).mono);
    for _ in 0..3 {
        process.take_address(2).unwrap();
    }
    process.save(2);
    assert_eq!(last_used(folder.path()), [("a".to_owned(), 2)]);
    drop(process);

    let mut process = Process::start(folder.path(), 100, &["a", "b"]);
    let set = process.keys.load().clone().unwrap();
    let last = set.by_id("a").unwrap().state.last_use.get().unwrap();
    assert_eq!((last.at, last.ip), (now(0, 2).wall, ip()));
    process.take("a", 0).unwrap();
    let exceeded = process.take("a", 0).unwrap_err();
    assert_eq!(exceeded.violated, ["key-3600s".into()]);
    assert_eq!(exceeded.retry_after, 3600 - 99, "the first of them was made 99 seconds before this process began");
    // The owner's window was saved, too: three by one key, two by the other.
    process.take("b", 0).unwrap();
    process.take("b", 0).unwrap();
    assert!(process.take("b", 60).unwrap_err().violated.contains(&"owner-86400s".into()));
    assert_eq!(process.take_address(0).unwrap_err().violated, ["ip-3600s".into()]);
    assert!(process.limiter.failures_exhausted(&process.plan, ip(), now(100, 0).mono).is_some());
    process.save(61);
    assert_eq!(last_used(folder.path()), [("a".to_owned(), 100), ("b".to_owned(), 100)]);
}

#[test]
fn a_key_that_is_missing_for_a_while_gets_no_fresh_allowance() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), 0, &["a"]);
    process.take("a", 0).unwrap();
    process.take("a", 0).unwrap();
    process.take("a", 60).unwrap();
    process.save(60);
    // A process that never has the key keeps what is known of it.
    let mut process = Process::start(folder.path(), 100, &["b"]);
    process.save(1);
    process.take("b", 1).unwrap();
    process.save(2);
    assert_eq!(last_used(folder.path()).len(), 2);
    let mut process = Process::start(folder.path(), 200, &["b"]);
    process.load(&["a", "b"]);
    assert_eq!(process.take("a", 0).unwrap_err().violated, ["key-3600s".into()]);
}

#[test]
fn a_wall_clock_that_was_set_revives_no_allowance() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), 0, &["a"]);
    for second in [0, 0, 60] {
        process.take("a", second).unwrap();
    }
    process.save(60);
    // Set forward by a day while the process runs: the windows that are on the disk already are anchored anew.
    process.began += 86_400;
    process.save(61);
    let process = Process::start(folder.path(), 86_400 + 100, &["a"]);
    assert_eq!(process.take("a", 0).unwrap_err().violated, ["key-3600s".into()]);
    // Set back by years between two processes: what was admitted in the future counts as admitted now.
    let process = Process::start(folder.path(), -100_000_000, &["a"]);
    assert_eq!(process.take("a", 0).unwrap_err().retry_after, 3600);
}

#[test]
fn a_folder_that_cannot_be_written_is_said_once_and_tried_again() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("state");
    fs::write(&folder, "a file in the way").unwrap();
    let mut process = Process::start(&folder, 0, &["a"]);
    process.take("a", 0).unwrap();
    process.save(0);
    assert!(!process.is_healthy());
    process.take("a", 1).unwrap();
    fs::remove_file(&folder).unwrap();
    process.save(2);
    assert!(process.is_healthy());
    assert_eq!(last_used(&folder), [("a".to_owned(), 1)], "nothing was forgotten meanwhile");
    let process = Process::start(&folder, 3, &["a"]);
    assert!(process.take("a", 0).is_err());
}

#[test]
fn damaged_files_are_set_aside_and_serving_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["last-used.ndjson", "windows.ndjson"] {
        fs::write(folder.path().join(name), b"\x00\xff not what it should be\n").unwrap();
    }
    let mut process = Process::start(folder.path(), 0, &["a"]);
    process.take("a", 0).unwrap();
    process.save(0);
    assert!(process.is_healthy());
    assert_eq!(last_used(folder.path()), [("a".to_owned(), 0)]);
    assert!(folder.path().join("windows.ndjson.corrupt").exists());
}

#[test]
fn a_reader_is_told_of_a_file_that_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    assert!(read_last_used(folder.path()).unwrap().is_none());
    fs::write(folder.path().join("last-used.ndjson"), "nonsense\n").unwrap();
    assert!(read_last_used(folder.path()).is_err());
    assert!(folder.path().join("last-used.ndjson").exists(), "a reader changes nothing");
}

#[test]
fn no_file_holds_more_than_ids_moments_and_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), 0, &["a"]);
    process.take("a", 0).unwrap();
    process.save(0);
    for name in ["last-used.ndjson", "windows.ndjson"] {
        let text = fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(!text.contains("ck_") && !text.contains("secret") && !text.contains('$'), "{text}");
    }
}

#[test]
fn the_thread_saves_a_last_time_when_it_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path(), 0, &["a"]);
    process.take("a", 0).unwrap();
    let (set, plan) = (process.keys.load().clone().unwrap(), Arc::new(process.plan));
    let current = move || Some((Arc::clone(&set), Arc::clone(&plan)));
    let saver = crate::usage::Saver::start(process.state, Arc::new(process.limiter), current).unwrap();
    saver.stop();
    assert_eq!(last_used(folder.path()).len(), 1);
}
