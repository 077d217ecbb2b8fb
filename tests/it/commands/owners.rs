//! The life of an owner on the key file.

use super::Desk;

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
