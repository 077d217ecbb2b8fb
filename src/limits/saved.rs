//! Long windows as they are saved: anchored at wall time, since monotonic time means nothing to the next process.
//!
//! Every rounding makes an admission younger, never older: a restart can refuse a moment too early, never admit too
//! much. An admission from the future, because the wall clock was set back, counts as made now.

use serde::{Deserialize, Serialize};

use super::{
    window::{Tick, tick},
    windows::{SAVED_FROM, Windows},
};
use crate::clock::Now;

/// One window as it is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedWindow {
    /// The window's length.
    pub(crate) seconds: u32,
    /// Admissions, oldest first: when, in milliseconds since the Unix epoch, and how many.
    pub(crate) marks: Vec<(i64, u32)>,
}

impl SavedWindow {
    pub(super) fn length(&self) -> u64 {
        u64::from(self.seconds.clamp(1, 366 * 86_400)) * 1_000_000_000
    }

    /// Whether all of it has left the window.
    pub(crate) fn is_over(&self, now: Now) -> bool {
        let length = i64::from(self.seconds) * 1000;
        self.marks.iter().all(|&(at, _)| at.saturating_add(length) < now.wall.unix_millis())
    }
}

/// The windows of ten minutes and more that hold something.
pub(super) fn long_windows(windows: &Windows, now: Now) -> Vec<SavedWindow> {
    let (moment, wall) = (tick(now.mono), now.wall.unix_millis());
    windows
        .all()
        .filter(|window| window.length() >= SAVED_FROM && !window.is_empty())
        .map(|window| SavedWindow {
            seconds: u32::try_from(window.length() / 1_000_000_000).unwrap_or(u32::MAX),
            marks: window
                .history()
                .map(|(last, count)| {
                    let age = moment.saturating_sub(last) / 1_000_000;
                    (wall.saturating_sub(i64::try_from(age).unwrap_or(i64::MAX)), count)
                })
                .collect(),
        })
        .collect()
}

/// The admissions of a saved window as moments of this process, oldest first.
pub(super) fn history_of(saved: &SavedWindow, now: Now) -> Vec<(Tick, u32)> {
    let (moment, wall) = (tick(now.mono), now.wall.unix_millis());
    let mut history: Vec<_> = saved
        .marks
        .iter()
        .map(|&(at, count)| {
            let age = u64::try_from(wall.saturating_sub(at)).unwrap_or(0);
            (moment.saturating_sub(age.saturating_mul(1_000_000)), count)
        })
        .collect();
    history.sort_by_key(|&(last, _)| last);
    history
}
