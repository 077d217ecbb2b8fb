//! The control plane: the real executable in a folder of its own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Mutex,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use toml::Table;

use super::{
    Builder, Connection, Ended, H1, Metrics, Received, Request, Sidecar, Upstream,
    client::{Dialer, tcp},
    command::executable_through,
    eventually, free_port, get,
    http1::Wire,
    lines::{Lines, sockets},
    process::Process,
    request,
    settings::{overlay, piece},
    within,
};

/// What sidecars sync with.
pub(crate) const SYNC_TOKEN: &str = "sync-token-of-the-tests-0123456789-abcdef";
/// The token of the first operator, an admin by the name of `root`.
pub(crate) const ADMIN_TOKEN: &str = "kop_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// The pepper of all keys: their hashes are `hmac-sha256`, so that tests that are not about hashing are quick.
const PEPPER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";

/// A control plane that is still to be started.
pub(crate) struct PlaneBuilder {
    folder: TempDir,
    config: Table,
    through: Vec<String>,
}

/// A running control plane, on plain HTTP at the same address after every restart. Dropping it kills it and removes its
/// folder.
pub(crate) struct Plane {
    process: Process,
    folder: TempDir,
    through: Vec<String>,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// The operator's log.
    pub(crate) log: Lines,
    /// Standard output: the link by which the first operator signs in.
    pub(crate) out: Lines,
}

/// A key that was minted, and its credential.
#[derive(Clone, Debug)]
pub(crate) struct Minted {
    pub(crate) id: String,
    pub(crate) public: String,
    pub(crate) secret: String,
}

impl Plane {
    /// One with a store of its own, SQLite unless the configuration says otherwise.
    pub(crate) fn prepare() -> PlaneBuilder {
        let folder = TempDir::with_prefix("keyside-it-plane-").unwrap();
        let mint = "[listen]\nplaintext = true\naddress = \"127.0.0.1:0\"\n[upstream]\nurl = \"http://127.0.0.1:1\"\n\
                    [keys]\nfile = \"keys.toml\"\npepper = { file = \"pepper\" }\n[keys.mint]\nhash = \"hmac-sha256\"\n";
        let files = [("sync-tokens", SYNC_TOKEN), ("admin-token", ADMIN_TOKEN), ("pepper", PEPPER)];
        for (name, text) in files.into_iter().chain([("keyside.toml", mint), ("keys.toml", "")]) {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let config = piece(&format!(
            r#"
            [listen]
            address = "127.0.0.1:{}"
            plaintext = true
            [admin]
            address = "127.0.0.1:0"
            [shutdown]
            grace = "2s"
            [sync]
            tokens = {{ file = "sync-tokens" }}
            [setup]
            operator = "root"
            token = {{ file = "admin-token" }}
            [presets]
            configuration = "keyside.toml"
            [keys]
            pepper = {{ file = "pepper" }}
            "#,
            free_port()
        ));
        PlaneBuilder { folder, config, through: Vec::new() }
    }

    /// As [`prepare`](Self::prepare), and started.
    pub(crate) async fn start() -> Self {
        Self::prepare().start().await
    }
}

impl PlaneBuilder {
    /// Lays these tables over the configuration.
    #[track_caller]
    pub(crate) fn config(mut self, text: &str) -> Self {
        overlay(&mut self.config, piece(text));
        self
    }

    /// Run by another program, which becomes it: its words, before the executable and its arguments.
    pub(crate) fn through<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.through.extend(words.into_iter().map(Into::into));
        self
    }

    /// The folder, for what must be there before the start.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it and waits until it listens.
    pub(crate) async fn start(self) -> Plane {
        match self.try_start().await {
            Ok(plane) => plane,
            Err(ended) => panic!("the control plane ended with {}:\n{}{}", ended.status, ended.stdout, ended.stderr),
        }
    }

    /// Starts it; an error is what one left behind that ended instead of listening.
    pub(crate) async fn try_start(self) -> Result<Plane, Ended> {
        let Self { folder, config, through } = self;
        std::fs::write(folder.path().join("control.toml"), toml::to_string(&config).unwrap()).unwrap();
        spawn(folder, through).await
    }
}

async fn spawn(folder: TempDir, through: Vec<String>) -> Result<Plane, Ended> {
    spawn_with(folder, through, &[]).await
}

async fn spawn_with(folder: TempDir, through: Vec<String>, more: &[&str]) -> Result<Plane, Ended> {
    let mut command = executable_through(&through);
    command.args(["control", "--config"]).arg(folder.path().join("control.toml")).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (out, log) = (Lines::of(child.stdout.take().unwrap()), Lines::of(child.stderr.take().unwrap()));
    let process = Process(Mutex::new(child));
    let listening = log.object("listening", |line| line["message"] == "listening");
    let exited = eventually("the control plane to listen or to end", async || process.ended().ok_or("running"));
    let line = tokio::select! {
        line = listening => line,
        status = exited => {
            log.ended().await;
            let text = |lines: &Lines| lines.all().join("\n");
            return Err(Ended { status: status.code().unwrap_or(-1), stdout: text(&out), stderr: text(&log) });
        }
    };
    let address = sockets(&line["listener.addresses"])[0];
    let admin = sockets(&line["admin.address"])[0];
    Ok(Plane { process, folder, through, address, admin, log, out })
}

impl Plane {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.0.lock().unwrap().id()
    }

    /// A path in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What connects to it.
    pub(crate) fn dialer(&self) -> Dialer {
        Dialer { address: self.address, tls: None, from: None }
    }

    /// A sidecar in front of this upstream that has its keys from here: without TLS of its own and without limits.
    pub(crate) fn sidecar(&self, upstream: &Upstream) -> Builder {
        let unlimited = "[limits]\nper_ip = []\nper_key = []\nfailures_per_ip = []";
        Sidecar::in_front_of(upstream).plaintext().config(unlimited).keys_from(&self.url(), SYNC_TOKEN, PEPPER)
    }

    /// The same, with TLS and the limits of its configuration.
    pub(crate) fn follower(&self, upstream: &Upstream) -> Builder {
        Sidecar::in_front_of(upstream).keys_from(&self.url(), SYNC_TOKEN, PEPPER)
    }

    /// Sends a request on a connection of its own; an error is why there was no answer.
    pub(crate) async fn try_ask(&self, request: &Request) -> Result<Received, String> {
        let asked = async {
            let mut connection = self.dialer().connect(H1).await.map_err(|error| format!("connecting: {error}"))?;
            connection.try_send(request).await
        };
        within("an answer", asked).await
    }

    /// Sends a request on a connection of its own.
    pub(crate) async fn ask(&self, request: Request) -> Received {
        self.try_ask(&request).await.unwrap_or_else(|why| panic!("no answer to {request:?}: {why}"))
    }

    /// Asks the management API as the first operator: the answer's data.
    #[track_caller]
    pub(crate) fn api(&self, method: &str, target: &str, body: &Value) -> impl Future<Output = Value> {
        let place = std::panic::Location::caller();
        let request = api(method, target, body);
        async move {
            let answer = self.ask(request).await;
            assert!((200..300).contains(&answer.status), "{place}: {} {}", answer.status, answer.text());
            answer.json()["data"].take()
        }
    }

    /// Mints a key that may read, for the owner `svc`.
    pub(crate) async fn mint(&self, name: &str) -> Minted {
        Minted::of(&self.api("POST", "/v1/keys", &minting(name)).await)
    }

    /// Revokes a key, and gives the receipt.
    pub(crate) async fn revoke(&self, id: &str) -> Value {
        self.api("DELETE", &format!("/v1/keys/{id}"), &Value::Null).await
    }

    /// What it says of sidecars.
    pub(crate) async fn sidecars(&self) -> Vec<Value> {
        self.api("GET", "/v1/sidecars", &Value::Null).await["sidecars"].as_array().unwrap().clone()
    }

    /// Waits until so many sidecars follow it, and have acknowledged all there is.
    pub(crate) async fn followed_by(&self, count: usize) {
        eventually("the sidecars to follow", async || {
            let sidecars = self.sidecars().await;
            let following = |sidecar: &&Value| sidecar["connected"] == true && sidecar["lag"] == 0;
            if sidecars.iter().filter(following).count() == count { Ok(()) } else { Err(sidecars) }
        })
        .await;
    }

    /// One reading of its metrics.
    pub(crate) async fn metrics(&self) -> Metrics {
        let mut wire = Wire::new(tcp(None, self.admin).await.expect("the admin port"));
        wire.write(format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin))
            .await
            .unwrap();
        Metrics::new(within("metrics", wire.answer("GET")).await.expect("metrics").text())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.process.0.lock().unwrap());
        kill_process(id, signal).unwrap();
    }

    /// Waits for its end and gives its exit status; -1 when a signal ended it.
    pub(crate) async fn ended(&self) -> i32 {
        let status = eventually("the control plane to end", async || self.process.ended().ok_or("running")).await;
        self.log.ended().await;
        status.code().unwrap_or(-1)
    }

    /// Ends it by this signal; it can be started again.
    pub(crate) async fn stop(self, signal: Signal) -> Stopped {
        self.signal(signal);
        self.ended().await;
        Stopped { folder: self.folder, through: self.through }
    }

    /// Ends it by SIGKILL and starts it anew in the same folder.
    pub(crate) async fn crash_and_restart(self) -> Self {
        self.stop(Signal::KILL).await.start().await
    }
}

/// A control plane that was ended, with all that it left.
pub(crate) struct Stopped {
    folder: TempDir,
    through: Vec<String>,
}

impl Stopped {
    /// Starts it anew.
    pub(crate) async fn start(self) -> Plane {
        match spawn(self.folder, self.through).await {
            Ok(plane) => plane,
            Err(ended) => panic!("the control plane ended with {}:\n{}{}", ended.status, ended.stdout, ended.stderr),
        }
    }

    /// Starts it again with more words on its command line; an error is what one left behind that ended instead.
    pub(crate) async fn try_start_with(self, more: &[&str]) -> Result<Plane, (Ended, Self)> {
        // The folder has to outlive an attempt that fails.
        let kept = TempDir::with_prefix("keyside-it-plane-").unwrap();
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), kept.path().join(entry.file_name())).unwrap();
        }
        let through = self.through.clone();
        spawn_with(self.folder, self.through, more).await.map_err(|ended| (ended, Self { folder: kept, through }))
    }

    /// A path in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A request to the management API, by the first operator.
pub(crate) fn api(method: &str, target: &str, body: &Value) -> Request {
    let request = request(method, target).bearer(ADMIN_TOKEN);
    if body.is_null() {
        return request;
    }
    request.field("content-type", "application/json").body(body.to_string())
}

/// What a key that may read is minted with.
pub(crate) fn minting(name: &str) -> Value {
    json!({ "name": name, "permissions": ["read"], "owner": "svc" })
}

impl Minted {
    /// What the API answered to a create or a rotate.
    pub(crate) fn of(data: &Value) -> Self {
        let text = |name: &str| data[name].as_str().unwrap_or_else(|| panic!("no {name} in {data}")).to_owned();
        Self { id: text("id"), public: text("consumer_key"), secret: text("consumer_secret") }
    }

    /// A request with this key.
    pub(crate) fn get(&self, target: &str) -> Request {
        get(target).basic(&self.public, &self.secret)
    }
}
