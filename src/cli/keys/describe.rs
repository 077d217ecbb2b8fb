//! A key in words, in JSON and as a row of a table.

use serde_json::{Value, json};

use super::place::Named;
pub(crate) use super::words::{administrator, prefix, sentence};
use crate::{
    clock::Wall,
    keys::{
        LastUsed, OwnerId,
        document::{Document, KeyRow, OwnerRow},
    },
};

/// The owner's row.
pub(crate) fn owner<'a>(document: &'a Document, id: &OwnerId) -> Option<&'a OwnerRow> {
    document.owners.iter().find(|owner| owner.id == *id).map(|owner| &**owner)
}

/// What `create` and `rotate` print, without the secret.
pub(crate) fn created(row: &KeyRow) -> Value {
    let mut value = json!({
        "id": row.id.as_str(),
        "name": &*row.name,
        "kind": row.kind.as_str(),
        "prefix": prefix(row),
        "owner": row.owner.as_str(),
        "scopes": row.scopes.iter().collect::<Vec<_>>(),
        "mode": row.mode.map(|mode| mode.as_str()),
        "allow_ips": row.allow_ips.iter().map(|network| network.to_string()).collect::<Vec<_>>(),
        "limits": row.limits.as_ref().map(|limits| limits.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "created_at": row.created_at.map(|at| at.to_string()),
        "expires_at": row.expires_at.map(|at| at.to_string()),
    });
    if let Some(from) = &row.rotated_from {
        value["rotated_from"] = from.as_str().into();
    }
    value
}

/// What `list` and `show` print of a key.
pub(crate) fn listed(key: &Named, document: &Document, used: Option<&LastUsed>, now: Wall) -> Value {
    let mut value = match key {
        Named::Row(row) => {
            let mut value = created(row);
            value["rotated_from"] = row.rotated_from.as_ref().map(|id| id.as_str()).into();
            if let Some(by) = &row.minted_by {
                value["minted_by"] = (**by).into();
            }
            value["hash"] = row.hash.algorithm().as_str().into();
            value
        }
        Named::SetAside(id) => json!({ "id": id.as_str() }),
    };
    // Null with the status revoked: only that it was revoked is remembered, and not when.
    value["revoked_at"] = document.revoked.get(key.id()).copied().flatten().map(|at| at.to_string()).into();
    value["status"] = status(key, document, now).into();
    value["last_used_at"] = used.map(|used| used.at.to_string()).into();
    value["last_used_ip"] = used.map(|used| used.ip.to_string()).into();
    value
}

/// Whether a key works now, in a word.
pub(crate) fn status(key: &Named, document: &Document, now: Wall) -> &'static str {
    if document.revoked.contains_key(key.id()) {
        return "revoked";
    }
    let Named::Row(row) = key else { return "set aside" };
    if row.expires_at.is_some_and(|at| at <= now) {
        "expired"
    } else if owner(document, &row.owner).is_some_and(|owner| owner.suspended_at.is_some()) {
        "suspended"
    } else {
        "active"
    }
}

/// How many characters of a longer prefix the table shows.
pub(crate) const SHOWN: usize = 20;

/// The headings of [`cells`].
pub(crate) const HEADINGS: [&str; 10] =
    ["ID", "NAME", "PREFIX", "OWNER", "SCOPES", "MODE", "STATUS", "LAST USED", "CREATED", "EXPIRES"];

/// A key as a row of a table.
pub(crate) fn cells(key: &Named, document: &Document, used: Option<&LastUsed>, now: Wall) -> [String; 10] {
    let none = || "-".to_owned();
    let used = used.map_or_else(none, |used| format!("{} {}", minute(used.at), used.ip));
    let mut status = status(key, document, now).to_owned();
    // Since when belongs to it: nothing else of the row says when the key stopped.
    if let Some(Some(at)) = document.revoked.get(key.id()) {
        status = format!("{status} {}", minute(*at));
    }
    match key {
        Named::Row(row) => {
            [
                row.id.to_string(),
                row.name.to_string(),
                // A consumer key is long, and its beginning tells it from others.
                prefix(row).map_or_else(none, |prefix| match prefix.char_indices().nth(SHOWN) {
                    Some((end, _)) => format!("{}…", &prefix[..end]),
                    None => prefix.to_owned(),
                }),
                row.owner.to_string(),
                row.scopes.to_string(),
                row.mode.map_or_else(none, |mode| mode.as_str().to_owned()),
                status,
                used,
                row.created_at.map_or_else(none, minute),
                row.expires_at.map_or_else(none, minute),
            ]
        }
        Named::SetAside(id) => [id.to_string(), none(), none(), none(), none(), none(), status, used, none(), none()],
    }
}

/// A moment to the minute, in UTC: enough for people, and it lines up.
fn minute(at: Wall) -> String {
    at.timestamp().strftime("%Y-%m-%d %H:%MZ").to_string()
}
