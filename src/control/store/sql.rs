//! The store on either database: each method is one transaction.
//!
//! Whatever is begun runs to its end, on the runtime that the store was opened in: whoever asked may be on another one,
//! and may stop waiting.

mod accounts;
mod commit;
mod history;
mod read;
mod sidecars;
mod skew;
mod usage;

use std::{future::pending, sync::Arc};

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::runtime::Handle;

use self::skew::Skew;
use super::{
    Added, Answer, AuditFilter, Caught, Claim, Commit, Day, Entry, Head, Loaded, Operator, Remembered, Session,
    Sidecar, Store, StoreError, Usage, Used,
    engine::{Care, Engine, Tx},
};
use crate::{
    clock::Wall,
    keys::{KeyId, OwnerId},
};

/// How many of the newest revisions are kept, for sidecars and other control planes that were away.
pub(super) const KEPT: u64 = 10_000;

/// The store.
#[derive(Debug)]
pub(super) struct Sql {
    engine: Arc<Engine>,
    runtime: Handle,
    /// Tells this control plane from the others, when one says that it has written.
    me: Arc<str>,
    kept: u64,
    skew: Arc<Skew>,
}

impl Sql {
    /// A store whose tables are there.
    pub(super) fn new(engine: Engine, me: String, kept: u64) -> Self {
        Self { engine: Arc::new(engine), runtime: Handle::current(), me: me.into(), kept, skew: Arc::default() }
    }

    /// Does this in a transaction that sees one state.
    fn read<T: Send + 'static>(
        &self,
        work: impl for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T, StoreError>> + Send + 'static,
    ) -> Answer<'_, T> {
        let engine = self.engine.clone();
        self.to_the_end(async move {
            let mut tx = engine.read().await?;
            let read = work(&mut tx).await;
            tx.undo(read.as_ref().err()).await;
            read
        })
    }

    /// Does this in a transaction that writes.
    fn write<T: Send + 'static>(
        &self,
        care: Care,
        work: impl for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T, StoreError>> + Send + 'static,
    ) -> Answer<'_, T> {
        let engine = self.engine.clone();
        self.to_the_end(async move { write(&engine, care, work).await })
    }

    fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Answer<'_, T> {
        let runtime = self.runtime.clone();
        // Only a panic, or the end of the runtime, ends it early: nobody knows how far it came.
        let ended = |_| Err(StoreError::Unknown("what was done there broke off".to_owned()));
        async move { runtime.spawn(work).await.unwrap_or_else(ended) }.boxed()
    }
}

impl Store for Sql {
    fn head(&self) -> Answer<'_, Head> {
        self.read(|tx| history::head(tx).boxed())
    }

    fn load(&self) -> Answer<'_, Loaded> {
        self.read(|tx| history::load(tx).boxed())
    }

    fn catch_up<'a>(&'a self, since: &'a Head) -> Answer<'a, Caught> {
        let since = since.clone();
        self.read(|tx| async move { history::catch_up(tx, &since).await }.boxed())
    }

    fn commit<'a>(&'a self, commit: &'a Commit) -> Answer<'a, ()> {
        let (engine, commit, me, kept) = (self.engine.clone(), commit.clone(), self.me.clone(), self.kept);
        let skew = Arc::clone(&self.skew);
        self.to_the_end(async move {
            // Before the transaction begins: whoever waits for the head does not wait for this.
            let texts = commit::Texts::of(&commit);
            write(&engine, Care::Durable, |tx| {
                async move { commit::commit(tx, &commit, texts, &me, kept, &skew).await }.boxed()
            })
            .await
        })
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        match &*self.engine {
            Engine::Sqlite(_) => pending().boxed(),
            Engine::Postgres(database) => database.changed().boxed(),
        }
    }

    fn audit<'a>(&'a self, filter: &'a AuditFilter) -> Answer<'a, Vec<Entry>> {
        let filter = filter.clone();
        self.read(|tx| async move { history::audit(tx, &filter).await }.boxed())
    }

    fn audit_from(&self, seq: u64, limit: u32) -> Answer<'_, Vec<Entry>> {
        self.read(move |tx| history::audit_from(tx, seq, limit).boxed())
    }

    fn remembered<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Remembered>> {
        let key = key.to_owned();
        self.read(|tx| history::remembered(tx, key).boxed())
    }

    fn sweep(&self, creates: Wall, idle: Wall, oldest: Wall, sidecars: Wall, day: i64) -> Answer<'_, ()> {
        self.write(Care::Durable, move |tx| {
            async move {
                accounts::sweep(tx, creates, idle, oldest).await?;
                sidecars::sweep(tx, sidecars, day).await?;
                usage::sweep(tx, day).await
            }
            .boxed()
        })
    }

    fn set_setup<'a>(&'a self, digest: &'a str) -> Answer<'a, ()> {
        let digest = digest.to_owned();
        self.write(Care::Durable, |tx| accounts::set_setup(tx, digest).boxed())
    }

    fn take_setup<'a>(&'a self, digest: &'a str) -> Answer<'a, bool> {
        let digest = digest.to_owned();
        self.write(Care::Durable, |tx| accounts::take_setup(tx, digest).boxed())
    }

    fn add_session<'a>(&'a self, session: &'a Session, checked: &'a Operator, device: &'a str) -> Answer<'a, ()> {
        let (session, checked, device) = (session.clone(), checked.clone(), device.to_owned());
        self.write(Care::Durable, |tx| {
            async move {
                accounts::add_session(tx, &session, checked).await?;
                accounts::know_device(tx, device, &session).await
            }
            .boxed()
        })
    }

    fn device<'a>(&'a self, digest: &'a str, since: Wall) -> Answer<'a, Option<String>> {
        let digest = digest.to_owned();
        self.read(move |tx| accounts::device(tx, digest, since).boxed())
    }

    fn session<'a>(&'a self, digest: &'a str) -> Answer<'a, Option<Session>> {
        let digest = digest.to_owned();
        self.read(|tx| accounts::session(tx, digest).boxed())
    }

    fn see_session<'a>(&'a self, digest: &'a str, at: Wall) -> Answer<'a, ()> {
        let digest = digest.to_owned();
        self.write(Care::Lax, move |tx| accounts::see_session(tx, digest, at).boxed())
    }

    fn end_session<'a>(&'a self, digest: &'a str) -> Answer<'a, ()> {
        let digest = digest.to_owned();
        self.write(Care::Durable, |tx| accounts::end_session(tx, digest).boxed())
    }

    fn sidecars(&self) -> Answer<'_, Vec<Sidecar>> {
        let skew = Arc::clone(&self.skew);
        self.read(move |tx| async move { sidecars::all(tx, &skew).await }.boxed())
    }

    fn register<'a>(&'a self, sidecar: &'a Sidecar, held: &'a Head) -> Answer<'a, bool> {
        let (sidecar, me, held) = (self.skew.kept(sidecar.clone()), self.me.clone(), held.clone());
        self.write(Care::Durable, move |tx| {
            async move {
                history::must_hold(tx, &held).await?;
                sidecars::register(tx, sidecar, &me).await
            }
            .boxed()
        })
    }

    fn heard<'a>(&'a self, sidecars: &'a [Sidecar], held: &'a Head) -> Answer<'a, ()> {
        let sidecars: Vec<_> = sidecars.iter().map(|sidecar| self.skew.kept(sidecar.clone())).collect();
        let (me, held) = (self.me.clone(), held.clone());
        self.write(Care::Lax, move |tx| {
            async move {
                history::must_hold(tx, &held).await?;
                sidecars::heard(tx, &sidecars, &me).await
            }
            .boxed()
        })
    }

    fn forget<'a>(&'a self, instance: &'a str) -> Answer<'a, bool> {
        let (instance, me) = (instance.to_owned(), self.me.clone());
        self.write(Care::Durable, move |tx| async move { sidecars::forget(tx, instance, &me).await }.boxed())
    }

    fn used<'a>(&'a self, claim: &'a Claim, seq: u64, day: i64, used: &'a [Used]) -> Answer<'a, Added> {
        let (claim, used) = (claim.clone(), used.to_vec());
        self.write(Care::Durable, move |tx| async move { usage::used(tx, &claim, seq, day, &used).await }.boxed())
    }

    fn usage_since(&self, mark: i64) -> Answer<'_, (Vec<(KeyId, Usage)>, i64)> {
        self.read(move |tx| usage::since(tx, mark).boxed())
    }

    fn days<'a>(&'a self, key: &'a KeyId, since: i64) -> Answer<'a, Vec<Day>> {
        let key = key.clone();
        self.read(move |tx| async move { usage::days(tx, &key, since).await }.boxed())
    }

    fn days_of_all(&self, since: i64) -> Answer<'_, Vec<Day>> {
        self.read(move |tx| usage::days_of_all(tx, since).boxed())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let (runtime, engine) = (self.runtime.clone(), self.engine.clone());
        async move { drop(runtime.spawn(async move { engine.close().await }).await) }.boxed()
    }
}

/// Does this in a transaction that writes.
async fn write<T>(
    engine: &Engine,
    care: Care,
    work: impl for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let mut tx = engine.write(care).await?;
    match work(&mut tx).await {
        Ok(written) => tx.commit().await.map(|()| written),
        Err(why) => {
            tx.undo(Some(&why)).await;
            Err(why)
        }
    }
}

/// Tells other control planes that something was written; they hear it when the transaction is committed.
async fn tell(tx: &mut Tx, me: &str) -> Result<(), StoreError> {
    if !tx.is_sqlite() {
        tx.execute("SELECT pg_notify('keyside', $1)", vec![me.into()]).await?;
    }
    Ok(())
}
