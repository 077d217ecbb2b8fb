//! The request path: [`pipeline`] shows it; the other files are its stages' tools.

mod authenticate;
pub mod body;
pub mod client_body;
mod failure;
mod form;
pub mod headers;
mod judge;
pub mod live;
pub mod outgoing;
pub mod pipeline;
pub mod record;
mod respond;
pub mod settings;
mod tunnel;
pub mod upstream;

use std::sync::Arc;

use arc_swap::ArcSwap;

pub use live::{Live, LiveError};
pub use pipeline::Pipeline;
pub use record::Recorder;
pub use settings::{Endpoint, HostRule, OwnerHeaderSettings, UpstreamSettings, UpstreamTls, UpstreamUrl};

use crate::{
    keys::{KeyStore, verify::Verifier},
    limits::Limiter,
};

/// What all serving threads share.
#[derive(Debug)]
pub struct Shared {
    /// The settings in force.
    pub live: ArcSwap<Live>,
    /// The keys.
    pub keys: Arc<KeyStore>,
    /// The counters of addresses.
    pub limiter: Arc<Limiter>,
    /// The verifier of secrets.
    pub verifier: Arc<Verifier>,
}
