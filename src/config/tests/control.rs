//! The configuration of the control plane.

use super::*;
use crate::{
    config::control::{self, LoadedControl},
    control::store::Place,
    keys::Kind,
};

fn read(text: &str) -> Result<LoadedControl, Faults> {
    control::load_text(text, Path::new("/etc/keyside/control.toml"), [])
}

#[track_caller]
fn good(text: &str) -> LoadedControl {
    read(text).unwrap_or_else(|faults| panic!("{faults}"))
}

/// The one fault of a text.
#[track_caller]
fn check(text: &str, fault: &str) {
    let faults = read(text).unwrap_err();
    let told: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
    assert!(told.len() == 1 && told[0].contains(fault), "expected {fault:?} alone, got {told:#?}");
}

/// On loopback, without TLS.
const PLAIN: &str = "[listen]\nplaintext = true\n";

#[test]
fn the_commented_default_is_complete() {
    let source = Arc::new(Source { origin: Origin::Default, text: complete::uncommented(control::DEFAULT) });
    let mut faults = Vec::new();
    let table = layer::read(&source, &mut faults);
    assert_eq!(faults, []);
    let environment = BTreeMap::new();
    let reader = Reader::new(Path::new(""), &environment);
    let _ = reader.read(&table, &control::default_table(), control::read);
    let findings = reader.finish();
    let misspelt: Vec<_> = findings.faults.iter().filter(|fault| fault.message.contains("unknown field")).collect();
    assert!(misspelt.is_empty(), "settings that nobody reads: {misspelt:?}");
    let mut there = BTreeSet::new();
    complete::paths(&table, "", &mut there);
    let missing: Vec<_> = findings.known.iter().filter(|path| !there.contains(*path)).collect();
    assert!(missing.is_empty(), "settings that the commented default does not show: {missing:?}");
}

/// The table of roles stands there as the code has it.
#[test]
fn the_commented_default_says_what_operators_may() {
    let words: Vec<&str> = control::DEFAULT.split_whitespace().filter(|word| *word != "#").collect();
    assert!(
        words.join(" ").contains(&crate::control::store::Role::table()),
        "expected: {}",
        crate::control::store::Role::table()
    );
}

#[test]
fn a_few_words_are_enough() {
    let loaded = good(PLAIN);
    assert_eq!(loaded.warnings, []);
    let settings = loaded.settings;
    assert_eq!(settings.listener.addresses, ["127.0.0.1:8444".parse().unwrap()]);
    assert!(matches!(&settings.store, Place::Sqlite(file) if file == Path::new("/etc/keyside/control.db")));
    assert_eq!(settings.anchor.as_deref(), Some(Path::new("/etc/keyside/audit-anchor.ndjson")));
    assert_eq!((settings.offers.len(), settings.offers[0].name.as_str()), (1, "keyside"));
    assert_eq!(settings.offers[0].scopes, ["read", "write", "read_write"]);
}

#[test]
fn presets_say_what_can_be_minted() {
    let settings = good(&format!("{PLAIN}[presets]\nnames = [\"web3pay\", \"wallet\"]\n")).settings;
    let [web3pay, wallet] = &settings.offers[..] else { panic!("two offers") };
    assert_eq!((web3pay.kind, web3pay.modes, web3pay.header.as_deref()), (Kind::Token, true, Some("x-api-key")));
    assert_eq!(web3pay.scopes, ["onramp:create", "onramp:read", "transactions:read", "keys:manage", "webhooks:manage"]);
    assert_eq!((wallet.kind, wallet.modes), (Kind::Pair, false));
    assert!(wallet.scopes.contains(&"read_write".to_owned()) && wallet.kyc, "{wallet:?}");
    assert_eq!(wallet.capabilities, ["manage_woocommerce"]);
    assert!(std::ptr::eq(settings.offer(None).unwrap(), web3pay) && settings.offer(Some("woocommerce")).is_none());
}

#[test]
fn faults_have_their_places() {
    check("[listen]\naddress = \"0.0.0.0:8444\"\nplaintext = true\n", "control.toml:2");
    check("[listen]\naddress = \"0.0.0.0:8444\"\nplaintext = true\n", "so [listen.tls] must be there");
    check(&format!("{PLAIN}[store]\nurl = \"mysql://x\"\n"), "expected \"sqlite:FILE\" or \"postgres://");
    check(&format!("{PLAIN}[store]\nurl = \"postgres://me:secret@db/x\"\n"), "a password is never written here");
    check(&format!("{PLAIN}[store]\nurl = \"sqlite::memory:\"\n"), "expected a file");
    check(&format!("{PLAIN}[presets]\nnames = [\"wallett\"]\n"), "wallet");
    check(&format!("{PLAIN}[sync]\ntoken = \"x\"\n"), "unknown field `token` in `sync`");
    check("", "neither TLS nor plain HTTP is asked for");
}

#[test]
fn secrets_are_read_from_files_and_their_digests_kept() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let load = |tokens: &str| {
        write("tokens", tokens);
        let text = format!("{PLAIN}[sync]\ntokens = {{ file = \"tokens\" }}\n");
        control::load_text(&text, &folder.path().join("control.toml"), [])
    };
    let (one, other) = ("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210");
    let sync = load(&format!("# the first\n{one}\n\n{other}\n")).unwrap().settings.sync;
    assert_eq!(sync.tokens, [one, other].map(crate::control::audit::hex));
    let told = |result: Result<LoadedControl, Faults>| result.unwrap_err().to_string();
    assert!(told(load("short")).contains("at least 32 characters"));
    assert!(told(load("# none\n")).contains("holds no token"));
}
