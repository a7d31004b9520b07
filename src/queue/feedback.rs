//! What one report does for one recipient, as one batch: it is marked, and told of, suppressed, and whatever else follows.
//!
//! The same report comes more than once: hosts repeat what got no 250, several hosts tell of one failure, and many tasks read reports at
//! once. Which of them is the first, the committer decides when it makes the batch, since it alone writes: it looks for the mark in the
//! store and among those of the same batch. No lock is held while the disk syncs, and reports of other recipients ride in the same
//! batch, which a lock for each recipient would give no more than this. Promises: of one kind, for one recipient, [`Queue::apply_feedback`]
//! is `Applied` once, in all processes that ever had this store, as long as the recipient is remembered (but see [`Feedback::while_listed`]); all of it is synced when that
//! returns, and so is what an `AlreadyKnown` speaks of; after an error nothing was written.
//!
//! To carry more, a field of [`Feedback`] goes into the transaction: the committer drops the whole transaction where the mark is there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use queue_format as format;
use tokio::sync::oneshot;

use super::committer::Transaction;
use super::intake::{AcceptError, NewBody, NewMessage};
use super::list_counts::read_raw;
use super::reputation::ReputationCharge;
use super::store::{Change, Family, Key, Store, StoreError, StoreErrorKind};
use super::suppression::{EntryKey, SuppressionEntry, SuppressionList};
use super::{Handoff, LoadError, Queue, sent, suppression, telling, transition};
use crate::events::{EventLine, metric};
use crate::types::{MessageId, SuppressionReason, Timestamp};

/// What was told of a recipient after its message was sent. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FeedbackKind {
    /// It could not be delivered after all.
    Bounce = 1,
    /// The recipient called it junk.
    Complaint = 2,
    /// The recipient wants no more of the kind.
    Unsubscribe = 3,
    /// Told as a complaint and held against nobody: praise, mail that could not be verified. A complaint may still come.
    Remark = 4,
}

impl FeedbackKind {
    /// All of them.
    pub const ALL: [FeedbackKind; 4] =
        [FeedbackKind::Bounce, FeedbackKind::Complaint, FeedbackKind::Unsubscribe, FeedbackKind::Remark];

    /// As metrics and the admin API spell it.
    pub const fn name(self) -> &'static str {
        match self {
            FeedbackKind::Bounce => "bounce",
            FeedbackKind::Complaint => "complaint",
            FeedbackKind::Unsubscribe => "unsubscribe",
            FeedbackKind::Remark => "remark",
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code)
    }
}

/// What a report says of one recipient, and all that follows from it.
#[derive(Clone, Debug)]
pub struct Feedback {
    /// The message.
    pub id: MessageId,
    /// The recipient's position in the envelope.
    pub index: u16,
    /// What was told.
    pub kind: FeedbackKind,
    /// When.
    pub at: Timestamp,
    /// The events that tell of it.
    pub events: Vec<EventLine>,
    /// Addresses that go on lists, over what stands there.
    pub suppress: Vec<(SuppressionList, SuppressionEntry)>,
    /// Messages that it causes: the report, forwarded to the sender.
    pub notifications: Vec<NewMessage>,
    /// What it means for the reputation of who sent the message.
    pub marks: Vec<ReputationCharge>,
    /// What was told before counts only while all of `suppress` stands on the lists, with its reason: for whoever was taken off since,
    /// it is told and done again.
    pub while_listed: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedbackEffect {
    /// All of it is on disk.
    Applied,
    /// The same was told of this recipient before: nothing was written.
    AlreadyKnown,
    /// No such recipient is remembered: nothing was written.
    Unknown,
}

impl FeedbackEffect {
    const fn name(self) -> &'static str {
        match self {
            FeedbackEffect::Applied => "applied",
            FeedbackEffect::AlreadyKnown => "duplicate",
            FeedbackEffect::Unknown => "unknown",
        }
    }
}

impl Queue {
    /// Commits what a report says of one recipient, unless it was told before. Synced when it returns: the report may get its 250. An
    /// error is a reply of 4yz, as its variants say, so that the report comes again. Runs to its end even where the returned future is
    /// dropped once it was handed over; then the same report finds it known.
    pub async fn apply_feedback(&self, feedback: Feedback) -> Result<FeedbackEffect, AcceptError> {
        let (kind, forwarded) = (feedback.kind, feedback.notifications.len());
        let effect = self.apply(feedback).await?;
        if effect == FeedbackEffect::Applied && forwarded > 0 {
            metrics::counter!(metric::FEEDBACK_FORWARDED, "kind" => kind.name()).increment(forwarded as u64);
        }
        metrics::counter!(metric::FEEDBACK, "kind" => kind.name(), "effect" => effect.name()).increment(1);
        Ok(effect)
    }

    async fn apply(&self, feedback: Feedback) -> Result<FeedbackEffect, AcceptError> {
        let Feedback { id, index, kind, at, events, suppress, notifications, marks, while_listed } = feedback;
        let lists = transition::list_changes(&suppress);
        let keys: Vec<EntryKey> = lists.iter().flat_map(|lists| &lists.changes).map(|(key, _)| *key).collect();
        let standing = |(list, entry): &(SuppressionList, SuppressionEntry)| (list.change(entry).0, entry.reason);
        let listed: Vec<_> = suppress.iter().filter(|_| while_listed).map(standing).collect();
        let mark = Mark { listed: listed.clone(), ..Mark::new(id, index, kind) };
        // What the committer asks for comes into memory here, so that it need not wait for the disk.
        let look = self.reading(move |queue| {
            keys.iter().for_each(|key| drop(read_raw(&*queue.0.store, key)));
            Ok(match queue.told_before(id, index, kind)? {
                Some(FeedbackEffect::AlreadyKnown) if !all_stand(&*queue.0.store, &listed)? => None,
                effect => effect,
            })
        });
        let not_durable = |error: String| AcceptError::NotDurable(error);
        let look = look.await.map_err(|error| not_durable(error.to_string()))?;
        if let Some(effect) = look.map_err(|error: StoreError| not_durable(error.to_string()))? {
            return Ok(effect);
        }
        self.room_for_all(&notifications)?;
        let (mut transaction, handoffs) = transition::tell(mark.put(at), events, notifications);
        (transaction.lists, transaction.marks) = (lists, marks);
        Ok(match self.commit_once(transaction, mark, handoffs).await? {
            true => FeedbackEffect::Applied,
            false => FeedbackEffect::AlreadyKnown,
        })
    }

    /// Commits a transaction unless its mark, which it writes itself, is there: whether it was written. Then its messages are handed on.
    /// Synced when it returns; runs to its end even where the returned future is dropped once it was handed over.
    pub(super) async fn commit_once(
        &self,
        mut transaction: Transaction,
        mark: Mark,
        handoffs: Vec<Handoff>,
    ) -> Result<bool, AcceptError> {
        let is_known = Arc::clone(&mark.is_known);
        transaction.mark = Some(Box::new(mark));
        let (reply, answer) = oneshot::channel();
        let queue = self.clone();
        transaction.done = Box::new(move |result| {
            let is_new = !is_known.load(Ordering::Relaxed);
            if result.is_ok() && is_new {
                handoffs.into_iter().for_each(|handoff| queue.hand_off(handoff));
            }
            let written = result.map(|()| is_new).map_err(|error| AcceptError::NotDurable(error.to_string()));
            let _ = reply.send(written);
        });
        self.submit(transaction).await;
        answer.await.unwrap_or(Err(AcceptError::Closed))
    }

    /// Reports are refused while there is no room; that may have changed since, and what they cause must not add to it. A disk that fails
    /// is found by the write: it may work again.
    fn room_for_all(&self, notifications: &[NewMessage]) -> Result<(), AcceptError> {
        if notifications.is_empty() {
            return Ok(());
        }
        let bytes = |new: &NewMessage| if let NewBody::Inline(octets) = &new.body { octets.len() as u64 } else { 0 };
        match self.room_for(notifications.iter().map(bytes).sum()) {
            Err(full @ (AcceptError::QueueFull { .. } | AcceptError::LowDisk { .. })) => Err(full),
            _ => Ok(()),
        }
    }

    /// What can be said without the committer: that nobody knows the recipient, or that it was told before. What is found was synced, but for
    /// a bounce in the session: where a power cut takes that back, the attempt is made again and tells of it.
    fn told_before(&self, id: MessageId, index: u16, kind: FeedbackKind) -> Result<Option<FeedbackEffect>, StoreError> {
        match self.sent(id, index) {
            Ok(None) => Ok(Some(FeedbackEffect::Unknown)),
            Ok(Some(sent)) => Ok(sent.told_at(kind).map(|_| FeedbackEffect::AlreadyKnown)),
            // It is there, whatever it said: whoever asked before has read it, or knows enough without.
            Err(LoadError::Damaged(_)) => Ok(None),
            Err(LoadError::Store(error)) => Err(error),
        }
    }
}

/// Where it stands that something of this kind was told of a recipient.
pub(super) fn mark_key(id: MessageId, index: u16, kind: FeedbackKind) -> Key {
    Key::new(&format::sent_mark_key(id.as_bytes(), index, kind as u8))
}

/// That something of this kind was told of a recipient, or a part of a report taken: asked for by the committer, and written with all that
/// follows.
pub(super) struct Mark {
    family: Family,
    key: Key,
    /// It counts only while these entries stand.
    listed: Vec<(EntryKey, SuppressionReason)>,
    /// Of a bounce: the record of its recipient, which may have come since somebody looked.
    record: Option<Key>,
    /// For whoever asked: filled in when the batch is made.
    is_known: Arc<AtomicBool>,
}

impl Mark {
    fn new(id: MessageId, index: u16, kind: FeedbackKind) -> Self {
        let record = (kind == FeedbackKind::Bounce).then(|| Key::new(&format::sent_key(id.as_bytes(), index)));
        Self { record, ..Self::at(Family::Sent, mark_key(id, index, kind)) }
    }

    /// Under this key, which the transaction itself has to write.
    pub(super) fn at(family: Family, key: Key) -> Self {
        Self { family, key, listed: Vec::new(), record: None, is_known: Arc::default() }
    }

    /// Whether the outcome of its recipient says the same.
    fn is_outcome(&self, store: &dyn Store) -> Result<bool, StoreError> {
        let Some(record) = &self.record else { return Ok(false) };
        match store.get(Family::Sent, record.as_ref()) {
            Ok(value) => Ok(value.is_some_and(|value| sent::ends_in_bounce(&value))),
            Err(error) if error.kind == StoreErrorKind::Damaged => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn put(&self, at: Timestamp) -> Change {
        let mut value = Vec::with_capacity(16);
        format::encode_meta_number(at.millis(), &mut value);
        Change::Put { family: self.family, key: self.key, value: value.into() }
    }
}

/// Empties the transactions of a batch whose mark is there already, in the store or by one before them, and leaves out of settlements what
/// reports told before.
pub(super) fn drop_known(transactions: &mut [Transaction], store: &dyn Store) -> Result<(), StoreError> {
    let mut seen = BTreeSet::new();
    for transaction in transactions {
        let Some(mark) = &transaction.mark else {
            telling::merge(transaction, &mut seen, store)?;
            continue;
        };
        let place = (mark.family, mark.key);
        let is_known = seen.contains(&place)
            || (is_there(store, mark.family, &mark.key)? && all_stand(store, &mark.listed)?)
            || mark.is_outcome(store)?;
        mark.is_known.store(is_known, Ordering::Relaxed);
        if is_known {
            let done = std::mem::replace(&mut transaction.done, Box::new(|_| ()));
            *transaction = Transaction { may_fail: true, done, ..Transaction::empty() };
        } else {
            seen.insert(place);
        }
    }
    Ok(())
}

/// Whether all of these are on their lists for their reasons.
fn all_stand(store: &dyn Store, listed: &[(EntryKey, SuppressionReason)]) -> Result<bool, StoreError> {
    for (key, reason) in listed {
        let entry = read_raw(store, key)?.and_then(|value| suppression::decode(&value).ok());
        if entry.is_none_or(|entry| entry.reason != *reason) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A block that is damaged counts as nothing: better told twice than never.
pub(super) fn is_there(store: &dyn Store, family: Family, key: &Key) -> Result<bool, StoreError> {
    match store.get(family, key.as_ref()) {
        Err(error) if error.kind == StoreErrorKind::Damaged => {
            tracing::error!(?key, %error, "what is remembered of a recipient or a report is damaged");
            metrics::counter!(metric::DAMAGED_RECORDS, "record" => family.name()).increment(1);
            Ok(false)
        }
        result => result.map(|value| value.is_some()),
    }
}
