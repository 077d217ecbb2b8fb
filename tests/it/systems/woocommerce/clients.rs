//! The official clients, as the indexes of Python and Node packages have them, over TLS with the certificate verified.

use std::path::PathBuf;

use serde_json::Value;

use super::{API, of_each_permission};
use crate::{
    clients,
    harness::{Answer, node, node_program, run},
    systems::service::{Minted, System},
};

/// What the Python one does, done by the other, with the same told of it. An error is one that the client makes of an
/// answer.
const SCRIPT: &str = r#"
const Api = require("@woocommerce/woocommerce-rest-api").default;
const [url, consumerKey, consumerSecret, way] = process.argv.slice(1);
const api = new Api({ url, consumerKey, consumerSecret, version: "wc/v3", timeout: 20000,
                      queryStringAuth: way === "query" });
const told = (call) => call.then(
  ({ status, data, headers }) => ({ status, body: data, total: headers["x-wp-total"] ?? null,
                                    pages: headers["x-wp-totalpages"] ?? null, thrown: false }),
  ({ response, message }) => ({ status: response?.status ?? 0, body: response?.data ?? message, thrown: true }));
(async () => {
  console.log(JSON.stringify({
    list: await told(api.get("orders", { per_page: 5 })),
    page: await told(api.get("orders", { per_page: 5, page: 2, status: "completed" })),
    create: await told(api.post("orders", { status: "pending" })),
    update: await told(api.put("orders/7", { status: "completed" })),
    delete: await told(api.delete("orders/7", { force: true })),
    options: await told(api.options("orders")),
  }));
})();
"#;

/// One of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Python,
    Node,
}

/// A shop with 23 orders on 5 pages, and where to find it.
struct Shop {
    system: System,
    url: String,
    authority: PathBuf,
}

impl Shop {
    async fn open() -> Self {
        let system = System::unlimited("woocommerce", "").await;
        let link = format!("<https://shop.example{API}/orders?page=3>; rel=\"next\"");
        let fields = [
            ("Content-Type", "application/json; charset=UTF-8"),
            ("X-WP-Total", "23"),
            ("X-WP-TotalPages", "5"),
            ("Link", &link),
        ];
        system.upstream.on(&format!("{API}/orders"), Answer::with(200, &fields, r#"[{"id":7},{"id":8}]"#));
        system.upstream.on(&format!("{API}/orders/7"), Answer::with(200, &fields[..1], r#"{"id":7}"#));
        let url = format!("https://localhost:{}", system.sidecar.address().port());
        let authority = system.sidecar.path("ca.crt");
        std::fs::write(&authority, system.sidecar.authority.pem()).unwrap();
        Self { system, url, authority }
    }

    /// What a client, with a key that comes this way, tells of its calls.
    async fn calls(&self, client: Client, key: &str, secret: &str, way: &str) -> Value {
        if client == Client::Python {
            return clients::woocommerce(&self.url, &self.authority, key, secret, way).await;
        }
        let mut script = node_program();
        script.args(["-e", SCRIPT, &self.url, key, secret, way]).current_dir(node().await);
        script.env("NODE_EXTRA_CA_CERTS", &self.authority).env("NO_PROXY", "*");
        run(script, "").await.done().json()
    }
}

const WAYS: [(Client, &str); 4] =
    [(Client::Python, "basic"), (Client::Python, "query"), (Client::Node, "basic"), (Client::Node, "query")];

/// [note] "the clients on the indexes of Python and Node packages work unmodified: lists, pages, creates, updates, deletes"
/// [credential] "Basic, which is what the clients send over TLS, and the query, where they are told so"
#[tokio::test]
async fn the_official_clients_read_and_write() {
    let shop = Shop::open().await;
    let [reader, writer, both] = of_each_permission(&shop.system).await;
    for (client, way) in WAYS {
        let before = shop.system.upstream.count();
        let told = shop.calls(client, &both.prefix, &both.secret, way).await;
        let calls = [
            ("list", "GET", "/orders?", vec!["per_page=5"]),
            ("page", "GET", "/orders?", vec!["page=2", "per_page=5", "status=completed"]),
            ("create", "POST", "/orders", vec![]),
            ("update", "PUT", "/orders/7", vec![]),
            ("delete", "DELETE", "/orders/7?", vec!["force="]),
            ("options", "OPTIONS", "/orders", vec![]),
        ];
        // The one from Python has a call for it too; what it sends is no different.
        let calls = &calls[..if client == Client::Node { 6 } else { 5 }];
        let seen = shop.system.upstream.seen();
        assert_eq!(seen.len() - before, calls.len(), "{client:?} {way}: {told}");
        for ((call, method, path, query), seen) in calls.iter().zip(&seen[before..]) {
            assert_eq!(told[call]["status"], 200, "{client:?} {way} {call}: {told}");
            let line = seen.head.line();
            assert!(line.starts_with(&format!("{method} {API}{path}")), "{client:?} {way}: {line}");
            assert!(query.iter().all(|part| line.contains(part)), "{client:?} {way}: {line}");
            // However the key came, it stays here.
            let head = String::from_utf8_lossy(&seen.head.raw).into_owned();
            assert!(!head.contains("consumer_") && !head.contains("oauth") && !seen.has("authorization"), "{head}");
            assert_eq!(
                (seen.field("x-key-owner"), seen.field("x-forwarded-proto")),
                ("shop-manager".into(), "https".into())
            );
        }
        for call in ["list", "page"] {
            assert_eq!((&told[call]["total"], &told[call]["pages"]), (&"23".into(), &"5".into()), "{told}");
            assert_eq!(told[call]["body"][1]["id"], 8, "{told}");
            // Only the one from Python reads links.
            let next = (client == Client::Python).then(|| format!("https://shop.example{API}/orders?page=3"));
            assert_eq!(told[call]["next"].as_str(), next.as_deref(), "{told}");
        }
        let sent: Value = serde_json::from_slice(&seen[before + 2].body).unwrap();
        assert_eq!(sent["status"], "pending");

        // A key that reads: the client's error says what WooCommerce's would.
        for (pair, may, may_not, lacking) in [
            (&reader, vec!["list", "page"], vec!["create", "update", "delete"], "write"),
            (&writer, vec!["create", "update", "delete"], vec!["list", "page"], "read"),
        ] {
            let told = shop.calls(client, &pair.prefix, &pair.secret, way).await;
            for call in may {
                assert_eq!(told[call]["status"], 200, "{client:?} {way} {call}: {told}");
            }
            for call in may_not {
                let message = format!("The API key provided does not have {lacking} permissions.");
                check_refused(client, &told[call], &message);
            }
        }
    }
}

#[track_caller]
fn check_refused(client: Client, call: &Value, message: &str) {
    let body = &call["body"];
    assert_eq!((&call["status"], &body["data"]["status"]), (&401.into(), &401.into()), "{client:?}: {call}");
    assert_eq!(body["code"], "woocommerce_rest_authentication_error", "{client:?}: {call}");
    assert_eq!(body["message"], message, "{client:?}: {call}");
    assert_eq!(client == Client::Node, call["thrown"] == true, "{client:?}: {call}");
}

/// [errors] "a client with a wrong key has an error that carries the code"
#[tokio::test]
async fn a_wrong_key_is_an_error_that_carries_the_code() {
    let shop = Shop::open().await;
    let [reader, _, both] = of_each_permission(&shop.system).await;
    shop.system.run(&["keys", "revoke", &both.id, "--wait"]).await.done();
    let stranger = "ck_0123456789012345678901234567890123456789";
    for (client, way) in WAYS {
        for (key, secret) in
            [(&*reader.prefix, "cs_wrong"), (stranger, &*reader.secret), (&*both.prefix, &*both.secret)]
        {
            let told = shop.calls(client, key, secret, way).await;
            for call in ["list", "page", "create", "update", "delete"] {
                check_refused(client, &told[call], "Consumer key or secret is invalid.");
            }
        }
    }
    assert_eq!(shop.system.upstream.count(), 0);
}

/// Whom a client does not trust it does not talk to: that it works elsewhere is no accident.
///
/// [note] "the clients verify the certificate"
#[tokio::test]
async fn the_clients_verify_the_certificate() {
    let mut shop = Shop::open().await;
    let [reader, ..] = of_each_permission(&shop.system).await;
    let trusted = shop.authority.clone();
    std::fs::write(shop.system.sidecar.path("stranger.crt"), crate::harness::Authority::new().pem()).unwrap();
    shop.authority = shop.system.sidecar.path("stranger.crt");
    let told = shop.calls(Client::Node, &reader.prefix, &reader.secret, "basic").await;
    assert_eq!((&told["list"]["status"], &told["list"]["thrown"]), (&0.into(), &true.into()), "{told}");
    let curl = clients::curl(&shop.authority, &["-u", &reader.user(), &format!("{}{API}/orders", shop.url)]).await;
    assert_eq!(curl.status, 60, "{curl:?}");
    assert_eq!(shop.system.upstream.count(), 0);
    let curl = clients::curl(&trusted, &["-u", &reader.user(), &format!("{}{API}/orders", shop.url)]).await.done();
    assert_eq!(curl.stdout, "[{\"id\":7},{\"id\":8}]\n200");
}
