//! How a caller may say who it is, and what is not taken for it.

use hmac::{Hmac, KeyInit as _, Mac as _};
use keyside::keys::secret::{Algorithm, Secret, SecretHash};
use sha2::Sha256;

use crate::harness::{H1, H2, Key, Request, Sidecar, Upstream, get, hex, post};

const ALL: &str = r#"
    [credentials]
    header = "X-API-Key"
    query = { key = "consumer_key", secret = "consumer_secret" }
    [limits]
    failures_per_ip = ["10000/1m"]
"#;

async fn sidecar(upstream: &Upstream, config: &str, keys: &[&Key]) -> Sidecar {
    Sidecar::in_front_of(upstream).config(config).keys(keys.iter().copied()).start().await
}

#[tokio::test]
async fn a_credential_may_come_in_each_way_that_is_switched_on() {
    let (pair, token) = (Key::pair("pair"), Key::token("token"));
    let (other_pair, other_token) = (Key::pair("other"), Key::token("other-token"));
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, ALL, &[&pair, &token, &other_pair, &other_token]).await;
    let authorization = |value: String| get("/").field("Authorization", value);
    let query = |key: &str, secret: &str| get(&format!("/?consumer_key={key}&consumer_secret={secret}"));
    let basic = pair.authorization().split_once(' ').unwrap().1.to_owned();
    let rows: Vec<(&str, Request, u16)> = vec![
        ("Basic", get("/").key(&pair), 200),
        ("Bearer", get("/").key(&token), 200),
        ("the named header", get("/").field("X-API-Key", &token.secret), 200),
        ("the named header in lower case", get("/").field("x-api-key", &token.secret), 200),
        ("a token as Basic user without password", get("/").basic(&token.secret, ""), 200),
        ("the query", query(&pair.public, &pair.secret), 200),
        ("the query, escaped", query(&pair.public.replace('_', "%5F"), &pair.secret), 200),
        ("a scheme in any case", authorization(format!("bAsIc {basic}")), 200),
        ("Bearer in any case", authorization(format!("BEARER {}", token.secret)), 200),
        ("a token with a password", get("/").basic(&token.secret, "x"), 401),
        ("a pair as Bearer", get("/").bearer(&pair.secret), 401),
        ("another pair's secret", get("/").basic(&pair.public, &other_pair.secret), 401),
        ("another token's end", get("/").bearer(&format!("{}{}", token.public, &other_token.secret[14..])), 401),
        ("an empty secret", get("/").basic(&pair.public, ""), 401),
        ("an empty user", get("/").basic("", &pair.secret), 401),
        ("an empty header", get("/").field("X-API-Key", ""), 401),
        ("no base64", authorization("Basic ck:cs".into()), 401),
        ("another scheme", authorization("Digest username=\"x\"".into()), 401),
        ("a key without a secret in the query", get(&format!("/?consumer_key={}", pair.public)), 401),
        ("the shown part of a token", get("/").bearer(&token.public), 401),
        ("a longer token", get("/").bearer(&format!("{}0", token.secret)), 401),
        ("a shorter token", get("/").bearer(&token.secret[..token.secret.len() - 1]), 401),
        ("another case", get("/").bearer(&token.secret.to_uppercase()), 401),
        ("a very long secret", get("/").basic(&pair.public, &"s".repeat(5000)), 401),
    ];
    for (rule, request, status) in rows {
        for version in [H1, H2] {
            let answer = sidecar.send(version, request.clone()).await;
            assert_eq!(answer.status, status, "{rule} over {version:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn two_different_credentials_are_none() {
    let (pair, token) = (Key::pair("pair"), Key::token("token"));
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, ALL, &[&pair, &token]).await;
    let query = format!("/?consumer_key={}&consumer_secret={}", pair.public, pair.secret);
    let rows = [
        ("Basic and header", get("/").key(&pair).field("X-API-Key", &token.secret)),
        ("Bearer and query", get(&query).key(&token)),
        ("header and query", get(&query).field("X-API-Key", &token.secret)),
        ("Basic and Bearer", get("/").key(&pair).key(&token)),
        ("Basic, twice", get("/").key(&pair).key(&pair)),
        ("the header, twice", get("/").field("X-API-Key", &token.secret).field("X-API-Key", "other")),
        ("right and wrong", get("/").key(&pair).field("X-API-Key", "wrong")),
        ("a list in one field", get("/").field("Authorization", format!("{}, Bearer x", pair.authorization()))),
        ("the query, twice", get(&format!("{query}&consumer_key=ck_other"))),
        ("the query, with an alias", get(&format!("{query}&consumer.secret=cs_other"))),
    ];
    for (rule, request) in rows {
        for version in [H1, H2] {
            let answer = sidecar.send(version, request.clone()).await;
            // A list in one field is one malformed credential; either way it is refused.
            assert!([400, 401].contains(&answer.status), "{rule} over {version:?}: {answer:?}");
            if !rule.contains("list") {
                assert_eq!(answer.brief(), "400 bad_request", "{rule} over {version:?}");
            }
        }
    }
    assert_eq!(upstream.count(), 0);
}

/// White space around a pasted secret: never accepted, and the operator learns that it is the only fault.
#[tokio::test]
async fn white_space_around_a_secret_is_wrong_and_said() {
    let pair = Key::pair("pair");
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, ALL, &[&pair]).await;
    for (index, padded) in [" S", "S ", "S\n", "\tS", "S\r\n", " S "].iter().enumerate() {
        let id = format!("padded-{index}");
        let request = get("/").basic(&pair.public, &padded.replace('S', &pair.secret)).field("X-Request-Id", &id);
        assert_eq!(sidecar.ask(request).await.brief(), "401 invalid_credentials", "{padded:?}");
        let line = sidecar.logged(&id).await;
        assert!(line["note"].as_str().is_some_and(|note| note.contains("white space")), "{padded:?}: {line}");
        assert!(!line.to_string().contains(&pair.secret));
    }
    let wrong = get("/").basic(&pair.public, "cs_wrong ").field("X-Request-Id", "wrong");
    assert_eq!(sidecar.ask(wrong).await.status, 401);
    let line = sidecar.logged("wrong").await;
    assert!(!line["note"].to_string().contains("would"), "{line}");
    assert_eq!(upstream.count(), 0);
}

/// What is switched off is no credential: not asked for, not taken, not stripped.
#[tokio::test]
async fn only_what_is_switched_on_counts() {
    let (pair, token) = (Key::pair("pair"), Key::token("token"));
    let upstream = Upstream::start().await;
    let query = format!("/?consumer_key={}&consumer_secret={}", pair.public, pair.secret);
    let all = || [get("/").key(&pair), get("/").key(&token), get("/").field("X-API-Key", &token.secret), get(&query)];
    let rows = [
        ("", [200, 200, 401, 401], vec!["Basic", "Bearer"]),
        ("basic = false", [401, 200, 401, 401], vec!["Bearer"]),
        ("bearer = false", [200, 401, 401, 401], vec!["Basic"]),
        ("basic = false\nbearer = false\nheader = \"X-API-Key\"", [401, 401, 200, 401], vec!["ApiKey"]),
    ];
    for (settings, statuses, schemes) in rows {
        let config = format!("[credentials]\n{settings}\n[limits]\nfailures_per_ip = [\"10000/1m\"]");
        let sidecar = sidecar(&upstream, &config, &[&pair, &token]).await;
        for (request, status) in all().into_iter().zip(statuses) {
            let answer = sidecar.ask(request.clone()).await;
            assert_eq!(answer.status, status, "{settings}: {request:?}");
            if status == 401 {
                assert_eq!(answer.code(), "missing_credentials", "{settings}: {request:?}");
                let challenges = answer.all("www-authenticate");
                let named: Vec<&str> = challenges.iter().filter_map(|challenge| challenge.split(' ').next()).collect();
                assert_eq!(named, schemes, "{settings}");
            }
        }
    }
    // A field that is no credential here is an ordinary field.
    let sidecar = sidecar(&upstream, "", &[&pair]).await;
    assert_eq!(sidecar.ask(get("/?consumer_key=x").key(&pair).field("X-API-Key", "own")).await.status, 200);
    assert_eq!(
        (upstream.last().field("x-api-key").as_str(), upstream.last().target().as_str()),
        ("own", "/?consumer_key=x")
    );
}

/// Secrets are kept in the forms that Keyside makes and in those found elsewhere.
#[tokio::test]
async fn each_form_of_stored_hash_is_checked() {
    let pepper = "a pepper of some length, made by a machine";
    let make = |algorithm, secret: &str| {
        let pepper = Secret::new(pepper.as_bytes());
        SecretHash::make(algorithm, &Secret::new(secret.as_bytes()), Some(&pepper)).unwrap().as_phc().to_owned()
    };
    let keys: Vec<Key> = [Algorithm::Argon2id, Algorithm::HmacSha256, Algorithm::Bcrypt, Algorithm::Sha256]
        .into_iter()
        .map(|algorithm| {
            let key = Key::pair(&algorithm.to_string());
            let hash = make(algorithm, &key.secret);
            key.hash(&hash)
        })
        .collect();
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream)
        .config("[keys]\npepper = { file = \"pepper\" }\n[limits]\nfailures_per_ip = [\"10000/1m\"]")
        .file("pepper", pepper)
        .keys(&keys)
        .start()
        .await;
    for key in &keys {
        // A right secret is known from then on, and a wrong one is still wrong.
        for (secret, status) in [("cs_wrong", 401), (&key.secret, 200), ("cs_wrong", 401), (&key.secret, 200)] {
            let answer = sidecar.send_again(H1, get("/").basic(&key.public, secret)).await;
            assert_eq!(answer.status, status, "{}: {answer:?}", key.id);
        }
    }
    for path in ["argon2id", "bcrypt", "hmac", "cached"] {
        sidecar.measures("keyside_verifications_total", &[("path", path)], |count| count >= 1.0).await;
    }
}

/// A public part that is known only by its digest, as in WooCommerce's table.
#[tokio::test]
async fn a_key_may_be_known_by_a_digest_of_its_public_part() {
    let key = Key::pair("key");
    let mut mac = Hmac::<Sha256>::new_from_slice(b"wc-api").unwrap();
    mac.update(key.public.as_bytes());
    let digest = hex(&mac.finalize().into_bytes());
    let row = key
        .row()
        .replace(&format!("prefix = \"{}\"", key.public), &format!("lookup = \"hmac-sha256:wc-api:{digest}\""));
    let upstream = Upstream::start().await;
    let sidecar = Sidecar::in_front_of(&upstream).key_file(format!("{row}[end]\nowners = 0\nkeys = 1\n")).start().await;
    assert_eq!(sidecar.ask(get("/").key(&key)).await.status, 200);
    assert_eq!(sidecar.ask(get("/").basic(&key.public, "cs_wrong")).await.status, 401);
    assert_eq!(sidecar.ask(get("/").basic(&digest, &key.secret)).await.status, 401);
}

/// Not the connection is authenticated but each request on it.
#[tokio::test]
async fn each_request_is_judged_by_its_own_credential() {
    let reader = Key::pair("reader");
    let writer = Key::pair("writer").scopes(["read_write"]).owner("other");
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, ALL, &[&reader, &writer]).await;
    for version in [H1, H2] {
        let mut connection = sidecar.connect(version).await;
        for _ in 0..3 {
            assert_eq!(connection.send(&post("/", "").key(&writer)).await.status, 200);
            assert_eq!(upstream.last().field("x-key-owner"), "other");
            assert_eq!(connection.send(&get("/").key(&reader)).await.status, 200);
            assert_eq!(upstream.last().field("x-key-owner"), "acme");
            assert_eq!(connection.send(&get("/")).await.status, 401);
        }
    }
}

/// Tokens made elsewhere may begin alike: each of them is tried, and who has none of them has failed once.
#[tokio::test]
async fn tokens_that_begin_alike_are_all_tried() {
    let tokens = [1, 2, 3].map(|number| {
        let mut key = Key::token(&format!("token-{number}")).secret(&format!("sk_live_legacy_{number}_of_three"));
        key.public = "sk_live_".into();
        key.argon2id()
    });
    let upstream = Upstream::start().await;
    let sidecar = sidecar(&upstream, "[limits]\nfailures_per_ip = [\"2/1h\"]", &tokens.each_ref()).await;
    for token in tokens.iter().chain(&tokens) {
        assert_eq!(sidecar.send_again(H1, get("/").bearer(&token.secret)).await.status, 200, "{}", token.id);
        assert_eq!(upstream.last().field("x-key-id"), token.id);
    }
    // Two failures are allowed, and three tokens are tried each time.
    for status in [401, 401, 429] {
        assert_eq!(sidecar.send_again(H1, get("/").bearer("sk_live_legacy_4_of_three")).await.status, status);
    }
}
