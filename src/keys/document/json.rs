//! Keys and owners as JSON objects, with the fields that they have in the key file: the lines of a key endpoint and of
//! the journal, and the rows of a control plane's store.

use std::{borrow::Cow, sync::Arc};

use serde_json::{Map, Value};

use super::{
    KeyRow, OwnerRow,
    edit::{Field, key_fields, owner_fields},
    fields::{Node, Table},
    read::{self, Entry, Read},
};
use crate::{
    clock::Wall,
    fault::Severity,
    keys::{KeyId, OwnerId},
};

/// A key that was read. Without a row its id is not accepted, whatever an older line said.
#[derive(Clone, Debug)]
pub struct KeyEntry {
    /// Its id, if that can be read.
    pub id: Option<KeyId>,
    /// The row, if all of it can be read.
    pub row: Option<Arc<KeyRow>>,
    /// Since when it is revoked; counts whatever else is wrong.
    pub revoked_at: Option<Wall>,
    /// What is wrong with it.
    pub faults: Vec<String>,
}

/// An owner that was read. Without a row its keys are not accepted: what the entry would have forbidden is not known.
#[derive(Clone, Debug)]
pub struct OwnerEntry {
    /// Its id, if that can be read.
    pub id: Option<OwnerId>,
    /// The row, if all of it can be read.
    pub row: Option<Arc<OwnerRow>>,
    /// What is wrong with it.
    pub faults: Vec<String>,
}

/// Reads a key.
pub fn read_key(value: &Value) -> KeyEntry {
    let Value::Object(object) = value else {
        return KeyEntry { id: None, row: None, revoked_at: None, faults: vec!["a key is an object".to_owned()] };
    };
    let Read { entry, notes } = read::key(object);
    match entry {
        Entry::Key { id, row, revoked_at } => KeyEntry { id, row, revoked_at, faults: faults(notes) },
        _ => unreachable!("a key is read as a key"),
    }
}

/// Reads an owner.
pub fn read_owner(value: &Value) -> OwnerEntry {
    let Value::Object(object) = value else {
        return OwnerEntry { id: None, row: None, faults: vec!["an owner is an object".to_owned()] };
    };
    let Read { entry, notes } = read::owner(object);
    match entry {
        Entry::Owner { id, row } => OwnerEntry { id, row, faults: faults(notes) },
        _ => unreachable!("an owner is read as an owner"),
    }
}

/// A key, as it is written.
pub fn write_key(row: &KeyRow) -> Value {
    write(key_fields(row))
}

/// An owner, as it is written.
pub fn write_owner(row: &OwnerRow) -> Value {
    write(owner_fields(row))
}

/// A null says that there is nothing, as no field does.
impl Table for Map<String, Value> {
    type Value = Value;

    fn field(&self, name: &str) -> Option<&Value> {
        self.get(name).filter(|value| !value.is_null())
    }

    fn names(&self) -> impl Iterator<Item = (&str, usize)> {
        self.keys().map(|name| (name.as_str(), 0))
    }
}

impl Node for Value {
    fn place(&self) -> usize {
        0
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "list",
            Self::Object(_) => "object",
        }
    }

    fn text(&self) -> Option<&str> {
        self.as_str()
    }

    fn items(&self) -> Option<Vec<&Self>> {
        self.as_array().map(|items| items.iter().collect())
    }

    fn count(&self) -> Option<usize> {
        self.as_u64().and_then(|count| usize::try_from(count).ok())
    }

    fn moment(&self) -> Option<Cow<'_, str>> {
        self.as_str().map(Cow::Borrowed)
    }
}

fn faults(notes: Vec<read::Note>) -> Vec<String> {
    let errors = notes.into_iter().filter(|note| note.severity == Severity::Error);
    errors
        .map(|note| match note.suggestion {
            Some(suggestion) => format!("{} ({suggestion})", note.message),
            None => note.message,
        })
        .collect()
}

fn write(fields: Vec<Field>) -> Value {
    fields.into_iter().map(|(name, value)| (name.to_owned(), json(value))).collect()
}

fn json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(is) => is.into(),
        toml::Value::Datetime(moment) => Value::String(moment.to_string()),
        toml::Value::Array(items) => items.into_iter().map(json).collect(),
        toml::Value::Table(table) => table.into_iter().map(|(name, value)| (name, json(value))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::keys::document::Parser;

    const TEXT: &str = r#"
[[owner]]
id = "svc"
name = "A service"
capabilities = ["manage"]
kyc = "approved"
plan = "pro"
suspended_at = 2026-12-01T00:00:00Z

[[key]]
id = "key_1"
name = "One"
kind = "pair"
prefix = "ck_1"
hash = "$sha256$4c86fcf6fe4dcb18a3ea8c5cb3c3b8d0b3e5fb0a1b9f2a4a6e1d2d9d7b8c1a00"
owner = "svc"
scopes = ["read_write", "links:read"]
mode = "live"
allow_ips = ["203.0.113.42", "2001:db8::/32"]
limits = ["600/1m"]
created_at = 2026-11-21T00:00:00Z
expires_at = 2027-02-19T00:00:00Z
revoked_at = 2026-12-01T00:00:00Z
rotated_from = "key_0"
minted_by = "operator:ada"

[[key]]
id = "key_2"
kind = "token"
lookup = "hmac-sha256:wc-api:0000000000000000000000000000000000000000000000000000000000000000"
hash = "$sha256$4c86fcf6fe4dcb18a3ea8c5cb3c3b8d0b3e5fb0a1b9f2a4a6e1d2d9d7b8c1a00"
owner = "svc"
scopes = []
"#;

    #[test]
    fn what_is_written_reads_back_as_it_was() {
        let document = Parser::default().parse(TEXT.as_bytes()).unwrap();
        assert_eq!(document.faults, []);
        for row in &document.keys {
            let read = read_key(&write_key(row));
            assert_eq!((read.row.as_ref(), read.revoked_at), (Some(row), row.revoked_at), "{:?}", read.faults);
        }
        for row in &document.owners {
            assert_eq!(read_owner(&write_owner(row)).row.as_ref(), Some(row));
        }
    }

    /// A good key, changed: what is said of it.
    #[track_caller]
    fn check(change: impl FnOnce(&mut Map<String, Value>), fault: &str) {
        let document = Parser::default().parse(TEXT.as_bytes()).unwrap();
        let Value::Object(mut object) = write_key(&document.keys[0]) else { panic!("an object") };
        change(&mut object);
        let read = read_key(&Value::Object(object));
        assert!(read.row.is_none());
        assert_eq!(read.faults, [fault]);
        assert!(read.revoked_at.is_some(), "a revocation counts whatever else is wrong");
    }

    #[test]
    fn what_is_wrong_is_said() {
        check(
            |key| drop(key.insert("alow_ips".into(), json!([]))),
            "unknown field `alow_ips` (did you mean `allow_ips`?)",
        );
        check(
            |key| drop(key.insert("scopes".into(), json!("read"))),
            "`scopes`: expected a list of strings, not a string",
        );
        check(|key| drop(key.insert("hash".into(), json!(1))), "`hash`: expected a string, not a number");
        check(|key| drop(key.shift_remove("owner")), "`owner` is missing");
        check(|key| drop(key.insert("owner".into(), Value::Null)), "`owner` is missing");
        assert_eq!(read_key(&json!([])).faults, ["a key is an object"]);
        assert_eq!(read_owner(&json!({})).faults, ["`id` is missing"]);
    }

    #[test]
    fn nothing_may_be_said_by_null() {
        let object = json!({
            "id": "key_1", "kind": "token", "prefix": "ck_live_abc", "owner": "svc", "scopes": ["read"], "mode": null,
            "hash": "$sha256$4c86fcf6fe4dcb18a3ea8c5cb3c3b8d0b3e5fb0a1b9f2a4a6e1d2d9d7b8c1a00", "expires_at": null,
        });
        let read = read_key(&object);
        assert!(read.row.is_some(), "{:?}", read.faults);
    }
}
