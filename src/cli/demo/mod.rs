//! `keyside demo`: everything on an embedded default, to be tried with the lines that it prints.

mod folder;
mod sample;
mod script;

use std::path::PathBuf;

use super::Exit;
use sample::Sample;

/// Run everything on an embedded default: a sample API, a certificate, five keys, and the sidecar in front.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep the files in this folder, which must be new or empty.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The port of the proxy on 127.0.0.1; 0 takes any that is free.
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// The port of metrics and probes on 127.0.0.1; 0 takes any that is free.
    #[arg(long, value_name = "PORT", default_value_t = 9090)]
    admin_port: u16,
    /// Put the demo's keys in front of your own API instead of the sample.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
}

/// What stands behind the sidecar.
enum Upstream {
    /// The sample API, for as long as this value lives.
    Sample(Sample),
    /// The user's own.
    Own(String),
}

pub(super) fn run(_: &Args) -> Exit {
    unimplemented!("telemetry room")
}
