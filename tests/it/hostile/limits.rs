//! Ways around a limit, or of making it strike somebody else.

use std::{
    net::IpAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::process::Signal;

use crate::harness::{Connection, H1, Key, Received, Request, Sidecar, Upstream, get, key_file_of};

/// How many addresses the limiter has room for.
const ROOM: usize = 100_000;

/// A sidecar behind a proxy that says whose request it is.
async fn behind_a_proxy(upstream: &Upstream, limits: &str, keys: &[&Key]) -> Sidecar {
    let config = format!("[listen]\ntrusted_proxies = [\"127.0.0.1\"]\n[limits]\n{limits}");
    Sidecar::in_front_of(upstream).plaintext().config(&config).keys(keys.iter().copied()).start().await
}

fn retry_after(answer: &Received) -> u64 {
    answer.field("retry-after").parse().unwrap_or_else(|_| panic!("no Retry-After: {answer:?}"))
}

/// Sends a bare request for each of these addresses, many before the first answer is read, and gives the statuses.
async fn from_each(connection: &mut Connection, addresses: impl IntoIterator<Item = IpAddr>) -> Vec<u16> {
    const AT_ONCE: usize = 64;
    let wire = connection.wire();
    let mut statuses = Vec::new();
    let mut addresses = addresses.into_iter().peekable();
    while addresses.peek().is_some() {
        let some: Vec<IpAddr> = addresses.by_ref().take(AT_ONCE).collect();
        let requests: String = some
            .iter()
            .map(|from| format!("GET / HTTP/1.1\r\nHost: api.example.com\r\nX-Forwarded-For: {from}\r\n\r\n"))
            .collect();
        wire.write(requests).await.unwrap();
        for _ in some {
            let head = wire.head().await.unwrap().expect("an answer");
            let status = head.line().split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
            let length = head.all("content-length").first().and_then(|length| length.parse().ok()).expect("a length");
            wire.exactly(length).await.unwrap();
            statuses.push(status);
        }
    }
    statuses
}

fn v4(number: usize) -> IpAddr {
    IpAddr::V4((0x0b00_0000 + u32::try_from(number).unwrap()).into())
}

fn v6(network: u64, host: u64) -> IpAddr {
    IpAddr::V6((0x2001_0db8_u128 << 96 | u128::from(network) << 64 | u128::from(host)).into())
}

/// More addresses than there is room for: memory stays bounded, and nobody whose allowance is used up gets a new one
/// by being pushed out; nor does one who is pushed out in the middle of it.
#[tokio::test]
async fn a_flood_of_addresses_fills_no_memory_and_refills_nobody() {
    // The oldest make room first: all that came before the flood are pushed out by it.
    const FLOOD: usize = ROOM + 30_000;
    const CONNECTIONS: usize = 4;
    // Of the flood itself, so many use up their allowance. While it runs, sweeps turn the order around: it is not said
    // which addresses are pushed out, but of these it is a fifth.
    const EVERY: usize = 201;
    // Every fourth is a network of IPv6.
    let address = |number: usize| if number % 8 < 6 { v4(10_000 + number) } else { v6(number as u64 + 10, 1) };
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let limits = "per_ip = [\"2/1h\"]\nfailures_per_ip = [\"2/1h\"]";
    let sidecar = behind_a_proxy(&upstream, limits, &[&key]).await;
    let mut connection = sidecar.connect(H1).await;
    // A bare request is refused and counts all the same.
    let spent = [v4(1), v6(1, 1), v6(2, 7)];
    for address in spent {
        assert_eq!(from_each(&mut connection, [address; 4]).await, [401, 401, 429, 429], "{address}");
    }
    let half = v4(2);
    assert_eq!(from_each(&mut connection, [half]).await, [401]);
    // Who fails with a credential counts in another window.
    let failed: IpAddr = v4(3);
    let failing = get("/").bearer("ck_live_unknown").field("X-Forwarded-For", failed.to_string());
    for status in [401, 401] {
        assert_eq!(connection.send(&failing).await.status, status);
    }
    let before = sidecar.resident_bytes();

    let floods: Vec<_> = (0..CONNECTIONS)
        .map(|part| {
            let dialer = sidecar.dialer();
            tokio::spawn(async move {
                let mut connection = dialer.connect(H1).await.unwrap();
                let mine = (0..FLOOD).filter(move |number| number % CONNECTIONS == part);
                let each =
                    |number: usize| std::iter::repeat_n(address(number), 1 + usize::from(number.is_multiple_of(EVERY)));
                let statuses = from_each(&mut connection, mine.flat_map(each)).await;
                statuses.iter().filter(|status| **status == 401).count()
            })
        })
        .collect();
    let mut passed = 0;
    for flood in floods {
        passed += flood.await.unwrap();
    }
    // Whoever comes for the first time is hardly ever taken for somebody who used up his allowance.
    let all = FLOOD + FLOOD.div_ceil(EVERY);
    assert!(passed > all * 9 / 10, "{passed} of {all}");
    let entries = sidecar.metrics().await.value("keyside_limiter_entries", &[]);
    assert!((ROOM as f64 * 0.9..=ROOM as f64).contains(&entries), "{entries} entries");
    let grown = sidecar.resident_bytes().saturating_sub(before);
    assert!(grown < 192 << 20, "{grown} bytes more");

    let mut connection = sidecar.connect(H1).await;
    let again = from_each(&mut connection, (0..FLOOD).step_by(EVERY).map(address)).await;
    let refilled = again.iter().filter(|status| **status != 429).count();
    assert_eq!(refilled, 0, "of {} addresses of the flood, so many were given a new allowance", again.len());
    for address in spent {
        assert_eq!(from_each(&mut connection, [address]).await, [429], "{address} was given a new allowance");
    }
    let more = from_each(&mut connection, [half; 4]).await;
    assert!(more.iter().filter(|status| **status == 401).count() <= 1, "{half} had one left, and got {more:?}");
    let answer = connection.send(&failing).await;
    assert_eq!(answer.status, 429, "{failed} was given new failures: {answer:?}");
    // And a caller with a key is served from an address that nobody has seen.
    let caller = get("/").key(&key).field("X-Forwarded-For", "192.0.2.200");
    assert_eq!(connection.send(&caller).await.status, 200);
}

/// Who has a whole /64 has one allowance, for requests and for failures, and takes one place.
#[tokio::test]
async fn rotating_within_a_network_is_one_caller() {
    let (key, unseen) = (Key::pair("key"), Key::pair("unseen"));
    let upstream = Upstream::start().await;
    let limits = "per_ip = [\"40/1h\"]\nfailures_per_ip = [\"5/1h\"]";
    let sidecar = behind_a_proxy(&upstream, limits, &[&key, &unseen]).await;
    let mut connection = sidecar.connect(H1).await;
    for guess in 0..20_u64 {
        // Any of 2^64 addresses.
        let from = v6(9, guess.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_string();
        let wrong = get("/").basic(&key.public, &format!("cs_{guess}")).field("X-Forwarded-For", &from);
        let expected = if guess < 5 { 401 } else { 429 };
        assert_eq!(connection.send(&wrong).await.status, expected, "guess {guess} from {from}");
    }
    let right = get("/").key(&unseen).field("X-Forwarded-For", v6(9, u64::MAX).to_string());
    assert_eq!(connection.send(&right).await.status, 429, "the right one among the guesses is not looked at");
    let entries = sidecar.metrics().await.value("keyside_limiter_entries", &[]);
    assert!(entries <= 1.0, "{entries} places for one caller");
    // The next network is another caller; 21 requests were taken of the first one's 40.
    let other = get("/").key(&unseen).field("X-Forwarded-For", v6(10, 1).to_string());
    assert_eq!(connection.send(&other).await.status, 200);
    let statuses = from_each(&mut connection, (0..30).map(|host| v6(9, host << 40))).await;
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 19, "{statuses:?}");
}

/// Guessing at another one's key, from many places and by its right name, costs the guessers and nobody else.
#[tokio::test]
async fn a_key_that_is_guessed_at_works_elsewhere() {
    let (victim, chosen) =
        (Key::pair("victim").with("limits = [\"4/1h\"]"), Key::pair("chosen").with("limits = [\"4/1h\"]"));
    let upstream = Upstream::start().await;
    let limits = "per_ip = []\nper_owner = [\"8/1h\"]\nfailures_per_ip = [\"3/1h\"]";
    let config = format!("[listen]\ntrusted_proxies = [\"127.0.0.1\"]\n[limits]\n{limits}");
    let owners = "[[owner]]\nid = \"acme\"\n";
    let file = key_file_of(owners, [&victim, &chosen]);
    let sidecar = Sidecar::in_front_of(&upstream).plaintext().config(&config).key_file(file).start().await;
    let mut connection = sidecar.connect(H1).await;
    let from = |request: Request, host: u8| request.field("X-Forwarded-For", format!("198.51.100.{host}"));
    for host in 0..60 {
        for guess in 0..5 {
            let key = if guess % 2 == 0 { &victim } else { &chosen };
            let answer = connection.send(&from(get("/").basic(&key.public, &format!("cs_{guess}")), host)).await;
            assert_eq!(answer.status, if guess < 3 { 401 } else { 429 }, "guess {guess} from {host}");
            assert!(!answer.field("ratelimit-policy").contains("key"), "{answer:?}");
        }
    }
    // Not one of 300 guesses was charged to the keys or to their owner, and no address elsewhere is worse off for them.
    for (key, mut left) in [(&victim, 4), (&chosen, 4)] {
        for host in 100..104 {
            let answer = connection.send(&from(get("/").key(key), host)).await;
            left -= 1;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(answer.field("ratelimit").contains(&format!("\"key-3600s\";r={left}")), "{answer:?}");
        }
    }
    assert_eq!(connection.send(&from(get("/").key(&victim), 105)).await.status, 429);
    assert_eq!(upstream.count(), 8);
}

/// A burst behind the end of a window, however windows may be cut: at the full seconds of the clock, or from the first
/// request on. A counter that begins anew at such an end would let twice the limit pass within a moment.
#[tokio::test]
async fn no_boundary_lets_two_bursts_pass() {
    const LIMIT: usize = 20;
    const WINDOW: Duration = Duration::from_secs(2);
    let keys = [Key::pair("clock"), Key::pair("first")].map(|key| key.with("limits = [\"20/2s\"]"));
    let upstream = Upstream::start().await;
    let sidecar = behind_a_proxy(&upstream, "per_ip = []", &keys.each_ref()).await;
    let mut connection = sidecar.connect(H1).await;
    for key in &keys {
        let request = get("/").key(key);
        let mut passed: Vec<(Instant, Instant)> = Vec::new();
        let mut burst = async |most: usize, passed: &mut Vec<_>| {
            for _ in 0..most {
                let began = Instant::now();
                if connection.send(&request).await.status == 200 {
                    passed.push((began, Instant::now()));
                }
            }
        };
        let since_boundary = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() % WINDOW.as_millis();
        let mut boundary = Instant::now() + WINDOW - Duration::from_millis(u64::try_from(since_boundary).unwrap());
        if key.id == keys[1].id {
            burst(1, &mut passed).await;
            boundary = passed[0].0 + WINDOW;
        } else if boundary < Instant::now() + Duration::from_millis(400) {
            boundary += WINDOW;
        }
        tokio::time::sleep_until((boundary - Duration::from_millis(300)).into()).await;
        burst(LIMIT + 5, &mut passed).await;
        tokio::time::sleep_until((boundary + Duration::from_millis(50)).into()).await;
        burst(LIMIT + 5, &mut passed).await;
        for some in passed.windows(LIMIT + 1) {
            let within = some[LIMIT].1.duration_since(some[0].0);
            assert!(within >= WINDOW, "{}: {} passed within {within:?}", key.id, LIMIT + 1);
        }
        assert!(passed.len() >= LIMIT, "{}: {}", key.id, passed.len());
    }
}

/// Whoever can make the sidecar reload, or waits until somebody does, gets nothing by it.
#[tokio::test]
async fn no_reload_refills_anybody() {
    let key = Key::pair("key").with("limits = [\"3/1h\"]");
    let (one, other) = (Key::pair("one").owner("both"), Key::token("other").owner("both"));
    let free = Key::pair("free").owner("free");
    let upstream = Upstream::start().await;
    let owners = ["acme", "both", "free"].map(|id| format!("[[owner]]\nid = \"{id}\"\n")).concat();
    let limits = "per_ip = [\"5/1h\"]\nper_owner = [\"3/1h\"]\nfailures_per_ip = [\"2/1h\"]\nexempt = [\"127.0.0.1\", \"192.0.2.2\"]";
    let config = format!("[listen]\ntrusted_proxies = [\"127.0.0.1\"]\n[limits]\n{limits}");
    let file = |version: usize| format!("# {version}\n{}", key_file_of(&owners, [&key, &one, &other, &free]));
    let sidecar = Sidecar::in_front_of(&upstream).plaintext().config(&config).key_file(file(0)).start().await;
    let requests = [
        ("the key", get("/").key(&key).field("X-Forwarded-For", "127.0.0.1"), "key_limit"),
        ("the owner", get("/").key(&one).field("X-Forwarded-For", "127.0.0.1"), "owner_limit"),
        ("the owner's other key", get("/").key(&other).field("X-Forwarded-For", "127.0.0.1"), "owner_limit"),
        ("the address", get("/").field("X-Forwarded-For", "192.0.2.1"), "ip_limit"),
        ("the address, with a key", get("/").key(&free).field("X-Forwarded-For", "192.0.2.1"), "ip_limit"),
        ("failures", get("/").bearer("ck_live_x").field("X-Forwarded-For", "192.0.2.2"), "failure_limit"),
    ];
    let mut connection = sidecar.connect(H1).await;
    for (subject, request, _) in &requests {
        for _ in 0..6 {
            let answer = connection.send(request).await;
            if answer.status == 429 {
                break;
            }
        }
        assert_eq!(connection.send(request).await.status, 429, "{subject}");
    }
    let admitted = upstream.count();
    let (mut waits, began) = (None::<Vec<u64>>, Instant::now());
    for round in 0..30 {
        let reloads = sidecar.metrics().await.value("keyside_reloads_total", &[("result", "ok")]);
        match round % 3 {
            0 => sidecar.signal(Signal::HUP),
            1 => sidecar.replace("keys.toml", file(round)),
            _ => {
                // Other limits for a while: looser and tighter, with more windows and fewer.
                let limits = match round % 4 {
                    0 => "per_ip = [\"6/2h\", \"5/1h\"]\nper_owner = [\"3/1h\", \"2/1m\"]",
                    1 => "per_ip = [\"4/30m\", \"5/1h\"]\nfailures_per_ip = [\"2/1h\", \"2/1d\"]",
                    2 => "per_ip = [\"5/1h\"]\nper_owner = [\"1/1h\"]",
                    _ => "per_ip = [\"5/1h\"]\nper_owner = [\"3/1h\"]\nfailures_per_ip = [\"2/1h\"]",
                };
                sidecar.reconfigure(&format!("[limits]\n{limits}"));
                assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 200, "round {round}");
            }
        }
        sidecar.measures("keyside_reloads_total", &[("result", "ok")], move |count| count > reloads).await;
        let mut now = Vec::new();
        for (subject, request, reason) in &requests {
            let answer = connection.send(request).await;
            assert_eq!(answer.status, 429, "{subject}, after reload {round}: {answer:?}");
            let logged = sidecar.logged(answer.field("x-request-id")).await;
            assert_eq!(logged["reason"], *reason, "{subject}, after reload {round}");
            now.push(retry_after(&answer));
        }
        let waits = waits.get_or_insert_with(|| now.clone());
        for ((subject, ..), (first, now)) in requests.iter().zip(waits.iter().zip(&now)) {
            let passed = began.elapsed().as_secs();
            assert!(now + passed + 2 >= *first, "{subject}, after reload {round}: {now} of {first}, {passed} later");
        }
    }
    assert_eq!(upstream.count(), admitted, "nothing was admitted meanwhile");
}
