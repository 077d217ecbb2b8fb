//! The use of keys: when and from where each was last used, how often, and what it was refused for. In memory for lists
//! and pages; sidecars report it, and the store adds it up.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    ledger::Ledger,
    store::{Day, StoreError, Usage},
};
use crate::{
    clock::{self, Wall},
    keys::KeyId,
};

/// How often what other control planes were told is read.
const READ: Duration = Duration::from_secs(2);
/// After a report it is read at once, but not more often than this.
const GATHER: Duration = Duration::from_millis(50);

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The use of all keys.
pub struct UsageBook {
    ledger: Arc<Ledger>,
    of: RwLock<HashMap<KeyId, Usage>>,
    mark: AtomicI64,
    reported: Notify,
}

impl UsageBook {
    /// Nothing yet; [`load`](Self::load) reads it.
    pub fn new(ledger: Arc<Ledger>) -> Arc<Self> {
        Arc::new(Self { ledger, of: RwLock::default(), mark: AtomicI64::new(0), reported: Notify::new() })
    }

    /// The use of a key; nothing where none was reported.
    pub fn of(&self, key: &KeyId) -> Usage {
        self.of.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned().unwrap_or_default()
    }

    /// Reads the use of all keys under one lock: for lists. The reader must be quick.
    pub fn read<T>(&self, read: impl FnOnce(&HashMap<KeyId, Usage>) -> T) -> T {
        read(&self.of.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The use of a key day by day, from the store: the last `days` days, today included.
    ///
    /// # Errors
    ///
    /// The store's own.
    pub async fn days(&self, key: &KeyId, days: u32) -> Result<Vec<Day>, StoreError> {
        let (store, key, since) = (Arc::clone(self.ledger.store()), key.clone(), since(days));
        self.ledger.run(async move { store.days(&key, since).await }).await
    }

    /// The use of all keys together, day by day.
    ///
    /// # Errors
    ///
    /// The store's own.
    pub async fn days_of_all(&self, days: u32) -> Result<Vec<Day>, StoreError> {
        let (store, since) = (Arc::clone(self.ledger.store()), since(days));
        self.ledger.run(async move { store.days_of_all(since).await }).await
    }

    /// A report was added to the store.
    pub fn reported(&self) {
        self.reported.notify_one();
    }

    /// Reads what was added to the store since the last time.
    ///
    /// # Errors
    ///
    /// The store's own.
    pub async fn load(&self) -> Result<(), StoreError> {
        let (store, mark) = (Arc::clone(self.ledger.store()), self.mark.load(Ordering::Relaxed));
        let (rows, mark) = self.ledger.run(async move { store.usage_since(mark).await }).await?;
        // The sums as they are: what comes twice does no harm.
        self.of.write().unwrap_or_else(PoisonError::into_inner).extend(rows);
        self.mark.store(mark, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps reading, for as long as it is polled.
    pub async fn run(&self) {
        loop {
            // In either case it is time to read.
            if timeout(READ, self.reported.notified()).await.is_ok() {
                sleep(GATHER).await;
            }
            // The ledger says why a store cannot be used.
            if self.load().await.is_err() {
                sleep(READ).await;
            }
        }
    }

    /// Forgets keys that are gone.
    pub(super) fn sweep(&self) {
        let gone: Vec<KeyId> = self.ledger.read(|image| {
            let of = self.of.read().unwrap_or_else(PoisonError::into_inner);
            of.keys().filter(|id| !image.keys().contains_key(*id)).cloned().collect()
        });
        let mut of = self.of.write().unwrap_or_else(PoisonError::into_inner);
        for id in gone {
            of.remove(&id);
        }
    }
}

/// Says how many keys it knows of, and no more.
impl std::fmt::Debug for UsageBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UsageBook").field("keys", &self.read(HashMap::len)).finish_non_exhaustive()
    }
}

/// The number of a moment's day (UTC), counted from 1970-01-01.
pub fn day(at: Wall) -> i64 {
    at.unix_millis().div_euclid(DAY_MS)
}

fn since(days: u32) -> i64 {
    day(clock::now().wall) - i64::from(days.saturating_sub(1))
}
