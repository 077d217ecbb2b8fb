use http::{HeaderName, Request, Version};
use proptest::prelude::*;

use super::*;
use crate::policy::network::Networks;

fn settings() -> Settings {
    Settings { trusted_proxies: Networks::parse(["10.0.0.0/8"]).unwrap(), ..Settings::default() }
}

/// Settings for an upstream that takes a path from a parameter.
fn rest_route() -> Settings {
    Settings { effective_path_parameter: Some("rest_route".into()), ..settings() }
}

fn head(method: &str, target: &str, fields: &[(&str, &str)]) -> Parts {
    let mut head = Request::new(()).into_parts().0;
    head.method = Method::from_bytes(method.as_bytes()).unwrap();
    head.uri = target.parse().unwrap();
    for (name, value) in fields {
        head.headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    head
}

fn read(head: &Parts, settings: &Settings) -> Result<Facts, (Rejection, RequestId)> {
    let arrival = Arrival { peer: "192.0.2.1".parse().unwrap(), secure: true, http2: head.version == Version::HTTP_2 };
    Facts::from_head(head, &arrival, settings)
}

/// Reads a request to a valid host.
fn facts(method: &str, target: &str, fields: &[(&str, &str)], settings: &Settings) -> Result<Facts, Reason> {
    let fields = [&[("Host", "api.example")], fields].concat();
    read(&head(method, target, &fields), settings).map_err(|(rejection, _)| rejection.reason)
}

#[test]
fn a_plain_request_is_what_it_says() {
    let facts = facts("GET", "/v1/wallets?page=2", &[("Accept", "*/*")], &settings()).unwrap();
    assert_eq!(facts.client, "192.0.2.1".parse::<IpAddr>().unwrap());
    assert_eq!(facts.client_source, ClientIpSource::Peer);
    assert_eq!((&facts.method, facts.effective_method.as_ref()), (&Method::GET, None));
    assert_eq!((facts.target.path(), facts.target.query()), ("/v1/wallets", Some("page=2")));
    assert_eq!(facts.effective_path, None);
    assert_eq!(facts.host.name(), "api.example");
    assert!(facts.secure && !facts.http2 && !facts.preflight && !facts.form_body_pending && !facts.odd_fields);
    assert_eq!(facts.request_id.as_str().len(), 26);
}

#[test]
fn the_client_is_read_through_trusted_proxies() {
    let head = head("GET", "/", &[("Host", "a.example"), ("X-Forwarded-For", "203.0.113.9")]);
    let from = |peer: &str| {
        let arrival = Arrival { peer: peer.parse().unwrap(), secure: false, http2: false };
        Facts::from_head(&head, &arrival, &settings()).unwrap()
    };
    let through = from("::ffff:10.0.0.1");
    assert_eq!(through.client, "203.0.113.9".parse::<IpAddr>().unwrap());
    assert!(through.peer_trusted && !through.untrusted_forwarded);
    let direct = from("192.0.2.1");
    assert_eq!(direct.client, "192.0.2.1".parse::<IpAddr>().unwrap());
    assert!(!direct.peer_trusted && direct.untrusted_forwarded);
}

#[test]
fn a_sane_request_id_is_kept_also_when_the_request_is_refused() {
    let id = |fields: &[(&str, &str)], target: &str| {
        let fields = [&[("Host", "a.example")], fields].concat();
        match read(&head("GET", target, &fields), &settings()) {
            Ok(facts) => facts.request_id,
            Err((_, id)) => id,
        }
    };
    assert_eq!(id(&[("X-Request-Id", "abc-1")], "/").as_str(), "abc-1");
    assert_eq!(id(&[("X-Request-Id", "abc-1")], "/a/../b").as_str(), "abc-1");
    assert_ne!(id(&[("X-Request-Id", "abc 1")], "/").as_str(), "abc 1");
    assert_eq!(id(&[("X-Request-Id", "a"), ("X-Request-Id", "a")], "/").as_str().len(), 26);
    assert_eq!(id(&[], "/a/../b").as_str().len(), 26);
}

#[track_caller]
fn check_refused(method: &str, target: &str, fields: &[(&str, &str)], expected: Option<Reason>) {
    let facts = facts(method, target, fields, &settings());
    assert_eq!(facts.as_ref().err(), expected.as_ref(), "{method} {target} {fields:?}");
}

#[test]
fn framing_that_two_parsers_read_differently_is_refused() {
    let framing = Some(Reason::AmbiguousFraming);
    check_refused("POST", "/", &[("Transfer-Encoding", "chunked")], None);
    check_refused("POST", "/", &[("Transfer-Encoding", "Chunked")], None);
    check_refused("POST", "/", &[("Transfer-Encoding", "gzip, chunked")], framing);
    check_refused("POST", "/", &[("Transfer-Encoding", "identity")], framing);
    check_refused("POST", "/", &[("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")], framing);
    check_refused("POST", "/", &[("Transfer-Encoding", "chunked"), ("Content-Length", "5")], framing);
    check_refused("POST", "/", &[("Content-Length", "5")], None);
}

#[test]
fn a_repeated_or_missing_host_is_refused() {
    check_refused("GET", "/", &[("Host", "api.example")], Some(Reason::AmbiguousHost));
    let without = read(&head("GET", "/", &[]), &settings());
    assert_eq!(without.unwrap_err().0.reason, Reason::AmbiguousHost);
    let mut old = head("GET", "/", &[]);
    old.version = Version::HTTP_10;
    assert_eq!(read(&old, &settings()).unwrap_err().0.reason, Reason::AmbiguousHost);
}

#[test]
fn an_absolute_target_is_reduced_to_its_origin_form() {
    let facts = facts("GET", "http://api.example/%7ea?b=c", &[], &settings()).unwrap();
    assert_eq!(facts.target.path_and_query(), "/~a?b=c");
    let facts = self::facts("GET", "http://api.example", &[], &settings()).unwrap();
    assert_eq!(facts.target.path_and_query(), "/");
}

#[test]
fn a_target_without_a_path_is_refused() {
    check_refused("OPTIONS", "*", &[], Some(Reason::AmbiguousPath));
    check_refused("GET", "api.example", &[], Some(Reason::AmbiguousPath));
    check_refused("GET", "ftp://api.example/a", &[], Some(Reason::AmbiguousPath));
}

#[test]
fn connect_and_trace_are_refused_by_method() {
    check_refused("CONNECT", "api.example:443", &[], Some(Reason::MethodNotAllowed));
    check_refused("CONNECT", "other.example:443", &[], Some(Reason::MethodNotAllowed));
    check_refused("TRACE", "/", &[], Some(Reason::MethodNotAllowed));
    check_refused("PURGE", "/", &[], None);
    check_refused("post", "/", &[], None);
}

#[test]
fn odd_field_names_are_refused_by_name() {
    for name in ["X_Key_Owner", "x.key.owner", "content_length", "a!b", "a~b", "x-key'owner", "_"] {
        let head = head("GET", "/", &[("Host", "api.example"), (name, "a")]);
        let rejection = read(&head, &settings()).unwrap_err().0;
        assert_eq!(rejection.reason, Reason::AmbiguousFieldName, "{name}");
        assert!(rejection.hint.unwrap().contains(&name.to_ascii_lowercase()), "{name}");
    }
    check_refused("GET", "/", &[("X-Key-2", "a"), ("ETag", "b")], None);
}

#[test]
fn odd_field_names_are_dropped_or_pass_as_configured() {
    let dropping = Settings {
        odd_field_names: OddFieldNames::Drop,
        pass_field_names: vec![HeaderName::from_static("client_id")],
        ..settings()
    };
    let mut head = head("GET", "/", &[("Host", "api.example"), ("client_id", "1"), ("X_Key_Owner", "a"), ("a.b", "c")]);
    assert!(read(&head, &dropping).unwrap().odd_fields);
    drop_odd_fields(&mut head.headers, &dropping);
    assert_eq!(head.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["host", "client_id"]);
    assert!(!read(&head, &dropping).unwrap().odd_fields);
    assert!(read(&head, &settings()).is_err());
}

#[test]
fn names_fold_as_cgi_folds_them() {
    for (name, other, expected) in [
        ("X_Key_Owner", "X-Key-Owner", true),
        ("x.key.owner", "X-Key-Owner", true),
        ("x-key-owner", "X-Key-Owner", true),
        ("client_id", "X-Key-Id", false),
        ("x-key-ownerx", "X-Key-Owner", false),
    ] {
        assert_eq!(folds_onto(name, other), expected, "{name} {other}");
    }
}

#[test]
fn a_target_over_the_limit_is_too_long() {
    let settings = Settings { max_uri_bytes: 16, ..settings() };
    assert!(facts("GET", "/0123456789abcde", &[], &settings).is_ok());
    assert_eq!(facts("GET", "/0123456789abcdef", &[], &settings).unwrap_err(), Reason::UriTooLong);
    assert_eq!(facts("GET", "/?0123456789abcde", &[], &settings).unwrap_err(), Reason::UriTooLong);
}

#[test]
fn fields_over_the_limit_are_too_large() {
    let settings = Settings { max_header_bytes: 40, ..settings() };
    // Host: api.example takes 19 of the 40.
    assert!(facts("GET", "/", &[("a", "0123456789abcdef")], &settings).is_ok());
    assert_eq!(facts("GET", "/", &[("a", "0123456789abcdefg")], &settings).unwrap_err(), Reason::HeadersTooLarge);
    assert_eq!(
        facts("GET", "/", &[("a", "1"), ("a", "2"), ("a", "3"), ("a", "4")], &settings).unwrap_err(),
        Reason::HeadersTooLarge
    );
}

#[test]
fn too_many_field_lines_are_too_large() {
    assert!(facts("GET", "/", &[("a", "")].repeat(99), &settings()).is_ok());
    assert_eq!(facts("GET", "/", &[("a", "")].repeat(100), &settings()).unwrap_err(), Reason::HeadersTooLarge);
}

#[test]
fn what_is_not_clear_is_told_before_what_is_too_long() {
    let settings = Settings { max_header_bytes: 1, max_uri_bytes: 1, ..settings() };
    assert_eq!(facts("GET", "//", &[("a_b", "")], &settings).unwrap_err(), Reason::AmbiguousFieldName);
    assert_eq!(facts("GET", "//", &[], &settings).unwrap_err(), Reason::AmbiguousPath);
    assert_eq!(facts("GET", "/a", &[], &settings).unwrap_err(), Reason::UriTooLong);
    assert_eq!(facts("GET", "/", &[], &settings).unwrap_err(), Reason::HeadersTooLarge);
}

#[track_caller]
fn check_method(target: &str, fields: &[(&str, &str)], expected: Result<Option<&str>, Reason>) {
    let facts = facts("GET", target, fields, &settings());
    let method = facts.map(|facts| facts.effective_method.map(|method| method.to_string()));
    assert_eq!(method, expected.map(|method| method.map(str::to_owned)), "{target} {fields:?}");
    let refusing = Settings { method_override: MethodOverride::Refuse, ..settings() };
    let facts = self::facts("GET", target, fields, &refusing);
    let overrides = target.contains("meth") || !fields.is_empty();
    assert_eq!(facts.is_err(), overrides, "{target} {fields:?} where overrides are refused");
}

#[test]
fn the_effective_method_is_the_one_that_php_reads() {
    check_method("/?a=b", &[], Ok(None));
    check_method("/?_method=DELETE", &[], Ok(Some("DELETE")));
    check_method("/?_method=delete", &[], Ok(Some("DELETE")));
    check_method("/?a&%5Fmethod=P%55T", &[], Ok(Some("PUT")));
    check_method("/?.method=PURGE", &[], Ok(Some("PURGE")));
    check_method("/?_method=get", &[], Ok(None));
    check_method("/?_method=PUT&_method=put", &[], Err(Reason::AmbiguousMethod));
    check_method("/?_method=GET&_method=DELETE", &[], Err(Reason::AmbiguousMethod));
    check_method("/?_method[]=DELETE", &[], Err(Reason::AmbiguousMethod));
    check_method("/?_method=", &[], Err(Reason::AmbiguousMethod));
    check_method("/?_method", &[], Err(Reason::AmbiguousMethod));
    check_method("/?_method=DELETE%00", &[], Err(Reason::AmbiguousMethod));
    check_method("/?_method=DELETE+", &[], Err(Reason::AmbiguousMethod));
    check_method("/?_method=TRACE", &[], Err(Reason::MethodNotAllowed));
    check_method("/?_method=connect", &[], Err(Reason::MethodNotAllowed));
}

#[test]
fn fields_override_the_method_too() {
    for name in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
        check_method("/", &[(name, "DELETE")], Ok(Some("DELETE")));
        check_method("/", &[(name, "delete")], Ok(Some("DELETE")));
        check_method("/", &[(name, "GET")], Ok(None));
        check_method("/", &[(name, "")], Err(Reason::AmbiguousMethod));
        check_method("/", &[(name, "GET, DELETE")], Err(Reason::AmbiguousMethod));
        check_method("/", &[(name, "GET"), (name, "DELETE")], Err(Reason::AmbiguousMethod));
        check_method("/?_method=PUT", &[(name, "put")], Ok(Some("PUT")));
        check_method("/?_method=GET", &[(name, "DELETE")], Err(Reason::AmbiguousMethod));
    }
    check_method("/", &[("X-HTTP-Method", "PUT"), ("X-Method-Override", "DELETE")], Err(Reason::AmbiguousMethod));
}

#[track_caller]
fn check_path(target: &str, expected: Result<Option<&str>, Reason>) {
    let path = facts("GET", target, &[], &rest_route()).map(|facts| facts.effective_path);
    assert_eq!(path.as_ref().map(Option::as_deref), expected.as_ref().map(|path| *path), "{target}");
    assert_eq!(facts("GET", target, &[], &settings()).unwrap().effective_path, None, "{target} without the setting");
}

#[test]
fn the_effective_path_is_the_one_that_php_reads() {
    check_path("/?a=b", Ok(None));
    check_path("/?rest_route=/wc/v3/orders", Ok(Some("/wc/v3/orders")));
    check_path("/index.php?a&rest.route=%2Fwc%2fv3%2F%6Frders", Ok(Some("/wc/v3/orders")));
    check_path("/?rest[route=/wc/v3", Ok(Some("/wc/v3")));
    check_path("/?rest%5Broute=/wc/v3/", Ok(Some("/wc/v3/")));
    check_path("/?rest_route=/", Ok(Some("/")));
    check_path("/?rest_route=/a+b", Ok(Some("/a%20b")));
    check_path("/?rest_route=/caf%c3%a9", Ok(Some("/caf%C3%A9")));
    check_path("/?rest_route=/a&rest_route=%2Fa", Ok(Some("/a")));
}

#[test]
fn an_effective_path_that_could_be_read_in_two_ways_is_refused() {
    for target in [
        "/?rest_route=/a&rest_route=/b",
        "/?rest_route[]=/a",
        "/?rest_route=/a&rest_route[x]=/b",
        "/?rest_route=/a/../b",
        "/?rest_route=/%2e%2e/b",
        "/?rest_route=//a",
        "/?rest_route=/a%2F%2Fb",
        "/?rest_route=/a%00",
        "/?rest_route=/a%5Cb",
        "/?rest_route=/%252e%252e/a",
        "/?rest_route=/%ff",
        "/?rest_route=",
        "/?rest_route=0",
        "/?rest_route=wc/v3",
    ] {
        check_path(target, Err(Reason::AmbiguousPath));
    }
}

#[test]
fn a_named_path_stands_behind_its_prefix() {
    let settings = Settings { effective_path_prefix: "/wp-json".into(), ..rest_route() };
    for (named, expected) in [("/", "/wp-json/"), ("/wc/v3/", "/wp-json/wc/v3/"), ("/%2e%77c", "/wp-json/.wc")] {
        let facts = facts("GET", &format!("/?rest_route={named}"), &[], &settings).unwrap();
        assert_eq!(facts.effective_path.as_deref(), Some(expected));
    }
}

#[test]
fn at_a_front_controller_the_named_path_is_the_only_one() {
    let settings = Settings { front_controllers: vec!["/".into(), "/index.php".into()], ..rest_route() };
    for (target, expected) in [
        ("/", ActedOn::Sent("/")),
        ("/?rest_route=/a", ActedOn::Named("/a")),
        ("/index.php?rest.route=/a", ActedOn::Named("/a")),
        ("/index.php/?rest_route=/a", ActedOn::Named("/a")),
        ("/index.php/wp-json/b", ActedOn::Sent("/wp-json/b")),
        ("/index.php/wp-json/b?rest_route=/a", ActedOn::Either { sent: "/wp-json/b", named: "/a" }),
        ("/Index.php?rest_route=/a", ActedOn::Either { sent: "/Index.php", named: "/a" }),
        ("/wp-json/b?rest_route=/a", ActedOn::Either { sent: "/wp-json/b", named: "/a" }),
    ] {
        assert_eq!(facts("GET", target, &[], &settings).unwrap().acted_on(), expected, "{target}");
    }
    // The query is read by everybody. What is a form here may be none to the upstream: PHP knows no type that a tab ends.
    for (target, expected) in
        [("/", ActedOn::Either { sent: "/", named: "/a" }), ("/?rest_route=/a", ActedOn::Named("/a"))]
    {
        let mut form = facts("POST", target, &[URL_ENCODED], &settings).unwrap();
        form.judge_form(b"rest_route=/a", &settings).unwrap();
        assert_eq!(form.acted_on(), expected, "a form to {target}");
    }
}

/// PHP drops what stands behind its thousandth parameter.
#[test]
fn a_path_that_is_named_late_is_refused() {
    let late = |count: usize| format!("/?{}rest_route=/a", "a&".repeat(count));
    check_path(&late(100), Ok(Some("/a")));
    check_path(&late(101), Err(Reason::AmbiguousPath));
    check_path(&format!("/?rest_route=/a&{}", "a&".repeat(1000)), Ok(Some("/a")));
}

const URL_ENCODED: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8");
const MULTIPART: (&str, &str) = ("Content-Type", "Multipart/Form-Data; boundary=x");

#[test]
fn a_form_is_pending_where_it_may_name_the_path() {
    let pending =
        |method, field, settings: &Settings| facts(method, "/", &[field], settings).unwrap().form_body_pending;
    assert!(pending("POST", URL_ENCODED, &rest_route()));
    assert!(pending("POST", MULTIPART, &rest_route()));
    assert!(pending("POST", ("Content-Type", "application/x-www-form-urlencoded,x"), &rest_route()));
    assert!(!pending("POST", URL_ENCODED, &settings()));
    assert!(!pending("PUT", URL_ENCODED, &rest_route()));
    assert!(!pending("POST", ("Content-Type", "application/json"), &rest_route()));
    let twice = [("Content-Type", "text/plain"), MULTIPART];
    assert!(facts("POST", "/", &twice, &rest_route()).unwrap().form_body_pending);
}

#[track_caller]
fn check_form(target: &str, kind: (&str, &str), body: &str, expected: Result<Option<&str>, Reason>) {
    let mut facts = facts("POST", target, &[kind], &rest_route()).unwrap();
    let judged = facts.judge_form(body.as_bytes(), &rest_route()).map_err(|rejection| rejection.reason);
    assert_eq!(judged.map(|()| facts.effective_path.as_deref()), expected, "{target} {body:.60}");
    assert_eq!(facts.form_body_pending, expected.is_err());
}

#[test]
fn a_form_may_name_the_effective_path_too() {
    check_form("/", URL_ENCODED, "", Ok(None));
    check_form("/", URL_ENCODED, "a=b&rest_routes=1", Ok(None));
    check_form("/", URL_ENCODED, "a=b&rest.route=%2Fwc%2Fv3", Ok(Some("/wc/v3")));
    check_form("/?rest_route=/wc/v3", URL_ENCODED, "a=b", Ok(Some("/wc/v3")));
    check_form("/?rest_route=/wc/v3", URL_ENCODED, "rest_route=/wc/%76%33", Ok(Some("/wc/v3")));
    check_form("/?rest_route=/wc/v3", URL_ENCODED, "rest_route=/wc/v2", Err(Reason::AmbiguousPath));
    check_form("/", URL_ENCODED, "rest_route=/a&rest_route=/b", Err(Reason::AmbiguousPath));
    check_form("/", URL_ENCODED, "rest_route=/a/../b", Err(Reason::AmbiguousPath));
}

#[test]
fn a_multipart_form_may_not_name_the_effective_path() {
    check_form(
        "/?rest_route=/a",
        MULTIPART,
        "--x\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\nb\r\n--x--",
        Ok(Some("/a")),
    );
    check_form(
        "/",
        MULTIPART,
        "--x\r\ncontent-disposition: form-data; name=\"rest_route\"\r\n\r\n/a",
        Err(Reason::AmbiguousPath),
    );
    check_form("/", MULTIPART, "name=\"rest\r\n route\"", Err(Reason::AmbiguousPath));
}

#[test]
fn a_larger_form_is_too_large() {
    check_form("/", URL_ENCODED, &"a".repeat(MAX_FORM_BYTES), Ok(None));
    check_form("/", URL_ENCODED, &"a".repeat(MAX_FORM_BYTES + 1), Err(Reason::BodyTooLarge));
    check_form("/", MULTIPART, &"a".repeat(MAX_FORM_BYTES + 1), Err(Reason::BodyTooLarge));
}

#[test]
fn a_preflight_asks_for_a_method_from_another_origin() {
    let fields = [("Origin", "https://shop.example"), ("Access-Control-Request-Method", "PUT")];
    assert!(facts("OPTIONS", "/", &fields, &settings()).unwrap().preflight);
    assert!(!facts("OPTIONS", "/", &fields[..1], &settings()).unwrap().preflight);
    assert!(!facts("OPTIONS", "/", &fields[1..], &settings()).unwrap().preflight);
    assert!(!facts("GET", "/", &fields, &settings()).unwrap().preflight);
}

#[test]
fn http2_names_its_host_by_authority() {
    let mut head = head("GET", "https://Api.Example:8443/a", &[]);
    head.version = Version::HTTP_2;
    let facts = read(&head, &settings()).unwrap();
    assert_eq!((facts.host.name(), facts.host.authority(), facts.http2), ("api.example", "Api.Example:8443", true));
    assert_eq!(facts.target.path_and_query(), "/a");
}

proptest! {
    #[test]
    fn no_target_and_no_field_makes_reading_panic(
        target in "/[ -~]{0,40}",
        name in "[a-zA-Z_.-]{1,12}",
        value in "[ -~]{0,24}",
        form in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        if let Ok(uri) = target.parse::<Uri>() {
            let mut head = head("POST", "/", &[("Host", "a.example"), URL_ENCODED, (&name, value.trim())]);
            head.uri = uri;
            if let Ok(mut facts) = read(&head, &rest_route()) {
                prop_assert_eq!(facts.target.query(), head.uri.query());
                let _ = facts.judge_form(&form, &rest_route());
            }
        }
    }
}
