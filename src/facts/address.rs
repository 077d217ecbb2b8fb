//! The client's address: the peer's, or what trusted proxies say, read from the right.
//!
//! Each proxy appends the address it was reached from, so only the right end of the list is beyond the client's
//! reach. The walk goes left as long as it meets trusted proxies and stops at the first address that is none. What
//! cannot be read ends it too: everything further left is then anybody's word.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName, header};

use super::Settings;
use crate::policy::network::{Networks, canonical};

/// Where the client's address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientIpSource {
    /// The peer is the client: it is no trusted proxy.
    Peer,
    /// A trusted proxy named the client.
    Header,
    /// A trusted proxy sent no such field; the peer's address is used.
    HeaderMissing,
    /// A trusted proxy sent something that is no address; the nearest trusted hop's address is used.
    HeaderMalformed,
}

impl ClientIpSource {
    /// All of them, for metrics that are exported from 0.
    pub const ALL: [Self; 4] = [Self::Peer, Self::Header, Self::HeaderMissing, Self::HeaderMalformed];

    /// The label the operator sees.
    pub fn label(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Header => "header",
            Self::HeaderMissing => "header_missing",
            Self::HeaderMalformed => "header_malformed",
        }
    }
}

/// What the peer and the configured field say about the client's address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    pub(super) source: ClientIpSource,
    pub(super) peer_trusted: bool,
    pub(super) untrusted_forwarded: bool,
}

/// The client's address for whoever needs no more: the peer's, or what trusted proxies say in this field.
pub fn client_address(headers: &HeaderMap, peer: IpAddr, trusted: &Networks, name: &HeaderName) -> IpAddr {
    let peer = canonical(peer);
    if trusted.contains(peer) { walk(headers, name, peer, trusted).0 } else { peer }
}

/// `named` says whether the configured field was sent.
pub(super) fn client(headers: &HeaderMap, named: bool, peer: IpAddr, settings: &Settings) -> Client {
    let peer = canonical(peer);
    if !settings.trusted_proxies.contains(peer) {
        return Client { address: peer, source: ClientIpSource::Peer, peer_trusted: false, untrusted_forwarded: named };
    }
    let (address, source) = walk(headers, &settings.client_ip_header, peer, &settings.trusted_proxies);
    Client { address, source, peer_trusted: true, untrusted_forwarded: false }
}

fn walk(headers: &HeaderMap, name: &HeaderName, peer: IpAddr, trusted: &Networks) -> (IpAddr, ClientIpSource) {
    let forwarded = *name == header::FORWARDED;
    let mut nearest = peer;
    let mut source = ClientIpSource::HeaderMissing;
    // Several field lines are one list (RFC 9110 §5.3), so the last line is its right end.
    for line in headers.get_all(name).iter().rev() {
        let mut rest = Some(line.as_bytes());
        while let Some(list) = rest {
            let (further, element) = if forwarded { last_quoted(list) } else { last_plain(list) };
            rest = further;
            let address = if forwarded { forwarded_for(element) } else { node(element) };
            let Some(address) = address.map(canonical) else {
                return (nearest, ClientIpSource::HeaderMalformed);
            };
            nearest = address;
            source = ClientIpSource::Header;
            if !trusted.contains(address) {
                return (nearest, source);
            }
        }
    }
    (nearest, source)
}

/// The last element of a comma-separated list, and what stands before it.
///
/// An empty element is not skipped, as RFC 9110 §5.6.1 would have it: where a proxy knows no address, as with a
/// local socket, what stands left of it is the client's own word.
fn last_plain(list: &[u8]) -> (Option<&[u8]>, &[u8]) {
    match list.iter().rposition(|&byte| byte == b',') {
        Some(comma) => (Some(&list[..comma]), &list[comma + 1..]),
        None => (None, list),
    }
}

/// The same where commas may stand in quotes.
///
/// Quotes are matched from the right, so that one which the client left open cannot swallow what a proxy appended.
fn last_quoted(list: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let mut quoted = false;
    let comma = list.iter().rposition(|&byte| {
        quoted ^= byte == b'"';
        byte == b',' && !quoted
    });
    match comma {
        Some(comma) => (Some(&list[..comma]), &list[comma + 1..]),
        None => (None, list),
    }
}

/// The node of the one `for` of a forwarded-element (RFC 7239 §4).
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    for pair in element.split(|&byte| byte == b';') {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"for") && found.replace(value).is_some() {
            return None;
        }
    }
    let value = found?;
    node(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
}

/// An address as proxies write it: bare, in brackets, with a port or with a zone, both of which are dropped.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return if is_port { v6(address).map(IpAddr::V6) } else { None };
    }
    match text.split_once(':') {
        None => text.parse().ok().map(IpAddr::V4),
        Some((address, port)) if !port.contains(':') => {
            if is_port(port) {
                address.parse().ok().map(IpAddr::V4)
            } else {
                None
            }
        }
        Some(_) => v6(text).map(IpAddr::V6),
    }
}

fn v6(text: &str) -> Option<Ipv6Addr> {
    text.split_once('%').map_or(text, |(address, _zone)| address).parse().ok()
}

/// A port, or an obfuscated one (RFC 7239 §6.2), which says nothing that is needed here.
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(obfuscated) => obfuscated.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)),
        None => (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::{
        ClientIpSource::{Header, HeaderMalformed, HeaderMissing, Peer},
        *,
    };
    use crate::policy::network::Networks;

    const PROXY: &str = "10.0.0.1";

    fn client_of(headers: &HeaderMap, peer: &str, settings: &Settings) -> Client {
        client(headers, headers.contains_key(&settings.client_ip_header), peer.parse().unwrap(), settings)
    }

    fn read(name: &'static str, peer: &str, lines: &[&[u8]]) -> Client {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_bytes(line).unwrap());
        }
        let settings = Settings {
            trusted_proxies: Networks::parse(["10.0.0.0/8", "2001:db8:aa::/48"]).unwrap(),
            client_ip_header: HeaderName::from_static(name),
            ..Settings::default()
        };
        client_of(&headers, peer, &settings)
    }

    #[track_caller]
    fn check_with(name: &'static str, peer: &str, lines: &[&str], expected: (&str, ClientIpSource)) {
        let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
        let client = read(name, peer, &lines);
        assert_eq!((client.address, client.source), (expected.0.parse().unwrap(), expected.1), "{lines:?}");
    }

    #[track_caller]
    fn check(lines: &[&str], expected: (&str, ClientIpSource)) {
        check_with("x-forwarded-for", PROXY, lines, expected);
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        check_with("x-forwarded-for", "192.0.2.1", &["203.0.113.9"], ("192.0.2.1", Peer));
        assert!(read("x-forwarded-for", "192.0.2.1", &[b"203.0.113.9"]).untrusted_forwarded);
        assert!(!read("x-forwarded-for", "192.0.2.1", &[]).untrusted_forwarded);
        assert!(!read("x-forwarded-for", PROXY, &[b"203.0.113.9"]).untrusted_forwarded);
    }

    #[test]
    fn a_mapped_peer_is_the_ipv4_peer() {
        check_with("x-forwarded-for", "::ffff:10.0.0.1", &["203.0.113.9"], ("203.0.113.9", Header));
        check_with("x-forwarded-for", "::ffff:192.0.2.1", &["203.0.113.9"], ("192.0.2.1", Peer));
    }

    #[test]
    fn the_first_untrusted_address_from_the_right_is_the_client() {
        check(&["203.0.113.9"], ("203.0.113.9", Header));
        check(&["127.0.0.1, 203.0.113.9"], ("203.0.113.9", Header));
        check(&["127.0.0.1, 203.0.113.9, 10.0.0.7 ,\t10.0.0.8"], ("203.0.113.9", Header));
        check(&["10.0.0.9, 203.0.113.9"], ("203.0.113.9", Header));
    }

    #[test]
    fn a_chain_of_trusted_proxies_alone_ends_at_its_left() {
        check(&["10.0.0.9, 10.0.0.8"], ("10.0.0.9", Header));
    }

    #[test]
    fn several_field_lines_are_one_list() {
        check(&["127.0.0.1", "203.0.113.9"], ("203.0.113.9", Header));
        check(&["203.0.113.9", "10.0.0.8"], ("203.0.113.9", Header));
        check(&["127.0.0.1, 203.0.113.9", "10.0.0.8, 10.0.0.7"], ("203.0.113.9", Header));
    }

    #[test]
    fn without_the_field_the_trusted_peer_is_the_client() {
        check(&[], (PROXY, HeaderMissing));
    }

    #[test]
    fn ports_brackets_and_zones_are_dropped() {
        check(&["203.0.113.9:4711"], ("203.0.113.9", Header));
        check(&["2001:db8::9"], ("2001:db8::9", Header));
        check(&["[2001:db8::9]"], ("2001:db8::9", Header));
        check(&["[2001:db8::9]:4711"], ("2001:db8::9", Header));
        check(&["fe80::1%eth0"], ("fe80::1", Header));
        check(&["[fe80::1%25eth0]:1"], ("fe80::1", Header));
        check(&["::ffff:203.0.113.9"], ("203.0.113.9", Header));
        check(&["203.0.113.9, [2001:db8:aa::1]:443"], ("203.0.113.9", Header));
    }

    #[test]
    fn what_is_no_address_ends_the_walk_at_the_nearest_trusted_hop() {
        for junk in [
            "",
            " ",
            "unknown",
            "_hidden",
            "unix:",
            "203.0.113.9,",
            "203.0.113",
            "203.0.113.009",
            "1.2.3.4.5",
            "203.0.113.9:",
            "203.0.113.9:x",
            "203.0.113.9:123456",
            "[2001:db8::9",
            "2001:db8::9]",
            "[2001:db8::9]x",
            "[203.0.113.9]",
            "203.0.113.9 10.0.0.1",
            "\"203.0.113.9\"",
            "for=203.0.113.9",
            "203.0.113.9;10.0.0.1",
        ] {
            check(&[junk], (PROXY, HeaderMalformed));
        }
        check(&["203.0.113.9, unknown, 10.0.0.8"], ("10.0.0.8", HeaderMalformed));
        check(&["203.0.113.9,, 10.0.0.8"], ("10.0.0.8", HeaderMalformed));
        check(&["203.0.113.9", ""], (PROXY, HeaderMalformed));
    }

    #[test]
    fn junk_left_of_the_client_is_never_looked_at() {
        check(&["junk, \u{fc}, 203.0.113.9"], ("203.0.113.9", Header));
    }

    #[test]
    fn a_field_with_one_address_is_a_list_of_one() {
        check_with("x-real-ip", PROXY, &["203.0.113.9"], ("203.0.113.9", Header));
    }

    #[test]
    fn no_other_field_is_read() {
        let mut headers = HeaderMap::new();
        headers.append("x-real-ip", HeaderValue::from_static("203.0.113.9"));
        headers.append("forwarded", HeaderValue::from_static("for=203.0.113.9"));
        let settings = Settings { trusted_proxies: Networks::parse(["10.0.0.0/8"]).unwrap(), ..Settings::default() };
        assert_eq!(client_of(&headers, PROXY, &settings).source, HeaderMissing);
    }

    #[track_caller]
    fn check_forwarded(lines: &[&str], expected: (&str, ClientIpSource)) {
        check_with("forwarded", PROXY, lines, expected);
    }

    #[test]
    fn forwarded_is_read_from_the_right_as_well() {
        check_forwarded(&["for=203.0.113.9"], ("203.0.113.9", Header));
        check_forwarded(&["For=203.0.113.9;proto=https;by=10.0.0.1"], ("203.0.113.9", Header));
        check_forwarded(&["proto=https; for=\"203.0.113.9:4711\""], ("203.0.113.9", Header));
        check_forwarded(&["for=\"[2001:db8::9]:4711\""], ("2001:db8::9", Header));
        check_forwarded(&["for=127.0.0.1, for=203.0.113.9, for=10.0.0.8"], ("203.0.113.9", Header));
        check_forwarded(&["for=203.0.113.9;host=\"a,b\", for=10.0.0.8"], ("203.0.113.9", Header));
        check_forwarded(&["for=\"203.0.113.9:_port\""], ("203.0.113.9", Header));
        check_forwarded(&["for=127.0.0.1", "for=203.0.113.9"], ("203.0.113.9", Header));
    }

    #[test]
    fn a_quote_left_open_by_the_client_swallows_nothing() {
        check_forwarded(&["for=\"127.0.0.1, for=203.0.113.9"], ("203.0.113.9", Header));
        check_forwarded(&["for=\", for=\"[2001:db8::9]\""], ("2001:db8::9", Header));
        check_forwarded(&["for=\"127.0.0.1", "for=203.0.113.9"], ("203.0.113.9", Header));
    }

    #[test]
    fn a_forwarded_element_without_one_readable_for_ends_the_walk() {
        for junk in [
            "",
            "proto=https",
            "for",
            "for=",
            "for=unknown",
            "for=_hidden",
            "for=203.0.113.9;for=10.0.0.1",
            "203.0.113.9",
            "for=203.0.113.9,",
            "for=\"203.0.113.9",
            "for==203.0.113.9",
            "for=203.0.113.9;",
        ] {
            check_forwarded(&[junk], (PROXY, HeaderMalformed));
        }
        check_forwarded(&["for=203.0.113.9, for=unknown, for=10.0.0.8"], ("10.0.0.8", HeaderMalformed));
    }

    proptest! {
        #[test]
        fn what_a_client_sends_never_changes_what_a_trusted_proxy_appended(
            junk in proptest::collection::vec(prop_oneof![32_u8..127, Just(b'"'), Just(b',')], 0..40),
        ) {
            let lists: [(&'static str, &[u8]); 2] =
                [("x-forwarded-for", b", 203.0.113.9"), ("forwarded", b", for=\"203.0.113.9\"")];
            for (name, appended) in lists {
                let line = [junk.as_slice(), appended].concat();
                let read = read(name, PROXY, &[&line]);
                prop_assert_eq!((read.address, read.source), ("203.0.113.9".parse().unwrap(), Header));
            }
        }

        #[test]
        fn an_address_is_read_back_in_every_dress(bits: u128) {
            let address = Ipv6Addr::from_bits(bits);
            for text in [format!("{address}"), format!("[{address}]"), format!("[{address}]:80"), format!("{address}%a")] {
                prop_assert_eq!(node(text.as_bytes()), Some(IpAddr::V6(address)));
            }
        }
    }
}
