//! What the source of keys keeps in the state folder, all of it for its owner alone:
//!
//! | file | holds |
//! |---|---|
//! | `revoked` | the ids ever seen revoked, one a line, only ever appended to |
//! | `last-good-keys.toml` | the last text that was put into force, below a line that names the file it came from |
//! | `applied` | which text is in force in the running sidecar: what `revoke --wait` asks for |
//!
//! A folder that cannot be written is alarmed once, by whoever calls; serving goes on.

use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

use super::keyfile::{self, KeyFileError};
use crate::keys::KeyId;

/// The state folder, as far as keys are concerned.
#[derive(Clone, Debug)]
pub struct StateFolder(PathBuf);

/// What is in force in a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// SHA-256 of the text, in hexadecimal.
    pub digest: String,
    /// The revision of the key set.
    pub revision: u64,
    /// The process.
    pub pid: u32,
}

impl StateFolder {
    /// The folder at this path; it need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The ids that were ever seen revoked.
    ///
    /// # Errors
    ///
    /// The file is there and cannot be read.
    pub fn revoked(&self) -> io::Result<HashSet<KeyId>> {
        // A last line that was cut by a crash is some other id, which is nobody's.
        Ok(optional(&self.0.join("revoked"))?
            .map(|text| String::from_utf8_lossy(&text).lines().filter_map(|line| line.parse().ok()).collect())
            .unwrap_or_default())
    }

    /// Remembers ids as revoked, on disk when this returns.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub fn add_revoked(&self, ids: &[KeyId]) -> io::Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        self.create()?;
        let path = self.0.join("revoked");
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
        // What a crash cut off must not swallow the next id.
        let mut last = [b'\n'];
        if file.metadata()?.len() > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        let mut lines = if last == [b'\n'] { String::new() } else { "\n".to_owned() };
        for id in ids {
            lines.push_str(id.as_str());
            lines.push('\n');
        }
        file.write_all(lines.as_bytes())?;
        file.sync_all()?;
        File::open(&self.0)?.sync_all()
    }

    /// The last text of this key file that was put into force.
    ///
    /// # Errors
    ///
    /// The file is there and cannot be read.
    pub fn last_good(&self, of: &Path) -> io::Result<Option<Vec<u8>>> {
        let Some(mut text) = optional(&self.0.join("last-good-keys.toml"))? else { return Ok(None) };
        let mark = mark(of);
        // The state of another key file says nothing about this one.
        Ok(text.starts_with(mark.as_bytes()).then(|| text.split_off(mark.len())))
    }

    /// Keeps the text that was put into force, on disk when this returns.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub fn set_last_good(&self, of: &Path, text: &[u8]) -> Result<(), KeyFileError> {
        let path = self.0.join("last-good-keys.toml");
        self.create().map_err(|source| KeyFileError { step: "cannot make", path: self.0.clone(), source })?;
        keyfile::replace(&path, &[mark(of).as_bytes(), text].concat())
    }

    /// What is in force in the sidecar that uses this folder.
    ///
    /// # Errors
    ///
    /// The file is there and cannot be read.
    pub fn in_force(&self) -> io::Result<Option<InForce>> {
        Ok(optional(&self.0.join("applied"))?.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Says what is in force. Not synced: after a crash nothing is in force.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub fn set_in_force(&self, in_force: &InForce) -> io::Result<()> {
        self.create()?;
        let mut file = tempfile::Builder::new().prefix(".applied.").suffix(".tmp").tempfile_in(&self.0)?;
        serde_json::to_writer(&mut file, in_force)?;
        file.persist(self.0.join("applied"))?;
        Ok(())
    }

    fn create(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
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

fn optional(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn id(text: &str) -> KeyId {
        text.parse().unwrap()
    }

    #[test]
    fn revoked_ids_are_kept_and_a_cut_line_swallows_none() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::new(folder.path().join("state"));
        assert_eq!(state.revoked().unwrap(), HashSet::new());
        state.add_revoked(&[id("key_1"), id("key_2")]).unwrap();
        let path = folder.path().join("state/revoked");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.trim_end().strip_suffix('2').unwrap()).unwrap();
        state.add_revoked(&[id("key_3")]).unwrap();
        assert_eq!(state.revoked().unwrap(), HashSet::from([id("key_1"), id("key_"), id("key_3")]));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(folder.path().join("state")).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn the_last_good_text_is_that_of_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::new(folder.path());
        let (one, other) = (Path::new("/etc/one.toml"), Path::new("/etc/other.toml"));
        assert_eq!(state.last_good(one).unwrap(), None);
        state.set_last_good(one, b"# text\n").unwrap();
        assert_eq!(state.last_good(one).unwrap().unwrap(), b"# text\n");
        assert_eq!(state.last_good(other).unwrap(), None);
        assert_eq!(fs::metadata(folder.path().join("last-good-keys.toml")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_in_force_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::new(folder.path());
        assert_eq!(state.in_force().unwrap(), None);
        let in_force = InForce { digest: digest_of(b""), revision: 7, pid: 1 };
        state.set_in_force(&in_force).unwrap();
        assert_eq!(state.in_force().unwrap(), Some(in_force));
    }
}
