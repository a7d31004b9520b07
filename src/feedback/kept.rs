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
use std::time::Duration;

use crate::events::metric;
use crate::types::{MessageId, Timestamp};

/// Messages that are kept. Full: what is not understood gets 452 4.3.1.
pub const KEPT_MAX: u64 = 10_000;
/// Octets of all of them. Full: likewise.
pub const KEPT_BYTES_MAX: u64 = 512 << 20;
/// Mail without a token of ours may use this part of both.
const STRANGERS_SHARE: u64 = 2;
/// Time between two looks at what is there.
const LOOK_EACH: Duration = Duration::from_secs(5);
/// What ends the name of a file.
const EXTENSION: &str = "eml";
/// The same while it is written.
const UNFINISHED: &str = "tmp";

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

/// A message to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep<'a> {
    /// As its 250 will name it.
    pub id: MessageId,
    /// Lines on where it came from.
    pub facts: &'a str,
    /// Header and body.
    pub octets: &'a [u8],
    /// It came to an address with a token of ours: strangers cannot use up the room for such.
    pub has_token: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Kept {
    directory: PathBuf,
    /// One writer at a time: this is for what seldom happens.
    usage: Mutex<Option<Usage>>,
}

/// What is kept, as of the last look at the directory, and since then.
#[derive(Clone, Copy, Debug)]
struct Usage {
    looked_at: Timestamp,
    count: u64,
    bytes: u64,
}

impl Kept {
    /// In this directory, which is made when the first message is kept.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, usage: Mutex::new(None) }
    }

    /// Keeps a message. Blocks.
    pub fn keep(&self, message: &Keep<'_>, now: Timestamp) -> Result<(), KeepError> {
        let mut known = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        let mut usage = self.usage(*known, now)?;
        *known = Some(usage);
        let more = u64::try_from(message.facts.len() + message.octets.len()).unwrap_or(u64::MAX);
        let share = if message.has_token { 1 } else { STRANGERS_SHARE };
        if usage.count >= KEPT_MAX / share || usage.bytes.saturating_add(more) > KEPT_BYTES_MAX / share {
            let Usage { count, bytes, .. } = usage;
            return Err(KeepError::Full { count, bytes, directory: self.directory.clone() });
        }
        let path = self.directory.join(format!("{}.{EXTENSION}", message.id));
        let unfinished = path.with_extension(UNFINISHED);
        if let Err(error) = write(&unfinished, message.facts, message.octets) {
            // It may not even be there.
            let _ = fs::remove_file(&unfinished);
            return Err(failed(&unfinished)(error));
        }
        fs::rename(&unfinished, &path).map_err(failed(&path))?;
        sync_directory(&self.directory).map_err(failed(&self.directory))?;
        (usage.count, usage.bytes) = (usage.count + 1, usage.bytes.saturating_add(more));
        *known = Some(usage);
        metrics::gauge!(metric::FEEDBACK_KEPT).set(u32::try_from(usage.count).unwrap_or(u32::MAX));
        Ok(())
    }

    /// What is there: looked at anew now and then, since the operator removes what was read.
    fn usage(&self, known: Option<Usage>, now: Timestamp) -> Result<Usage, KeepError> {
        if let Some(usage) = known.filter(|usage| now >= usage.looked_at && now.since(usage.looked_at) < LOOK_EACH) {
            return Ok(usage);
        }
        if !self.directory.is_dir() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
            made.map_err(failed(&self.directory))?;
            if let Some(parent) = self.directory.parent() {
                sync_directory(parent).map_err(failed(parent))?;
            }
        }
        let (count, bytes) = look(&self.directory).map_err(failed(&self.directory))?;
        Ok(Usage { looked_at: now, count, bytes })
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> KeepError {
    let path = path.to_owned();
    move |source| KeepError::Disk { path, source }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path).and_then(|directory| directory.sync_all())
}

/// Files and octets; what a crash left unfinished goes.
fn look(directory: &Path) -> io::Result<(u64, u64)> {
    let (mut count, mut bytes) = (0, 0);
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let extension = path.extension().unwrap_or_default();
        if extension == UNFINISHED {
            let _ = fs::remove_file(&path);
        } else if extension == EXTENSION {
            // One that is gone by now was read.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            count += 1;
            bytes += metadata.len();
        }
    }
    Ok((count, bytes))
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

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn keep(kept: &Kept, number: u128, octets: &[u8], has_token: bool, now: Timestamp) -> Result<(), KeepError> {
        let id = MessageId::new(Timestamp::EPOCH, number);
        kept.keep(&Keep { id, facts: "X-A: b\r\n", octets, has_token }, now)
    }

    #[test]
    fn what_is_kept_is_there_and_a_directory_that_is_full_refuses_until_the_operator_made_room() {
        let place = tempfile::tempdir().unwrap();
        let kept = Kept::new(place.path().join("feedback"));
        keep(&kept, 7, b"Subject: hello\r\n", false, NOW).unwrap();
        let path = place.path().join(format!("feedback/{}.eml", MessageId::new(Timestamp::EPOCH, 7)));
        assert_eq!(fs::read(&path).unwrap(), b"X-A: b\r\nSubject: hello\r\n");
        let unfinished = place.path().join("feedback/left-by-a-crash.tmp");
        fs::write(&unfinished, "x").unwrap();
        // As large as what strangers may fill, then as all may be.
        let large = place.path().join("feedback/large.eml");
        let file = File::create(&large).unwrap();
        file.set_len(KEPT_BYTES_MAX / 2).unwrap();
        let later = NOW.plus(LOOK_EACH);
        let error = keep(&kept, 8, b"x", false, later).unwrap_err();
        assert!(matches!(error, KeepError::Full { count: 2, .. }), "{error}");
        assert!(error.to_string().contains("remove them from"), "{error}");
        assert!(!unfinished.exists());
        keep(&kept, 9, b"x", true, later).unwrap();
        file.set_len(KEPT_BYTES_MAX).unwrap();
        let later = later.plus(LOOK_EACH);
        assert!(matches!(keep(&kept, 10, b"x", true, later), Err(KeepError::Full { count: 3, .. })));
        fs::remove_file(large).unwrap();
        assert!(keep(&kept, 10, b"x", true, later).is_err(), "not looked at for each message");
        keep(&kept, 10, b"x", false, later.plus(LOOK_EACH)).unwrap();
    }

    #[test]
    fn a_disk_that_cannot_be_written_is_named() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        let error = keep(&Kept::new(file.join("below")), 7, b"x", false, NOW).unwrap_err();
        assert!(error.to_string().contains("below"), "{error}");
    }
}
