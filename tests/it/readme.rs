//! README.md, pasted: what it tells a newcomer to type works as it stands.

use std::{os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use tempfile::TempDir;

use crate::harness::{Answer, Upstream, free_port, run};

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands between this heading and the next.
#[track_caller]
fn section<'t>(readme: &'t str, heading: &str) -> &'t str {
    let section = readme.split("\n## ").find_map(|section| section.strip_prefix(heading)?.strip_prefix('\n'));
    section.unwrap_or_else(|| panic!("README.md has no section {heading:?}"))
}

/// The `sh` blocks of a text, in their order.
fn blocks(text: &str) -> Vec<&str> {
    text.split("```sh\n").skip(1).map(|piece| piece.split("```").next().unwrap()).collect()
}

/// What stands between single backticks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.contains("```")).flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The text with one thing in it replaced; a README that no longer says it fails here, and not by using a real port.
#[track_caller]
fn replace(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "README.md says no {from:?}:\n{text}");
    text.replace(from, to)
}

/// What a reader types later: every command of the table, and every path of the admin port.
fn later(text: &str, admin: u16) -> Vec<String> {
    let typed = |span: &str| {
        let post = span.strip_prefix("POST ");
        if let Some(path) = post.or(Some(span)).filter(|path| path.starts_with('/')) {
            let method = if post.is_some() { "POST" } else { "GET" };
            return Some(format!("curl -sSf -o answer -X {method} 'http://127.0.0.1:{admin}{path}'"));
        }
        let line = span.strip_prefix("keyside ")?.replace(" F", " sidecar/keyside.toml").replace(" ID", " \"$id\"");
        // The request that is explained is one that is refused, which is status 1.
        let ends = if line.starts_with("explain ") && line.contains("--path") { " || test $? -eq 1" } else { "" };
        Some(format!("keyside {line}{ends}"))
    };
    spans(text).filter_map(typed).collect()
}

/// A shell in this folder that is given these lines, with the built program at hand, and a curl that says what status it got.
fn typed(script: &str, folder: &Path) -> Command {
    let curlrc = "noproxy = \"*\"\nwrite-out = \"\\nstatus %{http_code}\\n\"\n";
    std::fs::write(folder.join(".curlrc"), curlrc).unwrap();
    let built = Path::new(env!("CARGO_BIN_EXE_keyside")).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths([built.to_path_buf()].into_iter().chain(std::env::split_paths(&path))).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).current_dir(folder);
    shell.env_clear().env("PATH", path).env("HOME", folder).env("CURL_HOME", folder);
    shell
}

#[tokio::test]
async fn the_four_steps_end_in_a_200_and_what_is_for_later_works() {
    let readme = readme();
    let steps = blocks(section(&readme, "In front of your own API"));
    assert_eq!(steps.len(), 4, "{steps:?}");

    let upstream = Upstream::start().await;
    upstream.on("/", Answer::ok("from your own API"));
    let (port, admin) = (free_port(), free_port());
    let later = later(section(&readme, "Living with it"), admin);
    let commands = later.iter().filter(|line| line.starts_with("keyside ")).count();
    assert!(commands >= 6 && later.len() - commands >= 5, "{later:?}");
    // Only the ports are others than in the text.
    let steps = replace(&steps.concat(), "http://127.0.0.1:3000", upstream.url());
    let steps = replace(&steps, "localhost:8443", &format!("localhost:{port}"));

    let folder = TempDir::with_prefix("keyside-it-").unwrap();
    // What the steps leave running ends with them, if the last line did not end it.
    let script = format!(
        "set -e\ntrap 'kill $! 2> kill.err || :' EXIT\n{steps}\nid=$(jq -r .id key.json)\n\
         jq -r .consumer_secret key.json > leaked.txt\n{}\nkill -TERM $!\nwait $!\necho \"ended with $?\"\n",
        later.join("\n")
    );
    let mut shell = typed(&script, folder.path());
    shell.env("KEYSIDE_LISTEN__ADDRESS", format!("127.0.0.1:{port}"));
    shell.env("KEYSIDE_ADMIN__ADDRESS", format!("127.0.0.1:{admin}")).env("KEYSIDE_SHUTDOWN__DELAY", "0s");
    let ended = run(shell, "").await.done();

    assert!(ended.stdout.contains("from your own API\nstatus 200\n"), "{ended:?}");
    assert!(ended.stdout.ends_with("ended with 0\n"), "{ended:?}");
    let seen = upstream.only();
    assert_eq!((seen.field("x-key-owner"), seen.field("x-key-scopes")), ("accounting".into(), "read".into()));
}

/// The steps of the control plane end in a key that is let through, and in its revocation.
#[cfg(feature = "control")]
#[tokio::test]
async fn the_steps_of_the_control_plane_end_in_a_dead_key() {
    let readme = readme();
    let begin = blocks(section(&readme, "In front of your own API"))[0];
    let steps = blocks(section(&readme, "One control plane, many sidecars"));
    assert_eq!(steps.len(), 4, "{steps:?}");
    let upstream = Upstream::start().await;
    upstream.on("/", Answer::ok("from your own API"));
    let (port, control) = (free_port(), free_port());
    // Only the ports are others than in the text, and who is left running is noted.
    let begin = replace(begin, "http://127.0.0.1:3000", upstream.url());
    let steps = replace(&steps.concat(), "localhost:8443", &format!("localhost:{port}"));
    let steps = replace(&steps, "localhost:8444", &format!("localhost:{control}"));
    let steps = replace(
        &steps,
        "keyside init --control control\n",
        &format!(
            "keyside init --control control\n\
             sed -i 's|127.0.0.1:8444|127.0.0.1:{control}|; s|^#address = .127.0.0.1:9091.|address = \"127.0.0.1:0\"|' control/control.toml\n\
             sed -i 's|127.0.0.1:8443|127.0.0.1:{port}|; s|^#address = .127.0.0.1:9090.|address = \"127.0.0.1:0\"|' sidecar/keyside.toml\n"
        ),
    );
    // A reader takes longer to type than the control plane to start.
    let steps = replace(
        &steps,
        "control.toml &\n",
        &format!(
            "control.toml 2> control.log & pids=\"$pids $!\"\n\
             curl -sS -o answer --retry 20 --retry-connrefused --cacert control/tls/ca.crt https://localhost:{control}/\n"
        ),
    );
    let steps = replace(&steps, "sidecar/keyside.toml &\n", "sidecar/keyside.toml & pids=\"$pids $!\"\n");
    let is_call = |line: &&str| line.starts_with("curl ") && line.contains("shared-key.json");
    let call = steps.lines().map(str::trim).find(is_call).unwrap();
    let script = format!("set -e\npids=\ntrap 'kill $pids 2> kill.err || :' EXIT\n{begin}{steps}{call}\n");

    let folder = TempDir::with_prefix("keyside-it-").unwrap();
    let ended = run(typed(&script, folder.path()), "").await.done();
    let at = |words: &str| ended.stdout.find(words).unwrap_or_else(|| panic!("no {words:?} in {ended:?}"));
    assert!(at("from your own API\nstatus 200\n") < at("status 401\n"), "{ended:?}");
    assert_eq!(upstream.only().field("x-key-owner"), "accounting");
    assert!(ended.stdout.contains(&format!("https://127.0.0.1:{control}/setup?token=")), "{ended:?}");
    let log = std::fs::read_to_string(folder.path().join("control.log")).unwrap();
    assert!(!log.contains("setup?token="), "{log}");
}

#[test]
fn its_two_commands_come_first() {
    let readme = readme();
    let first = readme.split("\n## ").next().unwrap();
    // The first is what `demo` tests, of a build that is not optimised; the second runs this test.
    assert_eq!(blocks(first), ["cargo run --release -- demo\n", "tests/run\n"]);
    assert!(readme.lines().count() < 150, "it is read before anything else: keep it short");
}

/// A folder for `PATH` with what `tests/run` cannot begin without, and these scripts.
fn bare_path(folder: &Path, scripts: &[(&str, &str)]) {
    let path = std::env::var_os("PATH").unwrap();
    for name in ["dirname", "mkdir", "rm", "mv", "cmp"] {
        let program = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file());
        std::os::unix::fs::symlink(program.unwrap_or_else(|| panic!("no {name}")), folder.join(name)).unwrap();
    }
    // Whatever else the machine has, it ends there.
    for (name, script) in scripts.iter().chain(&[("python3", "exit 1"), ("rustup", "exit 1")]) {
        let program = folder.join(name);
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Where it cannot install what it needs, `tests/run` says all that is missing; where it can, it asks for the list of
/// packages once.
#[tokio::test]
async fn its_tests_say_what_is_missing_or_get_it() {
    let apt = ("apt-get", "echo \"$*\" >> \"$CARGO_TARGET_DIR/apt.log\"");
    let rows = [
        ("root without apt", vec![("id", "echo 0")], None),
        ("anybody without apt", vec![("id", "echo 1000")], None),
        ("anybody with apt", vec![("id", "echo 1000"), apt], None),
        ("root with apt", vec![("id", "echo 0"), ("dpkg-deb", ""), apt], Some(1)),
    ];
    for (rule, scripts, updates) in rows {
        let folder = TempDir::with_prefix("keyside-it-").unwrap();
        bare_path(folder.path(), &scripts);
        let mut script = Command::new("/bin/bash");
        script.arg(root().join("tests/run")).env_clear();
        script.env("PATH", folder.path()).env("CARGO_TARGET_DIR", folder.path().join("target"));
        let ended = run(script, "").await;
        assert_ne!(ended.status, 0, "{rule}: there is no Python: {ended:?}");
        let said = ended.stderr.lines().find(|line| line.starts_with("missing: "));
        let log = std::fs::read_to_string(folder.path().join("target/apt.log")).unwrap_or_default();
        let Some(updates) = updates else {
            let said = said.unwrap_or_else(|| panic!("{rule}: {ended:?}"));
            let has_it = Path::new("/usr/share/wordpress/wp-includes/version.php").exists();
            assert_eq!(said.contains(" wordpress "), !has_it && !rule.contains("with apt"), "{rule}: {said}");
            assert!(["gcc", "curl", "jq", "nodejs"].iter().all(|name| said.contains(name)), "{rule}: {said}");
            assert_eq!((ended.stderr.lines().count(), &*log), (1, ""), "{rule}: {ended:?}");
            continue;
        };
        assert!(said.is_none(), "{rule}: {ended:?}");
        assert_eq!(log.lines().filter(|line| line.starts_with("update")).count(), updates, "{rule}: {log}");
        assert!(log.contains("\ninstall ") && log.contains(" gcc "), "{rule}: {log}");
    }
}

/// The headings of a page as links name them. A comment of a script is no heading.
fn anchors(page: &str) -> impl Iterator<Item = String> {
    let prose = page.split("```").step_by(2).flat_map(str::lines);
    let headings =
        prose.filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    headings.map(|heading| {
        let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.map(|letter| if letter == ' ' { '-' } else { letter.to_ascii_lowercase() }).collect()
    })
}

#[test]
fn what_it_points_at_is_there() {
    for name in ["README.md", "src/README.md"] {
        let page = root().join(name);
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{name} points at {link}");
            if let Some(anchor) = anchor {
                let text = std::fs::read_to_string(&target).unwrap();
                assert!(anchors(&text).any(|heading| heading == anchor), "{name} points at {link}");
            }
        }
        for path in spans(&text).filter(|span| span.starts_with("config/") || span.starts_with("tests/")) {
            assert!(root().join(path).exists(), "{name} names {path}");
        }
    }
}
