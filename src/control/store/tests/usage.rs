//! Use, counted once.

use super::*;

on_both! {
    a_report_is_counted_once
    use_is_added_up
    the_last_refusal_of_each_reason_is_kept
    no_sum_overflows
    what_was_written_since_a_mark_comes
    days_are_added_up_and_swept
}

fn used(key: &str, allowed: u64, refused: u64) -> Used {
    Used { key: id(key), usage: Usage { allowed, refused, ..Usage::default() } }
}

/// The use of all keys.
async fn all(store: &dyn Store) -> Vec<(String, u64, u64)> {
    let (found, _) = store.usage_since(0).await.unwrap();
    found.into_iter().map(|(key, usage)| (key.to_string(), usage.allowed, usage.refused)).collect()
}

async fn a_report_is_counted_once(ground: Ground) {
    let store = ground.store().await;
    register(&*store, &["sidecar.1", "sidecar.2"]).await;
    let other = ground.other(&store).await;
    let report = [used("key_2", 10, 1), used("key_1", 5, 0)];
    // Eight at once send it, again and again.
    let racers = (0..8).map(|task| {
        let (store, report) = (if task % 2 == 0 { store.clone() } else { other.clone() }, report.clone());
        tokio::spawn(async move {
            let mut counted = 0;
            for seq in 1..=5 {
                counted +=
                    usize::from(store.used(&claim("sidecar.1"), seq, 20_000, &report).await.unwrap() == Added::Now);
            }
            counted
        })
    });
    let mut counted = 0;
    for racer in racers.collect::<Vec<_>>() {
        counted += racer.await.unwrap();
    }
    // One that came behind a later one was not counted; the sender never has two on their way.
    assert!((1..=5).contains(&counted), "{counted}");
    let sums = [("key_1".to_owned(), 5 * counted as u64, 0), ("key_2".to_owned(), 10 * counted as u64, counted as u64)];
    assert_eq!(all(&*other).await, sums);
    assert_eq!(store.used(&claim("sidecar.1"), 5, 20_000, &report).await.unwrap(), Added::Before);
    assert_eq!(store.used(&claim("sidecar.1"), 3, 20_000, &report).await.unwrap(), Added::Before);
    assert_eq!(all(&*store).await, sums);
    assert_eq!(
        store.used(&claim("sidecar.2"), 1, 20_000, &report).await.unwrap(),
        Added::Now,
        "each sidecar counts its own"
    );
}

async fn use_is_added_up(ground: Ground) {
    let store = ground.store().await;
    register(&*store, &["sidecar.1"]).await;
    let seen = |seconds: Option<i64>, ip: u8| Used {
        key: id("key_1"),
        usage: Usage {
            last_used_at: seconds.map(at),
            last_ip: seconds.map(|_| [192, 0, 2, ip].into()),
            allowed: 1,
            ..Usage::default()
        },
    };
    let last = async || {
        let (found, _) = store.usage_since(0).await.unwrap();
        (found[0].1.last_used_at, found[0].1.last_ip, found[0].1.allowed)
    };
    let mut seq = 0;
    let mut report = async |used: &[Used]| {
        seq += 1;
        assert_eq!(store.used(&claim("sidecar.1"), seq, 20_000, used).await.unwrap(), Added::Now);
    };
    report(&[seen(None, 0)]).await;
    assert_eq!(last().await, (None, None, 1));
    report(&[seen(Some(20), 1)]).await;
    report(&[seen(Some(10), 2), seen(None, 0)]).await;
    assert_eq!(last().await, (Some(at(20)), Some([192, 0, 2, 1].into()), 4), "the newest wins, not the last");
    report(&[seen(Some(30), 3), seen(Some(25), 4)]).await;
    assert_eq!(last().await, (Some(at(30)), Some([192, 0, 2, 3].into()), 6));
    let many: Vec<_> = (0..250).map(|number| used(&format!("key_{number:03}"), 1, 2)).collect();
    report(&many).await;
    assert_eq!(all(&*store).await.len(), 251);
}

async fn the_last_refusal_of_each_reason_is_kept(ground: Ground) {
    let store = ground.store().await;
    register(&*store, &["sidecar.1"]).await;
    let refusal = |reason: &str, seconds: i64, count: u64| Refusal {
        reason: reason.to_owned(),
        at: at(seconds),
        ip: Some([192, 0, 2, u8::try_from(seconds).unwrap()].into()),
        count,
    };
    let report = async |seq: u64, refusals: Vec<Refusal>| {
        let used = Used { key: id("key_1"), usage: Usage { refused: 1, refusals, ..Usage::default() } };
        store.used(&claim("sidecar.1"), seq, 20_000, &[used]).await.unwrap();
        store.usage_since(0).await.unwrap().0.remove(0).1.refusals
    };
    report(1, vec![refusal("revoked", 10, 2), refusal("expired", 11, 1)]).await;
    let found = report(2, vec![refusal("revoked", 5, 3), refusal("expired", 12, 1), refusal("expired", 2, 1)]).await;
    assert_eq!(found, [refusal("expired", 12, 3), refusal("revoked", 10, 5)]);
    let eight: Vec<_> = (0..8).map(|number| refusal(&format!("reason_{number}"), 20 + number, 1)).collect();
    let found = report(3, eight.clone()).await;
    assert_eq!(found, eight.into_iter().rev().collect::<Vec<_>>(), "eight at most, the newest");
}

async fn no_sum_overflows(ground: Ground) {
    let store = ground.store().await;
    register(&*store, &["sidecar.1", "sidecar.2"]).await;
    ground.run("INSERT INTO usage (key, allowed, refused, mark) VALUES ('key_1', 9223372036854775800, 0, 0)").await;
    for seq in 1..=20 {
        let most = Refusal { reason: "revoked".to_owned(), at: at(0), ip: None, count: u64::MAX };
        let usage = Usage { allowed: u64::MAX, refused: u64::MAX, refusals: vec![most], ..Usage::default() };
        store.used(&claim("sidecar.1"), seq, 20_000, &[Used { key: id("key_1"), usage }]).await.unwrap();
    }
    store.used(&claim("sidecar.2"), u64::MAX, 20_000, &[used("key_2", 1, 1)]).await.unwrap();
    let sums = all(&*store).await;
    assert_eq!(sums[0], ("key_1".to_owned(), i64::MAX as u64, 20_000_000_000_000));
    let days = store.days_of_all(0).await.unwrap();
    assert_eq!(days, [Day { day: 20_000, allowed: 9_000_000_000_001, refused: 9_000_000_000_001 }]);
}

async fn what_was_written_since_a_mark_comes(ground: Ground) {
    let store = ground.store().await;
    register(&*store, &["sidecar.1"]).await;
    let (nothing, start) = store.usage_since(0).await.unwrap();
    assert!(nothing.is_empty());
    let keys = |found: Vec<(KeyId, Usage)>| found.into_iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>();
    store.used(&claim("sidecar.1"), 1, 20_000, &[used("key_1", 1, 0)]).await.unwrap();
    let (found, one) = store.usage_since(start).await.unwrap();
    assert_eq!(keys(found), ["key_1"]);

    // One that began first and commits last.
    let late = match &ground.place {
        Place::Sqlite(_) => None,
        Place::Postgres { url, .. } => {
            use sqlx::Connection as _;
            let mut late = sqlx::PgConnection::connect(url).await.unwrap();
            let write = "BEGIN; INSERT INTO keyside.usage (key, allowed, refused, mark) \
                         VALUES ('key_late', 1, 0, pg_current_xact_id()::text::bigint)";
            sqlx::raw_sql(write).execute(&mut late).await.unwrap();
            Some(late)
        }
    };
    store.used(&claim("sidecar.1"), 2, 20_000, &[used("key_2", 1, 0)]).await.unwrap();
    let (found, two) = store.usage_since(one).await.unwrap();
    assert!(keys(found).contains(&"key_2".to_owned()));
    if let Some(mut late) = late {
        sqlx::raw_sql("COMMIT").execute(&mut late).await.unwrap();
        let (found, _) = store.usage_since(two).await.unwrap();
        assert!(keys(found).contains(&"key_late".to_owned()), "it is not missed");
    }
    // With nothing under way any more, nothing comes again.
    let (_, three) = store.usage_since(two).await.unwrap();
    let (found, _) = store.usage_since(three).await.unwrap();
    if ground.database.is_none() {
        assert!(found.is_empty(), "{found:?}");
    }
}

async fn days_are_added_up_and_swept(ground: Ground) {
    let store = ground.store().await;
    register(&*store, &["sidecar.1"]).await;
    commit(&*store, vec![key("key_1"), key("key_2")]).await;
    let mut seq = 0;
    for (day, report) in [
        (20_000, [used("key_1", 1, 2), used("key_2", 10, 20)]),
        (20_001, [used("key_1", 3, 0), used("key_2", 0, 1)]),
        (20_001, [used("key_1", 1, 1), used("gone", 5, 5)]),
    ] {
        seq += 1;
        store.used(&claim("sidecar.1"), seq, day, &report).await.unwrap();
    }
    let day = |day, allowed, refused| Day { day, allowed, refused };
    assert_eq!(store.days(&id("key_1"), 0).await.unwrap(), [day(20_000, 1, 2), day(20_001, 4, 1)]);
    assert_eq!(store.days(&id("key_1"), 20_001).await.unwrap(), [day(20_001, 4, 1)]);
    assert_eq!(store.days_of_all(0).await.unwrap(), [day(20_000, 11, 22), day(20_001, 9, 7)]);
    store.sweep(at(0), at(0), at(0), at(0), 20_001).await.unwrap();
    assert_eq!(store.days_of_all(0).await.unwrap(), [day(20_001, 4, 2)], "and those of keys that are gone");
    assert_eq!(all(&*store).await.len(), 2);
}
