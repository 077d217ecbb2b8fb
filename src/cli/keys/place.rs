//! Which key file a command works on, and how it reads and writes it.

use std::{
    collections::BTreeMap,
    fmt::Display,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    console::{Console, Failure},
    describe::{SHOWN, prefix},
    remote::RemoteArgs,
};
use crate::{
    cli::Exit,
    config::{self, Config, KeySource},
    fault::Fault,
    keys::{
        KeyId, Kind, LastUsed, Permission,
        document::{Document, KeyRow, Parser, edit::Draft},
        format::{Checksum, Recognised, recognise},
        mint,
        record::PublicPart,
        secret::Secret,
    },
    policy::Policy,
    sync::{
        keyfile::{self, Locked},
        state::StateFolder,
    },
    usage::read_last_used,
};

/// How long a command waits for others on the same file.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the keys are.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct PlaceArgs {
    /// The key file; needed without --config.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The configuration, or its folder: names the key file, the shape of keys, the pepper and the state folder.
    #[arg(long, value_name = "FILE", value_parser = crate::cli::configuration())]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
    /// The state folder of the running sidecar; default: the configuration's, else state/ beside the key file.
    #[arg(long, value_name = "DIR", conflicts_with = "control")]
    pub(crate) state: Option<PathBuf>,
}

/// The key file, and what goes with it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) file: PathBuf,
    pub(crate) state: Option<PathBuf>,
    pub(crate) mint: mint::Settings,
    pub(crate) pepper: Option<Secret>,
    /// The kind of key that can be presented: a pair, unless the configuration takes tokens alone.
    pub(crate) kind: Kind,
    /// Whether the mode of a key decides where it may be used, or what it reaches.
    pub(crate) binds_modes: bool,
    /// What routes ask for, where a configuration says so.
    pub(crate) asked: Option<Vec<Permission>>,
    /// The plans that there are, where a configuration says so.
    pub(crate) plans: Option<Vec<String>>,
    /// How it was named on the command line.
    pub(crate) typed: String,
}

impl PlaceArgs {
    /// Settles what was typed; `--file` and `--state` go before the configuration.
    pub(crate) fn settle(&self) -> Result<Place, Failure> {
        let mut place = match &self.config {
            Some(config) => {
                let config = load(config)?;
                match &self.file {
                    // The rest of the configuration holds for any file.
                    Some(file) => Place::of(config, file.clone()),
                    None => Place::try_from(config)?,
                }
            }
            None => {
                let file = self
                    .file
                    .clone()
                    .ok_or_else(|| Failure::usage("say which key file: --file keys.toml, or --config keyside.toml"))?;
                let state = file.parent().unwrap_or(Path::new("")).join("state");
                let state = state.is_dir().then_some(state);
                Place { state, ..Place::at(file) }
            }
        };
        if let (Some(file), Some(_)) = (&self.file, &self.config) {
            place.file.clone_from(file);
            place.typed.push_str(&format!(" --file {}", word(file)));
        }
        if let Some(state) = &self.state {
            place.state = Some(state.clone());
            place.typed.push_str(&format!(" --state {}", word(state)));
        }
        Ok(place)
    }
}

/// Reads a configuration; its faults end the command.
pub(crate) fn load(file: &Path) -> Result<Config, Failure> {
    config::load(file, config::environment())
        .map(|loaded| loaded.config)
        .map_err(|faults| Failure { exit: Exit::Misconfigured, message: faults.to_string() })
}

impl TryFrom<Config> for Place {
    type Error = Failure;

    fn try_from(config: Config) -> Result<Self, Failure> {
        match &config.keys.source {
            KeySource::File(file) => {
                let file = file.clone();
                Ok(Self::of(config, file))
            }
            KeySource::Control(control) => {
                let (file, url) = (config.sources.first().map(|file| word(file)), &control.client.url);
                let file = file.unwrap_or_else(|| "the configuration".to_owned());
                Err(Failure::new(format!("the keys of {file} come from a control plane; use --control {url}")))
            }
        }
    }
}

impl Place {
    /// This file, with what the configuration says of its keys.
    pub(crate) fn of(config: Config, file: PathBuf) -> Self {
        let takes_pairs = config.credential.basic || config.credential.query.is_some();
        Self {
            file,
            state: Some(config.keys.state),
            mint: config.keys.mint,
            pepper: config.keys.pepper,
            kind: if takes_pairs { Kind::Pair } else { Kind::Token },
            binds_modes: !config.policy.hosts.is_empty() || !config.upstream.modes.is_empty(),
            asked: Some(Policy::new(&config.policy).scopes_asked()),
            plans: Some(config.limits.plans.into_keys().collect()),
            typed: config.sources.first().map_or_else(String::new, |file| format!("--config {}", word(file))),
        }
    }

    /// A key file of which no configuration says more.
    pub(crate) fn at(file: PathBuf) -> Self {
        Self {
            typed: format!("--file {}", word(&file)),
            file,
            state: None,
            mint: mint::Settings::default(),
            pepper: None,
            kind: Kind::Pair,
            binds_modes: false,
            asked: None,
            plans: None,
        }
    }

    /// A command on the same place, to be typed as it stands.
    pub(crate) fn command(&self, words: impl Display) -> String {
        format!("keyside {words} {}", self.typed)
    }

    /// Reads the key file without locking it: what is read is always one whole version.
    pub(crate) fn read(&self) -> Result<Document, Failure> {
        let text = keyfile::read(&self.file)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", self.file.display())))?;
        Parser::default().parse(&text).map_err(|refused| Failure::faults(&self.file, refused.faults))
    }

    /// Opens the key file to change it. With `faults` an entry that is wrong stops the command.
    pub(crate) fn edit(&self, tolerate: Tolerate) -> Result<Edit<'_>, Failure> {
        let locked = Locked::open(&self.file, PATIENCE).map_err(|error| Failure::of(&error))?;
        let (text, missing) = match locked.text() {
            Some(text) => (text.to_vec(), false),
            None => (Vec::new(), true),
        };
        if missing && tolerate != Tolerate::NoFile {
            return Err(Failure::new(format!("there is no key file {}", self.file.display())));
        }
        let document = Parser::default().parse(&text).map_err(|refused| Failure::faults(&self.file, refused.faults))?;
        let wrong: Vec<Fault> = document.faults.iter().filter(|fault| fault.is_error()).cloned().collect();
        if !wrong.is_empty() && tolerate != Tolerate::BadEntries {
            return Err(Failure::faults(&self.file, wrong));
        }
        let draft = Draft::new(String::from_utf8_lossy(&text));
        Ok(Edit { place: self, locked, document, draft })
    }

    /// The document as it is in force: with the revocations of its keys that the state folder remembers.
    pub(crate) fn recall(&self, mut document: Document, console: &mut Console<'_>) -> Document {
        let Some(state) = &self.state else { return document };
        match StateFolder::new(state).revoked() {
            Ok(revoked) => document.recall(&revoked),
            Err(error) => console.warn(format_args!("cannot read the revocations in {}: {error}", state.display())),
        }
        document
    }

    /// Finds a key that may be changed or replaced: a revoked one stays what it is.
    pub(crate) fn find_living(
        &self,
        document: &Document,
        reference: &str,
        console: &mut Console<'_>,
    ) -> Result<Arc<KeyRow>, Failure> {
        let row = match self.find(document, reference)? {
            Named::Row(row) => row,
            Named::SetAside(id) => {
                let list = self.command("keys list");
                return Err(Failure::new(format!("the entry of key {id} is wrong; {list} tells how")));
            }
        };
        if self.recall(document.clone(), console).revoked.contains_key(&row.id) {
            return Err(Failure::new(format!("key {} is revoked, for good; create a new one", row.id)));
        }
        Ok(row)
    }

    /// When and from where keys were last used, as the running sidecar saved it; none where that is not known.
    pub(crate) fn last_used(&self, console: &mut Console<'_>) -> Option<BTreeMap<KeyId, LastUsed>> {
        let state = self.state.as_ref()?;
        read_last_used(state).unwrap_or_else(|error| {
            console.warn(format_args!("cannot read the last uses in {}: {error}", state.display()));
            None
        })
    }
}

/// A path as a shell takes it.
pub(crate) fn word(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@%,=".contains(&byte);
    if path.bytes().all(plain) && !path.is_empty() { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

/// Warns of keys whose row was taken back to before they were revoked: the sidecar knows better.
pub(crate) fn warn_of_revived(recalled: &Document, console: &mut Console<'_>) {
    for row in recalled.revived() {
        console.warn(format_args!("key {} was revoked and stays so, although its row does not say it", row.id));
    }
}

/// What a change of the key file puts up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tolerate {
    /// Nothing wrong: something is added, and the file is to be right.
    Nothing,
    /// As above, but the file need not be there.
    NoFile,
    /// Entries that are wrong: something is taken away, and that must not wait.
    BadEntries,
}

/// A key file while a command changes it.
pub(crate) struct Edit<'a> {
    place: &'a Place,
    locked: Locked,
    /// As it was.
    pub(crate) document: Document,
    /// As it will be.
    pub(crate) draft: Draft,
}

impl Edit<'_> {
    /// Writes what was changed. The new text.
    pub(crate) fn finish(mut self) -> Result<String, Failure> {
        self.draft.seal();
        let text = self.draft.text();
        // A text that we would refuse to read must never be written.
        let after = Parser::default().parse(text.as_bytes()).map_err(|refused| {
            Failure::new(format!("this would leave the key file wrong, so nothing was done:\n{refused}"))
        })?;
        if after.quarantined > self.document.quarantined {
            let faults = after.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            return Err(Failure::new(format!("this would leave an entry wrong, so nothing was done:\n{faults}")));
        }
        self.locked.write(text.as_bytes()).map_err(|error| {
            let mut failure = Failure::of(&error);
            failure.message.push_str("\nthe folder must be writable, since the file is replaced and not written into");
            failure
        })?;
        Ok(text.to_owned())
    }

    /// Where the file is.
    pub(crate) fn place(&self) -> &Place {
        self.place
    }

    /// Tells what else is wrong with the file.
    pub(crate) fn tell_faults(&self, console: &mut Console<'_>) {
        console.tell(&self.place.file, &self.document.faults);
    }
}

/// What a reference names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// A key that can be read.
    Row(Arc<KeyRow>),
    /// A key whose entry is wrong: its id alone.
    SetAside(KeyId),
}

impl Named {
    pub(crate) fn id(&self) -> &KeyId {
        match self {
            Self::Row(row) => &row.id,
            Self::SetAside(id) => id,
        }
    }

    /// How people call it.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Row(row) if !row.name.is_empty() => format!("{} ({})", row.id, row.name),
            _ => self.id().to_string(),
        }
    }
}

impl Place {
    /// Finds the key that an id, or a name or prefix that only one key has, stands for.
    pub(crate) fn find(&self, document: &Document, reference: &str) -> Result<Named, Failure> {
        find(document, &self.mint, reference, &self.command("keys list"))
    }
}

/// Refuses a reference that is a secret, without repeating it.
pub(crate) fn refuse_secret(mint: &mint::Settings, reference: &str) -> Result<(), Failure> {
    match recognise(mint, reference) {
        Recognised::ConsumerSecret | Recognised::Token { checksum: Checksum::Good | Checksum::Bad, .. } => {
            Err(Failure::new(
                "that is a secret, and now it is in the shell's history and was in the process list: name the key by its \
                 id, name or prefix, and rotate it",
            ))
        }
        _ => Ok(()),
    }
}

/// Finds the key that an id, or a name or prefix that only one key has, stands for. A prefix may be cut as in the list,
/// which the command `list` shows.
pub(crate) fn find(document: &Document, mint: &mint::Settings, reference: &str, list: &str) -> Result<Named, Failure> {
    let set_aside = || document.set_aside.iter().chain(document.revoked.keys());
    if let Some(row) = document.keys.iter().find(|row| row.id.as_str() == reference) {
        return Ok(Named::Row(row.clone()));
    }
    if let Some(id) = set_aside().find(|id| id.as_str() == reference) {
        return Ok(Named::SetAside(id.clone()));
    }
    let public = |row: &KeyRow| matches!(&row.public, PublicPart::Clear(prefix) if **prefix == *reference);
    // As the list shows it: no shorter, since what is typed in haste must not revoke a key that is not meant. And
    // beside the names: somebody may call a key like the prefix of another one.
    let shown = reference.strip_suffix('…').unwrap_or(reference);
    let is_shown = shown.chars().count() >= SHOWN;
    let begins = |row: &KeyRow| is_shown && prefix(row).is_some_and(|prefix| prefix.starts_with(shown));
    let is_meant = |row: &&Arc<KeyRow>| *row.name == *reference || public(row) || begins(row);
    let found: Vec<_> = document.keys.iter().filter(is_meant).collect();
    match found[..] {
        [row] => Ok(Named::Row(row.clone())),
        [] => {
            refuse_secret(mint, reference)?;
            Err(Failure::new(format!(
                "no key has the id, name or prefix \"{}\"; see {}",
                reference.escape_debug(),
                list
            )))
        }
        _ => {
            let ids: Vec<_> = found.iter().map(|row| format!("  {} {}", row.id, row.name)).collect();
            Err(Failure::new(format!("{} keys are called so; take the id of one:\n{}", ids.len(), ids.join("\n"))))
        }
    }
}
