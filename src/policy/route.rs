//! The compiled policy, and which of its routes a request meets in each of its readings.

use http::{HeaderValue, Method};

use super::{
    Need, PathPattern, Reading, RouteSettings, Settings,
    methods::{Class, Classes, MethodSet},
    need::{Asks, Demand, Origin, View},
    pattern::{Comparison, Path},
    permit::OpenFor,
};
use crate::{
    facts::{Facts, Oddities, Oddity},
    keys::{Mode, Permission},
    rejection::{Reason, Rejection},
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
    folds: bool,
    forward_preflight: bool,
    hosts: Box<[(Box<str>, Mode)]>,
    upstreams: Box<[Box<str>]>,
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

    /// Whether the route covers this method on this host, whatever the path.
    fn covers(&self, method: Option<&Method>, host: &str) -> bool {
        method.is_none_or(|method| self.methods.as_ref().is_none_or(|methods| methods.contains(method)))
            && (self.hosts.is_empty() || self.hosts.iter().any(|name| **name == *host))
    }
}

impl Policy {
    /// Compiles settings.
    pub fn new(settings: &Settings) -> Self {
        let classes = Classes::new(&settings.methods);
        let mut upstreams: Vec<Box<str>> = Vec::new();
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

    /// What the request needs, in all of its readings. Allocates nothing for a path that no upstream reads twice.
    ///
    /// # Errors
    ///
    /// [`Reason::AmbiguousPath`] where the path holds `;` or `%2F` and its route does not allow that;
    /// [`Reason::MethodNotAllowed`] where neither a list of methods nor a route names the method.
    pub fn route<'p>(&'p self, facts: &Facts) -> Result<Need<'p>, Rejection> {
        let effective_method = facts.effective_method.as_ref().filter(|method| **method != facts.method);
        let effective_path = facts.effective_path.as_deref().filter(|path| *path != facts.target.path());
        let mut need: Option<Need<'p>> = None;
        for (path, path_origin) in [(Some(facts.target.path()), Origin::Sent), (effective_path, Origin::Effective)] {
            let Some(path) = path else { continue };
            let oddities = match path_origin {
                Origin::Sent => facts.target.oddities(),
                Origin::Effective => oddities(path),
            };
            for (method, origin) in [(Some(&facts.method), Origin::Sent), (effective_method, Origin::Effective)] {
                let Some(method) = method else { continue };
                let reading = Reading { method: origin, path: path_origin, view: View::Exact };
                self.read(&mut need, facts.host.name(), method, path, oddities, reading)?;
            }
        }
        if let Some(unknown) =
            [Some(&facts.method), effective_method].into_iter().flatten().find(|method| !self.known.contains(method))
        {
            let mut rejection = Rejection::from(Reason::MethodNotAllowed);
            rejection.allow = Some(self.allow_on(facts));
            return Err(if *unknown == facts.method {
                rejection
            } else {
                rejection.note("the method that overrides the sent one is named by no list and no route")
            });
        }
        // The sent path and the sent method are always read.
        let Some(mut need) = need else { return Err(Reason::Internal.into()) };
        if facts.preflight && self.forward_preflight && self.is_plain_preflight(facts) {
            need.forward_preflight();
        }
        Ok(need)
    }

    /// The distinct urls that routes name as their upstream; [`Need::upstream`] is a place in this list.
    pub fn upstreams(&self) -> &[Box<str>] {
        &self.upstreams
    }

    /// The value of `Allow` where the path is not known: every method that is accepted anywhere.
    pub fn allow(&self) -> &HeaderValue {
        &self.allow
    }

    /// The mode that a host accepts; none for a host that is not listed.
    pub(super) fn mode_of(&self, host: &str) -> Option<Mode> {
        self.hosts.iter().find(|(name, _)| **name == *host).map(|(_, mode)| *mode)
    }

    /// Whether any host is bound to a mode.
    pub(super) fn binds_hosts(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// Adds what one method on one path needs, as it stands and as an upstream may look at the path.
    fn read<'p>(
        &'p self,
        need: &mut Option<Need<'p>>,
        host: &str,
        method: &Method,
        path: &str,
        oddities: Oddities,
        reading: Reading,
    ) -> Result<(), Rejection> {
        let mut demand = |asked: Demand<'p>| match need {
            Some(need) => need.add(asked),
            None => *need = Some(Need::new(asked)),
        };
        let cut_up = Path::new(path);
        let route = self.find(Some(method), cut_up, host, Comparison::Exact);
        if !oddities.is_empty() && !route.is_some_and(|route| oddities.within(route.allow)) {
            return Err(Rejection::from(Reason::AmbiguousPath)
                .hint("No route allows \";\" or an escaped \"/\" or \";\" in this path."));
        }
        demand(self.demand(method, cut_up, host, route, reading));
        if self.folds || cut_up.is_some_and(|path| path.folds()) {
            let route = self.find(Some(method), cut_up, host, Comparison::Folded);
            let reading = Reading { view: View::Folded, ..reading };
            demand(self.demand(method, cut_up, host, route, reading));
        }
        if !oddities.is_empty() {
            // The route vouches for its upstream, so a reading that no route covers adds nothing. One that another
            // route covers does: `/files/{name}` must not open `/files/{name}/share` to `/files/x%2Fshare`.
            for path in resolved(path) {
                if has_odd_segments(&path) {
                    return Err(Rejection::from(Reason::AmbiguousPath)
                        .hint("With its \";\" or escaped \"/\" resolved, this path has dot segments or empty ones."));
                }
                let path = Path::new(&path);
                for comparison in [Comparison::Exact, Comparison::Folded] {
                    if let Some(route) = self.find(Some(method), path, host, comparison) {
                        let reading = Reading { view: View::Resolved, ..reading };
                        demand(self.demand(method, path, host, Some(route), reading));
                    }
                }
            }
        }
        Ok(())
    }

    /// The first route that covers the path, the host and, where one is given, the method.
    fn find(&self, method: Option<&Method>, path: Option<Path<'_>>, host: &str, how: Comparison) -> Option<&Route> {
        let path = path?;
        self.routes.iter().find(|route| route.path.matches(path, how) && route.covers(method, host))
    }

    fn demand<'p>(
        &'p self,
        method: &Method,
        path: Option<Path<'_>>,
        host: &str,
        route: Option<&'p Route>,
        reading: Reading,
    ) -> Demand<'p> {
        let class = self.classes.of(method);
        let asks = match route {
            Some(route) => asks_of(route, class),
            None if self.routes.is_empty() => asks_by_class(class),
            // A method that passes needs no route of its own, but a path that some route names: what no route names
            // stays closed, whatever the method.
            None if class == Some(Class::Pass) && self.find(None, path, host, Comparison::Exact).is_some() => {
                Asks::NoKey(OpenFor::Pass)
            }
            None => Asks::Nobody,
        };
        Demand { route, asks, reading }
    }

    /// Whether a preflight asks about a path that some route names, in every reading, and overrides no method.
    fn is_plain_preflight(&self, facts: &Facts) -> bool {
        let known = |path: &str| {
            self.routes.is_empty() || self.find(None, Path::new(path), facts.host.name(), Comparison::Exact).is_some()
        };
        facts.method == Method::OPTIONS
            && facts.effective_method.as_ref().is_none_or(|method| *method == Method::OPTIONS)
            && known(facts.target.path())
            && facts.effective_path.as_deref().is_none_or(known)
    }

    /// The methods that some route accepts on this path; every known one where there is none.
    fn allow_on(&self, facts: &Facts) -> HeaderValue {
        let path = Path::new(facts.target.path());
        let accepted: MethodSet = self
            .known
            .iter()
            .filter(|method| self.find(Some(method), path, facts.host.name(), Comparison::Exact).is_some())
            .cloned()
            .collect();
        if accepted.iter().next().is_some() { accepted.allow() } else { self.allow.clone() }
    }
}

fn compile(index: usize, route: &RouteSettings, upstreams: &mut Vec<Box<str>>) -> Route {
    let upstream = route.upstream.as_ref().map(|url| {
        upstreams.iter().position(|known| known == url).unwrap_or_else(|| {
            upstreams.push(url.clone());
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

/// What a path holds that only some routes allow.
fn oddities(path: &str) -> Oddities {
    [(";", Oddity::Semicolon), ("%3B", Oddity::EscapedSemicolon), ("%2F", Oddity::EscapedSlash)]
        .into_iter()
        .filter(|(text, _)| path.contains(text))
        .map(|(_, oddity)| oddity)
        .collect()
}

/// The paths that an upstream may see in one with oddities: parameters cut off, escaped slashes decoded, or both, in
/// either order.
fn resolved(path: &str) -> impl Iterator<Item = String> {
    let cut = |path: &str| {
        path.split('/')
            .map(|segment| {
                segment.find(';').into_iter().chain(segment.find("%3B")).min().map_or(segment, |at| &segment[..at])
            })
            .collect::<Vec<_>>()
            .join("/")
    };
    let split = |path: &str| path.replace("%2F", "/");
    let mut paths = vec![cut(path), split(path), split(&cut(path)), cut(&split(path))];
    paths.sort_unstable();
    paths.dedup();
    let path = path.to_owned();
    paths.into_iter().filter(move |resolved| *resolved != path)
}

/// Whether a path has dot segments, or empty ones before its end.
fn has_odd_segments(path: &str) -> bool {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    !inner.is_empty() && inner.split('/').any(|segment| matches!(segment, "" | "." | ".."))
}
