//! What the committer knows of suppression lists: how many entries each has, and what a batch changes in them.
//!
//! The committer alone writes lists, and so it alone knows, within a batch, what stands there: numbers are true, and an
//! address that is put on a list twice counts once. The numbers are kept in the same family, under the list's part of the
//! key, and in memory for whoever looks an address up.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use queue_format as format;

use super::store::{Change, Family, Key, Store, StoreError, StoreErrorKind};
use super::suppression::{EntryKey, ListKey, SuppressionEffect, address_hash, decode};
use crate::events::metric;
use crate::types::SuppressionTier;

/// Entries read at once where they are counted.
const PAGE: usize = 4_096;

/// How many entries each list has. One row for each list that is not empty: bounded by the names that the operator
/// gave lists to.
#[derive(Default)]
pub(super) struct ListCounts {
    /// Of all lists, so that most questions end here.
    total: AtomicU64,
    rows: RwLock<HashMap<ListKey, u64>>,
}

impl ListCounts {
    /// Reads the numbers that the batches keep, one step for each list.
    pub(super) fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let counts = Self::default();
        let mut found = BTreeMap::new();
        each_list(store, |list, kept| {
            let count = kept.and_then(|value| format::decode_meta_number(value).ok());
            let count = match count {
                Some(count) => count,
                None => {
                    damaged("the number of its entries; they are counted");
                    count_entries(store, &list)?
                }
            };
            found.insert(list, count);
            Ok(())
        })?;
        counts.apply(&found);
        Ok(counts)
    }

    /// Entries by tier, in the order of [`SuppressionTier::ALL`].
    pub(super) fn totals(&self) -> [u64; 3] {
        sums(&self.rows.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn apply(&self, changed: &BTreeMap<ListKey, u64>) {
        if changed.is_empty() {
            return;
        }
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        for (list, count) in changed {
            if *count == 0 {
                rows.remove(list);
            } else {
                rows.insert(*list, *count);
            }
        }
        self.total.store(rows.values().sum(), Ordering::Release);
        let sums = sums(&rows);
        drop(rows);
        for (tier, sum) in SuppressionTier::ALL.into_iter().zip(sums) {
            metrics::gauge!(metric::SUPPRESSION_ENTRIES, "tier" => tier.name()).set(sum as f64);
        }
    }

    pub(super) fn of(&self, list: &ListKey) -> u64 {
        if self.is_empty() {
            return 0;
        }
        self.rows.read().unwrap_or_else(PoisonError::into_inner).get(list).copied().unwrap_or(0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total.load(Ordering::Acquire) == 0
    }
}

/// Entries by tier, in the order of [`SuppressionTier::ALL`].
fn sums(rows: &HashMap<ListKey, u64>) -> [u64; 3] {
    SuppressionTier::ALL
        .map(|tier| rows.iter().filter(|(list, _)| list.first() == Some(&(tier as u8))).map(|(_, count)| count).sum())
}

/// Steps from list to list; with each, the number of its entries as it is kept.
fn each_list(
    store: &dyn Store,
    mut show: impl FnMut(ListKey, Option<&Bytes>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let end = [0xff; format::SUPPRESSION_KEY_BYTES + 1];
    let mut from = Vec::new();
    while let Some((key, value)) = store.scan(Family::Suppression, &from, &end, 1)?.into_iter().next() {
        match key.first_chunk().copied() {
            Some(list) => {
                show(list, (key.len() == list.len()).then_some(&value))?;
                from = format::suppression_range(&list).1.to_vec();
            }
            None => {
                tracing::error!(?key, "a suppression key is malformed; the entry is left alone");
                from = key;
                from.push(0);
            }
        }
    }
    Ok(())
}

/// The lists of a store and their true numbers of entries, and the sum of these.
pub(super) fn lists(store: &dyn Store) -> Result<(Vec<(ListKey, u64)>, u64), StoreError> {
    let (mut lists, mut sum) = (Vec::new(), 0);
    each_list(store, |list, _| {
        let count = count_entries(store, &list)?;
        lists.push((list, count));
        sum += count;
        Ok(())
    })?;
    Ok((lists, sum))
}

/// What is wrong with the lists of a store at rest.
pub(super) fn violations(store: &dyn Store, found: &mut Vec<String>) -> Result<(), StoreError> {
    each_list(store, |list, kept| {
        let real = count_entries(store, &list)?;
        let kept = kept.map(|value| format::decode_meta_number(value));
        if kept != Some(Ok(real)) {
            found.push(format!("list {list:02x?} has {real} entries, the counter says {kept:?}"));
        }
        let (from, to) = format::suppression_range(&list);
        for (key, value) in store.scan(Family::Suppression, &from, &to, usize::MAX)? {
            match decode(&value) {
                Ok(entry) if key.ends_with(&address_hash(&entry.address)) => {}
                Ok(entry) => found.push(format!("{} stands under a wrong key", entry.address)),
                Err(error) => found.push(error),
            }
        }
        Ok(())
    })
}

fn count_entries(store: &dyn Store, list: &ListKey) -> Result<u64, StoreError> {
    let (from, to) = format::suppression_range(list);
    let (mut from, mut count) = (from.to_vec(), 0);
    loop {
        let page = store.scan(Family::Suppression, &from, &to, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(count) };
        from.clone_from(last);
        from.push(0);
        count += page.len() as u64;
    }
}

/// Changes of lists within one transaction of the committer, which alone knows what stands there.
pub(super) struct ListChanges {
    /// Key, and the record to stand there; `None`: nothing.
    pub(super) changes: Vec<(EntryKey, Option<Bytes>)>,
    /// For whoever asked: filled in when the batch is made.
    pub(super) effect: Arc<RwLock<SuppressionEffect>>,
}

/// What the transactions of one batch did to the lists.
#[derive(Default)]
pub(super) struct ListBatch {
    seen: HashMap<EntryKey, Option<Bytes>>,
    counts: BTreeMap<ListKey, u64>,
}

impl ListBatch {
    /// Adds the changes of one transaction.
    pub(super) fn add(
        &mut self,
        lists: &ListChanges,
        counts: &ListCounts,
        store: &dyn Store,
        changes: &mut Vec<Change>,
    ) -> Result<(), StoreError> {
        let mut effect = SuppressionEffect::default();
        for (key, new) in &lists.changes {
            let old = match self.seen.get(key) {
                Some(value) => value.clone(),
                None => read_raw(store, key)?,
            };
            let (list, _) = format::parse_suppression_key(key).expect("the key was made by suppression_key");
            let count = self.counts.entry(list).or_insert_with(|| counts.of(&list));
            match (&old, new) {
                (None, None) => {}
                (Some(old), Some(new)) if old == new => effect.unchanged += 1,
                (old, Some(value)) => {
                    if old.is_none() {
                        effect.added += 1;
                        *count += 1;
                    } else {
                        effect.changed += 1;
                    }
                    let value = value.clone();
                    changes.push(Change::Put { family: Family::Suppression, key: Key::new(key), value });
                }
                (Some(_), None) => {
                    effect.removed += 1;
                    *count = count.saturating_sub(1);
                    changes.push(Change::Delete { family: Family::Suppression, key: Key::new(key) });
                }
            }
            self.seen.insert(*key, new.clone());
        }
        *lists.effect.write().unwrap_or_else(PoisonError::into_inner) = effect;
        Ok(())
    }

    /// The numbers of entries, once all transactions of the batch are in.
    pub(super) fn finish(&self, changes: &mut Vec<Change>) {
        for (list, count) in &self.counts {
            changes.push(count_change(list, *count));
        }
    }

    /// The batch is written.
    pub(super) fn committed(&self, counts: &ListCounts) {
        counts.apply(&self.counts);
    }
}

/// The number of entries of a list, as it is kept.
pub(super) fn count_change(list: &ListKey, count: u64) -> Change {
    let key = Key::new(list);
    if count == 0 {
        return Change::Delete { family: Family::Suppression, key };
    }
    let mut value = Vec::with_capacity(16);
    format::encode_meta_number(count, &mut value);
    Change::Put { family: Family::Suppression, key, value: value.into() }
}

/// What stands there. A block that is damaged counts as nothing: the entry is written anew.
pub(super) fn read_raw(store: &dyn Store, key: &EntryKey) -> Result<Option<Bytes>, StoreError> {
    if !store.may_contain(Family::Suppression, key) {
        return Ok(None);
    }
    match store.get(Family::Suppression, key) {
        Err(error) if error.kind == StoreErrorKind::Damaged => {
            damaged(&error.to_string());
            Ok(None)
        }
        result => result,
    }
}

pub(super) fn damaged(problem: &str) {
    metrics::counter!(metric::DAMAGED_RECORDS, "record" => "suppression").increment(1);
    tracing::error!(problem, "an entry of a suppression list cannot be read");
}
