//! The life of keys and owners, and the names and shapes of the answers.

use serde_json::{Value, json};

use super::{PRESETS, path, wanted, wanted_for};
use crate::control::{
    fleet::Asker,
    sample::{ADMIN, As, Bench, OPERATOR, VIEWER},
    store::Claim,
};

/// The fields of the document's own answers come first, in its order.
#[track_caller]
fn begins(value: &Value, fields: &[&str]) {
    let names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).take(fields.len()).collect();
    assert_eq!(names, fields);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_are_those_of_the_document() {
    let bench = Bench::new(PRESETS).await;
    let manager = bench.manager("acct", json!({})).await;
    let made = bench.ask(As::Key(&manager), "POST", "/v1/keys", wanted()).await;
    assert_eq!(made.headers["cache-control"], "no-store");
    let made = made.data(201);
    begins(&made, &["id", "key", "name", "environment", "prefix", "permissions", "created_at"]);
    let (key, prefix) = (made["key"].as_str().unwrap(), made["prefix"].as_str().unwrap());
    assert!(prefix.starts_with("wp3_live_sk_") && key.starts_with(prefix) && key.len() > prefix.len() + 20);
    assert!(made["id"].as_str().unwrap().starts_with("key_"));
    assert_eq!((&made["name"], &made["environment"]), (&wanted()["name"], &wanted()["environment"]));
    assert_eq!(made["permissions"], wanted()["permissions"]);
    assert_eq!(made["created_at"].as_str().unwrap().len(), "2024-01-15T12:00:00Z".len());
    assert_eq!(made["owner"], "acct", "that of the key that asked");

    let listed = bench.ask(As::Key(&manager), "GET", "/v1/keys", Value::Null).await.data(200);
    begins(&listed, &["keys"]);
    let fields = ["id", "name", "environment", "prefix", "permissions", "last_used_at", "created_at"];
    begins(&listed["keys"][0], &fields);
    assert_eq!(listed["keys"][0]["id"], made["id"], "the newest first");
    assert_eq!(listed["total"], 2);
    assert!(!listed.to_string().contains(key) && !listed.to_string().contains("$argon2"), "no secret and no hash");

    let revoked = bench.ask(As::Key(&manager), "DELETE", &path(&made), Value::Null).await.data(200);
    begins(&revoked, &["message", "revision", "acknowledged", "pending"]);
    assert_eq!(revoked["message"], "API key revoked successfully");
    assert_eq!(bench.show(&made).await["status"], "revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_is_answered_in_two_parts() {
    let bench = Bench::new(PRESETS).await;
    let body = json!({ "name": "Shop", "preset": "wallet", "scopes": ["read_write"], "owner": "svc" });
    let made = bench.mint(body).await;
    begins(&made, &["id", "consumer_key", "consumer_secret", "name"]);
    assert!(made["consumer_key"].as_str().unwrap().starts_with("ck_") && made.get("key").is_none());
    assert_eq!((&made["prefix"], &made["environment"]), (&made["consumer_key"], &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_is_final_and_may_be_asked_again() {
    let bench = Bench::new(PRESETS).await;
    let key = bench.mint(wanted_for("acct", json!({}))).await;
    let first = bench.ask(OPERATOR, "DELETE", &path(&key), Value::Null).await.data(200);
    let (entries, _) = bench.audit().await;
    let second = bench.ask(OPERATOR, "DELETE", &format!("{}?wait=0", path(&key)), Value::Null).await.data(200);
    assert_eq!((&second["revision"], bench.audit().await.0), (&first["revision"], entries), "nothing was written");
    let rotate = format!("{}/rotate", path(&key));
    bench.ask(OPERATOR, "POST", &rotate, Value::Null).await.error(409, "revoked, for good");
    bench.ask(OPERATOR, "PATCH", &path(&key), json!({ "expires_at": null })).await.error(409, "revoked, for good");
    for (wait, said) in [("31", "30 at most"), ("-1", "30 at most"), ("2h", "30 at most"), ("", "30 at most")] {
        bench.ask(OPERATOR, "DELETE", &format!("{}?wait={wait}", path(&key)), Value::Null).await.error(400, said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_leaves_both_keys_for_a_while() {
    let bench = Bench::new(PRESETS).await;
    let old = bench.mint(wanted_for("acct", json!({ "expires_at": "90d", "allow_ips": ["203.0.113.42"] }))).await;
    let rotate = format!("{}/rotate", path(&old));
    let new = bench.ask(OPERATOR, "POST", &rotate, json!({ "overlap": "1h" })).await.data(201);
    for same in ["name", "environment", "permissions", "owner", "allow_ips", "limits"] {
        assert_eq!(new[same], old[same], "{same}");
    }
    assert!(new["key"].is_string() && new["key"] != old["key"] && new["id"] != old["id"]);
    assert_eq!(new["rotated_from"], old["id"]);
    let left = bench.show(&old).await;
    assert!(left["status"] == "active" && left["expires_at"].as_str() < old["expires_at"].as_str());
    // Two changes, one revision.
    assert_eq!(bench.desk.ledger.read(|image| image.head().revision), 2);
    let newest = bench.ask(OPERATOR, "POST", &format!("{}/rotate", path(&new)), json!({ "overlap": "0" })).await;
    assert_eq!(newest.data(201)["rotated_from"], new["id"]);
    assert_eq!(bench.show(&new).await["status"], "revoked");
    bench.ask(OPERATOR, "POST", &rotate, json!({ "overlap": "soon" })).await.error(422, "`overlap`");
    bench.ask(OPERATOR, "POST", "/v1/keys/none/rotate", Value::Null).await.error(404, "no such key");
}

/// The secret is shown once, so that it is shown whatever becomes of the receipt.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_without_a_receipt_shows_the_secret() {
    let bench = Bench::new(PRESETS).await;
    let old = bench.mint(wanted_for("acct", json!({}))).await;
    let claim = Claim { instance: "a.1".into(), bound: "secret:0".into(), credential: "token:0".into() };
    let address = [203, 0, 113, 7].into();
    let asker = Asker { claim, replaces: vec![], address, max_stale: 60, max_stale_write: 60 };
    let follower = bench.desk.fleet.register(&asker).await.unwrap();
    let mut head = bench.desk.ledger.follow();
    let rotate = format!("{}/rotate?wait=30", path(&old));
    let asked = bench.ask(OPERATOR, "POST", &rotate, json!({ "overlap": "0" }));
    let lost = async {
        // While the sidecar is waited for, the store goes on with another history.
        head.changed().await.unwrap();
        bench.desk.ledger.begin_anew().await.unwrap();
        bench.desk.fleet.forget("a.1").await.unwrap();
    };
    let (answer, ()) = tokio::join!(asked, lost);
    drop(follower);
    let new = answer.data(201);
    assert!(new["key"].is_string() && new["rotated_from"] == old["id"], "{new}");
    let receipt = (&new["revision"], &new["acknowledged"], &new["pending"], &new["complete"]);
    assert_eq!(receipt, (&json!(2), &json!([]), &json!([]), &json!(false)));
    assert!(new["warnings"].to_string().contains("nothing can be said of the sidecars"), "{new}");
    assert_eq!(bench.show(&old).await["status"], "revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_removed_by_its_name_typed_again() {
    let bench = Bench::new(PRESETS).await;
    let key = bench.mint(wanted_for("acct", json!({}))).await;
    let purge = format!("{}?purge=true", path(&key));
    let name = json!({ "name": "Production API Key" });
    bench.ask(OPERATOR, "DELETE", &purge, name.clone()).await.error(403, "admin");
    bench.ask(ADMIN, "DELETE", &purge, json!({ "name": "production api key" })).await.error(422, "typed again");
    bench.ask(ADMIN, "DELETE", &purge, Value::Null).await.error(422, "`name` is missing");
    bench.ask(ADMIN, "DELETE", &purge, json!({})).await.error(400, "`name` is missing");
    bench.ask(ADMIN, "DELETE", &path(&key), json!({})).await.error(400, "`name` is missing");
    bench.ask(ADMIN, "DELETE", &path(&key), name.clone()).await.error(422, "purge=true");
    assert_eq!(bench.show(&key).await["status"], "active");
    bench.ask(ADMIN, "DELETE", &purge, name.clone()).await.data(200);
    bench.ask(ADMIN, "GET", &path(&key), Value::Null).await.error(404, "no such key");
    bench.ask(ADMIN, "DELETE", &purge, name).await.error(404, "no such key");
    // Whoever follows sees it revoked before it is gone.
    let changes = bench
        .desk
        .ledger
        .read(|image| image.since(1, &image.since(0, crate::control::wire::BEGINNING).unwrap()[0].digest).unwrap());
    let lines = crate::control::wire::lines(&changes[0]);
    let lines: Vec<&str> = lines.lines().collect();
    assert!(lines[0].contains("revoked_at") && lines[1].contains("deleted_key"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_says_what_changed() {
    let bench = Bench::new(PRESETS).await;
    let key = bench.mint(wanted_for("acct", json!({ "limits": ["5/1m"], "expires_at": "1d" }))).await;
    let changed = bench
        .ask(
            OPERATOR,
            "PATCH",
            &path(&key),
            json!({ "name": "Export", "limits": null, "expires_at": null, "allow_ips": ["::1"] }),
        )
        .await
        .data(200);
    assert_eq!(
        (&changed["name"], &changed["limits"], &changed["expires_at"]),
        (&json!("Export"), &Value::Null, &Value::Null)
    );
    assert_eq!(changed["permissions"], key["permissions"]);
    let page = bench.ask(OPERATOR, "GET", "/v1/audit?action=key.change", Value::Null).await.data(200);
    let entry = &page["entries"][0];
    assert_eq!(entry["detail"]["changed"]["name"], json!({ "before": "Production API Key", "after": "Export" }));
    assert_eq!((&entry["subject"], &entry["from"]), (&key["id"], &json!("203.0.113.9")));
    let (entries, _) = bench.audit().await;
    bench.ask(OPERATOR, "PATCH", &path(&key), json!({ "name": "Export" })).await.data(200);
    assert_eq!(bench.audit().await.0, entries, "what changes nothing is not written");
    for (body, said) in [
        (json!({ "scopes": ["nothing:read"] }), "no scope"),
        (json!({ "allow_ips": ["203.0.113.300"] }), "entry 1"),
        (json!({ "limits": ["often"] }), "600/1m"),
        (json!({ "expires_at": "2020-01-01T00:00:00Z" }), "in the past"),
        (json!({ "expires_at": "soon" }), "90d"),
        (json!({ "name": " " }), "must not be empty"),
        (json!({ "name": "a\u{1b}[2J" }), "control characters"),
        (json!({ "scopes": [] }), "at least one"),
        (json!({ "owner": "a b" }), "`owner`"),
    ] {
        bench.ask(OPERATOR, "PATCH", &path(&key), body).await.error(422, said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_found_and_paged() {
    let bench = Bench::new(PRESETS).await;
    for (name, owner, environment) in [("One", "anna", "live"), ("Two", "anna", "test"), ("Three", "bert", "live")] {
        bench.mint(wanted_for(owner, json!({ "name": name, "environment": environment }))).await;
    }
    let names = async |query: &str| {
        let page = bench.ask(VIEWER, "GET", &format!("/v1/keys?{query}"), Value::Null).await.data(200);
        let names: Vec<String> =
            page["keys"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect();
        (names.join(" "), page["total"].as_u64().unwrap(), page["next"].as_str().map(str::to_owned))
    };
    assert_eq!(names("").await, ("Three Two One".to_owned(), 3, None));
    assert_eq!(names("owner=anna").await.0, "Two One");
    assert_eq!(names("owner=nobody").await.0, "");
    assert_eq!(names("environment=live").await.0, "Three One");
    assert_eq!(names("search=tHR").await.0, "Three");
    assert_eq!(names("search=wp3_test").await.0, "Two");
    assert_eq!(names("permission=onramp:read&status=active").await.1, 3);
    assert_eq!(names("permission=keys:manage").await.1, 0);
    assert_eq!(names("status=revoked").await.1, 0);
    assert_eq!(names("unused_for=1d").await.1, 0);
    assert_eq!(names("unused_for=0").await.1, 3);
    let (first, total, next) = names("limit=2").await;
    assert_eq!((first.as_str(), total), ("Three Two", 3));
    let next = next.unwrap();
    assert_eq!(names(&format!("limit=2&cursor={next}")).await, ("One".to_owned(), 3, None));
    for (query, status, said) in [
        ("limit=0", 400, "from 1 to"),
        ("limit=1001", 400, "from 1 to"),
        ("cursor=%00", 422, "`cursor`"),
        ("sort=name", 400, "unknown parameter `sort`"),
        ("owner=a&owner=b", 400, "twice"),
        ("status=good", 400, "`status`"),
        ("mode=live&environment=live", 422, "two names"),
    ] {
        bench.ask(VIEWER, "GET", &format!("/v1/keys?{query}"), Value::Null).await.error(status, said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_are_kept() {
    let bench = Bench::new(PRESETS).await;
    let body = json!({ "id": "svc/1", "name": "Service", "capabilities": ["administrator"], "kyc": "approved" });
    let owner = bench.ask(OPERATOR, "POST", "/v1/owners", body.clone()).await.data(201);
    assert!(owner["warnings"][0].as_str().unwrap().contains("administrator"));
    bench.ask(OPERATOR, "POST", "/v1/owners", body).await.error(409, "already");
    let key = bench.mint(wanted_for("svc/1", json!({}))).await;
    let path_of = "/v1/owners/svc%2F1";
    let suspended = bench.ask(OPERATOR, "PATCH", path_of, json!({ "suspended": true, "name": null })).await.data(200);
    assert!(suspended["suspended_at"].is_string() && suspended["name"].is_null() && suspended["active_keys"] == 0);
    assert_eq!(bench.show(&key).await["status"], "suspended");
    let page = bench.ask(OPERATOR, "GET", "/v1/audit?action=owner&subject=svc/1&limit=1", Value::Null).await.data(200);
    assert_eq!((&page["entries"][0]["action"], page["next"].is_u64()), (&json!("owner.suspend"), true));
    bench.ask(OPERATOR, "DELETE", path_of, Value::Null).await.error(409, "revoke them first");
    bench.ask(OPERATOR, "DELETE", &path(&key), Value::Null).await.data(200);
    bench.ask(OPERATOR, "DELETE", path_of, Value::Null).await.data(200);
    bench.ask(OPERATOR, "GET", path_of, Value::Null).await.error(404, "no such owner");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_admin_stays() {
    let bench = Bench::new("[]").await;
    let admin = "/v1/operators/admin";
    bench.ask(ADMIN, "DELETE", admin, Value::Null).await.error(409, "last admin");
    bench.ask(ADMIN, "PATCH", admin, json!({ "role": "viewer" })).await.error(409, "last admin");
    let anna = json!({ "name": "anna", "role": "admin", "password": "correct horse battery" });
    let made = bench.ask(ADMIN, "POST", "/v1/operators", anna.clone()).await.data(201);
    assert!(made["password"] == true && !made.to_string().contains("horse"));
    bench.ask(ADMIN, "POST", "/v1/operators", anna).await.error(409, "already");
    let token = bench.ask(ADMIN, "POST", "/v1/operators/anna/tokens", json!({ "name": "ci" })).await.data(201);
    let of_anna = As::Token(token["token"].as_str().unwrap());
    // From one request to the next: the role of who asks is that of the moment.
    bench.ask(ADMIN, "PATCH", admin, json!({ "role": "viewer" })).await.data(200);
    bench.ask(ADMIN, "GET", "/v1/operators", Value::Null).await.error(403, "admin");
    bench.ask(of_anna, "DELETE", admin, Value::Null).await.data(200);
    bench.ask(ADMIN, "GET", "/v1/me", Value::Null).await.error(401, "token");
    let own = format!("/v1/operators/anna/tokens/{}", token["id"].as_str().unwrap());
    bench.ask(of_anna, "DELETE", &own, Value::Null).await.data(200);
    bench.ask(of_anna, "GET", "/v1/me", Value::Null).await.error(401, "token");
    let (_, log) = bench.audit().await;
    assert!(!log.contains("horse") && !log.contains("argon2") && !log.contains(token["token"].as_str().unwrap()));
}
