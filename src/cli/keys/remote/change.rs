//! What is changed by a control plane: the commands on keys.

use std::time::Duration;

use http::Method;
use serde_json::{Map, Value, json};

use super::{
    super::{
        console::{Console, Failure, Output},
        create::{Fresh, hand_out},
        describe::{listed, sentence, status},
        moments::typed,
        place::Named,
    },
    Remote, path,
    receipt::Receipt,
    row,
};
use crate::{
    cli::Exit,
    clock::Wall,
    keys::{
        KeyId,
        document::{KeyRow, json::write_key},
        secret::Secret,
    },
};

/// The longest that a control plane waits for its sidecars.
const LONGEST: Duration = Duration::from_secs(30);

/// What was done, where it has to be said that not all sidecars have it.
const CHANGED: &str = "the key is changed";
const REVOKED: &str = "the key is revoked";
const DELETED: &str = "the key is deleted";
const ROTATED: &str = "the key is rotated";

impl Remote {
    /// Mints a key.
    pub(crate) fn create(&self, console: &mut Console<'_>, wanted: &Value) -> Result<Exit, Failure> {
        let made = self.ask(Method::POST, "/v1/keys", Some(wanted))?;
        warn_of(console, &made);
        self.hand_out(console, &made)
    }

    /// Prints a new key with its secret, which is shown this once.
    fn hand_out(&self, console: &mut Console<'_>, made: &Value) -> Result<Exit, Failure> {
        let row = row(made)?;
        console.say(sentence(&row));
        let secret = made["key"].as_str().or(made["consumer_secret"].as_str()).unwrap_or_default();
        let fresh = Fresh {
            public: made["prefix"].as_str().unwrap_or_default(),
            secret: &Secret::new(secret.as_bytes()),
            delete: self.command(format_args!("keys delete {} --yes", row.id)),
        };
        hand_out(console, &row, &fresh)
    }

    /// Changes a key into what `change` makes of it.
    pub(crate) fn set(
        &self,
        console: &mut Console<'_>,
        reference: &str,
        change: impl FnOnce(&KeyRow) -> Result<KeyRow, Failure>,
        wait: Option<Duration>,
    ) -> Result<Exit, Failure> {
        let old = self.find_living(console, reference)?;
        let new = change(&old)?;
        let (before, after) = (write_key(&old), write_key(&new));
        let names = ["name", "owner", "scopes", "allow_ips", "limits", "expires_at"];
        let differs = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
        let body: Map<String, Value> =
            differs.map(|name| (name.to_owned(), after.get(name).cloned().unwrap_or_default())).collect();
        let at = waiting(&path(&old.id), wait);
        let changed = self.ask_for(Method::PATCH, &at, Some(&Value::Object(body)), wait.unwrap_or_default())?;
        let (row, (document, used)) = self.show(console, &old.id)?;
        let key = Named::Row(row.clone());
        let now = console.now.wall;
        console.say(format_args!("Key {} is changed.", key.label()));
        match status(&key, &document, now) {
            "active" => console.say(sentence(&row)),
            status => console.say(format_args!("It is {status}: it may do nothing now.")),
        }
        if console.output == Output::Json {
            console.print_json(&listed(&key, &document, used.get(&row.id), now))?;
        }
        match wait {
            Some(_) => self.conclude(console, &Receipt::read(&changed, CHANGED)?, wait, CHANGED),
            None => Ok(Exit::Done),
        }
    }

    /// Revokes a key, and waits so long for the sidecars.
    pub(crate) fn revoke(
        &self,
        console: &mut Console<'_>,
        reference: &str,
        wait: Option<Duration>,
    ) -> Result<Exit, Failure> {
        let (row, _) = self.find(console, reference)?;
        let label = Named::Row(row.clone()).label();
        let receipt = Receipt::read(&self.end(&row.id, "", None, wait)?, REVOKED)?;
        let (after, _) = self.show(console, &row.id)?;
        let at = after.revoked_at.or(row.revoked_at);
        match row.revoked_at {
            None => console.say(format_args!("Key {label} is revoked; its entry stays.")),
            Some(at) => console.say(format_args!("Key {label} was revoked before, at {at}.")),
        }
        if row.scopes.iter().any(|scope| scope == "keys:manage") {
            self.tell_minted(console, &row.id)?;
        }
        if console.output == Output::Json {
            let mut shown = json!({
                "id": row.id.as_str(), "revoked_at": at.map(|at| at.to_string()),
                "already_revoked": row.revoked_at.is_some(), "in_force": null, "durable": null,
            });
            receipt.show(&mut shown);
            console.print_json(&shown)?;
        }
        self.conclude(console, &receipt, wait, REVOKED)
    }

    /// Says how many keys that work this one has minted: they are not revoked with it.
    fn tell_minted(&self, console: &mut Console<'_>, id: &KeyId) -> Result<(), Failure> {
        let (document, _) = self.keys(console, &format!("&status=active&minted_by=key:{id}"))?;
        let list = self.command(format!("keys list --status active --minted-by {id}"));
        match document.keys.len() {
            0 => {}
            1 => console.say(format_args!("It has minted a key that goes on working: {list}")),
            count => console.say(format_args!("It has minted {count} keys that go on working: {list}")),
        }
        Ok(())
    }

    /// Removes a key's row, once its name was typed.
    pub(crate) fn delete(
        &self,
        console: &mut Console<'_>,
        reference: &str,
        yes: bool,
        wait: Option<Duration>,
    ) -> Result<Exit, Failure> {
        let (row, _) = self.find(console, reference)?;
        let label = Named::Row(row.clone()).label();
        if !yes {
            let question = format!("Deleting key {label} leaves nothing to look up; revoke would.");
            console.confirm(&question, &row.name)?;
        }
        let ended = self.end(&row.id, "&purge=true", Some(&json!({ "name": &*row.name })), wait)?;
        let receipt = Receipt::read(&ended, DELETED)?;
        console.say(format_args!("Key {label} is deleted."));
        if console.output == Output::Json {
            let mut shown = json!({ "id": row.id.as_str(), "deleted": true });
            receipt.show(&mut shown);
            console.print_json(&shown)?;
        }
        self.conclude(console, &receipt, wait, DELETED)
    }

    fn end(&self, id: &KeyId, more: &str, body: Option<&Value>, wait: Option<Duration>) -> Result<Value, Failure> {
        let at = format!("{}{more}", waiting(&path(id), wait));
        self.ask_for(Method::DELETE, &at, body, wait.unwrap_or_default())
    }

    /// Mints a key with the same rights; the old one works until the overlap ends.
    pub(crate) fn rotate(
        &self,
        console: &mut Console<'_>,
        reference: &str,
        overlap: Duration,
        expires_at: Option<Wall>,
        wait: Option<Duration>,
    ) -> Result<Exit, Failure> {
        let old = self.find_living(console, reference)?;
        let mut body = json!({ "overlap": typed(overlap) });
        if let Some(at) = expires_at {
            body["expires_at"] = at.to_string().into();
        }
        let made = self.ask(Method::POST, &format!("{}/rotate?wait=0", path(&old.id)), Some(&body))?;
        // The secret first: whatever becomes of the rest, it is shown this once.
        let exit = self.hand_out(console, &made)?;
        warn_of(console, &made);
        let (after, _) = self.show(console, &old.id)?;
        match after.expires_at.filter(|_| after.revoked_at.is_none()) {
            Some(at) => console.say(format_args!("The old key {} works until {at} ({}).", old.id, typed(overlap))),
            None => console.say(format_args!("The old key {} is revoked.", old.id)),
        }
        // An old key that goes on for a while is no danger: only who asked for it is told who has the new one.
        if wait.is_some() || overlap.is_zero() {
            let mut receipt = Receipt::read(&made, ROTATED)?;
            if let Some(wait) = wait {
                receipt = self.receipt(receipt.revision, wait, ROTATED)?;
            }
            self.conclude(console, &receipt, wait, ROTATED)?;
        }
        Ok(exit)
    }

    /// Which sidecars have a revision, once all that are heard have it, or after so long.
    fn receipt(&self, revision: u64, wait: Duration, done: &str) -> Result<Receipt, Failure> {
        let wait = wait.min(LONGEST);
        let path = format!("/v1/receipts/{revision}?wait={}", wait.as_secs());
        let receipt = Receipt::read(&self.ask_for(Method::GET, &path, None, wait)?, done)?;
        match receipt.revision == revision {
            true => Ok(receipt),
            false => Err(Failure::new(format!(
                "{done}, but the control plane was asked which sidecars have revision {revision}, and answered of revision {}",
                receipt.revision
            ))),
        }
    }
}

/// Says what may surprise of what was done.
pub(super) fn warn_of(console: &mut Console<'_>, done: &Value) {
    for warning in done["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        console.warn(warning);
    }
}

/// A path, with how long the sidecars are waited for.
pub(super) fn waiting(path: &str, wait: Option<Duration>) -> String {
    format!("{path}?wait={}", wait.unwrap_or_default().min(LONGEST).as_secs())
}
