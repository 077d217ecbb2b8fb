//! A sidecar with a preset, the commands on its key file, and clients that others wrote.

use std::{path::PathBuf, process::Command};

use serde_json::Value;

use crate::harness::{Builder, Ended, H1, Received, Request, Sidecar, Upstream, keyside, run};

/// A sidecar whose keys are minted by the command.
pub(super) struct Service {
    pub(super) sidecar: Sidecar,
}

/// A key as `keys create` printed it, this once.
#[derive(Clone, Debug)]
pub(super) struct Minted {
    pub(super) id: String,
    pub(super) prefix: String,
    pub(super) token: String,
    /// All of what was printed.
    pub(super) printed: Value,
}

impl Minted {
    pub(super) fn of(printed: Value) -> Self {
        let text = |name: &str| printed[name].as_str().unwrap_or_else(|| panic!("no {name}: {printed}")).to_owned();
        Self { id: text("id"), prefix: text("prefix"), token: text("token"), printed }
    }
}

impl Service {
    /// A preset as it is shipped, in front of this upstream. Of the configuration only places are the test's own.
    pub(super) async fn shipped(preset: &str, upstream: &Upstream) -> Self {
        Self::of(Self::builder(preset, upstream)).await
    }

    /// A preset with this laid over it. Hashes are quick, for tests that are about other things.
    pub(super) async fn with(preset: &str, upstream: &Upstream, config: &str) -> Self {
        let quick = "[keys]\npepper = { file = \"pepper\" }\n[keys.mint]\nhash = \"hmac-sha256\"\n";
        let builder = Self::builder(preset, upstream).config(quick).file("pepper", "a pepper that is long enough");
        Self::of(builder.config(config)).await
    }

    fn builder(preset: &str, upstream: &Upstream) -> Builder {
        Sidecar::in_front_of(upstream).config(&format!("preset = {preset:?}")).keys([])
    }

    pub(super) async fn of(builder: Builder) -> Self {
        Self { sidecar: builder.start().await }
    }

    pub(super) fn config(&self) -> String {
        self.sidecar.path("keyside.toml").to_str().unwrap().to_owned()
    }

    /// The key file.
    pub(super) fn key_file(&self) -> String {
        std::fs::read_to_string(self.sidecar.path("keys.toml")).unwrap()
    }

    /// Runs a command with its configuration.
    pub(super) async fn run(&self, arguments: &[&str]) -> Ended {
        keyside([arguments, &["--config", &self.config()]].concat()).await
    }

    /// Runs a command that prints one JSON value.
    pub(super) async fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[arguments, &["--output", "json"]].concat()).await.done().json()
    }

    /// Runs a command that changes the key file, and waits until the sidecar has the change.
    pub(super) async fn change(&self, arguments: &[&str]) -> Ended {
        let before = self.reloads().await;
        let ended = self.run(arguments).await.done();
        self.reloaded_since(before).await;
        ended
    }

    /// Puts another key file in the place of its own, and waits until the sidecar has it.
    pub(super) async fn replace(&self, keys: impl AsRef<[u8]>) {
        let before = self.reloads().await;
        self.sidecar.replace("keys.toml", keys);
        self.reloaded_since(before).await;
    }

    async fn reloads(&self) -> f64 {
        self.sidecar.metrics().await.value("keyside_reloads_total", &[("what", "keys"), ("result", "ok")])
    }

    async fn reloaded_since(&self, before: f64) {
        let reloads = [("what", "keys"), ("result", "ok")];
        self.sidecar.measures("keyside_reloads_total", &reloads, move |count| count > before).await;
    }

    /// Mints a key of the owner `acme`; the mode may be empty. It is in force on return.
    pub(super) async fn create(&self, mode: &str, scopes: &str) -> Minted {
        let name = format!("{mode} {scopes}");
        let mode: &[&str] = if mode.is_empty() { &[] } else { &["--mode", mode] };
        self.create_as(&name, &[&["--owner", "acme", "--scope", scopes], mode].concat()).await
    }

    /// Mints a token by this name. It is in force on return.
    pub(super) async fn create_as(&self, name: &str, more: &[&str]) -> Minted {
        let create = ["keys", "create", "--output", "json", "--name", name];
        Minted::of(self.change(&[&create, more].concat()).await.json())
    }

    /// Sends a request, again where a busy machine had no time for a slow hash.
    pub(super) async fn ask(&self, request: Request) -> Received {
        self.sidecar.send_again(H1, request).await
    }

    /// Asks `explain` about a request: its verdict, as [`told`] has the sidecar's.
    pub(super) async fn explained(&self, key: &Minted, host: &str, method: &str, path: &str) -> String {
        let request = ["--method", method, "--path", path, "--ip", "127.0.0.1", "--host", host];
        let explain = ["explain", "--output", "json", "--key", &key.id];
        let ended = self.run(&[&explain[..], &request].concat()).await;
        let said = ended.json();
        let allowed = said["verdict"] == "allowed";
        assert_eq!(ended.status, i32::from(!allowed), "{ended:?}");
        assert!(!ended.stdout.contains(&key.token), "{ended:?}");
        if allowed { "200".into() } else { format!("{} {}", said["status"], said["code"].as_str().unwrap()) }
    }

    /// A file with the authority that its certificate is of.
    pub(super) fn ca(&self) -> PathBuf {
        let ca = self.sidecar.path("ca.crt");
        std::fs::write(&ca, self.sidecar.authority.pem()).unwrap();
        ca
    }

    /// A path at its port, by a name of this machine: for clients that cannot be told where a host is.
    pub(super) fn local(&self, name: &str, path: &str) -> String {
        format!("https://{name}:{}{path}", self.sidecar.address().port())
    }

    /// Runs the lines of a document in a shell, as they stand there: `curl` trusts the sidecar's certificate, finds
    /// these hosts at the sidecar's port, and prints the status last.
    pub(super) async fn shell(&self, hosts: &[&str], lines: &str) -> Ended {
        let ca = self.ca();
        let address = self.sidecar.address();
        let hosts: String = hosts.iter().map(|host| format!("connect-to = \"{host}:443:{address}\"\n")).collect();
        let settings =
            format!("silent\nshow-error\nnoproxy = \"*\"\nwrite-out = \"\\n%{{http_code}}\"\ncacert = {ca:?}\n{hosts}");
        std::fs::write(self.sidecar.path(".curlrc"), settings).unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", lines]).env("CURL_HOME", self.sidecar.path(""));
        run(shell, "").await
    }
}

/// What an answer is about, in short: the status, and the code of a refusal in whatever shape it has.
pub(super) fn told(answer: &Received) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = body["code"].as_str().or_else(|| body["error"]["code"].as_str()).unwrap_or_default();
    format!("{} {code}", answer.status).trim_end().to_owned()
}

/// How a test presents a token.
pub(super) type Present = fn(Request, &str) -> Request;
