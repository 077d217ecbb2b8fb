//! `keyside keys`: the life of a key, on the key file.

pub(crate) mod console;
pub(crate) mod create;
pub(crate) mod describe;
mod identify;
pub(crate) mod list;
pub(crate) mod place;
pub(crate) mod remote;
mod revoke;
mod rotate;
mod set;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod wait;

use console::{Console, Failure, Output};

use super::Exit;
pub(crate) use crate::keys::{moments, words};

/// Create, list, change, revoke and rotate keys.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t, global = true, value_name = "FORM")]
    output: Output,
}

/// In the order of a key's life.
#[derive(Debug, clap::Subcommand)]
enum Command {
    Create(create::Args),
    List(list::ListArgs),
    Show(list::ShowArgs),
    Set(set::Args),
    Revoke(revoke::RevokeArgs),
    Delete(revoke::DeleteArgs),
    Rotate(rotate::Args),
    Import(LaterArgs),
    Export(LaterArgs),
    Audit(LaterArgs),
    Identify(identify::Args),
}

/// Not in this build.
#[derive(Debug, clap::Args)]
struct LaterArgs {
    /// Anything: the command says that it is not in this build.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

/// Does what the command line says.
pub(super) fn run(args: &Args) -> Exit {
    Console::run(args.output, |console| args.run(console))
}

impl Args {
    fn run(&self, console: &mut Console<'_>) -> Result<Exit, Failure> {
        match &self.command {
            Command::Create(args) => args.run(console),
            Command::List(args) => args.run(console),
            Command::Show(args) => args.run(console),
            Command::Set(args) => args.run(console),
            Command::Revoke(args) => args.run(console),
            Command::Delete(args) => args.run(console),
            Command::Rotate(args) => args.run(console),
            Command::Import(_) => later("import"),
            Command::Export(_) => later("export"),
            Command::Audit(_) => later("audit"),
            Command::Identify(args) => args.run(console),
        }
    }
}

fn later(command: &str) -> Result<Exit, Failure> {
    Err(Failure::new(format!("keys {command} is not in this build")))
}
