//! An answer as a service gives it.
//!
//! Its fields are kept as the lines in which HTTP/1.1 sends them: most answers go out so, and to put a line behind
//! another costs a tenth of what a map of them does. For HTTP/2 they are read back into one.

use ::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use hyper::ext::ReasonPhrase;

use super::framing::{decimal, members};

/// A status, fields and a body.
#[derive(Debug)]
pub struct Answer<B> {
    pub(super) head: AnswerHead,
    pub(super) body: B,
}

/// A status and fields.
#[derive(Debug)]
pub(super) struct AnswerHead {
    pub(super) status: StatusCode,
    pub(super) reason: Option<ReasonPhrase>,
    pub(super) fields: Fields,
}

/// The fields of an answer.
///
/// How its body is framed is said by the listener, from what it knows of the body; so is `Date`, where the service says
/// none.
#[derive(Debug, Default)]
pub struct Fields {
    /// Name, colon, blank, value, line end.
    pub(super) text: Vec<u8>,
    count: usize,
    /// `Content-Length`, of a body that need not be there.
    pub(super) length: Option<u64>,
    /// Whether the connection is to be closed behind it (HTTP/1).
    pub(super) closes: bool,
    /// Whether there is a `Date`.
    pub(super) dated: bool,
    /// The trailer fields that are announced.
    pub(super) trailers: Vec<HeaderName>,
    /// The protocol that the connection switches to.
    pub(super) switches_to: Option<HeaderValue>,
}

/// The name of a field that we write, as a line begins with it.
#[derive(Clone, Copy, Debug)]
pub struct OurField(&'static str);

impl OurField {
    /// A name in lower case, with a colon and a blank behind it.
    pub const fn new(start: &'static str) -> Self {
        assert!(matches!(start.as_bytes(), [.., b'a'..=b'z', b':', b' ']), "a name, a colon and a blank");
        Self(start)
    }
}

impl<B> Answer<B> {
    /// An answer.
    pub fn new(status: StatusCode, fields: Fields, body: B) -> Self {
        Self { head: AnswerHead { status, reason: None, fields }, body }
    }

    /// With another reason phrase than the usual one (HTTP/1).
    pub fn reason(mut self, reason: Option<ReasonPhrase>) -> Self {
        self.head.reason = reason;
        self
    }

    /// Its fields as a map.
    pub fn into_fields(self) -> HeaderMap {
        self.head.fields.into_map()
    }

    /// The same with another body.
    pub fn map<C>(self, map: impl FnOnce(B) -> C) -> Answer<C> {
        Answer { head: self.head, body: map(self.body) }
    }
}

impl<B> From<Response<B>> for Answer<B> {
    fn from(response: Response<B>) -> Self {
        let (mut head, body) = response.into_parts();
        let mut fields = Fields::default();
        for (name, value) in &head.headers {
            fields.put(name, value);
        }
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            fields.switches_to = head.headers.remove(header::UPGRADE);
        }
        Self { head: AnswerHead { status: head.status, reason: head.extensions.remove(), fields }, body }
    }
}

impl AnswerHead {
    /// The head of an answer over HTTP/2.
    pub(super) fn into_response<B>(self, body: B) -> Response<B> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.fields.into_map();
        response
    }
}

impl Fields {
    /// No fields, and room for these bytes of them.
    pub(super) fn with_memory(text: Vec<u8>) -> Self {
        Self { text, ..Self::default() }
    }

    /// No fields, and the room that there is for more.
    pub fn clear(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        *self = Self::with_memory(text);
    }

    /// Adds a field. What frames the message or belongs to the connection is heeded, and not sent as it is.
    pub fn put(&mut self, name: &HeaderName, value: &HeaderValue) {
        match *name {
            header::CONTENT_LENGTH => self.length = decimal(value.as_bytes()),
            header::TRANSFER_ENCODING | header::UPGRADE => {}
            header::CONNECTION => {
                self.closes |= members(value.as_bytes()).any(|option| option.eq_ignore_ascii_case(b"close"));
            }
            header::TRAILER => {
                self.trailers.extend(members(value.as_bytes()).filter_map(|name| HeaderName::from_bytes(name).ok()));
            }
            _ => {
                self.dated |= *name == header::DATE;
                self.count += 1;
                write_line(&mut self.text, name.as_str(), value.as_bytes());
            }
        }
    }

    /// Adds a field of our own. What frames the message, belongs to the connection or is `Date` has functions of its own.
    #[inline]
    pub fn put_ours(&mut self, name: OurField, value: &HeaderValue) {
        self.line(name, value.as_bytes());
    }

    /// Adds a field of our own that says always the same: visible ASCII and blanks.
    #[inline]
    pub fn put_word(&mut self, name: OurField, value: &'static str) {
        self.line(name, value.as_bytes());
    }

    /// Adds a field of our own, of visible ASCII and blanks. Any other is left out.
    pub fn put_text(&mut self, name: OurField, value: &[u8]) {
        let is_text = value.iter().fold(true, |all, byte| all & matches!(byte, b' '..=b'~'));
        debug_assert!(is_text, "{}", value.escape_ascii());
        if is_text {
            self.line(name, value);
        }
    }

    fn line(&mut self, OurField(name): OurField, value: &[u8]) {
        self.count += 1;
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(b"\r\n");
    }

    /// Adds a field as an upstream spells it, if it `passes` by its name in lower case. The name is a token; a value
    /// with a control character is left out, whoever sent it: what is behind a line end would be another field.
    pub fn put_if(&mut self, name: &[u8], value: &[u8], passes: impl FnOnce(&[u8]) -> bool) {
        let start = self.text.len();
        self.text.extend_from_slice(name);
        let lower_case = &mut self.text[start..];
        lower_case.make_ascii_lowercase();
        let lower_case = &*lower_case;
        let is_control = |byte: u8| (byte < b' ' && byte != b'\t') || byte == 0x7f;
        if !passes(lower_case) || value.iter().fold(false, |any, &byte| any | is_control(byte)) {
            self.text.truncate(start);
            return;
        }
        if lower_case == b"trailer" {
            self.trailers.extend(members(value).filter_map(|name| HeaderName::from_bytes(name).ok()));
            self.text.truncate(start);
            return;
        }
        self.dated |= lower_case == b"date";
        self.count += 1;
        self.text.extend_from_slice(b": ");
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(b"\r\n");
    }

    /// Says how long the body is, also where it is not sent: to HEAD.
    pub fn set_length(&mut self, bytes: u64) {
        self.length = Some(bytes);
    }

    /// The connection is to be closed behind the answer (HTTP/1).
    pub fn close(&mut self) {
        self.closes = true;
    }

    /// The connection switches to this protocol; the status is 101.
    pub fn switch_to(&mut self, protocol: HeaderValue) {
        self.switches_to = Some(protocol);
    }

    fn into_map(self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.count + 2);
        let text = Bytes::from(self.text);
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &text) {
            let line = text[start..end].strip_suffix(b"\r").unwrap_or_default();
            let colon = memchr::memchr(b':', line).unwrap_or(line.len());
            let value = start + colon + 2..start + line.len();
            let value = (value.start <= value.end).then(|| HeaderValue::from_maybe_shared(text.slice(value)));
            start = end + 1;
            match (HeaderName::from_bytes(&line[..colon]), value) {
                (Ok(name), Some(Ok(value))) => {
                    map.append(name, value);
                }
                _ => debug_assert!(false, "a line that is no field: {}", line.escape_ascii()),
            }
        }
        if let Some(length) = self.length {
            map.insert(header::CONTENT_LENGTH, length.into());
        }
        for name in self.trailers {
            map.append(header::TRAILER, name.into());
        }
        map
    }
}

pub(super) fn write_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(fields: &Fields) -> &str {
        std::str::from_utf8(&fields.text).unwrap()
    }

    #[test]
    fn what_frames_a_message_is_heeded_and_not_sent() {
        let response = Response::builder()
            .header("content-length", "7")
            .header("transfer-encoding", "chunked")
            .header("connection", "x-hop, Close")
            .header("trailer", "x-a, X-B")
            .header("date", "now")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2")
            .body(())
            .unwrap();
        let fields = Answer::from(response).head.fields;
        assert_eq!(shown(&fields), "date: now\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n");
        assert_eq!((fields.length, fields.closes, fields.dated), (Some(7), true, true));
        assert_eq!(fields.trailers, ["x-a", "x-b"]);
    }

    /// What the lines say is what a map says, in the same order.
    #[track_caller]
    fn check_map(put: impl Fn(&mut Fields), expected: &[(&str, &[u8])]) {
        let mut fields = Fields::default();
        put(&mut fields);
        let map = fields.into_map();
        let got: Vec<_> = map.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn lines_are_read_back_as_they_were_written() {
        const OURS: OurField = OurField::new("x-ours: ");
        check_map(|_| {}, &[]);
        check_map(|fields| fields.put_text(OURS, b""), &[("x-ours", b"")]);
        check_map(|fields| fields.put_text(OURS, b"a: b, c"), &[("x-ours", b"a: b, c")]);
        check_map(|fields| fields.put_if(b"X-Theirs", b"\x80\t\xff", |_| true), &[("x-theirs", b"\x80\t\xff")]);
        check_map(
            |fields| {
                fields.put_if(b"Vary", b"a", |_| true);
                fields.put_word(OURS, "1");
                fields.put_if(b"vary", b"b", |_| true);
                fields.set_length(9);
            },
            &[("vary", b"a"), ("vary", b"b"), ("x-ours", b"1"), ("content-length", b"9")],
        );
    }

    #[test]
    fn a_name_is_asked_for_in_lower_case() {
        let mut fields = Fields::default();
        for name in ["X-Keep", "X-DROP", "Date", "Trailer"] {
            fields.put_if(name.as_bytes(), b"x-later", |name| {
                assert!(!name.iter().any(u8::is_ascii_uppercase));
                name != b"x-drop"
            });
        }
        assert_eq!(shown(&fields), "x-keep: x-later\r\ndate: x-later\r\n");
        assert!(fields.dated);
        assert_eq!(fields.trailers, ["x-later"]);
    }

    #[test]
    fn no_value_begins_another_line() {
        let mut fields = Fields::default();
        for byte in (0..b' ').filter(|byte| *byte != b'\t').chain([0x7f]) {
            fields.put_if(b"x", &[b'a', byte, b'b'], |_| true);
        }
        assert_eq!(shown(&fields), "");
    }
}
