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
        let ada = checked(&bench.desk, PEER, &headers, "ada", Secret::new(password), clock::now())
            .await
            .expect("her password");
        change(&bench, row.clone()).await;
        let refused = begin(&bench.desk, PEER, &headers, &ada).await.expect_err("it was changed meanwhile");
        assert_eq!((refused.status, refused.code), (StatusCode::CONFLICT, "changed_meanwhile"), "{row:?}");
        password = if row.password.is_some() { b"another password of hers" } else { password };
    }
}
