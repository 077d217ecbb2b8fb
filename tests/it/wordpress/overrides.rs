//! Every way to tell WordPress another method or another path than the request line does. Through Keyside, with a key
//! that lacks the right, none of them changes the database; straight to WordPress those do that WordPress honours, so
//! that no row holds for the wrong reason.

use WordPress::{Acts, Ignores};

use super::{BOTH, EDITOR, MANAGER, Site, in_front, key, wordpress};
use crate::harness::{Request, Sidecar, get, post, request};

/// What WordPress does with the request when it comes from an administrator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WordPress {
    /// It changes the database.
    Acts,
    /// It does not.
    Ignores,
}

struct Row {
    rule: &'static str,
    request: Request,
    /// What Keyside answers.
    keyside: &'static str,
    wordpress: WordPress,
}

fn row(rule: &'static str, request: Request, keyside: &'static str, wordpress: WordPress) -> Row {
    Row { rule, request, keyside, wordpress }
}

const SCOPE: &str = "403 insufficient_scope";
const ROUTE: &str = "403 route_not_allowed";
const CAPABILITY: &str = "403 permission_denied";
const UNCLEAR: &str = "400 bad_request";

/// Sends each request through Keyside with this key, over both versions of HTTP, and then straight to WordPress as the
/// administrator, and looks into the database after each.
async fn check(site: &Site, sidecar: &Sidecar, key: &crate::harness::Key, id: u64, rows: Vec<Row>) {
    let mut before = site.contents().await;
    for Row { rule, request, keyside, wordpress } in rows {
        for version in BOTH {
            let answer = sidecar.send(version, request.clone().key(key)).await;
            assert_eq!(answer.brief(), keyside, "{rule}: {request:?} over {version:?}: {answer:?}");
        }
        assert_eq!(site.contents().await, before, "{rule}: {request:?} changed the database");
        let answer = site.straight(site.as_owner(request.clone(), "admin")).await;
        let after = site.contents().await;
        let did = if after == before { Ignores } else { Acts };
        assert_eq!(did, wordpress, "{rule}: WordPress itself with {request:?}: {answer:?}");
        if did == Acts {
            let again = format!("UPDATE wp_posts SET post_title = 'Original', post_status = 'publish' WHERE ID = {id}");
            site.sql(&again).await;
        }
        before = site.contents().await;
    }
}

/// A `read` key of an owner who may do everything in WordPress: the scope alone stands between it and the post.
#[tokio::test]
async fn a_read_key_changes_nothing_by_another_method() {
    let site = wordpress().await;
    let key = key("reader", "read", MANAGER);
    let sidecar = in_front(&site, "", [&key]).await;
    let id = site.post("Original").await;
    let there = format!("/wp-json/wp/v2/posts/{id}");
    let by = |parameters: &str| get(&format!("{there}?{parameters}&title=Changed"));

    let mut rows = vec![
        row("the sent method", post(&format!("{there}?title=Changed"), ""), SCOPE, Acts),
        row("the plain name", by("_method=POST"), SCOPE, Acts),
        row("its first letter escaped", by("%5Fmethod=POST"), SCOPE, Acts),
        row("a dot, which PHP folds", by(".method=POST"), SCOPE, Acts),
        row("an escaped dot", by("%2emethod=POST"), SCOPE, Acts),
        row("all of it escaped", by("%5f%6d%65%74%68%6f%64=POST"), SCOPE, Acts),
        row("a space before it, which PHP drops", by("+_method=POST"), SCOPE, Acts),
        row("an escaped space before it", by("%20_method=POST"), SCOPE, Acts),
        row("spaces and a dot", by("+%20.method=POST"), SCOPE, Acts),
        row("a NUL, at which PHP stops", by("_method%00=POST"), SCOPE, Acts),
        row("more after the NUL", by("_method%00x=POST"), SCOPE, Acts),
        row("behind other parameters", by("&&a=b;c&=&_method=POST"), SCOPE, Acts),
        row("a second question mark, which PHP's own server drops", by("?_method=POST"), UNCLEAR, Acts),
        row("four of them, and an escape", by("???%5Fmethod=POST"), UNCLEAR, Acts),
        row("an escaped one", by("%3F_method=POST"), "200", Ignores),
        row("small letters", by("_method=post"), SCOPE, Acts),
        row("an escaped value", by("_method=%50OST"), SCOPE, Acts),
        row("PUT", by("_method=PUT"), SCOPE, Acts),
        row("PATCH", by("_method=PATCH"), SCOPE, Acts),
        row("DELETE", by("_method=DELETE"), SCOPE, Acts),
        row("twice, the last of which PHP takes", by("_method=GET&_method=POST"), UNCLEAR, Acts),
        row("twice, in two spellings", by(".method=GET&_method=POST"), UNCLEAR, Acts),
        row("twice, a harmless one last", by("_method=POST&_method=GET"), UNCLEAR, Ignores),
        row("an array", by("_method[]=POST"), UNCLEAR, Ignores),
        row("an escaped array", by("_method%5Bx%5D=POST"), UNCLEAR, Ignores),
        row("another name: capital letters", by("_Method=POST"), "200", Ignores),
        row("another name: behind a semicolon", by("a=b;_method=POST"), "200", Ignores),
        row("an envelope", by("_envelope=1&_method=POST"), SCOPE, Acts),
        row("a script", by("_jsonp=callback&_method=POST"), SCOPE, Acts),
        row("of HEAD", request("HEAD", &format!("{there}?_method=POST&title=Changed")), "403", Acts),
        row("of OPTIONS", request("OPTIONS", &format!("{there}?_method=POST&title=Changed")), SCOPE, Acts),
        row("creating", get("/wp-json/wp/v2/posts?_method=POST&title=Another&status=publish"), SCOPE, Acts),
        row("a wallet", get("/wp-json/wkwp-wallet/v1/wallets/1/credit?_method=POST&amount=1"), SCOPE, Acts),
    ];
    let fields = [
        ("the field that WordPress knows", "X-HTTP-Method-Override", SCOPE, Acts),
        ("underscores, which PHP takes for hyphens", "X_HTTP_Method_Override", UNCLEAR, Acts),
        ("one underscore", "X-HTTP-Method_Override", UNCLEAR, Acts),
        ("a field that others know", "X-HTTP-Method", SCOPE, Ignores),
        ("another one", "X-Method-Override", SCOPE, Ignores),
        ("underscores in that", "X_HTTP_Method", UNCLEAR, Ignores),
        ("underscores in the other", "X_METHOD_OVERRIDE", UNCLEAR, Ignores),
    ];
    for (rule, name, keyside, wordpress) in fields {
        rows.push(row(rule, by("a=b").field(name, "POST"), keyside, wordpress));
    }
    let twice = by("a=b").field("X-HTTP-Method-Override", "GET").field("X-HTTP-Method-Override", "POST");
    rows.push(row("the field twice", twice, UNCLEAR, Ignores));
    let both = by("_method=POST").field("X-HTTP-Method-Override", "GET");
    rows.push(row("field and parameter, of which the parameter counts", both, UNCLEAR, Acts));
    check(&site, &sidecar, &key, id, rows).await;
}

/// The same on every way to the REST API.
#[tokio::test]
async fn a_read_key_changes_nothing_on_another_path() {
    let site = wordpress().await;
    let key = key("reader", "read", MANAGER);
    let sidecar = in_front(&site, "", [&key]).await;
    let id = site.post("Original").await;
    let here = format!("/wp/v2/posts/{id}");
    let by = |before: &str, after: &str| get(&format!("{before}{here}{after}_method=POST&title=Changed"));
    let form = |target: &str, parameters: &str| {
        post(target, format!("{parameters}={here}&title=Changed"))
            .field("Content-Type", "application/x-www-form-urlencoded")
    };
    let batch = format!(r#"{{"requests":[{{"method":"PUT","path":"{here}","body":{{"title":"Changed"}}}}]}}"#);
    let in_query = format!("requests[0][method]=PUT&requests[0][path]={here}&requests[0][body][title]=Changed");
    let late = get(&format!("/?_method=POST&title=Changed&{}rest_route={here}", "a&".repeat(1000)));
    let by_line_feed = by("/?rest_route=", "%0A&");
    let rows = vec![
        row("the parameter at the root", by("/?rest_route=", "&"), SCOPE, Acts),
        row("a dot, which PHP folds", by("/?rest.route=", "&"), SCOPE, Acts),
        row("a space", by("/?rest+route=", "&"), SCOPE, Acts),
        row("a second question mark", by("/??rest_route=", "&"), UNCLEAR, Acts),
        row("a bracket that is not closed", by("/?rest[route=", "&"), SCOPE, Acts),
        row("an escaped bracket", by("/?rest%5Broute=", "&"), SCOPE, Acts),
        row("an escaped letter", by("/?rest%5Froute=", "&"), SCOPE, Acts),
        row("a NUL", by("/?rest_route%00x=", "&"), SCOPE, Acts),
        row("twice", by("/?rest_route=/wkwp-wallet/v1/who&rest_route=", "&"), UNCLEAR, Acts),
        row("late, where PHP no longer reads it", late, UNCLEAR, Ignores),
        row("an array", by("/?rest_route[]=", "&"), UNCLEAR, Ignores),
        row("a line feed at its end, which WordPress's patterns pass over", by_line_feed, UNCLEAR, Acts),
        row("a backslash at its end, which WordPress drops", by("/?rest_route=", "%5C&"), UNCLEAR, Acts),
        row("slashes at its end, which WordPress drops", by("/?rest_route=", "//&"), UNCLEAR, Acts),
        row(
            "without its first slash",
            get(&format!("/?rest_route={}&_method=POST&title=Changed", &here[1..])),
            UNCLEAR,
            Ignores,
        ),
        row("with the prefix", by("/?rest_route=/wp-json", "&"), ROUTE, Ignores),
        row("the parameter of the script", by("/index.php?rest_route=", "&"), SCOPE, Acts),
        row("behind the script", by("/index.php/wp-json", "?"), SCOPE, Acts),
        row("behind the script twice", by("/index.php/index.php/wp-json", "?"), ROUTE, Acts),
        row(
            "the parameter behind the script",
            by("/index.php/wp-json/wkwp-wallet/v1/who?rest_route=", "&"),
            SCOPE,
            Acts,
        ),
        row("behind an allowed path", by("/wp-json/wp/v2/posts?rest_route=", "&"), SCOPE, Acts),
        row("an empty parameter behind an allowed path", by("/wp-json", "?rest_route=&"), UNCLEAR, Ignores),
        row("two slashes", by("//wp-json", "?"), UNCLEAR, Acts),
        row("two slashes within", by("/wp-json/", "?"), UNCLEAR, Ignores),
        row("a slash at the end", by("/wp-json", "/?"), SCOPE, Acts),
        row("an escaped letter in the path", by("/%77p-json", "?"), SCOPE, Acts),
        row("an escaped slash in the path", by("/wp-json%2F", "?"), UNCLEAR, Ignores),
        row(
            "capitals, in which WordPress's routes are all one",
            get(&format!("/wp-json/WP/V2/Posts/{id}?_method=POST&title=Changed")),
            ROUTE,
            Acts,
        ),
        row("capitals before them", by("/WP-JSON", "?"), ROUTE, Ignores),
        row("a form", form("/", "rest_route"), ROUTE, Acts),
        row("a form to the script", form("/index.php", "rest_route"), ROUTE, Acts),
        row("a form to an allowed path", form("/wp-json/wp/v2/posts", "rest_route"), SCOPE, Acts),
        row("a batch", post("/wp-json/batch/v1", &batch).field("Content-Type", "application/json"), ROUTE, Acts),
        row("a batch in a query", get(&format!("/wp-json/batch/v1?_method=POST&{in_query}")), ROUTE, Acts),
        row("a batch by the parameter", get(&format!("/?rest_route=/batch/v1&_method=POST&{in_query}")), ROUTE, Acts),
    ];
    check(&site, &sidecar, &key, id, rows).await;
}

/// A key that may write something may write nothing else by naming it in a form: the owner, an editor for WordPress,
/// lacks the capability that the posts' route asks for.
#[tokio::test]
async fn a_form_takes_a_key_nowhere_else() {
    let site = wordpress().await;
    let key = key("commenter", "read_write", EDITOR);
    let open = "[[route]]\npath = \"/wp-json/wkwp-wallet/v1/open/**\"\nscope = \"write\"";
    let sidecar = in_front(&site, open, [&key]).await;
    let id = site.post("Original").await;
    let there = format!("/wp/v2/posts/{id}");
    let open = "/wp-json/wkwp-wallet/v1/open/note";
    let form = |name: &str, kind: &str| post(open, format!("{name}={there}&title=Changed")).field("Content-Type", kind);
    let urlencoded = "application/x-www-form-urlencoded";
    let part = |head: &str| {
        let body = format!(
            "--b\r\n{head}\r\n\r\n{there}\r\n--b\r\nContent-Disposition: form-data; name=title\r\n\r\nChanged\r\n--b--\r\n"
        );
        post(open, body).field("Content-Type", "multipart/form-data; boundary=b")
    };
    let rows = vec![
        row("a form", form("rest_route", urlencoded), CAPABILITY, Acts),
        row("a dot, which PHP folds", form("rest.route", urlencoded), CAPABILITY, Acts),
        row("a bracket that is not closed", form("rest%5broute", urlencoded), CAPABILITY, Acts),
        row("a space before it", form("+rest_route", urlencoded), CAPABILITY, Acts),
        row("a NUL", form("rest_route%00x", urlencoded), CAPABILITY, Acts),
        row("twice", form("rest_route=/wkwp-wallet/v1/who&rest_route", urlencoded), UNCLEAR, Acts),
        row("capitals in the type", form("rest_route", "APPLICATION/X-WWW-Form-URLEncoded"), CAPABILITY, Acts),
        row(
            "more behind the type",
            form("rest_route", "application/x-www-form-urlencoded; charset=utf-8"),
            CAPABILITY,
            Acts,
        ),
        row(
            "a comma behind the type",
            form("rest_route", "application/x-www-form-urlencoded, text/plain"),
            CAPABILITY,
            Acts,
        ),
        row(
            "a tab behind the type, which makes it another one for PHP",
            form("rest_route", "application/x-www-form-urlencoded\t; a=b"),
            CAPABILITY,
            Ignores,
        ),
        row("two types", form("rest_route", urlencoded).field("Content-Type", "text/plain"), CAPABILITY, Acts),
        row("another type", form("rest_route", "text/plain"), "404 rest_no_route", Ignores),
        row("the query", post(&format!("{open}?rest_route={there}&title=Changed"), ""), CAPABILITY, Acts),
        row("many parts", part("Content-Disposition: form-data; name=\"rest_route\""), UNCLEAR, Acts),
        row("many parts, a dot", part("content-disposition: form-data; name=rest.route"), UNCLEAR, Acts),
        row("many parts, a bracket", part("Content-Disposition: form-data; name='rest[route'"), UNCLEAR, Acts),
        row(
            "many parts, a backslash, which is none to PHP",
            part("Content-Disposition: form-data; name=\"rest\\_route\""),
            "404 rest_no_route",
            Ignores,
        ),
    ];
    check(&site, &sidecar, &key, id, rows).await;
    // What the row before stands for: with the capability, too, the key is asked for it.
    let direct = post(&format!("/wp-json{there}?title=Changed"), "").key(&key);
    assert_eq!(sidecar.ask(direct).await.brief(), CAPABILITY);
}

/// WordPress folds the case of its routes. The one that asks for KYC is met in any case.
#[tokio::test]
async fn capitals_are_no_way_around_kyc() {
    let site = wordpress().await;
    let unproven = key("unproven", "read_write", super::SUBSCRIBER);
    let sidecar = in_front(&site, "", [&unproven]).await;
    let id = site.post("Original").await;
    let by = |path: &str| {
        post(&format!("/wp-json/wkwp-wallet/v1/{path}"), "amount=1")
            .field("Content-Type", "application/x-www-form-urlencoded")
    };
    let parameter = |path: &str| post(&format!("/?rest_route=/wkwp-wallet/v1{path}&amount=1"), "");
    let cut = post("/index.php/wp-json/wkwp-wallet/v1/withdrawals/1/approve%3Fx", "amount=1")
        .field("Content-Type", "application/x-www-form-urlencoded");
    let rows = vec![
        row("as the route is", by("withdrawals/1/approve"), "403 kyc_required", Acts),
        row("one capital", by("Withdrawals/1/approve"), "403 kyc_required", Acts),
        row("all capitals", by("WITHDRAWALS/1/APPROVE"), "403 kyc_required", Acts),
        row("a slash at the end", by("withdrawals/1/approve/"), "403 kyc_required", Acts),
        row("cut at an escaped question mark", cut, UNCLEAR, Acts),
        row("the parameter", parameter("/withdrawals/1/approve"), "403 kyc_required", Acts),
        row("capitals in the parameter", parameter("/WithDrawals/1/Approve"), "403 kyc_required", Acts),
        row("a slash at the end of the parameter", parameter("/withdrawals/1/approve/"), "403 kyc_required", Acts),
        row("a line feed at its end", parameter("/withdrawals/1/approve%0A"), UNCLEAR, Acts),
    ];
    check(&site, &sidecar, &unproven, id, rows).await;
}

/// Sites without pretty permalinks have no other way. Where nothing but reading is asked, a `read` key reads.
#[tokio::test]
async fn a_read_key_reads_on_every_path() {
    let site = wordpress().await;
    let reader = key("reader", "read", EDITOR);
    let sidecar = in_front(&site, "", [&reader]).await;
    let id = site.post("Readable").await;
    let pretty = sidecar.ask(get(&format!("/wp-json/wp/v2/posts/{id}")).key(&reader)).await;
    assert_eq!((pretty.status, pretty.json()["id"].as_u64()), (200, Some(id)), "{pretty:?}");
    let before = site.contents().await;
    let rows = [
        format!("/?rest_route=/wp/v2/posts/{id}"),
        format!("/?rest.route=%2Fwp%2Fv2%2Fposts%2F{id}"),
        format!("/index.php?rest_route=/wp/v2/posts/{id}"),
        format!("/index.php/?rest_route=/wp/v2/posts/{id}"),
        format!("/index.php/wp-json/wp/v2/posts/{id}"),
        format!("/wp-json/wp/v2/posts/{id}?rest_route=/wp/v2/posts/{id}"),
        format!("/wp-json/wp/v2/posts/{id}/"),
        format!("/wp-json/wp/v2/posts/{id}?_method=GET"),
    ];
    for target in rows {
        for version in BOTH {
            let answer = sidecar.send(version, get(&target).key(&reader)).await;
            assert_eq!(answer.status, 200, "{target} over {version:?}: {answer:?}");
            assert_eq!(answer.body, pretty.body, "{target} over {version:?}");
        }
    }
    let envelope = sidecar.ask(get(&format!("/wp-json/wp/v2/posts/{id}?_envelope=1")).key(&reader)).await.json();
    assert_eq!((&envelope["status"], &envelope["body"]["id"]), (&200.into(), &id.into()), "{envelope}");
    let script = sidecar.ask(get("/?rest_route=/wkwp-wallet/v1/who&_jsonp=told").key(&reader)).await;
    assert!(script.text().starts_with("/**/told({\"user\":\"svc-editor\""), "{script:?}");
    assert_eq!(site.contents().await, before);
}

/// At `/` and `/index.php` a path that the query names is judged alone, so WordPress must not act on the sent one: on a
/// page, which no route lets a key ask for.
#[tokio::test]
async fn a_key_gets_no_page_by_naming_a_path_that_wordpress_does_not_read() {
    let site = wordpress().await;
    let writer = key("writer", "read_write", MANAGER);
    let sidecar = in_front(&site, "", [&writer]).await;
    let named = "rest_route=/wkwp-wallet/v1/who";
    let form = |kind: &str| post("/", named).field("Content-Type", kind);
    let rows = [
        ("more parameters than PHP reads", get(&format!("/?{}{named}", "a&".repeat(1000))), UNCLEAR),
        ("a type that a tab ends", form("application/x-www-form-urlencoded\t; a=b"), ROUTE),
        ("a second type", form("text/plain").field("Content-Type", "application/x-www-form-urlencoded"), ROUTE),
        ("no type", post("/", named), ROUTE),
        ("an array", get("/?rest_route[]=/wkwp-wallet/v1/who"), UNCLEAR),
        // WordPress drops a path behind its front controller that ends like it, and serves the front page.
        ("the front controller twice", get("/index.php/wp-json/wkwp-wallet/v1/index.php?author=1"), UNCLEAR),
        ("something like it", get("/index.php/wp-json/wkwp-wallet/v1/who/index-php"), UNCLEAR),
        ("the front controller and a slash", get("/index.php/wp-json/wkwp-wallet/v1/index.php/?p=1"), UNCLEAR),
        ("the front controller and a question mark", get("/index.php/wp-json/wkwp-wallet/v1/index.php%3Fx"), UNCLEAR),
        ("something like it, escaped", get("/index.php/wp-json/wkwp-wallet/v1/who/index%20php"), UNCLEAR),
        ("nothing", get("/?rest_route="), UNCLEAR),
        ("what PHP takes for nothing", get("/?rest_route=0"), UNCLEAR),
    ];
    let says_who = |answer: &crate::harness::Received| answer.text().contains("\"user\":");
    for (rule, request, expected) in rows {
        for version in BOTH {
            let answer = sidecar.send(version, request.clone().key(&writer)).await;
            assert_eq!(answer.brief(), expected, "{rule} over {version:?}: {answer:?}");
        }
        let answer = site.straight(site.as_owner(request, MANAGER)).await;
        assert!(!says_who(&answer), "{rule}: WordPress acts on the named path: {answer:?}");
    }
    let read = site.straight(site.as_owner(get(&format!("/?{named}")), MANAGER)).await;
    assert!(says_who(&read), "WordPress reads the plain name: {read:?}");
}
