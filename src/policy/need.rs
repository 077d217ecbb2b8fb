//! What a request needs: one demand for each reading of it that leads to another route.

use std::{fmt, time::Duration};

use super::{Open, OpenFor, Passage, Route, permit::Observed};
use crate::{
    keys::Permission,
    rejection::{Reason, Rejection},
};

/// What a request needs. All of its demands must be met.
#[derive(Debug)]
pub struct Need<'p> {
    sent: Demand<'p>,
    /// Of the other readings. Nearly always empty, which costs no allocation.
    others: Vec<Demand<'p>>,
    preflight: bool,
}

/// What one reading of the request needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand<'p> {
    pub(super) route: Option<&'p Route>,
    pub(super) asks: Asks<'p>,
    pub(super) reading: Reading,
}

/// What is asked of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks<'p> {
    /// Nothing, not even that there is one.
    NoKey(OpenFor),
    /// Any one of these scopes, and what the route says of the owner. No scopes: any key will do.
    Key(&'p [Permission]),
    /// No key is enough.
    Nobody,
}

/// In which reading of the request a demand arises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub(super) method: Origin,
    pub(super) path: Origin,
    pub(super) view: View,
}

/// Whether the request line says it, or something that overrides the request line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Origin {
    #[default]
    Sent,
    Effective,
}

/// How the upstream looks at the path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum View {
    #[default]
    Exact,
    /// It ignores case or the final slash.
    Folded,
    /// It cuts off what follows a `;`, or takes `%2F` for a separator.
    Resolved,
}

impl Reading {
    /// Whether this is the request as it was sent, taken literally.
    pub fn is_literal(self) -> bool {
        self == Self::default()
    }
}

/// As part of a sentence: "by the effective method".
impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.method, self.path) {
            (Origin::Sent, Origin::Sent) => "as sent",
            (Origin::Effective, Origin::Sent) => "by the effective method",
            (Origin::Sent, Origin::Effective) => "by the effective path",
            (Origin::Effective, Origin::Effective) => "by the effective method and path",
        })?;
        f.write_str(match self.view {
            View::Exact => "",
            View::Folded => ", case and final slash ignored",
            View::Resolved => ", \";\" and \"%2F\" as the upstream may read them",
        })
    }
}

impl<'p> Need<'p> {
    pub(super) fn new(sent: Demand<'p>) -> Self {
        Self { sent, others: Vec::new(), preflight: false }
    }

    /// Adds what another reading needs, unless it is what is needed already.
    pub(super) fn add(&mut self, demand: Demand<'p>) {
        if !self.demands().any(|known| known.is_same(&demand)) {
            self.others.push(demand);
        }
    }

    pub(super) fn forward_preflight(&mut self) {
        self.preflight = true;
    }

    pub(super) fn demands(&self) -> impl Iterator<Item = &Demand<'p>> {
        std::iter::once(&self.sent).chain(&self.others)
    }

    /// The routes of all demands, one after the other; none for a reading that no route covers.
    pub(super) fn routes(&self) -> impl Iterator<Item = Option<&'p Route>> {
        self.demands().map(|demand| demand.route)
    }

    /// The route of the request as sent; none when none covers it, or when there are no routes at all.
    pub fn route(&self) -> Option<&'p Route> {
        self.sent.route
    }

    /// The passage of a request that needs no key in any reading: its credential is stripped and not judged.
    pub fn open(&self) -> Option<Open> {
        let mut reason = None;
        for demand in self.demands() {
            match demand.asks {
                Asks::NoKey(open_for) => reason = reason.or(Some(open_for)),
                Asks::Key(_) | Asks::Nobody => return None,
            }
        }
        reason.map(Open::new)
    }

    /// The passage of a forwarded CORS preflight. To be asked only when the request presents no credential: with one,
    /// it is judged as any other request.
    pub fn open_without_credential(&self) -> Option<Open> {
        self.preflight.then(|| Open::new(OpenFor::Preflight))
    }

    /// Whether the request takes from the limit of the address. It does unless all its routes say otherwise.
    pub fn takes_ip_limit(&self) -> bool {
        self.routes().any(|route| route.is_none_or(|route| route.limits))
    }

    /// The protocols that the connection may be upgraded to: those of the route as sent.
    pub fn upgrades(&self) -> &'p [Box<str>] {
        self.sent.route.map_or(&[], |route| &route.upgrade)
    }

    /// Whether the connection may be upgraded to this protocol: in every reading.
    pub fn allows_upgrade(&self, protocol: &str) -> bool {
        self.routes().all(|route| {
            route.is_some_and(|route| route.upgrade.iter().any(|allowed| allowed.eq_ignore_ascii_case(protocol)))
        })
    }

    /// How many bytes a body may have: the least of what its routes say, which is `default` where one says nothing.
    pub fn max_body(&self, default: u64) -> u64 {
        self.routes()
            .fold(u64::MAX, |least, route| least.min(route.and_then(|route| route.max_body).unwrap_or(default)))
    }

    /// How long the upstream may take, where the route as sent says so.
    pub fn response_timeout(&self) -> Option<Duration> {
        self.sent.route.and_then(|route| route.response_timeout)
    }

    /// Which of [`Policy::upstreams`](super::Policy::upstreams) gets the request, where the route as sent names one.
    pub fn upstream(&self) -> Option<usize> {
        self.sent.route.and_then(|route| route.upstream)
    }

    /// Whether a refusal is noted and the request forwarded all the same: where every reading that asks for a key
    /// leads to a route that observes.
    pub fn observes(&self) -> bool {
        self.demands().all(|demand| match demand.asks {
            Asks::NoKey(_) => true,
            Asks::Key(_) | Asks::Nobody => demand.route.is_some_and(|route| route.observe),
        })
    }

    /// The passage of a refused request whose routes only observe; else the refusal.
    ///
    /// # Errors
    ///
    /// The same refusal, where a route enforces or the refusal is not one of those that a route may observe.
    pub fn observed(&self, rejection: Rejection) -> Result<Passage, Rejection> {
        if self.observes() && may_be_observed(rejection.reason) {
            Ok(Passage::Observed(Observed::new(rejection)))
        } else {
            Err(rejection)
        }
    }
}

impl Demand<'_> {
    fn is_same(&self, other: &Self) -> bool {
        self.asks == other.asks && self.route.map(|route| route.index) == other.route.map(|route| route.index)
    }
}

/// Whether the refusal is by stages 4 to 8: what is lacking is a key or something of a key. A message that two parsers
/// could read differently, a used-up address and a failing upstream are never passed over.
fn may_be_observed(reason: Reason) -> bool {
    match reason {
        Reason::MissingCredentials
        | Reason::Malformed
        | Reason::UnknownKey
        | Reason::WrongSecret
        | Reason::Revoked
        | Reason::Expired
        | Reason::OwnerSuspended
        | Reason::FailureLimit
        | Reason::ForbiddenCallerIp
        | Reason::ModeMismatch
        | Reason::RouteNotAllowed
        | Reason::InsufficientScope
        | Reason::PermissionDenied
        | Reason::KycRequired
        | Reason::KeyLimit
        | Reason::OwnerLimit
        | Reason::KeysUnavailable
        | Reason::Overloaded => true,
        Reason::AmbiguousFraming
        | Reason::AmbiguousHost
        | Reason::AmbiguousFieldName
        | Reason::AmbiguousMethod
        | Reason::AmbiguousPath
        | Reason::AmbiguousCredentials
        | Reason::MethodNotAllowed
        | Reason::RequestTimeout
        | Reason::BodyTooLarge
        | Reason::UriTooLong
        | Reason::HeadersTooLarge
        | Reason::IpLimit
        | Reason::UpstreamUnreachable
        | Reason::UpstreamTimeout
        | Reason::Internal => false,
    }
}
