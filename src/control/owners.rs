//! What can be done with owners. Operators keep them; keys may not.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::{
    answer::Problem,
    caller::Caller,
    desk::Desk,
    fleet::Receipt,
    keys::{difference, name, standing},
    ledger::{Draft, Image},
    store::{Change, Role},
};
use crate::{
    clock::{self, Wall},
    fault::nearest,
    keys::{
        Kyc, OwnerId, Standing,
        document::{
            OwnerRow, check_new_name,
            json::{read_owner, write_owner},
        },
        words::administrator,
    },
};

/// An owner that somebody wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewOwner {
    /// The id: what keys name, and the upstream is told.
    pub id: String,
    /// What people call the owner.
    pub name: Option<String>,
    /// What the owner may do at the upstream.
    pub capabilities: Vec<String>,
    /// How the owner's identity check stands.
    pub kyc: Kyc,
    /// The plan that sets the limits of the owner's keys.
    pub plan: Option<String>,
}

/// What is to be changed of an owner; what is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerChange {
    /// What people call the owner; none inside: nothing.
    pub name: Option<Option<String>>,
    /// What the owner may do, in place of all there was.
    pub capabilities: Option<Vec<String>>,
    /// How the owner's identity check stands.
    pub kyc: Option<Kyc>,
    /// The plan; none inside: no plan.
    pub plan: Option<Option<String>>,
    /// Whether all keys of the owner are refused.
    pub suspended: Option<bool>,
}

/// An owner, and the keys it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The owner.
    pub row: Arc<OwnerRow>,
    /// Its keys that are not revoked.
    pub keys: usize,
    /// Those of them that may be used now.
    pub active: usize,
    /// What is likely not meant.
    pub warnings: Vec<String>,
}

/// Some of the owners, by id.
#[derive(Clone, Debug)]
pub struct OwnerPage {
    /// The owners.
    pub rows: Vec<Owned>,
    /// How many there are on all pages.
    pub total: usize,
    /// After which id the next page begins; none on the last one.
    pub next: Option<String>,
}

/// Lists owners whose id or name holds a text, after an id.
///
/// # Errors
///
/// The caller may not.
pub fn list(
    desk: &Desk,
    caller: &Caller,
    search: Option<&str>,
    after: Option<&str>,
    limit: usize,
) -> Result<OwnerPage, Problem> {
    let now = clock::now().wall;
    let search = search.map(|text| text.trim().to_lowercase()).filter(|text| !text.is_empty());
    desk.ledger.read(|image| {
        caller.stands(image, now)?.needs(Role::Viewer)?;
        let (mut rows, mut total, mut more) = (Vec::new(), 0, false);
        for row in image.owners().values() {
            let found = |search: &String| {
                let named = |name: &str| name.to_lowercase().contains(search.as_str());
                named(row.id.as_str()) || row.name.as_deref().is_some_and(named)
            };
            if !search.as_ref().is_none_or(found) {
                continue;
            }
            total += 1;
            if after.is_some_and(|after| row.id.as_str() <= after) {
                continue;
            }
            match rows.len() < limit.clamp(1, super::keys::list::MOST) {
                true => rows.push(owned(desk, image, row, now)),
                false => more = true,
            }
        }
        let next = more.then(|| rows.last().map(|owned: &Owned| owned.row.id.to_string())).flatten();
        Ok(OwnerPage { rows, total, next })
    })
}

/// Shows an owner.
///
/// # Errors
///
/// There is none, or the caller may not.
pub fn show(desk: &Desk, caller: &Caller, id: &str) -> Result<Owned, Problem> {
    let now = clock::now().wall;
    desk.ledger.read(|image| {
        caller.stands(image, now)?.needs(Role::Viewer)?;
        Ok(owned(desk, image, find(image, id)?, now))
    })
}

/// Adds an owner.
///
/// # Errors
///
/// There is one of this id, it would be none, the caller may not, or the store failed.
pub async fn create(desk: &Arc<Desk>, caller: &Caller, new: NewOwner) -> Result<Owned, Problem> {
    caller.needs(Role::Operator)?;
    let NewOwner { id, name, capabilities, kyc, plan } = new;
    let id: OwnerId = id.parse().map_err(|why| Problem::invalid("id", format!("`id` {why}.")))?;
    let row = OwnerRow {
        id: id.clone(),
        name: optional("name", name.as_deref())?,
        capabilities: words(&capabilities)?,
        kyc,
        plan: optional("plan", plan.as_deref())?,
        suspended_at: None,
    };
    let row = readable(row)?;
    let then = caller.clone();
    let judge = move |image: &Image, now: Wall| {
        then.stands(image, now)?.needs(Role::Operator)?;
        if image.owners().contains_key(&row.id) {
            return Err(Problem::conflict("exists", format!("There is an owner {} already.", row.id)));
        }
        let draft = Draft {
            action: "owner.create",
            subject: row.id.to_string(),
            detail: json!({ "owner": write_owner(&row) }),
            changes: vec![Change::Owner(Arc::clone(&row))],
            ..Draft::default()
        };
        Ok((Some(draft), ()))
    };
    desk.ledger.write(caller.actor.clone(), judge).await.map_err(Problem::from)?;
    show(desk, caller, id.as_str())
}

/// Changes an owner: also suspends it, and lifts that. Waits for the sidecars: the change may let fewer in.
///
/// # Errors
///
/// There is none, the change is none, the caller may not, or the store failed.
pub async fn change(
    desk: &Arc<Desk>,
    caller: &Caller,
    id: &str,
    change: OwnerChange,
    wait: Duration,
) -> Result<Receipt, Problem> {
    caller.needs(Role::Operator)?;
    let name = change.name.map(|name| optional("name", name.as_deref())).transpose()?;
    let plan = change.plan.map(|plan| optional("plan", plan.as_deref())).transpose()?;
    let capabilities = change.capabilities.as_deref().map(words).transpose()?;
    let (then, subject) = (caller.clone(), id.to_owned());
    let judge = move |image: &Image, now: Wall| {
        then.stands(image, now)?.needs(Role::Operator)?;
        let old = find(image, &subject)?;
        let mut row = (**old).clone();
        row.name = name.clone().unwrap_or(row.name);
        row.plan = plan.clone().unwrap_or(row.plan);
        row.capabilities = capabilities.clone().unwrap_or(row.capabilities);
        row.kyc = change.kyc.unwrap_or(row.kyc);
        row.suspended_at = match change.suspended {
            Some(true) => row.suspended_at.or(Some(Wall::from_unix_millis(now.unix_seconds().saturating_mul(1000)))),
            Some(false) => None,
            None => row.suspended_at,
        };
        if row == **old {
            return Ok((None, ()));
        }
        let row = readable(row)?;
        let action = match (old.suspended_at, row.suspended_at) {
            (None, Some(_)) => "owner.suspend",
            (Some(_), None) => "owner.unsuspend",
            _ => "owner.change",
        };
        let draft = Draft {
            action,
            subject: row.id.to_string(),
            detail: json!({ "changed": difference(&write_owner(old), &write_owner(&row)) }),
            changes: vec![Change::Owner(row)],
            ..Draft::default()
        };
        Ok((Some(draft), ()))
    };
    let written = desk.ledger.write(caller.actor.clone(), judge).await.map_err(Problem::from)?;
    Ok(desk.fleet.receipt(&written.head, wait).await?)
}

/// Removes an owner that no key names which is not revoked, and waits for the sidecars.
///
/// # Errors
///
/// There is none, keys name it, the caller may not, or the store failed.
pub async fn delete(desk: &Arc<Desk>, caller: &Caller, id: &str, wait: Duration) -> Result<Receipt, Problem> {
    caller.needs(Role::Operator)?;
    let (then, id) = (caller.clone(), id.to_owned());
    let judge = move |image: &Image, now: Wall| {
        then.stands(image, now)?.needs(Role::Operator)?;
        let row = find(image, &id)?;
        let living = image.keys_of(&row.id).filter(|key| key.revoked_at.is_none()).count();
        if living > 0 {
            let (keys, act) = if living == 1 { ("key", "acts") } else { ("keys", "act") };
            // Without its entry a suspended owner's keys would work again.
            let message = format!("{living} {keys} that {act} for {id} are not revoked: revoke them first.");
            return Err(Problem::conflict("in_use", message));
        }
        let draft = Draft {
            action: "owner.delete",
            subject: row.id.to_string(),
            detail: json!({ "owner": write_owner(row) }),
            changes: vec![Change::DeletedOwner(row.id.clone())],
            ..Draft::default()
        };
        Ok((Some(draft), ()))
    };
    let written = desk.ledger.write(caller.actor.clone(), judge).await.map_err(Problem::from)?;
    Ok(desk.fleet.receipt(&written.head, wait).await?)
}

fn find<'a>(image: &'a Image, id: &str) -> Result<&'a Arc<OwnerRow>, Problem> {
    let row = id.parse::<OwnerId>().ok().and_then(|id| image.owners().get(&id));
    row.ok_or_else(|| Problem::not_found("owner"))
}

fn owned(desk: &Desk, image: &Image, row: &Arc<OwnerRow>, now: Wall) -> Owned {
    let (mut keys, mut active) = (0, 0);
    for key in image.keys_of(&row.id) {
        keys += usize::from(key.revoked_at.is_none());
        active += usize::from(standing(image, key, now) == Standing::Active);
    }
    Owned { row: Arc::clone(row), keys, active, warnings: warnings(desk, row) }
}

fn warnings(desk: &Desk, row: &OwnerRow) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(capability) = administrator(row) {
        warnings.push(format!("{} is an administrator ({capability}): so is whoever holds one of its keys.", row.id));
    }
    let plans: Vec<&str> =
        desk.settings.offers.iter().flat_map(|offer| offer.plans.iter().map(String::as_str)).collect();
    if let Some(plan) = row.plan.as_deref().filter(|plan| !plans.is_empty() && !plans.contains(plan)) {
        let near = nearest(plan, plans.iter().copied());
        let near = near.map(|near| format!(" Did you mean \"{near}\"?")).unwrap_or_default();
        warnings.push(format!("No preset has the plan \"{plan}\": its keys have the limits of all keys.{near}"));
    }
    warnings
}

fn optional(field: &'static str, text: Option<&str>) -> Result<Option<Box<str>>, Problem> {
    text.filter(|text| !text.is_empty()).map(|text| name(field, text)).transpose()
}

fn words(texts: &[String]) -> Result<Box<[Box<str>]>, Problem> {
    let invalid = |why: &str| Problem::invalid("capabilities", format!("`capabilities` {why}."));
    if texts.len() > 200 {
        return Err(invalid("may name 200 at most"));
    }
    for text in texts {
        if text.trim().is_empty() {
            return Err(invalid("must not hold an empty name"));
        }
        check_new_name(text).map_err(invalid)?;
    }
    Ok(texts.iter().map(|text| text.as_str().into()).collect())
}

/// The row, as it will be read: what cannot be read back is not written.
fn readable(row: OwnerRow) -> Result<Arc<OwnerRow>, Problem> {
    let read = read_owner(&write_owner(&row));
    read.row.ok_or_else(|| Problem::invalid("owner", format!("The owner cannot be kept: {}.", read.faults.join("; "))))
}
