use std::{collections::BTreeMap, fs};

use clap::Parser as _;
use serde_json::Value;

use super::{
    Args, Source,
    trace::{Rules, Upstreams},
};
use crate::{
    cli::{
        Exit,
        keys::{
            console::{Console, Output},
            place::Place,
        },
    },
    clock::{Now, Wall},
    facts,
    keys::Mode,
    limits,
    policy::{self, RouteSettings},
    usage::{Folder, Revoked},
};

const KEYS: &str = r#"
[[owner]]
id = "svc-accounting"
name = "Accounting"
capabilities = ["manage_woocommerce"]
kyc = "pending"
plan = "pro"

[[key]]
id = "key_good"
name = "Export script"
kind = "pair"
prefix = "ck_4f2a"
hash = "$sha256$0000000000000000000000000000000000000000000000000000000000000000"
owner = "svc-accounting"
scopes = ["transactions:read"]
mode = "live"
allow_ips = ["198.51.100.0/24"]

[[key]]
id = "key_old"
name = "Old script"
kind = "token"
prefix = "ck_live_abc123"
hash = "$sha256$0000000000000000000000000000000000000000000000000000000000000000"
owner = "svc-other"
scopes = ["transactions:read"]
expires_at = 2026-01-01T00:00:00Z

[[key]]
id = "key_gone"
name = "Gone"
kind = "pair"
prefix = "ck_gone"
hash = "$sha256$0000000000000000000000000000000000000000000000000000000000000000"
owner = "svc-other"
scopes = ["transactions:read"]

[[key]]
id = "key_bad"
name = "Bad"
kind = "pair"
prefix = "ck_bad"
hash = "$sha256$0000000000000000000000000000000000000000000000000000000000000000"
owner = "svc-other"
scopes = ["read"]
allow_ips = ["everywhere"]
"#;

fn rules() -> Rules {
    let route = |path: &str, scope: &str| RouteSettings {
        scope: vec![scope.parse().unwrap()],
        ..RouteSettings::new(path.parse().unwrap())
    };
    let quotas = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let policy = policy::Settings {
        routes: vec![
            RouteSettings { public: true, ..RouteSettings::new("/docs/**".parse().unwrap()) },
            route("/v1/transactions/**", "transactions:read"),
            RouteSettings { kyc: true, ..route("/v1/withdrawals", "transactions:read") },
            RouteSettings { observe: true, limits: false, ..route("/v1/new/**", "new:read") },
        ],
        hosts: [("api.example.com".to_owned(), Mode::Live), ("sandbox.example.com".to_owned(), Mode::Test)].into(),
        ..policy::Settings::default()
    };
    let limits = limits::Settings {
        per_ip: quotas(&["60/1m"]),
        per_owner: quotas(&["5000/1h"]),
        plans: [("pro".to_owned(), quotas(&["600/1m", "50000/1d"]))].into(),
        ..limits::Settings::default()
    };
    let upstreams = Upstreams { url: "http://127.0.0.1:8080".parse().unwrap(), modes: BTreeMap::new() };
    Rules::new(facts::Settings::default(), &policy, limits, upstreams, true)
}

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// What a command line says, and how it ends. In an argument, `~` stands for a space.
fn run(line: &str) -> (Exit, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    fs::write(&file, KEYS).unwrap();
    let revoked = [("key_gone".parse().unwrap(), None)].into();
    Revoked::open(&Folder::new(folder.path().join("state"))).add(&revoked).unwrap();
    let words = line.split(' ').map(|word| word.replace('~', " "));
    let line =
        match Line::try_parse_from(["explain", "--config", "keyside.toml"].map(str::to_owned).into_iter().chain(words))
        {
            Ok(line) => line,
            Err(error) => return (Exit::Usage, error.to_string()),
        };
    let (mut out, mut err, mut input) = (Vec::new(), Vec::new(), &b""[..]);
    let mut console = Console {
        output: line.args.output,
        out: &mut out,
        err: &mut err,
        input: &mut input,
        is_attended: false,
        // 2026-11-21T00:00:00Z.
        now: Now { wall: Wall::from_unix_millis(1_795_219_200_000), ..Now::default() },
    };
    let place = Place { state: Some(folder.path().join("state")), ..Place::at(file) };
    let source = Source { place, endpoint: None };
    let exit = match line.args.explain(&rules(), &source, &mut console) {
        Ok(exit) => exit,
        Err(failure) => return (failure.exit, failure.message),
    };
    (exit, String::from_utf8(out).unwrap())
}

#[track_caller]
fn check(line: &str, exit: Exit, expected: &[&str]) {
    let (ended, text) = run(line);
    assert_eq!(ended, exit, "{text}");
    for expected in expected {
        assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
    }
}

const GOOD: &str = "--key key_good --method GET --ip 198.51.100.7";

#[test]
fn every_step_is_told_in_the_order_of_the_pipeline() {
    insta::assert_snapshot!(run(&format!("{GOOD} --path /v1/transactions/7?page=2")).1);
}

#[test]
fn the_exit_status_is_the_verdict() {
    check(&format!("{GOOD} --path /v1/transactions"), Exit::Done, &["\nallowed"]);
    check(&format!("{GOOD} --path /docs/a"), Exit::Done, &["allowed: the route is public"]);
    check(
        "--key key_good --method GET --path /v1/transactions --ip 203.0.113.9",
        Exit::Failed,
        &["NO address", "refused: 403 forbidden_caller_ip"],
    );
    check(&format!("{GOOD} --path /v1/withdrawals"), Exit::Failed, &["refused: 403 kyc_required"]);
    check(&format!("{GOOD} --path /v1/other"), Exit::Failed, &["refused: 403 route_not_allowed"]);
    check(
        &format!("{GOOD} --path /v1/new/x"),
        Exit::Done,
        &["NO scope", "the route takes nothing from it", "the route only observes; else 403 insufficient_scope"],
    );
    check(
        &format!("{GOOD} --path /v1/transactions --host sandbox.example.com"),
        Exit::Failed,
        &["refused: 403 mode_mismatch"],
    );
    check(
        "--key key_old --method GET --path /v1/transactions --ip 203.0.113.9 --host x",
        Exit::Failed,
        &["NO key", "expired 2026-01-01T00:00:00Z", "refused: 401 invalid_credentials"],
    );
    check("--key key_good --method PURGE --path /v1/transactions --ip 198.51.100.7", Exit::Failed, &["refused: 405"]);
    check(&format!("{GOOD} --path /v1/../x"), Exit::Failed, &["refused: 400 bad_request"]);
}

#[test]
fn overrides_are_judged_from_fields_and_query() {
    check(
        &format!("{GOOD} --path /v1/transactions --header X-HTTP-Method-Override:~DELETE"),
        Exit::Done,
        &["the upstream may act on DELETE"],
    );
}

#[test]
fn a_key_goes_by_id_name_or_prefix_and_a_bad_one_is_named() {
    for key in ["key_good", "ck_4f2a", "Export~script"] {
        check(&format!("--key {key} --method GET --path /v1/transactions --ip 198.51.100.7"), Exit::Done, &[]);
    }
    check("--key key_bad", Exit::Failed, &["key_bad is set aside"]);
    // Its row says nothing of it, the state folder does.
    check(
        "--key key_gone --method GET --path /v1/transactions --ip 127.0.0.1",
        Exit::Failed,
        &["revoked earlier (remembered"],
    );
    check("--key key_none", Exit::Failed, &["no key has the id"]);
}

#[test]
fn half_a_request_is_a_wrong_command_line() {
    check("--key key_good --method GET", Exit::Usage, &["--path"]);
    check("--key key_good --path /x --method GET", Exit::Usage, &["--ip"]);
    check("--key key_good --ip 127.0.0.1", Exit::Usage, &["--path"]);
    check(&format!("{GOOD} --path / --header nonsense"), Exit::Usage, &["Name: value"]);
}

#[test]
fn without_a_request_a_table_tells_what_the_key_could_do() {
    insta::assert_snapshot!(run("--key key_good").1);
    check("--key key_old", Exit::Done, &["NO key", "svc-other, who has no row"]);
    for key in ["key_old", "key_gone"] {
        let (_, text) = run(&format!("--key {key}"));
        let may: Vec<_> = text.lines().filter(|line| line.contains(" yes  ")).collect();
        assert!(matches!(may[..], [public] if public.contains("/docs/**")), "{text}");
    }
}

#[test]
fn json_says_the_same() {
    let json = |line: &str| serde_json::from_str::<Value>(&run(&format!("{line} --output json")).1).unwrap();
    let refused = json(&format!("{GOOD} --path /v1/withdrawals"));
    assert_eq!(refused["verdict"], "refused");
    assert_eq!(refused["status"], 403);
    assert_eq!(refused["reason"], "kyc_required");
    let last = refused["steps"].as_array().unwrap().iter().find(|step| step["outcome"] == "refused").unwrap();
    assert_eq!(last["name"], "KYC");
    let could = json("--key key_good");
    let rows = could["abilities"].as_array().unwrap();
    assert!(
        rows.iter()
            .any(|row| row["path"] == "/v1/withdrawals" && row["may"] == false && row["reason"] == "kyc_required")
    );
}

#[test]
fn no_hash_is_ever_printed() {
    for line in ["--key key_good".to_owned(), format!("{GOOD} --path /v1/transactions --output json")] {
        assert!(!run(&line).1.contains("sha256"));
    }
    assert_eq!(Output::default(), Output::Table);
}

#[test]
fn rules_and_keys_come_from_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keyside.toml");
    let text = "[listen]\nplaintext = true\naddress = \"127.0.0.1:8443\"\n\n[keys]\nfile = \"my-keys.toml\"\n\n\
                [[route]]\npath = \"/v1/**\"\nscope = \"v1:read\"\n";
    fs::write(&file, text).unwrap();
    let (rules, source) = super::load(&file).unwrap_or_else(|failure| panic!("{}", failure.message));
    assert_eq!(source.place.file, folder.path().join("my-keys.toml"));
    assert_eq!(source.place.state, Some(folder.path().join("state/")));
    assert!(!rules.secure);
    assert_eq!(rules.policy.scopes_asked().iter().map(ToString::to_string).collect::<Vec<_>>(), ["v1:read"]);

    fs::write(&file, text.replace("scope", "scoep")).unwrap();
    let failure = super::load(&file).map(|_| ()).unwrap_err();
    assert_eq!(failure.exit, Exit::Misconfigured);
    assert!(failure.message.contains("did you mean `scope`?"), "{}", failure.message);
}
