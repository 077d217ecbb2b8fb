//! The verification threads and what waits for them.
//!
//! A job is one secret against one version of one key; who asks for the same waits for the same job. The job holds the
//! attempts of all who wait, so that a caller who hangs up is charged like one who stays.

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::{IpAddr, Ipv6Addr},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use foldhash::fast::RandomState;
use tokio::sync::oneshot;

use super::{
    Counters, Decoy, Settings, Verdict, digest,
    queue::{FairQueue, Topic},
};
use crate::{
    clock::{self, Mono},
    keys::{
        KeyRecord,
        secret::{Memory, Secret},
    },
    limits::{Attempt, Failures},
};

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) enum Work {
    /// Find out whether the secret is this record's.
    Verify(Arc<KeyRecord>),
    /// Take as long as that would take.
    Decoy(Decoy),
}

impl Work {
    fn record(&self) -> &Arc<KeyRecord> {
        match self {
            Self::Verify(record) => record,
            Self::Decoy(decoy) => &decoy.like,
        }
    }

    fn topic(&self) -> Topic {
        match self {
            // The state lives as long as the key, so that a reload does not open a second lane for it.
            Self::Verify(record) => Topic::Key(Arc::as_ptr(&record.state).addr()),
            Self::Decoy(decoy) => decoy.topic,
        }
    }
}

/// What makes two requests wait for the same job. The address of the record is its version: the job holds the record, so
/// that no other can have the address meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct JobId {
    record: usize,
    decoy: Option<Topic>,
    digest: [u8; 32],
}

struct Job {
    work: Work,
    secret: Secret,
    address: IpAddr,
    running: bool,
    waiters: Vec<Waiter>,
}

struct Waiter {
    number: u64,
    since: Mono,
    charge: Failures,
    /// Begun when the job is.
    attempt: Option<Attempt>,
    reply: oneshot::Sender<Verdict>,
}

#[derive(Default)]
struct Desk {
    queue: FairQueue<JobId>,
    jobs: HashMap<JobId, Job, RandomState>,
    waiters: u64,
    closed: bool,
}

pub(super) struct Pool {
    desk: Mutex<Desk>,
    wake: Condvar,
    settings: Settings,
    threads: Mutex<Vec<JoinHandle<()>>>,
    pub(super) counters: Counters,
}

/// Starts the threads.
pub(super) fn start(pool: &Arc<Pool>, threads: usize) -> io::Result<()> {
    for number in 0..threads {
        let shared = Arc::clone(pool);
        let thread = std::thread::Builder::new().name(format!("verify-{number}")).spawn(move || {
            yield_to_requests();
            shared.work();
        })?;
        pool.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }
    Ok(())
}

/// Lets the serving threads go first where cores are few: a slow hash is slow anyway.
fn yield_to_requests() {
    // On Linux a thread has a niceness of its own. Elsewhere this would slow down the whole process.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, 10);
}

impl Pool {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            desk: Mutex::default(),
            wake: Condvar::new(),
            settings,
            threads: Mutex::default(),
            counters: Counters::default(),
        }
    }

    /// Queues the work, or joins those who wait for the same, at once; the answer comes by the future.
    pub(super) fn submit(
        self: &Arc<Self>,
        work: Work,
        secret: &Secret,
        charge: Failures,
    ) -> impl Future<Output = Verdict> + use<> {
        let ticket = self.enqueue(work, secret, charge);
        let (pool, wait) = (Arc::clone(self), self.settings.wait);
        async move {
            match ticket {
                Ok(ticket) => pool.wait(ticket, wait).await,
                Err(verdict) => verdict,
            }
        }
    }

    async fn wait(&self, mut ticket: Ticket, wait: Duration) -> Verdict {
        let reply = match tokio::time::timeout(wait, &mut ticket.reply).await {
            Ok(reply) => reply,
            // What has begun is worth waiting for: the ceilings on parameters bound it.
            Err(_) if self.is_running(&ticket) => (&mut ticket.reply).await,
            Err(_) => return Verdict::Overloaded,
        };
        ticket.answered = true;
        // Without an answer the threads are gone, or the job had an accident: nothing was decided.
        reply.unwrap_or(Verdict::Overloaded)
    }

    fn enqueue(self: &Arc<Self>, work: Work, secret: &Secret, charge: Failures) -> Result<Ticket, Verdict> {
        let digest = digest::of(secret);
        let topic = work.topic();
        let decoy = matches!(work, Work::Decoy(_)).then_some(topic);
        let id = JobId { record: Arc::as_ptr(work.record()).addr(), decoy, digest };
        let now = clock::mono();
        let mut desk = self.desk();
        if desk.closed {
            return Err(Verdict::Overloaded);
        }
        desk.waiters += 1;
        let number = desk.waiters;
        let (sender, reply) = oneshot::channel();
        let mut waiter = Waiter { number, since: now, charge, attempt: None, reply: sender };
        if let Some(job) = desk.jobs.get_mut(&id) {
            if job.running {
                waiter.attempt = Some(waiter.charge.begin(now).map_err(Verdict::FailureLimit)?);
            }
            job.waiters.push(waiter);
        } else {
            // The job that would have been joined may have ended since its digest was asked for.
            if let Work::Verify(record) = &work
                && record.is_verified(&digest)
            {
                return Err(match waiter.charge.begin(now) {
                    Ok(attempt) => {
                        attempt.passed();
                        Verdict::Right
                    }
                    Err(exceeded) => Verdict::FailureLimit(exceeded),
                });
            }
            if desk.queue.len() >= self.settings.queue || desk.queue.waiting(topic) >= self.settings.queue_per_key {
                return Err(Verdict::Overloaded);
            }
            let address = network(waiter.charge.client());
            let secret = secret.clone();
            desk.queue.push(topic, address, id);
            desk.jobs.insert(id, Job { work, secret, address, running: false, waiters: vec![waiter] });
            self.note_queue(&desk);
            self.wake.notify_one();
        }
        Ok(Ticket { pool: Arc::clone(self), id, number, reply, answered: false })
    }

    fn is_running(&self, ticket: &Ticket) -> bool {
        // A job that is gone has answered.
        self.desk().jobs.get(&ticket.id).is_none_or(|job| job.running)
    }

    /// Forgets one who no longer waits. A job that runs keeps him, to charge him; one that waits for nobody is dropped.
    fn cancel(&self, id: &JobId, number: u64) {
        let mut desk = self.desk();
        let desk = &mut *desk;
        let Some(job) = desk.jobs.get_mut(id).filter(|job| !job.running) else { return };
        job.waiters.retain(|waiter| waiter.number != number);
        if job.waiters.is_empty() {
            desk.queue.remove(job.work.topic(), job.address, id);
            desk.jobs.remove(id);
            self.note_queue(desk);
        }
    }

    fn work(&self) {
        let mut memory = Memory::default();
        while let Some(task) = self.next(&mut memory) {
            self.perform(task, &mut memory);
        }
    }

    /// Waits for a job and begins it; `None` when the pool is closed.
    fn next(&self, memory: &mut Memory) -> Option<Task> {
        let mut desk = self.desk();
        let mut wiped = false;
        loop {
            if desk.closed {
                return None;
            }
            if let Some(task) = self.begin(&mut desk, clock::mono()) {
                return Some(task);
            }
            if !wiped {
                // Nothing to do: time to clear away what the last secrets left in memory. Under load the next hash
                // overwrites it anyway, and wiping each time would cost a tenth.
                drop(desk);
                memory.wipe();
                wiped = true;
                desk = self.desk();
                continue;
            }
            desk = self.wake.wait(desk).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes the job whose turn it is, past those for which everybody has waited too long or may not fail any more.
    fn begin(&self, desk: &mut Desk, now: Mono) -> Option<Task> {
        while let Some(id) = desk.queue.pop() {
            self.note_queue(desk);
            let Some(job) = desk.jobs.get_mut(&id) else { continue };
            for mut waiter in std::mem::take(&mut job.waiters) {
                if now.since(waiter.since) > self.settings.wait {
                    answer(waiter.reply, Verdict::Overloaded);
                    continue;
                }
                match waiter.charge.begin(now) {
                    Ok(attempt) => {
                        waiter.attempt = Some(attempt);
                        job.waiters.push(waiter);
                    }
                    Err(exceeded) => answer(waiter.reply, Verdict::FailureLimit(exceeded)),
                }
            }
            if !job.waiters.is_empty() {
                job.running = true;
                return Some(Task { id, work: job.work.clone(), secret: job.secret.clone() });
            }
            desk.jobs.remove(&id);
        }
        None
    }

    fn perform(&self, task: Task, memory: &mut Memory) {
        let record = task.work.record();
        match &task.work {
            Work::Verify(record) => self.counters.count(record.hash.algorithm()),
            Work::Decoy(_) => _ = self.counters.decoy.fetch_add(1, Ordering::Relaxed),
        }
        // A panic here would leave the job in the table for ever, and everybody who joins it waiting.
        let checked =
            catch_unwind(AssertUnwindSafe(|| record.hash.check(&task.secret, record.pepper.as_deref(), memory)));
        let verdict = match (&task.work, checked) {
            (_, Err(_)) => Verdict::Overloaded,
            (Work::Verify(record), Ok(true)) => {
                // Into its own record alone: if another version has taken its place, that one is not touched.
                record.set_verified(digest::of(&task.secret));
                Verdict::Right
            }
            (_, Ok(_)) => Verdict::Wrong,
        };
        let job = self.desk().jobs.remove(&task.id);
        let now = clock::mono();
        for waiter in job.into_iter().flat_map(|job| job.waiters) {
            if let Some(attempt) = waiter.attempt {
                match verdict {
                    Verdict::Right => attempt.passed(),
                    Verdict::Wrong => attempt.failed(now),
                    Verdict::Overloaded | Verdict::FailureLimit(_) => drop(attempt),
                }
            }
            answer(waiter.reply, verdict.clone());
        }
    }

    pub(super) fn shut_down(&self) {
        let mut desk = self.desk();
        desk.closed = true;
        // Their senders go with them, which answers those who wait.
        desk.queue = FairQueue::default();
        desk.jobs.retain(|_, job| job.running);
        self.note_queue(&desk);
        drop(desk);
        self.wake.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A panic of the thread was printed when it happened.
            let _ = thread.join();
        }
    }

    fn note_queue(&self, desk: &Desk) {
        self.counters.queue.store(u64::try_from(desk.queue.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job that a thread has begun.
struct Task {
    id: JobId,
    work: Work,
    secret: Secret,
}

/// One who waits. Dropped without an answer, he is forgotten.
struct Ticket {
    pool: Arc<Pool>,
    id: JobId,
    number: u64,
    reply: oneshot::Receiver<Verdict>,
    answered: bool,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            self.pool.cancel(&self.id, self.number);
        }
    }
}

fn answer(reply: oneshot::Sender<Verdict>, verdict: Verdict) {
    // He who asked may have gone.
    let _ = reply.send(verdict);
}

/// What takes turns as one address: a whole IPv6 network is at one customer's disposal.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests;
