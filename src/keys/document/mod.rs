//! The key document: the text of `keys.toml` and of a key endpoint's set, as rows.
//!
//! A row is what the text says, checked field by field; [`KeySet`](super::KeySet) makes records of rows. Rows of blocks
//! that did not change are shared between versions, so that a reload of a large file costs what changed.

use std::sync::Arc;

use super::{KeyId, Kind, Kyc, Mode, OwnerId, Scopes, record::PublicPart, secret::SecretHash};
use crate::{clock::Wall, fault::Fault, limits::Quota, policy::network::Networks};

/// One version of all keys and owners.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// The owners, in the order of the text.
    pub owners: Vec<Arc<OwnerRow>>,
    /// The keys that are accepted, and those revoked ones that could be read, in the order of the text.
    pub keys: Vec<Arc<KeyRow>>,
    /// Everything that is wrong with the text, entry by entry.
    pub faults: Vec<Fault>,
    /// The ids of all keys with a readable `revoked_at`, those included whose other fields could not be read.
    pub revoked: Vec<KeyId>,
    /// The ids of keys that are not accepted because something in their entry is wrong, whatever an older version said.
    pub set_aside: Vec<KeyId>,
    /// How many entries were set aside, those without a readable id included.
    pub quarantined: usize,
    /// The `[end]` table, if there is one.
    pub end: Option<End>,
    /// SHA-256 of the text.
    pub digest: [u8; 32],
}

/// One `[[key]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The key's id.
    pub id: KeyId,
    /// What people call the key.
    pub name: Box<str>,
    /// How it is presented.
    pub kind: Kind,
    /// The public part by which it is looked up.
    pub public: PublicPart,
    /// The stored hash of the secret.
    pub hash: SecretHash,
    /// Whom the key acts for.
    pub owner: OwnerId,
    /// What it may do.
    pub scopes: Scopes,
    /// Live or test; a key without a mode passes anywhere.
    pub mode: Option<Mode>,
    /// From where it may be used; empty means anywhere.
    pub allow_ips: Networks,
    /// Its own limits; absent: its owner's plan, else the limit of all keys.
    pub limits: Option<Vec<Quota>>,
    /// When it was minted.
    pub created_at: Option<Wall>,
    /// From then on it is refused.
    pub expires_at: Option<Wall>,
    /// From then on it is refused, for ever.
    pub revoked_at: Option<Wall>,
    /// The key that this one replaces.
    pub rotated_from: Option<KeyId>,
}

/// One `[[owner]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRow {
    /// The owner's id.
    pub id: OwnerId,
    /// What people call the owner.
    pub name: Option<Box<str>>,
    /// What the owner may do at the upstream; routes ask for these.
    pub capabilities: Box<[Box<str>]>,
    /// Whether the owner's identity was checked.
    pub kyc: Kyc,
    /// The plan that sets the limits of the owner's keys.
    pub plan: Option<Box<str>>,
    /// From then on all keys of the owner answer 401.
    pub suspended_at: Option<Wall>,
}

/// The `[end]` table: how many entries a whole file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// How many `[[owner]]`.
    pub owners: usize,
    /// How many `[[key]]`.
    pub keys: usize,
}
