//! Opening connections to the upstream: TCP, TLS over it, or a Unix socket.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http::HeaderValue;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::proxy::settings::{Endpoint, UpstreamTls, UpstreamUrl};

/// One upstream, as all serving threads share it.
#[derive(Debug)]
pub struct Destination {
    endpoint: Endpoint,
    /// What is put before every path.
    pub base_path: Box<str>,
    /// The host and port of its url, as a `Host` field.
    pub authority: HeaderValue,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
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
        let default = UpstreamTls::default();
        let tls = match &url.endpoint {
            Endpoint::Https { host, .. } => Some(client_config(host, tls.unwrap_or(&default))?),
            Endpoint::Http { .. } | Endpoint::Unix(_) => None,
        };
        Ok(Self {
            endpoint: url.endpoint.clone(),
            base_path: url.base_path.clone(),
            authority: HeaderValue::try_from(url.authority()).unwrap_or_else(|_| HeaderValue::from_static("localhost")),
            tls,
            connect_timeout,
            last_good: Mutex::new(None),
        })
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
        tokio::time::timeout(self.connect_timeout, self.open())
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the upstream did not accept in time")))
    }

    async fn open(&self) -> io::Result<UpstreamStream> {
        let (host, port) = match &self.endpoint {
            Endpoint::Unix(path) => return Ok(UpstreamStream::Unix(UnixStream::connect(path).await?)),
            Endpoint::Http { host, port } | Endpoint::Https { host, port } => (host, *port),
        };
        let tcp = self.open_tcp(host, port).await?;
        tcp.set_nodelay(true)?;
        match &self.tls {
            None => Ok(UpstreamStream::Tcp(tcp)),
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                Ok(UpstreamStream::Tls(Box::new(connector.connect(name.clone(), tcp).await?)))
            }
        }
    }

    async fn open_tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return TcpStream::connect((address, port)).await;
        }
        let mut failure = None;
        match tokio::net::lookup_host((host, port)).await {
            Ok(addresses) => {
                for address in addresses {
                    match TcpStream::connect(address).await {
                        Ok(stream) => {
                            *self.last_good.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
                            return Ok(stream);
                        }
                        Err(error) => failure = Some(error),
                    }
                }
            }
            Err(error) => {
                let last_good = *self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
                match last_good {
                    Some(address) => return TcpStream::connect(address).await,
                    None => failure = Some(error),
                }
            }
        }
        Err(failure.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the upstream's name has no address")))
    }
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
