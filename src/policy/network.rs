//! Addresses and networks in one canonical form: a mapped IPv4 address is the IPv4 address.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::{IpNet, Ipv4Net};

/// One address or network, as an operator writes it: `203.0.113.42`, `198.51.100.0/24`, `2001:db8::/32`.
///
/// Canonical: bits beyond the prefix are cleared, and a mapped IPv4 network is the IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// Why a text is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{entry}\" is neither an IP address nor a network such as 198.51.100.0/24 or 2001:db8::/32{}", hint(entry))]
pub struct NetworkFault {
    /// The text as it was written.
    pub entry: Box<str>,
}

/// What somebody may have meant.
fn hint(entry: &str) -> &'static str {
    let (address, prefix) = entry.split_once('/').unwrap_or((entry, ""));
    match address.parse::<IpAddr>() {
        _ if entry.contains(char::is_whitespace) => "; one entry is one address or network",
        Ok(IpAddr::V4(_)) if !prefix.is_empty() => "; what follows the slash is a number from 0 to 32",
        Ok(IpAddr::V6(_)) if !prefix.is_empty() => "; what follows the slash is a number from 0 to 128",
        _ if address.parse::<std::net::SocketAddr>().is_ok() => "; leave the port out",
        _ if entry.contains('*') => "; all addresses that begin alike are a network: 198.51.100.0/24",
        _ if entry.contains('-') && entry.starts_with(|first: char| first.is_ascii_digit()) => {
            "; a range is written as networks"
        }
        _ if address.contains(|char: char| char.is_ascii_alphabetic()) && !address.contains(':') => {
            "; names are not looked up"
        }
        _ => "",
    }
}

/// The number of the leading bits of an IPv6 address that say that it is a mapped IPv4 address.
const MAPPED_PREFIX: u8 = 96;

impl FromStr for Network {
    type Err = NetworkFault;

    /// Strict, since an entry that means something else than its writer thought lets strangers in: no leading
    /// zeros (octal to some), no short forms of IPv4, no zone, no white space.
    fn from_str(text: &str) -> Result<Self, NetworkFault> {
        let fault = || NetworkFault { entry: text.into() };
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((address, prefix)) => (address, Some(prefix_length(prefix).ok_or_else(fault)?)),
        };
        let address: IpAddr = address.parse().map_err(|_| fault())?;
        let network = match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(mapped)) => {
                let prefix = prefix.unwrap_or(128).checked_sub(MAPPED_PREFIX).ok_or_else(fault)?;
                IpNet::V4(Ipv4Net::new(mapped, prefix).map_err(|_| fault())?)
            }
            (IpAddr::V4(_), _) => IpNet::new(address, prefix.unwrap_or(32)).map_err(|_| fault())?,
            (IpAddr::V6(_), _) => IpNet::new(address, prefix.unwrap_or(128)).map_err(|_| fault())?,
        };
        Ok(Self(network.trunc()))
    }
}

fn prefix_length(text: &str) -> Option<u8> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok()
}

impl Network {
    /// The network of exactly one address.
    pub fn of(address: IpAddr) -> Self {
        Self(canonical(address).into())
    }

    /// Whether the address, in its canonical form, is in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&canonical(address))
    }
}

/// A network of one address is shown as that address.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

/// A list of networks.
///
/// Asked by binary search over merged ranges, so that a list of ten thousand addresses costs a request no more
/// than a short one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    entries: Box<[Network]>,
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl Networks {
    /// Reads a list of entries; the first that is not a network is the fault.
    pub fn parse<T: AsRef<str>>(entries: impl IntoIterator<Item = T>) -> Result<Self, NetworkFault> {
        entries.into_iter().map(|entry| entry.as_ref().parse()).collect()
    }

    /// Whether the list is empty. What that means is the caller's: "any" for a key, "nobody" for proxies.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many entries the list has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the address, in its canonical form, is in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        match canonical(address) {
            IpAddr::V4(address) => within(&self.v4, address.to_bits()),
            IpAddr::V6(address) => within(&self.v6, address.to_bits()),
        }
    }

    /// The entries in their order, canonical.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Network> + '_ {
        self.entries.iter().copied()
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(entries: I) -> Self {
        let entries: Box<[Network]> = entries.into_iter().collect();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for entry in &entries {
            match entry.0 {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self { entries, v4: merged(v4), v6: merged(v6) }
    }
}

/// Sorts ranges and joins those that overlap.
fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let overlaps = next.0 <= kept.1;
        if overlaps {
            kept.1 = kept.1.max(next.1);
        }
        overlaps
    });
    ranges.into_boxed_slice()
}

fn within<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let following = ranges.partition_point(|range| range.0 <= address);
    following.checked_sub(1).is_some_and(|index| address <= ranges[index].1)
}

/// The canonical form of an address: a mapped IPv4 address (RFC 4291 §2.5.5.2) is the IPv4 address.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(entry: &str, expected: Option<&str>) {
        let network = entry.parse::<Network>();
        assert_eq!(network.as_ref().ok().map(ToString::to_string).as_deref(), expected, "{entry}");
        if let Err(fault) = network {
            assert_eq!(&*fault.entry, entry);
        }
    }

    #[test]
    fn an_entry_is_an_address_or_a_network() {
        check("203.0.113.42", Some("203.0.113.42"));
        check("198.51.100.0/24", Some("198.51.100.0/24"));
        check("2001:db8::/32", Some("2001:db8::/32"));
        check("2001:DB8:0:0::1", Some("2001:db8::1"));
        check("0.0.0.0/0", Some("0.0.0.0/0"));
        check("::/0", Some("::/0"));
    }

    #[test]
    fn what_was_meant_is_guessed() {
        for (entry, hint) in [
            ("198.51.100.0/33", "0 to 32"),
            ("2001:db8::/129", "0 to 128"),
            ("198.51.100.7:443", "leave the port out"),
            ("198.51.100.*", "are a network"),
            ("198.51.100.1-198.51.100.9", "a range"),
            ("api.example.com", "not looked up"),
            ("198.51.100.1 198.51.100.2", "one entry is one"),
        ] {
            let fault = entry.parse::<Network>().unwrap_err().to_string();
            assert!(fault.contains(hint) && fault.contains(entry), "{fault}");
        }
    }

    #[test]
    fn bits_beyond_the_prefix_are_cleared() {
        check("198.51.100.7/24", Some("198.51.100.0/24"));
        check("2001:db8::1/32", Some("2001:db8::/32"));
    }

    #[test]
    fn a_mapped_network_is_the_ipv4_network() {
        check("::ffff:203.0.113.42", Some("203.0.113.42"));
        check("::ffff:203.0.113.0/120", Some("203.0.113.0/24"));
        check("::ffff:0:0/96", Some("0.0.0.0/0"));
        check("::ffff:203.0.113.0/64", None);
    }

    #[test]
    fn what_could_mean_something_else_is_refused() {
        for entry in [
            "",
            " ",
            "*",
            "any",
            "localhost",
            "203.0.113",
            "203.0.113.042",
            "010.0.0.1",
            "0x7f.0.0.1",
            "203.0.113.42 ",
            " 203.0.113.42",
            "203.0.113.42/",
            "203.0.113.42/33",
            "203.0.113.42/08",
            "203.0.113.42/+8",
            "203.0.113.42/-1",
            "203.0.113.42/255.255.255.0",
            "203.0.113.0/24/24",
            "203.0.113.256",
            "203.0.113.1-203.0.113.9",
            "203.0.113.1:80",
            "[2001:db8::1]",
            "fe80::1%eth0",
            "2001:db8::/129",
            "::ffff:203.0.113.42/129",
        ] {
            check(entry, None);
        }
    }

    #[track_caller]
    fn check_contains(entries: &[&str], address: &str, expected: bool) {
        let networks = Networks::parse(entries).unwrap();
        assert_eq!(networks.contains(address.parse().unwrap()), expected, "{address} in {entries:?}");
    }

    #[test]
    fn a_list_holds_what_its_entries_hold() {
        let list = ["198.51.100.0/24", "203.0.113.42", "198.51.0.0/16", "2001:db8::/32"];
        check_contains(&list, "203.0.113.42", true);
        check_contains(&list, "203.0.113.41", false);
        check_contains(&list, "203.0.113.43", false);
        check_contains(&list, "198.51.100.255", true);
        check_contains(&list, "198.51.255.255", true);
        check_contains(&list, "198.52.0.0", false);
        check_contains(&list, "2001:db8:ffff::1", true);
        check_contains(&list, "2001:db9::", false);
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        check_contains(&["203.0.113.42"], "::ffff:203.0.113.42", true);
        check_contains(&["::ffff:203.0.113.42"], "203.0.113.42", true);
        check_contains(&["::/0"], "203.0.113.42", false);
        check_contains(&["0.0.0.0/0"], "2001:db8::1", false);
    }

    #[test]
    fn an_empty_list_holds_nothing() {
        check_contains(&[], "127.0.0.1", false);
        assert!(Networks::default().is_empty());
        assert_eq!(Networks::parse(["10.0.0.0/8", "::1"]).unwrap().len(), 2);
    }

    proptest! {
        #[test]
        fn the_search_agrees_with_asking_each_entry(
            entries in proptest::collection::vec((0_u32..64, 24_u8..=32), 0..12),
            address in 0_u32..64,
        ) {
            let networks: Networks = entries
                .iter()
                .map(|(bits, prefix)| format!("{}/{prefix}", std::net::Ipv4Addr::from_bits(*bits << 2)).parse().unwrap())
                .collect::<Vec<Network>>()
                .into_iter()
                .collect();
            let address = IpAddr::V4(std::net::Ipv4Addr::from_bits(address << 2 | 1));
            prop_assert_eq!(networks.contains(address), networks.iter().any(|network| network.contains(address)));
        }

        #[test]
        fn what_is_shown_is_read_back(bits: u128, prefix in 0_u8..=128) {
            let text = format!("{}/{prefix}", std::net::Ipv6Addr::from_bits(bits));
            if let Ok(network) = text.parse::<Network>() {
                prop_assert_eq!(network.to_string().parse::<Network>().unwrap(), network);
            }
        }

        #[test]
        fn reading_never_panics(text in ".{0,40}") {
            let _ = text.parse::<Network>();
        }
    }
}
