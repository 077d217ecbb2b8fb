//! A flood of wrong secrets for known keys, from many addresses: whoever is verified is served all the same, and memory
//! stays bounded. How little they feel of it is measured by `benches/flood.py`.

use std::net::IpAddr;

use crate::harness::{H1, Key, Sidecar, Upstream, get};

#[tokio::test]
async fn wrong_secrets_stop_no_verified_caller() {
    let keys: Vec<Key> = (0..10).map(|number| Key::pair(&format!("key-{number}")).argon2id()).collect();
    let upstream = Upstream::start().await;
    let sidecar =
        Sidecar::in_front_of(&upstream).config("[limits]\nfailures_per_ip = [\"1000/1m\"]").keys(&keys).start().await;
    let known = &keys[0];
    assert_eq!(sidecar.send_again(H1, get("/").key(known)).await.status, 200);
    let memory = sidecar.resident_bytes();

    let flood: Vec<_> = (0..48_u8)
        .map(|number| {
            let from: IpAddr = [127, 9, 0, number + 1].into();
            let (dialer, key) = (sidecar.dialer(), keys[usize::from(number) % keys.len()].clone());
            tokio::spawn(async move {
                let mut connection = dialer.connect_from(from, H1).await.unwrap();
                let mut statuses = Vec::new();
                for guess in 0..4 {
                    let request = get("/").basic(&key.public, &format!("cs_{number}-{guess}"));
                    match connection.try_send(&request).await {
                        Ok(answer) => statuses.push(answer.status),
                        Err(_) => break,
                    }
                }
                statuses
            })
        })
        .collect();
    sidecar.measures("keyside_verification_queue", &[], |waiting| waiting >= 1.0).await;
    let mut connection = sidecar.connect(H1).await;
    let mut served = 0;
    while flood.iter().any(|guesser| !guesser.is_finished()) || served < 400 {
        assert_eq!(connection.send(&get("/").key(known)).await.status, 200);
        served += 1;
    }
    let mut statuses = Vec::new();
    for guesser in flood {
        statuses.extend(guesser.await.unwrap());
    }
    assert!(statuses.iter().all(|status| [401, 429, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&401), "{statuses:?}");
    let grown = sidecar.resident_bytes().saturating_sub(memory);
    assert!(grown < 96 << 20, "{grown} bytes more");
    assert_eq!(upstream.count(), 1 + served, "no guess arrived");
}

/// Names that nobody has cost little and leave nothing behind.
#[tokio::test]
async fn unknown_names_leave_nothing_behind() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let config =
        "[listen]\ntrusted_proxies = [\"127.0.0.1\"]\n[limits]\nper_ip = [\"100/1m\"]\nfailures_per_ip = [\"100/1m\"]";
    let sidecar = Sidecar::in_front_of(&upstream).config(config).keys([&key]).start().await;
    let mut connection = sidecar.connect(H1).await;
    assert_eq!(connection.send(&get("/").key(&key).field("X-Forwarded-For", "192.0.2.1")).await.status, 200);
    let before = sidecar.resident_bytes();
    for number in 0..5000_u32 {
        let from = format!("10.{}.{}.{}", number >> 16, (number >> 8) & 255, number & 255);
        let stranger = format!("ck_{number:040x}");
        let request = get("/").basic(&stranger, "cs_wrong").field("X-Forwarded-For", &from);
        assert_eq!(connection.send(&request).await.status, 401);
    }
    let grown = sidecar.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    assert_eq!(connection.send(&get("/").key(&key).field("X-Forwarded-For", "192.0.2.1")).await.status, 200);
}
