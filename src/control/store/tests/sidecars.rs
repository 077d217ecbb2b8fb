//! Sidecars, as they were heard.

use super::*;

on_both! {
    what_is_newer_wins_in_whatever_order_it_comes
    many_are_heard_at_once
    a_forgotten_sidecar_is_gone_until_it_is_heard
    long_gone_sidecars_are_swept
}

fn sidecar(instance: &str, heard: i64, revision: u64) -> Sidecar {
    Sidecar {
        instance: instance.to_owned(),
        address: Some([192, 0, 2, 1].into()),
        first_seen: at(0),
        last_seen: at(heard),
        confirmed_at: at(heard),
        max_stale: 86_400,
        max_stale_write: 3_600,
        revision,
        durable: false,
        seq: 0,
        goodbye: false,
    }
}

async fn what_is_newer_wins_in_whatever_order_it_comes(ground: Ground) {
    let store = ground.store().await;
    let heard = |instance: &str| {
        let first = sidecar(instance, 10, 5);
        let durable = Sidecar { durable: true, first_seen: at(3), ..sidecar(instance, 11, 5) };
        let later = Sidecar { max_stale: 60, address: None, ..sidecar(instance, 20, 6) };
        let lag = Sidecar { confirmed_at: at(40), ..sidecar(instance, 19, 4) };
        let bye = Sidecar { goodbye: true, max_stale: 60, address: None, ..sidecar(instance, 20, 6) };
        [first, durable, later, lag, bye]
    };
    let orders = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3], [3, 4, 0, 2, 1], [1, 4, 3, 0, 2]];
    for (number, order) in orders.into_iter().enumerate() {
        let instance = format!("sidecar.{number}");
        let heard = heard(&instance);
        for at in order {
            store.register(&heard[at]).await.unwrap();
        }
        let expected =
            Sidecar { address: None, confirmed_at: at(40), max_stale: 60, goodbye: true, ..sidecar(&instance, 20, 6) };
        let all = store.sidecars().await.unwrap();
        assert_eq!(all[number], expected, "{order:?}");
    }
    // The disk of the newest revision, and of no other.
    store.heard(&[Sidecar { durable: true, ..sidecar("sidecar.0", 21, 6) }]).await.unwrap();
    store.heard(&[sidecar("sidecar.0", 22, 6)]).await.unwrap();
    let found = &store.sidecars().await.unwrap()[0];
    assert!(found.durable && !found.goodbye, "and whoever is heard again has not gone");
    store.heard(&[sidecar("sidecar.0", 23, 7)]).await.unwrap();
    assert!(!store.sidecars().await.unwrap()[0].durable);
}

async fn many_are_heard_at_once(ground: Ground) {
    let store = ground.store().await;
    let other = ground.other(&store).await;
    store.heard(&[]).await.unwrap();
    let all: Vec<_> = (0..250).rev().map(|number| sidecar(&format!("sidecar.{number:03}"), 1, 1)).collect();
    let twice: Vec<_> = all.iter().cloned().chain(all.iter().map(|one| sidecar(&one.instance, 2, 9))).collect();
    let (one, two) = tokio::join!(store.heard(&twice), other.heard(&twice));
    one.and(two).unwrap();
    let found = other.sidecars().await.unwrap();
    assert_eq!(found.len(), 250);
    assert!(found.iter().all(|sidecar| sidecar.revision == 9 && sidecar.last_seen == at(2)));
    if ground.database.is_some() {
        other.changed().await;
        store.changed().await;
    }
}

async fn a_forgotten_sidecar_is_gone_until_it_is_heard(ground: Ground) {
    let store = ground.store().await;
    store.register(&sidecar("sidecar.1", 1, 1)).await.unwrap();
    assert!(store.used("sidecar.1", 7, 20_000, &[]).await.unwrap());
    assert_eq!(store.sidecars().await.unwrap()[0].seq, 7);
    assert!(store.forget("sidecar.1").await.unwrap());
    assert!(!store.forget("sidecar.1").await.unwrap());
    assert!(store.sidecars().await.unwrap().is_empty());
    // What it reports late is counted, once, and makes no sidecar that is waited for.
    let used = [Used { key: id("key_1"), usage: Usage { allowed: 3, ..Usage::default() } }];
    assert!(!store.used("sidecar.1", 7, 20_000, &used).await.unwrap());
    assert!(store.used("sidecar.1", 8, 20_000, &used).await.unwrap());
    assert!(store.sidecars().await.unwrap().is_empty());
    store.heard(&[sidecar("sidecar.1", 2, 1)]).await.unwrap();
    assert_eq!(store.sidecars().await.unwrap(), [Sidecar { seq: 8, ..sidecar("sidecar.1", 2, 1) }]);
}

async fn long_gone_sidecars_are_swept(ground: Ground) {
    let store = ground.store().await;
    store.heard(&[sidecar("sidecar.1", 10, 1), sidecar("sidecar.2", 20, 1)]).await.unwrap();
    store.used("sidecar.1", 7, 20_000, &[]).await.unwrap();
    store.sweep(at(0), at(0), at(0), at(20), 20_000).await.unwrap();
    let left = store.sidecars().await.unwrap();
    assert_eq!(left.iter().map(|sidecar| sidecar.instance.as_str()).collect::<Vec<_>>(), ["sidecar.2"]);
    assert!(!store.used("sidecar.1", 7, 20_000, &[]).await.unwrap(), "counted before");
    store.sweep(at(0), at(0), at(0), at(20), 20_001).await.unwrap();
    assert!(store.used("sidecar.1", 7, 20_001, &[]).await.unwrap(), "long forgotten");
}
