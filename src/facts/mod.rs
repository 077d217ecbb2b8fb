//! What is known of a request on arrival, before any key is looked at.

mod address;
mod host;
mod request_id;
mod settings;
mod target;

use std::net::IpAddr;

use http::Method;

pub use address::ClientIpSource;
pub use host::Host;
pub use request_id::RequestId;
pub use settings::{MethodOverride, OddFieldNames, Settings};
pub use target::{Oddities, Oddity, Target};

use crate::rejection::Rejection;

/// Form bodies larger than this are not judged but refused with 413.
pub const MAX_FORM_BYTES: usize = 64 * 1024;

/// What the listener knows of the connection a request came by.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The peer's address: from the PROXY header where one is used.
    pub peer: IpAddr,
    /// Whether the connection is TLS.
    pub secure: bool,
    /// Whether it speaks HTTP/2.
    pub http2: bool,
}

/// What is known of a request on arrival.
#[derive(Debug)]
pub struct Facts {
    /// The client's address, canonical: the peer's, or what a trusted proxy says.
    pub client: IpAddr,
    /// Where the client's address comes from.
    pub client_source: ClientIpSource,
    /// Whether the peer is a trusted proxy.
    pub peer_trusted: bool,
    /// Whether an untrusted peer sent the field that names the client.
    pub untrusted_forwarded: bool,
    /// The method as sent.
    pub method: Method,
    /// The method the upstream will act on, where that is another one.
    pub effective_method: Option<Method>,
    /// The target as it is judged and forwarded.
    pub target: Target,
    /// The path the upstream will act on, where a parameter names one; canonical.
    pub effective_path: Option<Box<str>>,
    /// Whether a form body must be read (up to [`MAX_FORM_BYTES`]) and given to [`Facts::judge_form`] before routing.
    pub form_body_pending: bool,
    /// Whether fields with odd names are present and must be dropped by [`drop_odd_fields`].
    pub odd_fields: bool,
    /// The host the request is for.
    pub host: Host,
    /// Whether the connection is TLS.
    pub secure: bool,
    /// Whether it speaks HTTP/2.
    pub http2: bool,
    /// The caller's request id if it is sane, else a new one.
    pub request_id: RequestId,
    /// Whether this is a CORS preflight: OPTIONS with Origin and Access-Control-Request-Method.
    pub preflight: bool,
}

impl Facts {
    /// Reads the head of a request.
    pub fn from_head(
        _head: &http::request::Parts,
        _arrival: &Arrival,
        _settings: &Settings,
    ) -> Result<Self, (Rejection, RequestId)> {
        unimplemented!("facts room")
    }

    /// Judges a form body, whole and at most [`MAX_FORM_BYTES`] long.
    pub fn judge_form(&mut self, _body: &[u8], _settings: &Settings) -> Result<(), Rejection> {
        unimplemented!("facts room")
    }
}

/// Removes the fields with odd names that are not let through by name.
pub fn drop_odd_fields(_headers: &mut http::HeaderMap, _settings: &Settings) {
    unimplemented!("facts room")
}

/// Whether two field names become one where an upstream folds them as CGI does (RFC 3875 §4.1.18).
pub fn folds_onto(_name: &str, _other: &str) -> bool {
    unimplemented!("facts room")
}
