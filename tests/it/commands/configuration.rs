//! `init`, `check` and `config print`.

use std::os::unix::fs::PermissionsExt as _;

use super::Desk;
use crate::harness::{Ended, H1, Key, Sidecar, Upstream, get, key_file, keyside};

async fn check(desk: &Desk) -> Ended {
    keyside(["check", "--config", desk.path("keyside.toml").to_str().unwrap()]).await
}

const PRESETS: [&str; 5] = ["wallet", "woocommerce", "web3pay", "payment-links", "wontopos"];

#[tokio::test]
async fn init_writes_what_check_accepts() {
    for preset in [None].into_iter().chain(PRESETS.map(Some)) {
        let desk = Desk::new();
        let folder = desk.path("new");
        let mut arguments = vec!["init", folder.to_str().unwrap()];
        if let Some(preset) = preset {
            arguments.extend(["--preset", preset]);
        }
        keyside(arguments.clone()).await.done();
        for name in ["keyside.toml", "keys.toml", "pepper", "tls/tls.crt", "tls/tls.key"] {
            assert!(folder.join(name).is_file(), "{preset:?}: {name}");
        }
        for secret in ["pepper", "tls/tls.key"] {
            let mode = folder.join(secret).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{secret}: {mode:o}");
        }
        let config = folder.join("keyside.toml");
        let checked = keyside(["check", "--config", config.to_str().unwrap()]).await;
        assert_eq!(checked.status, 0, "{preset:?}: {}", checked.stderr);

        // Never over an existing file.
        std::fs::write(&config, "mine").unwrap();
        std::fs::remove_file(folder.join("pepper")).unwrap();
        let again = keyside(arguments).await;
        assert_eq!(again.status, 1, "{preset:?}: {again:?}");
        assert_eq!(std::fs::read_to_string(&config).unwrap(), "mine");
    }
    let desk = Desk::new();
    let unknown = keyside(["init", "--preset", "nothing", desk.path("x").to_str().unwrap()]).await;
    assert_eq!(unknown.status, 2, "{unknown:?}");
}

/// What `init` wrote runs, with no more said than where the upstream is.
#[tokio::test]
async fn what_init_wrote_runs() {
    let upstream = Upstream::start().await;
    let desk = Desk::new();
    keyside(["init", desk.path("").to_str().unwrap()]).await.done();
    let config = desk.path("keyside.toml");
    let config = config.to_str().unwrap();
    let create = [
        "keys",
        "create",
        "--config",
        config,
        "--name",
        "First key",
        "--owner",
        "me",
        "--scope",
        "read",
        "--output",
        "json",
    ];
    let key = keyside(create).await.done().json();
    let read = |name: &str| std::fs::read_to_string(desk.path(name)).unwrap();
    let sidecar = Sidecar::in_front_of(&upstream)
        .config(&read("keyside.toml"))
        .config(&format!(
            "[upstream]\nurl = {:?}\n[listen]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"",
            upstream.url()
        ))
        .file("pepper", read("pepper"))
        .key_file(read("keys.toml"))
        .start()
        .await;
    let request = get("/").basic(key["consumer_key"].as_str().unwrap(), key["consumer_secret"].as_str().unwrap());
    assert_eq!(sidecar.send_again(H1, request).await.status, 200);
}

/// All faults at once, each with file, line, column, the line itself, and what was meant.
#[tokio::test]
async fn check_tells_every_fault_with_its_place() {
    let desk = Desk::new();
    let config = r#"
[listen]
address = "127.0.0.1:0"
plaintext = true
max_body = "ten"
[upstream]
url = "http://127.0.0.1:1"
conect_timeout = "1s"
[keys]
file = "keys.toml"
[limits]
per_ip = ["60/1m", "often"]
[[route]]
path = "no-slash"
[[route]]
path = "/x"
scope = "reed"
"#;
    desk.write("keyside.toml", config);
    let bad = Key::token("bad").with("allow_ips = [\"10.0.0.300\"]");
    desk.write("keys.toml", &key_file([&bad]));
    let ended = check(&desk).await;
    assert_eq!(ended.status, 78, "{}", ended.stderr);
    let said = &ended.stderr;
    let file = desk.path("keyside.toml").display().to_string();
    for (line, words) in [
        (5, "max_body = \"ten\""),
        (8, "conect_timeout = \"1s\""),
        (12, "per_ip = [\"60/1m\", \"often\"]"),
        (14, "path = \"no-slash\""),
        (17, "scope = \"reed\""),
    ] {
        assert!(said.contains(&format!("{file}:{line}:")), "line {line}:\n{said}");
        assert!(said.contains(words), "{words}:\n{said}");
    }
    assert!(said.contains("connect_timeout"), "a suggestion:\n{said}");
    assert!(said.contains("keys.toml:") && said.contains("10.0.0.300"), "{said}");
    // For programs, the same as one value.
    let json = keyside(["check", "--output", "json", "--config", desk.path("keyside.toml").to_str().unwrap()]).await;
    assert_eq!(json.status, 78);
    assert!(json.json().to_string().contains("conect_timeout"), "{}", json.stdout);
    // What does not check does not start, for the same reasons.
    let started = keyside(["proxy", "--config", desk.path("keyside.toml").to_str().unwrap()]).await;
    assert_eq!(started.status, 78);
    assert!(started.stderr.contains("conect_timeout") && started.stderr.contains("per_ip"), "{}", started.stderr);
}

/// A file that the configuration names is part of it.
#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_a_wrong_configuration() {
    let desk = Desk::new();
    let made = keyside(["init", desk.path("").to_str().unwrap()]).await;
    assert_eq!(made.status, 0, "{}", made.stderr);
    std::fs::remove_file(desk.path("tls/tls.key")).unwrap();
    let started = keyside(["proxy", "--config", desk.path("keyside.toml").to_str().unwrap()]).await;
    assert_eq!(started.status, 78, "{}", started.stderr);
    assert!(started.stderr.contains("tls.key"), "{}", started.stderr);
}

/// What can never take effect, and what will surprise, is a warning and no fault.
#[tokio::test]
async fn check_warns_of_what_surprises() {
    let desk = Desk::new();
    let config = r#"
[listen]
address = "0.0.0.0:8443"
plaintext = true
[upstream]
url = "http://127.0.0.1:1"
[keys]
file = "keys.toml"
[limits]
per_ip = ["60/1m"]
per_key = ["600/1m", "1000/1m"]
[[route]]
path = "/**"
scope = "things:read"
[[route]]
path = "/never"
"#;
    desk.write("keyside.toml", config);
    let key = Key::token("key").scopes(["orders:read"]);
    desk.write("keys.toml", &key_file([&key]));
    let ended = check(&desk).await;
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    for words in ["trusted_prox", "orders:read", "acme", "/never"] {
        assert!(ended.stderr.contains(words), "{words}:\n{}", ended.stderr);
    }
    assert!(ended.stderr.contains("warning"), "{}", ended.stderr);
}

/// What this build does not have is an error, never ignored.
#[tokio::test]
async fn what_is_not_in_this_build_is_an_error() {
    let desk = Desk::new();
    let base = "[listen]\nplaintext = true\n[upstream]\nurl = \"http://127.0.0.1:1\"\n";
    desk.write("keyside.toml", &format!("{base}[limits]\nshared = \"redis://127.0.0.1\"\n"));
    let ended = check(&desk).await;
    assert_eq!(ended.status, 78, "{}", ended.stderr);
    assert!(ended.stderr.contains("not in this build"), "{}", ended.stderr);
}

/// A check asks nobody; commands on keys say where the keys are.
#[tokio::test]
async fn keys_of_a_control_plane_are_not_looked_for_in_a_file() {
    let desk = Desk::new();
    desk.write("token", "t0ken\n");
    let base = "[listen]\naddress = \"127.0.0.1:0\"\nplaintext = true\n[upstream]\nurl = \"http://127.0.0.1:1\"\n";
    let control = "[keys.control]\nurl = \"https://control.invalid:8444\"\ntoken = { file = \"token\" }\n";
    let path = desk.write("keyside.toml", &format!("{base}{control}"));
    let ended = check(&desk).await;
    assert_eq!(ended.status, 0, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("keys come from https://control.invalid:8444, which was not asked"),
        "{}",
        ended.stderr
    );
    let config = path.to_str().unwrap();
    for words in [&["keys", "list", "--config", config][..], &["owners", "list", "--config", config]] {
        let ended = keyside(words).await;
        assert_eq!(ended.status, 1, "{words:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("use --control https://control.invalid:8444"), "{words:?}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn config_print_shows_the_default_and_what_is_in_force() {
    let printed = keyside(["config", "print", "--default"]).await.done().stdout;
    assert!(printed.contains('#') && printed.contains("[listen]") && printed.contains("[limits]"), "{printed}");
    printed.parse::<toml::Table>().expect("TOML");

    let desk = Desk::new();
    desk.write("secret", "Bearer s3cr3t-of-the-upstream");
    desk.write("keys.toml", &key_file([]));
    let config = "preset = \"wallet\"\n[listen]\nplaintext = true\n[upstream]\nurl = \"http://127.0.0.1:1\"\nauthorization = { file = \"secret\" }\n[keys]\nfile = \"keys.toml\"\n";
    let path = desk.write("keyside.toml", config);
    let ended = keyside(["config", "print", "--effective", "--config", path.to_str().unwrap()]).await.done();
    for words in ["preset", "127.0.0.1:1", "keyside.toml", "default"] {
        assert!(ended.stdout.contains(words), "{words}:\n{}", ended.stdout);
    }
    assert!(!ended.stdout.contains("s3cr3t"), "{}", ended.stdout);
}
