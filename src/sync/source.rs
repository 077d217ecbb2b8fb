//! One look at the key file: read it if it changed, judge it, wait until it is whole, put it into force.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    file::{Event, Prepare, Reloaded, Report, Settings, Status},
    keyfile,
    state::{InForce, StateFolder, digest_of},
};
use crate::{
    clock::{self, Mono, Now, Wall},
    fault::Fault,
    keys::{
        KeyId, KeyStore, Revocations,
        document::{Care, Document, LastGood, Parser, Refused},
        store::Terms,
    },
    usage::Revoked,
};

/// How long a text without `[end]` must stay as it is before it is believed: it may be half written.
const SETTLE_OPEN: Duration = Duration::from_millis(200);
/// How long a text that is refused must stay as it is before that is said.
const SETTLE_REFUSED: Duration = Duration::from_millis(300);
/// A file whose times are this old cannot be changed again without its times showing it (coarse clocks, NFS).
const RACY: Duration = Duration::from_secs(2);
/// Beyond that, how often the content is read although nothing seems to have changed: only a file system that does not
/// keep its times needs it, and reading a large file costs.
const REREAD: Duration = Duration::from_secs(300);
/// How often the state folder is tried again when it could not be used.
const RETRY_STATE: Duration = Duration::from_secs(10);
/// Faults that are logged one by one; the others are counted.
const LOGGED: usize = 20;

/// What of a file's metadata changes when its content does.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Signature {
    identity: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Signature {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            identity: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// When the content or the name last changed.
    fn moment(&self) -> Wall {
        let (seconds, nanos) = self.changed.max(self.modified);
        Wall::from_unix_millis(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
    }
}

/// A text that is not in force, and may still be changing.
struct Pending {
    digest: String,
    since: Mono,
    verdict: Result<Document, Refused>,
    reported: bool,
}

/// A key file, and what is known of it. See [`watch`](super::file::watch).
pub struct FileSource {
    settings: Settings,
    store: Arc<KeyStore>,
    state: Option<Kept>,
    report: Report,
    prepare: Prepare,
    parser: Parser,
    last_good: Option<LastGood>,
    /// The digest of the text in force.
    in_force: Option<String>,
    pending: Option<Pending>,
    /// What the file looked like when it was last read, and when that was.
    seen: Option<(Signature, Now)>,
    /// What reading last failed with: said once, not at every look.
    unreadable: Option<(io::ErrorKind, Option<i32>)>,
    exposed: Option<&'static str>,
    /// What still has to go to the state folder.
    unsaved: Unsaved,
    status: Arc<Mutex<Status>>,
}

/// What is kept in the state folder.
struct Kept {
    folder: StateFolder,
    revoked: Revoked,
}

#[derive(Default)]
struct Unsaved {
    revoked: Revocations,
    /// Revoked ids that were handed over and could not be written.
    revoked_again: bool,
    text: bool,
    in_force: Option<InForce>,
    tried: Mono,
}

impl std::fmt::Debug for FileSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileSource").field("file", &self.settings.file).finish_non_exhaustive()
    }
}

impl FileSource {
    /// Opens the state folder and makes the store, which knows from the start which ids were ever revoked.
    pub fn new(settings: Settings, report: Report, prepare: Prepare) -> Self {
        let state = settings.state.as_ref().map(|folder| {
            let revoked = Revoked::open(folder);
            Kept { revoked, folder: StateFolder::from(folder.clone()) }
        });
        let revoked = state.as_ref().map(|state| state.revoked.all().clone()).unwrap_or_default();
        let mut source = Self {
            store: Arc::new(KeyStore::new(revoked)),
            state,
            report,
            prepare,
            parser: Parser::default(),
            last_good: None,
            in_force: None,
            pending: None,
            seen: None,
            unreadable: None,
            exposed: None,
            unsaved: Unsaved::default(),
            status: Arc::new(Mutex::new(Status { state_usable: true, ..Status::default() })),
            settings,
        };
        source.recall();
        source
    }

    /// The store that this source fills.
    pub fn store(&self) -> &Arc<KeyStore> {
        &self.store
    }

    /// The key file.
    pub fn file(&self) -> &Path {
        &self.settings.file
    }

    /// How the source is doing, also after it has gone to its thread.
    pub fn shared_status(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.status)
    }

    /// The first look, which waits for nothing: a file that is not good leaves the last good text of the state folder
    /// in force, and a file that is not there leaves no set at all.
    pub fn load(&mut self) {
        self.attempt(Care::Careful, Duration::ZERO, Duration::ZERO);
        self.save_state();
    }

    /// One look at the file, which reads it only if it may have changed.
    pub(super) fn look(&mut self) {
        let now = clock::now();
        if !self.is_as_seen(now.mono) {
            self.attempt(Care::Careful, SETTLE_OPEN, SETTLE_REFUSED);
        } else if self.pending.is_none() && self.in_force.is_some() {
            self.status(|status| status.last_success = Some(now.wall));
        }
        if self.unsaved.is_due() {
            self.save_state();
        }
        self.store.sweep(now);
    }

    /// Reads the file whatever it looks like, and takes what an operator asked for.
    pub(super) fn reload(&mut self, terms: Option<Terms>) -> Result<Reloaded, String> {
        // Rows mean something else under other terms: the text is to be applied even if it is the same.
        let before_terms =
            terms.map(|terms| (std::mem::replace(&mut self.settings.terms, terms), self.in_force.take()));
        // What was found too small or torn is judged anew.
        self.pending = None;
        let before = self.status(|status| status.applied);
        self.attempt(Care::Forced, Duration::ZERO, Duration::ZERO);
        self.save_state();
        let outcome = self.status(|status| match &status.fault {
            Some(fault) => Err(fault.clone()),
            None if status.applied > before => Ok(Reloaded::Applied),
            None => Ok(Reloaded::Unchanged),
        });
        // All or nothing: what is in force was read by the old terms, and so is what the file holds next.
        if let (Err(_), Some((terms, in_force))) = (&outcome, before_terms) {
            (self.settings.terms, self.in_force) = (terms, in_force);
        }
        outcome
    }

    /// Whether the file was found half written, or as it should not be, and is to be looked at again soon.
    pub(super) fn is_settling(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| !pending.reported)
    }

    fn status<T>(&self, with: impl FnOnce(&mut Status) -> T) -> T {
        with(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the state folder knows from before.
    fn recall(&mut self) {
        let Some(state) = &self.state else { return };
        match state.folder.last_good(&self.settings.file) {
            Ok(Some(text)) => match self.parser.parse(&text) {
                Ok(document) => self.last_good = Some(LastGood { document, text }),
                Err(refused) => self.state_failed("the last good key file is not good", &refused),
            },
            Ok(None) => {}
            Err(error) => self.state_failed("cannot read the last good key file", &error),
        }
    }

    /// Whether the file cannot have changed since it was read.
    fn is_as_seen(&self, now: Mono) -> bool {
        let Some((seen, at)) = &self.seen else { return false };
        let Ok(metadata) = keyfile::metadata(&self.settings.file) else { return false };
        // A change right after we read may have left all times as they were.
        let racy = at.wall.unix_millis() - seen.moment().unix_millis() < i64::try_from(RACY.as_millis()).unwrap_or(0);
        let recent = now.since(at.mono) < REREAD;
        !self.is_settling() && !racy && recent && Signature::of(&metadata) == *seen
    }

    fn attempt(&mut self, care: Care, settle_open: Duration, settle_refused: Duration) {
        let now = clock::now();
        // The times before the content: what changes in between shows as a change at the next look.
        let read = keyfile::metadata(&self.settings.file).and_then(|metadata| {
            let text = keyfile::read(&self.settings.file)?;
            Ok((Signature::of(&metadata), text))
        });
        match read {
            Ok((signature, text)) => {
                self.seen = Some((signature, now));
                self.unreadable = None;
                self.warn_if_exposed();
                let digest = digest_of(&text);
                if self.in_force.as_ref() == Some(&digest) {
                    return self.unchanged(now);
                }
                self.judge(&text, digest, care, now);
                self.settle(text, now, settle_open, settle_refused);
            }
            Err(error) => self.failed_to_read(&error),
        }
    }

    /// The file holds what is in force.
    fn unchanged(&mut self, now: Now) {
        self.pending = None;
        let recovered = self.status(|status| {
            status.last_success = Some(now.wall);
            status.fault.take().is_some()
        });
        if recovered {
            tracing::info!("the key file is again what is in force");
            (self.report)(&Event::Recovered);
        }
    }

    fn judge(&mut self, text: &[u8], digest: String, care: Care, now: Now) {
        if self.pending.as_ref().is_some_and(|pending| pending.digest == digest) {
            return;
        }
        let verdict = self.parser.parse(text).and_then(|document| {
            match &self.last_good {
                Some(last) => last.judge(&document, text, care)?,
                None => LastGood::judge_first(&document, care)?,
            }
            Ok(document)
        });
        self.pending = Some(Pending { digest, since: now.mono, verdict, reported: false });
    }

    fn settle(&mut self, text: Vec<u8>, now: Now, settle_open: Duration, settle_refused: Duration) {
        let Some(pending) = self.pending.take_if(|pending| !pending.reported) else { return };
        let needs = match &pending.verdict {
            // It says itself that it is whole.
            Ok(document) if document.end.is_some() => Duration::ZERO,
            Ok(_) => settle_open,
            Err(_) => settle_refused,
        };
        if now.mono.since(pending.since) < needs {
            self.pending = Some(pending);
            return;
        }
        match pending.verdict {
            Ok(document) => {
                let last_good = LastGood { document, text };
                self.in_force = Some(pending.digest);
                self.apply(&last_good, false);
                self.last_good = Some(last_good);
            }
            Err(refused) => {
                let stays = if self.store.load().is_some() { "the last good set stays" } else { "it is not used" };
                tracing::error!(
                    file = %self.settings.file.display(), why = refused.why.label(),
                    "the key file is refused, {stays}:\n{refused}"
                );
                self.failed(refused.to_string());
                (self.report)(&Event::Refused(&refused));
                self.pending = Some(Pending { verdict: Err(refused), reported: true, ..pending });
                self.fall_back();
            }
        }
    }

    fn failed(&self, fault: String) {
        self.status(|status| {
            status.failed += 1;
            status.fault = Some(fault);
        });
    }

    fn failed_to_read(&mut self, error: &io::Error) {
        self.seen = None;
        self.pending = None;
        let kind = (error.kind(), error.raw_os_error());
        if self.unreadable.replace(kind) != Some(kind) {
            let file = self.settings.file.display();
            if self.store.load().is_some() {
                tracing::error!(%file, %error, "the key file cannot be read; the last good set stays");
            } else {
                tracing::error!(%file, %error, "the key file cannot be read; it is used as soon as it can");
            }
            self.failed(format!("{file} cannot be read: {error}"));
            (self.report)(&Event::Unreadable(error));
        }
        // A file that is not there is an operator's word; one that cannot be read is an accident.
        if error.kind() != io::ErrorKind::NotFound {
            self.fall_back();
        }
    }

    /// Serves the last good text of the state folder if nothing is in force yet.
    fn fall_back(&mut self) {
        if self.store.load().is_some() {
            return;
        }
        if let Some(last_good) = self.last_good.take() {
            tracing::error!("serving the last good key set from the state folder");
            self.apply(&last_good, true);
            self.last_good = Some(last_good);
        }
    }

    fn apply(&mut self, last_good: &LastGood, from_state: bool) {
        let now = clock::now();
        let LastGood { document, text } = last_good;
        let first = self.store.load().is_none();
        let applied = self.store.apply_after(document, &self.settings.terms, now, |set| (self.prepare)(set));
        let changed = self.seen.map_or(now.wall, |(seen, _)| seen.moment());
        let latency = u64::try_from(clock::now().wall.unix_millis() - changed.unix_millis()).unwrap_or(0);
        let latency = (!first && !from_state).then(|| Duration::from_millis(latency));
        let faults = document.faults.len() + applied.faults.len();
        for fault in document.faults.iter().chain(&applied.faults).take(LOGGED) {
            self.log(fault);
        }
        if faults > LOGGED {
            tracing::warn!(faults, "more entries of the key file are wrong; keyside check shows all of them");
        }
        let aside = document.set_aside.iter().chain(&applied.set_aside);
        warn_of(aside, "these keys are not accepted, for their entries are wrong");
        warn_of(&applied.revived, "these keys were revoked and stay so, although their rows do not say it");
        tracing::info!(
            file = %self.settings.file.display(), revision = applied.revision, keys = applied.keys,
            owners = applied.owners, changed = applied.changed, removed = applied.removed,
            set_aside = document.quarantined + applied.set_aside.len(), "keys are in force"
        );
        self.status(|status| {
            status.revision = applied.revision;
            status.quarantined = document.quarantined + applied.set_aside.len();
            if !from_state {
                status.applied += 1;
                status.fault = None;
                status.last_success = Some(now.wall);
            }
        });
        // The state folder comes after: a revocation waits for no disk.
        self.unsaved.revoked.extend(applied.newly_revoked.iter().map(|(id, at)| (id.clone(), *at)));
        self.unsaved.text |= !from_state;
        self.unsaved.in_force = Some(InForce::of(text, applied.revision));
        (self.report)(&Event::Applied { applied: &applied, document, latency, from_state });
        self.unsaved.tried = Mono::default();
    }

    /// Writes what is new to the state folder. What cannot be written is tried again now and then.
    fn save_state(&mut self) {
        let Some(state) = &mut self.state else {
            self.unsaved = Unsaved::default();
            return;
        };
        let unsaved = &mut self.unsaved;
        unsaved.tried = clock::mono();
        // On the disk before anybody hears that it is in force: a revocation that was acknowledged survives a crash,
        // also when an older file lies there by then. If the disk fails, who waits is told all the same.
        let revoked = std::mem::take(&mut unsaved.revoked);
        let any = unsaved.revoked_again || !revoked.is_empty();
        let kept = if any { state.revoked.add(&revoked) } else { Ok(()) };
        unsaved.revoked_again = kept.is_err();
        if let Some(in_force) = &mut unsaved.in_force {
            in_force.durable = kept.is_ok();
            if let Err(error) = state.folder.set_in_force(in_force) {
                return self.state_failed("cannot say which keys are in force", &error);
            }
        }
        if let Err(error) = kept {
            return self.state_failed("cannot keep which keys are revoked", &error);
        }
        unsaved.in_force = None;
        if unsaved.text
            && let Some(LastGood { text, .. }) = &self.last_good
            && let Err(error) = state.folder.set_last_good(&self.settings.file, text)
        {
            return self.state_failed("cannot keep the last good key file", &error);
        }
        self.unsaved = Unsaved::default();
        if !self.status(|status| std::mem::replace(&mut status.state_usable, true)) {
            tracing::info!("the state folder can be used again");
            (self.report)(&Event::State { usable: true });
        }
    }

    /// One alarm, until it works again.
    fn state_failed(&mut self, what: &str, error: &dyn std::error::Error) {
        if self.status(|status| std::mem::replace(&mut status.state_usable, false)) {
            let folder = self.settings.state.as_ref().map_or(Path::new(""), |state| state.path()).display();
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            tracing::error!(%folder, "{what}: {error}{cause}; serving goes on, and a restart may forget");
            (self.report)(&Event::State { usable: false });
        }
    }

    fn log(&self, fault: &Fault) {
        let help = fault.suggestion.as_deref().unwrap_or_default();
        let (file, line, column) = (self.settings.file.display(), fault.line, fault.column);
        tracing::warn!(%file, line, column, help, "an entry of the key file is wrong: {}", fault.message);
    }

    fn warn_if_exposed(&mut self) {
        let exposed = keyfile::exposure(&self.settings.file);
        if let (Some(words), true) = (exposed, self.exposed != exposed) {
            tracing::warn!(file = %self.settings.file.display(), "{words}");
        }
        self.exposed = exposed;
    }
}

/// One line, however many keys it is about.
fn warn_of<'k>(keys: impl IntoIterator<Item = &'k KeyId>, what: &str) {
    let ids: Vec<&str> = keys.into_iter().map(KeyId::as_str).collect();
    if !ids.is_empty() {
        tracing::warn!(count = ids.len(), key.ids = ids[..ids.len().min(LOGGED)].join(" "), "{what}");
    }
}

impl Unsaved {
    fn is_due(&self) -> bool {
        let any = self.text || self.in_force.is_some() || self.revoked_again || !self.revoked.is_empty();
        // Fresh things at once, failed ones again after a while.
        any && (self.tried == Mono::default() || clock::mono().since(self.tried) >= RETRY_STATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reading and hashing a large file again and again, only to find it as it was, would cost more than serving.
    #[test]
    fn a_file_that_looks_the_same_is_hardly_ever_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.toml");
        fs::write(&file, "").unwrap();
        let settings = Settings { file: file.clone(), state: None, terms: Terms::default() };
        let mut source = FileSource::new(settings, Box::new(|_| {}), Box::new(|_| {}));
        source.load();
        let (signature, at) = source.seen.unwrap();
        let read_after =
            |source: &FileSource, passed: u64| !source.is_as_seen(at.mono.plus(Duration::from_secs(passed)));
        assert!(read_after(&source, 0), "a change right after the first reading may not show");
        source.seen = Some((signature, Now { wall: at.wall.plus(RACY), ..at }));
        assert_eq!([0, 10, 60, 3600].map(|passed| read_after(&source, passed)), [false, false, false, true]);
        fs::write(&file, "#").unwrap();
        assert!(read_after(&source, 0));
    }
}
