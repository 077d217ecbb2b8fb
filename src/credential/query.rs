//! A pair in two parameters of the query, in every spelling that PHP would file under their names.

use super::{Credential, Found, Malformed, Presented, QueryNames, Scheme, has_control, part};
use crate::{
    policy::effective::{self, Conflict},
    rejection::{Reason, Rejection},
};

/// Reads the pair; a parameter that is sent more than once with different values is refused.
pub(super) fn read(query: &str, names: &QueryNames) -> Result<Found, Rejection> {
    let parameter = |name: &str| {
        effective::parameter(query.as_bytes(), name).map_err(|Conflict| {
            Rejection::from(Reason::AmbiguousCredentials).hint(format!("The parameter \"{name}\" is repeated."))
        })
    };
    let (key, secret) = (parameter(&names.key)?, parameter(&names.secret)?);
    if key.is_none() && secret.is_none() {
        return Ok(None);
    }
    Ok(Some(pair(key.as_deref().unwrap_or_default(), secret.as_deref().unwrap_or_default())))
}

fn pair(key: &[u8], secret: &[u8]) -> Result<Presented, Malformed> {
    if has_control(key) || has_control(secret) {
        return Err(Malformed);
    }
    let credential = Credential::Pair { key: part(key)?, secret: part(secret)? };
    Ok(Presented { credential, scheme: Scheme::Query, padded: false })
}
