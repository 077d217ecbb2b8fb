//! Bodies of those of whom nothing is known yet: a form for signing in is one. They are small, few at a time and quick; when
//! there are too many, the oldest goes, so that whoever is slow on purpose keeps nobody from signing in.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::oneshot;

/// The most that such a body has: a form. In bytes.
pub(super) const MOST: u64 = 16 << 10;
/// How long all of it may take.
pub(super) const TIME: Duration = Duration::from_secs(10);
/// How many there are at a time, over all connections.
const AT_A_TIME: usize = 256;

/// Bodies that are being read, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    reading: Mutex<VecDeque<(u64, oneshot::Sender<()>)>>,
    next: AtomicU64,
}

/// A body's place among them, given back when dropped.
#[derive(Debug)]
pub(super) struct Place<'s> {
    all: &'s Strangers,
    number: u64,
    go: oneshot::Receiver<()>,
}

impl Strangers {
    /// A place for one more; the oldest is told to go, if there are too many.
    pub(super) fn enter(&self) -> Place<'_> {
        let (stay, go) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        reading.push_back((number, stay));
        if reading.len() > AT_A_TIME {
            reading.pop_front();
        }
        Place { all: self, number, go }
    }
}

impl Place<'_> {
    /// Returns when others need the place.
    pub(super) async fn is_over(&mut self) {
        // Nothing is ever sent: it ends with its sender.
        let _ = (&mut self.go).await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut reading = self.all.reading.lock().unwrap_or_else(PoisonError::into_inner);
        reading.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let strangers = Strangers::default();
        let mut all: Vec<_> = (0..AT_A_TIME).map(|_| strangers.enter()).collect();
        let over = |place: &mut Place<'_>| place.is_over().now_or_never().is_some();
        assert!(!all.iter_mut().any(over));
        // One that is done makes room by itself.
        drop(all.remove(0));
        all.push(strangers.enter());
        assert!(!all.iter_mut().any(over));
        all.push(strangers.enter());
        let gone: Vec<_> = all.iter_mut().map(over).collect();
        assert!(gone[0] && !gone[1..].contains(&true));
        drop(all);
        assert!(strangers.reading.lock().unwrap().is_empty());
    }
}
