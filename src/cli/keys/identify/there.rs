//! What a control plane says of strings: it alone has the hashes.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
};

use http::Method;
use serde_json::{Value, json};

use super::super::{
    console::{Console, Failure},
    remote::Remote,
};
use crate::keys::{KeyId, document::Document, mint};

/// How many strings it is asked for: more than that are a dump of something.
const MOST_ASKED: usize = 200;

/// A control plane that is asked whose a string is.
pub(super) struct There {
    remote: Remote,
    asked: Cell<usize>,
    /// What it said of which string and key, by a hash: no second copy of a secret is made.
    answers: RefCell<HashMap<u64, Option<String>>>,
    by: RandomState,
    failure: RefCell<Option<Failure>>,
}

impl There {
    pub(super) fn new(remote: Remote) -> Self {
        let (asked, answers, by, failure) = Default::default();
        Self { remote, asked, answers, by, failure }
    }

    /// The shapes of the keys that it mints.
    pub(super) fn shapes(&self) -> Result<Vec<mint::Settings>, Failure> {
        let offered = self.remote.ask(Method::GET, "/v1/presets", None)?;
        let mut shapes: Vec<mint::Settings> = Vec::new();
        for preset in offered["presets"].as_array().into_iter().flatten() {
            let shape = shape(preset);
            if !shapes.contains(&shape) {
                shapes.push(shape);
            }
        }
        Ok(shapes)
    }

    pub(super) fn keys(&self, console: &Console<'_>) -> Result<Document, Failure> {
        Ok(self.remote.keys(console, "")?.0)
    }

    /// Whether this is the secret of the key.
    pub(super) fn proves(&self, key: &KeyId, secret: &str) -> bool {
        self.ask(secret, Some(key)).is_some()
    }

    /// The key whose secret this is.
    pub(super) fn whose(&self, secret: &str) -> Option<String> {
        self.ask(secret, None)
    }

    pub(super) fn gave_up(&self) -> bool {
        self.asked.get() > MOST_ASKED
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.take()
    }

    fn ask(&self, secret: &str, key: Option<&KeyId>) -> Option<String> {
        let name = self.by.hash_one((secret, key));
        if let Some(known) = self.answers.borrow().get(&name) {
            return known.clone();
        }
        if self.failure.borrow().is_some() || self.asked.replace(self.asked.get() + 1) >= MOST_ASKED {
            return None;
        }
        let body = json!({ "credential": secret, "key": key.map(KeyId::as_str) });
        let whose = match self.remote.ask(Method::POST, "/v1/identify", Some(&body)) {
            Ok(said) if said["match"] == "secret" => said["key"]["id"].as_str().map(str::to_owned),
            Ok(said) => {
                if said["complete"] == false {
                    self.asked.set(MOST_ASKED + 1);
                }
                None
            }
            Err(failure) => {
                self.failure.replace(Some(failure));
                None
            }
        };
        self.answers.borrow_mut().insert(name, whose.clone());
        whose
    }
}

/// The shape of a preset's keys.
fn shape(preset: &Value) -> mint::Settings {
    let mut shape = mint::Settings::default();
    let prefix = |index: usize| preset["prefixes"][index].as_str().map(Into::into);
    if preset["kind"] == "pair" {
        let pair = &mut shape.pair;
        pair.key_prefix = prefix(0).unwrap_or_else(|| pair.key_prefix.clone());
        pair.secret_prefix = preset["secret_prefix"].as_str().map_or_else(|| pair.secret_prefix.clone(), Into::into);
    } else {
        let token = &mut shape.token;
        token.live = prefix(0).unwrap_or_else(|| token.live.clone());
        token.test = prefix(1).unwrap_or_else(|| token.live.clone());
        let shown = preset["shown"].as_u64().and_then(|shown| usize::try_from(shown).ok());
        token.shown = shown.unwrap_or(token.shown);
    }
    shape
}
