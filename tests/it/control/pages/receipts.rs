//! What the page of a receipt says was done: what was, whatever its address says.

use serde_json::json;

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

    // Suspended once more: who has the first suspension may have been told that it was lifted.
    plane.api("PATCH", "/v1/owners/svc", &json!({ "suspended": true })).await;
    assert_eq!(title(&mut visitor, &format!("/receipts/{suspended}?owner=svc")).await, format!("Revision {suspended}"));

    // One number, one address: as the API has it.
    for none in ["+002", "002", "-1", "%2B2", "x", "", "99999", "18446744073709551616"] {
        assert_eq!(visitor.look(&format!("/receipts/{none}")).await.status, 404, "{none}");
    }
}

/// The suspension ends with the row.
#[tokio::test]
async fn a_suspension_is_over_once_the_owner_is_deleted() {
    let plane: Plane = with_password().start().await;
    let mut visitor = Visitor::signed_in(&plane).await;
    plane.api("POST", "/v1/owners", &json!({ "id": "gone" })).await;
    visitor.see("/owner?id=gone").await;
    let (suspended, says) = sent(&mut visitor, "/owner?id=gone", &[("id", "gone"), ("do", "suspend")]).await;
    assert_eq!(says, "The owner is suspended");
    let receipt = format!("/receipts/{suspended}?owner=gone");
    plane.api("PATCH", "/v1/owners/gone", &json!({ "name": "Gone" })).await;
    assert_eq!(title(&mut visitor, &receipt).await, "The owner is suspended", "as before");
    plane.api("DELETE", "/v1/owners/gone", &json!(null)).await;
    visitor.mint("works", "gone").await;
    assert_eq!(title(&mut visitor, &receipt).await, format!("Revision {suspended}"));
}

/// What a change took may have been given back by the next one; and an address changes nothing.
#[tokio::test]
async fn what_was_changed_is_said_of_the_change_alone() {
    let plane: Plane = with_password().start().await;
    let mut visitor = Visitor::signed_in(&plane).await;
    let key = made(&visitor.mint("key", "svc").await.text());
    plane.api("POST", "/v1/owners", &json!({ "id": "svc", "capabilities": ["one"] })).await;
    let (key_page, owner_page) = (format!("/keys/{key}"), "/owner?id=svc".to_owned());
    for (kind, api, page, less, more) in [
        (
            "key",
            format!("/v1{key_page}"),
            format!("{key_page}?"),
            json!({ "limits": ["1/1h"] }),
            json!({ "limits": [] }),
        ),
        (
            "owner",
            "/v1/owners/svc".to_owned(),
            format!("{owner_page}&"),
            json!({ "capabilities": [] }),
            json!({ "capabilities": ["one"] }),
        ),
    ] {
        let subject = if kind == "key" { key.as_str() } else { "svc" };
        let claim = format!("The {kind} was changed.");
        let revision = async |change| plane.api("PATCH", &api, change).await["revision"].as_u64().unwrap();
        let first = revision(&less).await;
        let receipt = format!("/receipts/{first}?{kind}={subject}");
        assert_eq!(title(&mut visitor, &receipt).await, format!("The {kind} is changed"));
        let second = revision(&more).await;
        assert_eq!(title(&mut visitor, &receipt).await, format!("Revision {first}"));
        let receipt = format!("/receipts/{second}?{kind}={subject}");
        assert_eq!(title(&mut visitor, &receipt).await, format!("The {kind} is changed"));
        for (number, expected) in [(first, true), (second, true), (first - 1, false), (second + 1, false), (1, false)] {
            let says = visitor.see(&format!("{page}changed={number}")).await.contains(&claim);
            assert_eq!(says, expected, "{kind} {number}");
        }
    }
}
