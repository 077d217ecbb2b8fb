//! The keys that strings are compared with.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use super::{
    super::{
        console::{Console, Failure},
        place::Place,
    },
    find::{Finding, What},
    there::There,
};
use crate::keys::{
    KeyRecord, KeyStore, Kind,
    document::Document,
    format::is_random,
    leak::Candidate,
    mint,
    record::PublicPart,
    secret::{Memory, Secret},
    set::KeySet,
    store::Terms,
};

/// How many slow hashes one text may cost, but for those of the first consumer secret: some ten seconds. More
/// strings like keys than that are a dump of something, or an attempt to keep somebody busy.
const MOST_SLOW_HASHES: usize = 500;

/// The keys to compare with.
pub(super) struct Known {
    pub(super) document: Document,
    set: Arc<KeySet>,
    proof: Proof,
    slow_hashes: AtomicUsize,
}

/// What proves that a string is a secret.
enum Proof {
    /// The hashes of the key file, with this pepper.
    Here(Option<Secret>),
    /// The control plane, which has them.
    There(Box<There>),
}

impl Known {
    pub(super) fn load(place: &Place, console: &mut Console<'_>) -> Result<Self, Failure> {
        let document = place.recall(place.read()?, console);
        let terms = Terms { mint: place.mint.clone(), pepper: place.pepper.clone() };
        Ok(Self::of(document, &terms, Proof::Here(place.pepper.clone()), console))
    }

    /// The keys of a control plane: their public parts are looked at here, and only what comes near one is sent there.
    pub(super) fn of_control(there: There, console: &Console<'_>) -> Result<Self, Failure> {
        let document = there.keys(console)?;
        // The hashes are of nothing. One that needs a pepper is set aside without one.
        let pepper = Some(Secret::new(&[0; 32]));
        Ok(Self::of(
            document,
            &Terms { mint: mint::Settings::default(), pepper },
            Proof::There(Box::new(there)),
            console,
        ))
    }

    fn of(document: Document, terms: &Terms, proof: Proof, console: &Console<'_>) -> Self {
        let store = KeyStore::new(Vec::new());
        store.apply(&document, terms, console.now);
        let set = store.load().clone().unwrap_or_default();
        Self { document, set, proof, slow_hashes: AtomicUsize::new(0) }
    }

    /// Whether something that looks like a key was not compared, because too much did.
    pub(super) fn gave_up(&self) -> bool {
        let there = matches!(&self.proof, Proof::There(there) if there.gave_up());
        there || self.slow_hashes.load(Ordering::Relaxed) > MOST_SLOW_HASHES
    }

    /// Why the control plane could not be asked to the end.
    pub(super) fn failure(&self) -> Option<Failure> {
        match &self.proof {
            Proof::Here(_) => None,
            Proof::There(there) => there.failure(),
        }
    }

    /// Whether this is the secret of the key, by its hash.
    pub(super) fn proves(&self, key: &KeyRecord, secret: &str) -> bool {
        let pepper = match &self.proof {
            Proof::Here(pepper) => pepper.as_ref(),
            Proof::There(there) => return there.proves(&key.id, secret),
        };
        if key.hash.algorithm().is_slow() && self.slow_hashes.fetch_add(1, Ordering::Relaxed) >= MOST_SLOW_HASHES {
            return false;
        }
        key.hash.check(&Secret::new(secret.as_bytes()), pepper, &mut Memory::default())
    }

    /// A consumer secret names no key, so it is tried against every pair: those whose consumer key stands beside it
    /// first. Slow hashes take their time, on all cores.
    pub(super) fn try_consumer_secrets(&self, findings: &mut [Finding], console: &mut Console<'_>) {
        let unknown = |finding: &&mut Finding| finding.what == What::ConsumerSecret && !finding.verified;
        let pepper = match &self.proof {
            Proof::Here(pepper) => pepper.as_ref(),
            Proof::There(there) => {
                for finding in findings.iter_mut().filter(unknown) {
                    let whose = there.whose(&finding.text).and_then(|id| self.set.by_id(&id).cloned());
                    finding.verified = whose.is_some();
                    finding.key = whose;
                }
                return;
            }
        };
        let beside: HashSet<_> = findings.iter().filter_map(|finding| Some(finding.key.as_ref()?.id.clone())).collect();
        let mut pairs: Vec<_> = self.set.keys().filter(|key| key.kind == Kind::Pair).collect();
        pairs.sort_by_key(|key| (!beside.contains(&key.id), key.revoked_at.is_some(), key.id.clone()));
        let slow = pairs.iter().filter(|key| key.hash.algorithm().is_slow()).count();
        let secrets = findings.iter_mut().filter(unknown);
        for (index, finding) in secrets.enumerate() {
            // The first one is tried to the end, however many keys there are.
            if index > 0 && self.slow_hashes.fetch_add(slow, Ordering::Relaxed) >= MOST_SLOW_HASHES {
                break;
            }
            if index == 0 && slow > 500 {
                console.say(format_args!("Comparing a consumer secret with {slow} slow hashes …"));
            }
            if let Some(key) = whose(&finding.text, &pairs, pepper) {
                finding.key = Some(key);
                finding.verified = true;
            }
        }
    }

    /// The pair of this consumer key. A name that somebody chose may stand in any text, and means nothing there.
    pub(super) fn pair(&self, candidate: &Candidate<'_>) -> Option<Arc<KeyRecord>> {
        let may_be_name = candidate.whole || candidate.password.is_some();
        let key = self.set.find_pair(candidate.text.as_bytes())?;
        (may_be_name || is_random(candidate.text.as_bytes())).then(|| Arc::clone(key))
    }

    /// The token that this is or begins like, and whether its hash proves it.
    pub(super) fn token(&self, text: &str) -> Option<(Arc<KeyRecord>, bool)> {
        let mut begins = None;
        for key in self.set.find_token(text.as_bytes()) {
            if !is_public_part(key, text) && self.proves(key, text) {
                return Some((Arc::clone(key), true));
            }
            begins.get_or_insert_with(|| (Arc::clone(key), false));
        }
        begins
    }
}

/// The key whose secret it is, by its hash.
fn whose(secret: &str, keys: &[&Arc<KeyRecord>], pepper: Option<&Secret>) -> Option<Arc<KeyRecord>> {
    let secret = Secret::new(secret.as_bytes());
    let (next, found) = (AtomicUsize::new(0), AtomicBool::new(false));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(keys.len());
    std::thread::scope(|scope| {
        let search = || {
            let mut memory = Memory::default();
            while let Some(key) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
                if found.load(Ordering::Relaxed) {
                    return None;
                }
                if key.hash.check(&secret, pepper, &mut memory) {
                    found.store(true, Ordering::Relaxed);
                    return Some(Arc::clone(key));
                }
            }
            None
        };
        let searching: Vec<_> = (0..threads).map(|_| scope.spawn(search)).collect();
        searching.into_iter().filter_map(|thread| thread.join().ok().flatten()).next()
    })
}

/// Whether this is what may be shown of the key.
pub(super) fn is_public_part(key: &KeyRecord, text: &str) -> bool {
    matches!(&key.public, PublicPart::Clear(public) if **public == *text)
}
