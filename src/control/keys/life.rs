//! The life of a key after it was minted: it is changed, rotated, revoked, and its row is removed.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::{
    Made,
    create::{
        Asking, asking, expires, mint_once, must_live, no_later, no_looser, no_manager, no_stranger, no_wider, offer,
        when,
    },
    described, difference, find, key_change, name, networks, owner_id, quotas, scopes, warnings, whole,
};
use crate::{
    clock::Wall,
    control::{
        answer::Problem,
        caller::{Caller, Power},
        desk::Desk,
        fleet::{Gap, Receipt},
        ledger::{Draft, Image},
        settings::{Offer, Settings},
        store::{Change, Role},
    },
    keys::{
        Kind, Mode, Scopes,
        document::{KeyRow, json::write_key},
        mint,
        moments::{end_of_old, life_after},
        record::PublicPart,
    },
};

/// What is to be changed of a key; what is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyChange {
    /// What people shall call it.
    pub name: Option<String>,
    /// Whom it acts for.
    pub owner: Option<String>,
    /// The preset whose scopes are asked for; the first one where none is named.
    pub offer: Option<String>,
    /// What it may do, in place of all that it might.
    pub scopes: Option<Vec<String>>,
    /// From where it may be used, in place of all there were; empty: from anywhere.
    pub allow_ips: Option<Vec<String>>,
    /// Limits of its own, in place of all there were; empty: those of its plan.
    pub limits: Option<Vec<String>>,
    /// When it expires; none inside: never.
    pub expires_at: Option<Option<String>>,
}

/// How a key is rotated.
#[derive(Clone, Debug, Default)]
pub struct Rotation {
    /// How long both keys work; 0 revokes the old one now.
    pub overlap: Duration,
    /// When the new one expires; none: after as long a life as the old one was given.
    pub expires_at: Option<String>,
    /// So that it is done once.
    pub idempotency: Option<String>,
    /// How long the sidecars are waited for.
    pub wait: Duration,
}

/// Mints a key with the same rights, and waits for the sidecars; the old one works until the overlap ends.
///
/// Once that is written the answer is the new key, whatever becomes of the receipt: its secret is shown this once.
///
/// # Errors
///
/// There is no such key for the caller, it is revoked or has expired, or the store failed.
pub async fn rotate(desk: &Arc<Desk>, caller: &Caller, id: &str, how: &Rotation) -> Result<(Made, Receipt), Problem> {
    caller.power.needs_or_key(Role::Operator)?;
    let expiry = how.expires_at.as_deref().map(when).transpose()?;
    let request = format!("rotate {id} {:?} {:?}", how.overlap, how.expires_at);
    let asked = how.idempotency.as_deref().map(|key| asking(caller, key, &request)).transpose()?;
    let old = desk.ledger.read(|image| find(image, &caller.power, id).cloned())?;
    let offers = offers_of(&desk.settings, &old);
    let shapes = offers.first().map_or_else(|| offer(&desk.settings, None), Ok)?.mint.clone();
    let once = Asking { kind: old.kind, mode: old.mode, shapes, asked };
    let (id, overlap, by) = (id.to_owned(), how.overlap, caller.actor.name.clone());
    let managers = desk.settings.managers_mint_managers;
    let mut made = mint_once(desk, caller, once, move |image, now, power, minted| {
        power.needs_or_key(Role::Operator)?;
        let old = find(image, power, &id)?;
        must_live(image, old, now)?;
        if old.expires_at.is_some_and(|at| at <= now) {
            return Err(Problem::conflict("expired", "The key has expired: make a new one, or give it time first."));
        }
        let mut expires_at = match expiry {
            Some(expiry) => Some(expires(expiry, now)?),
            None => life_after(old, now).map_err(|why| Problem::conflict("expired", why))?.map(whole),
        };
        if let Power::Key { id, .. } = power {
            let Some(own) = image.keys().get(id) else { return Err(Problem::unauthorized()) };
            // What nobody asked for is not refused, but made shorter.
            if expiry.is_none() {
                expires_at = expires_at.map(|at| own.expires_at.map_or(at, |own| at.min(own)));
            }
            expires_at = no_later(expires_at, own)?;
        }
        let mut row = KeyRow {
            id: minted.id.clone(),
            public: PublicPart::Clear(minted.public.clone()),
            hash: minted.hash.clone(),
            created_at: Some(whole(now)),
            expires_at,
            rotated_from: Some(old.id.clone()),
            minted_by: Some(by.as_str().into()),
            ..(**old).clone()
        };
        if let Power::Key { id, .. } = power
            && *id != old.id
            && let Some(own) = image.keys().get(id)
        {
            // As of a key that it mints: its secret is handed to whoever asks by this one.
            no_manager(&row, managers)?;
            no_stranger(&row.scopes, own, &offers)?;
            row.allow_ips = no_wider(&row.allow_ips, own)?;
            row.limits = no_looser(row.limits.as_deref(), own.limits.as_deref())?;
        }
        // Else a key that was stolen leaves as many heirs as it likes.
        let lives = |key: &Arc<KeyRow>| key.revoked_at.is_none() && key.expires_at.is_none_or(|at| at > now);
        let heir = || image.successors(&old.id).any(lives);
        if matches!(power, Power::Key { .. }) && heir() {
            return Err(Problem::conflict(
                "rotated",
                "This key was rotated already: rotate, or revoke, the one that replaces it.",
            ));
        }
        let row = Arc::new(row);
        let mut ends = (**old).clone();
        match end_of_old(old, overlap, now) {
            Some(at) => ends.expires_at = Some(whole(at)),
            None => ends.revoked_at = Some(whole(now)),
        }
        let detail = json!({ "key": described(&row), "old": difference(&write_key(old), &write_key(&ends)) });
        let draft = Draft {
            action: "key.rotate",
            subject: old.id.to_string(),
            detail,
            changes: vec![key_change(&row), Change::Key(Arc::new(ends))],
            ..Draft::default()
        };
        // That the old one has the same name is what rotation is.
        let mut said = warnings(image, &row);
        said.retain(|warning| !warning.starts_with("Another key"));
        Ok((draft, row, said))
    })
    .await?;
    let receipt = match desk.fleet.receipt(&made.head, how.wait).await {
        Ok(receipt) => receipt,
        Err(error) => {
            let why = Problem::from(error).message;
            made.warnings.push(format!("The key was made, but nothing can be said of the sidecars. {why}"));
            let (acknowledged, pending, stopped) = (Vec::new(), Vec::new(), Vec::new());
            Receipt { revision: made.head.revision, acknowledged, pending, stopped, gap: Some(Gap::Unasked) }
        }
    };
    Ok((made, receipt))
}

/// The offers whose prefix the key has; those of its kind where none fits, and the first one where none is of its kind.
fn offers_of(settings: &Settings, row: &KeyRow) -> Vec<Offer> {
    let public = match &row.public {
        PublicPart::Clear(public) => &**public,
        PublicPart::Digest { .. } => "",
    };
    let prefix = |mint: &mint::Settings| match (row.kind, row.mode) {
        (Kind::Pair, _) => mint.pair.key_prefix.clone(),
        (_, Some(Mode::Test)) => mint.token.test.clone(),
        _ => mint.token.live.clone(),
    };
    let of_kind = || settings.offers.iter().filter(|offer| offer.kind == row.kind);
    let fits: Vec<_> = of_kind().filter(|offer| public.starts_with(&*prefix(&offer.mint))).cloned().collect();
    let kind = || of_kind().cloned().collect::<Vec<_>>();
    let found = if fits.is_empty() { kind() } else { fits };
    if found.is_empty() { settings.offers.first().cloned().into_iter().collect() } else { found }
}

/// Revokes a key, for good, and waits for the sidecars. A second time changes nothing, and answers again.
///
/// # Errors
///
/// There is no such key for the caller, or the store failed: then it is not revoked.
pub async fn revoke(desk: &Arc<Desk>, caller: &Caller, id: &str, wait: Duration) -> Result<Receipt, Problem> {
    caller.power.needs_or_key(Role::Operator)?;
    let (then, id) = (caller.clone(), id.to_owned());
    let judge = move |image: &Image, now: Wall| {
        let power = then.stands(image, now)?;
        power.needs_or_key(Role::Operator)?;
        let row = find(image, &power, &id)?;
        if row.revoked_at.is_some() {
            return Ok((None, ()));
        }
        let draft = Draft {
            action: "key.revoke",
            subject: row.id.to_string(),
            detail: json!({ "name": &*row.name, "owner": row.owner.as_str() }),
            changes: vec![Change::Key(Arc::new(revoked(row, now)))],
            ..Draft::default()
        };
        Ok((Some(draft), ()))
    };
    let written = desk.ledger.write(caller.actor.clone(), judge).await.map_err(Problem::from)?;
    Ok(desk.fleet.receipt(&written.head, wait).await?)
}

fn revoked(row: &KeyRow, now: Wall) -> KeyRow {
    KeyRow { revoked_at: Some(row.revoked_at.unwrap_or_else(|| whole(now))), ..row.clone() }
}

/// Removes a key's row, and waits for the sidecars. Its name has to be typed again.
///
/// # Errors
///
/// There is no such key, that is not its name, the caller is no admin, or the store failed.
pub async fn purge(
    desk: &Arc<Desk>,
    caller: &Caller,
    id: &str,
    typed_name: &str,
    wait: Duration,
) -> Result<Receipt, Problem> {
    caller.needs(Role::Admin)?;
    let (then, id, typed) = (caller.clone(), id.to_owned(), typed_name.to_owned());
    let judge = move |image: &Image, now: Wall| {
        let power = then.stands(image, now)?;
        power.needs(Role::Admin)?;
        let row = find(image, &power, &id)?;
        if typed != *row.name {
            return Err(Problem::invalid("name", "`name` must be the name of the key, typed again."));
        }
        // It is revoked first: whoever sees the change remembers that, whatever an older set says later.
        let mut changes = vec![Change::DeletedKey(row.id.clone())];
        if row.revoked_at.is_none() {
            changes.insert(0, Change::Key(Arc::new(revoked(row, now))));
        }
        let draft = Draft {
            action: "key.purge",
            subject: row.id.to_string(),
            detail: json!({ "key": described(row) }),
            changes,
            ..Draft::default()
        };
        Ok((Some(draft), ()))
    };
    let written = desk.ledger.write(caller.actor.clone(), judge).await.map_err(Problem::from)?;
    Ok(desk.fleet.receipt(&written.head, wait).await?)
}

/// Changes a key, and waits for the sidecars: the change may let fewer in. Only operators do: a key that could change
/// itself would have no bounds.
///
/// # Errors
///
/// There is no such key, it is revoked, the change is none, or the store failed.
pub async fn change(
    desk: &Arc<Desk>,
    caller: &Caller,
    id: &str,
    change: KeyChange,
    wait: Duration,
) -> Result<Receipt, Problem> {
    caller.needs(Role::Operator)?;
    let KeyChange { name: new_name, owner, offer: preset, scopes: asked, allow_ips, limits, expires_at } = change;
    let new_name = new_name.as_deref().map(|text| name("name", text)).transpose()?;
    let owner = owner.as_deref().map(owner_id).transpose()?;
    let scopes: Option<Scopes> = match &asked {
        Some(asked) => Some(scopes(offer(&desk.settings, preset.as_deref())?, asked)?),
        None => None,
    };
    let allow_ips = allow_ips.as_deref().map(networks).transpose()?;
    let limits = limits.as_deref().map(quotas).transpose()?;
    let expiry = expires_at.map(|text| text.as_deref().map(when).transpose()).transpose()?;
    let (then, id) = (caller.clone(), id.to_owned());
    let judge = move |image: &Image, now: Wall| {
        let power = then.stands(image, now)?;
        power.needs(Role::Operator)?;
        let old = find(image, &power, &id)?;
        must_live(image, old, now)?;
        let mut row = (**old).clone();
        row.name = new_name.clone().unwrap_or(row.name);
        row.owner = owner.clone().unwrap_or(row.owner);
        row.scopes = scopes.clone().unwrap_or(row.scopes);
        row.allow_ips = allow_ips.clone().unwrap_or(row.allow_ips);
        row.limits = limits.clone().unwrap_or(row.limits);
        match expiry {
            Some(Some(expiry)) => row.expires_at = Some(expires(expiry, now)?),
            Some(None) => row.expires_at = None,
            None => {}
        }
        if row == **old {
            return Ok((None, ()));
        }
        let row = Arc::new(row);
        let draft = Draft {
            action: "key.change",
            subject: row.id.to_string(),
            detail: json!({ "changed": difference(&write_key(old), &write_key(&row)) }),
            changes: vec![key_change(&row)],
            ..Draft::default()
        };
        Ok((Some(draft), ()))
    };
    let written = desk.ledger.write(caller.actor.clone(), judge).await.map_err(Problem::from)?;
    Ok(desk.fleet.receipt(&written.head, wait).await?)
}
