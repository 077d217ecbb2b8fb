//! The head of a request as the upstream gets it, written straight into the bytes that are sent.
//!
//! No map of fields is made of it: the client's fields that may pass are copied, and ours are written behind them, the
//! owner's last. Nothing can be spelled into it: names and values come from types that hold no
//! line end (field values, methods and targets as the listener took them; ids and scopes of graphic ASCII).

use std::{
    cell::{Cell, RefCell},
    hash::BuildHasher as _,
    io::Write as _,
    net::IpAddr,
};

use foldhash::quality::RandomState;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{self},
};
use smallvec::SmallVec;

use super::{
    headers::{HeaderRules, nominated},
    upstream::RequestFraming,
};
use crate::{facts::Facts, keys::KeyRecord};

/// The pseudonym that `Via` gives (RFC 9110 §7.6.3).
const PSEUDONYM: &str = "keyside";

const TRACE_PARENT: &str = "traceparent";
const TRACE_STATE: &str = "tracestate";

/// What a head takes as a rule; a larger one grows.
const USUAL_BYTES: usize = 1024;

/// Who the upstream is told the request comes from.
#[derive(Clone, Copy, Debug)]
pub enum Identity<'a> {
    /// A key was judged and permitted.
    Key(&'a KeyRecord),
    /// No key was asked for, or the request is only observed: no owner headers.
    Nobody,
}

/// What of a head does not come from the client's fields.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// The method, as it was judged.
    pub method: &'a Method,
    /// What is put before the path.
    pub base_path: &'a str,
    /// What is known of the request.
    pub facts: &'a Facts,
    /// Whose request it is.
    pub identity: Identity<'a>,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Where the forwarding fields of the connection's last request are kept.
    pub way: Option<&'a Way>,
    /// The `Host` that the upstream gets.
    pub host: &'a [u8],
    /// What it gets as `Authorization` in place of the client's.
    pub authorization: Option<&'a HeaderValue>,
    /// The protocol that the connection is upgraded to, where the route allows it.
    pub upgrade: Option<&'a HeaderValue>,
    /// How the body is framed.
    pub framing: RequestFraming,
}

/// The forwarding fields of a connection's last request, as they were written: those of the next one are the same if
/// its host is.
#[derive(Debug, Default)]
pub struct Way(RefCell<WrittenWay>);

#[derive(Debug, Default)]
struct WrittenWay {
    host: String,
    text: Vec<u8>,
}

impl HeaderRules {
    /// The head of the request. The credential has been taken out of the client's fields before.
    pub fn write_request(&self, client: &HeaderMap, outgoing: &Outgoing<'_>) -> Vec<u8> {
        let facts = outgoing.facts;
        let mut out = Vec::with_capacity(USUAL_BYTES);
        for part in [
            outgoing.method.as_str(),
            " ",
            outgoing.base_path,
            facts.target.path_and_query().as_str(),
            " HTTP/1.1\r\nhost: ",
        ] {
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(outgoing.host);
        out.extend_from_slice(b"\r\n");
        let traced = self.write_clients(&mut out, client, outgoing);
        if let Some(authorization) = outgoing.authorization {
            field(&mut out, "authorization", authorization.as_bytes());
        }
        if let Some(protocol) = outgoing.upgrade {
            field(&mut out, "connection", b"upgrade");
            field(&mut out, "upgrade", protocol.as_bytes());
        }
        if facts.peer_trusted || client.contains_key(header::VIA) {
            write_way_behind(&mut out, client, outgoing);
        } else {
            write_way(&mut out, outgoing);
        }
        field(&mut out, "x-request-id", facts.request_id.as_str().as_bytes());
        if !traced {
            write_trace(&mut out);
        }
        write_framing(&mut out, outgoing);

        // Last, so that nothing above can shadow them.
        if let Identity::Key(key) = outgoing.identity {
            field(&mut out, self.owner.key_id.as_str(), key.id.as_str().as_bytes());
            field(&mut out, self.owner.owner.as_str(), key.owner.id.as_str().as_bytes());
            field(&mut out, self.owner.scopes.as_str(), key.scopes_text.as_bytes());
            if let Some(mode) = key.mode {
                field(&mut out, self.owner.mode.as_str(), mode.as_str().as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
        out
    }

    /// Those of the client's fields that pass. Tells whether the client's trace is among them.
    fn write_clients(&self, out: &mut Vec<u8>, client: &HeaderMap, outgoing: &Outgoing<'_>) -> bool {
        let mut gone: SmallVec<[HeaderName; 8]> = SmallVec::new();
        nominated(client, &mut gone);
        let mut cookies = false;
        let mut traces: SmallVec<[&HeaderValue; 1]> = SmallVec::new();
        for (name, value) in client {
            if !self.request_field_passes(name) || gone.contains(name) {
                continue;
            }
            match *name {
                header::AUTHORIZATION if outgoing.authorization.is_some() => {}
                // Crumbs are joined: HTTP/2 may split the field, HTTP/1.1 may not (RFC 9113 §8.2.3).
                header::COOKIE if cookies => {}
                header::COOKIE => {
                    cookies = true;
                    field(out, name.as_str(), &join(client, "cookie", b"; "));
                }
                // An announced trailer passes only under a name that may pass.
                header::TRAILER => {
                    if let Some(names) = self.kept_trailer_names(value) {
                        field(out, name.as_str(), names.as_bytes());
                    }
                }
                // From others than trusted proxies it is a forgery that an upstream might believe.
                _ if *name == self.client_ip && !outgoing.facts.peer_trusted => {}
                _ if name == TRACE_PARENT => traces.push(value),
                _ if name == TRACE_STATE => {}
                _ => field(out, name.as_str(), value.as_bytes()),
            }
        }
        // A trace that can be continued is one sane parent and whatever its state is (W3C Trace Context §§3.2, 3.3).
        let [parent] = *traces else { return false };
        if !is_trace_parent(parent.as_bytes()) {
            return false;
        }
        field(out, TRACE_PARENT, parent.as_bytes());
        for state in client.get_all(TRACE_STATE) {
            field(out, TRACE_STATE, state.as_bytes());
        }
        true
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// All values of a field, as one.
fn join(headers: &HeaderMap, name: &str, between: &[u8]) -> Vec<u8> {
    let mut joined = Vec::new();
    for value in headers.get_all(name) {
        if !joined.is_empty() {
            joined.extend_from_slice(between);
        }
        joined.extend_from_slice(value.as_bytes());
    }
    joined
}

/// Says where the body ends (RFC 9112 §6).
fn write_framing(out: &mut Vec<u8>, outgoing: &Outgoing<'_>) {
    match outgoing.framing {
        RequestFraming::Length(bytes) => {
            field(out, "content-length", itoa::Buffer::new().format(bytes).as_bytes());
        }
        RequestFraming::Chunked => field(out, "transfer-encoding", b"chunked"),
        // Where a body is usual, its absence is said (RFC 9110 §8.6).
        RequestFraming::None if matches!(*outgoing.method, Method::POST | Method::PUT | Method::PATCH) => {
            field(out, "content-length", b"0");
        }
        RequestFraming::None => {}
    }
}

/// Writes `X-Forwarded-For/-Proto/-Host`, `Forwarded` (RFC 7239) and `Via` for a client that is no trusted proxy:
/// nothing that it said of earlier hops is believed.
fn write_way(out: &mut Vec<u8>, outgoing: &Outgoing<'_>) {
    let host = outgoing.facts.host.authority();
    let Some(Way(kept)) = outgoing.way else {
        return write_new_way(out, outgoing, host);
    };
    let mut kept = kept.borrow_mut();
    if kept.text.is_empty() || kept.host != host {
        kept.text.clear();
        write_new_way(&mut kept.text, outgoing, host);
        host.clone_into(&mut kept.host);
    }
    out.extend_from_slice(&kept.text);
}

fn write_new_way(out: &mut Vec<u8>, outgoing: &Outgoing<'_>, host: &str) {
    let hop = Hop::of(outgoing);
    field(out, "x-forwarded-for", &hop.node);
    field(out, "forwarded", &hop.element);
    field(out, "x-forwarded-proto", hop.proto.as_bytes());
    field(out, "x-forwarded-host", host.as_bytes());
    field(out, "via", hop.via.as_bytes());
}

/// The same behind what a trusted proxy said of the hops before it, and behind earlier names in `Via`.
fn write_way_behind(out: &mut Vec<u8>, client: &HeaderMap, outgoing: &Outgoing<'_>) {
    let hop = Hop::of(outgoing);
    let believed = outgoing.facts.peer_trusted;
    let behind = |name: &str, believed: bool, own: &[u8]| {
        let mut list = if believed { join(client, name, b", ") } else { Vec::new() };
        if !list.is_empty() {
            list.extend_from_slice(b", ");
        }
        list.extend_from_slice(own);
        list
    };
    field(out, "x-forwarded-for", &behind("x-forwarded-for", believed, &hop.node));
    field(out, "forwarded", &behind("forwarded", believed, &hop.element));
    let theirs = |name: &str| client.get(name).filter(|_| believed).map(HeaderValue::as_bytes);
    field(out, "x-forwarded-proto", theirs("x-forwarded-proto").unwrap_or(hop.proto.as_bytes()));
    let host = outgoing.facts.host.authority();
    field(out, "x-forwarded-host", theirs("x-forwarded-host").unwrap_or(host.as_bytes()));
    field(out, "via", &behind("via", true, hop.via.as_bytes()));
}

/// The hop that we saw.
struct Hop {
    node: Vec<u8>,
    element: Vec<u8>,
    proto: &'static str,
    via: &'static str,
}

impl Hop {
    fn of(outgoing: &Outgoing<'_>) -> Self {
        let (facts, peer) = (outgoing.facts, outgoing.peer);
        let proto = if facts.secure { "https" } else { "http" };
        let (mut node, mut element) = (Vec::new(), Vec::new());
        // Writing to memory does not fail.
        let _ = write!(node, "{peer}");
        let _ = match peer {
            IpAddr::V4(address) => write!(element, "for={address}"),
            IpAddr::V6(address) => write!(element, "for=\"[{address}]\""),
        };
        let _ = write!(element, ";host=\"{}\";proto={proto}", facts.host.authority());
        let via = if facts.http2 { "2 keyside" } else { "1.1 keyside" };
        debug_assert!(via.ends_with(PSEUDONYM));
        Self { node, element, proto, via }
    }
}

/// Begins a trace.
fn write_trace(out: &mut Vec<u8>) {
    let mut text = *b"00-................................-................-00";
    let ids = random_ids();
    let (trace, parent) = ids.split_at(16);
    hex(trace, &mut text[3..35]);
    hex(parent, &mut text[36..52]);
    field(out, TRACE_PARENT, &text);
}

fn hex(bytes: &[u8], text: &mut [u8]) {
    for (byte, pair) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        pair.copy_from_slice(&HEX[usize::from(*byte)]);
    }
}

/// The two digits of each byte.
const HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    pairs
};

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
