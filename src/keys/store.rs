//! The one place that holds the current key set, and how a new one takes its place.
//!
//! The order is what matters: first every key that is cut off is marked dead, so that requests which hold an older
//! version stop; then the new set is built, and then it takes the place of the old one. An id once seen revoked stays
//! so, whatever a later document says.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use foldhash::fast::RandomState;
use hmac::Mac as _;

use build::Builder;
pub use changes::{Changes, CutOff};

use super::{
    KeyId, KeyRecord, KeySet, KeyState, Kind, OwnerId, OwnerState, Revocations,
    document::{Document, KeyRow, OwnerRow},
    freshness::Freshness,
    mint,
    record::PublicPart,
    secret::Secret,
    set,
};
use crate::{
    clock::{Mono, Now, Wall},
    fault::Fault,
};

/// How many states of removed keys and of removed owners are kept. Beyond it the first removed go first; only whoever
/// writes the document can bring that about.
const MAX_DEPARTED: usize = 100_000;

/// What rows are read by, beside the document itself.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The shapes of minted keys: by them a machine-made secret is told from a human-chosen one.
    pub mint: mint::Settings,
    /// The pepper of `hmac-sha256`: keys that need it are set aside without it.
    pub pepper: Option<Secret>,
}

/// What an applied document came to.
#[derive(Debug, Default)]
pub struct Applied {
    /// The number of the new set, from 1.
    pub revision: u64,
    /// Keys in the set.
    pub keys: usize,
    /// Owners with a row.
    pub owners: usize,
    /// Records that were made anew.
    pub changed: usize,
    /// Keys that were in the set and no longer are.
    pub removed: usize,
    /// Keys that could be used until now and no longer can: revoked, removed, set aside, or of a suspended owner.
    pub cut_off: usize,
    /// What was not known of revocations before: to be kept in the saved state.
    pub newly_revoked: Revocations,
    /// Keys that are revoked although their rows do not say it: an older document took the place of a newer one.
    pub revived: Vec<KeyId>,
    /// Ids that are not accepted although their rows could be read.
    pub set_aside: Vec<KeyId>,
    /// Why they are not.
    pub faults: Vec<Fault>,
}

/// Holds the current set. Reading costs no lock and nothing on a second core.
#[derive(Debug, Default)]
pub struct KeyStore {
    current: arc_swap::ArcSwapOption<KeySet>,
    freshness: Freshness,
    /// Touched by whoever applies, never by a request.
    books: Mutex<Books>,
}

type Revoked = HashMap<KeyId, Option<Wall>, RandomState>;

/// What outlives a set.
#[derive(Debug, Default)]
struct Books {
    revision: u64,
    /// Every id ever seen revoked, with the first moment that was told. Only grows.
    revoked: Revoked,
    departed_keys: Departed<KeyId, KeyState>,
    departed_owners: Departed<OwnerId, OwnerState>,
    /// Replaced sets that a request was still reading.
    retired: Vec<Arc<KeySet>>,
    /// The shapes that the current records were judged by.
    mint: Option<mint::Settings>,
    /// The pepper that the current records are checked under.
    pepper: Option<Arc<Secret>>,
    /// Whether every row of the last document is in the set: what changes then can be judged by itself.
    plain: bool,
}

impl KeyStore {
    /// An empty store that knows these ids as revoked.
    pub fn new(revoked: impl IntoIterator<Item = (KeyId, Option<Wall>)>) -> Self {
        let books = Books { revoked: revoked.into_iter().collect(), ..Books::default() };
        Self { books: Mutex::new(books), ..Self::default() }
    }

    /// The current set; none until the first one was applied. Not to be held across an await.
    pub fn load(&self) -> arc_swap::Guard<Option<Arc<KeySet>>> {
        self.current.load()
    }

    /// Until when the set may be served.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Whether this record is the one that the current set has for its id, and not cut off. To be asked after every
    /// wait: what was decided by another version is void.
    pub fn is_current(&self, record: &Arc<KeyRecord>) -> bool {
        let set = self.current.load();
        let now = set.as_ref().and_then(|set| set.by_id(record.id.as_str()));
        now.is_some_and(|now| Arc::ptr_eq(now, record)) && !record.is_dead()
    }

    /// Puts the set of this document in place of the current one, revocations first.
    ///
    /// Never fails as a whole: a row that cannot be accepted is set aside, and its id is not accepted at all. Costs a
    /// pass over all rows, on the calling thread; rows that did not change keep their records.
    pub fn apply(&self, document: &Document, terms: &Terms, now: Now) -> Applied {
        self.apply_after(document, terms, now, |_| {})
    }

    /// As [`apply`](Self::apply); `prepare` sees the new set before any request does, to restore what was saved of it.
    pub fn apply_after(&self, document: &Document, terms: &Terms, now: Now, prepare: impl FnOnce(&KeySet)) -> Applied {
        let mut books = self.books();
        let held = self.current.load_full();
        let current = held.as_deref();
        let mut applied = Applied::default();

        books.revoke(document, current, &mut applied);
        let rows = Rows::select(document, terms, &books.revoked, &mut applied);
        cut_off(current, &rows, &mut applied);

        let pepper = books.pepper(terms);
        let set = Builder { books: &mut books, current, rows: &rows, terms, pepper, now }.build(document, &mut applied);
        for record in set.keys() {
            // A suspension was lifted, or a removed key is back. The set that requests see does not let it in yet, or
            // does not have it, so nothing is let through early.
            if record.revoked_at.is_none() && record.owner.suspended_at.is_none() {
                record.state.dead.store(false, Ordering::Relaxed);
            }
        }
        if let Some(current) = current {
            applied.removed = books.depart(current, &set, now.mono);
        }
        prepare(&set);
        books.mint = Some(terms.mint.clone());
        books.plain = applied.set_aside.is_empty() && rows.ambiguous_owners.is_empty();
        books.retired.extend(self.current.swap(Some(Arc::new(set))));
        drop(held);
        books.sweep(now.mono);
        applied
    }

    /// All ids ever seen revoked, in order.
    pub fn revoked(&self) -> Vec<KeyId> {
        let mut revoked: Vec<_> = self.books().revoked.keys().cloned().collect();
        revoked.sort_unstable();
        revoked
    }

    /// Drops what is no longer needed: replaced sets that nobody reads, states of removed keys whose windows ran out.
    /// To be called now and then, on the thread that applies: dropping a large set takes milliseconds.
    pub fn sweep(&self, now: Now) {
        self.books().sweep(now.mono);
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // A panic while applying leaves the old set in force and the books at worst with an id too many.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// Learns what the document says is revoked, and cuts it off at once.
    fn revoke(&mut self, document: &Document, current: Option<&KeySet>, applied: &mut Applied) {
        let rows = document.keys.iter().filter(|row| row.revoked_at.is_some()).map(|row| (&row.id, row.revoked_at));
        for (id, at) in document.revoked.iter().map(|(id, at)| (id, *at)).chain(rows) {
            // A state folder of an older build knows no moments: they are learnt while a row still tells them.
            self.learn(id, at, &mut applied.newly_revoked);
        }
        let revived = |row: &&Arc<KeyRow>| {
            row.revoked_at.is_none() && self.revoked.contains_key(&row.id) && !document.revoked.contains_key(&row.id)
        };
        applied.revived = document.keys.iter().filter(revived).map(|row| row.id.clone()).collect();
        for record in current.into_iter().flat_map(KeySet::keys) {
            if self.revoked.contains_key(&record.id) {
                applied.cut_off += usize::from(!record.state.dead.swap(true, Ordering::Relaxed));
            }
        }
    }

    /// Learns that a key is revoked; what was not known before goes to `new`.
    fn learn(&mut self, id: &KeyId, at: Option<Wall>, new: &mut Revocations) {
        if self.revoked.get(id).is_none_or(|held| held.is_none() && at.is_some()) {
            self.revoked.insert(id.clone(), at);
            new.insert(id.clone(), at);
        }
    }

    /// The pepper of these terms: the one that records have already, if it is the same.
    fn pepper(&mut self, terms: &Terms) -> Option<Arc<Secret>> {
        let held = self.pepper.take();
        self.pepper = terms.pepper.as_ref().map(|pepper| match held {
            Some(held) if held.expose() == pepper.expose() => held,
            _ => Arc::new(pepper.clone()),
        });
        self.pepper.clone()
    }

    /// Keeps the states of what the new set no longer has; returns how many keys that are.
    fn depart(&mut self, current: &KeySet, set: &KeySet, now: Mono) -> usize {
        let mut removed = 0;
        for record in current.keys().filter(|record| set.by_id(record.id.as_str()).is_none()) {
            removed += 1;
            self.departed_keys.keep(&record.id, &record.state, now);
        }
        for owner in current.owners().filter(|owner| set.owner(owner.id.as_str()).is_none()) {
            self.departed_owners.keep(&owner.id, &owner.state, now);
        }
        removed
    }

    fn sweep(&mut self, now: Mono) {
        // A replaced set that nobody reads any more can have no new reader, so the last count is ours to drop.
        self.retired.retain(|set| Arc::strong_count(set) > 1);
        self.departed_keys.sweep(|state| state.meter.is_spent(now));
        self.departed_owners.sweep(|state| state.meter.is_spent(now));
    }
}

/// Marks what the selected rows no longer let in, before anything else is built.
fn cut_off(current: Option<&KeySet>, rows: &Rows<'_>, applied: &mut Applied) {
    for record in current.into_iter().flat_map(KeySet::keys) {
        let stays = rows.keys.get(&record.id).is_some_and(|row| !rows.is_suspended(&row.owner));
        if !stays {
            applied.cut_off += usize::from(!record.state.dead.swap(true, Ordering::Relaxed));
        }
    }
}

/// The states of what was removed, for it may come back: removing and adding a key again gives no fresh allowance.
#[derive(Debug)]
struct Departed<I, S>(HashMap<I, (Arc<S>, Mono), RandomState>);

impl<I, S> Default for Departed<I, S> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<I: Clone + Eq + std::hash::Hash, S: Default> Departed<I, S> {
    fn keep(&mut self, id: &I, state: &Arc<S>, now: Mono) {
        self.0.insert(id.clone(), (Arc::clone(state), now));
    }

    /// The state that an id had, else a new one.
    fn state(&mut self, id: &I) -> Arc<S> {
        self.0.remove(id).map(|(state, _)| state).unwrap_or_default()
    }

    fn sweep(&mut self, is_spent: impl Fn(&S) -> bool) {
        // A state that somebody else holds is in use by a request, which may yet take from it.
        self.0.retain(|_, (state, _)| Arc::strong_count(state) > 1 || !is_spent(state));
        if self.0.len() > MAX_DEPARTED {
            let mut removed_at: Vec<_> = self.0.values().map(|(_, at)| *at).collect();
            removed_at.sort_unstable();
            let since = removed_at[removed_at.len() - MAX_DEPARTED];
            self.0.retain(|_, (_, at)| *at >= since);
        }
    }
}

/// The rows that are accepted.
struct Rows<'d> {
    keys: HashMap<KeyId, &'d Arc<KeyRow>, RandomState>,
    owners: HashMap<OwnerId, &'d Arc<OwnerRow>, RandomState>,
    /// Owners with two rows: which one holds nobody knows, so their keys wait.
    ambiguous_owners: HashSet<OwnerId, RandomState>,
}

impl<'d> Rows<'d> {
    fn select(document: &'d Document, terms: &Terms, revoked: &Revoked, applied: &mut Applied) -> Self {
        let mut rows =
            Self { keys: HashMap::default(), owners: HashMap::default(), ambiguous_owners: HashSet::default() };
        for row in &document.owners {
            if rows.owners.insert(row.id.clone(), row).is_some() && rows.ambiguous_owners.insert(row.id.clone()) {
                let id = &row.id;
                applied.faults.push(Fault::error(format!("two owners have the id {id}: its keys are not accepted")));
            }
        }
        let mut aside = HashSet::<KeyId, RandomState>::default();
        for row in &document.keys {
            if rows.keys.insert(row.id.clone(), row).is_some() && aside.insert(row.id.clone()) {
                let id = &row.id;
                applied.faults.push(Fault::error(format!("two keys have the id {id}: neither is accepted")));
            }
            let empty = matches!(&row.public, PublicPart::Clear(text) if text.is_empty());
            let fault =
                if empty { Err("has an empty public part") } else { row.hash.fits_pepper(terms.pepper.as_ref()) };
            if let Err(fault) = fault
                && aside.insert(row.id.clone())
            {
                applied.faults.push(Fault::error(format!("the key {} {fault}: it is not accepted", row.id)));
            }
        }
        same_public_part(document, revoked, &mut aside, applied);
        // What the document itself set aside is not accepted, whatever else it lists.
        let unread: HashSet<&KeyId, RandomState> = document.set_aside.iter().collect();
        rows.keys.retain(|id, _| !aside.contains(id) && !unread.contains(id));
        applied.set_aside.extend(aside);
        applied.set_aside.sort_unstable();
        rows
    }

    fn is_suspended(&self, owner: &OwnerId) -> bool {
        self.ambiguous_owners.contains(owner) || self.owners.get(owner).is_some_and(|row| row.suspended_at.is_some())
    }
}

/// Sets aside pairs that share a consumer key: which of them is meant, nobody can say. A revoked one does not count; a
/// name may be given anew.
fn same_public_part(
    document: &Document,
    revoked: &Revoked,
    aside: &mut HashSet<KeyId, RandomState>,
    applied: &mut Applied,
) {
    let living = || document.keys.iter().filter(|row| row.kind == Kind::Pair && !revoked.contains_key(&row.id));
    let mut seen = HashMap::<&PublicPart, &KeyId, RandomState>::default();
    let mut clashes = Vec::new();
    let mut digest_keys = Vec::<&str>::new();
    for row in living() {
        if let PublicPart::Digest { key, .. } = &row.public
            && !digest_keys.contains(&&**key)
        {
            digest_keys.push(key);
        }
        clashes.extend(seen.insert(&row.public, &row.id).map(|other| (other, &row.id)));
    }
    for key in digest_keys {
        // The same consumer key, in clear in one row and by its digest in another.
        let mac = set::mac(key);
        for row in living() {
            if let PublicPart::Clear(text) = &row.public {
                let digest = mac.clone().chain_update(text.as_bytes()).finalize().into_bytes().into();
                let digested = PublicPart::Digest { key: key.into(), digest };
                clashes.extend(seen.get(&digested).map(|other| (*other, &row.id)));
            }
        }
    }
    for (one, other) in clashes.into_iter().filter(|(one, other)| one != other) {
        applied
            .faults
            .push(Fault::error(format!("the keys {one} and {other} have the same public part: neither is accepted")));
        aside.extend([one.clone(), other.clone()]);
    }
}

mod build;
mod changes;
#[cfg(test)]
mod tests;
