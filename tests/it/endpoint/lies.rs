//! What an endpoint says that lies, breaks or is somebody else: it is not believed, it is said, and it costs nothing but
//! time.

use std::time::Duration;

use futures_util::future::join_all;

use super::{answers, check, readyz, readyz_says, sidecar};
use crate::harness::{Authority, Control, Key, Lie, NDJSON, Upstream, answer, eventually};

const KEYS: &str = "/sync/v1/keys";
const CHANGES: &str = "/sync/v1/changes";

/// A sidecar whose endpoint begins to say this, instead of its set or its changes; what `/readyz` says of it.
async fn lied_to(upstream: &Upstream, at: &'static str, lie: Lie, words: &str) {
    let (key, gone) = (Key::pair("one"), Key::pair("gone"));
    let control = Control::start().await;
    control.put_all([&key, &gone]);
    let sidecar = sidecar(upstream, &control).start().await;
    let revision = control.revoke(&gone);
    control.acknowledged(revision).await;
    let memory = sidecar.resident_bytes();
    control.stop().await;
    if at == KEYS {
        control.lie(CHANGES, Lie::Say(answer(410, "", "")));
    }
    control.lie(at, lie.clone());
    control.restart().await;
    readyz_says(&sidecar, 200, words).await;
    check(&sidecar, &key, 200).await;
    check(&sidecar, &gone, 401).await;
    let grown = sidecar.resident_bytes().saturating_sub(memory);
    assert!(grown < 64 << 20, "{grown} bytes more after {words}");
    // Once it speaks the truth it is believed.
    control.be_honest();
    let new = Key::pair("new");
    control.put(&new);
    answers(&sidecar, &new, 200).await;
    check(&sidecar, &gone, 401).await;
    eventually("no trouble", async || {
        let (status, text) = readyz(&sidecar).await;
        if status == 200 && !text.contains("[!]") { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lying_endpoint_is_not_believed() {
    let upstream = Upstream::start().await;
    let body = |status, fields: &str, body: &str| Lie::Say(answer(status, fields, body));
    let row = Key::pair("revived").json();
    let head = "{\"epoch\":\"first\",\"revision\":9,\"digest\":\"\"}\n";
    let whole = |lines: &str| body(200, NDJSON, &format!("{head}{lines}"));
    let open = format!("HTTP/1.1 200 OK\r\n{NDJSON}\r\n");
    let elsewhere = "Location: http://169.254.169.254/latest\r\n";
    let cases: Vec<(&'static str, Lie, &str)> = vec![
        (CHANGES, body(500, "", "oh"), "status 500"),
        (CHANGES, body(401, "", ""), "does not accept our token"),
        (CHANGES, body(307, elsewhere, ""), "a redirect to http://169.254.169.254/latest, which is not followed"),
        (CHANGES, body(200, "Content-Type: text/html\r\n", "<html>"), "no application/x-ndjson"),
        (CHANGES, body(304, "", ""), "status 304"),
        (CHANGES, body(200, NDJSON, "{\"heartbeat\":1}\n"), "its newest revision is 1, and 3 is in force"),
        (CHANGES, body(200, NDJSON, "{\"revision\":4,\"dig\n"), "no JSON object"),
        (KEYS, body(200, "Content-Type: text/html\r\n", "<html>"), "no application/x-ndjson"),
        (KEYS, body(200, NDJSON, ""), "torn"),
        (KEYS, whole(&format!("{{\"key\":{row}}}\n")), "the last line is missing"),
        (KEYS, whole("{\"end\":true,\"owners\":0,\"keys\":2}\n"), "the end says 0 owners and 2 keys"),
        (KEYS, whole("{\"owner\":{\"name\":\"nobody\"}}\n"), "an owner whose id cannot be read"),
        (KEYS, Lie::Endless(open.clone().into_bytes(), vec![b'x'; 64 << 10]), "a line is larger than"),
        (KEYS, Lie::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X: yyyyyyyyyyyyyyyyyy\r\n".to_vec()), "spoke no HTTP"),
        (KEYS, Lie::Drip(format!("{open}{head}").into_bytes(), Duration::from_secs(1)), "took too long"),
    ];
    join_all(cases.into_iter().map(|(at, lie, words)| lied_to(&upstream, at, lie, words))).await;
}

/// What was in force is never taken back, not even in its own history.
#[tokio::test]
async fn an_older_or_another_history_of_the_same_epoch_is_not_taken() {
    let (key, gone) = (Key::pair("one"), Key::pair("gone"));
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    control.put_all([&key, &gone]);
    let sidecar = sidecar(&upstream, &control).start().await;
    let revision = control.commit([serde_json::json!({"deleted_key": gone.id})]);
    control.acknowledged(revision).await;
    for (older, salt, words) in [
        (revision - 1, "", format!("its set has revision {}, and {revision} is in force", revision - 1)),
        (revision, "other", format!("its set of revision {revision} has another history")),
    ] {
        control.stop().await;
        control.rewrite(|keys| {
            keys.insert(gone.id.clone(), gone.json());
        });
        control.set_history("first", older, salt);
        control.restart().await;
        readyz_says(&sidecar, 200, &words).await;
        check(&sidecar, &key, 200).await;
        check(&sidecar, &gone, 401).await;
        sidecar.measures("keyside_reloads_total", &[("what", "keys"), ("result", "failed")], |count| count > 0.0).await;
    }
    // It goes on, and is believed again.
    control.set_history("first", revision + 1, "");
    answers(&sidecar, &gone, 200).await;
}

#[tokio::test]
async fn the_certificate_of_the_endpoint_is_checked() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let key = Key::pair("one");
    let upstream = Upstream::start().await;
    let ca = "[keys.control]\nca = \"control-ca.crt\"";
    let good = Control::start_tls(&ours.issue(&["localhost"])).await;
    good.put(&key);
    let sidecar_of = |control: &Control| sidecar(&upstream, control).config(ca).file("control-ca.crt", ours.pem());
    let trusting = sidecar_of(&good).start().await;
    check(&trusting, &key, 200).await;
    for issued in [theirs.issue(&["localhost"]), ours.issue(&["elsewhere"]), ours.issue_for(&["localhost"], 1975, 2000)]
    {
        let bad = Control::start_tls(&issued).await;
        bad.put(&key);
        let doubting = sidecar_of(&bad).ready_or_not().start().await;
        readyz_says(&doubting, 503, "no TLS with localhost").await;
        check(&doubting, &key, 503).await;
        assert!(bad.asked().is_empty(), "the token was shown to a stranger");
    }
}

/// A token that counts no more stops nothing at once; a reload takes the new one, and not a wrong one.
#[tokio::test]
async fn a_new_token_is_taken_by_a_reload_and_a_wrong_one_is_not() {
    let (key, new) = (Key::pair("one"), Key::pair("new"));
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    control.put(&key);
    let sidecar = sidecar(&upstream, &control).start().await;
    std::fs::write(sidecar.path("control-token"), "a-wrong-token").unwrap();
    let answer = sidecar.admin("POST", "/-/reload").await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(answer.text().contains("does not accept our token"), "{}", answer.text());
    // The connection with the good one goes on.
    let revision = control.put(&new);
    control.acknowledged(revision).await;
    check(&sidecar, &new, 200).await;

    std::fs::write(sidecar.path("control-token"), "the-next-token\n").unwrap();
    control.stop().await;
    control.set_token("the-next-token");
    control.restart().await;
    readyz_says(&sidecar, 200, "does not accept our token").await;
    check(&sidecar, &key, 200).await;
    assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 200);
    let revision = control.revoke(&key);
    control.acknowledged(revision).await;
    check(&sidecar, &key, 401).await;
    let printed = sidecar.printed();
    for secret in [crate::harness::TOKEN, "a-wrong-token", "the-next-token"] {
        assert!(!printed.contains(secret), "a token was printed");
    }
}
