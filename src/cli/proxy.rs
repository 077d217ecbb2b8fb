//! `keyside proxy`: the sidecar.

use std::path::PathBuf;

use sd_notify::NotifyState;
use tokio::sync::oneshot;

use super::{
    Exit,
    signals::{Signals, keep_secrets_off_disks, notify},
};
use crate::{
    fault::chain,
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
    keep_secrets_off_disks();
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
            // Files that the configuration names are part of it, and so is the state folder.
            Err(error @ (StartError::Live(_) | StartError::Listen(ListenError::Tls(_)) | StartError::State(_))) => {
                fail(&chain(&error));
                return Exit::Misconfigured;
            }
            Err(error) => return fail(&chain(&error)),
        };
        notify(&[NotifyState::Ready]);
        signals.until_stopped(async || reload(&sidecar).await).await;
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

fn fail(why: &str) -> Exit {
    anstream::eprintln!("keyside proxy: {why}");
    Exit::Failed
}
