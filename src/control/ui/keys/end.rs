//! The end of a key: revoked for ever, or deleted; and who has heard of it.

use std::time::Duration;

use askama::Template;
use axum::{extract::Path, response::Response};
use http::StatusCode;

use super::{
    super::{
        super::{answer::Problem, fleet::Receipt, keys, store::Role},
        form::{Fields, Form, escaped},
        page::{Shell, Sorry, go, page},
        visit::{Posted, Visit, WAIT},
        words::Moment,
    },
    detail::minted,
    find,
};
use crate::{clock, keys::document::KeyRow};

#[derive(Template)]
#[template(path = "key_revoke.html", config = "src/control/ui/askama.toml")]
struct RevokePage {
    shell: Shell,
    path: String,
    name: String,
    last_used: Option<Moment>,
    last_ip: String,
    /// How many keys that are not revoked it has minted.
    minted: usize,
}

#[derive(Template)]
#[template(path = "key_delete.html", config = "src/control/ui/askama.toml")]
struct DeletePage {
    shell: Shell,
    form: Form,
    path: String,
    name: String,
    revoked: bool,
}

#[derive(Template)]
#[template(path = "receipt.html", config = "src/control/ui/askama.toml")]
struct ReceiptPage {
    shell: Shell,
    revision: u64,
    acknowledged: Vec<String>,
    pending: Vec<Late>,
    stopped: Vec<Late>,
    complete: bool,
    /// The key's page, where there still is one.
    key: Option<String>,
    deleted: bool,
    again: String,
}

/// A sidecar that may be serving without the change.
struct Late {
    instance: String,
    last_seen: Moment,
    reads: Moment,
    writes: Moment,
}

/// `GET /keys/{id}/revoke`
pub(in super::super) async fn show_revoke(visit: Visit, Path(id): Path<String>) -> Result<Response, Sorry> {
    visit.caller().needs(Role::Operator)?;
    let listed = find(&visit, &id)?;
    super::over(&listed)?;
    let now = clock::now().wall;
    let revoke = RevokePage {
        shell: Shell::of(&visit, "keys"),
        path: escaped(listed.row.id.as_str()),
        name: listed.row.name.to_string(),
        last_used: listed.usage.last_used_at.map(|at| Moment::new(at, now)),
        last_ip: listed.usage.last_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        minted: minted(&visit, &listed.row),
    };
    page(StatusCode::OK, &revoke)
}

/// `POST /keys/{id}/revoke`
pub(in super::super) async fn send_revoke(Path(id): Path<String>, posted: Posted) -> Result<Response, Sorry> {
    let visit = posted.visit;
    let receipt = keys::revoke(&visit.desk, &visit.caller(), &id, WAIT).await?;
    Ok(go(&format!("/receipts/{}?key={}", receipt.revision, escaped(&id))))
}

fn delete_page(visit: &Visit, form: Form, row: &KeyRow) -> DeletePage {
    DeletePage {
        shell: Shell::of(visit, "keys"),
        form,
        path: escaped(row.id.as_str()),
        name: row.name.to_string(),
        revoked: row.revoked_at.is_some(),
    }
}

/// `GET /keys/{id}/delete`
pub(in super::super) async fn show_delete(visit: Visit, Path(id): Path<String>) -> Result<Response, Sorry> {
    visit.caller().needs(Role::Admin)?;
    let row = find(&visit, &id)?.row;
    page(StatusCode::OK, &delete_page(&visit, Form::new(Fields::default()), &row))
}

/// `POST /keys/{id}/delete`
pub(in super::super) async fn send_delete(Path(id): Path<String>, posted: Posted) -> Result<Response, Sorry> {
    let Posted { visit, fields } = posted;
    visit.caller().needs(Role::Admin)?;
    let row = find(&visit, &id)?.row;
    match keys::purge(&visit.desk, &visit.caller(), &id, fields.one("name").trim(), WAIT).await {
        Ok(receipt) => Ok(go(&format!("/receipts/{}?deleted=1", receipt.revision))),
        Err(problem) if problem.field == Some("name") => {
            let told = Problem::invalid("name", "This is not the name of the key. Type it as it stands above.");
            page(told.status, &delete_page(&visit, Form::wrong(fields, told), &row))
        }
        Err(problem) => Err(problem.into()),
    }
}

/// `GET /receipts/{revision}`: which sidecars have a change. Loading it again asks again.
pub(in super::super) async fn receipt(visit: Visit, Path(revision): Path<String>) -> Result<Response, Sorry> {
    let revision: u64 = revision.parse().map_err(|_| Problem::not_found("change"))?;
    if revision > visit.desk.ledger.read(|image| image.head().revision) {
        return Err(Problem::not_found("change").into());
    }
    let Receipt { revision, acknowledged, pending, stopped, complete } =
        visit.desk.fleet.receipt(revision, Duration::ZERO).await;
    let now = clock::now().wall;
    let late = |one: super::super::super::fleet::Pending| Late {
        instance: one.instance,
        last_seen: Moment::new(one.last_seen, now),
        reads: Moment::new(one.may_serve_reads_until, now),
        writes: Moment::new(one.may_serve_writes_until, now),
    };
    let query = visit.query.query();
    let receipt = ReceiptPage {
        shell: Shell::of(&visit, "keys"),
        revision,
        acknowledged,
        pending: pending.into_iter().map(late).collect(),
        stopped: stopped.into_iter().map(late).collect(),
        complete,
        key: visit.query.some("key").and_then(|id| find(&visit, id).ok()).map(|key| escaped(key.row.id.as_str())),
        deleted: !visit.query.one("deleted").is_empty(),
        again: format!("/receipts/{revision}?{query}"),
    };
    page(StatusCode::OK, &receipt)
}
