//! Opening: what is made, what is refused, what happens to the tables of older and newer versions.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::{
    super::{
        engine::{Care, Engine},
        schema, sqlite,
    },
    certificates::Authority,
    *,
};

on_both! {
    nothing_is_made_unless_it_was_said
    a_newer_schema_is_refused_and_left_alone
    a_migration_that_breaks_off_leaves_nothing
}

async fn nothing_is_made_unless_it_was_said(ground: Ground) {
    let says = if ground.database.is_some() { "no tables of Keyside" } else { "is not there: a new one is made only" };
    assert_fails(ground.again().await, StoreError::Unavailable, says);
    assert_eq!(fs::read_dir(ground.folder.path()).unwrap().count(), 0);
    let store = ground.store().await;
    let head = store.head().await.unwrap();
    store.close().await;
    // Opening it once more makes nothing anew.
    assert_eq!(ground.store().await.head().await.unwrap(), head);
}

async fn a_newer_schema_is_refused_and_left_alone(ground: Ground) {
    let store = ground.store().await;
    let head = commit(&*store, vec![key("key_1")]).await;
    store.close().await;
    drop(store);
    ground.run("UPDATE schema_version SET version = 99; ALTER TABLE keys ADD COLUMN later TEXT").await;
    let found = open(&Settings { place: ground.place.clone(), create: true }).await;
    assert!(matches!(found, Err(StoreError::Newer { found: 99, known: 1 })), "{found:?}");
    ground.run("UPDATE schema_version SET version = 1").await;
    assert_eq!(ground.again().await.unwrap().head().await.unwrap(), head);
}

async fn a_migration_that_breaks_off_leaves_nothing(ground: Ground) {
    let engine = match &ground.place {
        Place::Sqlite(path) => Engine::Sqlite(sqlite::Database::open(path, true).await.unwrap()),
        Place::Postgres { url, .. } => Engine::Postgres(postgres::Database::open(url, None, "me").await.unwrap()),
    };
    let mut tx = engine.write(Care::Durable).await.unwrap();
    schema::steps(&mut tx, true).await.unwrap();
    drop(tx);
    engine.close().await;
    drop(engine);
    assert!(ground.again().await.is_err());
    let store = ground.store().await;
    assert_eq!(store.head().await.unwrap().revision, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn control_planes_that_start_at_once_make_one_store() {
    let ground = Ground::postgres();
    let settings = Settings { place: ground.place.clone(), create: true };
    let starts: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn({
                let settings = settings.clone();
                async move { open(&settings).await.unwrap().head().await.unwrap() }
            })
        })
        .collect();
    let mut heads = Vec::new();
    for start in starts {
        heads.push(start.await.unwrap());
    }
    assert!(heads.iter().all(|head| *head == heads[0]), "{heads:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_one_control_plane_and_is_its_owners_alone() {
    let ground = Ground::sqlite();
    let store = ground.store().await;
    commit(&*store, vec![key("key_1")]).await;
    assert_fails(ground.again().await, StoreError::Unavailable, "another control plane holds");
    // By whatever name it is found.
    let link = ground.folder.path().join("link.db");
    std::os::unix::fs::symlink(ground.file(), &link).unwrap();
    let by_link = open(&Settings { place: Place::Sqlite(link), create: false }).await;
    assert_fails(by_link, StoreError::Unavailable, "another control plane holds");
    for file in ["keyside.db", "keyside.db-wal", "keyside.db-shm", "keyside.db.lock"] {
        let mode = fs::metadata(ground.folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    drop(store);
    ground.again().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_store_is_refused_and_left_alone() {
    let ground = Ground::sqlite();
    let check = async |content: &[u8], says: &str| {
        fs::write(ground.file(), content).unwrap();
        assert_fails(ground.again().await, StoreError::Damaged, says);
        assert_eq!(fs::read(ground.file()).unwrap(), content, "{says}");
    };
    check(b"", "is empty").await;
    check(b"[[key]]\nid = \"key_1\"\n".repeat(100).as_slice(), "not a database").await;
    fs::remove_file(ground.file()).unwrap();
    let options = SqliteConnectOptions::new().filename(ground.file()).create_if_missing(true);
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("CREATE TABLE theirs (x)").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    assert_fails(ground.again().await, StoreError::Damaged, "something else");
    let create = open(&Settings { place: ground.place.clone(), create: true }).await;
    assert_fails(create, StoreError::Damaged, "something else");
    let folder = open(&Settings { place: Place::Sqlite(ground.folder.path().into()), create: true }).await;
    assert_fails(folder, StoreError::Unavailable, "is not a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_holds_no_password() {
    for url in [
        "postgres://keyside:s3cret@localhost/keyside",
        "postgres://localhost/keyside?password=s3cret",
        "postgres://keyside@localhost/keyside?sslmode=require&password=s3cret",
        "postgres://localhost:s3cret/keyside",
        "s3cret",
    ] {
        let place = Place::Postgres { url: url.to_owned(), password: None };
        let shown = format!("{place:?}");
        let refused = open(&Settings { place, create: true }).await.unwrap_err().to_string();
        assert!(!refused.contains("s3cret") && !shown.contains("s3cret"), "{refused} {shown}");
        assert!(refused.contains("the URL of the database"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_is_given_apart() {
    let server = Server::new(&["fsync=off"]);
    server.demand_password("pass'w@rd");
    let opened = async |password: Option<&str>| {
        let password = password.map(|password| crate::keys::secret::Secret::new(password.as_bytes()));
        let url = server.url("postgres");
        open(&Settings { place: Place::Postgres { url, password }, create: true }).await
    };
    assert!(opened(None).await.is_err());
    assert_fails(opened(Some("s3cret")).await, StoreError::Unavailable, "password authentication failed");
    opened(Some("pass'w@rd")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_proves_who_it_is() {
    let (authority, other) = (Authority::new(), Authority::new());
    let issued = authority.issue(&["localhost"]);
    let server = Server::over_tls(&issued.certificate, &issued.private_key);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, authority: &Authority| {
        let path = folder.path().join(name);
        fs::write(&path, authority.pem()).unwrap();
        path.display().to_string()
    };
    let (right, wrong) = (file("right.pem", &authority), file("wrong.pem", &other));
    let opened = async |host: &str, mode: &str| {
        let url = format!("postgres://keyside@{host}:{}/postgres?{mode}", server.port());
        open(&Settings { place: Place::Postgres { url, password: None }, create: true }).await
    };
    let store = opened("localhost", &format!("sslmode=verify-full&sslrootcert={right}")).await.unwrap();
    let secured = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                   WHERE application_name = 'keyside'";
    assert_eq!(server.sql("postgres", secured), "t");
    commit(&*store, vec![key("key_1")]).await;
    let strange = opened("localhost", &format!("sslmode=verify-full&sslrootcert={wrong}")).await;
    assert_fails(strange, StoreError::Unavailable, "invalid peer certificate");
    let named = opened("127.0.0.1", &format!("sslmode=verify-full&sslrootcert={right}")).await;
    assert_fails(named, StoreError::Unavailable, "invalid peer certificate");
    let unproven = opened("localhost", "sslmode=verify-full").await;
    assert_fails(unproven, StoreError::Unavailable, "invalid peer certificate");
}
