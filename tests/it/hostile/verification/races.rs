//! A revocation while secrets are verified.

use std::time::{Duration, Instant};

use super::{hashed, sidecar};
use crate::harness::{H1, Key, Request, Sidecar, Upstream, eventually, get, keyside};

/// A slow verification that is under way when its key is revoked lets nobody in afterwards: not the one who waits for
/// it, if he began later, and not the next one by what it found.
#[tokio::test]
async fn no_slow_verification_outruns_a_revocation() {
    const ROUNDS: usize = 100;
    let keys: Vec<Key> = (0..ROUNDS).map(|round| Key::pair(&format!("key-{round}")).argon2id()).collect();
    let upstream = Upstream::start().await;
    let all: Vec<&Key> = keys.iter().collect();
    let sidecar = sidecar(&upstream, "failures_per_ip = []", &all).await;
    let config = sidecar.path("keyside.toml");
    let (mut passed, mut refused) = (0, 0);
    // How long a first request takes, and a revocation: as the last ones did.
    let (mut first, mut takes) = (Duration::from_millis(50), Duration::from_millis(100));
    for (round, key) in keys.iter().enumerate() {
        let share = |steps: usize| u32::try_from(round % steps).unwrap();
        // One begins at once, one when half of the revocation is over, one anywhere around its end.
        let waits = [Duration::ZERO, first + takes / 2, first + takes * share(13) / 10];
        let calls = waits.map(|wait| {
            let (dialer, request) = (sidecar.dialer(), get("/").key(key));
            tokio::spawn(async move {
                let mut connection = dialer.connect(H1).await.unwrap();
                tokio::time::sleep(wait).await;
                let began = Instant::now();
                (began, connection.send(&request).await.status, began.elapsed())
            })
        });
        // And the revocation while the first one is hashed, or a moment later; or when it was let in, as it is in the end
        // on any machine.
        if round % 5 == 0 {
            eventually("the first one", async || calls[0].is_finished().then_some(()).ok_or("under way")).await;
        } else {
            tokio::time::sleep(first * share(9) / 4).await;
        }
        let began = Instant::now();
        keyside(["keys", "revoke", &key.id, "--wait", "--config", config.to_str().unwrap()]).await.done();
        let returned = Instant::now();
        takes = returned - began;
        for call in calls {
            let (began, status, took) = call.await.unwrap();
            // 503: the machine was too busy to hash it in time, and nothing was decided.
            assert!([200, 401, 503].contains(&status), "round {round}: {status}");
            assert!(status != 200 || began <= returned, "round {round}: let in after the revoke had returned");
            if status == 200 && began < returned - takes {
                first = took.min(Duration::from_millis(500));
            }
            (passed, refused) = (passed + usize::from(status == 200), refused + usize::from(status != 200));
        }
        // What the verification found out meanwhile is of no use any more.
        for _ in 0..2 {
            assert_eq!(sidecar.ask(get("/").key(key)).await.brief(), "401 invalid_credentials", "round {round}");
        }
    }
    assert_eq!(upstream.count(), passed);
    // Else it would prove nothing: some were hashed before they were revoked, and some were refused.
    assert!(hashed(&sidecar, "argon2id").await >= 10.0 && passed >= 10 && refused >= 10, "{passed} and {refused}");
}

/// The same without a race: the one verification thread is at something else while the key is revoked, so that the right
/// secret is verified when its key is dead already.
#[tokio::test]
async fn what_is_verified_after_the_revocation_is_void() {
    const TRIES: usize = 40;
    const HEAVY: usize = 24;
    let mut keys: Vec<Key> = (0..TRIES).map(|number| Key::pair(&format!("key-{number}")).argon2id()).collect();
    // bcrypt at a cost of 10 takes a tenth of a second or less; nobody knows the secrets of these.
    let body = "a".repeat(53);
    let heavy: Vec<Key> =
        (0..HEAVY).map(|number| Key::pair(&format!("heavy-{number}")).hash(&format!("$2y$10${body}"))).collect();
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream)
        .plaintext()
        .config("[limits]\nfailures_per_ip = []\n[keys.verification]\nthreads = 1")
        .keys(keys.iter().chain(&heavy))
        .start()
        .await;
    let ask = |request: Request| {
        let dialer = sidecar.dialer();
        tokio::spawn(async move { dialer.connect(H1).await.unwrap().send(&request).await.status })
    };
    // How many are hashed before it: so few that it is verified in time, so many that it is revoked before.
    let (mut before, mut void) = (8, 0);
    for number in 0..TRIES {
        let hashed_before = hashed(&sidecar, "argon2id").await;
        let busy: Vec<_> =
            heavy[..before].iter().map(|key| ask(get("/").basic(&key.public, &format!("cs_{number}")))).collect();
        sidecar.measures("keyside_verification_queue", &[], |waiting| waiting >= 1.0).await;
        let victim = ask(get("/").key(&keys[number]));
        keys[number] = keys[number].clone().with("revoked_at = 2026-01-02T00:00:00Z");
        sidecar.replace_keys(keys.iter().chain(&heavy));
        sidecar.counts("keyside_keys", &[("status", "revoked")], number as u64 + 1).await;
        let still_waits = !victim.is_finished();
        let status = victim.await.unwrap();
        match (still_waits, status) {
            // It has waited too long, and nothing was decided.
            (_, 503) => before = (before / 2).max(2),
            (false, _) => before = (before * 2).min(HEAVY),
            (true, status) => {
                assert_eq!(status, 401, "{} was let in by what was verified after its revocation", keys[number].id);
                // If it was hashed for nothing: else the revocation was there before the request, which proves less.
                void += usize::from(hashed(&sidecar, "argon2id").await > hashed_before);
            }
        }
        for guess in busy {
            assert!([401, 503].contains(&guess.await.unwrap()));
        }
        if void >= 3 {
            return;
        }
    }
    panic!("in {TRIES} tries, {void} were verified after their revocation: this proves nothing");
}
