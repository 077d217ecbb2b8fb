//! One key.

use askama::Template;
use axum::{
    extract::Path,
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, StatusCode, header};

use super::{
    super::{
        super::{
            caller::manages,
            keys::{Listed, live_minted_by, sentence, standing},
            store::Operator,
        },
        form::escaped,
        page::{Shell, Sorry, page},
        visit::Visit,
        words::{Badge, Moment, Spark, Trouble, badges, span},
    },
    Linked, days_of,
    end::changed_by,
    find, replaced, today,
};
use crate::{
    clock::{self, Wall},
    keys::{Kind, Mode, Standing, document::KeyRow, words::prefix},
};

/// A key that was not used for so long after its successor was made is not needed any more.
const QUIET: std::time::Duration = std::time::Duration::from_secs(86_400);

#[derive(Template)]
#[template(path = "key.html", config = "src/control/ui/askama.toml")]
struct DetailPage {
    shell: Shell,
    id: String,
    path: String,
    name: String,
    prefix: String,
    kind: &'static str,
    mode: &'static str,
    scopes: String,
    owner: String,
    owner_path: String,
    owner_name: String,
    capabilities: Vec<String>,
    suspended: bool,
    allow_ips: Vec<String>,
    limits: String,
    created: Option<Moment>,
    expires: Option<Moment>,
    revoked: Option<Moment>,
    sentence: String,
    badges: Vec<Badge>,
    spark: Spark,
    first_use: FirstUse,
    last_used: Option<Moment>,
    last_ip: String,
    allowed: u64,
    refused: u64,
    troubles: Vec<Trouble>,
    before: Option<Linked>,
    after: Vec<Linked>,
    minter: Option<Minter>,
    /// How many keys that are not revoked it has minted.
    minted: usize,
    /// Not revoked: something can still be done with it.
    live: bool,
    /// It can be rotated.
    rotates: bool,
    /// The revision by which it was changed just now.
    changed: Option<u64>,
}

/// Who minted a key, and where to look at them.
struct Minter {
    says: String,
    path: Option<String>,
}

impl Minter {
    fn new(visit: &Visit, by: &str) -> Self {
        let (kind, name) = by.split_once(':').unwrap_or(("", by));
        match kind {
            "key" => Self { says: format!("key {name}"), path: Some(format!("/keys/{}", escaped(name))) },
            "operator" => Self { says: name.to_owned(), path: None },
            "token" => {
                let holder = visit.desk.ledger.read(|image| {
                    let holds = |operator: &&Operator| operator.tokens.iter().any(|token| token.id == name);
                    image.operators().values().find(holds).map(|operator| operator.name.clone())
                });
                let of = holder.map(|holder| format!(" of {holder}")).unwrap_or_default();
                Self { says: format!("token {name}{of}"), path: None }
            }
            _ => Self { says: by.to_owned(), path: None },
        }
    }
}

/// Whether a new key was used yet.
struct FirstUse {
    waiting: bool,
    used: bool,
    says: String,
}

impl FirstUse {
    fn new(listed: &Listed, now: Wall) -> Self {
        let used = listed.usage.last_used_at.is_some();
        let active = listed.standing == Standing::Active;
        let says = match (listed.usage.last_used_at, listed.usage.refused) {
            (Some(at), _) => {
                let from = listed.usage.last_ip.map(|ip| format!(" from {ip}")).unwrap_or_default();
                format!("In use: the last request came {}{from}.", Moment::new(at, now).about)
            }
            (None, 0) => "Waiting for the first request…".to_owned(),
            (None, count) => format!(
                "Requests came, and none was let through: {count} refused. See what was refused, and what to do about it."
            ),
        };
        Self { waiting: active && !used, used, says }
    }
}

/// `GET /keys/{id}`
pub(in super::super) async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Sorry> {
    let now = clock::now().wall;
    let listed = find(&visit, &id)?;
    let row = &listed.row;
    let mut days = days_of(&visit.desk, vec![row.id.clone()], now).await?;
    let (before, after) = linked(&visit, row, now);
    let replaced = !replaced(&visit.desk, std::iter::once(&**row)).is_empty();
    let owner = visit.desk.ledger.read(|image| image.owners().get(&row.owner).cloned());
    let moment = |at: Wall| Moment::new(at, now);
    let usage = &listed.usage;
    let detail = DetailPage {
        shell: Shell::of(&visit, "keys"),
        id: row.id.to_string(),
        path: escaped(row.id.as_str()),
        name: row.name.to_string(),
        prefix: prefix(row).unwrap_or("–").to_owned(),
        kind: match row.kind {
            Kind::Pair => "consumer key and consumer secret, over Basic",
            Kind::Token => "one token",
        },
        mode: row.mode.map_or("–", Mode::as_str),
        scopes: row.scopes.to_string(),
        owner: row.owner.to_string(),
        owner_path: escaped(row.owner.as_str()),
        owner_name: owner.as_ref().and_then(|owner| owner.name.as_deref()).unwrap_or_default().to_owned(),
        capabilities: owner.iter().flat_map(|owner| owner.capabilities.iter().map(ToString::to_string)).collect(),
        suspended: owner.as_ref().is_some_and(|owner| owner.suspended_at.is_some()),
        allow_ips: row.allow_ips.iter().map(|network| network.to_string()).collect(),
        limits: limits(row, owner.as_ref().and_then(|owner| owner.plan.as_deref())),
        created: row.created_at.map(moment),
        expires: row.expires_at.map(moment),
        revoked: row.revoked_at.map(moment),
        sentence: sentence(row),
        badges: badges(&listed, replaced, now),
        spark: Spark::new(&days.remove(&row.id).unwrap_or_default(), today(now)),
        first_use: FirstUse::new(&listed, now),
        last_used: usage.last_used_at.map(moment),
        last_ip: usage.last_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        allowed: usage.allowed,
        refused: usage.refused,
        troubles: usage.refusals.iter().map(|refusal| Trouble::new(refusal, now)).collect(),
        before,
        after,
        minter: row.minted_by.as_deref().map(|by| Minter::new(&visit, by)),
        minted: minted(&visit, row),
        live: row.revoked_at.is_none(),
        rotates: listed.standing == Standing::Active || listed.standing == Standing::Suspended,
        changed: changed_by(&visit, &["key.change"], "key", row.id.as_str()).await,
    };
    page(StatusCode::OK, &detail)
}

/// How many keys that are not revoked a key has minted.
pub(super) fn minted(visit: &Visit, row: &KeyRow) -> usize {
    if manages(row) { visit.desk.ledger.read(|image| live_minted_by(image, &row.id)) } else { 0 }
}

fn limits(row: &KeyRow, plan: Option<&str>) -> String {
    match (&row.limits, plan) {
        (Some(limits), _) => limits.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        (None, Some(plan)) => format!("those of the owner's plan, {plan}"),
        (None, None) => "those that all keys have".to_owned(),
    }
}

/// The key that this one replaces, and those that replace it; each with whether the older one is still needed.
fn linked(visit: &Visit, row: &KeyRow, now: Wall) -> (Option<Linked>, Vec<Linked>) {
    let usage = |key: &KeyRow| visit.desk.usage.of(&key.id);
    let link = |key: &KeyRow, old: &KeyRow, new: &KeyRow| {
        let live = visit.desk.ledger.read(|image| standing(image, old, now)) == Standing::Active;
        let quiet = |at: Option<Wall>| at.is_none_or(|at| at.plus(QUIET) <= now);
        let new_is_used = usage(new).last_used_at.is_some();
        Linked {
            id: key.id.to_string(),
            name: key.name.to_string(),
            last_used: usage(key).last_used_at.map(|at| Moment::new(at, now)),
            quiet: live && new_is_used && quiet(usage(old).last_used_at) && quiet(new.created_at),
        }
    };
    let (before, after) = visit.desk.ledger.read(|image| {
        let before = row.rotated_from.as_ref().and_then(|id| image.keys().get(id).cloned());
        (before, image.successors(&row.id).cloned().collect::<Vec<_>>())
    });
    (before.map(|old| link(&old, &old, row)), after.iter().map(|new| link(new, row, new)).collect())
}

/// `GET /keys/{id}/first-use`: for the line that turns green.
pub(in super::super) async fn first_use(visit: Visit, Path(id): Path<String>) -> Result<Response, Sorry> {
    let first = FirstUse::new(&find(&visit, &id)?, clock::now().wall);
    let mut response = serde_json::json!({ "used": first.used, "says": first.says }).to_string().into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// How long both keys work, in words.
pub(super) fn overlap_says(overlap: std::time::Duration) -> String {
    match overlap.is_zero() {
        true => "The old key has stopped working.".to_owned(),
        false => format!("The old key goes on working for {}.", span(overlap)),
    }
}
