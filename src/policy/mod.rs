//! Policy: what a request needs, and whether a key has it. Pure; never waits, never reads time.
//!
//! [`Policy::route`] reads the request and gives its [`Need`]; [`Policy::decide`] holds a verified key against it and
//! gives a [`Permit`]. Only a [`Passage`] can be forwarded, and nothing outside this room can make one, so that a path
//! through the program that leaves out the policy does not compile.
//!
//! What the upstream may read differently is judged in every reading: the method as sent and as overridden, the path
//! as sent, as named by a parameter, and as an upstream sees it that ignores case or a final slash. Each reading that
//! leads to another route adds a demand of its own, and all of them must be met.

mod advice;
mod decide;
pub mod effective;
mod explain;
mod methods;
mod need;
pub mod network;
mod pattern;
mod permit;
mod readings;
mod route;
mod settings;
#[cfg(test)]
mod tests;

pub use decide::Stage;
pub use explain::{Ability, Outcome, Step};
pub use need::{Need, Reading};
pub use pattern::PathPattern;
pub use permit::{Identity, Observed, Open, OpenFor, Passage, Permit};
pub use route::{Policy, Route, Shadowed};
pub use settings::{Methods, RouteSettings, RouteTls, RouteUpstream, Settings};
