//! Taking the state folder: one process at a time has it. Two would rename their files over each other's, and what one
//! had written durably would be gone.
//!
//! Whoever has it holds the lock of a file in it, which the system takes back when the process ends, however it ends.
//! Where it cannot be had because nothing can be written there, the folder is only read.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use super::{
    Folder,
    folder::{Hold, LOCK},
    revoked::REVOKED,
    state::{LAST_USED, WINDOWS},
};

/// How often, and how long apart, the lock is asked for: a predecessor may be ending just now.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);
/// What is lost where it cannot be read: an id that was revoked, an allowance that was used up.
const KEPT: [&str; 3] = [REVOKED, WINDOWS, LAST_USED];

/// Why the state folder cannot be had.
#[derive(Debug)]
pub enum NotTaken {
    /// Another process has it.
    Running {
        /// The folder.
        folder: PathBuf,
        /// Which one, as it says.
        process: Option<u32>,
    },
    /// A file in it is kept from us: it would be taken for lost, and a sidecar that has it for gone.
    Barred {
        /// The folder.
        folder: PathBuf,
        /// The file in it.
        file: &'static str,
        /// Whose it is.
        owner: u32,
    },
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running { folder, process } => {
                write!(f, "{} belongs to a running sidecar", folder.display())?;
                if let Some(process) = process {
                    write!(f, ", process {process}")?;
                }
                f.write_str("; give this one its own: `keys.state`, or KEYSIDE_KEYS__STATE")
            }
            Self::Barred { folder, file, owner } => {
                let own = rustix::process::geteuid().as_raw();
                let (file, folder) = (folder.join(file), folder.display());
                write!(
                    f,
                    "{} belongs to user {owner}, and user {own}, as whom this sidecar runs, may not open it: see that no \
                     sidecar of user {owner} runs there, then `chown -R {own} {folder}` (`chmod -R u+rw` where it is \
                     yours already), or remove the folder, which forgets what was revoked",
                    file.display()
                )
            }
        }
    }
}

impl std::error::Error for NotTaken {}

impl Folder {
    /// Takes the folder, for as long as this or a clone of it lives; waits a moment for one who is about to end. One in
    /// which nothing can be written (read-only, full, or not to be made) is only read.
    ///
    /// # Errors
    ///
    /// Another process has it, or a file in it is another user's.
    pub fn take(path: &Path) -> Result<Self, NotTaken> {
        Self::try_take(path, TRIES)
    }

    pub(crate) fn try_take(path: &Path, tries: u32) -> Result<Self, NotTaken> {
        let mut folder = Self::new(path);
        for tried in 0..=tries {
            match hold(&folder) {
                Ok(Some(lock)) => {
                    folder.hold = Hold::Ours(Arc::new(lock));
                    let barred = |file| {
                        let refused = File::open(folder.file(file)).err()?;
                        barred(&folder, file, &refused)
                    };
                    return KEPT.into_iter().find_map(barred).map_or(Ok(folder), Err);
                }
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
                    if let Some(barred) = barred(&folder, LOCK, &error) {
                        return Err(barred);
                    }
                    tracing::warn!(
                        %error, folder.path = %path.display(),
                        "the state folder cannot be locked: until a restart it is only read"
                    );
                    folder.hold = Hold::Nobodys;
                    return Ok(folder);
                }
            }
        }
        let process = fs::read_to_string(folder.file(LOCK)).ok().and_then(|text| text.trim().parse().ok());
        Err(NotTaken::Running { folder: path.to_owned(), process })
    }
}

/// Where a file is there, and only permissions keep it from us.
fn barred(folder: &Folder, file: &'static str, error: &io::Error) -> Option<NotTaken> {
    // What EACCES and EPERM are.
    let found = (error.kind() == io::ErrorKind::PermissionDenied).then(|| fs::metadata(folder.file(file)).ok())??;
    Some(NotTaken::Barred { folder: folder.path().to_owned(), file, owner: found.uid() })
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
        let one = Folder::take(&state).unwrap();
        let taken = Folder::try_take(&state, 0).unwrap_err().to_string();
        let own = format!("{} belongs to a running sidecar, process {};", state.display(), std::process::id());
        assert!(taken.starts_with(&own) && taken.contains("KEYSIDE_KEYS__STATE"), "{taken}");
        fs::write(state.join(LOCK), "").unwrap();
        let taken = Folder::try_take(&state, 0).unwrap_err().to_string();
        assert!(taken.contains("running sidecar; give"), "{taken}");
        // Who is waited for ends, with the last that has it.
        let waiting = {
            let state = state.clone();
            thread::spawn(move || Folder::try_take(&state, u32::MAX).map(|folder| folder.mark().is_some()))
        };
        let other = one.clone();
        drop(one);
        assert!(Folder::try_take(&state, 0).is_err());
        drop(other);
        assert!(waiting.join().unwrap().unwrap());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_only_read() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("state");
        fs::write(&state, "a file").unwrap();
        let folder = Folder::take(&state).unwrap();
        assert_eq!(folder.mark(), None);
        // Also once it could be: somebody else may have had it meanwhile.
        fs::remove_file(&state).unwrap();
        fs::create_dir(&state).unwrap();
        fs::write(state.join("x"), "one").unwrap();
        assert_eq!(folder.read("x").unwrap().as_deref(), Some(&b"one"[..]));
        let told = folder.write("x", b"two").unwrap_err().to_string();
        assert!(told.contains("could not be locked"), "{told}");
        folder.set_aside("x").unwrap_err();
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
        assert_eq!(fs::read(state.join("x")).unwrap(), b"one");
    }

    /// What the system answers when the lock is asked for, and whether the lock is there.
    #[track_caller]
    fn check(error: rustix::io::Errno, is_there: bool, refused: bool) {
        let root = tempfile::tempdir().unwrap();
        if is_there {
            fs::write(root.path().join(LOCK), "").unwrap();
        }
        let found = barred(&Folder::new(root.path()), LOCK, &error.into());
        assert_eq!(found.is_some(), refused, "{error}, {is_there}");
        let Some(found) = found else { return };
        let (told, own) = (found.to_string(), fs::metadata(root.path()).unwrap().uid());
        assert!(told.contains(LOCK) && told.contains(&format!("chown -R {own} ")), "{told}");
    }

    #[test]
    fn only_a_lock_that_is_there_and_kept_from_us_is_a_reason_to_end() {
        use rustix::io::Errno;
        check(Errno::ACCESS, true, true);
        check(Errno::PERM, true, true);
        check(Errno::ACCESS, false, false);
        for error in [Errno::ROFS, Errno::NOSPC, Errno::DQUOT, Errno::IO] {
            check(error, true, false);
        }
    }

    #[test]
    fn a_folder_that_was_removed_or_replaced_is_no_longer_ours() {
        let root = tempfile::tempdir().unwrap();
        let (state, away) = (root.path().join("state"), root.path().join("away"));
        let folder = Folder::take(&state).unwrap();
        folder.write("x", b"one").unwrap();
        fs::rename(&state, &away).unwrap();
        folder.check().unwrap_err();
        let told = folder.write("x", b"two").unwrap_err().to_string();
        assert!(told.contains("removed or replaced"), "{told}");
        assert!(!state.exists(), "nor is it made anew: nobody would know whose it is");
        let other = Folder::take(&state).unwrap();
        folder.write("x", b"two").unwrap_err();
        other.write("x", b"three").unwrap();
        drop(other);
        fs::remove_dir_all(&state).unwrap();
        fs::rename(&away, &state).unwrap();
        folder.write("x", b"two").unwrap();
    }
}
