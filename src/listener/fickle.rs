//! Fields that HTTP/2 need not remember: those whose value is another one in every answer.
//!
//! HPACK keeps what it has sent, to name it by a number when it comes again. A request id never comes again: it only
//! pushes out what does, is compared with by every id that follows, and keeps alive the memory that it was cut from.
//! Such values are marked as sensitive, which is what the codec calls a value that is not to be kept (RFC 7541 §7.1.3).

use std::hash::BuildHasher as _;

use foldhash::fast::FixedState;
use http::{HeaderMap, HeaderName};

/// How many fields are known; of others, all values are kept.
const KNOWN: usize = 24;

/// What the last answer on a connection said, in the order in which fields were first seen.
#[derive(Default)]
pub(super) struct Fickle {
    known: Vec<Known>,
}

struct Known {
    name: HeaderName,
    digest: u64,
}

impl Fickle {
    /// Marks the values that differ from those of the last answer. One that stays is kept from its second time on.
    pub(super) fn mark(&mut self, headers: &mut HeaderMap) {
        // Answers of one API have the same fields in much the same order.
        let mut next = 0;
        for (name, value) in headers {
            let digest = FixedState::default().hash_one(value.as_bytes());
            let same = |known: &Known| known.name == *name;
            let place = match self.known.get(next) {
                Some(known) if same(known) => Some(next),
                _ => self.known.iter().position(same),
            };
            match place {
                Some(place) => {
                    let known = &mut self.known[place];
                    if known.digest != digest {
                        known.digest = digest;
                        value.set_sensitive(true);
                    }
                    next = place + 1;
                }
                None if self.known.len() < KNOWN => {
                    self.known.push(Known { name: name.clone(), digest });
                    next = self.known.len();
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    /// Gives the names of the fields that an answer has and that are not to be kept.
    #[track_caller]
    fn check(fickle: &mut Fickle, fields: &[(&'static str, &'static str)], expected: &[&str]) {
        let mut headers = answer(fields);
        fickle.mark(&mut headers);
        let marked = headers.iter().filter(|(_, value)| value.is_sensitive());
        assert_eq!(marked.map(|(name, _)| name.as_str()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_changes_is_marked_and_what_stays_is_kept() {
        let fickle = &mut Fickle::default();
        check(fickle, &[("server", "a"), ("date", "1"), ("x-request-id", "x")], &[]);
        check(fickle, &[("server", "a"), ("date", "1"), ("x-request-id", "y")], &["x-request-id"]);
        check(fickle, &[("server", "a"), ("date", "2"), ("x-request-id", "z")], &["date", "x-request-id"]);
        check(fickle, &[("x-request-id", "v"), ("date", "2"), ("server", "a")], &["x-request-id"]);
        check(fickle, &[("etag", "1"), ("x-request-id", "w")], &["x-request-id"]);
        check(fickle, &[("etag", "2"), ("server", "a")], &["etag"]);
    }

    #[test]
    fn an_upstream_that_invents_names_does_not_fill_the_memory() {
        let fickle = &mut Fickle::default();
        for number in 0..100 {
            let name: HeaderName = format!("x-{number}").parse().unwrap();
            fickle.mark(&mut [(name, "1".parse().unwrap())].into_iter().collect());
        }
        assert_eq!(fickle.known.len(), KNOWN);
    }
}
