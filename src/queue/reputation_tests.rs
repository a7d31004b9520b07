//! What reputation counts and how it stands in the queue: once with the event, whatever fails, over a restart and a power cut.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::invariants::violations;
use super::model::ModelStore;
use super::salvage::{Source, Sources, salvage};
use super::store::{Change, Family, Key, Store};
use super::testing::{line, new_message};
use super::*;
use crate::events::{EventId, EventKind};
use crate::types::{Hour, ManualClock, Mark, ReputationScope, ScopeKind, Sender, Timestamp};

const AT: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const HOUR: Duration = Duration::from_secs(3_600);

struct Rig {
    store: Arc<ModelStore>,
    queue: Queue,
    handoffs: tokio::sync::mpsc::Receiver<Handoff>,
    /// Rings when the committer ended.
    committer: tokio::task::JoinHandle<()>,
}

fn open(store: Arc<ModelStore>) -> Rig {
    let opened = Queue::open_inline(store.clone(), &Settings::default(), Arc::new(ManualClock::at(AT)), 1).unwrap();
    let committer = tokio::spawn(opened.committer.run(Duration::ZERO));
    Rig { store, queue: opened.queue, handoffs: opened.handoffs, committer }
}

fn charge(set: &str, mark: Mark, at: Timestamp, count: u32) -> ReputationCharge {
    let sender = Sender { tenant: "shop", configuration_set: set, ..Sender::default() };
    ReputationCharge::new(sender.scopes(), mark, at, count)
}

impl Rig {
    /// A message that ends with these marks.
    async fn end(&mut self, marks: Vec<ReputationCharge>) {
        let id = self.queue.new_id();
        let body = NewBody::Inline(Bytes::from_static(b"Subject: a\r\n\r\n"));
        self.queue.accept(new_message(id, 1, body)).await.unwrap();
        let handoff = self.handoffs.recv().await.unwrap();
        let end = EndGroup {
            id,
            group: 0,
            groups: 1,
            body_parts: 0,
            recipients: 1,
            recipient_headers: false,
            has_states: false,
        };
        let settlement = Settlement {
            events: vec![line(EventKind::Bounce)],
            marks,
            ..Settlement::new(JobKey { id, group: 0 }, Some(handoff.due_at), Next::Ended(end))
        };
        let (sender, receiver) = oneshot::channel();
        self.queue
            .settle(settlement, move || {
                let _ = sender.send(());
            })
            .await;
        receiver.await.unwrap();
    }

    async fn restart(self) -> Self {
        let Rig { store, queue, handoffs, committer } = self;
        drop((queue, handoffs));
        committer.await.unwrap();
        open(store)
    }
}

/// All sums in the store, as texts.
fn marked(queue: &Queue) -> Vec<String> {
    let mut all = Vec::new();
    queue.marked(Hour::default(), |marked| all.push(text(&marked))).unwrap();
    all.sort();
    all
}

fn text(marked: &MarkedHour) -> String {
    let hour = marked.hour.number() - Hour::of(AT).number();
    format!("{} {hour} {:?} {}", marked.scope, marked.mark, marked.sum)
}

fn taken(queue: &Queue) -> Vec<String> {
    let TakenMarks { sums, is_overflown } = queue.take_marks();
    assert!(!is_overflown);
    let mut texts: Vec<_> = sums.iter().map(text).collect();
    texts.sort();
    texts
}

fn state(name: &str, level: u8, is_paused: bool) -> ReputationState {
    ReputationState {
        scope: ReputationScope::new(ScopeKind::ConfigurationSet, name),
        level,
        since: AT,
        forgiven_through: (level == 1).then(|| Hour::of(AT)),
        pause: is_paused.then(|| StatePause { by: 1, since: AT, reason: "asked".to_owned() }),
    }
}

#[tokio::test(start_paused = true)]
async fn what_ends_counts_once_for_each_scope_and_the_sums_are_there_to_be_taken_and_after_a_restart() {
    let mut rig = open(Arc::default());
    rig.end(vec![charge("news", Mark::Delivered, AT, 3), charge("news", Mark::HardBounce, AT, 1)]).await;
    rig.end(vec![charge("news", Mark::Delivered, AT, 2)]).await;
    rig.end(vec![charge("other", Mark::Delivered, AT.plus(HOUR), 7)]).await;
    let expected = [
        "configuration_set/news 0 Delivered 5",
        "configuration_set/news 0 HardBounce 1",
        "configuration_set/other 1 Delivered 7",
        "server 0 Delivered 5",
        "server 0 HardBounce 1",
        "server 1 Delivered 7",
        "tenant/shop 0 Delivered 5",
        "tenant/shop 0 HardBounce 1",
        "tenant/shop 1 Delivered 7",
        "tenant_set/shop/news 0 Delivered 5",
        "tenant_set/shop/news 0 HardBounce 1",
        "tenant_set/shop/other 1 Delivered 7",
    ];
    assert_eq!(taken(&rig.queue), expected);
    assert_eq!(taken(&rig.queue), [""; 0]);
    assert_eq!(marked(&rig.queue), expected);
    let mut rig = rig.restart().await;
    assert_eq!(marked(&rig.queue), expected);
    rig.end(vec![charge("other", Mark::Delivered, AT.plus(HOUR), 1)]).await;
    assert_eq!(taken(&rig.queue)[0], "configuration_set/other 1 Delivered 8", "added to what another run counted");
    assert_eq!(violations(&*rig.store).unwrap(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_a_power_cut_takes_back_did_not_count_and_its_repetition_does_once() {
    let mut rig = open(Arc::default());
    rig.end(vec![charge("news", Mark::HardBounce, AT, 1)]).await;
    rig.queue.save_reputations(&[state("news", 2, true)], vec![line(EventKind::Reputation)]).await;
    rig.end(vec![charge("news", Mark::HardBounce, AT, 1)]).await;
    let of_server = |queue: &Queue| marked(queue).into_iter().find(|text| text.starts_with("server"));
    assert_eq!(of_server(&rig.queue), Some("server 0 HardBounce 2".to_owned()));
    rig.store.crash();
    let store = Arc::clone(&rig.store);
    drop(rig);
    let mut after = open(store);
    assert_eq!(of_server(&after.queue), Some("server 0 HardBounce 1".to_owned()), "the second one was not synced");
    assert_eq!(after.queue.reputations().unwrap(), [state("news", 2, true)], "a state is, when the call returns");
    after.end(vec![charge("news", Mark::HardBounce, AT, 1)]).await;
    assert_eq!(of_server(&after.queue), Some("server 0 HardBounce 2".to_owned()));
    // The message whose outcome was lost waits for its repetition.
    assert_eq!(after.queue.health().messages(), 1);
    assert_eq!(violations(&*after.store).unwrap(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_a_failing_disk_refuses_counts_once_when_it_works_again() {
    let mut rig = open(Arc::default());
    rig.end(vec![charge("news", Mark::HardBounce, AT, 1)]).await;
    taken(&rig.queue);
    let id = rig.queue.new_id();
    rig.queue.accept(new_message(id, 1, NewBody::Inline(Bytes::from_static(b"a: b\r\n\r\n")))).await.unwrap();
    let handoff = rig.handoffs.recv().await.unwrap();
    rig.store.set_failing(true);
    let end =
        EndGroup { id, group: 0, groups: 1, body_parts: 0, recipients: 1, recipient_headers: false, has_states: false };
    let settlement = Settlement {
        events: vec![line(EventKind::Bounce)],
        marks: vec![charge("news", Mark::HardBounce, AT, 1)],
        ..Settlement::new(JobKey { id, group: 0 }, Some(handoff.due_at), Next::Ended(end))
    };
    let (sender, receiver) = oneshot::channel();
    let done = move || {
        let _ = sender.send(());
    };
    rig.queue.settle(settlement, done).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(taken(&rig.queue), [""; 0], "nothing is judged that is not written");
    rig.store.set_failing(false);
    receiver.await.unwrap();
    assert_eq!(taken(&rig.queue)[0], "configuration_set/news 0 HardBounce 2");
    assert_eq!(marked(&rig.queue)[0], "configuration_set/news 0 HardBounce 2");
}

#[tokio::test(start_paused = true)]
async fn a_state_replaces_the_one_before_and_a_blank_one_leaves_nothing() {
    let rig = open(Arc::default());
    let save = async |states: &[ReputationState]| {
        assert!(rig.queue.save_reputations(states, vec![line(EventKind::Reputation)]).await);
        let mut states = rig.queue.reputations().unwrap();
        states.sort_by(|left, right| left.scope.cmp(&right.scope));
        states
    };
    assert_eq!(save(&[state("a", 2, true), state("b", 1, false)]).await, [state("a", 2, true), state("b", 1, false)]);
    assert_eq!(save(&[state("a", 1, true)]).await, [state("a", 1, true), state("b", 1, false)]);
    assert_eq!(save(&[state("a", 0, false)]).await, [state("b", 1, false)]);
    assert_eq!(violations(&*rig.store).unwrap(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn late_marks_go_to_the_hour_of_their_mail_and_what_is_too_old_goes() {
    let mut rig = open(Arc::default());
    rig.end(vec![charge("news", Mark::Delivered, AT, 10)]).await;
    rig.end(vec![charge("news", Mark::Delivered, AT.plus(30 * HOUR), 10), charge("news", Mark::Complaint, AT, 2)])
        .await;
    let of_set = |queue: &Queue| {
        let all = marked(queue).into_iter();
        all.filter_map(|text| text.strip_prefix("configuration_set/news ").map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(of_set(&rig.queue), ["0 Complaint 2", "0 Delivered 10", "30 Delivered 10"]);
    rig.end(vec![charge("news", Mark::Delivered, AT.plus(1_464 * HOUR), 1)]).await;
    assert_eq!(of_set(&rig.queue).len(), 4, "just young enough");
    rig.end(vec![charge("news", Mark::Delivered, AT.plus(1_465 * HOUR), 1)]).await;
    assert_eq!(of_set(&rig.queue), ["1464 Delivered 1", "1465 Delivered 1", "30 Delivered 10"]);
}

#[tokio::test(start_paused = true)]
async fn more_sums_than_fit_are_forgotten_and_whoever_takes_is_told_to_read_them() {
    let inbox = reputation::MarkInbox::default();
    let sums = |from: u64, count: u64| {
        (from..from + count).map(|hour| ((2, hour, Arc::from("server")), 1)).collect::<Vec<_>>()
    };
    inbox.put(sums(0, 65_536));
    inbox.put(sums(65_536, 1));
    inbox.put(sums(0, 1));
    let taken = inbox.take();
    assert_eq!((taken.sums.len(), taken.is_overflown), (0, true));
    inbox.put(sums(0, 2));
    let taken = inbox.take();
    assert_eq!((taken.sums.len(), taken.is_overflown), (2, false));
}

#[tokio::test(start_paused = true)]
async fn recovery_brings_counts_and_states_back_and_leaves_out_what_is_damaged() {
    let mut rig = open(Arc::default());
    rig.end(vec![charge("news", Mark::HardBounce, AT, 4)]).await;
    let states: Vec<_> = (0..5_u8).map(|number| state(&format!("s{number}"), 2, true)).collect();
    rig.queue.save_reputations(&states, Vec::new()).await;
    let before = marked(&rig.queue);
    let records = rig.store.dump(Family::Reputation);
    let put = |key: &[u8], value: Bytes| Change::Put { family: Family::Reputation, key: Key::new(key), value };
    let broken = put(&records[0].0, b"junk".as_slice().into());
    let strange = put(&[7; 16], records[1].1.clone());
    rig.store.write(&[broken, strange], true).unwrap();
    assert_eq!(rig.queue.reputations().unwrap().len(), 4);
    assert_eq!(violations(&*rig.store).unwrap().len(), 2);
    let fresh = ModelStore::new();
    let copy = ModelStore::new();
    for family in Family::ALL {
        let puts = rig.store.dump(family).into_iter();
        let puts: Vec<_> = puts.map(|(key, value)| Change::Put { family, key: Key::new(&key), value }).collect();
        copy.write(&puts, true).unwrap();
    }
    let source = Source { name: "as it is", store: Box::new(copy), families: Family::ALL.into() };
    salvage(&Sources(vec![source]), &fresh, EventId::NONE, AT).unwrap();
    assert_eq!(reputation::read(&fresh).unwrap().len(), 4);
    let after = open(Arc::new(fresh));
    assert_eq!(marked(&after.queue), before);
}
