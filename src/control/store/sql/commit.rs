//! Writes a commit.

use std::collections::HashSet;

use super::{
    super::{
        AccountChange, Change,
        engine::{ROWS_AT_ONCE, Tx, Value, places},
    },
    Commit, Entry, Head, StoreError, accounts, read, sidecars,
    skew::Skew,
    tell,
};
use crate::keys::document::json;

/// How many revisions more than are kept there may be, so that not every commit has to look for old ones.
const SLACK: u64 = 64;

/// The changes of a commit as they are written.
pub(super) struct Texts {
    /// Those of its revision.
    lines: String,
    /// A statement's values for each run of changes that one statement can write.
    values: Vec<Vec<Value>>,
}

impl Texts {
    /// What this commit changes.
    pub(super) fn of(commit: &Commit) -> Self {
        let values = together(&commit.changes).map(|some| some.iter().flat_map(values).collect());
        Self { lines: read::lines(&commit.changes), values: values.collect() }
    }
}

/// Writes all of it. What fails is undone by whoever began the transaction.
pub(super) async fn commit(
    tx: &mut Tx,
    commit: &Commit,
    texts: Texts,
    me: &str,
    kept: u64,
    skew: &Skew,
) -> Result<(), StoreError> {
    move_head(tx, &commit.before, &commit.after).await?;
    if commit.after.epoch != commit.before.epoch {
        sidecars::confirmed(tx, commit.entry.at, skew).await?;
    }
    if !commit.changes.is_empty() {
        for (some, values) in together(&commit.changes).zip(texts.values) {
            rows(tx, some, values).await?;
        }
        let revision = commit.after.revision;
        let values = vec![
            revision.into(),
            commit.after.digest.as_str().into(),
            commit.entry.at.unix_millis().into(),
            texts.lines.into(),
        ];
        tx.execute("INSERT INTO changes (revision, digest, at, lines) VALUES ($1, $2, $3, $4)", values).await?;
        if revision.is_multiple_of(SLACK) {
            tx.execute("DELETE FROM changes WHERE revision <= $1", vec![revision.saturating_sub(kept).into()]).await?;
        }
    }
    for change in &commit.accounts {
        match change {
            AccountChange::Operator(operator) => accounts::set_operator(tx, operator).await?,
            AccountChange::DeletedOperator(name) => accounts::delete_operator(tx, name).await?,
        }
    }
    write_entry(tx, &commit.entry).await?;
    if let Some(remembered) = &commit.remembered {
        let values = vec![
            remembered.key.as_str().into(),
            remembered.request.as_str().into(),
            remembered.made.as_str().into(),
            remembered.at.unix_millis().into(),
        ];
        // One that is there still was judged too old to count.
        let statement = "INSERT INTO remembered (key, request, made, at) VALUES ($1, $2, $3, $4) \
                         ON CONFLICT (key) DO UPDATE SET request = excluded.request, made = excluded.made, at = excluded.at";
        tx.execute(statement, values).await?;
    }
    tell(tx, me).await
}

/// First, so that of two who were judged by the same head one waits for the other, and then is refused.
async fn move_head(tx: &mut Tx, before: &Head, after: &Head) -> Result<(), StoreError> {
    let statement = "UPDATE head SET epoch = $10, revision = $1, digest = $2, entries = $3, hash = $4 \
                     WHERE epoch = $5 AND revision = $6 AND digest = $7 AND entries = $8 AND hash = $9";
    let values = vec![
        after.revision.into(),
        after.digest.as_str().into(),
        after.entries.into(),
        after.hash.as_str().into(),
        before.epoch.as_str().into(),
        before.revision.into(),
        before.digest.as_str().into(),
        before.entries.into(),
        before.hash.as_str().into(),
        after.epoch.as_str().into(),
    ];
    match tx.execute(statement, values).await? {
        0 => Err(StoreError::Conflict),
        _ => Ok(()),
    }
}

/// Neighbours of the same kind, none of them twice: what one statement can write.
fn together(changes: &[Change]) -> impl Iterator<Item = &[Change]> {
    let mut rest = changes;
    std::iter::from_fn(move || {
        let kind = std::mem::discriminant(rest.first()?);
        let mut names = HashSet::new();
        let mut length = 0;
        for change in rest.iter().take(ROWS_AT_ONCE) {
            if std::mem::discriminant(change) != kind || !names.insert(name(change)) {
                break;
            }
            length += 1;
        }
        let (some, others) = rest.split_at(length);
        rest = others;
        Some(some)
    })
}

fn name(change: &Change) -> &str {
    match change {
        Change::Key(row) => row.id.as_str(),
        Change::DeletedKey(id) => id.as_str(),
        Change::Owner(row) => row.id.as_str(),
        Change::DeletedOwner(id) => id.as_str(),
    }
}

fn values(change: &Change) -> Vec<Value> {
    let name = name(change).into();
    match change {
        Change::Key(row) => vec![name, json::write_key(row).to_string().into()],
        Change::Owner(row) => vec![name, json::write_owner(row).to_string().into()],
        Change::DeletedKey(_) | Change::DeletedOwner(_) => vec![name],
    }
}

/// Writes changes of one kind.
async fn rows(tx: &mut Tx, changes: &[Change], values: Vec<Value>) -> Result<(), StoreError> {
    let set = |table: &str| {
        let places = places(changes.len(), 2);
        format!(
            "INSERT INTO {table} (id, document) VALUES {places} ON CONFLICT (id) DO UPDATE SET document = excluded.document"
        )
    };
    let removed = |table: &str, column: &str| {
        let ids: Vec<_> = (1..=changes.len()).map(|place| format!("${place}")).collect();
        format!("DELETE FROM {table} WHERE {column} IN ({})", ids.join(", "))
    };
    match changes.first() {
        Some(Change::Key(_)) => drop(tx.execute(set("keys"), values).await?),
        Some(Change::Owner(_)) => drop(tx.execute(set("owners"), values).await?),
        Some(Change::DeletedOwner(_)) => drop(tx.execute(removed("owners", "id"), values).await?),
        Some(Change::DeletedKey(_)) => {
            for (table, column) in [("keys", "id"), ("usage", "key"), ("refusals", "key"), ("days", "key")] {
                tx.execute(removed(table, column), values.clone()).await?;
            }
        }
        None => {}
    }
    Ok(())
}

async fn write_entry(tx: &mut Tx, entry: &Entry) -> Result<(), StoreError> {
    let statement = "INSERT INTO audit (seq, at, actor, address, action, subject, detail, revision, hash) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let values = vec![
        entry.seq.into(),
        entry.at.unix_millis().into(),
        entry.actor.as_str().into(),
        entry.from.map(|address| address.to_string()).into(),
        entry.action.as_str().into(),
        entry.subject.as_str().into(),
        entry.detail.to_string().into(),
        Value::Int(entry.revision.map(|revision| i64::try_from(revision).unwrap_or(i64::MAX))),
        entry.hash.as_str().into(),
    ];
    tx.execute(statement, values).await.map(drop)
}
