//! The bodies to which a request adds nothing but its id: written once each, then copied.

use std::sync::OnceLock;

use http::{HeaderValue, Method, StatusCode};

use super::{
    Body, Format, Reason, Rejection, TABLE,
    body::written,
    json::{Json, escape},
};

/// A body, but for the request id.
pub(super) struct Template {
    status: StatusCode,
    content_type: &'static HeaderValue,
    before: &'static [u8],
    /// What follows the request id, where the body has one.
    after: Option<&'static [u8]>,
}

/// How many bodies a row of the table may have: one in each format but WooCommerce's, which has one per kind of method.
const SHAPES: usize = 3 + 5;

/// The template of a refusal, written when it is first asked for.
pub(super) fn of(reason: Reason, format: Format, method: &Method) -> &'static Template {
    static TEMPLATES: [[OnceLock<Template>; TABLE.len()]; SHAPES] =
        [const { [const { OnceLock::new() }; TABLE.len()] }; SHAPES];
    TEMPLATES[shape(format, method)][reason as usize].get_or_init(|| Template::new(reason, format, method))
}

/// Methods of one kind get the same body.
fn shape(format: Format, method: &Method) -> usize {
    match (format, method) {
        (Format::Problem, _) => 0,
        (Format::WordPress, _) => 1,
        (Format::Envelope, _) => 2,
        (Format::WooCommerce, &(Method::GET | Method::HEAD)) => 3,
        (Format::WooCommerce, &Method::POST) => 4,
        (Format::WooCommerce, &(Method::PUT | Method::PATCH)) => 5,
        (Format::WooCommerce, &Method::DELETE) => 6,
        (Format::WooCommerce, _) => 7,
    }
}

impl Template {
    fn new(reason: Reason, format: Format, method: &Method) -> Self {
        let Json { status, content_type, bytes, request_id_at } =
            written(&Rejection::from(reason), None, format, b"", method);
        // The table is never dropped either.
        let bytes: &'static [u8] = bytes.leak();
        match request_id_at {
            Some(at) => Self { status, content_type, before: &bytes[..at], after: Some(&bytes[at..]) },
            None => Self { status, content_type, before: bytes, after: None },
        }
    }

    /// The body for the request with this id.
    pub(super) fn body(&self, request_id: &[u8]) -> Body {
        let bytes = match self.after {
            Some(after) => {
                let mut bytes = Vec::with_capacity(self.before.len() + request_id.len() + after.len());
                bytes.extend_from_slice(self.before);
                escape(request_id, &mut bytes);
                bytes.extend_from_slice(after);
                bytes.into()
            }
            None => bytes::Bytes::from_static(self.before),
        };
        Body { status: self.status, content_type: self.content_type, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [Format; 4] = [Format::Problem, Format::WordPress, Format::WooCommerce, Format::Envelope];
    const METHODS: [&str; 10] =
        ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PURGE"];

    /// The template's body is the one that would be written for the request.
    #[track_caller]
    fn check(reason: Reason, format: Format, method: &Method, request_id: &[u8]) {
        let anew = written(&Rejection::from(reason), None, format, request_id, method);
        let expected = Body { status: anew.status, content_type: anew.content_type, bytes: anew.bytes.into() };
        let body = of(reason, format, method).body(request_id);
        assert_eq!(body, expected, "{reason:?} in {format:?} to {method}");
    }

    #[test]
    fn every_row_is_the_same_byte_for_byte_in_every_format_and_for_every_method() {
        for row in TABLE {
            for format in FORMATS {
                for method in METHODS {
                    let method = Method::from_bytes(method.as_bytes()).unwrap();
                    for request_id in ["", "01jd3x", "Root=1-67891233:abc/def+g", "a\"b\\c</script>\u{7f}\n\u{e9}"] {
                        check(row.reason, format, &method, request_id.as_bytes());
                    }
                }
            }
        }
    }
}
