//! Scopes: what a key holds, and what a request asks for.

use std::{fmt, str::FromStr};

/// What a request needs: one of these is asked of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Held through `read` or `read_write`.
    Read,
    /// Held through `write` or `read_write`.
    Write,
    /// Held by that very name, such as `transactions:read`.
    Named(Box<str>),
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("read"),
            Self::Write => f.write_str("write"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// `read`, `write`, or `resource:verb` of lower-case letters, digits, `-`, `_` and `.`.
impl FromStr for Permission {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "read" => Ok(Self::Read),
            "write" => Ok(Self::Write),
            _ => named(text).map(Self::Named),
        }
    }
}

/// The scopes that a key holds. The two styles do not satisfy each other: `read` is not `wallets:read`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    read: bool,
    write: bool,
    named: Box<[Box<str>]>,
}

impl Scopes {
    /// Reads the scopes of a key, each `read`, `write`, `read_write` or `resource:verb`.
    ///
    /// # Errors
    ///
    /// The position of the first text that is not a scope, and why.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, (usize, &'static str)> {
        let mut scopes = Self::default();
        let mut names = Vec::new();
        for (index, text) in texts.into_iter().enumerate() {
            match text {
                "read" => scopes.read = true,
                "write" => scopes.write = true,
                "read_write" => (scopes.read, scopes.write) = (true, true),
                _ => names.push(named(text).map_err(|why| (index, why))?),
            }
        }
        names.sort_unstable();
        names.dedup();
        scopes.named = names.into();
        Ok(scopes)
    }

    /// Whether these scopes hold what is asked.
    pub fn hold(&self, asked: &Permission) -> bool {
        match asked {
            Permission::Read => self.read,
            Permission::Write => self.write,
            Permission::Named(name) => self.named.iter().any(|held| held == name),
        }
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        !self.read && !self.write && self.named.is_empty()
    }

    /// The scopes as texts, in the order `read`/`write`/`read_write`, then the named ones sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let method = match (self.read, self.write) {
            (true, true) => Some("read_write"),
            (true, false) => Some("read"),
            (false, true) => Some("write"),
            (false, false) => None,
        };
        method.into_iter().chain(self.named.iter().map(|name| &**name))
    }
}

/// Space-separated, as in RFC 6749 §3.3.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope)?;
        }
        Ok(())
    }
}

fn named(text: &str) -> Result<Box<str>, &'static str> {
    const SHAPE: &str =
        "expected \"read\", \"write\", \"read_write\" or \"resource:verb\" of letters, digits, \"-\", \"_\" and \".\"";
    let (resource, verb) = text.split_once(':').ok_or(SHAPE)?;
    let good = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if text.len() <= 100 && good(resource) && good(verb) { Ok(text.into()) } else { Err(SHAPE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(held: &[&str], asked: &str, expected: bool) {
        let scopes = Scopes::parse(held.iter().copied()).expect("scopes");
        assert_eq!(scopes.hold(&asked.parse().expect("a permission")), expected, "{held:?} {asked}");
    }

    #[test]
    fn the_two_styles_do_not_satisfy_each_other() {
        check(&["read"], "read", true);
        check(&["read"], "write", false);
        check(&["write"], "read", false);
        check(&["read_write"], "read", true);
        check(&["read_write"], "write", true);
        check(&["read_write"], "wallets:read", false);
        check(&["wallets:read"], "read", false);
        check(&["wallets:read"], "wallets:read", true);
        check(&["wallets:read"], "wallets:write", false);
        check(&["wallets:read"], "Wallets:read", false);
        check(&[], "read", false);
    }

    #[test]
    fn scopes_are_printed_in_one_order() {
        let print = |texts: &[&str]| Scopes::parse(texts.iter().copied()).map(|scopes| scopes.to_string());
        assert_eq!(print(&["b:x", "write", "a:x", "read", "a:x"]).as_deref(), Ok("read_write a:x b:x"));
        assert_eq!(print(&[]).as_deref(), Ok(""));
    }

    #[test]
    fn what_is_no_scope_is_named_by_its_position() {
        for text in ["", "Read", "admin", "a:", ":b", "a:b:c", "a b:c", "a:b,c:d", "ä:b"] {
            assert_eq!(Scopes::parse(["read", text]).map_err(|(position, _)| position), Err(1), "{text}");
            assert!(text.parse::<Permission>().is_err(), "{text}");
        }
        assert!("read_write".parse::<Permission>().is_err(), "a request asks for one of both");
    }
}
