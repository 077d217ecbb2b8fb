//! The fields that tell the caller what remains.
//!
//! `RateLimit` and `RateLimit-Policy` are lists of RFC 9651 (draft-ietf-httpapi-ratelimit-headers), one member a
//! window: `"key-60s";r=12;t=8` and `"key-60s";q=600;w=60`. `r` is what remains; `t` is in how many seconds more will
//! be available than now, which is when the oldest admission leaves the window. `X-RateLimit-Limit`, `-Remaining` and
//! `-Reset` say the same of the tightest window; `-Reset` is `t`, in seconds from now, not a date.
//!
//! The upstream's own `RateLimit` and `RateLimit-Policy` stay, ours follow: an intermediary must not loosen what the
//! origin says. The legacy fields know no lists; ours replace them.

use std::{cell::RefCell, cmp::Reverse, ops::Range};

use smallvec::SmallVec;

use super::{
    HeaderStyle, Subject,
    readings::{Policy, Reading},
};

const RATELIMIT: &str = "ratelimit: ";
const RATELIMIT_POLICY: &str = "ratelimit-policy: ";
const LEGACY_LIMIT: &str = "x-ratelimit-limit: ";
const LEGACY_REMAINING: &str = "x-ratelimit-remaining: ";
const LEGACY_RESET: &str = "x-ratelimit-reset: ";

/// Of how many plans a thread keeps what is always the same.
const KEPT: usize = 16;

/// Writes the fields of these windows, in this style: how each line begins, and its value.
pub(super) fn write(windows: &[Reading], style: HeaderStyle, mut put: impl FnMut(&'static str, &[u8])) {
    thread_local! {
        static WRITER: RefCell<Writer> = RefCell::default();
    }
    let (draft, legacy) = match style {
        HeaderStyle::Draft => (true, false),
        HeaderStyle::Legacy => (false, true),
        HeaderStyle::Both => (true, true),
        HeaderStyle::None => return,
    };
    let by_tightness = |(_, reading): &(usize, &Reading)| (reading.remaining, Reverse(reading.more_in));
    let Some((tightest, _)) = windows.iter().enumerate().min_by_key(by_tightness) else { return };
    WRITER.with_borrow_mut(|Writer { memory, text }| {
        let known = memory.of(windows);
        let list = List::write(windows, known, tightest, text);
        if draft {
            put(RATELIMIT, text);
            put(RATELIMIT_POLICY, known.policies.as_bytes());
        }
        if legacy {
            put(LEGACY_LIMIT, known.windows[tightest].limit.as_bytes());
            put(LEGACY_REMAINING, &text[list.remaining]);
            put(LEGACY_RESET, &text[list.more_in]);
        }
    });
}

/// Whether an upstream's field of this name gives way to ours.
pub(super) fn replaces(style: HeaderStyle, name: &[u8]) -> bool {
    matches!(style, HeaderStyle::Legacy | HeaderStyle::Both)
        && matches!(name, b"x-ratelimit-limit" | b"x-ratelimit-remaining" | b"x-ratelimit-reset")
}

/// The name of a policy: `key-60s`.
pub(super) fn policy_name(subject: Subject, seconds: u32) -> Box<str> {
    format!("{}-{seconds}s", subject.label()).into()
}

/// What a thread keeps, so that fields cost no memory of their own.
#[derive(Default)]
struct Writer {
    memory: Memory,
    text: Vec<u8>,
}

/// What is always the same for the policies that were met last.
#[derive(Default)]
struct Memory(Vec<Known>);

/// What every answer by the same policies says.
struct Known {
    windows: SmallVec<[KnownWindow; 2]>,
    /// `RateLimit-Policy`.
    policies: Box<str>,
}

struct KnownWindow {
    policy: Policy,
    /// How its member of `RateLimit` begins, with the comma before it: `, "key-60s";r=`.
    member: Box<str>,
    /// `X-RateLimit-Limit`.
    limit: Box<str>,
}

impl Memory {
    /// There are as many as there are plans, so the oldest makes room.
    fn of(&mut self, windows: &[Reading]) -> &Known {
        let kept = &mut self.0;
        let at = kept.iter().position(|known| known.is_of(windows)).unwrap_or_else(|| {
            if kept.len() == KEPT {
                kept.remove(0);
            }
            kept.push(Known::new(windows));
            kept.len() - 1
        });
        &kept[at]
    }
}

impl Known {
    fn new(windows: &[Reading]) -> Self {
        let mut policies = String::new();
        let windows = windows.iter().map(|&Reading { policy, .. }| {
            let Policy { subject, limit, seconds } = policy;
            let comma = if policies.is_empty() { "" } else { ", " };
            let name = format!("{comma}\"{}\"", policy_name(subject, seconds));
            policies += &format!("{name};q={limit};w={seconds}");
            KnownWindow { policy, member: format!("{name};r=").into(), limit: limit.to_string().into() }
        });
        Self { windows: windows.collect(), policies: policies.into() }
    }

    fn is_of(&self, windows: &[Reading]) -> bool {
        self.windows.iter().map(|known| &known.policy).eq(windows.iter().map(|reading| &reading.policy))
    }
}

/// Where in the value of `RateLimit` the two numbers of the tightest window stand.
struct List {
    remaining: Range<usize>,
    more_in: Range<usize>,
}

impl List {
    fn write(windows: &[Reading], known: &Known, tightest: usize, text: &mut Vec<u8>) -> Self {
        text.clear();
        let (mut remaining, mut more_in) = (0..0, 0..0);
        for (at, (reading, known)) in windows.iter().zip(&known.windows).enumerate() {
            text.extend_from_slice(known.member.as_bytes());
            let its_remaining = put_number(reading.remaining, text);
            text.extend_from_slice(b";t=");
            let its_more_in = put_number(reading.more_in, text);
            if at == tightest {
                (remaining, more_in) = (its_remaining, its_more_in);
            }
        }
        Self { remaining, more_in }
    }
}

/// Appends a number; says where.
fn put_number(number: u32, text: &mut Vec<u8>) -> Range<usize> {
    let start = text.len();
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    start..text.len()
}
