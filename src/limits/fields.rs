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

/// The names of all fields, each with what stands between it and its value.
pub const NAMES: [&str; 5] =
    ["ratelimit: ", "ratelimit-policy: ", "x-ratelimit-limit: ", "x-ratelimit-remaining: ", "x-ratelimit-reset: "];

/// Which of them are the draft's.
const DRAFT: Range<usize> = 0..2;
/// Which are the legacy ones.
const LEGACY: Range<usize> = 2..5;

/// Of how many plans a thread keeps what is always the same.
const KEPT: usize = 16;

/// Writes the fields of these windows, in this style: the lines (name in lower case, colon, blank, value, line end), and
/// in their order the places in [`NAMES`] of their names.
pub(super) fn write(windows: &[Reading], style: HeaderStyle, put: impl FnOnce(&[u8], Range<usize>)) {
    thread_local! {
        static WRITER: RefCell<Writer> = RefCell::default();
    }
    let names = match style {
        HeaderStyle::Draft => DRAFT,
        HeaderStyle::Legacy => LEGACY,
        HeaderStyle::Both => DRAFT.start..LEGACY.end,
        HeaderStyle::None => return,
    };
    let by_tightness = |(_, reading): &(usize, &Reading)| (reading.remaining, Reverse(reading.more_in));
    let Some((place, tightest)) = windows.iter().enumerate().min_by_key(by_tightness) else { return };
    WRITER.with_borrow_mut(|Writer { memory, lines }| {
        let known = memory.of(windows);
        lines.clear();
        if names.start == DRAFT.start {
            for (reading, known) in windows.iter().zip(&known.windows) {
                lines.extend_from_slice(known.member.as_bytes());
                put_number(reading.remaining, lines);
                lines.extend_from_slice(b";t=");
                put_number(reading.more_in, lines);
            }
            lines.extend_from_slice(known.policies.as_bytes());
        }
        if names.end == LEGACY.end {
            lines.extend_from_slice(known.windows[place].legacy.as_bytes());
            put_number(tightest.remaining, lines);
            lines.extend_from_slice(b"\r\nx-ratelimit-reset: ");
            put_number(tightest.more_in, lines);
            lines.extend_from_slice(b"\r\n");
        }
        put(lines, names);
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
    lines: Vec<u8>,
}

/// What is always the same for the policies that were met last.
#[derive(Default)]
struct Memory(Vec<Known>);

/// What every answer by the same policies says.
struct Known {
    windows: SmallVec<[KnownWindow; 2]>,
    /// The end of the line `RateLimit`, and the line `RateLimit-Policy`.
    policies: Box<str>,
}

struct KnownWindow {
    policy: Policy,
    /// How its member of `RateLimit` begins, with what stands before it: `, "key-60s";r=`.
    member: Box<str>,
    /// The line `X-RateLimit-Limit`, and how `-Remaining` begins.
    legacy: Box<str>,
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
        let mut policies = "\r\nratelimit-policy: ".to_owned();
        let windows = windows
            .iter()
            .enumerate()
            .map(|(place, &Reading { policy, .. })| {
                let Policy { subject, limit, seconds } = policy;
                let name = policy_name(subject, seconds);
                let comma = if place == 0 { "" } else { ", " };
                let before = if place == 0 { "ratelimit: " } else { comma };
                policies += &format!("{comma}\"{name}\";q={limit};w={seconds}");
                let member = format!("{before}\"{name}\";r=").into();
                let legacy = format!("x-ratelimit-limit: {limit}\r\nx-ratelimit-remaining: ").into();
                KnownWindow { policy, member, legacy }
            })
            .collect();
        policies += "\r\n";
        Self { windows, policies: policies.into() }
    }

    fn is_of(&self, windows: &[Reading]) -> bool {
        self.windows.iter().map(|known| &known.policy).eq(windows.iter().map(|reading| &reading.policy))
    }
}

fn put_number(number: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}
