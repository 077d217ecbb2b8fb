//! Which key a string that was found somewhere is, or belongs to: its secret, or what may be shown of it.
//!
//! The string is held in memory while it is compared, and is written nowhere.

use std::sync::Arc;

use serde_json::json;

use super::{Listed, create::HASHING, find, show};
use crate::{
    control::{answer::Problem, caller::Caller, desk::Desk, ledger::Draft, store::Role},
    keys::{
        Kind,
        document::KeyRow,
        record::PublicPart,
        secret::{MAX_SECRET_BYTES, Memory, Secret},
    },
};

/// How many slow hashes one string is compared with: some seconds. Keys that are minted here by default need none.
const MOST_SLOW: usize = 250;

/// What a string is of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// Its secret, as the stored hash proves: the whole token, or the consumer secret of a pair.
    Secret,
    /// The part that may be shown.
    Public,
    /// It begins like the key, and is not its secret: mistyped, or of a key that was removed.
    Prefix,
}

impl Likeness {
    /// As the API and the audit log call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Public => "public",
            Self::Prefix => "prefix",
        }
    }
}

/// What was found out about a string.
#[derive(Clone, Debug)]
pub struct Identified {
    /// The key, and what the string is of it.
    pub found: Option<(Listed, Likeness)>,
    /// Whether it was compared with all keys: not with those that have slow hashes, where there are too many.
    pub complete: bool,
}

/// Says which key a string is, or belongs to. With an id it is compared with that key alone.
///
/// What comes near a key without being it counts as a guess, of which an address has a few a minute; what is near none is
/// no guess.
///
/// # Errors
///
/// The caller may not, guesses too often, or the store cannot take the audit entry.
pub async fn identify(
    desk: &Arc<Desk>,
    caller: &Caller,
    string: Secret,
    of: Option<&str>,
) -> Result<Identified, Problem> {
    caller.needs(Role::Operator)?;
    let characters = std::str::from_utf8(string.expose()).map_or(0, |text| text.chars().count());
    if !(1..=MAX_SECRET_BYTES).contains(&characters) {
        return Err(Problem::invalid("credential", format!("`credential` has 1 to {MAX_SECRET_BYTES} characters.")));
    }
    if let Some(seconds) = caller.actor.from.and_then(|from| desk.guesses.wait(from)) {
        return Err(Problem::too_many(seconds));
    }
    let rows = desk.ledger.read(|image| match of {
        Some(id) => find(image, &caller.power, id).map(|row| vec![Arc::clone(row)]),
        None => Ok(image.keys().values().cloned().collect()),
    })?;
    let is_guess = of.is_some();
    let with = Arc::clone(desk);
    let compared = HASHING.work(move || compare(&rows, &string, with.settings.pepper.as_ref())).await;
    let Ok((found, complete)) = compared else {
        return Err(Problem::new(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "It could not be compared.",
        ));
    };
    let is_near = found.as_ref().map_or(is_guess, |(_, likeness)| *likeness == Likeness::Prefix);
    if let Some(from) = caller.actor.from.filter(|_| is_near) {
        desk.guesses.count(from);
    }
    let Some((row, likeness)) = found else { return Ok(Identified { found: None, complete }) };
    let (who, subject) = (caller.clone(), row.id.to_string());
    // Before it is answered: whoever learns whose a string is, that they asked stays known.
    desk.ledger
        .write(caller.actor.clone(), move |image, now| {
            who.stands(image, now)?.needs(Role::Operator)?;
            let (subject, detail) = (subject.clone(), json!({ "match": likeness.as_str() }));
            Ok((Some(Draft { action: "key.identify", subject, detail, ..Draft::default() }), ()))
        })
        .await
        .map_err(Problem::from)?;
    Ok(Identified { found: Some((show(desk, caller, row.id.as_str())?, likeness)), complete })
}

/// What the string is, and whether it was compared with everything.
fn compare(rows: &[Arc<KeyRow>], string: &Secret, pepper: Option<&Secret>) -> (Option<(Arc<KeyRow>, Likeness)>, bool) {
    let (mut memory, mut slow, mut complete) = (Memory::default(), 0, true);
    let mut proves = |row: &&Arc<KeyRow>| {
        if row.hash.algorithm().is_slow() {
            slow += 1;
            if slow > MOST_SLOW {
                complete = false;
                return false;
            }
        }
        row.hash.check(string, pepper, &mut memory)
    };
    let is = |row: &&Arc<KeyRow>, likeness| Some((Arc::clone(row), likeness));
    // A digested token is known by the whole of it, which is no public part.
    let public = |row: &&Arc<KeyRow>| {
        (row.kind == Kind::Pair || matches!(row.public, PublicPart::Clear(_))) && row.public.is(string.expose())
    };
    let found = if let Some(row) = rows.iter().find(public) {
        is(&row, Likeness::Public)
    } else {
        let mut near: Vec<_> = rows.iter().filter(|row| row.kind == Kind::Token && may_be(row, string)).collect();
        // The one that says most first.
        near.sort_by_key(|row| std::cmp::Reverse(crate::keys::words::prefix(row).map_or(0, str::len)));
        if let Some(row) = near.iter().find(|row| proves(row)) {
            is(row, Likeness::Secret)
        } else if let Some(row) = near.first() {
            is(row, Likeness::Prefix)
        } else {
            let pairs = rows.iter().filter(|row| row.kind == Kind::Pair);
            pairs.into_iter().find(&mut proves).and_then(|row| is(&row, Likeness::Secret))
        }
    };
    (found, complete)
}

/// Whether a string begins like this token.
fn may_be(row: &KeyRow, string: &Secret) -> bool {
    match &row.public {
        PublicPart::Clear(shown) => string.expose().starts_with(shown.as_bytes()),
        PublicPart::Digest { .. } => row.public.is(string.expose()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::sample::{fast, pair, slow_salted, token};

    fn rows() -> Vec<Arc<KeyRow>> {
        let rows = [
            pair("key_pair", "ck_one", fast("cs_one")),
            token("key_short", "ck_live_ab", fast("ck_live_abcd")),
            token("key_long", "ck_live_abc", fast("ck_live_abcdef")),
            pair("key_slow", "ck_two", slow_salted("cs_two", 1)),
        ];
        rows.into_iter().map(Arc::new).collect()
    }

    #[track_caller]
    fn check(string: &str, expected: Option<(&str, Likeness)>) {
        let (found, complete) = compare(&rows(), &Secret::new(string.as_bytes()), None);
        let found = found.as_ref().map(|(row, likeness)| (row.id.as_str(), *likeness));
        assert_eq!((found, complete), (expected, true), "{string}");
    }

    #[test]
    fn a_string_is_of_the_key_that_its_hash_proves_or_its_beginning_says() {
        check("ck_one", Some(("key_pair", Likeness::Public)));
        check("cs_one", Some(("key_pair", Likeness::Secret)));
        check("cs_two", Some(("key_slow", Likeness::Secret)));
        check("cs_other", None);
        check("ck_live_abc", Some(("key_long", Likeness::Public)));
        check("ck_live_abcd", Some(("key_short", Likeness::Secret)));
        check("ck_live_abcdef", Some(("key_long", Likeness::Secret)));
        check("ck_live_abcxyz", Some(("key_long", Likeness::Prefix)));
        check("ck_live_xyz", None);
    }

    #[test]
    fn slow_hashes_are_bounded_and_it_is_said() {
        let many = |count: usize| -> Vec<_> {
            let row =
                |n: usize| Arc::new(pair(&format!("key_{n}"), &format!("ck_{n}"), slow_salted(&format!("cs_{n}"), n)));
            (0..count).map(row).collect()
        };
        let (found, complete) = compare(&many(MOST_SLOW), &Secret::new(b"cs_none"), None);
        assert!(found.is_none() && complete);
        let (found, complete) = compare(&many(MOST_SLOW + 1), &Secret::new(format!("cs_{MOST_SLOW}").as_bytes()), None);
        assert!(found.is_none() && !complete);
    }
}
