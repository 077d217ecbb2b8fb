//! Reads one block of the text: every field by itself, so that all that is wrong is said at once and a readable
//! `revoked_at` counts whatever else is wrong.

use std::sync::Arc;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    End, KeyRow, OwnerRow,
    fields::{Fields, Table},
};
use crate::{
    clock::Wall,
    fault::{Severity, nearest},
    keys::{KeyId, OwnerId},
};

/// What a block turned out to be.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Key {
        id: Option<KeyId>,
        row: Option<Arc<KeyRow>>,
        revoked_at: Option<Wall>,
    },
    Owner {
        id: Option<OwnerId>,
        row: Option<Arc<OwnerRow>>,
    },
    End(Option<End>),
    /// A table of another name; it may be a key or an owner whose header is misspelt.
    Unknown {
        id: Option<Box<str>>,
    },
    /// Not TOML.
    Broken,
}

/// A block that was read. Offsets count from the header, so that it stays true when the block moves.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) entry: Entry,
    pub(super) notes: Vec<Note>,
}

/// A fault whose place counts from the block's header.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub(super) offset: usize,
    pub(super) message: String,
    pub(super) suggestion: Option<String>,
    pub(super) severity: Severity,
}

/// The fields of a key, in the order in which they are written.
pub(super) const KEY_FIELDS: &[&str] = &[
    "id",
    "name",
    "kind",
    "prefix",
    "lookup",
    "hash",
    "owner",
    "scopes",
    "mode",
    "allow_ips",
    "limits",
    "created_at",
    "expires_at",
    "revoked_at",
    "rotated_from",
    "minted_by",
];

/// The fields of an owner, in the order in which they are written.
pub(super) const OWNER_FIELDS: &[&str] = &["id", "name", "capabilities", "kyc", "plan", "suspended_at"];

/// Reads the block that begins with its header.
pub(super) fn read(text: &str) -> Read {
    let (table, errors) = DeTable::parse_recoverable(text);
    let table = table.into_inner();
    if !errors.is_empty() {
        let notes = errors
            .iter()
            .map(|error| Note {
                offset: error.span().map_or(0, |span| span.start),
                message: format!("not TOML: {}", error.message()),
                suggestion: None,
                severity: Severity::Error,
            })
            .collect();
        return Read { entry: Entry::Broken, notes };
    }
    let mut entries = table.iter();
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        return broken("more than one table where one was expected");
    };
    match (name.get_ref().as_ref(), value.get_ref()) {
        ("key", DeValue::Array(entries)) => match entries.iter().map(Spanned::get_ref).collect::<Vec<_>>()[..] {
            [DeValue::Table(table)] => key(table),
            _ => broken("expected one [[key]]"),
        },
        ("owner", DeValue::Array(entries)) => match entries.iter().map(Spanned::get_ref).collect::<Vec<_>>()[..] {
            [DeValue::Table(table)] => owner(table),
            _ => broken("expected one [[owner]]"),
        },
        ("end", DeValue::Table(table)) => end(table),
        (name, value) => unknown(name, value),
    }
}

fn broken(message: &str) -> Read {
    let note = Note { offset: 0, message: message.to_owned(), suggestion: None, severity: Severity::Error };
    Read { entry: Entry::Broken, notes: vec![note] }
}

fn unknown(name: &str, value: &DeValue<'_>) -> Read {
    let (message, suggestion) = match name {
        "key" | "owner" => (format!("[{name}] is one table, not a list"), Some(format!("write [[{name}]]"))),
        "end" => ("[[end]] is a list, not one table".to_owned(), Some("write [end]".to_owned())),
        _ => (
            format!("unknown table `{name}`"),
            nearest(name, ["key", "owner", "end"]).map(|known| format!("did you mean `{known}`?")),
        ),
    };
    let table = match value {
        DeValue::Table(table) => Some(table),
        DeValue::Array(entries) => entries.iter().find_map(|entry| entry.get_ref().as_table()),
        _ => None,
    };
    let id = table.and_then(|table| table.get("id")).and_then(|id| id.get_ref().as_str()).map(Into::into);
    let entry = if name == "end" { Entry::End(None) } else { Entry::Unknown { id } };
    Read { entry, notes: vec![Note { offset: 0, message, suggestion, severity: Severity::Error }] }
}

pub(super) fn key<T: Table>(table: &T) -> Read {
    let mut fields = Fields::new(table, "key", KEY_FIELDS);
    let id = fields.required("id", Fields::<T>::parsed::<KeyId>);
    let name = fields.optional("name", Fields::<T>::name).unwrap_or_default();
    let kind = fields.required("kind", Fields::<T>::parsed);
    let public = fields.public_part();
    let hash = fields.required("hash", Fields::<T>::hash);
    let owner = fields.required("owner", Fields::<T>::parsed);
    let scopes = fields.required("scopes", Fields::<T>::scopes);
    let mode = fields.optional("mode", Fields::<T>::parsed);
    let allow_ips = fields.optional("allow_ips", Fields::<T>::networks).unwrap_or_default();
    let limits = fields.optional("limits", Fields::<T>::quotas);
    let created_at = fields.optional("created_at", Fields::<T>::moment);
    let expires_at = fields.optional("expires_at", Fields::<T>::moment);
    let revoked_at = fields.optional("revoked_at", Fields::<T>::moment);
    let rotated_from = fields.optional("rotated_from", Fields::<T>::parsed);
    let minted_by = fields.optional("minted_by", Fields::<T>::name);
    let good = fields.is_good();
    let row = match (good, &id, kind, public, hash, owner, scopes) {
        (true, Some(id), Some(kind), Some(public), Some(hash), Some(owner), Some(scopes)) => Some(Arc::new(KeyRow {
            id: id.clone(),
            name,
            kind,
            public,
            hash,
            owner,
            scopes,
            mode,
            allow_ips,
            limits,
            created_at,
            expires_at,
            revoked_at,
            rotated_from,
            minted_by,
        })),
        _ => None,
    };
    Read { entry: Entry::Key { id, row, revoked_at }, notes: fields.notes }
}

pub(super) fn owner<T: Table>(table: &T) -> Read {
    let mut fields = Fields::new(table, "owner", OWNER_FIELDS);
    let id = fields.required("id", Fields::<T>::parsed::<OwnerId>);
    let name = fields.optional("name", Fields::<T>::name);
    let capabilities = fields.optional("capabilities", Fields::<T>::words).unwrap_or_default();
    let kyc = fields.optional("kyc", Fields::<T>::kyc).unwrap_or_default();
    let plan = fields.optional("plan", Fields::<T>::name);
    let suspended_at = fields.optional("suspended_at", Fields::<T>::moment);
    let row = match (fields.is_good(), &id) {
        (true, Some(id)) => Some(Arc::new(OwnerRow {
            id: id.clone(),
            name,
            capabilities: capabilities.into(),
            kyc,
            plan,
            suspended_at,
        })),
        _ => None,
    };
    Read { entry: Entry::Owner { id, row }, notes: fields.notes }
}

fn end(table: &DeTable<'_>) -> Read {
    let mut fields = Fields::new(table, "end", &["owners", "keys"]);
    let owners = fields.required("owners", Fields::<DeTable<'_>>::count);
    let keys = fields.required("keys", Fields::<DeTable<'_>>::count);
    let end = match (fields.is_good(), owners, keys) {
        (true, Some(owners), Some(keys)) => Some(End { owners, keys }),
        _ => None,
    };
    Read { entry: Entry::End(end), notes: fields.notes }
}
