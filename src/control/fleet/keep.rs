//! What the fleet and the store tell each other: what was heard here, and what other control planes have heard.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{
    Fleet,
    member::{LINGER, Member},
};
use crate::{
    clock::{self, Mono, Wall},
    control::store::{Head, Sidecar, StoreError},
};

/// How long an acknowledgement waits for others to be written with it.
const GATHER: Duration = Duration::from_millis(20);
/// How often everything else is written.
const WRITE: Duration = Duration::from_secs(1);
/// How often the store is asked for what others have heard: while somebody waits for it, and else.
const LOOK_WAITING: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_secs(2);

/// Counts who is waiting.
pub(super) struct Waiting<'a>(&'a Fleet);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Fleet {
    /// Reads who was known. To be called before anybody is served.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub async fn load(&self) -> Result<(), StoreError> {
        self.look().await
    }

    /// Writes what was heard, and reads what others have heard, for as long as it is polled. `shared`: other control planes
    /// may use the same store, so that they are told at once.
    pub async fn run(&self, shared: bool) {
        tokio::join!(self.write(shared), self.follow(), self.keep_looking());
    }

    /// Writes what was heard and is not in the store yet.
    ///
    /// # Errors
    ///
    /// The store's own; it is tried again.
    pub async fn save(&self) -> Result<(), StoreError> {
        let unsaved: Vec<Sidecar> = {
            let mut state = self.lock();
            let unsaved = |member: &mut Member| std::mem::take(&mut member.unsaved).then(|| member.sidecar.clone());
            state.members.values_mut().filter_map(unsaved).collect()
        };
        if unsaved.is_empty() {
            return Ok(());
        }
        let (store, unsaved) = (Arc::clone(self.ledger.store()), Arc::new(unsaved));
        let (rows, head) = (Arc::clone(&unsaved), self.ledger.read(|image| image.head().clone()));
        let written = self.ledger.run(async move { store.heard(&rows, &head).await }).await;
        match &written {
            Ok(()) => {
                self.failing.store(false, Ordering::Relaxed);
                let mut state = self.lock();
                for sidecar in unsaved.iter() {
                    if let Some(member) = state.members.get_mut(&sidecar.claim.instance) {
                        member.leased = member.leased.max(sidecar.confirmed_at);
                    }
                }
            }
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "what was heard of sidecars could not be written; it is tried again");
                }
                let mut state = self.lock();
                for sidecar in unsaved.iter() {
                    if let Some(member) = state.members.get_mut(&sidecar.claim.instance) {
                        member.unsaved = true;
                    }
                }
            }
        }
        written
    }

    async fn write(&self, shared: bool) {
        loop {
            if shared {
                // In either case it is time to write.
                if timeout(WRITE, self.urgent.notified()).await.is_ok() {
                    sleep(GATHER).await;
                }
            } else {
                sleep(WRITE).await;
            }
            if self.save().await.is_err() {
                sleep(WRITE).await;
            }
            self.forget_replaced().await;
        }
    }

    /// Notes when revisions are written.
    async fn follow(&self) {
        let mut heads = self.ledger.follow();
        let mut last = heads.borrow_and_update().clone();
        while heads.changed().await.is_ok() {
            let head = heads.borrow_and_update().clone();
            let mut state = self.lock();
            if head.epoch != last.epoch || head.revision < last.revision {
                state.written.clear();
                state.measured.clear();
            } else if head.revision > last.revision {
                state.written.push_back((head.revision, clock::mono()));
                while state.written.len() > super::REMEMBERED {
                    state.written.pop_front();
                }
            }
            drop(state);
            last = head;
        }
    }

    /// Looks into the store when another control plane may have written, and now and then.
    async fn keep_looking(&self) {
        let mut stirred = self.ledger.stirred();
        loop {
            if self.waiting.load(Ordering::Relaxed) > 0 {
                let _ = timeout(LOOK_WAITING, stirred.changed()).await;
            } else {
                let _ = timeout(LOOK, self.wanted.notified()).await;
            }
            stirred.mark_unchanged();
            // The ledger says why a store cannot be used.
            if self.look().await.is_err() {
                sleep(LOOK_WAITING).await;
            }
        }
    }

    pub(super) fn wait_here(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.wanted.notify_one();
        Waiting(self)
    }

    /// Takes in what the store knows of sidecars.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub async fn look(&self) -> Result<(), StoreError> {
        let began = clock::mono();
        let store = Arc::clone(self.ledger.store());
        let mut rows = self.ledger.run(async move { store.sidecars().await }).await?;
        let head = || self.ledger.read(|image| image.head().clone());
        let ahead = |row: &Sidecar, head: &Head| row.epoch == head.epoch && row.revision > head.revision;
        let mut held = head();
        if rows.iter().any(|row| ahead(row, &held)) {
            // Others write, and are quicker. The ledger says why a store cannot be used.
            let _ = self.ledger.refresh().await;
            held = head();
        }
        let head = held;
        for row in rows.iter_mut().filter(|row| ahead(row, &head)) {
            // Of what is not in memory nobody knows what it is.
            (row.epoch, row.revision, row.durable) = (String::new(), 0, false);
        }
        let now = clock::now();
        let mut state = self.lock();
        let mut rows: HashMap<String, Sidecar> =
            rows.into_iter().map(|row| (row.claim.instance.clone(), row)).collect();
        let (mut gone, mut done) = (Vec::new(), Vec::new());
        // Whoever is not there any more was forgotten by another control plane, unless it has come since.
        state.members.retain(|instance, member| {
            let stays = rows.contains_key(instance) || member.registered >= began;
            if !stays {
                gone.push(instance.clone());
            }
            stays
        });
        for instance in &gone {
            done.extend(state.acknowledged(instance, ("", 0), true, now.mono));
        }
        let moved: Vec<(String, String, u64, bool)> = rows
            .drain()
            .filter_map(|(instance, row)| {
                let known = state.members.get_mut(&instance);
                let changed = match known {
                    Some(member) => {
                        member.leased = member.leased.max(row.confirmed_at);
                        member.merge(&row, &head.epoch, now.mono)
                    }
                    None => {
                        // Who lets revisions go by does so since before they were read here.
                        let mut member = Member::new(row.clone(), now.mono);
                        member.leased = row.confirmed_at;
                        if member.revision(&head.epoch) < head.revision {
                            member.moved = Mono::default();
                        }
                        state.members.insert(instance.clone(), member);
                        true
                    }
                };
                changed.then_some((instance, row.epoch, row.revision, row.goodbye))
            })
            .collect();
        for (instance, epoch, revision, gone) in &moved {
            done.extend(state.acknowledged(instance, (epoch, *revision), *gone, now.mono));
        }
        drop(state);
        self.observe(&done);
        self.looked.fetch_max(began.as_nanos(), Ordering::AcqRel);
        if !gone.is_empty() || !moved.is_empty() || self.waiting.load(Ordering::Relaxed) > 0 {
            self.tell();
        }
        Ok(())
    }

    /// Before this moment nobody was confirmed who has not been since, and whose limits have run out: for the sweep.
    pub fn long_gone(&self) -> Wall {
        let state = self.lock();
        let limits = state.members.values().map(|member| member.sidecar.max_stale.max(member.sidecar.max_stale_write));
        let longest = Duration::from_secs(limits.max().unwrap_or(0).max(24 * 60 * 60));
        let kept = longest.saturating_add(Duration::from_secs(24 * 60 * 60)).saturating_add(LINGER);
        let kept = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
        Wall::from_unix_millis(clock::now().wall.unix_millis().saturating_sub(kept))
    }
}
