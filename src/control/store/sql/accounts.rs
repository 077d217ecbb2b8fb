//! Operators, their tokens and sessions, and the link by which the first of them comes in.

use super::{
    super::{Operator, Token, engine::Tx},
    Session, StoreError, Wall,
    read::{parse, wall, wall_or_none},
};

/// Browsers of one operator that are known: those that were signed in with last.
const DEVICES: u64 = 50;

/// All operators, with their tokens.
pub(super) async fn operators(tx: &mut Tx) -> Result<Vec<Operator>, StoreError> {
    let rows = tx.fetch("SELECT name, role, password, created_at FROM operators ORDER BY name", vec![]).await?;
    let mut operators = Vec::with_capacity(rows.len());
    for row in &rows {
        let name = row.text(0)?;
        let role = parse(&row.text(1)?, format_args!("the operator {name}"))?;
        let (password, created_at) = (row.text_or_none(2)?, wall(row, 3)?);
        operators.push(Operator { name, role, password, created_at, tokens: Vec::new() });
    }
    let all = "SELECT operator, id, name, digest, created_at, expires_at FROM tokens ORDER BY operator, place";
    for row in tx.fetch(all, vec![]).await? {
        let owner = row.text(0)?;
        let token = Token {
            id: row.text(1)?,
            name: row.text(2)?,
            digest: row.text(3)?,
            created_at: wall(&row, 4)?,
            expires_at: wall_or_none(&row, 5)?,
        };
        if let Ok(at) = operators.binary_search_by(|operator| operator.name.cmp(&owner)) {
            operators[at].tokens.push(token);
        }
    }
    Ok(operators)
}

/// Adds or changes an operator. Sessions end when anything but tokens changes; their browsers are forgotten with a password.
pub(super) async fn set_operator(tx: &mut Tx, operator: &Operator) -> Result<(), StoreError> {
    let name = operator.name.as_str();
    let values = vec![name.into(), operator.role.as_str().into(), operator.password.clone().into()];
    if !tx.is_sqlite() {
        // Whoever is just beginning a session holds the row: that session is to be seen below.
        tx.execute("SELECT 1 FROM operators WHERE name = $1 FOR UPDATE", vec![name.into()]).await?;
    }
    let end = "DELETE FROM sessions WHERE operator = $1 AND NOT EXISTS (SELECT 1 FROM operators \
               WHERE name = $1 AND role = $2 AND password IS NOT DISTINCT FROM $3)";
    tx.execute(end, values.clone()).await?;
    let forget = "DELETE FROM devices WHERE operator = $1 AND NOT EXISTS (SELECT 1 FROM operators \
                  WHERE name = $1 AND password IS NOT DISTINCT FROM $2)";
    tx.execute(forget, vec![name.into(), operator.password.clone().into()]).await?;
    let set = "INSERT INTO operators (name, role, password, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT (name) \
               DO UPDATE SET role = excluded.role, password = excluded.password, created_at = excluded.created_at";
    tx.execute(set, [values, vec![operator.created_at.unix_millis().into()]].concat()).await?;
    tx.execute("DELETE FROM tokens WHERE operator = $1", vec![name.into()]).await?;
    for (place, token) in operator.tokens.iter().enumerate() {
        let add = "INSERT INTO tokens (id, operator, place, name, digest, created_at, expires_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let values = vec![
            token.id.as_str().into(),
            name.into(),
            (place as u64).into(),
            token.name.as_str().into(),
            token.digest.as_str().into(),
            token.created_at.unix_millis().into(),
            token.expires_at.map(Wall::unix_millis).into(),
        ];
        tx.execute(add, values).await?;
    }
    Ok(())
}

/// Removes an operator, with tokens and sessions.
pub(super) async fn delete_operator(tx: &mut Tx, name: &str) -> Result<(), StoreError> {
    tx.execute("DELETE FROM operators WHERE name = $1", vec![name.into()]).await.map(drop)
}

/// Sets the link.
pub(super) async fn set_setup(tx: &mut Tx, digest: String) -> Result<(), StoreError> {
    let set = "INSERT INTO setup (id, digest) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET digest = excluded.digest";
    tx.execute(set, vec![digest.into()]).await.map(drop)
}

/// Takes the link.
pub(super) async fn take_setup(tx: &mut Tx, digest: String) -> Result<bool, StoreError> {
    Ok(tx.execute("DELETE FROM setup WHERE digest = $1", vec![digest.into()]).await? == 1)
}

/// Begins a session, if the operator is still the one who was checked.
pub(super) async fn add_session(tx: &mut Tx, session: &Session, checked: Operator) -> Result<(), StoreError> {
    // On SQLite one writes at a time. On PostgreSQL the row is held: who changes it meanwhile is waited for, or waits.
    let held = if tx.is_sqlite() { "" } else { " FOR SHARE" };
    let add = format!(
        "INSERT INTO sessions (digest, operator, csrf, created_at, seen_at) SELECT $1, name, $2, $3, $4 FROM operators \
         WHERE name = $5 AND name = $6 AND role = $7 AND password IS NOT DISTINCT FROM $8{held}"
    );
    let values = vec![
        session.digest.as_str().into(),
        session.csrf.as_str().into(),
        session.created_at.unix_millis().into(),
        session.seen_at.unix_millis().into(),
        session.operator.as_str().into(),
        checked.name.into(),
        checked.role.as_str().into(),
        checked.password.into(),
    ];
    match tx.execute(add, values).await? {
        0 => Err(StoreError::Conflict),
        _ => Ok(()),
    }
}

/// Knows the browser in which a session has just begun, and no more than so many of one operator.
pub(super) async fn know_device(tx: &mut Tx, digest: String, session: &Session) -> Result<(), StoreError> {
    let operator = session.operator.as_str();
    let know = "INSERT INTO devices (digest, operator, seen_at) VALUES ($1, $2, $3) ON CONFLICT (digest) \
                DO UPDATE SET operator = excluded.operator, seen_at = excluded.seen_at";
    tx.execute(know, vec![digest.into(), operator.into(), session.created_at.unix_millis().into()]).await?;
    let forget = "DELETE FROM devices WHERE operator = $1 AND digest NOT IN \
                  (SELECT digest FROM devices WHERE operator = $1 ORDER BY seen_at DESC, digest LIMIT $2)";
    tx.execute(forget, vec![operator.into(), DEVICES.into()]).await.map(drop)
}

/// Whose browser this is.
pub(super) async fn device(tx: &mut Tx, digest: String, since: Wall) -> Result<Option<String>, StoreError> {
    let find = "SELECT operator FROM devices WHERE digest = $1 AND seen_at >= $2";
    let row = tx.fetch_one(find, vec![digest.into(), since.unix_millis().into()]).await?;
    row.map(|row| row.text(0)).transpose()
}

/// A session.
pub(super) async fn session(tx: &mut Tx, digest: String) -> Result<Option<Session>, StoreError> {
    let find = "SELECT digest, operator, csrf, created_at, seen_at FROM sessions WHERE digest = $1";
    let Some(row) = tx.fetch_one(find, vec![digest.into()]).await? else { return Ok(None) };
    let (created_at, seen_at) = (wall(&row, 3)?, wall(&row, 4)?);
    Ok(Some(Session { digest: row.text(0)?, operator: row.text(1)?, csrf: row.text(2)?, created_at, seen_at }))
}

/// Notes that a session was used.
pub(super) async fn see_session(tx: &mut Tx, digest: String, at: Wall) -> Result<(), StoreError> {
    let see = "UPDATE sessions SET seen_at = $2 WHERE digest = $1 AND seen_at < $2";
    tx.execute(see, vec![digest.into(), at.unix_millis().into()]).await.map(drop)
}

/// Ends a session.
pub(super) async fn end_session(tx: &mut Tx, digest: String) -> Result<(), StoreError> {
    tx.execute("DELETE FROM sessions WHERE digest = $1", vec![digest.into()]).await.map(drop)
}

/// Forgets old creates and sessions.
pub(super) async fn sweep(tx: &mut Tx, creates: Wall, idle: Wall, oldest: Wall) -> Result<(), StoreError> {
    tx.execute("DELETE FROM remembered WHERE at < $1", vec![creates.unix_millis().into()]).await?;
    let values = vec![idle.unix_millis().into(), oldest.unix_millis().into()];
    tx.execute("DELETE FROM sessions WHERE seen_at < $1 OR created_at < $2", values).await.map(drop)
}
