use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderName, uri::PathAndQuery};
use proptest::prelude::*;

use super::*;

fn everything() -> Settings {
    Settings {
        basic: true,
        bearer: true,
        header: Some(HeaderName::from_static("x-api-key")),
        query: Some(QueryNames { key: "consumer_key".into(), secret: "consumer_secret".into() }),
        other_authorization: OtherAuthorization::Strip,
    }
}

fn nothing() -> Settings {
    Settings { basic: false, bearer: false, header: None, query: None, ..everything() }
}

fn basic(pair: impl AsRef<[u8]>) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
        .fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        })
}

fn show(credential: &Credential) -> String {
    let text = |secret: &Secret| String::from_utf8_lossy(secret.expose()).into_owned();
    match credential {
        Credential::Pair { key, secret } => format!("{} : {}", text(key), text(secret)),
        Credential::Token(token) => text(token),
    }
}

/// `expected`: the scheme and either "token" or "key : secret".
#[track_caller]
fn check_with(
    settings: &Settings,
    fields: &[(&str, &str)],
    query: Option<&str>,
    expected: Result<Option<(Scheme, &str)>, Reason>,
) {
    let presented = extract(&headers(fields), query, settings).map_err(|rejection| rejection.reason);
    let presented =
        presented.map(|presented| presented.map(|presented| (presented.scheme, show(&presented.credential))));
    let expected = expected.map(|expected| expected.map(|(scheme, text)| (scheme, text.to_owned())));
    assert_eq!(presented, expected, "{fields:?} {query:?}");
}

#[track_caller]
fn check(fields: &[(&str, &str)], query: Option<&str>, expected: Result<Option<(Scheme, &str)>, Reason>) {
    check_with(&everything(), fields, query, expected);
}

#[track_caller]
fn check_authorization(value: &str, expected: Result<Option<(Scheme, &str)>, Reason>) {
    check(&[("Authorization", value)], None, expected);
}

#[test]
fn none_presented_is_none() {
    check(&[], None, Ok(None));
    check(&[("Accept", "*/*")], Some("a=b"), Ok(None));
}

#[test]
fn a_basic_pair_is_split_at_the_first_colon() {
    check_authorization("Basic Y2tfMTpjc18x", Ok(Some((Scheme::Basic, "ck_1 : cs_1"))));
    check_authorization("bASIC   Y2tfMTpjc18x", Ok(Some((Scheme::Basic, "ck_1 : cs_1"))));
    check_authorization(&basic("ck_1:cs:1:"), Ok(Some((Scheme::Basic, "ck_1 : cs:1:"))));
    check_authorization(&basic("caf\u{e9}:\u{20ac}"), Ok(Some((Scheme::Basic, "caf\u{e9} : \u{20ac}"))));
}

#[test]
fn a_token_may_come_as_a_user_name_with_an_empty_password() {
    check_authorization(&basic("sk_live_1:"), Ok(Some((Scheme::Basic, "sk_live_1"))));
}

#[test]
fn what_is_no_basic_pair_is_malformed() {
    for encoded in [
        "",
        "Y2tfMTpjc18",
        "Y2tfMTpjc18x=",
        "Y2tf MTpjc18x",
        "Y2tfMTpjc18x,",
        "Y2tfMTpj-18x",
        "====",
        "Y2tfMQ==",
        "Og==",
        // ":cs_1" and pairs with control characters inside.
        "OmNzXzE=",
        &STANDARD.encode("ck\n1:cs"),
        &STANDARD.encode("ck:c\0s"),
        &STANDARD.encode("ck:c\u{7f}s"),
        // Bits that are not used but set: "ck_1:cs_" in a second spelling.
        "Y2tfMTpjc19=",
    ] {
        check_authorization(&format!("Basic {encoded}"), Err(Reason::Malformed));
    }
    check_authorization("Basic", Err(Reason::Malformed));
}

#[test]
fn lengths_are_capped() {
    let longest = "k".repeat(MAX_SECRET_BYTES);
    check_authorization(
        &basic(format!("{longest}:{longest}")),
        Ok(Some((Scheme::Basic, &format!("{longest} : {longest}")))),
    );
    check_authorization(&basic(format!("{longest}k:s")), Err(Reason::Malformed));
    check_authorization(&basic(format!("k:s{longest}")), Err(Reason::Malformed));
    check_authorization(&basic(format!("k:{longest}{longest}{longest}")), Err(Reason::Malformed));
    check_authorization(&format!("Bearer {longest}"), Ok(Some((Scheme::Bearer, &longest))));
    check_authorization(&format!("Bearer {longest}k"), Err(Reason::Malformed));
    check(&[("X-API-Key", &format!("{longest}k"))], None, Err(Reason::Malformed));
    check(&[], Some(&format!("consumer_key=a&consumer_secret={longest}k")), Err(Reason::Malformed));
}

#[test]
fn white_space_around_a_basic_secret_is_kept_and_noted() {
    for (pair, padded) in [
        ("ck_1:cs_1", false),
        ("ck_1:cs 1", false),
        ("ck_1:cs_1 ", true),
        ("ck_1:cs_1\n", true),
        ("ck_1: cs_1\r\n", true),
        (" ck_1:cs_1", true),
        ("sk_1 :", true),
        ("sk_1:\n", true),
    ] {
        let presented = extract(&headers(&[("Authorization", &basic(pair))]), None, &everything()).unwrap().unwrap();
        assert_eq!(presented.padded, padded, "{pair:?}");
        assert_eq!(show(&presented.credential).replace(" : ", ":"), pair.strip_suffix(':').unwrap_or(pair));
    }
}

#[test]
fn a_bearer_token_is_a_token68() {
    check_authorization("Bearer sk_live_1", Ok(Some((Scheme::Bearer, "sk_live_1"))));
    check_authorization("bearer  aZ09-._~+/==", Ok(Some((Scheme::Bearer, "aZ09-._~+/=="))));
    for value in [
        "Bearer",
        "Bearer ",
        "Bearer =",
        "Bearer ck_1:cs_1",
        "Bearer a b",
        "Bearer a=b",
        "Bearer \"a\"",
        "Bearer a,b",
        "Bearer \u{e9}",
    ] {
        check_authorization(value, Err(Reason::Malformed));
    }
}

#[test]
fn a_named_field_holds_one_token() {
    check(&[("X-API-Key", "wp3_live_sk_1")], None, Ok(Some((Scheme::Header, "wp3_live_sk_1"))));
    check(&[("x-api-key", "a:b!")], None, Ok(Some((Scheme::Header, "a:b!"))));
    check(&[("X-API-Key", "")], None, Err(Reason::Malformed));
    check(&[("X-API-Key", "a b")], None, Err(Reason::Malformed));
    check(&[("X-API-Key", "\u{e9}")], None, Err(Reason::Malformed));
    check(&[("X-API-Key", "a"), ("X-API-Key", "a")], None, Err(Reason::AmbiguousCredentials));
}

#[test]
fn a_query_holds_a_pair_in_every_spelling() {
    let pair = Ok(Some((Scheme::Query, "ck_1 : cs_1")));
    check(&[], Some("consumer_key=ck_1&consumer_secret=cs_1"), pair);
    check(&[], Some("a=b&consumer.secret=cs%5F1&+consumer[key=%63k_1"), pair);
    check(&[], Some("consumer_key=ck_1&consumer_secret=cs_1&consumer%5Fkey=ck%5f1"), pair);
    check(&[], Some("consumer_key=ck_1&consumer_secret=a%26b%3d+c"), Ok(Some((Scheme::Query, "ck_1 : a&b= c"))));
    for query in [
        "consumer_key=ck_1",
        "consumer_secret=cs_1",
        "consumer_key=ck_1&consumer_secret=",
        "consumer_key&consumer_secret",
        "consumer_key=a%00&consumer_secret=b",
    ] {
        check(&[], Some(query), Err(Reason::Malformed));
    }
    for query in [
        "consumer_key=a&consumer_key=b&consumer_secret=c",
        "consumer_key[]=a&consumer_secret=c",
        "consumer_key=a&consumer_secret=c&consumer.secret=d",
    ] {
        check(&[], Some(query), Err(Reason::AmbiguousCredentials));
    }
}

#[test]
fn two_different_credentials_are_refused() {
    let pair = basic("ck_1:cs_1");
    let ambiguous = Err(Reason::AmbiguousCredentials);
    check(&[("Authorization", &pair), ("X-API-Key", "a")], None, ambiguous);
    check(&[("Authorization", "Bearer a"), ("X-API-Key", "b")], None, ambiguous);
    check(&[("Authorization", &pair)], Some("consumer_key=ck_1&consumer_secret=cs_2"), ambiguous);
    check(&[("X-API-Key", "a")], Some("consumer_key=ck_1&consumer_secret=cs_1"), ambiguous);
    check(&[("Authorization", "Basic !"), ("X-API-Key", "a")], None, ambiguous);
    check(&[("Authorization", &pair)], Some("consumer_key=ck_1"), ambiguous);
    check(&[("Authorization", "Basic !"), ("X-API-Key", "")], None, ambiguous);
}

#[test]
fn a_repeated_authorization_is_refused_even_if_it_says_the_same() {
    let pair = basic("ck_1:cs_1");
    check(&[("Authorization", &pair), ("Authorization", &pair)], None, Err(Reason::AmbiguousCredentials));
    check(&[("Authorization", "Digest a"), ("Authorization", &pair)], None, Err(Reason::AmbiguousCredentials));
}

#[test]
fn the_same_credential_in_two_places_is_one() {
    check(
        &[("Authorization", &basic("ck_1:cs_1"))],
        Some("consumer_key=ck_1&consumer_secret=cs_1"),
        Ok(Some((Scheme::Basic, "ck_1 : cs_1"))),
    );
    check(&[("Authorization", &basic("a:")), ("X-API-Key", "a")], None, Ok(Some((Scheme::Basic, "a"))));
    check(&[("Authorization", "Bearer a"), ("X-API-Key", "a")], None, Ok(Some((Scheme::Bearer, "a"))));
}

#[test]
fn only_what_is_switched_on_counts() {
    let pair = basic("ck_1:cs_1");
    let fields = [("Authorization", pair.as_str()), ("X-API-Key", "a")];
    let query = Some("consumer_key=k&consumer_secret=s");
    check_with(&nothing(), &fields, query, Ok(None));
    check_with(&Settings { basic: true, ..nothing() }, &fields, query, Ok(Some((Scheme::Basic, "ck_1 : cs_1"))));
    check_with(&Settings { bearer: true, ..nothing() }, &fields, query, Ok(None));
    check_with(&Settings { header: everything().header, ..nothing() }, &fields, query, Ok(Some((Scheme::Header, "a"))));
    check_with(
        &Settings { query: everything().query, ..nothing() },
        &fields,
        query,
        Ok(Some((Scheme::Query, "k : s"))),
    );
}

#[test]
fn an_authorization_that_is_no_credential_is_refused_only_if_so_configured() {
    let refuse = Settings { other_authorization: OtherAuthorization::Refuse, ..everything() };
    for value in ["Digest a=b", "OAuth oauth_consumer_key=\"a\"", "Basicx a", "x", ""] {
        check_authorization(value, Ok(None));
        check_with(&refuse, &[("Authorization", value)], None, Err(Reason::AmbiguousCredentials));
    }
    check_with(&refuse, &[("Authorization", "Bearer a")], None, Ok(Some((Scheme::Bearer, "a"))));
    let off = Settings { other_authorization: OtherAuthorization::Refuse, ..nothing() };
    check_with(&off, &[("Authorization", "Bearer a")], None, Err(Reason::AmbiguousCredentials));
}

#[track_caller]
fn check_strip(settings: &Settings, fields: &[(&str, &str)], target: &str, kept: &[&str], expected: &str) {
    let mut headers = headers(fields);
    let mut target = Target::new(&PathAndQuery::try_from(target).unwrap()).unwrap();
    strip(&mut headers, &mut target, settings);
    assert_eq!(headers.values().map(|value| value.to_str().unwrap()).collect::<Vec<_>>(), kept, "{fields:?}");
    assert_eq!(target.path_and_query(), expected);
}

#[test]
fn the_credential_is_taken_off_wherever_it_is() {
    let fields = [
        ("Authorization", "Bearer a"),
        ("Authorization", "Basic b"),
        ("X-API-Key", "c"),
        ("X-API-Key", "d"),
        ("A", "e"),
    ];
    check_strip(&everything(), &fields, "/a?b=c&consumer.key=1&consumer_secret[]=2", &["e"], "/a?b=c");
    check_strip(&nothing(), &fields[1..4], "/a?consumer_key=1", &["c", "d"], "/a?consumer_key=1");
}

#[test]
fn another_authorization_is_taken_off_or_passes_as_configured() {
    let other = [("Authorization", "Digest a")];
    let pass = Settings { other_authorization: OtherAuthorization::Pass, ..everything() };
    check_strip(&everything(), &other, "/", &[], "/");
    check_strip(&Settings { other_authorization: OtherAuthorization::Refuse, ..everything() }, &other, "/", &[], "/");
    check_strip(&pass, &other, "/", &["Digest a"], "/");
    check_strip(&pass, &[("Authorization", "basic !")], "/", &[], "/");
    check_strip(&pass, &[("Authorization", "Digest a"), ("Authorization", "Bearer b")], "/", &[], "/");
    check_strip(&Settings { bearer: false, ..pass }, &[("Authorization", "Bearer b")], "/", &["Bearer b"], "/");
}

#[track_caller]
fn check_challenges(settings: &Settings, realm: &str, expected: &[&str]) {
    assert_eq!(challenges(settings, realm, Asked::First), expected);
}

#[test]
fn there_is_one_challenge_per_accepted_scheme() {
    check_challenges(
        &everything(),
        "keyside",
        &[
            "Basic realm=\"keyside\", charset=\"UTF-8\"",
            "Bearer realm=\"keyside\"",
            "ApiKey realm=\"keyside\", header=\"X-API-Key\"",
        ],
    );
    check_challenges(&Settings { bearer: true, ..nothing() }, "a", &["Bearer realm=\"a\""]);
    check_challenges(
        &Settings { query: everything().query, ..nothing() },
        "a",
        &["ApiKey realm=\"a\", query=\"consumer_key consumer_secret\""],
    );
    check_challenges(
        &Settings { header: Some(HeaderName::from_static("x-wallet-key")), ..nothing() },
        "a",
        &["ApiKey realm=\"a\", header=\"X-Wallet-Key\""],
    );
    check_challenges(&nothing(), "a", &[]);
}

#[test]
fn after_a_failure_a_bearer_challenge_says_so() {
    assert_eq!(
        challenges(&Settings { basic: true, bearer: true, ..nothing() }, "a", Asked::AfterFailure),
        ["Basic realm=\"a\", charset=\"UTF-8\"", "Bearer realm=\"a\", error=\"invalid_token\""]
    );
}

#[test]
fn a_realm_is_quoted() {
    check_challenges(&Settings { bearer: true, ..nothing() }, "a\"b\\c\u{e9}\n", &["Bearer realm=\"a\\\"b\\\\c\""]);
}

#[test]
fn a_credential_shows_no_secret() {
    let presented = extract(&headers(&[("Authorization", &basic("ck_key:cs_secret"))]), None, &everything()).unwrap();
    let shown = format!("{presented:?}");
    assert!(!shown.contains("cs_secret") && !shown.contains("ck_key"), "{shown}");
}

proptest! {
    #[test]
    fn any_pair_is_read_back(key in "[!-9;-~]{1,40}", secret in "[!-~]{1,200}") {
        let value = basic(format!("{key}:{secret}"));
        let presented = extract(&headers(&[("Authorization", &value)]), None, &everything()).unwrap().unwrap();
        prop_assert_eq!(show(&presented.credential), format!("{key} : {secret}"));
        prop_assert!(!presented.padded);
    }

    #[test]
    fn no_field_and_no_query_makes_reading_panic(value in "[ -~]{0,60}", query in "[ -~]{0,60}") {
        for scheme in ["", "Basic ", "Bearer "] {
            let _ = extract(&headers(&[("Authorization", format!("{scheme}{value}").trim())]), Some(&query), &everything());
        }
    }

    #[test]
    fn nothing_of_a_stripped_query_is_a_credential(
        pieces in proptest::collection::vec("(consumer[_.+\\[]key|consumer%5[fF]secret|\\+?consumer_secret|a)(\\[\\]|%00x|)=?[a-z]{0,3}", 0..5),
    ) {
        let sent = format!("/?{}", pieces.join("&"));
        let mut target = Target::new(&PathAndQuery::try_from(sent).unwrap()).unwrap();
        strip(&mut HeaderMap::new(), &mut target, &everything());
        prop_assert!(extract(&HeaderMap::new(), target.query(), &everything()).unwrap().is_none());
    }
}
