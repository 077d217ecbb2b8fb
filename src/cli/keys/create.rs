//! `keys create`.

use serde_json::json;
use zeroize::Zeroize as _;

use super::{
    console::{Console, Failure, Output},
    describe::{administrator, created, owner, sentence},
    moments::{Expiry, expiry},
    place::{Edit, Place, PlaceArgs, Tolerate},
    remote::Remote,
};
use crate::{
    cli::Exit,
    clock::Wall,
    fault,
    keys::{
        Kind, Mode, OwnerId, Permission, Scopes,
        document::{
            self, KeyRow,
            edit::{List, key_fields},
        },
        mint::{Minted, mint},
        record::PublicPart,
        secret::{Algorithm, Secret},
    },
    limits::Quota,
    policy::network::Network,
};

/// Mint a key. Its secret is printed once, and only its hash is kept.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    /// What people shall call it: best after the one integration that uses it.
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: String,
    /// Whom it acts for: the id of an owner.
    #[arg(long, value_name = "OWNER", value_parser = text::<OwnerId>)]
    owner: OwnerId,
    /// A pair (Basic) or a token (Bearer); default: a pair, unless --config takes tokens alone.
    #[arg(long, value_name = "pair|token", value_parser = text::<Kind>)]
    kind: Option<Kind>,
    /// What it may do: read, write, read_write, or names such as transactions:read; separated by commas.
    #[arg(long, value_name = "SCOPE", required = true, value_delimiter = ',', value_parser = scope)]
    scope: Vec<String>,
    /// On which hosts it passes, and which upstream it reaches; without a mode it passes on all hosts. Default: live for
    /// a token, as its prefix says; none for a pair.
    #[arg(long, value_name = "live|test|none", value_parser = chosen)]
    mode: Option<Chosen>,
    /// From where it may be used: addresses and networks, separated by commas; default: from anywhere.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', value_parser = address)]
    allow_ip: Vec<Network>,
    /// When it expires: 90d, or 2027-02-19T00:00:00Z; default: never.
    #[arg(long, value_name = "WHEN", value_parser = expiry)]
    expires: Option<Expiry>,
    /// A limit of its own, such as 600/1m; may be repeated. Default: those of its owner's plan.
    #[arg(long, value_name = "LIMIT", value_delimiter = ',', value_parser = text::<Quota>)]
    limit: Vec<Quota>,
    /// How the secret is kept: argon2id, or hmac-sha256 with the pepper of --config.
    #[arg(long, value_name = "HASH", value_parser = text::<Algorithm>)]
    hash: Option<Algorithm>,
    /// Of a control plane: the preset whose kind of key is meant; default: its first one.
    #[arg(long, value_name = "PRESET", requires = "control")]
    preset: Option<String>,
}

/// Reads an argument by its type's own rules.
pub(crate) fn text<T: std::str::FromStr<Err = &'static str>>(text: &str) -> Result<T, &'static str> {
    text.parse()
}

/// A name that can be asked for and shown.
pub(crate) fn name(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() {
        return Err("must not be empty");
    }
    document::check_new_name(text).map(|()| text.to_owned())
}

/// White space around an address is how people write lists. In the key file, where nobody is asked again, it is a fault.
pub(super) fn address(text: &str) -> Result<Network, String> {
    document::network(text.trim_ascii())
}

/// A mode, or that there is none.
#[derive(Clone, Copy, Debug)]
struct Chosen(Option<Mode>);

fn chosen(text: &str) -> Result<Chosen, &'static str> {
    match text {
        "none" => Ok(Chosen(None)),
        mode => {
            mode.parse().map(|mode| Chosen(Some(mode))).map_err(|_: &str| "expected \"live\", \"test\" or \"none\"")
        }
    }
}

pub(super) fn scope(text: &str) -> Result<String, &'static str> {
    Scopes::parse([text]).map(|_| text.to_owned()).map_err(|(_, why)| why)
}

impl Args {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let expires_at = match self.expires {
            Some(expiry) => {
                let at = expiry.from(console.now.wall);
                Some(at.ok_or_else(|| Failure::usage("--expires lies in the past: the key would never work"))?)
            }
            None => None,
        };
        if let Some(remote) = self.place.remote()? {
            return self.create_at(&remote, console, expires_at);
        }
        let mut place = self.place.settle()?;
        if let Some(hash) = self.hash {
            place.mint.hash = hash;
        }
        let mut edit = place.edit(Tolerate::NoFile)?;
        let kind = self.kind.unwrap_or(place.kind);
        let mode = self.mode.map_or((kind == Kind::Token).then_some(Mode::Live), |Chosen(mode)| mode);
        let minted = mint_for(&place, &edit, kind, mode, console)?;
        let row = KeyRow {
            id: minted.id.clone(),
            name: self.name.as_str().into(),
            kind,
            public: PublicPart::Clear(minted.public.clone()),
            hash: minted.hash.clone(),
            owner: self.owner.clone(),
            scopes: Scopes::parse(self.scope.iter().map(String::as_str)).map_err(|(_, why)| Failure::usage(why))?,
            mode,
            allow_ips: self.allow_ip.iter().copied().collect(),
            limits: (!self.limit.is_empty()).then(|| self.limit.clone()),
            created_at: Some(console.now.wall),
            expires_at,
            revoked_at: None,
            rotated_from: None,
            minted_by: None,
        };
        warn_of_name(console, &edit, &row);
        if place.binds_modes && row.mode.is_none() {
            console.warn("the key has no mode: it passes on every host, and its requests go to upstream.url");
        }
        warn_of_scopes(console, place.asked.as_deref(), &row);
        if (kind, place.kind) == (Kind::Pair, Kind::Token) {
            console.warn("[credentials] takes no pairs, so that nobody can present this key; tokens: --kind token");
        }
        edit.draft.add(List::Keys, &key_fields(&row));
        warn_of_owner(console, &edit, &row);
        edit.finish()?;
        console.say(sentence(&row));
        let delete = place.command(format_args!("keys delete {} --yes", row.id));
        hand_out(console, &row, &Fresh { public: &minted.public, secret: &minted.secret, delete })
    }

    /// Has it minted by a control plane.
    fn create_at(&self, remote: &Remote, console: &mut Console<'_>, expires_at: Option<Wall>) -> Result<Exit, Failure> {
        if self.hash.is_some() {
            return Err(Failure::usage("--hash is for key files: the control plane says how it keeps secrets"));
        }
        let mode = match self.mode {
            Some(Chosen(None)) => {
                return Err(Failure::usage("--mode none is for key files: leave --mode out"));
            }
            Some(Chosen(mode)) => mode,
            None => self.usual_mode(remote)?,
        };
        let texts = |texts: Vec<String>| serde_json::Value::from(texts);
        remote.create(
            console,
            &json!({
                "name": self.name, "owner": self.owner.as_str(), "preset": self.preset,
                "kind": self.kind.map(|kind| kind.as_str()), "environment": mode.map(|mode| mode.as_str()),
                "permissions": self.scope,
                "allow_ips": texts(self.allow_ip.iter().map(ToString::to_string).collect()),
                "limits": texts(self.limit.iter().map(ToString::to_string).collect()),
                "expires_at": expires_at.map(|at| at.to_string()),
            }),
        )
    }
}

impl Args {
    /// The mode of a key of which none is said: live for a token, where the preset has modes.
    fn usual_mode(&self, remote: &Remote) -> Result<Option<Mode>, Failure> {
        let offered = remote.ask(http::Method::GET, "/v1/presets", None)?;
        let mut presets = offered["presets"].as_array().into_iter().flatten();
        let meant = match &self.preset {
            Some(name) => presets.find(|preset| preset["name"] == name.as_str()),
            None => presets.next(),
        };
        let Some(preset) = meant else { return Ok(None) };
        let is_token = self.kind.map_or_else(|| preset["kind"] == "token", |kind| kind == Kind::Token);
        let has_live = preset["environments"].as_array().is_some_and(|modes| modes.iter().any(|mode| mode == "live"));
        Ok((is_token && has_live).then_some(Mode::Live))
    }
}

/// Mints a key whose public part is not in the file yet.
pub(super) fn mint_for(
    place: &Place,
    edit: &Edit<'_>,
    kind: Kind,
    mode: Option<Mode>,
    console: &Console<'_>,
) -> Result<Minted, Failure> {
    if let Some((field, why)) = place.mint.faults().into_iter().next() {
        return Err(Failure::usage(format!("{field}: {why}")));
    }
    let taken: std::collections::HashSet<&str> = edit
        .document
        .keys
        .iter()
        .filter_map(|row| match &row.public {
            PublicPart::Clear(public) => Some(&**public),
            PublicPart::Digest { .. } => None,
        })
        .collect();
    mint(&place.mint, kind, mode, place.pepper.as_ref(), console.now.wall, |public| taken.contains(public))
        .map_err(|error| Failure::of(&error))
}

/// Warns of scopes that no route asks for: a slip of the pen, most often.
pub(super) fn warn_of_scopes(console: &mut Console<'_>, asked: Option<&[Permission]>, row: &KeyRow) {
    let Some(asked) = asked else { return };
    let names: Vec<_> = asked.iter().map(Permission::to_string).collect();
    let idle = |scope: &&str| match *scope {
        "read_write" => !asked.iter().any(|asked| matches!(asked, Permission::Read | Permission::Write)),
        scope => !names.iter().any(|name| name == scope),
    };
    for scope in row.scopes.iter().filter(idle) {
        let help = match fault::nearest(scope, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("asked for are {}", names.join(", ")),
        };
        console.warn(format_args!("no route asks for the scope {scope}; {help}"));
    }
}

/// Warns when a name will not do to find a key.
pub(super) fn warn_of_name(console: &mut Console<'_>, edit: &Edit<'_>, row: &KeyRow) {
    if edit.document.keys.iter().any(|key| key.name == row.name && key.revoked_at.is_none()) {
        console.warn(format_args!("another key has the name \"{}\": commands will ask for the id", row.name));
    }
}

/// Warns when a key acts for somebody it should rather not act for.
pub(super) fn warn_of_owner(console: &mut Console<'_>, edit: &Edit<'_>, row: &KeyRow) {
    let id = &row.owner;
    match owner(&edit.document, id) {
        None => console.warn(format_args!(
            "owner {id} has no entry: no capabilities, KYC none; add one: {}",
            edit.place().command(format_args!("owners create {id}"))
        )),
        Some(owner) => {
            if let Some(capability) = administrator(owner) {
                console.warn(format_args!(
                    "owner {id} is an administrator ({capability}): whoever holds this key may do everything that its \
                     scopes let through. An owner with the few capabilities that the integration needs is safer"
                ));
            }
            if owner.suspended_at.is_some() {
                console.warn(format_args!("owner {id} is suspended: the key works once that is lifted"));
            }
        }
    }
}

/// What is printed of a new key.
pub(super) struct Fresh<'a> {
    /// A pair's consumer key, or a token's prefix.
    pub(super) public: &'a str,
    /// What is shown this once.
    pub(super) secret: &'a Secret,
    /// The command that takes it away again.
    pub(super) delete: String,
}

/// Prints a new key with its secret, which is shown this once.
pub(super) fn hand_out(console: &mut Console<'_>, row: &KeyRow, fresh: &Fresh<'_>) -> Result<Exit, Failure> {
    let public = fresh.public;
    let mut secret = String::from_utf8_lossy(fresh.secret.expose()).into_owned();
    let mut printed = match console.output {
        Output::Json => {
            let mut value = created(row);
            match row.kind {
                Kind::Pair => {
                    value["consumer_key"] = public.into();
                    value["consumer_secret"] = secret.as_str().into();
                }
                Kind::Token => value["token"] = secret.as_str().into(),
            }
            format!("{value:#}")
        }
        Output::Table => {
            let head = format!("id               {}\nname             {}", row.id, row.name);
            match row.kind {
                Kind::Pair => format!("{head}\nconsumer_key     {public}\nconsumer_secret  {secret}"),
                Kind::Token => format!("{head}\ntoken            {secret}"),
            }
        }
    };
    let written = console.hand_over(&printed);
    secret.zeroize();
    printed.zeroize();
    written.map_err(|failure| {
        let (id, delete) = (&row.id, &fresh.delete);
        Failure::new(format!("{}\nnobody has seen the secret of key {id}: {delete}", failure.message))
    })?;
    console.say("Keep the secret now: only its hash was stored, and it is not shown again.");
    Ok(Exit::Done)
}
