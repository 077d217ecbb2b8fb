//! Who may do what: scopes, owners, KYC, addresses.

use serde_json::json;

use super::{API, of_each_scope};
use crate::{
    harness::{Answer, H1, H2, Request, get, post, request},
    systems::service::System,
};

/// What is forwarded to `/wp-json/wkwp-wallet/v1/*` carries the owner and not the pair.
///
/// [what it is] "REST API of a wallet plugin for WordPress, under /wp-json/wkwp-wallet/v1/"
/// [what it is] "server-to-server integrations, BI tools and dashboards call it"
/// [credential] "the pair goes by Basic: consumer key as user name, consumer secret as password"
/// [owner] "a WP user that the key acts as"
/// [mode / environment] "none: a key passes on every host"
#[tokio::test]
async fn a_call_by_basic_reaches_the_api_as_its_owner() {
    let system = System::unlimited("wallet", "").await;
    let [reader, ..] = of_each_scope(&system).await;
    let json = [("Content-Type", "application/json")];
    system.upstream.on(&format!("{API}/wallets"), Answer::with(200, &json, r#"[{"id":1}]"#));
    for version in [H1, H2] {
        let lying = get(&format!("{API}/wallets?per_page=20")).field("X-Forwarded-Proto", "http");
        let lying = lying.field("X-Key-Owner", "admin").field("Forwarded", "proto=http");
        let answer = system.sidecar.send(version, reader.on(lying)).await;
        assert_eq!((answer.status, answer.json()), (200, json!([{ "id": 1 }])), "{answer:?}");
        let seen = system.upstream.last();
        assert_eq!(seen.target(), format!("{API}/wallets?per_page=20"));
        assert_eq!((seen.field("x-key-owner"), seen.field("x-key-id")), ("svc-shop".into(), reader.id.clone()));
        assert!(!seen.has("authorization"), "{seen:?}");
        // WordPress asks whether it is spoken to over TLS, and is.
        assert_eq!(seen.field("x-forwarded-proto"), "https");
        assert!(seen.field("forwarded").contains("proto=https"), "{seen:?}");
        assert!(!seen.field("forwarded").contains("proto=http;") && !seen.field("forwarded").contains(','), "{seen:?}");
    }
    for host in ["yourstore.com", "staging.yourstore.com", "127.0.0.1:8443"] {
        assert_eq!(
            system.sidecar.ask(reader.on(get(&format!("{API}/wallets")).host(host))).await.status,
            200,
            "{host}"
        );
        assert!(!system.upstream.last().has("x-key-mode"), "{host}");
    }
    assert!(reader.printed["mode"].is_null(), "{:?}", reader.printed);
    let forwarded = system.upstream.count();
    // No other credential is one here.
    let rows: [(&str, Request); 5] = [
        ("none", get(&format!("{API}/wallets"))),
        ("Bearer", get(&format!("{API}/wallets")).bearer(&reader.secret)),
        ("a header", get(&format!("{API}/wallets")).field("X-API-Key", &reader.secret)),
        ("the query", get(&format!("{API}/wallets?consumer_key={}&consumer_secret={}", reader.prefix, reader.secret))),
        ("the query of /", get(&format!("/?rest_route=/wkwp-wallet/v1/wallets&consumer_key={}", reader.prefix))),
    ];
    for (what, request) in rows {
        let answer = system.sidecar.ask(request).await;
        assert_eq!(answer.brief(), "401 missing_credentials", "{what}");
        assert!(answer.field("www-authenticate").starts_with("Basic "), "{what}: {answer:?}");
    }
    assert_eq!(system.upstream.count(), forwarded);
}

/// Every method with a key of every scope, on every kind of endpoint that the document names.
///
/// [permission model] "read: endpoints that are read by GET, and nothing else: wallets, transactions, analytics"
/// [permission model] "write: POST and PUT, and nothing else: credit and debit, KYC decisions, withdrawal approve and reject"
/// [permission model] "read_write: both"
/// [permission model] "HEAD asks no more than GET"
#[tokio::test]
async fn the_scope_decides_by_method() {
    let system = System::unlimited("wallet", "").await;
    let [reader, writer, both] = of_each_scope(&system).await;
    const OK: &str = "200";
    const SCOPE: &str = "403 insufficient_scope";
    const NO_ROUTE: &str = "403 route_not_allowed";
    let methods = [
        ("GET", [OK, SCOPE, OK]),
        ("HEAD", [OK, "403", OK]),
        ("OPTIONS", [OK, OK, OK]),
        ("POST", [SCOPE, OK, OK]),
        ("PUT", [SCOPE, OK, OK]),
        ("PATCH", [NO_ROUTE; 3]),
        ("DELETE", [NO_ROUTE; 3]),
        ("PURGE", ["405 method_not_allowed"; 3]),
    ];
    let paths = [
        "/wallets",
        "/wallets/7",
        "/wallets/7/credit",
        "/wallets/7/debit",
        "/transactions",
        "/analytics/summary",
        "/kyc/7/decision",
        "/withdrawals",
        "/withdrawals/7/approve",
        "/withdrawals/7/reject",
    ];
    for path in paths {
        for (method, expected) in methods {
            for (pair, expected) in [&reader, &writer, &both].into_iter().zip(expected) {
                let answer = system.sidecar.ask(pair.on(request(method, &format!("{API}{path}")))).await;
                assert_eq!(answer.brief(), expected, "{} {method} {path}", pair.printed["name"]);
                if !expected.starts_with("200") && method != "HEAD" {
                    let status = answer.status;
                    assert_eq!(answer.json()["data"], json!({ "status": status }), "{answer:?}");
                }
            }
        }
    }
    // What the plugin does not serve, no key opens.
    for path in ["/", "/wp-json", "/wp-json/", "/wp-json/wp/v2/users", "/wp-json/wc/v3/orders", "/wp-login.php"] {
        assert_eq!(system.sidecar.ask(both.on(get(path))).await.brief(), NO_ROUTE, "{path}");
    }
}

/// Which of the two is lacking is told apart: to the caller by the code, to the operator by the reason and a note.
///
/// [owner] "the key has its owner's capabilities, and no others"
/// [owner] "usually a service account with manage_woocommerce"
/// [errors] "permission denied on POST: the owner lacks manage_woocommerce, or the scope is read"
#[tokio::test]
async fn writing_needs_the_scope_and_the_owners_capability() {
    let system = System::unlimited("wallet", "").await;
    system.owner("manager", &["--capability", "manage_woocommerce"]).await;
    system.owner("customer", &["--capability", "read"]).await;
    let rows = [
        ("manager", "read", "403 insufficient_scope", "needs write"),
        ("manager", "write", "200", ""),
        ("manager", "read_write", "200", ""),
        // Both are lacking: the scope is what is told, since it is the key's own.
        ("customer", "read", "403 insufficient_scope", "needs write"),
        ("customer", "write", "403 permission_denied", "needs the capability manage_woocommerce"),
        ("customer", "read_write", "403 permission_denied", "needs the capability manage_woocommerce"),
        ("nobody", "read_write", "403 permission_denied", "needs the capability manage_woocommerce"),
    ];
    let mut customers = None;
    for (owner, scope, expected, note) in rows {
        let pair = system.mint(&format!("{owner} {scope}"), owner, scope, &[]).await;
        for method in ["POST", "PUT"] {
            let answer =
                system.sidecar.ask(pair.on(request(method, &format!("{API}/wallets/7/credit")).body("{}"))).await;
            assert_eq!(answer.brief(), expected, "{owner} {scope} {method}");
            let line = system.line(&answer).await;
            assert_eq!(line["note"].as_str().unwrap_or_default(), note, "{line}");
            assert_eq!(line["reason"].as_str().unwrap_or_default(), answer.code(), "{line}");
            assert_eq!((line["key_id"].as_str(), line["owner"].as_str()), (Some(&*pair.id), Some(owner)), "{line}");
        }
        // Reading asks nothing of the owner.
        let reads = system.sidecar.ask(pair.on(get(&format!("{API}/wallets")))).await;
        assert_eq!(reads.status == 200, scope != "write", "{owner} {scope}: {reads:?}");
        customers = (owner == "customer").then_some(pair).or(customers);
    }
    // What the owner is given, the key has: without a new one.
    system.run(&["owners", "set", "customer", "--capability", "read,manage_woocommerce"]).await.done();
    let pair = customers.unwrap();
    system.becomes("200", || pair.on(post(&format!("{API}/wallets/7/credit"), "{}"))).await;
    system.run(&["owners", "set", "customer", "--capability", "read"]).await.done();
    system.becomes("403 permission_denied", || pair.on(post(&format!("{API}/wallets/7/credit"), "{}"))).await;
}

/// [errors] "403 kyc_required: the endpoint enforces KYC, and the owner has no approved KYC"
#[tokio::test]
async fn withdrawals_ask_for_an_approved_kyc() {
    let system = System::unlimited("wallet", "").await;
    let mut pairs = Vec::new();
    for kyc in ["none", "pending", "approved"] {
        system.owner(kyc, &["--capability", "manage_woocommerce", "--kyc", kyc]).await;
        pairs.push(system.mint(kyc, kyc, "read_write", &[]).await);
    }
    const KYC: &str = "403 kyc_required";
    let rows = [
        ("POST", "/withdrawals", [KYC, KYC, "200"]),
        ("POST", "/withdrawals/7/approve", [KYC, KYC, "200"]),
        ("PUT", "/withdrawals/7", [KYC, KYC, "200"]),
        ("POST", "/Withdrawals/7", [KYC, KYC, "200"]),
        ("POST", "/withdrawals/", [KYC, KYC, "200"]),
        ("GET", "/withdrawals", ["200"; 3]),
        ("POST", "/wallets/7/credit", ["200"; 3]),
        ("POST", "/kyc/7/decision", ["200"; 3]),
    ];
    for (method, path, expected) in rows {
        for (pair, expected) in pairs.iter().zip(expected) {
            let answer = system.sidecar.ask(pair.on(request(method, &format!("{API}{path}")))).await;
            assert_eq!(answer.brief(), expected, "{method} {path} with {}", pair.printed["name"]);
        }
    }
    // However WordPress is told of the endpoint.
    let form = |target: &str, body: &str| post(target, body).field("Content-Type", "application/x-www-form-urlencoded");
    for request in [
        post("/?rest_route=/wkwp-wallet/v1/withdrawals/7/approve", "{}"),
        post("/index.php/wp-json/wkwp-wallet/v1/withdrawals/7/approve", "{}"),
        post(&format!("{API}/wallets?rest_route=/wkwp-wallet/v1/withdrawals"), "{}"),
        form("/?rest_route=/wkwp-wallet/v1/withdrawals/7/approve", "amount=1"),
        form(&format!("{API}/wallets"), "rest_route=/wkwp-wallet/v1/withdrawals/7/approve"),
        get(&format!("{API}/withdrawals?_method=POST")),
    ] {
        for (pair, expected) in pairs.iter().zip([KYC, KYC, "200"]) {
            assert_eq!(system.sidecar.ask(pair.on(request.clone())).await.brief(), expected, "{request:?}");
        }
    }
    // Once it is approved, the same key passes.
    system.run(&["owners", "set", "pending", "--kyc", "approved"]).await.done();
    system.becomes("200", || pairs[1].on(post(&format!("{API}/withdrawals"), "{}"))).await;
}

/// The document's own examples, written as it writes them.
///
/// [IP whitelist] "comma-separated addresses that may use the key; the caller's must be one of them"
/// [IP whitelist] "one address"
/// [IP whitelist] "several, with a space after the comma"
/// [IP whitelist] "blank: any address"
/// [errors] "403 forbidden_caller_ip: the address is not in the list"
#[tokio::test]
async fn a_key_may_be_bound_to_addresses() {
    let system = System::unlimited("wallet", "[listen]\ntrusted_proxies = [\"127.0.0.1\"]").await;
    let single = system.mint("single", "svc", "read", &["--allow-ip", "203.0.113.42"]).await;
    let several = system.mint("several", "svc", "read", &["--allow-ip", "203.0.113.42, 198.51.100.10"]).await;
    let blank = system.mint("blank", "svc", "read", &[]).await;
    assert_eq!(several.printed["allow_ips"], json!(["203.0.113.42", "198.51.100.10"]));
    assert!(several.said.contains("from 203.0.113.42 and 198.51.100.10 only"), "{}", several.said);
    assert!(blank.said.contains("from any address"), "{}", blank.said);
    const NO: &str = "403 forbidden_caller_ip";
    let rows = [
        ("203.0.113.42", ["200", "200", "200"]),
        ("198.51.100.10", [NO, "200", "200"]),
        ("203.0.113.4", [NO, NO, "200"]),
        ("203.0.113.43", [NO, NO, "200"]),
        ("2001:db8::1", [NO, NO, "200"]),
        ("::ffff:203.0.113.42", ["200", "200", "200"]),
    ];
    for (address, expected) in rows {
        for (pair, expected) in [&single, &several, &blank].into_iter().zip(expected) {
            let asked = pair.on(get(&format!("{API}/wallets"))).field("X-Forwarded-For", address);
            let answer = system.sidecar.ask(asked).await;
            assert_eq!(answer.brief(), expected, "{address} with {}", pair.printed["name"]);
        }
    }
    // A wrong list is told at once, and no key is made that would be open to all.
    for list in ["", " ", "203.0.113.42,", "203.0.113.300", "office"] {
        let create = ["keys", "create", "--name", "x", "--owner", "svc", "--scope", "read", "--allow-ip", list];
        assert_eq!(system.run(&create).await.status, 2, "{list:?}");
    }
    assert_eq!(system.keys().await.len(), 3);
}

/// The same pair goes on, from where it is called now.
///
/// [errors] "403 forbidden_caller_ip: the caller's address has changed; update the list"
#[tokio::test]
async fn a_caller_who_moved_is_let_in_by_one_command() {
    let system = System::unlimited("wallet", "[listen]\ntrusted_proxies = [\"127.0.0.1\"]").await;
    let pair = system.mint("Accounting export script", "svc", "read", &["--allow-ip", "203.0.113.42"]).await;
    let from = |address: &str| pair.on(get(&format!("{API}/wallets"))).field("X-Forwarded-For", address);
    let set = async |list: &str| {
        let set = ["keys", "set", "Accounting export script", "--allow-ip", list];
        system.run(&set).await.done().stderr
    };
    const NO: &str = "403 forbidden_caller_ip";
    assert_eq!(system.sidecar.ask(from("203.0.113.42")).await.status, 200);
    assert_eq!(system.sidecar.ask(from("203.0.113.43")).await.brief(), NO);
    let said = set("203.0.113.43, 198.51.100.10").await;
    assert!(said.contains("This key may read for svc, from 203.0.113.43 and 198.51.100.10 only"), "{said}");
    system.becomes("200", || from("203.0.113.43")).await;
    for (address, expected) in [("198.51.100.10", "200"), ("203.0.113.42", NO)] {
        assert_eq!(system.sidecar.ask(from(address)).await.brief(), expected, "{address}");
    }
    // A slip shuts nobody out, and lets nobody in.
    for list in ["", "203.0.113.300", "any,203.0.113.43"] {
        let set = ["keys", "set", &pair.id, "--allow-ip", list];
        assert_eq!(system.run(&set).await.status, 2, "{list:?}");
    }
    assert_eq!(system.keys().await[0]["allow_ips"], json!(["203.0.113.43", "198.51.100.10"]));
    assert!(set("any").await.contains("from any address"));
    system.becomes("200", || from("192.0.2.77")).await;
}

/// Four integrations as the document combines scope and addresses, each with a key of its own.
///
/// [permission model] "combination: a BI sync reads, from its server's address"
/// [permission model] "combination: a mobile app reads and writes, from anywhere, since its addresses vary"
/// [permission model] "combination: a trusted internal script reads and writes, from its server's address"
/// [permission model] "combination: a chat bot that polls figures reads, from its hook server's address"
/// [permission model] "start with read; read_write only where the integration changes something"
/// [advice the product should turn into help] "set the address list where the caller's address is stable"
#[tokio::test]
async fn the_common_combinations() {
    let system = System::unlimited("wallet", "[listen]\ntrusted_proxies = [\"127.0.0.1\"]").await;
    system.owner("svc-shop", &["--capability", "manage_woocommerce"]).await;
    let rows = [
        ("BigQuery sync (read-only)", "read", Some("203.0.113.42"), ["200", "403 insufficient_scope"]),
        ("Mobile app v2", "read_write", None, ["200", "200"]),
        ("Accounting export script", "read_write", Some("203.0.113.42"), ["200", "200"]),
        ("Slack alert bot", "read", Some("203.0.113.42"), ["200", "403 insufficient_scope"]),
    ];
    for (name, scope, address, expected) in rows {
        let list = address.map_or(vec![], |address| vec!["--allow-ip", address]);
        let pair = system.mint(name, "svc-shop", scope, &list).await;
        assert_eq!(pair.printed["name"], name);
        let calls = [get(&format!("{API}/wallets")), post(&format!("{API}/wallets/7/debit"), "{}")];
        for (call, expected) in calls.into_iter().zip(expected) {
            let from = |address: &str| pair.on(call.clone()).field("X-Forwarded-For", address);
            assert_eq!(system.sidecar.ask(from("203.0.113.42")).await.brief(), expected, "{name}");
            let elsewhere = if address.is_some() { "403 forbidden_caller_ip" } else { expected };
            assert_eq!(system.sidecar.ask(from("192.0.2.77")).await.brief(), elsewhere, "{name}");
        }
    }
}
