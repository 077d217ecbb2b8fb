//! `/v1/keys`.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, response::Response};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::{
    body::{Asked, At, Body, Fields, OptionalBody, malformed, present},
    view::{ChangedKey, Identified, Key, Keys, NewKey, Revoked, RotatedKey},
};
use crate::{
    control::{
        answer::{Problem, data},
        caller::Caller,
        desk::Desk,
        keys::{self, Filter, KeyChange, Made, Rotation, list::MOST},
    },
    keys::{Kind, Mode, Standing, moments::span, secret::Secret},
};

/// How long a change waits for the sidecars, unless it is said.
const WAIT: Duration = Duration::from_secs(2);
/// The longest it may be asked to.
const LONGEST: Duration = Duration::from_secs(30);
/// How long both keys work after a rotation, unless it is said.
const OVERLAP: Duration = Duration::from_secs(24 * 3600);
/// How many keys are on a page, unless it is said.
const PAGE: usize = 100;

/// The key that is wanted.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({
    "name": "Production API Key", "environment": "live", "permissions": ["read"], "owner": "svc-accounting",
    "expires_at": "90d"
}))]
pub(super) struct CreateKey {
    /// What people shall call it.
    #[schema(required, nullable = false, min_length = 1, max_length = 200)]
    name: Option<String>,
    /// `live` or `test`; required where the preset has environments.
    #[schema(pattern = "^(live|test)$")]
    environment: Option<String>,
    /// Another name of `environment`: send one of both.
    #[schema(pattern = "^(live|test)$")]
    mode: Option<String>,
    /// What it may do: what `GET /v1/presets` offers.
    #[schema(min_items = 1, max_items = 200)]
    permissions: Option<Vec<String>>,
    /// Another name of `permissions`: send one of both.
    #[schema(min_items = 1, max_items = 200)]
    scopes: Option<Vec<String>>,
    /// Whom it acts for: the id of an owner. A key that asks by way of a sidecar mints for its own.
    #[schema(min_length = 1, max_length = 200, pattern = "^[!-~]+$")]
    owner: Option<String>,
    /// `pair` or `token`; as the preset has it.
    #[schema(pattern = "^(pair|token)$")]
    kind: Option<String>,
    /// The preset; the first one.
    preset: Option<String>,
    /// From where it may be used: addresses and networks. Left out: from anywhere.
    #[schema(max_items = 1000)]
    allow_ips: Option<Vec<String>>,
    /// Limits of its own, such as `600/1m`. Left out: those of its owner's plan.
    #[schema(max_items = 20)]
    limits: Option<Vec<String>>,
    /// RFC 3339, or a span such as `90d`. Left out: never.
    expires_at: Option<String>,
}

impl Fields for CreateKey {
    const FIELDS: &'static [&'static str] = &[
        "name",
        "environment",
        "mode",
        "permissions",
        "scopes",
        "owner",
        "kind",
        "preset",
        "allow_ips",
        "limits",
        "expires_at",
    ];
}

/// What is to be changed; what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({ "allow_ips": ["203.0.113.42"], "expires_at": null }))]
pub(super) struct ChangeKey {
    /// What people shall call it.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Whom it acts for.
    #[schema(min_length = 1, max_length = 200, pattern = "^[!-~]+$")]
    owner: Option<String>,
    /// The preset whose permissions are meant; the first one.
    preset: Option<String>,
    /// What it may do, in place of all that it might.
    #[schema(min_items = 1, max_items = 200)]
    permissions: Option<Vec<String>>,
    /// Another name of `permissions`: send one of both.
    #[schema(min_items = 1, max_items = 200)]
    scopes: Option<Vec<String>>,
    /// From where it may be used, in place of all there were; null: from anywhere.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>, max_items = 1000)]
    allow_ips: Option<Option<Vec<String>>>,
    /// Limits of its own, in place of all there were; null: those of its owner's plan.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>, max_items = 20)]
    limits: Option<Option<Vec<String>>>,
    /// RFC 3339, or a span such as `90d`; null: never.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    expires_at: Option<Option<String>>,
}

impl Fields for ChangeKey {
    const FIELDS: &'static [&'static str] =
        &["name", "owner", "preset", "permissions", "scopes", "allow_ips", "limits", "expires_at"];
}

/// How a key is rotated.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({ "overlap": "24h" }))]
pub(super) struct RotateKey {
    /// How long both keys work, such as `24h`; `0` revokes the old one now. Left out: a day.
    #[schema(pattern = "^(0|[0-9]{1,6}[smhdw])$")]
    overlap: Option<String>,
    /// When the new one expires. Left out: after as long a life as the old one was given.
    expires_at: Option<String>,
}

impl Fields for RotateKey {
    const FIELDS: &'static [&'static str] = &["overlap", "expires_at"];
}

/// The name of the key that is removed, typed again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({ "name": "Production API Key" }))]
pub(super) struct PurgeKey {
    /// The name of the key.
    #[schema(required, nullable = false)]
    name: Option<String>,
}

impl Fields for PurgeKey {
    const FIELDS: &'static [&'static str] = &["name"];
}

/// A string that was found somewhere.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({ "credential": "ck_live_4f2a9c" }))]
pub(super) struct IdentifyKey {
    /// A token, a consumer key or a consumer secret, or the part of a token that may be shown. It is compared, and kept
    /// nowhere.
    #[schema(required, nullable = false, min_length = 1, max_length = 512)]
    credential: Option<String>,
    /// The id of the key that it may be the secret of. Left out: it is compared with all keys.
    #[schema(min_length = 1, max_length = 200)]
    key: Option<String>,
}

impl Fields for IdentifyKey {
    const FIELDS: &'static [&'static str] = &["credential", "key"];
}

pub(super) async fn create(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
    Body(body): Body<CreateKey>,
) -> Result<Response, Problem> {
    let idempotency = idempotency(&headers)?;
    let new = keys::NewKey {
        name: body.name.ok_or_else(|| missing("name"))?,
        offer: body.preset,
        kind: parsed::<Kind>("kind", body.kind)?,
        mode: parsed::<Mode>("environment", either("environment", body.environment, body.mode)?)?,
        scopes: either("permissions", body.permissions, body.scopes)?
            .ok_or_else(|| Problem::invalid("permissions", "`permissions` is missing."))?,
        owner: body.owner,
        allow_ips: body.allow_ips.unwrap_or_default(),
        limits: body.limits.unwrap_or_default(),
        expires_at: body.expires_at,
    };
    let made = keys::create(&desk, &caller, new, idempotency.as_deref()).await?;
    Ok(answer(&made, &NewKey::from(&made)))
}

pub(super) async fn rotate(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    At(id): At<String>,
    mut asked: Asked,
    headers: HeaderMap,
    OptionalBody(body): OptionalBody<RotateKey>,
) -> Result<Response, Problem> {
    let wait = wait(&mut asked)?;
    asked.finish()?;
    let body = body.unwrap_or_default();
    let invalid = |why| Problem::invalid("overlap", format!("`overlap`: {why}."));
    let overlap = body.overlap.map(|text| span(&text).map_err(invalid)).transpose()?.unwrap_or(OVERLAP);
    let how = Rotation { overlap, expires_at: body.expires_at, idempotency: idempotency(&headers)?, wait };
    let (made, receipt) = keys::rotate(&desk, &caller, &id, &how).await?;
    Ok(answer(&made, &RotatedKey { key: NewKey::from(&made), receipt: receipt.into() }))
}

/// 201 with the secret; 200 without it, when it was made before.
fn answer(made: &Made, shown: &impl Serialize) -> Response {
    let status = if made.replayed { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = data(status, shown);
    if made.replayed {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    response
}

pub(super) async fn identify(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    Body(body): Body<IdentifyKey>,
) -> Result<Response, Problem> {
    let string = Zeroizing::new(body.credential.ok_or_else(|| missing("credential"))?);
    let string = Secret::new(string.as_bytes());
    let identified = keys::identify(&desk, &caller, string, body.key.as_deref()).await?;
    Ok(data(StatusCode::OK, &Identified::from(&identified)))
}

pub(super) async fn list(caller: Caller, State(desk): State<Arc<Desk>>, mut asked: Asked) -> Result<Response, Problem> {
    let status = |text: &str| {
        let found = Standing::ALL.into_iter().find(|standing| standing.as_str() == text);
        found.ok_or("expected \"active\", \"revoked\", \"expired\" or \"suspended\"")
    };
    let mode = asked.read("environment", str::parse)?;
    let mode = either("environment", mode, asked.read("mode", str::parse)?)?;
    let scope = asked.take("permission")?;
    let filter = Filter {
        search: asked.take("search")?,
        owner: asked.take("owner")?,
        mode,
        status: asked.read("status", status)?,
        scope: either("permission", scope, asked.take("scope")?)?,
        minted_by: asked.take("minted_by")?,
        unused_for: asked.read("unused_for", span)?,
    };
    let (cursor, limit) = (asked.take("cursor")?, asked.limit(PAGE, MOST)?);
    asked.finish()?;
    let page = keys::list(&desk, &caller, &filter, cursor.as_deref(), limit)?;
    let rows = page.rows.iter().map(Key::from).collect();
    Ok(data(StatusCode::OK, &Keys { keys: rows, total: page.total, next: page.next }))
}

pub(super) async fn show(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    At(id): At<String>,
) -> Result<Response, Problem> {
    keys::show(&desk, &caller, &id).map(|listed| data(StatusCode::OK, &Key::from(&listed)))
}

pub(super) async fn change(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    At(id): At<String>,
    mut asked: Asked,
    Body(body): Body<ChangeKey>,
) -> Result<Response, Problem> {
    let wait = wait(&mut asked)?;
    asked.finish()?;
    let change = KeyChange {
        name: body.name,
        owner: body.owner,
        offer: body.preset,
        scopes: either("permissions", body.permissions, body.scopes)?,
        allow_ips: body.allow_ips.map(Option::unwrap_or_default),
        limits: body.limits.map(Option::unwrap_or_default),
        expires_at: body.expires_at,
    };
    let receipt = keys::change(&desk, &caller, &id, change, wait).await?;
    let key = Key::from(&keys::show(&desk, &caller, &id)?);
    Ok(data(StatusCode::OK, &ChangedKey { key, receipt: receipt.into() }))
}

/// Revokes; with `purge=true`, removes the row.
pub(super) async fn delete(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    At(id): At<String>,
    mut asked: Asked,
    OptionalBody(body): OptionalBody<PurgeKey>,
) -> Result<Response, Problem> {
    let wait = wait(&mut asked)?;
    let purge = asked.read("purge", |text| text.parse::<bool>().map_err(|_| "expected true or false"))?;
    asked.finish()?;
    let name = match body {
        Some(PurgeKey { name: None }) => {
            // Who may not is told so first.
            keys::show(&desk, &caller, &id)?;
            return Err(missing("name"));
        }
        body => body.and_then(|body| body.name),
    };
    let receipt = match (purge, name) {
        (Some(true), Some(name)) => {
            let receipt = keys::purge(&desk, &caller, &id, &name, wait).await?;
            Revoked::new("API key deleted successfully", receipt)
        }
        (Some(true), None) => {
            keys::show(&desk, &caller, &id)?;
            return Err(Problem::invalid(
                "name",
                "`name` is missing: with purge=true the key's name is sent, typed again.",
            ));
        }
        (_, Some(_)) => {
            let message = "A name is sent with purge=true alone: that removes the key's row.";
            return Err(Problem::invalid("name", message));
        }
        (_, None) => Revoked::new("API key revoked successfully", keys::revoke(&desk, &caller, &id, wait).await?),
    };
    Ok(data(StatusCode::OK, &receipt))
}

/// How long the sidecars are waited for.
pub(super) fn wait(asked: &mut Asked) -> Result<Duration, Problem> {
    Ok(asked.read("wait", waiting)?.unwrap_or(WAIT))
}

/// `2`, `2s`: seconds.
fn waiting(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').unwrap_or(text);
    let number = seconds.parse().ok().filter(|_| seconds.len() <= 2 && !seconds.starts_with('+'));
    let wait = number.map(Duration::from_secs).filter(|wait| *wait <= LONGEST);
    wait.ok_or_else(|| "expected seconds, 30 at most, such as 2s".to_owned())
}

fn idempotency(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let wrong = || Problem::invalid("Idempotency-Key", "`Idempotency-Key` must stand there once, in plain characters.");
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(|text| Some(text.to_owned())).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

pub(super) fn missing(field: &'static str) -> Problem {
    Problem { field: Some(field), ..malformed(&format!("`{field}` is missing.")) }
}

/// One of two names of the same.
fn either<T>(field: &'static str, one: Option<T>, other: Option<T>) -> Result<Option<T>, Problem> {
    match (one, other) {
        (Some(_), Some(_)) => {
            Err(Problem::invalid(field, format!("`{field}` stands there under two names: send one of them.")))
        }
        (one, other) => Ok(one.or(other)),
    }
}

pub(super) fn parsed<T: std::str::FromStr<Err = &'static str>>(
    field: &'static str,
    text: Option<String>,
) -> Result<Option<T>, Problem> {
    let wrong = |why| Problem { field: Some(field), ..malformed(&format!("`{field}`: {why}.")) };
    text.map(|text| text.parse().map_err(wrong)).transpose()
}
