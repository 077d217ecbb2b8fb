//! `keyside owners`: whom keys act for, in the key file.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Exit,
    keys::{
        console::{Console, Failure, Output},
        create::{name, text},
        describe::{administrator, owner},
        list::{plain, table, verdict},
        place::{Edit, Place, PlaceArgs, Tolerate},
        wait::{WaitArgs, conclude},
    },
};
use crate::{
    clock::Wall,
    fault::nearest,
    keys::{
        Kyc, OwnerId,
        document::{
            self, Document, KeyRow, OwnerRow,
            edit::{self, List, list, moment, owner_fields},
        },
    },
};

/// Create, list, change and suspend owners.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t, global = true, value_name = "FORM")]
    output: Output,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Add an owner.
    Create {
        #[command(flatten)]
        place: PlaceArgs,
        #[command(flatten)]
        id: Id,
        #[command(flatten)]
        fields: Fields,
    },
    /// List owners, with how many keys each has.
    List {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Change fields of an owner; an empty value takes a field away.
    Set {
        #[command(flatten)]
        place: PlaceArgs,
        #[command(flatten)]
        id: Id,
        #[command(flatten)]
        fields: Fields,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Suspend an owner: all keys of the owner are refused until that is lifted.
    Suspend {
        #[command(flatten)]
        place: PlaceArgs,
        #[command(flatten)]
        id: Id,
        /// Lift the suspension.
        #[arg(long)]
        lift: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Remove the entry of an owner. Keys keep working, without capabilities and KYC.
    Delete {
        #[command(flatten)]
        place: PlaceArgs,
        #[command(flatten)]
        id: Id,
        /// Do not ask for the owner's id.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Id {
    /// The owner's id.
    #[arg(value_name = "OWNER", value_parser = text::<OwnerId>)]
    owner: Option<OwnerId>,
    /// The owner's id, as an option.
    #[arg(long = "id", value_name = "OWNER", value_parser = text::<OwnerId>)]
    id: Option<OwnerId>,
}

#[derive(Debug, clap::Args)]
struct Fields {
    /// What people call the owner.
    #[arg(long, value_name = "NAME", value_parser = optional_name)]
    name: Option<String>,
    /// What the owner may do at the upstream, separated by commas; replaces all there were.
    #[arg(long, value_name = "CAPABILITY", value_delimiter = ',', num_args = 1)]
    capability: Option<Vec<String>>,
    /// How the owner's identity check stands.
    #[arg(long, value_name = "approved|pending|none", value_parser = document::kyc)]
    kyc: Option<Kyc>,
    /// The plan that sets the limits of the owner's keys.
    #[arg(long, value_name = "PLAN", value_parser = optional_name)]
    plan: Option<String>,
}

fn optional_name(typed: &str) -> Result<String, &'static str> {
    if typed.is_empty() { Ok(String::new()) } else { name(typed) }
}

/// Does what the command line says.
pub(super) fn run(args: &Args) -> Exit {
    Console::run(args.output, |console| args.run(console))
}

impl Args {
    #[cfg(test)]
    pub(crate) fn run_on(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        console.output = self.output;
        self.run(console)
    }

    fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        match &self.command {
            Command::Create { place, id, fields } => create(console, place, id.get()?, fields),
            Command::List { place } => list_owners(console, place),
            Command::Set { place, id, fields, wait } => set(console, place, id.get()?, fields, wait),
            Command::Suspend { place, id, lift, wait } => suspend(console, place, id.get()?, *lift, wait),
            Command::Delete { place, id, yes, wait } => delete(console, place, id.get()?, *yes, wait),
        }
    }
}

impl Id {
    fn get(&self) -> Result<&OwnerId, Failure> {
        self.owner.as_ref().or(self.id.as_ref()).ok_or_else(|| Failure::usage("which owner?"))
    }
}

impl Fields {
    fn capabilities(&self) -> Option<Vec<Box<str>>> {
        let typed = self.capability.as_ref()?;
        Some(typed.iter().map(|typed| typed.trim()).filter(|typed| !typed.is_empty()).map(Into::into).collect())
    }
}

fn create(console: &mut Console<'_>, place: &PlaceArgs, id: &OwnerId, fields: &Fields) -> Result<Exit, Failure> {
    if let Some(remote) = place.remote()? {
        let body = json!({
            "id": id.as_str(), "name": fields.name, "capabilities": fields.capabilities().unwrap_or_default(),
            "kyc": fields.kyc.map(document::kyc_str), "plan": fields.plan,
        });
        return remote.create_owner(console, id, &body);
    }
    let place = place.settle()?;
    let mut edit = place.edit(Tolerate::NoFile)?;
    if owner(&edit.document, id).is_some() {
        let set = place.command(format_args!("owners set {id}"));
        return Err(Failure::new(format!("owner {id} is there already; change it: {set} …")));
    }
    let some = |typed: &Option<String>| typed.as_deref().filter(|typed| !typed.is_empty()).map(Into::into);
    let row = OwnerRow {
        id: id.clone(),
        name: some(&fields.name),
        capabilities: fields.capabilities().unwrap_or_default().into(),
        kyc: fields.kyc.unwrap_or_default(),
        plan: some(&fields.plan),
        suspended_at: None,
    };
    warn_of_plan(console, &place, fields);
    edit.draft.add(List::Owners, &owner_fields(&row));
    finish(console, edit, id, "is added")
}

fn set(
    console: &mut Console<'_>,
    place: &PlaceArgs,
    id: &OwnerId,
    fields: &Fields,
    wait: &WaitArgs,
) -> Result<Exit, Failure> {
    if let Some(remote) = place.remote()? {
        let mut body = serde_json::Map::new();
        for (name, value) in [
            ("name", fields.name.as_ref().map(|typed| json!(typed))),
            ("plan", fields.plan.as_ref().map(|typed| json!(typed))),
            ("kyc", fields.kyc.map(|kyc| json!(document::kyc_str(kyc)))),
            ("capabilities", fields.capabilities().map(|held| json!(held))),
        ] {
            body.extend(value.map(|value| (name.to_owned(), value)));
        }
        if body.is_empty() {
            return Err(Failure::usage("nothing to change: give --name, --capability, --kyc or --plan"));
        }
        return remote.change_owner(console, id, &Value::Object(body), "is changed", wait.asked());
    }
    let place = place.settle()?;
    let waiting = wait.begin(&place)?;
    let mut edit = place.edit(Tolerate::Nothing)?;
    known(&place, &edit.document, id)?;
    let mut changes: Vec<(&'static str, Option<toml::Value>)> = Vec::new();
    let some = |typed: &String| (!typed.is_empty()).then(|| edit::text(typed));
    changes.extend(fields.name.as_ref().map(|typed| ("name", some(typed))));
    changes.extend(fields.plan.as_ref().map(|typed| ("plan", some(typed))));
    changes.extend(fields.kyc.map(|kyc| ("kyc", Some(edit::text(document::kyc_str(kyc))))));
    changes.extend(fields.capabilities().map(|held| ("capabilities", (!held.is_empty()).then(|| list(&held)))));
    if changes.is_empty() {
        return Err(Failure::usage("nothing to change: give --name, --capability, --kyc or --plan"));
    }
    warn_of_plan(console, &place, fields);
    for (field, value) in changes {
        edit.draft.set(List::Owners, id.as_str(), field, value.as_ref());
    }
    finish(console, edit, id, "is changed")?;
    conclude(console, waiting.map(|waiting| waiting.until_in_force("the owner is changed")))?;
    Ok(Exit::Done)
}

fn suspend(
    console: &mut Console<'_>,
    place: &PlaceArgs,
    id: &OwnerId,
    lift: bool,
    wait: &WaitArgs,
) -> Result<Exit, Failure> {
    let words = if lift { "is no longer suspended" } else { "is suspended: every key of it is refused" };
    if let Some(remote) = place.remote()? {
        if lift {
            return remote.change_owner(console, id, &json!({ "suspended": false }), words, wait.asked());
        }
        remote.list_owner(id)?;
        return remote.suspend_owner(console, id, words, wait.asked());
    }
    let place = place.settle()?;
    let waiting = wait.begin(&place)?;
    let mut edit = place.edit(if lift { Tolerate::Nothing } else { Tolerate::BadEntries })?;
    edit.tell_faults(console);
    if !lift && owner(&edit.document, id).is_none() && edit.document.keys.iter().any(|key| key.owner == *id) {
        // An owner without an entry can be suspended too: the entry is what says it.
        edit.draft.add(List::Owners, &[("id", edit::text(id))]);
    } else {
        known(&place, &edit.document, id)?;
    }
    let at = (!lift).then(|| moment(console.now.wall));
    edit.draft.set(List::Owners, id.as_str(), "suspended_at", at.as_ref());
    finish(console, edit, id, words)?;
    let done = if lift { "the suspension is lifted" } else { "the owner is suspended" };
    conclude(console, waiting.map(|waiting| waiting.until_in_force(done)))?;
    Ok(Exit::Done)
}

fn delete(
    console: &mut Console<'_>,
    place: &PlaceArgs,
    id: &OwnerId,
    yes: bool,
    wait: &WaitArgs,
) -> Result<Exit, Failure> {
    if let Some(remote) = place.remote()? {
        return remote.delete_owner(console, id, yes, wait.asked());
    }
    let place = place.settle()?;
    let waiting = wait.begin(&place)?;
    let document = place.read()?;
    let row = known(&place, &document, id)?;
    if !yes {
        let keys = count(&document, id);
        let mut question = format!("{keys} keys act for owner {id}; they lose its capabilities, KYC and plan.");
        if row.suspended_at.is_some() && keys > 0 {
            question.push_str(" It is suspended: without the entry, its keys WORK AGAIN.");
        }
        console.confirm(&question, id.as_str())?;
    }
    let mut edit = place.edit(Tolerate::BadEntries)?;
    edit.tell_faults(console);
    if !edit.draft.remove(List::Owners, id.as_str()) {
        return Err(Failure::new(format!("owner {id} is not there any more")));
    }
    let left = place.recall(edit.document.clone(), console);
    edit.finish()?;
    console.say(format_args!("Owner {id} is deleted."));
    let working = working(&left, id, console.now.wall);
    if working > 0 {
        let (keys, acts) = if working == 1 { ("key", "acts") } else { ("keys", "act") };
        let list = place.command(format_args!("keys list --owner {id}"));
        console.warn(format_args!(
            "{working} {keys} that {acts} for {id} can still be used, without capabilities, KYC and plan; to stop them, \
             revoke them: {list} shows them"
        ));
    }
    if console.output == Output::Json {
        console.print_json(&json!({ "id": id.as_str(), "deleted": true }))?;
    }
    conclude(console, waiting.map(|waiting| waiting.until_in_force("the owner is deleted")))?;
    Ok(Exit::Done)
}

/// Writes the change and says how the owner is now.
fn finish(console: &mut Console<'_>, edit: Edit<'_>, id: &OwnerId, words: &str) -> Result<Exit, Failure> {
    let text = edit.finish()?;
    console.say(format_args!("Owner {id} {words}."));
    let document = document::Parser::default().parse(text.as_bytes()).map_err(|refused| Failure::of(&refused))?;
    let Some(row) = owner(&document, id) else { return Ok(Exit::Done) };
    if let Some(capability) = administrator(row) {
        console.warn(format_args!("{id} is an administrator ({capability}): so is whoever holds one of its keys"));
    }
    if console.output == Output::Json {
        console.print_json(&described(&document, row))?;
    }
    Ok(Exit::Done)
}

fn list_owners(console: &mut Console<'_>, place: &PlaceArgs) -> Result<Exit, Failure> {
    if let Some(remote) = place.remote()? {
        return print_owners(console, remote.owners()?).map(|()| Exit::Done);
    }
    let place = place.settle()?;
    let document = place.read()?;
    print_owners(console, document.owners.iter().map(|row| described(&document, row)).collect())?;
    Ok(verdict(console, &place.file, &document))
}

fn print_owners(console: &mut Console<'_>, owners: Vec<Value>) -> Result<(), Failure> {
    match console.output {
        Output::Json => console.print_json(&Value::Array(owners)),
        Output::Table if owners.is_empty() => {
            console.say("No owners.");
            Ok(())
        }
        Output::Table => {
            let fields = ["id", "name", "capabilities", "kyc", "plan", "keys", "suspended_at"];
            let headings = ["ID", "NAME", "CAPABILITIES", "KYC", "PLAN", "KEYS", "SUSPENDED"];
            let rows = owners.iter().map(|owner| fields.iter().map(|field| plain(&owner[*field])).collect());
            console.print(table(&headings, rows))
        }
    }
}

fn described(document: &Document, row: &OwnerRow) -> Value {
    json!({
        "id": row.id.as_str(),
        "name": row.name,
        "capabilities": row.capabilities,
        "kyc": document::kyc_str(row.kyc),
        "plan": row.plan,
        "suspended_at": row.suspended_at.map(|at| at.to_string()),
        "keys": count(document, &row.id),
    })
}

fn count(document: &Document, id: &OwnerId) -> usize {
    document.keys.iter().filter(|key| key.owner == *id && key.revoked_at.is_none()).count()
}

/// How many keys of an owner can be used once nothing suspends it.
fn working(document: &Document, id: &OwnerId, now: Wall) -> usize {
    let works = |key: &&Arc<KeyRow>| {
        key.owner == *id && !document.revoked.contains_key(&key.id) && key.expires_at.is_none_or(|at| at > now)
    };
    document.keys.iter().filter(works).count()
}

/// Warns of a plan that the configuration does not know: keys of such an owner have the limits of all keys.
fn warn_of_plan(console: &mut Console<'_>, place: &Place, fields: &Fields) {
    let (Some(plan), Some(plans)) = (fields.plan.as_ref().filter(|plan| !plan.is_empty()), &place.plans) else {
        return;
    };
    if plans.contains(plan) {
        return;
    }
    let help = match nearest(plan, plans.iter().map(String::as_str)) {
        Some(near) => format!("; did you mean {near}?"),
        None if plans.is_empty() => String::new(),
        None => format!("; there are {}", plans.join(", ")),
    };
    console.warn(format_args!("the plan {plan} is none of [limits.plans]: its keys have the limits of all keys{help}"));
}

fn known<'a>(place: &Place, document: &'a Document, id: &OwnerId) -> Result<&'a OwnerRow, Failure> {
    let none = || Failure::new(format!("there is no owner {id}; see {}", place.command("owners list")));
    owner(document, id).ok_or_else(none)
}
