//! What all handlers share.

use std::sync::Arc;

use super::{ledger::Ledger, settings::Settings};

/// What all handlers share.
#[derive(Debug)]
pub struct Desk {
    /// What it was told.
    pub settings: Settings,
    /// All owners, keys and operators.
    pub ledger: Arc<Ledger>,
}
