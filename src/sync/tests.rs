use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use super::{
    file::{Event, FileSource, Handle, Reloaded, Settings, watch},
    keyfile::Locked,
    state::{StateFolder, digest_of},
    watch::Watch,
};
use crate::{
    keys::{KeyStore, store::Terms},
    usage::Folder,
};

const HASH: &str = "$sha256$ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
/// Nothing takes this long; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A text with these keys; `id!` is revoked.
fn keys(ids: &str, end: bool) -> String {
    let mut text = String::new();
    for id in ids.split_whitespace() {
        let (id, revoked) = match id.strip_suffix('!') {
            Some(id) => (id, "revoked_at = 2026-01-01T00:00:00Z\n"),
            None => (id, ""),
        };
        text.push_str(&format!(
            "[[key]]\nid = \"{id}\"\nkind = \"pair\"\nprefix = \"ck_{id}\"\nhash = \"{HASH}\"\nowner = \"o\"\nscopes = [\"read\"]\n{revoked}\n"
        ));
    }
    if end {
        text.push_str(&format!("[end]\nowners = 0\nkeys = {}\n", ids.split_whitespace().count()));
    }
    text
}

/// A sidecar's source of keys on a folder of its own, and what it said.
struct Bench {
    folder: PathBuf,
    file: PathBuf,
    said: Receiver<String>,
    store: std::sync::Arc<KeyStore>,
    handle: Handle,
}

fn summary(event: &Event<'_>) -> String {
    match event {
        Event::Applied { from_state: true, .. } => "applied from state".to_owned(),
        Event::Applied { .. } => "applied".to_owned(),
        Event::Refused(refused) => format!("refused: {}", refused.why.label()),
        Event::Recovered => "recovered".to_owned(),
        Event::Unreadable(error) => format!("unreadable: {:?}", error.kind()),
        Event::State { usable } => format!("state usable: {usable}"),
    }
}

impl Bench {
    fn start(folder: &Path, file: &str) -> Self {
        let (say, said) = mpsc::channel();
        let settings = Settings {
            file: folder.join(file),
            state: Some(Folder::new(folder.join("state"))),
            terms: Terms::default(),
        };
        let file = settings.file.clone();
        let report = Box::new(move |event: &Event<'_>| say.send(summary(event)).unwrap_or_default());
        let mut source = FileSource::new(settings, report, Box::new(|_| {}));
        source.load();
        let store = std::sync::Arc::clone(source.store());
        let handle = watch(source).unwrap();
        Self { folder: folder.to_path_buf(), file, said, store, handle }
    }

    #[track_caller]
    fn hears(&self, expected: &str) {
        assert_eq!(self.said.recv_timeout(PATIENCE).as_deref(), Ok(expected));
    }

    /// In the end these are accepted. A writer that the machine holds up in the middle may be refused before.
    #[track_caller]
    fn gets_to(&self, accepted: &str) {
        while self.said.recv_timeout(PATIENCE).unwrap() != "applied" {}
        assert_eq!(self.accepted(), accepted);
    }

    /// The ids that are accepted.
    fn accepted(&self) -> String {
        let set = self.store.load();
        let mut ids: Vec<_> = set
            .iter()
            .flat_map(|set| set.keys())
            .filter(|key| key.revoked_at.is_none() && !key.is_dead())
            .map(|key| key.id.to_string())
            .collect();
        ids.sort();
        ids.join(" ")
    }

    fn reload(&self) -> Result<Reloaded, String> {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(self.handle.reload(None))
    }

    #[track_caller]
    fn check(&self, said: &str, accepted: &str) {
        self.hears(said);
        assert_eq!(self.accepted(), accepted);
    }
}

/// A folder whose key file holds these keys.
fn folder(ids: &str, end: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("keys.toml"), keys(ids, end)).unwrap();
    folder
}

#[test]
fn a_command_takes_effect() {
    let folder = folder("a", true);
    let bench = Bench::start(folder.path(), "keys.toml");
    bench.check("applied", "a");
    Locked::open(&bench.file, PATIENCE).unwrap().write(keys("a b", true).as_bytes()).unwrap();
    bench.check("applied", "a b");
    assert_eq!(bench.handle.status().revision, 2);
}

#[test]
fn a_write_in_place_takes_effect() {
    for end in [true, false] {
        let folder = folder("a", end);
        let bench = Bench::start(folder.path(), "keys.toml");
        bench.check("applied", "a");
        fs::write(&bench.file, keys("a b", end)).unwrap();
        bench.gets_to("a b");
        // Of the same length and within the same tick of the file system's clock.
        fs::write(&bench.file, keys("a c", end)).unwrap();
        bench.gets_to("a c");
    }
}

/// A log beside the key file, say: a line a request must not be a look at the file a request.
#[test]
fn what_happens_beside_the_file_wakes_nobody() {
    let folder = folder("a", true);
    let file = folder.path().join("keys.toml");
    let (say, woken) = mpsc::channel();
    let mut watch = Watch::new(move || say.send(()).unwrap_or_default());
    watch.aim(&file);
    for number in 0..100 {
        fs::write(folder.path().join(format!("{number}.log")), "line").unwrap();
    }
    fs::write(&file, keys("a b", true)).unwrap();
    woken.recv_timeout(PATIENCE).unwrap();
    // Writing the file itself is a handful of events.
    let more = std::iter::from_fn(|| woken.recv_timeout(Duration::from_millis(200)).ok()).take(20).count();
    assert!(more < 20, "woken for the files beside");
}

/// Every link on the way may be the one that is swapped, also that of a folder.
#[test]
fn each_link_on_the_way_is_watched() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("real/one")).unwrap();
    fs::create_dir_all(at("real/two")).unwrap();
    symlink("real/../real/one", at("current")).unwrap();
    let file = at("current/keys.toml");
    fs::write(&file, "").unwrap();
    let (say, woken) = mpsc::channel();
    let mut watch = Watch::new(move || say.send(()).unwrap_or_default());
    watch.aim(&file);
    symlink("real/two", at("next")).unwrap();
    fs::rename(at("next"), at("current")).unwrap();
    woken.recv_timeout(PATIENCE).unwrap();
    watch.aim(&file);
    while woken.try_recv().is_ok() {}
    fs::write(at("real/two/keys.toml"), "").unwrap();
    woken.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_swapped_symlink_takes_effect() {
    let folder = tempfile::tempdir().unwrap();
    let version = |name: &str, ids: &str| {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("keys.toml"), keys(ids, true)).unwrap();
        // As the kubelet does it: a new link beside, renamed over the old one.
        symlink(name, folder.path().join("..data_tmp")).unwrap();
        fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
    };
    version("..2026_1", "a");
    symlink("..data/keys.toml", folder.path().join("keys.toml")).unwrap();
    let bench = Bench::start(folder.path(), "keys.toml");
    bench.check("applied", "a");
    version("..2026_2", "a b");
    fs::remove_dir_all(folder.path().join("..2026_1")).unwrap();
    bench.check("applied", "a b");
    version("..2026_3", "c");
    bench.check("applied", "c");
}

#[test]
fn a_file_that_is_not_there_yet_is_picked_up_with_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::start(folder.path(), "later/keys.toml");
    bench.check("unreadable: NotFound", "");
    assert!(bench.store.load().is_none(), "no set is not an empty set");
    fs::create_dir(bench.folder.join("later")).unwrap();
    fs::write(&bench.file, keys("a", true)).unwrap();
    bench.check("applied", "a");
    // A folder made anew has another inode.
    fs::remove_dir_all(bench.folder.join("later")).unwrap();
    bench.check("unreadable: NotFound", "a");
    fs::create_dir(bench.folder.join("later")).unwrap();
    fs::write(&bench.file, keys("a b", true)).unwrap();
    bench.check("applied", "a b");
}

#[test]
fn a_half_written_file_changes_nothing_until_it_is_whole() {
    use std::io::Write as _;
    let folder = folder("a b", true);
    let bench = Bench::start(folder.path(), "keys.toml");
    bench.check("applied", "a b");
    let text = keys("a b c", true);
    let (half, rest) = text.split_at(text.find("[end]").unwrap());
    // The half appears at once: a writer held up between truncating and writing would be a second torn text.
    fs::write(bench.folder.join("half"), half).unwrap();
    fs::rename(bench.folder.join("half"), &bench.file).unwrap();
    bench.check("refused: torn", "a b");
    assert!(bench.handle.status().fault.unwrap().contains("[end] is missing"));
    fs::OpenOptions::new().append(true).open(&bench.file).unwrap().write_all(rest.as_bytes()).unwrap();
    bench.check("applied", "a b c");
    assert_eq!(bench.handle.status().fault, None);
}

#[test]
fn back_to_what_is_in_force_is_good_again() {
    let folder = folder("a", true);
    let bench = Bench::start(folder.path(), "keys.toml");
    bench.check("applied", "a");
    fs::write(&bench.file, "nonsense").unwrap();
    bench.check("refused: not_toml", "a");
    fs::write(&bench.file, keys("a", true)).unwrap();
    assert_eq!(bench.reload(), Ok(Reloaded::Unchanged));
    assert_eq!(bench.handle.status().fault, None);
}

#[test]
fn a_set_that_shrank_waits_to_be_forced() {
    let folder = folder("a b c", false);
    let bench = Bench::start(folder.path(), "keys.toml");
    bench.check("applied", "a b c");
    fs::write(&bench.file, keys("a", false)).unwrap();
    bench.check("refused: shrunk", "a b c");
    assert_eq!(bench.reload(), Ok(Reloaded::Applied));
    bench.check("applied", "a");
    fs::write(&bench.file, "[[").unwrap();
    assert!(bench.reload().unwrap_err().contains("not TOML"));
}

#[test]
fn a_restart_with_a_torn_file_serves_the_last_good_set() {
    let folder = folder("a b", true);
    let bench = Bench::start(folder.path(), "keys.toml");
    bench.check("applied", "a b");
    bench.reload().unwrap();
    drop(bench);
    fs::write(folder.path().join("keys.toml"), keys("a", false)).unwrap();
    let bench = Bench::start(folder.path(), "keys.toml");
    bench.hears("refused: torn");
    bench.check("applied from state", "a b");
    fs::write(&bench.file, keys("b", true)).unwrap();
    bench.check("applied", "b");
}

#[test]
fn a_revoked_key_stays_so_across_files_and_restarts() {
    let folder = folder("a b!", true);
    let bench = Bench::start(folder.path(), "keys.toml");
    bench.check("applied", "a");
    fs::write(&bench.file, keys("a b", true)).unwrap();
    bench.check("applied", "a");
    bench.reload().unwrap();
    drop(bench);
    fs::remove_file(folder.path().join("state/last-good-keys.toml")).unwrap();
    let bench = Bench::start(folder.path(), "keys.toml");
    bench.check("applied", "a");
}

#[test]
fn a_bad_entry_stops_its_key_alone() {
    let folder = folder("a b", true);
    let bench = Bench::start(folder.path(), "keys.toml");
    bench.check("applied", "a b");
    fs::write(&bench.file, keys("a b", true).replacen("scopes = [\"read\"]", "allow_ips = 1", 1)).unwrap();
    bench.check("applied", "b");
    assert_eq!(bench.handle.status().quarantined, 1);
}

#[test]
fn what_is_in_force_is_said_in_the_state_folder() {
    let folder = folder("a", true);
    let bench = Bench::start(folder.path(), "keys.toml");
    bench.check("applied", "a");
    let state = StateFolder::new(folder.path().join("state"));
    let in_force = state.in_force().unwrap().unwrap();
    assert_eq!((in_force.digest, in_force.revision), (digest_of(keys("a", true).as_bytes()), 1));
    assert_eq!(fs::metadata(folder.path().join("state/applied")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_state_folder_that_cannot_be_made_is_one_alarm() {
    let folder = folder("a", true);
    // Also true for root, whom a read-only folder would not stop.
    fs::write(folder.path().join("state"), "in the way").unwrap();
    let bench = Bench::start(folder.path(), "keys.toml");
    let mut said = vec![bench.said.recv_timeout(PATIENCE).unwrap()];
    said.push(bench.said.recv_timeout(PATIENCE).unwrap());
    said.sort();
    assert_eq!(said, ["applied", "state usable: false"]);
    fs::write(&bench.file, keys("a b", true)).unwrap();
    bench.check("applied", "a b");
    fs::remove_file(folder.path().join("state")).unwrap();
    fs::write(&bench.file, keys("a b c", true)).unwrap();
    // What could not be saved before is tried again at any time.
    let mut said = vec![bench.said.recv_timeout(PATIENCE).unwrap()];
    said.push(bench.said.recv_timeout(PATIENCE).unwrap());
    said.sort();
    assert_eq!(said, ["applied", "state usable: true"]);
}
