//! Failed authentications: charged to the address alone, and asked for before the work starts, so that a burst of
//! guesses in flight cannot exceed the limit together.

use std::{net::IpAddr, sync::Arc};

use super::{
    AddressHandle, Exceeded, Limiter, Plan,
    entry::{Address, Counters, Entry},
    take::{Part, exceeded, prepare},
    window::tick,
};
use crate::clock::Mono;

impl Limiter {
    /// Whether the address has used up its failures. Attempts in flight do not count here, and nothing is taken.
    pub fn failures_exhausted(&self, plan: &Plan, client: IpAddr, now: Mono) -> Option<Exceeded> {
        if plan.failures.is_empty() {
            return None;
        }
        let address = Address::new(client, plan.ipv6_prefix);
        self.peek(address, tick(now), |counters| {
            let mut parts = [Part { windows: &mut counters.failures, rules: &plan.failures }];
            prepare(&mut parts, now);
            let room = parts[0].windows.have_room(plan.failures.rules(), 0);
            (!room).then(|| exceeded(&parts, 0, 0, now))
        })?
    }

    /// Charges one failed authentication that cost no work, such as that of an unknown key, to the address; by what its
    /// connection keeps, so that it usually costs no lookup.
    ///
    /// # Errors
    ///
    /// When failures and attempts in flight have reached the limit; then nothing is charged.
    pub fn fail(&self, handle: &mut AddressHandle, plan: &Plan, client: IpAddr, now: Mono) -> Result<(), Exceeded> {
        let rules = &plan.failures;
        if rules.is_empty() {
            return Ok(());
        }
        let address = Address::new(client, plan.ipv6_prefix);
        self.with_kept(handle, address, tick(now), |entry, counters| {
            let reserved = counters.in_flight;
            let mut parts = [Part { windows: &mut counters.failures, rules }];
            let moment = prepare(&mut parts, now);
            if !parts[0].windows.have_room(rules.rules(), reserved) {
                return Err(exceeded(&parts, reserved, 0, now));
            }
            parts[0].windows.record(rules.rules(), moment);
            entry.note_change(rules);
            Ok(())
        })
    }

    /// Charges one failed authentication to the address, without asking.
    pub fn charge_failure(&self, plan: &Plan, client: IpAddr, now: Mono) {
        if plan.failures.is_empty() {
            return;
        }
        let address = Address::new(client, plan.ipv6_prefix);
        self.with_counters(address, tick(now), |entry, counters| charge(entry, counters, plan, now));
    }
}

/// The right to fail: what the verifier asks before it works and settles after.
#[derive(Clone, Debug)]
pub struct Failures {
    limiter: Arc<Limiter>,
    plan: Arc<Plan>,
    client: IpAddr,
    free: bool,
}

impl Failures {
    /// Charges failures to this address.
    pub fn new(limiter: Arc<Limiter>, plan: Arc<Plan>, client: IpAddr) -> Self {
        Self { limiter, plan, client, free: false }
    }

    /// Charges nothing: for an attempt that is followed by another one with the same credential.
    #[must_use]
    pub fn free(self) -> Self {
        Self { free: true, ..self }
    }

    /// The address that is charged.
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// Reserves the right to fail once. Refused when failures and attempts in flight have reached the limit; then
    /// nothing is reserved.
    pub fn begin(&self, now: Mono) -> Result<Attempt, Exceeded> {
        let rules = &self.plan.failures;
        if rules.is_empty() || self.free {
            return Ok(Attempt { reserved: None });
        }
        let address = Address::new(self.client, self.plan.ipv6_prefix);
        let entry = self.limiter.with_counters(address, tick(now), |entry, counters| {
            let reserved = counters.in_flight;
            let mut parts = [Part { windows: &mut counters.failures, rules }];
            prepare(&mut parts, now);
            if !parts[0].windows.have_room(rules.rules(), reserved) {
                return Err(exceeded(&parts, reserved, 0, now));
            }
            counters.in_flight += 1;
            Ok(Arc::clone(entry))
        })?;
        Ok(Attempt { reserved: Some((self.clone(), entry)) })
    }
}

/// One attempt in flight. Dropping it unsettled counts as passed, but proves nothing.
#[derive(Debug)]
pub struct Attempt {
    reserved: Option<(Failures, Arc<Entry>)>,
}

impl Attempt {
    /// The secret was wrong: charges the address.
    pub fn failed(mut self, now: Mono) {
        let Some((failures, entry)) = self.reserved.take() else { return };
        let mut counters = entry.lock();
        counters.in_flight = counters.in_flight.saturating_sub(1);
        if entry.is_cell() {
            // The address may have an entry of its own by now.
            drop(counters);
            failures.limiter.charge_failure(&failures.plan, failures.client, now);
        } else {
            charge(&entry, &mut counters, &failures.plan, now);
        }
    }

    /// The secret was right: the address's counters become the last ones to make room.
    pub fn passed(self) {
        if let Some((_, entry)) = &self.reserved {
            entry.note_authenticated();
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some((_, entry)) = &self.reserved {
            let mut counters = entry.lock();
            counters.in_flight = counters.in_flight.saturating_sub(1);
        }
    }
}

fn charge(entry: &Entry, counters: &mut Counters, plan: &Plan, now: Mono) {
    let mut parts = [Part { windows: &mut counters.failures, rules: &plan.failures }];
    let moment = prepare(&mut parts, now);
    parts[0].windows.record(plan.failures.rules(), moment);
    entry.note_change(&plan.failures);
}
