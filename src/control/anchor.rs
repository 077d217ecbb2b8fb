//! The anchor: a file outside of the store to which each new head of the audit log is added, so that a tail that was cut
//! off in the store shows (`keyside audit verify`).
//!
//! Whoever can change the store and this file can still rewrite the past: ship it elsewhere, as other logs.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::store::Head;
use crate::clock;

/// The file.
#[derive(Debug)]
pub struct Anchor {
    path: PathBuf,
    failing: bool,
}

/// A line of it: a head that was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The history.
    pub epoch: String,
    /// The number of the last entry.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
    /// When it was added here.
    pub at: jiff::Timestamp,
}

impl Anchor {
    /// The anchor at this path.
    pub fn new(path: PathBuf) -> Self {
        Self { path, failing: false }
    }

    /// Adds every head that is seen, for as long as it is polled. Heads that follow at once are left out.
    pub async fn follow(mut self, mut heads: watch::Receiver<Head>) {
        loop {
            let head = heads.borrow_and_update().clone();
            if head.entries > 0 {
                let written = self.add(&head);
                if let (Err(error), false) = (&written, self.failing) {
                    tracing::error!(file = %self.path.display(), %error, "the audit anchor cannot be written");
                }
                self.failing = written.is_err();
            }
            if heads.changed().await.is_err() {
                return;
            }
        }
    }

    fn add(&self, head: &Head) -> io::Result<()> {
        let at = clock::now().wall.timestamp();
        let line = Line { epoch: head.epoch.clone(), seq: head.entries, hash: head.hash.clone(), at };
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        let mut text = Vec::new();
        // Not glued to a line that was torn, by a crash or a full disk.
        if !is_whole(&file)? {
            text.push(b'\n');
        }
        serde_json::to_writer(&mut text, &line)?;
        text.push(b'\n');
        file.write_all(&text)
    }
}

/// Whether the file ends where a line does.
fn is_whole(file: &File) -> io::Result<bool> {
    let Some(last) = file.metadata()?.len().checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte == *b"\n")
}

/// What was noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// The lines that can be read.
    pub lines: Vec<Line>,
    /// The numbers of those that cannot, from 1: torn by a crash or a full disk, or changed since.
    pub unreadable: Vec<usize>,
}

/// Reads the file. Lines that cannot be read are left out: they are no reason to believe less of the others.
///
/// # Errors
///
/// It cannot be read, or holds lines, and none of them is one of an anchor.
pub fn read(path: &Path) -> io::Result<Noted> {
    let text = std::fs::read(path)?;
    let mut noted = Noted::default();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(line) => noted.lines.push(line),
            Err(_) => noted.unreadable.push(index + 1),
        }
    }
    // The very first line may have been torn, and nothing else is there.
    if noted.lines.is_empty() && !noted.unreadable.is_empty() && text.contains(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no line of it is one of an audit anchor"));
    }
    Ok(noted)
}

/// Reads the file, and says in the log which lines cannot be read; none where there is no file.
///
/// # Errors
///
/// As of [`read`].
pub fn read_if_there(path: &Path) -> io::Result<Option<Vec<Line>>> {
    match read(path) {
        Ok(Noted { lines, unreadable }) => {
            if !unreadable.is_empty() {
                tracing::warn!(file = %path.display(), lines = ?unreadable, "lines of the audit anchor cannot be read: they are left out");
            }
            Ok(Some(lines))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(entries: u64) -> Head {
        Head { epoch: "e".to_owned(), entries, hash: "h".to_owned(), ..Head::default() }
    }

    /// What is read of a file with this text to which a head is added: the numbers, and which lines cannot be read.
    #[track_caller]
    fn check(before: &str, expected: &[u64], unreadable: &[usize]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("anchor");
        std::fs::write(&path, before).unwrap();
        Anchor::new(path.clone()).add(&head(9)).unwrap();
        let noted = read(&path).unwrap();
        let numbers: Vec<_> = noted.lines.iter().map(|line| line.seq).collect();
        assert_eq!((&*numbers, &*noted.unreadable), (expected, unreadable), "{before:?}");
    }

    #[test]
    fn a_torn_line_costs_no_other() {
        let line = |seq: u64| format!(r#"{{"epoch":"e","seq":{seq},"hash":"h","at":"2026-01-02T03:04:05Z"}}"#);
        check("", &[9], &[]);
        check(&format!("{}\n", line(1)), &[1, 9], &[]);
        check(&line(1), &[1, 9], &[]);
        check(&format!("{}\n{}", line(1), &line(2)[..20]), &[1, 9], &[2]);
        check(&line(1)[..20], &[9], &[1]);
        check(&format!("{}\n{}{}\n{}\n", line(1), &line(2)[..20], line(3), line(4)), &[1, 4, 9], &[2]);
        check(&format!("{}\n\n{}\n", line(1), line(2)), &[1, 2, 9], &[]);
    }

    #[test]
    fn what_is_no_anchor_is_not_taken_for_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("anchor");
        assert_eq!(read_if_there(&path).unwrap(), None);
        for (text, good) in [("", true), ("{\"epoch\":", true), ("{}\n", false), ("\0\0\0\n\0", false)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_if_there(&path).is_ok(), good, "{text:?}");
        }
        assert!(read_if_there(folder.path()).is_err(), "a folder");
    }
}
