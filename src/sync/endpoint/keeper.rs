//! The thread that writes: a disk may take its time, and no revocation waits for it.

use std::{
    fs::File,
    io::{self, Write as _},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::watch;

use super::{
    Limits,
    journal::{self, Confirmed, JOURNAL},
    protocol::Position,
    rows::Rows,
};
use crate::{
    client::Url,
    clock::{self, Moment, Mono},
    keys::Revocations,
    sync::file::Status,
    usage::{Folder, Revoked},
};

/// How much may wait for the disk. Beyond it, the set is written anew as a whole.
const MOST_WAITING: usize = 32 * 1024 * 1024;
/// Changes up to this number are no reason to write the journal anew.
const SLACK: usize = 1024;
/// How often the moment of the last confirmation is kept.
const CONFIRMED_EVERY: Duration = Duration::from_secs(10);
/// How often a disk that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Writes what it is handed, on a thread of its own.
#[derive(Debug)]
pub(super) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    revoked: Revocations,
    whole: Option<(Position, Rows)>,
    lines: Vec<u8>,
    count: usize,
    position: Option<Position>,
    confirmed: Option<(Position, Moment, Limits)>,
    /// Since when nothing can be appended: a whole set is needed.
    broken: Option<Mono>,
    stop: bool,
}

/// What the thread has.
struct Writer {
    folder: Folder,
    url: Url,
    revoked: Revoked,
    revoked_again: bool,
    file: Option<File>,
    lines: usize,
    live: usize,
    kept: Option<Mono>,
    durable: watch::Sender<Option<Position>>,
    status: Arc<Mutex<Status>>,
}

impl Keeper {
    pub(super) fn start(
        folder: Folder,
        url: Url,
        revoked: Revoked,
        durable: watch::Sender<Option<Position>>,
        status: Arc<Mutex<Status>>,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (file, lines, live, kept, revoked_again) = (None, 0, 0, None, false);
        let mut writer = Writer { folder, url, revoked, revoked_again, file, lines, live, kept, durable, status };
        let of = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("keys-disk".into()).spawn(move || {
            loop {
                let work = {
                    let mut waiting = of.lock();
                    while waiting.is_empty() && !waiting.stop {
                        waiting = of.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                    }
                    if waiting.is_empty() {
                        return;
                    }
                    let broken = waiting.broken;
                    let stop = waiting.stop;
                    std::mem::replace(&mut *waiting, Waiting { broken, stop, ..Waiting::default() })
                };
                let written = writer.write(work);
                let mut waiting = of.lock();
                match written {
                    // Long enough: a new beginning makes it short.
                    Ok(()) if writer.wants_whole() => waiting.broken = Some(Mono::default()),
                    Ok(()) => {}
                    Err(()) => waiting.break_off(clock::mono()),
                }
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Keeps these revocations.
    pub(super) fn revoked(&self, revoked: Revocations) {
        if !revoked.is_empty() {
            self.shared.hand(|waiting| waiting.revoked.extend(revoked));
        }
    }

    /// Keeps a whole set, in place of everything.
    pub(super) fn whole(&self, position: Position, rows: Rows) {
        self.shared.hand(|waiting| {
            (waiting.lines, waiting.count, waiting.broken) = (Vec::new(), 0, None);
            waiting.position = Some(position.clone());
            waiting.whole = Some((position, rows));
        });
    }

    /// Keeps the lines of changes that lead to this position.
    pub(super) fn lines<'l>(&self, position: Position, lines: impl Iterator<Item = &'l [u8]>) {
        self.shared.hand(|waiting| {
            if waiting.broken.is_some() {
                return;
            }
            for line in lines {
                journal::put(&mut waiting.lines, line);
                waiting.count += 1;
            }
            waiting.position = Some(position);
            if waiting.lines.len() > MOST_WAITING {
                waiting.break_off(Mono::default());
            }
        });
    }

    /// Keeps when this was confirmed, now and then.
    pub(super) fn confirmed(&self, position: Position, at: Moment, limits: Limits) {
        self.shared.hand(|waiting| waiting.confirmed = Some((position, at, limits)));
    }

    /// Whether it should be handed a whole set.
    pub(super) fn wants_whole(&self, now: Mono) -> bool {
        let broken = self.shared.lock().broken;
        broken.is_some_and(|since| since == Mono::default() || now.since(since) >= RETRY)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.hand(|waiting| waiting.stop = true);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand(&self, with: impl FnOnce(&mut Waiting)) {
        with(&mut self.lock());
        self.wake.notify_one();
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.revoked.is_empty() && self.whole.is_none() && self.lines.is_empty() && self.confirmed.is_none()
    }
}

impl Waiting {
    /// Nothing can be appended from here on.
    fn break_off(&mut self, at: Mono) {
        (self.lines, self.count) = (Vec::new(), 0);
        self.position = self.whole.as_ref().map(|(position, _)| position.clone());
        self.broken = Some(at);
    }
}

impl Writer {
    fn wants_whole(&self) -> bool {
        self.lines > 2 * self.live + SLACK
    }

    fn write(&mut self, work: Waiting) -> Result<(), ()> {
        let outcome = self.try_write(&work);
        match &outcome {
            Ok(()) => {
                if !self.say_usable(true) {
                    tracing::info!("the state folder can be used again");
                }
            }
            Err(error) => {
                self.file = None;
                if self.say_usable(false) {
                    let folder = self.folder.path().display();
                    tracing::error!(%folder, %error, "the key set cannot be kept; serving goes on, and a restart may forget");
                }
            }
        }
        outcome.map_err(drop)
    }

    /// Returns what was said before.
    fn say_usable(&self, usable: bool) -> bool {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut status.state_usable, usable)
    }

    fn try_write(&mut self, work: &Waiting) -> io::Result<()> {
        if self.revoked_again || !work.revoked.is_empty() {
            let kept = self.revoked.add(&work.revoked);
            self.revoked_again = kept.is_err();
            kept?;
        }
        if let Some((position, rows)) = &work.whole {
            let text = journal::render(&self.url, position, rows)?;
            self.file = None;
            self.file = Some(self.folder.replace(JOURNAL, &text)?);
            let (owners, keys) = rows.counts();
            (self.lines, self.live) = (0, owners + keys);
        }
        if !work.lines.is_empty() {
            let mut file = self.file.take().ok_or(io::ErrorKind::NotFound)?;
            file.write_all(&work.lines)?;
            file.sync_data()?;
            self.file = Some(file);
            self.lines += work.count;
        }
        // What went into a folder that is not there any more is gone, whenever that was.
        if let Err(gone) = self.folder.check() {
            self.durable.send_replace(None);
            return Err(gone);
        }
        if let Some(position) = &work.position
            && self.file.is_some()
        {
            self.durable.send_if_modified(|durable| {
                let new = durable.as_ref() != Some(position);
                if new {
                    *durable = Some(position.clone());
                }
                new
            });
        }
        if let Some((position, at, limits)) = &work.confirmed {
            let due = self.kept.is_none_or(|kept| clock::mono().since(kept) >= CONFIRMED_EVERY);
            let confirmed = Confirmed::new(&self.url, position, *at, *limits);
            if due && self.durable.borrow().as_ref().is_some_and(|durable| confirmed.is_of(durable)) {
                confirmed.write(&self.folder)?;
                self.kept = Some(clock::mono());
            }
        }
        Ok(())
    }
}
