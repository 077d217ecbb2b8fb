//! The thread that saves: a disk may take its time, and nothing else waits for it.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::State;
use crate::{
    clock,
    keys::KeySet,
    limits::{Limiter, Plan},
};

/// How often the state is saved.
const EVERY: Duration = Duration::from_secs(1);

/// Saves once a second, and a last time when it is stopped or dropped.
#[derive(Debug)]
pub struct Saver {
    running: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Saver {
    /// Starts the thread. `current` gives the sets in force; while there is none, nothing is saved.
    pub fn start(
        mut state: State,
        limiter: Arc<Limiter>,
        mut current: impl FnMut() -> Option<(Arc<KeySet>, Arc<Plan>)> + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("usage".to_owned()).spawn(move || {
            loop {
                let waited = stopped.recv_timeout(EVERY);
                let now = clock::now();
                if let Some((keys, plan)) = current() {
                    state.save(&keys, &limiter, &plan, now);
                }
                limiter.sweep(now.mono);
                if waited != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
        Ok(Self { running: Some((stop, thread)) })
    }

    /// Saves a last time and waits for it.
    pub fn stop(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        self.finish();
    }
}
