//! `--wait`: a command returns when the running sidecar has what it wrote.

use std::{path::PathBuf, time::Duration};

use super::{
    console::{Console, Failure},
    moments::{span, typed},
    place::Place,
};
use crate::{
    clock,
    sync::{
        keyfile,
        state::{StateFolder, digest_of},
    },
};

/// Whether to wait for the running sidecar.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct WaitArgs {
    /// Return when the running sidecar has it.
    #[arg(long)]
    wait: bool,
    /// How long to wait for the sidecar.
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = span, requires = "wait")]
    timeout: Duration,
}

/// What is waited for.
pub(in crate::cli) struct Waiting {
    file: PathBuf,
    state: PathBuf,
    timeout: Duration,
}

impl WaitArgs {
    /// How long to wait, where that was asked for.
    pub(in crate::cli) fn asked(&self) -> Option<Duration> {
        self.wait.then_some(self.timeout)
    }

    /// To be asked before anything is changed: that nobody can be waited for is a wrong command line.
    pub(in crate::cli) fn begin(&self, place: &Place) -> Result<Option<Waiting>, Failure> {
        match &place.state {
            _ if !self.wait => Ok(None),
            None => Err(Failure::usage(
                "--wait asks the state folder of the running sidecar: give --config, or --state DIR",
            )),
            Some(state) => Ok(Some(Waiting { file: place.file.clone(), state: state.clone(), timeout: self.timeout })),
        }
    }
}

impl Waiting {
    /// Waits until the sidecar says that what is in force is the key file as it is now, which holds what was `done`.
    /// Whether the sidecar could also keep its revocations on its disk.
    pub(in crate::cli) fn until_in_force(&self, done: &str) -> Result<Durable, Failure> {
        let folder = StateFolder::new(&self.state);
        let began = clock::mono();
        let mut last = format!("none ever said in {} what it has in force", self.state.display());
        loop {
            if let (Ok(Some(in_force)), Ok(text)) = (folder.in_force(), keyfile::read(&self.file)) {
                if in_force.digest == digest_of(&text) {
                    return Ok(Durable(in_force.durable));
                }
                last = format!(
                    "the last to say in {} what it has in force, process {}, had another version",
                    self.state.display(),
                    in_force.pid
                );
            }
            if clock::mono().since(began) >= self.timeout {
                return Err(Failure::new(format!(
                    "{done} in {}, but no running sidecar confirmed it within {}: {last}\nsee whether one runs \
                     (keyside health), whether it follows this file with this state folder ([keys] file and state), and \
                     its log, which says why it refuses a key file, or cannot write into the state folder",
                    self.file.display(),
                    typed(self.timeout),
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whether what a sidecar has in force survives a restart with an older key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Durable(pub(in crate::cli) bool);

/// Says that it is in force, where that was waited for.
pub(in crate::cli) fn conclude(
    console: &mut Console<'_>,
    in_force: Option<Result<Durable, Failure>>,
) -> Result<(), Failure> {
    match in_force.transpose()? {
        None => {}
        Some(Durable(true)) => console.say("The running sidecar has it."),
        Some(Durable(false)) => console.warn(
            "the running sidecar has it, but could not write down which keys are revoked; as long as its log says so, a \
             restart with an older key file may bring them back",
        ),
    }
    Ok(())
}
