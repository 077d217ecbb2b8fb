//! Several sidecars of one endpoint: they come back one by one, and one that is cut off harms no other.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rustix::process::Signal;

use super::{answers, check, sidecar};
use crate::harness::{Control, Key, Sidecar, Upstream, eventually};

const SIDECARS: usize = 8;

/// Waits until so many have said that they have this revision, and says how long that took.
async fn acknowledged(control: &Control, revision: u64, count: usize) -> Duration {
    let began = Instant::now();
    eventually("all to acknowledge", async || {
        let reports = control.reports();
        let of = reports.iter().filter(|report| report["revision"].as_u64() >= Some(revision));
        let instances: BTreeSet<String> = of.map(|report| report["instance"].as_str().unwrap().to_owned()).collect();
        if instances.len() >= count { Ok(()) } else { Err(instances) }
    })
    .await;
    began.elapsed()
}

async fn fleet(upstream: &Upstream, control: &Control) -> Vec<Sidecar> {
    join_all((0..SIDECARS).map(|_| sidecar(upstream, control).start())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_serves_on_and_does_not_come_back_as_one() {
    let (one, gone, missed) = (Key::pair("one"), Key::pair("gone"), Key::pair("missed"));
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    control.put_all([&one, &gone, &missed]);
    let fleet = fleet(&upstream, &control).await;
    let revision = control.revoke(&gone);
    let took = acknowledged(&control, revision, SIDECARS).await;
    println!("{SIDECARS} sidecars acknowledged after {took:?}");

    control.stop().await;
    for sidecar in &fleet {
        for _ in 0..3 {
            check(sidecar, &one, 200).await;
            check(sidecar, &gone, 401).await;
        }
    }
    let revision = control.revoke(&missed);
    // Long enough for each to have noticed and to wait for its next attempt.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let back = Instant::now();
    control.restart().await;
    acknowledged(&control, revision, SIDECARS).await;
    for sidecar in &fleet {
        answers(sidecar, &missed, 401).await;
        check(sidecar, &one, 200).await;
    }
    let asked = control.asked();
    let came: Vec<Duration> = asked
        .iter()
        .filter(|(at, target)| *at > back && target.starts_with("/sync/v1/changes"))
        .map(|(at, _)| at.duration_since(back))
        .collect();
    let most = came
        .iter()
        .map(|first| came.iter().filter(|&at| (*first..*first + Duration::from_millis(500)).contains(at)).count())
        .max();
    println!("came back after {came:?}; most within half a second: {most:?}");
    assert!(most.unwrap() < SIDECARS, "all came at once: {came:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_stopped_holds_up_nobody() {
    let (one, gone) = (Key::pair("one"), Key::pair("gone"));
    let (upstream, control) = (Upstream::start().await, Control::start().await);
    control.put_all([&one, &gone]);
    let fleet = fleet(&upstream, &control).await;
    let revision = control.revision();
    acknowledged(&control, revision, SIDECARS).await;
    fleet[0].signal(Signal::STOP);
    let revision = control.revoke(&gone);
    acknowledged(&control, revision, SIDECARS - 1).await;
    for sidecar in &fleet[1..] {
        check(sidecar, &gone, 401).await;
        check(sidecar, &one, 200).await;
    }
    fleet[0].signal(Signal::CONT);
    acknowledged(&control, revision, SIDECARS).await;
    check(&fleet[0], &gone, 401).await;
    check(&fleet[0], &one, 200).await;
}
