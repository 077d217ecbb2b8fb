//! No secret leaves: not in a log at any level, a metric, a state file, an error, nor the process list.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::harness::{H1, H2, Key, Sidecar, Upstream, get, keyside, keyside_with_input, post};

/// Every file below a folder, with its content.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push((path.display().to_string(), fs::read(&path).unwrap_or_default()));
        }
    }
    all
}

fn contains(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

#[tokio::test]
async fn no_secret_is_in_anything_that_is_written() {
    let (pair, token, slow) = (Key::pair("pair"), Key::token("token"), Key::pair("slow").argon2id());
    let writer = Key::pair("writer").scopes(["write"]);
    let upstream = Upstream::start().await;
    let config = r#"
        [credentials]
        header = "X-API-Key"
        query = { key = "consumer_key", secret = "consumer_secret" }
        [upstream]
        authorization = { file = "upstream-secret" }
        [keys]
        pepper = { file = "pepper" }
        [limits]
        failures_per_ip = ["1000/1m"]
        per_key = ["1000/1d"]
    "#;
    let sidecar = Sidecar::in_front_of(&upstream)
        .config(config)
        .file("upstream-secret", "Bearer s3cr3t-of-the-upstream")
        .file("pepper", "a-pepper-that-nobody-should-ever-see")
        .environment("RUST_LOG", "trace,h2=trace,hyper=trace,rustls=trace")
        .environment("SSLKEYLOGFILE", "/nonexistent/keylog")
        .environment("HTTP_PROXY", "http://127.0.0.1:1")
        .keys([&pair, &token, &slow, &writer])
        .start()
        .await;
    let wrong = "cs_a-secret-that-somebody-mistyped";
    let query = |secret: &str| format!("/q?consumer_key={}&consumer_secret={secret}", pair.public);
    let requests = [
        get("/").key(&pair),
        get("/").key(&token),
        get("/").key(&slow),
        get("/").field("X-API-Key", &token.secret),
        get("/").basic(&token.secret, ""),
        get(&query(&pair.secret)),
        get(&query(wrong)),
        get("/").basic(&pair.public, wrong),
        get("/").basic(&slow.public, wrong),
        get("/").basic(&pair.public, &format!("{} ", pair.secret)),
        get("/").bearer(&format!("{}x", token.secret)),
        get("/").field("Authorization", format!("Basic {}:{}", pair.public, pair.secret)),
        get("/").field("Authorization", format!("Bearer {} {}", token.secret, token.secret)),
        get("/").key(&pair).field("X-API-Key", &token.secret),
        get(&format!("/a//b?consumer_secret={}", pair.secret)).key(&pair),
        post("/", &pair.secret).key(&writer),
        get("/").key(&pair).field("Cookie", "session=cookie-value-to-keep"),
    ];
    for request in requests {
        for version in [H1, H2] {
            sidecar.send(version, request.clone()).await;
        }
    }
    // A path is no place for a secret, and one that stands there all the same is a path.
    sidecar.replace("keys.toml", fs::read_to_string(sidecar.path("keys.toml")).unwrap() + "[[key]]\nbad");
    assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 422);
    assert!(upstream.seen().iter().any(|seen| seen.field("authorization").contains("s3cr3t")));

    let metrics = sidecar.metrics().await.text().to_owned();
    let proc = |name: &str| fs::read(format!("/proc/{}/{name}", sidecar.id())).unwrap_or_default();
    let (command, environment) = (proc("cmdline"), proc("environ"));
    let folder = sidecar.path("");
    sidecar.signal(rustix::process::Signal::TERM);
    assert_eq!(sidecar.ended().await, 0);
    let mut places = vec![
        ("what it printed".to_owned(), sidecar.printed().into_bytes()),
        ("metrics".into(), metrics.into_bytes()),
        ("the process list".into(), command),
        ("the environment".into(), environment),
    ];
    let given = ["upstream-secret", "pepper"];
    places.extend(files(&folder).into_iter().filter(|(path, _)| !given.iter().any(|name| path.ends_with(name))));
    assert!(places.iter().any(|(place, _)| place.contains("/state/")), "nothing in the state folder");

    let mut secrets = vec![
        wrong.to_owned(),
        "s3cr3t-of-the-upstream".into(),
        "a-pepper-that-nobody-should".into(),
        "cookie-value-to-keep".into(),
    ];
    for key in [&pair, &token, &slow, &writer] {
        secrets.push(key.secret.clone());
        secrets.push(STANDARD.encode(format!("{}:{}", key.public, key.secret)));
        secrets.push(STANDARD.encode(format!("{}:", key.secret)));
        secrets.push(crate::harness::hex(key.secret.as_bytes()));
    }
    for (place, bytes) in &places {
        for secret in &secrets {
            assert!(!contains(bytes, secret), "{secret} is in {place}");
        }
    }
    // The log says much at that level, but of itself alone.
    assert!(sidecar.log.all().len() > 5);
}

/// Nor does a command show one beyond the moment of minting.
#[tokio::test]
async fn commands_show_a_secret_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let file = file.to_str().unwrap();
    let create =
        ["keys", "create", "--file", file, "--name", "one", "--owner", "acme", "--scope", "read", "--output", "json"];
    let created = keyside(create).await.done();
    let secret = created.json()["consumer_secret"].as_str().unwrap().to_owned();
    assert!(!created.stderr.contains(&secret), "{}", created.stderr);
    for arguments in [vec!["keys", "list"], vec!["keys", "show", "one"], vec!["keys", "list", "--output", "json"]] {
        let ended = keyside(arguments.iter().copied().chain(["--file", file])).await.done();
        let text = ended.stdout + &ended.stderr;
        assert!(!text.contains(&secret) && !text.contains("$argon2id$"), "{arguments:?}: {text}");
    }
    let ended = keyside_with_input(["keys", "identify", "--file", file], &secret).await;
    assert!(!(ended.stdout + &ended.stderr).contains(&secret));
    assert!(!fs::read_to_string(file).unwrap().contains(&secret));
}

/// A crash leaves no image of the memory behind.
#[tokio::test]
async fn there_are_no_core_dumps() {
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&Key::pair("key")]).start().await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", sidecar.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(line.split_whitespace().nth(4), Some("0"), "{line}");
}
