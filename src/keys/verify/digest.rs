//! The short keyed digest of a secret: what a verified secret is remembered and recognised by.

use std::sync::OnceLock;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::keys::secret::Secret;

/// HMAC-SHA-256 of a secret under a key that this process made for itself.
///
/// One key for the whole process: a record's digest stays good whoever asks. The secret alone is digested, for a digest
/// is only ever compared within one record; secrets of minted length take two compressions in all.
pub fn of(secret: &Secret) -> [u8; 32] {
    of_bytes(secret.expose())
}

/// As [`of`], of what is not a secret: a name that somebody presented.
pub(super) fn of_bytes(bytes: &[u8]) -> [u8; 32] {
    state().clone().chain_update(bytes).finalize().into_bytes().into()
}

/// The keyed state, made at the first call. Cloning it saves a third of the time of keying anew.
///
/// # Panics
///
/// When the operating system gives no random bytes at the first call, which the verifier makes when it starts.
pub(super) fn state() -> &'static Hmac<Sha256> {
    static STATE: OnceLock<Hmac<Sha256>> = OnceLock::new();
    STATE.get_or_init(|| {
        let mut key = zeroize::Zeroizing::new([0; 64]);
        let random = getrandom::fill(&mut *key);
        assert!(random.is_ok(), "the operating system gave no random bytes");
        Hmac::new_from_slice(&*key).unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"))
    })
}
