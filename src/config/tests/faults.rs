//! Where faults are said to be, and that none is missed.

use super::*;

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
    // Of several tables that have such a field, the nearest.
    check(
        "[upstream]\ntest = \"http://127.0.0.1:1\"\n",
        &["2:1 unknown field `test` in `upstream` (`test` belongs in [upstream.modes])"],
    );
    check("[keys]\ntest = \"x\"\n", &["2:1 unknown field `test` in `keys` (`test` belongs in [keys.mint.token])"]);
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
fn what_is_not_in_this_build_says_so() {
    check("[limits]\nshared = \"redis://a\"\n", &["2:1 `limits.shared` is not in this build"]);
    check("[owner_headers.assertion]\nheader = \"X-A\"\n", &["1:16 `owner_headers.assertion` is not in this build"]);
}

#[test]
fn keys_come_from_one_place() {
    let both = "keys come from a file or from a control endpoint, not from both (take out `file` or `control`)";
    check(
        "[keys]\nfile = \"keys.toml\"\ncontrol = { url = \"https://c\" }\n",
        &[&format!("3:1 `keys.control`: {both}")],
    );
    check(
        "[keys]\ncontrol = { url = \"http://control:8444\" }\n",
        &["2:19 `keys.control.url`: tokens and keys would go in clear: use https, or http to a loopback address"],
    );
    check(
        "[keys.control]\nca = \"ca.crt\"\n",
        &["1:7 `keys.control`: its `url` is missing: where the control endpoint is"],
    );
    check(
        "[keys.control]\nurl = \"https://c\"\ncertificate = \"a.crt\"\n",
        &["1:7 `keys.control.private_key`: is missing: the certificate needs it"],
    );
    check(
        "[keys.control]\nurl = \"http://127.0.0.1:1\"\nca = \"ca.crt\"\n",
        &["3:6 `keys.control.ca`: has no meaning without TLS: the url is http"],
    );
    check(
        "[keys.control]\nurl = \"https://c\"\ninstance = \"a b\"\n",
        &["3:12 `keys.control.instance`: expected 1 to 64 letters, digits, \"_\", \"-\" and \".\""],
    );
    check(
        "[keys.control]\nurl = \"https://c\"\ntokn = 1\n",
        &["3:1 unknown field `tokn` in `keys.control` (did you mean `token`?)"],
    );
}

#[test]
fn secrets_are_never_inline() {
    for (text, variable) in [
        ("[upstream]\nauthorization = \"Bearer SECRET\"\n", ("X", "")),
        ("[keys]\npepper = \"SECRET-SECRET-SECRET\"\n", ("X", "")),
        ("[keys]\npepper = { value = \"SECRET\" }\n", ("X", "")),
        ("[keys.control]\nurl = \"https://c\"\ntoken = \"SECRET\"\n", ("X", "")),
        ("[keys.control]\nurl = \"https://user:SECRET@c\"\n", ("X", "")),
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
