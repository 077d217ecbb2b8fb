//! A small HTTP/1.1 client for control endpoints: the sidecar syncs by it, and commands manage keys by it.
//!
//! It follows no redirect, knows no proxy of the environment, asks for the address anew at every connection, and bounds
//! everything that an endpoint may send: heads, bodies, lines and the time that all of it takes. An endpoint that lies
//! costs an error.
//!
//! | file | holds |
//! |---|---|
//! | [`url`] | the address of an endpoint; plain HTTP only on this machine |
//! | `connect` | opening a connection: addresses, TLS |
//! | `wire` | one connection: a request and its answer |
//! | [`lines`] | an answer line by line, and how fresh each line provably is |

mod connect;
pub mod lines;
#[cfg(test)]
mod tests;
pub mod url;
mod wire;

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

pub use lines::{Line, Lines};
pub use url::Url;
pub use wire::Connection;

use crate::keys::secret::Secret;

/// How long a connection may take to open, names and TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How an endpoint is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is.
    pub url: Url,
    /// What we show it: the token of `Authorization: Bearer`.
    pub token: Option<Secret>,
    /// The authority that its certificate is checked against; absent: those of the system.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key, for mutual TLS.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A client of one endpoint. It holds no connection: each is opened when it is needed.
pub struct Client {
    url: Url,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    /// What every request carries besides.
    fields: HeaderMap,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status; never a redirect.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body, whole.
    pub body: Vec<u8>,
}

/// What asking for lines came to.
#[derive(Debug)]
pub enum Opened {
    /// 200: the lines follow.
    Lines(Box<Lines>),
    /// Any other status.
    Other(Answer),
}

/// Why settings do not make a client.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file cannot be read or is no PEM.
    #[error("{}: cannot be read as PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// The certificates and keys do not make a TLS client.
    #[error("the TLS settings of the control endpoint cannot be used")]
    Tls(#[source] rustls::Error),
    /// The name that the endpoint's certificate is checked for is none.
    #[error("{0:?} is no name that a certificate can be checked for")]
    ServerName(Box<str>),
    /// There is no root certificate.
    #[error("there are no root certificates; name the authority with ca = \"…\"")]
    NoRoots,
    /// The token cannot stand in a header field.
    #[error("the token holds something that cannot stand in a header field")]
    Token,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The name was not found.
    #[error("the address of {host} was not found")]
    Name {
        /// The name.
        host: Box<str>,
        /// Why.
        source: io::Error,
    },
    /// Nobody accepted the connection.
    #[error("cannot connect to {authority}")]
    Connect {
        /// To whom.
        authority: String,
        /// Why.
        source: io::Error,
    },
    /// TLS failed, as with a certificate that is not trusted.
    #[error("no TLS with {authority}")]
    Tls {
        /// With whom.
        authority: String,
        /// Why.
        source: io::Error,
    },
    /// Something took too long.
    #[error("{0} took too long")]
    Late(&'static str),
    /// The connection broke, or what came is not HTTP.
    #[error("the connection broke, or spoke no HTTP")]
    Http(#[source] hyper::Error),
    /// A redirect, which is not followed: the token is for this endpoint alone.
    #[error("a redirect to {to}, which is not followed (status {status})")]
    Redirect {
        /// Its status.
        status: u16,
        /// Where it pointed, as far as that can be shown.
        to: String,
    },
    /// An answer or a line is too large.
    #[error("{what} is larger than {most} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How large it may be.
        most: u64,
    },
    /// The answer is compressed, which nobody asked for.
    #[error("the answer has a content coding, which was not asked for")]
    Coded,
}

impl ClientError {
    /// Whether the certificate of whoever answered is of an authority that is not trusted here: of an unknown one, or of
    /// another one of the same name.
    pub fn is_untrusted(&self) -> bool {
        use rustls::{
            CertificateError::{BadSignature, UnknownIssuer},
            Error::InvalidCertificate,
        };
        let Self::Tls { source, .. } = self else { return false };
        let error = source.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        matches!(error, Some(InvalidCertificate(UnknownIssuer | BadSignature)))
    }
}

impl Client {
    /// Reads certificates and keys; opens nothing.
    ///
    /// # Errors
    ///
    /// See [`SettingsError`].
    pub fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let authorization = settings
            .token
            .as_ref()
            .map(|token| {
                let text = zeroize::Zeroizing::new([b"Bearer ", token.expose()].concat());
                let mut value = HeaderValue::from_bytes(&text).map_err(|_| SettingsError::Token)?;
                value.set_sensitive(true);
                Ok(value)
            })
            .transpose()?;
        let host = HeaderValue::try_from(settings.url.authority())
            .map_err(|_| SettingsError::ServerName(settings.url.host().into()))?;
        let tls = settings.url.is_secure().then(|| connect::tls(settings)).transpose()?;
        Ok(Self { url: settings.url.clone(), host, authorization, fields: HeaderMap::new(), tls })
    }

    /// The same, with these fields in every request.
    #[must_use]
    pub fn with(self, fields: HeaderMap) -> Self {
        Self { fields, ..self }
    }

    /// Where it leads.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Whether it shows a certificate of ours.
    pub fn shows_certificate(&self) -> bool {
        self.tls.as_ref().is_some_and(|(config, _)| config.client_auth_cert_resolver.has_certs())
    }

    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// The endpoint cannot be reached, or its certificate is not trusted.
    pub async fn connect(&self) -> Result<Connection, ClientError> {
        match tokio::time::timeout(CONNECT_TIMEOUT, connect::open(self)).await {
            Ok(stream) => Connection::new(stream?).await,
            Err(_) => Err(ClientError::Late("connecting")),
        }
    }

    /// Asks on a connection of its own. The body of the answer has at most `most` bytes, and all of it takes no longer
    /// than `patience`. A body is sent as JSON.
    ///
    /// # Errors
    ///
    /// There is no whole answer, or it is a redirect. Any other status is an answer.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        most: usize,
        patience: Duration,
    ) -> Result<Answer, ClientError> {
        let exchange = async { self.connect().await?.request(self, method, path, body, most).await };
        tokio::time::timeout(patience, exchange).await.unwrap_or(Err(ClientError::Late("the answer")))
    }

    /// Asks for lines (`application/x-ndjson`) on a connection of its own, with these fields besides. A line may have a MiB, all together `most`
    /// bytes; who sends no whole line for `idle` is given up.
    ///
    /// # Errors
    ///
    /// There is no head of an answer, or it is a redirect. Any other status is an answer.
    pub async fn stream(
        &self,
        path: &str,
        fields: &HeaderMap,
        most: u64,
        idle: Duration,
    ) -> Result<Opened, ClientError> {
        let open = async { self.connect().await?.open_lines(self, path, fields, most, idle).await };
        tokio::time::timeout(idle, open).await.unwrap_or(Err(ClientError::Late("the answer")))
    }
}

/// The token stays unseen.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}
