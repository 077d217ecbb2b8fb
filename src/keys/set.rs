//! The key set: an immutable snapshot that requests read.
//!
//! A lookup costs one hash of the public part and a compare: no allocation, no lock, no count that another core writes.

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet},
    hash::{Hash, Hasher},
    sync::Arc,
};

use foldhash::fast::RandomState;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use smallvec::SmallVec;

use super::{
    KeyId, KeyRecord, Kind, OwnerId, OwnerRecord, Standing,
    document::{KeyRow, OwnerRow},
    format,
    record::PublicPart,
    shards::Sharded,
    verify::Decoy,
};
use crate::clock::Wall;

/// An immutable snapshot of all keys.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    pub(super) revision: u64,
    pub(super) digest: [u8; 32],
    pub(super) keys: Sharded<HashMap<KeyId, Entry, RandomState>>,
    pub(super) owners: Sharded<HashMap<OwnerId, OwnerEntry, RandomState>>,
    pairs: Sharded<HashSet<Group, RandomState>>,
    tokens: Sharded<HashSet<Group, RandomState>>,
    /// The lengths of shown prefixes in use, the longest first: it is the one that says most.
    prefix_lengths: SmallVec<[usize; 8]>,
    digests: Arc<Vec<DigestIndex>>,
    human_pairs: Arc<Vec<Arc<KeyRecord>>>,
    human_tokens: Arc<Vec<Arc<KeyRecord>>>,
}

/// A record and the row it was made of.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) record: Arc<KeyRecord>,
    pub(super) row: Arc<KeyRow>,
}

/// An owner and the row it was made of, if it has one.
#[derive(Clone, Debug)]
pub(super) struct OwnerEntry {
    pub(super) record: Arc<OwnerRecord>,
    pub(super) row: Option<Arc<OwnerRow>>,
}

impl KeySet {
    /// Looks up the public part of a pair: its whole consumer key. No two usable pairs share one.
    pub fn find_pair(&self, consumer_key: &[u8]) -> Option<&Arc<KeyRecord>> {
        match self.pairs.of(consumer_key).get(consumer_key) {
            Some(group) => group.0.first(),
            None => self.digests.iter().find_map(|index| index.find(Kind::Pair, consumer_key)?.first()),
        }
    }

    /// Looks up a token by its shown prefix: tries each of the few prefix lengths in use, the longest first. Then by
    /// the digest of the whole token, where the set has such keys.
    ///
    /// More than one key is found where shown prefixes collide or one begins with another.
    pub fn find_token<'s>(&'s self, token: &'s [u8]) -> impl Iterator<Item = &'s Arc<KeyRecord>> + 's {
        let shown = self.prefix_lengths.iter().filter_map(move |length| {
            let prefix = token.get(..*length)?;
            self.tokens.of(prefix).get(prefix)
        });
        let digested = self.digests.iter().filter_map(move |index| index.find(Kind::Token, token));
        shown.flat_map(|group| group.0.iter()).chain(digested.flatten())
    }

    /// What the verification of an unknown public part must cost, so that time does not tell which human-chosen names
    /// exist: as much as that of one of the keys with such names, the same one for the same name. Nothing if the set
    /// has none, or if the public part looks machine-made: to guess such a one is hopeless.
    pub fn decoy(&self, kind: Kind, public: &[u8]) -> Option<Decoy> {
        let human = match kind {
            Kind::Pair => &self.human_pairs,
            Kind::Token => &self.human_tokens,
        };
        if human.is_empty() || format::is_random(public) {
            return None;
        }
        Decoy::like_one_of(human, public)
    }

    /// The key with this id.
    pub fn by_id(&self, id: &str) -> Option<&Arc<KeyRecord>> {
        self.entry(id).map(|entry| &entry.record)
    }

    /// The owner with this id.
    pub fn owner(&self, id: &str) -> Option<&Arc<OwnerRecord>> {
        self.owner_entry(id).map(|entry| &entry.record)
    }

    /// All keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<KeyRecord>> {
        self.entries().map(|entry| &entry.record)
    }

    /// All owners, listed or not, in no order.
    pub fn owners(&self) -> impl Iterator<Item = &Arc<OwnerRecord>> {
        self.owners.parts().flat_map(HashMap::values).map(|entry| &entry.record)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.parts().map(HashMap::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.parts().all(HashMap::is_empty)
    }

    /// The number of the version, from 1.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// SHA-256 of the text that the set was read from.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// How many keys are in each standing. A pass over all keys: for a scrape, not for a request.
    pub fn count(&self, now: Wall) -> [(Standing, usize); 4] {
        let mut counts = Standing::ALL.map(|standing| (standing, 0));
        for record in self.keys() {
            let standing = record.standing(now);
            if let Some((_, count)) = counts.iter_mut().find(|(other, _)| *other == standing) {
                *count += 1;
            }
        }
        counts
    }

    /// What there is of this key.
    pub(super) fn entry(&self, id: &str) -> Option<&Entry> {
        self.keys.of(id.as_bytes()).get(id)
    }

    /// What there is of this owner.
    pub(super) fn owner_entry(&self, id: &str) -> Option<&OwnerEntry> {
        self.owners.of(id.as_bytes()).get(id)
    }

    /// All keys with their rows, in no order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.keys.parts().flat_map(HashMap::values)
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        let id = entry.row.id.clone();
        self.keys.of_mut(id.as_str().as_bytes()).insert(id, entry);
    }

    pub(super) fn insert_owner(&mut self, entry: OwnerEntry) {
        let id = entry.record.id.clone();
        self.owners.of_mut(id.as_str().as_bytes()).insert(id, entry);
    }

    pub(super) fn remove(&mut self, id: &KeyId) {
        self.keys.of_mut(id.as_str().as_bytes()).remove(id);
    }

    pub(super) fn remove_owner(&mut self, id: &OwnerId) {
        self.owners.of_mut(id.as_str().as_bytes()).remove(id);
    }

    /// Whether all public parts are known in clear, so that they can be indexed one by one.
    pub(super) fn is_clear(&self) -> bool {
        self.digests.is_empty()
    }

    /// All pairs with this consumer key, those that are revoked included.
    pub(super) fn pairs_of(&self, consumer_key: &str) -> &[Arc<KeyRecord>] {
        self.pairs.of(consumer_key.as_bytes()).get(consumer_key.as_bytes()).map_or(&[], |group| &group.0)
    }

    /// Puts one record into the index in place of another. Both are machine-made, with public parts in clear.
    #[expect(clippy::mutable_key_type, reason = "what is hashed and compared is the public part, which never changes")]
    pub(super) fn reindex(&mut self, old: Option<&Arc<KeyRecord>>, new: Option<&Arc<KeyRecord>>) {
        for (record, stays) in old.map(|old| (old, false)).into_iter().chain(new.map(|new| (new, true))) {
            let PublicPart::Clear(text) = &record.public else { continue };
            let index = match record.kind {
                Kind::Pair => &mut self.pairs,
                Kind::Token => &mut self.tokens,
            };
            let part = index.of_mut(text.as_bytes());
            let mut group = part.take(text.as_bytes()).unwrap_or_default();
            group.0.retain(|held| held.id != record.id);
            if stays {
                let at = group.0.partition_point(|held| order(held) < order(record));
                group.0.insert(at, Arc::clone(record));
                if record.kind == Kind::Token && !self.prefix_lengths.contains(&text.len()) {
                    self.prefix_lengths.push(text.len());
                    self.prefix_lengths.sort_unstable_by(|one, other| other.cmp(one));
                }
            }
            if !group.0.is_empty() {
                part.insert(group);
            }
        }
    }

    /// Indexes what `keys` holds; the last step of building a set.
    #[expect(clippy::mutable_key_type, reason = "what is hashed and compared is the public part, which never changes")]
    pub(super) fn index(&mut self, is_human: impl Fn(&KeyRecord) -> bool) {
        let mut records: Vec<_> = self.entries().map(|entry| Arc::clone(&entry.record)).collect();
        records.sort_by(|one, other| order(one).cmp(&order(other)));
        (self.pairs, self.tokens) = (Sharded::of_size(records.len()), Sharded::of_size(records.len()));
        let (mut human_pairs, mut human_tokens, mut digests) = (Vec::new(), Vec::new(), Vec::<DigestIndex>::new());
        for record in records {
            if is_human(&record) {
                match record.kind {
                    Kind::Pair => human_pairs.push(Arc::clone(&record)),
                    Kind::Token => human_tokens.push(Arc::clone(&record)),
                }
            }
            match &record.public {
                PublicPart::Clear(text) => {
                    let index = match record.kind {
                        Kind::Pair => &mut self.pairs,
                        Kind::Token => {
                            if !self.prefix_lengths.contains(&text.len()) {
                                self.prefix_lengths.push(text.len());
                            }
                            &mut self.tokens
                        }
                    };
                    let part = index.of_mut(text.as_bytes());
                    let mut group = part.take(text.as_bytes()).unwrap_or_default();
                    group.0.push(record);
                    part.insert(group);
                }
                PublicPart::Digest { key, digest } => {
                    let digest = *digest;
                    let index = match digests.iter_mut().position(|index| index.key == *key) {
                        Some(position) => &mut digests[position],
                        None => {
                            digests.push(DigestIndex::new(key));
                            digests.last_mut().unwrap_or_else(|| unreachable!("pushed above"))
                        }
                    };
                    let map = match record.kind {
                        Kind::Pair => &mut index.pairs,
                        Kind::Token => &mut index.tokens,
                    };
                    map.entry(digest).or_default().push(record);
                }
            }
        }
        (self.human_pairs, self.human_tokens) = (Arc::new(human_pairs), Arc::new(human_tokens));
        self.digests = Arc::new(digests);
        self.prefix_lengths.sort_unstable_by(|one, other| other.cmp(one));
    }
}

/// Revoked keys come last: they give way to a living one with the same public part.
fn order(record: &KeyRecord) -> (bool, &KeyId) {
    (record.revoked_at.is_some(), &record.id)
}

/// The keys of one public part, found by its bytes; never empty once it is in an index.
#[derive(Clone, Debug, Default)]
struct Group(SmallVec<[Arc<KeyRecord>; 1]>);

impl Group {
    fn public(&self) -> &[u8] {
        match self.0.first().map(|record| &record.public) {
            Some(PublicPart::Clear(text)) => text.as_bytes(),
            _ => b"",
        }
    }
}

impl Borrow<[u8]> for Group {
    fn borrow(&self) -> &[u8] {
        self.public()
    }
}

impl Hash for Group {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.public().hash(state);
    }
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        self.public() == other.public()
    }
}

impl Eq for Group {}

/// The keys whose public part is known only by its HMAC under one key.
pub(super) struct DigestIndex {
    key: Box<str>,
    /// The keyed state: cloning it saves hashing the key for every lookup.
    mac: Hmac<Sha256>,
    pairs: HashMap<[u8; 32], SmallVec<[Arc<KeyRecord>; 1]>, RandomState>,
    tokens: HashMap<[u8; 32], SmallVec<[Arc<KeyRecord>; 1]>, RandomState>,
}

impl DigestIndex {
    fn new(key: &str) -> Self {
        Self { key: key.into(), mac: mac(key), pairs: HashMap::default(), tokens: HashMap::default() }
    }

    fn find(&self, kind: Kind, public: &[u8]) -> Option<&[Arc<KeyRecord>]> {
        let map = match kind {
            Kind::Pair => &self.pairs,
            Kind::Token => &self.tokens,
        };
        if map.is_empty() {
            return None;
        }
        let digest: [u8; 32] = self.mac.clone().chain_update(public).finalize().into_bytes().into();
        map.get(&digest).map(|group| &**group)
    }
}

impl std::fmt::Debug for DigestIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DigestIndex({}, {} pairs, {} tokens)", self.key, self.pairs.len(), self.tokens.len())
    }
}

/// HMAC-SHA-256 under the key of a lookup digest, such as `wc-api`.
pub(super) fn mac(key: &str) -> Hmac<Sha256> {
    Hmac::new_from_slice(key.as_bytes()).unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"))
}
