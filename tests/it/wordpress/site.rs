//! WordPress itself: Debian's, on PHP's own server with several workers, with a MariaDB of its own on a socket.

use std::{
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, getuid, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    sync::{Mutex, MutexGuard, OnceCell},
};

use super::deploy;
use crate::harness::{Connection, H1, Lines, Received, Request, eventually, run, within};

/// Where the server's files are in this repository.
const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/wordpress");

/// The WordPress of all tests here.
pub(super) struct Site {
    database: Server,
    php: Server,
    address: SocketAddr,
    /// What `install.php` prints.
    installed: Value,
    folder: TempDir,
}

/// The site, and the right to be the only one that uses it.
pub(super) struct Alone {
    site: &'static Site,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Alone {
    type Target = Site;

    fn deref(&self) -> &Site {
        self.site
    }
}

/// Waits for its turn with the one WordPress; the first builds it. It goes when this process ends, in whatever way.
pub(super) async fn wordpress() -> Alone {
    static TURN: Mutex<()> = Mutex::const_new(());
    static SITE: OnceCell<Site> = OnceCell::const_new();
    let turn = TURN.lock().await;
    Alone { site: SITE.get_or_init(Site::build).await, _turn: turn }
}

/// A server that dies with this value or with this process, by a guard that holds the other end of a pipe.
struct Server {
    guard: Child,
    output: Lines,
}

impl Server {
    fn start(folder: &Path, command: &Command) -> Self {
        let mut guard = self::command("bash");
        // Of both outputs one is enough, and where it says what is wrong is not the same for all.
        let both = r#"exec bash "$@" 2>&1"#;
        guard.args(["-c", both, "guard"]).arg(format!("{HERE}/guard.sh")).arg(folder);
        guard.arg(command.get_program()).args(command.get_args());
        guard.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        guard.stdin(Stdio::piped()).stdout(Stdio::piped());
        // What is typed at the terminal of the tests is not for the guard: it must outlive them.
        std::os::unix::process::CommandExt::process_group(&mut guard, 0);
        let mut guard = guard.spawn().expect("bash");
        let output = Lines::of(guard.stdout.take().unwrap());
        Self { guard, output }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // It has nothing to say but that it has gone.
        let _ = self.guard.wait();
    }
}

/// A command with an environment that holds nothing of the machine's but the path; servers are in `/usr/sbin`.
pub(super) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", path());
    command
}

fn path() -> String {
    format!("{}:/usr/sbin:/usr/bin", std::env::var("PATH").unwrap_or_default())
}

/// Where WordPress is; what is missing fails the test.
fn needed() -> PathBuf {
    let is_there = |program: &&str| !std::env::split_paths(&path()).any(|folder| folder.join(program).is_file());
    let missing: Vec<_> = ["php", "mariadbd", "mariadb", "mariadb-install-db"].into_iter().filter(is_there).collect();
    assert!(missing.is_empty(), "these tests need {missing:?}, which tests/run installs");
    let has_driver = command("php").args(["-r", r#"exit(extension_loaded("mysqli") ? 0 : 1);"#]).status();
    assert!(has_driver.is_ok_and(|status| status.success()), "these tests need php-mysql, which tests/run installs");
    let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wordpress/usr/share/wordpress");
    let places = [unpacked, PathBuf::from("/usr/share/wordpress")];
    let found = places.iter().find(|place| place.join("wp-includes/version.php").is_file());
    found
        .unwrap_or_else(|| panic!("these tests need WordPress, which tests/run gets; it is in none of {places:?}"))
        .clone()
}

impl Site {
    async fn build() -> Self {
        let source = needed();
        let folder = TempDir::with_prefix("keyside-it-wordpress-").unwrap();
        let database = Self::start_database(folder.path()).await;
        let root = Self::lay_out(folder.path(), &source);
        deploy::set_up(folder.path(), &root).await;
        let mut install = command("php");
        install.arg(format!("{HERE}/install.php")).arg(&root);
        let installed = run(install, "").await.done();
        let last = installed.stdout.lines().last().unwrap_or_default();
        let installed = serde_json::from_str(last).unwrap_or_else(|fault| panic!("{fault}: {installed:?}"));

        let mut php = command("php");
        php.args(["-d", "opcache.enable=1", "-d", "opcache.enable_cli=1", "-S", "127.0.0.1:0", "-t"]);
        php.arg(&root).arg(folder.path().join("router.php")).env("PHP_CLI_SERVER_WORKERS", "4");
        let php = Server::start(folder.path(), &php);
        let address = php.output.find("where PHP listens", |line| {
            let (_, rest) = line.split_once("(http://")?;
            rest.split_once(')')?.0.parse().ok()
        });
        let address = address.await;
        Self { database, php, address, installed, folder }
    }

    async fn start_database(folder: &Path) -> Server {
        let data = format!("--datadir={}", folder.join("data").display());
        let socket = format!("--socket={}", folder.join("db.sock").display());
        // MariaDB runs as root only where it is told to.
        let user = getuid().is_root().then_some("--user=root");
        let mut install = command("mariadb-install-db");
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", &data]).args(user);
        run(install, "").await.done();
        let mut server = command("mariadbd");
        server.args(["--no-defaults", "--skip-networking", "--innodb-flush-log-at-trx-commit=0"]).args(user);
        let server = Server::start(folder, server.args(["--innodb-buffer-pool-size=32M", &data, &socket]));
        eventually("the database", async || {
            let ended = sql(folder, "CREATE DATABASE IF NOT EXISTS wordpress").await;
            if ended.status == 0 { Ok(()) } else { Err((ended.stderr, server.output.all())) }
        })
        .await;
        server
    }

    /// WordPress where it can have its own configuration and plugins. Whatever asks where it is must be a copy; the
    /// rest is where it was.
    fn lay_out(folder: &Path, source: &Path) -> PathBuf {
        let root = folder.join("site");
        std::fs::create_dir_all(root.join("wp-content/mu-plugins")).unwrap();
        for entry in std::fs::read_dir(source).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.extension().is_some_and(|extension| extension == "php") && !name.starts_with("wp-config") {
                std::fs::copy(&path, root.join(name)).unwrap();
            }
        }
        for name in ["wp-includes", "wp-admin"] {
            std::os::unix::fs::symlink(source.join(name), root.join(name)).unwrap();
        }
        std::fs::copy(format!("{HERE}/router.php"), folder.join("router.php")).unwrap();
        std::fs::copy(format!("{HERE}/fixture.php"), root.join("wp-content/mu-plugins/wkwp-wallet.php")).unwrap();
        let mut config = format!(
            "<?php\ndefine('DB_NAME', 'wordpress');\ndefine('DB_USER', 'root');\ndefine('DB_PASSWORD', '');\n\
             define('DB_HOST', 'localhost:{}');\ndefine('DB_CHARSET', 'utf8mb4');\ndefine('DB_COLLATE', '');\n\
             define('DISABLE_WP_CRON', true);\ndefine('WP_HTTP_BLOCK_EXTERNAL', true);\n\
             define('COOKIEHASH', 'tests');\n$table_prefix = 'wp_';\n",
            folder.join("db.sock").display()
        );
        for name in ["AUTH", "SECURE_AUTH", "LOGGED_IN", "NONCE"] {
            config += &format!("define('{name}_KEY', 'key of {name}');\ndefine('{name}_SALT', 'salt of {name}');\n");
        }
        config += &deploy::config_lines(folder);
        config += "define('ABSPATH', __DIR__ . '/');\nrequire_once ABSPATH . 'wp-settings.php';\n";
        std::fs::write(root.join("wp-config.php"), config).unwrap();
        root
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What Keyside is told, by the deployment's README.
    pub(super) fn settings(&self) -> String {
        deploy::settings(self.folder.path(), &self.url())
    }

    /// Where all of it is.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where WordPress is.
    pub(super) fn root(&self) -> PathBuf {
        self.folder.path().join("site")
    }

    /// The file with the credential that Keyside and WordPress share.
    pub(super) fn credential_file(&self) -> PathBuf {
        deploy::credential_file(self.folder.path())
    }

    /// What Keyside sends as `Authorization`.
    pub(super) fn credential(&self) -> String {
        std::fs::read_to_string(self.credential_file()).unwrap().trim().to_owned()
    }

    /// The id of the user with this login.
    pub(super) fn user(&self, login: &str) -> u64 {
        self.installed["users"][login].as_u64().unwrap_or_else(|| panic!("no user {login} in {}", self.installed))
    }

    /// The login cookies of the administrator, and the nonce that goes with them.
    pub(super) fn session(&self) -> (&str, &str) {
        let text = |name: &str| self.installed[name].as_str().unwrap();
        (text("cookie"), text("nonce"))
    }

    /// Asks WordPress with nothing in between.
    #[track_caller]
    pub(super) fn straight(&self, request: Request) -> impl Future<Output = Received> {
        let place = std::panic::Location::caller();
        async move {
            let stream = within("PHP", TcpStream::connect(self.address)).await.expect("PHP");
            let mut connection = Connection::over(H1, stream).await;
            match within("WordPress's answer", connection.try_send(&request)).await {
                Ok(answer) => answer,
                Err(why) => panic!("{place}: no answer to {request:?}: {why}\n{}", self.php.output.all().join("\n")),
            }
        }
    }

    /// The request as Keyside would send it for a key of this owner, had it judged nothing.
    pub(super) fn as_owner(&self, request: Request, owner: &str) -> Request {
        request
            .field("Authorization", self.credential())
            .field("X-Forwarded-Proto", "https")
            .field("X-Key-Id", "key_straight")
            .field("X-Key-Owner", owner)
    }

    /// Rows of the database, columns apart by tabs.
    pub(super) async fn sql(&self, statement: &str) -> String {
        sql(self.folder.path(), statement).await.done().stdout
    }

    /// Everything that requests of these tests could change: all posts in all states, and all wallets.
    pub(super) async fn contents(&self) -> String {
        self.sql(
            "SELECT ID, post_author, post_title, post_content, post_status, post_type FROM wp_posts ORDER BY ID; \
             SELECT * FROM wp_wkwp_wallets ORDER BY id; SELECT comment_ID, comment_content FROM wp_comments ORDER BY 1",
        )
        .await
    }

    /// A new post of the administrator's.
    pub(super) async fn post(&self, title: &str) -> u64 {
        let id = self
            .sql(&format!(
                "INSERT INTO wp_posts (post_author, post_date, post_date_gmt, post_modified, post_modified_gmt, \
                 post_title, post_name, post_status, post_type, post_content, post_excerpt, to_ping, pinged, \
                 post_content_filtered) VALUES (1, NOW(), NOW(), NOW(), NOW(), '{title}', '{title}', 'publish', 'post', \
                 '', '', '', '', ''); SELECT LAST_INSERT_ID()"
            ))
            .await;
        id.trim().parse().unwrap()
    }

    /// The title of a post, as the database has it.
    pub(super) async fn title(&self, post: u64) -> String {
        self.sql(&format!("SELECT post_title FROM wp_posts WHERE ID = {post}")).await.trim_end().to_owned()
    }
}

async fn sql(folder: &Path, statement: &str) -> crate::harness::Ended {
    let mut client = command("mariadb");
    client.args(["--no-defaults", "--user=root", "--batch", "--skip-column-names", "--execute", statement]);
    client.arg(format!("--socket={}", folder.join("db.sock").display()));
    if !statement.starts_with("CREATE DATABASE") {
        client.arg("wordpress");
    }
    run(client, "").await
}

/// Nothing that was started here outlives what it was started for: not the server, not its children, not its folder.
#[tokio::test]
async fn a_server_goes_with_whoever_holds_it() {
    let folder = TempDir::with_prefix("keyside-it-guarded-").unwrap();
    let mut server = command("bash");
    server.args(["-c", "trap '' TERM INT HUP; sleep 1000 & echo \"$$ $!\"; wait"]);
    let server = Server::start(folder.path(), &server);
    let ids = server.output.find("two processes", |line| {
        let (one, other) = line.split_once(' ')?;
        Some([one, other].map(|id| Pid::from_raw(id.parse().unwrap()).unwrap()))
    });
    let ids = ids.await;
    assert!(ids.iter().all(|id| test_kill_process(*id).is_ok()), "both run");
    drop(server);
    assert!(!folder.path().exists());
    for id in ids {
        let gone = async || test_kill_process(id).map_or(Ok(()), |()| Err(id));
        eventually("the process to be gone", gone).await;
    }
}
