//! README.md, pasted: what it tells a newcomer to type works as it stands.

use std::{net::TcpListener, path::Path, process::Command};

use tempfile::TempDir;

use crate::harness::{Answer, Upstream, run};

/// The `sh` blocks under this heading, in their order.
fn blocks(heading: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let section = readme.split("\n## ").find_map(|section| section.strip_prefix(heading));
    let section = section.unwrap_or_else(|| panic!("README.md has no section {heading:?}"));
    let pieces = section.split("```sh\n").skip(1);
    pieces.map(|piece| piece.split("```").next().unwrap().to_owned()).collect()
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The text with one thing in it replaced; a README that no longer says it fails here, and not by using a real port.
#[track_caller]
fn replace(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "README.md says no {from:?}:\n{text}");
    text.replace(from, to)
}

#[tokio::test]
async fn the_four_steps_end_in_a_200() {
    let steps = blocks("In front of your own API\n");
    assert_eq!(steps.len(), 4, "{steps:?}");

    let upstream = Upstream::start().await;
    upstream.on("/", Answer::ok("from your own API"));
    let port = free_port();
    // Only the ports are others than in the text.
    let steps = replace(&steps.concat(), "http://127.0.0.1:3000", upstream.url());
    let steps = replace(&steps, "localhost:8443", &format!("localhost:{port}"));

    let folder = TempDir::with_prefix("keyside-it-").unwrap();
    std::fs::write(folder.path().join(".curlrc"), "noproxy = \"*\"\nwrite-out = \"\\nstatus %{http_code}\\n\"\n")
        .unwrap();
    let built = Path::new(env!("CARGO_BIN_EXE_keyside")).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths([built.to_path_buf()].into_iter().chain(std::env::split_paths(&path))).unwrap();

    let mut shell = Command::new("sh");
    // What the steps leave running ends with them.
    shell.args(["-c", &format!("set -e\ntrap 'kill $!' EXIT\n{steps}")]).current_dir(folder.path());
    shell.env_clear().env("PATH", path).env("HOME", folder.path()).env("CURL_HOME", folder.path());
    shell.env("KEYSIDE_LISTEN__ADDRESS", format!("127.0.0.1:{port}")).env("KEYSIDE_ADMIN__ADDRESS", "127.0.0.1:0");
    shell.env("KEYSIDE_SHUTDOWN__DELAY", "0s");
    let ended = run(shell, "").await.done();

    assert!(ended.stdout.contains("from your own API\nstatus 200\n"), "{ended:?}");
    let seen = upstream.only();
    assert_eq!((seen.field("x-key-owner"), seen.field("x-key-scopes")), ("accounting".into(), "read".into()));
}
