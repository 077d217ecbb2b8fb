//! `Authorization: Basic`, RFC 7617.

use super::{Credential, Malformed, Presented, Scheme, decode::base64, has_control, part, token};
use crate::keys::secret::{MAX_SECRET_BYTES, wipe};

/// The longest pair, decoded: two parts and a colon.
const MAX_DECODED: usize = 2 * MAX_SECRET_BYTES + 1;

/// Decoded pairs of the usual length fit here: two parts of up to 95 bytes.
const USUAL_DECODED: usize = 192;

/// Reads what follows the scheme. A pair with an empty password is a token.
pub(super) fn read(encoded: &[u8]) -> Result<Presented, Malformed> {
    if encoded.len() <= USUAL_DECODED / 3 * 4 {
        decode::<USUAL_DECODED>(encoded)
    } else if encoded.len() <= MAX_DECODED.div_ceil(3) * 4 {
        decode::<{ MAX_DECODED.next_multiple_of(3) }>(encoded)
    } else {
        Err(Malformed)
    }
}

fn decode<const SPACE: usize>(encoded: &[u8]) -> Result<Presented, Malformed> {
    let mut decoded = [0; SPACE];
    let presented = match base64(encoded, &mut decoded) {
        Some(length) => split(&decoded[..length]),
        None => Err(Malformed),
    };
    // Where decoding failed, it may have got anywhere.
    wipe(&mut decoded);
    presented
}

fn split(pair: &[u8]) -> Result<Presented, Malformed> {
    let colon = memchr::memchr(b':', pair).ok_or(Malformed)?;
    let (key, secret) = (&pair[..colon], &pair[colon + 1..]);
    // White space at the ends, mostly a line's end that was encoded with the secret, is a mistake that the operator
    // is told of; a control character anywhere else is none (RFC 7617 §2).
    let (trimmed_key, trimmed_secret) = (key.trim_ascii(), secret.trim_ascii());
    if has_control(pair) && (has_control(trimmed_key) || has_control(trimmed_secret)) {
        return Err(Malformed);
    }
    let padded = trimmed_key.len() != key.len() || trimmed_secret.len() != secret.len();
    if secret.is_empty() {
        return Ok(Presented { padded, ..token(key, Scheme::Basic)? });
    }
    let credential = Credential::Pair { key: part(key)?, secret: part(secret)? };
    Ok(Presented { credential, scheme: Scheme::Basic, padded })
}
