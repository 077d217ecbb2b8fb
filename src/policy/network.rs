//! Addresses and networks in one canonical form: a mapped IPv4 address is the IPv4 address.
/// A list of networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Box<[ipnet::IpNet]>);
