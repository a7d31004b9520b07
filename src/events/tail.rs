//! A reader of event files that follows one stream by name, as `tail -F` does, and through the rotated files where it is
//! slower than the rotation. `posthaste demo` and tests read with it.
//!
//! Promises: given that the files it has not read yet are not deleted, each line comes once, whole, in order. Does not:
//! remember its place; keep the last `eventId` and use [`EventTail::resume`].

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::EventId;
use super::file::{DirStorage, FileKey, SinkName, Storage, StorageFile, line_id};

/// Octets of one read.
const READ_BYTES: usize = 64 << 10;
/// Between two looks at the file.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A line of an event file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailLine {
    /// The id of the event; [`EventId::NONE`] for a line that is not one.
    pub id: EventId,
    /// The JSON object, without the line feed.
    pub json: String,
}

/// Follows a stream of event files. Blocking.
pub struct EventTail {
    storage: Arc<dyn Storage>,
    name: SinkName,
    open: Option<Open>,
    /// Read and not yet given: whole lines and the start of one.
    buffer: Vec<u8>,
    /// Octets of `buffer` given already.
    given: usize,
    /// Octets of `buffer` that are known to hold no line end.
    searched: usize,
    /// The last event given, or where to begin.
    last: EventId,
    /// Lines up to this one are passed over.
    floor: EventId,
    /// Rotated files from before the start.
    ignored: HashSet<String>,
}

struct Open {
    file: Box<dyn StorageFile>,
    key: FileKey,
    offset: u64,
    is_current: bool,
}

impl EventTail {
    /// Follows from the first line of the current file, which need not exist yet; earlier rotated files are left out.
    pub fn follow(path: impl AsRef<Path>) -> io::Result<Self> {
        let (storage, name) = split(path.as_ref())?;
        Self::follow_in(storage, &name)
    }

    /// Follows from the first event after `after`, in whichever file it is.
    pub fn resume(path: impl AsRef<Path>, after: EventId) -> io::Result<Self> {
        let (storage, name) = split(path.as_ref())?;
        Self::resume_in(storage, &name, after)
    }

    /// Like [`EventTail::follow`], in a storage.
    pub fn follow_in(storage: Arc<dyn Storage>, file_name: &str) -> io::Result<Self> {
        let mut tail = Self::resume_in(storage, file_name, EventId::NONE)?;
        let names = tail.list()?;
        tail.ignored = tail.name.rotated_among(&names).into_iter().map(|rotated| rotated.name).collect();
        Ok(tail)
    }

    /// Like [`EventTail::resume`], in a storage.
    pub fn resume_in(storage: Arc<dyn Storage>, file_name: &str, after: EventId) -> io::Result<Self> {
        Ok(Self {
            storage,
            name: SinkName::new(file_name),
            open: None,
            buffer: Vec::new(),
            given: 0,
            searched: 0,
            last: after,
            floor: after,
            ignored: HashSet::new(),
        })
    }

    /// The next line, or `None` where there is none yet.
    pub fn next_line(&mut self) -> io::Result<Option<TailLine>> {
        loop {
            if let Some(line) = self.buffered_line()? {
                if line.id != EventId::NONE && line.id <= self.floor {
                    continue;
                }
                self.last = self.last.max(line.id);
                return Ok(Some(line));
            }
            if !self.read()? && !self.switch()? {
                return Ok(None);
            }
        }
    }

    /// The next line, waiting up to about `timeout` for it.
    pub fn wait_line(&mut self, timeout: Duration) -> io::Result<Option<TailLine>> {
        let mut waited = Duration::ZERO;
        loop {
            let line = self.next_line()?;
            if line.is_some() || waited >= timeout {
                return Ok(line);
            }
            std::thread::sleep(POLL_INTERVAL);
            waited += POLL_INTERVAL;
        }
    }

    fn buffered_line(&mut self) -> io::Result<Option<TailLine>> {
        let rest = self.buffer.get(self.given..).unwrap_or_default();
        let unsearched = rest.get(self.searched..).unwrap_or_default();
        let Some(end) = memchr::memchr(b'\n', unsearched) else {
            self.searched = rest.len();
            return Ok(None);
        };
        let end = self.searched + end;
        let line = rest.get(..end).unwrap_or_default();
        let id = line_id(line).unwrap_or_default();
        let json =
            String::from_utf8(line.to_vec()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.given += end + 1;
        self.searched = 0;
        Ok(Some(TailLine { id, json }))
    }

    /// Reads on in the open file; `false` at its end.
    fn read(&mut self) -> io::Result<bool> {
        let Some(open) = &mut self.open else { return Ok(false) };
        let len = open.file.stat()?.len;
        if len < open.offset {
            // Someone truncated the file: begin anew, as tail does.
            open.offset = 0;
            self.buffer.clear();
            self.given = 0;
            self.searched = 0;
        }
        self.buffer.drain(..self.given);
        self.given = 0;
        let start = self.buffer.len();
        self.buffer.resize(start + READ_BYTES, 0);
        let count = match open.file.read_at(open.offset, self.buffer.get_mut(start..).unwrap_or_default()) {
            Ok(count) => count,
            Err(error) => {
                self.buffer.truncate(start);
                return Err(error);
            }
        };
        self.buffer.truncate(start + count);
        open.offset += count as u64;
        Ok(count > 0)
    }

    /// At the end of a file: goes on with the next one; `false` where the open file is still the current one.
    fn switch(&mut self) -> io::Result<bool> {
        let current = self.storage.stat(self.name.current()).or_else(none_if_missing)?;
        if let (Some(open), Some(current)) = (&self.open, &current)
            && open.is_current
            && open.key == current.key
        {
            return Ok(false);
        }
        // A line may have come between the last read and the rotation.
        if self.read()? {
            return Ok(true);
        }
        let Some(name) = self.next_name(current.is_some())? else { return Ok(false) };
        let Some(file) = self.storage.open(&name)? else { return Ok(false) };
        let key = file.stat()?.key;
        if self.open.as_ref().is_some_and(|open| open.key == key) {
            // Still the same file, under its new name; the next one has not come.
            return Ok(false);
        }
        let is_current = name == self.name.current();
        if is_current && current.as_ref().is_none_or(|current| current.key != key) {
            // It was rotated since it was looked at: the lines of the file that had its name come first.
            return Ok(true);
        }
        self.buffer.clear();
        self.given = 0;
        self.searched = 0;
        self.open = Some(Open { file, key, offset: 0, is_current });
        Ok(true)
    }

    /// The file that holds the event after the last one given.
    fn next_name(&self, has_current: bool) -> io::Result<Option<String>> {
        let names = self.list()?;
        let mut rotated = self.name.rotated_among(&names);
        rotated.retain(|rotated| !self.ignored.contains(&rotated.name));
        let later = rotated.iter().filter(|rotated| rotated.first > self.last).min_by_key(|rotated| rotated.first);
        // At the start, the event may be amid an earlier file.
        let within = rotated.iter().filter(|rotated| rotated.first <= self.last).max_by_key(|rotated| rotated.first);
        let name = match (within, later) {
            (Some(within), _) if self.open.is_none() => Some(within.name.clone()),
            (_, Some(later)) => Some(later.name.clone()),
            _ => has_current.then(|| self.name.current().to_owned()),
        };
        Ok(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.storage
            .list()
            .or_else(|error| none_if_missing(error).map(|none: Option<Vec<String>>| none.unwrap_or_default()))
    }
}

/// The directory may come later.
fn none_if_missing<T>(error: io::Error) -> io::Result<Option<T>> {
    if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) }
}

fn split(path: &Path) -> io::Result<(Arc<dyn Storage>, String)> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the path of an event file"))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((Arc::new(DirStorage::read_only(directory)), name.to_owned()))
}
