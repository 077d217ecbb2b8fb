//! The control plane, and sidecars that have their keys from it: all of them the real executable.

mod api;
mod commands;
mod crowd;
mod explain;
mod fleet;
mod instances;
mod pages;
mod planes;
mod receipts;
mod secure;
mod tls;
mod web3pay;

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::harness::{Minted, Plane, Sidecar, Upstream, eventually, get, hex};

/// What a request with this key is answered now.
#[track_caller]
fn check(sidecar: &Sidecar, key: &Minted, status: u16) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let answer = sidecar.ask(key.get("/")).await;
        assert_eq!(answer.status, status, "{place}: {}", answer.text());
    }
}

/// Waits until a request with this key is answered so.
async fn answers(sidecar: &Sidecar, key: &Minted, status: u16) {
    eventually("the key to be answered so", async || {
        let found = sidecar.ask(key.get("/")).await.status;
        if found == status { Ok(()) } else { Err(found) }
    })
    .await;
}

/// Waits until a request with this token is answered so.
async fn answers_token(sidecar: &Sidecar, target: &str, token: &str, status: u16) {
    eventually("the token to be answered so", async || {
        let found = sidecar.ask(get(target).field("X-API-Key", token)).await.status;
        if found == status { Ok(()) } else { Err(found) }
    })
    .await;
}

/// So many sidecars, by the names they give themselves.
async fn sidecars(plane: &Plane, upstream: &Upstream, names: &[&str]) -> BTreeMap<String, Sidecar> {
    let mut started = BTreeMap::new();
    for name in names {
        let named = format!("[keys.control]\ninstance = {name:?}");
        started.insert((*name).to_owned(), plane.sidecar(upstream).config(&named).start().await);
    }
    plane.followed_by(names.len()).await;
    started
}

/// The names in a list of instances, which end in what is random.
fn names(list: &Value) -> Vec<String> {
    let instances = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    let instance = |entry: &Value| entry.as_str().or(entry["instance"].as_str()).unwrap().to_owned();
    instances.iter().map(|entry| instance(entry).rsplit_once('.').unwrap().0.to_owned()).collect()
}

const SOON: Duration = Duration::from_secs(1);

/// The whole audit log, oldest first, after its chain was checked.
pub(crate) async fn audit_log(plane: &Plane) -> Vec<Value> {
    let (mut entries, mut from) = (Vec::new(), Some(1));
    let mut before = "0".repeat(64);
    while let Some(next) = from {
        let page = plane.api("GET", &format!("/v1/audit?from={next}&limit=1000"), &Value::Null).await;
        for entry in page["entries"].as_array().unwrap() {
            let at = entry["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
            let line = json!({
                "seq": entry["seq"], "at": at, "actor": entry["actor"], "from": entry["from"], "action": entry["action"],
                "subject": entry["subject"], "detail": entry["detail"], "revision": entry["revision"],
            });
            let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("{before}\n{line}").as_bytes());
            assert_eq!(entry["hash"], hex(hash.as_ref()), "{entry}");
            before = entry["hash"].as_str().unwrap().to_owned();
            entries.push(entry.clone());
            assert_eq!(entry["seq"], entries.len());
        }
        from = page["next"].as_u64();
        if from.is_none() {
            assert_eq!((&page["head"]["entries"], &page["head"]["hash"]), (&json!(entries.len()), &json!(before)));
        }
    }
    entries
}

/// Every key, by its id.
pub(crate) async fn all_keys(plane: &Plane) -> BTreeMap<String, Value> {
    let (mut keys, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let page = plane.api("GET", &format!("/v1/keys?limit=100{cursor}"), &Value::Null).await;
        for key in page["keys"].as_array().unwrap() {
            keys.insert(key["id"].as_str().unwrap().to_owned(), key.clone());
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return keys,
        }
    }
}
