//! `keyside man`: the manual page of the whole tree of commands, with exit status and refusals.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use clap::{Command, CommandFactory as _};

use super::{Cli, Exit};
use crate::rejection;

/// Print the manual page: every command, the exit status, the signals and the table of refusals.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write one page per command into this folder instead.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Exit {
    let done = match &args.dir {
        Some(dir) => std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir)),
        None => page().and_then(|page| io::stdout().write_all(&page)),
    };
    match done {
        Ok(()) => Exit::Done,
        // A reader that has seen enough, as `| head` has.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            anstream::eprintln!("keyside man: {error}");
            Exit::Failed
        }
    }
}

/// The page in roff.
fn page() -> io::Result<Vec<u8>> {
    let mut command = Cli::command();
    // Names of options and usages are known only then.
    command.build();
    let man = clap_mangen::Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut roff = Roff(String::new());
    roff.section("COMMANDS");
    for subcommand in visible(&command) {
        describe(subcommand, &mut roff);
    }
    roff.section("EXIT STATUS");
    for (exit, meaning) in Exit::ALL {
        roff.item(&(exit as u8).to_string(), meaning);
    }
    roff.section("SIGNALS");
    roff.item(
        "SIGTERM, SIGINT",
        "Drain: readiness fails at once, new work is taken for shutdown.delay, and what runs may finish within \
         shutdown.grace. A second signal ends the process at once.",
    );
    roff.item("SIGHUP", "Reload configuration, keys and certificates, all or nothing.");
    roff.section("ENVIRONMENT");
    roff.item(
        "KEYSIDE_SECTION__FIELD",
        "Overrides a value of the configuration; two underscores go one level down, as in KEYSIDE_LISTEN__ADDRESS.",
    );
    roff.item("KEYSIDE_PRESET", "Overrides the preset.");
    roff.item("RUST_LOG", "Which of its own events the sidecar logs; info by default. No level prints secrets.");
    roff.section("REFUSALS");
    roff.text(
        "What a refused caller gets, in the order in which a request is judged: the status and the code. In brackets \
         the reason that metrics and logs show.",
    );
    for row in rejection::TABLE {
        roff.item(&format!("{} {} [{}]", row.status, row.code, row.label), row.sentence);
    }
    page.extend_from_slice(roff.0.as_bytes());
    man.render_version_section(&mut page)?;
    Ok(page)
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

/// A command, its options, and the commands below it.
fn describe(command: &Command, roff: &mut Roff) {
    let usage = command.clone().render_usage().to_string();
    roff.subsection(usage.strip_prefix("Usage: ").unwrap_or(&usage));
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        roff.text(&about.to_string());
    }
    for argument in command.get_arguments() {
        let inherited = matches!(argument.get_id().as_str(), "help" | "version");
        if argument.is_hide_set() || inherited {
            continue;
        }
        let help = argument.get_long_help().or_else(|| argument.get_help()).map(ToString::to_string);
        let mut help = help.unwrap_or_default();
        let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if !defaults.is_empty() && argument.get_action().takes_values() {
            help.push_str(&format!(" [default: {}]", defaults.join(", ")));
        }
        roff.item(&argument.to_string(), &help);
    }
    for subcommand in visible(command) {
        describe(subcommand, roff);
    }
}

/// The few requests of roff that a page needs (man(7)).
struct Roff(String);

impl Roff {
    fn section(&mut self, title: &str) {
        self.line(&format!(".SH {}", argument(title)));
    }

    fn subsection(&mut self, title: &str) {
        self.line(&format!(".SS {}", argument(title)));
    }

    fn item(&mut self, term: &str, text: &str) {
        self.line(".TP");
        self.line(&format!("\\fB{}\\fR", escaped(term)));
        self.lines(text);
    }

    fn text(&mut self, text: &str) {
        self.line(".PP");
        self.lines(text);
    }

    fn lines(&mut self, text: &str) {
        for line in text.lines() {
            match line.trim() {
                "" => self.line(".PP"),
                line => {
                    let escaped = escaped(line);
                    // A line that begins with a control character is a request.
                    let guard = if escaped.starts_with(['.', '\'']) { "\\&" } else { "" };
                    self.line(&format!("{guard}{escaped}"));
                }
            }
        }
    }

    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// An argument of a request: one line, quoted.
fn argument(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("\"{}\"", escaped(&text).replace('"', "\\(dq"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_command_status_and_reason() {
        let page = String::from_utf8(page().unwrap()).unwrap();
        for command in visible(&Cli::command()) {
            assert!(page.contains(&format!(".SS \"keyside {}", command.get_name())), "{}", command.get_name());
        }
        for row in rejection::TABLE {
            assert!(page.contains(row.sentence) || page.contains(&escaped(row.sentence)), "{}", row.label);
            assert!(page.contains(&format!("[{}]", row.label)), "{}", row.label);
        }
        assert!(page.contains("\\fB78\\fR"));
        assert!(page.lines().all(|line| line.is_ascii() || !line.starts_with('.')));
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let mut roff = Roff(String::new());
        roff.lines(text);
        assert_eq!(roff.0, expected);
    }

    #[test]
    fn text_is_never_taken_for_a_request() {
        check(".SH not a title\n'nor this\na\\b --dash", "\\&.SH not a title\n\\&'nor this\na\\eb \\-\\-dash\n");
    }
}
