//! How often a password may be tried: by one address, and for one account. Counted in memory, by each control plane.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::super::audit;
use crate::{clock::Mono, listener::counted_address};

/// Failures of one address.
const PER_ADDRESS: Quota = Quota { count: 10, window: Duration::from_secs(300) };
/// Failures for one name, whether there is such an operator or not. Twenty in a quarter of an hour guess no password, and
/// whoever mistypes theirs is not kept out for long.
const PER_ACCOUNT: Quota = Quota { count: 20, window: Duration::from_secs(900) };
/// Addresses, and names, that are kept in mind.
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
}

/// One attempt that was counted.
#[derive(Debug)]
pub(super) struct Attempt {
    address: IpAddr,
    account: String,
    at: Mono,
}

impl Throttle {
    /// Counts an attempt as a failure, until it is given back; or says how long to wait.
    pub(super) fn take(&self, address: IpAddr, name: &str, now: Mono) -> Result<Attempt, Duration> {
        // A name may be a mistyped password, and is not kept as it is.
        let attempt = Attempt { address: counted_address(address), account: audit::hex(name), at: now };
        self.addresses.take(PER_ADDRESS, attempt.address, now)?;
        if let Err(wait) = self.accounts.take(PER_ACCOUNT, attempt.account.clone(), now) {
            self.addresses.give_back(&attempt.address, now);
            return Err(wait);
        }
        Ok(attempt)
    }

    /// It was none.
    pub(super) fn give_back(&self, attempt: &Attempt) {
        self.addresses.give_back(&attempt.address, attempt.at);
        self.accounts.give_back(&attempt.account, attempt.at);
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

    fn address(last: u8) -> IpAddr {
        [203, 0, 113, last].into()
    }

    #[test]
    fn an_address_fails_ten_times_in_five_minutes() {
        let throttle = Throttle::default();
        for n in 0..10 {
            throttle.take(address(1), &format!("name {n}"), START).expect("within the quota");
        }
        let wait = throttle.take(address(1), "another", START.plus(Duration::from_secs(60))).expect_err("beyond it");
        assert_eq!(wait, Duration::from_secs(240));
        throttle.take(address(2), "another", START).expect("another address");
        throttle.take(address(1), "another", START.plus(Duration::from_secs(300))).expect("the window is over");
    }

    #[test]
    fn an_account_is_guessed_twenty_times_from_however_many_addresses() {
        let throttle = Throttle::default();
        for n in 0..20 {
            throttle.take(address(n), "ada", START).expect("within the quota");
        }
        throttle.take(address(99), "ada", START).expect_err("beyond it");
        throttle.take(address(99), "bob", START).expect("another account");
        throttle.take(address(99), "ada", START.plus(Duration::from_secs(900))).expect("the window is over");
    }

    #[test]
    fn a_success_is_no_failure() {
        let throttle = Throttle::default();
        for _ in 0..100 {
            let attempt = throttle.take(address(1), "ada", START).expect("nothing failed");
            throttle.give_back(&attempt);
        }
        assert!(throttle.addresses.lock().is_empty() && throttle.accounts.lock().is_empty());
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one() {
        let throttle = Throttle::default();
        for n in 0..10 {
            throttle
                .take(format!("2001:db8::{n}").parse().expect("an address"), &n.to_string(), START)
                .expect("within");
        }
        throttle.take("2001:db8::ffff".parse().expect("an address"), "x", START).expect_err("beyond it");
        throttle.take("2001:db8:0:1::1".parse().expect("an address"), "x", START).expect("another network");
    }

    #[test]
    fn what_is_kept_in_mind_is_bounded() {
        let throttle = Throttle::default();
        for n in 0..u32::try_from(KEPT).expect("small") + 50 {
            let at = START.plus(Duration::from_millis(n.into()));
            throttle.take(std::net::Ipv4Addr::from_bits(n).into(), "ada", at).ok();
            throttle.accounts.take(PER_ACCOUNT, n.to_string(), at).expect("another name each time");
        }
        assert!(throttle.addresses.lock().len() <= KEPT && throttle.accounts.lock().len() <= KEPT);
    }
}
