//! The compiled policy and its routes.

use http::{HeaderValue, Method};

use super::{
    PathPattern, RouteSettings, RouteUpstream, Settings,
    methods::{Class, Classes, MethodSet},
    need::Asks,
    permit::OpenFor,
};
use crate::{
    facts::{Facts, Host, Oddities},
    keys::{Mode, Permission},
};

static READ: [Permission; 1] = [Permission::Read];
static WRITE: [Permission; 1] = [Permission::Write];

/// The compiled policy. Immutable; a reload makes another one.
#[derive(Debug)]
pub struct Policy {
    pub(super) routes: Box<[Route]>,
    pub(super) classes: Classes,
    /// Every method that some list or some route names. Any other is refused with 405.
    pub(super) known: MethodSet,
    /// Whether some pattern has an upper-case letter or a final slash, so that every path must be looked up folded.
    pub(super) folds: bool,
    pub(super) forward_preflight: bool,
    hosts: Box<[(Box<str>, Mode)]>,
    upstreams: Box<[RouteUpstream]>,
    allow: HeaderValue,
}

/// One route, compiled.
#[derive(Debug)]
pub struct Route {
    pub(super) index: usize,
    pub(super) path: PathPattern,
    pub(super) methods: Option<MethodSet>,
    pub(super) hosts: Box<[Box<str>]>,
    pub(super) scope: Box<[Permission]>,
    pub(super) capability: Option<Box<str>>,
    pub(super) kyc: bool,
    pub(super) public: bool,
    pub(super) observe: bool,
    pub(super) limits: bool,
    pub(super) upgrade: Box<[Box<str>]>,
    pub(super) upstream: Option<usize>,
    pub(super) max_body: Option<u64>,
    pub(super) response_timeout: Option<std::time::Duration>,
    pub(super) allow: Oddities,
}

/// A route that no request ever meets, and the one that takes all of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// The place of the route in the settings.
    pub route: usize,
    /// The place of the first of the routes that stand before it and cover it.
    pub by: usize,
}

impl Route {
    /// The place of the route in the settings.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The path pattern as typed: what logs call the route.
    pub fn label(&self) -> &str {
        self.path.as_str()
    }

    /// Whether the route covers this method.
    pub(super) fn takes(&self, method: &Method) -> bool {
        self.methods.as_ref().is_none_or(|methods| methods.contains(method))
    }

    /// Whether the route is of this host.
    pub(super) fn is_on(&self, host: &Host) -> bool {
        if self.hosts.is_empty() {
            return true;
        }
        let host = host.name();
        self.hosts.iter().any(|name| **name == *host)
    }
}

impl Policy {
    /// Compiles settings.
    pub fn new(settings: &Settings) -> Self {
        let classes = Classes::new(&settings.methods);
        let mut upstreams: Vec<RouteUpstream> = Vec::new();
        let routes: Box<[Route]> =
            settings.routes.iter().enumerate().map(|(index, route)| compile(index, route, &mut upstreams)).collect();
        let mut known = classes.all();
        for method in routes.iter().filter_map(|route| route.methods.as_ref()).flat_map(MethodSet::iter) {
            known.insert(method.clone());
        }
        Self {
            folds: routes.iter().any(|route| route.path.folds()),
            forward_preflight: settings.forward_preflight,
            hosts: settings.hosts.iter().map(|(name, mode)| (host_name(name), *mode)).collect(),
            upstreams: upstreams.into(),
            allow: known.allow(),
            routes,
            classes,
            known,
        }
    }

    /// The distinct upstreams that routes name; [`Need::upstream`](super::Need::upstream) is a place in this list.
    pub fn upstreams(&self) -> &[RouteUpstream] {
        &self.upstreams
    }

    /// Whether a request can only read, in every reading of it.
    pub fn only_reads(&self, facts: &Facts) -> bool {
        let reads = |method: &Method| self.classes.of(method) == Some(Class::Read);
        reads(&facts.method) && facts.effective_method.as_ref().is_none_or(reads)
    }

    /// What logs call the route at this place in the settings.
    pub fn route_label(&self, index: usize) -> Option<&str> {
        self.routes.get(index).map(Route::label)
    }

    /// The value of `Allow` where the path is not known: every method that is accepted anywhere.
    pub fn allow(&self) -> &HeaderValue {
        &self.allow
    }

    /// The mode that a host accepts; none for a host that is not listed.
    pub(super) fn mode_of(&self, host: &str) -> Option<Mode> {
        self.hosts.iter().find(|(name, _)| **name == *host).map(|(_, mode)| *mode)
    }

    /// The hosts that accept keys of this mode.
    pub fn hosts_of(&self, mode: Mode) -> impl Iterator<Item = &str> {
        self.hosts.iter().filter(move |(_, accepted)| *accepted == mode).map(|(name, _)| &**name)
    }

    /// Whether any host is bound to a mode.
    pub(super) fn binds_hosts(&self) -> bool {
        !self.hosts.is_empty()
    }
}

fn compile(index: usize, route: &RouteSettings, upstreams: &mut Vec<RouteUpstream>) -> Route {
    let upstream = route.upstream.as_ref().map(|upstream| {
        upstreams.iter().position(|known| known == upstream).unwrap_or_else(|| {
            upstreams.push(upstream.clone());
            upstreams.len() - 1
        })
    });
    Route {
        index,
        path: route.path.clone(),
        methods: route.methods.as_deref().map(MethodSet::of_route),
        hosts: route.hosts.iter().map(|name| host_name(name)).collect(),
        scope: route.scope.clone().into(),
        capability: route.capability.clone(),
        kyc: route.kyc,
        public: route.public,
        observe: route.observe,
        limits: route.limits,
        upgrade: route.upgrade.clone().into(),
        upstream,
        max_body: route.max_body,
        response_timeout: route.response_timeout,
        allow: route.allow.iter().copied().collect(),
    }
}

/// A host name as facts gives it: lower case, without a final dot.
fn host_name(name: &str) -> Box<str> {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into()
}

/// What a route asks for a method of this class.
pub(super) fn asks_of(route: &Route, class: Option<Class>) -> Asks<'_> {
    if route.public {
        return Asks::NoKey(OpenFor::Public);
    }
    if !route.scope.is_empty() {
        return Asks::Key(&route.scope);
    }
    match asks_by_class(class) {
        // The route says otherwise: it asks something of the owner, so there must be one.
        Asks::NoKey(_) if route.capability.is_some() || route.kyc => Asks::Key(&[]),
        asks => asks,
    }
}

/// What a method of this class needs where no route says otherwise.
pub(super) fn asks_by_class(class: Option<Class>) -> Asks<'static> {
    match class {
        Some(Class::Read) => Asks::Key(&READ),
        Some(Class::Write) => Asks::Key(&WRITE),
        Some(Class::Pass) => Asks::NoKey(OpenFor::Pass),
        // A route named the method but no scope, and no list says what it needs.
        None => Asks::Nobody,
    }
}
