//! Operators, tokens, sessions, the first link.

use super::*;

on_both! {
    operators_come_change_and_go
    sessions_end_with_what_they_stand_on
    a_session_begins_for_the_operator_who_was_checked_alone
    no_session_outlives_a_reset_that_it_crosses
    browsers_are_known_until_the_password_changes
    sessions_are_seen_and_swept
    one_of_eight_takes_the_link
}

fn operator(name: &str, role: Role, tokens: &[&str]) -> Operator {
    let token = |token: &&str| Token {
        id: format!("{name}-{token}"),
        name: (*token).to_owned(),
        digest: audit::hex(&format!("{name} {token}")),
        created_at: at(1),
        expires_at: token.starts_with('x').then(|| at(100)),
    };
    let password = (role != Role::Viewer).then(|| "$argon2id$…".to_owned());
    Operator { name: name.to_owned(), role, password, created_at: at(0), tokens: tokens.iter().map(token).collect() }
}

fn session(digest: &str, operator: &str, begun: i64) -> Session {
    Session {
        digest: digest.to_owned(),
        operator: operator.to_owned(),
        csrf: "c".repeat(32),
        created_at: at(begun),
        seen_at: at(begun),
    }
}

async fn operators_come_change_and_go(ground: Ground) {
    let store = ground.store().await;
    let (anna, bert) = (operator("anna", Role::Admin, &["z", "x", "a"]), operator("bert", Role::Viewer, &["t"]));
    commit_accounts(&*store, vec![AccountChange::Operator(bert.clone()), AccountChange::Operator(anna.clone())]).await;
    assert_eq!(store.load().await.unwrap().operators, [anna.clone(), bert.clone()], "tokens stay in their order");
    let anna = operator("anna", Role::Operator, &["a", "new"]);
    let gone = AccountChange::DeletedOperator("bert".to_owned());
    commit_accounts(&*store, vec![AccountChange::Operator(anna.clone()), gone]).await;
    let head = store.head().await.unwrap();
    assert_eq!(store.catch_up(&head).await.unwrap().operators, [anna]);
    assert_eq!((head.revision, head.entries), (0, 2), "operators make entries, and no revisions");
    ground.run("UPDATE operators SET role = 'root'").await;
    assert_fails(store.load().await, StoreError::Damaged, "the operator anna");
}

async fn sessions_end_with_what_they_stand_on(ground: Ground) {
    let store = ground.store().await;
    let set = async |operator: Operator| commit_accounts(&*store, vec![AccountChange::Operator(operator)]).await;
    let (anna, bert) = (operator("anna", Role::Admin, &[]), operator("bert", Role::Operator, &[]));
    set(anna.clone()).await;
    set(bert.clone()).await;
    store.add_session(&session("s1", "anna", 0), &anna, "d").await.unwrap();
    store.add_session(&session("s2", "bert", 0), &bert, "d").await.unwrap();
    let lives = async |digest: &str| store.session(digest).await.unwrap().is_some();

    set(operator("anna", Role::Admin, &["new"])).await;
    assert!(lives("s1").await, "a new token ends nothing");
    set(operator("anna", Role::Viewer, &["new"])).await;
    assert!(!lives("s1").await && lives("s2").await, "another role does, for whom it is");
    let bert = Operator { password: Some("$argon2id$other".to_owned()), ..bert };
    set(bert.clone()).await;
    assert!(!lives("s2").await, "and so does another password");

    store.add_session(&session("s3", "bert", 0), &bert, "d").await.unwrap();
    commit_accounts(&*store, vec![AccountChange::DeletedOperator("bert".to_owned())]).await;
    assert!(!lives("s3").await);
}

/// Between the look at the password and the session, somebody may have changed the operator.
async fn a_session_begins_for_the_operator_who_was_checked_alone(ground: Ground) {
    let store = ground.store().await;
    let checked = operator("anna", Role::Admin, &[]);
    let set = async |operator: Operator| commit_accounts(&*store, vec![AccountChange::Operator(operator)]).await;
    let begin = async |digest: &str| store.add_session(&session(digest, "anna", 0), &checked, "d").await;
    let refused = async |digest: &str, why: &str| {
        assert!(matches!(begin(digest).await, Err(StoreError::Conflict)), "{why}");
        assert_eq!(store.session(digest).await.unwrap(), None, "{why}");
    };
    refused("s0", "there is none").await;
    set(Operator { tokens: operator("anna", Role::Admin, &["new"]).tokens, ..checked.clone() }).await;
    begin("s1").await.expect("a new token changes nothing of it");
    set(Operator { password: Some("$argon2id$other".to_owned()), ..checked.clone() }).await;
    refused("s2", "another password").await;
    set(Operator { password: None, ..checked.clone() }).await;
    refused("s3", "no password any more").await;
    set(Operator { role: Role::Viewer, ..checked.clone() }).await;
    refused("s4", "another role").await;
    commit_accounts(&*store, vec![AccountChange::DeletedOperator("anna".to_owned())]).await;
    refused("s5", "removed").await;
    let other = store.add_session(&session("s6", "bert", 0), &checked, "d").await;
    assert!(matches!(other, Err(StoreError::Conflict)), "somebody else's");
}

/// Whichever comes first: the session that began before the reset ends with it, and the one after it does not begin.
async fn no_session_outlives_a_reset_that_it_crosses(ground: Ground) {
    let store = ground.store().await;
    let other = ground.other(&store).await;
    let mut checked = operator("anna", Role::Admin, &[]);
    commit_accounts(&*store, vec![AccountChange::Operator(checked.clone())]).await;
    for round in 0..50 {
        let next = Operator { password: Some(format!("$argon2id${round}")), ..checked.clone() };
        let digest = format!("s{round}");
        let (under_way, was) = (session(&digest, "anna", 0), checked.clone());
        let begins = {
            let other = other.clone();
            tokio::spawn(async move { other.add_session(&under_way, &was, "d").await })
        };
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        commit_accounts(&*store, vec![AccountChange::Operator(next.clone())]).await;
        let begun = begins.await.unwrap();
        assert!(matches!(begun, Ok(()) | Err(StoreError::Conflict)), "{begun:?}");
        assert_eq!(store.session(&digest).await.unwrap(), None, "round {round}, {begun:?}");
        checked = next;
    }
}

async fn browsers_are_known_until_the_password_changes(ground: Ground) {
    let store = ground.store().await;
    let other = ground.other(&store).await;
    let mut anna = operator("anna", Role::Admin, &[]);
    let set = async |operator: Operator| commit_accounts(&*store, vec![AccountChange::Operator(operator)]).await;
    set(anna.clone()).await;
    let whose = async |digest: &str, since: i64| other.device(digest, at(since)).await.unwrap();
    assert_eq!(whose("d", 0).await, None);
    store.add_session(&session("s1", "anna", 10), &anna, "d").await.unwrap();
    assert_eq!(whose("d", 10).await.as_deref(), Some("anna"), "by all who have the store");
    assert_eq!((whose("d", 11).await, whose("e", 0).await), (None, None));
    anna.role = Role::Operator;
    set(anna.clone()).await;
    store.end_session("s1").await.unwrap();
    assert_eq!(whose("d", 10).await.as_deref(), Some("anna"), "another role and the end of the session change nothing");

    // The one that was signed in with longest ago makes room.
    for n in 0..50 {
        store.add_session(&session(&format!("m{n}"), "anna", 20 + n), &anna, &format!("d{n}")).await.unwrap();
    }
    assert_eq!((whose("d", 0).await, whose("d0", 0).await.as_deref()), (None, Some("anna")));
    let reset = Operator { password: Some("$argon2id$other".to_owned()), ..anna.clone() };
    set(reset.clone()).await;
    assert_eq!((whose("d0", 0).await, whose("d49", 0).await), (None, None), "another password");
    let late = store.add_session(&session("s2", "anna", 90), &anna, "d1").await;
    assert!(matches!(late, Err(StoreError::Conflict)));
    assert_eq!(whose("d1", 0).await, None, "what does not begin leaves nothing behind");
    store.add_session(&session("s3", "anna", 90), &reset, "d1").await.unwrap();
    commit_accounts(&*store, vec![AccountChange::DeletedOperator("anna".to_owned())]).await;
    assert_eq!(whose("d1", 0).await, None);
}

async fn sessions_are_seen_and_swept(ground: Ground) {
    let store = ground.store().await;
    let anna = operator("anna", Role::Admin, &[]);
    commit_accounts(&*store, vec![AccountChange::Operator(anna.clone())]).await;
    for (digest, begun) in [("old", 0), ("idle", 50), ("new", 60)] {
        store.add_session(&session(digest, "anna", begun), &anna, "d").await.unwrap();
    }
    store.see_session("old", at(100)).await.unwrap();
    store.see_session("old", at(90)).await.unwrap();
    store.see_session("nobody's", at(90)).await.unwrap();
    assert_eq!(store.session("old").await.unwrap(), Some(Session { seen_at: at(100), ..session("old", "anna", 0) }));
    let here = async || {
        let mut here = Vec::new();
        for digest in ["old", "idle", "new"] {
            here.extend(store.session(digest).await.unwrap().map(|_| digest));
        }
        here
    };
    store.sweep(at(0), at(60), at(0), at(0), 0).await.unwrap();
    assert_eq!(here().await, ["old", "new"], "not used for long");
    store.sweep(at(0), at(60), at(1), at(0), 0).await.unwrap();
    assert_eq!(here().await, ["new"], "begun long ago");
    store.end_session("new").await.unwrap();
    store.end_session("new").await.unwrap();
    assert!(here().await.is_empty());
}

async fn one_of_eight_takes_the_link(ground: Ground) {
    let store = ground.store().await;
    let other = ground.other(&store).await;
    assert!(!store.take_setup("d1").await.unwrap());
    store.set_setup("d1").await.unwrap();
    store.set_setup("d2").await.unwrap();
    assert!(!store.take_setup("d1").await.unwrap(), "a later one took its place");
    let takes = (0..8).map(|task| {
        let store = if task % 2 == 0 { store.clone() } else { other.clone() };
        tokio::spawn(async move { store.take_setup("d2").await.unwrap() })
    });
    let mut taken = 0;
    for take in takes.collect::<Vec<_>>() {
        taken += usize::from(take.await.unwrap());
    }
    assert_eq!(taken, 1);
    assert!(!other.take_setup("d2").await.unwrap());
}
