//! Whom WordPress acts as: the owner of the key and nobody else, and nobody at all for what Keyside did not send.

use serde_json::{Value, json};

use super::{BOTH, EDITOR, MANAGER, SUBSCRIBER, Site, in_front, key, wordpress};
use crate::harness::{H1, H2, Received, Request, get, post, request};

const WHO: &str = "/wp-json/wkwp-wallet/v1/who";
const CREDIT: &str = "/wp-json/wkwp-wallet/v1/wallets/1/credit?amount=5";

/// A route that asks for no key.
const OPEN: &str = "[[route]]\npath = \"/wp-json/wkwp-wallet/v1/open/**\"\npublic = true";
const OPEN_WHO: &str = "/wp-json/wkwp-wallet/v1/open/who";

#[track_caller]
fn acts_as(answer: &Received, user: &str, rule: &str) {
    assert_eq!(answer.status, 200, "{rule}: {answer:?}");
    assert_eq!(answer.json()["user"], user, "{rule}: {answer:?}");
}

#[tokio::test]
async fn a_key_that_may_write_writes_as_its_owner() {
    let site = wordpress().await;
    let writer = key("writer", "read_write", MANAGER);
    let sidecar = in_front(&site, "", [&writer]).await;
    for version in BOTH {
        let body = r#"{"title":"By a key","status":"publish"}"#;
        let create = post("/wp-json/wp/v2/posts", body).field("Content-Type", "application/json").key(&writer);
        let created = sidecar.send(version, create).await;
        assert_eq!(created.status, 201, "{created:?}");
        let id = created.json()["id"].as_u64().unwrap();
        let author = site.sql(&format!("SELECT post_author, post_title FROM wp_posts WHERE ID = {id}")).await;
        assert_eq!(author, format!("{}\tBy a key\n", site.user(MANAGER)));

        // Every way is open to a key that may do what it asks for; an override is judged, and honoured.
        let here = format!("/wp/v2/posts/{id}");
        let form = post("/index.php/wp-json/wp/v2/posts", format!("rest_route={here}&title=By+a+form"));
        let ways = [
            ("by POST", post(&format!("/wp-json{here}?title=By+POST"), "")),
            ("by PUT", request("PUT", &format!("/wp-json{here}?title=By+PUT"))),
            ("by an override", get(&format!("/wp-json{here}?_method=PUT&title=By+an+override"))),
            ("by a field", get(&format!("/wp-json{here}?title=By+a+field")).field("X-HTTP-Method-Override", "PATCH")),
            ("by the parameter", post(&format!("/?rest_route={here}&title=By+the+parameter"), "")),
            ("by the script", get(&format!("/index.php/wp-json{here}?.method=POST&title=By+the+script"))),
            ("by a form", form.field("Content-Type", "application/x-www-form-urlencoded")),
        ];
        for (way, request) in ways {
            let answer = sidecar.send(version, request.key(&writer)).await;
            assert_eq!(answer.status, 200, "{way} over {version:?}: {answer:?}");
            assert_eq!(site.title(id).await.to_lowercase(), way.to_lowercase());
        }
    }
    let before = site.sql("SELECT balance FROM wp_wkwp_wallets WHERE id = 1").await;
    let credited = sidecar.ask(post(CREDIT, "").key(&writer)).await;
    assert_eq!((credited.status, credited.json()["user"].as_str()), (201, Some(MANAGER)), "{credited:?}");
    let after = site.sql("SELECT balance FROM wp_wkwp_wallets WHERE id = 1").await;
    let number = |text: &str| text.trim().parse::<i64>().unwrap();
    assert_eq!(number(&after), number(&before) + 5);
}

#[tokio::test]
async fn a_key_without_the_right_writes_nothing() {
    let site = wordpress().await;
    let reader = key("reader", "read", MANAGER);
    let editor = key("editor", "read_write", EDITOR);
    let subscriber = key("subscriber", "read_write", SUBSCRIBER);
    let writer = key("writer", "write", MANAGER);
    let sidecar = in_front(&site, "", [&reader, &editor, &subscriber, &writer]).await;
    let id = site.post("Original").await;
    let change = post(&format!("/wp-json/wp/v2/posts/{id}?title=Changed"), "");
    let rows = [
        ("the scope is read", post(CREDIT, ""), &reader, "403 insufficient_scope"),
        ("the scope is read, a post", change.clone(), &reader, "403 insufficient_scope"),
        ("the owner has no capability", post(CREDIT, ""), &editor, "403 permission_denied"),
        ("the owner has no capability, a post", change.clone(), &editor, "403 permission_denied"),
        ("WordPress knows that the user has none", post(CREDIT, ""), &subscriber, "403 rest_forbidden"),
        ("WordPress knows that the user has none, a post", change, &subscriber, "403 rest_cannot_edit"),
        ("the scope is write", get(WHO), &writer, "403 insufficient_scope"),
    ];
    let before = site.contents().await;
    for (rule, request, key, expected) in rows {
        for version in BOTH {
            let answer = sidecar.send(version, request.clone().key(key)).await;
            assert_eq!(answer.brief(), expected, "{rule} over {version:?}: {answer:?}");
        }
        assert_eq!(site.contents().await, before, "{rule}");
    }
}

/// What other plugins may ask, and where they do not get to see the credential.
#[tokio::test]
async fn plugins_learn_of_the_key_and_nothing_of_the_credential() {
    let site = wordpress().await;
    let live = key("live", "read", MANAGER).scopes(["read", "links:read"]).with("mode = \"live\"");
    let sidecar = in_front(&site, "", [&live]).await;
    for version in BOTH {
        let answer = sidecar.send(version, get(WHO).key(&live)).await;
        acts_as(&answer, MANAGER, "the owner");
        let key = json!({"id": "key_live", "owner": MANAGER, "scopes": ["read", "links:read"], "mode": "live"});
        assert_eq!(answer.json()["key"], key, "{answer:?}");
        assert_eq!(answer.json()["authorization"], Value::Array(Vec::new()), "{answer:?}");
        // What the web server was sent is not the plugin's to change, as the README warns.
        assert_eq!(answer.json()["sent"], site.credential(), "{answer:?}");
        assert_eq!(answer.json()["is_ssl"], true, "{answer:?}");
    }
    let without = site.straight(get(WHO)).await.json();
    assert_eq!((&without["key"], &without["user"]), (&Value::Null, &json!("")), "{without}");
}

/// An owner that is no user is not a visitor either, who may read what is public.
#[tokio::test]
async fn an_owner_that_is_no_user_is_refused() {
    let site = wordpress().await;
    let owners = [
        ("ghost", "no such user"),
        ("Svc-Accounting", "the database folds case"),
        ("<b></b>svc-accounting", "WordPress strips tags"),
        ("svc-accounting%41", "WordPress strips escapes"),
        ("svc-accounting&amp;", "WordPress strips entities"),
        ("1", "the id of a user"),
        ("admin@example.com", "the address of a user"),
    ];
    let keys: Vec<_> = (0..).zip(owners).map(|(n, (owner, _))| key(&format!("of_{n}"), "read_write", owner)).collect();
    let sidecar = in_front(&site, "", &keys).await;
    for (key, (owner, rule)) in keys.iter().zip(owners) {
        for path in [WHO, "/wp-json/wp/v2/posts"] {
            let answer = sidecar.ask(get(path).key(key)).await;
            assert_eq!(answer.brief(), "403 keyside_unknown_owner", "{owner}: {rule}: {answer:?}");
        }
    }
    let nameless = get(WHO).field("Authorization", site.credential()).field("X-Key-Id", "key_of_nobody");
    assert_eq!(site.straight(nameless).await.brief(), "403 keyside_unknown_owner", "a key without an owner");
}

/// What does not come through Keyside, or forges what Keyside says, acts as nobody.
#[tokio::test]
async fn only_keyside_is_believed() {
    let site = wordpress().await;
    let credential = site.credential();
    let named = |request: Request| request.field("X-Key-Owner", "admin").field("X-Key-Id", "key_forged");
    let with = |value: &str| named(get(WHO)).field("Authorization", value);
    let token = credential.strip_prefix("Bearer ").unwrap();
    let (short, other) = (&credential[..credential.len() - 1], credential.replace("Bearer", "bearer"));
    let rows = [
        ("nothing", get(WHO)),
        ("a forged owner", named(get(WHO))),
        ("a forged owner with underscores", get(WHO).field("X_Key_Owner", "admin")),
        ("an empty credential", with("")),
        ("a scheme alone", with("Bearer")),
        ("a wrong credential", with("Bearer wrong")),
        ("a longer credential", with(&format!("{credential}x"))),
        ("a shorter credential", with(short)),
        ("another scheme", with(&other)),
        ("no scheme", with(token)),
        ("the credential twice", with(&credential).field("Authorization", &credential)),
        ("the credential in another field", named(get(WHO)).field("Redirect-HTTP-Authorization", &credential)),
    ];
    for (rule, request) in rows {
        let answer = site.straight(request.clone()).await;
        acts_as(&answer, "", rule);
        assert_eq!(answer.json()["key"], Value::Null, "{rule}");
    }
    acts_as(&site.straight(with(&credential)).await, "admin", "the credential itself");
    let before = site.contents().await;
    for request in
        [post(CREDIT, ""), named(post(CREDIT, "")), named(post(CREDIT, "")).field("Authorization", "Bearer x")]
    {
        assert_eq!(site.straight(request.clone()).await.status, 401, "{request:?}");
    }
    assert_eq!(site.contents().await, before);

    // Through Keyside it helps nobody to know the credential.
    let reader = key("reader", "read", EDITOR);
    let sidecar = in_front(&site, OPEN, [&reader]).await;
    for version in BOTH {
        let forged = sidecar.send(version, named(get(WHO)).key(&reader)).await;
        acts_as(&forged, EDITOR, "a forged owner beside a key");
        let open = sidecar.send(version, named(get(OPEN_WHO))).await;
        acts_as(&open, "", "a forged owner where no key is asked for");
        assert_eq!(open.json()["key"], Value::Null);
        let known = named(get(OPEN_WHO)).field("Authorization", &credential);
        acts_as(&sidecar.send(version, known).await, "", "the credential where no key is asked for");
        let known = sidecar.send(version, named(get(WHO)).field("Authorization", &credential)).await;
        assert_eq!(known.status, 401, "the credential instead of a key: {known:?}");
        let folded = sidecar.send(version, get(WHO).key(&reader).field("X_Key_Owner", "admin")).await;
        assert_eq!(folded.brief(), "400 bad_request");
    }
}

/// Without a credential to compare with, nothing is believed, whatever is sent.
#[tokio::test]
async fn without_a_credential_of_its_own_wordpress_believes_nothing() {
    let site = wordpress().await;
    let file = site.credential_file();
    let good = std::fs::read(&file).unwrap();
    let ask = |authorization: &str| {
        site.straight(get(WHO).field("X-Key-Owner", "admin").field("Authorization", authorization))
    };
    let whole = site.credential();
    let mut seen = Vec::new();
    for (rule, text) in
        [("empty", ""), ("white space", " \n"), ("a scheme alone", "Bearer \n"), ("short", "Bearer 1234\n")]
    {
        std::fs::write(&file, text).unwrap();
        for sent in [text.trim(), "Bearer", &whole] {
            seen.push((rule, sent, ask(sent).await));
        }
    }
    std::fs::remove_file(&file).unwrap();
    seen.push(("no file", "", ask("").await));
    std::fs::write(&file, &good).unwrap();
    let unset = site.root().join("unset");
    std::fs::write(&unset, "").unwrap();
    seen.push(("no constant", "", ask("").await));
    seen.push(("no constant", "the whole", ask(&whole).await));
    std::fs::remove_file(&unset).unwrap();
    // The site is whole again before anything can fail.
    for (rule, sent, answer) in seen {
        acts_as(&answer, "", &format!("{rule}, sent {sent:?}"));
    }
    acts_as(&ask(&whole).await, "admin", "as it was");
}

/// A credential that PHP takes apart is still only Keyside's: WordPress's application passwords do not see it.
#[tokio::test]
async fn a_basic_credential_is_no_login() {
    let site = wordpress().await;
    let file = site.credential_file();
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, "Basic YWRtaW46c29tZSBwYXNzd29yZCBvZiBLZXlzaWRl\n").unwrap();
    let answer = site.straight(site.as_owner(get(WHO), EDITOR)).await;
    std::fs::write(&file, good).unwrap();
    acts_as(&answer, EDITOR, "Basic");
    assert_eq!(answer.json()["authorization"], Value::Array(Vec::new()), "{answer:?}");
}

/// WooCommerce's own authentication is hooked in where that of the fixture is.
#[tokio::test]
async fn a_plugin_with_keys_of_its_own_is_not_in_the_way() {
    let site = wordpress().await;
    let reader = key("reader", "read", EDITOR);
    let ghost = key("ghost", "read", "ghost");
    let sidecar = in_front(&site, "", [&reader, &ghost]).await;
    let in_query = format!("{WHO}?consumer_key=ck_other&consumer_secret=cs_other");
    let by_oauth = format!("{WHO}?oauth_consumer_key=ck_other");
    let theirs = || get(WHO).basic("ck_other", "cs_other");
    let secure = |request: Request| site.straight(request.field("X-Forwarded-Proto", "https"));
    acts_as(&secure(theirs()).await, "admin", "its own key, without Keyside");
    acts_as(&secure(get(&in_query)).await, "admin", "its own key in the query, without Keyside");
    assert_eq!(secure(get(&by_oauth)).await.brief(), "401 wkwp_oauth", "OAuth, without Keyside");
    for version in BOTH {
        acts_as(&sidecar.send(version, get(WHO).key(&reader)).await, EDITOR, "a key");
        acts_as(&sidecar.send(version, get(&in_query).key(&reader)).await, EDITOR, "its own key beside a key");
        for path in [WHO, &in_query] {
            let nobody = sidecar.send(version, get(path).key(&ghost)).await;
            assert_eq!(nobody.brief(), "403 keyside_unknown_owner", "{path}");
        }
        for (rule, request) in [("its own key", theirs()), ("its own key in the query", get(&in_query))] {
            assert_eq!(sidecar.send(version, request).await.status, 401, "{rule} instead of a key");
        }
        let oauth = sidecar.send(version, get(&by_oauth).key(&reader)).await;
        assert_eq!(oauth.brief(), "401 wkwp_oauth", "OAuth beside a key");
    }
}

/// An administrator's login beside a key counts for nothing, with and without the nonce that makes it count elsewhere.
#[tokio::test]
async fn a_login_beside_a_key_counts_for_nothing() {
    let site = wordpress().await;
    let reader = key("reader", "read", EDITOR);
    let ghost = key("ghost", "read", "ghost");
    let sidecar = in_front(&site, OPEN, [&reader, &ghost]).await;
    let (cookie, nonce) = site.session();
    let logged_in = |path: &str| get(path).field("Cookie", cookie);
    acts_as(&site.straight(logged_in(WHO).field("X-WP-Nonce", nonce)).await, "admin", "the login without Keyside");
    acts_as(&site.straight(logged_in(WHO)).await, "", "the login without its nonce");
    let in_query = format!("{WHO}?_wpnonce={nonce}");
    for version in [H1, H2] {
        for (rule, request) in [
            ("a login", logged_in(WHO)),
            ("a login with its nonce", logged_in(WHO).field("X-WP-Nonce", nonce)),
            ("a login with its nonce in the query", logged_in(&in_query)),
            ("a login with a bad nonce", logged_in(WHO).field("X-WP-Nonce", "0123456789")),
            ("a nonce alone", get(WHO).field("X-WP-Nonce", nonce)),
        ] {
            let answer = sidecar.send(version, request.clone().key(&reader)).await;
            acts_as(&answer, EDITOR, rule);
            let answer = sidecar.send(version, request.key(&ghost)).await;
            assert_eq!(answer.brief(), "403 keyside_unknown_owner", "{rule}: {answer:?}");
        }
    }
    // Where no key is asked for, WordPress finds out by itself.
    let open = sidecar.ask(logged_in(OPEN_WHO).field("X-WP-Nonce", nonce)).await;
    acts_as(&open, "admin", "a login where no key is asked for");
}

/// Outside of the REST API a request with a key is nobody's; and a plugin that puts somebody else in the owner's place
/// is not let.
#[tokio::test]
async fn the_owner_is_the_owner_in_the_rest_api_alone() {
    let site = wordpress().await;
    let (cookie, _) = site.session();
    for path in ["/?wkwp_page=1", "/index.php?wkwp_page=1"] {
        acts_as(&site.straight(get(path).field("Cookie", cookie)).await, "admin", "a page, by a login");
        let page = site.straight(site.as_owner(get(path), MANAGER).field("Cookie", cookie)).await;
        acts_as(&page, "", "a page, by a key");
        assert_eq!(page.json()["key"]["owner"], MANAGER);
    }
    let other = format!("{WHO}?wkwp_act_as=1");
    acts_as(&site.straight(get(&other)).await, "admin", "the plugin, without a key");
    let answer = site.straight(site.as_owner(get(&other), EDITOR)).await;
    assert_eq!(answer.brief(), "403 keyside_other_user", "{answer:?}");
    let same = format!("{WHO}?wkwp_act_as={}", site.user(EDITOR));
    acts_as(&site.straight(site.as_owner(get(&same), EDITOR)).await, EDITOR, "the same user");
}
