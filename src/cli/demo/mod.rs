mod sample;

use super::Exit;

/// Run everything on an embedded default: a sample wallet API, keys, a certificate and the sidecar in front.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub(super) fn run(_: &Args) -> Exit {
    unimplemented!("telemetry room")
}
