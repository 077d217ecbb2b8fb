//! What is remembered of addresses that had to make room.
//!
//! Whatever an evicted entry remembers is merged into one of a few thousand *cells*, chosen by a keyed hash of the
//! address, and by its cell an address is judged that comes back. The merge takes the larger of both histories, not
//! their sum: a cell holds at least what each single address behind it had used, which is all that strictness asks for.
//!
//! A stranger would pay for what others behind its cell had used. So a filter remembers who was evicted (a Bloom filter:
//! it may take a stranger for one who was, never the reverse), and whoever was not starts afresh. Only when some million
//! addresses are evicted within the longest window does the filter know everybody, and refusals come too early; too much
//! is never admitted.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use sha2::{Digest as _, Sha256};

use super::{
    entry::{Address, Entry},
    window::Tick,
};

/// How many cells there are. Each is made when it is first needed.
const CELLS: usize = 4096;

/// The words of one generation of the filter: 1 MiB, or 8 million bits.
const WORDS: usize = 1 << 17;

/// Chooses the cell of an address, so that nobody can pick addresses that fall together with a victim's.
pub(crate) type CellKey = [u8; 16];

/// The cells, and who is behind them. Its locks are taken last, and one at a time.
pub(super) struct Cells {
    cells: Box<[OnceLock<Arc<Entry>>]>,
    /// Until somebody was evicted, nobody pays for a hash.
    in_use: AtomicBool,
    key: OnceLock<CellKey>,
    evicted: Mutex<Filter>,
}

impl Cells {
    pub(super) fn new() -> Self {
        Self {
            cells: (0..CELLS).map(|_| OnceLock::new()).collect(),
            in_use: AtomicBool::new(false),
            key: OnceLock::new(),
            evicted: Mutex::default(),
        }
    }

    /// The cell that remembers the address, if one may.
    pub(super) fn find(&self, address: Address, now: Tick) -> Option<Arc<Entry>> {
        if !self.in_use.load(Ordering::Acquire) {
            return None;
        }
        let place = self.place(address);
        if !self.filter().contains(&place, now) {
            return None;
        }
        self.cells[place.cell].get().map(Arc::clone)
    }

    /// The cell that is to remember the address from now on, for at least the length of its longest window.
    pub(super) fn remember(&self, address: Address, longest: u64, now: Tick) -> Arc<Entry> {
        let place = self.place(address);
        self.filter().insert(&place, longest, now);
        self.make(place.cell)
    }

    /// The cell with this index, as an earlier process had it. Who is behind it is not known any more, so that for the
    /// length of its longest window it is everybody.
    pub(super) fn restore(&self, index: usize, longest: u64, now: Tick) -> Arc<Entry> {
        self.filter().insert_everybody(longest, now);
        self.make(index % CELLS)
    }

    /// All cells in use, with their indices.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Arc<Entry>)> {
        self.cells.iter().enumerate().filter_map(|(index, cell)| cell.get().map(|cell| (index, cell)))
    }

    /// What chooses the cells. Random, unless it was [set](Self::set_key) before.
    pub(super) fn key(&self) -> CellKey {
        *self.key.get_or_init(|| {
            let mut key = CellKey::default();
            // Without random bytes cells are only easier to fill on purpose: earlier refusals, never later ones.
            let _ = getrandom::fill(&mut key);
            key
        })
    }

    /// Takes over the key of an earlier process, unless there is one already; says whether it is the key now.
    pub(super) fn set_key(&self, key: CellKey) -> bool {
        *self.key.get_or_init(|| key) == key
    }

    fn make(&self, cell: usize) -> Arc<Entry> {
        self.in_use.store(true, Ordering::Release);
        Arc::clone(self.cells[cell].get_or_init(|| Arc::new(Entry::cell())))
    }

    fn place(&self, address: Address) -> Place {
        let digest = Sha256::new_with_prefix(self.key()).chain_update(address.bytes()).finalize();
        let number = |at: usize| {
            let bytes = digest[at..at + 4].try_into().unwrap_or_default();
            usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(0)
        };
        Place { cell: number(0) % CELLS, bits: [4, 8, 12, 16].map(|at| number(at) % (WORDS * 64)) }
    }

    fn filter(&self) -> MutexGuard<'_, Filter> {
        self.evicted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where an address stands: its cell, and its bits in the filter.
struct Place {
    cell: usize,
    bits: [usize; 4],
}

/// Who was evicted, in two generations: each lives until the next but one begins, which is at least one horizon after
/// the last address was put into it.
#[derive(Default)]
struct Filter {
    current: Vec<u64>,
    previous: Vec<u64>,
    /// When the current generation began.
    began: Tick,
    /// The longest window that was seen.
    horizon: u64,
    /// Until then everybody counts as evicted.
    everybody_until: Tick,
}

impl Filter {
    fn contains(&mut self, place: &Place, now: Tick) -> bool {
        self.turn(now);
        let all =
            |words: &[u64]| place.bits.iter().all(|bit| words.get(bit / 64).is_some_and(|w| w >> (bit % 64) & 1 == 1));
        now < self.everybody_until || all(&self.current) || all(&self.previous)
    }

    fn insert(&mut self, place: &Place, longest: u64, now: Tick) {
        self.horizon = self.horizon.max(longest);
        self.turn(now);
        self.current.resize(WORDS, 0);
        for bit in place.bits {
            self.current[bit / 64] |= 1 << (bit % 64);
        }
    }

    fn insert_everybody(&mut self, longest: u64, now: Tick) {
        self.everybody_until = self.everybody_until.max(now.saturating_add(longest));
    }

    fn turn(&mut self, now: Tick) {
        let age = now.saturating_sub(self.began);
        if age >= self.horizon {
            std::mem::swap(&mut self.previous, &mut self.current);
            self.current.fill(0);
            if age >= self.horizon.saturating_mul(2) {
                self.previous.fill(0);
            }
            self.began = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u128) -> Address {
        Address::new(std::net::Ipv6Addr::from_bits(number << 64).into(), 64)
    }

    #[test]
    fn whoever_was_evicted_is_known_for_the_longest_window_and_then_forgotten() {
        let cells = Cells::new();
        cells.remember(address(1), 10, 1000);
        cells.remember(address(2), 60, 1005);
        for (now, one, two) in [(1000, true, true), (1010, true, true), (1064, true, true), (1200, false, false)] {
            assert_eq!(
                (cells.find(address(1), now).is_some(), cells.find(address(2), now).is_some()),
                (one, two),
                "{now}"
            );
        }
    }

    #[test]
    fn a_stranger_is_hardly_ever_taken_for_one_who_was_evicted() {
        let cells = Cells::new();
        for number in 0..100_000 {
            cells.remember(address(number), 1000, 1);
        }
        assert!((0..100_000).all(|number| cells.find(address(number), 500).is_some()));
        let mistaken = (100_000..200_000).filter(|&number| cells.find(address(number), 500).is_some()).count();
        assert!(mistaken < 100, "{mistaken} of 100,000");
    }

    #[test]
    fn after_a_restart_everybody_may_have_been_evicted() {
        let cells = Cells::new();
        assert!(cells.find(address(1), 5).is_none());
        let index = cells.place(address(1)).cell;
        cells.restore(index, 10, 5);
        assert!(cells.find(address(1), 14).is_some());
        assert!(cells.find(address(1), 15).is_none());
    }

    #[test]
    fn the_key_is_chosen_once() {
        let cells = Cells::new();
        assert!(cells.set_key([7; 16]));
        assert!(!cells.set_key([8; 16]));
        assert_eq!(cells.key(), [7; 16]);
        assert_ne!(Cells::new().key(), Cells::new().key());
    }
}
