//! What is sent to do harm: bodies that mean two things, fields that are not the sender's, texts that are code elsewhere.

use serde_json::{Value, json};

use super::{PRESETS, list, path, wanted_for};
use crate::control::{
    answer::Problem,
    sample::{ADMIN, As, Bench, OPERATOR},
    store::StoreError,
};

/// Every endpoint that reads a body reads it strictly, and none of these does anything.
#[tokio::test(flavor = "multi_thread")]
async fn no_body_means_two_things() {
    let bench = Bench::new(PRESETS).await;
    let key = bench.mint(wanted_for("acct", json!({}))).await;
    bench.ask(OPERATOR, "POST", "/v1/owners", json!({ "id": "acct" })).await.data(201);
    let (entries, _) = bench.audit().await;
    let deep = format!("{{\"name\":{}{}}}", "[".repeat(200), "]".repeat(200));
    let objects = format!("{}1{}", "{\"name\":".repeat(5000), "}".repeat(5000));
    let bodies: [&[u8]; 24] = [
        b"{",
        b"}",
        b"[]",
        b"null",
        b"\"name\"",
        b"1",
        b"{]",
        b"{\"name\"}",
        b"{\"name\":}",
        b"{'name':\"a\"}",
        b"{\"name\":\"a\",}",
        b"{\"name\":\"a\" \"kyc\":1}",
        b"\xef\xbb\xbf{}",
        b"{\"name\":\"\xff\"}",
        b"{\"name\":\"\\ud800\"}",
        b"{\"name\":\"\\u00zz\"}",
        b"{\"name\":NaN}",
        b"{\"name\":-Infinity}",
        b"{\"name\":1e9999}",
        b"{\"name\":\"a\"}{\"name\":\"b\"}",
        b"{\"name\":\"a\",\"name\":\"b\"}",
        b"{\"name\":\"a\",\"\\u006eame\":\"b\"}",
        deep.as_bytes(),
        objects.as_bytes(),
    ];
    for endpoint in list::all().into_iter().filter(|endpoint| endpoint.body.is_some()) {
        let path = match endpoint.path {
            path if path.starts_with("/v1/owners") => path.replace("{id}", "acct"),
            path => path.replace("{id}", key["id"].as_str().unwrap()).replace("{name}", "viewer"),
        };
        for body in bodies {
            let answer = bench.ask_raw(ADMIN, endpoint.method, &path, body).await;
            assert_eq!(answer.status, 400, "{} {}: {}", endpoint.id, String::from_utf8_lossy(body), answer.body);
        }
        for other in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
            let request = bench.request(ADMIN, endpoint.method, &path).header("content-type", other);
            bench.send(request.body("{}".into()).unwrap()).await.error(415, "Content-Type");
        }
    }
    assert_eq!(bench.audit().await.0, entries, "nothing was done");
}

/// What the server decides cannot be sent.
#[tokio::test(flavor = "multi_thread")]
async fn fields_that_are_not_the_senders_are_refused() {
    let bench = Bench::new(PRESETS).await;
    let key = bench.mint(wanted_for("acct", json!({}))).await;
    for (field, value) in [
        ("id", json!("key_mine")),
        ("key", json!("wp3_live_sk_mine")),
        ("hash", json!("$sha256$00")),
        ("prefix", json!("wp3_live_sk_")),
        ("created_at", json!("2020-01-01T00:00:00Z")),
        ("revoked_at", Value::Null),
        ("rotated_from", json!("key_1")),
        ("status", json!("active")),
        ("last_used_at", Value::Null),
        ("Scopes", json!(["read"])),
        ("scope", json!(["read"])),
        ("__proto__", json!({})),
    ] {
        let body = wanted_for("acct", json!({ field: value }));
        bench.ask(ADMIN, "POST", "/v1/keys", body).await.error(400, "unknown field");
        bench.ask(ADMIN, "PATCH", &path(&key), json!({ field: value })).await.error(400, "unknown field");
    }
    for (body, field) in [
        (wanted_for("acct", json!({ "name": 1 })), "name"),
        (wanted_for("acct", json!({ "permissions": "onramp:read" })), "permissions"),
        (wanted_for("acct", json!({ "permissions": [["onramp:read"]] })), "permissions"),
        (wanted_for("acct", json!({ "allow_ips": {} })), "allow_ips"),
        (wanted_for("acct", json!({ "environment": "prod" })), "environment"),
        (wanted_for("acct", json!({ "kind": "both" })), "kind"),
    ] {
        assert_eq!(bench.ask(ADMIN, "POST", "/v1/keys", body).await.error(400, field)["field"], field);
    }
    for (body, field) in [
        (wanted_for("acct", json!({ "mode": "live" })), "environment"),
        (wanted_for("acct", json!({ "scopes": ["onramp:read"] })), "permissions"),
        (wanted_for("acct", json!({ "environment": null })), "environment"),
        (wanted_for("acct", json!({ "owner": null })), "owner"),
        (wanted_for("acct", json!({ "permissions": ["onramp:craete"] })), "permissions"),
        (wanted_for("acct", json!({ "preset": "nothing" })), "preset"),
        (wanted_for("acct", json!({ "name": "" })), "name"),
        (wanted_for("acct", json!({ "name": "x".repeat(201) })), "name"),
        (wanted_for("acct", json!({ "name": "invoice\u{202e}txt.exe" })), "name"),
        (wanted_for("acct", json!({ "name": "Export\u{200b}" })), "name"),
        (wanted_for("acct", json!({ "expires_at": "0" })), "expires_at"),
        (wanted_for("acct", json!({ "expires_at": "2020-01-01T00:00:00Z" })), "expires_at"),
        (wanted_for("acct", json!({ "expires_at": "9999-12-31T23:59:59Z" })), "expires_at"),
    ] {
        assert_eq!(bench.ask(ADMIN, "POST", "/v1/keys", body).await.error(422, "")["field"], field);
    }
    let near =
        bench.ask(ADMIN, "POST", "/v1/keys", wanted_for("acct", json!({ "permissions": ["onramp:craete"] }))).await;
    near.error(422, "Did you mean \"onramp:create\"?");
}

/// Texts are texts, whatever they would be elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn texts_are_not_code() {
    let bench = Bench::new(PRESETS).await;
    for text in [
        "'; DROP TABLE keys; --",
        "\" OR 1=1 --",
        "%",
        "_",
        "\\",
        "<script>alert(1)</script>",
        "=HYPERLINK(\"x\")",
        "${jndi:ldap://x}",
        "{{7*7}}",
        "ſ İ ß 漢 🗝",
        "a%00b",
        "$1",
        "?",
    ] {
        let key = bench.mint(wanted_for("acct", json!({ "name": text }))).await;
        assert_eq!(bench.show(&key).await["name"], text);
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let found =
            bench.ask(OPERATOR, "GET", &format!("/v1/keys?search={encoded}&limit=1000"), Value::Null).await.data(200);
        let found = found["keys"].as_array().unwrap();
        assert!(found.iter().any(|found| found["id"] == key["id"]), "{text}");
        let plain =
            |key: &&Value| key["name"].as_str().is_some_and(|name| name.to_lowercase().contains(&text.to_lowercase()));
        let elsewhere =
            |key: &&Value| ["prefix", "id", "owner"].iter().any(|field| key[*field].as_str().unwrap().contains(text));
        assert!(found.iter().all(|key| plain(&key) || elsewhere(&key)), "no wild card: {text}");
        for place in [format!("/v1/keys/{encoded}"), format!("/v1/owners/{encoded}"), format!("/v1/sidecars/{encoded}")]
        {
            let status = bench
                .ask(ADMIN, if place.contains("sidecars") { "DELETE" } else { "GET" }, &place, Value::Null)
                .await
                .status;
            assert_eq!(status, 404, "{place}");
        }
        for filter in ["actor", "action", "subject"] {
            let page = bench.ask(ADMIN, "GET", &format!("/v1/audit?{filter}={encoded}"), Value::Null).await.data(200);
            assert_eq!(page["entries"], json!([]), "{filter} {text}");
        }
    }
    // What is not text at all is the name of nothing.
    bench.ask(ADMIN, "GET", "/v1/keys/%FF%FE", Value::Null).await.error(404, "no such");
    bench.ask(ADMIN, "GET", "/v1/keys?search=%FF", Value::Null).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_in_the_envelope() {
    let bench = Bench::new("[]").await;
    let answer = bench.ask(ADMIN, "PUT", "/v1/keys", json!({})).await;
    assert!(answer.headers["allow"].to_str().unwrap().contains("POST"));
    answer.error(405, "not accepted");
    bench.ask(ADMIN, "GET", "/v1/nothing", Value::Null).await.error(404, "no such");
    bench.ask(As::Nobody, "GET", "/v1/keys/../operators", Value::Null).await.error(404, "no such");
    let document =
        bench.send(bench.request(As::Nobody, "GET", "/openapi.json").body(Default::default()).unwrap()).await;
    assert_eq!((document.status.as_u16(), &document.body["openapi"]), (200, &json!("3.1.0")));
}

#[test]
fn a_store_that_fails_is_told_by_its_status() {
    let status = |error: StoreError| Problem::from(error).status.as_u16();
    assert_eq!(status(StoreError::Full(String::new())), 507);
    assert_eq!(status(StoreError::Unavailable(String::new())), 503);
    assert_eq!(status(StoreError::Unknown(String::new())), 503);
    assert_eq!(status(StoreError::Conflict), 503);
    assert_eq!(status(StoreError::Damaged(String::new())), 500);
}
