//! The queue against its specification: random accept, settle, hold, crash and reopen, on the model store and on RocksDB.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::oneshot;

use super::invariants::violations;
use super::model::ModelStore;
use super::rocks::{RocksSettings, RocksStore};
use super::store::{Family, Store};
use super::testing::{line, new_message};
use super::*;
use crate::events::{EventId, EventKind, Outbox};
use crate::types::{EmailAddress, ManualClock, SuppressionReason};

/// One step of a random run. Numbers are taken modulo what exists.
#[derive(Clone, Debug)]
enum Step {
    /// `ended` has a bit for each domain whose recipient ends with the acceptance.
    Accept {
        domains: u8,
        spooled: bool,
        ended: u8,
        headers: bool,
    },
    Deliver(usize),
    Defer(usize),
    Hold(usize),
    Bounce {
        job: usize,
        dsn: bool,
    },
    Suppress {
        list: u8,
        address: u8,
        complaint: bool,
    },
    Unsuppress {
        list: u8,
        address: u8,
    },
    SaveLane(u32),
    ForgetLane(u32),
    SaveHistory(u32),
    PruneHistory(u32),
    SaveLife(u8),
    Report(usize),
    Consume,
    Reopen,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..4_u8, any::<bool>(), prop_oneof![Just(0), 0..8_u8], any::<bool>())
            .prop_map(|(domains, spooled, ended, headers)| Step::Accept { domains, spooled, ended, headers }),
        2 => (0..4_u8, 0..4_u8, any::<bool>())
            .prop_map(|(list, address, complaint)| Step::Suppress { list, address, complaint }),
        1 => (0..4_u8, 0..4_u8).prop_map(|(list, address)| Step::Unsuppress { list, address }),
        4 => any::<usize>().prop_map(Step::Deliver),
        2 => any::<usize>().prop_map(Step::Defer),
        1 => any::<usize>().prop_map(Step::Hold),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(job, dsn)| Step::Bounce { job, dsn }),
        1 => (0..32_u32).prop_map(Step::SaveLane),
        1 => (0..32_u32).prop_map(Step::ForgetLane),
        1 => (0..32_u32).prop_map(Step::SaveHistory),
        1 => (0..9_u32).prop_map(Step::PruneHistory),
        1 => any::<u8>().prop_map(Step::SaveLife),
        2 => any::<usize>().prop_map(Step::Report),
        1 => Just(Step::Consume),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..40)
}

/// The header block of the recipient in this domain.
fn header_of(domain: u8) -> Bytes {
    format!("X-To: {domain}\r\n").into()
}

struct World {
    store: Arc<dyn Store>,
    clock: Arc<ManualClock>,
    opened: Option<Opened>,
    /// What must be there: jobs with their place, by key. `None`: held.
    jobs: BTreeMap<JobKey, Option<Timestamp>>,
    /// Suppression lists: list and address to reason.
    lists: BTreeMap<(u8, u8), SuppressionReason>,
    /// Lanes by site.
    lanes: BTreeMap<Box<str>, LaneRecord>,
    kept: history_tests::Kept,
    sent: sent_tests::Remembered,
    last_event: u64,
}

impl World {
    fn new(store: Arc<dyn Store>) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_700_000_000_000)));
        let (jobs, lists, lanes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (kept, sent) = (history_tests::Kept::default(), sent_tests::Remembered::default());
        let mut world = Self { store, clock, opened: None, jobs, lists, lanes, kept, sent, last_event: 0 };
        world.open();
        world
    }

    fn open(&mut self) {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let settings = Settings { free_space_reserve_bytes: 0, ..Settings::default() };
        let opened = Queue::open(Arc::clone(&self.store), &settings, clock, 7).unwrap();
        opened.queue.mark_running().unwrap();
        self.opened = Some(opened);
    }

    /// Ends the queue as the end of the process does; the committer's last sync included.
    fn close(&mut self) {
        let Opened { queue, handoffs, committer, .. } = self.opened.take().unwrap();
        drop((queue, handoffs));
        committer.join().unwrap();
    }

    fn queue(&self) -> &Queue {
        &self.opened.as_ref().unwrap().queue
    }

    async fn accept(&mut self, domains: u8, spooled: bool, ended: u8, headers: bool) {
        self.clock.advance(Duration::from_millis(3));
        let queue = self.queue().clone();
        let id = queue.new_id();
        let body = if spooled {
            queue.spool(id, 0, Bytes::from_static(b"part 0")).await.unwrap();
            queue.spool(id, 1, Bytes::from_static(b"part 1")).await.unwrap();
            NewBody::Spooled { parts: 2, bytes: 12 }
        } else {
            NewBody::Inline(Bytes::from_static(b"Subject: x\r\n\r\nbody\r\n"))
        };
        let is_ended = |domain: u16| ended & (1 << domain) != 0;
        let (over, open): (Vec<u16>, Vec<u16>) = (0..u16::from(domains)).partition(|domain| is_ended(*domain));
        let mut message = new_message(id, domains, body);
        message.recipient_headers = (0..domains).filter(|_| headers).map(header_of).collect();
        for index in &over {
            let state = RecipientState { outcome: RecipientOutcome::Bounced, ..RecipientState::default() };
            message.ended.states.push((u32::from(*index), state));
            message.ended.events.push(line(EventKind::Bounce));
        }
        queue.accept(message).await.unwrap();
        if !open.is_empty() {
            let handoff = self.opened.as_mut().unwrap().handoffs.recv().await.unwrap();
            assert_eq!(handoff.message.id, id);
            assert_eq!(handoff.message.open_groups().collect::<Vec<_>>(), open);
            for domain in 0..domains {
                let block = handoff.recipient_headers.of(usize::from(domain));
                assert_eq!(block, headers.then(|| header_of(domain)));
            }
        }
        self.last_event += 1 + over.len() as u64;
        for group in open {
            self.jobs.insert(JobKey { id, group }, Some(self.clock.now()));
            self.sent.accepted(JobKey { id, group });
        }
    }

    fn pick(&self, number: usize) -> Option<(JobKey, Option<Timestamp>, StoredMessage)> {
        let (key, place) = self.jobs.iter().nth(number.checked_rem(self.jobs.len())?)?;
        let message = self.queue().load(key.id).unwrap().expect("a job's message is there");
        Some((*key, *place, message))
    }

    async fn settle(&mut self, key: JobKey, place: Option<Timestamp>, next: Next, message: &StoredMessage, dsn: bool) {
        self.clock.advance(Duration::from_millis(3));
        let queue = self.queue().clone();
        let outcome = match next {
            Next::Ended(_) => RecipientOutcome::Delivered,
            _ => RecipientOutcome::Pending,
        };
        let state = RecipientState {
            outcome,
            attempts: 1,
            first_attempt_ms: 1,
            last_attempt_ms: 1,
            last_reply: "451 later".to_owned(),
            last_rule: String::new(),
            last_host: String::new(),
            delay_notices: 0,
            failing_since_ms: 0,
            ambiguous: false,
            next_attempt_ms: 0,
        };
        let states = message.pending(key.group).map(|index| (u32::try_from(index).unwrap(), state.clone())).collect();
        let id = queue.new_id();
        let body = NewBody::Inline(Bytes::from_static(b"Subject: dsn\r\n\r\n"));
        let notifications = if dsn { vec![new_message(id, 1, body)] } else { Vec::new() };
        match &next {
            Next::Ended(_) | Next::Gone => drop(self.jobs.remove(&key)),
            Next::Due { at, .. } => drop(self.jobs.insert(key, Some(*at))),
            Next::Held { .. } => drop(self.jobs.insert(key, None)),
        }
        let events = vec![line(EventKind::Delivery)];
        let sent = if let Next::Ended(_) = next { self.sent.ended(message, key) } else { Vec::new() };
        let (sender, receiver) = oneshot::channel();
        let settlement = Settlement { sent, states, events, notifications, ..Settlement::new(key, place, next) };
        queue
            .settle(settlement, move || {
                let _ = sender.send(());
            })
            .await;
        receiver.await.unwrap();
        self.last_event += 1 + u64::from(dsn);
        if dsn {
            self.opened.as_mut().unwrap().handoffs.recv().await.unwrap();
            self.jobs.insert(JobKey { id, group: 0 }, Some(id.accepted_at()));
            self.sent.accepted(JobKey { id, group: 0 });
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Accept { domains, spooled, ended, headers } => self.accept(domains, spooled, ended, headers).await,
            Step::Suppress { list, address, complaint } => {
                let reason = if complaint { SuppressionReason::Complaint } else { SuppressionReason::Bounce };
                let entry = suppression_tests::entry(&format!("user{address}@d.test"), reason);
                let effect = self.queue().suppress(&suppression_tests::list(list), &[entry]).await.unwrap();
                let was = self.lists.insert((list, address), reason);
                let sums = (u64::from(was.is_none()), u64::from(was.is_some_and(|was| was != reason)));
                assert_eq!((effect.added, effect.changed), sums);
            }
            Step::Unsuppress { list, address } => {
                let address_text = EmailAddress::parse(&format!("user{address}@d.test"), false).unwrap();
                let was = self.queue().unsuppress(&suppression_tests::list(list), &address_text).await.unwrap();
                assert_eq!(was, self.lists.remove(&(list, address)).is_some());
            }
            Step::SaveLane(number) => {
                let lane = lanes_tests::record(number);
                self.lanes.insert(lane.site.clone(), lane.clone());
                self.save_lanes(LaneChanges { put: vec![lane], sync: number % 3 == 0, ..LaneChanges::default() }).await;
            }
            Step::ForgetLane(number) => {
                let LaneRecord { source, site, .. } = lanes_tests::record(number);
                self.lanes.remove(&site);
                self.save_lanes(LaneChanges { remove: vec![(source, site)], ..LaneChanges::default() }).await;
            }
            Step::SaveHistory(number) => {
                let rows = self.kept.save(number);
                self.queue().save_history(&rows).await;
                self.queue().write_and_wait(Vec::new(), false).await.unwrap();
            }
            Step::PruneHistory(day) => {
                self.kept.prune(day);
                self.queue().prune_history(day).await;
                self.queue().write_and_wait(Vec::new(), false).await.unwrap();
            }
            Step::SaveLife(number) => {
                let life = self.kept.live(number);
                self.last_event += 1;
                self.queue().save_source_life(&[life], vec![line(EventKind::Lane)]).await;
                self.queue().write_and_wait(Vec::new(), false).await.unwrap();
            }
            Step::Report(number) => self.report(number).await,
            Step::Deliver(number) => self.end(number, false).await,
            Step::Bounce { job, dsn } => self.end(job, dsn).await,
            Step::Defer(number) => {
                let Some((key, place, message)) = self.pick(number) else { return };
                let at = self.clock.now().plus(Duration::from_secs(60));
                let next = Next::Due { at, entry: message.due_entry(key.group, 1, None) };
                self.settle(key, place, next, &message, false).await;
            }
            Step::Hold(number) => {
                let Some((key, Some(due_at), message)) = self.pick(number) else { return };
                let (entry, reason) = (message.due_entry(key.group, 1, None), "test".to_owned());
                self.settle(key, Some(due_at), Next::Held { due_at, entry, reason }, &message, false).await;
            }
            Step::Consume => {
                let outbox = self.queue().outbox();
                let synced = outbox.read(outbox.oldest().unwrap(), 1_000).unwrap();
                if let Some(event) = synced.get(synced.len() / 2) {
                    outbox.consumed(event.id).unwrap();
                }
            }
            Step::Reopen | Step::Crash => {
                self.close();
                self.open();
            }
        }
        self.check();
    }

    /// With an event.
    async fn save_lanes(&mut self, mut changes: LaneChanges) {
        let (sender, receiver) = oneshot::channel();
        changes.events.push(line(EventKind::Lane));
        self.last_event += 1;
        let done = move || {
            let _ = sender.send(());
        };
        self.queue().save_lanes(changes, done).await;
        receiver.await.unwrap();
    }

    async fn report(&mut self, number: usize) {
        let queue = self.queue().clone();
        self.last_event += self.sent.report(&queue, number).await;
    }

    async fn end(&mut self, number: usize, dsn: bool) {
        let Some((key, place, message)) = self.pick(number) else { return };
        let end = EndGroup {
            id: key.id,
            group: key.group,
            groups: u16::try_from(message.domains.len()).unwrap(),
            body_parts: message.body_parts,
            recipients: u32::try_from(message.envelope.recipients.len()).unwrap(),
            recipient_headers: message.recipient_headers,
            has_states: message.has_states(),
        };
        self.settle(key, place, Next::Ended(end), &message, dsn).await;
    }

    fn check(&self) {
        assert_eq!(violations(&*self.store).unwrap(), Vec::<String>::new());
        let mut lanes = self.queue().lanes(100).unwrap();
        lanes.sort_by(|left, right| left.site.cmp(&right.site));
        assert!(lanes.iter().eq(self.lanes.values()), "{lanes:?}");
        self.kept.check(self.queue());
        self.sent.check(self.queue());
        let due = self.queue().due(DueKey::START, DueKey::at(Timestamp::MAX), 10_000).unwrap();
        let mut found: BTreeMap<JobKey, Option<Timestamp>> =
            due.jobs.iter().map(|job| (job.key, Some(job.due_at))).collect();
        found.extend(self.queue().held(None, 10_000).unwrap().into_iter().map(|job| (job.key, None)));
        assert_eq!(found, self.jobs);
        for id in self.jobs.keys().map(|key| key.id) {
            let message = self.queue().load(id).unwrap().expect("a job's message is there");
            for domain in (0..message.groups.len()).filter(|_| message.recipient_headers) {
                let block = self.queue().recipient_header(id, domain).unwrap();
                assert_eq!(block, header_of(u8::try_from(domain).unwrap()));
            }
        }
        for list in 0..4 {
            let expected: BTreeMap<String, SuppressionReason> = self
                .lists
                .iter()
                .filter(|((of, _), _)| *of == list)
                .map(|((_, address), reason)| (format!("user{address}@d.test"), *reason))
                .collect();
            let name = suppression_tests::list(list);
            let (entries, more) = self.queue().suppressions(&name, None, 100).unwrap();
            let entries: BTreeMap<_, _> =
                entries.into_iter().map(|entry| (entry.address.to_string(), entry.reason)).collect();
            assert_eq!((entries, more), (expected.clone(), false));
            assert_eq!(self.queue().suppression_count(&name), expected.len() as u64);
        }
    }
}

fn run(store: Arc<dyn Store>, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(store);
        for step in steps {
            world.step(step).await;
        }
        world.close();
        world.open();
        world.check();
        let last = world.store.last(Family::Outbox).unwrap();
        let last = last.and_then(|(key, _)| queue_format::parse_outbox_key(&key));
        assert!(last.is_none_or(|last| last == world.last_event), "event ids rise by one");
        world.close();
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_history_leaves_the_model_store_as_specified(steps in steps()) {
        run(Arc::new(ModelStore::new()), steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn any_history_leaves_rocksdb_as_specified(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let steps: Vec<Step> = steps.into_iter().filter(|step| !matches!(step, Step::Reopen | Step::Crash)).collect();
        let settings = RocksSettings { memtable_bytes: 1 << 20, ..RocksSettings::default() };
        run(Arc::new(RocksStore::open(directory.path(), &settings).unwrap()), steps.clone());
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_power_cut_right_after_accept_loses_nothing() {
    block_on(async {
        let store = Arc::new(ModelStore::new());
        let mut world = World::new(store.clone());
        world.accept(2, false, 0, true).await;
        world.accept(1, true, 0, true).await;
        store.crash();
        world.close();
        world.open();
        world.check();
        assert!(world.opened.as_ref().unwrap().unclean_since.is_some());
        world.close();
    });
}

#[test]
fn a_notification_is_safe_before_it_is_handed_on() {
    block_on(async {
        let store = Arc::new(ModelStore::new());
        let mut world = World::new(store.clone());
        world.accept(1, false, 0, false).await;
        // Returns when the scheduler has the notification.
        world.end(0, true).await;
        store.crash();
        world.close();
        world.open();
        world.check();
        world.close();
    });
}

#[test]
fn a_power_cut_before_an_outcome_is_synced_brings_the_job_back_and_no_event() {
    block_on(async {
        let store = Arc::new(ModelStore::new());
        let mut world = World::new(store.clone());
        world.accept(1, false, 0, false).await;
        let before = world.jobs.clone();
        // The write is made without a sync; the crash follows before the lazy one.
        world.end(0, false).await;
        store.crash();
        (world.jobs, world.sent) = (before, Default::default());
        let events = world.queue().outbox().read(EventId::new(1), 10).unwrap();
        let published = events.len();
        world.close();
        world.open();
        world.check();
        assert!(published <= 2);
        world.close();
    });
}

#[test]
fn spooled_parts_without_a_message_are_swept_at_the_next_start() {
    block_on(async {
        let mut world = World::new(Arc::new(ModelStore::new()));
        world.accept(1, true, 0, true).await;
        let queue = world.queue().clone();
        let id = queue.new_id();
        queue.spool(id, 0, Bytes::from_static(b"orphan")).await.unwrap();
        queue.spool(id, 1, Bytes::from_static(b"orphan")).await.unwrap();
        drop(queue);
        world.close();
        world.open();
        assert_eq!(world.opened.as_ref().unwrap().swept_parts, 2);
        world.check();
        world.close();
    });
}

#[test]
fn a_dead_disk_refuses_mail_keeps_outcomes_and_recovers() {
    block_on(async {
        let store = Arc::new(ModelStore::new());
        let mut world = World::new(store.clone());
        world.accept(1, false, 0, false).await;
        store.set_failing(true);
        let queue = world.queue().clone();
        let id = queue.new_id();
        let body = NewBody::Inline(Bytes::from_static(b"\r\n"));
        let refused = queue.accept(new_message(id, 1, body.clone())).await;
        assert!(matches!(refused, Err(AcceptError::NotDurable(_))), "{refused:?}");
        assert!(matches!(queue.check(1), Err(AcceptError::NotDurable(_))), "the next one is refused before DATA");
        let (key, place, message) = world.pick(0).unwrap();
        let (sender, mut receiver) = oneshot::channel();
        let next = Next::Ended(EndGroup {
            id: key.id,
            group: 0,
            groups: 1,
            body_parts: 0,
            recipients: 1,
            recipient_headers: false,
            has_states: message.has_states(),
        });
        let events = vec![line(EventKind::Delivery)];
        let settlement = Settlement { events, ..Settlement::new(key, place, next) };
        queue
            .settle(settlement, move || {
                let _ = sender.send(());
            })
            .await;
        assert!(receiver.try_recv().is_err());
        store.set_failing(false);
        receiver.await.expect("the outcome is written once the disk works");
        queue.accept(new_message(queue.new_id(), 1, body)).await.expect("mail is taken again");
        drop(queue);
        world.close();
        assert_eq!(violations(&*world.store).unwrap(), Vec::<String>::new());
    });
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_that_was_over_does_not_count_against_the_next_one() {
    let store = Arc::new(ModelStore::new());
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
    let opened = Queue::open_inline(store.clone(), &Settings::default(), clock, 1).unwrap();
    let queue = opened.queue;
    tokio::spawn(opened.committer.run(Duration::ZERO));
    let refuse = async || {
        store.set_failing(true);
        queue.write_and_wait(Vec::new(), true).await.expect_err("the disk is full");
    };
    refuse().await;
    store.set_failing(false);
    // Nothing is written but by the committer itself, which finds out that it works again.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(queue.health().failure(), None);
    refuse().await;
    assert_eq!(queue.health().lost(), None, "there is room, and it was full for a moment only");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(queue.health().lost().is_some(), "with room it should work again: a new start is needed");
}

#[test]
fn limits_refuse_before_anything_is_written() {
    block_on(async {
        let mut world = World::new(Arc::new(ModelStore::new()));
        world.accept(1, false, 0, false).await;
        let queue = world.queue().clone();
        queue.reload(&Settings { messages_max: 1, free_space_reserve_bytes: 0, ..Settings::default() });
        assert!(matches!(queue.check(0), Err(AcceptError::QueueFull { limit: 1 })));
        queue.reload(&Settings { free_space_reserve_bytes: 100, ..Settings::default() });
        queue.health().set_free_bytes(109);
        assert!(queue.check(9).is_ok());
        assert!(matches!(queue.check(10), Err(AcceptError::LowDisk { free_bytes: 109, reserve_bytes: 100 })));
        drop(queue);
        world.close();
    });
}

#[test]
fn an_orderly_stop_is_remembered_and_a_newer_format_is_refused() {
    block_on(async {
        let mut world = World::new(Arc::new(ModelStore::new()));
        assert!(world.opened.as_ref().unwrap().unclean_since.is_none(), "a fresh store is clean");
        world.queue().mark_clean_stop().await.unwrap();
        world.close();
        world.open();
        assert!(world.opened.as_ref().unwrap().unclean_since.is_none());
        world.close();
        world.open();
        let unclean_since = world.opened.as_ref().unwrap().unclean_since;
        assert!(unclean_since.is_some());
        world.queue().mark_clean_stop().await.unwrap();
        world.close();
        world.open();
        let opened = world.opened.as_ref().unwrap();
        assert!(opened.was_clean);
        assert_eq!(opened.unclean_since, unclean_since, "what was due then and not tried since is still doubtful");
        world.close();
        world.store.write(&[committer::meta_put(meta::FORMAT, 99)], true).unwrap();
        let refused = Queue::open(Arc::clone(&world.store), &Settings::default(), world.clock.clone(), 1).err();
        assert!(matches!(refused, Some(OpenError::NewerFormat { found: 99, supported: format::FORMAT_VERSION })));
    });
}

#[test]
fn rocksdb_brings_everything_back_after_a_reopen() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let open = || Arc::new(RocksStore::open(directory.path(), &RocksSettings::default()).unwrap());
        let mut world = World::new(open());
        for domains in 1..4 {
            world.accept(domains, domains == 2, 0, domains > 1).await;
        }
        world.step(Step::Defer(1)).await;
        world.step(Step::Deliver(3)).await;
        world.close();
        world.store = Arc::new(ModelStore::new());
        world.store = open();
        world.open();
        world.check();
        world.close();
    });
}
