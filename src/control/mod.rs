//! The control plane: mints, lists, revokes and rotates keys, for people and programs, and feeds the sidecars.
//!
//! | file | holds |
//! |---|---|
//! | [`ledger`] | all keys, owners and operators in memory, at one head; every change goes through it |
//! | [`store`] | where they last: SQLite, or PostgreSQL |
//! | [`audit`] | the hash chain over what was done |
//! | [`wire`] | changes as they are written and sent |

pub mod audit;
pub mod ledger;
pub mod store;
pub mod wire;
