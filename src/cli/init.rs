//! `keyside init`: what a sidecar needs to start, written once and never over anything.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{Exit, certificate};
use crate::{
    clock::{self, Wall},
    config,
    keys::{Mode, Permission},
    policy::Policy,
};

/// Write a commented configuration, an empty key file, a pepper and a development certificate.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The key system that the configuration is for.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(config::preset_names()))]
    preset: Option<String>,
    /// The folder to write into; it is made if need be.
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

pub(super) fn run(args: &Args) -> Exit {
    match init(&args.dir, args.preset.as_deref(), clock::now().wall) {
        Ok(written) => {
            let list: Vec<_> = written.iter().map(|path| path.display().to_string()).collect();
            anstream::eprintln!("Wrote {}.\n\n{}", list.join(", "), next_steps(&args.dir, args.preset.as_deref()));
            Exit::Done
        }
        Err(why) => {
            anstream::eprintln!("keyside init: {why}");
            Exit::Failed
        }
    }
}

/// A file to be written.
struct File {
    name: &'static str,
    text: Vec<u8>,
    mode: u32,
}

/// Writes all files or none. What is there already is named, all of it at once.
fn init(dir: &Path, preset: Option<&str>, now: Wall) -> Result<Vec<PathBuf>, String> {
    let files = files(preset, now)?;
    let there: Vec<_> = files
        .iter()
        .map(|file| dir.join(file.name))
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| path.display().to_string())
        .collect();
    if !there.is_empty() {
        return Err(format!("{} exists already; nothing was written", there.join(", ")));
    }
    let mut written = Vec::new();
    for file in &files {
        let path = dir.join(file.name);
        if let Err(error) = write(&path, file) {
            // Only what this run has created is taken away again.
            for path in &written {
                let _ = fs::remove_file(path);
            }
            return Err(format!("cannot write {}: {error}", path.display()));
        }
        written.push(path);
    }
    Ok(written)
}

fn files(preset: Option<&str>, now: Wall) -> Result<Vec<File>, String> {
    let issued = certificate::issue(&["localhost", "127.0.0.1", "::1"], now)
        .map_err(|error| format!("cannot make a certificate: {error}"))?;
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| format!("no random numbers: {error}"))?;
    let pepper: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let file = |name, text: String, mode| File { name, text: text.into_bytes(), mode };
    Ok(vec![
        file("keyside.toml", configuration(preset), 0o644),
        // Hashes are no secrets, but nobody else's business either.
        file("keys.toml", KEYS.to_owned(), 0o640),
        file("pepper", pepper + "\n", 0o600),
        file("tls/tls.crt", issued.certificate, 0o644),
        file("tls/tls.key", issued.private_key, 0o600),
        file("tls/ca.crt", issued.ca, 0o644),
    ])
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

fn next_steps(dir: &Path, preset: Option<&str>) -> String {
    let path = |name: &str| dir.join(name).display().to_string();
    let (config, ca) = (path("keyside.toml"), path("tls/ca.crt"));
    let First { kind, scope, credential, host } = First::of(preset);
    let (hosts, host) = match host {
        Some(host) => (", and what its hosts are called: [hosts]", format!("-H 'Host: {host}' ")),
        None => ("", String::new()),
    };
    format!(
        "Next:
  1. Say in {config} where your API is: [upstream] url{hosts}.
  2. keyside keys create --config {config} --name \"First key\" --owner me --kind {kind} --scope {scope}
  3. keyside check --config {config}
  4. keyside proxy --config {config}
  5. curl --cacert {ca} {host}{credential} https://localhost:8443/…

The certificate is for development: it names localhost, 127.0.0.1 and ::1 alone. Before production, put your own in \
         its place."
    )
}

/// A first key that a preset has a use for, and how `curl` presents it.
struct First {
    kind: &'static str,
    scope: String,
    credential: String,
    /// A host that takes it, where a host takes only keys of its mode: the machine's own name is none of these.
    host: Option<String>,
}

impl First {
    fn of(preset: Option<&str>) -> Self {
        let text = format!("preset = \"{}\"\n[listen]\nplaintext = true\n", preset.unwrap_or_default());
        let config = config::load_text(&text, Path::new(""), []).ok().map(|loaded| loaded.config);
        let policy = config.as_ref().map(|config| Policy::new(&config.policy));
        let asked = policy.as_ref().map_or(Vec::new(), Policy::scopes_asked);
        let host = policy.as_ref().and_then(|policy| policy.hosts_of(Mode::Live).next().map(str::to_owned));
        let scope = if asked.contains(&Permission::Read) { None } else { asked.first() };
        let (kind, credential) = match config.map(|config| (config.credential.basic, config.credential.header)) {
            Some((false, Some(header))) => ("token", format!("-H '{header}: …'")),
            Some((false, None)) => ("token", "-H 'Authorization: Bearer …'".to_owned()),
            Some((true, _)) | None => ("pair", "-u ck_…:cs_…".to_owned()),
        };
        Self { kind, scope: scope.map_or("read".into(), Permission::to_string), credential, host }
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

    #[test]
    fn what_is_written_passes_the_check() {
        for preset in config::preset_names().map(Some).chain([None]) {
            let folder = tempfile::tempdir().unwrap();
            let dir = folder.path().join("new");
            init(&dir, preset, now()).unwrap();
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
        init(dir.path(), Some("web3pay"), now()).unwrap();
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
        init(dir.path(), None, now()).unwrap();
        for name in ["pepper", "tls/tls.key"] {
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let other = tempfile::tempdir().unwrap();
        init(other.path(), None, now()).unwrap();
        let pepper = |dir: &Path| fs::read(dir.join("pepper")).unwrap();
        assert_ne!(pepper(dir.path()), pepper(other.path()));
    }

    #[test]
    fn nothing_is_ever_written_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pepper"), "mine").unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("keys.toml")).unwrap();
        let why = init(dir.path(), None, now()).unwrap_err();
        assert!(why.contains("keys.toml") && why.contains("pepper"), "{why}");
        assert_eq!(fs::read(dir.path().join("pepper")).unwrap(), b"mine");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing was written");
    }

    #[test]
    fn what_failed_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tls"), "a file where a folder should be").unwrap();
        init(dir.path(), None, now()).unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_next_steps_present_the_credential_of_the_preset() {
        #[track_caller]
        fn check(preset: Option<&str>, expected: &str) {
            let steps = next_steps(Path::new("dir"), preset);
            assert!(steps.contains(expected), "{steps}");
        }
        check(None, "--kind pair --scope read");
        check(Some("wallet"), "-u ck_…:cs_…");
        check(Some("web3pay"), "-H 'x-api-key: …'");
        check(Some("web3pay"), "--kind token --scope onramp:create");
        check(Some("payment-links"), "ca.crt -H 'Authorization: Bearer …'");
        check(Some("wontopos"), "-H 'Host: api.wontopos.com' -H 'Authorization: Bearer …'");
        check(Some("wontopos"), "what its hosts are called");
    }
}
