//! What is changed by a control plane: the commands on keys.

use std::{collections::BTreeSet, time::Duration};

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
    Remote, path, row,
};
use crate::{
    cli::Exit,
    clock::Wall,
    keys::{
        KeyId,
        document::{KeyRow, json::write_key, moment},
        secret::Secret,
    },
};

/// The longest that a control plane waits for its sidecars.
const LONGEST: Duration = Duration::from_secs(30);

impl Remote {
    /// Mints a key.
    pub(crate) fn create(&self, console: &mut Console<'_>, wanted: &Value) -> Result<Exit, Failure> {
        let made = self.ask(Method::POST, "/v1/keys", Some(wanted))?;
        for warning in made["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            console.warn(warning);
        }
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
        let receipt = self.ask_for(Method::PATCH, &at, Some(&Value::Object(body)), wait.unwrap_or_default())?;
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
            Some(_) => conclude(console, &receipt, wait, "the key is changed"),
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
        let receipt = self.end(&row.id, "", None, wait)?;
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
            console.print_json(&json!({
                "id": row.id.as_str(), "revoked_at": at.map(|at| at.to_string()),
                "already_revoked": row.revoked_at.is_some(), "in_force": is_in_force(&receipt), "durable": null,
                "revision": receipt["revision"], "acknowledged": receipt["acknowledged"], "pending": receipt["pending"],
                "stopped": receipt["stopped"],
            }))?;
        }
        conclude(console, &receipt, wait, "the key is revoked")
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
        let receipt = self.end(&row.id, "&purge=true", Some(&json!({ "name": &*row.name })), wait)?;
        console.say(format_args!("Key {label} is deleted."));
        if console.output == Output::Json {
            console.print_json(&json!({
                "id": row.id.as_str(), "deleted": true, "in_force": is_in_force(&receipt), "pending": receipt["pending"],
            }))?;
        }
        conclude(console, &receipt, wait, "the key is deleted")
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
        let (after, _) = self.show(console, &old.id)?;
        match after.expires_at.filter(|_| after.revoked_at.is_none()) {
            Some(at) => console.say(format_args!("The old key {} works until {at} ({}).", old.id, typed(overlap))),
            None => console.say(format_args!("The old key {} is revoked.", old.id)),
        }
        // An old key that goes on for a while is no danger: only who asked for it is told who has the new one.
        if wait.is_some() || overlap.is_zero() {
            let receipt = match wait {
                Some(wait) => self.receipt(&made["revision"], wait)?,
                None => made,
            };
            conclude(console, &receipt, wait, "the key is rotated")?;
        }
        Ok(exit)
    }

    /// Which sidecars have a revision, once all that are heard have it, or after so long.
    fn receipt(&self, revision: &Value, wait: Duration) -> Result<Value, Failure> {
        let wait = wait.min(LONGEST);
        self.ask_for(Method::GET, &format!("/v1/receipts/{revision}?wait={}", wait.as_secs()), None, wait)
    }
}

/// A path, with how long the sidecars are waited for.
pub(super) fn waiting(path: &str, wait: Option<Duration>) -> String {
    format!("{path}?wait={}", wait.unwrap_or_default().min(LONGEST).as_secs())
}

/// Whether no sidecar may be serving without it.
pub(super) fn is_in_force(receipt: &Value) -> bool {
    receipt["pending"].as_array().is_none_or(Vec::is_empty) && receipt["complete"] != false
}

/// Says who has it; where that was waited for, who has it not is a failure.
pub(super) fn conclude(
    console: &mut Console<'_>,
    receipt: &Value,
    wait: Option<Duration>,
    done: &str,
) -> Result<Exit, Failure> {
    let acknowledged = receipt["acknowledged"].as_array().map_or(0, Vec::len);
    let stopped: Vec<_> = receipt["stopped"].as_array().into_iter().flatten().map(described).collect();
    if !stopped.is_empty() {
        console.warn(format_args!(
            "these were stopped without it, and would serve what is on their disk if they were started without reaching a \
             control plane:\n  {}",
            stopped.join("\n  ")
        ));
    }
    if receipt["complete"] == false {
        let why = "the store could not be asked which sidecars other control planes know";
        return match wait {
            Some(_) => Err(Failure::new(format!("{done}, but {why}"))),
            None => {
                console.warn(format_args!("{why}: they may be serving without it"));
                Ok(Exit::Done)
            }
        };
    }
    let pending: BTreeSet<_> = receipt["pending"].as_array().into_iter().flatten().map(described).collect();
    if pending.is_empty() {
        if wait.is_some() || acknowledged > 0 {
            console.say("Every known sidecar has it.");
        }
        return Ok(Exit::Done);
    }
    let pending = pending.into_iter().collect::<Vec<_>>().join("\n  ");
    match wait {
        Some(wait) => Err(Failure::new(format!(
            "{done}, but not every sidecar confirmed it within {}:\n  {pending}",
            typed(wait)
        ))),
        None => {
            console
                .warn(format_args!("these sidecars may be serving without it (--wait waits for them):\n  {pending}"));
            Ok(Exit::Done)
        }
    }
}

fn described(sidecar: &Value) -> String {
    let text = |name: &str| sidecar[name].as_str().and_then(moment).map_or_else(|| "?".to_owned(), |at| at.to_string());
    let instance = sidecar["instance"].as_str().unwrap_or("?");
    let plain: String = instance.chars().filter(|char| !char.is_control()).collect();
    format!(
        "{plain}, last heard {}; serves what reads until {}, all else until {}",
        text("last_seen"),
        text("may_serve_reads_until"),
        text("may_serve_writes_until")
    )
}
