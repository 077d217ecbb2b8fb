//! Who asks, and what they may: an operator by a token or a session, or a key by way of a sidecar in front of us.
//!
//! What is found out on arrival is looked at again by whoever judges a change ([`Caller::stands`]): the operator may be
//! gone by then, and the key revoked.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use subtle::ConstantTimeEq as _;

use super::{
    answer::Problem,
    audit,
    desk::Desk,
    front::Peer,
    keys::standing,
    ledger::{Actor, Image},
    store::{Operator, Role, Token},
};
use crate::{
    clock::{self, Wall},
    keys::{KeyId, Mode, OwnerId, Permission, Standing, document::KeyRow},
    limits::{self, Limiter, Plan},
};

/// What a token of an operator begins with.
pub const TOKEN_PREFIX: &str = "kop_";
/// The scope that a key needs to manage keys.
pub const MANAGE: &str = "keys:manage";
/// From how many addresses failures are remembered.
const ADDRESSES: usize = 10_000;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name in the audit log.
    pub actor: Actor,
    /// What they may, as far as was known on arrival.
    pub power: Power,
}

/// What a caller may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Power {
    /// All that an operator of this role may.
    Operator(Role),
    /// A key with `keys:manage`: it sees, mints and revokes keys of its own owner and mode.
    Key {
        /// The key.
        id: KeyId,
        /// Its owner.
        owner: OwnerId,
        /// Its mode.
        mode: Option<Mode>,
        /// When it expires.
        expires_at: Option<Wall>,
    },
}

impl Power {
    /// Refuses whoever may less than an operator of this role.
    ///
    /// # Errors
    ///
    /// The refusal.
    pub fn needs(&self, role: Role) -> Result<(), Problem> {
        match self {
            Self::Operator(has) if *has >= role => Ok(()),
            Self::Operator(has) => Err(Problem::forbidden(format!(
                "This needs the role \"{}\", and yours is \"{}\".",
                role.as_str(),
                has.as_str()
            ))),
            Self::Key { .. } => Err(Problem::forbidden("Keys may not do this; an operator may.")),
        }
    }

    /// Refuses operators of a lower role. Keys pass: what they may is decided key by key.
    ///
    /// # Errors
    ///
    /// The refusal.
    pub fn needs_or_key(&self, role: Role) -> Result<(), Problem> {
        match self {
            Self::Key { .. } => Ok(()),
            Self::Operator(_) => self.needs(role),
        }
    }

    /// Whether the caller may know of this key. For whom may not, there is none.
    pub fn sees(&self, row: &KeyRow) -> bool {
        match self {
            Self::Operator(_) => true,
            Self::Key { owner, mode, .. } => row.owner == *owner && row.mode == *mode,
        }
    }
}

impl Caller {
    /// An operator who is signed in.
    pub fn operator(operator: &Operator, from: Option<IpAddr>) -> Self {
        let actor = Actor { name: format!("operator:{}", operator.name), from };
        Self { actor, power: Power::Operator(operator.role) }
    }

    /// Keyside itself: commands that have the store, and the first set-up.
    pub fn system(from: Option<IpAddr>) -> Self {
        Self { actor: Actor { name: "system".to_owned(), from }, power: Power::Operator(Role::Admin) }
    }

    /// Refuses whoever may less than an operator of this role.
    ///
    /// # Errors
    ///
    /// The refusal.
    pub fn needs(&self, role: Role) -> Result<(), Problem> {
        self.power.needs(role)
    }

    /// What the caller may by this image: to be asked by every judge of a change.
    ///
    /// # Errors
    ///
    /// They are gone, or may nothing any more.
    pub fn stands(&self, image: &Image, now: Wall) -> Result<Power, Problem> {
        if let Power::Key { id, .. } = &self.power {
            return living(image, id, now).map(power_of).ok_or_else(Problem::unauthorized);
        }
        let operator = match self.actor.name.split_once(':') {
            Some(("operator", name)) => image.operators().get(name),
            Some(("token", id)) => holder(image, id, now).map(|(operator, _)| operator),
            _ => return Ok(self.power.clone()),
        };
        operator.map(|operator| Power::Operator(operator.role)).ok_or_else(Problem::unauthorized)
    }

    /// The name of the operator who asks: not that of a key.
    pub fn operator_name(&self, desk: &Desk) -> Option<String> {
        match self.actor.name.split_once(':')? {
            ("operator", name) => Some(name.to_owned()),
            ("token", id) => desk.ledger.read(|image| {
                let token = |operator: &&Operator| operator.tokens.iter().any(|token| token.id == id);
                image.operators().values().find(token).map(|operator| operator.name.clone())
            }),
            _ => None,
        }
    }
}

/// The operator with the token of this id, unless it has expired.
fn holder<'a>(image: &'a Image, id: &str, now: Wall) -> Option<(&'a Operator, &'a Token)> {
    let tokens =
        image.operators().values().flat_map(|operator| operator.tokens.iter().map(move |token| (operator, token)));
    tokens.filter(|(_, token)| works(token, now)).find(|(_, token)| token.id == id)
}

fn works(token: &Token, now: Wall) -> bool {
    token.expires_at.is_none_or(|at| at > now)
}

/// Whether a key may manage keys, for as long as it may be used.
pub fn manages(row: &KeyRow) -> bool {
    row.scopes.hold(&Permission::Named(MANAGE.into()))
}

/// A key that may manage keys now.
fn living<'a>(image: &'a Image, id: &KeyId, now: Wall) -> Option<&'a KeyRow> {
    let row = image.keys().get(id)?;
    (manages(row) && standing(image, row, now) == Standing::Active).then_some(row)
}

fn power_of(row: &KeyRow) -> Power {
    Power::Key { id: row.id.clone(), owner: row.owner.clone(), mode: row.mode, expires_at: row.expires_at }
}

/// Who asks by this `Authorization`: an operator's token, or the sidecar in front of us on behalf of a key; or by the
/// certificate of such a sidecar.
///
/// # Errors
///
/// There is none (`None`: a session may be looked for), it is not accepted, or too many were not from this address.
pub fn by_authorization(desk: &Desk, headers: &HeaderMap, peer: Peer) -> Option<Result<Caller, Problem>> {
    let by_certificate = peer.certified && desk.settings.sync.certified_gateway && headers.contains_key("x-key-id");
    if by_certificate {
        return Some(by_gateway(desk, headers, Some(peer.ip)));
    }
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return Some(Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", "Send exactly one Authorization.")));
    }
    let from = Some(peer.ip);
    if is_gateway(desk, value) {
        return Some(by_gateway(desk, headers, from));
    }
    let caller = bearer(value).and_then(|token| by_token(desk, token, from));
    Some(caller.ok_or_else(|| desk.failures.refusal(peer.ip, Problem::unauthorized())))
}

/// Whether anybody is let in by this `Authorization`. Counts nothing, and says nothing of what they may.
pub fn knows(desk: &Desk, headers: &HeaderMap, peer: Peer) -> bool {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    is_gateway(desk, value) || bearer(value).is_some_and(|token| by_token(desk, token, Some(peer.ip)).is_some())
}

/// Whether this is what the sidecar in front of us sends.
fn is_gateway(desk: &Desk, value: &HeaderValue) -> bool {
    let whole = audit::hex_of(value.as_bytes());
    desk.settings.sync.gateway.as_ref().is_some_and(|gateway| same(gateway, &whole))
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn by_token(desk: &Desk, token: &str, from: Option<IpAddr>) -> Option<Caller> {
    let digest = audit::hex(token);
    let now = clock::now().wall;
    desk.ledger.read(|image| {
        let mut found = None;
        // All of them are compared, so that time says nothing of where in the list a match is.
        for operator in image.operators().values() {
            for token in &operator.tokens {
                if same(&token.digest, &digest) && works(token, now) {
                    let actor = Actor { name: format!("token:{}", token.id), from };
                    found = Some(Caller { actor, power: Power::Operator(operator.role) });
                }
            }
        }
        found
    })
}

/// The sidecar has checked the key. Its word is held against the ledger: it may lag behind.
fn by_gateway(desk: &Desk, headers: &HeaderMap, from: Option<IpAddr>) -> Result<Caller, Problem> {
    let refused = || Problem::forbidden("The key may not manage keys.");
    let one = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().ok());
        match (value, values.next()) {
            (None, _) => Ok(None),
            (Some(Some(value)), None) => Ok(Some(value)),
            _ => Err(Problem::new(StatusCode::BAD_REQUEST, "bad_request", format!("{name} cannot be read."))),
        }
    };
    let (id, owner) = (one("x-key-id")?, one("x-key-owner")?);
    let (scopes, mode) = (one("x-key-scopes")?.unwrap_or_default(), one("x-key-mode")?.filter(|mode| !mode.is_empty()));
    let id: KeyId = id.and_then(|id| id.parse().ok()).ok_or_else(Problem::unauthorized)?;
    if !scopes.split(' ').any(|scope| scope == MANAGE) {
        return Err(refused());
    }
    let now = clock::now().wall;
    let power = desk.ledger.read(|image| {
        let row = living(image, &id, now)?;
        let agrees = owner == Some(row.owner.as_str()) && mode == row.mode.map(Mode::as_str);
        agrees.then(|| power_of(row))
    });
    let actor = Actor { name: format!("key:{id}"), from };
    power.map(|power| Caller { actor, power }).ok_or_else(refused)
}

/// Whether two digests are the same; constant time.
fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// Failed attempts to get in, by address: 20 a minute.
///
/// What is right passes all the same: a token has 256 random bits, and nobody is to lock out a neighbour.
pub struct Failures {
    limiter: Limiter,
    plan: Plan,
}

impl Default for Failures {
    fn default() -> Self {
        Self { limiter: Limiter::new(ADDRESSES), plan: Plan::new(&limits::Settings::default()) }
    }
}

impl std::fmt::Debug for Failures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Failures")
    }
}

impl Failures {
    /// How many seconds this address has to wait before it may fail again; none while it may.
    pub fn wait(&self, from: IpAddr) -> Option<u64> {
        self.limiter.failures_exhausted(&self.plan, from, clock::mono()).map(|exceeded| exceeded.retry_after)
    }

    /// Counts a failure.
    pub fn count(&self, from: IpAddr) {
        self.limiter.charge_failure(&self.plan, from, clock::mono());
    }

    /// Counts a failure, and says what it is answered with.
    fn refusal(&self, from: IpAddr, refusal: Problem) -> Problem {
        if let Some(seconds) = self.wait(from) {
            return Problem::too_many(seconds);
        }
        self.count(from);
        refusal
    }
}
