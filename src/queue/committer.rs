//! Group commit: one OS thread joins all transactions that wait into one batch, writes it with one sync if any of them
//! asked for it, and then tells each of them.
//!
//! Promises: transactions are applied in the order in which they were queued, each whole or not at all; event ids rise
//! in that order; an event is published only after the batch that holds it is synced; what was written without a sync
//! is synced at most [`LAZY_SYNC_AFTER`] later. A failed write fails the acceptances in it (451) and keeps all others
//! for the next try: the outcome of a delivery is never dropped, for that would make a duplicate. Where the error is not
//! a full disk, nobody knows what is on the disk now: [`Health::lost`] tells the daemon to end.
//!
//! [`Committer::step`] does one thing and never waits; [`Committer::run`] waits for it on a thread of its own, and
//! `inline` on the runtime of a simulation.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam::channel::{Receiver, RecvTimeoutError, TryRecvError};
use queue_format as format;
use tokio::time::Instant;

use super::counters::{Counters, Place};
use super::feedback::{self, Mark};
use super::health::Health;
use super::intake::Charge;
use super::list_counts::{ListBatch, ListChanges, ListCounts};
use super::outbox::QueueOutbox;
use super::reputation::{MarkBook, MarkInbox, ReputationCharge};
use super::store::{Change, Family, Key, Store, StoreError, StoreErrorKind};
use super::telling::Bounces;
use crate::events::{EventId, EventLine, OutboxEvent, metric};
use crate::types::MessageId;

/// Outcomes written without a sync of their own survive a power cut after this long.
pub(super) const LAZY_SYNC_AFTER: Duration = Duration::from_millis(100);
/// Pause before a failed write is tried again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// With so much room a write that fails for want of it should work again: RocksDB looks each 5 s, and sometimes gives up.
const ROOM_BYTES: u64 = 256 << 20;
/// After this time it has given up.
const BASELESS_MAX: Duration = Duration::from_secs(12);
/// Transactions in one batch: more would only delay the first ones.
const BATCH_TRANSACTIONS_MAX: usize = 512;
/// Octets in one batch before it is written: bounds the memory of the copy that RocksDB makes.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// Messages with several destinations whose ended ones are remembered; when full, all are forgotten and read again.
const ENDED_GROUPS_MAX: usize = 50_000;

/// Called on the committer's thread when the fate of a transaction is known. Must not block on the committer.
pub(super) type Completion = Box<dyn FnOnce(Result<(), &StoreError>) + Send>;

/// What must be written as one.
pub(super) struct Transaction {
    pub(super) changes: Vec<Change>,
    pub(super) events: Vec<EventLine>,
    /// What the new messages cost.
    pub(super) charges: Vec<Charge>,
    /// What its outcomes mean for reputation.
    pub(super) marks: Vec<ReputationCharge>,
    /// New messages in it: one for an acceptance, DSNs beside an outcome.
    pub(super) accepts: u32,
    /// How many of them are kept: not those that end with their acceptance.
    pub(super) kept: u32,
    /// Jobs of those messages.
    pub(super) new_jobs: u32,
    /// The destination that has no pending recipient any more.
    pub(super) ends: Option<EndGroup>,
    /// Changes of suppression lists.
    pub(super) lists: Option<Box<ListChanges>>,
    /// Where this is there already, nothing of the transaction is written.
    pub(super) mark: Option<Box<Mark>>,
    /// What it tells of recipients that bounce by it.
    pub(super) bounces: Option<Box<Bounces>>,
    /// The caller's promise depends on the disk: accept.
    pub(super) sync: bool,
    /// The caller waits for the disk, but asks for no sync of its own: it is told after the next one.
    pub(super) told_when_synced: bool,
    /// Where the disk fails, the caller hears of it and tells a client; otherwise the transaction is tried again.
    pub(super) may_fail: bool,
    pub(super) done: Completion,
}

/// A destination that ended, and what belongs to its message: removed when it was the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndGroup {
    /// The message.
    pub id: MessageId,
    /// Which of its destinations.
    pub group: u16,
    /// How many it has in all.
    pub groups: u16,
    /// How many body parts it has; 0: one inline body.
    pub body_parts: u32,
    /// How many recipients.
    pub recipients: u32,
    /// Whether each recipient has a header block of its own.
    pub recipient_headers: bool,
    /// Whether any recipient has a state record.
    pub has_states: bool,
}

/// The committer's own state. Runs on its thread until the channel closes.
pub(super) struct Committer {
    store: Arc<dyn Store>,
    outbox: Arc<QueueOutbox>,
    health: Arc<Health>,
    lists: Arc<ListCounts>,
    inbox: Receiver<Transaction>,
    next_event: EventId,
    size: Size,
    ended: HashMap<MessageId, Vec<u8>>,
    counters: Counters,
    marks: MarkBook,
    /// Not droppable, not yet written: the store failed.
    backlog: Vec<Transaction>,
    unsynced_since: Option<Instant>,
    /// Written, and to be told when it is synced.
    told_later: Vec<Completion>,
    /// Since when writes fail for want of room while there is room.
    baseless_since: Option<Instant>,
}

/// How much is in the queue: kept in the meta family by the batches that change it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) messages: u64,
    pub(super) jobs: u64,
}

/// A batch as it will be written.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    events: Vec<OutboxEvent>,
    bytes: usize,
    sync: bool,
    size: Size,
    lists: ListBatch,
    /// New sums of marks.
    marks: Vec<(Place, u64)>,
}

impl Committer {
    pub(super) fn new(
        store: Arc<dyn Store>,
        outbox: Arc<QueueOutbox>,
        health: Arc<Health>,
        lists: Arc<ListCounts>,
        inbox: Receiver<Transaction>,
        next_event: EventId,
        size: Size,
    ) -> Self {
        Self {
            store,
            outbox,
            health,
            lists,
            inbox,
            next_event,
            size,
            ended: HashMap::new(),
            counters: Counters::of_quotas(),
            marks: MarkBook::default(),
            backlog: Vec::new(),
            unsynced_since: None,
            told_later: Vec::new(),
            baseless_since: None,
        }
    }

    /// Where the sums of marks come to, once they are written.
    pub(super) fn mark_inbox(&self) -> Arc<MarkInbox> {
        self.marks.inbox()
    }

    /// Commits until all senders are gone and everything is written and synced. Blocks: for a thread of its own.
    pub(super) fn run(mut self) {
        loop {
            let wake = self.wait();
            match self.step(wake) {
                After::GoOn => {}
                After::Pause => std::thread::sleep(RETRY_AFTER),
                After::End => return,
            }
        }
    }

    /// One batch, one sync or the end; never waits.
    pub(super) fn step(&mut self, wake: Wake) -> After {
        let first = match wake {
            Wake::Transaction(transaction) => Some(transaction),
            Wake::Retry => None,
            Wake::Sync => return if self.sync_now() { After::GoOn } else { After::Pause },
            Wake::Closed => {
                self.close();
                return After::End;
            }
        };
        let transactions = self.gather(first);
        if !transactions.is_empty() {
            self.commit(transactions);
        }
        After::GoOn
    }

    fn close(&mut self) {
        if !self.backlog.is_empty() {
            tracing::error!(
                lost = self.backlog.len(),
                "outcomes could not be written before the end; next start repeats them"
            );
        }
        self.sync_now();
    }

    /// How long to wait for a transaction; `None`: for as long as it takes.
    pub(super) fn patience(&self) -> Option<Duration> {
        match (self.backlog.is_empty(), self.unsynced_since) {
            (false, _) => Some(RETRY_AFTER),
            (true, Some(since)) => Some(LAZY_SYNC_AFTER.saturating_sub(since.elapsed())),
            (true, None) => self.health.failure().map(|_| RETRY_AFTER),
        }
    }

    /// What to do when [`Committer::patience`] is over.
    pub(super) fn out_of_patience(&self) -> Wake {
        if self.backlog.is_empty() { Wake::Sync } else { Wake::Retry }
    }

    /// What is there already; `None`: wait.
    pub(super) fn peek(&self) -> Option<Wake> {
        match self.inbox.try_recv() {
            Ok(transaction) => Some(Wake::Transaction(transaction)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Wake::Closed),
        }
    }

    fn wait(&self) -> Wake {
        let Some(patience) = self.patience() else {
            return self.inbox.recv().map_or(Wake::Closed, Wake::Transaction);
        };
        match self.inbox.recv_timeout(patience) {
            Ok(transaction) => Wake::Transaction(transaction),
            Err(RecvTimeoutError::Timeout) => self.out_of_patience(),
            Err(RecvTimeoutError::Disconnected) => Wake::Closed,
        }
    }

    /// What waits, up to the bounds of a batch, oldest first.
    fn gather(&mut self, first: Option<Transaction>) -> Vec<Transaction> {
        let mut transactions = std::mem::take(&mut self.backlog);
        transactions.extend(first);
        let mut bytes: usize = transactions.iter().map(Transaction::bytes).sum();
        while transactions.len() < BATCH_TRANSACTIONS_MAX && bytes < BATCH_BYTES_MAX {
            let Ok(transaction) = self.inbox.try_recv() else { break };
            bytes += transaction.bytes();
            transactions.push(transaction);
        }
        transactions
    }

    fn commit(&mut self, mut transactions: Vec<Transaction>) {
        if self.ended.len() > ENDED_GROUPS_MAX {
            self.ended.clear();
        }
        let started = Instant::now();
        let result = self.assemble(&mut transactions).and_then(|batch| {
            self.store.write(&batch.changes, batch.sync)?;
            Ok(batch)
        });
        match result {
            Ok(batch) => {
                metrics::histogram!(metric::COMMIT_OPERATIONS).record(transactions.len() as f64);
                let synced = if batch.sync { "yes" } else { "no" };
                metrics::histogram!(metric::COMMIT_SECONDS, "synced" => synced).record(started.elapsed());
                let is_synced = batch.sync;
                self.health.add_accepted(transactions.iter().map(|transaction| u64::from(transaction.accepts)).sum());
                let mut done = Vec::with_capacity(transactions.len());
                for transaction in transactions {
                    let later = transaction.told_when_synced && !is_synced;
                    if later { &mut self.told_later } else { &mut done }.push(transaction.done);
                }
                self.committed(batch, started);
                done.into_iter().for_each(|done| done(Ok(())));
            }
            Err(error) => self.failed(transactions, &error),
        }
    }

    fn assemble(&mut self, transactions: &mut [Transaction]) -> Result<Batch, StoreError> {
        let mut batch = Batch { size: self.size, ..Batch::default() };
        let mut next_event = self.next_event;
        feedback::drop_known(transactions, &*self.store)?;
        let charges = transactions.iter().flat_map(|transaction| &transaction.charges);
        self.counters.charge(&*self.store, charges, &mut batch.changes)?;
        let marks = transactions.iter().flat_map(|transaction| &transaction.marks);
        batch.marks = self.marks.add(&*self.store, marks, &mut batch.changes)?;
        for transaction in transactions {
            batch.sync |= transaction.sync;
            batch.bytes += transaction.bytes();
            batch.changes.extend(transaction.changes.iter().cloned());
            for line in &transaction.events {
                batch.changes.push(outbox_put(next_event, line));
                batch.events.push(OutboxEvent { id: next_event, line: Some(line.clone()) });
                next_event = next_event.next();
            }
            batch.size.messages += u64::from(transaction.kept);
            batch.size.jobs += u64::from(transaction.new_jobs);
            if let Some(lists) = &transaction.lists {
                batch.lists.add(lists, &self.lists, &*self.store, &mut batch.changes)?;
            }
            if let Some(end) = transaction.ends {
                batch.size.jobs = batch.size.jobs.saturating_sub(1);
                self.end_group(end, &mut batch)?;
            }
        }
        batch.lists.finish(&mut batch.changes);
        if batch.size.messages != self.size.messages {
            batch.changes.push(meta_put(super::meta::MESSAGES, batch.size.messages));
        }
        if batch.size.jobs != self.size.jobs {
            batch.changes.push(meta_put(super::meta::JOBS, batch.size.jobs));
        }
        Ok(batch)
    }

    /// Marks a destination as ended; with the last one, the message goes.
    fn end_group(&mut self, end: EndGroup, batch: &mut Batch) -> Result<(), StoreError> {
        if end.groups > 1 {
            let key = format::recipient_key(end.id.as_bytes(), ENDED_GROUPS_INDEX);
            let ended = match self.ended.entry(end.id) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    let stored = self.store.get(Family::Recipient, &key)?;
                    entry.insert(stored.map_or_else(Vec::new, |bytes| bytes.to_vec()))
                }
            };
            ended.resize(usize::from(end.groups).div_ceil(8), 0);
            if let Some(byte) = ended.get_mut(usize::from(end.group / 8)) {
                *byte |= 1 << (end.group % 8);
            }
            let count: u32 = ended.iter().map(|byte| byte.count_ones()).sum();
            if count < u32::from(end.groups) {
                let value = Bytes::copy_from_slice(ended);
                batch.changes.push(Change::Put { family: Family::Recipient, key: Key::new(&key), value });
                return Ok(());
            }
            self.ended.remove(&end.id);
            batch.changes.push(Change::Delete { family: Family::Recipient, key: Key::new(&key) });
        }
        batch.size.messages = batch.size.messages.saturating_sub(1);
        remove_message(end, &mut batch.changes);
        Ok(())
    }

    fn committed(&mut self, batch: Batch, started: Instant) {
        self.works();
        self.size = batch.size;
        self.health.set_size(self.size);
        batch.lists.committed(&self.lists);
        self.marks.committed(batch.marks);
        if let Some(last) = batch.events.last() {
            self.next_event = last.id.next();
            self.outbox.committed(batch.events);
        }
        if batch.sync {
            self.synced();
        } else {
            self.unsynced_since.get_or_insert(started);
            if self.unsynced_since.is_some_and(|since| since.elapsed() >= LAZY_SYNC_AFTER) {
                self.sync_now();
            }
        }
    }

    fn failed(&mut self, transactions: Vec<Transaction>, error: &StoreError) {
        self.note(error);
        // What the failed batch put into it was not written.
        self.ended.clear();
        self.counters.forget();
        self.marks.forget();
        for transaction in transactions {
            if transaction.may_fail {
                (transaction.done)(Err(error));
            } else {
                self.backlog.push(transaction);
            }
        }
    }

    /// Whether there is nothing left to sync.
    fn sync_now(&mut self) -> bool {
        let result = match (self.unsynced_since, self.health.failure()) {
            (Some(_), _) => self.store.sync(),
            // Intake is refused while the store fails: somebody must find out that it works again.
            (None, Some(_)) => self.store.write(&[meta_put(super::meta::JOBS, self.size.jobs)], true),
            (None, None) => return true,
        };
        match &result {
            Ok(()) => {
                self.works();
                self.synced();
            }
            Err(error) => self.note(error),
        }
        result.is_ok()
    }

    /// All that was written is on disk.
    fn synced(&mut self) {
        self.unsynced_since = None;
        self.outbox.synced();
        std::mem::take(&mut self.told_later).into_iter().for_each(|done| done(Ok(())));
    }

    /// A write or sync succeeded.
    fn works(&mut self) {
        self.health.store_works();
        self.baseless_since = None;
    }

    /// A write or sync failed.
    fn note(&mut self, error: &StoreError) {
        metrics::counter!(metric::STORE_ERRORS).increment(1);
        self.health.store_failed(error);
        let is_baseless = error.kind == StoreErrorKind::Full && self.health.free_bytes() >= ROOM_BYTES;
        if !is_baseless {
            self.baseless_since = None;
        }
        let is_stuck = is_baseless && self.baseless_since.get_or_insert_with(Instant::now).elapsed() >= BASELESS_MAX;
        if error.kind != StoreErrorKind::Full || is_stuck {
            self.health.store_lost(error);
        }
    }
}

/// Why the committer does something.
pub(super) enum Wake {
    /// The first of those that wait.
    Transaction(Transaction),
    /// What could not be written is tried again.
    Retry,
    /// What was written is to be synced.
    Sync,
    /// All handles of the queue are gone.
    Closed,
}

/// What comes after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// The next wait.
    GoOn,
    /// The store fails: [`RETRY_AFTER`] first.
    Pause,
    /// Nothing any more.
    End,
}

/// The index in the recipient family under which the set of ended destinations of a message stands: no message has
/// that many recipients.
pub(super) const ENDED_GROUPS_INDEX: u32 = u32::MAX;

impl Transaction {
    /// Changes nothing and tells nobody.
    pub(super) fn empty() -> Self {
        let done: Completion = Box::new(|_| ());
        Self {
            changes: Vec::new(),
            events: Vec::new(),
            charges: Vec::new(),
            marks: Vec::new(),
            accepts: 0,
            kept: 0,
            new_jobs: 0,
            ends: None,
            lists: None,
            mark: None,
            bounces: None,
            sync: false,
            told_when_synced: false,
            may_fail: false,
            done,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let changes =
            self.changes.iter().map(|change| if let Change::Put { value, .. } = change { value.len() } else { 0 });
        let bounces = self.bounces.as_ref().map_or(0, |bounces| bounces.bytes());
        changes.sum::<usize>() + self.events.iter().map(|line| line.json.len()).sum::<usize>() + bounces
    }
}

fn outbox_put(id: EventId, line: &EventLine) -> Change {
    let record = format::OutboxRecordRef { kind: line.kind.code(), id_at: line.id_at, json: &line.json };
    let mut value = Vec::with_capacity(record.encoded_len_hint());
    record.encode(&mut value);
    Change::Put { family: Family::Outbox, key: Key::new(&format::outbox_key(id.value())), value: value.into() }
}

/// A counter or position in the meta family.
pub(super) fn meta_put(name: &str, number: u64) -> Change {
    let mut value = Vec::with_capacity(16);
    format::encode_meta_number(number, &mut value);
    Change::Put { family: Family::Meta, key: Key::new(name.as_bytes()), value: value.into() }
}

fn remove_message(end: EndGroup, changes: &mut Vec<Change>) {
    let id = end.id.as_bytes();
    changes.push(Change::Delete { family: Family::Message, key: Key::new(id) });
    if end.body_parts == 0 {
        changes.push(Change::Delete { family: Family::Body, key: Key::new(id) });
    }
    for part in 0..end.body_parts {
        let key = Key::new(&format::body_part_key(id, part));
        changes.push(Change::Delete { family: Family::BodyPart, key });
    }
    for index in (0..end.recipients).filter(|_| end.recipient_headers) {
        let key = Key::new(&format::recipient_header_key(id, index));
        changes.push(Change::Delete { family: Family::Body, key });
    }
    if end.has_states || end.groups > 1 {
        for index in 0..end.recipients {
            let key = Key::new(&format::recipient_key(id, index));
            changes.push(Change::Delete { family: Family::Recipient, key });
        }
    }
}
