//! Strings in any text that may be keys: words of it, shapes within words, and what words decode to.
//!
//! Errs on the side of seeing one: what a string is, its shape and the key set say, not where it stood.

use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

use super::{mint::Settings, secret::MAX_SECRET_BYTES};

/// A string that may be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'t> {
    /// Where it begins in the text, in bytes; of what was encoded, where the encoded word begins.
    pub at: usize,
    /// The string itself.
    pub text: &'t str,
    /// What follows a colon right behind it, up to white space or a quotation mark: the password of a user name.
    pub password: Option<&'t str>,
    /// Whether it is the whole text.
    pub whole: bool,
}

/// How often what was decoded is decoded again: an escaped header in base64 in an escaped query.
const MOST_LAYERS: usize = 3;

/// Shows every string of a text that may be a key, some more than once. What was decoded is wiped afterwards.
pub fn candidates(shapes: &Settings, text: &str, see: &mut dyn FnMut(Candidate<'_>)) {
    let trimmed = text.trim();
    if !trimmed.is_empty() && !trimmed.bytes().all(is_of_words) {
        let at = text.len() - text.trim_start().len();
        see(Candidate { at, text: trimmed, password: None, whole: true });
    }
    let prefixes: [&str; 4] =
        [&shapes.pair.key_prefix, &shapes.pair.secret_prefix, &shapes.token.live, &shapes.token.test];
    Search { prefixes, see }.words(text, &Layer { at: None, whole: trimmed.len(), left: MOST_LAYERS });
}

/// What a token (RFC 6750 §2.1), a name or an escape is made of.
fn is_of_words(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.~+/=%".contains(&byte)
}

struct Search<'s> {
    prefixes: [&'s str; 4],
    see: &'s mut dyn FnMut(Candidate<'_>),
}

/// A text: the one that was given, or what a word of it decodes to.
struct Layer {
    /// Where the word stands that decodes to this text; none for the text itself.
    at: Option<usize>,
    /// The length of a word that is all of the text.
    whole: usize,
    /// How many more layers there may be below this one.
    left: usize,
}

impl Search<'_> {
    fn words(&mut self, text: &str, layer: &Layer) {
        let bytes = text.as_bytes();
        let mut end = 0;
        while let Some(start) = bytes[end..].iter().position(|byte| is_of_words(*byte)) {
            let begin = end + start;
            end = bytes[begin..].iter().position(|byte| !is_of_words(*byte)).map_or(bytes.len(), |n| begin + n);
            let password = text[end..].strip_prefix(':').map(|after| {
                // No longer than a secret may be: in a text of colons, each password would be all that is left.
                let most = after.floor_char_boundary(MAX_SECRET_BYTES);
                let end = after[..most].find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`'));
                &after[..end.unwrap_or(most)]
            });
            self.word(&text[begin..end], begin, password, layer);
        }
    }

    fn word(&mut self, word: &str, begin: usize, password: Option<&str>, layer: &Layer) {
        let mut part = |from: usize, text: &str| {
            // Only what stands right before the colon has the password.
            let password = password.filter(|_| from + text.len() == word.len());
            let whole = layer.at.is_none() && text.len() == layer.whole;
            (self.see)(Candidate { at: layer.at.unwrap_or(begin + from), text, password, whole });
        };
        part(0, word);
        for (from, piece) in pieces(word, b"/=+.%~") {
            part(from, piece);
        }
        for prefix in self.prefixes {
            for (from, _) in word.match_indices(prefix) {
                // A word is ASCII, and no key is longer.
                let body = &word[from + prefix.len()..];
                let body = &body[..body.len().min(MAX_SECRET_BYTES)];
                let length = body.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(body.len());
                if prefix.len() + length < word.len() {
                    part(from, &word[from..from + prefix.len() + length]);
                }
            }
        }
        if layer.left > 0 {
            // Base64 has slashes of its own, and stands between slashes in paths.
            let encoded = std::iter::once((0, word)).chain(pieces(word, b"=%.~")).chain(pieces(word, b"/=%.~"));
            let decoded = unescaped(word).into_iter().chain(encoded.filter_map(|(_, piece)| base64(piece)));
            for text in decoded {
                let below = Layer { at: layer.at.or(Some(begin)), whole: 0, left: layer.left - 1 };
                self.words(&text, &below);
            }
        }
    }
}

/// The parts of a word between these bytes, all of ASCII, and where they begin; none where it holds none of them.
fn pieces<'w>(word: &'w str, between: &'static [u8]) -> impl Iterator<Item = (usize, &'w str)> + use<'w> {
    let mut from = 0;
    word.split(move |c: char| u8::try_from(c).is_ok_and(|byte| between.contains(&byte))).filter_map(move |piece| {
        let at = from;
        from += piece.len() + 1;
        (!piece.is_empty() && piece.len() < word.len()).then_some((at, piece))
    })
}

/// What a password may be, where nobody knows where it ends: all of it, cut at each mark that may stand behind it, and
/// each with its escapes decoded.
pub fn passwords(text: &str) -> impl Iterator<Item = Zeroizing<String>> {
    const MOST: usize = 8;
    let ends = text.match_indices(['@', ';', ',', '&', '<', '>', ')', ']', '}', '|']).map(|(at, _)| at).take(MOST);
    std::iter::once(text.len())
        .chain(ends)
        .map(|end| &text[..end])
        .filter(|text| !text.is_empty())
        .flat_map(|text| std::iter::once(Zeroizing::new(text.to_owned())).chain(unescaped(text)))
}

/// The word with its escapes decoded (RFC 3986 §2.1), if it has any and is text afterwards.
fn unescaped(word: &str) -> Option<Zeroizing<String>> {
    if !word.contains('%') {
        return None;
    }
    let bytes: Vec<u8> = crate::policy::effective::decode(word.as_bytes()).collect();
    printable(bytes)
}

/// What the word encodes in base64, either alphabet, padded or not, if that is text.
fn base64(word: &str) -> Option<Zeroizing<String>> {
    const ANY: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    if word.len() < 8 {
        return None;
    }
    let alphabets = [GeneralPurpose::new(&STANDARD, ANY), GeneralPurpose::new(&URL_SAFE, ANY)];
    alphabets.into_iter().find_map(|engine| printable(engine.decode(word).ok()?))
}

fn printable(bytes: Vec<u8>) -> Option<Zeroizing<String>> {
    match String::from_utf8(bytes).map(Zeroizing::new) {
        Ok(text) if !text.chars().any(|c| c.is_control() && !c.is_ascii_whitespace()) => Some(text),
        Ok(_) => None,
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ck_4f2a90c1d37be6580f1c2b3a495867d0e1f2a3b4";
    const SECRET: &str = "cs_00112233445566778899aabbccddeeff00112233";

    fn seen(text: &str) -> Vec<(usize, String, Option<String>)> {
        let mut seen = Vec::new();
        candidates(&Settings::default(), text, &mut |candidate| {
            let password = candidate.password.map(str::to_owned);
            seen.push((candidate.at, candidate.text.to_owned(), password));
        });
        seen
    }

    #[track_caller]
    fn check(text: &str, at: usize, found: &str) {
        let seen = seen(text);
        assert!(seen.iter().any(|(from, text, _)| (*from, text.as_str()) == (at, found)), "{text}: {seen:?}");
    }

    #[test]
    fn keys_are_seen_wherever_they_stand() {
        let token = "ck_live_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef";
        for (text, at) in [
            (token.to_owned(), 0),
            (format!("  {token}\n"), 2),
            (format!("GET /x?key={token}&y HTTP/1.1"), 11),
            (format!("token: \"{token}\","), 8),
            (format!("Authorization: Bearer {token}."), 22),
            (format!("https://x/{token}/y"), 10),
            (format!("é {token} ü"), 3),
            (format!("x%3A{token}"), 4),
        ] {
            check(&text, at, token);
        }
        check(&format!("curl -u {KEY}:{SECRET} https://x"), 8, KEY);
        check(&format!("curl -u {KEY}:{SECRET} https://x"), 9 + KEY.len(), SECRET);
        check(&format!("?consumer_key={KEY}&consumer_secret={SECRET}"), 14, KEY);
        check(&format!("a={KEY}%3A{SECRET}"), 48, SECRET);
    }

    #[test]
    fn base64_is_found_within_a_word_and_below_escapes() {
        use base64::engine::general_purpose::STANDARD;
        // With a slash, a plus and padding in it.
        let pair = format!("{KEY}:{SECRET}>>>???x");
        let encoded = STANDARD.encode(&pair);
        assert!(encoded.contains('/') && encoded.ends_with('='), "{encoded}");
        let twice = STANDARD.encode(format!("Authorization: Basic {encoded}"));
        for text in [
            format!("auth={encoded}"),
            format!("//r/:_auth={encoded}"),
            format!("GET /x?h={encoded}&y=1"),
            format!("Authorization=Basic%20{}", encoded.replace('=', "%3D").replace('/', "%2F").replace('+', "%2B")),
            format!("data:{twice}"),
        ] {
            let seen = seen(&text);
            assert!(seen.iter().any(|(_, text, _)| text == SECRET), "{text}: {seen:?}");
        }
        let plain = STANDARD.encode(format!("{KEY}:{SECRET}"));
        assert!(seen(&format!("https://h/{plain}/x")).iter().any(|(_, text, _)| text == SECRET));
    }

    #[test]
    fn what_is_encoded_is_seen_where_the_word_begins() {
        use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
        let pair = format!("{KEY}:{SECRET}");
        for encoded in [STANDARD.encode(&pair), URL_SAFE_NO_PAD.encode(&pair)] {
            let line = format!("Authorization: Basic {encoded}");
            check(&line, 21, KEY);
            check(&line, 21, SECRET);
        }
        assert_eq!(base64("AAAAAAAAAAAA"), None, "control characters are no text");
    }

    #[test]
    fn a_password_follows_its_user() {
        for text in ["alice:hunter2!", "'alice:hunter2!'", "-u alice:hunter2! x", "YWxpY2U6aHVudGVyMiE="] {
            let seen = seen(text);
            let user = |(_, text, password): &&(usize, String, Option<String>)| {
                text == "alice" && password.as_deref() == Some("hunter2!")
            };
            assert!(seen.iter().any(|candidate| user(&candidate)), "{text}: {seen:?}");
        }
    }

    #[test]
    fn a_password_may_end_before_its_text_does() {
        let all = |text| passwords(text).map(|password| password.to_string()).collect::<Vec<_>>();
        assert_eq!(all("hunter2"), ["hunter2"]);
        assert_eq!(all("hunter2@host/x"), ["hunter2@host/x", "hunter2"]);
        assert_eq!(all("p%40ss;"), ["p%40ss;", "p@ss;", "p%40ss", "p@ss"]);
        assert_eq!(all("@"), ["@"]);
    }

    #[test]
    fn the_whole_text_is_one_too() {
        for text in ["a key with spaces", "alice"] {
            let mut whole = Vec::new();
            candidates(&Settings::default(), &format!(" {text}\n"), &mut |candidate| {
                whole.extend(candidate.whole.then(|| candidate.text.to_owned()));
            });
            assert_eq!(whole, [text]);
        }
        assert_eq!(seen(" \n"), []);
    }
}
