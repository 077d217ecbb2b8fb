//! A control endpoint in the test's own process, raw enough to lie.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{Issued, Key, certificates::server_config, eventually};

/// What it is shown.
pub(crate) const TOKEN: &str = "token-of-the-fleet";

/// A control endpoint.
pub(crate) struct Control {
    address: SocketAddr,
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
    running: Mutex<Option<JoinSet<()>>>,
}

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

struct State {
    epoch: String,
    revision: u64,
    /// Makes the digest of a revision another one.
    salt: String,
    keys: BTreeMap<String, Value>,
    owners: BTreeMap<String, Value>,
    /// The lines of each revision.
    log: BTreeMap<u64, Vec<Value>>,
    heartbeat: Option<Duration>,
    /// What heartbeats say beyond the truth.
    ahead: u64,
    lies: BTreeMap<&'static str, Lie>,
    reports: Vec<Value>,
    report_status: u16,
    token: String,
    asked: Vec<(Instant, String)>,
}

/// What is said instead of the truth, before the connection is closed.
#[derive(Clone, Debug)]
pub(crate) enum Lie {
    /// These bytes.
    Say(Vec<u8>),
    /// These bytes, then the same ones again and again.
    Endless(Vec<u8>, Vec<u8>),
    /// These bytes, one at a time.
    Drip(Vec<u8>, Duration),
}

impl Control {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    pub(crate) async fn start_tls(issued: &Issued) -> Self {
        Self::start_with(Some(TlsAcceptor::from(server_config(issued)))).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = State {
            epoch: "first".into(),
            revision: 1,
            salt: String::new(),
            keys: BTreeMap::new(),
            owners: BTreeMap::new(),
            log: BTreeMap::new(),
            heartbeat: Some(Duration::from_millis(100)),
            ahead: 0,
            lies: BTreeMap::new(),
            reports: Vec::new(),
            report_status: 204,
            token: TOKEN.into(),
            asked: Vec::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: watch::channel(0).0 });
        let control = Self { address: listener.local_addr().unwrap(), shared, tls, running: Mutex::new(None) };
        control.serve(listener);
        control
    }

    fn serve(&self, listener: TcpListener) {
        let (shared, tls) = (Arc::clone(&self.shared), self.tls.clone());
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((tcp, _)) = listener.accept().await else { continue };
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => talk(&shared, tcp).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(tcp).await {
                                talk(&shared, stream).await;
                            }
                        }
                    }
                });
            }
        });
        *self.running.lock().unwrap() = Some(running);
    }

    /// Goes away, with all of its connections.
    pub(crate) async fn stop(&self) {
        let running = self.running.lock().unwrap().take();
        if let Some(mut running) = running {
            running.shutdown().await;
        }
    }

    /// Comes back where it was.
    pub(crate) async fn restart(&self) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        self.serve(socket.listen(64).unwrap());
    }

    pub(crate) fn url(&self) -> String {
        match self.tls {
            None => format!("http://{}", self.address),
            Some(_) => format!("https://localhost:{}", self.address.port()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something, and wakes the streams.
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.shared.changed.send_modify(|number| *number += 1);
        result
    }

    /// One transaction of these lines; gives its revision.
    pub(crate) fn commit(&self, lines: impl IntoIterator<Item = Value>) -> u64 {
        self.with(|state| {
            state.revision += 1;
            let lines: Vec<Value> = lines.into_iter().collect();
            for line in &lines {
                if let Some(key) = line.get("key") {
                    state.keys.insert(key["id"].as_str().unwrap().to_owned(), key.clone());
                } else if let Some(owner) = line.get("owner") {
                    state.owners.insert(owner["id"].as_str().unwrap().to_owned(), owner.clone());
                } else if let Some(id) = line["deleted_key"].as_str() {
                    state.keys.remove(id);
                } else if let Some(id) = line["deleted_owner"].as_str() {
                    state.owners.remove(id);
                }
            }
            state.log.insert(state.revision, lines);
            state.revision
        })
    }

    pub(crate) fn put(&self, key: &Key) -> u64 {
        self.commit([json!({"key": key.json()})])
    }

    pub(crate) fn put_all<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> u64 {
        self.commit(keys.into_iter().map(|key| json!({"key": key.json()})))
    }

    pub(crate) fn revoke(&self, key: &Key) -> u64 {
        let mut row = key.json();
        row["revoked_at"] = "2026-11-01T00:00:00Z".into();
        self.commit([json!({"key": row})])
    }

    /// Rows as they are, whatever a stream was told.
    pub(crate) fn rewrite(&self, change: impl FnOnce(&mut BTreeMap<String, Value>)) {
        change(&mut self.state().keys);
    }

    /// Another history from here on.
    pub(crate) fn set_history(&self, epoch: &str, revision: u64, salt: &str) {
        self.with(|state| {
            (state.epoch, state.revision, state.salt) = (epoch.into(), revision, salt.into());
            state.log.clear();
        });
    }

    pub(crate) fn heartbeats(&self, every: Option<Duration>) {
        self.with(|state| state.heartbeat = every);
    }

    /// Heartbeats of revisions that nobody was told of.
    pub(crate) fn run_ahead(&self, by: u64) {
        self.with(|state| state.ahead = by);
    }

    /// What is said to whoever asks for this path.
    pub(crate) fn lie(&self, path: &'static str, lie: Lie) {
        self.with(|state| state.lies.insert(path, lie));
    }

    pub(crate) fn be_honest(&self) {
        self.with(|state| state.lies.clear());
    }

    pub(crate) fn take_reports_with(&self, status: u16) {
        self.with(|state| state.report_status = status);
    }

    pub(crate) fn set_token(&self, token: &str) {
        self.with(|state| state.token = token.into());
    }

    pub(crate) fn revision(&self) -> u64 {
        self.state().revision
    }

    /// All reports so far.
    pub(crate) fn reports(&self) -> Vec<Value> {
        self.state().reports.clone()
    }

    /// When each request came, and for what.
    pub(crate) fn asked(&self) -> Vec<(Instant, String)> {
        self.state().asked.clone()
    }

    /// Waits until some sidecar has said that it has this revision.
    #[track_caller]
    pub(crate) fn acknowledged(&self, revision: u64) -> impl Future<Output = Value> {
        eventually("an acknowledgement", async move || {
            let reports = self.reports();
            let found = reports.iter().find(|report| report["revision"].as_u64() >= Some(revision)).cloned();
            found.ok_or(reports)
        })
    }
}

/// A whole answer of a status and a body.
pub(crate) fn answer(status: u16, fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

pub(crate) const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";

async fn talk(shared: &Shared, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = Vec::new();
    while let Some(()) = exchange(shared, &mut stream, &mut buffer).await {}
    let _ = stream.shutdown().await;
}

/// One request and its answer; none where the connection is over.
async fn exchange(
    shared: &Shared,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    buffer: &mut Vec<u8>,
) -> Option<()> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer.drain(..end).collect()).ok()?;
    let field = |name: &str| {
        let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let length: usize = field("content-length").map_or(0, |length| length.parse().unwrap());
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body: Vec<u8> = buffer.drain(..length).collect();
    let target = head.split(' ').nth(1)?.to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (lie, good) = {
        let mut state = shared.state.lock().unwrap();
        state.asked.push((Instant::now(), target.clone()));
        let lie = state.lies.iter().find(|(at, _)| **at == path).map(|(_, lie)| lie.clone());
        (lie, field("authorization") == Some(format!("Bearer {}", state.token)))
    };
    match lie {
        Some(Lie::Say(bytes)) => {
            stream.write_all(&bytes).await.ok()?;
            return None;
        }
        Some(Lie::Endless(head, more)) => {
            stream.write_all(&head).await.ok()?;
            loop {
                stream.write_all(&more).await.ok()?;
            }
        }
        Some(Lie::Drip(bytes, every)) => {
            for byte in bytes {
                stream.write_all(&[byte]).await.ok()?;
                stream.flush().await.ok()?;
                tokio::time::sleep(every).await;
            }
            return None;
        }
        None if !good => stream.write_all(&answer(401, "", "")).await.ok()?,
        None => match path {
            "/sync/v1/keys" => {
                let body = whole(&shared.state.lock().unwrap());
                stream.write_all(&answer(200, NDJSON, &body)).await.ok()?;
            }
            "/sync/v1/changes" => return changes(shared, stream, query).await,
            "/sync/v1/report" => {
                let status = {
                    let mut state = shared.state.lock().unwrap();
                    state.reports.push(serde_json::from_slice(&body).unwrap());
                    state.report_status
                };
                let answer = if status == 204 { b"HTTP/1.1 204 X\r\n\r\n".to_vec() } else { answer(status, "", "") };
                stream.write_all(&answer).await.ok()?;
            }
            _ => stream.write_all(&answer(404, "", "")).await.ok()?,
        },
    }
    stream.flush().await.ok()
}

fn digest(state: &State, revision: u64) -> String {
    format!("digest{}-{revision}", state.salt)
}

fn whole(state: &State) -> String {
    let head = json!({"epoch": state.epoch, "revision": state.revision, "digest": digest(state, state.revision)});
    let owners = state.owners.values().map(|owner| json!({"owner": owner}));
    let keys = state.keys.values().map(|key| json!({"key": key}));
    let end = json!({"end": true, "owners": state.owners.len(), "keys": state.keys.len()});
    std::iter::once(head).chain(owners).chain(keys).chain([end]).map(|line| format!("{line}\n")).collect()
}

/// The stream of changes, until the connection is over.
async fn changes(shared: &Shared, stream: &mut (impl AsyncRead + AsyncWrite + Unpin), query: &str) -> Option<()> {
    let parameter = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.find(|(found, _)| *found == name).map(|(_, value)| value).unwrap_or_default();
        percent_encoding::percent_decode_str(value).decode_utf8().unwrap().into_owned()
    };
    let mut since: u64 = parameter("since").parse().ok()?;
    let mut changed = shared.changed.subscribe();
    let fits = |state: &State, since: u64| {
        since <= state.revision
            && parameter("epoch") == state.epoch
            && parameter("digest") == digest(state, since)
            && (since + 1..=state.revision).all(|revision| state.log.contains_key(&revision))
    };
    if !fits(&shared.state.lock().unwrap(), since) {
        return stream.write_all(&answer(410, "", "")).await.ok();
    }
    let head = format!("HTTP/1.1 200 OK\r\n{NDJSON}Transfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    loop {
        changed.borrow_and_update();
        let (text, heartbeat) = {
            let state = shared.state.lock().unwrap();
            let mut text = String::new();
            for (revision, lines) in state.log.range(since + 1..) {
                for (index, line) in lines.iter().enumerate() {
                    let mut line = line.clone();
                    line["revision"] = (*revision).into();
                    line["digest"] = digest(&state, *revision).into();
                    if index + 1 < lines.len() && line.get("more").is_none() {
                        line["more"] = true.into();
                    }
                    text.push_str(&format!("{line}\n"));
                }
                since = *revision;
            }
            if state.heartbeat.is_some() {
                text.push_str(&format!("{}\n", json!({"heartbeat": since + state.ahead})));
            }
            (text, state.heartbeat)
        };
        if !text.is_empty() {
            stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await.ok()?;
            stream.flush().await.ok()?;
        }
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep(heartbeat.unwrap_or(Duration::from_secs(3600))) => {}
            // The sidecar sends nothing here: what is read is its end.
            read = stream.read_u8() => { read.ok()?; }
        }
    }
}
