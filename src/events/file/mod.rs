//! One stream of files: the current one, such as `events.jsonl`, and the rotated ones,
//! `events-20261121T230040Z-4711.jsonl` (UTC of the rotation, id of the first event within).
//!
//! Format: each line is one event and ends with a line feed; ids rise within a file and from file to file. A rotated file
//! is complete and synced before it gets its name, and is never written again.
//!
//! Write: lines are written at a remembered offset, as many as there are in one call. Where a write stops short (disk
//! full), the rest of the line is written later from there; nothing else can come between. Written is not yet safe: the
//! outbox may drop events only after the file is synced. If a sync fails, the kernel may have dropped what was written:
//! then the same octets are written again at the same place, so that a reader sees no difference.
//!
//! Recovery: the last line of the newest file says which event comes next; no second record of it exists that could
//! disagree. Lines that the outbox still holds are compared with it, since a power cut may leave anything in octets that
//! were not synced: equal lines stay (and are written again in place, since a sync may have failed before the crash), a
//! line cut short is completed, anything else is cut off and written again. A file of another queue (the data directory
//! was replaced) is set aside, whole.
//!
//! Delete: rotated files of this stream beyond the configured number and age, at each rotation and at each start.
//!
//! Does not: compress, ship, or know what an event says.

pub mod model;
mod name;
mod recovery;
mod scan;
mod sink;
mod storage;

pub(crate) use name::SinkName;
pub(crate) use recovery::free_name;
pub(crate) use scan::{line_id, read_range};
pub(crate) use sink::{Sink, delete_old};
pub use storage::{DirStorage, FileKey, FileStat, Storage, StorageFile};

use super::EventId;

/// The newest event that any event file in a directory ends with; [`EventId::NONE`] where there is none.
pub fn newest_event(directory: &std::path::Path) -> std::io::Result<EventId> {
    let storage = DirStorage::read_only(directory);
    let mut newest = EventId::NONE;
    if !directory.is_dir() {
        return Ok(newest);
    }
    for name in storage.list()?.iter().filter(|name| name.ends_with(".jsonl")) {
        let Some(file) = storage.open(name)? else { continue };
        newest = newest.max(line_id(&scan::tail(&*file)?.line).unwrap_or(EventId::NONE));
    }
    Ok(newest)
}
