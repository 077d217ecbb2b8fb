//! Who we are to the endpoint: a name and a secret for each process, and whose place we take.
//!
//! The secret goes with every request, so that nobody else can speak in our name. Both are kept in the state folder. A
//! process that finds those of the one before it says so when it registers, and proves it by that secret: so a sidecar that
//! crashed is not waited for. That is only true while one process at a time has the folder, so it is only said by who
//! holds the lock in it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    sync::{Arc, Mutex, PoisonError},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::{client::Url, usage::Folder};

const FILE: &str = "instance";
const LOCK: &str = "instance.lock";
/// How many of those before us are named. Each start without the endpoint adds one.
const MOST: usize = 32;

const SECRET: HeaderName = HeaderName::from_static("keyside-instance-secret");
const REPLACES: HeaderName = HeaderName::from_static("keyside-replaces");

/// A process: its name, and its secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    instance: String,
    secret: String,
}

/// What is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The endpoint that knows us: another one is told nothing of it.
    url: String,
    /// The number of the lock's file: in a copy of the folder it is another one, and whoever runs there took nobody's place.
    lock: u64,
    /// The process that wrote it.
    own: Process,
    /// Those before it of which the endpoint was not told.
    before: Vec<Process>,
}

/// Who we are.
pub(super) struct Identity {
    /// Our name.
    pub(super) instance: Arc<str>,
    secret: String,
    url: String,
    folder: Folder,
    /// Held as long as we live; none where somebody else holds it, or the folder cannot be written.
    lock: Option<File>,
    before: Mutex<Vec<Process>>,
}

impl Identity {
    /// Takes the place of whoever had the folder before, and writes down who we are.
    pub(super) fn take(folder: &Folder, url: &Url, instance: Arc<str>) -> Arc<Self> {
        let secret = random();
        let mut identity = Self {
            instance,
            secret,
            url: url.to_string(),
            folder: folder.clone(),
            lock: None,
            before: Mutex::default(),
        };
        match hold(folder) {
            Ok(Some(lock)) => {
                let number = lock.metadata().map(|found| found.ino()).unwrap_or_default();
                identity.before = Mutex::new(identity.found(number));
                identity.lock = Some(lock);
                if let Err(error) = identity.write() {
                    tracing::warn!(%error, "who we are cannot be written into the state folder: after a crash the control plane names us until our keys are too old");
                }
            }
            Ok(None) => tracing::error!(
                folder.path = %folder.path().display(),
                "another process has this state folder: each sidecar needs a folder of its own"
            ),
            Err(error) => tracing::warn!(%error, "the state folder cannot be locked"),
        }
        Arc::new(identity)
    }

    /// Who had the folder before, as far as the endpoint does not know that they have ended.
    fn found(&self, lock: u64) -> Vec<Process> {
        let kept = self.folder.read(FILE).ok().flatten();
        let kept = kept.and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
        let Some(kept) = kept.filter(|kept| kept.url == self.url && kept.lock == lock) else { return Vec::new() };
        let mut before = kept.before;
        before.extend(Some(kept.own).filter(|own| !own.secret.is_empty()));
        before.drain(..before.len().saturating_sub(MOST));
        before
    }

    /// Blocks on the disk.
    fn write(&self) -> io::Result<()> {
        let Some(lock) = &self.lock else { return Ok(()) };
        let kept = Kept {
            url: self.url.clone(),
            lock: lock.metadata()?.ino(),
            own: Process { instance: self.instance.to_string(), secret: self.secret.clone() },
            before: self.before.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        self.folder.write(FILE, &serde_json::to_vec(&kept)?)
    }

    /// What every request carries.
    pub(super) fn fields(&self) -> HeaderMap {
        let mut fields = HeaderMap::new();
        if let Some(value) = sensitive(&self.secret).filter(|_| !self.secret.is_empty()) {
            fields.insert(SECRET, value);
        }
        fields
    }

    /// What a request carries that registers us.
    pub(super) fn replaces(&self) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for Process { instance, secret } in self.before.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some(value) = sensitive(&format!("{instance} {secret}")) {
                fields.append(REPLACES, value);
            }
        }
        fields
    }

    /// The endpoint has heard whose place we take. Gives what writes that down; nobody has to wait for it.
    pub(super) fn registered(self: &Arc<Self>) -> Option<JoinHandle<io::Result<()>>> {
        let before = std::mem::take(&mut *self.before.lock().unwrap_or_else(PoisonError::into_inner));
        let own = Arc::clone(self);
        // What is told again does no harm.
        (!before.is_empty()).then(|| tokio::task::spawn_blocking(move || own.write()))
    }
}

/// The lock of a folder; none while another process holds it.
fn hold(folder: &Folder) -> io::Result<Option<File>> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.path())?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(folder.file(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A secret of 256 bits; an empty one where there is no randomness: then it is not sent.
fn random() -> String {
    let mut bytes = [0; 32];
    match getrandom::fill(&mut bytes) {
        Ok(()) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(folder: &Folder, url: &str, name: &str) -> Arc<Identity> {
        Identity::take(folder, &url.parse().unwrap(), name.into())
    }

    /// The names of those whose place it takes.
    fn replaced(identity: &Identity) -> Vec<String> {
        let name = |value: &HeaderValue| value.to_str().unwrap().split_once(' ').unwrap().0.to_owned();
        identity.replaces().get_all(REPLACES).iter().map(name).collect()
    }

    #[tokio::test]
    async fn whoever_comes_next_takes_the_place_of_those_before() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path().join("state"));
        let url = "http://127.0.0.1:1";
        let one = take(&folder, url, "one");
        assert_eq!((replaced(&one), one.fields().len()), (vec![], 1));
        let beside = take(&folder, url, "beside");
        assert_eq!((replaced(&beside), beside.fields().len()), (vec![], 1), "one lives, so nobody takes its place");
        drop((one, beside));
        drop(take(&folder, url, "two"));
        let three = take(&folder, url, "three");
        assert_eq!(replaced(&three), ["one", "two"]);
        assert_ne!(three.replaces().get_all(REPLACES).iter().next(), None);
        three.registered().unwrap().await.unwrap().unwrap();
        assert!(replaced(&three).is_empty() && three.registered().is_none());
        drop(three);
        let four = take(&folder, url, "four");
        assert_eq!(replaced(&four), ["three"]);
        drop(four);
        assert_eq!(replaced(&take(&folder, "http://127.0.0.1:2", "five")), Vec::<String>::new(), "another endpoint");
    }

    #[test]
    fn a_copy_of_the_folder_takes_nobodys_place() {
        let root = tempfile::tempdir().unwrap();
        let (folder, copy) = (Folder::new(root.path().join("state")), Folder::new(root.path().join("copy")));
        let one = take(&folder, "http://127.0.0.1:1", "one");
        fs::create_dir(copy.path()).unwrap();
        fs::copy(folder.file(FILE), copy.file(FILE)).unwrap();
        fs::copy(folder.file(LOCK), copy.file(LOCK)).unwrap();
        assert_eq!(replaced(&take(&copy, "http://127.0.0.1:1", "two")), Vec::<String>::new());
        drop(one);
    }

    #[test]
    fn only_the_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path());
        let _one = take(&folder, "http://127.0.0.1:1", "one");
        for name in [FILE, LOCK] {
            assert_eq!(fs::metadata(folder.file(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
        }
    }
}
