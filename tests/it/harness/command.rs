//! The executable, for commands that end by themselves.

use std::{
    ffi::OsStr,
    io::Write as _,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::{eventually, within};

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

/// The same, run by another program: one that takes the executable and its arguments as its last words and becomes it.
pub(crate) fn executable_through(words: &[String]) -> Command {
    let Some((program, rest)) = words.split_first() else { return executable() };
    let mut command = Command::new(program);
    command.args(rest).arg(env!("CARGO_BIN_EXE_keyside"));
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

/// Runs a command to its end, off the test's thread: the upstream goes on meanwhile. One that takes too long, or that
/// nobody waits for any more, is killed with all that it has started.
pub(crate) async fn run(mut command: Command, input: &str) -> Ended {
    let input = input.to_owned();
    let what = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap_or_else(|fault| panic!("{what}: {fault}"));
    let group = Group(Pid::from_child(&child));
    let run = tokio::task::spawn_blocking(move || {
        // A command that does not read its input closes it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Ended {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    });
    let ended = within(&what, run).await.unwrap();
    // It has been waited for, so that its number may be another's by now.
    std::mem::forget(group);
    ended
}

/// A process that has not been waited for, and what it has started: killed together when this is dropped.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // All of them may have gone by themselves.
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

#[tokio::test]
async fn a_command_that_nobody_waits_for_is_killed_with_all_that_it_started() {
    let folder = TempDir::with_prefix("keyside-it-").unwrap();
    let mut shell = Command::new("sh");
    let script = "sleep 1000 & echo \"$$ $!\" > ids.new && mv ids.new ids; trap '' TERM; wait";
    shell.args(["-c", script]).current_dir(folder.path());
    let running = tokio::spawn(async move { run(shell, "").await });
    let ids = eventually("two processes", async || std::fs::read_to_string(folder.path().join("ids"))).await;
    let state = |id: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    };
    let ids: Vec<_> = ids.split_whitespace().collect();
    assert!(ids.len() == 2 && ids.iter().all(|id| state(id).is_some()), "both run: {ids:?}");
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    for id in ids {
        // What has ended may be listed until its new parent has asked for it.
        let gone = async || if matches!(state(id), None | Some('Z')) { Ok(()) } else { Err(state(id)) };
        eventually("the process to be gone", gone).await;
    }
}
