//! What is remembered of recipients: what comes back and for how long, of whom before the outcome, what damage and a power cut leave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::invariants::violations;
use super::model::ModelStore;
use super::rocks::{RocksSettings, RocksStore};
use super::salvage::{Salvaged, Source, Sources, salvage};
use super::store::{Change, Family, Key, Store};
use super::testing::{line, new_message};
use super::*;
use crate::events::{EventId, EventKind};
use crate::types::{EmailAddress, ManualClock, PoolName, ReversePath, SourceName, Timestamp};

pub(super) const AT: Timestamp = Timestamp::from_millis(1_700_000_000_000);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// What must be remembered after random steps.
#[derive(Default)]
pub(super) struct Remembered {
    /// Whether it ended, and what was told of it.
    recipients: BTreeMap<(MessageId, u16), (bool, BTreeSet<FeedbackKind>)>,
}

impl Remembered {
    pub(super) fn accepted(&mut self, key: JobKey) {
        self.recipients.insert((key.id, key.group), Default::default());
    }

    /// Each destination has one recipient, at the same position.
    pub(super) fn ended(&mut self, message: &StoredMessage, key: JobKey) -> Vec<SentEntry> {
        self.recipients.get_mut(&(key.id, key.group)).unwrap().0 = true;
        entry(message, usize::from(key.group), RecipientOutcome::Delivered)
    }

    /// Returns how many events it told.
    pub(super) async fn report(&mut self, queue: &Queue, number: usize) -> u64 {
        let Some(at) = number.checked_rem(self.recipients.len()) else { return 0 };
        let kind = FeedbackKind::ALL[number / 7 % 3];
        let (place, (_, told)) = self.recipients.iter_mut().nth(at).unwrap();
        let is_new = told.insert(kind);
        let expected = if is_new { FeedbackEffect::Applied } else { FeedbackEffect::AlreadyKnown };
        assert_eq!(queue.apply_feedback(feedback(place.0, place.1, kind)).await.unwrap(), expected);
        u64::from(is_new)
    }

    pub(super) fn check(&self, queue: &Queue) {
        for ((id, index), (has_ended, told)) in &self.recipients {
            let sent = queue.sent(*id, *index).unwrap().unwrap();
            assert_eq!(sent.ended_at.is_some(), *has_ended, "{id} {index}");
            let marks = FeedbackKind::ALL.into_iter().filter(|kind| sent.told_at(*kind).is_some());
            assert!(marks.eq(told.iter().copied()), "{id} {index}: {sent:?}");
            assert!(queue.sent_to_all(*id, 100).unwrap().contains(&sent));
        }
    }
}

/// A report with an event.
pub(super) fn feedback(id: MessageId, index: u16, kind: FeedbackKind) -> Feedback {
    let events = vec![line(EventKind::Complaint)];
    Feedback {
        id,
        index,
        kind,
        at: AT,
        events,
        suppress: Vec::new(),
        notifications: Vec::new(),
        marks: Vec::new(),
        while_listed: false,
    }
}

fn entry(message: &StoredMessage, index: usize, outcome: RecipientOutcome) -> Vec<SentEntry> {
    let source = SourceName::parse("192.0.2.7").unwrap();
    let end = SentEnd { index, outcome, at: AT.plus(DAY), source: Some(&source), site: Some("provider:google") };
    SentEntry::of(message, &end).into_iter().collect()
}

/// A queue whose committer is a task, on a store that can lose power.
pub(super) struct Lab {
    pub(super) store: Arc<ModelStore>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) queue: Queue,
    pub(super) handoffs: mpsc::Receiver<Handoff>,
}

pub(super) fn settings(retention: Duration) -> Settings {
    Settings { free_space_reserve_bytes: 0, sent_retention: retention, ..Settings::default() }
}

impl Lab {
    pub(super) fn new() -> Self {
        Self::on(Arc::new(ModelStore::new()), AT)
    }

    pub(super) fn on(store: Arc<ModelStore>, at: Timestamp) -> Self {
        let clock = Arc::new(ManualClock::at(at));
        let opened = Queue::open_inline(store.clone(), &settings(DAY * 30), clock.clone(), 1).unwrap();
        tokio::spawn(opened.committer.run(Duration::ZERO));
        Self { store, clock, queue: opened.queue, handoffs: opened.handoffs }
    }

    /// A message to a user in each of so many domains, in the queue.
    pub(super) async fn accept(&mut self, domains: u8) -> Arc<StoredMessage> {
        let mut new = new_message(self.queue.new_id(), domains, NewBody::Inline(Bytes::from_static(b"\r\n")));
        new.origin.identity = "shop.test".into();
        new.origin.configuration_set = "receipts".into();
        new.origin.pool = PoolName::parse("own").unwrap();
        self.queue.accept(new).await.unwrap();
        self.handoffs.recv().await.unwrap().message
    }

    /// What its settlement does, written and maybe not synced.
    pub(super) async fn end(&self, message: &StoredMessage, group: u16, outcome: RecipientOutcome) {
        let told = |settlement: &mut Settlement| settlement.events.push(line(EventKind::Delivery));
        self.end_telling(message, group, outcome, told).await;
    }

    /// The same, with something else to tell.
    pub(super) async fn end_telling(
        &self,
        message: &StoredMessage,
        group: u16,
        outcome: RecipientOutcome,
        told: impl FnOnce(&mut Settlement),
    ) {
        let key = JobKey { id: message.id, group };
        let groups = u16::try_from(message.domains.len()).unwrap();
        let end = EndGroup {
            id: key.id,
            group,
            groups,
            body_parts: 0,
            recipients: groups.into(),
            recipient_headers: false,
            has_states: false,
        };
        let sent = entry(message, group.into(), outcome);
        let mut settlement = Settlement { sent, ..Settlement::new(key, Some(message.accepted_at), Next::Ended(end)) };
        told(&mut settlement);
        let (sender, written) = oneshot::channel();
        let done = move || {
            let _ = sender.send(());
        };
        self.queue.settle(settlement, done).await;
        written.await.unwrap();
    }

    pub(super) fn kept(&self) -> usize {
        self.store.dump(Family::Sent).len()
    }

    pub(super) fn events(&self) -> usize {
        self.store.dump(Family::Outbox).len()
    }

    /// Written, and no lost power loses it.
    pub(super) async fn sync(&self) {
        self.queue.write_and_wait(Vec::new(), true).await.unwrap();
    }

    pub(super) fn assert_sound(&self) {
        assert_eq!(violations(&*self.store).unwrap(), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_delivered_recipient_all_is_remembered_that_a_late_report_needs() {
    let mut lab = Lab::new();
    let message = lab.accept(1).await;
    lab.end(&message, 0, RecipientOutcome::Delivered).await;
    assert!(lab.queue.load(message.id).unwrap().is_none(), "it left the queue");
    let expected = SentRecipient {
        id: message.id,
        index: 0,
        recipient: EmailAddress::parse("user@d0.test", false).unwrap(),
        reverse_path: message.envelope.reverse_path.clone(),
        caller: "network".into(),
        tenant: "shop".into(),
        identity: "shop.test".into(),
        configuration_set: "receipts".into(),
        pool: PoolName::parse("own").unwrap(),
        source: SourceName::parse("192.0.2.7"),
        site: Some("provider:google".into()),
        outcome: RecipientOutcome::Delivered,
        ended_at: Some(AT.plus(DAY)),
        bounced_at: None,
        complained_at: None,
        unsubscribed_at: None,
        remarked_at: None,
        mail_json: Bytes::from_static(b"{}"),
    };
    assert_eq!(lab.queue.sent(message.id, 0).unwrap(), Some(expected.clone()));
    assert_eq!(expected.provider(), Some("google"));
    assert_eq!(lab.queue.sent(message.id, 1).unwrap(), None);
    assert_eq!(lab.queue.sent_to_all(message.id, 10).unwrap(), [expected]);
    lab.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn what_ended_with_a_bounce_event_counts_as_bounced() {
    use RecipientOutcome::{Bounced, Cancelled, Delivered, Expired};
    let mut lab = Lab::new();
    for (outcome, is_bounce) in [(Delivered, false), (Bounced, true), (Expired, true), (Cancelled, true)] {
        let message = lab.accept(1).await;
        lab.end(&message, 0, outcome).await;
        let sent = lab.queue.sent(message.id, 0).unwrap().unwrap();
        assert_eq!((sent.outcome, sent.bounced_at), (outcome, is_bounce.then_some(AT.plus(DAY))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_takes_record_and_outcome_back_together() {
    let mut lab = Lab::new();
    let message = lab.accept(1).await;
    lab.end(&message, 0, RecipientOutcome::Delivered).await;
    assert_eq!((lab.kept(), lab.store.unsynced()), (1, 1));
    lab.store.crash();
    assert_eq!((lab.kept(), lab.store.dump(Family::Due).len(), lab.events()), (0, 1, 1));
    lab.end(&message, 0, RecipientOutcome::Delivered).await;
    lab.sync().await;
    lab.store.crash();
    assert_eq!((lab.kept(), lab.store.dump(Family::Due).len()), (1, 0));
    let after = Lab::on(lab.store.clone(), AT);
    assert!(after.queue.sent(message.id, 0).unwrap().is_some(), "a restart finds it");
}

#[tokio::test(start_paused = true)]
async fn before_the_outcome_the_queue_itself_knows_the_recipient() {
    let mut lab = Lab::new();
    let message = lab.accept(3).await;
    let pending = lab.queue.sent(message.id, 2).unwrap().unwrap();
    assert_eq!((pending.outcome, pending.ended_at), (RecipientOutcome::Pending, None));
    assert_eq!((&*pending.tenant, &*pending.configuration_set), ("shop", "receipts"));
    assert_eq!(pending.recipient.as_str(), "user@d2.test");
    lab.end(&message, 1, RecipientOutcome::Bounced).await;
    let outcomes = |limit| {
        let all = lab.queue.sent_to_all(message.id, limit).unwrap();
        all.iter().map(|sent| (sent.index, sent.outcome)).collect::<Vec<_>>()
    };
    let expected = [(0, RecipientOutcome::Pending), (1, RecipientOutcome::Bounced), (2, RecipientOutcome::Pending)];
    assert_eq!(outcomes(10), expected);
    assert_eq!(outcomes(2), expected[..2]);
    assert_eq!(outcomes(0), []);
    assert_eq!(lab.queue.sent(message.id, 3).unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_recipient_that_was_never_sent_to_is_not_known() {
    let lab = Lab::new();
    let mut new = new_message(lab.queue.new_id(), 2, NewBody::Inline(Bytes::from_static(b"\r\n")));
    let id = new.id;
    let ended = RecipientState { outcome: RecipientOutcome::Bounced, ..RecipientState::default() };
    new.ended.states.push((0, ended));
    lab.queue.accept(new).await.unwrap();
    assert_eq!(lab.queue.sent(id, 0).unwrap(), None, "it was suppressed with the acceptance");
    assert!(lab.queue.sent(id, 1).unwrap().is_some());
    assert_eq!(lab.queue.sent_to_all(id, 9).unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn our_own_notifications_are_not_remembered_and_null_paths_of_applications_are() {
    let mut lab = Lab::new();
    let mut message = (*lab.accept(1).await).clone();
    message.envelope.reverse_path = ReversePath::Null;
    assert_eq!(entry(&message, 0, RecipientOutcome::Delivered).len(), 1);
    message.origin.tenant = "".into();
    assert_eq!(entry(&message, 0, RecipientOutcome::Delivered).len(), 0);
    assert_eq!(entry(&message, 1, RecipientOutcome::Delivered).len(), 0, "there is no such recipient");
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_the_retention_is_not_found_and_goes_within_the_hour() {
    let mut lab = Lab::new();
    let old = lab.accept(1).await;
    lab.end(&old, 0, RecipientOutcome::Delivered).await;
    lab.queue.apply_feedback(feedback(old.id, 0, FeedbackKind::Complaint)).await.unwrap();
    lab.queue.sweep_sent().await;
    lab.clock.advance(DAY);
    let young = lab.accept(1).await;
    lab.end(&young, 0, RecipientOutcome::Delivered).await;
    lab.clock.advance(DAY * 29 - Duration::from_millis(1));
    let found = |lab: &Lab| [&old, &young].map(|message| lab.queue.sent(message.id, 0).unwrap().is_some());
    assert_eq!(found(&lab), [true, true]);
    lab.queue.sweep_sent().await;
    lab.sync().await;
    assert_eq!(lab.kept(), 3);
    lab.clock.advance(Duration::from_millis(1));
    assert_eq!(found(&lab), [false, true]);
    assert_eq!(lab.queue.sent_to_all(old.id, 9).unwrap(), []);
    let late = lab.queue.apply_feedback(feedback(old.id, 0, FeedbackKind::Bounce)).await.unwrap();
    assert_eq!(late, FeedbackEffect::Unknown);
    lab.queue.sweep_sent().await;
    lab.sync().await;
    assert_eq!(lab.kept(), 3, "the hour is not over");
    lab.clock.advance(Duration::from_secs(3_600));
    lab.queue.sweep_sent().await;
    lab.sync().await;
    assert_eq!(lab.kept(), 1, "record and mark are gone, the younger record stays");
    lab.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn with_a_retention_of_zero_nothing_is_written_and_what_was_there_goes() {
    let mut lab = Lab::new();
    let before = lab.accept(1).await;
    lab.end(&before, 0, RecipientOutcome::Delivered).await;
    assert_eq!(lab.kept(), 1);
    lab.queue.reload(&settings(Duration::ZERO));
    let (ended, pending) = (lab.accept(1).await, lab.accept(1).await);
    lab.end(&ended, 0, RecipientOutcome::Delivered).await;
    assert_eq!(lab.kept(), 1);
    for id in [before.id, ended.id, pending.id] {
        assert_eq!(lab.queue.sent(id, 0).unwrap(), None);
        let effect = lab.queue.apply_feedback(feedback(id, 0, FeedbackKind::Bounce)).await.unwrap();
        assert_eq!(effect, FeedbackEffect::Unknown);
    }
    lab.queue.sweep_sent().await;
    lab.sync().await;
    assert_eq!(lab.kept(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_is_not_asked_to_remove_anything() {
    let lab = Lab::new();
    lab.store.set_failing(true);
    lab.queue.write_and_wait(Vec::new(), true).await.expect_err("the disk is full");
    lab.queue.sweep_sent().await;
    lab.store.set_failing(false);
    // The committer finds out by itself that it works again.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let put = Change::Put { family: Family::Sent, key: Key::new(&[0; 24]), value: Bytes::new() };
    lab.store.write(&[put], true).unwrap();
    lab.queue.sweep_sent().await;
    lab.sync().await;
    assert_eq!(lab.kept(), 0, "the removal was made up for at once");
}

fn put(key: &[u8], value: &[u8]) -> Change {
    Change::Put { family: Family::Sent, key: Key::new(key), value: Bytes::copy_from_slice(value) }
}

fn salvaged(store: &ModelStore, fresh: &ModelStore) -> Salvaged {
    let copy = ModelStore::new();
    for family in Family::ALL {
        let puts = store.dump(family).into_iter();
        let puts: Vec<Change> = puts.map(|(key, value)| Change::Put { family, key: Key::new(&key), value }).collect();
        copy.write(&puts, true).unwrap();
    }
    let source = Source { name: "a way", store: Box::new(copy), families: Family::ALL.into() };
    salvage(&Sources(vec![source]), fresh, EventId::new(0), AT).unwrap()
}

#[tokio::test(start_paused = true)]
async fn damaged_records_are_told_of_and_left_out_and_recovery_brings_the_others_back() {
    let mut lab = Lab::new();
    let message = lab.accept(4).await;
    for group in 0..4 {
        lab.end(&message, group, RecipientOutcome::Delivered).await;
    }
    lab.queue.apply_feedback(feedback(message.id, 3, FeedbackKind::Complaint)).await.unwrap();
    let id = message.id.as_bytes();
    let damages = [
        put(&queue_format::sent_key(id, 0), b"junk"),
        put(&queue_format::sent_mark_key(id, 1, 9), b"junk"),
        put(&queue_format::sent_mark_key(id, 2, 1), b"junk"),
        put(&[7; 23], b"junk"),
    ];
    lab.store.write(&damages, true).unwrap();
    for index in 0..3 {
        let damaged = lab.queue.sent(message.id, index).unwrap_err();
        assert!(matches!(damaged, LoadError::Damaged(_)), "{damaged}");
    }
    assert!(lab.queue.sent(message.id, 3).unwrap().unwrap().complained_at.is_some());
    let all: Vec<u16> = lab.queue.sent_to_all(message.id, 9).unwrap().iter().map(|sent| sent.index).collect();
    assert_eq!(all, [1, 2, 3]);
    let found = violations(&*lab.store).unwrap();
    assert_eq!(found.iter().filter(|violation| violation.starts_with("SENT: ")).count(), 4, "{found:?}");
    let fresh = Arc::new(ModelStore::new());
    let told = salvaged(&lab.store, &fresh).damage;
    assert_eq!(told, ["sent table: 4 records cannot be read"]);
    assert_eq!(violations(&*fresh).unwrap(), Vec::<String>::new());
    let after = Lab::on(fresh, AT);
    assert_eq!(after.kept(), 4, "three records and a mark");
    assert!(after.queue.sent(message.id, 3).unwrap().unwrap().complained_at.is_some());
    let again = after.queue.apply_feedback(feedback(message.id, 3, FeedbackKind::Complaint)).await.unwrap();
    assert_eq!(again, FeedbackEffect::AlreadyKnown);
}

#[test]
fn a_store_of_the_release_before_gains_the_family_and_rocksdb_brings_records_back() {
    let directory = tempfile::tempdir().unwrap();
    let old = &Family::ALL[..13];
    assert_eq!(old.last(), Some(&Family::Source));
    let database = RocksStore::of_old(directory.path(), old).unwrap();
    database.write(&[committer::meta_put(meta::FORMAT, 4)], true).unwrap();
    assert!(database.get(Family::Sent, b"").is_err());
    drop(database);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut found = Vec::new();
    for day in 0..3_u32 {
        let store: Arc<dyn Store> = Arc::new(RocksStore::open(directory.path(), &RocksSettings::default()).unwrap());
        let clock = Arc::new(ManualClock::at(AT.plus(DAY * 15 * day)));
        let opened = Queue::open(Arc::clone(&store), &settings(DAY * 30), clock, day.into()).unwrap();
        let Opened { queue, handoffs, committer, .. } = opened;
        runtime.block_on(async {
            queue.sweep_sent().await;
            let message = StoredMessage::from_new(&new_message(queue.new_id(), 1, NewBody::Inline(Bytes::new())));
            let sent = entry(&message, 0, RecipientOutcome::Delivered);
            let next = Settlement { sent, ..Settlement::new(JobKey { id: message.id, group: 0 }, None, Next::Gone) };
            queue.settle(next, || ()).await;
            queue.write_and_wait(Vec::new(), true).await.unwrap();
            let effect = queue.apply_feedback(feedback(message.id, 0, FeedbackKind::Bounce)).await.unwrap();
            assert_eq!(effect, FeedbackEffect::Applied);
            found.push(message.id);
        });
        let is_found = |id: &MessageId| queue.sent(*id, 0).unwrap().is_some_and(|sent| sent.bounced_at == Some(AT));
        let all: Vec<bool> = found.iter().map(is_found).collect();
        assert_eq!(all, [vec![day < 2], vec![true; all.len() - 1]].concat(), "after {day} half months");
        let records = store.scan(Family::Sent, b"", &[0xff; 30], 100).unwrap();
        assert_eq!(records.len(), 2 * all.iter().filter(|found| **found).count(), "the others are gone from the disk");
        drop((queue, handoffs));
        committer.join().unwrap();
    }
}
