//! Receipts: who has a change in force, and who may be serving without it.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Key, NewKey, Owner};

/// Something lets fewer callers in, or none; and which sidecars have it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Revoked {
    /// For people.
    pub message: &'static str,
    /// Which sidecars have it.
    #[serde(flatten)]
    pub receipt: Receipt,
}

/// A key that takes the place of another, and which sidecars have both.
#[derive(Debug, Serialize, ToSchema)]
pub struct RotatedKey {
    /// The new key.
    #[serde(flatten)]
    pub key: NewKey,
    /// Which sidecars have it, and the end of the old one.
    #[serde(flatten)]
    pub receipt: Receipt,
}

/// A key as it was changed, and which sidecars have it so.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChangedKey {
    /// The key.
    #[serde(flatten)]
    pub key: Key,
    /// Which sidecars have it so.
    #[serde(flatten)]
    pub receipt: Receipt,
}

/// An owner as it was changed, and which sidecars have it so.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChangedOwner {
    /// The owner.
    #[serde(flatten)]
    pub owner: Owner,
    /// Which sidecars have it so.
    #[serde(flatten)]
    pub receipt: Receipt,
}

/// Which sidecars have a change in force, and which may be serving without it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Receipt {
    /// The revision that the sidecars must have.
    pub revision: u64,
    /// Who has it in force: no request that starts from now on passes them.
    pub acknowledged: Vec<String>,
    /// Who may be serving without it, and how long.
    pub pending: Vec<PendingSidecar>,
    /// Who said goodbye without it, and would serve what is kept on their disk if they were started and could reach no
    /// control plane.
    pub stopped: Vec<PendingSidecar>,
    /// Whether these are all. They are not when the store could not be asked for those of other control planes, and for a
    /// while after an older copy of the store was put back.
    pub complete: bool,
    /// Why these are not all.
    pub incomplete_because: Option<String>,
}

/// A sidecar that may be serving without a revision.
#[derive(Debug, Serialize, ToSchema)]
pub struct PendingSidecar {
    /// Its name.
    pub instance: String,
    /// When it was last heard.
    #[schema(format = DateTime)]
    pub last_seen: String,
    /// Until when it may serve methods that only read.
    #[schema(format = DateTime)]
    pub may_serve_reads_until: String,
    /// Until when it may serve the others.
    #[schema(format = DateTime)]
    pub may_serve_writes_until: String,
}
