//! The history and the lives of sources in the queue: what comes back, what is asked for, what a power cut leaves, what recovery
//! brings back, and a store of an older release.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::history::{decode, read};
use super::invariants::violations;
use super::model::ModelStore;
use super::rocks::{RocksSettings, RocksStore};
use super::salvage::{Salvaged, Source, Sources, salvage};
use super::store::{Change, Family, Key, Record, Store};
use super::testing::line;
use super::*;
use crate::events::{EventId, EventKind};
use crate::types::{DayTotals, ManualClock, SourceName, Timestamp};

const AT: Timestamp = Timestamp::from_millis(1_700_000_000_000);
/// The day of it.
const DAY: u32 = 19_675;

fn source(number: u32) -> SourceName {
    SourceName::parse(&format!("192.0.2.{number}")).unwrap()
}

/// A row with something in each field; `number` is in all of them.
fn row(day: u32, source_number: u32, site: &str, number: u32) -> HistoryRow {
    let totals = DayTotals {
        sent: 100 + number,
        delivered: 90 + number,
        deferred: number,
        bounced: [(3, 1 + number), (250, 2)].into(),
        complained: 1,
        blocked: 2,
        cap: Some(200 + number),
        position: number.is_multiple_of(2).then_some(number),
    };
    let provider = (!site.is_empty()).then(|| Arc::from(site.trim_start_matches("provider:")));
    HistoryRow { day, source: source(source_number), site: site.into(), provider, totals }
}

/// What must be there after random steps.
#[derive(Default)]
pub(super) struct Kept {
    rows: BTreeMap<(u32, Arc<str>), HistoryRow>,
    lives: BTreeMap<SourceName, SourceLife>,
}

impl Kept {
    /// Rows to save: of one of eight days, two sites.
    pub(super) fn save(&mut self, number: u32) -> Vec<HistoryRow> {
        let rows = ["", "provider:google"].map(|site| row(number % 8, 1, site, number));
        self.rows.extend(rows.iter().map(|row| ((row.day, Arc::clone(&row.site)), row.clone())));
        rows.into()
    }

    pub(super) fn prune(&mut self, before_day: u32) {
        self.rows.retain(|(day, _), _| *day >= before_day);
    }

    pub(super) fn live(&mut self, number: u8) -> SourceLife {
        let life = life(number);
        self.lives.insert(life.source.clone(), life.clone());
        life
    }

    pub(super) fn check(&self, queue: &Queue) {
        let page = queue.history(&HistoryQuery::of_days(0..=u32::MAX, 100)).unwrap();
        assert_eq!(page.next, None);
        assert!(sorted(page.rows).iter().eq(self.rows.values()));
        let mut lives = queue.source_lives().unwrap();
        lives.sort_by(|left, right| left.source.cmp(&right.source));
        assert!(lives.iter().eq(self.lives.values()), "{lives:?}");
    }
}

fn life(number: u8) -> SourceLife {
    let low_days = u32::from(number) * 3;
    SourceLife { source: source(u32::from(number) % 4), life: number, since: AT, low_days }
}

fn sorted(mut rows: Vec<HistoryRow>) -> Vec<HistoryRow> {
    rows.sort_by(|left, right| (left.day, &left.source, &left.site).cmp(&(right.day, &right.source, &right.site)));
    rows
}

/// A queue whose committer is a task, on a store that can lose power.
fn open() -> (Arc<ModelStore>, Queue) {
    let store = Arc::new(ModelStore::new());
    let opened = Queue::open_inline(store.clone(), &Settings::default(), Arc::new(ManualClock::at(AT)), 1).unwrap();
    tokio::spawn(opened.committer.run(Duration::ZERO));
    (store, opened.queue)
}

/// Until the committer has nothing to do, without time passing.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn all(store: &dyn Store) -> Vec<HistoryRow> {
    sorted(read(store, &HistoryQuery::of_days(0..=u32::MAX, 1_000_000)).unwrap().rows)
}

/// Three days, two sources, three sites.
fn some_rows() -> Vec<HistoryRow> {
    let rows = (DAY..DAY + 3).flat_map(|day| (1..3).map(move |source| (day, source)));
    let rows = rows.flat_map(|(day, source)| {
        ["", "provider:google", "provider:yahoo"].map(|site| row(day, source, site, day - DAY + source))
    });
    rows.collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_saved_of_a_day_comes_back_to_the_last_field_and_later_rows_replace_it() {
    let (store, queue) = open();
    let mut rows = some_rows();
    queue.save_history(&rows).await;
    settle().await;
    assert_eq!(all(&*store), rows);
    rows[4].totals = DayTotals::default();
    rows[4].provider = None;
    queue.save_history(&rows[4..5]).await;
    settle().await;
    assert_eq!(all(&*store), rows);
    assert_eq!(violations(&*store).unwrap(), Vec::<String>::new());
    assert_eq!(store.unsynced(), 2, "written, and not synced");
    tokio::time::sleep(Duration::from_millis(150)).await;
    store.crash();
    assert_eq!(all(&*store), rows, "the lazy sync took it along");
}

#[tokio::test(start_paused = true)]
async fn rows_are_found_by_day_source_site_and_provider_page_by_page() {
    let (_store, queue) = open();
    let rows = some_rows();
    queue.save_history(&rows).await;
    settle().await;
    let check = |query: HistoryQuery, expected: &dyn Fn(&HistoryRow) -> bool| {
        let expected: Vec<HistoryRow> = rows.iter().filter(|row| expected(row)).cloned().collect();
        for limit in [1, 2, 5, 100] {
            let (mut found, mut query) = (Vec::new(), HistoryQuery { limit, ..query.clone() });
            loop {
                let page = queue.history(&query).unwrap();
                assert!(page.rows.len() <= limit);
                assert!(page.rows.is_sorted_by_key(|row| row.day));
                found.extend(page.rows);
                query.from = page.next;
                if query.from.is_none() {
                    break;
                }
            }
            assert_eq!(sorted(found), expected, "{query:?}");
        }
    };
    let of_days = |days| HistoryQuery::of_days(days, 0);
    check(of_days(0..=u32::MAX), &|_| true);
    check(of_days(DAY..=DAY), &|row| row.day == DAY);
    check(of_days(DAY + 1..=DAY + 9), &|row| row.day > DAY);
    check(of_days(0..=DAY - 1), &|_| false);
    check(HistoryQuery { source: Some(source(2)), ..of_days(DAY..=DAY + 1) }, &|row| {
        row.source == source(2) && row.day <= DAY + 1
    });
    check(HistoryQuery { site: Some("".into()), ..of_days(0..=u32::MAX) }, &|row| row.site.is_empty());
    check(HistoryQuery { provider: Some("yahoo".into()), ..of_days(0..=u32::MAX) }, &|row| {
        row.provider.as_deref() == Some("yahoo")
    });
    #[allow(clippy::reversed_empty_ranges, reason = "a caller may ask for such")]
    let page = queue.history(&of_days(9..=8)).unwrap();
    assert_eq!((page.rows.len(), page.next), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_finds_nothing_in_many_rows_says_where_to_go_on() {
    let (store, queue) = open();
    let rows: Vec<HistoryRow> = (0..70_000).map(|n| row(DAY, 1, &format!("site-{n}"), n)).collect();
    queue.save_history(&rows).await;
    queue.save_history(&[row(DAY + 1, 2, "provider:google", 1)]).await;
    settle().await;
    assert_eq!(store.dump(Family::History).len(), 70_001);
    let query = HistoryQuery { source: Some(source(2)), ..HistoryQuery::of_days(0..=u32::MAX, 10) };
    let first = queue.history(&query).unwrap();
    assert_eq!(first.rows, []);
    assert!(first.next.is_some());
    let second = queue.history(&HistoryQuery { from: first.next, ..query }).unwrap();
    assert_eq!((second.rows, second.next), (vec![row(DAY + 1, 2, "provider:google", 1)], None));
}

#[test]
fn rows_of_one_source_and_day_are_never_in_two_transactions() {
    for sizes in [&[][..], &[1], &[1_024], &[1_025], &[3_000], &[1, 1_023, 1], &[1, 1_024, 1], &[1_000, 25, 1_000, 24]]
    {
        let mut rows = Vec::new();
        for (number, size) in (0..).zip(sizes) {
            // Half of them are told apart by the day only.
            let (day, source) = (DAY + number, number / 2);
            rows.extend((0..*size).map(|site| row(day, source, &format!("site-{site}"), site)));
        }
        let batches: Vec<&[HistoryRow]> = history::batches(&rows).collect();
        assert_eq!(batches.concat(), rows);
        for (left, right) in batches.iter().zip(batches.iter().skip(1)) {
            assert_ne!(left.last().map(|row| row.day), right.first().map(|row| row.day), "{sizes:?}");
        }
        for batch in batches {
            assert!(!batch.is_empty());
            assert!(batch.len() <= 1_024 || batch.iter().all(|row| row.day == batch[0].day), "{sizes:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pruning_removes_the_days_before_and_no_other() {
    let (store, queue) = open();
    let rows = some_rows();
    queue.save_history(&rows).await;
    for (before, left) in [(0, 18), (DAY, 18), (DAY + 1, 12), (DAY + 2, 6), (u32::MAX, 0)] {
        queue.prune_history(before).await;
        settle().await;
        assert_eq!(all(&*store), rows[18 - left..], "before {before}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_life_of_a_source_and_its_event_survive_a_power_cut_together_or_not_at_all() {
    let (store, queue) = open();
    queue.save_source_life(&[life(1), life(2)], vec![line(EventKind::Lane)]).await;
    settle().await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    let changed = SourceLife { life: 7, ..life(2) };
    queue.save_source_life(std::slice::from_ref(&changed), vec![line(EventKind::Lane)]).await;
    settle().await;
    let by_name = |mut lives: Vec<SourceLife>| {
        lives.sort_by(|left, right| left.source.cmp(&right.source));
        lives
    };
    assert_eq!(by_name(queue.source_lives().unwrap()), [life(1), changed]);
    assert_eq!(store.dump(Family::Outbox).len(), 2);
    store.crash();
    assert_eq!(by_name(queue.source_lives().unwrap()), [life(1), life(2)]);
    assert_eq!(store.dump(Family::Outbox).len(), 1);
}

fn put(family: Family, key: &[u8], value: Bytes) -> Change {
    Change::Put { family, key: Key::new(key), value }
}

/// A store with the same records in these families.
fn copy(store: &ModelStore, families: &[Family]) -> ModelStore {
    let copy = ModelStore::new();
    for family in families {
        let records = store.dump(*family).into_iter();
        let puts: Vec<Change> = records.map(|(key, value)| put(*family, &key, value)).collect();
        copy.write(&puts, true).unwrap();
    }
    copy
}

fn salvaged(stores: Vec<Box<dyn Store>>, fresh: &ModelStore) -> Salvaged {
    let sources = stores.into_iter().map(|store| Source { name: "a way", store, families: Family::ALL.into() });
    salvage(&Sources(sources.collect()), fresh, EventId::new(0), Timestamp::EPOCH).unwrap()
}

const BOTH: [Family; 2] = [Family::History, Family::Source];

#[tokio::test(start_paused = true)]
async fn damaged_rows_and_lives_are_left_out_and_the_others_come_back() {
    let (store, queue) = open();
    let rows = some_rows();
    queue.save_history(&rows).await;
    queue.save_source_life(&[life(1), life(2), life(3)], Vec::new()).await;
    settle().await;
    let records = store.dump(Family::History);
    let broken = put(Family::History, &records[0].0, b"junk".as_slice().into());
    let strange = put(Family::History, &queue_format::history_key(DAY, &[7; 16]), records[1].1.clone());
    let short = put(Family::History, &[7; 5], records[1].1.clone());
    let lives = store.dump(Family::Source);
    let broken_life = put(Family::Source, &lives[0].0, b"junk".as_slice().into());
    let strange_life = put(Family::Source, &[7; 16], lives[1].1.clone());
    store.write(&[broken, strange, short, broken_life, strange_life], true).unwrap();
    let left = read(&*store, &HistoryQuery::of_days(0..=u32::MAX, 100)).unwrap().rows;
    assert_eq!((left.len(), queue.source_lives().unwrap().len()), (17, 2));
    let found = violations(&*store).unwrap();
    let count = |name: &str| found.iter().filter(|violation| violation.starts_with(name)).count();
    assert_eq!((count("HISTORY: "), count("SOURCE: ")), (3, 2), "{found:?}");
    let fresh = ModelStore::new();
    let told = salvaged(vec![Box::new(copy(&store, &BOTH))], &fresh).damage;
    assert_eq!(all(&fresh), sorted(left));
    assert_eq!(source_lives::read(&fresh).unwrap().len(), 2);
    assert!(told.contains(&"history table: 3 rows cannot be read".to_owned()), "{told:?}");
    assert_eq!(told.iter().filter(|damage| damage.starts_with("the life of a source, ")).count(), 2, "{told:?}");
    assert_eq!(violations(&fresh).unwrap(), Vec::<String>::new());
}

/// A store that cannot be read from a key on.
struct Torn(ModelStore, Vec<u8>);

impl Store for Torn {
    fn write(&self, _: &[Change], _: bool) -> Result<(), StoreError> {
        unreachable!("it is only read")
    }

    fn sync(&self) -> Result<(), StoreError> {
        unreachable!("it is only read")
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(family, key)
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Record>, StoreError> {
        let page = self.0.scan(family, from, to, limit)?;
        let is_torn = page.iter().any(|(key, _)| family == Family::History && *key >= self.1);
        if is_torn { Err(StoreError::new(StoreErrorKind::Damaged, "torn here")) } else { Ok(page) }
    }

    fn last(&self, family: Family) -> Result<Option<Record>, StoreError> {
        self.0.last(family)
    }

    fn set_aside(&self, name: &str, bytes: &[u8]) -> Result<String, StoreError> {
        self.0.set_aside(name, bytes)
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_ways_to_read_a_damaged_history_the_first_that_shows_a_row_counts() {
    let (store, queue) = open();
    let rows = some_rows();
    queue.save_history(&rows).await;
    settle().await;
    let records = store.dump(Family::History);
    // What the second way shows is older, and one of its rows is damaged; of the first way another one, which is read by the second.
    let (first, second) = (copy(&store, &BOTH), ModelStore::new());
    first.write(&[put(Family::History, &records[2].0, b"junk".as_slice().into())], true).unwrap();
    let older: Vec<HistoryRow> =
        rows.iter().map(|row| HistoryRow { totals: DayTotals::default(), ..row.clone() }).collect();
    let older_puts: Vec<Change> = older.iter().map(history::put_change).collect();
    second.write(&older_puts, true).unwrap();
    second.write(&[put(Family::History, &records[17].0, b"junk".as_slice().into())], true).unwrap();
    let fresh = ModelStore::new();
    let torn = Torn(first, records[9].0.clone());
    let told = salvaged(vec![Box::new(torn), Box::new(second)], &fresh).damage;
    for (number, (key, value)) in records.iter().enumerate() {
        let is_new = decode(key, value).unwrap();
        let kept = fresh.get(Family::History, key).unwrap().map(|value| decode(key, &value).unwrap().totals);
        let expected = match number {
            17 => None,
            2 | 9.. => Some(DayTotals::default()),
            _ => Some(is_new.totals),
        };
        assert_eq!(kept, expected, "row {number}");
    }
    let expected = ["history table (a way): store: torn here", "history table: 1 rows cannot be read"];
    assert_eq!(told, expected);
    assert_eq!(violations(&fresh).unwrap(), Vec::<String>::new());
}

#[test]
fn a_store_of_the_release_before_gains_the_families_and_keeps_its_records() {
    let directory = tempfile::tempdir().unwrap();
    let old = &Family::ALL[..11];
    assert_eq!(old.last(), Some(&Family::Lane));
    let database = RocksStore::of_old(directory.path(), old).unwrap();
    let lane = include_bytes!("../../queue-format/tests/golden/v3/lane-full.bin").as_slice();
    let record = queue_format::LaneRecord::decode(lane).unwrap();
    let key = lanes::raw_key(&record.source, &record.site);
    let records = [put(Family::Lane, key.as_ref(), lane.into()), committer::meta_put(meta::FORMAT, 3)];
    database.write(&records, true).unwrap();
    let missing = [Family::History, Family::Source].map(|family| database.get(family, b"").is_err());
    assert_eq!(missing, [true, true]);
    drop(database);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The second time it is one of ours.
    for _ in 0..2 {
        let store = Arc::new(RocksStore::open(directory.path(), &RocksSettings::default()).unwrap());
        let clock = Arc::new(ManualClock::at(AT));
        let opened = Queue::open(store.clone(), &Settings::default(), clock, 1).unwrap();
        runtime.block_on(async {
            opened.queue.save_history(&some_rows()).await;
            opened.queue.save_source_life(&[life(1)], Vec::new()).await;
            opened.queue.write_and_wait(Vec::new(), true).await.unwrap();
        });
        assert_eq!(all(&*store), some_rows());
        assert_eq!(opened.queue.source_lives().unwrap(), [life(1)]);
        let lanes = opened.queue.lanes(10).unwrap();
        assert_eq!((lanes.len(), &*lanes[0].site, lanes[0].state.outstanding), (1, "google", 300));
        let format = store.get(Family::Meta, meta::FORMAT.as_bytes()).unwrap().unwrap();
        assert_eq!(queue_format::decode_meta_number(&format), Ok(queue_format::FORMAT_VERSION.into()));
        assert_eq!(violations(&*store).unwrap(), Vec::<String>::new());
        let Opened { queue, handoffs, committer, .. } = opened;
        drop((queue, handoffs));
        committer.join().unwrap();
    }
}
