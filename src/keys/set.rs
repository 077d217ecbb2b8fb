//! The key set: an immutable snapshot that requests read.

use std::sync::Arc;

use super::{KeyRecord, Kind, OwnerRecord, verify::Decoy};

/// An immutable snapshot of all keys.
#[derive(Debug, Default)]
pub struct KeySet {}

impl KeySet {
    /// Looks up the public part of a pair: its whole consumer key. No two pairs share one.
    pub fn find_pair(&self, _consumer_key: &[u8]) -> Option<&Arc<KeyRecord>> {
        unimplemented!("keys room")
    }

    /// Looks up a token by its shown prefix: tries each of the few prefix lengths in use, the longest first.
    pub fn find_token<'s>(&'s self, _token: &'s [u8]) -> impl Iterator<Item = &'s Arc<KeyRecord>> + 's {
        std::iter::empty()
    }

    /// What an unknown public part must cost: nothing if it looks machine-made or if the set holds no human-chosen ones.
    pub fn decoy(&self, _kind: Kind, _public: &[u8]) -> Option<Decoy> {
        unimplemented!("keys room")
    }

    /// The key with this id.
    pub fn by_id(&self, _id: &str) -> Option<&Arc<KeyRecord>> {
        unimplemented!("keys room")
    }

    /// All keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<KeyRecord>> {
        std::iter::empty()
    }

    /// All owners, listed or not, in no order.
    pub fn owners(&self) -> impl Iterator<Item = &Arc<OwnerRecord>> {
        std::iter::empty()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        unimplemented!("keys room")
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of the version, from 1.
    pub fn revision(&self) -> u64 {
        unimplemented!("keys room")
    }
}
