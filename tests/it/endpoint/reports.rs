//! What the endpoint is told of the use of keys, and of the end.

use std::{collections::BTreeMap, time::Duration};

use rustix::process::Signal;
use serde_json::Value;

use super::{check, sidecar};
use crate::harness::{Control, Key, Upstream, eventually, get, post};

/// What all reports together say of a key; each number counts once.
fn told(control: &Control, key: &Key) -> (u64, u64, BTreeMap<String, u64>) {
    let mut seen = std::collections::BTreeSet::new();
    let (mut allowed, mut refused, mut reasons) = (0, 0, BTreeMap::new());
    for report in control.reports() {
        let Some(seq) = report["seq"].as_u64() else { continue };
        if !seen.insert(seq) {
            continue;
        }
        for entry in report["usage"].as_array().unwrap().iter().filter(|entry| entry["key"] == *key.id) {
            allowed += entry["allowed"].as_u64().unwrap();
            refused += entry["refused"].as_u64().unwrap();
            for (reason, count) in entry["refusals"].as_object().into_iter().flatten() {
                *reasons.entry(reason.clone()).or_default() += count.as_u64().unwrap();
            }
        }
    }
    (allowed, refused, reasons)
}

#[tokio::test]
async fn uses_and_refusals_are_told_and_count_once() {
    let (key, idle) = (Key::pair("one"), Key::pair("idle"));
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    control.put_all([&key, &idle]);
    let sidecar = sidecar(&upstream, &control).start().await;
    for _ in 0..3 {
        check(&sidecar, &key, 200).await;
    }
    for _ in 0..2 {
        check(&sidecar, &key.clone().secret("cs_wrong"), 401).await;
    }
    assert_eq!(sidecar.ask(post("/", "x").key(&key)).await.status, 403);
    let expected = || {
        let reasons = [("wrong_secret", 2), ("insufficient_scope", 1)];
        (3, 3, reasons.map(|(reason, count)| (reason.to_owned(), count)).into())
    };
    let all = async || {
        eventually("all of it to be told", async || {
            let found = told(&control, &key);
            if found == expected() { Ok(()) } else { Err(found) }
        })
        .await;
    };
    all().await;
    let reports = control.reports();
    let entries: Vec<&Value> = reports.iter().filter_map(|report| report["usage"].as_array()).flatten().collect();
    assert!(entries.iter().all(|entry| entry["key"] != *idle.id), "{entries:?}");
    let last = entries.iter().rfind(|entry| entry["last_refusal"].is_object()).unwrap();
    assert_eq!(last["last_refusal"]["ip"], "127.0.0.1", "{last}");
    assert!(entries.iter().any(|entry| entry["last_ip"] == "127.0.0.1" && entry["last_used_at"].is_string()));

    // What is not taken is sent again as it was.
    control.take_reports_with(500);
    check(&sidecar, &idle, 200).await;
    let of_idle = || {
        let reports = control.reports().into_iter();
        let about = |report: &Value| report["usage"].as_array().is_some_and(|usage| usage[0]["key"] == *idle.id);
        reports.filter(about).collect::<Vec<_>>()
    };
    eventually("it to be sent again", async || if of_idle().len() > 1 { Ok(()) } else { Err(of_idle()) }).await;
    check(&sidecar, &idle, 200).await;
    let sent = of_idle();
    assert!(sent.iter().all(|report| *report == sent[0]), "{sent:?}");
    control.take_reports_with(204);
    eventually("the rest to be told", async || {
        let found = told(&control, &idle);
        if found.0 == 2 { Ok(()) } else { Err(found) }
    })
    .await;
    assert_eq!(told(&control, &key), expected());
}

#[tokio::test]
async fn the_last_report_says_goodbye() {
    let key = Key::pair("one");
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    control.put(&key);
    let first = sidecar(&upstream, &control).start().await;
    check(&first, &key, 200).await;
    first.signal(Signal::TERM);
    assert_eq!(first.ended().await, 0);
    let reports = control.reports();
    let last = reports.last().unwrap();
    assert_eq!((&last["goodbye"], &last["revision"]), (&true.into(), &control.revision().into()), "{last}");
    assert_eq!(told(&control, &key).0, 1, "what was used last is told, too: {reports:?}");
    assert!(reports.iter().rev().skip(1).all(|report| report["goodbye"].is_null()));

    // An endpoint that is gone does not hold up the end.
    let second = sidecar(&upstream, &control).start().await;
    control.stop().await;
    let began = std::time::Instant::now();
    second.signal(Signal::TERM);
    assert_eq!(second.ended().await, 0);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}
