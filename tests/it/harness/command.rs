//! The executable, for commands that end by themselves.

use std::{
    ffi::OsStr,
    io::Write as _,
    process::{Command, Stdio},
};

use super::within;

/// What a command left behind.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// What it printed on standard output, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|fault| panic!("{fault}: {self:?}"))
    }

    /// Itself, where the command did what it was told.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.status, 0, "{}\n{}", self.stdout, self.stderr);
        self
    }
}

/// The executable with an environment that holds nothing of the machine's but the path.
pub(crate) fn executable() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyside"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// Runs `keyside` with these arguments.
pub(crate) async fn keyside<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ended {
    keyside_with_input(arguments, "").await
}

/// Runs `keyside` with these arguments and this standard input.
pub(crate) async fn keyside_with_input<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>, input: &str) -> Ended {
    let mut command = executable();
    command.args(arguments);
    run(command, input).await
}

/// Runs a command to its end, off the test's thread: the upstream goes on meanwhile.
pub(crate) async fn run(mut command: Command, input: &str) -> Ended {
    let input = input.to_owned();
    let what = format!("{command:?}");
    let run = tokio::task::spawn_blocking(move || {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that does not read its input closes it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Ended {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    });
    within(&what, run).await.unwrap()
}
