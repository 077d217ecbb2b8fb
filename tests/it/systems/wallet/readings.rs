//! WordPress takes the method and the path of a call from more places than the request line. No key gains by that.

use super::{API, of_each_scope};
use crate::{
    harness::{Request, get, post, request},
    systems::{agreement::come_to, service::System},
};

const OK: &str = "200";
const SCOPE: &str = "403 insufficient_scope";
const NO_ROUTE: &str = "403 route_not_allowed";
const BAD: &str = "400 bad_request";

/// Rows of (request, what it comes to with the keys that read, that write, that do both).
async fn check(rows: &[(Request, [&str; 3])]) {
    let system = System::unlimited("wallet", "").await;
    come_to(&system, &of_each_scope(&system).await, rows).await;
}

fn form(target: &str, body: &str) -> Request {
    post(target, body).field("Content-Type", "application/x-www-form-urlencoded")
}

/// [permission model] "a key that reads does not write by overriding the method"
/// [note] "WordPress lets a client change the method behind a proxy's back: ?_method= and X-HTTP-Method-Override"
#[tokio::test]
async fn a_reader_does_not_write_by_another_method() {
    let wallets = format!("{API}/wallets");
    let parameter = |name: &str| get(&format!("{wallets}?{name}=POST"));
    let both = [SCOPE, SCOPE, OK];
    let mut rows: Vec<(Request, [&str; 3])> =
        ["_method", "%5Fmethod", ".method", "+_method", "%20.method", "_method%00x", "%5f%6d%65%74%68%6f%64"]
            .into_iter()
            .map(|name| (parameter(name), both))
            .collect();
    for name in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
        rows.push((get(&wallets).field(name, "PUT"), both));
        rows.push((post(&wallets, "{}").field(name, "GET"), both));
    }
    for name in ["X_HTTP_Method_Override", "X_HTTP-Method-Override", "X.HTTP.Method.Override"] {
        rows.push((get(&wallets).field(name, "PUT"), [BAD; 3]));
    }
    rows.extend([
        // To a reader, what would be done counts: nobody deletes here.
        (parameter("x=1&_method=DELETE&y"), [NO_ROUTE; 3]),
        (get(&format!("{wallets}?_method=delete")), [NO_ROUTE; 3]),
        (get(&format!("{wallets}?_method=PUT&_method=GET")), [BAD; 3]),
        (get(&format!("{wallets}?_method[]=PUT")), [BAD; 3]),
        (get(&format!("{wallets}?_method=PUT")).field("X-HTTP-Method-Override", "GET"), [BAD; 3]),
        (get(&format!("{wallets}?_method=PURGE")), ["405 method_not_allowed"; 3]),
        // What only looks like it is none of it.
        (get(&format!("{wallets}?method=POST&_Method=POST&x_method=POST&search=_method")), [OK, SCOPE, OK]),
        (get(&format!("{wallets}?_method=HEAD")), [OK, SCOPE, OK]),
    ]);
    check(&rows).await;
}

/// [permission model] "a key that reads does not write by reaching the API on another path"
/// [note] "WordPress reaches the API by another path: /?rest_route=/wkwp-wallet/v1/… and /index.php?rest_route=…"
#[tokio::test]
async fn a_route_is_judged_where_it_is_named() {
    let route = "/wkwp-wallet/v1";
    let mut rows = Vec::new();
    for at in ["/", "/index.php"] {
        for name in ["rest_route", "rest.route", "rest%5Froute", "rest[route", "+rest+route", "rest%20route%00"] {
            let target = format!("{at}?{name}={route}/wallets");
            rows.push((get(&target), [OK, SCOPE, OK]));
            rows.push((post(&target, "{}"), [SCOPE, OK, OK]));
            rows.push((get(&format!("{target}&_method=PUT")), [SCOPE, SCOPE, OK]));
        }
        rows.extend([
            (request("DELETE", &format!("{at}?rest_route={route}/wallets/7")), [NO_ROUTE; 3]),
            (get(&format!("{at}?rest_route=%2Fwkwp-wallet%2Fv1%2Fwallets%2F7")), [OK, SCOPE, OK]),
            (get(&format!("{at}?rest_route=wkwp-wallet/v1/wallets")), [BAD; 3]),
            (get(&format!("{at}?rest_route=0")), [BAD; 3]),
            // A form names a path to PHP only where PHP takes it for one: the sent path must be allowed besides.
            (form(at, &format!("rest_route={route}/wallets/7/credit&amount=1")), [NO_ROUTE; 3]),
            (form(&format!("{at}?rest_route={route}/wallets/7/credit"), "amount=1"), [SCOPE, OK, OK]),
            (form(at, "rest_route=/wp/v2/users"), [NO_ROUTE; 3]),
            (get(&format!("{at}?rest_route=/wp/v2/users")), [NO_ROUTE; 3]),
            (get(&format!("{at}?rest_route={route}/../../wp/v2/users")), [BAD; 3]),
            (get(&format!("{at}?rest_route={route}/wallets&rest_route=/wp/v2/users")), [BAD; 3]),
            (get(&format!("{at}?rest_route[]={route}/wallets")), [BAD; 3]),
            (get(&format!("{at}?rest_route=")), [BAD; 3]),
            (get(at), [NO_ROUTE; 3]),
        ]);
    }
    // Elsewhere, both paths must be allowed.
    for (at, named, expected) in [
        (format!("{API}/wallets"), "/wkwp-wallet/v1/transactions", [OK, SCOPE, OK]),
        (format!("{API}/wallets"), "/wp/v2/users", [NO_ROUTE; 3]),
        ("/wp-login.php".to_owned(), "/wkwp-wallet/v1/wallets", [NO_ROUTE; 3]),
        ("/wp-json".to_owned(), "/wkwp-wallet/v1/wallets", [NO_ROUTE; 3]),
    ] {
        rows.push((get(&format!("{at}?rest_route={named}")), expected));
    }
    check(&rows).await;
}

/// [note] "the path after index.php, and paths with empty segments, are judged as what WordPress takes them for"
#[tokio::test]
async fn a_path_behind_the_front_controller_is_judged_as_what_follows_it() {
    let rows = [
        (get(&format!("/index.php{API}/wallets")), [OK, SCOPE, OK]),
        (post(&format!("/index.php{API}/wallets"), "{}"), [SCOPE, OK, OK]),
        (get("/index.php/wp-json/wp/v2/users"), [NO_ROUTE; 3]),
        (get("/index.php/wp-json"), [NO_ROUTE; 3]),
        (get(&format!("/index.php{API}/wallets?rest_route=/wp/v2/users")), [NO_ROUTE; 3]),
        (get("/index.php/wp-json/wp/v2/users?rest_route=/wkwp-wallet/v1/wallets"), [NO_ROUTE; 3]),
        (get(&format!("/index.php/index.php{API}/wallets")), [NO_ROUTE; 3]),
        (get(&format!("/{API}/wallets")), [BAD; 3]),
        (get("/wp-json//wkwp-wallet/v1/wallets"), [BAD; 3]),
        (get("/wp-json/./wkwp-wallet/v1/wallets"), [BAD; 3]),
        (get("/wp-json/wkwp-wallet/v1/..%2f..%2fwp/v2/users"), [BAD; 3]),
        (get("/wp-json/wkwp-wallet%2fv1/wallets"), [BAD; 3]),
        (get("/wp-json/wkwp-wallet/v1/wallets;x"), [BAD; 3]),
        (get("/WP-JSON/wkwp-wallet/v1/wallets"), [NO_ROUTE; 3]),
        (get(&format!("{API}/%77allets")), [OK, SCOPE, OK]),
    ];
    check(&rows).await;
}

/// Whether it is forwarded or refused is the status line, and nothing that is asked for in the query makes it another.
///
/// [errors] "a refusal keeps its status and its shape, whatever the query asks for"
#[tokio::test]
async fn a_refusal_is_never_wrapped() {
    let system = System::unlimited("wallet", "").await;
    let [reader, writer, _] = of_each_scope(&system).await;
    for query in ["_envelope", "_envelope=1", "_envelope=embed", "_jsonp=callback", "_jsonp=x&_envelope=1"] {
        let target = format!("{API}/wallets?{query}");
        let refused = system.sidecar.ask(writer.on(get(&target))).await;
        assert_eq!((refused.brief().as_str(), refused.field("content-type")), (SCOPE, "application/json"), "{query}");
        assert!(!refused.text().contains("callback"), "{query}: {refused:?}");
        let stranger = system.sidecar.ask(get(&target)).await;
        assert_eq!(stranger.brief(), "401 missing_credentials", "{query}");
        // What is allowed goes on as it was asked for.
        assert_eq!(system.sidecar.ask(reader.on(get(&target))).await.status, 200, "{query}");
        assert_eq!(system.upstream.last().target(), target);
    }
    // A batch of calls in one would be as many calls that nobody judged.
    let batch = r#"{"requests":[{"path":"/wkwp-wallet/v1/wallets/7/credit"}]}"#;
    for target in ["/wp-json/batch/v1", "/?rest_route=/batch/v1", "/index.php/wp-json/batch/v1"] {
        assert_eq!(system.sidecar.ask(writer.on(post(target, batch))).await.brief(), NO_ROUTE, "{target}");
    }
}
