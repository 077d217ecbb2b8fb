//! Limits: who is charged what, what is told, and that it is exact. The windows themselves are held by property tests
//! beside their code; here they are met from outside.

use std::time::{Duration, Instant};

use crate::harness::{Answer, H1, H2, Key, Received, Sidecar, Upstream, get, key_file_of, post};

async fn sidecar(upstream: &Upstream, limits: &str, keys: &[&Key]) -> Sidecar {
    Sidecar::in_front_of(upstream).config(&format!("[limits]\n{limits}")).keys(keys.iter().copied()).start().await
}

fn retry_after(answer: &Received) -> u64 {
    answer.field("retry-after").parse().unwrap_or_else(|_| panic!("no Retry-After: {answer:?}"))
}

/// After so many seconds it passes, and a second earlier it would not have.
#[tokio::test]
async fn retry_after_is_the_first_second_that_passes() {
    let key = Key::pair("key").with("limits = [\"2/3s\"]");
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, "per_ip = []", &[&key]).await;
    let mut connection = sidecar.connect(H1).await;
    let mut ask = async || {
        let began = Instant::now();
        (began, connection.send(&get("/").key(&key)).await)
    };
    let (first, answer) = ask().await;
    assert_eq!(answer.status, 200);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(ask().await.1.status, 200);
    let (_, refused) = ask().await;
    let wait = retry_after(&refused);
    assert_eq!(refused.brief(), "429 too_many_requests");
    // The first one leaves the window three seconds after it came.
    let left = Duration::from_secs(3).saturating_sub(first.elapsed());
    assert!((1..=3).contains(&wait) && Duration::from_secs(wait) >= left, "{wait} with {left:?} left");
    assert!(Duration::from_secs(wait) < left + Duration::from_millis(1500), "{wait} with {left:?} left");
    tokio::time::sleep(Duration::from_secs(wait)).await;
    assert_eq!(ask().await.1.status, 200);
    // The second one still counts: strict, wherever the window begins.
    let (_, refused) = ask().await;
    if first.elapsed() < Duration::from_millis(4000) {
        assert_eq!(refused.status, 429);
    }
}

/// A refusal for failures waits for the address's own window, too, where that is used up; and the other way round.
#[tokio::test]
async fn retry_after_passes_for_failures_and_address_alike() {
    let (key, stranger) = (Key::pair("key"), Key::pair("stranger"));
    let upstream = Upstream::start().await;
    let rows = [
        ("per_ip = [\"3/1h\"]\nfailures_per_ip = [\"1/1m\"]", 60),
        ("per_ip = [\"2/1h\"]\nfailures_per_ip = [\"1/1m\"]", 3600),
        ("per_ip = [\"2/1m\"]\nfailures_per_ip = [\"1/1h\"]", 3600),
    ];
    let wrong = [
        get("/").basic(&key.public, "cs_wrong"),
        get("/").key(&stranger),
        get("/").field("Authorization", "Basic %%%"),
    ];
    for (limits, expected) in rows {
        let sidecar = sidecar(&upstream, limits, &[&key]).await;
        for (from, request) in (20..).zip(&wrong) {
            let mut connection = sidecar.connect_from([127, 0, 0, from].into(), H1).await;
            assert_eq!(connection.send(request).await.status, 401);
            let refused = connection.send(request).await;
            assert_eq!(sidecar.logged(refused.field("x-request-id")).await["reason"], "failure_limit");
            let wait = retry_after(&refused);
            assert!(wait <= expected && wait + 50 > expected, "{limits}: {request:?}: {refused:?}");
        }
    }
}

/// One window admits what it says over any span, from many connections at once.
#[tokio::test]
async fn no_span_admits_more_than_the_limit() {
    let key = Key::pair("key").with("limits = [\"20/2s\"]");
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, "per_ip = []", &[&key]).await;
    let load = crate::harness::Load::on(&sidecar, &[H1, H1, H2, H2], &get("/").key(&key));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut passed: Vec<_> = load.stop().await.into_iter().filter(|sent| sent.result == Ok(200)).collect();
    passed.sort_by_key(|sent| sent.began);
    assert!(passed.len() >= 40, "{}", passed.len());
    // Each was admitted between its beginning and its end, and not always in the order in which they began: what proves
    // too much is 21 that all began and ended within one window.
    for some in passed.windows(21) {
        let last = some.iter().map(|sent| sent.ended).max().unwrap();
        let between = last.duration_since(some[0].began);
        assert!(between >= Duration::from_secs(2), "21 requests within {between:?}");
    }
}

#[tokio::test]
async fn each_window_of_each_subject_is_told() {
    let owners = "[[owner]]\nid = \"acme\"\n";
    let key = Key::pair("key").with("limits = [\"10/1m\", \"100/1h\"]");
    let upstream = Upstream::start().await;
    let config = "[limits]\nper_ip = [\"50/1m\"]\nper_owner = [\"1000/1d\"]";
    let sidecar = Sidecar::in_front_of(&upstream).config(config).key_file(key_file_of(owners, [&key])).start().await;
    for (number, version) in [(1, H1), (2, H2), (3, H1)] {
        let answer = sidecar.send(version, get("/").key(&key)).await;
        let policies = answer.field("ratelimit-policy");
        let expected =
            r#""ip-60s";q=50;w=60, "key-60s";q=10;w=60, "key-3600s";q=100;w=3600, "owner-86400s";q=1000;w=86400"#;
        assert_eq!(policies, expected, "{answer:?}");
        let remaining: Vec<(String, u32)> = answer
            .field("ratelimit")
            .split(", ")
            .map(|member| {
                let parts: Vec<&str> = member.split(';').collect();
                let (name, r, t) = (parts[0].trim_matches('"'), parts[1], parts[2]);
                assert!(t.starts_with("t="), "{member}");
                (name.to_owned(), r.strip_prefix("r=").unwrap().parse().unwrap())
            })
            .collect();
        let left = |limit: u32| limit - number;
        let expected =
            [("ip-60s", left(50)), ("key-60s", left(10)), ("key-3600s", left(100)), ("owner-86400s", left(1000))];
        assert_eq!(remaining, expected.map(|(name, left)| (name.to_owned(), left)));
        // The tightest window alone, in the older words.
        assert_eq!(answer.field("x-ratelimit-limit"), "10");
        assert_eq!(answer.field("x-ratelimit-remaining"), (10 - number).to_string());
        let reset: u64 = answer.field("x-ratelimit-reset").parse().unwrap();
        assert!((1..=60).contains(&reset), "{reset}");
    }
    // Who is not known learns of the address alone.
    let answer = sidecar.ask(get("/").basic(&key.public, "cs_wrong")).await;
    assert_eq!((answer.status, answer.field("ratelimit-policy")), (401, "\"ip-60s\";q=50;w=60"), "{answer:?}");
    // Who is refused learns what is used up.
    let answer = loop {
        let answer = sidecar.ask(get("/").key(&key)).await;
        if answer.status != 200 {
            break answer;
        }
    };
    assert_eq!(answer.field("x-ratelimit-remaining"), "0");
    assert!(answer.json()["violated-policies"].to_string().contains("key-60s"), "{answer:?}");
    sidecar.measures("keyside_limit_near_total", &[], |count| count >= 1.0).await;
}

#[tokio::test]
async fn the_fields_are_those_asked_for() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    for (setting, draft, legacy) in
        [("draft", true, false), ("legacy", false, true), ("both", true, true), ("none", false, false)]
    {
        let sidecar = sidecar(&upstream, &format!("per_key = [\"5/1m\"]\nheaders = {setting:?}"), &[&key]).await;
        for _ in 0..6 {
            let answer = sidecar.ask(get("/").key(&key)).await;
            assert_eq!((answer.has("ratelimit"), answer.has("ratelimit-policy")), (draft, draft), "{setting}");
            assert_eq!(answer.has("x-ratelimit-limit"), legacy, "{setting}");
            assert_eq!(answer.status == 429, answer.has("retry-after"), "{setting}");
        }
    }
}

/// An intermediary does not loosen what the origin says: ours is added behind it.
#[tokio::test]
async fn the_upstreams_own_limits_stay() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let theirs = [("RateLimit", "\"api\";r=1;t=5"), ("RateLimit-Policy", "\"api\";q=2;w=60")];
    upstream.on("/", Answer::with(200, &theirs, "ok"));
    let sidecar = sidecar(&upstream, "per_key = [\"5/1m\"]", &[&key]).await;
    let answer = sidecar.ask(get("/").key(&key)).await;
    assert_eq!(answer.all("ratelimit-policy").join(", "), "\"api\";q=2;w=60, \"key-60s\";q=5;w=60");
    assert!(answer.all("ratelimit").join(", ").starts_with("\"api\";r=1;t=5, \"key-60s\";r=4;t="), "{answer:?}");
}

/// An address is charged for all that it sends; a key only for what it was permitted.
#[tokio::test]
async fn each_is_charged_for_its_own() {
    let key = Key::pair("key").with("limits = [\"3/1h\"]");
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, "per_ip = [\"10/1h\"]\nfailures_per_ip = []", &[&key]).await;
    let ask = async |request| sidecar.ask(request).await.brief();
    // Seven that are refused cost the address seven, the key nothing.
    for _ in 0..2 {
        assert_eq!(ask(get("/")).await, "401 missing_credentials");
        assert_eq!(ask(get("/").basic(&key.public, "cs_wrong")).await, "401 invalid_credentials");
        assert_eq!(ask(post("/", "").key(&key)).await, "403 insufficient_scope");
    }
    assert_eq!(ask(get("/a/../b")).await, "400 bad_request");
    for _ in 0..3 {
        assert_eq!(ask(get("/").key(&key)).await, "200");
    }
    // One is left for the address: the unclear message did not even get that far.
    assert_eq!(ask(get("/").key(&key)).await, "429 too_many_requests");
    let answer = sidecar.ask(get("/").key(&key)).await;
    assert_eq!(sidecar.logged(answer.field("x-request-id")).await["reason"], "ip_limit");
    // What the address is refused costs it nothing more, and others nothing at all.
    let mut neighbour = sidecar.connect_from("127.0.0.9".parse().unwrap(), H1).await;
    assert_eq!(neighbour.send(&get("/").key(&key)).await.brief(), "429 too_many_requests");
    assert_eq!(neighbour.send(&get("/")).await.status, 401);
    sidecar.counts("keyside_rejections_total", &[("reason", "key_limit")], 2).await;
    sidecar.counts("keyside_rejections_total", &[("reason", "ip_limit")], 1).await;
}

/// All windows are taken or none: what one refuses is not charged to the other.
#[tokio::test]
async fn windows_are_taken_together_or_not_at_all() {
    let key = Key::pair("key").with("limits = [\"2/2s\", \"4/1h\"]");
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, "per_ip = []", &[&key]).await;
    let mut passed = 0;
    for _ in 0..2 {
        for _ in 0..10 {
            passed += usize::from(sidecar.ask(get("/").key(&key)).await.status == 200);
        }
        tokio::time::sleep(Duration::from_millis(2300)).await;
    }
    assert_eq!(passed, 4);
    let refused = sidecar.ask(get("/").key(&key)).await;
    assert!(retry_after(&refused) > 3000, "{refused:?}");
}

/// A key's allowance: its own limits, else its owner's plan, else the general one.
#[tokio::test]
async fn a_keys_allowance_is_its_own_or_its_plans_or_everyones() {
    let owners = "[[owner]]\nid = \"paying\"\nplan = \"pro\"\n[[owner]]\nid = \"other\"\n";
    let own = Key::pair("own").owner("paying").with("limits = [\"1/1h\"]");
    let (planned, also_planned) = (Key::pair("planned").owner("paying"), Key::pair("also").owner("paying"));
    let general = Key::pair("general").owner("other");
    let keys = [&own, &planned, &also_planned, &general];
    let upstream = Upstream::start().await;
    let config = "[limits]\nper_ip = []\nper_key = [\"3/1h\"]\n[limits.plans]\npro = [\"2/1h\"]";
    let sidecar = Sidecar::in_front_of(&upstream).config(config).key_file(key_file_of(owners, keys)).start().await;
    for (key, allowance) in keys.into_iter().zip([1, 2, 2, 3]) {
        let mut passed = 0;
        while sidecar.ask(get("/").key(key)).await.status == 200 {
            passed += 1;
        }
        assert_eq!(passed, allowance, "{}", key.id);
    }
}

#[tokio::test]
async fn the_keys_of_an_owner_share_its_limit() {
    let owners = "[[owner]]\nid = \"acme\"\n[[owner]]\nid = \"other\"\n";
    let (one, two, other) = (Key::pair("one"), Key::token("two"), Key::pair("other").owner("other"));
    let upstream = Upstream::start().await;
    let config = "[limits]\nper_ip = []\nper_owner = [\"3/1h\"]";
    let file = key_file_of(owners, [&one, &two, &other]);
    let sidecar = Sidecar::in_front_of(&upstream).config(config).key_file(file).start().await;
    let statuses = async |keys: &[&Key]| {
        let mut all = Vec::new();
        for key in keys {
            all.push(sidecar.ask(get("/").key(key)).await.status);
        }
        all
    };
    assert_eq!(statuses(&[&one, &two, &one, &two, &one, &other]).await, [200, 200, 200, 429, 429, 200]);
    sidecar.counts("keyside_rejections_total", &[("reason", "owner_limit")], 2).await;
}

/// Failures are charged to the address; who was verified here is not locked out by a neighbour who guesses.
#[tokio::test]
async fn guessing_locks_out_the_guesser_and_nobody_else() {
    let (known, unseen) = (Key::pair("known"), Key::pair("unseen"));
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, "per_ip = []\nfailures_per_ip = [\"5/1h\"]", &[&known, &unseen]).await;
    assert_eq!(sidecar.ask(get("/").key(&known)).await.status, 200);
    let wrong = [
        get("/").basic(&known.public, "cs_wrong"),
        get("/").key(&Key::pair("stranger")),
        get("/").bearer("ck_live_unknown"),
        get("/").field("Authorization", "Basic %%%"),
        get("/").basic(&unseen.public, "cs_wrong"),
    ];
    // Missing ones are not failures.
    for _ in 0..10 {
        assert_eq!(sidecar.ask(get("/")).await.status, 401);
    }
    for request in &wrong {
        assert_eq!(sidecar.ask(request.clone()).await.brief(), "401 invalid_credentials");
    }
    for request in &wrong {
        let answer = sidecar.ask(request.clone()).await;
        assert_eq!(answer.brief(), "429 too_many_requests", "{answer:?}");
    }
    let guess = sidecar.ask(get("/").basic(&known.public, "cs_wrong")).await;
    assert_eq!(guess.brief(), "429 too_many_requests");
    assert!(retry_after(&guess) > 3000);
    for version in [H1, H2] {
        assert_eq!(sidecar.send(version, get("/").key(&known)).await.status, 200, "the neighbour, verified before");
        // Right or wrong: it is not looked at, so that nothing can be learnt.
        assert_eq!(sidecar.send(version, get("/").key(&unseen)).await.brief(), "429 too_many_requests");
    }
    let mut elsewhere = sidecar.connect_from("127.0.0.8".parse().unwrap(), H1).await;
    assert_eq!(elsewhere.send(&get("/").key(&unseen)).await.status, 200, "another address");
    // And with that it is verified here.
    assert_eq!(sidecar.ask(get("/").key(&unseen)).await.status, 200);
}

/// Nobody spends another one's allowance by failing with their key.
#[tokio::test]
async fn a_wrong_secret_costs_the_key_nothing() {
    let key = Key::pair("key").with("limits = [\"2/1h\"]");
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, "per_ip = []\nper_owner = [\"2/1h\"]\nfailures_per_ip = []", &[&key]).await;
    for _ in 0..20 {
        assert_eq!(sidecar.ask(get("/").basic(&key.public, "cs_wrong")).await.status, 401);
    }
    for status in [200, 200, 429] {
        assert_eq!(sidecar.ask(get("/").key(&key)).await.status, status);
    }
}

#[tokio::test]
async fn some_addresses_and_routes_take_nothing() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let config = r#"
        [limits]
        per_ip = ["2/1h"]
        exempt = ["127.0.0.7", "10.0.0.0/8"]
        failures_per_ip = ["3/1h"]
        [[route]]
        path = "/probe"
        public = true
        limits = false
        [[route]]
        path = "/**"
    "#;
    let sidecar = Sidecar::in_front_of(&upstream).config(config).keys([&key]).start().await;
    for _ in 0..5 {
        let answer = sidecar.ask(get("/probe")).await;
        assert_eq!((answer.status, answer.has("ratelimit")), (200, false));
    }
    for status in [200, 200, 429] {
        assert_eq!(sidecar.ask(get("/").key(&key)).await.status, status);
    }
    let mut exempt = sidecar.connect_from("127.0.0.7".parse().unwrap(), H1).await;
    for _ in 0..5 {
        assert_eq!(exempt.send(&get("/").key(&key)).await.status, 200);
    }
    // Its failures count all the same.
    for status in [401, 401, 401, 429] {
        assert_eq!(exempt.send(&get("/").basic(&key.public, "cs_wrong")).await.status, status);
    }
}

/// Behind a trusted proxy each caller has its own; of IPv6 a whole /64 is one caller.
#[tokio::test]
async fn callers_behind_a_proxy_are_told_apart() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let config = "[listen]\ntrusted_proxies = [\"127.0.0.1\"]\n[limits]\nper_ip = [\"1/1h\"]";
    let sidecar = Sidecar::in_front_of(&upstream).config(config).keys([&key]).start().await;
    let mut connection = sidecar.connect(H1).await;
    let mut ask = async |from: &str| connection.send(&get("/").key(&key).field("X-Forwarded-For", from)).await.status;
    let rows = [
        ("192.0.2.1", 200),
        ("192.0.2.2", 200),
        ("192.0.2.1", 429),
        ("::ffff:192.0.2.2", 429),
        ("2001:db8:0:1::1", 200),
        ("2001:db8:0:1:ffff::2", 429),
        ("2001:db8:0:2::1", 200),
    ];
    for (from, status) in rows {
        assert_eq!(ask(from).await, status, "{from}");
    }
    sidecar.measures("keyside_limiter_entries", &[], |count| count >= 4.0).await;
}

/// What one has used of a day is not given back by a restart, a crash or a reload.
#[tokio::test]
async fn long_windows_survive() {
    let key = Key::pair("key").with("limits = [\"5/1d\"]");
    let upstream = Upstream::start().await;
    let mut sidecar = sidecar(&upstream, "per_ip = [\"9/1d\"]", &[&key]).await;
    let mut left = 5;
    for step in ["restart", "crash", "reload"] {
        let answer = sidecar.ask(get("/").key(&key)).await;
        left -= 1;
        assert_eq!(answer.field("x-ratelimit-remaining"), left.to_string(), "before the {step}: {answer:?}");
        sidecar = match step {
            "restart" => sidecar.restart().await,
            "crash" => {
                // Saved each second: so long it may be lost.
                tokio::time::sleep(Duration::from_millis(2500)).await;
                sidecar.crash_and_restart().await
            }
            _ => {
                sidecar.reconfigure("[upstream]\nmax_in_flight = 99");
                assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 200);
                sidecar
            }
        };
    }
    let answer = sidecar.ask(get("/").key(&key)).await;
    assert_eq!((answer.status, answer.field("x-ratelimit-remaining")), (200, "1"), "{answer:?}");
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 429);
}

/// Nor does a reload give anybody a fresh allowance in a short window.
#[tokio::test]
async fn a_reload_gives_nothing_back() {
    let key = Key::pair("key").with("limits = [\"1/1m\"]");
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, "per_ip = []", &[&key]).await;
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    for round in 0..3 {
        sidecar.replace_keys([&key.clone().with(&format!("expires_at = 203{round}-01-01T00:00:00Z"))]);
        assert_eq!(sidecar.admin("POST", "/-/reload").await.status, 200);
        assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 429);
    }
}

/// Without `[limits]`, nothing is limited but failures.
#[tokio::test]
async fn without_a_section_only_failures_are_limited() {
    let key = Key::pair("key");
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).keys([&key]).start().await;
    let mut connection = sidecar.connect(H1).await;
    for _ in 0..100 {
        let answer = connection.send(&get("/").key(&key)).await;
        assert_eq!((answer.status, answer.has("ratelimit")), (200, false));
    }
    let mut statuses = Vec::new();
    for _ in 0..25 {
        statuses.push(connection.send(&get("/").basic(&key.public, "cs_wrong")).await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 20, "{statuses:?}");
}
