//! Secrets and their stored hashes. Nothing here prints a secret, and nothing prints a stored hash.
//!
//! A stored hash is one text, in PHC form where the algorithm has one:
//!
//! | text | what it is |
//! |---|---|
//! | `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH` | argon2id (RFC 9106); salt and hash in base64 without padding |
//! | `$2y$10$…` (`$2a$`, `$2b$`) | bcrypt, as htpasswd writes it; secrets of up to 72 bytes without NUL |
//! | `$hmac-sha256$SALT$HASH`, `$hmac-sha256$k=PEPPER$SALT$HASH` | HMAC-SHA-256 (RFC 2104) of salt and secret under the pepper; `k` names the pepper, so that a wrong one is noticed when the file is loaded |
//! | `$sha256$HEX` | SHA-256 of the secret, 64 hexadecimal digits |
//! | `$sha256$SALT$HASH` | SHA-256 of salt and secret; salt and hash in base64 without padding |
//!
//! The last three are fast, and so for machine-made secrets only.

use std::{fmt, str::FromStr};

use smallvec::SmallVec;
use zeroize::{Zeroize, optimization_barrier};

use super::phc::{self, Parsed};

/// Secrets longer than this are refused before anything is hashed.
pub const MAX_SECRET_BYTES: usize = 512;

/// A secret in memory: no `Display`, no `Serialize`, a `Debug` that says nothing, wiped when dropped.
///
/// Secrets of the usual length live inline, so that taking one from a request allocates nothing. Minted ones have up to
/// 50 bytes; more room than this would make every move of a pair dearer.
#[derive(Clone, Default)]
pub struct Secret(SmallVec<[u8; 80]>);

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
        wipe(&mut self.0);
    }
}

/// Overwrites what was secret. As [`Zeroize`], but with one call of memset: every request wipes, and storing each byte
/// on its own takes ten times as long.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    // Without it, stores to what is never read again may be left out.
    optimization_barrier(bytes);
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// How a stored hash was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

impl Algorithm {
    /// The name by which settings and messages call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Argon2id => "argon2id",
            Self::Bcrypt => "bcrypt",
            Self::HmacSha256 => "hmac-sha256",
            Self::Sha256 => "sha256",
        }
    }

    /// Whether verifying is made slow on purpose, and so is done on threads of its own.
    pub const fn is_slow(self) -> bool {
        matches!(self, Self::Argon2id | Self::Bcrypt)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "argon2id" => Ok(Self::Argon2id),
            "bcrypt" => Ok(Self::Bcrypt),
            "hmac-sha256" => Ok(Self::HmacSha256),
            "sha256" => Ok(Self::Sha256),
            _ => Err("expected \"argon2id\", \"hmac-sha256\", \"bcrypt\" or \"sha256\""),
        }
    }
}

/// Why a text is not a stored hash that is accepted. Never holds a part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// It begins like no algorithm that is known.
    #[error("expected a hash that begins with $argon2id$, $2a$, $2b$, $2y$, $hmac-sha256$ or $sha256$")]
    UnknownAlgorithm,
    /// An algorithm that is known and not accepted.
    #[error("{0} is not accepted; use argon2id")]
    Refused(&'static str),
    /// A part is missing or there is one too many.
    #[error("{0} must look like {1}")]
    Shape(Algorithm, &'static str),
    /// A part is not base64 without padding, or not hexadecimal.
    #[error("the {1} of {0} is not {2}")]
    Encoding(Algorithm, &'static str, &'static str),
    /// A parameter is beyond its bounds: too weak to protect, or so costly that one verification would be an outage.
    #[error("the {1} of {0} must be {2}")]
    OutOfBounds(Algorithm, &'static str, &'static str),
    /// The secret cannot be hashed so.
    #[error("a secret under bcrypt must have at most 72 bytes and no NUL")]
    BcryptSecret,
    /// A hash under a pepper, and there is none.
    #[error("hmac-sha256 needs the pepper: set keys.pepper")]
    NoPepper,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Random,
}

/// The stored hash of a secret, parsed and within the ceilings on its parameters.
///
/// `Eq` compares what was stored: a record that keeps its hash keeps what was verified against it.
#[derive(Clone)]
pub struct SecretHash {
    text: Box<str>,
    parsed: Parsed,
}

impl SecretHash {
    /// Reads a stored hash; see the [module](self) for its forms.
    ///
    /// # Errors
    ///
    /// When it is none, or when its parameters are beyond what one verification may cost.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        Ok(Self { parsed: phc::parse(text)?, text: text.into() })
    }

    /// Hashes a secret with a new random salt and the parameters that Keyside mints with.
    ///
    /// # Errors
    ///
    /// When `hmac-sha256` is asked for without a pepper, when bcrypt cannot take the secret, or when the operating
    /// system gives no random bytes.
    pub fn make(algorithm: Algorithm, secret: &Secret, pepper: Option<&Secret>) -> Result<Self, HashError> {
        Self::parse(&phc::make(algorithm, secret.expose(), pepper)?)
    }

    /// How the hash was made.
    pub fn algorithm(&self) -> Algorithm {
        self.parsed.algorithm()
    }

    /// The stored text.
    pub fn as_phc(&self) -> &str {
        &self.text
    }

    /// Whether the hash fits this pepper: true for hashes that need none, and for those that do not name theirs.
    ///
    /// # Errors
    ///
    /// A sentence for the operator when a pepper is needed and there is none, or when another one was used.
    pub fn fits_pepper(&self, pepper: Option<&Secret>) -> Result<(), &'static str> {
        match (&self.parsed, pepper) {
            (Parsed::HmacSha256 { .. }, None) => Err("hmac-sha256 needs the pepper: set keys.pepper"),
            (Parsed::HmacSha256 { pepper: Some(named), .. }, Some(pepper)) if **named != *phc::pepper_id(pepper) => {
                Err("was made under another pepper than the one of keys.pepper")
            }
            _ => Ok(()),
        }
    }

    /// Whether this is the hash of `secret`. Takes as long as the algorithm takes; compares in constant time.
    ///
    /// What the hash cannot be of (over 72 bytes for bcrypt, no pepper for `hmac-sha256`) is not its secret.
    pub fn check(&self, secret: &Secret, pepper: Option<&Secret>, memory: &mut Memory) -> bool {
        self.parsed.check(secret.expose(), pepper, memory)
    }

    /// Whether this is the hash of `secret`, for algorithms that take no time worth speaking of; `None` for slow ones.
    pub fn check_fast(&self, secret: &Secret, pepper: Option<&Secret>) -> Option<bool> {
        (!self.algorithm().is_slow()).then(|| self.check(secret, pepper, &mut Memory::default()))
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for SecretHash {}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretHash({:?})", self.algorithm())
    }
}

/// The working memory of argon2, kept between verifications: allocating 19 MiB anew costs a third of the time.
#[derive(Default)]
pub struct Memory(Vec<argon2::Block>);

impl Memory {
    /// Blocks kept while a thread has nothing to do; what a costlier hash needed beyond goes back to the system.
    const KEPT_BLOCKS: usize = 64 * 1024;

    pub(super) fn blocks(&mut self, count: usize) -> &mut [argon2::Block] {
        if self.0.len() < count {
            self.0.resize(count, argon2::Block::new());
        }
        &mut self.0[..count]
    }

    /// Overwrites what the last verifications left, which is derived from their secrets.
    pub fn wipe(&mut self) {
        for block in &mut self.0 {
            block.as_mut().zeroize();
        }
        self.0.truncate(Self::KEPT_BLOCKS);
        self.0.shrink_to(Self::KEPT_BLOCKS);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} blocks)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses, checks the secret, and returns whether it is the hash's.
    #[track_caller]
    fn check(hash: &str, secret: &str, expected: bool) {
        let hash = SecretHash::parse(hash).expect("a stored hash");
        let pepper = Secret::new(b"pepper of the tests");
        let checked = hash.check(&Secret::new(secret.as_bytes()), Some(&pepper), &mut Memory::default());
        assert_eq!(checked, expected);
    }

    #[track_caller]
    fn refused(hash: &str, sentence: &str) {
        let error = SecretHash::parse(hash).expect_err("must be refused");
        assert_eq!(error.to_string(), sentence);
    }

    #[test]
    fn argon2id_known_answers() {
        // From the reference implementation's test.c, version 0x13, `hashtest(version, 2, 16, 1, "password", "somesalt")`.
        let reference = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        check(reference, "password", true);
        check(reference, "Password", false);
        check(reference, "", false);
        // The same, `p = 2`.
        let lanes = "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc";
        check(lanes, "password", true);
    }

    #[test]
    fn bcrypt_known_answers() {
        // crypt_blowfish's own vectors, and htpasswd's `$2y$`, which is the same algorithm.
        check("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U", true);
        check("$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U", true);
        check("$2b$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK", "U*U*", true);
        check("$2b$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK", "U*U", false);
    }

    #[test]
    fn bcrypt_minds_72_bytes_and_nul() {
        let full = "0123456789".repeat(8);
        let hash = SecretHash::make(Algorithm::Bcrypt, &Secret::new(&full.as_bytes()[..72]), None).unwrap();
        check(hash.as_phc(), &full[..72], true);
        // bcrypt itself would take these for the same secret.
        check(hash.as_phc(), &full[..73], false);
        let short = SecretHash::make(Algorithm::Bcrypt, &Secret::new(b"ab"), None).unwrap();
        check(short.as_phc(), "ab", true);
        check(short.as_phc(), "ab\0", false);
        check(short.as_phc(), "ab\0ab", false);
        let secret = Secret::new(full.as_bytes());
        assert_eq!(SecretHash::make(Algorithm::Bcrypt, &secret, None), Err(HashError::BcryptSecret));
        assert_eq!(SecretHash::make(Algorithm::Bcrypt, &Secret::new(b"a\0b"), None), Err(HashError::BcryptSecret));
    }

    #[test]
    fn sha256_known_answers() {
        // FIPS 180-4's "abc".
        let plain = "$sha256$ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check(plain, "abc", true);
        check(plain, "abd", false);
        check(&plain.to_uppercase().replace("SHA", "sha"), "abc", true);
        // printf saltsaltabc | sha256sum | xxd -r -p | base64
        check("$sha256$c2FsdHNhbHQ$Sr13e0c9JVRCky2S1FWeOFAB+CJ2LsupnNHlycKPoiQ", "abc", true);
        check("$sha256$c2FsdHNhbHQ$Sr13e0c9JVRCky2S1FWeOFAB+CJ2LsupnNHlycKPoiQ", "saltsaltabc", false);
    }

    #[test]
    fn hmac_sha256_needs_its_pepper() {
        let (secret, pepper, other) =
            (Secret::new(b"cs_1"), Secret::new(b"pepper of the tests"), Secret::new(b"another pepper"));
        let hash = SecretHash::make(Algorithm::HmacSha256, &secret, Some(&pepper)).unwrap();
        check(hash.as_phc(), "cs_1", true);
        check(hash.as_phc(), "cs_2", false);
        assert_eq!(hash.check_fast(&secret, Some(&other)), Some(false));
        assert_eq!(hash.check_fast(&secret, None), Some(false));
        assert_eq!(hash.fits_pepper(Some(&pepper)), Ok(()));
        assert!(hash.fits_pepper(Some(&other)).is_err());
        assert!(hash.fits_pepper(None).is_err());
        assert_eq!(SecretHash::make(Algorithm::HmacSha256, &secret, None), Err(HashError::NoPepper));
    }

    #[test]
    fn what_is_made_is_read_back_and_salted_anew() {
        let (secret, pepper) = (Secret::new(b"cs_secret"), Secret::new(b"pepper of the tests"));
        for algorithm in [Algorithm::Argon2id, Algorithm::Bcrypt, Algorithm::HmacSha256, Algorithm::Sha256] {
            let one = SecretHash::make(algorithm, &secret, Some(&pepper)).unwrap();
            let two = SecretHash::make(algorithm, &secret, Some(&pepper)).unwrap();
            assert_ne!(one, two, "{algorithm}: every hash has its own salt");
            assert_eq!(one.algorithm(), algorithm);
            check(one.as_phc(), "cs_secret", true);
            check(one.as_phc(), "cs_Secret", false);
            assert_eq!(one.check_fast(&secret, Some(&pepper)).is_some(), !algorithm.is_slow());
        }
        let made = SecretHash::make(Algorithm::Argon2id, &secret, None).unwrap();
        assert!(made.as_phc().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    }

    #[test]
    fn ceilings_hold_at_load() {
        const HASH: &str = "nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        for (parameters, sentence) in [
            ("m=4194304,t=2,p=1", "the memory (m) of argon2id must be 8 to 262144 KiB, and 8 per lane"),
            ("m=7,t=2,p=1", "the memory (m) of argon2id must be 8 to 262144 KiB, and 8 per lane"),
            ("m=15,t=2,p=2", "the memory (m) of argon2id must be 8 to 262144 KiB, and 8 per lane"),
            ("m=256,t=17,p=1", "the passes (t) of argon2id must be 1 to 16"),
            ("m=256,t=0,p=1", "the passes (t) of argon2id must be 1 to 16"),
            ("m=256,t=2,p=9", "the lanes (p) of argon2id must be 1 to 8"),
            ("m=256,t=2,p=0", "the lanes (p) of argon2id must be 1 to 8"),
        ] {
            refused(&format!("$argon2id$v=19${parameters}$c29tZXNhbHQ${HASH}"), sentence);
        }
        refused(&format!("$argon2id$v=19$m=256,t=2,p=1$c29tZQ${HASH}"), "the salt of argon2id must be 8 to 64 bytes");
        let long = "A".repeat(88);
        refused(&format!("$argon2id$v=19$m=256,t=2,p=1${long}${HASH}"), "the salt of argon2id must be 8 to 64 bytes");
        refused("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$c29tZXNhbHQ", "the hash of argon2id must be 16 to 64 bytes");
        refused(
            &format!("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ${long}"),
            "the hash of argon2id must be 16 to 64 bytes",
        );
        refused(&format!("$2y$16${}", "C".repeat(53)), "the cost of bcrypt must be 4 to 15");
        refused(&format!("$2y$03${}", "C".repeat(53)), "the cost of bcrypt must be 4 to 15");
    }

    #[test]
    fn what_is_no_hash_is_told_apart() {
        let unknown = HashError::UnknownAlgorithm.to_string();
        for text in ["", "secret", "$", "$$", "$1$abc$def", "{SHA}abc", "argon2id$v=19", " $argon2id$v=19$m=8,t=1,p=1$"]
        {
            refused(text, &unknown);
        }
        refused("$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$x", "argon2i is not accepted; use argon2id");
        refused("$argon2d$v=19$m=256,t=2,p=1$c29tZXNhbHQ$x", "argon2d is not accepted; use argon2id");
        refused("$2x$05$x", "bcrypt's $2x$ (a known bug) is not accepted; use argon2id");
        refused("$apr1$salt$x", "htpasswd's MD5 ($apr1$) is not accepted; use argon2id");
        for text in [
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ",
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR$more",
            "$argon2id$v=19$t=2,m=256,p=1$c29tZXNhbHQ$nf65EOgLrQMR",
            "$argon2id$v=19$m=+256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR",
            "$argon2id$v=19$m=256,t=2,p=1,data=eA$c29tZXNhbHQ$nf65EOgLrQMR",
            "$argon2id$v=18$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR",
            "$argon2id$",
        ] {
            refused(text, "argon2id must look like $argon2id$v=19$m=…,t=…,p=…$SALT$HASH");
        }
        refused("$argon2id$v=19$m=256,t=2,p=1$c29t=XNh!HQ$nf65", "the salt of argon2id is not base64 without padding");
        refused("$sha256$abc", "sha256 must look like $sha256$ and 64 hexadecimal digits, or $sha256$SALT$HASH");
        refused(
            "$hmac-sha256$abc",
            "hmac-sha256 must look like $hmac-sha256$SALT$HASH or $hmac-sha256$k=PEPPER$SALT$HASH",
        );
        refused("$2y$10$short", "bcrypt must look like $2y$COST$ and 53 characters, as htpasswd -B writes it");
    }

    #[test]
    fn what_argon2_left_in_memory_is_wiped() {
        let hash = SecretHash::make(Algorithm::Argon2id, &Secret::new(b"abc"), None).unwrap();
        let mut memory = Memory::default();
        assert!(hash.check(&Secret::new(b"abc"), None, &mut memory));
        let is_blank = |memory: &Memory| memory.0.iter().all(|block| block.as_ref().iter().all(|word| *word == 0));
        assert!(!is_blank(&memory));
        memory.wipe();
        assert!(is_blank(&memory));
        assert_eq!(memory.0.len(), 19_456, "kept for the next one");
        memory.blocks(Memory::KEPT_BLOCKS + 1);
        memory.wipe();
        assert_eq!(memory.0.len(), Memory::KEPT_BLOCKS, "but no more than that");
    }

    #[test]
    fn nothing_is_printed() {
        let hash = SecretHash::make(Algorithm::Sha256, &Secret::new(b"abc"), None).unwrap();
        assert_eq!(format!("{hash:?} {:?}", Secret::new(b"abc")), "SecretHash(Sha256) Secret");
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics_and_never_repeats_the_text(tail in "[$a-zA-Z0-9=,./+é-]{0,90}", head in 0_usize..7) {
            let head = ["", "$argon2id$v=19$m=8,t=1,p=1$", "$2y$05$", "$hmac-sha256$", "$sha256$", "$argon2id$", "$2b$"][head];
            if let Err(error) = SecretHash::parse(&format!("{head}{tail}")) {
                proptest::prop_assert!(tail.len() < 20 || !error.to_string().contains(&tail));
            }
        }
    }
}
