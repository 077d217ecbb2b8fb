//! Promises of the whole room; what one file promises is tested beside it.

mod addresses;
mod fields;
mod keys;
mod restart;
mod stress;

use std::{net::IpAddr, time::Duration};

use super::*;
use crate::clock::Mono;

const SECOND: u64 = 1_000_000_000;

fn quotas(texts: &[&str]) -> Vec<Quota> {
    texts.iter().map(|text| text.parse().expect("a quota")).collect()
}

fn at(nanos: u64) -> Mono {
    Mono::from_nanos(nanos)
}

fn seconds(seconds: u64) -> Mono {
    at(seconds * SECOND)
}

fn ip(number: u32) -> IpAddr {
    IpAddr::V4((0x0a00_0000 + number).into())
}

fn per_ip(texts: &[&str]) -> Plan {
    Plan::new(&Settings { per_ip: quotas(texts), ..Settings::default() })
}

/// Takes one and leaves the readings aside.
fn take(limiter: &Limiter, plan: &Plan, client: IpAddr, now: Mono) -> Result<(), Exceeded> {
    limiter.take_address(plan, client, now, &mut Readings::default())
}

/// Whether an admission at `now`, after those of `log`, keeps every quota.
#[track_caller]
fn assert_kept(log: &[u64], now: u64, quotas: &[Quota]) {
    for quota in quotas {
        let length = u64::try_from(quota.window.as_nanos()).expect("a window");
        let within = log.iter().filter(|&&at| at + length > now).count();
        assert!(within < quota.limit as usize, "{quota} was exceeded at {now}: {within} before it");
    }
}

#[track_caller]
fn check_quota(text: &str, expected: Result<(u32, u64), &str>) {
    match (text.parse::<Quota>(), expected) {
        (Ok(quota), Ok((limit, seconds))) => {
            assert_eq!((quota.limit, quota.window), (limit, Duration::from_secs(seconds)), "{text}");
        }
        (Err(fault), Err(part)) => assert!(fault.contains(part), "{text}: {fault}"),
        (parsed, _) => panic!("{text}: {parsed:?}"),
    }
}

#[test]
fn quotas_are_read_and_written() {
    check_quota("600/1m", Ok((600, 60)));
    check_quota("30/5s", Ok((30, 5)));
    check_quota("50000/1d", Ok((50_000, 86_400)));
    check_quota("1/2h", Ok((1, 7200)));
    check_quota("0/1m", Ok((0, 60)));
    check_quota("4294967295/366d", Ok((u32::MAX, 366 * 86_400)));
    check_quota("4294967296/1d", Err("4294967295"));
    check_quota("1/367d", Err("366 days"));
    check_quota("1/0s", Err("at least one second"));
    check_quota("1/999999999999999999d", Err("366 days"));
    for text in
        ["", "60", "60/", "/1m", "60/m", "60/1", "60/1min", "-1/1m", "+1/1m", "1_0/1m", "60 /1m", "60/1é", "60/1M"]
    {
        check_quota(text, Err("600/1m"));
    }
    for text in ["600/1m", "30/5s", "1/90s", "50000/1d", "7/36h"] {
        assert_eq!(text.parse::<Quota>().unwrap().to_string(), text);
    }
}

#[test]
fn of_two_quotas_with_one_window_the_tighter_counts() {
    let rules = Rules::new(Subject::Key, &quotas(&["600/1m", "60/60s", "5/1s"]));
    assert_eq!(rules.quotas(), quotas(&["60/1m", "5/1s"]));
}
