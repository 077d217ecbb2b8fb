//! The credential of a request: found, read, taken off. No I/O.
//!
//! Only what is switched on counts as a credential. All of them are looked at before one is taken, so that "the first
//! one wins", on which two parsers seldom agree, is never the answer.

mod basic;
mod bearer;
mod challenge;
mod decode;
mod header;
mod query;
mod settings;
#[cfg(test)]
mod tests;
mod untaken;

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

pub use challenge::{Asked, challenges};
pub use settings::{OtherAuthorization, QueryNames, Settings};
pub use untaken::untaken;

use crate::{
    facts::Target,
    keys::secret::{MAX_SECRET_BYTES, Secret},
    rejection::{Reason, Rejection},
};

/// A credential as it was presented.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A public key and its secret.
    Pair {
        /// The public part.
        key: Secret,
        /// The secret part.
        secret: Secret,
    },
    /// One token that is both.
    Token(Secret),
}

impl Credential {
    /// The part that is secret.
    pub fn secret(&self) -> &Secret {
        match self {
            Self::Pair { secret, .. } | Self::Token(secret) => secret,
        }
    }

    /// Whether both are the same. Both come from the caller, so that the time this takes tells nobody anything.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pair { key, secret }, Self::Pair { key: other_key, secret: other_secret }) => {
                key.expose() == other_key.expose() && secret.expose() == other_secret.expose()
            }
            (Self::Token(token), Self::Token(other)) => token.expose() == other.expose(),
            _ => false,
        }
    }
}

/// How a credential was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// RFC 7617.
    Basic,
    /// RFC 6750.
    Bearer,
    /// The named header.
    Header,
    /// The query.
    Query,
}

impl Scheme {
    /// The label the operator sees.
    pub fn label(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Bearer => "bearer",
            Self::Header => "header",
            Self::Query => "query",
        }
    }
}

/// A credential and how it came.
#[derive(Clone, Debug)]
pub struct Presented {
    /// The credential.
    pub credential: Credential,
    /// How it came.
    pub scheme: Scheme,
    /// Whether white space stands around a part of a Basic credential. It is not taken off: with it, a secret that a
    /// machine made is always wrong, and that is worth a word in the operator's log; one that somebody chose may have it.
    pub padded: bool,
}

/// What one place of a request holds: nothing, a credential, or something that was meant to be one.
type Found = Option<Result<Presented, Malformed>>;

/// Something that was meant to be a credential and cannot be read as one.
#[derive(Debug, PartialEq, Eq)]
struct Malformed;

/// Finds and reads the credential; none presented is `Ok(None)`. Credentials of the usual length cost no allocation.
///
/// # Errors
///
/// [`Reason::AmbiguousCredentials`] for two different credentials (the same one in two places is one), a repeated
/// field or parameter, and an Authorization field that is none where that is refused; [`Reason::Malformed`].
pub fn extract(headers: &HeaderMap, query: Option<&str>, settings: &Settings) -> Result<Option<Presented>, Rejection> {
    let mut presented = authorization(headers, settings)?;
    if let Some(name) = &settings.header {
        join(&mut presented, header::read(headers, name)?)?;
    }
    if let (Some(names), Some(query)) = (&settings.query, query) {
        join(&mut presented, query::read(query, names)?)?;
    }
    presented.transpose().map_err(|Malformed| Reason::Malformed.into())
}

/// Adds what another place holds: nothing, or the same again.
fn join(presented: &mut Found, found: Found) -> Result<(), Rejection> {
    match (&*presented, &found) {
        (_, None) => Ok(()),
        (None, _) => {
            *presented = found;
            Ok(())
        }
        (Some(Ok(earlier)), Some(Ok(found))) if earlier.credential.is(&found.credential) => Ok(()),
        (Some(_), Some(_)) => Err(Reason::AmbiguousCredentials.into()),
    }
}

/// What the Authorization field holds (RFC 9110 §11.6.2).
fn authorization(headers: &HeaderMap, settings: &Settings) -> Result<Found, Rejection> {
    let Some(value) = single(headers, &AUTHORIZATION)? else { return Ok(None) };
    match accepted(value, settings) {
        Some((Scheme::Basic, rest)) => Ok(Some(basic::read(rest))),
        Some((_, rest)) => Ok(Some(bearer::read(rest))),
        None if settings.other_authorization == OtherAuthorization::Refuse => {
            Err(Rejection::from(Reason::AmbiguousCredentials)
                .hint("The Authorization field holds none that is known here."))
        }
        None => Ok(None),
    }
}

/// The scheme of an Authorization field, where it is one that is switched on, and what follows it.
fn accepted<'v>(value: &'v HeaderValue, settings: &Settings) -> Option<(Scheme, &'v [u8])> {
    let value = value.as_bytes().trim_ascii();
    let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
    let (scheme, rest) = (&value[..end], value[end..].trim_ascii_start());
    if settings.basic && scheme.eq_ignore_ascii_case(b"basic") {
        Some((Scheme::Basic, rest))
    } else if settings.bearer && scheme.eq_ignore_ascii_case(b"bearer") {
        Some((Scheme::Bearer, rest))
    } else {
        None
    }
}

/// The one value of a field; a repeated one is refused, whatever it holds.
fn single<'h>(headers: &'h HeaderMap, name: &http::HeaderName) -> Result<Option<&'h HeaderValue>, Rejection> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (first, None) => Ok(first),
        _ => Err(Rejection::from(Reason::AmbiguousCredentials).hint(format!("The field \"{name}\" is repeated."))),
    }
}

/// A part of a credential, where it is neither empty nor too long to be hashed.
fn part(bytes: &[u8]) -> Result<Secret, Malformed> {
    if (1..=MAX_SECRET_BYTES).contains(&bytes.len()) { Ok(Secret::new(bytes)) } else { Err(Malformed) }
}

/// Whether there is a control character. Folded and not `any`, so that it is done sixteen bytes at a time.
fn has_control(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |control, byte| control | byte.is_ascii_control())
}

fn token(bytes: &[u8], scheme: Scheme) -> Result<Presented, Malformed> {
    Ok(Presented { credential: Credential::Token(part(bytes)?), scheme, padded: false })
}

/// Takes the credential off the request, in every place and spelling it may have, whether or not it was judged.
///
/// Only what is switched on counts: with the query off, its parameters are the upstream's own and go on.
pub fn strip(headers: &mut HeaderMap, target: &mut Target, settings: &Settings) {
    let keep = settings.other_authorization == OtherAuthorization::Pass
        && headers.get_all(AUTHORIZATION).iter().all(|value| accepted(value, settings).is_none());
    if !keep {
        headers.remove(AUTHORIZATION);
    }
    if let Some(name) = &settings.header {
        headers.remove(name);
    }
    if let Some(names) = &settings.query {
        target.without_query_parameters(&[&names.key, &names.secret]);
    }
}
