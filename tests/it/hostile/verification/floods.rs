//! Guesses, many at once.

use std::sync::Arc;

use tokio::sync::Barrier;

use super::{hashed, named, sidecar, slowly_hashed};
use crate::harness::{Connection, H1, Key, Upstream, eventually, get};

/// 500 first requests at once, each with a wrong secret: no more of them are verified than may fail, and who was
/// verified behind the same address is served as if nothing were.
#[tokio::test]
async fn parallel_first_guesses_are_no_more_than_may_fail() {
    const GUESSES: usize = 500;
    const MAY_FAIL: usize = 20;
    let keys: Vec<Key> = (0..10)
        .map(|number| match number % 3 {
            0 => named(&format!("person-{number}")).argon2id(),
            _ => Key::pair(&format!("key-{number}")).argon2id(),
        })
        .collect();
    let known = Key::pair("known").argon2id();
    let upstream = Upstream::start().await;
    let all: Vec<&Key> = keys.iter().chain([&known]).collect();
    // Many threads, so that many are in flight when the last one that may fail is asked for.
    let limits = format!("failures_per_ip = [\"{MAY_FAIL}/1h\"]\n[keys.verification]\nthreads = 8");
    let sidecar = sidecar(&upstream, &limits, &all).await;
    assert_eq!(sidecar.send_again(H1, get("/").key(&known)).await.status, 200);
    let before = slowly_hashed(&sidecar).await;

    let together = Arc::new(Barrier::new(GUESSES + 1));
    let mut guesses = Vec::new();
    for number in 0..GUESSES {
        let mut connection = sidecar.connect(H1).await;
        let name = match number % 11 {
            10 => format!("mallory-{number}"),
            at => keys[at % keys.len()].public.clone(),
        };
        let request = get("/").basic(&name, &format!("cs_wrong_{number}"));
        let together = Arc::clone(&together);
        guesses.push(tokio::spawn(async move {
            together.wait().await;
            connection.send(&request).await.status
        }));
    }
    let mut connection = sidecar.connect(H1).await;
    together.wait().await;
    let mut served = 0;
    while served < 300 || guesses.iter().any(|guess| !guess.is_finished()) {
        let answer = connection.send(&get("/").key(&known)).await;
        assert_eq!(answer.status, 200, "the verified neighbour: {answer:?}");
        served += 1;
    }
    let mut statuses = Vec::new();
    for guess in guesses {
        statuses.push(guess.await.unwrap());
    }
    let count = |status| statuses.iter().filter(|got| **got == status).count();
    assert_eq!(count(401) + count(429) + count(503), GUESSES, "{statuses:?}");
    assert!((1..=MAY_FAIL).contains(&count(401)), "{} were told that they are wrong", count(401));
    let verified = slowly_hashed(&sidecar).await - before;
    assert!(verified <= MAY_FAIL as f64, "{verified} were verified");
    // Now it is used up, whatever was refused for want of room before.
    let mut connection = sidecar.connect(H1).await;
    let mut left = MAY_FAIL - count(401);
    for number in 0..2 * MAY_FAIL {
        let answer = connection.send(&get("/").basic(&keys[0].public, &format!("cs_more_{number}"))).await;
        match answer.status {
            401 => left = left.checked_sub(1).expect("one too many"),
            // Not decided: the machine was too busy to hash it in time.
            status => assert!([429, 503].contains(&status), "{answer:?}"),
        }
    }
    assert!(slowly_hashed(&sidecar).await - before <= MAY_FAIL as f64);
    assert_eq!(upstream.count(), 1 + served, "no guess arrived");
}

fn threads(id: u32) -> usize {
    std::fs::read_dir(format!("/proc/{id}/task")).unwrap().count()
}

/// Whoever hangs up while it is hashed leaves nothing behind: no thread, no place, no reserved failure.
#[tokio::test]
async fn hanging_up_while_it_is_hashed_loses_nothing() {
    const MAY_FAIL: usize = 200;
    let keys: Vec<Key> = (0..30).map(|number| Key::pair(&format!("key-{number}")).argon2id()).collect();
    let upstream = Upstream::start().await;
    let all: Vec<&Key> = keys.iter().collect();
    let sidecar = sidecar(&upstream, &format!("failures_per_ip = [\"{MAY_FAIL}/1h\"]"), &all).await;
    assert_eq!(sidecar.send_again(H1, get("/").key(&keys[0])).await.status, 200);
    let (threads_before, memory) = (threads(sidecar.id()), sidecar.resident_bytes());
    // With the right secret of a key that nobody has used: nobody fails, so nobody is charged.
    for _ in 0..3 {
        let mut calls: Vec<Connection> = Vec::new();
        for key in &keys[1..20] {
            for _ in 0..8 {
                let mut connection = sidecar.connect(H1).await;
                connection.wire().write(get("/").key(key).head()).await.unwrap();
                calls.push(connection);
            }
        }
        drop(calls);
        assert!(threads(sidecar.id()) <= threads_before, "{} threads", threads(sidecar.id()));
    }
    sidecar.measures("keyside_verification_queue", &[], |waiting| waiting == 0.0).await;
    // Wrong ones that hang up at once: each is charged if it was hashed, and forgotten if not.
    let before = slowly_hashed(&sidecar).await;
    for number in 0..100 {
        let mut connection = sidecar.connect(H1).await;
        let wrong = get("/").basic(&keys[20].public, &format!("cs_{number}")).head();
        connection.wire().write(wrong).await.unwrap();
    }
    sidecar.measures("keyside_verification_queue", &[], |waiting| waiting == 0.0).await;
    // Every key that was not used yet is verified as ever.
    for key in &keys[21..] {
        assert_eq!(sidecar.send_again(H1, get("/").key(key)).await.status, 200, "{}", key.id);
    }
    let charged = slowly_hashed(&sidecar).await - before - (keys.len() - 21) as f64;
    // What is left of the failures is what was not charged, to the last one: nothing stays reserved.
    let mut connection = sidecar.connect(H1).await;
    let mut more = 0;
    while connection.send(&get("/").bearer("ck_live_unknown")).await.status == 401 {
        more += 1;
        assert!(more <= MAY_FAIL);
    }
    assert_eq!(charged as usize + more, MAY_FAIL, "{charged} were hashed, {more} were left");
    assert!(threads(sidecar.id()) <= threads_before);
    let grown = sidecar.resident_bytes().saturating_sub(memory);
    assert!(grown < 64 << 20, "{grown} bytes more");
}

/// Nothing is remembered of a name that was unknown, however often it was asked for: once there, it is good.
#[tokio::test]
async fn a_key_is_good_from_the_moment_it_is_there() {
    let (first, pair, token, chosen) =
        (Key::pair("first"), Key::pair("pair").argon2id(), Key::token("token"), named("chosen").argon2id());
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, "failures_per_ip = []", &[&first]).await;
    let late = [&pair, &token, &chosen];
    let mut connection = sidecar.connect(H1).await;
    for round in 0..100 {
        for key in late {
            assert_eq!(connection.send(&get("/").key(key)).await.status, 401, "{} before, round {round}", key.id);
        }
    }
    sidecar.replace_keys([&first].into_iter().chain([&pair, &token]));
    sidecar.measures("keyside_keys", &[], |count| count >= 3.0).await;
    for key in [&pair, &token] {
        let answer = eventually("room to verify", async || {
            let answer = sidecar.ask(get("/").key(key)).await;
            if answer.status == 503 { Err(answer) } else { Ok::<_, crate::harness::Received>(answer) }
        });
        assert_eq!(answer.await.status, 200, "{}", key.id);
    }
    assert_eq!(connection.send(&get("/").key(&chosen)).await.status, 401);
    assert!(hashed(&sidecar, "argon2id").await >= 1.0);
}
