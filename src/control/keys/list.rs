//! Which keys there are, as far as the caller may know.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{find, standing};
use crate::{
    clock::{self, Wall},
    control::{
        answer::Problem,
        caller::{Caller, Power},
        desk::Desk,
        ledger::Image,
        store::Usage,
    },
    keys::{KeyId, Mode, OwnerId, Standing, document::KeyRow, words::prefix},
};

/// The most keys of a page.
pub const MOST: usize = 1000;

/// Which keys are asked for; what is not named is not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// A part of the name, the prefix, the id or the owner, in either case.
    pub search: Option<String>,
    /// Of this owner.
    pub owner: Option<String>,
    /// Of this mode.
    pub mode: Option<Mode>,
    /// Of this standing.
    pub status: Option<Standing>,
    /// With this scope.
    pub scope: Option<String>,
    /// Minted by this one: as the audit log names them, or an id or a name alone.
    pub minted_by: Option<String>,
    /// Not used for so long, nor made since.
    pub unused_for: Option<Duration>,
}

/// Some of the keys, the newest first.
#[derive(Clone, Debug)]
pub struct Page {
    /// The keys.
    pub rows: Vec<Listed>,
    /// How many there are on all pages.
    pub total: usize,
    /// Where the next page begins; none on the last one.
    pub next: Option<String>,
}

/// A key, and how it is used.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The key.
    pub row: Arc<KeyRow>,
    /// Whether it may be used.
    pub standing: Standing,
    /// How it was.
    pub usage: Usage,
}

/// Lists keys.
///
/// # Errors
///
/// The cursor is none of ours, or the caller is gone.
pub fn list(
    desk: &Desk,
    caller: &Caller,
    filter: &Filter,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Page, Problem> {
    let before = cursor.map(position).transpose()?;
    let limit = limit.clamp(1, MOST);
    let now = clock::now().wall;
    desk.ledger.read(|image| {
        let power = caller.stands(image, now)?;
        let sieve = Sieve::new(desk, image, filter, &power, now);
        let (mut rows, mut total, mut more) = (Vec::new(), 0, false);
        let mut see = |row: &Arc<KeyRow>| {
            if !sieve.passes(row) {
                return;
            }
            total += 1;
            if before.as_ref().is_some_and(|before| row.id >= *before) {
                return;
            }
            match rows.len() < limit {
                true => rows.push(Arc::clone(row)),
                false => more = true,
            }
        };
        match sieve.owner {
            Some(Some(ref owner)) => image.keys_of(owner).rev().for_each(&mut see),
            Some(None) => {}
            None => image.keys().values().rev().for_each(&mut see),
        }
        let next = more.then(|| rows.last().map(|row| URL_SAFE_NO_PAD.encode(row.id.as_str()))).flatten();
        let rows = rows.into_iter().map(|row| listed(desk, image, row, now)).collect();
        Ok(Page { rows, total, next })
    })
}

/// Shows a key.
///
/// # Errors
///
/// There is none for the caller.
pub fn show(desk: &Desk, caller: &Caller, id: &str) -> Result<Listed, Problem> {
    let now = clock::now().wall;
    desk.ledger.read(|image| {
        let power = caller.stands(image, now)?;
        let row = find(image, &power, id)?;
        Ok(listed(desk, image, Arc::clone(row), now))
    })
}

fn listed(desk: &Desk, image: &Image, row: Arc<KeyRow>, now: Wall) -> Listed {
    Listed { standing: standing(image, &row, now), usage: desk.usage.of(&row.id), row }
}

fn position(cursor: &str) -> Result<KeyId, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    let id = bytes.and_then(|bytes| String::from_utf8(bytes).ok()).and_then(|text| text.parse().ok());
    id.ok_or_else(|| Problem::invalid("cursor", "`cursor` must be the `next` of the page before."))
}

/// A filter, ready to be held against many keys.
struct Sieve<'a> {
    desk: &'a Desk,
    image: &'a Image,
    filter: &'a Filter,
    power: &'a Power,
    now: Wall,
    search: Option<String>,
    /// None inside: no owner has such a name.
    owner: Option<Option<OwnerId>>,
}

impl<'a> Sieve<'a> {
    fn new(desk: &'a Desk, image: &'a Image, filter: &'a Filter, power: &'a Power, now: Wall) -> Self {
        let search = filter.search.as_deref().map(|text| text.trim().to_lowercase()).filter(|text| !text.is_empty());
        let owner = match (&filter.owner, power) {
            (Some(owner), _) => Some(owner.parse().ok()),
            (None, Power::Key { owner, .. }) => Some(Some(owner.clone())),
            (None, Power::Operator(_)) => None,
        };
        Self { desk, image, filter, power, now, search, owner }
    }

    fn passes(&self, row: &Arc<KeyRow>) -> bool {
        let filter = self.filter;
        self.power.sees(row)
            && filter.mode.is_none_or(|mode| row.mode == Some(mode))
            && filter.scope.as_deref().is_none_or(|scope| holds(row, scope))
            && filter.minted_by.as_deref().is_none_or(|by| row.is_minted_by(by))
            && filter.status.is_none_or(|status| standing(self.image, row, self.now) == status)
            && self.search.as_deref().is_none_or(|search| self.found(row, search))
            && filter.unused_for.is_none_or(|span| self.is_unused(row, span))
    }

    fn found(&self, row: &KeyRow, search: &str) -> bool {
        let owner_name = || self.image.owners().get(&row.owner).and_then(|owner| owner.name.as_deref());
        contains(&row.name, search)
            || contains(row.id.as_str(), search)
            || contains(row.owner.as_str(), search)
            || prefix(row).is_some_and(|prefix| contains(prefix, search))
            || owner_name().is_some_and(|name| contains(name, search))
    }

    /// Only a key that could have been used is unused.
    fn is_unused(&self, row: &KeyRow, span: Duration) -> bool {
        let since = row.created_at.max(self.desk.usage.of(&row.id).last_used_at);
        let quiet = since.is_none_or(|at| at.plus(span) <= self.now);
        quiet && standing(self.image, row, self.now) == Standing::Active
    }
}

/// How many keys a key has minted that are not revoked.
pub fn live_minted_by(image: &Image, id: &KeyId) -> usize {
    let minter = format!("key:{id}");
    let is_its = |row: &&Arc<KeyRow>| row.revoked_at.is_none() && row.minted_by.as_deref() == Some(&*minter);
    image.keys().values().filter(is_its).count()
}

/// Whether a key has a scope: also `read` where it has `read_write`.
fn holds(row: &KeyRow, scope: &str) -> bool {
    row.scopes.iter().any(|held| held == scope) || scope.parse().is_ok_and(|asked| row.scopes.hold(&asked))
}

/// Whether a text holds another one, which is in lower case.
fn contains(text: &str, search: &str) -> bool {
    if !text.is_ascii() {
        return text.to_lowercase().contains(search);
    }
    let (text, search) = (text.as_bytes(), search.as_bytes());
    text.len() >= search.len() && text.windows(search.len()).any(|window| window.eq_ignore_ascii_case(search))
}
