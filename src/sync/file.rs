//! A key file as the source of keys: watched, judged, applied, and reported on.
//!
//! It runs on a thread of its own, since reading and building a large set takes longer than an event loop may be held
//! up. A change is found by an event of the folder, and by a look twice a second in case there was none.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, SyncSender},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::oneshot;

pub use super::source::FileSource;
use super::watch::Watch;
use crate::{
    clock::Wall,
    keys::{
        KeySet,
        document::{Document, Refused},
        store::{Applied, Terms},
    },
    usage::Folder,
};

/// How often the file is looked at when no event says that it changed.
const POLL: Duration = Duration::from_millis(500);
/// How soon a text that is being written is looked at again.
const RETRY: Duration = Duration::from_millis(40);
/// Events come in bursts; one look answers all that came within this time.
const BURST: Duration = Duration::from_millis(5);

/// Which file, and how it is read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The key file.
    pub file: PathBuf,
    /// Where the last good text and revoked ids are kept; without it, a restart forgets them.
    pub state: Option<Folder>,
    /// What rows are read by.
    pub terms: Terms,
}

/// What happened to the key file, as it is told to whoever counts.
#[derive(Debug)]
pub enum Event<'a> {
    /// A text was put into force.
    Applied {
        /// What it came to.
        applied: &'a Applied,
        /// Its rows.
        document: &'a Document,
        /// The time from the change of the file until it was in force; none for the first text after a start.
        latency: Option<Duration>,
        /// Whether it is the last good text of the state folder, for the file itself is not good.
        from_state: bool,
    },
    /// A new text was refused; the last good set stays.
    Refused(&'a Refused),
    /// The file cannot be read; the last good set stays.
    Unreadable(&'a io::Error),
    /// The file holds what is in force again.
    Recovered,
    /// The state folder cannot be used, or can again.
    State {
        /// Whether it can.
        usable: bool,
    },
}

/// How the source is doing.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The revision in force; 0 before the first. A control endpoint's own, where keys come from one.
    pub revision: u64,
    /// Texts that were put into force.
    pub applied: u64,
    /// Texts that were refused, and files that could not be read.
    pub failed: u64,
    /// Entries that are set aside in the text in force.
    pub quarantined: usize,
    /// When the file was last seen to hold what is in force.
    pub last_success: Option<Wall>,
    /// What is wrong with the file now, in one paragraph; none while the file is what is in force.
    pub fault: Option<String>,
    /// Whether the state folder could be used the last time.
    pub state_usable: bool,
}

/// How a reload that was asked for went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// A text was put into force.
    Applied,
    /// The file holds what is in force already.
    Unchanged,
}

/// What is told of every [`Event`].
pub type Report = Box<dyn FnMut(&Event<'_>) + Send>;
/// What sees a new set before any request does: saved usage is restored into it.
pub type Prepare = Box<dyn FnMut(&KeySet) + Send>;

enum Message {
    Changed,
    Reload { terms: Option<Box<Terms>>, answer: oneshot::Sender<Result<Reloaded, String>> },
    Stop,
}

/// A source at work. Dropping it stops the thread.
pub struct Handle {
    messages: SyncSender<Message>,
    thread: Option<JoinHandle<()>>,
    status: Arc<Mutex<Status>>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("status", &self.status()).finish()
    }
}

impl Handle {
    /// Reads the file now, and takes what it would be too careful to take by itself (SIGHUP). New terms, such as
    /// another pepper, are used from now on.
    ///
    /// # Errors
    ///
    /// Why the file was not taken; what was in force stays so.
    pub async fn reload(&self, terms: Option<Terms>) -> Result<Reloaded, String> {
        let (answer, answered) = oneshot::channel();
        let stopped = || "the source of keys has stopped".to_owned();
        // The channel is as good as never full; a caller that has to wait for it once is better than a lost reload.
        self.messages.send(Message::Reload { terms: terms.map(Box::new), answer }).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }

    /// How the source is doing.
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same, for whoever outlives the handle (metrics, readiness).
    pub fn shared_status(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.status)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs a source on a thread of its own, from here on. To be called after [`FileSource::load`].
///
/// # Errors
///
/// The thread cannot be started.
pub fn watch(mut source: FileSource) -> io::Result<Handle> {
    let status = source.shared_status();
    let file = source.file().to_path_buf();
    let (messages, inbox) = mpsc::sync_channel(64);
    let changed = messages.clone();
    let thread = std::thread::Builder::new().name("keys".into()).spawn(move || {
        let mut watch = Watch::new(move || {
            // Full means that a look is due anyway.
            let _ = changed.try_send(Message::Changed);
        });
        watch.aim(&file);
        loop {
            let wait = if source.is_settling() { RETRY } else { POLL };
            let mut reloads = Vec::new();
            let mut message = inbox.recv_timeout(wait);
            if matches!(message, Ok(Message::Changed)) {
                std::thread::sleep(BURST);
            }
            loop {
                match message {
                    Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Ok(Message::Reload { terms, answer }) => reloads.push((terms, answer)),
                    Ok(Message::Changed) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                }
                message = inbox.recv_timeout(Duration::ZERO);
            }
            // The watch first: what changes between the two is then seen by it.
            watch.aim(&file);
            if reloads.is_empty() {
                guarded(|| source.look());
            }
            for (terms, answer) in reloads {
                let outcome = guarded(|| source.reload(terms.map(|terms| *terms)));
                let _ = answer.send(outcome.unwrap_or_else(|| Err("reading the key file failed".to_owned())));
            }
        }
    })?;
    Ok(Handle { messages, thread: Some(thread), status })
}

/// A defect in reading one version of the file must not end the reading of all later ones.
fn guarded<T>(look: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(look))
        .map_err(|_| tracing::error!("reading the key file panicked; what was in force stays so"))
        .ok()
}
