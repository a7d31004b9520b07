//! Lanes in the queue: what comes back, when the saver is told, what a power cut leaves, what recovery brings back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::invariants::violations;
use super::lanes::{LaneChanges, LaneRecord};
use super::model::ModelStore;
use super::salvage::{Source, Sources, salvage};
use super::store::{Change, Family, Key, Store};
use super::testing::line;
use super::*;
use crate::events::{EventId, EventKind, Outbox};
use crate::types::{
    BlockState, ConnectionsState, CountsState, LaneState, Learning, ManualClock, SourceName, Timestamp, ToldState,
    WarmupDay, WarmupState,
};

const AT: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A lane of which everything is kept, told apart by `number`.
pub(super) fn record(number: u32) -> LaneRecord {
    let learning = Learning { count: 6 + number, held_until: AT, level: 2 };
    let state = LaneState {
        saved_at: AT,
        is_last: number % 2 == 1,
        connections: Some(ConnectionsState { window: 5, refused_at: AT, ceiling: Some(learning) }),
        messages: Some(learning),
        failures: 3,
        ramp: 1,
        unreachable_until: Some(AT),
        fewer: Some((2, AT)),
        slow: Some((20, Duration::from_secs(60), AT)),
        suspended_until: Some(AT),
        block: Some(BlockState { until: AT, lasts: Duration::from_secs(3_600), returned_at: Some(AT) }),
        told: Some(ToldState { mode: 6, rule: Some("blocked".into()), words: "550 5.7.1 No".into() }),
        warmup: Some(WarmupState {
            plan: "doubling".into(),
            position: 4,
            cap: Some(10_000),
            day: 19_675,
            used: 400 + number,
            hour: 472_222,
            used_this_hour: 17,
            delivered_today: 390,
            held_today: true,
            before: Some(WarmupDay {
                day: 19_674,
                position: 3,
                cap: Some(9_000),
                used: 8_999,
                delivered: 8_000,
                held: false,
            }),
            ahead: Some((19_677, 5)),
            mode: 2,
            paused: true,
            since: AT,
            until: Some(AT),
            reason: Some("too many bounces".into()),
            last_sent_at: Some(AT),
            set_at: AT,
            stepped_back_at: Some(AT),
            frozen_at: Some(AT),
            freezes: 2,
            newest_end: AT,
            parts: vec![[100, 10, 5, 1], [0, 0, 0, 7]],
        }),
        outstanding: number,
        counts: vec![CountsState {
            span: Duration::from_secs(3_600),
            part: Duration::from_secs(120),
            newest_end: AT,
            counts: vec![1, 0, number + 1],
        }],
    };
    LaneRecord { source: SourceName::parse("192.0.2.1").unwrap(), site: format!("site-{}", number % 8).into(), state }
}

fn put(number: u32, sync: bool) -> LaneChanges {
    LaneChanges { put: vec![record(number)], sync, ..LaneChanges::default() }
}

fn sorted(mut lanes: Vec<LaneRecord>) -> Vec<LaneRecord> {
    lanes.sort_by(|left, right| left.site.cmp(&right.site));
    lanes
}

/// A queue whose committer is a task, on a store that can lose power.
fn open() -> (Arc<ModelStore>, Queue) {
    let store = Arc::new(ModelStore::new());
    let opened = Queue::open_inline(store.clone(), &Settings::default(), Arc::new(ManualClock::at(AT)), 1).unwrap();
    tokio::spawn(opened.committer.run(Duration::ZERO));
    (store, opened.queue)
}

/// A completion, and how often it was called.
fn counted() -> (impl FnOnce() + Send + 'static, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&count);
    let done = move || {
        counter.fetch_add(1, Ordering::SeqCst);
    };
    (done, count)
}

/// Until the committer has nothing to do, without time passing.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_saved_comes_back_to_the_last_field_and_what_is_removed_does_not() {
    let (_store, queue) = open();
    let all: Vec<LaneRecord> = (0..4).map(record).collect();
    queue.save_lanes(LaneChanges { put: all.clone(), sync: true, ..LaneChanges::default() }, || ()).await;
    settle().await;
    assert_eq!(sorted(queue.lanes(100).unwrap()), all);
    assert_eq!(queue.lanes(3).unwrap().len(), 3);
    let remove = all[..2].iter().map(|lane| (lane.source.clone(), lane.site.clone())).collect();
    let changed = LaneRecord { state: LaneState::default(), ..record(3) };
    let changes = LaneChanges { put: vec![changed.clone()], remove, ..LaneChanges::default() };
    queue.save_lanes(changes, || ()).await;
    settle().await;
    assert_eq!(sorted(queue.lanes(100).unwrap()), [record(2), changed]);
}

#[tokio::test(start_paused = true)]
async fn a_saver_is_told_only_when_a_power_cut_would_not_take_it_back() {
    let (store, queue) = open();
    let (done, told) = counted();
    queue.save_lanes(put(1, false), done).await;
    settle().await;
    assert_eq!((store.unsynced(), told.load(Ordering::SeqCst)), (1, 0), "written, and not synced");
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!((store.unsynced(), told.load(Ordering::SeqCst)), (0, 1), "the lazy sync takes it along");
    let (lazy, lazy_told) = counted();
    let (urgent, urgent_told) = counted();
    queue.save_lanes(put(2, false), lazy).await;
    settle().await;
    queue.save_lanes(put(3, true), urgent).await;
    settle().await;
    let tolds = (lazy_told.load(Ordering::SeqCst), urgent_told.load(Ordering::SeqCst));
    assert_eq!((store.unsynced(), tolds), (0, (1, 1)), "the next sync is for both");
}

#[tokio::test(start_paused = true)]
async fn a_save_that_the_disk_refused_is_made_when_it_works_again() {
    let (store, queue) = open();
    store.set_failing(true);
    let (done, told) = counted();
    queue.save_lanes(put(1, true), done).await;
    settle().await;
    assert_eq!(told.load(Ordering::SeqCst), 0);
    store.set_failing(false);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((told.load(Ordering::SeqCst), queue.lanes(10).unwrap().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_change_and_its_event_survive_a_power_cut_together_or_not_at_all() {
    let (store, queue) = open();
    let changes = |number, sync| LaneChanges { events: vec![line(EventKind::Lane)], ..put(number, sync) };
    queue.save_lanes(changes(1, true), || ()).await;
    settle().await;
    queue.save_lanes(changes(2, false), || ()).await;
    settle().await;
    store.crash();
    assert_eq!(store.dump(Family::Outbox).len(), 1);
    assert_eq!(lanes::read(&*store, 10).unwrap(), [record(1)]);
    let published = queue.outbox().read(EventId::new(1), 10).unwrap();
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].line.as_ref().unwrap().kind, EventKind::Lane);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_is_left_out_and_the_others_come_back() {
    let (store, queue) = open();
    queue.save_lanes(LaneChanges { put: (0..3).map(record).collect(), ..LaneChanges::default() }, || ()).await;
    settle().await;
    let records = store.scan(Family::Lane, &[], &[0xff; 33], 10).unwrap();
    let broken = Change::Put { family: Family::Lane, key: Key::new(&records[0].0), value: b"junk".as_slice().into() };
    let strange = Change::Put { family: Family::Lane, key: Key::new(&[7; 32]), value: records[1].1.clone() };
    store.write(&[broken, strange], true).unwrap();
    assert_eq!(queue.lanes(10).unwrap().len(), 2);
    let found = violations(&*store).unwrap();
    assert_eq!(found.iter().filter(|violation| violation.starts_with("LANE: ")).count(), 2, "{found:?}");
    let fresh = ModelStore::new();
    let damaged = ModelStore::new();
    let copy = store.dump(Family::Lane).into_iter();
    let copy = copy.map(|(key, value)| Change::Put { family: Family::Lane, key: Key::new(&key), value });
    damaged.write(&copy.collect::<Vec<_>>(), true).unwrap();
    let source = Source { name: "as it is", store: Box::new(damaged), families: Family::ALL.into() };
    let salvaged = salvage(&Sources(vec![source]), &fresh, EventId::new(0), Timestamp::EPOCH).unwrap();
    assert_eq!(lanes::read(&fresh, 10).unwrap().len(), 2);
    assert_eq!(salvaged.damage.iter().filter(|damage| damage.starts_with("a lane")).count(), 2, "{salvaged:?}");
    assert_eq!(violations(&fresh).unwrap(), Vec::<String>::new());
}
