//! What is done once a second, on a thread of its own, for it may wait for a disk.

use std::{
    io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    clock,
    listener::tls,
    telemetry::{Health, Registry, Reloaded},
};

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// What the chores are done with.
pub(super) struct Tools {
    pub(super) tls: Option<Arc<tls::Reloader>>,
    pub(super) registry: Arc<Registry>,
    pub(super) health: Arc<Health>,
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
                let fault = super::reload::chain(&error);
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
