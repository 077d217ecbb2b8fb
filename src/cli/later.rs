//! Commands that are not in this build: asked for, they say so.

use super::Exit;

/// Not in this build.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Anything: the command says that it is not in this build.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

/// Says that a command is not in this build.
pub(super) fn run(command: &str) -> Exit {
    anstream::eprintln!("keyside {command}: not in this build");
    Exit::Failed
}
