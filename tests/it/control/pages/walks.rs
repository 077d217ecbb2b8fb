//! Walks through the pages with Debian's Chromium, from the link of the first start to a key that is deleted: with the
//! script, without it, and by keyboard alone; on SQLite and on PostgreSQL. The pictures are in the target folder.

use std::{path::Path, process::Stdio};

use crate::harness::{Answer, Authority, Plane, PlaneBuilder, Postgres, Upstream, free_port, node, node_program};

/// One browser at a time: each takes a core and more.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Over TLS, with a certificate of the plane's own authority: the cookies, and whose forms are believed.
#[tokio::test(flavor = "multi_thread")]
async fn over_tls() {
    let _turn = TURN.lock().await;
    let issued = Authority::new().issue(&["127.0.0.1"]);
    let plane = Plane::prepare();
    std::fs::write(plane.folder().join("tls.crt"), &issued.certificate).unwrap();
    std::fs::write(plane.folder().join("tls.key"), &issued.private_key).unwrap();
    let tls = "[listen]\nplaintext = false\n[listen.tls]\ncertificate = \"tls.crt\"\nprivate_key = \"tls.key\"";
    let plane = plane.config(tls).start().await;
    let certificate = plane.path("tls.crt").display().to_string();
    let link = format!("https://{}/setup?token={}", plane.address, token(&plane).await);
    browse("tls", &link, "tls", &certificate).await;
}

/// Walks this way, with a sidecar that follows the control plane.
async fn walk(way: &str, name: &str, more: &str, plane: PlaneBuilder) {
    let _turn = TURN.lock().await;
    let upstream = Upstream::start().await;
    upstream.on("/", Answer::ok("there"));
    let port = free_port();
    let said = format!("[pages]\nexample_url = \"http://127.0.0.1:{port}/\"\n[presets]\nnames = [\"web3pay\"]");
    let plane = plane.config(&said).start().await;
    let at = format!("[listen]\naddress = \"127.0.0.1:{port}\"");
    let _sidecar = plane.sidecar(&upstream).config(&at).start().await;
    plane.followed_by(1).await;
    let link = format!("{}/setup?token={}", plane.url(), token(&plane).await);
    browse(way, &link, name, more).await;
}

/// The token of the link that the first start prints.
async fn token(plane: &Plane) -> String {
    let find = |line: &str| line.split_once("/setup?token=").map(|(_, token)| token.trim().to_owned());
    plane.out.find("the set-up link", find).await
}

/// Walks this way from this link.
async fn browse(way: &str, link: &str, name: &str, more: &str) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/control/pages/walk.mjs");
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages").join(name);
    let mut node_walks = node_program();
    node_walks.arg(here).arg(way).arg(link);
    node_walks.arg("/usr/bin/chromium").arg(pictures).arg(node().await).arg(more).env("NO_PROXY", "*");
    node_walks.stdin(Stdio::null());
    // It ends by itself, and says where it was.
    let ended = tokio::task::spawn_blocking(move || node_walks.output().unwrap()).await.unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(ended.status.success(), "{}{}", said(&ended.stdout), said(&ended.stderr));
}

fn on_postgres() -> PlaneBuilder {
    let server = Postgres::shared();
    Plane::prepare().config(&format!("[store]\nurl = {:?}", server.url(&server.database())))
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_script_and_every_page_accessible() {
    walk("script", "script", "rules", Plane::prepare()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_script() {
    walk("plain", "plain", "", Plane::prepare()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_keyboard_alone_on_postgres() {
    walk("keyboard", "keyboard", "", on_postgres()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_script_on_postgres() {
    walk("script", "script-postgres", "", on_postgres()).await;
}
