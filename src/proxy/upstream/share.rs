//! How places are shared out among callers: nobody is given one who has twice as many as are left.
//!
//! A caller is an owner, with all keys of theirs. Whoever comes first may have two thirds of the places, the next one two
//! thirds of what is left then, and so on: a caller that reads no answers, or sends its requests to the slowest path,
//! stops itself before anybody else. All who call without a key are one such caller, and none of their addresses gets
//! more than is left. A handful of owners together can still take all. The rule is that of shared-memory switches
//! (Choudhury and Hahne, 1998, "Dynamic queue length thresholds").

use std::{cell::RefCell, net::IpAddr, rc::Rc, sync::Arc};

use slab::Slab;

use crate::{keys::KeyRecord, listener::counted_address};

/// Among whom places are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// An owner, by where its state lies in memory: that is the same for all versions of its record.
    Owner(usize),
    /// A caller without a key, by its address; of IPv6 the first half, which is what one subscriber has.
    Address(IpAddr),
}

impl Caller {
    /// The owner of this key.
    pub fn with(key: &KeyRecord) -> Self {
        Self::Owner(Arc::as_ptr(&key.owner.state).addr())
    }

    /// Whoever calls from this address without a key.
    pub fn at(address: IpAddr) -> Self {
        Self::Address(counted_address(address))
    }
}

/// Who holds places of this thread.
#[derive(Debug, Default)]
pub(super) struct Holders(RefCell<Slab<Caller>>);

/// A place in somebody's hands, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    holders: Rc<Holders>,
    at: usize,
}

impl Holders {
    /// How many places are held.
    pub(super) fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// Whether this caller may have one more of all.
    pub(super) fn may_have(&self, caller: Caller, all: usize) -> bool {
        let holders = self.0.borrow();
        let taken = holders.len();
        let left = all.saturating_sub(taken);
        // As a rule not even all that is taken would be too much for one.
        if taken < left {
            return true;
        }
        let has = |is: &dyn Fn(&Caller) -> bool| holders.iter().filter(|(_, holder)| is(holder)).count();
        match caller {
            _ if left == 0 => false,
            Caller::Owner(_) => taken < 2 * left || has(&|holder| *holder == caller) < 2 * left,
            Caller::Address(_) => {
                has(&|holder| matches!(holder, Caller::Address(_))) < 2 * left
                    && has(&|holder| *holder == caller) < left
            }
        }
    }

    /// Notes that this caller has one more.
    pub(super) fn note(self: &Rc<Self>, caller: Caller) -> Held {
        Held { holders: Rc::clone(self), at: self.0.borrow_mut().insert(caller) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.holders.0.borrow_mut().remove(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `all` each of these callers gets, who take all they can, one after the other.
    fn shares(all: usize, callers: usize) -> Vec<usize> {
        let holders = Rc::new(Holders::default());
        let mut held = Vec::new();
        (0..callers)
            .map(|caller| {
                let before = held.len();
                while holders.may_have(Caller::Owner(caller), all) {
                    held.push(holders.note(Caller::Owner(caller)));
                }
                held.len() - before
            })
            .collect()
    }

    #[test]
    fn some_are_left_for_whoever_comes_next() {
        assert_eq!(shares(128, 6), [86, 28, 10, 3, 1, 0]);
        assert_eq!(shares(1, 2), [1, 0]);
        assert_eq!(shares(2, 2), [2, 0], "of so few nothing can be left");
        assert_eq!(shares(3, 3), [2, 1, 0]);
        assert_eq!(shares(0, 1), [0]);
    }

    /// Two thirds for all of them, and one has no more than is left for the others.
    #[test]
    fn who_has_no_key_is_one_of_many() {
        let holders = Rc::new(Holders::default());
        let mut held = Vec::new();
        let mut fill = |caller| {
            let before = held.len();
            while holders.may_have(caller, 120) {
                held.push(holders.note(caller));
            }
            held.len() - before
        };
        let addresses: Vec<usize> = (0..8).map(|last| fill(Caller::at([192, 0, 2, last].into()))).collect();
        assert_eq!(addresses, [60, 20, 0, 0, 0, 0, 0, 0]);
        assert_eq!(fill(Caller::Owner(1)), 27, "two thirds of the last third");
    }

    #[test]
    fn addresses_of_one_network_are_one_caller() {
        let at = |address: &str| Caller::at(address.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }

    #[test]
    fn what_is_given_back_can_be_had_again() {
        let holders = Rc::new(Holders::default());
        let (one, other) = (Caller::Owner(1), Caller::at([127, 0, 0, 1].into()));
        let held: Vec<Held> = (0..4).map(|_| holders.note(one)).collect();
        assert!(!holders.may_have(one, 6));
        assert!(holders.may_have(other, 6));
        drop(held);
        assert_eq!(holders.count(), 0);
        assert!(holders.may_have(one, 6));
    }
}
