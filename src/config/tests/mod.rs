//! What a whole configuration is read as, and where its faults are said to be.

mod complete;
#[cfg(feature = "control")]
mod control;
mod faults;
mod rules;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use super::{
    layer::{Origin, Source, Table, Value},
    *,
};
use crate::{facts::OddFieldNames, keys::Mode, limits::HeaderStyle, proxy::settings::HostRule};

/// A configuration on loopback: nothing to warn of. It goes below the text, so that places are those of the text.
const PLAIN: &str = "\n[listen]\naddress = \"127.0.0.1:8443\"\nplaintext = true\n";

/// The text, listening on loopback where it does not say otherwise.
fn plain(text: &str) -> String {
    if text.contains("[listen]\n") { text.to_owned() } else { format!("{text}{PLAIN}") }
}

fn read_with(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Faults> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load_text(text, Path::new("keyside.toml"), variables)
}

fn file_of(keys: &KeysSettings) -> &Path {
    match &keys.source {
        KeySource::File(file) => file,
        KeySource::Control(control) => panic!("{control:?}"),
    }
}

#[track_caller]
fn good(text: &str) -> Loaded {
    read_with(&plain(text), &[]).unwrap_or_else(|faults| panic!("{faults}"))
}

fn compact(faults: &[Fault]) -> Vec<String> {
    let line = |fault: &Fault| {
        let place = if fault.line > 0 { format!("{}:{} ", fault.line, fault.column) } else { String::new() };
        let kind = if fault.is_error() { "" } else { "warning: " };
        let help = fault.suggestion.as_ref().map_or(String::new(), |help| format!(" ({help})"));
        format!("{place}{kind}{}{help}", fault.message)
    };
    faults.iter().map(line).collect()
}

/// Every fault and warning of a text.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    check_with(text, &[], expected);
}

#[track_caller]
fn check_with(text: &str, variables: &[(&str, &str)], expected: &[&str]) {
    let faults = match read_with(&plain(text), variables) {
        Ok(loaded) => loaded.warnings,
        Err(faults) => faults.0,
    };
    assert_eq!(compact(&faults), expected);
}

#[test]
fn the_defaults_are_the_contracts() {
    let config = good("").config;
    let seconds = Duration::from_secs;
    assert_eq!(config.listener.max_connections, 10_000);
    assert_eq!(config.listener.max_connections_per_ip, 0);
    assert_eq!(config.listener.max_header_bytes, 16 * 1024);
    assert!(!config.listener.proxy_protocol && config.listener.trusted_proxies.is_empty());
    let timeouts = config.listener.timeouts;
    assert_eq!([timeouts.handshake, timeouts.header], [seconds(10), seconds(15)]);
    assert_eq!([timeouts.idle, timeouts.body, timeouts.write], [seconds(60), seconds(30), seconds(30)]);
    assert_eq!(config.facts.client_ip_header, "x-forwarded-for");
    assert_eq!(config.facts.odd_field_names, OddFieldNames::Refuse);
    assert_eq!(config.facts.effective_path_parameter, None);
    assert_eq!(config.max_body, 10 << 20);
    assert_eq!(config.health_path, None);
    assert_eq!(config.admin.address, Some(SocketAddr::from(([127, 0, 0, 1], 9090))));
    assert_eq!(config.admin.probes, None);
    assert_eq!([config.shutdown.delay, config.shutdown.grace], [seconds(5), seconds(20)]);
    let upstream = &config.upstream;
    assert_eq!(upstream.url.to_string(), "http://127.0.0.1:8080");
    assert_eq!(upstream.host, HostRule::Preserve);
    assert_eq!([upstream.connect_timeout, upstream.response_timeout], [seconds(1), seconds(60)]);
    assert_eq!(upstream.idle_timeout, seconds(4));
    assert_eq!([upstream.max_in_flight, upstream.max_connections], [1024, 256]);
    assert!(upstream.tls.is_none() && upstream.modes.is_empty() && upstream.authorization.is_none());
    let keys = &config.keys;
    assert_eq!((file_of(keys), keys.state.as_path()), (Path::new("keys.toml"), Path::new("state/")));
    assert_eq!([keys.max_stale, keys.max_stale_write], [seconds(86_400); 2]);
    assert_eq!(keys.on_revoke, OnRevoke::Finish);
    assert_eq!(keys.mint, crate::keys::mint::Settings::default());
    assert_eq!((keys.verification.threads, keys.verification.queue), (0, 1024));
    let credential = &config.credential;
    assert!(credential.basic && credential.bearer && credential.header.is_none() && credential.query.is_none());
    assert_eq!(config.policy.methods, room_policy::Methods::default());
    assert!(!config.policy.forward_preflight && config.policy.routes.is_empty() && config.policy.hosts.is_empty());
    let limits = &config.limits;
    assert!(limits.per_ip.is_empty() && limits.per_key.is_empty() && limits.per_owner.is_empty());
    assert_eq!(limits.failures_per_ip, ["20/1m".parse().unwrap()]);
    assert_eq!((limits.ipv6_prefix, limits.headers), (64, HeaderStyle::Both));
    assert_eq!(&*config.owner_headers.reserved_prefix, "x-key-");
    assert_eq!(config.owner_headers.key_id, "x-key-id");
    assert_eq!(config.owner_headers.mode, "x-key-mode");
    assert_eq!(config.errors, rejection::Format::Problem);
    assert_eq!(config.log, log::Settings::default());
}

#[test]
fn relative_paths_start_beside_the_file() {
    let text = "[listen.tls]\ncertificate = \"a.crt\"\nprivate_key = \"/b.key\"\n[keys]\nfile = \"keys/k.toml\"\n";
    let config = load_text(text, Path::new("/etc/keyside/keyside.toml"), []).unwrap().config;
    let tls = config.listener.tls.unwrap();
    assert_eq!(tls.certificate, Path::new("/etc/keyside/a.crt"));
    assert_eq!(tls.private_key, Path::new("/b.key"));
    assert_eq!(file_of(&config.keys), Path::new("/etc/keyside/keys/k.toml"));
    assert_eq!(config.keys.state, Path::new("/etc/keyside/state/"));
}

#[test]
fn secrets_are_read_less_their_final_newline() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pepper"), "0123456789abcdef \r\n").unwrap();
    let text = plain("[keys]\npepper = { file = \"pepper\" }\n[upstream]\nauthorization = { env = \"TOKEN\" }\n");
    let path = folder.path().join("keyside.toml");
    let token = ("TOKEN".to_owned(), "Bearer x\n".to_owned());
    let config = load_text(&text, &path, [token]).unwrap().config;
    assert_eq!(config.keys.pepper.unwrap().expose(), b"0123456789abcdef ");
    assert_eq!(config.upstream.authorization.unwrap().expose(), b"Bearer x");
    assert_eq!(config.sources, [path.clone(), folder.path().join("pepper")]);
}

#[test]
fn the_environment_overrides_the_file() {
    let config = read_with(
        "[listen]\nplaintext = true\nmax_body = \"1MiB\"\n",
        &[
            ("KEYSIDE_LISTEN__ADDRESS", "127.0.0.1:1"),
            ("KEYSIDE_LISTEN__MAX_BODY", "2KiB"),
            ("KEYSIDE_LISTEN__TRUSTED_PROXIES", "[\"10.0.0.0/8\"]"),
            ("KEYSIDE_CREDENTIALS__BEARER", "false"),
            ("KEYSIDE_UPSTREAM__MODES__TEST", "http://127.0.0.1:2"),
            ("KEYSIDE_KEYS__MINT__TOKEN__SHOWN", "8"),
            ("KEYSIDE_PORT", "tcp://10.0.0.1:8443"),
            ("KEYSIDE_PRESET", "web3pay"),
        ],
    );
    let config = config.unwrap().config;
    assert_eq!(config.listener.addresses, [SocketAddr::from(([127, 0, 0, 1], 1))]);
    assert_eq!(config.max_body, 2048);
    assert!(!config.facts.trusted_proxies.is_empty());
    assert!(!config.credential.bearer);
    assert_eq!(config.upstream.modes[&Mode::Test].to_string(), "http://127.0.0.1:2");
    assert_eq!(config.keys.mint.token.shown, 8);
    assert_eq!(config.preset, Some("web3pay"));
}

#[test]
fn the_users_routes_come_before_the_presets() {
    let paths = |text: &str| {
        let config = good(text).config;
        config.policy.routes.iter().map(|route| route.path.as_str().to_owned()).collect::<Vec<_>>()
    };
    let own = "[[route]]\npath = \"/mine\"\n";
    let all = paths(&format!("preset = \"wontopos\"\n{own}"));
    assert_eq!(all, ["/mine", "/v1/**"]);
    assert_eq!(paths(&format!("preset = \"wontopos\"\nroutes_from_preset = false\n{own}")), ["/mine"]);
    assert_eq!(paths("preset = \"wontopos\"\n"), ["/v1/**"]);
}

#[test]
fn presets_lie_below_the_users_file() {
    let config =
        good("preset = \"wontopos\"\n[limits]\nper_key = [\"5/1m\"]\n[limits.plans]\nfree = [\"1/1m\"]\n").config;
    assert_eq!(config.limits.per_key, ["5/1m".parse().unwrap()], "lists replace");
    assert_eq!(config.limits.plans["free"], ["1/1m".parse().unwrap()]);
    assert_eq!(config.limits.plans["enterprise"], ["6000/1m".parse().unwrap()], "tables merge");
    assert_eq!(config.policy.hosts["api.wontopos.com"], Mode::Live);
    let config = good("preset = \"web3pay\"\n[credentials]\nheader = \"\"\nbearer = true\n").config;
    assert_eq!(config.credential.header, None, "an empty text turns a setting off");
}
