//! What the upstream may read differently is judged in every reading.

use std::time::Duration;

use http::Method;
use proptest::prelude::*;

use super::fixture::{
    Verdict::{Open, Permitted, Refused},
    call, check, holds, judge, policy, route, scoped, verdict,
};
use crate::{
    policy::{OpenFor, Policy, RouteSettings, Settings},
    rejection::{
        Reason::{self, AmbiguousPath, InsufficientScope, MethodNotAllowed, RouteNotAllowed},
        Rejection, TABLE,
    },
};

#[test]
fn the_sent_and_the_effective_method_must_both_be_allowed() {
    let policy = policy(vec![]);
    for (line, field, scopes, expected) in [
        ("GET /x", "DELETE", "read", Refused(InsufficientScope)),
        ("GET /x", "DELETE", "write", Refused(InsufficientScope)),
        ("GET /x", "DELETE", "read_write", Permitted),
        ("POST /x", "GET", "write", Refused(InsufficientScope)),
        ("POST /x", "GET", "read", Refused(InsufficientScope)),
        ("POST /x", "PUT", "write", Permitted),
        ("POST /x", "POST", "write", Permitted),
        ("POST /x", "PURGE", "read_write", Refused(MethodNotAllowed)),
    ] {
        let header = call(line).field("x-http-method-override", field);
        assert_eq!(verdict(&policy, &header, &holds(scopes)), expected, "{line} as {field} with {scopes}");
        let query = call(&format!("{line}?_method={field}"));
        assert_eq!(verdict(&policy, &query, &holds(scopes)), expected, "{line}?_method={field} with {scopes}");
    }
}

#[test]
fn the_effective_path_must_be_allowed_too() {
    check(
        &policy(vec![
            RouteSettings { public: true, ..route("GET /") },
            scoped("GET /wp/orders/**", "orders:read"),
            scoped("POST /wp/orders/**", "orders:write"),
        ]),
        &[
            ("GET /", "", Open(OpenFor::Public)),
            ("GET /?rest_route=/wp/orders/7", "", Refused(InsufficientScope)),
            ("GET /?rest_route=/wp/orders/7", "orders:read", Permitted),
            ("GET /?rest_route=/wp/users", "orders:read", Refused(RouteNotAllowed)),
            ("GET /wp/orders?rest_route=/wp/users", "orders:read", Refused(RouteNotAllowed)),
            // Every method with every path: the sent path does not take the effective method here.
            ("GET /?rest_route=/wp/orders&_method=POST", "orders:read orders:write", Refused(RouteNotAllowed)),
            ("GET /wp/orders?rest_route=/wp/orders/7&_method=POST", "orders:read", Refused(InsufficientScope)),
            ("GET /wp/orders?rest_route=/wp/orders/7&_method=POST", "orders:read orders:write", Permitted),
        ],
    );
}

/// A front controller needs no route of its own: it acts on the path that is named, or that follows it.
#[test]
fn at_a_front_controller_the_path_acted_on_is_judged_alone() {
    let policy = policy(vec![scoped("GET /wp/orders/**", "orders:read"), scoped("POST /wp/orders/**", "orders:write")]);
    for (line, scopes, expected) in [
        ("GET /?rest_route=/wp/orders/7", "orders:read", Permitted),
        ("GET /?rest_route=/wp/users", "orders:read", Refused(RouteNotAllowed)),
        ("GET /?rest_route=/WP/orders", "orders:read", Refused(RouteNotAllowed)),
        ("GET /?rest_route=/wp/orders&_method=POST", "orders:read", Refused(InsufficientScope)),
        ("GET /?rest_route=/wp/orders&_method=POST", "orders:read orders:write", Permitted),
        ("GET /index.php/wp/orders", "orders:read", Permitted),
        ("POST /index.php/wp/orders", "orders:read", Refused(InsufficientScope)),
        ("GET /index.php/wp/users", "orders:read", Refused(RouteNotAllowed)),
        // Which of the two it acts on nobody knows: both must be allowed.
        ("GET /index.php/wp/orders?rest_route=/wp/users", "orders:read", Refused(RouteNotAllowed)),
        ("GET /wp/users?rest_route=/wp/orders", "orders:read", Refused(RouteNotAllowed)),
        // Without a path that is named, the front page is a path like any other.
        ("GET /", "orders:read", Refused(RouteNotAllowed)),
        ("GET /index.php", "orders:read", Refused(RouteNotAllowed)),
        ("GET /?rest_route=", "orders:read", Refused(AmbiguousPath)),
        ("GET /?rest_route=0", "orders:read", Refused(AmbiguousPath)),
        ("GET /?rest_route=/wp/orders;x", "orders:read", Refused(AmbiguousPath)),
    ] {
        let call = call(line).through(&["/", "/index.php"]);
        assert_eq!(verdict(&policy, &call, &holds(scopes)), expected, "{line} with {scopes}");
    }
}

#[test]
fn a_folded_path_that_meets_another_route_must_meet_both() {
    check(
        &policy(vec![
            scoped("/v1/admin", "admin:all"),
            scoped("/v1/getUser", "user:read"),
            scoped("/v1/list/", "list:read"),
            scoped("/v1/**", "v1:all"),
        ]),
        &[
            ("GET /v1/admin", "admin:all", Permitted),
            ("GET /v1/ADMIN", "v1:all", Refused(InsufficientScope)),
            ("GET /v1/ADMIN", "admin:all", Refused(InsufficientScope)),
            ("GET /v1/ADMIN", "v1:all admin:all", Permitted),
            ("GET /v1/admin/", "v1:all", Refused(InsufficientScope)),
            ("GET /v1/admin/", "v1:all admin:all", Permitted),
            // Patterns are folded as well.
            ("GET /v1/getUser", "user:read", Permitted),
            ("GET /v1/getuser", "v1:all", Refused(InsufficientScope)),
            ("GET /v1/list/", "list:read", Permitted),
            ("GET /v1/list", "v1:all", Refused(InsufficientScope)),
            ("GET /v1/list", "v1:all list:read", Permitted),
            // No other route: nothing is added.
            ("GET /v1/Other/", "v1:all", Permitted),
            // A spelling that is decoded is the route itself.
            ("GET /v1/%61dmin", "admin:all", Permitted),
        ],
    );
    check(
        &policy(vec![scoped("/v1/a", "a:read")]),
        &[("GET /v1/A", "a:read", Refused(RouteNotAllowed)), ("GET /v1/a/", "a:read", Refused(RouteNotAllowed))],
    );
}

#[test]
fn the_log_says_in_which_reading_something_was_lacking() {
    let policy = policy(vec![scoped("/v1/admin", "admin:all"), scoped("/v1/**", "v1:all")]);
    let note = |line: &str| {
        judge(&policy, &call(line), &holds("v1:all")).expect_err("refused").note.expect("a note").to_string()
    };
    assert_eq!(note("GET /v1/admin"), "needs admin:all");
    assert_eq!(note("GET /v1/Admin"), "needs admin:all (as sent, case and final slash ignored)");
    assert_eq!(note("GET /v1/a?rest_route=/v1/admin"), "needs admin:all (by the effective path)");
    assert_eq!(note("GET /other"), "no route");
}

#[test]
fn an_oddity_in_the_effective_path_is_not_let_through() {
    let rejection = judge(&policy(vec![scoped("/**", "a:all")]), &call("GET /x?rest_route=/a;b"), &holds("a:all"));
    assert_eq!(rejection.expect_err("refused").reason, AmbiguousPath);
}

#[test]
fn every_reading_counts_for_what_a_route_says_of_the_exchange() {
    let policy = policy(vec![
        RouteSettings {
            limits: false,
            upgrade: vec!["websocket".into()],
            max_body: Some(100),
            response_timeout: Some(Duration::from_secs(5)),
            upstream: Some("http://a".into()),
            ..scoped("/a/**", "a:all")
        },
        RouteSettings { max_body: Some(10), upstream: Some("http://b".into()), ..scoped("/b/**", "b:all") },
        RouteSettings { upstream: Some("http://a".into()), ..scoped("/c/**", "c:all") },
    ]);
    assert_eq!(policy.upstreams(), ["http://a".into(), "http://b".into()]);
    let ask = |line: &str| {
        let facts = call(line).facts().expect("facts");
        let need = policy.route(&facts).expect("a need");
        (
            need.route().map(|route| route.index()),
            need.takes_ip_limit(),
            need.allows_upgrade("WebSocket"),
            need.max_body(50),
            need.response_timeout().map(|timeout| timeout.as_secs()),
            need.upstream(),
        )
    };
    assert_eq!(ask("GET /a/x"), (Some(0), false, true, 100, Some(5), Some(0)));
    assert_eq!(ask("GET /a/x?rest_route=/b/x"), (Some(0), true, false, 10, Some(5), Some(0)));
    assert_eq!(ask("GET /a/x?rest_route=/a/y"), (Some(0), false, true, 100, Some(5), Some(0)));
    assert_eq!(ask("GET /a/x?rest_route=/nowhere"), (Some(0), true, false, 50, Some(5), Some(0)));
    assert_eq!(ask("GET /b/x"), (Some(1), true, false, 10, None, Some(1)));
    assert_eq!(ask("GET /c/x"), (Some(2), true, false, 50, None, Some(0)));
    assert_eq!(ask("GET /nowhere"), (None, true, false, 50, None, None));
}

#[test]
fn only_what_stages_four_to_eight_refuse_is_observed() {
    let observe = |line: &str| RouteSettings { observe: true, ..scoped(line, "o:all") };
    let policy =
        policy(vec![observe("/o/**"), scoped("/e/**", "e:all"), RouteSettings { public: true, ..route("/p/**") }]);
    let observed = |line: &str, reason: Reason| {
        let facts = call(line).facts().expect("facts");
        let need = policy.route(&facts).expect("a need");
        need.observed(Rejection::from(reason)).is_ok()
    };
    let never = [
        "ambiguous_framing",
        "ambiguous_host",
        "ambiguous_field_name",
        "ambiguous_method",
        "ambiguous_path",
        "method_not_allowed",
        "request_timeout",
        "body_too_large",
        "uri_too_long",
        "headers_too_large",
        "ip_limit",
        "ambiguous_credentials",
        "upstream_unreachable",
        "upstream_timeout",
        "internal_error",
    ];
    for row in TABLE {
        assert_eq!(observed("GET /o/x", row.reason), !never.contains(&row.label), "{}", row.label);
        assert!(!observed("GET /e/x", row.reason), "{} where the route enforces", row.label);
        assert!(!observed("GET /nowhere", row.reason), "{} where there is no route", row.label);
    }
    // Every reading must be one that is only observed, but for those that ask for no key.
    assert!(!observed("GET /o/x?rest_route=/e/x", InsufficientScope));
    assert!(!observed("GET /e/x?rest_route=/o/x", InsufficientScope));
    assert!(!observed("GET /o/x?rest_route=/nowhere", RouteNotAllowed));
    assert!(observed("GET /o/x?rest_route=/p/x", InsufficientScope));
    assert!(observed("GET /p/x?rest_route=/o/x", InsufficientScope));
}

#[test]
fn an_open_reading_does_not_open_the_others() {
    let policy = policy(vec![RouteSettings { public: true, ..route("/p/**") }, scoped("/e/**", "e:all")]);
    check(
        &policy,
        &[
            ("GET /p/x", "", Open(OpenFor::Public)),
            ("GET /p/x?rest_route=/p/y", "", Open(OpenFor::Public)),
            ("GET /p/x?rest_route=/e/y", "", Refused(InsufficientScope)),
            ("GET /e/x?rest_route=/p/y", "", Refused(InsufficientScope)),
        ],
    );
}

fn any_method() -> impl Strategy<Value = Method> {
    prop::sample::select(vec![Method::GET, Method::HEAD, Method::POST, Method::DELETE, Method::OPTIONS])
}

fn any_route() -> impl Strategy<Value = RouteSettings> {
    let line = prop::sample::select(vec![
        "/a",
        "/a/",
        "/A",
        "GET /a/**",
        "POST /a/{id}",
        "GET,POST /b",
        "/b/**",
        "DELETE /**",
        "/**/c",
    ]);
    let scope = prop::sample::select(vec!["", "a:read", "a:read b:read", "read", "write"]);
    (line, scope, prop::bool::weighted(0.2))
        .prop_map(|(line, scope, public)| RouteSettings { public, ..scoped(line, scope) })
}

fn any_path() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["/", "/a", "/A", "/a/", "/a/7", "/A/7/", "/b", "/B/c", "/b/x/c", "/none"])
        .prop_map(str::to_owned)
}

proptest! {
    /// An override may take something away, never give something.
    #[test]
    fn an_override_never_makes_a_refused_request_allowed(
        routes in prop::collection::vec(any_route(), 0..5),
        method in any_method(), path in any_path(),
        effective_method in prop::option::of(any_method()), effective_path in prop::option::of(any_path()),
        scopes in prop::sample::select(vec!["", "read", "write", "read_write", "a:read", "a:read b:read read"]),
    ) {
        let policy = Policy::new(&Settings { routes, ..Settings::default() });
        let plain = verdict(&policy, &call(&format!("{method} {path}")), &holds(scopes));
        let mut query = Vec::new();
        query.extend(effective_method.map(|method| format!("_method={method}")));
        query.extend(effective_path.map(|path| format!("rest_route={path}")));
        let overridden = verdict(&policy, &call(&format!("{method} {path}?{}", query.join("&"))), &holds(scopes));
        if matches!(plain, Refused(_)) {
            prop_assert!(matches!(overridden, Refused(_)), "{plain:?} became {overridden:?}");
        }
        if matches!(overridden, Open(_)) {
            prop_assert!(matches!(plain, Open(_)), "{plain:?} became {overridden:?}");
        }
    }

    /// Whatever case and final slash a path is sent with, it opens nothing that the plain path does not.
    #[test]
    fn a_spelling_never_opens_what_the_plain_path_does_not(
        mut routes in prop::collection::vec(any_route(), 0..5), method in any_method(), path in any_path(),
        scopes in prop::sample::select(vec!["", "read", "write", "a:read", "a:read b:read read"]),
    ) {
        // Patterns that no upstream folds: then the plain path has one reading.
        routes.retain(|route| !route.path.folds());
        let policy = Policy::new(&Settings { routes, ..Settings::default() });
        let folded = path.to_ascii_lowercase();
        let folded = if folded.len() > 1 { folded.trim_end_matches('/') } else { &folded };
        let plain = verdict(&policy, &call(&format!("{method} {folded}")), &holds(scopes));
        let spelt = verdict(&policy, &call(&format!("{method} {path}")), &holds(scopes));
        if matches!(plain, Refused(_)) {
            prop_assert!(matches!(spelt, Refused(_)), "{plain:?} became {spelt:?}");
        }
    }
}
