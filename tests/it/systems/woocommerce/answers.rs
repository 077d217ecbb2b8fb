//! What a caller is told: WooCommerce's own codes, statuses and sentences, in its own shape.

use serde_json::json;

use super::{API, REFUSED, of_each_permission};
use crate::{
    harness::{Answer, H1, H2, Key, Received, Request, get, key_file, post, request},
    systems::service::System,
};

const AUTHENTICATION: &str = "woocommerce_rest_authentication_error";
const NOT_ACCEPTED: &str = "Consumer key or secret is invalid.";

/// What a refusal is, but for the moment it was written.
fn bytes(answer: &Received) -> String {
    let mut answer = answer.clone();
    answer.fields.retain(|(name, _)| name != "date");
    format!("{answer:?}")
}

/// Situation by situation: what was done, what is answered.
///
/// [errors] "code, message and data.status, as JSON"
/// [errors] "no credentials: 401 and what cannot be done, by the method: view, create, edit, delete"
/// [errors] "known key, wrong secret: 401"
/// [errors] "unknown key: 401, never taken for nobody, and told apart from a wrong secret by nothing"
/// [errors] "the route is unknown: it is no key's"
#[tokio::test]
async fn every_situation_has_its_code_and_status() {
    let system = System::unlimited("woocommerce", "").await;
    let [reader, writer, both] = of_each_permission(&system).await;
    system.run(&["keys", "revoke", &both.id, "--wait"]).await.done();
    let orders = format!("{API}/orders");
    let item = format!("{API}/orders/7");
    let unknown = ("ck_0123456789012345678901234567890123456789", "cs_0123456789012345678901234567890123456789");
    let view = "Sorry, you cannot list resources.";
    let create = "Sorry, you are not allowed to create resources.";
    let edit = "Sorry, you are not allowed to edit this resource.";
    let delete = "Sorry, you are not allowed to delete this resource.";
    let rows: Vec<(&str, Request, u16, &str, &str)> = vec![
        ("nobody lists", get(&orders), 401, "woocommerce_rest_cannot_view", view),
        ("nobody creates", post(&orders, "{}"), 401, "woocommerce_rest_cannot_create", create),
        ("nobody updates", request("PUT", &item), 401, "woocommerce_rest_cannot_edit", edit),
        ("nobody patches", request("PATCH", &item), 401, "woocommerce_rest_cannot_edit", edit),
        ("nobody deletes", request("DELETE", &item), 401, "woocommerce_rest_cannot_delete", delete),
        (
            "nobody deletes by another method",
            get(&format!("{item}?_method=DELETE")),
            401,
            "woocommerce_rest_cannot_delete",
            delete,
        ),
        ("nobody, at the index", get("/wp-json/"), 401, "woocommerce_rest_cannot_view", view),
        ("an unknown key", get(&orders).basic(unknown.0, unknown.1), 401, AUTHENTICATION, NOT_ACCEPTED),
        ("an unknown key writes", post(&orders, "{}").basic(unknown.0, "x"), 401, AUTHENTICATION, NOT_ACCEPTED),
        ("a wrong secret", get(&orders).basic(&reader.prefix, "cs_wrong"), 401, AUTHENTICATION, NOT_ACCEPTED),
        ("a revoked key", both.on(get(&orders)), 401, AUTHENTICATION, NOT_ACCEPTED),
        ("white space", get(&orders).basic(&reader.prefix, "cs_wrong "), 401, AUTHENTICATION, NOT_ACCEPTED),
        ("no pair at all", get(&orders).field("Authorization", "Basic ck:cs"), 401, AUTHENTICATION, NOT_ACCEPTED),
        (
            "a reader writes",
            reader.on(post(&orders, "{}")),
            401,
            AUTHENTICATION,
            "The API key provided does not have write permissions.",
        ),
        (
            "a writer reads",
            writer.on(get(&orders)),
            401,
            AUTHENTICATION,
            "The API key provided does not have read permissions.",
        ),
        (
            "a reader writes by another method",
            reader.on(get(&format!("{item}?_method=DELETE"))),
            401,
            AUTHENTICATION,
            "The API key provided does not have write permissions.",
        ),
        (
            "a writer reads by another method",
            writer.on(post(&format!("{orders}?_method=GET"), "{}")),
            401,
            AUTHENTICATION,
            "The API key provided does not have read permissions.",
        ),
        ("an unknown method", reader.on(request("PURGE", &orders)), 401, AUTHENTICATION, "Unknown request method."),
        (
            "another namespace",
            reader.on(get("/wp-json/wp/v2/posts")),
            401,
            AUTHENTICATION,
            "The provided API key cannot be used to access this endpoint.",
        ),
        (
            "a route that there is not",
            reader.on(get("/wp-json/nowhere/v1")),
            401,
            AUTHENTICATION,
            "The provided API key cannot be used to access this endpoint.",
        ),
    ];
    for (situation, request, status, code, message) in rows {
        for version in [H1, H2] {
            let answer = system.sidecar.send(version, request.clone()).await;
            let expected = json!({ "code": code, "message": message, "data": { "status": status } });
            assert_eq!((answer.status, answer.json()), (status, expected), "{situation} over {version:?}");
            assert_eq!(answer.field("content-type"), "application/json", "{situation}");
            // Clients that look for it find what to send.
            assert!(answer.field("www-authenticate").starts_with("Basic realm="), "{situation}: {answer:?}");
        }
    }
    assert_eq!(system.upstream.count(), 0);
    // To HEAD the same is said, in no words.
    let answer = system.sidecar.ask(request("HEAD", &orders)).await;
    assert_eq!((answer.status, answer.text().as_str()), (401, ""));
}

/// Every way in which a credential can fail gets the same bytes.
///
/// [errors] "every credential that fails gets one answer, byte for byte"
#[tokio::test]
async fn every_failed_credential_gets_one_answer() {
    let expired = Key::pair("expired").with("expires_at = 2026-01-02T00:00:00Z");
    let revoked = Key::pair("revoked").with("revoked_at = 2026-01-02T00:00:00Z");
    let active = Key::pair("active");
    let system = System::unlimited("woocommerce", "").await;
    system.sidecar.replace("keys.toml", key_file([&expired, &revoked, &active]));
    system.becomes("200", || get(&format!("{API}/orders")).key(&active)).await;
    let pair = |key: &str, secret: &str| get(&format!("{API}/orders")).basic(key, secret);
    let query = |text: &str| get(&format!("{API}/orders?{text}"));
    let rows = [
        ("unknown", pair("ck_0123456789012345678901234567890123456789", "cs_x"), "unknown_key"),
        ("wrong secret", pair(&active.public, "cs_wrong"), "wrong_secret"),
        ("expired", pair(&expired.public, &expired.secret), "expired"),
        ("revoked", pair(&revoked.public, &revoked.secret), "revoked"),
        ("no secret", pair(&active.public, ""), "unknown_key"),
        ("no pair", get(&format!("{API}/orders")).field("Authorization", "Basic !"), "malformed"),
        ("the key alone, in the query", query(&format!("consumer_key={}", active.public)), "malformed"),
        ("the secret alone, in the query", query(&format!("consumer_secret={}", active.secret)), "malformed"),
        ("empty, in the query", query("consumer_key=&consumer_secret="), "malformed"),
        ("wrong, in the query", query(&format!("consumer_key={}&consumer_secret=x", active.public)), "wrong_secret"),
    ];
    let mut first = None;
    for (index, (what, request, reason)) in rows.into_iter().enumerate() {
        let answer = system.sidecar.ask(request.clone().field("X-Request-Id", "the-same")).await;
        assert_eq!(answer.brief(), REFUSED, "{what}");
        assert_eq!(&bytes(&answer), first.get_or_insert_with(|| bytes(&answer)), "{what}");
        // The operator sees which it was.
        let id = format!("failed-{index}");
        system.sidecar.ask(request.field("X-Request-Id", &id)).await;
        assert_eq!(system.sidecar.logged(&id).await["reason"], reason, "{what}");
    }
}

/// [errors] "what clients read of an answer passes through: X-WP-Total, X-WP-TotalPages, Link, Allow"
#[tokio::test]
async fn the_fields_of_an_answer_pass_through() {
    let system = System::unlimited("woocommerce", "").await;
    let [reader, ..] = of_each_permission(&system).await;
    let link = format!("<https://shop.example{API}/orders?page=2>; rel=\"next\"");
    let fields = [
        ("Content-Type", "application/json; charset=UTF-8"),
        ("X-WP-Total", "23"),
        ("X-WP-TotalPages", "3"),
        ("Link", link.as_str()),
        ("Allow", "GET, POST"),
        ("Access-Control-Expose-Headers", "X-WP-Total, X-WP-TotalPages, Link"),
    ];
    system.upstream.on(&format!("{API}/orders"), Answer::with(200, &fields, "[]"));
    let refusal = r#"{"code":"woocommerce_rest_shop_order_invalid_id","message":"Invalid ID.","data":{"status":404}}"#;
    system.upstream.on(&format!("{API}/orders/9"), Answer::with(404, &fields[..1], refusal));
    for version in [H1, H2] {
        for method in ["GET", "HEAD", "OPTIONS"] {
            let answer =
                system.sidecar.send(version, reader.on(request(method, &format!("{API}/orders?page=1")))).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            for (name, value) in fields {
                assert_eq!(answer.field(name), value, "{name} over {version:?}");
            }
        }
        // What the shop itself refuses is the shop's.
        let answer = system.sidecar.send(version, reader.on(get(&format!("{API}/orders/9")))).await;
        assert_eq!((answer.status, answer.text().as_str()), (404, refusal));
    }
}

/// [errors] "where WooCommerce has no code of its own: ours, in its shape"
/// [IP whitelist] "it has none; a key may be bound to addresses all the same"
/// [limits] "it has none; a user may set them"
#[tokio::test]
async fn what_woocommerce_has_no_code_for_has_ours() {
    let config = "[limits]\nper_key = [\"1/1h\"]";
    let system = System::start("woocommerce", config).await;
    let away = system.mint("away", "shop-manager", "read", &["--allow-ip", "203.0.113.42"]).await;
    let few = system.mint("few", "shop-manager", "read", &[]).await;
    let orders = format!("{API}/orders");
    let rows = [
        (away.on(get(&orders)), "403 forbidden_caller_ip"),
        (few.on(get(&orders)), "200"),
        (few.on(get(&orders)), "429 too_many_requests"),
        (few.on(get("/wp-json//wc/v3/orders")), "400 bad_request"),
        (few.on(get(&orders)).field("consumer_key", "x"), "400 bad_request"),
    ];
    for (request, expected) in rows {
        let answer = system.sidecar.ask(request).await;
        assert_eq!(answer.brief(), expected, "{answer:?}");
        if answer.status != 200 {
            assert_eq!(answer.json()["data"], json!({ "status": answer.status }), "{answer:?}");
        }
        assert_eq!(answer.has("retry-after"), answer.status == 429, "{answer:?}");
    }
}

/// [limits] "it has none, and nor has the preset"
#[tokio::test]
async fn the_preset_sets_no_limits() {
    let system = System::start("woocommerce", "").await;
    let pair = system.mint("busy", "shop-manager", "read", &[]).await;
    let mut connection = system.sidecar.connect(H1).await;
    for _ in 0..200 {
        let answer = connection.send(&pair.on(get(&format!("{API}/orders")))).await;
        assert_eq!((answer.status, answer.has("ratelimit")), (200, false), "{answer:?}");
    }
}
