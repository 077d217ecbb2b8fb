//! What a change that lets fewer callers in is answered with: who has it, and who may be serving without it.

use std::{sync::atomic::Ordering, time::Duration};

use super::{Fleet, Head, State, StoreError};
use crate::{
    clock::{self, Wall},
    control::{ledger::Image, store::TOLD},
};

/// How long the store is asked at the end whether it still holds what the receipt is for.
const ASKED: Duration = Duration::from_secs(5);

/// Which sidecars have acknowledged a revision, and which have not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The revision.
    pub revision: u64,
    /// Who has it in force.
    pub acknowledged: Vec<String>,
    /// Who may be serving without it.
    pub pending: Vec<Pending>,
    /// Who said goodbye without it, and would serve what is kept on their disk if they were started and could reach no
    /// control plane. Nobody waits for them.
    pub stopped: Vec<Pending>,
    /// Why these are not all; none where they are.
    pub gap: Option<Gap>,
}

/// Why a receipt does not name all who may be serving without a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// The store could not be asked for the sidecars of other control planes.
    Unasked,
    /// An older copy of the store was put back: sidecars that came after the copy are not known.
    Restored {
        /// When.
        at: Wall,
        /// Until when they may serve, if they never come here.
        until: Wall,
    },
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unasked => f.write_str("the store could not be asked which sidecars other control planes know"),
            Self::Restored { at, until } => write!(
                f,
                "an older copy of the store was put back at {at}: sidecars that it does not know may serve what they have until \
                 {until} (as long as max_stale of [sync] lets them)"
            ),
        }
    }
}

/// A sidecar that may be serving without a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its name.
    pub instance: String,
    /// When it was last heard.
    pub last_seen: Wall,
    /// Until when it may serve methods that only read.
    pub may_serve_reads_until: Wall,
    /// Until when it may serve the others.
    pub may_serve_writes_until: Wall,
}

impl Fleet {
    /// The receipt of a change that was made just now, which is measured. Else as [`look_up`](Self::look_up).
    ///
    /// # Errors
    ///
    /// The same.
    pub async fn receipt(&self, head: &Head, wait: Duration) -> Result<Receipt, StoreError> {
        self.ask(head, wait, true).await
    }

    /// Waits until all who are waited for have acknowledged the revision of this head, or for this long, and says who has.
    ///
    /// # Errors
    ///
    /// The store has lost what was written, or another history has begun: then nothing can be said.
    pub async fn look_up(&self, head: &Head, wait: Duration) -> Result<Receipt, StoreError> {
        self.ask(head, wait, false).await
    }

    async fn ask(&self, head: &Head, wait: Duration, measured: bool) -> Result<Receipt, StoreError> {
        let (epoch, revision) = (head.epoch.as_str(), head.revision);
        let began = clock::mono();
        let mut news = self.news.subscribe();
        let _waiting = self.wait_here();
        // Whom other control planes know is waited for, too.
        let _ = self.look().await;
        if measured {
            let done = self.lock().watch(epoch, revision, began);
            self.observe(&done);
        }
        let deadline = tokio::time::sleep(wait);
        tokio::pin!(deadline);
        loop {
            news.borrow_and_update();
            let complete = self.looked.load(Ordering::Acquire) >= began.as_nanos();
            if complete && self.lock().awaited(epoch, revision, clock::now()).next().is_none() {
                break;
            }
            tokio::select! {
                // Fails only when the sender is gone, which is ours.
                _ = news.changed() => {}
                () = &mut deadline => break,
            }
        }
        // A revision that the store has lost is in force nowhere for long.
        let refreshed = tokio::time::timeout(ASKED, self.ledger.refresh()).await;
        let refreshed = refreshed.unwrap_or_else(|_| Err(StoreError::Unavailable("it did not answer".to_owned())));
        if let Err(error @ (StoreError::Astray(_) | StoreError::Another(_))) = refreshed {
            return Err(error);
        }
        if self.ledger.read(|image| image.head().epoch != epoch) {
            return Err(StoreError::Astray("another history has begun meanwhile".to_owned()));
        }
        let asked = refreshed.is_ok() && self.looked.load(Ordering::Acquire) >= began.as_nanos();
        if !asked {
            tracing::error!(revision, "{}", Gap::Unasked);
        }
        let now = clock::now().wall;
        let gap = if asked { self.unknown(now) } else { Some(Gap::Unasked) };
        Ok(self.lock().receipt(epoch, revision, now, gap))
    }

    /// Whether sidecars may be serving of which the store knows nothing.
    fn unknown(&self, now: Wall) -> Option<Gap> {
        let at = self.ledger.read(Image::restored_at)?;
        let until = at.plus(TOLD.saturating_add(self.max_stale));
        (now < until).then_some(Gap::Restored { at, until })
    }
}

impl State {
    fn receipt(&self, epoch: &str, revision: u64, now: Wall, gap: Option<Gap>) -> Receipt {
        let (acknowledged, pending, stopped) = (Vec::new(), Vec::new(), Vec::new());
        let mut receipt = Receipt { revision, acknowledged, pending, stopped, gap };
        // Whoever took the place of another holds its disk.
        for member in self.members.values().filter(|member| !member.replaced || member.has_stream()) {
            let (reads, writes) = member.may_serve_until(now);
            let late = || Pending {
                instance: member.sidecar.claim.instance.clone(),
                last_seen: member.sidecar.last_seen,
                may_serve_reads_until: reads,
                may_serve_writes_until: writes,
            };
            match (member.is_known(now), member.revision(epoch) >= revision) {
                (true, true) => receipt.acknowledged.push(member.sidecar.claim.instance.clone()),
                (true, false) => receipt.pending.push(late()),
                (false, false) if reads.max(writes) > now => receipt.stopped.push(late()),
                (false, _) => {}
            }
        }
        receipt.acknowledged.sort();
        for list in [&mut receipt.pending, &mut receipt.stopped] {
            list.sort_by(|one, other| one.instance.cmp(&other.instance));
        }
        receipt
    }
}
