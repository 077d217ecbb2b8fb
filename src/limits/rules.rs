//! What is allowed: quotas as they are typed, the rules compiled from them, and the plan that holds all rules.

use std::{collections::HashMap, fmt, net::IpAddr, str::FromStr, time::Duration};

use super::{Settings, Subject};
use crate::{keys::KeyRecord, policy::network::Networks};

/// Up to this limit a window knows the moment of every admission; above it, moments within 1/64 of the window are
/// merged. 128 marks of 16 bytes are what a subject may cost.
const EXACT_UP_TO: u32 = 128;

/// The longest window that is accepted: a leap year.
const LONGEST_SECONDS: u64 = 366 * 86_400;

/// `600/1m`: how many in how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// How many; 0 admits nobody.
    pub limit: u32,
    /// In how long; whole seconds, at least one.
    pub window: Duration,
}

/// A number, a slash, and a number with a unit of `s`, `m`, `h` or `d`: `60/1m`, `30/5s`, `50000/1d`. A day is any
/// 24 hours.
impl FromStr for Quota {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "expected how many, a slash and how long, like \"600/1m\" (units: s, m, h, d)";
        let (limit, window) = text.split_once('/').ok_or(SHAPE)?;
        let limit = number(limit).ok_or(SHAPE)?;
        let limit = u32::try_from(limit).map_err(|_| "at most 4294967295 can be counted")?;
        let unit = match window.as_bytes().last() {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 3600,
            Some(b'd') => 86_400,
            _ => return Err(SHAPE),
        };
        let seconds = number(&window[..window.len() - 1]).ok_or(SHAPE)?;
        let seconds = seconds.saturating_mul(unit);
        match seconds {
            0 => Err("a window has at least one second"),
            1..=LONGEST_SECONDS => Ok(Self { limit, window: Duration::from_secs(seconds) }),
            _ => Err("a window has at most 366 days"),
        }
    }
}

/// Digits alone: no sign, no space, no underscore.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 18 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// With the largest unit that fits: 3600 seconds are `1h`.
impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.window.as_secs();
        let (count, unit) = match seconds {
            _ if seconds.is_multiple_of(86_400) => (seconds / 86_400, 'd'),
            _ if seconds.is_multiple_of(3600) => (seconds / 3600, 'h'),
            _ if seconds.is_multiple_of(60) => (seconds / 60, 'm'),
            _ => (seconds, 's'),
        };
        write!(f, "{}/{count}{unit}", self.limit)
    }
}

/// One quota, compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) limit: u32,
    /// The window's length in whole seconds, as it stands in header fields.
    pub(super) seconds: u32,
    /// The window's length in nanoseconds.
    pub(super) length: u64,
    /// Admissions this close to a mark's first one join it, in nanoseconds.
    pub(super) grain: u64,
}

/// The compiled quotas of one subject: one per window length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    subject: Subject,
    quotas: Box<[Quota]>,
    rules: Box<[Rule]>,
    saved: bool,
}

impl Rules {
    /// Compiles quotas. Of two with the same window, the tighter one counts.
    pub fn new(subject: Subject, quotas: &[Quota]) -> Self {
        let mut kept: Vec<Quota> = Vec::with_capacity(quotas.len());
        for quota in quotas {
            let window = Duration::from_secs(quota.window.as_secs().clamp(1, LONGEST_SECONDS));
            match kept.iter_mut().find(|other| other.window == window) {
                Some(other) => other.limit = other.limit.min(quota.limit),
                None => kept.push(Quota { limit: quota.limit, window }),
            }
        }
        let rules: Box<[Rule]> = kept.iter().map(Rule::from).collect();
        let saved = rules.iter().any(|rule| rule.length >= super::windows::SAVED_FROM);
        Self { subject, quotas: kept.into(), rules, saved }
    }

    /// Whose limits these are.
    pub fn subject(&self) -> Subject {
        self.subject
    }

    /// The quotas, one per window length.
    pub fn quotas(&self) -> &[Quota] {
        &self.quotas
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether the windows of these rules are saved.
    pub(super) fn are_saved(&self) -> bool {
        self.saved
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

impl From<&Quota> for Rule {
    fn from(quota: &Quota) -> Self {
        let seconds = u32::try_from(quota.window.as_secs()).unwrap_or(u32::MAX);
        let length = u64::from(seconds) * 1_000_000_000;
        let grain = if quota.limit <= EXACT_UP_TO { 0 } else { length / 64 };
        Self { limit: quota.limit, seconds, length, grain }
    }
}

/// Compiled settings: swapped on reload. The counters are not in here, so that a reload refills nothing.
#[derive(Debug)]
pub struct Plan {
    pub(super) per_ip: Rules,
    pub(super) failures: Rules,
    per_key: Rules,
    pub(super) per_owner: Rules,
    plans: HashMap<Box<str>, Rules, foldhash::fast::RandomState>,
    exempt: Networks,
    pub(super) ipv6_prefix: u8,
}

impl Plan {
    /// Compiles settings.
    pub fn new(settings: &Settings) -> Self {
        Self {
            per_ip: Rules::new(Subject::Ip, &settings.per_ip),
            failures: Rules::new(Subject::Failure, &settings.failures_per_ip),
            per_key: Rules::new(Subject::Key, &settings.per_key),
            per_owner: Rules::new(Subject::Owner, &settings.per_owner),
            plans: settings
                .plans
                .iter()
                .map(|(name, quotas)| (name.as_str().into(), Rules::new(Subject::Key, quotas)))
                .collect(),
            exempt: settings.exempt.clone(),
            ipv6_prefix: settings.ipv6_prefix,
        }
    }

    /// The rules of a key: its own, else those of its owner's plan, else those of all keys. A plan that the
    /// configuration does not have counts as none.
    pub fn key_rules<'a>(&'a self, key: &'a KeyRecord) -> &'a Rules {
        if let Some(own) = &key.limits {
            return own;
        }
        let plan = key.owner.plan.as_deref().and_then(|name| self.plans.get(name));
        plan.unwrap_or(&self.per_key)
    }

    /// Whether counters of addresses are saved.
    pub(crate) fn saves_addresses(&self) -> bool {
        self.per_ip.are_saved() || self.failures.are_saved()
    }

    /// Whether there is a plan of this name.
    pub fn has_plan(&self, name: &str) -> bool {
        self.plans.contains_key(name)
    }

    /// Whether requests from this address take nothing from `per_ip`.
    pub fn is_exempt(&self, client: IpAddr) -> bool {
        !self.exempt.is_empty() && self.exempt.contains(client)
    }
}
