//! What a take costs, alone and with all threads on one subject.
//!
//! Prints nanoseconds per take, the median of five rounds, for 1 to N threads. `one` is the worst case: all threads
//! take from the same key, owner or address. `own` is the usual one: each has its own.

// A bench measures time and prints it; it has no other way of doing either.
#![expect(clippy::unwrap_used)]

use std::{
    hint::black_box,
    net::IpAddr,
    sync::{Arc, Barrier},
    time::Duration,
};

use keyside::{
    clock,
    keys::LastUse,
    limits::{
        AddressHandle, FIELD_NAMES, HeaderStyle, Limiter, Meter, Plan, Quota, Readings, Rules, Settings, Subject,
    },
    listener::{Fields, OurField},
};

/// How long one round lasts.
const ROUND: Duration = Duration::from_millis(100);
const ROUNDS: usize = 5;

/// One step of one thread: the thread's number, and the number of the step.
type Step<'a> = Box<dyn FnMut(usize) + Send + 'a>;

fn main() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).clamp(2, 16);
    let quotas = |texts: &[&str]| texts.iter().map(|text| text.parse::<Quota>().unwrap()).collect::<Vec<_>>();
    let plan = Plan::new(&Settings { per_ip: quotas(&["4294967295/1m", "4294967295/5s"]), ..Settings::default() });
    let exact = Plan::new(&Settings { per_ip: quotas(&["60/1m", "30/5s"]), ..Settings::default() });
    let key_rules = Rules::new(Subject::Key, &quotas(&["4294967295/1m"]));
    let owner_rules = Rules::new(Subject::Owner, &quotas(&["4294967295/1d"]));
    let limiter = Limiter::new(100_000);
    let ip = |number: usize| IpAddr::V4(u32::try_from(number).unwrap_or(0).into());
    let meters: Vec<(Meter, Meter)> = (0..threads).map(|_| Default::default()).collect();
    let last_use = LastUse::default();

    println!("ns per take   {}", (1..=threads).map(|n| format!("{n:>8}")).collect::<String>());
    let take_meters = |at: usize| {
        let (key, owner) = &meters[at];
        let _ = black_box(limiter.take_meters(
            (key, &key_rules),
            (owner, &owner_rules),
            clock::mono(),
            &mut Readings::default(),
        ));
    };
    row("clock", threads, |_| {
        Box::new(|_| {
            black_box(clock::mono());
        })
    });
    row("key, one", threads, |_| Box::new(|_| take_meters(0)));
    row("key, own", threads, |thread| Box::new(move |_| take_meters(thread)));
    let by_handle = |plan: &'static Plan, client: IpAddr| -> Step<'_> {
        let mut handle = AddressHandle::default();
        let limiter = &limiter;
        Box::new(move |_| {
            let _ =
                black_box(limiter.take_address_by(&mut handle, plan, client, clock::mono(), &mut Readings::default()));
        })
    };
    let plan: &'static Plan = Box::leak(Box::new(plan));
    let exact: &'static Plan = Box::leak(Box::new(exact));
    row("address, one", threads, |_| by_handle(plan, ip(1)));
    row("address, own", threads, |thread| by_handle(plan, ip(100 + thread)));
    row("refused, one", threads, |_| by_handle(exact, ip(2)));
    row("no handle", threads, |thread| {
        let limiter = &limiter;
        Box::new(move |step| {
            let client = ip(1000 + thread * 10_000 + step % 10_000);
            let _ = black_box(limiter.take_address(plan, client, clock::mono(), &mut Readings::default()));
        })
    });
    row("flood", threads, |thread| {
        let limiter = &limiter;
        Box::new(move |step| {
            let client = ip((thread << 28) + step);
            let _ = black_box(limiter.take_address(exact, client, clock::mono(), &mut Readings::default()));
        })
    });
    row("last use, one", threads, |_| Box::new(|_| last_use.note(clock::now().wall, ip(1))));
    let mut readings = Readings::default();
    let _ = limiter.take_address(plan, ip(3), clock::mono(), &mut readings);
    let readings = Arc::new(readings);
    row("fields", threads, |_| {
        let (readings, mut fields) = (Arc::clone(&readings), Fields::default());
        Box::new(move |_| {
            fields.clear();
            readings
                .write(HeaderStyle::Both, |lines, names| black_box(&mut fields).put_lines(lines, &RATE_LIMITS[names]));
        })
    });
}

static RATE_LIMITS: [OurField; FIELD_NAMES.len()] = {
    let [a, b, c, d, e] = FIELD_NAMES;
    [OurField::new(a), OurField::new(b), OurField::new(c), OurField::new(d), OurField::new(e)]
};

/// Measures one scenario with 1 to `most` threads.
fn row<'a>(name: &str, most: usize, step: impl Fn(usize) -> Step<'a>) {
    let measured = (1..=most).map(|threads| {
        let mut rounds: Vec<u128> = (0..ROUNDS).map(|_| round((0..threads).map(&step).collect())).collect();
        rounds.sort_unstable();
        format!("{:>8}", rounds[ROUNDS / 2])
    });
    println!("{name:<14}{}", measured.collect::<String>());
}

/// Nanoseconds per step and thread.
fn round(steps: Vec<Step<'_>>) -> u128 {
    let barrier = Barrier::new(steps.len());
    let spent: Vec<(Duration, usize)> = std::thread::scope(|scope| {
        let threads: Vec<_> = steps
            .into_iter()
            .map(|mut step| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    let (began, mut count) = (clock::mono(), 0);
                    while clock::mono().since(began) < ROUND {
                        for _ in 0..256 {
                            step(count);
                            count += 1;
                        }
                    }
                    (clock::mono().since(began), count)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (time, count) =
        spent.into_iter().fold((0, 0), |(time, all), (spent, count)| (time + spent.as_nanos(), all + count));
    time / u128::try_from(count).unwrap_or(1).max(1)
}
