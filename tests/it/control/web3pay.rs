//! The web3pay document's own lines, word for word but for the key: answered by the control plane behind a sidecar.

use std::process::Command;

use serde_json::{Value, json};

use super::answers_token;
use crate::harness::{Answer, Plane, Sidecar, Upstream, get, run};

const HOST: &str = "api.web3pay.io";
const GATEWAY: &str = "Bearer the-gateway-of-the-tests-0123456789";

/// As the document has them.
const CREATE: &str = r#"curl -X POST https://api.web3pay.io/v1/keys \
-H "X-API-Key: wp3_live_sk_your_api_key" \
-H "Content-Type: application/json" \
-d '{
"name": "Production API Key",
"environment": "live",
"permissions": ["onramp:create", "onramp:read", "transactions:read"]
}'"#;
const LIST: &str = r#"curl https://api.web3pay.io/v1/keys \
-H "X-API-Key: wp3_live_sk_your_api_key""#;
const REVOKE: &str = r#"curl -X DELETE https://api.web3pay.io/v1/keys/key_abc123xyz \
-H "X-API-Key: wp3_live_sk_your_api_key""#;

/// What the document shows of a new key, of a list, and of a revocation.
fn shown() -> [Value; 3] {
    [
        json!({"success": true, "data": {
            "id": "key_abc123xyz", "key": "wp3_live_sk_a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8s9t0",
            "name": "Production API Key", "environment": "live", "prefix": "wp3_live_sk_a1b2c3d4",
            "permissions": ["onramp:create", "onramp:read", "transactions:read"], "created_at": "2024-01-15T12:00:00Z",
        }}),
        json!({"success": true, "data": {"keys": [{
            "id": "key_abc123xyz", "name": "Production API Key", "environment": "live",
            "prefix": "wp3_live_sk_a1b2c3d4", "permissions": ["onramp:create", "onramp:read", "transactions:read"],
            "last_used_at": "2024-01-15T14:30:00Z", "created_at": "2024-01-15T12:00:00Z",
        }]}}),
        json!({"success": true, "data": {"message": "API key revoked successfully"}}),
    ]
}

/// Every field of the document is there, of its kind; more may be.
#[track_caller]
fn has_the_fields(found: &Value, shown: &Value, path: &str) {
    match (found, shown) {
        (Value::Object(found), Value::Object(shown)) => {
            for (name, value) in shown {
                let field = found.get(name).unwrap_or_else(|| panic!("no {path}.{name} in {found:?}"));
                has_the_fields(field, value, &format!("{path}.{name}"));
            }
        }
        (Value::Array(found), Value::Array(shown)) => {
            assert!(!found.is_empty(), "{path} is empty");
            for item in found {
                has_the_fields(item, &shown[0], &format!("{path}[]"));
            }
        }
        (Value::String(found), Value::String(shown)) => {
            let is_moment = |text: &str| text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok();
            assert_eq!(is_moment(found), is_moment(shown), "{path}: {found}");
            if path.ends_with("prefix") || path.ends_with("created_at") {
                assert_eq!(found.len(), shown.len(), "{path}: {found}");
            }
        }
        // What was never used has no moment.
        (Value::Null, Value::String(_)) if path.ends_with("last_used_at") => {}
        _ => assert_eq!(found, shown, "{path}"),
    }
}

/// A line with this key, and this id where it names one.
async fn paste(sidecar: &Sidecar, line: &str, key: &str, id: &str) -> (u16, Value) {
    let line = line.replace("wp3_live_sk_your_api_key", key).replace("key_abc123xyz", id);
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    shell.env("CURL_HOME", sidecar.path("")).env("CURL_CA_BUNDLE", sidecar.path("ca.crt"));
    let ended = run(shell, "").await.done();
    let (body, status) = ended.stdout.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

#[tokio::test]
async fn the_lines_of_the_document_work() {
    let upstream = Upstream::start().await;
    upstream.on("/v1/onramp", Answer::ok("the API itself"));
    let plane = Plane::prepare();
    std::fs::write(plane.folder().join("gateway"), GATEWAY).unwrap();
    let settings = "[presets]\nconfiguration = \"\"\nnames = [\"web3pay\"]\n[sync]\ngateway = { file = \"gateway\" }\n";
    let plane = plane.config(settings).start().await;
    let manager = json!({"name": "manager", "environment": "live", "permissions": ["keys:manage"], "owner": "acme"});
    let manager = plane.api("POST", "/v1/keys", &manager).await["key"].as_str().unwrap().to_owned();

    let route = format!(
        "preset = \"web3pay\"\n[[route]]\npath = \"/v1/keys/**\"\nscope = \"keys:manage\"\nupstream = {:?}\n\
         authorization = {{ file = \"gateway\" }}\n",
        plane.url()
    );
    let sidecar = plane.follower(&upstream).config(&route).file("gateway", GATEWAY).named(&[HOST]);
    let authority = sidecar.authority().pem().to_owned();
    let sidecar = sidecar.file("ca.crt", authority).start().await;
    let to = format!("connect-to = \"{HOST}:443:127.0.0.1:{}\"\n", sidecar.address().port());
    std::fs::write(
        sidecar.path(".curlrc"),
        format!("{to}silent\nnoproxy = \"*\"\nwrite-out = \"\\n%{{http_code}}\"\n"),
    )
    .unwrap();
    plane.followed_by(1).await;

    let [created, listed, revoked] = shown();
    let (status, answer) = paste(&sidecar, CREATE, &manager, "").await;
    assert_eq!(status, 201, "{answer}");
    has_the_fields(&answer, &created, "");
    let data = &answer["data"];
    let order: Vec<&str> = data.as_object().unwrap().keys().map(String::as_str).take(7).collect();
    assert_eq!(order, ["id", "key", "name", "environment", "prefix", "permissions", "created_at"]);
    let (id, key) = (data["id"].as_str().unwrap(), data["key"].as_str().unwrap());
    assert!(id.starts_with("key_") && key.starts_with(data["prefix"].as_str().unwrap()), "{answer}");
    assert_eq!(data["permissions"], created["data"]["permissions"]);

    // It works, and its use is told.
    answers_token(&sidecar, "/v1/onramp", key, 200).await;
    let (status, answer) = paste(&sidecar, LIST, &manager, "").await;
    assert_eq!(status, 200, "{answer}");
    let keys = answer["data"]["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2, "its own, and the new one: {answer}");
    let ours = keys.iter().find(|entry| entry["id"] == id).unwrap().clone();
    assert!(ours.get("key").is_none() && !answer.to_string().contains(key), "{answer}");
    has_the_fields(&json!({"success": true, "data": {"keys": [ours]}}), &listed, "");

    let (status, answer) = paste(&sidecar, REVOKE, &manager, id).await;
    assert_eq!(status, 200, "{answer}");
    has_the_fields(&answer, &revoked, "");
    assert_eq!(answer["data"]["message"], revoked["data"]["message"]);
    // "Any applications using this key will receive 401 errors", from the answer on.
    let answer = sidecar.ask(get("/v1/onramp").field("X-API-Key", key)).await;
    assert_eq!(answer.status, 401);

    // Nobody without the permission, and nobody by the headers alone.
    let (status, answer) = paste(&sidecar, LIST, key, "").await;
    assert_eq!((status, &answer["success"]), (401, &json!(false)), "{answer}");
    let forged = get("/v1/keys").field("X-Key-Id", id).field("X-Key-Scopes", "keys:manage");
    assert_eq!(plane.ask(forged).await.status, 401);
}
