//! Sidecars, as they were heard.

use super::{
    super::engine::{ROWS_AT_ONCE, Tx, Value, places},
    Sidecar, StoreError, Wall,
    read::{parse_or_none, wall},
    tell,
};

/// All sidecars.
pub(super) async fn all(tx: &mut Tx) -> Result<Vec<Sidecar>, StoreError> {
    let all = "SELECT instance, address, first_seen, last_seen, confirmed_at, max_stale, max_stale_write, \
               revision, durable, goodbye, COALESCE((SELECT seq FROM reports WHERE reports.instance = sidecars.instance), 0) \
               FROM sidecars ORDER BY instance";
    let rows = tx.fetch(all, vec![]).await?;
    let read = rows.iter().map(|row| {
        let instance = row.text(0)?;
        Ok(Sidecar {
            address: parse_or_none(row, 1, format_args!("the sidecar {instance}"))?,
            instance,
            first_seen: wall(row, 2)?,
            last_seen: wall(row, 3)?,
            confirmed_at: wall(row, 4)?,
            max_stale: row.count(5)?,
            max_stale_write: row.count(6)?,
            revision: row.count(7)?,
            durable: row.int(8)? != 0,
            goodbye: row.int(9)? != 0,
            seq: row.count(10)?,
        })
    });
    read.collect()
}

const COLUMNS: usize = 10;

/// What is newer wins, column by column, in whatever order it comes.
const MERGE: &str = "ON CONFLICT (instance) DO UPDATE SET \
     address = CASE WHEN excluded.last_seen >= sidecars.last_seen THEN excluded.address ELSE sidecars.address END, \
     first_seen = CASE WHEN excluded.first_seen < sidecars.first_seen THEN excluded.first_seen ELSE sidecars.first_seen END, \
     last_seen = CASE WHEN excluded.last_seen > sidecars.last_seen THEN excluded.last_seen ELSE sidecars.last_seen END, \
     confirmed_at = CASE WHEN excluded.confirmed_at > sidecars.confirmed_at THEN excluded.confirmed_at \
       ELSE sidecars.confirmed_at END, \
     max_stale = CASE WHEN excluded.last_seen > sidecars.last_seen OR (excluded.last_seen = sidecars.last_seen \
       AND excluded.max_stale > sidecars.max_stale) THEN excluded.max_stale ELSE sidecars.max_stale END, \
     max_stale_write = CASE WHEN excluded.last_seen > sidecars.last_seen OR (excluded.last_seen = sidecars.last_seen \
       AND excluded.max_stale_write > sidecars.max_stale_write) THEN excluded.max_stale_write \
       ELSE sidecars.max_stale_write END, \
     revision = CASE WHEN excluded.revision > sidecars.revision THEN excluded.revision ELSE sidecars.revision END, \
     durable = CASE WHEN excluded.revision > sidecars.revision OR (excluded.revision = sidecars.revision \
       AND excluded.durable > sidecars.durable) THEN excluded.durable ELSE sidecars.durable END, \
     goodbye = CASE WHEN excluded.last_seen > sidecars.last_seen OR (excluded.last_seen = sidecars.last_seen \
       AND excluded.goodbye > sidecars.goodbye) THEN excluded.goodbye ELSE sidecars.goodbye END";

/// Notes what was heard.
pub(super) async fn heard(tx: &mut Tx, sidecars: &[Sidecar], me: &str) -> Result<(), StoreError> {
    // Always in the same order, so that two control planes do not wait for each other.
    let mut sidecars: Vec<_> = sidecars.iter().collect();
    sidecars.sort_by(|one, other| one.instance.cmp(&other.instance));
    let mut rest = &sidecars[..];
    while !rest.is_empty() {
        // No statement may name a row twice.
        let twice = rest.windows(2).position(|pair| pair[0].instance == pair[1].instance);
        let (some, others) = rest.split_at(twice.map_or(rest.len(), |at| at + 1).min(ROWS_AT_ONCE));
        rest = others;
        let add = "INSERT INTO sidecars (instance, address, first_seen, last_seen, confirmed_at, max_stale, \
                   max_stale_write, revision, durable, goodbye)";
        let values = some.iter().flat_map(|sidecar| values(sidecar)).collect();
        tx.execute(format!("{add} VALUES {} {MERGE}", places(some.len(), COLUMNS)), values).await?;
    }
    tell(tx, me).await
}

fn values(sidecar: &Sidecar) -> [Value; COLUMNS] {
    [
        sidecar.instance.as_str().into(),
        sidecar.address.map(|address| address.to_string()).into(),
        sidecar.first_seen.unix_millis().into(),
        sidecar.last_seen.unix_millis().into(),
        sidecar.confirmed_at.unix_millis().into(),
        sidecar.max_stale.into(),
        sidecar.max_stale_write.into(),
        sidecar.revision.into(),
        sidecar.durable.into(),
        sidecar.goodbye.into(),
    ]
}

/// Forgets a sidecar. The number of its last report stays: what comes late is counted once.
pub(super) async fn forget(tx: &mut Tx, instance: String, me: &str) -> Result<bool, StoreError> {
    let was_there = tx.execute("DELETE FROM sidecars WHERE instance = $1", vec![instance.into()]).await? > 0;
    tell(tx, me).await?;
    Ok(was_there)
}

/// Forgets sidecars that are long gone, and what they reported last.
pub(super) async fn sweep(tx: &mut Tx, confirmed: Wall, day: i64) -> Result<(), StoreError> {
    tx.execute("DELETE FROM sidecars WHERE confirmed_at < $1", vec![confirmed.unix_millis().into()]).await?;
    let gone = "DELETE FROM reports WHERE day < $1 \
                AND NOT EXISTS (SELECT 1 FROM sidecars WHERE sidecars.instance = reports.instance)";
    tx.execute(gone, vec![day.into()]).await.map(drop)
}
