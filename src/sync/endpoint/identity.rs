//! Who we are to the endpoint: a name and a secret for each process, and whose place we take.
//!
//! The secret goes with every request, so that nobody else can speak in our name. Both are kept in the state folder. A
//! process that finds those of the one before it says so when it registers, and proves it by that secret: so a sidecar that
//! crashed is not waited for. That is only true while one process at a time has the folder, so it is only said by who
//! holds the lock in it.

use std::{
    fs, io,
    sync::{Arc, Mutex, PoisonError},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::{client::Url, usage::Folder};

const FILE: &str = "instance";
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

/// Which file the lock is, on which file system, and since when the machine has run: a copy of the folder has another
/// one. The number alone comes again on other file systems; the system's, after a start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    device: u64,
    number: u64,
    boot: String,
}

/// What is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The endpoint that knows us: another one is told nothing of it.
    url: String,
    /// In a copy of the folder it is another one, and after the machine was started anew: whoever runs there took nobody's
    /// place, as far as can be told.
    mark: Mark,
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
    /// Held as long as we live.
    folder: Folder,
    before: Mutex<Vec<Process>>,
}

impl Identity {
    /// Takes the place of whoever had the folder before, and writes down who we are.
    pub(super) fn take(folder: Folder, url: &Url, instance: Arc<str>) -> Arc<Self> {
        let (secret, url) = (random(), url.to_string());
        let mut identity = Self { instance, secret, url, folder, before: Mutex::default() };
        identity.before = Mutex::new(identity.found());
        if let Err(error) = identity.write() {
            tracing::warn!(%error, "who we are cannot be written into the state folder: after a crash the control plane names us until our keys are too old");
        }
        Arc::new(identity)
    }

    /// What tells the folder from its copies; none where that cannot be said.
    fn mark(&self) -> Option<Mark> {
        let (device, number) = self.folder.mark()?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        (!boot.is_empty()).then_some(Mark { device, number, boot })
    }

    /// Who had the folder before, as far as the endpoint does not know that they have ended.
    fn found(&self) -> Vec<Process> {
        let Some(mark) = self.mark() else { return Vec::new() };
        let kept = self.folder.read(FILE).ok().flatten();
        let kept = kept.and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
        let Some(kept) = kept.filter(|kept| kept.url == self.url && kept.mark == mark) else { return Vec::new() };
        let mut before = kept.before;
        before.extend(Some(kept.own).filter(|own| !own.secret.is_empty()));
        before.drain(..before.len().saturating_sub(MOST));
        before
    }

    /// Blocks on the disk.
    fn write(&self) -> io::Result<()> {
        // What nobody could believe later is not written.
        let Some(mark) = self.mark() else { return Ok(()) };
        let kept = Kept {
            url: self.url.clone(),
            mark,
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
    use std::path::{Path, PathBuf};

    use super::*;

    const LOCK: &str = "instance.lock";

    fn take(state: &Path, url: &str, name: &str) -> Arc<Identity> {
        Identity::take(Folder::try_take(state, 0).unwrap(), &url.parse().unwrap(), name.into())
    }

    /// The names of those whose place it takes.
    fn replaced(identity: &Identity) -> Vec<String> {
        let name = |value: &HeaderValue| value.to_str().unwrap().split_once(' ').unwrap().0.to_owned();
        identity.replaces().get_all(REPLACES).iter().map(name).collect()
    }

    #[tokio::test]
    async fn whoever_comes_next_takes_the_place_of_those_before() {
        let root = tempfile::tempdir().unwrap();
        let (state, url) = (root.path().join("state"), "http://127.0.0.1:1");
        let one = take(&state, url, "one");
        assert_eq!((replaced(&one), one.fields().len()), (vec![], 1));
        drop(one);
        drop(take(&state, url, "two"));
        let three = take(&state, url, "three");
        assert_eq!(replaced(&three), ["one", "two"]);
        assert_ne!(three.replaces().get_all(REPLACES).iter().next(), None);
        three.registered().unwrap().await.unwrap().unwrap();
        assert!(replaced(&three).is_empty() && three.registered().is_none());
        drop(three);
        let four = take(&state, url, "four");
        assert_eq!(replaced(&four), ["three"]);
        drop(four);
        assert_eq!(replaced(&take(&state, "http://127.0.0.1:2", "five")), Vec::<String>::new(), "another endpoint");
    }

    #[test]
    fn a_copy_of_the_folder_takes_nobodys_place() {
        let root = tempfile::tempdir().unwrap();
        let (state, copy) = (root.path().join("state"), root.path().join("copy"));
        let one = take(&state, "http://127.0.0.1:1", "one");
        fs::create_dir(&copy).unwrap();
        for name in [FILE, LOCK] {
            fs::copy(state.join(name), copy.join(name)).unwrap();
        }
        assert_eq!(replaced(&take(&copy, "http://127.0.0.1:1", "two")), Vec::<String>::new());
        drop(one);
    }

    /// What was written where one thing of the mark was another is not believed.
    #[track_caller]
    fn check(what: &str, other: serde_json::Value, believed: bool) {
        let root = tempfile::tempdir().unwrap();
        let state: PathBuf = root.path().join("state");
        drop(take(&state, "http://127.0.0.1:1", "one"));
        let mut kept: serde_json::Value = serde_json::from_slice(&fs::read(state.join(FILE)).unwrap()).unwrap();
        assert!(!kept["mark"][what].is_null(), "{what}: {kept}");
        if !other.is_null() {
            kept["mark"][what] = other;
        }
        fs::write(state.join(FILE), kept.to_string()).unwrap();
        assert_eq!(replaced(&take(&state, "http://127.0.0.1:1", "two")).len(), usize::from(believed), "{what}");
    }

    #[test]
    fn a_folder_is_the_same_on_one_file_system_since_one_start_of_the_machine() {
        check("number", serde_json::Value::Null, true);
        check("number", 1.into(), false);
        check("device", 0.into(), false);
        check("boot", "6f1c2d0a-0000-4000-8000-000000000000".into(), false);
    }

    #[test]
    fn only_the_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        let _one = take(root.path(), "http://127.0.0.1:1", "one");
        for name in [FILE, LOCK] {
            let mode = fs::metadata(root.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
}
