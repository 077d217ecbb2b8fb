//! `keys revoke` and `keys delete`: the ends of a key.

use std::{path::Path, time::Duration};

use serde_json::json;

use super::{
    console::{Console, Failure, Output},
    moments::span,
    place::{Named, Place, PlaceArgs, Tolerate, find},
};
use crate::{
    cli::Exit,
    clock,
    keys::document::edit::{List, moment},
    sync::{
        keyfile,
        state::{StateFolder, digest_of},
    },
};

/// Revoke a key, for good: it stops, and its entry stays to be looked up.
#[derive(Debug, clap::Args)]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// The key: its id, or a name or prefix that only one key has.
    #[arg(value_name = "KEY")]
    key: String,
    /// Return when the running sidecar has it.
    #[arg(long)]
    wait: bool,
    /// How long to wait for the sidecar.
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = span, requires = "wait")]
    timeout: Duration,
}

/// Remove the entry of a key. Nothing is left to look up; revoke leaves it.
#[derive(Debug, clap::Args)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// The key: its id, or a name or prefix that only one key has.
    #[arg(value_name = "KEY")]
    key: String,
    /// Do not ask for the key's name.
    #[arg(long)]
    yes: bool,
}

impl RevokeArgs {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let place = self.place.settle()?;
        let state = match (&place.state, self.wait) {
            (None, true) => {
                return Err(Failure::usage(
                    "--wait asks the state folder of the running sidecar: give --config, or --state DIR",
                ));
            }
            (state, wait) => state.clone().filter(|_| wait),
        };
        let mut edit = place.edit(Tolerate::BadEntries)?;
        edit.tell_faults(console);
        let key = find(&edit.document, &self.key, &place.mint)?;
        let is_said = edit.document.revoked.contains_key(key.id());
        let before = place.recall(edit.document.clone(), console).revoked.get(key.id()).copied();
        // The first moment stays, also where the row lost it and the state folder remembers it.
        let at = before.flatten().unwrap_or(console.now.wall);
        if !is_said {
            edit.draft.set(List::Keys, key.id().as_str(), "revoked_at", Some(&moment(at)));
            edit.finish()?;
        }
        let label = key.label();
        match before {
            None => console.say(format_args!("Key {label} is revoked; its entry stays.")),
            Some(_) if is_said => console.say(format_args!("Key {label} was revoked before, at {at}.")),
            Some(Some(_)) => console.say(format_args!("Key {label} was revoked before, at {at}; its entry says so again.")),
            Some(None) => console.say(format_args!(
                "Key {label} was revoked earlier (remembered in the state folder); its entry says now that it is, since {at}."
            )),
        }
        let in_force = state.as_ref().map(|state| self.await_sidecar(&place, state));
        if console.output == Output::Json {
            let sidecar = in_force.as_ref().map(Result::is_ok);
            console.print_json(&json!({
                "id": key.id().as_str(), "revoked_at": moment(at).as_datetime().map(ToString::to_string),
                "already_revoked": before.is_some(), "in_force": sidecar,
            }))?;
        }
        match in_force {
            Some(Ok(())) => console.say("The running sidecar has it."),
            Some(Err(failure)) => return Err(failure),
            None => {}
        }
        Ok(Exit::Done)
    }

    /// Waits until the sidecar says that what is in force is the key file as it is now, which holds the revocation.
    fn await_sidecar(&self, place: &Place, state: &Path) -> Result<(), Failure> {
        let folder = StateFolder::new(state);
        let began = clock::mono();
        let mut said = "it has not said what is in force";
        loop {
            if let (Ok(Some(in_force)), Ok(text)) = (folder.in_force(), keyfile::read(&place.file)) {
                if in_force.digest == digest_of(&text) {
                    return Ok(());
                }
                said = "it still has another version in force";
            }
            if clock::mono().since(began) >= self.timeout {
                return Err(Failure::new(format!(
                    "the key is revoked in {}, but the sidecar that uses {} did not confirm it: {said}; is it running, \
                     with this key file? its log says why it refuses one",
                    place.file.display(),
                    state.display(),
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl DeleteArgs {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let place = self.place.settle()?;
        // Nobody else shall have to wait while somebody types: the question is asked before the file is locked.
        let document = place.read()?;
        let key = find(&document, &self.key, &place.mint)?;
        if !self.yes {
            let name = match &key {
                Named::Row(row) if !row.name.is_empty() => row.name.to_string(),
                _ => key.id().to_string(),
            };
            let question = format!("Deleting key {} leaves nothing to look up; revoke would.", key.label());
            console.confirm(&question, &name)?;
        }
        let mut edit = place.edit(Tolerate::BadEntries)?;
        edit.tell_faults(console);
        // By its id: the name may be another key's by now.
        if !edit.draft.remove(List::Keys, key.id().as_str()) {
            return Err(Failure::new(format!("key {} is not there any more", key.id())));
        }
        edit.finish()?;
        console.say(format_args!("Key {} is deleted.", key.label()));
        if console.output == Output::Json {
            console.print_json(&json!({ "id": key.id().as_str(), "deleted": true }))?;
        }
        Ok(Exit::Done)
    }
}
