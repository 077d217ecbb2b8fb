//! The management API, asked by a program that others wrote, and by the lines of the document that it came from.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Plane, keyside, python, run};

/// What it may answer to a request that is well formed: a rule may refuse it all the same, and so may what is there.
const SETTINGS: &str =
    "[checks]\npositive_data_acceptance.expected-statuses = [\"2xx\", \"401\", \"403\", \"404\", \"409\", \"422\"]\n";

/// The document is a good one, it is the one that is printed, and what answers does so as it says.
#[tokio::test]
async fn the_api_is_what_its_document_says() {
    let plane = Plane::start().await;
    let printed = keyside(["openapi"]).await.done();
    assert_eq!(plane.ask(crate::harness::get("/v1/openapi.json")).await.text(), printed.stdout);
    let (document, settings) = (plane.path("openapi.json"), plane.path("schemathesis.toml"));
    std::fs::write(&document, &printed.stdout).unwrap();
    std::fs::write(&settings, SETTINGS).unwrap();

    let mut lint = Command::new(python().await);
    lint.args(["-m", "openapi_spec_validator"]).arg(&document);
    run(lint, "").await.done();

    // Who asks stays an admin: what removes operators, or makes others of them, is asked as somebody who may not.
    plane.api("POST", "/v1/operators", &json!({ "name": "fuzz", "role": "operator" })).await;
    let token = plane.api("POST", "/v1/operators/fuzz/tokens", &json!({ "name": "fuzz" })).await;
    plane.api("POST", "/v1/owners", &json!({ "id": "svc" })).await;
    plane.mint("one").await;
    for (token, examples, operations) in [
        (crate::harness::ADMIN_TOKEN, "10", "^(?!.*[oO]perator|.*Token).*$"),
        (token["token"].as_str().unwrap(), "4", "[oO]perator|Token"),
    ] {
        let mut ask = Command::new(python().await);
        ask.args(["-m", "schemathesis.cli", "--config-file"]).arg(&settings).arg("run").arg(&document);
        ask.args(["--url", &plane.url(), "--max-examples", examples, "--no-color", "--seed", "1"]);
        ask.args(["--header", &format!("Authorization: Bearer {token}"), "--include-operation-id-regex", operations]);
        ask.env("HOME", plane.path(".")).current_dir(plane.path("."));
        // It takes as long as it takes: some thousand requests.
        let asked = tokio::task::spawn_blocking(move || ask.stdin(Stdio::null()).output().unwrap()).await.unwrap();
        assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stdout));
    }
    let audit: Value = plane.api("GET", "/v1/audit?limit=1", &Value::Null).await;
    assert!(audit["head"]["entries"].as_u64().unwrap() > 10, "it did something: {audit}");
}
