use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Parser as _;
use serde_json::Value;

use super::{
    console::{Console, Failure, Output},
    place::PlaceArgs,
};
use crate::{
    cli::{Exit, owners},
    clock::{Now, Wall},
    keys::{document::Parser, secret::Secret},
    sync::state::{InForce, StateFolder, digest_of},
};

/// 2026-11-21T00:00:00Z.
pub(crate) const NOW: i64 = 1_795_219_200_000;

#[derive(clap::Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Keys(super::Args),
    Owners(owners::Args),
}

/// What a command said, and how it ended.
pub(crate) struct Said {
    pub(crate) exit: Exit,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// The JSON it printed.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.exit, Exit::Done, "{}", self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

/// A folder with a key file, and commands on it.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
    pub(crate) now: i64,
    typed: Option<&'static str>,
    piped: &'static str,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), now: NOW, typed: None, piped: "" }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("keys.toml")
    }

    pub(crate) fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// Replaces the key file.
    pub(crate) fn write(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    /// Writes a file of the state folder beside it, after the line that names its format.
    pub(crate) fn write_state(&self, name: &str, lines: &str) {
        let state = self.folder.path().join("state");
        fs::create_dir_all(&state).unwrap();
        let format = name.strip_suffix(".ndjson").unwrap();
        fs::write(state.join(name), format!("{{\"format\":\"keyside-{format}\",\"version\":1}}\n{lines}")).unwrap();
    }

    pub(crate) fn run(&self, line: &str) -> Said {
        let words = line.split(' ').map(|word| word.replace('~', " "));
        let file = self.file();
        let place = ["--file", file.to_str().unwrap()].map(str::to_owned);
        let place = if line.contains("--control") || line.contains("--config") { vec![] } else { place.to_vec() };
        let line = match Line::try_parse_from(["keyside".to_owned()].into_iter().chain(words).chain(place)) {
            Ok(line) => line,
            Err(error) => return Said { exit: Exit::Usage, out: String::new(), err: error.to_string() },
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut input = self.typed.unwrap_or(self.piped).as_bytes();
        let mut console = Console {
            output: Output::Table,
            out: &mut out,
            err: &mut err,
            input: &mut input,
            is_attended: self.typed.is_some(),
            now: Now { wall: Wall::from_unix_millis(self.now), ..Now::default() },
        };
        let result: Result<Exit, Failure> = match &line.command {
            Command::Keys(args) => {
                console.output = args.output;
                args.run(&mut console)
            }
            Command::Owners(args) => args.run_on(&mut console),
        };
        let (exit, last) = match result {
            Ok(exit) => (exit, String::new()),
            Err(failure) => (failure.exit, failure.message),
        };
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { exit, out: text(out), err: text(err) + &last }
    }

    /// Creates a key and returns what was printed.
    #[track_caller]
    pub(crate) fn create(&self, more: &str) -> Value {
        self.run(format!("keys create --output json --name Export --owner svc --scope read {more}").trim_end()).json()
    }

    #[track_caller]
    pub(crate) fn check(&self, line: &str, exit: Exit, err: &str) {
        let said = self.run(line);
        assert!(said.exit == exit && said.err.contains(err), "{:?}: {}\n{}", said.exit, said.err, said.out);
    }
}

pub(crate) fn str_of<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} of {value}"))
}

#[test]
fn create_prints_a_pair_once_and_keeps_its_hash() {
    let bench = Bench::new();
    let key =
        bench.create("--mode test --limit 600/1m --limit 5/1s --expires 90d --allow-ip 203.0.113.42,2001:db8::/32");
    let names: Vec<_> = key.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "id",
            "name",
            "kind",
            "prefix",
            "owner",
            "scopes",
            "mode",
            "allow_ips",
            "limits",
            "created_at",
            "expires_at",
            "consumer_key",
            "consumer_secret"
        ]
    );
    assert_eq!(str_of(&key, "prefix"), str_of(&key, "consumer_key"));
    assert_eq!(str_of(&key, "expires_at"), "2027-02-19T00:00:00Z");
    assert_eq!(key["allow_ips"], serde_json::json!(["203.0.113.42", "2001:db8::/32"]));
    let text = bench.text();
    let secret = str_of(&key, "consumer_secret");
    assert!(!text.contains(secret) && text.ends_with("[end]\nowners = 0\nkeys = 1\n"), "{text}");
    let document = Parser::default().parse(text.as_bytes()).unwrap();
    let row = &document.keys[0];
    assert!(row.hash.check(&Secret::new(secret.as_bytes()), None, &mut Default::default()));
    assert_eq!(row.limits.as_ref().unwrap().len(), 2);
}

#[test]
fn create_says_what_the_key_may_do() {
    let bench = Bench::new();
    let said = bench.run(
        "keys create --name A --owner svc --kind token --scope read_write,links:read --mode live --allow-ip 10.0.0.0/8 --limit 600/1m --expires 90d",
    );
    let sentence = "This key may read and write, and use links:read for svc in live mode, from 10.0.0.0/8 only, \
                    within 600/1m, until 2027-02-19T00:00:00Z.";
    assert!(said.err.contains(sentence), "{}", said.err);
    assert!(said.err.contains("owner svc has no entry"));
    let token = said.out.lines().find_map(|line| line.strip_prefix("token            ")).unwrap();
    assert!(token.starts_with("ck_live_") && !said.err.contains(token));
    assert!(bench.text().contains(&format!("prefix = \"{}\"", &token[..14])));
}

#[test]
fn create_warns_of_administrators() {
    let bench = Bench::new();
    bench.check(
        "owners create boss --capability manage_options,read",
        Exit::Done,
        "boss is an administrator (manage_options)",
    );
    bench.check("keys create --name A --owner boss --scope read", Exit::Done, "owner boss is an administrator");
    bench.check("owners create --id svc --capability manage_woocommerce", Exit::Done, "Owner svc is added.");
    let said = bench.run("keys create --name A --owner svc --scope read");
    assert!(!said.err.contains("administrator") && said.err.contains("another key has the name"), "{}", said.err);
}

#[test]
fn what_is_typed_wrong_is_a_usage_error() {
    let bench = Bench::new();
    let with = |more: &str| format!("keys create --name A --owner svc {more}");
    bench.check("keys", Exit::Usage, "Usage");
    bench.check(&with(""), Exit::Usage, "--scope");
    bench.check(&with("--scope reed"), Exit::Usage, "expected \"read\"");
    bench.check(&with("--scope read --kind pear"), Exit::Usage, "expected \"pair\"");
    bench.check(&with("--scope read --allow-ip 10.0.0.256"), Exit::Usage, "10.0.0.256");
    bench.check(&with("--scope read --expires soon"), Exit::Usage, "expected a span");
    bench.check(&with("--scope read --expires 2020-01-01T00:00:00Z"), Exit::Usage, "in the past");
    bench.check(&with("--scope read --limit 5"), Exit::Usage, "600/1m");
    bench.check(&with("--scope read --hash md5"), Exit::Usage, "argon2id");
    bench.check(&with("--scope read --hash sha256"), Exit::Usage, "argon2id");
    assert!(!bench.file().exists());
    let nowhere = PlaceArgs::default().settle().unwrap_err();
    assert!(nowhere.exit == Exit::Usage && nowhere.message.contains("--file keys.toml, or --config"), "{nowhere:?}");
}

#[test]
fn what_is_not_in_this_build_says_so() {
    let bench = Bench::new();
    bench.check("keys import", Exit::Failed, "not in this build");
    bench.check("keys export", Exit::Failed, "not in this build");
    bench.check("keys audit", Exit::Failed, "not in this build");
    bench.check("keys list --control https://control:8444", Exit::Usage, "an operator's token is needed");
    bench.check("keys create --name A --owner a --scope read --hash hmac-sha256", Exit::Failed, "keys.pepper");
}

#[test]
fn a_key_goes_by_its_id_or_what_only_it_has() {
    let bench = Bench::new();
    let one = bench.create("");
    let two = bench.run("keys create --output json --name Other --owner svc --scope read").json();
    for reference in [str_of(&one, "id"), "Export", str_of(&one, "consumer_key")] {
        let shown = bench.run(&format!("keys show --output json {reference}")).json();
        assert_eq!(shown["id"], one["id"]);
        assert_eq!(str_of(&shown, "status"), "active");
        assert!(shown["last_used_at"].is_null() && shown.get("consumer_secret").is_none());
    }
    bench.create("");
    bench.check("keys show Export", Exit::Failed, "2 keys are called so");
    bench.check("keys show nobody", Exit::Failed, "no key has the id");
    let secret = str_of(&two, "consumer_secret");
    let said = bench.run(&format!("keys revoke {secret}"));
    assert!(said.err.contains("that is a secret") && !said.err.contains(secret));
}

#[test]
fn list_shows_every_key_and_the_state_it_is_in() {
    let bench = Bench::new();
    bench.run("owners create gone");
    bench.run("owners suspend gone");
    for (name, more) in
        [("a", "--owner svc"), ("b", "--owner gone"), ("c", "--owner svc --expires 1h"), ("d", "--owner svc")]
    {
        bench.run(&format!("keys create --name {name} --scope read {more}"));
    }
    bench.run("keys revoke d");
    let bench = Bench { now: NOW + 7_200_000, ..bench };
    let listed = bench.run("keys list --output json").json();
    let states: Vec<_> = listed.as_array().unwrap().iter().map(|key| str_of(key, "status")).collect();
    assert_eq!(states, ["active", "suspended", "expired", "revoked"]);
    let table = bench.run("keys list --status revoked").out;
    assert_eq!(table.lines().count(), 2);
    assert!(table.lines().next().unwrap().starts_with("ID ") && table.contains("revoked 2026-11-21 00:00Z"), "{table}");
    bench.check("keys list --owner nobody", Exit::Done, "No keys.");
}

#[test]
fn revoke_is_for_good_and_leaves_the_entry() {
    let bench = Bench::new();
    let id = bench.create("")["id"].as_str().unwrap().to_owned();
    let said = bench.run("keys revoke Export --output json").json();
    assert_eq!((str_of(&said, "id"), str_of(&said, "revoked_at")), (&*id, "2026-11-21T00:00:00Z"));
    assert!(bench.text().contains("revoked_at = 2026-11-21T00:00:00Z"));
    let later = Bench { now: NOW + 1000, ..bench };
    let text = later.text();
    later.check("keys revoke Export", Exit::Done, "was revoked before, at 2026-11-21T00:00:00Z");
    assert_eq!(later.text(), text);
    later.check("keys rotate Export", Exit::Failed, "is revoked, for good");
}

#[test]
fn revoke_waits_for_the_sidecar() {
    let bench = Bench::new();
    bench.create("");
    bench.check("keys revoke Export --wait", Exit::Usage, "--state DIR");
    let state = bench.folder.path().join("state");
    fs::create_dir(&state).unwrap();
    bench.check(
        "keys revoke Export --wait --timeout 0",
        Exit::Failed,
        "no running sidecar confirmed it within 0: none ever said",
    );
    let folder = StateFolder::new(&state);
    let say_that = |text: &str, durable| {
        let digest = digest_of(text.as_bytes());
        folder.set_in_force(&InForce { digest, revision: 1, pid: 1, durable }).unwrap();
    };
    let say = |text: &str| say_that(text, true);
    say("another");
    bench.check("keys revoke Export --wait --timeout 0", Exit::Failed, "no running sidecar confirmed it");
    bench.check("keys revoke Export --wait --timeout 0", Exit::Failed, "process 1, had another version");
    std::thread::scope(|scope| {
        scope.spawn(|| say(&bench.text()));
        bench.check("keys revoke Export --wait", Exit::Done, "The running sidecar has it.");
    });
    // It is in force, and the sidecar's disk is full.
    say_that(&bench.text(), false);
    bench.check("keys revoke Export --wait", Exit::Done, "could not write down which keys are revoked");
    let said = bench.run("keys revoke Export --wait --output json").json();
    assert_eq!((&said["in_force"], &said["durable"]), (&true.into(), &false.into()), "{said}");
    // A key that was rotated is handed out, whoever confirms it.
    bench.run("keys create --name New --owner svc --scope read");
    let said = bench.run("keys rotate New --overlap 0 --wait --timeout 0 --output json");
    assert_eq!(said.exit, Exit::Failed);
    assert!(said.out.contains("consumer_secret") && said.err.contains("the key is rotated in"), "{}", said.err);
    bench.check("keys delete Export --yes --wait --timeout 0", Exit::Failed, "the key is deleted in");
}

#[test]
fn delete_asks_for_the_name() {
    let mut bench = Bench::new();
    bench.create("");
    bench.check("keys delete Export", Exit::Failed, "say --yes");
    bench.typed = Some("Exprot\n");
    bench.check("keys delete Export", Exit::Failed, "that is not the name");
    bench.typed = Some("Export\n");
    bench.check("keys delete Export", Exit::Done, "is deleted");
    assert!(bench.text().ends_with("[end]\nowners = 0\nkeys = 0\n"));
    bench.typed = None;
    bench.create("");
    assert_eq!(bench.run("keys delete Export --yes --output json").json()["deleted"], true);
}

#[test]
fn rotate_leaves_both_keys_until_the_overlap_ends() {
    let bench = Bench::new();
    let old = bench.create("--expires 90d --allow-ip 10.0.0.1 --mode live");
    let bench = Bench { now: NOW + 86_400_000, ..bench };
    let new = bench.run("keys rotate Export --output json --overlap 24h").json();
    assert_eq!(new["rotated_from"], old["id"]);
    for field in ["name", "kind", "owner", "scopes", "mode", "allow_ips"] {
        assert_eq!(new[field], old[field]);
    }
    assert_ne!(new["consumer_secret"], old["consumer_secret"]);
    // As long a life as the old one was given.
    assert_eq!(str_of(&new, "expires_at"), "2027-02-20T00:00:00Z");
    let shown = bench.run(&format!("keys show --output json {}", str_of(&old, "id"))).json();
    assert_eq!(str_of(&shown, "expires_at"), "2026-11-23T00:00:00Z");
    // The overlap never gives the old key more than it had.
    let id = str_of(&old, "id");
    bench.run(&format!("keys rotate {id} --overlap 30d"));
    let shown = bench.run(&format!("keys show --output json {id}")).json();
    assert_eq!(str_of(&shown, "expires_at"), "2026-11-23T00:00:00Z");
    bench.check(&format!("keys rotate {id} --overlap 0"), Exit::Done, "is revoked.");
    assert_eq!(str_of(&bench.run(&format!("keys show --output json {id}")).json(), "status"), "revoked");
}

#[test]
fn owners_are_created_changed_and_suspended() {
    let bench = Bench::new();
    let said = bench.run("owners create svc --name The~service --kyc approved --plan pro --output json").json();
    assert_eq!(
        (str_of(&said, "name"), str_of(&said, "kyc"), said["keys"].as_u64()),
        ("The service", "approved", Some(0))
    );
    bench.check("owners create svc", Exit::Failed, "is there already");
    bench.check("owners set svc", Exit::Usage, "nothing to change");
    let said = bench.run("owners set svc --plan= --capability a,b --kyc pending --output json").json();
    assert!(said["plan"].is_null());
    assert_eq!(said["capabilities"], serde_json::json!(["a", "b"]));
    assert_eq!(str_of(&bench.run("owners suspend svc --output json").json(), "suspended_at"), "2026-11-21T00:00:00Z");
    assert!(bench.run("owners suspend svc --lift --output json").json()["suspended_at"].is_null());
    bench.create("");
    bench.check("owners list", Exit::Done, "");
    bench.check("owners delete svc", Exit::Failed, "1 keys act for owner svc");
    bench.check("owners delete svc --yes", Exit::Done, "is deleted");
    bench.check("owners set svc --plan a", Exit::Failed, "there is no owner svc");
    bench.check("owners suspend nobody", Exit::Failed, "there is no owner nobody");
    // Keys act for it, so it can be suspended although it has no entry.
    assert!(bench.run("owners suspend svc --output json").json()["suspended_at"].is_string());
}

#[test]
fn a_wrong_file_tells_all_its_faults() {
    let bench = Bench::new();
    bench.check("keys list", Exit::Failed, "cannot read");
    bench.check("keys revoke a", Exit::Failed, "there is no key file");
    fs::write(bench.file(), "[[key]]\nid = \n[[key]]\nid = x\n").unwrap();
    let said = bench.run("keys create --name A --owner svc --scope read");
    assert_eq!(said.exit, Exit::Misconfigured);
    assert!(said.err.contains("keys.toml:2:") && said.err.contains("keys.toml:4:"), "{}", said.err);
}

#[test]
fn a_torn_file_is_not_made_whole_by_a_command() {
    let bench = Bench::new();
    bench.create("");
    fs::write(bench.file(), bench.text().replace("keys = 1", "keys = 2")).unwrap();
    bench.check("keys revoke Export", Exit::Misconfigured, "torn: [end] says");
}

#[test]
fn one_bad_entry_stops_additions_but_no_revocation() {
    let bench = Bench::new();
    bench.create("");
    let bad =
        bench.text().replace("[end]", "[[key]]\nid = \"key_bad\"\nscope = []\n\n[end]").replace("keys = 1", "keys = 2");
    fs::write(bench.file(), bad).unwrap();
    bench.check("keys create --name A --owner svc --scope read", Exit::Misconfigured, "did you mean `scopes`?");
    let said = bench.run("keys list");
    assert!(
        said.exit == Exit::Misconfigured && said.out.contains("key_bad") && said.out.contains("set aside"),
        "{}",
        said.out
    );
    bench.check("keys revoke Export", Exit::Done, "is revoked");
    bench.check("keys revoke key_bad", Exit::Done, "is revoked");
    assert_eq!(bench.text().matches("revoked_at").count(), 2);
    bench.check("keys delete key_bad --yes", Exit::Done, "is deleted");
    bench.check("keys list", Exit::Done, "");
}

#[test]
fn identify_reads_standard_input_alone() {
    let mut bench = Bench::new();
    let token = bench.run("keys create --output json --name T --owner svc --scope read --kind token").json();
    let string = str_of(&token, "token").to_owned();
    bench.piped = Box::leak(format!("{string}\n").into_boxed_str());
    let said = bench.run("keys identify --output json");
    let value = said.json();
    assert_eq!((str_of(&value, "is"), value["secret"].as_bool()), ("token minted by Keyside", Some(true)));
    assert_eq!(
        (&value["key"], value["verified"].as_bool(), str_of(&value, "status")),
        (&token["id"], Some(true), "active")
    );
    assert!(!said.out.contains(&string) && !said.err.contains(&string));
    bench.piped = "nothing known";
    bench.check("keys identify", Exit::Failed, "");
    bench.piped = "";
    bench.check("keys identify", Exit::Failed, "standard input is empty");
    let pattern = bench.run("keys identify --pattern").out;
    assert!(pattern.contains("ck_live_"), "{pattern}");
    bench.check(&format!("keys identify {string}"), Exit::Usage, "");
}

#[test]
fn a_new_key_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new();
    bench.create("");
    assert_eq!(fs::metadata(bench.file()).unwrap().permissions().mode() & 0o777, 0o600);
    let parent = Path::new(&bench.file()).with_file_name("no/keys.toml");
    let line = format!("keys create --name A --owner a --scope read --file {}", parent.display());
    assert_eq!(bench.run(&line).exit, Exit::Usage, "--file twice");
}

#[test]
fn the_configuration_names_file_pepper_and_shapes() {
    let bench = Bench::new();
    let folder = bench.folder.path();
    fs::write(folder.join("pepper"), "0123456789abcdef0123456789abcdef").unwrap();
    let config = folder.join("keyside.toml");
    fs::write(
        &config,
        "[listen]\nplaintext = true\n[upstream]\nurl = \"http://127.0.0.1:1\"\n[keys]\nfile = \"mine.toml\"\npepper = { file = \"pepper\" }\n\
         [keys.mint]\nhash = \"hmac-sha256\"\ntoken = { live = \"sk_live_\", test = \"sk_test_\", shown = 4 }\n",
    )
    .unwrap();
    let create = format!(
        "keys create --config {} --name A --owner svc --scope read --kind token --output json",
        config.display()
    );
    let key = bench.run(&create).json();
    assert_eq!(str_of(&key, "prefix").len(), "sk_live_".len() + 4);
    let text = fs::read_to_string(folder.join("mine.toml")).unwrap();
    let document = Parser::default().parse(text.as_bytes()).unwrap();
    let (token, pepper) =
        (Secret::new(str_of(&key, "token").as_bytes()), Secret::new(b"0123456789abcdef0123456789abcdef"));
    assert_eq!(document.keys[0].hash.check_fast(&token, Some(&pepper)), Some(true));
    fs::write(&config, "[listne]\n").unwrap();
    bench.check(&create, Exit::Misconfigured, "listen");
}
