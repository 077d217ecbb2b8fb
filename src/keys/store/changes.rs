//! What changes in a set without all of it being read again, and what stops at once.

use std::sync::{Arc, atomic::Ordering};

use super::{Applied, KeySet, KeyStore, Revocations, Terms};
use crate::{
    clock::Now,
    keys::{
        KeyId, OwnerId,
        document::{KeyRow, OwnerRow},
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
    /// Puts changes into force without reading all of the set again. None: these changes need that, and nothing was done.
    pub fn apply_changes(
        &self,
        _changes: &Changes,
        _terms: &Terms,
        _now: Now,
        _prepare: impl FnOnce(&KeySet),
    ) -> Option<Applied> {
        None
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
