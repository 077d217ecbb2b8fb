//! `keyside control`: the control plane.

use std::{io::Write as _, path::PathBuf};

use sd_notify::NotifyState;

use super::{
    Exit,
    signals::{Signals, keep_secrets_off_disks, notify},
};
use crate::{
    config,
    control::plane::{Plane, StartError},
    fault::chain,
    listener::ListenError,
};

/// Run the control plane: mint, rotate and revoke keys, for people and programs, and feed the sidecars.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The log goes to standard error. While nobody can sign in, each start writes a link to standard output by which \
                        the first operator does, once.\n\nSIGTERM and SIGINT drain, a second one ends at once. A new \
                        certificate is taken by itself."
)]
pub struct Args {
    /// The configuration.
    #[arg(long, short, value_name = "FILE", default_value = "control.toml")]
    config: PathBuf,
    /// Print the commented default: every setting there is.
    #[arg(long, conflicts_with = "config")]
    print_default: bool,
    /// An older copy of the store was put back on purpose: begin a new history with it, which sidecars take. What they
    /// saw revoked stays revoked. For as long as `max_stale` of `[sync]`, receipts are not complete.
    #[arg(long)]
    restored: bool,
}

pub(super) fn run(args: &Args) -> Exit {
    if args.print_default {
        print!("{}", config::control::DEFAULT);
        return Exit::Done;
    }
    keep_secrets_off_disks();
    let path = if args.config.is_dir() { args.config.join("control.toml") } else { args.config.clone() };
    let loaded = match config::control::load(&path, config::environment()) {
        Ok(loaded) => loaded,
        Err(faults) => {
            anstream::eprintln!("{faults}");
            return Exit::Misconfigured;
        }
    };
    for warning in &loaded.warnings {
        anstream::eprintln!("{warning}");
    }
    let public_url = loaded.settings.public_url.clone();
    let is_tls = loaded.settings.listener.tls.is_some();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start a runtime: {error}")),
    };
    // Before anything is started that a signal would have to stop.
    let signals = runtime.block_on(async { Signals::new() });
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("cannot take signals: {error}")),
    };
    let plane = match Plane::start(loaded.settings, args.restored) {
        Ok(plane) => plane,
        Err(error) => {
            fail(&chain(&error));
            return match error {
                // What the configuration names, or says, is part of it.
                StartError::Listen(ListenError::Tls(_)) | StartError::Open(_) => Exit::Misconfigured,
                _ => Exit::Failed,
            };
        }
    };
    if let (Some(link), Some(address)) = (plane.setup(), plane.addresses().first()) {
        let here = || format!("{}://{address}", if is_tls { "https" } else { "http" });
        // Not to the log, which is read by others and kept: whoever opens it first is an admin.
        let written = writeln!(
            anstream::stdout(),
            "\nNobody can sign in yet. Open this link, once, to choose a name and a password:\n\n  {}{link}\n",
            public_url.unwrap_or_else(here)
        );
        match written {
            Ok(()) => tracing::warn!("nobody can sign in yet: a link that works once was written to standard output"),
            Err(error) => {
                tracing::error!(%error, "nobody can sign in yet, and the link for it could not be written to standard output");
            }
        }
    }
    runtime.block_on(async {
        notify(&[NotifyState::Ready]);
        // There is nothing to reload, and a closed terminal is not to be the end of it.
        signals.until_stopped(async || {}).await;
        notify(&[NotifyState::Stopping]);
        let abort = plane.stopper();
        let stopped = plane.stop();
        tokio::pin!(stopped);
        tokio::select! {
            () = &mut stopped => {}
            () = signals.stop() => {
                abort();
                stopped.await;
            }
        }
    });
    Exit::Done
}

fn fail(why: &str) -> Exit {
    anstream::eprintln!("keyside control: {why}");
    Exit::Failed
}
