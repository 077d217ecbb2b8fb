//! The places for connections of one thread to one upstream: who has them, and who waits for one.
//!
//! Pools come and go with reloads. What is still in use of an old one goes on counting for the one that follows it.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::{Rc, Weak},
};

use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::{
    pool::{Pool, PooledConnection},
    share::{Caller, Held, Holders},
};

/// All places, those in use and those that are free.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// How many there are.
    pub(super) all: Cell<usize>,
    open: Cell<usize>,
    holders: Rc<Holders>,
    /// Those that wait for a connection, in order of arrival.
    waiting: RefCell<VecDeque<Waiter>>,
    /// The pool in force, which may have connections that lie idle.
    pub(super) pool: RefCell<Weak<Pool>>,
}

/// One who waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) caller: Caller,
    pub(super) turn: oneshot::Sender<Turn>,
}

/// What one who waited is given. What is held is given up first: who is asked next must find it free.
#[derive(Debug)]
pub(super) enum Turn {
    Reuse(PooledConnection),
    Open(Held, Opened),
}

/// One of the connections that take a place, from before it is opened until it is gone.
#[derive(Debug)]
pub(super) struct Opened(Rc<Places>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        if !self.0.is_awaited() {
            return;
        }
        // Who held it has one less, so that there may be one who may have what lies idle now.
        let pool = self.0.pool.borrow().upgrade();
        match pool {
            Some(pool) => pool.hand_on(),
            None => self.0.offer(),
        }
    }
}

impl Places {
    /// Whether none is free, not even for a connection that would be closed first.
    pub(super) fn all_open(&self) -> bool {
        self.open.get() >= self.all.get()
    }

    /// Whether one caller may have one more connection.
    pub(super) fn may_have(&self, caller: Caller) -> bool {
        self.holders.may_have(caller, self.all.get())
    }

    /// Notes that this caller has one more.
    pub(super) fn note(&self, caller: Caller) -> Held {
        self.holders.note(caller)
    }

    /// A place for a connection that this caller is to open.
    pub(super) fn take(self: &Rc<Self>, caller: Caller) -> Option<(Held, Opened)> {
        (!self.all_open() && self.may_have(caller)).then(|| {
            self.open.set(self.open.get() + 1);
            (self.note(caller), Opened(Rc::clone(self)))
        })
    }

    /// Waits for a turn.
    pub(super) fn wait(&self, caller: Caller) -> oneshot::Receiver<Turn> {
        let (turn, receiver) = oneshot::channel();
        self.waiting.borrow_mut().push_back(Waiter { caller, turn });
        receiver
    }

    /// Whether anybody waits, or did.
    pub(super) fn is_awaited(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// The first who still waits and may have a connection.
    pub(super) fn next_waiter(&self) -> Option<Waiter> {
        let mut waiting = self.waiting.borrow_mut();
        // A caller may have many that wait, and is asked after once.
        let mut refused = SmallVec::<[Caller; 8]>::new();
        let mut at = 0;
        loop {
            let waiter = waiting.get(at)?;
            if waiter.turn.is_closed() {
                waiting.remove(at);
            } else if refused.contains(&waiter.caller) {
                at += 1;
            } else if self.may_have(waiter.caller) {
                return waiting.remove(at);
            } else if self.holders.count() >= self.all.get() {
                return None;
            } else {
                refused.push(waiter.caller);
                at += 1;
            }
        }
    }

    /// Forgets those who gave up.
    pub(super) fn prune(&self) {
        self.waiting.borrow_mut().retain(|waiter| !waiter.turn.is_closed());
    }

    /// Gives a free place to the first who waits and may have it. False: there is none, or nobody.
    fn hand_on(self: &Rc<Self>) -> bool {
        if self.all_open() || !self.is_awaited() {
            return false;
        }
        // Nothing else runs on this thread meanwhile, so one who still waits takes what is sent.
        let Some(Waiter { caller, turn }) = self.next_waiter() else { return false };
        let Some((held, opened)) = self.take(caller) else { return false };
        drop(turn.send(Turn::Open(held, opened)));
        true
    }

    /// The same for a pool without an idle connection.
    pub(super) fn offer(self: &Rc<Self>) {
        while self.hand_on() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(all: usize) -> Rc<Places> {
        let places = Places::default();
        places.all.set(all);
        Rc::new(places)
    }

    fn has_turn(waiting: &mut oneshot::Receiver<Turn>) -> bool {
        waiting.try_recv().is_ok()
    }

    /// What a thread gives to one who is gone meanwhile goes to the next one.
    #[test]
    fn a_place_for_one_who_is_gone_goes_to_the_next() {
        let places = places(1);
        let taken = places.take(Caller::Owner(1)).unwrap();
        let first = places.wait(Caller::Owner(2));
        let mut second = places.wait(Caller::Owner(3));
        drop(taken);
        // The first was given the place, and never looked.
        drop(first);
        assert!(has_turn(&mut second));
    }

    /// One release may make room for two: for what was given back, and for who has one less.
    #[test]
    fn all_that_is_free_is_given() {
        let places = places(5);
        let (one, other) = (Caller::Owner(1), Caller::Owner(2));
        let mut of_one: Vec<_> = (0..2).map(|_| places.take(one).unwrap()).collect();
        let _of_other: Vec<_> = (0..2).map(|_| places.take(other).unwrap()).collect();
        let mut waiting = [other, one].map(|caller| places.wait(caller));
        places.offer();
        assert!(!waiting.iter_mut().any(has_turn), "each has twice what is left");
        let held = waiting.map(|mut turn| {
            of_one.pop();
            turn.try_recv()
        });
        assert!(held.iter().all(Result::is_ok), "{held:?}");
    }

    #[test]
    fn who_gave_up_is_forgotten() {
        let places = places(1);
        let _taken = places.take(Caller::Owner(1)).unwrap();
        for _ in 0..100 {
            drop(places.wait(Caller::Owner(2)));
        }
        assert!(places.is_awaited());
        places.prune();
        assert!(!places.is_awaited());
    }
}
