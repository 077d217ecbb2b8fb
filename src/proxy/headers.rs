//! Which header fields pass, and which are ours to write.
//!
//! Nothing that a client can spell reaches the upstream as one of our fields: the client's own nominations
//! (`Connection`) are applied to the client's fields alone, then everything under our names is removed, and only then
//! ours are written (RFC 9110 §7.6.1).

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, Entry},
};
use smallvec::SmallVec;

use super::{settings::OwnerHeaderSettings, upstream::Received};
use crate::listener::Fields;

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
    pub(super) owner: OwnerHeaderSettings,
    /// Those of our names that the reserved prefix does not cover.
    beyond_prefix: Vec<HeaderName>,
    /// The field in which trusted proxies name the client.
    pub(super) client_ip: HeaderName,
}

impl HeaderRules {
    /// Compiles the rules.
    pub fn new(owner: OwnerHeaderSettings, client_ip: HeaderName) -> Self {
        let prefix = &*owner.reserved_prefix;
        let beyond_prefix = [&owner.key_id, &owner.owner, &owner.scopes, &owner.mode]
            .into_iter()
            .filter(|name| prefix.is_empty() || !name.as_str().starts_with(prefix))
            .cloned()
            .collect();
        Self { beyond_prefix, owner, client_ip }
    }

    /// Whether a field of this name (lower case) is ours to write, in requests, trailers and answers.
    pub fn is_ours(&self, name: &[u8]) -> bool {
        let prefix = self.owner.reserved_prefix.as_bytes();
        (!prefix.is_empty() && name.starts_with(prefix))
            || self.beyond_prefix.iter().any(|ours| ours.as_str().as_bytes() == name)
    }

    /// Whether a client's field of this name goes on to the upstream as it is.
    pub(super) fn request_field_passes(&self, name: &HeaderName) -> bool {
        let text = name.as_str();
        // The length of a body is known from the body itself; the one framing that is true is written with it.
        !is_hop_by_hop(text.as_bytes())
            && !matches!(text, "host" | "content-length" | "expect" | "x-request-id" | "via")
            && !text.starts_with("x-forwarded-")
            && !IDENTITY_OF_OTHERS.contains(&text)
            && !self.is_ours(text.as_bytes())
    }

    /// Of the trailer fields that a `Trailer` field announces, those that may pass.
    pub(super) fn kept_trailer_names(&self, announced: &HeaderValue) -> Option<String> {
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

    /// Copies the fields of an answer, but for those that belong to the connection to the upstream or are ours, and
    /// those that give way to what `replaces` says is written anew.
    pub fn copy_answer(&self, received: &Received, replaces: impl Fn(&[u8]) -> bool, fields: &mut Fields) {
        let connection = received.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"connection"));
        let mut nominated: SmallVec<[HeaderName; 4]> = SmallVec::new();
        connection.for_each(|(_, value)| nominate(value, &mut nominated));
        let passes = |name: &[u8]| {
            !is_hop_by_hop(name)
                && !matches!(name, b"content-length" | b"x-request-id")
                && !self.is_ours(name)
                && !replaces(name)
                && !nominated.iter().any(|nominated| nominated.as_str().as_bytes() == name)
        };
        fields.copy(received.text(), received.places(), passes);
    }
}

/// Whether a field belongs to one connection (RFC 9110 §7.6.1).
fn is_hop_by_hop(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection"
            | b"keep-alive"
            | b"proxy-connection"
            | b"proxy-authenticate"
            | b"proxy-authorization"
            | b"te"
            | b"transfer-encoding"
            | b"upgrade"
            | b"http2-settings"
    )
}

/// Adds the fields that `Connection` nominates, but for those that frame, route or authenticate a message: a client
/// may not take those out of it.
pub(super) fn nominated(headers: &HeaderMap, gone: &mut SmallVec<impl smallvec::Array<Item = HeaderName>>) {
    headers.get_all(header::CONNECTION).iter().for_each(|value| nominate(value.as_bytes(), gone));
}

fn nominate(connection: &[u8], gone: &mut SmallVec<impl smallvec::Array<Item = HeaderName>>) {
    for option in connection.split(|byte| *byte == b',') {
        let Ok(name) = HeaderName::from_bytes(option.trim_ascii()) else { continue };
        if !matches!(name.as_str(), "host" | "content-length" | "authorization" | "trailer" | "close" | "cookie") {
            gone.push(name);
        }
    }
}

fn remove_all(headers: &mut HeaderMap, name: HeaderName) {
    if let Entry::Occupied(entry) = headers.entry(name) {
        entry.remove_entry_mult();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::listener::Answer;

    /// The fields of an answer that pass, by their names.
    #[track_caller]
    fn check(fields: &str, expected: &[&str]) {
        let owner = OwnerHeaderSettings {
            reserved_prefix: "x-key-".into(),
            key_id: HeaderName::from_static("x-key-id"),
            owner: HeaderName::from_static("x-key-owner"),
            scopes: HeaderName::from_static("x-key-scopes"),
            mode: HeaderName::from_static("x-mode"),
        };
        let rules = HeaderRules::new(owner, HeaderName::from_static("x-forwarded-for"));
        let received = Received::of(Bytes::from(format!("HTTP/1.1 200 OK\r\n{fields}\r\n"))).unwrap();
        let mut copied = Fields::as_map();
        rules.copy_answer(&received, |name| name == b"x-replaced", &mut copied);
        let map = Answer::new(http::StatusCode::OK, copied, ()).into_fields();
        assert_eq!(map.keys().map(HeaderName::as_str).collect::<Vec<_>>(), expected, "{fields:?}");
    }

    #[test]
    fn what_belongs_to_the_connection_or_is_ours_ends_here() {
        check("Server: a\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n", &["server", "set-cookie"]);
        check("CONNECTION: X-Hop, close\r\nx-hop: 1\r\nKeep-Alive: timeout=5\r\nx-stays: 1\r\n", &["x-stays"]);
        // A nomination takes out nothing that frames or authenticates.
        check(
            "Connection: host, authorization, cookie\r\nCookie: 1\r\nAuthorization: 1\r\n",
            &["cookie", "authorization"],
        );
        check("Transfer-Encoding: chunked\r\nContent-Length: 5\r\nTE: x\r\nUpgrade: h2c\r\n", &[]);
        check("X-Request-ID: theirs\r\nX-Key-Owner: forged\r\nX-Mode: live\r\nX-Replaced: 1\r\n", &[]);
        check(
            "Proxy-Authenticate: Basic\r\nProxy-Connection: close\r\nWWW-Authenticate: Basic\r\n",
            &["www-authenticate"],
        );
    }
}
