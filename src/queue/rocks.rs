//! The store on RocksDB: the only file that names the crate.
//!
//! Tuned for a queue: a body lives in the WAL and the memtable, and where it is delivered within seconds, put and delete
//! meet in the memtable and nothing is ever flushed. The WAL has an upper bound, since an unbounded one made a reopen
//! take 8 s. A torn WAL tail is normal after a power cut; corruption before the tail refuses to open, with RocksDB's
//! own words, which name file and offset.

use std::path::Path;

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, Direction,
    IteratorMode, LogLevel, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::store::{Change, Family, Record, Store, StoreError};

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
}

impl RocksStore {
    /// Opens or creates the database in `directory`. Fails where another process has it open, where the WAL is corrupt
    /// before its tail, and on any I/O error.
    pub fn open(directory: &Path, settings: &RocksSettings) -> Result<Self, StoreError> {
        let cache = Cache::new_lru_cache(settings.block_cache_bytes);
        let families = Family::ALL
            .map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(family, settings, &cache)));
        let db = DB::open_cf_descriptors(&database_options(settings), directory, families)
            .map_err(|error| StoreError(format!("cannot open the queue in {}: {error}", directory.display())))?;
        Ok(Self { db })
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, StoreError> {
        self.db.cf_handle(family.name()).ok_or_else(|| StoreError(format!("column family {} is gone", family.name())))
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

fn database_options(settings: &RocksSettings) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
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
    StoreError(error.into_string())
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
}
