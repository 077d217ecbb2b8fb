use http::{HeaderValue, StatusCode};

use super::{Format, Rejection};

/// A rendered refusal: what the caller's format makes of a row of the table.
#[derive(Debug)]
pub struct Body {
    /// The status; WooCommerce's dialect changes some.
    pub status: StatusCode,
    /// The media type.
    pub content_type: HeaderValue,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Renders a refusal in the given format. `writes` says whether the effective method writes, `lists` whether the
/// path names a collection: the WooCommerce dialect words its answers by them.
pub fn render(_rejection: &Rejection, _format: Format, _request_id: &str, _method: &http::Method) -> Body {
    unimplemented!("rejection room")
}
