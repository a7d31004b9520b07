//! Messages that nobody understood, kept as files for the operator: reports in a form that is new, mail of people to postmaster.
//!
//! One file a message, `ID.eml` under the id that its 250 named, with two lines in front of it that say who brought it and for whom.
//! Promises: a message that [`Kept::keep`] took is on the disk, synced; there are never more files or octets than the limits.
//! At a limit nothing is deleted: the message is refused for now, and the operator is told. Does not: look at what it keeps.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::events::metric;
use crate::types::MessageId;

/// Messages that are kept. Full: what is not understood gets 452 4.3.1.
pub const KEPT_MAX: u64 = 10_000;
/// Octets of all of them. Full: likewise.
pub const KEPT_BYTES_MAX: u64 = 512 << 20;
/// What ends the name of a file.
const EXTENSION: &str = "eml";

/// Why a message is not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// There are too many.
    #[error(
        "{count} messages of {bytes} octets are kept that nobody understood: read them, then remove them from {directory}"
    )]
    Full {
        /// How many there are.
        count: u64,
        /// Their octets.
        bytes: u64,
        /// Where.
        directory: PathBuf,
    },
    /// The disk does not take it.
    #[error("{path}: {source}")]
    Disk {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Kept {
    directory: PathBuf,
    /// One writer at a time: this is for what seldom happens.
    writing: Mutex<()>,
}

impl Kept {
    /// In this directory, which is made when the first message is kept.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, writing: Mutex::new(()) }
    }

    /// Keeps a message. `facts`: lines on where it came from. Blocks.
    pub fn keep(&self, id: MessageId, facts: &str, octets: &[u8]) -> Result<(), KeepError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| KeepError::Disk { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(failed(&self.directory))?;
        // Looked at anew, since the operator removes what was read.
        let (count, bytes) = self.usage().map_err(failed(&self.directory))?;
        let more = u64::try_from(facts.len() + octets.len()).unwrap_or(u64::MAX);
        if count >= KEPT_MAX || bytes.saturating_add(more) > KEPT_BYTES_MAX {
            return Err(KeepError::Full { count, bytes, directory: self.directory.clone() });
        }
        let path = self.directory.join(format!("{id}.{EXTENSION}"));
        let unfinished = path.with_extension("tmp");
        write(&unfinished, facts, octets).map_err(failed(&unfinished))?;
        fs::rename(&unfinished, &path).map_err(failed(&path))?;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(failed(&self.directory))?;
        metrics::gauge!(metric::FEEDBACK_KEPT).set(u32::try_from(count + 1).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Files and octets.
    fn usage(&self) -> io::Result<(u64, u64)> {
        let (mut count, mut bytes) = (0, 0);
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|extension| extension == EXTENSION) {
                count += 1;
                bytes += entry.metadata()?.len();
            }
        }
        Ok((count, bytes))
    }
}

fn write(path: &Path, facts: &str, octets: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(facts.as_bytes())?;
    file.write_all(octets)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Timestamp;

    #[test]
    fn what_is_kept_is_there_and_a_directory_that_is_full_refuses_until_the_operator_made_room() {
        let place = tempfile::tempdir().unwrap();
        let kept = Kept::new(place.path().join("feedback"));
        let id = MessageId::new(Timestamp::EPOCH, 7);
        kept.keep(id, "X-A: b\r\n", b"Subject: hello\r\n").unwrap();
        let path = place.path().join(format!("feedback/{id}.eml"));
        assert_eq!(fs::read(&path).unwrap(), b"X-A: b\r\nSubject: hello\r\n");
        // As large as all may be.
        let large = place.path().join("feedback/large.eml");
        File::create(&large).unwrap().set_len(KEPT_BYTES_MAX).unwrap();
        let other = MessageId::new(Timestamp::EPOCH, 8);
        let error = kept.keep(other, "", b"x").unwrap_err();
        assert!(matches!(error, KeepError::Full { count: 2, .. }), "{error}");
        assert!(error.to_string().contains("remove them from"), "{error}");
        fs::remove_file(large).unwrap();
        kept.keep(other, "", b"x").unwrap();
    }

    #[test]
    fn a_disk_that_cannot_be_written_is_named() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Kept::new(file.join("below")).keep(MessageId::new(Timestamp::EPOCH, 7), "", b"x").unwrap_err();
        assert!(error.to_string().contains("below"), "{error}");
    }
}
