//! `keyside init`: what a sidecar, or a control plane, needs to start, written once and never over anything.

#[cfg(feature = "control")]
mod control;

use std::{
    collections::BTreeSet,
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustls_pki_types::ServerName;

use super::{Exit, certificate, keys::place};
use crate::{
    clock::{self, Wall},
    config::{self, Config},
    keys::{Kind, Mode, Permission},
    policy::Policy,
};

/// Write a commented configuration, an empty key file, a pepper and a development certificate.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The key system that the configuration is for.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(config::preset_names()))]
    preset: Option<String>,
    /// One more name or address for the development certificate; may be repeated. It has those of this machine, and the
    /// hosts of the preset.
    #[arg(long = "host", value_name = "NAME", value_parser = host)]
    hosts: Vec<String>,
    /// For a control plane, not for a sidecar: its configuration, a token for sidecars, and a development certificate.
    #[cfg(feature = "control")]
    #[arg(long)]
    control: bool,
    /// The folder to write into; it is made if need be.
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// A name that a certificate can be for, as it is compared: in lower case.
fn host(text: &str) -> Result<String, &'static str> {
    ServerName::try_from(text)
        .map(|_| text.to_ascii_lowercase())
        .map_err(|_| "expected a host name or an address, without a port, such as api.example.com")
}

pub(super) fn run(args: &Args) -> Exit {
    match init(args, clock::now().wall) {
        Ok(Written { paths, next }) => {
            let list: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            anstream::eprintln!("Wrote {}.\n\n{next}", list.join(", "));
            Exit::Done
        }
        Err(why) => {
            anstream::eprintln!("keyside init: {why}");
            Exit::Failed
        }
    }
}

/// What was written, and what is to be done with it.
struct Written {
    paths: Vec<PathBuf>,
    next: String,
}

/// A file to be written.
struct File {
    name: &'static str,
    text: Vec<u8>,
    mode: u32,
}

fn init(args: &Args, now: Wall) -> Result<Written, String> {
    let (dir, preset) = (args.dir.as_path(), args.preset.as_deref());
    #[cfg(feature = "control")]
    if args.control {
        return control::init(dir, preset, &args.hosts, now);
    }
    let config = settings(preset)?;
    let names = names(&config, &args.hosts);
    let files = files(preset, &names, now)?;
    let paths = write_all(dir, &files)?;
    Ok(Written { paths, next: next_steps(dir, &config, &names) })
}

/// Writes all of them or none. What is there already is named, all of it at once. Gives their paths.
fn write_all(dir: &Path, files: &[File]) -> Result<Vec<PathBuf>, String> {
    let there: Vec<_> = files
        .iter()
        .map(|file| dir.join(file.name))
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| path.display().to_string())
        .collect();
    if !there.is_empty() {
        return Err(format!("{} exists already; nothing was written", there.join(", ")));
    }
    let mut paths = Vec::new();
    for file in files {
        let path = dir.join(file.name);
        if let Err(error) = write(&path, file) {
            // Only what this run has created is taken away again.
            for path in &paths {
                let _ = fs::remove_file(path);
            }
            return Err(format!("cannot write {}: {error}", path.display()));
        }
        paths.push(path);
    }
    Ok(paths)
}

/// The settings of a preset by itself, or the defaults.
fn settings(preset: Option<&str>) -> Result<Config, String> {
    let preset = preset.map_or(String::new(), |name| format!("preset = \"{name}\"\n"));
    let text = format!("{preset}[listen]\nplaintext = true\n");
    config::load_text(&text, Path::new(""), []).map(|loaded| loaded.config).map_err(|faults| faults.to_string())
}

/// What the certificate is for: this machine, the hosts of the preset, and what was asked for.
fn names(config: &Config, hosts: &[String]) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    let of_preset = config.policy.hosts.keys().map(|host| host.trim_matches(['[', ']']).to_owned());
    for name in of_preset.chain(hosts.iter().cloned()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// A development certificate for these names, its key, and the authority that it was issued by.
fn issue(names: &[String], now: Wall) -> Result<Vec<File>, String> {
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let issued = certificate::issue(&names, now).map_err(|error| format!("cannot make a certificate: {error}"))?;
    let file = |name, text: String, mode| File { name, text: text.into_bytes(), mode };
    Ok(vec![
        file("tls/tls.crt", issued.certificate, 0o644),
        file("tls/tls.key", issued.private_key, 0o600),
        file("tls/ca.crt", issued.ca, 0o644),
    ])
}

fn files(preset: Option<&str>, names: &[String], now: Wall) -> Result<Vec<File>, String> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| format!("no random numbers: {error}"))?;
    let pepper: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let file = |name, text: String, mode| File { name, text: text.into_bytes(), mode };
    let mut files = vec![
        file("keyside.toml", configuration(preset), 0o644),
        // Hashes are no secrets, but nobody else's business either.
        file("keys.toml", KEYS.to_owned(), 0o640),
        file("pepper", pepper + "\n", 0o600),
    ];
    files.extend(issue(names, now)?);
    Ok(files)
}

fn write(path: &Path, file: &File) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    let mut opened = fs::OpenOptions::new().write(true).create_new(true).mode(file.mode).open(path)?;
    opened.write_all(&file.text).and_then(|()| opened.sync_all()).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

const KEYS: &str = "\
# Keys and their owners. Keyside watches this file; a change takes effect within one second.
# Best edited by `keyside keys …` and `keyside owners …`, which keep comments and order.

# How many there are, so that a file that is half written is not believed. Who edits by hand keeps these right.
[end]
owners = 0
keys = 0
";

/// The commented default with every default commented out, so that a preset below it is not overridden, and with what
/// this folder needs switched on.
fn configuration(preset: Option<&str>) -> String {
    let head = "\
# The configuration of Keyside.
#
# A setting that begins with \"#\" and no space is a default, or an example of what is off by default. Take the \"#\" away
# and change it.
";
    let body = config::DEFAULT.split_once("# Every setting can come").map_or(config::DEFAULT, |(_, body)| body);
    let mut text = format!("{head}# Every setting can come");
    for line in body.split_inclusive('\n') {
        text.push_str(&commented_out(line));
    }
    let mut replace = |from: &str, to: &str| {
        debug_assert_eq!(text.matches(from).count(), 1, "{from}");
        text = text.replacen(from, to, 1);
    };
    if let Some(preset) = preset {
        let example = config::DEFAULT.lines().find(|line| line.starts_with("#preset = "));
        replace(example.unwrap_or_default(), &format!("preset = \"{preset}\""));
    }
    replace("#address = \"0.0.0.0:8443\"  ", "address = \"127.0.0.1:8443\" ");
    replace("#[listen.tls] ", "[listen.tls]  ");
    replace("#certificate = \"tls/tls.crt\"", "certificate = \"tls/tls.crt\"");
    replace("#private_key = \"tls/tls.key\"", "private_key = \"tls/tls.key\"");
    replace("#url = \"http://127.0.0.1:8080\" ", "url = \"http://127.0.0.1:8080\"  ");
    replace("#file = \"keys.toml\" ", "file = \"keys.toml\"  ");
    replace("#pepper = { file = \"pepper\" } ", "pepper = { file = \"pepper\" }  ");
    text
}

/// A line with its setting commented out; the comment after it stays in its column.
fn commented_out(line: &str) -> String {
    let sets = line.starts_with(|first: char| first.is_ascii_lowercase()) && line.contains(" = ");
    if !sets {
        return line.to_owned();
    }
    match line.find("  #") {
        Some(at) => format!("#{}{}", &line[..at], &line[at + 1..]),
        None => format!("#{line}"),
    }
}

fn next_steps(dir: &Path, config: &Config, names: &[String]) -> String {
    let path = |name: &str| place::word(&dir.join(name));
    let (file, ca) = (path("keyside.toml"), path("tls/ca.crt"));
    let First { kind, mode, scope, capabilities, credential, host } = First::of(config);
    let kind = kind.as_str();
    let (hosts, connect, host) = match host {
        Some(host) => {
            let connect = format!("--connect-to {host}:443:localhost:8443 ");
            (", and what its hosts are called: [hosts]", connect, host)
        }
        None => ("", String::new(), "localhost:8443".to_owned()),
    };
    let test_keys = if mode.is_empty() || !config.upstream.modes.is_empty() {
        ""
    } else {
        "Test keys reach [upstream] url, as live ones do, unless [upstream.modes] gives them another.\n"
    };
    let names = names.join(", ");
    format!(
        "Next:
  1. Say in {file} where your API is: [upstream] url{hosts}.
  2. keyside owners create me --config {file} --name \"First owner\"{capabilities}
  3. keyside keys create --config {file} --name \"First key\" --owner me --kind {kind}{mode} --scope {scope}
  4. keyside check --config {file}
  5. keyside proxy --config {file}
  6. curl --cacert {ca} {connect}{credential} https://{host}/…

{test_keys}The certificate is for development: it names {names} alone; `--host NAME` adds names. Before \
         production, put your own in its place."
    )
}

/// A first key that a preset has a use for, and how `curl` presents it.
struct First {
    kind: Kind,
    /// The option that gives it its mode, where keys of its kind have one.
    mode: &'static str,
    scope: String,
    /// The option that gives its owner what routes ask of owners.
    capabilities: String,
    credential: String,
    /// A host that takes it, where a host takes only keys of its mode: the machine's own name is none of these.
    host: Option<String>,
}

impl First {
    fn of(config: &Config) -> Self {
        let policy = Policy::new(&config.policy);
        let asked = policy.scopes_asked();
        let scope = if asked.contains(&Permission::Read) { None } else { asked.first() };
        let capabilities: BTreeSet<&str> =
            config.policy.routes.iter().filter_map(|route| route.capability.as_deref()).collect();
        let capabilities = capabilities.into_iter().collect::<Vec<_>>().join(",");
        let (kind, credential) = match (config.credential.basic, &config.credential.header) {
            (true, _) => (Kind::Pair, "-u ck_…:cs_…".to_owned()),
            (false, Some(header)) => (Kind::Token, format!("-H '{header}: …'")),
            (false, None) => (Kind::Token, "-H 'Authorization: Bearer …'".to_owned()),
        };
        let token = &config.keys.mint.token;
        Self {
            kind,
            mode: if kind == Kind::Token && token.live != token.test { " --mode live" } else { "" },
            scope: scope.map_or("read".into(), Permission::to_string),
            capabilities: if capabilities.is_empty() { capabilities } else { format!(" --capability {capabilities}") },
            credential,
            host: policy.hosts_of(Mode::Live).next().map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::cli::check::examine;

    fn now() -> Wall {
        clock::now().wall
    }

    fn init(dir: &Path, preset: Option<&str>) -> Result<Written, String> {
        let args = Args {
            preset: preset.map(str::to_owned),
            hosts: Vec::new(),
            #[cfg(feature = "control")]
            control: false,
            dir: dir.to_owned(),
        };
        super::init(&args, now())
    }

    #[test]
    fn what_is_written_passes_the_check() {
        for preset in config::preset_names().map(Some).chain([None]) {
            let folder = tempfile::tempdir().unwrap();
            let dir = folder.path().join("new");
            init(&dir, preset).unwrap();
            let faults = examine(&dir.join("keyside.toml"), [], now());
            assert!(faults.is_empty(), "{preset:?}: {faults:?}");
            let config = config::load(&dir.join("keyside.toml"), []).unwrap().config;
            assert_eq!(config.preset, preset);
            assert_eq!(config.keys.pepper.unwrap().expose().len(), 64);
        }
    }

    #[test]
    fn a_preset_is_not_overridden_by_written_out_defaults() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), Some("web3pay")).unwrap();
        let config = config::load(&dir.path().join("keyside.toml"), []).unwrap().config;
        assert!(!config.credential.basic && config.credential.header.is_some());
        assert_eq!(config.keys.mint.token.shown, 8);
    }

    #[test]
    fn every_setting_of_the_default_is_in_what_is_written() {
        let names = |text: &str| {
            let name = |line: &str| Some(line.trim_start_matches('#').split_once(" = ")?.0.to_owned());
            text.lines().filter(|line| !line.starts_with("# ")).filter_map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(&configuration(None)), names(config::DEFAULT));
    }

    #[test]
    fn secrets_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), None).unwrap();
        for name in ["pepper", "tls/tls.key"] {
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let other = tempfile::tempdir().unwrap();
        init(other.path(), None).unwrap();
        let pepper = |dir: &Path| fs::read(dir.join("pepper")).unwrap();
        assert_ne!(pepper(dir.path()), pepper(other.path()));
    }

    #[test]
    fn nothing_is_ever_written_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pepper"), "mine").unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("keys.toml")).unwrap();
        let why = init(dir.path(), None).err().unwrap();
        assert!(why.contains("keys.toml") && why.contains("pepper"), "{why}");
        assert_eq!(fs::read(dir.path().join("pepper")).unwrap(), b"mine");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing was written");
    }

    #[test]
    fn what_failed_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tls"), "a file where a folder should be").unwrap();
        assert!(init(dir.path(), None).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_next_steps_can_be_pasted_whatever_the_folder_is_called() {
        let config = settings(None).unwrap();
        let steps = next_steps(Path::new("a b$(x)"), &config, &names(&config, &[]));
        assert!(steps.contains("--config 'a b$(x)/keyside.toml' "), "{steps}");
        assert!(steps.contains("--cacert 'a b$(x)/tls/ca.crt' "), "{steps}");
    }

    #[test]
    fn the_next_steps_are_whole() {
        #[track_caller]
        fn check(preset: Option<&str>, expected: &[&str]) {
            let config = settings(preset).unwrap();
            let steps = next_steps(Path::new("dir"), &config, &names(&config, &[]));
            for expected in expected {
                assert!(steps.contains(expected), "no {expected:?}: {steps}");
            }
            let modes = expected.iter().any(|expected| expected.contains("--mode"));
            assert_eq!(steps.contains("[upstream.modes]"), modes, "{steps}");
            let owner = steps.find("keyside owners create me --config dir/keyside.toml --name ");
            assert!(owner.unwrap() < steps.find("keyside keys create ").unwrap(), "{steps}");
        }
        check(
            None,
            &["\"First owner\"\n", "--owner me --kind pair --scope read\n", "-u ck_…:cs_… https://localhost:8443/…"],
        );
        let manages = "\"First owner\" --capability manage_woocommerce\n";
        check(Some("wallet"), &[manages, "--kind pair --scope read\n", "-u ck_…:cs_…"]);
        check(Some("woocommerce"), &[manages, "--kind pair --scope read\n", "-u ck_…:cs_…"]);
        check(Some("web3pay"), &["--kind token --mode live --scope onramp:create\n", "-H 'x-api-key: …'"]);
        check(Some("payment-links"), &["--kind token --mode live ", "ca.crt -H 'Authorization: Bearer …'"]);
        let call =
            "--connect-to api.wontopos.com:443:localhost:8443 -H 'Authorization: Bearer …' https://api.wontopos.com/…";
        check(Some("wontopos"), &["--kind token --mode live ", call, "what its hosts are called"]);
    }

    #[test]
    fn test_keys_have_an_upstream_of_their_own_where_the_settings_say_so() {
        let text =
            "preset = \"payment-links\"\n[listen]\nplaintext = true\n[upstream.modes]\ntest = \"http://127.0.0.1:1\"";
        let config = config::load_text(text, Path::new(""), []).unwrap().config;
        let steps = next_steps(Path::new("dir"), &config, &names(&config, &[]));
        assert!(!steps.contains("[upstream.modes]"), "{steps}");
    }

    #[test]
    fn the_certificate_is_for_the_hosts_of_the_preset_and_those_asked_for() {
        let named = |preset, hosts: &[&str]| {
            let hosts: Vec<_> = hosts.iter().map(|name| host(name).unwrap()).collect();
            names(&settings(preset).unwrap(), &hosts)
        };
        let own = ["localhost", "127.0.0.1", "::1"];
        assert_eq!(named(None, &[]), own);
        assert_eq!(named(None, &["API.example.com", "localhost", "10.0.0.1"])[3..], ["api.example.com", "10.0.0.1"]);
        assert_eq!(
            named(Some("wontopos"), &["x.example"])[3..],
            ["api.wontopos.com", "sandbox.wontopos.com", "x.example"]
        );
        for bad in ["", "api.example.com:443", "https://api.example.com", "a b", "*", "é.example"] {
            assert!(host(bad).is_err(), "{bad:?}");
        }
    }
}
