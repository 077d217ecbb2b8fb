//! Limits: strict sliding windows per address, key and owner. Memory only; `usage` saves the long ones.
//!
//! No window of any length, wherever it starts, admits more than its limit.

use crate::{clock::Mono, policy::network::Networks};
use http::HeaderValue;
use std::net::IpAddr;
use std::{str::FromStr, sync::Arc, time::Duration};

/// `600/1m`: how many in how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// How many; at least 1... 0 admits nobody.
    pub limit: u32,
    /// In how long; whole seconds.
    pub window: Duration,
}

impl FromStr for Quota {
    type Err = &'static str;
    fn from_str(_text: &str) -> Result<Self, Self::Err> {
        unimplemented!("limits room")
    }
}

/// Whose limit it is; names the policies in the `RateLimit` fields (`ip-60s`, `key-60s`, `owner-60s`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Compiled quotas of one subject, with their policy names and prebuilt header texts.
#[derive(Debug)]
pub struct Rules {
    quotas: Box<[Quota]>,
}

impl Rules {
    /// Compiles quotas.
    pub fn new(_subject: Subject, _quotas: &[Quota]) -> Self {
        unimplemented!("limits room")
    }
    /// The quotas.
    pub fn quotas(&self) -> &[Quota] {
        &self.quotas
    }
}

/// How limits are set up.
#[derive(Clone, Debug)]
#[expect(missing_docs)]
pub struct Settings {
    pub per_ip: Vec<Quota>,
    pub per_key: Vec<Quota>,
    pub per_owner: Vec<Quota>,
    pub failures_per_ip: Vec<Quota>,
    pub exempt: Networks,
    pub ipv6_prefix: u8,
    pub headers: HeaderStyle,
    pub plans: std::collections::BTreeMap<String, Vec<Quota>>,
}

/// Which rate-limit fields callers get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs)]
pub enum HeaderStyle {
    Draft,
    Legacy,
    Both,
    None,
}

/// The windows of one key or owner: a lock around a few deques of marks.
#[derive(Debug, Default)]
pub struct Meter {}

/// Compiled settings: swapped on reload; the counters are not in here.
#[derive(Debug)]
pub struct Plan {}

impl Plan {
    /// Compiles settings.
    pub fn new(_settings: &Settings) -> Self {
        unimplemented!("limits room")
    }
}

/// All counters of addresses; those of keys and owners live in their states.
#[derive(Debug)]
pub struct Limiter {}

/// A limit is used up.
#[derive(Debug)]
pub struct Exceeded {
    /// Whose.
    pub subject: Subject,
    /// The first whole second at which a retry passes if nobody else takes the place.
    pub retry_after: u64,
    /// The names of the policies that are used up.
    pub violated: Vec<Box<str>>,
}

/// What remains, of all windows taken for this request, from one reading.
#[derive(Debug, Default)]
pub struct Readings {}

/// The right to fail: what the verifier asks before it works and settles after.
#[derive(Clone, Debug)]
pub struct Failures {
    #[expect(dead_code)]
    limiter: Arc<Limiter>,
    #[expect(dead_code)]
    plan: Arc<Plan>,
    #[expect(dead_code)]
    client: IpAddr,
}

impl Limiter {
    /// Takes one from every window of the address, or from none.
    pub fn take_address(
        &self,
        _plan: &Plan,
        _client: IpAddr,
        _now: Mono,
        _readings: &mut Readings,
    ) -> Result<(), Exceeded> {
        unimplemented!("limits room")
    }
    /// Takes one from every window of key and owner together, or from none. Which rules a key has: its own, else its owner's plan, else `per_key`.
    pub fn take_key(
        &self,
        _plan: &Plan,
        _key: &crate::keys::KeyRecord,
        _now: Mono,
        _readings: &mut Readings,
    ) -> Result<(), Exceeded> {
        unimplemented!("limits room")
    }
    /// Whether the address has used up its failures.
    pub fn failures_exhausted(&self, _plan: &Plan, _client: IpAddr, _now: Mono) -> Option<Exceeded> {
        unimplemented!("limits room")
    }
    /// Charges one failed authentication to the address, without asking.
    pub fn charge_failure(&self, _plan: &Plan, _client: IpAddr, _now: Mono) {
        unimplemented!("limits room")
    }
}

impl Readings {
    /// Writes the rate-limit fields into an answer, after the upstream's own members.
    pub fn write(&self, _style: HeaderStyle, _headers: &mut http::HeaderMap<HeaderValue>) {
        unimplemented!("limits room")
    }
}
