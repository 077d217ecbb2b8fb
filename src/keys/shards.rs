//! A table in parts: a new version of it shares all parts in which nothing has changed.

use std::{hash::BuildHasher as _, sync::Arc};

use foldhash::fast::FixedState;

/// About how many entries a part has. Small ones are cheap to change, many of them are not cheap to copy.
const ENTRIES: usize = 128;
/// How many parts there are at most.
const MOST: usize = 4096;

/// A table in parts, each entry in the part of its name.
#[derive(Clone, Debug)]
pub(super) struct Sharded<T>(Box<[Arc<T>]>);

impl<T: Default> Default for Sharded<T> {
    fn default() -> Self {
        Self::of_size(0)
    }
}

impl<T: Default> Sharded<T> {
    /// An empty table that will have about so many entries.
    pub(super) fn of_size(entries: usize) -> Self {
        let parts = (entries / ENTRIES).next_power_of_two().min(MOST);
        Self(std::iter::repeat_with(Arc::default).take(parts).collect())
    }
}

impl<T> Sharded<T> {
    /// The part of this name.
    pub(super) fn of(&self, name: &[u8]) -> &T {
        // The number of parts is a power of two.
        &self.0[spread(name) & (self.0.len() - 1)]
    }

    /// The same, to be changed: its own copy if another version shares it.
    pub(super) fn of_mut(&mut self, name: &[u8]) -> &mut T
    where
        T: Clone,
    {
        let part = spread(name) & (self.0.len() - 1);
        Arc::make_mut(&mut self.0[part])
    }

    /// All parts.
    pub(super) fn parts(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|part| &**part)
    }
}

/// A number that spreads names evenly, the same in every version.
fn spread(name: &[u8]) -> usize {
    // The upper half: tables within a part use the lower bits of much the same function.
    usize::try_from(FixedState::default().hash_one(name) >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_spread_over_all_parts_and_versions_share_them() {
        let mut one = Sharded::<HashSet<String>>::of_size(10_000);
        // Whether they differ at their beginning or at their end.
        let name = |number: u32| match number % 2 {
            0 => format!("key_{number:026x}"),
            _ => format!("ck_{number:08x}c1d37be6580f1c2b3a495867d0e1f2a3"),
        };
        let names: Vec<String> = (0..10_000).map(name).collect();
        for name in &names {
            one.of_mut(name.as_bytes()).insert(name.clone());
        }
        assert!(names.iter().all(|name| one.of(name.as_bytes()).contains(name)));
        let largest = one.parts().map(HashSet::len).max().unwrap();
        assert!(largest < 3 * ENTRIES, "{largest}");
        let mut other = one.clone();
        other.of_mut(b"new").insert("new".to_owned());
        let shared = one.0.iter().zip(&other.0).filter(|(one, other)| Arc::ptr_eq(one, other)).count();
        assert_eq!(shared, one.0.len() - 1);
        assert!(!one.of(b"new").contains("new") && other.of(b"new").contains("new"));
    }
}
