//! Rows for tests: as little as a key needs, to be changed where a test is about something.

use std::sync::Arc;

use super::{
    KeyId, Kind, OwnerId, Scopes,
    document::{Document, KeyRow, OwnerRow},
    record::PublicPart,
    secret::{Algorithm, Secret, SecretHash},
    store::{KeyStore, Terms},
};
use crate::{clock::Now, keys::KeyRecord};

/// A hash that takes no time: for tests that are not about hashing.
pub(crate) fn fast(secret: &str) -> SecretHash {
    SecretHash::make(Algorithm::Sha256, &Secret::new(secret.as_bytes()), None).expect("a hash")
}

/// argon2id with the least parameters there are: some microseconds, and slow all the same by its kind.
pub(crate) fn slow(secret: &str) -> SecretHash {
    slow_salted(secret, 0)
}

/// As [`slow`], with a salt of its own for every number.
pub(crate) fn slow_salted(secret: &str, number: usize) -> SecretHash {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD_NO_PAD;
    let (salt, mut hash) = (u64::try_from(number).expect("a number").to_be_bytes(), [0; 32]);
    let params = argon2::Params::new(8, 1, 1, Some(32)).expect("parameters");
    argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
        .hash_password_into(secret.as_bytes(), &salt, &mut hash)
        .expect("a hash");
    let text = format!("$argon2id$v=19$m=8,t=1,p=1${}${}", base64.encode(salt), base64.encode(hash));
    SecretHash::parse(&text).expect("a hash")
}

pub(crate) fn pair(id: &str, consumer_key: &str, hash: SecretHash) -> KeyRow {
    KeyRow {
        id: id.parse().expect("an id"),
        name: id.into(),
        kind: Kind::Pair,
        public: PublicPart::Clear(consumer_key.into()),
        hash,
        owner: "owner".parse().expect("an id"),
        scopes: Scopes::parse(["read"]).expect("scopes"),
        mode: None,
        allow_ips: Default::default(),
        limits: None,
        created_at: None,
        expires_at: None,
        revoked_at: None,
        rotated_from: None,
        minted_by: None,
    }
}

pub(crate) fn token(id: &str, prefix: &str, hash: SecretHash) -> KeyRow {
    KeyRow { kind: Kind::Token, ..pair(id, prefix, hash) }
}

pub(crate) fn owner(id: &str) -> OwnerRow {
    OwnerRow {
        id: id.parse::<OwnerId>().expect("an id"),
        name: None,
        capabilities: Box::default(),
        kyc: Default::default(),
        plan: None,
        suspended_at: None,
    }
}

pub(crate) fn document(keys: impl IntoIterator<Item = KeyRow>, owners: impl IntoIterator<Item = OwnerRow>) -> Document {
    Document {
        keys: keys.into_iter().map(Arc::new).collect(),
        owners: owners.into_iter().map(Arc::new).collect(),
        ..Document::default()
    }
}

/// A store that holds these keys.
pub(crate) fn store(keys: impl IntoIterator<Item = KeyRow>) -> KeyStore {
    let store = KeyStore::default();
    store.apply(&document(keys, []), &Terms::default(), Now::default());
    store
}

/// The record that the store has for this id.
#[track_caller]
pub(crate) fn record(store: &KeyStore, id: &str) -> Arc<KeyRecord> {
    let set = store.load();
    Arc::clone(set.as_ref().expect("a set").by_id(id).expect("the key"))
}

pub(crate) fn id(text: &str) -> KeyId {
    text.parse().expect("an id")
}
