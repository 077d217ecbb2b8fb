//! SQLite: locked, full, gone, damaged.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    process::{Command, Stdio},
};

use super::{super::*, Disk};

#[tokio::test(flavor = "multi_thread")]
async fn another_program_holds_the_lock() {
    let ground = Ground::sqlite();
    let store = ground.store().await;
    let head = commit(&*store, vec![key("key_1")]).await;
    let hold = "import sqlite3, sys\n\
                other = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
                other.execute('BEGIN EXCLUSIVE')\n\
                print('held', flush=True)\n\
                sys.stdin.read()";
    let mut other = Command::new("python3");
    other.args(["-c", hold]).arg(ground.file()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut other = other.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(other.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");

    let next = following(&head, vec![key("key_2")]);
    assert_fails(store.commit(&next).await, StoreError::Unavailable, "another program has it locked");
    assert_eq!(store.load().await.unwrap().head, head, "reading goes on");
    drop(other.stdin.take());
    other.wait().unwrap();
    store.commit(&next).await.unwrap();
    checked_log(&*store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_is_full() {
    let ground = Ground::sqlite();
    // Where these tests may not mount, `files_may_not_grow` has to do.
    let Some(_disk) = Disk::mounted(ground.folder.path(), "2m") else { return };
    let store = ground.store().await;
    let head = commit(&*store, vec![key("key_1")]).await;
    let filler = ground.folder.path().join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    let mut room = vec![0; 1 << 20];
    while !room.is_empty() {
        if file.write_all(&room).is_err() {
            room.truncate(room.len() / 2);
        }
    }
    let big = || (0..500).map(|number| key(&format!("key_{number:03}"))).collect::<Vec<_>>();
    assert_fails(store.commit(&following(&head, big())).await, StoreError::Full, "full");
    assert_fails(store.commit(&following(&head, big())).await, StoreError::Full, "full");
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.head, loaded.keys.len()), (head.clone(), 1), "nothing changed, and reading goes on");
    fs::remove_file(&filler).unwrap();
    drop(file);
    store.commit(&following(&head, big())).await.unwrap();
    checked_log(&*store).await;
    // What was written while there was no room is whole.
    store.close().await;
    drop(store);
    assert_eq!(ground.again().await.unwrap().load().await.unwrap().keys.len(), 501);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_goes_or_is_replaced() {
    for file in ["keyside.db", "keyside.db-wal"] {
        let ground = Ground::sqlite();
        let store = ground.store().await;
        let head = commit(&*store, vec![key("key_1")]).await;
        let (path, aside) = (ground.folder.path().join(file), ground.folder.path().join("aside"));
        fs::rename(&path, &aside).unwrap();
        let next = following(&head, vec![key("key_2")]);
        assert_fails(store.commit(&next).await, StoreError::Unavailable, "was removed or moved away while it was open");
        assert_fails(store.head().await, StoreError::Unavailable, file);
        assert!(!path.exists(), "no new one takes its place");
        fs::copy(&aside, &path).unwrap();
        assert_fails(store.commit(&next).await, StoreError::Unavailable, "was replaced while it was open");
        fs::rename(&aside, &path).unwrap();
        store.commit(&next).await.unwrap();
        checked_log(&*store).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_is_damaged() {
    let ground = Ground::sqlite();
    let store = ground.store().await;
    let keys = (0..500).map(|number| key(&format!("key_{number:03}"))).collect();
    commit(&*store, keys).await;
    store.close().await;
    drop(store);
    let whole = fs::read(ground.file()).unwrap();
    let page = 4096;
    assert!(whole.len() > 20 * page);
    for damaged in [2, 5, whole.len() / page - 1] {
        let mut file = fs::OpenOptions::new().read(true).write(true).open(ground.file()).unwrap();
        file.seek(SeekFrom::Start((damaged * page) as u64)).unwrap();
        file.write_all(&vec![0xa5; page]).unwrap();
        drop(file);
        let found = ground.again().await.expect_err("a damaged page is noticed at the start");
        assert!(matches!(found, StoreError::Damaged(_)), "page {damaged}: {found}");
        fs::write(ground.file(), &whole).unwrap();
    }
    // Cut off.
    fs::OpenOptions::new().write(true).open(ground.file()).unwrap().set_len((whole.len() / 2) as u64).unwrap();
    let found = ground.again().await.expect_err("a cut file is noticed");
    assert!(matches!(found, StoreError::Damaged(_)), "{found}");
    let mut now = Vec::new();
    fs::File::open(ground.file()).unwrap().read_to_end(&mut now).unwrap();
    assert_eq!(now, whole[..whole.len() / 2], "nothing is repaired that nobody asked for");
}
