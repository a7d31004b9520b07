//! One file of audit lines and its rotated predecessors: appends, syncs, rotates, deletes old ones.
//!
//! Unlike an event file it has no second record to be compared with: a line cut short by a crash is cut off at the start.

use std::io;
use std::sync::Arc;

use crate::events::file::{FileKey, SinkName, Storage, StorageFile, delete_old, free_name, read_range};
use crate::events::{EventId, EventsError, SinkSettings, metric};
use crate::types::Timestamp;

/// Octets at the end of a file among which the end of its last whole line is looked for.
const TAIL_BYTES: usize = 16 * 1_024;

pub(super) struct AuditFile {
    storage: Arc<dyn Storage>,
    settings: SinkSettings,
    name: SinkName,
    open: Option<Open>,
    /// Lines not yet written, the first of them maybe in part.
    lines: Vec<u8>,
    /// Octets of them that are written.
    written: usize,
    is_dirty: bool,
    rotation_asked: bool,
    /// The last write or sync failed.
    failed_since: Option<Timestamp>,
}

struct Open {
    file: Box<dyn StorageFile>,
    key: FileKey,
    len: u64,
    created_at: Timestamp,
}

impl AuditFile {
    pub(super) fn open(storage: Arc<dyn Storage>, settings: SinkSettings, now: Timestamp) -> Result<Self, EventsError> {
        let path = storage.directory().join(&settings.file_name);
        let mut file = Self {
            name: SinkName::new(&settings.file_name),
            storage,
            settings,
            open: None,
            lines: Vec::new(),
            written: 0,
            is_dirty: false,
            rotation_asked: false,
            failed_since: None,
        };
        let opened = file.storage.prepare().and_then(|()| file.ensure_open(now));
        opened.map_err(|error| EventsError::File { path, error })?;
        delete_old(&*file.storage, &file.name, &file.settings, now);
        Ok(file)
    }

    /// Where lines are put to be written next.
    pub(super) fn lines(&mut self) -> &mut Vec<u8> {
        &mut self.lines
    }

    /// What is to be written cannot be.
    pub(super) fn is_stuck(&self) -> bool {
        self.failed_since.is_some() && !self.lines.is_empty()
    }

    pub(super) fn is_at(&self, storage: &dyn Storage, settings: &SinkSettings) -> bool {
        self.storage.directory() == storage.directory() && self.settings.file_name == settings.file_name
    }

    pub(super) fn set_settings(&mut self, settings: SinkSettings) {
        self.settings = settings;
    }

    pub(super) fn ask_rotation(&mut self) {
        self.rotation_asked = true;
    }

    /// Writes what waits. What cannot be written goes on waiting.
    pub(super) fn write(&mut self, now: Timestamp) {
        let result = self.try_write(now);
        self.note(result, now);
    }

    /// Syncs, and does what time and other programs ask for.
    pub(super) fn tend(&mut self, now: Timestamp) {
        if self.lines.is_empty() {
            let result = self.try_tend(now);
            self.note(result, now);
        }
    }

    fn try_write(&mut self, now: Timestamp) -> io::Result<()> {
        self.ensure_open(now)?;
        let Some(open) = &mut self.open else { return Ok(()) };
        while let Some(rest) = self.lines.get(self.written..).filter(|rest| !rest.is_empty()) {
            let count = open.file.write_at(open.len, rest)?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.written += count;
            open.len += u64::try_from(count).unwrap_or_default();
            self.is_dirty = true;
        }
        self.lines.clear();
        self.written = 0;
        Ok(())
    }

    fn try_tend(&mut self, now: Timestamp) -> io::Result<()> {
        self.ensure_open(now)?;
        self.sync()?;
        let Some(open) = &self.open else { return Ok(()) };
        if self.storage.stat(self.name.current())?.map(|stat| stat.key) != Some(open.key) {
            tracing::info!(file = self.name.current(), "audit file was moved by another program: reopened");
            self.open = None;
            self.rotation_asked = false;
            return self.ensure_open(now);
        }
        let is_full = self.settings.rotate_bytes.is_some_and(|limit| open.len >= limit);
        let is_old = self.settings.rotate_age.is_some_and(|limit| now.since(open.created_at) >= limit);
        if open.len > 0 && (is_full || is_old || self.rotation_asked) {
            let rotated = free_name(&*self.storage, &self.name, now, Some(EventId::NONE))?;
            self.storage.rename(self.name.current(), &rotated)?;
            self.storage.sync_directory()?;
            self.open = None;
            self.ensure_open(now)?;
            delete_old(&*self.storage, &self.name, &self.settings, now);
        }
        self.rotation_asked = false;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some(open) = self.open.as_mut().filter(|_| self.is_dirty) {
            open.file.sync()?;
            self.is_dirty = false;
        }
        Ok(())
    }

    fn ensure_open(&mut self, now: Timestamp) -> io::Result<()> {
        if self.open.is_some() {
            return Ok(());
        }
        let name = self.name.current();
        let (mut file, is_new) = match self.storage.open(name)? {
            Some(file) => (file, false),
            None => (self.storage.create(name)?, true),
        };
        let stat = file.stat()?;
        let len = whole_lines(&*file, stat.len)?;
        if len < stat.len {
            file.truncate(len)?;
        }
        let created_at = if is_new { now } else { stat.created_at };
        self.storage.sync_directory()?;
        self.open = Some(Open { file, key: stat.key, len, created_at });
        Ok(())
    }

    fn note(&mut self, result: io::Result<()>, now: Timestamp) {
        let file = self.name.current();
        match (result, self.failed_since) {
            (Ok(()), Some(since)) => {
                tracing::warn!(file, outage_seconds = now.since(since).as_secs(), "audit file can be written again");
                self.failed_since = None;
            }
            (Err(error), None) => {
                metrics::counter!(metric::EVENT_WRITE_ERRORS).increment(1);
                tracing::error!(file, %error, "audit file cannot be written; lines wait in memory, then are dropped");
                self.failed_since = Some(now);
            }
            (Err(_), Some(_)) => metrics::counter!(metric::EVENT_WRITE_ERRORS).increment(1),
            (Ok(()), None) => {}
        }
    }
}

/// Octets up to the end of the last whole line.
fn whole_lines(file: &dyn StorageFile, len: u64) -> io::Result<u64> {
    let start = len.saturating_sub(u64::try_from(TAIL_BYTES).unwrap_or_default());
    let tail = read_range(file, start, TAIL_BYTES)?;
    let end = memchr::memrchr(b'\n', &tail).map_or(0, |at| at + 1);
    Ok(start + u64::try_from(end).unwrap_or_default())
}
