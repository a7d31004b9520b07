//! Every change of a message's state as the set of records it writes and removes: the table of docs/QUEUE.md in code.
//!
//! Pure: no store, no clock. What is built here is committed as one batch or not at all.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use queue_format as format;

use super::committer::{ENDED_GROUPS_INDEX, EndGroup, Transaction};
use super::feedback::{FeedbackKind, mark_key};
use super::list_counts::ListChanges;
use super::reputation::ReputationCharge;
use super::sent::SentEntry;
use super::store::{Change, Family, Key, Store, StoreError};
use super::stored::{DueEntry, JobKey, RecipientHeaders, RecipientState, StoredBody, StoredMessage};
use super::suppression::{SuppressionEntry, SuppressionList};
use super::telling::{Bounces, Prepared, Telling};
use super::{Handoff, NewBody, NewMessage};
use crate::events::{EventLine, metric};
use crate::types::{MessageId, Timestamp};

/// What became of a job, to be committed.
#[derive(Debug)]
pub struct Settlement {
    /// The job.
    pub key: JobKey,
    /// The time in its due key (or, for a held job, in its hold entry); `None` where it is held.
    pub due_at: Option<Timestamp>,
    /// States to write, by recipient index: all that had an attempt and are not gone with the message.
    pub states: Vec<(u32, RecipientState)>,
    /// Where it stands now.
    pub next: Next,
    /// The events that tell of it.
    pub events: Vec<EventLine>,
    /// DSNs that it causes; each becomes a message of its own.
    pub notifications: Vec<NewMessage>,
    /// The same of recipients that bounce after an attempt before this one: unless a report told of them.
    pub tellings: Vec<Telling>,
    /// What is remembered of the recipients that ended.
    pub sent: Vec<SentEntry>,
    /// What it means for the reputation of who sent it.
    pub marks: Vec<ReputationCharge>,
    /// Addresses that go on lists, over what stands there.
    pub suppress: Vec<(SuppressionList, SuppressionEntry)>,
}

impl Settlement {
    /// A job's next place, and nothing else.
    pub fn new(key: JobKey, due_at: Option<Timestamp>, next: Next) -> Self {
        let (states, events, notifications) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            key,
            due_at,
            states,
            next,
            events,
            notifications,
            tellings: Vec::new(),
            sent: Vec::new(),
            marks: Vec::new(),
            suppress: Vec::new(),
        }
    }
}

/// Messages that a transaction accepts, to be handed on once it is written, unless it was known before what they tell.
pub(super) struct Accepted {
    pub(super) handoffs: Vec<Handoff>,
    pub(super) is_known: Arc<AtomicBool>,
}

/// Where a job stands after a settlement.
#[derive(Clone, Debug)]
pub enum Next {
    /// All its recipients ended.
    Ended(EndGroup),
    /// There is nothing to deliver: only its key goes.
    Gone,
    /// It is due again.
    Due {
        /// When.
        at: Timestamp,
        /// Where it goes.
        entry: DueEntry,
    },
    /// It waits until an operator releases it.
    Held {
        /// When it was due.
        due_at: Timestamp,
        /// Where it goes.
        entry: DueEntry,
        /// Why, for the operator.
        reason: String,
    },
}

/// A held job.
#[derive(Clone, Debug)]
pub struct HeldJob {
    /// Which job.
    pub key: JobKey,
    /// When it was due.
    pub due_at: Timestamp,
    /// Since when it is held.
    pub held_at: Timestamp,
    /// Why.
    pub reason: String,
    /// Where it goes.
    pub entry: DueEntry,
}

/// absent (or receiving) to queued.
pub(super) fn accept(new: NewMessage) -> (Transaction, Vec<Handoff>) {
    let mut changes = Vec::with_capacity(4);
    let mut handoffs = Vec::with_capacity(1);
    handoffs.extend(put_message(&new, &mut changes));
    let mut events = Vec::with_capacity(1 + new.ended.events.len());
    events.push(new.send_event);
    events.extend(new.ended.events);
    let accepts = 1 + put_notifications(new.ended.notifications, &mut changes, &mut events, &mut handoffs);
    let (kept, new_jobs) = sizes_of(&handoffs);
    let charges = new.charges.list;
    let transaction = Transaction { changes, events, charges, accepts, kept, new_jobs, ..Transaction::empty() };
    (Transaction { sync: true, may_fail: true, ..transaction }, handoffs)
}

/// Returns how many.
fn put_notifications(
    notifications: Vec<NewMessage>,
    changes: &mut Vec<Change>,
    events: &mut Vec<EventLine>,
    handoffs: &mut Vec<Handoff>,
) -> u32 {
    let count = u32::try_from(notifications.len()).unwrap_or(u32::MAX);
    for notification in notifications {
        handoffs.extend(put_message(&notification, changes));
        events.push(notification.send_event);
    }
    count
}

/// Messages, and jobs of them.
fn sizes_of(handoffs: &[Handoff]) -> (u32, u32) {
    let jobs = handoffs.iter().map(|handoff| handoff.message.open_groups().count()).sum::<usize>();
    (u32::try_from(handoffs.len()).unwrap_or(u32::MAX), u32::try_from(jobs).unwrap_or(u32::MAX))
}

/// `None` where no recipient is left to deliver to: then nothing is kept.
fn put_message(new: &NewMessage, changes: &mut Vec<Change>) -> Option<Handoff> {
    let message = StoredMessage::from_new(new);
    let id = message.id.as_bytes();
    if message.open_groups().next().is_none() {
        if let NewBody::Spooled { parts, .. } = &new.body {
            let keys = (0..*parts).map(|part| Key::new(&format::body_part_key(id, part)));
            changes.extend(keys.map(|key| Change::Delete { family: Family::BodyPart, key }));
        }
        return None;
    }
    put_ended(&message, changes);
    let record = message.to_record();
    let mut value = Vec::with_capacity(record.encoded_len_hint());
    record.encode(&mut value);
    changes.push(Change::Put { family: Family::Message, key: Key::new(id), value: value.into() });
    let body = match &new.body {
        NewBody::Inline(bytes) => {
            let mut value = Vec::with_capacity(bytes.len() + 16);
            format::encode_body(bytes, &mut value);
            changes.push(Change::Put { family: Family::Body, key: Key::new(id), value: value.into() });
            StoredBody::Inline(bytes.clone())
        }
        NewBody::Spooled { parts, .. } => StoredBody::Parts { parts: *parts },
    };
    put_recipient_headers(new, changes);
    let due_at = message.accepted_at;
    for group in message.open_groups() {
        let key = JobKey { id: message.id, group };
        changes.push(put_due(key, due_at, &message.due_entry(group, 0, None)));
    }
    let recipient_headers = RecipientHeaders::new(new.recipient_headers.clone());
    Some(Handoff { message: Arc::new(message), body, recipient_headers, due_at })
}

/// Those of all recipients, also of such as ended with the acceptance: so what belongs to a message is known by its record.
fn put_recipient_headers(new: &NewMessage, changes: &mut Vec<Change>) {
    for (index, block) in (0_u32..).zip(&new.recipient_headers) {
        let mut value = Vec::with_capacity(block.len() + format::BODY_OVERHEAD_BYTES);
        format::encode_body(block, &mut value);
        let key = Key::new(&format::recipient_header_key(new.id.as_bytes(), index));
        changes.push(Change::Put { family: Family::Body, key, value: value.into() });
    }
}

/// The states of recipients that ended with the acceptance, and the set of groups that have no others.
fn put_ended(message: &StoredMessage, changes: &mut Vec<Change>) {
    if !message.has_states() {
        return;
    }
    let id = message.id.as_bytes();
    for (index, state) in (0_u32..).zip(&message.states) {
        let Some(state) = state else { continue };
        let mut value = Vec::with_capacity(state.encoded_len_hint());
        state.encode(&mut value);
        let key = Key::new(&format::recipient_key(id, index));
        changes.push(Change::Put { family: Family::Recipient, key, value: value.into() });
    }
    let mut ended = vec![0xff_u8; message.domains.len().div_ceil(8)];
    let mut open = 0;
    for group in message.open_groups() {
        open += 1;
        if let Some(byte) = ended.get_mut(usize::from(group / 8)) {
            *byte &= !(1 << (group % 8));
        }
    }
    // Bits behind the last group stay clear: they are counted.
    let spare = ended.len() * 8 - message.domains.len();
    if let Some(last) = ended.last_mut() {
        *last &= 0xff_u8 >> spare;
    }
    if open < message.domains.len() {
        let key = Key::new(&format::recipient_key(id, ENDED_GROUPS_INDEX));
        changes.push(Change::Put { family: Family::Recipient, key, value: ended.into() });
    }
}

/// What puts these addresses on their lists.
pub(super) fn list_changes(suppress: &[(SuppressionList, SuppressionEntry)]) -> Option<Box<ListChanges>> {
    let changes: Vec<_> = suppress.iter().map(|(list, entry)| list.change(entry)).collect();
    (!changes.is_empty()).then(|| Box::new(ListChanges { changes, effect: Arc::default() }))
}

/// queued or held to queued, held or absent.
pub(super) fn settle(settlement: Settlement, now: Timestamp) -> (Transaction, Vec<Accepted>) {
    let Settlement { key, due_at, states, next, mut events, notifications, tellings, sent, marks, suppress } =
        settlement;
    let claims: Vec<Key> = sent.iter().filter_map(|entry| entry.claim(key.id)).collect();
    let mut changes = Vec::with_capacity(2 + states.len() + sent.len());
    changes.push(match due_at {
        Some(due_at) => Change::Delete { family: Family::Due, key: due_key(due_at, key) },
        None => Change::Delete { family: Family::Hold, key: hold_key(key) },
    });
    let stays = !matches!(&next, Next::Ended(end) if end.groups == 1);
    for (index, state) in states.iter().filter(|_| stays) {
        let mut value = Vec::with_capacity(state.encoded_len_hint());
        state.encode(&mut value);
        let key = Key::new(&format::recipient_key(key.id.as_bytes(), *index));
        changes.push(Change::Put { family: Family::Recipient, key, value: value.into() });
    }
    changes.extend(sent.into_iter().map(|entry| entry.put(key.id)));
    let mut ends = None;
    match next {
        Next::Ended(end) => ends = Some(end),
        Next::Gone => {}
        Next::Due { at, entry } => changes.push(put_due(key, at, &entry)),
        Next::Held { due_at, entry, reason } => changes.push(put_hold(key, due_at, entry, now, reason)),
    }
    let mut handoffs = Vec::with_capacity(notifications.len());
    let accepts = put_notifications(notifications, &mut changes, &mut events, &mut handoffs);
    let (kept, new_jobs) = sizes_of(&handoffs);
    // A notification goes out as soon as it is committed: a power cut must not forget one that its sender has.
    let sync = !handoffs.is_empty();
    let lists = list_changes(&suppress);
    let mut accepted = vec![Accepted { handoffs, is_known: Arc::default() }];
    let tellings = tellings.into_iter().map(|telling| {
        let (prepared, told) = prepare(key.id, telling);
        accepted.push(told);
        prepared
    });
    let tellings: Vec<Prepared> = tellings.collect();
    let is_any = !tellings.is_empty() || !claims.is_empty();
    let bounces = is_any.then(|| Box::new(Bounces { tellings, claims }));
    let transaction =
        Transaction { changes, events, marks, lists, accepts, kept, new_jobs, ends, sync, ..Transaction::empty() };
    (Transaction { bounces, ..transaction }, accepted)
}

fn prepare(id: MessageId, telling: Telling) -> (Prepared, Accepted) {
    let Telling { recipients, mut events, notifications, marks } = telling;
    let (mut changes, mut handoffs) = (Vec::new(), Vec::with_capacity(notifications.len()));
    let accepts = put_notifications(notifications, &mut changes, &mut events, &mut handoffs);
    let (kept, new_jobs) = sizes_of(&handoffs);
    let sync = !handoffs.is_empty();
    let rest = Transaction { changes, events, marks, accepts, kept, new_jobs, sync, ..Transaction::empty() };
    let about = recipients.into_iter().map(|index| mark_key(id, index, FeedbackKind::Bounce)).collect();
    let is_known: Arc<AtomicBool> = Arc::default();
    (Prepared { about, rest: Box::new(rest), is_known: Arc::clone(&is_known) }, Accepted { handoffs, is_known })
}

/// What a report said of a recipient, with its mark.
pub(super) fn tell(
    mark: Change,
    mut events: Vec<EventLine>,
    notifications: Vec<NewMessage>,
) -> (Transaction, Vec<Handoff>) {
    let mut changes = vec![mark];
    let mut handoffs = Vec::with_capacity(notifications.len());
    let accepts = put_notifications(notifications, &mut changes, &mut events, &mut handoffs);
    let (kept, new_jobs) = sizes_of(&handoffs);
    (
        Transaction { changes, events, accepts, kept, new_jobs, sync: true, may_fail: true, ..Transaction::empty() },
        handoffs,
    )
}

fn put_due(key: JobKey, due_at: Timestamp, entry: &DueEntry) -> Change {
    let mut value = Vec::with_capacity(entry.encoded_len_hint());
    entry.encode(&mut value);
    Change::Put { family: Family::Due, key: due_key(due_at, key), value: value.into() }
}

fn put_hold(key: JobKey, due_at: Timestamp, due: DueEntry, now: Timestamp, reason: String) -> Change {
    let entry = format::HoldEntry { due, due_at_ms: due_at.millis(), held_at_ms: now.millis(), reason };
    let mut value = Vec::with_capacity(entry.encoded_len_hint());
    entry.encode(&mut value);
    Change::Put { family: Family::Hold, key: hold_key(key), value: value.into() }
}

fn due_key(due_at: Timestamp, key: JobKey) -> Key {
    Key::new(&format::due_key(due_at.millis(), key.id.as_bytes(), key.group))
}

fn hold_key(key: JobKey) -> Key {
    Key::new(&format::hold_key(key.id.as_bytes(), key.group))
}

/// Of a damaged entry its key is left, which is enough to release or cancel the job.
fn damaged_hold(key: JobKey, error: &format::FormatError) -> HeldJob {
    tracing::error!(message_id = %key.id, group = key.group, %error, "a hold entry is damaged; the job stays held");
    metrics::counter!(metric::DAMAGED_RECORDS, "record" => "hold").increment(1);
    HeldJob {
        key,
        due_at: key.id.accepted_at(),
        held_at: key.id.accepted_at(),
        reason: format!("the record of this hold is damaged: {error}"),
        entry: DueEntry::default(),
    }
}

/// Up to `limit` held jobs from `from` on; a damaged entry is shown with its damage as the reason.
pub(super) fn held(store: &dyn Store, from: Option<JobKey>, limit: usize) -> Result<Vec<HeldJob>, StoreError> {
    let from = from.map_or_else(Vec::new, |key| hold_key(key).as_ref().to_vec());
    let records = store.scan(Family::Hold, &from, &[0xff; MessageId::BYTES + 3], limit)?;
    let mut jobs = Vec::with_capacity(records.len());
    for (key, value) in records {
        let Some((id, group)) = format::parse_hold_key(&key) else {
            tracing::error!(?key, "a hold key is malformed; the entry is left alone");
            continue;
        };
        let key = JobKey { id: MessageId::from_bytes(id), group };
        match format::HoldEntry::decode(&value) {
            Ok(entry) => jobs.push(HeldJob {
                key,
                due_at: Timestamp::from_millis(entry.due_at_ms),
                held_at: Timestamp::from_millis(entry.held_at_ms),
                reason: entry.reason,
                entry: entry.due,
            }),
            Err(error) => jobs.push(damaged_hold(key, &error)),
        }
    }
    Ok(jobs)
}
