//! S3, a payment API: one token per key in `X-API-Key`, permissions per endpoint, and an API of its own for keys.

use serde_json::json;

use super::{
    agreement::agreed,
    life::Case,
    service::{Minted, Service, told},
};
use crate::harness::{Answer, H1, H2, Request, Sidecar, Upstream, get, post, request};

const CASE: Case = Case {
    preset: "web3pay",
    text: include_str!("../../../config/presets/web3pay.toml"),
    present,
    path: "/v1/onramp",
    scope: "onramp:read",
    prefixes: ["wp3_live_sk_", "wp3_test_sk_"],
    shown: "a1b2c3d4".len(),
    hosts: [HOST, HOST],
    unlimited: "",
};

const HOST: &str = "api.web3pay.io";

fn present(request: Request, token: &str) -> Request {
    request.field("X-API-Key", token)
}

/// The document's table: a permission, its methods, its endpoint.
const PERMISSIONS: [(&str, &[&str], &str); 5] = [
    ("onramp:create", &["POST"], "/v1/onramp"),
    ("onramp:read", &["GET", "HEAD"], "/v1/onramp"),
    ("transactions:read", &["GET", "HEAD"], "/v1/transactions"),
    ("keys:manage", &METHODS, "/v1/keys"),
    ("webhooks:manage", &METHODS, "/v1/webhooks"),
];
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// What becomes of a request with a key of these permissions.
fn expected(held: &[&str], method: &str, path: &str) -> &'static str {
    let granting: Vec<_> = PERMISSIONS
        .iter()
        .filter(|(permission, methods, endpoint)| {
            let rest = path.strip_prefix(endpoint);
            // What lies below an endpoint is a part of it, but for the one that creates.
            let below = *permission != "onramp:create" && rest.is_some_and(|rest| rest.starts_with('/'));
            (rest == Some("") || below) && methods.contains(&method)
        })
        .collect();
    match &granting[..] {
        [] => "403 route_not_allowed",
        some if some.iter().any(|(permission, ..)| held.contains(permission)) => "200",
        _ => "403 insufficient_scope",
    }
}

/// [what it is] "init with the preset ends in a 200, and every setting says that it is the preset's."
#[tokio::test]
async fn init_makes_a_sidecar_for_it() {
    CASE.starts_from_init("/v1/onramp -X POST").await;
}

/// [credential] "X-API-Key holds the key, in any case of the name; no other field does, and the upstream gets none of
/// it."
#[tokio::test]
async fn a_key_goes_in_its_own_field_and_nowhere_else() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    let key = service.create("live", "onramp:read").await;
    let token = &*key.secret;
    let get = || get("/v1/onramp").host(HOST);
    for version in [H1, H2] {
        for name in ["X-API-Key", "x-api-key", "X-Api-Key"] {
            assert_eq!(service.sidecar.send(version, get().field(name, token)).await.status, 200, "{name}");
            assert!(!String::from_utf8_lossy(&upstream.last().head.raw).contains(token));
        }
    }
    let count = upstream.count();
    let rows = [
        ("no credential at all", get(), "401 missing_credentials"),
        ("Bearer", get().bearer(token), "401 missing_credentials"),
        ("Basic, as user name", get().basic(token, ""), "401 missing_credentials"),
        ("another field", get().field("X-Key", token), "401 missing_credentials"),
        ("in the query", request("GET", &format!("/v1/onramp?api_key={token}")), "401 missing_credentials"),
        ("with a scheme", get().field("X-API-Key", format!("Bearer {token}")), "401 invalid_credentials"),
        ("the shown prefix alone", get().field("X-API-Key", &key.prefix), "401 invalid_credentials"),
        ("two different ones", get().field("X-API-Key", token).field("X-API-Key", "x"), "400 bad_request"),
    ];
    for (name, request, expected) in rows {
        let answer = service.ask(request).await;
        assert_eq!(told(&answer), expected, "{name}");
        let challenge = answer.field("www-authenticate");
        assert_eq!(challenge.contains("header=\"X-API-Key\""), answer.status == 401, "{name}: {challenge}");
        assert!(!challenge.contains("Bearer") && !challenge.contains("Basic"), "{name}: {challenge}");
    }
    assert_eq!(upstream.count(), count);
    // An Authorization beside it is somebody else's business, and stays here as well.
    assert_eq!(service.ask(present(get(), token).bearer("other")).await.status, 200);
    assert!(!upstream.last().has("authorization") && !upstream.last().has("x-api-key"));
}

/// [key shape] "A token of prefix and random characters; lists show wp3_live_sk_ and eight more; its id begins with
/// key_."
#[tokio::test]
async fn keys_are_minted_as_the_document_shows_them() {
    assert_eq!(CASE.prefixes[0].len() + CASE.shown, "wp3_live_sk_a1b2c3d4".len());
    CASE.shapes().await;
}

/// [key shape] "The document's own example, 40 characters after its prefix, works where its hash is in the key file."
#[tokio::test]
async fn the_documents_example_of_a_key_is_one() {
    CASE.takes_over("wp3_live_sk_a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8s9t0").await;
}

/// [mode / environment] "Live and test keys differ in their prefix and reach an upstream each; with a host for each,
/// the other one is refused."
#[tokio::test]
async fn the_environment_of_a_key_chooses_the_upstream() {
    let (live_api, test_api) = (Upstream::start().await, Upstream::start().await);
    let modes = format!("[upstream.modes]\ntest = {:?}\n", test_api.url());
    let service = Service::with("web3pay", &live_api, &modes).await;
    let (live, test) = (service.create("live", "onramp:read").await, service.create("test", "onramp:read").await);
    for (key, counts, mode) in [(&live, [1, 0], "live"), (&test, [1, 1], "test")] {
        assert_eq!(service.ask(CASE.read(key)).await.status, 200);
        assert_eq!([&live_api, &test_api].map(Upstream::count), counts);
        let seen = if mode == "live" { live_api.last() } else { test_api.last() };
        assert_eq!(seen.field("x-key-mode"), mode);
    }
    // The record counts, and not what a token looks like.
    let file = service.key_file().replace("mode = \"test\"", "mode = \"live\"");
    service.replace(file).await;
    assert_eq!(service.ask(CASE.read(&test)).await.status, 200);
    assert_eq!([&live_api, &test_api].map(Upstream::count), [2, 1]);

    // "Never use live keys in test environments": where these have hosts, they are refused.
    let hosts = "[hosts]\n\"api.web3pay.io\" = \"live\"\n\"test.web3pay.io\" = \"test\"";
    let service = Service::with("web3pay", &live_api, hosts).await;
    let (live, test) = (service.create("live", "onramp:read").await, service.create("test", "onramp:read").await);
    for (host, statuses) in [(HOST, ["200", "403 mode_mismatch"]), ("test.web3pay.io", ["403 mode_mismatch", "200"])] {
        for (key, expected) in [&live, &test].into_iter().zip(statuses) {
            assert_eq!(told(&service.ask(CASE.read(key).host(host)).await), expected, "{host}");
        }
    }
}

/// [permission model] "onramp:create is POST of /v1/onramp and onramp:read GET of it and below, transactions:read is GET of
/// /v1/transactions, keys:manage and webhooks:manage are all methods of theirs; nothing else is allowed to anybody."
/// [what it is] "An API at /v1: what the document does not name there, no key may do."
/// [permission model] "A key may hold several permissions; read and write are none of this system's."
#[tokio::test]
async fn a_permission_opens_its_endpoint_and_nothing_else() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    let several = "onramp:create,onramp:read,transactions:read";
    let held = PERMISSIONS.map(|(permission, ..)| permission).into_iter().chain([several, "read_write", "read,write"]);
    for held in held.collect::<Vec<_>>() {
        let key = service.create("live", held).await;
        let held: Vec<_> = held.split(',').collect();
        let mut connection = service.sidecar.connect(H1).await;
        let mut passed = upstream.count();
        for endpoint in ["/v1/onramp", "/v1/transactions", "/v1/keys", "/v1/webhooks"] {
            for path in [endpoint.to_owned(), format!("{endpoint}/x"), format!("{endpoint}/x/y")] {
                for method in METHODS {
                    let answer = connection.send(&present(request(method, &path), &key.secret)).await;
                    let expected = expected(&held, method, &path);
                    let told = told(&answer);
                    let same = if method == "HEAD" { told == expected[..3] } else { told == expected };
                    assert!(same, "{held:?}: {method} {path}: {told} instead of {expected}");
                    passed += usize::from(expected == "200");
                    assert_eq!(upstream.count(), passed, "{held:?}: {method} {path}");
                }
            }
        }
        for path in ["/", "/v1", "/v1/", "/v1/onramps", "/v1/payments", "/v2/onramp", "/onramp", "/api/v1/onramp"] {
            for method in ["GET", "POST"] {
                let answer = connection.send(&present(request(method, path), &key.secret)).await;
                assert_eq!(told(&answer), "403 route_not_allowed", "{held:?}: {method} {path}");
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
    for (permission, ..) in PERMISSIONS {
        let key = service.create("live", permission).await;
        for path in ["/v1/onramp", "/v1/transactions/x", "/v1/keys/x", "/v1/webhooks", "/v1/x"] {
            for method in ["GET", "POST", "PATCH", "DELETE"] {
                let told = agreed(&service, &key, |request| present(request, &key.secret), HOST, method, path).await;
                assert_eq!(told, expected(&[permission], method, path), "{permission}: {method} {path}");
            }
        }
        let routes = service.json(&["explain", "--key", &key.id]).await;
        for row in routes["abilities"].as_array().unwrap() {
            let pattern = row["path"].as_str().unwrap();
            for method in row["methods"].as_array().unwrap() {
                let may = expected(&[permission], method.as_str().unwrap(), pattern.trim_end_matches("/**")) == "200";
                assert_eq!(row["may"], may, "{permission}: {method} {pattern}");
            }
        }
        let table = service.run(&["explain", "--key", &key.id]).await.done().stdout;
        assert!(PERMISSIONS.iter().all(|(name, _, path)| table.contains(name) && table.contains(path)), "{table}");
    }
}

/// [owner] "Keys are for your account: the upstream learns whose key it is, and nobody can say so themselves."
#[tokio::test]
async fn a_key_acts_for_its_account() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    for account in ["acme", "umbrella"] {
        let key = service.create_as(account, &["--owner", account, "--scope", "onramp:read", "--mode", "live"]).await;
        let forged = ["X-Key-Owner", "X-Key-Id", "X-Key-Scopes", "X-Key-Mode", "x-key-anything"];
        let request = forged.iter().fold(CASE.read(&key), |request, name| request.field(name, "forged"));
        assert_eq!(service.ask(request).await.status, 200);
        let seen = upstream.last();
        let told = ["x-key-owner", "x-key-id", "x-key-scopes", "x-key-mode"].map(|name| seen.field(name));
        assert_eq!(told, [account, &key.id, "onramp:read", "live"]);
        assert!(!String::from_utf8_lossy(&seen.head.raw).contains("forged"));
    }
}

/// [secret at rest] "Only a hash of a key is stored; the full key is returned once, when it is created."
#[tokio::test]
async fn a_key_is_shown_once_and_kept_as_a_hash() {
    CASE.kept_as_a_hash().await;
}

/// [list shows] "id, name, environment, prefix, permissions, last_used_at and created_at; never the key."
/// [note] "The last use is that of the last successful authentication."
#[tokio::test]
async fn the_list_shows_everything_but_the_key() {
    let (_service, key) = CASE.listed().await;
    assert!(key["id"].as_str().unwrap().starts_with("key_"));
    assert_eq!((&key["name"], &key["mode"]), (&json!("live onramp:read"), &json!("live")));
    assert_eq!((&key["scopes"], &key["prefix"].as_str().unwrap().len()), (&json!(["onramp:read"]), &20));
}

/// [revoke] "Immediate, and cannot be undone: callers get 401, as for a key that never was."
#[tokio::test]
async fn a_revoked_key_is_dead_at_once_and_for_good() {
    CASE.dies_and_stays_dead().await;
}

/// [rotate] "Create a new key, update the callers, then revoke the old one: both work meanwhile."
#[tokio::test]
async fn a_key_is_rotated_without_a_failed_request() {
    CASE.rotates_without_downtime().await;
}

/// [errors] "Every refusal is {"success": false, "error": …}, the counterpart of the document's {"success": true, …}."
#[tokio::test]
async fn every_refusal_has_the_envelope() {
    let upstream = Upstream::start().await;
    let config = "[listen]\nmax_uri_bytes = \"1KiB\"\nmax_body = \"1KiB\"\n[limits]\nfailures_per_ip = [\"3/1h\"]\n\
                  [hosts]\n\"api.web3pay.io\" = \"live\"\n\"test.web3pay.io\" = \"test\"\n";
    let service = Service::with("web3pay", &upstream, config).await;
    let create = async |name: &str, more: &[&str]| {
        let all = ["--owner", "acme", "--mode", "live", "--scope", "onramp:read,onramp:create"];
        service.create_as(name, &[&all, more].concat()).await
    };
    let key = create("good", &[]).await;
    let slow = create("slow", &["--limit", "1/1h"]).await;
    let away = create("away", &["--allow-ip", "203.0.113.9"]).await;
    let revoked = create("revoked", &[]).await;
    service.run(&["keys", "revoke", "revoked", "--wait"]).await.done();
    upstream.on("/v1/onramp/gone", Answer::hang_up());
    assert_eq!(service.ask(CASE.read(&slow)).await.status, 200);
    let with = |request: Request| present(request.host(HOST), &key.secret);
    let long = format!("/v1/onramp/{}", "x".repeat(2000));
    let rows = [
        (with(get("/v1/onramp/../keys")), "400 bad_request"),
        (with(get("/v1/onramp")).field("X-API-Key", "another"), "400 bad_request"),
        (get("/v1/onramp").host(HOST), "401 missing_credentials"),
        (CASE.read(&revoked), "401 invalid_credentials"),
        (present(get("/v1/onramp").host(HOST), "wp3_live_sk_unknown"), "401 invalid_credentials"),
        (CASE.read(&away), "403 forbidden_caller_ip"),
        (present(get("/v1/onramp").host("test.web3pay.io"), &key.secret), "403 mode_mismatch"),
        (with(get("/v1/elsewhere")), "403 route_not_allowed"),
        (with(get("/v1/keys")), "403 insufficient_scope"),
        (with(request("PURGE", "/v1/onramp")), "405 method_not_allowed"),
        (with(post("/v1/onramp", "x".repeat(2000))), "413 body_too_large"),
        (with(get(&long)), "414 uri_too_long"),
        (CASE.read(&slow), "429 too_many_requests"),
        (with(get("/v1/onramp/gone")), "502 upstream_unreachable"),
        (CASE.read(&Minted { secret: "wp3_live_sk_guess".into(), ..key.clone() }), "401 invalid_credentials"),
        // The third failure has used up what an address may fail.
        (CASE.read(&Minted { secret: "wp3_live_sk_again".into(), ..key.clone() }), "429 too_many_requests"),
    ];
    for (request, expected) in rows {
        let answer = service.ask(request.clone()).await;
        assert_eq!(told(&answer), expected, "{request:?}");
        assert_eq!(answer.field("content-type"), "application/json", "{request:?}");
        let body = answer.json();
        let error = &body["error"];
        assert_eq!(body, json!({"success": false, "error": {"code": error["code"], "message": error["message"]}}));
        assert!(error["message"].as_str().is_some_and(|sentence| sentence.ends_with('.')), "{body}");
        assert_eq!(answer.status == 429, answer.has("retry-after"), "{request:?}");
    }
    // Before there are keys, nothing passes, and it is said in the same way.
    let started = Sidecar::in_front_of(&upstream).config("preset = \"web3pay\"").ready_or_not().start().await;
    let answer = started.ask(CASE.read(&key)).await;
    assert_eq!((&*told(&answer), &answer.json()["success"]), ("503 keys_unavailable", &json!(false)));
}

/// [management API] "POST, GET and DELETE of /v1/keys ask for keys:manage; what the API behind answers goes back as it
/// is."
/// [credential] "The document's own command lines work with curl, with nothing changed but the key."
#[tokio::test]
async fn the_documents_command_lines_work() {
    let upstream = Upstream::start().await;
    // The API for keys itself is still to come: until then, whatever stands behind answers. Here is its guard.
    let created = r#"{"success":true,"data":{"id":"key_abc123xyz","environment":"live"}}"#;
    let listed = r#"{"success":true,"data":{"keys":[]}}"#;
    let deleted = r#"{"success":true,"data":{"message":"API key revoked successfully"}}"#;
    upstream.on("/v1/keys", Answer::with(201, &[("Content-Type", "application/json")], created));
    upstream.on("/v1/keys/key_abc123xyz", Answer::ok(deleted));
    let builder = Sidecar::in_front_of(&upstream).config("preset = \"web3pay\"").named(&[HOST]).keys([]);
    let service = Service::of(builder).await;
    let (manager, widget) =
        (service.create("live", "keys:manage").await, service.create("live", "onramp:create").await);
    let body = r#"{
"name": "Production API Key",
"environment": "live",
"permissions": ["onramp:create", "onramp:read", "transactions:read"]
}"#;
    let create = format!(
        "curl -X POST https://api.web3pay.io/v1/keys \\\n-H \"X-API-Key: wp3_live_sk_your_api_key\" \\\n\
         -H \"Content-Type: application/json\" \\\n-d '{body}'"
    );
    let list = "curl https://api.web3pay.io/v1/keys \\\n-H \"X-API-Key: wp3_live_sk_your_api_key\"";
    let delete =
        "curl -X DELETE https://api.web3pay.io/v1/keys/key_abc123xyz \\\n-H \"X-API-Key: wp3_live_sk_your_api_key\"";
    for (lines, expected, answer) in [(&*create, 201, created), (list, 200, listed), (delete, 200, deleted)] {
        if lines == list {
            upstream.on("/v1/keys", Answer::ok(listed));
        }
        let run =
            async |key: &Minted| service.shell(&[HOST], &lines.replace("wp3_live_sk_your_api_key", &key.secret)).await;
        let ended = run(&manager).await.done();
        assert_eq!(ended.stdout, format!("{answer}\n{expected}"), "{lines}");
        let seen = upstream.last();
        let told = ["x-key-owner", "x-key-scopes", "x-key-mode", "host"].map(|name| seen.field(name));
        assert_eq!(told, ["acme", "keys:manage", "live", HOST]);
        assert!(lines != create || seen.body == body.as_bytes());
        let count = upstream.count();
        let refused = run(&widget).await.done();
        assert!(refused.stdout.ends_with("\n403") && refused.stdout.contains("insufficient_scope"), "{refused:?}");
        let stranger = Minted { secret: "wp3_live_sk_your_api_key".into(), ..widget.clone() };
        assert!(run(&stranger).await.done().stdout.ends_with("\n401"));
        assert_eq!(upstream.count(), count);
    }
}

/// [advice the product should turn into help] "A widget needs onramp:create alone, and can do no more with it; in a
/// page of another origin its browser may ask first, where that is wanted."
#[tokio::test]
async fn a_widget_can_only_create() {
    let upstream = Upstream::start().await;
    for (policy, preflight) in [("", "401 missing_credentials"), ("[policy]\npreflight = \"forward\"", "200")] {
        let service = Service::with("web3pay", &upstream, policy).await;
        let key = service.create("live", "onramp:create").await;
        let asks = request("OPTIONS", "/v1/onramp")
            .field("Origin", "https://shop.example")
            .field("Access-Control-Request-Method", "POST")
            .field("Access-Control-Request-Headers", "x-api-key");
        assert_eq!(told(&service.ask(asks).await), preflight);
        assert_eq!(service.ask(present(post("/v1/onramp", "{}"), &key.secret)).await.status, 200);
        assert_eq!(told(&service.ask(CASE.read(&key)).await), "403 insufficient_scope");
    }
}

/// [advice the product should turn into help] "Check last_used_at to identify unused keys, and revoke those that have not
/// been used in months: the list finds them."
#[tokio::test]
async fn old_and_unused_keys_are_found() {
    CASE.grows_old().await;
}

/// [advice the product should turn into help] "Separate keys per environment, and no more permissions than needed: a key
/// says what it may do, and check finds permissions that open nothing."
#[tokio::test]
async fn commands_help_to_follow_the_advice() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    let arguments = ["keys", "create", "--name", "misspelt", "--owner", "acme", "--mode", "test"];
    let said = service.change(&[&arguments[..], &["--scope", "onramp:raed,transactions:read"]].concat()).await.stderr;
    assert!(said.contains("may use onramp:raed and transactions:read") && said.contains("test"), "{said}");
    assert!(said.contains("no route asks for the scope onramp:raed; did you mean onramp:read?"), "{said}");
    let checked = service.run(&["check"]).await.done().stderr;
    assert!(checked.contains("no route asks for the scope onramp:raed"), "{checked}");
    assert!(checked.contains("did you mean onramp:read?"), "{checked}");
}
