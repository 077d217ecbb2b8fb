//! Edits the text of a key document by splicing, so that comments, order and everything untouched stay as they are.

use toml::{
    Spanned, Value,
    de::{DeTable, DeValue},
};

use super::{
    KeyRow, OwnerRow, kyc_str,
    read::{KEY_FIELDS, OWNER_FIELDS},
    split::{Block, split},
};
use crate::{clock::Wall, keys::record::PublicPart};

/// Which list an entry is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// `[[key]]`.
    Keys,
    /// `[[owner]]`.
    Owners,
}

impl List {
    const fn name(self) -> &'static str {
        match self {
            Self::Keys => "key",
            Self::Owners => "owner",
        }
    }

    const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Keys => KEY_FIELDS,
            Self::Owners => OWNER_FIELDS,
        }
    }
}

/// A text that is being edited.
///
/// The text was parsed before: a text with a fault may not find what it is asked for, or find it twice.
#[derive(Clone, Debug)]
pub struct Draft {
    text: String,
}

/// A field of an entry, as it is written.
pub type Field = (&'static str, Value);

impl Draft {
    /// Begins to edit a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }

    /// The text as it is now.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Adds an entry: keys before `[end]`, owners after the last owner, else before the first key.
    pub fn add(&mut self, list: List, fields: &[Field]) {
        let newline = self.newline();
        let mut entry = format!("[[{}]]{newline}", list.name());
        for (name, value) in fields {
            entry.push_str(&format!("{name} = {value}{newline}"));
        }
        let at = self.place_for(list);
        let before = &self.text[..at];
        let blank = format!("{newline}{newline}");
        let lead = match before {
            "" => "",
            _ if before.ends_with(&blank) => "",
            _ if before.ends_with(newline) => newline,
            _ => &blank,
        };
        let trail = if at < self.text.len() { newline } else { "" };
        self.text.insert_str(at, &format!("{lead}{entry}{trail}"));
    }

    /// Sets a field of every entry with this id; none removes it. False when there is no such entry.
    pub fn set(&mut self, list: List, id: &str, field: &'static str, value: Option<&Value>) -> bool {
        let mut found = false;
        let blocks = self.blocks_of(list, Some(id));
        // From the end, so that the places of the others stay true.
        for block in blocks.into_iter().rev() {
            found = true;
            self.set_in(block, list.fields(), field, value);
        }
        found
    }

    /// Makes another key of an entry. Fields that stay the same are not touched.
    pub fn change(&mut self, from: &KeyRow, to: &KeyRow) {
        let (before, after) = (key_fields(from), key_fields(to));
        for &field in KEY_FIELDS {
            let [before, after] = [&before, &after].map(|fields| fields.iter().find(|(name, _)| *name == field));
            if before != after {
                self.set(List::Keys, from.id.as_str(), field, after.map(|(_, value)| value));
            }
        }
    }

    /// Removes every entry with this id, with the comment lines right above it. False when there is none.
    pub fn remove(&mut self, list: List, id: &str) -> bool {
        let blocks = self.blocks_of(list, Some(id));
        let first = split(&self.text).1.first().map(|block| block.header);
        for block in blocks.iter().rev() {
            // What stands on top of the file is more likely about the file than about its first entry.
            let start = if first == Some(block.header) { block.header } else { block.start };
            self.text.replace_range(start..block.end, "");
        }
        !blocks.is_empty()
    }

    /// Writes `[end]` with the true counts. To be called last.
    pub fn seal(&mut self) {
        let owners = self.blocks_of(List::Owners, None).len();
        let keys = self.blocks_of(List::Keys, None).len();
        let newline = self.newline();
        let end = |text: &str| split(text).1.into_iter().find(|block| named(&text[block.header..block.end], "end"));
        if end(&self.text).is_none() {
            let lead = if self.text.is_empty() || self.text.ends_with('\n') { "" } else { newline };
            let blank = if self.text.is_empty() { "" } else { newline };
            self.text.push_str(&format!("{lead}{blank}[end]{newline}"));
        }
        for (field, count) in [("owners", owners), ("keys", keys)] {
            if let Some(block) = end(&self.text) {
                let count = Value::Integer(i64::try_from(count).unwrap_or(i64::MAX));
                self.set_in(block, &["owners", "keys"], field, Some(&count));
            }
        }
    }

    fn set_in(&mut self, block: Block, order: &[&str], field: &str, value: Option<&Value>) {
        let newline = self.newline();
        let own = &self.text[block.header..block.end];
        let spans = field_spans(own);
        let line_end = |at: usize| own[at..].find('\n').map_or(own.len(), |end| at + end);
        let there = spans.iter().find(|span| span.name == field);
        let (range, with) = match (there, value) {
            (Some(span), Some(value)) => (span.value.clone(), value.to_string()),
            (Some(span), None) => {
                let start = own[..span.name_start].rfind('\n').map_or(0, |at| at + 1);
                (start..(line_end(span.value.end) + 1).min(own.len()), String::new())
            }
            (None, None) => return,
            (None, Some(value)) => {
                // After the nearest field that comes before it in the usual order; else after the header.
                let rank = order.iter().position(|name| *name == field).unwrap_or(order.len());
                let before = order[..rank].iter().rev().find_map(|name| spans.iter().find(|span| span.name == *name));
                let at = line_end(before.map_or(0, |span| span.value.end));
                // A carriage return belongs to the line end.
                let at = if own[..at].ends_with('\r') { at - 1 } else { at };
                (at..at, format!("{newline}{field} = {value}"))
            }
        };
        self.text.replace_range(block.header + range.start..block.header + range.end, &with);
    }

    fn blocks_of(&self, list: List, id: Option<&str>) -> Vec<Block> {
        let mut blocks = split(&self.text).1;
        blocks.retain(|block| {
            let own = &self.text[block.header..block.end];
            named(own, list.name()) && id.is_none_or(|id| has_id(own, id))
        });
        blocks
    }

    fn place_for(&self, list: List) -> usize {
        let (preamble, blocks) = split(&self.text);
        let is = |block: &&Block, name| named(&self.text[block.header..block.end], name);
        let end = || blocks.iter().find(|block| is(block, "end")).map_or(self.text.len(), |block| block.start);
        match list {
            List::Keys => end(),
            List::Owners => match blocks.iter().rev().find(|block| is(block, "owner")) {
                Some(last) => last.end,
                // The comments on top of a file without entries stay on top.
                None => {
                    blocks.iter().find(|block| is(block, "key")).map_or_else(end, |first| first.start.max(preamble))
                }
            },
        }
    }

    fn newline(&self) -> &'static str {
        if self.text.split_once('\n').is_some_and(|(line, _)| line.ends_with('\r')) { "\r\n" } else { "\n" }
    }
}

struct FieldSpan {
    name: String,
    name_start: usize,
    value: std::ops::Range<usize>,
}

/// Where the fields of the block's table are.
fn field_spans(own: &str) -> Vec<FieldSpan> {
    let (root, _) = DeTable::parse_recoverable(own);
    let spans = table_of(root.get_ref()).into_iter().flatten().map(|(name, value)| FieldSpan {
        name: name.get_ref().to_string(),
        name_start: name.span().start,
        value: value.span(),
    });
    spans.collect()
}

fn table_of<'a, 't>(root: &'a DeTable<'t>) -> Option<&'a DeTable<'t>> {
    match root.values().next().map(Spanned::get_ref)? {
        DeValue::Table(table) => Some(table),
        DeValue::Array(entries) => entries.iter().find_map(|entry| entry.get_ref().as_table()),
        _ => None,
    }
}

/// Whether the block's header has this name. Reads the header alone: a large file has many blocks.
fn named(own: &str, name: &str) -> bool {
    let line = own.find('\n').map_or(own, |end| &own[..end]);
    let (root, _) = DeTable::parse_recoverable(line);
    root.get_ref().keys().next().is_some_and(|found| found.get_ref().as_ref() == name)
}

/// Whether the block's table has this id.
fn has_id(own: &str, id: &str) -> bool {
    // Most blocks are another one's, and are not worth reading; an id may be written with escapes.
    if !own.contains(id) && !own.contains('\\') {
        return false;
    }
    let (root, _) = DeTable::parse_recoverable(own);
    let found = table_of(root.get_ref()).and_then(|table| table.get("id"));
    found.and_then(|found| found.get_ref().as_str()) == Some(id)
}

/// The fields of a key, as they are written.
pub fn key_fields(row: &KeyRow) -> Vec<Field> {
    let mut fields = vec![("id", text(&row.id)), ("name", text(&row.name)), ("kind", text(row.kind.as_str()))];
    fields.push(match &row.public {
        PublicPart::Clear(prefix) => ("prefix", text(prefix)),
        PublicPart::Digest { key, digest } => {
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            ("lookup", text(format!("hmac-sha256:{key}:{hex}")))
        }
    });
    fields.push(("hash", text(row.hash.as_phc())));
    fields.push(("owner", text(&row.owner)));
    fields.push(("scopes", list(row.scopes.iter())));
    fields.extend(row.mode.map(|mode| ("mode", text(mode.as_str()))));
    if !row.allow_ips.is_empty() {
        fields.push(("allow_ips", list(row.allow_ips.iter())));
    }
    fields.extend(row.limits.as_ref().map(|limits| ("limits", list(limits))));
    fields.extend(row.created_at.map(|at| ("created_at", moment(at))));
    fields.extend(row.expires_at.map(|at| ("expires_at", moment(at))));
    fields.extend(row.revoked_at.map(|at| ("revoked_at", moment(at))));
    fields.extend(row.rotated_from.as_ref().map(|id| ("rotated_from", text(id))));
    fields.extend(row.minted_by.as_ref().map(|by| ("minted_by", text(by))));
    fields
}

/// The fields of an owner, as they are written.
pub fn owner_fields(row: &OwnerRow) -> Vec<Field> {
    let mut fields = vec![("id", text(&row.id))];
    fields.extend(row.name.as_ref().map(|name| ("name", text(name))));
    if !row.capabilities.is_empty() {
        fields.push(("capabilities", list(&row.capabilities)));
    }
    fields.push(("kyc", text(kyc_str(row.kyc))));
    fields.extend(row.plan.as_ref().map(|plan| ("plan", text(plan))));
    fields.extend(row.suspended_at.map(|at| ("suspended_at", moment(at))));
    fields
}

/// A text, as it is written.
pub fn text(text: impl ToString) -> Value {
    Value::String(text.to_string())
}

/// A list of texts, as it is written.
pub fn list<T: ToString>(texts: impl IntoIterator<Item = T>) -> Value {
    Value::Array(texts.into_iter().map(text).collect())
}

/// A moment, as it is written: to the second, in UTC.
pub fn moment(at: Wall) -> Value {
    let text = Wall::from_unix_millis(at.unix_seconds().saturating_mul(1000)).to_string();
    text.parse().map_or_else(|_| Value::String(text), Value::Datetime)
}
