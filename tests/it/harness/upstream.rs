//! The API behind the sidecar: it keeps what it gets, byte for byte, and answers as it is told.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinHandle,
};

use super::{
    Authority, Issued,
    certificates::server_config,
    http1::{Framing, Head, Stream, Wire},
    within,
};

/// An upstream. Dropping it closes its port and all of its connections.
pub(crate) struct Upstream {
    url: String,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    scripts: Mutex<HashMap<String, Answer>>,
    seen: watch::Sender<Vec<Seen>>,
    accepted: AtomicUsize,
    open: watch::Sender<usize>,
    stray: Mutex<Vec<Vec<u8>>>,
}

/// A request as the upstream got it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: Head,
    /// The body, without its framing.
    pub(crate) body: Vec<u8>,
    /// The body as it stood on the wire.
    pub(crate) raw_body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    pub(crate) end: End,
    /// Which of the upstream's connections it came on, counted from 1.
    pub(crate) connection: usize,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Not yet.
    Arriving,
    /// With its last byte.
    Complete,
    /// Before its last byte.
    Broken,
}

/// Opens once; who waits at it then goes on.
#[derive(Clone, Debug)]
pub(crate) struct Gate(watch::Sender<bool>);

/// What the upstream does with a request.
#[derive(Clone, Debug)]
pub(crate) struct Answer(Vec<Step>);

#[derive(Clone, Debug)]
enum Step {
    /// Reads the request's body to its end.
    ReadBody,
    /// Writes the head of an answer and, but to HEAD, its body.
    Send {
        head: String,
        body: Vec<u8>,
    },
    /// Writes bytes.
    Raw(Vec<u8>),
    Wait(Duration),
    Hold(Gate),
    /// Gives back every byte that comes, until the end.
    Echo,
    /// Reads until the sidecar has closed the connection.
    UntilGone,
    Close,
}

impl Upstream {
    /// An upstream on TCP that answers everything with 200 and `ok`.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::on_tcp(listener, format!("http://{address}"), None)
    }

    /// An upstream at this address, once it is free.
    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        Self::on_tcp(listener, format!("http://{address}"), None)
    }

    /// An upstream over TLS, with a certificate of this authority for `localhost`.
    pub(crate) async fn over_tls(authority: &Authority) -> Self {
        Self::over_tls_with(&authority.issue(&["localhost"])).await
    }

    /// An upstream over TLS at `localhost`, with this certificate.
    pub(crate) async fn over_tls_with(issued: &Issued) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = server_config(issued);
        Self::on_tcp(listener, format!("https://localhost:{port}"), Some(config))
    }

    fn on_tcp(listener: TcpListener, url: String, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let shared = Shared::new();
        let accepted = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let shared = Arc::clone(&accepted);
                match &tls {
                    None => drop(tokio::spawn(shared.serve(stream))),
                    Some(tls) => {
                        let handshake = tokio_rustls::TlsAcceptor::from(Arc::clone(tls)).accept(stream);
                        tokio::spawn(async move {
                            if let Ok(stream) = handshake.await {
                                shared.serve(stream).await;
                            }
                        });
                    }
                }
            }
        });
        Self { url, shared, accepting }
    }

    /// An upstream on a Unix socket.
    pub(crate) async fn on_unix_socket(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let shared = Shared::new();
        let accepted = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&accepted).serve(stream));
            }
        });
        Self { url: format!("unix:{}", PathBuf::from(path).display()), shared, accepting }
    }

    /// How the sidecar's configuration names it.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Host and port.
    pub(crate) fn authority(&self) -> &str {
        self.url.split_once("//").unwrap_or(("", "")).1
    }

    /// From now on, requests for this path (without a query) get this answer.
    pub(crate) fn on(&self, path: &str, answer: Answer) {
        self.shared.scripts.lock().unwrap().insert(path.into(), answer);
    }

    /// Every request so far, in the order of their heads.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.borrow().clone()
    }

    /// The only request so far.
    #[track_caller]
    pub(crate) fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{:?}", seen.iter().map(|seen| seen.head.line()).collect::<Vec<_>>());
        seen.into_iter().next().unwrap()
    }

    /// The newest request.
    #[track_caller]
    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().expect("a request")
    }

    /// How many requests arrived.
    pub(crate) fn count(&self) -> usize {
        self.shared.seen.borrow().len()
    }

    /// Waits until what was seen is such.
    pub(crate) async fn until(&self, what: &str, mut is: impl FnMut(&[Seen]) -> bool) -> Vec<Seen> {
        let mut seen = self.shared.seen.subscribe();
        let seen = within(what, seen.wait_for(|seen| is(seen))).await.unwrap();
        seen.clone()
    }

    /// Waits until this many requests have arrived and gives the last of them.
    pub(crate) async fn request(&self, number: usize) -> Seen {
        self.until("a request at the upstream", |seen| seen.len() >= number).await.swap_remove(number - 1)
    }

    /// What came where a request should begin, and never became one.
    pub(crate) fn stray(&self) -> Vec<Vec<u8>> {
        self.shared.stray.lock().unwrap().clone()
    }

    /// How many connections were made to it so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.accepted.load(Relaxed)
    }

    /// Waits until so many connections are open.
    pub(crate) async fn until_open(&self, count: usize) {
        let mut open = self.shared.open.subscribe();
        within("connections to the upstream", open.wait_for(|open| *open == count)).await.unwrap();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            scripts: Mutex::default(),
            seen: watch::Sender::new(Vec::new()),
            accepted: AtomicUsize::new(0),
            open: watch::Sender::new(0),
            stray: Mutex::default(),
        })
    }

    async fn serve(self: Arc<Self>, stream: impl Stream + 'static) {
        let connection = self.accepted.fetch_add(1, Relaxed) + 1;
        self.open.send_modify(|open| *open += 1);
        let mut wire = Wire::new(stream);
        while let Ok(Some(head)) = wire.head().await {
            if self.exchange(&mut wire, head, connection).await.is_err() {
                break;
            }
        }
        // After a broken request, what is left is part of that.
        let broken = self.seen.borrow().iter().any(|seen| seen.connection == connection && seen.end != End::Complete);
        let left = wire.left();
        if !broken && !left.is_empty() {
            self.stray.lock().unwrap().push(left);
        }
        drop(wire);
        self.open.send_modify(|open| *open -= 1);
    }

    /// One request; an error ends the connection.
    async fn exchange(&self, wire: &mut Wire, head: Head, connection: usize) -> Result<(), ()> {
        let line = head.line();
        let method = line.split(' ').next().unwrap_or_default().to_owned();
        let target = line.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let answer = self.scripts.lock().unwrap().get(path).cloned().unwrap_or_else(|| Answer::ok("ok\n"));
        let framing = head.request_framing();
        let end = if framing == Framing::None { End::Complete } else { End::Arriving };
        let mut index = 0;
        self.seen.send_modify(|seen| {
            index = seen.len();
            seen.push(Seen { head, body: Vec::new(), raw_body: Vec::new(), trailers: Vec::new(), end, connection });
        });
        for step in answer.0 {
            match step {
                Step::ReadBody => self.body(wire, framing, index).await?,
                Step::Send { head, body } => {
                    let body = if method == "HEAD" { &[] } else { &body[..] };
                    wire.write([head.as_bytes(), body].concat()).await.map_err(drop)?;
                }
                Step::Raw(bytes) => wire.write(bytes).await.map_err(drop)?,
                Step::Wait(duration) => tokio::time::sleep(duration).await,
                Step::Hold(gate) => gate.pass().await,
                Step::Echo => loop {
                    let bytes = wire.some(usize::MAX).await.map_err(drop)?;
                    if bytes.is_empty() {
                        return Err(());
                    }
                    wire.write(bytes).await.map_err(drop)?;
                },
                Step::UntilGone => {
                    wire.rest().await;
                    return Err(());
                }
                Step::Close => return Err(()),
            }
        }
        self.body(wire, framing, index).await
    }

    /// Reads what is left of the body.
    async fn body(&self, wire: &mut Wire, framing: Framing, index: usize) -> Result<(), ()> {
        loop {
            let (got, end) = {
                let seen = self.seen.borrow();
                (seen[index].body.len(), seen[index].end)
            };
            if end == End::Complete {
                return Ok(());
            }
            let part = wire.part(framing, got).await;
            self.seen.send_modify(|seen| {
                let seen = &mut seen[index];
                match &part {
                    Ok(part) => {
                        seen.body.extend(&part.content);
                        seen.raw_body.extend(&part.raw);
                        if part.last {
                            seen.end = End::Complete;
                            seen.trailers.clone_from(&part.trailers);
                        }
                    }
                    Err(_) => seen.end = End::Broken,
                }
            });
            part.map_err(drop)?;
        }
    }
}

impl Seen {
    /// The only value of a field; empty when it is not there.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> String {
        let mut all = self.head.all(name);
        assert!(all.len() <= 1, "{name}: {all:?}");
        all.pop().unwrap_or_default()
    }

    /// Whether a field of this name is there, whatever it says.
    pub(crate) fn has(&self, name: &str) -> bool {
        !self.head.all(name).is_empty()
    }

    /// The request line's target.
    pub(crate) fn target(&self) -> String {
        self.head.line().split(' ').nth(1).unwrap_or_default().to_owned()
    }
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn pass(&self) {
        // The gate holds a sender itself, so that waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

impl Answer {
    /// 200 with this body.
    pub(crate) fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::with(200, &[], body)
    }

    /// A whole answer with `Content-Length`.
    pub(crate) fn with(status: u16, fields: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref().to_vec();
        let length = body.len().to_string();
        let mut all = fields.to_vec();
        if status != 204 && status != 304 {
            all.push(("Content-Length", &length));
        }
        Self(vec![Step::ReadBody, Step::Send { head: head(status, &all), body }])
    }

    /// A whole answer in chunks, with trailers.
    pub(crate) fn chunked(fields: &[(&str, &str)], chunks: &[&str], trailers: &[(&str, &str)]) -> Self {
        let mut all = fields.to_vec();
        all.push(("Transfer-Encoding", "chunked"));
        let mut body: String = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
        body.push_str("0\r\n");
        body.extend(trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
        body.push_str("\r\n");
        Self(vec![Step::ReadBody, Step::Send { head: head(200, &all), body: body.into() }])
    }

    /// Exactly these bytes, after the request.
    pub(crate) fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self(vec![Step::ReadBody, Step::Raw(bytes.as_ref().to_vec())])
    }

    /// Never an answer.
    pub(crate) fn silence() -> Self {
        Self(vec![Step::ReadBody, Step::UntilGone])
    }

    /// Closes the connection without an answer.
    pub(crate) fn hang_up() -> Self {
        Self(vec![Step::ReadBody, Step::Close])
    }

    /// 101, and from then on every byte comes back.
    pub(crate) fn switching(protocol: &str) -> Self {
        let head = head(101, &[("Connection", "Upgrade"), ("Upgrade", protocol)]);
        Self(vec![Step::Raw(head.into()), Step::Echo])
    }

    /// Without waiting for the request's body.
    pub(crate) fn early(mut self) -> Self {
        self.0.retain(|step| !matches!(step, Step::ReadBody));
        self
    }

    /// After so long.
    pub(crate) fn after(mut self, duration: Duration) -> Self {
        let at = self.0.iter().position(|step| !matches!(step, Step::ReadBody)).unwrap_or(self.0.len());
        self.0.insert(at, Step::Wait(duration));
        self
    }

    /// When the gate has opened.
    pub(crate) fn behind(mut self, gate: &Gate) -> Self {
        let at = self.0.iter().position(|step| !matches!(step, Step::ReadBody)).unwrap_or(self.0.len());
        self.0.insert(at, Step::Hold(gate.clone()));
        self
    }

    /// Then these bytes, when the gate has opened.
    pub(crate) fn then(mut self, gate: &Gate, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend([Step::Hold(gate.clone()), Step::Raw(bytes.as_ref().to_vec())]);
        self
    }

    /// Then reads what is left of the request.
    pub(crate) fn then_read(mut self) -> Self {
        self.0.push(Step::ReadBody);
        self
    }

    /// Then nothing more, until the sidecar has closed the connection.
    pub(crate) fn then_silence(mut self) -> Self {
        self.0.push(Step::UntilGone);
        self
    }

    /// Then the connection is closed.
    pub(crate) fn then_close(mut self) -> Self {
        self.0.push(Step::Close);
        self
    }
}

fn head(status: u16, fields: &[(&str, &str)]) -> String {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 {status} Because\r\n{fields}\r\n")
}
