//! A flood of wrong secrets for known keys, from many addresses: who is verified feels nothing of it.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::harness::{H1, Key, Sidecar, Upstream, get};

/// How long the slowest hundredth of a verified caller's requests takes.
async fn p99(sidecar: &Sidecar, key: &Key) -> Duration {
    let mut connection = sidecar.connect(H1).await;
    let request = get("/").key(key);
    let mut took = Vec::new();
    for _ in 0..400 {
        let began = Instant::now();
        assert_eq!(connection.send(&request).await.status, 200);
        took.push(began.elapsed());
    }
    took.sort();
    took[took.len() * 99 / 100]
}

#[tokio::test]
async fn wrong_secrets_slow_no_verified_caller() {
    let keys: Vec<Key> = (0..10).map(|number| Key::pair(&format!("key-{number}")).argon2id()).collect();
    let upstream = Upstream::start().await;
    let sidecar =
        Sidecar::in_front_of(&upstream).config("[limits]\nfailures_per_ip = [\"1000/1m\"]").keys(&keys).start().await;
    let known = &keys[0];
    assert_eq!(sidecar.send_again(H1, get("/").key(known)).await.status, 200);
    let memory = sidecar.resident_bytes();

    // In turns, so that whatever else the machine does falls on both.
    let (mut calm, mut flooded) = (Vec::new(), Vec::new());
    let mut statuses = Vec::new();
    for round in 0..3_u8 {
        calm.push(p99(&sidecar, known).await);
        let flood: Vec<_> = (0..16_u8)
            .map(|number| {
                let from: IpAddr = [127, 9, round, number + 1].into();
                let (dialer, key) = (sidecar.dialer(), keys[usize::from(number) % keys.len()].clone());
                tokio::spawn(async move {
                    let mut connection = dialer.connect_from(from, H1).await.unwrap();
                    let mut statuses = Vec::new();
                    for guess in 0.. {
                        let request = get("/").basic(&key.public, &format!("cs_{number}-{guess}"));
                        match connection.try_send(&request).await {
                            Ok(answer) => statuses.push(answer.status),
                            Err(_) => break,
                        }
                        if guess == 3 {
                            break;
                        }
                    }
                    statuses
                })
            })
            .collect();
        sidecar.measures("keyside_verification_queue", &[], |waiting| waiting >= 1.0).await;
        flooded.push(p99(&sidecar, known).await);
        for guesser in flood {
            statuses.extend(guesser.await.unwrap());
        }
    }
    assert!(statuses.iter().all(|status| [401, 429, 503].contains(status)), "{statuses:?}");
    let (calm, flooded) = (calm.iter().min().unwrap(), flooded.iter().min().unwrap());
    // Twice what it was, and what a scheduler takes on two cores that are both busy.
    assert!(*flooded <= *calm * 2 + Duration::from_millis(20), "calm {calm:?}, flooded {flooded:?}");
    let grown = sidecar.resident_bytes().saturating_sub(memory);
    assert!(grown < 96 << 20, "{grown} bytes more");
    assert_eq!(upstream.count(), 1 + 6 * 400);
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
