//! Whose forms are believed: those of our own page, of this very session. And a look changes nothing.

use serde_json::Value;

use super::{PASSWORD, Visitor, hidden, listed, made, with_password};
use crate::harness::{Plane, Received, Request, get};

/// What a browser says of where a form comes from.
type Told<'a> = &'a [(&'a str, &'a str)];

/// How many audit entries there are, and the revision: what every change moves.
async fn head(plane: &Plane) -> Value {
    plane.api("GET", "/v1/audit?limit=1", &Value::Null).await["head"].take()
}

/// Each form with fields that would work.
fn forms(key: &str) -> Vec<(String, Vec<(&'static str, String)>)> {
    let text = |text: &str| text.to_owned();
    let minting = || vec![("name", text("forged")), ("owner", text("svc")), ("permissions", text("read"))];
    vec![
        (text("/sign-out"), vec![]),
        (text("/keys/new"), minting()),
        (text("/keys/sentence"), minting()),
        (format!("/keys/{key}/change"), minting()),
        (format!("/keys/{key}/rotate"), vec![("overlap", text("1h"))]),
        (format!("/keys/{key}/revoke"), vec![]),
        (format!("/keys/{key}/delete"), vec![("name", text("victim"))]),
        (text("/owners/new"), vec![("id", text("forged")), ("kyc", text("none"))]),
        (text("/owner"), vec![("id", text("svc")), ("do", text("suspend"))]),
        (text("/sidecars"), vec![("instance", text("a.b"))]),
        (text("/operators/new"), vec![("name", text("eve")), ("role", text("admin")), ("password", text(PASSWORD))]),
        (text("/operators/root"), vec![("do", text("token")), ("token_name", text("forged"))]),
        (
            text("/account"),
            vec![("current", text(PASSWORD)), ("password", text("forged forged")), ("again", text("forged forged"))],
        ),
    ]
}

fn as_request(visitor: &Visitor<'_>, path: &str, fields: &[(&'static str, String)], csrf: &str) -> Request {
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    visitor.form(path, &fields, csrf)
}

#[tokio::test]
async fn no_other_site_sends_a_form() {
    let plane = with_password().start().await;
    let mut visitor = Visitor::signed_in(&plane).await;
    visitor.see("/owners/new").await;
    assert_eq!(visitor.fill("/owners/new", &[("id", "svc"), ("kyc", "none")]).await.status, 303);
    let key = made(&visitor.mint("victim", "svc").await.text());
    let mut other = Visitor::signed_in(&plane).await;
    other.see("/keys").await;
    visitor.see("/keys").await;
    let (ours, theirs) = (visitor.csrf.clone(), other.csrf.clone());
    assert_ne!(ours, theirs);
    let forms = forms(&key);
    // What posts, without the two for strangers, which are below.
    let posts =
        listed().into_iter().filter(|(path, _, posts)| *posts && path != "/sign-in" && path != "/setup").count();
    assert_eq!(forms.len(), posts, "a form is missing here");
    let before = head(&plane).await;
    let (origin, host) = (visitor.origin(), visitor.host());
    for (path, fields) in &forms {
        let good = [("Origin", origin.as_str()), ("Sec-Fetch-Site", "same-origin")];
        let rows: [(&str, &str, Told<'_>); 11] = [
            ("no secret", "", &good),
            ("another session's secret", &theirs, &good),
            ("a longer secret", &format!("{ours}0"), &good),
            ("a foreign origin", &ours, &[("Origin", "https://evil.test")]),
            ("an origin with another port", &ours, &[("Origin", "http://127.0.0.1:1")]),
            ("an origin over TLS", &ours, &[("Origin", &format!("https://{host}"))]),
            ("an origin that is null", &ours, &[("Origin", "null")]),
            ("no word of where it comes from", &ours, &[]),
            ("another site, says the browser", &ours, &[("Origin", &origin), ("Sec-Fetch-Site", "cross-site")]),
            ("a neighbour, says the browser", &ours, &[("Origin", &origin), ("Sec-Fetch-Site", "same-site")]),
            (
                "a foreign origin on the same site",
                &ours,
                &[("Origin", "http://evil.test"), ("Sec-Fetch-Site", "same-origin")],
            ),
        ];
        for (what, secret, told) in rows {
            let mut request = as_request(&visitor, path, fields, secret);
            for (name, value) in told {
                request = request.field(name, value);
            }
            let answer = visitor.send(request).await;
            assert_eq!(answer.status, 403, "{path}, {what}: {}", answer.text());
        }
        // Text and multipart can be sent by a form on any page; both are no form of ours.
        for kind in ["text/plain", "multipart/form-data; boundary=x", "application/json"] {
            let request = crate::harness::post(path, format!("csrf={ours}")).host(&host).field("Content-Type", kind);
            let answer = visitor.send(request.field("Origin", &origin)).await;
            assert_eq!(answer.status, 415, "{path}, {kind}");
        }
        // Without a session there is nothing to forge.
        let request = as_request(&visitor, path, fields, &ours).field("Origin", &origin);
        let answer = Visitor::new(&plane).send(request).await;
        assert_eq!(answer.status, 401, "{path}");
    }
    assert_eq!(head(&plane).await, before);
    assert!(visitor.is_in().await);
}

/// Somebody else's sign-in must not be forced on a browser either.
#[tokio::test]
async fn the_forms_for_strangers_are_guarded_too() {
    let plane = with_password().start().await;
    let mut visitor = Visitor::new(&plane);
    visitor.look("/sign-in").await;
    let fields = [("name", "root"), ("password", PASSWORD)];
    let (origin, secret) = (visitor.origin(), visitor.csrf.clone());
    let mut stranger = Visitor::new(&plane);
    stranger.look("/sign-in").await;
    let rows: [(&str, &str, &str); 4] = [
        ("no secret", "", &origin),
        ("the secret of another browser", &stranger.csrf, &origin),
        ("the secret of no cookie", &"0".repeat(64), &origin),
        ("a foreign origin", &secret, "https://evil.test"),
    ];
    for path in ["/sign-in", "/setup"] {
        for (what, secret, origin) in rows {
            let request = visitor.form(path, &fields, secret).field("Origin", origin);
            let answer = visitor.send(request).await;
            assert_eq!(answer.status, 403, "{path}, {what}");
            assert_eq!(visitor.session(), None);
        }
    }
    let request = visitor.form("/sign-in", &fields, &secret).field("Origin", &origin);
    assert_eq!(visitor.send(request).await.status, 303);
}

#[tokio::test]
async fn a_look_changes_nothing_and_nobody_else_may_look() {
    let plane = with_password().start().await;
    let mut visitor = Visitor::signed_in(&plane).await;
    let key = made(&visitor.mint("seen", "svc").await.text());
    let before = head(&plane).await;
    for (path, looks, posts) in listed() {
        let target = path.replace("{id}", &key).replace("{name}", "root").replace("{revision}", "1");
        let target = if path == "/owner" { "/owner?id=svc&do=suspend".to_owned() } else { target };
        // What a form would say, in the address.
        let join = if target.contains('?') { '&' } else { '?' };
        let target =
            format!("{target}{join}csrf={}&do=remove&name=root&password={PASSWORD}", visitor.csrf).replace(' ', "+");
        let answer = visitor.look(&target).await;
        check_fields(&target, &answer, &path);
        match looks {
            true => assert!(matches!(answer.status, 200 | 303 | 404 | 410), "{target}: {}", answer.status),
            false => assert_eq!(answer.status, 405, "{target}"),
        }
        if !posts {
            let answer = visitor.fill(&target, &[]).await;
            assert_eq!(answer.status, 405, "{target}");
        }
        // Strangers are sent to sign in, or are told nothing.
        let answer = Visitor::new(&plane).look(&target).await;
        let open = ["/sign-in", "/setup", "/assets/{name}"].contains(&path.as_str());
        if looks && !open {
            assert_eq!(answer.status, 303, "{target}");
            assert!(answer.field("location").starts_with("/sign-in"), "{target}: {}", answer.field("location"));
            assert!(!answer.text().contains("seen") && !answer.text().contains(&key));
        }
        check_fields(&target, &answer, &path);
    }
    assert_eq!(head(&plane).await, before);
    // Nor does the port for metrics know of pages.
    assert!(plane.metrics().await.value("process_start_time_seconds", &[]) > 0.0);
}

/// What every answer says, whatever it is.
fn check_fields(target: &str, answer: &Received, path: &str) {
    if answer.status == 405 {
        return;
    }
    let policy = answer.field("content-security-policy");
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
    ] {
        assert!(policy.contains(part), "{target}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{target}: {policy}");
    let rows = [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ];
    for (name, value) in rows {
        assert_eq!(answer.field(name), value, "{target}: {name}");
    }
    assert!(answer.has("permissions-policy"), "{target}");
    assert!(!answer.has("access-control-allow-origin"), "{target}");
    if path != "/assets/{name}" || answer.status != 200 {
        assert_eq!(answer.field("cache-control"), "no-store", "{target}");
    }
}

/// No inline script and no inline style, and files that may be kept for ever.
#[tokio::test]
async fn what_pages_refer_to_is_ours_and_named_by_its_content() {
    let plane = with_password().start().await;
    let mut visitor = Visitor::signed_in(&plane).await;
    let page = visitor.see("/keys").await;
    let mut found = 0;
    for part in page.split(['"', ' ']).filter(|part| part.starts_with("/assets/")) {
        let answer = plane.ask(get(part)).await;
        assert_eq!(answer.status, 200, "{part}");
        assert_eq!(answer.field("cache-control"), "public, max-age=31536000, immutable");
        assert_eq!(answer.field("x-content-type-options"), "nosniff");
        found += 1;
    }
    assert_eq!(found, 3);
    assert_eq!(plane.ask(get("/assets/style-0000000000000000.css")).await.status, 404);
    assert!(!page.contains("<script>") && !page.contains("style=") && !page.contains("<style"), "{page}");
}

/// What one may not do is not offered, and refused.
#[tokio::test]
async fn a_viewer_looks_and_an_operator_is_no_admin() {
    let plane = with_password().start().await;
    let mut root = Visitor::signed_in(&plane).await;
    let key = made(&root.mint("theirs", "svc").await.text());
    for role in ["viewer", "operator"] {
        root.see("/operators/new").await;
        let fields = [("name", role), ("role", role), ("password", PASSWORD)];
        assert_eq!(root.fill("/operators/new", &fields).await.status, 303);
    }
    let mut viewer = Visitor::new(&plane);
    assert_eq!(viewer.sign_in("viewer", PASSWORD).await.status, 303);
    let mut operator = Visitor::new(&plane);
    assert_eq!(operator.sign_in("operator", PASSWORD).await.status, 303);
    let before = plane.api("GET", "/v1/keys", &Value::Null).await;
    let page = viewer.see(&format!("/keys/{key}")).await;
    assert!(!page.contains("/revoke") && !page.contains("/rotate") && !page.contains("/delete"), "{page}");
    let list = viewer.see("/keys").await;
    assert!(!list.contains("/keys/new") && !list.contains("/operators"), "{list}");
    // Looking at what was done is looking.
    assert!(list.contains("/audit") && viewer.see("/audit").await.contains("key.create"));
    assert!(!operator.see(&format!("/keys/{key}")).await.contains("/delete"));
    for target in ["/keys/new", "/operators", "/owners/new", &format!("/keys/{key}/revoke")] {
        assert_eq!(viewer.look(target).await.status, 403, "{target}");
    }
    for target in ["/operators", "/operators/new", "/operators/root", &format!("/keys/{key}/delete")] {
        assert_eq!(operator.look(target).await.status, 403, "{target}");
    }
    viewer.see("/keys").await;
    operator.see("/keys").await;
    for (path, fields) in forms(&key).iter().filter(|(path, _)| !["/sign-out", "/account"].contains(&path.as_str())) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if path != "/keys/sentence" {
            let answer = viewer.fill(path, &fields).await;
            assert_eq!(answer.status, 403, "viewer: {path}: {}", answer.text());
        }
        if path.starts_with("/operators") || path.ends_with("/delete") || path == "/sidecars" {
            let answer = operator.fill(path, &fields).await;
            assert_eq!(answer.status, 403, "operator: {path}: {}", answer.text());
        }
        viewer.see("/keys").await;
        operator.see("/keys").await;
    }
    assert_eq!(plane.api("GET", "/v1/keys", &Value::Null).await, before);
}

/// What is wrong comes back in the form, marked, with all that was typed but passwords.
#[tokio::test]
async fn nothing_that_was_typed_is_lost() {
    let plane = with_password().start().await;
    let mut visitor = Visitor::signed_in(&plane).await;
    let page = visitor.see("/keys/new").await;
    let once = hidden(&page, "once").unwrap();
    let good = [
        ("name", "A \"name\" & more"),
        ("owner", "svc"),
        ("permissions", "read"),
        ("allow_ips", "203.0.113.42"),
        ("expires_at", "30d"),
        ("limits", "10/1m"),
        ("once", once.as_str()),
        ("do", "mint"),
    ];
    let wrong = [
        ("name", "", "f-name"),
        ("owner", "", "f-owner"),
        ("permissions", "wallets:fly", "f-permissions"),
        ("allow_ips", "203.0.113.999", "f-allow_ips"),
        ("expires_at", "yesterday", "f-expires_at"),
        ("limits", "many", "f-limits"),
    ];
    for (name, value, anchor) in wrong {
        let fields = good.map(|(field, there)| (field, if field == name { value } else { there }));
        let answer = visitor.fill("/keys/new", &fields).await;
        let text = answer.text();
        assert_eq!(answer.status, 422, "{name}: {text}");
        assert!(text.contains(&format!("href=\"#{anchor}\"")) && text.contains(&format!("id=\"{anchor}\"")), "{name}");
        assert!(text.contains("role=\"alert\"") && text.contains("data-focus"), "{name}");
        if name != "permissions" {
            assert!(
                text.contains(&format!("id=\"e-{name}\"")) && text.contains("aria-invalid=\"true\""),
                "{name}: {text}"
            );
        }
        let kept = ["A &#34;name&#34; &#38; more", "203.0.113.42", "10/1m", "value=\"30d\""];
        let lost = kept.iter().filter(|kept| !text.contains(**kept)).count();
        assert!(lost <= 1, "{name}: {text}");
    }
    assert_eq!(visitor.fill("/keys/new", &good).await.status, 200);
}
