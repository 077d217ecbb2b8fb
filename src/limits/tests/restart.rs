//! What outlives a process: an earlier one's admissions count in the next, and no clock makes them count less.

use proptest::prelude::*;

use super::*;
use crate::clock::{Now, Wall};

/// A reading of both clocks: monotonic time since the process began, wall time since some day.
fn now(mono: u64, wall: u64) -> Now {
    let millis = 1_700_000_000_000 + i64::try_from(wall / 1_000_000).unwrap();
    Now { mono: at(mono), wall: Wall::from_unix_millis(millis) }
}

/// What a process saves, and the next one takes over.
fn restart(limiter: &Limiter, plan: &Plan, saved_at: Now, restored_at: Now) -> Limiter {
    let next = Limiter::new(limiter.entries().max(1));
    assert!(next.set_cell_key(limiter.cell_key()));
    let mut saved = Vec::new();
    limiter.long_windows(Save::All, saved_at, |holder, counters| saved.push((holder, counters)));
    saved.sort_by_key(|(holder, _)| matches!(holder, Holder::Address(_)));
    for (holder, counters) in saved {
        next.restore(holder, &counters, plan, restored_at);
    }
    next
}

#[test]
fn long_windows_outlive_the_process_and_short_ones_begin_with_what_they_know() {
    let (limiter, plan) = (Limiter::new(4), per_ip(&["5/10m", "2/1m"]));
    take(&limiter, &plan, ip(1), seconds(0)).unwrap();
    take(&limiter, &plan, ip(1), seconds(0)).unwrap();
    let next = restart(&limiter, &plan, now(0, 0), now(0, 30 * SECOND));
    assert_eq!(take(&next, &plan, ip(1), seconds(0)).unwrap_err().violated, ["ip-60s".into()]);
    for second in [30, 31, 90] {
        take(&next, &plan, ip(1), seconds(second)).unwrap();
    }
    let exceeded = take(&next, &plan, ip(1), seconds(150)).unwrap_err();
    assert_eq!(exceeded.violated, ["ip-600s".into()]);
    assert_eq!(exceeded.retry_after, 600 - 30 - 150);
}

#[test]
fn short_windows_alone_are_not_saved() {
    let (limiter, plan) = (Limiter::new(4), per_ip(&["1/1m"]));
    take(&limiter, &plan, ip(1), seconds(0)).unwrap();
    let next = restart(&limiter, &plan, now(0, 0), now(0, SECOND));
    assert_eq!(next.entries(), 0);
    take(&next, &plan, ip(1), seconds(0)).unwrap();
}

#[test]
fn a_clock_set_back_revives_no_allowance() {
    let (limiter, plan) = (Limiter::new(4), per_ip(&["1/1h"]));
    take(&limiter, &plan, ip(1), seconds(100)).unwrap();
    let saved_at = now(100 * SECOND, 86_400 * SECOND);
    let next = restart(&limiter, &plan, saved_at, now(0, 3600 * SECOND));
    assert_eq!(take(&next, &plan, ip(1), seconds(0)).unwrap_err().retry_after, 3600);
}

#[test]
fn what_evicted_addresses_used_outlives_the_process_too() {
    let (limiter, plan) = (Limiter::new(1), per_ip(&["2/1h"]));
    for client in 1..4 {
        take(&limiter, &plan, ip(client), seconds(0)).unwrap();
        take(&limiter, &plan, ip(client), seconds(0)).unwrap();
    }
    let next = restart(&limiter, &plan, now(0, 0), now(0, SECOND));
    for client in 1..4 {
        take(&next, &plan, ip(client), seconds(1)).unwrap_err();
    }
    take(&next, &plan, ip(4), seconds(1)).unwrap();
}

proptest! {
    #[test]
    fn no_window_is_exceeded_across_restarts_and_evictions(
        capacity in 1_usize..4,
        steps in prop::collection::vec((0_u32..5, 0..100 * SECOND, 0_u8..20, 0..SECOND), 1..200),
    ) {
        let quotas = quotas(&["4/10m", "200/20m"]);
        let plan = Plan::new(&Settings { per_ip: quotas.clone(), ..Settings::default() });
        let (mut limiter, mut logs) = (Limiter::new(capacity), vec![Vec::new(); 5]);
        // Real time, and what it was when the process began.
        let (mut real, mut began) = (0, 0);
        for (client, gap, dice, down) in steps {
            real += gap;
            if dice == 0 {
                let saved_at = now(real - began, real);
                real += down;
                began = real;
                limiter = restart(&limiter, &plan, saved_at, now(0, real));
            }
            if take(&limiter, &plan, ip(client), at(real - began)).is_ok() {
                let log = &mut logs[client as usize];
                assert_kept(log, real, &quotas);
                log.push(real);
            }
        }
    }
}
