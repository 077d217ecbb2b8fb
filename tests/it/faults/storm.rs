//! A storm of signals to reload, with good and broken files, under load.

use rustix::process::Signal;

use super::UNLIMITED;
use crate::harness::{H1, H2, Key, Load, Sidecar, Upstream, eventually, get, key_file, others};

#[tokio::test]
async fn a_hundred_hangups_cost_no_request() {
    let (key, revoked) = (Key::pair("key"), Key::token("revoked").with("revoked_at = 2026-01-02T00:00:00Z"));
    let spent = Key::token("spent").with("limits = [\"2/1d\"]");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).config(UNLIMITED).keys([&key, &revoked, &spent]).start().await;
    for expected in [200, 200, 429] {
        assert_eq!(sidecar.ask(get("/").key(&spent)).await.status, expected);
    }
    let config = std::fs::read_to_string(sidecar.path("keyside.toml")).unwrap();
    let keys = key_file([&key, &revoked, &spent]);
    let certificate = std::fs::read_to_string(sidecar.path("tls/tls.crt")).unwrap();
    let loads = [
        Load::on(&sidecar, &[H1, H2], &get("/").key(&key)),
        Load::on_new_connections(&sidecar, &[H1, H2], &get("/").key(&key)),
    ];
    let refused = Load::on(&sidecar, &[H1], &get("/").key(&revoked));
    for round in 0..100 {
        match round % 5 {
            0 => sidecar.replace("keyside.toml", &config[..config.len() * 2 / 3]),
            1 => sidecar.replace("keys.toml", &keys[..keys.len() - 20]),
            2 => sidecar.replace("tls/tls.crt", &certificate[..certificate.len() / 2]),
            3 => sidecar.replace("keyside.toml", format!("{config}\n[nonsense]\n")),
            _ => {
                sidecar.replace("keyside.toml", &config);
                sidecar.replace("keys.toml", &keys);
                sidecar.replace("tls/tls.crt", &certificate);
            }
        }
        sidecar.signal(Signal::HUP);
        // The next comes while this one is at work, or just after.
        upstream.request(upstream.count() + 2).await;
    }
    sidecar.reconfigure("[errors]\nformat = \"envelope\"");
    sidecar.signal(Signal::HUP);
    eventually("the last reload", async || {
        let answer = sidecar.ask(get("/")).await;
        if answer.json()["success"] == false { Ok(()) } else { Err(answer) }
    })
    .await;
    for load in loads {
        let sent = load.stop().await;
        assert!(sent.len() > 20, "{}", sent.len());
        assert_eq!(others(&sent, 200), Vec::<&Result<u16, String>>::new());
    }
    assert_eq!(others(&refused.stop().await, 401), Vec::<&Result<u16, String>>::new());
    // Counters of limits are kept through all of it.
    assert_eq!(sidecar.ask(get("/").key(&spent)).await.status, 429);
    let metrics = sidecar.metrics().await;
    for (what, result) in [("config", "failed"), ("config", "ok")] {
        let count = metrics.value("keyside_reloads_total", &[("what", what), ("result", result)]);
        assert!(count >= 2.0, "{what} {result}: {count}");
    }
}
