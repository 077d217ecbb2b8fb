//! Sidecars, as they were heard.

use super::*;

on_both! {
    what_is_newer_wins_in_whatever_order_it_comes
    many_are_heard_at_once
    a_forgotten_sidecar_is_gone_until_it_registers
    a_name_belongs_to_whoever_was_the_first_to_use_it
    long_gone_sidecars_are_swept
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
            assert!(store.register(&heard[at], &head_of(&*store).await).await.unwrap());
        }
        let expected =
            Sidecar { address: None, confirmed_at: at(40), max_stale: 60, goodbye: true, ..sidecar(&instance, 20, 6) };
        let all = store.sidecars().await.unwrap();
        assert_eq!(all[number], expected, "{order:?}");
    }
    // The disk of the newest revision, and of no other.
    store.heard(&[Sidecar { durable: true, ..sidecar("sidecar.0", 21, 6) }], &head_of(&*store).await).await.unwrap();
    store.heard(&[sidecar("sidecar.0", 22, 6)], &head_of(&*store).await).await.unwrap();
    let found = &store.sidecars().await.unwrap()[0];
    assert!(found.durable && !found.goodbye, "and whoever is heard again has not gone");
    store.heard(&[sidecar("sidecar.0", 23, 7)], &head_of(&*store).await).await.unwrap();
    assert!(!store.sidecars().await.unwrap()[0].durable);
}

async fn many_are_heard_at_once(ground: Ground) {
    let store = ground.store().await;
    let other = ground.other(&store).await;
    store.heard(&[], &head_of(&*store).await).await.unwrap();
    let all: Vec<_> = (0..250).rev().map(|number| sidecar(&format!("sidecar.{number:03}"), 1, 1)).collect();
    let twice: Vec<_> = all.iter().cloned().chain(all.iter().map(|one| sidecar(&one.claim.instance, 2, 9))).collect();
    let head = head_of(&*store).await;
    for one in &all {
        assert!(store.register(one, &head).await.unwrap());
    }
    let (one, two) = tokio::join!(store.heard(&twice, &head), other.heard(&twice, &head));
    one.and(two).unwrap();
    let found = other.sidecars().await.unwrap();
    assert_eq!(found.len(), 250);
    assert!(found.iter().all(|sidecar| sidecar.revision == 9 && sidecar.last_seen == at(2)));
    if ground.database.is_some() {
        other.changed().await;
        store.changed().await;
    }
}

async fn a_forgotten_sidecar_is_gone_until_it_registers(ground: Ground) {
    let store = ground.store().await;
    store.register(&sidecar("sidecar.1", 1, 1), &head_of(&*store).await).await.unwrap();
    assert_eq!(store.used(&claim("sidecar.1"), 7, 20_000, &[]).await.unwrap(), Added::Now);
    assert_eq!(store.sidecars().await.unwrap()[0].seq, 7);
    assert!(store.forget("sidecar.1").await.unwrap());
    assert!(!store.forget("sidecar.1").await.unwrap());
    assert!(store.sidecars().await.unwrap().is_empty());
    // What it reports late is counted, once, and makes no sidecar that is waited for.
    let used = [Used { key: id("key_1"), usage: Usage { allowed: 3, ..Usage::default() } }];
    assert_eq!(store.used(&claim("sidecar.1"), 7, 20_000, &used).await.unwrap(), Added::Before);
    assert_eq!(store.used(&claim("sidecar.1"), 8, 20_000, &used).await.unwrap(), Added::Now);
    // Another control plane had something of it left to write.
    store.heard(&[sidecar("sidecar.1", 2, 1)], &head_of(&*store).await).await.unwrap();
    assert!(store.sidecars().await.unwrap().is_empty());
    assert!(store.register(&sidecar("sidecar.1", 2, 1), &head_of(&*store).await).await.unwrap());
    assert_eq!(store.sidecars().await.unwrap(), [Sidecar { seq: 8, ..sidecar("sidecar.1", 2, 1) }]);
}

async fn a_name_belongs_to_whoever_was_the_first_to_use_it(ground: Ground) {
    let store = ground.store().await;
    let other = ground.other(&store).await;
    let stranger = Claim { bound: "secret:another".to_owned(), ..claim("sidecar.1") };
    assert!(store.register(&sidecar("sidecar.1", 1, 1), &head_of(&*store).await).await.unwrap());
    let lie = Sidecar { claim: stranger.clone(), goodbye: true, ..sidecar("sidecar.1", 2, 9) };
    assert!(!other.register(&lie, &head_of(&*store).await).await.unwrap());
    assert_eq!(other.used(&stranger, 9, 20_000, &[]).await.unwrap(), Added::NotTheirs);
    assert_eq!(store.sidecars().await.unwrap(), [sidecar("sidecar.1", 1, 1)]);
    // Also when the sidecar is forgotten, so that nobody keeps it from coming back.
    store.forget("sidecar.1").await.unwrap();
    assert!(!other.register(&lie, &head_of(&*store).await).await.unwrap());
    assert!(other.register(&sidecar("sidecar.1", 3, 1), &head_of(&*store).await).await.unwrap());
    // Reports bind no name.
    assert_eq!(store.used(&claim("sidecar.2"), 1_800_000_000, 20_000, &[]).await.unwrap(), Added::Unknown);
    register(&*store, &["sidecar.2"]).await;
    assert_eq!(store.used(&claim("sidecar.2"), 1_800_000_000, 20_000, &[]).await.unwrap(), Added::Now);
    // No number shuts out all that would come after it.
    let leap = 1_800_000_000 + 10_000_001;
    assert_eq!(store.used(&claim("sidecar.2"), leap, 20_000, &[]).await.unwrap(), Added::Ahead);
    assert_eq!(store.used(&claim("sidecar.2"), leap - 1, 20_000, &[]).await.unwrap(), Added::Now);
}

async fn long_gone_sidecars_are_swept(ground: Ground) {
    let store = ground.store().await;
    for sidecar in [sidecar("sidecar.1", 10, 1), sidecar("sidecar.2", 20, 1)] {
        assert!(store.register(&sidecar, &head_of(&*store).await).await.unwrap());
    }
    store.used(&claim("sidecar.1"), 7, 20_000, &[]).await.unwrap();
    store.sweep(at(0), at(0), at(0), at(20), 20_000).await.unwrap();
    let left = store.sidecars().await.unwrap();
    assert_eq!(left.iter().map(|sidecar| sidecar.claim.instance.as_str()).collect::<Vec<_>>(), ["sidecar.2"]);
    assert_eq!(store.used(&claim("sidecar.1"), 7, 20_000, &[]).await.unwrap(), Added::Before);
    store.sweep(at(0), at(0), at(0), at(20), 20_001).await.unwrap();
    assert_eq!(store.used(&claim("sidecar.1"), 7, 20_001, &[]).await.unwrap(), Added::Unknown, "long forgotten");
}
