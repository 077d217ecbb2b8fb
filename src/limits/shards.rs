//! The table of addresses.

use super::{Exceeded, Plan, Readings};
use crate::clock::Mono;
use std::net::IpAddr;

/// All counters of addresses; those of keys and owners live in their states.
#[derive(Debug)]
pub struct Limiter {}

/// The counters of one address, kept by a connection so that its requests need no lookup. Starts empty.
#[derive(Debug, Default)]
pub struct AddressHandle {}

impl AddressHandle {
    /// Notes that a caller was verified at this address: its counters are the last ones to make room.
    pub fn note_authenticated(&self) {
        unimplemented!("limits room")
    }
}

impl Limiter {
    /// Room for this many addresses; beyond it the least worthy make room, without anybody's allowance being refilled.
    pub fn new(_max_entries: usize) -> Self {
        unimplemented!("limits room")
    }

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

    /// As [`take_address`](Self::take_address), by what a connection keeps: no lookup while the address is the same.
    pub fn take_address_by(
        &self,
        _handle: &mut AddressHandle,
        _plan: &Plan,
        _client: IpAddr,
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

    /// How many addresses have an entry.
    pub fn entries(&self) -> usize {
        unimplemented!("limits room")
    }
}
