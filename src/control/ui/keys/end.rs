//! The end of a key: revoked for ever, or deleted; and who has heard of it.

use std::{sync::Arc, time::Duration};

use askama::Template;
use axum::{extract::Path, response::Response};
use http::StatusCode;

use super::{
    super::{
        super::{
            answer::Problem,
            fleet::{Gap, Pending, Receipt},
            keys, owners,
            store::{AuditFilter, Entry, Role},
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

/// How many of the newest audit entries of a key or an owner are looked through.
const LOOKED_AT: u32 = 100;

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
    title: String,
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
    /// Why these are not all; none where they are.
    pub(super) gap: Option<String>,
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
        let Receipt { revision, acknowledged, pending, stopped, gap } = receipt;
        let (pending, stopped) = (pending.into_iter().map(late).collect(), stopped.into_iter().map(late).collect());
        Self { revision, acknowledged, pending, stopped, gap: gap.map(sentence), says }
    }
}

/// For people, as a sentence.
fn sentence(gap: Gap) -> String {
    let text = gap.to_string();
    let mut chars = text.chars();
    chars.next().map(|first| format!("{}{}.", first.to_uppercase(), chars.as_str())).unwrap_or_default()
}

/// What an action is called, and what is true once all sidecars have it; none of what takes nothing from anybody.
fn done(action: &str) -> Option<(&'static str, &'static str)> {
    const BEFORE: &str = "what was allowed before, and is not now, gets through no more.";
    Some(match action {
        "key.revoke" => ("The key is revoked", "no request that starts now gets through with this key."),
        "key.purge" => ("The key is deleted", "no request that starts now gets through with this key."),
        "key.rotate" => ("The key is rotated", "no request that starts now gets through with a key that has ended."),
        "key.change" => ("The key is changed", BEFORE),
        "owner.change" => ("The owner is changed", BEFORE),
        "owner.suspend" => {
            ("The owner is suspended", "no request that starts now gets through with a key of this owner.")
        }
        "owner.delete" => ("The owner is removed", BEFORE),
        _ => return None,
    })
}

/// What was last done to this key or owner by a revision and those before it, as the audit log has it: an address may say
/// anything. None where that is not so any more.
async fn done_by(visit: &Visit, revision: u64, kind: &str, subject: &str) -> Option<(&'static str, &'static str)> {
    let entries = entries_of(visit, kind, subject).await;
    let at = entries.iter().position(|entry| entry.revision.is_some_and(|made| made <= revision))?;
    let (later, last) = (&entries[..at], &entries[at]);
    let so = match last.action.as_str() {
        "key.revoke" => find(visit, subject).ok().is_none_or(|key| key.row.revoked_at.is_some()),
        "key.purge" => find(visit, subject).is_err(),
        // Lifted and suspended again is another suspension: who has this one may not have that.
        "owner.suspend" => {
            let owned = owners::show(&visit.desk, &visit.caller(), subject);
            owned.is_ok_and(|owned| owned.row.suspended_at.is_some())
                && later.iter().all(|entry| entry.action == "owner.change")
        }
        // What it forbade may be allowed again since.
        "key.change" | "owner.change" | "owner.delete" => later.is_empty(),
        _ => true,
    };
    done(&last.action).filter(|_| so)
}

/// The revision in an address, if one of these actions made it of this key or owner, as it is there now.
pub(in super::super) async fn changed_by(visit: &Visit, actions: &[&str], kind: &str, subject: &str) -> Option<u64> {
    let revision = visit.query.some("changed")?.parse().ok()?;
    let entries = entries_of(visit, kind, subject).await;
    let mut of_this_row = entries.iter().take_while(|entry| entry.action != format!("{kind}.create"));
    let made = |entry: &Entry| entry.revision == Some(revision) && actions.contains(&entry.action.as_str());
    of_this_row.any(made).then_some(revision)
}

/// What was done to a key or an owner, the newest first.
async fn entries_of(visit: &Visit, kind: &str, subject: &str) -> Vec<Entry> {
    let filter = AuditFilter {
        action: Some(kind.to_owned()),
        subject: Some(subject.to_owned()),
        limit: LOOKED_AT,
        ..AuditFilter::default()
    };
    let store = Arc::clone(visit.desk.ledger.store());
    // Where the store cannot be asked, nothing is said of it, and a receipt says why.
    visit.desk.ledger.run(async move { store.audit(&filter).await }).await.unwrap_or_default()
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
        Ok(receipt) => Ok(go(&format!("/receipts/{}?key={}", receipt.revision, escaped(&id)))),
        Err(problem) if problem.field == Some("name") => {
            let told = Problem::invalid("name", "This is not the name of the key. Type it as it stands above.");
            page(told.status, &delete_page(&visit, Form::wrong(fields, told), &row))
        }
        Err(problem) => Err(problem.into()),
    }
}

/// `GET /receipts/{revision}`: which sidecars have a change. Loading it again asks again.
pub(in super::super) async fn receipt(visit: Visit, Path(revision): Path<String>) -> Result<Response, Sorry> {
    let head = visit.desk.head_at(&revision).await?.ok_or_else(|| Problem::not_found("change"))?;
    let (revision, receipt) = (head.revision, visit.desk.fleet.look_up(&head, Duration::ZERO).await?);
    let query = visit.query.query();
    let (here, kind, subject) = match visit.query.some("owner") {
        Some(owner) => ("owners", "owner", Some(owner)),
        None => ("keys", "key", visit.query.some("key")),
    };
    let known = match subject {
        Some(subject) => done_by(&visit, revision, kind, subject).await,
        None => None,
    };
    let (title, says) = match known {
        Some((title, says)) => (title.to_owned(), says),
        None => (format!("Revision {revision}"), "with all that was changed before it."),
    };
    let owner = visit.query.some("owner").filter(|id| owners::show(&visit.desk, &visit.caller(), id).is_ok());
    let row = visit.query.some("key").and_then(|id| find(&visit, id).ok()).map(|key| key.row);
    let receipt = ReceiptPage {
        shell: Shell::of(&visit, here),
        title,
        told: Told::new(receipt, says),
        key: row.as_ref().map(|row| escaped(row.id.as_str())),
        revoked: row.is_some_and(|row| row.revoked_at.is_some()),
        owner: owner.map(escaped),
        again: format!("/receipts/{revision}?{query}"),
    };
    page(StatusCode::OK, &receipt)
}
