//! What people and callers write is text on a page, and nothing else.

use serde_json::{Value, json};

use super::{Visitor, made, with_password};
use crate::harness::{Plane, Request, SYNC_TOKEN, get, post};

const ATTACKS: [&str; 5] = [
    "<img src=x onerror=alert(1)>",
    "\"><script>alert(2)</script>",
    "' autofocus onfocus=alert(3) x='",
    "</textarea></title><svg onload=alert(4)>",
    "javascript:alert(5)",
];

/// Nothing on the page that begins a tag or leaves an attribute comes from what was written.
#[track_caller]
fn check(target: &str, page: &str) {
    for bad in [
        "<img",
        "<script>",
        "<svg onload",
        "</textarea></title>",
        "\"><",
        "' autofocus onfocus=alert(3) x='",
        "href=\"javascript",
    ] {
        // A button that stands in an attribute's place is ours: `…"><td>`.
        if bad == "\"><" {
            assert!(!page.contains("\"><script>alert"), "{target}: {bad}");
        } else if bad.starts_with('\'') {
            assert!(!page.contains(bad), "{target}: {bad}");
        } else {
            assert!(!page.contains(bad), "{target}: {bad}\n{page}");
        }
    }
}

#[tokio::test]
async fn what_was_written_is_text_wherever_it_is_shown() {
    let plane = with_password().start().await;
    let mut visitor = Visitor::signed_in(&plane).await;
    let mut targets: Vec<String> =
        ["/keys", "/owners", "/sidecars", "/audit", "/operators", "/operators/root", "/keys/new?owner=svc"]
            .map(str::to_owned)
            .into();
    for (number, attack) in ATTACKS.into_iter().enumerate() {
        // Ids have no spaces; all else of it they may have.
        let owner = format!("o{number}{}", attack.replace(' ', "/"));
        visitor.see("/owners/new").await;
        let fields = [
            ("id", owner.as_str()),
            ("name", attack),
            ("capabilities", &attack.replace(' ', "/")),
            ("kyc", "none"),
            ("plan", attack),
        ];
        let answer = visitor.fill("/owners/new", &fields).await;
        check("owner", &answer.text());
        let answer = visitor.mint(attack, &owner).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        check("made", &answer.text());
        let key = made(&answer.text());
        for end in ["", "/change", "/rotate", "/revoke", "/delete"] {
            targets.push(format!("/keys/{key}{end}"));
        }
        visitor.see("/operators/root").await;
        check("token", &visitor.fill("/operators/root", &[("do", "token"), ("token_name", attack)]).await.text());
        let escaped = super::escaped(attack);
        for (path, names) in [
            ("/keys", &["search", "owner", "scope", "status", "environment"][..]),
            ("/owners", &["search"]),
            ("/audit", &["actor", "action", "subject"]),
            ("/keys/new", &["owner"]),
            ("/sign-in", &["next"]),
            ("/owners/new", &["id"]),
            ("/receipts/1", &["key", "owner"]),
        ] {
            targets.extend(names.iter().map(|name| format!("{path}?{name}={escaped}")));
        }
        targets.push(format!("/owner?id={}", super::escaped(&owner)));
        // A form that comes back.
        visitor.see("/keys/new").await;
        let fields = [
            ("name", attack),
            ("owner", attack),
            ("allow_ips", attack),
            ("limits", attack),
            ("expires_at", attack),
            ("once", attack),
        ];
        check("form", &visitor.fill("/keys/new", &fields).await.text());
        check("missing", &visitor.look(&format!("/{escaped}")).await.text());
        check("key", &visitor.look(&format!("/keys/{escaped}")).await.text());
        // A sidecar's name for itself, and what it reports of a key: reasons, addresses.
        report(&plane, &key, attack, number).await;
    }
    for target in targets {
        let answer = visitor.look(&target).await;
        assert!(matches!(answer.status, 200 | 400 | 404 | 422), "{target}: {}", answer.status);
        check(&target, &answer.text());
    }
}

/// What a sidecar that lies might send: of itself, and, once it is registered, of this history.
async fn report(plane: &Plane, key: &str, attack: &str, number: usize) {
    let secret = format!("secret-of-the-sidecar-that-lies-{number}");
    let ask =
        async |request: Request| plane.ask(request.bearer(SYNC_TOKEN).field("Keyside-Instance-Secret", &secret)).await;
    let instance = format!("lies.{number}");
    let set = ask(get(&format!("/sync/v1/keys?instance={instance}"))).await;
    assert_eq!(set.status, 200, "{}", set.text());
    let head: Value = serde_json::from_str(set.text().lines().next().unwrap()).unwrap();
    let used = |ip: &str| {
        json!([{ "key": key, "last_used_at": "2026-11-21T00:00:00Z", "last_ip": ip, "allowed": 1, "refused": 1,
            "refusals": { attack: 1, "revoked": 1 }, "last_refusal": { "reason": attack, "at": "2026-11-21T00:00:00Z", "ip": ip } }])
    };
    let (revision, epoch) = (&head["revision"], &head["epoch"]);
    for (instance, ip, status) in [
        (format!("<b>{attack}.{number}"), "192.0.2.1", 422),
        (instance.clone(), attack, 422),
        (instance, "192.0.2.1", 200),
    ] {
        let report = json!({
            "instance": instance, "epoch": epoch, "revision": revision, "durable": true, "seq": 1, "usage": used(ip),
        });
        let request = post("/sync/v1/report", report.to_string()).field("Content-Type", "application/json");
        let answer = ask(request).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
}

#[tokio::test]
async fn no_cell_of_the_export_is_a_formula() {
    let plane = with_password().start().await;
    let mut visitor = Visitor::signed_in(&plane).await;
    for name in ["=HYPERLINK(\"https://evil.test\",\"x\")", "+1", "-1", "@SUM(1)", "Accounting, export"] {
        assert_eq!(visitor.mint(name, "svc").await.status, 200);
    }
    let answer = visitor.look("/keys.csv").await;
    assert_eq!((answer.status, answer.field("content-type")), (200, "text/csv; charset=utf-8"));
    assert!(answer.field("content-disposition").starts_with("attachment"));
    let text = answer.text();
    assert_eq!(text.lines().count(), 6, "{text}");
    assert!(text.contains("\"'=HYPERLINK(\"\"https://evil.test\"\",\"\"x\"\")\""), "{text}");
    for start in ["\"'+1\"", "\"'-1\"", "\"'@SUM(1)\"", "\"Accounting, export\""] {
        assert!(text.contains(start), "{text}");
    }
    assert!(!text.split("\",\"").any(|cell| cell.trim_start_matches('"').starts_with(['=', '+', '@'])), "{text}");
}
