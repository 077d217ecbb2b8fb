//! `explain`: every step of the decision and the verdict, without the secret. It must agree with what happens.

use serde_json::{Value, json};

use super::Desk;
use crate::harness::{Key, Sidecar, Upstream, get, key_file, keyside, request};

#[tokio::test]
async fn explain_agrees_with_what_happens() {
    let reader = Key::pair("reader");
    let away = Key::pair("away").with("allow_ips = [\"203.0.113.42\"]");
    let revoked = Key::pair("revoked").with("revoked_at = 2026-01-02T00:00:00Z");
    let upstream = Upstream::start().await;
    let config = r#"
        [[route]]
        path = "/things/**"
        methods = ["GET"]
        scope = "read"
        [[route]]
        path = "/things/**"
        scope = "write"
        [[route]]
        path = "/admin"
        capability = "manage"
    "#;
    let sidecar = Sidecar::in_front_of(&upstream).config(config).keys([&reader, &away, &revoked]).start().await;
    let path = sidecar.path("keyside.toml");
    let rows = [
        (&reader, "GET", "/things/7", "allowed"),
        (&reader, "POST", "/things", "insufficient_scope"),
        (&reader, "GET", "/things?_method=POST", "insufficient_scope"),
        (&reader, "GET", "/elsewhere", "route_not_allowed"),
        (&reader, "GET", "/admin", "permission_denied"),
        (&reader, "GET", "/things/../admin", "bad_request"),
        (&away, "GET", "/things", "forbidden_caller_ip"),
        (&revoked, "GET", "/things", "revoked"),
    ];
    for (key, method, target, verdict) in rows {
        let arguments = [
            "explain",
            "--config",
            path.to_str().unwrap(),
            "--key",
            &key.id,
            "--method",
            method,
            "--path",
            target,
            "--ip",
            "127.0.0.1",
        ];
        let ended = keyside(arguments).await;
        let allowed = verdict == "allowed";
        assert_eq!(ended.status, i32::from(!allowed), "{method} {target}: {ended:?}");
        assert!((ended.stdout.clone() + &ended.stderr).contains(verdict), "{method} {target}: {ended:?}");
        assert!(!ended.stdout.contains(&key.secret), "{ended:?}");
        // What it says is what is done.
        let answer = sidecar.ask(request(method, target).key(key).field("X-Request-Id", "compare")).await;
        assert_eq!(answer.status == 200, allowed, "{method} {target}: {answer:?}");
        let reason = sidecar.access.all().last().cloned().unwrap_or_default();
        drop(reason);
    }
    let json = keyside([
        "explain",
        "--output",
        "json",
        "--config",
        path.to_str().unwrap(),
        "--key",
        "key_reader",
        "--method",
        "GET",
        "--path",
        "/things",
        "--ip",
        "127.0.0.1",
    ])
    .await
    .done();
    assert!(json.json().is_object(), "{}", json.stdout);
    // Without a request: what the key could do.
    let could = keyside(["explain", "--config", path.to_str().unwrap(), "--key", "key_reader"]).await.done();
    assert!(could.stdout.contains("/things"), "{}", could.stdout);
    assert_eq!(keyside(["explain", "--config", path.to_str().unwrap(), "--key", "nobody"]).await.status, 1);
    assert_eq!(sidecar.ask(get("/things").key(&reader)).await.status, 200);
}

/// Routes that ask for the same are rows of their own, also where the one before them is covered by the one after.
#[tokio::test]
async fn every_route_has_its_own_rows() {
    let desk = Desk::new();
    let config = "[listen]\nplaintext = true\n[[route]]\npath = \"/v1/slow\"\n[[route]]\npath = \"/v1/**\"\n";
    let config = desk.write("keyside.toml", config);
    desk.write("keys.toml", &key_file([&Key::pair("reader")]));
    let arguments = ["explain", "--output", "json", "--key", "key_reader", "--config", config.to_str().unwrap()];
    let could = keyside(arguments).await.done().json();
    let rows: Vec<(&Value, &Value, &Value)> =
        could["abilities"].as_array().unwrap().iter().map(|row| (&row["path"], &row["methods"], &row["may"])).collect();
    let (reads, writes) = (json!(["GET", "HEAD", "OPTIONS"]), json!(["POST", "PUT", "PATCH", "DELETE"]));
    let (slow, all, yes, no) = (json!("/v1/slow"), json!("/v1/**"), json!(true), json!(false));
    assert_eq!(rows, [(&slow, &reads, &yes), (&slow, &writes, &no), (&all, &reads, &yes), (&all, &writes, &no)]);
}

/// Where a request goes is said for it, and for the key: its route's upstream, its mode's, or everybody's.
#[tokio::test]
async fn explain_names_the_upstream() {
    let desk = Desk::new();
    let config = r#"
        [listen]
        plaintext = true
        [upstream]
        url = "http://127.0.0.1:8080"
        [upstream.modes]
        test = "http://127.0.0.1:8081"
        [[route]]
        path = "/own"
        upstream = "http://127.0.0.1:8082"
        [[route]]
        path = "/open"
        public = true
        [[route]]
        path = "/**"
    "#;
    let config = desk.write("keyside.toml", config);
    let keys =
        [Key::token("none"), Key::token("live").with("mode = \"live\""), Key::token("test").with("mode = \"test\"")];
    desk.write("keys.toml", &key_file(&keys));
    let said = async |key: &str, path: Option<&str>, list: &str| {
        let mut arguments = vec!["explain", "--output", "json", "--key", key, "--config", config.to_str().unwrap()];
        arguments.extend(path.into_iter().flat_map(|path| ["--method", "GET", "--ip", "127.0.0.1", "--path", path]));
        let all = keyside(arguments).await.done().json();
        let find = |name: &str| {
            let step = all[list].as_array().unwrap().iter().find(|step| step["name"] == name);
            step.unwrap_or_else(|| panic!("{name}: {all}"))["finding"].as_str().unwrap().to_owned()
        };
        (find("upstream"), if path.is_none() { find("hosts") } else { String::new() })
    };
    let rows = [
        ("key_none", "/", "http://127.0.0.1:8080 (upstream.url: the key has no mode)"),
        ("key_live", "/", "http://127.0.0.1:8080 (upstream.url: [upstream.modes] names none for live keys)"),
        ("key_test", "/", "http://127.0.0.1:8081 ([upstream.modes] test)"),
        ("key_test", "/own", "http://127.0.0.1:8082 (the route's own)"),
        // Nobody looks at the key there.
        ("key_test", "/open", "http://127.0.0.1:8080 (upstream.url)"),
    ];
    for (key, path, upstream) in rows {
        assert_eq!(said(key, Some(path), "steps").await.0, upstream, "{key} {path}");
    }
    let (upstream, hosts) = said("key_test", None, "about").await;
    assert_eq!(upstream, "http://127.0.0.1:8081 ([upstream.modes] test); some routes have their own");
    assert_eq!(hosts, "any: there are no [hosts] that keep modes apart");
}
