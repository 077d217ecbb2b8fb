//! What a long-running command heeds: signals, and how systemd is told.

use std::io;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that `proxy` and `control` heed.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Taken and not heeded: a limit on the size of files is then an error of the write, and not the end of the process.
    _file_size: Signal,
}

impl Signals {
    /// Takes them from here on. On a runtime.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            _file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// Until one that ends the process.
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Until one that ends the process; at every SIGHUP it does what that asks for.
    pub(super) async fn until_stopped(&mut self, mut hangup: impl AsyncFnMut()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => hangup().await,
            }
        }
    }
}

/// Tells systemd, if it is there and asked to be told.
pub(super) fn notify(state: &[NotifyState<'_>]) {
    drop(sd_notify::notify(state));
}

/// Secrets are in memory: a crash must not write them to a disk.
pub(super) fn keep_secrets_off_disks() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
}
