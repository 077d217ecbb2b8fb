//! The fleet: what of it the operations need. A place holder, until the room itself is there.

use std::{sync::Arc, time::Duration};

use super::{
    ledger::Ledger,
    store::{Sidecar, StoreError},
};
use crate::clock::Wall;

/// Which sidecars there are.
#[derive(Debug)]
pub struct Fleet {
    ledger: Arc<Ledger>,
}

/// Which sidecars have acknowledged a revision, and which have not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The revision.
    pub revision: u64,
    /// Who has it in force.
    pub acknowledged: Vec<String>,
    /// Who may be serving without it.
    pub pending: Vec<Pending>,
    /// Whether these are all. They are not when the store could not be asked for those of other control planes.
    pub complete: bool,
}

/// A sidecar that may be serving without a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its name.
    pub instance: String,
    /// When it was last heard.
    pub last_seen: Wall,
    /// Until when it may serve methods that only read.
    pub may_serve_reads_until: Wall,
    /// Until when it may serve the others.
    pub may_serve_writes_until: Wall,
}

/// A sidecar, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarView {
    /// What is known of it.
    pub sidecar: Sidecar,
    /// Whether it may be serving.
    pub known: bool,
    /// Whether a stream to it is open, at this control plane or at another.
    pub connected: bool,
    /// How many revisions it has not acknowledged.
    pub lag: u64,
    /// Until when it may serve methods that only read, by the set it has.
    pub may_serve_reads_until: Wall,
    /// Until when it may serve the others.
    pub may_serve_writes_until: Wall,
}

impl Fleet {
    /// The fleet of this ledger.
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Self { ledger }
    }

    /// Who has acknowledged this revision.
    pub async fn receipt(&self, revision: u64, _wait: Duration) -> Receipt {
        Receipt { revision, acknowledged: Vec::new(), pending: Vec::new(), complete: true }
    }

    /// All that are known.
    pub fn sidecars(&self) -> Vec<SidecarView> {
        Vec::new()
    }

    /// Forgets one.
    ///
    /// # Errors
    ///
    /// The store's own.
    pub async fn forget(&self, instance: &str) -> Result<bool, StoreError> {
        let (store, instance) = (Arc::clone(self.ledger.store()), instance.to_owned());
        self.ledger.run(async move { store.forget(&instance).await }).await
    }
}
