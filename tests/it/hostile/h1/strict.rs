//! A second reader of HTTP/1.1, as strict as RFC 9112 is where it is strictest: what it takes can be read in one way
//! only. It judges what the upstream got and what the caller was answered, byte by byte.

use std::fmt;

use crate::harness::Seen;

/// A message, read in the only way there is.
#[derive(Clone, Default)]
pub(super) struct Message {
    /// The first line.
    pub(super) line: String,
    /// Names in lower case, values as they stood there.
    pub(super) fields: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<(String, Vec<u8>)>,
}

impl Message {
    /// All values of a field.
    pub(super) fn all(&self, name: &str) -> Vec<&[u8]> {
        self.fields.iter().filter(|(other, _)| other == name).map(|(_, value)| &value[..]).collect()
    }

    /// The only value of a field; empty when it is not there.
    pub(super) fn field(&self, name: &str) -> Result<String, String> {
        match self.all(name)[..] {
            [] => Ok(String::new()),
            [value] => Ok(String::from_utf8_lossy(value).into_owned()),
            _ => Err(format!("several {name}")),
        }
    }

    /// The status of an answer.
    pub(super) fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.line)?;
        for (name, value) in self.fields.iter().chain(&self.trailers) {
            write!(f, ", {name}: {}", value.escape_ascii())?;
        }
        write!(f, ", body \"{}\"", self.body.escape_ascii())
    }
}

/// What the upstream got, read anew.
pub(super) fn request(seen: &Seen) -> Result<Message, String> {
    let (mut message, rest) = head(&seen.head.raw)?;
    if !rest.is_empty() {
        return Err("bytes behind the head".into());
    }
    let parts: Vec<&str> = message.line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { return Err(format!("the line {:?}", message.line)) };
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(format!("the method {method:?}"));
    }
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(format!("the target {target:?}"));
    }
    if message.all("host").len() != 1 {
        return Err("not exactly one Host".into());
    }
    if let Some((name, _)) =
        message.fields.iter().find(|(name, _)| !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
    {
        return Err(format!("the name {name:?}"));
    }
    let rest = body(&mut message, &seen.raw_body, false)?;
    if !rest.is_empty() {
        return Err("bytes behind the body".into());
    }
    if message.body != seen.body {
        return Err("two readings of the body".into());
    }
    Ok(message)
}

/// Everything that a caller was answered, from the first byte of a connection to its last. With `bodiless`, the first
/// final answer is one to HEAD.
pub(super) fn answers(mut bytes: &[u8], mut bodiless: bool) -> Result<Vec<Message>, String> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let (mut message, rest) = head(bytes)?;
        let status = message.status();
        let is_old = message.line.starts_with("HTTP/1.0 ");
        if !(is_old || message.line.starts_with("HTTP/1.1 ")) || !(100..600).contains(&status) {
            return Err(format!("the line {:?}", message.line));
        }
        if is_old && (status < 200 || !message.all("transfer-encoding").is_empty()) {
            return Err(format!("what HTTP/1.0 does not know: {message:?}"));
        }
        if (100..200).contains(&status) || status == 204 || status == 304 || bodiless {
            bytes = rest;
        } else {
            bytes = body(&mut message, rest, true)?;
        }
        bodiless &= (100..200).contains(&status);
        answers.push(message);
    }
    Ok(answers)
}

/// A head, and what follows it.
fn head(bytes: &[u8]) -> Result<(Message, &[u8]), String> {
    let (line, mut rest) = line(bytes)?;
    let line = String::from_utf8(line.to_vec()).map_err(|_| "a first line that is no text")?;
    let fields = fields(&mut rest)?;
    Ok((Message { line, fields, ..Message::default() }, rest))
}

fn fields(rest: &mut &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut fields = Vec::new();
    loop {
        let (text, after) = line(rest)?;
        *rest = after;
        if text.is_empty() {
            return Ok(fields);
        }
        let colon = text.iter().position(|byte| *byte == b':').ok_or("a line without a colon")?;
        let (name, value) = (&text[..colon], &text[colon + 1..]);
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if name.is_empty() || !name.iter().all(is_token) {
            return Err(format!("the name {:?}", name.escape_ascii().to_string()));
        }
        if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(format!("the value {:?}", value.escape_ascii().to_string()));
        }
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        fields.push((name, value.trim_ascii().to_vec()));
    }
}

/// A line without its end, which is CR LF, and in which neither stands alone.
fn line(bytes: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let end = bytes.windows(2).position(|two| two == b"\r\n").ok_or("a line without an end")?;
    let line = &bytes[..end];
    if line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err(format!("the line {:?}", line.escape_ascii().to_string()));
    }
    Ok((line, &bytes[end + 2..]))
}

/// Reads the body as the head says, by exactly one framing; gives what follows it.
fn body<'b>(message: &mut Message, bytes: &'b [u8], is_answer: bool) -> Result<&'b [u8], String> {
    let (lengths, codings) = (message.all("content-length"), message.all("transfer-encoding"));
    match (&lengths[..], &codings[..]) {
        ([], []) if is_answer => {
            message.body = bytes.to_vec();
            Ok(&[])
        }
        ([], []) => Ok(bytes),
        ([length], []) => {
            if length.is_empty() || !length.iter().all(u8::is_ascii_digit) || (length.len() > 1 && length[0] == b'0') {
                return Err(format!("the length {:?}", length.escape_ascii().to_string()));
            }
            let length: usize = String::from_utf8_lossy(length).parse().map_err(|_| "a length beyond numbers")?;
            if bytes.len() < length {
                return Err(format!("{} bytes of {length}", bytes.len()));
            }
            message.body = bytes[..length].to_vec();
            Ok(&bytes[length..])
        }
        ([], [b"chunked"]) => chunks(message, bytes),
        _ => Err(format!("framed by {lengths:?} and {codings:?}")),
    }
}

fn chunks<'b>(message: &mut Message, mut bytes: &'b [u8]) -> Result<&'b [u8], String> {
    loop {
        let (size, rest) = line(bytes)?;
        bytes = rest;
        if size.is_empty() || size.len() > 8 || !size.iter().all(u8::is_ascii_hexdigit) {
            return Err(format!("the chunk size {:?}", size.escape_ascii().to_string()));
        }
        let size = usize::from_str_radix(&String::from_utf8_lossy(size), 16).map_err(|fault| fault.to_string())?;
        if size == 0 {
            message.trailers = fields(&mut bytes)?;
            return Ok(bytes);
        }
        if bytes.len() < size + 2 || &bytes[size..size + 2] != b"\r\n" {
            return Err("a chunk of another length than it says".into());
        }
        message.body.extend(&bytes[..size]);
        bytes = &bytes[size + 2..];
    }
}

#[test]
fn it_takes_nothing_that_can_be_read_in_two_ways() {
    let rows: [(&str, bool); 14] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true),
        ("HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\noky", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 02\r\n\r\nok", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", false),
        ("HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok", false),
        ("HTTP/1.1 200 OK\r\nX-A: b\rc\r\nContent-Length: 2\r\n\r\nok", false),
        ("HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 2\r\n\r\nok", false),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false),
    ];
    for (bytes, taken) in rows {
        let read = answers(bytes.as_bytes(), false);
        assert_eq!(read.is_ok(), taken, "{bytes:?}: {read:?}");
    }
}
