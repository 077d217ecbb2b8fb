//! What both databases do alike: a transaction that runs statements with `$1`, and gives rows back.
//!
//! Texts and 64-bit numbers are the only types of columns, so that one set of statements suits both.

use sqlx::{
    AssertSqlSafe, Postgres, Row as _, Sqlite,
    postgres::{PgArguments, PgRow},
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};

use super::{StoreError, postgres, sqlite};

/// The database.
#[derive(Debug)]
pub(super) enum Engine {
    /// A file.
    Sqlite(sqlite::Database),
    /// A server.
    Postgres(postgres::Database),
}

impl Engine {
    /// Begins a transaction that only reads, and sees one state.
    pub(super) async fn read(&self) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite(database) => database.read().await,
            Self::Postgres(database) => database.read().await,
        }
    }

    /// Begins a transaction that writes.
    pub(super) async fn write(&self, care: Care) -> Result<Tx, StoreError> {
        match self {
            Self::Sqlite(database) => database.write().await,
            Self::Postgres(database) => database.write(care).await,
        }
    }

    /// Closes all connections.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(database) => database.close().await,
            Self::Postgres(database) => database.close().await,
        }
    }
}

/// How sure a transaction has to be once it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// It is on the disk.
    Durable,
    /// It may be lost when the power fails.
    Lax,
}

/// A value of a statement.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(Option<String>),
    Int(Option<i64>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Int(number)
    }
}

/// Counts beyond what a column holds become the most that it holds.
impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(Some(i64::try_from(number).unwrap_or(i64::MAX)))
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Self::Int(Some(is.into()))
    }
}

/// A row that was read.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// The text in this column.
    pub(super) fn text(&self, column: usize) -> Result<String, StoreError> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
        .map_err(unreadable)
    }

    /// The text in this column, if there is one.
    pub(super) fn text_or_none(&self, column: usize) -> Result<Option<String>, StoreError> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
        .map_err(unreadable)
    }

    /// The number in this column.
    pub(super) fn int(&self, column: usize) -> Result<i64, StoreError> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
        .map_err(unreadable)
    }

    /// The number in this column, if there is one.
    pub(super) fn int_or_none(&self, column: usize) -> Result<Option<i64>, StoreError> {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
        .map_err(unreadable)
    }

    /// The count in this column.
    pub(super) fn count(&self, column: usize) -> Result<u64, StoreError> {
        let number = self.int(column)?;
        u64::try_from(number).map_err(|_| StoreError::Damaged(format!("a count is {number}")))
    }
}

fn unreadable(why: sqlx::Error) -> StoreError {
    StoreError::Damaged(format!("a column cannot be read: {why}"))
}

/// A transaction. Dropped before its end, it is rolled back.
pub(super) enum Tx {
    Sqlite(sqlite::Open),
    Postgres(postgres::Open),
}

impl Tx {
    /// Whether this is SQLite: for the few statements that differ.
    pub(super) const fn is_sqlite(&self) -> bool {
        matches!(self, Self::Sqlite(..))
    }

    /// Runs a statement. Gives the number of rows that it changed.
    pub(super) async fn execute(
        &mut self,
        statement: impl Into<Statement>,
        values: Vec<Value>,
    ) -> Result<u64, StoreError> {
        let statement = statement.into();
        match self {
            Self::Sqlite(tx) => {
                let done = statement.sqlite(values).execute(tx.connection()).await;
                Ok(done.map_err(sqlite::fault)?.rows_affected())
            }
            Self::Postgres(tx) => {
                let done = statement.postgres(values).execute(tx.connection());
                Ok(postgres::in_time(done).await?.rows_affected())
            }
        }
    }

    /// Runs a statement that gives rows.
    pub(super) async fn fetch(
        &mut self,
        statement: impl Into<Statement>,
        values: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        let statement = statement.into();
        match self {
            Self::Sqlite(tx) => {
                let rows = statement.sqlite(values).fetch_all(tx.connection()).await;
                Ok(rows.map_err(sqlite::fault)?.into_iter().map(Row::Sqlite).collect())
            }
            Self::Postgres(tx) => {
                let rows = statement.postgres(values).fetch_all(tx.connection());
                Ok(postgres::in_time(rows).await?.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// Runs a statement that gives one row or none.
    pub(super) async fn fetch_one(
        &mut self,
        statement: impl Into<Statement>,
        values: Vec<Value>,
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.fetch(statement, values).await?.pop())
    }

    /// Runs a script of several statements.
    pub(super) async fn script(&mut self, script: &'static str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => {
                sqlx::raw_sql(script).execute(tx.connection()).await.map_err(sqlite::fault)?;
            }
            Self::Postgres(tx) => {
                postgres::in_time(sqlx::raw_sql(script).execute(tx.connection())).await?;
            }
        }
        Ok(())
    }

    /// Runs a statement that counts.
    pub(super) async fn count(&mut self, statement: impl Into<Statement>) -> Result<u64, StoreError> {
        let row = self.fetch_one(statement, vec![]).await?;
        row.ok_or_else(|| StoreError::Damaged("a count gave nothing".to_owned()))?.count(0)
    }

    /// Ends it, and undoes what it wrote.
    pub(super) async fn undo(self, why: Option<&StoreError>) {
        match self {
            Self::Sqlite(tx) => tx.rollback().await,
            // A session may be unusable for good, such as one of a server that was made read-only: the next is a new one.
            Self::Postgres(_) if matches!(why, Some(StoreError::Unavailable(_))) => {}
            Self::Postgres(tx) => tx.rollback().await,
        }
    }

    /// Ends it, and keeps what it wrote.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        }
    }
}

/// The text of a statement: it is never made of what somebody sent.
pub(super) enum Statement {
    Fixed(&'static str),
    Made(String),
}

impl From<&'static str> for Statement {
    fn from(text: &'static str) -> Self {
        Self::Fixed(text)
    }
}

impl From<String> for Statement {
    fn from(text: String) -> Self {
        Self::Made(text)
    }
}

impl Statement {
    fn sqlite(self, values: Vec<Value>) -> Query<'static, Sqlite, SqliteArguments> {
        let query = match self {
            Self::Fixed(text) => sqlx::query(text),
            Self::Made(text) => sqlx::query(AssertSqlSafe(text)),
        };
        values.into_iter().fold(query, |query, value| match value {
            Value::Text(text) => query.bind(text),
            Value::Int(number) => query.bind(number),
        })
    }

    fn postgres(self, values: Vec<Value>) -> Query<'static, Postgres, PgArguments> {
        let query = match self {
            Self::Fixed(text) => sqlx::query(text),
            Self::Made(text) => sqlx::query(AssertSqlSafe(text)),
        };
        values.into_iter().fold(query, |query, value| match value {
            Value::Text(text) => query.bind(text),
            Value::Int(number) => query.bind(number),
        })
    }
}

/// `($1, $2), ($3, $4)`: places for so many rows of so many columns.
pub(super) fn places(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let places: Vec<_> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", places.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// The rows of one statement.
pub(super) const ROWS_AT_ONCE: usize = 100;
