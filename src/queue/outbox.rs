//! The queue's side of the event outbox: what is committed, synced and consumed, and a window of the newest events in
//! memory, so that the event writer reads the disk only after it fell behind.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use queue_format as format;

use super::committer::meta_put;
use super::meta;
use super::store::{Change, Family, Key, Store, StoreError};
use crate::events::{EventId, EventKind, EventLine, Outbox, OutboxError, OutboxEvent, metric};

/// Events kept in memory; older ones are read from the store.
const WINDOW_EVENTS_MAX: usize = 16_384;
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
}

/// Shared by the committer (which fills it) and the event writer (which empties it).
pub struct QueueOutbox {
    store: Arc<dyn Store>,
    state: Mutex<State>,
    changed: Condvar,
}

impl QueueOutbox {
    /// `last` is the newest event in the store, `consumed` the last that needs no file any more.
    pub(super) fn new(store: Arc<dyn Store>, last: EventId, consumed: EventId) -> Self {
        let state = State { committed: last, synced: last, consumed, ..State::default() };
        Self { store, state: Mutex::new(state), changed: Condvar::new() }
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
            state.window_bytes += event.line.json.len();
            state.window.push_back(event);
        }
        while state.window.len() > WINDOW_EVENTS_MAX || state.window_bytes > WINDOW_BYTES_MAX {
            let Some(oldest) = state.window.pop_front() else { break };
            state.window_bytes -= oldest.line.json.len();
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
        let mut events = Vec::with_capacity(records.len());
        for (key, value) in records {
            let id = format::parse_outbox_key(&key).ok_or_else(|| OutboxError("key is not an event id".to_owned()))?;
            let record = format::OutboxRecordRef::decode(&value)
                .map_err(|error| OutboxError(format!("event {id} is damaged: {error}")))?;
            let kind = EventKind::from_code(record.kind)
                .ok_or_else(|| OutboxError(format!("event {id} has unknown kind {}", record.kind)))?;
            let line = EventLine { kind, json: value.slice_ref(record.json), id_at: record.id_at };
            events.push(OutboxEvent { id: EventId::new(id), line });
        }
        Ok(events)
    }
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
            // Nothing is lost: they stay, and are asked for again. The committer tells of the store's state.
            tracing::warn!(%error, "consumed events stay in the queue for now");
            return Ok(());
        }
        let mut state = self.lock();
        state.consumed = state.consumed.max(through);
        while state.window.front().is_some_and(|event| event.id <= through) {
            let Some(event) = state.window.pop_front() else { break };
            state.window_bytes -= event.line.json.len();
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
