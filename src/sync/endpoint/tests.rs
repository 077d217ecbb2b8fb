//! The source without a network: what it believes, and what it finds on the disk.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    engine::{Engine, Parts, Refused},
    journal::{self, Confirmed, JOURNAL},
    keeper::Keeper,
    protocol::{Position, StreamLine, stream_line},
    rows::{Gathering, Rows, Whole},
    *,
};
use crate::{
    clock::{Boot, Moment, Mono, Now, Wall},
    keys::{
        document::json::write_key,
        sample::{fast, pair},
    },
};

/// A source in a folder, and what it said it has.
struct Bench {
    engine: Engine,
    store: Arc<KeyStore>,
    applied: watch::Receiver<Option<Position>>,
    durable: watch::Receiver<Option<Position>>,
}

fn url() -> Url {
    "https://control:8444".parse().unwrap()
}

fn moment(seconds: u64) -> Moment {
    let wall = Wall::from_unix_millis(1_000_000 + i64::try_from(seconds).unwrap() * 1000);
    let nanos = seconds * 1_000_000_000;
    Moment { now: Now { mono: Mono::from_nanos(nanos), wall }, boot: Boot::from_nanos(nanos) }
}

fn bench(folder: &Folder) -> Bench {
    let revoked = Revoked::open(folder);
    let store = Arc::new(KeyStore::new(revoked.all().clone()));
    let (applied, applied_of) = watch::channel(None);
    let (durable, durable_of) = watch::channel(None);
    let status = Arc::new(Mutex::new(Status { state_usable: true, ..Status::default() }));
    let keeper = Keeper::start(folder.clone(), url(), revoked, durable, Arc::clone(&status)).unwrap();
    let engine = Engine::new(Parts {
        store: Arc::clone(&store),
        terms: Terms::default(),
        limits: Limits { reads: Duration::from_secs(100), writes: Duration::from_secs(10) },
        keeper,
        applied,
        report: Box::new(|_| {}),
        prepare: Box::new(|_| {}),
        status,
    });
    Bench { engine, store, applied: applied_of, durable: durable_of }
}

fn key(id: &str) -> serde_json::Value {
    write_key(&pair(id, id, fast("s")))
}

/// A set of these keys; those with a `!` are revoked.
fn whole(epoch: &str, revision: u64, ids: &str) -> Whole {
    let mut gathering = Gathering::default();
    let mut line = |value: serde_json::Value| gathering.line(value.to_string().as_bytes()).unwrap();
    line(serde_json::json!({"epoch": epoch, "revision": revision, "digest": format!("d{revision}")}));
    for id in ids.split_whitespace() {
        let mut row = key(id.trim_end_matches('!'));
        if id.ends_with('!') {
            row["revoked_at"] = "2026-11-01T00:00:00Z".into();
        }
        line(serde_json::json!({"key": row}));
    }
    line(serde_json::json!({"end": true, "owners": 0, "keys": ids.split_whitespace().count()}));
    gathering.finish().unwrap()
}

impl Bench {
    /// Takes the lines of a stream, as many as are believed, and puts them into force.
    fn takes(&mut self, lines: &[serde_json::Value]) -> Result<(), Refused> {
        let mut refused = Ok(());
        for line in lines {
            let text = Bytes::from(line.to_string());
            refused = match stream_line(&text).map_err(Refused::Nonsense)? {
                StreamLine::Change(change) => self.engine.change(change, text),
                StreamLine::Heartbeat(revision) => self.engine.heartbeat(revision),
            };
            if refused.is_err() {
                break;
            }
        }
        self.engine.acknowledge_cuts();
        self.engine.settle(moment(1))?;
        refused
    }

    #[track_caller]
    fn check(&self, revision: u64, living: &str) {
        assert_eq!(self.applied.borrow().as_ref().map(|position| position.revision), Some(revision));
        let held = self.store.load();
        let set = held.as_ref().unwrap();
        let alive = set.keys().filter(|key| key.revoked_at.is_none() && !key.is_dead());
        let mut alive: Vec<_> = alive.map(|key| key.id.to_string()).collect();
        alive.sort();
        assert_eq!(alive.join(" "), living);
    }

    /// Waits until the disk has what is in force.
    fn until_durable(&mut self) {
        let position = self.engine.position().cloned();
        while *self.durable.borrow_and_update() != position {
            std::thread::yield_now();
        }
    }
}

fn change(revision: u64, more: bool, what: (&str, serde_json::Value)) -> serde_json::Value {
    serde_json::json!({"revision": revision, "digest": format!("d{revision}"), "more": more, what.0: what.1})
}

#[test]
fn history_only_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let mut bench = bench(&Folder::new(root.path()));
    bench.engine.whole(whole("e", 5, "a b c!"), moment(0), moment(0)).unwrap();
    bench.check(5, "a b");
    let contradicts =
        |outcome: Result<(), Refused>| assert!(matches!(outcome, Err(Refused::Contradiction(_))), "{outcome:?}");
    let again = |outcome: Result<(), Refused>| assert!(matches!(outcome, Err(Refused::Again(_))), "{outcome:?}");
    contradicts(bench.engine.whole(whole("e", 4, "a b c"), moment(0), moment(0)));
    let other =
        Whole { position: Position { digest: "x".into(), ..whole("e", 5, "").position }, ..whole("e", 5, "a b c") };
    contradicts(bench.engine.whole(other, moment(0), moment(0)));
    contradicts(bench.takes(&[change(5, false, ("deleted_key", "a".into()))]));
    contradicts(bench.takes(&[serde_json::json!({"heartbeat": 4})]));
    again(bench.takes(&[serde_json::json!({"heartbeat": 6})]));
    again(bench.takes(&[change(7, false, ("deleted_key", "a".into()))]));
    bench.check(5, "a b");
    // What came before the lie was good.
    contradicts(bench.takes(&[change(6, false, ("key", key("d"))), change(5, false, ("deleted_key", "a".into()))]));
    bench.check(6, "a b d");
    bench.takes(&[change(7, false, ("deleted_key", "a".into())), serde_json::json!({"heartbeat": 7})]).unwrap();
    bench.check(7, "b d");
    // Another history may begin at any number; nobody revoked comes back by it.
    bench.engine.whole(whole("f", 1, "a b c"), moment(0), moment(0)).unwrap();
    bench.check(1, "a b");
}

#[test]
fn a_transaction_counts_as_a_whole_but_cuts_off_at_once() {
    let root = tempfile::tempdir().unwrap();
    let mut bench = bench(&Folder::new(root.path()));
    bench.engine.whole(whole("e", 1, "a b"), moment(0), moment(0)).unwrap();
    bench.takes(&[change(2, true, ("deleted_key", "a".into())), change(2, true, ("key", key("c")))]).unwrap();
    bench.check(1, "b");
    bench.takes(&[change(2, false, ("key", key("d")))]).unwrap();
    bench.check(2, "b c d");
    bench.takes(&[change(3, true, ("key", key("e")))]).unwrap();
    let outcome = bench.takes(&[change(4, false, ("key", key("f")))]);
    assert!(matches!(outcome, Err(Refused::Again(_))), "{outcome:?}");
    bench.engine.forget_unfinished();
    bench.takes(&[change(3, false, ("key", key("g")))]).unwrap();
    bench.check(3, "b c d g");
}

#[test]
fn keys_are_served_only_as_long_as_they_are_confirmed() {
    let root = tempfile::tempdir().unwrap();
    let mut bench = bench(&Folder::new(root.path()));
    let over = |bench: &Bench, at: Moment| {
        [Purpose::Read, Purpose::Write].map(|purpose| bench.store.freshness().is_over(purpose, at.now))
    };
    assert_eq!(over(&bench, moment(0)), [true, true], "nothing was ever confirmed");
    bench.engine.whole(whole("e", 1, "a"), moment(5), moment(7)).unwrap();
    assert_eq!(
        [14, 15, 104, 105].map(|at| over(&bench, moment(at))),
        [[false, false], [false, true], [false, true], [true, true]]
    );
    bench.engine.confirm(moment(20));
    // Old news that come late change nothing.
    bench.engine.confirm(moment(8));
    assert_eq!([29, 30].map(|at| over(&bench, moment(at))), [[false, false], [false, true]]);
    // A machine that slept: only its own clock has gone on, and somebody set the other one back.
    let slept = Moment { boot: moment(60).boot, ..moment(21) };
    bench.engine.tick(slept);
    assert_eq!(over(&bench, slept), [false, true]);
}

#[test]
fn what_is_kept_is_found_again_or_not_believed() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::new(root.path());
    let mut first = bench(&folder);
    first.engine.whole(whole("e", 5, "a b c!"), moment(0), moment(0)).unwrap();
    first.takes(&[change(6, false, ("key", key("d"))), change(7, false, ("deleted_key", "a".into()))]).unwrap();
    first.takes(&[change(8, false, ("key", serde_json::json!({"id": "b", "kind": "pair"})))]).unwrap();
    first.until_durable();
    drop(first);
    let text = std::fs::read(folder.file(JOURNAL)).unwrap();
    let found = |text: &[u8]| {
        std::fs::write(folder.file(JOURNAL), text).unwrap();
        journal::read(&folder, &url())
    };
    let living = |whole: &Whole| {
        let mut ids: Vec<_> =
            whole.rows.keys().filter(|(_, row)| row.is_some()).map(|(id, _)| id.to_string()).collect();
        ids.sort();
        (whole.position.revision, ids.join(" "))
    };
    assert_eq!(living(&found(&text).unwrap()), (8, "c d".to_owned()));
    assert!(journal::read(&folder, &"https://other".parse().unwrap()).is_none());
    // Cut anywhere, it is an older version of itself, or nothing.
    for cut in 0..text.len() {
        match found(&text[..cut]) {
            Some(whole) => assert!([5, 6, 7, 8].contains(&whole.position.revision) && whole.revoked.contains_key("c")),
            None => assert!(cut < text.len()),
        }
    }
    // With any other byte in it that is not at its end, nothing of it is believed.
    for at in (0..text.len() - 1).step_by(7) {
        let mut damaged = text.clone();
        damaged[at] ^= 1;
        assert!(found(&damaged).is_none(), "byte {at}");
    }
    // Written anew, it says the same, also of what cannot be accepted.
    let whole = found(&text).unwrap();
    let again = found(&journal::render(&url(), &whole.position, &whole.rows).unwrap()).unwrap();
    assert_eq!(living(&again), living(&whole));
    assert_eq!(again.rows.quarantined(), whole.rows.quarantined());
    assert_eq!(Rows::default().quarantined(), 0);
}

#[test]
fn no_clock_makes_what_was_kept_younger() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::new(root.path());
    let position = whole("e", 5, "").position;
    let limits = Limits { reads: Duration::from_secs(100), writes: Duration::from_secs(10) };
    Confirmed::new(&url(), &position, moment(1000), limits).write(&folder).unwrap();
    let read = |position: &Position| Confirmed::read(&folder, &url(), position);
    let confirmed = read(&position).unwrap();
    let age = |now: Moment| confirmed.moment(now).map(|at| now.boot.since(at.boot).as_secs());
    assert_eq!(age(moment(1500)), Some(500));
    // The wall clock was set back or forward: the larger age counts.
    assert_eq!(age(Moment { now: moment(900).now, ..moment(1500) }), Some(500));
    assert_eq!(age(Moment { now: moment(1900).now, ..moment(1500) }), Some(900));
    // Of another history, or of a later revision than what was found, it says nothing.
    assert!(read(&Position { epoch: "f".into(), ..position.clone() }).is_none());
    assert!(read(&Position { revision: 4, ..position.clone() }).is_none());
    assert!(read(&Position { revision: 6, ..position.clone() }).is_some());
    // The machine was started anew, and its clock set back: nobody can tell.
    let text = std::fs::read_to_string(folder.file("confirmed")).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(folder.file("confirmed"), text.replace(boot.trim(), "another")).unwrap();
    let confirmed = read(&position).unwrap();
    assert!(confirmed.moment(Moment { now: moment(900).now, ..moment(5) }).is_none());
    let later = Moment { now: moment(1300).now, boot: Boot::from_nanos(0) };
    assert_eq!(confirmed.moment(later).unwrap().now.wall, moment(1000).now.wall);
}
