//! The request target: one form, judged and forwarded.

use std::str::FromStr;

use http::uri::PathAndQuery;

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
#[derive(Clone, Debug)]
pub struct Target {
    path_and_query: PathAndQuery,
    oddities: Oddities,
}

impl Target {
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

    /// Removes the parameters that PHP would file under one of these names, in every spelling.
    pub fn without_query_parameters(&mut self, _names: &[&str]) {
        unimplemented!("facts room")
    }
}
