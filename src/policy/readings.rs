//! Which routes a request meets, in every reading that an upstream may make of it.

use http::{HeaderValue, Method};

use super::{
    Need, Policy, Reading, Route,
    methods::{Class, MethodSet},
    need::{Asks, Demand, Origin, View},
    pattern::{Comparison, Path},
    permit::OpenFor,
    route::{asks_by_class, asks_of},
};
use crate::{
    facts::{ActedOn, Facts, Host, Oddities, Oddity},
    rejection::{Reason, Rejection},
};

/// One method on one path.
struct Asked<'a> {
    reading: Reading,
    host: &'a Host,
    method: &'a Method,
    text: &'a str,
    path: Option<Path<'a>>,
    oddities: Oddities,
}

impl<'a> Asked<'a> {
    fn new(facts: &'a Facts, method: (Origin, &'a Method), path: (Origin, &'a str)) -> Self {
        Self {
            reading: Reading { method: method.0, path: path.0, view: View::Exact },
            host: &facts.host,
            method: method.1,
            text: path.1,
            path: Path::new(path.1),
            oddities: match path.0 {
                Origin::Sent => facts.target.oddities(),
                Origin::Effective => oddities(path.1),
            },
        }
    }
}

impl Policy {
    /// What the request needs, in all of its readings. Allocates nothing for a path that no upstream reads twice.
    ///
    /// # Errors
    ///
    /// [`Reason::AmbiguousPath`] where the path holds `;` or `%2F` and its route does not allow that;
    /// [`Reason::MethodNotAllowed`] where neither a list of methods nor a route names the method.
    pub fn route<'p>(&'p self, facts: &Facts) -> Result<Need<'p>, Rejection> {
        let (path, other) = paths(facts);
        let first = Asked::new(facts, (Origin::Sent, &facts.method), path);
        let mut need = Need::new(self.literally(&first)?);
        self.otherwise(&mut need, &first);
        if facts.effective_method.is_some() || other.is_some() {
            for asked in overridden(facts) {
                need.add(self.literally(&asked)?);
                self.otherwise(&mut need, &asked);
            }
        }
        if facts.preflight && self.is_forwarded_preflight(facts) {
            need.forward_preflight();
        } else {
            self.know(facts)?;
        }
        Ok(need)
    }

    /// What the path as it stands needs.
    fn literally<'p>(&'p self, asked: &Asked<'_>) -> Result<Demand<'p>, Rejection> {
        let route = self.find(asked, asked.path, Comparison::Exact);
        if !asked.oddities.is_empty() && !route.is_some_and(|route| asked.oddities.within(route.allow)) {
            return Err(Rejection::from(Reason::AmbiguousPath)
                .hint("No route allows \";\" or an escaped \"/\" or \";\" in this path."));
        }
        Ok(self.demand(asked, asked.path, route, View::Exact))
    }

    /// Adds what the path needs as upstreams may look at it.
    fn otherwise<'p>(&'p self, need: &mut Need<'p>, asked: &Asked<'_>) {
        if self.folds || asked.path.is_some_and(|path| path.folds()) {
            let route = self.find(asked, asked.path, Comparison::Folded);
            need.add(self.demand(asked, asked.path, route, View::Folded));
        }
        if asked.oddities.is_empty() {
            return;
        }
        // The route vouches for its upstream, so a reading that no route covers adds nothing. One that another route
        // covers does: `/files/{name}` must not open `/files/{name}/share` to `/files/x%2Fshare`. None of them has dot
        // segments or empty ones: facts refuses the path.
        for path in resolved(asked.text) {
            let path = Path::new(&path);
            for comparison in [Comparison::Exact, Comparison::Folded] {
                if let Some(route) = self.find(asked, path, comparison) {
                    need.add(self.demand(asked, path, Some(route), View::Resolved));
                }
            }
        }
    }

    /// The first route that covers this path, with the method and the host that are asked.
    fn find(&self, asked: &Asked<'_>, path: Option<Path<'_>>, comparison: Comparison) -> Option<&Route> {
        let path = path?;
        self.routes
            .iter()
            .find(|route| route.path.matches(path, comparison) && route.takes(asked.method) && route.is_on(asked.host))
    }

    /// Whether some route names the path, on this host and for whatever method.
    fn names(&self, path: Option<Path<'_>>, host: &Host) -> bool {
        path.is_some_and(|path| {
            self.routes.iter().any(|route| route.path.matches(path, Comparison::Exact) && route.is_on(host))
        })
    }

    fn demand<'p>(
        &self,
        asked: &Asked<'_>,
        path: Option<Path<'_>>,
        route: Option<&'p Route>,
        view: View,
    ) -> Demand<'p> {
        let class = self.classes.of(asked.method);
        let asks = match route {
            Some(route) => asks_of(route, class),
            None if self.routes.is_empty() => asks_by_class(class),
            // A method that passes needs no route of its own, but a path that some route names: what no route names
            // stays closed, whatever the method.
            None if class == Some(Class::Pass) && self.names(path, asked.host) => Asks::NoKey(OpenFor::Pass),
            None => Asks::Nobody,
        };
        Demand { route, asks, reading: Reading { view, ..asked.reading } }
    }

    /// Whether this is a preflight that goes on without a credential: one that asks about a path that some route
    /// names, in every reading, and that overrides no method. Its own method need not be named by anything.
    fn is_forwarded_preflight(&self, facts: &Facts) -> bool {
        let named = |path: (Origin, &str)| self.routes.is_empty() || self.names(Path::new(path.1), &facts.host);
        let (path, other) = paths(facts);
        self.forward_preflight
            && facts.method == Method::OPTIONS
            && facts.effective_method.as_ref().is_none_or(|method| *method == Method::OPTIONS)
            && named(path)
            && other.is_none_or(named)
    }

    /// Refuses methods that nothing names.
    fn know(&self, facts: &Facts) -> Result<(), Rejection> {
        let is_known = |method: &Method| self.known.contains(method);
        let sent_is_known = is_known(&facts.method);
        if sent_is_known && facts.effective_method.as_ref().is_none_or(is_known) {
            return Ok(());
        }
        let mut rejection = Rejection::from(Reason::MethodNotAllowed);
        rejection.allow = Some(self.allow_on(facts));
        Err(if sent_is_known {
            rejection.note("no list and no route names the method that overrides the sent one")
        } else {
            rejection
        })
    }

    /// The methods that some route accepts on this path; every known one where there is none.
    fn allow_on(&self, facts: &Facts) -> HeaderValue {
        let accepts = |method: &&Method| {
            let asked = Asked::new(facts, (Origin::Sent, method), paths(facts).0);
            self.find(&asked, asked.path, Comparison::Exact).is_some()
        };
        let accepted: MethodSet = self.known.iter().filter(accepts).cloned().collect();
        if accepted.iter().next().is_some() { accepted.allow() } else { self.allow().clone() }
    }
}

/// The path that is judged first, and the other one that the upstream may act on.
fn paths(facts: &Facts) -> ((Origin, &str), Option<(Origin, &str)>) {
    match facts.acted_on() {
        ActedOn::Sent(path) => ((Origin::Sent, path), None),
        ActedOn::Named(path) => ((Origin::Effective, path), None),
        ActedOn::Either { sent, named } => ((Origin::Sent, sent), Some((Origin::Effective, named))),
    }
}

/// Every method with every path, but for the first ones together.
fn overridden(facts: &Facts) -> impl Iterator<Item = Asked<'_>> {
    let effective_method = facts.effective_method.as_ref().map(|method| (Origin::Effective, method));
    let (path, other) = paths(facts);
    let methods = std::iter::once((Origin::Sent, &facts.method)).chain(effective_method);
    methods
        .flat_map(move |method| std::iter::once(path).chain(other).map(move |path| (method, path)))
        .skip(1)
        .map(|(method, path)| Asked::new(facts, method, path))
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
