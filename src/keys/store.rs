//! The one place that holds the current key set, and how a new one takes its place.

use std::sync::Arc;

use super::{KeyId, KeyRecord, KeySet, document::Document, mint, secret::Secret};
use crate::{clock::Now, fault::Fault};

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
    /// Owners in the set, without those that have no row.
    pub owners: usize,
    /// Records that were made anew.
    pub changed: usize,
    /// Keys that were in the set and no longer are.
    pub removed: usize,
    /// Ids that were never seen revoked before: to be kept in the saved state.
    pub newly_revoked: Vec<KeyId>,
    /// Ids that are not accepted although their rows could be read: two entries say the same.
    pub set_aside: Vec<KeyId>,
    /// Why they are not.
    pub faults: Vec<Fault>,
}

/// Holds the current set. Reading costs no lock and nothing on a second core.
#[derive(Debug, Default)]
pub struct KeyStore {
    current: arc_swap::ArcSwapOption<KeySet>,
}

impl KeyStore {
    /// An empty store that knows these ids as revoked.
    pub fn new(_revoked: impl IntoIterator<Item = KeyId>) -> Self {
        unimplemented!("keys room")
    }

    /// The current set; none until the first one was applied. Not to be held across an await.
    pub fn load(&self) -> arc_swap::Guard<Option<Arc<KeySet>>> {
        self.current.load()
    }

    /// Whether this record is the one that the current set has for its id: asked again after every wait.
    pub fn is_current(&self, _record: &Arc<KeyRecord>) -> bool {
        unimplemented!("keys room")
    }

    /// Puts the set of this document in place of the current one, revocations first.
    pub fn apply(&self, _document: &Document, _terms: &Terms, _now: Now) -> Applied {
        unimplemented!("keys room")
    }

    /// All ids ever seen revoked.
    pub fn revoked(&self) -> Vec<KeyId> {
        unimplemented!("keys room")
    }

    /// Drops what is no longer needed: replaced sets that nobody reads, states of removed keys whose windows ran out.
    /// To be called now and then, on the thread that applies.
    pub fn sweep(&self, _now: Now) {
        unimplemented!("keys room")
    }
}
