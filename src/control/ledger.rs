//! The ledger: all owners, keys and operators in memory, at one head, and the one way to change them.
//!
//! Whoever wants a change hands over a judge: a function of the [`Image`] that says what to write, or refuses. The ledger
//! lets it judge, writes, and takes what was written into the image; when another control plane was quicker, it catches up
//! and lets it judge again. So a change is judged by exactly what it follows, and what readers see was written.

mod image;

use std::{
    mem::discriminant,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{runtime::Handle, sync::watch};

use super::{
    audit,
    store::{
        AccountChange, AuditFilter, Caught, Change, Commit, Entry, Head, RESTORE, RESTORES, Remembered, Revision,
        Store, StoreError,
    },
    wire,
};
use crate::clock::{self, Mono, Wall};

pub use self::image::{Image, KEPT};

/// How often the store is asked whether its newest revision is ours.
const CONFIRM: Duration = Duration::from_secs(1);
/// How often a change is judged anew because somebody else was quicker.
const ATTEMPTS: usize = 20;
/// For so long after the store was last heard, what is in memory is shown: as long as a sidecar believes a heartbeat.
const SHOWN: Duration = Duration::from_secs(15);
/// How often, and how long apart, it is looked up whether a commit that was never answered was made.
const LOOKS: usize = 6;
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Who asks for a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// `operator:NAME`, `token:ID`, `key:ID` or `system`.
    pub name: String,
    /// From which address.
    pub from: Option<IpAddr>,
}

/// What is to be written, with its audit entry.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// What was done, such as `key.create`.
    pub action: &'static str,
    /// To what.
    pub subject: String,
    /// What changed, without secrets.
    pub detail: Value,
    /// Keys and owners.
    pub changes: Vec<Change>,
    /// Operators.
    pub accounts: Vec<AccountChange>,
    /// What it was asked with.
    pub remembered: Option<Remembered>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written<T> {
    /// The head after it. Where nothing had to be written: the head that was judged by.
    pub head: Head,
    /// What the judge has to say.
    pub said: T,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<E> {
    /// The judge refused.
    #[error("refused")]
    Refused(E),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All owners, keys and operators, and the one way to change them.
#[derive(Debug)]
pub struct Ledger {
    store: Arc<dyn Store>,
    image: RwLock<Image>,
    /// One change at a time is judged and written.
    turn: tokio::sync::Mutex<()>,
    head: watch::Sender<Head>,
    /// Counts how often the store said that somebody else may have written.
    stirred: watch::Sender<u64>,
    /// When the store last said that its newest revision is ours.
    confirmed: AtomicU64,
    /// Why the store is not believed: it lacks what is in memory, or is another one.
    astray: Mutex<Option<StoreError>>,
    /// Where the store works.
    runtime: Handle,
}

impl Ledger {
    /// Loads everything. To be called on the runtime that the store works on.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub async fn open(store: Arc<dyn Store>) -> Result<Arc<Self>, StoreError> {
        let image = Image::new(store.load().await?);
        let head = watch::Sender::new(image.head().clone());
        Ok(Arc::new(Self {
            store,
            image: RwLock::new(image),
            turn: tokio::sync::Mutex::new(()),
            head,
            stirred: watch::Sender::new(0),
            confirmed: AtomicU64::new(clock::mono().as_nanos()),
            astray: Mutex::default(),
            runtime: Handle::current(),
        }))
    }

    /// The store itself, for what is judged by nobody. Only to be used on the runtime of [`run`](Self::run).
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Closes the store, once nothing is under way any more.
    pub async fn close(&self) {
        let store = Arc::clone(&self.store);
        let closed = self.runtime.spawn(async move { store.close().await });
        // A runtime that is going away has nothing left to close.
        drop(closed.await);
    }

    /// Runs a future on the store's runtime, to its end whatever becomes of the caller.
    ///
    /// # Errors
    ///
    /// The store's own, and `Unavailable` when the runtime is going away.
    pub async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.runtime.spawn(future).await.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }

    /// Reads the image. The reader must be quick: changes wait for it.
    pub fn read<T>(&self, read: impl FnOnce(&Image) -> T) -> T {
        read(&self.image.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The head, and every one that follows.
    pub fn follow(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    /// Changes whenever the store says that somebody else may have written anything at all.
    pub fn stirred(&self) -> watch::Receiver<u64> {
        self.stirred.subscribe()
    }

    /// Takes in what others have written until now: what is read afterwards is no older than this call.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub async fn refresh(self: &Arc<Self>) -> Result<(), StoreError> {
        let ledger = Arc::clone(self);
        self.run(async move { ledger.confirm().await }).await
    }

    /// Whether what is in memory may be shown, and acted on: the store was heard a moment ago, and holds it.
    ///
    /// # Errors
    ///
    /// As of [`holds`](Self::holds), and `Unavailable` when it was silent for longer than 15 seconds.
    pub fn usable(&self) -> Result<(), StoreError> {
        self.holds()?;
        match clock::mono().since(self.confirmed()) > SHOWN {
            true => {
                Err(StoreError::Unavailable("it does not answer, and others may have written meanwhile".to_owned()))
            }
            false => Ok(()),
        }
    }

    /// Whether the store holds all that is in memory, as far as is known.
    ///
    /// # Errors
    ///
    /// `Astray` when it has lost a part of it, and `Another` when it is another one.
    pub fn holds(&self) -> Result<(), StoreError> {
        let astray = self.astray.lock().unwrap_or_else(PoisonError::into_inner);
        astray.clone().map_or(Ok(()), Err)
    }

    /// When the store last said that its newest revision is ours.
    pub fn confirmed(&self) -> Mono {
        Mono::from_nanos(self.confirmed.load(Ordering::Acquire))
    }

    /// Lets a change be judged, and writes it. Where the judge gives no draft, nothing has to be written.
    ///
    /// Goes on to its end also when the caller does not wait for it.
    ///
    /// # Errors
    ///
    /// The judge refused, or the store failed; then nothing was written, unless it says [`StoreError::Unknown`].
    pub async fn write<T, E>(
        self: &Arc<Self>,
        actor: Actor,
        mut judge: impl FnMut(&Image, Wall) -> Result<(Option<Draft>, T), E> + Send + 'static,
    ) -> Result<Written<T>, WriteError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        self.write_once(actor, None, move |image, now, _| judge(image, now)).await
    }

    /// As [`write`](Self::write), for a change that may be asked for again by the same [key](Remembered::key): the judge is
    /// told what it came to before, as true as the image that it is shown.
    ///
    /// # Errors
    ///
    /// As of [`write`](Self::write).
    pub async fn write_once<T, E>(
        self: &Arc<Self>,
        actor: Actor,
        key: Option<String>,
        judge: impl FnMut(&Image, Wall, Option<&Remembered>) -> Result<(Option<Draft>, T), E> + Send + 'static,
    ) -> Result<Written<T>, WriteError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let ledger = Arc::clone(self);
        let written = self.runtime.spawn(async move { ledger.write_here(&actor, key.as_deref(), judge).await });
        written.await.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string()).into()))
    }

    /// Waits until the change that is being written, if there is one, is.
    pub async fn settle(&self) {
        drop(self.turn.lock().await);
    }

    async fn write_here<T, E>(
        &self,
        actor: &Actor,
        key: Option<&str>,
        mut judge: impl FnMut(&Image, Wall, Option<&Remembered>) -> Result<(Option<Draft>, T), E>,
    ) -> Result<Written<T>, WriteError<E>> {
        let _turn = self.turn.lock().await;
        for _ in 0..ATTEMPTS {
            // Whoever remembers something after this moves the head, and so the commit is refused.
            let known = match key {
                Some(key) => self.store.remembered(key).await?,
                None => None,
            };
            let now = clock::now().wall;
            let (before, judged) = self.read(|image| (image.head().clone(), judge(image, now, known.as_ref())));
            if !matches!(judged, Ok((Some(_), _))) && self.store.head().await? != before {
                // What is not written is not compared by the store either: another control plane may know better.
                self.catch_up().await?;
                continue;
            }
            let (draft, said) = judged.map_err(WriteError::Refused)?;
            let Some(draft) = draft else { return Ok(Written { head: before, said }) };
            let (commit, revision) = prepare(before, actor, draft, now)?;
            match self.store.commit(&commit).await {
                Ok(()) => {}
                Err(StoreError::Conflict) => {
                    self.catch_up().await?;
                    continue;
                }
                Err(StoreError::Unknown(why)) => {
                    if !self.was_made(&commit).await {
                        return Err(StoreError::Unknown(why).into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
            let head = commit.after.clone();
            self.take(|image| image.take(commit.after, revision, commit.accounts));
            return Ok(Written { head, said });
        }
        Err(StoreError::Unavailable("others write all the time; try again".to_owned()).into())
    }

    /// Begins a new history with what there is. To be called when an older copy of the store was put back on purpose:
    /// sidecars that have seen more of the old history would never take it. What they saw revoked stays so.
    ///
    /// # Errors
    ///
    /// The store's own, or the operating system gave no random bytes.
    pub async fn begin_anew(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let before = self.read(|image| image.head().clone());
        let actor = Actor { name: "system".to_owned(), from: None };
        let draft = Draft {
            action: RESTORE,
            detail: serde_json::json!({ "epoch": before.epoch, "revision": before.revision }),
            ..Draft::default()
        };
        let (mut commit, _) = prepare(before, &actor, draft, clock::now().wall)?;
        commit.after.epoch = super::store::random()?;
        self.store.commit(&commit).await?;
        self.take(|image| image.begin_anew(commit.after, commit.entry.at));
        Ok(())
    }

    /// Whether a commit that was never answered was made. What is not there may still be under way, so it is looked for
    /// several times; what stands in its place says that it never will be.
    async fn was_made(&self, commit: &Commit) -> bool {
        for _ in 0..LOOKS {
            match self.store.audit_from(commit.after.entries, 1).await {
                Ok(found) => {
                    if let Some(entry) = found.first() {
                        return entry.hash == commit.after.hash;
                    }
                }
                Err(error) => tracing::warn!(%error, "looking up whether a change was made"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        false
    }

    /// Takes in what others wrote, for as long as it is polled; and keeps asking whether what we have is the newest.
    pub async fn keep_up(&self) {
        let mut failing = false;
        loop {
            match self.confirm().await {
                Ok(()) if std::mem::take(&mut failing) => tracing::info!("the store can be used again"),
                Ok(()) => {}
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    tracing::error!(%error, "the store cannot be used: nothing can be changed, and sidecars hear no heartbeat");
                }
                Err(_) => {}
            }
            tokio::select! {
                () = self.store.changed() => self.stirred.send_modify(|times| *times += 1),
                () = tokio::time::sleep(CONFIRM) => {}
            }
        }
    }

    async fn confirm(&self) -> Result<(), StoreError> {
        let asked = clock::mono();
        let head = self.store.head().await?;
        if self.read(|image| *image.head() != head) {
            let _turn = self.turn.lock().await;
            self.catch_up().await?;
        } else {
            self.found();
        }
        self.confirmed.fetch_max(asked.as_nanos(), Ordering::AcqRel);
        Ok(())
    }

    /// To be called by whoever has the turn.
    async fn catch_up(&self) -> Result<(), StoreError> {
        let since = self.read(|image| image.head().clone());
        let Caught { head, follows, revisions, operators } = self.store.catch_up(&since).await?;
        if !follows && head.epoch == since.epoch {
            return Err(self.lost(&since, &head));
        }
        if head.epoch != since.epoch && !self.goes_on_from(&since.epoch).await? {
            return Err(self.another(&since, &head));
        }
        match revisions {
            Some(revisions) => self.take(|image| {
                image.follow(head, revisions, operators);
            }),
            None => {
                let loaded = self.store.load().await?;
                if loaded.head.epoch != since.epoch {
                    tracing::warn!(
                        was.epoch = since.epoch,
                        was.entries = since.entries,
                        now.epoch = loaded.head.epoch,
                        now.entries = loaded.head.entries,
                        "the store has a new history: it is taken, and sidecars take it"
                    );
                }
                self.take(|image| *image = Image::new(loaded));
            }
        }
        self.found();
        Ok(())
    }

    /// Whether the history in the store was begun with a copy of this one, by `--restored`.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub async fn goes_on_from(&self, epoch: &str) -> Result<bool, StoreError> {
        let filter = AuditFilter { action: Some(RESTORE.to_owned()), limit: RESTORES, ..AuditFilter::default() };
        let entries = self.store.audit(&filter).await?;
        Ok(entries.iter().any(|entry| entry.detail["epoch"] == epoch))
    }

    /// The store holds what is in memory, again or still.
    fn found(&self) {
        if self.astray.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            tracing::warn!("the store holds again what was written to it");
        }
    }

    /// The store has lost what is in memory. To go on with less would bring back what was revoked, under numbers that
    /// sidecars have seen with another meaning.
    fn lost(&self, held: &Head, found: &Head) -> StoreError {
        let why = format!(
            "it ends with audit entry {} and revision {}, and does not hold entry {} (revision {}), which was written to it, as \
             after a failover to a replica that lagged. Nothing is changed, no revoke is answered, and no sidecar is told \
             that its keys are the newest, until what was lost is back, or a control plane is started with --restored, which \
             begins a new history with what is left",
            found.entries, found.revision, held.entries, held.revision
        );
        self.go_astray(StoreError::Astray(why))
    }

    /// What is there is the store of another installation, as after a mistake with names or backups. Its keys are not ours.
    fn another(&self, held: &Head, found: &Head) -> StoreError {
        let why = format!(
            "it holds another history, {}, which was not begun from the one that is served, {}. Nothing is changed, no revoke \
             is answered, and no sidecar is told that its keys are the newest. Put the right database back; or start the \
             control plane anew, if this one is meant",
            found.epoch, held.epoch
        );
        self.go_astray(StoreError::Another(why))
    }

    fn go_astray(&self, why: StoreError) -> StoreError {
        let before = self.astray.lock().unwrap_or_else(PoisonError::into_inner).replace(why.clone());
        if before.is_none_or(|before| discriminant(&before) != discriminant(&why)) {
            tracing::error!("{why}");
        }
        why
    }

    fn take(&self, take: impl FnOnce(&mut Image)) {
        let head = {
            let mut image = self.image.write().unwrap_or_else(PoisonError::into_inner);
            take(&mut image);
            image.head().clone()
        };
        self.head.send_replace(head);
    }
}

/// The transaction of a draft.
fn prepare(
    before: Head,
    actor: &Actor,
    draft: Draft,
    now: Wall,
) -> Result<(Commit, Option<Arc<Revision>>), StoreError> {
    let Draft { action, subject, detail, changes, accounts, remembered } = draft;
    let revision = if changes.is_empty() {
        None
    } else {
        let revision = wire::revision(before.revision + 1, &before.digest, now, &changes)
            .map_err(|why| StoreError::Damaged(format!("this would not read back, so nothing was done: {why}")))?;
        Some(Arc::new(revision))
    };
    let mut entry = Entry {
        seq: before.entries + 1,
        at: now,
        actor: actor.name.clone(),
        from: actor.from,
        action: action.to_owned(),
        subject,
        detail,
        revision: revision.as_ref().map(|revision| revision.revision),
        hash: String::new(),
    };
    entry.hash = audit::hash(&before.hash, &entry);
    let mut after = Head { entries: entry.seq, hash: entry.hash.clone(), ..before.clone() };
    let mut changes = changes;
    if let Some(revision) = &revision {
        (after.revision, after.digest) = (revision.revision, revision.digest.clone());
        changes.clone_from(&revision.changes);
    }
    Ok((Commit { before, after, changes, accounts, entry, remembered }, revision))
}
