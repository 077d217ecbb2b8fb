//! What an upstream will act on where that is not what was sent: methods and paths named by parameters, read as
//! PHP reads them. Pure.
//!
//! PHP files a parameter under a mangled name (`php_register_variable_ex`): the name is decoded, cut at a NUL,
//! its leading spaces are dropped, each space and dot becomes an underscore, and so does a bracket that is never
//! closed; a closed one makes an array. `;` separates nothing, and letters keep their case. All that is read here
//! errs on the side of seeing the parameter: an occurrence too many can only refuse more.

use std::borrow::Cow;

use http::Method;

/// The parameter by which a request names another method than its own.
pub const METHOD_PARAMETER: &str = "_method";

/// The fields by which a request names another method than its own.
pub const METHOD_FIELDS: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// A parameter occurs more than once with different values, as an array, or to some readers alone: what counts is the
/// upstream's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict;

/// How the name of a parameter relates to the one that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// It is another one.
    No,
    /// It is this one.
    Plain,
    /// It is an array of this name, or is this one to some readers alone: two readings, and no value to judge.
    Unclear,
}

/// The names and values of a query or of a URL-encoded form, as they were sent.
pub fn parameters(encoded: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    encoded.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        match pair.iter().position(|&byte| byte == b'=') {
            Some(equals) => (&pair[..equals], &pair[equals + 1..]),
            None => (pair, &pair[pair.len()..]),
        }
    })
}

/// Whether PHP files a parameter with this name, as sent, under `wanted`.
///
/// PHP's own server drops question marks in front of a query, `/a??b=c`; PHP behind another server does not.
pub fn named(name: &[u8], wanted: &str) -> Named {
    if name.first() == Some(&b'?') {
        let rest = name.iter().position(|byte| *byte != b'?').map_or(&[][..], |at| &name[at..]);
        return if named(rest, wanted) == Named::No { Named::No } else { Named::Unclear };
    }
    let mut name = decode(name).skip_while(|&byte| byte == b' ').take_while(|&byte| byte != 0);
    for wanted in wanted.bytes() {
        if name.next().map(folded) != Some(folded(wanted)) {
            return Named::No;
        }
    }
    match name.next() {
        None => Named::Plain,
        Some(b'[') => Named::Unclear,
        Some(_) => Named::No,
    }
}

/// A byte of a name as PHP files it.
fn folded(byte: u8) -> u8 {
    if matches!(byte, b' ' | b'.' | b'[') { b'_' } else { byte }
}

/// The value, decoded, of the parameter that PHP files under this name: the same wherever it occurs.
pub fn parameter<'e>(encoded: &'e [u8], wanted: &str) -> Result<Option<Cow<'e, [u8]>>, Conflict> {
    let mut found: Option<&[u8]> = None;
    for (name, value) in parameters(encoded) {
        match (named(name, wanted), found) {
            (Named::No, _) => {}
            (Named::Unclear, _) => return Err(Conflict),
            (Named::Plain, None) => found = Some(value),
            (Named::Plain, Some(earlier)) if decode(earlier).eq(decode(value)) => {}
            (Named::Plain, Some(_)) => return Err(Conflict),
        }
    }
    Ok(found.map(decoded))
}

/// A value decoded as forms are: `+` is a space, a broken escape stands for itself.
pub fn decoded(value: &[u8]) -> Cow<'_, [u8]> {
    if value.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        Cow::Owned(decode(value).collect())
    } else {
        Cow::Borrowed(value)
    }
}

/// The bytes of a form-encoded text; costs no allocation.
pub fn decode(mut encoded: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let (&first, rest) = encoded.split_first()?;
        encoded = rest;
        Some(match first {
            b'+' => b' ',
            b'%' => match escaped(rest) {
                Some(byte) => {
                    encoded = &rest[2..];
                    byte
                }
                None => b'%',
            },
            other => other,
        })
    })
}

/// The byte that two hexadecimal digits at the start of this text stand for.
pub fn escaped(digits: &[u8]) -> Option<u8> {
    match *digits {
        [high, low, ..] => Some(hex(high)? << 4 | hex(low)?),
        _ => None,
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The method that an override names, in upper case as upstreams read it; none when it is no method at all.
pub fn method(value: &[u8]) -> Option<Method> {
    Method::from_bytes(&value.to_ascii_uppercase()).ok()
}

/// The path that a decoded value names, written as a path is sent, to be judged like one.
///
/// Everything but letters, digits, slashes and a few marks is escaped: what the upstream got decoded must not be
/// decoded again when it is judged.
pub fn path(value: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut path = String::with_capacity(value.len());
    for &byte in value {
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push('%');
            path.push(char::from(HEX[usize::from(byte >> 4)]));
            path.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    path
}

/// Whether a multipart form (RFC 7578) could hold a parameter of this name.
///
/// Where a part begins and what its name is, two parsers of multipart bodies seldom agree on; so any place counts
/// where the name stands, however it is folded, and whether or not a line of a part's head is broken within it.
pub fn mentions(body: &[u8], wanted: &str) -> bool {
    (0..body.len()).any(|start| {
        let mut rest = body[start..].iter().filter(|byte| !matches!(byte, b'\r' | b'\n'));
        wanted.bytes().all(|wanted| rest.next().is_some_and(|&byte| folded(byte) == folded(wanted)))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_named(name: &str, wanted: &str, expected: Named) {
        assert_eq!(named(name.as_bytes(), wanted), expected, "{name:?} as {wanted}");
    }

    /// What PHP 8.2 files under `_method`, by `parse_str`.
    #[test]
    fn every_spelling_that_php_files_under_a_name_is_that_name() {
        for name in [
            "_method",
            "%5Fmethod",
            "%5fmethod",
            ".method",
            "%2emethod",
            "%2Emethod",
            "+_method",
            "%20_method",
            "++_method",
            "+%20+_method",
            "_method%00",
            "_method%00x",
            "_method%00[x]",
            "%5f%6d%65%74%68%6f%64",
            "+.method",
        ] {
            check_named(name, "_method", Named::Plain);
        }
        for name in [
            "rest_route",
            "rest.route",
            "rest+route",
            "rest%20route",
            "rest[route",
            "rest%5Broute",
            "rest%5broute",
            "rest%2eroute",
            "+rest.route",
            "rest_route%00",
        ] {
            check_named(name, "rest_route", Named::Plain);
        }
    }

    #[test]
    fn an_array_of_a_name_is_told_apart() {
        for name in ["_method[]", "_method[x]", ".method%5B%5D", "_method[", "+_method%5Bx"] {
            check_named(name, "_method", Named::Unclear);
            check_named(&format!("??{name}"), "_method", Named::Unclear);
        }
    }

    #[test]
    fn another_name_is_another_name() {
        for name in [
            "",
            "_Method",
            "_METHOD",
            "method",
            "__method",
            "_method_",
            "_methodx",
            "x_method",
            "_method+",
            "_meth",
            "%00_method",
            "_%00method",
            "%255Fmethod",
            "_method;x",
            "x[_method]",
            "a;_method",
            "%09_method",
        ] {
            check_named(name, "_method", Named::No);
        }
        for name in ["rest[route]", "rest__route", "restroute", "rest-route"] {
            check_named(name, "rest_route", Named::No);
        }
    }

    #[test]
    fn a_name_that_php_would_never_file_matches_as_it_would_be_filed() {
        check_named("rest_route", "rest.route", Named::Plain);
    }

    #[track_caller]
    fn check_parameter(query: &str, expected: Result<Option<&str>, Conflict>) {
        let found = parameter(query.as_bytes(), "_method");
        let found = found.map(|value| value.map(|value| String::from_utf8(value.into_owned()).unwrap()));
        assert_eq!(found.as_ref().map(Option::as_deref), expected.as_ref().map(|value| *value), "{query:?}");
    }

    #[test]
    fn the_value_is_decoded_and_the_same_everywhere() {
        check_parameter("", Ok(None));
        check_parameter("&&a=b&", Ok(None));
        check_parameter("a=_method=DELETE", Ok(None));
        check_parameter("a=b;_method=DELETE", Ok(None));
        check_parameter("a=b&_method=DELETE", Ok(Some("DELETE")));
        check_parameter("_method=DEL%45TE", Ok(Some("DELETE")));
        check_parameter("_method=a+b%2Bc%zz%4", Ok(Some("a b+c%zz%4")));
        check_parameter("_method", Ok(Some("")));
        check_parameter("_method=a=b", Ok(Some("a=b")));
        check_parameter("_method%3DDELETE", Ok(None));
        check_parameter("_method=PUT&.method=PU%54", Ok(Some("PUT")));
        check_parameter("_method=PUT&.method=put", Err(Conflict));
        check_parameter("_method=GET&_method=DELETE", Err(Conflict));
        check_parameter("_method[]=GET", Err(Conflict));
        check_parameter("_method=GET&_method[x]=DELETE", Err(Conflict));
    }

    #[test]
    fn a_value_is_a_method_in_upper_case_or_none() {
        assert_eq!(method(b"delete"), Some(Method::DELETE));
        assert_eq!(method(b"Purge").unwrap().as_str(), "PURGE");
        for value in ["", " ", "DELETE ", "DEL ETE", "DELETE, GET", "DELETE\0", "D\u{e9}LETE"] {
            assert_eq!(method(value.as_bytes()), None, "{value:?}");
        }
    }

    #[test]
    fn a_decoded_path_is_written_so_that_it_is_decoded_once() {
        assert_eq!(path(b"/wc/v3/orders/12"), "/wc/v3/orders/12");
        assert_eq!(path(b"/a b/%2e%2e?c#d\\"), "/a%20b/%252e%252e%3Fc%23d%5C");
        assert_eq!(path("/é\0".as_bytes()), "/%C3%A9%00");
    }

    #[track_caller]
    fn check_mentions(body: &str, expected: bool) {
        assert_eq!(mentions(body.as_bytes(), "rest_route"), expected, "{body:?}");
    }

    #[test]
    fn a_name_anywhere_in_a_multipart_form_counts() {
        check_mentions("Content-Disposition: form-data; name=\"rest_route\"\r\n\r\n/wc/v3", true);
        check_mentions("name=rest.route", true);
        check_mentions("name=\"rest[route\"", true);
        check_mentions("name=\"rest\r\n route\"", true);
        check_mentions("name=\"rest_\nroute\"", true);
        check_mentions("name=\"Rest_Route\"", false);
        check_mentions("name=\"file\"\r\n\r\nthe rest of the route", false);
        check_mentions("", false);
        check_mentions("rest_rout", false);
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_decoding_never_grows(encoded in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(decode(&encoded).count() <= encoded.len());
            let _ = parameter(&encoded, "_method");
            let _ = mentions(&encoded, "_m");
            prop_assert!(path(&encoded).is_ascii());
        }

        #[test]
        fn any_escaping_of_a_name_is_the_name(escape in proptest::collection::vec(any::<bool>(), 7)) {
            let name: String = "_method".bytes().zip(escape)
                .map(|(byte, escape)| if escape { format!("%{byte:02x}") } else { char::from(byte).to_string() })
                .collect();
            prop_assert_eq!(named(name.as_bytes(), "_method"), Named::Plain);
        }
    }
}
