//! Disks that are full, read-only or not ours to write: under the state folder, and under the key file.
//!
//! A full disk is a small tmpfs where the tests may mount one, and, everywhere, a limit on the size of files, which
//! fails the same writes (EFBIG in place of ENOSPC). A read-only one is that tmpfs mounted once more over itself, and,
//! everywhere, folders without permission to write, for a process that may not pass over permissions.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use tempfile::TempDir;

use super::{UNLIMITED, shell};
use crate::harness::{
    Builder, Control, Ended, Key, Sidecar, Upstream, eventually, executable_through, get, key_file, keyside, run,
};

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Full,
    ReadOnly,
    NoLongerFiles,
    NoPermission,
}
use Trouble::{Full, NoLongerFiles, NoPermission, ReadOnly};

/// A folder on a disk with troubles.
struct Disk {
    path: PathBuf,
    trouble: Trouble,
}

impl Disk {
    /// A folder that will have this trouble; none where that takes a mount and the tests may not mount.
    fn new(path: PathBuf, trouble: Trouble) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let mounts = matches!(trouble, Full | ReadOnly);
        if mounts && !mount(&["-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"], &path) {
            return None;
        }
        Some(Self { path, trouble })
    }

    /// All troubles that can be made here: at least those that need no mount.
    fn all(within: &Path) -> Vec<Self> {
        let disk = |trouble| Self::new(within.join(format!("{trouble:?}")), trouble);
        [Full, ReadOnly, NoLongerFiles, NoPermission].into_iter().filter_map(disk).collect()
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    /// The trouble begins, for this process.
    fn fails(&self, id: Option<u32>) {
        match self.trouble {
            Full => {
                let mut room = vec![0; 1 << 20];
                while !room.is_empty() {
                    let mut file = fs::OpenOptions::new().append(true).create(true).open(self.filler()).unwrap();
                    if std::io::Write::write_all(&mut file, &room).is_err() {
                        room.truncate(room.len() / 2);
                    }
                }
            }
            // Not remounted: a process has a file of it open.
            ReadOnly => {
                assert!(mount(&["--bind", self.path.to_str().unwrap()], &self.path));
                assert!(mount(&["-o", "remount,bind,ro"], &self.path));
            }
            NoLongerFiles => limit_files(id, Some(0)),
            NoPermission => self.permit(0o500),
        }
    }

    /// The trouble is over.
    fn recovers(&self, id: Option<u32>) {
        match self.trouble {
            Full => fs::remove_file(self.filler()).unwrap(),
            ReadOnly => assert!(Command::new("umount").arg(&self.path).status().unwrap().success()),
            NoLongerFiles => limit_files(id, None),
            NoPermission => self.permit(0o700),
        }
    }

    fn permit(&self, mode: u32) {
        for folder in [self.path.clone(), self.path.join("state")].iter().filter(|folder| folder.is_dir()) {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The one over it, too, where a test failed in between.
        for _ in 0..if matches!(self.trouble, Full | ReadOnly) { 2 } else { 0 } {
            let _ = Command::new("umount").args(["--quiet", "--lazy"]).arg(&self.path).output();
        }
    }
}

fn mount(words: &[&str], path: &Path) -> bool {
    let output = Command::new("mount").args(words).arg(path).output();
    output.is_ok_and(|output| output.status.success())
}

/// How large files of this process may be; as large as they were allowed to be before.
fn limit_files(id: Option<u32>, most: Option<u64>) {
    let Some(id) = id else { return };
    let maximum = rustix::process::getrlimit(Resource::Fsize).maximum;
    let id = Pid::from_raw(i32::try_from(id).unwrap());
    prlimit(id, Resource::Fsize, Rlimit { current: most.or(maximum), maximum }).unwrap();
}

/// A process that may not pass over permissions, even as root.
fn mortal() -> Vec<String> {
    let words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"];
    if rustix::process::geteuid().is_root() { words.map(str::to_owned).to_vec() } else { Vec::new() }
}

/// Serving goes on, a revocation is in force at once, and what could not be written is when it can be.
#[tokio::test]
async fn a_state_folder_in_trouble_costs_no_request_and_no_revocation() {
    let root = TempDir::with_prefix("keyside-it-").unwrap();
    let disks = Disk::all(root.path());
    assert!(disks.iter().any(|disk| disk.trouble == NoLongerFiles) && disks.len() >= 2);
    for disk in &disks {
        let trouble = disk.trouble;
        let (good, doomed) = (Key::token("good"), Key::token("doomed"));
        let older = key_file([&good, &doomed]);
        let upstream = Upstream::start().await;
        let state = format!("{UNLIMITED}\n[keys]\nstate = {:?}", disk.path.join("state"));
        let builder = Sidecar::in_front_of(&upstream).config(&state).key_file(&older).through(mortal());
        let sidecar = builder.start().await;
        for key in [&good, &doomed] {
            assert_eq!(sidecar.ask(get("/").key(key)).await.status, 200, "{trouble:?}");
        }
        eventually("the state folder", async || fs::metadata(disk.path.join("state/last-used.ndjson"))).await;
        sidecar.counts("keyside_state_usable", &[], 1).await;
        disk.fails(Some(sidecar.id()));
        for _ in 0..3 {
            assert_eq!(sidecar.ask(get("/").key(&good)).await.status, 200, "{trouble:?}");
        }
        // The key file itself is on another disk.
        let file = sidecar.path("keys.toml");
        keyside(["keys", "revoke", "key_doomed", "--file", file.to_str().unwrap()]).await.done();
        eventually("the revocation", async || {
            let status = sidecar.ask(get("/").key(&doomed)).await.status;
            if status == 401 { Ok(()) } else { Err(format!("{trouble:?}: {status}")) }
        })
        .await;
        sidecar.counts("keyside_state_usable", &[], 0).await;
        eventually("a word on the state folder", async || {
            let shown = sidecar.admin("GET", "/readyz?verbose").await.text();
            if shown.contains("[!]state folder cannot be written") { Ok(()) } else { Err(shown) }
        })
        .await;
        sidecar.log.find("the alarm", |line| (line.contains("ERROR") && line.contains("state")).then_some(())).await;
        // Nobody is told that it is safe.
        let config = sidecar.path("keyside.toml");
        let wait = ["keys", "revoke", "key_doomed", "--wait", "--timeout", "1s", "--config", config.to_str().unwrap()];
        let told = keyside(wait).await;
        assert_eq!(told.status, 1, "{trouble:?}: {}{}", told.stdout, told.stderr);
        assert!(told.stderr.contains("cannot write into the state folder"), "{}", told.stderr);
        assert_eq!(sidecar.ask(get("/").key(&good)).await.status, 200, "{trouble:?}");
        assert_eq!(sidecar.admin("GET", "/readyz").await.status, 200, "{trouble:?}");

        disk.recovers(Some(sidecar.id()));
        assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 200, "{trouble:?}");
        sidecar.log.find("that it is well again", |line| line.contains("can be used again").then_some(())).await;
        assert_eq!(sidecar.ask(get("/").key(&good)).await.status, 200, "{trouble:?}");
        sidecar.counts("keyside_state_usable", &[], 1).await;
        keyside(wait).await.done();
        // Now it is safe: a crash and an older key file do not bring the key back.
        sidecar.replace("keys.toml", &older);
        let sidecar = sidecar.crash_and_restart().await;
        assert_eq!(sidecar.ask(get("/").key(&doomed)).await.status, 401, "{trouble:?}");
        assert_eq!(sidecar.ask(get("/").key(&good)).await.status, 200, "{trouble:?}");
        sidecar.signal(Signal::TERM);
        sidecar.ended().await;
    }
}

/// Somebody has started it as another user, once: what is there is not lost only because we may not look at it, and
/// whoever has it may be running.
#[tokio::test]
async fn a_folder_of_another_user_is_left_alone() {
    let (good, doomed) = (Key::token("good"), Key::token("doomed"));
    let older = key_file([&good, &doomed]);
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    let first = Sidecar::in_front_of(&upstream).config(UNLIMITED).key_file(&older).start().await;
    let (state, config) = (first.path("state"), first.path("keyside.toml"));
    keyside(["keys", "revoke", "key_doomed", "--wait", "--config", config.to_str().unwrap()]).await.done();
    assert_eq!(first.ask(get("/").key(&good)).await.status, 200);
    eventually("the last use", async || fs::metadata(state.join("last-used.ndjson"))).await;
    let permit = |file: &str, mode| fs::set_permissions(state.join(file), fs::Permissions::from_mode(mode)).unwrap();
    let second = || {
        let builder = Sidecar::in_front_of(&upstream).through(mortal()).config(UNLIMITED);
        builder.config(&format!("[keys]\nstate = {state:?}"))
    };
    // But for what is just being written.
    let before: Vec<_> = names(&state).into_iter().filter(|name| !name.starts_with('.')).collect();
    let check = async |file: &str, builder: Builder| {
        let ended = builder.try_start().await.err().expect("it has no folder");
        assert_eq!(ended.status, 78, "{}", ended.stderr);
        let told = format!("{} belongs to user ", state.join(file).display());
        assert!(ended.stderr.contains(&told) && ended.stderr.contains("chown"), "{}", ended.stderr);
        // The first one goes on writing; nothing of it is gone or set aside.
        let now = names(&state);
        assert!(
            before.iter().all(|name| now.contains(name)) && !now.iter().any(|name| name.contains("corrupt")),
            "{now:?}"
        );
    };
    permit("instance.lock", 0);
    check("instance.lock", second().key_file(&older)).await;
    check("instance.lock", second().keys_of(&control)).await;
    // The first one still has its folder.
    keyside(["keys", "revoke", "key_doomed", "--wait", "--config", config.to_str().unwrap()]).await.done();
    first.signal(Signal::TERM);
    first.ended().await;
    permit("instance.lock", 0o600);
    permit("revoked.ndjson", 0);
    check("revoked.ndjson", second().key_file(&older)).await;
    permit("revoked.ndjson", 0o600);
    let second = second().key_file(&older).start().await;
    assert_eq!(second.ask(get("/").key(&good)).await.status, 200);
    assert_eq!(second.ask(get("/").key(&doomed)).await.status, 401);
}

/// Nobody who waits is told that a revocation is kept where there is no folder any more.
#[tokio::test]
async fn a_state_folder_that_is_removed_keeps_nothing() {
    let key = Key::token("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).config(UNLIMITED).keys([&key]).start().await;
    fs::remove_dir_all(sidecar.path("state")).unwrap();
    let config = sidecar.path("keyside.toml");
    let wait = ["keys", "revoke", "key_key", "--wait", "--timeout", "1s", "--config", config.to_str().unwrap()];
    let told = keyside(wait).await;
    assert_eq!(told.status, 1, "{}{}", told.stdout, told.stderr);
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 401);
    sidecar.counts("keyside_state_usable", &[], 0).await;
    sidecar.log.find("why", |line| line.contains("removed or replaced").then_some(())).await;
    assert!(!sidecar.path("state").exists());
    let sidecar = sidecar.crash_and_restart().await;
    keyside(wait).await.done();
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 401);
}

/// A revocation that is in force and could not be written down: whoever waits is told both.
#[tokio::test]
async fn an_acknowledgement_says_whether_it_lasts() {
    let (key, other) = (Key::token("key"), Key::token("other"));
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).config(UNLIMITED).keys([&key, &other]).start().await;
    // A folder stands where the file of revocations should be.
    let journal = sidecar.path("state/revoked.ndjson");
    fs::create_dir_all(journal.join("in the way")).unwrap();
    let config = sidecar.path("keyside.toml");
    let revoke = |key: &'static str| {
        ["keys", "revoke", key, "--wait", "--output", "json", "--config"]
            .map(PathBuf::from)
            .into_iter()
            .chain([config.clone()])
    };
    let said = keyside(revoke("key_key")).await.done();
    assert_eq!((&said.json()["in_force"], &said.json()["durable"]), (&true.into(), &false.into()), "{said:?}");
    assert!(said.stderr.contains("could not write down which keys are revoked"), "{}", said.stderr);
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 401);
    fs::remove_dir_all(&journal).unwrap();
    assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 200);
    let said = keyside(revoke("key_key")).await.done();
    assert_eq!((&said.json()["in_force"], &said.json()["durable"]), (&true.into(), &true.into()), "{said:?}");
}

/// Runs a command; with `limit`, it may write to no file at all, and gets an error where it tries, and no signal.
async fn command(words: &[&str], file: &Path, limit: bool) -> Ended {
    let mut through = mortal();
    through.extend(if limit { shell("trap '' XFSZ; ulimit -S -f 0").to_vec() } else { Vec::new() });
    let mut command = executable_through(&through);
    command.args(words).arg("--file").arg(file);
    run(command, "").await
}

/// Each command says clearly that it failed, shows no secret of a key that there is not, and leaves the file as it was.
#[tokio::test]
async fn a_command_without_a_disk_changes_nothing_and_says_so() {
    const CREATE: [&str; 8] = ["keys", "create", "--name", "one", "--owner", "acme", "--scope", "read"];
    let rows: [&[&str]; 6] = [
        &["keys", "create", "--name", "another", "--owner", "acme", "--scope", "read", "--output", "json"],
        &["keys", "rotate", "one", "--output", "json"],
        &["keys", "revoke", "one"],
        &["keys", "delete", "one", "--yes"],
        &["owners", "create", "--id", "shop"],
        &["keys", "set", "one", "--scope", "write"],
    ];
    let root = TempDir::with_prefix("keyside-it-").unwrap();
    for disk in Disk::all(root.path()) {
        let trouble = disk.trouble;
        let limit = trouble == NoLongerFiles;
        let file = disk.path.join("keys.toml");
        for words in rows {
            let row = format!("{trouble:?}: {words:?}");
            let _ = fs::remove_file(&file);
            command(&CREATE, &file, false).await.done();
            let (before, left) = (fs::read(&file).unwrap(), names(&disk.path));
            disk.fails(None);
            let ended = command(words, &file, limit).await;
            assert_eq!((ended.status, ended.stdout.as_str()), (1, ""), "{row}: {}", ended.stderr);
            assert!(ended.stderr.contains("keys.toml") && ended.stderr.contains("cannot"), "{row}: {}", ended.stderr);
            assert!(fs::read(&file).unwrap() == before, "{row}: the file has changed");
            let mut now = names(&disk.path);
            now.retain(|name| name != "filler");
            assert_eq!(now, left, "{row}");
            disk.recovers(None);
            command(words, &file, false).await.done();
            assert!(fs::read(&file).unwrap() != before, "{row}: nothing has changed");
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
