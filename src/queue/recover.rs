//! `posthaste queue recover`: makes a new queue of what can be read of a damaged one.
//!
//! Promises: refuses while a daemon has the queue; the damaged queue stays as it was, under another name; until the new one
//! is whole and synced, nothing takes the damaged one's place, so that an interrupted run is simply repeated.
//!
//! Ways to read, in this order: (1) a copy, opened past damaged log records; (2) another copy, whose manifest is made
//! anew from the table files that can be read; (3) the logs, replayed into an empty store, for families that (2) does not
//! know since they never had a table file. Table files are never changed by RocksDB, so copies share them by hard links.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, fcntl_lock, renameat_with};

use super::rocks::{RocksSettings, RocksStore};
use super::salvage::{Salvaged, Source, Sources, salvage};
use super::store::{Family, StoreError, StoreErrorKind};
use super::wal;
use crate::events::EventId;
use crate::types::Timestamp;

/// The store's directory within the data directory.
pub const STORE: &str = "queue";
/// Where copies and the new store are made, within the data directory.
const WORK: &str = "queue.recovering";
/// Logs are replayed into an empty store under numbers above those of its own files.
const REPLAY_NUMBER: usize = 900_000;

/// Why nothing was recovered. The damaged queue is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Stop the daemon first.
    #[error("{} is in use: stop posthaste first (`systemctl stop posthaste`)", .0.display())]
    InUse(PathBuf),
    /// The daemon could not read what another user makes.
    #[error("{} belongs to user {owner}: run this as that user (`runuser -u posthaste -- posthaste queue recover`)", .path.display())]
    NotOwner {
        /// The queue.
        path: PathBuf,
        /// Its owner's id.
        owner: u32,
    },
    /// There is no queue.
    #[error("there is no queue in {}", .0.display())]
    Missing(PathBuf),
    /// A copy cannot be made, or not be put in place.
    #[error("{what}: {error}; the damaged queue is as it was")]
    File {
        /// What was tried.
        what: String,
        /// What the file system says.
        error: io::Error,
    },
    /// The new store cannot be written.
    #[error("the new queue cannot be written: {0}; the damaged queue is as it was")]
    Store(#[from] StoreError),
    /// No way to read brought anything.
    #[error("nothing of the queue can be read: {0}; it is as it was")]
    Unreadable(String),
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The damaged queue, as it was.
    pub aside: PathBuf,
    /// What was kept and what was lost.
    pub salvaged: Salvaged,
}

/// Makes a new queue of what can be read in `data_dir`. `newest_in_files` is the newest event that an event file holds.
pub fn recover(
    data_dir: &Path,
    settings: &RocksSettings,
    newest_in_files: EventId,
    now: Timestamp,
) -> Result<Recovered, RecoverError> {
    let damaged = data_dir.join(STORE);
    if !damaged.is_dir() {
        return Err(RecoverError::Missing(damaged));
    }
    let owner = fs::metadata(&damaged).map_err(failed("cannot look at the queue"))?.uid();
    if owner != rustix::process::geteuid().as_raw() {
        return Err(RecoverError::NotOwner { path: damaged, owner });
    }
    // Held until the end. RocksDB takes the same lock.
    let _lock = lock(&damaged)?;
    let work = data_dir.join(WORK);
    clear(&work)?;
    let mut damage = wal::damages(&damaged);
    let sources = sources(&damaged, &work, settings, &mut damage)?;
    let new = work.join("new");
    let fresh = RocksStore::open(&new, settings)?;
    let mut salvaged = salvage(&sources, &fresh, newest_in_files, now)?;
    salvaged.damage.splice(0..0, damage);
    drop((fresh, sources));
    let aside = put_in_place(data_dir, &new, now)?;
    clear(&work)?;
    Ok(Recovered { aside, salvaged })
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> RecoverError {
    let what = what.into();
    move |error| RecoverError::File { what, error }
}

fn lock(directory: &Path) -> Result<File, RecoverError> {
    let path = directory.join("LOCK");
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(failed(format!("cannot open {}", path.display())))?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(RecoverError::InUse(directory.to_owned())),
    }
}

fn clear(directory: &Path) -> Result<(), RecoverError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(format!("cannot remove {}", directory.display()))(error))
        }
        _ => Ok(()),
    }
}

/// The ways to read that work.
fn sources(
    damaged: &Path,
    work: &Path,
    settings: &RocksSettings,
    damage: &mut Vec<String>,
) -> Result<Sources, RecoverError> {
    let mut sources = Vec::new();
    let copy = work.join("copy");
    copy_store(damaged, &copy)?;
    let mut problem = match RocksStore::salvage(&copy, settings) {
        Ok(store) => {
            let is_whole = store.verify(u64::MAX).map_err(|error| damage.push(error.to_string())).is_ok();
            sources.push(Source { name: "as it is", store: Box::new(store), families: Family::ALL.into() });
            if is_whole {
                return Ok(Sources(sources));
            }
            String::new()
        }
        Err(error) => error.to_string(),
    };
    let rebuilt = work.join("rebuilt");
    copy_store(damaged, &rebuilt)?;
    match rebuild(&rebuilt, settings) {
        Ok(source) => sources.push(source),
        Err(error) => problem = format!("{problem}; {error}"),
    }
    let is_known = |family: &Family| sources.iter().any(|source: &Source| source.families.contains(family));
    let missing: BTreeSet<Family> = Family::ALL.into_iter().filter(|family| !is_known(family)).collect();
    if !missing.is_empty() {
        let replayed = work.join("replayed");
        match replay(damaged, &replayed, settings) {
            Ok(store) => sources.push(Source { name: "its logs", store: Box::new(store), families: missing }),
            Err(error) => problem = format!("{problem}; {error}"),
        }
    }
    if !problem.is_empty() {
        damage.push(problem.clone());
    }
    if sources.is_empty() { Err(RecoverError::Unreadable(problem)) } else { Ok(Sources(sources)) }
}

fn rebuild(copy: &Path, settings: &RocksSettings) -> Result<Source, StoreError> {
    RocksStore::rebuild(copy, settings)?;
    let names = RocksStore::families(copy, settings)?;
    let families = Family::ALL.into_iter().filter(|family| names.iter().any(|name| name == family.name())).collect();
    let store = RocksStore::salvage(copy, settings)?;
    Ok(Source { name: "rebuilt", store: Box::new(store), families })
}

/// The logs alone, in a store that numbers its families as every store does.
fn replay(damaged: &Path, replayed: &Path, settings: &RocksSettings) -> Result<RocksStore, StoreError> {
    let failed = |error: io::Error| StoreError::new(StoreErrorKind::Failed, format!("logs cannot be copied: {error}"));
    fs::create_dir_all(replayed).map_err(failed)?;
    drop(RocksStore::open(replayed, settings)?);
    for (number, log) in wal::logs(damaged).iter().enumerate() {
        fs::copy(log, replayed.join(format!("{:06}.log", REPLAY_NUMBER + number))).map_err(failed)?;
    }
    RocksStore::salvage(replayed, settings)
}

/// Table files by link where that works; everything else, which RocksDB may write to, as a copy.
fn copy_store(from: &Path, to: &Path) -> Result<(), RecoverError> {
    let what = || format!("cannot copy {} to {}", from.display(), to.display());
    fs::create_dir_all(to).map_err(failed(what()))?;
    for entry in from.read_dir().map_err(failed(what()))? {
        let entry = entry.map_err(failed(what()))?;
        let (path, name) = (entry.path(), entry.file_name());
        // The lock of this process would end with the copy's close of the file.
        if name == "LOCK" || !path.is_file() {
            continue;
        }
        let target = to.join(&name);
        let is_table = path.extension().is_some_and(|end| end == "sst");
        if is_table && fs::hard_link(&path, &target).is_ok() {
            continue;
        }
        fs::copy(&path, &target).map_err(failed(format!("cannot copy {}", path.display())))?;
    }
    Ok(())
}

/// Swaps the two directories in one step, so that a daemon that starts meanwhile finds the one or the other.
fn put_in_place(data_dir: &Path, new: &Path, now: Timestamp) -> Result<PathBuf, RecoverError> {
    let place = data_dir.join(STORE);
    let aside = free_name(data_dir, now);
    let what = format!("cannot put {} in place of {}", new.display(), place.display());
    match renameat_with(CWD, new, CWD, &place, RenameFlags::EXCHANGE) {
        Ok(()) => fs::rename(new, &aside).map_err(failed(what))?,
        // A file system that cannot: there is no queue for an instant.
        Err(_) => {
            fs::rename(&place, &aside).map_err(failed(what.clone()))?;
            fs::rename(new, &place).map_err(failed(what))?;
        }
    }
    File::open(data_dir)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("cannot sync the data directory"))?;
    Ok(aside)
}

fn free_name(data_dir: &Path, now: Timestamp) -> PathBuf {
    let mut seconds = now.millis() / 1_000;
    loop {
        let aside = data_dir.join(format!("queue.damaged-{seconds}"));
        if !aside.exists() {
            return aside;
        }
        seconds += 1;
    }
}
