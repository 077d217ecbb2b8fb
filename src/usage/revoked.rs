//! Ids once seen revoked: they stay so, whatever a later key file says.

use std::io;

use serde::{Deserialize, Serialize};

use super::{Folder, journal::Journal};
use crate::{clock::Wall, keys::Revocations};

/// Which file they are in.
pub(super) const REVOKED: &str = "revoked.ndjson";

/// The file of ids once seen revoked. A revocation is in force before it is written here: it never waits for a disk.
#[derive(Debug)]
pub struct Revoked {
    journal: Journal,
    /// All that the file holds, and what could not be written yet.
    all: Revocations,
}

/// Later lines replace earlier ones of the same id.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    revoked: String,
    /// Builds before this field wrote none, and read past it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<jiff::Timestamp>,
}

/// The ids once seen revoked, as saved in a state folder; for commands, which change nothing there.
///
/// # Errors
///
/// When there is a file of which nothing can be read.
pub fn read_revoked(folder: &Folder) -> io::Result<Revocations> {
    let read = journal(folder).read::<Line>();
    match read.fault {
        Some(fault) if read.lines.is_empty() => Err(io::Error::new(io::ErrorKind::InvalidData, fault)),
        _ => Ok(revocations(&read.lines)),
    }
}

fn journal(folder: &Folder) -> Journal {
    Journal::new(folder.clone(), REVOKED, "keyside-revoked", None)
}

fn revocations(lines: &[Line]) -> Revocations {
    lines.iter().filter_map(|line| Some((line.revoked.parse().ok()?, line.at.map(Wall::from)))).collect()
}

fn lines(revocations: &Revocations) -> Vec<Line> {
    revocations.iter().map(|(id, at)| Line { revoked: id.as_str().to_owned(), at: at.map(Wall::timestamp) }).collect()
}

impl Revoked {
    /// Reads the file. A damaged one is alarmed and set aside; what could be read of it holds.
    pub fn open(folder: &Folder) -> Self {
        let journal = journal(folder);
        let all = revocations(&journal.open::<Line>().lines);
        Self { journal, all }
    }

    /// What was read and added.
    pub fn all(&self) -> &Revocations {
        &self.all
    }

    /// Adds revocations and waits until they are on the disk. After an error the next call writes these, too; call it
    /// with none to try again.
    pub fn add(&mut self, new: &Revocations) -> io::Result<()> {
        self.all.extend(new.iter().map(|(id, at)| (id.clone(), *at)));
        if self.journal.wants_rewrite() {
            self.journal.rewrite(&lines(&self.all))
        } else {
            self.journal.append(&lines(new))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(ids: &[(&str, Option<i64>)]) -> Revocations {
        ids.iter().map(|(id, at)| (id.parse().unwrap(), at.map(Wall::from_unix_millis))).collect()
    }

    #[test]
    fn an_id_once_revoked_is_read_back_with_its_moment() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path());
        let mut revoked = Revoked::open(&folder);
        revoked.add(&some(&[("a", Some(1000)), ("b", None)])).unwrap();
        revoked.add(&some(&[("b", Some(2500)), ("c", None)])).unwrap();
        let all = some(&[("a", Some(1000)), ("b", Some(2500)), ("c", None)]);
        assert_eq!(read_revoked(&folder).unwrap(), all);
        assert_eq!(*Revoked::open(&folder).all(), all);
    }

    #[test]
    fn a_file_of_an_older_build_has_no_moments() {
        let root = tempfile::tempdir().unwrap();
        let old = "{\"format\":\"keyside-revoked\",\"version\":1}\n{\"revoked\":\"a\"}\n";
        std::fs::write(root.path().join("revoked.ndjson"), old).unwrap();
        assert_eq!(read_revoked(&Folder::new(root.path())).unwrap(), some(&[("a", None)]));
    }

    #[test]
    fn what_could_not_be_written_is_written_the_next_time() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path().join("state"));
        std::fs::write(folder.path(), "a file in the way").unwrap();
        let mut revoked = Revoked::open(&folder);
        revoked.add(&some(&[("a", Some(0))])).unwrap_err();
        std::fs::remove_file(folder.path()).unwrap();
        revoked.add(&Revocations::new()).unwrap();
        assert_eq!(*Revoked::open(&folder).all(), some(&[("a", Some(0))]));
    }
}
