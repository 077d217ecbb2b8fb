//! Forwarding: what happens to a request between its arrival and the upstream's answer.

pub mod settings;
