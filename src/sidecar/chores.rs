//! What is done once a second, on a thread of its own, for it may wait for a disk.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    clock,
    listener::tls,
    sync::file,
    telemetry::{Health, Registry, Reloaded},
};

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// What the chores are done with.
pub(super) struct Tools {
    pub(super) tls: Option<Arc<tls::Reloader>>,
    pub(super) registry: Arc<Registry>,
    pub(super) health: Arc<Health>,
    pub(super) state: StateFolder,
}

/// Whether those who write into the state folder could.
#[derive(Clone)]
pub(super) struct StateFolder {
    pub(super) source: Arc<Mutex<file::Status>>,
    pub(super) saved: Arc<AtomicBool>,
}

impl StateFolder {
    /// Whether both could, when they tried last.
    pub(super) fn is_usable(&self) -> bool {
        let kept = self.source.lock().unwrap_or_else(PoisonError::into_inner).state_usable;
        kept && self.saved.load(Ordering::Relaxed)
    }
}

/// The thread that does them.
#[derive(Debug)]
pub(super) struct Chores {
    stop: mpsc::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Chores {
    pub(super) fn start(tools: Tools) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new().name("chores".into()).spawn(move || {
            let mut certificate_fault = None;
            while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(EVERY) {
                tools.follow_certificate(&mut certificate_fault);
                tools.show_expiry();
                tools.show_state_folder();
                // systemd's watchdog asks for a sign of life only where the unit says so.
                if tools.health.liveness(clock::mono()).ok {
                    drop(sd_notify::notify(&[sd_notify::NotifyState::Watchdog]));
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends.
    pub(super) fn finish(mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Tools {
    /// A certificate that has expired, also one that the process was started with.
    fn show_expiry(&self) {
        let Some(tls) = &self.tls else { return };
        let until = tls.not_after();
        let expired = clock::now().wall >= until;
        let trouble = expired.then(|| format!("expired at {until}: clients refuse it; put a new one in its place"));
        if self.health.notice("certificate in force", trouble) && expired {
            tracing::error!(tls.not_after = %until, "the certificate in force has expired: clients refuse it");
        }
    }

    /// Those who write into the state folder say so in the log.
    fn show_state_folder(&self) {
        let trouble = (!self.state.is_usable())
            .then(|| "cannot be written: a restart would forget limits, last uses and what was revoked".to_owned());
        self.health.notice("state folder", trouble);
    }

    /// Takes a new certificate into force; says of a bad one once why it is not taken.
    fn follow_certificate(&self, last_fault: &mut Option<String>) {
        let Some(tls) = &self.tls else { return };
        match tls.reload() {
            Ok(false) => {
                if last_fault.take().is_some() {
                    self.registry.reloaded(Reloaded::Certificate, true);
                    self.health.reloaded(Reloaded::Certificate, Ok::<(), String>(()));
                    tracing::info!("the files of the certificate are again what is in force");
                }
            }
            Ok(true) => {
                *last_fault = None;
                self.registry.reloaded(Reloaded::Certificate, true);
                self.health.reloaded(Reloaded::Certificate, Ok::<(), String>(()));
                tracing::info!(tls.not_after = %tls.not_after(), "the certificate was reloaded");
            }
            Err(error) => {
                let fault = crate::fault::chain(&error);
                if last_fault.as_ref() != Some(&fault) {
                    self.registry.reloaded(Reloaded::Certificate, false);
                    self.health.reloaded(Reloaded::Certificate, Err(fault.clone()));
                    tracing::error!(error = %fault, "the new certificate is not used; the old one stays");
                    *last_fault = Some(fault);
                }
            }
        }
    }
}
