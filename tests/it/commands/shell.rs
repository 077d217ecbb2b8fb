//! Help, completions, the manual page, and how wrong command lines end.

use super::Desk;
use crate::harness::{Key, executable, key_file, keyside};

#[tokio::test]
async fn help_and_version_are_there() {
    let version = keyside(["--version"]).await.done().stdout;
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let help = keyside(["--help"]).await.done().stdout;
    for command in
        ["demo", "init", "check", "proxy", "keys", "owners", "explain", "health", "config", "completions", "man"]
    {
        assert!(help.contains(&format!("\n  {command} ")), "{command}:\n{help}");
        keyside([command, "--help"]).await.done();
    }
}

#[tokio::test]
async fn completions_and_manual_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let script = keyside(["completions", shell]).await.done().stdout;
        assert!(script.contains("keyside") && script.contains("revoke"), "{shell}");
    }
    let page = keyside(["man"]).await.done().stdout;
    for words in [".TH", "keyside", "SIGTERM", "78", "insufficient_scope"] {
        assert!(page.contains(words), "{words}");
    }
}

#[tokio::test]
async fn a_wrong_command_line_ends_with_2() {
    for line in [
        &["nothing"][..],
        &["proxy", "--port", "1"],
        &["demo", "--port", "many"],
        &["completions", "cmd"],
        &["health", "--live", "--ready"],
        &[],
    ] {
        let ended = keyside(line.iter().copied()).await;
        assert_eq!(ended.status, 2, "{line:?}: {ended:?}");
        assert!(!ended.stderr.is_empty(), "{line:?}");
    }
}

/// A configuration that is not there is said with its name.
#[tokio::test]
async fn a_missing_configuration_is_named() {
    for command in ["proxy", "check"] {
        let ended = keyside([command, "--config", "/nonexistent/keyside.toml"]).await;
        assert!([1, 78].contains(&ended.status), "{command}: {ended:?}");
        assert!(ended.stderr.contains("/nonexistent/keyside.toml"), "{command}: {ended:?}");
    }
}

/// A reader that has seen enough, as `| head` has, is no failure; but a secret that nobody has seen is one.
#[test]
fn a_closed_output_is_no_failure() {
    let desk = Desk::new();
    desk.write("keyside.toml", "[listen]\nplaintext = true\n");
    desk.write("keys.toml", &key_file([&Key::pair("one"), &Key::pair("two")]));
    let config = desk.path("keyside.toml");
    let run = |line: &str| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let line = line.split(' ').chain(["--config", config.to_str().unwrap()]);
        let ended = executable().args(line).stdin(std::process::Stdio::null()).stdout(writer).output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    for line in [
        "keys list",
        "keys list --output json",
        "keys show key_one",
        "owners list --output json",
        "explain --key key_one",
        "check --output json",
        "config print",
        "keys revoke key_one --output json",
    ] {
        let (status, said) = run(line);
        assert_eq!(status, Some(0), "{line}: {said}");
        assert!(!said.contains("error") && !said.contains("panicked"), "{line}: {said}");
    }
    for line in ["keys create --name three --owner acme --scope read", "keys rotate key_two"] {
        let (status, said) = run(line);
        assert_eq!(status, Some(1), "{line}: {said}");
        assert!(said.contains("nobody has seen the secret of key"), "{line}: {said}");
    }
}

/// A folder stands for the configuration in it; and who names neither a file nor a configuration is told of both.
#[tokio::test]
async fn a_folder_is_its_configuration() {
    let desk = Desk::new();
    let folder = desk.path("sidecar");
    let folder = folder.to_str().unwrap();
    keyside(["init", folder]).await.done();
    let create = "keys create --name one --owner acme --scope read";
    for line in ["check", "config print --effective", "owners create acme", create, "keys list", "explain --key one"] {
        keyside(line.split(' ').chain(["--config", folder])).await.done();
    }
    let listed = keyside(["keys", "list", "--config", &format!("{folder}/keyside.toml"), "--output", "json"]).await;
    assert_eq!(listed.done().json()[0]["name"], "one");
    // What is refused is the file in the folder.
    std::fs::write(format!("{folder}/keyside.toml"), "nonsense = 1\n").unwrap();
    for command in ["proxy", "check", "health"] {
        let ended = keyside([command, "--config", folder]).await;
        assert_eq!(ended.status, 78, "{command}: {ended:?}");
        assert!(ended.stderr.contains("sidecar/keyside.toml:1:1: unknown field"), "{command}: {ended:?}");
    }
    for line in ["keys list", "keys show one", "owners list"] {
        let ended = keyside(line.split(' ')).await;
        assert_eq!(ended.status, 2, "{line}: {ended:?}");
        assert!(ended.stderr.contains("--file") && ended.stderr.contains("--config"), "{line}: {}", ended.stderr);
    }
}
