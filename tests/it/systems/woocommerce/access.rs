//! Who may do what: permissions, owners, namespaces.

use super::{API, REFUSED, of_each_permission};
use crate::{
    harness::{H1, H2, get, post, request},
    systems::service::System,
};

const OK: &str = "200";

/// Every method with a key of every permission.
///
/// [what it is] "the keys of WooCommerce's REST API, under /wp-json/wc/v3/"
/// [permission model] "read: retrieves data, and no more"
/// [permission model] "write: creates and modifies"
/// [permission model] "read/write: both"
/// [permission model] "the method says which is needed: HEAD and GET read; POST, PUT, PATCH and DELETE write"
/// [permission model] "OPTIONS asks for no permission"
/// [errors] "a key that reads and is used to write, or the reverse: 401 and not 403"
/// [errors] "any other method: 401, Unknown request method."
#[tokio::test]
async fn the_permission_decides_by_method() {
    let system = System::unlimited("woocommerce", "").await;
    let keys = of_each_permission(&system).await;
    let (read, write) = ([OK, REFUSED, OK], [REFUSED, OK, OK]);
    let methods = [
        ("GET", read),
        ("HEAD", [OK, "401", OK]),
        ("OPTIONS", [OK; 3]),
        ("POST", write),
        ("PUT", write),
        ("PATCH", write),
        ("DELETE", write),
        ("PURGE", [REFUSED; 3]),
        ("TRACE", [REFUSED; 3]),
    ];
    let paths = [
        "/wp-json/wc/v3/orders",
        "/wp-json/wc/v3/orders/7",
        "/wp-json/wc/v3/orders/7/notes/1",
        "/wp-json/wc/v3/settings/general/woocommerce_currency",
        "/wp-json/wc/v2/products",
        "/wp-json/wc/v1/coupons",
        "/wp-json/wc-analytics/reports/orders",
    ];
    for path in paths {
        for (method, expected) in methods {
            for (pair, expected) in keys.iter().zip(expected) {
                let answer = system.sidecar.ask(pair.on(request(method, path))).await;
                let who = pair.printed["name"].clone();
                assert_eq!(answer.brief(), expected, "{method} {path} with {who}: {answer:?}");
                if expected == REFUSED {
                    let lacking = match method {
                        "GET" => "The API key provided does not have read permissions.",
                        "PURGE" | "TRACE" => "Unknown request method.",
                        _ => "The API key provided does not have write permissions.",
                    };
                    assert_eq!(answer.json()["message"], lacking, "{method} {path} with {who}");
                }
            }
        }
    }
    // Many changes in one call are a change.
    for path in ["/wp-json/wc/v3/orders/batch", "/wp-json/wc/v3/products/7/variations/batch"] {
        for (pair, expected) in keys.iter().zip(write) {
            let batch = r#"{"create":[{}],"delete":[7]}"#;
            assert_eq!(system.sidecar.ask(pair.on(post(path, batch))).await.brief(), expected, "{path}");
        }
    }
}

/// [owner] "the user whom a key is of; WordPress is told who that is"
/// [owner] "the key has that user's capabilities: what asks for manage_woocommerce is refused without it"
/// [owner] "an administrator gives full access: be careful"
/// [errors] "the key is fine and its owner lacks the capability: 403"
#[tokio::test]
async fn a_key_has_its_owners_capabilities() {
    let system = System::unlimited("woocommerce", "").await;
    let [reader, _, both] = of_each_permission(&system).await;
    system.owner("author", &["--capability", "edit_products"]).await;
    let author = system.mint("author's", "author", "read_write", &[]).await;
    for version in [H1, H2] {
        assert_eq!(system.sidecar.send(version, author.on(get(&format!("{API}/orders")))).await.status, 200);
        let seen = system.upstream.last();
        assert_eq!((seen.field("x-key-owner"), seen.field("x-key-id")), ("author".into(), author.id.clone()));
        assert_eq!(seen.field("x-key-scopes"), "read_write");
        // WordPress would not take Basic from who seems not to speak TLS; it need not, but it should know.
        assert_eq!(seen.field("x-forwarded-proto"), "https");
        assert!(seen.field("forwarded").contains("proto=https"), "{seen:?}");
    }
    let resources = ["settings", "settings/general", "system_status", "payment_gateways/bacs", "shipping/zones"];
    let more = ["shipping_methods", "taxes/7", "data/currencies", "webhooks", "Settings", "webhooks/"];
    let codes = [
        ("GET", "403 woocommerce_rest_cannot_view"),
        ("HEAD", "403"),
        ("POST", "403 woocommerce_rest_cannot_create"),
        ("PUT", "403 woocommerce_rest_cannot_edit"),
        ("PATCH", "403 woocommerce_rest_cannot_edit"),
        ("DELETE", "403 woocommerce_rest_cannot_delete"),
    ];
    for resource in resources.into_iter().chain(more) {
        for version in ["v1", "v2", "v3"] {
            let path = format!("/wp-json/wc/{version}/{resource}");
            for (method, expected) in codes {
                let answer = system.sidecar.ask(author.on(request(method, &path))).await;
                assert_eq!(answer.brief(), expected, "{method} {path}");
                assert_eq!(system.sidecar.ask(both.on(request(method, &path))).await.status, 200, "{method} {path}");
            }
            assert_eq!(system.sidecar.ask(reader.on(get(&path))).await.status, 200, "{path}");
        }
    }
    // Everything else is WordPress's to judge, as that user.
    for path in ["products", "orders/7", "settings_of_ours"] {
        assert_eq!(system.sidecar.ask(author.on(post(&format!("{API}/{path}"), "{}"))).await.status, 200, "{path}");
    }
    system.owner("boss", &["--capability", "administrator,manage_woocommerce"]).await;
    let pair = system.mint("the boss's", "boss", "read", &[]).await;
    assert!(pair.said.contains("boss is an administrator"), "{}", pair.said);
}

/// As a user adds it, in front of the preset's routes: the comment in the preset shows how.
///
/// [owner] "where WordPress does not judge capabilities itself, routes of one's own do"
#[tokio::test]
async fn a_capability_may_be_asked_of_all_who_write() {
    let config = r#"
        [[route]]
        path = "/wp-json/wc/**"
        methods = ["POST", "PUT", "PATCH", "DELETE"]
        capability = "manage_woocommerce"
    "#;
    let system = System::unlimited("woocommerce", config).await;
    let [_, _, both] = of_each_permission(&system).await;
    let nobody = system.mint("nobody's", "nobody", "read_write", &[]).await;
    let orders = format!("{API}/orders");
    assert_eq!(system.sidecar.ask(both.on(post(&orders, "{}"))).await.status, 200);
    let answer = system.sidecar.ask(nobody.on(post(&orders, "{}"))).await;
    assert_eq!(answer.brief(), "403 woocommerce_rest_cannot_create");
    assert_eq!(system.line(&answer).await["note"], "needs the capability manage_woocommerce");
    assert_eq!(system.sidecar.ask(nobody.on(get(&orders))).await.status, 200);
    // What is added comes before what the preset has, and takes nothing of it away.
    assert_eq!(system.sidecar.ask(nobody.on(get(&format!("{API}/webhooks")))).await.status, 403);
}

/// [errors] "a key used outside of the namespaces that it opens: 401"
/// [mode / environment] "none: a key passes on every host"
#[tokio::test]
async fn a_key_opens_its_namespaces_on_every_host() {
    let system = System::unlimited("woocommerce", "").await;
    let [reader, _, both] = of_each_permission(&system).await;
    for path in [
        "/",
        "/index.php",
        "/shop/",
        "/wp-login.php",
        "/wp-admin/admin-ajax.php",
        "/wp-json/wp/v2/users",
        "/wp-json/wp/v2/users/me",
        "/wp-json/wc",
        "/wp-json/wcx/v3/orders",
        "/wp-json/wc-admin/options",
        "/wp-json/batch/v1",
        "/wc-api/v3/orders",
        "/xmlrpc.php",
    ] {
        let expected = if path == "/wp-json/wc" { OK } else { REFUSED };
        for request in [get(path), post(path, "{}")] {
            let answer = system.sidecar.ask(both.on(request)).await;
            assert_eq!(answer.brief(), expected, "{path}");
            if expected == REFUSED {
                let message = "The provided API key cannot be used to access this endpoint.";
                assert_eq!(answer.json()["message"], message, "{path}");
            }
        }
    }
    for index in ["/wp-json", "/wp-json/", "/?rest_route=/"] {
        assert_eq!(system.sidecar.ask(reader.on(get(index))).await.status, 200, "{index}");
        assert_eq!(system.sidecar.ask(both.on(post(index, "{}"))).await.brief(), REFUSED, "{index}");
    }
    for host in ["shop.example", "staging.shop.example", "127.0.0.1:8443"] {
        assert_eq!(system.sidecar.ask(reader.on(get(&format!("{API}/orders")).host(host))).await.status, 200);
        assert!(!system.upstream.last().has("x-key-mode"), "{host}");
    }
    assert!(reader.printed["mode"].is_null(), "{:?}", reader.printed);
}
