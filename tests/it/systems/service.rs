//! A key system at work: a sidecar with a preset, the commands on its key file as people use them, and clients that
//! others wrote.

use std::{ops::Deref, path::PathBuf, process::Command};

use keyside::sync::state::{StateFolder, digest_of};
use serde_json::Value;

use crate::harness::{Builder, Ended, H1, Received, Request, Sidecar, Upstream, eventually, keyside, run};

/// The pepper of keys that are verified quickly; what is kept of a secret is a matter of tests of its own.
const QUICK: &str = "[keys]\npepper = { file = \"pepper\" }\n[keys.mint]\nhash = \"hmac-sha256\"\n";

/// A sidecar whose keys are minted by the command.
pub(super) struct Service {
    pub(super) sidecar: Sidecar,
}

/// A key as `keys create` printed it, this once.
#[derive(Clone, Debug)]
pub(super) struct Minted {
    pub(super) id: String,
    /// A pair's consumer key, a token's shown prefix.
    pub(super) prefix: String,
    /// A pair's consumer secret, or the whole token.
    pub(super) secret: String,
    /// All of what was printed.
    pub(super) printed: Value,
    /// What was said beside it.
    pub(super) said: String,
}

impl Minted {
    #[track_caller]
    pub(super) fn of(ended: Ended) -> Self {
        let printed = ended.json();
        let text = |name: &str| printed[name].as_str().unwrap_or_else(|| panic!("no {name}: {printed}")).to_owned();
        let secret = if printed["kind"] == "pair" { "consumer_secret" } else { "token" };
        Self { id: text("id"), prefix: text("prefix"), secret: text(secret), said: ended.stderr, printed }
    }

    /// The request with this pair by Basic.
    pub(super) fn on(&self, request: Request) -> Request {
        request.basic(&self.prefix, &self.secret)
    }

    /// This pair as `curl -u` takes it.
    pub(super) fn user(&self) -> String {
        format!("{}:{}", self.prefix, self.secret)
    }
}

impl Service {
    /// A preset as it is shipped, in front of this upstream. Of the configuration only places are the test's own.
    pub(super) async fn shipped(preset: &str, upstream: &Upstream) -> Self {
        Self::of(Self::builder(preset, upstream)).await
    }

    /// A preset with this laid over it. Hashes are quick, for tests that are about other things.
    pub(super) async fn with(preset: &str, upstream: &Upstream, config: &str) -> Self {
        Self::of(Self::quick(preset, upstream).config(config)).await
    }

    /// As a builder, so that more can be laid in its folder.
    pub(super) fn quick(preset: &str, upstream: &Upstream) -> Builder {
        Self::builder(preset, upstream).config(QUICK).file("pepper", "a pepper that is long enough")
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
        let ended = self.run(arguments).await.done();
        self.in_force().await;
        ended
    }

    /// Puts another key file in the place of its own, and waits until the sidecar has it.
    pub(super) async fn replace(&self, keys: impl AsRef<[u8]>) {
        self.sidecar.replace("keys.toml", keys);
        self.in_force().await;
    }

    /// Waits until the sidecar says that the key file is in force as it is now.
    async fn in_force(&self) {
        let state = StateFolder::new(self.sidecar.path("state"));
        eventually("the key file in force", async || match state.in_force() {
            Ok(Some(in_force)) if in_force.digest == digest_of(self.key_file().as_bytes()) => Ok(()),
            other => Err(other),
        })
        .await;
    }

    /// What `keys list` says.
    pub(super) async fn keys(&self) -> Vec<Value> {
        self.json(&["keys", "list"]).await.as_array().unwrap().clone()
    }

    /// What becomes of a request, in the end: a change of keys takes effect within a second.
    pub(super) async fn becomes(&self, expected: &str, request: impl Fn() -> Request) -> Received {
        eventually(expected, async || {
            let answer = self.sidecar.ask(request()).await;
            if answer.brief() == expected { Ok(answer) } else { Err(answer) }
        })
        .await
    }

    /// The access log's line of an answer.
    pub(super) async fn line(&self, answer: &Received) -> Value {
        self.sidecar.logged(answer.field("x-request-id")).await
    }

    /// Mints a key of the owner `acme`; the mode may be empty. It is in force on return.
    pub(super) async fn create(&self, mode: &str, scopes: &str) -> Minted {
        let name = format!("{mode} {scopes}");
        let mode: &[&str] = if mode.is_empty() { &[] } else { &["--mode", mode] };
        self.create_as(&name, &[&["--owner", "acme", "--scope", scopes], mode].concat()).await
    }

    /// Mints a key by this name. It is in force on return.
    pub(super) async fn create_as(&self, name: &str, more: &[&str]) -> Minted {
        let create = ["keys", "create", "--output", "json", "--name", name];
        Minted::of(self.change(&[&create, more].concat()).await)
    }

    /// Sends a request, again where a busy machine had no time for a slow hash.
    pub(super) async fn ask(&self, request: Request) -> Received {
        self.sidecar.send_again(H1, request).await
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

/// A service with an upstream of its own, for keys that are pairs.
pub(super) struct System {
    pub(super) upstream: Upstream,
    pub(super) service: Service,
}

impl Deref for System {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

impl System {
    /// The preset with its limits, and more settings laid over it. No keys yet.
    pub(super) async fn start(preset: &str, more: &str) -> Self {
        let upstream = Upstream::start().await;
        Self { service: Service::with(preset, &upstream, more).await, upstream }
    }

    /// The same without limits on addresses, for tables with more rows than an address may send.
    pub(super) async fn unlimited(preset: &str, more: &str) -> Self {
        Self::start(preset, &format!("{more}\n[limits]\nper_ip = []\nfailures_per_ip = []\n")).await
    }

    /// Makes an owner.
    pub(super) async fn owner(&self, id: &str, more: &[&str]) {
        self.change(&[&["owners", "create", id][..], more].concat()).await;
    }

    /// Mints a pair. It is in force on return.
    pub(super) async fn mint(&self, name: &str, owner: &str, scope: &str, more: &[&str]) -> Minted {
        self.create_as(name, &[&["--owner", owner, "--scope", scope], more].concat()).await
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
