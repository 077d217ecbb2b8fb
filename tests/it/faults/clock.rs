//! A wall clock that is set while it runs, by libfaketime, which leaves the monotonic clock alone: limits do not notice,
//! expiry follows, and nobody is shut out by a clock that goes back.

use std::{fs, path::PathBuf, process::Command, time::SystemTime};

use crate::harness::{Builder, H1, Key, Sidecar, Upstream, eventually, get, keyside};

/// The library that stands between a process and its clock.
fn library() -> String {
    let output = Command::new("faketime").args(["-f", "+0", "printenv", "LD_PRELOAD"]).output();
    let output = output.expect("faketime, a package of Debian");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn in_seconds(seconds: i64) -> String {
    let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    jiff::Timestamp::from_second(i64::try_from(at).unwrap() + seconds).unwrap().to_string()
}

/// The file that says how far off a wall clock is. It is replaced whole, as the library reads it at every look at the clock.
struct FakedClock(PathBuf);

impl FakedClock {
    fn set(&self, offset: &str) {
        let written = self.0.with_extension("new");
        fs::write(&written, offset).unwrap();
        fs::rename(written, &self.0).unwrap();
    }
}

/// One whose wall clock is off by what the file says, which may be set at any time.
fn with_a_clock(builder: Builder) -> (Builder, FakedClock) {
    let clock = FakedClock(builder.folder().join("clock"));
    clock.set("+0");
    let builder = builder
        .environment("LD_PRELOAD", &library())
        .environment("FAKETIME_TIMESTAMP_FILE", clock.0.to_str().unwrap())
        .environment("FAKETIME_NO_CACHE", "1")
        .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .environment("NO_FAKE_STAT", "1");
    (builder, clock)
}

#[tokio::test]
async fn a_clock_that_jumps_moves_expiry_alone() {
    const HALF_HOUR: i64 = 1800;
    let expiring = |name: &str, seconds| Key::token(name).with(&format!("expires_at = {}", in_seconds(seconds)));
    let (soon, over) = (expiring("soon", HALF_HOUR), expiring("over", -HALF_HOUR));
    let later = expiring("later", 366 * 86400);
    let (plain, revoked) = (Key::token("plain"), Key::token("revoked").with("revoked_at = 2026-01-02T00:00:00Z"));
    let spent = Key::token("spent").with("limits = [\"3/1h\", \"3/1d\"]");
    let fresh = Key::token("fresh").with("limits = [\"100/1d\"]");
    let upstream = Upstream::start().await;
    let builder = Sidecar::in_front_of(&upstream).config("[limits]\nfailures_per_ip = [\"50/1m\"]");
    let (builder, clock) = with_a_clock(builder);
    let sidecar = builder.keys([&soon, &over, &later, &plain, &revoked, &spent, &fresh]).start().await;
    let mut connection = sidecar.connect(H1).await;
    for _ in 0..3 {
        assert_eq!(connection.send(&get("/").key(&spent)).await.status, 200);
    }
    // How far off the wall clock is, in seconds, and which of the keys that expire are good then.
    const TEN_YEARS: i64 = 3650 * 86400;
    let rows = [
        (0, [true, false, true]),
        (3600, [false, false, true]),
        (-3600, [true, true, true]),
        (TEN_YEARS, [false, false, false]),
        (-TEN_YEARS, [true, true, true]),
        (0, [true, false, true]),
    ];
    for (number, (offset, good)) in rows.into_iter().enumerate() {
        clock.set(&format!("{offset:+}"));
        // Its own word for the time it has, to the hour.
        eventually("the clock to show", async || {
            let answer = connection.send(&get("/").key(&plain)).await;
            assert_eq!(answer.status, 200, "{offset}: {answer:?}");
            let line = sidecar.logged(answer.field("x-request-id")).await;
            let expected = in_seconds(offset)[..13].to_owned();
            if line["time"].as_str().unwrap().starts_with(&expected) {
                Ok(())
            } else {
                Err(format!("{expected}: {line}"))
            }
        })
        .await;
        for (key, good) in [&soon, &over, &later].into_iter().zip(good) {
            let answer = connection.send(&get("/").key(key)).await;
            assert_eq!(answer.status, if good { 200 } else { 401 }, "{offset}: {}: {answer:?}", key.id);
        }
        // Nobody is let in, shut out, given anything back or made to wait for years.
        assert_eq!(connection.send(&get("/").key(&revoked)).await.status, 401, "{offset}");
        assert_eq!(connection.send(&get("/").key(&fresh)).await.status, 200, "{offset}");
        let limited = connection.send(&get("/").key(&spent)).await;
        assert_eq!(limited.brief(), "429 too_many_requests", "{offset}");
        let wait: u64 = limited.field("retry-after").parse().unwrap();
        assert!((86_000..=86_400).contains(&wait), "{offset}: {wait}");
        assert_eq!(sidecar.admin("GET", "/readyz").await.status, 200, "{offset}");
        // A change of the key file is still noticed.
        let added = Key::token(&format!("added-{number}"));
        sidecar.replace_keys([&soon, &over, &later, &plain, &revoked, &spent, &fresh, &added]);
        eventually("the new key", async || {
            let status = connection.send(&get("/").key(&added)).await.status;
            if status == 200 { Ok(()) } else { Err(format!("{offset}: {status}")) }
        })
        .await;
    }
}

/// What is saved at a time that never was does no harm at the next start: no allowance is new, nobody waits for years.
#[tokio::test]
async fn windows_that_were_saved_by_a_wrong_clock_lock_nobody_out() {
    for offset in ["+315360000", "+3600", "-3600"] {
        let spent = Key::token("spent").with("limits = [\"3/1d\"]");
        let plain = Key::token("plain");
        let upstream = Upstream::start().await;
        let builder = Sidecar::in_front_of(&upstream).config("[limits]\nfailures_per_ip = []");
        let (builder, clock) = with_a_clock(builder);
        let sidecar = builder.keys([&spent, &plain]).start().await;
        for expected in [200, 200, 200, 429] {
            assert_eq!(sidecar.ask(get("/").key(&spent)).await.status, expected);
        }
        let saved = sidecar.path("state/windows.ndjson");
        let text = eventually("the windows to be saved", async || match fs::read_to_string(&saved) {
            Ok(text) if text.contains("key_spent") => Ok(text),
            other => Err(other),
        })
        .await;
        // A clock that was set has all windows written anew. Two threads of the sidecar that look at the clock at once may
        // undo a setting in the library, which reads it again when it is spelt otherwise.
        let mut thousandths = 0..1000_u32;
        eventually("the windows to be saved by the other clock", async || {
            if let Some(part) = thousandths.next() {
                clock.set(&format!("{offset}.{part:03}"));
            }
            match fs::read_to_string(&saved) {
                Ok(now) if now != text && now.contains("key_spent") => Ok(()),
                other => Err(other),
            }
        })
        .await;
        // The real clock again, after a crash.
        let sidecar = sidecar.crash_and_restart().await;
        let answer = sidecar.ask(get("/").key(&spent)).await;
        assert_eq!(answer.status, 429, "{offset}: {answer:?}");
        let wait: u64 = answer.field("retry-after").parse().unwrap();
        assert!(wait <= 86_400, "{offset}: {wait}");
        assert_eq!(sidecar.ask(get("/").key(&plain)).await.status, 200, "{offset}");
        let config = sidecar.path("keyside.toml");
        let config = config.to_str().unwrap();
        let explain = ["explain", "--key", "key_spent", "--method", "GET", "--path", "/", "--ip", "127.0.0.1"];
        keyside(explain.into_iter().chain(["--config", config])).await.done();
        let listed = keyside(["keys", "list", "--output", "json", "--config", config]).await.done().json();
        assert!(listed[0]["last_used_at"].is_string() || listed[0].to_string().contains("last_used"), "{listed}");
    }
}

/// The moment at which a key ends, in any zone and of any size; what is no moment sets the key aside, for better safe.
#[tokio::test]
async fn a_moment_is_read_in_one_way() {
    let zoned = |hours: i64, offset: &str, seconds: i64| {
        let local = in_seconds(seconds + hours * 3600);
        format!("{}{offset}", local.trim_end_matches('Z'))
    };
    // RFC 3339 §5.6, and TOML's kinds of dates.
    let rows = [
        ("in UTC, to come", in_seconds(600), 200),
        ("in UTC, over", in_seconds(-600), 401),
        ("a second ago", in_seconds(-1), 401),
        ("in the east, to come", zoned(14, "+14:00", 600), 200),
        ("in the east, over, though its digits are to come", zoned(14, "+14:00", -600), 401),
        ("in the west, to come, though its digits are over", zoned(-11, "-11:00", 600), 200),
        ("in the west, over", zoned(-11, "-11:00", -600), 401),
        ("a space for the T", in_seconds(600).replace('T', " "), 200),
        ("parts of a second", in_seconds(600).replace('Z', ".123456789Z"), 200),
        ("the last year", "9999-12-31T00:00:00Z".into(), 200),
        ("beyond the last year", "10000-01-01T00:00:00Z".into(), 401),
        ("the first year", "0001-01-01T00:00:00Z".into(), 401),
        ("before all years", "-0001-01-01T00:00:00Z".into(), 401),
        ("no zone", in_seconds(86400).trim_end_matches('Z').into(), 401),
        ("a day alone", in_seconds(86400 * 2)[..10].into(), 401),
        ("a time alone", "12:00:00".into(), 401),
        ("the 30th of February", "2096-02-30T00:00:00Z".into(), 401),
        ("a number", "99999999999999".into(), 401),
        ("a number beyond all", "1e400".into(), 401),
        ("words", "\"never\"".into(), 401),
        ("nothing", "\"\"".into(), 401),
    ];
    let upstream = Upstream::start().await;
    for (what, moment, status) in rows {
        let key = Key::token("key").with(&format!("expires_at = {moment}"));
        let other = Key::token("other");
        let builder = Sidecar::in_front_of(&upstream).config("[limits]\nfailures_per_ip = []");
        let sidecar = builder.keys([&other]).start().await;
        sidecar.replace_keys([&key, &other]);
        // Where TOML itself knows no such moment, the file as a whole is refused.
        let taken = sidecar.admin("POST", "/-/reload").await.status;
        assert!(taken == 200 || status == 401, "{what}: {moment}: refused with {taken}");
        let answer = sidecar.ask(get("/").key(&key)).await;
        assert_eq!(answer.status, status, "{what}: {moment}: {answer:?}");
        assert_eq!(sidecar.ask(get("/").key(&other)).await.status, 200, "{what}: {moment}");
    }
}
