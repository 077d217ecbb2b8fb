//! `keyside check`: configuration, routes, key file and certificates, all faults at once.

mod files;
mod keyfile;
mod partial;
#[cfg(feature = "control")]
mod plane;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::Exit;
use crate::{
    clock::{self, Wall},
    config,
    fault::Fault,
};

/// Check the configuration, the key file and the certificates: all faults at once.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration: of a sidecar, or of a control plane, which is told by what stands in it.
    #[arg(long, value_name = "FILE", value_parser = crate::cli::configuration(), default_value = "keyside.toml")]
    config: PathBuf,
    /// The configuration of a control plane.
    #[cfg(feature = "control")]
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    control: Option<PathBuf>,
    /// How faults are printed: for people on standard error, or as one JSON value on standard output.
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

pub(super) fn run(args: &Args) -> Exit {
    let now = clock::now().wall;
    #[cfg(feature = "control")]
    if let Some(file) = args.control.as_ref().or_else(|| Some(&args.config).filter(|file| plane::is_one(file))) {
        let file = if file.is_dir() { &file.join("control.toml") } else { file };
        let faults = plane::examine(file, config::environment(), now);
        return tell(args.output, file, &faults);
    }
    let faults = examine(&args.config, config::environment(), now);
    let exit = tell(args.output, &args.config, &faults);
    if args.output == Output::Text
        && let Ok(loaded) = config::load(&args.config, config::environment())
        && let Some(control) = loaded.config.keys.control()
    {
        anstream::eprintln!("keys come from {}, which was not asked", control.client.url);
    }
    exit
}

/// Prints the faults of this file and of those that it names.
fn tell(output: Output, path: &Path, faults: &[Fault]) -> Exit {
    match output {
        Output::Text => {
            for fault in faults {
                anstream::eprintln!("{fault}\n");
            }
            anstream::eprintln!("{}", summary(path, faults));
        }
        // A reader that has seen enough, as `| head` has, is no fault of what was checked.
        Output::Json => _ = writeln!(anstream::stdout(), "{:#}", report(faults)),
    }
    if faults.iter().any(Fault::is_error) { Exit::Misconfigured } else { Exit::Done }
}

/// Everything that is wrong with a configuration and with the files that it names; warnings included.
pub(crate) fn examine(path: &Path, environment: impl IntoIterator<Item = (String, String)>, now: Wall) -> Vec<Fault> {
    let loaded = match config::load(path, environment) {
        Ok(loaded) => loaded,
        Err(config::Faults(mut faults)) => {
            partial::check(path, &mut faults);
            return faults;
        }
    };
    let mut faults = loaded.warnings.clone();
    files::check(&loaded, now, &mut faults);
    keyfile::check(&loaded, now, &mut faults);
    faults
}

fn summary(path: &Path, faults: &[Fault]) -> String {
    let errors = faults.iter().filter(|fault| fault.is_error()).count();
    let count = |number: usize, name: &str| match number {
        0 => format!("no {name}s"),
        1 => format!("1 {name}"),
        number => format!("{number} {name}s"),
    };
    format!("{}: {}, {}", path.display(), count(errors, "error"), count(faults.len() - errors, "warning"))
}

fn report(faults: &[Fault]) -> Value {
    let fault = |fault: &Fault| {
        json!({
            "severity": if fault.is_error() { "error" } else { "warning" },
            "file": fault.file.as_ref().map(|file| file.display().to_string()),
            "line": Some(fault.line).filter(|line| *line > 0),
            "column": Some(fault.column).filter(|column| *column > 0),
            "source_line": Some(&fault.source_line).filter(|line| !line.is_empty()),
            "message": fault.message,
            "suggestion": fault.suggestion,
        })
    };
    json!({
        "ok": !faults.iter().any(Fault::is_error),
        "faults": faults.iter().map(fault).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests;
