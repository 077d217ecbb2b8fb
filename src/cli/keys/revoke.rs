//! `keys revoke` and `keys delete`: the ends of a key.

use serde_json::json;

use super::{
    console::{Console, Failure, Output},
    place::{Named, PlaceArgs, Tolerate},
    wait::{WaitArgs, conclude},
};
use crate::{
    cli::Exit,
    keys::document::edit::{List, moment},
};

/// Revoke a key, for good: it stops, and its entry stays to be looked up.
#[derive(Debug, clap::Args)]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// The key: its id, or a name or prefix that only one key has.
    #[arg(value_name = "KEY")]
    key: String,
    #[command(flatten)]
    wait: WaitArgs,
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
    #[command(flatten)]
    wait: WaitArgs,
}

impl RevokeArgs {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        if let Some(remote) = self.place.remote()? {
            return remote.revoke(console, &self.key, self.wait.asked());
        }
        let place = self.place.settle()?;
        let waiting = self.wait.begin(&place)?;
        let mut edit = place.edit(Tolerate::BadEntries)?;
        edit.tell_faults(console);
        let key = place.find(&edit.document, &self.key)?;
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
        let in_force = waiting.map(|waiting| waiting.until_in_force("the key is revoked"));
        if console.output == Output::Json {
            let sidecar = in_force.as_ref().map(Result::is_ok);
            let durable = in_force.as_ref().and_then(|in_force| in_force.as_ref().ok()).map(|durable| durable.0);
            console.print_json(&json!({
                "id": key.id().as_str(), "revoked_at": moment(at).as_datetime().map(ToString::to_string),
                "already_revoked": before.is_some(), "in_force": sidecar, "durable": durable,
            }))?;
        }
        conclude(console, in_force)?;
        Ok(Exit::Done)
    }
}

impl DeleteArgs {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        if let Some(remote) = self.place.remote()? {
            return remote.delete(console, &self.key, self.yes, self.wait.asked());
        }
        let place = self.place.settle()?;
        let waiting = self.wait.begin(&place)?;
        // Nobody else shall have to wait while somebody types: the question is asked before the file is locked.
        let document = place.read()?;
        let key = place.find(&document, &self.key)?;
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
        let in_force = waiting.map(|waiting| waiting.until_in_force("the key is deleted"));
        if console.output == Output::Json {
            let sidecar = in_force.as_ref().map(Result::is_ok);
            console.print_json(&json!({ "id": key.id().as_str(), "deleted": true, "in_force": sidecar }))?;
        }
        conclude(console, in_force)?;
        Ok(Exit::Done)
    }
}
