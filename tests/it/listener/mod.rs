//! The door: TLS, PROXY headers, addresses, limits, and every timeout with a stopwatch.

mod addresses;
mod bounds;
mod framing;
mod timeouts;
mod tls;

use crate::harness::{Builder, H1, H2, Key, Sidecar, Upstream, Version};

const BOTH: [Version; 2] = [H1, H2];

/// An upstream, and a sidecar in front of it that lets this key in.
async fn in_front(key: &Key, config: impl FnOnce(Builder) -> Builder) -> (Upstream, Sidecar) {
    let upstream = Upstream::start().await;
    let sidecar = config(Sidecar::in_front_of(&upstream).keys([key])).start().await;
    (upstream, sidecar)
}
