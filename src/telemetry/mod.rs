//! What operators see: metrics, the access log, the operator's log, health, and the admin port that serves them.
//!
//! Nothing here may slow a request down: counters are plain atomics of one thread, log lines go into a bounded
//! buffer that another thread writes, and the admin port has a thread of its own.

pub mod access_log;
pub mod admin;
pub mod health;
pub mod log;
pub mod metrics;
pub mod output;

pub use access_log::{AccessLog, Line};
pub use health::Health;
pub use metrics::{Family, KeyOutcome, Metrics, Outcome, Registry, Reloaded, Samples};
pub use output::Output;
