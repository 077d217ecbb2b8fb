//! What is changed by a control plane: the commands on owners.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{
    super::console::{Console, Failure, Output},
    Remote,
    change::{waiting, warn_of},
    encoded,
    receipt::Receipt,
};
use crate::{cli::Exit, keys::OwnerId};

/// How many owners are asked for at once.
const PAGE: usize = 1000;

/// What was done, where it has to be said that not all sidecars have it.
const CHANGED: &str = "the owner is changed";
const SUSPENDED: &str = "the owner is suspended";
const DELETED: &str = "the owner is deleted";

impl Remote {
    /// All owners, as they are listed.
    pub(crate) fn owners(&self) -> Result<Vec<Value>, Failure> {
        let (mut owners, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.ask(Method::GET, &format!("/v1/owners?limit={PAGE}{after}"), None)?;
            owners.extend(page["owners"].as_array().into_iter().flatten().map(described));
            match page["next"].as_str() {
                Some(next) => after = format!("&after={}", encoded(next)),
                None => return Ok(owners),
            }
        }
    }

    /// Adds an owner.
    pub(crate) fn create_owner(&self, console: &mut Console<'_>, id: &OwnerId, body: &Value) -> Result<Exit, Failure> {
        let owner = self.ask(Method::POST, "/v1/owners", Some(body))?;
        told(console, &owner, id, "is added")
    }

    /// Changes an owner.
    pub(crate) fn change_owner(
        &self,
        console: &mut Console<'_>,
        id: &OwnerId,
        body: &Value,
        words: &str,
        wait: Option<Duration>,
    ) -> Result<Exit, Failure> {
        let owner = self.patch(id, body, wait)?;
        told(console, &owner, id, words)?;
        match wait {
            Some(_) => self.conclude(console, &Receipt::read(&owner, CHANGED)?, wait, CHANGED),
            None => Ok(Exit::Done),
        }
    }

    /// Suspends an owner, and waits so long for the sidecars.
    pub(crate) fn suspend_owner(
        &self,
        console: &mut Console<'_>,
        id: &OwnerId,
        words: &str,
        wait: Option<Duration>,
    ) -> Result<Exit, Failure> {
        let owner = self.patch(id, &json!({ "suspended": true }), wait)?;
        let receipt = Receipt::read(&owner, SUSPENDED)?;
        say(console, &owner, id, words);
        if console.output == Output::Json {
            let mut shown = described(&owner);
            receipt.show(&mut shown);
            console.print_json(&shown)?;
        }
        self.conclude(console, &receipt, wait, SUSPENDED)
    }

    fn patch(&self, id: &OwnerId, body: &Value, wait: Option<Duration>) -> Result<Value, Failure> {
        self.ask_for(Method::PATCH, &waiting(&path(id), wait), Some(body), wait.unwrap_or_default())
    }

    /// Adds an entry for an owner that has keys and none: it can be suspended all the same.
    pub(crate) fn list_owner(&self, id: &OwnerId) -> Result<(), Failure> {
        let name = encoded(id.as_str());
        let found = self.ask(Method::GET, &format!("/v1/owners?limit={PAGE}&search={name}"), None)?;
        let mut listed = found["owners"].as_array().into_iter().flatten();
        let keys = self.ask(Method::GET, &format!("/v1/keys?limit=1&owner={name}"), None)?;
        if !listed.any(|owner| owner["id"] == id.as_str()) && keys["total"].as_u64().is_some_and(|count| count > 0) {
            self.ask(Method::POST, "/v1/owners", Some(&json!({ "id": id.as_str() })))?;
        }
        Ok(())
    }

    /// Removes an owner.
    pub(crate) fn delete_owner(
        &self,
        console: &mut Console<'_>,
        id: &OwnerId,
        yes: bool,
        wait: Option<Duration>,
    ) -> Result<Exit, Failure> {
        self.ask(Method::GET, &path(id), None)?;
        if !yes {
            console.confirm(&format!("Deleting owner {id} takes its entry away."), id.as_str())?;
        }
        let deleted = self.ask_for(Method::DELETE, &waiting(&path(id), wait), None, wait.unwrap_or_default())?;
        let receipt = Receipt::read(&deleted, DELETED)?;
        console.say(format_args!("Owner {id} is deleted."));
        if console.output == Output::Json {
            let mut shown = json!({ "id": id.as_str(), "deleted": true });
            receipt.show(&mut shown);
            console.print_json(&shown)?;
        }
        self.conclude(console, &receipt, wait, DELETED)
    }
}

fn say(console: &mut Console<'_>, owner: &Value, id: &OwnerId, words: &str) {
    console.say(format_args!("Owner {id} {words}."));
    warn_of(console, owner);
}

fn told(console: &mut Console<'_>, owner: &Value, id: &OwnerId, words: &str) -> Result<Exit, Failure> {
    say(console, owner, id, words);
    if console.output == Output::Json {
        console.print_json(&described(owner))?;
    }
    Ok(Exit::Done)
}

/// With the fields that an owner of a key file is shown with.
fn described(owner: &Value) -> Value {
    let fields = ["id", "name", "capabilities", "kyc", "plan", "suspended_at", "keys"];
    fields.iter().map(|field| ((*field).to_owned(), owner[*field].clone())).collect()
}

fn path(id: &OwnerId) -> String {
    format!("/v1/owners/{}", encoded(id.as_str()))
}
