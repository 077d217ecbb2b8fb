//! `keyside openapi`.

use super::Exit;
use crate::control::api::document;

/// Print the OpenAPI document of the management API.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub(super) fn run() -> Exit {
    use std::io::Write as _;
    match std::io::stdout().write_all(document::text().as_bytes()) {
        Ok(()) => Exit::Done,
        // Whoever reads it has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(_) => Exit::Failed,
    }
}
