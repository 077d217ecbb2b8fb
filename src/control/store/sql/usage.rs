//! Use, added up.

use std::collections::{BTreeMap, HashMap};

use super::{
    super::{
        Refusal,
        engine::{ROWS_AT_ONCE, Tx, Value, places},
    },
    Added, Claim, Day, KeyId, StoreError, Usage, Used,
    read::{parse, parse_or_none, wall, wall_or_none},
    sidecars::bound,
};

/// How many reasons of refusals are kept for a key.
const REASONS: i64 = 8;

/// The most that one report may add to one count: beyond it somebody lies, and a sum must not overflow.
const MOST: u64 = 1_000_000_000_000;

/// The most that a day of a key may come to, so that those of a million keys can be added up.
const MOST_OF_A_DAY: i64 = 9_000_000_000_000;

/// How far the number of a report may be ahead of the last one: some months of reports. The first may have any.
const AHEAD: u64 = 10_000_000;

/// Adds a report, if its number is new.
pub(super) async fn used(tx: &mut Tx, claim: &Claim, seq: u64, day: i64, used: &[Used]) -> Result<Added, StoreError> {
    let last = match bound(tx, claim).await? {
        None => return Ok(Added::Unknown),
        Some((false, _)) => return Ok(Added::NotTheirs),
        Some((true, last)) => last,
    };
    if last > 0 && seq > last.saturating_add(AHEAD) {
        return Ok(Added::Ahead);
    }
    let note = "UPDATE instances SET seq = $2, day = $3 WHERE instance = $1 AND seq < $2";
    if tx.execute(note, vec![claim.instance.as_str().into(), seq.into(), day.into()]).await? == 0 {
        return Ok(Added::Before);
    }
    // Each key once, and always in the same order, so that two reports do not wait for each other.
    let mut sums = BTreeMap::<&KeyId, Usage>::new();
    for used in used {
        merge(sums.entry(&used.key).or_default(), &used.usage);
    }
    let sums: Vec<_> = sums.into_iter().collect();
    if sums.is_empty() {
        return Ok(Added::Now);
    }
    let mark = if tx.is_sqlite() {
        tx.execute("UPDATE marks SET newest = newest + 1", vec![]).await?;
        tx.count("SELECT newest FROM marks").await?
    } else {
        tx.count("SELECT pg_current_xact_id()::text::bigint").await?
    };
    for some in sums.chunks(ROWS_AT_ONCE) {
        add_usage(tx, some, mark).await?;
    }
    for (key, usage) in &sums {
        add_refusals(tx, key, &usage.refusals).await?;
    }
    for some in sums.chunks(ROWS_AT_ONCE) {
        add_day(tx, some, day).await?;
    }
    Ok(Added::Now)
}

fn merge(sum: &mut Usage, more: &Usage) {
    if more.last_used_at > sum.last_used_at {
        (sum.last_used_at, sum.last_ip) = (more.last_used_at, more.last_ip);
    }
    sum.allowed = sum.allowed.saturating_add(more.allowed).min(MOST);
    sum.refused = sum.refused.saturating_add(more.refused).min(MOST);
    for refusal in &more.refusals {
        match sum.refusals.iter_mut().find(|known| known.reason == refusal.reason) {
            None => sum.refusals.push(Refusal { count: refusal.count.min(MOST), ..refusal.clone() }),
            Some(known) => {
                let count = known.count.saturating_add(refusal.count).min(MOST);
                if refusal.at > known.at {
                    known.clone_from(refusal);
                }
                known.count = count;
            }
        }
    }
}

/// `column` of `table`, and what is to be added: never more than `most`.
fn sum(table: &str, column: &str, most: i64) -> String {
    format!(
        "{column} = CASE WHEN {table}.{column} > {most} - excluded.{column} THEN {most} \
         ELSE {table}.{column} + excluded.{column} END"
    )
}

async fn add_usage(tx: &mut Tx, some: &[(&KeyId, Usage)], mark: u64) -> Result<(), StoreError> {
    let newer = "usage.last_used_at IS NULL OR excluded.last_used_at > usage.last_used_at";
    let statement = format!(
        "INSERT INTO usage (key, last_used_at, last_ip, allowed, refused, mark) VALUES {} ON CONFLICT (key) DO UPDATE SET \
         last_used_at = CASE WHEN {newer} THEN excluded.last_used_at ELSE usage.last_used_at END, \
         last_ip = CASE WHEN {newer} THEN excluded.last_ip ELSE usage.last_ip END, \
         {}, {}, mark = excluded.mark",
        places(some.len(), 6),
        sum("usage", "allowed", i64::MAX),
        sum("usage", "refused", i64::MAX),
    );
    let values = some.iter().flat_map(|(key, usage)| -> [Value; 6] {
        [
            key.as_str().into(),
            usage.last_used_at.map(|at| at.unix_millis()).into(),
            usage.last_ip.map(|ip| ip.to_string()).into(),
            usage.allowed.into(),
            usage.refused.into(),
            mark.into(),
        ]
    });
    tx.execute(statement, values.collect()).await.map(drop)
}

async fn add_refusals(tx: &mut Tx, key: &KeyId, refusals: &[Refusal]) -> Result<(), StoreError> {
    for some in refusals.chunks(ROWS_AT_ONCE) {
        let statement = format!(
            "INSERT INTO refusals (key, reason, at, address, count) VALUES {} ON CONFLICT (key, reason) DO UPDATE SET \
             at = CASE WHEN excluded.at > refusals.at THEN excluded.at ELSE refusals.at END, \
             address = CASE WHEN excluded.at > refusals.at THEN excluded.address ELSE refusals.address END, {}",
            places(some.len(), 5),
            sum("refusals", "count", i64::MAX),
        );
        let values = some.iter().flat_map(|refusal| -> [Value; 5] {
            [
                key.as_str().into(),
                refusal.reason.as_str().into(),
                refusal.at.unix_millis().into(),
                refusal.ip.map(|ip| ip.to_string()).into(),
                refusal.count.into(),
            ]
        });
        tx.execute(statement, values.collect()).await?;
    }
    if !refusals.is_empty() {
        let old = "DELETE FROM refusals WHERE key = $1 AND reason NOT IN \
                   (SELECT reason FROM refusals WHERE key = $1 ORDER BY at DESC, reason LIMIT $2)";
        tx.execute(old, vec![key.as_str().into(), REASONS.into()]).await?;
    }
    Ok(())
}

async fn add_day(tx: &mut Tx, some: &[(&KeyId, Usage)], day: i64) -> Result<(), StoreError> {
    let statement = format!(
        "INSERT INTO days (key, day, allowed, refused) VALUES {} ON CONFLICT (key, day) DO UPDATE SET {}, {}",
        places(some.len(), 4),
        sum("days", "allowed", MOST_OF_A_DAY),
        sum("days", "refused", MOST_OF_A_DAY),
    );
    let values = some.iter().flat_map(|(key, usage)| -> [Value; 4] {
        [key.as_str().into(), day.into(), usage.allowed.into(), usage.refused.into()]
    });
    tx.execute(statement, values.collect()).await.map(drop)
}

/// What was written since a mark, and the next mark.
pub(super) async fn since(tx: &mut Tx, mark: i64) -> Result<(Vec<(KeyId, Usage)>, i64), StoreError> {
    // The mark is read in the same state as the rows. On PostgreSQL it is the oldest transaction that was still under
    // way: rows of those before it are seen, and those of later ones come again.
    let (newest, from) = if tx.is_sqlite() {
        ("SELECT newest + 1 FROM marks", mark)
    } else {
        ("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint", mark)
    };
    let next = tx.fetch_one(newest, vec![]).await?;
    let next = next.ok_or_else(|| StoreError::Damaged("the mark of use is not there".to_owned()))?.int(0)?;
    let find = "SELECT key, last_used_at, last_ip, allowed, refused FROM usage WHERE mark >= $1 ORDER BY key";
    let mut found = Vec::new();
    let mut places = HashMap::new();
    for row in tx.fetch(find, vec![from.into()]).await? {
        let id = row.text(0)?;
        let whose = format!("the use of {id}");
        let usage = Usage {
            last_used_at: wall_or_none(&row, 1)?,
            last_ip: parse_or_none(&row, 2, &whose)?,
            allowed: row.count(3)?,
            refused: row.count(4)?,
            refusals: Vec::new(),
        };
        let key = parse(&id, &whose)?;
        places.insert(id, found.len());
        found.push((key, usage));
    }
    let find = "SELECT refusals.key, reason, at, address, count FROM refusals JOIN usage ON usage.key = refusals.key \
                WHERE usage.mark >= $1 ORDER BY refusals.key, at DESC, reason";
    for row in tx.fetch(find, vec![from.into()]).await? {
        let key = row.text(0)?;
        let Some(place) = places.get(&key) else { continue };
        let ip = parse_or_none(&row, 3, format_args!("the use of {key}"))?;
        found[*place].1.refusals.push(Refusal { reason: row.text(1)?, at: wall(&row, 2)?, ip, count: row.count(4)? });
    }
    Ok((found, next))
}

/// The use of a key, day by day.
pub(super) async fn days(tx: &mut Tx, key: &KeyId, since: i64) -> Result<Vec<Day>, StoreError> {
    let find = "SELECT day, allowed, refused FROM days WHERE key = $1 AND day >= $2 ORDER BY day";
    read_days(tx, find, vec![key.as_str().into(), since.into()]).await
}

/// The use of all keys together, day by day.
pub(super) async fn days_of_all(tx: &mut Tx, since: i64) -> Result<Vec<Day>, StoreError> {
    let find = "SELECT day, CAST(SUM(allowed) AS BIGINT), CAST(SUM(refused) AS BIGINT) FROM days WHERE day >= $1 \
                GROUP BY day ORDER BY day";
    read_days(tx, find, vec![since.into()]).await
}

async fn read_days(tx: &mut Tx, find: &'static str, values: Vec<Value>) -> Result<Vec<Day>, StoreError> {
    let rows = tx.fetch(find, values).await?;
    rows.iter().map(|row| Ok(Day { day: row.int(0)?, allowed: row.count(1)?, refused: row.count(2)? })).collect()
}

/// Forgets days of long ago, and the use of keys that are gone.
pub(super) async fn sweep(tx: &mut Tx, day: i64) -> Result<(), StoreError> {
    tx.execute("DELETE FROM days WHERE day < $1", vec![day.into()]).await?;
    for table in ["usage", "refusals", "days"] {
        let gone = format!("DELETE FROM {table} WHERE NOT EXISTS (SELECT 1 FROM keys WHERE keys.id = {table}.key)");
        tx.execute(gone, vec![]).await?;
    }
    Ok(())
}
