//! What all handlers share.

use std::sync::Arc;

use tokio::sync::watch;

use super::{
    caller::Failures,
    chores,
    feed::Feed,
    fleet::Fleet,
    ledger::Ledger,
    metrics::Metrics,
    session::Sessions,
    settings::Settings,
    store::{Head, StoreError},
    usage::UsageBook,
};

/// What all handlers share.
#[derive(Debug)]
pub struct Desk {
    /// What it was told.
    pub settings: Settings,
    /// All owners, keys and operators.
    pub ledger: Arc<Ledger>,
    /// Who sidecars are, and what they have acknowledged.
    pub fleet: Arc<Fleet>,
    /// How keys are used.
    pub usage: Arc<UsageBook>,
    /// Who failed to get in.
    pub failures: Failures,
    /// Who asked of strings that come near a key without being it.
    pub guesses: Failures,
    /// Where metrics meet.
    pub metrics: Metrics,
    /// What sign-in keeps in memory.
    pub sessions: Sessions,
    /// What all sidecars are sent.
    pub feed: Feed,
    draining: watch::Sender<bool>,
}

impl Desk {
    /// To be called on the runtime of the ledger.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub async fn new(settings: Settings, ledger: Arc<Ledger>) -> Result<Arc<Self>, StoreError> {
        let metrics = Metrics::default();
        let fleet = Fleet::new(Arc::clone(&ledger), settings.sync.max_stale);
        fleet.load().await?;
        fleet.export(&metrics);
        let usage = UsageBook::new(Arc::clone(&ledger));
        usage.load().await?;
        Ok(Arc::new(Self {
            fleet,
            usage,
            feed: Feed::new(&settings.sync, &metrics),
            failures: Failures::default(),
            guesses: Failures::default(),
            metrics,
            sessions: Sessions::default(),
            draining: watch::Sender::new(false),
            settings,
            ledger,
        }))
    }

    /// What goes on for as long as the control plane runs. On the runtime of the ledger.
    pub async fn keep_up(self: Arc<Self>) {
        tokio::join!(self.ledger.keep_up(), chores::run(&self));
    }

    /// The head of a revision whose number stands in a path; none where there is no such revision yet. A number is written
    /// in one way only: no sign, and no zeros before it.
    ///
    /// # Errors
    ///
    /// The store cannot be asked whether another control plane wrote it.
    pub async fn head_at(&self, revision: &str) -> Result<Option<Head>, StoreError> {
        let number = revision.parse::<u64>().ok().filter(|number| number.to_string() == revision);
        let Some(revision) = number else { return Ok(None) };
        let head = || self.ledger.read(|image| image.head().clone());
        if revision > head().revision {
            self.ledger.refresh().await?;
        }
        let head = head();
        Ok((revision <= head.revision).then_some(Head { revision, ..head }))
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
