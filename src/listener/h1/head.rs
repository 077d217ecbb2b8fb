//! The head of a request, and what it says of the request's framing and of the connection (RFC 9112 §§3, 5, 6, 9.3).

use std::{mem::MaybeUninit, ops::Range};

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::super::framing::{Framing, decimal, members};

/// How many fields a head may have.
const MAX_FIELDS: usize = 100;
/// The longest target that [`Uri`] takes.
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// Why what came is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It cannot be read, or could be read in two ways.
    Malformed,
    /// The head is too large, or has too many fields.
    TooLarge,
    /// The target is too long.
    TargetTooLong,
}

/// The head of a request.
#[derive(Debug)]
pub struct Head {
    /// Method, target, version and fields.
    pub request: Request<()>,
    /// How its body is framed.
    pub framing: Framing,
    /// Whether another request may follow on the connection.
    pub keep_alive: bool,
    /// Whether the client waits to be asked for its body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// Whether the client takes trailers (RFC 9110 §10.1.4).
    pub takes_trailers: bool,
}

/// Where a field stands, in bytes from the front of the head.
#[derive(Clone, Copy)]
struct Field {
    name: (u32, u32),
    value: (u32, u32),
}

/// Takes the head at the front of the input; nothing while it is incomplete. Its fields go into a map
/// that `headers` gives.
pub(super) fn take(
    input: &mut BytesMut,
    most: usize,
    headers: impl FnOnce() -> HeaderMap,
) -> Result<Option<Head>, Refusal> {
    let mut memory = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_request_with_uninit_headers(&mut parsed, input, &mut memory)
        .map_err(|error| match error {
        httparse::Error::TooManyHeaders => Refusal::TooLarge,
        _ => Refusal::Malformed,
    })?;
    let httparse::Status::Complete(bytes) = status else { return Ok(None) };
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Ok(None);
    };
    if bytes > most {
        return Err(Refusal::TooLarge);
    }
    if target.len() > MAX_TARGET {
        return Err(Refusal::TargetTooLong);
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Refusal::Malformed)?;
    let start = input.as_ptr().addr();
    // A head is far smaller than this can tell.
    let place = |part: &[u8]| {
        let start = part.as_ptr().addr().saturating_sub(start);
        (start as u32, (start + part.len()) as u32)
    };
    let target = range(place(target.as_bytes()));
    let mut fields = SmallVec::<[Field; 24]>::new();
    fields.extend(
        parsed.headers.iter().map(|field| Field { name: place(field.name.as_bytes()), value: place(field.value) }),
    );
    let version = if version == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    let text = input.split_to(bytes).freeze();
    let uri = Uri::from_maybe_shared(text.slice(target)).map_err(|_| Refusal::Malformed)?;
    Head::read(method, uri, version, &text, &fields, headers()).map(Some)
}

fn range((start, end): (u32, u32)) -> Range<usize> {
    start as usize..end as usize
}

impl Head {
    fn read(
        method: Method,
        uri: Uri,
        version: Version,
        text: &Bytes,
        fields: &[Field],
        mut headers: HeaderMap,
    ) -> Result<Self, Refusal> {
        let mut says = Says { keep_alive: version == Version::HTTP_11, ..Says::default() };
        headers.reserve(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(&text[range(field.name)]).map_err(|_| Refusal::Malformed)?;
            let value =
                HeaderValue::from_maybe_shared(text.slice(range(field.value))).map_err(|_| Refusal::Malformed)?;
            if says.heed(&name, &value, version)? {
                headers.append(name, value);
            }
        }
        if says.coded {
            // Of the two framings the length is the older one, and is forgotten; what follows is not believed
            // (RFC 9112 §6.3, item 3).
            headers.remove(header::CONTENT_LENGTH);
        }
        let framing = says.framing()?;
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        *request.headers_mut() = headers;
        Ok(Self {
            keep_alive: says.keep_alive && !(says.coded && says.length.is_some()),
            expects_continue: says.expects_continue && version == Version::HTTP_11 && !framing.is_ended(),
            takes_trailers: says.takes_trailers,
            request,
            framing,
        })
    }
}

/// What the fields say of the framing and the connection.
#[derive(Debug, Default)]
struct Says {
    length: Option<u64>,
    coded: bool,
    /// Whether the last coding is `chunked`.
    chunked: bool,
    keep_alive: bool,
    close: bool,
    expects_continue: bool,
    takes_trailers: bool,
}

impl Says {
    /// Heeds a field. False: it has been said before, and is not kept.
    fn heed(&mut self, name: &HeaderName, value: &HeaderValue, version: Version) -> Result<bool, Refusal> {
        match *name {
            header::CONTENT_LENGTH => {
                let length = decimal(value.as_bytes()).ok_or(Refusal::Malformed)?;
                return match self.length.replace(length) {
                    None => Ok(true),
                    Some(earlier) if earlier == length => Ok(false),
                    Some(_) => Err(Refusal::Malformed),
                };
            }
            header::TRANSFER_ENCODING => {
                // There are no codings in HTTP/1.0 (RFC 9112 §6.1).
                if version != Version::HTTP_11 {
                    return Err(Refusal::Malformed);
                }
                self.coded = true;
                let last = value.to_str().ok().and_then(|codings| codings.rsplit(',').next());
                self.chunked = last.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked"));
            }
            header::CONNECTION => {
                for option in members(value.as_bytes()) {
                    if option.eq_ignore_ascii_case(b"close") {
                        self.close = true;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") {
                        self.keep_alive = true;
                    }
                }
                self.keep_alive &= !self.close;
            }
            header::EXPECT => self.expects_continue = value.as_bytes().eq_ignore_ascii_case(b"100-continue"),
            header::TE => {
                self.takes_trailers |= members(value.as_bytes()).any(|member| member.eq_ignore_ascii_case(b"trailers"));
            }
            _ => {}
        }
        Ok(true)
    }

    /// How the body is framed (RFC 9112 §6.3).
    fn framing(&self) -> Result<Framing, Refusal> {
        match (self.coded, self.length) {
            (true, _) if self.chunked => Ok(Framing::chunked()),
            (true, _) => Err(Refusal::Malformed),
            (false, Some(length)) => Ok(Framing::of_length(length)),
            (false, None) => Ok(Framing::Ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Head>, Refusal> {
        take(&mut BytesMut::from(text), 8 * 1024, HeaderMap::new)
    }

    /// What a request with these fields says: its framing, and whether another one may follow.
    #[track_caller]
    fn check(version: &str, fields: &str, expected: Result<(&str, bool), Refusal>) {
        let head = read(&format!("POST /a?b HTTP/{version}\r\nHost: a\r\n{fields}\r\n"));
        let said = head.map(|head| {
            let head = head.expect("whole");
            assert_eq!((head.request.method(), head.request.uri().to_string()), (&Method::POST, "/a?b".to_owned()));
            let framing = match head.framing {
                Framing::Ended => "none".to_owned(),
                Framing::Length(bytes) => bytes.to_string(),
                Framing::Chunked(_) => "chunks".to_owned(),
                Framing::UntilClose | Framing::Broken => unreachable!("a request"),
            };
            (framing, head.keep_alive)
        });
        assert_eq!(said, expected.map(|(framing, keep_alive)| (framing.to_owned(), keep_alive)), "{fields:?}");
    }

    #[test]
    fn one_framing_or_none() {
        let malformed = Err(Refusal::Malformed);
        check("1.1", "", Ok(("none", true)));
        check("1.1", "Content-Length: 5\r\n", Ok(("5", true)));
        check("1.1", "Content-Length: 5\r\ncontent-length: 5\r\n", Ok(("5", true)));
        check("1.1", "Content-Length: 5\r\nContent-Length: 6\r\n", malformed);
        for length in ["", "+5", "-5", "5, 5", "0x5", "5 5", "18446744073709551616", "\u{ff15}"] {
            check("1.1", &format!("Content-Length: {length}\r\n"), malformed);
            check("1.1", &format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"), malformed);
        }
        check("1.1", "Transfer-Encoding: Chunked\r\n", Ok(("chunks", true)));
        check("1.1", "Transfer-Encoding: gzip, chunked\r\n", Ok(("chunks", true)));
        check("1.1", "Transfer-Encoding: chunked, gzip\r\n", malformed);
        check("1.1", "Transfer-Encoding: gz\u{e9}ip, chunked\r\n", malformed);
        check("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", malformed);
        check("1.0", "Transfer-Encoding: chunked\r\n", malformed);
        for both in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        ] {
            check("1.1", both, Ok(("chunks", false)));
            let head = read(&format!("POST / HTTP/1.1\r\n{both}\r\n")).unwrap().unwrap();
            assert!(!head.request.headers().contains_key(header::CONTENT_LENGTH));
        }
    }

    #[test]
    fn the_connection_is_kept_where_both_want_it() {
        check("1.1", "Connection: keep-alive, Close\r\n", Ok(("none", false)));
        check("1.1", "Connection: close\r\nConnection: keep-alive\r\n", Ok(("none", false)));
        check("1.0", "", Ok(("none", false)));
        check("1.0", "Connection: Keep-Alive\r\n", Ok(("none", true)));
        check("1.0", "Connection: close\r\nConnection: keep-alive\r\n", Ok(("none", false)));
    }

    #[test]
    fn a_body_is_invited_where_there_is_one() {
        let expects = |version: &str, fields: &str| {
            let head = read(&format!("POST / HTTP/{version}\r\nExpect: 100-Continue\r\n{fields}\r\n"));
            head.unwrap().unwrap().expects_continue
        };
        assert!(expects("1.1", "Content-Length: 5\r\n"));
        assert!(!expects("1.1", ""));
        assert!(!expects("1.0", "Content-Length: 5\r\n"));
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let check = |text: &str, expected| assert_eq!(read(text).map(|head| head.is_some()), expected, "{text:.60}");
        check("GET / HTTP/1.1\r\nHost: a\r\n", Ok(false));
        check("GET / HTTP/2.0\r\n\r\n", Err(Refusal::Malformed));
        check("GET /\r\n\r\n", Err(Refusal::Malformed));
        check("GET / HTTP/1.1\r\nX : 1\r\n\r\n", Err(Refusal::Malformed));
        check("GET / HTTP/1.1\r\nX: 1\r\n 2\r\n\r\n", Err(Refusal::Malformed));
        check("GET / HTTP/1.1\r\nX: a\rb\r\n\r\n", Err(Refusal::Malformed));
        check(&format!("GET / HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(MAX_FIELDS)), Ok(true));
        check(&format!("GET / HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(MAX_FIELDS + 1)), Err(Refusal::TooLarge));
        check(&format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "1".repeat(8 * 1024)), Err(Refusal::TooLarge));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(MAX_TARGET));
        let taken = take(&mut BytesMut::from(&*long), 1 << 20, HeaderMap::new);
        assert_eq!(taken.map(|head| head.is_some()), Err(Refusal::TargetTooLong));
    }

    #[test]
    fn what_follows_a_head_is_left_where_it_is() {
        let mut input = BytesMut::from("\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next");
        assert!(take(&mut input, 8 * 1024, HeaderMap::new).unwrap().is_some());
        assert_eq!(input, "GET /next");
    }
}
