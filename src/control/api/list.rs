//! THE LIST: every endpoint of the API. The routes are made of it, and the document; tests go through it.

use std::{borrow::Cow, sync::Arc};

use axum::routing::{MethodRouter, delete, get, patch, post};
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

use super::{
    keys::{self, ChangeKey, CreateKey, IdentifyKey, PurgeKey, RotateKey},
    operators::{self, ChangeOperator, CreateOperator, CreateToken},
    owners::{self, ChangeOwner, CreateOwner},
    view::{
        AuditPage, ChangedKey, ChangedOwner, Done, Identified, Key, Keys, Me, NewKey, NewToken, OperatorView,
        Operators, Owner, Owners, Presets, Receipt, Revoked, RotatedKey, Sidecars,
    },
    watch,
};
use crate::control::{desk::Desk, store::Role};

/// An endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// Its method, in capitals.
    pub method: &'static str,
    /// Its path, with `{…}` for what names a thing.
    pub path: &'static str,
    /// Its name in the document.
    pub id: &'static str,
    /// Who may ask.
    pub who: Who,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// The parameters of its query, and fields of its head.
    pub parameters: &'static [&'static str],
    /// What is sent.
    pub body: Option<Sent>,
    /// What is answered when it is done.
    pub answer: Shape,
    /// The status of that.
    pub status: u16,
    /// What does it.
    pub handler: MethodRouter<Arc<Desk>>,
}

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// An operator of this role.
    Operator(Role),
    /// One of this role, and a key with `keys:manage` by way of a sidecar, for keys of its own owner and environment.
    OrKey(Role),
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub enum Sent {
    /// It must be there.
    Always(Shape),
    /// It may be left out.
    Perhaps(Shape),
}

/// The shape of a body, as its type says it.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Its name.
    pub name: fn() -> Cow<'static, str>,
    /// Its schema.
    pub schema: fn() -> RefOr<Schema>,
    /// The schemas of what it consists of.
    pub parts: fn(&mut Vec<(String, RefOr<Schema>)>),
}

const fn shape<T: ToSchema>() -> Shape {
    Shape { name: T::name, schema: T::schema, parts: T::schemas }
}

const fn sent<T: ToSchema>() -> Option<Sent> {
    Some(Sent::Always(shape::<T>()))
}

const fn perhaps<T: ToSchema>() -> Option<Sent> {
    Some(Sent::Perhaps(shape::<T>()))
}

const VIEWER: Who = Who::Operator(Role::Viewer);
const OPERATOR: Who = Who::Operator(Role::Operator);
const ADMIN: Who = Who::Operator(Role::Admin);

/// All endpoints.
#[rustfmt::skip]
pub fn all() -> Vec<Endpoint> {
    let endpoint = |method, path, id, who, summary, parameters, body, status, answer, handler| Endpoint {
        method, path, id, who, summary, parameters, body, status, answer, handler,
    };
    vec![
        endpoint("POST", "/v1/keys", "createKey", Who::OrKey(Role::Operator), "Mint a key; its secret is answered this once",
            &["Idempotency-Key"], sent::<CreateKey>(), 201, shape::<NewKey>(), post(keys::create)),
        endpoint("GET", "/v1/keys", "listKeys", Who::OrKey(Role::Viewer), "List keys, the newest first, without secrets",
            &["search", "owner", "environment", "status", "permission", "minted_by", "unused_for", "cursor", "limit"], None, 200, shape::<Keys>(), get(keys::list)),
        endpoint("GET", "/v1/keys/{id}", "getKey", Who::OrKey(Role::Viewer), "Show a key",
            &[], None, 200, shape::<Key>(), get(keys::show)),
        endpoint("PATCH", "/v1/keys/{id}", "changeKey", OPERATOR, "Change what a key may do, from where, until when, for whom; and wait for the sidecars",
            &["wait"], sent::<ChangeKey>(), 200, shape::<ChangedKey>(), patch(keys::change)),
        endpoint("DELETE", "/v1/keys/{id}", "revokeKey", Who::OrKey(Role::Operator), "Revoke a key, for good, and wait for the sidecars; with purge=true an admin removes its row",
            &["wait", "purge"], perhaps::<PurgeKey>(), 200, shape::<Revoked>(), delete(keys::delete)),
        endpoint("POST", "/v1/keys/{id}/rotate", "rotateKey", Who::OrKey(Role::Operator), "Mint a key with the same rights, and wait for the sidecars; the old one works until the overlap ends",
            &["wait", "Idempotency-Key"], perhaps::<RotateKey>(), 201, shape::<RotatedKey>(), post(keys::rotate)),
        endpoint("POST", "/v1/identify", "identifyKey", OPERATOR, "Say which key a string belongs to that was found somewhere; it is kept nowhere",
            &[], sent::<IdentifyKey>(), 200, shape::<Identified>(), post(keys::identify)),
        endpoint("POST", "/v1/owners", "createOwner", OPERATOR, "Add an owner",
            &[], sent::<CreateOwner>(), 201, shape::<Owner>(), post(owners::create)),
        endpoint("GET", "/v1/owners", "listOwners", VIEWER, "List owners by id",
            &["search", "after", "limit"], None, 200, shape::<Owners>(), get(owners::list)),
        endpoint("GET", "/v1/owners/{id}", "getOwner", VIEWER, "Show an owner",
            &[], None, 200, shape::<Owner>(), get(owners::show)),
        endpoint("PATCH", "/v1/owners/{id}", "changeOwner", OPERATOR, "Change an owner, suspend it, or lift that; and wait for the sidecars",
            &["wait"], sent::<ChangeOwner>(), 200, shape::<ChangedOwner>(), patch(owners::change)),
        endpoint("DELETE", "/v1/owners/{id}", "deleteOwner", OPERATOR, "Remove an owner whose keys are all revoked; and wait for the sidecars",
            &["wait"], None, 200, shape::<Revoked>(), delete(owners::delete)),
        endpoint("GET", "/v1/presets", "listPresets", Who::OrKey(Role::Viewer), "Say what can be minted",
            &[], None, 200, shape::<Presets>(), get(watch::presets)),
        endpoint("GET", "/v1/me", "getMe", Who::OrKey(Role::Viewer), "Say who asks, and what they may",
            &[], None, 200, shape::<Me>(), get(watch::me)),
        endpoint("GET", "/v1/audit", "listAudit", VIEWER, "Read the audit log, the newest first; or in its order, to check it",
            &["actor", "action", "subject", "before", "from", "limit"], None, 200, shape::<AuditPage>(), get(watch::audit)),
        endpoint("GET", "/v1/receipts/{revision}", "getReceipt", VIEWER, "Say which sidecars have a revision, and all before it; and wait for them",
            &["wait"], None, 200, shape::<Receipt>(), get(watch::receipt)),
        endpoint("GET", "/v1/sidecars", "listSidecars", VIEWER, "List the sidecars that are known",
            &[], None, 200, shape::<Sidecars>(), get(watch::sidecars)),
        endpoint("DELETE", "/v1/sidecars/{id}", "forgetSidecar", ADMIN, "Forget a sidecar that will not come back: no revoke names it any more. One that is connected is refused",
            &[], None, 200, shape::<Done>(), delete(watch::forget)),
        endpoint("GET", "/v1/operators", "listOperators", ADMIN, "List the operators",
            &[], None, 200, shape::<Operators>(), get(operators::list)),
        endpoint("POST", "/v1/operators", "createOperator", ADMIN, "Add an operator",
            &[], sent::<CreateOperator>(), 201, shape::<OperatorView>(), post(operators::create)),
        endpoint("GET", "/v1/operators/{name}", "getOperator", ADMIN, "Show an operator; everybody may see themselves",
            &[], None, 200, shape::<OperatorView>(), get(operators::show)),
        endpoint("PATCH", "/v1/operators/{name}", "changeOperator", ADMIN, "Change an operator's role or password; their sessions end",
            &[], sent::<ChangeOperator>(), 200, shape::<OperatorView>(), patch(operators::change)),
        endpoint("DELETE", "/v1/operators/{name}", "deleteOperator", ADMIN, "Remove an operator, with tokens and sessions",
            &[], None, 200, shape::<Done>(), delete(operators::delete)),
        endpoint("POST", "/v1/operators/{name}/tokens", "createToken", ADMIN, "Make a token for an operator; it is answered this once",
            &[], sent::<CreateToken>(), 201, shape::<NewToken>(), post(operators::create_token)),
        endpoint("DELETE", "/v1/operators/{name}/tokens/{id}", "deleteToken", ADMIN, "Remove a token",
            &[], None, 200, shape::<Done>(), delete(operators::delete_token)),
    ]
}
