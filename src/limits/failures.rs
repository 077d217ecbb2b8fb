//! Failed authentications: charged to the address, asked for before the work starts.

use std::{net::IpAddr, sync::Arc};

use super::{Exceeded, Limiter, Plan};
use crate::clock::Mono;

/// The right to fail: what the verifier asks before it works and settles after.
#[derive(Clone, Debug)]
pub struct Failures {
    #[expect(dead_code)]
    limiter: Arc<Limiter>,
    #[expect(dead_code)]
    plan: Arc<Plan>,
    client: IpAddr,
}

impl Failures {
    /// Charges failures to this address.
    pub fn new(limiter: Arc<Limiter>, plan: Arc<Plan>, client: IpAddr) -> Self {
        Self { limiter, plan, client }
    }

    /// The address that is charged.
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// Reserves the right to fail once. Refused when failures and attempts in flight have reached the limit.
    pub fn begin(&self, _now: Mono) -> Result<Attempt, Exceeded> {
        unimplemented!("limits room")
    }
}

/// One attempt in flight. Dropping it unsettled counts as passed.
#[derive(Debug)]
pub struct Attempt {}

impl Attempt {
    /// The secret was wrong: charges the address.
    pub fn failed(self, _now: Mono) {
        unimplemented!("limits room")
    }

    /// The secret was right.
    pub fn passed(self) {
        unimplemented!("limits room")
    }
}
