//! Stages 5 and 6: from a credential to a verified key.
//!
//! The cheap way comes first and is the usual one: a key whose secret was verified here before costs a lookup and a
//! short keyed hash. Everything else is charged to the address, and after every wait the key is looked up anew.

use std::{cell::RefCell, net::IpAddr, sync::Arc};

use super::{Shared, live::Live, record::Record};
use crate::{
    clock::{self, Mono, Now, Wall},
    credential::{Credential, Presented},
    keys::{
        KeyRecord, KeySet, Kind, Purpose,
        record::Standing,
        secret::Secret,
        verify::{Decoy, Verdict},
    },
    limits::{AddressHandle, Exceeded, Failures},
    policy::Identity,
    rejection::{Reason, Rejection},
};

/// What a lookup came to, with no hold on the set it was made in.
enum Lookup {
    /// Verified before, and in good standing.
    Known(Arc<KeyRecord>),
    /// In good standing; its secret is still to be verified. Behind it others that may as well be meant: tokens made
    /// elsewhere can begin alike.
    Candidate(Arc<KeyRecord>, Vec<Arc<KeyRecord>>),
    /// There is such a key, but it may not be used.
    Barred(Arc<KeyRecord>, Reason),
    /// There is no such key.
    Unknown(Option<Decoy>),
}

/// Keys that nobody has confirmed for too long let nobody in: what was revoked since is not known.
pub(super) fn check_freshness(shared: &Shared, purpose: Purpose, now: Now) -> Result<(), Rejection> {
    if !shared.keys.freshness().is_over(purpose, now) {
        return Ok(());
    }
    let note = match purpose {
        Purpose::Read => "the keys are older than keys.max_stale",
        Purpose::Write => "the keys are older than keys.max_stale_write",
    };
    Err(Rejection::from(Reason::KeysUnavailable).retry_after(5).note(note))
}

/// The caller, if their secret was verified here before, is machine-made, and the key is in good standing; refused at
/// once, if there is no such key and nothing needs to look as if there were. These are the usual cases, and wait for
/// nothing; in any other, the caller is still to be authenticated. `kept` is what the connection keeps of the address.
///
/// # Errors
///
/// There is no key set, or no such key.
pub(super) fn recognise(
    shared: &Shared,
    live: &Live,
    client: IpAddr,
    presented: &Presented,
    kept: Option<&RefCell<AddressHandle>>,
    record: &mut Record,
) -> Result<Option<Identity>, Rejection> {
    let set = shared.keys.load();
    let Some(set) = set.as_ref() else { return Err(Rejection::from(Reason::KeysUnavailable).retry_after(5)) };
    let secret = presented.credential.secret();
    let mut exists = false;
    let mut is_known = |found: &&Arc<KeyRecord>| {
        exists = true;
        found.machine_made
            && found.standing(record.began().wall) == Standing::Active
            && !found.is_dead()
            && shared.verifier.is_known(found, secret)
    };
    let known = match &presented.credential {
        Credential::Pair { key, .. } => set.find_pair(key.expose()).filter(&mut is_known),
        Credential::Token(token) => set.find_token(token.expose()).find(&mut is_known),
    };
    if let Some(known) = known {
        record.set_key(known);
        return Ok(Some(Identity::verified(Arc::clone(known))));
    }
    if !exists && decoy(set, &presented.credential).is_none() {
        let charged = charge_failure(shared, live, client, kept, record.began().mono);
        return Err(charged.map_or_else(Rejection::from, |()| Reason::UnknownKey.into()));
    }
    Ok(None)
}

/// Charges a failure that took no work to the address, if it may still fail.
pub(super) fn charge_failure(
    shared: &Shared,
    live: &Live,
    client: IpAddr,
    kept: Option<&RefCell<AddressHandle>>,
    now: Mono,
) -> Result<(), Exceeded> {
    match kept {
        Some(kept) => shared.limiter.fail(&mut kept.borrow_mut(), &live.limits, client, now),
        None => shared.limiter.fail(&mut AddressHandle::default(), &live.limits, client, now),
    }
}

/// What an unknown key has to cost.
fn decoy(set: &KeySet, credential: &Credential) -> Option<Decoy> {
    match credential {
        Credential::Pair { key, .. } => set.decoy(Kind::Pair, key.expose()),
        Credential::Token(token) => set.decoy(Kind::Token, token.expose()),
    }
}

/// Finds the key of a credential and verifies its secret.
pub(super) async fn authenticate(
    shared: &Shared,
    live: &Live,
    client: IpAddr,
    presented: &Presented,
    record: &mut Record,
) -> Result<Identity, Rejection> {
    let mut wall = record.began().wall;
    loop {
        let lookup = {
            let set = shared.keys.load();
            let Some(set) = set.as_ref() else { return Err(Rejection::from(Reason::KeysUnavailable).retry_after(5)) };
            look_up(shared, set, &presented.credential, wall)
        };
        let charge = || Failures::new(Arc::clone(&shared.limiter), Arc::clone(&live.limits), client);
        // With the failures of the address used up, only who was verified here before, with a secret that nobody can
        // guess, is looked at.
        if !matches!(&lookup, Lookup::Known(known) if known.machine_made)
            && let Some(exceeded) = shared.limiter.failures_exhausted(&live.limits, client, record.began().mono)
        {
            return Err(exceeded.into());
        }
        let secret = presented.credential.secret();
        let (key, verdict) = match lookup {
            Lookup::Known(known) => {
                record.set_key(&known);
                return Ok(Identity::verified(known));
            }
            Lookup::Unknown(decoy) => {
                let verdict = shared.verifier.refuse(decoy, secret, charge()).await;
                return Err(refusal(verdict, Reason::UnknownKey));
            }
            Lookup::Barred(barred, reason) => {
                record.set_key(&barred);
                let verdict = shared.verifier.refuse(Decoy::of(&barred), secret, charge()).await;
                return Err(refusal(verdict, reason));
            }
            Lookup::Candidate(key, _) if presented.padded && key.machine_made => {
                record.set_key(&key);
                return Err(judge_padded(shared, live, client, &key, secret, charge(), record).await);
            }
            Lookup::Candidate(mut key, others) => {
                // Only who has tried all in vain has failed, and that once.
                let charge_if = |last: bool| if last { charge() } else { charge().free() };
                let mut left = others.len();
                let mut verdict = shared.verifier.verify(&key, secret, charge_if(left == 0)).await;
                for other in others {
                    if !matches!(verdict, Verdict::Wrong) {
                        break;
                    }
                    left -= 1;
                    key = other;
                    verdict = shared.verifier.verify(&key, secret, charge_if(left == 0)).await;
                }
                (key, verdict)
            }
        };
        record.set_key(&key);
        match verdict {
            // It may have been revoked or changed meanwhile: what was verified then is void, and all starts over.
            Verdict::Right if shared.keys.is_current(&key) => {
                return Ok(Identity::verified(key));
            }
            Verdict::Right => wall = clock::now().wall,
            verdict => return Err(refusal(verdict, Reason::WrongSecret)),
        }
    }
}

/// A secret with white space around it is wrong. Whether the one without would be right is for the operator's log.
async fn judge_padded(
    shared: &Shared,
    live: &Live,
    client: IpAddr,
    key: &Arc<KeyRecord>,
    secret: &Secret,
    charge: Failures,
    record: &mut Record,
) -> Rejection {
    let trimmed = Secret::new(secret.expose().trim_ascii());
    match shared.verifier.verify(key, &trimmed, charge).await {
        Verdict::Right => {
            shared.limiter.charge_failure(&live.limits, client, clock::mono());
            record.note("white space around the secret; without it the secret would be right");
            Reason::WrongSecret.into()
        }
        verdict => refusal(verdict, Reason::WrongSecret),
    }
}

fn look_up(shared: &Shared, set: &KeySet, credential: &Credential, wall: Wall) -> Lookup {
    match credential {
        Credential::Pair { key, secret } => match set.find_pair(key.expose()) {
            Some(found) => judge(shared, found, secret, wall),
            None => Lookup::Unknown(decoy(set, credential)),
        },
        Credential::Token(token) => {
            let mut best = None;
            for found in set.find_token(token.expose()) {
                match (judge(shared, found, token, wall), &mut best) {
                    (known @ Lookup::Known(_), _) => return known,
                    (Lookup::Candidate(key, _), Some(Lookup::Candidate(_, others))) => others.push(key),
                    (candidate @ Lookup::Candidate(..), _) => best = Some(candidate),
                    (barred, None) => best = Some(barred),
                    (_, Some(_)) => {}
                }
            }
            best.unwrap_or_else(|| Lookup::Unknown(decoy(set, credential)))
        }
    }
}

fn judge(shared: &Shared, found: &Arc<KeyRecord>, secret: &Secret, wall: Wall) -> Lookup {
    let barred = match found.standing(wall) {
        Standing::Active if found.is_dead() => Reason::Revoked,
        Standing::Active if shared.verifier.is_known(found, secret) => return Lookup::Known(Arc::clone(found)),
        Standing::Active => return Lookup::Candidate(Arc::clone(found), Vec::new()),
        Standing::Revoked => Reason::Revoked,
        Standing::Expired => Reason::Expired,
        Standing::Suspended => Reason::OwnerSuspended,
    };
    Lookup::Barred(Arc::clone(found), barred)
}

fn refusal(verdict: Verdict, reason: Reason) -> Rejection {
    match verdict {
        Verdict::Right | Verdict::Wrong => reason.into(),
        Verdict::Overloaded => Rejection::from(Reason::Overloaded).retry_after(1),
        Verdict::FailureLimit(exceeded) => exceeded.into(),
    }
}
