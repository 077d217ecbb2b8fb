//! The key set: an immutable snapshot that requests read, and the store that swaps it.

use std::sync::Arc;

use super::{KeyRecord, OwnerRecord};

/// An immutable snapshot of all keys.
#[derive(Debug, Default)]
pub struct KeySet {}

/// What a lookup by public part found.
#[derive(Debug)]
pub enum Found {
    /// No key has this public part.
    Nothing,
    /// These keys have it: one for a pair; more only for tokens whose shown prefixes collide.
    Keys(smallvec::SmallVec<[Arc<KeyRecord>; 1]>),
}

impl KeySet {
    /// Looks up the public part of a pair: its whole consumer key.
    pub fn find_pair(&self, _consumer_key: &[u8]) -> Found {
        unimplemented!("keys room")
    }

    /// Looks up a token by its shown prefix: tries each of the few prefix lengths in use.
    pub fn find_token(&self, _token: &[u8]) -> Found {
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
}

/// The one place that holds the current set. Reading costs no lock and nothing on a second core.
#[derive(Debug, Default)]
pub struct KeyStore {
    current: arc_swap::ArcSwapOption<KeySet>,
}

impl KeyStore {
    /// The current set; none until the first one was loaded.
    pub fn load(&self) -> arc_swap::Guard<Option<Arc<KeySet>>> {
        self.current.load()
    }
}
