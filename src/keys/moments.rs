//! Spans and moments as they are typed, and how long a key lives that takes the place of another.

use std::time::Duration;

use super::document::{self, KeyRow};
use crate::clock::Wall;

/// The last second of the calendar: 9999-12-30T22:00:00Z.
const LAST: Wall = Wall::from_unix_millis(253_402_207_200_000);

/// When a key shall expire, as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// So long from now.
    In(Duration),
    /// At this moment.
    At(Wall),
}

impl Expiry {
    /// The moment; none when it has passed.
    pub fn from(self, now: Wall) -> Option<Wall> {
        let at = match self {
            Self::In(span) => now.plus(span),
            Self::At(at) => at,
        };
        (at > now).then_some(at)
    }
}

/// `90d`, `12h`, or a moment such as `2027-02-19T00:00:00Z`.
///
/// # Errors
///
/// What would be right.
pub fn expiry(text: &str) -> Result<Expiry, String> {
    if let Some(at) = document::moment(text) {
        // In a key file the last days of the calendar mean "never"; here that can be said.
        return match at < LAST {
            true => Ok(Expiry::At(at)),
            false => Err("the calendar ends with 9999-12-30; leave it out for one that never expires".to_owned()),
        };
    }
    let wrong = || "expected a span such as 90d or 12h, or a moment such as 2027-02-19T00:00:00Z".to_owned();
    span(text).map(Expiry::In).map_err(|_| wrong())
}

/// `24h`, `90m`, `7d`, `2w`, `30s`, or `0`.
///
/// # Errors
///
/// What would be right.
pub fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a span such as 24h, 90m or 7d, or 0".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let seconds = match text.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        Some(b'd') => 86_400,
        Some(b'w') => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let digits = &text[..text.len() - 1];
    let count: u64 = match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse().map_err(|_| wrong())?,
        false => return Err(wrong()),
    };
    // A thousand years are more than anybody means, and all that the calendar takes.
    match count.checked_mul(seconds) {
        Some(seconds) if seconds <= 1000 * 366 * 86_400 => Ok(Duration::from_secs(seconds)),
        _ => Err("that is more than a thousand years".to_owned()),
    }
}

/// A span as one would type it.
pub fn typed(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => "0".to_owned(),
        _ if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

/// Until when the key lives that replaces this one, if nobody says it: after as long a life as the old one was given; for
/// ever, if it was.
///
/// # Errors
///
/// Nobody knows how long a life that was, and the old key has expired.
pub fn life_after(old: &KeyRow, now: Wall) -> Result<Option<Wall>, &'static str> {
    let Some(expires_at) = old.expires_at else { return Ok(None) };
    let life = old.created_at.and_then(|created| u64::try_from(expires_at.unix_millis() - created.unix_millis()).ok());
    match life {
        Some(life) => Ok(Some(now.plus(Duration::from_millis(life)))),
        None if expires_at > now => Ok(Some(expires_at)),
        None => Err("the old key has expired; say when the new one shall"),
    }
}

/// When the old key ends: the earlier of its own moment and the end of the overlap; none means that it is revoked now.
pub fn end_of_old(old: &KeyRow, overlap: Duration, now: Wall) -> Option<Wall> {
    let end = now.plus(overlap);
    (!overlap.is_zero()).then(|| old.expires_at.map_or(end, |own| own.min(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(span(text).ok().map(|span| span.as_secs()), expected);
    }

    #[test]
    fn spans_carry_their_unit() {
        check("90d", Some(90 * 86_400));
        check("24h", Some(86_400));
        check("2w", Some(14 * 86_400));
        check("0", Some(0));
        for wrong in ["", "d", "90", "-1d", "+1d", "1.5h", "é", "99999999999999999999d", "400000d"] {
            check(wrong, None);
        }
    }

    #[test]
    fn an_expiry_lies_ahead() {
        let now = Wall::from_unix_millis(1_000_000);
        assert_eq!(expiry("1s").unwrap().from(now), Some(Wall::from_unix_millis(1_001_000)));
        assert_eq!(expiry("0").unwrap().from(now), None);
        assert_eq!(expiry("1970-01-01T00:00:00Z").unwrap().from(now), None);
        assert!(expiry("2027-02-19").is_err());
        assert_eq!(LAST.to_string(), "9999-12-30T22:00:00Z");
        assert!(expiry("9999-12-30T21:59:59Z").is_ok());
        for beyond in ["9999-12-30T22:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T00:00:00+01:00"] {
            assert!(expiry(beyond).unwrap_err().contains("ends with 9999-12-30"), "{beyond}");
        }
    }

    #[test]
    fn a_span_prints_as_typed() {
        for text in ["90d", "25h", "90m", "61s", "0"] {
            assert_eq!(typed(span(text).unwrap()), text);
        }
    }
}
