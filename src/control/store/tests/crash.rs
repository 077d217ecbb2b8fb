//! What was acknowledged outlives the process, killed at any moment, and is on the disk before it is acknowledged.
//!
//! The process that is killed is this test's own executable, which runs the test named `the_child`.

use std::{
    collections::HashMap,
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::{
    super::{
        engine::{Care, Engine},
        schema, sqlite,
    },
    *,
};

/// Says where the child's store is.
const PLACE: &str = "KEYSIDE_TEST_STORE";

/// Says what the child does.
const TASK: &str = "KEYSIDE_TEST_TASK";

/// Not a test by itself: what the others start.
#[tokio::test(flavor = "multi_thread")]
async fn the_child() {
    let (Ok(place), Ok(task)) = (env::var(PLACE), env::var(TASK)) else { return };
    let place = match place.strip_prefix('/') {
        Some(_) => Place::Sqlite(place.into()),
        None => Place::Postgres { url: place, password: None },
    };
    if task == "migrate" {
        let engine = match &place {
            Place::Sqlite(path) => Engine::Sqlite(sqlite::Database::open(path, true).await.unwrap()),
            Place::Postgres { url, .. } => Engine::Postgres(postgres::Database::open(url, None, "me").await.unwrap()),
        };
        let mut tx = engine.write(Care::Durable).await.unwrap();
        schema::steps(&mut tx, true).await.unwrap();
        say("inside");
        std::future::pending::<()>().await;
    }
    let store = open(&Settings { place, create: false }).await.unwrap();
    if task == "patient" {
        for number in 0.. {
            match store.commit(&following(&store.head().await.unwrap(), vec![key(&format!("key_{number}"))])).await {
                Ok(()) => say("acknowledged"),
                Err(why) => {
                    say(&format!("refused: {why}"));
                    std::io::stdin().read_line(&mut String::new()).unwrap();
                }
            }
        }
    }
    for _ in 0..task.parse().unwrap() {
        let head = store.head().await.unwrap();
        // A mint and a revoke of another: two rows, or none.
        let (one, two) = (format!("key_{}", head.revision), format!("twin_{}", head.revision));
        let after = commit(&*store, vec![key(&one), key(&two)]).await;
        say(&format!("acknowledged {}", after.revision));
    }
}

/// One line, written at once.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

impl Ground {
    /// The child, on this ground.
    fn child(&self, through: &[&str], task: &str) -> Child {
        let executable = env::current_exe().unwrap();
        let mut command = match through {
            [] => Command::new(executable),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(executable);
                command
            }
        };
        let place = match &self.place {
            Place::Sqlite(path) => path.to_str().unwrap().to_owned(),
            Place::Postgres { url, .. } => url.clone(),
        };
        let name = concat!(module_path!(), "::the_child").split_once("::").unwrap().1;
        command.args([name, "--exact", "--nocapture"]).env(PLACE, place).env(TASK, task);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }
}

/// The lines that a child says, until it has gone.
fn said(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok)
}

on_both! {
    what_was_acknowledged_outlives_a_kill
    a_migration_that_is_killed_leaves_nothing
}

async fn what_was_acknowledged_outlives_a_kill(ground: Ground) {
    ground.store().await.close().await;
    let (rounds, mut known) = (if ground.database.is_some() { 8 } else { 20 }, 0);
    for round in 0..rounds {
        let mut child = ground.child(&[], "1000000");
        let mut acknowledged = known;
        let lines = said(&mut child);
        let numbers = lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok());
        for (count, number) in numbers.enumerate() {
            assert_eq!(number, acknowledged + 1);
            acknowledged = number;
            // While the next one is on its way; what it says meanwhile is read, too.
            if count == round % 7 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let store = ground.again().await.unwrap();
        let loaded = store.load().await.unwrap();
        known = loaded.head.revision;
        // One may have been made whose acknowledgement was not said any more.
        assert!((acknowledged..=acknowledged + 1).contains(&known), "{acknowledged} {known}");
        assert!(acknowledged > 0);
        let twins = |prefix: &str| loaded.keys.iter().filter(|key| key.id.as_str().starts_with(prefix)).count() as u64;
        assert_eq!((twins("key_"), twins("twin_")), (known, known), "none is half done");
        assert_eq!(checked_log(&*store).await.len() as u64, known);
        store.close().await;
    }
}

async fn a_migration_that_is_killed_leaves_nothing(ground: Ground) {
    let mut child = ground.child(&[], "migrate");
    assert!(said(&mut child).any(|line| line == "inside"));
    child.kill().unwrap();
    child.wait().unwrap();
    let says = if ground.database.is_some() { "no tables of Keyside" } else { "is empty" };
    let error = ground.again().await.unwrap_err().to_string();
    assert!(error.contains(says) || error.contains("no tables of Keyside"), "{error}");
    assert_eq!(ground.store().await.head().await.unwrap().entries, 0);
}

/// A power cut loses what was not synced: the log's last write is synced before anything is said (fdatasync(2)).
#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_is_on_the_disk() {
    let ground = Ground::sqlite();
    ground.store().await.close().await;
    let trace = ground.folder.path().join("trace");
    let calls = "trace=fsync,fdatasync,pwrite64,write";
    let through = ["strace", "-f", "--decode-fds=path", "-e", calls, "-o", trace.to_str().unwrap()];
    let mut child = ground.child(&through, "5");
    assert_eq!(said(&mut child).filter(|line| line.starts_with("acknowledged ")).count(), 5);
    assert!(child.wait().unwrap().success());

    let trace = fs::read_to_string(trace).unwrap();
    let (mut syncing, mut unsynced, mut commits, mut said) = (HashMap::new(), 0, 0, 0);
    for line in trace.lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        let is_log = call.contains("keyside.db-wal>");
        let is_sync = call.starts_with("fdatasync(") || call.starts_with("fsync(");
        if call.starts_with("pwrite64(") && is_log {
            (unsynced, commits) = (unsynced + 1, commits + 1);
        } else if is_sync && is_log && call.ends_with("<unfinished ...>") {
            // What is written while it syncs is not counted as synced.
            syncing.insert(thread, unsynced);
        } else if is_sync && is_log {
            assert!(call.ends_with("= 0"), "{call}");
            unsynced = 0;
        } else if call.contains("fdatasync resumed") || call.contains("fsync resumed") {
            // The last may be broken off by the end of the process.
            let done = syncing.remove(thread).unwrap_or(0);
            unsynced -= if call.ends_with("= 0") { done } else { 0 };
        } else if call.starts_with("write(1<") && call.contains("acknowledged") {
            assert_eq!(unsynced, 0, "before the {said}. acknowledgement");
            assert!(commits > 0);
            (commits, said) = (0, said + 1);
        }
    }
    assert_eq!(said, 5, "{trace}");
}

/// The server's own setting would lose what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_acknowledges_early_is_told_not_to() {
    let server = Server::new(&["synchronous_commit=off", "wal_writer_delay=10s"]);
    let place = Place::Postgres { url: server.url("postgres"), password: None };
    let store = open(&Settings { place, create: true }).await.unwrap();
    for number in 0..5 {
        let head = commit(&*store, vec![key(&format!("key_{number}"))]).await;
        server.stop();
        server.start();
        assert_eq!(store.head().await.unwrap(), head);
    }
    checked_log(&*store).await;
}

/// A file that may not grow fails the writes that a full disk fails, wherever these tests run.
#[tokio::test(flavor = "multi_thread")]
async fn files_may_not_grow() {
    let ground = Ground::sqlite();
    ground.store().await.close().await;
    let mut child = ground.child(&["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"], "patient");
    let mut lines = said(&mut child);
    let id = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let limit = |most: Option<u64>| {
        let maximum = getrlimit(Resource::Fsize).maximum;
        prlimit(id, Resource::Fsize, Rlimit { current: most.or(maximum), maximum }).unwrap();
    };
    let mut acknowledged = 0;
    let mut until = |what: &str| {
        let mut counted = lines.by_ref().inspect(|line| acknowledged += usize::from(line == "acknowledged"));
        counted.find(|line| line.starts_with(what)).unwrap()
    };
    for _ in 0..3 {
        until("acknowledged");
        limit(Some(1));
        let refused = until("refused");
        assert!(refused.contains("cannot be used") || refused.contains("is full"), "{refused}");
        limit(None);
        child.stdin.as_mut().unwrap().write_all(b"go on\n").unwrap();
    }
    until("acknowledged");
    child.kill().unwrap();
    let rest = lines.filter(|line| line == "acknowledged").count();
    child.wait().unwrap();
    let store = ground.again().await.unwrap();
    let made = checked_log(&*store).await.len();
    assert!((acknowledged + rest..=acknowledged + rest + 1).contains(&made), "{acknowledged} {rest} {made}");
}
