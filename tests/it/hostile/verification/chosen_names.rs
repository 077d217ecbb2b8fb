//! What the time of a refusal tells of a name.

use std::time::{Duration, Instant};

use super::{hashed, named, sidecar, slowly_hashed};
use crate::harness::{Connection, H1, Key, Request, Sidecar, Upstream, eventually, get};

/// How often each kind is asked for in one round.
const SAMPLES: usize = 25;
/// Rounds until one is believed: the machine does other things, and a leak would be there in each of them.
const ROUNDS: usize = 4;

async fn time(connection: &mut Connection, request: &Request) -> Duration {
    loop {
        let began = Instant::now();
        match connection.send(request).await.status {
            401 => return began.elapsed(),
            // The machine was too busy to hash it in time.
            status => assert_eq!(status, 503),
        }
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Mann–Whitney's U as a share of all pairs: 0.5 where neither sample tends to be larger, 0 or 1 where one always is.
fn share_larger(one: &[Duration], other: &[Duration]) -> f64 {
    let score = |a: &Duration| {
        other
            .iter()
            .map(|b| {
                if a > b {
                    1.0
                } else if a == b {
                    0.5
                } else {
                    0.0
                }
            })
            .sum::<f64>()
    };
    one.iter().map(score).sum::<f64>() / (one.len() * other.len()) as f64
}

/// A name that nobody has costs what a wrong secret for a known one costs, and so does a key that may not be used.
#[tokio::test]
async fn time_does_not_tell_whether_a_chosen_name_exists() {
    let (alice, bob) = (named("alice").argon2id(), named("bob").argon2id());
    let revoked = named("carol").argon2id().with("revoked_at = 2026-01-02T00:00:00Z");
    let expired = named("dave").argon2id().with("expires_at = 2026-01-02T00:00:00Z");
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, "failures_per_ip = []", &[&alice, &bob, &revoked, &expired]).await;
    // One of the two was verified before: that must not make its wrong secrets any cheaper.
    assert_eq!(sidecar.send_again(H1, get("/").key(&alice)).await.status, 200);
    let mut connection = sidecar.connect(H1).await;
    let mut last = String::new();
    for round in 0..ROUNDS {
        let mut times: [Vec<Duration>; 5] = Default::default();
        for sample in 0..SAMPLES {
            let secret = format!("cs_{round}_{sample}");
            let unknown = format!("mallory{sample}");
            let names = [unknown.as_str(), "alice", "bob", "carol", "dave"];
            // Taken in turns, so that what else the machine does strikes all alike.
            for kind in 0..names.len() {
                let kind = (kind + sample) % names.len();
                times[kind].push(time(&mut connection, &get("/").basic(names[kind], &secret)).await);
            }
        }
        let (unknown, known) = times.split_first_mut().unwrap();
        let base = median(unknown);
        let verdicts: Vec<_> = known
            .iter_mut()
            .map(|times| (median(times).as_secs_f64() / base.as_secs_f64(), share_larger(unknown, times)))
            .collect();
        if verdicts.iter().all(|(ratio, share)| (0.75..1.33).contains(ratio) && (0.2..0.8).contains(share)) {
            return;
        }
        last = format!("unknown {base:?}; median ratio and share for alice, bob, carol, dave: {verdicts:?}");
    }
    panic!("{last}");
}

/// A name that only a machine makes up tells nobody anything: it is refused for the price of a lookup, so that naming
/// thousands of them buys no work.
#[tokio::test]
async fn unknown_machine_made_names_cost_no_slow_hash() {
    let (pair, token, alice) =
        (Key::pair("pair").argon2id(), Key::token("token").argon2id(), named("alice").argon2id());
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, "failures_per_ip = []", &[&pair, &token, &alice]).await;
    let mut connection = sidecar.connect(H1).await;
    let mut slow = Vec::new();
    for guess in 0..5 {
        slow.push(time(&mut connection, &get("/").basic("alice", &format!("cs_{guess}"))).await);
    }
    let before = slowly_hashed(&sidecar).await;
    assert_eq!(before, 5.0);
    let mut fast = Vec::new();
    for number in 0..200 {
        let stranger = Key::pair(&format!("stranger-{number}"));
        fast.push(time(&mut connection, &get("/").key(&stranger)).await);
        let stranger = Key::token(&format!("stranger-{number}"));
        fast.push(time(&mut connection, &get("/").bearer(&stranger.secret)).await);
    }
    assert_eq!(slowly_hashed(&sidecar).await, before);
    let (fast, slow) = (median(&mut fast), median(&mut slow));
    assert!(fast * 3 < slow, "{fast:?} without a hash, {slow:?} with one");
}

/// The other side of it: a name that a person could have chosen costs one hash, and no more than may fail.
#[tokio::test]
async fn unknown_chosen_names_cost_no_more_than_may_fail() {
    let alice = named("alice").argon2id();
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, "failures_per_ip = [\"7/1h\"]", &[&alice]).await;
    let mut connection = sidecar.connect(H1).await;
    for number in 0..30 {
        let request = get("/").basic(&format!("mallory{number}"), "cs_x");
        let answer = eventually("room to hash", async || {
            let answer = connection.send(&request).await;
            if answer.status == 503 { Err(answer) } else { Ok(answer) }
        });
        let answer = answer.await;
        assert_eq!(answer.status, if number < 7 { 401 } else { 429 }, "{number}: {answer:?}");
    }
    assert_eq!((hashed(&sidecar, "decoy").await, hashed(&sidecar, "argon2id").await), (7.0, 0.0));
}

/// Digits and checksum: one wrong letter of a minted token is refused without a hash.
#[tokio::test]
async fn a_misspelt_token_is_refused_without_a_hash() {
    let upstream = Upstream::start().await;
    let other = Key::pair("other");
    let sidecar: Sidecar = sidecar(&upstream, "failures_per_ip = []", &[&other]).await;
    let file = sidecar.path("keys.toml");
    let create = ["keys", "create", "--kind", "token", "--name", "t", "--owner", "acme", "--scope", "read"];
    let arguments = create.iter().copied().chain(["--file", file.to_str().unwrap(), "--output", "json"]);
    let minted = crate::harness::keyside(arguments).await.done().json();
    let token = minted["secret"].as_str().or(minted["token"].as_str()).unwrap_or_else(|| panic!("{minted}")).to_owned();
    sidecar.measures("keyside_keys", &[], |count| count >= 2.0).await;
    assert_eq!(sidecar.send_again(H1, get("/").bearer(&token)).await.status, 200);
    let hashed = slowly_hashed(&sidecar).await;
    let mut connection = sidecar.connect(H1).await;
    for at in 0..token.len() {
        let mut misspelt = token.clone().into_bytes();
        misspelt[at] = if misspelt[at] == b'a' { b'b' } else { b'a' };
        let misspelt = String::from_utf8(misspelt).unwrap();
        assert_eq!(connection.send(&get("/").bearer(&misspelt)).await.status, 401, "letter {at}");
    }
    assert_eq!(slowly_hashed(&sidecar).await, hashed);
}
