//! How keys are used: what of it the operations need. A place holder, until the room itself is there.

use super::store::Usage;
use crate::keys::KeyId;

/// How keys are used.
#[derive(Debug, Default)]
pub struct UsageBook {}

impl UsageBook {
    /// How a key was used.
    pub fn of(&self, _key: &KeyId) -> Usage {
        Usage::default()
    }
}
