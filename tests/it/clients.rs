//! Clients that others wrote, unmodified, over TLS with the certificate verified.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Answer, Ended, Key, Lines, Sidecar, Upstream, eventually, executable, keyside, run};

/// A Python that has the `woocommerce` package: the one that `KEYSIDE_TEST_PYTHON` names, else one that is made here,
/// once for all tests. However long the index of packages takes, no test is failed for it.
async fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    let found = || match std::env::var_os("KEYSIDE_TEST_PYTHON") {
        Some(python) => python.into(),
        None => install(),
    };
    tokio::task::spawn_blocking(move || PYTHON.get_or_init(found)).await.unwrap()
}

fn install() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let python = folder.join("bin/python");
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/requirements.txt");
    let installed = folder.join("requirements.txt");
    if std::fs::read(&installed).is_ok_and(|text| text == std::fs::read(list).unwrap()) {
        return python;
    }
    let done = |command: &mut Command| {
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    };
    done(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]);
    done(pip.args(["--require-hashes", "--requirement", list]));
    // Last, so that what broke off half-way is begun anew.
    std::fs::copy(list, installed).unwrap();
    python
}

/// Reads, writes and reads again, and prints what came back.
const SCRIPT: &str = r#"
import json, sys
from woocommerce import API

url, key, secret, in_query = sys.argv[1:]
api = API(url=url, consumer_key=key, consumer_secret=secret, version="wc/v3", timeout=20,
          query_string_auth=in_query == "query")

def told(answer):
    return {"status": answer.status_code, "body": answer.json()}

print(json.dumps({
    "list": told(api.get("orders", params={"per_page": 5})),
    "create": told(api.post("orders", {"status": "pending"})),
    "update": told(api.put("orders/7", {"status": "completed"})),
    "delete": told(api.delete("orders/7", params={"force": True})),
}))
"#;

async fn woocommerce(url: &str, ca: &Path, key: &str, secret: &str, way: &str) -> Value {
    let mut script = Command::new(python().await);
    script.args(["-c", SCRIPT, url, key, secret, way]).env("REQUESTS_CA_BUNDLE", ca).env("NO_PROXY", "*");
    run(script, "").await.done().json()
}

async fn curl(ca: &Path, arguments: &[&str]) -> Ended {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--noproxy", "*", "-w", "\n%{http_code}", "--cacert"]).arg(ca).args(arguments);
    run(curl, "").await
}

/// An upstream that speaks like a shop.
async fn shop() -> Upstream {
    let upstream = Upstream::start().await;
    let json = [("Content-Type", "application/json"), ("X-WP-Total", "1"), ("X-WP-TotalPages", "1")];
    for path in ["/wp-json/wc/v3/orders", "/wp-json/wc/v3/orders/7"] {
        upstream.on(path, Answer::with(200, &json, r#"{"id":7}"#));
    }
    upstream
}

/// A demo that does not outlive its test.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Against the demo: its certificate, its keys.
#[tokio::test]
async fn the_woocommerce_client_and_curl_work_against_the_demo() {
    let upstream = shop().await;
    let home = TempDir::with_prefix("keyside-it-").unwrap();
    let folder = home.path().join("demo");
    let mut command = executable();
    command.args(["demo", "--port", "0", "--admin-port", "0", "--upstream", upstream.url(), "--dir"]).arg(&folder);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut demo = Demo(command.spawn().unwrap());
    let printed = Lines::of(demo.0.stdout.take().unwrap());
    let url = printed
        .find("where the demo listens", |line| {
            let at = line.find("https://")?;
            Some(line[at..].split([' ', ',', '/']).take(3).collect::<Vec<_>>().join("/"))
        })
        .await;
    let ca = printed
        .find("a line to paste", |line| {
            let after = line.split("--cacert ").nth(1)?;
            Some(PathBuf::from(after.split(' ').next()?.trim_matches('\'')))
        })
        .await;
    // A key of each kind, minted into the running demo.
    let file = folder.join("keys.toml");
    let mut keys = Vec::new();
    for scope in ["read", "read_write"] {
        let create =
            ["keys", "create", "--name", scope, "--owner", "svc-accounting", "--scope", scope, "--output", "json"];
        let created = keyside(create.into_iter().chain(["--file", file.to_str().unwrap()])).await.done().json();
        let text = |field: &str| created[field].as_str().unwrap().to_owned();
        keys.push((text("consumer_key"), text("consumer_secret")));
    }
    let user = |(key, secret): &(String, String)| format!("{key}:{secret}");
    for key in &keys {
        eventually("the new keys", async || {
            let ended = curl(&ca, &["-u", &user(key), &format!("{url}/wp-json/wc/v3/orders")]).await;
            if ended.stdout.ends_with("200") { Ok(()) } else { Err(ended) }
        })
        .await;
    }

    let (reader, writer) = (&keys[0], &keys[1]);
    let reads = woocommerce(&url, &ca, &reader.0, &reader.1, "basic").await;
    assert_eq!(reads["list"]["status"], 200, "{reads}");
    for write in ["create", "update", "delete"] {
        assert_eq!(reads[write]["status"], 403, "{write}: {reads}");
        assert_eq!(reads[write]["body"]["code"], "insufficient_scope", "{write}: {reads}");
    }
    let writes = woocommerce(&url, &ca, &writer.0, &writer.1, "basic").await;
    for call in ["list", "create", "update", "delete"] {
        assert_eq!(writes[call]["status"], 200, "{call}: {writes}");
    }
    let post = ["-X", "POST", "-d", "{}", "-u"];
    let orders = format!("{url}/wp-json/wc/v3/orders");
    for (key, status) in [(reader, "403"), (writer, "200")] {
        let ended = curl(&ca, &[&post[..], &[&user(key), &orders]].concat()).await;
        assert!(ended.stdout.ends_with(status), "{ended:?}");
    }
    // Whom the client does not trust it does not talk to.
    let stranger = home.path().join("stranger.crt");
    std::fs::write(&stranger, crate::harness::Authority::new().pem()).unwrap();
    assert_eq!(curl(&stranger, &["-u", &user(reader), &orders]).await.status, 60);
    kill_process(Pid::from_child(&demo.0), Signal::INT).unwrap();
    let ended = eventually("the demo to end", async || demo.0.try_wait().unwrap().ok_or("it runs")).await;
    assert_eq!(ended.code(), Some(0));
}

/// Against the preset for it: the answers that the client knows, by Basic and in the query.
#[tokio::test]
async fn the_woocommerce_client_works_with_its_preset() {
    let reader = Key::pair("reader");
    let writer = Key::pair("writer").scopes(["read_write"]);
    let upstream = shop().await;
    let sidecar =
        Sidecar::in_front_of(&upstream).config("preset = \"woocommerce\"").keys([&reader, &writer]).start().await;
    let ca = sidecar.path("ca.crt");
    std::fs::write(&ca, sidecar.authority.pem()).unwrap();
    let url = format!("https://{}", sidecar.address());
    for way in ["basic", "query"] {
        let reads = woocommerce(&url, &ca, &reader.public, &reader.secret, way).await;
        assert_eq!(reads["list"]["status"], 200, "{way}: {reads}");
        for write in ["create", "update", "delete"] {
            assert_eq!(reads[write]["status"], 401, "{way}: {write}: {reads}");
            assert_eq!(
                reads[write]["body"]["code"], "woocommerce_rest_authentication_error",
                "{way}: {write}: {reads}"
            );
            assert_eq!(reads[write]["body"]["data"]["status"], 401, "{way}: {write}: {reads}");
        }
        let writes = woocommerce(&url, &ca, &writer.public, &writer.secret, way).await;
        for call in ["list", "create", "update", "delete"] {
            assert_eq!(writes[call]["status"], 200, "{way}: {call}: {writes}");
        }
        let wrong = woocommerce(&url, &ca, &writer.public, "cs_wrong", way).await;
        assert_eq!(wrong["list"]["status"], 401, "{way}: {wrong}");
    }
    // However the key came, it stays here.
    for seen in upstream.seen() {
        let head = String::from_utf8_lossy(&seen.head.raw).into_owned();
        assert!(!head.contains("consumer_") && !seen.has("authorization"), "{head}");
        assert_eq!(seen.field("x-forwarded-proto"), "https");
    }
}
