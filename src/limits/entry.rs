//! The counters of one address.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Rules, window::Tick, windows::Windows};

/// An address as far as limits tell callers apart: IPv4 whole, IPv6 by its leading bits, since one caller has them all.
/// IPv4 is kept in its mapped form (RFC 4291 §2.5.5.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address(u128);

impl Address {
    pub(super) fn new(client: IpAddr, ipv6_prefix: u8) -> Self {
        match client.to_canonical() {
            IpAddr::V4(address) => Self(address.to_ipv6_mapped().to_bits()),
            IpAddr::V6(address) => {
                let dropped = 128 - u32::from(ipv6_prefix.min(128));
                Self(address.to_bits() & u128::MAX.checked_shl(dropped).unwrap_or(0))
            }
        }
    }

    /// The first address of those that it stands for.
    pub(super) fn ip(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_bits(self.0)).to_canonical()
    }

    pub(super) fn bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.ip().fmt(f)
    }
}

/// The counters of one address, or of a cell by which addresses without counters of their own are judged.
#[derive(Debug)]
pub(super) struct Entry {
    /// Absent for a cell.
    address: Option<Address>,
    authenticated: AtomicBool,
    /// Whether a window that is saved has changed since it was.
    changed: AtomicBool,
    counters: Mutex<Counters>,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Requests.
    pub(super) arrivals: Windows,
    /// Failed authentications.
    pub(super) failures: Windows,
    /// Attempts that may yet fail. An entry that has some is not evicted.
    pub(super) in_flight: u32,
    /// Set when the entry left the table: whoever still holds it looks the address up again.
    pub(super) evicted: bool,
}

impl Counters {
    pub(super) fn expire(&mut self, now: Tick) {
        self.arrivals.expire(now);
        self.failures.expire(now);
    }

    pub(super) fn are_empty(&self) -> bool {
        self.arrivals.are_empty() && self.failures.are_empty()
    }

    /// The length of the longest window.
    pub(super) fn longest(&self) -> u64 {
        self.arrivals.longest().max(self.failures.longest())
    }

    /// See [`Window::dominate`](super::window::Window::dominate).
    pub(super) fn dominate(&mut self, other: &Self, now: Tick) {
        self.arrivals.dominate(&other.arrivals, now);
        self.failures.dominate(&other.failures, now);
    }
}

impl Entry {
    pub(super) fn new(address: Address, counters: Counters) -> Self {
        Self { address: Some(address), counters: counters.into(), ..Self::cell() }
    }

    pub(super) fn cell() -> Self {
        Self {
            address: None,
            authenticated: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            counters: Mutex::default(),
        }
    }

    pub(super) fn address(&self) -> Option<Address> {
        self.address
    }

    pub(super) fn is_cell(&self) -> bool {
        self.address.is_none()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Counters> {
        // A panic between two windows could at worst leave one admission uncounted in one of them.
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_authenticated(&self) {
        // Read first: a line that is only read stays in the caches of all cores.
        if !self.is_authenticated() {
            self.authenticated.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Relaxed)
    }

    pub(super) fn note_change(&self, rules: &Rules) {
        if rules.are_saved() && !self.changed.load(Ordering::Relaxed) {
            self.changed.store(true, Ordering::Relaxed);
        }
    }

    /// As [`note_change`](Self::note_change), after a merge.
    pub(super) fn note_merge(&self, counters: &Counters) {
        if counters.arrivals.hold_long() || counters.failures.hold_long() {
            self.changed.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn is_changed(&self) -> bool {
        self.changed.load(Ordering::Relaxed)
    }

    /// Whether something to be saved has changed since the last time this was asked.
    pub(super) fn take_changed(&self) -> bool {
        self.is_changed() && self.changed.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(client: &str, prefix: u8, expected: &str) {
        let address = Address::new(client.parse().unwrap(), prefix);
        assert_eq!(address.ip(), expected.parse::<IpAddr>().unwrap(), "{client} by /{prefix}");
    }

    #[test]
    fn callers_are_told_apart_by_address_or_prefix() {
        check("203.0.113.42", 64, "203.0.113.42");
        check("::ffff:203.0.113.42", 64, "203.0.113.42");
        check("2001:db8:1:2:3:4:5:6", 64, "2001:db8:1:2::");
        check("2001:db8:1:2ff:3:4:5:6", 56, "2001:db8:1:200::");
        check("2001:db8:1:2:3:4:5:6", 128, "2001:db8:1:2:3:4:5:6");
        check("2001:db8:1:2:3:4:5:6", 255, "2001:db8:1:2:3:4:5:6");
        check("2001:db8:1:2:3:4:5:6", 0, "::");
        assert_ne!(Address::new("::1".parse().unwrap(), 64), Address::new("0.0.0.0".parse().unwrap(), 64));
    }
}
