//! The credential of a request: found, read, taken off. No I/O.

mod settings;

use http::{HeaderMap, HeaderValue};

pub use settings::{OtherAuthorization, QueryNames, Settings};

use crate::{facts::Target, keys::secret::Secret, rejection::Rejection};

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
    /// Whether white space stands around the secret: never accepted, but worth a word in the operator's log.
    pub padded: bool,
}

/// Finds and reads the credential; none presented is `Ok(None)`.
pub fn extract(
    _headers: &HeaderMap,
    _query: Option<&str>,
    _settings: &Settings,
) -> Result<Option<Presented>, Rejection> {
    unimplemented!("facts room")
}

/// Takes the credential off the request, in every place and spelling it may have.
pub fn strip(_headers: &mut HeaderMap, _target: &mut Target, _settings: &Settings) {
    unimplemented!("facts room")
}

/// One challenge per accepted scheme, for `WWW-Authenticate`.
pub fn challenges(_settings: &Settings, _realm: &str) -> Vec<HeaderValue> {
    unimplemented!("facts room")
}
