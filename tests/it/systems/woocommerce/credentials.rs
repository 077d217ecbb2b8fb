//! How a pair may come: by Basic, in the query, and in no other way.

use super::{API, REFUSED, of_each_permission};
use crate::{
    harness::{H1, H2, Request, get, post},
    systems::service::{Minted, System},
};

/// Every spelling of the two names that PHP files under them.
const KEY: [&str; 7] = [
    "consumer_key",
    "consumer.key",
    "consumer%5Fkey",
    "consumer+key",
    "consumer[key",
    "%63onsumer%20key",
    "+consumer_key%00x",
];
const SECRET: [&str; 7] = [
    "consumer_secret",
    "consumer.secret",
    "consumer%5fsecret",
    "consumer+secret",
    "consumer%5Bsecret",
    "consumer%2esecret",
    "%20consumer_secret%00",
];

/// Nothing of a pair stands anywhere but where it belongs.
async fn check_kept(system: &System, pairs: &[&Minted]) {
    for seen in system.upstream.seen() {
        let head = String::from_utf8_lossy(&seen.head.raw).into_owned();
        assert!(!head.contains("consumer") && !head.contains("ck_") && !head.contains("cs_"), "{head}");
        assert!(!seen.has("authorization"), "{head}");
    }
    let said = system.sidecar.printed() + system.sidecar.metrics().await.text();
    for pair in pairs {
        assert!(!said.contains(&pair.secret) && !said.contains(&pair.secret[3..]), "{said}");
        assert!(!said.contains(&pair.prefix), "{said}");
    }
}

/// [credential] "Basic: the consumer key is like a user name, the consumer secret like a password"
/// [credential] "the pair in the query, for clients that cannot send Basic"
/// [key shape] "ck_ and cs_, and 40 hexadecimal digits each"
/// [advice the product should turn into help] "store the pair securely, and expose it nowhere: not in URLs that go on, logs or metrics"
#[tokio::test]
async fn a_pair_in_the_query_goes_no_further() {
    let system = System::unlimited("woocommerce", "").await;
    let [reader, writer, _] = of_each_permission(&system).await;
    for text in [&reader.prefix, &reader.secret] {
        let digits = text.strip_prefix("ck_").or(text.strip_prefix("cs_")).unwrap();
        assert!(digits.len() == 40 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
    }
    let mut rows = vec![
        (get(&format!("{API}/orders?page=2")).basic(&reader.prefix, &reader.secret), format!("{API}/orders?page=2")),
        (get(&format!("/?rest_route=/wc/v3/orders&{}", query(&reader))), "/?rest_route=/wc/v3/orders".to_owned()),
        (get(&format!("{API}/orders?{}", query(&reader))), format!("{API}/orders")),
        // The same pair in both places is one credential.
        (reader.on(get(&format!("{API}/orders?a=1&{}&b=2", query(&reader)))), format!("{API}/orders?a=1&b=2")),
    ];
    for (key, secret) in KEY.into_iter().zip(SECRET) {
        let pair = format!("{key}={}&page=2&{secret}={}", reader.prefix, reader.secret);
        rows.push((get(&format!("{API}/orders?{pair}")), format!("{API}/orders?page=2")));
    }
    for (request, forwarded) in &rows {
        for version in [H1, H2] {
            let answer = system.sidecar.send(version, request.clone()).await;
            assert_eq!(answer.status, 200, "{request:?} over {version:?}: {answer:?}");
            assert_eq!(system.upstream.last().target(), *forwarded, "{request:?}");
            assert_eq!(system.upstream.last().field("x-key-id"), reader.id);
            let line = system.line(&answer).await;
            assert_eq!(line["path"], forwarded.split('?').next().unwrap(), "{line}");
        }
    }
    // What is refused is logged as carefully.
    let refused = system.sidecar.ask(get(&format!("{API}/orders?{}", query(&writer)))).await;
    assert_eq!(refused.brief(), REFUSED);
    assert_eq!(system.line(&refused).await["key_id"], *writer.id);
    check_kept(&system, &[&reader, &writer]).await;
}

fn query(pair: &Minted) -> String {
    format!("consumer_key={}&consumer_secret={}", pair.prefix, pair.secret)
}

/// Half a pair is none, and of two that differ none counts: which would, two readers would not agree on.
///
/// [credential] "a consumer key alone opens nothing"
/// [credential] "two pairs that differ are none"
#[tokio::test]
async fn half_a_pair_or_two_are_none() {
    let system = System::unlimited("woocommerce", "").await;
    let [reader, writer, _] = of_each_permission(&system).await;
    const TWO: &str = "400 bad_request";
    let orders = format!("{API}/orders");
    let with = |text: String| get(&format!("{orders}?{text}"));
    let rows: Vec<(&str, Request, &str)> = vec![
        ("the key alone", with(format!("consumer_key={}", reader.prefix)), REFUSED),
        ("the secret alone", with(format!("consumer_secret={}", reader.secret)), REFUSED),
        ("an empty secret", with(format!("consumer_key={}&consumer_secret=", reader.prefix)), REFUSED),
        ("an empty key", with(format!("consumer_key=&consumer_secret={}", reader.secret)), REFUSED),
        ("the key alone, by Basic", get(&orders).basic(&reader.prefix, ""), REFUSED),
        ("the secret alone, by Basic", get(&orders).basic("", &reader.secret), REFUSED),
        ("key and secret exchanged", get(&orders).basic(&reader.secret, &reader.prefix), REFUSED),
        ("names in another case", with(query(&reader).to_uppercase()), "401 woocommerce_rest_cannot_view"),
        ("another pair in the query", writer.on(with(query(&reader))), TWO),
        ("the key alone beside Basic", reader.on(with(format!("consumer_key={}", reader.prefix))), TWO),
        (
            "a wrong secret beside Basic",
            reader.on(with(format!("consumer_key={}&consumer_secret=x", reader.prefix))),
            TWO,
        ),
        ("the key twice", with(format!("{}&consumer_key={}", query(&reader), writer.prefix)), TWO),
        ("the secret twice, folded", with(format!("{}&consumer.secret=cs_x", query(&reader))), TWO),
        ("an array", with(format!("consumer_key[]={}&consumer_secret={}", reader.prefix, reader.secret)), TWO),
    ];
    for (what, request, expected) in rows {
        for version in [H1, H2] {
            let answer = system.sidecar.send(version, request.clone()).await;
            assert_eq!(answer.brief(), expected, "{what} over {version:?}: {answer:?}");
        }
    }
    assert_eq!(system.upstream.count(), 0);
    // In a form it is no credential, but a part of the body.
    let form = post(&orders, query(&reader)).field("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(system.sidecar.ask(form).await.brief(), "401 woocommerce_rest_cannot_create");
    check_kept(&system, &[&reader, &writer]).await;
}

/// A signature can be checked by nobody who keeps only a hash of the secret. Whoever signs is told so.
///
/// [credential] "OAuth 1.0a is not taken: 401, and the reason"
#[tokio::test]
async fn a_signed_request_is_told_what_to_send_instead() {
    let system = System::unlimited("woocommerce", "").await;
    let [reader, ..] = of_each_permission(&system).await;
    let signed = format!(
        "oauth_consumer_key={}&oauth_timestamp=1795000000&oauth_nonce=abc&oauth_signature_method=HMAC-SHA256&\
         oauth_signature=tnnArxj06cWHq44gCs1OSKk%2FjLY%3D",
        reader.prefix
    );
    let field = format!("OAuth {}", signed.replace('&', "\", ").replace('=', "=\""));
    let rows = [
        get(&format!("{API}/orders")).field("Authorization", &field),
        get(&format!("{API}/orders")).field("Authorization", field.replacen("OAuth", "oauth", 1)),
        get(&format!("{API}/orders?per_page=5&{signed}")),
        get(&format!("/?rest_route=/wc/v3/orders&{signed}")),
    ];
    for request in rows {
        for version in [H1, H2] {
            let answer = system.sidecar.send(version, request.clone()).await;
            assert_eq!(answer.brief(), "401 woocommerce_rest_cannot_view", "{request:?}");
            let message = answer.json()["message"].as_str().unwrap().to_owned();
            assert!(message.contains("signed by OAuth 1.0 are not taken here"), "{message}");
            assert!(message.contains("Send the key and its secret themselves"), "{message}");
            assert!(answer.field("www-authenticate").starts_with("Basic "), "{answer:?}");
            let line = system.line(&answer).await;
            assert!(line["note"].as_str().is_some_and(|note| note.contains("OAuth 1.0")), "{line}");
        }
    }
    // Other schemes are named too, but nothing that might be a secret is said again.
    for (value, said) in [("Bearer abc", "The scheme Bearer"), (reader.secret.as_str(), "holds nothing that is taken")]
    {
        let answer = system.sidecar.ask(get(&format!("{API}/orders")).field("Authorization", value)).await;
        assert_eq!(answer.brief(), "401 woocommerce_rest_cannot_view");
        assert!(answer.text().contains(said) && !answer.text().contains(&reader.secret), "{answer:?}");
    }
    check_kept(&system, &[&reader]).await;
}
