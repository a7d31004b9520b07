//! A table of those who call, with a bound: for counts by client or name, where who calls is not ours to choose.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Between two looks through a full table: under attack it would otherwise be the work.
const SWEEP_EVERY_US: u64 = 1_000_000;

/// At most so many entries. Full: those that are not worth keeping go, once a second at most; with none such, there is no room
/// for new ones. Time is in microseconds of one clock that does not go back.
#[derive(Debug)]
pub struct Bounded<K, V> {
    entries: HashMap<K, V>,
    entries_max: usize,
    swept_at_us: Option<u64>,
}

impl<K: Eq + Hash, V: Default> Bounded<K, V> {
    /// Empty.
    pub fn new(entries_max: usize) -> Self {
        Self { entries: HashMap::new(), entries_max, swept_at_us: None }
    }

    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key)
    }

    pub(super) fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.entries.get_mut(key)
    }

    /// Whether `key` has an entry, or could have one without a look for what can go.
    pub(super) fn has_room(&self, key: &K) -> bool {
        self.entries.len() < self.entries_max || self.entries.contains_key(key)
    }

    /// The entry of `key`, made where it is not there; `None` where there is no room. `stays` says what is worth keeping.
    pub fn entry(&mut self, key: K, now_us: u64, stays: impl Fn(&V) -> bool) -> Option<&mut V> {
        let is_early = |swept_at_us: u64| now_us.saturating_sub(swept_at_us) < SWEEP_EVERY_US;
        if !self.has_room(&key) && !self.swept_at_us.is_some_and(is_early) {
            self.swept_at_us = Some(now_us);
            self.entries.retain(|_, value| stays(value));
        }
        if self.has_room(&key) { Some(self.entries.entry(key).or_default()) } else { None }
    }

    #[cfg(test)]
    pub(crate) fn values(&self) -> impl ExactSizeIterator<Item = &V> {
        self.entries.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_is_looked_through_once_a_second_and_those_who_are_in_it_stay_reachable() {
        let mut table: Bounded<u32, u32> = Bounded::new(2);
        let odd = |value: &u32| value % 2 == 1;
        for key in [1, 2] {
            *table.entry(key, 0, odd).unwrap() = key;
        }
        *table.entry(3, 5, odd).expect("2 made room") = 4;
        assert!(table.entry(5, 5 + SWEEP_EVERY_US - 1, odd).is_none(), "too early for another look");
        assert!(table.entry(1, 6, odd).is_some() && !table.has_room(&5));
        assert!(table.entry(5, 5 + SWEEP_EVERY_US, odd).is_some());
        assert_eq!((table.get(&1), table.get(&3), table.values().len()), (Some(&1), None, 2));
    }
}
