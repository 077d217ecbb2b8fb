//! The API, asked as programs ask it, on a real store.

mod access;
mod hostile;
mod identify;
mod life;
mod once;

use serde_json::{Value, json};

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
            path => path.replace("{id}", "acct").replace("{name}", "viewer"),
        };
        let data = bench.ask(ADMIN, "GET", &path, Value::Null).await.data(200);
        check(&document, &(endpoint.answer.name)(), &data);
    }
    check(&document, "NewKey", &key);
}

#[track_caller]
fn check(document: &Value, name: &str, value: &Value) {
    let schema = &document["components"]["schemas"][name];
    let names = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    for field in names(value) {
        assert!(schema["properties"].get(&field).is_some(), "{name} says nothing of {field}");
    }
    for field in schema["required"].as_array().unwrap() {
        assert!(value.get(field.as_str().unwrap()).is_some(), "{name} lacks {field}");
    }
    for (field, property) in schema["properties"].as_object().unwrap() {
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
