//! Verification of secrets: at once where a digest or a fast hash is enough, else on threads of its own.

use std::sync::Arc;

use super::{KeyRecord, secret::Secret};

/// How verification is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Verification threads; 0 means one less than there are cores, at least one.
    pub threads: usize,
    /// How many slow verifications may wait in all.
    pub queue: usize,
    /// The pepper of `hmac-sha256`.
    pub pepper: Option<Secret>,
}

/// How a verification went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The secret is the key's.
    Right,
    /// It is not.
    Wrong,
    /// Too many wait; nothing was decided.
    Overloaded,
    /// The address has used up its failures; nothing was decided.
    FailureLimit,
}

/// Verifies secrets. Cheap to share.
#[derive(Debug)]
pub struct Verifier {}

impl Verifier {
    /// Compares with the digest that was verified before. No hash but a short keyed one.
    pub fn is_known(&self, _record: &KeyRecord, _secret: &Secret) -> bool {
        unimplemented!("keys room")
    }

    /// Verifies a secret, slowly if need be. `source` is the address that a failure is charged to, by which the
    /// queue is fair, and which is asked before the work starts whether it may still fail.
    pub async fn verify(
        &self,
        _record: &Arc<KeyRecord>,
        _secret: &Secret,
        _charge: crate::limits::Failures,
    ) -> Verdict {
        unimplemented!("keys room")
    }
}
