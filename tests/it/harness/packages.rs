//! Clients that others wrote, from the indexes of Python and Node packages: those that `tests/run` has installed, else
//! installed here, once for all tests. However long an index takes, no test is failed for it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// A Python that has what `tests/requirements.txt` lists: the one that `KEYSIDE_TEST_PYTHON` names, else one of our own.
pub(crate) async fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    found_or_made(&PYTHON, "KEYSIDE_TEST_PYTHON", install_python).await
}

/// A folder from which Node finds what `tests/package-lock.json` lists: the one that `KEYSIDE_TEST_NODE` names, else one
/// of our own.
pub(crate) async fn node() -> &'static Path {
    static NODE: OnceLock<PathBuf> = OnceLock::new();
    found_or_made(&NODE, "KEYSIDE_TEST_NODE", install_node).await
}

/// Node, to run a script. On most machines `localhost` is an IPv6 address first; Node before version 20 tries no other
/// one, and the sidecars of tests listen on IPv4.
pub(crate) fn node_program() -> Command {
    let mut node = Command::new("node");
    node.arg("--dns-result-order=ipv4first");
    node
}

async fn found_or_made(kept: &'static OnceLock<PathBuf>, variable: &str, make: fn() -> PathBuf) -> &'static Path {
    let named: Option<OsString> = std::env::var_os(variable);
    tokio::task::spawn_blocking(move || kept.get_or_init(|| named.map_or_else(make, PathBuf::from))).await.unwrap()
}

/// A file beside the tests.
fn list(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// Whether what this list names was installed into this folder before.
fn is_installed(folder: &Path, list: &Path) -> bool {
    let marked = std::fs::read(folder.join("installed"));
    marked.is_ok_and(|text| text == std::fs::read(list).unwrap())
}

/// Remembers what was installed. To be called last, so that what broke off half-way is begun anew.
fn mark(folder: &Path, list: &Path) {
    std::fs::copy(list, folder.join("installed")).unwrap();
}

fn done(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

fn install_python() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let (python, list) = (folder.join("bin/python"), list("requirements.txt"));
    if !is_installed(&folder, &list) {
        done(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]);
        done(pip.args(["--require-hashes", "--requirement"]).arg(&list));
        mark(&folder, &list);
    }
    python
}

fn install_node() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("node");
    let locked = list("package-lock.json");
    if !is_installed(&folder, &locked) {
        std::fs::create_dir_all(&folder).unwrap();
        for file in [list("package.json"), locked.clone()] {
            std::fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
        }
        // Scripts of packages are not run: nobody has read them.
        let mut npm = Command::new("npm");
        done(npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]).current_dir(&folder));
        mark(&folder, &locked);
    }
    folder
}
