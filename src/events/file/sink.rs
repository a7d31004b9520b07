//! Writes one stream of files: takes events in order, writes, syncs, rotates, and goes on where a failure stopped it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::name::{SinkName, stamp};
use super::recovery::{Current, RecoverError, first_event, free_name, recover};
use super::{FileKey, Storage, StorageFile};
use crate::events::{EventId, EventKind, EventsError, Outbox, OutboxEvent, SinkSettings, metric};
use crate::types::Timestamp;

/// Octets of one write, more by at most one line. Full: written before the next line is taken.
const WRITE_BYTES_MAX: usize = 1 << 20;
/// Wait after a failure; doubled with each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest wait between two tries while failures last.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// One stream of files.
pub(crate) struct Sink {
    storage: Arc<dyn Storage>,
    settings: SinkSettings,
    name: SinkName,
    /// `None` between a rotation and the next successful creation.
    open: Option<Open>,
    /// The first event in the current file; names it after rotation.
    first: Option<EventId>,
    batch: Batch,
    /// The last event that was put into `batch` or passed over.
    taken: EventId,
    /// Where the next octet goes.
    offset: u64,
    /// Octets of the current file: more than `offset` while a line begun before is completed, or octets are written
    /// again after a failed sync.
    len: u64,
    /// Everything up to here is written.
    written: Mark,
    /// Everything up to here is safe.
    synced: Mark,
    /// A file was made or renamed, and the directory not synced since.
    directory_dirty: bool,
    rotation_asked: bool,
    outage: Option<Outage>,
}

struct Open {
    file: Box<dyn StorageFile>,
    key: FileKey,
    created_at: Timestamp,
}

/// A place between two lines.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark {
    through: EventId,
    offset: u64,
}

/// Whole lines, and how much of them went out.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    written: usize,
    counts: [u64; EventKind::ALL.len()],
}

/// Writing or syncing fails.
struct Outage {
    since: Timestamp,
    retry_at: Timestamp,
    delay: Duration,
    error: String,
}

impl Sink {
    /// Finds out where to go on, repairs what a crash left behind, and opens the current file.
    pub(crate) fn open(
        storage: Arc<dyn Storage>,
        settings: SinkSettings,
        outbox: &dyn Outbox,
        now: Timestamp,
    ) -> Result<Self, EventsError> {
        let failed =
            |error: io::Error| EventsError::File { path: storage.directory().join(&settings.file_name), error };
        let recovered = recover(&*storage, &settings, outbox, now).map_err(|error| match error {
            RecoverError::Storage(error) => failed(error),
            RecoverError::Outbox(error) => EventsError::Outbox(error),
        })?;
        let offset = recovered.current.as_ref().map_or(0, |current| current.offset);
        let mark = Mark { through: recovered.taken, offset };
        let mut sink = Self {
            name: SinkName::new(&settings.file_name),
            open: None,
            first: None,
            batch: Batch::default(),
            taken: recovered.taken,
            offset,
            len: recovered.current.as_ref().map_or(0, |current| current.len),
            written: mark,
            synced: mark,
            directory_dirty: false,
            rotation_asked: false,
            outage: None,
            storage: Arc::clone(&storage),
            settings: settings.clone(),
        };
        match recovered.current {
            Some(Current { file, stat, first, .. }) => {
                sink.open = Some(Open { file, key: stat.key, created_at: stat.created_at });
                sink.first = first;
            }
            // A full disk is an outage like any later one; a missing permission is for the administrator, now.
            None => match sink.ensure_open(now) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => sink.fail(now, &error),
                other => other.map_err(failed)?,
            },
        }
        delete_old(&*sink.storage, &sink.name, &sink.settings, now);
        Ok(sink)
    }

    /// The first event that this stream has not yet seen.
    pub(crate) fn next(&self) -> EventId {
        self.taken.next()
    }

    /// Everything up to this event is safe as far as this stream is concerned.
    pub(crate) fn synced_through(&self) -> EventId {
        self.synced.through
    }

    /// Whether [`Sink::sync`] has something to do.
    pub(crate) fn is_dirty(&self) -> bool {
        self.written != self.synced || self.directory_dirty
    }

    /// Whether a line was begun and not yet completed.
    pub(crate) fn is_amid_line(&self) -> bool {
        !self.batch.bytes.is_empty() || self.offset < self.len
    }

    pub(crate) fn settings(&self) -> &SinkSettings {
        &self.settings
    }

    /// Takes new settings of the same stream. If the kinds differ, everything written has to be synced before.
    pub(crate) fn set_settings(&mut self, settings: SinkSettings) {
        self.settings = settings;
    }

    /// Rotates as soon as the line being written is complete.
    pub(crate) fn ask_rotation(&mut self) {
        self.rotation_asked = true;
    }

    /// What fails, and since when.
    pub(crate) fn failure(&self) -> Option<(&str, Timestamp)> {
        self.outage.as_ref().map(|outage| (outage.error.as_str(), outage.since))
    }

    /// How long not to try, because of a failure. Zero: go on.
    pub(crate) fn wait(&self, now: Timestamp) -> Duration {
        let wait = self.outage.as_ref().map_or(Duration::ZERO, |outage| outage.retry_at.since(now));
        // Longer only where the clock went back.
        if wait > BACKOFF_MAX { Duration::ZERO } else { wait }
    }

    /// Takes those of `events` (in order, without gaps) that it has not seen, and writes the ones of its kinds. A failure
    /// is remembered; what was taken is written later.
    pub(crate) fn offer(&mut self, events: &[OutboxEvent], now: Timestamp) {
        if let Err(error) = self.try_offer(events, now) {
            self.fail(now, &error);
        }
    }

    fn try_offer(&mut self, events: &[OutboxEvent], now: Timestamp) -> io::Result<()> {
        self.flush(now)?;
        // After a failed sync the stream goes back; then these may come too late, and are offered again.
        for event in events {
            if event.id <= self.taken {
                continue;
            }
            if event.id != self.taken.next() {
                break;
            }
            if event.line.as_ref().is_some_and(|line| self.settings.takes_line(line)) {
                self.make_room(now)?;
                if self.offset == 0 && self.batch.bytes.is_empty() {
                    self.first = Some(event.id);
                }
                self.batch.push(event);
            }
            self.taken = event.id;
        }
        self.flush(now)
    }

    /// Writes and rotates where the batch or the file is full.
    fn make_room(&mut self, now: Timestamp) -> io::Result<()> {
        let len = self.offset + self.batch.bytes.len() as u64;
        let is_full = self.settings.rotate_bytes.is_some_and(|limit| len >= limit) && len >= self.len && len > 0;
        if is_full || self.batch.bytes.len() >= WRITE_BYTES_MAX {
            self.flush(now)?;
        }
        if is_full { self.rotate(now) } else { Ok(()) }
    }

    /// Writes what was taken.
    fn flush(&mut self, now: Timestamp) -> io::Result<()> {
        if !self.batch.bytes.is_empty() {
            self.ensure_open(now)?;
            self.check_len()?;
            let Some(open) = &mut self.open else { return Ok(()) };
            while let Some(rest) = self.batch.bytes.get(self.batch.written..).filter(|rest| !rest.is_empty()) {
                match open.file.write_at(self.offset, rest) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => {
                        self.batch.written += count;
                        self.offset += count as u64;
                        self.len = self.len.max(self.offset);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            self.batch.end();
        }
        self.written = Mark { through: self.taken, offset: self.offset };
        Ok(())
    }

    /// Another program that cuts the file (`copytruncate`) may lose lines; at least no hole shall follow.
    fn check_len(&mut self) -> io::Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        let len = open.file.stat()?.len;
        if self.batch.written == 0 && len < self.len {
            tracing::warn!(
                file = %self.path().display(),
                bytes = len,
                expected_bytes = self.len,
                "another program truncated the event file: lines may be lost; let it rename the file instead"
            );
            self.len = len;
            self.offset = len;
            self.synced.offset = len;
        }
        Ok(())
    }

    fn ensure_open(&mut self, now: Timestamp) -> io::Result<()> {
        if self.open.is_some() {
            return Ok(());
        }
        // The rename, ours or another program's, is safe before the name is used again.
        self.sync_directory()?;
        let name = self.name.current();
        let (file, is_new) = match self.storage.open(name)? {
            Some(file) => (file, false),
            None => (self.storage.create(name)?, true),
        };
        let stat = file.stat()?;
        let created_at = if is_new { now } else { stat.created_at };
        self.first = first_event(&*file)?.or(self.first);
        self.open = Some(Open { file, key: stat.key, created_at });
        self.offset = stat.len;
        self.len = stat.len;
        self.written.offset = stat.len;
        self.synced.offset = stat.len;
        self.directory_dirty = true;
        self.sync_directory()
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        if self.directory_dirty {
            self.storage.sync_directory()?;
            self.directory_dirty = false;
        }
        Ok(())
    }

    /// Makes everything written safe. A failure is remembered.
    pub(crate) fn sync(&mut self, now: Timestamp) {
        match self.try_sync() {
            Ok(()) if !self.is_amid_line() => self.recovered(now),
            Ok(()) => {}
            Err(error) => self.fail(now, &error),
        }
    }

    fn try_sync(&mut self) -> io::Result<()> {
        self.sync_directory()?;
        if self.written.offset != self.synced.offset
            && let Some(open) = &mut self.open
            && let Err(error) = open.file.sync()
        {
            // The kernel may have dropped the octets: write them again, at the same place.
            self.batch = Batch::default();
            self.taken = self.synced.through;
            self.offset = self.synced.offset;
            self.written = self.synced;
            return Err(error);
        }
        self.synced = self.written;
        Ok(())
    }

    /// What time and other programs ask for: rotation by age or request, and a file that was moved away.
    pub(crate) fn tend(&mut self, now: Timestamp) {
        if self.is_amid_line() {
            return;
        }
        if let Err(error) = self.try_tend(now) {
            self.fail(now, &error);
        }
    }

    fn try_tend(&mut self, now: Timestamp) -> io::Result<()> {
        self.ensure_open(now)?;
        let Some(open) = &self.open else { return Ok(()) };
        let key = self.storage.stat(self.name.current())?.map(|stat| stat.key);
        if key != Some(open.key) {
            tracing::info!(file = %self.path().display(), "event file was moved by another program: reopened");
            self.try_sync()?;
            self.directory_dirty = true;
            self.close();
            self.rotation_asked = false;
            return self.ensure_open(now);
        }
        let age = now.since(open.created_at);
        let is_old = self.settings.rotate_age.is_some_and(|limit| age >= limit);
        if self.offset > 0 && (is_old || self.rotation_asked) {
            self.rotate(now)?;
        }
        self.rotation_asked = false;
        Ok(())
    }

    /// Between two lines only.
    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        self.try_sync()?;
        let rotated = free_name(&*self.storage, &self.name, now, self.first)?;
        self.storage.rename(self.name.current(), &rotated)?;
        self.directory_dirty = true;
        self.close();
        tracing::debug!(file = %self.path().display(), renamed_to = rotated, "event file rotated");
        self.ensure_open(now)?;
        delete_old(&*self.storage, &self.name, &self.settings, now);
        Ok(())
    }

    fn close(&mut self) {
        self.open = None;
        self.first = None;
        self.offset = 0;
        self.len = 0;
        self.written.offset = 0;
        self.synced.offset = 0;
    }

    fn fail(&mut self, now: Timestamp, error: &io::Error) {
        metrics::counter!(metric::EVENT_WRITE_ERRORS).increment(1);
        match &mut self.outage {
            Some(outage) => {
                outage.delay = (outage.delay * 2).min(BACKOFF_MAX);
                outage.retry_at = now.plus(outage.delay);
                outage.error = error.to_string();
            }
            None => {
                tracing::error!(
                    file = %self.path().display(),
                    %error,
                    "event file cannot be written; events wait in the queue, which slows intake down when full"
                );
                let (delay, error) = (BACKOFF_MIN, error.to_string());
                self.outage = Some(Outage { since: now, retry_at: now.plus(delay), delay, error });
            }
        }
    }

    fn recovered(&mut self, now: Timestamp) {
        if let Some(outage) = self.outage.take() {
            let outage_seconds = now.since(outage.since).as_secs();
            tracing::warn!(file = %self.path().display(), outage_seconds, "event file can be written again; nothing was lost");
        }
    }

    fn path(&self) -> PathBuf {
        self.storage.directory().join(self.name.current())
    }
}

/// Retention. What fails is tried again at the next rotation.
pub(crate) fn delete_old(storage: &dyn Storage, name: &SinkName, settings: &SinkSettings, now: Timestamp) {
    let rotated = match storage.list() {
        Ok(names) => name.rotated_among(&names),
        Err(error) => {
            tracing::warn!(directory = %storage.directory().display(), %error, "cannot list event files");
            return;
        }
    };
    let surplus = settings.keep_files.map_or(0, |keep| rotated.len().saturating_sub(keep));
    let oldest_kept = settings.keep_age.map(|age| stamp(now.minus(age)));
    for (index, file) in rotated.iter().enumerate() {
        let is_old = oldest_kept.as_ref().is_some_and(|oldest| file.stamp < *oldest);
        if index >= surplus && !is_old {
            continue;
        }
        match storage.remove(&file.name) {
            Ok(()) => tracing::info!(file = file.name, "old event file deleted"),
            Err(error) => tracing::warn!(file = file.name, %error, "cannot delete old event file"),
        }
    }
}

impl Batch {
    fn push(&mut self, event: &OutboxEvent) {
        event.write_line(&mut self.bytes);
        let Some(line) = &event.line else { return };
        let mut counts = EventKind::ALL.into_iter().zip(&mut self.counts);
        if let Some((_, count)) = counts.find(|(kind, _)| *kind == line.kind) {
            *count += 1;
        }
    }

    /// All is written.
    fn end(&mut self) {
        for (kind, count) in EventKind::ALL.into_iter().zip(self.counts).filter(|(_, count)| *count > 0) {
            metrics::counter!(metric::EVENTS_WRITTEN, "kind" => kind.name()).increment(count);
        }
        self.bytes.clear();
        self.written = 0;
        self.counts = [0; EventKind::ALL.len()];
    }
}
