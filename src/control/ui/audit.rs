//! The audit log.

use std::sync::Arc;

use askama::Template;
use axum::response::Response;
use http::StatusCode;

use super::{
    super::store::{AuditFilter, Entry, Role},
    form::Form,
    page::{Shell, Sorry, page},
    visit::Visit,
    words::Moment,
};
use crate::clock::{self, Wall};

/// Entries on a page.
const ROWS: u32 = 50;

#[derive(Template)]
#[template(path = "audit.html", config = "src/control/ui/askama.toml")]
struct AuditPage {
    shell: Shell,
    form: Form,
    rows: Vec<Row>,
    next: Option<String>,
}

/// An entry.
struct Row {
    seq: u64,
    at: Moment,
    actor: String,
    from: String,
    action: String,
    subject: String,
    detail: String,
    hash: String,
}

/// `GET /audit`
pub(super) async fn show(visit: Visit) -> Result<Response, Sorry> {
    visit.caller().needs(Role::Viewer)?;
    let query = &visit.query;
    let some = |name: &str| query.some(name).map(str::to_owned);
    let filter = AuditFilter {
        before: query.some("before").and_then(|before| before.parse().ok()),
        actor: some("actor"),
        action: some("action"),
        subject: some("subject"),
        limit: ROWS + 1,
    };
    let store = Arc::clone(visit.desk.ledger.store());
    let mut entries = visit.desk.ledger.run(async move { store.audit(&filter).await }).await?;
    let more = entries.len() > ROWS as usize;
    entries.truncate(ROWS as usize);
    let next = entries.last().filter(|_| more).map(|last| {
        let mut fields = query.clone();
        fields.set("before", last.seq.to_string());
        format!("/audit?{}", fields.query())
    });
    let now = clock::now().wall;
    let rows = entries.iter().map(|entry| row(entry, now)).collect();
    page(StatusCode::OK, &AuditPage { shell: Shell::of(&visit, "audit"), form: Form::new(query.clone()), rows, next })
}

fn row(entry: &Entry, now: Wall) -> Row {
    let detail = match &entry.detail {
        serde_json::Value::Null => String::new(),
        serde_json::Value::Object(fields) if fields.is_empty() => String::new(),
        detail => detail.to_string(),
    };
    Row {
        seq: entry.seq,
        at: Moment::new(entry.at, now),
        actor: entry.actor.clone(),
        from: entry.from.map(|from| from.to_string()).unwrap_or_default(),
        action: entry.action.clone(),
        subject: entry.subject.clone(),
        detail,
        hash: entry.hash.chars().take(12).collect(),
    }
}
