//! What a reload swaps at once: settings compiled for the request path, and each serving thread's view of them.

use std::{rc::Rc, sync::Arc, time::Duration};

use http::HeaderValue;

use super::{
    headers::HeaderRules,
    settings::{HostRule, OwnerHeaderSettings, UpstreamSettings, UpstreamTls, UpstreamUrl},
    upstream::{Destination, DestinationError, InFlight, Pool},
};
use crate::{
    credential::{self, Asked},
    facts,
    keys::{Mode, secret::Secret},
    limits::{self, HeaderStyle},
    policy::{self, Policy, RouteTls, RouteUpstream},
    rejection::Format,
};

/// What the challenges of a 401 name (RFC 9110 §11.5).
const REALM: &str = "API";

/// The typed settings that the request path needs.
#[derive(Debug)]
pub struct Settings {
    /// How requests are read.
    pub facts: facts::Settings,
    /// What counts as a credential.
    pub credential: credential::Settings,
    /// What requests need.
    pub policy: policy::Settings,
    /// How often anybody may.
    pub limits: limits::Settings,
    /// Where requests go.
    pub upstream: UpstreamSettings,
    /// What the upstream is told of the key.
    pub owner_headers: OwnerHeaderSettings,
    /// The shape of refusals.
    pub errors: Format,
    /// The largest body, where no route says otherwise.
    pub max_body: u64,
    /// A path that is answered here, without a key.
    pub health_path: Option<Box<str>>,
    /// Whether requests in flight are cut when their key is revoked.
    pub cut_on_revoke: bool,
}

/// Settings compiled for the request path. Immutable; a reload makes a new one.
#[derive(Debug)]
pub struct Live {
    /// How requests are read.
    pub facts: facts::Settings,
    /// What counts as a credential.
    pub credential: credential::Settings,
    /// One challenge per accepted scheme.
    pub challenges: Vec<HeaderValue>,
    /// The same for callers whose credential failed.
    pub challenges_after_failure: Vec<HeaderValue>,
    /// What requests need.
    pub policy: Policy,
    /// The limits.
    pub limits: Arc<limits::Plan>,
    /// Which rate-limit fields callers get.
    pub limit_headers: HeaderStyle,
    /// Which header fields pass.
    pub rules: HeaderRules,
    /// The shape of refusals.
    pub errors: Format,
    /// The largest body, where no route says otherwise.
    pub max_body: u64,
    /// A path that is answered here, without a key.
    pub health_path: Option<Box<str>>,
    /// Whether requests in flight are cut when their key is revoked.
    pub cut_on_revoke: bool,
    /// What `Host` the upstream gets.
    pub host: HostRule,
    authorization: Option<HeaderValue>,
    /// From the last byte of the request to the head of the answer.
    pub response_timeout: Duration,
    /// How many requests may be on their way at once.
    pub in_flight: InFlight,
    idle_timeout: Duration,
    max_connections: usize,
    /// The upstream, then those of modes, then those of routes.
    destinations: Vec<Arc<Destination>>,
    of_mode: [Option<usize>; 2],
    /// By the policy's own number of the upstream.
    of_route: Vec<OfRoute>,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// An upstream cannot be used.
    #[error("the upstream {url} cannot be used")]
    Destination {
        /// Its url.
        url: UpstreamUrl,
        /// Why.
        source: DestinationError,
    },
    /// The upstream of a route is no url.
    #[error("the upstream {url:?} of a route is no url: {why}")]
    RouteUpstream {
        /// What stands there.
        url: Box<str>,
        /// Why it is none.
        why: &'static str,
    },
    /// The credential for the upstream is no header value.
    #[error("the authorization of an upstream holds something that cannot stand in a header field")]
    Authorization,
}

/// Where a route's requests go that has an upstream of its own.
#[derive(Debug)]
struct OfRoute {
    destination: usize,
    authorization: Option<HeaderValue>,
}

/// A whole field value that no log shows.
fn field_value(secret: &Secret) -> Result<HeaderValue, LiveError> {
    let mut value = HeaderValue::from_bytes(secret.expose()).map_err(|_| LiveError::Authorization)?;
    value.set_sensitive(true);
    Ok(value)
}

impl Live {
    /// Compiles settings; reads the certificates of upstreams.
    ///
    /// # Errors
    ///
    /// See [`LiveError`].
    pub fn new(settings: Settings) -> Result<Self, LiveError> {
        let upstream = settings.upstream;
        let mut destinations = Vec::new();
        let mut add = |url: &UpstreamUrl, tls: Option<&RouteTls>| {
            let own = tls.map(UpstreamTls::from);
            let tls = own.as_ref().or(upstream.tls.as_ref());
            let destination = Destination::new(url, tls, upstream.connect_timeout)
                .map_err(|source| LiveError::Destination { url: url.clone(), source })?;
            destinations.push(Arc::new(destination));
            Ok(destinations.len() - 1)
        };
        add(&upstream.url, None)?;
        let mut of_mode = [None; 2];
        for (mode, url) in &upstream.modes {
            of_mode[mode_index(*mode)] = Some(add(url, None)?);
        }
        let policy = Policy::new(&settings.policy);
        let mut of_route = Vec::new();
        for RouteUpstream { url, authorization, tls } in policy.upstreams() {
            let url = url.parse().map_err(|why| LiveError::RouteUpstream { url: url.clone(), why })?;
            let authorization = authorization.as_ref().map(field_value).transpose()?;
            of_route.push(OfRoute { destination: add(&url, tls.as_ref())?, authorization });
        }
        let authorization = upstream.authorization.as_ref().map(field_value).transpose()?;
        let client_ip_header = settings.facts.client_ip_header.clone();
        Ok(Self {
            facts: settings.facts,
            challenges: credential::challenges(&settings.credential, REALM, Asked::First),
            challenges_after_failure: credential::challenges(&settings.credential, REALM, Asked::AfterFailure),
            credential: settings.credential,
            policy,
            limit_headers: settings.limits.headers,
            limits: Arc::new(limits::Plan::new(&settings.limits)),
            rules: HeaderRules::new(settings.owner_headers, client_ip_header),
            errors: settings.errors,
            max_body: settings.max_body,
            health_path: settings.health_path,
            cut_on_revoke: settings.cut_on_revoke,
            host: upstream.host,
            authorization,
            response_timeout: upstream.response_timeout,
            in_flight: InFlight::new(upstream.max_in_flight),
            idle_timeout: upstream.idle_timeout,
            max_connections: upstream.max_connections,
            destinations,
            of_mode,
            of_route,
        })
    }

    /// What the upstream gets as `Authorization` in place of the client's: that of a route, where it has one of its own.
    pub fn authorization(&self, of_route: Option<usize>) -> Option<&HeaderValue> {
        match of_route {
            None => self.authorization.as_ref(),
            Some(number) => self.of_route.get(number)?.authorization.as_ref(),
        }
    }

    /// Connections to all upstreams together.
    pub fn upstream_connections(&self) -> usize {
        self.max_connections.saturating_mul(self.destinations.len())
    }

    /// Lets all upstreams together have no more than `most` connections, each its part.
    pub fn bound_upstream_connections(&mut self, most: usize) {
        self.max_connections = self.max_connections.min(most / self.destinations.len().max(1)).max(1);
    }

    /// Follows older settings: what is in flight under those counts.
    pub fn succeed(&mut self, older: &Self) {
        self.in_flight.succeed(&older.in_flight);
    }
}

fn mode_index(mode: Mode) -> usize {
    match mode {
        Mode::Live => 0,
        Mode::Test => 1,
    }
}

/// One serving thread's view of the settings in force: the settings and its own connections to the upstreams.
#[derive(Debug)]
pub struct Local {
    /// The settings.
    pub live: Arc<Live>,
    pools: Vec<Rc<Pool>>,
}

impl Local {
    /// A view for one of `threads` serving threads, each of which gets its share of the connections. What is in use of
    /// an older view's connections counts.
    pub fn new(live: Arc<Live>, threads: usize, older: Option<&Self>) -> Rc<Self> {
        let share = live.max_connections / threads.max(1);
        let older = older.map_or(&[][..], |older| &older.pools);
        let mut unmatched: Vec<&Rc<Pool>> = older.iter().collect();
        let pools = live
            .destinations
            .iter()
            .map(|destination| {
                // Those of the same place that are trusted and shown alike first: routes may differ in nothing else.
                let at = |same: fn(&Destination, &Destination) -> bool| {
                    unmatched.iter().position(|pool| same(pool.destination(), destination))
                };
                let same = at(Destination::is_like).or_else(|| at(Destination::leads_where));
                let older = same.map(|at| unmatched.remove(at));
                Pool::new(Arc::clone(destination), live.idle_timeout, share, older.map(|older| &**older))
            })
            .collect();
        // At once: a long answer may hold the older view for hours, and what lies idle takes places.
        older.iter().for_each(|pool| pool.close());
        Rc::new(Self { live, pools })
    }

    /// The connections that a request takes: its route's, else its key's mode's, else the upstream's.
    pub fn pool(&self, of_route: Option<usize>, mode: Option<Mode>) -> &Rc<Pool> {
        let of_route = of_route.and_then(|number| self.live.of_route.get(number)).map(|of_route| of_route.destination);
        let of_mode = || mode.and_then(|mode| self.live.of_mode[mode_index(mode)]);
        &self.pools[of_route.or_else(of_mode).unwrap_or(0)]
    }

    /// All of this thread's connections.
    pub fn pools(&self) -> &[Rc<Pool>] {
        &self.pools
    }
}

/// What is leased still goes back to its pool, which keeps nothing any more.
impl Drop for Local {
    fn drop(&mut self) {
        for pool in &self.pools {
            pool.close();
        }
    }
}
