//! The API, asked as programs ask it, on a real store.

mod access;
mod hostile;
mod identify;
mod life;
mod once;

use serde_json::{Map, Value, json};

use super::{document, list};
use crate::control::sample::{ADMIN, As, Bench, OPERATOR};

const PRESETS: &str = "[\"web3pay\", \"wallet\"]";

/// What has to be said of a key: the document's own example.
fn wanted() -> Value {
    json!({
        "name": "Production API Key", "environment": "live",
        "permissions": ["onramp:create", "onramp:read", "transactions:read"],
    })
}

/// The same, for this owner, with these fields besides.
fn wanted_for(owner: &str, more: Value) -> Value {
    let mut wanted = wanted();
    wanted["owner"] = owner.into();
    for (name, value) in more.as_object().unwrap() {
        wanted[name] = value.clone();
    }
    wanted
}

impl Bench {
    async fn mint(&self, body: Value) -> Value {
        self.ask(OPERATOR, "POST", "/v1/keys", body).await.data(201)
    }

    /// A key that may manage keys.
    async fn manager(&self, owner: &str, more: Value) -> Value {
        let mut more = more;
        more["permissions"] = json!(["keys:manage", "onramp:read"]);
        self.mint(wanted_for(owner, more)).await
    }

    async fn show(&self, key: &Value) -> Value {
        self.ask(OPERATOR, "GET", &path(key), Value::Null).await.data(200)
    }
}

fn path(key: &Value) -> String {
    format!("/v1/keys/{}", key["id"].as_str().unwrap())
}

/// Every endpoint is in the document, and what it shows as an example is taken.
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_document_work() {
    let bench = Bench::new("[]").await;
    let document = document::document();
    let (mut owner, mut key) = (Value::Null, Value::Null);
    for endpoint in list::all() {
        let operation = &document["paths"][endpoint.path][endpoint.method.to_ascii_lowercase()];
        assert_eq!(operation["operationId"], endpoint.id);
        for parameter in operation["parameters"].as_array().unwrap() {
            assert_ne!(parameter["description"], "", "{} of {}", parameter["name"], endpoint.id);
        }
        let schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str();
        let Some(schema) = schema else { continue };
        let example = &document.pointer(schema.trim_start_matches('#')).unwrap()["examples"][0];
        assert!(example.is_object(), "{} has no example", endpoint.id);
        let name = |value: &Value, name: &str| value[name].as_str().unwrap_or("anna").to_owned();
        let path = match endpoint.path {
            path if path.starts_with("/v1/owners") => path.replace("{id}", &name(&owner, "id")),
            path => path.replace("{id}", &name(&key, "id")).replace("{name}", "anna"),
        };
        let query = if endpoint.id == "revokeKey" { "?purge=true" } else { "" };
        if endpoint.id == "rotateKey" {
            // The one before was removed by its own example.
            key = bench.mint(json!({ "name": "Again", "environment": "live", "scopes": ["read"], "owner": "x" })).await;
            let path = endpoint.path.replace("{id}", &name(&key, "id"));
            bench.ask(ADMIN, endpoint.method, &path, example.clone()).await.data(endpoint.status);
            continue;
        }
        let answer = bench.ask(ADMIN, endpoint.method, &format!("{path}{query}"), example.clone()).await;
        let data = answer.data(endpoint.status);
        match endpoint.id {
            "createOwner" => owner = data,
            "createKey" => key = data,
            _ => {}
        }
    }
}

/// What the document says must be there is there, and nothing else is.
#[tokio::test(flavor = "multi_thread")]
async fn answers_have_the_fields_of_the_document() {
    let bench = Bench::new(PRESETS).await;
    let document = document::document();
    let key = bench.mint(wanted_for("acct", json!({}))).await;
    bench.ask(OPERATOR, "POST", "/v1/owners", json!({ "id": "acct" })).await.data(201);
    for endpoint in list::all().into_iter().filter(|endpoint| endpoint.method == "GET") {
        let path = match endpoint.path {
            "/v1/keys/{id}" => path(&key),
            path => path.replace("{id}", "acct").replace("{name}", "viewer").replace("{revision}", "1"),
        };
        let data = bench.ask(ADMIN, "GET", &path, Value::Null).await.data(200);
        check(&document, &(endpoint.answer.name)(), &data);
    }
    check(&document, "NewKey", &key);
    // Whatever may let fewer in answers with its receipt.
    let rotated = bench.ask(ADMIN, "POST", &format!("{}/rotate?wait=0", path(&key)), Value::Null).await.data(201);
    check(&document, "RotatedKey", &rotated);
    let changed = bench.ask(ADMIN, "PATCH", &path(&rotated), json!({ "name": "Other" })).await.data(200);
    check(&document, "ChangedKey", &changed);
    check(&document, "Revoked", &bench.ask(ADMIN, "DELETE", &path(&rotated), Value::Null).await.data(200));
    check(&document, "Revoked", &bench.ask(ADMIN, "DELETE", &path(&key), Value::Null).await.data(200));
    let changed = bench.ask(ADMIN, "PATCH", "/v1/owners/acct", json!({ "suspended": true })).await.data(200);
    check(&document, "ChangedOwner", &changed);
    let removed = bench.ask(ADMIN, "DELETE", "/v1/owners/acct?wait=1s", Value::Null).await.data(200);
    check(&document, "Revoked", &removed);
    assert_eq!((&removed["revision"], &removed["complete"]), (&json!(8), &json!(true)));
    bench.ask(ADMIN, "GET", "/v1/receipts/9", Value::Null).await.error(404, "no such revision");
}

/// The fields of a schema, and those that are always there, with those of the schemas that it consists of.
fn fields_of(document: &Value, schema: &Value, properties: &mut Map<String, Value>, required: &mut Vec<Value>) {
    let path = schema["$ref"].as_str().map(|path| path.trim_start_matches('#'));
    let schema = path.map_or(schema, |path| document.pointer(path).unwrap());
    properties.extend(schema["properties"].as_object().cloned().unwrap_or_default());
    required.extend(schema["required"].as_array().cloned().unwrap_or_default());
    for part in schema["allOf"].as_array().into_iter().flatten() {
        fields_of(document, part, properties, required);
    }
}

#[track_caller]
fn check(document: &Value, name: &str, value: &Value) {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    fields_of(document, &document["components"]["schemas"][name], &mut properties, &mut required);
    let names = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    for field in names(value) {
        assert!(properties.contains_key(&field), "{name} says nothing of {field}");
    }
    for field in &required {
        assert!(value.get(field.as_str().unwrap()).is_some(), "{name} lacks {field}");
    }
    for (field, property) in &properties {
        let of = property["items"]["$ref"].as_str().and_then(|path| path.rsplit('/').next());
        if let (Some(of), Some(items)) = (of, value[field].as_array()) {
            items.iter().for_each(|item| check(document, of, item));
        }
    }
}

/// A key asks as an operator does not, and the other way round.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_said() {
    let bench = Bench::new(PRESETS).await;
    let me = bench.ask(OPERATOR, "GET", "/v1/me", Value::Null).await.data(200);
    assert_eq!((&me["operator"], &me["role"], &me["key"]), (&json!("operator"), &json!("operator"), &Value::Null));
    let key = bench.manager("acct", json!({})).await;
    let me = bench.ask(As::Key(&key), "GET", "/v1/me", Value::Null).await.data(200);
    assert_eq!((&me["key"], &me["owner"], &me["environment"]), (&key["id"], &json!("acct"), &json!("live")));
    assert_eq!((&me["operator"], &me["role"]), (&Value::Null, &Value::Null));
    assert_eq!(me["actor"], format!("key:{}", key["id"].as_str().unwrap()));
}
