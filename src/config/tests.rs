//! What a whole configuration is read as, and where its faults are said to be.

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
    assert_eq!((keys.file.as_path(), keys.state.as_path()), (Path::new("keys.toml"), Path::new("state/")));
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
fn all_faults_are_reported_at_once_each_with_its_place() {
    let text = r#"
[listen]
adress = "0.0.0.0:8443"
max_header_bytes = 16384

[listen.timeouts]
idle = "soon"

[listen.tls]
certificate = "tls.crt"

[limits]
per_ip = ["60/1m", "30/5x"]

[[route]]
path = "v1"
scope = "Read"
"#;
    let faults = read_with(text, &[]).unwrap_err();
    insta::assert_snapshot!(faults, @r#"
    keyside.toml:3:1: unknown field `adress` in `listen`
      |
    3 | adress = "0.0.0.0:8443"
      | ^
      = help: did you mean `address`?

    keyside.toml:4:20: `listen.max_header_bytes`: expected a size with its unit, such as "512B", "16KiB" or "10MiB", not a bare number
      |
    4 | max_header_bytes = 16384
      |                    ^
      = help: "16384B" if bytes are meant

    keyside.toml:7:8: `listen.timeouts.idle`: expected a duration with its unit, such as "500ms", "30s", "5m", "12h" or "90d"
      |
    7 | idle = "soon"
      |        ^

    keyside.toml:9:9: `listen.tls.private_key`: is missing: the certificate needs it
      |
    9 | [listen.tls]
      |         ^

    keyside.toml:13:20: `limits.per_ip`: expected how many, a slash and how long, like "600/1m" (units: s, m, h, d)
       |
    13 | per_ip = ["60/1m", "30/5x"]
       |                    ^

    keyside.toml:16:8: `route[0].path`: a path begins with "/"
       |
    16 | path = "v1"
       |        ^

    keyside.toml:17:9: `route[0].scope`: expected "read", "write", "read_write" or "resource:verb" of letters, digits, "-", "_" and "."
       |
    17 | scope = "Read"
       |         ^
    "#);
}

#[test]
fn a_misspelt_field_is_an_error_with_advice() {
    check("[listne]\nx = 1\n", &["1:2 unknown field `listne` (did you mean `listen`?)"]);
    check("[shutdown]\ngrase = \"1s\"\n", &["2:1 unknown field `grase` in `shutdown` (did you mean `grace`?)"]);
    check(
        "[errors]\nmax_body = \"1B\"\n",
        &["2:1 unknown field `max_body` in `errors` (`max_body` belongs in [listen])"],
    );
    check("[errors]\nzebra = 1\n", &["2:1 unknown field `zebra` in `errors` (known here: format)"]);
    check(
        "[[route]]\npath = \"/a\"\nscopes = [\"read\"]\n",
        &["3:1 unknown field `scopes` in `route[0]` (did you mean `scope`?)"],
    );
}

#[test]
fn types_and_ranges_are_checked() {
    check("[limits]\nipv6_prefix = 129\n", &["2:15 `limits.ipv6_prefix`: expected 1 to 128, not 129"]);
    check("[limits]\nper_ip = \"60/1m\"\n", &["2:10 `limits.per_ip`: expected a list, not a text ([\"60/1m\"])"]);
    check("shutdown = 3\n", &["1:12 `shutdown`: expected a table, not a whole number"]);
    check("[route]\npath = \"/\"\n", &["1:1 `route`: expected a list, not a table"]);
    check("[upstream]\nresponse_timeout = \"0s\"\n", &["2:20 `upstream.response_timeout`: expected 10ms to 1d"]);
    check("[credentials]\nbasic = \"yes\"\n", &["2:9 `credentials.basic`: expected true or false, not a text"]);
}

#[test]
fn syntax_faults_do_not_hide_the_others() {
    check(
        "[admin]\naddress = = 1\n[shutdown]\ngrase = \"1s\"\n",
        &["2:11 extra `=`, expected nothing", "4:1 unknown field `grase` in `shutdown` (did you mean `grace`?)"],
    );
}

#[test]
fn tls_or_plaintext_must_be_chosen() {
    let faults = read_with("", &[]).unwrap_err();
    assert!(faults.0[0].message.starts_with("`listen.tls`: neither TLS nor plain HTTP is asked for"));
    let tls = "[listen.tls]\ncertificate = \"a\"\nprivate_key = \"b\"\n";
    let both = read_with(&format!("[listen]\nplaintext = true\n{tls}"), &[]).unwrap_err();
    assert_eq!(
        compact(&both.0),
        ["2:13 `listen.plaintext`: both plain HTTP and [listen.tls] are asked for; choose one"]
    );
    let one = read_with("[listen.tls]\ncertificate = \"a\"\n", &[]).unwrap_err();
    assert_eq!(compact(&one.0), ["1:9 `listen.tls.private_key`: is missing: the certificate needs it"]);
    let config = read_with(tls, &[]).unwrap().config;
    assert_eq!(config.listener.tls.unwrap().private_key, Path::new("b"));
}

#[test]
fn relative_paths_start_beside_the_file() {
    let text = "[listen.tls]\ncertificate = \"a.crt\"\nprivate_key = \"/b.key\"\n[keys]\nfile = \"keys/k.toml\"\n";
    let config = load_text(text, Path::new("/etc/keyside/keyside.toml"), []).unwrap().config;
    let tls = config.listener.tls.unwrap();
    assert_eq!(tls.certificate, Path::new("/etc/keyside/a.crt"));
    assert_eq!(tls.private_key, Path::new("/b.key"));
    assert_eq!(config.keys.file, Path::new("/etc/keyside/keys/k.toml"));
    assert_eq!(config.keys.state, Path::new("/etc/keyside/state/"));
}

#[test]
fn what_is_not_in_this_build_says_so() {
    check("[limits]\nshared = \"redis://a\"\n", &["2:1 `limits.shared` is not in this build"]);
    check("[owner_headers.assertion]\nheader = \"X-A\"\n", &["1:16 `owner_headers.assertion` is not in this build"]);
    check("[keys]\ncontrol = { url = \"https://c\" }\n", &["2:1 `keys.control` is not in this build"]);
    check(
        "[keys]\nfile = \"keys.toml\"\ncontrol = { url = \"https://c\" }\n",
        &[
            "3:1 `keys.control`: keys come from a file or from a control endpoint, not from both (take out `file` or `control`)",
            "3:1 `keys.control` is not in this build",
        ],
    );
}

#[test]
fn secrets_are_never_inline() {
    for (text, variable) in [
        ("[upstream]\nauthorization = \"Bearer SECRET\"\n", ("X", "")),
        ("[keys]\npepper = \"SECRET-SECRET-SECRET\"\n", ("X", "")),
        ("[keys]\npepper = { value = \"SECRET\" }\n", ("X", "")),
        ("[keys.pepper]\nvalue = \"SECRET\"\n", ("X", "")),
        ("", ("KEYSIDE_KEYS__PEPPER", "SECRET-SECRET-SECRET")),
        ("[upstream]\nurl = \"http://user:SECRET@host\"\n", ("X", "")),
        ("[upstream]\nauthorisation = \"SECRET\"\n", ("X", "")),
    ] {
        let faults = read_with(&plain(text), &[variable]).unwrap_err();
        assert!(!faults.to_string().contains("SECRET"), "{faults}");
        assert_eq!(faults.0.len(), 1, "{faults}");
    }
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
    assert_eq!(config.keys.verification.pepper.unwrap().expose(), b"0123456789abcdef ");
    assert_eq!(config.upstream.authorization.unwrap().expose(), b"Bearer x");
    assert_eq!(config.sources, [path.clone(), folder.path().join("pepper")]);
}

#[test]
fn references_to_secrets_that_lead_nowhere_are_faults() {
    check_with(
        "[upstream]\nauthorization = { env = \"NOWHERE\" }\n",
        &[],
        &["2:25 `upstream.authorization`: the environment variable NOWHERE is not set"],
    );
    check_with(
        "[upstream]\nauthorization = { env = \"EMPTY\" }\n",
        &[("EMPTY", "\n")],
        &["2:17 `upstream.authorization`: what it refers to is empty"],
    );
    check_with(
        "[keys]\npepper = { env = \"SHORT\" }\n",
        &[("SHORT", "short")],
        &["2:10 `keys.pepper`: what it refers to is too short; a pepper has at least 16 bytes, best 32 random ones"],
    );
    check_with(
        "[keys]\npepper = { env = \"A\", file = \"b\" }\n",
        &[("A", "short")],
        &["2:10 `keys.pepper`: file and env are both given; choose one"],
    );
    check(
        "[keys.mint]\nhash = \"hmac-sha256\"\n",
        &["2:8 `keys.mint.hash`: hmac-sha256 needs a pepper, so that a stolen key file is of no use \
         (pepper = { file = \"pepper\" } in [keys]; keyside init makes one)"],
    );
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
fn a_variable_that_names_no_setting_is_a_fault_that_names_it() {
    check_with(
        "",
        &[("KEYSIDE_LISTEN__ADRESS", "127.0.0.1:1")],
        &[
            "environment variable KEYSIDE_LISTEN__ADRESS: unknown field `adress` in `listen` (did you mean KEYSIDE_LISTEN__ADDRESS?)",
        ],
    );
    check_with(
        "",
        &[("KEYSIDE_LISTEN__ADDRESS", "nowhere")],
        &[
            "environment variable KEYSIDE_LISTEN__ADDRESS: `listen.address`: expected an IP address and a port, such as \
         \"0.0.0.0:8443\" or \"[::]:8443\"",
        ],
    );
    check_with(
        "",
        &[("KEYSIDE_PRESET", "walet")],
        &[
            "environment variable KEYSIDE_PRESET: there is no preset \"walet\"; there are wallet, woocommerce, web3pay, \
         payment-links, wontopos (did you mean \"wallet\"?)",
        ],
    );
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

#[test]
fn settings_that_contradict_one_another_are_errors() {
    check(
        "[listen]\nplaintext = true\nproxy_protocol = true\n",
        &[
            "3:18 `listen.proxy_protocol`: a PROXY header is taken from trusted_proxies only, and there are none, so that \
         nobody could connect",
        ],
    );
    check(
        "[admin]\naddress = \"127.0.0.1:8443\"\n",
        &["2:11 `admin.address`: 127.0.0.1:8443 is the address of `listen.address` already"],
    );
    check(
        "[upstream]\nurl = \"http://localhost:8443\"\n",
        &["2:7 `upstream.url`: http://localhost:8443 is where Keyside itself listens (127.0.0.1:8443)"],
    );
    check(
        "[policy.methods]\nwrite = [\"POST\", \"GET\"]\n",
        &["2:9 `policy.methods.write`: GET is in `read` already; a method is in one list, once"],
    );
    check(
        "[policy.methods]\npass = [\"TRACE\", \"get\"]\n",
        &[
            "2:9 `policy.methods.pass`: CONNECT and TRACE are never forwarded",
            "2:18 `policy.methods.pass`: methods are written in capitals (did you mean \"GET\"?)",
        ],
    );
    check(
        "[credentials]\nbasic = false\nbearer = false\n",
        &["2:9 `credentials.basic`: no kind of credential is switched on, so that no key could ever be presented"],
    );
    check("[credentials]\nquery = { key = \"k\" }\n", &["2:1 `credentials.query.secret`: is missing"]);
    check(
        "[owner_headers]\nowner = \"X-Key-ID\"\n",
        &["2:9 `owner_headers.owner`: an upstream cannot tell it from `key_id`"],
    );
    check(
        "[owner_headers]\nreserved_prefix = \"Content-\"\n",
        &["2:19 `owner_headers.reserved_prefix`: content-encoding begins with it too, and would be removed"],
    );
    check(
        "[[route]]\npath = \"/a\"\npublic = true\nscope = \"read\"\nkyc = true\n",
        &[
            "4:9 `route[0].scope`: a public route asks for no key, so it cannot ask for this",
            "5:7 `route[0].kyc`: a public route asks for no key, so it cannot ask for this",
        ],
    );
    check("[[route]]\nscope = \"read\"\n", &["1:1 `route[0].path`: is missing"]);
    check(
        "[keys.mint]\ntoken = { test = \"ck_live_\" }\n",
        &["2:1 `keys.mint.token`: live and test tokens begin alike; nobody could tell them apart"],
    );
    check(
        "[hosts]\n\"API.example.com\" = \"live\"\n\"api.example.com:443\" = \"live\"\n",
        &["3:1 `hosts.\"api.example.com:443\"`: hosts are given without port; did you mean \"api.example.com\"?"],
    );
}

#[test]
fn odd_names_may_not_fold_onto_what_is_ours() {
    #[track_caller]
    fn refused(name: &str, extra: &str) {
        let text = plain(&format!("{extra}\n[policy]\npass_field_names = [\"client_id\", \"{name}\"]\n"));
        let faults = read_with(&text, &[]).unwrap_err().0;
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].message.contains("which no client may write"), "{faults:?}");
        assert_eq!(faults[0].column, 34, "at its own place");
    }
    good("[policy]\npass_field_names = [\"client_id\"]\n");
    refused("x_key_id", "");
    refused("x_key_anything", "");
    refused("X_Forwarded_For", "");
    refused("x.request.id", "");
    refused("x_api_key", "[credentials]\nheader = \"X-API-Key\"");
    refused("x_http_method_override", "");
    refused("my_owner", "[owner_headers]\nowner = \"My-Owner\"");
    refused("content_length", "");
}

#[test]
fn what_can_never_take_effect_is_warned_of() {
    check(
        "[limits]\nper_ip = [\"600/1m\", \"30/5s\"]\n",
        &["2:11 warning: `limits.per_ip`: 600/1m can never be reached, since 30/5s is used up first"],
    );
    check(
        "[limits]\nper_key = [\"600/1m\"]\nper_owner = [\"100/1m\"]\n",
        &[
            "2:12 warning: `limits.per_key`: 600/1m can never be reached, since 100/1m of `limits.per_owner` is used up first",
        ],
    );
    check(
        "[[route]]\npath = \"/v1/**\"\n[[route]]\npath = \"/v1/keys\"\nmethods = [\"GET\"]\n",
        &[
            "4:8 warning: route 2 can never match: route 1 \"/v1/**\" (keyside.toml:1), which comes before it, covers all \
         that it covers",
        ],
    );
    check(
        "[keys]\nmax_stale = \"1h\"\n",
        &["2:13 warning: `keys.max_stale_write` can never take effect: `max_stale` is shorter"],
    );
    check(
        "[upstream]\ntls = { ca = \"a\" }\n",
        &["2:1 warning: `upstream.tls` has no effect: no upstream's url begins with https"],
    );
    check(
        "[listen]\nplaintext = true\naddress = \"127.0.0.1:1\"\nclient_ip_header = \"Forwarded\"\n",
        &["4:20 warning: `listen.client_ip_header` is never read: there are no trusted_proxies"],
    );
}

#[test]
fn limits_by_address_on_a_public_address_are_warned_of() {
    let text = |more: &str| format!("[listen]\nplaintext = true\n{more}\n[limits]\nper_ip = [\"60/1m\"]\n");
    let warnings = read_with(&text("address = \"0.0.0.0:8443\""), &[]).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].message.contains("behind a balancer all callers share one limit"));
    check(&text("address = \"[::1]:8443\""), &[]);
    check(&text("trusted_proxies = [\"10.0.0.0/8\"]"), &[]);
}

#[test]
fn every_setting_is_in_the_commented_default_and_no_other() {
    let source = Arc::new(Source { origin: Origin::Default, text: uncommented(DEFAULT) });
    let mut faults = Vec::new();
    let table = layer::read(&source, &mut faults);
    assert!(faults.is_empty(), "{faults:?}");

    let environment = BTreeMap::new();
    let reader = Reader::new(Path::new(""), &environment);
    let _ = reader.read(&table, &default_table(), |root| read(root, None, Path::new("")));
    let findings = reader.finish();
    let misspelt: Vec<_> = findings.faults.iter().filter(|fault| fault.message.contains("unknown field")).collect();
    assert!(misspelt.is_empty(), "settings that nobody reads: {misspelt:?}");

    let mut there = BTreeSet::new();
    paths(&table, "", &mut there);
    let missing: Vec<_> = findings.known.iter().filter(|path| !there.contains(*path)).collect();
    assert!(missing.is_empty(), "settings that the commented default does not show: {missing:?}");
}

/// The default with all that is commented out in force.
fn uncommented(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", setting_of(line).unwrap_or(line))).collect()
}

/// A setting that is commented out: "#" and no space.
fn setting_of(line: &str) -> Option<&str> {
    line.strip_prefix('#').filter(|rest| rest.starts_with(|first: char| !first.is_whitespace() && first != '#'))
}

fn paths(table: &Table, above: &str, there: &mut BTreeSet<String>) {
    for entry in table {
        let path = if above.is_empty() { entry.name.clone() } else { format!("{above}.{}", entry.name) };
        if ["hosts", "upstream.modes", "limits.plans"].contains(&above) {
            there.insert(format!("{above}.*"));
        }
        match &entry.node.value {
            Value::Table(inner) => paths(inner, &path, there),
            Value::List(items) => {
                for item in items {
                    if let Value::Table(inner) = &item.value {
                        paths(inner, &path, there);
                    }
                }
            }
            _ => {}
        }
        there.insert(path);
    }
}

#[test]
fn the_commented_default_is_what_is_in_force() {
    let empty = good("");
    let whole =
        read_with(DEFAULT, &[("KEYSIDE_LISTEN__PLAINTEXT", "true"), ("KEYSIDE_LISTEN__ADDRESS", "127.0.0.1:8443")]);
    let whole = whole.unwrap();
    assert_eq!(whole.warnings.iter().filter(|warning| !warning.message.contains("is never read")).count(), 0);
    let values = |loaded: &Loaded| {
        let rows = loaded.effective.iter().filter(|(path, ..)| !path.starts_with("listen."));
        rows.map(|(path, value, _)| format!("{path} = {value}")).collect::<Vec<_>>()
    };
    assert_eq!(values(&empty), values(&whole));
}

#[test]
fn every_preset_loads_without_a_warning() {
    for name in preset_names() {
        let config = good(&format!("preset = \"{name}\"\n"));
        assert_eq!(compact(&config.warnings), [""; 0], "{name}");
        assert_eq!(config.config.preset, Some(name));
        assert!(!config.config.policy.routes.is_empty(), "{name}");
    }
}

#[test]
fn the_example_of_a_key_file_is_one() {
    let text = include_bytes!("../../config/keys.toml");
    let document = crate::keys::document::Parser::default().parse(text).unwrap();
    assert_eq!(document.faults, []);
    assert_eq!((document.owners.len(), document.keys.len()), (1, 1));
    assert!(document.end.is_some());
}

#[test]
fn every_preset_file_is_embedded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/presets");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let mut names: Vec<_> = preset_names().map(|name| format!("{name}.toml")).collect();
    files.sort();
    names.sort();
    assert_eq!(files, names);
}

#[test]
fn effective_values_say_where_they_came_from() {
    let text = "preset = \"web3pay\"\n[listen]\nplaintext = true\naddress = \"127.0.0.1:8443\"\n";
    let loaded = read_with(text, &[("KEYSIDE_SHUTDOWN__GRACE", "1s")]).unwrap();
    let row = |wanted: &str| {
        loaded.effective.iter().find(|(path, ..)| *path == wanted).map(|(_, value, origin)| format!("{value} {origin}"))
    };
    assert_eq!(row("listen.plaintext").as_deref(), Some("true keyside.toml:3"));
    assert_eq!(row("credentials.header").as_deref(), Some("\"X-API-Key\" preset web3pay"));
    assert_eq!(row("shutdown.grace").as_deref(), Some("\"1s\" environment KEYSIDE_SHUTDOWN__GRACE"));
    assert_eq!(row("shutdown.delay").as_deref(), Some("\"5s\" default"));
    assert_eq!(row("upstream.authorization"), None);
}

#[test]
fn effective_values_are_a_configuration_of_the_same_effect() {
    for name in preset_names() {
        let first = good(&format!("preset = \"{name}\"\n")).effective.to_string();
        let text = first.replace(&format!("preset = \"{name}\""), "");
        let again = read_with(&text, &[]).unwrap_or_else(|faults| panic!("{faults}")).effective.to_string();
        let less_origins = |text: &str| {
            let value = |line: &str| line.rsplit_once(" # ").map_or(line, |(value, _)| value).trim_end().to_owned();
            text.lines().map(value).filter(|line| !line.contains("preset")).collect::<Vec<_>>()
        };
        assert_eq!(less_origins(&again), less_origins(&first), "{name}");
    }
}

#[test]
fn a_file_that_is_not_text_is_one_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keyside.toml");
    assert!(load(&path, []).unwrap_err().0[0].message.starts_with("cannot read "));
    std::fs::write(&path, b"[listen]\nplaintext = \xff\n").unwrap();
    let faults = load(&path, []).unwrap_err();
    assert_eq!(compact(&faults.0), ["2:0 this line is not UTF-8"]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]

    #[test]
    fn no_text_makes_the_reader_panic(text in "([a-z_]{1,9}|\\[|\\]|=|\"|[0-9]|\\.|\n|#| |\\{|\\}|listen|keys|route|tls){0,40}") {
        let _ = read_with(&text, &[]);
    }

    /// A setting of any type in place of the right one is a fault, never a panic.
    #[test]
    fn no_type_makes_the_reader_panic(index in 0usize..200, value in "(1|-1|1\\.5|true|\"\"|\"x\"|\\[\\]|\\[1\\]|\\{\\}|\\{ a = 1 \\}|2020-01-01)") {
        let loaded = good("");
        let paths: Vec<_> = loaded.effective.iter().map(|(path, ..)| path.to_owned()).collect();
        let _ = read_with(&format!("{} = {value}\n", paths[index % paths.len()]), &[]);
    }
}
