//! The admin port and the port for probes.

use keyside::rejection::TABLE;

use crate::harness::{H1, H2, Key, Sidecar, Upstream, Wire, get};

#[tokio::test]
async fn the_admin_port_answers_what_an_operator_asks() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar =
        Sidecar::in_front_of(&upstream).config("[admin]\nprobes = \"127.0.0.1:0\"").keys([&key]).start().await;
    let rows = [
        ("GET", "/livez", 200, "ok\n"),
        ("GET", "/readyz", 200, "ok\n"),
        ("GET", "/healthz", 200, "ok\n"),
        ("HEAD", "/livez", 200, ""),
        ("GET", "/nothing", 404, ""),
        ("GET", "/", 404, ""),
        ("POST", "/metrics", 405, ""),
        ("DELETE", "/readyz", 405, ""),
    ];
    for (method, path, status, body) in rows {
        let answer = sidecar.admin(method, path).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert!(body.is_empty() || answer.text() == body, "{method} {path}: {answer:?}");
    }
    let verbose = sidecar.admin("GET", "/readyz?verbose").await.text();
    assert!(verbose.contains("[+]keys ok\n") && verbose.contains("[+]listening ok\n"), "{verbose}");
    let alive = sidecar.admin("GET", "/livez?verbose").await.text();
    assert!(alive.lines().filter(|line| line.starts_with("[+]")).count() > 1, "{alive}");
    let version = sidecar.admin("GET", "/version").await.json();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"), "{version}");

    // The port for probes has probes and nothing else.
    for (path, status) in [("/livez", 200), ("/readyz", 200), ("/metrics", 404), ("/version", 404), ("/-/reload", 404)]
    {
        let mut wire = Wire::new(tokio::net::TcpStream::connect(sidecar.probes_address()).await.unwrap());
        wire.write(format!("GET {path} HTTP/1.1\r\nHost: probe\r\n\r\n")).await.unwrap();
        assert_eq!(wire.answer("GET").await.unwrap().status, status, "{path}");
    }
}

/// Every metric that the manual names is there, from the beginning.
#[tokio::test]
async fn every_metric_is_exported_from_the_start() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    let metrics = sidecar.metrics().await;
    let rows: [(&str, &[&str]); 28] = [
        (
            "requests_total",
            &["outcome=\"allowed\"", "outcome=\"refused\"", "outcome=\"observed\"", "outcome=\"failed\""],
        ),
        ("rejections_total", &[]),
        ("observed_rejections_total", &[]),
        ("upstream_failures_total", &[]),
        ("request_duration_seconds_bucket", &["le=\"+Inf\""]),
        ("upstream_duration_seconds_bucket", &["le=\"+Inf\""]),
        ("connections", &[]),
        ("connections_refused_total", &[]),
        ("tls_handshakes_total", &[]),
        (
            "verifications_total",
            &["path=\"cached\"", "path=\"argon2id\"", "path=\"hmac\"", "path=\"bcrypt\"", "path=\"decoy\""],
        ),
        ("verification_queue", &[]),
        ("keys", &["status=\"active\""]),
        ("sync_last_success_timestamp_seconds", &[]),
        ("sync_revision", &[]),
        ("revocation_latency_seconds_bucket", &[]),
        ("reloads_total", &["what=\"keys\"", "what=\"config\"", "what=\"certificate\""]),
        ("quarantined_entries", &[]),
        ("state_usable", &[]),
        ("limiter_entries", &[]),
        ("limit_near_total", &[]),
        ("client_ip_source_total", &["source=\"peer\""]),
        ("untrusted_forwarded_total", &[]),
        ("tls_certificate_expiry_timestamp_seconds", &[]),
        ("key_requests_total", &["key=\"other\""]),
        ("log_lines_dropped_total", &[]),
        ("build_info", &["version="]),
        ("request_duration_seconds_count", &[]),
        ("upstream_duration_seconds_sum", &[]),
    ];
    for (name, labels) in rows {
        let name = format!("keyside_{name}");
        let series: Vec<&str> =
            metrics.series().map(|(series, _)| series).filter(|s| s.split('{').next() == Some(&name)).collect();
        assert!(!series.is_empty(), "{name} is not there:\n{}", metrics.text());
        for label in labels {
            assert!(series.iter().any(|series| series.contains(label)), "{name} has no {label}: {series:?}");
        }
    }
    for row in TABLE {
        let name =
            if row.reason.is_upstream() { "keyside_upstream_failures_total" } else { "keyside_rejections_total" };
        assert_eq!(metrics.value(name, &[("reason", row.label)]), 0.0, "{}", row.label);
    }
    assert!(metrics.get("process_resident_memory_bytes", &[]).is_some_and(|bytes| bytes > 0.0));
    assert!(metrics.get("process_open_fds", &[]).is_some_and(|count| count > 0.0));
    // Each family says what it is, once.
    let helps: Vec<&str> = metrics.text().lines().filter(|line| line.starts_with("# HELP ")).collect();
    let mut names: Vec<&str> = helps.iter().filter_map(|line| line.split(' ').nth(2)).collect();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// Label values come from closed lists or from the key set, never from what a caller sends.
#[tokio::test]
async fn no_caller_makes_a_series() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).config("[limits]\nfailures_per_ip = []").keys([&key]).start().await;
    // A key gets its series once it was seen, and the series begins there.
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    sidecar.counts("keyside_key_requests_total", &[("key", "key_key"), ("outcome", "allowed")], 0).await;
    for version in [H1, H2] {
        assert_eq!(sidecar.send(version, get("/").key(&key)).await.status, 200);
    }
    sidecar.counts("keyside_key_requests_total", &[("key", "key_key"), ("outcome", "allowed")], 2).await;
    let before = sidecar.metrics().await.series().count();
    let mut connection = sidecar.connect(H1).await;
    for number in 0..200 {
        let request = get(&format!("/path-{number}"))
            .basic(&format!("ck_{number}"), "cs_wrong")
            .host(&format!("host-{number}.example"))
            .field("User-Agent", format!("agent-{number}"));
        assert_eq!(connection.send(&request).await.status, 401);
    }
    let metrics = sidecar.metrics().await;
    assert_eq!(metrics.series().count(), before);
    for word in ["path-", "ck_1", "host-", "agent-"] {
        assert!(!metrics.text().contains(word), "{word}");
    }
}

/// The two durations differ by what Keyside itself cost; both count every request.
#[tokio::test]
async fn durations_count_every_request() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let slow = crate::harness::Answer::ok("ok").after(std::time::Duration::from_millis(300));
    upstream.on("/slow", slow);
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    assert_eq!(sidecar.ask(get("/slow").key(&key)).await.status, 200);
    assert_eq!(sidecar.ask(get("/slow")).await.status, 401);
    sidecar.counts("keyside_request_duration_seconds_count", &[], 2).await;
    let metrics = sidecar.metrics().await;
    assert_eq!(metrics.value("keyside_upstream_duration_seconds_count", &[]), 1.0);
    let upstream = metrics.value("keyside_upstream_duration_seconds_sum", &[]);
    let all = metrics.value("keyside_request_duration_seconds_sum", &[]);
    assert!(upstream >= 0.3 && all >= upstream && all < upstream + 5.0, "{all} {upstream}");
}

/// `keyside health` is for images that hold no curl.
#[tokio::test]
async fn health_asks_the_admin_port() {
    use crate::harness::keyside;
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    let address = sidecar.admin_address().to_string();
    assert_eq!(keyside(["health", "--admin", &address]).await.status, 0);
    assert_eq!(keyside(["health", "--live", "--admin", &address]).await.status, 0);
    drop(sidecar);
    let ended = keyside(["health", "--admin", &address]).await;
    assert_eq!((ended.status, ended.stderr.is_empty()), (1, false), "{ended:?}");

    let bare = Sidecar::in_front_of(&upstream).ready_or_not().start().await;
    let address = bare.admin_address().to_string();
    let ended = keyside(["health", "--admin", &address]).await;
    assert_eq!(ended.status, 1, "{ended:?}");
    assert!(ended.stderr.contains("keys") || ended.stdout.contains("keys"), "{ended:?}");
    assert_eq!(keyside(["health", "--live", "--admin", &address]).await.status, 0);
    // And once there are keys, it is ready by itself.
    bare.replace_keys([&key]);
    bare.ready().await;
    assert_eq!(keyside(["health", "--admin", &address]).await.status, 0);
}
