//! One line of the access log.

use std::{cell::Cell, net::IpAddr, time::Duration};

use crate::{
    clock::Wall,
    keys::{KeyId, OwnerId},
    rejection::Reason,
    telemetry::{Outcome, log::Format},
};

/// No field of a line is longer than this, so that a hostile path does not push other lines out.
const LONGEST_FIELD: usize = 2048;

/// What is logged of one request. Everything in it may be hostile; nothing in it may be secret.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// When the request ended.
    pub now: Wall,
    /// The request id that caller and upstream got: letters, digits and `-_.:+/=`, at most 128.
    pub request_id: &'a [u8],
    /// The address that the request was judged by.
    pub client: IpAddr,
    /// The address that the connection came from.
    pub peer: IpAddr,
    /// The method as sent.
    pub method: &'a str,
    /// The host as sent.
    pub host: &'a [u8],
    /// The path without the query; what follows a `?` is not logged, since credentials may stand there.
    pub path: &'a str,
    /// The version of HTTP that the client spoke.
    pub http_version: http::Version,
    /// The status that the client got; 0 when it got none.
    pub status: u16,
    /// How the request ended.
    pub outcome: Outcome,
    /// Why it was refused or failed.
    pub reason: Option<Reason>,
    /// The key, once it was recognised.
    pub key_id: Option<&'a KeyId>,
    /// Its owner.
    pub owner: Option<&'a OwnerId>,
    /// The route that matched, as it is configured.
    pub route: Option<&'a str>,
    /// What the operator should know beyond the reason; never anything secret.
    pub note: Option<&'a str>,
    /// From the head of the request to the end of the answer.
    pub duration: Duration,
    /// The part of it that was spent waiting for the upstream, if it was asked.
    pub upstream_duration: Option<Duration>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Whether the connection was TLS.
    pub tls: bool,
}

impl Line<'_> {
    /// Appends the line and a newline.
    pub(super) fn format(&self, format: Format, out: &mut Vec<u8>) {
        match format {
            Format::Json => self.json(out),
            Format::Text => self.text(out),
        }
    }

    fn json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        timestamp(self.now, out);
        out.push(b'"');
        self.fields(&mut Json(out));
        out.extend_from_slice(b"}\n");
    }

    fn text(&self, out: &mut Vec<u8>) {
        timestamp(self.now, out);
        self.fields(&mut Text(out));
        out.push(b'\n');
    }

    /// All fields but the time, in the order of the line.
    fn fields(&self, out: &mut impl Fields) {
        let path = self.path.as_bytes();
        let query = path.iter().position(|byte| matches!(byte, b'?' | b'#'));
        out.field(name!("request_id"), Value::Id(self.request_id));
        out.field(name!("client"), Value::Address(self.client));
        if self.peer != self.client {
            out.field(name!("peer"), Value::Address(self.peer));
        }
        out.field(name!("method"), Value::Text(self.method.as_bytes()));
        out.field(name!("host"), Value::Text(self.host));
        out.field(name!("path"), Value::Text(&path[..query.unwrap_or(path.len())]));
        out.field(name!("http_version"), Value::Word(version(self.http_version)));
        out.field(name!("tls"), Value::Bare(if self.tls { "true" } else { "false" }));
        out.field(name!("status"), Value::Number(u64::from(self.status)));
        out.field(name!("outcome"), Value::Word(self.outcome.label()));
        if let Some(reason) = self.reason {
            out.field(name!("reason"), Value::Word(reason.label()));
        }
        if let Some(key) = self.key_id {
            out.field(name!("key_id"), Value::Text(key.as_str().as_bytes()));
        }
        if let Some(owner) = self.owner {
            out.field(name!("owner"), Value::Text(owner.as_str().as_bytes()));
        }
        if let Some(route) = self.route {
            out.field(name!("route"), Value::Text(route.as_bytes()));
        }
        out.field(name!("duration_ms"), Value::Millis(self.duration));
        if let Some(upstream) = self.upstream_duration {
            out.field(name!("upstream_duration_ms"), Value::Millis(upstream));
        }
        out.field(name!("bytes_in"), Value::Number(self.bytes_in));
        out.field(name!("bytes_out"), Value::Number(self.bytes_out));
        if let Some(note) = self.note {
            out.field(name!("note"), Value::Text(note.as_bytes()));
        }
    }
}

/// What stands before a value, in each format.
#[derive(Clone, Copy)]
struct Name {
    json: &'static str,
    text: &'static str,
}

macro_rules! name {
    ($name:literal) => {
        Name { json: concat!(",\"", $name, "\":"), text: concat!(" ", $name, "=") }
    };
}
use name;

enum Value<'a> {
    /// Any text; hostile ones may not even be UTF-8.
    Text(&'a [u8]),
    /// A text that needs no escapes in a JSON string.
    Id(&'a [u8]),
    /// A word of a closed list, which needs neither quotes nor escapes.
    Word(&'static str),
    /// The same, where it is none of a JSON string either.
    Bare(&'static str),
    Address(IpAddr),
    Number(u64),
    Millis(Duration),
}

/// A line in the making. Inlined into the list of fields, so that a name is copied by a few moves.
trait Fields {
    fn field(&mut self, name: Name, value: Value<'_>);
}

struct Json<'a>(&'a mut Vec<u8>);

impl Fields for Json<'_> {
    #[inline(always)]
    fn field(&mut self, name: Name, value: Value<'_>) {
        let Self(out) = self;
        out.extend_from_slice(name.json.as_bytes());
        match value {
            Value::Text(text) => quoted(text, out),
            Value::Id(id) => {
                debug_assert!(is_plain(id) && id.len() <= LONGEST_FIELD, "{}", id.escape_ascii());
                out.push(b'"');
                out.extend_from_slice(id);
                out.push(b'"');
            }
            Value::Word(word) => {
                out.push(b'"');
                out.extend_from_slice(word.as_bytes());
                out.push(b'"');
            }
            Value::Address(address) => {
                out.push(b'"');
                push_address(address, out);
                out.push(b'"');
            }
            Value::Bare(word) => out.extend_from_slice(word.as_bytes()),
            Value::Number(number) => push_number(number, out),
            Value::Millis(duration) => push_millis(duration, out),
        }
    }
}

struct Text<'a>(&'a mut Vec<u8>);

impl Fields for Text<'_> {
    #[inline(always)]
    fn field(&mut self, name: Name, value: Value<'_>) {
        let Self(out) = self;
        out.extend_from_slice(name.text.as_bytes());
        match value {
            // Plain words stand as they are; anything that could be taken for the next field is quoted.
            Value::Text(word) | Value::Id(word) if is_word(word) => out.extend_from_slice(word),
            Value::Text(text) | Value::Id(text) => quoted(text, out),
            Value::Word(word) | Value::Bare(word) => out.extend_from_slice(word.as_bytes()),
            Value::Address(address) => push_address(address, out),
            Value::Number(number) => push_number(number, out),
            Value::Millis(duration) => push_millis(duration, out),
        }
    }
}

fn is_word(text: &[u8]) -> bool {
    !text.is_empty()
        && text.len() <= LONGEST_FIELD
        && text.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'='))
}

fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_09 => "0.9",
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// The text, or as much of it as is logged.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(LONGEST_FIELD);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Appends a JSON string (RFC 8259 §7), or as much of it as is logged. Beyond what JSON asks for, DEL, the C1 controls
/// and the marks that turn the direction of text are escaped: a log is read on terminals.
fn quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    if text.len() <= LONGEST_FIELD && is_plain(text) {
        out.extend_from_slice(text);
    } else {
        escaped(cut(&String::from_utf8_lossy(text)), out);
    }
    out.push(b'"');
}

/// Whether all of a text stands for itself, as nearly every one does. A table and no early end take the least time.
fn is_plain(text: &[u8]) -> bool {
    const PLAIN: [bool; 256] = {
        let mut plain = [false; 256];
        let mut byte = b' ';
        while byte < 0x7f {
            plain[byte as usize] = byte != b'"' && byte != b'\\';
            byte += 1;
        }
        plain
    };
    text.iter().fold(true, |plain, byte| plain & PLAIN[usize::from(*byte)])
}

fn escaped(text: &str, out: &mut Vec<u8>) {
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}' => {
                const HEX: [u8; 16] = *b"0123456789abcdef";
                let code = character as usize;
                let digit = |shift: u32| HEX[(code >> shift) & 15];
                out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
            }
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn push_address(address: IpAddr, out: &mut Vec<u8>) {
    use std::io::Write as _;
    match address {
        IpAddr::V4(address) => {
            let (mut text, mut end) = ([0; 16], 0);
            for octet in address.octets() {
                let (digits, length) = OCTETS[usize::from(octet)];
                text[end..end + digits.len()].copy_from_slice(&digits);
                end += length;
            }
            out.extend_from_slice(&text[..end - 1]);
        }
        // Writing into memory does not fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

/// The octets of an address, each with a point behind it, and how long that is.
const OCTETS: [([u8; 4], usize); 256] = {
    let mut octets = [([b'.'; 4], 0); 256];
    let mut octet = 0;
    while octet < octets.len() {
        let digits = [b'0' + (octet / 100) as u8, b'0' + (octet / 10 % 10) as u8, b'0' + (octet % 10) as u8];
        octets[octet] = match digits {
            [b'0', b'0', c] => ([c, b'.', 0, 0], 2),
            [b'0', b, c] => ([b, c, b'.', 0], 3),
            [a, b, c] => ([a, b, c, b'.'], 4),
        };
        octet += 1;
    }
    octets
};

fn push_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Milliseconds with three decimals.
fn push_millis(duration: Duration, out: &mut Vec<u8>) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    push_number(micros / 1000, out);
    out.extend_from_slice(&fraction(micros % 1000));
}

/// RFC 3339, UTC, with milliseconds.
fn timestamp(now: Wall, out: &mut Vec<u8>) {
    const SHAPE: &[u8; 19] = b"0000-00-00T00:00:00";
    thread_local! {
        // Up to the second it is the same for thousands of lines.
        static SECOND: Cell<(i64, [u8; 19])> = const { Cell::new((i64::MIN, *SHAPE)) };
    }
    let second = now.unix_seconds();
    let (known, mut text) = SECOND.get();
    if known != second {
        let full = Wall::from_unix_millis(second.saturating_mul(1000)).to_string();
        text = full.as_bytes().first_chunk().copied().unwrap_or(*SHAPE);
        SECOND.set((second, text));
    }
    out.extend_from_slice(&text);
    out.extend_from_slice(&fraction(now.unix_millis().rem_euclid(1000).unsigned_abs()));
    out.push(b'Z');
}

/// Thousandths below one: a point and three digits.
fn fraction(thousandths: u64) -> [u8; 4] {
    let digit = |of: u64| b'0' + (thousandths / of % 10) as u8;
    [b'.', digit(100), digit(10), digit(1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line<'static> {
        Line {
            // 2026-11-21T03:52:00.007Z
            now: Wall::from_unix_millis(1_795_233_120_007),
            request_id: b"01JD3X",
            client: [203, 0, 113, 42].into(),
            peer: [203, 0, 113, 42].into(),
            method: "GET",
            host: b"api.example.com",
            path: "/v1/wallets",
            http_version: http::Version::HTTP_11,
            status: 200,
            outcome: Outcome::Allowed,
            reason: None,
            key_id: None,
            owner: None,
            route: None,
            note: None,
            duration: Duration::from_micros(1_234),
            upstream_duration: None,
            bytes_in: 0,
            bytes_out: 512,
            tls: true,
        }
    }

    fn format(line: &Line<'_>, format: Format) -> String {
        let mut out = Vec::new();
        line.format(format, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// What a reader of JSON gets back for a hostile text in the path.
    #[track_caller]
    fn check(path: &str, expected: &str) {
        let text = format(&Line { path, host: path.as_bytes(), ..line() }, Format::Json);
        assert_eq!(text.find('\n'), Some(text.len() - 1), "one line: {text:?}");
        assert!(!text.trim_end().chars().any(char::is_control), "{text:?}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["path"], expected);
    }

    #[test]
    fn a_line_is_one_object_with_the_fields_in_order() {
        let id: KeyId = "key_01JD".parse().unwrap();
        let owner: OwnerId = "svc-accounting".parse().unwrap();
        let line = Line {
            peer: "2001:db8::1".parse().unwrap(),
            outcome: Outcome::Refused,
            reason: Some(Reason::InsufficientScope),
            status: 403,
            key_id: Some(&id),
            owner: Some(&owner),
            route: Some("/v1/{x}/**"),
            note: Some("needs wallets:write"),
            upstream_duration: Some(Duration::from_millis(20)),
            ..line()
        };
        assert_eq!(
            format(&line, Format::Json),
            "{\"time\":\"2026-11-21T03:52:00.007Z\",\"request_id\":\"01JD3X\",\"client\":\"203.0.113.42\",\
             \"peer\":\"2001:db8::1\",\"method\":\"GET\",\"host\":\"api.example.com\",\"path\":\"/v1/wallets\",\
             \"http_version\":\"1.1\",\"tls\":true,\"status\":403,\"outcome\":\"refused\",\
             \"reason\":\"insufficient_scope\",\"key_id\":\"key_01JD\",\"owner\":\"svc-accounting\",\
             \"route\":\"/v1/{x}/**\",\"duration_ms\":1.234,\"upstream_duration_ms\":20.000,\"bytes_in\":0,\
             \"bytes_out\":512,\"note\":\"needs wallets:write\"}\n"
        );
        assert_eq!(
            format(&line, Format::Text),
            "2026-11-21T03:52:00.007Z request_id=01JD3X client=203.0.113.42 peer=2001:db8::1 method=GET \
             host=api.example.com path=/v1/wallets http_version=1.1 tls=true status=403 outcome=refused \
             reason=insufficient_scope key_id=key_01JD owner=svc-accounting route=/v1/{x}/** duration_ms=1.234 \
             upstream_duration_ms=20.000 bytes_in=0 bytes_out=512 note=\"needs wallets:write\"\n"
        );
    }

    #[test]
    fn a_hostile_text_stays_in_its_field() {
        check("/a\"b\\c", "/a\"b\\c");
        check("/a\",\"outcome\":\"allowed", "/a\",\"outcome\":\"allowed");
        check("/a\r\nHTTP", "/a\r\nHTTP");
        check("/\u{1b}[2J\u{0}\u{7f}\u{9b}", "/\u{1b}[2J\u{0}\u{7f}\u{9b}");
        check("/\u{202e}\u{2028}é€𝄞", "/\u{202e}\u{2028}é€𝄞");
    }

    #[test]
    fn a_text_that_could_be_taken_for_the_next_field_is_quoted() {
        let text = format(&Line { path: "/a status=200\n", ..line() }, Format::Text);
        assert!(text.contains(" path=\"/a status=200\\u000a\" "), "{text:?}");
        assert_eq!(text.matches('\n').count(), 1);
    }

    #[test]
    fn a_text_that_is_not_utf_8_is_logged_as_far_as_it_is() {
        let text = format(&Line { host: b"a\xff\xfeb", ..line() }, Format::Json);
        assert!(text.contains("\"host\":\"a\u{fffd}\u{fffd}b\","), "{text:?}");
    }

    #[test]
    fn every_address_is_written_as_people_write_it() {
        for octet in 0..=u8::MAX {
            for address in [[octet, 0, 1, 255], [255, octet, 10, octet], [100, 99, 9, octet]] {
                let mut out = Vec::new();
                push_address(address.into(), &mut out);
                assert_eq!(String::from_utf8(out).unwrap(), IpAddr::from(address).to_string());
            }
        }
    }

    #[test]
    fn a_query_is_never_logged() {
        check("/v1/wallets?consumer_secret=cs_1", "/v1/wallets");
    }

    #[test]
    fn a_long_field_is_cut_between_characters() {
        check(&"é".repeat(LONGEST_FIELD), &"é".repeat(LONGEST_FIELD / 2));
    }

    #[test]
    fn times_before_1970_and_within_a_second_are_right() {
        let stamp = |millis| {
            let mut out = Vec::new();
            timestamp(Wall::from_unix_millis(millis), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(stamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(stamp(999), "1970-01-01T00:00:00.999Z");
        assert_eq!(stamp(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(stamp(1_795_233_120_050), "2026-11-21T03:52:00.050Z");
    }
}
