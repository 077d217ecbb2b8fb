//! The last good set on disk: the lines of a whole set and the changes that came after it, each behind its checksum.
//!
//! What follows the last line break was being written when the process died, and is no fault. Anything else that is not
//! as it was written is: then nothing of the file is believed.

use std::{io, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Limits,
    protocol::{Change, Position, StreamLine, stream_line},
    rows::{Gathering, Rows, Whole},
};
use crate::{
    client::Url,
    clock::{Boot, Moment, Wall},
    keys::{
        document::json::{write_key, write_owner},
        store::Changes,
    },
    usage::Folder,
};

/// The file in the state folder.
pub const JOURNAL: &str = "keys.journal";
const CONFIRMED: &str = "confirmed";
const FORMAT: &str = "keyside-keys";

/// How far a wall clock may lie behind what is on the disk and count as the same moment.
const SLACK_MS: i64 = 60_000;

/// The first line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    /// The endpoint that it came from: it says nothing of another one's keys.
    url: String,
}

fn header(url: &Url) -> Header {
    Header { format: FORMAT.to_owned(), version: 1, url: url.to_string() }
}

/// Puts a line behind its checksum.
pub(super) fn put(text: &mut Vec<u8>, line: &[u8]) {
    text.extend_from_slice(format!("{:08x} ", crc32fast::hash(line)).as_bytes());
    text.extend_from_slice(line);
    text.push(b'\n');
}

/// A whole journal: a set, and no changes.
pub(super) fn render(url: &Url, position: &Position, rows: &Rows) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut add = |value: &Value| -> io::Result<()> {
        put(&mut text, &serde_json::to_vec(value)?);
        Ok(())
    };
    add(&serde_json::to_value(header(url))?)?;
    add(&json!({"epoch": position.epoch, "revision": position.revision, "digest": position.digest}))?;
    for (id, row) in rows.owners() {
        // What cannot be accepted is written so that it cannot be accepted when it is read, either.
        let bad = || json!({"id": id.as_str(), "kyc": "unreadable"});
        add(&json!({"owner": row.map_or_else(bad, |row| write_owner(row))}))?;
    }
    for (id, row) in rows.keys() {
        add(&json!({"key": row.map_or_else(|| json!({"id": id.as_str()}), |row| write_key(row))}))?;
    }
    let (owners, keys) = rows.counts();
    add(&json!({"end": true, "owners": owners, "keys": keys}))?;
    Ok(text)
}

/// Reads what was kept of this endpoint; none where nothing was. A file that is damaged is set aside.
pub(super) fn read(folder: &Folder, url: &Url) -> Option<Whole> {
    let fault = match look(folder, url) {
        Ok(whole) => return whole,
        Err(fault) => fault,
    };
    let aside = folder.set_aside(JOURNAL);
    let aside = aside.map_or_else(|error| error.to_string(), |path| path.display().to_string());
    tracing::error!(
        file.path = %folder.file(JOURNAL).display(), fault, file.kept_as = aside,
        "the kept key set is damaged; it is set aside, and no keys are served until the control endpoint has answered"
    );
    None
}

/// As [`read`], for whoever only looks: a file that is damaged is left where it is.
pub(super) fn look(folder: &Folder, url: &Url) -> Result<Option<Whole>, String> {
    match folder.read(JOURNAL) {
        Ok(Some(text)) => parse(&text, url),
        Ok(None) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn parse(text: &[u8], url: &Url) -> Result<Option<Whole>, String> {
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut lines = text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(checked);
    let first = lines.next().ok_or("it has no first line")??;
    let found: Header = serde_json::from_slice(first).map_err(|_| "line 1 is no header")?;
    if (found.format.as_str(), found.version) != (FORMAT, 1) {
        return Err(format!("it is {} version {}", found.format, found.version));
    }
    if found.url != url.to_string() {
        return Ok(None);
    }
    let mut gathering = Gathering::default();
    while !gathering.has_ended() {
        gathering.line(lines.next().ok_or("its set has no end")??)?;
    }
    let mut whole = gathering.finish()?;
    let mut open: Vec<Change> = Vec::new();
    for line in lines {
        let StreamLine::Change(change) = stream_line(line?)? else { return Err("a heartbeat".to_owned()) };
        if change.revision < whole.position.revision || open.iter().any(|other| other.revision != change.revision) {
            return Err(format!("revision {} where it cannot be", change.revision));
        }
        let last = !change.more;
        let (revision, digest) = (change.revision, change.digest.clone());
        open.push(change);
        if last {
            (whole.position.revision, whole.position.digest) = (revision, digest);
            for change in open.drain(..) {
                follow(&mut whole, change)?;
            }
        }
    }
    // A transaction that was not written to its end never was, but nobody it revoked comes back.
    for cut in open.iter().filter_map(|change| whole.rows.cut_off(change)) {
        whole.revoked.extend(cut.revoked);
    }
    Ok(Some(whole))
}

fn follow(whole: &mut Whole, change: Change) -> Result<(), String> {
    let mut changes = Changes::default();
    whole.rows.change(change, &mut changes)?;
    whole.revoked.append(&mut changes.revoked);
    Ok(())
}

fn checked(line: &[u8]) -> Result<&[u8], String> {
    let (sum, text) = line.split_at_checked(9).ok_or("a line without a checksum")?;
    let sum = sum.strip_suffix(b" ").and_then(|sum| std::str::from_utf8(sum).ok());
    let sum = sum.and_then(|sum| u32::from_str_radix(sum, 16).ok());
    if sum == Some(crc32fast::hash(text)) { Ok(text) } else { Err("a line that is not as it was written".to_owned()) }
}

/// When the endpoint last said that this is its newest, as it is kept on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Confirmed {
    url: String,
    epoch: Box<str>,
    revision: u64,
    /// By the wall clock, in milliseconds.
    at: i64,
    /// By the clock of the machine, and which start of it that was.
    boot_id: String,
    boot: u64,
    /// For how long the endpoint knew that this set is served, in milliseconds: reads, and all else.
    #[serde(default)]
    limits: Option<[u64; 2]>,
}

impl Confirmed {
    pub(super) fn new(url: &Url, position: &Position, at: Moment, limits: Limits) -> Self {
        let millis = |limit: Duration| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        Self {
            url: url.to_string(),
            epoch: position.epoch.clone(),
            revision: position.revision,
            at: at.now.wall.unix_millis(),
            boot_id: boot_id(),
            boot: at.boot.as_nanos(),
            limits: Some([millis(limits.reads), millis(limits.writes)]),
        }
    }

    /// For how long the endpoint knew that this set is served; `otherwise` where that was not noted.
    pub(super) fn limits(&self, otherwise: Limits) -> Limits {
        let limits = |[reads, writes]: [u64; 2]| Limits {
            reads: Duration::from_millis(reads),
            writes: Duration::from_millis(writes),
        };
        self.limits.map_or(otherwise, limits)
    }

    pub(super) fn is_of(&self, position: &Position) -> bool {
        self.epoch == position.epoch && self.revision == position.revision
    }

    pub(super) fn write(&self, folder: &Folder) -> io::Result<()> {
        folder.write(CONFIRMED, &serde_json::to_vec(self)?)
    }

    /// Since when the set that was read is as old as it is; none where that cannot be known.
    pub(super) fn read(folder: &Folder, url: &Url, position: &Position) -> Option<Self> {
        let text = folder.read(CONFIRMED).ok()??;
        let confirmed: Self = serde_json::from_slice(&text).ok()?;
        let is_older = confirmed.revision <= position.revision && confirmed.epoch == position.epoch;
        (confirmed.url == url.to_string() && is_older).then_some(confirmed)
    }

    /// When it was, by the wall clock.
    pub(super) fn at(&self) -> Wall {
        Wall::from_unix_millis(self.at)
    }

    /// The moment, by the clocks of this process: whichever clock makes it older counts. None where no clock can tell,
    /// since the wall clock was set back and the machine started anew.
    pub(super) fn moment(&self, now: Moment) -> Option<Moment> {
        let same_start = self.boot_id == boot_id() && !self.boot_id.is_empty();
        let by_wall = now.now.wall.unix_millis().saturating_sub(self.at);
        let by_boot = same_start.then(|| now.boot.as_nanos().saturating_sub(self.boot));
        if by_boot.is_none() && by_wall < -SLACK_MS {
            return None;
        }
        let by_wall = u64::try_from(by_wall).unwrap_or(0).saturating_mul(1_000_000);
        let age = by_boot.unwrap_or(0).max(by_wall);
        Some(Moment {
            now: crate::clock::Now {
                mono: crate::clock::Mono::from_nanos(now.now.mono.as_nanos().saturating_sub(age)),
                wall: Wall::from_unix_millis(self.at),
            },
            boot: Boot::from_nanos(now.boot.as_nanos().saturating_sub(age)),
        })
    }
}

/// Which start of the machine this is; empty where it does not say.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}
