//! The names of keys and owners.

use std::{fmt, str::FromStr, sync::Arc};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        /// 1 to 200 printable ASCII characters without a space: it stands in a header and in a log.
        impl FromStr for $name {
            type Err = &'static str;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if text.is_empty() || text.len() > 200 {
                    return Err("must have 1 to 200 characters");
                }
                if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err("must be printable ASCII without spaces: it is sent to the upstream in a header");
                }
                Ok(Self(text.into()))
            }
        }
    };
}

name! {
    /// The stable, sortable name of a key. Not secret.
    KeyId
}
name! {
    /// The stable name of an owner.
    OwnerId
}

/// Whether a key moves real money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Real traffic.
    Live,
    /// Development and staging.
    Test,
}

impl Mode {
    /// As it stands in the key file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
        }
    }
}

impl FromStr for Mode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "live" => Ok(Self::Live),
            "test" => Ok(Self::Test),
            _ => Err("expected \"live\" or \"test\""),
        }
    }
}

/// How a key is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A consumer key and a consumer secret, as Basic user name and password.
    Pair,
    /// One string: Bearer, a named header, or a Basic user name with an empty password.
    Token,
}

impl Kind {
    /// As it stands in the key file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::Token => "token",
        }
    }
}

impl FromStr for Kind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "pair" => Ok(Self::Pair),
            "token" => Ok(Self::Token),
            _ => Err("expected \"pair\" or \"token\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_can_stand_in_a_header() {
        for good in ["key_01JD", "svc-accounting", "1", &"x".repeat(200), "a=b;c"] {
            assert_eq!(good.parse::<KeyId>().as_ref().map(KeyId::as_str), Ok(good));
        }
        for bad in ["", "a b", "a\nb", "a\0", "schlüssel", &"x".repeat(201)] {
            assert!(bad.parse::<OwnerId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_are_read_back() {
        for mode in [Mode::Live, Mode::Test] {
            assert_eq!(mode.as_str().parse(), Ok(mode));
        }
        for kind in [Kind::Pair, Kind::Token] {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert!("LIVE".parse::<Mode>().is_err() && "basic".parse::<Kind>().is_err());
    }
}
