//! The order of refusals: of any two faults, the earlier one is the answer.

use super::fixture::{KEY, Key, Verdict, call, policy, scoped, verdict};
use crate::{
    keys::{Kyc, Mode},
    policy::{Outcome, Policy, RouteSettings, Settings, Stage, Step},
    rejection::{Reason, TABLE},
};

/// What can be wrong with one request, in the order in which it must be said.
const FAULTS: [Reason; 8] = [
    Reason::AmbiguousPath,
    Reason::MethodNotAllowed,
    Reason::ForbiddenCallerIp,
    Reason::ModeMismatch,
    Reason::RouteNotAllowed,
    Reason::InsufficientScope,
    Reason::PermissionDenied,
    Reason::KycRequired,
];

/// A request and a key with these faults and no other; `None` where two faults exclude each other.
fn with(faults: &[Reason]) -> Verdict {
    let has = |fault| faults.contains(&fault);
    let strict = RouteSettings { capability: Some("manage".into()), kyc: true, ..scoped("/v1/**", "v1:all") };
    let policy = Policy::new(&Settings {
        routes: vec![strict],
        hosts: [("api.example.com".to_owned(), Mode::Live), ("sandbox.example.com".to_owned(), Mode::Test)].into(),
        ..Settings::default()
    });
    let call = call(&format!(
        "{} {}{}{}?rest_route={}",
        if has(Reason::MethodNotAllowed) { "PROPFIND" } else { "GET" },
        if has(Reason::ModeMismatch) { "sandbox.example.com" } else { "api.example.com" },
        "/v1/x",
        if has(Reason::AmbiguousPath) { ";y" } else { "" },
        // Another reading fails early, and the plain one late: the earlier stage is the answer all the same.
        if has(Reason::RouteNotAllowed) { "/nowhere" } else { "/v1/y" },
    ))
    .from(if has(Reason::ForbiddenCallerIp) { "203.0.113.9" } else { "198.51.100.7" });
    let key = Key {
        scopes: if has(Reason::InsufficientScope) { "read_write" } else { "v1:all" },
        mode: Some(Mode::Live),
        allow_ips: &["198.51.100.0/24"],
        capabilities: if has(Reason::PermissionDenied) { &[] } else { &["manage"] },
        kyc: if has(Reason::KycRequired) { Kyc::Pending } else { Kyc::Approved },
    };
    verdict(&policy, &call, &key.record())
}

#[test]
fn of_any_two_faults_the_earlier_one_is_the_answer() {
    assert_eq!(with(&[]), Verdict::Permitted);
    for (index, first) in FAULTS.iter().enumerate() {
        assert_eq!(with(&[*first]), Verdict::Refused(*first));
        for second in &FAULTS[index + 1..] {
            assert_eq!(with(&[*first, *second]), Verdict::Refused(*first), "{first:?} before {second:?}");
        }
    }
    assert_eq!(with(&FAULTS), Verdict::Refused(FAULTS[0]));
}

#[test]
fn the_order_is_that_of_the_table() {
    assert!(FAULTS.is_sorted(), "reasons are declared in the order in which a request meets them");
    assert!(TABLE.is_sorted_by_key(|row| row.reason));
}

#[test]
fn each_stage_is_put_to_all_readings_before_the_next_one() {
    // The plain reading lacks the KYC, another one the scope: the scope is the answer.
    let policy = policy(vec![
        RouteSettings { kyc: true, ..scoped("/a/**", "a:all") },
        RouteSettings { capability: Some("manage".into()), ..scoped("/b/**", "b:all") },
    ]);
    let call = call("GET /a/x?rest_route=/b/x");
    let refused = |scopes, expected| {
        assert_eq!(verdict(&policy, &call, &Key { scopes, ..KEY }.record()), Verdict::Refused(expected), "{scopes}");
    };
    refused("a:all", Reason::InsufficientScope);
    refused("a:all b:all", Reason::PermissionDenied);
}

#[test]
fn the_explanation_is_the_decision() {
    let policy =
        policy(vec![RouteSettings { capability: Some("manage".into()), kyc: true, ..scoped("/v1/**", "v1:all") }]);
    for (scopes, kyc, expected) in [
        ("", Kyc::None, vec![Reason::InsufficientScope, Reason::PermissionDenied, Reason::KycRequired]),
        ("v1:all", Kyc::Approved, vec![Reason::PermissionDenied]),
    ] {
        let key = Key { scopes, kyc, ..KEY }.record();
        let call = call("GET /v1/x");
        let facts = call.facts().expect("facts");
        let need = policy.route(&facts).expect("a need");
        let steps = policy.explain(&need, &key, &facts);
        assert_eq!(steps.iter().map(|step| step.name).collect::<Vec<_>>(), Stage::ALL.map(Stage::name));
        let refusals: Vec<Reason> = steps
            .iter()
            .filter_map(|step| match step.outcome {
                Outcome::Refused(reason) => Some(reason),
                Outcome::Noted | Outcome::Passed => None,
            })
            .collect();
        assert_eq!(refusals, expected);
        assert_eq!(verdict(&policy, &call, &key), Verdict::Refused(expected[0]), "the first one is the answer");
    }
}

fn active() -> Step {
    Step::passed("key", "active")
}

#[test]
fn abilities_name_every_method_of_every_route() {
    let policy = policy(vec![
        scoped("GET /v1/keys", "keys:read"),
        RouteSettings { public: true, ..scoped("POST /hook", "x:y") },
    ]);
    let key = Key { scopes: "read_write", ..KEY }.record();
    let lines: Vec<String> = policy
        .abilities(&key, &active())
        .iter()
        .map(|ability| {
            let path = ability.path.as_deref().unwrap_or("*");
            format!("{} {path}: {} ({})", ability.method, ability.step.name, ability.step.finding)
        })
        .collect();
    assert_eq!(
        lines,
        [
            "GET /v1/keys: refused (needs keys:read)",
            "HEAD /v1/keys: refused (needs keys:read)",
            "POST /hook: allowed (no key needed)",
        ]
    );
    let by_method = super::fixture::policy(vec![]);
    assert_eq!(by_method.abilities(&key, &active()).len(), 7);
    assert!(by_method.abilities(&key, &active()).iter().all(|ability| ability.step.outcome == Outcome::Passed));
    let revoked = Step::refused("key", Reason::Revoked, "revoked");
    let barred = Outcome::Refused(Reason::Revoked);
    assert!(by_method.abilities(&key, &revoked).iter().all(|ability| ability.step.outcome == barred));
}

/// What a route before it takes, a route never sees.
#[test]
fn abilities_leave_out_what_another_route_takes() {
    let policy = policy(vec![
        scoped("OPTIONS /v1/**", "a:a"),
        scoped("GET /v1/money/{id}", "a:b"),
        RouteSettings { methods: None, ..scoped("GET /v1/money/**", "b:b") },
        scoped("GET /v1/money/{id}", "c:c"),
    ]);
    let key = Key { scopes: "read", ..KEY }.record();
    let seen = |route| {
        let of_it = policy.abilities(&key, &active()).into_iter().filter(move |ability| ability.route == Some(route));
        of_it.map(|ability| ability.method.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(seen(0), ["OPTIONS"]);
    assert_eq!(seen(1), ["GET", "HEAD"]);
    assert_eq!(seen(2), ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]);
    assert!(seen(3).is_empty());
}
