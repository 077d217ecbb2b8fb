//! An answer as a service gives it.
//!
//! For HTTP/1 its fields are kept as the lines in which they are sent: to put a line behind another costs a tenth of what
//! a map of them does. For HTTP/2 they are a map from the beginning, which is what its codec takes.

use std::cell::RefCell;

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
    /// Name, colon, blank, value, line end; in front of them, where the memory was used before, room for what HTTP/1.1
    /// begins with.
    text: Vec<u8>,
    room: usize,
    /// What HTTP/2 has in place of lines.
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
    /// No fields, in this memory.
    pub(super) fn with_memory(mut text: Vec<u8>) -> Self {
        text.clear();
        text.extend_from_slice(&[b' '; STATUS_ROOM]);
        Self { text, room: STATUS_ROOM, ..Self::default() }
    }

    /// No fields, to be sent over HTTP/2.
    pub(super) fn http2() -> Self {
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
        for (name, value) in self.map.take().iter().flat_map(|map| map.iter()) {
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
                match &mut self.map {
                    Some(map) => drop(map.append(name.clone(), value.clone())),
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
            if let Ok(value) = HeaderValue::from_maybe_shared(lines.slice(start + name.start.len()..end)) {
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

    /// Adds a field as an upstream spells it, if it `passes` by its name in lower case. Both are parts of `head`. The
    /// name is a token; a value with a control character is left out, whoever sent it: what is behind a line end would
    /// be another field.
    pub fn put_if(&mut self, head: &Bytes, name: &[u8], value: &[u8], passes: impl FnOnce(&[u8]) -> bool) {
        if let Some(map) = &mut self.map {
            let Ok(name) = HeaderName::from_bytes(name) else { return };
            if passes(name.as_str().as_bytes())
                && let Ok(value) = HeaderValue::from_maybe_shared(head.slice_ref(value))
            {
                self.dated |= name == header::DATE;
                map.append(name, value);
            }
            return;
        }
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
        let mut map = match self.map {
            Some(map) => map,
            None => read_back(Bytes::from(self.text).split_off(self.room)),
        };
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

/// A copy, in memory that the answers of a thread share.
fn shared(text: &[u8]) -> Bytes {
    const BLOCK: usize = 4 * 1024;
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

/// What the lines of an answer say, where it goes out over HTTP/2 all the same.
fn read_back(text: Bytes) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(USUAL_COUNT);
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
    map
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

    fn shown(fields: &Fields) -> &str {
        std::str::from_utf8(&fields.text[fields.room..]).unwrap()
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

    static OURS: OurField = OurField::new("x-ours: ");
    static TWO: [OurField; 2] = [OurField::new("a: "), OurField::new("b-c: ")];

    /// What the lines say is what a map says, in the same order; and what a map says can be sent as lines.
    #[track_caller]
    fn check_map(put: impl Fn(&mut Fields), expected: &[(&str, &[u8])]) {
        for mut fields in [Fields::default(), Fields::with_memory(Vec::new()), Fields::http2()] {
            put(&mut fields);
            let map = fields.into_map();
            let got: Vec<_> = map.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
            assert_eq!(got, expected);
        }
        let [as_lines, as_map] = [Fields::default(), Fields::http2()].map(|mut fields| {
            put(&mut fields);
            let (text, start) = fields.take_lines(&[]);
            text[start..].escape_ascii().to_string()
        });
        assert_eq!(as_lines, as_map);
    }

    fn put_theirs(fields: &mut Fields, name: &str, value: &[u8]) {
        let head = Bytes::from([name.as_bytes(), b": ", value].concat());
        fields.put_if(&head, &head[..name.len()], &head[name.len() + 2..], |_| true);
    }

    #[test]
    fn a_map_says_what_the_lines_say() {
        check_map(|_| {}, &[]);
        check_map(|fields| fields.put_word(&OURS, ""), &[("x-ours", b"")]);
        check_map(|fields| fields.put_lines(b"a: 1\r\nb-c: \r\n", &TWO), &[("a", b"1"), ("b-c", b"")]);
        check_map(|fields| fields.clear(), &[]);
        check_map(
            |fields| {
                fields.put_word(&OURS, "0");
                fields.clear();
                fields.put_ours(&OURS, &HeaderValue::from_static("1"));
            },
            &[("x-ours", b"1")],
        );
        check_map(|fields| fields.put_word(&OURS, "a: b, c"), &[("x-ours", b"a: b, c")]);
        check_map(|fields| put_theirs(fields, "X-Theirs", b"\x80\t\xff"), &[("x-theirs", b"\x80\t\xff")]);
        check_map(
            |fields| {
                put_theirs(fields, "Vary", b"a");
                fields.put_word(&OURS, "1");
                fields.put(&header::SET_COOKIE, &HeaderValue::from_static("c"));
                put_theirs(fields, "Date", b"now");
                assert!(fields.dated);
            },
            &[("vary", b"a"), ("x-ours", b"1"), ("set-cookie", b"c"), ("date", b"now")],
        );
    }

    #[test]
    fn what_is_no_part_of_the_lines_stands_behind_them_in_a_map() {
        for mut fields in [Fields::default(), Fields::http2()] {
            put_theirs(&mut fields, "vary", b"a");
            put_theirs(&mut fields, "vary", b"b");
            put_theirs(&mut fields, "trailer", b"x-later");
            fields.set_length(9);
            let map = fields.into_map();
            let values = |name| map.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
            assert_eq!(
                (values("vary"), values("trailer"), values("content-length")),
                (vec!["a", "b"], vec!["x-later"], vec!["9"])
            );
        }
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
                assert_eq!(shown(&fields), "x-ours: 2\r\n");
            }
        }
    }

    #[test]
    fn a_name_is_asked_for_in_lower_case() {
        for mut fields in [Fields::default(), Fields::http2()] {
            for name in ["X-Keep", "X-DROP", "Date", "Trailer"] {
                let head = Bytes::from(format!("{name}: x-later"));
                fields.put_if(&head, &head[..name.len()], &head[name.len() + 2..], |name| {
                    assert!(!name.iter().any(u8::is_ascii_uppercase));
                    name != b"x-drop"
                });
            }
            assert!(fields.dated);
            let map = fields.into_map();
            let got: Vec<_> = map.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
            assert_eq!(got, [("x-keep", &b"x-later"[..]), ("date", b"x-later"), ("trailer", b"x-later")]);
        }
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
        for mut fields in [Fields::default(), Fields::http2()] {
            for byte in (0..b' ').filter(|byte| *byte != b'\t').chain([0x7f]) {
                put_theirs(&mut fields, "x", &[b'a', byte, b'b']);
            }
            assert!(fields.into_map().is_empty());
        }
    }
}
