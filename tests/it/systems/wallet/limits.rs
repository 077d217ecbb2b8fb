//! How much an address and a key may send: 60 a minute and 30 in 5 seconds for the one, 600 a minute for the other.

use std::net::IpAddr;

use super::{API, of_each_scope};
use crate::{
    harness::{Connection, H1, Received, eventually, get},
    systems::service::{Minted, System},
};

fn address(last: u8) -> IpAddr {
    [127, 0, 0, last].into()
}

fn retry_after(answer: &Received) -> u64 {
    answer.field("retry-after").parse().unwrap_or_else(|_| panic!("no Retry-After: {answer:?}"))
}

async fn ask(connection: &mut Connection, pair: &Minted) -> Received {
    connection.send(&pair.on(get(&format!("{API}/wallets")))).await
}

/// Sends so many, all of which pass.
async fn pass(connection: &mut Connection, pair: &Minted, count: usize) {
    for number in 1..=count {
        let answer = ask(connection, pair).await;
        assert_eq!(answer.status, 200, "{number} of {count}: {answer:?}");
    }
}

/// An answer that says that a limit is used up, of `most` requests in `window` seconds.
#[track_caller]
fn check_used_up(answer: &Received, policy: &str, window: u64) {
    assert_eq!(answer.brief(), "429 too_many_requests", "{answer:?}");
    assert_eq!(answer.json()["data"]["status"], 429, "{answer:?}");
    assert!((1..=window).contains(&retry_after(answer)), "{answer:?}");
    let spent = format!("\"{policy}\";r=0;t=");
    assert!(answer.all("ratelimit").join(", ").contains(&spent), "{spent} in {answer:?}");
}

/// [limits] "an address: 60 a minute"
/// [limits] "a burst: 30 in a window of 5 seconds"
/// [limits] "it is the address's, like the 60 a minute: ours, since the document names no subject"
/// [errors] "429 too_many_requests: a limit is used up"
/// [note] "the burst is on the address: on a key it would put 600 a minute out of reach"
#[tokio::test]
async fn an_address_sends_30_in_5_seconds_and_60_in_a_minute() {
    let system = System::start("wallet", "").await;
    let [reader, writer, _] = of_each_scope(&system).await;
    let mut connection = system.sidecar.connect_from(address(2), H1).await;
    pass(&mut connection, &reader, 30).await;
    let answer = ask(&mut connection, &reader).await;
    check_used_up(&answer, "ip-5s", 5);
    assert!(answer.all("ratelimit-policy").join(", ").contains("\"ip-5s\";q=30;w=5"), "{answer:?}");
    assert_eq!(system.line(&answer).await["reason"], "ip_limit");
    // All keys at one address share its limit, and so does who has none; another address has its own.
    assert_eq!(ask(&mut connection, &writer).await.status, 429);
    assert_eq!(connection.send(&get(&format!("{API}/wallets"))).await.status, 429);
    let mut neighbour = system.sidecar.connect_from(address(3), H1).await;
    pass(&mut neighbour, &reader, 1).await;
    // When the five seconds are over, the other half of the minute's sixty passes. What was refused took nothing.
    let mut passed = 30;
    let answer = eventually("the end of the minute's sixty", async || {
        let answer = ask(&mut connection, &reader).await;
        passed += usize::from(answer.status == 200);
        if answer.all("ratelimit").join(", ").contains("\"ip-60s\";r=0;") && answer.status == 429 {
            Ok(answer)
        } else {
            Err(answer)
        }
    })
    .await;
    assert_eq!(passed, 60);
    check_used_up(&answer, "ip-60s", 60);
    assert!(answer.all("ratelimit-policy").join(", ").contains("\"ip-60s\";q=60;w=60"), "{answer:?}");
    assert_eq!(system.upstream.count(), 61);
}

/// Twenty addresses with a burst each, so that the key's own limit is what is met.
///
/// [limits] "a consumer key: 600 a minute"
/// [limits] "for more, mint several keys"
/// [errors] "a limit is used up: spread the load over several keys"
/// [advice the product should turn into help] "many keys spread load"
#[tokio::test]
async fn a_key_sends_600_in_a_minute_and_two_keys_twice_that() {
    let system = System::start("wallet", "").await;
    let one = system.mint("one", "svc-shop", "read", &[]).await;
    let two = system.mint("two", "svc-shop", "read", &[]).await;
    for last in 10..30 {
        let mut connection = system.sidecar.connect_from(address(last), H1).await;
        pass(&mut connection, &one, 30).await;
    }
    let mut connection = system.sidecar.connect_from(address(30), H1).await;
    let answer = ask(&mut connection, &one).await;
    check_used_up(&answer, "key-60s", 60);
    assert!(answer.all("ratelimit-policy").join(", ").contains("\"key-60s\";q=600;w=60"), "{answer:?}");
    assert_eq!(system.line(&answer).await["reason"], "key_limit");
    // The other key of the same owner has its own 600.
    let answer = ask(&mut connection, &two).await;
    assert_eq!((answer.status, answer.field("x-ratelimit-remaining")), (200, "28"), "{answer:?}");
    pass(&mut connection, &two, 28).await;
    assert_eq!(system.upstream.count(), 629);
}

/// [note] "the configuration lets the burst be put on the key instead"
#[tokio::test]
async fn the_burst_may_be_put_on_the_key() {
    let config = "[limits]\nper_ip = [\"60/1m\"]\nper_key = [\"600/1m\", \"30/5s\"]";
    let system = System::start("wallet", config).await;
    let pair = system.mint("one", "svc-shop", "read", &[]).await;
    let mut connection = system.sidecar.connect_from(address(2), H1).await;
    pass(&mut connection, &pair, 30).await;
    let mut elsewhere = system.sidecar.connect_from(address(3), H1).await;
    check_used_up(&ask(&mut elsewhere, &pair).await, "key-5s", 5);
    // And `check` says what that makes of the 600.
    let check = system.run(&["check"]).await.done().stderr;
    assert!(check.contains("600/1m can never be reached, since 30/5s"), "{check}");
}
