//! The life of a key, by commands, as the step-by-step guide goes through it; and who watches over it.

use serde_json::{Value, json};

use super::{API, REFUSED, of_each_permission};
use crate::{
    harness::{eventually, get, keyside, post},
    systems::service::{Minted, System},
};

/// [management API] "add a key: describe it, choose the user, choose the permissions, generate"
/// [secret at rest] "the secret is shown once: copy it; who loses it revokes the key and makes a new one"
/// [key shape] "generating shows the consumer key and the consumer secret"
/// [credential] "the two together authenticate an application"
#[tokio::test]
async fn the_guide_step_by_step() {
    let system = System::unlimited("woocommerce", "").await;
    system.owner("marketing", &["--name", "Marketing", "--capability", "edit_products"]).await;
    for (name, scope) in [("Marketing Automation Integration", "read"), ("Inventory Management System", "read_write")] {
        let pair = system.mint(name, "marketing", scope, &[]).await;
        let row = &pair.printed;
        assert_eq!((&row["name"], &row["owner"], &row["scopes"]), (&name.into(), &"marketing".into(), &json!([scope])));
        assert_eq!((&row["kind"], &row["prefix"]), (&"pair".into(), &pair.prefix.as_str().into()));
        assert_eq!(system.sidecar.ask(pair.on(get(&format!("{API}/products")))).await.status, 200);
        // Neither the file nor any command gives the secret again.
        let shown = system.run(&["keys", "show", &pair.id, "--output", "json"]).await.done().stdout;
        let listed = system.run(&["keys", "list", "--output", "json"]).await.done().stdout;
        for text in [shown, listed, system.key_file()] {
            assert!(text.contains(&pair.prefix) && !text.contains(&pair.secret[3..]), "{text}");
        }
    }
    assert_eq!(system.key_file().matches("$hmac-sha256$").count(), 2);
    // A permission that there is not is no key.
    for scope in ["Read/Write", "admin", "", "READ"] {
        let create = ["keys", "create", "--name", "x", "--owner", "marketing", "--scope", scope];
        assert_eq!(system.run(&create).await.status, 2, "{scope:?}");
    }
}

/// [revoke] "a key that is not needed, or may be known to others, is revoked at once"
/// [rotate] "lost or exposed: a new key, and the old one revoked"
/// [advice the product should turn into help] "revoke unnecessary keys"
#[tokio::test]
async fn a_key_is_rotated_and_revoked() {
    let system = System::unlimited("woocommerce", "").await;
    let [old, writer, _] = of_each_permission(&system).await;
    let ask = async |pair: &Minted| system.sidecar.ask(pair.on(get(&format!("{API}/orders")))).await.brief();
    let new = Minted::of(system.change(&["keys", "rotate", &old.id, "--output", "json"]).await);
    assert_eq!((ask(&old).await, ask(&new).await), ("200".into(), "200".into()));
    assert_eq!(new.printed["scopes"], old.printed["scopes"]);
    system.run(&["keys", "revoke", &old.id, "--wait"]).await.done();
    assert_eq!((ask(&old).await, ask(&new).await), (REFUSED.into(), "200".into()));
    // Its row is left to be looked up, and it never comes back, not even by hand.
    let text = system.key_file();
    let row = system.keys().await.into_iter().find(|key| key["id"] == *old.id).unwrap();
    assert_eq!(row["status"], "revoked");
    let line = text.lines().find(|line| line.starts_with("revoked_at")).unwrap();
    system.sidecar.replace("keys.toml", text.replace(line, ""));
    system.run(&["keys", "revoke", &writer.id, "--wait"]).await.done();
    assert_eq!((ask(&old).await, ask(&writer).await), (REFUSED.into(), REFUSED.into()));
}

/// [list shows] "description"
/// [list shows] "user"
/// [list shows] "permissions"
/// [list shows] "last access"
/// [advice the product should turn into help] "review the keys regularly: the list says which are unused"
#[tokio::test]
async fn the_list_is_there_to_review_keys() {
    let system = System::unlimited("woocommerce", "[listen]\ntrusted_proxies = [\"127.0.0.1\"]").await;
    let [reader, ..] = of_each_permission(&system).await;
    let used = reader.on(get(&format!("{API}/orders"))).field("X-Forwarded-For", "198.51.100.10");
    assert_eq!(system.sidecar.ask(used).await.status, 200);
    let list = eventually("the last access in the list", async || {
        let list = system.keys().await;
        if list[0]["last_used_ip"] == "198.51.100.10" { Ok(list) } else { Err(list) }
    })
    .await;
    let expected = [("reader", "read"), ("writer", "write"), ("both", "read_write")];
    assert_eq!(list.len(), expected.len());
    for (key, (name, scope)) in list.iter().zip(expected) {
        assert_eq!((&key["name"], &key["owner"]), (&name.into(), &"shop-manager".into()), "{key}");
        assert_eq!((&key["scopes"], &key["status"]), (&json!([scope]), &"active".into()), "{key}");
        assert_eq!(key["last_used_at"].is_null(), name != "reader", "{key}");
    }
    let table = system.run(&["keys", "list"]).await.done().stdout;
    let row = table.lines().find(|line| line.contains("reader")).unwrap();
    for cell in ["reader", "shop-manager", "read", "198.51.100.10", "active"] {
        assert!(row.contains(cell), "{cell}: {table}");
    }
}

/// WooCommerce has no monitoring of its own; whoever runs the sidecar sees who did what.
///
/// [advice the product should turn into help] "monitor usage: look for what is suspicious, since the product does not"
#[tokio::test]
async fn usage_is_watched() {
    let system = System::unlimited("woocommerce", "").await;
    let [reader, writer, _] = of_each_permission(&system).await;
    let orders = format!("{API}/orders");
    for (request, status) in [
        (reader.on(get(&orders)), 200),
        (reader.on(get(&orders)), 200),
        (reader.on(post(&orders, "{}")), 401),
        (writer.on(post(&orders, "{}")), 200),
        (get(&orders).basic(&reader.prefix, "cs_guessed"), 401),
        (get(&orders), 401),
    ] {
        let answer = system.sidecar.ask(request).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let line = system.line(&answer).await;
        assert_eq!((&line["status"], &line["client"]), (&status.into(), &"127.0.0.1".into()), "{line}");
    }
    // One line each says who, what and how it ended.
    let lines: Vec<Value> =
        system.sidecar.access.all().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |id: &str| lines.iter().filter(|line| line["key_id"] == *id).count();
    assert_eq!((lines.len(), of(&reader.id), of(&writer.id)), (6, 4, 1));
    let refused: Vec<_> = lines.iter().filter_map(|line| line["reason"].as_str()).collect();
    assert_eq!(refused, ["insufficient_scope", "wrong_secret", "missing_credentials"]);
    for (name, labels, count) in [
        ("keyside_requests_total", ("outcome", "allowed"), 3),
        ("keyside_requests_total", ("outcome", "refused"), 3),
        ("keyside_key_requests_total", ("outcome", "allowed"), 3),
        ("keyside_key_requests_total", ("outcome", "refused"), 2),
        ("keyside_rejections_total", ("reason", "insufficient_scope"), 1),
        ("keyside_rejections_total", ("reason", "wrong_secret"), 1),
        ("keyside_rejections_total", ("reason", "missing_credentials"), 1),
    ] {
        system.sidecar.counts(name, &[labels], count).await;
    }
}

/// [advice the product should turn into help] "the least permission: avoid read/write unless it is needed"
/// [advice the product should turn into help] "a leaked pair is recognised, and revoked"
#[tokio::test]
async fn commands_give_the_guides_advice() {
    let system = System::unlimited("woocommerce", "").await;
    let [reader, _, both] = of_each_permission(&system).await;
    assert!(reader.said.contains("This key may read for shop-manager"), "{}", reader.said);
    assert!(both.said.contains("This key may read and write for shop-manager"), "{}", both.said);
    // A scope is asked for, and none is the default.
    let none = system.run(&["keys", "create", "--name", "x", "--owner", "shop-manager"]).await;
    assert!(none.status == 2 && none.stderr.contains("--scope"), "{none:?}");
    let config = system.sidecar.path("keyside.toml");
    let identify = ["keys", "identify", "--config", config.to_str().unwrap(), "--output", "json"];
    let found = crate::harness::keyside_with_input(identify, &reader.prefix).await.done();
    assert!(found.stdout.contains(&reader.id), "{found:?}");
    let explained = keyside(["keys", "revoke", "--help"]).await.done().stdout;
    assert!(explained.contains("its entry stays to be looked up"), "{explained}");
}
