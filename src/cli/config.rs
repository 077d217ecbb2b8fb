//! `keyside config`: what can be configured, and what is.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::Exit;
use crate::config;

/// Show what can be configured, and what is.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print the commented default, or every value in force with where it came from.
    Print(Print),
}

#[derive(Debug, clap::Args)]
struct Print {
    /// The commented default: every setting there is (the default without --config).
    #[arg(long, conflicts_with_all = ["effective", "config"])]
    default: bool,
    /// Every value in force, with where it came from; secrets are references (the default with --config).
    #[arg(long)]
    effective: bool,
    /// The configuration; keyside.toml if none is given.
    #[arg(long, value_name = "FILE", value_parser = crate::cli::configuration())]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Exit {
    let Command::Print(print) = &args.command;
    let text = if print.effective || print.config.is_some() {
        let file = print.config.as_deref().unwrap_or(Path::new("keyside.toml"));
        match config::load(file, config::environment()) {
            Ok(loaded) => loaded.effective.to_string(),
            Err(faults) => {
                anstream::eprintln!("{faults}");
                return Exit::Misconfigured;
            }
        }
    } else {
        config::DEFAULT.to_owned()
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Exit::Done,
        // A reader that has seen enough, as `| head` has.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            anstream::eprintln!("keyside config: {error}");
            Exit::Failed
        }
    }
}
