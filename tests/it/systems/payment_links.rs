//! S4, a checkout and payment-link API: Bearer tokens, scopes per resource, live and test mode.

use std::process::Command;

use serde_json::json;

use super::{
    agreement::agreed,
    life::Case,
    service::{Minted, Service, told},
};
use crate::harness::{H1, H2, Request, Sidecar, Upstream, eventually, get, node_program, post, python, request, run};

const CASE: Case = Case {
    preset: "payment-links",
    text: include_str!("../../../config/presets/payment-links.toml"),
    present,
    path: "/api/v1/links",
    scope: "links:read",
    prefixes: ["ck_live_", "ck_test_"],
    shown: "abc123".len(),
    hosts: [HOST, HOST],
    unlimited: "",
};

/// The document names no host.
const HOST: &str = "pay.example.com";

fn present(request: Request, token: &str) -> Request {
    request.bearer(token)
}

const READ: &[&str] = &["GET", "HEAD"];

/// The document's table: a scope, and the methods by which it does what the document says, to a collection and to one
/// of its items.
const SCOPES: [(&str, &[&str], &[&str]); 9] = [
    ("links:read", READ, READ),
    ("links:write", &["POST", "PUT", "PATCH", "DELETE"], &["POST", "PUT", "PATCH", "DELETE"]),
    ("sessions:read", READ, READ),
    ("sessions:write", &["POST"], &[]),
    ("webhooks:read", READ, READ),
    ("webhooks:write", &["POST"], &["DELETE"]),
    ("events:read", READ, READ),
    ("customers:read", READ, READ),
    ("customers:write", &["POST", "PUT", "PATCH"], &["POST", "PUT", "PATCH"]),
];
const RESOURCES: [&str; 5] = ["links", "sessions", "webhooks", "events", "customers"];
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// What becomes of a request for a resource, or for an item of it, with a key of these scopes.
fn expected(held: &[&str], method: &str, resource: &str, item: bool) -> &'static str {
    let grants = |(scope, collection, items): &&(&str, &[&str], &[&str])| {
        scope.starts_with(&format!("{resource}:")) && if item { items } else { collection }.contains(&method)
    };
    let granting: Vec<_> = SCOPES.iter().filter(grants).map(|(scope, ..)| *scope).collect();
    match &granting[..] {
        [] => "403 route_not_allowed",
        some if some.iter().any(|scope| held.contains(scope)) => "200",
        _ => "403 insufficient_scope",
    }
}

fn path(resource: &str, item: bool) -> String {
    format!("/api/v1/{resource}{}", if item { "/x" } else { "" })
}

/// [what it is] "The endpoints below /api/v1; every one of them wants a valid key, and there is nothing beside them."
#[tokio::test]
async fn every_request_wants_a_key() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    let key = service.create("live", "links:read,links:write").await;
    for resource in RESOURCES {
        for method in METHODS {
            let answer = service.ask(request(method, &path(resource, false)).host(HOST)).await;
            assert_eq!(answer.status, 401, "{method} {resource}");
        }
    }
    for elsewhere in ["/", "/api/v1", "/api/v1/", "/api/v2/links", "/v1/links", "/api/v1/refunds", "/api/v1/linksx"] {
        assert_eq!(told(&service.ask(get(elsewhere)).await), "401 missing_credentials", "{elsewhere}");
        let answer = service.ask(present(get(elsewhere), &key.secret)).await;
        assert_eq!(told(&answer), "403 route_not_allowed", "{elsewhere}");
    }
    assert_eq!(upstream.count(), 0);
}

/// [what it is] "init with the preset ends in a 200, and every setting says that it is the preset's."
#[tokio::test]
async fn init_makes_a_sidecar_for_it() {
    CASE.starts_from_init("/api/v1/links").await;
}

/// [credential] "The raw key as a Bearer token in Authorization, whatever the case of the scheme, and nothing else."
#[tokio::test]
async fn a_key_is_a_bearer_token() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    let key = service.create("live", "links:read").await;
    let token = &*key.secret;
    let get = || get("/api/v1/links").host(HOST);
    let with = |value: &str| get().field("Authorization", value);
    for version in [H1, H2] {
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let answer = service.sidecar.send(version, with(&format!("{scheme} {token}"))).await;
            assert_eq!(answer.status, 200, "{scheme}");
            let seen = upstream.last();
            assert!(!seen.has("authorization") && !String::from_utf8_lossy(&seen.head.raw).contains(token));
        }
    }
    let count = upstream.count();
    let rows = [
        ("no credential at all", get(), "401 missing_credentials"),
        ("Basic, as user name", get().basic(token, ""), "401 missing_credentials"),
        ("Basic, as password", get().basic("user", token), "401 missing_credentials"),
        ("a field of its own", get().field("X-API-Key", token), "401 missing_credentials"),
        ("in the query", request("GET", &format!("/api/v1/links?access_token={token}")), "401 missing_credentials"),
        ("without a scheme", with(token), "401 missing_credentials"),
        ("another scheme", with(&format!("Token {token}")), "401 missing_credentials"),
        ("the shown prefix alone", get().bearer(&key.prefix), "401 invalid_credentials"),
        ("cut", get().bearer(&token[..token.len() - 1]), "401 invalid_credentials"),
        ("another case", get().bearer(&token.to_uppercase()), "401 invalid_credentials"),
        ("twice", get().bearer(token).bearer(token), "400 bad_request"),
    ];
    for (name, request, expected) in rows {
        let answer = service.ask(request).await;
        assert_eq!(told(&answer), expected, "{name}");
        assert_eq!(answer.field("www-authenticate").starts_with("Bearer realm="), answer.status == 401, "{name}");
    }
    assert_eq!(upstream.count(), count);
    // Where Basic is switched on as well, a token is a user name with an empty password.
    let service = Service::with("payment-links", &upstream, "[credentials]\nbasic = true").await;
    let key = service.create_as("token", &["--kind", "token", "--owner", "acme", "--scope", "links:read"]).await;
    assert_eq!(service.ask(get().basic(&key.secret, "")).await.status, 200);
    assert_eq!(service.ask(get().bearer(&key.secret)).await.status, 200);
}

/// [key shape] "A fixed prefix, then random characters; ck_live_ and six more may be seen, as in ck_live_abc123."
#[tokio::test]
async fn keys_are_minted_as_the_document_shows_them() {
    assert_eq!(CASE.prefixes[0].len() + CASE.shown, "ck_live_abc123".len());
    CASE.shapes().await;
}

/// [mode / environment] "ck_live_ is live mode and ck_test_ test mode; a test key never touches real payments: it
/// reaches an upstream of its own, and with a host for each mode it is refused on the other."
/// [advice the product should turn into help] "Use test keys during development: the upstream is told the mode as
/// well."
#[tokio::test]
async fn a_test_key_never_touches_real_payments() {
    let (real, staging) = (Upstream::start().await, Upstream::start().await);
    let modes = format!("[upstream.modes]\ntest = {:?}\n", staging.url());
    let service = Service::with("payment-links", &real, &modes).await;
    let (live, test) = (service.create("live", "links:write").await, service.create("test", "links:write").await);
    let create = |key: &Minted| present(post("/api/v1/links", "{}").host(HOST), &key.secret);
    for (key, counts) in [(&test, [0, 1]), (&test, [0, 2]), (&live, [1, 2])] {
        assert_eq!(service.ask(create(key)).await.status, 200);
        assert_eq!([&real, &staging].map(Upstream::count), counts);
    }
    assert_eq!([&real, &staging].map(|upstream| upstream.last().field("x-key-mode")), ["live", "test"]);

    let hosts = "[hosts]\n\"pay.example.com\" = \"live\"\n\"test.example.com\" = \"test\"";
    let service = Service::with("payment-links", &real, hosts).await;
    let (live, test) = (service.create("live", "links:write").await, service.create("test", "links:write").await);
    for (host, statuses) in [(HOST, ["200", "403 mode_mismatch"]), ("test.example.com", ["403 mode_mismatch", "200"])] {
        for (key, expected) in [&live, &test].into_iter().zip(statuses) {
            assert_eq!(told(&service.ask(create(key).host(host)).await), expected, "{host}");
        }
    }
}

/// [permission model] "Nine scopes: read lists and retrieves; links:write creates, updates and deletes, sessions:write
/// creates, webhooks:write creates and deletes, customers:write creates and updates; events can only be read."
/// [permission model] "A key with all scopes of one resource can do nothing to another; read and write are no scopes
/// here."
#[tokio::test]
async fn a_scope_does_what_the_document_says_and_no_more() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    let pairs = RESOURCES.map(|resource| format!("{resource}:read,{resource}:write"));
    let held = SCOPES.iter().map(|(scope, ..)| (*scope).to_owned()).chain(pairs);
    for held in held.chain(["read_write".to_owned(), "read,write".to_owned()]).collect::<Vec<_>>() {
        let key = service.create("live", &held).await;
        let held: Vec<_> = held.split(',').collect();
        let mut connection = service.sidecar.connect(H1).await;
        let mut passed = upstream.count();
        for resource in RESOURCES {
            for item in [false, true] {
                for method in METHODS {
                    let path = path(resource, item);
                    let told = told(&connection.send(&present(request(method, &path), &key.secret)).await);
                    let expected = expected(&held, method, resource, item);
                    let same = if method == "HEAD" { told == expected[..3] } else { told == expected };
                    assert!(same, "{held:?}: {method} {path}: {told} instead of {expected}");
                    passed += usize::from(expected == "200");
                    assert_eq!(upstream.count(), passed, "{held:?}: {method} {path}");
                }
            }
        }
    }
}

/// [permission model] "explain says of every request what the sidecar does, and without a request which routes there
/// are."
#[tokio::test]
async fn explain_agrees() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    for (scope, ..) in SCOPES {
        let key = service.create("live", scope).await;
        let own = scope.split(':').next().unwrap();
        let other = if own == "links" { "customers" } else { "links" };
        for (resource, item) in [(own, false), (own, true), (other, true)] {
            let path = path(resource, item);
            for method in ["GET", "POST", "PATCH", "DELETE"] {
                let told = agreed(&service, &key, |request| present(request, &key.secret), HOST, method, &path).await;
                assert_eq!(told, expected(&[scope], method, resource, item), "{scope}: {method} {path}");
            }
        }
        let routes = service.json(&["explain", "--key", &key.id]).await;
        let may = routes["abilities"].as_array().unwrap().iter().filter(|row| row["may"] == true);
        let paths: Vec<_> = may.map(|row| row["path"].as_str().unwrap().to_owned()).collect();
        assert!(!paths.is_empty() && paths.iter().all(|path| path.starts_with(&format!("/api/v1/{own}"))), "{routes}");
        let table = service.run(&["explain", "--key", &key.id]).await.done().stdout;
        assert!(SCOPES.iter().all(|(scope, ..)| table.contains(scope)), "{table}");
    }
}

/// [owner] "A key acts for the account that made it, and the upstream learns which that is."
#[tokio::test]
async fn a_key_acts_for_its_account() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    for account in ["shop-1", "shop-2"] {
        let more = ["--owner", account, "--mode", "live", "--scope", "links:read"];
        let key = service.create_as(account, &more).await;
        assert_eq!(service.ask(CASE.read(&key).field("X-Key-Owner", "forged")).await.status, 200);
        assert_eq!(upstream.last().field("x-key-owner"), account);
        assert_eq!(upstream.last().field("x-key-id"), key.id);
    }
}

/// [list shows] "Name, prefix, mode, scopes, last use, creation and status, active or revoked."
/// [note] "The last use is that of the most recent successful authentication."
#[tokio::test]
async fn the_list_shows_the_documents_columns() {
    let (service, key) = CASE.listed().await;
    let told = ["name", "mode", "scopes", "status"].map(|name| key[name].clone());
    assert_eq!(told, [json!("live links:read"), json!("live"), json!(["links:read"]), json!("active")]);
    assert_eq!(key["prefix"].as_str().unwrap().len(), "ck_live_abc123".len());
    service.run(&["keys", "revoke", key["id"].as_str().unwrap(), "--wait"]).await.done();
    let listed = service.json(&["keys", "list", "--status", "revoked"]).await;
    assert_eq!((&listed[0]["id"], &listed[0]["last_used_at"]), (&key["id"], &key["last_used_at"]));
    assert!(listed[0]["revoked_at"].is_string() && listed.as_array().unwrap().len() == 1, "{listed}");
}

/// [revoke] "Immediate: any later request gets 401. The key stays listed with the moment, and cannot be reinstated."
#[tokio::test]
async fn a_revoked_key_stays_listed_and_dead() {
    CASE.dies_and_stays_dead().await;
}

/// [rotate] "Create a new key, update the integration, revoke the old one: both may live side by side, without
/// downtime."
#[tokio::test]
async fn a_key_is_rotated_without_a_failed_request() {
    CASE.rotates_without_downtime().await;
}

/// [errors] "401 Unauthorized for what is no valid key, whatever is wrong with it; a problem in JSON says what to do."
#[tokio::test]
async fn what_is_no_valid_key_is_unauthorized() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    let create = async |name: &str, more: &[&str]| {
        service.create_as(name, &[&["--owner", "acme", "--scope", "links:read"], more].concat()).await
    };
    let (good, revoked, expired) =
        (create("good", &[]).await, create("revoked", &[]).await, create("expired", &["--expires", "1s"]).await);
    service.run(&["keys", "revoke", "revoked", "--wait"]).await.done();
    eventually("the key to expire", async || match service.ask(CASE.read(&expired)).await.status {
        401 => Ok(()),
        status => Err(status),
    })
    .await;
    let forged = |secret: String| Minted { secret, ..good.clone() };
    let unknown = forged("ck_live_aVeryLongStringThatIsNoKeyOfAnybody000".into());
    let wrong = forged(format!("{}{}", good.prefix, "a".repeat(good.secret.len() - good.prefix.len())));
    let (before, mut bodies) = (upstream.count(), Vec::new());
    for key in [&revoked, &expired, &unknown, &wrong] {
        let answer = service.ask(CASE.read(key).field("X-Request-Id", "same")).await;
        assert_eq!(told(&answer), "401 invalid_credentials");
        assert_eq!(answer.field("content-type"), "application/problem+json");
        assert!(answer.field("www-authenticate").starts_with("Bearer "), "{answer:?}");
        bodies.push(answer.text());
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "{bodies:?}");
    assert_eq!(upstream.count(), before);
    let refused = service.ask(present(post("/api/v1/links", "{}"), &good.secret)).await;
    assert_eq!(told(&refused), "403 insufficient_scope");
    assert!(refused.field("www-authenticate").contains("scope=\"links:write\""), "{refused:?}");
}

/// [management API] "Name, mode and scopes make a key; the list and a revocation are commands, too. A page is still to
/// come."
#[tokio::test]
async fn keys_are_created_listed_and_revoked_by_commands() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    let more = ["--owner", "acme", "--mode", "live", "--scope", "links:read,sessions:write"];
    let key = service.create_as("WooCommerce plugin", &more).await;
    assert_eq!(key.printed["scopes"], json!(["links:read", "sessions:write"]));
    assert_eq!(service.ask(CASE.read(&key)).await.status, 200);
    // By the name that it was given.
    assert_eq!(service.json(&["keys", "show", "WooCommerce plugin"]).await["id"], key.id);
    service.run(&["keys", "revoke", "WooCommerce plugin", "--wait"]).await.done();
    assert_eq!(service.ask(CASE.read(&key)).await.status, 401);
    for wrong in [["--mode", "production"], ["--scope", ""], ["--name", " "]] {
        let all = ["keys", "create", "--name", "x", "--owner", "acme", "--scope", "links:read"];
        let rest: Vec<&str> = all.chunks(2).filter(|pair| pair[0] != wrong[0]).flatten().copied().collect();
        assert_eq!(service.run(&[&rest[..], &wrong].concat()).await.status, 2, "{wrong:?}");
    }
}

/// [advice the product should turn into help] "One key per integration: a second of the same name is warned of, and one
/// is revoked without harm to the others. Minimal scopes: a webhook consumer only reads webhooks, a session creator
/// only creates sessions. Never in a browser: a page of another origin gets no answer that it could read."
#[tokio::test]
async fn commands_help_to_follow_the_advice() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    let consumer = service.create("live", "webhooks:read").await;
    let creator = service.create("live", "sessions:write").await;
    let may = |method, path: &str, key: &Minted| present(request(method, path).host(HOST), &key.secret);
    let rows = [
        (may("GET", "/api/v1/webhooks/x", &consumer), "200"),
        (may("DELETE", "/api/v1/webhooks/x", &consumer), "403 insufficient_scope"),
        (may("POST", "/api/v1/sessions", &creator), "200"),
        (may("GET", "/api/v1/sessions", &creator), "403 insufficient_scope"),
    ];
    for (request, expected) in rows {
        assert_eq!(told(&service.ask(request.clone()).await), expected, "{request:?}");
    }
    let same = ["keys", "create", "--name", "live webhooks:read", "--owner", "acme"];
    let said = service.change(&[&same[..], &["--scope", "webhooks:read"]].concat()).await.stderr;
    assert!(said.contains("another key has the name"), "{said}");
    service.run(&["keys", "revoke", &consumer.id, "--wait"]).await.done();
    assert_eq!(service.ask(may("POST", "/api/v1/sessions", &creator)).await.status, 200);
    // What a browser asks before it would send a key from a page elsewhere.
    let asks = request("OPTIONS", "/api/v1/sessions").field("Origin", "https://shop.example");
    let answer = service.ask(asks.field("Access-Control-Request-Method", "POST")).await;
    assert!(answer.status == 401 && !answer.has("access-control-allow-origin"), "{answer:?}");
}

/// [credential] "curl, Python's requests and Node's fetch, unmodified, over TLS with the certificate verified."
#[tokio::test]
async fn clients_of_others_work() {
    let upstream = Upstream::start().await;
    let builder = Sidecar::in_front_of(&upstream).config("preset = \"payment-links\"").named(&[HOST]).keys([]);
    let service = Service::of(builder).await;
    let key = service.create("live", "links:read,links:write").await;
    let url = service.local("localhost", "/api/v1/links");
    let stranger = "ck_live_abc123";
    for (token, status) in [(&*key.secret, "200"), (stranger, "401")] {
        let count = upstream.count();
        let curl = format!("curl https://{HOST}/api/v1/links \\\n  -H \"Authorization: Bearer {token}\"");
        assert!(service.shell(&[HOST], &curl).await.done().stdout.ends_with(&format!("\n{status}")));
        let script = "import requests, sys\nurl, token = sys.argv[1:]\n\
                      headers = {\"Authorization\": f\"Bearer {token}\"}\n\
                      print(requests.get(url, headers=headers).status_code, \
                      requests.post(url, json={}, headers=headers).status_code)";
        let mut requests = Command::new(python().await);
        requests.args(["-c", script, &url, token]).env("REQUESTS_CA_BUNDLE", service.ca()).env("NO_PROXY", "*");
        assert_eq!(run(requests, "").await.done().stdout, format!("{status} {status}\n"));
        let script = "const [url, token] = process.argv.slice(1);\n\
                      const headers = { Authorization: `Bearer ${token}` };\n\
                      const all = [{ headers }, { headers, method: \"POST\", body: \"{}\" }];\n\
                      const answers = await Promise.all(all.map((options) => fetch(url, options)));\n\
                      console.log(...answers.map((answer) => answer.status));";
        let mut node = node_program();
        node.args(["--input-type=module", "-e", script, "--", &url, token]).env("NODE_EXTRA_CA_CERTS", service.ca());
        assert_eq!(run(node, "").await.done().stdout, format!("{status} {status}\n"));
        assert_eq!(upstream.count() - count, if status == "200" { 5 } else { 0 });
    }
    // Whom a client does not trust it does not talk to.
    let mut untrusting = node_program();
    untrusting.args(["-e", "fetch(process.argv[1]).catch((error) => console.log(error.cause.code))", "--", &url]);
    assert_eq!(run(untrusting, "").await.done().stdout, "UNABLE_TO_VERIFY_LEAF_SIGNATURE\n");
}
