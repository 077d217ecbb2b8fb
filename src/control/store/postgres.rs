//! PostgreSQL: a server that several control planes share.
//!
//! Everything stands in the schema `keyside`. Sessions set what must not depend on the server's configuration: a commit
//! is on the disk when it returns (`synchronous_commit`), and nothing waits without end. What breaks, breaks with its
//! connection: one whose transaction did not end in good order is closed, and the next is opened when it is needed.

use std::{future::Future, str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    Acquire as _, ConnectOptions, PgPool, Postgres,
    pool::{PoolConnection, PoolOptions},
    postgres::{PgConnectOptions, PgListener, PgSslMode},
};
use tokio::{sync::Notify, task::JoinHandle, time};

use super::{
    StoreError,
    engine::{Care, Tx},
};
use crate::keys::secret::Secret;

/// How long making or getting a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a statement may take, as seen from here; the server's own limits come before.
const ANSWER: Duration = Duration::from_secs(20);

/// Connections for transactions.
const CONNECTIONS: u32 = 6;

/// After how much silence it is asked whether the connection that listens still lives.
const SILENCE: Duration = Duration::from_secs(30);

/// How long after a failure it is tried again to listen.
const AGAIN: Duration = Duration::from_secs(1);

/// The server.
#[derive(Debug)]
pub(super) struct Database {
    pool: PgPool,
    ears: Ears,
}

/// Hears what other control planes write.
#[derive(Debug)]
struct Ears {
    heard: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Database {
    /// Connects. `me` tells this control plane from the others.
    pub(super) async fn open(url: &str, password: Option<&Secret>, me: &str) -> Result<Self, StoreError> {
        let options = options(url, password)?;
        let pool = PoolOptions::<Postgres>::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECT)
            .after_connect(|connection, _| Box::pin(prepare(connection)))
            .connect_with(options.clone())
            .await
            .map_err(fault)?;
        let heard = Arc::new(Notify::new());
        let task = tokio::spawn(listen(options, me.to_owned(), heard.clone()));
        Ok(Self { pool, ears: Ears { heard, task } })
    }

    /// A transaction that only reads, and sees one state.
    pub(super) async fn read(&self) -> Result<Tx, StoreError> {
        self.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    /// A transaction that writes.
    pub(super) async fn write(&self, care: Care) -> Result<Tx, StoreError> {
        let mut tx = self.begin("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        if care == Care::Lax {
            tx.execute("SET LOCAL synchronous_commit = off", vec![]).await?;
        }
        Ok(tx)
    }

    async fn begin(&self, statement: &'static str) -> Result<Tx, StoreError> {
        let connection = self.pool.acquire().await.map_err(fault)?;
        let mut open = Open { connection, ended: false };
        in_time(sqlx::raw_sql(statement).execute(&mut *open.connection)).await?;
        Ok(Tx::Postgres(open))
    }

    /// Waits until another control plane may have written.
    pub(super) async fn changed(&self) {
        self.ears.heard.notified().await;
    }

    /// Closes all connections.
    pub(super) async fn close(&self) {
        self.ears.task.abort();
        self.pool.close().await;
    }
}

/// A transaction. When it is dropped before its end, its connection is closed, which undoes it.
pub(super) struct Open {
    connection: PoolConnection<Postgres>,
    ended: bool,
}

impl Open {
    /// The connection.
    pub(super) fn connection(&mut self) -> &mut sqlx::PgConnection {
        &mut self.connection
    }

    /// Keeps what was written.
    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        let sent = time::timeout(ANSWER, sqlx::raw_sql("COMMIT").execute(&mut *self.connection)).await;
        let Ok(done) = sent else { return Err(StoreError::Unknown("the server did not answer".to_owned())) };
        done.map_err(fault_of_commit)?;
        self.ended = true;
        Ok(())
    }

    /// Undoes what was written.
    pub(super) async fn rollback(mut self) {
        let done = in_time(sqlx::raw_sql("ROLLBACK").execute(&mut *self.connection)).await;
        self.ended = done.is_ok();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}

/// Waits for the server, but not without end.
pub(super) async fn in_time<T>(work: impl Future<Output = sqlx::Result<T>>) -> Result<T, StoreError> {
    match time::timeout(ANSWER, work).await {
        Ok(done) => done.map_err(fault),
        Err(_) => Err(StoreError::Unavailable("the server did not answer".to_owned())),
    }
}

fn options(url: &str, password: Option<&Secret>) -> Result<PgConnectOptions, StoreError> {
    if has_password(url) {
        let advice = "leave it out of the URL, and set it apart: URLs are shown and logged";
        return Err(StoreError::Unavailable(format!("the URL of the database holds a password: {advice}")));
    }
    let unreadable = |why| StoreError::Unavailable(format!("the URL of the database cannot be read: {why}"));
    let mut options = PgConnectOptions::from_str(url).map_err(unreadable)?;
    if let Some(password) = password {
        let unreadable = |_| StoreError::Unavailable("the password of the database is not UTF-8".to_owned());
        options = options.password(std::str::from_utf8(password.expose()).map_err(unreadable)?);
    }
    // The driver would do without TLS where the server does, and would believe any certificate.
    let is_near =
        options.get_socket().is_some() || ["localhost", "127.0.0.1", "::1", "[::1]"].contains(&options.get_host());
    let is_said = parameters(url).any(|name| name == "sslmode" || name == "ssl-mode");
    if !is_near && !is_said {
        options = options.ssl_mode(PgSslMode::VerifyFull);
    }
    Ok(options
        .application_name("keyside")
        .options([
            ("search_path", "keyside"),
            ("statement_timeout", "15s"),
            ("lock_timeout", "5s"),
            ("idle_in_transaction_session_timeout", "15s"),
        ])
        .disable_statement_logging())
}

/// Whether a URL names a password, before the host or among the parameters.
fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    user.contains(':') || parameters(url).any(|name| name == "password")
}

/// The names of a URL's parameters.
fn parameters(url: &str) -> impl Iterator<Item = &str> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    query.split(['&', '#']).filter_map(|pair| pair.split('=').next())
}

/// Makes a session commit as it must, whatever the server is set to. What is stricter stays.
async fn prepare(connection: &mut sqlx::PgConnection) -> sqlx::Result<()> {
    const STRICT: &str = "SELECT set_config('synchronous_commit', 'on', false) \
                          WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')";
    sqlx::raw_sql(STRICT).execute(connection).await.map(drop)
}

/// Listens, on a connection of its own, and says so whenever others may have written.
async fn listen(options: PgConnectOptions, me: String, heard: Arc<Notify>) {
    loop {
        if let Err(why) = listen_once(&options, &me, &heard).await {
            tracing::debug!(%why, "the store is not heard; it is asked now and then");
        }
        time::sleep(AGAIN).await;
    }
}

async fn listen_once(options: &PgConnectOptions, me: &str, heard: &Notify) -> sqlx::Result<()> {
    let pool = PoolOptions::<Postgres>::new().max_connections(1).acquire_timeout(CONNECT);
    let pool = pool.connect_with(options.clone()).await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    // Broken off is what the caller is to notice.
    listener.eager_reconnect(false);
    listener.listen("keyside").await?;
    // Something may have been written while nobody listened.
    heard.notify_one();
    loop {
        match time::timeout(SILENCE, listener.try_recv()).await {
            Ok(Ok(Some(said))) if said.payload() == me => {}
            Ok(Ok(Some(_))) => heard.notify_one(),
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(why)) => return Err(why),
            Err(_) => {
                let connection = listener.acquire().await?;
                let asked = time::timeout(CONNECT, sqlx::raw_sql("SELECT 1").execute(connection)).await;
                asked.map_err(|_| sqlx::Error::PoolTimedOut)??;
            }
        }
    }
}

/// What an error comes to.
pub(super) fn fault(why: sqlx::Error) -> StoreError {
    let sqlx::Error::Database(error) = &why else {
        return StoreError::Unavailable(match why {
            sqlx::Error::PoolTimedOut => "the database did not answer in time".to_owned(),
            why => why.to_string(),
        });
    };
    let code = error.code().unwrap_or_default();
    let text = format!("{} (PostgreSQL {code})", error.message());
    match &*code {
        // Serialization failure, deadlock; an operator that is gone.
        "40001" | "40P01" | "23503" => StoreError::Conflict,
        "53100" => StoreError::Full(text),
        // Data corrupted, index corrupted.
        "XX001" | "XX002" => StoreError::Damaged(text),
        _ => StoreError::Unavailable(text),
    }
}

/// What an error comes to when the commit itself was on its way: whoever did not hear that it was refused does not know.
pub(super) fn fault_of_commit(why: sqlx::Error) -> StoreError {
    let is_refused = match &why {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            ["23", "25", "40", "53"].iter().any(|class| code.starts_with(class)) && code != "40003"
        }
        _ => false,
    };
    if is_refused { fault(why) } else { StoreError::Unknown(fault(why).to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, mode: &str) {
        assert_eq!(format!("{:?}", options(url, None).unwrap().get_ssl_mode()), mode, "{url}");
    }

    #[test]
    fn a_server_elsewhere_proves_who_it_is_unless_it_is_said_otherwise() {
        check("postgres://keyside@db.example/keyside", "VerifyFull");
        check("postgres://keyside@192.0.2.1:6432/keyside?application_name=x", "VerifyFull");
        check("postgres://keyside@db.example/keyside?sslmode=verify-ca", "VerifyCa");
        check("postgres://keyside@db.example/keyside?sslmode=disable", "Disable");
        for near in ["localhost/keyside", "127.0.0.1/keyside", "[::1]/keyside", "x/keyside?host=/run/postgresql"] {
            check(&format!("postgres://keyside@{near}"), "Prefer");
        }
    }
}
