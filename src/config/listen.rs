//! `[listen]`, `[admin]`, `[shutdown]` and `[log]`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use http::HeaderName;

use super::{
    layer::Node,
    reader::Section,
    value::{self, Read, Wrong, boolean, choice, duration, integer, list, one_or_list, parsed_as, size},
};
use crate::{
    listener::{self, ShutdownSettings, tls},
    policy::network::{Network, Networks},
    telemetry::{admin, log},
};

/// What `[listen]` says, for the rooms that share it.
pub(super) struct Listen {
    pub(super) listener: listener::Settings,
    pub(super) client_ip_header: HeaderName,
    pub(super) max_uri_bytes: usize,
    pub(super) max_body: u64,
    pub(super) health_path: Option<Box<str>>,
}

const MOMENT: Duration = Duration::from_millis(100);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn listen(section: &Section<'_>) -> Listen {
    let addresses = section.required("address", one_or_list(socket_address));
    let trusted_proxies = section.required("trusted_proxies", networks);
    let client_ip_header = section.required("client_ip_header", parsed_as::<HeaderName>("the name of a header field"));
    let proxy_protocol = section.required("proxy_protocol", boolean);
    let max_connections = section.required("max_connections", integer(1..=10_000_000));
    let max_connections_per_ip = section.required("max_connections_per_ip", integer(0..=10_000_000));
    let max_header_bytes = section.required("max_header_bytes", size(1 << 10..=1 << 20));
    let max_uri_bytes = section.required("max_uri_bytes", size(256..=64 << 10));
    let max_body = section.required("max_body", size(0..=1 << 50));
    let health_path = section.optional("health_path", health_path);
    let plaintext = section.required("plaintext", boolean);
    let timeouts = section.section("timeouts", |section| listener::Timeouts {
        handshake: section.required("handshake", duration(MOMENT..=DAY)),
        header: section.required("header", duration(MOMENT..=DAY)),
        idle: section.required("idle", duration(MOMENT..=DAY)),
        body: section.required("body", duration(MOMENT..=DAY)),
        write: section.required("write", duration(MOMENT..=DAY)),
    });
    // A section without a certificate is a slip, and must never mean plain HTTP.
    let asked = section.entry("tls").is_some();
    let tls = section.section("tls", |section| tls(section, asked));
    let reader = section.reader();
    match (asked, plaintext) {
        (false, false) if reader.is_good("listen.plaintext") => reader.about_section(
            "listen",
            "`listen.tls`: neither TLS nor plain HTTP is asked for; give a certificate and a private_key in \
             [listen.tls], or say plaintext = true in [listen]",
        ),
        (true, true) => section.error("plaintext", "both plain HTTP and [listen.tls] are asked for; choose one"),
        _ => {}
    }
    Listen {
        listener: listener::Settings {
            addresses,
            tls,
            proxy_protocol,
            trusted_proxies,
            max_connections,
            max_connections_per_ip,
            max_strangers: None,
            max_unacknowledged: None,
            max_header_bytes: usize_of(max_header_bytes),
            timeouts,
        },
        client_ip_header,
        max_uri_bytes: usize_of(max_uri_bytes),
        max_body,
        health_path,
    }
}

fn tls(section: &Section<'_>, asked: bool) -> Option<tls::Settings> {
    let file = |name| section.optional(name, value::path).map(|path| section.reader().resolve(&path));
    let (certificate, private_key, client_ca) = (file("certificate"), file("private_key"), file("client_ca"));
    pair_of(section, certificate, private_key, asked).map(|(certificate, private_key)| tls::Settings {
        certificate,
        private_key,
        client_ca,
        client_certificate_required: true,
    })
}

/// A certificate and its private key: one without the other is a fault, and so is something that needs both.
pub(super) fn pair_of(
    section: &Section<'_>,
    certificate: Option<PathBuf>,
    private_key: Option<PathBuf>,
    needed: bool,
) -> Option<(PathBuf, PathBuf)> {
    match (certificate, private_key) {
        (Some(certificate), Some(private_key)) => return Some((certificate, private_key)),
        (Some(_), None) => missing(section, "private_key", "is missing: the certificate needs it"),
        (None, Some(_)) => missing(section, "certificate", "is missing: the private_key needs it"),
        (None, None) if needed => missing(section, "certificate", "is missing"),
        (None, None) => {}
    }
    None
}

fn missing(section: &Section<'_>, name: &'static str, message: &str) {
    if section.reader().is_good(&section.path_of(name)) {
        section.error(name, message);
    }
}

pub(super) fn admin(section: &Section<'_>) -> admin::Settings {
    admin::Settings {
        address: section.optional("address", socket_address),
        probes: section.optional("probes", socket_address),
    }
}

pub(super) fn shutdown(section: &Section<'_>) -> ShutdownSettings {
    ShutdownSettings {
        delay: section.required("delay", duration(Duration::ZERO..=DAY)),
        grace: section.required("grace", duration(Duration::ZERO..=DAY)),
    }
}

pub(super) fn log(section: &Section<'_>) -> log::Settings {
    use crate::telemetry::access_log::Access;
    let formats = [("json", log::Format::Json), ("text", log::Format::Text)];
    let accesses = [("all", Access::All), ("refused", Access::Refused), ("off", Access::Off)];
    log::Settings {
        format: section.required("format", choice(&formats)),
        access: section.required("access", choice(&accesses)),
    }
}

/// An address and a port. Names are not looked up: what they mean may change behind the listener's back.
fn socket_address(node: &Node) -> Read<SocketAddr> {
    let typed = match &node.value {
        super::layer::Value::Integer(port) => port.to_string(),
        _ => value::text(node)?,
    };
    let text = typed.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let wrong = Wrong::new(node, "expected an IP address and a port, such as \"0.0.0.0:8443\" or \"[::]:8443\"");
    let any = |port: u16| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port).to_string();
    let better = match (text.trim_start_matches(['*', ':']).parse().ok(), text.strip_prefix("localhost:")) {
        (Some(port @ 1..), _) => Some(any(port)),
        (_, Some(port)) => Some(format!("127.0.0.1:{port}")),
        _ => text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 8443).to_string()),
    };
    Err(vec![match better {
        Some(better) => wrong.suggest(format!("did you mean \"{better}\"?")),
        None => wrong,
    }])
}

/// Addresses and networks.
pub(super) fn networks(node: &Node) -> Read<Networks> {
    Ok(list(value::parsed::<Network>)(node)?.into_iter().collect())
}

fn health_path(node: &Node) -> Read<Box<str>> {
    let path = value::word(node)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    let segments = path.strip_prefix('/').unwrap_or_default().split('/');
    let clear = path.starts_with('/')
        && path.bytes().all(plain)
        && segments.enumerate().all(|(at, segment)| !matches!(segment, "." | "..") && (at == 0 || !segment.is_empty()));
    if clear && path.len() > 1 {
        Ok(path)
    } else {
        Err(vec![Wrong::new(
            node,
            "expected a path of letters, digits, \"-\", \"_\", \".\" and \"~\", such as \"/healthz\"",
        )])
    }
}

fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
