//! The life of sources of managed pools over a restart: which are in use, and since when.
//!
//! The scheduler says when a record changes; the events that tell of it go in one batch with it. Records are read once, at the
//! start. Does not: sync by itself (a record rides on the next sync, 100 ms later at most), or know what the numbers mean.

use queue_format as format;

use super::committer::Transaction;
use super::store::{Change, Family, Key, Store, StoreError};
use super::{Queue, pages};
use crate::events::{EventLine, metric};
use crate::types::{SourceName, Timestamp};

/// Records that are read. Beyond: they are left out, and their sources begin anew; a config has 1,000 sources at most.
const SOURCE_LIVES_MAX: usize = 65_536;

/// A source of a managed pool, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLife {
    /// Its name.
    pub source: SourceName,
    /// The number of its life.
    pub life: u8,
    /// Since when.
    pub since: Timestamp,
    /// Days in a row on which its pool had little to send.
    pub low_days: u32,
}

impl Queue {
    /// What is kept of all sources, in no order that means anything. Damaged records are told of and left out. Blocks.
    pub fn source_lives(&self) -> Result<Vec<SourceLife>, StoreError> {
        read(&*self.0.store)
    }

    /// Writes these in place of what is there, as one with the events that tell of it. Waits only for room in the committer's
    /// queue; where the disk fails, it is tried again until it works.
    pub async fn save_source_life(&self, lives: &[SourceLife], events: Vec<EventLine>) {
        let changes = lives.iter().map(put_change).collect();
        self.submit(Transaction { changes, events, ..Transaction::empty() }).await;
    }
}

fn put_change(life: &SourceLife) -> Change {
    let SourceLife { source, life, since, low_days } = life;
    let (source, life, low_days) = (source.as_str().to_owned(), *life, *low_days);
    let key = Key::new(&format::source_key(&source));
    let record = format::SourceLifeRecord { source, life, since_ms: since.millis(), low_days };
    let mut value = Vec::with_capacity(record.encoded_len_hint());
    record.encode(&mut value);
    Change::Put { family: Family::Source, key, value: value.into() }
}

pub(super) fn read(store: &dyn Store) -> Result<Vec<SourceLife>, StoreError> {
    let mut lives = Vec::new();
    pages::each(store, Family::Source, |key, value| {
        match decode(key, value) {
            Ok(life) => lives.push(life),
            Err(error) => {
                tracing::error!(?key, %error, "the record of a source's life is damaged: it begins anew");
                metrics::counter!(metric::DAMAGED_RECORDS, "record" => "source").increment(1);
            }
        }
        lives.len() < SOURCE_LIVES_MAX
    })?;
    Ok(lives)
}

/// What a record holds, or what is wrong with it.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<SourceLife, String> {
    let record = format::SourceLifeRecord::decode(value).map_err(|error| error.to_string())?;
    if format::source_key(&record.source) != key {
        return Err(format!("it is that of {} and stands elsewhere", record.source));
    }
    let source = SourceName::parse(&record.source).ok_or_else(|| format!("{:?} is no source", record.source))?;
    let since = Timestamp::from_millis(record.since_ms);
    Ok(SourceLife { source, life: record.life, since, low_days: record.low_days })
}

/// What is wrong with the records of a store.
pub(super) fn violations(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    pages::each(store, Family::Source, |key, value| {
        found.extend(decode(key, value).err());
        true
    })?;
    Ok(found)
}
