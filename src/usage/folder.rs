//! The state folder: files that only its owner may read, each replaced as a whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The file in it whose lock is held by whoever has the folder.
pub(crate) const LOCK: &str = "instance.lock";

/// The state folder.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    pub(super) hold: Hold,
}

/// What we have of it.
#[derive(Clone, Debug)]
pub(super) enum Hold {
    /// Its lock was not asked for: commands only look.
    Unasked,
    /// Its lock, as long as a clone of this lives.
    Ours(Arc<File>),
    /// Its lock could not be had: nothing is written into it.
    Nobodys,
}

impl Folder {
    /// The folder at this path; it is made, for its owner alone, when something is written.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), hold: Hold::Unasked }
    }

    /// Whether what is written into it is there for the next one: it is the folder that was taken, and still in its
    /// place.
    ///
    /// # Errors
    ///
    /// It could not be taken, or was removed or replaced since.
    pub(crate) fn check(&self) -> io::Result<()> {
        let lock = match &self.hold {
            Hold::Unasked => return Ok(()),
            Hold::Nobodys => {
                return Err(io::Error::other(
                    "it could not be locked at the start; mend that, and restart the sidecar",
                ));
            }
            Hold::Ours(lock) => lock,
        };
        let (own, there) = (lock.metadata()?, fs::metadata(self.file(LOCK)));
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())) {
            Ok(())
        } else {
            Err(io::Error::other("it was removed or replaced while the sidecar runs; restart the sidecar"))
        }
    }

    /// What tells it from its copies while its lock is held: the device and the number of the lock.
    pub(crate) fn mark(&self) -> Option<(u64, u64)> {
        let Hold::Ours(lock) = &self.hold else { return None };
        lock.metadata().ok().map(|found| (found.dev(), found.ino()))
    }

    /// Where a file of this name is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What the file holds; none if there is no such file.
    pub fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.file(name)) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file: whoever reads it sees the old content or the new one, also after a crash. Returns once it is
    /// on the disk.
    pub fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.replace(name, content).map(drop)
    }

    /// As [`write`](Self::write); gives the new file, open for appending.
    pub(crate) fn replace(&self, name: &str, content: &[u8]) -> io::Result<File> {
        self.check()?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let temporary = self.file(&format!(".{name}.tmp"));
        // One that a crash left behind may have other permissions, or be a link.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&temporary)?;
        let written = file.write_all(content).and_then(|()| file.sync_all());
        let renamed = written.and_then(|()| fs::rename(&temporary, self.file(name)));
        if let Err(error) = renamed {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        // The new name is durable only with the folder.
        File::open(&self.path)?.sync_all()?;
        Ok(file)
    }

    /// Puts a file out of the way that cannot be read, for people to look at. Gives its new path.
    pub(crate) fn set_aside(&self, name: &str) -> io::Result<PathBuf> {
        self.check()?;
        let aside = self.file(&format!("{name}.corrupt"));
        fs::rename(self.file(name), &aside)?;
        Ok(aside)
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_is_replaced_for_its_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path().join("a/state"));
        assert_eq!(folder.read("x").unwrap(), None);
        folder.write("x", b"one").unwrap();
        fs::write(folder.file(".x.tmp"), "left behind").unwrap();
        folder.write("x", b"two").unwrap();
        assert_eq!(folder.read("x").unwrap().as_deref(), Some(&b"two"[..]));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(folder.path()), mode(&folder.file("x"))), (0o700, 0o600));
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["x"], "nothing else is left");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("state"), "a file").unwrap();
        assert!(Folder::new(root.path().join("state")).write("x", b"one").is_err());
    }
}
