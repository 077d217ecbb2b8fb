//! The end of a key: revoked for ever, or deleted; and who has heard of it.

use std::time::Duration;

use askama::Template;
use axum::{extract::Path, response::Response};
use http::StatusCode;

use super::{
    super::{
        super::{
            answer::Problem,
            fleet::{Pending, Receipt},
            keys, owners,
            store::Role,
        },
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
    title: &'static str,
    told: Told,
    /// The key's page, where there still is one.
    key: Option<String>,
    /// Whether it was revoked, so that it may be deleted next.
    revoked: bool,
    /// The owner's page.
    owner: Option<String>,
    again: String,
}

/// Which sidecars have a change.
pub(super) struct Told {
    pub(super) revision: u64,
    pub(super) acknowledged: Vec<String>,
    pub(super) pending: Vec<Late>,
    pub(super) stopped: Vec<Late>,
    pub(super) complete: bool,
    /// What that means.
    pub(super) says: &'static str,
}

impl Told {
    pub(super) fn new(receipt: Receipt, says: &'static str) -> Self {
        let now = clock::now().wall;
        let late = |one: Pending| Late {
            instance: one.instance,
            last_seen: Moment::new(one.last_seen, now),
            reads: Moment::new(one.may_serve_reads_until, now),
            writes: Moment::new(one.may_serve_writes_until, now),
        };
        let Receipt { revision, acknowledged, pending, stopped, complete } = receipt;
        let (pending, stopped) = (pending.into_iter().map(late).collect(), stopped.into_iter().map(late).collect());
        Self { revision, acknowledged, pending, stopped, complete, says }
    }
}

/// What was done, by the word of it in the address: what it is called, and what is true once all sidecars have it.
fn done(word: &str) -> (&'static str, &'static str) {
    const BEFORE: &str = "what was allowed before, and is not now, gets through no more.";
    match word {
        "delete" => ("The key is deleted", "no request that starts now gets through with this key."),
        "rotate" => ("The key is rotated", "no request that starts now gets through with a key that has ended."),
        "change" => ("The key is changed", BEFORE),
        "owner" => ("The owner is changed", BEFORE),
        "suspend" => ("The owner is suspended", "no request that starts now gets through with a key of this owner."),
        "remove" => ("The owner is removed", BEFORE),
        _ => ("The key is revoked", "no request that starts now gets through with this key."),
    }
}

/// A sidecar that may be serving without the change.
pub(super) struct Late {
    pub(super) instance: String,
    pub(super) last_seen: Moment,
    pub(super) reads: Moment,
    pub(super) writes: Moment,
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
        Ok(receipt) => Ok(go(&format!("/receipts/{}?did=delete", receipt.revision))),
        Err(problem) if problem.field == Some("name") => {
            let told = Problem::invalid("name", "This is not the name of the key. Type it as it stands above.");
            page(told.status, &delete_page(&visit, Form::wrong(fields, told), &row))
        }
        Err(problem) => Err(problem.into()),
    }
}

/// `GET /receipts/{revision}`: which sidecars have a change. Loading it again asks again.
pub(in super::super) async fn receipt(visit: Visit, Path(revision): Path<String>) -> Result<Response, Sorry> {
    let mut head = visit.desk.ledger.read(|image| image.head().clone());
    let revision = revision.parse::<u64>().ok().filter(|revision| *revision <= head.revision);
    head.revision = revision.ok_or_else(|| Problem::not_found("change"))?;
    let (revision, receipt) = (head.revision, visit.desk.fleet.look_up(&head, Duration::ZERO).await?);
    let query = visit.query.query();
    let did = visit.query.one("did");
    let (title, says) = done(did);
    let here = if ["owner", "suspend", "remove"].contains(&did) { "owners" } else { "keys" };
    let id = visit.query.some("owner").filter(|id| owners::show(&visit.desk, &visit.caller(), id).is_ok());
    let receipt = ReceiptPage {
        shell: Shell::of(&visit, here),
        title,
        told: Told::new(receipt, says),
        key: visit.query.some("key").and_then(|id| find(&visit, id).ok()).map(|key| escaped(key.row.id.as_str())),
        revoked: did.is_empty(),
        owner: id.map(escaped),
        again: format!("/receipts/{revision}?{query}"),
    };
    page(StatusCode::OK, &receipt)
}
