//! What is saved: the last use of keys, and the windows of ten minutes and more.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::IpAddr,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Folder, journal::Journal};
use crate::{
    clock::{Mono, Now, Wall},
    keys::{KeyId, KeySet, LastUsed},
    limits::{CellKey, Holder, Limiter, Plan, Save, SavedCounters, SavedWindow},
};

pub(super) const LAST_USED: &str = "last-used.ndjson";
pub(super) const WINDOWS: &str = "windows.ndjson";

/// How far the two clocks may drift apart before all saved windows are anchored anew.
const DRIFT_MS: u64 = 1000;

/// How long after a failure the next save is tried, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is saved in the state folder: the last use of keys, and the windows of ten minutes and more.
#[derive(Debug)]
pub struct State {
    folder: Folder,
    last_used: Journal,
    windows: Journal,
    pending: Arc<Mutex<Pending>>,
    healthy: Arc<AtomicBool>,
    /// Wall time minus monotonic time when the windows were last written anew, in milliseconds.
    anchor: i64,
    /// After a failure: when to try again, and how long to wait if that fails, too.
    pause: Option<(Mono, Duration)>,
}

/// Hands what an earlier process saved to keys and owners as they appear. Cheap to clone; never waits for a disk.
#[derive(Clone, Debug)]
pub struct Restorer(Arc<Mutex<Pending>>);

/// What was read and not yet claimed. It is saved again until it is, or until it counts no more: a key that is missing
/// from one version of the key file gets no fresh allowance by it.
#[derive(Debug, Default)]
struct Pending {
    last_used: HashMap<Box<str>, LastUsed>,
    keys: HashMap<Box<str>, Vec<SavedWindow>>,
    owners: HashMap<Box<str>, Vec<SavedWindow>>,
}

/// A line of the file of last uses.
#[derive(Debug, Serialize, Deserialize)]
struct UseLine {
    key: String,
    at: jiff::Timestamp,
    ip: IpAddr,
}

/// A line of the file of windows.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WindowLine {
    Key(Box<str>, Vec<SavedWindow>),
    Owner(Box<str>, Vec<SavedWindow>),
    /// Of an address: its requests, its failures.
    Address(IpAddr, Vec<SavedWindow>, Vec<SavedWindow>),
    /// The same of a cell, by which addresses without counters of their own are judged.
    Cell(u32, Vec<SavedWindow>, Vec<SavedWindow>),
}

impl State {
    /// Reads the folder, and gives the limiter what addresses had used. Never fails: what is wrong is alarmed once,
    /// and serving goes on. To be called before anything is served.
    pub fn open(folder: &Folder, limiter: &Limiter, plan: &Plan, now: Now) -> Self {
        let last_used = last_used_journal(folder);
        let mut windows = Journal::new(folder.clone(), WINDOWS, "keyside-windows", None);
        let mut pending = Pending::default();
        for line in last_used.open::<UseLine>().lines {
            pending.last_used.insert(line.key.into(), LastUsed { at: Wall::from(line.at), ip: line.ip });
        }
        let read = windows.open::<WindowLine>();
        if let Some(key) = read.cell_key.as_deref().and_then(cell_key) {
            limiter.set_cell_key(key);
        }
        windows.set_cell_key(format!("{:032x}", u128::from_be_bytes(limiter.cell_key())));
        let mut addresses = BTreeMap::new();
        for line in read.lines {
            match line {
                WindowLine::Key(id, windows) => drop(pending.keys.insert(id, windows)),
                WindowLine::Owner(id, windows) => drop(pending.owners.insert(id, windows)),
                WindowLine::Address(ip, arrivals, failures) => {
                    addresses.insert(Holder::Address(ip), SavedCounters { arrivals, failures });
                }
                WindowLine::Cell(index, arrivals, failures) => {
                    addresses.insert(Holder::Cell(index), SavedCounters { arrivals, failures });
                }
            }
        }
        // A new entry begins as a copy of its cell, so the cells come first.
        let is_cell = |holder: &Holder| matches!(holder, Holder::Cell(_));
        let (cells, addresses): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|(holder, _)| is_cell(holder));
        for (holder, saved) in cells.into_iter().chain(addresses) {
            let saved = SavedCounters { arrivals: alive(saved.arrivals, now), failures: alive(saved.failures, now) };
            if !(saved.arrivals.is_empty() && saved.failures.is_empty()) {
                limiter.restore(holder, &saved, plan, now);
            }
        }
        Self {
            folder: folder.clone(),
            last_used,
            windows,
            pending: Arc::new(Mutex::new(pending)),
            healthy: Arc::new(AtomicBool::new(true)),
            anchor: anchor(now),
            pause: None,
        }
    }

    /// Hands what was read to keys and owners as they appear.
    pub fn restorer(&self) -> Restorer {
        Restorer(Arc::clone(&self.pending))
    }

    /// Whether the last save succeeded: for a metric and for readiness.
    pub fn healthy(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.healthy)
    }

    /// Saves what has changed since the last time. Blocks on the disk.
    pub fn save(&mut self, keys: &KeySet, limiter: &Limiter, plan: &Plan, now: Now) {
        // Before a key's first mark is saved, it has to have what it had before.
        self.restorer().restore(keys, now);
        if self.pause.is_some_and(|(until, _)| now.mono < until) {
            return;
        }
        let saved = self.save_last_used(keys).and_then(|()| self.save_windows(keys, limiter, plan, now));
        let was_healthy = self.healthy.swap(saved.is_ok(), Ordering::Relaxed);
        match saved {
            Ok(()) => {
                self.pause = None;
                if !was_healthy {
                    tracing::info!(folder.path = %self.folder.path().display(), "The state is saved again");
                }
            }
            Err(error) => {
                let wait = self.pause.map_or(Duration::from_secs(1), |(_, wait)| (wait * 2).min(LONGEST_PAUSE));
                self.pause = Some((now.mono.plus(wait), wait));
                if was_healthy {
                    tracing::error!(
                        folder.path = %self.folder.path().display(), error = %error,
                        "The state cannot be saved; serving goes on, but last uses and long windows would not survive a restart",
                    );
                }
            }
        }
    }

    fn save_last_used(&mut self, keys: &KeySet) -> io::Result<()> {
        let line = |key: &str, last: LastUsed| UseLine { key: key.to_owned(), at: last.at.timestamp(), ip: last.ip };
        if !self.last_used.wants_rewrite() {
            let changed = keys.keys().filter_map(|key| Some(line(key.id.as_str(), key.state.last_use.take_changed()?)));
            let changed: Vec<_> = changed.collect();
            return self.last_used.append(&changed);
        }
        let lines: Vec<_> = {
            let pending = lock(&self.pending);
            let unclaimed = pending.last_used.iter().map(|(key, &last)| line(key, last));
            let known = keys.keys().filter_map(|key| {
                let last_use = &key.state.last_use;
                Some(line(key.id.as_str(), last_use.take_changed().or_else(|| last_use.get())?))
            });
            unclaimed.chain(known).collect()
        };
        self.last_used.rewrite(&lines)
    }

    fn save_windows(&mut self, keys: &KeySet, limiter: &Limiter, plan: &Plan, now: Now) -> io::Result<()> {
        // A wall clock that was set makes every saved moment wrong, also of windows that do not change any more.
        let drift = anchor(now).abs_diff(self.anchor);
        let which = if self.windows.wants_rewrite() || drift > DRIFT_MS { Save::All } else { Save::Changed };
        let mut lines = Vec::new();
        for key in keys.keys() {
            if let Some(windows) = key.state.meter.long_windows(which, now) {
                lines.push(WindowLine::Key(key.id.as_str().into(), windows));
            }
        }
        for owner in keys.owners() {
            if let Some(windows) = owner.state.meter.long_windows(which, now) {
                lines.push(WindowLine::Owner(owner.id.as_str().into(), windows));
            }
        }
        // With short limits alone the table is not walked.
        if which == Save::All || plan.saves_addresses() {
            limiter.long_windows(which, now, |holder, saved| {
                lines.push(match holder {
                    Holder::Address(ip) => WindowLine::Address(ip, saved.arrivals, saved.failures),
                    Holder::Cell(index) => WindowLine::Cell(index, saved.arrivals, saved.failures),
                });
            });
        }
        if which == Save::Changed {
            return self.windows.append(&lines);
        }
        {
            let mut pending = lock(&self.pending);
            let Pending { keys, owners, .. } = &mut *pending;
            for unclaimed in [&mut *keys, &mut *owners] {
                unclaimed.retain(|_, windows| !windows.iter().all(|window| window.is_over(now)));
            }
            lines.extend(keys.iter().map(|(id, windows)| WindowLine::Key(id.clone(), windows.clone())));
            lines.extend(owners.iter().map(|(id, windows)| WindowLine::Owner(id.clone(), windows.clone())));
        }
        self.windows.rewrite(&lines)?;
        self.anchor = anchor(now);
        Ok(())
    }
}

impl Restorer {
    /// Gives every key and owner of the set what was saved of it, once. To be called with a new set before requests see
    /// it, so that nothing is admitted that an earlier process had already counted.
    pub fn restore(&self, set: &KeySet, now: Now) {
        let mut pending = lock(&self.0);
        let Pending { last_used, keys, owners } = &mut *pending;
        if !(last_used.is_empty() && keys.is_empty()) {
            for key in set.keys() {
                if let Some(last) = last_used.remove(key.id.as_str()) {
                    key.state.last_use.restore(last);
                }
                if let Some(windows) = keys.remove(key.id.as_str()) {
                    key.state.meter.restore(&windows, now);
                }
            }
        }
        if !owners.is_empty() {
            for owner in set.owners() {
                if let Some(windows) = owners.remove(owner.id.as_str()) {
                    owner.state.meter.restore(&windows, now);
                }
            }
        }
    }
}

/// The last use of every key, as saved in a state folder; none where no sidecar ever saved any, so that nothing is known of them.
///
/// # Errors
///
/// When there is a file of which nothing can be read.
pub fn read_last_used(folder: &Path) -> io::Result<Option<BTreeMap<KeyId, LastUsed>>> {
    let Some(read) = last_used_journal(&Folder::new(folder)).read_if_there::<UseLine>() else { return Ok(None) };
    match read.fault {
        Some(fault) if read.lines.is_empty() => Err(io::Error::new(io::ErrorKind::InvalidData, fault)),
        _ => {
            let last = |line: UseLine| Some((line.key.parse().ok()?, LastUsed { at: line.at.into(), ip: line.ip }));
            Ok(Some(read.lines.into_iter().filter_map(last).collect()))
        }
    }
}

fn last_used_journal(folder: &Folder) -> Journal {
    Journal::new(folder.clone(), LAST_USED, "keyside-last-used", None)
}

fn alive(mut windows: Vec<SavedWindow>, now: Now) -> Vec<SavedWindow> {
    windows.retain(|window| !window.is_over(now));
    windows
}

fn anchor(now: Now) -> i64 {
    now.wall.unix_millis().saturating_sub(i64::try_from(now.mono.as_nanos() / 1_000_000).unwrap_or(i64::MAX))
}

fn cell_key(hex: &str) -> Option<CellKey> {
    u128::from_str_radix(hex, 16).ok().map(u128::to_be_bytes)
}

fn lock(pending: &Mutex<Pending>) -> MutexGuard<'_, Pending> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
