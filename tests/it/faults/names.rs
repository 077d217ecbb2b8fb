//! The name of the upstream: it moves, it is lost, it comes back. The sidecar has an `/etc/hosts` of its own, in a mount
//! namespace of its own; without that there is no way to change what a name means, and these tests fail and say so.

use std::net::SocketAddr;

use super::UNLIMITED;
use crate::harness::{Answer, Key, Sidecar, Upstream, eventually, get};

const NAME: &str = "api.keyside.test";

#[tokio::test]
async fn a_name_may_move_and_may_be_lost() {
    let key = Key::pair("key");
    // Two upstreams at one port of two addresses, which close every connection: each request asks for the name.
    let here = Upstream::start().await;
    let port = here.authority().parse::<SocketAddr>().unwrap().port();
    let there = Upstream::start_at(SocketAddr::from(([127, 0, 0, 2], port))).await;
    for upstream in [&here, &there] {
        upstream.on("/", Answer::with(200, &[("Connection", "close")], "ok").then_close());
    }
    let builder = Sidecar::in_front_of_url(&format!("http://{NAME}:{port}")).config(UNLIMITED);
    let hosts = builder.folder().join("hosts");
    std::fs::write(&hosts, format!("127.0.0.1 {NAME}\n")).unwrap();
    let mut words = vec!["unshare", "--mount"];
    if !rustix::process::geteuid().is_root() {
        words.push("--map-root-user");
    }
    let mount = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    words.extend(["sh", "-c", mount, hosts.to_str().unwrap()]);
    let sidecar = builder.through(words).keys([&key]).start().await;
    // In place: the mount holds this file and no other of its name.
    let means = |text: &str| std::fs::write(&hosts, text).unwrap();

    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    assert_eq!((here.count(), there.count()), (1, 0));
    means(&format!("127.0.0.2 {NAME}\n"));
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    assert_eq!((here.count(), there.count()), (1, 1), "it has moved");
    // Nobody knows the name: the last address that answered to it is as good as any.
    means("");
    for count in 2..=4 {
        assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
        assert_eq!((here.count(), there.count()), (1, count), "it is lost");
    }
    // An address where nobody is, and one behind it where somebody is.
    means(&format!("127.0.0.3 {NAME}\n127.0.0.1 {NAME}\n"));
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    assert_eq!(here.count(), 2, "the second address");
    means(&format!("127.0.0.3 {NAME}\n"));
    assert_eq!(sidecar.ask(get("/").key(&key)).await.brief(), "502 upstream_unreachable");
    means(&format!("127.0.0.2 {NAME}\n"));
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    assert_eq!(there.count(), 5, "it is back");
}

/// A name that nobody knew when it started is no reason not to start.
#[tokio::test]
async fn a_name_that_is_unknown_is_a_failure_of_the_upstream() {
    let key = Key::pair("key");
    let sidecar = Sidecar::in_front_of_url("http://nowhere.invalid:1").config(UNLIMITED).keys([&key]).start().await;
    let answer = eventually("an answer", async || {
        let answer = sidecar.ask(get("/").key(&key)).await;
        if [502, 504].contains(&answer.status) { Ok(answer) } else { Err(answer) }
    })
    .await;
    assert!(answer.code().starts_with("upstream_"), "{answer:?}");
    assert_eq!(sidecar.ask(get("/")).await.status, 401);
    assert_eq!(sidecar.admin("GET", "/readyz").await.status, 200);
}
