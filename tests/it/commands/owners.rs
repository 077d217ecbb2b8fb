//! The life of an owner on the key file.

use super::Desk;
use crate::harness::keyside;

#[tokio::test]
async fn an_owner_lives_and_goes() {
    let desk = Desk::new();
    desk.run(&[
        "owners",
        "create",
        "acme",
        "--name",
        "Acme Ltd",
        "--capability",
        "manage,view",
        "--kyc",
        "approved",
        "--plan",
        "pro",
    ])
    .await
    .done();
    let shown = desk.json(&["owners", "list"]).await;
    let owner = &shown[0];
    assert_eq!((owner["id"].as_str(), owner["name"].as_str()), (Some("acme"), Some("Acme Ltd")), "{shown}");
    assert_eq!(
        (&owner["capabilities"], owner["kyc"].as_str()),
        (&serde_json::json!(["manage", "view"]), Some("approved"))
    );
    assert_eq!((owner["plan"].as_str(), &owner["suspended_at"]), (Some("pro"), &serde_json::Value::Null));

    desk.run(&["owners", "set", "acme", "--kyc", "pending", "--capability", ""]).await.done();
    let owner = desk.json(&["owners", "list"]).await[0].clone();
    assert_eq!(
        (&owner["capabilities"], owner["kyc"].as_str(), owner["plan"].as_str()),
        (&serde_json::json!([]), Some("pending"), Some("pro"))
    );

    desk.run(&["owners", "suspend", "acme"]).await.done();
    assert!(desk.json(&["owners", "list"]).await[0]["suspended_at"].is_string());
    desk.run(&["owners", "suspend", "acme", "--lift"]).await.done();
    assert!(desk.json(&["owners", "list"]).await[0]["suspended_at"].is_null());

    assert_eq!(desk.run(&["owners", "create", "acme"]).await.status, 1, "there is one already");
    assert_eq!(desk.run(&["owners", "set", "nobody", "--kyc", "none"]).await.status, 1);
    assert_eq!(desk.run(&["owners", "set", "acme", "--kyc", "perhaps"]).await.status, 2);
    desk.run(&["owners", "delete", "acme", "--yes"]).await.done();
    assert_eq!(desk.json(&["owners", "list"]).await, serde_json::json!([]));
    assert!(desk.keys().contains("owners = 0"));
}

/// Whoever has keys is listed with their number.
#[tokio::test]
async fn the_list_counts_keys() {
    let desk = Desk::new();
    desk.run(&["owners", "create", "acme"]).await.done();
    for name in ["one", "two"] {
        desk.run(&["keys", "create", "--name", name, "--owner", "acme", "--scope", "read"]).await.done();
    }
    assert_eq!(desk.json(&["owners", "list"]).await[0]["keys"], 2);
    let table = desk.run(&["owners", "list"]).await.done().stdout;
    assert!(table.contains("acme"), "{table}");
}

/// What will surprise is said where it is typed, and what is advised can be typed as it stands.
#[tokio::test]
async fn owners_are_warned_of_where_they_are_typed() {
    let desk = Desk::new();
    let config = "[listen]\nplaintext = true\n[limits.plans]\nfree = [\"60/1m\"]\npro = [\"600/1m\"]\n";
    let config = desk.write("keyside.toml", config);
    let configured = format!("--config {}", config.display());
    let run = async |line: &str| {
        let line = line.split(' ').map(str::to_owned).chain(configured.split(' ').map(str::to_owned));
        keyside(line).await
    };
    for (line, warning) in [
        ("owners create one --plan pro", ""),
        ("owners create two --plan por", "the plan por is none of [limits.plans]"),
        ("owners create three --plan gold", "; there are free, pro"),
        ("owners set one --plan fre", "did you mean free?"),
        ("owners set one --plan free", ""),
    ] {
        let ended = run(line).await.done();
        assert_eq!(ended.stderr.contains("warning"), !warning.is_empty(), "{line}: {}", ended.stderr);
        assert!(ended.stderr.contains(warning), "{line}: {}", ended.stderr);
    }
    for name in ["a", "b", "c"] {
        run(&format!("keys create --name {name} --owner one --scope read")).await.done();
    }
    run("keys revoke c").await.done();
    let deleted = run("owners delete one --yes").await.done().stderr;
    assert!(deleted.contains("2 keys that act for one can still be used, without capabilities"), "{deleted}");
    let deleted = run("owners delete two --yes").await.done().stderr;
    assert!(!deleted.contains("warning"), "nobody acts for it: {deleted}");

    // Every command that is advised, as it would be typed.
    let gone = run("keys create --name d --owner one --scope read").await.done();
    for (ended, advised) in [
        (gone, "keyside owners create one"),
        (run("keys show nobody").await, "keyside keys list"),
        (run("owners set nobody --kyc none").await, "keyside owners list"),
        (run("owners create three").await, "keyside owners set three"),
        (run("check").await, "keyside owners create one"),
    ] {
        assert!(ended.stderr.contains(&format!("{advised} {configured}")), "{advised}: {ended:?}");
    }
    let quoted = desk.write("my keys.toml", &desk.keys());
    let ended = desk.run_on(&quoted, &["keys", "show", "nobody"]).await;
    assert!(ended.stderr.contains(&format!("keyside keys list --file '{}'", quoted.display())), "{}", ended.stderr);
}
