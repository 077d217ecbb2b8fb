//! Changing what a key is called and what it may do. Its secret stays.

use askama::Template;
use axum::{extract::Path, response::Response};
use http::StatusCode;

use super::{
    super::{
        super::{
            answer::Problem,
            keys::{self, KeyChange},
            settings::Offer,
            store::Role,
        },
        form::{Fields, Form, escaped},
        page::{Shell, Sorry, go, page},
        visit::{Posted, Visit, WAIT},
    },
    find, over,
    picker::Picker,
};
use crate::keys::document::KeyRow;

#[derive(Template)]
#[template(path = "key_change.html", config = "src/control/ui/askama.toml")]
struct ChangePage {
    shell: Shell,
    form: Form,
    path: String,
    name: String,
    picker: Picker,
    my_address: String,
}

/// The offer that has most of a key's scopes.
fn offer_of<'a>(visit: &'a Visit, row: &KeyRow) -> Result<&'a Offer, Problem> {
    let fits = |offer: &&Offer| {
        let has = |scope: &str| scope == "read_write" || offer.scopes.iter().any(|offered| offered == scope);
        (offer.kind == row.kind, row.scopes.iter().filter(|scope| has(scope)).count())
    };
    // The first of several that fit alike.
    let offer = visit.desk.settings.offers.iter().rev().max_by_key(fits);
    offer.ok_or_else(|| Problem::not_found("kind of key"))
}

fn change_page(visit: &Visit, form: Form, row: &KeyRow) -> Result<ChangePage, Problem> {
    Ok(ChangePage {
        shell: Shell::of(visit, "keys"),
        path: escaped(row.id.as_str()),
        name: row.name.to_string(),
        picker: Picker::new(offer_of(visit, row)?),
        my_address: visit.peer.ip.to_string(),
        form,
    })
}

/// `GET /keys/{id}/change`
pub(in super::super) async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Sorry> {
    visit.caller().needs(Role::Operator)?;
    let listed = find(&visit, &id)?;
    over(&listed)?;
    let row = &listed.row;
    let mut fields = Fields::default();
    fields.set("name", &*row.name);
    row.scopes.iter().for_each(|scope| fields.add("permissions", scope));
    let lines = |texts: Vec<String>| texts.join("\n");
    fields.set("allow_ips", lines(row.allow_ips.iter().map(|network| network.to_string()).collect()));
    fields.set("limits", lines(row.limits.iter().flatten().map(ToString::to_string).collect()));
    fields.set("expires_at", row.expires_at.map(|at| at.to_string()).unwrap_or_default());
    page(StatusCode::OK, &change_page(&visit, Form::new(fields), row)?)
}

/// `POST /keys/{id}/change`
pub(in super::super) async fn send(Path(id): Path<String>, posted: Posted) -> Result<Response, Sorry> {
    let Posted { visit, mut fields } = posted;
    visit.caller().needs(Role::Operator)?;
    let row = find(&visit, &id)?.row;
    if fields.one("do") == "my_address" {
        let mut there = fields.list("allow_ips");
        there.push(visit.peer.ip.to_string());
        there.dedup();
        fields.set("allow_ips", there.join("\n"));
        return page(StatusCode::OK, &change_page(&visit, Form::new(fields), &row)?);
    }
    let was: Vec<String> = row.scopes.iter().map(str::to_owned).collect();
    let mut asked = fields.all("permissions");
    asked.sort_unstable();
    let (same_scopes, same_expiry) = (
        asked.iter().all(|scope| was.contains(scope)) && asked.len() == was.len(),
        fields.one("expires_at").trim() == row.expires_at.map(|at| at.to_string()).unwrap_or_default(),
    );
    let change = KeyChange {
        name: Some(fields.one("name").trim().to_owned()),
        offer: Some(offer_of(&visit, &row)?.name.clone()),
        // What stays is not judged anew: a key that has expired, or has scopes of old, can still be renamed.
        scopes: (!same_scopes).then_some(asked),
        allow_ips: Some(fields.list("allow_ips")),
        limits: Some(fields.list("limits")),
        expires_at: (!same_expiry).then(|| fields.some("expires_at").map(str::to_owned)),
        ..KeyChange::default()
    };
    match keys::change(&visit.desk, &visit.caller(), &id, change, WAIT).await {
        Ok(receipt) => Ok(go(&format!("/keys/{}?changed={}", escaped(&id), receipt.revision))),
        Err(problem) => {
            let status = problem.status;
            page(status, &change_page(&visit, Form::wrong(fields, problem), &row)?)
        }
    }
}
