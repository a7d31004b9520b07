//! The store on RocksDB: the only file that names the crate.
//!
//! Tuned for a queue: a body lives in the WAL and the memtable, and where it is delivered within seconds, put and delete
//! meet in the memtable and nothing is ever flushed. The WAL has an upper bound, since an unbounded one made a reopen
//! take 8 s. Files are never written through memory maps: a sync covers all that was written.
//!
//! A torn WAL tail is normal after a power cut and is dropped: it was never synced. Corruption before the tail, a missing
//! or damaged table file or manifest refuse to open; the error names file and offset and says what to do. Table files
//! are read through at the start, up to `VERIFY_BYTES_MAX`; beyond, a damaged block is found when it is read.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, Direction, ErrorKind, IteratorMode, LogLevel, Options, ReadOptions, WriteBatch, WriteOptions,
    properties,
};

use super::store::{Change, Family, Record, Store, StoreError, StoreErrorKind};
use super::wal;

/// Deletions among this many consecutive keys make a file worth compacting.
const DELETION_WINDOW: usize = 8_192;
const DELETION_TRIGGER: usize = 4_096;
/// Info log files that RocksDB keeps beside its data.
const INFO_LOGS_MAX: usize = 5;
/// Memtables of one family before writes wait for a flush.
const MEMTABLES_MAX: i32 = 3;
/// Memtable of the families with small records.
const SMALL_MEMTABLE_BYTES: usize = 16 << 20;
/// Open table files; beyond, the least used is closed and opened again when needed.
const OPEN_FILES_MAX: i32 = 1_000;

/// Octets of table files that are read through at the start. Beyond: the families whose damage would stop or mislead
/// everything are read first, the rest is checked when it is read, and a message with a damaged block is set aside.
const VERIFY_BYTES_MAX: u64 = 512 << 20;
/// In the order in which they are read through.
const VERIFY_ORDER: [Family; 15] = [
    Family::Meta,
    Family::Due,
    Family::Hold,
    Family::Outbox,
    Family::Counter,
    Family::Lane,
    Family::Source,
    Family::Reputation,
    Family::Recipient,
    Family::Message,
    Family::Body,
    Family::BodyPart,
    Family::Suppression,
    Family::History,
    Family::Sent,
];
/// Cache of the suppression lists alone: the filters of 20 million entries. Full: the least used part of a filter is read
/// from the disk again.
const SUPPRESSION_CACHE_BYTES_MAX: usize = 32 << 20;
/// A part of a filter or an index: small, so that the cache holds what is asked for.
const SUPPRESSION_FILTER_PART_BYTES: usize = 16 << 10;
/// Where damaged records are kept, within the directory of the database, which ignores it.
const ASIDE: &str = "damaged";

/// What an administrator can set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RocksSettings {
    /// Memtable of the bodies: at least twice the bytes accepted in the seconds that a delivery takes.
    pub memtable_bytes: usize,
    /// Upper bound of the write-ahead log.
    pub wal_bytes_max: u64,
    /// Block cache for reads of older messages.
    pub block_cache_bytes: usize,
}

impl Default for RocksSettings {
    fn default() -> Self {
        Self { memtable_bytes: 64 << 20, wal_bytes_max: 512 << 20, block_cache_bytes: 32 << 20 }
    }
}

/// See the module.
pub struct RocksStore {
    db: DB,
    directory: PathBuf,
}

/// How a database that may be damaged is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Care {
    /// Anything wrong but a torn tail refuses to open.
    Strict,
    /// What can be opened is opened, and what can be read can be read: for a copy that is salvaged.
    Salvage,
}

impl RocksStore {
    /// Opens or creates the database in `directory`. Fails where another process has it open, where it is damaged, and on
    /// any I/O error.
    pub fn open(directory: &Path, settings: &RocksSettings) -> Result<Self, StoreError> {
        // RocksDB would make a new, empty database here, and take the files of the old one for garbage.
        if !directory.join("CURRENT").exists() && holds_data(directory) {
            return Err(damaged(directory, "the file CURRENT, which names the manifest, is missing"));
        }
        // RocksDB takes some damage for the end of a log, and would go on without what follows.
        let damages = wal::damages(directory);
        if !damages.is_empty() {
            return Err(damaged(directory, &damages.join("; ")));
        }
        let opened = Self::open_with(directory, settings, Care::Strict).and_then(|store| {
            store.verify(VERIFY_BYTES_MAX)?;
            Ok(store)
        });
        opened.map_err(|error| explain(directory, &error))
    }

    /// Opens a damaged database as far as it goes. It is changed by that: for copies only.
    pub fn salvage(directory: &Path, settings: &RocksSettings) -> Result<Self, StoreError> {
        Self::open_with(directory, settings, Care::Salvage)
    }

    /// Makes a new manifest from the table files and logs that can be read; those that cannot go to `lost`. Families of
    /// which no table file is left are not in it. For copies only.
    pub fn rebuild(directory: &Path, settings: &RocksSettings) -> Result<(), StoreError> {
        DB::repair(&database_options(settings, Care::Salvage), directory).map_err(store_error)
    }

    /// The families that a database has.
    pub fn families(directory: &Path, settings: &RocksSettings) -> Result<Vec<String>, StoreError> {
        DB::list_cf(&database_options(settings, Care::Salvage), directory).map_err(store_error)
    }

    fn open_with(directory: &Path, settings: &RocksSettings, care: Care) -> Result<Self, StoreError> {
        Self::open_families(directory, settings, care, &Family::ALL)
    }

    /// Makes a database as a release made it that knew these families only.
    #[cfg(test)]
    pub(super) fn of_old(directory: &Path, families: &[Family]) -> Result<Self, StoreError> {
        Self::open_families(directory, &RocksSettings::default(), Care::Strict, families)
    }

    fn open_families(
        directory: &Path,
        settings: &RocksSettings,
        care: Care,
        families: &[Family],
    ) -> Result<Self, StoreError> {
        let cache = Cache::new_lru_cache(settings.block_cache_bytes);
        let families = families
            .iter()
            .map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(*family, settings, &cache)));
        let options = database_options(settings, care);
        let db = DB::open_cf_descriptors(&options, directory, families).map_err(store_error)?;
        Ok(Self { db, directory: directory.to_owned() })
    }

    /// Reads table files through, up to so many octets, so that their checksums are compared.
    pub(super) fn verify(&self, bytes_max: u64) -> Result<(), StoreError> {
        let mut left_bytes = bytes_max;
        for family in VERIFY_ORDER {
            let handle = self.family(family)?;
            let size = self.db.property_int_value_cf(handle, properties::TOTAL_SST_FILES_SIZE);
            let Some(size_bytes) = size.map_err(store_error)?.filter(|size_bytes| *size_bytes <= left_bytes) else {
                return Ok(());
            };
            left_bytes -= size_bytes;
            if size_bytes > 0 {
                self.read_through(handle)?;
            }
        }
        Ok(())
    }

    fn read_through(&self, family: &ColumnFamily) -> Result<(), StoreError> {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.fill_cache(false);
        let mut records = self.db.raw_iterator_cf_opt(family, options);
        records.seek_to_first();
        while records.valid() {
            records.next();
        }
        records.status().map_err(store_error)
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, StoreError> {
        let gone = || StoreError::new(StoreErrorKind::Damaged, format!("column family {} is gone", family.name()));
        self.db.cf_handle(family.name()).ok_or_else(gone)
    }

    fn to_batch(&self, changes: &[Change]) -> Result<WriteBatch, StoreError> {
        let bytes: usize = changes
            .iter()
            .map(|change| if let Change::Put { value, .. } = change { value.len() + 64 } else { 64 })
            .sum();
        let mut batch = WriteBatch::with_capacity_bytes(bytes);
        for change in changes {
            match change {
                Change::Put { family, key, value } => batch.put_cf(self.family(*family)?, key, value),
                Change::Delete { family, key } if family.is_written_once() => {
                    batch.single_delete_cf(self.family(*family)?, key);
                }
                Change::Delete { family, key } => batch.delete_cf(self.family(*family)?, key),
                Change::DeleteRange { family, from, to } => batch.delete_range_cf(self.family(*family)?, from, to),
            }
        }
        Ok(batch)
    }
}

fn database_options(settings: &RocksSettings, care: Care) -> Options {
    let mut options = Options::default();
    options.create_if_missing(care == Care::Strict);
    options.create_missing_column_families(true);
    options.set_wal_recovery_mode(match care {
        Care::Strict => DBRecoveryMode::TolerateCorruptedTailRecords,
        Care::Salvage => DBRecoveryMode::SkipAnyCorruptedRecord,
    });
    options.set_paranoid_checks(care == Care::Strict);
    // A closed log that is missing or too short at the next start is noticed.
    options.set_track_and_verify_wals_in_manifest(care == Care::Strict);
    options.set_max_total_wal_size(settings.wal_bytes_max);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(INFO_LOGS_MAX);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

fn family_options(family: Family, settings: &RocksSettings, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_bloom_filter(10.0, false);
    if family == Family::Suppression {
        // Most addresses are on no list: the filters answer, and are bounded however long the lists are.
        blocks.set_block_cache(&Cache::new_lru_cache(SUPPRESSION_CACHE_BYTES_MAX));
        blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        blocks.set_partition_filters(true);
        blocks.set_metadata_block_size(SUPPRESSION_FILTER_PART_BYTES);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_top_level_index_and_filter(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    }
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    // The same at all levels: records come in the order of their keys, so that compaction can move their files as they are;
    // another compression at the bottom would make it write each of them again.
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_max_write_buffer_number(MEMTABLES_MAX);
    options.add_compact_on_deletion_collector_factory(DELETION_WINDOW, DELETION_TRIGGER, 0.5);
    let memtable_bytes = match family {
        Family::Body | Family::BodyPart => settings.memtable_bytes,
        Family::Message | Family::Outbox => (settings.memtable_bytes / 2).max(SMALL_MEMTABLE_BYTES),
        _ => SMALL_MEMTABLE_BYTES,
    };
    options.set_write_buffer_size(memtable_bytes);
    options
}

fn store_error(error: rocksdb::Error) -> StoreError {
    let kind = match error.kind() {
        ErrorKind::Corruption => StoreErrorKind::Damaged,
        // A sync that fails, for whatever reason, leaves pages that nobody will write again.
        ErrorKind::IOError if error.as_ref().contains("sync: ") => StoreErrorKind::Failed,
        ErrorKind::IOError if error.as_ref().contains("No space left on device") => StoreErrorKind::Full,
        _ => StoreErrorKind::Failed,
    };
    StoreError::new(kind, error.into_string())
}

/// Whether a directory has files of a database that hold data.
fn holds_data(directory: &Path) -> bool {
    let names = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .any(|name| [".sst", ".log"].iter().any(|end| name.ends_with(end)) || name.starts_with("MANIFEST-"))
}

/// Why the database does not open, and what to do.
fn explain(directory: &Path, error: &StoreError) -> StoreError {
    let shown = directory.display();
    let text = error.to_string();
    let is_missing = text.contains("No such file");
    if error.kind != StoreErrorKind::Damaged && !is_missing {
        let hint = if text.contains("LOCK") { "; is another posthaste running on it?" } else { "" };
        return StoreError::new(error.kind, format!("cannot open the queue in {shown}: {text}{hint}"));
    }
    damaged(directory, &text)
}

fn damaged(directory: &Path, what: &str) -> StoreError {
    let text = format!(
        "the queue in {} is damaged: {what}. Nothing is delivered from it as it is. Look at the disk first; then \
         `posthaste queue recover` puts the damaged queue aside, makes a new one of all that can be read, and lists what \
         is lost",
        directory.display()
    );
    StoreError::new(StoreErrorKind::Damaged, text)
}

impl Store for RocksStore {
    fn write(&self, changes: &[Change], sync: bool) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(self.to_batch(changes)?, &options).map_err(store_error)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.db.flush_wal(true).map_err(store_error)
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.db.get_cf(self.family(family)?, key).map_err(store_error)?;
        Ok(value.map(Bytes::from))
    }

    fn may_contain(&self, family: Family, key: &[u8]) -> bool {
        self.family(family).is_ok_and(|family| self.db.key_may_exist_cf(family, key))
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Record>, StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        let mode = IteratorMode::From(from, Direction::Forward);
        let records = self.db.iterator_cf_opt(self.family(family)?, options, mode).take(limit);
        records.map(|record| record.map(|(key, value)| (key.into(), Bytes::from(value))).map_err(store_error)).collect()
    }

    fn last(&self, family: Family) -> Result<Option<Record>, StoreError> {
        let mut records = self.db.iterator_cf(self.family(family)?, IteratorMode::End);
        let last = records.next().transpose().map_err(store_error)?;
        Ok(last.map(|(key, value)| (key.into(), Bytes::from(value))))
    }

    fn set_aside(&self, name: &str, bytes: &[u8]) -> Result<String, StoreError> {
        let directory = self.directory.join(ASIDE);
        let path = directory.join(name);
        let failed = |error: std::io::Error| StoreError::new(StoreErrorKind::Failed, error.to_string());
        match std::fs::create_dir(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        std::fs::write(&path, bytes).map_err(failed)?;
        Ok(path.display().to_string())
    }
}
