//! TLS with a sidecar: a real control plane that lets in who shows a certificate of one authority, and the name that it is
//! looked up by.

use serde_json::Value;

use super::{answers, check};
use crate::harness::{Authority, Builder, Issued, Minted, Plane, Upstream, keyside};

/// What the endpoint is called where its name moves.
const NAME: &str = "control.keyside.test";

/// A control plane over TLS, and who signs for it and for its sidecars.
struct Bench {
    plane: Plane,
    authority: Authority,
    callers: Authority,
    upstream: Upstream,
}

impl Bench {
    async fn start() -> Self {
        let (authority, callers) = (Authority::new(), Authority::new());
        let builder = Plane::prepare().config(
            "[listen]\nplaintext = false\n[listen.tls]\ncertificate = \"plane.crt\"\nprivate_key = \"plane.key\"\n\
             [sync]\nclient_ca = \"callers.crt\"",
        );
        let issued = authority.issue(&["localhost", NAME]);
        for (name, text) in [
            ("plane.crt", issued.certificate.as_str()),
            ("plane.key", &issued.private_key),
            ("callers.crt", callers.pem()),
            ("ca.crt", authority.pem()),
        ] {
            std::fs::write(builder.folder().join(name), text).unwrap();
        }
        Self { plane: builder.start().await, authority, callers, upstream: Upstream::start().await }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.plane.address.port())
    }

    /// A sidecar that shows this certificate, and a token that nobody knows.
    fn sidecar(&self, shown: Option<&Issued>) -> Builder {
        let at = format!("[keys.control]\nurl = {:?}\nca = \"plane-ca.crt\"", self.url());
        let sidecar = self.plane.sidecar(&self.upstream).config(&at).file("plane-ca.crt", self.authority.pem());
        let sidecar = sidecar.file("control-token", "a-token-that-nobody-knows-0123456789");
        let Some(shown) = shown else { return sidecar };
        let sidecar = sidecar.file("client.crt", &shown.certificate).file("client.key", &shown.private_key);
        sidecar.config("[keys.control]\ncertificate = \"client.crt\"\nprivate_key = \"client.key\"")
    }

    async fn mint(&self, name: &str) -> Minted {
        let (ca, token) = (self.plane.path("ca.crt"), self.plane.path("admin-token"));
        let url = self.url();
        let words = ["keys", "create", "--name", name, "--owner", "svc", "--scope", "read", "--kind", "pair"];
        let more = ["--output", "json", "--control", &url, "--ca", ca.to_str().unwrap()];
        let words = words.into_iter().chain(more).chain(["--token-file", token.to_str().unwrap()]);
        let made = keyside(words).await.done().json();
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        Minted { id: text("id"), public: text("consumer_key"), secret: text("consumer_secret") }
    }
}

#[tokio::test]
async fn a_certificate_of_the_authority_lets_a_sidecar_in_and_may_be_replaced() {
    let bench = Bench::start().await;
    let sidecar = bench.sidecar(Some(&bench.callers.issue(&["sidecar"]))).start().await;
    let first = bench.mint("first").await;
    answers(&sidecar, &first, 200).await;

    // One of another authority is tried out, and not taken: what is in force stays.
    let stranger = Authority::new().issue(&["sidecar"]);
    let show = |issued: &Issued| {
        sidecar.replace("client.crt", &issued.certificate);
        sidecar.replace("client.key", &issued.private_key);
    };
    show(&stranger);
    let refused = sidecar.admin("POST", "/-/reload").await;
    assert_ne!(refused.status, 200, "{}", refused.text());
    let second = bench.mint("second").await;
    answers(&sidecar, &second, 200).await;

    show(&bench.callers.issue(&["sidecar"]));
    let taken = sidecar.admin("POST", "/-/reload").await;
    assert_eq!(taken.status, 200, "{}", taken.text());
    let third = bench.mint("third").await;
    answers(&sidecar, &third, 200).await;
}

#[tokio::test]
async fn without_a_certificate_of_the_authority_nothing_is_told() {
    let bench = Bench::start().await;
    let key = bench.mint("key").await;
    let stranger = Authority::new().issue(&["sidecar"]);
    for shown in [None, Some(&stranger)] {
        let sidecar = bench.sidecar(shown).ready_or_not().start().await;
        let refusal = if shown.is_some() { "the control endpoint is lost" } else { "status 401" };
        sidecar.log.find("the refusal", |line| line.contains(refusal).then_some(())).await;
        answers(&sidecar, &key, 503).await;
    }
    assert_eq!(bench.upstream.count(), 0);
}

/// Whoever trusts another authority than the control plane's talks to nobody, and is told what to do.
#[tokio::test]
async fn a_control_plane_of_another_authority_is_not_talked_to() {
    let bench = Bench::start().await;
    let shown = bench.callers.issue(&["sidecar"]);
    let sidecar = bench.sidecar(Some(&shown)).file("plane-ca.crt", Authority::new().pem()).ready_or_not().start().await;
    let line = sidecar.log.object("the loss", is_lost).await;
    assert!(line["error"].as_str().unwrap().contains("[keys.control] ca"), "{line}");

    let token = bench.plane.path("admin-token").display().to_string();
    let untrusted = keyside(["keys", "list", "--control", &bench.url(), "--token-file", &token]).await;
    assert!(untrusted.status == 1 && untrusted.stderr.contains("--ca FILE"), "{untrusted:?}");
}

fn is_lost(line: &Value) -> bool {
    line["message"].as_str().is_some_and(|message| message.contains("the control endpoint is lost"))
}

/// The name of the endpoint is asked for at every connection. While it is lost, or leads where nobody is, what was taken is
/// served; `/etc/hosts` is the sidecar's own, in a mount namespace of its own.
#[tokio::test]
async fn the_name_of_the_endpoint_may_move_and_may_be_lost() {
    let bench = Bench::start().await;
    let at = format!("[keys.control]\nurl = \"https://{NAME}:{}\"", bench.plane.address.port());
    let builder = bench.sidecar(Some(&bench.callers.issue(&["sidecar"]))).config(&at);
    let hosts = builder.folder().join("hosts");
    // In place: the mount holds this file and no other of its name.
    let means = |text: &str| std::fs::write(&hosts, text).unwrap();
    means(&format!("127.0.0.1 {NAME}\n"));
    let mut words = vec!["unshare", "--mount"];
    if !rustix::process::geteuid().is_root() {
        words.push("--map-root-user");
    }
    let mount = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    words.extend(["sh", "-c", mount, hosts.to_str().unwrap()]);
    let sidecar = builder.through(words).start().await;
    let first = bench.mint("first").await;
    answers(&sidecar, &first, 200).await;

    // Nobody knows the name any more when the connection is lost.
    means("");
    let bench = Bench { plane: bench.plane.crash_and_restart().await, ..bench };
    sidecar.log.find("the loss", |line| line.contains("was not found").then_some(())).await;
    let second = bench.mint("second").await;
    check(&sidecar, &first, 200).await;
    check(&sidecar, &second, 401).await;
    means(&format!("127.0.0.3 {NAME}\n"));
    sidecar.log.find("nobody", |line| line.contains("cannot connect").then_some(())).await;
    check(&sidecar, &second, 401).await;
    // An address where nobody is, and one behind it where it is.
    means(&format!("127.0.0.3 {NAME}\n127.0.0.1 {NAME}\n"));
    answers(&sidecar, &second, 200).await;
}
