//! `Authorization: Bearer`, RFC 6750.

use super::{Malformed, Presented, Scheme, token};

/// Reads what follows the scheme: a token68 (RFC 9110 §11.2), so that a pair, which has a colon, is none.
pub(super) fn read(rest: &[u8]) -> Result<Presented, Malformed> {
    let body = rest.iter().rposition(|&byte| byte != b'=').map_or(0, |last| last + 1);
    let takes = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    if body > 0 && rest[..body].iter().all(takes) { token(rest, Scheme::Bearer) } else { Err(Malformed) }
}
