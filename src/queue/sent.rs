//! What is remembered of each recipient that a message was sent to, so that a bounce, complaint or unsubscription that comes days later
//! finds its message: whose it was, how it went, by what tags its sender knows it.
//!
//! A *record* is written once, in the batch of the outcome. What was told of the recipient since are *marks* beside it, one for each kind
//! ([`FeedbackKind`]), written by [`Queue::apply_feedback`]. So a settlement need not know of marks, nor read anything; and a mark of a
//! recipient that is still in the queue stays where the record comes later. Promises: a recipient that was delivered, or bounced after an
//! attempt, is found from its outcome's batch on until `sent_retention` after its acceptance; before that, where its message is in the
//! queue. All goes by one range an hour. Does not: write anything where the retention is 0, nor of our own notifications.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use queue_format as format;

use super::committer::Transaction;
use super::feedback::{FeedbackKind, mark_key};
use super::store::{Change, Family, Key, Store, StoreError};
use super::stored::{RecipientOutcome, StoredMessage};
use super::{LoadError, Queue, pages};
use crate::events::metric;
use crate::events::schema::{compact_mail, whole_mail};
use crate::types::{EmailAddress, MessageId, PoolName, ReversePath, SourceName, Timestamp, provider_of_site};

/// Time between two removals of what is too old.
const SWEEP_EACH: Duration = Duration::from_secs(3_600);
/// The record of a recipient and its marks: what one look reads at most.
const RECORDS_PER_RECIPIENT: usize = 1 + FeedbackKind::ALL.len();

/// A recipient that a message was sent to, or that is on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentRecipient {
    /// The message; its time is that of acceptance.
    pub id: MessageId,
    /// The recipient's position in the envelope.
    pub index: u16,
    /// The recipient.
    pub recipient: EmailAddress,
    /// The reverse-path as it was submitted.
    pub reverse_path: ReversePath,
    /// Who submitted it: `callerIdentity`, the name of a credential or a client network.
    pub caller: Box<str>,
    /// Whose mail it is.
    pub tenant: Box<str>,
    /// The name of the identity by which it was accepted; empty: none.
    pub identity: Box<str>,
    /// The name of its configuration set; empty: none.
    pub configuration_set: Box<str>,
    /// The pool that it went out by.
    pub pool: PoolName,
    /// The source of its last attempt, where that came to a connection and is over.
    pub source: Option<SourceName>,
    /// The site of its last attempt, likewise.
    pub site: Option<Box<str>>,
    /// How it ended; pending: it did not yet, as far as the queue knows.
    pub outcome: RecipientOutcome,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// When its bounce was told, in the session or later.
    pub bounced_at: Option<Timestamp>,
    /// When a complaint was told.
    pub complained_at: Option<Timestamp>,
    /// When it unsubscribed.
    pub unsubscribed_at: Option<Timestamp>,
    /// When a report was told that is held against nobody.
    pub remarked_at: Option<Timestamp>,
    /// The `mail` object for its events: without header fields, where the recipient has ended.
    pub mail_json: Bytes,
}

impl SentRecipient {
    /// The provider whose site took it, by name.
    pub fn provider(&self) -> Option<&str> {
        self.site.as_deref().and_then(provider_of_site)
    }

    /// When this was told of it.
    pub fn told_at(&self, kind: FeedbackKind) -> Option<Timestamp> {
        match kind {
            FeedbackKind::Bounce => self.bounced_at,
            FeedbackKind::Complaint => self.complained_at,
            FeedbackKind::Unsubscribe => self.unsubscribed_at,
            FeedbackKind::Remark => self.remarked_at,
        }
    }

    fn mark(&mut self, kind: FeedbackKind, at: Timestamp) {
        let told_at = match kind {
            FeedbackKind::Bounce => &mut self.bounced_at,
            FeedbackKind::Complaint => &mut self.complained_at,
            FeedbackKind::Unsubscribe => &mut self.unsubscribed_at,
            FeedbackKind::Remark => &mut self.remarked_at,
        };
        told_at.get_or_insert(at);
    }

    /// Of a message in the queue; `None`: it ended without any attempt, so that nothing can come back.
    fn in_queue(message: &StoredMessage, index: u16) -> Option<Self> {
        let place = usize::from(index);
        let recipient = message.envelope.recipients.get(place)?.address.clone();
        let state = message.states.get(place).and_then(Option::as_ref);
        let outcome = state.map_or(RecipientOutcome::Pending, |state| state.outcome);
        if outcome != RecipientOutcome::Pending && state.is_some_and(|state| state.attempts == 0) {
            return None;
        }
        let ended_at = state.map(|state| Timestamp::from_millis(state.last_attempt_ms));
        let ended_at = ended_at.filter(|_| outcome != RecipientOutcome::Pending);
        let origin = &message.origin;
        Some(Self {
            id: message.id,
            index,
            recipient,
            reverse_path: message.envelope.reverse_path.clone(),
            caller: origin.caller.clone(),
            tenant: origin.tenant.clone(),
            identity: origin.identity.clone(),
            configuration_set: origin.configuration_set.clone(),
            pool: origin.pool.clone(),
            source: None,
            site: None,
            outcome,
            ended_at,
            bounced_at: ended_at.filter(|_| is_bounce(outcome)),
            complained_at: None,
            unsubscribed_at: None,
            remarked_at: None,
            mail_json: message.mail_json.clone(),
        })
    }

    fn decode(id: MessageId, index: u16, value: &[u8]) -> Result<Self, String> {
        let record = format::SentRecordRef::decode(value).map_err(|error| error.to_string())?;
        let address = |text: &str| {
            EmailAddress::parse(text, true).map_err(|error| format!("sent record: address {text:?}: {error}"))
        };
        let reverse_path = match record.reverse_path {
            "" => ReversePath::Null,
            text => ReversePath::Mailbox(address(text)?),
        };
        let pool = match record.pool {
            "" => PoolName::default(),
            name => PoolName::parse(name).ok_or_else(|| format!("sent record: pool {name:?}"))?,
        };
        let source = match record.source {
            "" => None,
            name => Some(SourceName::parse(name).ok_or_else(|| format!("sent record: source {name:?}"))?),
        };
        let ended_at = Timestamp::from_millis(record.ended_at_ms);
        Ok(Self {
            id,
            index,
            recipient: address(record.recipient)?,
            reverse_path,
            caller: record.caller.into(),
            tenant: record.tenant.into(),
            identity: record.identity.into(),
            configuration_set: record.configuration_set.into(),
            pool,
            source,
            site: (!record.site.is_empty()).then(|| record.site.into()),
            outcome: record.outcome,
            ended_at: Some(ended_at),
            bounced_at: is_bounce(record.outcome).then_some(ended_at),
            complained_at: None,
            unsubscribed_at: None,
            remarked_at: None,
            mail_json: whole_mail(id, record.mail_json),
        })
    }
}

/// Whether a record says that its recipient ended in one.
pub(super) fn ends_in_bounce(value: &[u8]) -> bool {
    format::SentRecordRef::decode(value).is_ok_and(|record| is_bounce(record.outcome))
}

/// Whether the end of a recipient was told by a `Bounce` event.
fn is_bounce(outcome: RecipientOutcome) -> bool {
    use RecipientOutcome::{Bounced, Cancelled, Delivered, Expired, Pending};
    match outcome {
        Bounced | Expired | Cancelled => true,
        Pending | Delivered => false,
    }
}

/// How one recipient ended, for [`SentEntry::of`].
#[derive(Clone, Copy, Debug)]
pub struct SentEnd<'a> {
    /// Its position in the envelope.
    pub index: usize,
    /// How.
    pub outcome: RecipientOutcome,
    /// When.
    pub at: Timestamp,
    /// The source of the attempt that ended it.
    pub source: Option<&'a SourceName>,
    /// The site of that attempt.
    pub site: Option<&'a str>,
}

/// The record of one recipient, ready to be written with its outcome.
#[derive(Clone, Debug)]
pub struct SentEntry {
    index: u16,
    is_bounce: bool,
    value: Bytes,
}

impl SentEntry {
    /// What is to be remembered; `None` of our own notifications, of which nobody wants to hear.
    pub fn of(message: &StoredMessage, end: &SentEnd<'_>) -> Option<Self> {
        let origin = &message.origin;
        if message.envelope.reverse_path == ReversePath::Null && origin.tenant.is_empty() {
            return None;
        }
        let index = u16::try_from(end.index).ok()?;
        let recipient = message.envelope.recipients.get(end.index)?.address.as_str();
        let mut mail = Vec::new();
        compact_mail(&message.mail_json, recipient, &mut mail);
        let record = format::SentRecordRef {
            outcome: end.outcome,
            ended_at_ms: end.at.millis(),
            recipient,
            reverse_path: message.envelope.reverse_path.as_str(),
            caller: &origin.caller,
            tenant: &origin.tenant,
            identity: &origin.identity,
            configuration_set: &origin.configuration_set,
            pool: origin.pool.as_str(),
            source: end.source.map_or("", SourceName::as_str),
            site: end.site.unwrap_or_default(),
            mail_json: &mail,
        };
        let mut value = Vec::with_capacity(record.encoded_len_hint());
        record.encode(&mut value);
        Some(Self { index, is_bounce: is_bounce(end.outcome), value: value.into() })
    }

    /// The mark that says the same, where it ended in a bounce.
    pub(super) fn claim(&self, id: MessageId) -> Option<Key> {
        self.is_bounce.then(|| mark_key(id, self.index, FeedbackKind::Bounce))
    }

    pub(super) fn put(self, id: MessageId) -> Change {
        let key = Key::new(&format::sent_key(id.as_bytes(), self.index));
        Change::Put { family: Family::Sent, key, value: self.value }
    }
}

impl Queue {
    /// What is remembered of one recipient; `None`: it was never sent, or longer ago than is kept. Blocks.
    pub fn sent(&self, id: MessageId, index: u16) -> Result<Option<SentRecipient>, LoadError> {
        if !self.remembers(id) {
            return Ok(None);
        }
        let (from, to) = format::sent_range(id.as_bytes(), index, index);
        let records = self.0.store.scan(Family::Sent, &from, &to, RECORDS_PER_RECIPIENT)?;
        let mut found = Found::default();
        records.iter().for_each(|(key, value)| found.take(key, value));
        if let Some(problem) = found.damaged.pop() {
            return Err(LoadError::Damaged(format!("recipient {index} of message {id}: {problem}")));
        }
        if !found.recipients.contains_key(&index)
            && let Some(message) = self.load(id)?
        {
            found.recipients.extend(SentRecipient::in_queue(&message, index).map(|sent| (index, sent)));
        }
        Ok(found.marked().next())
    }

    /// The first `limit` recipients of a message of which anything is remembered, in the order of the envelope. Damaged records are told of
    /// and left out. Blocks.
    pub fn sent_to_all(&self, id: MessageId, limit: usize) -> Result<Vec<SentRecipient>, LoadError> {
        if !self.remembers(id) {
            return Ok(Vec::new());
        }
        let (from, to) = format::sent_range(id.as_bytes(), 0, u16::MAX);
        let mut found = Found::default();
        pages::each_from(&*self.0.store, Family::Sent, &from, &to, |key, value| {
            found.take(key, value);
            found.recipients.len() <= limit
        })?;
        if let Some(message) = self.load(id)? {
            for index in (0..u16::MAX).take(message.envelope.recipients.len()) {
                if !found.recipients.contains_key(&index) {
                    found.recipients.extend(SentRecipient::in_queue(&message, index).map(|sent| (index, sent)));
                }
            }
        }
        Ok(found.marked().take(limit).collect())
    }

    /// Removes what is older than the retention, by one range an hour; costs nothing in between. Waits only for room in the
    /// committer's queue.
    pub async fn sweep_sent(&self) {
        let now = self.0.clock.now();
        let swept_at = Timestamp::from_millis(self.0.sent_swept_at_ms.load(Ordering::Relaxed));
        // A clock that was set back is looked at anew.
        if now >= swept_at && now.since(swept_at) < SWEEP_EACH {
            return;
        }
        // Where the disk fails, or the committer is far behind, this can wait.
        if self.0.health.failure().is_some() || self.0.room.available_permits() == 0 {
            return;
        }
        self.0.sent_swept_at_ms.store(now.millis(), Ordering::Relaxed);
        let retention_ms = self.0.sent_retention_ms.load(Ordering::Relaxed);
        // What is as old as the retention is not found any more, and goes.
        let kept_since_ms = match retention_ms {
            0 => u64::MAX,
            _ => now.millis().checked_sub(retention_ms).map_or(0, |last_ms| last_ms + 1),
        };
        let (from, to) = format::sent_before(kept_since_ms);
        // A range that covers nothing is a write, too, and looked at by each scan.
        let is_there = self.reading(move |queue| queue.0.store.scan(Family::Sent, &from, &to, 1)).await;
        if matches!(&is_there, Ok(Ok(first)) if first.is_empty()) {
            return;
        }
        let range = Change::DeleteRange { family: Family::Sent, from: Key::new(&from), to: Key::new(&to) };
        metrics::counter!(metric::SENT_SWEEPS).increment(1);
        self.submit(Transaction { changes: vec![range], ..Transaction::empty() }).await;
    }

    /// Whether anything is kept of a message with this id.
    fn remembers(&self, id: MessageId) -> bool {
        let retention_ms = self.0.sent_retention_ms.load(Ordering::Relaxed);
        retention_ms > 0 && id.accepted_at().plus(Duration::from_millis(retention_ms)) > self.0.clock.now()
    }

    pub(super) fn keeps_sent(&self) -> bool {
        self.0.sent_retention_ms.load(Ordering::Relaxed) > 0
    }
}

/// Records and marks of the recipients of one message.
#[derive(Default)]
struct Found {
    recipients: BTreeMap<u16, SentRecipient>,
    marks: Vec<(u16, FeedbackKind, Timestamp)>,
    damaged: Vec<String>,
}

impl Found {
    fn take(&mut self, key: &[u8], value: &[u8]) {
        match decode(key, value) {
            Ok(Entry::Recipient(sent)) => drop(self.recipients.insert(sent.index, *sent)),
            Ok(Entry::Mark(index, kind, at)) => self.marks.push((index, kind, at)),
            Err(problem) => {
                tracing::error!(?key, problem, "what is remembered of a recipient is damaged");
                metrics::counter!(metric::DAMAGED_RECORDS, "record" => "sent").increment(1);
                self.damaged.push(problem);
            }
        }
    }

    /// The recipients with their marks.
    fn marked(mut self) -> impl Iterator<Item = SentRecipient> {
        for (index, kind, at) in self.marks {
            if let Some(sent) = self.recipients.get_mut(&index) {
                sent.mark(kind, at);
            }
        }
        self.recipients.into_values()
    }
}

enum Entry {
    Recipient(Box<SentRecipient>),
    Mark(u16, FeedbackKind, Timestamp),
}

fn decode(key: &[u8], value: &[u8]) -> Result<Entry, String> {
    let (id, index, kind) = format::parse_sent_key(key).ok_or("its key is malformed")?;
    let Some(code) = kind else {
        let sent = SentRecipient::decode(MessageId::from_bytes(id), index, value)?;
        return Ok(Entry::Recipient(Box::new(sent)));
    };
    let kind = FeedbackKind::from_code(code).ok_or_else(|| format!("a mark has the unknown kind {code}"))?;
    let at_ms = format::decode_meta_number(value).map_err(|error| error.to_string())?;
    Ok(Entry::Mark(index, kind, Timestamp::from_millis(at_ms)))
}

/// What is wrong with a record or mark.
pub(super) fn check(key: &[u8], value: &[u8]) -> Result<(), String> {
    decode(key, value).map(drop)
}

/// What is wrong with the records of a store.
pub(super) fn violations(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    pages::each(store, Family::Sent, |key, value| {
        found.extend(check(key, value).err());
        true
    })?;
    Ok(found)
}
