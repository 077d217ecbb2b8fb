//! One suite for both databases.

use std::path::Path;

use serde_json::json;

use super::*;
use crate::control::audit;

fn sqlite(folder: &Path, create: bool) -> Settings {
    Settings { place: Place::Sqlite(folder.join("keyside.db")), create }
}

/// A transaction that follows this head.
fn following(before: &Head, changes: Vec<Change>, accounts: Vec<AccountChange>) -> Commit {
    let mut after = before.clone();
    after.entries += 1;
    if !changes.is_empty() {
        after.revision += 1;
        after.digest = audit::hex(&format!("{}{:?}", before.digest, changes.len()));
    }
    let mut entry = Entry {
        seq: after.entries,
        at: Wall::from_unix_millis(1_763_700_000_000),
        actor: "operator:anna".to_owned(),
        from: Some([203, 0, 113, 9].into()),
        action: "key.create".to_owned(),
        subject: "key_1".to_owned(),
        detail: json!({"z": 1, "a": [true, null, "ü"]}),
        revision: (!changes.is_empty()).then_some(after.revision),
        hash: String::new(),
    };
    entry.hash = audit::hash(&before.hash, &entry);
    after.hash.clone_from(&entry.hash);
    Commit { before: before.clone(), after, changes, accounts, entry, remembered: None }
}

fn key(id: &str) -> Arc<KeyRow> {
    let object = json!({
        "id": id, "name": "One", "kind": "token", "prefix": "ck_live_abc", "owner": "svc", "scopes": ["read"],
        "hash": "$sha256$4c86fcf6fe4dcb18a3ea8c5cb3c3b8d0b3e5fb0a1b9f2a4a6e1d2d9d7b8c1a00",
    });
    crate::keys::document::json::read_key(&object).row.expect("a key")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(open(&sqlite(folder.path(), false)).await, Err(StoreError::Unavailable(_))));
    let store = open(&sqlite(folder.path(), true)).await.unwrap();
    let head = store.head().await.unwrap();
    let commit = following(&head, vec![Change::Key(key("key_1"))], vec![]);
    store.commit(&commit).await.unwrap();
    assert!(matches!(store.commit(&commit).await, Err(StoreError::Conflict)));
    assert!(matches!(open(&sqlite(folder.path(), false)).await, Err(StoreError::Unavailable(_))));
    store.close().await;
    drop(store);
    let store = open(&sqlite(folder.path(), false)).await.unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.head, loaded.keys), (commit.after.clone(), vec![key("key_1")]));
    assert_eq!(store.audit_from(1, 10).await.unwrap(), [commit.entry]);
}
