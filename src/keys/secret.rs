//! Secrets and their stored hashes. Nothing here prints a secret.

use std::fmt;

use smallvec::SmallVec;
use zeroize::Zeroize;

/// Secrets longer than this are refused before anything is hashed.
pub const MAX_SECRET_BYTES: usize = 512;

/// A secret in memory: no `Display`, no `Serialize`, a `Debug` that says nothing, wiped when dropped.
///
/// Secrets of the usual length live inline, so that taking one from a request allocates nothing.
#[derive(Clone, Default)]
pub struct Secret(SmallVec<[u8; 128]>);

impl Secret {
    /// Takes a copy of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }

    /// The bytes. The only way to them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The stored hash of a secret, parsed and within the ceilings on its parameters.
///
/// `Eq` compares what was stored: a record that keeps its hash keeps what was verified against it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash {
    pub(super) phc: Box<str>,
    pub(super) algorithm: Algorithm,
}

/// How a stored hash was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// `$argon2id$…`, RFC 9106. Slow.
    Argon2id,
    /// `$2a$`, `$2b$`, `$2y$`, as htpasswd writes it. Slow; 72 bytes.
    Bcrypt,
    /// `$hmac-sha256$…`, under the pepper. Fast: for machine-made secrets only.
    HmacSha256,
    /// `$sha256$…`, as found elsewhere. Fast: for machine-made secrets only.
    Sha256,
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretHash({:?})", self.algorithm)
    }
}

impl SecretHash {
    /// How the hash was made.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The stored text.
    pub fn as_phc(&self) -> &str {
        &self.phc
    }
}
