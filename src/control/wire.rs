//! Changes as they are written: in the store, and in the stream that sidecars read.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    audit,
    store::{Change, Revision},
};
use crate::{
    clock::Wall,
    keys::document::{
        KeyRow,
        json::{read_key, read_owner, write_key, write_owner},
    },
};

/// What comes before the first revision.
pub const BEGINNING: &str = audit::BEGINNING;

/// A change: `{"key":{…}}`, `{"deleted_key":"…"}`, `{"owner":{…}}` or `{"deleted_owner":"…"}`.
pub fn write_change(change: &Change) -> Value {
    match change {
        Change::Key(row) => json!({ "key": write_key(row) }),
        Change::DeletedKey(id) => json!({ "deleted_key": id.as_str() }),
        Change::Owner(row) => json!({ "owner": write_owner(row) }),
        Change::DeletedOwner(id) => json!({ "deleted_owner": id.as_str() }),
    }
}

/// A key, as sidecars are told it: who minted it is no concern of theirs, and one that does not know the field would not
/// take the key.
pub fn write_told(row: &KeyRow) -> Value {
    let mut told = write_key(row);
    if let Value::Object(fields) = &mut told {
        fields.shift_remove("minted_by");
    }
    told
}

/// Reads a change.
///
/// # Errors
///
/// What is wrong with it.
pub fn read_change(value: &Value) -> Result<Change, String> {
    let entry = value.as_object().and_then(|object| object.iter().next().filter(|_| object.len() == 1));
    let (name, what) = entry.ok_or("a change is an object with one field")?;
    let id = || what.as_str().ok_or_else(|| format!("`{name}`: expected an id"));
    match name.as_str() {
        "key" => {
            let read = read_key(what);
            read.row.map(Change::Key).ok_or_else(|| read.faults.join("; "))
        }
        "owner" => {
            let read = read_owner(what);
            read.row.map(Change::Owner).ok_or_else(|| read.faults.join("; "))
        }
        "deleted_key" => Ok(Change::DeletedKey(id()?.parse().map_err(str::to_owned)?)),
        "deleted_owner" => Ok(Change::DeletedOwner(id()?.parse().map_err(str::to_owned)?)),
        _ => Err(format!("`{name}` is no change")),
    }
}

/// The changes of a revision, with the digest that is chained over them: whoever names it has seen this very history.
///
/// # Errors
///
/// A row that could not be read back: nothing must be written that nobody can read.
pub fn revision(number: u64, before: &str, at: Wall, changes: &[Change]) -> Result<Revision, String> {
    let written: Vec<Value> = changes.iter().map(write_change).collect();
    // As it will be read: moments are written to the second.
    let changes = written.iter().map(read_change).collect::<Result<_, _>>()?;
    let lines: Vec<String> = written.iter().map(Value::to_string).collect();
    let digest = audit::hex(&format!("{before}\n{number}\n{}", lines.join("\n")));
    Ok(Revision { revision: number, digest, at, changes })
}

/// The lines of a revision in the stream of changes. Those of one transaction say of each but the last that there is
/// more to come.
pub fn lines(revision: &Arc<Revision>) -> String {
    let last = revision.changes.len().saturating_sub(1);
    let mut text = String::new();
    for (index, change) in revision.changes.iter().enumerate() {
        let mut line = json!({ "revision": revision.revision, "digest": revision.digest });
        let told = match change {
            Change::Key(row) => json!({ "key": write_told(row) }),
            change => write_change(change),
        };
        if let (Value::Object(line), Value::Object(change)) = (&mut line, told) {
            if index < last {
                line.insert("more".to_owned(), true.into());
            }
            line.extend(change);
        }
        text.push_str(&line.to_string());
        text.push('\n');
    }
    text
}
