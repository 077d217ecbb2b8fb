//! What `init` tells a newcomer to do, done.

use std::{path::Path, process::Command};

use tempfile::TempDir;

use crate::harness::{Ended, Upstream, executable, run};

/// Runs `init` with a preset, then each step that it printed, and calls this target. Gives what the call printed.
pub(super) async fn follow(preset: &str, target: &str, upstream: &Upstream) -> Ended {
    let home = TempDir::with_prefix("keyside-it-").unwrap();
    let mut init = executable();
    init.args(["init", "--preset", preset, "--host", "own.example", "shop"]).current_dir(home.path());
    let printed = run(init, "").await.done().stderr;
    let step = |number: usize| {
        let mark = format!("  {number}. ");
        let line = printed.lines().find_map(|line| line.strip_prefix(&mark));
        line.unwrap_or_else(|| panic!("no step {number}: {printed}")).to_owned()
    };

    assert!(step(1).contains("[upstream] url"), "{printed}");
    let config = home.path().join("shop/keyside.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let told = text.replace("url = \"http://127.0.0.1:8080\"", &format!("url = {:?}", upstream.url()));
    assert_ne!(told, text, "{text}");
    std::fs::write(&config, told).unwrap();

    // Only the port is another one, and the key is the one that was printed. Nothing is left to warn of.
    let [own, create, check, proxy, call] = [2, 3, 4, 5, 6].map(step);
    // Start with read, the documents say; a permission to create does that, too.
    assert!(["read", ":create"].iter().any(|scope| create.ends_with(scope)), "{create}");
    let call = replace(&replace(&call, "localhost:8443", "localhost:$port"), "/…", target);
    let call = if call.contains("ck_…:cs_…") {
        replace(&call, "ck_…:cs_…", "\"$key:$secret\"")
    } else {
        // Within single quotes, which end for it.
        replace(&call, "…", "'\"$token\"'")
    };
    let script = format!(
        "set -e
        {own}
        {create} > key
        key=$(awk '/^consumer_key/ {{ print $2 }}' key) secret=$(awk '/^consumer_secret/ {{ print $2 }}' key)
        token=$(awk '/^token/ {{ print $2 }}' key)
        {check} 2> checked || {{ cat checked; exit 1; }}
        grep -q 'no warnings' checked || {{ cat checked; exit 1; }}
        {proxy} > access 2> log &
        trap 'kill $!; wait $!' EXIT
        until grep -q '\"message\":\"listening\"' log; do kill -0 $!; sleep 0.1; done
        port=$(sed -n 's/.*listener.addresses[^0-9]*127.0.0.1:\\([0-9]*\\).*/\\1/p' log)
        {call} -sS --max-time 20 --retry 10 --retry-delay 0 --noproxy '*' -w '\\n%{{http_code}}'
        # The certificate is for the name that was asked for, too.
        curl --cacert shop/tls/ca.crt --resolve own.example:$port:127.0.0.1 -sS --max-time 20 --noproxy '*' -o other \\
            https://own.example:$port/\n",
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(home.path()).env_clear().env("PATH", path());
    shell.env("KEYSIDE_LISTEN__ADDRESS", "127.0.0.1:0").env("KEYSIDE_ADMIN__ADDRESS", "127.0.0.1:0");
    run(shell, "").await
}

#[track_caller]
fn replace(step: &str, from: &str, to: &str) -> String {
    assert!(step.contains(from), "no {from:?} in {step:?}");
    step.replace(from, to)
}

/// Where the shell finds `keyside`.
fn path() -> std::ffi::OsString {
    let built = Path::new(env!("CARGO_BIN_EXE_keyside")).parent().unwrap().to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths([built].into_iter().chain(std::env::split_paths(&path))).unwrap()
}
