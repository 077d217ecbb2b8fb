//! The shapes of keys: what a string looks like, and whether a machine made it.
//!
//! A shape never decides whether a key is accepted: what is in the file is accepted whatever it looks like, and a token
//! from elsewhere may begin like ours without our checksum. It says what a stray string is ([`recognise`]), what secret
//! scanners look for ([`pattern`]), and which public parts nobody can have guessed, so that they need no decoy.

use super::{Kind, Mode, mint::Settings, record::PublicPart};

/// Random characters of a minted token: 214 bits, of which 160 stay secret when nine of them are shown.
pub const TOKEN_BODY: usize = 36;
/// Base62 characters of the checksum.
pub const CHECKSUM: usize = 6;
/// Hexadecimal digits of each part of a minted pair: 160 bits.
pub const PAIR_BODY: usize = 40;
/// Base62 characters that hold 160 bits.
pub const RANDOM_BASE62: usize = 27;

/// What a string is, as far as its shape tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognised<'t> {
    /// The public part of a minted pair.
    ConsumerKey,
    /// The secret part of a minted pair.
    ConsumerSecret,
    /// A whole token.
    Token {
        /// As its prefix says.
        mode: Mode,
        /// The part that may be shown and by which it is looked up.
        shown: &'t str,
        /// Whether it was minted by us, and typed right.
        checksum: Checksum,
    },
    /// The shown prefix of a token alone; no secret.
    ShownPrefix {
        /// As it says.
        mode: Mode,
    },
    /// None of these; it may still be a key that came from elsewhere.
    Other,
}

/// What the checksum of a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Minted by Keyside (by chance: one in four thousand million).
    Good,
    /// Of the length that Keyside mints: mistyped, cut and patched, or from elsewhere.
    Bad,
    /// Of another length: from elsewhere.
    Foreign,
}

/// Says what a string is.
pub fn recognise<'t>(settings: &Settings, text: &'t str) -> Recognised<'t> {
    let pair = &settings.pair;
    if text.strip_prefix(&*pair.key_prefix).is_some_and(is_hex40) {
        return Recognised::ConsumerKey;
    }
    if text.strip_prefix(&*pair.secret_prefix).is_some_and(is_hex40) {
        return Recognised::ConsumerSecret;
    }
    let Some((mode, body)) = token_body(settings, text) else { return Recognised::Other };
    let shown = settings.token.shown;
    if body.is_empty() || !body.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Recognised::Other;
    }
    if body.len() <= shown {
        return Recognised::ShownPrefix { mode };
    }
    let checksum = if body.len() != TOKEN_BODY + CHECKSUM {
        Checksum::Foreign
    } else {
        let (before, sum) = text.split_at(text.len() - CHECKSUM);
        if sum.as_bytes() == checksum(before.as_bytes()) { Checksum::Good } else { Checksum::Bad }
    };
    Recognised::Token { mode, shown: &text[..text.len() - body.len() + shown], checksum }
}

/// A regular expression for secret scanners that finds minted pairs and tokens, and little else.
pub fn pattern(settings: &Settings) -> String {
    let either = |one: &str, other: &str| {
        let (one, other) = (escaped(one), escaped(other));
        if one == other { one } else { format!("(?:{one}|{other})") }
    };
    let tokens = either(&settings.token.live, &settings.token.test);
    let pairs = either(&settings.pair.key_prefix, &settings.pair.secret_prefix);
    let length = TOKEN_BODY + CHECKSUM;
    format!(r"\b(?:{tokens}[0-9A-Za-z]{{{length}}}|{pairs}[0-9a-f]{{{PAIR_BODY}}})\b")
}

/// Whether the public part of a key, as the file has it, says that a machine made the key.
///
/// A public part that is known only by a digest came out of a system that mints its keys.
pub fn is_machine_made(settings: &Settings, kind: Kind, public: &PublicPart) -> bool {
    const SHOWN: std::ops::RangeInclusive<usize> = 4..=12;
    let text = match public {
        PublicPart::Digest { .. } => return true,
        PublicPart::Clear(text) => text,
    };
    // Other numbers of shown characters than today's come from yesterday's settings.
    let shown = || {
        token_body(settings, text)
            .is_some_and(|(_, body)| SHOWN.contains(&body.len()) && body.bytes().all(|b| b.is_ascii_alphanumeric()))
    };
    is_random(text.as_bytes()) || (kind == Kind::Token && shown())
}

/// Whether the last part of a text, after any prefix, has 160 random bits by its looks, so that nobody guesses it.
///
/// Costs a pass over the text; meant for what was not found, never for the usual request.
pub fn is_random(text: &[u8]) -> bool {
    let body = text.rsplit(|byte| !byte.is_ascii_alphanumeric()).next().unwrap_or_default();
    let mut seen = 0_u128;
    for byte in body {
        seen |= 1 << (byte & 127);
    }
    let distinct = seen.count_ones();
    let lower_hex = body.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let upper_hex = body.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
    if lower_hex || upper_hex {
        // Forty random digits show fewer than eight different ones once in 10^13.
        return body.len() >= PAIR_BODY && distinct >= 8;
    }
    // Words written together have no digits, or no capitals.
    let mixed = body.iter().any(u8::is_ascii_digit)
        && body.iter().any(u8::is_ascii_lowercase)
        && body.iter().any(u8::is_ascii_uppercase);
    body.len() >= RANDOM_BASE62 && distinct >= 14 && mixed
}

/// The six base62 characters of the CRC-32 (IEEE) of what precedes them.
pub fn checksum(before: &[u8]) -> [u8; CHECKSUM] {
    let mut rest = crc32fast::hash(before);
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

pub(super) const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The mode and what follows the prefix; the longer prefix first, should one begin with the other.
fn token_body<'t>(settings: &Settings, text: &'t str) -> Option<(Mode, &'t str)> {
    let mut prefixes = [(Mode::Live, &*settings.token.live), (Mode::Test, &*settings.token.test)];
    if prefixes[1].1.len() > prefixes[0].1.len() {
        prefixes.swap(0, 1);
    }
    prefixes.into_iter().find_map(|(mode, prefix)| Some((mode, text.strip_prefix(prefix)?)))
}

fn is_hex40(text: &str) -> bool {
    text.len() == PAIR_BODY && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A text as a regular expression that matches just it.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if !(character.is_alphanumeric() || matches!(character, '_' | '-')) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "4f2a90c1d37be6580f1c2b3a495867d0e1f2a3b4";

    #[track_caller]
    fn check(text: &str, expected: Recognised<'_>) {
        assert_eq!(recognise(&Settings::default(), text), expected);
    }

    fn token(prefix: &str) -> String {
        let mut token = format!("{prefix}0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ");
        let sum = checksum(token.as_bytes());
        token.extend(sum.map(char::from));
        token
    }

    #[test]
    fn minted_shapes_are_recognised() {
        check(&format!("ck_{HEX}"), Recognised::ConsumerKey);
        check(&format!("cs_{HEX}"), Recognised::ConsumerSecret);
        check(
            &token("ck_live_"),
            Recognised::Token { mode: Mode::Live, shown: "ck_live_012345", checksum: Checksum::Good },
        );
        check(
            &token("ck_test_"),
            Recognised::Token { mode: Mode::Test, shown: "ck_test_012345", checksum: Checksum::Good },
        );
        check("ck_live_abc123", Recognised::ShownPrefix { mode: Mode::Live });
        check(
            "ck_live_abc123def456",
            Recognised::Token { mode: Mode::Live, shown: "ck_live_abc123", checksum: Checksum::Foreign },
        );
        for other in ["", "ck_", "ck_live_", "alice", "ck_live_ab-cd", "sk_live_abc123", &HEX.to_uppercase()] {
            check(other, Recognised::Other);
        }
    }

    #[test]
    fn the_checksum_finds_every_wrong_character() {
        let good = token("ck_live_");
        for index in "ck_live_".len()..good.len() {
            let mut wrong = good.clone().into_bytes();
            wrong[index] = if wrong[index] == b'x' { b'y' } else { b'x' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert!(
                matches!(recognise(&Settings::default(), &wrong), Recognised::Token { checksum: Checksum::Bad, .. }),
                "character {index}"
            );
        }
    }

    #[test]
    fn the_checksum_is_crc32_in_six_base62_digits() {
        // The check value of CRC-32/ISO-HDLC, 0xCBF43926 = 3421780262.
        let mut value = 0_u64;
        for digit in checksum(b"123456789") {
            value = value * 62 + BASE62.iter().position(|byte| *byte == digit).unwrap() as u64;
        }
        assert_eq!(value, 0xCBF4_3926);
        assert_eq!(&checksum(b""), b"000000");
    }

    #[test]
    fn machine_made_public_parts() {
        let settings = Settings::default();
        let made = |kind, text: &str| is_machine_made(&settings, kind, &PublicPart::Clear(text.into()));
        assert!(made(Kind::Pair, &format!("ck_{HEX}")));
        assert!(made(Kind::Pair, &HEX.to_uppercase()));
        assert!(made(Kind::Token, "ck_live_abc123"));
        assert!(made(Kind::Token, "ck_test_a1b2c3d4"));
        assert!(is_machine_made(&settings, Kind::Pair, &PublicPart::Digest { key: "wc-api".into(), digest: [0; 32] }));
        for name in [
            "alice",
            "ck_alice",
            "ck_live_abc123",
            "accounting-export-2026",
            "0000000000000000000000000000000000000000",
            "TheQuickBrownFoxJumpsOverTheLazyDog",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaA1",
        ] {
            assert!(!made(Kind::Pair, name), "{name}");
        }
        assert!(!made(Kind::Token, "sk_live_abc123"));
        assert!(!made(Kind::Token, "ck_live_a"));
        assert!(is_random(token("wp3_live_sk_").as_bytes()));
        assert!(!is_random(b""));
        assert!(!is_random(&[0xff; 64]));
    }

    #[test]
    fn the_pattern_names_both_shapes() {
        assert_eq!(
            pattern(&Settings::default()),
            r"\b(?:(?:ck_live_|ck_test_)[0-9A-Za-z]{42}|(?:ck_|cs_)[0-9a-f]{40})\b"
        );
        assert_eq!(escaped("a.b+c_d"), r"a\.b\+c_d");
    }
}
