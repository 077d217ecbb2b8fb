//! The exit statuses, in one place, for scripts that read them.

use std::process::{ExitCode, Termination};

/// The exit status of every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It was done.
    Done = 0,
    /// It failed or was refused.
    Failed = 1,
    /// The command line is wrong; the parser of arguments exits with it too.
    Usage = 2,
    /// A configuration or key file is wrong (EX_CONFIG of sysexits.h).
    Misconfigured = 78,
}

impl Exit {
    /// All of them with what they mean, for the manual page.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Done, "It was done."),
        (Self::Failed, "It failed or was refused; for health: not alive or not ready."),
        (Self::Usage, "The command line is wrong."),
        (Self::Misconfigured, "A configuration or key file is wrong; all faults are reported at once."),
    ];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        self.into()
    }
}
