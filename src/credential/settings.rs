//! Which credentials are accepted.

use http::HeaderName;

/// Which credentials are accepted: only what is switched on counts as one.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `Authorization: Basic`.
    pub basic: bool,
    /// `Authorization: Bearer`.
    pub bearer: bool,
    /// A field that holds a token.
    pub header: Option<HeaderName>,
    /// Two query parameters that hold a pair.
    pub query: Option<QueryNames>,
    /// What becomes of an Authorization field that is not the credential.
    pub other_authorization: OtherAuthorization,
}

impl Default for Settings {
    fn default() -> Self {
        Self { basic: true, bearer: true, header: None, query: None, other_authorization: OtherAuthorization::Strip }
    }
}

/// The names of the query parameters that hold a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryNames {
    /// The public part's.
    pub key: Box<str>,
    /// The secret's.
    pub secret: Box<str>,
}

/// What becomes of an Authorization field that is not the credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherAuthorization {
    /// It is taken off.
    #[default]
    Strip,
    /// It goes on to the upstream.
    Pass,
    /// The request is refused with 400.
    Refuse,
}
