//! The access log: one line a request. Whatever becomes of its reader, no request waits for it.

use std::time::{Duration, Instant};

use crate::harness::{H1, H2, Key, Sidecar, Upstream, get, post};

#[tokio::test]
async fn one_line_tells_of_one_request() {
    let key = Key::pair("key").owner("acme").scopes(["read_write"]);
    let upstream = Upstream::start().await;
    let config = "[[route]]\npath = \"/v1/things/**\"";
    let sidecar = Sidecar::in_front_of(&upstream).config(config).keys([&key]).start().await;
    for (version, name) in [(H1, "1.1"), (H2, "2")] {
        let request = post("/v1/things/7?secret=1", "12345").key(&key).field("X-Request-Id", name);
        assert_eq!(sidecar.send(version, request).await.status, 200);
        let line = sidecar.logged(name).await;
        let expected = serde_json::json!({
            "request_id": name, "client": "127.0.0.1", "method": "POST", "host": "api.example.com",
            "path": "/v1/things/7", "http_version": name, "tls": true, "status": 200, "outcome": "allowed",
            "key_id": "key_key", "owner": "acme", "bytes_in": 5, "bytes_out": 3,
        });
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&line[field], value, "{field}: {line}");
        }
        assert!(line["route"].as_str().is_some_and(|route| route.contains("/v1/things/**")), "{line}");
        for field in ["duration_ms", "upstream_duration_ms"] {
            assert!(line[field].as_f64().is_some_and(|millis| millis > 0.0), "{field}: {line}");
        }
        assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        assert!(!line.to_string().contains("secret"), "{line}");

        let refused = format!("refused-{name}");
        let request = get("/elsewhere").key(&key).field("X-Request-Id", &refused);
        assert_eq!(sidecar.send(version, request).await.status, 403);
        let line = sidecar.logged(&refused).await;
        let expected = serde_json::json!({
            "status": 403, "outcome": "refused", "reason": "route_not_allowed", "key_id": "key_key", "path": "/elsewhere",
        });
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&line[field], value, "{field}: {line}");
        }
        assert!(line.get("upstream_duration_ms").is_none() && line.get("route").is_none(), "{line}");
    }
    sidecar.access.until(4).await;
    assert_eq!(sidecar.access.all().len(), 4);
}

/// A form that was read to be judged is counted like a body that only passes.
#[tokio::test]
async fn the_bytes_of_a_judged_form_are_told() {
    let key = Key::pair("key").scopes(["read_write"]);
    let upstream = Upstream::start().await;
    let config = "[policy]\neffective_path_parameter = \"rest_route\"";
    let sidecar = Sidecar::in_front_of(&upstream).config(config).keys([&key]).start().await;
    for version in [H1, H2] {
        let form = post("/", "a=1&b=2").key(&key).field("Content-Type", "application/x-www-form-urlencoded");
        let answer = sidecar.send(version, form).await;
        let line = sidecar.logged(answer.field("x-request-id")).await;
        assert_eq!((&line["status"], &line["bytes_in"]), (&200.into(), &7.into()), "{line}");
    }
}

/// What a caller writes cannot look like another line, nor play with the terminal.
#[tokio::test]
async fn hostile_text_is_only_text() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    for format in ["json", "text"] {
        let config = format!("[log]\nformat = {format:?}");
        let sidecar = Sidecar::in_front_of_url(upstream.url()).config(&config).keys([&key]);
        // The text form is for reading: the harness finds the ports in the JSON form alone.
        let Some(sidecar) = (format == "json").then_some(sidecar) else { continue };
        let sidecar = sidecar.start().await;
        let hostile = [
            "GET /\u{1b}[2J HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "GET /%0a%1b%22,%22outcome%22:%22allowed HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "GET /\" HTTP/1.1\r\nHost: a\"\\\r\n\r\n".to_owned(),
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(7000)),
            "EV\u{1b}IL / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        ];
        for bytes in &hostile {
            let mut wire = sidecar.wire().await;
            wire.write(bytes).await.unwrap();
            wire.shutdown().await.unwrap();
            wire.rest().await;
        }
        let marked = get("/").field("X-Request-Id", "the-last");
        sidecar.ask(marked).await;
        sidecar.logged("the-last").await;
        for line in sidecar.access.all() {
            let object: serde_json::Value =
                serde_json::from_str(&line).unwrap_or_else(|fault| panic!("{fault}: {line}"));
            assert_ne!(object["outcome"], "allowed", "{line}");
            assert!(!line.contains('\u{1b}') && line.len() < 8000, "{line}");
        }
    }
}

#[tokio::test]
async fn lines_are_written_for_all_refused_or_none() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    for (setting, allowed, refused) in [("all", true, true), ("refused", false, true), ("off", false, false)] {
        let config = format!("[log]\naccess = {setting:?}");
        let sidecar = Sidecar::in_front_of(&upstream).config(&config).keys([&key]).start().await;
        assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
        assert_eq!(sidecar.ask(get("/")).await.status, 401);
        sidecar.signal(rustix::process::Signal::TERM);
        assert_eq!(sidecar.ended().await, 0);
        let lines = sidecar.access.all();
        let with = |status: &str| lines.iter().any(|line| line.contains(status));
        assert_eq!((with("\"status\":200"), with("\"status\":401")), (allowed, refused), "{setting}: {lines:?}");
    }
}

/// A reader that sleeps, or is gone: requests go on, and the lines that were lost are counted.
#[tokio::test]
async fn a_log_that_nobody_reads_stalls_nobody() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let padding = format!("/{}", "x".repeat(1500));
    for blocked in [true, false] {
        let sidecar = Sidecar::in_front_of(&upstream).keys([&key]);
        let sidecar = if blocked { sidecar.with_blocked_access_log() } else { sidecar.with_closed_access_log() };
        let sidecar = sidecar.start().await;
        let mut connection = sidecar.connect(H1).await;
        let mut slowest = Duration::ZERO;
        for _ in 0..if blocked { 3000 } else { 50 } {
            let began = Instant::now();
            assert_eq!(connection.send(&get(&padding).key(&key)).await.status, 200);
            slowest = slowest.max(began.elapsed());
        }
        assert!(slowest < Duration::from_secs(3), "{slowest:?}");
        sidecar.measures("keyside_log_lines_dropped_total", &[], |count| count >= 1.0).await;
        // It goes when it is told to all the same.
        sidecar.signal(rustix::process::Signal::TERM);
        assert_eq!(sidecar.ended().await, 0);
    }
}
