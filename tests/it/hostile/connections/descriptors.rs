//! More connections than the process may have descriptors (threat 84, fault 28): what is there goes on, what must be
//! read is read, and it recovers.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{Bystander, PATIENT, with_many_descriptors};
use crate::harness::{Answer, Gate, H1, H2, Key, Sidecar, Upstream, eventually, get, post};

/// Connections of strangers, from one address after the other, in batches that fit the backlog. What is refused is
/// refused by being closed, so that all of them connect.
async fn strangers(sidecar: &Sidecar, count: usize, addresses: &[IpAddr]) -> Vec<TcpStream> {
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let batch = (0..250.min(count - all.len())).map(|number| {
            let (from, to) = (addresses[(all.len() + number) % addresses.len()], sidecar.address());
            tokio::spawn(async move {
                let socket = tokio::net::TcpSocket::new_v4()?;
                socket.bind((from, 0).into())?;
                socket.connect(to).await
            })
        });
        for stranger in batch.collect::<Vec<_>>() {
            all.push(stranger.await.unwrap().expect("a connection, if only to be closed"));
        }
    }
    all
}

/// Waits until so many connections were seen to: refused, pushed out by later ones, or open. Gives how many are open.
async fn all_met(sidecar: &Sidecar, count: f64) -> f64 {
    eventually("all connections to be seen to", async || {
        let metrics = sidecar.metrics().await;
        let open = metrics.value("keyside_connections", &[]);
        let refused = metrics.value("keyside_connections_refused_total", &[]);
        let displaced = metrics.value("keyside_tls_handshakes_total", &[("result", "timeout")]);
        if open + refused + displaced >= count { Ok(open) } else { Err((open, refused, displaced)) }
    })
    .await
}

/// 5,000 connections where there may be 1,024 descriptors, or 256: from one address, and from fifty.
#[tokio::test]
async fn connections_take_no_descriptor_that_is_needed() {
    with_many_descriptors();
    let one: Vec<IpAddr> = vec![[127, 0, 0, 1].into()];
    let many: Vec<IpAddr> = (1..=50).map(|last| [127, 84, 0, last].into()).collect();
    for (limit, addresses) in [(1024, &one), (1024, &many), (256, &one)] {
        let what = format!("{limit} descriptors, {} addresses", addresses.len());
        let known = Key::pair("known").scopes(["read_write"]);
        let revoked = Key::pair("revoked");
        let upstream = Upstream::start().await;
        let gate = Gate::new();
        upstream.on("/slow", Answer::ok("at last").behind(&gate));
        let sidecar =
            Sidecar::in_front_of(&upstream).descriptors(limit).config(PATIENT).keys([&known, &revoked]).start().await;
        // Said once, at the start.
        let said = sidecar.log.object("the limit", |line| line["descriptors.limit"] == limit).await;
        let most = said["connections.max"].as_u64().unwrap();
        assert!((1..limit).contains(&most), "{said}");

        let mut running = Vec::new();
        for version in [H1, H2] {
            let (mut connection, request) = (sidecar.connect(version).await, get("/slow").key(&known));
            running.push(tokio::spawn(async move { connection.send(&request).await.text() }));
        }
        upstream.request(2).await;
        let mut once_valid = sidecar.connect(H1).await;
        assert_eq!(once_valid.send(&get("/").key(&revoked)).await.status, 200);
        let bystander = Bystander::beside(&sidecar, &known, false).await;

        let (began, busy) = (Instant::now(), sidecar.processor_time());
        let crowd = strangers(&sidecar, 5000, addresses).await;
        let open = all_met(&sidecar, 5000.0).await;
        assert!(open <= most as f64, "{what}: {open} connections, and {most} allowed");
        assert!(sidecar.open_descriptors() < usize::try_from(limit).unwrap() - 16, "{what}");

        // The admin port, the key file and the upstream are there as ever.
        for (path, status) in [("/livez", 200), ("/readyz", 200), ("/metrics", 200)] {
            assert_eq!(sidecar.admin("GET", path).await.status, status, "{what}: {path}");
        }
        sidecar.replace_keys([&known, &revoked.clone().with("revoked_at = 2026-01-02T00:00:00Z")]);
        let changed = Instant::now();
        eventually("the revocation", async || {
            let status = once_valid.send(&get("/").key(&revoked)).await.status;
            if status == 401 { Ok(()) } else { Err(status) }
        })
        .await;
        // A second is promised; a machine that does ten other things may be late.
        assert!(changed.elapsed() < Duration::from_secs(5), "{what}: {:?}", changed.elapsed());
        let mut state = String::new();
        eventually("the state folder to say so", async || {
            state = std::fs::read_to_string(sidecar.path("state/revoked.ndjson")).unwrap_or_default();
            if state.contains(&revoked.id) { Ok(()) } else { Err(state.clone()) }
        })
        .await;
        assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 200, "{what}");
        gate.open();
        for answer in running {
            assert_eq!(answer.await.unwrap(), "at last", "{what}");
        }
        bystander.was_served(&what).await;
        assert_eq!(sidecar.metrics().await.value("keyside_upstream_failures_total", &[]), 0.0, "{what}");

        // Nobody spins: what was done is some work for each connection.
        let busy = sidecar.processor_time() - busy;
        assert!(busy < Duration::from_secs(2) + began.elapsed() / 2, "{what}: {busy:?} in {:?}", began.elapsed());

        // Who is gone leaves room.
        drop(crowd);
        eventually("room for a new caller", async || match sidecar.dialer().connect(H2).await {
            Ok(mut connection) => connection.try_send(&post("/", "x").key(&known)).await.map(|answer| answer.status),
            Err(error) => Err(error.to_string()),
        })
        .await;
        eventually("the descriptors to be given back", async || {
            let open = sidecar.open_descriptors();
            if open < 64 { Ok(()) } else { Err(open) }
        })
        .await;
    }
}

/// An address with a cap of its own takes no more, and its neighbours have the rest.
#[tokio::test]
async fn one_address_does_not_take_all() {
    with_many_descriptors();
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let config = "[listen]\nmax_connections_per_ip = 100";
    let sidecar =
        Sidecar::in_front_of(&upstream).descriptors(1024).config(config).config(PATIENT).keys([&key]).start().await;
    let greedy: IpAddr = [127, 84, 1, 1].into();
    let crowd = strangers(&sidecar, 1000, &[greedy]).await;
    sidecar.measures("keyside_connections_refused_total", &[], |refused| refused >= 900.0).await;
    let bystander = Bystander::beside(&sidecar, &key, true).await;
    sidecar.counts("keyside_connections_refused_total", &[], 900).await;
    bystander.was_served("beside one greedy address").await;
    drop(crowd);
    sidecar.measures("keyside_connections", &[], |open| open <= 2.0).await;
    assert_eq!(sidecar.connect_from(greedy, H1).await.send(&get("/").key(&key)).await.status, 200);
}

/// Handshakes that nobody finishes are at most half of few connections: who finishes theirs is let in. It does not help
/// to say a byte.
#[tokio::test]
async fn silent_strangers_do_not_shut_the_door() {
    with_many_descriptors();
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let config = "[listen.timeouts]\nhandshake = \"60s\"";
    for said in [&[][..], &[0x16]] {
        let sidecar =
            Sidecar::in_front_of(&upstream).descriptors(1024).config(config).config(PATIENT).keys([&key]).start().await;
        let strangers = async |count| {
            let mut crowd = strangers(&sidecar, count, &[[127, 0, 0, 1].into()]).await;
            for stranger in &mut crowd {
                // Who was closed already may be told so.
                let _ = stranger.write_all(said).await;
            }
            crowd
        };
        let crowd = strangers(5000).await;
        all_met(&sidecar, 5000.0).await;
        let bystander = Bystander::beside(&sidecar, &key, true).await;
        let more = strangers(500).await;
        all_met(&sidecar, 5500.0).await;
        bystander.was_served(&format!("beside 5,000 strangers who said {said:?}")).await;
        drop((crowd, more));
    }
}
