//! Watches the folders that a file's name leads through: a rename, an in-place write and a swapped symlink (as
//! Kubernetes does with `..data`) all show as an event of a folder, where a watch on the file would be left behind.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};

/// A watch on the folders of one file.
#[derive(Debug)]
pub(super) struct Watch {
    /// None where the system gives no watcher: then the poll has to do.
    watcher: Option<RecommendedWatcher>,
    /// The folders that are watched, with their device and inode: a folder made anew under the old name needs another
    /// watch.
    folders: Vec<(PathBuf, (u64, u64))>,
}

impl Watch {
    /// Begins with no folder; `changed` is called for every event that may mean a new text, from another thread.
    pub(super) fn new(changed: impl Fn() + Send + 'static) -> Self {
        let on_event = move |event: notify::Result<Event>| match event {
            // Reading is an event too; ours would wake us for ever.
            Ok(Event { kind: EventKind::Access(kind), .. }) if kind != AccessKind::Close(AccessMode::Write) => {}
            // Errors, such as an overflow of the queue, mean that something may have happened.
            _ => changed(),
        };
        let watcher = match notify::recommended_watcher(on_event) {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "no watch on the key file's folder: changes are found by looking twice a second");
                None
            }
        };
        Self { watcher, folders: Vec::new() }
    }

    /// Watches where the file's name leads now. Cheap when that is where it led before.
    pub(super) fn aim(&mut self, file: &Path) {
        let Some(watcher) = &mut self.watcher else { return };
        let folders = folders(file);
        if folders == self.folders {
            return;
        }
        for (folder, identity) in &self.folders {
            if !folders.iter().any(|(other, known)| (other, known) == (folder, identity)) {
                // It may be gone, and its watch with it.
                let _ = watcher.unwatch(folder);
            }
        }
        let known = std::mem::take(&mut self.folders);
        for (folder, identity) in folders {
            let watched = known.iter().any(|(other, known)| (other, known) == (&folder, &identity))
                || watcher.watch(&folder, RecursiveMode::NonRecursive).is_ok();
            // One that could not be watched is tried again at the next look.
            if watched {
                self.folders.push((folder, identity));
            }
        }
    }
}

/// The folders that hold the file and the symlinks on the way to it.
fn folders(file: &Path) -> Vec<(PathBuf, (u64, u64))> {
    let mut found: Vec<(PathBuf, (u64, u64))> = Vec::new();
    let mut path = file.to_path_buf();
    for _ in 0..40 {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let Ok((folder, identity)) = identify(parent) else { break };
        if !found.iter().any(|(known, _)| *known == folder) {
            found.push((folder.clone(), identity));
        }
        // `..data` itself is a link within the folder; what it leads to is watched as the parent of the next step.
        match fs::read_link(folder.join(path.file_name().unwrap_or_default())) {
            Ok(link) => path = folder.join(link),
            Err(_) => break,
        }
    }
    found
}

fn identify(folder: &Path) -> io::Result<(PathBuf, (u64, u64))> {
    let folder = fs::canonicalize(folder)?;
    let metadata = fs::metadata(&folder)?;
    Ok((folder, (metadata.dev(), metadata.ino())))
}
