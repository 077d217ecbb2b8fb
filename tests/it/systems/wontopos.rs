//! S5, a marketplace API: Bearer tokens, two base URLs, and limits by plan.

use std::process::Command;

use serde_json::json;

use super::{
    agreement::agreed,
    life::Case,
    service::{Minted, Service, told},
};
use crate::harness::{
    Answer, Connection, Gate, H1, H2, Received, Request, Sidecar, Upstream, get, keyside_with_input, node_program,
    python, request, run, within,
};

const CASE: Case = Case {
    preset: "wontopos",
    text: include_str!("../../../config/presets/wontopos.toml"),
    present,
    path: APIS,
    scope: "read",
    prefixes: ["sk_live_", "sk_test_"],
    // The document shows none; this is the preset's choice.
    shown: 6,
    hosts: [LIVE, TEST],
    unlimited: "[limits]\nper_key = []",
};

const LIVE: &str = "api.wontopos.com";
const TEST: &str = "sandbox.wontopos.com";
const APIS: &str = "/v1/marketplace/apis";

fn present(request: Request, token: &str) -> Request {
    request.bearer(token)
}

/// [what it is] "An API at /v1, and nothing beside it."
#[tokio::test]
async fn there_is_nothing_beside_v1() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    let key = service.create("live", "read_write").await;
    let rows = [
        ("/v1", "200"),
        ("/v1/", "200"),
        ("/v1/marketplace/apis?page=2", "200"),
        ("/", "403 route_not_allowed"),
        ("/v10/marketplace", "403 route_not_allowed"),
        ("/v2/marketplace/apis", "403 route_not_allowed"),
        ("/v1/../admin", "400 bad_request"),
    ];
    for (path, expected) in rows {
        assert_eq!(told(&service.ask(present(get(path).host(LIVE), &key.secret)).await), expected, "{path}");
    }
}

/// [what it is] "init with the preset ends in a 200, and every setting says that it is the preset's."
#[tokio::test]
async fn init_makes_a_sidecar_for_it() {
    CASE.starts_from_init("/v1/marketplace/apis").await;
}

/// [credential] "The key as a Bearer token in Authorization, whatever the case of the scheme, and nothing else."
#[tokio::test]
async fn a_key_is_a_bearer_token() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    let key = service.create("live", "read").await;
    let token = &*key.secret;
    let get = || get(APIS).host(LIVE);
    for version in [H1, H2] {
        for scheme in ["Bearer", "bearer", "bEARER"] {
            let request = get().field("Authorization", format!("{scheme} {token}"));
            assert_eq!(service.sidecar.send(version, request).await.status, 200, "{scheme}");
            assert!(!upstream.last().has("authorization"));
        }
    }
    let count = upstream.count();
    let rows = [
        ("no credential at all", get(), "401 missing_credentials"),
        ("Basic, as user name", get().basic(token, ""), "401 missing_credentials"),
        ("a field of its own", get().field("X-API-Key", token), "401 missing_credentials"),
        ("in the query", request("GET", &format!("{APIS}?key={token}")).host(LIVE), "401 missing_credentials"),
        ("the shown prefix alone", get().bearer(&key.prefix), "401 invalid_credentials"),
        ("the document's example", get().bearer("sk_live_your_key_here"), "401 invalid_credentials"),
    ];
    for (name, request, expected) in rows {
        let answer = service.ask(request).await;
        assert_eq!(told(&answer), expected, "{name}");
        assert!(answer.field("www-authenticate").starts_with("Bearer realm="), "{name}: {answer:?}");
    }
    assert_eq!(upstream.count(), count);
}

/// [key shape] "One long-lived token: sk_live_ or sk_test_ and random characters."
#[tokio::test]
async fn keys_are_minted_as_the_document_shows_them() {
    CASE.shapes().await;
}

/// [mode / environment] "sk_live_ keys are for the production host and sk_test_ keys for the sandbox, which has the
/// same API and data of its own."
/// [note] "Of two base URLs, a live key is refused on the sandbox's host and a test key on the production's, and each
/// mode has its upstream."
#[tokio::test]
async fn each_mode_has_its_host_and_its_upstream() {
    let (production, sandbox) = (Upstream::start().await, Upstream::start().await);
    let modes = format!("[upstream.modes]\nlive = {:?}\ntest = {:?}\n", production.url(), sandbox.url());
    let nowhere = Upstream::start().await;
    let service = Service::with("wontopos", &nowhere, &modes).await;
    let (live, test) = (service.create("live", "read_write").await, service.create("test", "read_write").await);
    let rows = [
        (LIVE, &live, "200", [1, 0]),
        (TEST, &test, "200", [1, 1]),
        (TEST, &live, "403 mode_mismatch", [1, 1]),
        (LIVE, &test, "403 mode_mismatch", [1, 1]),
        ("API.Wontopos.com:443", &live, "200", [2, 1]),
        ("other.wontopos.com", &live, "403 mode_mismatch", [2, 1]),
        ("127.0.0.1", &test, "403 mode_mismatch", [2, 1]),
    ];
    for (host, key, expected, counts) in rows {
        for (path, method) in [(APIS, "GET"), ("/v1/orders", "POST")] {
            let answer = service.ask(present(request(method, path).host(host), &key.secret)).await;
            assert_eq!(told(&answer), expected, "{method} {host}");
        }
        assert_eq!([&production, &sandbox].map(Upstream::count), counts.map(|count| count * 2), "{host}");
    }
    assert_eq!(
        (production.last().field("x-key-mode"), production.last().field("host")),
        ("live".into(), "API.Wontopos.com:443".into())
    );
    assert_eq!(nowhere.count(), 0);
    // A token that begins like a live one is one, also where nobody said so.
    let key = service.create("", "read").await;
    assert!(key.printed["mode"] == "live" && key.secret.starts_with("sk_live_"), "{}", key.printed);
    assert_eq!(told(&service.ask(present(get(APIS).host(TEST), &key.secret)).await), "403 mode_mismatch");
}

/// [permission model] "Scopes are selected when a key is made. As shipped the method asks for read or write; with
/// routes of the operator's own, these ask for what they name."
#[tokio::test]
async fn scopes_are_chosen_when_a_key_is_made() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    for (scopes, reads, writes) in [("read", true, false), ("write", false, true), ("read_write", true, true)] {
        let key = service.create("live", scopes).await;
        for (method, may) in [("GET", reads), ("HEAD", reads), ("OPTIONS", reads)]
            .into_iter()
            .chain(["POST", "PUT", "PATCH", "DELETE"].map(|method| (method, writes)))
        {
            let answer = service.ask(present(request(method, APIS).host(LIVE), &key.secret)).await;
            assert_eq!(answer.status, if may { 200 } else { 403 }, "{scopes}: {method}");
        }
        assert_eq!(key.printed["scopes"], json!([scopes]));
    }
    // The preset's own example, with the marks of a comment taken away.
    let (_, example) = CASE.text.split_once("For instance:\n").unwrap();
    let example: String = example.lines().map_while(|line| Some(line.strip_prefix('#')?.to_owned() + "\n")).collect();
    assert!(example.contains("\nscope = \"marketplace:read\"\n"), "{example}");
    let service = Service::with("wontopos", &upstream, &example).await;
    let (own, reader) = (service.create("live", "marketplace:read").await, service.create("live", "read").await);
    let rows = [
        (&own, APIS, "200"),
        (&own, "/v1/orders", "403 insufficient_scope"),
        (&reader, APIS, "403 insufficient_scope"),
        (&reader, "/v1/orders", "200"),
    ];
    for (key, path, expected) in rows {
        assert_eq!(told(&service.ask(present(get(path).host(LIVE), &key.secret)).await), expected, "{path}");
    }
}

/// [permission model] "explain says of every request what the sidecar does, and without a request which routes there
/// are."
#[tokio::test]
async fn explain_agrees() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    for (mode, scope) in [("live", "read"), ("test", "write"), ("live", "read_write"), ("live", "marketplace:read")] {
        let key = service.create(mode, scope).await;
        for host in [LIVE, TEST, "elsewhere.example.com"] {
            for path in [APIS, "/v2"] {
                for method in ["GET", "POST", "DELETE", "OPTIONS"] {
                    agreed(&service, &key, |request| present(request, &key.secret), host, method, path).await;
                }
            }
        }
        let table = service.run(&["explain", "--key", &key.id]).await.done().stdout;
        let host = if mode == "live" { LIVE } else { TEST };
        assert!(table.contains("/v1/**") && table.contains(host), "{table}");
    }
}

/// [owner] "Keys are tied to your account, and the upstream learns which that is."
#[tokio::test]
async fn a_key_acts_for_its_account() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    for account in ["acme", "umbrella"] {
        let key = service.create_as(account, &["--owner", account, "--mode", "live", "--scope", "read"]).await;
        assert_eq!(service.ask(CASE.read(&key).field("X-Key-Owner", "forged")).await.status, 200);
        assert_eq!(upstream.last().field("x-key-owner"), account);
    }
}

/// A key of an owner on this plan, and a connection on which it is used.
async fn on_plan(service: &Service, owner: &str, plan: &str) -> (Minted, Connection) {
    service.change(&["owners", "create", owner, "--plan", plan]).await;
    let key = service.create_as(owner, &["--owner", owner, "--mode", "live", "--scope", "read"]).await;
    (key, service.sidecar.connect(H1).await)
}

/// Sends until a request is refused; how many were not, and the refusal.
async fn exhaust(connection: &mut Connection, key: &Minted, at_most: usize) -> (usize, Received) {
    for passed in 0..=at_most {
        let answer = connection.send(&CASE.read(key)).await;
        if answer.status != 200 {
            return (passed, answer);
        }
    }
    panic!("{at_most} requests passed, and one more")
}

/// [limits] "Free 60 a minute and 1,000 a day, Pro 600 and 50,000, Enterprise 6,000 and as many a day as one likes."
/// [errors] "Too many requests are 429 with Retry-After."
#[tokio::test]
async fn each_plan_has_its_limits() {
    let upstream = Upstream::start().await;
    let service = Service::with("wontopos", &upstream, "").await;
    let rows = [
        ("free", "\"key-60s\";q=60;w=60, \"key-86400s\";q=1000;w=86400", Some(60)),
        ("pro", "\"key-60s\";q=600;w=60, \"key-86400s\";q=50000;w=86400", Some(600)),
        ("enterprise", "\"key-60s\";q=6000;w=60", None),
    ];
    for (plan, policy, exhausted_by) in rows {
        let (key, mut connection) = on_plan(&service, plan, plan).await;
        let began = std::time::Instant::now();
        let first = connection.send(&CASE.read(&key)).await;
        assert_eq!((first.status, first.field("ratelimit-policy")), (200, policy), "{plan}");
        assert_eq!(first.field("ratelimit").contains("\"key-86400s\";r="), policy.contains("w=86400"), "{first:?}");
        let Some(limit) = exhausted_by else {
            assert!(first.field("ratelimit").contains("\"key-60s\";r=5999"), "{first:?}");
            continue;
        };
        let (passed, refused) = exhaust(&mut connection, &key, limit).await;
        let took = began.elapsed().as_secs();
        assert!(took < 50, "this machine is too slow to exhaust {limit} a minute: {took} s");
        assert_eq!((passed + 1, &*told(&refused)), (limit, "429 too_many_requests"), "{plan}");
        let wait: u64 = refused.field("retry-after").parse().unwrap();
        assert!(wait <= 60 && wait + took + 1 >= 60, "{plan}: {wait} after {took}");
        // Each key has its own allocation, also of the same account.
        let more = ["--owner", plan, "--mode", "test", "--scope", "read"];
        let other = service.create_as("other", &more).await;
        let answer = service.ask(CASE.read(&other)).await;
        assert!(answer.field("ratelimit").contains(&format!("\"key-60s\";r={}", limit - 1)), "{answer:?}");
    }
    // Who is on no plan has the free one.
    let key = service.create_as("no plan", &["--owner", "nobody", "--mode", "live", "--scope", "read"]).await;
    assert_eq!(service.ask(CASE.read(&key)).await.field("ratelimit-policy"), rows[0].1);
}

/// [limits] "A thousand a day are a thousand: with the minute out of the way, the next one waits for the day to end."
#[tokio::test]
async fn a_day_has_its_limit_too() {
    let upstream = Upstream::start().await;
    let config = "[limits.plans]\nfree = [\"100000/1m\", \"1000/1d\"]";
    let service = Service::with("wontopos", &upstream, config).await;
    let (key, mut connection) = on_plan(&service, "acme", "free").await;
    let (passed, refused) = exhaust(&mut connection, &key, 1000).await;
    assert_eq!((passed, &*told(&refused)), (1000, "429 too_many_requests"));
    assert_eq!(refused.json()["violated-policies"], json!(["key-86400s"]));
    let wait: u64 = refused.field("retry-after").parse().unwrap();
    assert!((86_400 - 120..=86_400).contains(&wait), "{wait}");
}

/// [limits] "A change of plan counts from the next request on, and what was used stays used."
#[tokio::test]
async fn another_plan_is_no_fresh_allowance() {
    let upstream = Upstream::start().await;
    let service = Service::with("wontopos", &upstream, "").await;
    let (key, mut connection) = on_plan(&service, "acme", "free").await;
    assert_eq!(exhaust(&mut connection, &key, 60).await.0, 60);
    service.change(&["owners", "set", "acme", "--plan", "pro"]).await;
    let answer = connection.send(&CASE.read(&key)).await;
    assert_eq!(answer.status, 200);
    assert!(answer.field("ratelimit").contains("\"key-60s\";r=539"), "61 of 600 are used: {answer:?}");
    // By hand, in the file, and back.
    let file = service.key_file();
    assert!(file.contains("plan = \"pro\""), "{file}");
    service.replace(file.replace("plan = \"pro\"", "plan = \"free\"")).await;
    assert_eq!(told(&connection.send(&CASE.read(&key)).await), "429 too_many_requests");
}

/// [secret at rest] "The full key is shown when it is made, and never again."
#[tokio::test]
async fn a_key_is_shown_once_and_kept_as_a_hash() {
    CASE.kept_as_a_hash().await;
}

/// [revoke] "Deleting a key is immediate and cannot be undone: its requests get 401."
#[tokio::test]
async fn a_revoked_key_is_dead_at_once_and_for_good() {
    CASE.dies_and_stays_dead().await;
}

/// [revoke] "Cannot be undone: a key that was revoked and deleted stays dead, although an older key file has its
/// entry."
#[tokio::test]
async fn a_deleted_key_cannot_be_had_back() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    let key = service.create_as("gone", &["--owner", "acme", "--mode", "live", "--scope", "read"]).await;
    assert_eq!(service.ask(CASE.read(&key)).await.status, 200);
    let older = service.key_file();
    service.run(&["keys", "revoke", "gone", "--wait"]).await.done();
    service.change(&["keys", "delete", "gone", "--yes"]).await;
    assert_eq!(service.json(&["keys", "list"]).await, json!([]));
    service.replace(older).await;
    let listed = service.run(&["keys", "list"]).await.done();
    assert!(listed.stdout.contains(&key.id) && listed.stderr.contains("was revoked and stays so"), "{listed:?}");
    assert_eq!(service.ask(CASE.read(&key)).await.status, 401);
}

/// [revoke] "All active requests of a deleted key fail immediately, and no others; those that wait for their answer as
/// well as those that have half of it. Whether its entry stays or goes."
#[tokio::test]
async fn active_requests_of_a_deleted_key_fail() {
    for command in [&["revoke", "gone", "--wait"][..], &["delete", "gone", "--yes"]] {
        let upstream = Upstream::start().await;
        let gate = Gate::new();
        let half = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
        upstream.on("/v1/stalled", Answer::raw(half).then(&gate, "whole"));
        upstream.on("/v1/waiting", Answer::ok("at last").behind(&gate));
        let service = CASE.service(&upstream).await;
        let mut active = Vec::new();
        for name in ["gone", "stays"] {
            let key = service.create_as(name, &["--owner", "acme", "--mode", "live", "--scope", "read"]).await;
            for version in [H1, H2] {
                for path in ["/v1/stalled", "/v1/waiting"] {
                    let mut connection = service.sidecar.connect(version).await;
                    let request = present(get(path).host(LIVE), &key.secret);
                    let sent = tokio::spawn(async move { connection.try_send(&request).await });
                    active.push((name, format!("{name}: {path} over {version:?}"), sent));
                }
            }
        }
        upstream.request(active.len()).await;
        service.run(&[&["keys"], command].concat()).await.done();
        let (gone, stay): (Vec<_>, Vec<_>) = active.into_iter().partition(|(name, ..)| *name == "gone");
        // Before the upstream has said another word.
        for (_, what, sent) in gone {
            let answer = within(&what, sent).await.unwrap();
            let whole = answer.as_ref().is_ok_and(|answer| answer.status == 200 && answer.broken.is_none());
            assert!(!whole, "{command:?}: {what}: {answer:?}");
        }
        gate.open();
        for (_, what, sent) in stay {
            let answer = sent.await.unwrap().unwrap();
            assert!(answer.status == 200 && answer.broken.is_none(), "{command:?}: {what}: {answer:?}");
        }
    }
}

/// [rotate] "Create a new key, update the services, verify it, delete the old one, without downtime and every 90 days."
#[tokio::test]
async fn a_key_is_rotated_without_a_failed_request() {
    CASE.rotates_without_downtime().await;
}

/// [errors] "A deleted key is 401 Unauthorized; whoever asks too often is told when to come again."
#[tokio::test]
async fn refusals_are_as_the_document_says() {
    let upstream = Upstream::start().await;
    let service = Service::with("wontopos", &upstream, "").await;
    let deleted = service.create_as("deleted", &["--owner", "acme", "--mode", "live", "--scope", "read"]).await;
    assert_eq!(service.ask(CASE.read(&deleted)).await.status, 200);
    service.change(&["keys", "delete", "deleted", "--yes"]).await;
    let answer = service.ask(CASE.read(&deleted)).await;
    assert_eq!(
        (&*told(&answer), answer.field("content-type")),
        ("401 invalid_credentials", "application/problem+json")
    );
    assert!(!service.run(&["keys", "list"]).await.done().stdout.contains(&deleted.id));
    let more = ["--owner", "acme", "--mode", "live", "--scope", "read", "--limit", "1/1m"];
    let slow = service.create_as("slow", &more).await;
    assert_eq!(service.ask(CASE.read(&slow)).await.status, 200);
    let answer = service.ask(CASE.read(&slow)).await;
    assert_eq!(told(&answer), "429 too_many_requests");
    assert!((1..=60).contains(&answer.field("retry-after").parse::<u64>().unwrap()), "{answer:?}");
}

/// [management API] "Create with a name and scopes, and delete; a dashboard is still to come. Deleting is asked about."
#[tokio::test]
async fn keys_are_created_and_deleted_by_commands() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    let more = ["--owner", "acme", "--mode", "live", "--scope", "read"];
    let key = service.create_as("production-backend", &more).await;
    assert_eq!(service.ask(CASE.read(&key)).await.status, 200);
    // Whoever is not there to type the name must say that it is meant.
    let asked = service.run(&["keys", "delete", "production-backend"]).await;
    assert!(asked.status == 1 && asked.stderr.contains("leaves nothing to look up"), "{asked:?}");
    assert_eq!(service.ask(CASE.read(&key)).await.status, 200);
    service.change(&["keys", "delete", "production-backend", "--yes"]).await;
    assert_eq!(service.ask(CASE.read(&key)).await.status, 401);
    assert_eq!(service.json(&["keys", "list"]).await, json!([]));
}

/// [advice the product should turn into help] "Store a key at once in a secrets manager or the environment: it is
/// printed alone, for a pipe. Rotate every 90 days, or at once when it leaked: an end can be set, and a leaked one is
/// recognised."
#[tokio::test]
async fn commands_help_to_follow_the_advice() {
    let upstream = Upstream::start().await;
    let service = CASE.service(&upstream).await;
    let more = ["--owner", "acme", "--mode", "live", "--scope", "read", "--expires", "90d"];
    let key = service.create_as("nightly", &more).await;
    let moment = |name: &str| key.printed[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(moment("expires_at").duration_since(moment("created_at")).as_hours(), 90 * 24);
    let identify = ["keys", "identify", "--config", &service.config()];
    let said = keyside_with_input(identify, &key.secret).await.done();
    assert!(said.stdout.contains(&key.id) && said.stderr.contains("rotate or revoke"), "{said:?}");
    // At once: the old one is dead when the new one is there.
    let rotate = ["keys", "rotate", &key.id, "--overlap", "0", "--output", "json"];
    let new = Minted::of(service.change(&rotate).await);
    assert_eq!([service.ask(CASE.read(&key)).await.status, service.ask(CASE.read(&new)).await.status], [401, 200]);
}

/// [advice the product should turn into help] "Rotate keys on a regular schedule, such as every 90 days: the list says how
/// many are due, and which; and which nobody uses."
#[tokio::test]
async fn old_and_unused_keys_are_found() {
    CASE.grows_old().await;
}

/// [credential] "The document's three examples work: curl, Node's fetch and Python's requests, unmodified, over TLS
/// with the certificate verified."
/// [mode / environment] "The base URL decides: what a client calls must be that of its key."
#[tokio::test]
async fn the_documents_examples_work() {
    let upstream = Upstream::start().await;
    upstream.on(APIS, Answer::with(200, &[("Content-Type", "application/json")], r#"{"apis":[]}"#));
    // curl is told where the document's hosts are. The others cannot be told: for them, two names of this machine are a
    // live and a test host as well.
    let hosts = "preset = \"wontopos\"\n[hosts]\n\"localhost\" = \"live\"\n\"127.0.0.1\" = \"test\"";
    let builder = Sidecar::in_front_of(&upstream).config(hosts).named(&[LIVE, TEST]).keys([]);
    let service = Service::of(builder).await;
    let (live, test) = (service.create("live", "read").await, service.create("test", "read").await);
    let urls = [("localhost", LIVE), ("127.0.0.1", TEST)];
    for (key, statuses) in [(&live, ["200", "403"]), (&test, ["403", "200"])] {
        for ((local, host), status) in urls.into_iter().zip(statuses) {
            let curl =
                format!("curl https://{host}/v1/marketplace/apis \\\n  -H \"Authorization: Bearer {}\"", key.secret);
            let ended = service.shell(&[host], &curl).await.done();
            assert!(ended.stdout.ends_with(&format!("\n{status}")), "{ended:?}");
            assert_eq!(ended.stdout.contains(r#"{"apis":[]}"#), status == "200", "{ended:?}");

            let url = service.local(local, APIS);
            let script = format!(
                "const res = await fetch(\"{url}\", {{\n  headers: {{\n    Authorization: \"Bearer {}\",\n  }},\n}});\n\
                 console.log(res.status);",
                key.secret
            );
            let mut node = node_program();
            node.args(["--input-type=module", "-e", &script]).env("NODE_EXTRA_CA_CERTS", service.ca());
            assert_eq!(run(node, "").await.done().stdout, format!("{status}\n"), "{host}");

            let script = format!(
                "import requests\nresp = requests.get(\n    \"{url}\",\n    \
                 headers={{\"Authorization\": \"Bearer {}\"}},\n)\n\
                 print(resp.status_code)",
                key.secret
            );
            let mut requests = Command::new(python().await);
            requests.args(["-c", &script]).env("REQUESTS_CA_BUNDLE", service.ca()).env("NO_PROXY", "*");
            assert_eq!(run(requests, "").await.done().stdout, format!("{status}\n"), "{host}");
        }
    }
    assert_eq!(upstream.count(), 6);
}
