//! The document's own command lines, what `init` and `config print` make of the preset, and what `explain` says of it.

use std::process::Command;

use serde_json::json;

use super::{API, of_each_scope};
use crate::{
    harness::{Answer, Ended, Upstream, get, post, run},
    systems::{
        agreement::{explain_agrees, the_table_is_true},
        first_steps,
        service::{Minted, System},
    },
};

/// The command lines of the document. Host, port and pair are replaced, and nothing else.
const USE: &str = r#"curl -u ck_abc123def456:cs_xyz789uvw012 \
"https://yourstore.com/wp-json/wkwp-wallet/v1/wallets?per_page=20""#;
const VERIFY: &str = r#"curl -u ck_xxx:cs_xxx \
"https://yourstore.com/wp-json/wkwp-wallet/v1/wallets?per_page=5""#;

/// Runs one of them, with the certificate verified.
async fn curl(system: &System, line: &str, user: &str) -> Ended {
    let authority = system.sidecar.path("ca.crt");
    std::fs::write(&authority, system.sidecar.authority.pem()).unwrap();
    // What is not part of the line: whom to trust, and that the status is printed.
    std::fs::write(system.sidecar.path(".curlrc"), "silent\nnoproxy = \"*\"\nwrite-out = \"\\n%{http_code}\"\n")
        .unwrap();
    let host = format!("localhost:{}", system.sidecar.address().port());
    let pair = line.split_whitespace().nth(2).unwrap();
    let line = line.replace("yourstore.com", &host).replace(pair, user);
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    shell.env("CURL_CA_BUNDLE", authority).env("CURL_HOME", system.sidecar.path(""));
    run(shell, "").await.done()
}

/// [credential] "curl -u key:secret, as the document uses it"
/// [errors] "verify with curl: 200 with JSON is expected"
/// [errors] "verify with curl: 401 invalid_credentials, the key is wrong or revoked"
/// [errors] "verify with curl: 403 forbidden_caller_ip, the address is not in the list"
/// [errors] "verify with curl: 429 too_many_requests, a limit is hit"
#[tokio::test]
async fn the_documents_command_lines_work() {
    let system = System::start("wallet", "").await;
    let pair = system.mint("Verify", "svc-shop", "read", &[]).await;
    let away = system.mint("away", "svc-shop", "read", &["--allow-ip", "203.0.113.42"]).await;
    let few = system.mint("few", "svc-shop", "read", &["--limit", "1/1h"]).await;
    let json = [("Content-Type", "application/json")];
    system.upstream.on(&format!("{API}/wallets"), Answer::with(200, &json, r#"[{"id":7}]"#));
    for (line, query) in [(USE, "per_page=20"), (VERIFY, "per_page=5")] {
        assert_eq!(curl(&system, line, &pair.user()).await.stdout, "[{\"id\":7}]\n200");
        assert_eq!(system.upstream.last().target(), format!("{API}/wallets?{query}"));
    }
    assert_eq!(curl(&system, VERIFY, &few.user()).await.stdout, "[{\"id\":7}]\n200");
    let wrong = format!("{}:cs_xxx", pair.prefix);
    let rows = [
        ("ck_xxx:cs_xxx", 401, "invalid_credentials"),
        (&wrong, 401, "invalid_credentials"),
        (&away.user(), 403, "forbidden_caller_ip"),
        (&few.user(), 429, "too_many_requests"),
    ];
    for (user, status, code) in rows {
        let printed = curl(&system, VERIFY, user).await.stdout;
        let (body, printed_status) = printed.rsplit_once('\n').unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((printed_status, &body["code"]), (&*status.to_string(), &code.into()), "{printed}");
        assert_eq!(body["data"], json!({ "status": status }), "{printed}");
    }
    system.run(&["keys", "revoke", &pair.id, "--wait"]).await.done();
    let printed = curl(&system, VERIFY, &pair.user()).await.stdout;
    assert!(printed.contains("\"invalid_credentials\"") && printed.ends_with("\n401"), "{printed}");
}

/// [management API] "the first key: the steps that init prints, done"
#[tokio::test]
async fn the_steps_of_init_end_in_a_200() {
    let upstream = Upstream::start().await;
    upstream.on(&format!("{API}/wallets"), Answer::ok("wallets"));
    let ended = first_steps::follow("wallet", &format!("{API}/wallets"), &upstream).await.done();
    assert_eq!(ended.stdout, "wallets\n200");
    assert_eq!(upstream.only().field("x-key-owner"), "me");
}

/// [permission model] "the preset says where each rule comes from"
#[tokio::test]
async fn what_the_preset_sets_is_shown_as_the_presets() {
    let system = System::start("wallet", "[limits]\nper_key = [\"10/1m\"]").await;
    let printed = system.run(&["config", "print", "--effective"]).await.done().stdout;
    let origin = |setting: &str| {
        let line = printed.lines().find(|line| line.starts_with(setting)).unwrap_or_else(|| panic!("{printed}"));
        line.rsplit_once('#').unwrap().1.trim().to_owned()
    };
    for setting in [
        "credentials.basic = true",
        "credentials.bearer = false",
        "policy.method_override = \"judge\"",
        "policy.effective_path_parameter = \"rest_route\"",
        "limits.per_ip = [\"60/1m\", \"30/5s\"]",
        "errors.format = \"wordpress\"",
        "path = \"/wp-json/wkwp-wallet/v1/**\"",
        "capability = \"manage_woocommerce\"",
        "kyc = true",
    ] {
        assert_eq!(origin(setting), "preset wallet", "{setting}");
    }
    assert!(origin("limits.per_key = [\"10/1m\"]").contains("keyside.toml"), "{printed}");
    assert!(origin("limits.failures_per_ip").contains("default"), "{printed}");
    assert!(!printed.contains("a pepper of some length"), "{printed}");
}

/// Every method at every kind of route, with every kind of key.
///
/// [permission model] "explain says of each scope what the sidecar does"
/// [owner] "explain says of each owner what the sidecar does"
#[tokio::test]
async fn explain_says_what_happens() {
    let system = System::unlimited("wallet", "").await;
    system.owner("customer", &["--kyc", "approved"]).await;
    system.owner("manager", &["--capability", "manage_woocommerce", "--kyc", "pending"]).await;
    let mut keys = Vec::from(of_each_scope(&system).await);
    for (name, owner, scope) in [
        ("customer's", "customer", "read_write"),
        ("manager's", "manager", "read_write"),
        ("nobody's", "nobody", "write"),
    ] {
        keys.push(system.mint(name, owner, scope, &[]).await);
    }
    let targets = [
        "/wp-json/wkwp-wallet/v1/wallets",
        "/wp-json/wkwp-wallet/v1/withdrawals/7/approve",
        "/wp-json/wkwp-wallet/v1/wallets?_method=PUT",
        "/wp-json/wkwp-wallet/v1/wallets?rest_route=/wkwp-wallet/v1/withdrawals",
        "/wp-json/wp/v2/users",
        "//wp-json/wkwp-wallet/v1/wallets",
    ];
    explain_agrees(&system, &keys, &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"], &targets).await;
    for pair in &keys {
        the_table_is_true(&system, pair).await;
    }
}

/// [advice the product should turn into help] "check tells of owners without a row, and of a capability that nobody has"
#[tokio::test]
async fn check_tells_what_will_surprise() {
    let system = System::start("wallet", "").await;
    let pair = system.mint("first", "svc-shop", "write", &[]).await;
    let check = async || system.run(&["check"]).await.done().stderr;
    let said = check().await;
    assert!(said.contains("routes ask for the capability manage_woocommerce, which no owner has"), "{said}");
    assert!(said.contains("the owner svc-shop has no row"), "{said}");
    let answer = system.sidecar.ask(pair.on(post(&format!("{API}/wallets"), "{}"))).await;
    assert_eq!(answer.brief(), "403 permission_denied");
    system.owner("svc-shop", &["--capability", "manage_woocommerce"]).await;
    let said = check().await;
    assert!(!said.contains("capability") && !said.contains("svc-shop"), "{said}");
    system.becomes("200", || pair.on(post(&format!("{API}/wallets"), "{}"))).await;
    // A scope that no route asks for is a slip of the pen.
    system.mint("slip", "svc-shop", "wallets:read", &[]).await;
    let said = check().await;
    assert!(said.contains("nothing asks for any scope of key"), "{said}");
    let answer = system.sidecar.ask(get(&format!("{API}/wallets"))).await;
    assert_eq!(answer.brief(), "401 missing_credentials");
}
