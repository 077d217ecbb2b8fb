//! `/v1/operators`.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::{
    body::{At, Body, Fields, present},
    keys::{missing, parsed},
    view::{Done, NewToken, OperatorView, Operators},
};
use crate::{
    control::{
        answer::{Problem, data},
        caller::Caller,
        desk::Desk,
        operators::{self, OperatorChange},
        store::Role,
    },
    keys::secret::Secret,
};

/// The operator that is wanted.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({ "name": "anna", "role": "operator" }))]
pub(super) struct CreateOperator {
    /// The name to sign in with.
    #[schema(required, nullable = false, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._@-]+$")]
    name: Option<String>,
    /// `viewer`, `operator` or `admin`.
    #[schema(required, nullable = false, pattern = "^(viewer|operator|admin)$")]
    role: Option<String>,
    /// Left out: they have tokens alone.
    #[schema(min_length = 12, max_length = 256)]
    password: Option<String>,
}

impl Fields for CreateOperator {
    const FIELDS: &'static [&'static str] = &["name", "role", "password"];
}

/// What is to be changed; what is left out stays.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({ "role": "viewer" }))]
pub(super) struct ChangeOperator {
    /// `viewer`, `operator` or `admin`.
    #[schema(pattern = "^(viewer|operator|admin)$")]
    role: Option<String>,
    /// A new password; null: they have tokens alone.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>, min_length = 12, max_length = 256)]
    password: Option<Option<String>>,
}

impl Fields for ChangeOperator {
    const FIELDS: &'static [&'static str] = &["role", "password"];
}

/// The token that is wanted.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({ "name": "deploy", "expires_at": "90d" }))]
pub(super) struct CreateToken {
    /// What it is for.
    #[schema(required, nullable = false, min_length = 1, max_length = 200)]
    name: Option<String>,
    /// RFC 3339, or a span such as `90d`. Left out: never.
    expires_at: Option<String>,
}

impl Fields for CreateToken {
    const FIELDS: &'static [&'static str] = &["name", "expires_at"];
}

fn secret(text: String) -> Secret {
    Secret::new(Zeroizing::new(text).as_bytes())
}

pub(super) async fn list(caller: Caller, State(desk): State<Arc<Desk>>) -> Result<Response, Problem> {
    let operators = operators::list(&desk, &caller)?;
    Ok(data(StatusCode::OK, &Operators { operators: operators.iter().map(OperatorView::from).collect() }))
}

pub(super) async fn create(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    Body(body): Body<CreateOperator>,
) -> Result<Response, Problem> {
    let name = body.name.ok_or_else(|| missing("name"))?;
    let role = parsed::<Role>("role", body.role)?.ok_or_else(|| missing("role"))?;
    let operator = operators::create(&desk, &caller, &name, role, body.password.map(secret)).await?;
    Ok(data(StatusCode::CREATED, &OperatorView::from(&operator)))
}

pub(super) async fn show(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    At(name): At<String>,
) -> Result<Response, Problem> {
    operators::show(&desk, &caller, &name).map(|operator| data(StatusCode::OK, &OperatorView::from(&operator)))
}

pub(super) async fn change(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    At(name): At<String>,
    Body(body): Body<ChangeOperator>,
) -> Result<Response, Problem> {
    if body.password.is_some() && caller.actor.name.strip_prefix("operator:") == Some(&*name) {
        // Who has borrowed a session must not become its owner.
        return Err(Problem::forbidden("Change your own password on the account page, which asks for the old one."));
    }
    let password = body.password.map(|password| password.map(secret));
    let change = OperatorChange { role: parsed("role", body.role)?, password };
    let operator = operators::change(&desk, &caller, &name, change).await?;
    Ok(data(StatusCode::OK, &OperatorView::from(&operator)))
}

pub(super) async fn delete(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    At(name): At<String>,
) -> Result<Response, Problem> {
    operators::delete(&desk, &caller, &name).await?;
    Ok(data(StatusCode::OK, &Done { message: "Operator deleted successfully" }))
}

pub(super) async fn create_token(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    At(name): At<String>,
    Body(body): Body<CreateToken>,
) -> Result<Response, Problem> {
    let token_name = body.name.ok_or_else(|| missing("name"))?;
    let made = operators::create_token(&desk, &caller, &name, &token_name, body.expires_at.as_deref()).await?;
    Ok(data(StatusCode::CREATED, &NewToken::from(&made)))
}

pub(super) async fn delete_token(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    At((name, id)): At<(String, String)>,
) -> Result<Response, Problem> {
    operators::delete_token(&desk, &caller, &name, &id).await?;
    Ok(data(StatusCode::OK, &Done { message: "Token deleted successfully" }))
}
