//! The whole set, as it is sent: written while the sidecar takes it, from rows that are shared with the image.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, stream};
use serde_json::json;

use super::PIECE;
use crate::{
    control::{desk::Desk, fleet::Attached, wire::write_told},
    keys::document::{KeyRow, OwnerRow, json::write_owner},
};

/// What is still to be sent.
struct Rest {
    attached: Attached,
    head: Option<String>,
    owners: std::vec::IntoIter<Arc<OwnerRow>>,
    keys: std::vec::IntoIter<Arc<KeyRow>>,
    end: Option<String>,
}

/// All rows at one head. Only their addresses are copied, so that nobody waits for who takes them slowly.
pub(super) fn stream(
    desk: &Desk,
    attached: Attached,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static + use<> {
    let (head, owners, keys) = desk.ledger.read(|image| {
        let owners: Vec<_> = image.owners().values().cloned().collect();
        let keys: Vec<_> = image.keys().values().cloned().collect();
        (image.head().clone(), owners, keys)
    });
    let end = json!({ "end": true, "owners": owners.len(), "keys": keys.len() });
    let head = json!({ "epoch": head.epoch, "revision": head.revision, "digest": head.digest });
    let rest = Rest {
        attached,
        head: Some(format!("{head}\n")),
        owners: owners.into_iter(),
        keys: keys.into_iter(),
        end: Some(format!("{end}\n")),
    };
    stream::unfold(rest, |mut rest| async move {
        rest.attached.handed();
        let piece = rest.piece()?;
        rest.attached.handing();
        // Others on this thread have something to say, too.
        tokio::task::yield_now().await;
        Some((Ok(piece), rest))
    })
}

impl Rest {
    /// The next piece; none at the end.
    fn piece(&mut self) -> Option<Bytes> {
        let mut text = self.head.take().unwrap_or_default();
        while text.len() < PIECE - PIECE / 8 {
            let line = if let Some(owner) = self.owners.next() {
                json!({ "owner": write_owner(&owner) })
            } else if let Some(key) = self.keys.next() {
                json!({ "key": write_told(&key) })
            } else {
                text.push_str(&self.end.take().unwrap_or_default());
                break;
            };
            text.push_str(&line.to_string());
            text.push('\n');
        }
        (!text.is_empty()).then(|| Bytes::from(text))
    }
}
