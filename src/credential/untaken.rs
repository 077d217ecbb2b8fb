//! What a caller brought in place of a credential that is taken here.

use http::{HeaderMap, header::AUTHORIZATION};

use crate::policy::effective::{self, Named};

/// Schemes that are registered with IANA (RFC 9110 §16.4.1), and the one of RFC 5849 §3.5.1. Only these are named: what
/// stands in the place of a scheme may be a secret that was sent without one.
const KNOWN: [&str; 9] = ["Basic", "Bearer", "DPoP", "Digest", "HOBA", "Mutual", "Negotiate", "OAuth", "vapid"];

/// The parameter that every signed request has, wherever it has its others (RFC 5849 §3.5).
const SIGNATURE: &str = "oauth_signature";

const SIGNED: &str = "Requests signed by OAuth 1.0 are not taken here: only hashes of secrets are kept, and a signature \
                      cannot be checked by one. Send the key and its secret themselves.";

/// Why a request without a credential has none, where it brought something in its place: for the caller, who else looks
/// for the fault in the key.
pub fn untaken(headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        let is_signature = |(name, _): (&[u8], _)| effective::named(name, SIGNATURE) == Named::Plain;
        return effective::parameters(query?.as_bytes()).any(is_signature).then(|| SIGNED.to_owned());
    };
    let scheme = value.as_bytes().trim_ascii().split(u8::is_ascii_whitespace).next().unwrap_or_default();
    Some(match KNOWN.iter().find(|known| scheme.eq_ignore_ascii_case(known.as_bytes())) {
        Some(&"OAuth") => SIGNED.to_owned(),
        Some(known) => format!("The scheme {known} is not taken here."),
        None => "The Authorization field holds nothing that is taken here.".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(authorization: Option<&'static str>, query: Option<&str>, expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.extend(authorization.map(|value| (AUTHORIZATION, HeaderValue::from_static(value))));
        assert_eq!(untaken(&headers, query).as_deref(), expected);
    }

    #[test]
    fn what_was_brought_is_named_if_it_cannot_be_a_secret() {
        check(None, None, None);
        check(None, Some("a=b&oauth=x"), None);
        check(Some("Digest username=a"), None, Some("The scheme Digest is not taken here."));
        check(Some("bearer abc"), None, Some("The scheme Bearer is not taken here."));
        check(Some("OAuth oauth_consumer_key=\"ck_1\""), None, Some(SIGNED));
        check(None, Some("oauth_consumer_key=ck_1&oauth%5Fsignature=a"), Some(SIGNED));
        for secret in ["ck_live_123", "", "ck_1:cs_1 x"] {
            check(Some(secret), None, Some("The Authorization field holds nothing that is taken here."));
        }
    }
}
