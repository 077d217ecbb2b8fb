//! Opens a store.

use std::{path::PathBuf, sync::Arc};

use super::{
    Store, StoreError,
    engine::Engine,
    postgres, schema,
    sql::{KEPT, Sql},
    sqlite,
};
use crate::keys::secret::Secret;

/// Where a store is, and whether it may be new.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is.
    pub place: Place,
    /// Whether it is made when there is none. Only for the very first start: later on, a store that is not there is lost,
    /// and an empty one in its place would have every sidecar refuse every key.
    pub create: bool,
}

/// Where a store is.
#[derive(Clone)]
pub enum Place {
    /// SQLite, in this file.
    Sqlite(PathBuf),
    /// PostgreSQL.
    Postgres {
        /// `postgres://user@host/database?sslrootcert=…`, without a password. A server on another machine has to prove
        /// who it is (`sslmode=verify-full`), unless another `sslmode` is said; without `sslrootcert`, by one of the
        /// authorities that Mozilla lists.
        url: String,
        /// The password, if there is one.
        password: Option<Secret>,
    },
}

/// Shows no URL: somebody may have written a password into it.
impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            Self::Postgres { .. } => f.write_str("Postgres"),
        }
    }
}

/// Opens a store, checks that it is whole, and brings its tables to this version. It lives on the runtime that this is
/// called in, which has to last as long as the store and have threads of its own.
///
/// # Errors
///
/// When it cannot be reached, is not there and may not be made, is damaged, in use by another process (SQLite), or of a
/// newer version.
pub async fn open(settings: &Settings) -> Result<Arc<dyn Store>, StoreError> {
    open_keeping(settings, KEPT).await
}

/// Opens a store that keeps so many revisions.
pub(super) async fn open_keeping(settings: &Settings, kept: u64) -> Result<Arc<dyn Store>, StoreError> {
    let me = schema::random()?;
    let engine = match &settings.place {
        Place::Sqlite(path) => Engine::Sqlite(sqlite::Database::open(path, settings.create).await?),
        Place::Postgres { url, password } => {
            Engine::Postgres(postgres::Database::open(url, password.as_ref(), &me).await?)
        }
    };
    schema::migrate(&engine, settings.create).await?;
    Ok(Arc::new(Sql::new(engine, me, kept)))
}
