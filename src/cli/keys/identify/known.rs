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
};
use crate::keys::{
    KeyRecord, KeyStore, Kind,
    document::Document,
    format::is_random,
    leak::Candidate,
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
    pepper: Option<Secret>,
    slow_hashes: AtomicUsize,
}

impl Known {
    pub(super) fn load(place: &Place, console: &mut Console<'_>) -> Result<Self, Failure> {
        let document = place.recall(place.read()?, console);
        let store = KeyStore::new(Vec::new());
        let terms = Terms { mint: place.mint.clone(), pepper: place.pepper.clone() };
        store.apply(&document, &terms, console.now);
        let set = store.load().clone().unwrap_or_default();
        Ok(Self { document, set, pepper: place.pepper.clone(), slow_hashes: AtomicUsize::new(0) })
    }

    /// Whether something that looks like a key was not compared, because too much did.
    pub(super) fn gave_up(&self) -> bool {
        self.slow_hashes.load(Ordering::Relaxed) > MOST_SLOW_HASHES
    }

    /// Whether this is the secret of the key, by its hash.
    pub(super) fn proves(&self, key: &KeyRecord, secret: &str) -> bool {
        if key.hash.algorithm().is_slow() && self.slow_hashes.fetch_add(1, Ordering::Relaxed) >= MOST_SLOW_HASHES {
            return false;
        }
        key.hash.check(&Secret::new(secret.as_bytes()), self.pepper.as_ref(), &mut Memory::default())
    }

    /// A consumer secret names no key, so it is tried against every pair: those whose consumer key stands beside it
    /// first. Slow hashes take their time, on all cores.
    pub(super) fn try_consumer_secrets(&self, findings: &mut [Finding], console: &mut Console<'_>) {
        let beside: HashSet<_> = findings.iter().filter_map(|finding| Some(finding.key.as_ref()?.id.clone())).collect();
        let mut pairs: Vec<_> = self.set.keys().filter(|key| key.kind == Kind::Pair).collect();
        pairs.sort_by_key(|key| (!beside.contains(&key.id), key.revoked_at.is_some(), key.id.clone()));
        let slow = pairs.iter().filter(|key| key.hash.algorithm().is_slow()).count();
        let unknown = |finding: &&mut Finding| finding.what == What::ConsumerSecret && !finding.verified;
        let secrets = findings.iter_mut().filter(unknown);
        for (index, finding) in secrets.enumerate() {
            // The first one is tried to the end, however many keys there are.
            if index > 0 && self.slow_hashes.fetch_add(slow, Ordering::Relaxed) >= MOST_SLOW_HASHES {
                break;
            }
            if index == 0 && slow > 500 {
                console.say(format_args!("Comparing a consumer secret with {slow} slow hashes …"));
            }
            if let Some(key) = self.whose(&finding.text, &pairs) {
                finding.key = Some(key);
                finding.verified = true;
            }
        }
    }

    fn whose(&self, secret: &str, keys: &[&Arc<KeyRecord>]) -> Option<Arc<KeyRecord>> {
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
                    if key.hash.check(&secret, self.pepper.as_ref(), &mut memory) {
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

/// Whether this is what may be shown of the key.
pub(super) fn is_public_part(key: &KeyRecord, text: &str) -> bool {
    matches!(&key.public, PublicPart::Clear(public) if **public == *text)
}
