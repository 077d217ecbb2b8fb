//! `deploy/wordpress/README.md`, done as it says: its commands are run, its lines are in `wp-config.php`, its settings
//! are the sidecar's. Only the places are others.

use std::path::{Path, PathBuf};

use super::{MANAGER, in_front, key, site::command, wordpress};
use crate::harness::{get, run};

const README: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/wordpress/README.md"));

/// The only block in this language whose text holds this.
#[track_caller]
fn block(language: &str, part: &str) -> String {
    let mut blocks: Vec<String> = Vec::new();
    let mut inside = None;
    for line in README.lines() {
        match (line.trim(), &mut inside) {
            ("```", _) => blocks.extend(inside.take()),
            (fence, None) if fence.strip_prefix("```") == Some(language) => inside = Some(String::new()),
            // Blocks of a list are indented with it; no language here minds.
            (_, Some(block)) => *block += &format!("{}\n", line.trim_start()),
            _ => {}
        }
    }
    blocks.retain(|block| block.contains(part));
    assert_eq!(blocks.len(), 1, "blocks of {language} with {part:?}: {blocks:?}");
    blocks.remove(0)
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

/// Makes the credential and puts the plugin in its place.
pub(super) async fn set_up(folder: &Path, root: &Path) {
    let etc = keyside_folder(folder);
    std::fs::create_dir(&etc).unwrap();
    let script = replace(&block("sh", "mu-plugins"), "/etc/keyside", etc.to_str().unwrap());
    let script = replace(&script, "/var/www/html", root.to_str().unwrap());
    let mut shell = command("sh");
    shell.args(["-e", "-c", &script]).current_dir(env!("CARGO_MANIFEST_DIR"));
    run(shell, "").await.done();
    assert!(root.join("wp-content/mu-plugins/keyside.php").is_file());
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

/// The settings of Keyside.
pub(super) fn settings(folder: &Path, url: &str) -> String {
    let settings = replace(&block("toml", "authorization = "), "http://127.0.0.1:8080", url);
    replace(&settings, "/etc/keyside", keyside_folder(folder).to_str().unwrap())
}

/// The last step asks whom WordPress takes the caller for, with curl and a certificate that is verified.
#[tokio::test]
async fn the_readme_ends_with_the_owner_of_the_key() {
    let site = wordpress().await;
    let key = key("reader", "read", MANAGER);
    let sidecar = in_front(&site, "", [&key]).await;
    let address = sidecar.address();
    let ca = sidecar.path("ca.crt");
    std::fs::write(&ca, sidecar.authority.pem()).unwrap();
    let curlrc = format!("silent\nnoproxy = \"*\"\ncacert = {ca:?}\nwrite-out = \"\\n%{{http_code}}\"\n");
    std::fs::write(sidecar.path(".curlrc"), curlrc).unwrap();
    let script = replace(&block("sh", "curl"), "api.example.com", &format!("localhost:{}", address.port()));
    let mut shell = command("sh");
    shell.args(["-e", "-c", &script]).env("CURL_HOME", sidecar.path(""));
    shell.env("CONSUMER_KEY", &key.public).env("CONSUMER_SECRET", &key.secret);
    let ended = run(shell, "").await.done();
    let (body, status) = ended.stdout.rsplit_once('\n').unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|fault| panic!("{fault}: {ended:?}"));
    assert_eq!((status, body["id"].as_u64()), ("200", Some(site.user(MANAGER))), "{body}");
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
    home("http://api.example.com/shop").await;
    let mut answers = Vec::new();
    for (target, _) in rows {
        answers.push(sidecar.ask(get(target).key(&key)).await);
    }
    let control = site.straight(site.as_owner(get(&format!("/shop/index.php/{credit}")), "admin")).await;
    home("http://api.example.com").await;
    // The site is where it was before anything can fail.
    for ((target, expected), answer) in rows.into_iter().zip(answers) {
        assert_eq!(answer.brief(), expected, "{target}: {answer:?}");
        assert!(expected != "200" || answer.json()["user"] == MANAGER, "{target}: {answer:?}");
    }
    assert_eq!(control.status, 201, "WordPress honours the last one: {control:?}");
    assert_ne!(site.contents().await, before);
}
