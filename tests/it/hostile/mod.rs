//! Hostile traffic, in bytes that no client library would send, against the real binary and an upstream that keeps
//! exact bytes. A row is named for the rule that it keeps, with its source. `README.md` says which test stands for which
//! threat.

mod callers;
mod connections;
mod h1;
mod h2;
mod limits;
mod table;
mod verification;
