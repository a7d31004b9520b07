//! The audit stream: who logged in or tried to, and what else an operator wants to see in order, as JSON lines in files of
//! their own beside the event files.
//!
//! Promises: noting costs its caller no disk and never waits; lines are written in order and synced within a second; what
//! could not be taken ([`AUDIT_WAITING_MAX`]) is counted, and a line of the type `dropped` says how much. Does not ride in
//! the queue's batches: after a power cut the lines of the last second may be missing.
//!
//! A line has `timestamp`, `type`, and the fields of its type; docs/EVENTS.md lists them.

mod file;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded};

use super::file::{DirStorage, Storage};
use super::json::Object;
use super::{EventsError, SinkSettings};
use crate::types::{Clock, Timestamp};
use file::AuditFile;

/// Entries that wait for the writer. Full, because the disk hangs or is full: further ones are counted and dropped.
pub const AUDIT_WAITING_MAX: usize = 16_384;
/// Entries that are written at once.
const AUDIT_BATCH_MAX: usize = 512;
/// Lines are synced, and the file's age looked at, this often.
const TICK: Duration = Duration::from_secs(1);
/// How long [`AuditLog::reload`] waits for the writer.
const RELOAD_DEADLINE: Duration = Duration::from_secs(10);

/// One line of the audit stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    kind: &'static str,
    fields: Vec<(&'static str, Value)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Text(Box<str>),
    Number(u64),
    Flag(bool),
}

impl AuditEntry {
    /// A line of this type, without fields yet.
    pub fn new(kind: &'static str) -> Self {
        Self { kind, fields: Vec::new() }
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, name: &'static str, value: impl Into<Box<str>>) -> Self {
        self.with(name, Value::Text(value.into()))
    }

    /// Adds a text where there is one.
    #[must_use]
    pub fn optional(self, name: &'static str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, name: &'static str, value: u64) -> Self {
        self.with(name, Value::Number(value))
    }

    /// Adds true or false.
    #[must_use]
    pub fn flag(self, name: &'static str, value: bool) -> Self {
        self.with(name, Value::Flag(value))
    }

    fn with(mut self, name: &'static str, value: Value) -> Self {
        self.fields.push((name, value));
        self
    }

    fn render(&self, at: Timestamp, out: &mut Vec<u8>) {
        Object::write(out, |object| {
            object.plain("timestamp", at.to_iso8601());
            object.string("type", self.kind);
            for (name, value) in &self.fields {
                match value {
                    Value::Text(text) => object.string(name, text),
                    Value::Number(number) => object.number(name, *number),
                    Value::Flag(flag) => object.boolean(name, *flag),
                }
            }
        });
        out.push(b'\n');
    }
}

/// Takes entries and writes them on a thread of its own. Dropping it leaves the thread running: call [`AuditLog::stop`].
pub struct AuditLog {
    shared: Arc<Shared>,
    entries: Sender<Message>,
    join: Mutex<Option<JoinHandle<()>>>,
    /// Disconnected when the thread ends.
    ended: Receiver<()>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    /// Somebody wants the lines.
    is_on: AtomicBool,
    dropped: AtomicU64,
    commands: Mutex<Commands>,
}

enum Message {
    Entry(Timestamp, AuditEntry),
    /// Look at the commands.
    Wake,
}

#[derive(Default)]
struct Commands {
    rotate: bool,
    reload: Option<(Place, Sender<Result<(), EventsError>>)>,
    stop: bool,
}

/// Where the files are, and their settings; without any, nothing is written. Of the settings, `kinds` means nothing here.
type Place = Option<(Arc<dyn Storage>, SinkSettings)>;

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// The directory of the event files.
    pub directory: std::path::PathBuf,
    /// The file; `None`: nothing is written.
    pub file: Option<SinkSettings>,
}

impl AuditSettings {
    fn place(&self) -> Place {
        let storage = || Arc::new(DirStorage::new(&self.directory)) as Arc<dyn Storage>;
        self.file.clone().map(|file| (storage(), file))
    }
}

impl AuditLog {
    /// Opens the file and starts the thread.
    pub fn start(settings: &AuditSettings, clock: Arc<dyn Clock>) -> Result<Self, EventsError> {
        Self::start_on(settings.place(), clock)
    }

    /// A log that writes nothing and has no thread: for tests and simulations.
    pub fn off(clock: Arc<dyn Clock>) -> Self {
        let (entries, _) = bounded(0);
        let (_, ended) = bounded(0);
        Self { shared: Arc::new(Shared::new(clock, false)), entries, join: Mutex::default(), ended }
    }

    fn start_on(place: Place, clock: Arc<dyn Clock>) -> Result<Self, EventsError> {
        let shared = Arc::new(Shared::new(Arc::clone(&clock), place.is_some()));
        let file = place.map(|(storage, settings)| AuditFile::open(storage, settings, clock.now())).transpose()?;
        let (entries, received) = bounded(AUDIT_WAITING_MAX);
        let (alive, ended) = bounded(1);
        let writer = Writer { shared: Arc::clone(&shared), received, file, _alive: alive };
        let join = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run())
            .map_err(EventsError::Thread)?;
        Ok(Self { shared, entries, join: Mutex::new(Some(join)), ended })
    }

    /// Takes an entry, with the time of now. Returns at once; what cannot be taken is counted.
    pub fn note(&self, entry: AuditEntry) {
        if !self.shared.is_on.load(Ordering::Relaxed) {
            return;
        }
        let message = Message::Entry(self.shared.clock.now(), entry);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.entries.try_send(message) {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Begins a new file, and opens anew one that another program moved away. Returns at once.
    pub fn rotate(&self) {
        self.shared.lock().rotate = true;
        self.wake();
    }

    /// Takes new settings, or on an error none. Blocking, up to 10 s where the disk hangs.
    pub fn reload(&self, settings: &AuditSettings) -> Result<(), EventsError> {
        let (answer, answered) = bounded(1);
        self.shared.lock().reload = Some((settings.place(), answer));
        self.wake();
        answered.recv_timeout(RELOAD_DEADLINE).unwrap_or(Err(EventsError::NoAnswer))
    }

    /// Writes and syncs what was noted, and ends the thread. Blocking, until `deadline` at most; `true` if all is safe.
    pub fn stop(&self, deadline: Duration) -> bool {
        self.shared.lock().stop = true;
        self.wake();
        if let Err(crossbeam::channel::RecvTimeoutError::Timeout) = self.ended.recv_timeout(deadline) {
            return false;
        }
        let join = self.join.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic of the thread was reported by the panic hook.
        join.is_none_or(|join| join.join().is_ok())
    }

    /// Whether the thread lives.
    pub fn is_running(&self) -> bool {
        self.ended.try_recv() != Err(TryRecvError::Disconnected)
    }

    fn wake(&self) {
        // Where it is full, the writer is awake.
        let _ = self.entries.try_send(Message::Wake);
    }
}

impl Shared {
    fn new(clock: Arc<dyn Clock>, is_on: bool) -> Self {
        let is_on = AtomicBool::new(is_on);
        Self { clock, is_on, dropped: AtomicU64::new(0), commands: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Commands> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    shared: Arc<Shared>,
    received: Receiver<Message>,
    file: Option<AuditFile>,
    _alive: Sender<()>,
}

impl Writer {
    fn run(mut self) {
        let mut synced_at = self.shared.clock.now();
        loop {
            // What could not be written waits in memory; then no more is taken, and the channel fills.
            let is_stuck = self.file.as_ref().is_some_and(AuditFile::is_stuck);
            let first = if is_stuck {
                std::thread::sleep(TICK);
                None
            } else {
                match self.received.recv_timeout(TICK) {
                    Ok(message) => Some(message),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            };
            let now = self.shared.clock.now();
            self.take(first, now);
            let commands = std::mem::take(&mut *self.shared.lock());
            if let Some((place, answer)) = commands.reload {
                // The asker may have lost its patience.
                let _ = answer.send(self.reload(place, now));
            }
            if let Some(file) = &mut self.file {
                file.write(now);
                if commands.rotate {
                    file.ask_rotation();
                }
                if commands.stop || commands.rotate || now.since(synced_at) >= TICK || now < synced_at {
                    synced_at = now;
                    file.tend(now);
                }
            }
            if commands.stop {
                break;
            }
        }
        self.finish();
    }

    /// Renders what has come.
    fn take(&mut self, first: Option<Message>, now: Timestamp) {
        let more = self.received.try_iter().take(if first.is_some() { AUDIT_BATCH_MAX } else { 0 });
        let Some(file) = &mut self.file else {
            return more.for_each(drop);
        };
        for message in first.into_iter().chain(more) {
            if let Message::Entry(at, entry) = message {
                entry.render(at, file.lines());
            }
        }
        // Behind what was there before the channel was full.
        if self.received.is_empty() && !file.is_stuck() {
            let count = self.shared.dropped.swap(0, Ordering::Relaxed);
            if count > 0 {
                tracing::warn!(count, "audit lines dropped: the disk did not keep up");
                AuditEntry::new("dropped").number("count", count).render(now, file.lines());
            }
        }
    }

    fn reload(&mut self, place: Place, now: Timestamp) -> Result<(), EventsError> {
        if let (Some((storage, settings)), Some(file)) = (&place, &mut self.file)
            && file.is_at(&**storage, settings)
        {
            file.set_settings(settings.clone());
            return Ok(());
        }
        let next = place.map(|(storage, settings)| AuditFile::open(storage, settings, now)).transpose()?;
        self.shared.is_on.store(next.is_some(), Ordering::Relaxed);
        if let Some(mut old) = std::mem::replace(&mut self.file, next) {
            old.write(now);
            old.tend(now);
        }
        Ok(())
    }

    fn finish(&mut self) {
        let now = self.shared.clock.now();
        while let Ok(message) = self.received.try_recv() {
            self.take(Some(message), now);
        }
        self.take(None, now);
        if let Some(file) = &mut self.file {
            file.write(now);
            file.tend(now);
        }
    }
}

#[cfg(test)]
mod tests;
