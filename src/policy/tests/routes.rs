//! Which route a request meets, and what it asks.

use http::Method;

use super::fixture::{
    KEY, Key,
    Verdict::{Open, Permitted, Refused},
    call, check, holds, judge, policy, route, scoped, verdict,
};
use crate::{
    keys::{Kyc, Mode},
    policy::{Methods, OpenFor, Policy, RouteSettings, Settings},
    rejection::Reason::{
        AmbiguousPath, InsufficientScope, KycRequired, MethodNotAllowed, ModeMismatch, PermissionDenied,
        RouteNotAllowed,
    },
};

#[test]
fn without_routes_the_method_decides() {
    check(
        &policy(vec![]),
        &[
            ("GET /any/path", "read", Permitted),
            ("HEAD /any/path", "read", Permitted),
            ("OPTIONS /any/path", "read", Permitted),
            ("GET /any/path", "write", Refused(InsufficientScope)),
            ("GET /any/path", "wallets:read", Refused(InsufficientScope)),
            ("POST /any/path", "read", Refused(InsufficientScope)),
            ("POST /any/path", "write", Permitted),
            ("PUT /any/path", "read_write", Permitted),
            ("PATCH /any/path", "read", Refused(InsufficientScope)),
            ("DELETE /any/path", "read", Refused(InsufficientScope)),
            ("DELETE /any/path/", "read_write", Permitted),
            ("GET /Any/Path", "read", Permitted),
        ],
    );
}

#[test]
fn a_method_that_nothing_names_is_405() {
    let patterns = policy(vec![scoped("GET /v1/keys", "keys:read"), scoped("PURGE,POST /v1/cache", "cache:purge")]);
    check(
        &patterns,
        &[
            ("PROPFIND /v1/keys", "keys:read", Refused(MethodNotAllowed)),
            ("get /v1/keys", "keys:read", Refused(MethodNotAllowed)),
            ("PROPFIND /nowhere", "keys:read", Refused(MethodNotAllowed)),
            ("PURGE /v1/cache", "cache:purge", Permitted),
            ("PURGE /v1/keys", "cache:purge", Refused(RouteNotAllowed)),
        ],
    );
    let allow = |line: &str| {
        judge(&patterns, &call(line), &holds("")).expect_err("405").allow.expect("Allow").to_str().unwrap().to_owned()
    };
    assert_eq!(allow("PROPFIND /v1/keys"), "GET, HEAD");
    assert_eq!(allow("PROPFIND /v1/cache"), "POST, PURGE");
    assert_eq!(allow("PROPFIND /nowhere"), "GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE, PURGE");
    assert_eq!(patterns.allow(), "GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE, PURGE");
    check(&policy(vec![]), &[("PROPFIND /", "read_write", Refused(MethodNotAllowed))]);
}

#[test]
fn the_first_match_wins_and_no_match_is_refused() {
    check(
        &policy(vec![
            scoped("GET /v1/keys/{id}", "keys:one"),
            scoped("/v1/keys/**", "keys:all"),
            scoped("GET /v1/onramp", "onramp:read"),
        ]),
        &[
            ("GET /v1/keys/7", "keys:one", Permitted),
            ("GET /v1/keys/7", "keys:all", Refused(InsufficientScope)),
            ("DELETE /v1/keys/7", "keys:all", Permitted),
            ("GET /v1/keys", "keys:all", Permitted),
            ("GET /v1/keys/", "keys:all", Permitted),
            ("GET /v1/keys/7/log", "keys:all", Permitted),
            ("HEAD /v1/onramp", "onramp:read", Permitted),
            ("POST /v1/onramp", "onramp:read read_write", Refused(RouteNotAllowed)),
            ("GET /v1/other", "onramp:read read_write", Refused(RouteNotAllowed)),
            ("GET /", "onramp:read read_write", Refused(RouteNotAllowed)),
        ],
    );
}

#[test]
fn any_of_several_scopes_is_enough() {
    let policy = policy(vec![scoped("/v1/**", "a:read b:read")]);
    check(
        &policy,
        &[
            ("GET /v1/x", "a:read", Permitted),
            ("GET /v1/x", "c:read b:read", Permitted),
            ("GET /v1/x", "read_write c:read", Refused(InsufficientScope)),
        ],
    );
    let rejection = judge(&policy, &call("GET /v1/x"), &holds("c:read")).expect_err("refused");
    assert_eq!(rejection.scope.as_deref(), Some("a:read"));
    assert_eq!(rejection.hint.as_deref(), Some("It needs the scope a:read or b:read."));
}

#[test]
fn a_route_without_scope_leaves_it_to_the_method() {
    check(
        &policy(vec![route("/v1/**"), route("PURGE /cache")]),
        &[
            ("GET /v1/x", "read", Permitted),
            ("POST /v1/x", "read", Refused(InsufficientScope)),
            ("POST /v1/x", "write", Permitted),
            ("PURGE /cache", "read_write", Refused(RouteNotAllowed)),
        ],
    );
    assert_eq!(policy(vec![route("/v1/**"), route("PURGE /cache")]).undecided_routes(), [1]);
}

#[test]
fn routes_are_of_their_hosts() {
    let on = |host: &str, route: RouteSettings| RouteSettings { hosts: vec![host.into()], ..route };
    check(
        &policy(vec![
            on("API.example.com", scoped("/v1/**", "a:read")),
            on("b.example.com.", scoped("/v1/**", "b:read")),
        ]),
        &[
            ("GET api.example.com/v1/x", "a:read", Permitted),
            ("GET api.example.com:8443/v1/x", "a:read", Permitted),
            ("GET Api.Example.Com/v1/x", "a:read", Permitted),
            ("GET b.example.com/v1/x", "b:read", Permitted),
            ("GET b.example.com/v1/x", "a:read", Refused(InsufficientScope)),
            ("GET c.example.com/v1/x", "a:read b:read", Refused(RouteNotAllowed)),
        ],
    );
}

#[test]
fn a_public_route_asks_for_no_key() {
    check(
        &policy(vec![RouteSettings { public: true, ..scoped("/docs/**", "docs:read") }, scoped("/**", "all:read")]),
        &[("GET /docs/a", "", Open(OpenFor::Public)), ("GET /keys", "", Refused(InsufficientScope))],
    );
}

#[test]
fn a_method_that_passes_needs_no_key_where_no_route_says_otherwise() {
    let methods = Methods { read: vec![Method::GET], write: vec![Method::POST], pass: vec![Method::OPTIONS] };
    let routes = vec![
        route("/plain/**"),
        scoped("/scoped/**", "a:read"),
        RouteSettings { kyc: true, ..route("/kyc/**") },
        route("GET /get"),
    ];
    let policy = Policy::new(&Settings { methods: methods.clone(), routes, ..Settings::default() });
    check(
        &policy,
        &[
            ("OPTIONS /plain/x", "", Open(OpenFor::Pass)),
            ("OPTIONS /scoped/x", "", Refused(InsufficientScope)),
            ("OPTIONS /kyc/x", "", Refused(KycRequired)),
            // Its path is named, though for another method.
            ("OPTIONS /get", "", Open(OpenFor::Pass)),
            ("OPTIONS /nowhere", "read_write", Refused(RouteNotAllowed)),
        ],
    );
    let policy = Policy::new(&Settings { methods, ..Settings::default() });
    check(&policy, &[("OPTIONS /nowhere", "", Open(OpenFor::Pass)), ("HEAD /x", "read", Permitted)]);
}

#[test]
fn a_preflight_is_forwarded_only_when_told_and_only_to_paths_that_a_route_names() {
    let settings = |forward_preflight| Settings {
        forward_preflight,
        routes: vec![scoped("GET /v1/keys", "keys:read"), scoped("/v1/onramp", "onramp:read")],
        ..Settings::default()
    };
    let open = |policy: &Policy, line: &str| {
        let facts = call(line).preflight().facts().expect("facts");
        let need = policy.route(&facts).expect("a need");
        assert!(need.open().is_none(), "with a credential it is judged as any other request");
        need.open_without_credential().map(|open| open.reason())
    };
    let told = Policy::new(&settings(true));
    assert_eq!(open(&told, "OPTIONS /v1/keys"), Some(OpenFor::Preflight));
    assert_eq!(open(&told, "OPTIONS /v1/onramp"), Some(OpenFor::Preflight));
    assert_eq!(open(&told, "OPTIONS /v1/other"), None);
    assert_eq!(open(&told, "OPTIONS /v1/keys?_method=DELETE"), None);
    assert_eq!(open(&told, "OPTIONS /v1/keys?rest_route=/v1/other"), None);
    assert_eq!(open(&Policy::new(&settings(false)), "OPTIONS /v1/keys"), None);
    assert_eq!(
        open(&Policy::new(&Settings { forward_preflight: true, ..Settings::default() }), "OPTIONS /any"),
        Some(OpenFor::Preflight)
    );
    // It is not a method that somebody must list.
    let methods = Methods { read: vec![Method::GET], write: vec![], pass: vec![] };
    let unlisted = Policy::new(&Settings { methods, ..settings(true) });
    assert_eq!(open(&unlisted, "OPTIONS /v1/keys"), Some(OpenFor::Preflight));
    assert_eq!(verdict(&unlisted, &call("OPTIONS /v1/keys"), &holds("read")), Refused(MethodNotAllowed));
    // Only OPTIONS can be a preflight.
    let facts = call("GET /v1/keys").preflight().facts().expect("facts");
    assert!(told.route(&facts).expect("a need").open_without_credential().is_none());
}

#[test]
fn a_host_takes_keys_of_its_mode_and_keys_without_one() {
    let policy = Policy::new(&Settings {
        hosts: [("API.example.com".to_owned(), Mode::Live), ("sandbox.example.com".to_owned(), Mode::Test)].into(),
        ..Settings::default()
    });
    for (mode, host, expected) in [
        (Some(Mode::Live), "api.example.com", Permitted),
        (Some(Mode::Live), "api.example.com:8443", Permitted),
        (Some(Mode::Live), "sandbox.example.com", Refused(ModeMismatch)),
        (Some(Mode::Test), "api.example.com", Refused(ModeMismatch)),
        (Some(Mode::Test), "sandbox.example.com", Permitted),
        (Some(Mode::Live), "other.example.com", Refused(ModeMismatch)),
        (Some(Mode::Test), "127.0.0.1", Refused(ModeMismatch)),
        (None, "other.example.com", Permitted),
        (None, "api.example.com", Permitted),
    ] {
        let key = Key { scopes: "read", mode, ..KEY }.record();
        assert_eq!(verdict(&policy, &call(&format!("GET {host}/x")), &key), expected, "{mode:?} on {host}");
    }
    let key = Key { scopes: "read", mode: Some(Mode::Test), ..KEY }.record();
    let unbound = Policy::new(&Settings::default());
    assert_eq!(verdict(&unbound, &call("GET any.example.com/x"), &key), Permitted, "no host is bound");
}

#[test]
fn owners_need_what_the_route_asks_of_them() {
    let policy = policy(vec![
        RouteSettings { capability: Some("manage".into()), ..route("/admin/**") },
        RouteSettings { kyc: true, ..route("/money/**") },
    ]);
    for (capabilities, kyc, admin, money) in [
        (&[][..], Kyc::None, Refused(PermissionDenied), Refused(KycRequired)),
        (&["manage"][..], Kyc::Pending, Permitted, Refused(KycRequired)),
        (&["manager", "Manage"][..], Kyc::Approved, Refused(PermissionDenied), Permitted),
    ] {
        let key = Key { scopes: "read", capabilities, kyc, ..KEY }.record();
        assert_eq!(verdict(&policy, &call("GET /admin/x"), &key), admin, "{capabilities:?}");
        assert_eq!(verdict(&policy, &call("GET /money/x"), &key), money, "{kyc:?}");
    }
}

#[test]
fn an_oddity_passes_only_where_the_route_allows_it() {
    let allowing = |line: &str, scope: &str, allow: &[&str]| RouteSettings {
        allow: allow.iter().map(|text| text.parse().expect("an oddity")).collect(),
        ..scoped(line, scope)
    };
    check(
        &policy(vec![
            allowing("GET /projects/{id}", "projects:read", &["%2F"]),
            allowing("/matrix/**", "matrix:read", &[";"]),
            scoped("/files/{name}/share", "files:share"),
            allowing("/files/{name}", "files:read", &["%2F"]),
            scoped("/matrix/admin/**", "matrix:admin"),
            scoped("/strict/**", "strict:read"),
        ]),
        &[
            ("GET /projects/a%2Fb", "projects:read", Permitted),
            ("GET /projects/a%2fb", "projects:read", Permitted),
            ("POST /projects/a%2Fb", "projects:read", Refused(AmbiguousPath)),
            ("GET /projects/a;b", "projects:read", Refused(AmbiguousPath)),
            ("GET /strict/a%2Fb", "strict:read", Refused(AmbiguousPath)),
            ("GET /strict/a;b", "strict:read", Refused(AmbiguousPath)),
            ("GET /nowhere/a;b", "strict:read", Refused(AmbiguousPath)),
            ("GET /matrix/a;v=1/b", "matrix:read", Permitted),
            ("GET /matrix/a%3Bv=1/b", "matrix:read", Refused(AmbiguousPath)),
            // What the upstream may see once it has resolved them is never a way around another route.
            ("GET /files/x%2Fshare", "files:read", Refused(InsufficientScope)),
            ("GET /files/x%2Fshare", "files:read files:share", Permitted),
            ("GET /projects/a%2F..%2Fb", "projects:read", Refused(AmbiguousPath)),
            ("GET /projects/a%2F%2Fb", "projects:read", Refused(AmbiguousPath)),
            ("GET /matrix/..;/b", "matrix:read", Refused(AmbiguousPath)),
            ("GET /matrix/;a/b", "matrix:read", Refused(AmbiguousPath)),
        ],
    );
    check(&policy(vec![]), &[("GET /a;b", "read", Refused(AmbiguousPath))]);
}

#[test]
fn a_parameter_does_not_hide_a_route() {
    let allow = vec!["; ".trim().parse().expect("an oddity")];
    check(
        &policy(vec![scoped("/v1/admin", "admin:all"), RouteSettings { allow, ..scoped("/v1/**", "v1:all") }]),
        &[
            ("GET /v1/admin;x", "v1:all", Refused(InsufficientScope)),
            ("GET /v1/admin;x", "v1:all admin:all", Permitted),
            ("GET /v1/ADMIN;x", "v1:all", Refused(InsufficientScope)),
            ("GET /v1/other;x", "v1:all", Permitted),
        ],
    );
}

#[test]
fn what_can_never_be_met_is_reported() {
    let shadowed = |routes: Vec<RouteSettings>| {
        policy(routes).shadowed_routes().iter().map(|found| (found.route, found.by)).collect::<Vec<_>>()
    };
    let on = |host: &str, line: &str| RouteSettings { hosts: vec![host.into()], ..route(line) };
    assert_eq!(shadowed(vec![route("/**"), route("/v1/x")]), [(1, 0)]);
    assert_eq!(shadowed(vec![route("/v1/x"), route("/**")]), []);
    assert_eq!(shadowed(vec![route("GET /v1/**"), route("GET,HEAD /v1/x"), route("POST /v1/x")]), [(1, 0)]);
    assert_eq!(shadowed(vec![route("GET /v1/**"), route("POST /v1/**"), route("GET,POST /v1/x")]), [(2, 0)]);
    assert_eq!(shadowed(vec![route("GET /v1/**"), route("/v1/x")]), []);
    assert_eq!(shadowed(vec![on("a.example", "/**"), route("/v1/x"), on("A.example", "/v1/x")]), [(2, 0)]);
    assert_eq!(shadowed(vec![on("a.example", "/**"), on("b.example", "/v1/x")]), []);
}

#[test]
fn the_scopes_that_are_asked_are_listed_once() {
    let asked = |routes| policy(routes).scopes_asked().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(asked(vec![]), ["read", "write"]);
    assert_eq!(
        asked(vec![scoped("/a", "a:read b:read"), scoped("/b", "a:read"), route("GET /c")]),
        ["a:read", "b:read", "read"]
    );
    assert_eq!(asked(vec![RouteSettings { public: true, ..scoped("/a", "a:read") }]), Vec::<String>::new());
}
