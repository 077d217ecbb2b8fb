//! How many requests are on their way to the upstream, over all serving threads, and whose they are.
//!
//! One owner alone may have all that are allowed, and then half as many more are there for the others: nobody is given
//! one who has twice as many as are left of both. All who call without a key may have a quarter more than one of them, so
//! that something is left for another address, and for those with a key.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use dashmap::DashMap;

use crate::{
    keys::{KeyRecord, OwnerState},
    listener::counted_address,
};

/// The places of requests on their way.
#[derive(Debug)]
pub struct InFlight {
    current: AtomicUsize,
    max: usize,
    /// How many are of callers without a key.
    keyless: AtomicUsize,
    by_address: DashMap<IpAddr, usize>,
}

impl InFlight {
    /// Nothing is on its way, and of nobody's no more than `max` ever will be.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { current: AtomicUsize::new(0), max, keyless: AtomicUsize::new(0), by_address: DashMap::new() })
    }

    /// How many there may be of one caller.
    pub fn max(&self) -> usize {
        self.max
    }

    /// A place for a request with a key of this owner's, or for one without a key from this address; unless this caller
    /// has as many as it may have.
    pub fn enter(self: &Arc<Self>, key: Option<&KeyRecord>, client: IpAddr) -> Option<Place> {
        let taken = self.current.fetch_add(1, Relaxed);
        // Twice of what is left of one and a half times the limit.
        let left = (3 * self.max).saturating_sub(taken.saturating_mul(2));
        let (whose, may_have) = match key {
            Some(key) => {
                let state = Arc::clone(&key.owner.state);
                let has = state.in_flight.fetch_add(1, Relaxed);
                (Whose::Owner(state), has < left)
            }
            None => {
                let address = counted_address(client);
                let all = self.keyless.fetch_add(1, Relaxed);
                let has = {
                    let mut count = self.by_address.entry(address).or_default();
                    *count += 1;
                    *count - 1
                };
                (Whose::Address(address), has < left && all.saturating_mul(2) < left.saturating_mul(5))
            }
        };
        // From here on all is given back by the place, also by one that is refused.
        let place = Place { in_flight: Arc::clone(self), whose };
        may_have.then_some(place)
    }
}

#[derive(Debug)]
enum Whose {
    Owner(Arc<OwnerState>),
    Address(IpAddr),
}

/// A place among the requests on their way; given back when dropped.
#[derive(Debug)]
pub struct Place {
    in_flight: Arc<InFlight>,
    whose: Whose,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.in_flight.current.fetch_sub(1, Relaxed);
        match &self.whose {
            Whose::Owner(state) => {
                state.in_flight.fetch_sub(1, Relaxed);
            }
            Whose::Address(address) => {
                self.in_flight.keyless.fetch_sub(1, Relaxed);
                self.in_flight.by_address.remove_if_mut(address, |_, count| {
                    *count -= 1;
                    *count == 0
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn nobody_has_all_and_nothing_is_lost() {
        let in_flight = InFlight::new(30);
        let fill = |client| std::iter::from_fn(|| in_flight.enter(None, client)).collect::<Vec<_>>();
        let greedy = fill(from(1));
        let modest = fill(from(2));
        assert_eq!((greedy.len(), modest.len()), (30, 8), "a quarter more for all without a key");
        drop(greedy);
        assert_eq!(fill(from(1)).len(), 25, "two thirds of what is left");
        drop(modest);
        assert!(in_flight.by_address.is_empty());
        assert_eq!((in_flight.current.load(Relaxed), in_flight.keyless.load(Relaxed)), (0, 0));
        assert_eq!(fill(from(3)).len(), 30);
    }
}
