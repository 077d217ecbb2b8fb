//! `keyside audit verify`: whether the control plane's audit log is whole.

use std::{
    io,
    path::{Path, PathBuf},
};

use http::Method;
use serde_json::{Value, json};

use super::{
    Exit,
    keys::{
        console::{Console, Failure, Output},
        remote::{Remote, RemoteArgs},
    },
};
use crate::{
    config,
    control::{
        anchor,
        audit::Walk,
        store::{self, Entry},
    },
    keys::document::moment,
};

/// How many entries are read at once.
const PAGE: u32 = 1000;

/// Check the audit log of a control plane.
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
    /// Check every entry against the one before, the head, and what was noted in the anchor file; name the first place
    /// that is wrong.
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// The control plane's configuration: its store is read, and its anchor file. With SQLite, while it is stopped.
    #[arg(long, value_name = "FILE", conflicts_with = "control", required_unless_present = "control")]
    config: Option<PathBuf>,
    #[command(flatten)]
    remote: AuditRemote,
    /// The anchor file, where no configuration names it.
    #[arg(long, value_name = "FILE")]
    anchor: Option<PathBuf>,
}

/// A running control plane.
#[derive(Debug, clap::Args)]
struct AuditRemote {
    /// A running control plane, instead of its store.
    #[arg(long, value_name = "URL")]
    control: Option<String>,
    /// A file with an operator's token; default: KEYSIDE_CONTROL_TOKEN of the environment.
    #[arg(long, value_name = "FILE", requires = "control")]
    token_file: Option<PathBuf>,
    /// The authority that the control plane's certificate is checked against; default: those of the system.
    #[arg(long, value_name = "FILE", requires = "control")]
    ca: Option<PathBuf>,
}

/// Where a log ends.
struct End {
    epoch: String,
    entries: u64,
    hash: String,
}

pub(super) fn run(args: &Args) -> Exit {
    let Command::Verify(verify) = &args.command;
    Console::run(args.output, |console| verify.run(console))
}

impl VerifyArgs {
    fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let AuditRemote { control, token_file, ca } = &self.remote;
        let remote = RemoteArgs { control: control.clone(), token_file: token_file.clone(), ca: ca.clone() };
        let checked = match (remote.open()?, &self.config) {
            (Some(remote), _) => {
                let anchors = anchors(console, self.anchor.as_deref())?;
                check(&anchors, || end_at(&remote), |from| entries_at(&remote, from))
            }
            (None, Some(config)) => self.check_store(console, config),
            (None, None) => Err(Failure::usage("say which log: --config control.toml, or --control URL")),
        }?;
        let (said, exit) = match &checked {
            Ok(count) => (json!({ "whole": true, "entries": count }), Exit::Done),
            Err(why) => (json!({ "whole": false, "wrong": why }), Exit::Failed),
        };
        if console.output == Output::Json {
            console.print_json(&said)?;
        }
        match checked {
            Ok(count) => console.say(format_args!("The audit log is whole: {count} entries.")),
            Err(why) => return Err(Failure { exit, message: format!("the audit log is not whole: {why}") }),
        }
        Ok(exit)
    }

    fn check_store(&self, console: &mut Console<'_>, config: &Path) -> Result<Result<u64, String>, Failure> {
        let loaded = config::control::load(config, config::environment())
            .map_err(|faults| Failure { exit: Exit::Misconfigured, message: faults.to_string() })?;
        let settings = loaded.settings;
        let anchors = anchors(console, self.anchor.as_deref().or(settings.anchor.as_deref()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| Failure::of(&error))?;
        let failed = |error: store::StoreError| Failure::of(&error);
        let place = store::Settings { place: settings.store, create: false };
        let store = runtime.block_on(store::open(&place)).map_err(failed)?;
        let end = || {
            let head = runtime.block_on(store.head()).map_err(failed)?;
            Ok(End { epoch: head.epoch, entries: head.entries, hash: head.hash })
        };
        let checked = check(&anchors, end, |from| runtime.block_on(store.audit_from(from, PAGE)).map_err(failed));
        runtime.block_on(store.close());
        checked
    }
}

/// What was noted outside of the store. A file that nobody named need not be there.
fn anchors(console: &mut Console<'_>, file: Option<&Path>) -> Result<Vec<anchor::Line>, Failure> {
    let Some(file) = file else { return Ok(Vec::new()) };
    match anchor::read(file) {
        Ok(anchor::Noted { lines, unreadable }) => {
            if !unreadable.is_empty() {
                let numbers: Vec<_> = unreadable.iter().map(ToString::to_string).collect();
                console.warn(format_args!(
                    "lines of {} that cannot be read, and are not compared: {}",
                    file.display(),
                    numbers.join(", ")
                ));
            }
            Ok(lines)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::new(format!("the anchor file {} is not there", file.display())))
        }
        Err(error) => Err(Failure::new(format!("cannot read the anchor file {}: {error}", file.display()))),
    }
}

/// Goes along the log up to where it ended at the beginning: what is added meanwhile is not of it.
fn check(
    anchors: &[anchor::Line],
    end: impl Fn() -> Result<End, Failure>,
    read: impl Fn(u64) -> Result<Vec<Entry>, Failure>,
) -> Result<Result<u64, String>, Failure> {
    let End { epoch, entries, hash } = end()?;
    let mut walk = Walk::new(&epoch, anchors);
    while walk.next() <= entries {
        let page = read(walk.next())?;
        if page.is_empty() {
            break;
        }
        for entry in page.iter().filter(|entry| entry.seq <= entries) {
            if let Err(why) = walk.take(entry) {
                return Ok(Err(why));
            }
        }
    }
    Ok(walk.end(entries, &hash))
}

fn end_at(remote: &Remote) -> Result<End, Failure> {
    let page = remote.ask(Method::GET, "/v1/audit?limit=1", None)?;
    let text = |name: &str| page["head"][name].as_str().unwrap_or_default().to_owned();
    let entries = page["head"]["entries"].as_u64().unwrap_or_default();
    Ok(End { epoch: text("epoch"), entries, hash: text("hash") })
}

fn entries_at(remote: &Remote, from: u64) -> Result<Vec<Entry>, Failure> {
    let page = remote.ask(Method::GET, &format!("/v1/audit?from={from}&limit={PAGE}"), None)?;
    page["entries"].as_array().into_iter().flatten().map(entry).collect()
}

fn entry(value: &Value) -> Result<Entry, Failure> {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let odd = || Failure::new(format!("the control plane shows an entry that cannot be read: {value}"));
    Ok(Entry {
        seq: value["seq"].as_u64().ok_or_else(odd)?,
        at: value["at"].as_str().and_then(moment).ok_or_else(odd)?,
        actor: text("actor"),
        from: value["from"].as_str().map(|address| address.parse().map_err(|_| odd())).transpose()?,
        action: text("action"),
        subject: text("subject"),
        detail: value["detail"].clone(),
        revision: value["revision"].as_u64(),
        hash: text("hash"),
    })
}
