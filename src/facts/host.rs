//! The host a request is for.

/// The host a request is for: exactly one, valid.
#[derive(Clone, Debug)]
pub struct Host;

impl Host {
    /// The name: lower case, without port, without a final dot; an IPv6 literal keeps its brackets.
    pub fn name(&self) -> &str {
        unimplemented!("facts room")
    }

    /// The host and port as the client sent them.
    pub fn authority(&self) -> &str {
        unimplemented!("facts room")
    }

    /// The port, where one was sent.
    pub fn port(&self) -> Option<u16> {
        unimplemented!("facts room")
    }

    /// What was sent, as a field value; copies nothing when it came as a field.
    pub fn header_value(&self) -> http::HeaderValue {
        unimplemented!("facts room")
    }
}
