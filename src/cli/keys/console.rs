//! What a command says and hears: results on standard output, everything else on standard error.

use std::{
    fmt::Display,
    io::{self, BufRead, IsTerminal as _, Write},
    path::Path,
};

use crate::{
    cli::Exit,
    clock::{self, Now, Wall},
    fault::{Fault, Severity, chain},
};

/// In which form results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON value.
    Json,
}

/// The ends of a command, so that a test can hold them.
pub(crate) struct Console<'a> {
    pub(crate) output: Output,
    pub(crate) out: &'a mut dyn Write,
    pub(crate) err: &'a mut dyn Write,
    pub(crate) input: &'a mut dyn BufRead,
    /// Whether somebody sits at the input.
    pub(crate) is_attended: bool,
    pub(crate) now: Now,
}

/// Why a command ends without having done its work. What is to be said has been collected, not said yet.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    /// It failed or was refused.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into() }
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    /// A file is wrong: all of its faults.
    pub(crate) fn faults(file: &Path, faults: Vec<Fault>) -> Self {
        let message = faults.into_iter().map(|fault| fault.in_file(file).to_string()).collect::<Vec<_>>().join("\n\n");
        Self { exit: Exit::Misconfigured, message }
    }

    /// An error with its causes, on one line.
    pub(crate) fn of(error: &dyn std::error::Error) -> Self {
        Self::new(chain(error))
    }
}

fn unwritten(error: &io::Error) -> Failure {
    Failure::new(format!("cannot write to standard output: {error}"))
}

/// Whether nobody reads any more.
fn is_reader_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

impl Console<'_> {
    /// Runs a command on the process's own ends.
    pub(crate) fn run(output: Output, command: impl FnOnce(&mut Console<'_>) -> Result<Exit, Failure>) -> Exit {
        let (mut out, mut err) = (anstream::stdout().lock(), anstream::stderr().lock());
        let mut input = io::stdin().lock();
        let is_attended = io::stdin().is_terminal();
        // Moments are written to the second, and said as they are written.
        let mut now = clock::now();
        now.wall = Wall::from_unix_millis(now.wall.unix_seconds().saturating_mul(1000));
        let mut console = Console { output, out: &mut out, err: &mut err, input: &mut input, is_attended, now };
        let exit = match command(&mut console) {
            Ok(exit) => exit,
            Err(failure) => {
                console.mark("error", "31", &failure.message);
                failure.exit
            }
        };
        match (exit, console.out.flush()) {
            (Exit::Done, Err(error)) if !is_reader_gone(&error) => {
                console.mark("error", "31", &format!("cannot write to standard output: {error}"));
                Exit::Failed
            }
            _ => exit,
        }
    }

    /// Says something to whoever types.
    pub(crate) fn say(&mut self, text: impl Display) {
        // Whoever closed standard error does not want to hear it.
        let _ = writeln!(self.err, "{text}");
    }

    /// Warns whoever types.
    pub(crate) fn warn(&mut self, text: impl Display) {
        self.mark("warning", "33", &text);
    }

    /// Tells faults of a file that do not stop the command.
    pub(crate) fn tell(&mut self, file: &Path, faults: &[Fault]) {
        for fault in faults {
            let fault = fault.clone().in_file(file);
            match fault.severity {
                Severity::Error => self.mark("error", "31", &fault),
                // It says itself that it is one.
                Severity::Warning => self.say(&fault),
            }
        }
    }

    fn mark(&mut self, mark: &str, colour: &str, text: &dyn Display) {
        self.say(format_args!("\x1b[1;{colour}m{mark}:\x1b[0m {text}"));
    }

    /// Prints a result. Whoever reads it may have seen enough, as `| head` has: that is no failure.
    pub(crate) fn print(&mut self, text: impl Display) -> Result<(), Failure> {
        self.write(text).or_else(|error| if is_reader_gone(&error) { Ok(()) } else { Err(unwritten(&error)) })
    }

    /// Prints what must reach somebody.
    pub(crate) fn hand_over(&mut self, text: impl Display) -> Result<(), Failure> {
        self.write(text).map_err(|error| unwritten(&error))
    }

    fn write(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.out, "{text}").and_then(|()| self.out.flush())
    }

    /// Prints a JSON value.
    pub(crate) fn print_json(&mut self, value: &serde_json::Value) -> Result<(), Failure> {
        self.print(format_args!("{value:#}"))
    }

    /// Has a name typed before something is done that cannot be undone.
    pub(crate) fn confirm(&mut self, question: &str, name: &str) -> Result<(), Failure> {
        if !self.is_attended {
            return Err(Failure::new(format!(
                "{question}\nthere is no terminal to ask at: say --yes if that is meant"
            )));
        }
        let _ = write!(self.err, "{question}\nType {name} to go on: ");
        let _ = self.err.flush();
        let mut typed = String::new();
        self.input.read_line(&mut typed).map_err(|error| Failure::of(&error))?;
        if typed.trim() == name { Ok(()) } else { Err(Failure::new("that is not the name; nothing was done")) }
    }
}
