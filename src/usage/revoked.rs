//! Ids once seen revoked: they stay so, whatever a later key file says.

use std::io;

use serde::{Deserialize, Serialize};

use super::{Folder, journal::Journal};
use crate::keys::KeyId;

/// The file of ids once seen revoked. A revocation is in force before it is written here: it never waits for a disk.
#[derive(Debug)]
pub struct Revoked {
    journal: Journal,
    /// All ids of the file, and those that could not be written yet.
    ids: Vec<KeyId>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    revoked: String,
}

/// The ids once seen revoked, as saved in a state folder; for commands, which change nothing there.
///
/// # Errors
///
/// When there is a file of which nothing can be read.
pub fn read_revoked(folder: &Folder) -> io::Result<Vec<KeyId>> {
    let read = journal(folder).read::<Line>();
    match read.fault {
        Some(fault) if read.lines.is_empty() => Err(io::Error::new(io::ErrorKind::InvalidData, fault)),
        _ => Ok(read.lines.iter().filter_map(|line| line.revoked.parse().ok()).collect()),
    }
}

fn journal(folder: &Folder) -> Journal {
    Journal::new(folder.clone(), "revoked.ndjson", "keyside-revoked", None)
}

impl Revoked {
    /// Reads the file. A damaged one is alarmed and set aside; what could be read of it holds.
    pub fn open(folder: &Folder) -> Self {
        let journal = journal(folder);
        let read = journal.open::<Line>();
        let ids = read.lines.iter().filter_map(|line| line.revoked.parse().ok()).collect();
        Self { journal, ids }
    }

    /// The ids that were read and added.
    pub fn ids(&self) -> &[KeyId] {
        &self.ids
    }

    /// Adds ids and waits until they are on the disk. After an error the next call writes these, too; call it with
    /// none to try again.
    pub fn add(&mut self, ids: &[KeyId]) -> io::Result<()> {
        self.ids.extend_from_slice(ids);
        let line = |id: &KeyId| Line { revoked: id.as_str().to_owned() };
        if self.journal.wants_rewrite() {
            self.journal.rewrite(&self.ids.iter().map(line).collect::<Vec<_>>())
        } else {
            self.journal.append(&ids.iter().map(line).collect::<Vec<_>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<KeyId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn an_id_once_revoked_is_read_back() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path());
        let mut revoked = Revoked::open(&folder);
        revoked.add(&ids(&["a", "b"])).unwrap();
        revoked.add(&ids(&["c"])).unwrap();
        assert_eq!(read_revoked(&folder).unwrap(), ids(&["a", "b", "c"]));
        assert_eq!(Revoked::open(&folder).ids(), ids(&["a", "b", "c"]));
    }

    #[test]
    fn what_could_not_be_written_is_written_the_next_time() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path().join("state"));
        std::fs::write(folder.path(), "a file in the way").unwrap();
        let mut revoked = Revoked::open(&folder);
        revoked.add(&ids(&["a"])).unwrap_err();
        std::fs::remove_file(folder.path()).unwrap();
        revoked.add(&[]).unwrap();
        assert_eq!(Revoked::open(&folder).ids(), ids(&["a"]));
    }
}
