//! The fleet: which sidecars may be serving, what each has acknowledged, and what a revoke may therefore answer.
//!
//! A sidecar is *known* from before it is sent its first set until it says goodbye or its staleness limit has run out.
//! Whatever else is not known of it is taken for the worse: that it serves, and that it was told a moment ago that what it
//! has is the newest. Several control planes on one database share what they know by the store; what is on the disk there
//! is enough to go on after a crash.

mod keep;
mod latency;
mod member;
mod metrics;

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use self::{
    latency::Watched,
    member::{LINGER, Member},
};
use super::{
    ledger::Ledger,
    store::{Sidecar, StoreError},
};
use crate::clock::{self, Mono, Now, Wall};

/// For how many of the newest revisions it is remembered when they were written.
const REMEMBERED: usize = 1024;

/// Which sidecars may be serving, and what each has acknowledged.
pub struct Fleet {
    ledger: Arc<Ledger>,
    state: Mutex<State>,
    /// Changes with everything that a receipt may wait for.
    news: watch::Sender<u64>,
    /// There is something that other control planes should know soon.
    urgent: Notify,
    /// How many receipts are waiting.
    waiting: AtomicUsize,
    /// Somebody began to wait.
    wanted: Notify,
    /// When the newest look into the store began that succeeded, and that was taken in.
    looked: AtomicU64,
    /// Since when what was heard could not be written; 0: it can be.
    failing: AtomicU64,
    /// Told how long a revocation took.
    observer: OnceLock<Box<dyn Fn(Duration) + Send + Sync>>,
}

#[derive(Debug, Default)]
struct State {
    members: HashMap<String, Member>,
    /// When the newest revisions were written, as far as was seen here.
    written: VecDeque<(u64, Mono)>,
    /// Revocations that not all who are waited for have acknowledged.
    watched: Vec<Watched>,
}

/// Who takes a set, or follows changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The name that it gives itself.
    pub instance: String,
    /// From which address it asks.
    pub address: IpAddr,
    /// For how many seconds it serves methods that only read, after it was last told that what it has is the newest.
    pub max_stale: u64,
    /// The same for the others.
    pub max_stale_write: u64,
}

/// Which sidecars have acknowledged a revision, and which have not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The revision.
    pub revision: u64,
    /// Who has it in force.
    pub acknowledged: Vec<String>,
    /// Who may be serving without it.
    pub pending: Vec<Pending>,
    /// Who said goodbye without it, and would serve what is kept on their disk if they were started and could reach no
    /// control plane. Nobody waits for them.
    pub stopped: Vec<Pending>,
    /// Whether these are all. They are not when the store could not be asked for those of other control planes.
    pub complete: bool,
}

/// A sidecar that may be serving without a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its name.
    pub instance: String,
    /// When it was last heard.
    pub last_seen: Wall,
    /// Until when it may serve methods that only read.
    pub may_serve_reads_until: Wall,
    /// Until when it may serve the others.
    pub may_serve_writes_until: Wall,
}

/// A sidecar, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarView {
    /// What is known of it.
    pub sidecar: Sidecar,
    /// Whether it may be serving.
    pub known: bool,
    /// Whether a stream to it is open, at this control plane or at another.
    pub connected: bool,
    /// How many revisions it has not acknowledged.
    pub lag: u64,
    /// Until when it may serve methods that only read, by the set it has.
    pub may_serve_reads_until: Wall,
    /// Until when it may serve the others.
    pub may_serve_writes_until: Wall,
}

/// How the fleet is, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Sidecars that may be serving.
    pub known: u64,
    /// Of those, sidecars with a stream.
    pub connected: u64,
    /// How many revisions the last of those with a stream lacks.
    pub lag: u64,
}

/// A sidecar that is being sent a set or changes. Dropped when that has ended.
#[derive(Debug)]
pub struct Attached {
    fleet: Arc<Fleet>,
    instance: String,
    /// Its share in the member's count of streams.
    stream: Option<Arc<()>>,
    /// Whether what was handed over last has gone to the socket, as far as can be told.
    settled: bool,
}

impl Fleet {
    /// Nobody yet; [`load`](Self::load) reads who was known.
    pub fn new(ledger: Arc<Ledger>) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            state: Mutex::default(),
            news: watch::Sender::new(0),
            urgent: Notify::new(),
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
            looked: AtomicU64::new(0),
            failing: AtomicU64::new(0),
            observer: OnceLock::new(),
        })
    }

    /// Has every revocation's latency told to this: from its commit to the last acknowledgement of those that were waited
    /// for, also when that comes after the answer.
    pub fn observe_latency(&self, observer: impl Fn(Duration) + Send + Sync + 'static) {
        // Set once, when the control plane is composed.
        drop(self.observer.set(Box::new(observer)));
    }

    /// Registers who is about to be sent a set or changes: on the disk, before anything is read for it. So a receipt that
    /// does not name it was written before, and what it will be sent holds that.
    ///
    /// # Errors
    ///
    /// The store's own: then it must be sent nothing.
    pub async fn register(self: &Arc<Self>, asker: &Asker) -> Result<Attached, StoreError> {
        let now = clock::now();
        let known = self.lock().members.get(&asker.instance).map(|member| member.sidecar.clone());
        let sidecar = Sidecar {
            instance: asker.instance.clone(),
            address: Some(asker.address),
            first_seen: known.as_ref().map_or(now.wall, |known| known.first_seen),
            // Later than a goodbye, which this takes back.
            last_seen: known
                .as_ref()
                .map_or(now.wall, |known| now.wall.max(known.last_seen.plus(Duration::from_millis(1)))),
            confirmed_at: now.wall.plus(LINGER),
            max_stale: asker.max_stale,
            max_stale_write: asker.max_stale_write,
            revision: known.as_ref().map_or(0, |known| known.revision),
            durable: known.as_ref().is_some_and(|known| known.durable),
            seq: known.as_ref().map_or(0, |known| known.seq),
            goodbye: false,
        };
        let (store, row) = (Arc::clone(self.ledger.store()), sidecar.clone());
        self.ledger.run(async move { store.register(&row).await }).await?;
        let mut state = self.lock();
        let member =
            state.members.entry(asker.instance.clone()).or_insert_with(|| Member::new(sidecar.clone(), now.mono));
        member.merge(&sidecar, now.mono);
        member.registered = clock::mono();
        let attached = self.attached(member);
        drop(state);
        self.tell();
        Ok(attached)
    }

    /// As [`register`](Self::register), without the disk where it is known that this sidecar may be serving.
    ///
    /// # Errors
    ///
    /// The store's own.
    pub async fn attach(self: &Arc<Self>, asker: &Asker) -> Result<Attached, StoreError> {
        let now = clock::now();
        {
            let mut state = self.lock();
            if let Some(member) = state.members.get_mut(&asker.instance)
                && member.is_known(now.wall)
                && (member.sidecar.max_stale, member.sidecar.max_stale_write)
                    == (asker.max_stale, asker.max_stale_write)
            {
                member.moved = now.mono;
                member.sidecar.address = Some(asker.address);
                member.sidecar.last_seen = member.sidecar.last_seen.max(now.wall);
                member.sidecar.confirmed_at = member.sidecar.confirmed_at.max(now.wall.plus(LINGER));
                member.unsaved = true;
                let attached = self.attached(member);
                drop(state);
                self.tell();
                return Ok(attached);
            }
        }
        self.register(asker).await
    }

    /// Whether there is such a sidecar here; if not, the store is asked for it.
    pub async fn has(&self, instance: &str) -> bool {
        let here = || self.lock().members.contains_key(instance);
        here() || (self.look().await.is_ok() && here())
    }

    /// A sidecar was heard: it has this revision in force, if any is said.
    pub fn heard(&self, instance: &str, revision: Option<u64>, durable: bool, goodbye: bool) {
        let now = clock::now();
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(instance) else { return };
        let before = member.sidecar.clone();
        if let Some(revision) = revision {
            member.acknowledge(revision, durable, now.mono);
        }
        let own = &mut member.sidecar;
        own.last_seen = own.last_seen.max(now.wall);
        own.goodbye |= goodbye;
        member.unsaved = true;
        let urgent = own.revision > before.revision || own.goodbye != before.goodbye;
        let moved = own.revision;
        let gone = own.goodbye;
        let done = state.acknowledged(instance, moved, gone, now.mono);
        drop(state);
        self.observe(&done);
        if urgent {
            self.urgent.notify_one();
        }
        self.tell();
    }

    /// Waits until all who are waited for have acknowledged a revision, or for this long, and says who has.
    pub async fn receipt(&self, revision: u64, wait: Duration) -> Receipt {
        let began = clock::mono();
        let mut news = self.news.subscribe();
        let _waiting = self.wait_here();
        let _ = self.look().await;
        let done = self.lock().watch(revision, began);
        self.observe(&done);
        let deadline = tokio::time::sleep(wait);
        tokio::pin!(deadline);
        loop {
            news.borrow_and_update();
            let complete = self.looked.load(Ordering::Acquire) >= began.as_nanos();
            if complete && self.lock().awaited(revision, clock::now()).next().is_none() {
                break;
            }
            tokio::select! {
                // Fails only when the sender is gone, which is ours.
                _ = news.changed() => {}
                () = &mut deadline => break,
            }
        }
        let complete = self.looked.load(Ordering::Acquire) >= began.as_nanos();
        if !complete {
            tracing::error!(revision, "the store could not be asked which sidecars other control planes know");
        }
        self.lock().receipt(revision, clock::now().wall, complete)
    }

    /// All sidecars, by name.
    pub fn sidecars(&self) -> Vec<SidecarView> {
        let (head, now) = (self.ledger.read(|image| image.head().revision), clock::now().wall);
        let mut views: Vec<_> = self.lock().members.values().map(|member| view(member, head, now)).collect();
        views.sort_by(|one, other| one.sidecar.instance.cmp(&other.sidecar.instance));
        views
    }

    /// Changes with everything that is heard of sidecars.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// How the fleet is.
    pub fn count(&self) -> Counted {
        let mut counted = Counted::default();
        for view in self.sidecars().iter().filter(|view| view.known) {
            counted.known += 1;
            if view.connected {
                counted.connected += 1;
                counted.lag = counted.lag.max(view.lag);
            }
        }
        counted
    }

    /// Forgets a sidecar, since somebody says that it is gone. One that is not comes back by itself. False: there is none
    /// of this name.
    ///
    /// # Errors
    ///
    /// The store's own.
    pub async fn forget(&self, instance: &str) -> Result<bool, StoreError> {
        let (store, name) = (Arc::clone(self.ledger.store()), instance.to_owned());
        let kept = self.ledger.run(async move { store.forget(&name).await }).await?;
        let mut state = self.lock();
        let here = state.members.remove(instance).is_some();
        let done = state.acknowledged(instance, 0, true, clock::mono());
        drop(state);
        self.observe(&done);
        self.tell();
        Ok(kept || here)
    }

    fn attached(self: &Arc<Self>, member: &Member) -> Attached {
        let (instance, stream) = (member.sidecar.instance.clone(), Some(Arc::clone(&member.streams)));
        Attached { fleet: Arc::clone(self), instance, stream, settled: true }
    }

    fn observe(&self, done: &[(u64, Duration)]) {
        for (revision, latency) in done {
            tracing::info!(
                revision,
                latency_ms = latency.as_secs_f64() * 1000.0,
                "a revocation is in force everywhere"
            );
            if let Some(observer) = self.observer.get() {
                observer(*latency);
            }
        }
    }

    fn tell(&self) {
        self.news.send_modify(|news| *news += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names nobody: it may be many.
impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").finish_non_exhaustive()
    }
}

impl State {
    /// When the first revision after this one was written, if one was.
    fn written_after(&self, revision: u64, head: u64) -> Option<Mono> {
        if revision >= head {
            return None;
        }
        // What is not remembered was written before all that is.
        let later = self.written.iter().find(|(number, _)| *number > revision);
        Some(later.map_or(Mono::default(), |(_, at)| *at))
    }

    /// Who is waited for and has not acknowledged this revision.
    fn awaited(&self, revision: u64, now: Now) -> impl Iterator<Item = &Member> {
        self.members.values().filter(move |member| {
            let own = member.sidecar.revision;
            own < revision && member.is_awaited(now, self.written_after(own, revision))
        })
    }

    fn receipt(&self, revision: u64, now: Wall, complete: bool) -> Receipt {
        let (acknowledged, pending, stopped) = (Vec::new(), Vec::new(), Vec::new());
        let mut receipt = Receipt { revision, acknowledged, pending, stopped, complete };
        for member in self.members.values() {
            let (reads, writes) = member.may_serve_until(now);
            let late = || Pending {
                instance: member.sidecar.instance.clone(),
                last_seen: member.sidecar.last_seen,
                may_serve_reads_until: reads,
                may_serve_writes_until: writes,
            };
            match (member.is_known(now), member.sidecar.revision >= revision) {
                (true, true) => receipt.acknowledged.push(member.sidecar.instance.clone()),
                (true, false) => receipt.pending.push(late()),
                (false, false) if reads.max(writes) > now => receipt.stopped.push(late()),
                (false, _) => {}
            }
        }
        receipt.acknowledged.sort();
        for list in [&mut receipt.pending, &mut receipt.stopped] {
            list.sort_by(|one, other| one.instance.cmp(&other.instance));
        }
        receipt
    }
}

fn view(member: &Member, head: u64, now: Wall) -> SidecarView {
    let (reads, writes) = member.may_serve_until(now);
    SidecarView {
        sidecar: Sidecar { confirmed_at: member.confirmed_at(now), ..member.sidecar.clone() },
        known: member.is_known(now),
        connected: member.is_connected(now),
        lag: head.saturating_sub(member.sidecar.revision),
        may_serve_reads_until: reads,
        may_serve_writes_until: writes,
    }
}

impl Receipt {
    /// As the management API says it.
    pub fn to_json(&self) -> Value {
        let late = |late: &[Pending]| -> Vec<Value> {
            let one = |pending: &Pending| {
                json!({
                    "instance": pending.instance,
                    "last_seen": pending.last_seen.to_string(),
                    "may_serve_reads_until": pending.may_serve_reads_until.to_string(),
                    "may_serve_writes_until": pending.may_serve_writes_until.to_string(),
                })
            };
            late.iter().map(one).collect()
        };
        json!({
            "revision": self.revision,
            "acknowledged": self.acknowledged,
            "pending": late(&self.pending),
            "stopped": late(&self.stopped),
            "complete": self.complete,
        })
    }
}

impl Attached {
    /// Whether the sidecar is still one of the fleet: nobody has forgotten it.
    pub fn is_known(&self) -> bool {
        let state = self.fleet.lock();
        let member = state.members.get(&self.instance);
        member.zip(self.stream.as_ref()).is_some_and(|(member, own)| Arc::ptr_eq(&member.streams, own))
    }

    /// Something is handed to the socket that may tell it that its set is the newest.
    pub fn handing(&mut self) {
        self.settled = false;
        self.confirm();
    }

    /// The socket asks for more, so that all before has gone.
    pub fn handed(&mut self) {
        self.settled = true;
    }

    fn confirm(&self) {
        let now = clock::now().wall;
        if let Some(member) = self.fleet.lock().members.get_mut(&self.instance) {
            member.sidecar.confirmed_at = member.sidecar.confirmed_at.max(now.plus(LINGER));
            member.unsaved = true;
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if !self.settled {
            self.confirm();
        }
        self.stream = None;
        self.fleet.tell();
    }
}
