//! The forms of stored hashes, one by one: how each is read, made and checked.

use std::ops::RangeInclusive;

use argon2::{Argon2, Params, Version};
use base64::{
    Engine as _,
    alphabet::BCRYPT,
    engine::{
        DecodePaddingMode::RequireNone,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD_NO_PAD},
    },
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::secret::{Algorithm, HashError, Memory, Secret};

/// What argon2id may ask for. One verification at the ceilings takes some seconds and 256 MiB of one thread: bad, but
/// not the end of the machine, which `m=4194304` would be.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const PASSES: RangeInclusive<u32> = 1..=16;
const LANES: RangeInclusive<u32> = 1..=8;
const SALT_BYTES: RangeInclusive<usize> = 8..=64;
const HASH_BYTES: RangeInclusive<usize> = 16..=64;
/// Each step doubles the time; 15 takes some two seconds.
const BCRYPT_COST: RangeInclusive<u32> = 4..=15;
const BCRYPT_SECRET_BYTES: usize = 72;

/// What new hashes are made with (OWASP's first choice for argon2id).
const MINTED_ARGON2ID: (u32, u32, u32) = (19_456, 2, 1);
const MINTED_BCRYPT_COST: u32 = 10;

/// bcrypt's alphabet. Writers differ in the bits that do not count in the last character.
const BCRYPT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &BCRYPT,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// A stored hash, taken apart.
#[derive(Clone)]
pub(super) enum Parsed {
    Argon2id { version: Version, params: Params, salt: Box<[u8]>, hash: Box<[u8]> },
    Bcrypt { cost: u32, salt: [u8; 16], hash: [u8; 23] },
    HmacSha256 { pepper: Option<Box<str>>, salt: Box<[u8]>, hash: [u8; 32] },
    Sha256 { salt: Box<[u8]>, hash: [u8; 32] },
}

pub(super) fn parse(text: &str) -> Result<Parsed, HashError> {
    let (name, rest) =
        text.strip_prefix('$').and_then(|text| text.split_once('$')).ok_or(HashError::UnknownAlgorithm)?;
    match name {
        "argon2id" => argon2id(rest),
        "2a" | "2b" | "2y" => bcrypt(rest),
        "hmac-sha256" => hmac_sha256(rest),
        "sha256" => sha256(rest),
        "argon2i" => Err(HashError::Refused("argon2i")),
        "argon2d" => Err(HashError::Refused("argon2d")),
        "2x" => Err(HashError::Refused("bcrypt's $2x$ (a known bug)")),
        "apr1" => Err(HashError::Refused("htpasswd's MD5 ($apr1$)")),
        _ => Err(HashError::UnknownAlgorithm),
    }
}

fn argon2id(rest: &str) -> Result<Parsed, HashError> {
    const A: Algorithm = Algorithm::Argon2id;
    const SHAPE: HashError = HashError::Shape(A, "$argon2id$v=19$m=…,t=…,p=…$SALT$HASH");
    const MEMORY: HashError = HashError::OutOfBounds(A, "memory (m)", "8 to 262144 KiB, and 8 per lane");
    let (version, rest) = match rest.split_once('$').ok_or(SHAPE)? {
        ("v=19", rest) => (Version::V0x13, rest),
        ("v=16", rest) => (Version::V0x10, rest),
        // A hash without a version is of the first one.
        (parameters, _) if parameters.starts_with("m=") => (Version::V0x10, rest),
        _ => return Err(SHAPE),
    };
    let [parameters, salt, hash] = fields(rest).ok_or(SHAPE)?;
    let mut numbers = parameters.split(',');
    let mut number = |name: &str| {
        let digits = numbers.next()?.strip_prefix(name)?.strip_prefix('=')?;
        decimal(digits)
    };
    let (memory, passes, lanes) = (number("m").ok_or(SHAPE)?, number("t").ok_or(SHAPE)?, number("p").ok_or(SHAPE)?);
    if numbers.next().is_some() {
        return Err(SHAPE);
    }
    if !PASSES.contains(&passes) {
        return Err(HashError::OutOfBounds(A, "passes (t)", "1 to 16"));
    }
    if !LANES.contains(&lanes) {
        return Err(HashError::OutOfBounds(A, "lanes (p)", "1 to 8"));
    }
    if memory > MAX_MEMORY_KIB || memory < 8 * lanes {
        return Err(MEMORY);
    }
    let salt = salt_of(A, salt)?;
    let hash = base64_of(A, "hash", hash)?;
    if !HASH_BYTES.contains(&hash.len()) {
        return Err(HashError::OutOfBounds(A, "hash", "16 to 64 bytes"));
    }
    let params = Params::new(memory, passes, lanes, Some(hash.len())).map_err(|_| MEMORY)?;
    Ok(Parsed::Argon2id { version, params, salt, hash })
}

fn bcrypt(rest: &str) -> Result<Parsed, HashError> {
    const A: Algorithm = Algorithm::Bcrypt;
    const SHAPE: HashError = HashError::Shape(A, "$2y$COST$ and 53 characters, as htpasswd -B writes it");
    let (cost, body) = rest.split_once('$').ok_or(SHAPE)?;
    if cost.len() != 2 || body.len() != 53 || !body.is_ascii() {
        return Err(SHAPE);
    }
    let cost = decimal(cost).ok_or(SHAPE)?;
    if !BCRYPT_COST.contains(&cost) {
        return Err(HashError::OutOfBounds(A, "cost", "4 to 15"));
    }
    let (salt, hash) = body.split_at(22);
    let decode = |what, text| BCRYPT_BASE64.decode(text).map_err(|_| HashError::Encoding(A, what, "bcrypt's base64"));
    Ok(Parsed::Bcrypt {
        cost,
        salt: decode("salt", salt)?.try_into().map_err(|_| SHAPE)?,
        hash: decode("hash", hash)?.try_into().map_err(|_| SHAPE)?,
    })
}

fn hmac_sha256(rest: &str) -> Result<Parsed, HashError> {
    const A: Algorithm = Algorithm::HmacSha256;
    const SHAPE: HashError = HashError::Shape(A, "$hmac-sha256$SALT$HASH or $hmac-sha256$k=PEPPER$SALT$HASH");
    let (pepper, rest) = match rest.strip_prefix("k=") {
        Some(rest) => {
            let (pepper, rest) = rest.split_once('$').ok_or(SHAPE)?;
            (Some(pepper.into()), rest)
        }
        None => (None, rest),
    };
    let [salt, hash] = fields(rest).ok_or(SHAPE)?;
    Ok(Parsed::HmacSha256 { pepper, salt: salt_of(A, salt)?, hash: digest_of(A, hash)? })
}

fn sha256(rest: &str) -> Result<Parsed, HashError> {
    const A: Algorithm = Algorithm::Sha256;
    const SHAPE: HashError = HashError::Shape(A, "$sha256$ and 64 hexadecimal digits, or $sha256$SALT$HASH");
    if let Some([salt, hash]) = fields(rest) {
        return Ok(Parsed::Sha256 { salt: salt_of(A, salt)?, hash: digest_of(A, hash)? });
    }
    Ok(Parsed::Sha256 { salt: Box::default(), hash: hex_digest(rest).ok_or(SHAPE)? })
}

/// Thirty-two bytes from 64 hexadecimal digits of either case.
pub(super) fn hex_digest(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

/// Exactly `N` fields between dollar signs.
fn fields<const N: usize>(text: &str) -> Option<[&str; N]> {
    let mut split = text.split('$');
    let mut fields = [""; N];
    for field in &mut fields {
        *field = split.next()?;
    }
    split.next().is_none().then_some(fields)
}

/// Digits alone: `parse` would take a sign.
fn decimal(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn base64_of(algorithm: Algorithm, what: &'static str, text: &str) -> Result<Box<[u8]>, HashError> {
    match STANDARD_NO_PAD.decode(text) {
        Ok(bytes) => Ok(bytes.into()),
        Err(_) => Err(HashError::Encoding(algorithm, what, "base64 without padding")),
    }
}

fn salt_of(algorithm: Algorithm, text: &str) -> Result<Box<[u8]>, HashError> {
    let salt = base64_of(algorithm, "salt", text)?;
    if SALT_BYTES.contains(&salt.len()) {
        Ok(salt)
    } else {
        Err(HashError::OutOfBounds(algorithm, "salt", "8 to 64 bytes"))
    }
}

fn digest_of(algorithm: Algorithm, text: &str) -> Result<[u8; 32], HashError> {
    let bytes = base64_of(algorithm, "hash", text)?;
    (*bytes).try_into().map_err(|_| HashError::OutOfBounds(algorithm, "hash", "32 bytes"))
}

/// What names a pepper in a hash made under it. Four bytes of a keyed digest: enough to notice a wrong pepper.
pub(super) fn pepper_id(pepper: &Secret) -> String {
    let digest = keyed(pepper.expose(), b"keyside pepper id", b"");
    digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn make(algorithm: Algorithm, secret: &[u8], pepper: Option<&Secret>) -> Result<String, HashError> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|_| HashError::Random)?;
    let encode = |bytes: &[u8]| STANDARD_NO_PAD.encode(bytes);
    match algorithm {
        Algorithm::Argon2id => {
            let (m, t, p) = MINTED_ARGON2ID;
            let params = Params::new(m, t, p, Some(32)).map_err(|_| HashError::UnknownAlgorithm)?;
            let mut hash = [0; 32];
            let done = argon2(Version::V0x13, &params, secret, &salt, &mut hash, &mut Memory::default());
            debug_assert!(done, "sixteen bytes of salt and a short secret are within argon2's bounds");
            Ok(format!("$argon2id$v=19$m={m},t={t},p={p}${}${}", encode(&salt), encode(&hash)))
        }
        Algorithm::Bcrypt => {
            let hash = bcrypt_of(MINTED_BCRYPT_COST, salt, secret).ok_or(HashError::BcryptSecret)?;
            let (salt, hash) = (BCRYPT_BASE64.encode(salt), BCRYPT_BASE64.encode(hash));
            Ok(format!("$2y${MINTED_BCRYPT_COST:02}${salt}{hash}"))
        }
        Algorithm::HmacSha256 => {
            let pepper = pepper.ok_or(HashError::NoPepper)?;
            let hash = keyed(pepper.expose(), &salt, secret);
            Ok(format!("$hmac-sha256$k={}${}${}", pepper_id(pepper), encode(&salt), encode(&hash)))
        }
        Algorithm::Sha256 => Ok(format!("$sha256${}${}", encode(&salt), encode(&digest(&salt, secret)))),
    }
}

impl Parsed {
    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Argon2id { .. } => Algorithm::Argon2id,
            Self::Bcrypt { .. } => Algorithm::Bcrypt,
            Self::HmacSha256 { .. } => Algorithm::HmacSha256,
            Self::Sha256 { .. } => Algorithm::Sha256,
        }
    }

    pub(super) fn check(&self, secret: &[u8], pepper: Option<&Secret>, memory: &mut Memory) -> bool {
        match self {
            Self::Argon2id { version, params, salt, hash } => {
                let mut made = [0; *HASH_BYTES.end()];
                let made = &mut made[..hash.len()];
                argon2(*version, params, secret, salt, made, memory) && bool::from(made.ct_eq(hash))
            }
            Self::Bcrypt { cost, salt, hash } => {
                bcrypt_of(*cost, *salt, secret).is_some_and(|made| made.ct_eq(hash).into())
            }
            Self::HmacSha256 { salt, hash, .. } => {
                pepper.is_some_and(|pepper| keyed(pepper.expose(), salt, secret).ct_eq(hash).into())
            }
            Self::Sha256 { salt, hash } => digest(salt, secret).ct_eq(hash).into(),
        }
    }
}

/// Whether it could be done; a failure is the same as a wrong secret.
fn argon2(version: Version, params: &Params, secret: &[u8], salt: &[u8], hash: &mut [u8], memory: &mut Memory) -> bool {
    let blocks = memory.blocks(params.block_count());
    Argon2::new(argon2::Algorithm::Argon2id, version, params.clone())
        .hash_password_into_with_memory(secret, salt, hash, blocks)
        .is_ok()
}

/// `None` where bcrypt would hash something else than the secret: it ends at a NUL and sees 72 bytes.
fn bcrypt_of(cost: u32, salt: [u8; 16], secret: &[u8]) -> Option<[u8; 23]> {
    if secret.len() > BCRYPT_SECRET_BYTES || secret.contains(&0) {
        return None;
    }
    let mut terminated = [0; BCRYPT_SECRET_BYTES + 1];
    terminated[..secret.len()].copy_from_slice(secret);
    let seen = (secret.len() + 1).min(BCRYPT_SECRET_BYTES);
    let made = bcrypt::bcrypt(cost, salt, &terminated[..seen]);
    zeroize::Zeroize::zeroize(&mut terminated);
    let mut hash = [0; 23];
    hash.copy_from_slice(&made[..23]);
    Some(hash)
}

/// HMAC-SHA-256 of salt and secret. The salt's length is part of the stored hash, so no two splits meet.
fn keyed(key: &[u8], salt: &[u8], secret: &[u8]) -> [u8; 32] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { unreachable!("HMAC takes keys of any length") };
    mac.update(salt);
    mac.update(secret);
    mac.finalize().into_bytes().into()
}

fn digest(salt: &[u8], secret: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(salt);
    hash.update(secret);
    hash.finalize().into()
}
