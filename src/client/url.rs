//! The address of a control endpoint.

use std::{fmt, net::IpAddr, str::FromStr};

use http::{Uri, uri::Scheme};

/// The address of a control endpoint: `https://host[:port][/base]`; `http://…` only on this machine, since keys and
/// tokens would go in clear.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    host: Box<str>,
    port: u16,
    secure: bool,
    base_path: Box<str>,
}

const SHAPE: &str = "expected \"https://host:port\"";

impl Url {
    /// The name or the address; IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is spoken to by TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// What is put before every path; empty, or begins with `/` and does not end with one.
    pub fn base_path(&self) -> &str {
        &self.base_path
    }

    /// Host and port as a `Host` field has them: no default port, IPv6 in brackets.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.to_string() };
        let default = if self.secure { 443 } else { 80 };
        if self.port == default { host } else { format!("{host}:{}", self.port) }
    }
}

impl FromStr for Url {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| SHAPE)?;
        let authority = uri.authority().ok_or(SHAPE)?;
        if authority.as_str().contains('@') {
            return Err("a url takes no user name or password; use token = { file = \"…\" }");
        }
        if uri.query().is_some() || text.contains('#') {
            return Err("the url of a control endpoint takes no query and no fragment");
        }
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || authority.as_str().ends_with(':') {
            return Err(SHAPE);
        }
        let port = match (authority.port(), authority.port_u16()) {
            (Some(_), None) | (_, Some(0)) => return Err("expected a port between 1 and 65535"),
            (_, port) => port,
        };
        let (secure, default) = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => (true, 443),
            Some(scheme) if *scheme == Scheme::HTTP => (false, 80),
            _ => return Err(SHAPE),
        };
        let local = host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
        if !secure && !local {
            return Err("tokens and keys would go in clear: use https, or http to a loopback address");
        }
        let (host, port) = (host.into(), port.unwrap_or(default));
        Ok(Self { host, port, secure, base_path: uri.path().trim_end_matches('/').into() })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.base_path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: Result<&str, &str>) {
        let read = input.parse::<Url>().map(|url| url.to_string());
        let expected = expected.map(str::to_owned);
        match (&read, &expected) {
            (Err(read), Err(expected)) => assert!(read.contains(expected), "{read}"),
            _ => assert_eq!(read.ok(), expected.ok(), "{input}"),
        }
    }

    #[test]
    fn urls_are_read_and_printed_alike() {
        check("https://control:8444", Ok("https://control:8444"));
        check("https://control:443/keys/", Ok("https://control/keys"));
        check("https://[2001:db8::1]:8444", Ok("https://[2001:db8::1]:8444"));
        check("http://127.0.0.1:8444", Ok("http://127.0.0.1:8444"));
        check("http://[::1]:8444", Ok("http://[::1]:8444"));
        check("http://localhost", Ok("http://localhost"));
    }

    #[test]
    fn nothing_goes_in_clear_beyond_this_machine() {
        check("http://control:8444", Err("in clear"));
        check("http://10.0.0.1", Err("in clear"));
        check("http://0.0.0.0", Err("in clear"));
        check("http://127.0.0.1.example.com", Err("in clear"));
    }

    #[test]
    fn what_is_no_url_is_refused() {
        check("control:8444", Err("expected \"https"));
        check("ftp://control", Err("expected \"https"));
        check("https://", Err("expected \"https"));
        check("https://a:", Err("expected \"https"));
        check("https://a:0", Err("port"));
        check("https://a?b", Err("no query"));
        check("https://user:word@a", Err("no user name"));
    }
}
