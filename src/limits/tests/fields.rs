//! The fields that tell the caller what remains.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;

fn readings() -> Readings {
    let (limiter, plan) = (Limiter::new(10), per_ip(&["60/1m", "30/5s"]));
    let mut readings = Readings::default();
    for step in 0..6 {
        readings = Readings::default();
        limiter.take_address(&plan, ip(1), at(step * 300_000_000), &mut readings).unwrap();
    }
    readings
}

fn write(readings: &Readings, style: HeaderStyle, headers: &mut HeaderMap) {
    readings.write(style, |lines, names| {
        let lines = std::str::from_utf8(lines).unwrap().strip_suffix("\r\n").unwrap();
        assert_eq!(lines.split("\r\n").count(), names.len());
        for (line, start) in lines.split("\r\n").zip(&FIELD_NAMES[names]) {
            let (name, value) = line.split_once(": ").unwrap();
            assert!(line.starts_with(start));
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
    });
}

#[track_caller]
fn check(readings: &Readings, style: HeaderStyle, upstream: &[(&'static str, &str)], expected: &[(&str, &str)]) {
    let mut headers = HeaderMap::new();
    for &(name, value) in upstream {
        if !readings.replaces(style, name.as_bytes()) {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
    }
    write(readings, style, &mut headers);
    let mut written: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    written.sort_by_key(|&(name, _)| name);
    assert_eq!(written, expected);
}

const LIMIT: (&str, &str) = ("ratelimit", r#""ip-60s";r=54;t=59, "ip-5s";r=24;t=4"#);
const POLICY: (&str, &str) = ("ratelimit-policy", r#""ip-60s";q=60;w=60, "ip-5s";q=30;w=5"#);
const LEGACY: [(&str, &str); 3] =
    [("x-ratelimit-limit", "30"), ("x-ratelimit-remaining", "24"), ("x-ratelimit-reset", "4")];

#[test]
fn the_fields_of_each_style() {
    let readings = readings();
    check(&readings, HeaderStyle::None, &[], &[]);
    check(&readings, HeaderStyle::Draft, &[], &[LIMIT, POLICY]);
    check(&readings, HeaderStyle::Legacy, &[], &LEGACY);
    check(&readings, HeaderStyle::Both, &[], &[LIMIT, POLICY, LEGACY[0], LEGACY[1], LEGACY[2]]);
    // The second time the policies come from the thread's memory.
    check(&readings, HeaderStyle::Draft, &[], &[LIMIT, POLICY]);
}

#[test]
fn nothing_taken_nothing_said() {
    check(&Readings::default(), HeaderStyle::Both, &[], &[]);
    let (limiter, mut readings) = (Limiter::new(1), Readings::default());
    limiter.take_address(&per_ip(&[]), ip(1), seconds(0), &mut readings).unwrap();
    assert!(readings.is_empty());
}

#[test]
fn the_upstreams_members_stay_before_ours() {
    let theirs = ("ratelimit", r#""their";r=1;t=2"#);
    let policy = ("ratelimit-policy", r#""their";q=5;w=9"#);
    let upstream = [theirs, policy, ("x-ratelimit-limit", "5000")];
    check(&readings(), HeaderStyle::Draft, &upstream, &[theirs, LIMIT, policy, POLICY, ("x-ratelimit-limit", "5000")]);
    check(&readings(), HeaderStyle::Legacy, &upstream, &[theirs, policy, LEGACY[0], LEGACY[1], LEGACY[2]]);
}

#[test]
fn a_used_up_window_says_when_there_is_room_again() {
    let (limiter, mut readings) = (Limiter::new(1), Readings::default());
    let plan = per_ip(&["2/1m"]);
    take(&limiter, &plan, ip(1), seconds(0)).unwrap();
    take(&limiter, &plan, ip(1), seconds(10)).unwrap();
    let exceeded = limiter.take_address(&plan, ip(1), seconds(20), &mut readings).unwrap_err();
    assert_eq!(exceeded.retry_after, 40);
    check(
        &readings,
        HeaderStyle::Draft,
        &[],
        &[("ratelimit", r#""ip-60s";r=0;t=40"#), ("ratelimit-policy", r#""ip-60s";q=2;w=60"#)],
    );
    // After the limit was lowered, one that leaves the window is not yet room, and t is never after Retry-After.
    let mut readings = Readings::default();
    let exceeded = limiter.take_address(&per_ip(&["1/1m"]), ip(1), seconds(20), &mut readings).unwrap_err();
    assert_eq!(exceeded.retry_after, 50);
    check(
        &readings,
        HeaderStyle::Legacy,
        &[],
        &[("x-ratelimit-limit", "1"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "50")],
    );
}

#[test]
fn the_tightest_window_is_the_one_with_the_least_left() {
    let (limiter, mut readings) = (Limiter::new(1), Readings::default());
    limiter.take_address(&per_ip(&["3/1h", "5/1m", "3/1m"]), ip(1), seconds(0), &mut readings).unwrap();
    let expected = [("x-ratelimit-limit", "3"), ("x-ratelimit-remaining", "2"), ("x-ratelimit-reset", "3600")];
    check(&readings, HeaderStyle::Legacy, &[], &expected);
}

#[test]
fn near_is_less_than_a_tenth() {
    let (limiter, plan) = (Limiter::new(1), per_ip(&["20/1m", "1000/1h"]));
    let near = |count| {
        let mut near = Vec::new();
        for _ in 0..count {
            let mut readings = Readings::default();
            limiter.take_address(&plan, ip(1), seconds(0), &mut readings).unwrap();
            near = readings.near().collect();
        }
        near
    };
    assert_eq!(near(18), [], "2 of 20 are a tenth");
    assert_eq!(near(1), [Subject::Ip]);
}

#[test]
fn the_longest_values_fit_in() {
    let (limiter, mut readings) = (Limiter::new(1), Readings::default());
    let plan = per_ip(&["4294967295/366d", "4294967295/365d", "4294967295/364d", "4294967295/363d", "1/1s"]);
    limiter.take_address(&plan, ip(1), seconds(0), &mut readings).unwrap();
    let mut headers = HeaderMap::new();
    write(&readings, HeaderStyle::Both, &mut headers);
    assert!(headers["ratelimit"].to_str().unwrap().starts_with(r#""ip-31622400s";r=4294967294;t=31622400, "#));
}

#[test]
fn no_answer_changes_what_another_one_says() {
    // More plans than a thread remembers.
    let limiter = Limiter::new(1);
    let answers: Vec<_> = (1..200)
        .map(|limit| {
            let (plan, mut readings, mut headers) =
                (per_ip(&[&format!("{limit}000/1m"), "9/1h"]), Readings::default(), HeaderMap::new());
            limiter.take_address(&plan, ip(1), seconds(limit * 3600), &mut readings).unwrap();
            write(&readings, HeaderStyle::Both, &mut headers);
            (limit, headers)
        })
        .collect();
    for (limit, headers) in answers {
        let list = format!(r#""ip-60s";r={};t=60, "ip-3600s";r=8;t=3600"#, limit * 1000 - 1);
        let policies = format!(r#""ip-60s";q={limit}000;w=60, "ip-3600s";q=9;w=3600"#);
        let expected = [&list, &policies, "9", "8", "3600"];
        let names = ["ratelimit", "ratelimit-policy", LEGACY[0].0, LEGACY[1].0, LEGACY[2].0];
        assert_eq!(names.map(|name| headers[name].to_str().unwrap()), expected);
    }
}
