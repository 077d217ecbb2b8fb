//! What the API says of things: the names and shapes of its answers.

mod receipt;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

pub use receipt::{ChangedKey, ChangedOwner, PendingSidecar, Receipt, Revoked, RotatedKey};

/// A key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct Key {
    /// Its id; not secret.
    #[schema(example = "key_01JD9ZK3V8Q4T6Y2W1X0R5N7PM")]
    pub id: String,
    /// What people call it.
    pub name: String,
    /// `live` or `test`; null: it passes anywhere.
    #[schema(required, pattern = "^(live|test)$")]
    pub environment: Option<String>,
    /// The part that may be shown: of a token its beginning, of a pair the consumer key.
    #[schema(required)]
    pub prefix: Option<String>,
    /// What it may do.
    pub permissions: Vec<String>,
    /// The last successful authentication.
    #[schema(required, format = DateTime)]
    pub last_used_at: Option<String>,
    /// When it was made.
    #[schema(required, format = DateTime)]
    pub created_at: Option<String>,
    /// `active`, `revoked`, `expired`, or `suspended` with its owner.
    #[schema(pattern = "^(active|revoked|expired|suspended)$")]
    pub status: String,
    /// Whom it acts for.
    pub owner: String,
    /// `pair` or `token`.
    #[schema(pattern = "^(pair|token)$")]
    pub kind: String,
    /// From where it may be used; empty: from anywhere.
    pub allow_ips: Vec<String>,
    /// Limits of its own; null: those of its owner's plan.
    #[schema(required)]
    pub limits: Option<Vec<String>>,
    /// From then on it is refused.
    #[schema(required, format = DateTime)]
    pub expires_at: Option<String>,
    /// Since then it is refused, for good.
    #[schema(required, format = DateTime)]
    pub revoked_at: Option<String>,
    /// The key that it takes the place of.
    #[schema(required)]
    pub rotated_from: Option<String>,
    /// Who minted it: `operator:NAME`, `token:ID`, `key:ID` (by way of a sidecar), or `system`; null: nobody knows.
    #[schema(required)]
    pub minted_by: Option<String>,
    /// How its secret is kept.
    pub hash: String,
    /// From where it was used last.
    #[schema(required)]
    pub last_used_ip: Option<String>,
    /// Requests that were let through.
    pub allowed: u64,
    /// Requests that were refused after the key was recognised.
    pub refused: u64,
    /// The last refusal of each reason, the newest first.
    pub refusals: Vec<RefusedUse>,
    /// What it may do, in one sentence.
    pub summary: String,
}

/// Refusals of a key for one reason.
#[derive(Debug, Serialize, ToSchema)]
pub struct RefusedUse {
    /// The reason, as the sidecars' metric calls it.
    pub reason: String,
    /// When it happened last.
    #[schema(format = DateTime)]
    pub at: String,
    /// From which address.
    #[schema(required)]
    pub ip: Option<String>,
    /// How often.
    pub count: u64,
}

/// A new key. What is secret is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewKey {
    /// Its id; not secret.
    #[schema(example = "key_01JD9ZK3V8Q4T6Y2W1X0R5N7PM")]
    pub id: String,
    /// The whole token: shown this once. Not there for a pair, nor when a request is answered again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub key: Option<String>,
    /// Of a pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub consumer_key: Option<String>,
    /// Of a pair: shown this once. Not there when a request is answered again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub consumer_secret: Option<String>,
    /// What people call it.
    pub name: String,
    /// `live` or `test`; null: it passes anywhere.
    #[schema(required, pattern = "^(live|test)$")]
    pub environment: Option<String>,
    /// The part that may be shown.
    #[schema(required)]
    pub prefix: Option<String>,
    /// What it may do.
    pub permissions: Vec<String>,
    /// When it was made.
    #[schema(required, format = DateTime)]
    pub created_at: Option<String>,
    /// Whom it acts for.
    pub owner: String,
    /// `pair` or `token`.
    #[schema(pattern = "^(pair|token)$")]
    pub kind: String,
    /// From where it may be used; empty: from anywhere.
    pub allow_ips: Vec<String>,
    /// Limits of its own; null: those of its owner's plan.
    #[schema(required)]
    pub limits: Option<Vec<String>>,
    /// From then on it is refused.
    #[schema(required, format = DateTime)]
    pub expires_at: Option<String>,
    /// The key that it takes the place of.
    #[schema(required)]
    pub rotated_from: Option<String>,
    /// What it may do, in one sentence.
    pub summary: String,
    /// What is likely not meant.
    pub warnings: Vec<String>,
}

/// Some of the keys, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Keys {
    /// The keys.
    pub keys: Vec<Key>,
    /// How many there are on all pages.
    pub total: usize,
    /// The `cursor` of the next page; null on the last one.
    #[schema(required)]
    pub next: Option<String>,
}

/// Which key a string belongs to.
#[derive(Debug, Serialize, ToSchema)]
pub struct Identified {
    /// The key; null: none that is here, or that could be compared.
    #[schema(required)]
    pub key: Option<Key>,
    /// `secret`: the string is its secret, as the stored hash proves. `public`: it is the part that may be shown.
    /// `prefix`: it begins like the key, and is not its secret. Null: neither.
    #[serde(rename = "match")]
    #[schema(required, pattern = "^(secret|public|prefix)$")]
    pub likeness: Option<&'static str>,
    /// Whether it was compared with all keys. It is not where too many have slow hashes.
    pub complete: bool,
}

/// An owner.
#[derive(Debug, Serialize, ToSchema)]
pub struct Owner {
    /// The id: what keys name, and the upstream is told.
    #[schema(example = "svc-accounting")]
    pub id: String,
    /// What people call the owner.
    #[schema(required)]
    pub name: Option<String>,
    /// What the owner may do at the upstream.
    pub capabilities: Vec<String>,
    /// `approved`, `pending` or `none`.
    #[schema(pattern = "^(approved|pending|none)$")]
    pub kyc: String,
    /// The plan that sets the limits of the owner's keys.
    #[schema(required)]
    pub plan: Option<String>,
    /// Since then all keys of the owner are refused.
    #[schema(required, format = DateTime)]
    pub suspended_at: Option<String>,
    /// Keys that are not revoked.
    pub keys: usize,
    /// Those of them that may be used now.
    pub active_keys: usize,
    /// What is likely not meant.
    pub warnings: Vec<String>,
}

/// Some of the owners, by id.
#[derive(Debug, Serialize, ToSchema)]
pub struct Owners {
    /// The owners.
    pub owners: Vec<Owner>,
    /// How many there are on all pages.
    pub total: usize,
    /// The `after` of the next page; null on the last one.
    #[schema(required)]
    pub next: Option<String>,
}

/// Something was done.
#[derive(Debug, Serialize, ToSchema)]
pub struct Done {
    /// For people.
    pub message: &'static str,
}

/// An entry of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    /// Its number, from 1, without gaps.
    pub seq: u64,
    /// When, to the millisecond.
    #[schema(format = DateTime)]
    pub at: String,
    /// Who: `operator:NAME`, `token:ID`, `key:ID` (by way of a sidecar), or `system`.
    pub actor: String,
    /// From which address.
    #[schema(required)]
    pub from: Option<String>,
    /// What was done, such as `key.revoke`.
    #[schema(example = "key.revoke")]
    pub action: String,
    /// To what.
    pub subject: String,
    /// What changed, without secrets.
    #[schema(value_type = Object)]
    pub detail: Value,
    /// The revision that it made; null where no key or owner changed.
    #[schema(required)]
    pub revision: Option<u64>,
    /// SHA-256 over the entry before and this one.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub hash: String,
}

/// Where the audit log ends.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditHead {
    /// Names the history.
    pub epoch: String,
    /// The number of entries.
    pub entries: u64,
    /// The hash of the last one.
    pub hash: String,
}

/// Some of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditPage {
    /// The entries: the newest first, or from `from` on.
    pub entries: Vec<AuditEntry>,
    /// The `before`, or the `from`, of the next page; null on the last one.
    #[schema(required)]
    pub next: Option<u64>,
    /// Where the log ends.
    pub head: AuditHead,
}

/// A sidecar.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sidecar {
    /// The name it gives itself, random for each start of the process.
    pub instance: String,
    /// From which address it asks.
    #[schema(required)]
    pub address: Option<String>,
    /// When it took its first set.
    #[schema(format = DateTime)]
    pub first_seen: String,
    /// When it was last heard.
    #[schema(format = DateTime)]
    pub last_seen: String,
    /// Whether a stream to it is open.
    pub connected: bool,
    /// Whether it may be serving.
    pub known: bool,
    /// Whether it said goodbye.
    pub goodbye: bool,
    /// The revision that it has acknowledged.
    pub revision: u64,
    /// Whether that is on its disk.
    pub durable: bool,
    /// How many revisions it has not acknowledged.
    pub lag: u64,
    /// Until when it may serve methods that only read, by the set it has.
    #[schema(format = DateTime)]
    pub may_serve_reads_until: String,
    /// Until when it may serve the others.
    #[schema(format = DateTime)]
    pub may_serve_writes_until: String,
}

/// All sidecars that are known.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sidecars {
    /// The revision that they should have.
    pub revision: u64,
    /// The sidecars.
    pub sidecars: Vec<Sidecar>,
}

/// Somebody who may use the control plane.
#[derive(Debug, Serialize, ToSchema)]
pub struct OperatorView {
    /// The name to sign in with.
    pub name: String,
    /// `viewer`, `operator` or `admin`.
    #[schema(pattern = "^(viewer|operator|admin)$")]
    pub role: String,
    /// Whether they have a password; without one, they have tokens alone.
    pub password: bool,
    /// When they were added.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// Their tokens.
    pub tokens: Vec<TokenView>,
}

/// A token of an operator, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenView {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// When it was made.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// From then on it is refused.
    #[schema(required, format = DateTime)]
    pub expires_at: Option<String>,
}

/// A new token of an operator.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewToken {
    /// Its id.
    pub id: String,
    /// The token: shown this once.
    pub token: String,
    /// What it is for.
    pub name: String,
    /// When it was made.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// From then on it is refused.
    #[schema(required, format = DateTime)]
    pub expires_at: Option<String>,
}

/// All operators.
#[derive(Debug, Serialize, ToSchema)]
pub struct Operators {
    /// The operators, by name.
    pub operators: Vec<OperatorView>,
}

/// Who asks.
#[derive(Debug, Serialize, ToSchema)]
pub struct Me {
    /// The name in the audit log.
    #[schema(example = "token:tok_01JD9ZK3V8Q4T6Y2W1X0R5N7PM")]
    pub actor: String,
    /// The operator's name; null for a key.
    #[schema(required)]
    pub operator: Option<String>,
    /// The operator's role; null for a key.
    #[schema(required, pattern = "^(viewer|operator|admin)$")]
    pub role: Option<String>,
    /// The key that asks, by way of a sidecar.
    #[schema(required)]
    pub key: Option<String>,
    /// Its owner.
    #[schema(required)]
    pub owner: Option<String>,
    /// Its environment.
    #[schema(required)]
    pub environment: Option<String>,
    /// When it expires.
    #[schema(required, format = DateTime)]
    pub expires_at: Option<String>,
}

/// A kind of key that can be minted.
#[derive(Debug, Serialize, ToSchema)]
pub struct Preset {
    /// Its name.
    pub name: String,
    /// `pair` or `token`.
    #[schema(pattern = "^(pair|token)$")]
    pub kind: String,
    /// What a key may be permitted; empty: any scope.
    pub permissions: Vec<String>,
    /// `live` and `test`, where a key must name one of them.
    pub environments: Vec<String>,
    /// What keys begin with.
    pub prefixes: Vec<String>,
    /// What the secrets of pairs begin with; null for tokens.
    #[schema(required)]
    pub secret_prefix: Option<String>,
    /// How many characters after its prefix may be shown of a token; null for pairs.
    #[schema(required)]
    pub shown: Option<usize>,
    /// The plans of owners.
    pub plans: Vec<String>,
    /// The capabilities that routes ask for.
    pub capabilities: Vec<String>,
    /// Whether some route asks for an approved KYC.
    pub kyc: bool,
}

/// What can be minted.
#[derive(Debug, Serialize, ToSchema)]
pub struct Presets {
    /// The presets; the first one counts where none is named.
    pub presets: Vec<Preset>,
}

/// A refusal.
#[derive(Debug, Serialize, ToSchema)]
pub struct Refused {
    /// For programs.
    pub code: String,
    /// For people: what is wrong, and what to do.
    pub message: String,
    /// The field of the request that is wrong, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub field: Option<String>,
}
