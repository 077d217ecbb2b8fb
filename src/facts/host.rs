//! The host a request is for: exactly one, and valid.

use std::net::Ipv6Addr;

use http::{HeaderValue, Uri, uri::Scheme};

use crate::rejection::{Reason, Rejection};

/// Names of hosts are no longer (RFC 1035 §2.3.4).
const MAX_NAME_BYTES: usize = 255;

/// The host a request is for.
#[derive(Clone, Debug)]
pub struct Host {
    sent: HeaderValue,
    /// The name in lower case, where it was not sent so.
    lower: Option<Box<str>>,
    name_length: usize,
    port: Option<u16>,
}

impl Host {
    /// The host that the Host field and the target agree on.
    ///
    /// A client that sends both an authority and a Host field must say the same in both (RFC 9113 §8.3.1; for
    /// HTTP/1.1 this is stricter than RFC 9112 §3.2.2, by which the field would be ignored: an upstream may not).
    pub(super) fn agreed(fields: &[&HeaderValue], uri: &Uri, secure: bool, http2: bool) -> Result<Self, Rejection> {
        let field = match fields {
            [] => None,
            [field] => Some(Self::new((*field).clone()).ok_or_else(|| ambiguous("The Host field is not valid."))?),
            _ => return Err(ambiguous("There is more than one Host field.")),
        };
        let authority = match uri.authority() {
            None => None,
            Some(authority) => {
                let value = HeaderValue::from_str(authority.as_str()).ok();
                Some(value.and_then(Self::new).ok_or_else(|| ambiguous("The authority of the target is not valid."))?)
            }
        };
        match (field, authority) {
            (Some(field), None) => Ok(field),
            // HTTP/1.1 asks for the field in any case (RFC 9112 §3.2).
            (None, Some(authority)) if http2 => Ok(authority),
            (None, _) => Err(ambiguous("There is no Host field.")),
            (Some(field), Some(authority)) => {
                let default = match uri.scheme() {
                    Some(scheme) => {
                        if *scheme == Scheme::HTTPS {
                            443
                        } else {
                            80
                        }
                    }
                    None => {
                        if secure {
                            443
                        } else {
                            80
                        }
                    }
                };
                let port = |host: &Self| host.port.unwrap_or(default);
                if field.name() == authority.name() && port(&field) == port(&authority) {
                    Ok(field)
                } else {
                    Err(ambiguous("The Host field and the target name different hosts."))
                }
            }
        }
    }

    /// Reads a host with or without a port; none when it is not valid.
    fn new(sent: HeaderValue) -> Option<Self> {
        let name = if sent.as_bytes().first() == Some(&b'[') { literal(&sent)? } else { name(sent.as_bytes())? };
        let port = match &sent.as_bytes()[name.end..] {
            [] => None,
            [b':', digits @ ..] => Some(port(digits)?),
            _ => return None,
        };
        let lower = if name.has_upper { Some(lower(&sent.as_bytes()[..name.length])?) } else { None };
        Some(Self { lower, name_length: name.length, port, sent })
    }

    /// The name: lower case, without port, without a final dot; an IPv6 literal keeps its brackets.
    pub fn name(&self) -> &str {
        match &self.lower {
            Some(lower) => lower,
            None => self.authority().get(..self.name_length).unwrap_or_default(),
        }
    }

    /// The host and port as the client sent them.
    pub fn authority(&self) -> &str {
        self.sent.to_str().unwrap_or_default()
    }

    /// The same as bytes, which costs no look at each of them.
    pub fn as_bytes(&self) -> &[u8] {
        self.sent.as_bytes()
    }

    /// The port, where one was sent.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// What was sent, as a field value; a cheap clone.
    pub fn header_value(&self) -> HeaderValue {
        self.sent.clone()
    }
}

/// The name at the start of a host.
struct Name {
    length: usize,
    /// Where it ends as it was sent: with a final dot, that is one more.
    end: usize,
    has_upper: bool,
}

/// Labels of letters, digits, hyphens and underscores.
///
/// RFC 3986 §3.2.2 allows escapes and more marks in a name; no host has them, and two parsers need not agree on them.
fn name(sent: &[u8]) -> Option<Name> {
    let mut has_upper = false;
    let mut label = 0;
    let mut end: usize = 0;
    for &byte in sent {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => label += 1,
            b'A'..=b'Z' => {
                has_upper = true;
                label += 1;
            }
            b'.' if label > 0 => label = 0,
            b':' => break,
            _ => return None,
        }
        end += 1;
    }
    let length = if label == 0 { end.checked_sub(1)? } else { end };
    (length <= MAX_NAME_BYTES).then_some(Name { length, end, has_upper })
}

/// An IPv6 literal in its brackets, without a zone.
fn literal(sent: &HeaderValue) -> Option<Name> {
    let (literal, _) = sent.to_str().ok()?.strip_prefix('[')?.split_once(']')?;
    literal.parse::<Ipv6Addr>().ok()?;
    let length = literal.len() + 2;
    Some(Name { length, end: length, has_upper: literal.bytes().any(|byte| byte.is_ascii_uppercase()) })
}

fn lower(name: &[u8]) -> Option<Box<str>> {
    Some(std::str::from_utf8(name).ok()?.to_ascii_lowercase().into())
}

fn port(digits: &[u8]) -> Option<u16> {
    let valid = digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit);
    if valid { std::str::from_utf8(digits).ok()?.parse().ok().filter(|&port| port != 0) } else { None }
}

fn ambiguous(hint: &str) -> Rejection {
    Rejection::from(Reason::AmbiguousHost).hint(hint)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(sent: &str, expected: Option<(&str, Option<u16>)>) {
        let host = Host::new(HeaderValue::from_str(sent).unwrap());
        assert_eq!(host.as_ref().map(|host| (host.name(), host.port())), expected, "{sent:?}");
        if let Some(host) = host {
            assert_eq!(host.authority(), sent);
            assert_eq!(host.header_value(), sent);
        }
    }

    #[test]
    fn a_host_is_a_name_and_perhaps_a_port() {
        check("example.com", Some(("example.com", None)));
        check("example.com:8443", Some(("example.com", Some(8443))));
        check("localhost", Some(("localhost", None)));
        check("my_service:80", Some(("my_service", Some(80))));
        check("127.0.0.1:80", Some(("127.0.0.1", Some(80))));
        check("xn--caf-dma.example", Some(("xn--caf-dma.example", None)));
        check("[::1]", Some(("[::1]", None)));
        check("[2001:db8::1]:443", Some(("[2001:db8::1]", Some(443))));
    }

    #[test]
    fn case_and_a_final_dot_make_no_difference() {
        check("API.Example.com:443", Some(("api.example.com", Some(443))));
        check("example.com.", Some(("example.com", None)));
        check("example.com.:443", Some(("example.com", Some(443))));
        check("[2001:DB8::1]", Some(("[2001:db8::1]", None)));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for sent in [
            "",
            " ",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a:x",
            "a:080000",
            "a b",
            "a,b",
            "a/b",
            "a?b",
            "a#b",
            "user@a",
            "user:pw@a",
            "a%2eb",
            "a\\b",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:",
            "[127.0.0.1]",
            "[fe80::1%eth0]",
            "a:80:90",
            "[]",
            "http://a",
            "[::1].",
            "a\tb",
            "a!b",
        ] {
            check(sent, None);
        }
        check(&"a".repeat(256), None);
    }

    #[track_caller]
    fn check_agreed(target: &str, fields: &[&str], http2: bool, expected: Option<&str>) {
        let fields: Vec<_> = fields.iter().map(|field| HeaderValue::from_str(field).unwrap()).collect();
        let host = Host::agreed(&fields.iter().collect::<Vec<_>>(), &target.parse().unwrap(), true, http2);
        assert_eq!(host.as_ref().ok().map(Host::authority), expected, "{target} {fields:?}");
        if let Err(rejection) = host {
            assert_eq!(rejection.reason, Reason::AmbiguousHost);
        }
    }

    #[test]
    fn there_is_exactly_one_host_field() {
        check_agreed("/", &["a.example"], false, Some("a.example"));
        check_agreed("/", &[], false, None);
        check_agreed("/", &["a.example", "a.example"], false, None);
        check_agreed("/", &["a.example", "b.example"], false, None);
        check_agreed("/", &["a b"], false, None);
    }

    #[test]
    fn an_absolute_target_and_the_host_field_agree() {
        check_agreed("http://a.example/", &["a.example"], false, Some("a.example"));
        check_agreed("http://A.example:80/", &["a.example"], false, Some("a.example"));
        check_agreed("https://a.example/", &["a.example:443"], false, Some("a.example:443"));
        check_agreed("http://a.example/", &["b.example"], false, None);
        check_agreed("http://a.example:81/", &["a.example"], false, None);
        check_agreed("https://a.example:80/", &["a.example"], false, None);
        check_agreed("http://a.example/", &[], false, None);
        check_agreed("http://user@a.example/", &["a.example"], false, None);
    }

    #[test]
    fn http2_names_the_host_by_authority_and_a_host_field_agrees() {
        check_agreed("https://a.example/", &[], true, Some("a.example"));
        check_agreed("https://a.example/", &["a.example"], true, Some("a.example"));
        check_agreed("https://a.example/", &["b.example"], true, None);
        check_agreed("/", &["a.example"], true, Some("a.example"));
        check_agreed("https://user:pw@a.example/", &[], true, None);
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_a_name_is_in_lower_case(text in "[a-zA-Z0-9:.\\[\\]_@%-]{0,24}") {
            if let Some(host) = HeaderValue::from_str(&text).ok().and_then(Host::new) {
                prop_assert!(!host.name().is_empty());
                prop_assert_eq!(host.name(), host.name().to_ascii_lowercase());
            }
        }
    }
}
