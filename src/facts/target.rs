//! The request target: one form, judged and forwarded.

use std::str::FromStr;

use http::uri::PathAndQuery;

use super::path;
use crate::{
    policy::effective::{self, Named},
    rejection::{Reason, Rejection},
};

/// Something in a path that upstreams read differently, and that a route may allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Oddity {
    /// `;`, which some upstreams cut off.
    Semicolon,
    /// `%3B`.
    EscapedSemicolon,
    /// `%2F`, which some upstreams take for a separator.
    EscapedSlash,
}

impl FromStr for Oddity {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            ";" => Ok(Self::Semicolon),
            "%3B" | "%3b" => Ok(Self::EscapedSemicolon),
            "%2F" | "%2f" => Ok(Self::EscapedSlash),
            _ => Err("expected \"%2F\", \";\" or \"%3B\""),
        }
    }
}

/// A set of oddities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oddities(u8);

impl Oddities {
    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// This set and one more.
    #[must_use]
    pub const fn with(self, oddity: Oddity) -> Self {
        Self(self.0 | 1 << oddity as u8)
    }

    /// Whether all of these are in `allowed`.
    pub const fn within(self, allowed: Self) -> bool {
        self.0 & !allowed.0 == 0
    }
}

impl FromIterator<Oddity> for Oddities {
    fn from_iter<I: IntoIterator<Item = Oddity>>(oddities: I) -> Self {
        oddities.into_iter().fold(Self::default(), Self::with)
    }
}

/// The request target exactly as it is judged and forwarded: a canonical path and the query as it was sent.
///
/// A fragment never gets here: `http::Uri` drops it while it reads the request line, so that neither the policy nor
/// the upstream sees it.
#[derive(Clone, Debug)]
pub struct Target {
    path_and_query: PathAndQuery,
    oddities: Oddities,
}

impl Target {
    /// Reads a target in origin form. A path that is canonical as sent is kept and nothing is copied.
    ///
    /// # Errors
    ///
    /// [`Reason::AmbiguousPath`] where two upstreams could read the target differently.
    pub fn new(sent: &PathAndQuery) -> Result<Self, Rejection> {
        // http::Uri takes UTF-8 as it is; whether an upstream does, or as what, nobody can tell.
        // Folded and not `all`, so that it is done sixteen bytes at a time.
        if !sent.as_str().bytes().fold(true, |clear, byte| clear & byte.is_ascii_graphic()) {
            return Err(ambiguous("The target holds bytes that must be escaped."));
        }
        let canonical = path::canonical(sent.path()).map_err(|fault| ambiguous(fault.sentence()))?;
        let path_and_query = match canonical.rewritten {
            // In absolute form with an empty path, the slash is missing from the text (RFC 9112 §3.2.1).
            None if sent.as_str().starts_with('/') => sent.clone(),
            None => joined(sent.path(), sent.query())?,
            Some(path) => joined(&path, sent.query())?,
        };
        Ok(Self { path_and_query, oddities: canonical.oddities })
    }

    /// The canonical path.
    pub fn path(&self) -> &str {
        self.path_and_query.path()
    }

    /// The query, without the question mark.
    pub fn query(&self) -> Option<&str> {
        self.path_and_query.query()
    }

    /// Path and query, in the type the forwarded request takes; a clone of it copies nothing.
    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.path_and_query
    }

    /// What the path holds that only some routes allow.
    pub fn oddities(&self) -> Oddities {
        self.oddities
    }

    /// Removes the parameters that PHP would file under one of these names, in every spelling, and arrays of them.
    ///
    /// What is left keeps its order and spelling; where nothing is left, the question mark goes too.
    pub fn without_query_parameters(&mut self, names: &[&str]) {
        let Some(query) = self.path_and_query.query() else { return };
        let is_named = |pair: &&str| {
            let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
            names.iter().any(|wanted| effective::named(name.as_bytes(), wanted) != Named::No)
        };
        if !query.split('&').any(|pair| is_named(&pair)) {
            return;
        }
        let kept: Vec<_> = query.split('&').filter(|pair| !is_named(pair)).collect();
        let kept = (!kept.is_empty()).then(|| kept.join("&"));
        match joined(self.path_and_query.path(), kept.as_deref()) {
            Ok(path_and_query) => self.path_and_query = path_and_query,
            // A shorter query of the same bytes always parses. If it ever did not, no query is safer than the secret.
            Err(_) => self.path_and_query = joined(self.path_and_query.path(), None).unwrap_or_else(|_| root()),
        }
    }
}

fn root() -> PathAndQuery {
    PathAndQuery::from_static("/")
}

fn joined(path: &str, query: Option<&str>) -> Result<PathAndQuery, Rejection> {
    let text = match query {
        None => path.to_owned(),
        Some(query) => [path, "?", query].concat(),
    };
    PathAndQuery::try_from(text).map_err(|_| ambiguous("The target is not one of RFC 3986."))
}

pub(super) fn ambiguous(hint: &str) -> Rejection {
    Rejection::from(Reason::AmbiguousPath).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sent: &str, expected: Option<&str>) {
        let target = Target::new(&PathAndQuery::try_from(sent).unwrap());
        assert_eq!(target.as_ref().ok().map(|target| target.path_and_query().as_str()), expected, "{sent:?}");
        if let Err(rejection) = target {
            assert_eq!(rejection.reason, Reason::AmbiguousPath);
        }
    }

    #[test]
    fn the_query_goes_on_as_it_was_sent() {
        check("/a?b=%7e&c=%2f..%2F;d//e%zz", Some("/a?b=%7e&c=%2f..%2F;d//e%zz"));
        check("/%7ea?b=%7e", Some("/~a?b=%7e"));
        check("/a?", Some("/a?"));
        check("/%61?", Some("/a?"));
        check("/a?b=[c]{d}|\\^`", Some("/a?b=[c]{d}|\\^`"));
    }

    #[test]
    fn bytes_beyond_ascii_are_refused_in_path_and_query() {
        check("/caf\u{e9}", None);
        check("/cafe?\u{e9}", None);
    }

    #[test]
    fn an_empty_path_is_the_root() {
        let uri: http::Uri = "http://example.com?a=b".parse().unwrap();
        let target = Target::new(uri.path_and_query().unwrap()).unwrap();
        assert_eq!(target.path_and_query().as_str(), "/?a=b");
    }

    #[test]
    fn a_canonical_target_is_not_copied() {
        let sent = PathAndQuery::try_from("/v1/wallets/caf%C3%A9;a%2Fb?x=%7e").unwrap();
        let target = Target::new(&sent).unwrap();
        assert_eq!(target.path_and_query().as_str().as_ptr(), sent.as_str().as_ptr());
    }

    #[track_caller]
    fn check_without(sent: &str, expected: &str) {
        let mut target = Target::new(&PathAndQuery::try_from(sent).unwrap()).unwrap();
        target.without_query_parameters(&["consumer_key", "consumer_secret"]);
        assert_eq!(target.path_and_query().as_str(), expected, "{sent:?}");
    }

    #[test]
    fn parameters_are_removed_in_every_spelling() {
        check_without("/a?consumer_key=ck_1&consumer_secret=cs_1", "/a");
        check_without("/a?consumer.key=ck_1&b=c&consumer%5Fsecret=cs_1&d", "/a?b=c&d");
        check_without("/a?consumer[key=1&consumer+secret=2&+consumer_key=3&consumer_key%00x=4&b", "/a?b");
        check_without("/a?consumer_key[]=1&consumer_key[x]=2&consumer_key", "/a");
    }

    #[test]
    fn what_is_not_removed_stays_as_it_is() {
        check_without("/a", "/a");
        check_without("/a?", "/a?");
        check_without("/a?b=%7e&&c=;", "/a?b=%7e&&c=;");
        check_without(
            "/a?b=consumer_key&consumer_keys=1&oauth_consumer_key=2",
            "/a?b=consumer_key&consumer_keys=1&oauth_consumer_key=2",
        );
        check_without("/a?b=%7e&&consumer_key=1&c", "/a?b=%7e&&c");
    }

    #[test]
    fn an_oddity_is_written_as_in_a_path() {
        assert_eq!(
            ["%2F", ";", "%3B"].map(str::parse),
            [Ok(Oddity::EscapedSlash), Ok(Oddity::Semicolon), Ok(Oddity::EscapedSemicolon)]
        );
        assert!("%5C".parse::<Oddity>().is_err());
    }
}
