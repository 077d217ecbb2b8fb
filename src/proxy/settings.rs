//! What the forwarding half is told: where the upstream is, what it gets, and how long it may take.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, time::Duration};

use http::{HeaderName, HeaderValue, Uri, uri::Scheme};

use crate::{
    keys::{Mode, secret::Secret},
    policy::RouteTls,
};

/// How the upstream is reached.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Where it is.
    pub url: UpstreamUrl,
    /// What `Host` it gets.
    pub host: HostRule,
    /// What it gets as `Authorization` in place of the client's; a whole field value.
    pub authorization: Option<Secret>,
    /// From the first SYN to the end of the handshake.
    pub connect_timeout: Duration,
    /// From the last byte of the request to the head of the answer.
    pub response_timeout: Duration,
    /// How long a kept connection may lie idle; the upstream's own `Keep-Alive` lowers it.
    pub idle_timeout: Duration,
    /// Requests in flight, over all serving threads; beyond it 503.
    pub max_in_flight: usize,
    /// Connections, over all serving threads.
    pub max_connections: usize,
    /// What an `https` upstream is trusted by and shown; `None`: the system's roots, no client certificate.
    pub tls: Option<UpstreamTls>,
    /// Another upstream for the keys of a mode.
    pub modes: BTreeMap<Mode, UpstreamUrl>,
}

/// How TLS with the upstream is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The only roots that are trusted, in PEM; the system's when absent.
    pub ca: Option<PathBuf>,
    /// The name asked for and checked, where it is not the url's host.
    pub server_name: Option<Box<str>>,
    /// The client certificate, in PEM; comes with `private_key`.
    pub certificate: Option<PathBuf>,
    /// The key of the client certificate, in PEM.
    pub private_key: Option<PathBuf>,
}

impl From<&RouteTls> for UpstreamTls {
    fn from(tls: &RouteTls) -> Self {
        let (certificate, private_key) = tls.identity.clone().unzip();
        Self { ca: tls.ca.clone(), server_name: tls.server_name.clone(), certificate, private_key }
    }
}

/// What `Host` the upstream gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRule {
    /// The client's.
    Preserve,
    /// The host (and port) of the upstream's url.
    Upstream,
    /// Always this.
    Name(HeaderValue),
}

/// Where an upstream listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// HTTP/1.1 over TCP.
    Http {
        /// A name or an address; IPv6 without brackets.
        host: Box<str>,
        /// The port.
        port: u16,
    },
    /// HTTP/1.1 over TLS.
    Https {
        /// A name or an address; IPv6 without brackets.
        host: Box<str>,
        /// The port.
        port: u16,
    },
    /// HTTP/1.1 over a Unix socket.
    Unix(PathBuf),
}

/// The address of an upstream: `http://host[:port][/base]`, `https://…` or `unix:/path.sock`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamUrl {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// What is put before every path; empty, or begins with `/` and does not end with one.
    pub base_path: Box<str>,
}

impl UpstreamUrl {
    /// Host and port as a `Host` field has them: no default port, IPv6 in brackets; `localhost` for a Unix socket.
    pub fn authority(&self) -> String {
        let (host, port, default) = match &self.endpoint {
            Endpoint::Http { host, port } => (host, *port, 80),
            Endpoint::Https { host, port } => (host, *port, 443),
            Endpoint::Unix(_) => return "localhost".into(),
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
        if port == default { host } else { format!("{host}:{port}") }
    }
}

impl FromStr for UpstreamUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.starts_with('/') && path.len() > 1 {
                Ok(Self { endpoint: Endpoint::Unix(path.into()), base_path: "".into() })
            } else {
                Err("expected an absolute path after \"unix:\", such as \"unix:/run/api.sock\"")
            };
        }
        let uri: Uri = text.parse().map_err(|_| SHAPE)?;
        let authority = uri.authority().ok_or(SHAPE)?;
        if authority.as_str().contains('@') {
            return Err("a url takes no user name or password; use authorization = { file = \"…\" }");
        }
        if uri.query().is_some() || text.contains('#') {
            return Err("an upstream's url takes no query and no fragment");
        }
        if authority.port().is_none() && authority.as_str().ends_with(':') {
            return Err("expected a port after \":\"");
        }
        let host = authority.host();
        let host: Box<str> = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).into();
        if host.is_empty() {
            return Err(SHAPE);
        }
        let port = match (authority.port(), authority.port_u16()) {
            (Some(_), None) | (_, Some(0)) => return Err("expected a port between 1 and 65535"),
            (_, port) => port,
        };
        let endpoint = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => Endpoint::Http { host, port: port.unwrap_or(80) },
            Some(scheme) if *scheme == Scheme::HTTPS => Endpoint::Https { host, port: port.unwrap_or(443) },
            _ => return Err(SHAPE),
        };
        Ok(Self { endpoint, base_path: uri.path().trim_end_matches('/').into() })
    }
}

const SHAPE: &str = "expected \"http://host:port\", \"https://host:port\" or \"unix:/path.sock\"";

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Http { .. } => write!(f, "http://{}{}", self.authority(), self.base_path),
            Endpoint::Https { .. } => write!(f, "https://{}{}", self.authority(), self.base_path),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The fields by which the upstream learns whose request it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerHeaderSettings {
    /// No client-sent field under it passes, in lower case; nor in the upstream's answers.
    pub reserved_prefix: Box<str>,
    /// The id of the key.
    pub key_id: HeaderName,
    /// The id of the owner.
    pub owner: HeaderName,
    /// The scopes, separated by spaces.
    pub scopes: HeaderName,
    /// The mode.
    pub mode: HeaderName,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: Result<&str, &str>) {
        let read = input.parse::<UpstreamUrl>().map(|url| url.to_string());
        assert_eq!(read.as_deref().map_err(|error| *error), expected);
    }

    #[test]
    fn urls_are_read_and_printed_alike() {
        check("http://127.0.0.1:8080", Ok("http://127.0.0.1:8080"));
        check("http://api.internal/", Ok("http://api.internal"));
        check("https://[::1]:8443/base/", Ok("https://[::1]:8443/base"));
        check("https://api.internal:443", Ok("https://api.internal"));
        check("unix:/run/api.sock", Ok("unix:/run/api.sock"));
        check("unix:///run/api.sock", Ok("unix:/run/api.sock"));
    }

    #[test]
    fn what_is_no_upstream_is_refused() {
        check("127.0.0.1:8080", Err(SHAPE));
        check("ftp://files", Err(SHAPE));
        check("/path", Err(SHAPE));
        check("http://", Err(SHAPE));
        check("http://a:0", Err("expected a port between 1 and 65535"));
        check("http://a:", Err("expected a port after \":\""));
        check("http://a?b", Err("an upstream's url takes no query and no fragment"));
        check("http://user:word@a", Err("a url takes no user name or password; use authorization = { file = \"…\" }"));
        check("unix:api.sock", Err("expected an absolute path after \"unix:\", such as \"unix:/run/api.sock\""));
    }
}
