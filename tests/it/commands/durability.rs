//! What a command has acknowledged is on disk, in an order in which a power cut leaves the old file or the new one.

use std::process::Command;

use super::Desk;
use crate::harness::{executable, run};

/// What a traced command did that matters: `fsync NAME`, `rename NAME`, `print`.
fn steps(trace: &str) -> Vec<String> {
    // With --decode-fds each descriptor is followed by its path: fsync(4</folder/.keys.toml.x.tmp>).
    let name = |text: &str| text.rsplit('/').next().unwrap_or_default().trim_end_matches(['>', '"']).to_owned();
    trace
        .lines()
        .filter_map(|line| {
            let call = line.split_once(' ')?.1.trim_start();
            let (call, arguments) = call.split_once('(')?;
            let arguments = arguments.rsplit_once(')')?.0;
            match call {
                "fsync" | "fdatasync" => Some(format!("fsync {}", name(arguments))),
                "rename" | "renameat" | "renameat2" => {
                    let quoted: Vec<&str> = arguments.split('"').skip(1).step_by(2).collect();
                    Some(format!("rename {} {}", name(quoted.first()?), name(quoted.get(1)?)))
                }
                "write" if arguments.starts_with("1<") => Some("print".to_owned()),
                _ => None,
            }
        })
        .collect()
}

/// The content is on disk before the name points to it, the name before anything is said (fsync(2), rename(2)).
#[tokio::test]
async fn what_is_said_is_on_disk() {
    let desk = Desk::new();
    desk.write("keys.toml", "");
    desk.run(&["owners", "create", "acme"]).await.done();
    let create = ["keys", "create", "--owner", "acme", "--scope", "read", "--name", "one"];
    desk.run(&create).await.done();
    let folder = desk.path("").file_name().unwrap().to_str().unwrap().to_owned();
    let commands: [&[&str]; 5] = [
        &["keys", "create", "--owner", "acme", "--scope", "read", "--name", "two"],
        &["keys", "rotate", "one", "--overlap", "1h"],
        &["keys", "revoke", "two"],
        &["keys", "delete", "two", "--yes"],
        &["owners", "suspend", "acme"],
    ];
    for arguments in commands {
        let mut traced = Command::new("strace");
        traced.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        traced.args(["-f", "--decode-fds=path", "-e", "trace=fsync,fdatasync,rename,renameat,renameat2,write", "-o"]);
        traced.arg(desk.path("trace")).arg(executable().get_program());
        traced.args(arguments).arg("--file").arg(desk.path("keys.toml"));
        run(traced, "").await.done();
        let steps = steps(&std::fs::read_to_string(desk.path("trace")).unwrap());
        let at = |is: &dyn Fn(&str) -> bool| steps.iter().position(|step| is(step));
        let content = at(&|step| step.starts_with("fsync .keys.toml."));
        let renamed = at(&|step| step.starts_with("rename .keys.toml.") && step.ends_with(" keys.toml"));
        let named = at(&|step| step == format!("fsync {folder}"));
        let in_order = content.is_some() && content < renamed && renamed < named;
        assert!(in_order, "{arguments:?}: {steps:?}");
        assert!(at(&|step| step == "print").is_none_or(|said| Some(said) > named), "{arguments:?}: {steps:?}");
    }
}
