//! A file system for tests that forgets what was not synced, runs full, fails a sync and stops at any step; and an
//! outbox of its own kind. For tests and simulation.

#![allow(clippy::cast_possible_truncation, reason = "files of a test fit into memory")]
#![allow(clippy::indexing_slicing, reason = "a slip in a model must stop the test that uses it")]

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{FileKey, FileStat, Storage, StorageFile};
use crate::events::{EventId, EventLine, Outbox, OutboxError, OutboxEvent};
use crate::types::Timestamp;

/// How a crash ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// kill -9: the page cache lives on.
    Process,
    /// Nothing unsynced survives.
    Power,
    /// As `Power`, but new files survive while renames before them do not: no order without a sync of the directory.
    PowerReordered,
    /// As `Power`, but half of what was written survives, with zeros after it, and all renames.
    PowerWithGarbage,
}

#[derive(Default)]
struct Inode {
    /// What readers see.
    cached: Vec<u8>,
    /// What a power cut leaves.
    durable: Vec<u8>,
    /// Written since the last sync, successful or not: a failed sync forgets it, as Linux does.
    dirty: Vec<(usize, usize)>,
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Octets that all files together may have.
    capacity: Option<usize>,
    /// Steps until the crash.
    steps_left: Option<u64>,
    crashed: bool,
    syncs_to_fail: u32,
    syncs: u64,
    /// At most so many octets are written in one call.
    write_max: Option<usize>,
}

type Observer = Arc<dyn Fn() + Send + Sync>;

/// One directory. Clones share it.
#[derive(Clone, Default)]
pub struct ModelStorage {
    state: Arc<Mutex<State>>,
    observer: Arc<Mutex<Option<Observer>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn crash_error() -> io::Error {
    io::Error::other("crashed")
}

impl ModelStorage {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Called after every step that changes something.
    pub fn observe(&self, observer: impl Fn() + Send + Sync + 'static) {
        *lock(&self.observer) = Some(Arc::new(observer));
    }

    /// The step after `steps` more does not happen, or in part, and none after it.
    pub fn crash_after(&self, steps: u64) {
        lock(&self.state).steps_left = Some(steps);
    }

    /// The last step was reached.
    pub fn has_crashed(&self) -> bool {
        lock(&self.state).crashed
    }

    /// All files together have room for so many octets.
    pub fn limit(&self, capacity: Option<usize>) {
        lock(&self.state).capacity = capacity;
    }

    /// One call writes at most so many octets.
    pub fn limit_writes(&self, bytes: usize) {
        lock(&self.state).write_max = Some(bytes);
    }

    /// The next syncs of files fail, and forget what they were to sync.
    pub fn fail_syncs(&self, count: u32) {
        lock(&self.state).syncs_to_fail = count;
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> u64 {
        lock(&self.state).syncs
    }

    /// Octets of all files.
    pub fn used(&self) -> usize {
        lock(&self.state).inodes.iter().map(|inode| inode.cached.len()).sum()
    }

    /// The machine is up again.
    pub fn restart(&self, crash: Crash) {
        let mut state = lock(&self.state);
        state.steps_left = None;
        state.crashed = false;
        if crash == Crash::Process {
            return;
        }
        for inode in &mut state.inodes {
            let kept = inode.durable.len();
            let seen = inode.cached.len();
            let mut after = inode.durable.clone();
            if crash == Crash::PowerWithGarbage && seen > kept {
                let half = kept + (seen - kept) / 2;
                after.extend_from_slice(&inode.cached[kept..half]);
                after.resize(seen, 0);
            }
            inode.cached.clone_from(&after);
            inode.durable = after;
            inode.dirty.clear();
        }
        let durable = state.durable_names.clone();
        let seen = std::mem::replace(&mut state.names, durable);
        match crash {
            Crash::PowerWithGarbage => state.names = seen,
            Crash::PowerReordered => {
                let is_new = |inode: &usize| !state.durable_names.values().any(|durable| durable == inode);
                let new: Vec<_> = seen.into_iter().filter(|(_, inode)| is_new(inode)).collect();
                state.names.extend(new);
            }
            Crash::Power | Crash::Process => {}
        }
        state.durable_names = state.names.clone();
    }

    /// The content of a file.
    pub fn content(&self, name: &str) -> Option<String> {
        let state = lock(&self.state);
        state.names.get(name).map(|inode| String::from_utf8_lossy(&state.inodes[*inode].cached).into_owned())
    }

    /// Puts a file there, synced.
    pub fn put(&self, name: &str, content: &[u8]) {
        let mut state = lock(&self.state);
        let inode = state.inodes.len();
        state.inodes.push(Inode { cached: content.to_vec(), durable: content.to_vec(), dirty: Vec::new() });
        state.names.insert(name.to_owned(), inode);
        state.durable_names.insert(name.to_owned(), inode);
    }

    /// What another program does: not a step.
    pub fn rename_externally(&self, from: &str, to: &str) {
        let mut state = lock(&self.state);
        let inode = state.names.remove(from).expect("a test renames what is there");
        state.names.insert(to.to_owned(), inode);
    }

    /// One step: `Ok(false)` where it is the one amid which the machine stops.
    fn step<T>(&self, action: impl FnOnce(&mut State, bool) -> io::Result<T>) -> io::Result<T> {
        let result = {
            let mut state = lock(&self.state);
            if state.crashed {
                return Err(crash_error());
            }
            let is_last = state.steps_left == Some(0);
            state.steps_left = state.steps_left.map(|steps| steps.saturating_sub(1));
            let result = action(&mut state, is_last);
            state.crashed = is_last;
            if is_last { Err(crash_error()) } else { result }
        };
        let observer = lock(&self.observer).clone();
        if let Some(observer) = observer {
            observer();
        }
        result
    }
}

fn stat(state: &State, inode: usize) -> FileStat {
    FileStat {
        key: FileKey { device: 1, inode: inode as u64 },
        len: state.inodes[inode].cached.len() as u64,
        created_at: Timestamp::EPOCH,
    }
}

impl Storage for ModelStorage {
    fn prepare(&self) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn StorageFile>>> {
        let inode = lock(&self.state).names.get(name).copied();
        Ok(inode.map(|inode| Box::new(ModelFile { storage: self.clone(), inode }) as Box<dyn StorageFile>))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let inode = self.step(|state, is_last| {
            assert!(!state.names.contains_key(name), "{name} exists");
            let inode = state.inodes.len();
            if !is_last {
                state.inodes.push(Inode::default());
                state.names.insert(name.to_owned(), inode);
            }
            Ok(inode)
        })?;
        Ok(Box::new(ModelFile { storage: self.clone(), inode }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.state).names.keys().cloned().collect())
    }

    fn stat(&self, name: &str) -> io::Result<Option<FileStat>> {
        let state = lock(&self.state);
        Ok(state.names.get(name).map(|inode| stat(&state, *inode)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step(|state, is_last| {
            assert!(!state.names.contains_key(to), "{to} would be overwritten");
            if !is_last {
                let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
                state.names.insert(to.to_owned(), inode);
            }
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.step(|state, is_last| {
            if !is_last {
                state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
            }
            Ok(())
        })
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.step(|state, is_last| {
            if !is_last {
                state.durable_names = state.names.clone();
            }
            Ok(())
        })
    }

    fn directory(&self) -> &Path {
        Path::new("/model")
    }
}

struct ModelFile {
    storage: ModelStorage,
    inode: usize,
}

impl StorageFile for ModelFile {
    fn stat(&self) -> io::Result<FileStat> {
        Ok(stat(&lock(&self.storage.state), self.inode))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = lock(&self.storage.state);
        let bytes = state.inodes[self.inode].cached.get(offset as usize..).unwrap_or_default();
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.storage.step(|state, is_last| {
            let used: usize = state.inodes.iter().map(|inode| inode.cached.len()).sum();
            let start = offset as usize;
            let len = state.inodes[self.inode].cached.len();
            assert!(start <= len, "a hole");
            let wanted = if is_last { bytes.len() / 2 } else { bytes.len().min(state.write_max.unwrap_or(usize::MAX)) };
            let room = state.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(used) + len - start);
            let count = wanted.min(room);
            if count == 0 && !is_last {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let inode = &mut state.inodes[self.inode];
            inode.cached.resize(len.max(start + count), 0);
            inode.cached[start..start + count].copy_from_slice(&bytes[..count]);
            inode.dirty.push((start, start + count));
            Ok(count)
        })
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.storage.step(|state, is_last| {
            if !is_last {
                let inode = &mut state.inodes[self.inode];
                inode.cached.truncate(len as usize);
                inode.durable.truncate(len as usize);
            }
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.storage.step(|state, is_last| {
            if is_last {
                return Ok(());
            }
            state.syncs += 1;
            let fails = state.syncs_to_fail > 0;
            state.syncs_to_fail = state.syncs_to_fail.saturating_sub(1);
            let inode = &mut state.inodes[self.inode];
            let dirty = std::mem::take(&mut inode.dirty);
            if fails {
                return Err(io::Error::other("lost write"));
            }
            for (start, end) in dirty {
                let end = end.min(inode.cached.len());
                if start < end {
                    inode.durable.resize(inode.durable.len().max(end), 0);
                    inode.durable[start..end].copy_from_slice(&inode.cached[start..end]);
                }
            }
            Ok(())
        })
    }
}

/// An outbox in memory.
#[derive(Default)]
pub struct ModelOutbox {
    state: Mutex<OutboxState>,
    changed: std::sync::Condvar,
}

#[derive(Default)]
struct OutboxState {
    lines: Vec<EventLine>,
    /// All up to this id may be gone.
    consumed: u64,
    woken: bool,
    broken: bool,
    damaged: std::collections::BTreeSet<u64>,
}

impl ModelOutbox {
    /// Commits an event.
    pub fn push(&self, line: EventLine) {
        lock(&self.state).lines.push(line);
        self.changed.notify_all();
    }

    /// The newest event that may be gone.
    pub fn consumed_through(&self) -> u64 {
        lock(&self.state).consumed
    }

    /// What a power cut may do to the mark: it was not synced.
    pub fn forget_consumed(&self, through: u64) {
        let mut state = lock(&self.state);
        state.consumed = state.consumed.min(through);
    }

    /// The record of this event can no longer be read.
    pub fn damage(&self, id: u64) {
        lock(&self.state).damaged.insert(id);
    }

    /// From now on it does not answer.
    pub fn break_down(&self) {
        lock(&self.state).broken = true;
        self.wake();
    }
}

impl Outbox for ModelOutbox {
    fn read(&self, from: EventId, limit: usize) -> Result<Vec<OutboxEvent>, OutboxError> {
        let state = lock(&self.state);
        if state.broken {
            return Err(OutboxError("broken".to_owned()));
        }
        assert!(from.value() > state.consumed, "{from:?} was consumed");
        let events = state.lines.iter().zip(1..).map(|(line, id)| OutboxEvent {
            id: EventId::new(id),
            line: (!state.damaged.contains(&id)).then(|| line.clone()),
        });
        Ok(events.skip_while(|event| event.id < from).take(limit).collect())
    }

    fn oldest(&self) -> Result<EventId, OutboxError> {
        Ok(EventId::new(lock(&self.state).consumed + 1))
    }

    fn consumed(&self, through: EventId) -> Result<(), OutboxError> {
        let mut state = lock(&self.state);
        assert!(through.value() > state.consumed && through.value() <= state.lines.len() as u64);
        state.consumed = through.value();
        Ok(())
    }

    fn wait(&self, after: EventId, timeout: Duration) {
        let state = lock(&self.state);
        let is_quiet = |state: &mut OutboxState| state.lines.len() as u64 <= after.value() && !state.woken;
        let (mut state, _) =
            self.changed.wait_timeout_while(state, timeout, is_quiet).unwrap_or_else(PoisonError::into_inner);
        state.woken = false;
    }

    fn wake(&self) {
        lock(&self.state).woken = true;
        self.changed.notify_all();
    }

    fn newest(&self) -> Option<EventId> {
        Some(EventId::new(lock(&self.state).lines.len() as u64))
    }
}
