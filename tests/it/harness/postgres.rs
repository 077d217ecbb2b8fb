//! PostgreSQL: a server of its own, on a socket alone, in a folder that goes with it.
//!
//! Tests beside the code use this file, too. A test that is not about the server's own bad days takes a database of the
//! one server that all tests of a process [share](Server::shared).

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, getuid, kill_process};

/// Who runs the server when the tests are root's: it refuses to run as root. `nobody` and `nogroup` on Debian.
const NOBODY: u32 = 65_534;

/// Longer than anything here takes on a machine that does ten other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a server for as long as standard input stays open; then the server goes, in however bad order this process
/// ended, and the folder with it.
const GUARD: &str = r#"
trap '' INT TERM HUP
folder=$1
shift
"$@" < /dev/null &
cat > /dev/null
kill -QUIT $!
wait
rm -rf -- "$folder"
"#;

/// A server.
pub(crate) struct Server {
    folder: PathBuf,
    settings: Vec<String>,
    /// Names the socket, too.
    port: u16,
    running: Mutex<Option<Running>>,
}

struct Running {
    guard: Child,
    /// Says once when it is ready; ends when the last of its processes has gone.
    said: Receiver<()>,
}

impl Server {
    /// The server of all tests of this process. It does not sync: what is on its disk is not what is tested.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: LazyLock<Server> = LazyLock::new(|| Server::new(&["fsync=off", "max_connections=300"]));
        &SHARED
    }

    /// A server for one test, with these settings.
    pub(crate) fn new(settings: &[&str]) -> Self {
        let server = Self::laid_out(settings);
        server.start();
        server
    }

    /// A server that also listens on 127.0.0.1, and shows this certificate there. Its port is what `port` says.
    pub(crate) fn over_tls(certificate: &str, private_key: &str) -> Self {
        let mut server = Self::laid_out(&["fsync=off", "ssl=on", "listen_addresses=127.0.0.1"]);
        for (name, pem) in [("server.crt", certificate), ("server.key", private_key)] {
            let path = server.folder.join("data").join(name);
            fs::write(&path, pem).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            if getuid().is_root() {
                chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        // One that was free a moment ago: the server cannot be told to choose.
        server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        server.settings.push(format!("port={}", server.port));
        server.start();
        server
    }

    fn laid_out(settings: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("keyside-postgres-").tempdir().unwrap().keep();
        if getuid().is_root() {
            chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut initdb = command(&programs().join("initdb"));
        initdb.args(["--username=keyside", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]);
        let done = initdb.arg("--pgdata").arg(folder.join("data")).output().expect("initdb runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self { folder, settings, port: 5432, running: Mutex::default() }
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its folder, which its user may use.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts it, and waits until it takes connections.
    pub(crate) fn start(&self) {
        let mut guard = command(Path::new("/bin/sh"));
        guard.args(["-c", GUARD, "guard"]).arg(&self.folder).arg(programs().join("postgres"));
        guard.arg("-D").arg(self.folder.join("data")).arg("-k").arg(&self.folder);
        let fixed =
            ["shared_buffers=16MB", "dynamic_shared_memory_type=mmap", "wal_level=minimal", "max_wal_senders=0"];
        for setting in ["listen_addresses="].iter().chain(&fixed) {
            guard.args(["-c", setting]);
        }
        for setting in &self.settings {
            guard.args(["-c", setting]);
        }
        // What is typed at the terminal of the tests is not for the guard: it must outlive them.
        guard.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut guard = guard.spawn().expect("a shell");
        let (say, said) = channel();
        let log = BufReader::new(guard.stderr.take().unwrap());
        thread::spawn(move || {
            let mut lines = Vec::new();
            for line in log.lines().map_while(Result::ok) {
                if line.contains("database system is ready to accept connections") {
                    let _ = say.send(());
                }
                lines.push(line);
            }
        });
        said.recv_timeout(PATIENCE).expect("PostgreSQL starts");
        *self.running.lock().unwrap() = Some(Running { guard, said });
    }

    /// Stops it as a power cut would.
    pub(crate) fn stop(&self) {
        let mut running = self.running.lock().unwrap().take().expect("it runs");
        let pid = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        let pid = Pid::from_raw(pid.lines().next().unwrap().parse().unwrap()).unwrap();
        // First the guard: it would take the folder away. What it waits for goes with the pipe.
        running.guard.kill().unwrap();
        drop(running.guard.stdin.take());
        kill_process(pid, Signal::QUIT).unwrap();
        let gone = running.said.recv_timeout(PATIENCE);
        assert_eq!(gone, Err(std::sync::mpsc::RecvTimeoutError::Disconnected), "PostgreSQL stops");
        running.guard.wait().unwrap();
    }

    /// From now on nobody connects without this password.
    pub(crate) fn demand_password(&self, password: &str) {
        self.sql("postgres", &format!("ALTER ROLE keyside PASSWORD '{}'", password.replace('\'', "''")));
        fs::write(self.folder.join("data/pg_hba.conf"), "local all all scram-sha-256\n").unwrap();
        self.sql("postgres", "SELECT pg_reload_conf()");
    }

    /// A new database, by its name.
    pub(crate) fn database(&self) -> String {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// Where a database is found.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://keyside@localhost:{}/{database}?host={}", self.port, self.folder.display())
    }

    /// Runs statements by `psql`: what it prints, a line for each row.
    #[track_caller]
    pub(crate) fn sql(&self, database: &str, statements: &str) -> String {
        let mut psql = command(&programs().join("psql"));
        psql.arg("--host").arg(&self.folder).arg(format!("--port={}", self.port));
        psql.args(["--username=keyside", "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1"]);
        let done = psql.args(["-At", "--dbname", database, "--command", statements]).output().expect("psql runs");
        assert!(done.status.success(), "{statements}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim_end().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            drop(running.guard.stdin.take());
            // It has nothing to say but that it has gone.
            let _ = running.guard.wait();
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A command with an environment that holds nothing of the machine's but the path, and as somebody else than root.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).current_dir("/");
    if getuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Where the programs of the newest PostgreSQL are; without one the test fails.
fn programs() -> &'static Path {
    static FOUND: LazyLock<PathBuf> = LazyLock::new(|| {
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut folders: Vec<_> = versions
            .filter_map(|version| {
                Some((version.file_name().to_str()?.parse::<u32>().ok()?, version.path().join("bin")))
            })
            .filter(|(_, folder)| folder.join("initdb").is_file())
            .collect();
        folders.sort();
        let in_path = || env::split_paths(&env::var_os("PATH")?).find(|folder| folder.join("initdb").is_file());
        let found = folders.pop().map(|(_, folder)| folder).or_else(in_path);
        found.expect("these tests need PostgreSQL, which tests/run installs")
    });
    &FOUND
}
