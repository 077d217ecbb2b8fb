//! The client's address is the peer's, or one that stands in the field, and never one that only the client could have
//! put there.
//!
//! An input: `f` for Forwarded, `r` for X-Real-IP, anything else for X-Forwarded-For; then the field, line by line.

#![no_main]

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, Request};
use keyside::{
    facts::{Arrival, ClientIpSource, Facts, Settings},
    policy::network::Networks,
};
use keyside_fuzz::line;

const PEER: &str = "10.0.0.1";
const STRANGER: &str = "203.0.113.77";
const TRUSTED: &str = "10.0.0.2";

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (kind, mut rest) = line(input);
    let name = match kind {
        b"f" => "forwarded",
        b"r" => "x-real-ip",
        _ => "x-forwarded-for",
    };
    let mut lines: Vec<Vec<u8>> = Vec::new();
    while !rest.is_empty() && lines.len() < 20 {
        let (value, further) = line(rest);
        (rest, _) = (further, lines.push(value.trim_ascii().to_vec()));
    }
    let Some((client, source)) = read(name, &lines, PEER) else { return };
    let peer: IpAddr = PEER.parse().unwrap();
    if client != peer {
        assert!(lines.iter().any(|line| stands_in(line, client)), "{client} stands nowhere");
        assert!(matches!(source, ClientIpSource::Header | ClientIpSource::HeaderMalformed));
    }
    if source == ClientIpSource::HeaderMissing {
        assert!(lines.is_empty());
    }
    let element = |address: &str| match name {
        "forwarded" => format!("for={address}"),
        _ => address.to_owned(),
    };
    // What a proxy appends is believed, whatever stands before it: on a line of its own, or on the last one.
    let on_its_own = [lines.clone(), vec![element(STRANGER).into_bytes()]].concat();
    let stranger = Some((STRANGER.parse().unwrap(), ClientIpSource::Header));
    assert_eq!(read(name, &on_its_own, PEER), stranger);
    let mut appended = lines.clone();
    if let Some(last) = appended.last_mut() {
        last.extend_from_slice(format!(", {}", element(STRANGER)).as_bytes());
        assert_eq!(read(name, &appended, PEER), stranger);
    }
    // A further trusted proxy changes nothing but who is nearest.
    if source == ClientIpSource::Header {
        let longer = [lines.clone(), vec![element(TRUSTED).into_bytes()]].concat();
        assert_eq!(read(name, &longer, PEER), Some((client, source)));
    }
    // What stands before the client's address is nobody's word.
    if source == ClientIpSource::Header && !trusted().contains(client) {
        let before = [vec![b"for=\"9.9.9.9, 8.8.8.8".to_vec()], lines.clone()].concat();
        assert_eq!(read(name, &before, PEER), Some((client, source)));
    }
    // An untrusted peer is the client.
    assert_eq!(read(name, &lines, STRANGER), Some((STRANGER.parse().unwrap(), ClientIpSource::Peer)));
});

fn trusted() -> Networks {
    Networks::parse(["10.0.0.0/8", "2001:db8:aa::/48"]).unwrap()
}

fn read(name: &'static str, lines: &[Vec<u8>], peer: &str) -> Option<(IpAddr, ClientIpSource)> {
    let mut request = Request::new(()).into_parts().0;
    request.headers.insert("host", HeaderValue::from_static("api.example.com"));
    for line in lines {
        request.headers.append(name, HeaderValue::from_bytes(line).ok()?);
    }
    let settings =
        Settings { trusted_proxies: trusted(), client_ip_header: HeaderName::from_static(name), ..Settings::default() };
    let arrival = Arrival { peer: peer.parse().unwrap(), secure: true, http2: false };
    let facts = Facts::from_head(&request, &arrival, &settings).ok()?;
    assert_eq!(facts.peer_trusted, peer == PEER);
    Some((facts.client, facts.client_source))
}

/// Whether the address stands in the text, in any of its spellings.
fn stands_in(text: &[u8], address: IpAddr) -> bool {
    let is_it = |word: &[u8]| {
        let word = std::str::from_utf8(word).unwrap_or_default();
        word.parse::<IpAddr>().is_ok_and(|found| found.to_canonical() == address)
    };
    text.split(|byte| !(byte.is_ascii_digit() || *byte == b'.')).any(is_it)
        || text.split(|byte| !(byte.is_ascii_hexdigit() || b".:".contains(byte))).any(is_it)
}
