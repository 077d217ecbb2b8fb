//! All that is judged by, at one head.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use crate::{
    clock::Wall,
    control::{
        store::{AccountChange, Change, Head, Loaded, Operator, Revision},
        wire,
    },
    keys::{
        KeyId, OwnerId,
        document::{KeyRow, OwnerRow},
        record::PublicPart,
    },
};

/// Revisions that are kept in memory for sidecars that lag.
pub const KEPT: usize = 10_000;

/// All that is judged by, at one head.
#[derive(Debug)]
pub struct Image {
    head: Head,
    owners: BTreeMap<OwnerId, Arc<OwnerRow>>,
    keys: BTreeMap<KeyId, Arc<KeyRow>>,
    /// The keys of each owner, the oldest first; not only their ids, as one owner may have all keys.
    of_owner: HashMap<OwnerId, BTreeMap<KeyId, Arc<KeyRow>>>,
    /// The keys that were made to replace each key.
    successors: HashMap<KeyId, BTreeSet<KeyId>>,
    /// How many keys have each public part.
    public: HashMap<PublicPart, usize>,
    operators: BTreeMap<String, Operator>,
    recent: VecDeque<Arc<Revision>>,
    restored_at: Option<Wall>,
}

impl Image {
    pub(super) fn new(loaded: Loaded) -> Self {
        let Loaded { head, owners, keys, operators, revisions, restored_at } = loaded;
        let mut image = Self {
            head,
            owners: owners.into_iter().map(|row| (row.id.clone(), row)).collect(),
            keys: BTreeMap::new(),
            of_owner: HashMap::new(),
            successors: HashMap::new(),
            public: HashMap::with_capacity(keys.len()),
            operators: by_name(operators),
            recent: revisions.into_iter().map(Arc::new).collect(),
            restored_at,
        };
        for row in keys {
            image.put(row);
        }
        image
    }

    /// Where the history stands.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// All keys, by id: the oldest first, as ids are sortable.
    pub fn keys(&self) -> &BTreeMap<KeyId, Arc<KeyRow>> {
        &self.keys
    }

    /// All owners that have a row.
    pub fn owners(&self) -> &BTreeMap<OwnerId, Arc<OwnerRow>> {
        &self.owners
    }

    /// The keys of an owner, the oldest first.
    pub fn keys_of<'a>(&'a self, owner: &OwnerId) -> impl DoubleEndedIterator<Item = &'a Arc<KeyRow>> {
        self.of_owner.get(owner).into_iter().flat_map(BTreeMap::values)
    }

    /// The keys that were made by rotating this one, the oldest first.
    pub fn successors<'a>(&'a self, id: &KeyId) -> impl Iterator<Item = &'a Arc<KeyRow>> {
        self.successors.get(id).into_iter().flatten().filter_map(|id| self.keys.get(id))
    }

    /// Whether some key has this public part: a new one must not.
    pub fn has_public(&self, public: &PublicPart) -> bool {
        self.public.contains_key(public)
    }

    /// All operators, by name.
    pub fn operators(&self) -> &BTreeMap<String, Operator> {
        &self.operators
    }

    /// When a new history was last begun with a copy of an old one: sidecars that came after the copy are not known since.
    pub fn restored_at(&self) -> Option<Wall> {
        self.restored_at
    }

    /// The revisions after this one, oldest first; none when this is not of our history, or too long ago.
    pub fn since(&self, revision: u64, digest: &str) -> Option<Vec<Arc<Revision>>> {
        if revision == self.head.revision {
            return (digest == self.head.digest).then(Vec::new);
        }
        let oldest = self.recent.front()?.revision;
        // The digest of the revision that is asked from is what the first one is chained to.
        let known = match revision.checked_sub(oldest) {
            Some(index) => &self.recent.get(usize::try_from(index).ok()?)?.digest,
            None if revision == 0 && oldest == 1 => wire::BEGINNING,
            None => return None,
        };
        let after = usize::try_from((revision + 1).checked_sub(oldest)?).ok()?;
        (known == digest).then(|| self.recent.iter().skip(after).cloned().collect())
    }

    pub(super) fn take(&mut self, head: Head, revision: Option<Arc<Revision>>, accounts: Vec<AccountChange>) {
        if let Some(revision) = revision {
            self.add(revision);
        }
        for change in accounts {
            match change {
                AccountChange::Operator(operator) => drop(self.operators.insert(operator.name.clone(), operator)),
                AccountChange::DeletedOperator(name) => drop(self.operators.remove(&name)),
            }
        }
        self.head = head;
    }

    pub(super) fn begin_anew(&mut self, head: Head, at: Wall) {
        self.restored_at = self.restored_at.max(Some(at));
        self.head = head;
    }

    /// Takes in what others wrote, and where that led.
    pub(super) fn follow(&mut self, head: Head, revisions: Vec<Revision>, operators: Vec<Operator>) {
        for revision in revisions {
            self.add(Arc::new(revision));
        }
        self.operators = by_name(operators);
        self.head = head;
    }

    fn add(&mut self, revision: Arc<Revision>) {
        for change in &revision.changes {
            match change {
                Change::Key(row) => self.put(Arc::clone(row)),
                Change::DeletedKey(id) => self.remove(id),
                Change::Owner(row) => drop(self.owners.insert(row.id.clone(), Arc::clone(row))),
                Change::DeletedOwner(id) => drop(self.owners.remove(id)),
            }
        }
        self.recent.push_back(revision);
        while self.recent.len() > KEPT {
            self.recent.pop_front();
        }
    }

    fn put(&mut self, row: Arc<KeyRow>) {
        self.remove(&row.id);
        *self.public.entry(row.public.clone()).or_default() += 1;
        if let Some(from) = &row.rotated_from {
            self.successors.entry(from.clone()).or_default().insert(row.id.clone());
        }
        self.of_owner.entry(row.owner.clone()).or_default().insert(row.id.clone(), Arc::clone(&row));
        self.keys.insert(row.id.clone(), row);
    }

    fn remove(&mut self, id: &KeyId) {
        let Some(row) = self.keys.remove(id) else { return };
        if let Some(count) = self.public.get_mut(&row.public) {
            *count -= 1;
            if *count == 0 {
                self.public.remove(&row.public);
            }
        }
        if let Some(keys) = self.of_owner.get_mut(&row.owner) {
            keys.remove(id);
            if keys.is_empty() {
                self.of_owner.remove(&row.owner);
            }
        }
        if let Some(from) = &row.rotated_from
            && let Some(successors) = self.successors.get_mut(from)
        {
            successors.remove(id);
            if successors.is_empty() {
                self.successors.remove(from);
            }
        }
    }
}

fn by_name(operators: Vec<Operator>) -> BTreeMap<String, Operator> {
    operators.into_iter().map(|operator| (operator.name.clone(), operator)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::keys::sample;

    fn row(id: usize, owner: usize, from: Option<usize>) -> Arc<KeyRow> {
        let row = sample::pair(&format!("key_{id}"), &format!("ck_{id}"), sample::fast("s"));
        let owner = format!("owner_{owner}").parse().expect("an id");
        let rotated_from = from.map(|from| format!("key_{from}").parse().expect("an id"));
        Arc::new(KeyRow { owner, rotated_from, ..row })
    }

    proptest! {
        /// Whatever comes, changes and goes: what is looked up is what a walk through all keys would find.
        #[test]
        fn what_is_looked_up_is_there(changes in vec((0..6_usize, option::of((0..3_usize, option::of(0..6_usize)))), 0..40)) {
            let head = Head { epoch: String::new(), revision: 0, digest: String::new(), entries: 0, hash: String::new() };
            let loaded =
                Loaded { head, owners: vec![], keys: vec![], operators: vec![], revisions: vec![], restored_at: None };
            let mut image = Image::new(loaded);
            for (id, row_or_none) in changes {
                let change = match row_or_none {
                    Some((owner, from)) => Change::Key(row(id, owner, from)),
                    None => Change::DeletedKey(format!("key_{id}").parse().expect("an id")),
                };
                let revision = Revision { revision: 1, digest: String::new(), at: Wall::default(), changes: vec![change] };
                image.add(Arc::new(revision));
                let of = |wanted: &dyn Fn(&KeyRow) -> bool| -> Vec<KeyId> {
                    image.keys().values().filter(|row| wanted(row)).map(|row| row.id.clone()).collect()
                };
                let ids = |rows: Vec<&Arc<KeyRow>>| -> Vec<KeyId> { rows.iter().map(|row| row.id.clone()).collect() };
                for number in 0..6 {
                    let owner: OwnerId = format!("owner_{number}").parse().expect("an id");
                    prop_assert_eq!(ids(image.keys_of(&owner).collect()), of(&|row| row.owner == owner));
                    let id: KeyId = format!("key_{number}").parse().expect("an id");
                    prop_assert_eq!(ids(image.successors(&id).collect()), of(&|row| row.rotated_from.as_ref() == Some(&id)));
                    let public = PublicPart::Clear(format!("ck_{number}").into());
                    prop_assert_eq!(image.has_public(&public), image.keys().contains_key(&id));
                }
            }
        }
    }
}
