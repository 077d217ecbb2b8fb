//! The order in which slow verifications are done: fair over keys, and within a key over addresses.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

use foldhash::fast::RandomState;

/// What a verification is about: keys take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    /// A key, by where its state lives; the one waiting holds it.
    Key(usize),
    /// A name that no key has, by its digest.
    Name(u64),
}

/// Jobs that wait, each under a topic and an address.
///
/// Topics take turns, one job a turn; within a topic, addresses do. So who floods one key delays those who want that key,
/// and from his own address most of all.
#[derive(Debug)]
pub(super) struct FairQueue<J> {
    lanes: HashMap<Topic, Lane<J>, RandomState>,
    turns: VecDeque<Topic>,
    len: usize,
}

#[derive(Debug)]
struct Lane<J> {
    addresses: VecDeque<(IpAddr, VecDeque<J>)>,
    len: usize,
}

impl<J> Default for FairQueue<J> {
    fn default() -> Self {
        Self { lanes: HashMap::default(), turns: VecDeque::new(), len: 0 }
    }
}

impl<J: PartialEq> FairQueue<J> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many wait under this topic.
    pub(super) fn waiting(&self, topic: Topic) -> usize {
        self.lanes.get(&topic).map_or(0, |lane| lane.len)
    }

    pub(super) fn push(&mut self, topic: Topic, address: IpAddr, job: J) {
        let lane = self.lanes.entry(topic).or_insert_with(|| {
            self.turns.push_back(topic);
            Lane { addresses: VecDeque::new(), len: 0 }
        });
        match lane.addresses.iter_mut().find(|(other, _)| *other == address) {
            Some((_, jobs)) => jobs.push_back(job),
            None => lane.addresses.push_back((address, VecDeque::from([job]))),
        }
        lane.len += 1;
        self.len += 1;
    }

    /// The job whose turn it is.
    pub(super) fn pop(&mut self) -> Option<J> {
        let topic = self.turns.pop_front()?;
        let lane = self.lanes.get_mut(&topic)?;
        let (address, mut jobs) = lane.addresses.pop_front()?;
        let job = jobs.pop_front()?;
        if !jobs.is_empty() {
            lane.addresses.push_back((address, jobs));
        }
        lane.len -= 1;
        self.len -= 1;
        if lane.len == 0 {
            self.lanes.remove(&topic);
        } else {
            self.turns.push_back(topic);
        }
        Some(job)
    }

    /// Takes a job out of turn: nobody waits for it any more. Says whether it was there.
    pub(super) fn remove(&mut self, topic: Topic, address: IpAddr, job: &J) -> bool {
        let Some(lane) = self.lanes.get_mut(&topic) else { return false };
        let Some(at) = lane.addresses.iter().position(|(other, _)| *other == address) else { return false };
        let jobs = &mut lane.addresses[at].1;
        let Some(place) = jobs.iter().position(|other| other == job) else { return false };
        jobs.remove(place);
        if jobs.is_empty() {
            lane.addresses.remove(at);
        }
        lane.len -= 1;
        self.len -= 1;
        if lane.len == 0 {
            self.lanes.remove(&topic);
            self.turns.retain(|other| *other != topic);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    /// Pushes jobs named `key address number`, pops all, and compares the order.
    #[track_caller]
    fn check(pushed: &[(usize, IpAddr, &'static str)], expected: &[&str]) {
        let mut queue = FairQueue::default();
        for (key, address, job) in pushed {
            queue.push(Topic::Key(*key), *address, *job);
        }
        assert_eq!(queue.len(), pushed.len());
        let popped: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(popped, expected);
        assert!(queue.lanes.is_empty() && queue.turns.is_empty() && queue.len == 0);
    }

    #[test]
    fn keys_take_turns() {
        check(
            &[(1, A, "1a"), (1, A, "1b"), (1, A, "1c"), (2, A, "2a"), (3, A, "3a"), (3, A, "3b")],
            &["1a", "2a", "3a", "1b", "3b", "1c"],
        );
    }

    #[test]
    fn within_a_key_addresses_take_turns() {
        check(
            &[(1, A, "a1"), (1, A, "a2"), (1, A, "a3"), (1, B, "b1"), (2, A, "other")],
            &["a1", "other", "b1", "a2", "a3"],
        );
    }

    #[test]
    fn what_is_taken_out_leaves_no_trace() {
        let mut queue = FairQueue::default();
        queue.push(Topic::Key(1), A, 1);
        queue.push(Topic::Key(1), B, 2);
        queue.push(Topic::Name(1), A, 3);
        assert!(queue.remove(Topic::Key(1), A, &1));
        assert!(!queue.remove(Topic::Key(1), A, &1));
        assert!(!queue.remove(Topic::Key(1), A, &2));
        assert_eq!((queue.waiting(Topic::Key(1)), queue.waiting(Topic::Name(1)), queue.len()), (1, 1, 2));
        assert!(queue.remove(Topic::Key(1), B, &2));
        assert_eq!(queue.pop(), Some(3));
        assert_eq!(queue.pop(), None);
        assert!(queue.lanes.is_empty() && queue.turns.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost_or_done_twice(steps in proptest::collection::vec((0_u8..4, 0_usize..4, 0_u8..3), 0..200)) {
            let mut queue = FairQueue::default();
            let mut waiting = Vec::new();
            for (number, (what, key, host)) in steps.into_iter().enumerate() {
                let (topic, address) = (Topic::Key(key), IpAddr::from([192, 0, 2, host]));
                match what {
                    0 | 1 => {
                        queue.push(topic, address, number);
                        waiting.push((topic, address, number));
                    }
                    2 => {
                        let popped = queue.pop();
                        proptest::prop_assert_eq!(popped.is_none(), waiting.is_empty());
                        waiting.retain(|(_, _, number)| Some(*number) != popped);
                    }
                    _ => {
                        if let Some((topic, address, number)) = waiting.pop() {
                            proptest::prop_assert!(queue.remove(topic, address, &number));
                        }
                    }
                }
                proptest::prop_assert_eq!(queue.len(), waiting.len());
                proptest::prop_assert_eq!(
                    queue.waiting(topic),
                    waiting.iter().filter(|(other, _, _)| *other == topic).count()
                );
            }
        }
    }
}
