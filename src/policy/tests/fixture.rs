//! Requests, keys and routes in few words.

use std::sync::Arc;

use http::Method;

use crate::{
    facts::{self, Arrival, Facts},
    keys::{KeyRecord, Kind, Kyc, Mode, OwnerRecord, Scopes, record::PublicPart, secret::SecretHash},
    policy::{Identity, OpenFor, Policy, RouteSettings, Settings, network::Networks},
    rejection::{Reason, Rejection},
};

/// What becomes of a request, as far as the policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Open(OpenFor),
    Permitted,
    Refused(Reason),
}

/// A request: `GET api.example.com/v1/keys` or `GET /v1/keys`, and fields.
#[derive(Clone, Debug)]
pub(super) struct Call {
    line: String,
    fields: Vec<(&'static str, String)>,
    client: &'static str,
    front_controllers: &'static [&'static str],
}

pub(super) fn call(line: &str) -> Call {
    Call { line: line.to_owned(), fields: Vec::new(), client: "192.0.2.1", front_controllers: &[] }
}

impl Call {
    pub(super) fn field(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }

    pub(super) fn from(mut self, client: &'static str) -> Self {
        self.client = client;
        self
    }

    pub(super) fn through(mut self, front_controllers: &'static [&'static str]) -> Self {
        self.front_controllers = front_controllers;
        self
    }

    pub(super) fn preflight(self) -> Self {
        self.field("origin", "https://shop.example").field("access-control-request-method", "GET")
    }

    pub(super) fn facts(&self) -> Result<Facts, Rejection> {
        let (method, target) = self.line.split_once(' ').expect("a method and a target");
        let slash = target.find(['/', '*']).expect("a path");
        let host = if slash == 0 { "api.example.com" } else { &target[..slash] };
        let mut request = http::Request::builder().method(method).uri(&target[slash..]).header("host", host);
        for (name, value) in &self.fields {
            request = request.header(*name, value);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let arrival = Arrival { peer: self.client.parse().expect("an address"), secure: true, http2: false };
        let settings = facts::Settings {
            effective_path_parameter: Some("rest_route".into()),
            front_controllers: self.front_controllers.iter().map(|path| (*path).into()).collect(),
            ..facts::Settings::default()
        };
        Facts::from_head(&head, &arrival, &settings).map_err(|(rejection, _)| rejection)
    }
}

/// A key that may do nothing, and an owner who has nothing.
pub(super) struct Key {
    pub(super) scopes: &'static str,
    pub(super) mode: Option<Mode>,
    pub(super) allow_ips: &'static [&'static str],
    pub(super) capabilities: &'static [&'static str],
    pub(super) kyc: Kyc,
}

pub(super) const KEY: Key = Key { scopes: "", mode: None, allow_ips: &[], capabilities: &[], kyc: Kyc::None };

/// A key with these scopes.
pub(super) fn holds(scopes: &'static str) -> Arc<KeyRecord> {
    Key { scopes, ..KEY }.record()
}

impl Key {
    pub(super) fn record(&self) -> Arc<KeyRecord> {
        let id = "key_1".parse().expect("an id");
        let owner_id = "svc-accounting".parse().expect("an id");
        let scopes = Scopes::parse(self.scopes.split_whitespace()).expect("scopes");
        Arc::new(KeyRecord {
            scopes_text: scopes.to_string().into(),
            id,
            name: "a key".into(),
            kind: Kind::Pair,
            public: PublicPart::Clear("ck_1".into()),
            hash: SecretHash::parse(&format!("$sha256${}", "0".repeat(64))).expect("a hash"),
            pepper: None,
            machine_made: true,
            owner: Arc::new(OwnerRecord {
                id: owner_id,
                name: None,
                capabilities: self.capabilities.iter().map(|name| (*name).into()).collect(),
                kyc: self.kyc,
                plan: None,
                suspended_at: None,
                listed: true,
                state: Arc::default(),
            }),
            scopes,
            mode: self.mode,
            allow_ips: Networks::parse(self.allow_ips).expect("networks"),
            limits: None,
            created_at: None,
            expires_at: None,
            revoked_at: None,
            rotated_from: None,
            state: Arc::default(),
            verified: Default::default(),
        })
    }
}

/// `/v1/keys`, or `GET,POST /v1/keys`, with nothing else said.
pub(super) fn route(line: &str) -> RouteSettings {
    let (methods, path) = line.split_once(' ').map_or((None, line), |(methods, path)| (Some(methods), path));
    RouteSettings {
        methods: methods.map(|methods| {
            methods.split(',').map(|method| Method::from_bytes(method.as_bytes()).expect("a method")).collect()
        }),
        ..RouteSettings::new(path.parse().expect("a pattern"))
    }
}

/// The same, and one of these scopes is needed.
pub(super) fn scoped(line: &str, scopes: &str) -> RouteSettings {
    let scope = scopes.split_whitespace().map(|scope| scope.parse().expect("a scope")).collect();
    RouteSettings { scope, ..route(line) }
}

pub(super) fn policy(routes: Vec<RouteSettings>) -> Policy {
    Policy::new(&Settings { routes, ..Settings::default() })
}

/// What becomes of the request with this key.
pub(super) fn judge(policy: &Policy, call: &Call, key: &Arc<KeyRecord>) -> Result<Verdict, Rejection> {
    let facts = call.facts()?;
    let need = policy.route(&facts)?;
    if let Some(open) = need.open() {
        return Ok(Verdict::Open(open.reason()));
    }
    let permit = policy.decide(&need, &Identity::verified(key.clone()), &facts)?;
    assert!(Arc::ptr_eq(permit.record(), key), "the permit is for the key that was judged");
    Ok(Verdict::Permitted)
}

pub(super) fn verdict(policy: &Policy, call: &Call, key: &Arc<KeyRecord>) -> Verdict {
    judge(policy, call, key).unwrap_or_else(|rejection| Verdict::Refused(rejection.reason))
}

/// Rows of a request, the scopes of a key and what becomes of it.
#[track_caller]
pub(super) fn check(policy: &Policy, rows: &[(&str, &'static str, Verdict)]) {
    for (line, scopes, expected) in rows {
        assert_eq!(verdict(policy, &call(line), &holds(scopes)), *expected, "{line} with {scopes:?}");
    }
}
