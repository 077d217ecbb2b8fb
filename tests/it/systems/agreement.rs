//! The sidecar held to what is expected of it: by `explain`, and by tables.

use futures_util::future::join_all;

use super::service::{Minted, Service, System, told};
use crate::harness::{H1, H2, Request, request};

/// Asks both, for every pair with every method at every target.
pub(super) async fn explain_agrees(service: &Service, keys: &[Minted], methods: &[&str], targets: &[&str]) {
    let mut allowed = 0;
    for target in targets {
        for method in methods {
            // Each question is a process of its own: all keys at once keep the machine busy.
            let told = join_all(
                keys.iter()
                    .map(|pair| agreed(service, pair, |request| pair.on(request), "api.example.com", method, target)),
            );
            allowed += told.await.into_iter().filter(|told| told == "200").count();
        }
    }
    // A preset that refused everything, or nothing, would agree as well.
    assert!((1..keys.len() * methods.len() * targets.len()).contains(&allowed), "{allowed} allowed");
}

/// Asks both about a request: whether it is allowed, which both must say, and else for the same reason. What the caller
/// is [`told`].
pub(super) async fn agreed(
    service: &Service,
    key: &Minted,
    with: impl Fn(Request) -> Request,
    host: &str,
    method: &str,
    target: &str,
) -> String {
    let question = ["--key", &key.id, "--host", host, "--method", method, "--path", target, "--ip", "127.0.0.1"];
    let explained = service.run(&[&["explain", "--output", "json"][..], &question].concat()).await;
    let said = explained.json();
    let answer = service.ask(with(request(method, target).host(host))).await;
    let line = service.line(&answer).await;
    let what = format!("{method} {host} {target} with {}:\n{said}\n{line}\n{answer:?}", key.printed["name"]);
    let allowed = answer.status == 200;
    assert_eq!((&said["verdict"] == "allowed", explained.status == 0), (allowed, allowed), "{what}");
    assert_eq!(said["reason"], line["reason"], "{what}");
    assert!(!explained.stdout.contains(&key.secret), "{what}");
    let told = told(&answer);
    // An answer to HEAD has no body with a code, and in the dialect of WooCommerce some refusals have its own.
    if !allowed && method != "HEAD" && !told.contains("woocommerce") {
        assert_eq!(told, format!("{} {}", said["status"], said["code"].as_str().unwrap()), "{what}");
    }
    told
}

/// What `explain` says of a pair without a request: each row of its table, asked of the sidecar.
pub(super) async fn the_table_is_true(service: &Service, pair: &Minted) {
    let said = service.json(&["explain", "--key", &pair.id]).await;
    let table = service.run(&["explain", "--key", &pair.id]).await.done().stdout;
    for row in said["abilities"].as_array().unwrap() {
        let pattern = row["path"].as_str().unwrap();
        let target = pattern.replace("/**", "/7").replace("{version}", "v3");
        let listed = table.lines().find(|line| line.split_whitespace().nth(1) == Some(pattern));
        assert!(listed.is_some(), "{pattern} in\n{table}");
        for method in row["methods"].as_array().unwrap() {
            let method = method.as_str().unwrap();
            let answer = service.ask(pair.on(request(method, &target))).await;
            let reason = service.line(&answer).await["reason"].clone();
            assert_eq!((&row["may"], &row["reason"]), (&(answer.status == 200).into(), &reason), "{method} {row}");
        }
    }
}

/// Rows of (request, what it comes to with each of three keys), over both versions of HTTP: what is allowed arrives, and
/// nothing else does.
pub(super) async fn come_to(system: &System, keys: &[Minted; 3], rows: &[(Request, [&str; 3])]) {
    for (request, expected) in rows {
        for (pair, expected) in keys.iter().zip(expected) {
            for version in [H1, H2] {
                let before = system.upstream.count();
                let answer = system.sidecar.send(version, pair.on(request.clone())).await;
                let who = pair.printed["name"].clone();
                assert_eq!(answer.brief(), *expected, "{request:?} with {who} over {version:?}: {answer:?}");
                assert_eq!(system.upstream.count() - before, usize::from(*expected == "200"), "{request:?} with {who}");
            }
        }
    }
}
