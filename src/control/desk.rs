//! What all handlers share.

use std::sync::Arc;

use tokio::sync::watch;

use super::{ledger::Ledger, metrics::Metrics, settings::Settings, store::StoreError};

/// What all handlers share.
#[derive(Debug)]
pub struct Desk {
    /// What it was told.
    pub settings: Settings,
    /// All owners, keys and operators.
    pub ledger: Arc<Ledger>,
    /// Where metrics meet.
    pub metrics: Metrics,
    draining: watch::Sender<bool>,
}

impl Desk {
    /// To be called on the runtime of the ledger.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    #[expect(clippy::unused_async, reason = "what is added to it is read from the store")]
    pub async fn new(settings: Settings, ledger: Arc<Ledger>) -> Result<Arc<Self>, StoreError> {
        Ok(Arc::new(Self { settings, ledger, metrics: Metrics::default(), draining: watch::Sender::new(false) }))
    }

    /// What goes on for as long as the control plane runs. On the runtime of the ledger.
    pub async fn keep_up(self: Arc<Self>) {
        self.ledger.keep_up().await;
    }

    /// From now on, streams end.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Turns true when streams are to end.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }
}
