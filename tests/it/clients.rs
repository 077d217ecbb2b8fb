//! Clients that others wrote, unmodified, over TLS with the certificate verified.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Answer, Ended, Lines, Upstream, eventually, executable, keyside, python, run};

/// Reads, writes and reads again, and prints what came back.
const SCRIPT: &str = r#"
import json, sys
from woocommerce import API

url, key, secret, in_query = sys.argv[1:]
api = API(url=url, consumer_key=key, consumer_secret=secret, version="wc/v3", timeout=20,
          query_string_auth=in_query == "query")

def told(answer):
    return {"status": answer.status_code, "body": answer.json(), "total": answer.headers.get("X-WP-Total"),
            "pages": answer.headers.get("X-WP-TotalPages"), "next": answer.links.get("next", {}).get("url")}

print(json.dumps({
    "list": told(api.get("orders", params={"per_page": 5})),
    "page": told(api.get("orders", params={"per_page": 5, "page": 2, "status": "completed"})),
    "create": told(api.post("orders", {"status": "pending"})),
    "update": told(api.put("orders/7", {"status": "completed"})),
    "delete": told(api.delete("orders/7", params={"force": True})),
}))
"#;

/// Calls with the client from the index of Python packages.
pub(crate) async fn woocommerce(url: &str, ca: &Path, key: &str, secret: &str, way: &str) -> Value {
    let mut script = Command::new(python().await);
    script.args(["-c", SCRIPT, url, key, secret, way]).env("REQUESTS_CA_BUNDLE", ca).env("NO_PROXY", "*");
    run(script, "").await.done().json()
}

/// Calls with `curl`; the status stands on the last line.
pub(crate) async fn curl(ca: &Path, arguments: &[&str]) -> Ended {
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
