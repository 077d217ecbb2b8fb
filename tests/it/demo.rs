//! `keyside demo`: what it prints does what it says, in any order and again; and it leaves nothing behind.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::{Ended, Lines, eventually, executable, run};

/// A running demo.
struct Demo {
    child: Child,
    printed: Lines,
    said: Lines,
    /// Where it makes its temporary folder.
    temporary: TempDir,
}

impl Demo {
    /// Starts it and waits until it has printed what to paste.
    async fn start(more: &[&str]) -> Self {
        let temporary = TempDir::with_prefix("keyside-it-").unwrap();
        let mut command = executable();
        command.args(["demo", "--port", "0", "--admin-port", "0"]).args(more).env("TMPDIR", temporary.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let printed = Lines::of(child.stdout.take().unwrap());
        let said = Lines::of(child.stderr.take().unwrap());
        let demo = Self { child, printed, said, temporary };
        demo.printed.find("how to end the demo", |line| line.contains("Ctrl-C").then_some(())).await;
        demo
    }

    /// The lines to paste, each with the status that it claims.
    fn lines(&self) -> Vec<(u16, String)> {
        let all = self.printed.all();
        let claimed = |comment: &str| comment.strip_prefix("# ")?.split(':').next()?.parse().ok();
        let pairs = all.windows(2).filter_map(|pair| Some((claimed(&pair[0])?, pair[1].clone())));
        pairs.filter(|(_, line)| line.starts_with("curl ")).collect()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    async fn ended(&mut self) -> i32 {
        let status = eventually("the demo to end", async || self.child.try_wait().unwrap().ok_or("it runs")).await;
        status.code().unwrap_or(-1)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Pastes a line into a shell.
async fn paste(line: &str) -> Ended {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    // As a developer's shell may have it: the demo is on this machine all the same.
    shell.env("https_proxy", "http://127.0.0.1:1").env("HTTPS_PROXY", "http://127.0.0.1:1");
    run(shell, "").await
}

#[tokio::test]
async fn every_printed_line_does_what_it_says_in_any_order_and_again() {
    let mut demo = Demo::start(&[]).await;
    let lines = demo.lines();
    let claimed: Vec<u16> = lines.iter().map(|(status, _)| *status).collect();
    for status in [200, 401, 403, 429] {
        assert!(claimed.contains(&status), "{status}: {claimed:?}");
    }
    assert!(claimed.iter().filter(|status| **status == 403).count() >= 2, "by scope and by address: {claimed:?}");
    for (status, line) in lines.iter().chain(lines.iter().rev()) {
        // A slow hash on a machine that is busy with other things: "try again", it says.
        let (ended, last) = eventually("a machine that is less busy", async || {
            let ended = paste(line).await.done();
            let last = ended.stdout.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned();
            if last == "503" { Err(ended) } else { Ok((ended, last)) }
        })
        .await;
        assert_eq!(last, status.to_string(), "{line}\n{}", ended.stdout);
    }
    // The sample tells what reached it: the owner, and not the secret.
    let (_, line) = lines.iter().find(|(status, _)| *status == 200).unwrap();
    let answer = paste(line).await.stdout;
    assert!(answer.contains("svc-accounting") && answer.to_lowercase().contains("x-key-owner"), "{answer}");
    assert!(!answer.contains("cs_") && !answer.to_lowercase().contains("\"authorization\""), "{answer}");

    demo.signal(Signal::INT);
    assert_eq!(demo.ended().await, 0);
    let left: Vec<_> = std::fs::read_dir(demo.temporary.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_ne!(paste(line).await.status, 0, "nobody listens any more");
    assert!(!demo.said.all().iter().any(|line| line.contains("panicked")), "{:?}", demo.said.all());
}

#[tokio::test]
async fn other_ends_leave_nothing_behind_either() {
    for signal in [Signal::TERM, Signal::HUP] {
        let mut demo = Demo::start(&[]).await;
        demo.signal(signal);
        let began = Instant::now();
        demo.ended().await;
        assert!(began.elapsed() < Duration::from_secs(10), "{signal:?}");
        assert_eq!(std::fs::read_dir(demo.temporary.path()).unwrap().count(), 0, "{signal:?}");
    }
}

/// A folder of one's own is kept, and can be run by hand.
#[tokio::test]
async fn a_chosen_folder_is_kept() {
    let kept = TempDir::with_prefix("keyside-it-").unwrap();
    let folder = kept.path().join("demo");
    let mut demo = Demo::start(&["--dir", folder.to_str().unwrap()]).await;
    let (_, line) = demo.lines().into_iter().find(|(status, _)| *status == 200).unwrap();
    assert!(line.contains(folder.to_str().unwrap()), "{line}");
    paste(&line).await.done();
    demo.signal(Signal::INT);
    assert_eq!(demo.ended().await, 0);
    for name in ["keyside.toml", "keys.toml", "ca.crt"] {
        let found = [folder.join(name), folder.join("tls").join(name)].iter().any(|path| path.is_file());
        assert!(found, "{name}");
    }
    // What it keeps of the keys is hashes.
    let keys = std::fs::read_to_string(folder.join("keys.toml")).unwrap();
    assert!(!keys.contains("cs_") && keys.contains("hash = "), "{keys}");
    // It is not written over.
    let mut again = executable();
    again.args(["demo", "--port", "0", "--admin-port", "0", "--dir", folder.to_str().unwrap()]);
    let ended = run(again, "").await;
    assert_eq!(ended.status, 1, "{ended:?}");
}

/// With a control plane: the lines are pasted in their order, since one of them revokes.
#[tokio::test]
async fn a_control_plane_and_two_sidecars_do_what_the_lines_say() {
    let mut demo = Demo::start(&["--control", "--control-port", "0"]).await;
    let lines = demo.lines();
    let claimed: Vec<u16> = lines.iter().map(|(status, _)| *status).collect();
    assert_eq!(claimed, [200, 200, 200, 200, 201, 200, 401, 401]);
    for (status, line) in &lines {
        let ended = paste(line).await.done();
        let mut said = ended.stdout.lines().rev();
        assert_eq!(said.next().map(str::trim), Some(&*status.to_string()), "{line}\n{}", ended.stdout);
        if line.contains("-X DELETE") {
            let receipt: serde_json::Value = serde_json::from_str(said.next().unwrap()).unwrap();
            assert_eq!(receipt["data"]["acknowledged"].as_array().unwrap().len(), 2, "{receipt}");
            assert_eq!(receipt["data"]["pending"], serde_json::json!([]));
        }
    }
    demo.signal(Signal::INT);
    assert_eq!(demo.ended().await, 0, "{:?}", demo.said.all());
    assert_eq!(std::fs::read_dir(demo.temporary.path()).unwrap().count(), 0, "nothing is left behind");
}
