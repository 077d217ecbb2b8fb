//! How often a password may be tried: by strangers, from one address and for one account; and in a browser that the operator
//! has signed in with, which strangers do not use up. Counted in memory, by each control plane.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::super::audit;
use crate::{clock::Mono, listener::counted_address};

/// Failures of strangers from one address: fewer than for an account, so that none uses those up alone.
const PER_ADDRESS: Quota = Quota { count: 10, window: Duration::from_secs(900) };
/// Failures of strangers for one name, whether there is such an operator or not. Twenty in a quarter of an hour guess no
/// password, and the operator is not kept out for longer, nor out of a browser that is known.
const PER_ACCOUNT: Quota = Quota { count: 20, window: Duration::from_secs(900) };
/// Failures in one browser that the operator has signed in with. Beyond, it counts as a stranger's: it may be stolen.
const PER_DEVICE: Quota = Quota { count: 10, window: Duration::from_secs(900) };
/// Addresses, names and browsers that are kept in mind.
const KEPT: usize = 10_000;

#[derive(Clone, Copy, Debug)]
struct Quota {
    count: usize,
    window: Duration,
}

/// Counts failures.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    addresses: Table<IpAddr>,
    accounts: Table<String>,
    devices: Table<String>,
}

/// One attempt that was counted.
#[derive(Debug)]
pub(super) struct Attempt {
    by: By,
    at: Mono,
}

/// By what an attempt is counted.
#[derive(Debug)]
enum By {
    Stranger { address: IpAddr, account: String },
    Device(String),
}

impl Attempt {
    /// Whether it was counted for a browser that is known.
    pub(super) fn is_known(&self) -> bool {
        matches!(self.by, By::Device(_))
    }
}

impl Throttle {
    /// Counts an attempt as a failure, until it is given back; or says how long to wait. `device` is the digest of a browser
    /// that the operator of this name has signed in with.
    pub(super) fn take(
        &self,
        address: IpAddr,
        name: &str,
        device: Option<String>,
        now: Mono,
    ) -> Result<Attempt, Duration> {
        let Some(device) = device else { return self.take_stranger(address, name, now) };
        match self.devices.take(PER_DEVICE, device.clone(), now) {
            Ok(()) => Ok(Attempt { by: By::Device(device), at: now }),
            Err(wait) => self.take_stranger(address, name, now).map_err(|other| wait.min(other)),
        }
    }

    fn take_stranger(&self, address: IpAddr, name: &str, now: Mono) -> Result<Attempt, Duration> {
        // A name may be a mistyped password, and is not kept as it is.
        let (address, account) = (counted_address(address), audit::hex(name));
        let waits = (self.addresses.wait(PER_ADDRESS, &address, now), self.accounts.wait(PER_ACCOUNT, &account, now));
        // Of two windows that are full, the later one counts: what is said is when it is worth trying again.
        if let Some(wait) = waits.0.max(waits.1) {
            return Err(wait);
        }
        self.addresses.take(PER_ADDRESS, address, now)?;
        if let Err(wait) = self.accounts.take(PER_ACCOUNT, account.clone(), now) {
            // Somebody else took the last one just now.
            self.addresses.give_back(&address, now);
            return Err(wait);
        }
        Ok(Attempt { by: By::Stranger { address, account }, at: now })
    }

    /// The password was not looked at, since too many were. That is no failure of the account, but whoever fills the
    /// queue from an address goes on doing so for no longer than with passwords that are wrong.
    pub(super) fn give_back_unchecked(&self, attempt: &Attempt) {
        match &attempt.by {
            By::Stranger { account, .. } => self.accounts.give_back(account, attempt.at),
            By::Device(device) => self.devices.give_back(device, attempt.at),
        }
    }

    /// It was none.
    pub(super) fn give_back(&self, attempt: &Attempt) {
        match &attempt.by {
            By::Stranger { address, account } => {
                self.addresses.give_back(address, attempt.at);
                self.accounts.give_back(account, attempt.at);
            }
            By::Device(device) => self.devices.give_back(device, attempt.at),
        }
    }
}

#[derive(Debug)]
struct Table<K>(Mutex<HashMap<K, VecDeque<Mono>>>);

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq + Clone> Table<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, VecDeque<Mono>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long this one has to wait.
    fn wait(&self, quota: Quota, key: &K, now: Mono) -> Option<Duration> {
        let table = self.lock();
        let counted = table.get(key)?.iter().filter(|time| now.since(**time) < quota.window);
        let first = counted.clone().next()?;
        (counted.count() >= quota.count).then(|| quota.window.saturating_sub(now.since(*first)))
    }

    fn take(&self, quota: Quota, key: K, now: Mono) -> Result<(), Duration> {
        let mut table = self.lock();
        if table.len() >= KEPT && !table.contains_key(&key) {
            let over = |times: &VecDeque<Mono>| times.back().is_none_or(|last| now.since(*last) >= quota.window);
            table.retain(|_, times| !over(times));
            if table.len() >= KEPT {
                // Whoever failed longest ago.
                let oldest = table.iter().min_by_key(|(_, times)| times.back().copied()).map(|(key, _)| key.clone());
                oldest.and_then(|oldest| table.remove(&oldest));
            }
        }
        let times = table.entry(key).or_default();
        while times.front().is_some_and(|first| now.since(*first) >= quota.window) {
            times.pop_front();
        }
        match times.front() {
            Some(first) if times.len() >= quota.count => Err(quota.window.saturating_sub(now.since(*first))),
            _ => {
                times.push_back(now);
                Ok(())
            }
        }
    }

    fn give_back(&self, key: &K, at: Mono) {
        let mut table = self.lock();
        if let Some(times) = table.get_mut(key) {
            if let Some(index) = times.iter().rposition(|time| *time == at) {
                times.remove(index);
            }
            if times.is_empty() {
                table.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Mono = Mono::from_nanos(1_000_000_000_000);

    fn after(seconds: u64) -> Mono {
        START.plus(Duration::from_secs(seconds))
    }

    fn address(last: u8) -> IpAddr {
        [203, 0, 113, last].into()
    }

    #[test]
    fn an_address_fails_ten_times_in_a_quarter_of_an_hour() {
        let throttle = Throttle::default();
        for n in 0..10 {
            throttle.take(address(1), &format!("name {n}"), None, START).expect("within the quota");
        }
        let wait = throttle.take(address(1), "another", None, after(60)).expect_err("beyond it");
        assert_eq!(wait, Duration::from_secs(840));
        throttle.take(address(2), "another", None, START).expect("another address");
        throttle.take(address(1), "another", None, after(900)).expect("the window is over");
    }

    #[test]
    fn one_address_alone_keeps_nobody_else_out_of_an_account() {
        let throttle = Throttle::default();
        for minute in 0..600 {
            throttle.take(address(1), "ada", None, after(60 * minute)).ok();
            let other = throttle.take(address(2), "ada", None, after(60 * minute)).expect("another address");
            throttle.give_back(&other);
        }
    }

    #[test]
    fn many_addresses_keep_strangers_out_for_so_long_as_is_said_and_no_known_browser() {
        let throttle = Throttle::default();
        for n in 0..20 {
            throttle.take(address(n), "ada", None, after(u64::from(n))).expect("within the quota");
        }
        let wait = throttle.take(address(99), "ada", None, after(60)).expect_err("a stranger");
        assert_eq!(wait, Duration::from_secs(840));
        throttle.take(address(99), "ada", None, after(60).plus(wait)).expect("as it was said");
        let device = || Some("d".to_owned());
        for _ in 0..100 {
            let mine = throttle.take(address(1), "ada", device(), after(60)).expect("a known browser");
            throttle.give_back(&mine);
        }
    }

    #[test]
    fn a_known_browser_has_a_count_of_its_own_and_then_a_strangers() {
        let throttle = Throttle::default();
        let device = |name: &str| Some(name.to_owned());
        for _ in 0..10 {
            throttle.take(address(1), "ada", device("d"), START).expect("its own");
        }
        assert!(throttle.addresses.lock().is_empty() && throttle.accounts.lock().is_empty());
        for _ in 0..10 {
            throttle.take(address(1), "ada", device("d"), after(60)).expect("a stranger's");
        }
        let wait = throttle.take(address(1), "ada", device("d"), after(60)).expect_err("both are used up");
        assert_eq!(wait, Duration::from_secs(840), "the sooner of the two");
        throttle.take(address(1), "ada", device("e"), after(60)).expect("another one");
    }

    #[test]
    fn an_account_is_guessed_twenty_times_from_however_many_addresses() {
        let throttle = Throttle::default();
        for n in 0..20 {
            throttle.take(address(n), "ada", None, START).expect("within the quota");
        }
        throttle.take(address(99), "ada", None, START).expect_err("beyond it");
        throttle.take(address(99), "bob", None, START).expect("another account");
        throttle.take(address(99), "ada", None, after(900)).expect("the window is over");
    }

    #[test]
    fn a_success_is_no_failure() {
        let throttle = Throttle::default();
        for _ in 0..100 {
            let attempt = throttle.take(address(1), "ada", None, START).expect("nothing failed");
            throttle.give_back(&attempt);
        }
        assert!(throttle.addresses.lock().is_empty() && throttle.accounts.lock().is_empty());
    }

    #[test]
    fn an_attempt_that_was_not_looked_at_counts_for_a_strangers_address_alone() {
        let throttle = Throttle::default();
        for n in 0..10 {
            let attempt = throttle.take(address(1), "ada", None, after(n)).expect("within the quota");
            assert!(!attempt.is_known());
            throttle.give_back_unchecked(&attempt);
        }
        throttle.take(address(1), "bob", None, after(10)).expect_err("beyond it");
        assert!(throttle.accounts.lock().is_empty());
        for n in 0..100 {
            let attempt = throttle.take(address(1), "ada", Some("d".to_owned()), after(n)).expect("a known browser");
            assert!(attempt.is_known());
            throttle.give_back_unchecked(&attempt);
        }
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one() {
        let throttle = Throttle::default();
        for n in 0..10 {
            throttle
                .take(format!("2001:db8::{n}").parse().expect("an address"), &n.to_string(), None, START)
                .expect("within");
        }
        throttle.take("2001:db8::ffff".parse().expect("an address"), "x", None, START).expect_err("beyond it");
        throttle.take("2001:db8:0:1::1".parse().expect("an address"), "x", None, START).expect("another network");
    }

    #[test]
    fn what_is_kept_in_mind_is_bounded() {
        let throttle = Throttle::default();
        for n in 0..u32::try_from(KEPT).expect("small") + 50 {
            let at = START.plus(Duration::from_millis(n.into()));
            throttle.take(std::net::Ipv4Addr::from_bits(n).into(), "ada", None, at).ok();
            throttle.accounts.take(PER_ACCOUNT, n.to_string(), at).expect("another name each time");
        }
        assert!(throttle.addresses.lock().len() <= KEPT && throttle.accounts.lock().len() <= KEPT);
    }
}
