//! The queue's side of the event outbox: what is committed, synced and consumed, and a window of the newest events in
//! memory, so that the event writer reads the disk only after it fell behind.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use queue_format as format;

use super::committer::meta_put;
use super::health::Health;
use super::meta;
use super::store::{Change, Family, Key, Store, StoreError, StoreErrorKind};
use crate::events::{EventId, EventKind, EventLine, Outbox, OutboxError, OutboxEvent, metric};

/// Events kept in memory; older ones are read from the store.
const WINDOW_EVENTS_MAX: usize = 16_384;
/// Damaged events of one run whose records are kept aside; of more, only their ids are in the log.
const DAMAGED_KEPT_MAX: u64 = 1_000;
/// Octets kept in memory.
const WINDOW_BYTES_MAX: usize = 32 << 20;

#[derive(Default)]
struct State {
    window: VecDeque<OutboxEvent>,
    window_bytes: usize,
    committed: EventId,
    synced: EventId,
    consumed: EventId,
    woken: bool,
    /// The newest damaged event that the log names, and how many there were.
    damaged_named: EventId,
    damaged: u64,
}

/// Shared by the committer (which fills it) and the event writer (which empties it).
pub struct QueueOutbox {
    store: Arc<dyn Store>,
    health: Arc<Health>,
    state: Mutex<State>,
    changed: Condvar,
}

impl QueueOutbox {
    /// `last` is the newest event in the store, `consumed` the last that needs no file any more.
    pub(super) fn new(store: Arc<dyn Store>, health: Arc<Health>, last: EventId, consumed: EventId) -> Self {
        let state = State { committed: last, synced: last, consumed, ..State::default() };
        Self { store, health, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Events that were committed and are not yet consumed.
    pub fn pending(&self) -> u64 {
        let state = self.lock();
        state.committed.value() - state.consumed.value()
    }

    /// The newest event.
    pub fn last(&self) -> EventId {
        self.lock().committed
    }

    pub(super) fn committed(&self, events: Vec<OutboxEvent>) {
        let mut state = self.lock();
        for event in events {
            state.committed = event.id;
            state.window_bytes += octets(&event);
            state.window.push_back(event);
        }
        while state.window.len() > WINDOW_EVENTS_MAX || state.window_bytes > WINDOW_BYTES_MAX {
            let Some(oldest) = state.window.pop_front() else { break };
            state.window_bytes -= octets(&oldest);
        }
    }

    pub(super) fn synced(&self) {
        let mut state = self.lock();
        if state.synced < state.committed {
            state.synced = state.committed;
            drop(state);
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_store(&self, from: EventId, synced: EventId, limit: usize) -> Result<Vec<OutboxEvent>, OutboxError> {
        let (from_key, to_key) = (format::outbox_key(from.value()), format::outbox_key(synced.next().value()));
        let records = self.store.scan(Family::Outbox, &from_key, &to_key, limit).map_err(outbox_error)?;
        let is_all = records.len() < limit;
        let mut events = Vec::with_capacity(records.len());
        let mut next = from;
        for (key, value) in records {
            let Some(id) = format::parse_outbox_key(&key).map(EventId::new) else { continue };
            self.skip(&mut next, id, limit, &mut events);
            let line = match decode(&value) {
                Ok(line) => Some(line),
                Err(reason) => {
                    self.damaged(id, &reason, &value);
                    None
                }
            };
            events.push(OutboxEvent { id, line });
            next = id.next();
        }
        if is_all {
            self.skip(&mut next, synced.next(), limit, &mut events);
        }
        events.truncate(limit);
        Ok(events)
    }

    /// Events from `next` to before `until` that are not in the store.
    fn skip(&self, next: &mut EventId, until: EventId, limit: usize, events: &mut Vec<OutboxEvent>) {
        if *next < until && events.len() < limit {
            self.missing(*next, until.previous());
        }
        while *next < until && events.len() < limit {
            events.push(OutboxEvent { id: *next, line: None });
            *next = next.next();
        }
    }

    /// As `queue recover` leaves them: named once.
    fn missing(&self, first: EventId, last: EventId) {
        if self.name_damaged(last).is_some() {
            metrics::counter!(metric::DAMAGED_RECORDS, "record" => "outbox").increment(1);
            tracing::error!(
                first = first.value(),
                last = last.value(),
                "events are missing from the queue; those that the event files do not hold already are left out of them"
            );
        }
    }

    /// Notes that damaged events up to this one are named in the log; `None` where they were before, or how many there are.
    fn name_damaged(&self, last: EventId) -> Option<u64> {
        let mut state = self.lock();
        if last <= state.damaged_named {
            return None;
        }
        state.damaged_named = last;
        state.damaged += 1;
        Some(state.damaged)
    }

    /// An event that no file can have: it is named once, and its record is kept.
    fn damaged(&self, id: EventId, reason: &str, record: &Bytes) {
        let Some(count) = self.name_damaged(id) else { return };
        metrics::counter!(metric::DAMAGED_RECORDS, "record" => "outbox").increment(1);
        let kept = match count {
            0..=DAMAGED_KEPT_MAX => self.store.set_aside(&format!("event-{}", id.value()), record),
            _ => Ok("not kept, there are too many".to_owned()),
        };
        let kept = kept.unwrap_or_else(|error| format!("not kept: {error}"));
        tracing::error!(
            event_id = id.value(),
            reason,
            kept,
            "an event cannot be read and is left out of the event files; the change that it tells of is not affected"
        );
    }
}

fn octets(event: &OutboxEvent) -> usize {
    event.line.as_ref().map_or(0, |line| line.json.len())
}

/// The error says what is wrong with the record.
fn decode(value: &Bytes) -> Result<EventLine, String> {
    let record = format::OutboxRecordRef::decode(value).map_err(|error| error.to_string())?;
    let kind = EventKind::from_code(record.kind).ok_or_else(|| format!("it has unknown kind {}", record.kind))?;
    Ok(EventLine { kind, json: value.slice_ref(record.json), id_at: record.id_at })
}

fn outbox_error(error: StoreError) -> OutboxError {
    OutboxError(error.to_string())
}

impl Outbox for QueueOutbox {
    fn read(&self, from: EventId, limit: usize) -> Result<Vec<OutboxEvent>, OutboxError> {
        let state = self.lock();
        let synced = state.synced;
        if from > synced {
            return Ok(Vec::new());
        }
        if let Some(first) = state.window.front().map(|event| event.id).filter(|first| *first <= from) {
            let skip = usize::try_from(from.value() - first.value()).unwrap_or(usize::MAX);
            let ready = state.window.iter().skip(skip).take_while(|event| event.id <= synced).take(limit);
            return Ok(ready.cloned().collect());
        }
        drop(state);
        self.read_store(from, synced, limit)
    }

    fn oldest(&self) -> Result<EventId, OutboxError> {
        Ok(self.lock().consumed.next())
    }

    fn newest(&self) -> Option<EventId> {
        Some(self.lock().synced)
    }

    fn consumed(&self, through: EventId) -> Result<(), OutboxError> {
        let from = {
            let state = self.lock();
            if through <= state.consumed {
                return Ok(());
            }
            state.consumed
        };
        let changes = [
            Change::DeleteRange {
                family: Family::Outbox,
                from: Key::new(&format::outbox_key(from.next().value())),
                to: Key::new(&format::outbox_key(through.next().value())),
            },
            meta_put(meta::EVENTS_CONSUMED, through.value()),
        ];
        // Not synced: where a power cut takes it back, the event files themselves tell what they hold.
        if let Err(error) = self.store.write(&changes, false) {
            // Nothing is lost: they stay, and are asked for again. Of a full disk the committer tells.
            tracing::warn!(%error, "consumed events stay in the queue for now");
            if error.kind != StoreErrorKind::Full {
                self.health.store_failed(&error);
                self.health.store_lost(&error);
            }
            return Ok(());
        }
        let mut state = self.lock();
        state.consumed = state.consumed.max(through);
        while state.window.front().is_some_and(|event| event.id <= through) {
            let Some(event) = state.window.pop_front() else { break };
            state.window_bytes -= octets(&event);
        }
        metrics::gauge!(metric::EVENTS_PENDING).set((state.committed.value() - state.consumed.value()) as f64);
        Ok(())
    }

    fn wait(&self, after: EventId, timeout: Duration) {
        let mut state = self.lock();
        if state.synced <= after && !state.woken {
            let waited = self.changed.wait_timeout_while(state, timeout, |state| state.synced <= after && !state.woken);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.woken = false;
    }

    fn wake(&self) {
        self.lock().woken = true;
        self.changed.notify_all();
    }
}
