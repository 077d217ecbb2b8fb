//! The caller: requests over HTTP/1.1 and HTTP/2, and what came back.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use tokio::net::{TcpSocket, TcpStream};

use super::{
    Issued, Key,
    certificates::client_config,
    http1::{Framing, Wire},
    keys::basic,
    within,
};

/// Which HTTP a request is sent over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    H1,
    H2,
}
pub(crate) use Version::{H1, H2};

/// A request to send.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    target: String,
    host: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Option<Vec<Bytes>>,
    chunked: bool,
    trailers: Vec<(String, String)>,
    stalled: bool,
}

/// An answer, read to its end.
#[derive(Clone, Default)]
pub(crate) struct Received {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// The 1xx answers before it.
    pub(crate) interim: Vec<u16>,
    /// The head as it stood on the wire; empty over HTTP/2.
    pub(crate) raw_head: Vec<u8>,
    /// Why the body broke off, if it did.
    pub(crate) broken: Option<String>,
}

/// A connection to the sidecar that stays open between requests.
pub(crate) enum Connection {
    H1(Wire),
    H2 { client: h2::client::SendRequest<Bytes>, driving: tokio::task::JoinHandle<()> },
}

/// How TLS is spoken: whom the client trusts, what it offers and shows.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) authority: String,
    pub(crate) versions: Vec<&'static rustls::SupportedProtocolVersion>,
    pub(crate) shown: Option<Issued>,
}

pub(crate) fn get(target: &str) -> Request {
    request("GET", target)
}

pub(crate) fn post(target: &str, body: impl AsRef<[u8]>) -> Request {
    request("POST", target).body(body)
}

pub(crate) fn request(method: &str, target: &str) -> Request {
    Request {
        method: method.into(),
        target: target.into(),
        host: "api.example.com".into(),
        fields: Vec::new(),
        body: None,
        chunked: false,
        trailers: Vec::new(),
        stalled: false,
    }
}

impl Request {
    pub(crate) fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((name.into(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = host.into();
        self
    }

    /// With the credential of this key: a pair by Basic, a token by Bearer.
    pub(crate) fn key(self, key: &Key) -> Self {
        let value = key.authorization();
        self.field("Authorization", value)
    }

    pub(crate) fn basic(self, user: &str, password: &str) -> Self {
        self.field("Authorization", basic(user, password))
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.field("Authorization", format!("Bearer {token}"))
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = Some(vec![Bytes::copy_from_slice(body.as_ref())]);
        self
    }

    /// With a body whose length is not declared, in these pieces.
    pub(crate) fn chunks<B: AsRef<[u8]>>(mut self, chunks: impl IntoIterator<Item = B>) -> Self {
        self.body = Some(chunks.into_iter().map(|chunk| Bytes::copy_from_slice(chunk.as_ref())).collect());
        self.chunked = true;
        self
    }

    /// With these trailers after its chunks.
    pub(crate) fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.into(), value.into()));
        self
    }

    /// With a body that never ends: more is promised than comes.
    pub(crate) fn stalled(mut self) -> Self {
        self.stalled = true;
        self
    }

    /// The same with another method.
    pub(crate) fn method(mut self, method: &str) -> Self {
        self.method = method.into();
        self
    }

    /// The head, as HTTP/1.1 has it.
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        let mut line = |name: &str, value: &[u8]| {
            head.extend(name.as_bytes());
            head.extend(b": ");
            head.extend(value);
            head.extend(b"\r\n");
        };
        if !self.host.is_empty() {
            line("Host", self.host.as_bytes());
        }
        for (name, value) in &self.fields {
            line(name, value);
        }
        match &self.body {
            Some(_) if self.chunked => line("Transfer-Encoding", b"chunked"),
            Some(body) => {
                let promised = body.concat().len() + if self.stalled { 100 } else { 0 };
                line("Content-Length", promised.to_string().as_bytes());
            }
            None => {}
        }
        head.extend(b"\r\n");
        head
    }

    fn http1(&self) -> Vec<u8> {
        let mut bytes = self.head();
        let Some(body) = &self.body else { return bytes };
        if !self.chunked {
            bytes.extend(body.concat());
            return bytes;
        }
        for chunk in body {
            bytes.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n");
        for (name, value) in &self.trailers {
            bytes.extend(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend(b"\r\n");
        bytes
    }

    fn http2(&self) -> http::Request<()> {
        let mut request = http::Request::builder()
            .version(http::Version::HTTP_2)
            .method(self.method.as_str())
            .uri(format!("https://{}{}", self.host, self.target));
        for (name, value) in &self.fields {
            request = request.header(name.to_ascii_lowercase(), &value[..]);
        }
        if let (Some(body), false) = (&self.body, self.chunked || self.stalled) {
            request = request.header("content-length", body.concat().len());
        }
        request.body(()).unwrap()
    }
}

/// As it stands on the wire, cut where it is long.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&short(&self.http1()))
    }
}

/// As it was read, cut where it is long.
impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        for (name, value) in &self.fields {
            write!(f, "\n  {name}: {}", short(value.as_bytes()))?;
        }
        write!(f, "\n  {}", short(&self.body))?;
        if !self.trailers.is_empty() {
            write!(f, "\n  trailers {:?}", self.trailers)?;
        }
        if !self.interim.is_empty() {
            write!(f, "\n  after {:?}", self.interim)?;
        }
        match &self.broken {
            Some(why) => write!(f, "\n  broken: {why}"),
            None => Ok(()),
        }
    }
}

fn short(bytes: &[u8]) -> String {
    const MOST: usize = 2000;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]).into_owned();
    if bytes.len() > MOST { format!("{text}… ({} bytes)", bytes.len()) } else { text }
}

impl Received {
    /// The only value of a field; empty when it is not there.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> &str {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name}: {all:?}");
        all.first().copied().unwrap_or_default()
    }

    /// All values of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let same = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|fault| panic!("{fault}: {self:?}"))
    }

    /// The `code` of a refusal in the problem format; empty for anything else.
    pub(crate) fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["code"].as_str().unwrap_or_default().to_owned()
    }

    /// What an answer is about, in short: for tables of expectations.
    pub(crate) fn brief(&self) -> String {
        format!("{} {}", self.status, self.code()).trim_end().to_owned()
    }
}

impl Tls {
    pub(crate) fn trusting(authority: &str) -> Self {
        Self { authority: authority.into(), versions: rustls::ALL_VERSIONS.to_vec(), shown: None }
    }

    /// The client's half of a handshake on this stream.
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        protocols: &[&str],
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let config = client_config(&self.authority, protocols, &self.versions, self.shown.as_ref());
        let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
        tokio_rustls::TlsConnector::from(config).connect(name, stream).await
    }
}

/// A TCP connection to this address from that one.
pub(crate) async fn tcp(from: Option<IpAddr>, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An address of this machine that no other test uses at the same time: 127.0.0.0/8 is all loopback.
pub(crate) fn loopback(last: [u8; 3]) -> IpAddr {
    Ipv4Addr::new(127, last[0], last[1], last[2]).into()
}

impl Connection {
    /// Speaks HTTP over a stream that is ready for it.
    pub(crate) async fn over(version: Version, stream: impl super::http1::Stream + 'static) -> Self {
        match version {
            H1 => Self::H1(Wire::new(stream)),
            H2 => {
                let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2 settings");
                let driving = tokio::spawn(async move { drop(connection.await) });
                Self::H2 { client, driving }
            }
        }
    }

    /// Sends a request and reads its answer; a connection that breaks fails the test.
    #[track_caller]
    pub(crate) fn send(&mut self, request: &Request) -> impl Future<Output = Received> {
        let place = std::panic::Location::caller();
        async move {
            match within("an answer", self.try_send(request)).await {
                Ok(answer) => answer,
                Err(why) => panic!("{place}: no answer to {} {}: {why}", request.method, request.target),
            }
        }
    }

    /// Sends a request and reads its answer, or why there is none.
    pub(crate) async fn try_send(&mut self, request: &Request) -> Result<Received, String> {
        match self {
            Self::H1(wire) => {
                let bytes = request.http1();
                wire.exchange(&request.method, &bytes).await
            }
            Self::H2 { client, .. } => http2(client, request).await.map_err(|error| error.to_string()),
        }
    }

    /// The same HTTP/2 connection once more, for another stream at the same time.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::H1(_) => panic!("HTTP/1.1 has one exchange at a time"),
            Self::H2 { client, .. } => Self::H2 { client: client.clone(), driving: tokio::spawn(async {}) },
        }
    }

    /// The connection as bytes.
    pub(crate) fn wire(&mut self) -> &mut Wire {
        match self {
            Self::H1(wire) => wire,
            Self::H2 { .. } => panic!("an HTTP/2 connection has frames, not lines"),
        }
    }

    /// Waits until the other side has closed it.
    pub(crate) async fn closed(&mut self) {
        match self {
            Self::H1(wire) => drop(within("the connection to be closed", wire.rest()).await),
            Self::H2 { driving, .. } => within("the connection to be closed", driving).await.unwrap(),
        }
    }
}

async fn http2(client: &mut h2::client::SendRequest<Bytes>, request: &Request) -> Result<Received, h2::Error> {
    let mut ready = client.clone().ready().await?;
    let (answer, mut sending) = ready.send_request(request.http2(), request.body.is_none())?;
    let upload = async move {
        let Some(body) = &request.body else { return };
        for chunk in body {
            let mut rest = chunk.clone();
            while !rest.is_empty() {
                sending.reserve_capacity(rest.len());
                match std::future::poll_fn(|cx| sending.poll_capacity(cx)).await {
                    Some(Ok(room)) => {
                        let piece = rest.split_to(room.min(rest.len()));
                        if sending.send_data(piece, false).is_err() {
                            return;
                        }
                    }
                    // Reset, or the answer came before the end: what it says counts.
                    _ => return,
                }
            }
        }
        if request.stalled {
            // Held until the answer has come: dropping it would end the stream.
            std::future::pending::<()>().await;
        }
        if request.trailers.is_empty() {
            let _ = sending.send_data(Bytes::new(), true);
        } else {
            let mut trailers = http::HeaderMap::new();
            for (name, value) in &request.trailers {
                let name: http::HeaderName = name.parse().unwrap();
                trailers.append(name, value.parse().unwrap());
            }
            let _ = sending.send_trailers(trailers);
        }
    };
    let download = async {
        let (head, mut body) = answer.await?.into_parts();
        let mut received =
            Received { status: head.status.as_u16(), fields: pairs(&head.headers), ..Received::default() };
        while let Some(bytes) = body.data().await {
            match bytes {
                Ok(bytes) => {
                    let _ = body.flow_control().release_capacity(bytes.len());
                    received.body.extend(&bytes);
                }
                Err(error) => {
                    received.broken = Some(error.to_string());
                    return Ok(received);
                }
            }
        }
        match body.trailers().await {
            Ok(trailers) => received.trailers = trailers.map(|trailers| pairs(&trailers)).unwrap_or_default(),
            Err(error) => received.broken = Some(error.to_string()),
        }
        Ok(received)
    };
    // Both at once: the answer may come before the upload has ended.
    tokio::pin!(download);
    tokio::select! {
        biased;
        received = &mut download => received,
        () = upload => download.await,
    }
}

fn pairs(headers: &http::HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

impl Wire {
    /// Sends a request and reads the answer. What cannot be sent because the answer came first does not matter.
    async fn exchange(&mut self, method: &str, bytes: &[u8]) -> Result<Received, String> {
        let sent = self.write(bytes).await;
        match (self.answer(method).await, sent) {
            (Ok(answer), _) => Ok(answer),
            (Err(_), Err(error)) => Err(format!("not sent: {error}")),
            (Err(why), Ok(())) => Err(why),
        }
    }

    /// Reads the next answer, which is one to this method.
    pub(crate) async fn answer(&mut self, method: &str) -> Result<Received, String> {
        let mut received = self.answer_head(method).await?;
        let framing = received.framing(method);
        loop {
            match self.part(framing, received.body.len()).await {
                Ok(part) => {
                    received.body.extend(&part.content);
                    if part.last {
                        received.trailers = part.trailers;
                        return Ok(received);
                    }
                }
                Err(error) => {
                    received.broken = Some(error.to_string());
                    return Ok(received);
                }
            }
        }
    }

    /// Reads the head of the next answer, past interim ones.
    pub(crate) async fn answer_head(&mut self, method: &str) -> Result<Received, String> {
        let mut interim = Vec::new();
        loop {
            let head = match self.head().await {
                Ok(Some(head)) => head,
                Ok(None) => return Err(format!("the connection ended before an answer to {method}")),
                Err(error) => return Err(error.to_string()),
            };
            let line = head.line();
            let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
            let status: u16 = status.ok_or_else(|| format!("no status in {line:?}"))?;
            if (100..200).contains(&status) && status != 101 {
                interim.push(status);
                continue;
            }
            return Ok(Received { status, fields: head.fields(), raw_head: head.raw, interim, ..Received::default() });
        }
    }
}

impl Received {
    fn framing(&self, method: &str) -> Framing {
        super::http1::Head { raw: self.raw_head.clone() }.answer_framing(method, self.status)
    }
}

/// What connects to one sidecar.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) from: Option<IpAddr>,
}

impl Dialer {
    /// From another address of this machine.
    pub(crate) async fn connect_from(&self, from: IpAddr, version: Version) -> std::io::Result<Connection> {
        Self { from: Some(from), ..self.clone() }.connect(version).await
    }

    pub(crate) async fn connect(&self, version: Version) -> std::io::Result<Connection> {
        let stream = tcp(self.from, self.address).await?;
        Ok(match &self.tls {
            None => Connection::over(version, stream).await,
            Some(tls) => {
                let protocols: &[&str] = if version == H1 { &["http/1.1"] } else { &["h2"] };
                Connection::over(version, tls.connect(stream, protocols).await?).await
            }
        })
    }
}
