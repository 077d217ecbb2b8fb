//! What the page of a receipt says was done: what was, whatever its address says.

use super::{Visitor, made, with_password};
use crate::harness::Plane;

/// The title of this page.
async fn title(visitor: &mut Visitor<'_>, target: &str) -> String {
    let page = visitor.see(target).await;
    let (_, rest) = page.split_once("<h1>").unwrap();
    rest.split_once("</h1>").unwrap().0.to_owned()
}

/// Sends a form, and gives the revision of the receipt that it leads to; with its title.
async fn sent(visitor: &mut Visitor<'_>, form: &str, fields: &[(&str, &str)]) -> (u64, String) {
    visitor.see(form).await;
    let answer = visitor.fill(form.split('?').next().unwrap(), fields).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    let target = answer.field("location").to_owned();
    let number = target.trim_start_matches("/receipts/").split('?').next().unwrap().parse().unwrap();
    (number, title(visitor, &target).await)
}

#[tokio::test]
async fn a_receipt_says_only_what_was_done() {
    let plane: Plane = with_password().start().await;
    let mut visitor = Visitor::signed_in(&plane).await;
    let (works, goes) =
        (made(&visitor.mint("works", "svc").await.text()), made(&visitor.mint("goes", "svc").await.text()));
    let (revoked, says) = sent(&mut visitor, &format!("/keys/{goes}/revoke"), &[]).await;
    assert_eq!(says, "The key is revoked");
    let before = revoked - 1;
    for (target, expected) in [
        // It works.
        (format!("/receipts/{revoked}?key={works}"), format!("Revision {revoked}")),
        (format!("/receipts/{revoked}?did=delete&key={works}"), format!("Revision {revoked}")),
        (format!("/receipts/{revoked}?owner=svc"), format!("Revision {revoked}")),
        (format!("/receipts/{revoked}?key=key_none"), format!("Revision {revoked}")),
        (format!("/receipts/{revoked}"), format!("Revision {revoked}")),
        // Then it still worked.
        (format!("/receipts/{before}?key={goes}"), format!("Revision {before}")),
        (format!("/receipts/{revoked}?key={goes}"), "The key is revoked".to_owned()),
    ] {
        assert_eq!(title(&mut visitor, &target).await, expected, "{target}");
    }
    let (deleted, says) = sent(&mut visitor, &format!("/keys/{goes}/delete"), &[("name", "goes")]).await;
    assert_eq!(says, "The key is deleted");
    // Its revocation stays what it was.
    assert_eq!(title(&mut visitor, &format!("/receipts/{revoked}?key={goes}")).await, "The key is revoked");

    visitor.see("/owners/new").await;
    assert_eq!(visitor.fill("/owners/new", &[("id", "svc"), ("kyc", "none")]).await.status, 303);
    let suspend = [("id", "svc"), ("do", "suspend")];
    let (suspended, says) = sent(&mut visitor, "/owner?id=svc", &suspend).await;
    assert_eq!(says, "The owner is suspended");
    visitor.see("/owner?id=svc").await;
    assert_eq!(visitor.fill("/owner", &[("id", "svc"), ("do", "lift")]).await.status, 303);
    let lifted = title(&mut visitor, &format!("/receipts/{suspended}?owner=svc")).await;
    assert_eq!(lifted, format!("Revision {suspended}"));
    assert!(suspended > deleted);

    // One number, one address: as the API has it.
    for none in ["+002", "002", "-1", "%2B2", "x", "", "99999", "18446744073709551616"] {
        assert_eq!(visitor.look(&format!("/receipts/{none}")).await.status, 404, "{none}");
    }
}
