//! `keys identify`: which keys stand in a text that was found somewhere. Read from standard input, never from the
//! command line, and no secret is shown again.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::Desk;
use crate::harness::{Ended, Key, key_file, keyside_with_input};

async fn identify(desk: &Desk, text: &str) -> Ended {
    let file = desk.path("keys.toml");
    keyside_with_input(["keys", "identify", "--file", file.to_str().unwrap(), "--output", "json"], text).await
}

/// What a finding says: what it is, whose, proven or not, ours or not.
fn brief(found: &Value) -> (String, Value, Value, Value) {
    let field = |name: &str| found.get(name).cloned().unwrap_or_default();
    (found["is"].as_str().unwrap_or_default().to_owned(), field("key"), field("verified"), field("ours"))
}

/// From a string alone: which key it is, or that it was never one of ours.
#[tokio::test]
async fn a_string_alone_tells_which_key_it_is() {
    let desk = Desk::new();
    let minted = ["keys", "create", "--owner", "acme", "--scope", "read", "--name"];
    let pair = desk.json(&[&minted[..], &["Pair"]].concat()).await;
    let token = desk.json(&[&minted[..], &["Token", "--kind", "token"]].concat()).await;
    let gone = desk.json(&[&minted[..], &["Gone", "--kind", "token"]].concat()).await;
    desk.run(&["keys", "delete", gone["id"].as_str().unwrap(), "--yes"]).await.done();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mistyped = {
        let token = text(&token["token"]);
        let last = if token.ends_with('x') { "y" } else { "x" };
        format!("{}{last}", &token[..token.len() - 1])
    };
    let rows = [
        (text(&pair["consumer_key"]), "consumer key of a pair", &pair["id"], Value::Null, json!(true)),
        (text(&pair["consumer_secret"]), "consumer secret of a pair", &pair["id"], json!(true), json!(true)),
        (text(&token["token"]), "token minted by Keyside", &token["id"], json!(true), json!(true)),
        (text(&token["prefix"]), "shown prefix of a token", &token["id"], Value::Null, json!(true)),
        (format!("  {}\n", text(&token["token"])), "token minted by Keyside", &token["id"], json!(true), json!(true)),
        (mistyped, "token, mistyped or from elsewhere", &token["id"], json!(false), Value::Null),
        // Deleted: no row knows it any more; its checksum still says that a Keyside minted it, and not which one.
        (text(&gone["token"]), "token minted by Keyside", &Value::Null, Value::Null, Value::Null),
        (format!("cs_{}", "1".repeat(40)), "consumer secret of a pair", &Value::Null, Value::Null, Value::Null),
        (
            format!("ck_live_{}", "4eC39HqLyjWDarjtT1zdp7dc"),
            "token, mistyped or from elsewhere",
            &Value::Null,
            Value::Null,
            json!(false),
        ),
    ];
    for (string, is, key, verified, ours) in rows {
        let ended = identify(&desk, &string).await.done();
        assert_eq!(brief(&ended.json()), (is.to_owned(), key.clone(), verified, ours), "{string}: {ended:?}");
        let secret = ended.json()["secret"] == true;
        assert!(!secret || !(ended.stdout + &ended.stderr).contains(string.trim()), "{string} is shown");
    }
    let stranger = identify(&desk, "nothing-of-ours").await;
    assert_eq!((stranger.status, brief(&stranger.json()).3), (1, json!(false)), "{stranger:?}");
}

/// A key that was minted elsewhere is recognised by the file, whatever its shape.
#[tokio::test]
async fn keys_from_elsewhere_are_recognised_by_the_file() {
    let desk = Desk::new();
    let named = Key::pair("named");
    let foreign = Key::token("foreign").secret("ck_live_abc123def456");
    desk.write(
        "keys.toml",
        &key_file([&foreign, &named]).replace(&named.public, "alice").replace(&foreign.public, "ck_live_abc123"),
    );
    let cases = [
        (foreign.secret.clone(), json!(["key_foreign"])),
        ("alice".to_owned(), json!(["key_named"])),
        (format!("alice:{}", named.secret), json!(["key_named", "key_named"])),
        (
            format!("curl -H 'Authorization: Basic {}'", STANDARD.encode(format!("alice:{}", named.secret))),
            json!(["key_named", "key_named"]),
        ),
        // A name that somebody chose means nothing in the middle of a text.
        ("Dear alice, the key is in the drawer".to_owned(), json!([])),
        ("alice:wrong".to_owned(), json!(["key_named"])),
        // Who mistypes a password types it again.
        (format!("x alice:wrong y\nz alice:{} y", named.secret), json!(["key_named", "key_named"])),
        (format!("https://alice:{}@host/x", named.secret), json!(["key_named", "key_named"])),
        (format!("<a>alice:{}</a>", named.secret), json!(["key_named", "key_named"])),
    ];
    for (text, keys) in cases {
        let ended = identify(&desk, &text).await;
        assert_eq!(all_keys(&ended.json()), keys, "{text}: {ended:?}");
        assert_eq!(ended.status == 0, keys != json!([]), "{text}: {ended:?}");
    }
}

/// The key ids of all that was found.
fn all_keys(answer: &Value) -> Value {
    match answer.get("found").and_then(Value::as_array) {
        Some(found) => found.iter().map(|one| one["key"].clone()).collect(),
        None => answer.get("key").cloned().into_iter().collect(),
    }
}

/// Keys are found within a text, with their places, however they stand in it.
#[tokio::test]
async fn keys_are_found_within_a_text() {
    let desk = Desk::new();
    let (one, two) = (Key::pair("one"), Key::pair("two"));
    desk.write("keys.toml", &key_file([&one, &two]));
    let basic = STANDARD.encode(format!("{}:{}", two.public, two.secret));
    let texts = [
        format!("curl -u {}:{} https://shop.example/wp-json/wc/v3/orders", two.public, two.secret),
        format!("GET /orders?consumer_key={}&consumer_secret={} HTTP/1.1", two.public, two.secret),
        format!("{{\"user\": \"{}\", \"password\": \"{}\"}}", two.public, two.secret),
        format!("authorization: Basic {basic}"),
        format!("secret: {}\nkey: {}", two.secret, two.public),
        STANDARD.encode(format!("{}:{}", two.public, two.secret)),
        format!("//registry.example/:_auth={basic}"),
        format!("Authorization=Basic%20{}", basic.replace('=', "%3D")),
        format!("{}:{}", two.public, two.secret).chars().flat_map(|c| [c, '\0']).collect(),
    ];
    for text in texts {
        let log = format!("first line\n  {text}\n");
        let ended = identify(&desk, &log).await.done();
        let answer = ended.json();
        assert_eq!(all_keys(&answer), json!(["key_two", "key_two"]), "{text}: {ended:?}");
        // The secret comes first, proven.
        assert_eq!((&answer["secret"], &answer["verified"]), (&json!(true), &json!(true)), "{text}: {ended:?}");
        assert!(answer["line"].as_u64() >= Some(2) && answer["column"].is_u64(), "{ended:?}");
        assert!(!(ended.stdout + &ended.stderr).contains(&two.secret), "{text}");
    }
    let both = identify(&desk, &format!("{} {} x", one.public, two.secret)).await.done();
    assert_eq!(all_keys(&both.json()), json!(["key_two", "key_one"]));
    let large = identify(&desk, &"a ".repeat(600 * 1024)).await;
    assert!(large.status == 1 && large.stderr.contains("--pattern"), "{large:?}");
}

/// A text that is full of strings like keys is not compared for hours.
#[tokio::test]
async fn a_hostile_text_costs_no_more_than_it_may() {
    let desk = Desk::new();
    // A slow hash whose single check takes next to nothing, so that the test waits for their number alone.
    let named =
        Key::pair("named").hash("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$VGhpcyBpcyBubyBoYXNoIG9mIGFueXRoaW5n");
    desk.write("keys.toml", &key_file([&named]).replace(&named.public, "alice"));
    let hostile: String = (0..4000).map(|number| format!("alice:{number}\n")).collect();
    let ended = identify(&desk, &hostile).await;
    assert!(ended.stderr.contains("some was not compared"), "{}", ended.stderr);
    let secrets: String = (0..4000).map(|number| format!("cs_{number:040x}\n")).collect();
    let ended = identify(&desk, &secrets).await;
    assert!(ended.stderr.contains("some was not compared"), "{}", ended.stderr);
    assert_eq!(ended.json()["found"].as_array().map(Vec::len), Some(4000));
}
