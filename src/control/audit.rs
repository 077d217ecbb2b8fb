//! The audit log: a hash chain, so that an entry that was changed, moved or taken out shows.
//!
//! Each entry's hash is the SHA-256, in hexadecimal, of the hash of the one before (64 zeros before the first), a line
//! break, and the entry as one line of JSON with its fields in a fixed order. The store's head names the last hash; a tail
//! that was cut off shows by it, and by what was noted outside of the store: in the anchor file, in the log, and by
//! whoever keeps what `GET /v1/audit` says.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use serde_json::json;

use super::{anchor, store::Entry};

/// What stands before the first entry.
pub const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The hash of an entry that comes after the one with this hash.
pub fn hash(before: &str, entry: &Entry) -> String {
    let line = json!({
        "seq": entry.seq,
        "at": entry.at.unix_millis(),
        "actor": entry.actor,
        "from": entry.from,
        "action": entry.action,
        "subject": entry.subject,
        "detail": entry.detail,
        "revision": entry.revision,
    });
    hex(&format!("{before}\n{line}"))
}

/// Goes along the log from its first entry, and stops at the first place that is wrong.
#[derive(Debug)]
pub struct Walk {
    seq: u64,
    hash: String,
    /// The hash that was noted outside of the store, by the number of the entry.
    anchors: BTreeMap<u64, String>,
    /// The history that was noted last.
    noted: Option<String>,
}

impl Walk {
    /// Before the first entry, with what was noted outside of the store of the history of this name.
    pub fn new(epoch: &str, anchors: &[anchor::Line]) -> Self {
        let of_this = anchors.iter().filter(|line| line.epoch == epoch);
        let last = anchors.last().map(|line| line.epoch.clone()).filter(|last| last != epoch);
        Self {
            seq: 0,
            hash: BEGINNING.to_owned(),
            anchors: of_this.map(|line| (line.seq, line.hash.clone())).collect(),
            noted: last,
        }
    }

    /// The number of the entry that comes next.
    pub fn next(&self) -> u64 {
        self.seq + 1
    }

    /// Takes the next entry.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn take(&mut self, entry: &Entry) -> Result<(), String> {
        let expected = self.next();
        if entry.seq != expected {
            return Err(format!("entry {expected} is missing: entry {} follows entry {}", entry.seq, self.seq));
        }
        if hash(&self.hash, entry) != entry.hash {
            return Err(format!(
                "entry {expected} is not what was written, or the entry before it is not: its hash is wrong"
            ));
        }
        if self.anchors.get(&expected).is_some_and(|noted| *noted != entry.hash) {
            return Err(format!("entry {expected} is another one than was noted in the anchor file"));
        }
        (self.seq, self.hash) = (expected, entry.hash.clone());
        Ok(())
    }

    /// Compares the end with the head of the store.
    ///
    /// # Errors
    ///
    /// A tail was cut off, or something is there that was not written.
    pub fn end(self, entries: u64, head: &str) -> Result<u64, String> {
        if self.seq < entries {
            return Err(format!("the end was cut off after entry {}: the head knows {entries}", self.seq));
        }
        if self.seq > entries || self.hash != head {
            return Err(format!("the head is not that of entry {}: it says {entries}", self.seq));
        }
        if let Some((noted, _)) = self.anchors.last_key_value()
            && *noted > self.seq
        {
            return Err(format!("the end was cut off after entry {}: the anchor file knows {noted}", self.seq));
        }
        if let Some(noted) = self.noted {
            return Err(format!(
                "the anchor file was last written for another history ({noted}): the store was replaced"
            ));
        }
        Ok(self.seq)
    }
}

/// SHA-256 of a text, in hexadecimal.
pub fn hex(text: &str) -> String {
    hex_of(text.as_bytes())
}

/// SHA-256 of bytes, in hexadecimal.
pub fn hex_of(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;

    /// A log of so many entries.
    fn log(count: u64) -> Vec<Entry> {
        let mut before = BEGINNING.to_owned();
        let entry = |seq| {
            let mut entry = Entry {
                seq,
                at: Wall::from_unix_millis(1_795_219_200_123),
                actor: "operator:anna".to_owned(),
                from: Some([203, 0, 113, 9].into()),
                action: "key.revoke".to_owned(),
                subject: format!("key_{seq}"),
                detail: json!({ "b": 1, "a": ["ü", null] }),
                revision: Some(seq),
                hash: String::new(),
            };
            entry.hash = hash(&before, &entry);
            before.clone_from(&entry.hash);
            entry
        };
        (1..=count).map(entry).collect()
    }

    fn line(epoch: &str, entry: &Entry) -> anchor::Line {
        anchor::Line { epoch: epoch.to_owned(), seq: entry.seq, hash: entry.hash.clone(), at: entry.at.timestamp() }
    }

    /// What is said of a log of five, changed, whose head and anchors are those of the whole one.
    #[track_caller]
    fn check(change: impl FnOnce(&mut Vec<Entry>), said: &str) {
        let whole = log(5);
        let (head, anchors) = (&whole[4], [line("e", &whole[1]), line("e", &whole[4])]);
        let mut changed = whole.clone();
        change(&mut changed);
        let mut walk = Walk::new("e", &anchors);
        let walked = changed.iter().try_for_each(|entry| walk.take(entry)).and_then(|()| walk.end(5, &head.hash));
        match walked {
            Ok(count) => assert_eq!((count, said), (5, "")),
            Err(why) => assert!(!said.is_empty() && why.contains(said), "{why}"),
        }
    }

    #[test]
    fn the_first_place_that_is_wrong_is_named() {
        check(|_| {}, "");
        check(|log| log[2].subject.push('x'), "entry 3 is not what was written");
        check(|log| log[2].actor = "system".to_owned(), "entry 3 is not");
        check(|log| log[2].from = None, "entry 3 is not");
        check(|log| log[2].at = Wall::from_unix_millis(0), "entry 3 is not");
        check(|log| log[2].detail = json!({ "a": ["ü", null], "b": 1 }), "entry 3 is not");
        check(|log| log[2].hash = BEGINNING.to_owned(), "entry 3 is not");
        check(|log| log.swap(1, 2), "entry 2 is missing");
        check(|log| drop(log.remove(0)), "entry 1 is missing");
        check(|log| drop(log.pop()), "cut off after entry 4: the head knows 5");
        check(|log| log.clear(), "cut off after entry 0");
    }

    /// Whoever changes the head, too, is betrayed by what was noted outside.
    #[test]
    fn the_anchor_knows_more() {
        let whole = log(5);
        let anchors = [line("e", &whole[1]), line("e", &whole[4])];
        let end = |entries: &[Entry], anchors: &[anchor::Line]| {
            let mut walk = Walk::new("e", anchors);
            let walked = entries.iter().try_for_each(|entry| walk.take(entry));
            let head = entries.last().unwrap();
            walked.and_then(|()| walk.end(head.seq, &head.hash))
        };
        assert!(end(&whole[..4], &anchors).unwrap_err().contains("the anchor file knows 5"));
        assert_eq!(end(&whole[..4], &[]), Ok(4));
        // A log that was written anew from its second entry on.
        let mut forged = log(1);
        for mut entry in whole[1..].iter().cloned() {
            entry.actor = "operator:eve".to_owned();
            entry.hash = hash(&forged.last().unwrap().hash, &entry);
            forged.push(entry);
        }
        assert!(end(&forged, &anchors).unwrap_err().contains("entry 2 is another one"));
        assert!(end(&whole, &[line("older", &whole[1])]).unwrap_err().contains("another history"));
        assert_eq!(end(&whole, &[line("older", &whole[1]), line("e", &whole[4])]), Ok(5));
    }
}
