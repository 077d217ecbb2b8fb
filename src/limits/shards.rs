//! The table of addresses: sharded and bounded.
//!
//! Making room gives nobody a fresh allowance: what an evicted entry remembers goes into a [cell](super::cells), and by
//! that its address is judged when it comes back.

use std::{
    collections::VecDeque,
    fmt,
    hash::BuildHasher as _,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use dashmap::DashMap;

use super::{
    Exceeded, Plan, Readings,
    cells::{CellKey, Cells},
    entry::{Address, Counters, Entry},
    take::{Part, take},
    window::{Tick, tick},
};
use crate::clock::Mono;

/// How many rings the entries are spread over. Only new addresses and evictions lock one.
const RINGS: usize = 16;

/// How many entries are looked at to make room for one. A bound on the work that one request can cause.
const LOOKED_AT: usize = 32;

/// All counters of addresses; those of keys and owners live in their states.
pub struct Limiter {
    /// Its hash also spreads the entries over the rings, by its low bits alone: the fast variant, meant for tables that
    /// mix once more, sends most neighbouring addresses to the same few rings for some of its seeds.
    ///
    /// No guard of this map outlives the expression it is made in, so it may be asked under any other lock.
    table: DashMap<Address, Arc<Entry>, foldhash::quality::RandomState>,
    /// Every entry of the table is in exactly one ring. Locks are taken in the order ring, entry, cell.
    rings: Box<[Mutex<Ring>]>,
    ring_capacity: usize,
    entries: AtomicUsize,
    pub(super) cells: Cells,
}

/// Entries in the order in which they make room.
#[derive(Default)]
struct Ring {
    /// Addresses at which nobody was verified yet; those that were are moved over when they are met.
    strangers: VecDeque<Arc<Entry>>,
    callers: VecDeque<Arc<Entry>>,
}

/// The counters of one address, kept by a connection so that its requests need no lookup. Starts empty, and is compared
/// with the address on every request.
#[derive(Debug, Default)]
pub struct AddressHandle {
    entry: Option<Arc<Entry>>,
}

impl Limiter {
    /// How many addresses there is room for unless said otherwise: some 50 MB when each of them sends a little.
    pub const DEFAULT_ENTRIES: usize = 100_000;

    /// Room for this many addresses, at least one; beyond it the least worthy make room: those of which nothing counts
    /// any more, then those at which nobody was verified.
    pub fn new(max_entries: usize) -> Self {
        let rings = max_entries.clamp(1, RINGS);
        Self {
            table: DashMap::with_hasher(foldhash::quality::RandomState::default()),
            rings: (0..rings).map(|_| Mutex::default()).collect(),
            ring_capacity: max_entries.max(1) / rings,
            entries: AtomicUsize::new(0),
            cells: Cells::new(),
        }
    }

    /// Takes one from every window of the address, or from none. Does nothing where `per_ip` is empty, and for exempt
    /// addresses.
    pub fn take_address(
        &self,
        plan: &Plan,
        client: IpAddr,
        now: Mono,
        readings: &mut Readings,
    ) -> Result<(), Exceeded> {
        self.take_address_by(&mut AddressHandle::default(), plan, client, now, readings)
    }

    /// As [`take_address`](Self::take_address), by what a connection keeps: no lookup while the address is the same.
    pub fn take_address_by(
        &self,
        handle: &mut AddressHandle,
        plan: &Plan,
        client: IpAddr,
        now: Mono,
        readings: &mut Readings,
    ) -> Result<(), Exceeded> {
        if plan.per_ip.is_empty() || plan.is_exempt(client) {
            return Ok(());
        }
        let address = Address::new(client, plan.ipv6_prefix);
        self.with_kept(handle, address, tick(now), |entry, counters| {
            take(&mut [Part { windows: &mut counters.arrivals, rules: &plan.per_ip }], now, readings)?;
            entry.note_change(&plan.per_ip);
            Ok(())
        })
    }

    /// Notes that a caller was verified at this address: its counters become the last ones to make room.
    pub fn note_authenticated(&self, handle: &AddressHandle, plan: &Plan, client: IpAddr) {
        let address = Address::new(client, plan.ipv6_prefix);
        match &handle.entry {
            Some(entry) if entry.address() == Some(address) => entry.note_authenticated(),
            _ => {
                if let Some(entry) = self.find(address) {
                    entry.note_authenticated();
                }
            }
        }
    }

    /// How many addresses have an entry.
    pub fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Frees the memory of some entries of which nothing counts any more. Called once a second, it gets around all of
    /// them in about a minute.
    pub fn sweep(&self, now: Mono) {
        for ring in &self.rings {
            let mut ring = lock(ring);
            for _ in 0..ring.len() / 64 + 4 {
                let Some(entry) = ring.strangers.pop_front() else { break };
                if !self.evict(&entry, tick(now), Evict::Expired) {
                    let to = if entry.is_authenticated() { &mut ring.callers } else { &mut ring.strangers };
                    to.push_back(entry);
                }
            }
            for _ in 0..ring.len() / 64 + 4 {
                let Some(entry) = ring.callers.pop_front() else { break };
                if !self.evict(&entry, tick(now), Evict::Expired) {
                    ring.callers.push_back(entry);
                }
            }
        }
    }

    /// As [`with_counters`](Self::with_counters), by what a connection keeps.
    pub(super) fn with_kept<R>(
        &self,
        handle: &mut AddressHandle,
        address: Address,
        now: Tick,
        f: impl FnOnce(&Entry, &mut Counters) -> R,
    ) -> R {
        if let Some(entry) = &handle.entry
            && entry.address() == Some(address)
        {
            let mut counters = entry.lock();
            if !counters.evicted {
                return f(entry, &mut counters);
            }
        }
        let (entry, result) = self.with_counters(address, now, |entry, counters| {
            // A cell is not kept: the address may get an entry of its own, and would then count in two places.
            ((!entry.is_cell()).then(|| Arc::clone(entry)), f(entry, counters))
        });
        handle.entry = entry;
        result
    }

    /// Calls `f` with the counters by which the address is judged, making an entry if there is none.
    pub(super) fn with_counters<R>(
        &self,
        address: Address,
        now: Tick,
        f: impl FnOnce(&Arc<Entry>, &mut Counters) -> R,
    ) -> R {
        if let Some(entry) = self.find(address) {
            let mut counters = entry.lock();
            if !counters.evicted {
                return f(&entry, &mut counters);
            }
        }
        // Holding the ring, the address can neither get an entry nor lose one.
        let mut ring = lock(self.ring(address));
        if let Some(entry) = self.find(address) {
            return f(&entry, &mut entry.lock());
        }
        let cell = self.cells.find(address, now);
        let seed = match &cell {
            None => Some(Counters::default()),
            Some(cell) => {
                let mut counters = cell.lock();
                counters.expire(now);
                // What is in flight in a cell is settled there: until then the cell is the judge.
                (counters.in_flight == 0).then(|| Counters {
                    arrivals: counters.arrivals.clone(),
                    failures: counters.failures.clone(),
                    ..Counters::default()
                })
            }
        };
        match seed {
            Some(seed) if self.make_room(&mut ring, now) => {
                let entry = Arc::new(Entry::new(address, seed));
                // Nobody else sees the entry before it is in the table.
                let result = f(&entry, &mut entry.lock());
                ring.strangers.push_back(Arc::clone(&entry));
                self.table.insert(address, entry);
                self.entries.fetch_add(1, Ordering::Relaxed);
                result
            }
            _ => {
                let cell = self.cells.remember(address, 0, now);
                let mut counters = cell.lock();
                let result = f(&cell, &mut counters);
                // Now that it is known how long it counts.
                self.cells.remember(address, counters.longest(), now);
                cell.note_merge(&counters);
                result
            }
        }
    }

    /// Calls `f` with the counters by which the address is judged, if there are any.
    pub(super) fn peek<R>(&self, address: Address, now: Tick, f: impl FnOnce(&mut Counters) -> R) -> Option<R> {
        if let Some(entry) = self.find(address) {
            let mut counters = entry.lock();
            if !counters.evicted {
                return Some(f(&mut counters));
            }
        }
        self.cells.find(address, now).map(|cell| f(&mut cell.lock()))
    }

    /// All entries for which `wanted` holds.
    pub(super) fn entries_where(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
        let mut found = Vec::new();
        for ring in &self.rings {
            let ring = lock(ring);
            let entries = ring.strangers.iter().chain(&ring.callers);
            found.extend(entries.filter(|entry| wanted(entry)).map(Arc::clone));
        }
        found
    }

    /// What chooses the cells. Random, unless it was [set](Self::set_cell_key) before.
    pub(crate) fn cell_key(&self) -> CellKey {
        self.cells.key()
    }

    /// Takes over what chose the cells of an earlier process, so that they mean the same addresses. Without effect
    /// once a cell was chosen; says whether it had.
    pub(crate) fn set_cell_key(&self, key: CellKey) -> bool {
        self.cells.set_key(key)
    }

    fn find(&self, address: Address) -> Option<Arc<Entry>> {
        self.table.get(&address).map(|entry| Arc::clone(&entry))
    }

    fn ring(&self, address: Address) -> &Mutex<Ring> {
        let hash = self.table.hasher().hash_one(address);
        // The remainder by at most 16 fits any usize.
        &self.rings[(hash % self.rings.len() as u64) as usize]
    }

    /// Makes room for one entry. False if that is impossible, because too many attempts are in flight.
    fn make_room(&self, ring: &mut Ring, now: Tick) -> bool {
        if ring.len() < self.ring_capacity {
            return true;
        }
        let mut at = 0;
        while at < ring.strangers.len().min(LOOKED_AT) {
            if ring.strangers[at].is_authenticated() {
                ring.callers.extend(ring.strangers.remove(at));
            } else if self.evict(&ring.strangers[at], now, Evict::Expired) {
                ring.strangers.remove(at);
                return true;
            } else {
                at += 1;
            }
        }
        for _ in 0..ring.callers.len().min(LOOKED_AT / 4) {
            let Some(entry) = ring.callers.pop_front() else { break };
            if self.evict(&entry, now, Evict::Expired) {
                return true;
            }
            ring.callers.push_back(entry);
        }
        for queue in [&mut ring.strangers, &mut ring.callers] {
            for at in 0..queue.len().min(LOOKED_AT) {
                if self.evict(&queue[at], now, Evict::Any) {
                    queue.remove(at);
                    return true;
                }
            }
        }
        false
    }

    /// Takes an entry out of the table, if it may go; its ring is held, and forgets it next.
    fn evict(&self, entry: &Entry, now: Tick, which: Evict) -> bool {
        let Some(address) = entry.address() else { return false };
        let mut counters = entry.lock();
        counters.expire(now);
        let is_empty = counters.are_empty();
        if counters.in_flight > 0 || (which == Evict::Expired && !is_empty) {
            return false;
        }
        if !is_empty {
            let cell = self.cells.remember(address, counters.longest(), now);
            let mut merged = cell.lock();
            merged.dominate(&counters, now);
            cell.note_merge(&merged);
        }
        // Whoever found the entry before waits for its lock, sees the mark, and looks again.
        self.table.remove(&address);
        self.entries.fetch_sub(1, Ordering::Relaxed);
        *counters = Counters { evicted: true, ..Counters::default() };
        true
    }
}

/// Which entries may be evicted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Evict {
    /// Those of which nothing counts any more.
    Expired,
    /// All that have no attempt in flight.
    Any,
}

impl Ring {
    fn len(&self) -> usize {
        self.strangers.len() + self.callers.len()
    }
}

fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says how many, not who.
impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("entries", &self.entries()).finish_non_exhaustive()
    }
}
