//! `keys rotate`: a new key with the same rights, and an end for the old one.

use std::time::Duration;

use super::{
    console::{Console, Failure},
    create::{Fresh, hand_out, mint_for, warn_of_owner},
    describe::sentence,
    moments::{Expiry, end_of_old, expiry, life_after, span, typed},
    place::{PlaceArgs, Tolerate},
    wait::{WaitArgs, conclude},
};
use crate::{
    cli::Exit,
    clock::Wall,
    keys::{
        document::{
            KeyRow,
            edit::{List, key_fields, moment},
        },
        record::PublicPart,
    },
};

/// Mint a new key with the same rights; the old one works until the overlap ends.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    /// The key: its id, or a name or prefix that only one key has.
    #[arg(value_name = "KEY")]
    key: String,
    /// How long both keys work; 0 revokes the old one now.
    #[arg(long, value_name = "SPAN", default_value = "24h", value_parser = span)]
    overlap: Duration,
    /// When the new key expires; default: after as long a life as the old one was given.
    #[arg(long, value_name = "WHEN", value_parser = expiry)]
    expires: Option<Expiry>,
    #[command(flatten)]
    wait: WaitArgs,
}

impl Args {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        let now = console.now.wall;
        if let Some(remote) = self.place.remote()? {
            let past = || Failure::usage("--expires lies in the past");
            let expires_at = self.expires.map(|expiry| expiry.from(now).ok_or_else(past)).transpose()?;
            return remote.rotate(console, &self.key, self.overlap, expires_at, self.wait.asked());
        }
        let place = self.place.settle()?;
        let waiting = self.wait.begin(&place)?;
        let mut edit = place.edit(Tolerate::Nothing)?;
        let old = place.find_living(&edit.document, &self.key, console)?;
        let expires_at = self.new_expiry(&old, now)?;
        let minted = mint_for(&place, &edit, old.kind, old.mode, console)?;
        let row = KeyRow {
            id: minted.id.clone(),
            public: PublicPart::Clear(minted.public.clone()),
            hash: minted.hash.clone(),
            created_at: Some(now),
            expires_at,
            rotated_from: Some(old.id.clone()),
            minted_by: None,
            ..(*old).clone()
        };
        edit.draft.add(List::Keys, &key_fields(&row));
        let until = end_of_old(&old, self.overlap, now);
        let (field, at) = match until {
            Some(at) => ("expires_at", at),
            None => ("revoked_at", now),
        };
        edit.draft.set(List::Keys, old.id.as_str(), field, Some(&moment(at)));
        warn_of_owner(console, &edit, &row);
        edit.finish()?;
        match until {
            Some(at) => console.say(format_args!("The old key {} works until {at} ({}).", old.id, typed(self.overlap))),
            None => console.say(format_args!("The old key {} is revoked.", old.id)),
        }
        console.say(sentence(&row));
        let delete = place.command(format_args!("keys delete {} --yes", row.id));
        // The secret first: whatever becomes of the wait, it is shown this once.
        let exit = hand_out(console, &row, &Fresh { public: &minted.public, secret: &minted.secret, delete })?;
        conclude(console, waiting.map(|waiting| waiting.until_in_force("the key is rotated")))?;
        Ok(exit)
    }

    fn new_expiry(&self, old: &KeyRow, now: Wall) -> Result<Option<Wall>, Failure> {
        if let Some(expiry) = self.expires {
            let at = expiry.from(now).ok_or_else(|| Failure::usage("--expires lies in the past"))?;
            return Ok(Some(at));
        }
        life_after(old, now).map_err(|why| Failure::new(format!("{why}, with --expires")))
    }
}
