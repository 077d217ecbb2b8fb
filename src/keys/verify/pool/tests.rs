//! The pool is driven by hand here: a test begins and ends each job itself, so that nothing depends on time.

mod stress;

use std::{
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, AtomicUsize},
    task::{Context, Poll, Waker},
};

use super::*;
use crate::{
    clock::{Now, Wall},
    keys::{
        KeyStore, Kind, Standing,
        sample::{self, document, fast, pair, record, slow},
        store::Terms,
        verify::Verifier,
    },
    limits::{self, Limiter, Plan},
};

const MINTED: &str = "ck_4f2a90c1d37be6580f1c2b3a495867d0e1f2a3b4";
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

/// A verifier without threads, and the limiter that its failures are charged to.
struct Bench {
    verifier: Verifier,
    limiter: Arc<Limiter>,
    plan: Arc<Plan>,
}

fn bench(failures: &str) -> Bench {
    let failures_per_ip = vec![failures.parse().expect("a quota")];
    Bench {
        verifier: Verifier::without_threads(Settings::default()),
        limiter: Arc::new(Limiter::new(1000)),
        plan: Arc::new(Plan::new(&limits::Settings { failures_per_ip, ..limits::Settings::default() })),
    }
}

impl Bench {
    fn charge(&self, address: IpAddr) -> Failures {
        Failures::new(Arc::clone(&self.limiter), Arc::clone(&self.plan), address)
    }

    /// A request that asks, without waiting yet.
    fn ask(&self, record: &Arc<KeyRecord>, secret: &str, address: IpAddr) -> Asking<'_> {
        let (record, secret, charge) = (Arc::clone(record), Secret::new(secret.as_bytes()), self.charge(address));
        let mut asking: Asking<'_> = Box::pin(async move { self.verifier.verify(&record, &secret, charge).await });
        // Polled once, as the serving thread would: the fast paths answer, the slow one is queued.
        match poll(&mut asking) {
            Poll::Ready(verdict) => Box::pin(async { verdict }),
            Poll::Pending => asking,
        }
    }

    fn pool(&self) -> &Pool {
        &self.verifier.pool
    }

    fn begin(&self) -> Option<Task> {
        self.pool().begin(&mut self.pool().desk(), clock::mono())
    }

    fn perform(&self, task: Task) {
        self.pool().perform(task, &mut Memory::default());
    }

    /// Does all that waits.
    fn drain(&self) {
        while let Some(task) = self.begin() {
            self.perform(task);
        }
    }

    fn hashed(&self) -> [u64; 4] {
        let counters = self.verifier.counters();
        [&counters.argon2id, &counters.bcrypt, &counters.hmac, &counters.decoy]
            .map(|counter| counter.load(Ordering::Relaxed))
    }

    fn queued(&self) -> u64 {
        self.verifier.counters().queue.load(Ordering::Relaxed)
    }

    fn exhausted(&self, address: IpAddr) -> bool {
        self.limiter.failures_exhausted(&self.plan, address, clock::mono()).is_some()
    }
}

type Asking<'b> = Pin<Box<dyn Future<Output = Verdict> + 'b>>;

fn poll(asking: &mut Asking<'_>) -> Poll<Verdict> {
    asking.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[track_caller]
fn answered(asking: &mut Asking<'_>) -> Verdict {
    match poll(asking) {
        Poll::Ready(verdict) => verdict,
        Poll::Pending => panic!("still waits"),
    }
}

/// Timers need a runtime, though none of them fires here.
fn within_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
}

macro_rules! runtime {
    () => {
        let runtime = within_runtime();
        let _entered = runtime.enter();
    };
}

#[test]
fn many_who_ask_the_same_wait_for_one_hash() {
    runtime!();
    let bench = bench("20/1m");
    let store = sample::store([pair("a", MINTED, slow("right"))]);
    let record = record(&store, "a");
    let mut asking: Vec<_> = (0..50).map(|host| bench.ask(&record, "right", [192, 0, 2, host].into())).collect();
    assert_eq!(bench.queued(), 1);
    let task = bench.begin().expect("a job");
    asking.push(bench.ask(&record, "right", THERE));
    bench.perform(task);
    for asking in &mut asking {
        assert_eq!(answered(asking), Verdict::Right);
    }
    assert_eq!((bench.hashed(), bench.queued()), ([1, 0, 0, 0], 0));
    // From now on it is known.
    assert!(bench.verifier.is_known(&record, &Secret::new(b"right")));
    assert!(!bench.verifier.is_known(&record, &Secret::new(b"wrong")));
    assert_eq!(answered(&mut bench.ask(&record, "right", HERE)), Verdict::Right);
    assert_eq!((bench.hashed(), bench.verifier.cached()), ([1, 0, 0, 0], 2));
    assert!(bench.pool().desk().jobs.is_empty());
}

#[test]
fn another_version_of_the_key_is_another_job() {
    runtime!();
    let bench = bench("20/1m");
    let store = sample::store([pair("a", "alice", slow("right"))]);
    let older = record(&store, "a");
    let mut asking = bench.ask(&older, "right", HERE);
    let task = bench.begin().expect("a job");

    // Meanwhile the secret is changed, and then the key is revoked.
    store.apply(&document([pair("a", "alice", slow("other"))], []), &Terms::default(), Now::default());
    let newer = record(&store, "a");
    let mut other = bench.ask(&newer, "right", HERE);
    bench.perform(task);
    assert_eq!(answered(&mut asking), Verdict::Right);
    assert!(!store.is_current(&older), "so whoever waited starts over");
    assert!(older.has_verified() && !newer.has_verified());
    bench.drain();
    assert_eq!(answered(&mut other), Verdict::Wrong);
    assert!(!newer.has_verified());
}

#[test]
fn keys_take_turns_and_each_has_eight_places() {
    runtime!();
    let bench = bench("1000/1m");
    let store = sample::store([pair("a", "alice", slow("a")), pair("b", "bob", slow("b"))]);
    let (a, b) = (record(&store, "a"), record(&store, "b"));
    let mut flood: Vec<_> = (0..9).map(|guess| bench.ask(&a, &format!("guess {guess}"), HERE)).collect();
    assert_eq!(answered(&mut flood[8]), Verdict::Overloaded);
    let mut other = bench.ask(&b, "b", HERE);
    let mut neighbour = bench.ask(&a, "a", THERE);
    assert_eq!(answered(&mut neighbour), Verdict::Overloaded, "the places of a key are its own");
    let first = bench.begin().expect("a job");
    let second = bench.begin().expect("a job");
    assert!(Arc::ptr_eq(first.work.record(), &a) && Arc::ptr_eq(second.work.record(), &b));
    bench.perform(second);
    assert_eq!(answered(&mut other), Verdict::Right);

    // A place is free again; within the key, the other address comes next but one at the latest.
    let mut neighbour = bench.ask(&a, "a", THERE);
    bench.perform(first);
    for _ in 0..2 {
        let task = bench.begin().expect("a job");
        bench.perform(task);
    }
    assert_eq!(answered(&mut neighbour), Verdict::Right);
}

#[test]
fn a_reload_opens_no_second_lane_for_a_key() {
    runtime!();
    let bench = bench("1000/1m");
    let store = sample::store([pair("a", "alice", slow("a"))]);
    let asking: Vec<_> = (0..8).map(|n| bench.ask(&record(&store, "a"), &format!("guess {n}"), HERE)).collect();
    store.apply(&document([pair("a", "alice", slow("b"))], []), &Terms::default(), Now::default());
    assert_eq!(answered(&mut bench.ask(&record(&store, "a"), "b", HERE)), Verdict::Overloaded);
    assert_eq!(asking.len(), 8);
}

#[test]
fn the_places_are_bounded_in_all() {
    runtime!();
    let mut bench = bench("1000/1m");
    bench.verifier = Verifier::without_threads(Settings { queue: 10, ..Settings::default() });
    let names: Vec<_> = (0..11).map(|number| format!("name-{number}")).collect();
    let store = sample::store(names.iter().map(|name| pair(name, name, slow(name))));
    let mut asking: Vec<_> = names.iter().map(|name| bench.ask(&record(&store, name), name, HERE)).collect();
    assert_eq!(answered(&mut asking[10]), Verdict::Overloaded);
    bench.drain();
    assert!(asking[..10].iter_mut().all(|asking| answered(asking) == Verdict::Right));
}

#[test]
fn no_more_guesses_are_tried_than_may_fail() {
    runtime!();
    let bench = bench("3/1m");
    let store = sample::store([pair("a", "alice", slow("right"))]);
    let record = record(&store, "a");
    let mut guesses: Vec<_> = (0..6).map(|guess| bench.ask(&record, &format!("guess {guess}"), HERE)).collect();
    let mut neighbour = bench.ask(&record, "right", THERE);
    // Three are in flight at once; a fourth would be one too many if they all fail.
    let mut tasks: Vec<_> = std::iter::from_fn(|| bench.begin()).collect();
    assert_eq!(tasks.len(), 4, "three guesses and the neighbour");
    tasks.drain(..).for_each(|task| bench.perform(task));
    let verdicts: Vec<_> = guesses.iter_mut().map(answered).collect();
    assert_eq!(verdicts[..3], [Verdict::Wrong, Verdict::Wrong, Verdict::Wrong]);
    assert!(verdicts[3..].iter().all(|verdict| matches!(verdict, Verdict::FailureLimit(_))));
    assert_eq!(answered(&mut neighbour), Verdict::Right);
    assert_eq!(bench.hashed(), [4, 0, 0, 0]);
    assert!(bench.exhausted(HERE) && !bench.exhausted(THERE));
    // Now the right secret is not looked at either, although it is known: guessing would go on at the speed of a digest.
    assert!(matches!(answered(&mut bench.ask(&record, "right", HERE)), Verdict::FailureLimit(_)));
    assert!(!bench.verifier.is_known(&record, &Secret::new(b"right")));
    assert_eq!(answered(&mut bench.ask(&record, "right", THERE)), Verdict::Right);
    assert_eq!(bench.hashed(), [4, 0, 0, 0]);
}

#[test]
fn who_passes_is_not_charged() {
    runtime!();
    let bench = bench("1/1m");
    let names: Vec<_> = (0..5).map(|number| format!("name-{number}")).collect();
    let store = sample::store(names.iter().map(|name| pair(name, name, slow(name))));
    for name in &names {
        let mut asking = bench.ask(&record(&store, name), name, HERE);
        bench.drain();
        assert_eq!(answered(&mut asking), Verdict::Right);
    }
    assert!(!bench.exhausted(HERE));
}

#[test]
fn who_hangs_up_while_he_waits_leaves_no_job() {
    runtime!();
    let bench = bench("1/1m");
    let store = sample::store([pair("a", "alice", slow("right"))]);
    let record = record(&store, "a");
    let (one, mut two) = (bench.ask(&record, "right", HERE), bench.ask(&record, "right", THERE));
    drop(one);
    assert_eq!(bench.queued(), 1, "another one waits");
    bench.drain();
    assert_eq!(answered(&mut two), Verdict::Right);
    drop(bench.ask(&record, "guess", HERE));
    assert_eq!(bench.queued(), 0);
    assert!(bench.begin().is_none() && bench.pool().desk().jobs.is_empty());
}

#[test]
fn who_hangs_up_while_it_is_hashed_is_charged() {
    runtime!();
    let bench = bench("1/1m");
    let store = sample::store([pair("a", "alice", slow("right"))]);
    let asking = bench.ask(&record(&store, "a"), "guess", HERE);
    let task = bench.begin().expect("a job");
    drop(asking);
    bench.perform(task);
    assert!(bench.exhausted(HERE));
    assert!(bench.pool().desk().jobs.is_empty());
}

#[test]
fn everybody_who_waits_for_a_wrong_secret_is_charged() {
    runtime!();
    let bench = bench("1/1m");
    let store = sample::store([pair("a", "alice", slow("right"))]);
    let record = record(&store, "a");
    let mut one = bench.ask(&record, "guess", HERE);
    let task = bench.begin().expect("a job");
    let mut two = bench.ask(&record, "guess", THERE);
    // The limit of this address is taken by the one in flight.
    assert!(matches!(answered(&mut bench.ask(&record, "guess", HERE)), Verdict::FailureLimit(_)));
    bench.perform(task);
    assert_eq!((answered(&mut one), answered(&mut two)), (Verdict::Wrong, Verdict::Wrong));
    assert!(bench.exhausted(HERE) && bench.exhausted(THERE));
}

#[test]
fn another_secret_for_a_known_machine_made_one_costs_no_hash() {
    runtime!();
    let bench = bench("2/1m");
    let store = sample::store([pair("m", MINTED, slow("right")), pair("h", "alice", slow("right"))]);
    let (machine, human) = (record(&store, "m"), record(&store, "h"));
    for record in [&machine, &human] {
        let mut asking = bench.ask(record, "right", HERE);
        bench.drain();
        assert_eq!(answered(&mut asking), Verdict::Right);
    }
    assert_eq!(answered(&mut bench.ask(&machine, "wrong", HERE)), Verdict::Wrong);
    assert_eq!(answered(&mut bench.ask(&machine, "wrong", HERE)), Verdict::Wrong);
    assert!(matches!(answered(&mut bench.ask(&machine, "wrong", HERE)), Verdict::FailureLimit(_)));
    assert_eq!(answered(&mut bench.ask(&machine, "right", HERE)), Verdict::Right, "a known caller passes all the same");
    assert_eq!(bench.hashed(), [2, 0, 0, 0]);
    // A name that somebody chose must cost what an unknown one costs.
    let mut asking = bench.ask(&human, "wrong", THERE);
    bench.drain();
    assert_eq!(answered(&mut asking), Verdict::Wrong);
    assert_eq!(bench.hashed(), [3, 0, 0, 0]);
}

#[test]
fn fast_hashes_and_monstrous_secrets_are_decided_at_once() {
    runtime!();
    let bench = bench("3/1m");
    let store = sample::store([pair("f", "bob", fast("right")), pair("s", "alice", slow("right"))]);
    let (record, slow) = (record(&store, "f"), record(&store, "s"));
    assert_eq!(answered(&mut bench.ask(&record, "wrong", HERE)), Verdict::Wrong);
    assert_eq!(answered(&mut bench.ask(&record, "right", HERE)), Verdict::Right);
    assert!(record.has_verified());
    assert_eq!(bench.hashed(), [0, 0, 2, 0]);
    let monster = "x".repeat(super::super::MAX_SECRET_BYTES + 1);
    assert_eq!(answered(&mut bench.ask(&slow, &monster, HERE)), Verdict::Wrong);
    assert_eq!(answered(&mut bench.ask(&record, &monster, HERE)), Verdict::Wrong);
    assert!(bench.exhausted(HERE));
}

#[test]
fn a_decoy_costs_a_hash_and_never_passes() {
    runtime!();
    let bench = bench("2/1m");
    let store = sample::store([pair("a", "alice", slow("right"))]);
    let alice = record(&store, "a");
    let secret = Secret::new(b"right");
    let decoys = [store.load().as_ref().unwrap().decoy(Kind::Pair, b"mallory"), Decoy::of(&alice)];
    for decoy in decoys {
        assert!(decoy.is_some());
        let mut asking: Asking<'_> = Box::pin(bench.verifier.refuse(decoy, &secret, bench.charge(HERE)));
        assert!(poll(&mut asking).is_pending());
        bench.drain();
        assert_eq!(answered(&mut asking), Verdict::Wrong);
    }
    assert_eq!(bench.hashed(), [0, 0, 0, 2]);
    assert!(!alice.has_verified(), "the secret was right, and the record was not to be used");
    assert!(bench.exhausted(HERE));
    let mut asking: Asking<'_> = Box::pin(bench.verifier.refuse(None, &secret, bench.charge(THERE)));
    assert_eq!(answered(&mut asking), Verdict::Wrong);
    assert_eq!(bench.hashed(), [0, 0, 0, 2]);
}

#[test]
fn who_waits_too_long_is_told_so() {
    let runtime = within_runtime();
    let mut bench = bench("20/1m");
    bench.verifier = Verifier::without_threads(Settings { wait: Duration::ZERO, ..Settings::default() });
    let store = sample::store([pair("a", "alice", slow("right"))]);
    let record = record(&store, "a");
    let verdict = runtime.block_on(bench.verifier.verify(&record, &Secret::new(b"right"), bench.charge(HERE)));
    assert_eq!(verdict, Verdict::Overloaded);
    assert_eq!(bench.queued(), 0);
    assert!(bench.pool().desk().jobs.is_empty() && !bench.exhausted(HERE));

    // One whose thread came too late is answered by the thread, without a hash.
    let (charge, secret) = (bench.charge(HERE), Secret::new(b"right"));
    let ticket = bench.verifier.pool.enqueue(Work::Verify(record), &secret, charge);
    let begun = bench.pool().begin(&mut bench.pool().desk(), clock::mono().plus(Duration::from_secs(1)));
    assert!(begun.is_none());
    let reply = ticket.map_err(|_| ()).expect("a place").reply.try_recv().map_err(|_| ());
    assert_eq!(reply, Ok(Verdict::Overloaded));
}

#[test]
fn what_has_begun_is_waited_for() {
    let runtime = within_runtime();
    let mut bench = bench("20/1m");
    bench.verifier = Verifier::without_threads(Settings { wait: Duration::from_millis(1), ..Settings::default() });
    let store = sample::store([pair("a", "alice", slow("right"))]);
    let record = record(&store, "a");
    let (secret, charge) = (Secret::new(b"right"), bench.charge(HERE));
    let mut asking = pin!(bench.verifier.verify(&record, &secret, charge));
    runtime.block_on(async {
        assert!(std::future::poll_fn(|cx| Poll::Ready(asking.as_mut().poll(cx).is_pending())).await);
        let task = bench.begin().expect("a job");
        // Time runs out while it is hashed.
        let early = tokio::time::timeout(Duration::from_millis(20), asking.as_mut()).await;
        assert!(early.is_err(), "it waits for the answer");
        bench.perform(task);
        assert_eq!(asking.await, Verdict::Right);
    });
}

#[test]
fn the_end_answers_those_who_wait_and_joins_the_threads() {
    let runtime = within_runtime();
    let bench = bench("20/1m");
    let store = sample::store([pair("a", "alice", slow("right"))]);
    let record = record(&store, "a");
    let entered = runtime.enter();
    let mut asking = bench.ask(&record, "right", HERE);
    bench.verifier.shut_down();
    assert_eq!(answered(&mut asking), Verdict::Overloaded);
    assert_eq!(answered(&mut bench.ask(&record, "right", HERE)), Verdict::Overloaded);
    drop(entered);

    let verifier = Verifier::start(Settings { threads: 3, ..Settings::default() }).expect("threads");
    assert_eq!(runtime.block_on(verifier.verify(&record, &Secret::new(b"right"), bench.charge(HERE))), Verdict::Right);
    assert_eq!(verifier.pool.threads.lock().unwrap().len(), 3);
    let pool = Arc::downgrade(&verifier.pool);
    drop(verifier);
    assert!(pool.upgrade().is_none(), "every thread has let go of it");
}

/// Revocation while slow verifications run: what a request decides after its wait never lets a key in that was revoked
/// before the request began.
#[test]
fn no_slow_verification_revives_a_revoked_key() {
    const KEYS: usize = 60;
    let names: Vec<_> = (0..KEYS).map(|number| format!("name-{number}")).collect();
    let rows: Vec<_> = names.iter().map(|name| pair(name, name, slow(name))).collect();
    let store = sample::store(rows.clone());
    let bench = bench("100000/1m");
    let verifier = Verifier::start(Settings { threads: 2, ..Settings::default() }).expect("threads");
    let returned: Vec<_> = names.iter().map(|_| AtomicBool::new(false)).collect();
    let (done, passed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let request = async |store: &KeyStore, name: &str| {
        // As the pipeline does it: find, verify, and look again after the wait.
        loop {
            let found = store.load().as_ref().and_then(|set| set.find_pair(name.as_bytes()).cloned());
            let Some(record) = found else { return false };
            if record.standing(Wall::default()) != Standing::Active || record.is_dead() {
                return false;
            }
            let verdict = verifier.verify(&record, &Secret::new(name.as_bytes()), bench.charge(HERE)).await;
            if store.is_current(&record) {
                return verdict == Verdict::Right;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = within_runtime();
                while !done.load(Ordering::Acquire) {
                    for (name, returned) in names.iter().zip(&returned) {
                        let was_revoked = returned.load(Ordering::Acquire);
                        let passes = runtime.block_on(request(&store, name));
                        assert!(!(was_revoked && passes), "{name}");
                        passed.fetch_add(usize::from(passes), Ordering::Relaxed);
                    }
                }
            });
        }
        let mut rows = rows;
        for (number, returned) in returned.iter().enumerate() {
            // Some do pass in every round, or this would prove nothing.
            let before = passed.load(Ordering::Relaxed);
            while passed.load(Ordering::Relaxed) == before {
                std::thread::yield_now();
            }
            // Each reload gives every key a new record with a hash of its own, so that all are verified anew.
            for row in &mut rows {
                row.hash = sample::slow_salted(row.name.as_ref(), number);
            }
            rows[number].revoked_at = Some(Wall::default());
            store.apply(&document(rows.clone(), []), &Terms::default(), Now::default());
            returned.store(true, Ordering::Release);
            rows[number].revoked_at = None;
        }
        done.store(true, Ordering::Release);
    });
    for name in &names {
        assert!(record(&store, name).is_dead());
    }
}
