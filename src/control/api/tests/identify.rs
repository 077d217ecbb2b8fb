//! Whose a string is that was found somewhere.

use serde_json::{Value, json};

use super::{PRESETS, wanted_for};
use crate::control::sample::{Bench, OPERATOR, VIEWER};

#[tokio::test(flavor = "multi_thread")]
async fn a_string_is_compared_and_kept_nowhere() {
    let bench = Bench::new(PRESETS).await;
    let key = bench.mint(wanted_for("acct", json!({}))).await;
    let other = bench.mint(wanted_for("acct", json!({}))).await;
    let (token, prefix) = (key["key"].as_str().unwrap(), key["prefix"].as_str().unwrap());
    let ask = async |body: Value| bench.ask(OPERATOR, "POST", "/v1/identify", body).await;
    let (before, _) = bench.audit().await;
    for (body, id, likeness) in [
        (json!({ "credential": token }), &key["id"], json!("secret")),
        (json!({ "credential": token, "key": key["id"] }), &key["id"], json!("secret")),
        (json!({ "credential": prefix }), &key["id"], json!("public")),
        (json!({ "credential": format!("{}x", &token[..token.len() - 1]) }), &key["id"], json!("prefix")),
        (json!({ "credential": token, "key": other["id"] }), &Value::Null, Value::Null),
        (json!({ "credential": "nothing of ours" }), &Value::Null, Value::Null),
    ] {
        let answer = ask(body.clone()).await;
        assert_eq!(answer.headers["cache-control"], "no-store");
        let said = answer.data(200);
        assert_eq!((&said["key"]["id"], &said["match"], &said["complete"]), (id, &likeness, &json!(true)), "{body}");
        assert!(!said.to_string().contains(token), "it is not said again");
    }
    let (after, log) = bench.audit().await;
    assert_eq!(after - before, 4, "those that were found");
    assert!(log.contains("key.identify") && !log.contains(token) && !log.contains(&token[..token.len() - 1]));
    ask(json!({ "credential": token, "key": "key_none" })).await.error(404, "no such key");
    ask(json!({ "credential": "x".repeat(513) })).await.error(422, "512");
    ask(json!({})).await.error(400, "missing");
    bench.ask(VIEWER, "POST", "/v1/identify", json!({ "credential": token })).await.error(403, "operator");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_guesses_is_slowed() {
    let bench = Bench::new(PRESETS).await;
    let key = bench.mint(wanted_for("acct", json!({}))).await;
    let near = json!({ "credential": format!("{}x", key["prefix"].as_str().unwrap()) });
    for _ in 0..20 {
        bench.ask(OPERATOR, "POST", "/v1/identify", near.clone()).await.data(200);
    }
    let refused = bench.ask(OPERATOR, "POST", "/v1/identify", near).await;
    assert!(refused.headers.contains_key("retry-after"));
    refused.error(429, "Too many attempts");
    // Nobody is kept from the rest by it.
    bench.ask(OPERATOR, "GET", "/v1/keys", Value::Null).await.data(200);
}
