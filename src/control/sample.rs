//! A control plane for tests, without its sockets: a store in a folder of its own, operators of each role, a sidecar in
//! front of it.

use std::sync::Arc;

use axum::{Router, body::Body};
use http::{Request, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::{
    audit,
    caller::Caller,
    desk::Desk,
    front::Peer,
    ledger::Ledger,
    operators, routes,
    store::{self, Place, Role},
};

/// What the sidecar in front of it sends as Authorization.
const GATEWAY: &str = "Bearer the-sidecar-in-front";

/// A control plane without sockets.
pub(crate) struct Bench {
    _folder: TempDir,
    pub(crate) desk: Arc<Desk>,
    router: Router,
    tokens: Vec<(Role, String)>,
}

/// Who asks.
#[derive(Clone, Copy)]
pub(crate) enum As<'a> {
    Nobody,
    Operator(Role),
    Token(&'a str),
    /// A key, by way of the sidecar: its answer when it was created.
    Key(&'a Value),
}

pub(crate) const VIEWER: As<'static> = As::Operator(Role::Viewer);
pub(crate) const OPERATOR: As<'static> = As::Operator(Role::Operator);
pub(crate) const ADMIN: As<'static> = As::Operator(Role::Admin);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// The data of an answer with this status.
    #[track_caller]
    pub(crate) fn data(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.body["success"], true);
        self.body["data"].clone()
    }

    /// The refusal of an answer with this status.
    #[track_caller]
    pub(crate) fn error(self, status: u16, said: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.body["success"], false);
        let message = self.body["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(said), "{message}");
        self.body["error"].clone()
    }
}

impl Bench {
    /// With these presets, `["…"]`.
    pub(crate) async fn new(presets: &str) -> Self {
        Self::with(&format!("[presets]\nnames = {presets}\n")).await
    }

    /// With these settings.
    pub(crate) async fn with(settings: &str) -> Self {
        let folder = TempDir::with_prefix("keyside-").unwrap();
        let text = format!("[listen]\nplaintext = true\n{settings}");
        let loaded = crate::config::control::load_text(&text, &folder.path().join("control.toml"), []).unwrap();
        let mut settings = loaded.settings;
        settings.sync.gateway = Some(audit::hex(GATEWAY));
        let place = store::Settings { place: Place::Sqlite(folder.path().join("keyside.db")), create: true };
        let ledger = Ledger::open(store::open(&place).await.unwrap()).await.unwrap();
        let desk = Desk::new(settings, ledger).await.unwrap();
        let mut tokens = Vec::new();
        for role in Role::ALL {
            let system = Caller::system(None);
            operators::create(&desk, &system, role.as_str(), role, None).await.unwrap();
            let made = operators::create_token(&desk, &system, role.as_str(), "test", None).await.unwrap();
            tokens.push((role, String::from_utf8(made.secret.expose().to_vec()).unwrap()));
        }
        Self { _folder: folder, router: routes::router(Arc::clone(&desk)), desk, tokens }
    }

    pub(crate) fn token(&self, role: Role) -> &str {
        &self.tokens.iter().find(|(has, _)| *has == role).unwrap().1
    }

    /// A request of theirs.
    pub(crate) fn request(&self, who: As<'_>, method: &str, path: &str) -> http::request::Builder {
        let request = Request::builder().method(method).uri(path);
        let request = request.extension(Peer { ip: [203, 0, 113, 9].into(), secure: true, certified: false });
        match who {
            As::Nobody => request,
            As::Operator(role) => request.header("authorization", format!("Bearer {}", self.token(role))),
            As::Token(token) => request.header("authorization", format!("Bearer {token}")),
            As::Key(key) => {
                let text = |name: &str| key[name].as_str().unwrap_or_default();
                let scopes: Vec<_> = key["permissions"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
                let request = request.header("authorization", GATEWAY).header("x-key-id", text("id"));
                let request = request.header("x-key-owner", text("owner")).header("x-key-scopes", scopes.join(" "));
                if key["environment"].is_null() { request } else { request.header("x-key-mode", text("environment")) }
            }
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (head, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{head:?}: {body:?}"));
        Answer { status: head.status, headers: head.headers, body }
    }

    /// Asks with a body, if it is not null.
    pub(crate) async fn ask(&self, who: As<'_>, method: &str, path: &str, body: Value) -> Answer {
        let request = self.request(who, method, path).header("content-type", "application/json");
        let body = if body.is_null() { Body::empty() } else { body.to_string().into() };
        self.send(request.body(body).unwrap()).await
    }

    /// Asks with these very bytes.
    pub(crate) async fn ask_raw(&self, who: As<'_>, method: &str, path: &str, body: &[u8]) -> Answer {
        let request = self.request(who, method, path).header("content-type", "application/json");
        self.send(request.body(body.to_vec().into()).unwrap()).await
    }

    /// How many entries the audit log has, and all of them as text.
    pub(crate) async fn audit(&self) -> (u64, String) {
        let entries = self.desk.ledger.store().audit_from(1, 10_000).await.unwrap();
        (entries.len() as u64, format!("{entries:?}"))
    }
}
