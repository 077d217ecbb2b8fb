//! Verification of secrets: at once where a digest or a fast hash is enough, else on threads of its own.
//!
//! What a request does here, from the cheapest on: compare the secret's digest with the one that was verified before
//! ([`Verifier::is_known`]); check a fast hash; wait for a slow one ([`Verifier::verify`]), which is done once however
//! many ask, and whose outcome is charged to the address by the verifier, not by a request that may be gone.

pub mod digest;
mod pool;
mod queue;

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use pool::{Pool, Work};
use queue::Topic;

use super::{
    KeyRecord,
    secret::{Algorithm, MAX_SECRET_BYTES, Secret},
};
use crate::{
    clock,
    limits::{Exceeded, Failures},
};

/// How verification is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Verification threads; 0 means one less than there are cores, at least one.
    pub threads: usize,
    /// How many slow verifications may wait in all.
    pub queue: usize,
    /// How many may wait for one key.
    pub queue_per_key: usize,
    /// How long one may wait.
    pub wait: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { threads: 0, queue: 1024, queue_per_key: 8, wait: Duration::from_secs(2) }
    }
}

/// How a verification went. Failures are charged to the address already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The secret is the key's.
    Right,
    /// It is not.
    Wrong,
    /// Too many wait; nothing was decided.
    Overloaded,
    /// The address has used up its failures; nothing was decided.
    FailureLimit(Exceeded),
}

/// Verifies secrets. Shared by reference count; dropping the last one ends the threads.
pub struct Verifier {
    pool: Arc<Pool>,
    cached: Stripes,
}

impl Verifier {
    /// Starts the verification threads.
    ///
    /// # Errors
    ///
    /// When a thread cannot be started.
    ///
    /// # Panics
    ///
    /// When the operating system gives no random bytes.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if settings.threads == 0 { cores.saturating_sub(1).max(1) } else { settings.threads };
        let verifier = Self::without_threads(settings);
        pool::start(&verifier.pool, threads)?;
        Ok(verifier)
    }

    fn without_threads(settings: Settings) -> Self {
        digest::state();
        Self { pool: Arc::new(Pool::new(settings)), cached: Stripes::default() }
    }

    /// Whether a machine-made secret is the one that was verified against this record before. No hash but a short keyed
    /// one, and no look at the address: this is all that a known caller costs, and nobody behind his address can lock him
    /// out.
    ///
    /// Never true of a human-chosen secret. From an address that has used up its failures it would say right or wrong at
    /// once and without end; [`verify`](Self::verify) asks the address first.
    pub fn is_known(&self, record: &KeyRecord, secret: &Secret) -> bool {
        let known = record.machine_made && record.has_verified() && record.is_verified(&digest::of(secret));
        if known {
            self.cached.count();
        }
        known
    }

    /// Verifies a secret, slowly if need be. `charge` is the address that a failure is charged to, by which the queue is
    /// fair, and which is asked before the work starts whether it may still fail.
    ///
    /// Whatever the verdict: the caller has waited, so it must look the key up anew and start over if the record is no
    /// longer [current](super::KeyStore::is_current).
    pub async fn verify(&self, record: &Arc<KeyRecord>, secret: &Secret, charge: Failures) -> Verdict {
        if self.is_known(record, secret) {
            return Verdict::Right;
        }
        if secret.expose().len() > MAX_SECRET_BYTES {
            return refuse(&charge);
        }
        let algorithm = record.hash.algorithm();
        let digest = digest::of(secret);
        let is_verified = record.is_verified(&digest);
        if is_verified || !algorithm.is_slow() {
            let attempt = match charge.begin(clock::mono()) {
                Ok(attempt) => attempt,
                Err(exceeded) => return Verdict::FailureLimit(exceeded),
            };
            if is_verified {
                self.cached.count();
            } else {
                self.pool.counters.count(algorithm);
            }
            return if is_verified || record.hash.check_fast(secret, record.pepper.as_deref()) == Some(true) {
                attempt.passed();
                record.set_verified(digest);
                Verdict::Right
            } else {
                attempt.failed(clock::mono());
                Verdict::Wrong
            };
        }
        // Only one secret has this hash, and it is known by now: another one is wrong. Of a human-chosen secret it is not
        // said so fast, for the time would tell that the name exists.
        if record.machine_made && record.has_verified() {
            return refuse(&charge);
        }
        self.pool.submit(Work::Verify(Arc::clone(record)), secret, charge).await
    }

    /// Refuses a credential without a usable key, after as much time as the decoy says; see
    /// [`KeySet::decoy`](super::KeySet::decoy) and [`Decoy::of`]. Never [`Verdict::Right`].
    pub async fn refuse(&self, decoy: Option<Decoy>, secret: &Secret, charge: Failures) -> Verdict {
        match decoy {
            Some(decoy) if secret.expose().len() <= MAX_SECRET_BYTES => {
                self.pool.submit(Work::Decoy(decoy), secret, charge).await
            }
            _ => refuse(&charge),
        }
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.pool.counters
    }

    /// How many secrets were found equal to one that was verified before.
    pub fn cached(&self) -> u64 {
        self.cached.sum()
    }

    /// Ends the threads, waiting for what they are at; what waits is [`Verdict::Overloaded`], as is all that comes later.
    pub fn shut_down(&self) {
        self.pool.shut_down();
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

/// Charges a failure that took no work, if the address may still fail.
fn refuse(charge: &Failures) -> Verdict {
    match charge.begin(clock::mono()) {
        Ok(attempt) => {
            attempt.failed(clock::mono());
            Verdict::Wrong
        }
        Err(exceeded) => Verdict::FailureLimit(exceeded),
    }
}

/// What a credential without a usable key costs, so that time does not tell whether a human-chosen name exists.
#[derive(Clone, Debug)]
pub struct Decoy {
    like: Arc<KeyRecord>,
    topic: Topic,
}

impl Decoy {
    /// What a found but revoked or expired key, or one of a suspended owner, costs: as much as if it were usable, and
    /// nothing if it is machine-made.
    pub fn of(record: &Arc<KeyRecord>) -> Option<Self> {
        let topic = Topic::Key(Arc::as_ptr(&record.state).addr());
        (!record.machine_made).then(|| Self { like: Arc::clone(record), topic })
    }

    /// The cost of one of these keys, the same one for the same name; `None` where that one costs nothing.
    pub(super) fn like_one_of(records: &[Arc<KeyRecord>], name: &[u8]) -> Option<Self> {
        let digest = digest::of_bytes(name);
        let [a, b, c, d, e, f, g, h, ..] = digest;
        let number = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let chosen = usize::try_from(number % u64::try_from(records.len()).ok()?).ok()?;
        let like = records.get(chosen)?;
        like.hash.algorithm().is_slow().then(|| Self { like: Arc::clone(like), topic: Topic::Name(number) })
    }
}

/// How many secrets were hashed, by path, and how many wait. Read by telemetry.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the values of the metric's label")]
pub struct Counters {
    pub argon2id: AtomicU64,
    pub bcrypt: AtomicU64,
    /// The fast ones: `hmac-sha256` and `sha256`.
    pub hmac: AtomicU64,
    pub decoy: AtomicU64,
    /// How many slow verifications wait now.
    pub queue: AtomicU64,
}

impl Counters {
    fn count(&self, algorithm: Algorithm) {
        let counter = match algorithm {
            Algorithm::Argon2id => &self.argon2id,
            Algorithm::Bcrypt => &self.bcrypt,
            Algorithm::HmacSha256 | Algorithm::Sha256 => &self.hmac,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A counter that every request raises: each thread has a cache line of its own, up to sixteen of them.
#[derive(Default)]
struct Stripes([Stripe; 16]);

#[derive(Default)]
#[repr(align(128))]
struct Stripe(AtomicU64);

impl Stripes {
    fn count(&self) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % 16;
        }
        MINE.with(|mine| self.0[*mine].0.fetch_add(1, Ordering::Relaxed));
    }

    fn sum(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.0.load(Ordering::Relaxed)).sum()
    }
}
