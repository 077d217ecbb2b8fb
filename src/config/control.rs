//! `control.toml`: the settings of the control plane.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Config, Effective, Faults, environment,
    keys::secret,
    layer::{self, Node, Origin, Source, Table, overlay},
    listen, preset_names,
    reader::{Reader, Section},
    value::{self, Read, Wrong, boolean, choice, duration, list},
};
use crate::{
    control::{
        audit,
        settings::{Offer, PagesSettings, Settings, SetupSettings, SyncSettings},
        store::Place,
    },
    fault::Fault,
    keys::Kind,
    policy::Policy,
};

/// The commented default: every setting there is, and the value it has where nobody says otherwise.
pub const DEFAULT: &str = include_str!("../../config/control.toml");

/// How long a connection is kept whose other end acknowledges nothing.
const GONE: Duration = Duration::from_secs(30);

/// A configuration of the control plane without errors.
#[derive(Debug)]
pub struct LoadedControl {
    /// The settings.
    pub settings: Settings,
    /// What will surprise.
    pub warnings: Vec<Fault>,
    /// Every setting with where it came from.
    pub effective: Effective,
    secret_files: Vec<(&'static str, PathBuf)>,
}

impl LoadedControl {
    /// The files that secrets are referred to in, by setting.
    pub fn secret_files(&self) -> &[(&'static str, PathBuf)] {
        &self.secret_files
    }
}

/// What is a secret, and only ever referred to.
const SECRETS: [&str; 6] =
    ["store.password", "sync.tokens", "sync.gateway", "setup.password", "setup.token", "keys.pepper"];

const MINUTE: Duration = Duration::from_secs(60);
const TEN_YEARS: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);
const MONTH: Duration = Duration::from_secs(31 * 24 * 60 * 60);
/// The least that a token of sidecars has: 32 hexadecimal digits.
const TOKEN: usize = 32;

/// Reads a configuration of the control plane, what it refers to, and the environment.
///
/// # Errors
///
/// Everything that is wrong, at once.
pub fn load(path: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Result<LoadedControl, Faults> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Faults(vec![Fault::error(format!("cannot read {}: {error}", path.display()))]))?;
    load_text(&text, path, environment)
}

/// The same, from a text. `path` is what it is called in faults; relative paths start in its folder.
///
/// # Errors
///
/// Everything that is wrong, at once.
pub fn load_text(
    text: &str,
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<LoadedControl, Faults> {
    let environment: BTreeMap<String, String> = environment.into_iter().collect();
    let mut faults = Vec::new();
    let source = Arc::new(Source { origin: Origin::File(path.to_path_buf()), text: text.to_owned() });
    let user = layer::read(&source, &mut faults);
    if faults.iter().any(Fault::is_error) {
        return Err(Faults(faults));
    }
    let defaults = default_table();
    let mut table = defaults.clone();
    overlay(&mut table, user, "");
    overlay(&mut table, environment::read(&environment), "");
    let reader = Reader::new(path, &environment);
    let settings = reader.read(&table, &defaults, read);
    let secret_files = SECRETS.into_iter().filter_map(|name| Some((name, reader.referred(name)?))).collect();
    let findings = reader.finish();
    faults.extend(findings.faults);
    faults.sort_by_cached_key(|fault| (fault.file.clone(), fault.line, fault.column));
    faults.dedup();
    match settings {
        Some(settings) if !faults.iter().any(Fault::is_error) => {
            let effective = Effective::new(findings.settings);
            Ok(LoadedControl { settings, warnings: faults, effective, secret_files })
        }
        _ => Err(Faults(faults)),
    }
}

pub(super) fn default_table() -> Table {
    let source = Arc::new(Source { origin: Origin::Default, text: DEFAULT.to_owned() });
    let mut faults = Vec::new();
    let table = layer::read(&source, &mut faults);
    debug_assert!(faults.is_empty(), "{faults:?}");
    table
}

pub(super) fn read(root: &Section<'_>) -> Option<Settings> {
    let (listen, public_url) = root.section("listen", |section| {
        let public_url = section.optional("public_url", public_url);
        (listen::listen(section), public_url)
    });
    let admin = root.section("admin", listen::admin);
    let shutdown = root.section("shutdown", listen::shutdown);
    let store = root.section("store", store);
    let (sync, client_ca) = root.section("sync", sync);
    let (pages, example_url) = root.section("pages", |section| {
        let pages = PagesSettings {
            enabled: section.required("enabled", boolean),
            session_idle: section.required("session_idle", duration(MINUTE..=MONTH)),
            session_max: section.required("session_max", duration(MINUTE..=MONTH)),
        };
        (pages, section.optional("example_url", example_url))
    });
    let setup = root.section("setup", setup);
    let (pepper, managers_mint_managers) = root.section("keys", |section| {
        (secret(section, "pepper", long_enough(16)), section.required("managers_mint_managers", boolean))
    });
    let offers = root.section("presets", presets);
    let anchor = root.section("audit", |section| section.optional("anchor", value::path));
    let log = root.section("log", listen::log);

    let mut listen = listen;
    // The other half is for those who were let in: sidecars, programs, people who are signed in.
    listen.listener.max_strangers = Some((listen.listener.max_connections / 2).max(1));
    // A sidecar whose host is gone has no stream: it can be forgotten, and nobody waits for it.
    listen.listener.max_unacknowledged = Some(GONE);
    match (&mut listen.listener.tls, client_ca) {
        (_, None) => {}
        (None, Some(_)) => root.reader().about(
            &["sync.client_ca"],
            Fault::error("`sync.client_ca`: certificates are shown over TLS, and there is no [listen.tls]"),
        ),
        (Some(tls), Some(_)) if tls.client_ca.is_some() => root.reader().about(
            &["sync.client_ca"],
            Fault::error(
                "`sync.client_ca`: [listen.tls] has a client_ca already, which everybody needs; leave one out",
            ),
        ),
        (Some(tls), client_ca) => {
            (tls.client_ca, tls.client_certificate_required) = (client_ca, false);
        }
    }
    let beyond = listen.listener.addresses.iter().find(|address| !address.ip().is_loopback());
    if let (Some(address), None) = (beyond, &listen.listener.tls) {
        root.reader().about(
            &["listen.address", "listen"],
            Fault::error(format!(
                "`listen.address`: {address} can be reached from outside, so [listen.tls] must be there: passwords and keys \
                 would go in clear"
            )),
        );
    }
    Some(Settings {
        listener: listen.listener,
        client_ip_header: listen.client_ip_header,
        max_body: listen.max_body,
        health_path: listen.health_path,
        public_url,
        example_url,
        admin,
        shutdown,
        store: store?,
        sync,
        pages,
        setup,
        offers: offers?,
        pepper,
        managers_mint_managers,
        anchor: anchor.map(|anchor| root.reader().resolve(&anchor)),
        log,
    })
}

/// It is printed in a line for a shell, between double quotes.
fn example_url(node: &Node) -> Read<String> {
    let text = value::text(node)?;
    let good = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'`$\\!<>".contains(&byte));
    match good {
        Some(rest) if plain && !rest.is_empty() => Ok(text.to_owned()),
        _ => Err(vec![Wrong::new(node, "expected a URL such as \"https://api.example.com/v1/things\"")]),
    }
}

fn public_url(node: &Node) -> Read<String> {
    let text = value::text(node)?;
    let good = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match good.map(|rest| rest.trim_end_matches('/')) {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err(vec![Wrong::new(node, "expected a scheme and a host, such as \"https://keys.example.com\"")]),
    }
}

fn store(section: &Section<'_>) -> Option<Place> {
    let url = section.required("url", value::text);
    let password = secret(section, "password", long_enough(1));
    if let Some(file) = url.strip_prefix("sqlite:") {
        let file = file.strip_prefix("//").unwrap_or(file);
        if file.is_empty() || file.contains('?') || file == ":memory:" {
            section.error("url", "expected a file, such as \"sqlite:control.db\"");
            return None;
        }
        if password.is_some() {
            section.error("password", "a file has no password");
        }
        return Some(Place::Sqlite(section.reader().resolve(Path::new(file))));
    }
    let Some(rest) = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")) else {
        section.error("url", "expected \"sqlite:FILE\" or \"postgres://USER@HOST/DATABASE\"");
        return None;
    };
    let user = rest.split_once('@').map_or("", |(user, _)| user);
    if user.contains(':') || rest.contains("password=") {
        section.error("url", "a password is never written here; refer to it by password = { file = \"…\" }");
        return None;
    }
    Some(Place::Postgres { url, password })
}

/// Who may sync, and the authority of their certificates.
fn sync(section: &Section<'_>) -> (SyncSettings, Option<PathBuf>) {
    let tokens = secret(section, "tokens", |text| {
        let lines = lines(text).ok_or("what it refers to is not text")?;
        if lines.is_empty() {
            return Err("what it refers to holds no token");
        }
        match lines.iter().all(|line| line.len() >= TOKEN && line.bytes().all(|byte| byte.is_ascii_graphic())) {
            true => Ok(()),
            false => Err("a token has at least 32 characters, and no spaces; make one by `openssl rand -hex 32`"),
        }
    });
    let tokens = tokens
        .and_then(|tokens| lines(tokens.expose()).map(|lines| lines.iter().map(|line| audit::hex(line)).collect()));
    let gateway = secret(section, "gateway", |text| match text.len() {
        ..TOKEN => {
            Err("what it refers to is too short; it has at least 32 characters, best \"Bearer \" and a random token")
        }
        _ => Ok(()),
    });
    let gateway = gateway.as_ref().and_then(|gateway| std::str::from_utf8(gateway.expose()).ok()).map(audit::hex);
    let client_ca = section.optional("client_ca", value::path).map(|path| section.reader().resolve(&path));
    let certified_gateway = section.required("certified_gateway", boolean);
    if certified_gateway && client_ca.is_none() {
        section.error("certified_gateway", "there is no client_ca whose certificates could be believed");
    }
    let settings = SyncSettings {
        tokens: tokens.unwrap_or_default(),
        gateway,
        certified: client_ca.is_some(),
        certified_gateway,
        max_stale: section.required("max_stale", duration(MINUTE..=TEN_YEARS)),
    };
    (settings, client_ca)
}

/// The lines of a text that hold something.
fn lines(text: &[u8]) -> Option<Vec<&str>> {
    let text = std::str::from_utf8(text).ok()?;
    Some(text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect())
}

fn setup(section: &Section<'_>) -> SetupSettings {
    SetupSettings {
        operator: section.required("operator", value::word).into(),
        password: secret(section, "password", long_enough(12)),
        token: secret(section, "token", |text| match text.strip_prefix(b"kop_").map(<[u8]>::len) {
            Some(43..) => Ok(()),
            _ => Err("expected kop_ and at least 43 random characters, as `keyside operators token` makes"),
        }),
    }
}

fn long_enough(least: usize) -> impl Fn(&[u8]) -> Result<(), &'static str> {
    move |text| match text.len() < least {
        true if least == 12 => Err("what it refers to is too short; a password has at least 12 characters"),
        true => Err("what it refers to is too short; it has at least 16 bytes, best 32 random ones"),
        false => Ok(()),
    }
}

fn presets(section: &Section<'_>) -> Option<Vec<Offer>> {
    let all: Vec<(&'static str, &'static str)> = preset_names().map(|name| (name, name)).collect();
    let names = section.required("names", list(choice(&all)));
    let configuration = section.optional("configuration", value::path);
    let mut offers = Vec::new();
    if let Some(file) = configuration {
        let file = section.reader().resolve(&file);
        match super::load(&file, []) {
            Ok(loaded) => offers.push(Offer::of(loaded.config.preset.unwrap_or("keyside"), &loaded.config)),
            Err(faults) => {
                section.error("configuration", format!("{} is not good:\n{faults}", file.display()));
                return None;
            }
        }
    }
    for name in names {
        if offers.iter().any(|offer: &Offer| offer.name == name) {
            continue;
        }
        offers.push(Offer::of(name, &preset(name)));
    }
    if offers.is_empty() {
        offers.push(Offer::of("keyside", &preset("")));
    }
    Some(offers)
}

/// What a preset comes to by itself.
fn preset(name: &str) -> Config {
    let text = format!("preset = \"{name}\"\n[listen]\nplaintext = true\n");
    match super::load_text(&text, Path::new("keyside.toml"), []) {
        Ok(loaded) => loaded.config,
        Err(faults) => unreachable!("an embedded preset is good, as a test proves: {faults}"),
    }
}

impl Offer {
    /// The kind of key that a sidecar with this configuration takes.
    pub fn of(name: &str, config: &Config) -> Self {
        let policy = Policy::new(&config.policy);
        let takes_pairs = config.credential.basic || config.credential.query.is_some();
        let mut scopes: Vec<String> = policy.scopes_asked().iter().map(ToString::to_string).collect();
        if ["read", "write"].iter().all(|scope| scopes.iter().any(|asked| asked == scope)) {
            scopes.push("read_write".to_owned());
        }
        let mut capabilities: Vec<String> = Vec::new();
        for capability in config.policy.routes.iter().filter_map(|route| route.capability.as_deref()) {
            if !capabilities.iter().any(|known| known == capability) {
                capabilities.push(capability.to_owned());
            }
        }
        Self {
            name: name.to_owned(),
            kind: if takes_pairs { Kind::Pair } else { Kind::Token },
            mint: config.keys.mint.clone(),
            scopes,
            modes: !takes_pairs || !config.policy.hosts.is_empty() || !config.upstream.modes.is_empty(),
            plans: config.limits.plans.keys().cloned().collect(),
            capabilities,
            kyc: config.policy.routes.iter().any(|route| route.kyc),
            header: config.credential.header.as_ref().map(ToString::to_string),
        }
    }
}
