//! `keys list` and `keys show`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use comfy_table::{Table, presets::NOTHING};

use super::{
    console::{Console, Failure, Output},
    describe::{HEADINGS, cells, listed, sentence, status},
    moments::{span, typed},
    place::{Named, PlaceArgs, warn_of_revived},
    remote::encoded,
};
use crate::{
    cli::Exit,
    clock::Wall,
    keys::{
        KeyId, LastUsed, OwnerId,
        document::{Document, KeyRow},
    },
};

/// After so long a key is to be rotated, and one that nobody used to be revoked.
const LONG: Duration = Duration::from_secs(90 * 86_400);

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
    /// Only those that this one minted: key:ID, operator:NAME or token:ID, as a control plane's audit log names them; or an
    /// id or a name alone.
    #[arg(long, value_name = "WHO")]
    minted_by: Option<String>,
    /// Only those minted so long ago, such as 90d: to be rotated. Of active keys, unless --status says of which; a key
    /// without created_at is none of them.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    older_than: Option<Duration>,
    /// Only those not used for so long, such as 90d: to be revoked. Of active keys, as above; of one that was never used
    /// it counts from created_at.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    unused_for: Option<Duration>,
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
        let place = match self.place.remote()? {
            Some(remote) => {
                let (document, used) = remote.keys(console, &self.query())?;
                let command = |words: &str| remote.command(words);
                return self.print(console, &command, &document, Some(&used)).map(|()| Exit::Done);
            }
            None => self.place.settle()?,
        };
        let document = place.recall(place.read()?, console);
        warn_of_revived(&document, console);
        let known = place.last_used(console);
        if self.unused_for.is_some() && known.is_none() {
            return Err(Failure::new(
                "no last uses are recorded here, so that nobody knows which keys are unused: give --config, or --state \
                 DIR of the running sidecar",
            ));
        }
        self.print(console, &|words| place.command(words), &document, known.as_ref())?;
        Ok(verdict(console, &place.file, &document))
    }

    /// What a control plane is asked for.
    fn query(&self) -> String {
        let mut query = String::new();
        if let Some(owner) = &self.owner {
            query.push_str(&format!("&owner={}", encoded(owner.as_str())));
        }
        // What is set aside in a file is nowhere else.
        if let Some(status) = self.status.as_deref().filter(|status| *status != "set aside") {
            query.push_str(&format!("&status={status}"));
        }
        if let Some(by) = &self.minted_by {
            query.push_str(&format!("&minted_by={}", encoded(by)));
        }
        query
    }

    fn print(
        &self,
        console: &mut Console<'_>,
        command: &dyn Fn(&str) -> String,
        document: &Document,
        known: Option<&BTreeMap<KeyId, LastUsed>>,
    ) -> Result<(), Failure> {
        let used = known.unwrap_or(const { &BTreeMap::new() });
        let now = console.now.wall;
        let rows = document.keys.iter().cloned().map(Named::Row);
        let mut keys: Vec<_> = rows.chain(document.set_aside.iter().cloned().map(Named::SetAside)).collect();
        keys.retain(|key| self.asks_for(key, document, used, now));
        match console.output {
            Output::Json => {
                let keys = keys.iter().map(|key| listed(key, document, used.get(key.id()), now)).collect();
                console.print_json(&serde_json::Value::Array(keys))?;
            }
            Output::Table if keys.is_empty() => console.say("No keys."),
            Output::Table => {
                let rows = keys.iter().map(|key| cells(key, document, used.get(key.id()), now).to_vec());
                console.print(table(&HEADINGS, rows))?;
                if !self.is_filtered() {
                    advise(console, command, document, known);
                }
            }
        }
        Ok(())
    }

    fn is_filtered(&self) -> bool {
        let by_age = self.older_than.is_some() || self.unused_for.is_some();
        self.owner.is_some() || self.status.is_some() || self.minted_by.is_some() || by_age
    }

    fn asks_for(&self, key: &Named, document: &Document, used: &BTreeMap<KeyId, LastUsed>, now: Wall) -> bool {
        let row = match key {
            Named::Row(row) => Some(&**row),
            Named::SetAside(_) => None,
        };
        let is = |asks: &dyn Fn(&KeyRow) -> bool| row.is_some_and(asks);
        let by_age = self.older_than.is_some() || self.unused_for.is_some();
        let status_asked = self.status.as_deref().or(by_age.then_some("active"));
        status_asked.is_none_or(|asked| status(key, document, now) == asked)
            && self.owner.as_ref().is_none_or(|asked| is(&|row| row.owner == *asked))
            && self.minted_by.as_ref().is_none_or(|asked| is(&|row| row.is_minted_by(asked)))
            && self.older_than.is_none_or(|span| is(&|row| is_older(row, span, now)))
            && self.unused_for.is_none_or(|span| is(&|row| is_unused(row, used.get(&row.id), span, now)))
    }
}

/// Whether a key was minted so long ago; not where nobody wrote when.
fn is_older(row: &KeyRow, span: Duration, now: Wall) -> bool {
    row.created_at.is_some_and(|at| at.plus(span) <= now)
}

/// Whether the last use of a key, or that it was minted, is so long ago.
fn is_unused(row: &KeyRow, used: Option<&LastUsed>, span: Duration, now: Wall) -> bool {
    used.map(|used| used.at).or(row.created_at).is_some_and(|at| at.plus(span) <= now)
}

/// Says how many active keys should be rotated or revoked, and how to list them. Of last uses of which nothing is known,
/// nothing is said.
fn advise(
    console: &mut Console<'_>,
    command: &dyn Fn(&str) -> String,
    document: &Document,
    known: Option<&BTreeMap<KeyId, LastUsed>>,
) {
    let now = console.now.wall;
    let is_active = |row: &&Arc<KeyRow>| status(&Named::Row(Arc::clone(row)), document, now) == "active";
    let active: Vec<_> = document.keys.iter().filter(is_active).collect();
    let older = active.iter().filter(|row| is_older(row, LONG, now)).count();
    let unused =
        known.map_or(0, |used| active.iter().filter(|row| is_unused(row, used.get(&row.id), LONG, now)).count());
    let long = typed(LONG);
    let mut advice = Vec::new();
    if older > 0 {
        let list = command(&format!("keys list --older-than {long}"));
        advice.push(format!("Older than {long}, to be rotated: {older} ({list})."));
    }
    if unused > 0 {
        let list = command(&format!("keys list --unused-for {long}"));
        advice.push(format!("Not used for {long}, to be revoked: {unused} ({list})."));
    }
    if !advice.is_empty() {
        console.say(advice.join(" "));
    }
}

impl ShowArgs {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        if let Some(remote) = self.place.remote()? {
            let (row, (document, used)) = remote.find(console, &self.key)?;
            return Self::print(console, &Named::Row(row), &document, &used).map(|()| Exit::Done);
        }
        let place = self.place.settle()?;
        let document = place.recall(place.read()?, console);
        let key = place.find(&document, &self.key)?;
        warn_of_revived(&document, console);
        let used = place.last_used(console).unwrap_or_default();
        Self::print(console, &key, &document, &used)?;
        Ok(verdict(console, &place.file, &document))
    }

    fn print(
        console: &mut Console<'_>,
        key: &Named,
        document: &Document,
        used: &BTreeMap<KeyId, LastUsed>,
    ) -> Result<(), Failure> {
        let value = listed(key, document, used.get(key.id()), console.now.wall);
        match console.output {
            Output::Json => console.print_json(&value)?,
            Output::Table => {
                let fields = value.as_object().into_iter().flatten();
                let lines: Vec<_> = fields.map(|(name, value)| format!("{name:<14}{}", plain(value))).collect();
                console.print(lines.join("\n"))?;
                if let (Named::Row(row), "active") = (key, status(key, document, console.now.wall)) {
                    console.say(sentence(row));
                }
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use crate::cli::{
        Exit,
        keys::tests::{Bench, NOW, str_of},
    };

    const DAY: i64 = 86_400_000;

    /// Five keys, a year old to new, and their last uses.
    fn bench() -> Bench {
        let mut bench = Bench::new();
        for (days, name, more) in [
            (365, "old", ""),
            (365, "busy", ""),
            (100, "forgotten", "--expires 200d"),
            (100, "expired", "--expires 1d"),
            (89, "young", ""),
        ] {
            bench.now = NOW - days * DAY;
            bench.run(format!("keys create --name {name} --owner {name} --scope read {more}").trim_end());
        }
        bench.now = NOW;
        bench
    }

    fn id(bench: &Bench, name: &str) -> String {
        str_of(&bench.run(&format!("keys show {name} --output json")).json(), "id").to_owned()
    }

    fn used(bench: &Bench) {
        let line = |name, at| format!("{{\"key\":\"{}\",\"at\":\"{at}\",\"ip\":\"203.0.113.42\"}}\n", id(bench, name));
        let lines = [
            line("old", "2026-08-22T23:59:59Z"),
            line("busy", "2026-08-24T00:00:01Z"),
            line("young", "2026-11-20T00:00:00Z"),
        ];
        bench.write_state("last-used.ndjson", &lines.concat());
    }

    #[track_caller]
    fn check(bench: &Bench, more: &str, names: &[&str]) {
        let said = bench.run(&format!("keys list --output json {more}")).json();
        let found: Vec<_> = said.as_array().unwrap().iter().map(|key| str_of(key, "name").to_owned()).collect();
        assert_eq!(found, names, "{more}");
    }

    #[test]
    fn list_finds_what_is_to_be_rotated_and_revoked() {
        let bench = bench();
        used(&bench);
        check(&bench, "--older-than 90d", &["old", "busy", "forgotten"]);
        check(&bench, "--older-than 52w", &["old", "busy"]);
        check(&bench, "--older-than 366d", &[]);
        check(&bench, "--unused-for 90d", &["old", "forgotten"]);
        check(&bench, "--unused-for 100d", &["forgotten"]);
        check(&bench, "--unused-for 0", &["old", "busy", "forgotten", "young"]);
        check(&bench, "--older-than 200d --unused-for 90d", &["old"]);
        check(&bench, "--older-than 90d --owner forgotten", &["forgotten"]);
        check(&bench, "--older-than 90d --status expired", &["expired"]);
        check(&bench, "--unused-for 90d --status active --owner young", &[]);
        bench.run("keys revoke old");
        bench.run("owners create forgotten");
        bench.run("owners suspend forgotten");
        check(&bench, "--unused-for 2d", &["busy"]);
        bench.check("keys list --older-than 90", Exit::Usage, "expected a span");
        bench.check("keys list --unused-for soon", Exit::Usage, "expected a span");
    }

    #[test]
    fn list_counts_what_is_to_be_rotated_and_revoked() {
        let mut bench = bench();
        // Where no sidecar wrote down last uses, a key that is in use looks like one that is not.
        let file = format!("--file {}", bench.file().display());
        let older = format!("Older than 90d, to be rotated: 3 (keyside keys list --older-than 90d {file}).");
        let unknown = bench.run("keys list");
        assert_eq!(unknown.err, format!("{older}\n"));
        bench.check("keys list --unused-for 90d", Exit::Failed, "no last uses are recorded here");
        used(&bench);
        let said = bench.run("keys list");
        let unused = format!("Not used for 90d, to be revoked: 2 (keyside keys list --unused-for 90d {file}).");
        assert_eq!(said.err, format!("{older} {unused}\n"));
        assert!(
            ["Older than", "Not used for", "--older-than"].iter().all(|hint| !said.out.contains(hint)),
            "{}",
            said.out
        );
        for more in ["--output json", "--owner young", "--status active", "--older-than 1d", "--unused-for 1d"] {
            assert_eq!(bench.run(&format!("keys list {more}")).err, "", "{more}");
        }
        bench.now = NOW - 20 * DAY;
        assert_eq!(bench.run("keys list").err, format!("{}\n", older.replace(": 3", ": 2")));
    }

    /// When it was minted is not known of a key that somebody wrote by hand.
    #[test]
    fn a_key_without_an_age_is_not_called_old() {
        let bench = bench();
        used(&bench);
        let text = bench.text();
        let kept: Vec<_> = text.lines().filter(|line| !line.starts_with("created_at")).collect();
        bench.write(&(kept.join("\n") + "\n"));
        check(&bench, "--older-than 0", &[]);
        check(&bench, "--unused-for 90d", &["old"]);
    }
}
