//! A token in a field of its own, such as `X-API-Key`.

use http::{HeaderMap, HeaderName};

use super::{Found, Malformed, Scheme, single, token};
use crate::rejection::Rejection;

/// Reads the field: one token of visible characters.
pub(super) fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Found, Rejection> {
    let value = single(headers, name)?.map(|value| value.as_bytes());
    Ok(value.map(
        |value| if value.iter().all(u8::is_ascii_graphic) { token(value, Scheme::Header) } else { Err(Malformed) },
    ))
}
