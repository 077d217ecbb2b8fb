//! One form for every path, and none for those that two upstreams could read differently.

use std::str;

use super::{Oddities, Oddity};
use crate::policy::effective;

/// A path in its canonical form.
#[derive(Debug, Default)]
pub(super) struct Canonical {
    /// The form, where it is not what was sent.
    pub(super) rewritten: Option<String>,
    /// What it holds that only some routes allow.
    pub(super) oddities: Oddities,
}

/// Why a path has no canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathFault {
    NoPath,
    DotSegment,
    EmptySegment,
    Backslash,
    Control,
    BrokenEscape,
    DoubleEscape,
    NotUtf8,
    Unescaped,
}

impl PathFault {
    /// What the caller is told.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::NoPath => "The target has no path.",
            Self::DotSegment => "The path has a dot segment.",
            Self::EmptySegment => "The path has an empty segment.",
            Self::Backslash => "The path has a backslash.",
            Self::Control => "The path has a control character.",
            Self::BrokenEscape => "The path has a percent sign without two hexadecimal digits.",
            Self::DoubleEscape => "The path is escaped twice.",
            Self::NotUtf8 => "The path has escapes that are not UTF-8.",
            Self::Unescaped => "The path has a character that must be escaped.",
        }
    }
}

/// What a byte may be in a path (RFC 3986 §3.3).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Unreserved: an escape of it is decoded.
    Unreserved,
    /// Stands for itself, and its escape is something else.
    Reserved,
    Slash,
    Percent,
    Semicolon,
    Other,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Class::Unreserved,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@' => Class::Reserved,
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            b';' => Class::Semicolon,
            _ => Class::Other,
        };
        byte += 1;
    }
    classes
};

fn class(byte: u8) -> Class {
    CLASSES[usize::from(byte)]
}

/// The canonical form of a path: escapes of unreserved characters decoded, the digits of all others in upper case
/// (RFC 3986 §6.2.2), and nothing in it that two upstreams could read differently.
pub(super) fn canonical(path: &str) -> Result<Canonical, PathFault> {
    if !path.starts_with('/') {
        return Err(PathFault::NoPath);
    }
    if is_plain(path) {
        return Ok(Canonical::default());
    }
    let canonical = unescaped(path)?;
    segments(canonical.rewritten.as_deref().unwrap_or(path).as_bytes())?;
    Ok(canonical)
}

/// Whether the path has neither escapes nor semicolons, and no segment that is refused: most have none, and for those
/// this one look is all.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let mut start = 1;
    for at in 1..bytes.len() {
        match class(bytes[at]) {
            Class::Unreserved | Class::Reserved => {}
            Class::Slash => {
                if is_odd_segment(&bytes[start..at]) {
                    return false;
                }
                start = at + 1;
            }
            Class::Percent | Class::Semicolon | Class::Other => return false,
        }
    }
    start == bytes.len() || !is_odd_segment(&bytes[start..])
}

fn is_odd_segment(segment: &[u8]) -> bool {
    segment.len() < 3 && matches!(segment, b"" | b"." | b"..")
}

/// Brings the escapes into their one form. Copies nothing until one has another.
fn unescaped(path: &str) -> Result<Canonical, PathFault> {
    let bytes = path.as_bytes();
    let mut canonical = Canonical::default();
    // How much of the path has been copied, where it is being rewritten.
    let mut copied = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match class(byte) {
            Class::Unreserved | Class::Reserved | Class::Slash => at += 1,
            Class::Semicolon => {
                canonical.oddities = canonical.oddities.with(Oddity::Semicolon);
                at += 1;
            }
            Class::Percent => {
                let escape = effective::escaped(&bytes[at + 1..]).ok_or(PathFault::BrokenEscape)?;
                let end = if escape.is_ascii() { at + 3 } else { character_end(bytes, at)? };
                if class(escape) == Class::Unreserved {
                    let rewritten = canonical.rewritten.get_or_insert_default();
                    rewritten.push_str(&path[copied..at]);
                    rewritten.push(char::from(escape));
                    copied = end;
                } else {
                    canonical.oddities = judged(escape, canonical.oddities)?;
                    if bytes[at..end].iter().any(u8::is_ascii_lowercase) {
                        let rewritten = canonical.rewritten.get_or_insert_default();
                        rewritten.push_str(&path[copied..at]);
                        rewritten.extend(path[at..end].chars().map(|digit| digit.to_ascii_uppercase()));
                        copied = end;
                    }
                }
                at = end;
            }
            Class::Other if byte == b'\\' => return Err(PathFault::Backslash),
            Class::Other if byte.is_ascii_control() => return Err(PathFault::Control),
            Class::Other => return Err(PathFault::Unescaped),
        }
    }
    if let Some(rewritten) = &mut canonical.rewritten {
        rewritten.push_str(&path[copied..]);
    }
    Ok(canonical)
}

/// What an escaped byte that stays escaped means for the path.
fn judged(escape: u8, oddities: Oddities) -> Result<Oddities, PathFault> {
    match escape {
        b'/' => Ok(oddities.with(Oddity::EscapedSlash)),
        b';' => Ok(oddities.with(Oddity::EscapedSemicolon)),
        b'\\' => Err(PathFault::Backslash),
        _ if escape.is_ascii_control() => Err(PathFault::Control),
        _ => Ok(oddities),
    }
}

/// Where the escapes of one character beyond ASCII end, which begins at `start`.
///
/// Overlong forms and the like are one thing to a strict decoder, and a slash or a dot to a lax one.
fn character_end(bytes: &[u8], start: usize) -> Result<usize, PathFault> {
    let mut character = [0; 4];
    let mut length = 0;
    let mut at = start;
    while length < character.len() && bytes.get(at) == Some(&b'%') {
        character[length] = effective::escaped(&bytes[at + 1..]).ok_or(PathFault::BrokenEscape)?;
        length += 1;
        at += 3;
        match str::from_utf8(&character[..length]) {
            Ok(text) if text.contains(char::is_control) => return Err(PathFault::Control),
            Ok(_) => return Ok(at),
            Err(fault) if fault.error_len().is_some() => return Err(PathFault::NotUtf8),
            Err(_) => {}
        }
    }
    Err(PathFault::NotUtf8)
}

/// Refuses dot segments, empty ones and escaped escapes.
///
/// A segment ends at an escaped slash as well, and its name at a semicolon in either spelling: whether upstreams take
/// them so depends on the upstream, and neither reading may have dot segments.
fn segments(path: &[u8]) -> Result<(), PathFault> {
    let mut start = 1;
    let mut name_end = None;
    let mut at = 1;
    while at < path.len() {
        let (ends_segment, ends_name, width) = match path[at..] {
            [b'/', ..] => (true, false, 1),
            [b';', ..] => (false, true, 1),
            [b'%', b'2', b'F', ..] => (true, false, 3),
            [b'%', b'3', b'B', ..] => (false, true, 3),
            [b'%', b'2', b'5', ..] if effective::escaped(&path[at + 3..]).is_some() => {
                return Err(PathFault::DoubleEscape);
            }
            _ => (false, false, 1),
        };
        if ends_name {
            name_end.get_or_insert(at);
        }
        if ends_segment {
            match &path[start..name_end.take().unwrap_or(at)] {
                b"" => return Err(PathFault::EmptySegment),
                b"." | b".." => return Err(PathFault::DotSegment),
                _ => start = at + width,
            }
        }
        at += width;
    }
    match &path[start..name_end.unwrap_or(path.len())] {
        b"." | b".." => Err(PathFault::DotSegment),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{PathFault::*, *};

    fn form(path: &str) -> Result<String, PathFault> {
        canonical(path).map(|canonical| canonical.rewritten.unwrap_or_else(|| path.to_owned()))
    }

    #[track_caller]
    fn check(path: &str, expected: Result<&str, PathFault>) {
        assert_eq!(form(path), expected.map(str::to_owned), "{path:?}");
    }

    #[track_caller]
    fn check_unchanged(path: &str) {
        assert_eq!(canonical(path).map(|canonical| canonical.rewritten).unwrap(), None, "{path:?}");
    }

    #[test]
    fn what_is_canonical_is_not_copied() {
        for path in [
            "/",
            "/a",
            "/a/",
            "/v1/wallets/12/",
            "/a.b/.c/...",
            "/a%20b",
            "/caf%C3%A9",
            "/%E2%82%AC/%F0%9F%92%B6",
            "/+@:,'()!*=&$",
            "/~a-b_c",
            "/100%25",
            "/100%25/",
            "/%25zz",
            "/%25%20",
            "/a%22%3C%3E%5B%5D%7B%7C%7D%5E%60",
            "/a%3Fb%23c",
        ] {
            check_unchanged(path);
        }
    }

    #[test]
    fn escapes_of_unreserved_characters_are_decoded() {
        check("/%7Ea", Ok("/~a"));
        check("/%61%2D%2e%5fb%39", Ok("/a-._b9"));
        check("/v1%2e5/%77allets", Ok("/v1.5/wallets"));
    }

    #[test]
    fn hex_digits_are_in_upper_case() {
        check("/a%c3%a9b%3a", Ok("/a%C3%A9b%3A"));
        check("/%e2%82%Ac", Ok("/%E2%82%AC"));
        check("/a%2fb%3bc", Ok("/a%2Fb%3Bc"));
    }

    #[test]
    fn dot_segments_are_refused_in_every_spelling() {
        for path in [
            "/.",
            "/..",
            "/a/.",
            "/a/..",
            "/./a",
            "/../a",
            "/a/../b",
            "/%2e",
            "/%2E%2e/a",
            "/a/.%2e",
            "/a/%2e./b",
            "/a;x/..;y/b",
            "/..;",
            "/..;a/b",
            "/..%3Ba",
            "/.%3b/a",
            "/a%2F..",
            "/a%2f..%2fb",
            "/..%2Fa",
            "/a/..%2F",
            "/a/%2e%2e%2fb",
            "/a%2F.;x%2Fb",
        ] {
            check(path, Err(DotSegment));
        }
    }

    #[test]
    fn empty_segments_are_refused() {
        for path in
            ["//", "//a", "/a//", "/a//b", "/a///", "/%2Fa", "/a%2F%2Fb", "/a/%2Fb", "/a%2F/b", "/;x/a", "/a/%3Bx/b"]
        {
            check(path, Err(EmptySegment));
        }
    }

    #[test]
    fn backslashes_are_refused_in_both_spellings() {
        for path in ["/a\\b", "/a%5Cb", "/a%5cb", "/..\\a", "/..%5c"] {
            check(path, Err(Backslash));
        }
    }

    #[test]
    fn control_characters_are_refused() {
        for path in ["/%00", "/a%00.html", "/%0d%0a", "/a%09", "/%1F", "/%7f", "/%C2%85", "/a\u{1}"] {
            check(path, Err(Control));
        }
    }

    #[test]
    fn broken_escapes_are_refused() {
        for path in ["/%", "/a%", "/%2", "/%zz", "/%2x", "/%%32%65", "/a%/b", "/%u002e", "/%C3%", "/%C3%A"] {
            check(path, Err(BrokenEscape));
        }
    }

    #[test]
    fn what_is_escaped_twice_is_refused() {
        for path in ["/%252e", "/%252F", "/%25%32%65", "/%25%32e", "/a%2500", "/%25252e", "/%25c3%25a9"] {
            check(path, Err(DoubleEscape));
        }
    }

    #[test]
    fn escapes_that_are_not_utf_8_are_refused() {
        for path in
            ["/%c0%ae", "/%c0%af", "/%e0%80%ae", "/%E9", "/%C3a", "/%C3/", "/%80", "/%ED%A0%80", "/%F8%80%80%80%AE"]
        {
            check(path, Err(NotUtf8));
        }
    }

    #[test]
    fn characters_that_no_path_holds_are_refused() {
        for path in ["/a b", "/\"", "/{id}", "/[a]", "/a^b", "/a|b", "/<a>", "/`", "/caf\u{e9}", "/a?b", "/a#b"] {
            check(path, Err(Unescaped));
        }
    }

    #[test]
    fn a_path_begins_with_a_slash() {
        for path in ["", "*", "a", "%2Fa", "http://a/"] {
            check(path, Err(NoPath));
        }
    }

    #[track_caller]
    fn check_oddities(path: &str, expected: &[Oddity]) {
        assert_eq!(canonical(path).unwrap().oddities, expected.iter().copied().collect(), "{path:?}");
    }

    #[test]
    fn what_only_some_routes_allow_is_marked() {
        check_oddities("/a/b%20c", &[]);
        check_oddities("/a;b", &[Oddity::Semicolon]);
        check_oddities("/a%3bb", &[Oddity::EscapedSemicolon]);
        check_oddities("/a%2fb/", &[Oddity::EscapedSlash]);
        check_oddities("/a;b%3B%2Fc", &[Oddity::Semicolon, Oddity::EscapedSemicolon, Oddity::EscapedSlash]);
    }

    /// Paths made of what matters to them.
    fn paths() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("/".to_owned()),
            "[a-z0-9.~]{1,2}",
            Just("..".to_owned()),
            "%[0-9a-fA-F]{2}",
            "%25",
            "%2[eEfF5]",
            "[;\\\\+@:%]",
            "\\PC",
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #[test]
        fn the_short_way_and_the_long_one_agree(path in paths()) {
            if is_plain(&path) {
                prop_assert_eq!(unescaped(&path).map(|canonical| (canonical.rewritten, canonical.oddities)), Ok((None, Oddities::default())));
                prop_assert_eq!(segments(path.as_bytes()), Ok(()));
            } else {
                prop_assert!(path.contains(['%', ';']) || canonical(&path).is_err());
            }
        }

        #[test]
        fn the_canonical_form_is_its_own(path in paths()) {
            if let Ok(first) = canonical(&path) {
                let text = first.rewritten.unwrap_or(path);
                let second = canonical(&text).unwrap();
                prop_assert_eq!(second.rewritten, None);
                prop_assert_eq!(second.oddities, first.oddities);
            }
        }

        #[test]
        fn no_reading_of_the_canonical_form_leaves_it(path in paths()) {
            if let Ok(text) = form(&path) {
                let decoded = percent_encoding::percent_decode_str(&text).decode_utf8().unwrap();
                let segments: Vec<_> = decoded.split('/').collect();
                let (last, inner) = segments[1..].split_last().unwrap();
                for segment in inner.iter().chain([last]) {
                    let name = segment.split(';').next().unwrap();
                    prop_assert!(name != "." && name != "..", "{} in {}", segment, text);
                }
                prop_assert!(inner.iter().all(|segment| !segment.is_empty()));
                prop_assert!(!decoded.contains(['\\', '\0']) && !decoded.contains(char::is_control));
                // Decoding a second time finds nothing more to decode.
                prop_assert_eq!(percent_encoding::percent_decode_str(&decoded).collect::<Vec<_>>(), decoded.as_bytes());
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }

        #[test]
        fn reading_never_panics(path in "\\PC{0,24}") {
            let _ = canonical(&path);
        }
    }
}
