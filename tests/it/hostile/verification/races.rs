//! A revocation while secrets are verified.

use std::time::{Duration, Instant};

use super::{hashed, sidecar};
use crate::harness::{H1, Key, Upstream, get, keyside};

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
        // And the revocation while the first one is hashed, or a moment later.
        tokio::time::sleep(first * share(9) / 4).await;
        let began = Instant::now();
        keyside(["keys", "revoke", &key.id, "--wait", "--config", config.to_str().unwrap()]).await.done();
        let returned = Instant::now();
        takes = returned - began;
        for call in calls {
            let (began, status, took) = call.await.unwrap();
            assert!([200, 401].contains(&status), "round {round}: {status}");
            assert!(status == 401 || began <= returned, "round {round}: let in after the revoke had returned");
            if status == 200 && began < returned - takes {
                first = took.min(Duration::from_millis(500));
            }
            (passed, refused) = (passed + usize::from(status == 200), refused + usize::from(status == 401));
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
