//! Sidecars, as they were heard.

use std::collections::HashSet;

use super::{
    super::{
        TOLD,
        engine::{ROWS_AT_ONCE, Tx, Value, places},
    },
    Claim, Sidecar, StoreError, Wall,
    read::{parse_or_none, wall},
    skew::Skew,
    tell,
};

/// All sidecars.
pub(super) async fn all(tx: &mut Tx, skew: &Skew) -> Result<Vec<Sidecar>, StoreError> {
    skew.measure(tx).await?;
    let all = "SELECT sidecars.instance, address, first_seen, last_seen, confirmed_at, max_stale, max_stale_write, \
               revision, durable, goodbye, COALESCE(seq, 0), COALESCE(bound, ''), COALESCE(credential, ''), epoch \
               FROM sidecars LEFT JOIN instances ON instances.instance = sidecars.instance ORDER BY sidecars.instance";
    let rows = tx.fetch(all, vec![]).await?;
    let read = rows.iter().map(|row| {
        let instance = row.text(0)?;
        Ok(skew.judged(Sidecar {
            address: parse_or_none(row, 1, format_args!("the sidecar {instance}"))?,
            claim: Claim { instance, bound: row.text(11)?, credential: row.text(12)? },
            first_seen: wall(row, 2)?,
            last_seen: wall(row, 3)?,
            confirmed_at: wall(row, 4)?,
            max_stale: row.count(5)?,
            max_stale_write: row.count(6)?,
            epoch: row.text(13)?,
            revision: row.count(7)?,
            durable: row.int(8)? != 0,
            goodbye: row.int(9)? != 0,
            seq: row.count(10)?,
        }))
    });
    read.collect()
}

const COLUMNS: usize = 11;

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
     epoch = CASE WHEN excluded.epoch = (SELECT epoch FROM head) THEN excluded.epoch ELSE sidecars.epoch END, \
     revision = CASE WHEN excluded.epoch <> sidecars.epoch AND excluded.epoch = (SELECT epoch FROM head) THEN excluded.revision \
       WHEN excluded.epoch = sidecars.epoch AND excluded.revision > sidecars.revision THEN excluded.revision \
       ELSE sidecars.revision END, \
     durable = CASE WHEN excluded.epoch <> sidecars.epoch AND excluded.epoch = (SELECT epoch FROM head) THEN excluded.durable \
       WHEN excluded.epoch <> sidecars.epoch THEN sidecars.durable WHEN excluded.revision > sidecars.revision OR (excluded.revision = sidecars.revision \
       AND excluded.durable > sidecars.durable) THEN excluded.durable ELSE sidecars.durable END, \
     goodbye = CASE WHEN excluded.last_seen > sidecars.last_seen OR (excluded.last_seen = sidecars.last_seen \
       AND excluded.goodbye > sidecars.goodbye) THEN excluded.goodbye ELSE sidecars.goodbye END";

/// Binds a name to whoever is the first to register by it. False: it is bound to somebody else.
async fn bind(tx: &mut Tx, claim: &Claim, day: i64) -> Result<bool, StoreError> {
    let values =
        vec![claim.instance.as_str().into(), claim.bound.as_str().into(), claim.credential.as_str().into(), day.into()];
    let add = "INSERT INTO instances (instance, bound, credential, seq, day) VALUES ($1, $2, $3, 0, $4) \
               ON CONFLICT (instance) DO NOTHING";
    tx.execute(add, values).await?;
    Ok(bound(tx, claim).await?.is_some_and(|(theirs, _)| theirs))
}

/// Whether a name is bound to whoever claims it, and the number of its last report; none where nobody registered by it.
pub(super) async fn bound(tx: &mut Tx, claim: &Claim) -> Result<Option<(bool, u64)>, StoreError> {
    let find = "SELECT bound, seq FROM instances WHERE instance = $1";
    let found = tx.fetch_one(find, vec![claim.instance.as_str().into()]).await?;
    found.map(|row| Ok((row.text(0)? == claim.bound, row.count(1)?))).transpose()
}

/// Notes that there is this sidecar. False: its name is bound to somebody else.
pub(super) async fn register(tx: &mut Tx, sidecar: Sidecar, me: &str) -> Result<bool, StoreError> {
    let day = sidecar.last_seen.unix_seconds().div_euclid(86_400);
    if !bind(tx, &sidecar.claim, day).await? {
        return Ok(false);
    }
    write(tx, &[&sidecar]).await?;
    tell(tx, me).await.map(|()| true)
}

/// Notes what was heard of those that are registered.
pub(super) async fn heard(tx: &mut Tx, sidecars: &[Sidecar], me: &str) -> Result<(), StoreError> {
    let there = there(tx, sidecars).await?;
    let sidecars: Vec<_> = sidecars.iter().filter(|sidecar| there.contains(&sidecar.claim.instance)).collect();
    write(tx, &sidecars).await?;
    tell(tx, me).await
}

/// Which of them are registered. None of these is forgotten before the transaction ends.
async fn there(tx: &mut Tx, sidecars: &[Sidecar]) -> Result<HashSet<String>, StoreError> {
    let held = if tx.is_sqlite() { "" } else { " FOR UPDATE" };
    let mut names: Vec<_> = sidecars.iter().map(|sidecar| sidecar.claim.instance.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut there = HashSet::with_capacity(names.len());
    for some in names.chunks(ROWS_AT_ONCE) {
        let find = format!(
            "SELECT instance FROM sidecars WHERE instance IN {} ORDER BY instance{held}",
            places(1, some.len())
        );
        for row in tx.fetch(find, some.iter().map(|name| Value::from(*name)).collect()).await? {
            there.insert(row.text(0)?);
        }
    }
    Ok(there)
}

async fn write(tx: &mut Tx, sidecars: &[&Sidecar]) -> Result<(), StoreError> {
    // Always in the same order, so that two control planes do not wait for each other.
    let mut sidecars = sidecars.to_vec();
    sidecars.sort_by(|one, other| one.claim.instance.cmp(&other.claim.instance));
    let mut rest = &sidecars[..];
    while !rest.is_empty() {
        // No statement may name a row twice.
        let twice = rest.windows(2).position(|pair| pair[0].claim.instance == pair[1].claim.instance);
        let (some, others) = rest.split_at(twice.map_or(rest.len(), |at| at + 1).min(ROWS_AT_ONCE));
        rest = others;
        let add = "INSERT INTO sidecars (instance, address, first_seen, last_seen, confirmed_at, max_stale, \
                   max_stale_write, epoch, revision, durable, goodbye)";
        let values = some.iter().flat_map(|sidecar| values(sidecar)).collect();
        tx.execute(format!("{add} VALUES {} {MERGE}", places(some.len(), COLUMNS)), values).await?;
    }
    Ok(())
}

fn values(sidecar: &Sidecar) -> [Value; COLUMNS] {
    [
        sidecar.claim.instance.as_str().into(),
        sidecar.address.map(|address| address.to_string()).into(),
        sidecar.first_seen.unix_millis().into(),
        sidecar.last_seen.unix_millis().into(),
        sidecar.confirmed_at.unix_millis().into(),
        sidecar.max_stale.into(),
        sidecar.max_stale_write.into(),
        sidecar.epoch.as_str().into(),
        sidecar.revision.into(),
        sidecar.durable.into(),
        sidecar.goodbye.into(),
    ]
}

/// Forgets a sidecar. Who may speak for it stays, and the number of its last report: what comes late is counted once.
pub(super) async fn forget(tx: &mut Tx, instance: String, me: &str) -> Result<bool, StoreError> {
    let was_there = tx.execute("DELETE FROM sidecars WHERE instance = $1", vec![instance.into()]).await? > 0;
    tell(tx, me).await?;
    Ok(was_there)
}

/// Whoever has not said goodbye may have been told until now that its set is the newest.
pub(super) async fn confirmed(tx: &mut Tx, at: Wall, skew: &Skew) -> Result<(), StoreError> {
    skew.measure(tx).await?;
    let at = skew.kept_at(at.plus(TOLD)).unix_millis();
    let confirmed = "UPDATE sidecars SET confirmed_at = $1 WHERE goodbye = 0 AND confirmed_at < $1";
    tx.execute(confirmed, vec![at.into()]).await.map(drop)
}

/// Forgets sidecars that are long gone, and what they reported last.
pub(super) async fn sweep(tx: &mut Tx, confirmed: Wall, day: i64) -> Result<(), StoreError> {
    tx.execute("DELETE FROM sidecars WHERE confirmed_at < $1", vec![confirmed.unix_millis().into()]).await?;
    let gone = "DELETE FROM instances WHERE day < $1 \
                AND NOT EXISTS (SELECT 1 FROM sidecars WHERE sidecars.instance = instances.instance)";
    tx.execute(gone, vec![day.into()]).await.map(drop)
}
