//! Recovery of event files: what a crash, a power cut or another program left where the current file should be.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use posthaste::events::file::{FileKey, FileStat, Storage, StorageFile};
use posthaste::events::schema::{Extras, Mail, send};
use posthaste::events::writer::{Pump, Step};
use posthaste::events::{EventId, Outbox, OutboxError, OutboxEvent, Settings, SinkSettings};
use posthaste::types::{Clock, ManualClock, MessageId, Timestamp};

const NOW: Timestamp = Timestamp::from_millis(1_683_320_423_244);
/// The events that the outbox holds: ids 3 to 6; 1 and 2 were consumed.
const FIRST: u64 = 3;
const LAST: u64 = 6;
/// Steps until all is written; many more than needed.
const STEPS_MAX: usize = 1_000;

/// Octets that stand in `events.jsonl` when the writer starts. Octet 0 says how many true lines stand in front.
pub fn event_files(data: &[u8]) {
    let Some((true_lines, octets)) = data.split_first() else { return };
    let mut content = Vec::new();
    for id in 1..=u64::from(*true_lines % 8).min(LAST) {
        event(id).write_line(&mut content);
    }
    content.extend_from_slice(octets);
    let clock = Arc::new(ManualClock::at(NOW));
    let files = Arc::new(Files::default());
    files.lock().insert("events.jsonl".to_owned(), Arc::new(Mutex::new(content)));
    let outbox = Arc::new(Events(Mutex::new(FIRST - 1)));
    let settings =
        Settings { sinks: vec![SinkSettings::default()], sync_interval: Duration::ZERO, ..Settings::default() };
    let pump = Pump::open(outbox.clone(), files.clone(), &settings, clock.clone() as Arc<dyn Clock>);
    let mut pump = pump.expect("no content of a file keeps the daemon from starting");
    for _ in 0..STEPS_MAX {
        match pump.step().expect("the outbox answers") {
            Step::Idle { .. } if outbox.oldest().is_ok_and(|oldest| oldest > EventId::new(LAST)) => break,
            Step::Idle { wait, .. } => clock.advance(wait),
            Step::Worked => {}
        }
    }
    assert_eq!(outbox.oldest().ok(), Some(EventId::new(LAST + 1)), "events wait though the disk works");
    let files = files.lock();
    let all: Vec<u8> = files.values().flat_map(|file| lock(file).clone()).collect();
    for id in FIRST..=LAST {
        let mut line = Vec::new();
        event(id).write_line(&mut line);
        let count = all.windows(line.len()).filter(|window| *window == line).count();
        assert!(count >= 1, "event {id} was dropped from the outbox and stands in no file");
    }
}

fn event(id: u64) -> OutboxEvent {
    let message = MessageId::new(NOW, u128::from(id));
    OutboxEvent {
        id: EventId::new(id),
        line: Some(send(Mail { id: message, json: b"{\"tags\":{\"a\":[\"b\"]}}" }, &Extras::default())),
    }
}

/// The outbox; the number is the last consumed event.
struct Events(Mutex<u64>);

impl Outbox for Events {
    fn read(&self, from: EventId, limit: usize) -> Result<Vec<OutboxEvent>, OutboxError> {
        let first = from.value().max(*lock(&self.0) + 1);
        Ok((first..=LAST).take(limit).map(event).collect())
    }

    fn oldest(&self) -> Result<EventId, OutboxError> {
        Ok(EventId::new(*lock(&self.0) + 1))
    }

    fn consumed(&self, through: EventId) -> Result<(), OutboxError> {
        let mut consumed = lock(&self.0);
        *consumed = (*consumed).max(through.value());
        Ok(())
    }

    fn wait(&self, _after: EventId, _timeout: Duration) {}

    fn wake(&self) {}

    fn newest(&self) -> Option<EventId> {
        Some(EventId::new(LAST))
    }
}

type Content = Arc<Mutex<Vec<u8>>>;

/// A directory in memory where everything works.
#[derive(Default)]
struct Files(Mutex<BTreeMap<String, Content>>);

struct File(Content);

impl Files {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Content>> {
        lock(&self.0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stat(content: &Content) -> FileStat {
    let inode = Arc::as_ptr(content) as usize as u64;
    FileStat { key: FileKey { device: 1, inode }, len: lock(content).len() as u64, created_at: NOW }
}

impl Storage for Files {
    fn prepare(&self) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn StorageFile>>> {
        Ok(self.lock().get(name).map(|content| Box::new(File(Arc::clone(content))) as Box<dyn StorageFile>))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let content = Content::default();
        let old = self.lock().insert(name.to_owned(), Arc::clone(&content));
        assert!(old.is_none(), "{name} was there already");
        Ok(Box::new(File(content)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().keys().cloned().collect())
    }

    fn stat(&self, name: &str) -> io::Result<Option<FileStat>> {
        Ok(self.lock().get(name).map(stat))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.lock();
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        assert!(files.insert(to.to_owned(), content).is_none(), "{to} was overwritten");
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.lock().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn directory(&self) -> &Path {
        Path::new("/events")
    }
}

impl StorageFile for File {
    fn stat(&self) -> io::Result<FileStat> {
        Ok(stat(&self.0))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let content = lock(&self.0);
        let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(count)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut content = lock(&self.0);
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let end = offset + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        let place = content.get_mut(offset..end).ok_or(io::ErrorKind::InvalidInput)?;
        place.copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        lock(&self.0).truncate(usize::try_from(len).map_err(io::Error::other)?);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}
