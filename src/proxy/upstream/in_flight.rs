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
    counts: Arc<Counts>,
    max: usize,
}

/// Those that are taken, whatever the limit was when they were.
#[derive(Debug, Default)]
struct Counts {
    all: AtomicUsize,
    /// How many are of callers without a key.
    keyless: AtomicUsize,
    by_address: DashMap<IpAddr, usize>,
}

impl InFlight {
    /// Nothing is on its way, and of nobody's no more than `max` ever will be.
    pub fn new(max: usize) -> Self {
        Self { counts: Arc::default(), max }
    }

    /// From now on, what is on its way under an older limit counts.
    pub fn succeed(&mut self, older: &Self) {
        self.counts = Arc::clone(&older.counts);
    }

    /// A place for a request with a key of this owner's, or for one without a key from this address; unless this caller
    /// has as many as it may have.
    pub fn enter(&self, key: Option<&KeyRecord>, client: IpAddr) -> Option<Place> {
        let taken = self.counts.all.fetch_add(1, Relaxed);
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
                let keyless = self.counts.keyless.fetch_add(1, Relaxed);
                let has = {
                    let mut count = self.counts.by_address.entry(address).or_default();
                    *count += 1;
                    *count - 1
                };
                (Whose::Address(address), has < left && keyless.saturating_mul(2) < left.saturating_mul(5))
            }
        };
        // From here on all is given back by the place, also by one that is refused.
        let place = Place { counts: Arc::clone(&self.counts), whose };
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
    counts: Arc<Counts>,
    whose: Whose,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counts.all.fetch_sub(1, Relaxed);
        match &self.whose {
            Whose::Owner(state) => {
                state.in_flight.fetch_sub(1, Relaxed);
            }
            Whose::Address(address) => {
                self.counts.keyless.fetch_sub(1, Relaxed);
                self.counts.by_address.remove_if_mut(address, |_, count| {
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
        assert!(in_flight.counts.by_address.is_empty());
        assert_eq!((in_flight.counts.all.load(Relaxed), in_flight.counts.keyless.load(Relaxed)), (0, 0));
        assert_eq!(fill(from(3)).len(), 30);
    }
    #[test]
    fn a_new_limit_counts_what_is_under_way() {
        let older = InFlight::new(20);
        let places: Vec<_> = (0..10).map(|_| older.enter(None, from(1)).unwrap()).collect();
        let mut newer = InFlight::new(10);
        newer.succeed(&older);
        assert!(newer.enter(None, from(1)).is_none());
        assert!(newer.enter(None, from(2)).is_some(), "others find half as many more");
        drop(places);
        assert!(newer.enter(None, from(1)).is_some());
    }
}
