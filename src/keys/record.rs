//! A key is two objects: [`KeyRecord`], an immutable version of it, and [`KeyState`], which lives by id across versions.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use hmac::Mac as _;

use super::{
    KeyId, Kind, LastUse, Mode, OwnerId, Scopes,
    refusals::Refusals,
    secret::{Secret, SecretHash},
};
use crate::{
    clock::Wall,
    limits::{Meter, Rules},
    policy::network::Networks,
};

/// An owner's standing with the KYC check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kyc {
    /// Checked and approved.
    Approved,
    /// Being checked.
    Pending,
    /// Never checked.
    #[default]
    None,
}

/// One version of an owner, immutable.
#[derive(Debug)]
pub struct OwnerRecord {
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
    /// Whether the key file has a row for this owner. Without one: no capabilities, KYC none.
    pub listed: bool,
    /// What outlives this version.
    pub state: Arc<OwnerState>,
}

/// What lives as long as an owner, across versions of its record.
#[derive(Debug, Default)]
pub struct OwnerState {
    /// What the owner's keys have used up together.
    pub meter: Meter,
    /// Their requests that are on their way to the upstream.
    pub in_flight: AtomicUsize,
}

/// One version of a key, immutable but for the digest of the secret that was verified against it.
#[derive(Debug)]
pub struct KeyRecord {
    /// The key's id.
    pub id: KeyId,
    /// What people call the key.
    pub name: Box<str>,
    /// How it is presented.
    pub kind: Kind,
    /// The public part as the file has it: a pair's consumer key, a token's shown prefix, or a lookup digest.
    pub public: PublicPart,
    /// The stored hash of the secret.
    pub hash: SecretHash,
    /// The pepper that the hash is checked under, if it needs one. It is part of the version: a request that holds this
    /// one is judged by its pepper, whatever was reloaded meanwhile.
    pub pepper: Option<Arc<Secret>>,
    /// Whether a machine made the secret (≥ 160 random bits by its shape), so that guessing it is hopeless.
    pub machine_made: bool,
    /// Whom the key acts for.
    pub owner: Arc<OwnerRecord>,
    /// What it may do.
    pub scopes: Scopes,
    /// Live or test; a key without a mode passes anywhere.
    pub mode: Option<Mode>,
    /// From where it may be used; empty means anywhere.
    pub allow_ips: Networks,
    /// Its own limits; absent: its owner's plan, else the limit of all keys.
    pub limits: Option<Arc<Rules>>,
    /// When it was minted.
    pub created_at: Option<Wall>,
    /// From then on it is refused.
    pub expires_at: Option<Wall>,
    /// Since when it is revoked. It is refused whatever the moment says: the clock that wrote it may run ahead of ours.
    pub revoked_at: Option<Since>,
    /// The key that this one replaces.
    pub rotated_from: Option<KeyId>,
    /// The scopes as the upstream is told them, separated by spaces.
    pub scopes_text: Box<str>,
    /// What outlives this version.
    pub state: Arc<KeyState>,
    /// The digest of the secret that was verified against this version, once one was.
    pub verified: Verified,
}

/// Since when a key is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Since this moment.
    At(Wall),
    /// Its row does not say it, and what is remembered of it has no moment.
    Earlier,
}

impl std::fmt::Display for Since {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::At(moment) => moment.fmt(f),
            Self::Earlier => f.write_str("earlier (remembered in the state folder)"),
        }
    }
}

/// Whether a key may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It may.
    Active,
    /// Revoked, for ever.
    Revoked,
    /// Its time has run out.
    Expired,
    /// Its owner is suspended.
    Suspended,
}

impl Standing {
    /// All of them, in the order of the metric.
    pub const ALL: [Self; 4] = [Self::Active, Self::Revoked, Self::Expired, Self::Suspended];

    /// As metrics and commands name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Suspended => "suspended",
        }
    }
}

/// The public part of a key, by which it is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PublicPart {
    /// A pair's whole consumer key, or a token's shown prefix.
    Clear(Box<str>),
    /// A keyed digest of the public part, where only that is known: `hmac-sha256:KEY:HEX`.
    Digest {
        /// The key of the HMAC, such as `wc-api`.
        key: Box<str>,
        /// HMAC-SHA-256 of the public part.
        digest: [u8; 32],
    },
}

impl PublicPart {
    /// Whether this text is it.
    pub fn is(&self, text: &[u8]) -> bool {
        match self {
            Self::Clear(public) => public.as_bytes() == text,
            Self::Digest { key, digest } => {
                super::set::mac(key).chain_update(text).finalize().into_bytes()[..] == *digest
            }
        }
    }
}

/// The digest of a verified secret; written once.
#[derive(Default)]
pub struct Verified(OnceLock<[u8; 32]>);

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verified")
    }
}

/// What lives as long as a key, across versions of its record.
#[derive(Debug, Default)]
pub struct KeyState {
    /// What the key has used up.
    pub meter: Meter,
    /// When and from where it was last used with success.
    pub last_use: LastUse,
    /// Set once the key is revoked, deleted or its owner suspended: exchanges in flight may be cut by it.
    pub dead: AtomicBool,
    /// Requests forwarded for this key.
    pub allowed: AtomicU64,
    /// Requests refused after this key was recognised.
    pub refused: AtomicU64,
    /// Why they were.
    pub refusals: Refusals,
}

impl KeyRecord {
    /// Whether `digest` (see [`verify::digest`](super::verify::digest)) is of the secret that was verified
    /// against this very version. Constant time; false while none was.
    pub fn is_verified(&self, digest: &[u8; 32]) -> bool {
        use subtle::ConstantTimeEq as _;
        self.verified.0.get().is_some_and(|verified| bool::from(verified.ct_eq(digest)))
    }

    /// Whether some secret was verified against this version.
    pub fn has_verified(&self) -> bool {
        self.verified.0.get().is_some()
    }

    /// Remembers the digest of a secret that was verified against this version's hash.
    pub fn set_verified(&self, digest: [u8; 32]) {
        // A second writer verified the same secret: the first one's digest stays.
        let _ = self.verified.0.set(digest);
    }

    /// Takes over what was verified against an older version with the same hash and pepper.
    pub fn inherit_verified(&self, older: &Self) {
        if self.hash == older.hash
            && self.has_pepper(older.pepper.as_ref())
            && let Some(digest) = older.verified.0.get()
        {
            self.set_verified(*digest);
        }
    }

    /// Whether the hash is checked under this very pepper. The store hands the same one to all versions until it changes.
    pub(super) fn has_pepper(&self, pepper: Option<&Arc<Secret>>) -> bool {
        self.pepper.as_ref().map(Arc::as_ptr) == pepper.map(Arc::as_ptr)
    }

    /// Whether the key may be used at this moment, as far as the record itself says.
    pub fn standing(&self, now: Wall) -> Standing {
        if self.revoked_at.is_some() {
            Standing::Revoked
        } else if self.owner.suspended_at.is_some() {
            Standing::Suspended
        } else if self.expires_at.is_some_and(|expires_at| expires_at <= now) {
            Standing::Expired
        } else {
            Standing::Active
        }
    }

    /// Whether the key was cut off since this version was made: revoked, removed, or its owner suspended.
    ///
    /// Says so before the set without it is in force, so that a request that holds an older version stops as well.
    pub fn is_dead(&self) -> bool {
        self.state.dead.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{
        KeyStore,
        document::{KeyRow, OwnerRow},
        sample::{document, fast, owner, pair, record},
        store::Terms,
    };

    /// The standing, one second after the epoch, of a key and its owner.
    #[track_caller]
    fn check(revoked: bool, suspended: bool, expires_at: Option<i64>, expected: Standing) {
        let key = KeyRow {
            revoked_at: revoked.then(Wall::default),
            expires_at: expires_at.map(Wall::from_unix_millis),
            ..pair("a", "alice", fast("s"))
        };
        let owner = OwnerRow { suspended_at: suspended.then(Wall::default), ..owner("owner") };
        let store = KeyStore::default();
        store.apply(&document([key], [owner]), &Terms::default(), crate::clock::Now::default());
        assert_eq!(record(&store, "a").standing(Wall::from_unix_millis(1000)), expected);
    }

    #[test]
    fn the_gravest_standing_is_told() {
        check(false, false, None, Standing::Active);
        check(false, false, Some(1001), Standing::Active);
        check(false, false, Some(1000), Standing::Expired);
        check(false, true, Some(1000), Standing::Suspended);
        check(true, true, Some(1000), Standing::Revoked);
    }

    #[test]
    fn the_first_verified_digest_stays() {
        let verified = Verified::default();
        assert_eq!(format!("{verified:?}"), "Verified");
        let store = crate::keys::sample::store([pair("a", "alice", fast("s"))]);
        let record = record(&store, "a");
        assert!(!record.has_verified() && !record.is_verified(&[0; 32]));
        record.set_verified([1; 32]);
        record.set_verified([2; 32]);
        assert!(record.is_verified(&[1; 32]) && !record.is_verified(&[2; 32]));
    }
}
