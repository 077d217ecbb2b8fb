//! The store: where the control plane keeps what must last. SQLite and PostgreSQL stand behind one trait and pass one
//! test suite.
//!
//! A [`Commit`] is one transaction. It names the [`Head`] that it was judged by, and is refused with
//! [`StoreError::Conflict`] when somebody else has written meanwhile; so revisions are handed out in the order of
//! commits, by however many control planes, and what was judged is what was true. Rows of keys and owners, the lines that
//! sidecars are sent, the audit entry and the new head are written together or not at all.
//!
//! What changes all the time and is judged by nobody (sessions seen, acknowledgements, use) has methods of its own, and
//! never touches the head.

mod accounts;
mod engine;
mod open;
mod postgres;
mod schema;
mod sql;
mod sqlite;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::{
    clock::Wall,
    keys::{
        KeyId, OwnerId,
        document::{KeyRow, OwnerRow},
    },
};

pub use accounts::{Operator, Role, Token};
pub use open::{Place, Settings, open};
pub(super) use schema::random;

/// The audit entry by which a new history begins with a copy of an old one.
pub const RESTORE: &str = "store.restore";
/// How many of those are looked at.
pub const RESTORES: u32 = 1000;
/// For so long after something was last handed to a sidecar it may at most tell it that its set is the newest.
pub const TOLD: Duration = Duration::from_secs(20);

/// What a store method gives, once it is awaited.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Where the history stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Names the history: random, made with the database.
    pub epoch: String,
    /// The number of transactions that changed keys or owners.
    pub revision: u64,
    /// Chained over the changes up to the revision.
    pub digest: String,
    /// The number of audit entries; every commit adds one.
    pub entries: u64,
    /// The hash of the last audit entry.
    pub hash: String,
}

/// A change of a key or an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A key was made, or changed.
    Key(Arc<KeyRow>),
    /// A key's row was removed.
    DeletedKey(KeyId),
    /// An owner was made, or changed.
    Owner(Arc<OwnerRow>),
    /// An owner's row was removed.
    DeletedOwner(OwnerId),
}

/// All changes of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Its number.
    pub revision: u64,
    /// Chained over all changes up to it.
    pub digest: String,
    /// When it was committed.
    pub at: Wall,
    /// What it changed, in order; never empty.
    pub changes: Vec<Change>,
}

/// An entry of the audit log, as it is written: one line of the hash chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 1, without gaps.
    pub seq: u64,
    /// When.
    pub at: Wall,
    /// Who: `operator:NAME`, `token:ID`, `key:ID` (by way of a sidecar), or `system`.
    pub actor: String,
    /// From which address, where that is known.
    pub from: Option<IpAddr>,
    /// What was done, such as `key.revoke`.
    pub action: String,
    /// To what: the id of a key, an owner, an operator.
    pub subject: String,
    /// What changed, without secrets.
    pub detail: Value,
    /// The revision that it made; none where no key or owner changed.
    pub revision: Option<u64>,
    /// SHA-256 over the entry before and this one; see [`audit`](super::audit).
    pub hash: String,
}

/// What a create was asked with, so that asking again makes nothing twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// SHA-256 of who asked and of the idempotency key, in hexadecimal.
    pub key: String,
    /// SHA-256 of what was asked, in hexadecimal.
    pub request: String,
    /// The key that was made.
    pub made: KeyId,
    /// When.
    pub at: Wall,
}

/// A change of who the operators are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountChange {
    /// An operator was added or changed, tokens included. Their sessions end unless only tokens changed, and with another
    /// password no browser of theirs is known any more.
    Operator(Operator),
    /// An operator was removed, with tokens and sessions.
    DeletedOperator(String),
}

/// One transaction. Where it begins a new history, with another epoch, every sidecar that has not said goodbye counts as
/// confirmed until then: what was written of it since the copy was made is not known.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The head that it was judged by.
    pub before: Head,
    /// The head that it makes. `entries` is one more; `revision` is one more if anything of `changes` is there.
    pub after: Head,
    /// What it changes of keys and owners.
    pub changes: Vec<Change>,
    /// What it changes of operators.
    pub accounts: Vec<AccountChange>,
    /// Its audit entry.
    pub entry: Entry,
    /// What it was asked with, where that is to be remembered.
    pub remembered: Option<Remembered>,
}

/// Everything that is judged by, at one head.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Where the history stands.
    pub head: Head,
    /// All owners.
    pub owners: Vec<Arc<OwnerRow>>,
    /// All keys.
    pub keys: Vec<Arc<KeyRow>>,
    /// All operators.
    pub operators: Vec<Operator>,
    /// The newest revisions, oldest first, as many as are kept: what sidecars may still ask for.
    pub revisions: Vec<Revision>,
    /// When a new history was last begun with a copy of an old one; none where that never was.
    pub restored_at: Option<Wall>,
}

/// What others have written since a head.
#[derive(Clone, Debug)]
pub struct Caught {
    /// Where the history stands now.
    pub head: Head,
    /// Whether the history holds the head that was named: if not, it is another one, or what was written is lost.
    pub follows: bool,
    /// The revisions since, oldest first and without gaps; none when they are no longer kept, so that everything has to be
    /// loaded anew.
    pub revisions: Option<Vec<Revision>>,
    /// All operators, as they are now.
    pub operators: Vec<Operator>,
}

/// A session of the admin pages.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// SHA-256 of the cookie's value, in hexadecimal.
    pub digest: String,
    /// Whose it is.
    pub operator: String,
    /// The secret that forms carry.
    pub csrf: String,
    /// When it began.
    pub created_at: Wall,
    /// When it was last used.
    pub seen_at: Wall,
}

/// Shows nothing that would let anybody in.
impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("operator", &self.operator).finish_non_exhaustive()
    }
}

/// Who speaks for a sidecar, and by what that is known.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Claim {
    /// The name that the sidecar gives itself, random for each start of the process.
    pub instance: String,
    /// What the name is bound to from its first registration on: `secret:` with the SHA-256 of a secret of its own, or the
    /// credential.
    pub bound: String,
    /// The credential that it came with: `token:` with the beginning of the SHA-256 of a token, or `certificate`.
    pub credential: String,
}

/// Shows no digest.
impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// What became of a report of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It was added.
    Now,
    /// A report of this number, or a later one, was added before.
    Before,
    /// The name is bound to somebody else.
    NotTheirs,
    /// Its number is so far ahead of the last one that it cannot be the next.
    Ahead,
    /// Nobody ever registered by this name.
    Unknown,
}

/// What is known of a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecar {
    /// Its name, and who may speak for it.
    pub claim: Claim,
    /// From which address it asks.
    pub address: Option<IpAddr>,
    /// When it took its first set.
    pub first_seen: Wall,
    /// When it was last heard.
    pub last_seen: Wall,
    /// The last moment at which something may have told it that its set is the newest.
    pub confirmed_at: Wall,
    /// For how many seconds after that it serves methods that only read.
    pub max_stale: u64,
    /// The same for the others.
    pub max_stale_write: u64,
    /// The history that the revision is of.
    pub epoch: String,
    /// The revision that it has acknowledged.
    pub revision: u64,
    /// Whether that is on its disk.
    pub durable: bool,
    /// The number of its last report of use.
    pub seq: u64,
    /// Whether it said goodbye.
    pub goodbye: bool,
}

/// The use of a key, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The last successful authentication.
    pub last_used_at: Option<Wall>,
    /// From which address.
    pub last_ip: Option<IpAddr>,
    /// Requests let through.
    pub allowed: u64,
    /// Requests refused after the key was recognised.
    pub refused: u64,
    /// The last refusal of each reason, the newest first, at most eight.
    pub refusals: Vec<Refusal>,
}

/// Refusals of a key for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, as the metric calls it.
    pub reason: String,
    /// When it happened last.
    pub at: Wall,
    /// From which address.
    pub ip: Option<IpAddr>,
    /// How often.
    pub count: u64,
}

/// What a sidecar reports of one key since its last report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// The key.
    pub key: KeyId,
    /// What to add, and what is newer.
    pub usage: Usage,
}

/// The use of a key on one day (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    /// Days since 1970-01-01.
    pub day: i64,
    /// Requests let through.
    pub allowed: u64,
    /// Requests refused.
    pub refused: u64,
}

/// Which audit entries are asked for: the newest first.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only entries before this number.
    pub before: Option<u64>,
    /// Only of this actor.
    pub actor: Option<String>,
    /// Only of this action, or of those that begin with it and a dot.
    pub action: Option<String>,
    /// Only of this subject.
    pub subject: Option<String>,
    /// How many at most.
    pub limit: u32,
}

/// What failed. Nothing was changed, but where it says otherwise.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else has written since; judge anew.
    #[error("somebody else has written meanwhile")]
    Conflict,
    /// There is no room on the disk.
    #[error("the store is full: {0}")]
    Full(String),
    /// It cannot be reached, or is busy for too long.
    #[error("the store cannot be used: {0}")]
    Unavailable(String),
    /// The connection broke while a commit was on its way: whether it was made is to be looked up.
    #[error("the store broke off while it wrote: {0}")]
    Unknown(String),
    /// It was written by a newer version.
    #[error(
        "the store has schema {found}, and this version knows {known} at most: run the version that wrote it, or a newer one"
    )]
    Newer {
        /// The schema that it has.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// It lacks what was written before: a part of the history is lost.
    #[error("the store went back in time: {0}")]
    Astray(String),
    /// It holds another history than the one that is served, and not one that was begun from that.
    #[error("the store is another one: {0}")]
    Another(String),
    /// What it holds is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
}

/// Where the control plane keeps what must last.
///
/// Whatever was asked runs to its end, on the runtime that the store was [opened](open) in, once its answer was awaited
/// for the first time. Whoever asks may be on another runtime, and may stop waiting: nothing is left half done. A caller
/// who stopped waiting for a commit knows as much of it as after [`StoreError::Unknown`].
pub trait Store: std::fmt::Debug + Send + Sync {
    /// Where the history stands now.
    fn head(&self) -> Answer<'_, Head>;
    /// Everything, read at one head.
    fn load(&self) -> Answer<'_, Loaded>;
    /// What was written since this head, read at one head.
    fn catch_up<'a>(&'a self, since: &'a Head) -> Answer<'a, Caught>;
    /// Writes a transaction; on the disk, and synced, when this returns.
    fn commit<'a>(&'a self, commit: &'a Commit) -> Answer<'a, ()>;
    /// Waits until another control plane may have written; what this one writes does not end it. A store that cannot tell
    /// waits for ever: whoever calls looks now and then, too. One waits at a time; what happens while nobody waits ends
    /// the next wait at once.
    fn changed(&self) -> BoxFuture<'_, ()>;

    /// Audit entries.
    fn audit<'a>(&'a self, filter: &'a AuditFilter) -> Answer<'a, Vec<Entry>>;
    /// Audit entries from this number on, oldest first, at most `limit`: for checking the chain.
    fn audit_from(&self, seq: u64, limit: u32) -> Answer<'_, Vec<Entry>>;
    /// What a create with this key came to, if one was made.
    fn remembered<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Remembered>>;
    /// Forgets creates before this moment, sessions seen before `idle` or begun before `oldest`, sidecars that were last
    /// confirmed before `sidecars`, and days of use before `day`.
    fn sweep(&self, creates: Wall, idle: Wall, oldest: Wall, sidecars: Wall, day: i64) -> Answer<'_, ()>;

    /// Sets the digest of the link by which the first operator sets themselves up. A later one takes its place.
    fn set_setup<'a>(&'a self, digest: &'a str) -> Answer<'a, ()>;
    /// Takes the link away, if it is the one with this digest: true for one caller alone.
    fn take_setup<'a>(&'a self, digest: &'a str) -> Answer<'a, bool>;
    /// Begins a session of this operator, as they were when their password was checked, and knows the browser with this
    /// digest as theirs until their password changes. `Conflict` when they have another role or password since, or are gone.
    fn add_session<'a>(&'a self, session: &'a Session, checked: &'a Operator, device: &'a str) -> Answer<'a, ()>;
    /// Whose browser has this digest: the operator who has signed in with it, at this moment or later.
    fn device<'a>(&'a self, digest: &'a str, since: Wall) -> Answer<'a, Option<String>>;
    /// The session with this digest.
    fn session<'a>(&'a self, digest: &'a str) -> Answer<'a, Option<Session>>;
    /// Notes that a session was used.
    fn see_session<'a>(&'a self, digest: &'a str, at: Wall) -> Answer<'a, ()>;
    /// Ends a session.
    fn end_session<'a>(&'a self, digest: &'a str) -> Answer<'a, ()>;

    /// What is known of all sidecars.
    fn sidecars(&self) -> Answer<'_, Vec<Sidecar>>;
    /// Notes that there is this sidecar, on the disk when this returns. What is known of it is merged as by `heard`. False:
    /// its name is bound to somebody else, and nothing was noted. Refused as by `heard`.
    fn register<'a>(&'a self, sidecar: &'a Sidecar, held: &'a Head) -> Answer<'a, bool>;
    /// Notes what was heard of sidecars that are registered; of others nothing: they were forgotten. A lower revision, an
    /// earlier moment or number than what is known changes nothing of it; a revision of the head's history is newer than any
    /// of another one. `seq` is not written: `used` alone does that. It need not be on the disk when this returns: what is
    /// lost is asked again. Tells other control planes.
    ///
    /// `held` is the head that the caller holds: refused with `Astray`, and nothing is noted, where the store has lost it,
    /// since then a revision that was acknowledged is another one than what will bear its number; and with `Another`, where
    /// it is the store of another installation.
    fn heard<'a>(&'a self, sidecars: &'a [Sidecar], held: &'a Head) -> Answer<'a, ()>;
    /// Forgets a sidecar, but for who may speak for it and the number of its last report. True if it was known.
    fn forget<'a>(&'a self, instance: &'a str) -> Answer<'a, bool>;
    /// Adds what a sidecar reports, once. The sidecar need not be known: what one reports that was forgotten is counted,
    /// and does not bring it back. A name that nobody ever registered has no use to report.
    fn used<'a>(&'a self, claim: &'a Claim, seq: u64, day: i64, used: &'a [Used]) -> Answer<'a, Added>;
    /// The use of all keys that was written since this mark, and the next mark; 0 begins. Some may come twice.
    fn usage_since(&self, mark: i64) -> Answer<'_, (Vec<(KeyId, Usage)>, i64)>;
    /// The use of a key, day by day, since this one.
    fn days<'a>(&'a self, key: &'a KeyId, since: i64) -> Answer<'a, Vec<Day>>;
    /// The use of all keys together, day by day, since this one.
    fn days_of_all(&self, since: i64) -> Answer<'_, Vec<Day>>;

    /// Ends it in good order, once nothing is under way any more. Without it nothing is lost.
    fn close(&self) -> BoxFuture<'_, ()>;
}
