//! Verification of secrets: at once where a digest or a fast hash is enough, else on threads of its own.

use std::sync::{Arc, atomic::AtomicU64};

use super::{KeyRecord, secret::Secret};
use crate::limits::Failures;

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

/// How a verification went. Failures are already charged to the address.
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

/// What a credential without a usable key costs, so that time does not tell whether a human-chosen name exists.
#[derive(Clone, Debug)]
pub struct Decoy {}

impl Decoy {
    /// What a found but revoked or expired key, or one of a suspended owner, costs: nothing if it is machine-made.
    pub fn of(_record: &Arc<KeyRecord>) -> Option<Self> {
        unimplemented!("keys room")
    }
}

/// How many secrets were verified, by path, and how many wait.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the values of the metric's label")]
pub struct Counters {
    pub argon2id: AtomicU64,
    pub bcrypt: AtomicU64,
    pub hmac: AtomicU64,
    pub decoy: AtomicU64,
    /// How many slow verifications wait now.
    pub queue: AtomicU64,
}

impl Counters {
    /// Secrets found equal to one that was verified before.
    pub fn cached(&self) -> u64 {
        unimplemented!("keys room")
    }
}

/// Verifies secrets. Shared by reference count.
#[derive(Debug)]
pub struct Verifier {}

impl Verifier {
    /// Starts the verification threads.
    ///
    /// # Errors
    ///
    /// When a thread cannot be started.
    pub fn start(_settings: Settings) -> std::io::Result<Self> {
        unimplemented!("keys room")
    }

    /// Compares with the digest that was verified before. No hash but a short keyed one.
    pub fn is_known(&self, _record: &KeyRecord, _secret: &Secret) -> bool {
        unimplemented!("keys room")
    }

    /// Verifies a secret, slowly if need be. `charge` is the address that a failure is charged to, by which the
    /// queue is fair, and which is asked before the work starts whether it may still fail.
    pub async fn verify(&self, _record: &Arc<KeyRecord>, _secret: &Secret, _charge: Failures) -> Verdict {
        unimplemented!("keys room")
    }

    /// Refuses a credential without a usable key, after as much time as the decoy says. Never [`Verdict::Right`].
    pub async fn refuse(&self, _decoy: Option<Decoy>, _secret: &Secret, _charge: Failures) -> Verdict {
        unimplemented!("keys room")
    }

    /// Whether the secret would pass, if that is cheap to know; charges and counts nothing. For the operator's log.
    pub fn would_pass_cheaply(&self, _record: &KeyRecord, _secret: &Secret) -> bool {
        unimplemented!("keys room")
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        unimplemented!("keys room")
    }

    /// Ends the threads; what runs is finished, what waits is [`Verdict::Overloaded`].
    pub fn shut_down(&self) {
        unimplemented!("keys room")
    }
}
