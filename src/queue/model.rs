//! A store in memory that forgets what was not synced: what a power cut does, which no `kill -9` can show.
//!
//! For tests and simulation. It obeys the same contract as RocksDB; `tests` run the same random actions on both.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::store::{Change, Family, Record, Store, StoreError, StoreErrorKind};

type Place = (Family, Vec<u8>);
type Map = BTreeMap<Place, Bytes>;

#[derive(Default)]
struct State {
    now: Map,
    /// How to take back each write since the last sync, oldest first: what stood in the places that it changed.
    unsynced: Vec<Vec<(Place, Option<Bytes>)>>,
    syncs: u64,
    fail_writes: bool,
    aside: BTreeMap<String, Bytes>,
}

impl State {
    fn put(&mut self, place: Place, value: Option<Bytes>, undo: &mut Vec<(Place, Option<Bytes>)>) {
        let old = match value {
            Some(value) => self.now.insert(place.clone(), value),
            None => self.now.remove(&place),
        };
        undo.push((place, old));
    }

    fn take_back(&mut self, undo: Vec<(Place, Option<Bytes>)>) {
        for (place, old) in undo.into_iter().rev() {
            match old {
                Some(value) => self.now.insert(place, value),
                None => self.now.remove(&place),
            };
        }
    }
}

/// See the module.
#[derive(Default)]
pub struct ModelStore(Mutex<State>);

impl ModelStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A power cut: all that was not synced is gone.
    pub fn crash(&self) {
        self.crash_keeping(0);
    }

    /// A power cut that the oldest `kept` writes since the last sync survive: a disk may be ahead of its syncs, in order.
    pub fn crash_keeping(&self, kept: usize) {
        let mut state = self.state();
        while state.unsynced.len() > kept {
            let undo = state.unsynced.pop().unwrap_or_default();
            state.take_back(undo);
        }
        state.unsynced.clear();
    }

    /// Writes since the last sync.
    pub fn unsynced(&self) -> usize {
        self.state().unsynced.len()
    }

    /// From now on every write fails, as on a dead disk; or works again.
    pub fn set_failing(&self, failing: bool) {
        self.state().fail_writes = failing;
    }

    /// What [`Store::set_aside`] kept.
    pub fn aside(&self) -> BTreeMap<String, Bytes> {
        self.state().aside.clone()
    }

    /// How many synced writes there were.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Everything in the store, for comparison.
    pub fn dump(&self, family: Family) -> Vec<Record> {
        let state = self.state();
        let all = state.now.iter().filter(|((of, _), _)| *of == family);
        all.map(|((_, key), value)| (key.clone(), value.clone())).collect()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for ModelStore {
    fn write(&self, changes: &[Change], sync: bool) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.fail_writes {
            return Err(StoreError::new(StoreErrorKind::Full, "the model disk was told to fail"));
        }
        let mut undo = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                Change::Put { family, key, value } => {
                    state.put((*family, key.as_ref().to_vec()), Some(value.clone()), &mut undo);
                    let was_free = undo.last().is_some_and(|(_, old)| old.is_none());
                    assert!(was_free || !family.is_written_once(), "{family:?} {key:?} was written twice");
                }
                Change::Delete { family, key } => {
                    state.put((*family, key.as_ref().to_vec()), None, &mut undo);
                }
                Change::DeleteRange { family, from, to } => {
                    assert!(!family.is_written_once(), "{family:?} takes no range deletes");
                    let range = (*family, from.as_ref().to_vec())..(*family, to.as_ref().to_vec());
                    let doomed: Vec<_> = state.now.range(range).map(|(key, _)| key.clone()).collect();
                    for place in doomed {
                        state.put(place, None, &mut undo);
                    }
                }
            }
        }
        state.unsynced.push(undo);
        if sync {
            state.unsynced.clear();
            state.syncs += 1;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.write(&[], true)
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.state().now.get(&(family, key.to_vec())).cloned())
    }

    fn may_contain(&self, family: Family, key: &[u8]) -> bool {
        self.state().now.contains_key(&(family, key.to_vec()))
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Record>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let state = self.state();
        let range = (family, from.to_vec())..(family, to.to_vec());
        Ok(state.now.range(range).take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn last(&self, family: Family) -> Result<Option<Record>, StoreError> {
        let state = self.state();
        let upper = Bound::Included((family, vec![0xff; 64]));
        let mut range = state.now.range((Bound::Included((family, Vec::new())), upper));
        Ok(range.next_back().map(|((_, key), value)| (key.clone(), value.clone())))
    }

    fn set_aside(&self, name: &str, bytes: &[u8]) -> Result<String, StoreError> {
        self.state().aside.insert(name.to_owned(), Bytes::copy_from_slice(bytes));
        Ok(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::store::Key;

    #[test]
    fn a_crash_forgets_exactly_what_was_not_synced() {
        let store = ModelStore::new();
        let put =
            |key: &[u8]| Change::Put { family: Family::Meta, key: Key::new(key), value: Bytes::from_static(b"v") };
        store.write(&[put(b"a")], true).unwrap();
        store.write(&[put(b"b")], false).unwrap();
        assert_eq!(store.scan(Family::Meta, b"", b"z", 9).unwrap().len(), 2);
        store.crash();
        assert!(store.get(Family::Meta, b"a").unwrap().is_some());
        assert!(store.get(Family::Meta, b"b").unwrap().is_none());
        assert_eq!(store.last(Family::Meta).unwrap().unwrap().0, b"a");
    }

    #[test]
    fn a_disk_that_was_ahead_of_its_syncs_keeps_the_oldest_writes_whole() {
        let store = ModelStore::new();
        let put = |key: &[u8], value: &'static [u8]| Change::Put {
            family: Family::Meta,
            key: Key::new(key),
            value: Bytes::from_static(value),
        };
        store.write(&[put(b"a", b"1")], true).unwrap();
        store.write(&[put(b"a", b"2"), put(b"b", b"2")], false).unwrap();
        let all = Change::DeleteRange { family: Family::Meta, from: Key::new(b"a"), to: Key::new(b"c") };
        store.write(&[all], false).unwrap();
        assert_eq!((store.unsynced(), store.dump(Family::Meta).len()), (2, 0));
        store.crash_keeping(1);
        assert_eq!(store.get(Family::Meta, b"a").unwrap().unwrap(), "2");
        assert_eq!(store.get(Family::Meta, b"b").unwrap().unwrap(), "2");
        store.crash();
        assert_eq!(store.dump(Family::Meta).len(), 2, "what survived a crash is on disk");
    }
}
