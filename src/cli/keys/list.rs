//! `keys list` and `keys show`.

use comfy_table::{Table, presets::NOTHING};

use super::{
    console::{Console, Failure, Output},
    describe::{HEADINGS, cells, listed, sentence, status},
    place::{Named, PlaceArgs, find},
};
use crate::{
    cli::Exit,
    keys::{OwnerId, document::Document},
};

/// List keys: what they may do, whether they work, when and from where they were last used.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Only those of this owner.
    #[arg(long, value_name = "OWNER", value_parser = super::create::text::<OwnerId>)]
    owner: Option<OwnerId>,
    /// Only those in this state.
    #[arg(long, value_name = "STATUS", value_parser = ["active", "revoked", "expired", "suspended", "set aside"])]
    status: Option<String>,
}

/// Show everything about one key but its hash.
#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// The key: its id, or a name or prefix that only one key has.
    #[arg(value_name = "KEY")]
    key: String,
}

impl ListArgs {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let place = self.place.settle()?;
        let document = place.read()?;
        place.warn_of_revived(&document, console);
        let used = place.last_used(console);
        let now = console.now.wall;
        let rows = document.keys.iter().cloned().map(Named::Row);
        let mut keys: Vec<_> = rows.chain(document.set_aside.iter().cloned().map(Named::SetAside)).collect();
        keys.retain(|key| {
            let owner = match key {
                Named::Row(row) => Some(&row.owner),
                Named::SetAside(_) => None,
            };
            self.owner.as_ref().is_none_or(|asked| owner == Some(asked))
                && self.status.as_ref().is_none_or(|asked| status(key, &document, now) == asked)
        });
        match console.output {
            Output::Json => {
                let keys = keys.iter().map(|key| listed(key, &document, used.get(key.id()), now)).collect();
                console.print_json(&serde_json::Value::Array(keys))?;
            }
            Output::Table if keys.is_empty() => console.say("No keys."),
            Output::Table => {
                let rows = keys.iter().map(|key| cells(key, &document, used.get(key.id()), now).to_vec());
                console.print(table(&HEADINGS, rows))?;
            }
        }
        Ok(verdict(console, &place.file, &document))
    }
}

impl ShowArgs {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let place = self.place.settle()?;
        let document = place.read()?;
        let key = find(&document, &self.key, &place.mint)?;
        place.warn_of_revived(&document, console);
        let used = place.last_used(console);
        let value = listed(&key, &document, used.get(key.id()), console.now.wall);
        match console.output {
            Output::Json => console.print_json(&value)?,
            Output::Table => {
                let fields = value.as_object().into_iter().flatten();
                let lines: Vec<_> = fields.map(|(name, value)| format!("{name:<14}{}", plain(value))).collect();
                console.print(lines.join("\n"))?;
                if let (Named::Row(row), "active") = (&key, status(&key, &document, console.now.wall)) {
                    console.say(sentence(row));
                }
            }
        }
        Ok(verdict(console, &place.file, &document))
    }
}

/// Says what is wrong with the file; that is what the exit status says too, though what could be read was shown.
pub(crate) fn verdict(console: &mut Console<'_>, file: &std::path::Path, document: &Document) -> Exit {
    console.tell(file, &document.faults);
    if document.faults.iter().any(crate::fault::Fault::is_error) { Exit::Misconfigured } else { Exit::Done }
}

/// A table without lines, one entry a line, that other programs can cut up.
pub(crate) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(headings.iter().copied()).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// A value for people.
pub(crate) fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "-".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(items) if items.is_empty() => "-".to_owned(),
        serde_json::Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
