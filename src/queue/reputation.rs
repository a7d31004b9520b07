//! What reputation counts, and how each scope stands, over a restart.
//!
//! A [`ReputationCharge`] rides in the batch of the outcome it tells of, with the event: so each outcome counts exactly
//! once. The committer adds the charges of a batch up to one sum for each mark, hour and scope, and puts the sums that
//! changed into the inbox of marks, where whoever judges takes them ([`Queue::take_marks`]). They are sums, not additions: one
//! that is seen twice, or read from the store as well, is the same. How a scope stands is one record, written as one with the
//! event that tells of the change. Does not: judge (`policy::reputation`).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use queue_format as format;
use tokio::sync::oneshot;

use super::committer::{Completion, Transaction};
use super::counters::{self, Counters, Place};
use super::store::{Change, Family, Key, Store, StoreError};
use super::{Queue, pages};
use crate::events::{EventLine, metric};
use crate::types::{Hour, Mark, ReputationScope, Scopes, Timestamp};

/// Hours that are kept: the 30 days that may count, another 30 should the clock have gone ahead and be set back, and a day's
/// slack.
const KEPT_HOURS: u64 = 2 * 720 + 24;
/// Sums that wait to be taken. Full: all are forgotten, and whoever takes is told to read the store.
const INBOX_MAX: usize = 65_536;
/// States that are read. Beyond: they are left out, and count as healthy; there is none for a scope that is healthy.
const STATES_MAX: usize = 100_000;

/// So many recipients of one mail of one mark: to be counted in the batch that tells of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReputationCharge {
    /// Whose.
    pub scopes: Scopes,
    /// What.
    pub mark: Mark,
    /// When: of what comes late (a bounce or complaint after the delivery), when the mail was sent.
    pub hour: Hour,
    /// How many recipients.
    pub count: u32,
}

impl ReputationCharge {
    /// `sent_at`: when the mail's attempt ended; for [`Mark::LateBounce`] and [`Mark::Complaint`], too: a report is held against the
    /// mail that it is about, whenever it comes.
    pub fn new(scopes: Scopes, mark: Mark, sent_at: Timestamp, count: u32) -> Self {
        Self { scopes, mark, hour: Hour::of(sent_at), count }
    }
}

/// How many there are, in all, of one mark, hour and scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MarkedHour {
    /// Whose.
    pub scope: ReputationScope,
    /// When.
    pub hour: Hour,
    /// What.
    pub mark: Mark,
    /// The sum.
    pub sum: u64,
}

/// Sums that changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenMarks {
    /// In no order.
    pub sums: Vec<MarkedHour>,
    /// There were more than fit: read all with [`Queue::marked`].
    pub is_overflown: bool,
}

/// How a scope stands, as it is kept. One that is healthy, not paused and forgiven nothing has no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReputationState {
    /// Which.
    pub scope: ReputationScope,
    /// The number of its level.
    pub level: u8,
    /// Since when.
    pub since: Timestamp,
    /// Up to this hour nothing is judged any more.
    pub forgiven_through: Option<Hour>,
    /// Whether nothing of it is accepted.
    pub pause: Option<StatePause>,
}

/// A pause, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatePause {
    /// The number of who paused it.
    pub by: u8,
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: String,
}

impl ReputationState {
    fn is_blank(&self) -> bool {
        self.level == 0 && self.forgiven_through.is_none() && self.pause.is_none()
    }
}

impl Queue {
    /// The sums that changed since the last call.
    pub fn take_marks(&self) -> TakenMarks {
        self.0.marks.take()
    }

    /// Shows what was counted from this hour on. Damaged records are told of and left out. Blocks.
    pub fn marked(&self, from: Hour, mut show: impl FnMut(MarkedHour)) -> Result<(), StoreError> {
        for mark in Mark::ALL {
            counters::each(
                &*self.0.store,
                mark.code(),
                from.number(),
                |hour, scope, sum| match ReputationScope::parse(scope) {
                    Some(scope) => show(MarkedHour { scope, hour: Hour::from_number(hour), mark, sum }),
                    None => tracing::error!(scope, "a mark of a scope of no known kind is left alone"),
                },
            )?;
        }
        Ok(())
    }

    /// How scopes stand, in no order that means anything. Damaged records are told of and left out. Blocks.
    pub fn reputations(&self) -> Result<Vec<ReputationState>, StoreError> {
        read(&*self.0.store)
    }

    /// Writes these in place of what is there, as one with the events that tell of it. Returns when they are on disk; where the
    /// disk fails it is tried again until then. `false`: the queue is closed.
    pub async fn save_reputations(&self, states: &[ReputationState], events: Vec<EventLine>) -> bool {
        let changes = states.iter().map(put_change).collect();
        let (reply, answer) = oneshot::channel();
        let done: Completion = Box::new(move |result| {
            if result.is_ok() {
                let _ = reply.send(());
            }
        });
        let transaction =
            Transaction { changes, events, sync: true, told_when_synced: true, done, ..Transaction::empty() };
        self.submit(transaction).await;
        answer.await.is_ok()
    }
}

/// Where new sums wait for whoever judges.
#[derive(Default)]
pub(super) struct MarkInbox(Mutex<Inbox>);

#[derive(Default)]
struct Inbox {
    sums: HashMap<Place, u64>,
    is_overflown: bool,
}

impl MarkInbox {
    pub(super) fn put(&self, sums: Vec<(Place, u64)>) {
        let mut inbox = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inbox.sums.len() + sums.len() > INBOX_MAX {
            *inbox = Inbox { sums: HashMap::new(), is_overflown: true };
        }
        // Once it was full, all is read from the store anyway.
        if !inbox.is_overflown {
            inbox.sums.extend(sums);
        }
    }

    pub(super) fn take(&self) -> TakenMarks {
        let Inbox { sums, is_overflown } = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let marked = |((mark, hour, scope), sum): (Place, u64)| {
            let (mark, scope) = (Mark::from_code(mark)?, ReputationScope::parse(&scope)?);
            Some(MarkedHour { scope, hour: Hour::from_number(hour), mark, sum })
        };
        TakenMarks { sums: sums.into_iter().filter_map(marked).collect(), is_overflown }
    }
}

/// The committer's part of it.
pub(super) struct MarkBook {
    counters: Counters,
    inbox: Arc<MarkInbox>,
}

impl Default for MarkBook {
    fn default() -> Self {
        const KINDS: &[u8] = &[
            Mark::Delivered.code(),
            Mark::HardBounce.code(),
            Mark::OtherBounce.code(),
            Mark::LateBounce.code(),
            Mark::Complaint.code(),
        ];
        Self { counters: Counters::new(KINDS, KEPT_HOURS), inbox: Arc::default() }
    }
}

impl MarkBook {
    pub(super) fn inbox(&self) -> Arc<MarkInbox> {
        Arc::clone(&self.inbox)
    }

    /// Adds the changes that these charges ask for to a batch; returns the new sums.
    pub(super) fn add<'a>(
        &mut self,
        store: &dyn Store,
        charges: impl Iterator<Item = &'a ReputationCharge>,
        changes: &mut Vec<Change>,
    ) -> Result<Vec<(Place, u64)>, StoreError> {
        // Most mail of a batch counts for the same scopes: these are told apart only once.
        let mut senders: HashMap<(&Scopes, Mark, Hour), u64> = HashMap::new();
        for charge in charges {
            *senders.entry((&charge.scopes, charge.mark, charge.hour)).or_default() += u64::from(charge.count);
        }
        let mut added: BTreeMap<Place, u64> = BTreeMap::new();
        for ((scopes, mark, hour), count) in senders {
            for scope in scopes.iter() {
                *added.entry((mark.code(), hour.number(), scope.into())).or_default() += count;
            }
        }
        self.counters.add(store, added, changes)
    }

    /// The batch with these sums was written.
    pub(super) fn committed(&self, sums: Vec<(Place, u64)>) {
        if !sums.is_empty() {
            self.inbox.put(sums);
        }
    }

    /// The batch was not written.
    pub(super) fn forget(&mut self) {
        self.counters.forget();
    }
}

fn put_change(state: &ReputationState) -> Change {
    let scope = state.scope.to_string();
    let key = Key::new(&format::reputation_key(&scope));
    if state.is_blank() {
        return Change::Delete { family: Family::Reputation, key };
    }
    let record = format::ReputationRecord {
        scope,
        level: state.level,
        since_ms: state.since.millis(),
        forgiven_through: state.forgiven_through.map_or(0, |hour| u32::try_from(hour.number()).unwrap_or(u32::MAX)),
        pause: state.pause.as_ref().map(|pause| format::ReputationPause {
            by: pause.by,
            since_ms: pause.since.millis(),
            reason: pause.reason.clone(),
        }),
    };
    let mut value = Vec::with_capacity(record.encoded_len_hint());
    record.encode(&mut value);
    Change::Put { family: Family::Reputation, key, value: value.into() }
}

pub(super) fn read(store: &dyn Store) -> Result<Vec<ReputationState>, StoreError> {
    let mut states = Vec::new();
    pages::each(store, Family::Reputation, |key, value| {
        match decode(key, value) {
            Ok(state) => states.push(state),
            Err(error) => {
                tracing::error!(?key, %error, "the record of a reputation is damaged: its scope counts as healthy and sends");
                metrics::counter!(metric::DAMAGED_RECORDS, "record" => "reputation").increment(1);
            }
        }
        states.len() < STATES_MAX
    })?;
    Ok(states)
}

/// What a record holds, or what is wrong with it.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<ReputationState, String> {
    let record = format::ReputationRecord::decode(value).map_err(|error| error.to_string())?;
    if format::reputation_key(&record.scope) != key {
        return Err(format!("it is that of {} and stands elsewhere", record.scope));
    }
    let scope = ReputationScope::parse(&record.scope).ok_or_else(|| format!("{:?} is no scope", record.scope))?;
    let pause = record.pause.map(|pause| StatePause {
        by: pause.by,
        since: Timestamp::from_millis(pause.since_ms),
        reason: pause.reason,
    });
    let forgiven_through = (record.forgiven_through > 0).then(|| Hour::from_number(record.forgiven_through.into()));
    Ok(ReputationState {
        scope,
        level: record.level,
        since: Timestamp::from_millis(record.since_ms),
        forgiven_through,
        pause,
    })
}

/// What is wrong with the records of a store.
pub(super) fn violations(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    pages::each(store, Family::Reputation, |key, value| {
        found.extend(decode(key, value).err());
        true
    })?;
    Ok(found)
}
