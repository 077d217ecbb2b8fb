//! Configuration: typed text becomes the settings of all rooms, every fault with its place.
//!
//! Four layers are laid over one another: the commented default that is embedded, a preset, the user's file, and the
//! environment. `config` knows the rooms; no room knows `config`.

mod advice;
#[cfg(feature = "control")]
pub mod control;
mod effective;
mod environment;
mod keys;
mod layer;
mod limits;
mod listen;
mod policy;
mod preset;
mod reader;
#[cfg(test)]
mod tests;
mod upstream;
mod value;

pub(crate) use advice::unreachable as unreachable_quotas;
pub use effective::Effective;
pub use keys::{Control, KeySource, KeysSettings, OnRevoke};
pub use preset::names as preset_names;
pub use value::{parse_duration, print_duration};

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use layer::{Entry, Node, Origin, Place, Source, Table, Value, find, overlay};
use reader::{Reader, Section};

use crate::{
    credential, facts,
    fault::{Fault, nearest},
    listener, policy as room_policy,
    proxy::settings::{OwnerHeaderSettings, UpstreamSettings},
    rejection,
    telemetry::{admin, log},
};

/// The commented default: every setting there is, and the value it has where nobody says otherwise.
pub const DEFAULT: &str = include_str!("../../config/keyside.toml");

/// The settings of all rooms.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where and how it listens.
    pub listener: listener::Settings,
    /// How a request is read.
    pub facts: facts::Settings,
    /// How a credential is presented.
    pub credential: credential::Settings,
    /// What requests need.
    pub policy: room_policy::Settings,
    /// How often.
    pub limits: crate::limits::Settings,
    /// Where requests go.
    pub upstream: UpstreamSettings,
    /// How the upstream learns whose request it is.
    pub owner_headers: OwnerHeaderSettings,
    /// The largest body where no route says otherwise, in bytes.
    pub max_body: u64,
    /// A path that is answered without a key, for balancers.
    pub health_path: Option<Box<str>>,
    /// The shape of the bodies of refusals.
    pub errors: rejection::Format,
    /// The admin port.
    pub admin: admin::Settings,
    /// How it goes away.
    pub shutdown: listener::ShutdownSettings,
    /// Where keys come from.
    pub keys: KeysSettings,
    /// The logs.
    pub log: log::Settings,
    /// The preset that lies under the user's file.
    pub preset: Option<&'static str>,
    /// The files that the configuration was read from and refers to, other than keys and certificates: a change of one
    /// of them is a change of the configuration.
    pub sources: Vec<PathBuf>,
}

/// A configuration without errors.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// What can never take effect, and what will surprise.
    pub warnings: Vec<Fault>,
    /// Every setting with where it came from.
    pub effective: Effective,
    secret_files: Vec<(&'static str, PathBuf)>,
}

impl Loaded {
    /// The file that a setting refers to for its secret.
    pub fn secret_file(&self, setting: &str) -> Option<&Path> {
        self.secret_files.iter().find(|(name, _)| *name == setting).map(|(_, path)| path.as_path())
    }
}

/// All that is wrong with a configuration, warnings included, in the order of the files.
#[derive(Debug)]
pub struct Faults(pub Vec<Fault>);

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

/// The environment of this process, less what is not UTF-8.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Reads a configuration file, what it refers to, and the environment.
///
/// # Errors
///
/// Everything that is wrong, at once.
pub fn load(path: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Result<Loaded, Faults> {
    let cannot = |why: &dyn fmt::Display| Faults(vec![Fault::error(format!("cannot read {}: {why}", path.display()))]);
    let bytes = std::fs::read(path).map_err(|error| cannot(&error))?;
    match String::from_utf8(bytes) {
        Ok(text) => load_text(&text, path, environment),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..good].iter().filter(|&&byte| byte == b'\n').count() + 1;
            let fault = Fault { line, ..Fault::error("this line is not UTF-8").in_file(path) };
            Err(Faults(vec![fault]))
        }
    }
}

/// Reads a configuration from a text. `path` is what it is called in faults; relative paths start in its folder.
///
/// # Errors
///
/// Everything that is wrong, at once.
pub fn load_text(
    text: &str,
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, Faults> {
    let environment: BTreeMap<String, String> = environment.into_iter().collect();
    let mut faults = Vec::new();
    let (table, preset) = layers(text, path, &environment, &mut faults);
    let syntax: Vec<usize> = faults.iter().filter(|fault| fault.line > 0).map(|fault| fault.line).collect();

    let reader = Reader::new(path, &environment);
    let defaults = default_table();
    let config = reader.read(&table, &defaults, |root| read(root, preset, path));
    let secret_files = secret_files(&reader);
    let findings = reader.finish();
    // What could not be read as TOML is missed elsewhere, or was read as something else on its line or without a place.
    let sure = |fault: &Fault| fault.is_error() && !syntax.contains(&fault.line) && (fault.line, fault.column) > (1, 1);
    faults.extend(findings.faults.into_iter().filter(|fault| syntax.is_empty() || sure(fault)));
    faults.sort_by_cached_key(|fault| (fault.file.clone(), fault.line, fault.column));
    faults.dedup();
    match config {
        Some(config) if !faults.iter().any(Fault::is_error) => {
            Ok(Loaded { config, warnings: faults, effective: Effective::new(findings.settings), secret_files })
        }
        _ => Err(Faults(faults)),
    }
}

/// The four layers as one table.
fn layers(
    text: &str,
    path: &Path,
    environment: &BTreeMap<String, String>,
    faults: &mut Vec<Fault>,
) -> (Table, Option<&'static str>) {
    let source = Arc::new(Source { origin: Origin::File(path.to_path_buf()), text: text.to_owned() });
    let mut user = layer::read(&source, faults);
    overlay(&mut user, environment::read(environment), "");
    let preset = chosen_preset(&user, faults);
    let mut table = default_table();
    if let Some((name, text)) = preset {
        let source = Arc::new(Source { origin: Origin::Preset(name), text: text.to_owned() });
        let mut below = layer::read(&source, faults);
        join_routes(&mut below, &mut user);
        overlay(&mut table, below, "");
    }
    overlay(&mut table, user, "");
    (table, preset.map(|(name, _)| name))
}

/// The embedded defaults as a table.
fn default_table() -> Table {
    let source = Arc::new(Source { origin: Origin::Default, text: DEFAULT.to_owned() });
    let mut faults = Vec::new();
    let table = layer::read(&source, &mut faults);
    debug_assert!(faults.is_empty(), "{faults:?}");
    table
}

fn chosen_preset(user: &Table, faults: &mut Vec<Fault>) -> Option<(&'static str, &'static str)> {
    let entry = find(user, "preset")?;
    let Value::Text(name) = &entry.node.value else { return None };
    if name.is_empty() {
        return None;
    }
    let preset = preset::find(name);
    if preset.is_none() {
        let names: Vec<_> = preset_names().collect();
        let mut fault = Fault::error(format!("there is no preset \"{name}\"; there are {}", names.join(", ")));
        fault.suggestion = nearest(name, names).map(|name| format!("did you mean \"{name}\"?"));
        faults.push(entry.node.place.mark(fault));
    }
    preset
}

/// The user's routes come before the preset's, unless these are not wanted.
fn join_routes(preset: &mut Table, user: &mut Table) {
    let wanted = !matches!(
        find(user, "routes_from_preset"),
        Some(Entry { node: Node { value: Value::Boolean(false), .. }, .. })
    );
    let at = preset.iter().position(|entry| entry.name == "route");
    let Some(below) = at.map(|at| preset.remove(at)).filter(|_| wanted) else { return };
    match user.iter_mut().find(|entry| entry.name == "route") {
        None => preset.push(below),
        Some(Entry { node: Node { value: Value::List(routes), .. }, .. }) => {
            if let Value::List(more) = below.node.value {
                routes.extend(more);
            }
        }
        // Something else than a list is a fault, found when it is read.
        Some(_) => {}
    }
}

/// Reads every section, in the order of the commented default.
fn read(root: &Section<'_>, preset: Option<&'static str>, path: &Path) -> Option<Config> {
    root.optional("preset", value::text);
    root.required("routes_from_preset", value::boolean);
    let listen = root.section("listen", listen::listen);
    let admin = root.section("admin", listen::admin);
    let shutdown = root.section("shutdown", listen::shutdown);
    let upstream = root.section("upstream", upstream::upstream);
    let keys = root.section("keys", keys::keys);
    let credential = root.section("credentials", policy::credentials);
    let policy = root.section("policy", policy::policy);
    let hosts = policy::hosts(root);
    let limits = root.section("limits", limits::limits);
    let routes = root.sections("route", policy::route);
    let owner_headers = root.section("owner_headers", upstream::owner_headers);
    let errors = root.section("errors", upstream::errors);
    let log = root.section("log", listen::log);

    let header = credential.header.as_ref();
    let owner = [&owner_headers.key_id, &owner_headers.owner, &owner_headers.scopes, &owner_headers.mode];
    let ours = owner.into_iter().chain(header).chain(Some(&listen.client_ip_header));
    policy::check_pass_field_names(root, &policy.pass_field_names, &owner_headers.reserved_prefix, ours);

    let whole = routes.iter().all(Option::is_some);
    let config = Config {
        facts: facts::Settings {
            trusted_proxies: listen.listener.trusted_proxies.clone(),
            client_ip_header: listen.client_ip_header,
            max_header_bytes: listen.listener.max_header_bytes,
            max_uri_bytes: listen.max_uri_bytes,
            odd_field_names: policy.odd_field_names,
            pass_field_names: policy.pass_field_names,
            method_override: policy.method_override,
            effective_path_parameter: policy.effective_path_parameter,
            effective_path_prefix: policy.effective_path_prefix,
            front_controllers: policy.front_controllers,
        },
        listener: listen.listener,
        max_body: listen.max_body,
        health_path: listen.health_path,
        credential,
        policy: room_policy::Settings {
            methods: policy.methods,
            forward_preflight: policy.forward_preflight,
            routes: routes.into_iter().flatten().collect(),
            hosts,
        },
        limits,
        upstream,
        owner_headers,
        errors,
        admin,
        shutdown,
        keys,
        log,
        preset,
        sources: [path.to_path_buf()]
            .into_iter()
            .chain(secret_files(root.reader()).into_iter().map(|(_, file)| file))
            .collect(),
    };
    advice::check(root.reader(), &config, whole);
    whole.then_some(config)
}

/// The files that secrets are referred to in, by setting.
fn secret_files(reader: &Reader<'_>) -> Vec<(&'static str, PathBuf)> {
    let settings = ["upstream.authorization", "keys.pepper", "keys.control.token"];
    settings.into_iter().filter_map(|setting| Some((setting, reader.referred(setting)?))).collect()
}

impl Place {
    /// What came from where, as `keyside config print` says it.
    fn origin(&self) -> String {
        match &self.source.origin {
            Origin::Default => "default".into(),
            Origin::Preset(name) => format!("preset {name}"),
            Origin::File(path) => {
                let (line, _) = crate::fault::place(&self.source.text, self.span.start);
                format!("{}:{line}", path.display())
            }
            Origin::Environment(variable) => format!("environment {variable}"),
        }
    }
}
