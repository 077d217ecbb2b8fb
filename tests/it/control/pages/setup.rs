//! The first operator: the link works once.

use serde_json::Value;

use super::{PASSWORD, Visitor};
use crate::harness::Plane;

/// What the control plane printed at its start.
async fn link(plane: &Plane) -> String {
    let find = |line: &str| line.split_once("/setup?token=").map(|(_, token)| token.trim().to_owned());
    plane.out.find("the set-up link", find).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_eight_who_have_the_link_one_is_let_in() {
    let plane = Plane::start().await;
    let token = link(&plane).await;
    assert!(token.len() >= 43, "256 bits");
    let race = async |n: usize| {
        let mut visitor = Visitor::new(&plane);
        assert_eq!(visitor.look(&format!("/setup?token={token}")).await.status, 200);
        let name = format!("first-{n}");
        let fields = [("token", token.as_str()), ("name", &name), ("password", PASSWORD), ("again", PASSWORD)];
        let status = visitor.fill("/setup", &fields).await.status;
        (status, visitor.is_in().await)
    };
    let mut ends = futures_util::future::join_all((0..8).map(race)).await;
    ends.sort_unstable();
    let mut expected = vec![(410, false); 8];
    expected[0] = (303, true);
    assert_eq!(ends, expected);
    let operators = plane.api("GET", "/v1/operators", &Value::Null).await;
    let named = operators["operators"].as_array().unwrap().iter();
    let firsts: Vec<_> = named.filter(|operator| operator["name"].as_str().unwrap().starts_with("first-")).collect();
    assert_eq!(firsts.len(), 1, "{operators}");
    assert_eq!(firsts[0]["role"], "admin");
    // Nor later, and the page is gone.
    let mut late = Visitor::new(&plane);
    assert_eq!(late.look(&format!("/setup?token={token}")).await.status, 410);
    late.look("/sign-in").await;
    let fields = [("token", token.as_str()), ("name", "late"), ("password", PASSWORD), ("again", PASSWORD)];
    assert_eq!(late.fill("/setup", &fields).await.status, 410);
}

#[tokio::test]
async fn a_slip_does_not_use_the_link_up() {
    let plane = Plane::start().await;
    let token = link(&plane).await;
    let mut visitor = Visitor::new(&plane);
    visitor.look(&format!("/setup?token={token}")).await;
    let rows = [
        ("", PASSWORD, PASSWORD, "f-name"),
        ("a b", PASSWORD, PASSWORD, "f-name"),
        // There is one of this name, with a token of the configuration: that does not become an admin's.
        ("root", PASSWORD, PASSWORD, "f-name"),
        ("ada", "short", "short", "f-password"),
        ("ada", "password1234", "password1234", "f-password"),
        ("ada-the-first", "Ada-the-First", "Ada-the-First", "f-password"),
        ("ada", PASSWORD, "another password", "f-again"),
    ];
    for (name, password, again, anchor) in rows {
        let fields = [("token", token.as_str()), ("name", name), ("password", password), ("again", again)];
        let answer = visitor.fill("/setup", &fields).await;
        let text = answer.text();
        assert_eq!(answer.status, 422, "{name}: {text}");
        assert!(text.contains(&format!("href=\"#{anchor}\"")), "{name}: {text}");
        assert!(!text.contains(&format!("value=\"{password}\"")), "a password does not come back");
    }
    let wrong = [("token", "0000"), ("name", "eve"), ("password", PASSWORD), ("again", PASSWORD)];
    assert_eq!(visitor.fill("/setup", &wrong).await.status, 410);
    visitor.look(&format!("/setup?token={token}")).await;
    let fields = [("token", token.as_str()), ("name", "ada"), ("password", PASSWORD), ("again", PASSWORD)];
    assert_eq!(visitor.fill("/setup", &fields).await.status, 303);
    assert!(visitor.is_in().await);
}

#[tokio::test]
async fn a_new_start_shows_a_new_link_and_the_old_one_is_void() {
    let plane = Plane::start().await;
    let old = link(&plane).await;
    let plane = plane.crash_and_restart().await;
    let new = link(&plane).await;
    assert_ne!(old, new);
    let mut visitor = Visitor::new(&plane);
    visitor.look(&format!("/setup?token={old}")).await;
    let fields = |token| [("token", token), ("name", "ada"), ("password", PASSWORD), ("again", PASSWORD)];
    assert_eq!(visitor.fill("/setup", &fields(old.as_str())).await.status, 410);
    visitor.look(&format!("/setup?token={new}")).await;
    assert_eq!(visitor.fill("/setup", &fields(new.as_str())).await.status, 303);
}
