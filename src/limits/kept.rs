//! What `usage` saves of the table of addresses, and hands back after a restart.

use std::net::IpAddr;

use super::{
    Limiter, Plan,
    entry::{Address, Counters, Entry},
    saved::{SavedWindow, history_of, long_windows},
    window::tick,
    windows::Windows,
};
use crate::clock::Now;

/// Whose counters are saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Holder {
    /// An address that has an entry.
    Address(IpAddr),
    /// A cell, by its index.
    Cell(u32),
}

/// The long windows of one address or cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SavedCounters {
    pub(crate) arrivals: Vec<SavedWindow>,
    pub(crate) failures: Vec<SavedWindow>,
}

/// Which counters are saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Save {
    /// Those that have changed since they were last saved.
    Changed,
    /// All.
    All,
}

impl Limiter {
    /// The long windows of addresses and cells.
    pub(crate) fn long_windows(&self, which: Save, now: Now, mut f: impl FnMut(Holder, SavedCounters)) {
        let wanted = |entry: &Entry| match which {
            Save::Changed => entry.is_changed(),
            Save::All => true,
        };
        let mut save = |holder, entry: &Entry| {
            // The flag is taken down before the lock is taken: a take in between raises it again.
            entry.take_changed();
            let counters = entry.lock();
            let saved = SavedCounters {
                arrivals: long_windows(&counters.arrivals, now),
                failures: long_windows(&counters.failures, now),
            };
            drop(counters);
            if !(saved.arrivals.is_empty() && saved.failures.is_empty()) {
                f(holder, saved);
            }
        };
        // Entries first: one that is evicted meanwhile is in its cell, which is saved after it.
        for entry in self.entries_where(wanted) {
            if let Some(address) = entry.address() {
                save(Holder::Address(address.ip()), &entry);
            }
        }
        for (index, cell) in self.cells.iter() {
            if wanted(cell) {
                save(Holder::Cell(u32::try_from(index).unwrap_or(u32::MAX)), cell);
            }
        }
    }

    /// Takes over what an earlier process has counted: all cells before any address.
    pub(crate) fn restore(&self, holder: Holder, saved: &SavedCounters, plan: &Plan, now: Now) {
        let restore = |counters: &mut Counters| {
            // The larger of both, not the sum: an entry may have been saved, evicted and merged into its cell.
            merge(&mut counters.arrivals, &saved.arrivals, now);
            merge(&mut counters.failures, &saved.failures, now);
        };
        match holder {
            Holder::Cell(index) => {
                let longest = saved.arrivals.iter().chain(&saved.failures).map(SavedWindow::length).max();
                let cell =
                    self.cells.restore(usize::try_from(index).unwrap_or(0), longest.unwrap_or(0), tick(now.mono));
                restore(&mut cell.lock());
            }
            Holder::Address(ip) => {
                let address = Address::new(ip, plan.ipv6_prefix);
                self.with_counters(address, tick(now.mono), |_, counters| restore(counters));
            }
        }
    }
}

fn merge(windows: &mut Windows, saved: &[SavedWindow], now: Now) {
    for window in saved {
        windows.dominate_history(window.length(), &history_of(window, now), tick(now.mono));
    }
}
