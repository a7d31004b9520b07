//! What is counted by time and scope: what was charged to quotas, minute by minute, written in the batch that accepts the
//! message; and the marks of reputation, hour by hour, written in the batch that tells of the outcome.
//!
//! The committer adds up what a batch counts and puts one record for each kind, scope and time in it, however many
//! messages: the sums that run are in memory, so that nothing is read but the first time a scope is counted in a minute or
//! hour. What is too old for any use goes by one range a kind in the first batch of a minute or hour.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use queue_format as format;

use super::intake::Charge;
use super::store::{Change, Family, Key, Store, StoreError};
use crate::events::metric;

/// Minutes that are kept: the 24 hours that count, another 24 should the clock have gone ahead and be set back, and an
/// hour's slack.
pub const KEPT_MINUTES: u64 = 2 * 1_440 + 60;
/// Sums that are in memory. Full: all are forgotten, and read from the store when they are needed again.
const SUMS_MAX: usize = 65_536;
/// Records of one read.
const PAGE: usize = 4_096;

/// What is counted, when (in the unit of time of its kind), and of which scope.
pub(super) type Place = (u8, u64, Arc<str>);

/// The committer's part of it, for kinds that have one unit of time.
pub(super) struct Counters {
    kinds: &'static [u8],
    /// So many units of time are kept.
    kept: u64,
    /// As the store has them, once the batch under way is written.
    sums: HashMap<Place, u64>,
    /// What is before this is gone from the store.
    swept_to: u64,
}

impl Counters {
    /// Of these kinds, each kept for so long.
    pub(super) fn new(kinds: &'static [u8], kept: u64) -> Self {
        Self { kinds, kept, sums: HashMap::new(), swept_to: 0 }
    }

    /// What quotas are charged.
    pub(super) fn of_quotas() -> Self {
        Self::new(&[format::COUNTER_QUOTA], KEPT_MINUTES)
    }

    /// Adds the changes that these charges ask for to a batch.
    pub(super) fn charge<'a>(
        &mut self,
        store: &dyn Store,
        charges: impl Iterator<Item = &'a Charge>,
        changes: &mut Vec<Change>,
    ) -> Result<(), StoreError> {
        let mut added: BTreeMap<Place, u64> = BTreeMap::new();
        for charge in charges {
            let place = (format::COUNTER_QUOTA, charge.minute, Arc::clone(&charge.scope));
            *added.entry(place).or_default() += u64::from(charge.recipients);
        }
        self.add(store, added, changes).map(drop)
    }

    /// Adds the changes that write the new sums to a batch; returns the sums.
    pub(super) fn add(
        &mut self,
        store: &dyn Store,
        added: BTreeMap<Place, u64>,
        changes: &mut Vec<Change>,
    ) -> Result<Vec<(Place, u64)>, StoreError> {
        let times = || added.keys().map(|(_, time, _)| *time);
        let (Some(first), Some(last)) = (times().min(), times().max()) else { return Ok(Vec::new()) };
        let keep_from = last.saturating_sub(self.kept);
        if keep_from > self.swept_to {
            self.sums.retain(|(_, time, _), _| *time >= keep_from);
            for kind in self.kinds {
                let (from, to) = format::counter_range(*kind, self.swept_to, keep_from - 1);
                changes.push(Change::DeleteRange { family: Family::Counter, from: Key::new(&from), to: Key::new(&to) });
            }
            self.swept_to = keep_from;
        }
        // Where the clock was set back by days, these are to be swept again.
        self.swept_to = self.swept_to.min(first);
        if self.sums.len() + added.len() > SUMS_MAX {
            self.sums.clear();
        }
        let mut sums = Vec::with_capacity(added.len());
        for (place, count) in added {
            let (kind, time, scope) = &place;
            let key = format::counter_key(*kind, *time, scope);
            let before = match self.sums.get(&place) {
                Some(sum) => *sum,
                None => stored(store, &key)?,
            };
            let sum = before.saturating_add(count);
            let mut value = Vec::new();
            format::encode_counter(scope, sum, &mut value);
            changes.push(Change::Put { family: Family::Counter, key: Key::new(&key), value: value.into() });
            self.sums.insert(place.clone(), sum);
            sums.push((place, sum));
        }
        Ok(sums)
    }

    /// The batch was not written.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.kinds, self.kept);
    }
}

fn stored(store: &dyn Store, key: &[u8]) -> Result<u64, StoreError> {
    let Some(value) = store.get(Family::Counter, key)? else { return Ok(0) };
    Ok(decode(key, &value).map_or(0, |(_, count)| count))
}

/// Scope and count of a record; a damaged one is told of and counts as nothing.
fn decode<'a>(key: &[u8], value: &'a [u8]) -> Option<(&'a str, u64)> {
    match format::decode_counter(value) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::error!(?key, %error, "a counter is damaged: its recipients are not counted any more");
            metrics::counter!(metric::DAMAGED_RECORDS, "record" => "counter").increment(1);
            None
        }
    }
}

/// Shows what was counted of a kind from a time on: time, scope, count.
pub(super) fn each(
    store: &dyn Store,
    kind: u8,
    from: u64,
    mut show: impl FnMut(u64, &str, u64),
) -> Result<(), StoreError> {
    let (from, to) = format::counter_range(kind, from, u64::MAX);
    let mut from = from.to_vec();
    loop {
        let page = store.scan(Family::Counter, &from, &to, PAGE)?;
        for (key, value) in &page {
            if let (Some((_, time, _)), Some((scope, count))) = (format::parse_counter_key(key), decode(key, value)) {
                show(time, scope, count);
            }
        }
        let Some((last, _)) = page.last().filter(|_| page.len() == PAGE) else { return Ok(()) };
        from.clone_from(last);
        from.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::model::ModelStore;

    fn charge(scope: &str, minute: u64, recipients: u32) -> Charge {
        Charge { scope: scope.into(), minute, recipients }
    }

    /// One batch; how many changes it took.
    fn commit(counters: &mut Counters, store: &ModelStore, charges: &[Charge]) -> usize {
        let mut changes = Vec::new();
        counters.charge(store, charges.iter(), &mut changes).unwrap();
        store.write(&changes, true).unwrap();
        changes.len()
    }

    fn all(store: &ModelStore) -> Vec<(u64, String, u64)> {
        let mut all = Vec::new();
        each(store, format::COUNTER_QUOTA, 0, |minute, scope, count| all.push((minute, scope.to_owned(), count)))
            .unwrap();
        all.sort();
        all
    }

    #[test]
    fn a_batch_writes_one_record_for_each_scope_and_minute_however_many_messages() {
        let (mut counters, store) = (Counters::of_quotas(), ModelStore::new());
        let batch: Vec<Charge> = (0..500)
            .flat_map(|n| [charge("server", 9_000, 2), charge(["tenant/a", "tenant/b"][n % 2], 9_000, 2)])
            .collect();
        let puts = 3;
        let range = 1;
        assert_eq!(commit(&mut counters, &store, &batch), puts + range);
        assert_eq!(commit(&mut counters, &store, &batch), puts);
        let expected = [("server", 2_000), ("tenant/a", 1_000), ("tenant/b", 1_000)];
        assert_eq!(all(&store), expected.map(|(scope, count)| (9_000, scope.to_owned(), count)));
    }

    #[test]
    fn what_another_run_counted_in_the_same_minute_is_added_to() {
        let store = ModelStore::new();
        commit(&mut Counters::of_quotas(), &store, &[charge("server", 9_000, 5)]);
        commit(&mut Counters::of_quotas(), &store, &[charge("server", 9_000, 7)]);
        assert_eq!(all(&store), [(9_000, "server".to_owned(), 12)]);
    }

    #[test]
    fn a_batch_that_was_not_written_leaves_no_trace_in_the_sums() {
        let (mut counters, store) = (Counters::of_quotas(), ModelStore::new());
        commit(&mut counters, &store, &[charge("server", 9_000, 5)]);
        counters.charge(&store, [charge("server", 9_000, 100)].iter(), &mut Vec::new()).unwrap();
        counters.forget();
        commit(&mut counters, &store, &[charge("server", 9_000, 1)]);
        assert_eq!(all(&store), [(9_000, "server".to_owned(), 6)]);
    }

    #[test]
    fn minutes_too_old_for_any_use_go_by_one_range_and_a_clock_set_back_is_swept_again() {
        let (mut counters, store) = (Counters::of_quotas(), ModelStore::new());
        for minute in [9_000, 9_001, 9_000 + KEPT_MINUTES] {
            commit(&mut counters, &store, &[charge("server", minute, 1)]);
        }
        assert_eq!(all(&store).len(), 3, "the first is just young enough");
        assert_eq!(commit(&mut counters, &store, &[charge("server", 9_001 + KEPT_MINUTES, 1)]), 2);
        let minutes = |store: &ModelStore| all(store).iter().map(|(minute, ..)| *minute).collect::<Vec<_>>();
        assert_eq!(minutes(&store), [9_001, 9_000 + KEPT_MINUTES, 9_001 + KEPT_MINUTES]);
        commit(&mut counters, &store, &[charge("server", 100, 1)]);
        assert_eq!(minutes(&store).len(), 4, "the clock was set back: nothing of what is ahead goes");
        commit(&mut counters, &store, &[charge("server", 9_001 + KEPT_MINUTES, 1)]);
        assert_eq!(minutes(&store), [9_001, 9_000 + KEPT_MINUTES, 9_001 + KEPT_MINUTES]);
    }
}
