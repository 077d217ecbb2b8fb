//! A hundred reloads while callers ask without pause: not one request is lost or wrongly answered.

use crate::harness::{H1, H2, Key, Load, Sidecar, Upstream, get, others};

#[tokio::test]
async fn a_hundred_reloads_lose_nothing() {
    let key = Key::pair("key");
    let tokens: Vec<Key> = (0..2).map(|number| Key::token(&format!("token-{number}"))).collect();
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream)
        .config("[limits]\nper_ip = []\nper_key = []\nfailures_per_ip = []")
        .keys([&key])
        .start()
        .await;
    let request = get("/").key(&key);
    let kept = Load::on(&sidecar, &[H1, H2], &request);
    let fresh = Load::on_new_connections(&sidecar, &[H1, H2], &request);
    for round in 0..100 {
        // Keys, certificate, configuration: each changes in every round.
        sidecar.replace_keys([&key, &tokens[round % 2]]);
        let issued = sidecar.authority.issue(&["localhost"]);
        sidecar.replace("tls/tls.crt", &issued.certificate);
        sidecar.replace("tls/tls.key", &issued.private_key);
        sidecar.reconfigure(&format!("[upstream]\nmax_in_flight = {}", 1000 + round));
        let answer = sidecar.admin("POST", "/-/reload").await;
        assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
        // What was reloaded counts at once.
        assert_eq!(sidecar.ask(get("/").key(&tokens[round % 2])).await.status, 200, "round {round}");
        assert_eq!(sidecar.ask(get("/").key(&tokens[(round + 1) % 2])).await.status, 401, "round {round}");
    }
    let sent = [kept.stop().await, fresh.stop().await].concat();
    let lost = others(&sent, 200);
    assert!(lost.is_empty(), "{} of {}: {:?}", lost.len(), sent.len(), lost.first());
    assert!(sent.len() > 400, "{}", sent.len());
    sidecar
        .measures("keyside_reloads_total", &[("what", "certificate"), ("result", "ok")], |count| count >= 100.0)
        .await;
}
