//! What was committed: the head, the rows, the changes, the audit log.

use super::{
    super::{
        RESTORE, RESTORES,
        engine::{Row, Tx, Value},
    },
    AuditFilter, Caught, Entry, Head, KeyId, Loaded, OwnerId, Remembered, StoreError, Wall, accounts,
    read::{damaged, json_of, key, owner, parse, parse_or_none, revision, wall},
};

/// Where the history stands.
pub(super) async fn head(tx: &mut Tx) -> Result<Head, StoreError> {
    let row = tx.fetch_one("SELECT epoch, revision, digest, entries, hash FROM head", vec![]).await?;
    let row = row.ok_or_else(|| damaged("the head", "it is not there"))?;
    Ok(Head {
        epoch: row.text(0)?,
        revision: row.count(1)?,
        digest: row.text(2)?,
        entries: row.count(3)?,
        hash: row.text(4)?,
    })
}

/// Everything that is judged by.
pub(super) async fn load(tx: &mut Tx) -> Result<Loaded, StoreError> {
    // First everything is fetched: a server ends a session that is idle while much is read here.
    let head = head(tx).await?;
    let owners = tx.fetch("SELECT id, document FROM owners ORDER BY id", vec![]).await?;
    let keys = tx.fetch("SELECT id, document FROM keys ORDER BY id", vec![]).await?;
    let operators = accounts::operators(tx).await?;
    let revisions = tx.fetch("SELECT revision, digest, at, lines FROM changes ORDER BY revision", vec![]).await?;
    let restored = tx.fetch_one("SELECT MAX(at) FROM audit WHERE action = $1", vec![RESTORE.into()]).await?;
    let restored_at = restored.map(|row| row.int_or_none(0)).transpose()?.flatten().map(Wall::from_unix_millis);
    let owners = owners.iter().map(|row| {
        let whose = format!("the owner {}", row.text(0)?);
        let owner = owner(&json_of(&row.text(1)?, &whose)?, &whose)?;
        if owner.id == parse::<OwnerId>(&row.text(0)?, &whose)? { Ok(owner) } else { Err(damaged(whose, "another id")) }
    });
    let owners = owners.collect::<Result<_, StoreError>>()?;
    let keys = keys.iter().map(|row| {
        let whose = format!("the key {}", row.text(0)?);
        let key = key(&json_of(&row.text(1)?, &whose)?, &whose)?;
        if key.id == parse::<KeyId>(&row.text(0)?, &whose)? { Ok(key) } else { Err(damaged(whose, "another id")) }
    });
    let keys = keys.collect::<Result<_, StoreError>>()?;
    let revisions = revisions.iter().map(revision).collect::<Result<Vec<_>, _>>()?;
    let mut next = head.revision.saturating_sub(revisions.len() as u64);
    for found in &revisions {
        next += 1;
        if found.revision != next {
            return Err(damaged("the changes", format_args!("revision {next} is not there")));
        }
    }
    let fits = revisions.last().map_or(head.revision == 0, |last| last.digest == head.digest);
    if !fits {
        return Err(damaged("the changes", "the last one is not the one that the head names"));
    }
    Ok(Loaded { head, owners, keys, operators, revisions, restored_at })
}

/// What was written since a head.
pub(super) async fn catch_up(tx: &mut Tx, since: &Head) -> Result<Caught, StoreError> {
    let head = head(tx).await?;
    let operators = accounts::operators(tx).await?;
    let same = head.epoch == since.epoch && head.revision >= since.revision && holds(tx, since).await?;
    let (follows, revisions) = if !same {
        (false, None)
    } else if head.revision == since.revision {
        let same = head.digest == since.digest;
        (same, same.then(Vec::new))
    } else {
        // From the one that is known: another digest there tells that this is another history.
        let from = "SELECT revision, digest, at, lines FROM changes WHERE revision >= $1 ORDER BY revision";
        let rows = tx.fetch(from, vec![since.revision.into()]).await?;
        let mut revisions = rows.iter().map(revision).collect::<Result<Vec<_>, _>>()?;
        let known = revisions.first().is_some_and(|first| first.revision == since.revision);
        let known = known.then(|| revisions.remove(0));
        let same = known.is_none_or(|known| known.digest == since.digest);
        let whole = revisions.iter().map(|revision| revision.revision).eq(since.revision + 1..=head.revision);
        (same, (same && whole).then_some(revisions))
    };
    Ok(Caught { head, follows, revisions, operators })
}

/// Refuses where the store has lost the head that somebody holds, or is another one.
pub(super) async fn must_hold(tx: &mut Tx, held: &Head) -> Result<(), StoreError> {
    let found = head(tx).await?;
    if found.epoch != held.epoch {
        let begun = AuditFilter { action: Some(RESTORE.to_owned()), limit: RESTORES, ..AuditFilter::default() };
        let begun = audit(tx, &begun).await?;
        return match begun.iter().any(|entry| entry.detail["epoch"] == held.epoch) {
            true => Ok(()),
            false => Err(StoreError::Another(format!(
                "it holds the history {}, which was not begun from the one that is served, {}",
                found.epoch, held.epoch
            ))),
        };
    }
    if holds(tx, held).await? {
        return Ok(());
    }
    let (entries, held) = (found.entries, held.entries);
    Err(StoreError::Astray(format!(
        "it ends with audit entry {entries}, and does not hold entry {held}, which was written to it"
    )))
}

/// Whether this head was once the head of what is there: every commit adds an entry to the hash chain.
async fn holds(tx: &mut Tx, head: &Head) -> Result<bool, StoreError> {
    if head.entries == 0 {
        return Ok(true);
    }
    let found = tx.fetch_one("SELECT hash FROM audit WHERE seq = $1", vec![head.entries.into()]).await?;
    Ok(found.map(|row| row.text(0)).transpose()?.as_ref() == Some(&head.hash))
}

const ENTRY: &str = "SELECT seq, at, actor, address, action, subject, detail, revision, hash FROM audit";

fn entry(row: &Row) -> Result<Entry, StoreError> {
    let seq = row.count(0)?;
    let whose = format!("the audit entry {seq}");
    let revision = row.int_or_none(7)?.map(u64::try_from).transpose().map_err(|why| damaged(&whose, why))?;
    Ok(Entry {
        seq,
        at: wall(row, 1)?,
        actor: row.text(2)?,
        from: parse_or_none(row, 3, &whose)?,
        action: row.text(4)?,
        subject: row.text(5)?,
        detail: json_of(&row.text(6)?, &whose)?,
        revision,
        hash: row.text(8)?,
    })
}

/// Audit entries, the newest first.
pub(super) async fn audit(tx: &mut Tx, filter: &AuditFilter) -> Result<Vec<Entry>, StoreError> {
    let (mut values, mut conditions) = (Vec::<Value>::new(), Vec::new());
    let mut only = |condition: &str, value: Value| {
        values.push(value);
        conditions.push(condition.replace('?', &format!("${}", values.len())));
    };
    if let Some(before) = filter.before {
        only("seq < ?", before.into());
    }
    if let Some(actor) = &filter.actor {
        only("actor = ?", actor.as_str().into());
    }
    if let Some(action) = &filter.action {
        // The slash comes next after the dot.
        only("(action = ? OR (action > ? || '.' AND action < ? || '/'))", action.as_str().into());
    }
    if let Some(subject) = &filter.subject {
        only("subject = ?", subject.as_str().into());
    }
    values.push(i64::from(filter.limit).into());
    let conditions = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    let statement = format!("{ENTRY}{conditions} ORDER BY seq DESC LIMIT ${}", values.len());
    tx.fetch(statement, values).await?.iter().map(entry).collect()
}

/// Audit entries, the oldest first.
pub(super) async fn audit_from(tx: &mut Tx, seq: u64, limit: u32) -> Result<Vec<Entry>, StoreError> {
    let statement = format!("{ENTRY} WHERE seq >= $1 ORDER BY seq LIMIT $2");
    tx.fetch(statement, vec![seq.into(), i64::from(limit).into()]).await?.iter().map(entry).collect()
}

/// What a create came to.
pub(super) async fn remembered(tx: &mut Tx, key: String) -> Result<Option<Remembered>, StoreError> {
    let row = tx.fetch_one("SELECT key, request, made, at FROM remembered WHERE key = $1", vec![key.into()]).await?;
    let read = |row: Row| {
        let made = parse(&row.text(2)?, "a create that is remembered")?;
        Ok(Remembered { key: row.text(0)?, request: row.text(1)?, made, at: wall(&row, 3)? })
    };
    row.map(read).transpose()
}
