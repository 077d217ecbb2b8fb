//! Commits, and what is read of them.

use std::time::Duration;

use futures_util::FutureExt as _;

use super::*;

on_both! {
    what_was_committed_is_there_after_a_restart
    of_two_who_were_judged_by_the_same_head_one_is_refused
    four_writers_get_two_hundred_commits_into_one_chain
    another_control_plane_catches_up
    what_is_no_longer_kept_is_loaded_anew
    another_history_is_noticed
    rows_change_and_go_in_the_order_of_the_changes
    the_audit_log_is_filtered_and_paged
    what_a_create_came_to_is_remembered
    a_damaged_row_is_named_and_not_skipped
    a_commit_that_nobody_waits_for_is_made
    many_keys_load
}

async fn what_was_committed_is_there_after_a_restart(ground: Ground) {
    let store = ground.store().await;
    let empty = store.load().await.unwrap();
    assert_eq!((empty.head.revision, empty.head.entries, empty.head.epoch.len()), (0, 0, 32));
    assert!(empty.keys.is_empty() && empty.owners.is_empty() && empty.operators.is_empty());

    let one = following(&empty.head, vec![Change::Owner(owner("svc")), key("key_1"), key("key_2")]);
    store.commit(&one).await.unwrap();
    let two = with_entry(&one.after, vec![], |entry| (entry.from, entry.detail) = (None, Value::Null));
    store.commit(&two).await.unwrap();
    store.close().await;
    drop(store);

    let store = ground.again().await.unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.head, two.after);
    assert_eq!(loaded.owners, [owner("svc")]);
    assert_eq!(loaded.keys, [key_named("key_1", "One — \"ü\""), key_named("key_2", "One — \"ü\"")]);
    let revision = Revision { revision: 1, digest: one.after.digest.clone(), at: at(0), changes: one.changes.clone() };
    assert_eq!(loaded.revisions, [revision]);
    assert_eq!(checked_log(&*store).await, [one.entry, two.entry]);
}

async fn of_two_who_were_judged_by_the_same_head_one_is_refused(ground: Ground) {
    let store = ground.store().await;
    let head = store.head().await.unwrap();
    let one = following(&head, vec![key("key_1")]);
    store.commit(&one).await.unwrap();
    assert!(matches!(store.commit(&one).await, Err(StoreError::Conflict)));
    let other = following(&head, vec![key("key_2")]);
    assert!(matches!(store.commit(&other).await, Err(StoreError::Conflict)));
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.head, loaded.keys.len(), loaded.revisions.len()), (one.after, 1, 1));
}

async fn four_writers_get_two_hundred_commits_into_one_chain(ground: Ground) {
    let first = ground.store().await;
    let second = ground.other(&first).await;
    let writer = |task: usize| {
        let store = if task.is_multiple_of(2) { first.clone() } else { second.clone() };
        tokio::spawn(async move {
            let mut head = store.head().await.unwrap();
            for number in 0..50 {
                let id = format!("key_{task}_{number:02}");
                // Some change operators only, and make no revision.
                let changes = if number % 5 == 4 { vec![] } else { vec![key(&id)] };
                loop {
                    let commit = with_entry(&head, changes.clone(), |entry| entry.subject.clone_from(&id));
                    match store.commit(&commit).await {
                        Ok(()) => break head = commit.after,
                        Err(StoreError::Conflict) => {
                            let caught = store.catch_up(&head).await.unwrap();
                            let revisions = caught.revisions.expect("all are kept");
                            assert_eq!(revisions.len() as u64, caught.head.revision - head.revision);
                            head = caught.head;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        })
    };
    for writer in (0..4).map(writer).collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let mut subjects: Vec<_> = checked_log(&*first).await.into_iter().map(|entry| entry.subject).collect();
    subjects.sort();
    let all = (0..4).flat_map(|task| (0..50).map(move |number| format!("key_{task}_{number:02}")));
    assert_eq!(subjects, all.collect::<Vec<_>>(), "every one once");
    let loaded = second.load().await.unwrap();
    assert_eq!((loaded.keys.len(), loaded.head.revision, loaded.revisions.len()), (160, 160, 160));
}

async fn another_control_plane_catches_up(ground: Ground) {
    let store = ground.store().await;
    let other = ground.other(&store).await;
    let known = other.head().await.unwrap();
    let one = commit(&*store, vec![key("key_1"), key("key_2")]).await;
    let two = commit(&*store, vec![Change::DeletedKey(id("key_1"))]).await;
    if ground.database.is_some() {
        // Once for having begun to listen, at most; then for what was written.
        other.changed().await;
    }
    let caught = other.catch_up(&known).await.unwrap();
    let revisions = caught.revisions.unwrap();
    assert_eq!(caught.head, two);
    assert_eq!(revisions.iter().map(|revision| revision.changes.len()).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(revisions.iter().map(|revision| &revision.digest).collect::<Vec<_>>(), [&one.digest, &two.digest]);
    let caught = other.catch_up(&one).await.unwrap();
    assert_eq!(caught.revisions.unwrap()[0].changes, [Change::DeletedKey(id("key_1"))]);
    assert_eq!(other.catch_up(&two).await.unwrap().revisions, Some(vec![]));
}

async fn what_is_no_longer_kept_is_loaded_anew(ground: Ground) {
    let store = ground.keeping(10).await;
    let mut heads = vec![store.head().await.unwrap()];
    for _ in 0..130 {
        heads.push(commit(&*store, vec![key("key_1")]).await);
    }
    let kept = async |since: usize| store.catch_up(&heads[since]).await.unwrap().revisions.map(|kept| kept.len());
    // The last look for old ones was at 128.
    assert_eq!(kept(0).await, None);
    assert_eq!(kept(117).await, None);
    assert_eq!(kept(118).await, Some(12));
    assert_eq!(kept(130).await, Some(0));
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.revisions.len(), loaded.revisions[0].revision), (12, 119));
}

async fn another_history_is_noticed(ground: Ground) {
    let store = ground.store().await;
    let one = commit(&*store, vec![key("key_1")]).await;
    let two = commit(&*store, vec![key("key_2")]).await;
    let revisions = async |since: &Head| store.catch_up(since).await.unwrap().revisions;
    assert_eq!(revisions(&one).await.map(|revisions| revisions.len()), Some(1));
    assert_eq!(revisions(&Head { epoch: "other".to_owned(), ..one.clone() }).await, None);
    assert_eq!(revisions(&Head { digest: "other".to_owned(), ..one }).await, None);
    assert_eq!(revisions(&Head { digest: "other".to_owned(), ..two.clone() }).await, None);
    assert_eq!(revisions(&Head { revision: 3, ..two }).await, None, "the store was put back to before");
}

async fn rows_change_and_go_in_the_order_of_the_changes(ground: Ground) {
    let store = ground.store().await;
    let many = (0..350).map(|number| key(&format!("key_{number:03}")));
    commit(&*store, many.chain([Change::Owner(owner("svc")), Change::Owner(owner("gone"))]).collect()).await;
    register(&*store, &["sidecar"]).await;
    let used = [Used { key: id("key_007"), usage: Usage { allowed: 1, ..Usage::default() } }];
    store.used(&claim("sidecar"), 1, 20_000, &used).await.unwrap();
    let changes = vec![
        Change::Key(key_named("key_001", "first")),
        Change::Key(key_named("key_001", "second")),
        Change::DeletedKey(id("key_002")),
        Change::Key(key_named("key_002", "anew")),
        Change::Key(key_named("key_003", "in vain")),
        Change::DeletedKey(id("key_003")),
        Change::DeletedKey(id("key_007")),
        Change::DeletedOwner("gone".parse().unwrap()),
    ];
    commit(&*store, changes.clone()).await;
    let loaded = store.load().await.unwrap();
    let name = |id: &str| loaded.keys.iter().find(|key| key.id.as_str() == id).map(|key| key.name.to_string());
    assert_eq!(loaded.keys.len(), 348);
    assert_eq!(name("key_001").as_deref(), Some("second"));
    assert_eq!(name("key_002").as_deref(), Some("anew"));
    assert_eq!((name("key_003"), name("key_007")), (None, None));
    assert_eq!(loaded.owners, [owner("svc")]);
    assert_eq!(loaded.revisions[1].changes, changes);
    assert_eq!(store.usage_since(0).await.unwrap().0, [], "the use of a key goes with it");
    assert_eq!(store.days(&id("key_007"), 0).await.unwrap(), []);
}

async fn the_audit_log_is_filtered_and_paged(ground: Ground) {
    let store = ground.store().await;
    let rows = [
        ("operator:anna", "key.create", "key_1"),
        ("operator:bert", "key.revoke", "key_1"),
        ("token:7", "key.create", "key_2"),
        ("operator:anna", "keys", "key_%"),
        ("operator:anna", "owner.create", "svc"),
        ("system", "key", "key_1"),
    ];
    for (actor, action, subject) in rows {
        let commit = with_entry(&store.head().await.unwrap(), vec![], |entry| {
            (entry.actor, entry.action, entry.subject) = (actor.to_owned(), action.to_owned(), subject.to_owned());
        });
        store.commit(&commit).await.unwrap();
    }
    let check = async |change: fn(&mut AuditFilter), expected: &[u64]| {
        let mut filter = AuditFilter { limit: 100, ..AuditFilter::default() };
        change(&mut filter);
        let found = store.audit(&filter).await.unwrap();
        assert_eq!(found.iter().map(|entry| entry.seq).collect::<Vec<_>>(), expected, "{filter:?}");
    };
    check(|_| {}, &[6, 5, 4, 3, 2, 1]).await;
    check(|filter| filter.limit = 2, &[6, 5]).await;
    check(|filter| (filter.limit, filter.before) = (2, Some(5)), &[4, 3]).await;
    check(|filter| filter.before = Some(1), &[]).await;
    check(|filter| filter.actor = Some("operator:anna".to_owned()), &[5, 4, 1]).await;
    check(|filter| filter.action = Some("key".to_owned()), &[6, 3, 2, 1]).await;
    check(|filter| filter.action = Some("key.create".to_owned()), &[3, 1]).await;
    check(|filter| filter.subject = Some("key_1".to_owned()), &[6, 2, 1]).await;
    check(|filter| filter.subject = Some("key_%".to_owned()), &[4]).await;
    check(|filter| filter.actor = Some("' OR 1 = 1 --".to_owned()), &[]).await;
    let both = |filter: &mut AuditFilter| {
        (filter.actor, filter.action, filter.before) = (Some("operator:anna".into()), Some("key".into()), Some(4));
    };
    check(both, &[1]).await;
    assert_eq!(store.audit_from(5, 1).await.unwrap()[0].seq, 5);
}

async fn what_a_create_came_to_is_remembered(ground: Ground) {
    let store = ground.store().await;
    let remembered = |made: &str, seconds| Remembered {
        key: "aa".repeat(32),
        request: "bb".repeat(32),
        made: id(made),
        at: at(seconds),
    };
    let mut one = following(&store.head().await.unwrap(), vec![key("key_1")]);
    one.remembered = Some(remembered("key_1", 0));
    store.commit(&one).await.unwrap();
    assert_eq!(store.remembered(&"aa".repeat(32)).await.unwrap(), one.remembered);
    assert_eq!(store.remembered("cc").await.unwrap(), None);
    // Whoever commits another has judged the old one to count no more.
    let mut two = following(&one.after, vec![key("key_2")]);
    two.remembered = Some(remembered("key_2", 100));
    store.commit(&two).await.unwrap();
    assert_eq!(store.remembered(&"aa".repeat(32)).await.unwrap(), two.remembered);
    store.sweep(at(100), at(0), at(0), at(0), 0).await.unwrap();
    assert_eq!(store.remembered(&"aa".repeat(32)).await.unwrap(), two.remembered);
    store.sweep(at(101), at(0), at(0), at(0), 0).await.unwrap();
    assert_eq!(store.remembered(&"aa".repeat(32)).await.unwrap(), None);
}

async fn a_damaged_row_is_named_and_not_skipped(ground: Ground) {
    let store = ground.store().await;
    let head = commit(&*store, vec![Change::Owner(owner("svc")), key("key_1"), key("key_2")]).await;
    for (damage, whose, repair) in [
        ("UPDATE keys SET document = '{\"id\":' WHERE id = 'key_2'", "the key key_2", None),
        (
            "UPDATE keys SET document = '{\"id\":\"key_2\"}' WHERE id = 'key_2'",
            "the key key_2: `kind` is missing",
            None,
        ),
        (
            "UPDATE keys SET document = (SELECT document FROM keys WHERE id = 'key_1') WHERE id = 'key_2'",
            "the key key_2: another id",
            Some("DELETE FROM keys WHERE id = 'key_2'"),
        ),
        ("UPDATE owners SET document = '[]'", "the owner svc: an owner is an object", Some("DELETE FROM owners")),
        ("UPDATE changes SET lines = '[]'", "the changes of revision 1: nothing", None),
        ("UPDATE changes SET lines = '[{\"kex\":1}]'", "the changes of revision 1: an unknown change", None),
        ("DELETE FROM changes", "the changes: the last one is not", None),
    ] {
        ground.run(damage).await;
        assert_fails(store.load().await, StoreError::Damaged, whose);
        if let Some(repair) = repair {
            ground.run(repair).await;
        }
    }
    assert_eq!(store.catch_up(&Head { revision: 0, ..head }).await.unwrap().revisions, None);
    ground.run("UPDATE audit SET detail = 'x'").await;
    assert_fails(store.audit_from(1, 1).await, StoreError::Damaged, "the audit entry 1");
    ground.run("DELETE FROM head").await;
    assert_fails(store.head().await, StoreError::Damaged, "the head");
}

async fn a_commit_that_nobody_waits_for_is_made(ground: Ground) {
    let store = ground.store().await;
    for _ in 0..20 {
        let next = following(&store.head().await.unwrap(), vec![key("key_1")]);
        // Begun, and dropped at once. A machine that does ten other things may have done it by then.
        store.commit(&next).now_or_never().unwrap_or(Ok(())).unwrap();
        let made = async { while store.head().await.unwrap() != next.after {} };
        tokio::time::timeout(Duration::from_secs(30), made).await.expect("it is made as a whole");
    }
    checked_log(&*store).await;
}

async fn many_keys_load(ground: Ground) {
    let store = ground.store().await;
    let keys: Vec<_> = (0..100_000).map(|number| key(&format!("key_{number:06}"))).collect();
    for some in keys.chunks(10_000) {
        commit(&*store, some.to_vec()).await;
    }
    let began = crate::clock::mono();
    let loaded = store.load().await.unwrap();
    let took = crate::clock::mono().since(began);
    println!("100,000 keys and 100,000 changes: loaded in {took:?}");
    assert_eq!(loaded.keys.len(), 100_000);
}
