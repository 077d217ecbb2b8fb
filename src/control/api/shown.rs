//! How what there is becomes what the API says of it.

use super::view::{
    AuditEntry, Identified, Key, NewKey, NewToken, OperatorView, Owner, PendingSidecar, Preset, Receipt, RefusedUse,
    Revoked, Sidecar, TokenView,
};
use crate::{
    clock::Wall,
    control::{
        fleet::{self, Pending, SidecarView},
        keys::{self, Listed, Made, sentence},
        operators::MadeToken,
        owners::Owned,
        settings::Offer,
        store::{Entry, Operator, Refusal, Token},
    },
    keys::{
        Kind,
        document::{KeyRow, kyc_str},
        words::prefix,
    },
};

fn text(at: Option<Wall>) -> Option<String> {
    at.map(|at| at.to_string())
}

fn scopes(row: &KeyRow) -> Vec<String> {
    row.scopes.iter().map(str::to_owned).collect()
}

fn networks(row: &KeyRow) -> Vec<String> {
    row.allow_ips.iter().map(|network| network.to_string()).collect()
}

fn limits(row: &KeyRow) -> Option<Vec<String>> {
    row.limits.as_ref().map(|limits| limits.iter().map(ToString::to_string).collect())
}

fn environment(row: &KeyRow) -> Option<String> {
    row.mode.map(|mode| mode.as_str().to_owned())
}

impl From<&Listed> for Key {
    fn from(Listed { row, standing, usage }: &Listed) -> Self {
        Self {
            id: row.id.to_string(),
            name: row.name.to_string(),
            environment: environment(row),
            prefix: prefix(row).map(str::to_owned),
            permissions: scopes(row),
            last_used_at: text(usage.last_used_at),
            created_at: text(row.created_at),
            status: standing.as_str().to_owned(),
            owner: row.owner.to_string(),
            kind: row.kind.as_str().to_owned(),
            allow_ips: networks(row),
            limits: limits(row),
            expires_at: text(row.expires_at),
            revoked_at: text(row.revoked_at),
            rotated_from: row.rotated_from.as_ref().map(ToString::to_string),
            minted_by: row.minted_by.as_deref().map(str::to_owned),
            hash: row.hash.algorithm().as_str().to_owned(),
            last_used_ip: usage.last_ip.map(|ip| ip.to_string()),
            allowed: usage.allowed,
            refused: usage.refused,
            refusals: usage.refusals.iter().map(RefusedUse::from).collect(),
            summary: sentence(row),
        }
    }
}

impl From<&Refusal> for RefusedUse {
    fn from(refusal: &Refusal) -> Self {
        Self {
            reason: refusal.reason.clone(),
            at: refusal.at.to_string(),
            ip: refusal.ip.map(|ip| ip.to_string()),
            count: refusal.count,
        }
    }
}

impl From<&keys::Identified> for Identified {
    fn from(identified: &keys::Identified) -> Self {
        let found = identified.found.as_ref();
        Self {
            key: found.map(|(listed, _)| listed.into()),
            likeness: found.map(|(_, likeness)| likeness.as_str()),
            complete: identified.complete,
        }
    }
}

impl From<&Made> for NewKey {
    fn from(made: &Made) -> Self {
        let row = &made.row;
        let secret = made.secret.as_ref().map(|secret| String::from_utf8_lossy(secret.expose()).into_owned());
        let (key, consumer_secret) = match row.kind {
            Kind::Token => (secret, None),
            Kind::Pair => (None, secret),
        };
        Self {
            id: row.id.to_string(),
            key,
            consumer_key: prefix(row).filter(|_| row.kind == Kind::Pair).map(str::to_owned),
            consumer_secret,
            name: row.name.to_string(),
            environment: environment(row),
            prefix: prefix(row).map(str::to_owned),
            permissions: scopes(row),
            created_at: text(row.created_at),
            owner: row.owner.to_string(),
            kind: row.kind.as_str().to_owned(),
            allow_ips: networks(row),
            limits: limits(row),
            expires_at: text(row.expires_at),
            rotated_from: row.rotated_from.as_ref().map(ToString::to_string),
            summary: sentence(row),
            warnings: made.warnings.clone(),
        }
    }
}

impl Revoked {
    /// A receipt, with what was done.
    pub fn new(message: &'static str, receipt: fleet::Receipt) -> Self {
        Self { message, receipt: receipt.into() }
    }
}

impl From<fleet::Receipt> for Receipt {
    fn from(receipt: fleet::Receipt) -> Self {
        let one = |pending: Pending| PendingSidecar {
            instance: pending.instance,
            last_seen: pending.last_seen.to_string(),
            may_serve_reads_until: pending.may_serve_reads_until.to_string(),
            may_serve_writes_until: pending.may_serve_writes_until.to_string(),
        };
        let late = |late: Vec<Pending>| late.into_iter().map(one).collect();
        Self {
            revision: receipt.revision,
            acknowledged: receipt.acknowledged,
            pending: late(receipt.pending),
            stopped: late(receipt.stopped),
            complete: receipt.gap.is_none(),
            incomplete_because: receipt.gap.map(|gap| gap.to_string()),
        }
    }
}

impl From<&Owned> for Owner {
    fn from(owned: &Owned) -> Self {
        let row = &owned.row;
        Self {
            id: row.id.to_string(),
            name: row.name.as_deref().map(str::to_owned),
            capabilities: row.capabilities.iter().map(ToString::to_string).collect(),
            kyc: kyc_str(row.kyc).to_owned(),
            plan: row.plan.as_deref().map(str::to_owned),
            suspended_at: text(row.suspended_at),
            keys: owned.keys,
            active_keys: owned.active,
            warnings: owned.warnings.clone(),
        }
    }
}

impl From<Entry> for AuditEntry {
    fn from(entry: Entry) -> Self {
        Self {
            seq: entry.seq,
            at: entry.at.to_string(),
            actor: entry.actor,
            from: entry.from.map(|from| from.to_string()),
            action: entry.action,
            subject: entry.subject,
            detail: entry.detail,
            revision: entry.revision,
            hash: entry.hash,
        }
    }
}

impl From<SidecarView> for Sidecar {
    fn from(view: SidecarView) -> Self {
        let sidecar = view.sidecar;
        Self {
            instance: sidecar.claim.instance,
            address: sidecar.address.map(|address| address.to_string()),
            first_seen: sidecar.first_seen.to_string(),
            last_seen: sidecar.last_seen.to_string(),
            connected: view.connected,
            known: view.known,
            goodbye: sidecar.goodbye,
            revision: sidecar.revision,
            durable: sidecar.durable,
            lag: view.lag,
            may_serve_reads_until: view.may_serve_reads_until.to_string(),
            may_serve_writes_until: view.may_serve_writes_until.to_string(),
        }
    }
}

impl From<&Operator> for OperatorView {
    fn from(operator: &Operator) -> Self {
        Self {
            name: operator.name.clone(),
            role: operator.role.as_str().to_owned(),
            password: operator.password.is_some(),
            created_at: operator.created_at.to_string(),
            tokens: operator.tokens.iter().map(TokenView::from).collect(),
        }
    }
}

impl From<&Token> for TokenView {
    fn from(token: &Token) -> Self {
        let (created_at, expires_at) = (token.created_at.to_string(), text(token.expires_at));
        Self { id: token.id.clone(), name: token.name.clone(), created_at, expires_at }
    }
}

impl From<&MadeToken> for NewToken {
    fn from(MadeToken { token, secret }: &MadeToken) -> Self {
        let TokenView { id, name, created_at, expires_at } = token.into();
        Self { id, token: String::from_utf8_lossy(secret.expose()).into_owned(), name, created_at, expires_at }
    }
}

impl From<&Offer> for Preset {
    fn from(offer: &Offer) -> Self {
        let prefixes = match offer.kind {
            Kind::Pair => vec![offer.mint.pair.key_prefix.to_string()],
            Kind::Token if offer.mint.token.live == offer.mint.token.test => vec![offer.mint.token.live.to_string()],
            Kind::Token => vec![offer.mint.token.live.to_string(), offer.mint.token.test.to_string()],
        };
        let (secret_prefix, shown) = match offer.kind {
            Kind::Pair => (Some(offer.mint.pair.secret_prefix.to_string()), None),
            Kind::Token => (None, Some(offer.mint.token.shown)),
        };
        let environments = if offer.modes { vec!["live".to_owned(), "test".to_owned()] } else { Vec::new() };
        Self {
            name: offer.name.clone(),
            kind: offer.kind.as_str().to_owned(),
            permissions: offer.scopes.clone(),
            environments,
            prefixes,
            secret_prefix,
            shown,
            plans: offer.plans.clone(),
            capabilities: offer.capabilities.clone(),
            kyc: offer.kyc,
        }
    }
}
