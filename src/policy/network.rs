//! Addresses and networks in one canonical form: a mapped IPv4 address is the IPv4 address.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

/// One address or network, as an operator writes it: `203.0.113.42`, `198.51.100.0/24`, `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// Why a text is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{entry}\" is neither an IP address nor a network such as 198.51.100.0/24 or 2001:db8::/32")]
pub struct NetworkFault {
    /// The text as it was written.
    pub entry: Box<str>,
}

impl FromStr for Network {
    type Err = NetworkFault;

    fn from_str(_text: &str) -> Result<Self, NetworkFault> {
        unimplemented!("facts room")
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A list of networks, asked by binary search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Box<[IpNet]>);

impl Networks {
    /// Reads a list of entries; the first that is not a network is the fault.
    pub fn parse<T: AsRef<str>>(_entries: impl IntoIterator<Item = T>) -> Result<Self, NetworkFault> {
        unimplemented!("facts room")
    }

    /// Whether the list is empty. What that means is the caller's: "any" for a key, "nobody" for proxies.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the address, in its canonical form, is in one of the networks.
    pub fn contains(&self, _address: IpAddr) -> bool {
        unimplemented!("facts room")
    }

    /// The entries, as they were given.
    pub fn iter(&self) -> impl Iterator<Item = Network> + '_ {
        self.0.iter().copied().map(Network)
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(entries: I) -> Self {
        Self(entries.into_iter().map(|network| network.0).collect())
    }
}

/// The canonical form of an address: a mapped IPv4 address (RFC 4291 §2.5.5.2) is the IPv4 address.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
