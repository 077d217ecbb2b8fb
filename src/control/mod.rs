//! The control plane: mints, lists, revokes and rotates keys, for people and programs, and feeds the sidecars.
//!
//! | file | holds |
//! |---|---|
//! | [`plane`] | composes, starts and drains it |
//! | [`setup`] | the first operator |
//! | [`routes`] | THE LIST of paths |
//! | [`caller`] | who asks, and what they may |
//! | [`keys`], [`owners`], [`operators`] | what can be done: one function each, for the API, the pages and the commands |
//! | [`api`] | the management API, for programs |
//! | [`front`] | between the listener and the routes |
//! | [`desk`] | what all handlers share |
//! | `places` | what takes a core and much memory, a few at a time |
//! | [`answer`] | the envelope of the management API, and its refusals |
//! | [`feed`] | what sidecars sync from, and where they report |
//! | [`fleet`] | which sidecars may be serving, what each has acknowledged, and what a revoke may therefore answer |
//! | [`usage`] | when keys were used, how often, and what they were refused for |
//! | [`chores`] | what goes on beside the requests |
//! | [`ledger`] | all keys, owners and operators in memory, at one head; every change goes through it |
//! | [`store`] | where they last: SQLite, or PostgreSQL |
//! | [`audit`] | the hash chain over what was done |
//! | [`anchor`] | the heads of that chain, kept outside of the store |
//! | [`metrics`] | where metrics meet |
//! | [`ui`] | the admin pages |
//! | [`wire`] | changes as they are written and sent |
//! | [`session`] | who is signed in to the admin pages |
//! | [`settings`] | what the control plane is told |

pub mod anchor;
pub mod answer;
pub mod api;
pub mod audit;
pub mod caller;
pub mod chores;
pub mod desk;
pub mod feed;
pub mod fleet;
pub mod front;
pub mod keys;
pub mod ledger;
pub mod metrics;
pub mod operators;
pub mod owners;
mod places;
pub mod plane;
pub mod routes;
#[cfg(test)]
pub(crate) mod sample;
pub mod session;
pub mod settings;
pub mod setup;
pub mod sidecars;
pub mod store;
pub mod ui;
pub mod usage;
pub mod wire;
