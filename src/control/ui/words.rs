//! Moments, hints and small drawings, for people.

use std::time::Duration;

use super::super::{
    keys::Listed,
    store::{Day, Refusal},
};
use crate::{
    clock::Wall,
    keys::{Standing, document::KeyRow, words::prefix},
};

/// After so long a key is to be rotated, and one that was not used is to be looked at.
pub(super) const OLD: Duration = Duration::from_secs(90 * DAY);
const DAY: u64 = 86_400;
/// Days of the small drawing.
pub(super) const DAYS: u32 = 14;
/// How many characters of a longer prefix are shown.
const SHOWN: usize = 20;

/// A moment, as a page shows it.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    /// RFC 3339.
    pub(super) exact: String,
    /// To the minute, in UTC.
    pub(super) shown: String,
    /// From now, such as "3 hours ago".
    pub(super) about: String,
}

impl Moment {
    pub(super) fn new(at: Wall, now: Wall) -> Self {
        let exact = at.to_string();
        let shown = at.timestamp().strftime("%Y-%m-%d %H:%M UTC").to_string();
        Self { exact, shown, about: about(at, now) }
    }
}

fn about(at: Wall, now: Wall) -> String {
    let seconds = now.unix_seconds().saturating_sub(at.unix_seconds());
    let span = span(Duration::from_secs(seconds.unsigned_abs()));
    match seconds {
        -1..=1 => "now".to_owned(),
        2.. => format!("{span} ago"),
        _ => format!("in {span}"),
    }
}

/// A span in its largest unit.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / DAY, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// A word on a key: never by its colour alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Badge {
    /// How it looks: `good`, `bad`, `warn` or `dull`.
    pub(super) look: &'static str,
    pub(super) text: String,
}

/// How a key stands, and what is to be done about it.
pub(super) fn badges(listed: &Listed, replaced: bool, now: Wall) -> Vec<Badge> {
    let row = &listed.row;
    let (look, text) = match listed.standing {
        Standing::Active if replaced => match row.expires_at {
            Some(at) => ("warn", format!("rotating, ends {}", about(at, now))),
            None => ("good", "active".to_owned()),
        },
        Standing::Active => ("good", "active".to_owned()),
        Standing::Revoked => ("bad", "revoked".to_owned()),
        Standing::Expired => ("bad", "expired".to_owned()),
        Standing::Suspended => ("warn", "owner suspended".to_owned()),
    };
    let mut badges = vec![Badge { look, text }];
    if listed.standing == Standing::Active && !replaced {
        let mut hint = |text: &str| badges.push(Badge { look: "warn", text: text.to_owned() });
        if row.expires_at.is_some_and(|at| at <= now.plus(Duration::from_secs(14 * DAY))) {
            hint("expires soon");
        }
        let old = |at: Wall| at.plus(OLD) <= now;
        let made_long_ago = row.created_at.is_none_or(old);
        if made_long_ago && listed.usage.last_used_at.is_none_or(old) {
            hint("unused for 90 days");
        } else if made_long_ago {
            hint("older than 90 days: rotate it");
        }
    }
    badges
}

/// The public part, not too long.
pub(super) fn short_prefix(row: &KeyRow) -> String {
    match prefix(row) {
        None => "–".to_owned(),
        Some(prefix) => match prefix.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &prefix[..end]),
            None => prefix.to_owned(),
        },
    }
}

/// The use of a key in the last days, as bars; how many requests, in words beside it.
#[derive(Clone, Debug)]
pub(super) struct Spark {
    pub(super) bars: Vec<Bar>,
    pub(super) says: String,
}

/// One day of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bar {
    pub(super) x: u64,
    pub(super) y: u64,
    pub(super) height: u64,
    /// The lower part of it: what was refused.
    pub(super) refused: u64,
}

const HEIGHT: u64 = 20;
const WIDTH: u64 = 5;

impl Spark {
    pub(super) fn new(days: &[Day], today: i64) -> Self {
        let (mut allowed, mut refused) = (0_u64, 0_u64);
        let mut top = 1;
        for day in days {
            allowed = allowed.saturating_add(day.allowed);
            refused = refused.saturating_add(day.refused);
            top = top.max(day.allowed.saturating_add(day.refused));
        }
        let scale = |count: u64| {
            let height = u128::from(count) * u128::from(HEIGHT) / u128::from(top);
            // What happened at all is seen.
            u64::try_from(height).unwrap_or(HEIGHT).max(u64::from(count > 0))
        };
        let first = today - i64::from(DAYS) + 1;
        let bar = |day: &Day| {
            let x = u64::try_from(day.day - first).ok().filter(|x| *x < u64::from(DAYS))? * WIDTH;
            let height = scale(day.allowed.saturating_add(day.refused));
            Some(Bar { x, y: HEIGHT - height, height, refused: scale(day.refused).min(height) })
        };
        let bars = days.iter().filter_map(bar).collect();
        let says = match (allowed, refused) {
            (0, 0) => format!("No requests in {DAYS} days"),
            (allowed, 0) => format!("{allowed} requests in {DAYS} days"),
            (allowed, refused) => format!("{allowed} requests in {DAYS} days, and {refused} refused"),
        };
        Self { bars, says }
    }
}

/// A refusal, and what to do about it.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) reason: String,
    pub(super) count: u64,
    pub(super) at: Moment,
    pub(super) ip: String,
    pub(super) advice: String,
}

impl Trouble {
    pub(super) fn new(refusal: &Refusal, now: Wall) -> Self {
        let ip = refusal.ip.map(|ip| ip.to_string()).unwrap_or_default();
        Self {
            advice: advice(&refusal.reason, &ip),
            reason: refusal.reason.clone(),
            count: refusal.count,
            at: Moment::new(refusal.at, now),
            ip,
        }
    }
}

/// What to do about a refusal for this reason.
fn advice(reason: &str, ip: &str) -> String {
    let text = match reason {
        "wrong_secret" | "malformed" | "unknown_key" => {
            "The secret is not the one of this key. Check that it was copied whole, without white space at its end; if it is \
             lost, rotate the key."
        }
        "revoked" => "Somebody still uses this key, and it is revoked for ever. Give them a new one.",
        "expired" => "The key's time has run out. Make a new one, and move the integration to it.",
        "owner_suspended" => "The owner is suspended: all its keys are refused until that is lifted.",
        "forbidden_caller_ip" if !ip.is_empty() => {
            return format!(
                "The caller's address is not on the list of this key. If the address is theirs, add {ip} to the list."
            );
        }
        "forbidden_caller_ip" => "The caller's address is not on the list of this key. Update the list.",
        "mode_mismatch" => {
            "The key belongs to another mode than the host it was sent to: a test key to the live host, or a \
                            live key to the test host."
        }
        "route_not_allowed" => "No key may use this method on this path. Check the address that is called.",
        "insufficient_scope" => {
            "The key lacks the scope that the request needs. If the integration must do this, give the \
                                 key that scope; a key that reads must not write."
        }
        "permission_denied" => {
            "The owner lacks the capability that the request needs, or the key only reads. Give the \
                                owner the capability, or let the key act for another owner."
        }
        "kyc_required" => "The endpoint asks for an approved KYC, and the owner has none.",
        "key_limit" => {
            "The key has used up its allowance. Spread the load over several keys, or give it higher limits."
        }
        "owner_limit" => "The owner has used up the allowance of its plan. Choose a higher plan.",
        "ip_limit" | "failure_limit" => {
            "Too much came from one address. Let the caller wait as long as Retry-After says."
        }
        _ => "The sidecar's log says more, under the request's id.",
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall::from_unix_millis(1_790_000_000_000);

    #[track_caller]
    fn check(seconds: i64, expected: &str) {
        assert_eq!(about(Wall::from_unix_millis(NOW.unix_millis() - seconds * 1000), NOW), expected);
    }

    #[test]
    fn moments_are_told_from_now() {
        check(0, "now");
        check(-1, "now");
        check(30, "30 seconds ago");
        check(60, "1 minute ago");
        check(7200, "2 hours ago");
        check(90 * 86_400, "90 days ago");
        check(-86_400, "in 24 hours");
        check(-3 * 86_400, "in 3 days");
    }

    #[test]
    fn the_drawing_shows_what_happened_at_all() {
        let days = [Day { day: 100, allowed: 10_000, refused: 0 }, Day { day: 99, allowed: 0, refused: 1 }];
        let spark = Spark::new(&days, 100);
        assert_eq!(spark.says, "10000 requests in 14 days, and 1 refused");
        assert_eq!(spark.bars[0], Bar { x: 65, y: 0, height: 20, refused: 0 });
        assert_eq!(spark.bars[1], Bar { x: 60, y: 19, height: 1, refused: 1 });
        assert_eq!(Spark::new(&[Day { day: 86, allowed: 1, refused: 1 }], 100).bars, []);
        let most = Day { day: 100, allowed: u64::MAX, refused: u64::MAX };
        assert_eq!(Spark::new(&[most], 100).bars[0].height, 20);
    }

    #[test]
    fn there_is_advice_for_what_a_key_is_refused_for() {
        let of_keys = [
            "wrong_secret",
            "revoked",
            "expired",
            "owner_suspended",
            "forbidden_caller_ip",
            "mode_mismatch",
            "route_not_allowed",
            "insufficient_scope",
            "permission_denied",
            "kyc_required",
            "key_limit",
            "owner_limit",
        ];
        for reason in of_keys {
            assert!(!advice(reason, "").starts_with("The sidecar's log"), "{reason}");
        }
        assert!(advice("forbidden_caller_ip", "203.0.113.9").contains("add 203.0.113.9"));
    }
}
