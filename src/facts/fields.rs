//! One pass over the fields of a request.

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::{OddFieldNames, RequestId, Settings};
use crate::{
    policy::effective,
    rejection::{Reason, Rejection},
};

/// More field lines than this are too many: what HTTP/1.1 parsing stops at holds for HTTP/2 too.
const MAX_LINES: usize = 100;

/// What a field line weighs beyond its name and value: a colon, a space and the line's end.
const LINE_OVERHEAD: usize = 4;

/// What one pass over the fields has seen. Nothing is judged in it, so that whatever is wrong is answered in the
/// order of the rules and not of the fields, and with the caller's request id.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) hosts: SmallVec<[&'a HeaderValue; 2]>,
    pub(super) overrides: SmallVec<[&'a HeaderValue; 2]>,
    pub(super) has_origin: bool,
    pub(super) has_requested_method: bool,
    pub(super) form: Form,
    pub(super) odd: Option<&'a HeaderName>,
    /// Whether the field that names the client was sent.
    pub(super) names_client: bool,
    /// Whether a value begins or ends with white space.
    padded: bool,
    request_ids: SmallVec<[&'a HeaderValue; 1]>,
    transfer_codings: SmallVec<[&'a HeaderValue; 1]>,
    has_length: bool,
    lines: usize,
    bytes: usize,
}

/// The kinds of form that a body is said to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) url_encoded: bool,
    pub(super) multipart: bool,
}

impl Form {
    pub(super) fn is_any(self) -> bool {
        self.url_encoded || self.multipart
    }

    /// Adds what a Content-Type says. PHP cuts the type at `;`, `,` or a space and ignores case; a longer name that
    /// begins like one of these is taken for it too.
    fn add(&mut self, content_type: &HeaderValue) {
        let begins = |kind: &[u8]| {
            content_type.as_bytes().get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind))
        };
        self.url_encoded |= begins(b"application/x-www-form-urlencoded");
        self.multipart |= begins(b"multipart/form-data");
    }
}

impl<'a> Fields<'a> {
    pub(super) fn read(headers: &'a HeaderMap, settings: &Settings) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            fields.lines += 1;
            fields.names_client |= *name == settings.client_ip_header;
            fields.padded |= is_padded(value.as_bytes());
            fields.bytes += name.as_str().len() + value.len() + LINE_OVERHEAD;
            match name.as_str() {
                "host" => fields.hosts.push(value),
                "x-request-id" => fields.request_ids.push(value),
                "origin" => fields.has_origin = true,
                "access-control-request-method" => fields.has_requested_method = true,
                "content-type" => fields.form.add(value),
                "content-length" => fields.has_length = true,
                "transfer-encoding" => fields.transfer_codings.push(value),
                text if text.starts_with("x-") && effective::METHOD_FIELDS.contains(&text) => {
                    fields.overrides.push(value);
                }
                text if is_odd(text) && !settings.pass_field_names.contains(name) => {
                    fields.odd.get_or_insert(name);
                }
                _ => {}
            }
        }
        fields
    }

    /// The caller's request id if there is one and it is sane, else a new one.
    pub(super) fn request_id(&self) -> RequestId {
        match self.request_ids.as_slice() {
            [sent] => RequestId::sane(sent).unwrap_or_default(),
            _ => RequestId::new(),
        }
    }

    /// Refuses framing that the library below lets pass and another parser may read differently: any coding but
    /// exactly `chunked`, once, and without a length (RFC 9112 §6.1); and white space around a value, which HTTP/2
    /// forbids and carries all the same (RFC 9113 §8.2.1), and of which a reader of HTTP/1.1 sees nothing.
    pub(super) fn judge_framing(&self) -> Result<(), Rejection> {
        if self.padded {
            let hint = "The value of a field begins or ends with white space.";
            return Err(Rejection::from(Reason::AmbiguousFraming).hint(hint));
        }
        match self.transfer_codings.as_slice() {
            [] => Ok(()),
            [coding] if coding.as_bytes().eq_ignore_ascii_case(b"chunked") && !self.has_length => Ok(()),
            _ => Err(Reason::AmbiguousFraming.into()),
        }
    }

    /// Refuses odd names, unless they are dropped.
    pub(super) fn judge_names(&self, settings: &Settings) -> Result<(), Rejection> {
        match (self.odd, settings.odd_field_names) {
            (Some(name), OddFieldNames::Refuse) => {
                Err(Rejection::from(Reason::AmbiguousFieldName).hint(format!("The field is \"{name}\".")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn judge_size(&self, settings: &Settings) -> Result<(), Rejection> {
        if self.lines > MAX_LINES || self.bytes > settings.max_header_bytes {
            return Err(Reason::HeadersTooLarge.into());
        }
        Ok(())
    }
}

fn is_padded(value: &[u8]) -> bool {
    matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t'])
}

/// Whether a name holds anything but letters, digits and hyphens. Where an upstream folds such names, as CGI does,
/// they are twins of others: of ours, or of those that were judged.
fn is_odd(name: &str) -> bool {
    // Every name of every request passes here: a table and no early end take a third of the time.
    const ODD: [bool; 256] = {
        let mut odd = [true; 256];
        let mut byte = 0;
        while byte < 256 {
            odd[byte] = !(byte as u8).is_ascii_alphanumeric() && byte as u8 != b'-';
            byte += 1;
        }
        odd
    };
    name.bytes().fold(false, |odd, byte| odd | ODD[usize::from(byte)])
}

/// Removes the fields with odd names that are not let through by name.
pub fn drop_odd_fields(headers: &mut HeaderMap, settings: &Settings) {
    let odd: Vec<_> = headers
        .keys()
        .filter(|name| is_odd(name.as_str()) && !settings.pass_field_names.contains(name))
        .cloned()
        .collect();
    for name in odd {
        headers.remove(name);
    }
}

/// Whether two field names become one where an upstream folds them as CGI does (RFC 3875 §4.1.18), or as servers do
/// that fold every other mark as well.
pub fn folds_onto(name: &str, other: &str) -> bool {
    let folded = |name: &str| {
        name.bytes()
            .map(|byte| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'_' })
            .collect::<Vec<_>>()
    };
    folded(name) == folded(other)
}
