//! Making a set of rows.

use std::sync::{Arc, atomic::Ordering};

use super::{Applied, Books, Document, Rows, Terms};
use crate::{
    clock::{Now, Wall},
    keys::{
        KeyRecord, KeySet, OwnerId, OwnerRecord, Since,
        document::{KeyRow, OwnerRow},
        format,
        record::Verified,
        secret::{Algorithm, Secret},
        set::{Entry, OwnerEntry},
        shards::Sharded,
    },
    limits::{Rules, Subject},
};

/// Makes a set of rows, out of the current one's parts as far as they are the same.
pub(super) struct Builder<'b, 'd> {
    pub(super) books: &'b mut Books,
    pub(super) current: Option<&'b KeySet>,
    pub(super) rows: &'b Rows<'d>,
    pub(super) terms: &'b Terms,
    pub(super) pepper: Option<Arc<Secret>>,
    pub(super) now: Now,
}

impl Builder<'_, '_> {
    pub(super) fn build(mut self, document: &Document, applied: &mut Applied) -> KeySet {
        self.books.revision += 1;
        let mut set = KeySet::default();
        (set.revision, set.digest) = (self.books.revision, document.digest);
        set.keys = Sharded::of_size(self.rows.keys.len());
        set.owners = Sharded::of_size(self.rows.owners.len());
        for (id, row) in &self.rows.owners {
            let record = self.owner(id, Some(row));
            set.insert_owner(OwnerEntry { record, row: Some(Arc::clone(row)) });
        }
        applied.owners = self.rows.owners.len();
        for row in self.rows.keys.values() {
            let owner = match set.owner_entry(row.owner.as_str()) {
                Some(entry) => Arc::clone(&entry.record),
                None => {
                    let record = self.owner(&row.owner, None);
                    set.insert_owner(OwnerEntry { record: Arc::clone(&record), row: None });
                    record
                }
            };
            let (record, new) = self.key(row, owner);
            applied.changed += usize::from(new);
            set.insert(Entry { record, row: Arc::clone(row) });
        }
        applied.revision = set.revision;
        applied.keys = set.len();
        let mint = &self.terms.mint;
        set.index(|record| !format::is_machine_made(mint, record.kind, &record.public));
        set
    }

    pub(super) fn owner(&mut self, id: &OwnerId, row: Option<&Arc<OwnerRow>>) -> Arc<OwnerRecord> {
        let older = self.current.and_then(|set| set.owner_entry(id.as_str()));
        let suspended_at: Option<Wall> = if self.rows.ambiguous_owners.contains(id) {
            Some(self.now.wall)
        } else {
            row.and_then(|row| row.suspended_at)
        };
        if let Some(older) = older
            && same(older.row.as_ref(), row)
            && older.record.suspended_at.is_some() == suspended_at.is_some()
        {
            return Arc::clone(&older.record);
        }
        let state = match older {
            Some(older) => Arc::clone(&older.record.state),
            None => self.books.departed_owners.state(id),
        };
        Arc::new(OwnerRecord {
            id: id.clone(),
            name: row.and_then(|row| row.name.clone()),
            capabilities: row.map(|row| row.capabilities.clone()).unwrap_or_default(),
            kyc: row.map(|row| row.kyc).unwrap_or_default(),
            plan: row.and_then(|row| row.plan.clone()),
            suspended_at,
            listed: row.is_some(),
            state,
        })
    }

    /// The record of a row, and whether it was made anew.
    pub(super) fn key(&mut self, row: &Arc<KeyRow>, owner: Arc<OwnerRecord>) -> (Arc<KeyRecord>, bool) {
        let older = self.current.and_then(|set| set.entry(row.id.as_str()));
        let revoked_at = self.books.revoked.get(&row.id);
        let revoked_at = revoked_at.map(|first| row.revoked_at.or(*first).map_or(Since::Earlier, Since::At));
        let pepper = self.pepper.as_ref().filter(|_| row.hash.algorithm() == Algorithm::HmacSha256);
        if let Some(older) = older
            && same(Some(&older.row), Some(row))
            && Arc::ptr_eq(&older.record.owner, &owner)
            && older.record.revoked_at == revoked_at
            && older.record.has_pepper(pepper)
            && self.books.mint.as_ref() == Some(&self.terms.mint)
        {
            return (Arc::clone(&older.record), false);
        }
        let state = match older {
            Some(older) => Arc::clone(&older.record.state),
            None => self.books.departed_keys.state(&row.id),
        };
        if revoked_at.is_some() {
            state.dead.store(true, Ordering::Relaxed);
        }
        let record = KeyRecord {
            id: row.id.clone(),
            name: row.name.clone(),
            kind: row.kind,
            public: row.public.clone(),
            hash: row.hash.clone(),
            pepper: pepper.cloned(),
            machine_made: !row.hash.algorithm().is_slow()
                || format::is_machine_made(&self.terms.mint, row.kind, &row.public),
            scopes_text: row.scopes.to_string().into(),
            owner,
            scopes: row.scopes.clone(),
            mode: row.mode,
            allow_ips: row.allow_ips.clone(),
            limits: row.limits.as_ref().map(|quotas| Arc::new(Rules::new(Subject::Key, quotas))),
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at,
            rotated_from: row.rotated_from.clone(),
            state,
            verified: Verified::default(),
        };
        if let Some(older) = older {
            record.inherit_verified(&older.record);
        }
        (Arc::new(record), true)
    }
}

fn same<T: PartialEq>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
        (None, None) => true,
        _ => false,
    }
}
