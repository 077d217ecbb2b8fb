//! The state folder, of one process at a time: two would rename their files over each other's, and what one had written
//! durably would be gone.
//!
//! Whoever has it holds the lock of a file in it, which the system takes back when the process ends, however it ends.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::usage::Folder;

pub(super) const LOCK: &str = "instance.lock";
/// How often, and how long apart, the lock is asked for: a predecessor may be ending just now.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// The state folder, ours for as long as this lives.
#[derive(Debug)]
pub struct Place {
    pub(super) folder: Folder,
    /// None where the folder cannot be written: then nothing of ours gets into it.
    lock: Option<File>,
}

/// The state folder is another process's.
#[derive(Debug)]
pub struct Taken {
    path: PathBuf,
    process: Option<u32>,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} belongs to a running sidecar", self.path.display())?;
        if let Some(process) = self.process {
            write!(f, ", process {process}")?;
        }
        f.write_str("; give this one its own: `keys.state`, or KEYSIDE_KEYS__STATE")
    }
}

impl std::error::Error for Taken {}

/// Which file the lock is, on which file system, and since when the machine has run: a copy of the folder has another
/// one. The number alone comes again on other file systems; the system's, after a start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    device: u64,
    number: u64,
    boot: String,
}

impl Place {
    /// Takes the folder; waits a moment for one who is about to end. A folder that cannot be written is nobody's.
    ///
    /// # Errors
    ///
    /// Another process has it.
    pub fn take(path: &Path) -> Result<Self, Taken> {
        Self::try_take(path, TRIES)
    }

    pub(super) fn try_take(path: &Path, tries: u32) -> Result<Self, Taken> {
        let folder = Folder::new(path);
        for tried in 0..=tries {
            match hold(&folder) {
                Ok(Some(lock)) => return Ok(Self { folder, lock: Some(lock) }),
                Ok(None) if tried < tries => {
                    if tried == 0 {
                        tracing::info!(
                            folder.path = %path.display(),
                            "another process has the state folder; waiting a moment for its end"
                        );
                    }
                    thread::sleep(PAUSE);
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, folder.path = %path.display(), "the state folder cannot be locked");
                    return Ok(Self { folder, lock: None });
                }
            }
        }
        let process = fs::read_to_string(folder.file(LOCK)).ok().and_then(|text| text.trim().parse().ok());
        Err(Taken { path: path.to_owned(), process })
    }

    /// The folder, where several may have it.
    pub fn shared(path: &Path) -> Self {
        Self { folder: Folder::new(path), lock: None }
    }

    /// What tells the folder from its copies; none where that cannot be said.
    pub(super) fn mark(&self) -> Option<Mark> {
        let found = self.lock.as_ref()?.metadata().ok()?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        (!boot.is_empty()).then(|| Mark { device: found.dev(), number: found.ino(), boot })
    }
}

/// The lock of a folder; none while another process holds it.
fn hold(folder: &Folder) -> io::Result<Option<File>> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.path())?;
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(false).mode(0o600).open(folder.file(LOCK))?;
    match file.try_lock() {
        Ok(()) => {
            // For people alone: a disk that is full keeps nobody from the lock.
            let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
            Ok(Some(file))
        }
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("state");
        let one = Place::take(&state).unwrap();
        assert!(one.lock.is_some());
        let taken = Place::try_take(&state, 0).unwrap_err().to_string();
        let own = format!("{} belongs to a running sidecar, process {};", state.display(), std::process::id());
        assert!(taken.starts_with(&own) && taken.contains("KEYSIDE_KEYS__STATE"), "{taken}");
        fs::write(state.join(LOCK), "").unwrap();
        let taken = Place::try_take(&state, 0).unwrap_err().to_string();
        assert!(taken.contains("running sidecar; give"), "{taken}");
        // Who is waited for ends.
        let waiting = {
            let state = state.clone();
            thread::spawn(move || Place::try_take(&state, u32::MAX).map(|place| place.lock.is_some()))
        };
        drop(one);
        assert!(waiting.join().unwrap().unwrap());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_reason_to_end() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("state"), "a file").unwrap();
        let place = Place::take(&root.path().join("state")).unwrap();
        assert!(place.lock.is_none() && place.mark().is_none());
    }
}
