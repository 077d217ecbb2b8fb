//! When and from where a key was last used: shown by the commands, and not forgotten.

use serde_json::Value;

use crate::harness::{Key, Sidecar, Upstream, eventually, get, keyside, post};

/// What `keys show` says of a key.
async fn shown(sidecar: &Sidecar, id: &str) -> Value {
    let config = sidecar.path("keyside.toml");
    keyside(["keys", "show", id, "--config", config.to_str().unwrap(), "--output", "json"]).await.done().json()
}

async fn last_used(sidecar: &Sidecar, id: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually("the last use to be saved", async || {
        let key = shown(sidecar, id).await;
        if is(&key) { Ok(key) } else { Err(key) }
    })
    .await
}

#[tokio::test]
async fn the_last_use_is_shown_and_survives() {
    let (used, unused) = (Key::pair("used"), Key::pair("unused"));
    let upstream = Upstream::start().await;
    let config = "[listen]\ntrusted_proxies = [\"127.0.0.1\"]";
    let sidecar = Sidecar::in_front_of(&upstream).config(config).keys([&used, &unused]).start().await;
    let from = |address: &str| get("/").key(&used).field("X-Forwarded-For", address);
    assert_eq!(sidecar.ask(from("203.0.113.42")).await.status, 200);
    let first = last_used(&sidecar, &used.id, |key| key["last_used_ip"] == "203.0.113.42").await;
    let moment: jiff::Timestamp = first["last_used_at"].as_str().unwrap().parse().unwrap();
    let age = jiff::Timestamp::now().duration_since(moment);
    assert!((-5..120).contains(&age.as_secs()), "{first}");
    assert_eq!(shown(&sidecar, &unused.id).await["last_used_at"], Value::Null);

    // By another address, then: the latest counts.
    assert_eq!(sidecar.ask(from("2001:db8::7")).await.status, 200);
    last_used(&sidecar, &used.id, |key| key["last_used_ip"] == "2001:db8::7").await;
    // And what fails is no use.
    assert_eq!(
        sidecar.ask(get("/").basic(&used.public, "cs_wrong").field("X-Forwarded-For", "192.0.2.66")).await.status,
        401
    );
    assert_eq!(sidecar.ask(get("/").basic(&unused.public, "cs_wrong")).await.status, 401);

    let sidecar = sidecar.restart().await;
    let key = shown(&sidecar, &used.id).await;
    assert_eq!(key["last_used_ip"], "2001:db8::7", "{key}");
    assert_eq!(shown(&sidecar, &unused.id).await["last_used_at"], Value::Null);
    // The list has it too, in both forms.
    let path = sidecar.path("keyside.toml");
    let list = keyside(["keys", "list", "--config", path.to_str().unwrap()]).await.done();
    assert!(list.stdout.contains("2001:db8::7"), "{}", list.stdout);
    // A key that is used again after the restart goes on from there.
    assert_eq!(sidecar.ask(from("198.51.100.9")).await.status, 200);
    last_used(&sidecar, &used.id, |key| key["last_used_ip"] == "198.51.100.9").await;
}

/// Whose secret was right has used their key, also where it may not do what was asked for.
#[tokio::test]
async fn a_refused_request_is_a_use_too() {
    let key = Key::pair("key").scopes(["read"]);
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    assert_eq!(sidecar.ask(post("/", "x").key(&key)).await.status, 403);
    last_used(&sidecar, &key.id, |key| key["last_used_ip"] == "127.0.0.1").await;
}

/// The end saves what a second has not yet.
#[tokio::test]
async fn a_use_right_before_the_end_is_kept() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    let sidecar = sidecar.restart().await;
    assert_eq!(shown(&sidecar, &key.id).await["last_used_ip"], "127.0.0.1");
}

/// What the policy refuses takes nothing from the key's allowance, and is counted as refused.
#[tokio::test]
async fn a_refused_request_is_not_charged_to_the_key() {
    let key = Key::pair("key").with("limits = [\"2/1h\"]");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    for _ in 0..5 {
        assert_eq!(sidecar.ask(post("/", "").key(&key)).await.status, 403);
    }
    assert_eq!(sidecar.ask(get("/").key(&key)).await.field("x-ratelimit-remaining"), "1");
    sidecar.counts("keyside_key_requests_total", &[("key", "other"), ("outcome", "refused")], 5).await;
}
