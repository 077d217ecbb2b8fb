//! What the upstream gets of a request, and what the caller gets of its answer.

mod answers;
mod bodies;
mod connections;
mod fields;
mod framing;
mod hops;
mod pool;
mod target;
mod tls;
mod upgrades;

use crate::harness::{Builder, H1, H2, Key, Sidecar, Upstream, Version};

const BOTH: [Version; 2] = [H1, H2];

/// An upstream, and a sidecar in front of it that lets this key in.
async fn in_front(key: &Key, config: impl FnOnce(Builder) -> Builder) -> (Upstream, Sidecar) {
    let upstream = Upstream::start().await;
    let sidecar = config(Sidecar::in_front_of(&upstream).keys([key])).start().await;
    (upstream, sidecar)
}
