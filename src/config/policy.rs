//! `[credentials]`, `[policy]`, `[hosts]` and `[[route]]`.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderName, Method};

use super::{
    layer::Node,
    reader::Section,
    upstream::{TAKEN, authorization, fold, tls, url},
    value::{self, Read, Wrong, boolean, choice, duration, list, one_or_list, parsed, parsed_as, size, word},
};
use crate::{
    credential::{self, OtherAuthorization, QueryNames},
    facts::{MethodOverride, OddFieldNames, Oddity},
    keys::{Mode, Permission},
    policy::{Methods, PathPattern, RouteSettings, RouteTls, RouteUpstream},
    proxy::settings::Endpoint,
};

pub(super) fn credentials(section: &Section<'_>) -> credential::Settings {
    let others = [
        ("strip", OtherAuthorization::Strip),
        ("pass", OtherAuthorization::Pass),
        ("refuse", OtherAuthorization::Refuse),
    ];
    let settings = credential::Settings {
        basic: section.required("basic", boolean),
        bearer: section.required("bearer", boolean),
        header: section.optional("header", credential_header),
        query: section.section("query", query),
        other_authorization: section.required("other_authorization", choice(&others)),
    };
    if !settings.basic && !settings.bearer && settings.header.is_none() && settings.query.is_none() {
        section.error("basic", "no kind of credential is switched on, so that no key could ever be presented");
    }
    settings
}

fn credential_header(node: &Node) -> Read<HeaderName> {
    let name = parsed_as::<HeaderName>("the name of a header field")(node)?;
    if name == http::header::AUTHORIZATION {
        return Err(vec![Wrong::new(node, "Authorization is read through basic = true and bearer = true")]);
    }
    if TAKEN.contains(&name.as_str()) {
        return Err(vec![Wrong::new(node, "this field has a meaning of its own and cannot hold a key")]);
    }
    Ok(name)
}

fn query(section: &Section<'_>) -> Option<QueryNames> {
    let (key, secret) = (section.optional("key", parameter), section.optional("secret", parameter));
    match (key, secret) {
        (Some(key), Some(secret)) if key == secret => {
            section.error("secret", "key and secret have the same name");
            None
        }
        (Some(key), Some(secret)) => Some(QueryNames { key, secret }),
        (Some(_), None) if section.entry("secret").is_none() => {
            section.error("secret", "is missing");
            None
        }
        (None, Some(_)) if section.entry("key").is_none() => {
            section.error("key", "is missing");
            None
        }
        _ => None,
    }
}

/// The name of a parameter that all readers of a query read alike.
fn parameter(node: &Node) -> Read<Box<str>> {
    let name = word(node)?;
    if name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) {
        Ok(name)
    } else {
        Err(vec![Wrong::new(
            node,
            "expected letters, digits, \"_\" and \"-\": other names are folded by some upstreams",
        )])
    }
}

/// What `[policy]` says, for the rooms that share it.
pub(super) struct Policy {
    pub(super) method_override: MethodOverride,
    pub(super) effective_path_parameter: Option<Box<str>>,
    pub(super) effective_path_prefix: Box<str>,
    pub(super) front_controllers: Vec<Box<str>>,
    pub(super) forward_preflight: bool,
    pub(super) odd_field_names: OddFieldNames,
    pub(super) pass_field_names: Vec<HeaderName>,
    pub(super) methods: Methods,
}

pub(super) fn policy(section: &Section<'_>) -> Policy {
    Policy {
        method_override: section.required(
            "method_override",
            choice(&[("judge", MethodOverride::Judge), ("refuse", MethodOverride::Refuse)]),
        ),
        effective_path_parameter: section.optional("effective_path_parameter", parameter),
        effective_path_prefix: section.required("effective_path_prefix", prefix),
        front_controllers: section.required("front_controllers", list(front_controller)),
        forward_preflight: section.required("preflight", choice(&[("refuse", false), ("forward", true)])),
        odd_field_names: section
            .required("odd_field_names", choice(&[("refuse", OddFieldNames::Refuse), ("drop", OddFieldNames::Drop)])),
        pass_field_names: section
            .required("pass_field_names", list(parsed_as::<HeaderName>("the name of a header field"))),
        methods: section.section("methods", |section| {
            let methods = Methods {
                read: section.required("read", list(method)),
                write: section.required("write", list(method)),
                pass: section.required("pass", list(method)),
            };
            each_once(section, &methods);
            methods
        }),
    }
}

/// What stands before the path that a parameter names: nothing, or a path without a final slash.
fn prefix(node: &Node) -> Read<Box<str>> {
    match value::text(node)? {
        text if text.is_empty() || (is_plain_path(&text) && !text.ends_with('/')) => Ok(text.into()),
        _ => Err(vec![Wrong::new(node, "expected \"\", or a path such as \"/wp-json\", without a final slash")]),
    }
}

/// The path of a program that serves all paths, or of the folder that it serves, as it is judged: in its plain spelling.
fn front_controller(node: &Node) -> Read<Box<str>> {
    match value::text(node)? {
        text if text == "/" || is_plain_path(text.strip_suffix('/').unwrap_or(&text)) => Ok(text.into()),
        _ => Err(vec![Wrong::new(node, "expected a path such as \"/\", \"/shop/\" or \"/index.php\"")]),
    }
}

/// A path of segments that have one spelling, and no dot segment.
fn is_plain_path(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.strip_prefix('/').is_some_and(|segments| {
        segments.split('/').all(|segment| !matches!(segment, "" | "." | "..") && segment.bytes().all(plain))
    })
}

/// A method in two lists would need two things at once; that it is in one twice is a slip.
fn each_once(section: &Section<'_>, methods: &Methods) {
    let lists = [("read", &methods.read), ("write", &methods.write), ("pass", &methods.pass)];
    let all: Vec<_> = lists.iter().flat_map(|(name, list)| list.iter().map(move |method| (*name, method))).collect();
    for (index, (name, method)) in all.iter().enumerate() {
        if let Some((other, _)) = all[..index].iter().find(|(_, earlier)| earlier == method) {
            section.error(name, format!("{method} is in `{other}` already; a method is in one list, once"));
        }
    }
}

/// Names that fold onto a name that is ours or that we judge by would let a client write that field.
pub(super) fn check_pass_field_names<'a>(
    section: &Section<'_>,
    names: &[HeaderName],
    reserved_prefix: &str,
    ours: impl Iterator<Item = &'a HeaderName> + Clone,
) {
    for (index, name) in names.iter().enumerate() {
        let folded = fold(name.as_str());
        let onto = TAKEN
            .iter()
            .copied()
            .chain(ours.clone().map(HeaderName::as_str))
            .find(|taken| fold(taken) == folded)
            .map(str::to_owned)
            .or_else(|| folded.starts_with(&fold(reserved_prefix)).then(|| format!("{reserved_prefix}…")));
        if let Some(onto) = onto {
            let fault = crate::fault::Fault::error(format!(
                "`policy.pass_field_names`: an upstream may take {name} for {onto}, which no client may write"
            ));
            section.reader().about(&[&format!("policy.pass_field_names[{index}]"), "policy.pass_field_names"], fault);
        }
    }
}

/// The upstream of a route, and what it gets as Authorization: never what the other upstream gets.
fn route_upstream(section: &Section<'_>) -> Option<RouteUpstream> {
    let url = section.optional("upstream", url);
    let authorization = authorization(section);
    if authorization.is_some() && url.is_none() {
        section.error("authorization", "goes to the upstream of this route, and it has none of its own");
    }
    let tls = section.section("tls", tls).map(|tls| RouteTls {
        ca: tls.ca,
        server_name: tls.server_name,
        identity: tls.certificate.zip(tls.private_key),
    });
    let is_secure = url.as_ref().is_some_and(|url| matches!(url.endpoint, Endpoint::Https { .. }));
    if tls.is_some() && !is_secure {
        section.error("tls", "is for an upstream of this route whose url begins with https, and it has none");
    }
    url.map(|url| RouteUpstream { url: url.to_string().into(), authorization, tls })
}

/// A method as it is sent: the case counts (RFC 9110 §9.1).
fn method(node: &Node) -> Read<Method> {
    let text = value::text(node)?;
    let wrong = |message: &str| Wrong::new(node, message);
    match Method::from_bytes(text.as_bytes()) {
        Ok(Method::CONNECT | Method::TRACE) => Err(vec![wrong("CONNECT and TRACE are never forwarded")]),
        Ok(method) if !method.as_str().bytes().any(|byte| byte.is_ascii_lowercase()) => Ok(method),
        Ok(_) => Err(vec![
            wrong("methods are written in capitals").suggest(format!("did you mean \"{}\"?", text.to_uppercase())),
        ]),
        Err(_) => Err(vec![wrong("expected a method, such as \"GET\"")]),
    }
}

pub(super) fn hosts(section: &Section<'_>) -> BTreeMap<String, Mode> {
    let mut hosts = BTreeMap::new();
    for (host, mode) in section.map("hosts", host_name, choice(&[("live", Mode::Live), ("test", Mode::Test)])) {
        if hosts.insert(host.clone(), mode).is_some_and(|other| other != mode) {
            section.error("hosts", format!("{host} is there twice, with both modes; upper and lower case are one"));
        }
    }
    hosts
}

/// A host as it is compared: lower case, without port.
fn host_name(text: &str) -> Result<String, String> {
    let host = text.to_ascii_lowercase();
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address
            .parse::<std::net::Ipv6Addr>()
            .map(|_| host.clone())
            .map_err(|_| "expected an IPv6 address".into());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() && name.bytes().all(plain) => {
            Err(format!("hosts are given without port; did you mean \"{name}\"?"))
        }
        _ if host.is_empty() || host.len() > 253 || !host.bytes().all(plain) => {
            Err("expected a host name, such as \"api.example.com\"".into())
        }
        _ => Ok(host),
    }
}

fn host(node: &Node) -> Read<String> {
    host_name(&value::text(node)?).map_err(|why| vec![Wrong::new(node, why)])
}

const MOMENT: Duration = Duration::from_millis(10);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// One `[[route]]`; none when its path is missing or faulty, for a route that covers something else is no route.
pub(super) fn route(section: &Section<'_>) -> Option<RouteSettings> {
    let path = section.optional("path", parsed::<PathPattern>);
    if section.entry("path").is_none() {
        section.error("path", "is missing");
    }
    let flag = |name, otherwise| section.optional(name, boolean).unwrap_or(otherwise);
    let route = RouteSettings {
        methods: section.optional("methods", list(method)),
        hosts: section.optional("hosts", one_or_list(host)).unwrap_or_default(),
        scope: section.optional("scope", one_or_list(parsed::<Permission>)).unwrap_or_default(),
        capability: section.optional("capability", word),
        kyc: flag("kyc", false),
        public: flag("public", false),
        observe: section.optional("mode", choice(&[("enforce", false), ("observe", true)])).unwrap_or(false),
        limits: flag("limits", true),
        upgrade: section.optional("upgrade", list(protocol)).unwrap_or_default(),
        upstream: route_upstream(section),
        max_body: section.optional("max_body", size(0..=1 << 50)),
        response_timeout: section.optional("response_timeout", duration(MOMENT..=DAY)),
        allow: section.optional("allow", list(parsed::<Oddity>)).unwrap_or_default(),
        ..RouteSettings::new(path?)
    };
    if route.methods.as_ref().is_some_and(Vec::is_empty) {
        section.error("methods", "no method at all; leave it out for all methods");
    }
    if section.entry("scope").is_some() && route.scope.is_empty() && section.reader().is_good(&section.path_of("scope"))
    {
        section.error("scope", "no scope at all; leave it out where the method decides, or say public = true");
    }
    if route.public {
        let asks = [("scope", !route.scope.is_empty()), ("capability", route.capability.is_some()), ("kyc", route.kyc)];
        for (name, _) in asks.iter().filter(|(_, asks)| *asks) {
            section.error(name, "a public route asks for no key, so it cannot ask for this");
        }
    }
    Some(route)
}

fn protocol(node: &Node) -> Read<Box<str>> {
    Ok(word(node)?.to_ascii_lowercase().into())
}
