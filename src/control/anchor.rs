//! The anchor: a file outside of the store to which each new head of the audit log is added, so that a tail that was cut
//! off in the store shows (`keyside audit verify`).
//!
//! Whoever can change the store and this file can still rewrite the past: ship it elsewhere, as other logs.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
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
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?.write_all(&text)
    }
}

/// The last head of this history that was noted; none where nothing was, or the file cannot be read.
pub fn last_of(path: &Path, epoch: &str) -> Option<Line> {
    read(path).ok()?.into_iter().rfind(|line| line.epoch == epoch)
}

/// Reads the file; what follows the last line break was being written.
///
/// # Errors
///
/// It cannot be read, or holds something else.
pub fn read(path: &Path) -> io::Result<Vec<Line>> {
    let text = std::fs::read(path)?;
    let lines = text.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    lines.map(|line| serde_json::from_slice(line).map_err(io::Error::from)).collect()
}
