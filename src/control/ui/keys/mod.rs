//! The pages of keys.
//!
//! | file | holds |
//! |---|---|
//! | [`list`], [`csv`] | which keys there are, to look at and to take along |
//! | [`mint`], [`picker`] | a new key: what it will be able to do, and its secret, once |
//! | [`detail`] | one key: how it is used, and what to do about what was refused |
//! | [`change`], [`rotate`], [`end`] | what can be done with it |

pub(super) mod change;
pub(super) mod csv;
pub(super) mod detail;
pub(super) mod end;
pub(super) mod list;
pub(super) mod mint;
mod picker;
pub(super) mod rotate;

use std::collections::{HashMap, HashSet};

use super::{
    super::{
        answer::Problem,
        desk::Desk,
        keys::{self, Listed},
        store::{Day, StoreError},
    },
    page::Sorry,
    visit::Visit,
    words::DAYS,
};
use crate::{
    clock::Wall,
    keys::{KeyId, Kind, document::KeyRow, secret::Secret, words::prefix},
};

/// Days since 1970-01-01.
fn today(now: Wall) -> i64 {
    now.unix_seconds().div_euclid(86_400)
}

/// How these keys were used in the last days, each.
async fn days_of(desk: &Desk, ids: Vec<KeyId>, now: Wall) -> Result<HashMap<KeyId, Vec<Day>>, StoreError> {
    let (store, since) = (std::sync::Arc::clone(desk.ledger.store()), today(now) - i64::from(DAYS) + 1);
    let read = async move {
        let mut all = HashMap::with_capacity(ids.len());
        for id in ids {
            let days = store.days(&id, since).await?;
            all.insert(id, days);
        }
        Ok(all)
    };
    desk.ledger.run(read).await
}

/// Which of these keys have a successor that is not revoked.
fn replaced<'a>(desk: &Desk, rows: impl Iterator<Item = &'a KeyRow>) -> HashSet<KeyId> {
    desk.ledger.read(|image| {
        let live = |id: &KeyId| image.successors(id).any(|key| key.revoked_at.is_none());
        rows.map(|row| &row.id).filter(|id| live(id)).cloned().collect()
    })
}

/// The key of this id, for whoever looks.
fn find(visit: &Visit, id: &str) -> Result<Listed, Sorry> {
    Ok(keys::show(&visit.desk, &visit.caller(), id)?)
}

/// The secret of a new key, as its one page shows it. In memory for as long as that takes to be made.
struct Reveal {
    /// A pair's consumer key.
    public: Option<String>,
    secret: String,
    env: String,
    curl: String,
}

impl std::fmt::Debug for Reveal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reveal")
    }
}

impl Reveal {
    fn new(desk: &Desk, row: &KeyRow, offer: Option<&str>, secret: &Secret) -> Self {
        let secret = String::from_utf8_lossy(secret.expose()).into_owned();
        let url = desk.settings.example_url.as_deref().unwrap_or("https://your-api.example/");
        let header = desk.settings.offer(offer).and_then(|offer| offer.header.clone());
        match row.kind {
            Kind::Pair => {
                let public = prefix(row).unwrap_or_default().to_owned();
                let env = format!("API_CONSUMER_KEY={public}\nAPI_CONSUMER_SECRET={secret}");
                let curl = format!("curl -u {public}:{secret} \"{url}\"");
                Self { public: Some(public), secret, env, curl }
            }
            Kind::Token => {
                let env = format!("API_KEY={secret}");
                let field = header
                    .map_or_else(|| format!("Authorization: Bearer {secret}"), |name| format!("{name}: {secret}"));
                let curl = format!("curl -H \"{field}\" \"{url}\"");
                Self { public: None, secret, env, curl }
            }
        }
    }
}

impl Drop for Reveal {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.secret.zeroize();
        self.env.zeroize();
        self.curl.zeroize();
    }
}

/// The key that replaces another, and the other way about.
#[derive(Debug)]
struct Linked {
    id: String,
    name: String,
    last_used: Option<super::words::Moment>,
    /// Why it can be revoked now, if it can.
    quiet: bool,
}

/// What cannot be done with a key that is over.
fn over(listed: &Listed) -> Result<(), Problem> {
    match listed.row.revoked_at {
        Some(_) => Err(Problem::conflict("revoked", "This key is revoked, and stays so.")),
        None => Ok(()),
    }
}
