//! An answer as a service gives it.
//!
//! For HTTP/1 its fields are kept as the lines in which they are sent: to put a line behind another costs a tenth of what
//! a map of them does. For HTTP/2 they are a map from the beginning, which is what its codec takes.

use std::{cell::RefCell, ops::Range};

use ::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use bytes::{Bytes, BytesMut};
use hyper::ext::ReasonPhrase;

use super::framing::{decimal, members};

/// Room for a status line with a usual reason phrase.
const STATUS_ROOM: usize = 48;
/// For how many fields a map has room at first: as many as most answers have.
const USUAL_COUNT: usize = 24;

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
    text: Vec<u8>,
    /// How much in front of them is room for the status line.
    room: usize,
    /// What HTTP/2 has in place of lines, and a [`Response`] has had.
    map: Option<HeaderMap>,
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

/// The name of a field that we write.
#[derive(Debug)]
pub struct OurField {
    /// How its line begins.
    start: &'static str,
    name: HeaderName,
}

impl OurField {
    /// A name in lower case, with a colon and a blank behind it.
    pub const fn new(start: &'static str) -> Self {
        assert!(matches!(start.as_bytes(), [.., b'a'..=b'z', b':', b' ']), "a name, a colon and a blank");
        Self { start, name: HeaderName::from_static(start.split_at(start.len() - 2).0) }
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
        let mut fields = Fields::as_map();
        for (name, value) in &head.headers {
            fields.put(name.clone(), value.clone());
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
    /// No fields, in this memory.
    pub(super) fn with_memory(mut text: Vec<u8>) -> Self {
        text.clear();
        text.extend_from_slice(&[b' '; STATUS_ROOM]);
        Self { text, room: STATUS_ROOM, ..Self::default() }
    }

    /// No fields, in a map.
    pub fn as_map() -> Self {
        Self { map: Some(HeaderMap::with_capacity(USUAL_COUNT)), ..Self::default() }
    }

    /// No fields, and the room that there is for more.
    pub fn clear(&mut self) {
        let map = self.map.take().map(|mut map| {
            map.clear();
            map
        });
        *self = Self { map, ..Self::with_memory(std::mem::take(&mut self.text)) };
    }

    /// Takes the lines, with one before them that consists of these parts. They begin where the number says.
    pub(super) fn take_lines(&mut self, before: &[&[u8]]) -> (Vec<u8>, usize) {
        let (mut text, room) = (std::mem::take(&mut self.text), std::mem::take(&mut self.room));
        for (name, value) in self.map.take().iter().flatten() {
            write_line(&mut text, name.as_str(), value.as_bytes());
        }
        let length = before.iter().map(|part| part.len()).sum();
        let Some(start) = room.checked_sub(length) else {
            text.splice(..room, before.concat());
            return (text, 0);
        };
        let mut rest = &mut text[start..room];
        for part in before {
            let (place, behind) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = behind;
        }
        (text, start)
    }

    /// Adds a field. What frames the message or belongs to the connection is heeded, and not sent as it is.
    pub fn put(&mut self, name: HeaderName, value: HeaderValue) {
        match name {
            header::CONTENT_LENGTH => self.length = decimal(value.as_bytes()),
            header::TRANSFER_ENCODING | header::UPGRADE => {}
            header::CONNECTION => {
                self.closes |= members(value.as_bytes()).any(|option| option.eq_ignore_ascii_case(b"close"));
            }
            header::TRAILER => {
                self.put_trailers(value.as_bytes());
            }
            _ => {
                self.dated |= name == header::DATE;
                match &mut self.map {
                    Some(map) => drop(map.append(name, value)),
                    None => write_line(&mut self.text, name.as_str(), value.as_bytes()),
                }
            }
        }
    }

    /// Adds a field of our own. What frames the message, belongs to the connection or is `Date` has functions of its own.
    #[inline]
    pub fn put_ours(&mut self, name: &'static OurField, value: &HeaderValue) {
        match &mut self.map {
            Some(map) => drop(map.append(&name.name, value.clone())),
            None => self.line(name, value.as_bytes()),
        }
    }

    /// Adds a field of our own that says always the same: visible ASCII and blanks.
    #[inline]
    pub fn put_word(&mut self, name: &'static OurField, value: &'static str) {
        match &mut self.map {
            Some(map) => drop(map.append(&name.name, HeaderValue::from_static(value))),
            None => self.line(name, value.as_bytes()),
        }
    }

    /// Adds fields of our own as lines, of which each begins with one of these names in turn; the values are visible
    /// ASCII and blanks. Nothing of them comes from outside.
    pub fn put_lines(&mut self, lines: &[u8], names: &'static [OurField]) {
        debug_assert!(are_lines(lines, names), "{}", lines.escape_ascii());
        let Some(map) = &mut self.map else { return self.text.extend_from_slice(lines) };
        let lines = shared(lines);
        let mut start = 0;
        for (name, end) in names.iter().zip(memchr::memchr_iter(b'\r', &lines)) {
            let value = start + name.start.len()..end;
            if value.start <= value.end
                && let Ok(value) = HeaderValue::from_maybe_shared(lines.slice(value))
            {
                map.append(&name.name, value);
            }
            start = end + 2;
        }
    }

    fn line(&mut self, name: &OurField, value: &[u8]) {
        self.text.extend_from_slice(name.start.as_bytes());
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(b"\r\n");
    }

    /// Adds the fields of an upstream's answer that `passes` lets pass by their names in lower case: of each, where in
    /// the text of the head its name and its value stand. A name is a token; a value with a control character is left
    /// out, whoever sent it: what is behind a line end would be another field.
    pub fn copy(
        &mut self,
        head: &[u8],
        places: impl Iterator<Item = (Range<usize>, Range<usize>)>,
        passes: impl Fn(&[u8]) -> bool,
    ) {
        if self.map.is_none() {
            return places.for_each(|(name, value)| self.copy_line(&head[name], &head[value], &passes));
        }
        // The codec remembers values, and the memory that they are parts of: that is to be no read buffer.
        let head = Bytes::copy_from_slice(head);
        for (name, value) in places {
            if let Ok(name) = HeaderName::from_bytes(&head[name])
                && passes(name.as_str().as_bytes())
                && let Ok(value) = HeaderValue::from_maybe_shared(head.slice(value))
            {
                self.put(name, value);
            }
        }
    }

    fn copy_line(&mut self, name: &[u8], value: &[u8], passes: impl Fn(&[u8]) -> bool) {
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
            self.put_trailers(value);
            self.text.truncate(start);
            return;
        }
        self.dated |= lower_case == b"date";
        self.text.extend_from_slice(b": ");
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(b"\r\n");
    }

    fn put_trailers(&mut self, names: &[u8]) {
        self.trailers.extend(members(names).filter_map(|name| HeaderName::from_bytes(name).ok()));
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
        debug_assert_eq!(self.text.len(), self.room, "what goes out over HTTP/2 is a map from the beginning");
        let mut map = self.map.unwrap_or_default();
        if let Some(length) = self.length
            && let Ok(length) = HeaderValue::from_maybe_shared(shared(itoa::Buffer::new().format(length).as_bytes()))
        {
            map.insert(header::CONTENT_LENGTH, length);
        }
        for name in self.trailers {
            map.append(header::TRAILER, name.into());
        }
        map
    }
}

/// A copy, in memory that a few answers of a thread share: as long as the codec of a connection remembers one of them,
/// it holds all of it.
fn shared(text: &[u8]) -> Bytes {
    const BLOCK: usize = 1024;
    thread_local! {
        static MEMORY: RefCell<BytesMut> = RefCell::default();
    }
    MEMORY.with_borrow_mut(|memory| {
        if memory.capacity() < text.len() {
            memory.reserve(text.len().max(BLOCK));
        }
        memory.extend_from_slice(text);
        memory.split().freeze()
    })
}

fn are_lines(lines: &[u8], names: &[OurField]) -> bool {
    let mut rest = lines;
    names.iter().all(|name| {
        let Some(value) = rest.strip_prefix(name.start.as_bytes()) else { return false };
        let length = value.iter().take_while(|byte| matches!(byte, b' '..=b'~')).count();
        let Some(behind) = value[length..].strip_prefix(b"\r\n") else { return false };
        rest = behind;
        true
    }) && rest.is_empty()
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

    /// The lines, as they would be sent.
    fn lines(mut fields: Fields) -> String {
        let (text, start) = fields.take_lines(&[]);
        text[start..].escape_ascii().to_string()
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
        assert_eq!((fields.length, fields.closes, fields.dated), (Some(7), true, true));
        assert_eq!(fields.trailers, ["x-a", "x-b"]);
        assert_eq!(lines(fields), r"date: now\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n");
    }

    static OURS: OurField = OurField::new("x-ours: ");
    static TWO: [OurField; 2] = [OurField::new("a: "), OurField::new("b-c: ")];

    /// What the lines say is what a map says, in the same order.
    #[track_caller]
    fn check(put: impl Fn(&mut Fields), expected: &[(&str, &[u8])]) {
        let made = |mut fields: Fields| {
            put(&mut fields);
            fields
        };
        let map = made(Fields::as_map()).into_map();
        let got: Vec<_> = map.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(got, expected);
        let line = |(name, value): &(&str, &[u8])| format!(r"{name}: {}\r\n", value.escape_ascii());
        let expected = expected.iter().map(line).collect::<String>();
        for fields in [Fields::default(), Fields::with_memory(Vec::new()), Fields::as_map()] {
            assert_eq!(lines(made(fields)), expected);
        }
    }

    fn put_theirs(fields: &mut Fields, name: &str, value: &[u8]) {
        put_theirs_if(fields, name, value, |_| true);
    }

    fn put_theirs_if(fields: &mut Fields, name: &str, value: &[u8], passes: impl Fn(&[u8]) -> bool) {
        let head = [b"HTTP/1.1 200 OK\r\n", name.as_bytes(), b": ", value, b"\r\n\r\n"].concat();
        let start = 17 + name.len() + 2;
        fields.copy(&head, [(17..17 + name.len(), start..start + value.len())].into_iter(), passes);
    }

    #[test]
    fn a_map_says_what_the_lines_say() {
        check(|_| {}, &[]);
        check(|fields| fields.put_word(&OURS, ""), &[("x-ours", b"")]);
        check(|fields| fields.put_lines(b"a: 1\r\nb-c: \r\n", &TWO), &[("a", b"1"), ("b-c", b"")]);
        check(|fields| fields.clear(), &[]);
        check(
            |fields| {
                fields.put_word(&OURS, "0");
                fields.clear();
                fields.put_ours(&OURS, &HeaderValue::from_static("1"));
            },
            &[("x-ours", b"1")],
        );
        check(|fields| fields.put_word(&OURS, "a: b, c"), &[("x-ours", b"a: b, c")]);
        check(|fields| put_theirs(fields, "X-Theirs", b"\x80\t\xff"), &[("x-theirs", b"\x80\t\xff")]);
        check(
            |fields| {
                put_theirs(fields, "Vary", b"a");
                fields.put_word(&OURS, "1");
                fields.put(header::SET_COOKIE, HeaderValue::from_static("c"));
                put_theirs(fields, "Date", b"now");
                assert!(fields.dated);
            },
            &[("vary", b"a"), ("x-ours", b"1"), ("set-cookie", b"c"), ("date", b"now")],
        );
    }

    #[test]
    fn what_is_no_line_stands_behind_the_others_in_a_map() {
        let mut fields = Fields::as_map();
        put_theirs(&mut fields, "Trailer", b"x-later, n\x80ne, x-last");
        put_theirs(&mut fields, "vary", b"a");
        put_theirs(&mut fields, "vary", b"b");
        fields.set_length(9);
        let map = fields.into_map();
        let values = |name| map.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(values("vary"), ["a", "b"]);
        assert_eq!(values("trailer"), ["x-later", "x-last"]);
        assert_eq!(values("content-length"), ["9"]);
    }

    #[test]
    fn lines_may_have_others_before_them() {
        for memory in [None, Some(Vec::new()), Some(b"what was there before".repeat(9))] {
            let long = "x".repeat(STATUS_ROOM + 1);
            for before in ["", "status", &long[2..], &long] {
                let mut fields = memory.clone().map_or_else(Fields::default, Fields::with_memory);
                fields.put_word(&OURS, "1");
                let (text, start) = fields.take_lines(&[before.as_bytes(), b"|"]);
                assert_eq!(std::str::from_utf8(&text[start..]).unwrap(), format!("{before}|x-ours: 1\r\n"));
                fields.clear();
                fields.put_word(&OURS, "2");
                assert_eq!(lines(fields), r"x-ours: 2\r\n");
            }
        }
    }

    #[test]
    fn a_name_is_asked_for_in_lower_case() {
        let put = |fields: &mut Fields| {
            for name in ["X-Keep", "X-DROP", "Date", "Trailer"] {
                put_theirs_if(fields, name, b"x-later", |name| {
                    assert!(!name.iter().any(u8::is_ascii_uppercase));
                    name != b"x-drop"
                });
            }
            assert!(fields.dated);
            assert_eq!(std::mem::take(&mut fields.trailers), ["x-later"]);
        };
        check(put, &[("x-keep", b"x-later"), ("date", b"x-later")]);
    }

    #[test]
    fn what_are_no_lines_of_ours_is_none() {
        assert!(are_lines(b"", &[]) && are_lines(b"a: 1\r\nb-c: \r\n", &TWO));
        for lines in [
            "a: 1\r\n",
            "a: 1\nb-c: 2\n",
            "a: 1\r\nb-c: 2",
            "a: 1\r\nb-c: 2\r\n\r\n",
            "a: 1\r\nb-c: 2\r\nd: 3\r\n",
            "a: 1\r\nx: 2\r\n",
            "a: \u{e9}\r\nb-c: 2\r\n",
        ] {
            assert!(!are_lines(lines.as_bytes(), &TWO), "{lines:?}");
        }
    }

    #[test]
    fn no_value_begins_another_line() {
        for byte in (0..b' ').filter(|byte| *byte != b'\t').chain([0x7f]) {
            check(|fields| put_theirs(fields, "x", &[b'a', byte, b'b']), &[]);
        }
    }
}
