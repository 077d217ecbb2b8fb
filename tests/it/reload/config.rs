//! Configuration and certificate: reloaded all or nothing.

use keyside::keys::secret::{Algorithm, Secret, SecretHash};
use rustix::process::Signal;

use crate::harness::{Authority, H1, H2, Key, Sidecar, Tls, Upstream, Wire, eventually, get, post};

/// The certificate that a new connection is shown.
async fn shown(sidecar: &Sidecar, tls: &Tls) -> Option<Vec<u8>> {
    let stream = tls.connect(sidecar.tcp().await, &["http/1.1"]).await.ok()?;
    Some(stream.get_ref().1.peer_certificates()?.first()?.to_vec())
}

#[tokio::test]
async fn a_reload_puts_the_new_configuration_in_force() {
    let key = Key::pair("key").scopes(["read_write"]);
    let (upstream, other) = (Upstream::start().await, Upstream::start().await);
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    let mut connections = [sidecar.connect(H1).await, sidecar.connect(H2).await];
    for connection in &mut connections {
        assert_eq!(connection.send(&post("/", "").key(&key)).await.status, 200);
    }
    sidecar.reconfigure(&format!(
        "[upstream]\nurl = {:?}\n[policy.methods]\nwrite = [\"PUT\"]\n[errors]\nformat = \"envelope\"",
        other.url()
    ));
    let answer = sidecar.admin("POST", "/-/reload").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    // For connections that were there before, too.
    for connection in &mut connections {
        assert_eq!(connection.send(&get("/").key(&key)).await.status, 200);
        let refused = connection.send(&post("/", "").key(&key)).await;
        assert_eq!(refused.json()["success"], false, "{refused:?}");
        assert!(!refused.field("allow").contains("POST"), "{refused:?}");
    }
    assert_eq!((upstream.count(), other.count()), (2, 2));
    sidecar.measures("keyside_reloads_total", &[("what", "config"), ("result", "ok")], |count| count >= 1.0).await;
    // By the signal it is the same.
    sidecar.reconfigure("[errors]\nformat = \"wordpress\"");
    sidecar.signal(Signal::HUP);
    eventually("the signal", async || {
        let answer = sidecar.ask(get("/")).await;
        if answer.json()["data"]["status"] == 401 { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[tokio::test]
async fn a_bad_configuration_leaves_the_good_one_in_force() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    let good = std::fs::read_to_string(sidecar.path("keyside.toml")).unwrap();
    let rows = [
        ("[[[", "keyside.toml"),
        ("[upstream]\nurl = \"nowhere\"", "url"),
        ("[upstrem]\nurl = \"http://127.0.0.1:1\"", "upstream"),
        ("[limits]\nper_key = [\"often\"]", "per_key"),
    ];
    for (number, (bad, named)) in rows.iter().enumerate() {
        let text = if number == 0 { (*bad).to_owned() } else { good.clone() };
        sidecar.replace("keyside.toml", text);
        if number > 0 {
            sidecar.reconfigure(bad);
        }
        let answer = sidecar.admin("POST", "/-/reload").await;
        assert_eq!(answer.status, 422, "{bad}: {}", answer.text());
        assert!(answer.text().contains(named), "{bad}: {}", answer.text());
        assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
        sidecar.counts("keyside_reloads_total", &[("what", "config"), ("result", "failed")], number as u64 + 1).await;
    }
    sidecar.signal(Signal::HUP);
    sidecar.log.find("why not", |line| (line.contains("ERROR") && line.contains("per_key")).then_some(())).await;
    sidecar.replace("keyside.toml", good);
    assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 200);
}

/// A page in a local browser is no operator.
#[tokio::test]
async fn a_reload_is_not_for_web_pages() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    let host = sidecar.admin_address();
    let rows = [
        (format!("Host: {host}\r\nOrigin: http://evil.example\r\n"), 403),
        ("Host: evil.example\r\n".to_owned(), 403),
        (format!("Host: {host}\r\nSec-Fetch-Site: cross-site\r\n"), 403),
        (format!("Host: {host}\r\n"), 200),
    ];
    for (fields, status) in rows {
        let mut wire = Wire::new(tokio::net::TcpStream::connect(sidecar.admin_address()).await.unwrap());
        wire.write(format!("POST /-/reload HTTP/1.1\r\n{fields}Content-Length: 0\r\n\r\n")).await.unwrap();
        assert_eq!(wire.answer("POST").await.unwrap().status, status, "{fields}");
    }
    assert_eq!(sidecar.admin("GET", "/-/reload").await.status, 405);
}

#[tokio::test]
async fn a_new_certificate_is_shown_without_a_word() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    let mut old = sidecar.connect(H1).await;
    let before = shown(&sidecar, &sidecar.tls()).await.unwrap();

    let issued = sidecar.authority.issue(&["localhost"]);
    sidecar.replace("tls/tls.crt", &issued.certificate);
    sidecar.replace("tls/tls.key", &issued.private_key);
    eventually("the new certificate", async || {
        let now = shown(&sidecar, &sidecar.tls()).await;
        if now.as_deref() == Some(&*issued.der()) { Ok(()) } else { Err(now.map(|now| now.len())) }
    })
    .await;
    assert_ne!(before, issued.der().to_vec());
    // Connections that are open stay so.
    assert_eq!(old.send(&get("/").key(&key)).await.status, 200);
    sidecar.measures("keyside_reloads_total", &[("what", "certificate"), ("result", "ok")], |count| count >= 1.0).await;

    // A key that does not fit, a file that is none: the good one stays, and that is said.
    let stranger = Authority::new().issue(&["localhost"]);
    for bad in [stranger.private_key.as_str(), "no key", ""] {
        sidecar.replace("tls/tls.key", bad);
        assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 422, "{bad:?}");
        assert_eq!(shown(&sidecar, &sidecar.tls()).await.as_deref(), Some(&*issued.der()), "{bad:?}");
    }
    sidecar
        .measures("keyside_reloads_total", &[("what", "certificate"), ("result", "failed")], |count| count >= 1.0)
        .await;
    sidecar.replace("tls/tls.key", &issued.private_key);
    assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 200);
}

/// What cannot change while it runs is named, not ignored, and as long as it waits.
#[tokio::test]
async fn what_needs_a_restart_is_said() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    let rows = [
        ("[listen]\nmax_body = \"1MiB\"", None),
        ("[listen]\nmax_connections = 7", Some("[listen] max_connections")),
        ("[listen.timeouts]\nidle = \"7s\"", Some("[listen.timeouts]")),
        ("[shutdown]\ngrace = \"7s\"", Some("[shutdown]")),
        ("[keys.verification]\nqueue = 7", Some("[keys.verification]")),
        ("[log]\naccess = \"off\"", Some("[log]")),
    ];
    let mut named = Vec::new();
    for (config, name) in rows {
        sidecar.reconfigure(config);
        let answer = sidecar.admin("POST", "/-/reload").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        named.extend(name);
        let text = answer.text();
        let said = text.trim().split_once("only after a restart: ").map_or("", |(_, said)| said);
        assert_eq!(said, named.join(", "), "{config}");
    }
}

/// Whom the listener trusts and whom the request path trusts, and how much each takes, is one thing.
#[tokio::test]
async fn the_listener_and_the_request_path_do_not_part_ways() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    sidecar.reconfigure(
        "[listen]\ntrusted_proxies = [\"127.0.0.0/8\"]\nclient_ip_header = \"X-Real-IP\"\nmax_header_bytes = \"1KiB\"",
    );
    let answer = sidecar.admin("POST", "/-/reload").await;
    let waiting = "[listen] trusted_proxies, [listen] client_ip_header, [listen] max_header_bytes";
    assert!(answer.text().contains(&format!("after a restart: {waiting}")), "{}", answer.text());
    let client = async |sidecar: &Sidecar, id: &str| {
        let request = get("/").key(&key).field("X-Request-Id", id).field("X-Real-IP", "203.0.113.9");
        assert_eq!(sidecar.ask(request).await.status, 200);
        sidecar.logged(id).await["client"].as_str().map(str::to_owned)
    };
    let large = get("/").key(&key).field("X-Large", "x".repeat(2000));
    assert_eq!(sidecar.ask(large.clone()).await.status, 200);
    assert_eq!(client(&sidecar, "before").await.as_deref(), Some("127.0.0.1"));
    let sidecar = sidecar.restart().await;
    assert_eq!(sidecar.ask(large).await.status, 431);
    assert_eq!(client(&sidecar, "after").await.as_deref(), Some("203.0.113.9"));
}

/// A key whose secret is kept as a digest under this pepper.
fn peppered(name: &str, pepper: &str) -> Key {
    let key = Key::pair(name);
    let (secret, pepper) = (Secret::new(key.secret.as_bytes()), Secret::new(pepper.as_bytes()));
    key.hash(SecretHash::make(Algorithm::HmacSha256, &secret, Some(&pepper)).unwrap().as_phc())
}

const PEPPERS: [&str; 2] = ["a pepper made by a machine", "another, by another machine"];

#[tokio::test]
async fn a_new_pepper_comes_with_the_keys_that_are_kept_under_it() {
    let upstream = Upstream::start().await;
    let [old, new] = PEPPERS.map(|pepper| peppered("key", pepper));
    let plain = Key::pair("plain");
    let config = "[keys]\npepper = { file = \"pepper\" }";
    let sidecar = Sidecar::in_front_of(&upstream).config(config).file("pepper", PEPPERS[0]).keys([&old, &plain]);
    let sidecar = sidecar.start().await;
    assert_eq!(sidecar.ask(get("/").key(&old)).await.status, 200);
    sidecar.replace("pepper", PEPPERS[1]);
    sidecar.replace("keys.toml", crate::harness::key_file([&new, &plain]));
    let answer = sidecar.admin("POST", "/-/reload").await;
    assert_eq!((answer.status, answer.text().contains("set aside")), (200, false), "{}", answer.text());
    for key in [&new, &plain] {
        assert_eq!(sidecar.ask(get("/").key(key)).await.status, 200);
    }
    // What is kept under another pepper is no longer accepted, and whoever asked is told.
    sidecar.replace("keys.toml", crate::harness::key_file([&old, &plain]));
    let answer = sidecar.admin("POST", "/-/reload").await;
    assert!(answer.text().contains("entries of keys set aside: 1"), "{}", answer.text());
    assert_eq!(sidecar.ask(get("/").key(&old)).await.status, 401);
    assert_eq!(sidecar.ask(get("/").key(&plain)).await.status, 200);
}

/// All or nothing: with the key file refused, the pepper before stays, also for what the file holds next.
#[tokio::test]
async fn a_refused_key_file_leaves_the_old_pepper() {
    let upstream = Upstream::start().await;
    let (key, other) = (peppered("key", PEPPERS[0]), peppered("other", PEPPERS[0]));
    let config = "[keys]\npepper = { file = \"pepper\" }";
    let sidecar = Sidecar::in_front_of(&upstream).config(config).file("pepper", PEPPERS[0]).keys([&key]).start().await;
    sidecar.replace("pepper", PEPPERS[1]);
    sidecar.replace("keys.toml", "[[");
    assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 422);
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    let reloads = [("what", "keys"), ("result", "ok")];
    let before = sidecar.metrics().await.value("keyside_reloads_total", &reloads);
    sidecar.replace("keys.toml", crate::harness::key_file([&key, &other]));
    sidecar.measures("keyside_reloads_total", &reloads, move |count| count > before).await;
    for key in [&key, &other] {
        assert_eq!(sidecar.ask(get("/").key(key)).await.status, 200);
    }
}
