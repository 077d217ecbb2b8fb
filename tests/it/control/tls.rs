//! The control plane as `init --control` makes it: over TLS, and HTTP/2 as browsers speak it.

use std::process::Command;

use tempfile::TempDir;

use crate::harness::{free_port, run};

/// A browser names the host in `:authority` and sends `Origin` with a form: that is its own page.
#[tokio::test]
async fn the_first_operator_signs_in_over_http_2() {
    let folder = TempDir::with_prefix("keyside-it-").unwrap();
    let port = free_port();
    let script = format!(
        r#"
        set -e
        pids=
        trap 'kill $pids 2> kill.err || :' EXIT
        {keyside} init --control .
        sed -i 's|127.0.0.1:8444|127.0.0.1:{port}|; s|^#address = "127.0.0.1:9091"|address = "127.0.0.1:0"|' control.toml
        {keyside} control --config control.toml > control.out & pids=$!
        call() {{ curl -sS --noproxy '*' --http2 --cacert tls/ca.crt -b jar -c jar "$@"; }}
        call -o /dev/null --retry 20 --retry-connrefused https://localhost:{port}/
        token=$(sed -n 's/.*setup?token=//p' control.out)
        csrf() {{ grep -o 'name="csrf" value="[^"]*"' "$1" | head -n 1 | cut -d '"' -f 4; }}
        call "https://localhost:{port}/setup?token=$token" > page
        post() {{ call -o answer -w '%{{http_version}} %{{http_code}}\n' "$@"; }}
        form() {{ post -H "Origin: $1" -H "Sec-Fetch-Site: $2" --data-urlencode "csrf=$(csrf page)" \
          --data-urlencode "token=$token" --data-urlencode name=root --data-urlencode 'password=correct horse battery' \
          --data-urlencode 'again=correct horse battery' https://localhost:{port}/setup; }}
        form https://elsewhere.example cross-site
        form https://localhost:{port} same-origin
        post https://localhost:{port}/keys
        "#,
        keyside = env!("CARGO_BIN_EXE_keyside"),
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).current_dir(folder.path());
    let ended = run(shell, "").await.done();
    let statuses: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(statuses, ["2 403", "2 303", "2 200"], "{ended:?}");
}
