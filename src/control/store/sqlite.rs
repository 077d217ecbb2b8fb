//! SQLite: one file, written by one process.
//!
//! A commit is on the disk when it returns: write-ahead log, synced at every commit (`synchronous=FULL`). One connection
//! writes, a few read. An operating-system lock on `FILE.lock` keeps a second control plane away. When the file, or its
//! log, is moved away or replaced while it is open, nothing more is written: it would go to a file that nobody finds.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    ConnectOptions, Sqlite, SqliteConnection, SqlitePool,
    pool::{PoolConnection, PoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{StoreError, engine::Tx};

/// How long a statement waits for somebody else's lock on the file.
const BUSY: Duration = Duration::from_secs(5);

/// How long a transaction waits for its turn.
const TURN: Duration = Duration::from_secs(10);

/// Connections that read.
const READERS: u32 = 3;

/// "ksid": says what the file is.
const APPLICATION: i64 = 0x6b73_6964;

/// The file, open.
#[derive(Debug)]
pub(super) struct Database {
    writer: SqlitePool,
    readers: SqlitePool,
    watch: Watch,
    /// Held until the last connection is gone.
    lock: File,
}

/// Sees whether the file is still the one that was opened.
#[derive(Clone, Debug)]
struct Watch(Arc<Vec<(PathBuf, Identity)>>);

type Identity = (u64, u64);

fn identity(path: &Path) -> io::Result<Identity> {
    path.metadata().map(|found| (found.dev(), found.ino()))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

impl Watch {
    fn new(files: Vec<PathBuf>) -> Result<Self, StoreError> {
        let files = files.into_iter().map(|path| match identity(&path) {
            Ok(identity) => Ok((path, identity)),
            Err(why) => Err(StoreError::Unavailable(format!("{}: {why}", path.display()))),
        });
        Ok(Self(Arc::new(files.collect::<Result<_, _>>()?)))
    }

    /// # Errors
    ///
    /// `Unavailable` when a file is gone or is another one.
    fn check(&self) -> Result<(), StoreError> {
        for (path, opened) in self.0.iter() {
            let what = match identity(path) {
                Ok(found) if found == *opened => continue,
                Ok(_) => "was replaced".to_owned(),
                Err(why) if why.kind() == io::ErrorKind::NotFound => "was removed or moved away".to_owned(),
                Err(why) => why.to_string(),
            };
            let advice = "nothing more is written; put the file back or restore it, and start again";
            return Err(StoreError::Unavailable(format!("{} {what} while it was open: {advice}", path.display())));
        }
        Ok(())
    }
}

impl Database {
    /// Opens the file, and makes it if there is none and `create` says so. True when it was made, or is empty.
    pub(super) async fn open(path: &Path, create: bool) -> Result<Self, StoreError> {
        let path = found(path, create)?;
        let lock = locked(&beside(&path, ".lock"))?;
        match path.metadata() {
            Ok(found) if found.len() == 0 && !create => {
                return Err(StoreError::Damaged(format!("{} is empty, and was not made just now", path.display())));
            }
            Ok(_) => {}
            Err(why) if why.kind() == io::ErrorKind::NotFound && create => make(&path)?,
            Err(why) => return Err(StoreError::Unavailable(format!("{}: {why}", path.display()))),
        }
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(false)
            .busy_timeout(BUSY)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // What is deleted is overwritten: it may be the hash of a secret.
            .pragma("secure_delete", "ON")
            .pragma("journal_size_limit", "67108864")
            .disable_statement_logging();
        let pool = |connections: u32| {
            PoolOptions::<Sqlite>::new()
                .max_connections(connections)
                .min_connections(connections)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
                .acquire_timeout(TURN)
        };
        let name = |kind: &'static str| move |number: u64| format!("store-{kind}-{number}");
        let writer = options.clone().thread_name(name("write"));
        let writer = pool(1).connect_with(writer).await.map_err(fault)?;
        whole(&writer).await?;
        // The log is there from the first read on, and stays as long as a connection is open.
        let watch = Watch::new(vec![beside(&path, "-wal"), path])?;
        let readers = options.pragma("query_only", "ON").thread_name(name("read"));
        let readers = pool(READERS).connect_with(readers).await.map_err(fault)?;
        Ok(Self { writer, readers, watch, lock })
    }

    /// A transaction that only reads, and sees one state.
    pub(super) async fn read(&self) -> Result<Tx, StoreError> {
        self.begin(&self.readers, "BEGIN").await
    }

    /// A transaction that writes; it holds the lock of the file from its beginning.
    pub(super) async fn write(&self) -> Result<Tx, StoreError> {
        self.begin(&self.writer, "BEGIN IMMEDIATE").await
    }

    async fn begin(&self, pool: &SqlitePool, statement: &'static str) -> Result<Tx, StoreError> {
        self.watch.check()?;
        let connection = pool.acquire().await.map_err(fault)?;
        let mut open = Open { connection, watch: self.watch.clone(), ended: false };
        open.run(statement).await?;
        Ok(Tx::Sqlite(open))
    }

    /// Closes all connections, which brings what is in the log into the file; then others may have it.
    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
        // It ends with the process in any case.
        let _ = self.lock.unlock();
    }
}

/// A transaction. When it is dropped before its end, its connection is closed, which undoes it. The driver's own kind
/// counts on ROLLBACK, which fails where SQLite has undone everything by itself, as it does on a full disk.
pub(super) struct Open {
    connection: PoolConnection<Sqlite>,
    watch: Watch,
    ended: bool,
}

impl Open {
    /// The connection.
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    async fn run(&mut self, statement: &'static str) -> Result<(), StoreError> {
        sqlx::raw_sql(statement).execute(&mut *self.connection).await.map(drop).map_err(fault)
    }

    /// Keeps what was written.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        // What is written to a file that nobody finds again is lost.
        self.watch.check()?;
        sqlx::raw_sql("COMMIT").execute(&mut *self.connection).await.map_err(fault_of_commit)?;
        self.ended = true;
        Ok(())
    }

    /// Undoes what was written.
    pub(super) async fn rollback(mut self) {
        self.ended = self.run("ROLLBACK").await.is_ok();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}

/// The path without links, so that all who open the file lock the same name.
fn found(path: &Path, create: bool) -> Result<PathBuf, StoreError> {
    let shown = path.display();
    match path.canonicalize() {
        Ok(path) if path.is_file() => return Ok(path),
        Ok(_) => return Err(StoreError::Unavailable(format!("{shown} is not a file"))),
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(StoreError::Unavailable(format!("{shown}: {why}"))),
    }
    if !create || path.is_symlink() {
        let advice = "a new one is made only at the very first start; if there was one, put it back or restore it";
        return Err(StoreError::Unavailable(format!("{shown} is not there: {advice}")));
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let unmade = |why| StoreError::Unavailable(format!("{}: {why}", folder.display()));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unmade)?;
    let name = path.file_name().ok_or_else(|| StoreError::Unavailable(format!("{shown} names no file")))?;
    Ok(folder.canonicalize().map_err(unmade)?.join(name))
}

/// Makes an empty file for its owner alone, whose name is on the disk when this returns.
fn make(path: &Path) -> Result<(), StoreError> {
    let make = || {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.sync_all()?;
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    make().map_err(|why| match why.kind() {
        io::ErrorKind::StorageFull => StoreError::Full(format!("{}: {why}", path.display())),
        _ => StoreError::Unavailable(format!("{}: {why}", path.display())),
    })
}

/// Takes the lock that says that a control plane has the file. It ends with the process.
fn locked(path: &Path) -> Result<File, StoreError> {
    let unavailable = |why: io::Error| StoreError::Unavailable(format!("{}: {why}", path.display()));
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(path).map_err(unavailable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let advice = "stop it first; several control planes on one store need PostgreSQL";
            Err(StoreError::Unavailable(format!("another control plane holds {}: {advice}", path.display())))
        }
        Err(TryLockError::Error(why)) => Err(unavailable(why)),
    }
}

/// # Errors
///
/// `Damaged` when the file is not whole, or was not made by us.
async fn whole(pool: &SqlitePool) -> Result<(), StoreError> {
    let application: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(pool).await.map_err(fault)?;
    let tables: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_schema").fetch_one(pool).await.map_err(fault)?;
    if application != APPLICATION && (application != 0 || tables > 0) {
        return Err(StoreError::Damaged("the file holds something else".to_owned()));
    }
    let found: Vec<String> = sqlx::query_scalar("PRAGMA quick_check(3)").fetch_all(pool).await.map_err(fault)?;
    if found != ["ok"] {
        return Err(StoreError::Damaged(found.join("; ")));
    }
    let found = sqlx::query("PRAGMA foreign_key_check").fetch_all(pool).await.map_err(fault)?;
    if !found.is_empty() {
        return Err(StoreError::Damaged(format!("{} rows belong to an operator that is not there", found.len())));
    }
    Ok(())
}

/// What an error comes to.
pub(super) fn fault(why: sqlx::Error) -> StoreError {
    const BUSY: i32 = 5;
    const LOCKED: i32 = 6;
    const CORRUPT: i32 = 11;
    const FULL: i32 = 13;
    const NOTADB: i32 = 26;
    const FOREIGN_KEY: i32 = 787;

    let sqlx::Error::Database(error) = &why else { return StoreError::Unavailable(why.to_string()) };
    let code: i32 = error.code().and_then(|code| code.parse().ok()).unwrap_or_default();
    let text = format!("{} (SQLite {code})", error.message());
    match (code & 0xff, code) {
        (_, FOREIGN_KEY) => StoreError::Conflict,
        (FULL, _) => StoreError::Full(text),
        (CORRUPT | NOTADB, _) => StoreError::Damaged(text),
        (BUSY | LOCKED, _) => StoreError::Unavailable(format!("another program has it locked: {text}")),
        // READONLY, IOERR, CANTOPEN, and what should not be.
        _ => StoreError::Unavailable(text),
    }
}

/// What an error comes to when the commit itself was on its way: where the disk failed, or nothing was heard of it, the
/// log may hold it all the same, and the next connection would find it there.
fn fault_of_commit(why: sqlx::Error) -> StoreError {
    const IOERR: i32 = 10;
    let is_refused = match &why {
        sqlx::Error::Database(error) => {
            let code: i32 = error.code().and_then(|code| code.parse().ok()).unwrap_or(IOERR);
            code & 0xff != IOERR
        }
        _ => false,
    };
    if is_refused { fault(why) } else { StoreError::Unknown(fault(why).to_string()) }
}
