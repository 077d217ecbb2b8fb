//! Limits: strict sliding windows per address, key and owner. Memory only; `usage` saves the long ones.
//!
//! No window of any length, wherever it starts, admits more than its limit.

mod cells;
mod entry;
mod failures;
mod fields;
mod kept;
mod readings;
mod rules;
mod saved;
mod shards;
mod take;
mod window;
mod windows;

pub use failures::{Attempt, Failures};
pub use fields::NAMES as FIELD_NAMES;
pub use readings::Readings;
pub use rules::{Plan, Quota, Rules};
pub use shards::{AddressHandle, Limiter};
pub use take::Meter;
pub(crate) use {
    cells::CellKey,
    kept::{Holder, Save, SavedCounters},
    saved::SavedWindow,
};

use std::collections::BTreeMap;

use crate::{
    policy::network::Networks,
    rejection::{Reason, Rejection},
};

/// Whose limit it is; names the policies in the `RateLimit` fields (`ip-60s`, `key-60s`, `owner-60s`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The address.
    Ip,
    /// The key.
    Key,
    /// The owner.
    Owner,
    /// Failed authentications of the address.
    Failure,
}

impl Subject {
    /// All subjects.
    pub const ALL: [Self; 4] = [Self::Ip, Self::Key, Self::Owner, Self::Failure];

    /// As it stands in policy names and metric labels.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Key => "key",
            Self::Owner => "owner",
            Self::Failure => "failure",
        }
    }
}

/// How limits are set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What one address may do; every request that is not refused by this counts.
    pub per_ip: Vec<Quota>,
    /// What a key may do that has neither limits of its own nor an owner with a plan.
    pub per_key: Vec<Quota>,
    /// What all keys of one owner may do together.
    pub per_owner: Vec<Quota>,
    /// How often authentication may fail from one address.
    pub failures_per_ip: Vec<Quota>,
    /// Addresses whose requests take nothing from `per_ip`; their failures still count.
    pub exempt: Networks,
    /// How many leading bits of an IPv6 address make one caller.
    pub ipv6_prefix: u8,
    /// Which fields tell the caller what remains.
    pub headers: HeaderStyle,
    /// What each key of an owner on a plan may do, by the plan's name.
    pub plans: BTreeMap<String, Vec<Quota>>,
}

/// Failures are limited even where nothing is configured: 20 a minute and address.
impl Default for Settings {
    fn default() -> Self {
        Self {
            per_ip: Vec::new(),
            per_key: Vec::new(),
            per_owner: Vec::new(),
            failures_per_ip: vec![Quota { limit: 20, window: std::time::Duration::from_secs(60) }],
            exempt: Networks::default(),
            ipv6_prefix: 64,
            headers: HeaderStyle::Both,
            plans: BTreeMap::new(),
        }
    }
}

/// Which rate-limit fields callers get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderStyle {
    /// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
    Draft,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
    Legacy,
    /// Both families.
    #[default]
    Both,
    /// None.
    None,
}

/// A limit is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Whose.
    pub subject: Subject,
    /// The first whole second at which a retry passes if nobody else takes the place.
    pub retry_after: u64,
    /// The names of the policies that are used up.
    pub violated: Vec<Box<str>>,
}

impl From<Exceeded> for Rejection {
    fn from(exceeded: Exceeded) -> Self {
        let reason = match exceeded.subject {
            Subject::Ip => Reason::IpLimit,
            Subject::Key => Reason::KeyLimit,
            Subject::Owner => Reason::OwnerLimit,
            Subject::Failure => Reason::FailureLimit,
        };
        Self { violated: exceeded.violated, ..Self::from(reason).retry_after(exceeded.retry_after) }
    }
}

#[cfg(test)]
mod tests;
