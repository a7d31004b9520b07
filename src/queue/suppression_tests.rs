//! Suppression lists in the queue: what is compared, what is kept, what a power cut leaves, what recovery brings back.

use std::sync::Arc;

use super::invariants::violations;
use super::model::ModelStore;
use super::rocks::{RocksSettings, RocksStore};
use super::salvage::{Source, Sources, salvage};
use super::store::{Change, Family, Key, Store};
use super::suppression::{Listed, SuppressionEntry, SuppressionList};
use super::*;
use crate::events::EventId;
use crate::types::{EmailAddress, ManualClock, SuppressionReason, Timestamp};
use SuppressionReason::{Bounce, Complaint};

pub(super) fn list(number: u8) -> SuppressionList {
    match number {
        0 => SuppressionList::Global,
        1 => SuppressionList::Tenant("shop".into()),
        2 => SuppressionList::Tenant("news".into()),
        _ => SuppressionList::Set("shop".into()),
    }
}

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text, true).unwrap()
}

pub(super) fn entry(text: &str, reason: SuppressionReason) -> SuppressionEntry {
    let updated_at = Timestamp::from_millis(1_700_000_000_000);
    SuppressionEntry { address: address(text), reason, updated_at, origin: "test".to_owned() }
}

struct World {
    queue: Queue,
    committer: std::thread::JoinHandle<()>,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn open(store: Arc<dyn Store>) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_700_000_000_000)));
        let Opened { queue, committer, .. } = Queue::open(store, &Settings::default(), clock, 1).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { queue, committer, runtime }
    }

    fn close(self) {
        drop((self.queue, self.runtime));
        self.committer.join().unwrap();
    }

    fn suppress(&self, list: &SuppressionList, entries: &[SuppressionEntry]) -> suppression::SuppressionEffect {
        self.runtime.block_on(self.queue.suppress(list, entries)).unwrap()
    }

    fn listed(&self, tenant: &str, set: Option<&str>, addresses: &[&str]) -> Vec<(usize, Listed)> {
        let addresses: Vec<EmailAddress> = addresses.iter().map(|text| address(text)).collect();
        let addresses: Vec<&EmailAddress> = addresses.iter().collect();
        self.runtime.block_on(self.queue.listed(tenant, set, &addresses)).unwrap()
    }
}

#[test]
fn addresses_are_compared_without_case_and_with_a_labels() {
    let world = World::open(Arc::new(ModelStore::new()));
    world.suppress(&list(0), &[entry("User@Example.TEST", Bounce), entry("grün@münchen.example", Complaint)]);
    let same = ["user@example.test", "USER@EXAMPLE.test", "grün@xn--mnchen-3ya.example", "GRün@MÜNCHEN.example"];
    assert_eq!(world.listed("x", None, &same).len(), 4);
    let others = ["user+a@example.test", "us.er@example.test", "user@sub.example.test", "GRÜN@münchen.example"];
    assert_eq!(world.listed("x", None, &others), []);
    let found = world.queue.suppression(&list(0), &address("USER@example.test")).unwrap().unwrap();
    assert_eq!(found.address.as_str(), "User@Example.TEST", "shown as it was given");
    world.close();
}

#[test]
fn a_lookup_tells_the_lists_of_this_tenant_and_this_set_and_no_others() {
    let world = World::open(Arc::new(ModelStore::new()));
    world.suppress(&list(0), &[entry("a@d.test", Bounce)]);
    world.suppress(&list(1), &[entry("a@d.test", Complaint), entry("b@d.test", Bounce)]);
    world.suppress(&list(3), &[entry("c@d.test", Bounce)]);
    let addresses = ["z@d.test", "a@d.test", "b@d.test", "c@d.test"];
    let global = Listed { global: Some(Bounce), ..Listed::default() };
    assert_eq!(world.listed("news", None, &addresses), [(1, global)]);
    let both = Listed { tenant: Some(Complaint), ..global };
    let of_tenant = Listed { tenant: Some(Bounce), ..Listed::default() };
    let of_set = Listed { set: Some(Bounce), ..Listed::default() };
    assert_eq!(world.listed("shop", Some("shop"), &addresses), [(1, both), (2, of_tenant), (3, of_set)]);
    assert_eq!(world.listed("", Some("other"), &addresses), [(1, global)]);
    world.close();
}

#[test]
fn a_power_cut_after_a_change_forgets_nothing_of_it() {
    let store = Arc::new(ModelStore::new());
    let world = World::open(store.clone());
    let entries: Vec<_> = (0..1_500).map(|number| entry(&format!("user{number}@d.test"), Bounce)).collect();
    assert_eq!(world.suppress(&list(1), &entries).added, 1_500);
    assert!(world.runtime.block_on(world.queue.unsuppress(&list(1), &address("user7@d.test"))).unwrap());
    store.crash();
    world.close();
    assert_eq!(violations(&*store).unwrap(), Vec::<String>::new());
    let world = World::open(store.clone());
    assert_eq!(world.queue.suppression_totals(), [0, 1_499, 0]);
    let again = world.suppress(&list(1), &entries);
    assert_eq!((again.added, again.changed, again.unchanged), (1, 0, 1_499), "doing it again does no harm");
    world.close();
}

#[test]
fn a_refused_write_changes_neither_list_nor_number() {
    let store = Arc::new(ModelStore::new());
    let world = World::open(store.clone());
    world.suppress(&list(0), &[entry("a@d.test", Bounce)]);
    store.set_failing(true);
    let refused = world.runtime.block_on(world.queue.suppress(&list(0), &[entry("b@d.test", Bounce)]));
    assert!(matches!(refused, Err(AcceptError::NotDurable(_))), "{refused:?}");
    assert_eq!(world.queue.suppression_count(&list(0)), 1);
    store.set_failing(false);
    world.suppress(&list(0), &[entry("c@d.test", Bounce)]);
    assert_eq!(world.queue.suppression_count(&list(0)), 2);
    world.close();
    assert_eq!(violations(&*store).unwrap(), Vec::<String>::new());
}

#[test]
fn pages_go_through_a_list_once_and_stay_within_it() {
    let world = World::open(Arc::new(ModelStore::new()));
    let entries: Vec<_> = (0..25).map(|number| entry(&format!("user{number}@d.test"), Bounce)).collect();
    for number in 0..4 {
        world.suppress(&list(number), &entries);
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let (page, more) = world.queue.suppressions(&list(2), after.as_ref(), 10).unwrap();
        seen.extend(page.iter().map(|entry| entry.address.to_string()));
        after = page.last().map(|entry| entry.address.clone());
        if !more {
            break;
        }
    }
    seen.sort();
    let mut expected: Vec<String> = entries.iter().map(|entry| entry.address.to_string()).collect();
    expected.sort();
    assert_eq!(seen, expected);
    world.close();
}

#[test]
fn a_damaged_entry_still_holds_mail_back_and_a_damaged_number_is_counted_anew() {
    let store = Arc::new(ModelStore::new());
    let world = World::open(store.clone());
    world.suppress(&list(0), &[entry("a@d.test", Complaint), entry("b@d.test", Bounce)]);
    world.close();
    for (key, value) in store.dump(Family::Suppression) {
        let mut damaged = value.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        if key.len() == 9 || value.windows(8).any(|text| text == b"a@d.test") {
            let change = Change::Put { family: Family::Suppression, key: Key::new(&key), value: damaged.into() };
            store.write(&[change], true).unwrap();
        }
    }
    let world = World::open(store.clone());
    assert_eq!(world.queue.suppression_count(&list(0)), 2);
    let listed = Listed { global: Some(Bounce), ..Listed::default() };
    assert_eq!(world.listed("x", None, &["a@d.test"]), [(0, listed)]);
    assert_eq!(world.queue.suppressions(&list(0), None, 10).unwrap().0.len(), 1);
    world.suppress(&list(0), &[entry("a@d.test", Bounce)]);
    assert_eq!(world.queue.suppressions(&list(0), None, 10).unwrap().0.len(), 2);
    world.close();
    assert_eq!(violations(&*store).unwrap(), Vec::<String>::new());
}

#[test]
fn recovery_keeps_the_lists_and_counts_what_it_kept() {
    let store = Arc::new(ModelStore::new());
    let world = World::open(store.clone());
    let entries: Vec<_> = (0..3_000).map(|number| entry(&format!("user{number}@d.test"), Bounce)).collect();
    world.suppress(&list(0), &entries);
    world.suppress(&list(3), &entries[..10]);
    world.close();
    let (victim, _) = store.dump(Family::Suppression).into_iter().rfind(|(key, _)| key[0] == 0).unwrap();
    let change = Change::Put { family: Family::Suppression, key: Key::new(&victim), value: Bytes::from_static(b"?") };
    store.write(&[change], true).unwrap();
    let damaged = ModelStore::new();
    for family in Family::ALL {
        let put = |(key, value): (Vec<u8>, Bytes)| Change::Put { family, key: Key::new(&key), value };
        let changes: Vec<Change> = store.dump(family).into_iter().map(put).collect();
        damaged.write(&changes, true).unwrap();
    }
    let source = Source { name: "as it is", store: Box::new(damaged), families: Family::ALL.into() };
    let fresh = Arc::new(ModelStore::new());
    let found = salvage(&Sources(vec![source]), &*fresh, EventId::new(0), Timestamp::EPOCH).unwrap();
    assert_eq!(found.suppressions, 3_009);
    assert!(found.damage.iter().any(|damage| damage.contains("1 entries cannot be read")), "{:?}", found.damage);
    assert_eq!(violations(&*fresh).unwrap(), Vec::<String>::new());
    let world = World::open(fresh);
    assert_eq!(world.queue.suppression_totals(), [2_999, 0, 10]);
    world.close();
}

#[test]
fn rocksdb_answers_for_absent_addresses_from_its_filters_and_brings_lists_back() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Arc::new(RocksStore::open(directory.path(), &RocksSettings::default()).unwrap());
    let world = World::open(open());
    let entries: Vec<_> = (0..2_000).map(|number| entry(&format!("user{number}@d.test"), Complaint)).collect();
    world.suppress(&list(1), &entries);
    world.close();
    let world = World::open(open());
    assert_eq!(world.queue.suppression_totals(), [0, 2_000, 0]);
    let addresses: Vec<String> = (0..2_000).map(|number| format!("user{number}@d.test")).collect();
    let texts: Vec<&str> = addresses.iter().map(String::as_str).collect();
    assert_eq!(world.listed("shop", None, &texts).len(), 2_000);
    let absent: Vec<String> = (0..2_000).map(|number| format!("nobody{number}@d.test")).collect();
    let absent: Vec<&str> = absent.iter().map(String::as_str).collect();
    assert_eq!(world.listed("shop", None, &absent), []);
    assert_eq!(world.listed("news", Some("shop"), &texts), []);
    world.close();
}
