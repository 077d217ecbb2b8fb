//! Minting: new ids, public parts and secrets, from the operating system's random numbers.

use zeroize::Zeroize as _;

use super::{
    KeyId, Kind, Mode,
    format::{self, BASE62, CHECKSUM, PAIR_BODY, RANDOM_BASE62, TOKEN_BODY},
    secret::{Algorithm, HashError, Secret, SecretHash},
};
use crate::clock::Wall;

/// The shapes of minted keys, and how their secrets are kept.
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
    /// `hex40`: 40 lower-case hexadecimal digits, 160 random bits.
    #[default]
    Hex40,
}

/// The shape of a minted token: a prefix by mode, 36 base62 characters, and six of CRC-32 over what precedes.
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

impl Settings {
    /// The most characters of a token's body that may be shown: what stays secret keeps 160 bits.
    pub const MAX_SHOWN: usize = TOKEN_BODY - RANDOM_BASE62;

    /// Everything that is wrong with these settings: the key's name below `keys.mint`, and a sentence.
    pub fn faults(&self) -> Vec<(&'static str, &'static str)> {
        let mut faults = Vec::new();
        if !matches!(self.hash, Algorithm::Argon2id | Algorithm::HmacSha256) {
            faults.push(("hash", "new keys are kept as \"argon2id\" or \"hmac-sha256\""));
        }
        for (name, prefix) in [
            ("pair.key_prefix", &self.pair.key_prefix),
            ("pair.secret_prefix", &self.pair.secret_prefix),
            ("token.live", &self.token.live),
            ("token.test", &self.token.test),
        ] {
            // What a Bearer token (RFC 6750 §2.1) and a Basic user name (RFC 7617 §2) both may hold, and one
            // double-click selects.
            let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
            if prefix.len() > 32 || !prefix.bytes().all(good) {
                faults.push((name, "at most 32 letters, digits, \"_\", \"-\" and \".\""));
            }
        }
        if !(4..=Self::MAX_SHOWN).contains(&self.token.shown) {
            faults.push(("token.shown", "4 to 9: fewer would collide, more would leave less than 160 secret bits"));
        }
        faults
    }
}

/// A new key. What is shown once is in `secret`.
#[derive(Debug)]
pub struct Minted {
    /// Its id: `key_` and a ULID.
    pub id: KeyId,
    /// A pair's consumer key, a token's shown prefix.
    pub public: Box<str>,
    /// A pair's consumer secret, or the whole token.
    pub secret: Secret,
    /// What is kept of it.
    pub hash: SecretHash,
}

/// Why no key was minted.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Random,
    /// Hashing the new secret failed.
    #[error("the new secret could not be hashed")]
    Hash(#[source] HashError),
    /// Sixteen attempts in a row met public parts that exist.
    #[error("found no public part that is free; raise keys.mint.token.shown")]
    NotUnique,
}

/// Mints a key. `taken` says whether a public part exists already: then another one is tried, since two tokens with one
/// shown prefix cost two hashes at their first use.
///
/// Takes as long as the hash takes. A token without a mode begins like a live one.
///
/// # Errors
///
/// When the operating system gives no random bytes, `hmac-sha256` has no pepper, or every attempt was taken.
pub fn mint(
    settings: &Settings,
    kind: Kind,
    mode: Option<Mode>,
    pepper: Option<&Secret>,
    now: Wall,
    mut taken: impl FnMut(&str) -> bool,
) -> Result<Minted, MintError> {
    for _ in 0..16 {
        let (public, secret) = match kind {
            Kind::Pair => {
                let public = hex40(&settings.pair.key_prefix)?;
                let mut secret = hex40(&settings.pair.secret_prefix)?;
                let kept = Secret::new(secret.as_bytes());
                secret.zeroize();
                (public, kept)
            }
            Kind::Token => token(&settings.token, mode)?,
        };
        if taken(&public) {
            continue;
        }
        let hash = SecretHash::make(settings.hash, &secret, pepper).map_err(MintError::Hash)?;
        return Ok(Minted { id: key_id(now)?, public: public.into(), secret, hash });
    }
    Err(MintError::NotUnique)
}

/// A new id: `key_` and a ULID, which sorts by the moment it was made.
///
/// # Errors
///
/// When the operating system gives no random bytes.
pub fn key_id(now: Wall) -> Result<KeyId, MintError> {
    let random = u128::from_le_bytes(random::<16>()?);
    let ulid = ulid::Ulid::from_parts(u64::try_from(now.unix_millis()).unwrap_or(0), random);
    let Ok(id) = format!("key_{ulid}").parse() else { unreachable!("a ULID is printable ASCII") };
    Ok(id)
}

fn hex40(prefix: &str) -> Result<String, MintError> {
    let mut text = String::with_capacity(prefix.len() + PAIR_BODY);
    text.push_str(prefix);
    let mut bytes = random::<{ PAIR_BODY / 2 }>()?;
    for byte in bytes {
        for half in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(half)]));
        }
    }
    bytes.zeroize();
    Ok(text)
}

/// The shown prefix and the whole token.
fn token(shape: &TokenShape, mode: Option<Mode>) -> Result<(String, Secret), MintError> {
    let prefix = match mode {
        None | Some(Mode::Live) => &shape.live,
        Some(Mode::Test) => &shape.test,
    };
    // The capacity is exact: a buffer that grew would leave a copy behind.
    let mut text = String::with_capacity(prefix.len() + TOKEN_BODY + CHECKSUM);
    text.push_str(prefix);
    while text.len() < prefix.len() + TOKEN_BODY {
        let mut bytes = random::<TOKEN_BODY>()?;
        // 248 is four times 62: what is beyond would make the first characters of the alphabet likelier.
        for byte in bytes.iter().filter(|byte| **byte < 248).take(prefix.len() + TOKEN_BODY - text.len()) {
            text.push(char::from(BASE62[usize::from(*byte % 62)]));
        }
        bytes.zeroize();
    }
    let sum = format::checksum(text.as_bytes());
    text.extend(sum.map(char::from));
    let shown = text[..prefix.len() + shape.shown.min(TOKEN_BODY)].to_owned();
    let secret = Secret::new(text.as_bytes());
    text.zeroize();
    Ok((shown, secret))
}

/// 256 random bits behind a prefix, as URLs and headers take them: for tokens that are no keys.
///
/// # Errors
///
/// When the operating system gives no random bytes.
pub fn random_token(prefix: &str) -> Result<String, MintError> {
    use base64::Engine as _;
    let bytes = zeroize::Zeroizing::new(random::<32>()?);
    Ok(format!("{prefix}{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(*bytes)))
}

fn random<const N: usize>() -> Result<[u8; N], MintError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| MintError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::format::{Checksum, Recognised, recognise};

    fn minted(kind: Kind, mode: Option<Mode>) -> Minted {
        let settings = Settings { hash: Algorithm::Sha256, ..Settings::default() };
        mint(&settings, kind, mode, None, Wall::from_unix_millis(1_469_918_176_385), |_| false).unwrap()
    }

    #[test]
    fn a_pair_is_two_times_forty_digits() {
        let pair = minted(Kind::Pair, None);
        let settings = Settings::default();
        assert_eq!(recognise(&settings, &pair.public), Recognised::ConsumerKey);
        let secret = std::str::from_utf8(pair.secret.expose()).unwrap();
        assert_eq!(recognise(&settings, secret), Recognised::ConsumerSecret);
        assert_ne!(pair.public[3..], secret[3..]);
        assert_eq!(pair.hash.check_fast(&pair.secret, None), Some(true));
    }

    #[test]
    fn a_token_says_its_mode_and_has_a_good_checksum() {
        for (mode, prefix, said) in [
            (None, "ck_live_", Mode::Live),
            (Some(Mode::Live), "ck_live_", Mode::Live),
            (Some(Mode::Test), "ck_test_", Mode::Test),
        ] {
            let token = minted(Kind::Token, mode);
            let text = std::str::from_utf8(token.secret.expose()).unwrap();
            assert!(text.starts_with(&*token.public) && text.starts_with(prefix));
            assert_eq!(text.len(), prefix.len() + 42);
            assert_eq!(
                recognise(&Settings::default(), text),
                Recognised::Token { mode: said, shown: &token.public, checksum: Checksum::Good }
            );
        }
    }

    #[test]
    fn ids_are_ulids_of_the_moment() {
        // The ULID specification's own moment.
        let id = minted(Kind::Pair, None).id;
        assert!(id.as_str().starts_with("key_01ARYZ6S41"), "{id}");
        assert_eq!(id.as_str().len(), 30);
        assert_ne!(id, minted(Kind::Pair, None).id);
    }

    #[test]
    fn a_taken_public_part_is_minted_anew() {
        let settings = Settings { hash: Algorithm::Sha256, ..Settings::default() };
        let mut seen = Vec::new();
        let token = mint(&settings, Kind::Token, None, None, Wall::default(), |public| {
            seen.push(public.to_owned());
            seen.len() < 3
        });
        assert_eq!(*token.unwrap().public, *seen[2]);
        let never = mint(&settings, Kind::Token, None, None, Wall::default(), |_| true);
        assert!(matches!(never, Err(MintError::NotUnique)));
    }

    #[test]
    fn token_characters_are_not_biased() {
        let mut counts = [0_u32; 62];
        let shape = Settings::default().token;
        for _ in 0..2000 {
            let (_, secret) = token(&shape, None).unwrap();
            for byte in &secret.expose()[8..8 + TOKEN_BODY] {
                counts[BASE62.iter().position(|digit| digit == byte).unwrap()] += 1;
            }
        }
        // 61 degrees of freedom: 150 is passed by chance less than once in 10^8 runs; a plain `% 62` gives some 470.
        let expected = 2000.0 * TOKEN_BODY as f64 / 62.0;
        let chi: f64 = counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
        assert!(chi < 150.0, "chi-square {chi}");
    }

    #[test]
    fn settings_that_would_weaken_are_faults() {
        assert_eq!(Settings::default().faults(), []);
        let mut settings = Settings { hash: Algorithm::Sha256, ..Settings::default() };
        settings.token.shown = 10;
        settings.token.test = "ck test ".into();
        settings.pair.key_prefix = "ck:".into();
        let names: Vec<_> = settings.faults().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["hash", "pair.key_prefix", "token.test", "token.shown"]);
    }
}
