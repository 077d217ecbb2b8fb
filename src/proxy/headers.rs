//! Which header fields pass, and which are ours to write.
//!
//! Nothing that a client can spell reaches the upstream as one of our fields: the client's own nominations
//! (`Connection`) are applied to the client's fields alone, then everything under our names is removed, and only then
//! ours are written (RFC 9110 §7.6.1).

use std::{
    cell::{Cell, RefCell},
    fmt::Write as _,
    hash::BuildHasher as _,
    net::IpAddr,
};

use foldhash::quality::RandomState;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, Entry},
};
use smallvec::SmallVec;

use super::settings::OwnerHeaderSettings;
use crate::{facts::Facts, keys::record::OwnerHeaderValues};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
/// The field of the id that caller, upstream and operator share.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The pseudonym that `Via` gives (RFC 9110 §7.6.3).
const PSEUDONYM: &str = "keyside";

/// Fields that tell who called or what was called, as some proxy or upstream believes them. A client's spelling of
/// them never passes; the ones that are standard or common are written anew.
const IDENTITY_OF_OTHERS: &[&str] = &[
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-originating-ip",
    "x-remote-ip",
    "x-remote-addr",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-original-url",
    "x-original-uri",
    "x-original-host",
    "x-rewrite-url",
    "x-host",
];

/// What is done with the header fields of requests and answers.
#[derive(Debug)]
pub struct HeaderRules {
    owner: OwnerHeaderSettings,
}

/// Who the upstream is told the request comes from.
#[derive(Clone, Copy, Debug)]
pub enum Identity<'a> {
    /// A key was judged and permitted.
    Key(&'a OwnerHeaderValues),
    /// No key was asked for, or the request is only observed: no owner headers.
    Nobody,
}

/// The fields whose values the forwarding code decides.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Where the forwarding fields of the connection's last request are kept.
    pub way: Option<&'a Way>,
    /// The `Host` that the upstream gets.
    pub host: HeaderValue,
    /// What it gets as `Authorization` in place of the client's.
    pub authorization: Option<&'a HeaderValue>,
    /// The protocol that the connection is upgraded to, where the route allows it.
    pub upgrade: Option<HeaderValue>,
}

/// The forwarding fields of a connection's last request: those of the next one are the same if its host is.
#[derive(Debug, Default)]
pub struct Way(RefCell<Option<WrittenWay>>);

#[derive(Clone, Debug)]
struct WrittenWay {
    host: HeaderValue,
    forwarded_for: Option<HeaderValue>,
    forwarded: Option<HeaderValue>,
}

impl HeaderRules {
    /// Compiles the rules.
    pub fn new(owner: OwnerHeaderSettings) -> Self {
        Self { owner }
    }

    /// Whether a field of this name (lower case) is ours to write, in requests, trailers and answers.
    pub fn is_ours(&self, name: &str) -> bool {
        let owner = &self.owner;
        (!owner.reserved_prefix.is_empty() && name.starts_with(&*owner.reserved_prefix))
            || [&owner.key_id, &owner.owner, &owner.scopes, &owner.mode].into_iter().any(|ours| ours == name)
    }

    /// Turns the client's fields into what the upstream gets. The credential has been taken out before.
    pub fn prepare_request(
        &self,
        headers: &mut HeaderMap,
        facts: &Facts,
        identity: Identity<'_>,
        outgoing: Outgoing<'_>,
    ) {
        let chain = facts.peer_trusted.then(|| Chain::of(headers));
        let via = headers.get(header::VIA).cloned();
        self.remove_what_does_not_pass(headers);

        // Room for all that is written below, so that the map grows at most once.
        headers.reserve(12);
        headers.insert(header::HOST, outgoing.host);
        if let Some(authorization) = outgoing.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        if let Some(protocol) = outgoing.upgrade {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, protocol);
        }
        write_forwarding(headers, facts, (outgoing.peer, outgoing.way), chain, via);
        headers.insert(X_REQUEST_ID, facts.request_id.header_value());
        write_trace(headers);

        // Last, so that nothing above can shadow them.
        if let Identity::Key(values) = identity {
            headers.insert(self.owner.key_id.clone(), values.key_id.clone());
            headers.insert(self.owner.owner.clone(), values.owner.clone());
            headers.insert(self.owner.scopes.clone(), values.scopes.clone());
            if let Some(mode) = &values.mode {
                headers.insert(self.owner.mode.clone(), mode.clone());
            }
        }
    }

    fn remove_what_does_not_pass(&self, headers: &mut HeaderMap) {
        let mut gone: SmallVec<[HeaderName; 8]> = SmallVec::new();
        for name in headers.keys() {
            if !self.request_field_passes(name) {
                gone.push(name.clone());
            }
        }
        nominated(headers, &mut gone);
        for name in gone {
            remove_all(headers, name);
        }
        // An announced trailer passes only under a name that may pass.
        if let Some(announced) = headers.get(header::TRAILER) {
            let kept = self.kept_trailer_names(announced);
            match kept.and_then(|names| HeaderValue::try_from(names).ok()) {
                Some(names) => headers.insert(header::TRAILER, names),
                None => headers.remove(header::TRAILER),
            };
        }
        join_cookies(headers);
    }

    fn request_field_passes(&self, name: &HeaderName) -> bool {
        let text = name.as_str();
        // The length of a body is known from the body itself; hyper writes the one framing that is true.
        !is_hop_by_hop(text)
            && !matches!(text, "host" | "content-length" | "expect" | "x-request-id" | "via")
            && !text.starts_with("x-forwarded-")
            && !IDENTITY_OF_OTHERS.contains(&text)
            && !self.is_ours(text)
    }

    fn kept_trailer_names(&self, announced: &HeaderValue) -> Option<String> {
        let names = announced.to_str().ok()?;
        let mut kept = String::new();
        for name in names.split(',').map(str::trim) {
            if name.parse::<HeaderName>().is_ok_and(|name| self.trailer_passes(&name)) {
                if !kept.is_empty() {
                    kept.push_str(", ");
                }
                kept.push_str(name);
            }
        }
        (!kept.is_empty()).then_some(kept)
    }

    /// Whether a trailer field of this name passes: never one that frames, routes, authenticates or is ours
    /// (RFC 9110 §6.5.1).
    fn trailer_passes(&self, name: &HeaderName) -> bool {
        self.request_field_passes(name)
            && !matches!(
                name.as_str(),
                "authorization" | "proxy-authorization" | "cookie" | "set-cookie" | "www-authenticate" | "trailer"
            )
            && name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    }

    /// Takes out of trailers, of a request or an answer, what may not pass.
    pub fn clean_trailers(&self, trailers: &mut HeaderMap) {
        let gone: SmallVec<[HeaderName; 4]> =
            trailers.keys().filter(|name| !self.trailer_passes(name)).cloned().collect();
        for name in gone {
            remove_all(trailers, name);
        }
    }

    /// Takes out of an answer what belongs to the connection to the upstream, and what is ours.
    pub fn clean_answer(&self, headers: &mut HeaderMap) {
        let mut gone: SmallVec<[HeaderName; 4]> = SmallVec::new();
        for name in headers.keys() {
            if is_hop_by_hop(name.as_str()) || name == "x-request-id" || self.is_ours(name.as_str()) {
                gone.push(name.clone());
            }
        }
        nominated(headers, &mut gone);
        // A length beside a chunked coding is the older of two framings (RFC 9112 §6.3): only one may be passed on.
        if headers.contains_key(header::TRANSFER_ENCODING) {
            headers.remove(header::CONTENT_LENGTH);
        }
        for name in gone {
            remove_all(headers, name);
        }
    }
}

/// Whether a field belongs to one connection (RFC 9110 §7.6.1).
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Adds the fields that `Connection` nominates, but for those that frame, route or authenticate a message: a client
/// may not take those out of it.
fn nominated(headers: &HeaderMap, gone: &mut SmallVec<impl smallvec::Array<Item = HeaderName>>) {
    for value in headers.get_all(header::CONNECTION) {
        for option in value.as_bytes().split(|byte| *byte == b',') {
            let Ok(name) = HeaderName::from_bytes(option.trim_ascii()) else { continue };
            if !matches!(name.as_str(), "host" | "content-length" | "authorization" | "trailer" | "close" | "cookie") {
                gone.push(name);
            }
        }
    }
}

fn remove_all(headers: &mut HeaderMap, name: HeaderName) {
    if let Entry::Occupied(entry) = headers.entry(name) {
        entry.remove_entry_mult();
    }
}

/// Joins cookie crumbs: HTTP/2 may split the field, HTTP/1.1 may not (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(mut joined) = HeaderValue::from_bytes(&joined) {
        joined.set_sensitive(true);
        headers.insert(header::COOKIE, joined);
    }
}

/// What trusted proxies before us said of the way that the request took.
struct Chain {
    forwarded_for: Vec<u8>,
    forwarded: Vec<u8>,
    proto: Option<HeaderValue>,
    host: Option<HeaderValue>,
}

impl Chain {
    fn of(headers: &HeaderMap) -> Self {
        Self {
            forwarded_for: join(headers, "x-forwarded-for"),
            forwarded: join(headers, "forwarded"),
            proto: headers.get("x-forwarded-proto").cloned(),
            host: headers.get("x-forwarded-host").cloned(),
        }
    }
}

fn join(headers: &HeaderMap, name: &str) -> Vec<u8> {
    let mut joined = Vec::new();
    for value in headers.get_all(name) {
        if !joined.is_empty() {
            joined.extend_from_slice(b", ");
        }
        joined.extend_from_slice(value.as_bytes());
    }
    joined
}

/// Writes `X-Forwarded-For/-Proto/-Host`, `Forwarded` (RFC 7239) and `Via`: in place of what an untrusted peer sent,
/// behind what a trusted one sent.
fn write_forwarding(
    headers: &mut HeaderMap,
    facts: &Facts,
    (peer, way): (IpAddr, Option<&Way>),
    chain: Option<Chain>,
    via: Option<HeaderValue>,
) {
    let own_proto = HeaderValue::from_static(if facts.secure { "https" } else { "http" });
    let own_host = facts.host.header_value();
    let (written, proto, host) = match chain {
        None => (hop(facts, peer, &own_host, way), own_proto, own_host),
        Some(chain) => {
            let hop = hop(facts, peer, &own_host, way);
            let written = WrittenWay {
                forwarded_for: behind(chain.forwarded_for, hop.forwarded_for),
                forwarded: behind(chain.forwarded, hop.forwarded),
                host: hop.host,
            };
            (written, chain.proto.unwrap_or(own_proto), chain.host.unwrap_or(own_host))
        }
    };
    if let Some(value) = written.forwarded_for {
        headers.insert(X_FORWARDED_FOR, value);
    }
    if let Some(value) = written.forwarded {
        headers.insert(header::FORWARDED, value);
    }
    headers.insert(X_FORWARDED_PROTO, proto);
    headers.insert(X_FORWARDED_HOST, host);

    let ours = if facts.http2 { "2 keyside" } else { "1.1 keyside" };
    debug_assert!(ours.ends_with(PSEUDONYM));
    let ours = HeaderValue::from_static(ours);
    let via = match via {
        None => Some(ours),
        Some(earlier) => behind(earlier.as_bytes().to_vec(), Some(ours)),
    };
    if let Some(via) = via {
        headers.insert(header::VIA, via);
    }
}

/// The hop that we saw, from the connection's last request if that was for the same host.
fn hop(facts: &Facts, peer: IpAddr, host: &HeaderValue, way: Option<&Way>) -> WrittenWay {
    if let Some(Way(kept)) = way {
        let mut kept = kept.borrow_mut();
        return match &*kept {
            Some(written) if written.host == *host => written.clone(),
            _ => kept.insert(write_hop(facts, peer, host)).clone(),
        };
    }
    write_hop(facts, peer, host)
}

fn write_hop(facts: &Facts, peer: IpAddr, host: &HeaderValue) -> WrittenWay {
    let mut node = Text::new();
    let _ = write!(node, "{peer}");
    let mut element = Text::new();
    let _ = match peer {
        IpAddr::V4(address) => write!(element, "for={address}"),
        IpAddr::V6(address) => write!(element, "for=\"[{address}]\""),
    };
    let quoted_host = host.to_str().unwrap_or_default();
    let _ = write!(element, ";host=\"{quoted_host}\";proto={}", if facts.secure { "https" } else { "http" });
    WrittenWay { host: host.clone(), forwarded_for: node.into_value(), forwarded: element.into_value() }
}

/// A list with one more member.
fn behind(mut list: Vec<u8>, member: Option<HeaderValue>) -> Option<HeaderValue> {
    let member = member?;
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(member.as_bytes());
    HeaderValue::from_bytes(&list).ok()
}

/// Passes a sane `traceparent` on, else begins a trace (W3C Trace Context §3.2).
fn write_trace(headers: &mut HeaderMap) {
    if headers.get(TRACE_PARENT).is_some_and(|value| is_trace_parent(value.as_bytes())) {
        return;
    }
    headers.remove("tracestate");
    let mut text = [0; 55];
    text[..3].copy_from_slice(b"00-");
    text[35] = b'-';
    text[52..].copy_from_slice(b"-00");
    let ids = random_ids();
    let (trace, parent) = ids.split_at(16);
    hex(trace, &mut text[3..35]);
    hex(parent, &mut text[36..52]);
    if let Ok(value) = HeaderValue::from_bytes(&text) {
        headers.insert(TRACE_PARENT, value);
    }
}

fn hex(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// Ids that are unlike any others; nobody is kept from guessing them.
fn random_ids() -> [u8; 24] {
    thread_local! {
        static HASHER: RandomState = RandomState::default();
        static COUNT: Cell<u64> = const { Cell::new(0) };
    }
    let count = COUNT.get();
    COUNT.set(count.wrapping_add(3));
    let mut ids = [0; 24];
    HASHER.with(|hasher| {
        for (number, bytes) in (count..).zip(ids.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&(hasher.hash_one(number) | 1).to_be_bytes());
        }
    });
    ids
}

fn is_trace_parent(value: &[u8]) -> bool {
    let lower_hex = |range: std::ops::Range<usize>| {
        value[range].iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
    };
    value.len() == 55
        && value[..3] == *b"00-"
        && value[35] == b'-'
        && value[52] == b'-'
        && lower_hex(3..35)
        && lower_hex(36..52)
        && lower_hex(53..55)
        && value[3..35].iter().any(|byte| *byte != b'0')
        && value[36..52].iter().any(|byte| *byte != b'0')
}

/// Header text that is built on the stack.
struct Text(SmallVec<[u8; 128]>);

impl Text {
    fn new() -> Self {
        Self(SmallVec::new())
    }

    fn into_value(self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(&self.0).ok()
    }
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
