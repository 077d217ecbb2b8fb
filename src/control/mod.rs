//! The control plane: mints, lists, revokes and rotates keys, for people and programs, and feeds the sidecars.
//!
//! | file | holds |
//! |---|---|
//! | [`store`] | where they last: SQLite, or PostgreSQL |
//! | [`audit`] | the hash chain over what was done |

pub mod audit;
pub mod store;
