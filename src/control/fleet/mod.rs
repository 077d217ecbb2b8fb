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
mod receipt;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize},
    },
    time::Duration,
};

use tokio::sync::{Notify, watch};

pub use self::receipt::{Gap, Pending, Receipt};
use self::{
    latency::Watched,
    member::{BELIEVED, LINGER, Member},
};
use super::{
    ledger::Ledger,
    store::{Claim, Head, Sidecar, StoreError},
};
use crate::clock::{self, Mono, Now, Wall};

/// For how many of the newest revisions it is remembered when they were written.
const REMEMBERED: usize = 1024;
/// How many sidecars of one credential may be serving, and how many are remembered, those that have ended included.
const MOST_SERVING: usize = 10_000;
const MOST: usize = 50_000;

/// Which sidecars may be serving, and what each has acknowledged.
pub struct Fleet {
    ledger: Arc<Ledger>,
    max_stale: Duration,
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
    /// Whether what was heard could not be written.
    failing: AtomicBool,
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
    /// The newest revisions that were watched: each is measured once.
    measured: VecDeque<u64>,
}

/// Who takes a set, or follows changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The name that it gives itself, and by what it is known to be its own.
    pub claim: Claim,
    /// Those in whose place it is, each with what it would be bound to: processes that held its state folder before it.
    pub replaces: Vec<(String, String)>,
    /// From which address it asks.
    pub address: IpAddr,
    /// For how many seconds it serves methods that only read, after it was last told that what it has is the newest.
    pub max_stale: u64,
    /// The same for the others.
    pub max_stale_write: u64,
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
    /// Whether it is there: it has a stream, or was heard a moment ago and has not said goodbye since; and has not let
    /// revisions go by for a minute.
    pub lives: bool,
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

/// Why a sidecar is not registered.
#[derive(Debug, thiserror::Error)]
pub enum NotRegistered {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The name is bound to somebody else.
    #[error("the instance belongs to another sidecar")]
    NotTheirs,
    /// There are too many of this credential.
    #[error("too many sidecars came with this credential")]
    TooMany,
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
    /// Nobody yet; [`load`](Self::load) reads who was known. No sidecar serves longer than `max_stale` without a word.
    pub fn new(ledger: Arc<Ledger>, max_stale: Duration) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            max_stale,
            state: Mutex::default(),
            news: watch::Sender::new(0),
            urgent: Notify::new(),
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
            looked: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            observer: OnceLock::new(),
        })
    }

    /// Registers who is about to be sent a set or changes: on the disk, before anything is read for it. So a receipt that
    /// does not name it was written before, and what it will be sent holds that.
    ///
    /// # Errors
    ///
    /// The store's own, or it is not believed: then it must be sent nothing.
    pub async fn register(self: &Arc<Self>, asker: &Asker) -> Result<Attached, NotRegistered> {
        self.ledger.holds()?;
        let now = clock::now();
        let known = self.lock().admit(&asker.claim, now.wall)?;
        let sidecar = Sidecar {
            claim: asker.claim.clone(),
            address: Some(asker.address),
            first_seen: known.as_ref().map_or(now.wall, |known| known.first_seen),
            // Later than a goodbye, which this takes back.
            last_seen: known
                .as_ref()
                .map_or(now.wall, |known| now.wall.max(known.last_seen.plus(Duration::from_millis(1)))),
            confirmed_at: now.wall.plus(LINGER),
            max_stale: asker.max_stale,
            max_stale_write: asker.max_stale_write,
            epoch: known.as_ref().map_or_else(String::new, |known| known.epoch.clone()),
            revision: known.as_ref().map_or(0, |known| known.revision),
            durable: known.as_ref().is_some_and(|known| known.durable),
            seq: known.as_ref().map_or(0, |known| known.seq),
            goodbye: false,
        };
        let (store, row) = (Arc::clone(self.ledger.store()), sidecar.clone());
        let head = self.ledger.read(|image| image.head().clone());
        if !self.ledger.run(async move { store.register(&row, &head).await }).await? {
            return Err(NotRegistered::NotTheirs);
        }
        let attached = {
            let mut state = self.lock();
            let name = asker.claim.instance.clone();
            let member = state.members.entry(name).or_insert_with(|| Member::new(sidecar.clone(), now.mono));
            member.merge(&sidecar, &sidecar.epoch, now.mono);
            member.leased = member.leased.max(sidecar.confirmed_at);
            member.sidecar.claim = sidecar.claim;
            (member.registered, member.replaced) = (clock::mono(), false);
            self.attached(member)
        };
        self.replace(asker).await;
        self.tell();
        Ok(attached)
    }

    /// As [`register`](Self::register), without the disk where it is known that this sidecar may be serving.
    ///
    /// # Errors
    ///
    /// The same.
    pub async fn attach(self: &Arc<Self>, asker: &Asker) -> Result<Attached, NotRegistered> {
        self.ledger.holds()?;
        let now = clock::now();
        // Whose place it takes has to be noted, too.
        if asker.replaces.is_empty() {
            let mut state = self.lock();
            if let Some(member) = state.members.get_mut(&asker.claim.instance)
                && member.sidecar.claim == asker.claim
                && member.is_known(now.wall)
                && member.leased >= now.wall.plus(BELIEVED)
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

    /// Whether whoever claims a name may speak for it, as far as is known here.
    pub fn is_theirs(&self, claim: &Claim) -> bool {
        let state = self.lock();
        state.members.get(&claim.instance).is_none_or(|member| member.sidecar.claim.bound == claim.bound)
    }

    /// A sidecar was heard: it has this revision in force, if any is said. It must be [its own](Self::is_theirs) word.
    pub fn heard(&self, instance: &str, revision: Option<(&str, u64)>, durable: bool, goodbye: bool) {
        let now = clock::now();
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(instance) else { return };
        let before = member.sidecar.clone();
        if let Some((epoch, revision)) = revision {
            member.acknowledge(epoch, revision, durable, now.mono);
        }
        member.speaks(goodbye, now.wall);
        let own = &member.sidecar;
        let urgent = (&own.epoch, own.revision) != (&before.epoch, before.revision) || own.goodbye != before.goodbye;
        let (epoch, moved, gone) = (own.epoch.clone(), own.revision, own.goodbye);
        let done = state.acknowledged(instance, (&epoch, moved), gone, now.mono);
        drop(state);
        self.observe(&done);
        if urgent {
            self.urgent.notify_one();
        }
        self.tell();
    }

    /// All sidecars, by name.
    pub fn sidecars(&self) -> Vec<SidecarView> {
        let (head, now) = (self.ledger.read(|image| image.head().clone()), clock::now());
        let state = self.lock();
        let since = |member: &Member| state.written_after(member.revision(&head.epoch), head.revision);
        let mut views: Vec<_> = state.members.values().map(|member| member.view(&head, now, since(member))).collect();
        drop(state);
        views.sort_by(|one, other| one.sidecar.claim.instance.cmp(&other.sidecar.claim.instance));
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
        let done = state.acknowledged(instance, ("", 0), true, clock::mono());
        drop(state);
        self.observe(&done);
        self.tell();
        Ok(kept || here)
    }

    /// Forgets those in whose place somebody is: their processes have ended, since one process at a time holds a state
    /// folder. Whoever follows here all the same is forgotten when its stream ends: a crash shows a moment later.
    async fn replace(&self, asker: &Asker) {
        for (instance, bound) in &asker.replaces {
            if *instance == asker.claim.instance || !self.has(instance).await {
                continue;
            }
            let follows = {
                let mut state = self.lock();
                let Some(member) = state.members.get_mut(instance) else { continue };
                if member.sidecar.claim.bound != *bound {
                    tracing::warn!(
                        instance,
                        by = asker.claim.instance,
                        "a sidecar names a predecessor that is not its own"
                    );
                    continue;
                }
                (member.replaced, member.sidecar.goodbye, member.unsaved) = (true, true, true);
                member.has_stream()
            };
            tracing::info!(instance, by = asker.claim.instance, "a sidecar has taken the place of one that ended");
            // It is tried again by whoever keeps the fleet.
            if !follows && let Err(error) = self.forget(instance).await {
                tracing::warn!(%error, instance, "a sidecar that was replaced could not be forgotten yet");
            }
        }
    }

    /// Forgets those that were replaced, and follow no longer.
    pub(super) async fn forget_replaced(&self) {
        let gone = |member: &&Member| member.replaced && !member.has_stream();
        let name = |member: &Member| member.sidecar.claim.instance.clone();
        let names: Vec<String> = self.lock().members.values().filter(gone).map(name).collect();
        for instance in names {
            // It may have been heard while another one was forgotten.
            if self.lock().members.get(&instance).as_ref().is_some_and(gone) {
                // The ledger says why a store cannot be used.
                let _ = self.forget(&instance).await;
            }
        }
    }

    fn attached(self: &Arc<Self>, member: &Member) -> Attached {
        let (instance, stream) = (member.sidecar.claim.instance.clone(), Some(Arc::clone(&member.streams)));
        Attached { fleet: Arc::clone(self), instance, stream, settled: true }
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
    /// What is known of whoever wants to register, if it may.
    fn admit(&self, claim: &Claim, now: Wall) -> Result<Option<Sidecar>, NotRegistered> {
        if let Some(member) = self.members.get(&claim.instance) {
            let theirs = member.sidecar.claim.bound == claim.bound;
            return theirs.then(|| Some(member.sidecar.clone())).ok_or(NotRegistered::NotTheirs);
        }
        let (mut serving, mut all) = (0, 0);
        for member in self.members.values().filter(|member| member.sidecar.claim.credential == claim.credential) {
            all += 1;
            serving += usize::from(member.is_known(now));
        }
        if serving >= MOST_SERVING || all >= MOST { Err(NotRegistered::TooMany) } else { Ok(None) }
    }

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
    fn awaited(&self, epoch: &str, revision: u64, now: Now) -> impl Iterator<Item = &Member> {
        self.members.values().filter(move |member| {
            let own = member.revision(epoch);
            own < revision && member.is_awaited(now, self.written_after(own, revision))
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

    /// Whether it may be told that its set is the newest: other control planes, and this one after a restart, will know
    /// that it was, since the store holds already that it may be served for as long as that is believed. Where it does
    /// not yet, it is noted, and the next time it may.
    pub fn may_confirm(&self) -> bool {
        let now = clock::now().wall;
        let leased = self.fleet.lock().members.get(&self.instance).map(|member| member.leased);
        let may = leased.is_some_and(|leased| leased >= now.plus(BELIEVED));
        if !may {
            self.confirm();
        }
        may
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
