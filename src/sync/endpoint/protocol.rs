//! The lines of the sync protocol, one by one: what each says, and which of them are none.

use serde_json::{Map, Value};

use crate::keys::{
    KeyId, OwnerId,
    document::json::{KeyEntry, OwnerEntry, read_key, read_owner},
};

/// The longest epoch or digest that is taken.
const MAX_MARK: usize = 128;

/// A place in an endpoint's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Which history it is.
    pub(super) epoch: Box<str>,
    /// How many transactions there were.
    pub(super) revision: u64,
    /// What the endpoint made of all of them; only it knows how.
    pub(super) digest: Box<str>,
}

/// One row of a set.
#[derive(Debug)]
pub(super) enum Row {
    Key(KeyEntry),
    Owner(OwnerEntry),
}

/// A line of a whole set.
#[derive(Debug)]
pub(super) enum SetLine {
    Head(Position),
    Row(Row),
    End { owners: u64, keys: u64 },
}

/// A line of a stream of changes.
#[derive(Debug)]
pub(super) enum StreamLine {
    /// Nothing is newer than this revision.
    Heartbeat(u64),
    Change(Change),
}

/// One change of one transaction.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) digest: Box<str>,
    /// Whether another change of the same transaction follows.
    pub(super) more: bool,
    pub(super) what: What,
}

/// What has changed.
#[derive(Debug)]
pub(super) enum What {
    Row(Row),
    DeletedKey(KeyId),
    DeletedOwner(OwnerId),
}

/// Reads a line of a whole set.
pub(super) fn set_line(text: &[u8]) -> Result<SetLine, String> {
    let object = object(text)?;
    if object.contains_key("end") {
        if object.get("end") != Some(&Value::Bool(true)) {
            return Err("`end` is not true".to_owned());
        }
        return Ok(SetLine::End { owners: number(&object, "owners")?, keys: number(&object, "keys")? });
    }
    if object.contains_key("epoch") {
        let (epoch, digest) = (mark(&object, "epoch")?, mark(&object, "digest")?);
        if epoch.is_empty() {
            return Err("`epoch` is empty".to_owned());
        }
        return Ok(SetLine::Head(Position { epoch, revision: number(&object, "revision")?, digest }));
    }
    row(&object)?.map(SetLine::Row).ok_or_else(|| "a line that is neither an owner nor a key".to_owned())
}

/// Reads a line of a stream of changes.
pub(super) fn stream_line(text: &[u8]) -> Result<StreamLine, String> {
    let object = object(text)?;
    if object.contains_key("heartbeat") {
        return Ok(StreamLine::Heartbeat(number(&object, "heartbeat")?));
    }
    let revision = number(&object, "revision")?;
    let digest = mark(&object, "digest")?;
    let more = match object.get("more") {
        None | Some(Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(_) => return Err("`more` is neither true nor false".to_owned()),
    };
    let deleted = |name: &str| object.get(name).map(|id| id.as_str().ok_or(format!("`{name}` is no text")));
    let what = match (row(&object)?, deleted("deleted_key").transpose()?, deleted("deleted_owner").transpose()?) {
        (Some(row), None, None) => What::Row(row),
        (None, Some(id), None) => What::DeletedKey(id.parse().map_err(|why| format!("`deleted_key`: {why}"))?),
        (None, None, Some(id)) => What::DeletedOwner(id.parse().map_err(|why| format!("`deleted_owner`: {why}"))?),
        _ => return Err("a change of nothing, or of more than one thing".to_owned()),
    };
    Ok(StreamLine::Change(Change { revision, digest, more, what }))
}

fn row(object: &Map<String, Value>) -> Result<Option<Row>, String> {
    match (object.get("key"), object.get("owner")) {
        (Some(key), None) => Ok(Some(Row::Key(read_key(key)))),
        (None, Some(owner)) => Ok(Some(Row::Owner(read_owner(owner)))),
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err("an owner and a key in one line".to_owned()),
    }
}

fn object(text: &[u8]) -> Result<Map<String, Value>, String> {
    // What cannot be read may hold a row, so it is not shown.
    serde_json::from_slice(text).map_err(|why| format!("a line that is no JSON object (column {})", why.column()))
}

fn number(object: &Map<String, Value>, name: &str) -> Result<u64, String> {
    object.get(name).and_then(Value::as_u64).ok_or_else(|| format!("`{name}` is missing, or no number"))
}

/// A text that is only kept and said again.
fn mark(object: &Map<String, Value>, name: &str) -> Result<Box<str>, String> {
    let text = object.get(name).and_then(Value::as_str).ok_or_else(|| format!("`{name}` is missing, or no text"))?;
    let plain = text.len() <= MAX_MARK && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if plain { Ok(text.into()) } else { Err(format!("`{name}` is not at most {MAX_MARK} printable ASCII characters")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_stream(text: &str, expected: Result<&str, &str>) {
        let read = stream_line(text.as_bytes()).map(|line| match line {
            StreamLine::Heartbeat(revision) => format!("heartbeat {revision}"),
            StreamLine::Change(Change { revision, digest, more, what }) => {
                let what = match what {
                    What::Row(Row::Key(key)) => format!("key {:?} {}", key.id, key.row.is_some()),
                    What::Row(Row::Owner(owner)) => format!("owner {:?} {}", owner.id, owner.row.is_some()),
                    What::DeletedKey(id) => format!("deleted {id}"),
                    What::DeletedOwner(id) => format!("deleted owner {id}"),
                };
                format!("{revision} {digest} {more} {what}")
            }
        });
        match (&read, expected) {
            (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
            _ => assert_eq!(read.as_deref().map_err(String::as_str), expected, "{text}"),
        }
    }

    #[test]
    fn each_line_says_one_thing() {
        check_stream(r#"{"heartbeat":46}"#, Ok("heartbeat 46"));
        check_stream(r#"{"revision":44,"digest":"d","deleted_key":"key_1"}"#, Ok("44 d false deleted key_1"));
        check_stream(
            r#"{"revision":44,"digest":"d","deleted_owner":"o","more":true}"#,
            Ok("44 d true deleted owner o"),
        );
        check_stream(
            r#"{"revision":1,"digest":"","owner":{"id":"o"},"new":1}"#,
            Ok(r#"1  false owner Some("o") true"#),
        );
        check_stream(r#"{"revision":1,"digest":"","key":{"id":"k"}}"#, Ok(r#"1  false key Some("k") false"#));
    }

    #[test]
    fn what_says_nothing_or_two_things_is_no_line() {
        check_stream("", Err("no JSON object"));
        check_stream("[]", Err("no JSON object"));
        check_stream("<html>", Err("no JSON object"));
        check_stream("{}", Err("`revision` is missing"));
        check_stream(r#"{"heartbeat":-1}"#, Err("`heartbeat` is missing, or no number"));
        check_stream(r#"{"revision":1}"#, Err("`digest`"));
        check_stream(r#"{"revision":1,"digest":"\u0007"}"#, Err("printable"));
        check_stream(r#"{"revision":1,"digest":""}"#, Err("a change of nothing"));
        check_stream(r#"{"revision":1,"digest":"","deleted_key":"a","deleted_owner":"b"}"#, Err("more than one thing"));
        check_stream(r#"{"revision":1,"digest":"","deleted_key":"a b"}"#, Err("`deleted_key`"));
        check_stream(r#"{"revision":1,"digest":"","deleted_key":7}"#, Err("no text"));
        check_stream(r#"{"revision":1,"digest":"","more":1,"deleted_key":"a"}"#, Err("`more`"));
        assert!(set_line(br#"{"end":false,"owners":0,"keys":0}"#).unwrap_err().contains("`end`"));
        assert!(set_line(br#"{"epoch":"","revision":0,"digest":""}"#).unwrap_err().contains("empty"));
        assert!(set_line(br#"{"owner":{},"key":{}}"#).unwrap_err().contains("one line"));
    }
}
