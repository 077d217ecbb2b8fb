//! Who fails to authenticate learns nothing of why: the answers are the same, byte for byte.

use crate::harness::{H1, H2, Key, Request, Sidecar, Upstream, get, key_file_of};

/// The ways to fail, each with a request of the same length and kind.
fn failures() -> (Vec<Key>, Vec<(&'static str, Request)>) {
    let good = Key::pair("good");
    let revoked = Key::pair("revoked").with("revoked_at = 2026-01-02T00:00:00Z");
    let expired = Key::pair("expired").with("expires_at = 2026-01-02T00:00:00Z");
    let suspended = Key::pair("suspended").owner("gone");
    let token = Key::token("token");
    let revoked_token = Key::token("revoked-token").with("revoked_at = 2026-01-02T00:00:00Z");
    let slow = Key::pair("slow").argon2id();
    let wrong = format!("cs_{}", "0".repeat(40));
    let rows = vec![
        ("unknown", get("/").key(&Key::pair("unknown"))),
        ("unknown token", get("/").key(&Key::token("unknown"))),
        ("unknown name that a human chose", get("/").basic("alice", "secret")),
        ("wrong secret", get("/").key(&good.clone().secret(&wrong))),
        ("wrong secret, slow hash", get("/").key(&slow.clone().secret(&wrong))),
        ("wrong rest of a token", get("/").bearer(&format!("{}{}", token.public, "0".repeat(30)))),
        ("another key's secret", get("/").key(&good.clone().secret(&slow.secret))),
        ("no secret", get("/").basic(&good.public, "")),
        ("a pair's key as a token", get("/").bearer(&good.public)),
        ("revoked", get("/").key(&revoked)),
        ("revoked token", get("/").key(&revoked_token)),
        ("revoked, wrong secret", get("/").key(&revoked.clone().secret(&wrong))),
        ("expired", get("/").key(&expired)),
        ("owner suspended", get("/").key(&suspended)),
        ("malformed", get("/").field("Authorization", "Basic %%%")),
        ("malformed token", get("/").field("Authorization", "Bearer a b")),
    ];
    (vec![good, revoked, expired, suspended, token, revoked_token, slow], rows)
}

#[tokio::test]
async fn every_failed_authentication_gets_the_same_bytes() {
    let (keys, rows) = failures();
    let owners = "[[owner]]\nid = \"gone\"\nsuspended_at = 2026-01-02T00:00:00Z\n";
    for format in ["problem", "wordpress", "woocommerce", "envelope"] {
        let upstream = Upstream::start().await;
        let config = format!("[errors]\nformat = {format:?}\n[limits]\nfailures_per_ip = [\"10000/1m\"]");
        let sidecar =
            Sidecar::in_front_of(&upstream).config(&config).key_file(key_file_of(owners, &keys)).start().await;
        for version in [H1, H2] {
            let mut first = None;
            for (way, request) in &rows {
                // With a request id of the caller's, not even that differs.
                let answer = sidecar.send_again(version, request.clone().field("X-Request-Id", "the-same")).await;
                assert_eq!(answer.status, 401, "{way}: {answer:?}");
                let head = String::from_utf8_lossy(&answer.raw_head).into_owned();
                let head: String = head.split_inclusive("\r\n").filter(|line| !line.starts_with("date:")).collect();
                let fields: Vec<_> = answer.fields.iter().filter(|(name, _)| name != "date").cloned().collect();
                let bytes = (head, fields, answer.text());
                match &first {
                    None => first = Some(bytes),
                    Some(first) => assert_eq!(&bytes, first, "{format}: {way} over {version:?}"),
                }
            }
        }
        assert_eq!(upstream.count(), 0);
    }
}

/// The operator is told the difference.
#[tokio::test]
async fn the_log_and_the_metrics_know_the_difference() {
    let (keys, rows) = failures();
    let owners = "[[owner]]\nid = \"gone\"\nsuspended_at = 2026-01-02T00:00:00Z\n";
    let upstream = Upstream::start().await;
    let config = "[limits]\nfailures_per_ip = [\"10000/1m\"]";
    let sidecar = Sidecar::in_front_of(&upstream).config(config).key_file(key_file_of(owners, &keys)).start().await;
    let expected = |way: &str| match way {
        way if way.starts_with("unknown") || ["a pair's key as a token", "no secret"].contains(&way) => "unknown_key",
        way if way.starts_with("revoked") => "revoked",
        way if way.starts_with("malformed") => "malformed",
        "expired" => "expired",
        "owner suspended" => "owner_suspended",
        _ => "wrong_secret",
    };
    for (index, (way, request)) in rows.iter().enumerate() {
        let id = format!("row-{index}");
        assert_eq!(sidecar.send_again(H1, request.clone().field("X-Request-Id", &id)).await.status, 401);
        let line = sidecar.access.object(&id, |line| line["request_id"] == *id && line["status"] == 401).await;
        assert_eq!(line["reason"], expected(way), "{way}: {line}");
    }
    for reason in ["unknown_key", "revoked", "malformed", "expired", "owner_suspended", "wrong_secret"] {
        let count = rows.iter().filter(|(way, _)| expected(way) == reason).count();
        sidecar.counts("keyside_rejections_total", &[("reason", reason)], count as u64).await;
    }
}
