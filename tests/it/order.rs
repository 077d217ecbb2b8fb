//! The first failure is the answer: every two faults together give the refusal of the earlier one.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::harness::{H1, H2, Key, Request, Sidecar, get, key_file_of, request};

/// One thing that is wrong with a request or its key, in the order in which they are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    FieldName,
    Path,
    Method,
    BodyTooLarge,
    IpLimit,
    NoCredential,
    WrongSecret,
    Revoked,
    Address,
    Mode,
    Route,
    Scope,
    Capability,
    Kyc,
    KeyLimit,
    Upstream,
}
use Fault::*;

const ALL: [Fault; 16] = [
    FieldName,
    Path,
    Method,
    BodyTooLarge,
    IpLimit,
    NoCredential,
    WrongSecret,
    Revoked,
    Address,
    Mode,
    Route,
    Scope,
    Capability,
    Kyc,
    KeyLimit,
    Upstream,
];

impl Fault {
    fn answer(self) -> &'static str {
        match self {
            FieldName | Path => "400 bad_request",
            Method => "405 method_not_allowed",
            BodyTooLarge => "413 body_too_large",
            IpLimit | KeyLimit => "429 too_many_requests",
            NoCredential => "401 missing_credentials",
            WrongSecret | Revoked => "401 invalid_credentials",
            Address => "403 forbidden_caller_ip",
            Mode => "403 mode_mismatch",
            Route => "403 route_not_allowed",
            Scope => "403 insufficient_scope",
            Capability => "403 permission_denied",
            Kyc => "403 kyc_required",
            Upstream => "502 upstream_unreachable",
        }
    }

    /// The stage that finds it; two faults of one stage have no order among them.
    fn stage(self) -> u8 {
        match self {
            FieldName | Path | Method | BodyTooLarge => 0,
            NoCredential | WrongSecret | Revoked => 2,
            other => other as u8 + 10,
        }
    }
}

/// A key with these faults.
fn key(faults: &[Fault]) -> Key {
    let has = |fault| faults.contains(&fault);
    let owner = match (has(Capability), has(Kyc)) {
        (false, false) => "good",
        (true, false) => "incapable",
        (false, true) => "unapproved",
        (true, true) => "neither",
    };
    let name: String = faults.iter().map(|fault| format!("{fault:?}")).collect();
    let mut key = Key::pair(&name).owner(owner).scopes(if has(Scope) { ["read"] } else { ["read_write"] });
    if has(Revoked) {
        key = key.with("revoked_at = 2026-01-02T00:00:00Z");
    }
    if has(Address) {
        key = key.with("allow_ips = [\"127.0.0.5\"]");
    }
    if has(Mode) {
        key = key.with("mode = \"test\"");
    }
    if has(KeyLimit) {
        key = key.with("limits = [\"1/1h\"]");
    }
    key
}

/// A request with these faults.
fn faulty(faults: &[Fault], key: &Key) -> Request {
    let has = |fault| faults.contains(&fault);
    let path = if has(Route) { "/nowhere" } else { "/guarded" };
    let path = if has(Path) { format!("{path}//x") } else { path.to_owned() };
    let mut request = request(if has(Method) { "PURGE" } else { "POST" }, &path);
    request = request.host(if has(Mode) { "live.example.com" } else { "any.example.com" });
    request = request.body("x".repeat(if has(BodyTooLarge) { 2000 } else { 10 }));
    if has(FieldName) {
        request = request.field("X_Odd", "1");
    }
    match (has(NoCredential), has(WrongSecret)) {
        (true, _) => request,
        (_, true) => request.basic(&key.public, "cs_wrong"),
        _ => request.key(key),
    }
}

#[tokio::test]
async fn of_two_faults_the_earlier_one_is_the_answer() {
    let mut cases: Vec<[Fault; 2]> = Vec::new();
    for (index, &first) in ALL.iter().enumerate() {
        cases.extend(
            ALL[index + 1..].iter().filter(|second| second.stage() > first.stage()).map(|&second| [first, second]),
        );
    }
    let keys: Vec<Key> = cases.iter().map(|faults| key(faults)).collect();
    let owners = r#"
        [[owner]]
        id = "good"
        kyc = "approved"
        capabilities = ["manage"]
        [[owner]]
        id = "incapable"
        kyc = "approved"
        [[owner]]
        id = "unapproved"
        capabilities = ["manage"]
        [[owner]]
        id = "neither"
    "#;
    // Nothing listens upstream: every request has the last fault.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sidecar = Sidecar::in_front_of_url(&format!("http://{nobody}"))
        .config(
            r#"
            [listen]
            max_body = "1KiB"
            [hosts]
            "live.example.com" = "live"
            "any.example.com" = "test"
            [limits]
            per_ip = ["1/1h"]
            exempt = ["127.0.0.1", "127.0.0.5"]
            failures_per_ip = ["100000/1m"]
            [[route]]
            path = "/free"
            methods = ["GET"]
            scope = "read"
            [[route]]
            path = "/guarded/**"
            methods = ["POST"]
            scope = "write"
            capability = "manage"
            kyc = true
            "#,
        )
        .key_file(key_file_of(owners, &keys))
        .start()
        .await;

    for (faults, key) in cases.iter().zip(&keys) {
        if faults.contains(&KeyLimit)
            && !faults.iter().any(|fault| [Revoked, WrongSecret, NoCredential].contains(fault))
        {
            // The key's one request, from where it may be made, to what all may read.
            let mut elsewhere = sidecar.connect_from("127.0.0.5".parse().unwrap(), H1).await;
            let spent = elsewhere.send(&get("/free").host("any.example.com").key(key)).await;
            assert_eq!(spent.status, 502, "{faults:?}: {spent:?}");
        }
        for version in [H1, H2] {
            let mut connection = if faults.contains(&IpLimit) {
                static LAST: AtomicU8 = AtomicU8::new(1);
                let from = [127, 7, 7, LAST.fetch_add(1, Relaxed)].into();
                // This address's one request.
                sidecar.connect_from(from, H1).await.send(&get("/free")).await;
                sidecar.connect_from(from, version).await
            } else {
                sidecar.connect(version).await
            };
            let answer = connection.send(&faulty(faults, key)).await;
            assert_eq!(answer.brief(), faults[0].answer(), "{faults:?} over {version:?}: {answer:?}");
        }
    }
}
