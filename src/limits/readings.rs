//! What remains, and the fields that tell the caller.
//!
//! `RateLimit` and `RateLimit-Policy` are lists of RFC 9651 (draft-ietf-httpapi-ratelimit-headers), one member a
//! window: `"key-60s";r=12;t=8` and `"key-60s";q=600;w=60`. `r` is what remains; `t` is in how many seconds more will
//! be available than now, which is when the oldest admission leaves the window. `X-RateLimit-Limit`, `-Remaining` and
//! `-Reset` say the same of the tightest window; `-Reset` is `t`, in seconds from now, not a date.

use std::cell::RefCell;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::{
    HeaderStyle, Subject,
    take::{Part, seconds_until},
    window::{Tick, tick},
};
use crate::clock::Mono;

static RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
static LEGACY_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
static LEGACY_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
static LEGACY_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// What remains, of all windows taken for this request, from one reading.
#[derive(Debug, Default)]
pub struct Readings {
    windows: SmallVec<[Reading; 4]>,
    /// When every window that this request has used up has room again.
    not_before: Tick,
}

/// What remains of one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    policy: Policy,
    remaining: u32,
    /// In how many seconds more will be available.
    more_in: u32,
}

/// What is said of a window in `RateLimit-Policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    subject: Subject,
    limit: u32,
    seconds: u32,
}

impl Readings {
    /// Whether nothing was taken from any window.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Whose limits are nearly used up: less than a tenth of some window remains. Each subject at most once.
    pub fn near(&self) -> impl Iterator<Item = Subject> + '_ {
        let is_near = |reading: &Reading| u64::from(reading.remaining) * 10 < u64::from(reading.policy.limit);
        Subject::ALL
            .into_iter()
            .filter(move |&subject| self.windows.iter().any(|r| r.policy.subject == subject && is_near(r)))
    }

    /// Puts `Retry-After` off until the windows that this request has used up have room again: a retry needs them,
    /// too. [`take_key`](super::Limiter::take_key) does so itself; a refusal of failures needs it.
    pub fn put_off(&self, retry_after: u64, now: Mono) -> u64 {
        retry_after.max(seconds_until(self.not_before, tick(now)))
    }

    /// Writes the rate-limit fields into an answer. The upstream's own `RateLimit` and `RateLimit-Policy` stay, ours
    /// follow: an intermediary must not loosen what the origin says. The legacy fields know no lists; ours replace them.
    pub fn write(&self, style: HeaderStyle, headers: &mut HeaderMap) {
        let (draft, legacy) = match style {
            HeaderStyle::Draft => (true, false),
            HeaderStyle::Legacy => (false, true),
            HeaderStyle::Both => (true, true),
            HeaderStyle::None => return,
        };
        let Some(tightest) = self.windows.iter().min_by_key(|r| (r.remaining, std::cmp::Reverse(r.more_in))) else {
            return;
        };
        // One buffer for all: the values are cut from it.
        let mut buffer = BytesMut::with_capacity(if draft { 32 * self.windows.len() } else { 0 } + 30);
        let mut digits = itoa::Buffer::new();
        if draft {
            for (at, reading) in self.windows.iter().enumerate() {
                put_name(&mut buffer, at, reading.policy);
                buffer.put_slice(b";r=");
                buffer.put_slice(digits.format(reading.remaining).as_bytes());
                buffer.put_slice(b";t=");
                buffer.put_slice(digits.format(reading.more_in).as_bytes());
            }
        }
        let mut ends = [buffer.len(); 4];
        if legacy {
            for (at, number) in [tightest.policy.limit, tightest.remaining, tightest.more_in].into_iter().enumerate() {
                buffer.put_slice(digits.format(number).as_bytes());
                ends[at + 1] = buffer.len();
            }
        }
        let buffer = buffer.freeze();
        if draft {
            headers.append(&RATELIMIT, value(buffer.slice(..ends[0])));
            headers.append(&RATELIMIT_POLICY, self.policies());
        }
        if legacy {
            headers.insert(&LEGACY_LIMIT, value(buffer.slice(ends[0]..ends[1])));
            headers.insert(&LEGACY_REMAINING, value(buffer.slice(ends[1]..ends[2])));
            headers.insert(&LEGACY_RESET, value(buffer.slice(ends[2]..ends[3])));
        }
    }

    /// Adds what remains of a part's windows.
    pub(super) fn read(&mut self, part: &Part<'_>, now: Tick) {
        let subject = part.rules.subject();
        for (window, rule) in part.windows.by_rule(part.rules.rules()) {
            let used = u32::try_from(window.total()).unwrap_or(u32::MAX);
            let remaining = rule.limit.saturating_sub(used);
            let more_at = window.more_at(rule.limit);
            let more_in = match more_at {
                Tick::MAX => rule.seconds,
                _ => u32::try_from(seconds_until(more_at, now)).unwrap_or(u32::MAX),
            };
            if remaining == 0 && more_at != Tick::MAX {
                self.not_before = self.not_before.max(more_at);
            }
            let policy = Policy { subject, limit: rule.limit, seconds: rule.seconds };
            self.windows.push(Reading { policy, remaining, more_in });
        }
    }

    /// When every window that was taken from has room again.
    pub(super) fn not_before(&self) -> Tick {
        self.not_before
    }

    /// `RateLimit-Policy`. There are as many values as there are plans, so each thread keeps the last few.
    fn policies(&self) -> HeaderValue {
        const KEPT: usize = 16;
        type Kept = Vec<(SmallVec<[Policy; 4]>, HeaderValue)>;
        thread_local! {
            static POLICIES: RefCell<Kept> = const { RefCell::new(Vec::new()) };
        }
        POLICIES.with_borrow_mut(|kept| {
            let same = |policies: &[Policy]| policies.iter().eq(self.windows.iter().map(|reading| &reading.policy));
            if let Some((_, value)) = kept.iter().find(|(policies, _)| same(policies)) {
                return value.clone();
            }
            let policies: SmallVec<[Policy; 4]> = self.windows.iter().map(|reading| reading.policy).collect();
            let value = policies_value(&policies);
            if kept.len() == KEPT {
                kept.remove(0);
            }
            kept.push((policies, value.clone()));
            value
        })
    }
}

/// The name of a policy: `key-60s`.
pub(super) fn policy_name(subject: Subject, seconds: u32) -> Box<str> {
    format!("{}-{seconds}s", subject.label()).into()
}

fn policies_value(policies: &[Policy]) -> HeaderValue {
    let mut buffer = BytesMut::with_capacity(32 * policies.len());
    let mut digits = itoa::Buffer::new();
    for (at, &policy) in policies.iter().enumerate() {
        put_name(&mut buffer, at, policy);
        buffer.put_slice(b";q=");
        buffer.put_slice(digits.format(policy.limit).as_bytes());
        buffer.put_slice(b";w=");
        buffer.put_slice(digits.format(policy.seconds).as_bytes());
    }
    value(buffer.freeze())
}

/// The name of a member, quoted, after a comma if it is not the first.
fn put_name(buffer: &mut BytesMut, at: usize, policy: Policy) {
    buffer.put_slice(if at == 0 { b"\"" } else { b", \"" });
    buffer.put_slice(policy.subject.label().as_bytes());
    buffer.put_u8(b'-');
    buffer.put_slice(itoa::Buffer::new().format(policy.seconds).as_bytes());
    buffer.put_slice(b"s\"");
}

fn value(text: Bytes) -> HeaderValue {
    // Letters, digits and punctuation of our own making: always a valid value.
    HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
