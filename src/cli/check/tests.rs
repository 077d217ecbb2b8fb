use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::*;
use crate::{
    cli::certificate,
    keys::secret::{Algorithm, Secret, SecretHash},
};

const HASH: &str = "$sha256$e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A folder with a configuration on loopback, a key file, and what else a test puts there.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(config: &str, keys: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("keyside.toml", &format!("{config}\n[listen]\naddress = \"127.0.0.1:8443\"\nplaintext = true\n"));
        folder.write("keys.toml", keys);
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
        fs::set_permissions(self.path().join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn examine(&self) -> Vec<Fault> {
        examine(&self.path().join("keyside.toml"), [], now())
    }

    /// The faults, less the folder's name.
    fn faults(&self) -> Vec<String> {
        let shown = |fault: &Fault| {
            let kind = if fault.is_error() { "" } else { "warning: " };
            let file = fault.file.as_ref().and_then(|file| file.file_name()).unwrap_or_default().display().to_string();
            let text = format!("{file}:{}:{} {kind}{}", fault.line, fault.column, fault.message);
            text.replace(&format!("{}/", self.path().display()), "")
        };
        self.examine().iter().map(shown).collect()
    }
}

fn now() -> Wall {
    clock::now().wall
}

fn key(fields: &str) -> String {
    format!(
        "[[key]]\nid = \"key_1\"\nname = \"n\"\nkind = \"pair\"\nprefix = \"ck_1\"\nhash = \"{HASH}\"\n\
         created_at = 2026-01-01T00:00:00Z\n{fields}\n"
    )
}

#[track_caller]
fn check(config: &str, keys: &str, expected: &[&str]) {
    assert_eq!(Folder::new(config, keys).faults(), expected);
}

const OWNER: &str = "[[owner]]\nid = \"o\"\n";

#[test]
fn a_sound_folder_has_no_faults() {
    check("", &format!("{OWNER}{}", key("owner = \"o\"\nscopes = [\"read\"]")), &[]);
}

#[test]
fn a_missing_key_file_is_an_error_at_its_setting() {
    let folder = Folder::new("[keys]\nfile = \"other.toml\"", "");
    let faults = folder.faults();
    assert_eq!(faults.len(), 1);
    assert!(faults[0].starts_with("keyside.toml:2:8 `keys.file`: cannot read other.toml: "), "{faults:?}");
}

#[test]
fn the_key_files_own_faults_are_reported() {
    let faults = Folder::new("", &key("owner = \"o\"\nscopes = [\"rad\"]\nzebra = 1")).examine();
    let lines: Vec<_> = faults.iter().filter(|fault| fault.is_error()).map(|fault| fault.line).collect();
    assert_eq!(lines, [9, 10], "{faults:?}");
    assert!(faults.iter().all(|fault| fault.file.as_ref().unwrap().ends_with("keys.toml")));
}

#[test]
fn scopes_that_nothing_asks_for_are_warned_of() {
    let routes = "[[route]]\npath = \"/a\"\nscope = \"links:read\"\n";
    check(
        routes,
        &format!("{OWNER}{}", key("owner = \"o\"\nscopes = [\"links:read\", \"links:raed\", \"read\"]")),
        &[
            "keys.toml:11:1 warning: no route asks for the scope read of key key_1",
            "keys.toml:11:1 warning: no route asks for the scope links:raed of key key_1",
        ],
    );
    check(
        "",
        &format!("{OWNER}{}", key("owner = \"o\"\nscopes = [\"links:read\"]")),
        &["keys.toml:11:1 warning: nothing asks for any scope of key key_1, so it can do nothing"],
    );
}

#[test]
fn a_key_that_nobody_can_present_is_warned_of() {
    let keys = format!("{OWNER}{}", key("owner = \"o\"\nscopes = [\"read\"]"));
    check(
        "[credentials]\nbasic = false",
        &keys,
        &["keys.toml:6:1 warning: [credentials] takes no pairs, so key key_1 can do nothing"],
    );
    check("[credentials]\nbasic = false\nquery = { key = \"k\", secret = \"s\" }", &keys, &[]);
}

#[test]
fn a_key_that_is_over_is_not_warned_of() {
    let over = "owner = \"nobody\"\nscopes = [\"links:read\"]\nrevoked_at = 2026-02-01T00:00:00Z";
    check("", &key(over), &[]);
}

#[test]
fn owners_and_plans_that_are_not_there_are_warned_of() {
    check(
        "",
        &key("owner = \"o\"\nscopes = [\"read\"]"),
        &["keys.toml:8:1 warning: the owner o has no row: no capabilities, KYC none, no plan"],
    );
    let keys = format!("{OWNER}plan = \"por\"\n{}", key("owner = \"o\"\nscopes = [\"read\"]"));
    check(
        "[limits.plans]\npro = [\"1/1m\"]",
        &keys,
        &[
            "keys.toml:3:1 warning: the plan por of owner o is none of [limits.plans]; its keys have the limits of all keys",
        ],
    );
    let routes = "[[route]]\npath = \"/a\"\ncapability = \"manage\"\n";
    check(
        routes,
        &format!("{OWNER}{}", key("owner = \"o\"\nscopes = [\"read\"]")),
        &["keys.toml:0:0 warning: routes ask for the capability manage, which no owner has"],
    );
}

#[test]
fn limits_and_modes_of_keys_that_cannot_take_effect_are_warned_of() {
    let fields = "owner = \"o\"\nscopes = [\"read\"]\nlimits = [\"600/1m\", \"10/1m\"]\nmode = \"test\"";
    check(
        "[hosts]\n\"a\" = \"live\"",
        &format!("{OWNER}{}", key(fields)),
        &[
            "keys.toml:12:1 warning: 600/1m of key key_1 can never be reached, since 10/1m is used up first",
            "keys.toml:13:1 warning: no host of [hosts] accepts test keys, so key key_1 can do nothing",
        ],
    );
}

#[test]
fn a_key_without_a_mode_is_warned_of_where_modes_keep_keys_apart() {
    let keys = format!("{OWNER}{}", key("owner = \"o\"\nscopes = [\"read\"]"));
    let hosts = "keys.toml:4:1 warning: key key_1 has no mode, so every host of [hosts] accepts it";
    check("[hosts]\n\"a\" = \"live\"", &keys, &[hosts]);
    let modes = "keys.toml:4:1 warning: key key_1 has no mode, so none of [upstream.modes] is its own";
    check("[upstream.modes]\ntest = \"http://127.0.0.1:1\"", &keys, &[modes]);
}

#[test]
fn a_test_key_is_warned_of_where_nothing_keeps_it_from_the_live_upstream() {
    let keys =
        |mode: &str| format!("{OWNER}{}", key(&format!("owner = \"o\"\nscopes = [\"read\"]\nmode = \"{mode}\"")));
    let warning = "keys.toml:12:1 warning: key key_1 is a test key, and reaches the upstream of live keys";
    check("", &keys("test"), &[warning]);
    check("", &keys("live"), &[]);
    for apart in ["test = \"http://127.0.0.1:1\"", "live = \"http://127.0.0.1:1\""] {
        check(&format!("[upstream.modes]\n{apart}"), &keys("test"), &[]);
    }
    check("[hosts]\n\"a\" = \"live\"\n\"b\" = \"test\"", &keys("test"), &[]);
    // One that is over reaches nothing.
    check("", &format!("{}revoked_at = 2026-02-01T00:00:00Z\n", keys("test")), &[]);
}

/// A folder with TLS whose certificate was issued at this time.
fn with_tls(issued_at: Wall) -> Folder {
    let folder = Folder::new("", &format!("{OWNER}{}", key("owner = \"o\"\nscopes = [\"read\"]")));
    let issued = certificate::issue(&["localhost"], issued_at).unwrap();
    folder.write("a.crt", &issued.certificate);
    folder.write("a.key", &issued.private_key);
    folder.write(
        "keyside.toml",
        "[listen]\naddress = \"127.0.0.1:1\"\n[listen.tls]\ncertificate = \"a.crt\"\nprivate_key = \"a.key\"\n",
    );
    folder
}

fn days(days: i64) -> Wall {
    Wall::from_unix_millis(now().unix_millis() + days * 86_400_000)
}

#[test]
fn certificates_must_be_valid_now_and_for_a_while() {
    #[track_caller]
    fn check(issued_at: Wall, expected: Option<&str>) {
        let faults = with_tls(issued_at).faults();
        let starts = match faults.as_slice() {
            [] => None,
            [fault] => Some(fault.as_str()),
            more => panic!("{more:?}"),
        };
        assert_eq!(
            starts.map(|fault| fault.starts_with(expected.unwrap_or("nothing"))),
            expected.map(|_| true),
            "{faults:?}"
        );
    }
    check(now(), None);
    check(days(-900), Some("keyside.toml:4:15 the certificate in a.crt expired at "));
    check(days(10), Some("keyside.toml:4:15 the certificate in a.crt is not valid before "));
    check(days(-825 + 13), Some("keyside.toml:4:15 warning: the certificate in a.crt expires at "));
    check(days(-825 + 16), None);
}

#[test]
fn a_private_key_that_fits_not_or_is_none_is_an_error() {
    let folder = with_tls(now());
    let other = certificate::issue(&["localhost"], now()).unwrap();
    folder.write("a.key", &other.private_key);
    let faults = folder.faults();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].contains("the private key in a.key does not fit the certificate in a.crt"), "{faults:?}");
    folder.write("a.key", "nothing");
    assert!(folder.faults()[0].contains("a.key holds no"), "{:?}", folder.faults());
    fs::remove_file(folder.path().join("a.crt")).unwrap();
    assert!(folder.faults()[0].contains("cannot read a.crt"), "{:?}", folder.faults());
}

#[test]
fn files_with_secrets_that_everybody_may_read_are_warned_of() {
    let folder = with_tls(now());
    folder.write("pepper", "0123456789abcdef");
    let config = fs::read_to_string(folder.path().join("keyside.toml")).unwrap();
    folder.write("keyside.toml", &format!("{config}[keys]\npepper = {{ file = \"pepper\" }}\n"));
    assert_eq!(folder.faults(), [""; 0]);
    for name in ["pepper", "a.key"] {
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    assert_eq!(
        folder.faults(),
        [
            "keyside.toml:5:15 warning: a.key may be read by everybody (mode 0644)",
            "keyside.toml:7:10 warning: pepper may be read by everybody (mode 0644)",
        ]
    );
}

#[test]
fn an_upstream_whose_certificates_cannot_be_read_is_an_error() {
    let config = "[upstream]\nurl = \"https://api.internal\"\ntls = { ca = \"nowhere.crt\" }";
    let faults = Folder::new(config, &format!("{OWNER}{}", key("owner = \"o\"\nscopes = [\"read\"]"))).faults();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].starts_with("keyside.toml:3:"), "{faults:?}");
    assert!(faults[0].contains("nowhere.crt: cannot be read as PEM"), "{faults:?}");
}

#[test]
fn a_hash_without_its_pepper_is_an_error_without_its_line() {
    let pepper = Secret::new(b"0123456789abcdef");
    let hash = SecretHash::make(Algorithm::HmacSha256, &Secret::new(b"s"), Some(&pepper)).unwrap();
    let keys = key("owner = \"o\"\nscopes = [\"read\"]").replace(HASH, hash.as_phc());
    let keys = format!("{OWNER}{keys}");
    let folder = Folder::new("", &keys);
    let faults = folder.examine();
    assert_eq!(folder.faults(), ["keys.toml:8:1 the hash of key key_1: hmac-sha256 needs the pepper: set keys.pepper"]);
    assert_eq!(faults[0].source_line, "");
    let folder = Folder::new("[keys]\npepper = { file = \"pepper\" }", &keys);
    folder.write("pepper", "0123456789abcdef\n");
    assert_eq!(folder.faults(), [""; 0]);
    folder.write("pepper", "another pepper than that\n");
    assert!(folder.faults()[0].contains("made under another pepper"), "{:?}", folder.faults());
}

#[test]
fn the_report_is_one_value_for_programs() {
    let faults = Folder::new("[limits]\nper_ip = [\"600/1m\", \"30/5s\"]", "[end]\nowners = 0\nkeys = 0\n").examine();
    let report = report(&faults);
    assert_eq!(report["ok"], true);
    assert_eq!(report["faults"][0]["severity"], "warning");
    assert_eq!((&report["faults"][0]["line"], &report["faults"][0]["column"]), (&json!(2), &json!(11)));
    assert_eq!(report["faults"][0]["source_line"], "per_ip = [\"600/1m\", \"30/5s\"]");
    assert_eq!(summary(Path::new("f"), &faults), "f: no errors, 1 warning");
}

/// What is wrong with the configuration of a control plane, whatever it is called.
#[cfg(feature = "control")]
#[test]
fn the_configuration_of_a_control_plane_is_checked_too() {
    let folder = Folder::new("", "");
    let path = folder.path().join("plane.toml");
    let faults = |text: &str| -> Vec<String> {
        folder.write("plane.toml", text);
        assert!(plane::is_one(&path), "{text}");
        let found = plane::examine(&path, [], now());
        found.iter().map(|fault| format!("{}:{} {}", fault.line, fault.column, fault.message)).collect()
    };
    let base = "[listen]\naddress = \"127.0.0.1:0\"\nplaintext = true\n";
    assert_eq!(faults(&format!("{base}[sync]\n")), [""; 0]);
    folder.write("tokens", &"t".repeat(40));
    fs::set_permissions(folder.path().join("tokens"), fs::Permissions::from_mode(0o644)).unwrap();
    let found =
        faults(&format!("{base}[sync]\ntokens = {{ file = \"tokens\" }}\n[store]\nurl = \"sqlite:none/c.db\"\n"));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("5:") && found[0].contains("may be read by everybody"), "{found:?}");
    assert!(found[1].starts_with("7:") && found[1].contains("there is no folder"), "{found:?}");
    let found = faults("[listen]\nplaintext = true\n[sync]\ntokns = { file = \"tokens\" }\n");
    assert!(found.iter().any(|fault| fault.starts_with("4:1 unknown field `tokns`")), "{found:?}");
    let tls =
        "[listen]\naddress = \"127.0.0.1:0\"\n[listen.tls]\ncertificate = \"a.crt\"\nprivate_key = \"a.key\"\n[sync]\n";
    let found = faults(tls);
    assert!(found[0].starts_with("4:") && found[0].contains("a.crt"), "{found:?}");

    assert!(!plane::is_one(&folder.path().join("keyside.toml")));
    folder.write("control.toml", base);
    assert!(plane::is_one(&folder.path().join("control.toml")), "by its name");
}

#[test]
fn a_token_for_the_endpoint_that_everybody_may_read_is_warned_of() {
    let config = "[keys.control]\nurl = \"http://127.0.0.1:1\"\ntoken = { file = \"token\" }";
    let folder = Folder::new(config, "");
    folder.write("token", &"t".repeat(40));
    assert_eq!(folder.faults(), [""; 0]);
    fs::set_permissions(folder.path().join("token"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(folder.faults(), ["keyside.toml:3:9 warning: token may be read by everybody (mode 0644)"]);
}
