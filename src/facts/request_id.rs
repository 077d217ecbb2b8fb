//! The id of a request.

use std::{
    cell::RefCell,
    hash::{BuildHasher, RandomState},
};

use bytes::{Bytes, BytesMut};
use http::HeaderValue;

/// The id of a request: the caller's if it is sane, else a new one.
///
/// New ones are 128 random bits, as unguessable as they need to be to be told apart: they are no secret.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

/// How long a caller's id may be.
const MAX_BYTES: usize = 128;

/// 128 bits in base 32, each half on its own.
const NEW_BYTES: usize = 26;

/// How many new ids are made at once: each is a slice of one block, so that an id costs no allocation of its own.
const BLOCK: usize = 64;

/// Crockford's alphabet, in lower case: no letter in it is taken for a digit.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl RequestId {
    /// A new id; takes no system call and, but once in 64 times, no allocation.
    pub fn new() -> Self {
        thread_local! {
            static SOURCE: RefCell<Source> = RefCell::new(Source::seeded());
        }
        let id = SOURCE.with_borrow_mut(Source::next);
        // The alphabet is one of field values, so that this cannot fail.
        Self(HeaderValue::from_maybe_shared(id).unwrap_or(HeaderValue::from_static("-")))
    }

    /// The caller's id, if it is one that logs and upstreams can take.
    pub(super) fn sane(sent: &HeaderValue) -> Option<Self> {
        let bytes = sent.as_bytes();
        let takes = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(byte);
        let sane = (1..=MAX_BYTES).contains(&bytes.len()) && bytes.iter().all(takes);
        sane.then(|| Self(sent.clone()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The id as bytes of ASCII, which costs no look at each of them.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The id as a field value.
    pub fn header_value(&self) -> &HeaderValue {
        &self.0
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

/// A thread's source of ids: a generator (xoroshiro128++ by Blackman and Vigna) and what is left of a block.
struct Source {
    state: [u64; 2],
    block: Bytes,
}

impl Source {
    fn seeded() -> Self {
        let mut seed = [0; 16];
        let state = match getrandom::fill(&mut seed) {
            Ok(()) => {
                let seed = u128::from_ne_bytes(seed);
                [seed as u64, (seed >> 64) as u64]
            }
            // Without the system's randomness, ids need not be worse than the keys of a hash map.
            Err(_) => [RandomState::new().hash_one(0), RandomState::new().hash_one(1)],
        };
        // A state of zeros would stay one.
        Self { state: if state == [0, 0] { [1, 1] } else { state }, block: Bytes::new() }
    }

    fn next(&mut self) -> Bytes {
        if self.block.is_empty() {
            self.block = self.fill();
        }
        self.block.split_to(NEW_BYTES)
    }

    fn fill(&mut self) -> Bytes {
        let mut block = BytesMut::with_capacity(NEW_BYTES * BLOCK);
        for _ in 0..BLOCK {
            let mut id = [0; NEW_BYTES];
            for half in id.chunks_exact_mut(NEW_BYTES / 2) {
                let mut bits = self.random();
                for digit in half {
                    *digit = ALPHABET[(bits & 31) as usize];
                    bits >>= 5;
                }
            }
            block.extend_from_slice(&id);
        }
        block.freeze()
    }

    fn random(&mut self) -> u64 {
        let [first, mut second] = self.state;
        let random = first.wrapping_add(second).rotate_left(17).wrapping_add(first);
        second ^= first;
        self.state = [first.rotate_left(49) ^ second ^ (second << 21), second.rotate_left(28)];
        random
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[track_caller]
    fn check(sent: &str, expected: bool) {
        let id = RequestId::sane(&HeaderValue::from_bytes(sent.as_bytes()).unwrap());
        assert_eq!(id.as_ref().map(RequestId::as_str), expected.then_some(sent), "{sent:?}");
    }

    #[test]
    fn a_sane_id_is_kept() {
        check("a", true);
        check("0190e1c2-7b6a-7c3e-9f1a-2b3c4d5e6f70", true);
        check("Root=1-67891233:abc/def+g_h.i", true);
        check(&"x".repeat(128), true);
    }

    #[test]
    fn any_other_id_is_not() {
        for sent in ["", "a b", "a,b", "a;b", "a\"b", "<a>", "{}", "a\tb", "caf\u{e9}", "a'b", "a\\b"] {
            check(sent, false);
        }
        check(&"x".repeat(129), false);
    }

    #[test]
    fn new_ids_are_sane_and_differ_within_and_between_threads() {
        let make = || (0..1000).map(|_| RequestId::new().as_str().to_owned()).collect::<Vec<_>>();
        let others = std::thread::spawn(make);
        let ids: HashSet<_> = make().into_iter().chain(others.join().unwrap()).collect();
        assert_eq!(ids.len(), 2000);
        for id in &ids {
            assert_eq!(id.len(), NEW_BYTES);
            check(id, true);
        }
        // Every place takes all values, but for the last of each half, which holds what is left of 64 bits.
        for place in 0..NEW_BYTES {
            let values: HashSet<_> = ids.iter().map(|id| id.as_bytes()[place]).collect();
            assert_eq!(values.len(), if place % 13 == 12 { 16 } else { 32 }, "place {place}");
        }
    }

    #[test]
    fn a_new_id_costs_no_allocation_of_its_own() {
        let mut source = Source::seeded();
        let ids: Vec<_> = (0..BLOCK).map(|_| source.next()).collect();
        for pair in ids.windows(2) {
            assert_eq!(pair[0].as_ptr().wrapping_add(NEW_BYTES), pair[1].as_ptr());
        }
    }
}
