//! Columns as what they stand for. What cannot be read is damage, and says whose.

use std::{fmt::Display, str::FromStr, sync::Arc};

use serde_json::{Value as Json, json};

use super::{
    super::{Change, Revision, engine::Row},
    KeyId, OwnerId, StoreError, Wall,
};
use crate::keys::document::{KeyRow, OwnerRow, json as document};

/// Damage, and where.
pub(super) fn damaged(whose: impl Display, why: impl Display) -> StoreError {
    StoreError::Damaged(format!("{whose}: {why}"))
}

/// A text that stands for something.
pub(super) fn parse<T: FromStr<Err: Display>>(text: &str, whose: impl Display) -> Result<T, StoreError> {
    text.parse().map_err(|why| damaged(whose, why))
}

/// A column that stands for something, where there is anything.
pub(super) fn parse_or_none<T: FromStr<Err: Display>>(
    row: &Row,
    column: usize,
    whose: impl Display,
) -> Result<Option<T>, StoreError> {
    row.text_or_none(column)?.map(|text| parse(&text, whose)).transpose()
}

/// A moment.
pub(super) fn wall(row: &Row, column: usize) -> Result<Wall, StoreError> {
    row.int(column).map(Wall::from_unix_millis)
}

/// A moment, where there is one.
pub(super) fn wall_or_none(row: &Row, column: usize) -> Result<Option<Wall>, StoreError> {
    Ok(row.int_or_none(column)?.map(Wall::from_unix_millis))
}

/// A JSON text.
pub(super) fn json_of(text: &str, whose: impl Display) -> Result<Json, StoreError> {
    // What the parser says of a place is kept; what stands there may be the hash of a secret.
    serde_json::from_str(text).map_err(|why| damaged(whose, format_args!("no JSON at character {}", why.column())))
}

/// A key.
pub(super) fn key(value: &Json, whose: impl Display) -> Result<Arc<KeyRow>, StoreError> {
    let read = document::read_key(value);
    read.row.ok_or_else(|| damaged(whose, read.faults.join("; ")))
}

/// An owner.
pub(super) fn owner(value: &Json, whose: impl Display) -> Result<Arc<OwnerRow>, StoreError> {
    let read = document::read_owner(value);
    read.row.ok_or_else(|| damaged(whose, read.faults.join("; ")))
}

/// A revision: its number, digest, moment and lines.
pub(super) fn revision(row: &Row) -> Result<Revision, StoreError> {
    let revision = row.count(0)?;
    let whose = format!("the changes of revision {revision}");
    let lines = json_of(&row.text(3)?, &whose)?;
    let lines = lines.as_array().ok_or_else(|| damaged(&whose, "no list"))?;
    let changes = lines.iter().map(|line| change(line, &whose)).collect::<Result<Vec<_>, _>>()?;
    if changes.is_empty() {
        return Err(damaged(whose, "nothing"));
    }
    Ok(Revision { revision, digest: row.text(1)?, at: wall(row, 2)?, changes })
}

fn change(line: &Json, whose: &str) -> Result<Change, StoreError> {
    let object = line.as_object().filter(|object| object.len() == 1);
    let (what, value) = object.and_then(|object| object.iter().next()).ok_or_else(|| damaged(whose, "no change"))?;
    let id = || value.as_str().ok_or_else(|| damaged(whose, "no id"));
    Ok(match what.as_str() {
        "key" => Change::Key(key(value, whose)?),
        "owner" => Change::Owner(owner(value, whose)?),
        "deleted_key" => Change::DeletedKey(parse::<KeyId>(id()?, whose)?),
        "deleted_owner" => Change::DeletedOwner(parse::<OwnerId>(id()?, whose)?),
        _ => return Err(damaged(whose, "an unknown change")),
    })
}

/// The lines of a revision.
pub(super) fn lines(changes: &[Change]) -> String {
    let line = |change: &Change| match change {
        Change::Key(row) => json!({ "key": document::write_key(row) }),
        Change::DeletedKey(id) => json!({ "deleted_key": id.as_str() }),
        Change::Owner(row) => json!({ "owner": document::write_owner(row) }),
        Change::DeletedOwner(id) => json!({ "deleted_owner": id.as_str() }),
    };
    Json::Array(changes.iter().map(line).collect()).to_string()
}
