//! Black-box tests: one binary, against the real executable. One module per behaviour; what belongs into a module
//! stands at its top. How tests are written stands at the top of `harness`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests hold a stopwatch beside the program and read the time themselves")]
#![allow(dead_code, unused_imports, reason = "the harness offers more than today's tests use")]

mod clients;
mod commands;
mod control;
mod credentials;
mod demo;
mod endpoint;
mod faults;
mod flood;
mod forwarding;
mod harness;
mod hostile;
mod identical_401;
mod limits;
mod listener;
mod modes;
mod operation;
mod order;
mod readme;
mod refusals;
mod reload;
mod systems;
mod usage;
mod wordpress;
