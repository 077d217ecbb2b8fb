//! `keyside proxy`: the sidecar.

use std::{error::Error as _, io, path::PathBuf};

use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use super::Exit;
use crate::{
    listener::ListenError,
    sidecar::{Sidecar, StartError},
    telemetry::admin::ReloadRequest,
};

/// Run the sidecar: judge requests by their keys, and forward what is allowed.
#[derive(Debug, clap::Args)]
#[command(after_help = "SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reloads all or nothing.")]
pub struct Args {
    /// The configuration.
    #[arg(long, short, value_name = "FILE", value_parser = crate::cli::configuration(), default_value = "keyside.toml")]
    config: PathBuf,
}

pub(super) fn run(args: &Args) -> Exit {
    // Secrets are in memory: a crash must not write them to a disk.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start a runtime: {error}")),
    };
    runtime.block_on(async {
        // Before anything is started that a signal would have to stop.
        let mut signals = match Signals::new() {
            Ok(signals) => signals,
            Err(error) => return fail(&format!("cannot take signals: {error}")),
        };
        let sidecar = match Sidecar::start(args.config.clone()) {
            Ok(sidecar) => sidecar,
            Err(StartError::Config(faults)) => {
                anstream::eprintln!("{faults}");
                return Exit::Misconfigured;
            }
            // Files that the configuration names are part of it.
            Err(error @ (StartError::Live(_) | StartError::Listen(ListenError::Tls(_)))) => {
                fail(&describe(&error));
                return Exit::Misconfigured;
            }
            Err(error) => return fail(&describe(&error)),
        };
        notify(&[NotifyState::Ready]);
        signals.until_stopped(&sidecar).await;
        notify(&[NotifyState::Stopping]);
        let abort = sidecar.stopper();
        let stopped = sidecar.stop();
        tokio::pin!(stopped);
        tokio::select! {
            _ = &mut stopped => {}
            () = signals.stop() => {
                abort();
                stopped.await;
            }
        }
        Exit::Done
    })
}

/// The signals that the sidecar heeds.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Taken and not heeded: a limit on the size of files is then an error of the write, and not the end of the process.
    _file_size: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            _file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// Until one that ends the process.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Reloads at every SIGHUP, until a signal that ends the process.
    async fn until_stopped(&mut self, sidecar: &Sidecar) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => reload(sidecar).await,
            }
        }
    }
}

async fn reload(sidecar: &Sidecar) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
    let (answer, answered) = oneshot::channel();
    if sidecar.reloads().send(ReloadRequest(answer)).await.is_ok() {
        // How it went is in the log already.
        drop(answered.await);
    }
    notify(&[NotifyState::Ready]);
}

/// Tells systemd, if it is there and asked to be told.
fn notify(state: &[NotifyState<'_>]) {
    drop(sd_notify::notify(state));
}

fn describe(error: &StartError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn fail(why: &str) -> Exit {
    anstream::eprintln!("keyside proxy: {why}");
    Exit::Failed
}
