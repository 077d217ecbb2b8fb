//! Minting: new ids, public parts and secrets, from the operating system's random numbers.

use super::secret::Algorithm;

/// The shapes of minted keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How secrets are kept: `argon2id` or `hmac-sha256`.
    pub hash: Algorithm,
    /// The shape of pairs.
    pub pair: PairShape,
    /// The shape of tokens.
    pub token: TokenShape,
}

/// The shape of a minted pair: each part is its prefix and 40 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairShape {
    /// What a consumer key begins with.
    pub key_prefix: Box<str>,
    /// What a consumer secret begins with.
    pub secret_prefix: Box<str>,
    /// What follows.
    pub shape: PairBody,
}

/// What follows the prefix in the parts of a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PairBody {
    /// 40 lower-case hexadecimal digits: 160 random bits.
    #[default]
    Hex40,
}

/// The shape of a minted token: a prefix by mode, a base62 body, and six base62 characters of CRC-32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenShape {
    /// What a live token begins with; also one without a mode.
    pub live: Box<str>,
    /// What a test token begins with.
    pub test: Box<str>,
    /// How many characters after the prefix may be shown.
    pub shown: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hash: Algorithm::Argon2id,
            pair: PairShape { key_prefix: "ck_".into(), secret_prefix: "cs_".into(), shape: PairBody::Hex40 },
            token: TokenShape { live: "ck_live_".into(), test: "ck_test_".into(), shown: 6 },
        }
    }
}
