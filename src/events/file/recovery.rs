//! Where a stream of files goes on after a start: see the module's page for what it promises.

use std::io;

use super::name::SinkName;
use super::scan::{first_line_from, line_at, line_id, read_range, tail};
use super::{FileStat, Storage, StorageFile};
use crate::events::{EventId, Outbox, OutboxError, OutboxEvent, SinkSettings};
use crate::types::Timestamp;

/// Events of one read from the outbox while comparing.
const COMPARE_EVENTS_MAX: usize = 256;

/// Octets of one write while writing again what may not be on the disk.
const COPY_BYTES_MAX: usize = 1 << 20;

/// Why a stream could not be opened.
#[derive(Debug)]
pub(super) enum RecoverError {
    Storage(io::Error),
    Outbox(OutboxError),
}

impl From<io::Error> for RecoverError {
    fn from(error: io::Error) -> Self {
        Self::Storage(error)
    }
}

impl From<OutboxError> for RecoverError {
    fn from(error: OutboxError) -> Self {
        Self::Outbox(error)
    }
}

/// The state in which writing goes on. All of it is synced.
pub(super) struct Recovered {
    /// All events up to this one are in the files, or were dropped from the outbox before.
    pub(super) taken: EventId,
    /// The current file, if it exists.
    pub(super) current: Option<Current>,
}

/// The current file.
pub(super) struct Current {
    pub(super) file: Box<dyn StorageFile>,
    pub(super) stat: FileStat,
    /// Where the next line goes: behind the last whole line.
    pub(super) offset: u64,
    /// Octets of the file: more than `offset` where the next line is there in part.
    pub(super) len: u64,
    /// The first event within.
    pub(super) first: Option<EventId>,
}

/// Finds out where to go on, and repairs what a crash left behind.
pub(super) fn recover(
    storage: &dyn Storage,
    settings: &SinkSettings,
    outbox: &dyn Outbox,
    now: Timestamp,
) -> Result<Recovered, RecoverError> {
    let name = SinkName::new(&settings.file_name);
    let oldest = outbox.oldest()?;
    let mut recovery = Recovery { storage, settings, outbox, name, oldest, taken: oldest.previous() };
    recovery.look_at_earlier_files()?;
    let current = recovery.look_at_current(now)?;
    storage.sync_directory()?;
    Ok(Recovered { taken: recovery.taken, current })
}

/// The id under which a file is rotated: that of its first event.
pub(super) fn first_event(file: &dyn StorageFile) -> io::Result<Option<EventId>> {
    Ok(line_at(file, 0)?.and_then(|line| line_id(&line)))
}

/// A name for a rotated file that is free: where the clock shows the time of an earlier rotation, a later second.
pub(crate) fn free_name(
    storage: &dyn Storage,
    name: &SinkName,
    now: Timestamp,
    first: Option<EventId>,
) -> io::Result<String> {
    let mut at = now;
    loop {
        let rotated = name.rotated(at, first.unwrap_or_default());
        if storage.stat(&rotated)?.is_none() {
            return Ok(rotated);
        }
        at = at.plus(std::time::Duration::from_secs(1));
    }
}

struct Recovery<'a> {
    storage: &'a dyn Storage,
    settings: &'a SinkSettings,
    outbox: &'a dyn Outbox,
    name: SinkName,
    /// The outbox holds events from here on.
    oldest: EventId,
    taken: EventId,
}

/// What a comparison of the current file with the outbox found.
enum Comparison {
    /// The file is ours up to this offset.
    GoodUntil(u64),
    /// It holds a whole event that this queue never had.
    OfAnotherQueue,
}

impl Recovery<'_> {
    /// A crash between rotation (ours or another program's) and the next event leaves the last line in one of these.
    fn look_at_earlier_files(&mut self) -> Result<(), RecoverError> {
        let names = self.storage.list()?;
        let mut torn = Vec::new();
        for name in names.iter().filter(|name| self.name.parse(name).is_some() || self.name.is_moved(name)) {
            let mut file = match self.storage.open(name) {
                Ok(Some(file)) => file,
                Ok(None) => continue,
                // Given to another user by who moved it: then it is no longer part of the stream.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
                Err(error) => return Err(error.into()),
            };
            let tail = tail(&*file)?;
            if let Some(last) = line_id(&tail.line).filter(|id| *id >= self.oldest)
                && self.holds(last, &tail.line)?
            {
                let from = first_line_from(&*file, self.oldest, tail.len)?;
                make_safe(&mut *file, from, tail.len)?;
                self.taken = self.taken.max(last);
            }
            if !tail.rest.is_empty() && self.name.is_moved(name) {
                torn.push((file, tail));
            }
        }
        // Whoever wrote to the current file had completed the line before.
        let current_len = self.storage.stat(self.name.current())?.map_or(0, |stat| stat.len);
        for (file, tail) in torn.into_iter().filter(|_| current_len == 0) {
            self.complete(file, tail)?;
        }
        Ok(())
    }

    /// Another program moved the file while a line was written in part: the rest belongs there.
    fn complete(&mut self, mut file: Box<dyn StorageFile>, tail: super::scan::Tail) -> Result<(), RecoverError> {
        let Some((id, expected)) = self.next_line()? else { return Ok(()) };
        let Some(missing) = expected.strip_prefix(tail.rest.as_slice()) else { return Ok(()) };
        let mut written = 0;
        while let Some(rest) = missing.get(written..).filter(|rest| !rest.is_empty()) {
            match file.write_at(tail.len + written as u64, rest)? {
                0 => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                count => written += count,
            }
        }
        file.sync()?;
        self.taken = id;
        Ok(())
    }

    fn look_at_current(&mut self, now: Timestamp) -> Result<Option<Current>, RecoverError> {
        let Some(mut file) = self.storage.open(self.name.current())? else { return Ok(None) };
        let stat = file.stat()?;
        let offset = match self.compare(&*file, stat.len)? {
            Comparison::GoodUntil(offset) => offset,
            Comparison::OfAnotherQueue => {
                self.set_aside(&mut *file, now)?;
                return Ok(None);
            }
        };
        let mut len = stat.len;
        let from = first_line_from(&*file, self.oldest, offset)?;
        make_safe(&mut *file, from, offset)?;
        if len > offset && !self.is_part_of_next(&*file, offset, len)? {
            tracing::warn!(
                file = %self.storage.directory().join(self.name.current()).display(),
                offset,
                bytes = len - offset,
                "octets after the last whole event, as a power cut leaves them: cut off, the event is written again"
            );
            file.truncate(offset)?;
            file.sync()?;
            len = offset;
        }
        let first = first_event(&*file)?;
        Ok(Some(Current { file, stat, offset, len, first }))
    }

    /// Walks over the lines that may not have been synced. Lines that are not ours stay where ours follow that were.
    fn compare(&mut self, file: &dyn StorageFile, len: u64) -> Result<Comparison, RecoverError> {
        let mut at = first_line_from(file, self.oldest, len)?;
        let mut good_until = at;
        let mut broken = false;
        let mut expected = Expected { outbox: self.outbox, next: self.oldest, events: Vec::new().into_iter() };
        while let Some(line) = line_at(file, at)? {
            let end = at + line.len() as u64 + 1;
            let ours = match line_id(&line) {
                Some(id) if id < self.oldest => {
                    broken = false;
                    true
                }
                Some(id) if !broken && expected.is(id, &line)? => {
                    self.taken = self.taken.max(id);
                    true
                }
                Some(id) if self.holds(id, &line)? => false,
                Some(_) if serde_json::from_slice::<serde::de::IgnoredAny>(&line).is_ok() => {
                    return Ok(Comparison::OfAnotherQueue);
                }
                _ => false,
            };
            if ours {
                good_until = end;
            } else {
                broken = true;
            }
            at = end;
        }
        Ok(Comparison::GoodUntil(good_until))
    }

    fn is_part_of_next(&self, file: &dyn StorageFile, offset: u64, len: u64) -> Result<bool, RecoverError> {
        let Some((_, line)) = self.next_line()? else { return Ok(false) };
        if len - offset >= line.len() as u64 {
            return Ok(false);
        }
        Ok(line.starts_with(&read_range(file, offset, line.len())?))
    }

    /// The line that comes next in this stream.
    fn next_line(&self) -> Result<Option<(EventId, Vec<u8>)>, RecoverError> {
        let mut from = self.taken.next();
        loop {
            let events = self.outbox.read(from, COMPARE_EVENTS_MAX)?;
            let Some(last) = events.last() else { return Ok(None) };
            from = last.id.next();
            if let Some(event) = events.iter().find(|event| self.takes(event)) {
                return Ok(Some((event.id, line_of(event))));
            }
        }
    }

    fn takes(&self, event: &OutboxEvent) -> bool {
        event.line.as_ref().is_some_and(|line| self.settings.takes_line(line))
    }

    /// Whether the outbox holds this event with this text.
    fn holds(&self, id: EventId, line: &[u8]) -> Result<bool, OutboxError> {
        let events = self.outbox.read(id, 1)?;
        Ok(events.first().is_some_and(|event| event.id == id && is_line_of(event, line)))
    }

    fn set_aside(&self, file: &mut dyn StorageFile, now: Timestamp) -> Result<(), RecoverError> {
        file.sync()?;
        let aside = free_name(self.storage, &self.name, now, first_event(file)?)?;
        tracing::warn!(
            file = %self.storage.directory().join(self.name.current()).display(),
            renamed_to = aside,
            oldest_event = self.oldest.value(),
            "event file holds events of another queue (was the data directory replaced?): set aside"
        );
        self.storage.rename(self.name.current(), &aside)?;
        self.storage.sync_directory()?;
        Ok(())
    }
}

/// Writes octets again at their place, and syncs. A sync alone proves nothing: one may have failed before the crash, and
/// then the kernel takes octets for written that are not on the disk.
fn make_safe(file: &mut dyn StorageFile, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let part = usize::try_from(to - at).unwrap_or(usize::MAX).min(COPY_BYTES_MAX);
        let bytes = read_range(file, at, part)?;
        match file.write_at(at, &bytes) {
            Ok(0) => break,
            Ok(count) => at += count as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A full disk that copies on write: what is left is to sync.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
            Err(error) => return Err(error),
        }
    }
    file.sync()
}

fn line_of(event: &OutboxEvent) -> Vec<u8> {
    let mut line = Vec::new();
    event.write_line(&mut line);
    line
}

/// Compares without the line feed. Of an event whose record is damaged, a whole line is the only copy, and is believed.
fn is_line_of(event: &OutboxEvent, line: &[u8]) -> bool {
    if event.line.is_none() {
        return serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok();
    }
    line_of(event).strip_suffix(b"\n") == Some(line)
}

/// The events of the outbox in order, read in parts.
struct Expected<'a> {
    outbox: &'a dyn Outbox,
    next: EventId,
    events: std::vec::IntoIter<OutboxEvent>,
}

impl Expected<'_> {
    /// Whether the outbox holds this event with this text. Ids have to rise from call to call.
    fn is(&mut self, id: EventId, line: &[u8]) -> Result<bool, OutboxError> {
        loop {
            let event = match self.events.next() {
                Some(event) => event,
                None => {
                    self.events = self.outbox.read(self.next, COMPARE_EVENTS_MAX)?.into_iter();
                    match self.events.next() {
                        Some(event) => event,
                        None => return Ok(false),
                    }
                }
            };
            self.next = event.id.next();
            if event.id >= id {
                return Ok(event.id == id && is_line_of(&event, line));
            }
        }
    }
}
