//! A revoked key is dead when the revoke returns, and stays dead.

use std::time::{Duration, Instant};

use crate::harness::{Answer, Gate, H1, H2, Key, Load, Sidecar, Upstream, get, keyside, keyside_with_input, post};

/// The promise: not one request that began after the command returned passes.
#[tokio::test]
async fn no_request_passes_that_began_after_the_revoke_returned() {
    let upstream = Upstream::start().await;
    let keys: Vec<Key> = (0..3).map(|number| Key::pair(&format!("key-{number}"))).collect();
    let slow = Key::pair("slow").argon2id();
    let sidecar = Sidecar::in_front_of(&upstream)
        .config("[limits]\nfailures_per_ip = []\nper_key = []\nper_ip = []")
        .keys(keys.iter().chain([&slow]))
        .start()
        .await;
    for key in keys.iter().chain([&slow]) {
        assert_eq!(sidecar.send_again(H1, get("/").key(key)).await.status, 200);
        let load = Load::on(&sidecar, &[H1, H1, H2], &get("/").key(key));
        upstream.request(upstream.count() + 20).await;
        let config = sidecar.path("keyside.toml");
        let arguments = ["keys", "revoke", &key.id, "--wait", "--config"].map(std::ffi::OsString::from);
        keyside(arguments.into_iter().chain([config.into_os_string()])).await.done();
        let returned = Instant::now();
        // So many more that began after it.
        let rejected = sidecar.metrics().await.value("keyside_rejections_total", &[("reason", "revoked")]);
        sidecar
            .measures("keyside_rejections_total", &[("reason", "revoked")], move |count| count > rejected + 50.0)
            .await;
        let sent = load.stop().await;
        let before = sent.iter().filter(|sent| sent.ended < returned && sent.result == Ok(200)).count();
        assert!(before > 10, "{}: {before}", key.id);
        let late: Vec<_> = sent.iter().filter(|sent| sent.began > returned && sent.result != Ok(401)).collect();
        assert!(late.is_empty(), "{}: {late:?}", key.id);
        assert!(sent.iter().all(|sent| sent.result == Ok(200) || sent.result == Ok(401)));
    }
}

/// No older file, restart or crash brings a revoked key back.
#[tokio::test]
async fn a_revoked_key_stays_revoked() {
    let (key, other) = (Key::pair("key"), Key::pair("other"));
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key, &other]).start().await;
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    let config = sidecar.path("keyside.toml");
    let revoke = ["keys", "revoke", "key_key", "--wait", "--config", config.to_str().unwrap(), "--output", "json"];
    let first = keyside(revoke).await.done().json();
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 401);
    let older = crate::harness::key_file([&key, &other]);
    let is_dead = async |sidecar: &Sidecar, when: &str| {
        assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 401, "{when}");
        assert_eq!(sidecar.ask(get("/").key(&other)).await.status, 200, "{when}");
    };
    let reloads = [("what", "keys"), ("result", "ok")];
    let before = sidecar.metrics().await.value("keyside_reloads_total", &reloads);
    sidecar.replace("keys.toml", &older);
    sidecar.measures("keyside_reloads_total", &reloads, move |count| count > before).await;
    is_dead(&sidecar, "with the older file").await;
    let revived = "these keys were revoked and stay so";
    sidecar.log.find("the warning", |line| line.contains(revived).then_some(())).await;
    // Its row says that it is active, and whoever looks is told otherwise, with the moment of the first time.
    let listed = keyside(["keys", "list", "--config", config.to_str().unwrap()]).await;
    assert!(listed.stderr.contains("key_key was revoked and stays so"), "{}", listed.stderr);
    assert!(!listed.stderr.contains("key_other"), "{}", listed.stderr);
    for (command, pointer) in [(&["keys", "list"][..], "/0"), (&["keys", "show", "key_key"], "")] {
        let arguments = [command, &["--config", config.to_str().unwrap(), "--output", "json"]].concat();
        let said = keyside(arguments).await.done().json();
        let told = |field: &str| said.pointer(&format!("{pointer}/{field}")).cloned();
        assert_eq!((told("status"), told("revoked_at")), (Some("revoked".into()), Some(first["revoked_at"].clone())));
    }
    let arguments = ["keys", "identify", "--config", config.to_str().unwrap(), "--output", "json"];
    let identified = keyside_with_input(arguments, &key.public).await.done().json();
    assert_eq!((&identified["key"], &identified["status"]), (&"key_key".into(), &"revoked".into()), "{identified}");
    let explained = keyside(["explain", "--key", "key_key", "--config", config.to_str().unwrap()]).await.done();
    let moment = format!("revoked {}", first["revoked_at"].as_str().unwrap());
    assert!(explained.stdout.contains(&moment), "{moment}: {}", explained.stdout);
    let checked = keyside(["check", "--config", config.to_str().unwrap(), "--output", "json"]).await.done().json();
    let warned = checked["faults"].as_array().unwrap().iter().find(|fault| {
        fault["message"].as_str().is_some_and(|message| message.contains("key_key was revoked and stays so"))
    });
    assert_eq!(warned.map(|fault| &fault["source_line"]), Some(&"id = \"key_key\"".into()), "{checked}");
    assert_eq!(keyside(["keys", "rotate", "key_key", "--config", config.to_str().unwrap()]).await.status, 1);

    let sidecar = sidecar.restart().await;
    is_dead(&sidecar, "after a restart").await;
    let sidecar = sidecar.crash_and_restart().await;
    is_dead(&sidecar, "after a crash").await;
    // Revoked once more, its row says the first moment again.
    let again = keyside(revoke).await.done().json();
    assert_eq!((&again["revoked_at"], &again["already_revoked"]), (&first["revoked_at"], &true.into()), "{again}");
    let text = std::fs::read_to_string(config.with_file_name("keys.toml")).unwrap();
    assert!(text.contains(&format!("revoked_at = {}", first["revoked_at"].as_str().unwrap())), "{text}");
}

/// A revocation that is told for the second time keeps its first moment, also in an entry that is wrong otherwise.
#[tokio::test]
async fn the_first_moment_of_a_revocation_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let key = Key::pair("key").with("revoked_at = 2026-01-02T00:00:00Z\nallow_ips = [\"everywhere\"]");
    std::fs::write(&file, crate::harness::key_file([&key])).unwrap();
    let revoke = ["keys", "revoke", "key_key", "--file", file.to_str().unwrap()];
    let said = keyside(revoke).await.done();
    assert!(said.stderr.contains("was revoked before, at 2026-01-02T00:00:00Z"), "{}", said.stderr);
    assert!(std::fs::read_to_string(&file).unwrap().contains("revoked_at = 2026-01-02T00:00:00Z"));
}

/// How fast revocations take effect is measured by revocations alone: other changes may wait, and would hide a slow one.
#[tokio::test]
async fn only_what_cuts_a_key_off_is_measured_as_a_revocation() {
    let (key, other) = (Key::pair("key"), Key::pair("other"));
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    let reloads = [("what", "keys"), ("result", "ok")];
    let revoked = key.clone().with("revoked_at = 2026-01-02T00:00:00Z");
    let versions: [(&[&Key], f64); 4] =
        [(&[&key, &other], 0.0), (&[&revoked, &other], 1.0), (&[&revoked], 2.0), (&[], 2.0)];
    for (keys, expected) in versions {
        let before = sidecar.metrics().await.value("keyside_reloads_total", &reloads);
        sidecar.replace("keys.toml", crate::harness::key_file(keys.iter().copied()));
        sidecar.measures("keyside_reloads_total", &reloads, move |count| count > before).await;
        let measured = sidecar.metrics().await.value("keyside_revocation_latency_seconds_count", &[]);
        assert_eq!(measured, expected, "{keys:?}");
    }
}

/// A crash right after the command returned loses nothing of it.
#[tokio::test]
async fn a_revocation_that_was_acknowledged_survives_a_crash() {
    let key = Key::pair("key");
    let older = crate::harness::key_file([&key]);
    let upstream = Upstream::start().await;
    for _ in 0..3 {
        let sidecar = Sidecar::in_front_of(&upstream).key_file(&older).start().await;
        assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
        let config = sidecar.path("keyside.toml");
        keyside(["keys", "revoke", "key_key", "--wait", "--config", config.to_str().unwrap()]).await.done();
        sidecar.replace("keys.toml", &older);
        let sidecar = sidecar.crash_and_restart().await;
        assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 401);
    }
}

/// What is under way when the key dies may finish, or is cut, as configured.
#[tokio::test]
async fn requests_in_flight_finish_or_are_cut() {
    for (setting, whole) in [("finish", true), ("cut", false)] {
        let key = Key::pair("key").scopes(["read_write"]);
        let upstream = Upstream::start().await;
        let gate = Gate::new();
        upstream.on("/slow", Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").then(&gate, "whole"));
        let config = format!("[keys]\non_revoke = {setting:?}");
        let sidecar = Sidecar::in_front_of(&upstream).config(&config).keys([&key]).start().await;
        let mut waiting = Vec::new();
        for version in [H1, H2] {
            let (mut connection, request) = (sidecar.connect(version).await, get("/slow").key(&key));
            waiting.push(tokio::spawn(async move { connection.try_send(&request).await }));
        }
        upstream.request(2).await;
        let began = Instant::now();
        let path = sidecar.path("keyside.toml");
        keyside(["keys", "revoke", "key_key", "--wait", "--config", path.to_str().unwrap()]).await.done();
        if whole {
            gate.open();
        }
        for answer in waiting {
            let answer = answer.await.unwrap();
            let got = answer.as_ref().is_ok_and(|answer| answer.broken.is_none() && answer.text() == "halfwhole");
            assert_eq!(got, whole, "{setting}: {answer:?}");
        }
        if !whole {
            assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        }
        assert_eq!(sidecar.ask(post("/", "").key(&key)).await.status, 401);
    }
}

/// An owner that is suspended takes all of its keys along, and brings them back.
#[tokio::test]
async fn a_suspended_owner_stops_and_returns() {
    let keys = [Key::pair("one").owner("acme"), Key::token("two").owner("acme")];
    let other = Key::pair("other").owner("else");
    let upstream = Upstream::start().await;
    let owners = "[[owner]]\nid = \"acme\"\n[[owner]]\nid = \"else\"\n";
    let file = crate::harness::key_file_of(owners, keys.iter().chain([&other]));
    let sidecar = Sidecar::in_front_of(&upstream).key_file(file).start().await;
    let path = sidecar.path("keys.toml");
    for (state, expected) in [("active", 200), ("suspended", 401), ("active", 200)] {
        if state == "suspended" {
            keyside(["owners", "suspend", "acme", "--file", path.to_str().unwrap()]).await.done();
        } else if expected == 200 && sidecar.ask(get("/").key(&keys[0])).await.status == 401 {
            keyside(["owners", "suspend", "acme", "--lift", "--file", path.to_str().unwrap()]).await.done();
        }
        crate::harness::eventually("the owner's state", async || {
            let status = sidecar.ask(get("/").key(&keys[0])).await.status;
            if status == expected { Ok(()) } else { Err(status) }
        })
        .await;
        assert_eq!(sidecar.ask(get("/").key(&keys[1])).await.status, expected);
        assert_eq!(sidecar.ask(get("/").key(&other)).await.status, 200);
    }
}
