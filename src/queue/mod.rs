//! The durable state of every message, and the only writer of it.
//!
//! docs/QUEUE.md tells the whole story: states, keys, batches, recovery. Promises: `accept` returns after one synced
//! write holds the whole message; every change of state is one atomic batch with its events; a restart brings all back.
//! Does not: decide when or where a message goes.

mod blocking;
mod committer;
pub mod counters;
pub mod feedback;
#[cfg(test)]
mod feedback_tests;
#[cfg(test)]
mod header_tests;
pub mod health;
pub mod history;
#[cfg(test)]
mod history_tests;
mod ids;
mod inline;
pub mod intake;
pub mod invariants;
pub mod lanes;
#[cfg(test)]
mod lanes_tests;
mod list_counts;
mod meta;
pub mod model;
pub mod notice;
mod open;
#[cfg(test)]
mod open_tests;
pub mod outbox;
mod pages;
pub mod recover;
pub mod reports;
#[cfg(test)]
mod reports_tests;
pub mod reputation;
#[cfg(test)]
mod reputation_tests;
pub mod rocks;
mod salvage;
pub mod sent;
#[cfg(test)]
mod sent_tests;
pub mod source_lives;
pub mod store;
pub mod stored;
pub mod suppression;
#[cfg(test)]
mod suppression_tests;
pub mod telling;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod transition;
mod wal;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use crossbeam::channel::{Sender, TrySendError};
use queue_format as format;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use crate::events::metric;
use crate::net::BoxFuture;
use crate::types::{Clock, MessageId, Timestamp};
use committer::{Completion, Transaction};
use health::Health;
use ids::Ids;
use outbox::QueueOutbox;
use store::{Change, Family, Key, Store, StoreError, StoreErrorKind};

pub use blocking::tell;
pub use committer::EndGroup;
pub use feedback::{Feedback, FeedbackEffect, FeedbackKind};
pub use format::fnv1a;
pub use history::{HISTORY_KEPT_DAYS, HistoryPage, HistoryPlace, HistoryQuery, HistoryRow};
pub use inline::InlineCommitter;
pub use intake::{
    AcceptError, Charge, Charges, Claim, Ended, Granularity, Intake, NewBody, NewMessage, Origin, ReturnPath,
};
pub use lanes::{LaneChanges, LaneRecord};
pub use open::{OpenError, Opened, random_seed};
pub use reports::{REPORT_AGE_MAX, REPORT_AHEAD_MAX, REPORT_ROWS_MAX, ReportEffect, ReportName};
pub use reputation::{MarkedHour, ReputationCharge, ReputationState, StatePause, TakenMarks};
pub use salvage::{HeldGroup, LostMessage, Salvaged};
pub use sent::{SentEnd, SentEntry, SentRecipient};
pub use source_lives::SourceLife;
pub use stored::{
    DueEntry, DueJob, JobKey, RecipientHeaders, RecipientOutcome, RecipientState, StoredBody, StoredMessage,
};
pub use transition::{HeldJob, Next, Settlement};

/// Transactions that wait for the committer. Full: sessions and workers wait, which slows intake and delivery to the
/// pace of the disk.
const TRANSACTIONS_MAX: usize = 4_096;

/// Limits of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Messages in the queue. Above: 452 4.3.1.
    pub messages_max: u64,
    /// Bytes that must stay free on the queue's file system. Below: 452 4.3.1.
    pub free_space_reserve_bytes: u64,
    /// Events that may wait for the files. Above: 452 4.3.1, since an unread outbox must not fill the disk.
    pub events_pending_max: u64,
    /// How long after its acceptance it is remembered to whom a message was sent; zero: not at all.
    pub sent_retention: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            messages_max: 10_000_000,
            free_space_reserve_bytes: 1 << 30,
            events_pending_max: 10_000_000,
            sent_retention: Duration::from_secs(30 * 86_400),
        }
    }
}

/// A message that was just committed, on its way to the scheduler without a detour over the disk.
#[derive(Debug)]
pub struct Handoff {
    /// The message.
    pub message: Arc<StoredMessage>,
    /// Its octets, where they are in memory.
    pub body: StoredBody,
    /// Header blocks of single recipients.
    pub recipient_headers: RecipientHeaders,
    /// The time in its due keys.
    pub due_at: Timestamp,
}

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store does not answer: try again later.
    #[error(transparent)]
    Store(StoreError),
    /// A record, or the table file that holds it, is damaged: set the message aside and name it.
    #[error("{0}")]
    Damaged(String),
}

impl From<StoreError> for LoadError {
    fn from(error: StoreError) -> Self {
        match error.kind {
            StoreErrorKind::Damaged => LoadError::Damaged(error.to_string()),
            StoreErrorKind::Full | StoreErrorKind::Failed => LoadError::Store(error),
        }
    }
}

/// Handle of the queue; cheap to clone. The committer's thread ends when the last handle is gone.
#[derive(Clone)]
pub struct Queue(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    outbox: Arc<QueueOutbox>,
    health: Arc<Health>,
    clock: Arc<dyn Clock>,
    ids: Mutex<Ids>,
    transactions: Sender<Transaction>,
    /// Only in a simulation: rung for a committer that is a task.
    bell: Option<Arc<Notify>>,
    lists: Arc<list_counts::ListCounts>,
    marks: Arc<reputation::MarkInbox>,
    room: Semaphore,
    handoffs: mpsc::Sender<Handoff>,
    messages_max: AtomicU64,
    free_space_reserve_bytes: AtomicU64,
    events_pending_max: AtomicU64,
    sent_retention_ms: AtomicU64,
    sent_swept_at_ms: AtomicU64,
    reports_swept_at_ms: AtomicU64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(bell) = &self.bell {
            bell.notify_one();
        }
    }
}

impl Queue {
    /// Where the event writer reads.
    pub fn outbox(&self) -> Arc<QueueOutbox> {
        Arc::clone(&self.0.outbox)
    }

    /// Whether promises are kept, and the size of the queue.
    pub fn health(&self) -> &Arc<Health> {
        &self.0.health
    }

    /// New limits, from now on.
    pub fn reload(&self, settings: &Settings) {
        self.0.messages_max.store(settings.messages_max, Ordering::Relaxed);
        self.0.free_space_reserve_bytes.store(settings.free_space_reserve_bytes, Ordering::Relaxed);
        self.0.events_pending_max.store(settings.events_pending_max, Ordering::Relaxed);
        let retention_ms = u64::try_from(settings.sent_retention.as_millis()).unwrap_or(u64::MAX);
        self.0.sent_retention_ms.store(retention_ms, Ordering::Relaxed);
    }

    /// The message and the states of its recipients; `None` where it is not in the queue. Blocks.
    pub fn load(&self, id: MessageId) -> Result<Option<StoredMessage>, LoadError> {
        let Some(bytes) = self.0.store.get(Family::Message, id.as_bytes())? else { return Ok(None) };
        let damaged = |what: String| LoadError::Damaged(format!("message {id}: {what}"));
        let record = format::MessageRecord::decode(&bytes).map_err(|error| damaged(error.to_string()))?;
        let (from, to) = format::recipient_range(id.as_bytes());
        let limit = record.recipients.len() + 1;
        let mut states = Vec::new();
        for (key, value) in self.0.store.scan(Family::Recipient, &from, &to, limit)? {
            let index = format::parse_recipient_key(&key).map(|(_, index)| index);
            let index = index.ok_or_else(|| damaged("a recipient key is malformed".to_owned()))?;
            if index == committer::ENDED_GROUPS_INDEX {
                continue;
            }
            let state =
                RecipientState::decode(&value).map_err(|error| damaged(format!("recipient {index}: {error}")))?;
            states.push((index, state));
        }
        StoredMessage::from_record(id, record, states).map(Some).map_err(damaged)
    }

    /// The octets of a message that is in the queue. Blocks.
    pub fn body(&self, message: &StoredMessage) -> Result<StoredBody, LoadError> {
        if message.body_parts > 0 {
            return Ok(StoredBody::Parts { parts: message.body_parts });
        }
        self.read_body(Family::Body, message.id.as_bytes(), message.id).map(StoredBody::Inline)
    }

    /// One part of a spooled body. Blocks.
    pub fn body_part(&self, id: MessageId, part: u32) -> Result<Bytes, LoadError> {
        self.read_body(Family::BodyPart, &format::body_part_key(id.as_bytes(), part), id)
    }

    /// The header block of one recipient of a message that has such blocks. Blocks.
    pub fn recipient_header(&self, id: MessageId, recipient: usize) -> Result<Bytes, LoadError> {
        let index = u32::try_from(recipient).unwrap_or(u32::MAX);
        self.read_body(Family::Body, &format::recipient_header_key(id.as_bytes(), index), id)
    }

    fn read_body(&self, family: Family, key: &[u8], id: MessageId) -> Result<Bytes, LoadError> {
        let Some(record) = self.0.store.get(family, key)? else {
            return Err(LoadError::Damaged(format!("message {id}: its {} is missing", family.name())));
        };
        let body = format::decode_body(&record)
            .map_err(|error| LoadError::Damaged(format!("message {id}: its {}: {error}", family.name())))?;
        Ok(record.slice_ref(body))
    }

    /// Up to `limit` jobs with due keys from `from` on to before `until`, in order. A damaged entry is made again from the
    /// records of its message; where these cannot be read either, it is in [`DuePage::damaged`]. Blocks.
    pub fn due(&self, from: DueKey, until: DueKey, limit: usize) -> Result<DuePage, StoreError> {
        let records = self.0.store.scan(Family::Due, &from.0, &until.0, limit)?;
        let complete = records.len() < limit;
        let mut page = DuePage { jobs: Vec::with_capacity(records.len()), next: None, damaged: Vec::new() };
        for (key, value) in records {
            let Some((due_at_ms, id, group)) = format::parse_due_key(&key) else {
                tracing::error!(?key, "a due key is malformed; the entry is left alone");
                continue;
            };
            let key = JobKey { id: MessageId::from_bytes(id), group };
            let due_at = Timestamp::from_millis(due_at_ms);
            page.next = Some(DueKey::after(due_at, key));
            match self.due_entry(key, &value) {
                Ok(entry) => page.jobs.push(DueJob { due_at, key, entry }),
                Err(reason) => page.damaged.push(DamagedDue { due_at, key, reason }),
            }
        }
        if complete {
            page.next = None;
        }
        Ok(page)
    }

    /// The entry of a job, made again where its record is damaged: the message and its recipient states hold all of it.
    fn due_entry(&self, key: JobKey, value: &[u8]) -> Result<DueEntry, String> {
        let damage = match DueEntry::decode(value) {
            Ok(entry) => return Ok(entry),
            Err(damage) => damage,
        };
        metrics::counter!(metric::DAMAGED_RECORDS, "record" => "due").increment(1);
        let (id, group) = (key.id, key.group);
        let message = self.load(id).map_err(|error| format!("its due entry ({damage}), and {error}"))?;
        let message = message.ok_or_else(|| format!("its due entry ({damage}), and there is no such message"))?;
        if usize::from(group) >= message.domains.len() {
            return Err(format!("its due entry ({damage}), and it has no destination {group}"));
        }
        tracing::error!(message_id = %id, group, %damage, "a due entry is damaged; made again from the message's record");
        Ok(message.due_entry(group, message.attempts(group), None))
    }

    /// Up to `limit` held jobs from `from` on. Blocks.
    pub fn held(&self, from: Option<JobKey>, limit: usize) -> Result<Vec<HeldJob>, StoreError> {
        transition::held(&*self.0.store, from, limit)
    }

    /// The hold entry of a job, if it is held. Blocks.
    pub fn hold_of(&self, key: JobKey) -> Result<Option<HeldJob>, StoreError> {
        Ok(self.held(Some(key), 1)?.into_iter().find(|held| held.key == key))
    }

    /// The due entry of a job, if it is due at that time. Blocks.
    pub fn due_of(&self, due_at: Timestamp, key: JobKey) -> Result<Option<DueJob>, StoreError> {
        let Some(value) = self.0.store.get(Family::Due, &DueKey::of(due_at, key).0)? else { return Ok(None) };
        let entry = self.due_entry(key, &value).map_err(|error| StoreError::new(StoreErrorKind::Damaged, error))?;
        Ok(Some(DueJob { due_at, key, entry }))
    }

    /// Up to `limit` message ids after `after`, oldest first. Blocks.
    pub fn messages(&self, after: Option<MessageId>, limit: usize) -> Result<Vec<MessageId>, StoreError> {
        let mut from = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        if after.is_some() {
            from.push(0);
        }
        let records = self.0.store.scan(Family::Message, &from, &[0xff; MessageId::BYTES + 1], limit)?;
        Ok(records.iter().filter_map(|(key, _)| key.as_slice().try_into().ok().map(MessageId::from_bytes)).collect())
    }

    /// What was charged to quotas in the last 24 hours before minute `now` and the 24 before these, and in minutes that are
    /// ahead: shows minute, scope and recipients. Blocks.
    pub fn charged(&self, now: u64, show: impl FnMut(u64, &str, u64)) -> Result<(), StoreError> {
        let from = now.saturating_sub(counters::KEPT_MINUTES);
        counters::each(&*self.0.store, format::COUNTER_QUOTA, from, show)
    }

    /// Commits what became of a job: recipient states, the next due time or the end, events, and DSNs, as one batch.
    /// `done` is called on the committer's thread when it is written. Waits only for room in the committer's queue.
    pub async fn settle(&self, mut settlement: Settlement, done: impl FnOnce() + Send + 'static) {
        let now = self.0.clock.now();
        if !self.keeps_sent() {
            settlement.sent.clear();
        }
        let sent = settlement.sent.len() as u64;
        let (mut transaction, accepted) = transition::settle(settlement, now);
        let queue = self.clone();
        transaction.done = Box::new(move |result| {
            if result.is_ok() {
                metrics::counter!(metric::SENT_RECORDS).increment(sent);
                done();
                let told = accepted.into_iter().filter(|accepted| !accepted.is_known.load(Ordering::Relaxed));
                told.flat_map(|told| told.handoffs).for_each(|handoff| queue.hand_off(handoff));
            }
        });
        self.submit(transaction).await;
    }

    /// Notes that this is an orderly stop: all is settled. The next start then knows that nothing was in flight.
    pub async fn mark_clean_stop(&self) -> Result<(), AcceptError> {
        let change = committer::meta_put(meta::CLEAN_STOP, self.0.clock.now().millis());
        self.write_and_wait(vec![change], true).await
    }

    async fn write_and_wait(&self, changes: Vec<Change>, sync: bool) -> Result<(), AcceptError> {
        let (reply, answer) = oneshot::channel();
        let done: Completion = Box::new(move |result| {
            let _ = reply.send(result.map_err(|error| AcceptError::NotDurable(error.to_string())));
        });
        self.submit(Transaction { changes, sync, may_fail: true, done, ..Transaction::empty() }).await;
        answer.await.unwrap_or(Err(AcceptError::Closed))
    }

    async fn submit(&self, mut transaction: Transaction) {
        let permit = self.0.room.acquire().await.expect("the semaphore of the committer is never closed");
        // The permit goes back when the committer is done with the transaction, so the channel always has room.
        permit.forget();
        let inner = Arc::downgrade(&self.0);
        let done = std::mem::replace(&mut transaction.done, Box::new(|_| ()));
        transaction.done = Box::new(move |result| {
            if let Some(inner) = inner.upgrade() {
                inner.room.add_permits(1);
            }
            done(result);
        });
        match self.0.transactions.try_send(transaction) {
            Ok(()) => {
                if let Some(bell) = &self.0.bell {
                    bell.notify_one();
                }
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                unreachable!("the committer lives as long as a handle, and its channel has as much room as permits")
            }
        }
    }

    /// Gives an accepted message to the scheduler. Runs on the committer's thread: a scheduler that lags slows commits.
    fn hand_off(&self, handoff: Handoff) {
        // Where the scheduler has ended, the message waits in the due index for the next start.
        tell(&self.0.handoffs, handoff);
    }

    fn room_for(&self, bytes: u64) -> Result<(), AcceptError> {
        let health = &self.0.health;
        if let Some(reason) = health.failure() {
            return Err(AcceptError::NotDurable(reason));
        }
        let reserve_bytes = self.0.free_space_reserve_bytes.load(Ordering::Relaxed);
        let free_bytes = health.free_bytes();
        if free_bytes.saturating_sub(bytes) < reserve_bytes {
            return Err(AcceptError::LowDisk { free_bytes, reserve_bytes });
        }
        let limit = self.0.messages_max.load(Ordering::Relaxed);
        if health.messages() >= limit {
            return Err(AcceptError::QueueFull { limit });
        }
        let limit = self.0.events_pending_max.load(Ordering::Relaxed);
        if self.0.outbox.pending() >= limit {
            return Err(AcceptError::QueueFull { limit });
        }
        Ok(())
    }
}

/// A position in the due index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DueKey([u8; 32]);

impl DueKey {
    /// Before every job.
    pub const START: DueKey = DueKey([0; 32]);

    /// Before every job that is due at `time` or later.
    pub fn at(time: Timestamp) -> Self {
        Self(format::due_key(time.millis(), &[0; MessageId::BYTES], 0))
    }

    /// The position of this job itself.
    pub fn of(due_at: Timestamp, key: JobKey) -> Self {
        Self(format::due_key(due_at.millis(), key.id.as_bytes(), key.group))
    }

    fn after(due_at: Timestamp, key: JobKey) -> Self {
        match key.group.checked_add(1) {
            Some(group) => Self::of(due_at, JobKey { id: key.id, group }),
            None => Self::at(due_at.plus(Duration::from_millis(1))),
        }
    }
}

/// A page of the due index.
#[derive(Debug)]
pub struct DuePage {
    /// In order.
    pub jobs: Vec<DueJob>,
    /// Where to go on; `None` where the range is exhausted.
    pub next: Option<DueKey>,
    /// Jobs whose entry cannot be read, and not be made again either.
    pub damaged: Vec<DamagedDue>,
}

/// A job that is due and of which nothing but its key can be read: to be held.
#[derive(Clone, Debug)]
pub struct DamagedDue {
    /// The time in its due key.
    pub due_at: Timestamp,
    /// Which job.
    pub key: JobKey,
    /// What cannot be read.
    pub reason: String,
}

/// Octets of all header blocks of single recipients.
fn headers_bytes(message: &NewMessage) -> Result<usize, AcceptError> {
    let blocks = &message.recipient_headers;
    assert!(
        blocks.is_empty() || blocks.len() == message.envelope.recipients.len(),
        "each recipient has a header block of its own, or none has"
    );
    let is_whole = |block: &Bytes| {
        let has_empty_line = block.starts_with(b"\r\n") || memchr::memmem::find(block, b"\r\n\r\n").is_some();
        block.is_empty() || (block.ends_with(b"\r\n") && !has_empty_line)
    };
    assert!(blocks.iter().all(is_whole), "a header block is whole lines without an empty one");
    let bytes = blocks.iter().map(Bytes::len).sum();
    let limit_bytes = intake::RECIPIENT_HEADERS_BYTES_MAX;
    if bytes > limit_bytes { Err(AcceptError::HeadersTooLarge { bytes, limit_bytes }) } else { Ok(bytes) }
}

impl Intake for Queue {
    fn new_id(&self) -> MessageId {
        // The clock is read under the lock: ids rise with it.
        let mut ids = self.0.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.next(self.0.clock.now())
    }

    fn check(&self, bytes: u64) -> Result<(), AcceptError> {
        self.room_for(bytes)
    }

    fn spool(&self, id: MessageId, part: u32, bytes: Bytes) -> BoxFuture<'_, Result<(), AcceptError>> {
        Box::pin(async move {
            self.room_for(bytes.len() as u64)?;
            let mut value = Vec::with_capacity(bytes.len() + 16);
            format::encode_body(&bytes, &mut value);
            let key = Key::new(&format::body_part_key(id.as_bytes(), part));
            let change = Change::Put { family: Family::BodyPart, key, value: value.into() };
            self.write_and_wait(vec![change], false).await
        })
    }

    fn spooled(&self, id: MessageId, part: u32) -> BoxFuture<'_, Result<Bytes, AcceptError>> {
        Box::pin(async move {
            let read = self.reading(move |queue| queue.body_part(id, part)).await;
            let failed = |error: String| AcceptError::NotDurable(error);
            read.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
        })
    }

    fn discard(&self, id: MessageId, parts: u32) {
        if parts == 0 {
            return;
        }
        let keys = (0..parts).map(|part| Key::new(&format::body_part_key(id.as_bytes(), part)));
        let changes = keys.map(|key| Change::Delete { family: Family::BodyPart, key }).collect();
        let queue = self.clone();
        tokio::spawn(async move {
            // On a disk that fails it is tried again as settlements are: intake is refused meanwhile, so there are few. What is left
            // by a crash the sweep at the next start removes.
            queue.submit(Transaction { changes, ..Transaction::empty() }).await;
        });
    }

    fn accept(&self, mut message: NewMessage) -> BoxFuture<'_, Result<(), AcceptError>> {
        Box::pin(async move {
            let claim = message.charges.claim.take();
            let bytes = match &message.body {
                NewBody::Inline(bytes) => bytes.len() as u64,
                NewBody::Spooled { .. } => 0,
            };
            let headers = headers_bytes(&message)?;
            self.room_for(bytes + headers as u64)?;
            let (mut transaction, handoffs) = transition::accept(message);
            let (reply, answer) = oneshot::channel();
            let queue = self.clone();
            transaction.done = Box::new(move |result| match result {
                Ok(()) => {
                    if let Some(claim) = claim {
                        claim.keep();
                    }
                    let _ = reply.send(Ok(()));
                    handoffs.into_iter().for_each(|handoff| queue.hand_off(handoff));
                }
                Err(error) => {
                    // Before the client can try again.
                    drop(claim);
                    let _ = reply.send(Err(AcceptError::NotDurable(error.to_string())));
                }
            });
            self.submit(transaction).await;
            answer.await.unwrap_or(Err(AcceptError::Closed))
        })
    }
}
