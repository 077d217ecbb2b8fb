//! `deploy/wordpress/README.md`, done as it says: its commands are run, its lines are in `wp-config.php`, its settings
//! are the sidecar's. Only places, ports and users are others, and what would change the machine itself is written down
//! instead.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{getgid, getuid};
use serde_json::Value;

use super::{MANAGER, in_front, key, site::command, wordpress};
use crate::harness::{free_port, get, run};

const README: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/wordpress/README.md"));

/// The blocks of the README, each with its language, in their order.
fn blocks() -> Vec<(&'static str, String)> {
    let mut blocks = Vec::new();
    let mut inside = None;
    for line in README.lines() {
        match (line.trim(), &mut inside) {
            ("```", _) => blocks.extend(inside.take()),
            (fence, None) => {
                inside = fence.strip_prefix("```").map(|language| (language, String::new()));
            }
            // Blocks of a list are indented with it; no language here minds.
            (_, Some((_, block))) => *block += &format!("{}\n", line.trim_start()),
        }
    }
    blocks
}

/// The only block in this language whose text holds this.
#[track_caller]
fn block(language: &str, part: &str) -> String {
    let mut found = blocks();
    found.retain(|(of, block)| *of == language && block.contains(part));
    assert_eq!(found.len(), 1, "blocks of {language} with {part:?}: {found:?}");
    found.remove(0).1
}

/// The text with one thing in it replaced; a README that no longer says it fails here.
#[track_caller]
fn replace(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the README says no {from:?}:\n{text}");
    text.replace(from, to)
}

fn keyside_folder(folder: &Path) -> PathBuf {
    folder.join("etc-keyside")
}

/// A shell that finds `keyside`, and in the place of what changes the machine something that writes down what it was
/// told.
fn shell(folder: &Path, script: &str) -> Command {
    let instead = folder.join("instead");
    std::fs::create_dir_all(&instead).unwrap();
    for name in ["useradd", "systemctl"] {
        let program = instead.join(name);
        std::fs::write(&program, format!("#!/bin/sh\necho \"{name} $*\" >> {:?}\n", folder.join("told"))).unwrap();
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut shell = command("sh");
    let path = shell.get_envs().find_map(|(name, value)| (name == "PATH").then_some(value?.to_owned())).unwrap();
    let built = Path::new(env!("CARGO_BIN_EXE_keyside")).parent().unwrap().to_owned();
    let path = std::env::join_paths([instead, built].into_iter().chain(std::env::split_paths(&path))).unwrap();
    shell.args(["-e", "-c", script]).env("PATH", path);
    shell
}

/// Makes the folder of Keyside with the credential, and puts the plugin in its place: the first two steps.
pub(super) async fn set_up(folder: &Path, root: &Path) {
    let etc = keyside_folder(folder);
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    let first = replace(&block("sh", "keyside init"), "/etc/keyside", etc.to_str().unwrap());
    let first = replace(&first, "chown -R keyside:keyside", &format!("chown -R {user}:{group}"));
    let first = replace(&first, "chgrp www-data", &format!("chgrp {group}"));
    let second = replace(&block("sh", "mu-plugins"), "/var/www/html", root.to_str().unwrap());
    let script = first + &second + &block("sh", "systemctl");
    let mut shell = shell(folder, &format!("umask 022\n{script}"));
    shell.current_dir(env!("CARGO_MANIFEST_DIR"));
    run(shell, "").await.done();
    let modes = [
        (etc.clone(), 0o755),
        (credential_file(folder), 0o640),
        (etc.join("pepper"), 0o600),
        (root.join("wp-content/mu-plugins/keyside.php"), 0o644),
    ];
    for (path, mode) in modes {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode, "{path:?}");
    }
    let told = std::fs::read_to_string(folder.join("told")).unwrap();
    let told: Vec<_> = told.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(told, ["useradd", "systemctl"]);
}

pub(super) fn credential_file(folder: &Path) -> PathBuf {
    keyside_folder(folder).join("upstream-authorization")
}

/// The lines for `wp-config.php`, left out while there is a file `unset` beside it.
pub(super) fn config_lines(folder: &Path) -> String {
    let lines = block("php", "KEYSIDE_AUTHORIZATION");
    assert_eq!(lines.lines().count(), 2, "two lines:\n{lines}");
    let lines = replace(&lines, "/etc/keyside", keyside_folder(folder).to_str().unwrap());
    format!("if (!file_exists(__DIR__ . '/unset')) {{\n{lines}}}\n")
}

/// The settings of Keyside: what the third step changes, and what it adds.
pub(super) fn settings(folder: &Path, url: &str) -> String {
    format!("preset = \"wallet\"\n{}\n{}", upstream(folder, url), routes())
}

fn upstream(folder: &Path, url: &str) -> String {
    let settings = replace(&block("toml", "authorization = "), "http://127.0.0.1:8080", url);
    replace(&settings, "/etc/keyside", keyside_folder(folder).to_str().unwrap())
}

fn routes() -> String {
    block("toml", "\npath = \"/wp-json/wp/v2/**\"")
}

/// The configuration that `init` wrote, changed as the third step says: each line where the setting stands, as a comment
/// or not, and the routes at the end.
fn configuration(written: &str, folder: &Path, url: &str) -> String {
    let (before, section) = written.split_once("\n[upstream]\n").unwrap();
    let (section, after) = section.split_once("\n#[upstream.modes]").unwrap();
    let mut lines: Vec<_> = section.lines().map(str::to_owned).collect();
    let changes = upstream(folder, url);
    let mut were_comments = 0;
    for change in changes.strip_prefix("[upstream]\n").unwrap().lines() {
        let setting = format!("{} = ", change.split_once(" = ").unwrap().0);
        let mut places = lines.iter_mut().filter(|line| line.trim_start_matches('#').starts_with(&setting));
        let place = places.next().unwrap_or_else(|| panic!("no {setting:?} in {section}"));
        assert!(places.next().is_none(), "{setting:?} is there twice: {section}");
        were_comments += usize::from(place.starts_with('#'));
        *place = change.to_owned();
    }
    assert_eq!(were_comments, 2, "{section}");
    format!("{before}\n[upstream]\n{}\n#[upstream.modes]{after}\n{}", lines.join("\n"), routes())
}

/// Every block is used by a test here, but for the setting of a web server that is not there.
#[test]
fn the_readme_has_no_other_blocks() {
    let languages: Vec<_> = blocks().into_iter().map(|(language, _)| language).collect();
    let steps = ["sh", "sh", "php", "apache", "sh", "toml", "toml", "sh", "sh"];
    assert_eq!(languages, [&steps[..], &["toml"]].concat());
    assert_eq!(block("apache", ""), "CGIPassAuth On\n");
}

/// From what `init` wrote to a 200, with curl and a certificate that is verified. The last step asks whom WordPress
/// takes the caller for.
#[tokio::test]
async fn the_readme_ends_with_the_owner_of_the_key() {
    let site = wordpress().await;
    let folder = site.folder();
    let etc = keyside_folder(folder);
    let config = etc.join("keyside.toml");
    let written = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, configuration(&written, folder, &site.url())).unwrap();

    let port = free_port();
    let etc = etc.to_str().unwrap();
    let create = replace(&block("sh", "keys create"), "/etc/keyside", etc);
    let start = replace(&block("sh", "keyside proxy"), "/etc/keyside", etc);
    let start = replace(&start, "runuser -u keyside -- ", "");
    let start = replace(&start, "localhost:8443", &format!("localhost:{port}"));
    let curlrc =
        "silent\nnoproxy = \"*\"\nmax-time = 20\noutput = \"answer\"\nwrite-out = \"status %{http_code}\\n\"\n";
    std::fs::write(folder.join(".curlrc"), curlrc).unwrap();
    // What the steps leave running ends with them.
    let mut shell = shell(folder, &format!("trap 'kill $! && wait $!' EXIT\n{create}\n{start}"));
    shell.current_dir(folder).env("CURL_HOME", folder).env("KEYSIDE_SHUTDOWN__DELAY", "0s");
    shell.env("KEYSIDE_LISTEN__ADDRESS", format!("127.0.0.1:{port}")).env("KEYSIDE_ADMIN__ADDRESS", "127.0.0.1:0");
    let ended = run(shell, "").await.done();
    assert!(ended.stderr.contains("no warnings"), "{ended:?}");
    assert!(ended.stdout.contains("status 200\n"), "{ended:?}");
    let key = std::fs::metadata(folder.join("key.json")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    let answer = std::fs::read_to_string(folder.join("answer")).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|fault| panic!("{fault}: {answer}"));
    assert_eq!(answer["id"].as_u64(), Some(site.user(MANAGER)), "{answer}");
    // The host name is the API's own, and links name the site's.
    let own = answer["_links"]["self"][0]["href"].as_str().unwrap();
    assert!(own.starts_with("https://shop.example.com/wp-json/"), "{answer}");
}

/// All paths of a site in a folder are there, and are judged there, in every spelling.
#[tokio::test]
async fn the_readme_knows_sites_in_folders() {
    let site = wordpress().await;
    let key = key("reader", "read", MANAGER);
    let sidecar = in_front(&site, &block("toml", "/shop/"), [&key]).await;
    let home = async |url: &str| {
        site.sql(&format!("UPDATE wp_options SET option_value = '{url}' WHERE option_name IN ('home', 'siteurl')"))
            .await
    };
    let credit = "wp-json/wkwp-wallet/v1/wallets/1/credit?_method=POST&amount=1";
    let rows = [
        ("/shop/wp-json/wkwp-wallet/v1/who", "200"),
        ("/shop/?rest_route=/wkwp-wallet/v1/who", "200"),
        ("/shop/index.php?rest_route=/wkwp-wallet/v1/who", "200"),
        ("/shop/index.php/wp-json/wkwp-wallet/v1/who", "200"),
        ("/wp-json/wkwp-wallet/v1/who", "403 route_not_allowed"),
        ("/?rest_route=/wkwp-wallet/v1/who", "403 route_not_allowed"),
        ("/index.php/wp-json/wkwp-wallet/v1/who", "403 route_not_allowed"),
        ("/shop?rest_route=/wkwp-wallet/v1/who", "403 route_not_allowed"),
        (&format!("/shop/{credit}"), "403 route_not_allowed"),
        (&format!("/shop/index.php/{credit}"), "403 route_not_allowed"),
    ];
    let before = site.contents().await;
    home("http://shop.example.com/shop").await;
    let mut answers = Vec::new();
    for (target, _) in rows {
        answers.push(sidecar.ask(get(target).key(&key)).await);
    }
    let control = site.straight(site.as_owner(get(&format!("/shop/index.php/{credit}")), "admin")).await;
    home("http://shop.example.com").await;
    // The site is where it was before anything can fail.
    for ((target, expected), answer) in rows.into_iter().zip(answers) {
        assert_eq!(answer.brief(), expected, "{target}: {answer:?}");
        assert!(expected != "200" || answer.json()["user"] == MANAGER, "{target}: {answer:?}");
    }
    assert_eq!(control.status, 201, "WordPress honours the last one: {control:?}");
    assert_ne!(site.contents().await, before);
}
