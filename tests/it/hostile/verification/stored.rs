//! What is stored, and what is presented for it.

use std::time::{Duration, Instant};

use keyside::keys::secret::{Algorithm, Secret, SecretHash};

use super::{hashed, named, sidecar, slowly_hashed};
use crate::harness::{H1, Key, Sidecar, Upstream, get, key_file};

const SALT: &str = "c2FsdHNhbHRzYWx0";

/// A stored hash that must cost its key the key, and nobody anything else.
struct Row {
    rule: &'static str,
    source: &'static str,
    hash: String,
    /// What the log says is wrong with it.
    said: &'static str,
}

fn monstrous() -> Vec<Row> {
    let row = |rule, source, hash: String, said| Row { rule, source, hash, said };
    let argon2id = |parameters: &str| format!("$argon2id$v=19${parameters}${SALT}${}", "A".repeat(43));
    let bcrypt = |cost: &str| format!("$2y${cost}${}", "a".repeat(53));
    vec![
        row("4 GiB of memory", "RFC 9106 §3.1: m up to 2^32-1", argon2id("m=4194304,t=2,p=1"), "memory (m)"),
        row("all the memory there is", "RFC 9106 §3.1", argon2id("m=4294967295,t=1,p=1"), "memory (m)"),
        row("one KiB above the ceiling", "the ceiling itself", argon2id("m=262145,t=1,p=1"), "memory (m)"),
        row("less memory than lanes need", "RFC 9106 §3.1: m at least 8*p", argon2id("m=15,t=1,p=2"), "memory (m)"),
        row("passes for a year", "RFC 9106 §3.1: t up to 2^32-1", argon2id("m=64,t=4294967295,p=1"), "passes (t)"),
        row("no pass", "RFC 9106 §3.1: t at least 1", argon2id("m=64,t=0,p=1"), "passes (t)"),
        row("lanes without number", "RFC 9106 §3.1: p up to 2^24-1", argon2id("m=262144,t=1,p=16777215"), "lanes (p)"),
        row("no lane", "RFC 9106 §3.1: p at least 1", argon2id("m=64,t=1,p=0"), "lanes (p)"),
        row("a number beyond 32 bits", "RFC 9106 §3.1", argon2id("m=4294967360,t=1,p=1"), "must look like"),
        row("a signed number", "PHC string format: decimal digits alone", argon2id("m=+64,t=1,p=1"), "must look like"),
        row("a parameter too many", "PHC string format", argon2id("m=64,t=1,p=1,data=AAAA"), "must look like"),
        row(
            "a hash of one byte",
            "RFC 9106 §3.1: T at least 4",
            format!("$argon2id$v=19$m=64,t=1,p=1${SALT}$AA"),
            "hash",
        ),
        row(
            "a salt of a megabyte",
            "RFC 9106 §3.1: S up to 2^32-1 bytes",
            format!("$argon2id$v=19$m=64,t=1,p=1${}${}", "A".repeat(1 << 20), "A".repeat(43)),
            "salt",
        ),
        row("bcrypt for days", "bcrypt: cost up to 31", bcrypt("31"), "cost"),
        row("one step above the ceiling", "the ceiling itself", bcrypt("16"), "cost"),
        row("bcrypt for nothing", "bcrypt: cost at least 4", bcrypt("03"), "cost"),
        row("bcrypt with the sign bug", "CVE-2011-2483", bcrypt("10").replace("$2y$", "$2x$"), "$2x$"),
        row(
            "PBKDF2 of four milliards",
            "RFC 8018 §4.2: no upper bound on c",
            format!("$pbkdf2-sha256$i=4294967295${SALT}${}", "A".repeat(43)),
            "expected a hash that begins with",
        ),
        row(
            "scrypt of a terabyte",
            "RFC 7914 §2: N without bound",
            format!("$scrypt$ln=31,r=255,p=255${SALT}${}", "A".repeat(43)),
            "expected a hash that begins with",
        ),
        row("SHA-512 crypt of many rounds", "crypt(5)", "$6$rounds=999999999$salt$x".into(), "expected a hash"),
        row("no hash but the secret", "CWE-256", "cs_0123456789abcdef".into(), "expected a hash"),
        row("nothing", "an empty field", String::new(), "expected a hash"),
    ]
}

/// Key by key: that one is not accepted, the log says which and why, all others are served.
#[tokio::test]
async fn monstrous_parameters_set_one_key_aside() {
    let rows = monstrous();
    let good = Key::pair("good").argon2id();
    let keys: Vec<Key> = rows.iter().enumerate().map(|(n, row)| named(&format!("row-{n}")).hash(&row.hash)).collect();
    let upstream = Upstream::start().await;
    let began = Instant::now();
    let sidecar = sidecar(&upstream, "failures_per_ip = []", &[]).await;
    let plain = sidecar.resident_bytes();
    let all: Vec<(&Row, &Key)> = rows.iter().zip(&keys).collect();
    // So many at a time as the log names one by one; each time on other lines of the file.
    for (file, some) in all.chunks(16).enumerate() {
        let text = "#\n".repeat(500 * file) + &key_file(some.iter().map(|(_, key)| *key).chain([&good]));
        sidecar.replace("keys.toml", &text);
        for (row, key) in some {
            let rule = format!("{} ({})", row.rule, row.source);
            let place = text.lines().position(|line| line.contains(&format!("\"{}\"", key.id))).unwrap();
            let hash = text.lines().skip(place).position(|line| line.starts_with("hash = ")).unwrap() + place + 1;
            let place = format!("\"line\":{hash},");
            let said = |line: &str| (line.contains(&place) && line.contains(row.said)).then_some(());
            sidecar.log.find(&format!("{rule} on {place}"), said).await;
        }
        let aside = some.len() as f64;
        sidecar.measures("keyside_quarantined_entries", &[], move |count| count == aside).await;
        for (row, key) in some {
            let rule = format!("{} ({})", row.rule, row.source);
            assert_eq!(sidecar.ask(get("/").key(key)).await.brief(), "401 invalid_credentials", "{rule}");
            assert_eq!(sidecar.send_again(H1, get("/").key(&good)).await.status, 200, "{rule}: the others are served");
        }
    }
    assert!(began.elapsed() < Duration::from_secs(60), "it was computed with: {:?}", began.elapsed());
    let grown = sidecar.resident_bytes().saturating_sub(plain);
    assert!(grown < 128 << 20, "{grown} bytes more");
    assert_eq!(upstream.count(), rows.len());
}

/// A key that is good today and monstrous tomorrow is not served by what was known of it yesterday.
#[tokio::test]
async fn a_key_that_becomes_monstrous_is_not_served_from_memory() {
    let (key, other) = (Key::pair("key").argon2id(), Key::pair("other"));
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, "failures_per_ip = []", &[&key, &other]).await;
    assert_eq!(sidecar.send_again(H1, get("/").key(&key)).await.status, 200);
    let monster = key.clone().hash(&monstrous()[0].hash);
    sidecar.replace_keys([&monster, &other]);
    sidecar.measures("keyside_quarantined_entries", &[], |count| count >= 1.0).await;
    assert_eq!(sidecar.ask(get("/").key(&key)).await.brief(), "401 invalid_credentials");
    assert_eq!(sidecar.ask(get("/").key(&other)).await.status, 200);
}

fn kept_as(algorithm: Algorithm, key: Key) -> Key {
    let pepper = Secret::new(PEPPER.as_bytes());
    let hash = SecretHash::make(algorithm, &Secret::new(key.secret.as_bytes()), Some(&pepper)).unwrap();
    key.hash(hash.as_phc())
}

const PEPPER: &str = "a pepper of some length, made by a machine";
const ALGORITHMS: [Algorithm; 4] = [Algorithm::Argon2id, Algorithm::Bcrypt, Algorithm::HmacSha256, Algorithm::Sha256];

/// One key's secret is no other key's, before and after each was verified; and nothing that is stored is a secret.
#[tokio::test]
async fn a_secret_is_compared_with_the_named_key_alone() {
    let keys: Vec<Key> =
        ALGORITHMS.iter().map(|algorithm| kept_as(*algorithm, Key::pair(&algorithm.to_string()))).collect();
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream)
        .plaintext()
        .config("[keys]\npepper = { file = \"pepper\" }\n[limits]\nfailures_per_ip = []")
        .file("pepper", PEPPER)
        .keys(&keys)
        .start()
        .await;
    for round in ["before", "after"] {
        for key in &keys {
            for other in keys.iter().filter(|other| other.id != key.id) {
                let answer = sidecar.send_again(H1, get("/").basic(&key.public, &other.secret)).await;
                let rule = format!("{} with the secret of {}, {round} they were verified", key.id, other.id);
                assert_eq!(answer.brief(), "401 invalid_credentials", "{rule}");
            }
            let row = key.row();
            let stored =
                row.lines().find_map(|line| line.strip_prefix("hash = ")).unwrap().trim_matches('"').to_owned();
            let parts = stored.split('$').filter(|part| !part.is_empty()).map(str::to_owned);
            for (number, wrong) in parts.chain([stored.clone(), key.public.clone(), " ".into()]).enumerate() {
                let answer = sidecar.send_again(H1, get("/").basic(&key.public, &wrong)).await;
                assert_eq!(answer.status, 401, "{}: part {number} of what is stored, {round}", key.id);
            }
        }
        for key in &keys {
            assert_eq!(sidecar.send_again(H1, get("/").key(key)).await.status, 200, "{}", key.id);
        }
    }
    assert_eq!(upstream.count(), 2 * keys.len());
}

/// CVE-2026-85595: a name that nobody has is not a key with an empty secret, nor one with the decoy's.
#[tokio::test]
async fn an_unknown_key_has_no_secret() {
    let (alice, machine) = (named("alice").argon2id(), Key::pair("machine").argon2id());
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, "failures_per_ip = []", &[&alice, &machine]).await;
    assert_eq!(sidecar.send_again(H1, get("/").key(&alice)).await.status, 200);
    let names = ["mallory", "", "alice ", "Alice", "alic", "key_alice", "ck_0000000000000000000000000000000000000000"];
    for name in names {
        for secret in [&alice.secret, &machine.secret, "", "\u{0}", "null", "undefined", "$argon2id$"] {
            let answer = sidecar.send_again(H1, get("/").basic(name, secret)).await;
            assert_eq!(answer.brief(), "401 invalid_credentials", "{name:?} with {secret:?}");
        }
    }
    assert_eq!(upstream.count(), 1);
}

/// What is too long is not hashed; what bcrypt would not see counts all the same.
#[tokio::test]
async fn long_secrets_and_nul_are_refused_for_what_they_are() {
    let seventy_two = "s".repeat(72);
    let bcrypt = kept_as(Algorithm::Bcrypt, named("bcrypt").secret(&seventy_two));
    let short = kept_as(Algorithm::Bcrypt, named("short").secret("secret"));
    let argon2id = kept_as(Algorithm::Argon2id, named("argon"));
    let fast = Key::pair("fast");
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, "failures_per_ip = []", &[&bcrypt, &short, &argon2id, &fast]).await;
    for key in [&bcrypt, &short] {
        assert_eq!(sidecar.send_again(H1, get("/").key(key)).await.status, 200);
    }
    let slow = slowly_hashed(&sidecar).await;
    assert_eq!((slow, hashed(&sidecar, "bcrypt").await), (2.0, 2.0));

    // Before anything is hashed. The head that a megabyte needs is more than is read of any request.
    for key in [&bcrypt, &short, &argon2id, &fast] {
        for (length, status) in [(513, 401), (4096, 401), (64 << 10, 431), (1 << 20, 431)] {
            let answer = sidecar.ask(get("/").basic(&key.public, &"x".repeat(length))).await;
            assert_eq!(answer.status, status, "{} with {length} bytes: {answer:?}", key.id);
        }
        // A NUL is a control character, and such a pair is none (RFC 7617 §2).
        for secret in ["\u{0}", "secret\u{0}", "secret\u{0}more", "\u{0}secret"] {
            let answer = sidecar.ask(get("/").basic(&key.public, secret)).await;
            assert_eq!(answer.brief(), "401 invalid_credentials", "{} with {secret:?}", key.id);
        }
    }
    assert_eq!(slowly_hashed(&sidecar).await, slow);

    // bcrypt sees 72 bytes, and of each of these the right ones.
    for longer in [format!("{seventy_two}s"), format!("{seventy_two}{}", "x".repeat(400))] {
        let answer = sidecar.send_again(H1, get("/").basic(&bcrypt.public, &longer)).await;
        assert_eq!(answer.brief(), "401 invalid_credentials", "{} bytes", longer.len());
    }
    assert_eq!(sidecar.send_again(H1, get("/").basic(&bcrypt.public, &seventy_two[..71])).await.status, 401);
    assert_eq!(upstream.count(), 2);
}
