//! A credential is read as its RFC says, holds nothing that could break out of a line, and is taken off whole.
//!
//! An input: switches, the target, fields. `b` Basic off, `t` Bearer off, `h` a token in `X-API-Key`, `q` a pair in the
//! query, `p` other Authorization goes on, `r` it is refused.

#![no_main]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, header::AUTHORIZATION, uri::PathAndQuery};
use keyside::{
    credential::{self, Credential, OtherAuthorization, Presented, QueryNames, Scheme, Settings},
    facts::Target,
    keys::secret::MAX_SECRET_BYTES,
};
use keyside_fuzz::{Switches, fields, line};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (switches, rest) = line(input);
    let (target, rest) = line(rest);
    let Ok(target) = PathAndQuery::try_from(target) else { return };
    let Ok(target) = Target::new(&target) else { return };
    let Some(headers) = fields(rest) else { return };
    let settings = settings(&Switches(switches));

    let extracted = credential::extract(&headers, target.query(), &settings);
    if let Ok(Some(presented)) = &extracted {
        judge(presented, &headers);
    }
    let (mut left, mut left_target) = (headers.clone(), target.clone());
    credential::strip(&mut left, &mut left_target, &settings);
    // Whatever was made of it: what goes on holds no credential.
    match credential::extract(&left, left_target.query(), &settings) {
        Ok(left) => assert!(left.is_none(), "a credential is left"),
        // Two fields that are none, and that were refused.
        Err(_) => assert!(extracted.is_err() && settings.other_authorization == OtherAuthorization::Pass),
    }
    for name in left.keys() {
        assert!(Some(name) != settings.header.as_ref());
        assert!(*name != AUTHORIZATION || settings.other_authorization == OtherAuthorization::Pass);
    }
    // And what is no credential goes on as it was.
    for (name, value) in headers.iter().filter(|(name, _)| **name != AUTHORIZATION) {
        assert!(Some(name) == settings.header.as_ref() || left.get_all(name).iter().any(|there| there == value));
    }
    assert_eq!(left_target.path(), target.path());
    let mut pairs = target.query().unwrap_or_default().split('&');
    for kept in left_target.query().into_iter().flat_map(|query| query.split('&')) {
        assert!(pairs.any(|pair| pair == kept), "{kept} was changed or moved");
    }
});

fn settings(switches: &Switches<'_>) -> Settings {
    let names = QueryNames { key: "consumer_key".into(), secret: "consumer_secret".into() };
    Settings {
        basic: !switches.has(b'b'),
        bearer: !switches.has(b't'),
        header: switches.has(b'h').then(|| HeaderName::from_static("x-api-key")),
        query: switches.has(b'q').then_some(names),
        other_authorization: match () {
            () if switches.has(b'p') => OtherAuthorization::Pass,
            () if switches.has(b'r') => OtherAuthorization::Refuse,
            () => OtherAuthorization::Strip,
        },
    }
}

fn judge(presented: &Presented, headers: &HeaderMap) {
    let parts = match &presented.credential {
        Credential::Pair { key, secret } => vec![key.expose(), secret.expose()],
        Credential::Token(token) => vec![token.expose()],
    };
    for part in &parts {
        assert!((1..=MAX_SECRET_BYTES).contains(&part.len()));
        let inner = if presented.padded { part.trim_ascii() } else { part };
        assert!(!inner.iter().any(u8::is_ascii_control), "a control character in a credential");
    }
    if matches!(presented.scheme, Scheme::Bearer | Scheme::Header) {
        assert!(parts.len() == 1 && parts[0].iter().all(u8::is_ascii_graphic));
    }
    if presented.scheme == Scheme::Basic {
        let value = headers[AUTHORIZATION].as_bytes().trim_ascii();
        let pair = STANDARD.decode(value[5..].trim_ascii()).expect("strict base64");
        let colon = pair.iter().position(|&byte| byte == b':').expect("a colon");
        let expected = match (&pair[..colon], &pair[colon + 1..]) {
            (token, []) => vec![token],
            (key, secret) => vec![key, secret],
        };
        assert_eq!(parts, expected);
    }
}
