//! Keyside: a reverse-proxy sidecar that enforces API keys in front of an API that knows nothing of keys.
//!
//! `src/README.md` is the map of the rooms.

pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
#[cfg(feature = "control")]
pub mod control;
pub mod credential;
pub mod facts;
pub mod fault;
pub mod keys;
pub mod limits;
pub mod listener;
pub mod policy;
pub mod proxy;
pub mod rejection;
pub mod sidecar;
pub mod sync;
pub mod telemetry;
pub mod usage;
