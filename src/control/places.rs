//! Work that takes a core and much memory, such as hashing: on threads that may block, a few at a time.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::JoinError};

/// How many may be at it at once.
#[derive(Debug)]
pub(super) struct Places(Arc<Semaphore>);

impl Places {
    pub(super) fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// Does it, once there is a place. The work itself holds the place: it goes on when whoever asked for it is gone.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        // Fails only when the places were closed, and nobody does that.
        let place = Arc::clone(&self.0).acquire_owned().await;
        tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_hangs_up_frees_no_place_before_the_work_is_done() {
        let places = Places::new(2);
        let mut held = Vec::new();
        for _ in 0..2 {
            let (go, wait) = channel::<()>();
            // The request begins its work, and is dropped with its client.
            assert!(places.work(move || wait.recv()).now_or_never().is_none());
            held.push(go);
        }
        assert_eq!(places.0.available_permits(), 0);
        let mut third = Box::pin(places.work(|| ()));
        assert!((&mut third).now_or_never().is_none());
        assert_eq!(places.0.available_permits(), 0);
        drop(held.pop());
        third.await.unwrap();
    }
}
