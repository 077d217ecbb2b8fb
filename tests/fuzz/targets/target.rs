//! A target has one reading, and what PHP would act on is what was judged.
//!
//! An input: switches, a method, a target, fields. `r` a path may be named by `rest_route`, as WordPress has it; `n`
//! overrides are refused.

#![no_main]

use http::{HeaderValue, Method, Request, Uri};
use keyside::facts::{ActedOn, Arrival, Facts, MethodOverride, Oddities, Oddity, Settings, Target};
use keyside_fuzz::{Switches, fields, line, percent_decoded};

const PREFIX: &str = "/wp-json";

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (switches, rest) = line(input);
    let (method, rest) = line(rest);
    let (target, rest) = line(rest);
    let switches = Switches(switches);
    let Ok(method) = Method::from_bytes(method) else { return };
    let Ok(uri) = Uri::try_from(target) else { return };
    let Some(mut headers) = fields(rest) else { return };
    if !headers.contains_key("host") {
        let host = uri.authority().map_or("api.example.com", |authority| authority.as_str());
        headers.insert("host", HeaderValue::from_str(host).expect("an authority"));
    }
    let mut settings = Settings::default();
    if switches.has(b'r') {
        settings.effective_path_parameter = Some("rest_route".into());
        settings.effective_path_prefix = PREFIX.into();
        settings.front_controllers = vec!["/".into(), "/index.php".into()];
    }
    if switches.has(b'n') {
        settings.method_override = MethodOverride::Refuse;
    }
    let (mut head, ()) = Request::new(()).into_parts();
    (head.method, head.uri, head.headers) = (method, uri, headers);
    let arrival = Arrival { peer: [192, 0, 2, 1].into(), secure: true, http2: false };
    let Ok(facts) = Facts::from_head(&head, &arrival, &settings) else { return };

    judge_path(&facts.target);
    judge_method(&facts, &head.headers, &settings);
    judge_named_path(&facts, &settings);
});

fn judge_path(target: &Target) {
    let again = Target::new(target.path_and_query()).expect("what is canonical can be read");
    assert_eq!((again.path(), again.query()), (target.path(), target.query()));
    assert_eq!(again.oddities(), target.oddities());
    let path = target.path();
    assert!(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()));

    let decoded = percent_decoded(path.as_bytes());
    assert_eq!(percent_decoded(&decoded), decoded, "escaped twice");
    let decoded = String::from_utf8(decoded).expect("text");
    assert!(!decoded.bytes().any(|byte| byte.is_ascii_control() || byte == b'\\'), "{decoded:?}");
    // Of the path as it stands and as it is decoded, with what follows a semicolon and without.
    for reading in [path, &decoded] {
        let segments: Vec<_> = reading[1..].split('/').collect();
        for (index, segment) in segments.iter().enumerate() {
            let cut = segment.split(';').next().unwrap_or_default();
            assert!(!matches!(*segment, "." | "..") && !matches!(cut, "." | ".."), "{reading}");
            assert!(!segment.is_empty() || index + 1 == segments.len(), "{reading}");
        }
    }
    let without = [Oddity::Semicolon, Oddity::EscapedSemicolon].into_iter().collect::<Oddities>();
    let slashes = |text: &str| text.matches('/').count();
    assert!(slashes(path) == slashes(&decoded) || !target.oddities().within(without), "a hidden separator");
    let plain = [Oddity::EscapedSlash].into_iter().collect::<Oddities>();
    assert!(!decoded.contains(';') || !target.oddities().within(plain), "a hidden semicolon");
}

fn judge_method(facts: &Facts, headers: &http::HeaderMap, settings: &Settings) {
    let judged = facts.effective_method.as_ref().unwrap_or(&facts.method);
    assert!(![Method::CONNECT, Method::TRACE].contains(judged));
    let mut named = php_values(facts.target.query().unwrap_or_default(), "_method");
    for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
        named.extend(headers.get_all(name).iter().map(|value| Filed::Text(value.as_bytes().to_vec())));
    }
    for value in &named {
        assert!(settings.method_override == MethodOverride::Judge, "an override was let through");
        let Filed::Text(value) = value else { panic!("an array was let through") };
        assert_eq!(value.to_ascii_uppercase(), judged.as_str().as_bytes());
    }
    assert!(!named.is_empty() || facts.effective_method.is_none());
}

fn judge_named_path(facts: &Facts, settings: &Settings) {
    let Some(parameter) = &settings.effective_path_parameter else { return };
    let named = php_values(facts.target.query().unwrap_or_default(), parameter);
    assert_eq!(facts.effective_path.is_some(), !named.is_empty(), "{named:?}");
    let Some(path) = facts.effective_path.as_deref() else { return };
    for value in named {
        let Filed::Text(value) = value else { panic!("an array was let through") };
        assert_eq!(percent_decoded(path.as_bytes()), [PREFIX.as_bytes(), &value].concat());
    }
    judge_path(&Target::new(&path.parse().expect("a path")).expect("a canonical path"));
    match facts.acted_on() {
        ActedOn::Sent(_) => panic!("the named path was forgotten"),
        ActedOn::Named(judged) | ActedOn::Either { named: judged, .. } => assert_eq!(judged, path),
    }
}

/// What PHP files under a name.
#[derive(Debug)]
enum Filed {
    Text(Vec<u8>),
    Array,
}

/// All that PHP would file under this name, in the way of its `php_register_variable_ex`.
fn php_values(query: &str, wanted: &str) -> Vec<Filed> {
    let mut values = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| percent_decoded(text.replace('+', " ").as_bytes());
        let name = decode(name);
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        let spaces = name.iter().take_while(|&&byte| byte == b' ').count();
        let name = &name[spaces..];
        let bracket = name.iter().position(|&byte| byte == b'[').unwrap_or(name.len());
        let closed = name[bracket..].contains(&b']');
        let end = if closed { bracket } else { name.len() };
        let folded = |byte: &u8| if b" .[".contains(byte) { b'_' } else { *byte };
        if name[..end].iter().map(folded).eq(wanted.bytes()) {
            values.push(if closed { Filed::Array } else { Filed::Text(decode(value)) });
        }
    }
    values
}
