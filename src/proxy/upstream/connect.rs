//! Opening connections to the upstream: TCP, TLS over it, or a Unix socket.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::HeaderValue;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::trouble::Told;
use crate::{
    clock,
    proxy::settings::{Endpoint, UpstreamTls, UpstreamUrl},
};

/// One upstream, as all serving threads share it.
#[derive(Debug)]
pub struct Destination {
    endpoint: Endpoint,
    /// What is put before every path.
    pub base_path: Box<str>,
    /// The host and port of its url, as a `Host` field.
    pub authority: HeaderValue,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    tls_settings: Option<UpstreamTls>,
    told: Told,
    connect_timeout: Duration,
    /// Where the name led last; served on when the resolver fails.
    last_good: Mutex<Option<SocketAddr>>,
}

/// Why an upstream cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// A file of `[upstream] tls` cannot be read or is no PEM.
    #[error("{}: cannot be read as PEM", path.display())]
    Pem {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// The certificates and keys do not make a TLS client.
    #[error("the TLS settings of the upstream cannot be used")]
    Tls(#[source] rustls::Error),
    /// The name that the upstream's certificate is checked for is none.
    #[error("{0:?} is no name that a certificate can be checked for")]
    ServerName(Box<str>),
    /// The system has no root certificates.
    #[error("the system has no root certificates; name one with tls = {{ ca = \"…\" }}")]
    NoRoots,
}

impl Destination {
    /// Reads certificates and keys; opens nothing.
    ///
    /// # Errors
    ///
    /// See [`DestinationError`].
    pub fn new(
        url: &UpstreamUrl,
        tls: Option<&UpstreamTls>,
        connect_timeout: Duration,
    ) -> Result<Self, DestinationError> {
        let (default, tls_settings) = (UpstreamTls::default(), tls.cloned());
        let tls = match &url.endpoint {
            Endpoint::Https { host, .. } => Some(client_config(host, tls.unwrap_or(&default))?),
            Endpoint::Http { .. } | Endpoint::Unix(_) => None,
        };
        Ok(Self {
            endpoint: url.endpoint.clone(),
            base_path: url.base_path.clone(),
            authority: HeaderValue::try_from(url.authority()).unwrap_or_else(|_| HeaderValue::from_static("localhost")),
            tls,
            tls_settings,
            told: Told::default(),
            connect_timeout,
            last_good: Mutex::new(None),
        })
    }

    /// Whether both lead to the same place.
    pub fn leads_where(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint
    }

    /// Whether both lead to the same place, by the same settings of TLS.
    pub fn is_like(&self, other: &Self) -> bool {
        self.leads_where(other) && self.tls_settings == other.tls_settings
    }

    /// How long a connection may take to open.
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Opens a connection, TLS included.
    ///
    /// # Errors
    ///
    /// `TimedOut` after the connect timeout; else whatever the network, the resolver or TLS said.
    pub async fn connect(&self) -> io::Result<UpstreamStream> {
        self.connect_by(lookup_host).await
    }

    /// Tells the operator of an error of TLS. With TLS 1.3 an upstream refuses us after the handshake, where the answer is
    /// waited for.
    pub fn tell(&self, error: &io::Error) {
        if self.tls.is_some() {
            self.told.tell(self.authority.to_str().unwrap_or_default(), error, clock::mono());
        }
    }

    async fn connect_by<L, A>(&self, lookup: impl FnOnce(String) -> L) -> io::Result<UpstreamStream>
    where
        L: Future<Output = io::Result<A>>,
        A: Iterator<Item = SocketAddr>,
    {
        timeout(self.connect_timeout, self.open(lookup))
            .await
            .unwrap_or_else(|_| Err(late("the upstream did not accept")))
    }

    async fn open<L, A>(&self, lookup: impl FnOnce(String) -> L) -> io::Result<UpstreamStream>
    where
        L: Future<Output = io::Result<A>>,
        A: Iterator<Item = SocketAddr>,
    {
        let (host, port) = match &self.endpoint {
            Endpoint::Unix(path) => return Ok(UpstreamStream::Unix(UnixStream::connect(path).await?)),
            Endpoint::Http { host, port } | Endpoint::Https { host, port } => (host, *port),
        };
        let tcp = match host.parse::<IpAddr>() {
            Ok(address) => TcpStream::connect((address, port)).await?,
            Err(_) => self.open_tcp(lookup(format!("{host}:{port}"))).await?,
        };
        tcp.set_nodelay(true)?;
        match &self.tls {
            None => Ok(UpstreamStream::Tcp(tcp)),
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let connected = connector.connect(name.clone(), tcp).await;
                Ok(UpstreamStream::Tls(Box::new(connected.inspect_err(|error| self.tell(error))?)))
            }
        }
    }

    async fn open_tcp<A>(&self, lookup: impl Future<Output = io::Result<A>>) -> io::Result<TcpStream>
    where
        A: Iterator<Item = SocketAddr>,
    {
        let half = self.connect_timeout / 2;
        let last_good = *self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        // A resolver that is down keeps silent for much longer than a connection may take: there must be time left for
        // the address that is known.
        let patience = if last_good.is_some() { half } else { self.connect_timeout };
        let found = timeout(patience, lookup).await.unwrap_or_else(|_| Err(late("the upstream's name was not found")));
        let addresses = match (found, last_good) {
            (Ok(found), _) => found.collect(),
            (Err(_), Some(address)) => vec![address],
            (Err(error), None) => return Err(error),
        };
        let pause = half / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let (address, stream) = first_to_accept(addresses, pause, TcpStream::connect).await?;
        *self.last_good.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
        Ok(stream)
    }
}

/// Tries one address after the other, the next one when those before have failed or were silent for `pause`; and goes on
/// waiting for those. One that swallows all packets costs its pause, and one that is only slow loses nothing (RFC 8305
/// §5).
async fn first_to_accept<S, C>(
    addresses: Vec<SocketAddr>,
    pause: Duration,
    connect: impl Fn(SocketAddr) -> C,
) -> io::Result<(SocketAddr, S)>
where
    C: Future<Output = io::Result<S>>,
{
    let connect = &connect;
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the upstream's name has no address");
    let mut trying = FuturesUnordered::new();
    let mut next = addresses.into_iter();
    loop {
        let address = next.next();
        trying.extend(address.map(|address| async move { (address, connect(address).await) }));
        let outcome = match address {
            Some(_) => timeout(pause, trying.next()).await,
            None => Ok(trying.next().await),
        };
        match outcome {
            Ok(Some((address, Ok(stream)))) => return Ok((address, stream)),
            Ok(Some((_, Err(error)))) => failure = error,
            Ok(None) => return Err(failure),
            Err(_) => {}
        }
    }
}

fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} in time"))
}

fn client_config(
    host: &str,
    settings: &UpstreamTls,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), DestinationError> {
    let mut roots = RootCertStore::empty();
    match &settings.ca {
        Some(path) => {
            for certificate in read_certificates(path)? {
                roots.add(certificate).map_err(DestinationError::Tls)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(DestinationError::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(DestinationError::Tls)?
        .with_root_certificates(roots);
    let mut config = match (&settings.certificate, &settings.private_key) {
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|source| DestinationError::Pem { path: key.clone(), source })?;
            builder.with_client_auth_cert(read_certificates(certificate)?, key).map_err(DestinationError::Tls)?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = settings.server_name.as_deref().unwrap_or(host);
    let name = ServerName::try_from(name.to_owned()).map_err(|_| DestinationError::ServerName(name.into()))?;
    Ok((Arc::new(config), name))
}

fn read_certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, DestinationError> {
    let pem = |source| DestinationError::Pem { path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(pem)?.collect::<Result<_, _>>().map_err(pem)
}

/// A connection to the upstream, whatever it is made of.
#[derive(Debug)]
pub enum UpstreamStream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

macro_rules! each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            UpstreamStream::Tcp($inner) => $call,
            UpstreamStream::Unix($inner) => $call,
            UpstreamStream::Tls($inner) => $call,
        }
    };
}

impl UpstreamStream {
    /// Ready where the socket has something to say, or has been closed; no system call while it has not.
    pub fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx).map(drop),
            Self::Unix(unix) => unix.poll_read_ready(cx).map(drop),
            Self::Tls(tls) => tls.get_ref().0.poll_read_ready(cx).map(drop),
        }
    }
}

impl AsyncRead for UpstreamStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, inner => inner.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::pending};

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    /// Asks the addresses 1, 2, … of which each does what it says: `refuses`, `accepts`, `is silent`, or `is slow` and
    /// accepts once all have been asked. Gives who it was, or why nobody.
    #[track_caller]
    fn check(peers: &[&str], pause: Duration, expected: Result<u16, io::ErrorKind>) {
        let addresses = (1..).zip(peers).map(|(port, _)| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let (all_asked, asked) = (tokio::sync::Notify::new(), RefCell::new(0));
        let connect = async |address: SocketAddr| {
            *asked.borrow_mut() += 1;
            if *asked.borrow() == peers.len() {
                all_asked.notify_one();
            }
            match peers[usize::from(address.port()) - 1] {
                "accepts" => Ok(()),
                "refuses" => Err(io::ErrorKind::ConnectionRefused.into()),
                "is slow" => {
                    all_asked.notified().await;
                    Ok(())
                }
                _ => pending().await,
            }
        };
        let outcome = run(first_to_accept(addresses, pause, connect));
        assert_eq!(outcome.map(|(address, ())| address.port()).map_err(|error| error.kind()), expected, "{peers:?}");
    }

    #[test]
    fn no_address_uses_up_the_time_of_the_others() {
        // Nothing takes this long.
        let (moment, for_ever) = (Duration::from_millis(10), Duration::from_secs(3600));
        check(&["accepts", "accepts"], for_ever, Ok(1));
        check(&["refuses", "accepts"], for_ever, Ok(2));
        check(&["is silent", "accepts"], moment, Ok(2));
        check(&["is silent", "refuses", "is silent", "accepts"], moment, Ok(4));
        check(&["is slow", "is silent"], moment, Ok(1));
        check(&["refuses", "refuses"], for_ever, Err(io::ErrorKind::ConnectionRefused));
        check(&[], for_ever, Err(io::ErrorKind::NotFound));
    }

    /// A resolver that is down does not say so: it is silent.
    #[test]
    fn the_last_good_address_is_used_while_the_resolver_is_silent() {
        run(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let good = listener.local_addr().unwrap();
            let url = "http://upstream.invalid:80".parse().unwrap();
            let destination = Destination::new(&url, None, Duration::from_secs(1)).unwrap();
            let silent = |_| pending::<io::Result<std::iter::Empty<SocketAddr>>>();
            assert_eq!(destination.connect_by(silent).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
            destination.connect_by(async |_| Ok([good].into_iter())).await.unwrap();
            destination.connect_by(silent).await.unwrap();
            destination.connect_by(async |_| Err::<std::iter::Empty<_>, _>(io::Error::other("no"))).await.unwrap();
        });
    }
}
