//! Keys of a control plane, instead of those of a file: `--control URL`.
//!
//! What it says of keys becomes the rows that a key file would have, so that everything that is shown is shown by the
//! same code. Hashes are not among it: only their kind is known.

mod change;
mod owners;
mod receipt;

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt::Display,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use receipt::Receipt;

use super::{
    console::{Console, Failure},
    place::{Named, PlaceArgs, find, refuse_secret, word},
};
use crate::{
    cli::Exit,
    client::{Client, Settings},
    clock,
    fault::chain,
    keys::{
        KeyId, LastUsed,
        document::{self, Document, KeyRow, OwnerRow, json::read_key},
        mint,
        secret::Secret,
    },
};

/// The variable that holds an operator's token, where no file is named.
const TOKEN: &str = "KEYSIDE_CONTROL_TOKEN";
/// The largest answer: a page of a thousand keys, each with its address list.
const MOST: usize = 64 << 20;
/// How long an answer may take, besides what it was asked to wait for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many keys are asked for at once.
const PAGE: usize = 1000;

/// A control plane.
pub(crate) struct Remote {
    client: Client,
    runtime: tokio::runtime::Runtime,
    /// How it was named on the command line.
    typed: String,
    /// Where the token was taken from.
    token_of: String,
    /// How long the last answer took that waited for sidecars.
    waited: Cell<Duration>,
}

/// What a control plane knows of keys.
pub(crate) type Known = (Document, BTreeMap<KeyId, LastUsed>);

/// Where an operator's token is.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct RemoteArgs {
    /// The control plane, instead of a file.
    #[arg(long, value_name = "URL", conflicts_with_all = ["file", "config"])]
    pub(crate) control: Option<String>,
    /// A file with an operator's token for the control plane; default: KEYSIDE_CONTROL_TOKEN of the environment.
    #[arg(long, value_name = "FILE", requires = "control")]
    pub(crate) token_file: Option<PathBuf>,
    /// The authority that the control plane's certificate is checked against; default: those of the system.
    #[arg(long, value_name = "FILE", requires = "control")]
    pub(crate) ca: Option<PathBuf>,
}

impl PlaceArgs {
    /// The control plane, where one was named.
    pub(crate) fn remote(&self) -> Result<Option<Remote>, Failure> {
        self.remote.open()
    }
}

impl RemoteArgs {
    /// The control plane, where one was named.
    pub(crate) fn open(&self) -> Result<Option<Remote>, Failure> {
        let Some(control) = &self.control else { return Ok(None) };
        let url = control.parse().map_err(|why| Failure::usage(format!("--control: {why}")))?;
        let token = match &self.token_file {
            Some(file) => Zeroizing::new(
                std::fs::read_to_string(file)
                    .map_err(|error| Failure::new(format!("cannot read {}: {error}", file.display())))?,
            ),
            None => Zeroizing::new(std::env::var(TOKEN).unwrap_or_default()),
        };
        let token_of = match &self.token_file {
            Some(file) => file.display().to_string(),
            None => format!("the environment variable {TOKEN}"),
        };
        let token = token.trim();
        if token.is_empty() {
            return Err(Failure::usage(format!("an operator's token is needed: --token-file FILE, or {TOKEN}")));
        }
        let token = Some(Secret::new(token.as_bytes()));
        let client = Client::new(&Settings { url, token, ca: self.ca.clone(), identity: None })
            .map_err(|error| Failure::of(&error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let mut typed = format!("--control {}", word(Path::new(control)));
        for (option, file) in [("--token-file", &self.token_file), ("--ca", &self.ca)] {
            if let Some(file) = file {
                typed.push_str(&format!(" {option} {}", word(file)));
            }
        }
        Ok(Some(Remote {
            client,
            runtime: runtime.map_err(|error| Failure::of(&error))?,
            typed,
            token_of,
            waited: Cell::default(),
        }))
    }
}

impl Remote {
    /// A command on the same control plane, to be typed as it stands.
    pub(crate) fn command(&self, words: impl Display) -> String {
        format!("keyside {words} {}", self.typed)
    }

    /// Asks; the data of the answer.
    pub(crate) fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        self.ask_for(method, path, body, Duration::ZERO)
    }

    /// Asks for something that may take so long.
    pub(super) fn ask_for(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        wait: Duration,
    ) -> Result<Value, Failure> {
        let body = body.map(|body| body.to_string().into_bytes());
        let asked = self.client.request(method, path, body, MOST, PATIENCE + wait);
        let began = clock::mono();
        let answer = self.runtime.block_on(asked);
        if !wait.is_zero() {
            self.waited.set(clock::mono().since(began));
        }
        let answer = answer.map_err(|error| {
            let hint = if error.is_untrusted() { "\n--ca FILE names the authority of its certificate" } else { "" };
            Failure::new(format!("{}: {}{hint}", self.client.url(), chain(&error)))
        })?;
        if answer.status == StatusCode::UNAUTHORIZED {
            return Err(Failure::new(format!(
                "{}: the operator's token in {} was not accepted: it is mistyped, was removed or has expired",
                self.client.url(),
                self.token_of
            )));
        }
        let odd = || Failure::new(format!("{} answered {} and no JSON of ours", self.client.url(), answer.status));
        let body: Value = serde_json::from_slice(&answer.body).map_err(|_| odd())?;
        match (&body["success"], &body["data"], &body["error"]["message"]) {
            (Value::Bool(true), data, _) if answer.status.is_success() => Ok(data.clone()),
            (_, _, Value::String(message)) => {
                let mut plain: String = message.chars().filter(|char| !char.is_control()).collect();
                if let Some(option) = body["error"]["field"].as_str().and_then(option_of) {
                    plain.push_str(&format!(" ({option})"));
                }
                Err(Failure::new(plain))
            }
            _ => Err(odd()),
        }
    }

    /// Says what became of a change, as [`Receipt::conclude`]; `wait` is whether that was waited for.
    fn conclude(
        &self,
        console: &mut Console<'_>,
        receipt: &Receipt,
        wait: Option<Duration>,
        done: &str,
    ) -> Result<Exit, Failure> {
        receipt.conclude(console, wait.map(|_| self.waited.get()), done)
    }

    /// The keys that this query asks for: all of them, page by page.
    pub(crate) fn keys(&self, console: &Console<'_>, query: &str) -> Result<Known, Failure> {
        let mut known = Known::default();
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/keys?limit={PAGE}{query}{cursor}");
            let page = self.ask(Method::GET, &path, None)?;
            for key in page["keys"].as_array().into_iter().flatten() {
                take(&mut known, key, console)?;
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={}", encoded(next)),
                None => break,
            }
        }
        // As in a file: the oldest first.
        known.0.keys.reverse();
        Ok(known)
    }

    /// The key that an id, or a name or prefix that only one key has, stands for; with what else is known of it.
    pub(crate) fn find(&self, console: &Console<'_>, reference: &str) -> Result<(Arc<KeyRow>, Known), Failure> {
        let shapes = mint::Settings::default();
        // Not even the control plane is to be told.
        refuse_secret(&shapes, reference)?;
        let shown = reference.strip_suffix('…').unwrap_or(reference);
        let known = self.keys(console, &format!("&search={}", encoded(shown)))?;
        let key = find(&known.0, &shapes, reference, &self.command("keys list"))?;
        match key {
            Named::Row(row) => Ok((row, known)),
            Named::SetAside(id) => Err(Failure::new(format!("the entry of key {id} is wrong"))),
        }
    }

    /// As [`find`](Self::find), of a key that may be changed or replaced.
    fn find_living(&self, console: &Console<'_>, reference: &str) -> Result<Arc<KeyRow>, Failure> {
        let (row, _) = self.find(console, reference)?;
        match row.revoked_at {
            Some(_) => Err(Failure::new(format!("key {} is revoked, for good; create a new one", row.id))),
            None => Ok(row),
        }
    }

    /// The key of this id.
    fn show(&self, console: &Console<'_>, id: &KeyId) -> Result<(Arc<KeyRow>, Known), Failure> {
        let key = self.ask(Method::GET, &path(id), None)?;
        let mut known = Known::default();
        let row = take(&mut known, &key, console)?;
        Ok((row, known))
    }
}

/// The option that a field of a request is set by.
fn option_of(field: &str) -> Option<&'static str> {
    Some(match field {
        "environment" => "--mode live|test",
        "permissions" => "--scope",
        "allow_ips" => "--allow-ip",
        "limits" => "--limit",
        "expires_at" => "--expires",
        "kind" => "--kind",
        "preset" => "--preset",
        _ => return None,
    })
}

/// A text, as a part of a path or a query.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn path(id: &KeyId) -> String {
    format!("/v1/keys/{}", encoded(id.as_str()))
}

/// Takes a key as the control plane shows it.
fn take(known: &mut Known, key: &Value, console: &Console<'_>) -> Result<Arc<KeyRow>, Failure> {
    let (document, used) = known;
    let row = row(key)?;
    if row.revoked_at.is_some() {
        document.revoked.insert(row.id.clone(), row.revoked_at);
    }
    if key["status"] == "suspended" && !document.owners.iter().any(|owner| owner.id == row.owner) {
        let suspended_at = Some(console.now.wall);
        let (id, name, capabilities, kyc, plan) = (row.owner.clone(), None, Box::default(), Default::default(), None);
        document.owners.push(Arc::new(OwnerRow { id, name, capabilities, kyc, plan, suspended_at }));
    }
    let moment = key["last_used_at"].as_str().and_then(document::moment);
    let address = key["last_used_ip"].as_str().and_then(|address| address.parse().ok());
    if let (Some(at), Some(ip)) = (moment, address) {
        used.insert(row.id.clone(), LastUsed { at, ip });
    }
    document.keys.push(Arc::clone(&row));
    Ok(row)
}

/// The row of a key as the control plane shows it.
fn row(key: &Value) -> Result<Arc<KeyRow>, Failure> {
    let (a, zero) = (|count| "A".repeat(count), "0".repeat(64));
    // Nobody is told a hash: this is one of nothing, of the same kind.
    let hash = match key["hash"].as_str().unwrap_or("sha256") {
        "argon2id" => format!("$argon2id$v=19$m=19456,t=2,p=1${}${}", a(22), a(43)),
        "bcrypt" => format!("$2y$10${}", ".".repeat(53)),
        "hmac-sha256" => format!("$hmac-sha256${}${}", a(22), a(43)),
        _ => format!("$sha256${zero}"),
    };
    let mut fields = json!({
        "id": key["id"], "name": key["name"], "kind": key["kind"], "prefix": key["prefix"], "hash": hash,
        "owner": key["owner"], "scopes": key["permissions"], "mode": key["environment"], "allow_ips": key["allow_ips"],
        "limits": key["limits"], "created_at": key["created_at"], "expires_at": key["expires_at"],
        "revoked_at": key["revoked_at"], "rotated_from": key["rotated_from"],
        "minted_by": key["minted_by"],
    });
    if key["prefix"].is_null() {
        fields["lookup"] = format!("hmac-sha256:unknown:{zero}").into();
    }
    let read = read_key(&fields);
    let wrong = || format!("the control plane shows a key that cannot be read: {}", read.faults.join("; "));
    read.row.clone().ok_or_else(|| Failure::new(wrong()))
}
