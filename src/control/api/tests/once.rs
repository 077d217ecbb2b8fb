//! Requests that are sent again are done once.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::{PRESETS, path, wanted_for};
use crate::control::sample::{ADMIN, As, Bench, OPERATOR};

fn request(bench: &Bench, who: As<'_>, path: &str, key: &str, body: &Value) -> Request<Body> {
    let request = bench.request(who, "POST", path).header("content-type", "application/json");
    request.header("idempotency-key", key).body(body.to_string().into()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_mints_once() {
    let bench = Bench::new(PRESETS).await;
    let body = wanted_for("acct", json!({}));
    let send =
        async |who: As<'_>, key: &str, body: &Value| bench.send(request(&bench, who, "/v1/keys", key, body)).await;
    let first = send(OPERATOR, "a key", &body).await;
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let first = first.data(201);
    let again = send(OPERATOR, "a key", &body).await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let again = again.data(200);
    assert!(again.get("key").is_none(), "the secret is answered once");
    let mut without = first.clone();
    for once in ["key", "warnings"] {
        without.as_object_mut().unwrap().shift_remove(once);
    }
    for (name, value) in without.as_object().unwrap() {
        assert_eq!(again[name], *value, "{name}");
    }
    send(OPERATOR, "a key", &wanted_for("other", json!({}))).await.error(422, "another request");
    let other = send(ADMIN, "a key", &body).await.data(201);
    assert_ne!(other["id"], first["id"], "the key of somebody else is another one");
    send(OPERATOR, "b", &body).await.data(201);
    for bad in ["", &"x".repeat(256)] {
        send(OPERATOR, bad, &body).await.error(422, "Idempotency-Key");
    }
    let two = request(&bench, OPERATOR, "/v1/keys", "a", &body);
    let (mut head, body) = two.into_parts();
    head.headers.append("idempotency-key", "b".parse().unwrap());
    bench.send(Request::from_parts(head, body)).await.error(422, "once");

    let rotate = format!("{}/rotate", path(&first));
    let new = bench.send(request(&bench, OPERATOR, &rotate, "r", &json!({ "overlap": "1h" }))).await.data(201);
    let again = bench.send(request(&bench, OPERATOR, &rotate, "r", &json!({ "overlap": "1h" }))).await.data(200);
    assert_eq!(again["id"], new["id"]);
    bench
        .send(request(&bench, OPERATOR, &rotate, "r", &json!({ "overlap": "2h" })))
        .await
        .error(422, "another request");
    bench.send(request(&bench, OPERATOR, &rotate, "a key", &json!({}))).await.error(422, "another request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_requests_mint_once() {
    let bench = Arc::new(Bench::new(PRESETS).await);
    let body = wanted_for("acct", json!({}));
    let mut racing = tokio::task::JoinSet::new();
    for number in 0..24 {
        let (bench, body) = (Arc::clone(&bench), body.clone());
        // Others write all the while, with keys of their own.
        let key = if number % 3 == 2 { format!("other {number}") } else { "the same".to_owned() };
        racing.spawn(async move {
            let answer = bench.send(request(&bench, OPERATOR, "/v1/keys", &key, &body)).await;
            (key, answer.status.as_u16(), answer.body["data"]["id"].clone())
        });
    }
    let answers = racing.join_all().await;
    let same: Vec<_> = answers.iter().filter(|(key, ..)| key == "the same").collect();
    assert_eq!(same.iter().filter(|(_, status, _)| *status == 201).count(), 1);
    assert!(same.iter().all(|(_, status, id)| *id == same[0].2 && matches!(status, 200 | 201)), "{same:?}");
    assert_eq!(bench.desk.ledger.read(|image| image.keys().len()), 1 + 8);
    let listed = bench.ask(OPERATOR, "GET", "/v1/keys", Value::Null).await.data(200);
    assert_eq!(listed["total"], 9);
}
