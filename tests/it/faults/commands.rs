//! Commands that are killed, and commands at once: what was acknowledged is there, and the key file is always whole.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::Numbers;
use crate::harness::{executable, keyside};

/// All keys of a file by their ids, as `keys list` shows them: it reads the file as a sidecar does.
fn keys(file: &Path) -> BTreeMap<String, Value> {
    let output = executable().args(["keys", "list", "--output", "json", "--file"]).arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}{}", text, String::from_utf8_lossy(&output.stderr));
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
    rows.into_iter().map(|row| (row["id"].as_str().unwrap().to_owned(), row)).collect()
}

fn command(file: &Path, words: &[&str]) -> Command {
    let mut command = executable();
    command.args(words).args(["--output", "json", "--file"]).arg(file);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn create(file: &Path, name: &str) -> Command {
    command(file, &["keys", "create", "--name", name, "--owner", "acme", "--scope", "read"])
}

/// Runs it to its end; how long it took.
fn done(mut command: Command) -> Duration {
    let began = Instant::now();
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    began.elapsed()
}

/// Kills it after this time; or as soon as it has begun to write, if there is none.
fn kill(child: &mut Child, after: Option<Duration>, folder: &Path) {
    match after {
        Some(after) => thread::sleep(after),
        None => {
            let writes = || fs::read_dir(folder).unwrap().any(|entry| is_temporary(&entry.unwrap().file_name()));
            while !writes() && child.try_wait().unwrap().is_none() {
                std::hint::spin_loop();
            }
        }
    }
    // It may have ended.
    let _ = child.kill();
}

fn is_temporary(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().ends_with(".tmp")
}

/// 200 commands, killed at any moment. Each is done as a whole or not at all, and whoever was told that it is done was
/// told the truth.
#[test]
fn a_command_that_is_killed_is_done_or_not() {
    const ROUNDS: usize = 200;
    let folder = TempDir::with_prefix("keyside-it-").unwrap();
    let file = folder.path().join("keys.toml");
    for number in 0..3 {
        done(create(&file, &format!("first-{number}")));
    }
    // The time in which each is killed, in microseconds: longer when few are done, shorter when many are.
    let first = done(create(&file, "measure")).as_micros() as u64;
    let mut within = BTreeMap::from(["create", "revoke", "delete", "rotate"].map(|verb| (verb, first)));
    let mut random = Numbers(7);
    let (mut acknowledged, mut undone, mut half) = (0, 0, 0);
    let mut before = keys(&file);
    for round in 0..ROUNDS {
        let living: Vec<String> =
            before.iter().filter(|(_, row)| row["status"] == "active").map(|(id, _)| id.clone()).collect();
        let target = living.get(random.below(living.len() as u64) as usize).cloned().unwrap_or_default();
        // With few keys, only what makes new ones.
        let verb = match round % 4 {
            1 if living.len() > 3 => "revoke",
            2 if living.len() > 3 => "delete",
            3 if !living.is_empty() => "rotate",
            _ => "create",
        };
        let mut running = match verb {
            "create" => create(&file, &format!("round-{round}")),
            "delete" => command(&file, &["keys", "delete", &target, "--yes"]),
            _ => command(&file, &["keys", verb, &target]),
        }
        .spawn()
        .unwrap();
        let after = Duration::from_micros(random.below(within[verb]));
        kill(&mut running, (round % 5 > 0).then_some(after), folder.path());
        let output = running.wait_with_output().unwrap();
        let told = output.status.success() || serde_json::from_slice::<Value>(&output.stdout).is_ok();
        half += usize::from(fs::read_dir(folder.path()).unwrap().any(|left| is_temporary(&left.unwrap().file_name())));

        let now = keys(&file);
        let row = format!("round {round}: {verb} {target}, told {told}:\n{before:#?}\n{now:#?}");
        let new: Vec<&Value> = now.iter().filter(|(id, _)| !before.contains_key(*id)).map(|(_, row)| row).collect();
        let is_done = match verb {
            "create" => !new.is_empty(),
            "revoke" => now[&target]["status"] == "revoked",
            "delete" => !now.contains_key(&target),
            _ => new.len() == 1 && new[0]["rotated_from"] == target.as_str(),
        };
        assert!(is_done || !told, "lost: {row}");
        assert!(is_done || now == before, "half done: {row}");
        assert_eq!(new.len(), usize::from(is_done && matches!(verb, "create" | "rotate")), "{row}");
        let others_stay = before.iter().filter(|(id, _)| **id != target).all(|(id, old)| now.get(id) == Some(old));
        assert!(others_stay, "{row}");
        if verb == "rotate" && is_done {
            assert!(now[&target]["expires_at"].is_string(), "{row}");
        }
        within.insert(verb, if is_done { within[verb] * 4 / 5 } else { within[verb] * 5 / 4 }.max(1000));
        acknowledged += usize::from(told);
        undone += usize::from(!is_done);
        before = now;
    }
    // Both happened often enough to mean something.
    assert!(
        acknowledged >= 10 && undone >= 10,
        "{acknowledged} were acknowledged, {undone} not done, {half} left a file"
    );
    println!("{acknowledged} acknowledged, {undone} not done, {half} left a temporary file behind");
    // The next command that writes clears up.
    fs::write(folder.path().join(".keys.toml.aB12.tmp"), "half a fi").unwrap();
    done(create(&file, "last"));
    let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["keys.toml", "keys.toml.lock"]);
}

/// Twenty commands of all kinds at once, again and again, beside readers: each is done, and none undoes another.
#[tokio::test]
async fn twenty_commands_at_once_all_count() {
    let folder = TempDir::with_prefix("keyside-it-").unwrap();
    let file = folder.path().join("keys.toml");
    for round in 0..3 {
        let name = |verb: &str, number: usize| format!("{verb}-{round}-{number}");
        for verb in ["revoke", "delete", "rotate"] {
            for number in 0..5 {
                done(create(&file, &name(verb, number)));
            }
        }
        let before = keys(&file);
        let mut running = Vec::new();
        for number in 0..5 {
            running.push(create(&file, &name("create", number)));
            running.push(command(&file, &["keys", "revoke", &name("revoke", number)]));
            running.push(command(&file, &["keys", "delete", &name("delete", number), "--yes"]));
            running.push(command(&file, &["keys", "rotate", &name("rotate", number)]));
        }
        let mut running: Vec<Child> = running.iter_mut().map(|command| command.spawn().unwrap()).collect();
        // A reader sees whole versions only.
        while running.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
            keys(&file);
        }
        for child in running {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let now = keys(&file);
        // Five new ones, five rotated, five gone.
        assert_eq!(now.len(), before.len() + 5, "round {round}");
        for number in 0..5 {
            let named = |verb: &str| -> Vec<&Value> {
                now.values().filter(|row| row["name"] == name(verb, number).as_str()).collect()
            };
            assert_eq!(named("create").len(), 1, "round {round}");
            assert_eq!(named("revoke")[0]["status"], "revoked", "round {round}");
            assert_eq!(named("delete").len(), 0, "round {round}");
            assert_eq!(named("rotate").len(), 2, "round {round}: {:?}", named("rotate"));
        }
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(&format!("keys = {}\n", now.len())), "round {round}");
    }
    let config = folder.path().join("keyside.toml");
    fs::write(&config, "[listen]\nplaintext = true\n[upstream]\nurl = \"http://127.0.0.1:1\"\n").unwrap();
    keyside(["check", "--config", config.to_str().unwrap()]).await.done();
}
