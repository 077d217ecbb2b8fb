//! `/v1/owners`.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    body::{Asked, At, Body, Fields, malformed, present},
    keys::{missing, wait},
    view::{ChangedOwner, Owner, Owners, Revoked},
};
use crate::{
    control::{
        answer::{Problem, data},
        caller::Caller,
        desk::Desk,
        keys::list::MOST,
        owners::{self, NewOwner, OwnerChange},
    },
    keys::{Kyc, document::kyc},
};

/// How many owners are on a page, unless it is said.
const PAGE: usize = 100;

/// The owner that is wanted.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({ "id": "svc-accounting", "name": "Accounting", "kyc": "approved" }))]
pub(super) struct CreateOwner {
    /// The id: what keys name, and the upstream is told.
    #[schema(required, nullable = false, min_length = 1, max_length = 200, pattern = "^[!-~]+$")]
    id: Option<String>,
    /// What people call the owner.
    #[schema(max_length = 200)]
    name: Option<String>,
    /// What the owner may do at the upstream.
    #[schema(max_items = 200)]
    capabilities: Option<Vec<String>>,
    /// `approved`, `pending` or `none`.
    #[schema(pattern = "^(approved|pending|none)$")]
    kyc: Option<String>,
    /// The plan that sets the limits of the owner's keys.
    #[schema(max_length = 200)]
    plan: Option<String>,
}

impl Fields for CreateOwner {
    const FIELDS: &'static [&'static str] = &["id", "name", "capabilities", "kyc", "plan"];
}

/// What is to be changed; what is left out stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(example = json!({ "suspended": true }))]
pub(super) struct ChangeOwner {
    /// What people call the owner; null: nothing.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 200)]
    name: Option<Option<String>>,
    /// What the owner may do, in place of all there was; null: nothing.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>, max_items = 200)]
    capabilities: Option<Option<Vec<String>>>,
    /// `approved`, `pending` or `none`.
    #[schema(pattern = "^(approved|pending|none)$")]
    kyc: Option<String>,
    /// The plan that sets the limits of the owner's keys; null: none.
    #[serde(deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 200)]
    plan: Option<Option<String>>,
    /// Whether all keys of the owner are refused.
    suspended: Option<bool>,
}

impl Fields for ChangeOwner {
    const FIELDS: &'static [&'static str] = &["name", "capabilities", "kyc", "plan", "suspended"];
}

fn standing(text: Option<String>) -> Result<Option<Kyc>, Problem> {
    let wrong = |why| Problem { field: Some("kyc"), ..malformed(&format!("`kyc`: {why}.")) };
    text.map(|text| kyc(&text).map_err(wrong)).transpose()
}

pub(super) async fn create(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    Body(body): Body<CreateOwner>,
) -> Result<Response, Problem> {
    let new = NewOwner {
        id: body.id.ok_or_else(|| missing("id"))?,
        name: body.name,
        capabilities: body.capabilities.unwrap_or_default(),
        kyc: standing(body.kyc)?.unwrap_or_default(),
        plan: body.plan,
    };
    let owned = owners::create(&desk, &caller, new).await?;
    Ok(data(StatusCode::CREATED, &Owner::from(&owned)))
}

pub(super) async fn list(caller: Caller, State(desk): State<Arc<Desk>>, mut asked: Asked) -> Result<Response, Problem> {
    let (search, after) = (asked.take("search")?, asked.take("after")?);
    let limit = asked.limit(PAGE, MOST)?;
    asked.finish()?;
    let page = owners::list(&desk, &caller, search.as_deref(), after.as_deref(), limit)?;
    let rows = page.rows.iter().map(Owner::from).collect();
    Ok(data(StatusCode::OK, &Owners { owners: rows, total: page.total, next: page.next }))
}

pub(super) async fn show(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    At(id): At<String>,
) -> Result<Response, Problem> {
    owners::show(&desk, &caller, &id).map(|owned| data(StatusCode::OK, &Owner::from(&owned)))
}

pub(super) async fn change(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    At(id): At<String>,
    mut asked: Asked,
    Body(body): Body<ChangeOwner>,
) -> Result<Response, Problem> {
    let wait = wait(&mut asked)?;
    asked.finish()?;
    let change = OwnerChange {
        name: body.name,
        capabilities: body.capabilities.map(Option::unwrap_or_default),
        kyc: standing(body.kyc)?,
        plan: body.plan,
        suspended: body.suspended,
    };
    let receipt = owners::change(&desk, &caller, &id, change, wait).await?;
    let owner = Owner::from(&owners::show(&desk, &caller, &id)?);
    Ok(data(StatusCode::OK, &ChangedOwner { owner, receipt: receipt.into() }))
}

pub(super) async fn delete(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    At(id): At<String>,
    mut asked: Asked,
) -> Result<Response, Problem> {
    let wait = wait(&mut asked)?;
    asked.finish()?;
    let receipt = owners::delete(&desk, &caller, &id, wait).await?;
    Ok(data(StatusCode::OK, &Revoked::new("Owner deleted successfully", receipt)))
}
