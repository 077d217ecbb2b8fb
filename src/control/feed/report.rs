//! What sidecars report: which revision they have in force, and how keys were used.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{MOST_DIGEST, instance};
use crate::{
    clock::{self, Wall},
    control::{
        answer::Problem,
        desk::Desk,
        front::Peer,
        store::{Added, Claim, Refusal, Usage, Used},
        usage::day,
    },
    keys::KeyId,
    rejection,
};

/// A sidecar whose clock is ahead by more than this is not believed.
const AHEAD: Duration = Duration::from_secs(60);
/// The most keys in one report.
const MOST_KEYS: usize = 50_000;

/// A report. Fields that are not known are of a later version, and say nothing to us.
#[derive(Debug, Deserialize)]
struct Report {
    instance: String,
    epoch: String,
    revision: Option<u64>,
    /// Where it is said, it must be the one of the revision.
    digest: Option<String>,
    #[serde(default)]
    durable: bool,
    #[serde(default)]
    goodbye: bool,
    seq: Option<u64>,
    #[serde(default)]
    usage: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    key: String,
    last_used_at: Option<jiff::Timestamp>,
    last_ip: Option<IpAddr>,
    #[serde(default)]
    allowed: u64,
    #[serde(default)]
    refused: u64,
    #[serde(default)]
    refusals: HashMap<String, u64>,
    last_refusal: Option<LastRefusal>,
}

#[derive(Debug, Deserialize)]
struct LastRefusal {
    reason: String,
    at: jiff::Timestamp,
    ip: Option<IpAddr>,
}

/// Takes a report. It is answered once its use is in the store; an acknowledgement counts before.
///
/// # Errors
///
/// It says what cannot be, or the store failed; then its use is not counted, and it may be sent again.
pub(super) async fn take(
    desk: &Arc<Desk>,
    headers: &HeaderMap,
    credential: String,
    peer: Peer,
    body: &[u8],
) -> Result<Value, Problem> {
    let report: Report = serde_json::from_slice(body)
        .map_err(|error| Problem::invalid("body", format!("This is no report: {error}")))?;
    let claim = instance::claim(headers, report.instance.clone(), credential)?;
    check(&report)?;
    desk.ledger.holds()?;
    let known = desk.fleet.has(&report.instance).await;
    if !desk.fleet.is_theirs(&claim) {
        return Err(instance::not_theirs(desk, &claim, peer));
    }
    let revision = acknowledged(desk, &report).await?;
    let told = revision.map(|revision| (report.epoch.as_str(), revision));
    desk.fleet.heard(&report.instance, told, report.durable, report.goodbye);
    if let Some(seq) = report.seq {
        count(desk, &claim, peer, seq, report.usage).await?;
    }
    let head = desk.ledger.read(|image| image.head().revision);
    Ok(json!({ "acknowledged": revision.filter(|_| known), "revision": head }))
}

fn check(report: &Report) -> Result<(), Problem> {
    if report.epoch.len() > MOST_DIGEST {
        return Err(Problem::invalid("epoch", "An epoch has at most 128 characters."));
    }
    if report.usage.len() > MOST_KEYS {
        return Err(Problem::invalid("usage", format!("At most {MOST_KEYS} keys in one report.")));
    }
    if report.seq.is_none() && !report.usage.is_empty() {
        return Err(Problem::invalid("seq", "Use without a number could be counted twice."));
    }
    if report.seq.is_some_and(|seq| i64::try_from(seq).is_err()) {
        return Err(Problem::invalid("seq", "This number is too large."));
    }
    Ok(())
}

/// The revision that a report acknowledges: none when it is of another history than ours.
async fn acknowledged(desk: &Arc<Desk>, report: &Report) -> Result<Option<u64>, Problem> {
    let Some(revision) = report.revision else { return Ok(None) };
    let head = || desk.ledger.read(|image| (image.head().epoch == report.epoch, image.head().revision));
    let (mut same, mut newest) = head();
    if same && revision > newest {
        // Another control plane may have told it.
        desk.ledger.refresh().await?;
        (same, newest) = head();
    }
    if !same {
        return Ok(None);
    }
    if revision > newest {
        let message = format!("There is no revision {revision}: the newest is {newest}.");
        return Err(Problem::invalid("revision", message));
    }
    // What is too long ago to be checked is no newer than what was acknowledged before.
    let fits = |digest: &String| desk.ledger.read(|image| image.since(revision, digest)).is_some();
    Ok(Some(revision).filter(|_| report.digest.as_ref().is_none_or(fits)))
}

async fn count(desk: &Arc<Desk>, claim: &Claim, peer: Peer, seq: u64, usage: Vec<Entry>) -> Result<(), Problem> {
    let now = clock::now().wall;
    let mut used = Vec::with_capacity(usage.len());
    for entry in usage {
        let id: KeyId = entry.key.parse().map_err(|why| Problem::invalid("usage", format!("A key's id {why}")))?;
        // A key that was purged meanwhile, or never was.
        if desk.ledger.read(|image| image.keys().contains_key(&id)) {
            used.push(Used { key: id, usage: entry.usage(now) });
        }
    }
    let (store, who) = (Arc::clone(desk.ledger.store()), claim.clone());
    match desk.ledger.run(async move { store.used(&who, seq, day(now), &used).await }).await? {
        Added::Now => desk.usage.reported(),
        Added::Before => {}
        Added::NotTheirs => return Err(instance::not_theirs(desk, claim, peer)),
        Added::Unknown => {
            let message = "Nobody has registered by this name: take the set of keys first.";
            return Err(Problem::new(StatusCode::CONFLICT, "not_registered", message));
        }
        Added::Ahead => return Err(Problem::invalid("seq", "This number is far ahead of the last one.")),
    }
    Ok(())
}

impl Entry {
    fn usage(self, now: Wall) -> Usage {
        let not_ahead = |at: jiff::Timestamp| match Wall::from(at) {
            at if at <= now.plus(AHEAD) => at,
            _ => now,
        };
        let last = self.last_refusal.as_ref();
        let mut refusals: Vec<Refusal> = self
            .refusals
            .into_iter()
            // Others are of a later version.
            .filter(|(reason, count)| *count > 0 && rejection::TABLE.iter().any(|row| row.label == reason))
            .map(|(reason, count)| match last.filter(|last| last.reason == reason) {
                Some(last) => Refusal { reason, at: not_ahead(last.at), ip: last.ip, count },
                // Before the last one of all; nobody says when.
                None => Refusal { reason, at: last.map_or(now, |last| not_ahead(last.at)), ip: None, count },
            })
            .collect();
        refusals.sort_by(|one, other| one.reason.cmp(&other.reason));
        Usage {
            last_used_at: self.last_used_at.map(not_ahead),
            last_ip: self.last_ip,
            allowed: self.allowed,
            refused: self.refused,
            refusals,
        }
    }
}
