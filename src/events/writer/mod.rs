//! The writer: one OS thread that pulls synced events from the outbox and appends them to the files, and the handle by
//! which the daemon rotates, reloads and stops it.
//!
//! Promises: a line can be read a few milliseconds after its commit; `consumed` is called only for events that are synced
//! in every stream that takes them; a failing stream does not hold up another one; what cannot be written waits in the
//! queue. Does not: retry a broken outbox. Then the thread ends, and [`WriterHandle::is_running`] says so.

mod pump;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

use super::file::{DirStorage, Storage};
use super::{EventKind, Outbox, OutboxError, Settings};
use crate::types::{Clock, Timestamp};

pub use pump::{Pump, Step};

/// How long [`WriterHandle::reload`] waits for the thread, which may be in the middle of a slow write.
const RELOAD_DEADLINE: Duration = Duration::from_secs(10);

/// Why events cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The administrator has to change them.
    #[error("{0}")]
    Settings(String),
    /// The file system refuses; at start the daemon does not start, later the old settings stay.
    #[error("event file {}: {error}", path.display())]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
    /// The store does not answer.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The operating system gives no thread.
    #[error("cannot start the event writer: {0}")]
    Thread(io::Error),
    /// The thread has ended, or is in a write that does not return; then new settings may still be taken later.
    #[error("event writer does not answer")]
    NoAnswer,
}

/// How the writer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Everything is written.
    Good,
    /// Events wait in the queue, which slows intake down when it is full.
    Failing {
        /// What the file system says.
        error: String,
        /// Since when.
        since: Timestamp,
    },
    /// The thread has ended: by [`WriterHandle::stop`], or by this error of the outbox.
    Ended {
        /// Why.
        error: Option<String>,
    },
}

/// Starts the writer.
#[derive(Debug)]
pub struct EventWriter;

impl EventWriter {
    /// Recovers the files, then starts the thread. Blocking until the files are recovered: milliseconds, longer only where
    /// much was written and not synced before.
    pub fn start(
        outbox: Arc<dyn Outbox>,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<WriterHandle, EventsError> {
        let storage = Arc::new(DirStorage::new(&settings.directory));
        Self::start_on(storage, outbox, settings, clock)
    }

    /// Like [`EventWriter::start`], on a storage of the caller's.
    pub fn start_on(
        storage: Arc<dyn Storage>,
        outbox: Arc<dyn Outbox>,
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<WriterHandle, EventsError> {
        let pump = Pump::open(Arc::clone(&outbox), storage, &settings, Arc::clone(&clock))?;
        let shared = Arc::new(Shared {
            outbox,
            commands: Mutex::default(),
            health: Mutex::new(Health::Good),
            kinds: AtomicU16::new(kind_bits(&settings)),
            pending: AtomicU64::new(0),
        });
        let (alive, ended) = bounded(1);
        let thread = Thread { shared: Arc::clone(&shared), pump, directory: settings.directory, clock, _alive: alive };
        let join = std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || thread.run())
            .map_err(EventsError::Thread)?;
        Ok(WriterHandle { shared, join: Mutex::new(Some(join)), ended })
    }
}

/// Controls the writer. Dropping it leaves the thread running: call [`WriterHandle::stop`].
#[derive(Debug)]
pub struct WriterHandle {
    shared: Arc<Shared>,
    join: Mutex<Option<JoinHandle<()>>>,
    /// Disconnected when the thread ends.
    ended: Receiver<()>,
}

struct Shared {
    outbox: Arc<dyn Outbox>,
    commands: Mutex<Commands>,
    health: Mutex<Health>,
    /// The [`kind_bit`] of each kind that some stream takes.
    kinds: AtomicU16,
    pending: AtomicU64,
}

/// What the thread is asked to do; each at most once at a time.
#[derive(Default)]
struct Commands {
    rotate: bool,
    /// A later reload replaces one that was not yet taken; its caller gets no answer.
    reload: Option<(Settings, Sender<Result<(), EventsError>>)>,
    stop: Option<Duration>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each value is valid by itself, whatever the other thread was about to do.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bit for each kind: the assertion says when they need a wider number.
fn kind_bits(settings: &Settings) -> u16 {
    EventKind::ALL.into_iter().filter(|kind| settings.takes(*kind)).map(kind_bit).sum()
}

const _: () = assert!(EventKind::Report.code() <= 16);

fn kind_bit(kind: EventKind) -> u16 {
    1 << (kind.code() - 1)
}

impl WriterHandle {
    /// Rotates every stream that holds a line, and opens anew what another program moved away. Returns at once.
    pub fn rotate(&self) {
        lock(&self.shared.commands).rotate = true;
        self.shared.outbox.wake();
    }

    /// Takes new settings: all of them, or on an error none. Blocking, up to 10 s where the disk hangs.
    pub fn reload(&self, settings: Settings) -> Result<(), EventsError> {
        settings.check().map_err(EventsError::Settings)?;
        let (answer, answered) = bounded(1);
        lock(&self.shared.commands).reload = Some((settings, answer));
        self.shared.outbox.wake();
        if !self.is_running() {
            return Err(EventsError::NoAnswer);
        }
        answered.recv_timeout(RELOAD_DEADLINE).unwrap_or(Err(EventsError::NoAnswer))
    }

    /// Writes what is committed, syncs, and ends the thread; after `deadline` the rest stays in the queue for the next
    /// start. Blocking; `true` if the thread has ended.
    pub fn stop(&self, deadline: Duration) -> bool {
        lock(&self.shared.commands).stop = Some(deadline);
        self.shared.outbox.wake();
        // The thread watches the deadline too; this one is for a file system that hangs.
        let _ = self.ended.recv_timeout(deadline + Duration::from_secs(1));
        if self.is_running() {
            return false;
        }
        if let Some(join) = lock(&self.join).take() {
            // A panic of the thread was reported by the panic hook.
            let _ = join.join();
        }
        true
    }

    /// Whether the thread lives. One that ended without [`WriterHandle::stop`] is a reason to stop the daemon.
    pub fn is_running(&self) -> bool {
        use crossbeam::channel::TryRecvError;
        self.ended.try_recv() == Err(TryRecvError::Empty)
    }

    /// How the writer is.
    pub fn health(&self) -> Health {
        let health = lock(&self.shared.health).clone();
        match health {
            Health::Ended { .. } => health,
            _ if !self.is_running() => Health::Ended { error: Some("event writer panicked".to_owned()) },
            _ => health,
        }
    }

    /// Events that are committed and not yet safe in every file, as far as known.
    pub fn pending(&self) -> u64 {
        self.shared.pending.load(Ordering::Relaxed)
    }

    /// Whether any stream takes events of this kind. Where none takes `Bounce`, senders get DSNs instead.
    pub fn takes(&self, kind: EventKind) -> bool {
        self.shared.kinds.load(Ordering::Relaxed) & kind_bit(kind) != 0
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("health", &*lock(&self.health)).finish_non_exhaustive()
    }
}

struct Thread {
    shared: Arc<Shared>,
    pump: Pump,
    directory: PathBuf,
    clock: Arc<dyn Clock>,
    /// Dropped with this, also by a panic.
    _alive: Sender<()>,
}

impl Thread {
    fn run(mut self) {
        let error = self.work().err().map(|error| error.to_string());
        if let Some(error) = &error {
            tracing::error!(error, "event writer stops: the queue does not answer");
        }
        *lock(&self.shared.health) = Health::Ended { error };
    }

    fn work(&mut self) -> Result<(), OutboxError> {
        loop {
            let commands = std::mem::take(&mut *lock(&self.shared.commands));
            if commands.rotate {
                self.pump.rotate();
            }
            if let Some((settings, answer)) = commands.reload {
                // Full or disconnected: who asked no longer waits.
                let _ = answer.try_send(self.reload(settings));
            }
            if let Some(deadline) = commands.stop {
                return self.drain(self.clock.now().plus(deadline));
            }
            let step = self.pump.step()?;
            self.show();
            if let Step::Idle { after, wait } = step {
                self.shared.outbox.wait(after, wait);
            }
        }
    }

    fn reload(&mut self, settings: Settings) -> Result<(), EventsError> {
        let is_moved = settings.directory != self.directory;
        let storage: Option<Arc<dyn Storage>> =
            if is_moved { Some(Arc::new(DirStorage::new(&settings.directory))) } else { None };
        self.pump.reload(&settings, storage)?;
        self.shared.kinds.store(kind_bits(&settings), Ordering::Relaxed);
        self.directory = settings.directory;
        Ok(())
    }

    fn drain(&mut self, until: Timestamp) -> Result<(), OutboxError> {
        while self.pump.step()? == Step::Worked && self.clock.now() < until {}
        self.pump.sync(self.clock.now())?;
        self.show();
        Ok(())
    }

    fn show(&self) {
        self.shared.pending.store(self.pump.pending(), Ordering::Relaxed);
        let health = match self.pump.failure() {
            None => Health::Good,
            Some((error, since)) => Health::Failing { error: error.to_owned(), since },
        };
        *lock(&self.shared.health) = health;
    }
}
