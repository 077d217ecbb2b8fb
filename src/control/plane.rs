//! The control plane, composed: opens the store, starts every room in order, and drains.
//!
//! Threads: the serving threads and the accept thread belong to the listener; the store, the ledger and what follows them
//! work on a runtime of their own ("store"), so that no change is broken off because a client is gone; "back" serves the
//! admin port, and "chores" follows the certificate once a second.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    rc::Rc,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{runtime::Runtime, sync::oneshot};

use super::{
    anchor::{self, Anchor},
    desk::Desk,
    front::{Front, Room},
    ledger::Ledger,
    routes,
    settings::Settings,
    setup,
    store::{self, StoreError},
};
use crate::{
    clock,
    listener::{self, Counters, Handle, ListenError, ShutdownSettings, tls},
    telemetry::{Health, Output, admin, log},
};

/// How often the certificate is looked at.
const CHORES: Duration = Duration::from_secs(1);
/// How long the last log lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(1);
/// A store that was not confirmed for so long is trouble.
const SILENT: Duration = Duration::from_secs(5);

/// Why the control plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store has less than was noted outside of it.
    #[error(
        "the store ends with audit entry {found}, and {anchor} knows of entry {noted}: an older copy was put back, or its end was \
         cut off. `keyside audit verify` says more. If that is meant, start once with --restored: it begins a new history, \
         which sidecars take"
    )]
    Older {
        /// The last entry of the store.
        found: u64,
        /// The last entry that was noted.
        noted: u64,
        /// Where.
        anchor: String,
    },
    /// The store has another history than was noted outside of it, and not one that was begun from that.
    #[error(
        "the store holds the history {found}, and {anchor} noted {noted} last, from which that one was not begun: the database from \
         before a restore was put back, or that of another installation. Put the right one in its place. If this one is meant, \
         start once with --restored: it begins a new history, which sidecars take"
    )]
    Another {
        /// The history of the store.
        found: String,
        /// The one that was noted last.
        noted: String,
        /// Where.
        anchor: String,
    },
    /// What was noted outside of it cannot be read.
    #[error(
        "the audit anchor {anchor} is there and cannot be read, so nobody knows whether the store is the newest one"
    )]
    Anchor {
        /// Where.
        anchor: String,
        /// Why.
        source: io::Error,
    },
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The admin port cannot be bound.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// It could be reached from outside, and whoever came first could set themselves up.
    #[error(
        "nobody has a password yet, and {0} can be reached from outside: give [setup] a password, or make an operator by \
         `keyside operators create`, or begin on loopback"
    )]
    Open(SocketAddr),
    /// The first operator could not be made.
    #[error("the first operator could not be made: {0}")]
    Setup(String),
    /// A thread or a runtime could not be started.
    #[error("cannot start {what}")]
    Thread {
        /// Which.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A running control plane.
#[derive(Debug)]
pub struct Plane {
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    setup: Option<String>,
    desk: Arc<Desk>,
    listener: Handle,
    shutdown: ShutdownSettings,
    health: Arc<Health>,
    chores: Worker<mpsc::Sender<()>>,
    back: Worker<oneshot::Sender<()>>,
    runtime: Runtime,
    outputs: [Output; 2],
}

/// A thread, and what tells it to end.
#[derive(Debug)]
struct Worker<S> {
    stop: S,
    thread: JoinHandle<()>,
}

impl Plane {
    /// Starts everything. When it returns, connections are accepted. `restored`: an older copy of the store was put back on
    /// purpose.
    ///
    /// # Errors
    ///
    /// See [`StartError`]. Nothing is left running.
    pub fn start(settings: Settings, restored: bool) -> Result<Self, StartError> {
        let thread = |what| move |source| StartError::Thread { what, source };
        let outputs = [
            Output::stdout().map_err(thread("the log writers"))?,
            Output::stderr().map_err(thread("the log writers"))?,
        ];
        log::install(&outputs[1], settings.log.format, std::env::var("RUST_LOG").ok().as_deref());

        let bound = listener::bind(&settings.listener)?;
        let tls = bound.reloader();
        let admin_bound = admin::bind(&settings.admin)?;
        let admin_address = admin_bound.address();

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("store")
            .enable_all()
            .build()
            .map_err(thread("the runtime of the store"))?;
        let health = Arc::new(Health::new());
        let desk = runtime.block_on(open(settings, restored))?;
        let setup = runtime.block_on(setup::prepare(&desk))?;
        if let (Some(_), Some(address)) = (&setup, desk.settings.beyond_loopback()) {
            return Err(StartError::Open(address));
        }
        health.set_keys(Ok::<(), String>(()));
        runtime.spawn(Arc::clone(&desk).keep_up());
        if let Some(path) = &desk.settings.anchor {
            runtime.spawn(Anchor::new(path.clone()).follow(desk.ledger.follow()));
        }

        let counters = Arc::new(Counters::default());
        let (trusted, header) = (desk.settings.trusted_proxies().clone(), desk.settings.client_ip_header.clone());
        let max_body = desk.settings.max_body;
        let router = routes::router(Arc::clone(&desk));
        let (serving, room) = (Arc::clone(&desk), Room::default());
        let factory = move |_: usize| {
            Rc::new(Front {
                desk: Arc::clone(&serving),
                room: room.clone(),
                router: router.clone(),
                trusted_proxies: trusted.clone(),
                client_ip_header: header.clone(),
                max_body,
            })
        };
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let listening = bound.start(threads, factory, counters)?;
        health.set_listening(true);

        let back = back(admin_bound, &desk, &health).map_err(thread("the admin port"))?;
        let chores = chores(tls, &desk, &health).map_err(thread("the chores"))?;
        let addresses = listening.local_addrs().to_vec();
        let keys = desk.ledger.read(|image| image.keys().len());
        tracing::info!(
            listener.addresses = %join(&addresses), admin.address = %admin_address.map_or_else(String::new, |address| address.to_string()), keys.loaded = keys, threads, "listening"
        );
        Ok(Self {
            addresses,
            admin: admin_address,
            setup,
            listener: listening.handle(),
            shutdown: desk.settings.shutdown,
            desk,
            health,
            chores,
            back,
            runtime,
            outputs,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where metrics are served.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The path of the link by which the first operator sets themselves up; none where there is one.
    pub fn setup(&self) -> Option<&str> {
        self.setup.as_deref()
    }

    /// What all handlers share.
    pub fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// Ends a [`stop`](Self::stop) that is waiting: what is running is cut.
    pub fn stopper(&self) -> impl Fn() + Send + 'static {
        let listener = self.listener.clone();
        move || listener.abort()
    }

    /// Drains and stops. Streams of sidecars end at once, so that they go elsewhere.
    pub async fn stop(self) {
        self.health.drain();
        self.desk.drain();
        tracing::info!("draining");
        let drained = self.listener.drain(self.shutdown.delay, self.shutdown.grace).await;
        self.health.set_listening(false);
        let _ = self.back.stop.send(());
        let _ = self.chores.stop.send(());
        // Panics of the threads were reported when they happened.
        let _ = self.back.thread.join();
        let _ = self.chores.thread.join();
        self.desk.ledger.settle().await;
        // So that the file alone is the whole store: it may be copied now.
        self.desk.ledger.close().await;
        self.runtime.shutdown_background();
        tracing::info!(requests.cut = drained.cut, "stopped");
        for output in &self.outputs {
            output.flush(LAST_LINES);
        }
    }
}

/// Opens the store, and loads everything.
async fn open(settings: Settings, restored: bool) -> Result<Arc<Desk>, StartError> {
    let unreadable = |path: &Path| {
        let anchor = path.display().to_string();
        move |source| StartError::Anchor { anchor, source }
    };
    // Where something was once, an empty store in its place would have every sidecar refuse every key.
    let create = match &settings.anchor {
        Some(anchor) => !anchor.try_exists().map_err(unreadable(anchor))?,
        None => true,
    };
    let store = store::open(&store::Settings { place: settings.store.clone(), create }).await?;
    let ledger = Ledger::open(store).await?;
    if restored {
        ledger.begin_anew().await?;
        tracing::warn!(
            "a new history has begun with what is in the store. What was revoked, suspended or narrowed after that was written is \
             undone, but for revocations on sidecars that have seen them: do it again. New sidecars know nothing of it. Sidecars that came after \
             the copy was made are not known: receipts are incomplete until max_stale of [sync] has gone by"
        );
    } else if let Some(anchor) = &settings.anchor
        && let Some(lines) = anchor::read_if_there(anchor).map_err(unreadable(anchor))?
    {
        let head = ledger.read(|image| image.head().clone());
        if let Some(last) = lines.last()
            && last.epoch != head.epoch
            && !ledger.goes_on_from(&last.epoch).await?
        {
            let (noted, anchor) = (last.epoch.clone(), anchor.display().to_string());
            return Err(StartError::Another { found: head.epoch, noted, anchor });
        }
        if let Some(noted) = lines.iter().rfind(|line| line.epoch == head.epoch)
            && (noted.seq > head.entries || (noted.seq == head.entries && noted.hash != head.hash))
        {
            return Err(StartError::Older {
                found: head.entries,
                noted: noted.seq,
                anchor: anchor.display().to_string(),
            });
        }
    }
    Ok(Desk::new(settings, ledger).await?)
}

fn back(bound: admin::Bound, desk: &Arc<Desk>, health: &Arc<Health>) -> io::Result<Worker<oneshot::Sender<()>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel();
    // Nothing of a control plane is reloaded but its certificate, which follows its files by itself.
    let (reload, _) = tokio::sync::mpsc::channel(1);
    let state = admin::State { registry: Arc::new(desk.metrics.clone()), health: Arc::clone(health), reload };
    let thread = thread::Builder::new().name("back".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = stopped => {}
                () = bound.serve(state) => {}
            }
        });
    })?;
    Ok(Worker { stop, thread })
}

fn chores(
    tls: Option<Arc<tls::Reloader>>,
    desk: &Arc<Desk>,
    health: &Arc<Health>,
) -> io::Result<Worker<mpsc::Sender<()>>> {
    let (stop, stopped) = mpsc::channel();
    let (desk, health) = (Arc::clone(desk), Arc::clone(health));
    let thread = thread::Builder::new().name("chores".into()).spawn(move || {
        let mut fault = None;
        while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(CHORES) {
            if let Some(tls) = &tls {
                follow_certificate(tls, &health, &mut fault);
            }
            let silent = clock::mono().since(desk.ledger.confirmed()) > SILENT;
            health.set_keys(match desk.ledger.holds() {
                Err(astray) => Err(astray.to_string()),
                Ok(()) if silent => Err("the store does not answer".to_owned()),
                Ok(()) => Ok(()),
            });
            drop(sd_notify::notify(&[sd_notify::NotifyState::Watchdog]));
        }
    })?;
    Ok(Worker { stop, thread })
}

fn join(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Takes a new certificate into force; says of a bad one once why it is not taken.
fn follow_certificate(tls: &tls::Reloader, health: &Health, fault: &mut Option<String>) {
    match tls.reload() {
        Ok(true) => {
            tracing::info!("a new certificate is in force");
            *fault = None;
            health.notice("certificate", None);
        }
        Ok(false) => {
            if fault.take().is_some() {
                health.notice("certificate", None);
            }
        }
        Err(error) => {
            let text = error.to_string();
            if fault.as_ref() != Some(&text) {
                tracing::error!(error = %text, "the new certificate is not taken");
                health.notice("certificate", Some(text.clone()));
                *fault = Some(text);
            }
        }
    }
}
