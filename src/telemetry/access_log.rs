//! The access log: one line a request, on standard output.
//!
//! The line is formatted by hand into a buffer of the serving thread. No secret and no query ever stands in it.

mod line;

pub use line::Line;

use std::{cell::RefCell, str::FromStr};

use super::{Outcome, Output, log::Format};

/// Which requests are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// All of them.
    #[default]
    All,
    /// Those that were not simply allowed: refused, observed, failed.
    Refused,
    /// None.
    Off,
}

impl FromStr for Access {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            "refused" => Ok(Self::Refused),
            "off" => Ok(Self::Off),
            _ => Err("expected \"all\", \"refused\" or \"off\""),
        }
    }
}

/// Writes access lines. Cheap to clone; clones share the output.
#[derive(Clone, Debug)]
pub struct AccessLog {
    output: Output,
    format: Format,
    access: Access,
}

impl AccessLog {
    /// A log of these requests, in this format, to this output.
    pub fn new(output: Output, format: Format, access: Access) -> Self {
        Self { output, format, access }
    }

    /// Whether a request with this outcome is logged: ask before gathering what the line needs.
    pub fn wants(&self, outcome: Outcome) -> bool {
        match self.access {
            Access::All => true,
            Access::Refused => outcome != Outcome::Allowed,
            Access::Off => false,
        }
    }

    /// Logs a request, if it is one of those that are logged. Never blocks on the reader of the log.
    pub fn write(&self, line: &Line<'_>) {
        thread_local! {
            static BUFFER: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(1024));
        }
        if !self.wants(line.outcome) {
            return;
        }
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            line.format(self.format, buffer);
            self.output.push(buffer);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(access: Access, expected: [bool; Outcome::ALL.len()]) {
        let output = Output::new("test", std::io::sink()).unwrap();
        let log = AccessLog::new(output, Format::Json, access);
        assert_eq!(Outcome::ALL.map(|outcome| log.wants(outcome)), expected);
    }

    #[test]
    fn what_is_logged_is_chosen_by_outcome() {
        check(Access::All, [true; 4]);
        check(Access::Refused, [false, true, true, true]);
        check(Access::Off, [false; 4]);
    }
}
