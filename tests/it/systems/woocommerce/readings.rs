//! WordPress takes the method and the path of a call from more places than the request line. Each has a rule.

use super::{API, REFUSED, of_each_permission};
use crate::{
    harness::{Request, get, post, request},
    systems::{agreement::come_to, service::System},
};

const OK: &str = "200";
const BAD: &str = "400 bad_request";
/// Both permissions are needed: as sent, and as it comes to.
const BOTH: [&str; 3] = [REFUSED, REFUSED, OK];
const READ: [&str; 3] = [OK, REFUSED, OK];
const WRITE: [&str; 3] = [REFUSED, OK, OK];

/// Rows of (request, what it comes to with the keys that read, that write, that do both).
async fn check(rows: &[(Request, [&str; 3])]) {
    let system = System::unlimited("woocommerce", "").await;
    come_to(&system, &of_each_permission(&system).await, rows).await;
}

fn form(target: &str, body: &str) -> Request {
    post(target, body).field("Content-Type", "application/x-www-form-urlencoded")
}

/// [permission model] "a key that reads does not write by overriding the method"
/// [note] "?_method= and X-HTTP-Method-Override change the method behind a proxy's back"
#[tokio::test]
async fn a_reader_does_not_write_by_another_method() {
    let item = format!("{API}/orders/7");
    let mut rows = Vec::new();
    for method in ["POST", "PUT", "PATCH", "DELETE", "delete", "dElEtE"] {
        rows.push((get(&format!("{item}?_method={method}")), BOTH));
        rows.push((get(&item).field("X-HTTP-Method-Override", method), BOTH));
        rows.push((request("OPTIONS", &format!("{item}?_method={method}")), WRITE));
    }
    for name in ["_method", "%5Fmethod", ".method", "%2Emethod", "+_method", "%20.method", "_method%00", "_method%00[]"]
    {
        rows.push((get(&format!("{item}?force=true&{name}=DELETE&x=y")), BOTH));
    }
    for name in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
        rows.push((get(&item).field(name, "DELETE"), BOTH));
        rows.push((post(&item, "{}").field(name, "GET"), BOTH));
        rows.push((request("HEAD", &item).field(name, "GET"), [OK, "401", OK]));
        rows.push((get(&item).field(name, "DELETE").field(name, "GET"), [BAD; 3]));
    }
    for name in ["X_HTTP_Method_Override", "X_HTTP_METHOD_OVERRIDE", "X.Http.Method.Override"] {
        rows.push((get(&item).field(name, "DELETE"), [BAD; 3]));
    }
    rows.extend([
        (get(&format!("{item}?_method=DELETE&_method=GET")), [BAD; 3]),
        (get(&format!("{item}?_method[]=DELETE")), [BAD; 3]),
        (get(&format!("{item}?_method=DELETE")).field("X-HTTP-Method-Override", "GET"), [BAD; 3]),
        (get(&format!("{item}?_method=")), [BAD; 3]),
        (get(&format!("{item}?_method=PURGE")), [REFUSED; 3]),
        (get(&format!("{item}?_method=TRACE")), [REFUSED; 3]),
        (get(&format!("{item}?_METHOD=DELETE&method=DELETE")), READ),
        (get(&format!("{item}?_method=GET")), READ),
        // A form says no method: WordPress looks for it in the query and in the fields alone.
        (form(&item, "_method=GET&status=completed"), WRITE),
    ]);
    check(&rows).await;
}

/// [permission model] "a key that reads does not write by reaching the API on another path"
/// [note] "/?rest_route=/wc/v3/… and /index.php?rest_route=… reach the API by another path"
#[tokio::test]
async fn a_route_is_judged_where_it_is_named() {
    let mut rows = Vec::new();
    for at in ["/", "/index.php"] {
        for name in ["rest_route", "rest.route", "rest%5Froute", "rest[route", "%20rest%2Eroute", "rest+route%00y"] {
            let target = format!("{at}?{name}=/wc/v3/orders/7");
            rows.push((get(&target), READ));
            rows.push((request("DELETE", &target), WRITE));
            rows.push((get(&format!("{target}&_method=DELETE")), BOTH));
        }
        rows.extend([
            // A form names a path to PHP only where PHP takes it for one: the sent path must be allowed besides.
            (form(at, "rest_route=/wc/v3/orders/7&status=completed"), [REFUSED; 3]),
            (form(&format!("{at}?rest_route=/wc/v3/orders/7"), "status=completed"), WRITE),
            (form(at, "rest%5Froute=%2Fwc%2Fv3%2Forders"), [REFUSED; 3]),
            (form(&format!("{at}?rest_route=/wc/v3/orders"), "rest_route=/wc/v3/coupons"), [BAD; 3]),
            (form(at, "rest_route=/wp/v2/users"), [REFUSED; 3]),
            (form(at, "status=completed"), [REFUSED; 3]),
            (get(&format!("{at}?rest_route=/wp/v2/users")), [REFUSED; 3]),
            (get(&format!("{at}?rest_route=/batch/v1")), [REFUSED; 3]),
            (post(&format!("{at}?rest_route=/wc/v3/orders/batch"), "{}"), WRITE),
            (get(&format!("{at}?rest_route=/wc/v3/../../wp/v2/users")), [BAD; 3]),
            (get(&format!("{at}?rest_route=/wc/v3/%252e%252e/x")), [BAD; 3]),
            (get(&format!("{at}?rest_route=//wc/v3/orders")), [BAD; 3]),
            (get(&format!("{at}?rest_route[]=/wc/v3/orders")), [BAD; 3]),
            (get(&format!("{at}?rest_route=/wc/v3/orders&rest.route=/wp/v2/users")), [BAD; 3]),
            (get(&format!("{at}?rest_route=")), [BAD; 3]),
            (get(&format!("{at}?REST_ROUTE=/wc/v3/orders")), [REFUSED; 3]),
        ]);
    }
    let parts = "--b\r\nContent-Disposition: form-data; name=\"rest_route\"\r\n\r\n/wc/v3/orders\r\n--b--\r\n";
    rows.push((post("/", parts).field("Content-Type", "multipart/form-data; boundary=b"), [BAD; 3]));
    rows.push((form("/wp-json/wc/v3/orders", "rest_route=/wc/v3/products&name=x"), WRITE));
    rows.push((form("/wp-json/wc/v3/orders", "rest_route=/wp/v2/users&name=x"), [REFUSED; 3]));
    // Elsewhere, both paths must be allowed.
    for (at, named, expected) in [
        ("/wp-json/wc/v3/orders", "/wc/v3/products", READ),
        ("/wp-json/wc/v3/orders", "/wp/v2/users", [REFUSED; 3]),
        ("/wp-json/wp/v2/users", "/wc/v3/orders", [REFUSED; 3]),
        ("/wp-login.php", "/wc/v3/orders", [REFUSED; 3]),
        ("/wp-admin/index.php", "/wc/v3/orders", [REFUSED; 3]),
    ] {
        rows.push((get(&format!("{at}?rest_route={named}")), expected));
    }
    check(&rows).await;
}

/// [note] "index.php/wp-json, //wp-json and their like are judged as what WordPress takes them for, or refused"
#[tokio::test]
async fn every_spelling_of_a_path_is_judged_or_refused() {
    let rows = [
        (get("/index.php/wp-json/wc/v3/orders"), READ),
        (post("/index.php/wp-json/wc/v3/orders", "{}"), WRITE),
        (get("/index.php/wp-json/wc/v3/orders?_method=POST"), BOTH),
        (get("/index.php/wp-json/wp/v2/users"), [REFUSED; 3]),
        (get("/index.php/wp-json/wc/v3/orders?rest_route=/wp/v2/users"), [REFUSED; 3]),
        (get("/index.php/?rest_route=/wp/v2/users"), [REFUSED; 3]),
        (get("/INDEX.php/wp-json/wc/v3/orders"), [REFUSED; 3]),
        (get("//wp-json/wc/v3/orders"), [BAD; 3]),
        (get("/wp-json//wc/v3/orders"), [BAD; 3]),
        (get("/wp-json/wc/v3/orders/../../../wp/v2/users"), [BAD; 3]),
        (get("/wp-json/wc/v3/%2e%2e/users"), [BAD; 3]),
        (get("/wp-json/wc%2Fv3/orders"), [BAD; 3]),
        (get("/wp-json/wc/v3/orders;a=b"), [BAD; 3]),
        (get("/wp-json/wc\\v3/orders"), [BAD; 3]),
        (get("/wp-json/%77c/v3/orders"), READ),
        (get("/wp-json/wc/v3/orders/"), READ),
        (get("/wp-json/WC/V3/orders"), [REFUSED; 3]),
        // A shop in a folder of its own has routes of its own.
        (get("/shop/wp-json/wc/v3/orders"), [REFUSED; 3]),
    ];
    check(&rows).await;
}

/// As the comment in the preset says: the folder, and what serves it, are front controllers.
///
/// [what it is] "a WordPress in a folder of its own"
#[tokio::test]
async fn a_shop_in_a_folder_has_its_routes_there() {
    let config = r#"
        routes_from_preset = false
        [policy]
        effective_path_prefix = "/shop/wp-json"
        front_controllers = ["/shop/", "/shop/index.php"]
        [[route]]
        path = "/shop/wp-json/wc/**"
    "#;
    let system = System::unlimited("woocommerce", config).await;
    let keys = of_each_permission(&system).await;
    let rows = [
        (get("/shop/wp-json/wc/v3/orders"), READ),
        (post("/shop/wp-json/wc/v3/orders", "{}"), WRITE),
        (get("/shop/index.php/wp-json/wc/v3/orders"), READ),
        (get("/shop/?rest_route=/wc/v3/orders"), READ),
        (get("/shop/index.php?rest_route=/wc/v3/orders&_method=DELETE"), BOTH),
        (form("/shop/?rest_route=/wc/v3/orders", "status=completed"), WRITE),
        // Another site at the root is none of its keys' business.
        (get("/wp-json/wc/v3/orders"), [REFUSED; 3]),
        (get("/?rest_route=/wc/v3/orders"), [REFUSED; 3]),
        (get("/index.php/shop/wp-json/wc/v3/orders"), [REFUSED; 3]),
        (get("/shop/?rest_route=/wp/v2/users"), [REFUSED; 3]),
        (get("/shop/wp-json/wp/v2/users"), [REFUSED; 3]),
        (get("/shop/wp-login.php"), [REFUSED; 3]),
        (get("/shops/wp-json/wc/v3/orders"), [REFUSED; 3]),
    ];
    for (request, expected) in rows {
        for (pair, expected) in keys.iter().zip(expected) {
            let answer = system.sidecar.ask(pair.on(request.clone())).await;
            assert_eq!(answer.brief(), expected, "{request:?} with {}", pair.printed["name"]);
        }
    }
}

/// Many calls in one: each would have to be judged, and none can be.
///
/// [note] "/wp-json/batch/v1 is refused, in every spelling; the batches of WooCommerce's own resources need write"
#[tokio::test]
async fn a_batch_of_calls_is_refused() {
    let calls = r#"{"requests":[{"method":"DELETE","path":"/wc/v3/orders/7"}]}"#;
    let mut rows = Vec::new();
    for target in [
        "/wp-json/batch/v1",
        "/wp-json/batch/v1/",
        "/wp-json/Batch/v1",
        "/index.php/wp-json/batch/v1",
        "/?rest_route=/batch/v1",
        "/wp-json/wc/v3/orders?rest_route=/batch/v1",
    ] {
        rows.push((post(target, calls).field("Content-Type", "application/json"), [REFUSED; 3]));
    }
    rows.push((post("/wp-json/wc/v3/orders/batch", r#"{"delete":[7]}"#), WRITE));
    rows.push((request("PUT", "/wp-json/wc/v3/orders/batch").body(r#"{"delete":[7]}"#), WRITE));
    check(&rows).await;
}

/// `_envelope` asks for the status within a body of 200, and `_jsonp` for a script. Both are for the shop's answers.
///
/// [errors] "a refusal stays one, with its status, whatever the query asks for"
#[tokio::test]
async fn a_refusal_is_never_wrapped() {
    let system = System::unlimited("woocommerce", "").await;
    let [reader, writer, _] = of_each_permission(&system).await;
    for query in ["_envelope", "_envelope=1", "_envelope=embed", "_jsonp=callback", "_jsonp=x&_envelope", "_fields=id"]
    {
        for at in [format!("{API}/orders?{query}"), format!("/?rest_route=/wc/v3/orders&{query}")] {
            for (refused, expected) in [
                (writer.on(get(&at)), REFUSED),
                (get(&at), "401 woocommerce_rest_cannot_view"),
                (get(&at).basic(&reader.prefix, "cs_wrong"), REFUSED),
            ] {
                let answer = system.sidecar.ask(refused).await;
                assert_eq!(answer.brief(), expected, "{at}: {answer:?}");
                assert_eq!(answer.field("content-type"), "application/json", "{at}");
                assert!(!answer.text().contains("callback"), "{at}: {answer:?}");
            }
            let before = system.upstream.count();
            assert_eq!(system.sidecar.ask(reader.on(get(&at))).await.status, 200, "{at}");
            assert_eq!((system.upstream.count(), system.upstream.last().target()), (before + 1, at));
        }
    }
}
