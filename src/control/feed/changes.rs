//! The stream of changes: each goes out as soon as it is written, and heartbeats say that there were no others.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval},
};

use super::PIECE;
use crate::{
    clock,
    control::{
        desk::Desk,
        fleet::Attached,
        store::{Head, Revision},
    },
};

/// How often a heartbeat is sent.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// A heartbeat is sent only while the store said so recently that its newest revision is ours.
const CONFIRMED: Duration = Duration::from_secs(5);
/// A stream without heartbeats ends after this: another control plane may have more to say.
const SILENT: Duration = Duration::from_secs(15);

/// What a sidecar has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) epoch: String,
    pub(super) revision: u64,
    pub(super) digest: String,
}

impl Position {
    /// Whether this is of our history, and not too long ago.
    pub(super) fn fits(&self, desk: &Desk) -> bool {
        self.after(desk).is_some()
    }

    /// The revisions that follow; none when this is not of our history, or too long ago.
    fn after(&self, desk: &Desk) -> Option<Vec<Arc<Revision>>> {
        desk.ledger.read(|image| {
            let same = image.head().epoch == self.epoch;
            if same { image.since(self.revision, &self.digest) } else { None }
        })
    }
}

/// An open stream.
struct Following {
    desk: Arc<Desk>,
    attached: Attached,
    position: Position,
    heads: watch::Receiver<Head>,
    draining: watch::Receiver<bool>,
    beat: Interval,
    /// What was too large for one piece.
    rest: Bytes,
}

/// What comes after a position, for as long as this control plane has anything to say.
pub(super) fn stream(
    desk: Arc<Desk>,
    attached: Attached,
    position: Position,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    let (heads, draining) = (desk.ledger.follow(), desk.draining());
    // The first beat is at once: it says that the stream is open.
    let mut beat = interval(HEARTBEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let following = Following { desk, attached, position, heads, draining, beat, rest: Bytes::new() };
    stream::unfold(following, |mut following| async move {
        following.attached.handed();
        let piece = following.next().await?;
        following.attached.handing();
        Some((Ok(piece), following))
    })
}

impl Following {
    /// The next piece, once there is one; none at the end of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if *self.draining.borrow_and_update() || !self.attached.is_known() {
                return None;
            }
            if !self.rest.is_empty() {
                return Some(self.rest.split_to(self.rest.len().min(PIECE)));
            }
            self.heads.borrow_and_update();
            let revisions = self.position.after(&self.desk)?;
            if !revisions.is_empty() {
                self.write(&revisions);
                continue;
            }
            tokio::select! {
                biased;
                // They fail only when the desk is gone, and we hold it.
                _ = self.draining.changed() => {}
                _ = self.heads.changed() => {}
                _ = self.beat.tick() => {
                    if let Some(heartbeat) = self.heartbeat()? {
                        return Some(heartbeat);
                    }
                }
            }
        }
    }

    /// Takes revisions on, as far as they fit into a piece.
    fn write(&mut self, revisions: &[Arc<Revision>]) {
        let mut text = Vec::new();
        for revision in revisions {
            let lines = self.desk.feed.lines(revision);
            if !text.is_empty() && text.len() + lines.len() > PIECE {
                break;
            }
            text.extend_from_slice(&lines);
            self.position.revision = revision.revision;
            self.position.digest.clone_from(&revision.digest);
        }
        self.rest = Bytes::from(text);
    }

    /// A heartbeat, if what the sidecar was sent is known to be the newest. None outside: the stream is to end.
    fn heartbeat(&self) -> Option<Option<Bytes>> {
        // Read before the head: what the store confirmed then is in it.
        if self.desk.ledger.holds().is_err() {
            return None;
        }
        let age = clock::mono().since(self.desk.ledger.confirmed());
        if age > SILENT {
            return None;
        }
        let newest = self.desk.ledger.read(|image| image.head().revision);
        let may = age <= CONFIRMED && newest == self.position.revision && self.attached.may_confirm();
        Some(may.then(|| Bytes::from(format!("{{\"heartbeat\":{newest}}}\n"))))
    }
}
