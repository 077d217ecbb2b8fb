//! A key system at work: a preset in front of an upstream, with owners and keys that commands made, as people make them.

use serde_json::Value;

use crate::harness::{Ended, Key, Received, Request, Sidecar, Upstream, eventually, key_file, keyside};

/// The pepper of keys that are verified quickly; what is kept of a secret is a matter of tests of its own.
pub(super) const QUICK: &str = "[keys]\npepper = { file = \"pepper\" }\n[keys.mint]\nhash = \"hmac-sha256\"\n";

/// A sidecar with a preset, and what stands behind it.
pub(super) struct System {
    pub(super) upstream: Upstream,
    pub(super) sidecar: Sidecar,
}

/// A pair as `keys create` printed it.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) id: String,
    pub(super) key: String,
    pub(super) secret: String,
    /// All that was printed, on both outputs.
    pub(super) printed: Ended,
}

impl Pair {
    #[track_caller]
    pub(super) fn of(printed: Ended) -> Self {
        let row = printed.json();
        let text = |field: &str| row[field].as_str().unwrap_or_else(|| panic!("no {field}: {printed:?}")).to_owned();
        Self { id: text("id"), key: text("consumer_key"), secret: text("consumer_secret"), printed: printed.clone() }
    }

    /// The request with this pair by Basic.
    pub(super) fn on(&self, request: Request) -> Request {
        request.basic(&self.key, &self.secret)
    }

    /// As `curl -u` takes it.
    pub(super) fn user(&self) -> String {
        format!("{}:{}", self.key, self.secret)
    }
}

impl System {
    /// The preset with its limits, and more settings laid over it. No keys yet.
    pub(super) async fn start(preset: &str, more: &str) -> Self {
        let upstream = Upstream::start().await;
        let sidecar = Sidecar::in_front_of(&upstream)
            .config(&format!("preset = {preset:?}\n{QUICK}"))
            .config(more)
            .file("pepper", "a pepper of some length, made by a machine")
            .key_file(key_file([]))
            .ready_or_not()
            .start()
            .await;
        Self { upstream, sidecar }
    }

    /// The same without limits on addresses, for tables with more rows than an address may send.
    pub(super) async fn unlimited(preset: &str, more: &str) -> Self {
        let system = format!("{more}\n[limits]\nper_ip = []\nfailures_per_ip = []\n");
        Self::start(preset, &system).await
    }

    /// Runs a command with `--config`.
    pub(super) async fn command(&self, arguments: &[&str]) -> Ended {
        let config = self.sidecar.path("keyside.toml");
        keyside(arguments.iter().copied().chain(["--config", config.to_str().unwrap()])).await
    }

    /// Makes an owner.
    pub(super) async fn owner(&self, id: &str, more: &[&str]) {
        self.command(&[&["owners", "create", id][..], more].concat()).await.done();
    }

    /// Mints a pair, and waits until it is accepted.
    pub(super) async fn mint(&self, name: &str, owner: &str, scope: &str, more: &[&str]) -> Pair {
        let create = ["keys", "create", "--name", name, "--owner", owner, "--scope", scope, "--output", "json"];
        let pair = Pair::of(self.command(&[&create[..], more].concat()).await.done());
        self.in_force().await;
        pair
    }

    /// Waits until as many keys are in force as the file has.
    pub(super) async fn in_force(&self) {
        let list = self.keys().await;
        let active = list.iter().filter(|key| key["status"] == "active").count();
        self.sidecar.counts("keyside_keys", &[("status", "active")], active as u64).await;
    }

    /// What `keys list` says.
    pub(super) async fn keys(&self) -> Vec<Value> {
        let list = self.command(&["keys", "list", "--output", "json"]).await.done().json();
        list.as_array().unwrap().clone()
    }

    /// The text of the key file.
    pub(super) fn key_file(&self) -> String {
        std::fs::read_to_string(self.sidecar.path("keys.toml")).unwrap()
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
}
