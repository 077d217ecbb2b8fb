//! Form bodies that must be judged before a route is looked for, because a parameter in them may name another path.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    net::IpAddr,
    pin::Pin,
    rc::Rc,
    task::Poll,
};

use bytes::Bytes;
use http_body::Body as _;

use super::{
    client_body::ClientBody,
    failure::{Failure, bad_body},
};
use crate::{
    clock,
    facts::MAX_FORM_BYTES,
    listener::{Exchange, counted_address},
    rejection::{Reason, Rejection},
};

/// Forms are read before anybody has shown a key, so what one thread holds of them has a ceiling: 128 of the largest.
const ROOM_BYTES: usize = 128 * MAX_FORM_BYTES;
/// What one client may hold of that, so that nobody shuts the others out.
const SHARE_BYTES: usize = ROOM_BYTES / 8;
/// How finely it is counted: a form takes as much as has come of it, and so much at least.
const GRAIN_BYTES: usize = 4 * 1024;

/// Room for the forms that one thread is reading.
#[derive(Debug, Default)]
pub(super) struct Room {
    taken: Cell<usize>,
    /// What each client has taken; only those that have.
    shares: RefCell<HashMap<IpAddr, usize>>,
}

/// A part of the room; given back when dropped.
struct Place {
    room: Rc<Room>,
    client: IpAddr,
    bytes: usize,
}

impl Place {
    fn new(room: &Rc<Room>, client: IpAddr) -> Self {
        Self { room: Rc::clone(room), client: counted_address(client), bytes: 0 }
    }

    /// Makes it large enough for so many bytes. False: there is no room.
    fn fit(&mut self, bytes: usize) -> bool {
        let grains = bytes.max(1).next_multiple_of(GRAIN_BYTES);
        let more = grains.saturating_sub(self.bytes);
        let mut shares = self.room.shares.borrow_mut();
        let share = shares.get(&self.client).map_or(0, |share| *share) + more;
        let taken = self.room.taken.get() + more;
        if taken > ROOM_BYTES || share > SHARE_BYTES {
            return false;
        }
        shares.insert(self.client, share);
        self.room.taken.set(taken);
        self.bytes += more;
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.taken.set(self.room.taken.get() - self.bytes);
        let mut shares = self.room.shares.borrow_mut();
        if let Some(share) = shares.get_mut(&self.client) {
            *share -= self.bytes;
            if *share == 0 {
                shares.remove(&self.client);
            }
        }
    }
}

/// Reads a form to its end, in no more time than a body may rest: it is small.
///
/// # Errors
///
/// It is too large, its sender too slow or gone, or there is no room for another one.
pub(super) async fn read(
    body: &mut Option<ClientBody>,
    room: &Rc<Room>,
    client: IpAddr,
    exchange: &Exchange,
) -> Result<Bytes, Rejection> {
    let Some(incoming) = body.as_mut() else { return Ok(Bytes::new()) };
    if incoming.size_hint().lower() > MAX_FORM_BYTES as u64 {
        return Err(Reason::BodyTooLarge.into());
    }
    let full = || Rejection::from(Reason::Overloaded).retry_after(1).note("too many forms are being read");
    let mut place = Place::new(room, client);
    if !place.fit(0) {
        return Err(full());
    }
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
            None => {
                exchange.idle();
                return Ok(form.into());
            }
            Some(Err(error)) => {
                return Err(bad_body(error).unwrap_or_else(|| Reason::RequestTimeout.into()));
            }
            Some(Ok(frame)) => {
                let Ok(bytes) = frame.into_data() else { continue };
                if form.len() + bytes.len() > MAX_FORM_BYTES {
                    return Err(Reason::BodyTooLarge.into());
                }
                if !place.fit(form.len() + bytes.len()) {
                    return Err(full());
                }
                form.extend_from_slice(&bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    #[test]
    fn one_client_does_not_shut_the_others_out() {
        let room = Rc::<Room>::default();
        let mut places: Vec<_> = (0..SHARE_BYTES / GRAIN_BYTES).map(|_| Place::new(&room, client(1))).collect();
        assert!(places.iter_mut().all(|place| place.fit(0)));
        assert!(!Place::new(&room, client(1)).fit(1), "its share is used up");
        assert!(!places[0].fit(GRAIN_BYTES + 1), "also for what is being read");
        assert!(places[0].fit(GRAIN_BYTES), "what has a place keeps it");
        assert!(Place::new(&room, client(2)).fit(MAX_FORM_BYTES));
        places.pop();
        assert!(Place::new(&room, client(1)).fit(1));
    }

    #[test]
    fn all_together_hold_no_more_than_the_room() {
        let room = Rc::<Room>::default();
        let mut places: Vec<_> = (0..128).map(|number| Place::new(&room, client(number))).collect();
        assert!(places.iter_mut().all(|place| place.fit(MAX_FORM_BYTES)));
        assert!(!Place::new(&room, client(200)).fit(1));
        drop(places);
        assert_eq!((room.taken.get(), room.shares.borrow().len()), (0, 0));
        assert!(Place::new(&room, client(200)).fit(1));
    }
}
