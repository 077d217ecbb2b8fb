//! What remains, and the fields that tell the caller.

use super::{HeaderStyle, Subject};
use http::HeaderMap;

/// What remains, of all windows taken for this request, from one reading.
#[derive(Debug, Default)]
pub struct Readings {}

impl Readings {
    /// Whose limits are nearly used up (less than a tenth remains), each subject once.
    pub fn near(&self) -> impl Iterator<Item = Subject> {
        std::iter::empty()
    }

    /// Writes the rate-limit fields into an answer, after the upstream's own members.
    pub fn write(&self, _style: HeaderStyle, _headers: &mut HeaderMap) {
        unimplemented!("limits room")
    }
}
