//! What the policy is told.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use http::Method;

use super::PathPattern;
use crate::{
    facts::Oddity,
    keys::{Mode, Permission, secret::Secret},
};

/// What the policy is told.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What each method needs where no route says otherwise.
    pub methods: Methods,
    /// Whether CORS preflights without a credential go on.
    pub forward_preflight: bool,
    /// The routes; the first match wins.
    pub routes: Vec<RouteSettings>,
    /// Which key mode a host accepts; names without port. Empty: every host accepts every mode.
    pub hosts: BTreeMap<String, Mode>,
}

/// Which methods read, write, and need no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Methods {
    /// Need `read`. GET brings HEAD with it, unless another list has HEAD.
    pub read: Vec<Method>,
    /// Need `write`.
    pub write: Vec<Method>,
    /// Need no key, and go on without owner headers.
    pub pass: Vec<Method>,
}

impl Default for Methods {
    fn default() -> Self {
        Self {
            read: vec![Method::GET, Method::HEAD, Method::OPTIONS],
            write: vec![Method::POST, Method::PUT, Method::PATCH, Method::DELETE],
            pass: Vec::new(),
        }
    }
}

/// One `[[route]]`.
#[derive(Clone, Debug)]
pub struct RouteSettings {
    /// Which paths it covers.
    pub path: PathPattern,
    /// Which methods; GET includes HEAD. Absent: every method that some list of [`Methods`] or some route names.
    pub methods: Option<Vec<Method>>,
    /// On which hosts; empty: all.
    pub hosts: Vec<String>,
    /// Any one of these is needed. Empty: [`Methods`] decides.
    pub scope: Vec<Permission>,
    /// What the owner must be capable of.
    pub capability: Option<Box<str>>,
    /// Whether the owner's KYC must be approved.
    pub kyc: bool,
    /// Whether no key is asked for.
    pub public: bool,
    /// Whether what a key lacks is noted and forwarded all the same.
    pub observe: bool,
    /// Whether its requests take from the limit of the address.
    pub limits: bool,
    /// The protocols that a connection may be upgraded to.
    pub upgrade: Vec<Box<str>>,
    /// Another upstream.
    pub upstream: Option<RouteUpstream>,
    /// How many bytes a body may have.
    pub max_body: Option<u64>,
    /// How long the upstream may take.
    pub response_timeout: Option<Duration>,
    /// What its paths may hold that is refused elsewhere.
    pub allow: Vec<Oddity>,
}

/// The upstream of a route, where it is not that of all others.
#[derive(Clone, Debug)]
pub struct RouteUpstream {
    /// Its url.
    pub url: Box<str>,
    /// What it gets as `Authorization` in place of the client's. That of the other upstream it never gets.
    pub authorization: Option<Secret>,
    /// How TLS with it is done; absent: as with the other upstream.
    pub tls: Option<RouteTls>,
}

/// How TLS with the upstream of a route is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTls {
    /// The only roots that are trusted; the system's when absent.
    pub ca: Option<PathBuf>,
    /// The name asked for and checked, where it is not the url's host.
    pub server_name: Option<Box<str>>,
    /// The client certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// One that gets no `Authorization` of ours.
impl From<&str> for RouteUpstream {
    fn from(url: &str) -> Self {
        Self { url: url.into(), authorization: None, tls: None }
    }
}

impl PartialEq for RouteUpstream {
    fn eq(&self, other: &Self) -> bool {
        let authorization = |upstream: &Self| upstream.authorization.as_ref().map(|secret| secret.expose().to_vec());
        self.url == other.url && self.tls == other.tls && authorization(self) == authorization(other)
    }
}

impl RouteSettings {
    /// A route with nothing but a path: every method, every host, and what the method needs.
    pub fn new(path: PathPattern) -> Self {
        Self {
            path,
            methods: None,
            hosts: Vec::new(),
            scope: Vec::new(),
            capability: None,
            kyc: false,
            public: false,
            observe: false,
            limits: true,
            upgrade: Vec::new(),
            upstream: None,
            max_body: None,
            response_timeout: None,
            allow: Vec::new(),
        }
    }
}
