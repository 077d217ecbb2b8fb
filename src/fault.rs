//! A fault in a file that a person wrote: where it is, the line itself, and what to do about it.
//!
//! Configuration and key file report all their faults at once, in this one shape. What a machine says went wrong is told
//! with all its causes.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// An error and its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Whether a fault stops what is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It will surprise, but works.
    Warning,
    /// It is not accepted.
    Error,
}

/// One fault of a text, with its place. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file; none for what came from elsewhere (the environment, a preset).
    pub file: Option<PathBuf>,
    /// The line; 0 when the fault has no place.
    pub line: usize,
    /// The column; 0 when the fault is of the line as a whole.
    pub column: usize,
    /// The line itself; empty when it must not be shown, for lines that hold a hash are not for a terminal or a log.
    pub source_line: String,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What would be right.
    pub suggestion: Option<String>,
    /// Whether it is an error.
    pub severity: Severity,
}

impl Fault {
    /// An error without a place.
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            file: None,
            line: 0,
            column: 0,
            source_line: String::new(),
            message: message.into(),
            suggestion: None,
            severity: Severity::Error,
        }
    }

    /// A warning without a place.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// The same fault, in this file.
    #[must_use]
    pub fn in_file(mut self, file: &Path) -> Self {
        self.file = Some(file.to_path_buf());
        self
    }

    /// The same fault, at a byte offset of this text, whose line is shown.
    #[must_use]
    pub fn at(mut self, text: &str, offset: usize) -> Self {
        (self.line, self.column) = place(text, offset);
        self.source_line = line_at(text, offset).to_owned();
        self
    }

    /// The same fault, with advice.
    #[must_use]
    pub fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// Whether it is an error rather than a warning.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// As compilers write it, one place a line, the line itself and a caret below:
///
/// ```text
/// keys.toml:12:1: unknown field `scope`
///    |
/// 12 | scope = ["read"]
///    | ^
///    = help: did you mean `scopes`?
/// ```
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
        }
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
            if self.column > 0 {
                write!(f, "{}:", self.column)?;
            }
        }
        if self.file.is_some() || self.line > 0 {
            f.write_str(" ")?;
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        f.write_str(&self.message)?;
        let number = self.line.to_string();
        let margin = number.len();
        if self.line > 0 && !self.source_line.is_empty() {
            write!(f, "\n{:margin$} |\n{number} | {}", "", printable(&self.source_line))?;
            if self.column > 0 {
                write!(f, "\n{:margin$} | {:>column$}", "", "^", column = self.column)?;
            }
        }
        if let Some(suggestion) = &self.suggestion {
            write!(f, "\n{:margin$} = help: {suggestion}", "")?;
        }
        Ok(())
    }
}

/// The line and column of a byte offset, both from 1.
pub fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..floor(text, offset)];
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    (line, before[start..].chars().count() + 1)
}

/// The line, without its end, that holds a byte offset.
pub fn line_at(text: &str, offset: usize) -> &str {
    let offset = floor(text, offset);
    let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
    let end = text[offset..].find('\n').map_or(text.len(), |at| offset + at);
    text[start..end].trim_end_matches('\r')
}

/// The nearest of `known` to what was typed, when it is near enough to be what was meant.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // One slip of the fingers is always near, also in a short name, where it is much of the name.
    let likeness = |name| match strsim::damerau_levenshtein(typed, name) {
        0 | 1 => 0.99,
        _ => strsim::jaro_winkler(typed, name),
    };
    known
        .into_iter()
        .map(|name| (likeness(name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name)
}

/// A line that no terminal takes for commands: tabs and control characters become spaces, one for one.
fn printable(line: &str) -> String {
    line.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

fn floor(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fault: &Fault, expected: &str) {
        assert_eq!(fault.to_string(), expected);
    }

    #[test]
    fn a_fault_shows_its_line_and_a_caret() {
        let text = "a = 1\nscope = [\"read\"]\n";
        let fault = Fault::error("unknown field `scope`")
            .at(text, 6)
            .in_file(Path::new("keys.toml"))
            .suggest("did you mean `scopes`?");
        check(
            &fault,
            "keys.toml:2:1: unknown field `scope`\n  |\n2 | scope = [\"read\"]\n  | ^\n  = help: did you mean `scopes`?",
        );
    }

    #[test]
    fn a_fault_without_place_is_its_message() {
        check(&Fault::warning("no keys yet"), "warning: no keys yet");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        check(&Fault::error("odd").at("\x1b[31mred = 1", 5), "1:6: odd\n  |\n1 |  [31mred = 1\n  |      ^");
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(place("é = x", 3), (1, 3));
        assert_eq!(place("a\nb", 99), (2, 2));
    }

    #[test]
    fn only_near_names_are_suggested() {
        assert_eq!(nearest("scope", ["scopes", "owner"]), Some("scopes"));
        assert_eq!(nearest("kye", ["owner", "key"]), Some("key"));
        assert_eq!(nearest("zebra", ["scopes", "owner"]), None);
    }
}
