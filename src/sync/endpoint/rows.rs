//! The rows of the endpoint's set as they are known, and what a line changes in them. Nothing here does I/O.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use super::protocol::{Change, Position, Row, SetLine, What, set_line};
use crate::{
    fault::Fault,
    keys::{
        KeyId, OwnerId, Revocations,
        document::{
            Document, End, KeyRow, OwnerRow, barred,
            json::{KeyEntry, OwnerEntry},
        },
        store::{Changes, CutOff},
    },
};

/// Faults that are kept to be shown.
const SHOWN: usize = 20;

/// All rows. A key or an owner without a row is not accepted: its entry is wrong.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    keys: HashMap<KeyId, Option<Arc<KeyRow>>>,
    owners: HashMap<OwnerId, Option<Arc<OwnerRow>>>,
    /// Keys whose id cannot be read.
    nameless: usize,
}

/// A whole set, as it comes in.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    position: Option<Position>,
    rows: Rows,
    counted: (u64, u64),
    ended: bool,
    revoked: Revocations,
    faults: Vec<String>,
}

/// A whole set that came in whole.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) position: Position,
    pub(super) rows: Rows,
    /// All that its entries say of revocations, also those that are wrong otherwise.
    pub(super) revoked: Revocations,
    /// The first of the entries that are wrong.
    pub(super) faults: Vec<String>,
}

impl Gathering {
    /// Takes the next line.
    pub(super) fn line(&mut self, text: &[u8]) -> Result<(), String> {
        if self.ended {
            return Err("a line behind the end".to_owned());
        }
        match (set_line(text)?, &self.position) {
            (SetLine::Head(position), None) => self.position = Some(position),
            (SetLine::Head(_), Some(_)) => return Err("a second first line".to_owned()),
            (_, None) => return Err("the first line does not name epoch and revision".to_owned()),
            (SetLine::Row(row), Some(_)) => self.row(row)?,
            (SetLine::End { owners, keys }, Some(_)) => {
                if (owners, keys) != self.counted {
                    let (found_owners, found_keys) = self.counted;
                    return Err(format!(
                        "torn: the end says {owners} owners and {keys} keys, and there were {found_owners} and {found_keys}"
                    ));
                }
                self.ended = true;
            }
        }
        Ok(())
    }

    /// Whether the last line was there.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The whole set.
    pub(super) fn finish(self) -> Result<Whole, String> {
        match self.position {
            Some(position) if self.ended => {
                Ok(Whole { position, rows: self.rows, revoked: self.revoked, faults: self.faults })
            }
            _ => Err("torn: the last line is missing".to_owned()),
        }
    }

    fn row(&mut self, row: Row) -> Result<(), String> {
        let (name, faults) = match row {
            Row::Key(KeyEntry { id, row, revoked_at, faults }) => {
                self.counted.1 += 1;
                let name = id.as_ref().map_or_else(|| "a key without an id".to_owned(), |id| format!("key {id}"));
                match id {
                    Some(id) => {
                        if let Some(at) = revoked_at {
                            let held = self.revoked.entry(id.clone()).or_insert(Some(at));
                            *held = (*held).min(Some(at));
                        }
                        insert_once(&mut self.rows.keys, id, row, &mut self.faults);
                    }
                    None => self.rows.nameless += 1,
                }
                (name, faults)
            }
            Row::Owner(OwnerEntry { id, row, faults }) => {
                self.counted.0 += 1;
                // Its suspension would be lost, and nobody could say for whom.
                let Some(id) = id else {
                    return Err(format!("an owner whose id cannot be read: {}", faults.join("; ")));
                };
                let name = format!("owner {id}");
                insert_once(&mut self.rows.owners, id, row, &mut self.faults);
                (name, faults)
            }
        };
        let room = SHOWN.saturating_sub(self.faults.len());
        self.faults.extend(faults.into_iter().take(room).map(|fault| format!("{name}: {fault}")));
        Ok(())
    }
}

/// Of two rows with one id neither is accepted.
fn insert_once<I: std::hash::Hash + Eq + std::fmt::Display, R>(
    rows: &mut HashMap<I, Option<R>>,
    id: I,
    row: Option<R>,
    faults: &mut Vec<String>,
) {
    match rows.entry(id) {
        Entry::Vacant(vacant) => _ = vacant.insert(row),
        Entry::Occupied(mut held) => {
            faults.push(format!("{} is there more than once; none of them is accepted", held.key()));
            held.insert(None);
        }
    }
}

impl Rows {
    /// What of a change cuts somebody off. None: it cuts off nobody, or does more than that.
    pub(super) fn cut_off(&self, change: &Change) -> Option<CutOff> {
        let mut cut = CutOff::default();
        match &change.what {
            What::DeletedKey(id) => cut.keys.push(id.clone()),
            What::Row(Row::Key(KeyEntry { id: Some(id), row, revoked_at, .. })) => match revoked_at {
                Some(at) => _ = cut.revoked.insert(id.clone(), Some(*at)),
                None if row.is_none() => cut.keys.push(id.clone()),
                None => return None,
            },
            What::Row(Row::Owner(OwnerEntry { id: Some(id), row, .. })) => {
                if row.as_ref().is_some_and(|row| row.suspended_at.is_none()) {
                    return None;
                }
                cut.owners.push(id.clone());
            }
            What::Row(_) | What::DeletedOwner(_) => return None,
        }
        Some(cut)
    }

    /// Takes a change over; what has to follow in the store is added to `changes`. An error is a change of nobody: who
    /// it is about cannot be read.
    pub(super) fn change(&mut self, change: Change, changes: &mut Changes) -> Result<Vec<String>, String> {
        match change.what {
            What::DeletedKey(id) => {
                self.keys.remove(&id);
                changes.keys.push((id, None));
                Ok(Vec::new())
            }
            What::DeletedOwner(id) => {
                self.owners.remove(&id);
                changes.owners.push((id, None));
                Ok(Vec::new())
            }
            What::Row(Row::Key(KeyEntry { id, row, revoked_at, faults })) => {
                let id = id.ok_or("a change of a key whose id cannot be read")?;
                if let Some(at) = revoked_at {
                    changes.revoked.insert(id.clone(), Some(at));
                }
                self.keys.insert(id.clone(), row.clone());
                let faults = faults.into_iter().map(|fault| format!("key {id}: {fault}")).collect();
                changes.keys.push((id, row));
                Ok(faults)
            }
            What::Row(Row::Owner(OwnerEntry { id, row, faults })) => {
                let id = id.ok_or("a change of an owner whose id cannot be read")?;
                self.owners.insert(id.clone(), row.clone());
                let faults = faults.into_iter().map(|fault| format!("owner {id}: {fault}")).collect();
                changes.owners.push((id.clone(), Some(row.unwrap_or_else(|| barred(id)))));
                Ok(faults)
            }
        }
    }

    /// How many entries are not accepted.
    pub(super) fn quarantined(&self) -> usize {
        let bad = self.keys.values().filter(|row| row.is_none()).count();
        self.nameless + bad + self.owners.values().filter(|row| row.is_none()).count()
    }

    /// Everything, as a document.
    pub(super) fn document(&self, revoked: &Revocations, faults: &[String]) -> Document {
        let mut document = Document {
            keys: self.keys.values().flatten().cloned().collect(),
            owners: self.owners.values().flatten().cloned().collect(),
            set_aside: self.keys.iter().filter(|(_, row)| row.is_none()).map(|(id, _)| id.clone()).collect(),
            faults: faults.iter().map(Fault::error).collect(),
            revoked: revoked.clone(),
            quarantined: self.quarantined(),
            key_entries: self.keys.len() + self.nameless,
            end: Some(End { owners: self.owners.len(), keys: self.keys.len() + self.nameless }),
            ..Document::default()
        };
        let bad = self.owners.iter().filter(|(_, row)| row.is_none()).map(|(id, _)| id.clone());
        document.owners_set_aside = bad.collect();
        document.owners.extend(document.owners_set_aside.iter().cloned().map(barred));
        document
    }

    /// All keys, in no order.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&KeyId, Option<&Arc<KeyRow>>)> {
        self.keys.iter().map(|(id, row)| (id, row.as_ref()))
    }

    /// All owners, in no order.
    pub(super) fn owners(&self) -> impl Iterator<Item = (&OwnerId, Option<&Arc<OwnerRow>>)> {
        self.owners.iter().map(|(id, row)| (id, row.as_ref()))
    }

    /// How many owners and keys have a name.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.owners.len(), self.keys.len())
    }
}
