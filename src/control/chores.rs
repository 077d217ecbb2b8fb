//! What goes on beside the requests: the fleet is kept, use is read, and what is old is swept away.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    desk::Desk,
    store::{Place, StoreError},
    usage,
};
use crate::clock::{self, Wall};

/// How often what is old is swept away.
const SWEEP: Duration = Duration::from_secs(60 * 60);
/// For how long it is remembered what a create came to.
const CREATES: Duration = Duration::from_secs(24 * 60 * 60);
/// For how many days use is kept day by day.
const DAYS: i64 = 400;

/// Goes on for as long as it is polled. Belongs on the store's runtime.
pub async fn run(desk: &Desk) {
    let shared = matches!(desk.settings.store, Place::Postgres { .. });
    tokio::join!(desk.fleet.run(shared), desk.usage.run(), sweeping(desk));
}

async fn sweeping(desk: &Desk) {
    loop {
        sleep(SWEEP).await;
        if let Err(error) = sweep(desk).await {
            tracing::warn!(%error, "what is old could not be swept away; it is tried again in an hour");
        }
    }
}

/// Sweeps away what is old.
///
/// # Errors
///
/// The store's own.
pub async fn sweep(desk: &Desk) -> Result<(), StoreError> {
    desk.usage.sweep();
    let now = clock::now().wall;
    let (creates, day) = (before(now, CREATES), usage::day(now) - DAYS);
    let idle = before(now, desk.settings.pages.session_idle);
    let oldest = before(now, desk.settings.pages.session_max);
    let (store, sidecars) = (Arc::clone(desk.ledger.store()), desk.fleet.long_gone());
    desk.ledger.run(async move { store.sweep(creates, idle, oldest, sidecars, day).await }).await
}

fn before(now: Wall, duration: Duration) -> Wall {
    let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    Wall::from_unix_millis(now.unix_millis().saturating_sub(millis))
}
