//! The commands: `keyside COMMAND`. Each has a module with its `Args` and a `run` that gives the exit status.

#[cfg(feature = "control")]
mod audit;
mod certificate;
mod check;
mod completions;
mod config;
#[cfg(feature = "control")]
mod control;
mod demo;
mod exit;
mod explain;
mod health;
mod init;
mod keys;
#[cfg(not(feature = "control"))]
mod later;
mod man;
#[cfg(feature = "control")]
mod openapi;
#[cfg(feature = "control")]
mod operators;
mod owners;
mod proxy;
mod signals;

pub use exit::Exit;

use std::path::PathBuf;

use clap::{
    Parser, Subcommand,
    builder::{PathBufValueParser, TypedValueParser},
};

/// Enforces API keys in front of an API that knows nothing of keys.
#[derive(Debug, Parser)]
#[command(name = "keyside", version = version(), propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `keyside` can do, in the order of its help.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "the commands' own Args say it")]
pub enum Command {
    Demo(demo::Args),
    Init(init::Args),
    Check(check::Args),
    Proxy(proxy::Args),
    Keys(keys::Args),
    Owners(owners::Args),
    Explain(explain::Args),
    Health(health::Args),
    Config(config::Args),
    Completions(completions::Args),
    Man(man::Args),
    #[cfg(feature = "control")]
    Control(control::Args),
    #[cfg(not(feature = "control"))]
    Control(later::Args),
    #[cfg(feature = "control")]
    Operators(operators::Args),
    #[cfg(feature = "control")]
    Audit(audit::Args),
    #[cfg(not(feature = "control"))]
    Audit(later::Args),
    #[cfg(feature = "control")]
    Openapi(openapi::Args),
    #[cfg(not(feature = "control"))]
    Openapi(later::Args),
}

impl Cli {
    /// Does what the command line says.
    pub fn run(self) -> Exit {
        match self.command {
            Command::Demo(args) => demo::run(&args),
            Command::Init(args) => init::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Proxy(args) => proxy::run(&args),
            Command::Keys(args) => keys::run(&args),
            Command::Owners(args) => owners::run(&args),
            Command::Explain(args) => explain::run(&args),
            Command::Health(args) => health::run(&args),
            Command::Config(args) => config::run(&args),
            Command::Completions(args) => completions::run(&args),
            Command::Man(args) => man::run(&args),
            #[cfg(feature = "control")]
            Command::Control(args) => control::run(&args),
            #[cfg(not(feature = "control"))]
            Command::Control(_) => later::run("control"),
            #[cfg(feature = "control")]
            Command::Operators(args) => operators::run(&args),
            #[cfg(feature = "control")]
            Command::Audit(args) => audit::run(&args),
            #[cfg(not(feature = "control"))]
            Command::Audit(_) => later::run("audit"),
            #[cfg(feature = "control")]
            Command::Openapi(_) => openapi::run(),
            #[cfg(not(feature = "control"))]
            Command::Openapi(_) => later::run("openapi"),
        }
    }
}

/// Reads the path of a configuration: a folder stands for its `keyside.toml`.
fn configuration() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|path| if path.is_dir() { path.join("keyside.toml") } else { path })
}

/// The version, and the revision it was built from where the build said so.
fn version() -> &'static str {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    match option_env!("KEYSIDE_REVISION") {
        // Leaked once, for a command line that is parsed once.
        Some(revision) => Box::leak(format!("{VERSION} ({revision})").into_boxed_str()),
        None => VERSION,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[track_caller]
    fn check(line: &[&str], expected: Exit) {
        let cli = Cli::try_parse_from(std::iter::once("keyside").chain(line.iter().copied())).unwrap();
        assert_eq!(cli.run(), expected, "{line:?}");
    }

    #[test]
    fn what_is_not_there_fails() {
        check(&["audit", "verify", "--config", "/nowhere/control.toml"], Exit::Misconfigured);
        check(&["operators", "list"], Exit::Usage);
        check(&["keys", "import"], Exit::Failed);
    }

    #[test]
    fn a_wrong_command_line_is_a_fault_of_usage() {
        for line in [&["keyside"][..], &["keyside", "nothing"], &["keyside", "health", "--live", "--ready"]] {
            let fault = Cli::try_parse_from(line).map(|_| ()).unwrap_err();
            assert_eq!(fault.exit_code(), Exit::Usage as i32, "{line:?}");
        }
    }
}
