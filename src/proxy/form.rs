//! Form bodies that must be judged before a route is looked for, because a parameter in them may name another path.

use std::{cell::Cell, future::poll_fn, pin::Pin, rc::Rc, task::Poll};

use bytes::Bytes;
use http_body::Body as _;

use super::{client_body::ClientBody, failure::Failure};
use crate::{
    clock,
    facts::MAX_FORM_BYTES,
    listener::Exchange,
    rejection::{Reason, Rejection},
};

/// Forms are read before anybody has shown a key, so what one thread holds of them has a ceiling: 128 of the largest.
const ROOM_BYTES: usize = 128 * MAX_FORM_BYTES;

/// Room for the forms that one thread is reading: how many bytes are taken.
#[derive(Debug, Default)]
pub(super) struct Room(Cell<usize>);

/// A part of the room; given back when dropped.
struct Place {
    room: Rc<Room>,
    bytes: usize,
}

impl Room {
    fn take(self: &Rc<Self>, bytes: usize) -> Option<Place> {
        let taken = self.0.get() + bytes;
        (taken <= ROOM_BYTES).then(|| {
            self.0.set(taken);
            Place { room: Rc::clone(self), bytes }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.0.set(self.room.0.get() - self.bytes);
    }
}

/// Reads a form to its end.
///
/// # Errors
///
/// It is too large, its sender too slow or gone, or there is no room for another one.
pub(super) async fn read(
    body: &mut Option<ClientBody>,
    room: &Rc<Room>,
    exchange: &Exchange,
) -> Result<Bytes, Rejection> {
    let Some(incoming) = body.as_mut() else { return Ok(Bytes::new()) };
    if incoming.size_hint().lower() > MAX_FORM_BYTES as u64 {
        return Err(Reason::BodyTooLarge.into());
    }
    let bytes = incoming.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
    let bytes = bytes.map_or(MAX_FORM_BYTES, |bytes| bytes.min(MAX_FORM_BYTES));
    let _place = room
        .take(bytes)
        .ok_or_else(|| Rejection::from(Reason::Overloaded).retry_after(1).note("too many forms are being read"))?;

    let mut form = Vec::new();
    exchange.await_client_body(clock::mono());
    loop {
        let frame = poll_fn(|cx| match exchange.poll_cut(cx) {
            Poll::Ready(cut) => {
                exchange.act_on_cut();
                Poll::Ready(Err(Failure::Cut(cut)))
            }
            Poll::Pending => Pin::new(&mut *incoming).poll_frame(cx).map(Ok),
        });
        match frame.await.map_err(|failure| failure.rejection(None))? {
            None => return Ok(form.into()),
            Some(Err(_)) => return Err(Reason::RequestTimeout.into()),
            Some(Ok(frame)) => {
                exchange.await_client_body(clock::mono());
                if let Ok(bytes) = frame.into_data() {
                    form.extend_from_slice(&bytes);
                }
                if form.len() > MAX_FORM_BYTES {
                    return Err(Reason::BodyTooLarge.into());
                }
            }
        }
    }
}
