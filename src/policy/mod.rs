//! Policy: what a request needs, and whether a key has it. Pure; never waits, never reads time.
pub mod network;
