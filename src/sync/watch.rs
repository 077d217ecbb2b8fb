//! Watches the folders that a file's name leads through: a rename, an in-place write and a swapped symlink (as
//! Kubernetes does with `..data`) all show as an event of a folder, where a watch on the file would be left behind.
//!
//! Much else may happen in such a folder: a log that is written beside the key file is an event for every line. Only what
//! befalls a name on the way to the file is passed on.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
    /// What an event must be about to matter.
    names: Arc<Mutex<Vec<PathBuf>>>,
}

impl Watch {
    /// Begins with no folder; `changed` is called for every event that may mean a new text, from another thread.
    pub(super) fn new(changed: impl Fn() + Send + 'static) -> Self {
        let names = Arc::<Mutex<Vec<PathBuf>>>::default();
        let known = Arc::clone(&names);
        let on_event = move |event: notify::Result<Event>| match event {
            // Reading is an event too; ours would wake us for ever.
            Ok(Event { kind: EventKind::Access(kind), .. }) if kind != AccessKind::Close(AccessMode::Write) => {}
            Ok(event) if !event.need_rescan() && !event.paths.is_empty() => {
                let names = lock(&known);
                if event.paths.iter().any(|path| names.contains(path)) {
                    changed();
                }
            }
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
        Self { watcher, folders: Vec::new(), names }
    }

    /// Watches where the file's name leads now. Cheap when that is where it led before.
    pub(super) fn aim(&mut self, file: &Path) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut names = way(file);
        let folders = folders(&names);
        // The folder itself counts, too: it may be moved away with the file in it.
        names.extend(folders.iter().map(|(folder, _)| folder.clone()));
        // Before the watches, so that their first event finds them.
        *lock(&self.names) = names;
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

fn lock(names: &Mutex<Vec<PathBuf>>) -> MutexGuard<'_, Vec<PathBuf>> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The symlinks on the way to the file, and the file at its end, each by a path without any.
fn way(file: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // Without a current folder a relative name leads nowhere.
    let mut at = if file.is_absolute() { PathBuf::new() } else { std::env::current_dir().unwrap_or_default() };
    let mut left = steps(file);
    while let Some(step) = left.pop() {
        match Path::new(&step).components().next() {
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::ParentDir) => _ = at.pop(),
            Some(Component::Normal(name)) => {
                let next = at.join(name);
                match fs::read_link(&next) {
                    // A circle of links leads nowhere; as many as the system follows are enough.
                    Ok(link) if found.len() < 40 => {
                        left.extend(steps(&link));
                        found.push(next);
                    }
                    _ => at = next,
                }
            }
            _ => {}
        }
    }
    found.push(at);
    found
}

/// The steps of a path, the last one first.
fn steps(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|step| step.as_os_str().to_owned()).collect()
}

/// The folders that hold these, as far as they are there.
fn folders(names: &[PathBuf]) -> Vec<(PathBuf, (u64, u64))> {
    let mut found: Vec<(PathBuf, (u64, u64))> = Vec::new();
    for folder in names.iter().filter_map(|name| name.parent()) {
        if !found.iter().any(|(known, _)| known == folder)
            && let Ok(metadata) = fs::metadata(folder)
        {
            found.push((folder.to_path_buf(), (metadata.dev(), metadata.ino())));
        }
    }
    found
}
