//! `[upstream]` and `[owner_headers]`.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderName, HeaderValue};

use super::{
    keys::secret,
    layer::Node,
    listen::pair_of,
    reader::Section,
    value::{self, Read, Wrong, choice, duration, integer, parsed_as, word},
};
use crate::{
    keys::{Mode, secret::Secret},
    proxy::settings::{HostRule, OwnerHeaderSettings, UpstreamSettings, UpstreamTls, UpstreamUrl},
};

const MOMENT: Duration = Duration::from_millis(10);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn upstream(section: &Section<'_>) -> UpstreamSettings {
    UpstreamSettings {
        url: section.required("url", url),
        host: section.required("host", host_rule),
        authorization: authorization(section),
        connect_timeout: section.required("connect_timeout", duration(MOMENT..=DAY)),
        response_timeout: section.required("response_timeout", duration(MOMENT..=DAY)),
        idle_timeout: section.required("idle_timeout", duration(Duration::ZERO..=DAY)),
        max_in_flight: section.required("max_in_flight", integer(1..=10_000_000)),
        max_connections: section.required("max_connections", integer(1..=1_000_000)),
        tls: section.section("tls", tls),
        modes: modes(section),
    }
}

/// A whole Authorization field, by reference.
pub(super) fn authorization(section: &Section<'_>) -> Option<Secret> {
    secret(section, "authorization", |value| match HeaderValue::from_bytes(value) {
        Ok(_) => Ok(()),
        Err(_) => Err("what it refers to cannot be the value of a header field"),
    })
}

/// How TLS with an upstream is done, where something is said of it.
pub(super) fn tls(section: &Section<'_>) -> Option<UpstreamTls> {
    let file = |name| section.optional(name, value::path).map(|path| section.reader().resolve(&path));
    let (ca, certificate, private_key) = (file("ca"), file("certificate"), file("private_key"));
    let server_name = section.optional("server_name", word);
    let client = pair_of(section, certificate, private_key, false);
    let tls = UpstreamTls {
        ca,
        server_name,
        certificate: client.as_ref().map(|(certificate, _)| certificate.clone()),
        private_key: client.map(|(_, private_key)| private_key),
    };
    (tls != UpstreamTls::default()).then_some(tls)
}

fn modes(section: &Section<'_>) -> BTreeMap<Mode, UpstreamUrl> {
    section.choices("modes", &[Mode::Live.as_str(), Mode::Test.as_str()]);
    section.map("modes", |name| name.parse::<Mode>().map_err(str::to_owned), url).into_iter().collect()
}

/// An upstream's url. A password in it is not shown again.
pub(super) fn url(node: &Node) -> Read<UpstreamUrl> {
    let text = value::text(node)?;
    text.parse().map_err(|error| {
        let wrong = Wrong::new(node, error);
        let bare = !text.contains("://") && !text.starts_with("unix:");
        vec![match format!("http://{text}").parse::<UpstreamUrl>() {
            Ok(better) if bare && !text.is_empty() => wrong.suggest(format!("did you mean \"{better}\"?")),
            _ if text.contains('@') => wrong.hide(),
            _ => wrong,
        }]
    })
}

fn host_rule(node: &Node) -> Read<HostRule> {
    let text = value::text(node)?;
    match text.as_str() {
        "preserve" => Ok(HostRule::Preserve),
        "upstream" => Ok(HostRule::Upstream),
        name => match name.parse::<http::uri::Authority>() {
            Ok(authority) if !name.contains('@') => Ok(HostRule::Name(
                HeaderValue::from_str(authority.as_str()).map_err(|_| vec![Wrong::new(node, HOST_SHAPE)])?,
            )),
            _ => Err(vec![Wrong::new(node, HOST_SHAPE)]),
        },
    }
}

const HOST_SHAPE: &str = "expected \"preserve\", \"upstream\", or a host name with or without port";

pub(super) fn owner_headers(section: &Section<'_>) -> OwnerHeaderSettings {
    let name = |name| section.required(name, header_of_ours);
    let settings = OwnerHeaderSettings {
        reserved_prefix: section.required("reserved_prefix", reserved_prefix),
        key_id: name("key_id"),
        owner: name("owner"),
        scopes: name("scopes"),
        mode: name("mode"),
    };
    let names = [
        ("key_id", &settings.key_id),
        ("owner", &settings.owner),
        ("scopes", &settings.scopes),
        ("mode", &settings.mode),
    ];
    for (index, (field, name)) in names.iter().enumerate() {
        if let Some((other, _)) = names[..index].iter().find(|(_, other)| fold(other.as_str()) == fold(name.as_str())) {
            section.error(field, format!("an upstream cannot tell it from `{other}`"));
        }
    }
    section.not_in_this_build("assertion", &["header", "audience", "private_key"]);
    settings
}

/// Fields that make a message what it is, or that say something else than whose key it is. Owner headers cannot be
/// called so, no reserved prefix may cover them, and no odd name may fold onto them.
pub(super) const TAKEN: &[&str] = &[
    "accept",
    "access-control-request-method",
    "access-control-request-headers",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "origin",
    "proxy",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "ratelimit",
    "ratelimit-policy",
    "referer",
    "retry-after",
    "set-cookie",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "www-authenticate",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-real-ip",
    "x-request-id",
    "x-rewrite-url",
];

fn header_of_ours(node: &Node) -> Read<HeaderName> {
    let name = parsed_as::<HeaderName>("the name of a header field")(node)?;
    if TAKEN.iter().any(|taken| fold(taken) == fold(name.as_str())) {
        return Err(vec![Wrong::new(node, "this field has a meaning of its own and cannot name the owner")]);
    }
    if !name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(vec![Wrong::new(node, "expected letters, digits and \"-\": many upstreams drop other names")]);
    }
    Ok(name)
}

fn reserved_prefix(node: &Node) -> Read<Box<str>> {
    let prefix = value::text(node)?.to_ascii_lowercase();
    let shaped = prefix.len() >= 3
        && prefix.len() <= 64
        && prefix.ends_with('-')
        && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !shaped {
        return Err(vec![Wrong::new(
            node,
            "expected the beginning of header names, with a final \"-\", such as \"X-Key-\"",
        )]);
    }
    match TAKEN.iter().find(|taken| taken.starts_with(&prefix)) {
        Some(taken) => Err(vec![Wrong::new(node, format!("{taken} begins with it too, and would be removed"))]),
        None => Ok(prefix.into()),
    }
}

/// A field's name as an upstream sees it that folds names as far as any does (RFC 3875 §4.1.18, and PHP).
pub(super) fn fold(name: &str) -> String {
    name.chars()
        .map(|character| if character.is_ascii_alphanumeric() { character.to_ascii_lowercase() } else { '_' })
        .collect()
}

pub(super) fn errors(section: &Section<'_>) -> crate::rejection::Format {
    use crate::rejection::Format;
    let formats = [
        ("problem", Format::Problem),
        ("wordpress", Format::WordPress),
        ("woocommerce", Format::WooCommerce),
        ("envelope", Format::Envelope),
    ];
    section.required("format", choice(&formats))
}
