//! Old keys and unused ones: the list finds them, and what it says to do is done.

use jiff::{SignedDuration, Timestamp};

use super::service::{Minted, Service};
use crate::harness::{Key, Request, Upstream, eventually, key_file};

/// So many days ago.
fn ago(days: i64) -> Timestamp {
    let moment = Timestamp::now() - SignedDuration::from_hours(24 * days);
    Timestamp::from_second(moment.as_second()).unwrap()
}

/// A sidecar with this preset that has stood there for a year: four keys, one of which is used now.
pub(super) async fn old_and_unused_keys_are_found(
    preset: &str,
    key: impl Fn(&str) -> Key,
    read: impl Fn(&Key) -> Request,
) {
    let ages = [("busy", 365), ("forgotten", 365), ("never", 91), ("new", 89)];
    let keys @ [busy, forgotten, never, new] = &ages.map(|(name, _)| key(name));
    let mut text = String::new();
    for (key, (_, days)) in keys.iter().zip(ages) {
        let row = key.row();
        let (before, after) = row.split_once("created_at = ").unwrap();
        let (_, after) = after.split_once('\n').unwrap();
        text.push_str(&format!("{before}created_at = {}\n{after}", ago(days)));
    }
    let text = key_file([]).replacen("keys = 0", "keys = 4", 1).replacen("[end]", &format!("{text}[end]"), 1);
    let used = |key: &Key, days| format!("{{\"key\":{:?},\"at\":\"{}\",\"ip\":\"203.0.113.42\"}}\n", key.id, ago(days));
    let uses =
        format!("{{\"format\":\"keyside-last-used\",\"version\":1}}\n{}{}", used(busy, 200), used(forgotten, 100));
    let upstream = Upstream::start().await;
    let builder = Service::quick(preset, &upstream).key_file(text).file("state/last-used.ndjson", uses);
    let service = Service::of(builder).await;

    assert_eq!(service.sidecar.ask(read(busy)).await.status, 200);
    let list = async |more: &[&str]| {
        let list = service.json(&[&["keys", "list"], more].concat()).await;
        list.as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let unused = eventually("the use of today", async || match list(&["--unused-for", "90d"]).await {
        unused if unused.contains(&busy.id) => Err(unused),
        unused => Ok(unused),
    })
    .await;
    assert_eq!(unused, [&*forgotten.id, &never.id]);
    assert_eq!(list(&["--older-than", "90d"]).await, [&*busy.id, &forgotten.id, &never.id]);
    let advice = async || service.run(&["keys", "list"]).await.done().stderr;
    let said = advice().await;
    assert!(said.contains("to be rotated: 3 (keyside keys list --older-than 90d --"), "{said}");
    assert!(said.contains("to be revoked: 2 (keyside keys list --unused-for 90d --"), "{said}");

    for id in unused {
        service.change(&["keys", "revoke", &id]).await;
    }
    let rotated = Minted::of(service.change(&["keys", "rotate", &busy.id, "--overlap", "0", "--output", "json"]).await);
    for (key, status) in [(busy, 401), (forgotten, 401), (never, 401), (new, 200)] {
        assert_eq!(service.sidecar.ask(read(key)).await.status, status, "{}", key.id);
    }
    assert_eq!(advice().await, "");
    assert_eq!(list(&["--older-than", "0"]).await, [&*new.id, &rotated.id]);
}
