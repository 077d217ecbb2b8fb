//! A control endpoint as the source of keys: its set is taken, its changes are followed, and it is told what is in force.
//!
//! Whatever it says is judged before it counts; what is not believed leaves the last good set in force. How long that is
//! served without a word of the endpoint is limited, for reads and for writes apart.
//!
//! | file | holds |
//! |---|---|
//! | `protocol` | the lines, one by one |
//! | `rows` | the rows, and what a line changes in them |
//! | `engine` | what is judged, put into force and kept |
//! | `session` | the conversation: set, changes, loss, return |
//! | `reports` | what the endpoint is told, on a thread of its own |
//! | `tally` | what of the use of keys it was not told yet |
//! | `identity` | who we are to the endpoint, and whose place we take |
//! | `journal` | the last good set on the disk |
//! | `keeper` | the thread that writes it |

mod engine;
mod identity;
mod journal;
mod keeper;
mod protocol;
mod reports;
mod rows;
mod session;
mod tally;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc::RecvTimeoutError},
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};

pub use engine::Report;
use engine::{Engine, Parts};
use identity::Identity;
use journal::Confirmed;
pub use journal::JOURNAL;
use keeper::Keeper;
use reports::{Facts, Reports};
use session::Session;

use super::file::{Prepare, Reloaded, Status};
use crate::{
    client::{self, Client, SettingsError, Url},
    clock::{self, Wall},
    keys::{
        KeyStore, Purpose,
        document::Document,
        store::{Applied, Terms},
    },
    usage::{Folder, Revoked},
};

/// How long a start waits for the endpoint: whoever serves at once what is on the disk may serve a key that was revoked
/// while nobody was here.
const FIRST: Duration = Duration::from_secs(2);

/// Which endpoint, and how what it says is taken.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How it is reached.
    pub client: client::Settings,
    /// What we are called there; absent: as the machine.
    pub instance: Option<Box<str>>,
    /// What rows are read by.
    pub terms: Terms,
    /// How long keys are served that the endpoint does not confirm.
    pub limits: Limits,
}

/// How long keys are served that the endpoint does not confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For requests that only read.
    pub reads: Duration,
    /// For all others.
    pub writes: Duration,
}

impl Limits {
    /// The shorter ones of both.
    fn shorter(self, other: Self) -> Self {
        Self { reads: self.reads.min(other.reads), writes: self.writes.min(other.writes) }
    }

    fn each(self) -> [(Purpose, Duration); 2] {
        [(Purpose::Read, self.reads), (Purpose::Write, self.writes)]
    }
}

/// What a sidecar keeps of its endpoint's keys, for a start without it.
#[derive(Debug)]
pub struct Kept {
    /// Owners, keys and revocations.
    pub document: Document,
    /// The revision that they are of.
    pub revision: u64,
    /// When the endpoint last said that this was its newest, as far as that was noted: it is every ten seconds.
    pub confirmed: Option<Wall>,
}

/// Looks at what the sidecar with this state folder keeps of this endpoint; changes nothing.
///
/// # Errors
///
/// It cannot be read, or is damaged.
pub fn kept(state: &Path, url: &Url) -> Result<Option<Kept>, String> {
    let folder = Folder::new(state);
    let Some(whole) = journal::look(&folder, url)? else { return Ok(None) };
    Ok(Some(Kept {
        document: whole.rows.document(&whole.revoked, &whole.faults),
        revision: whole.position.revision,
        confirmed: Confirmed::read(&folder, url, &whole.position).map(|confirmed| confirmed.at()),
    }))
}

/// What happened with the endpoint, as it is told to whoever counts.
#[derive(Debug)]
pub enum Event<'a> {
    /// A set, or changes, were put into force.
    Applied {
        /// What it came to.
        applied: &'a Applied,
        /// Whether it came from the endpoint, and not from the disk.
        from_endpoint: bool,
    },
    /// Something that it said was not taken; the last good set stays.
    Refused(&'a str),
    /// What it says is good again.
    Recovered,
    /// It can be reached; or why not.
    Reachable(Option<&'a str>),
    /// Whether the keys are too old to be served.
    Stale {
        /// For requests that only read.
        reads: bool,
        /// For all others.
        writes: bool,
    },
}

/// Why the source cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What the endpoint is reached by cannot be used.
    #[error(transparent)]
    Client(#[from] SettingsError),
    /// A thread or a runtime could not be started.
    #[error("cannot start the source of keys")]
    Thread(#[from] io::Error),
}

enum Message {
    Reload { client: Box<Client>, terms: Box<Terms>, limits: Limits, answer: oneshot::Sender<Result<(), String>> },
    Stop,
}

/// A source at work. Dropping it says goodbye to the endpoint and stops the threads.
pub struct Handle {
    messages: mpsc::Sender<Message>,
    reports: Option<Reports>,
    thread: Option<JoinHandle<()>>,
    status: Arc<Mutex<Status>>,
    store: Arc<KeyStore>,
    identity: Arc<Identity>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("status", &self.status()).finish()
    }
}

/// Serves what the disk has, asks the endpoint, and follows it from here on. Waits a moment for its first answer. In
/// `folder` the last good set and revoked ids are kept.
///
/// # Errors
///
/// See [`StartError`]. An endpoint that cannot be reached is none.
pub fn start(settings: Settings, folder: Folder, report: Report, prepare: Prepare) -> Result<Handle, StartError> {
    let client = Client::new(&settings.client)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let url = settings.client.url.clone();
    let revoked = Revoked::open(&folder);
    let store = Arc::new(KeyStore::new(revoked.all().clone()));
    let status = Arc::new(Mutex::new(Status { state_usable: true, ..Status::default() }));
    let identity = Identity::take(folder.clone(), &url, instance(settings.instance.as_deref()).into());
    let client = Arc::new(client.with(identity.fields()));

    let (applied, applied_of) = watch::channel(None);
    let (durable, durable_of) = watch::channel(None);
    let (clients, clients_of) = watch::channel(Arc::clone(&client));
    let (connections, connections_of) = watch::channel(0);
    let kept = journal::read(&folder, &url);
    let keeper = Keeper::start(folder.clone(), url.clone(), revoked, durable, Arc::clone(&status))?;
    let parts = Parts {
        store: Arc::clone(&store),
        terms: settings.terms,
        limits: settings.limits,
        keeper,
        applied,
        report,
        prepare,
        status: Arc::clone(&status),
    };
    let mut engine = Engine::new(parts);
    if let Some(kept) = kept {
        let now = clock::moment();
        let confirmed = Confirmed::read(&folder, &url, &kept.position);
        engine.restore(kept, confirmed, now);
    }
    let facts = Facts {
        instance: Arc::clone(&identity.instance),
        store: Arc::clone(&store),
        applied: applied_of,
        durable: durable_of,
        clients: clients_of,
        connections: connections_of,
    };
    let reports = Reports::start(facts)?;
    let (messages, inbox) = mpsc::channel(16);
    let of_session = Arc::clone(&identity);
    let (first, tried) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("keys".into()).spawn(move || {
        let follow = async {
            let mut ticks = tokio::time::interval(session::TICK);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let session = Session {
                engine,
                client,
                identity: of_session,
                messages: inbox,
                clients,
                connections,
                first: Some(first),
                failures: 0,
                said: None,
                // What the disk has is followed from where it is.
                again: false,
                ticks,
                taken: 0,
            };
            session.run().await;
        };
        // What is in force is served on, for as long as it may be without the endpoint.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(follow))).is_err() {
            tracing::error!("following the control endpoint panicked; the keys in force stay until they are too old");
        }
    })?;
    if tried.recv_timeout(FIRST) == Err(RecvTimeoutError::Timeout) {
        tracing::warn!(%url, "the control endpoint has not answered yet");
    }
    Ok(Handle { messages, reports: Some(reports), thread: Some(thread), status, store, identity })
}

impl Handle {
    /// The store that this source fills.
    pub fn store(&self) -> &Arc<KeyStore> {
        &self.store
    }

    /// How the source is doing.
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same, for whoever outlives the handle (metrics, readiness).
    pub fn shared_status(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.status)
    }

    /// Takes other files and secrets to reach the endpoint by, other terms and limits; the url stays. Connects anew.
    ///
    /// # Errors
    ///
    /// They cannot be used, or the endpoint refuses them. All stays as it was.
    pub async fn reload(&self, settings: &client::Settings, terms: Terms, limits: Limits) -> Result<Reloaded, String> {
        let client = Client::new(settings).map_err(|error| crate::fault::chain(&error))?.with(self.identity.fields());
        let (answer, answered) = oneshot::channel();
        let stopped = || "the source of keys has stopped".to_owned();
        let message = Message::Reload { client: Box::new(client), terms: Box::new(terms), limits, answer };
        self.messages.send(message).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?.map(|()| Reloaded::Applied)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The last words are about what is in force, so they come before it ends.
        drop(self.reports.take());
        // A channel that is full is one that is being read.
        let _ = self.messages.try_send(Message::Stop);
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.messages, closed));
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// The name of this process: that of the machine or as set, and something that no other process has.
fn instance(name: Option<&str>) -> String {
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let plain = |character: char| character.is_ascii_alphanumeric() || "_-.".contains(character);
    let name = name.unwrap_or(&machine).chars().take(64).map(|each| if plain(each) { each } else { '-' });
    let name: String = name.collect();
    let mut random = [0; 16];
    // Without randomness the process is still told from others on its machine.
    if getrandom::fill(&mut random).is_err() {
        random[..4].copy_from_slice(&std::process::id().to_le_bytes());
        random[4..12].copy_from_slice(&clock::boot().as_nanos().to_le_bytes());
    }
    let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}.{random}", if name.is_empty() { "keyside" } else { &name })
}
