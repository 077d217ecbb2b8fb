//! The tables, and how those of an older version become those of this one: in one transaction, or not at all.

use super::{
    StoreError,
    engine::{Care, Engine, Tx},
};
use crate::control::audit;

/// One step for each version of the schema: for SQLite, for PostgreSQL. What was released is never changed.
const STEPS: &[(&str, &str)] =
    &[(include_str!("migrations/sqlite/0001_first.sql"), include_str!("migrations/postgres/0001_first.sql"))];

/// The schema that this version writes.
pub(super) const KNOWN: i64 = STEPS.len() as i64;

/// Brings the tables to this version. Where there are none, they are made only if `create` says so.
pub(super) async fn migrate(engine: &Engine, create: bool) -> Result<(), StoreError> {
    let mut tx = engine.write(Care::Durable).await?;
    let done = steps(&mut tx, create).await;
    match done {
        Ok(()) => tx.commit().await,
        Err(why) => {
            tx.undo(Some(&why)).await;
            Err(why)
        }
    }
}

/// Does it in this transaction.
pub(super) async fn steps(tx: &mut Tx, create: bool) -> Result<(), StoreError> {
    let exists = if tx.is_sqlite() {
        "SELECT COUNT(*) FROM sqlite_schema WHERE name = 'schema_version'"
    } else {
        // Several control planes may begin at once.
        tx.execute("SELECT pg_advisory_xact_lock(1802725732)", vec![]).await?;
        "SELECT COUNT(to_regclass('keyside.schema_version'))"
    };
    let exists = tx.count(exists).await? > 0;
    let found = match exists {
        true => tx.fetch_one("SELECT version FROM schema_version", vec![]).await?.map(|row| row.int(0)).transpose()?,
        false => Some(0),
    };
    let found = found.ok_or_else(|| StoreError::Damaged("the version of the schema is missing".to_owned()))?;
    let known = KNOWN;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    if !exists && !create {
        let advice = "a new store is made only at the very first start; if there was one, restore it";
        return Err(StoreError::Unavailable(format!("there are no tables of Keyside: {advice}")));
    }
    if !exists {
        begin(tx).await?;
    }
    let after = usize::try_from(found).map_err(|_| StoreError::Damaged(format!("the schema has version {found}")))?;
    for (sqlite, postgres) in &STEPS[after..] {
        tx.script(if tx.is_sqlite() { sqlite } else { postgres }).await?;
    }
    if found < known {
        tx.execute("UPDATE schema_version SET version = $1", vec![known.into()]).await?;
    }
    if !exists {
        let head = "INSERT INTO head (id, epoch, revision, digest, entries, hash) VALUES (1, $1, 0, $2, 0, $2)";
        tx.execute(head, vec![random()?.into(), audit::BEGINNING.into()]).await?;
    }
    if !tx.is_sqlite() {
        // Numbers of transactions begin anew where a dump is restored.
        let old = "UPDATE usage SET mark = 0 WHERE mark > pg_current_xact_id()::text::bigint";
        tx.execute(old, vec![]).await?;
    }
    Ok(())
}

/// What there is before the first version.
async fn begin(tx: &mut Tx) -> Result<(), StoreError> {
    if tx.is_sqlite() {
        // "ksid": says what the file is.
        tx.script("PRAGMA application_id = 1802725732").await?;
    } else if tx.count("SELECT COUNT(to_regnamespace('keyside'))").await? == 0 {
        // Whoever may not make it finds it made by somebody who may.
        tx.script("CREATE SCHEMA keyside").await?;
    }
    tx.script("CREATE TABLE schema_version (version BIGINT NOT NULL)").await?;
    tx.execute("INSERT INTO schema_version (version) VALUES (0)", vec![]).await?;
    Ok(())
}

/// 128 random bits, in hexadecimal.
pub(in crate::control) fn random() -> Result<String, StoreError> {
    let mut bytes = [0; 16];
    let failed = |_| StoreError::Unavailable("the operating system gave no random bytes".to_owned());
    getrandom::fill(&mut bytes).map_err(failed)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
