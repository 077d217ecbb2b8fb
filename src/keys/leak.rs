//! Strings in any text that may be keys: words of it, shapes within words, and what words decode to.
//!
//! Errs on the side of seeing one: what a string is, its shape and the key set say, not where it stood.

use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

use super::mint::Settings;

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

/// Shows every string of a text that may be a key, some more than once. What was decoded is wiped afterwards.
pub fn candidates(shapes: &Settings, text: &str, see: &mut dyn FnMut(Candidate<'_>)) {
    let prefixes: [&str; 4] =
        [&shapes.pair.key_prefix, &shapes.pair.secret_prefix, &shapes.token.live, &shapes.token.test];
    let trimmed = text.trim();
    let at = text.len() - text.trim_start().len();
    if !trimmed.is_empty() && !is_word(trimmed) {
        see(Candidate { at, text: trimmed, password: None, whole: true });
    }
    words(text, prefixes, None, see);
}

/// What a token (RFC 6750 §2.1), a name or an escape is made of.
fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.~+/=%".contains(&byte))
}

fn words(text: &str, prefixes: [&str; 4], inside: Option<usize>, see: &mut dyn FnMut(Candidate<'_>)) {
    let whole = text.trim().len();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii() && is_word(c.encode_utf8(&mut [0; 4]))) {
        let begin = text.len() - rest.len() + start;
        let end = text[begin..].find(|c: char| !is_word(c.encode_utf8(&mut [0; 4]))).map_or(text.len(), |n| begin + n);
        rest = &text[end..];
        let (word, at) = (&text[begin..end], inside.unwrap_or(begin));
        let password = rest.strip_prefix(':').map(|after| {
            let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`')).unwrap_or(after.len());
            &after[..end]
        });
        see(Candidate { at, text: word, password, whole: inside.is_none() && word.len() == whole });
        let shown = |from: usize| inside.unwrap_or(begin + from);
        for (from, piece) in pieces(word) {
            // Only the last piece stands before the colon.
            let password = password.filter(|_| from + piece.len() == word.len());
            see(Candidate { at: shown(from), text: piece, password, whole: false });
        }
        for prefix in prefixes {
            for (from, _) in word.match_indices(prefix) {
                let body = &word[from + prefix.len()..];
                let length = body.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(body.len());
                let text = &word[from..from + prefix.len() + length];
                if text.len() < word.len() {
                    let password = password.filter(|_| from + text.len() == word.len());
                    see(Candidate { at: shown(from), text, password, whole: false });
                }
            }
        }
        if inside.is_none() {
            for decoded in [unescaped(word), base64(word)].into_iter().flatten() {
                words(&decoded, prefixes, Some(begin), see);
            }
        }
    }
}

/// The parts of a word that something separates which a key may hold itself.
fn pieces(word: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut from = 0;
    let mut all = Vec::new();
    for piece in word.split(['/', '=', '+', '.', '%', '~']) {
        if !piece.is_empty() && piece.len() < word.len() {
            all.push((from, piece));
        }
        from += piece.len() + 1;
    }
    all.into_iter()
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
