//! Signing in, without a browser.

use super::*;
use crate::control::{
    caller::Caller,
    operators::{self, OperatorChange},
    sample::Bench,
    store::Role,
};

const PASSWORD: &[u8] = b"a password of the tests";
const PEER: Peer = Peer { ip: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), secure: true, certified: false };

/// A control plane with an operator `ada`, who can sign in.
async fn with_ada() -> Bench {
    let bench = Bench::new("[]").await;
    let password = Some(Secret::new(PASSWORD));
    operators::create(&bench.desk, &Caller::system(None), "ada", Role::Operator, password).await.expect("an operator");
    bench
}

async fn change(bench: &Bench, change: OperatorChange) {
    operators::change(&bench.desk, &Caller::system(None), "ada", change).await.expect("a change");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_is_under_way_ends_with_what_it_stood_on() {
    let bench = with_ada().await;
    let rows = [
        OperatorChange { role: Some(Role::Viewer), password: None },
        OperatorChange { role: None, password: Some(Some(Secret::new(b"another password of hers"))) },
        OperatorChange { role: None, password: Some(None) },
    ];
    let mut password = PASSWORD;
    for row in rows {
        let headers = HeaderMap::new();
        let ada = checked(&bench.desk, PEER, &headers, "ada", Secret::new(password), Whose::Strangers, clock::now())
            .await
            .expect("her password");
        change(&bench, row.clone()).await;
        let refused = begin(&bench.desk, PEER, &headers, &ada).await.expect_err("it was changed meanwhile");
        assert_eq!((refused.status, refused.code), (StatusCode::CONFLICT, "changed_meanwhile"), "{row:?}");
        password = if row.password.is_some() { b"another password of hers" } else { password };
    }
}

/// What takes time is a hash, with the same parameters for all (see the decoy): one for each attempt, whatever is wrong
/// with it, in a browser that is known and in one that is not.
#[tokio::test(flavor = "multi_thread")]
async fn no_attempt_takes_longer_because_there_is_such_an_operator() {
    let bench = with_ada().await;
    let begun =
        sign_in(&bench.desk, PEER, &HeaderMap::new(), "ada", Secret::new(PASSWORD)).await.expect("her password");
    let cookies = begun.0.iter().filter_map(|cookie| cookie.to_str().ok()?.split(';').next());
    let device = cookies.filter(|cookie| cookie.contains("-device=")).collect::<Vec<_>>().join("; ");
    assert!(device.starts_with("__Host-keyside-device="), "{device}");
    let forged = format!("__Host-keyside-device={}", "ab".repeat(32));
    let checked = || bench.desk.sessions.passwords.checked.load(std::sync::atomic::Ordering::Relaxed);
    let mut answers = Vec::new();
    for cookie in ["", &device, &forged] {
        let mut headers = HeaderMap::new();
        if !cookie.is_empty() {
            headers.insert(http::header::COOKIE, cookie.parse().expect("a cookie"));
        }
        // One with a password, one with tokens alone, and none.
        for name in ["ada", "viewer", "nobody"] {
            let before = checked();
            let refused =
                sign_in(&bench.desk, PEER, &headers, name, Secret::new(b"wrong")).await.expect_err("it is wrong");
            assert_eq!(checked() - before, 1, "{name}, {cookie}");
            answers.push(refused);
        }
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(answers[0].status, StatusCode::UNAUTHORIZED);
}
