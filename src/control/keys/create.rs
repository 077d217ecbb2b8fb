//! Minting keys.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use serde_json::json;

use super::{
    Made, described, key_change, mint_failed, name, networks, owner_id, quotas, scopes, standing, warnings, whole,
    written,
};
use crate::{
    clock::{self, Wall},
    control::{
        answer::Problem,
        audit,
        caller::{Caller, MANAGE, Power, manages},
        desk::Desk,
        ledger::{Draft, Image},
        places::Places,
        settings::{Offer, Settings},
        store::{Remembered, Role},
    },
    keys::{
        Kind, Mode, OwnerId, Scopes,
        document::KeyRow,
        mint::{self, Minted},
        moments::{Expiry, expiry},
        record::PublicPart,
    },
    limits::Quota,
    policy::network::Networks,
};

/// How many secrets are hashed at once: each takes some 20 MB and a core.
pub(super) static HASHING: LazyLock<Places> = LazyLock::new(|| Places::new(2));
/// How often it is tried again because a public part was taken meanwhile.
const ATTEMPTS: usize = 4;
/// How far ahead an expiry may lie.
const LATEST: Duration = Duration::from_secs(1000 * 366 * 86_400);

/// A key that somebody wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewKey {
    /// What people shall call it.
    pub name: String,
    /// The preset; the first one where none is named.
    pub offer: Option<String>,
    /// How it is presented; as the offer has it where it is not said.
    pub kind: Option<Kind>,
    /// Live or test.
    pub mode: Option<Mode>,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Whom it acts for: required of operators; of a key, its own.
    pub owner: Option<String>,
    /// From where it may be used; empty: from anywhere.
    pub allow_ips: Vec<String>,
    /// Limits of its own; empty: those of its owner's plan.
    pub limits: Vec<String>,
    /// RFC 3339, or a span such as `90d`.
    pub expires_at: Option<String>,
}

/// What is wanted, read: all that can be said of it without knowing anything else.
#[derive(Debug)]
struct Wish {
    name: Box<str>,
    shapes: mint::Settings,
    kind: Kind,
    mode: Option<Mode>,
    scopes: Scopes,
    offer_scopes: bool,
    managers: bool,
    owner: Option<OwnerId>,
    allow_ips: Networks,
    limits: Option<Vec<Quota>>,
    expiry: Option<Expiry>,
    warnings: Vec<String>,
}

/// What a judge of a new key has to say.
pub(super) enum Said {
    /// It was made.
    Made(Arc<KeyRow>, Vec<String>),
    /// It was made before.
    Replayed(Arc<KeyRow>),
    /// Some key has its public part.
    Taken,
}

/// Mints a key. With an idempotency key, the same request makes it once, however often and wherever it is asked.
///
/// # Errors
///
/// The caller may not, the key would not be one, or the store failed.
pub async fn create(
    desk: &Arc<Desk>,
    caller: &Caller,
    new: NewKey,
    idempotency: Option<&str>,
) -> Result<Made, Problem> {
    caller.power.needs_or_key(Role::Operator)?;
    let asked = idempotency.map(|key| asking(caller, key, &format!("create {new:?}"))).transpose()?;
    let wish = Arc::new(Wish::read(&desk.settings, &caller.power, new)?);
    let once = Asking { kind: wish.kind, mode: wish.mode, shapes: wish.shapes.clone(), asked };
    let by = caller.actor.name.clone();
    mint_once(desk, caller, once, move |image, now, power, minted| {
        power.needs_or_key(Role::Operator)?;
        let row = KeyRow { minted_by: Some(by.as_str().into()), ..wish.row(image, now, power, minted)? };
        let row = Arc::new(row);
        let warnings = wish.warnings.iter().cloned().chain(warnings(image, &row)).collect();
        let draft = Draft {
            action: "key.create",
            subject: row.id.to_string(),
            detail: json!({ "key": described(&row) }),
            changes: vec![key_change(&row)],
            ..Draft::default()
        };
        Ok((draft, row, warnings))
    })
    .await
}

/// What is to be minted, and by which words it was asked for.
pub(super) struct Asking {
    pub(super) kind: Kind,
    pub(super) mode: Option<Mode>,
    pub(super) shapes: mint::Settings,
    /// SHA-256 of who asks and of the idempotency key; and of what is asked.
    pub(super) asked: Option<(String, String)>,
}

/// The idempotency key with who asks, and what is asked.
pub(super) fn asking(caller: &Caller, key: &str, request: &str) -> Result<(String, String), Problem> {
    if key.is_empty() || key.len() > 255 || !key.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(Problem::invalid("Idempotency-Key", "`Idempotency-Key` must have 1 to 255 printable characters."));
    }
    Ok((audit::hex(&format!("{}\n{key}", caller.actor.name)), audit::hex(request)))
}

/// Mints, and lets the row be judged and written; once for each idempotency key.
pub(super) async fn mint_once(
    desk: &Arc<Desk>,
    caller: &Caller,
    asking: Asking,
    judge: impl Fn(&Image, Wall, &Power, &Minted) -> Result<(Draft, Arc<KeyRow>, Vec<String>), Problem>
    + Send
    + Sync
    + 'static,
) -> Result<Made, Problem> {
    let judge = Arc::new(judge);
    for _ in 0..ATTEMPTS {
        let minted = mint_on_a_thread(desk, &asking).await?;
        let (id, public, hash) = (minted.id.clone(), minted.public.clone(), minted.hash.clone());
        // The secret stays here: the judge needs none.
        let shown = Minted { id, public, hash, secret: Default::default() };
        let (judge, caller_then, asked) = (Arc::clone(&judge), caller.clone(), asking.asked.clone());
        let key = asked.as_ref().map(|(key, _)| key.clone());
        let written_now = desk.ledger.write_once(caller.actor.clone(), key, move |image, now, known| {
            let power = caller_then.stands(image, now)?;
            if let (Some(known), Some((_, request))) = (known, &asked) {
                return replay(image, &power, known, request).map(|row| (None, Said::Replayed(row)));
            }
            if image.has_public(&PublicPart::Clear(shown.public.clone())) {
                return Ok((None, Said::Taken));
            }
            let (mut draft, row, warnings) = judge(image, now, &power, &shown)?;
            draft.remembered =
                asked.clone().map(|(key, request)| Remembered { key, request, made: row.id.clone(), at: now });
            Ok((Some(draft), Said::Made(row, warnings)))
        });
        let written_now = written_now.await?;
        let head = written_now.head;
        match written_now.said {
            Said::Made(row, warnings) => {
                let row = desk.ledger.read(|image| written(image, row));
                return Ok(Made { row, secret: Some(minted.secret), replayed: false, warnings, head });
            }
            Said::Replayed(row) => {
                return Ok(Made { row, secret: None, replayed: true, warnings: Vec::new(), head });
            }
            Said::Taken => {}
        }
    }
    Err(mint_failed(&mint::MintError::NotUnique))
}

/// The key that was made the first time.
fn replay(image: &Image, power: &Power, known: &Remembered, request: &str) -> Result<Arc<KeyRow>, Problem> {
    if known.request != request {
        let message = "This Idempotency-Key was sent before, with another request. Take a new one for each request.";
        return Err(Problem::invalid("Idempotency-Key", message));
    }
    let row = image.keys().get(&known.made).filter(|row| power.sees(row)).cloned();
    row.ok_or_else(|| Problem::conflict("deleted", "The key that this request made was deleted since."))
}

/// Hashing is slow: it has a thread of its own, and few of them.
async fn mint_on_a_thread(desk: &Arc<Desk>, asking: &Asking) -> Result<Minted, Problem> {
    let (desk, shapes, kind, mode) = (Arc::clone(desk), asking.shapes.clone(), asking.kind, asking.mode);
    let minted = HASHING.work(move || {
        let taken = |public: &str| desk.ledger.read(|image| image.has_public(&PublicPart::Clear(public.into())));
        mint::mint(&shapes, kind, mode, desk.settings.pepper.as_ref(), clock::now().wall, taken)
    });
    match minted.await {
        Ok(minted) => minted.map_err(|error| mint_failed(&error)),
        Err(_) => Err(mint_failed(&mint::MintError::Random)),
    }
}

/// The offer of this name.
pub(super) fn offer<'a>(settings: &'a Settings, name: Option<&str>) -> Result<&'a Offer, Problem> {
    settings.offer(name).ok_or_else(|| {
        let names: Vec<_> = settings.offers.iter().map(|offer| offer.name.as_str()).collect();
        Problem::invalid("preset", format!("There is no such preset; there are {}.", names.join(", ")))
    })
}

/// When a key shall expire.
///
/// # Errors
///
/// It is no moment, or lies in the past.
pub(super) fn expires(expiry: Expiry, now: Wall) -> Result<Wall, Problem> {
    let at = expiry.from(now).filter(|at| *at <= now.plus(LATEST) || matches!(expiry, Expiry::At(_)));
    let past = || Problem::invalid("expires_at", "`expires_at` lies in the past: the key would never work.");
    at.map(whole).filter(|at| *at > now).ok_or_else(past)
}

/// Reads when a key shall expire.
pub(super) fn when(text: &str) -> Result<Expiry, Problem> {
    expiry(text).map_err(|why| Problem::invalid("expires_at", format!("`expires_at`: {why}.")))
}

impl Wish {
    fn read(settings: &Settings, power: &Power, new: NewKey) -> Result<Self, Problem> {
        let offer = offer(settings, new.offer.as_deref())?;
        let kind = new.kind.unwrap_or(offer.kind);
        let mode = match (power, new.mode) {
            (Power::Key { mode, .. }, asked) if asked.is_none() || asked == *mode => *mode,
            (Power::Key { .. }, _) => {
                return Err(Problem::forbidden("A key mints only for its own environment."));
            }
            (_, Some(mode)) => Some(mode),
            (_, None) if offer.modes => {
                return Err(Problem::invalid("environment", "`environment` is missing: \"live\" or \"test\"."));
            }
            // As the prefix of a token says.
            (_, None) => (kind == Kind::Token).then_some(Mode::Live),
        };
        let owner = new.owner.as_deref().map(owner_id).transpose()?;
        match (power, &owner) {
            (Power::Key { owner: own, .. }, Some(owner)) if owner != own => {
                return Err(Problem::forbidden("A key mints only for its own owner."));
            }
            (Power::Operator(_), None) => {
                return Err(Problem::invalid(
                    "owner",
                    "`owner` is missing: the id of the owner that the key acts for.",
                ));
            }
            _ => {}
        }
        let limits = quotas(&new.limits)?;
        if limits.is_some() && matches!(power, Power::Key { .. }) {
            return Err(Problem::forbidden("A key may not set limits: a new key has those of its plan, or its own."));
        }
        let mut warnings = Vec::new();
        if (kind, offer.kind) == (Kind::Pair, Kind::Token) {
            warnings.push(format!("{} takes no pairs, so that nobody can present this key; mint a token.", offer.name));
        }
        Ok(Self {
            name: name("name", &new.name)?,
            shapes: offer.mint.clone(),
            kind,
            mode,
            scopes: scopes(offer, &new.scopes)?,
            offer_scopes: !offer.scopes.is_empty(),
            managers: settings.managers_mint_managers,
            owner,
            allow_ips: networks(&new.allow_ips)?,
            limits,
            expiry: new.expires_at.as_deref().map(when).transpose()?,
            warnings,
        })
    }

    /// The key as it will be, if the caller may have it.
    fn row(&self, image: &Image, now: Wall, power: &Power, minted: &Minted) -> Result<KeyRow, Problem> {
        let mut row = KeyRow {
            id: minted.id.clone(),
            name: self.name.clone(),
            kind: self.kind,
            public: PublicPart::Clear(minted.public.clone()),
            hash: minted.hash.clone(),
            owner: minting_owner(self.owner.as_ref(), power)?,
            scopes: self.scopes.clone(),
            mode: self.mode,
            allow_ips: self.allow_ips.clone(),
            limits: self.limits.clone(),
            created_at: Some(whole(now)),
            expires_at: self.expiry.map(|expiry| expires(expiry, now)).transpose()?,
            revoked_at: None,
            rotated_from: None,
            minted_by: None,
        };
        if let Power::Key { id, mode, .. } = power {
            let Some(own) = image.keys().get(id) else { return Err(Problem::unauthorized()) };
            if row.mode != *mode {
                return Err(Problem::forbidden("A key mints only for its own environment."));
            }
            if !self.offer_scopes {
                only_held(&row.scopes, own)?;
            }
            no_manager(&row, self.managers)?;
            (row.expires_at, row.limits) = (no_later(row.expires_at, own)?, own.limits.clone());
            row.allow_ips = no_wider(&row.allow_ips, own)?;
        }
        Ok(row)
    }
}

fn minting_owner(asked: Option<&OwnerId>, power: &Power) -> Result<OwnerId, Problem> {
    match (power, asked) {
        (Power::Key { owner, .. }, None) => Ok(owner.clone()),
        (Power::Key { owner, .. }, Some(asked)) if owner != asked => {
            Err(Problem::forbidden("A key mints only for its own owner."))
        }
        (_, Some(asked)) => Ok(asked.clone()),
        (_, None) => Err(Problem::invalid("owner", "`owner` is missing: the id of the owner that the key acts for.")),
    }
}

/// Refuses scopes to a key that a key asks for, where no offer says which there are: but those that it has itself.
fn only_held(asked: &Scopes, own: &KeyRow) -> Result<(), Problem> {
    match asked.iter().all(|scope| own.scopes.iter().any(|held| held == scope)) {
        true => Ok(()),
        false => Err(Problem::forbidden("A key mints only with permissions that it has itself.")),
    }
}

/// Refuses scopes to a key that a key asks a successor for, as to one that it mints: all must be of one of these offers.
/// Where none has them, the first one says why.
pub(super) fn no_stranger(asked: &Scopes, own: &KeyRow, offers: &[Offer]) -> Result<(), Problem> {
    if asked.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = asked.iter().map(str::to_owned).collect();
    let of = |offer: &Offer| {
        scopes(offer, &texts)?;
        if offer.scopes.is_empty() { only_held(asked, own) } else { Ok(()) }
    };
    let refused = || Problem::forbidden("Nothing says which permissions this key may have.");
    if offers.iter().any(|offer| of(offer).is_ok()) {
        Ok(())
    } else {
        offers.first().map_or_else(|| Err(refused()), of)
    }
}

/// Refuses a key that may manage keys to a key that asks for it, unless it is told that they may have them: one that got
/// into the wrong hands would else leave others behind.
pub(super) fn no_manager(row: &KeyRow, may: bool) -> Result<(), Problem> {
    match may || !manages(row) {
        true => Ok(()),
        false => Err(Problem::forbidden(format!(
            "A key mints none that may manage keys ({MANAGE}); an operator may, or `keys.managers_mint_managers` allows it."
        ))),
    }
}

/// The expiry of a key that a key asks for: its own at the latest.
pub(super) fn no_later(asked: Option<Wall>, own: &KeyRow) -> Result<Option<Wall>, Problem> {
    match (asked, own.expires_at) {
        (Some(asked), Some(own)) if asked > own => {
            let message = format!("`expires_at`: a key mints none that outlives it, and it expires at {own}.");
            Err(Problem::invalid("expires_at", message))
        }
        (asked, own) => Ok(asked.or(own)),
    }
}

/// The addresses of a key that a key asks for: none from which it may not be used itself.
pub(super) fn no_wider(asked: &Networks, own: &KeyRow) -> Result<Networks, Problem> {
    if own.allow_ips.is_empty() {
        return Ok(asked.clone());
    }
    if asked.is_empty() {
        return Ok(own.allow_ips.clone());
    }
    let within = |network: crate::policy::network::Network| {
        let text = network.to_string();
        own.allow_ips.iter().any(|own| own == network)
            || text.parse().is_ok_and(|address| own.allow_ips.contains(address))
    };
    match asked.iter().all(within) {
        true => Ok(asked.clone()),
        false => Err(Problem::forbidden("A key mints none that may be used from where it may not be used itself.")),
    }
}

/// The limits of a key that a key asks a successor for: no looser than those of one that it mints, which has its own. Where
/// the old key has limits, too, both hold. Limits of a key's own take the place of those of its plan, and of those that all
/// keys have; which are looser is known to the sidecars alone, so a key without limits of its own leaves them to operators.
pub(super) fn no_looser(old: Option<&[Quota]>, own: Option<&[Quota]>) -> Result<Option<Vec<Quota>>, Problem> {
    let Some(own) = own else {
        return match old {
            None => Ok(None),
            Some(_) => Err(Problem::forbidden(
                "This key has limits of its own, and the key that asks has none: its plan may allow less. An operator may rotate it.",
            )),
        };
    };
    let mut both: Vec<Quota> = Vec::new();
    for quota in old.unwrap_or_default().iter().chain(own) {
        match both.iter_mut().find(|other| other.window == quota.window) {
            Some(other) => other.limit = other.limit.min(quota.limit),
            None => both.push(*quota),
        }
    }
    Ok((!both.is_empty()).then_some(both))
}

/// Whether a key may be rotated, or changed.
pub(super) fn must_live(image: &Image, row: &KeyRow, now: Wall) -> Result<(), Problem> {
    match standing(image, row, now) {
        crate::keys::Standing::Revoked => {
            Err(Problem::conflict("revoked", "The key is revoked, for good. Make a new one."))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(old: &[&str], own: &[&str], expected: &[&str]) {
        let quotas = |texts: &[&str]| -> Option<Vec<Quota>> {
            (!texts.is_empty()).then(|| texts.iter().map(|text| text.parse().unwrap()).collect())
        };
        let both = no_looser(quotas(old).as_deref(), quotas(own).as_deref());
        assert_eq!(both.unwrap(), quotas(expected), "{old:?} {own:?}");
    }

    #[test]
    fn limits_are_no_looser_than_those_of_a_key_that_it_mints() {
        check(&[], &[], &[]);
        check(&[], &["600/1m"], &["600/1m"]);
        check(&["1/1h"], &["600/1m"], &["1/1h", "600/1m"]);
        check(&["1/1h", "100/1m"], &["2/1h", "10/60s"], &["1/1h", "10/1m"]);
        check(&["0/1s"], &["5/1s"], &["0/1s"]);
        let old: Quota = "1/1h".parse().unwrap();
        assert_eq!(no_looser(Some(&[old]), None).unwrap_err().status, 403, "its plan may be tighter");
    }
}
