//! Credentials in raw bytes: exactly one, of one key, in one reading.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Clean, Row, Verdict, check, key};

const ALL: &str = r#"
    [credentials]
    header = "X-API-Key"
    query = { key = "consumer_key", secret = "consumer_secret" }
"#;

fn get(query: &str, fields: &str) -> String {
    format!("GET /{query} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
}

fn of(name: &'static str) -> Clean {
    Clean::new("GET", "/").key(name)
}

/// The ways to present a key, as (what, query, fields).
fn ways(name: &str, wrong: bool) -> Vec<(String, String, String)> {
    let key = key(name);
    let secret = if wrong { "cs_wrong" } else { &key.secret };
    let basic = STANDARD.encode(format!("{}:{secret}", key.public));
    let shown = if wrong { format!("a wrong {name}") } else { name.to_owned() };
    vec![
        (format!("{shown} by Basic"), String::new(), format!("Authorization: Basic {basic}\r\n")),
        (format!("{shown} by basic"), String::new(), format!("authorization: basic {basic}\r\n")),
        (format!("{shown} by Bearer"), String::new(), format!("Authorization: Bearer {secret}\r\n")),
        (format!("{shown} by its own field"), String::new(), format!("X-API-Key: {secret}\r\n")),
        (
            format!("{shown} by the query"),
            format!("consumer_key={}&consumer_secret={secret}", key.public),
            String::new(),
        ),
        (format!("{shown}'s public part in the query"), format!("consumer_key={}", key.public), String::new()),
        (format!("{shown}'s secret in the query"), format!("consumer_secret={secret}"), String::new()),
        (format!("another scheme beside {shown}"), String::new(), "Authorization: Digest a\r\n".into()),
    ]
}

/// Two that are not the same are none, whichever comes first.
#[tokio::test]
async fn two_credentials_are_none() {
    let mut rows = Vec::new();
    // Of a wrong one, the public part is the right one's.
    let wrong = ways("writer", true).into_iter().filter(|(what, ..)| !what.contains("public"));
    let all: Vec<_> = [ways("writer", false), ways("reader", false)].concat().into_iter().chain(wrong).collect();
    for (one, query, fields) in &all {
        for (other, other_query, other_fields) in &all {
            if one == other {
                continue;
            }
            let queries: Vec<&str> =
                [query.as_str(), other_query].into_iter().filter(|query| !query.is_empty()).collect();
            let query = if queries.is_empty() { String::new() } else { format!("?{}", queries.join("&")) };
            let bytes = get(&query, &format!("{fields}{other_fields}"));
            let rule = format!("{one}, {other}");
            let source = "RFC 9110 §11.6.2, threat 12";
            // The whole of one key and nothing but it, in one way or in two.
            let is_part = |what: &str| what.contains("part") || what.contains("secret in");
            let same = one.starts_with("writer") == other.starts_with("writer")
                && one.starts_with("reader") == other.starts_with("reader")
                && !one.contains("wrong")
                && !other.contains("wrong");
            let name = if one.starts_with("writer") { "writer" } else { "reader" };
            let by_two = fields.to_lowercase().contains("authorization")
                && other_fields.to_lowercase().contains("authorization");
            let safe = same && !by_two || (is_part(one) && is_part(other) && same);
            rows.push(match (safe, one.contains("another") || other.contains("another")) {
                (true, false) => Row::safe(rule, source, bytes, of(name)),
                (false, false) => Row::new(rule, source, bytes, Verdict::Refused(&[400, 401])),
                // A scheme that is none of ours is stripped, where the credential does not come in that field.
                _ => Row::new(
                    rule,
                    source,
                    bytes,
                    Verdict::Sound(Box::new(|message| {
                        let names = ["authorization", "x-api-key"];
                        let held = names.iter().find(|name| !message.all(name).is_empty());
                        held.map_or(Ok(()), |name| Err(format!("{name} in {message:?}")))
                    })),
                ),
            });
        }
    }
    check(ALL, rows).await;
}

/// One key in every odd spelling: it is that key, or nobody; and its secret goes no further.
#[tokio::test]
async fn an_odd_spelling_is_the_key_or_nobody() {
    let source = "RFC 7617 §2, RFC 9110 §11.4, RFC 4648 §3.5";
    let writer = key("writer");
    let text = format!("{}:{}", writer.public, writer.secret);
    let basic = STANDARD.encode(&text);
    let mut rows = Vec::new();
    for value in [
        format!("Basic {basic}"),
        format!("Basic  {basic}"),
        format!("Basic\t{basic}"),
        format!("Basic {basic} "),
        format!("BASIC {basic}"),
        format!("Basic {basic}="),
        format!("Basic {basic}=="),
        format!("Basic ={basic}"),
    ] {
        rows.push(Row::safe(
            format!("as {value:?}"),
            source,
            get("", &format!("Authorization: {value}\r\n")),
            of("writer"),
        ));
    }
    let encode = |text: &str| STANDARD.encode(text);
    for (rule, value) in [
        ("no scheme", basic.clone()),
        ("a scheme alone", "Basic".into()),
        ("a scheme and a space", "Basic ".into()),
        ("two schemes", format!("Basic Basic {basic}")),
        ("a comma behind it", format!("Basic {basic},")),
        ("a comma before it", format!(", Basic {basic}")),
        ("a list", format!("Basic {basic}, Basic {basic}")),
        ("a list with another", format!("Basic {basic}, Bearer {}", writer.secret)),
        ("a parameter", format!("Basic {basic}; a=b")),
        ("quotes", format!("Basic \"{basic}\"")),
        ("a quoted scheme", format!("\"Basic\" {basic}")),
        ("a colon behind the scheme", format!("Basic: {basic}")),
        ("an equals sign behind the scheme", format!("Basic={basic}")),
        ("a space in it", format!("Basic {} {}", &basic[..8], &basic[8..])),
        ("an underscore scheme", format!("Basic_{basic}")),
        ("characters of no alphabet", format!("Basic {}!{}", &basic[..8], &basic[8..])),
        ("plain text", format!("Basic {text}")),
        ("encoded twice", format!("Basic {}", encode(&basic))),
        ("an empty secret", format!("Basic {}", encode(&format!("{}:", writer.public)))),
        ("no secret", format!("Basic {}", encode(&writer.public))),
        ("an empty name", format!("Basic {}", encode(&format!(":{}", writer.secret)))),
        ("nothing but a colon", format!("Basic {}", encode(":"))),
        ("nothing", format!("Basic {}", encode(""))),
        ("a colon too many", format!("Basic {}", encode(&format!("{}::{}", writer.public, writer.secret)))),
        ("a colon at the end", format!("Basic {}", encode(&format!("{text}:")))),
        ("a NUL at the end", format!("Basic {}", encode(&format!("{text}\0")))),
        ("a NUL and more", format!("Basic {}", encode(&format!("{text}\0x")))),
        ("a NUL in the name", format!("Basic {}", encode(&format!("{}\0:{}", writer.public, writer.secret)))),
        ("a line end", format!("Basic {}", encode(&format!("{text}\r\n")))),
        ("a line feed before it", format!("Basic {}", encode(&format!("\n{text}")))),
        ("a space before it", format!("Basic {}", encode(&format!(" {text}")))),
        ("a byte order mark", format!("Basic {}", encode(&format!("\u{feff}{text}")))),
        ("capital letters", format!("Basic {}", encode(&text.to_uppercase()))),
        (
            "the name in capital letters",
            format!("Basic {}", encode(&format!("{}:{}", writer.public.to_uppercase(), writer.secret))),
        ),
        ("the secret cut by one", format!("Basic {}", encode(&text[..text.len() - 1]))),
        ("the secret longer by one", format!("Basic {}", encode(&format!("{text}0")))),
        ("another key's secret", format!("Basic {}", encode(&format!("{}:{}", writer.public, key("reader").secret)))),
        ("the id as name", format!("Basic {}", encode(&format!("{}:{}", writer.id, writer.secret)))),
        ("the owner as name", format!("Basic {}", encode(&format!("of-writer:{}", writer.secret)))),
        ("a pattern as name", format!("Basic {}", encode(&format!("ck_*:{}", writer.secret)))),
        (
            "a question to a database as name",
            format!("Basic {}", encode(&format!("' OR '1'='1' --:{}", writer.secret))),
        ),
        ("a path as name", format!("Basic {}", encode(&format!("../{}:{}", writer.public, writer.secret)))),
        ("a secret of 100 KiB", format!("Basic {}", encode(&format!("{}:{}", writer.public, "s".repeat(10_000))))),
        (
            "the hash as secret",
            format!("Basic {}", encode(&format!("{}:{}", writer.public, writer.row().split('"').nth(9).unwrap()))),
        ),
        ("a letter of another script", format!("B\u{430}sic {basic}")),
        ("a long s", format!("Ba\u{17f}ic {basic}")),
    ] {
        rows.push(Row::new(
            rule,
            source,
            get("", &format!("Authorization: {value}\r\n")),
            Verdict::Refused(&[400, 401]),
        ));
        if value.len() > 5000 {
            continue;
        }
        let beside = format!("Proxy-Authorization: {value}\r\nX-Authorization: {value}\r\nAuthentication: {value}\r\n");
        rows.push(Row::new(format!("{rule}, in other fields"), source, get("", &beside), Verdict::Refused(&[401])));
    }
    for (rule, field) in [
        ("a space before the colon", format!("Authorization : Basic {basic}\r\n")),
        ("a folded field", format!("Authorization: Basic\r\n {basic}\r\n")),
        ("a twin with an underscore", format!("Authorization_: Basic {basic}\r\n")),
        ("a field of CGI", format!("HTTP_AUTHORIZATION: Basic {basic}\r\n")),
        ("a bare carriage return", format!("X-A: b\rAuthorization: Basic {basic}\r\n")),
        ("a NUL before it", format!("Authorization: \0Basic {basic}\r\n")),
    ] {
        rows.push(Row::refused(rule, source, get("", &field)));
    }
    // In a trailer and in a body a credential is none.
    let chunks = format!(
        "Transfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n0\r\nAuthorization: Basic {basic}\r\n\r\n"
    );
    let late = get("", "").replacen("GET", "POST", 1).trim_end().to_owned();
    rows.push(Row::new("in a trailer", "RFC 9110 §6.5.1", format!("{late}\r\n{chunks}"), Verdict::Refused(&[401])));
    check("", rows).await;
}

/// The query: each of the two parameters once, in whatever spelling, and neither goes on.
#[tokio::test]
async fn a_credential_in_the_query_is_taken_off_whole() {
    let writer = key("writer");
    let (public, secret) = (&writer.public, &writer.secret);
    let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let mut rows = Vec::new();
    for (rule, query, left) in [
        ("both", format!("consumer_key={public}&consumer_secret={secret}"), "/"),
        ("both, the other way round", format!("consumer_secret={secret}&consumer_key={public}"), "/"),
        ("among others", format!("a=1&consumer_key={public}&b=2&consumer_secret={secret}&c=3"), "/?a=1&b=2&c=3"),
        ("escaped values", format!("consumer_key={}&consumer_secret={}", escaped(public), escaped(secret)), "/"),
        ("escaped names", format!("{}={public}&consumer%5Fsecret={secret}", escaped("consumer_key")), "/"),
        ("a dot for an underscore", format!("consumer.key={public}&consumer.secret={secret}"), "/"),
        ("a space before the name", format!("+consumer_key={public}&%20consumer_secret={secret}"), "/"),
        ("a NUL behind the name", format!("consumer_key%00x={public}&consumer_secret%00={secret}"), "/"),
    ] {
        rows.push(Row::safe(
            rule,
            "WooCommerce: authentication over HTTPS",
            get(&format!("?{query}"), ""),
            Clean::new("GET", left),
        ));
    }
    for (rule, query) in [
        ("the secret twice", format!("consumer_key={public}&consumer_secret={secret}&consumer_secret=x")),
        (
            "the secret twice, a wrong one first",
            format!("consumer_key={public}&consumer_secret=x&consumer_secret={secret}"),
        ),
        ("the key twice", format!("consumer_key={public}&consumer_key=x&consumer_secret={secret}")),
        ("an array", format!("consumer_key[]={public}&consumer_secret[]={secret}")),
        ("a spelling twice", format!("consumer_key={public}&consumer.secret=x&consumer_secret={secret}")),
        ("an empty secret", format!("consumer_key={public}&consumer_secret=")),
        ("no value", format!("consumer_key={public}&consumer_secret")),
        ("no secret", format!("consumer_key={public}")),
        ("no key", format!("consumer_secret={secret}")),
        ("capital names", format!("Consumer_Key={public}&Consumer_Secret={secret}")),
        ("in a fragment", format!("#?consumer_key={public}&consumer_secret={secret}")),
        ("a semicolon between", format!("consumer_key={public};consumer_secret={secret}")),
        ("a secret with a space", format!("consumer_key={public}&consumer_secret={secret}+")),
        ("a secret with a NUL", format!("consumer_key={public}&consumer_secret={secret}%00")),
        ("another's secret", format!("consumer_key={public}&consumer_secret={}", key("reader").secret)),
    ] {
        rows.push(Row::new(rule, "threats 12 to 14", get(&format!("?{query}"), ""), Verdict::Refused(&[400, 401])));
    }
    check(ALL, rows).await;
}

/// One connection is not one caller: each request is judged by what it brings.
#[tokio::test]
async fn the_next_request_is_nobodys_until_it_says_whose() {
    let mut rows = Vec::new();
    for name in ["writer", "reader"] {
        let (_, _, fields) = ways(name, false).swap_remove(0);
        let with = get("", &fields);
        rows.push(Row::clean(format!("{name} once"), "RFC 9110 §3.3 (stateless)", with.clone(), of(name)));
    }
    // Behind one with a key, one without: in the runner the next request is always the writer's own.
    let (_, _, reader) = ways("reader", false).swap_remove(0);
    let posts = get("", &reader).replacen("GET", "DELETE", 1);
    rows.push(Row::new("a reader that deletes", "RFC 9110 §3.3", posts, Verdict::Refused(&[403])));
    rows.push(Row::new("nobody", "RFC 9110 §3.3", get("", ""), Verdict::Refused(&[401])));
    check(ALL, rows).await;
}
