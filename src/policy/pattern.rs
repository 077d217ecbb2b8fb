//! The path patterns of routes, and how a path is held against them without allocating.
//!
//! A path is compared segment by segment. A literal is compared with what the segment *means*: an escape that an
//! upstream would decode (`%2C` for a comma) is decoded for the comparison, so that no spelling of a path slips past
//! the route that names it. Patterns are few, so they are tried one after the other; nearly all of them fail at their
//! first or second literal.

use std::{fmt, str::FromStr};

/// The pattern of a route's path: literal segments, `{name}` for one segment, `**` for zero or more.
///
/// A final slash counts: `/v1/keys` does not cover `/v1/keys/`. A pattern that ends in `**` covers the path before
/// it with and without a final slash, and all below. `**` may also stand between segments: `/v1/**/export`.
#[derive(Clone, PartialEq, Eq)]
pub struct PathPattern {
    text: Box<str>,
    segments: Box<[Segment]>,
    final_slash: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// These bytes, with escapes decoded.
    Literal(Box<[u8]>),
    /// Any one segment.
    One,
    /// Zero or more segments.
    Rest,
}

/// Which differences between a path and a pattern count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// All of them.
    Exact,
    /// Neither the case of ASCII letters nor a final slash, as for upstreams that fold them.
    Folded,
}

/// A canonical path, cut up as far as the comparison with many patterns needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path<'a> {
    /// What lies between the first and the final slash; none for a path without segments.
    segments: Option<&'a [u8]>,
    final_slash: bool,
    escaped: bool,
    upper_case: bool,
}

impl<'a> Path<'a> {
    /// Cuts up a path; none for what is no path, such as the `*` of `OPTIONS *`.
    pub(super) fn new(path: &'a str) -> Option<Self> {
        let inner = path.as_bytes().strip_prefix(b"/")?;
        let (inner, final_slash) = match inner {
            [] => (None, true),
            [inner @ .., b'/'] => (Some(inner), true),
            inner => (Some(inner), false),
        };
        let (mut escaped, mut upper_case) = (false, false);
        for byte in inner.unwrap_or_default() {
            escaped |= *byte == b'%';
            upper_case |= byte.is_ascii_uppercase();
        }
        Some(Self { segments: inner, final_slash, escaped, upper_case })
    }

    /// Whether an upstream that folds case or the final slash may take this for another path.
    pub(super) fn folds(&self) -> bool {
        self.upper_case || (self.final_slash && self.segments.is_some())
    }
}

impl PathPattern {
    /// The pattern as it was typed.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the pattern covers the path. Paths are canonical, as `facts` gives them.
    pub fn covers(&self, path: &str) -> bool {
        Path::new(path).is_some_and(|path| self.matches(path, Comparison::Exact))
    }

    /// Whether the pattern has something that an upstream that folds case or the final slash would not see.
    pub(super) fn folds(&self) -> bool {
        self.final_slash && !self.segments.is_empty()
            || self
                .segments
                .iter()
                .any(|segment| matches!(segment, Segment::Literal(bytes) if bytes.iter().any(u8::is_ascii_uppercase)))
    }

    /// Whether the pattern covers the path.
    pub(super) fn matches(&self, path: Path<'_>, comparison: Comparison) -> bool {
        let ends_open = matches!(self.segments.last(), Some(Segment::Rest));
        if comparison == Comparison::Exact && !ends_open && self.final_slash != path.final_slash {
            return false;
        }
        let mut rest = path.segments;
        let mut next = 0;
        // Where to go on when what follows the last `**` does not fit: let that `**` take one segment more.
        let mut retry: Option<(usize, Option<&[u8]>)> = None;
        loop {
            match (self.segments.get(next), rest) {
                (Some(Segment::Rest), _) => {
                    next += 1;
                    if next == self.segments.len() {
                        return true;
                    }
                    retry = Some((next, rest));
                    continue;
                }
                (Some(Segment::One), Some(bytes)) => {
                    let (segment, after) = split(bytes);
                    if !segment.is_empty() {
                        rest = after;
                        next += 1;
                        continue;
                    }
                }
                (Some(Segment::Literal(literal)), Some(bytes)) => {
                    let (segment, after) = split(bytes);
                    if literal_is(literal, segment, path.escaped, comparison) {
                        rest = after;
                        next += 1;
                        continue;
                    }
                }
                (None, None) => return true,
                (None, Some(_)) | (Some(_), None) => {}
            }
            let Some((resume, Some(bytes))) = retry else { return false };
            let after = split(bytes).1;
            retry = Some((resume, after));
            (next, rest) = (resume, after);
        }
    }

    /// Whether every path that `other` covers is covered by this pattern too. Errs on the side of no: it may miss a
    /// cover that takes two `**` to see, but never claims one that is not there.
    pub fn covers_all_of(&self, other: &Self) -> bool {
        let open = |pattern: &Self| matches!(pattern.segments.last(), Some(Segment::Rest));
        (open(self) || (!open(other) && self.final_slash == other.final_slash))
            && covers_segments(&self.segments, &other.segments)
    }
}

/// Splits off the first segment; the remainder is none after the last one.
fn split(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|byte| *byte == b'/') {
        Some(slash) => (&bytes[..slash], Some(&bytes[slash + 1..])),
        None => (bytes, None),
    }
}

fn literal_is(literal: &[u8], segment: &[u8], escaped: bool, comparison: Comparison) -> bool {
    match (escaped, comparison) {
        (false, Comparison::Exact) => literal == segment,
        (false, Comparison::Folded) => literal.eq_ignore_ascii_case(segment),
        (true, Comparison::Exact) => decoded(segment).eq(literal.iter().copied()),
        (true, Comparison::Folded) => {
            decoded(segment).map(|byte| byte.to_ascii_lowercase()).eq(literal.iter().map(u8::to_ascii_lowercase))
        }
    }
}

/// The bytes of a segment with its escapes decoded; a broken escape stands for itself.
pub(super) fn decoded(segment: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = segment;
    std::iter::from_fn(move || {
        let (&first, after) = rest.split_first()?;
        if first == b'%'
            && let Some((&[high, low], after)) = after.split_first_chunk()
            && let (Some(high), Some(low)) = ((high as char).to_digit(16), (low as char).to_digit(16))
        {
            rest = after;
            return Some((high * 16 + low) as u8);
        }
        rest = after;
        Some(first)
    })
}

fn covers_segments(cover: &[Segment], covered: &[Segment]) -> bool {
    match (cover, covered) {
        ([], []) => true,
        ([Segment::Rest, cover_after @ ..], _) => {
            covers_segments(cover_after, covered)
                || covered.split_first().is_some_and(|(_, after)| covers_segments(cover, after))
        }
        ([Segment::One, cover @ ..], [Segment::One | Segment::Literal(_), covered @ ..]) => {
            covers_segments(cover, covered)
        }
        ([Segment::Literal(a), cover @ ..], [Segment::Literal(b), covered @ ..]) if a == b => {
            covers_segments(cover, covered)
        }
        _ => false,
    }
}

/// As typed in `path = "…"`.
impl FromStr for PathPattern {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inner = text.strip_prefix('/').ok_or("a path begins with \"/\"")?;
        if text.len() > 1000 {
            return Err("a path pattern has at most 1000 characters");
        }
        let (inner, final_slash) = match inner.strip_suffix('/') {
            Some(inner) => (inner, true),
            None => (inner, inner.is_empty()),
        };
        let mut segments = Vec::new();
        if !inner.is_empty() || text.len() > 1 {
            for segment in inner.split('/') {
                let segment = read_segment(segment)?;
                // Two in a row mean what one means, and would only make matching slower.
                if segment != Segment::Rest || segments.last() != Some(&Segment::Rest) {
                    segments.push(segment);
                }
            }
        }
        if final_slash && segments.last() == Some(&Segment::Rest) {
            return Err("\"**\" covers the final slash already: leave it out");
        }
        Ok(Self { text: text.into(), segments: segments.into(), final_slash })
    }
}

fn read_segment(text: &str) -> Result<Segment, &'static str> {
    if text == "**" {
        return Ok(Segment::Rest);
    }
    if let Some(name) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        let good = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        return if good { Ok(Segment::One) } else { Err("a name in \"{…}\" is letters, digits, \"-\" and \"_\"") };
    }
    if text.contains(['{', '}', '*']) {
        return Err(
            "\"{name}\" stands for one whole segment and \"**\" for any number of them; nothing stands for a part of one",
        );
    }
    if text.contains(['?', '#']) {
        return Err("a path pattern has no query and no fragment");
    }
    if text.contains('\\') {
        return Err("a path has \"/\" between its segments, never \"\\\"");
    }
    let mut escapes = text.split('%');
    escapes.next();
    if !escapes.all(|after| matches!(after.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())) {
        return Err("a \"%\" stands before two hexadecimal digits");
    }
    let literal: Vec<u8> = decoded(text.as_bytes()).collect();
    match literal.as_slice() {
        b"" => Err("a path has no empty segments: write one \"/\""),
        b"." | b".." => Err("a path that holds \".\" or \"..\" never arrives here"),
        bytes if bytes.iter().any(u8::is_ascii_control) => Err("a path holds no control characters"),
        _ => Ok(Segment::Literal(literal.into())),
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> PathPattern {
        text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    #[track_caller]
    fn check(text: &str, covered: &[&str], not_covered: &[&str]) {
        let pattern = pattern(text);
        for path in covered {
            assert!(pattern.covers(path), "{text} covers {path}");
        }
        for path in not_covered {
            assert!(!pattern.covers(path), "{text} does not cover {path}");
        }
    }

    #[test]
    fn literals_are_whole_segments() {
        check("/v1/keys", &["/v1/keys"], &["/v1/key", "/v1/keysx", "/v1", "/v1/keys/1", "/v1/Keys", "/", "*"]);
    }

    #[test]
    fn a_final_slash_counts() {
        check("/v1/keys", &[], &["/v1/keys/"]);
        check("/v1/keys/", &["/v1/keys/"], &["/v1/keys"]);
        check("/", &["/"], &["/v1", "*", ""]);
    }

    #[test]
    fn a_name_is_one_segment() {
        check("/v1/{id}", &["/v1/7", "/v1/a%2Fb"], &["/v1", "/v1/", "/v1/7/8", "/v1/7/"]);
        check("/v1/{id}/log", &["/v1/7/log"], &["/v1/log", "/v1/7/8/log"]);
    }

    #[test]
    fn a_rest_covers_with_and_without_a_final_slash_and_all_below() {
        check(
            "/v1/transactions/**",
            &["/v1/transactions", "/v1/transactions/", "/v1/transactions/7", "/v1/transactions/7/log/"],
            &["/v1/transactionsx", "/v1", "/v1/", "/v1/Transactions/7"],
        );
        check("/**", &["/", "/v1", "/v1/"], &["*"]);
    }

    #[test]
    fn a_rest_may_stand_in_the_middle() {
        check(
            "/v1/**/log",
            &["/v1/log", "/v1/7/log", "/v1/7/8/log", "/v1/log/log"],
            &["/v1/log/", "/v1/7", "/log", "/v1/log/7"],
        );
        check("/**/a/**/b", &["/a/b", "/x/a/y/b", "/a/b/a/b", "/a/a/b/b"], &["/b/a", "/a", "/a/b/c"]);
        check("/**/{x}/b", &["/a/b", "/a/b/b"], &["/b"]);
    }

    #[test]
    fn an_escape_does_not_hide_a_literal() {
        check("/v1/a,b", &["/v1/a,b", "/v1/a%2Cb"], &["/v1/a%2Db"]);
        check("/v1/a%2cb", &["/v1/a,b", "/v1/a%2Cb"], &[]);
        check("/v1/müller", &["/v1/m%C3%BCller"], &["/v1/muller"]);
        check("/v1/a b", &["/v1/a%20b"], &["/v1/ab"]);
    }

    #[test]
    fn folding_ignores_case_and_the_final_slash_on_both_sides() {
        let folded =
            |text: &str, path: &str| pattern(text).matches(Path::new(path).expect("a path"), Comparison::Folded);
        assert!(folded("/v1/Users", "/V1/users/"));
        assert!(folded("/v1/users/", "/v1/users"));
        assert!(folded("/v1/a,B", "/v1/A%2cb"));
        assert!(!folded("/v1/users", "/v1/user"));
    }

    #[track_caller]
    fn check_error(text: &str, expected: &str) {
        let error = text.parse::<PathPattern>().map(|pattern| pattern.to_string()).expect_err(text);
        assert!(error.contains(expected), "{text}: {error}");
    }

    #[test]
    fn what_could_never_match_is_refused() {
        check_error("v1", "begins with");
        check_error("", "begins with");
        check_error("//v1", "empty segments");
        check_error("/v1//keys", "empty segments");
        check_error("//", "empty segments");
        check_error("/v1/../keys", "\"..\"");
        check_error("/v1/%2e", "\".\"");
        check_error("/v1/*", "\"**\"");
        check_error("/v1/a**", "\"**\"");
        check_error("/v1/{id", "\"{name}\"");
        check_error("/v1/{}", "letters");
        check_error("/v1/x{id}", "\"{name}\"");
        check_error("/v1?x", "query");
        check_error("/v1/%2", "hexadecimal");
        check_error("/v1/%00", "control");
        check_error("/v1\\x", "never");
        check_error("/v1/**/", "final slash");
    }

    #[test]
    fn a_wider_pattern_covers_all_of_a_narrower_one() {
        let covers = |a: &str, b: &str| pattern(a).covers_all_of(&pattern(b));
        assert!(covers("/**", "/v1/keys"));
        assert!(covers("/v1/**", "/v1/{id}/**"));
        assert!(covers("/v1/{x}", "/v1/keys"));
        assert!(covers("/v1/{x}", "/v1/{y}"));
        assert!(covers("/v1/**/log", "/v1/a/**/log"));
        assert!(!covers("/v1/keys", "/v1/{id}"));
        assert!(!covers("/v1/{x}", "/v1/**"));
        assert!(!covers("/v1/keys", "/v1/keys/"));
        assert!(!covers("/v1/keys", "/v1/keys/**"));
    }

    fn segment() -> impl Strategy<Value = String> {
        prop_oneof![3 => Just("a".to_owned()), 3 => Just("b".to_owned()), 2 => Just("{x}".to_owned()), 2 => Just("**".to_owned())]
    }

    /// What a pattern means, said plainly and slowly.
    fn means(pattern: &[&str], path: &[&str]) -> bool {
        match (pattern, path) {
            ([], []) => true,
            (["**", pattern_after @ ..], _) => {
                means(pattern_after, path) || path.split_first().is_some_and(|(_, after)| means(pattern, after))
            }
            (["{x}", pattern @ ..], [_, path @ ..]) => means(pattern, path),
            ([literal, pattern @ ..], [segment, path @ ..]) => literal == segment && means(pattern, path),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_plain_meaning(
            wanted in prop::collection::vec(segment(), 1..6),
            path in prop::collection::vec("[abc]", 1..7),
        ) {
            let expected = means(
                &wanted.iter().map(String::as_str).collect::<Vec<_>>(),
                &path.iter().map(String::as_str).collect::<Vec<_>>(),
            );
            prop_assert_eq!(pattern(&format!("/{}", wanted.join("/"))).covers(&format!("/{}", path.join("/"))), expected);
        }

        #[test]
        fn a_cover_is_never_claimed_wrongly(
            wide in prop::collection::vec(segment(), 1..5),
            narrow in prop::collection::vec(segment(), 1..5),
            path in prop::collection::vec("[abc]", 1..7),
        ) {
            let (wide, narrow) = (pattern(&format!("/{}", wide.join("/"))), pattern(&format!("/{}", narrow.join("/"))));
            let path = format!("/{}", path.join("/"));
            if wide.covers_all_of(&narrow) && narrow.covers(&path) {
                prop_assert!(wide.covers(&path));
            }
        }

        #[test]
        fn reading_a_pattern_and_a_path_never_panics(text in "\\PC*", path in "\\PC*") {
            if let Ok(pattern) = text.parse::<PathPattern>() {
                pattern.covers(&path);
            }
        }

        #[test]
        fn folding_only_ever_covers_more(
            wanted in prop::collection::vec(segment(), 1..5), path in "(/[abAB]){1,5}/?",
        ) {
            let pattern = pattern(&format!("/{}", wanted.join("/")));
            let path = Path::new(&path).expect("a path");
            prop_assert!(!pattern.matches(path, Comparison::Exact) || pattern.matches(path, Comparison::Folded));
        }
    }
}
