//! One suite for both databases: SQLite, and a PostgreSQL server that the tests start.

mod accounts;
mod astray;
#[path = "../../../tests/it/harness/certificates.rs"]
#[allow(dead_code, reason = "the tests from outside use more of it")]
mod certificates;
mod crash;
mod faults;
mod history;
mod opening;
#[path = "../../../tests/it/harness/postgres.rs"]
#[allow(dead_code, reason = "the tests from outside use more of it")]
mod server;
mod sidecars;
mod usage;

use std::{fmt::Debug, path::PathBuf};

use serde_json::json;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use self::server::Server;
use super::{open::open_keeping, *};
use crate::control::audit;

/// Runs each test on both databases.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    super::$name(crate::control::store::tests::Ground::sqlite()).await;
                }
            )*
        }
        mod on_postgres {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    super::$name(crate::control::store::tests::Ground::postgres()).await;
                }
            )*
        }
    };
}
use on_both;

/// Who speaks for a sidecar.
fn claim(instance: &str) -> Claim {
    Claim { instance: instance.to_owned(), bound: format!("secret:{instance}"), credential: "token:1".to_owned() }
}

/// A sidecar as it is heard at this second, with this revision.
fn sidecar(instance: &str, heard: i64, revision: u64) -> Sidecar {
    Sidecar {
        claim: claim(instance),
        address: Some([192, 0, 2, 1].into()),
        first_seen: at(0),
        last_seen: at(heard),
        confirmed_at: at(heard),
        max_stale: 86_400,
        max_stale_write: 3_600,
        epoch: String::new(),
        revision,
        durable: false,
        seq: 0,
        goodbye: false,
    }
}

/// Where the history of this store stands.
async fn head_of(store: &dyn Store) -> Head {
    store.head().await.unwrap()
}

/// Registers sidecars.
async fn register(store: &dyn Store, instances: &[&str]) {
    for instance in instances {
        assert!(store.register(&sidecar(instance, 1, 1), &head_of(store).await).await.unwrap());
    }
}

/// Where a test has its store.
struct Ground {
    place: Place,
    /// The name of a database of the shared server.
    database: Option<String>,
    folder: TempDir,
}

impl Ground {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { place: Place::Sqlite(folder.path().join("keyside.db")), database: None, folder }
    }

    fn postgres() -> Self {
        let server = Server::shared();
        let database = server.database();
        let place = Place::Postgres { url: server.url(&database), password: None };
        Self { place, database: Some(database), folder: tempfile::tempdir().unwrap() }
    }

    /// A store on this ground, made if need be.
    async fn store(&self) -> Arc<dyn Store> {
        self.keeping(10_000).await
    }

    async fn keeping(&self, kept: u64) -> Arc<dyn Store> {
        open_keeping(&Settings { place: self.place.clone(), create: true }, kept).await.unwrap()
    }

    /// What a start finds later on.
    async fn again(&self) -> Result<Arc<dyn Store>, StoreError> {
        open(&Settings { place: self.place.clone(), create: false }).await
    }

    /// The file of the store.
    fn file(&self) -> PathBuf {
        self.folder.path().join("keyside.db")
    }

    /// Another control plane on the same store. SQLite takes only one.
    async fn other(&self, store: &Arc<dyn Store>) -> Arc<dyn Store> {
        if self.database.is_some() { self.again().await.unwrap() } else { store.clone() }
    }

    /// Runs a statement past the store.
    async fn run(&self, statement: &'static str) {
        match (&self.place, &self.database) {
            (Place::Sqlite(path), _) => {
                let options = SqliteConnectOptions::new().filename(path).foreign_keys(false);
                let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
                sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            (_, Some(database)) => {
                drop(Server::shared().sql(database, &format!("SET search_path = keyside; {statement}")))
            }
            _ => unreachable!("the server's databases have names"),
        }
    }
}

const HASH: &str = "$sha256$4c86fcf6fe4dcb18a3ea8c5cb3c3b8d0b3e5fb0a1b9f2a4a6e1d2d9d7b8c1a00";

/// A moment, so many seconds after some other.
fn at(seconds: i64) -> Wall {
    Wall::from_unix_millis(1_763_700_000_000 + 1_000 * seconds)
}

fn id(id: &str) -> KeyId {
    id.parse().unwrap()
}

/// A key of this name.
fn key_named(id: &str, name: &str) -> Arc<KeyRow> {
    let object = json!({
        "id": id, "name": name, "kind": "token", "prefix": format!("ck_live_{id}"), "owner": "svc", "scopes": ["read"],
        "hash": HASH, "allow_ips": ["203.0.113.0/24"], "created_at": "2026-11-21T10:00:00Z",
    });
    let read = crate::keys::document::json::read_key(&object);
    read.row.unwrap_or_else(|| panic!("{:?}", read.faults))
}

fn key(id: &str) -> Change {
    Change::Key(key_named(id, "One — \"ü\""))
}

fn owner(id: &str) -> Arc<OwnerRow> {
    let object = json!({"id": id, "name": "A service", "capabilities": ["manage"], "kyc": "approved"});
    crate::keys::document::json::read_owner(&object).row.unwrap()
}

/// A commit that follows this head.
fn following(before: &Head, changes: Vec<Change>) -> Commit {
    with_entry(before, changes, |_| {})
}

/// A commit whose audit entry is as the test wants it.
fn with_entry(before: &Head, changes: Vec<Change>, set: impl FnOnce(&mut Entry)) -> Commit {
    let mut after = before.clone();
    after.entries += 1;
    if !changes.is_empty() {
        after.revision += 1;
        after.digest = audit::hex(&format!("{} {changes:?}", before.digest));
    }
    let mut entry = Entry {
        seq: after.entries,
        at: at(0),
        actor: "operator:anna".to_owned(),
        from: Some([203, 0, 113, 9].into()),
        action: "key.create".to_owned(),
        subject: "key_1".to_owned(),
        detail: json!({"z": 1, "a": [true, null, "ü\u{0} \"quoted\""], "m": {"y": 1, "b": 2}}),
        revision: (!changes.is_empty()).then_some(after.revision),
        hash: String::new(),
    };
    set(&mut entry);
    entry.hash = audit::hash(&before.hash, &entry);
    after.hash.clone_from(&entry.hash);
    Commit { before: before.clone(), after, changes, accounts: vec![], entry, remembered: None }
}

/// Commits these changes upon the head as it is, and gives the head that this makes.
async fn commit(store: &dyn Store, changes: Vec<Change>) -> Head {
    let commit = following(&store.head().await.unwrap(), changes);
    store.commit(&commit).await.unwrap();
    commit.after
}

/// Commits a change of operators.
async fn commit_accounts(store: &dyn Store, accounts: Vec<AccountChange>) {
    let mut commit = following(&store.head().await.unwrap(), vec![]);
    commit.accounts = accounts;
    store.commit(&commit).await.unwrap();
}

/// The whole audit log, whose chain and numbers were checked against the head.
async fn checked_log(store: &dyn Store) -> Vec<Entry> {
    let (mut log, head) = (Vec::new(), store.head().await.unwrap());
    loop {
        let page = store.audit_from(log.len() as u64 + 1, 100).await.unwrap();
        if page.is_empty() {
            break;
        }
        log.extend(page);
    }
    let mut before = audit::BEGINNING.to_owned();
    for (entry, seq) in log.iter().zip(1..) {
        assert_eq!((entry.seq, &entry.hash), (seq, &audit::hash(&before, entry)));
        before.clone_from(&entry.hash);
    }
    assert_eq!((head.entries, head.hash), (log.len() as u64, before));
    let revisions: Vec<_> = log.iter().filter_map(|entry| entry.revision).collect();
    assert_eq!(revisions, (1..=head.revision).collect::<Vec<_>>(), "no revision is missing, and none came twice");
    log
}

/// An error of this kind, that says this.
#[track_caller]
fn assert_fails<T: Debug>(done: Result<T, StoreError>, kind: fn(String) -> StoreError, says: &str) {
    let error = done.expect_err(says);
    let same = std::mem::discriminant(&error) == std::mem::discriminant(&kind(String::new()));
    assert!(same && error.to_string().contains(says), "{error:?}");
}
