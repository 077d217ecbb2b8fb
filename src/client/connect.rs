//! Opening a connection: the name is asked for every time, and each of its addresses is tried.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Client, ClientError, Settings, SettingsError};

/// How long one of several addresses may keep the others waiting.
const EACH: Duration = Duration::from_secs(2);

/// A connection, whatever it is made of.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// How TLS is spoken with the endpoint, and the name that its certificate must have.
pub(super) fn tls(settings: &Settings) -> Result<(Arc<ClientConfig>, ServerName<'static>), SettingsError> {
    let mut roots = RootCertStore::empty();
    match &settings.ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(SettingsError::Tls)?;
            }
        }
        None => _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    }
    if roots.is_empty() {
        return Err(SettingsError::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(SettingsError::Tls)?
        .with_root_certificates(roots);
    let mut config = match &settings.identity {
        Some((certificate, key)) => {
            let key =
                PrivateKeyDer::from_pem_file(key).map_err(|source| SettingsError::Pem { path: key.clone(), source })?;
            builder.with_client_auth_cert(certificates(certificate)?, key).map_err(SettingsError::Tls)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = settings.url.host();
    let name = ServerName::try_from(name.to_owned()).map_err(|_| SettingsError::ServerName(name.into()))?;
    Ok((Arc::new(config), name))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let pem = |source| SettingsError::Pem { path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(pem)?.collect::<Result<_, _>>().map_err(pem)
}

/// Opens a connection, TLS included.
pub(super) async fn open(client: &Client) -> Result<Stream, ClientError> {
    let tcp = open_tcp(client).await?;
    let _ = tcp.set_nodelay(true);
    let Some((config, name)) = &client.tls else { return Ok(Stream::Plain(tcp)) };
    let connected = TlsConnector::from(Arc::clone(config)).connect(name.clone(), tcp).await;
    let stream = connected.map_err(|source| ClientError::Tls { authority: client.url.authority(), source })?;
    Ok(Stream::Tls(Box::new(stream)))
}

async fn open_tcp(client: &Client) -> Result<TcpStream, ClientError> {
    let (host, port) = (client.url.host(), client.url.port());
    let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![(address, port).into()],
        Err(_) => {
            let found = lookup_host((host, port)).await;
            found.map_err(|source| ClientError::Name { host: host.into(), source })?.collect()
        }
    };
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in &addresses {
        // A resolver must not lead what goes in clear off this machine.
        if !client.url.is_secure() && !address.ip().to_canonical().is_loopback() {
            failure = io::Error::other("tokens and keys go in clear to a loopback address only");
            continue;
        }
        let connecting = TcpStream::connect(*address);
        let connected = if addresses.len() > 1 {
            tokio::time::timeout(EACH, connecting).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
        } else {
            connecting.await
        };
        match connected {
            Ok(tcp) => return Ok(tcp),
            Err(error) => failure = error,
        }
    }
    Err(ClientError::Connect { authority: client.url.authority(), source: failure })
}

impl Stream {
    /// The socket below.
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

macro_rules! each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Plain($inner) => $call,
            Stream::Tls($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), inner => Pin::new(inner).poll_shutdown(cx))
    }
}
