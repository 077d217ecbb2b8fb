//! PostgreSQL: stopped, restarted, read-only, without room for more connections, cut off in the middle of a commit.

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::watch,
};

use super::{
    super::{server::Server, *},
    Disk,
};

/// A server that is one test's own, and a store on it.
async fn server_and_store(settings: &[&'static str]) -> (Server, Arc<dyn Store>) {
    let server = Server::new(settings);
    let place = Place::Postgres { url: server.url("postgres"), password: None };
    let store = open(&Settings { place, create: true }).await.unwrap();
    (server, store)
}

/// Ends all sessions but the one that asks.
const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                         WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_ended_come_back() {
    let (server, store) = server_and_store(&["fsync=off"]).await;
    let mut head = commit(&*store, vec![key("key_1")]).await;
    for number in 0..10 {
        server.sql("postgres", TERMINATE);
        // Not one call fails for it.
        let next = following(&head, vec![key(&format!("key_{number}"))]);
        store.commit(&next).await.unwrap();
        head = next.after;
    }
    store.changed().await;
    checked_log(&*store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_ended_in_the_middle_changes_nothing() {
    let (server, store) = server_and_store(&["fsync=off"]).await;
    let head = commit(&*store, vec![key("key_1")]).await;
    // Somebody holds the head, so that the commit waits.
    let url = server.url("postgres");
    let mut other = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT * FROM keyside.head FOR UPDATE").execute(&mut other).await.unwrap();
    let next = following(&head, vec![key("key_2")]);
    let waiting = tokio::spawn({
        let (store, next) = (store.clone(), next.clone());
        async move { store.commit(&next).await }
    });
    let waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE head%'";
    let pid = loop {
        let pid = server.sql("postgres", waits);
        if !pid.is_empty() {
            break pid;
        }
    };
    server.sql("postgres", &format!("SELECT pg_terminate_backend({pid})"));
    assert_fails(waiting.await.unwrap(), StoreError::Unavailable, "57P01");

    // Held for too long, it is given up.
    assert_fails(store.commit(&next).await, StoreError::Unavailable, "55P03");
    assert_eq!(store.head().await.unwrap(), head, "reading goes on");
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    store.commit(&next).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_found_again() {
    let (server, store) = server_and_store(&[]).await;
    let head = commit(&*store, vec![key("key_1")]).await;
    let next = following(&head, vec![key("key_2")]);
    server.stop();
    for _ in 0..2 {
        let (commit, load) = tokio::join!(store.commit(&next), store.load());
        assert!(matches!(commit, Err(StoreError::Unavailable(_))), "{commit:?}");
        assert!(matches!(load, Err(StoreError::Unavailable(_))), "{load:?}");
    }
    server.start();
    assert_eq!(store.head().await.unwrap(), head);
    store.commit(&next).await.unwrap();
    // It listens again, and says that something may have been missed.
    store.changed().await;
    let other = Place::Postgres { url: server.url("postgres"), password: None };
    let other = open(&Settings { place: other, create: false }).await.unwrap();
    commit(&*other, vec![key("key_3")]).await;
    store.changed().await;
    checked_log(&*store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_only_reads_takes_no_commit() {
    let server = Server::new(&["fsync=off"]);
    let database = server.database();
    let place = Place::Postgres { url: server.url(&database), password: None };
    let store = open(&Settings { place, create: true }).await.unwrap();
    let head = commit(&*store, vec![key("key_1")]).await;
    let next = following(&head, vec![key("key_2")]);
    server.sql("postgres", &format!("ALTER DATABASE {database} SET default_transaction_read_only = on"));
    server.sql("postgres", TERMINATE);
    assert_fails(store.commit(&next).await, StoreError::Unavailable, "25006");
    assert_eq!(store.load().await.unwrap().head, head, "reading goes on");
    server.sql("postgres", &format!("ALTER DATABASE {database} RESET default_transaction_read_only"));
    // The session that could not write was given up; the one that read may still be of the old kind, and is next.
    if store.commit(&next).await.is_err() {
        store.commit(&next).await.unwrap();
    }
    assert_eq!(store.head().await.unwrap(), next.after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_room_for_more_is_waited_for() {
    let server = Server::new(&["fsync=off"]);
    server.sql("postgres", "CREATE ROLE app LOGIN");
    server.sql("postgres", "CREATE DATABASE app OWNER app");
    let place = Place::Postgres { url: server.url("app").replace("keyside@", "app@"), password: None };
    let store = open(&Settings { place: place.clone(), create: true }).await.unwrap();
    let head = commit(&*store, vec![key("key_1")]).await;
    server.sql("postgres", "ALTER ROLE app CONNECTION LIMIT 0");
    server.sql("postgres", TERMINATE);
    let next = following(&head, vec![key("key_2")]);
    assert_fails(store.commit(&next).await, StoreError::Unavailable, "");
    assert_fails(open(&Settings { place, create: false }).await, StoreError::Unavailable, "");
    server.sql("postgres", "ALTER ROLE app CONNECTION LIMIT -1");
    store.commit(&next).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_disk_is_full_changes_nothing() {
    let server = Server::new(&["fsync=off"]);
    let small = tempfile::tempdir_in(server.folder()).unwrap();
    let Some(disk) = Disk::mounted(small.path(), "10m") else { return };
    // Its log is elsewhere: a server whose log has no room stops, and that is another day.
    std::fs::set_permissions(small.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let tables = small.path().join("tables");
    std::fs::create_dir(&tables).unwrap();
    if rustix::process::getuid().is_root() {
        std::os::unix::fs::chown(&tables, Some(65_534), Some(65_534)).unwrap();
    }
    server.sql("postgres", &format!("CREATE TABLESPACE small LOCATION '{}'", tables.display()));
    server.sql("postgres", "CREATE DATABASE small TABLESPACE small");
    let place = Place::Postgres { url: server.url("small"), password: None };
    let store = open(&Settings { place, create: true }).await.unwrap();
    let head = commit(&*store, vec![key("key_1")]).await;
    let next = following(&head, (0..40_000).map(|number| key(&format!("key_{number}"))).collect());
    assert_fails(store.commit(&next).await, StoreError::Full, "53100");
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.head, loaded.keys.len()), (head, 1), "nothing changed, and reading goes on");
    disk.grow("100m");
    store.commit(&next).await.unwrap();
    checked_log(&*store).await;
    store.close().await;
}

/// What happens to a commit on its way.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    No,
    /// The connection breaks before the server has it.
    Before,
    /// The connection breaks before the answer comes.
    After,
    /// Nothing breaks, and no answer comes.
    Silence,
}

/// Carries connections to the server, and cuts those on which a commit is sent.
async fn carry(from: UnixListener, to: PathBuf, cut: watch::Receiver<Cut>) {
    async fn copy(
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        cut: watch::Receiver<Cut>,
        state: watch::Sender<Cut>,
        is_client: bool,
    ) {
        let mut room = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from.read(&mut room).await {
            let bytes = &room[..read];
            if is_client && bytes.windows(7).any(|word| word == b"COMMIT\0") {
                state.send_replace(*cut.borrow());
            }
            match (*state.borrow(), is_client) {
                (Cut::Before, _) | (Cut::After, false) => return,
                (Cut::Silence, false) => continue,
                _ => {}
            }
            if to.write_all(bytes).await.is_err() {
                return;
            }
        }
    }
    while let Ok((client, _)) = from.accept().await {
        let (cut, to) = (cut.clone(), to.clone());
        tokio::spawn(async move {
            let server = UnixStream::connect(to).await.unwrap();
            let (client_reads, client_writes) = client.into_split();
            let (server_reads, server_writes) = server.into_split();
            let state = watch::Sender::new(Cut::No);
            // When one direction ends, both do.
            tokio::select! {
                () = copy(client_reads, server_writes, cut.clone(), state.clone(), true) => {}
                () = copy(server_reads, client_writes, cut, state, false) => {}
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_an_answer_is_not_known() {
    let ground = Ground::postgres();
    let Place::Postgres { url, .. } = &ground.place else { panic!("a server") };
    let (url, socket_folder) = url.split_once("?host=").unwrap();
    let (cut, seen) = watch::channel(Cut::No);
    let listener = UnixListener::bind(ground.folder.path().join(".s.PGSQL.5432")).unwrap();
    tokio::spawn(carry(listener, std::path::Path::new(socket_folder).join(".s.PGSQL.5432"), seen));
    let url = format!("{url}?host={}", ground.folder.path().display());
    let store = open(&Settings { place: Place::Postgres { url, password: None }, create: true }).await.unwrap();

    let head = commit(&*store, vec![key("key_1")]).await;
    let next = following(&head, vec![key("key_2")]);
    cut.send_replace(Cut::Before);
    let done = store.commit(&next).await;
    assert!(matches!(done, Err(StoreError::Unknown(_))), "{done:?}");
    cut.send_replace(Cut::No);
    assert_eq!(store.head().await.unwrap(), head, "it was not made");

    cut.send_replace(Cut::After);
    let done = store.commit(&next).await;
    assert!(matches!(done, Err(StoreError::Unknown(_))), "{done:?}");
    cut.send_replace(Cut::No);
    // The server may be about to do it.
    while store.head().await.unwrap() != next.after {}
    assert!(matches!(store.commit(&next).await, Err(StoreError::Conflict)), "it was made");

    let last = following(&next.after, vec![key("key_3")]);
    cut.send_replace(Cut::Silence);
    let done = store.commit(&last).await;
    assert_fails(done, StoreError::Unknown, "did not answer");
    cut.send_replace(Cut::No);
    assert_eq!(store.head().await.unwrap(), last.after);
    checked_log(&*store).await;
}
