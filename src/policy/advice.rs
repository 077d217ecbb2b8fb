//! What a policy can never do, for `keyside check` to warn of.

use http::Method;

use super::{
    Policy, Shadowed,
    need::Asks,
    route::{Route, asks_by_class, asks_of},
};
use crate::keys::Permission;

impl Policy {
    /// The routes that no request ever meets, because routes before them cover all their methods, paths and hosts.
    pub fn shadowed_routes(&self) -> Vec<Shadowed> {
        let shadow = |route: &Route| {
            let mut first = None;
            for method in route.methods.as_ref().unwrap_or(&self.known).iter() {
                let by = self.taken_before(route, method)?;
                first = first.or(Some(by.index));
            }
            first
        };
        self.routes.iter().filter_map(|route| shadow(route).map(|by| Shadowed { route: route.index, by })).collect()
    }

    /// The first of the routes before this one that takes all of its requests with this method.
    pub(super) fn taken_before(&self, route: &Route, method: &Method) -> Option<&Route> {
        self.routes[..route.index].iter().find(|earlier| {
            earlier.methods.as_ref().is_none_or(|methods| methods.contains(method))
                && (earlier.hosts.is_empty()
                    || (!route.hosts.is_empty() && route.hosts.iter().all(|host| earlier.hosts.contains(host))))
                && earlier.path.covers_all_of(&route.path)
        })
    }

    /// Every permission that some request may be asked for. A scope of a key that is not among them is of no use.
    pub fn scopes_asked(&self) -> Vec<Permission> {
        let mut asked: Vec<Permission> = Vec::new();
        let mut add = |asks: Asks<'_>| {
            if let Asks::Key(scopes) = asks {
                for scope in scopes {
                    if !asked.contains(scope) {
                        asked.push(scope.clone());
                    }
                }
            }
        };
        for route in &self.routes {
            for method in route.methods.as_ref().unwrap_or(&self.known).iter() {
                add(asks_of(route, self.classes.of(method)));
            }
        }
        if self.routes.is_empty() {
            self.known.iter().for_each(|method| add(asks_by_class(self.classes.of(method))));
        }
        asked
    }

    /// The routes, by their place in the settings, that name a method which no list of methods has, and no scope:
    /// nothing says what such a request needs, so it is refused.
    pub fn undecided_routes(&self) -> Vec<usize> {
        self.routes
            .iter()
            .filter(|route| {
                route.methods.as_ref().is_some_and(|methods| {
                    methods.iter().any(|method| asks_of(route, self.classes.of(method)) == Asks::Nobody)
                })
            })
            .map(|route| route.index)
            .collect()
    }
}
