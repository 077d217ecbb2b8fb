//! Instances: nobody speaks for a sidecar but itself, and who takes the place of one that crashed says so.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{answers, check, names, sidecars};
use crate::harness::{Plane, Received, SYNC_TOKEN, Upstream, api, eventually, get, post};

const SECRET: &str = "0123456789abcdef-secret-of-one";
const OTHER: &str = "0123456789abcdef-secret-of-another";
const SECOND: &str = "second-sync-token-of-the-tests-0123456789";

/// What an instance is asked by: the token, and its own secret.
type By<'a> = (&'a str, Option<&'a str>);

async fn ask(plane: &Plane, path: &str, body: Option<Value>, (token, secret): By<'_>) -> Received {
    let mut request = match body {
        Some(body) => post(path, body.to_string()).field("Content-Type", "application/json"),
        None => get(path),
    };
    request = request.bearer(token);
    if let Some(secret) = secret {
        request = request.field("Keyside-Instance-Secret", secret);
    }
    plane.ask(request).await
}

/// Takes the set in the name of an instance: the status, and the epoch.
async fn take(plane: &Plane, instance: &str, by: By<'_>) -> (u16, Value) {
    let answer = ask(plane, &format!("/sync/v1/keys?instance={instance}"), None, by).await;
    let first = answer.text().lines().next().unwrap_or_default().to_owned();
    let first: Value = serde_json::from_str(&first).unwrap_or_default();
    (answer.status, first["epoch"].clone())
}

/// Everything that can be said in the name of an instance, by somebody else, is refused and changes nothing.
async fn refused(plane: &Plane, instance: &str, epoch: &Value, by: By<'_>) {
    let view = async || {
        let all = plane.sidecars().await;
        let mut one = all.into_iter().find(|one| one["instance"] == instance).expect("the instance");
        // What time alone changes.
        for name in ["last_seen", "may_serve_reads_until", "may_serve_writes_until", "durable"] {
            one[name].take();
        }
        one
    };
    let before = view().await;
    let changes = format!("/sync/v1/changes?instance={instance}&epoch={}&since=0&digest=", epoch.as_str().unwrap());
    for path in [format!("/sync/v1/keys?instance={instance}&max_stale=1&max_stale_write=1"), changes] {
        let answer = ask(plane, &path, None, by).await;
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str().unwrap_or_default()),
            (403, "instance_bound"),
            "{path}: {}",
            answer.text()
        );
    }
    for more in
        [json!({ "revision": 1, "durable": true }), json!({ "goodbye": true }), json!({ "seq": 900_000, "usage": [] })]
    {
        let mut report = json!({ "instance": instance, "epoch": epoch });
        report.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = ask(plane, "/sync/v1/report", Some(report), by).await;
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_str().unwrap_or_default()),
            (403, "instance_bound"),
            "{more}: {}",
            answer.text()
        );
    }
    assert_eq!(view().await, before);
}

#[tokio::test]
async fn nobody_speaks_for_an_instance_that_is_not_theirs() {
    let plane = Plane::prepare();
    std::fs::write(plane.folder().join("sync-tokens"), format!("{SYNC_TOKEN}\n{SECOND}\n")).unwrap();
    let plane = plane.config("[sync]\nmax_stale = \"2d\"").start().await;
    let upstream = Upstream::start().await;
    let key = plane.mint("one").await;
    let fleet = sidecars(&plane, &upstream, &["real"]).await;
    check(&fleet["real"], &key, 200).await;
    let real = plane.sidecars().await[0]["instance"].as_str().unwrap().to_owned();

    // One with a secret, and one that sends none: it is bound to its token.
    let (with, without): (By<'_>, By<'_>) = ((SYNC_TOKEN, Some(SECRET)), (SYNC_TOKEN, None));
    let (status, epoch) = take(&plane, "with.1", with).await;
    assert_eq!((status, take(&plane, "without.2", without).await.0), (200, 200));
    let strangers: [(&str, &[By<'_>]); 3] = [
        ("with.1", &[(SYNC_TOKEN, Some(OTHER)), without, (SECOND, None)]),
        ("without.2", &[(SECOND, None), with, (SECOND, Some(OTHER))]),
        (&real, &[with, without]),
    ];
    for (instance, all) in strangers {
        for by in all {
            refused(&plane, instance, &epoch, *by).await;
        }
    }
    let counted = plane.metrics().await.value("keyside_sync_instances_refused_total", &[]);
    assert_eq!(counted, 40.0, "five for each of eight");
    // Who they are still may: also by another token, where the secret says who it is.
    assert_eq!(take(&plane, "with.1", (SECOND, Some(SECRET))).await.0, 200);
    assert_eq!(take(&plane, "without.2", without).await.0, 200);

    // Nobody takes a name that was forgotten, nor after a restart. One that was heard just now is not forgotten.
    let kept = plane.ask(api("DELETE", "/v1/sidecars/with.1", &Value::Null)).await;
    assert_eq!((kept.status, &kept.json()["error"]["code"]), (409, &json!("connected")), "{}", kept.text());
    let goodbye = json!({ "instance": "with.1", "epoch": epoch, "goodbye": true });
    assert_eq!(ask(&plane, "/sync/v1/report", Some(goodbye), with).await.status, 200);
    plane.api("DELETE", "/v1/sidecars/with.1", &Value::Null).await;
    let plane = plane.crash_and_restart().await;
    assert_eq!(take(&plane, "with.1", (SYNC_TOKEN, Some(OTHER))).await.0, 403);
    assert_eq!(take(&plane, "with.1", with).await.0, 200);
    refused(&plane, &real, &epoch, with).await;

    // What is none is told so.
    for (path, secret, status) in [
        ("/sync/v1/keys?instance=three.3", "short", 400),
        ("/sync/v1/keys?instance=three.3", "with a space in its middle", 400),
        ("/sync/v1/keys?instance=three.3&max_stale=172801", SECRET, 422),
        ("/sync/v1/keys?instance=three.3&max_stale_write=172801", SECRET, 422),
    ] {
        let answer = ask(&plane, path, None, (SYNC_TOKEN, Some(secret))).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    let number = |seq: u64| json!({ "instance": "with.1", "epoch": epoch, "seq": seq, "usage": [] });
    for (seq, status) in [(1, 200), (10_000_002, 422), (u64::MAX / 2, 422), (2, 200)] {
        let answer = ask(&plane, "/sync/v1/report", Some(number(seq)), with).await;
        assert_eq!(answer.status, status, "{seq}: {}", answer.text());
    }
    answers(&fleet["real"], &key, 200).await;
}

/// One that is killed and started again is not waited for under the name it had: its successor holds its folder.
#[tokio::test]
async fn who_takes_the_place_of_one_that_crashed_says_so() {
    let (upstream, plane) = (Upstream::start().await, Plane::start().await);
    let mut fleet = sidecars(&plane, &upstream, &["a", "b"]).await;
    let key = plane.mint("key").await;
    for sidecar in fleet.values() {
        answers(sidecar, &key, 200).await;
    }
    let before = plane.sidecars().await;
    let crashed = fleet.remove("a").unwrap().crash_and_restart().await;
    answers(&crashed, &key, 200).await;
    let receipt = eventually("its place to be taken", async || {
        let receipt = plane.revoke(&key.id).await;
        let taken = receipt["pending"] == json!([]) && receipt["acknowledged"].as_array().unwrap().len() == 2;
        if taken { Ok(receipt) } else { Err(receipt) }
    })
    .await;
    assert_eq!((names(&receipt["acknowledged"]), &receipt["stopped"]), (vec!["a".into(), "b".into()], &json!([])));
    let old = |name: &str| before.iter().any(|one| one["instance"] == name);
    assert_eq!(receipt["acknowledged"].as_array().unwrap().iter().filter(|one| old(one.as_str().unwrap())).count(), 1);
    check(&crashed, &key, 401).await;

    // Whoever only says so, and cannot prove it, takes nobody's place.
    let other = plane.sidecars().await.into_iter().find(|one| one["instance"].as_str().unwrap().starts_with("b."));
    let claim = format!("{} {OTHER}", other.unwrap()["instance"].as_str().unwrap());
    let request = get("/sync/v1/keys?instance=thief.1").bearer(SYNC_TOKEN).field("Keyside-Instance-Secret", SECRET);
    assert_eq!(plane.ask(request.field("Keyside-Replaces", &claim)).await.status, 200);
    fleet["b"].signal(Signal::STOP);
    let other = plane.mint("other").await;
    let receipt = plane.revoke(&other.id).await;
    assert!(names(&receipt["pending"]).contains(&"b".to_owned()), "{receipt}");
    fleet["b"].signal(Signal::CONT);

    // Whoever does not come back is named, until somebody says that it is gone.
    crashed.signal(Signal::KILL);
    crashed.ended().await;
    let third = plane.mint("third").await;
    let receipt = plane.revoke(&third.id).await;
    let gone = receipt["pending"].as_array().unwrap().iter().find_map(|one| {
        let name = one["instance"].as_str().unwrap();
        name.starts_with("a.").then(|| name.to_owned())
    });
    let gone = format!("/v1/sidecars/{}", gone.expect("the one that was killed"));
    eventually("it to be silent for so long that it may be forgotten", async || {
        let answer = plane.ask(api("DELETE", &gone, &Value::Null)).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    let receipt = plane.revoke(&third.id).await;
    assert!(!names(&receipt["pending"]).contains(&"a".to_owned()), "{receipt}");
}
