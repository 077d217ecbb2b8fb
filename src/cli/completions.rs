//! `completions`: what a shell needs to complete command lines.

use std::io::Write as _;

use clap::CommandFactory as _;

use super::{Cli, Exit};

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Args) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "keyside", &mut script);
    match std::io::stdout().write_all(&script) {
        Ok(()) => Exit::Done,
        // A reader that has seen enough, as `| head` has.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            anstream::eprintln!("keyside completions: {error}");
            Exit::Failed
        }
    }
}
