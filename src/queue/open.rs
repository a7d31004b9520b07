//! Opening the queue: format check, what the last run left behind, the committer's thread.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use queue_format as format;
use rand::RngExt;
use tokio::sync::{Notify, Semaphore, mpsc};

use super::committer::{Committer, Size, meta_put};
use super::health::Health;
use super::ids::Ids;
use super::inline::InlineCommitter;
use super::list_counts::ListCounts;
use super::outbox::QueueOutbox;
use super::store::{Change, Family, Key, Store, StoreError};
use super::{Handoff, Inner, Queue, Settings, TRANSACTIONS_MAX, meta};
use crate::events::EventId;
use crate::types::{Clock, MessageId, Timestamp};

/// Handoffs on their way to the scheduler. Full: the committer waits, and with it intake.
const HANDOFFS_MAX: usize = 4_096;
/// Parts removed in one batch of the sweep.
const SWEEP_BATCH: usize = 1_024;

/// Why the queue cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store does not answer, or is damaged; its text names the file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A newer posthaste wrote this queue. Nothing was changed.
    #[error(
        "the queue has format version {found}, this posthaste knows {supported}: start the newer version, or drain the queue with it first"
    )]
    NewerFormat {
        /// In the store.
        found: u64,
        /// Known here.
        supported: u32,
    },
    /// A position or counter cannot be read.
    #[error(
        "meta record {name:?} is damaged: {reason}. `posthaste queue recover` makes a new queue of what can be read"
    )]
    Meta {
        /// Which.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// The operating system gave no thread.
    #[error("cannot start the committer thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// An open queue and what its owner must know. `C` is what commits.
pub struct Opened<C = JoinHandle<()>> {
    /// The handle.
    pub queue: Queue,
    /// Accepted messages, for the scheduler.
    pub handoffs: mpsc::Receiver<Handoff>,
    /// The committer's thread, which ends after the last handle is dropped and everything is synced; or, for a
    /// simulation, what the runtime has to run in its place.
    pub committer: C,
    /// The last crash or power cut, if there ever was one: jobs that were due before it and are still due as they were
    /// then may have been in flight (promise 3).
    pub unclean_since: Option<Timestamp>,
    /// The last stop was orderly.
    pub was_clean: bool,
    /// Body parts of messages that never came to be, now removed.
    pub swept_parts: u64,
}

impl Queue {
    /// Opens the queue on `store`. `seed` feeds the generator of message ids.
    pub fn open(
        store: Arc<dyn Store>,
        settings: &Settings,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> Result<Opened, OpenError> {
        let opened = prepare(store, settings, clock, seed, None)?;
        let Opened { queue, handoffs, committer, unclean_since, was_clean, swept_parts } = opened;
        let committer = std::thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || committer.run())
            .map_err(OpenError::Thread)?;
        Ok(Opened { queue, handoffs, committer, unclean_since, was_clean, swept_parts })
    }

    /// Opens the queue without a thread: the caller runs the committer as a task, and reads block it. For a simulation,
    /// where threads would make two runs of one seed differ.
    pub fn open_inline(
        store: Arc<dyn Store>,
        settings: &Settings,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> Result<Opened<InlineCommitter>, OpenError> {
        let bell = Arc::new(Notify::new());
        let opened = prepare(store, settings, clock, seed, Some(Arc::clone(&bell)))?;
        let Opened { queue, handoffs, committer, unclean_since, was_clean, swept_parts } = opened;
        let committer = InlineCommitter::new(committer, bell);
        Ok(Opened { queue, handoffs, committer, unclean_since, was_clean, swept_parts })
    }
}

fn prepare(
    store: Arc<dyn Store>,
    settings: &Settings,
    clock: Arc<dyn Clock>,
    seed: u64,
    bell: Option<Arc<Notify>>,
) -> Result<Opened<Committer>, OpenError> {
    let fresh = check_format(&*store)?;
    let size = Size {
        messages: read_meta(&*store, meta::MESSAGES)?.unwrap_or(0),
        jobs: read_meta(&*store, meta::JOBS)?.unwrap_or(0),
    };
    let consumed = EventId::new(read_meta(&*store, meta::EVENTS_CONSUMED)?.unwrap_or(0));
    let floor = EventId::new(read_meta(&*store, meta::EVENTS_FLOOR)?.unwrap_or(0));
    let last = last_event(&*store)?.max(consumed).max(floor);
    let clean = fresh || read_meta(&*store, meta::CLEAN_STOP)?.is_some();
    let unclean_since = unclean_since(&*store, clean, clock.now())?;
    let swept_parts = sweep_parts(&*store)?;
    let lists = Arc::new(ListCounts::read(&*store)?);
    let health = Arc::new(Health::new(size));
    let outbox = Arc::new(QueueOutbox::new(Arc::clone(&store), Arc::clone(&health), last, consumed));
    let (transactions, inbox) = crossbeam::channel::bounded(TRANSACTIONS_MAX);
    let (handoffs, handoff_receiver) = mpsc::channel(HANDOFFS_MAX);
    let committer = Committer::new(
        Arc::clone(&store),
        Arc::clone(&outbox),
        Arc::clone(&health),
        Arc::clone(&lists),
        inbox,
        last.next(),
        size,
    );
    let marks = committer.mark_inbox();
    let inner = Inner {
        store,
        outbox,
        health,
        clock,
        ids: Mutex::new(Ids::new(seed)),
        transactions,
        bell,
        lists,
        marks,
        room: Semaphore::new(TRANSACTIONS_MAX),
        handoffs,
        messages_max: AtomicU64::new(0),
        free_space_reserve_bytes: AtomicU64::new(0),
        events_pending_max: AtomicU64::new(0),
        sent_retention_ms: AtomicU64::new(0),
        sent_swept_at_ms: AtomicU64::new(0),
        reports_swept_at_ms: AtomicU64::new(0),
    };
    let queue = Queue(Arc::new(inner));
    queue.reload(settings);
    Ok(Opened { queue, handoffs: handoff_receiver, committer, unclean_since, was_clean: clean, swept_parts })
}

/// A seed from the operating system.
pub fn random_seed() -> u64 {
    rand::rng().random()
}

/// Refuses a newer format; marks a fresh or older store with ours and tells whether it was fresh.
fn check_format(store: &dyn Store) -> Result<bool, OpenError> {
    let supported = format::FORMAT_VERSION;
    match read_meta(store, meta::FORMAT)? {
        Some(found) if found > u64::from(supported) => Err(OpenError::NewerFormat { found, supported }),
        // Marked before anything is written that an older release would not know.
        Some(found) if found < u64::from(supported) => {
            store.write(&[meta_put(meta::FORMAT, u64::from(supported))], true)?;
            Ok(false)
        }
        Some(_) => Ok(false),
        None => {
            store.write(&[meta_put(meta::FORMAT, u64::from(supported))], true)?;
            Ok(true)
        }
    }
}

fn read_meta(store: &dyn Store, name: &'static str) -> Result<Option<u64>, OpenError> {
    let Some(value) = store.get(Family::Meta, name.as_bytes())? else { return Ok(None) };
    let number = format::decode_meta_number(&value);
    number.map(Some).map_err(|error| OpenError::Meta { name, reason: error.to_string() })
}

fn last_event(store: &dyn Store) -> Result<EventId, OpenError> {
    let last = store.last(Family::Outbox)?;
    Ok(last.and_then(|(key, _)| format::parse_outbox_key(&key)).map_or(EventId::NONE, EventId::new))
}

/// The last unclean stop. What was due then and was not tried since is still due as it was then, however many orderly
/// stops came after: so the time is kept for good.
fn unclean_since(store: &dyn Store, clean: bool, now: Timestamp) -> Result<Option<Timestamp>, OpenError> {
    if clean {
        return Ok(read_meta(store, meta::UNCLEAN_SINCE)?.map(Timestamp::from_millis));
    }
    let newest = store.last(Family::Message)?;
    let newest =
        newest.and_then(|(key, _)| Some(MessageId::from_bytes(<[u8; MessageId::BYTES]>::try_from(&*key).ok()?)));
    if let Some(told) = newest.map(|newest| newest.accepted_at()).filter(|told| *told > now) {
        bring_back(store, now, told)?;
    }
    store.write(&[meta_put(meta::UNCLEAN_SINCE, now.millis())], true)?;
    Ok(Some(now))
}

/// The clock was set back while the daemon was down: what was due by the time that it told may have been in flight, and by the clock of
/// now it is due later than this start. It is due now, so that it is taken for what it is. A crash in between changes nothing: the next
/// start goes on.
fn bring_back(store: &dyn Store, now: Timestamp, told: Timestamp) -> Result<(), StoreError> {
    let (from, to) = format::due_range(now.millis().saturating_add(1), told.millis());
    let (mut from, mut jobs) = (from.to_vec(), 0);
    loop {
        let due = store.scan(Family::Due, &from, &to, SWEEP_BATCH)?;
        let Some((last, _)) = due.last() else { break };
        from = [&last[..], &[0]].concat();
        let mut changes = Vec::with_capacity(2 * due.len());
        for (key, value) in due {
            let Some((_, id, group)) = format::parse_due_key(&key) else { continue };
            changes.push(Change::Delete { family: Family::Due, key: Key::new(&key) });
            let key = Key::new(&format::due_key(now.millis(), &id, group));
            changes.push(Change::Put { family: Family::Due, key, value });
        }
        jobs += changes.len() / 2;
        store.write(&changes, true)?;
    }
    tracing::warn!(%told, jobs, "the clock was set back since the last stop, which was not orderly: what was due then is due now");
    Ok(())
}

impl Queue {
    /// From here until a clean stop, whatever is due may be in flight. Called right before deliveries begin, so that a start
    /// that fails for other reasons changes nothing. Blocks.
    pub fn mark_running(&self) -> Result<(), StoreError> {
        let change = Change::Delete { family: Family::Meta, key: Key::new(meta::CLEAN_STOP.as_bytes()) };
        self.0.store.write(&[change], true)
    }
}

/// Removes body parts whose message was never accepted: written ahead by a session that a crash ended.
fn sweep_parts(store: &dyn Store) -> Result<u64, OpenError> {
    let mut swept = 0;
    let mut from = Vec::new();
    let end = [0xff; MessageId::BYTES + 5];
    // One record of each message is read, then the scan jumps to the next message.
    while let Some((key, _)) = store.scan(Family::BodyPart, &from, &end, 1)?.into_iter().next() {
        let Some((id, _)) = format::parse_body_part_key(&key) else {
            tracing::error!(?key, "a body part key is malformed; the entry is left alone");
            from = key;
            from.push(0);
            continue;
        };
        let (start, next) = format::body_part_range(&id);
        if store.get(Family::Message, &id)?.is_none() {
            swept += remove_range(store, &start, &next)?;
        }
        from = next.to_vec();
    }
    Ok(swept)
}

fn remove_range(store: &dyn Store, start: &[u8], end: &[u8]) -> Result<u64, OpenError> {
    let mut removed = 0;
    loop {
        let records = store.scan(Family::BodyPart, start, end, SWEEP_BATCH)?;
        if records.is_empty() {
            return Ok(removed);
        }
        let keys = records.iter().map(|(key, _)| Key::new(key));
        let changes: Vec<_> = keys.map(|key| Change::Delete { family: Family::BodyPart, key }).collect();
        store.write(&changes, false)?;
        removed += changes.len() as u64;
    }
}
