//! `keyside init --control`: what a control plane needs to start.

use std::path::Path;

use super::{File, Written, commented_out, issue, place, write_all};
use crate::{clock::Wall, config::control::DEFAULT, keys::mint};

/// Writes all files or none.
pub(super) fn init(dir: &Path, preset: Option<&str>, hosts: &[String], now: Wall) -> Result<Written, String> {
    let mut names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    names.extend(hosts.iter().filter(|host| !["localhost", "127.0.0.1", "::1"].contains(&host.as_str())).cloned());
    let random = |prefix| mint::random_token(prefix).map(|token| token + "\n").map_err(|error| error.to_string());
    let file = |name, text: String, mode| File { name, text: text.into_bytes(), mode };
    let mut files = vec![
        file("control.toml", configuration(preset), 0o644),
        file("sync-tokens", random("")?, 0o600),
        file("gateway", random("Bearer ")?, 0o600),
        file("admin-token", random("kop_")?, 0o600),
    ];
    files.extend(issue(&names, now)?);
    let paths = write_all(dir, &files)?;
    Ok(Written { paths, next: next_steps(dir, preset, &names) })
}

/// The commented default with every default commented out, and with what this folder needs switched on.
fn configuration(preset: Option<&str>) -> String {
    let head = "\
# The configuration of Keyside's control plane.
#
# A setting that begins with \"#\" and no space is a default, or an example of what is off by default. Take the \"#\" away
# and change it.
";
    let body = DEFAULT.split_once("# Every setting can come").map_or(DEFAULT, |(_, body)| body);
    let mut text = format!("{head}# Every setting can come");
    for line in body.split_inclusive('\n') {
        text.push_str(&commented_out(line));
    }
    let mut replace = |from: &str, to: &str| {
        debug_assert_eq!(text.matches(from).count(), 1, "{from}");
        text = text.replacen(from, to, 1);
    };
    replace("#address = \"127.0.0.1:8444\" ", "address = \"127.0.0.1:8444\"  ");
    replace("#[listen.tls] ", "[listen.tls]  ");
    replace("#certificate = \"tls/tls.crt\"", "certificate = \"tls/tls.crt\"");
    replace("#private_key = \"tls/tls.key\"", "private_key = \"tls/tls.key\"");
    replace("#tokens = { file = \"sync-tokens\" } ", "tokens = { file = \"sync-tokens\" }  ");
    replace("#gateway = { file = \"gateway\" } ", "gateway = { file = \"gateway\" }  ");
    replace("#token = { file = \"admin-token\" } ", "token = { file = \"admin-token\" }  ");
    if let Some(preset) = preset {
        replace("#names = [] ", &format!("names = [\"{preset}\"] "));
    }
    text
}

fn next_steps(dir: &Path, preset: Option<&str>, names: &[String]) -> String {
    // To be pasted into a file elsewhere.
    let path = |name: &str| {
        let path = dir.join(name);
        place::word(&std::path::absolute(&path).unwrap_or(path))
    };
    let (file, ca, tokens, admin) =
        (path("control.toml"), path("tls/ca.crt"), path("sync-tokens"), path("admin-token"));
    let presets = match preset {
        Some(_) => "",
        None => " Say in [presets] what kinds of keys there are.",
    };
    let names = names.join(", ");
    format!(
        "Next:
  1. keyside control --config {file}
  2. Open the link that it prints, and choose a name and a password.{presets} Or, in a shell:
     keyside keys list --control https://localhost:8444 --ca {ca} --token-file {admin}
  3. In the keyside.toml of each sidecar, in place of [keys] file:
       [keys]
       control = {{ url = \"https://localhost:8444\", token = {{ file = \"{tokens}\" }}, ca = \"{ca}\" }}

The certificate is for development: it names {names} alone; `--host NAME` adds names. Before production, put your own in \
         its place, and copy the token to the sidecars as a secret."
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, config};

    #[track_caller]
    fn check(preset: Option<&str>, offered: &str) {
        let folder = tempfile::tempdir().unwrap();
        let written = init(folder.path(), preset, &["keys.internal".to_owned()], clock::now().wall).unwrap();
        assert_eq!(written.paths.len(), 7);
        let loaded = config::control::load(&folder.path().join("control.toml"), []);
        let loaded = loaded.unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(loaded.warnings, []);
        assert_eq!((loaded.settings.sync.tokens.len(), loaded.settings.sync.gateway.is_some()), (1, true));
        assert_eq!(loaded.settings.offers[0].name, offered);
        assert!(init(folder.path(), preset, &[], clock::now().wall).is_err_and(|why| why.contains("exists already")));
    }

    #[test]
    fn what_is_written_is_a_configuration() {
        check(None, "keyside");
        for preset in config::preset_names() {
            check(Some(preset), preset);
        }
    }
}
