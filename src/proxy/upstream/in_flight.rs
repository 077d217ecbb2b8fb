//! How many requests are on their way to the upstream, over all serving threads, and whose they are.
//!
//! One caller alone may have all that are allowed, and then half as many more are there for the others: nobody is given
//! one who has twice as many as are left of both.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use dashmap::DashMap;

use crate::{
    keys::{KeyRecord, KeyState},
    listener::counted_address,
};

/// The places of requests on their way.
#[derive(Debug)]
pub struct InFlight {
    current: AtomicUsize,
    max: usize,
    /// How many are of callers without a key.
    by_address: DashMap<IpAddr, usize>,
}

impl InFlight {
    /// Nothing is on its way, and of nobody's no more than `max` ever will be.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { current: AtomicUsize::new(0), max, by_address: DashMap::new() })
    }

    /// How many there may be of one caller.
    pub fn max(&self) -> usize {
        self.max
    }

    /// A place for a request with this key, or for one without a key from this address; unless this caller has as many
    /// as it may have.
    pub fn enter(self: &Arc<Self>, key: Option<&KeyRecord>, client: IpAddr) -> Option<Place> {
        let taken = self.current.fetch_add(1, Relaxed);
        let whose = match key {
            Some(key) => Whose::Key(Arc::clone(&key.state)),
            None => Whose::Address(counted_address(client)),
        };
        let has = match &whose {
            Whose::Key(state) => state.in_flight.fetch_add(1, Relaxed),
            Whose::Address(address) => {
                let mut count = self.by_address.entry(*address).or_default();
                *count += 1;
                *count - 1
            }
        };
        // From here on both are given back by the place, also by one that is refused.
        let place = Place { in_flight: Arc::clone(self), whose };
        let is_left = 3 * self.max > has.saturating_add(taken.saturating_mul(2));
        is_left.then_some(place)
    }
}

#[derive(Debug)]
enum Whose {
    Key(Arc<KeyState>),
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
            Whose::Key(state) => {
                state.in_flight.fetch_sub(1, Relaxed);
            }
            Whose::Address(address) => {
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
        assert_eq!((greedy.len(), modest.len(), fill(from(3)).len()), (30, 10, 4));
        assert!(in_flight.enter(None, from(1)).is_none());
        drop(greedy);
        assert_eq!(fill(from(1)).len(), 24, "two thirds of what is left");
        drop(modest);
        assert!(in_flight.by_address.is_empty());
        assert_eq!(in_flight.current.load(Relaxed), 0);
        assert_eq!(fill(from(3)).len(), 30);
    }
}
