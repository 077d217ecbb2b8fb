//! `keys identify`: what a string is that was found somewhere, without showing it again.

use std::io::{BufRead as _, Read as _};

use serde_json::json;
use zeroize::Zeroizing;

use super::{
    console::{Console, Failure, Output},
    describe::status,
    list::plain,
    place::{Named, Place, PlaceArgs},
};
use crate::{
    cli::Exit,
    keys::{
        Kind,
        document::{Document, KeyRow},
        format::{Checksum, Recognised, pattern, recognise},
        mint,
        record::PublicPart,
        secret::{MAX_SECRET_BYTES, Memory, Secret},
    },
};

/// Say what a string found in a log or a repository is. It is read from standard input, never from the command line.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The key file to look it up in.
    #[arg(long, value_name = "FILE")]
    file: Option<std::path::PathBuf>,
    /// The configuration: names the key file and the shapes of keys.
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Print the regular expression by which secrets can be searched for, and read nothing.
    #[arg(long)]
    pattern: bool,
}

impl Args {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let place = match (&self.file, &self.config) {
            (None, None) => None,
            _ => {
                let place = PlaceArgs { file: self.file.clone(), config: self.config.clone(), ..PlaceArgs::default() };
                Some(place.settle()?)
            }
        };
        let shapes = place.as_ref().map_or_else(mint::Settings::default, |place| place.mint.clone());
        if self.pattern {
            console.print(pattern(&shapes))?;
            return Ok(Exit::Done);
        }
        if console.is_attended {
            console.say("Paste the string, then press Enter:");
        }
        // What is longer is no key; the room is there from the start, so that no copy stays behind.
        let mut typed = Zeroizing::new(String::with_capacity(MAX_SECRET_BYTES + 3));
        (&mut *console.input)
            .take(MAX_SECRET_BYTES as u64 + 2)
            .read_line(&mut typed)
            .map_err(|_| Failure::new("cannot read standard input as text"))?;
        let string = typed.trim();
        if string.is_empty() {
            return Err(Failure::new("standard input is empty; pipe the string in"));
        }
        let document = match &place {
            Some(place) => Some(place.read()?),
            None => None,
        };
        let held = place.as_ref().zip(document.as_ref()).and_then(|(place, document)| holder(place, document, string));
        let (what, secret) = kind_of(recognise(&shapes, string), held.as_ref());
        let mut value = json!({ "is": what, "secret": secret });
        if let (Some((row, proven)), Some(document)) = (&held, &document) {
            value["key"] = row.id.as_str().into();
            value["name"] = (*row.name).into();
            value["status"] = status(&Named::Row(row.clone()), document, console.now.wall).into();
            value["verified"] = (*proven).into();
        }
        match console.output {
            Output::Json => console.print_json(&value)?,
            Output::Table => {
                let fields = value.as_object().into_iter().flatten();
                let lines: Vec<_> = fields.map(|(name, value)| format!("{name:<10}{}", plain(value))).collect();
                console.print(lines.join("\n"))?;
            }
        }
        if secret {
            console.say("Where a secret was found, others may have found it: rotate or revoke its key.");
        }
        Ok(if what == "unknown" { Exit::Failed } else { Exit::Done })
    }
}

/// What it is in words, and whether it is a secret.
fn kind_of(recognised: Recognised<'_>, held: Option<&(std::sync::Arc<KeyRow>, bool)>) -> (&'static str, bool) {
    match (recognised, held) {
        (Recognised::ConsumerKey, _) => ("consumer key of a pair", false),
        (Recognised::ConsumerSecret, _) => ("consumer secret of a pair", true),
        (Recognised::Token { checksum: Checksum::Good, .. }, _) => ("token minted by Keyside", true),
        (Recognised::Token { .. }, _) => ("token, mistyped or from elsewhere", true),
        (Recognised::ShownPrefix { .. }, _) => ("shown prefix of a token", false),
        // A key in the file is a key whatever its shape.
        (Recognised::Other, Some((row, _))) if row.kind == Kind::Token => ("token from elsewhere", true),
        (Recognised::Other, Some(_)) => ("consumer key from elsewhere", false),
        (Recognised::Other, None) => ("unknown", false),
    }
}

/// The key that a string belongs to, and whether its hash proves it.
fn holder(place: &Place, document: &Document, string: &str) -> Option<(std::sync::Arc<KeyRow>, bool)> {
    let mut memory = Memory::default();
    let secret = Secret::new(string.as_bytes());
    let mut begins = None;
    for row in &document.keys {
        let PublicPart::Clear(public) = &row.public else { continue };
        if **public == *string {
            return Some((row.clone(), false));
        }
        if row.kind == Kind::Token && string.starts_with(&**public) {
            if row.hash.check(&secret, place.pepper.as_ref(), &mut memory) {
                return Some((row.clone(), true));
            }
            begins = Some((row.clone(), false));
        }
    }
    begins
}
