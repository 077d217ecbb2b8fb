//! The key file on disk: read as a whole, written so that a crash at any point leaves the old or the new text.
//!
//! Commands lock each other out by `keys.toml.lock` beside the file, which stays: removing a lock file is a race of its
//! own. Symlinks are followed, so the lock, the temporary file and the rename are where the text really is.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::clock;

/// What failed on the key file.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}", path.display())]
pub struct KeyFileError {
    /// What was being done.
    pub step: &'static str,
    /// To which file.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

fn failed<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> KeyFileError + 'a {
    move |source| KeyFileError { step, path: path.to_path_buf(), source }
}

/// A key file that no other command changes meanwhile. Dropping it releases the lock.
#[derive(Debug)]
pub struct Locked {
    target: PathBuf,
    text: Option<Vec<u8>>,
    _lock: File,
}

impl Locked {
    /// Locks the key file and reads it. Waits up to `patience` for other commands.
    ///
    /// # Errors
    ///
    /// Another command holds the lock for too long, or something of the file cannot be read or made.
    pub fn open(path: &Path, patience: Duration) -> Result<Self, KeyFileError> {
        loop {
            let target = resolve(path).map_err(failed("cannot find", path))?;
            let lock = lock(&beside(&target, ".lock"), patience)?;
            // Somebody may have pointed the symlink elsewhere while we waited.
            if resolve(path).map_err(failed("cannot find", path))? != target {
                continue;
            }
            let text = match read(&target) {
                Ok(text) => Some(text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(failed("cannot read", path)(error)),
            };
            return Ok(Self { target, text, _lock: lock });
        }
    }

    /// The text; none when there is no file yet.
    pub fn text(&self) -> Option<&[u8]> {
        self.text.as_deref()
    }

    /// Replaces the text. The mode and owner of the file stay; a new file is for its owner alone.
    ///
    /// # Errors
    ///
    /// Nothing was changed, unless the last step failed: then the new text is in place, and a power cut may undo it.
    pub fn write(&mut self, text: &[u8]) -> Result<(), KeyFileError> {
        self.sweep();
        replace(&self.target, text)?;
        self.text = Some(text.to_vec());
        Ok(())
    }

    /// Removes what commands that were killed left behind; nobody else is writing while the lock is held.
    fn sweep(&self) {
        let (folder, name) = parts(&self.target);
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let left = entry.file_name();
            let left = left.to_string_lossy();
            if left.strip_prefix(&format!(".{name}.")).is_some_and(|rest| rest.ends_with(".tmp")) {
                // A leftover that cannot be removed harms nobody.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Reads a file as a whole.
///
/// # Errors
///
/// Those of the file system; `InvalidData` for what is no file or far too large.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    const MAX_BYTES: u64 = 1 << 30;
    let (file, metadata) = open(path)?;
    let mut text = Vec::with_capacity(usize::try_from(metadata.len().min(MAX_BYTES)).unwrap_or(0) + 1);
    if file.take(MAX_BYTES + 1).read_to_end(&mut text)? as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than 1 GiB"));
    }
    Ok(text)
}

/// What a file looks like, by opening it: a network file system answers a look at the name from what it knew some time
/// ago, and asks its server when the file is opened.
pub(super) fn metadata(path: &Path) -> io::Result<fs::Metadata> {
    open(path).map(|(_, metadata)| metadata)
}

fn open(path: &Path) -> io::Result<(File, fs::Metadata)> {
    // A pipe or a device under the name of the key file must not hold up the reader for ever.
    let file =
        OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() {
        Ok((file, metadata))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"))
    }
}

/// Who but its owner may do what with the file, in words; none when nobody may.
pub fn exposure(path: &Path) -> Option<&'static str> {
    let mode = fs::metadata(path).ok()?.mode();
    match mode {
        _ if mode & 0o002 != 0 => Some("everybody may write to it: anybody can give themselves a key; chmod 600"),
        _ if mode & 0o020 != 0 => Some("its group may write to it; chmod 600, or 640"),
        _ if mode & 0o004 != 0 => Some("everybody may read it, and guess at its hashes; chmod 600, or 640"),
        _ => None,
    }
}

/// Puts a text in place of a file's: temporary file in the same folder, fsync, rename, fsync of the folder.
///
/// # Errors
///
/// As of [`Locked::write`].
pub(super) fn replace(target: &Path, text: &[u8]) -> Result<(), KeyFileError> {
    let (folder, name) = parts(target);
    let mut temporary = tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .suffix(".tmp")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(folder)
        .map_err(failed("cannot write beside", target))?;
    let step = failed("cannot write beside", target);
    temporary.write_all(text).map_err(step)?;
    match fs::metadata(target) {
        Ok(old) => keep(temporary.as_file(), &old).map_err(failed("cannot keep the mode and owner of", target))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("cannot read", target)(error)),
    }
    temporary.as_file().sync_all().map_err(failed("cannot sync what is beside", target))?;
    temporary.persist(target).map_err(|error| failed("cannot replace", target)(error.error))?;
    let folder_file = File::open(folder).map_err(failed("cannot open", folder))?;
    folder_file.sync_all().map_err(failed("cannot sync", folder))
}

fn keep(file: &File, old: &fs::Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        // The sidecar reads the file under its own user: a file that it cannot read would be worse than an error.
        std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid()))?;
    }
    // After the owner: changing that clears bits of the mode.
    file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))
}

fn lock(path: &Path, patience: Duration) -> Result<File, KeyFileError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
        .map_err(failed("cannot open", path))?;
    let began = clock::mono();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed("cannot lock", path)(error)),
            Err(TryLockError::WouldBlock) if clock::mono().since(began) >= patience => {
                return Err(failed("another command holds", path)(io::ErrorKind::TimedOut.into()));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Where the text really is: symlinks followed, also one whose target is not there yet.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..40 {
        let (folder, name) = parts(&path);
        let here = fs::canonicalize(folder)?.join(name);
        match fs::read_link(&here) {
            Ok(link) => path = parts(&here).0.join(link),
            Err(_) => return Ok(here),
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "too many symlinks"))
}

/// The folder and the name of a file.
fn parts(path: &Path) -> (&Path, String) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    (folder, path.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, sync::Barrier};

    use super::*;
    use crate::keys::document::{
        Parser,
        edit::{Draft, List, text},
    };

    const PATIENCE: Duration = Duration::from_secs(30);

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn write(path: &Path, text: &str) {
        Locked::open(path, PATIENCE).unwrap().write(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_new_file_is_for_its_owner_alone_and_an_old_one_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        assert_eq!(Locked::open(&path, PATIENCE).unwrap().text(), None);
        write(&path, "a");
        assert_eq!((mode(&path), mode(&folder.path().join("keys.toml.lock"))), (0o600, 0o600));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write(&path, "b");
        assert_eq!((mode(&path), read(&path).unwrap()), (0o640, b"b".to_vec()));
        assert_eq!(exposure(&path), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(exposure(&path).unwrap().starts_with("everybody may read"));
    }

    #[test]
    fn symlinks_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        let path = folder.path().join("keys.toml");
        // The target is not there yet.
        symlink("link/data.toml", &path).unwrap();
        write(&path, "a");
        assert_eq!(read(&real.join("data.toml")).unwrap(), b"a");
        write(&path, "b");
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        assert_eq!(read(&path).unwrap(), b"b");
        symlink("loop", folder.path().join("loop")).unwrap();
        assert!(Locked::open(&folder.path().join("loop"), PATIENCE).is_err());
    }

    #[test]
    fn what_a_killed_command_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let left = folder.path().join(".keys.toml.Ab12.tmp");
        let other = folder.path().join(".other.toml.Ab12.tmp");
        fs::write(&left, "half").unwrap();
        fs::write(&other, "half").unwrap();
        write(&path, "a");
        assert!(!left.exists() && other.exists());
    }

    #[test]
    fn a_command_that_waits_too_long_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let _held = Locked::open(&path, PATIENCE).unwrap();
        let error = Locked::open(&path, Duration::ZERO).unwrap_err();
        assert!(error.to_string().starts_with("another command holds"), "{error}");
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).is_err());
        assert!(read(Path::new("/dev/zero")).is_err());
    }

    #[test]
    fn twenty_commands_at_once_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let start = Barrier::new(20);
        std::thread::scope(|scope| {
            for number in 0..20 {
                let (path, start) = (&path, &start);
                scope.spawn(move || {
                    start.wait();
                    let mut file = Locked::open(path, PATIENCE).unwrap();
                    let before = String::from_utf8(file.text().unwrap_or_default().to_vec()).unwrap();
                    let mut draft = Draft::new(before);
                    draft.add(List::Owners, &[("id", text(format!("owner-{number}")))]);
                    draft.seal();
                    file.write(draft.text().as_bytes()).unwrap();
                });
            }
            // A reader without the lock sees whole texts only.
            scope.spawn(|| {
                for _ in 0..200 {
                    if let Ok(text) = read(&path) {
                        Parser::default().parse(&text).unwrap();
                    }
                }
            });
        });
        assert_eq!(Parser::default().parse(&read(&path).unwrap()).unwrap().owners.len(), 20);
    }
}
