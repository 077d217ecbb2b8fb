//! What can be done with keys: one operation each, for the API, the pages and the commands alike.
//!
//! All that could be made untrue by somebody else is judged by the ledger's image at the moment of the change.
//!
//! | file | holds |
//! |---|---|
//! | [`mod@create`] | minting, and minting once |
//! | [`life`] | rotate, change, revoke, purge |
//! | [`mod@identify`] | which key a string that was found belongs to |
//! | [`mod@list`] | who sees what, filters, pages |

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    answer::Problem,
    caller::Power,
    ledger::Image,
    settings::Offer,
    store::{Change, Head},
};
use crate::{
    clock::Wall,
    fault::nearest,
    keys::{
        KeyId, OwnerId, Scopes, Standing,
        document::{self, KeyRow, json::write_key},
        mint::MintError,
        secret::Secret,
        words::administrator,
    },
    limits::Quota,
    policy::network::Networks,
};

pub mod create;
pub mod identify;
pub mod life;
pub mod list;

pub use crate::keys::words::sentence;
pub use create::{NewKey, create};
pub use identify::{Identified, identify};
pub use life::{KeyChange, Rotation, change, purge, revoke, rotate};
pub use list::{Filter, Listed, Page, list, live_minted_by, show};

/// A key that was minted.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its row.
    pub row: Arc<KeyRow>,
    /// A pair's consumer secret, or the whole token; none when it was minted before.
    pub secret: Option<Secret>,
    /// Whether it was minted before, by a request with the same idempotency key.
    pub replayed: bool,
    /// What is likely not meant.
    pub warnings: Vec<String>,
    /// A head that holds it.
    pub head: Head,
}

/// Whether a key may be used, and if not, the gravest reason.
pub fn standing(image: &Image, row: &KeyRow, now: Wall) -> Standing {
    let suspended = || image.owners().get(&row.owner).is_some_and(|owner| owner.suspended_at.is_some());
    if row.revoked_at.is_some() {
        Standing::Revoked
    } else if suspended() {
        Standing::Suspended
    } else if row.expires_at.is_some_and(|at| at <= now) {
        Standing::Expired
    } else {
        Standing::Active
    }
}

/// What is likely not meant by a key like this one.
pub fn warnings(image: &Image, row: &KeyRow) -> Vec<String> {
    let mut warnings = Vec::new();
    let owner = &row.owner;
    match image.owners().get(owner) {
        None => warnings.push(format!("Owner {owner} has no entry: no capabilities, KYC none.")),
        Some(entry) => {
            if let Some(capability) = administrator(entry) {
                warnings.push(format!(
                    "Owner {owner} is an administrator ({capability}): whoever holds this key may do everything that its \
                     scopes let through. An owner with the few capabilities that the integration needs is safer."
                ));
            }
            if entry.suspended_at.is_some() {
                warnings.push(format!("Owner {owner} is suspended: the key works once that is lifted."));
            }
        }
    }
    let namesake = |key: &Arc<KeyRow>| key.id != row.id && key.name == row.name && key.revoked_at.is_none();
    if image.keys_of(owner).any(namesake) {
        warnings.push(format!("Another key of this owner has the name \"{}\".", row.name));
    }
    warnings
}

/// The key of this id, if the caller may know of it.
fn find<'a>(image: &'a Image, power: &Power, id: &str) -> Result<&'a Arc<KeyRow>, Problem> {
    let key = id.parse::<KeyId>().ok().and_then(|id| image.keys().get(&id));
    key.filter(|row| power.sees(row)).ok_or_else(|| Problem::not_found("key"))
}

/// A name that can be asked for and shown.
pub fn name(field: &'static str, text: &str) -> Result<Box<str>, Problem> {
    if text.trim().is_empty() {
        return Err(Problem::invalid(field, format!("`{field}` must not be empty.")));
    }
    document::check_new_name(text).map_err(|why| Problem::invalid(field, format!("`{field}` {why}.")))?;
    Ok(text.into())
}

/// The scopes of a key, each one that the offer has.
fn scopes(offer: &Offer, texts: &[String]) -> Result<Scopes, Problem> {
    let wrong = |message: String| Err(Problem::invalid("permissions", message));
    if texts.is_empty() {
        return wrong(format!("`permissions` must name at least one.{}", known(offer)));
    }
    if texts.len() > 200 {
        return wrong("`permissions` may name 200 at most.".to_owned());
    }
    for text in texts {
        let both = || ["read", "write"].iter().all(|one| offer.scopes.iter().any(|scope| scope == one));
        let offered = offer.scopes.is_empty()
            || offer.scopes.iter().any(|scope| scope == text)
            || (text == "read_write" && both());
        if !offered {
            let near = nearest(text, offer.scopes.iter().map(String::as_str));
            let near = near.map(|near| format!(" Did you mean \"{near}\"?")).unwrap_or_default();
            let shown: String = text.chars().take(100).filter(|char| !char.is_control()).collect();
            return wrong(format!("`permissions`: {} has no scope \"{shown}\".{near}{}", offer.name, known(offer)));
        }
    }
    match Scopes::parse(texts.iter().map(String::as_str)) {
        Ok(scopes) => Ok(scopes),
        Err((index, why)) => wrong(format!("`permissions`: number {} is no scope: {why}.", index + 1)),
    }
}

fn known(offer: &Offer) -> String {
    match offer.scopes.is_empty() {
        true => String::new(),
        false => format!(" There are {}.", offer.scopes.join(", ")),
    }
}

fn networks(texts: &[String]) -> Result<Networks, Problem> {
    let invalid = |message| Problem::invalid("allow_ips", message);
    if texts.len() > 1000 {
        return Err(invalid("`allow_ips` may have 1000 entries at most.".to_owned()));
    }
    let read = |(index, text): (usize, &String)| {
        let network = document::network(text.trim_ascii());
        network.map_err(|why| invalid(format!("`allow_ips`: entry {}: {why}.", index + 1)))
    };
    texts.iter().enumerate().map(read).collect()
}

/// Limits of a key's own; none where the list is empty.
fn quotas(texts: &[String]) -> Result<Option<Vec<Quota>>, Problem> {
    let invalid = |message| Problem::invalid("limits", message);
    if texts.len() > 20 {
        return Err(invalid("`limits` may have 20 entries at most.".to_owned()));
    }
    let read = |(index, text): (usize, &String)| {
        text.parse::<Quota>().map_err(|why| invalid(format!("`limits`: entry {}: {why}", index + 1)))
    };
    let quotas: Vec<_> = texts.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok((!quotas.is_empty()).then_some(quotas))
}

fn owner_id(text: &str) -> Result<OwnerId, Problem> {
    text.parse().map_err(|why| Problem::invalid("owner", format!("`owner` {why}.")))
}

/// A moment that the key document can hold: whole seconds.
fn whole(at: Wall) -> Wall {
    Wall::from_unix_millis(at.unix_seconds().saturating_mul(1000))
}

/// What the audit log says of a new key: never its hash.
fn described(row: &KeyRow) -> Value {
    let mut value = write_key(row);
    if let Value::Object(fields) = &mut value {
        fields.shift_remove("hash");
    }
    value
}

/// What differs between two versions, field by field: never a hash.
pub(super) fn difference(before: &Value, after: &Value) -> Value {
    let none = Map::new();
    let (old, new) = (before.as_object().unwrap_or(&none), after.as_object().unwrap_or(&none));
    let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
    let differs = names.filter(|name| *name != "hash" && old.get(*name) != new.get(*name));
    let change = |name: &String| (name.clone(), json!({ "before": old.get(name), "after": new.get(name) }));
    Value::Object(differs.map(change).collect())
}

/// The row as it was written: moments are kept to the second.
fn written(image: &Image, row: Arc<KeyRow>) -> Arc<KeyRow> {
    image.keys().get(&row.id).cloned().unwrap_or(row)
}

fn key_change(row: &Arc<KeyRow>) -> Change {
    Change::Key(Arc::clone(row))
}

fn mint_failed(error: &MintError) -> Problem {
    tracing::error!(error = error as &dyn std::error::Error, "a key could not be minted");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "The key could not be minted. The log says more.")
}
