//! The feed, by its routes, over a store on disk.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use futures_util::StreamExt as _;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

use crate::{
    clock,
    config::control::load_text,
    control::{
        audit,
        desk::Desk,
        fleet::Receipt,
        front::Peer,
        ledger::{Actor, Draft, Ledger, WriteError},
        routes,
        store::{self, Change, Head},
    },
    keys::document::json::read_key,
};

const TOKEN: &str = "a-token-of-sidecars-that-nobody-guesses";

/// A control plane without a listener.
struct Here {
    desk: Arc<Desk>,
    router: Router,
    folder: TempDir,
    keeping: tokio::task::JoinHandle<()>,
}

impl Here {
    async fn start() -> Self {
        Self::start_in(TempDir::new().unwrap()).await
    }

    async fn start_in(folder: TempDir) -> Self {
        std::fs::write(folder.path().join("tokens"), format!("{TOKEN}\n")).unwrap();
        let path = folder.path().join("control.toml");
        let text = "[listen]\nplaintext = true\n[sync]\ntokens = { file = \"tokens\" }\n";
        let mut settings = load_text(text, &path, []).unwrap_or_else(|faults| panic!("{faults}")).settings;
        settings.sync.tokens = vec![audit::hex(TOKEN)];
        let store = store::open(&store::Settings { place: settings.store.clone(), create: true }).await.unwrap();
        let desk = Desk::new(settings, Ledger::open(store).await.unwrap()).await.unwrap();
        let keeping = tokio::spawn(Arc::clone(&desk).keep_up());
        Self { router: routes::router(Arc::clone(&desk)), desk, folder, keeping }
    }

    /// Another process in its place.
    async fn restart(self) -> Self {
        let Self { desk, router, folder, keeping } = self;
        keeping.abort();
        let _ = keeping.await;
        desk.ledger.store().close().await;
        drop((desk, router));
        Self::start_in(folder).await
    }

    async fn ask(&self, method: &str, target: &str, token: Option<&str>, body: &str) -> (StatusCode, Body) {
        let mut request = Request::builder().method(method).uri(target);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.extension(Peer { ip: [127, 0, 0, 1].into(), secure: false, certified: false });
        let request = request.header("content-type", "application/json").body(Body::from(body.to_owned())).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        (response.status(), response.into_body())
    }

    async fn get(&self, target: &str) -> (StatusCode, Body) {
        self.ask("GET", target, Some(TOKEN), "").await
    }

    async fn report(&self, report: Value) -> (StatusCode, Value) {
        let (status, body) = self.ask("POST", "/sync/v1/report", Some(TOKEN), &report.to_string()).await;
        (status, serde_json::from_slice(&whole(body).await).unwrap())
    }

    /// Writes these rows in one transaction.
    async fn write(&self, changes: Vec<Change>) -> u64 {
        let actor = Actor { name: "system".to_owned(), from: None };
        let written = self.desk.ledger.write(actor, move |_, _| {
            let draft = Draft { action: "test", subject: "s".to_owned(), changes: changes.clone(), ..Draft::default() };
            Ok::<_, ()>((Some(draft), ()))
        });
        match written.await {
            Ok(written) => written.head.revision,
            Err(WriteError::Store(error)) => panic!("{error}"),
            Err(WriteError::Refused(())) => unreachable!(),
        }
    }

    /// Who has a revision.
    async fn receipt(&self, revision: u64, wait: Duration) -> Receipt {
        let head = self.desk.ledger.read(|image| Head { revision, ..image.head().clone() });
        self.desk.fleet.receipt(&head, wait).await.unwrap()
    }

    /// What a sidecar that has taken the set names.
    async fn take(&self, instance: &str) -> Value {
        let (status, body) = self.get(&format!("/sync/v1/keys?instance={instance}")).await;
        assert_eq!(status, 200);
        let text = whole(body).await;
        serde_json::from_slice(text.split(|byte| *byte == b'\n').next().unwrap()).unwrap()
    }

    async fn follow(&self, instance: &str, head: &Value) -> (StatusCode, Lines) {
        let text = |name: &str| head[name].as_str().unwrap().to_owned();
        let target = format!(
            "/sync/v1/changes?instance={instance}&max_stale=60&max_stale_write=30&epoch={}&since={}&digest={}",
            text("epoch"),
            head["revision"],
            text("digest")
        );
        let (status, body) = self.get(&target).await;
        (status, Lines { body, read: Vec::new() })
    }
}

/// A stream of lines.
struct Lines {
    body: Body,
    read: Vec<u8>,
}

impl Lines {
    /// The next line; none at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let body = std::mem::take(&mut self.body);
            let mut stream = body.into_data_stream();
            let piece = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("a line in time");
            self.body = Body::from_stream(stream);
            self.read.extend_from_slice(&piece?.unwrap());
        }
    }

    /// The next line that is no heartbeat.
    async fn change(&mut self) -> Option<Value> {
        loop {
            match self.next().await {
                Some(line) if line.get("heartbeat").is_some() => {}
                line => return line,
            }
        }
    }
}

async fn whole(body: Body) -> Vec<u8> {
    axum::body::to_bytes(body, 1 << 30).await.unwrap().to_vec()
}

fn key(id: &str, revoked: bool) -> Change {
    let mut row = json!({
        "id": id, "name": "One", "kind": "token", "prefix": format!("ck_live_{id}"), "owner": "svc", "scopes": ["read"],
        "hash": "$sha256$4c86fcf6fe4dcb18a3ea8c5cb3c3b8d0b3e5fb0a1b9f2a4a6e1d2d9d7b8c1a00",
        "created_at": "2026-11-21T00:00:00Z",
    });
    if revoked {
        row["revoked_at"] = "2026-11-21T01:00:00Z".into();
    }
    let read = read_key(&row);
    Change::Key(read.row.unwrap_or_else(|| panic!("{:?}", read.faults)))
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_sent_nothing() {
    let here = Here::start().await;
    for (method, path) in
        [("GET", "/sync/v1/keys?instance=a.1"), ("GET", "/sync/v1/changes?instance=a.1"), ("POST", "/sync/v1/report")]
    {
        for token in [None, Some(""), Some("wrong"), Some("a-token-of-sidecars-that-nobody-guesse")] {
            assert_eq!(here.ask(method, path, token, "").await.0, 401, "{method} {path} {token:?}");
        }
    }
    assert!(here.desk.fleet.sidecars().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_token_passes_from_where_others_fail() {
    let here = Here::start().await;
    let ask = async |token| here.ask("GET", "/sync/v1/keys?instance=a.1", Some(token), "").await.0;
    for _ in 0..20 {
        assert_eq!(ask("wrong").await, 401);
    }
    assert_eq!(ask("wrong").await, 429);
    assert_eq!(ask(TOKEN).await, 200, "nobody guesses it, and nobody's failures keep a fleet out");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_set_is_whole_and_changes_follow_it() {
    let here = Here::start().await;
    here.write((0..500).map(|number| key(&format!("key_{number:03}"), false)).collect()).await;
    let (status, body) = here.get("/sync/v1/keys?instance=a.1&max_stale=60&max_stale_write=30").await;
    assert_eq!(status, 200);
    let text = String::from_utf8(whole(body).await).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[501]), (502, &json!({"end": true, "owners": 0, "keys": 500})));
    assert_eq!((&lines[0]["revision"], &lines[1]["key"]["id"]), (&json!(1), &json!("key_000")));

    let (status, mut stream) = here.follow("a.1", &lines[0]).await;
    assert_eq!(status, 200);
    assert_eq!(stream.next().await.unwrap(), json!({"heartbeat": 1}));
    here.write(vec![key("key_000", true), Change::DeletedKey("key_001".parse().unwrap())]).await;
    let (first, second) = (stream.change().await.unwrap(), stream.change().await.unwrap());
    assert_eq!((&first["revision"], &first["more"]), (&json!(2), &json!(true)));
    assert_eq!(first["key"]["revoked_at"], "2026-11-21T01:00:00Z");
    assert_eq!((&second["deleted_key"], second.get("more")), (&json!("key_001"), None));
    let digest = here.desk.ledger.read(|image| image.head().digest.clone());
    assert_eq!(second["digest"], digest.as_str());
    assert_eq!(stream.next().await.unwrap(), json!({"heartbeat": 2}));

    let view = &here.desk.fleet.sidecars()[0];
    assert_eq!((view.known, view.connected, view.lag), (true, true, 2));
    assert_eq!((view.sidecar.max_stale, view.sidecar.max_stale_write), (60, 30));
    drop(stream);

    // Who comes back in time gets what it missed; who has another history does not.
    let (status, mut stream) = here.follow("a.1", &lines[0]).await;
    assert_eq!((status.as_u16(), stream.next().await.unwrap()["revision"].clone()), (200, json!(2)));
    for (name, value) in [("epoch", json!("other")), ("digest", json!("other")), ("revision", json!(3))] {
        let mut head = lines[0].clone();
        head[name] = value;
        assert_eq!(here.follow("a.1", &head).await.0, 410, "{name}");
    }
    here.desk.drain();
    while stream.next().await.is_some() {}
    assert_eq!(here.follow("a.1", &lines[0]).await.0, 503, "it is going away");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_names_who_has_it_and_who_may_serve_without() {
    let here = Here::start().await;
    here.write(vec![key("key_1", false)]).await;
    let (one, two) = (here.take("one.1").await, here.take("two.2").await);
    let revision = here.write(vec![key("key_1", true)]).await;
    let report = async |instance: &str, epoch: &Value, revision: u64| {
        here.report(json!({"instance": instance, "epoch": epoch, "revision": revision, "durable": true})).await
    };
    let waiting = here.receipt(revision, Duration::from_secs(20));
    let acknowledging = async {
        assert_eq!(report("one.1", &one["epoch"], revision).await.1["acknowledged"], revision);
        assert_eq!(report("two.2", &two["epoch"], revision).await.0, 200);
    };
    let (receipt, ()) = tokio::join!(waiting, acknowledging);
    assert_eq!(receipt.gap, None);
    assert_eq!((receipt.acknowledged, receipt.pending), (vec!["one.1".to_owned(), "two.2".to_owned()], vec![]));

    let revision = here.write(vec![key("key_2", false)]).await;
    assert_eq!(report("one.1", &json!("other"), revision).await.1["acknowledged"], Value::Null, "another history");
    assert_eq!(report("one.1", &one["epoch"], revision + 1).await.0, 422, "a lie");
    assert_eq!(report("two.2", &two["epoch"], revision).await.0, 200);
    let before = clock::now().wall;
    let receipt = here.receipt(revision, Duration::from_millis(50)).await;
    assert_eq!(receipt.acknowledged, ["two.2"]);
    let pending = &receipt.pending[0];
    assert_eq!(pending.instance, "one.1");
    let most = before.plus(Duration::from_secs(24 * 60 * 60 + 25));
    assert!(pending.may_serve_reads_until >= before.plus(Duration::from_secs(86_400 - 25)));
    assert!(pending.may_serve_writes_until <= most);

    // A goodbye ends it; a later word of the same one begins anew.
    let goodbye = json!({"instance": "one.1", "epoch": one["epoch"], "revision": 1, "goodbye": true});
    assert_eq!(here.report(goodbye).await.0, 200);
    assert!(here.receipt(revision, Duration::ZERO).await.pending.is_empty());
    here.take("one.1").await;
    assert_eq!(here.receipt(revision, Duration::ZERO).await.pending.len(), 1);
    assert!(here.desk.fleet.forget("one.1").await.unwrap());
    assert!(!here.desk.fleet.forget("one.1").await.unwrap());
    assert!(here.receipt(revision, Duration::ZERO).await.pending.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_known_and_what_was_acknowledged_outlives_a_restart() {
    let here = Here::start().await;
    let revision = here.write(vec![key("key_1", false)]).await;
    let head = here.take("one.1").await;
    here.take("two.2").await;
    here.report(json!({"instance": "one.1", "epoch": head["epoch"], "revision": revision})).await;
    here.desk.fleet.save().await.unwrap();
    let here = here.restart().await;
    let receipt = here.receipt(revision, Duration::from_millis(10)).await;
    assert_eq!((receipt.acknowledged, receipt.pending.len()), (vec!["one.1".to_owned()], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn use_is_counted_once() {
    let here = Here::start().await;
    here.write(vec![key("key_1", false)]).await;
    let head = here.take("one.1").await;
    let entry = json!({
        "key": "key_1", "last_used_at": "2026-11-21T00:00:05Z", "last_ip": "203.0.113.9", "allowed": 10, "refused": 3,
        "refusals": {"insufficient_scope": 2, "of_a_later_version": 1},
        "last_refusal": {"reason": "insufficient_scope", "at": "2999-01-01T00:00:00Z", "ip": "203.0.113.7"},
    });
    let gone = json!({"key": "key_gone", "allowed": 1});
    let report = json!({"instance": "one.1", "epoch": head["epoch"], "revision": 1, "seq": 1, "usage": [entry, gone]});
    for _ in 0..3 {
        assert_eq!(here.report(report.clone()).await.0, 200);
    }
    here.desk.usage.load().await.unwrap();
    let usage = here.desk.usage.of(&"key_1".parse().unwrap());
    assert_eq!((usage.allowed, usage.refused, usage.refusals.len()), (10, 3, 1));
    assert_eq!(usage.last_ip, Some([203, 0, 113, 9].into()));
    assert_eq!((usage.refusals[0].count, usage.refusals[0].reason.as_str()), (2, "insufficient_scope"));
    assert!(usage.refusals[0].at <= clock::now().wall, "nobody is refused tomorrow");
    assert_eq!(here.desk.usage.of(&"key_gone".parse().unwrap()).allowed, 0);
    let days = here.desk.usage.days(&"key_1".parse().unwrap(), 1).await.unwrap();
    assert_eq!((days.len(), days[0].allowed), (1, 10));

    for (field, value) in [
        ("instance", json!("no name")),
        ("instance", json!("")),
        ("seq", json!(-1)),
        ("seq", json!(null)),
        ("seq", json!(u64::MAX)),
        ("usage", json!([{"key": "", "allowed": 1}])),
        ("usage", json!([{"key": "key_1", "allowed": -1}])),
        ("usage", json!([{"key": "key_1", "last_ip": "somewhere"}])),
        ("usage", json!([{"key": "key_1", "last_used_at": "yesterday"}])),
        ("usage", json!({})),
        ("revision", json!(1e300)),
    ] {
        let mut bad = report.clone();
        bad["seq"] = 9.into();
        bad[field] = value.clone();
        assert_eq!(here.report(bad).await.0, 422, "{field}: {value}");
    }
}
