//! `explain` and the sidecar: what the one says, the other does.

use futures_util::future::join_all;

use super::minted::{Pair, System};
use crate::harness::request;

/// Asks both, for every key with every method at every target.
pub(super) async fn explain_agrees(system: &System, keys: &[Pair], methods: &[&str], targets: &[&str]) {
    let mut allowed = 0;
    for target in targets {
        for method in methods {
            // Each question is a process of its own: all keys at once keep the machine busy.
            let agreed = join_all(keys.iter().map(|pair| agrees(system, pair, method, target))).await;
            allowed += agreed.into_iter().filter(|allowed| *allowed).count();
        }
    }
    // A preset that refused everything, or nothing, would agree as well.
    assert!((1..keys.len() * methods.len() * targets.len()).contains(&allowed), "{allowed} allowed");
}

/// Whether the request is allowed, which both must say, and else for the same reason.
async fn agrees(system: &System, pair: &Pair, method: &str, target: &str) -> bool {
    let question = ["--key", &pair.id, "--method", method, "--path", target, "--ip", "127.0.0.1", "--output", "json"];
    let explained = system.command(&[&["explain", "--host", "api.example.com"][..], &question].concat()).await;
    let said = explained.json();
    let answer = system.sidecar.ask(pair.on(request(method, target))).await;
    let line = system.line(&answer).await;
    let what = format!("{method} {target} with {}:\n{said}\n{line}\n{answer:?}", pair.printed.json()["name"]);
    assert_eq!(said["verdict"] == "allowed", answer.status == 200, "{what}");
    assert_eq!(said["reason"], line["reason"], "{what}");
    assert_eq!(explained.status == 0, answer.status == 200, "{what}");
    assert!(!explained.stdout.contains(&pair.secret), "{what}");
    answer.status == 200
}

/// What `explain` says of a key without a request: each row of its table, asked of the sidecar.
pub(super) async fn the_table_is_true(system: &System, pair: &Pair) {
    let said = system.command(&["explain", "--key", &pair.id, "--output", "json"]).await.done().json();
    let table = system.command(&["explain", "--key", &pair.id]).await.done().stdout;
    for row in said["abilities"].as_array().unwrap() {
        let pattern = row["path"].as_str().unwrap();
        let target = pattern.replace("/**", "/7").replace("{version}", "v3");
        let listed = table.lines().find(|line| line.split_whitespace().nth(1) == Some(pattern));
        assert!(listed.is_some(), "{pattern} in\n{table}");
        for method in row["methods"].as_array().unwrap() {
            let method = method.as_str().unwrap();
            let answer = system.sidecar.ask(pair.on(request(method, &target))).await;
            let reason = system.line(&answer).await["reason"].clone();
            assert_eq!((&row["may"], &row["reason"]), (&(answer.status == 200).into(), &reason), "{method} {row}");
        }
    }
}
