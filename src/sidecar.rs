//! The data plane, composed: starts every room in order, reloads, and drains.
//!
//! Threads: the serving threads and the accept thread belong to the listener, the verification threads to `keys`, those
//! that follow the source of keys to `sync`, the writers of logs to `telemetry`. Here are two more: "back", a runtime for
//! the admin port and reloads, and "chores", which looks after the certificate once a second.

mod chores;
mod descriptors;
mod reload;
mod source;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_local,
};

use crate::{
    clock,
    config::{self, Config, Faults, Loaded, OnRevoke},
    keys::{KeyStore, verify::Verifier},
    limits::Limiter,
    listener::{self, Counters, Handle, ListenError, ShutdownSettings},
    proxy::{Live, LiveError, Pipeline, Recorder, Shared, live},
    sync::{endpoint, file},
    telemetry::{AccessLog, Family, Health, Output, Registry, admin, log},
    usage::{Folder, NotTaken, Saver, State},
};
use chores::{Chores, StateFolder};
use descriptors::{Shares, Wanted};
use reload::Reloader;
use source::Source;

/// How often a serving thread prunes kept connections and shows that it lives.
const TICK: Duration = Duration::from_secs(1);
/// How long the last log lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Why the data plane could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(Faults),
    /// What the configuration names cannot be used.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The state folder is another sidecar's, or another user's.
    #[error(transparent)]
    State(#[from] NotTaken),
    /// What the control endpoint is reached by cannot be used.
    #[error("[keys.control]")]
    Control(#[source] endpoint::StartError),
    /// The admin port cannot be bound.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// A thread or a runtime could not be started.
    #[error("cannot start {what}")]
    Thread {
        /// Which.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A running data plane. Dropping it without [`stop`](Self::stop) cuts what is running.
#[derive(Debug)]
pub struct Sidecar {
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    probes: Option<SocketAddr>,
    listener: Handle,
    shutdown: ShutdownSettings,
    health: Arc<Health>,
    reload: mpsc::Sender<admin::ReloadRequest>,
    verifier: Arc<Verifier>,
    saver: Saver,
    chores: Chores,
    back: Back,
    outputs: [Output; 2],
}

/// How a data plane ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Requests that were cut.
    pub cut: usize,
}

impl Sidecar {
    /// Starts everything that the configuration file says. When it returns, connections are accepted.
    ///
    /// # Errors
    ///
    /// See [`StartError`]. Nothing is left running.
    pub fn start(path: PathBuf) -> Result<Self, StartError> {
        let Loaded { config, warnings, .. } = config::load(&path, config::environment()).map_err(StartError::Config)?;
        let outputs = outputs()?;
        let [stdout, stderr] = outputs.clone();
        log::install(&stderr, config.log.format, std::env::var("RUST_LOG").ok().as_deref());
        for warning in &warnings {
            let file = warning.file.as_deref().map(|file| file.display().to_string());
            tracing::warn!(
                fault.message = %warning.message, fault.file = file, fault.line = warning.line,
                fault.suggestion = warning.suggestion, "the configuration may surprise"
            );
        }

        // What can fail because of the outside comes first, so that nothing has to be taken back.
        let mut live = Live::new(live_settings(&config))?;
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let shares = shares(&config, threads, live.upstream_connections());
        live.bound_upstream_connections(shares.upstream);
        let listener = listener::Settings { max_connections: shares.connections, ..config.listener.clone() };
        let bound = listener::bind(&listener)?;
        let tls = bound.reloader();
        let admin_bound = admin::bind(&config.admin)?;
        let (admin_address, probes) = (admin_bound.address(), admin_bound.probes_address());

        let health = Arc::new(Health::new());
        let registry = Arc::new(Registry::new());
        let limiter = Arc::new(Limiter::new(Limiter::DEFAULT_ENTRIES));
        let verifier = Verifier::start(config.keys.verification.clone())
            .map_err(|source| StartError::Thread { what: "the verification threads", source })?;
        let verifier = Arc::new(verifier);
        // Before anything in it is read: one who is just ending saves last what counts.
        let folder = Folder::take(&config.keys.state)?;
        let state = State::open(&folder, &limiter, &live.limits, clock::now());

        let (source, keys) = Source::start(&config, folder, &registry, &health, state.restorer())?;
        report_keys(&health, &keys);

        let shared = Arc::new(Shared {
            live: ArcSwap::from_pointee(live),
            keys: Arc::clone(&keys),
            limiter: Arc::clone(&limiter),
            verifier: Arc::clone(&verifier),
        });
        let counters = Arc::new(Counters::default());
        registry.feed_keys(&keys);
        registry.feed_verifier(&verifier);
        registry.feed_limiter(&limiter);
        registry.feed_outputs(&outputs);
        registry.feed_listener(&counters);
        if let Some(tls) = &tls {
            registry.feed_certificate(tls);
        }
        feed_source(&registry, &source.shared_status());
        source.feed_revision(&registry);
        let state_folder = StateFolder { source: source.shared_status(), saved: state.healthy() };
        feed_state(&registry, state_folder.clone());

        let access = AccessLog::new(stdout, config.log.format, config.log.access);
        let serving = Arc::clone(&shared);
        let (metrics_of, health_of) = (Arc::clone(&registry), Arc::clone(&health));
        let factory = move |number: usize| {
            let recorder = Recorder { metrics: metrics_of.metrics(), log: access.clone() };
            let pipeline = Rc::new(Pipeline::new(Arc::clone(&serving), recorder, threads));
            let pulse = health_of.pulse(&format!("serve-{number}"), clock::mono());
            let ticked = Rc::downgrade(&pipeline);
            spawn_local(async move {
                let mut ticks = tokio::time::interval(TICK);
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    let Some(pipeline) = ticked.upgrade() else { return };
                    pipeline.tick();
                    pulse.beat(clock::mono());
                }
            });
            pipeline
        };
        let listening = bound.start(threads, factory, counters)?;
        health.set_listening(true);

        let current = Arc::clone(&shared);
        let saver = Saver::start(state, limiter, move || {
            let set = current.keys.load().as_ref().map(Arc::clone)?;
            Some((set, Arc::clone(&current.live.load().limits)))
        })
        .map_err(|source| StartError::Thread { what: "the saving of usage", source })?;
        let chores = Chores::start(chores::Tools {
            tls: tls.clone(),
            registry: Arc::clone(&registry),
            health: Arc::clone(&health),
            state: state_folder,
        })
        .map_err(|source| StartError::Thread { what: "the chores", source })?;
        let (reload, requests) = mpsc::channel(8);
        let addresses = listening.local_addrs().to_vec();
        let shutdown = config.shutdown;
        let listener = listening.handle();
        let reloader = Reloader {
            path,
            started: config,
            shares,
            shared,
            source,
            tls,
            registry: Arc::clone(&registry),
            health: Arc::clone(&health),
        };
        let admin_state = admin::State { registry, health: Arc::clone(&health), reload: reload.clone() };
        let back = Back::start(admin_bound, admin_state, reloader, requests)
            .map_err(|source| StartError::Thread { what: "the admin port", source })?;

        tracing::info!(
            listener.addresses = %join(&addresses),
            admin.address = %join(admin_address.as_slice()),
            probes.address = %join(probes.as_slice()),
            keys.loaded = keys.load().as_ref().map_or(0, |set| set.len()),
            threads,
            "listening"
        );
        Ok(Self {
            addresses,
            admin: admin_address,
            probes,
            listener,
            shutdown,
            health,
            reload,
            verifier,
            saver,
            chores,
            back,
            outputs,
        })
    }

    /// Where requests are accepted.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where metrics are served.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Where probes alone are served.
    pub fn probes(&self) -> Option<SocketAddr> {
        self.probes
    }

    /// Where requests to reload go.
    pub fn reloads(&self) -> mpsc::Sender<admin::ReloadRequest> {
        self.reload.clone()
    }

    /// Ends a [`stop`](Self::stop) that is waiting: what is running is cut.
    pub fn stopper(&self) -> impl Fn() + Send + 'static {
        let listener = self.listener.clone();
        move || listener.abort()
    }

    /// Drains and stops: not ready at once, new work for `shutdown.delay`, `shutdown.grace` for what is running.
    pub async fn stop(self) -> Stopped {
        self.health.drain();
        tracing::info!(
            delay_seconds = self.shutdown.delay.as_secs_f64(),
            grace_seconds = self.shutdown.grace.as_secs_f64(),
            "draining"
        );
        let drained = self.listener.drain(self.shutdown.delay, self.shutdown.grace).await;
        self.health.set_listening(false);
        self.back.finish();
        self.verifier.shut_down();
        self.saver.stop();
        self.chores.finish();
        tracing::info!(requests.cut = drained.cut, "stopped");
        for output in &self.outputs {
            output.flush(LAST_LINES);
        }
        Stopped { cut: drained.cut }
    }
}

/// Standard output, for access lines, and standard error, for what the program says of itself.
fn outputs() -> Result<[Output; 2], StartError> {
    let thread = |source| StartError::Thread { what: "the log writers", source };
    Ok([Output::stdout().map_err(thread)?, Output::stderr().map_err(thread)?])
}

/// Takes as many descriptors as the system allows and shares them out; says so where that is less than was asked for.
fn shares(config: &Config, threads: usize, upstream: usize) -> Shares {
    let limit = listener::raise_descriptor_limit();
    let ports = [config.admin.address, config.admin.probes].into_iter().flatten().count();
    let connections = config.listener.max_connections;
    // The serving threads, and those for accepting, for the admin port and for signals.
    let wanted = Wanted { threads: threads + 3, admin: ports * admin::MAX_CONNECTIONS, connections, upstream };
    let shares = Shares::of(limit, wanted);
    if shares.connections < connections || shares.upstream < upstream {
        tracing::warn!(
            descriptors.limit = limit,
            connections.max = shares.connections,
            upstream.connections.max = shares.upstream.min(upstream),
            "the limit on open files is too low for all connections that the configuration allows; raise it (ulimit -n, \
             LimitNOFILE)"
        );
    }
    shares
}

/// The settings of the request path.
pub fn live_settings(config: &Config) -> live::Settings {
    live::Settings {
        facts: config.facts.clone(),
        credential: config.credential.clone(),
        policy: config.policy.clone(),
        limits: config.limits.clone(),
        upstream: config.upstream.clone(),
        owner_headers: config.owner_headers.clone(),
        errors: config.errors,
        max_body: config.max_body,
        health_path: config.health_path.clone(),
        cut_on_revoke: config.keys.on_revoke == OnRevoke::Cut,
    }
}

fn report_keys(health: &Health, keys: &KeyStore) {
    if keys.load().is_none() {
        health.set_keys(Err("no key set could be loaded yet"));
        tracing::error!("no key set could be loaded: every request that needs a key is refused until there is one");
    }
}

fn feed_source(registry: &Registry, status: &Arc<Mutex<file::Status>>) {
    let read = |status: &Arc<Mutex<file::Status>>| {
        let status = Arc::clone(status);
        move || status.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    };
    let last = read(status);
    registry.feed(Family::SyncLastSuccess, move |samples| {
        if let Some(at) = last().last_success {
            #[expect(clippy::cast_precision_loss, reason = "a date is far below 2^53 seconds")]
            samples.one(at.unix_millis() as f64 / 1000.0);
        }
    });
    let quarantined = read(status);
    registry.feed(Family::QuarantinedEntries, move |samples| samples.count(&[], quarantined().quarantined as u64));
}

fn feed_state(registry: &Registry, state: StateFolder) {
    registry.feed(Family::StateUsable, move |samples| samples.count(&[], u64::from(state.is_usable())));
}

/// The thread of the admin port and of reloads; it owns the source of keys.
#[derive(Debug)]
struct Back {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Back {
    fn start(
        admin: admin::Bound,
        state: admin::State,
        mut reloader: Reloader,
        mut requests: mpsc::Receiver<admin::ReloadRequest>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("back".into()).spawn(move || {
            runtime.block_on(async {
                let reloads = async {
                    while let Some(admin::ReloadRequest(answer)) = requests.recv().await {
                        let result = reloader.reload().await;
                        // Whoever asked may be gone; the log says how it went.
                        let _ = answer.send(result);
                    }
                };
                tokio::select! {
                    // Also when the sidecar is dropped without a word.
                    _ = stopped => {}
                    _ = async { tokio::join!(admin.serve(state), reloads) } => {}
                }
            });
        })?;
        Ok(Self { stop, thread })
    }

    fn finish(self) {
        let _ = self.stop.send(());
        // A panic of the thread was reported when it happened.
        let _ = self.thread.join();
    }
}

fn join(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
