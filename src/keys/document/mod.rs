//! The key document: the text of `keys.toml` and of a key endpoint's set, as rows.
//!
//! A row is what the text says, checked field by field; [`KeySet`](super::KeySet) makes records of rows. Rows of blocks
//! that did not change are shared between versions, so that a reload of a large file costs what changed.

use std::{ops::RangeInclusive, sync::Arc};

use super::{KeyId, Kind, Kyc, Mode, OwnerId, Revocations, Scopes, record::PublicPart, secret::SecretHash};
use crate::{
    clock::Wall,
    fault::Fault,
    limits::Quota,
    policy::network::{Network, Networks},
};

pub mod edit;
mod fields;
pub mod json;
mod judge;
mod parse;
mod read;
mod split;
#[cfg(test)]
mod tests;

pub use judge::{Care, LastGood};
pub use parse::Parser;

/// One version of all keys and owners.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// The owners, in the order of the text.
    pub owners: Vec<Arc<OwnerRow>>,
    /// The keys that are accepted, and those revoked ones that could be read, in the order of the text.
    pub keys: Vec<Arc<KeyRow>>,
    /// Everything that is wrong with the text, entry by entry.
    pub faults: Vec<Fault>,
    /// All keys with a readable `revoked_at`, those included whose other fields could not be read; and what was
    /// [recalled](Self::recall).
    pub revoked: Revocations,
    /// The ids of keys that are not accepted because something in their entry is wrong, whatever an older version said.
    pub set_aside: Vec<KeyId>,
    /// The ids of owners whose entry is wrong. Each has a row in `owners` that is suspended and may nothing: what
    /// the entry would have forbidden is not known.
    pub owners_set_aside: Vec<OwnerId>,
    /// How many entries were set aside, those without a readable id included.
    pub quarantined: usize,
    /// How many `[[key]]` the text has, good or bad.
    pub key_entries: usize,
    /// Which entry is the last of the text: the one that a torn text may have lost a part of.
    pub last: Last,
    /// The `[end]` table, if there is one.
    pub end: Option<End>,
    /// SHA-256 of the text.
    pub digest: [u8; 32],
}

impl Document {
    /// Adds what is remembered of the revocations of its keys: a row may have been taken back to before its own.
    pub fn recall(&mut self, remembered: &Revocations) {
        let ids = self.keys.iter().map(|row| &row.id).chain(&self.set_aside);
        let lost = ids.filter(|id| !self.revoked.contains_key(*id)).filter_map(|id| remembered.get_key_value(id));
        self.revoked.extend(lost.map(|(id, at)| (id.clone(), *at)).collect::<Vec<_>>());
    }

    /// Keys that are revoked although their rows do not say it.
    pub fn revived(&self) -> impl Iterator<Item = &Arc<KeyRow>> {
        self.keys.iter().filter(|row| row.revoked_at.is_none() && self.revoked.contains_key(&row.id))
    }
}

/// One `[[key]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The key's id.
    pub id: KeyId,
    /// What people call the key.
    pub name: Box<str>,
    /// How it is presented.
    pub kind: Kind,
    /// The public part by which it is looked up.
    pub public: PublicPart,
    /// The stored hash of the secret.
    pub hash: SecretHash,
    /// Whom the key acts for.
    pub owner: OwnerId,
    /// What it may do.
    pub scopes: Scopes,
    /// Live or test; a key without a mode passes anywhere.
    pub mode: Option<Mode>,
    /// From where it may be used; empty means anywhere.
    pub allow_ips: Networks,
    /// Its own limits; absent: its owner's plan, else the limit of all keys.
    pub limits: Option<Vec<Quota>>,
    /// When it was minted.
    pub created_at: Option<Wall>,
    /// From then on it is refused.
    pub expires_at: Option<Wall>,
    /// From then on it is refused, for ever.
    pub revoked_at: Option<Wall>,
    /// The key that this one replaces.
    pub rotated_from: Option<KeyId>,
    /// Who minted it, as a control plane's audit log names them: `operator:NAME`, `token:ID`, `key:ID` or `system`.
    pub minted_by: Option<Box<str>>,
}

impl KeyRow {
    /// Whether this one minted it: as the audit log names them, or an id or a name alone.
    pub fn is_minted_by(&self, who: &str) -> bool {
        let Some(minter) = self.minted_by.as_deref() else { return false };
        minter == who || minter.split_once(':').is_some_and(|(_, name)| name == who)
    }
}

/// One `[[owner]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRow {
    /// The owner's id.
    pub id: OwnerId,
    /// What people call the owner.
    pub name: Option<Box<str>>,
    /// What the owner may do at the upstream; routes ask for these.
    pub capabilities: Box<[Box<str>]>,
    /// Whether the owner's identity was checked.
    pub kyc: Kyc,
    /// The plan that sets the limits of the owner's keys.
    pub plan: Option<Box<str>>,
    /// From then on all keys of the owner answer 401.
    pub suspended_at: Option<Wall>,
}

/// The row of an owner whose entry is wrong: what it would have forbidden is not known, so everything is.
pub fn barred(id: OwnerId) -> Arc<OwnerRow> {
    Arc::new(OwnerRow {
        id,
        name: None,
        capabilities: Box::default(),
        kyc: Kyc::None,
        plan: None,
        suspended_at: Some(Wall::from_unix_millis(0)),
    })
}

/// The last entry of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Last {
    /// A key.
    Key(KeyId),
    /// An owner.
    Owner(OwnerId),
    /// `[end]`, an entry that cannot be told, or nothing.
    #[default]
    Other,
}

/// The `[end]` table: how many entries a whole file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// How many `[[owner]]`.
    pub owners: usize,
    /// How many `[[key]]`.
    pub keys: usize,
}

/// A text that is not put into force. The last good set stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What kind of refusal it is.
    pub why: Why,
    /// Everything that is wrong, at once.
    pub faults: Vec<Fault>,
}

/// Why a text is not put into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is not TOML.
    NotToml,
    /// It is not whole, or could be a part of what was meant.
    Torn,
    /// It lost so many keys that it was hardly meant so.
    Shrunk,
}

impl Why {
    /// For metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotToml => "not_toml",
            Self::Torn => "torn",
            Self::Shrunk => "shrunk",
        }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

/// Reads a moment with its offset from UTC (RFC 3339 §5.6).
///
/// A moment without an offset is none: it would be another one on another machine.
pub fn moment(text: &str) -> Option<Wall> {
    // The calendar library also takes shorter forms, and a zone's name after the offset.
    let full = text.len() >= "2027-02-19T00:00:00Z".len() && text.as_bytes()[4] == b'-' && !text.ends_with(']');
    let read = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let moment = match full.then(|| read(text))? {
        // The calendar ends with 9999-12-30T22:00Z; many write the last moment of that year where they mean "never".
        None if text.starts_with("9999-12-3") => {
            read(&text.replacen("9999", "9998", 1)).map(|_| jiff::Timestamp::MAX)?
        }
        moment => moment?,
    };
    Some(moment.into())
}

/// What is said of names that are shown to people: terminals and logs must not obey them.
///
/// # Errors
///
/// What is wrong with the name.
pub fn check_name(text: &str) -> Result<(), &'static str> {
    if text.chars().count() > 200 {
        Err("must have at most 200 characters")
    } else if text.chars().any(char::is_control) {
        Err("must not hold control characters")
    } else {
        Ok(())
    }
}

/// As [`check_name`], of a name that is given now: what looks like another one's is another one's. In a file that is there
/// already, such a name stays: a key is not to stop for it.
///
/// # Errors
///
/// What is wrong with the name.
pub fn check_new_name(text: &str) -> Result<(), &'static str> {
    check_name(text)?;
    let is_unseen = |char: char| (char.is_whitespace() && char != ' ') || UNSEEN.iter().any(|all| all.contains(&char));
    match text.chars().any(is_unseen) {
        true => Err("must not hold characters that cannot be seen, or that turn the direction of text"),
        false => Ok(()),
    }
}

/// Characters that show nothing of themselves: formatting (Unicode's category Cf and its default ignorables), what turns the
/// direction of text, fillers, variation selectors, tags.
const UNSEEN: &[RangeInclusive<char>] = &[
    '\u{ad}'..='\u{ad}',
    '\u{34f}'..='\u{34f}',
    '\u{600}'..='\u{605}',
    '\u{61c}'..='\u{61c}',
    '\u{6dd}'..='\u{6dd}',
    '\u{70f}'..='\u{70f}',
    '\u{115f}'..='\u{1160}',
    '\u{17b4}'..='\u{17b5}',
    '\u{180b}'..='\u{180f}',
    '\u{200b}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{2800}'..='\u{2800}',
    '\u{3164}'..='\u{3164}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{feff}'..='\u{feff}',
    '\u{ffa0}'..='\u{ffa0}',
    '\u{fff0}'..='\u{fffb}',
    '\u{1bca0}'..='\u{1bca3}',
    '\u{1d173}'..='\u{1d17a}',
    '\u{e0000}'..='\u{e0fff}',
];

/// Reads one entry of `allow_ips`.
///
/// # Errors
///
/// What is wrong with it.
pub fn network(text: &str) -> Result<Network, String> {
    text.parse().map_err(|why: crate::policy::network::NetworkFault| why.to_string())
}

/// Reads an owner's standing with the KYC check.
///
/// # Errors
///
/// What would be right.
pub fn kyc(text: &str) -> Result<Kyc, &'static str> {
    match text {
        "approved" => Ok(Kyc::Approved),
        "pending" => Ok(Kyc::Pending),
        "none" => Ok(Kyc::None),
        _ => Err("expected \"approved\", \"pending\" or \"none\""),
    }
}

/// An owner's standing with the KYC check, as it stands in the key file.
pub const fn kyc_str(kyc: Kyc) -> &'static str {
    match kyc {
        Kyc::Approved => "approved",
        Kyc::Pending => "pending",
        Kyc::None => "none",
    }
}
