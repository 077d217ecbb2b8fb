//! Why a request was refused. All reasons are rows of one table: the response, the log, the metrics and the
//! manual read the row, and nothing else decides a status or a code.

mod body;
mod format;
mod json;
mod template;

pub use body::{Body, render};
pub use format::Format;

use http::{HeaderValue, StatusCode};

/// A row of the table of refusals.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The reason that this row describes.
    pub reason: Reason,
    /// The status the caller gets.
    pub status: u16,
    /// The stable code the caller gets.
    pub code: &'static str,
    /// The label the operator sees in metrics and logs.
    pub label: &'static str,
    /// What the caller is told: what to do next, never why a guess failed.
    pub sentence: &'static str,
}

macro_rules! table {
    ($($reason:ident: $status:literal $code:literal $label:literal $sentence:literal,)*) => {
        /// Why a request was refused or could not be forwarded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $sentence] $reason,)*
        }

        /// The table of refusals, in the order in which a request meets them.
        pub const TABLE: &[Row] = &[
            $(Row { reason: Reason::$reason, status: $status, code: $code, label: $label, sentence: $sentence },)*
        ];
    };
}

table! {
    AmbiguousFraming: 400 "bad_request" "ambiguous_framing" "The request could be read in two ways. Check its framing.",
    AmbiguousHost: 400 "bad_request" "ambiguous_host" "The request must name exactly one valid host.",
    AmbiguousFieldName: 400 "bad_request" "ambiguous_field_name" "A field name holds something other than letters, digits and hyphens.",
    AmbiguousMethod: 400 "bad_request" "ambiguous_method" "The request overrides its method in a way that is not accepted here.",
    AmbiguousPath: 400 "bad_request" "ambiguous_path" "The path could be read in two ways. Send it without dot segments, empty segments, escaped separators or control characters.",
    MethodNotAllowed: 405 "method_not_allowed" "method_not_allowed" "This method is not accepted here.",
    RequestTimeout: 408 "request_timeout" "request_timeout" "The request did not arrive in time.",
    BodyTooLarge: 413 "body_too_large" "body_too_large" "The body is larger than is accepted here.",
    UriTooLong: 414 "uri_too_long" "uri_too_long" "The request target is longer than is accepted here.",
    HeadersTooLarge: 431 "headers_too_large" "headers_too_large" "The header fields are larger than is accepted here.",
    IpLimit: 429 "too_many_requests" "ip_limit" "Too many requests from this address. Wait as long as Retry-After says.",
    AmbiguousCredentials: 400 "bad_request" "ambiguous_credentials" "Send exactly one credential.",
    MissingCredentials: 401 "missing_credentials" "missing_credentials" "This needs an API key.",
    Malformed: 401 "invalid_credentials" "malformed" "The API key is not accepted.",
    UnknownKey: 401 "invalid_credentials" "unknown_key" "The API key is not accepted.",
    WrongSecret: 401 "invalid_credentials" "wrong_secret" "The API key is not accepted.",
    Revoked: 401 "invalid_credentials" "revoked" "The API key is not accepted.",
    Expired: 401 "invalid_credentials" "expired" "The API key is not accepted.",
    OwnerSuspended: 401 "invalid_credentials" "owner_suspended" "The API key is not accepted.",
    FailureLimit: 429 "too_many_requests" "failure_limit" "Too many failed attempts from this address. Wait as long as Retry-After says.",
    ForbiddenCallerIp: 403 "forbidden_caller_ip" "forbidden_caller_ip" "This key may not be used from this address.",
    ModeMismatch: 403 "mode_mismatch" "mode_mismatch" "This key belongs to another mode than this host.",
    RouteNotAllowed: 403 "route_not_allowed" "route_not_allowed" "No key may use this method on this path.",
    InsufficientScope: 403 "insufficient_scope" "insufficient_scope" "This key lacks the scope that this request needs.",
    PermissionDenied: 403 "permission_denied" "permission_denied" "The owner of this key lacks the capability that this request needs.",
    KycRequired: 403 "kyc_required" "kyc_required" "The owner of this key has no approved KYC.",
    KeyLimit: 429 "too_many_requests" "key_limit" "This key has used up its allowance. Wait as long as Retry-After says.",
    OwnerLimit: 429 "too_many_requests" "owner_limit" "The owner of this key has used up the allowance. Wait as long as Retry-After says.",
    KeysUnavailable: 503 "keys_unavailable" "keys_unavailable" "Keys cannot be checked at the moment. Try again.",
    Overloaded: 503 "overloaded" "overloaded" "Too much is going on at the moment. Try again.",
    UpstreamUnreachable: 502 "upstream_unreachable" "upstream_unreachable" "The API behind this proxy could not be reached.",
    UpstreamTimeout: 504 "upstream_timeout" "upstream_timeout" "The API behind this proxy did not answer in time.",
    Internal: 500 "internal_error" "internal_error" "Something went wrong inside this proxy.",
}

impl Reason {
    /// This reason's row of the table.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The status the caller gets.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The label the operator sees.
    pub fn label(self) -> &'static str {
        self.row().label
    }

    /// Whether the fault is the upstream's or our own way to it, and not the caller's: counted apart from refusals.
    pub fn is_upstream(self) -> bool {
        matches!(self, Self::UpstreamUnreachable | Self::UpstreamTimeout)
    }

    /// Whether this is a failed authentication: charged to the address, and one body for all of them.
    pub fn is_failed_authentication(self) -> bool {
        self.row().code == "invalid_credentials"
    }
}

/// A refusal of one request: the reason and what this request adds to it.
#[derive(Debug)]
pub struct Rejection {
    /// The row of the table.
    pub reason: Reason,
    /// Whole seconds for `Retry-After`.
    pub retry_after: Option<u64>,
    /// What the caller is told beyond the sentence; never anything about a secret.
    pub hint: Option<Box<str>>,
    /// The scope that was missing, for the Bearer challenge (RFC 6750 §3).
    pub scope: Option<Box<str>>,
    /// The methods for `Allow` (RFC 9110 §15.5.6).
    pub allow: Option<HeaderValue>,
    /// The names of the rate-limit policies that were used up.
    pub violated: Vec<Box<str>>,
    /// What the operator's log says beyond the label; never a secret.
    pub note: Option<Box<str>>,
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        Self { reason, retry_after: None, hint: None, scope: None, allow: None, violated: Vec::new(), note: None }
    }
}

impl Rejection {
    /// Adds what the caller is told beyond the table's sentence.
    pub fn hint(mut self, hint: impl Into<Box<str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds `Retry-After`, in whole seconds.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Adds what the operator's log says beyond the label.
    pub fn note(mut self, note: impl Into<Box<str>>) -> Self {
        self.note = Some(note.into());
        self
    }
}
