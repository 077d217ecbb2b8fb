//! Sessions: they begin anew, end when they should, and cannot be guessed one's way into.

use std::{fs, process::Command};

use super::{PASSWORD, Visitor, local, with_password};
use crate::harness::{eventually, get};
use serde_json::{Value, json};

/// Over plain HTTP on loopback; over TLS the name has the `__Host-` prefix, see below.
#[tokio::test]
async fn the_cookie_is_for_this_host_and_no_script() {
    let plane = with_password().start().await;
    let mut visitor = Visitor::new(&plane);
    let answer = visitor.sign_in("root", PASSWORD).await;
    let cookies = answer.all("set-cookie");
    let session = cookies.iter().find(|cookie| cookie.starts_with("keyside=")).expect("the session's cookie");
    let (value, flags) = session.strip_prefix("keyside=").unwrap().split_once("; ").unwrap();
    assert_eq!(value.len(), 64);
    assert_eq!(flags, "Path=/; HttpOnly; SameSite=Strict");
    // Where a trusted proxy says that it speaks TLS to the browser, the prefix and Secure are there.
    let plane = with_password().config("[listen]\ntrusted_proxies = [\"127.0.0.1\"]").start().await;
    let answer = plane.ask(get("/sign-in").host("keys.test").field("X-Forwarded-Proto", "https")).await;
    let cookie = answer.field("set-cookie").to_owned();
    assert!(cookie.starts_with("__Host-keyside-form="), "{cookie}");
    assert!(cookie.ends_with("; Path=/; Secure; HttpOnly; SameSite=Strict"), "{cookie}");
    // And where that is what people type, no other cookie is believed.
    let plane = with_password().config("[listen]\npublic_url = \"https://keys.test\"").start().await;
    let answer = plane.ask(get("/sign-in").host("keys.test")).await;
    assert!(answer.field("set-cookie").starts_with("__Host-keyside-form="), "{}", answer.field("set-cookie"));
}

#[tokio::test]
async fn a_session_begins_anew_at_each_sign_in() {
    let plane = with_password().start().await;
    let planted = "ab".repeat(32);
    let mut visitor = Visitor::new(&plane);
    visitor.cookies.insert("keyside".to_owned(), planted.clone());
    visitor.sign_in("root", PASSWORD).await;
    let first = visitor.session().unwrap().clone();
    assert_ne!(first, planted);
    // Signing in once more ends the one before, in the store.
    visitor.sign_in("root", PASSWORD).await;
    assert_ne!(*visitor.session().unwrap(), first);
    assert!(visitor.is_in().await);
    for dead in [planted, first] {
        let mut thief = Visitor::new(&plane);
        thief.cookies.insert("keyside".to_owned(), dead);
        assert!(!thief.is_in().await);
    }
}

#[tokio::test]
async fn what_ends_a_session_ends_it_in_the_store() {
    let plane = with_password().start().await;
    // Signing out.
    let mut visitor = Visitor::signed_in(&plane).await;
    let (kept, secret) = (visitor.session().unwrap().clone(), visitor.csrf.clone());
    visitor.see("/keys").await;
    let answer = visitor.fill("/sign-out", &[]).await;
    assert_eq!((answer.status, answer.field("location")), (303, "/sign-in"), "{secret}");
    assert_eq!(visitor.session(), None);
    let mut thief = Visitor::new(&plane);
    thief.cookies.insert("keyside".to_owned(), kept);
    assert!(!thief.is_in().await);
    // Another password ends all others, and gives this browser a new one.
    let (mut here, mut there) = (Visitor::signed_in(&plane).await, Visitor::signed_in(&plane).await);
    let before = here.session().unwrap().clone();
    here.see("/account").await;
    let new = "another password of theirs";
    let answer = here.fill("/account", &[("current", PASSWORD), ("password", new), ("again", new)]).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert!(here.is_in().await && !there.is_in().await);
    assert_ne!(*here.session().unwrap(), before);
    assert_eq!(there.sign_in("root", PASSWORD).await.status, 401);
    assert_eq!(there.sign_in("root", new).await.status, 303);
    // Another role, and the end of the operator.
    here.see("/operators/new").await;
    let ada = [("name", "ada"), ("role", "operator"), ("password", "a password of hers")];
    assert_eq!(here.fill("/operators/new", &ada).await.status, 303);
    let mut ada = Visitor::new(&plane);
    assert_eq!(ada.sign_in("ada", "a password of hers").await.status, 303);
    here.see("/operators/ada").await;
    assert_eq!(here.fill("/operators/ada", &[("do", "role"), ("role", "viewer")]).await.status, 303);
    assert!(!ada.is_in().await);
    assert_eq!(ada.sign_in("ada", "a password of hers").await.status, 303);
    assert_eq!(here.fill("/operators/ada", &[("do", "remove")]).await.status, 303);
    assert!(!ada.is_in().await);
    assert_eq!(ada.sign_in("ada", "a password of hers").await.status, 401);
}

/// By a wall clock that the test sets.
#[tokio::test]
async fn a_session_ends_when_it_is_not_used_and_in_the_end_whatever_its_use() {
    let library = Command::new("faketime").args(["-f", "+0", "printenv", "LD_PRELOAD"]).output();
    let library = String::from_utf8(library.expect("faketime, a package of Debian").stdout).unwrap();
    let builder = with_password().config("[pages]\nsession_idle = \"30m\"\nsession_max = \"2h\"");
    let clock = builder.folder().join("clock");
    fs::write(&clock, "+0").unwrap();
    let words = [
        "env".to_owned(),
        format!("LD_PRELOAD={}", library.trim()),
        format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        "NO_FAKE_STAT=1".to_owned(),
    ];
    let plane = builder.through(words).start().await;
    let at = |minutes: u64| fs::write(&clock, format!("+{}", minutes * 60)).unwrap();
    let mut idle = Visitor::signed_in(&plane).await;
    let mut busy = Visitor::signed_in(&plane).await;
    for minutes in [20, 40, 60, 80, 100, 115] {
        at(minutes);
        assert!(busy.is_in().await, "{minutes}");
    }
    assert!(!idle.is_in().await);
    at(121);
    assert!(!busy.is_in().await);
    // Dead is dead, also when the clock goes back.
    at(10);
    assert!(!idle.is_in().await && !busy.is_in().await);
}

#[tokio::test]
async fn nobody_guesses_a_password() {
    let plane = with_password().start().await;
    // Wrong names and wrong passwords get the same answer.
    let mut answers = Vec::new();
    for (name, password) in [("root", "wrong wrong wrong"), ("nobody", PASSWORD), ("ROOT", PASSWORD), ("root", "")] {
        let mut visitor = Visitor::new(&plane);
        visitor.from = Some(local([0, 0, 2]));
        let answer = visitor.sign_in(name, password).await;
        let text = answer.text().replace(&visitor.csrf, "CSRF").replace(&format!("value=\"{name}\""), "value=\"NAME\"");
        answers.push((answer.status, text));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(answers[0].0, 401);
    // Ten failures of an address, and it waits, even with the right password; others do not, however often it asks.
    let mut visitor = Visitor::new(&plane);
    visitor.from = Some(local([0, 0, 3]));
    for _ in 0..10 {
        assert_eq!(visitor.sign_in("root", "wrong wrong wrong").await.status, 401);
    }
    for _ in 0..15 {
        assert_eq!(visitor.sign_in("root", PASSWORD).await.status, 429);
    }
    Visitor::signed_in(&plane).await;
    // Twenty for one account, from wherever they come; also for one that there is not.
    let mut answers = Vec::new();
    for name in ["root", "nobody"] {
        for n in 0..25 {
            let mut visitor = Visitor::new(&plane);
            visitor.from = Some(local([1, if name == "root" { 1 } else { 2 }, n + 1]));
            visitor.sign_in(name, "wrong wrong wrong").await;
        }
        let mut visitor = Visitor::new(&plane);
        visitor.from = Some(local([1, 3, 1]));
        answers.push(visitor.sign_in(name, "wrong wrong wrong").await);
    }
    for answer in &answers {
        assert_eq!(answer.status, 429);
        let wait: u64 = answer.field("retry-after").parse().unwrap();
        assert!((1..=900).contains(&wait), "{wait}");
        let said = format!("Try again in {} min {} s", wait / 60, wait % 60);
        assert!(answer.text().contains(&said), "{said}: {}", answer.text());
    }
    // No password, and no name that might be one, is in the log.
    eventually("the log", async || {
        plane.log.all().iter().any(|line| line.contains("sign-in refused")).then_some(()).ok_or(())
    })
    .await;
    let log = plane.log.all().join("\n");
    assert!(!log.contains("wrong wrong wrong") && !log.contains(PASSWORD) && !log.contains("nobody"), "{log}");
}

/// Guesses from elsewhere keep an operator out of no browser that they have signed in with; and of others not for long.
#[tokio::test]
async fn nobody_is_locked_out_of_their_own_browser() {
    let plane = with_password().start().await;
    let mut own = Visitor::signed_in(&plane).await;
    own.see("/keys").await;
    own.fill("/sign-out", &[]).await;
    assert!(own.session().is_none() && own.cookies.contains_key("keyside-device"));
    // Also from the very address of the operator.
    for (n, guesses) in [(1, 12), (2, 12), (3, 12)] {
        let mut guesser = Visitor::new(&plane);
        guesser.from = (n > 1).then(|| local([2, 0, n]));
        for _ in 0..guesses {
            assert_ne!(guesser.sign_in("root", "wrong wrong wrong").await.status, 303);
        }
    }
    let mut fresh = Visitor::new(&plane);
    fresh.from = Some(local([2, 1, 1]));
    assert_eq!(fresh.sign_in("root", PASSWORD).await.status, 429);
    // What somebody makes up, or has of another operator, is no such browser.
    let mut forger = Visitor::new(&plane);
    forger.cookies.insert("keyside-device".to_owned(), "ab".repeat(32));
    assert_eq!(forger.sign_in("root", PASSWORD).await.status, 429);
    let device = own.cookies["keyside-device"].clone();
    assert_eq!(own.sign_in("root", PASSWORD).await.status, 303);
    assert!(own.is_in().await);
    assert_eq!(own.cookies["keyside-device"], device, "it goes on to be known");
    own.see("/operators/new").await;
    let fields = [("name", "ada"), ("role", "operator"), ("password", PASSWORD)];
    assert_eq!(own.fill("/operators/new", &fields).await.status, 303);
    let mut ada = Visitor::new(&plane);
    ada.from = Some(local([2, 1, 2]));
    assert_eq!(ada.sign_in("ada", PASSWORD).await.status, 303);
    assert_eq!(ada.sign_in("root", PASSWORD).await.status, 429);
    // Another password, and no browser is known any more but the one where it was changed.
    own.see("/account").await;
    let new = "another password of theirs";
    assert_eq!(own.fill("/account", &[("current", PASSWORD), ("password", new), ("again", new)]).await.status, 303);
    assert_ne!(own.cookies["keyside-device"], device);
    let mut old = Visitor::new(&plane);
    old.cookies.insert("keyside-device".to_owned(), device);
    assert_eq!(old.sign_in("root", new).await.status, 429);
    assert_eq!(own.sign_in("root", new).await.status, 303);
}

/// Many at once: no attempt slips past the count because others are still being checked.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_at_the_same_time_are_all_counted() {
    let plane = with_password().start().await;
    let attempt = async |n: usize| {
        let mut visitor = Visitor::new(&plane);
        visitor.from = Some(local([0, 0, 4]));
        visitor.sign_in("root", &format!("wrong wrong wrong {n}")).await.status
    };
    let statuses = futures_util::future::join_all((0..20).map(attempt)).await;
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 10, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 10, "{statuses:?}");
}

/// Signing in and out is in the audit log.
#[tokio::test]
async fn who_was_there_is_on_record() {
    let plane = with_password().start().await;
    let mut visitor = Visitor::signed_in(&plane).await;
    visitor.see("/keys").await;
    visitor.fill("/sign-out", &[]).await;
    let page = plane.api("GET", "/v1/audit?limit=10", &Value::Null).await;
    let found: Vec<_> =
        page["entries"].as_array().unwrap().iter().map(|entry| (&entry["action"], &entry["actor"])).collect();
    let (begin, end, root) = (json!("session.begin"), json!("session.end"), json!("operator:root"));
    assert!(found.contains(&(&begin, &root)) && found.contains(&(&end, &root)), "{found:?}");
}
