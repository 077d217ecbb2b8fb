//! `keys set`.

use super::{
    console::{Console, Failure, Output},
    create::{address, name, scope, text, warn_of_name, warn_of_owner, warn_of_scopes},
    describe::{listed, sentence, status},
    moments::{Expiry, expiry},
    place::{Named, PlaceArgs, Tolerate},
    wait::{WaitArgs, conclude},
};
use crate::{
    cli::Exit,
    clock::Wall,
    keys::{
        OwnerId, Scopes,
        document::{KeyRow, Parser},
    },
    limits::Quota,
    policy::network::Network,
};

/// Change what a key may do, from where, until when, for whom; its secret stays.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    /// The key: its id, or a name or prefix that only one key has.
    #[arg(value_name = "KEY")]
    key: String,
    #[command(flatten)]
    changes: Changes,
    #[command(flatten)]
    wait: WaitArgs,
}

/// What is not given stays; a list that is given replaces all there was.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Changes {
    /// What people shall call it.
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<String>,
    /// Whom it acts for: the id of an owner.
    #[arg(long, value_name = "OWNER", value_parser = text::<OwnerId>)]
    owner: Option<OwnerId>,
    /// What it may do, in place of all that it might: read, write, read_write, or names; separated by commas.
    #[arg(long, value_name = "SCOPE", value_delimiter = ',', value_parser = scope)]
    scope: Option<Vec<String>>,
    /// From where it may be used, in place of all there were: addresses and networks, separated by commas; any lifts
    /// the list.
    #[arg(long, value_name = "ADDRESS|any", value_delimiter = ',', value_parser = or("any", address))]
    allow_ip: Option<Vec<Given<Network>>>,
    /// When it expires: 90d, counted from now, or 2027-02-19T00:00:00Z, or never.
    #[arg(long, value_name = "WHEN|never", value_parser = or("never", expiry))]
    expires: Option<Given<Expiry>>,
    /// Limits of its own, such as 600/1m, in place of all there were; plan gives back those of its owner's plan.
    #[arg(long, value_name = "LIMIT|plan", value_delimiter = ',', value_parser = or("plan", text::<Quota>))]
    limit: Option<Vec<Given<Quota>>>,
}

/// A value, or the word that takes away the one there is.
#[derive(Clone, Copy, Debug)]
enum Given<T> {
    Value(T),
    Nothing,
}

/// Reads a value or that word. An empty text is neither: a variable that was not set must not open a key to all.
fn or<T, E: std::fmt::Display>(
    word: &'static str,
    read: fn(&str) -> Result<T, E>,
) -> impl Fn(&str) -> Result<Given<T>, String> + Clone {
    move |typed| match typed.trim_ascii() == word {
        true => Ok(Given::Nothing),
        false => read(typed).map(Given::Value).map_err(|why| format!("{why}; {word} takes it away")),
    }
}

/// The values of a list; none where the word stands there, which stands alone.
fn values<T: Copy>(given: &[Given<T>], option: &str) -> Result<Vec<T>, Failure> {
    let values: Vec<T> = given
        .iter()
        .filter_map(|one| match one {
            Given::Value(value) => Some(*value),
            Given::Nothing => None,
        })
        .collect();
    if values.is_empty() || values.len() == given.len() {
        Ok(values)
    } else {
        Err(Failure::usage(format!("{option}: the word that takes the list away stands alone")))
    }
}

impl Args {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let now = console.now.wall;
        if let Some(remote) = self.place.remote()? {
            return remote.set(console, &self.key, |old| self.changes.of(old, now), self.wait.asked());
        }
        let place = self.place.settle()?;
        let waiting = self.wait.begin(&place)?;
        let mut edit = place.edit(Tolerate::Nothing)?;
        let old = place.find_living(&edit.document, &self.key, console)?;
        let row = self.changes.of(&old, now)?;
        if row.name != old.name {
            warn_of_name(console, &edit, &row);
        }
        if row.owner != old.owner {
            warn_of_owner(console, &edit, &row);
        }
        if row.scopes != old.scopes {
            warn_of_scopes(console, place.asked.as_deref(), &row);
        }
        edit.draft.change(&old, &row);
        let written = edit.finish()?;

        let document = Parser::default().parse(written.as_bytes()).map_err(|refused| Failure::of(&refused))?;
        let row = document.keys.iter().find(|key| key.id == old.id).cloned().unwrap_or(old);
        let key = Named::Row(row.clone());
        console.say(format_args!("Key {} is changed.", key.label()));
        match status(&key, &document, now) {
            "active" => console.say(sentence(&row)),
            status => console.say(format_args!("It is {status}: it may do nothing now.")),
        }
        if console.output == Output::Json {
            let used = place.last_used(console).unwrap_or_default();
            console.print_json(&listed(&key, &document, used.get(&row.id), now))?;
        }
        conclude(console, waiting.map(|waiting| waiting.until_in_force("the key is changed")))?;
        Ok(Exit::Done)
    }
}

impl Changes {
    /// The key as it shall be.
    fn of(&self, old: &KeyRow, now: Wall) -> Result<KeyRow, Failure> {
        let mut row = old.clone();
        if let Some(name) = &self.name {
            row.name = name.as_str().into();
        }
        if let Some(owner) = &self.owner {
            row.owner = owner.clone();
        }
        if let Some(scopes) = &self.scope {
            row.scopes = Scopes::parse(scopes.iter().map(String::as_str)).map_err(|(_, why)| Failure::usage(why))?;
        }
        if let Some(addresses) = &self.allow_ip {
            row.allow_ips = values(addresses, "--allow-ip")?.into_iter().collect();
        }
        if let Some(limits) = &self.limit {
            row.limits = Some(values(limits, "--limit")?).filter(|limits| !limits.is_empty());
        }
        match self.expires {
            Some(Given::Value(expiry)) => {
                let past = || Failure::usage("--expires lies in the past; to end the key now, use keys revoke");
                row.expires_at = Some(expiry.from(now).ok_or_else(past)?);
            }
            Some(Given::Nothing) => row.expires_at = None,
            None => {}
        }
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::{
        Exit,
        keys::tests::{Bench, NOW, str_of},
    };

    /// Everything of a key can be changed, and what is not named stays as it is, comments included.
    #[test]
    fn set_changes_what_is_named_and_nothing_else() {
        let bench = Bench::new();
        let key = bench.create("--allow-ip 203.0.113.42 --limit 5/1s --expires 90d");
        bench.write(&bench.text().replace("allow_ips = ", "# The office.\nallow_ips = "));
        let before = bench.text();
        let said = bench.run("keys set Export --allow-ip 198.51.100.10,2001:db8::/32");
        assert!(said.err.contains("(Export) is changed."), "{}", said.err);
        let sentence = "This key may read for svc, from 198.51.100.10 and 2001:db8::/32 only, within 5/1s, until \
                        2027-02-19T00:00:00Z.";
        assert!(said.err.contains(sentence) && said.out.is_empty(), "{}", said.err);
        assert_eq!(bench.text(), before.replace("\"203.0.113.42\"", "\"198.51.100.10\", \"2001:db8::/32\""));

        let line = "keys set Export --name Import --owner acme --scope read_write,links:read --allow-ip any --expires never --limit plan";
        let set = bench.run(&format!("{line} --output json")).json();
        let shown = bench.run("keys show Import --output json").json();
        assert_eq!(set, shown);
        let fields = ["id", "prefix", "created_at", "hash", "status"];
        assert!(fields.iter().all(|field| *field == "hash" || *field == "status" || shown[*field] == key[*field]));
        assert_eq!((str_of(&shown, "name"), str_of(&shown, "owner")), ("Import", "acme"));
        assert_eq!(shown["scopes"], serde_json::json!(["read_write", "links:read"]));
        assert!(shown["limits"].is_null() && shown["expires_at"].is_null(), "{shown}");
        assert_eq!(shown["allow_ips"], serde_json::json!([]));
        let text = bench.text();
        assert!(text.contains("# The office.\n") && text.ends_with("[end]\nowners = 0\nkeys = 1\n"), "{text}");
        bench.check("keys set Import --limit 600/1m --limit 50000/1d", Exit::Done, "within 600/1m and 50000/1d");
        bench.check("keys set Import --expires 2027-01-01T00:00:00Z", Exit::Done, "until 2027-01-01T00:00:00Z.");
    }

    #[test]
    fn set_warns_as_create_does() {
        let bench = Bench::new();
        bench.run("owners create boss --capability administrator");
        bench.run("keys create --name Other --owner boss --scope read");
        bench.create("");
        bench.check("keys set Export --owner boss", Exit::Done, "owner boss is an administrator");
        bench.check("keys set Export --owner nobody", Exit::Done, "owner nobody has no entry");
        let said = bench.run("keys set Export --scope write");
        assert!(!said.err.contains("warning"), "{}", said.err);
        bench.check("keys set Export --name Other", Exit::Done, "another key has the name \"Other\"");
        bench.check("keys set Other --scope read", Exit::Failed, "2 keys are called so");
        bench.run("owners create gone");
        bench.run("owners suspend gone");
        let id = bench.create("");
        let said = bench.run(&format!("keys set {} --owner gone", str_of(&id, "id")));
        assert!(said.err.contains("gone is suspended") && said.err.contains("It is suspended:"), "{}", said.err);
    }

    #[test]
    fn set_says_what_is_wrong_and_changes_nothing() {
        let bench = Bench::new();
        bench.create("--allow-ip 203.0.113.42");
        let before = bench.text();
        for (more, why) in [
            ("--name ", "must not be empty"),
            ("--scope reed", "expected \"read\""),
            ("--scope ", "expected \"read\""),
            ("--allow-ip ", "neither an IP address"),
            ("--allow-ip 203.0.113.300", "any takes it away"),
            ("--allow-ip 203.0.113.43,any", "stands alone"),
            ("--limit often", "600/1m"),
            ("--limit plan,600/1m", "stands alone"),
            ("--expires soon", "never takes it away"),
            ("--expires 2020-01-01T00:00:00Z", "use keys revoke"),
            ("--owner a~b", "--owner"),
            ("--kind token", "--kind"),
        ] {
            let said = bench.run(&format!("keys set Export {more}"));
            assert!(said.exit == Exit::Usage && said.err.contains(why), "{more}: {}", said.err);
        }
        bench.check("keys set Export", Exit::Usage, "--name <NAME>");
        bench.check("keys set nobody --name x", Exit::Failed, "no key has the id");
        assert_eq!(bench.text(), before);
    }

    /// A key that is revoked stays as it was, also where its row was taken back; one that expired may be given time.
    #[test]
    fn set_revives_no_revoked_key() {
        let mut bench = Bench::new();
        let id = str_of(&bench.create("--expires 1h"), "id").to_owned();
        bench.now = NOW + 7_200_000;
        bench.check("keys set Export --name Old", Exit::Done, "It is expired: it may do nothing now.");
        bench.check("keys set Old --expires 1h", Exit::Done, "This key may read");
        let older = bench.text();
        bench.run("keys revoke Old");
        let before = bench.text();
        bench.check("keys set Old --expires never", Exit::Failed, "is revoked, for good");
        assert_eq!(bench.text(), before);
        bench.write(&older);
        bench.write_state("revoked.ndjson", &format!("{{\"revoked\":\"{id}\"}}\n"));
        for command in ["set Old --scope write", "rotate Old"] {
            bench.check(&format!("keys {command}"), Exit::Failed, "is revoked, for good");
        }
        assert_eq!(bench.text(), older);
    }
}
