//! What the source of keys keeps in the state folder, all of it for its owner alone, beside what `usage` keeps there:
//!
//! | file | holds |
//! |---|---|
//! | `last-good-keys.toml` | the last text that was put into force, below a line that names the file it came from |
//! | `applied` | which text is in force in the running sidecar: what `--wait` asks for |
//!
//! A folder that cannot be written is alarmed once, by whoever calls; serving goes on.

use std::{
    io,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use crate::{
    keys::Revocations,
    usage::{Folder, read_revoked},
};

const LAST_GOOD: &str = "last-good-keys.toml";
const APPLIED: &str = "applied";

/// The state folder, as far as keys are concerned.
#[derive(Clone, Debug)]
pub struct StateFolder(Folder);

/// What is in force in a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// SHA-256 of the text, in hexadecimal.
    pub digest: String,
    /// The revision of the key set.
    pub revision: u64,
    /// The process.
    pub pid: u32,
    /// Whether its revocations are on the disk, too: an older key file will not take them back after a restart.
    #[serde(default = "yes")]
    pub durable: bool,
}

impl InForce {
    /// This text, which this process has put into force.
    pub fn of(text: &[u8], revision: u64) -> Self {
        Self { digest: digest_of(text), revision, pid: std::process::id(), durable: true }
    }
}

/// Builds before this field did not say it.
const fn yes() -> bool {
    true
}

impl From<Folder> for StateFolder {
    fn from(folder: Folder) -> Self {
        Self(folder)
    }
}

impl StateFolder {
    /// The folder at this path; it need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(Folder::new(path))
    }

    /// The folder itself.
    pub fn folder(&self) -> &Folder {
        &self.0
    }

    /// The keys that were ever seen revoked.
    ///
    /// # Errors
    ///
    /// The file is there and cannot be read.
    pub fn revoked(&self) -> io::Result<Revocations> {
        read_revoked(&self.0)
    }

    /// The last text of this key file that was put into force.
    ///
    /// # Errors
    ///
    /// The file is there and cannot be read.
    pub fn last_good(&self, of: &Path) -> io::Result<Option<Vec<u8>>> {
        let Some(mut text) = self.0.read(LAST_GOOD)? else { return Ok(None) };
        let mark = mark(of);
        // The state of another key file says nothing about this one.
        Ok(text.starts_with(mark.as_bytes()).then(|| text.split_off(mark.len())))
    }

    /// Keeps the text that was put into force, on disk when this returns.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub fn set_last_good(&self, of: &Path, text: &[u8]) -> io::Result<()> {
        self.0.write(LAST_GOOD, &[mark(of).as_bytes(), text].concat())
    }

    /// What is in force in the sidecar that uses this folder.
    ///
    /// # Errors
    ///
    /// The file is there and cannot be read.
    pub fn in_force(&self) -> io::Result<Option<InForce>> {
        Ok(self.0.read(APPLIED)?.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Says what is in force.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub fn set_in_force(&self, in_force: &InForce) -> io::Result<()> {
        self.0.write(APPLIED, &serde_json::to_vec(in_force)?)
    }
}

/// SHA-256 of a text, in hexadecimal.
pub fn digest_of(text: &[u8]) -> String {
    digest::digest(&digest::SHA256, text).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn mark(of: &Path) -> String {
    let of = std::path::absolute(of).unwrap_or_else(|_| of.to_path_buf());
    format!("# The last good text of {}\n", of.to_string_lossy().replace(char::is_control, "?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_good_text_is_that_of_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::new(folder.path());
        let (one, other) = (Path::new("/etc/one.toml"), Path::new("/etc/other.toml"));
        assert_eq!(state.last_good(one).unwrap(), None);
        state.set_last_good(one, b"# text\n").unwrap();
        assert_eq!(state.last_good(one).unwrap().unwrap(), b"# text\n");
        assert_eq!(state.last_good(other).unwrap(), None);
    }

    #[test]
    fn what_is_in_force_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::new(folder.path());
        assert_eq!(state.in_force().unwrap(), None);
        let in_force = InForce { digest: digest_of(b""), revision: 7, pid: 1, durable: false };
        state.set_in_force(&in_force).unwrap();
        assert_eq!(state.in_force().unwrap(), Some(in_force.clone()));
        std::fs::write(
            folder.path().join(APPLIED),
            format!(r#"{{"digest":{:?},"revision":7,"pid":1}}"#, in_force.digest),
        )
        .unwrap();
        assert_eq!(state.in_force().unwrap(), Some(InForce { durable: true, ..in_force }));
    }
}
