//! The id of a request.

use http::HeaderValue;

/// The id of a request: the caller's if it is sane, else a new one.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// A new id; takes no allocation and no system call but once in a while.
    pub fn new() -> Self {
        unimplemented!("facts room")
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The id as a field value; a cheap clone.
    pub fn header_value(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}
