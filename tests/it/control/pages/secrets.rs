//! A secret is shown once: in the answer to the form that made it.

use super::{PASSWORD, Visitor, hidden, made, with_password};

/// The value of the field that shows it.
fn shown(page: &str) -> Option<String> {
    let (_, rest) = page.split_once("id=\"v-secret\" readonly value=\"")?;
    Some(rest.split_once('"')?.0.to_owned())
}

#[tokio::test]
async fn a_secret_is_shown_once_and_sending_the_form_again_makes_nothing() {
    let plane = with_password().start().await;
    let mut visitor = Visitor::signed_in(&plane).await;
    let once = hidden(&visitor.see("/keys/new").await, "once").unwrap();
    let fields = [("name", "Accounting"), ("owner", "svc"), ("permissions", "read"), ("once", &once), ("do", "mint")];
    let answer = visitor.fill("/keys/new", &fields).await;
    let page = answer.text();
    assert_eq!((answer.status, answer.field("cache-control")), (200, "no-store"), "{page}");
    let secret = shown(&page).expect("the secret");
    assert!(page.contains(&format!("API_CONSUMER_SECRET={secret}")) && page.contains("curl -u ck_"), "{page}");
    // A reload sends the form again.
    let again = visitor.fill("/keys/new", &fields).await;
    assert_eq!(again.status, 200);
    assert!(!again.text().contains(&secret) && shown(&again.text()).is_none());
    let key = made(&page);
    assert_eq!(made(&again.text()), key);
    // Rotating is the same.
    let once = hidden(&visitor.see(&format!("/keys/{key}/rotate")).await, "once").unwrap();
    let rotate = [("overlap", "24h"), ("once", once.as_str())];
    let rotated = visitor.fill(&format!("/keys/{key}/rotate"), &rotate).await.text();
    let new = shown(&rotated).expect("the new secret");
    assert_ne!(new, secret);
    assert!(shown(&visitor.fill(&format!("/keys/{key}/rotate"), &rotate).await.text()).is_none());
    // And no page knows it.
    let next = made(&rotated);
    let list = visitor.see("/keys").await;
    assert!(list.contains("2 keys"), "{list}");
    for target in [
        "/keys",
        "/keys.csv",
        "/audit",
        &format!("/keys/{key}"),
        &format!("/keys/{next}"),
        &format!("/keys/{next}/first-use"),
    ] {
        let page = visitor.see(target).await;
        assert!(!page.contains(&secret) && !page.contains(&new), "{target}");
        assert!(!page.contains("$hmac") && !page.contains("$argon"), "{target}");
    }
    // Nor a token of an operator.
    visitor.see("/operators/root").await;
    let made = visitor.fill("/operators/root", &[("do", "token"), ("token_name", "deploy script")]).await;
    let (_, rest) =
        made.text().split_once("id=\"v-token\" readonly value=\"").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let token = rest.split_once('"').unwrap().0.to_owned();
    assert!(token.starts_with("kop_") && made.field("cache-control") == "no-store");
    assert!(!visitor.see("/operators/root").await.contains(&token));
    // The log has none of all this, and neither has what is kept on disk.
    let session = visitor.session().unwrap().clone();
    let log = plane.log.all().join("\n");
    let mut kept = Vec::new();
    for file in ["control.db", "control.db-wal", "audit-anchor.ndjson"] {
        kept.extend(std::fs::read(plane.path(file)).unwrap_or_default());
    }
    assert!(!kept.is_empty());
    for hidden in [&secret, &new, &token, &session, PASSWORD] {
        assert!(!log.contains(hidden));
        assert!(!kept.windows(hidden.len()).any(|window| window == hidden.as_bytes()));
    }
}
