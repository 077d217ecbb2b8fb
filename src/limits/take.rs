//! Taking from several windows: all or none.

use super::{Exceeded, Limiter, Plan, Readings};
use crate::{clock::Mono, keys::KeyRecord};

/// The windows of one key or owner: a lock around a few deques of marks.
#[derive(Debug, Default)]
pub struct Meter {}

impl Limiter {
    /// Takes one from every window of key and owner together, or from none. Which rules a key has: its own, else its
    /// owner's plan, else `per_key`.
    pub fn take_key(
        &self,
        _plan: &Plan,
        _key: &KeyRecord,
        _now: Mono,
        _readings: &mut Readings,
    ) -> Result<(), Exceeded> {
        unimplemented!("limits room")
    }
}
