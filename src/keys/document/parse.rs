//! From the text to rows. Remembers the blocks of the last text, so that only changed ones are read anew.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use aws_lc_rs::digest::{SHA256, digest};

use super::{
    Document, End, KeyRow, Last, OwnerRow, Refused, Why, barred,
    read::{Entry, Note, Read, read},
    split::{Block, split},
};
use crate::{
    fault::{Fault, Severity},
    keys::{KeyId, Kind, OwnerId, record::PublicPart},
};

/// Reads key documents, each with the help of the one before.
#[derive(Debug, Default)]
pub struct Parser {
    /// What was read of the blocks of the last good text, by the SHA-256 of the block.
    remembered: HashMap<[u8; 32], Read>,
}

impl Parser {
    /// Reads a text.
    ///
    /// # Errors
    ///
    /// The text is not TOML as a whole, or is torn: `[end]` does not agree with it. Every fault is in there.
    pub fn parse(&mut self, text: &[u8]) -> Result<Document, Refused> {
        let text = match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(error) => {
                let good = std::str::from_utf8(&text[..error.valid_up_to()]).unwrap_or_default();
                let fault = Fault::error("not TOML: the text is not UTF-8").at(good, good.len());
                return Err(Refused { why: Why::NotToml, faults: vec![Fault { source_line: String::new(), ..fault }] });
            }
        };
        let (preamble, blocks) = split(text);
        let mut current = HashMap::with_capacity(blocks.len());
        let mut assembly = Assembly::new(text);
        assembly.preamble(&text[..preamble]);
        for block in &blocks {
            let own = &text[block.header..block.end];
            let key = sha256(own.as_bytes());
            let known = current.get(&key).or_else(|| self.remembered.get(&key)).cloned();
            let entry = known.unwrap_or_else(|| read(own));
            assembly.add(block, &entry);
            current.insert(key, entry);
        }
        let document = assembly.finish()?;
        self.remembered = current;
        Ok(document)
    }
}

/// SHA-256 of a text.
fn sha256(text: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, text).as_ref());
    bytes
}

/// A document as it comes together from its blocks.
struct Assembly<'t> {
    text: &'t str,
    /// Where each line begins; made when the first fault needs a place.
    lines: Vec<usize>,
    document: Document,
    keys: Vec<(usize, Option<KeyId>, Option<Arc<KeyRow>>)>,
    owners: Vec<(usize, Option<OwnerId>, Option<Arc<OwnerRow>>)>,
    /// Entries under a misspelt header, each a key or an owner: neither of that name is accepted.
    misspelt: Vec<(Option<KeyId>, OwnerId)>,
    owner_entries: usize,
    ends: usize,
    refused: Option<Why>,
}

impl<'t> Assembly<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text,
            lines: Vec::new(),
            document: Document { digest: sha256(text.as_bytes()), ..Document::default() },
            keys: Vec::new(),
            owners: Vec::new(),
            misspelt: Vec::new(),
            owner_entries: 0,
            ends: 0,
            refused: None,
        }
    }

    /// What stands before the first header: comments only.
    fn preamble(&mut self, text: &str) {
        let (table, errors) = toml::de::DeTable::parse_recoverable(text);
        for error in &errors {
            let at = error.span().map_or(0, |span| span.start);
            self.refuse(Why::NotToml, at, format!("not TOML: {}", error.message()), None);
        }
        if errors.is_empty()
            && let Some((name, _)) = table.get_ref().iter().next()
        {
            let message = format!("unknown field `{}` outside of [[key]], [[owner]] and [end]", name.get_ref());
            self.refuse(Why::NotToml, name.span().start, message, Some("an entry begins with [[key]] or [[owner]]"));
        }
    }

    fn add(&mut self, block: &Block, read: &Read) {
        for note in &read.notes {
            self.note(block.header, note);
        }
        let at = block.header;
        self.document.last = Last::Other;
        match &read.entry {
            Entry::Key { id, row, revoked_at } => {
                self.document.key_entries += 1;
                if let Some(id) = id {
                    self.document.last = Last::Key(id.clone());
                    if let Some(at) = revoked_at {
                        // Of two entries with one id, the earlier revocation is the one that was meant to last.
                        let held = self.document.revoked.entry(id.clone()).or_insert(Some(*at));
                        *held = (*held).min(Some(*at));
                    }
                }
                self.keys.push((at, id.clone(), row.clone()));
            }
            Entry::Owner { id, row } => {
                self.owner_entries += 1;
                if let Some(id) = id {
                    self.document.last = Last::Owner(id.clone());
                } else {
                    // Its suspension or plan would be lost, and nobody could say for whom.
                    self.refused.get_or_insert(Why::Torn);
                }
                self.owners.push((at, id.clone(), row.clone()));
            }
            Entry::Unknown { id } => match id.as_deref().map(str::parse::<OwnerId>) {
                Some(Ok(owner)) => {
                    self.document.quarantined += 1;
                    self.misspelt.push((owner.as_str().parse().ok(), owner));
                }
                // As above: what it may have forbidden is not known.
                _ => self.refused = self.refused.or(Some(Why::Torn)),
            },
            Entry::End(end) => {
                self.ends += 1;
                self.document.end = *end;
                if end.is_none() {
                    self.refused.get_or_insert(Why::Torn);
                } else if self.ends > 1 {
                    self.refuse(Why::NotToml, at, "a second [end]".to_owned(), None);
                }
            }
            Entry::Broken => self.refused = Some(Why::NotToml),
        }
    }

    fn finish(mut self) -> Result<Document, Refused> {
        self.check_end();
        if let Some(why) = self.refused {
            return Err(Refused { why, faults: self.document.faults });
        }
        self.finish_owners();
        self.finish_keys();
        self.document.faults.sort_by_key(|fault| (fault.line, fault.column));
        Ok(self.document)
    }

    fn check_end(&mut self) {
        let Some(End { owners, keys }) = self.document.end else { return };
        if self.refused.is_some() || (owners, keys) == (self.owner_entries, self.document.key_entries) {
            return;
        }
        let message = format!(
            "torn: [end] says {owners} owners and {keys} keys, and there are {} and {}",
            self.owner_entries, self.document.key_entries
        );
        let advice = "the file was cut, or changed by hand: make the counts true if nothing is missing";
        let at = self.text.rfind("[end]").unwrap_or(self.text.len());
        self.refuse(Why::Torn, at, message, Some(advice));
    }

    fn finish_owners(&mut self) {
        let mut bad = twice(self.owners.iter().filter_map(|(_, id, _)| id.as_ref()));
        bad.extend(self.misspelt.iter().map(|(_, id)| id.clone()));
        for (at, id, row) in std::mem::take(&mut self.owners) {
            match (row, id) {
                (Some(row), Some(id)) if !bad.contains(&id) => self.document.owners.push(row),
                (row, id) => {
                    self.document.quarantined += 1;
                    let Some(id) = id else { continue };
                    if row.is_some() {
                        let message = format!("owner `{id}` is there more than once; its keys are not accepted");
                        self.error(at, message, Some("leave one of them"));
                    }
                    bad.insert(id);
                }
            }
        }
        let mut bad: Vec<OwnerId> = bad.into_iter().collect();
        bad.sort_unstable();
        self.document.owners.extend(bad.iter().cloned().map(barred));
        self.document.owners_set_aside = bad;
    }

    fn finish_keys(&mut self) {
        let keys = std::mem::take(&mut self.keys);
        let mut bad = twice(keys.iter().filter_map(|(_, id, _)| id.as_ref()));
        bad.extend(self.misspelt.iter().filter_map(|(id, _)| id.clone()));
        // A consumer key names one key. Which one would answer is not for the order of the file to say.
        let clear = |row: &KeyRow| match &row.public {
            PublicPart::Clear(prefix) if row.kind == Kind::Pair && row.revoked_at.is_none() => Some(prefix.clone()),
            _ => None,
        };
        let prefixes: Vec<_> = keys.iter().filter_map(|(_, _, row)| row.as_deref().and_then(clear)).collect();
        let shared = twice(prefixes.iter());
        let mut alike = Vec::new();
        for (at, id, row) in keys {
            match (id, row) {
                (Some(id), Some(row)) => {
                    if bad.contains(&id) {
                        let message = format!("key `{id}` is there more than once; none of them is accepted");
                        self.error(at, message, Some("leave one of them"));
                    } else if clear(&row).is_some_and(|prefix| shared.contains(&prefix)) {
                        let message = format!("key `{id}` has the prefix of another key; none of them is accepted");
                        self.error(at, message, Some("a pair's prefix is its whole consumer key: only one key has it"));
                        alike.push(id);
                    } else {
                        self.document.keys.push(row);
                        continue;
                    }
                }
                (Some(id), None) => {
                    bad.insert(id);
                }
                (None, _) => {}
            }
            self.document.quarantined += 1;
        }
        let mut bad: Vec<KeyId> = bad.into_iter().chain(alike).collect();
        bad.sort_unstable();
        self.document.set_aside = bad;
    }

    fn refuse(&mut self, why: Why, at: usize, message: String, advice: Option<&str>) {
        self.refused.get_or_insert(why);
        self.error(at, message, advice);
    }

    fn error(&mut self, at: usize, message: String, advice: Option<&str>) {
        let suggestion = advice.map(str::to_owned);
        self.note(0, &Note { offset: at, message, suggestion, severity: Severity::Error });
    }

    fn note(&mut self, base: usize, note: &Note) {
        if self.lines.is_empty() {
            self.lines = std::iter::once(0).chain(self.text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        }
        let mut offset = (base + note.offset).min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.lines.partition_point(|&start| start <= offset);
        let start = self.lines[line - 1];
        let end = self.lines.get(line).map_or(self.text.len(), |&next| next - 1);
        self.document.faults.push(Fault {
            file: None,
            line,
            column: self.text[start..offset].chars().count() + 1,
            source_line: masked(self.text[start..end].trim_end_matches('\r')),
            message: note.message.clone(),
            suggestion: note.suggestion.clone(),
            severity: note.severity,
        });
    }
}

/// What is there more than once.
fn twice<'a, T: Clone + Eq + std::hash::Hash + 'a>(items: impl Iterator<Item = &'a T>) -> HashSet<T> {
    let mut seen = HashSet::new();
    items.filter(|&item| !seen.insert(item)).cloned().collect()
}

/// A line as it may be shown: stored hashes stay out of terminals and logs, whatever field they stand in.
fn masked(line: &str) -> String {
    match line.find('$') {
        Some(at) => format!("{}$…", &line[..at]),
        None => line.to_owned(),
    }
}
