//! Changes while it runs: keys, certificate and configuration. Nothing is lost, nothing revives, and a bad version
//! leaves the good one in force.

mod config;
mod keys;
mod revocation;
mod torn;
mod under_load;
