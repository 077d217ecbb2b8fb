//! What there is to look at: who asks, what can be minted, the audit log, the sidecars.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use http::StatusCode;

use super::{
    body::{Asked, At},
    keys::wait,
    view::{AuditEntry, AuditHead, AuditPage, Done, Me, Preset, Presets, Receipt, Sidecar, Sidecars},
};
use crate::{
    clock,
    control::{
        answer::{Problem, data},
        caller::{Caller, Power},
        desk::Desk,
        sidecars,
        store::{AuditFilter, Role},
    },
};

/// How many entries are on a page, unless it is said, and at most.
const PAGE: usize = 100;
const MOST: usize = 1000;

pub(super) async fn me(caller: Caller, State(desk): State<Arc<Desk>>) -> Result<Response, Problem> {
    let operator = caller.operator_name(&desk);
    let mut me = Me {
        actor: caller.actor.name,
        operator,
        role: None,
        key: None,
        owner: None,
        environment: None,
        expires_at: None,
    };
    match caller.power {
        Power::Operator(role) => me.role = Some(role.as_str().to_owned()),
        Power::Key { id, owner, mode, expires_at } => {
            (me.key, me.owner) = (Some(id.to_string()), Some(owner.to_string()));
            me.environment = mode.map(|mode| mode.as_str().to_owned());
            me.expires_at = expires_at.map(|at| at.to_string());
        }
    }
    Ok(data(StatusCode::OK, &me))
}

pub(super) async fn presets(_: Caller, State(desk): State<Arc<Desk>>) -> Response {
    let presets = desk.settings.offers.iter().map(Preset::from).collect();
    data(StatusCode::OK, &Presets { presets })
}

pub(super) async fn audit(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    mut asked: Asked,
) -> Result<Response, Problem> {
    stands(&desk, &caller, Role::Viewer)?;
    let number = |text: &str| {
        let number = text.parse::<u64>().ok().filter(|number| *number >= 1 && *number <= i64::MAX as u64);
        number.filter(|_| !text.starts_with('+')).ok_or("expected the number of an entry, from 1")
    };
    let (before, from) = (asked.read("before", number)?, asked.read("from", number)?);
    let filter = AuditFilter {
        before,
        actor: asked.take("actor")?,
        action: asked.take("action")?,
        subject: asked.take("subject")?,
        limit: 0,
    };
    let limit = asked.limit(PAGE, MOST)?;
    asked.finish()?;
    let filtered = filter.actor.is_some() || filter.action.is_some() || filter.subject.is_some() || before.is_some();
    if from.is_some() && filtered {
        let message = "`from` reads the log in its order, and takes no filter but `limit`.";
        return Err(Problem::invalid("from", message));
    }
    // One more than is shown says whether there is another page.
    let most = u32::try_from(limit + 1).unwrap_or(u32::MAX);
    let store = Arc::clone(desk.ledger.store());
    let mut entries = desk
        .ledger
        .run(async move {
            match from {
                Some(from) => store.audit_from(from, most).await,
                None => store.audit(&AuditFilter { limit: most, ..filter }).await,
            }
        })
        .await?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    let last = entries.last().filter(|_| more).map(|entry| entry.seq);
    let next = if from.is_some() { last.map(|seq| seq + 1) } else { last };
    let head = desk.ledger.read(|image| image.head().clone());
    let head = AuditHead { epoch: head.epoch, entries: head.entries, hash: head.hash };
    let entries = entries.into_iter().map(AuditEntry::from).collect();
    Ok(data(StatusCode::OK, &AuditPage { entries, next, head }))
}

/// Which sidecars have a revision in force: also for what was answered before they had it.
pub(super) async fn receipt(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    At(revision): At<String>,
    mut asked: Asked,
) -> Result<Response, Problem> {
    stands(&desk, &caller, Role::Viewer)?;
    let wait = wait(&mut asked)?;
    asked.finish()?;
    let head = desk.head_at(&revision).await?.ok_or_else(|| Problem::not_found("revision"))?;
    Ok(data(StatusCode::OK, &Receipt::from(desk.fleet.look_up(&head, wait).await?)))
}

pub(super) async fn sidecars(caller: Caller, State(desk): State<Arc<Desk>>) -> Result<Response, Problem> {
    stands(&desk, &caller, Role::Viewer)?;
    let revision = desk.ledger.read(|image| image.head().revision);
    let sidecars = desk.fleet.sidecars().into_iter().map(Sidecar::from).collect();
    Ok(data(StatusCode::OK, &Sidecars { revision, sidecars }))
}

/// Forgets a sidecar: a revoke no longer names it. It may be serving all the same.
pub(super) async fn forget(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    At(instance): At<String>,
) -> Result<Response, Problem> {
    sidecars::forget(&desk, &caller, &instance).await?;
    Ok(data(StatusCode::OK, &Done { message: "Sidecar forgotten" }))
}

fn stands(desk: &Desk, caller: &Caller, role: Role) -> Result<(), Problem> {
    let now = clock::now().wall;
    desk.ledger.read(|image| caller.stands(image, now)).and_then(|power| power.needs(role))
}
