//! What changes in a set without all of it being read again, and what stops at once.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use super::{Applied, Books, Builder, KeySet, KeyStore, Revocations, Rows, Terms};
use crate::{
    clock::Now,
    keys::{
        KeyId, KeyRecord, Kind, OwnerId,
        document::{KeyRow, OwnerRow},
        format,
        record::PublicPart,
        secret::Secret,
        set::{Entry, OwnerEntry},
    },
};

/// Rows that take the place of others with the same id; none: there is no such row any more.
#[derive(Debug, Default)]
pub struct Changes {
    /// Keys, in the order in which they changed.
    pub keys: Vec<(KeyId, Option<Arc<KeyRow>>)>,
    /// Owners, likewise.
    pub owners: Vec<(OwnerId, Option<Arc<OwnerRow>>)>,
    /// What the changes say of revocations.
    pub revoked: Revocations,
}

/// Who is to be cut off at once.
#[derive(Debug, Default)]
pub struct CutOff {
    /// Keys that are revoked, for ever.
    pub revoked: Revocations,
    /// Keys that are gone, or not accepted any more.
    pub keys: Vec<KeyId>,
    /// Owners who are suspended, with all of their keys.
    pub owners: Vec<OwnerId>,
}

impl KeyStore {
    /// Puts changes into force at the cost of what changed, and of a look at all keys where an owner did. None: these
    /// changes cannot be judged by themselves, and nothing was done; the whole document has to be applied.
    pub fn apply_changes(
        &self,
        changes: &Changes,
        terms: &Terms,
        now: Now,
        prepare: impl FnOnce(&KeySet),
    ) -> Option<Applied> {
        let mut books = self.books();
        let held = self.current.load_full()?;
        let current = &*held;
        // Of two changes of one id, the last holds.
        let keys: HashMap<&KeyId, Option<&Arc<KeyRow>>> =
            changes.keys.iter().map(|(id, row)| (id, row.as_ref())).collect();
        let owners: HashMap<&OwnerId, Option<&Arc<OwnerRow>>> =
            changes.owners.iter().map(|(id, row)| (id, row.as_ref())).collect();
        if !books.can_follow(current, &keys, terms) {
            return None;
        }
        let mut applied = Applied::default();
        for (id, at) in &changes.revoked {
            books.learn(id, *at, &mut applied.newly_revoked);
        }
        let set = books.follow(current, &keys, &owners, terms, now, &mut applied);
        prepare(&set);
        books.retired.extend(self.current.swap(Some(Arc::new(set))));
        drop(held);
        books.sweep(now.mono);
        Some(applied)
    }

    /// Stops these keys at once, before any set without them is built: no request that begins after this passes by them.
    /// A set that knows of it has to follow. Gives what was not known of revocations before, which is to be kept.
    pub fn cut_off(&self, cut: &CutOff) -> Revocations {
        let mut books = self.books();
        let mut new = Revocations::new();
        for (id, at) in &cut.revoked {
            books.learn(id, *at, &mut new);
        }
        let held = self.current.load();
        let Some(set) = held.as_deref() else { return new };
        for id in cut.revoked.keys().chain(&cut.keys) {
            if let Some(record) = set.by_id(id.as_str()) {
                record.state.dead.store(true, Ordering::Relaxed);
            }
        }
        if !cut.owners.is_empty() {
            for record in set.keys().filter(|record| cut.owners.contains(&record.owner.id)) {
                record.state.dead.store(true, Ordering::Relaxed);
            }
        }
        new
    }
}

impl Books {
    /// Whether these changes can be judged without the other rows.
    fn can_follow(&self, current: &KeySet, keys: &HashMap<&KeyId, Option<&Arc<KeyRow>>>, terms: &Terms) -> bool {
        let same_terms = self.mint.as_ref() == Some(&terms.mint)
            && self.pepper.as_deref().map(Secret::expose) == terms.pepper.as_ref().map(Secret::expose);
        if !self.plain || !current.is_clear() || !same_terms {
            return false;
        }
        // What a human chose has its part in what unknown names cost.
        let is_plain = |kind: Kind, public: &PublicPart| {
            matches!(public, PublicPart::Clear(text) if !text.is_empty())
                && format::is_machine_made(&terms.mint, kind, public)
        };
        let mut named = HashMap::new();
        keys.iter().all(|(id, row)| {
            let older = current.by_id(id.as_str());
            if older.is_some_and(|older| !is_plain(older.kind, &older.public)) {
                return false;
            }
            let Some(row) = row else { return true };
            if !is_plain(row.kind, &row.public) || row.hash.fits_pepper(terms.pepper.as_ref()).is_err() {
                return false;
            }
            let (PublicPart::Clear(text), Kind::Pair) = (&row.public, row.kind) else { return true };
            if row.revoked_at.is_some() || self.revoked.contains_key(*id) {
                return true;
            }
            // Two living pairs with one name: neither would be accepted.
            let others = current.pairs_of(text).iter();
            let mut others = others.filter(|other| other.revoked_at.is_none() && !keys.contains_key(&other.id));
            named.insert(text, *id).is_none() && others.next().is_none()
        })
    }

    /// The set that follows the current one.
    fn follow(
        &mut self,
        current: &KeySet,
        keys: &HashMap<&KeyId, Option<&Arc<KeyRow>>>,
        owners: &HashMap<&OwnerId, Option<&Arc<OwnerRow>>>,
        terms: &Terms,
        now: Now,
        applied: &mut Applied,
    ) -> KeySet {
        let suspended = |id: &OwnerId| match owners.get(id) {
            Some(row) => row.is_some_and(|row| row.suspended_at.is_some()),
            None => current.owner(id.as_str()).is_some_and(|owner| owner.suspended_at.is_some()),
        };
        let known = owners.keys().any(|id| current.owner(id.as_str()).is_some());
        // Keys whose owner changes, and not they themselves.
        let all = known.then(|| current.entries()).into_iter().flatten();
        let theirs = all.filter(|entry| owners.contains_key(&entry.row.owner));
        let theirs: Vec<_> = theirs.filter(|entry| !keys.contains_key(&entry.row.id)).map(|entry| &entry.row).collect();
        let cut = |applied: &mut Applied, record: &KeyRecord| {
            applied.cut_off += usize::from(!record.state.dead.swap(true, Ordering::Relaxed));
        };
        for (id, row) in keys {
            let stays = row.is_some_and(|row| !self.revoked.contains_key(&row.id) && !suspended(&row.owner));
            if let (Some(record), false) = (current.by_id(id.as_str()), stays) {
                cut(applied, record);
            }
        }
        for row in theirs.iter().filter(|row| suspended(&row.owner)) {
            if let Some(record) = current.by_id(row.id.as_str()) {
                cut(applied, record);
            }
        }

        self.revision += 1;
        let mut set = current.clone();
        set.revision = self.revision;
        let pepper = self.pepper(terms);
        let rows = Rows { keys: HashMap::default(), owners: HashMap::default(), ambiguous_owners: HashSet::default() };
        let mut builder = Builder { books: self, current: Some(current), rows: &rows, terms, pepper, now };
        for (id, row) in owners {
            let record = builder.owner(id, *row);
            set.insert_owner(OwnerEntry { record, row: row.map(Arc::clone) });
        }
        let changed: Vec<&Arc<KeyRow>> = keys.values().copied().flatten().collect();
        for row in changed.iter().copied().chain(theirs) {
            let owner = match set.owner_entry(row.owner.as_str()) {
                Some(entry) => Arc::clone(&entry.record),
                None => {
                    let record = builder.owner(&row.owner, None);
                    set.insert_owner(OwnerEntry { record: Arc::clone(&record), row: None });
                    record
                }
            };
            let (record, new) = builder.key(row, owner);
            applied.changed += usize::from(new);
            set.reindex(current.by_id(row.id.as_str()), Some(&record));
            if record.revoked_at.is_none() && record.owner.suspended_at.is_none() {
                // As in a set that is built anew: the one that requests see does not let it in yet.
                record.state.dead.store(false, Ordering::Relaxed);
            }
            set.insert(Entry { record, row: Arc::clone(row) });
        }
        for (id, _) in keys.iter().filter(|(_, row)| row.is_none()) {
            if let Some(record) = current.by_id(id.as_str()) {
                applied.removed += 1;
                set.reindex(Some(record), None);
                set.remove(id);
                self.departed_keys.keep(id, &record.state, now.mono);
            }
        }
        for (id, _) in owners.iter().filter(|(_, row)| row.is_none()) {
            if let Some(owner) = current.owner(id.as_str())
                && !set.keys().any(|record| record.owner.id == **id)
            {
                set.remove_owner(id);
                self.departed_owners.keep(id, &owner.state, now.mono);
            }
        }
        let revived = |row: &&&Arc<KeyRow>| row.revoked_at.is_none() && self.revoked.contains_key(&row.id);
        applied.revived = changed.iter().filter(revived).map(|row| row.id.clone()).collect();
        (applied.revision, applied.keys) = (set.revision, set.len());
        applied.owners = set.owners().filter(|owner| owner.listed).count();
        set
    }
}
