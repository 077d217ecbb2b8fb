//! `keys identify`: which keys stand in a text that was found somewhere, without showing a secret again.

mod find;
mod known;
mod there;

use std::io::Read as _;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    console::{Console, Failure, Output},
    list::plain,
    place::PlaceArgs,
    remote::RemoteArgs,
};
use crate::{
    cli::Exit,
    keys::{format::pattern, mint},
};
use find::{Finding, Lines, find};
use known::Known;
use there::There;

/// Say which keys stand in a text that was found in a log, a repository or a chat. It is read from standard input, never
/// from the command line.
///
/// Finds keys anywhere in it: in a URL, as key:secret, in a Basic header, encoded in base64. Exit status 0 where
/// something has the shape of a key or is in the key file, 1 where nothing is.
///
/// With --control, what comes near a key of the control plane, or has the shape of a secret, is sent there to be compared:
/// only it has the hashes. It needs the role operator, and leaves an entry in the audit log without the string.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The key file to look keys up in.
    #[arg(long, value_name = "FILE")]
    file: Option<std::path::PathBuf>,
    /// The configuration: names the key file and the shapes of keys.
    #[arg(long, value_name = "FILE", value_parser = crate::cli::configuration())]
    config: Option<std::path::PathBuf>,
    #[command(flatten)]
    remote: RemoteArgs,
    /// Print the regular expression by which secrets can be searched for, and read nothing.
    #[arg(long)]
    pattern: bool,
}

/// A string of plain characters, no longer than keys are, encodes none.
const MOST_CERTAIN: usize = 48;

/// What is read at once; more is for tools that search with `--pattern`.
const MAX_TEXT_BYTES: u64 = 1024 * 1024;

impl Args {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let place = match (&self.file, &self.config) {
            (None, None) => None,
            _ => {
                let place = PlaceArgs { file: self.file.clone(), config: self.config.clone(), ..PlaceArgs::default() };
                Some(place.settle()?)
            }
        };
        let there = self.remote.open()?.map(There::new);
        let shapes = match (&there, &place) {
            (Some(there), _) => there.shapes()?,
            (None, Some(place)) => vec![place.mint.clone()],
            (None, None) => vec![mint::Settings::default()],
        };
        if self.pattern {
            console.print(shapes.iter().map(pattern).collect::<Vec<_>>().join("\n"))?;
            return Ok(Exit::Done);
        }
        let text = read(console)?;
        let known = match (there, &place) {
            (Some(there), _) => Some(Known::of_control(there, console)?),
            (None, Some(place)) => Some(Known::load(place, console)?),
            (None, None) => None,
        };
        let mut findings = find_all(&shapes, known.as_ref(), &text);
        if let Some(known) = &known {
            known.try_consumer_secrets(&mut findings, console);
        }
        // What says most comes first: secrets before public parts, keys of the file before shapes.
        findings.sort_by_key(|finding| (!finding.is_secret(), finding.key.is_none(), finding.at));
        let places = Lines::of(&text);
        let shown: Vec<Value> =
            findings.iter().map(|finding| finding.value(known.as_ref(), &places, console)).collect();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let is_short = text.trim().len() <= MOST_CERTAIN && text.trim().bytes().all(is_plain);
        let nothing = nothing(known.is_some() && is_short);
        match (console.output, &shown[..]) {
            (Output::Json, []) => console.print_json(&nothing)?,
            (Output::Json, [first, others @ ..]) => {
                let mut value = first.clone();
                if !others.is_empty() {
                    value["found"] = shown.clone().into();
                }
                console.print_json(&value)?;
            }
            (Output::Table, []) => console.print(lines(&nothing))?,
            (Output::Table, all) => console.print(all.iter().map(lines).collect::<Vec<_>>().join("\n\n"))?,
        }
        if known.as_ref().is_some_and(Known::gave_up) {
            console.warn("too much in it looks like keys: some was not compared with the file. Pipe in less at once");
        }
        if findings.iter().any(Finding::is_secret) {
            console.say("Where a secret was found, others may have found it: rotate or revoke its key.");
        }
        if let Some(failure) = known.as_ref().and_then(Known::failure) {
            let message = format!("not all of it was compared: {}", failure.message);
            return Err(Failure { message, ..failure });
        }
        Ok(if findings.is_empty() { Exit::Failed } else { Exit::Done })
    }
}

/// Every key of a text, of any of these shapes, once: as that which says most of it.
fn find_all(shapes: &[mint::Settings], known: Option<&Known>, text: &str) -> Vec<Finding> {
    let mut all: Vec<Finding> = Vec::new();
    for shape in shapes {
        for finding in find(shape, known, text) {
            match all.iter_mut().find(|found| *found.text == *finding.text) {
                Some(found) if found.is_foreign() && !finding.is_foreign() => *found = finding,
                Some(_) => {}
                None => all.push(finding),
            }
        }
    }
    all
}

/// The text of standard input.
fn read(console: &mut Console<'_>) -> Result<Zeroizing<String>, Failure> {
    if console.is_attended {
        console.say("Paste the text, then press Enter and Ctrl-D:");
    }
    // Room for what is usual, so that no copy of it stays behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 * 1024));
    let read = (&mut *console.input).take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::new(format!("cannot read standard input: {error}")))?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        return Err(Failure::new("standard input is longer than 1 MiB; search it with the expression of --pattern"));
    }
    // UTF-16, as some shells write it: in either order, the bytes of ASCII between zeros.
    if bytes.contains(&0) {
        bytes.retain(|byte| *byte != 0);
    }
    let text = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
    if text.trim().is_empty() {
        return Err(Failure::new("standard input is empty; pipe the text in"));
    }
    Ok(text)
}

/// A string that stands alone and is in no file was never one of ours; of a long text, nobody can swear it.
fn nothing(is_certain: bool) -> Value {
    json!({ "is": "unknown", "secret": false, "ours": is_certain.then_some(false) })
}

fn lines(value: &Value) -> String {
    let fields = value.as_object().into_iter().flatten();
    fields.map(|(name, value)| format!("{name:<10}{}", plain(value))).collect::<Vec<_>>().join("\n")
}
