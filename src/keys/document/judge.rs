//! Whether a new version may replace the last good one.
//!
//! With `[end]` a text says itself whether it is whole. Without it, a text that was cut looks like one that somebody
//! shortened, so what would loosen a restriction by *leaving something out* is not believed until it is forced.

use std::collections::HashMap;

use super::{Document, KeyRow, Last, OwnerRow, Refused, Why};
use crate::fault::Fault;

/// How careful to be with a text that cannot prove that it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// The text changed by itself.
    Careful,
    /// An operator asked for this text (SIGHUP).
    Forced,
}

/// The last version that was put into force.
#[derive(Clone, Debug)]
pub struct LastGood {
    /// Its rows.
    pub document: Document,
    /// Its text.
    pub text: Vec<u8>,
}

impl LastGood {
    /// Whether this document, read from this text, may replace the last good version.
    ///
    /// # Errors
    ///
    /// It is torn, or shrank so much that it was hardly meant so.
    pub fn judge(&self, next: &Document, text: &[u8], care: Care) -> Result<(), Refused> {
        if next.end.is_some() {
            return Ok(());
        }
        if self.document.end.is_some() {
            return refused(
                Why::Torn,
                "torn: [end] is missing, which an earlier version had",
                format!("if nothing is missing, end the file with [end], {}", counts(next)),
            );
        }
        if care == Care::Forced {
            return Ok(());
        }
        if next.key_entries == 0 || next.key_entries * 2 < self.document.key_entries {
            return refused(
                Why::Shrunk,
                &format!("{} keys, where there were {}", next.key_entries, self.document.key_entries),
                forcing(next),
            );
        }
        match self.loosened(next, text) {
            Some(what) => refused(Why::Torn, &format!("perhaps torn: {what}"), forcing(next)),
            None => Ok(()),
        }
    }

    /// Whether the first version of all may be put into force.
    ///
    /// # Errors
    ///
    /// It holds no key and does not say that this is meant.
    pub fn judge_first(next: &Document, care: Care) -> Result<(), Refused> {
        if next.end.is_none() && next.key_entries == 0 && care == Care::Careful {
            return refused(Why::Shrunk, "the key file holds no key", forcing(next));
        }
        Ok(())
    }

    /// What a cut could have taken away so that something would be allowed that was not.
    fn loosened(&self, next: &Document, text: &[u8]) -> Option<String> {
        let old = &self.document;
        let cut = self.text.len() > text.len() && self.text.starts_with(text);
        match &next.last {
            Last::Key(id) => {
                let new = next.keys.iter().find(|row| row.id == *id);
                let old = old.keys.iter().find(|row| row.id == *id);
                if let (Some(old), Some(new)) = (old, new)
                    && (missing_of_key(old, new).is_some() || (cut && old != new))
                {
                    let field = missing_of_key(old, new).unwrap_or("a part");
                    return Some(format!("`{field}` of the last entry, key `{id}`, is gone"));
                }
            }
            Last::Owner(id) => {
                let find = |document: &Document| document.owners.iter().find(|row| row.id == *id).cloned();
                if let (Some(old), Some(new)) = (find(old), find(next))
                    && let Some(field) = missing_of_owner(&old, Some(&new))
                {
                    return Some(format!("`{field}` of the last entry, owner `{id}`, is gone"));
                }
            }
            Last::Other => {}
        }
        let owners: HashMap<_, _> = next.owners.iter().map(|row| (&row.id, row)).collect();
        let bound: HashMap<_, _> = next.keys.iter().map(|row| (&row.owner, &row.id)).collect();
        old.owners.iter().find_map(|old| {
            let key = bound.get(&old.id)?;
            if owners.contains_key(&old.id) {
                return None;
            }
            let field = missing_of_owner(old, None)?;
            Some(format!("owner `{}`, whose `{field}` binds key `{key}`, is gone", old.id))
        })
    }
}

/// A restriction that the old version of a key has and the new one lacks.
fn missing_of_key(old: &KeyRow, new: &KeyRow) -> Option<&'static str> {
    let gone = [
        ("allow_ips", !old.allow_ips.is_empty() && new.allow_ips.is_empty()),
        ("expires_at", old.expires_at.is_some() && new.expires_at.is_none()),
        ("revoked_at", old.revoked_at.is_some() && new.revoked_at.is_none()),
        ("limits", old.limits.is_some() && new.limits.is_none()),
        ("mode", old.mode.is_some() && new.mode.is_none()),
    ];
    gone.into_iter().find_map(|(field, gone)| gone.then_some(field))
}

/// The same for an owner. Losing capabilities or KYC forbids more, not less.
fn missing_of_owner(old: &OwnerRow, new: Option<&OwnerRow>) -> Option<&'static str> {
    let gone = [
        ("suspended_at", old.suspended_at.is_some() && new.is_none_or(|new| new.suspended_at.is_none())),
        ("plan", old.plan.is_some() && new.is_none_or(|new| new.plan.is_none())),
    ];
    gone.into_iter().find_map(|(field, gone)| gone.then_some(field))
}

fn counts(document: &Document) -> String {
    // A misspelt header is no entry; here every owner that the text has counts.
    let owners = document.owners.len();
    format!("owners = {owners} and keys = {}", document.key_entries)
}

fn forcing(next: &Document) -> String {
    format!("if so meant, send SIGHUP, or end the file with [end], {}", counts(next))
}

fn refused(why: Why, message: &str, advice: String) -> Result<(), Refused> {
    Err(Refused { why, faults: vec![Fault::error(message).suggest(advice)] })
}
