//! The key file, held against the configuration: what is wrong with it, and what in it can never take effect.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::Path,
};

use crate::{
    cli::keys::place::word,
    client::Client,
    clock::Wall,
    config::{Config, Control, KeySource, Loaded, unreachable_quotas},
    fault::{Fault, chain},
    keys::{
        Kind, Mode, Permission,
        document::{Care, Document, KeyRow, LastGood, OwnerRow, Parser},
    },
    policy::Policy,
    sync::{keyfile, state::StateFolder},
};

/// Checks the key file, and its keys against what the configuration asks of them.
pub(super) fn check(loaded: &Loaded, now: Wall, faults: &mut Vec<Fault>) {
    let file = match &loaded.config.keys.source {
        KeySource::File(file) => file,
        KeySource::Control(control) => return check_control(control, loaded, faults),
    };
    let text = match keyfile::read(file) {
        Ok(text) => text,
        Err(error) => {
            let fault = Fault::error(format!("`keys.file`: cannot read {}: {error}", file.display()));
            faults.push(loaded.effective.mark("keys.file", fault));
            return;
        }
    };
    if let Some(words) = keyfile::exposure(file) {
        let fault = Fault::warning(format!("the key file {}: {words}", file.display()));
        faults.push(loaded.effective.mark("keys.file", fault));
    }
    let mut found = Vec::new();
    match Parser::default().parse(&text) {
        Err(refused) => found.extend(refused.faults),
        Ok(mut document) => {
            match StateFolder::new(&loaded.config.keys.state).revoked() {
                Ok(revoked) => document.recall(&revoked),
                Err(error) => {
                    let fault = Fault::warning(format!("cannot read which keys were ever revoked: {error}"));
                    faults.push(loaded.effective.mark("keys.state", fault));
                }
            }
            if let Err(refused) = LastGood::judge_first(&document, Care::Careful) {
                found.extend(refused.faults);
            }
            found.extend(document.faults.iter().cloned());
            let text = String::from_utf8_lossy(&text);
            Sight { config: &loaded.config, document: &document, text: &text, now, found: &mut found }.check();
        }
    }
    found.sort_by_key(|fault| (fault.line, fault.column));
    faults.extend(found.into_iter().map(|fault| fault.in_file(file)));
}

/// Checks what a control endpoint is reached by. It is not asked: a check changes nothing and needs nobody.
fn check_control(control: &Control, loaded: &Loaded, faults: &mut Vec<Fault>) {
    if let Err(error) = Client::new(&control.client) {
        let fault = Fault::error(format!("`keys.control`: {}", chain(&error)));
        faults.push(loaded.effective.mark("keys.control.url", fault));
    }
    if control.client.token.is_none() && control.client.identity.is_none() {
        let fault =
            Fault::warning("`keys.control`: neither a token nor a certificate is shown to the control endpoint")
                .suggest("give it token = { file = \"…\" }");
        faults.push(loaded.effective.mark("keys.control.url", fault));
    }
}

/// Checks the key file by itself.
pub(super) fn check_alone(file: &Path, faults: &mut Vec<Fault>) {
    let Ok(text) = keyfile::read(file) else { return };
    let found = match Parser::default().parse(&text) {
        Ok(document) => document.faults,
        Err(refused) => refused.faults,
    };
    faults.extend(found.into_iter().map(|fault| fault.in_file(file)));
}

/// A key document beside the configuration that it is for.
struct Sight<'a> {
    config: &'a Config,
    document: &'a Document,
    text: &'a str,
    now: Wall,
    found: &'a mut Vec<Fault>,
}

impl Sight<'_> {
    fn check(&mut self) {
        let document = self.document;
        let policy = Policy::new(&self.config.policy);
        let asked = policy.scopes_asked();
        let owners: BTreeMap<_, _> = document.owners.iter().map(|row| (&row.id, row)).collect();
        let mut strangers = HashSet::new();
        let starts = Starts::new(self.text);
        let now = self.now;
        let live = |row: &&std::sync::Arc<KeyRow>| {
            let over = |at: Option<Wall>| at.is_some_and(|at| at <= now);
            !document.revoked.contains_key(&row.id) && !over(row.expires_at)
        };
        for row in document.revived() {
            let message = format!("key {} was revoked and stays so, although its row does not say it", row.id);
            let command = self.command(&format!("keys revoke {}", row.id));
            let fault = Fault::warning(message).suggest(format!("write it down again: {command}"));
            self.add(&starts, row.id.as_str(), "id", fault);
        }
        for row in document.keys.iter().filter(live).cloned().collect::<Vec<_>>() {
            self.scopes(&row, &asked, &starts);
            self.hash(&row, &starts);
            self.limits(&row, &starts);
            self.mode(&row, &starts);
            self.presentation(&row, &starts);
            if !owners.contains_key(&row.owner) && strangers.insert(row.owner.clone()) {
                let message = format!("the owner {} has no row: no capabilities, KYC none, no plan", row.owner);
                let fault = Fault::warning(message).suggest(self.command(&format!("owners create {}", row.owner)));
                self.add(&starts, row.id.as_str(), "owner", fault);
            }
        }
        for row in &document.owners {
            self.plan(row, &starts);
        }
        self.capabilities();
    }

    /// A command on the same configuration, to be typed as it stands.
    fn command(&self, words: &str) -> String {
        let config = self.config.sources.first().map(|file| format!(" --config {}", word(file)));
        format!("keyside {words}{}", config.unwrap_or_default())
    }

    fn add(&mut self, starts: &Starts<'_>, id: &str, field: &str, fault: Fault) {
        self.found.push(starts.mark(id, field, fault));
    }

    /// Scopes that no route asks for.
    fn scopes(&mut self, row: &KeyRow, asked: &[Permission], starts: &Starts<'_>) {
        let useful = asked.iter().any(|permission| row.scopes.hold(permission));
        if !useful {
            let message = if row.scopes.is_empty() {
                format!("key {} has no scopes, so it can do nothing", row.id)
            } else {
                format!("nothing asks for any scope of key {}, so it can do nothing", row.id)
            };
            return self.add(starts, row.id.as_str(), "scopes", advise(Fault::warning(message), asked));
        }
        let idle = row.scopes.iter().filter(|scope| match *scope {
            "read_write" => !asked.iter().any(|asked| matches!(asked, Permission::Read | Permission::Write)),
            scope => !asked.iter().any(|asked| asked.to_string() == scope),
        });
        for scope in idle.map(str::to_owned).collect::<Vec<_>>() {
            let fault = Fault::warning(format!("no route asks for the scope {scope} of key {}", row.id));
            let near = asked.iter().map(Permission::to_string).collect::<Vec<_>>();
            let near = crate::fault::nearest(&scope, near.iter().map(String::as_str));
            let fault = match near {
                Some(near) => fault.suggest(format!("did you mean {near}?")),
                None => fault,
            };
            self.add(starts, row.id.as_str(), "scopes", fault);
        }
    }

    /// A hash under a pepper that is not there, or is another one.
    fn hash(&mut self, row: &KeyRow, starts: &Starts<'_>) {
        if let Err(why) = row.hash.fits_pepper(self.config.keys.pepper.as_ref()) {
            let fault = Fault::error(format!("the hash of key {}: {why}", row.id));
            let mut fault = starts.mark(row.id.as_str(), "hash", fault);
            fault.source_line.clear();
            self.found.push(fault);
        }
    }

    fn limits(&mut self, row: &KeyRow, starts: &Starts<'_>) {
        let Some(quotas) = &row.limits else { return };
        for (index, by) in unreachable_quotas(quotas) {
            let message =
                format!("{} of key {} can never be reached, since {by} is used up first", quotas[index], row.id);
            self.add(starts, row.id.as_str(), "limits", Fault::warning(message));
        }
    }

    /// A mode that no host accepts; none, where modes keep keys apart; and test, where they do not.
    fn mode(&mut self, row: &KeyRow, starts: &Starts<'_>) {
        let hosts = &self.config.policy.hosts;
        let modes = &self.config.upstream.modes;
        let message = match row.mode {
            Some(mode) if !hosts.is_empty() && !hosts.values().any(|host| *host == mode) => {
                let mode = Mode::as_str(mode);
                format!("no host of [hosts] accepts {mode} keys, so key {} can do nothing", row.id)
            }
            None if !hosts.is_empty() => format!("key {} has no mode, so every host of [hosts] accepts it", row.id),
            None if !modes.is_empty() => format!("key {} has no mode, so none of [upstream.modes] is its own", row.id),
            Some(Mode::Test) if hosts.is_empty() && modes.is_empty() => {
                let message = format!("key {} is a test key, and reaches the upstream of live keys", row.id);
                let advice = "set [upstream.modes], or [hosts]".to_owned();
                return self.add(starts, row.id.as_str(), "mode", Fault::warning(message).suggest(advice));
            }
            Some(_) | None => return,
        };
        self.add(starts, row.id.as_str(), "mode", Fault::warning(message));
    }

    /// A key that no request can bring.
    fn presentation(&mut self, row: &KeyRow, starts: &Starts<'_>) {
        let takes = &self.config.credential;
        if row.kind == Kind::Pair && !takes.basic && takes.query.is_none() {
            let message = format!("[credentials] takes no pairs, so key {} can do nothing", row.id);
            let fault = Fault::warning(message).suggest("keyside keys create --kind token".to_owned());
            self.add(starts, row.id.as_str(), "kind", fault);
        }
    }

    fn plan(&mut self, row: &OwnerRow, starts: &Starts<'_>) {
        let plans = &self.config.limits.plans;
        let Some(plan) = row.plan.as_ref().filter(|plan| !plans.contains_key(&***plan)) else { return };
        let fault = Fault::warning(format!(
            "the plan {plan} of owner {} is none of [limits.plans]; its keys have the limits of all keys",
            row.id
        ));
        let fault = match crate::fault::nearest(plan, plans.keys().map(String::as_str)) {
            Some(near) => fault.suggest(format!("did you mean {near}?")),
            None => fault,
        };
        self.add(starts, row.id.as_str(), "plan", fault);
    }

    /// Capabilities that routes ask for and no owner has.
    fn capabilities(&mut self) {
        if self.document.keys.is_empty() {
            return;
        }
        let asked: BTreeSet<_> =
            self.config.policy.routes.iter().filter_map(|route| route.capability.as_ref()).collect();
        for capability in asked {
            if !self.document.owners.iter().any(|row| row.capabilities.contains(capability)) {
                let fault = Fault::warning(format!("routes ask for the capability {capability}, which no owner has"));
                self.found.push(fault);
            }
        }
    }
}

fn advise(fault: Fault, asked: &[Permission]) -> Fault {
    if asked.is_empty() {
        return fault;
    }
    let asked: Vec<_> = asked.iter().map(Permission::to_string).collect();
    fault.suggest(format!("asked for are {}", asked.join(", ")))
}

/// Where entries stand in the text, found by their `id` lines. A row has no place of its own.
struct Starts<'t> {
    text: &'t str,
    by_id: BTreeMap<&'t str, usize>,
}

impl<'t> Starts<'t> {
    fn new(text: &'t str) -> Self {
        let mut by_id = BTreeMap::new();
        let mut offset = 0;
        for line in text.split_inclusive('\n') {
            if field_of(line) == Some("id")
                && let Some(id) = line.split(['"', '\'']).nth(1)
            {
                by_id.entry(id).or_insert(offset);
            }
            offset += line.len();
        }
        Self { text, by_id }
    }

    /// The fault, at the entry's field, else at its id, else without a place.
    fn mark(&self, id: &str, field: &str, fault: Fault) -> Fault {
        let Some(&at) = self.by_id.get(id) else { return fault };
        let block = self.block(at);
        let mut offset = block.start;
        let found = self.text[block].split_inclusive('\n').find_map(|line| {
            let start = offset + (line.len() - line.trim_start().len());
            offset += line.len();
            (field_of(line) == Some(field)).then_some(start)
        });
        fault.at(self.text, found.unwrap_or(at))
    }

    /// The entry around an offset.
    fn block(&self, at: usize) -> std::ops::Range<usize> {
        let start = self.text[..at].rfind("\n[").map_or(0, |before| before + 1);
        let end = self.text[at..].find("\n[").map_or(self.text.len(), |after| at + after + 1);
        start..end
    }
}

/// The name of the field that a line sets.
fn field_of(line: &str) -> Option<&str> {
    let (name, _) = line.split_once('=')?;
    let name = name.trim();
    (!name.is_empty() && !name.starts_with('#')).then_some(name)
}
